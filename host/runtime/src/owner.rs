//! Who a host call works for: the tool call, command or event that made the guest ask.
//!
//! wasmtime 48 has no way to cancel a guest's task. So cancelling works from the host's side: each
//! import call is attributed to an owner, each wait in it races the owner's end, and processes
//! remember which owner started them. An owner ends once: given up, past its deadline, or because
//! the whole extension stops. Work that a guest spawned and that outlives its call belongs to the
//! extension's own owner, which has no deadline.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::bindings::vers::harness::types::Error as WitError;
use crate::types::Update;

/// Why an owner's waits end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The caller gave the call up.
    Cancelled,
    /// The deadline passed.
    TimedOut,
    /// The extension or the session stops.
    Stopped,
}

/// Something that an owner started and that must stop with it.
pub(crate) trait Stoppable: Send + Sync {
    /// What it is, for the report.
    fn what(&self) -> String;
    /// Stops it and waits until it is gone; `false`: it was over already.
    fn stop(&self) -> BoxFuture<'_, bool>;
}

/// What an owner has started.
enum Works {
    /// While it works: whoever holds them keeps them alive.
    Running(Vec<Weak<dyn Stoppable>>),
    /// Once it is given up: a start that was under way then (a `posix_spawn` on the guest's thread) is stopped as soon
    /// as it is told of. Each task ends by itself, when its work is gone.
    Ending(Vec<JoinHandle<Option<String>>>),
}

pub(crate) struct Owner {
    what: String,
    /// The front end's id of it.
    call: Option<String>,
    /// By which a tape knows it, and whose it is.
    number: OnceLock<(u64, Arc<str>)>,
    token: CancellationToken,
    end: OnceLock<End>,
    deadline: Option<Instant>,
    updates: Option<watch::Sender<Update>>,
    started: Mutex<Works>,
    logged: AtomicU64,
}

impl Owner {
    /// An owner that ends with `parent` at the latest.
    pub(crate) fn new(
        what: String,
        parent: &CancellationToken,
        deadline: Option<Instant>,
        updates: Option<watch::Sender<Update>>,
    ) -> Arc<Self> {
        Self::of_call(None, what, parent, deadline, updates)
    }

    /// The same, for what the front end knows by this id.
    pub(crate) fn of_call(
        call: Option<String>,
        what: String,
        parent: &CancellationToken,
        deadline: Option<Instant>,
        updates: Option<watch::Sender<Update>>,
    ) -> Arc<Self> {
        Arc::new(Self {
            what,
            call,
            number: OnceLock::new(),
            token: parent.child_token(),
            end: OnceLock::new(),
            deadline,
            updates,
            started: Mutex::new(Works::Running(Vec::new())),
            logged: AtomicU64::new(0),
        })
    }

    pub(crate) fn what(&self) -> &str {
        &self.what
    }

    pub(crate) fn call(&self) -> Option<&str> {
        self.call.as_deref()
    }

    pub(crate) fn number(&self) -> Option<&(u64, Arc<str>)> {
        self.number.get()
    }

    pub(crate) fn set_number(&self, number: u64, by: Arc<str>) {
        let _ = self.number.set((number, by));
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.token
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    pub(crate) fn updates(&self) -> Option<&watch::Sender<Update>> {
        self.updates.as_ref()
    }

    /// Ends the owner's waits. The first reason counts.
    pub(crate) fn finish(&self, why: End) {
        let _ = self.end.set(why);
        self.token.cancel();
    }

    pub(crate) fn ended(&self) -> Option<End> {
        self.token
            .is_cancelled()
            .then(|| self.end.get().copied().unwrap_or(End::Stopped))
    }

    /// The error that a wait of this owner ends with.
    pub(crate) fn error(&self) -> WitError {
        match self.ended() {
            Some(End::TimedOut) => {
                WitError::TimedOut(format!("{} reached its time limit", self.what))
            }
            Some(End::Cancelled | End::Stopped) | None => WitError::Cancelled,
        }
    }

    /// Waits for `work` or for the end of the owner, whatever comes first. `work` is dropped at the end.
    pub(crate) async fn race<T>(&self, work: impl Future<Output = T>) -> Result<T, WitError> {
        tokio::select! {
            biased;
            () = self.token.cancelled() => Err(self.error()),
            value = work => Ok(value),
        }
    }

    fn works(&self) -> MutexGuard<'_, Works> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what to stop when the call is given up; stops it at once if that has happened meanwhile. Must be
    /// called within a tokio runtime.
    pub(crate) fn started(&self, work: &Arc<impl Stoppable + 'static>) {
        match &mut *self.works() {
            Works::Running(works) => {
                works.retain(|work| work.strong_count() > 0);
                let work: Weak<dyn Stoppable> = Arc::downgrade(work) as _;
                works.push(work);
            }
            Works::Ending(stops) => {
                let work = work.clone();
                let stop = async move { work.stop().await.then(|| work.what()) };
                stops.push(tokio::spawn(stop));
            }
        }
    }

    /// Takes hold of all that was started and still runs; what is started from now on is stopped at once. Call it
    /// before [`Owner::finish`]: a guest that is told to stop may drop its handles at once, and what nobody holds is
    /// stopped without anybody waiting for it.
    pub(crate) fn take_started(&self) -> Started {
        let works = std::mem::replace(&mut *self.works(), Works::Ending(Vec::new()));
        Started(match works {
            Works::Running(works) => works.iter().filter_map(Weak::upgrade).collect(),
            Works::Ending(_) => Vec::new(),
        })
    }

    /// Waits until what was started after [`Owner::take_started`] is gone as well. Returns what that was.
    pub(crate) async fn late_ones_stopped(&self) -> Vec<String> {
        let stops = match &mut *self.works() {
            Works::Running(_) => Vec::new(),
            Works::Ending(stops) => std::mem::take(stops),
        };
        let stopped = futures::future::join_all(stops).await.into_iter();
        stopped.filter_map(|what| what.ok().flatten()).collect()
    }

    /// Counts log bytes; `false` once the budget is used up.
    pub(crate) fn may_log(&self, bytes: usize, budget: u64) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.logged
            .fetch_add(bytes, Ordering::Relaxed)
            .saturating_add(bytes)
            <= budget
    }
}

/// What an owner had started.
pub(crate) struct Started(Vec<Arc<dyn Stoppable>>);

impl Started {
    /// Stops it all, side by side, and waits until it is gone. Returns what was still running.
    pub(crate) async fn stop(self) -> Vec<String> {
        let stops = self
            .0
            .iter()
            .map(|work| async { work.stop().await.then(|| work.what()) });
        futures::future::join_all(stops)
            .await
            .into_iter()
            .flatten()
            .collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wait_ends_with_its_owner_and_says_why() {
        let parent = CancellationToken::new();
        let owner = Owner::new("call".into(), &parent, None, None);
        assert!(matches!(owner.race(async { 1 }).await, Ok(1)));
        owner.finish(End::TimedOut);
        owner.finish(End::Cancelled);
        assert!(matches!(
            owner.race(std::future::pending::<()>()).await,
            Err(WitError::TimedOut(_))
        ));
        let other = Owner::new("other".into(), &parent, None, None);
        parent.cancel();
        assert!(matches!(
            other.race(std::future::pending::<()>()).await,
            Err(WitError::Cancelled)
        ));
        assert_eq!(other.ended(), Some(End::Stopped));
    }

    /// Gone only when somebody has waited for its stop.
    struct Work(Mutex<bool>);

    impl Stoppable for Work {
        fn what(&self) -> String {
            "work".into()
        }

        fn stop(&self) -> BoxFuture<'_, bool> {
            Box::pin(async {
                tokio::task::yield_now().await;
                !std::mem::replace(&mut *self.0.lock().unwrap(), true)
            })
        }
    }

    #[tokio::test]
    async fn what_starts_while_its_call_is_given_up_is_gone_too_when_the_call_returns() {
        let owner = Owner::new("call".into(), &CancellationToken::new(), None, None);
        let [early, late] = [(); 2].map(|()| Arc::new(Work(Mutex::new(false))));
        owner.started(&early);
        let started = owner.take_started();
        owner.finish(End::Cancelled);
        owner.started(&late);
        let held = Arc::downgrade(&late);
        drop(late);
        assert_eq!(started.stop().await, ["work"]);
        assert_eq!(owner.late_ones_stopped().await, ["work"]);
        assert_eq!(held.strong_count(), 0, "it is gone, and let go");
        assert!(*early.0.lock().unwrap());
    }

    #[test]
    fn log_lines_beyond_the_budget_are_refused() {
        let owner = Owner::new("call".into(), &CancellationToken::new(), None, None);
        assert!(owner.may_log(60, 100));
        assert!(!owner.may_log(60, 100));
    }
}
