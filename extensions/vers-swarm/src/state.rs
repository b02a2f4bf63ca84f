//! How an agent of the swarm is, and what of its work nobody has seen yet.
//!
//! It changes by two things alone: what its driver tells, and a task that is being given. Silence changes nothing: a build or a slow
//! model may be quiet for an hour. A run that has ended is a [`Report`], and counts as uncollected until somebody was shown it.

use pi_vers_sdk::agent::{Outcome, Run};
use serde::{Deserialize, Serialize};

use crate::bound::{end, one_line};

/// Reports of earlier tasks that are kept until somebody reads them.
const MOST_EARLIER: usize = 4;
/// Bytes of each.
const MOST_EARLIER_TEXT: usize = 64 * 1024;
/// Characters of a task that are remembered.
const MOST_TASK: usize = 2_000;

/// How an agent is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// It is being started, or reached again.
    Starting,
    /// It was never given a task.
    Idle,
    /// It has a task, and has not told how that ended.
    Working,
    /// The last task is done.
    Done,
    /// The last task failed, and how.
    Failed(String),
    /// Its process has ended, and how.
    Ended(String),
    /// It cannot be reached, and why. `gone`: its VM does not exist any more.
    Lost {
        /// In words.
        why: String,
        /// Nothing is left of it.
        gone: bool,
    },
}

impl Phase {
    /// The word that models and programs read.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Working => "working",
            Self::Done => "done",
            Self::Failed(_) => "error",
            Self::Ended(_) => "ended",
            Self::Lost { .. } => "lost",
        }
    }

    /// What is to be known besides the word.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::Failed(why) | Self::Ended(why) | Self::Lost { why, .. } => Some(why),
            Self::Starting | Self::Idle | Self::Working | Self::Done => None,
        }
    }

    /// Whether more is to come of what it does.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        matches!(self, Self::Starting | Self::Working)
    }

    /// Whether a driver holds it.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        !matches!(self, Self::Starting | Self::Ended(_) | Self::Lost { .. })
    }
}

/// A run that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The task, its beginning.
    pub task: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What the agent said, the end of it.
    pub text: String,
    /// Bytes that are missing before that.
    pub left_out: u64,
    /// Whether somebody was shown it.
    pub read: bool,
}

impl Report {
    /// The same with at most so many bytes of text.
    #[must_use]
    pub fn within(mut self, most: usize) -> Self {
        let kept = end(&self.text, most);
        self.left_out += (self.text.len() - kept.len()) as u64;
        self.text = kept.to_owned();
        self
    }

    /// Bytes in all that the agent said.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.left_out + self.text.len() as u64
    }

    fn phase(&self) -> Phase {
        match &self.outcome {
            Outcome::Done => Phase::Done,
            Outcome::Failed(why) => Phase::Failed(why.clone()),
            Outcome::Aborted => Phase::Failed("somebody stopped it".into()),
        }
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// How it is.
    pub phase: Phase,
    /// The last task it was given.
    pub task: Option<String>,
    /// How many it was given.
    pub tasks: u64,
    /// How the last run that ended did.
    pub report: Option<Report>,
    /// Earlier ones that nobody has read, oldest first.
    pub earlier: Vec<Report>,
    /// Earlier ones that nobody has read and for which there was no room.
    pub forgotten: u64,
    /// A task was taken whose end has not been told.
    pub owed: bool,
    /// Its run has begun: what the agent says now is of that run.
    pub running: bool,
    /// Things it was told of, by the driver.
    pub events: u64,
}

impl Default for State {
    fn default() -> Self {
        Self {
            phase: Phase::Starting,
            task: None,
            tasks: 0,
            report: None,
            earlier: Vec::new(),
            forgotten: 0,
            owed: false,
            running: false,
            events: 0,
        }
    }
}

/// A task that is being given: what to go back to if it is refused.
#[derive(Debug)]
pub struct Giving {
    phase: Phase,
    task: Option<String>,
    owed: bool,
    events: u64,
}

impl State {
    /// Begins to give a task, so that no other call does. `Err`: it cannot take one now.
    ///
    /// # Errors
    /// How it is instead.
    pub fn give(&mut self, task: &str) -> Result<Giving, Phase> {
        match self.phase {
            Phase::Idle | Phase::Done | Phase::Failed(_) => {}
            Phase::Starting | Phase::Working | Phase::Ended(_) | Phase::Lost { .. } => {
                return Err(self.phase.clone());
            }
        }
        let before = Giving {
            phase: self.phase.clone(),
            task: self.task.take(),
            owed: self.owed,
            events: self.events,
        };
        self.phase = Phase::Working;
        self.running = false;
        self.task = Some(task.chars().take(MOST_TASK).collect());
        self.owed = true;
        self.tasks += 1;
        Ok(before)
    }

    /// It did not take the task, or nobody knows: then what the driver tells later counts.
    pub fn not_given(&mut self, before: Giving) {
        self.tasks = self.tasks.saturating_sub(1);
        // What it told meanwhile is newer.
        if self.events == before.events {
            self.phase = before.phase;
            self.owed = before.owed;
            self.task = before.task;
        }
    }

    /// A run began.
    pub fn started(&mut self) {
        self.events += 1;
        self.phase = Phase::Working;
        self.owed = true;
        self.running = true;
    }

    /// A run ended.
    pub fn ended(&mut self, run: Run) {
        self.events += 1;
        self.running = false;
        let report = Report {
            task: self.task.clone().unwrap_or_default(),
            outcome: run.outcome,
            text: run.text,
            left_out: run.left_out,
            read: false,
        };
        self.phase = report.phase();
        self.owed = false;
        self.put(report);
    }

    fn put(&mut self, report: Report) {
        if let Some(old) = self.report.replace(report)
            && !old.read
        {
            if self.earlier.len() >= MOST_EARLIER {
                self.earlier.remove(0);
                self.forgotten += 1;
            }
            self.earlier.push(old.within(MOST_EARLIER_TEXT));
        }
    }

    /// Its process has ended. `said`: what it had said of a run whose end was not told.
    pub fn exited(&mut self, why: &str, said: String, left_out: u64) {
        self.events += 1;
        self.running = false;
        if std::mem::take(&mut self.owed) {
            self.put(Report {
                task: self.task.clone().unwrap_or_default(),
                outcome: Outcome::Failed(format!("the agent ended: {why}")),
                text: said,
                left_out,
                read: false,
            });
        }
        self.phase = Phase::Ended(why.to_owned());
    }

    /// It cannot be reached any more.
    pub fn lost(&mut self, why: &str, gone: bool) {
        self.events += 1;
        self.phase = Phase::Lost {
            why: why.to_owned(),
            gone,
        };
    }

    /// It is reached again: what comes now continues what was known.
    pub fn reached(&mut self) {
        self.phase = match &self.report {
            _ if self.owed => Phase::Working,
            Some(report) => report.phase(),
            None => Phase::Idle,
        };
    }

    /// Somebody was shown the last report, and, if `all`, the earlier ones. Says whether that was news.
    pub fn seen(&mut self, all: bool) -> bool {
        let mut news = false;
        if let Some(report) = &mut self.report
            && !self.owed
        {
            news = !std::mem::replace(&mut report.read, true);
        }
        if all {
            news |= !self.earlier.is_empty() || self.forgotten > 0;
            self.earlier.clear();
            self.forgotten = 0;
        }
        news
    }

    /// Why its VM must not be thrown away yet; none if it may. `saved`: what it said has been written to a file.
    #[must_use]
    pub fn holds(&self, saved: bool) -> Option<String> {
        let task = || match &self.task {
            Some(task) => format!(" on \"{}\"", one_line(task, 60)),
            None => String::new(),
        };
        match &self.phase {
            Phase::Working => return Some(format!("working{}", task())),
            Phase::Starting => return Some("not reached yet, so it may be working".into()),
            Phase::Lost { gone: false, why } if self.owed => {
                return Some(format!("lost while working{} ({why})", task()));
            }
            _ => {}
        }
        if saved {
            return None;
        }
        let unread = usize::from(self.report.as_ref().is_some_and(|report| !report.read))
            + self.earlier.len();
        (unread > 0).then(|| {
            let word = self.phase.word();
            match unread {
                1 => format!("{word}, and nobody has read what it said"),
                n => format!("{word}, and nobody has read what it said to {n} tasks"),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;
    use pi_vers_sdk::agent::Bookmark;
    use proptest::prelude::*;

    fn run(outcome: Outcome, text: &str) -> Run {
        Run {
            outcome,
            text: text.into(),
            left_out: 0,
            bookmark: Bookmark::default(),
        }
    }

    fn ready() -> State {
        let mut state = State::default();
        state.reached();
        state
    }

    #[test]
    fn a_task_goes_from_idle_to_working_to_done_and_the_next_one_starts() {
        let mut state = ready();
        assert_eq!(state.phase, Phase::Idle);
        state.give("one").unwrap();
        assert_eq!(state.give("two").unwrap_err(), Phase::Working);
        state.started();
        state.ended(run(Outcome::Done, "1"));
        assert_eq!(state.phase, Phase::Done);
        state.give("two").unwrap();
        state.ended(run(Outcome::Failed("no credit".into()), "2"));
        assert_eq!(state.phase, Phase::Failed("no credit".into()));
        assert_eq!((state.tasks, state.earlier.len()), (2, 1));
        state.give("three").unwrap();
    }

    #[test]
    fn an_end_that_is_told_before_the_acknowledgement_is_not_lost() {
        let mut state = ready();
        let giving = state.give("quick").unwrap();
        state.ended(run(Outcome::Done, "so quick"));
        // The acknowledgement comes now: nothing is left to do. Had it been a failure, what was told would still count.
        state.not_given(giving);
        assert_eq!(state.phase, Phase::Done);
    }

    #[test]
    fn a_refused_task_leaves_no_agent_working_for_ever() {
        let mut state = ready();
        let giving = state.give("x").unwrap();
        state.not_given(giving);
        assert_eq!(
            (&state.phase, state.owed, state.tasks),
            (&Phase::Idle, false, 0)
        );
        assert_eq!(state.task, None);
    }

    #[test]
    fn an_agent_that_crashed_is_not_working_any_more_and_what_it_said_is_a_failure() {
        let mut state = ready();
        state.give("build").unwrap();
        state.exited("exit code 1", "half of it".into(), 3);
        assert_eq!(state.phase, Phase::Ended("exit code 1".into()));
        let report = state.report.clone().unwrap();
        assert_eq!(
            report.outcome,
            Outcome::Failed("the agent ended: exit code 1".into())
        );
        assert_eq!((report.text.as_str(), report.length()), ("half of it", 13));
        assert!(state.holds(false).is_some());
        state.seen(true);
        assert_eq!(state.holds(false), None);
    }

    #[test]
    fn what_was_lost_and_is_reached_again_still_owes_its_run() {
        let mut state = ready();
        state.give("build").unwrap();
        state.lost("no route", false);
        assert!(state.holds(true).unwrap().starts_with("lost while working"));
        state.reached();
        assert_eq!(state.phase, Phase::Working);
        state.ended(run(Outcome::Done, "built"));
        state.lost("no route", false);
        state.reached();
        assert_eq!(state.phase, Phase::Done);
        // Nothing is left to throw away of a VM that does not exist.
        state.seen(true);
        state.give("again").unwrap();
        state.lost("no such VM", true);
        assert_eq!(state.holds(false), None);
    }

    #[test]
    fn unread_output_and_running_work_hold_a_vm_and_nothing_else_does() {
        let mut state = ready();
        assert_eq!(state.holds(false), None);
        state.give("a task\nof two lines").unwrap();
        assert_eq!(
            state.holds(true).unwrap(),
            "working on \"a task of two lines\""
        );
        state.ended(run(Outcome::Done, ""));
        assert_eq!(
            state.holds(false).unwrap(),
            "done, and nobody has read what it said"
        );
        assert_eq!(state.holds(true), None);
        state.seen(false);
        assert_eq!(state.holds(false), None);
    }

    #[test]
    fn reports_nobody_read_are_kept_within_bounds() {
        let mut state = ready();
        for task in 0..9 {
            state.give(&task.to_string()).unwrap();
            state.ended(run(Outcome::Done, &"x".repeat(100_000)));
        }
        assert_eq!((state.earlier.len(), state.forgotten), (MOST_EARLIER, 4));
        assert!(
            state
                .earlier
                .iter()
                .all(|old| old.text.len() <= MOST_EARLIER_TEXT && old.length() == 100_000)
        );
        assert!(state.holds(false).unwrap().contains("5 tasks"));
    }

    proptest! {
        #[test]
        fn whatever_happens_an_end_that_is_owed_is_not_forgotten(steps in proptest::collection::vec(0_u8..7, 0..40)) {
            let mut state = ready();
            for step in steps {
                match step {
                    0 => drop(state.give("t")),
                    1 => state.started(),
                    2 => state.ended(run(Outcome::Done, "x")),
                    3 => state.lost("cut", false),
                    4 => state.reached(),
                    5 => state.exited("gone", String::new(), 0),
                    _ => if let Ok(before) = state.give("t") { state.not_given(before) },
                }
                prop_assert_eq!(state.phase == Phase::Working, state.owed && state.phase.is_reached());
            }
        }
    }
}
