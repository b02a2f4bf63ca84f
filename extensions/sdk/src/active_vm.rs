//! Which VM tools act on: what `vers-vm` tells the other extensions of a session.
//!
//! The choice belongs to `vers-vm`. It says it on the bus topic [`TOPIC`]: by itself whenever the choice changes, and to
//! whoever asks on [`ASK`] with a token. Messages of the bus come in order, so an answer is never older than
//! a change made before the question. Both extensions need the topics in their `bus` grant.
//!
//! An extension that has a reason to may also say, on [`USE`], that tools act on a VM of its own for now ([`use_for_now`]): the user's
//! choice stays recorded, and comes back when it is told so, or when the user chooses anew.
//!
//! An extension that asks names [`TOPIC`] in its `topics` and gives every event to [`heard`].

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use futures::channel::oneshot;
use futures::future::{Either, select};
use serde::{Deserialize, Serialize};

use crate::harness::{bus, session, timers};
use crate::{Error, Event};

/// Where the choice is told: an [`ActiveVm`].
pub const TOPIC: &str = "vers-vm.active";
/// Where it is asked for: a [`Question`].
pub const ASK: &str = "vers-vm.active.ask";
/// Where another VM is put in the place of the choice, for now: a [`Loan`].
pub const USE: &str = "vers-vm.use";
/// The tool that makes a VM the active one: where there is none, nobody would answer.
const CHOOSER: &str = "vers_vm_use";
/// How long an answer may take, in milliseconds: the start of `vers-vm` waits for the platform, too.
const PATIENCE: u64 = 15_000;
/// How long `vers-vm` may take to reach a VM that has just been made, in milliseconds.
const REACHING: u64 = 120_000;

/// The choice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveVm {
    /// The whole id of the VM that tools act on; none is this machine.
    pub vm_id: Option<String>,
    /// In an answer: the directory there that the session's commands have left behind; none is the home directory.
    #[serde(default)]
    pub working_directory: Option<String>,
    /// The token of the question that this answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer_to: Option<String>,
    /// In an answer to a [`Loan`]: why tools do not act on that VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Tools shall act on another VM than the chosen one, for now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Loan {
    /// The whole id of the VM; none: on the chosen one again.
    pub vm_id: Option<String>,
    /// Comes back as [`ActiveVm::answer_to`].
    pub token: String,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// Comes back as [`ActiveVm::answer_to`].
    pub token: String,
}

thread_local! {
    static PENDING: RefCell<HashMap<String, oneshot::Sender<ActiveVm>>> = RefCell::default();
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// Tells the others.
pub fn tell(active: &ActiveVm) {
    // A record of texts is always JSON.
    if let Ok(text) = serde_json::to_string(active) {
        bus::emit(TOPIC, &text);
    }
}

/// The question in a message of the bus, if it is one.
#[must_use]
pub fn question(event: &Event) -> Option<Question> {
    match event {
        Event::Bus((topic, data)) if topic == ASK => serde_json::from_str(data).ok(),
        _ => None,
    }
}

/// The loan in a message of the bus, if it is one.
#[must_use]
pub fn loan(event: &Event) -> Option<Loan> {
    match event {
        Event::Bus((topic, data)) if topic == USE => serde_json::from_str(data).ok(),
        _ => None,
    }
}

/// Takes in an answer that an [`ask`] of this extension waits for.
pub fn heard(event: &Event) {
    let Event::Bus((topic, data)) = event else {
        return;
    };
    let Some(active) = (topic == TOPIC)
        .then(|| serde_json::from_str::<ActiveVm>(data).ok())
        .flatten()
    else {
        return;
    };
    let waiting = active
        .answer_to
        .as_ref()
        .and_then(|token| PENDING.with_borrow_mut(|pending| pending.remove(token)));
    if let Some(waiting) = waiting {
        // It may have been given up meanwhile.
        let _ = waiting.send(active);
    }
}

/// Asks which VM is active. Where `vers-vm` is not loaded, none is. Cancel-safe.
///
/// # Errors
/// `Error::Cancelled` with the call that asks; `Error::TimedOut` when nobody answers.
pub async fn ask() -> Result<ActiveVm, Error> {
    if !session::all_tools().iter().any(|tool| tool == CHOOSER) {
        return Ok(ActiveVm::default());
    }
    let token = token();
    let question = serde_json::to_string(&Question {
        token: token.clone(),
    });
    answer(ASK, &question.unwrap_or_default(), token, PATIENCE).await
}

/// Lets tools act on this VM for now, or (`None`) on the chosen one again. Returns what they act on when that is so.
/// Where a VM is given, it has answered by then. Cancel-safe, but a loan that was asked for may then still be made.
///
/// # Errors
/// `Error::Unavailable` with the reason when tools do not act on it; as [`ask`].
pub async fn use_for_now(vm: Option<String>) -> Result<ActiveVm, Error> {
    if !session::all_tools().iter().any(|tool| tool == CHOOSER) {
        return Err(Error::NotFound("vers-vm is not loaded".into()));
    }
    let token = token();
    let loan = serde_json::to_string(&Loan {
        vm_id: vm,
        token: token.clone(),
    });
    let active = answer(USE, &loan.unwrap_or_default(), token, REACHING).await?;
    match active.error {
        Some(why) => Err(Error::Unavailable(why)),
        None => Ok(active),
    }
}

/// No other extension's question has the same: an answer to both would still be right.
fn token() -> String {
    let number = ASKED.replace(ASKED.get() + 1);
    format!("{}.{number}", timers::ticks())
}

async fn answer(
    topic: &str,
    message: &str,
    token: String,
    patience: u64,
) -> Result<ActiveVm, Error> {
    let (answer, answered) = oneshot::channel();
    PENDING.with_borrow_mut(|pending| {
        pending.retain(|_, waiting| !waiting.is_canceled());
        pending.insert(token, answer);
    });
    bus::emit(topic, message);
    let late = timers::sleep(patience);
    futures::pin_mut!(late);
    match select(answered, late).await {
        Either::Left((Ok(active), _)) => Ok(active),
        Either::Right((Err(ended), _)) => Err(ended),
        Either::Left((Err(oneshot::Canceled), _)) | Either::Right((Ok(()), _)) => {
            Err(Error::TimedOut(format!(
                "vers-vm did not say which VM is active. A policy of your own needs bus = [\"{TOPIC}\", \"{topic}\"] in the sections of both \
                 extensions"
            )))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn messages_are_what_the_documentation_says() {
        let active = ActiveVm {
            vm_id: Some("a".into()),
            working_directory: None,
            answer_to: Some("1.0".into()),
            error: None,
        };
        assert_eq!(
            serde_json::to_value(&active).unwrap(),
            json!({ "vmId": "a", "workingDirectory": null, "answerTo": "1.0" })
        );
        let told: ActiveVm = serde_json::from_value(json!({ "vmId": null })).unwrap();
        assert_eq!(told, ActiveVm::default());
        let asked = question(&Event::Bus((
            ASK.into(),
            r#"{"token":"x","more":1}"#.into(),
        )));
        assert_eq!(asked, Some(Question { token: "x".into() }));
        let lent = loan(&Event::Bus((
            USE.into(),
            r#"{"vmId":"b","token":"y"}"#.into(),
        )));
        assert_eq!(
            lent.map(|loan| (loan.vm_id, loan.token)),
            Some((Some("b".into()), "y".into()))
        );
        assert_eq!(
            question(&Event::Bus((TOPIC.into(), r#"{"token":"x"}"#.into()))),
            None
        );
    }

    #[test]
    fn only_the_one_who_asked_gets_the_answer() {
        let (answer, mut answered) = oneshot::channel();
        PENDING.with_borrow_mut(|pending| pending.insert("mine".into(), answer));
        for other in [
            r#"{"vmId":"a"}"#,
            r#"{"vmId":"a","answerTo":"other"}"#,
            "nonsense",
        ] {
            heard(&Event::Bus((TOPIC.into(), other.into())));
            assert_eq!(answered.try_recv(), Ok(None));
        }
        heard(&Event::Bus((
            TOPIC.into(),
            r#"{"vmId":"b","answerTo":"mine"}"#.into(),
        )));
        assert_eq!(
            answered.try_recv().unwrap().unwrap().vm_id,
            Some("b".into())
        );
    }
}
