//! What outlives the session of each agent: enough to find it again, to go on exactly where its output was left, and not to lose
//! what it said.
//!
//! One record for each VM, replaced as a whole whenever something happened: so the text of a run and the bookmark after it are
//! always of one moment.

use pi_vers_sdk::agent::Bookmark;
use serde::{Deserialize, Serialize};

use crate::state::{Phase, Report, State};

/// Keys of records begin with this, and then comes the VM's id.
pub const PREFIX: &str = "worker/";
/// Bytes kept of what an agent said last.
const MOST_TEXT: usize = 64 * 1024;
/// Bytes kept of what it said before that, together.
const MOST_EARLIER: usize = 64 * 1024;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    /// What it is called.
    pub label: String,
    /// The whole id of its VM.
    pub vm: String,
    /// The commit that the VM was restored from, if known.
    pub commit: Option<String>,
    /// The session it belongs to.
    pub session: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// The last task.
    pub task: Option<String>,
    /// How many there were.
    pub tasks: u64,
    /// Whether the end of a task has not been told.
    pub owed: bool,
    /// The last run that ended.
    pub report: Option<Report>,
    /// Earlier ones that nobody has read.
    pub earlier: Vec<Report>,
    /// How many more there were.
    pub forgotten: u64,
    /// Where in its output we are.
    pub bookmark: Option<Bookmark>,
    /// Where in its outbox.
    pub outbox: u64,
    /// Whether it was told how to write to us.
    pub briefed: bool,
}

impl Record {
    /// Takes over what is to be kept of the state.
    pub fn keep(&mut self, state: &State) {
        self.task.clone_from(&state.task);
        self.tasks = state.tasks;
        self.owed = state.owed;
        self.report = state.report.clone().map(|report| report.within(MOST_TEXT));
        let each = MOST_EARLIER / state.earlier.len().max(1);
        let earlier = state.earlier.iter().cloned();
        self.earlier = earlier.map(|report| report.within(each)).collect();
        self.forgotten = state.forgotten;
    }

    /// The state to begin with: nobody has heard of the agent yet.
    #[must_use]
    pub fn state(&self) -> State {
        State {
            phase: Phase::Starting,
            task: self.task.clone(),
            tasks: self.tasks,
            report: self.report.clone(),
            earlier: self.earlier.clone(),
            forgotten: self.forgotten,
            owed: self.owed,
            running: false,
            events: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pi_vers_sdk::agent::{Outcome, Run};

    #[test]
    fn what_is_kept_is_what_comes_back_within_bounds() {
        let mut state = State::default();
        state.reached();
        for text in ["one", &"ä".repeat(100_000)] {
            state.give("task").unwrap();
            state.ended(Run {
                outcome: Outcome::Done,
                text: text.into(),
                left_out: 0,
                bookmark: Bookmark::default(),
            });
        }
        state.give("third").unwrap();
        let mut record = Record {
            label: "a".into(),
            vm: "v".into(),
            bookmark: Some(Bookmark {
                start: "s".into(),
                offset: 7,
            }),
            ..Record::default()
        };
        record.keep(&state);
        let text = serde_json::to_string(&record).unwrap();
        assert!(text.len() < 70_000, "{}", text.len());
        let back: Record = serde_json::from_str(&text).unwrap();
        assert_eq!(back, record);
        let mut again = back.state();
        assert_eq!(again.phase, Phase::Starting);
        again.reached();
        assert_eq!(again.phase, Phase::Working);
        assert_eq!(again.report.as_ref().unwrap().length(), 200_000);
        assert_eq!(again.earlier, state.earlier);
    }

    #[test]
    fn a_record_of_another_version_is_read_as_far_as_it_goes() {
        let back: Record = serde_json::from_str(r#"{"vm":"v","new":1}"#).unwrap();
        assert_eq!((back.vm.as_str(), back.owed), ("v", false));
    }
}
