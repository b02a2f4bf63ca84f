//! What stands behind a client: a session of the extensions, and all that belongs to it.
//!
//! Over standard input there is one home. Over HTTP each
//! session of an older client has its own, and newer clients, which have no sessions, share one for each name in their URL. What
//! one home knows (which VM is active, parked calls, tasks, widgets) no other one sees.
//!
//! Opening takes a while. What needs the session waits for [`Home::house`]; nothing else does.

use std::sync::{Arc, Mutex, OnceLock};

use futures::FutureExt as _;
use pi_vers_host::{CallError, Cause, Extension, Session, StartReason};
use rmcp::task_manager::TaskManager;
use tokio_util::sync::CancellationToken;

use super::catalogue::Catalogue;
use super::desk::{Desk, News};
use super::front::{Board, Front};
use super::http::Counted;
use super::listing::Listing;
use super::locked;
use super::parking::Parking;
use super::running::{PromptEnd, ToolEnd};
use super::site::{Eventually, Loaded, Site, eventually};
use crate::failure::Failure;
use crate::harness::{self, CommandLine};
use crate::hook::ActiveVm;
use crate::session::Stored;
use crate::setup;
use crate::terminal::Terminal;

/// A session that runs.
#[derive(Debug)]
pub(crate) struct House {
    pub(crate) session: Session,
    pub(crate) catalogue: Catalogue,
}

/// See the module.
pub(crate) struct Home {
    pub(crate) site: Arc<Site>,
    pub(crate) desk: Arc<Desk>,
    pub(crate) board: Arc<Mutex<Board>>,
    /// Which VM is active, for hooks.
    pub(crate) active: ActiveVm,
    pub(crate) calls: Arc<Parking<ToolEnd>>,
    pub(crate) prompts: Arc<Parking<PromptEnd>>,
    pub(crate) tasks: TaskManager,
    /// The harness of its sessions, from the first one on.
    front: Arc<OnceLock<Arc<Front>>>,
    opening: Mutex<Eventually<House>>,
    /// Fires when everything of this home is given up.
    pub(crate) end: CancellationToken,
    _counted: Option<Counted>,
}

/// What a session of a home is opened with.
struct Plan {
    site: Arc<Site>,
    desk: Arc<Desk>,
    board: Arc<Mutex<Board>>,
    active: ActiveVm,
    front: Arc<OnceLock<Arc<Front>>>,
}

impl Home {
    /// Begins to open one.
    pub(super) fn open(
        site: &Arc<Site>,
        stored: Option<String>,
        counted: Option<Counted>,
    ) -> Arc<Self> {
        let plan = Plan {
            site: site.clone(),
            desk: Arc::default(),
            board: Arc::default(),
            active: ActiveVm::default(),
            front: Arc::default(),
        };
        Arc::new(Self {
            site: site.clone(),
            desk: plan.desk.clone(),
            board: plan.board.clone(),
            active: plan.active.clone(),
            calls: Parking::new(),
            prompts: Parking::new(),
            tasks: TaskManager::new(),
            front: plan.front.clone(),
            opening: Mutex::new(eventually(&site.main, plan.first(stored))),
            end: site.end.child_token(),
            _counted: counted,
        })
    }

    fn opening(&self) -> Eventually<House> {
        locked(&self.opening).clone()
    }

    /// The session, once it runs. Cancel-safe.
    pub(crate) async fn house(&self) -> Result<Arc<House>, Arc<Failure>> {
        let house = self.opening().await?;
        if self.site.newest().is_none() {
            self.site.set_newest(house.clone());
        }
        Ok(house)
    }

    /// The session, if it runs already.
    pub(crate) fn standing(&self) -> Option<Arc<House>> {
        self.opening().now_or_never()?.ok()
    }

    /// Ends the session and opens another one, with the extensions as they are now. Returns when it runs.
    pub(super) async fn renew(self: &Arc<Self>) {
        let plan = Plan {
            site: self.site.clone(),
            desk: self.desk.clone(),
            board: self.board.clone(),
            active: self.active.clone(),
            front: self.front.clone(),
        };
        let old = self.opening();
        let opening = eventually(&self.site.main, async move {
            if let Ok(old) = old.await {
                old.session.clone().end().await;
            }
            plan.again().await
        });
        *locked(&self.opening) = opening.clone();
        match opening.await {
            Ok(house) => self.site.set_newest(house),
            Err(why) => tracing::warn!("{}", why.line()),
        }
        for news in [News::Tools, News::Prompts, News::Resources] {
            self.desk.news(&news);
        }
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

    /// Whether no call waits for an answer and no task runs.
    pub(crate) fn rests(&self) -> bool {
        self.calls.is_empty() && self.prompts.is_empty() && self.tasks.running_task_count() == 0
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

    /// Whether VMs are being made or deleted.
    pub(crate) fn changes_vms(&self) -> bool {
        self.standing()
            .is_some_and(|house| house.session.changes_vms())
    }

    /// The same as [`Home::end`] for a process that goes on: nobody waits, and a session that is still being opened ends, too.
    pub(crate) fn retire(self: Arc<Self>) {
        let main = self.site.main.clone();
        main.spawn(async move {
            let _ = self.house().await;
            self.end().await;
        });
    }
}

impl Plan {
    /// The home's first session.
    async fn first(self, stored: Option<String>) -> Result<House, Failure> {
        let loaded = self.loaded().await?;
        let stored = match stored {
            Some(name) => Some(Stored::open(&name).await?),
            None => None,
        };
        let resumed = match &stored {
            Some(stored) => !stored.is_new().await,
            None => false,
        };
        let flags = loaded.extensions.iter().map(Extension::info);
        let flags = harness::flags(&self.site.options.flag, flags)?;
        let line = CommandLine::new(Arc::new(Terminal::new(true)), stored, flags)?;
        let (desk, board, active) = (&self.desk, &self.board, &self.active);
        let front = Front::new(line, desk.clone(), board.clone(), active.clone());
        let front = self.front.get_or_init(|| Arc::new(front)).clone();
        let house = open(&loaded, front)?;
        let listing = Listing::of(&house.catalogue);
        if self.site.early() != Some(&listing) {
            if self.site.early().is_some() {
                self.desk.news(&News::Tools);
                self.desk.news(&News::Prompts);
            }
            self.site.keep(&listing);
        }
        start(
            &house,
            if resumed {
                StartReason::Resume
            } else {
                StartReason::Startup
            },
        );
        Ok(house)
    }

    /// Another one after it.
    async fn again(self) -> Result<House, Failure> {
        let loaded = self.loaded().await?;
        let Some(front) = self.front.get() else {
            // The first one never came to be.
            return self.first(None).await;
        };
        let house = open(&loaded, front.clone())?;
        start(&house, StartReason::Reload);
        Ok(house)
    }

    async fn loaded(&self) -> Result<Arc<Loaded>, Failure> {
        let loaded = self.site.loaded().await;
        loaded.map_err(|why| Failure::clone(&why))
    }
}

fn open(loaded: &Loaded, front: Arc<Front>) -> Result<House, Failure> {
    let mut extensions = loaded.extensions.clone();
    let (session, left_out) = setup::open(&loaded.host, front, &mut extensions)?;
    for left_out in left_out {
        tracing::warn!("{left_out}");
    }
    let catalogue = Catalogue::of(&session);
    Ok(House { session, catalogue })
}

fn start(house: &House, reason: StartReason) {
    let session = house.session.clone();
    // A call may be quicker than the start.
    session.set_reason(reason);
    tokio::spawn(async move {
        if let Err(why) = session.start(reason).await {
            // The others have started; a call of this one says it again.
            tracing::warn!("{}", Failure::from(why).line());
        }
    });
}
