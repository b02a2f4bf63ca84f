//! What is known of a lieutenant, as it is kept in the store.
//!
//! One key for each lieutenant, which only its owner writes, by `swap` (see [`crate::lease`]). What it said is kept apart
//! ([`crate::history`]), so that this stays small.

use pi_vers_sdk::agent::Bookmark;
use serde::{Deserialize, Serialize};

/// Where records lie in the store.
pub const PREFIX: &str = "lieutenant/";

/// How a lieutenant is, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It is being made. Whoever finds this and no owner alive deletes what there is of it: nobody was told of it.
    Starting,
    /// It waits for something to do.
    Idle,
    /// It has something to do.
    Working,
    /// Its VM is paused.
    Paused,
    /// Its agent has ended, or cannot be used.
    Error,
    /// It is being reached again.
    Connecting,
    /// Nobody knows how it is now: its VM does not answer, or the platform.
    Unreachable,
    /// The platform knows its VM no more.
    Gone,
    /// It is to be deleted, and that has not come about yet.
    Doomed,
}

impl Phase {
    /// The word that users read.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Paused => "paused",
            Self::Error => "error",
            Self::Connecting => "connecting",
            Self::Unreachable => "unreachable",
            Self::Gone => "gone",
            Self::Doomed => "deleting",
        }
    }

    /// The sign before its name.
    #[must_use]
    pub fn icon(self) -> &'static str {
        match self {
            Self::Working => "⟳",
            Self::Idle => "●",
            Self::Paused => "⏸",
            Self::Error | Self::Gone => "✗",
            Self::Starting | Self::Connecting | Self::Unreachable | Self::Doomed => "○",
        }
    }
}

/// What is kept of a lieutenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// What it is called.
    pub name: String,
    /// What it is for: part of its system prompt.
    pub role: String,
    /// Its VM; none for a local one, and for one whose VM is not there yet.
    #[serde(default)]
    pub vm: Option<String>,
    /// Its directory on this machine, if it is a local one.
    #[serde(default)]
    pub directory: Option<String>,
    /// How it was when this was written.
    pub phase: Phase,
    /// What is wrong, in words.
    #[serde(default)]
    pub problem: Option<String>,
    /// Whether it has something to do whose end has not been heard.
    #[serde(default)]
    pub busy: bool,
    /// Prompts that it was given.
    #[serde(default)]
    pub tasks: u64,
    /// Runs that have ended; the number of the newest one in its history.
    #[serde(default)]
    pub runs: u64,
    /// Numbers of runs whose end has not been told to the session yet.
    #[serde(default)]
    pub untold: Vec<u64>,
    /// When it was made, in milliseconds since 1970.
    pub created: u64,
    /// When it last did something.
    pub active: u64,
    /// Up to where its output has been dealt with: the end of its last run.
    #[serde(default)]
    pub bookmark: Option<Bookmark>,
    /// The model that was asked for.
    #[serde(default)]
    pub model: Option<String>,
    /// The commit that its VM began as.
    #[serde(default)]
    pub commit: Option<String>,
    /// The session that it belongs to: which made it, or spoke to it last.
    pub session: String,
    /// The instance that looks after it now; none: whoever comes first.
    #[serde(default)]
    pub owner: Option<String>,
}

impl Record {
    /// Whether it runs on this machine.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.directory.is_some()
    }

    /// Its VM in results and on the bus: `local-NAME` for a local one.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.vm {
            Some(vm) => vm.clone(),
            None if self.is_local() => format!("local-{}", self.name),
            None => String::new(),
        }
    }

    /// The key of a lieutenant of this name.
    #[must_use]
    pub fn key(name: &str) -> String {
        format!("{PREFIX}{name}")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn a_record_survives_the_store_and_one_with_less_in_it_is_read_too() {
        let least = json!({ "name": "a", "role": "r", "phase": "idle", "created": 1, "active": 2, "session": "s" });
        let mut record: Record = serde_json::from_value(least).unwrap();
        assert_eq!(
            (record.tasks, record.owner.clone(), record.is_local()),
            (0, None, false)
        );
        record.bookmark = Some(Bookmark {
            start: "x".into(),
            offset: 7,
        });
        record.untold = vec![3, 4];
        record.directory = Some("/d".into());
        assert_eq!(record.place(), "local-a");
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
