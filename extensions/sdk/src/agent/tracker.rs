//! What an agent's lines mean: when a run begins, and when it is over.
//!
//! The end of a run is decided by the protocol and never by silence: a build may be quiet for an hour. `agent_end` alone is not the end
//! either: the agent may try again, make room for more, or go on with what was queued. pi 0.87 says `agent_settled`; an older
//! one is asked for its state after each `agent_end`, and is done when it neither streams nor compacts nor has something queued.
//!
//! A prompt that was taken is followed by exactly one end: of its run; or of none, when the agent refuses it late, when it dies,
//! or when it turns out to have been a command of an extension, which has no run.

use serde_json::Value;

use super::Outcome;
use super::protocol::{Dialog, Line, Message, Response, State};
use super::said::Said;

/// What follows from a line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Effect {
    /// For whoever sent the command.
    Answer(Response),
    /// A run began.
    Started,
    /// The agent has to be asked for its state.
    Look,
    /// A run ended.
    Ended(Outcome),
    Dialog(Dialog),
    Notice(String),
    /// The agent's process has ended.
    Exit(i32),
}

/// How many looks find an agent that took a prompt idle before that prompt counts as done: an older punkin-pi says yes before it begins.
pub(crate) const LOOKS: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing is known yet.
    Unknown,
    Idle,
    /// It took a prompt, and the run has not begun. With how many looks have found it idle since.
    Taken(u8),
    Running,
    /// It said that it is done; its state decides. With how many looks have found something queued since.
    Ending(u8),
    /// It will go on by itself: after a pause for another try, or when it has made room.
    Pausing,
}

/// Follows an agent.
#[derive(Debug)]
pub(crate) struct Tracker {
    phase: Phase,
    said: Said,
    stop: Message,
    tool: Option<String>,
    /// The prompts that were taken and whose run has not ended.
    taken: Vec<String>,
}

impl Tracker {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Unknown,
            said: Said::default(),
            stop: Message::default(),
            tool: None,
            taken: Vec::new(),
        }
    }

    /// Whether a run is under way, or about to be.
    pub(crate) fn is_working(&self) -> bool {
        !matches!(self.phase, Phase::Unknown | Phase::Idle)
    }

    /// Whether it is known how the agent is.
    pub(crate) fn is_known(&self) -> bool {
        self.phase != Phase::Unknown
    }

    /// Whether it said that it is done and was not asked yet. A prompt sent now could not be told from the one before it.
    pub(crate) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending(_))
    }

    /// Whether a prompt was taken whose run has not begun.
    pub(crate) fn is_waiting_for_run(&self) -> bool {
        matches!(self.phase, Phase::Taken(_))
    }

    pub(crate) fn said(&self) -> &Said {
        &self.said
    }

    /// What it does now.
    pub(crate) fn activity(&self) -> Option<&str> {
        self.tool.as_deref().or(match self.phase {
            Phase::Pausing => Some("waiting to go on"),
            _ => None,
        })
    }

    /// The agent took this prompt; `handled`: it says that there will be no run.
    fn take(&mut self, id: &str, handled: bool) {
        self.taken.push(id.to_owned());
        if matches!(self.phase, Phase::Unknown | Phase::Idle) {
            self.phase = Phase::Taken(if handled { LOOKS - 1 } else { 0 });
            self.begin();
        }
    }

    /// What it said last, as it says itself: its lines were not read.
    pub(crate) fn recall(&mut self, text: &str) {
        if self.phase == Phase::Idle {
            self.said.message();
            self.said.message_is(text);
        }
    }

    fn begin(&mut self) {
        self.said.clear();
        self.stop = Message::default();
        self.tool = None;
    }

    /// Takes in a line.
    pub(crate) fn line(&mut self, line: Line) -> Vec<Effect> {
        match line {
            Line::Response(response) => self.response(response),
            line => self.event(line).into_iter().collect(),
        }
    }

    fn event(&mut self, line: Line) -> Option<Effect> {
        match line {
            Line::AgentStart => {
                let news = matches!(self.phase, Phase::Unknown | Phase::Idle | Phase::Taken(_));
                if news {
                    self.begin();
                }
                self.phase = Phase::Running;
                return news.then_some(Effect::Started);
            }
            Line::AgentEnd { will_retry } => {
                self.tool = None;
                if will_retry {
                    self.phase = Phase::Pausing;
                } else if self.phase != Phase::Idle {
                    self.phase = Phase::Ending(0);
                    return Some(Effect::Look);
                }
            }
            Line::AgentSettled => {
                return (self.is_working() && !self.is_waiting_for_run()).then(|| self.finish());
            }
            Line::MessageStart => self.said.message(),
            Line::Text(text) => self.said.push(&text),
            Line::MessageEnd(message) => {
                if let Some(text) = &message.text {
                    self.said.message_is(text);
                }
                self.stop = message;
            }
            Line::ToolStart(tool) => self.tool = Some(tool),
            Line::ToolEnd => self.tool = None,
            Line::RetryStart | Line::CompactionStart if self.phase != Phase::Running => {
                self.phase = Phase::Pausing;
            }
            Line::RetryEnd { success: true } | Line::CompactionEnd { will_retry: true } => {}
            Line::RetryEnd { success: false } | Line::CompactionEnd { will_retry: false } => {
                // A compaction that somebody asked for while nothing ran ends in a look, too.
                if self.phase == Phase::Pausing {
                    self.phase = Phase::Ending(0);
                    return Some(Effect::Look);
                }
            }
            Line::Dialog(dialog) => return Some(Effect::Dialog(dialog)),
            Line::Notice(text) => return Some(Effect::Notice(text)),
            Line::Exit(code) => return Some(Effect::Exit(code)),
            Line::RetryStart
            | Line::CompactionStart
            | Line::Thinking
            | Line::Response(_)
            | Line::Other => {}
        }
        None
    }

    fn response(&mut self, response: Response) -> Vec<Effect> {
        let mut effects = Vec::new();
        // Also those that somebody else asked for: a log that is read again then says the same as the first time.
        if response.command == "get_state"
            && let Ok(state) = &response.outcome
        {
            effects.extend(self.state(State::of(state)));
        }
        if response.command == "prompt" {
            let taken = self.taken.iter().position(|id| *id == response.id);
            match (taken, &response.outcome) {
                (Some(at), Err(why)) => {
                    self.taken.remove(at);
                    let why = why.clone();
                    if self.is_waiting_for_run() {
                        return vec![self.end(Outcome::Failed(why))];
                    }
                    return vec![Effect::Notice(format!("A message was refused: {why}"))];
                }
                (None, Ok(data)) => {
                    let handled =
                        data.get("disposition").and_then(Value::as_str) == Some("handled");
                    self.take(&response.id, handled);
                }
                (Some(_), Ok(_)) | (None, Err(_)) => {}
            }
        }
        effects.push(Effect::Answer(response));
        effects
    }

    /// Takes in how the agent is, as it says itself.
    fn state(&mut self, state: State) -> Option<Effect> {
        match self.phase {
            Phase::Unknown => {
                if state.is_busy() {
                    self.begin();
                    self.phase = Phase::Running;
                    return Some(Effect::Started);
                }
                self.phase = Phase::Idle;
                None
            }
            Phase::Taken(looks) => {
                if !state.is_busy() {
                    let looks = looks + 1;
                    self.phase = Phase::Taken(looks);
                    if looks >= LOOKS {
                        return Some(self.end(Outcome::Done));
                    }
                }
                None
            }
            Phase::Ending(looks) => {
                if state.is_streaming {
                    self.phase = Phase::Running;
                    None
                } else if state.is_compacting {
                    self.phase = Phase::Pausing;
                    None
                } else if state.pending_message_count > 0 && !self.stopped() && looks < LOOKS {
                    self.phase = Phase::Ending(looks + 1);
                    Some(Effect::Look)
                } else {
                    Some(self.finish())
                }
            }
            Phase::Idle | Phase::Running | Phase::Pausing => None,
        }
    }

    /// Ends what is under way, because the agent cannot go on with it.
    pub(crate) fn broken(&mut self, why: &str) -> Option<Effect> {
        self.is_working()
            .then(|| self.end(Outcome::Failed(why.to_owned())))
    }

    /// Whether the run failed or was stopped. What is queued then stays so until the next prompt.
    fn stopped(&self) -> bool {
        ["error", "aborted"].contains(&self.stop.stop_reason.as_str())
    }

    fn finish(&mut self) -> Effect {
        let outcome = match self.stop.stop_reason.as_str() {
            "error" => Outcome::Failed(
                self.stop
                    .error
                    .clone()
                    .unwrap_or_else(|| "the model failed without a reason".into()),
            ),
            "aborted" => Outcome::Aborted,
            _ => Outcome::Done,
        };
        self.end(outcome)
    }

    fn end(&mut self, outcome: Outcome) -> Effect {
        self.phase = Phase::Idle;
        self.tool = None;
        self.taken.clear();
        Effect::Ended(outcome)
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;
    use serde_json::json;

    /// What follows from a line: one thing at most, but for the answer to somebody's question for the state.
    fn line(tracker: &mut Tracker, line: Line) -> Option<Effect> {
        let mut effects = tracker.line(line);
        assert!(effects.len() <= 1, "{effects:?}");
        effects.pop()
    }

    fn taken(id: &str) -> Line {
        prompt(id, Ok(Value::Null))
    }

    fn prompt(id: &str, outcome: Result<Value, String>) -> Line {
        Line::Response(Response {
            id: id.into(),
            command: "prompt".into(),
            outcome,
        })
    }

    fn message(text: &str, stop: &str, error: Option<&str>) -> Line {
        Line::MessageEnd(Message {
            text: Some(text.into()),
            stop_reason: stop.into(),
            error: error.map(str::to_owned),
        })
    }

    const IDLE: State = State {
        is_streaming: false,
        is_compacting: false,
        pending_message_count: 0,
    };
    const BUSY: State = State {
        is_streaming: true,
        ..IDLE
    };

    fn working() -> Tracker {
        let mut tracker = Tracker::new();
        assert_eq!(tracker.state(IDLE), None);
        line(&mut tracker, taken("p1"));
        assert!(tracker.is_working());
        assert_eq!(line(&mut tracker, Line::AgentStart), Some(Effect::Started));
        tracker
    }

    fn end() -> Line {
        Line::AgentEnd { will_retry: false }
    }

    #[test]
    fn the_end_of_the_agent_loop_is_not_yet_the_end_of_the_run() {
        let mut tracker = working();
        line(&mut tracker, message("half", "error", Some("overloaded")));
        assert_eq!(line(&mut tracker, end()), Some(Effect::Look));
        // It tries again before it has answered.
        assert_eq!(line(&mut tracker, Line::RetryStart), None);
        assert_eq!(tracker.state(IDLE), None);
        assert!(tracker.is_working());
        assert_eq!(line(&mut tracker, Line::AgentStart), None);
        line(&mut tracker, Line::RetryEnd { success: true });
        line(&mut tracker, message("whole", "stop", None));
        assert_eq!(line(&mut tracker, end()), Some(Effect::Look));
        assert_eq!(tracker.state(IDLE), Some(Effect::Ended(Outcome::Done)));
        assert!(!tracker.is_working());
    }

    #[test]
    fn an_error_is_not_shown_as_done() {
        let mut tracker = working();
        line(&mut tracker, message("", "error", Some("no such model")));
        line(&mut tracker, end());
        assert_eq!(
            tracker.state(IDLE),
            Some(Effect::Ended(Outcome::Failed("no such model".into())))
        );
        let mut tracker = working();
        line(&mut tracker, message("", "aborted", None));
        assert_eq!(
            line(&mut tracker, Line::AgentSettled),
            Some(Effect::Ended(Outcome::Aborted))
        );
    }

    #[test]
    fn tries_that_have_come_to_an_end_end_the_run() {
        let mut tracker = working();
        line(&mut tracker, message("", "error", Some("overloaded")));
        line(&mut tracker, end());
        line(&mut tracker, Line::RetryStart);
        assert_eq!(
            line(&mut tracker, Line::RetryEnd { success: false }),
            Some(Effect::Look)
        );
        assert_eq!(
            tracker.state(IDLE),
            Some(Effect::Ended(Outcome::Failed("overloaded".into())))
        );
    }

    #[test]
    fn a_compaction_belongs_to_the_run() {
        let mut tracker = working();
        line(&mut tracker, end());
        line(&mut tracker, Line::CompactionStart);
        assert_eq!(
            tracker.state(State {
                is_compacting: true,
                ..IDLE
            }),
            None
        );
        assert_eq!(
            line(&mut tracker, Line::CompactionEnd { will_retry: true }),
            None
        );
        assert!(tracker.is_working());
        assert_eq!(line(&mut tracker, Line::AgentStart), None);
        assert_eq!(
            line(&mut tracker, Line::AgentSettled),
            Some(Effect::Ended(Outcome::Done))
        );
    }

    #[test]
    fn what_was_queued_is_worked_off_in_the_same_run() {
        let mut tracker = working();
        line(&mut tracker, taken("p2"));
        line(&mut tracker, end());
        assert_eq!(
            tracker.state(State {
                pending_message_count: 1,
                ..IDLE
            }),
            Some(Effect::Look)
        );
        assert_eq!(line(&mut tracker, Line::AgentStart), None);
        line(&mut tracker, end());
        assert_eq!(tracker.state(IDLE), Some(Effect::Ended(Outcome::Done)));
    }

    #[test]
    fn what_stays_queued_after_an_abort_does_not_keep_the_run_open() {
        let queued = State {
            pending_message_count: 1,
            ..IDLE
        };
        let mut tracker = working();
        line(&mut tracker, message("", "aborted", None));
        line(&mut tracker, end());
        assert_eq!(tracker.state(queued), Some(Effect::Ended(Outcome::Aborted)));
        // Whatever else it may be waiting with: it does nothing about it.
        let mut tracker = working();
        line(&mut tracker, end());
        for _ in 0..LOOKS {
            assert_eq!(tracker.state(queued), Some(Effect::Look));
        }
        assert_eq!(tracker.state(queued), Some(Effect::Ended(Outcome::Done)));
    }

    #[test]
    fn a_prompt_that_is_refused_late_has_ended() {
        let mut tracker = Tracker::new();
        tracker.state(IDLE);
        line(&mut tracker, taken("p1"));
        assert_eq!(
            line(&mut tracker, prompt("p1", Err("no key".into()))),
            Some(Effect::Ended(Outcome::Failed("no key".into())))
        );
        assert!(!tracker.is_working());
    }

    #[test]
    fn a_prompt_without_a_run_ends_after_some_looks_and_not_at_once() {
        let mut tracker = Tracker::new();
        tracker.state(IDLE);
        line(&mut tracker, taken("p1"));
        assert_eq!(tracker.state(BUSY), None);
        assert_eq!(tracker.state(IDLE), None);
        assert_eq!(tracker.state(IDLE), None);
        assert_eq!(tracker.state(IDLE), Some(Effect::Ended(Outcome::Done)));
    }

    #[test]
    fn a_prompt_that_an_extension_has_handled_ends_with_the_first_look() {
        let mut tracker = Tracker::new();
        tracker.state(IDLE);
        line(
            &mut tracker,
            prompt("p1", Ok(json!({"disposition": "handled"}))),
        );
        assert!(tracker.is_waiting_for_run());
        assert_eq!(tracker.state(IDLE), Some(Effect::Ended(Outcome::Done)));
    }

    #[test]
    fn an_agent_that_was_found_again_at_work_is_not_taken_for_idle() {
        let mut tracker = Tracker::new();
        assert_eq!(tracker.state(BUSY), Some(Effect::Started));
        assert!(tracker.is_working());
        assert_eq!(line(&mut tracker, end()), Some(Effect::Look));
        assert_eq!(tracker.state(IDLE), Some(Effect::Ended(Outcome::Done)));
    }

    #[test]
    fn an_agent_that_dies_ends_its_run_once() {
        let mut tracker = working();
        assert_eq!(line(&mut tracker, Line::Exit(137)), Some(Effect::Exit(137)));
        assert!(matches!(
            tracker.broken("killed"),
            Some(Effect::Ended(Outcome::Failed(_)))
        ));
        assert_eq!(tracker.broken("killed"), None);
    }

    #[test]
    fn answers_go_to_whoever_asked() {
        let mut tracker = working();
        let answer = Response {
            id: "x".into(),
            command: "get_state".into(),
            outcome: Ok(json!({"a": 1})),
        };
        assert_eq!(
            line(&mut tracker, Line::Response(answer.clone())),
            Some(Effect::Answer(answer))
        );
        assert!(matches!(
            line(&mut tracker, prompt("p9", Err("busy".into()))),
            Some(Effect::Answer(_))
        ));
    }

    proptest::proptest! {
        /// Whatever comes, an agent that said that it has settled is idle, and each start has at most one end.
        #[test]
        fn starts_and_ends_alternate(steps in proptest::collection::vec(0u8..12, 0..60)) {
            let mut tracker = Tracker::new();
            let mut open = false;
            for step in steps {
                let effect = match step {
                    0 => { line(&mut tracker, taken("p")); open = tracker.is_working(); None }
                    1 => line(&mut tracker, Line::AgentStart),
                    2 => line(&mut tracker, Line::AgentEnd { will_retry: false }),
                    3 => line(&mut tracker, Line::AgentEnd { will_retry: true }),
                    4 => line(&mut tracker, Line::AgentSettled),
                    5 => line(&mut tracker, Line::RetryStart),
                    6 => line(&mut tracker, Line::RetryEnd { success: false }),
                    7 => line(&mut tracker, Line::CompactionStart),
                    8 => line(&mut tracker, Line::CompactionEnd { will_retry: false }),
                    9 => tracker.state(IDLE),
                    10 => tracker.state(BUSY),
                    _ => tracker.broken("x"),
                };
                match effect {
                    Some(Effect::Started) => open = true,
                    Some(Effect::Ended(_)) => { proptest::prop_assert!(open || step != 1); open = false; }
                    _ => {}
                }
                if step == 4 && !tracker.is_waiting_for_run() {
                    proptest::prop_assert!(!tracker.is_working());
                }
            }
        }
    }
}
