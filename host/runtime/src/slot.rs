//! One extension in one session: starts its actor when it is first needed, and anew after a crash.
//!
//! A crash costs the calls in flight and the guest's memory, nothing else. The next call gets a fresh
//! instance, which is told by `lifecycle.start` to pick up what it keeps in the session's entries and
//! the store. An extension that keeps crashing is started with growing pauses.

use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::actor::{Actor, Job, NotExported, Reply};
use crate::bindings::exports::vers::harness::lifecycle;
use crate::engine::Engine;
use crate::error::CallError;
use crate::extension::Extension;
use crate::guest::Guest;
use crate::owner::{End, Owner};
use crate::services::Services;
use crate::tape::Tape;
use crate::types::{Severity, StartReason};
use pi_vers_policy::Grants;

/// How long a guest has to answer once its call was given up or is overdue.
pub(crate) const GRACE: Duration = Duration::from_secs(2);

/// How long an instance's own loop may take to give a sign of life.
const POKE: Duration = Duration::from_millis(500);

/// So many times without one, and it is stuck.
const SILENT: u32 = 2;

/// How long the start of an extension in a session may take.
const START: Duration = Duration::from_secs(30);

/// The pause before the second start after a crash; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An instance that lived this long owes nothing for earlier crashes.
const LIVED: Duration = Duration::from_secs(60);

pub(crate) struct Slot {
    pub(crate) extension: Extension,
    pub(crate) grants: Arc<Grants>,
    engine: Engine,
    services: Arc<Services>,
    room: Arc<Semaphore>,
    /// Ends with the session.
    stop: CancellationToken,
    state: Mutex<State>,
    current: std::sync::Mutex<Option<Arc<Actor>>>,
    reason: OnceLock<StartReason>,
}

#[derive(Default)]
struct State {
    started: Option<Instant>,
    crashes: u32,
}

/// How an order ended.
pub(crate) struct Ended {
    /// What the guest answered, if it did.
    pub(crate) reply: Option<Reply>,
    /// Why the order was given up, if it was.
    pub(crate) end: Option<End>,
    /// What was stopped with it.
    pub(crate) stopped: Vec<String>,
}

impl Slot {
    pub(crate) fn new(
        engine: Engine,
        extension: Extension,
        grants: Arc<Grants>,
        services: Arc<Services>,
        stop: CancellationToken,
    ) -> Self {
        let room = usize::try_from(grants.limits().calls)
            .unwrap_or(Semaphore::MAX_PERMITS)
            .min(Semaphore::MAX_PERMITS);
        Self {
            extension,
            grants,
            engine,
            services,
            room: Arc::new(Semaphore::new(room)),
            stop,
            state: Mutex::new(State::default()),
            current: std::sync::Mutex::new(None),
            reason: OnceLock::new(),
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.extension.name()
    }

    /// The time limit of a call.
    pub(crate) fn limit(&self) -> Duration {
        Duration::from_millis(self.grants.limits().call)
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.stop
    }

    /// Whether the extension is granted this event. In a replay: whether it had it then.
    pub(crate) fn may_have(&self, request: &pi_vers_policy::Request<'_>, job: &Job) -> bool {
        let tape = self.services.tape.as_ref();
        tape.and_then(|tape| tape.grants(self.name(), job))
            .unwrap_or_else(|| self.grants.decide(request).is_allowed())
    }

    /// Why the session started, for the first start of the extension.
    pub(crate) fn set_reason(&self, reason: StartReason) {
        let _ = self.reason.set(reason);
    }

    /// Memory of the running instance in bytes, if there is one.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.running().map(|actor| actor.memory())
    }

    /// Waits for a place among the calls in flight.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit, CallError> {
        self.room
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| CallError::Closed)
    }

    fn running(&self) -> Option<Arc<Actor>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.clone().filter(|actor| !actor.is_over())
    }

    fn set(&self, actor: Option<Arc<Actor>>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = actor;
    }

    /// The running instance, or a new one. Cancel-safe: a start that is given up is begun anew.
    pub(crate) async fn actor(&self) -> Result<Arc<Actor>, CallError> {
        if self.stop.is_cancelled() {
            return Err(CallError::Closed);
        }
        if let Some(why) = self.services.tape.as_ref().and_then(Tape::failed) {
            return Err(CallError::Crashed {
                extension: self.name().into(),
                why: why.to_string(),
            });
        }
        if let Some(actor) = self.running() {
            return Ok(actor);
        }
        let mut state = self.state.lock().await;
        if let Some(actor) = self.running() {
            return Ok(actor);
        }
        let again = state.started.is_some();
        if again {
            state.crashes = if state.started.is_some_and(|at| at.elapsed() > LIVED) {
                0
            } else {
                state.crashes + 1
            };
            tokio::time::sleep(pause(state.crashes)).await;
        }
        let guest = Guest::new(
            self.name().into(),
            self.grants.clone(),
            *self.grants.limits(),
            Some(self.services.clone()),
            self.services
                .auditor(self.name().into(), self.extension.digest()),
            Owner::new(format!("extension {}", self.name()), &self.stop, None, None),
            self.extension.script(),
        );
        let actor = Arc::new(Actor::start(&self.engine, &self.extension, guest));
        state.started = Some(Instant::now());
        let reason = if again {
            StartReason::Reload
        } else {
            self.reason.get().copied().unwrap_or(StartReason::Startup)
        };
        let deadline = Instant::now() + START;
        let owner = Owner::new(
            format!("start of extension {}", self.name()),
            &self.stop,
            Some(deadline),
            None,
        );
        let ended = self
            .drive(
                &actor,
                owner,
                Job::Start(wit_reason(reason)),
                &CancellationToken::new(),
            )
            .await?;
        match ended.reply {
            Some(Reply::Done(Err(why))) => {
                let (_, message) = crate::capability::refusal(why);
                self.services.harness.notify(
                    self.name(),
                    &crate::types::visible(&message),
                    Severity::Warning,
                );
            }
            None => {
                let message = format!("its start was given up after {} s", START.as_secs());
                self.services
                    .harness
                    .notify(self.name(), &message, Severity::Warning);
            }
            Some(_) => {}
        }
        self.set(Some(actor.clone()));
        Ok(actor)
    }

    /// Gives an order and sees it through: to its answer, to its deadline, or to its being given up.
    /// When it returns, everything that the order had started and that had to stop is gone.
    pub(crate) async fn run(
        &self,
        owner: Arc<Owner>,
        job: Job,
        cancel: &CancellationToken,
    ) -> Result<Ended, CallError> {
        let actor = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                owner.finish(End::Cancelled);
                return Ok(Ended { reply: None, end: Some(End::Cancelled), stopped: Vec::new() });
            }
            actor = self.actor() => actor?,
            // Last: a clock that is set wakes the thread that waits for the clocks, and most calls need none.
            () = until(owner.deadline()) => {
                owner.finish(End::TimedOut);
                return Ok(Ended { reply: None, end: Some(End::TimedOut), stopped: Vec::new() });
            }
        };
        self.drive(&actor, owner, job, cancel).await
    }

    async fn drive(
        &self,
        actor: &Arc<Actor>,
        owner: Arc<Owner>,
        job: Job,
        cancel: &CancellationToken,
    ) -> Result<Ended, CallError> {
        let overdue = owner.deadline().map(|at| actor.overdue(at));
        let replays = self.services.tape.as_ref().is_some_and(Tape::replays);
        let mut reply = actor.order(owner.clone(), job).await;
        let end = tokio::select! {
            biased;
            // Before the answer: an extension answers in a moment to what a tape gives up.
            end = self.taped_end(&owner) => end,
            answer = &mut reply => return self.answered(actor, &owner, answer).await,
            () = cancel.cancelled() => End::Cancelled,
            // A tape knows what was too late when it was recorded.
            () = until(owner.deadline()), if !replays => End::TimedOut,
            () = self.stop.cancelled() => End::Stopped,
        };
        let started = owner.take_started();
        if let Some(tape) = &self.services.tape {
            tape.gave_up(&owner, end);
        }
        owner.finish(end);
        let give_up = Instant::now() + GRACE;
        let hurry = match &overdue {
            Some(overdue) => {
                overdue.hasten(give_up);
                None
            }
            None => Some(actor.overdue(give_up)),
        };
        // The guest learns of it by the end of its waits, while what it started is stopped.
        let (answer, mut stopped) = tokio::join!(
            tokio::time::timeout_at(give_up.into(), &mut reply),
            started.stop()
        );
        drop(hurry);
        stopped.extend(owner.late_ones_stopped().await);
        let reply = match answer {
            Ok(Ok(Ok(reply))) => Some(reply),
            Ok(_) => None,
            Err(_) => {
                self.kill_if_stuck(actor, &owner).await;
                None
            }
        };
        Ok(Ended {
            reply,
            end: Some(end),
            stopped,
        })
    }

    /// Waits until the tape that is replayed gives this order up.
    async fn taped_end(&self, owner: &Owner) -> End {
        match &self.services.tape {
            Some(tape) => tape.gives_up(owner).await,
            None => std::future::pending().await,
        }
    }

    async fn answered(
        &self,
        actor: &Arc<Actor>,
        owner: &Arc<Owner>,
        answer: Result<Result<Reply, NotExported>, tokio::sync::oneshot::error::RecvError>,
    ) -> Result<Ended, CallError> {
        match answer {
            Ok(Ok(reply)) => Ok(Ended {
                reply: Some(reply),
                end: owner.ended(),
                stopped: Vec::new(),
            }),
            Ok(Err(NotExported("lifecycle"))) => Ok(Ended {
                reply: Some(Reply::Done(Ok(()))),
                end: None,
                stopped: Vec::new(),
            }),
            Ok(Err(NotExported(interface))) => Err(CallError::Contract {
                extension: self.name().into(),
                why: format!("it offers what it has no {interface} export for"),
            }),
            Err(_) => {
                let _ = tokio::time::timeout(GRACE, actor.over()).await;
                let started = owner.take_started();
                owner.finish(End::Stopped);
                let stopped = started.stop().await;
                if owner.deadline().is_some_and(|at| at <= Instant::now()) {
                    return Ok(Ended {
                        reply: None,
                        end: Some(End::TimedOut),
                        stopped,
                    });
                }
                if self.stop.is_cancelled() {
                    return Err(CallError::Closed);
                }
                Err(self.crash(actor))
            }
        }
    }

    fn crash(&self, actor: &Actor) -> CallError {
        let why = actor.crashed().unwrap_or("its instance ended").to_owned();
        tracing::warn!(extension = self.name(), "crashed: {why}");
        CallError::Crashed {
            extension: self.name().into(),
            why,
        }
    }

    /// A guest that did not answer may wait for something of its own; then it is left alone. One whose loop
    /// does not turn at all blocks every other call, and no epoch reaches it: that instance is dropped.
    async fn kill_if_stuck(&self, actor: &Arc<Actor>, owner: &Owner) {
        let poke = async {
            actor
                .order(Owner::new("poke".into(), &self.stop, None, None), Job::Poke)
                .await
                .await
        };
        tokio::pin!(poke);
        let mut silent = 0;
        let beats = actor.beats();
        while silent < SILENT && !actor.is_over() {
            let since = Instant::now();
            if tokio::time::timeout(POKE, &mut poke).await.is_ok() {
                return;
            }
            // A busy machine keeps a loop from its turn as well as a guest does: then this clock is late, too, and says nothing.
            if since.elapsed() < POKE * 2 {
                silent += 1;
            }
            if actor.beats() != beats {
                return;
            }
        }
        if !actor.is_over() {
            actor.kill(format!(
                "{} blocked it and did not stop when told to",
                owner.what()
            ));
            // The next call must not meet the dying instance.
            let _ = tokio::time::timeout(GRACE, actor.over()).await;
        }
    }

    /// Tells the instance that the session ends, and drops it.
    pub(crate) async fn stop(&self) {
        // A replay is over when all that came before this was brought.
        let replays = self.services.tape.as_ref().is_some_and(Tape::replays);
        if !replays && let Some(actor) = self.running() {
            let owner = Owner::new(
                format!("stop of extension {}", self.name()),
                &CancellationToken::new(),
                Some(Instant::now() + GRACE),
                None,
            );
            let _ = self
                .drive(&actor, owner, Job::Stop, &CancellationToken::new())
                .await;
        }
        self.stop.cancel();
        self.set(None);
    }
}

fn pause(crashes: u32) -> Duration {
    match crashes.checked_sub(2) {
        None => Duration::ZERO,
        Some(doublings) => FIRST_PAUSE
            .saturating_mul(1 << doublings.min(16))
            .min(LONGEST_PAUSE),
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn wit_reason(reason: StartReason) -> lifecycle::Reason {
    match reason {
        StartReason::Startup => lifecycle::Reason::Startup,
        StartReason::Reload => lifecycle::Reason::Reload,
        StartReason::Resume => lifecycle::Reason::Resume,
        StartReason::Fork => lifecycle::Reason::Fork,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_later_ones_wait_longer_and_longer() {
        let pauses: Vec<u128> = (0..6).map(|crashes| pause(crashes).as_millis()).collect();
        assert_eq!(pauses, [0, 0, 100, 200, 400, 800]);
        assert_eq!(pause(1000), LONGEST_PAUSE);
    }
}
