//! The task that owns a group: sees the leader's end, keeps the timeout, carries out stops, reaps.
//!
//! It ends when the handle is gone and the group is too (or was detached and its leader has ended).

use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::Exit;
use super::group::Group;
use crate::{Error, Kind};

/// For a group whose handle was dropped, and for one that ran out of time.
const GRACE: Duration = Duration::from_secs(1);
/// KILL takes effect at once unless a process hangs in the kernel.
const KILL_DEADLINE: Duration = Duration::from_secs(5);

/// What the handle, its outputs and the supervisor share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) group: Group,
    pub(super) state: watch::Sender<State>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    /// When and how the process ended.
    pub(super) ended: Option<(Instant, Result<Exit, Error>)>,
    /// Outputs that were taken and neither ended nor were dropped.
    pub(super) open: usize,
}

impl Shared {
    pub(super) fn new(group: Group) -> Self {
        Self {
            group,
            state: watch::Sender::new(State::default()),
        }
    }
}

/// Stop the group; say so when it is gone.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) grace: Duration,
    pub(super) done: oneshot::Sender<Result<(), Error>>,
}

pub(super) struct Supervisor {
    shared: Arc<Shared>,
    /// SIGCHLD, of any child: the event there is where pidfds are not.
    ended: tokio::signal::unix::Signal,
    orders: mpsc::Receiver<Order>,
    timeout: Option<Duration>,
    path: String,
    exit: Option<Result<Exit, Error>>,
    timed_out: bool,
}

impl Supervisor {
    pub(super) fn new(
        shared: Arc<Shared>,
        ended: tokio::signal::unix::Signal,
        orders: mpsc::Receiver<Order>,
        timeout: Option<Duration>,
        path: String,
    ) -> Self {
        Self {
            shared,
            ended,
            orders,
            timeout,
            path,
            exit: None,
            timed_out: false,
        }
    }

    pub(super) async fn run(mut self) {
        // A timeout too far to be represented is none.
        let deadline = self
            .timeout
            .and_then(|timeout| Instant::now().checked_add(timeout));
        let mut held = true;
        while held || self.exit.is_none() {
            tokio::select! {
                exit = leader_exit(&self.shared.group, &mut self.ended), if self.exit.is_none() => {
                    self.exit = Some(exit);
                    self.publish();
                }
                order = self.orders.recv(), if held => match order {
                    Some(Order { grace, done }) => {
                        let result = self.stop(grace).await;
                        self.publish();
                        let _ = done.send(result);
                    }
                    None if self.shared.group.is_detached() => held = false,
                    None => {
                        if let Err(error) = self.stop(GRACE).await {
                            tracing::warn!(program = self.path, %error, "a process group outlives its handle");
                        }
                        self.publish();
                        break;
                    }
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() && !self.timed_out => {
                    self.timed_out = true;
                    // What is left of a group whose leader has ended goes too, but the leader's exit stays true.
                    if let Err(error) = self.stop(GRACE).await {
                        tracing::warn!(program = self.path, %error, "a process group outlives its timeout");
                    }
                    self.publish();
                }
            }
        }
        self.shared.group.reap();
    }

    /// Tells everybody how the process ended, once, if it has.
    fn publish(&self) {
        self.shared.state.send_if_modified(|state| {
            if state.ended.is_some() {
                return false;
            }
            let outcome = match (&self.exit, self.timed_out) {
                (_, true) => {
                    let after = self.timeout.unwrap_or_default();
                    let message =
                        format!("`{}` was stopped: it ran longer than {after:?}", self.path);
                    Err(Error::new(Kind::TimedOut, message))
                }
                (Some(exit), false) => exit.clone(),
                (None, false) => return false,
            };
            state.ended = Some((Instant::now(), outcome));
            true
        });
    }

    async fn stop(&mut self, grace: Duration) -> Result<(), Error> {
        let group = &self.shared.group;
        // ESRCH and EPERM say the same as the check that follows, and that one is the verdict.
        let _ = group.signal(Signal::TERM);
        // A stopped process gets its TERM only when it goes on.
        let _ = group.signal(Signal::CONT);
        if self.is_gone_by(grace, true).await {
            return Ok(());
        }
        let _ = self.shared.group.signal(Signal::KILL);
        if self.is_gone_by(KILL_DEADLINE, false).await {
            return Ok(());
        }
        let message = format!(
            "process group {} of `{}` is not gone {KILL_DEADLINE:?} after KILL; a process of it hangs in the kernel",
            self.shared.group.id(),
            self.path
        );
        Err(Error::new(Kind::Other, message))
    }

    /// Whether the whole group is gone before the time is up. `unknown` is what to think where nobody can tell.
    async fn is_gone_by(&mut self, limit: Duration, unknown: bool) -> bool {
        let deadline = Instant::now() + limit.min(Duration::from_secs(3600));
        if self.exit.is_none() {
            match timeout_at(deadline, leader_exit(&self.shared.group, &mut self.ended)).await {
                Ok(exit) => self.exit = Some(exit),
                Err(_) => return false,
            }
        }
        // The others are not our children: no event tells of their end, so this one looks again, less and less often.
        let mut pause = Duration::from_millis(1);
        loop {
            let shared = self.shared.clone();
            let alive = tokio::task::spawn_blocking(move || shared.group.is_alive())
                .await
                .ok()
                .flatten();
            if !alive.unwrap_or(unknown) {
                return true;
            }
            if Instant::now() + pause > deadline {
                return false;
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }
}

/// Resolves when the leader has ended. Cancel-safe.
async fn leader_exit(
    group: &Group,
    ended: &mut tokio::signal::unix::Signal,
) -> Result<Exit, Error> {
    loop {
        match group.leader_exit() {
            Ok(Some(exit)) => return Ok(exit),
            Ok(None) => {}
            // Somebody else has reaped it: a program that ignores SIGCHLD or waits for every child of its own.
            Err(error) => {
                let message = format!("how process {} ended is unknown: {error}", group.id());
                return Err(Error::new(Kind::Unavailable, message));
            }
        }
        if ended.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
