//! What a lieutenant said: its last runs, each a key of its own in the store.
//!
//! Of a run the end is kept, where its summary stands: an agent can say more than the store of all lieutenants may hold.

use pi_vers_sdk::agent::{Outcome, Run};
use serde::{Deserialize, Serialize};

use crate::words::{last_bytes, last_lines};

/// Runs that are kept.
pub const MOST: u64 = 20;
/// Bytes that are kept of what was said in one: with twenty runs each, forty lieutenants fit into the store.
pub const KEPT: usize = 16 * 1024;
/// Bytes of a summary.
const SUMMARY: usize = 800;

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Past {
    /// How it ended.
    pub outcome: Outcome,
    /// What was said, or the end of it.
    pub text: String,
    /// Bytes that were left out before it.
    #[serde(default)]
    pub left_out: u64,
    /// When it ended, or when that was heard; in milliseconds since 1970.
    pub at: u64,
}

impl Past {
    /// A run that ended now.
    #[must_use]
    pub fn of(run: &Run, at: u64) -> Self {
        let text = last_bytes(&run.text, KEPT);
        Self {
            outcome: run.outcome.clone(),
            left_out: run.left_out + (run.text.len() - text.len()) as u64,
            text: text.into(),
            at,
        }
    }

    /// Whether it failed or was stopped: by its outcome, never by its words.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.outcome != Outcome::Done
    }

    /// Why it is an error, in words.
    #[must_use]
    pub fn reason(&self) -> Option<String> {
        match &self.outcome {
            Outcome::Done => None,
            Outcome::Failed(why) => Some(why.clone()),
            Outcome::Aborted => Some("it was stopped".into()),
        }
    }

    /// The end of what was said.
    #[must_use]
    pub fn summary(&self) -> String {
        last_lines(self.text.trim(), SUMMARY)
    }
}

/// Where the runs of a lieutenant lie in the store.
#[must_use]
pub fn prefix(name: &str) -> String {
    format!("run/{name}/")
}

/// The key of a run.
#[must_use]
pub fn key(name: &str, number: u64) -> String {
    format!("{}{number:010}", prefix(name))
}

/// The numbers that are kept when this is the newest, oldest first.
pub fn kept(newest: u64) -> impl DoubleEndedIterator<Item = u64> {
    newest.saturating_sub(MOST) + 1..=newest
}

/// The number that has to go when this one comes.
#[must_use]
pub fn dropped(newest: u64) -> Option<u64> {
    newest.checked_sub(MOST).filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pi_vers_sdk::agent::Bookmark;

    fn run(outcome: Outcome, text: &str) -> Past {
        let run = Run {
            outcome,
            text: text.into(),
            left_out: 5,
            bookmark: Bookmark::default(),
        };
        Past::of(&run, 1)
    }

    #[test]
    fn defect_48_words_such_as_no_errors_make_no_error() {
        let good = run(Outcome::Done, "0 failed, no errors, nothing fatal");
        assert!(!good.is_error());
        assert_eq!(good.reason(), None);
        let bad = run(Outcome::Failed("529 overloaded".into()), "all well so far");
        assert!(bad.is_error());
        assert_eq!(bad.reason().as_deref(), Some("529 overloaded"));
        assert!(run(Outcome::Aborted, "").is_error());
    }

    #[test]
    fn defect_48_a_summary_is_more_than_200_characters_and_begins_with_a_line() {
        let text = format!("{}\nDone:\n- {}\n", "x".repeat(2000), "y".repeat(400));
        let summary = run(Outcome::Done, &text).summary();
        assert_eq!(summary, format!("…\nDone:\n- {}", "y".repeat(400)));
    }

    #[test]
    fn of_a_long_run_the_end_is_kept_and_the_rest_counted() {
        let past = run(Outcome::Done, &("é".repeat(KEPT) + "end"));
        assert!(past.text.len() <= KEPT && past.text.ends_with("end"));
        assert_eq!(past.left_out, 5 + (2 * KEPT + 3 - past.text.len()) as u64);
    }

    #[test]
    fn twenty_runs_are_kept() {
        assert_eq!(kept(3).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(
            (kept(50).next(), kept(50).count(), kept(0).count()),
            (Some(31), 20, 0)
        );
        assert_eq!((dropped(20), dropped(21)), (None, Some(1)));
        assert_eq!(key("a", 7), "run/a/0000000007");
    }
}
