//! The host with its session, which is there some time after the process began.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use pi_vers_host::{Extension, Session, StartReason};

use super::catalogue::Catalogue;
use super::desk::{Desk, News};
use super::front::{Board, Front};
use super::listing::Listing;
use crate::args::Mcp;
use crate::failure::Failure;
use crate::harness::{self, CommandLine};
use crate::local::Local;
use crate::session::Stored;
use crate::setup;
use crate::terminal::Terminal;

/// See the module.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) session: Session,
    pub(crate) catalogue: Catalogue,
}

/// The house, once it stands.
pub(crate) type Opening = Shared<BoxFuture<'static, Result<Arc<House>, Arc<Failure>>>>;

/// The local platform, from when it is attached.
pub(crate) type Place = Arc<Mutex<Option<Local>>>;

/// Begins to load; what comes of it can be waited for more than once.
pub(crate) fn open(
    terminal: Arc<Terminal>,
    options: Mcp,
    (kept, early): (Option<PathBuf>, Option<Listing>),
    desk: Arc<Desk>,
    board: Arc<Mutex<Board>>,
    place: Place,
) -> Opening {
    let loading = tokio::spawn(async move {
        let house = load(&terminal, &options, desk.clone(), board, &place).await?;
        let listing = Listing::of(&house.catalogue);
        if early.as_ref() != Some(&listing) {
            if early.is_some() {
                desk.news(&News::Tools);
                desk.news(&News::Prompts);
            }
            if let Some(Err(why)) = kept.map(|file| listing.write(&file)) {
                tracing::debug!("the list of tools is not kept: {why}");
            }
        }
        Ok::<_, Failure>(house)
    });
    async move {
        match loading.await {
            Ok(Ok(house)) => Ok(Arc::new(house)),
            Ok(Err(why)) => Err(Arc::new(why)),
            Err(why) => Err(Arc::new(Failure::internal(format!("loading ended: {why}")))),
        }
    }
    .boxed()
    .shared()
}

async fn load(
    terminal: &Terminal,
    options: &Mcp,
    desk: Arc<Desk>,
    board: Arc<Mutex<Board>>,
    place: &Place,
) -> Result<House, Failure> {
    let settings = if options.local {
        let local = Local::attach(terminal, options.state.as_deref()).await?;
        let settings = local.settings();
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(local);
        settings?
    } else {
        setup::settings()?
    };
    let (host, mut extensions) = setup::load(&options.loading, settings).await?;
    let stored = match &options.session {
        Some(name) => Some(Stored::open(name).await?),
        None => None,
    };
    let resumed = match &stored {
        Some(stored) => !stored.is_new().await,
        None => false,
    };
    let flags = harness::flags(&options.flag, extensions.iter().map(Extension::info))?;
    let line = CommandLine::new(Arc::new(Terminal::new(true)), stored, flags)?;
    let front = Arc::new(Front::new(line, desk, board));
    let (session, left_out) = setup::open(&host, front, &mut extensions)?;
    for left_out in left_out {
        tracing::warn!("{left_out}");
    }
    let catalogue = Catalogue::of(&session);
    let reason = if resumed {
        StartReason::Resume
    } else {
        StartReason::Startup
    };
    // A call may be quicker than the start.
    session.set_reason(reason);
    tokio::spawn({
        let session = session.clone();
        async move {
            if let Err(why) = session.start(reason).await {
                // The others have started; a call of this one says it again.
                tracing::warn!("{}", Failure::from(why).line());
            }
        }
    });
    Ok(House { session, catalogue })
}
