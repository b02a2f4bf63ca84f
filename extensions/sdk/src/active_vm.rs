//! Which VM tools act on: what `vers-vm` tells the other extensions of a session.
//!
//! The choice belongs to `vers-vm`. It says it on the bus topic [`TOPIC`]: by itself whenever the choice changes, and to
//! whoever asks on [`ASK`] with a token. Messages of the bus come in order, so an answer is never older than
//! a change made before the question. Both extensions need the topics in their `bus` grant.
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
/// The tool that makes a VM the active one: where there is none, nobody would answer.
const CHOOSER: &str = "vers_vm_use";
/// How long an answer may take, in milliseconds: the start of `vers-vm` waits for the platform, too.
const PATIENCE: u64 = 15_000;

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
    let number = ASKED.replace(ASKED.get() + 1);
    // No other extension's question has the same: an answer to both would still be right.
    let token = format!("{}.{number}", timers::ticks());
    let (answer, answered) = oneshot::channel();
    PENDING.with_borrow_mut(|pending| {
        pending.retain(|_, waiting| !waiting.is_canceled());
        pending.insert(token.clone(), answer);
    });
    let question = serde_json::to_string(&Question { token }).unwrap_or_default();
    bus::emit(ASK, &question);
    let late = timers::sleep(PATIENCE);
    futures::pin_mut!(late);
    match select(answered, late).await {
        Either::Left((Ok(active), _)) => Ok(active),
        Either::Right((Err(ended), _)) => Err(ended),
        Either::Left((Err(oneshot::Canceled), _)) | Either::Right((Ok(()), _)) => {
            Err(Error::TimedOut(format!(
                "vers-vm did not say which VM is active. A policy of your own needs bus = [\"{TOPIC}\", \"{ASK}\"] in the sections of both \
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
