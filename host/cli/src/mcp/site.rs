//! What all homes of this process are made of: the extensions, loaded once.
//!
//! With `--watch` they are loaded anew when one of their files has changed. What can't be loaded leaves all as it was. Each home then ends its
//! session as any session ends, opens one with the new extensions, and tells its clients that the lists have changed; a call that comes
//! meanwhile waits.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, join_all};
use pi_vers_host::{Extension, Host};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::home::{Home, House};
use super::http::Counted;
use super::listing::{self, Listing};
use super::locked;
use super::skills::Skills;
use crate::args::Mcp;
use crate::failure::Failure;
use crate::local::Local;
use crate::setup;
use crate::terminal::Terminal;

/// Something that is made once, and that many wait for.
pub(crate) type Eventually<T> = Shared<BoxFuture<'static, Result<Arc<T>, Arc<Failure>>>>;

/// The local platform, from when it is attached.
pub(crate) type Place = Arc<Mutex<Option<Local>>>;

/// Extensions, and the host that loaded them.
pub(crate) struct Loaded {
    pub(crate) host: Host,
    pub(crate) extensions: Vec<Extension>,
}

/// See the module.
pub(crate) struct Site {
    /// Where extensions run. Whoever serves clients runs elsewhere, and answers whatever those do.
    pub(crate) main: Handle,
    pub(crate) options: Mcp,
    loading: Mutex<Eventually<Loaded>>,
    place: Place,
    homes: Mutex<Vec<Weak<Home>>>,
    /// Where the list of what is offered is kept, and the one of an earlier process.
    kept: Option<PathBuf>,
    early: Option<Listing>,
    /// Of any home: all offer the same.
    newest: Mutex<Option<Arc<House>>>,
    pub(crate) skills: Skills,
    pub(crate) end: CancellationToken,
}

/// Begins to make something, where extensions run.
pub(crate) fn eventually<T: Send + Sync + 'static>(
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
            let (options, place) = (options.clone(), place.clone());
            let work = async move {
                let loaded = load(&terminal, &options, &place).await;
                // Each call says it, too; clients keep this in their logs.
                loaded.inspect_err(|why| tracing::error!("{}", why.line()))
            };
            eventually(&main, work)
        };
        Arc::new(Self {
            main,
            options,
            loading: Mutex::new(loading),
            place,
            homes: Mutex::default(),
            kept,
            early,
            newest: Mutex::default(),
            skills,
            end: CancellationToken::new(),
        })
    }

    /// The extensions, once they are loaded. Cancel-safe.
    pub(crate) async fn loaded(&self) -> Result<Arc<Loaded>, Arc<Failure>> {
        let loading = locked(&self.loading).clone();
        loading.await
    }

    /// What can be told until a home's session runs.
    pub(crate) fn early(&self) -> Option<&Listing> {
        self.early.as_ref()
    }

    /// Keeps what is offered for the next process. Not if the files are others by now: then it may be of those.
    pub(crate) fn keep(&self, listing: &Listing) {
        if listing::file(&self.options.loading) != self.kept {
            return;
        }
        if let Some(Err(why)) = self.kept.as_deref().map(|file| listing.write(file)) {
            tracing::debug!("the list of tools is not kept: {why}");
        }
    }

    /// The session of any home, for what is the same in all of them.
    pub(crate) fn newest(&self) -> Option<Arc<House>> {
        locked(&self.newest).clone()
    }

    pub(crate) fn set_newest(&self, house: Arc<House>) {
        *locked(&self.newest) = Some(house);
    }

    /// The name that the command line gives the session.
    pub(crate) fn stored(&self) -> Option<String> {
        self.options.session.clone()
    }

    /// Opens a home. `stored`: under which name its session is remembered.
    pub(crate) fn open(
        self: &Arc<Self>,
        stored: Option<String>,
        counted: Option<Counted>,
    ) -> Arc<Home> {
        let home = Home::open(self, stored, counted);
        let mut homes = locked(&self.homes);
        homes.retain(|home| home.strong_count() > 0);
        homes.push(Arc::downgrade(&home));
        home
    }

    /// Loads the extensions again. Says whether they are others now.
    ///
    /// # Errors
    /// They can't be loaded: then all stays as it was.
    pub(crate) async fn reload(&self) -> Result<bool, Failure> {
        let old = self.loaded().await;
        let local = locked(&self.place).as_ref().map(Local::settings);
        let settings = match local {
            Some(settings) => settings?,
            None => setup::settings()?,
        };
        let options = self.options.loading.clone();
        let work = async move { setup::load(&options, settings).await };
        let loaded = self.main.spawn(work).await;
        let (host, extensions) =
            loaded.map_err(|why| Failure::internal(format!("loading ended: {why}")))??;
        let digests = |all: &[Extension]| all.iter().map(Extension::digest).collect::<Vec<_>>();
        if old.is_ok_and(|old| digests(&old.extensions) == digests(&extensions)) {
            return Ok(false);
        }
        let loaded: Result<_, Arc<Failure>> = Ok(Arc::new(Loaded { host, extensions }));
        *locked(&self.loading) = async move { loaded }.boxed().shared();
        let homes: Vec<Arc<Home>> = locked(&self.homes)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        join_all(homes.iter().map(Home::renew)).await;
        Ok(true)
    }
}

async fn load(terminal: &Terminal, options: &Mcp, place: &Place) -> Result<Loaded, Failure> {
    let settings = if options.local {
        let local = Local::attach(terminal, options.state.as_deref()).await?;
        let settings = local.settings();
        *locked(place) = Some(local);
        settings?
    } else {
        setup::settings()?
    };
    let (host, extensions) = setup::load(&options.loading, settings).await?;
    Ok(Loaded { host, extensions })
}
