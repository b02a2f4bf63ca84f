//! What stands behind a client: a session of the extensions, and all that belongs to it.
//!
//! The process loads the extensions once and opens a session for each home. Over standard input there is one home. Over HTTP each
//! session of an older client has its own, and newer clients, which have no sessions, share one for each name in their URL. What
//! one home knows (which VM is active, parked calls, tasks, widgets) no other one sees.
//!
//! Loading takes a while. What needs it waits for [`Home::house`]; nothing else does.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use pi_vers_host::{CallError, Cause, Extension, Host, Session, StartReason};
use rmcp::task_manager::TaskManager;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::catalogue::Catalogue;
use super::desk::{Desk, News};
use super::front::{Board, Front};
use super::http::Counted;
use super::listing::{self, Listing};
use super::parking::Parking;
use super::running::{PromptEnd, ToolEnd};
use super::skills::Skills;
use crate::args::Mcp;
use crate::failure::Failure;
use crate::harness::{self, CommandLine};
use crate::local::Local;
use crate::session::Stored;
use crate::setup;
use crate::terminal::Terminal;

/// A session that runs.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) session: Session,
    pub(crate) catalogue: Catalogue,
}

type Eventually<T> = Shared<BoxFuture<'static, Result<Arc<T>, Arc<Failure>>>>;

/// The local platform, from when it is attached.
pub(crate) type Place = Arc<Mutex<Option<Local>>>;

struct Loaded {
    host: Host,
    extensions: Vec<Extension>,
}

/// What all homes of this process are made of.
pub(crate) struct Site {
    /// Where extensions run. Whoever serves clients runs elsewhere, and answers whatever those do.
    pub(crate) main: Handle,
    options: Mcp,
    loading: Eventually<Loaded>,
    /// Where the list of what is offered is kept, and the one of an earlier process.
    kept: Option<PathBuf>,
    early: Option<Listing>,
    /// The newest catalogue of any home: all have the same tools.
    pub(crate) catalogue: OnceLock<Arc<House>>,
    pub(crate) skills: Skills,
    pub(crate) end: CancellationToken,
}

/// See the module.
pub(crate) struct Home {
    pub(crate) site: Arc<Site>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) board: Arc<Mutex<Board>>,
    pub(crate) calls: Arc<Parking<ToolEnd>>,
    pub(crate) prompts: Arc<Parking<PromptEnd>>,
    pub(crate) tasks: TaskManager,
    opening: Eventually<House>,
    /// Fires when everything of this home is given up.
    pub(crate) end: CancellationToken,
    _counted: Option<Counted>,
}

fn eventually<T: Send + Sync + 'static>(
    main: &Handle,
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Eventually<T> {
    let work = main.spawn(work);
    async move {
        match work.await {
            Ok(Ok(done)) => Ok(Arc::new(done)),
            Ok(Err(why)) => Err(Arc::new(why)),
            Err(why) => Err(Arc::new(Failure::internal(format!("loading ended: {why}")))),
        }
    }
    .boxed()
    .shared()
}

impl Site {
    /// Begins to load.
    pub(crate) fn new(
        terminal: Arc<Terminal>,
        options: Mcp,
        skills: Skills,
        place: Place,
    ) -> Arc<Self> {
        let main = Handle::current();
        let kept = listing::file(&options.loading);
        let early = kept.as_deref().and_then(Listing::read);
        let loading = {
            let options = options.clone();
            eventually(
                &main,
                async move { load(&terminal, &options, &place).await },
            )
        };
        Arc::new(Self {
            main,
            options,
            loading,
            kept,
            early,
            catalogue: OnceLock::new(),
            skills,
            end: CancellationToken::new(),
        })
    }

    /// What can be told until a home's session runs.
    pub(crate) fn early(&self) -> Option<&Listing> {
        self.early.as_ref()
    }

    /// Opens a home. `stored`: under which name its session is remembered.
    pub(crate) fn open(
        self: &Arc<Self>,
        stored: Option<String>,
        counted: Option<Counted>,
    ) -> Arc<Home> {
        let (desk, board) = (Arc::<Desk>::default(), Arc::<Mutex<Board>>::default());
        let opening = eventually(
            &self.main,
            build(self.clone(), stored, desk.clone(), board.clone()),
        );
        Arc::new(Home {
            site: self.clone(),
            desk,
            board,
            calls: Parking::new(),
            prompts: Parking::new(),
            tasks: TaskManager::new(),
            opening,
            end: self.end.child_token(),
            _counted: counted,
        })
    }

    /// The name that the command line gives the session.
    pub(crate) fn stored(&self) -> Option<String> {
        self.options.session.clone()
    }
}

async fn load(terminal: &Terminal, options: &Mcp, place: &Place) -> Result<Loaded, Failure> {
    let settings = if options.local {
        let local = Local::attach(terminal, options.state.as_deref()).await?;
        let settings = local.settings();
        *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(local);
        settings?
    } else {
        setup::settings()?
    };
    let (host, extensions) = setup::load(&options.loading, settings).await?;
    Ok(Loaded { host, extensions })
}

async fn build(
    site: Arc<Site>,
    stored: Option<String>,
    desk: Arc<Desk>,
    board: Arc<Mutex<Board>>,
) -> Result<House, Failure> {
    let loaded = site.loading.clone().await;
    let loaded = loaded.map_err(|why| Failure::clone(&why))?;
    let mut extensions = loaded.extensions.clone();
    let stored = match stored {
        Some(name) => Some(Stored::open(&name).await?),
        None => None,
    };
    let resumed = match &stored {
        Some(stored) => !stored.is_new().await,
        None => false,
    };
    let flags = extensions.iter().map(Extension::info);
    let flags = harness::flags(&site.options.flag, flags)?;
    let line = CommandLine::new(Arc::new(Terminal::new(true)), stored, flags)?;
    let front = Arc::new(Front::new(line, desk.clone(), board));
    let (session, left_out) = setup::open(&loaded.host, front, &mut extensions)?;
    for left_out in left_out {
        tracing::warn!("{left_out}");
    }
    let catalogue = Catalogue::of(&session);
    let listing = Listing::of(&catalogue);
    if site.early.as_ref() != Some(&listing) {
        if site.early.is_some() {
            desk.news(&News::Tools);
            desk.news(&News::Prompts);
        }
        if let Some(Err(why)) = site.kept.as_deref().map(|file| listing.write(file)) {
            tracing::debug!("the list of tools is not kept: {why}");
        }
    }
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

impl Home {
    /// The session, once it runs. Cancel-safe.
    pub(crate) async fn house(&self) -> Result<Arc<House>, Arc<Failure>> {
        let house = self.opening.clone().await?;
        self.site.catalogue.get_or_init(|| house.clone());
        Ok(house)
    }

    /// The session, if it runs already.
    pub(crate) fn standing(&self) -> Option<Arc<House>> {
        self.opening.clone().now_or_never()?.ok()
    }

    /// Asks the session something, where extensions run. Given up when dropped.
    pub(crate) async fn ask<T, F>(
        &self,
        work: impl FnOnce(Session, Cause) -> F + Send + 'static,
    ) -> Result<T, CallError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let house = self.house().await.map_err(|_| CallError::Closed)?;
        let cause = Cause {
            id: None,
            cancel: self.end.child_token(),
        };
        let _given_up = cause.cancel.clone().drop_guard();
        let work = work(house.session.clone(), cause);
        let done = self.site.main.spawn(work).await;
        done.unwrap_or(Err(CallError::Closed))
    }

    /// Gives everything up and ends the session. Returns when what was started is gone; whoever calls has a limit.
    pub(crate) async fn end(&self) {
        self.end.cancel();
        self.calls.clear();
        self.prompts.clear();
        self.tasks.shutdown();
        // One that does not run yet has started nothing.
        if let Some(house) = self.standing() {
            let session = house.session.clone();
            let _ = self.site.main.spawn(session.end()).await;
        }
    }

    /// The same for a process that goes on: nobody waits, and a session that is still being opened ends, too.
    pub(crate) fn retire(self: Arc<Self>) {
        let main = self.site.main.clone();
        main.spawn(async move {
            let _ = self.house().await;
            self.end().await;
        });
    }
}
