//! Looking after a lieutenant: reaching its agent, hearing what it says, reaching it again.
//!
//! Each has one task in the background, for one term ([`Lieutenant::begin`]). What cannot be reached is tried again, ever more
//! rarely, as long as the session lives, and is kept whatever happens: that nobody knows how it is does not make it go away.

use std::rc::Rc;

use futures::channel::mpsc;
use futures::future::{Either, select};
use futures::stream::StreamExt as _;
use pi_vers_sdk::agent::{self, Agent, Failure, Inbox, Kind, News, Outcome, Status};
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::harness::ui::{self, Severity};
use pi_vers_sdk::platform::vms::{self, State};
use pi_vers_sdk::{Error, background};

use crate::history::Past;
use crate::keep::{self, Kept};
use crate::record::Phase;
use crate::table::Lieutenant;
use crate::{announce, words};

/// The first and the longest pause between two attempts, in milliseconds.
const PAUSES: (u64, u64) = (1_000, 60_000);

/// Looks after it from now on: its agent was just started, or attached to.
pub(crate) fn with(lieutenant: &Rc<Lieutenant>, agent: Agent, inbox: Inbox) {
    let (term, poked) = lieutenant.begin();
    lieutenant.connect(agent.clone());
    settle(lieutenant, term, agent);
    let lieutenant = lieutenant.clone();
    background::spawn(async move { look_after(&lieutenant, term, poked, Some(inbox)).await });
}

/// Learns how an agent is that was found again, once what it said meanwhile has been read.
fn settle(lieutenant: &Rc<Lieutenant>, term: u64, agent: Agent) {
    let lieutenant = lieutenant.clone();
    background::spawn(async move {
        agent.changed(&Status::Starting).await;
        if lieutenant.in_term(term) {
            lieutenant.settle();
            keep::save(&lieutenant).await;
        }
    });
}

/// Looks after it from now on: its agent has yet to be reached.
pub(crate) fn reach(lieutenant: &Rc<Lieutenant>) {
    let (term, poked) = lieutenant.begin();
    let lieutenant = lieutenant.clone();
    background::spawn(async move { look_after(&lieutenant, term, poked, None).await });
}

/// Looks after it until the term ends, or there is nothing more to hear.
async fn look_after(
    lieutenant: &Rc<Lieutenant>,
    term: u64,
    mut poked: mpsc::UnboundedReceiver<()>,
    mut inbox: Option<Inbox>,
) {
    announce::tell(lieutenant);
    let mut pause = PAUSES.0;
    while lieutenant.in_term(term) {
        let connected = match inbox.take() {
            Some(inbox) => Some(inbox),
            None => match attach(lieutenant, term).await {
                Ok(inbox) => inbox,
                Err(()) => return,
            },
        };
        if let Some(inbox) = connected {
            pause = PAUSES.0;
            if !hear(lieutenant, term, inbox).await {
                return;
            }
        }
        let slept = select(Box::pin(timers::sleep(pause)), poked.next()).await;
        match slept {
            Either::Left((Ok(()), _)) => pause = (pause * 2).min(PAUSES.1),
            Either::Right((Some(()), _)) => pause = PAUSES.0,
            // The session or the term has ended.
            Either::Left((Err(_), _)) | Either::Right((None, _)) => return,
        }
    }
}

/// Tries to reach it: its inbox, none if it is to be tried again, an error if that has no use.
async fn attach(lieutenant: &Rc<Lieutenant>, term: u64) -> Result<Option<Inbox>, ()> {
    let record = lieutenant.record();
    let Some(vm) = record.vm else { return Err(()) };
    match agent::attach(&vm, &record.name, record.bookmark).await {
        Ok((agent, inbox)) if lieutenant.in_term(term) => {
            lieutenant.connect(agent.clone());
            settle(lieutenant, term, agent);
            Ok(Some(inbox))
        }
        Ok((agent, _)) => {
            agent.let_go();
            Err(())
        }
        Err(_) if !lieutenant.in_term(term) => Err(()),
        Err(failure) => match judge(lieutenant, &vm, failure.kind, &failure.why).await {
            true => Ok(None),
            false => Err(()),
        },
    }
}

/// Hears what it says until there is nothing more to hear. Whether it is to be reached again.
async fn hear(lieutenant: &Rc<Lieutenant>, term: u64, mut inbox: Inbox) -> bool {
    while let Some(news) = inbox.next().await {
        if !lieutenant.in_term(term) {
            return false;
        }
        match news {
            News::Started => {
                lieutenant.works();
                if keep::save(lieutenant).await == Kept::TakenOver {
                    return false;
                }
            }
            News::Ended(run) => {
                if !announce::ended(lieutenant, &run).await {
                    return false;
                }
            }
            News::Notice(text) => {
                let text = format!("{}: {}", lieutenant.name, words::first(&text, 500, "…"));
                ui::notify(&text, Severity::Info);
            }
            News::Status(Status::Ended(why)) => {
                over(lieutenant, why).await;
                return false;
            }
            News::Status(Status::Lost(kind, why)) => {
                drop(lieutenant.disconnect());
                let Some(vm) = lieutenant.record().vm else {
                    return false;
                };
                return judge(lieutenant, &vm, kind, &why).await;
            }
            // Another status is asked of the agent when somebody wants to know it.
            News::Status(_) => lieutenant.change(|_| ()),
        }
    }
    drop(lieutenant.disconnect());
    lieutenant.in_term(term)
}

/// Its agent's process has ended. A run that was under way has failed with it: nobody waits for ever.
async fn over(lieutenant: &Rc<Lieutenant>, why: String) {
    let text = lieutenant.output();
    let busy = lieutenant.record().busy;
    drop(lieutenant.disconnect());
    lieutenant.is(Phase::Error, Some(why.clone()));
    if busy {
        let past = Past {
            outcome: Outcome::Failed(why),
            text: words::last_bytes(&text, crate::history::KEPT).into(),
            left_out: 0,
            at: timers::now(),
        };
        lieutenant.said(text);
        announce::broke_off(lieutenant, past).await;
        return;
    }
    let text = format!("Lieutenant \"{}\" has ended: {why}", lieutenant.name);
    ui::notify(&words::first(&text, 1000, "…"), Severity::Warning);
    keep::save(lieutenant).await;
}

/// It could not be reached, or is lost: finds out how it is, and whether it is to be tried again.
async fn judge(lieutenant: &Rc<Lieutenant>, vm: &str, kind: Kind, why: &str) -> bool {
    if kind == Kind::Cancelled {
        return false;
    }
    // What the platform says of the VM is the better reason, where it says something.
    let state = vms::get(vm.into()).await.map(|found| found.state);
    let (phase, problem, again) = match (state, kind) {
        (Ok(State::Paused | State::Sleeping), _) => (Phase::Paused, None, false),
        (Err(Error::NotFound(_)), _) | (Ok(State::Dead), _) => (Phase::Gone, Some(gone(vm)), false),
        (Ok(State::Running), Kind::Gone) => (Phase::Error, Some(no_agent(vm)), false),
        (_, Kind::Ended | Kind::Denied) => (Phase::Error, Some(why.into()), false),
        (Err(error @ (Error::Denied(_) | Error::Cancelled)), _) => {
            keep::warn(&format!("VM {vm} cannot be looked at"), &error);
            (Phase::Unreachable, Some(why.into()), false)
        }
        _ => (Phase::Unreachable, Some(why.into()), true),
    };
    let before = lieutenant.record();
    lieutenant.is(phase, problem.clone());
    if before.phase != phase {
        let name = &lieutenant.name;
        let problem = problem.unwrap_or_default();
        match phase {
            Phase::Paused => ui::notify(
                &format!("Lieutenant \"{name}\" is paused: so is its VM."),
                Severity::Info,
            ),
            Phase::Gone => ui::notify(
                &format!(
                    "Lieutenant \"{name}\" is gone: {problem} vers_lt_destroy takes it off the list."
                ),
                Severity::Warning,
            ),
            _ => ui::notify(
                &words::first(
                    &format!("Lieutenant \"{name}\" is {}: {problem}", phase.word()),
                    1000,
                    "…",
                ),
                Severity::Warning,
            ),
        }
        // A run that was under way does not come back.
        if before.busy && matches!(phase, Phase::Error | Phase::Gone) {
            let past = Past {
                outcome: Outcome::Failed(problem),
                text: String::new(),
                left_out: 0,
                at: timers::now(),
            };
            announce::broke_off(lieutenant, past).await;
            return again;
        }
    }
    keep::save(lieutenant).await != Kept::TakenOver && again
}

/// Its VM is not there any more.
pub(crate) fn gone(vm: &str) -> String {
    format!("The platform knows no VM {vm} any more (or this key may not see it).")
}

/// Nothing runs on its VM.
pub(crate) fn no_agent(vm: &str) -> String {
    format!("Pi RPC session not found on VM {vm}. It may have crashed.")
}

/// A failure as a capability's error, for a call that waits.
pub(crate) fn error(failure: Failure) -> Error {
    match failure.kind {
        Kind::Gone => Error::NotFound(failure.to_string()),
        Kind::Paused | Kind::Refused | Kind::Ended => Error::Other(failure.to_string()),
        Kind::Unreachable => Error::Unavailable(failure.to_string()),
        Kind::TimedOut => Error::TimedOut(failure.to_string()),
        Kind::Cancelled => Error::Cancelled,
        Kind::Denied => Error::Denied(failure.why),
    }
}
