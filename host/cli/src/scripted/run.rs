//! A run: from a prompt until the agent has settled, in pi's order of events.
//!
//! A run is one or more rounds from `agent_start` to `agent_end`. A round that failed for a reason that may pass is followed by
//! another one (`auto_retry_start`), one that was out of room too (`compaction_start`), and so is one whose queues are not empty.
//! Queues of a round that failed or was aborted wait for the next prompt, as in pi.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::agent::{Agent, Line};
use super::draft::Draft;
use super::messages::{self, Stop};
use super::script::{self, Room, Step};
use super::{steps, tool};

/// Retries after which pi gives up.
const MOST_ATTEMPTS: u32 = 3;
/// How long making room takes.
const COMPACTION: Duration = Duration::from_millis(50);

/// What comes after a message of the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it has said all.
    Rest,
    /// The command is run.
    Tool(String),
    Failed(Failure),
    Aborted,
}

/// Why the model did not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// For good.
    Final(String),
    /// It is tried again after this time.
    Passing(Duration),
    /// The context was full.
    Full { punkin: bool },
}

impl Failure {
    fn words(&self) -> String {
        match self {
            Self::Final(why) => why.clone(),
            Self::Passing(_) => "529 overloaded_error: Overloaded".to_owned(),
            Self::Full { .. } => "prompt is too long: the context window is full".to_owned(),
        }
    }
}

/// How a round ended.
enum Round {
    Done,
    Aborted,
    Failed(Failure),
}

/// Serves prompts, one after the other, as long as there may come one.
pub(super) async fn serve(agent: Arc<Agent>, mut prompts: mpsc::Receiver<String>) {
    loop {
        let prompt = tokio::select! {
            biased;
            () = agent.stop.cancelled() => return,
            prompt = prompts.recv() => prompt,
        };
        let Some(prompt) = prompt else { return };
        let stop = agent.state().run.clone();
        let mut run = Run {
            agent: &agent,
            stop,
            todo: VecDeque::new(),
            report: String::new(),
            attempt: 0,
            room: None,
        };
        run.work(prompt).await;
    }
}

/// The run that is under way.
pub(super) struct Run<'a> {
    pub(super) agent: &'a Agent,
    pub(super) stop: CancellationToken,
    /// What is still to be done.
    pub(super) todo: VecDeque<Step>,
    /// What is said first: how the tool call went.
    pub(super) report: String,
    /// The retry that is under way.
    attempt: u32,
    /// Room is made at the end.
    pub(super) room: Option<bool>,
}

impl Run<'_> {
    async fn work(&mut self, prompt: String) {
        let mut fresh = vec![prompt];
        loop {
            let ended = self.round(std::mem::take(&mut fresh)).await;
            self.agent.state().streaming = false;
            let again = match ended {
                Round::Failed(Failure::Passing(delay)) => self.try_again(delay).await,
                Round::Failed(Failure::Full { punkin }) => {
                    self.make_room(Room::Overflow, punkin).await
                }
                Round::Failed(Failure::Final(_)) | Round::Aborted => false,
                Round::Done => {
                    if let Some(punkin) = self.room.take() {
                        self.make_room(Room::Threshold, punkin).await;
                    }
                    {
                        let mut state = self.agent.state();
                        let none = state.follow_up.messages.is_empty()
                            && state.steering.messages.is_empty();
                        if none || self.stop.is_cancelled() {
                            // Under the same lock: what is queued from now on is a prompt of its own.
                            self.agent.settle(&mut state);
                            return;
                        }
                    }
                    fresh = self.agent.dequeue(Line::Steering).await;
                    if fresh.is_empty() {
                        fresh = self.agent.dequeue(Line::FollowUp).await;
                    }
                    true
                }
            };
            let mut state = self.agent.state();
            if !again {
                self.agent.settle(&mut state);
                return;
            }
            state.streaming = true;
        }
    }

    /// From `agent_start` to `agent_end`.
    async fn round(&mut self, prompts: Vec<String>) -> Round {
        let agent = self.agent;
        let mut said = Vec::new();
        agent.emit(json!({ "type": "agent_start" })).await;
        agent.emit(json!({ "type": "turn_start" })).await;
        for prompt in prompts {
            self.hear(&prompt, &mut said).await;
        }
        let mut waiting = agent.dequeue(Line::Steering).await;
        let mut first = true;
        let ended = loop {
            if !std::mem::take(&mut first) {
                agent.emit(json!({ "type": "turn_start" })).await;
            }
            for message in std::mem::take(&mut waiting) {
                self.hear(&message, &mut said).await;
            }
            let (message, next) = self.speak().await;
            said.push(message.clone());
            let mut results = Vec::new();
            let mut more = false;
            let ended = match next {
                Next::Rest => None,
                Next::Failed(failure) => Some(Round::Failed(failure)),
                Next::Aborted => Some(Round::Aborted),
                Next::Tool(command) => {
                    let (result, report) =
                        tool::execute(agent, &message, &command, &self.stop).await;
                    agent.state().session.record(&result);
                    results.push(result);
                    self.report = report;
                    more = true;
                    None
                }
            };
            agent
                .emit(json!({ "type": "turn_end", "message": message, "toolResults": results }))
                .await;
            said.extend(results);
            if let Some(ended) = ended {
                break ended;
            }
            waiting = agent.dequeue(Line::Steering).await;
            if more || !waiting.is_empty() {
                continue;
            }
            waiting = agent.dequeue(Line::FollowUp).await;
            if waiting.is_empty() {
                break Round::Done;
            }
        };
        agent
            .emit(json!({ "type": "agent_end", "messages": said }))
            .await;
        ended
    }

    /// A message from outside: what it says takes the place of what was still to be done.
    async fn hear(&mut self, text: &str, said: &mut Vec<Value>) {
        let message = messages::user(text);
        for event in ["message_start", "message_end"] {
            self.agent
                .emit(json!({ "type": event, "message": message }))
                .await;
        }
        self.agent.state().session.record(&message);
        said.push(message);
        self.todo = script::steps(text).into();
    }

    /// One message of the agent.
    async fn speak(&mut self) -> (Value, Next) {
        let mut draft = Draft::start(self.agent).await;
        let next = steps::speak(self, &mut draft).await;
        let stop = match &next {
            Next::Rest => Stop::End,
            Next::Tool(_) => Stop::ToolUse,
            Next::Failed(failure) => Stop::Error(failure.words()),
            Next::Aborted => Stop::Aborted,
        };
        let message = draft.end(&stop).await;
        self.agent.state().session.record(&message);
        if !matches!(next, Next::Failed(_)) && self.attempt > 0 {
            let attempt = std::mem::take(&mut self.attempt);
            let event = json!({ "type": "auto_retry_end", "success": true, "attempt": attempt });
            self.agent.emit(event).await;
        }
        (message, next)
    }

    /// Waits for the next attempt; whether there is one.
    async fn try_again(&mut self, delay: Duration) -> bool {
        if !self.agent.state().auto_retry {
            return false;
        }
        let error = Failure::Passing(delay).words();
        let gave_up = |attempt: u32, why: &str| json!({ "type": "auto_retry_end", "success": false, "attempt": attempt, "finalError": why });
        self.attempt += 1;
        if self.attempt > MOST_ATTEMPTS {
            let attempt = std::mem::take(&mut self.attempt) - 1;
            self.agent.emit(gave_up(attempt, &error)).await;
            return false;
        }
        let delay = delay.saturating_mul(1 << (self.attempt - 1));
        let event = json!({
            "type": "auto_retry_start", "attempt": self.attempt, "maxAttempts": MOST_ATTEMPTS,
            "delayMs": u64::try_from(delay.as_millis()).unwrap_or(u64::MAX), "errorMessage": error,
        });
        self.agent.emit(event).await;
        tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                let attempt = std::mem::take(&mut self.attempt);
                self.agent.emit(gave_up(attempt, "Retry cancelled")).await;
                false
            }
            () = tokio::time::sleep(delay) => true,
        }
    }

    /// Makes room in the context; whether the run goes on.
    async fn make_room(&mut self, room: Room, punkin: bool) -> bool {
        if !self.agent.state().auto_compaction {
            return false;
        }
        let (start, end) = match punkin {
            true => ("auto_compaction_start", "auto_compaction_end"),
            false => ("compaction_start", "compaction_end"),
        };
        let (reason, retry) = match room {
            Room::Threshold => ("threshold", false),
            Room::Overflow => ("overflow", true),
        };
        self.agent.state().compacting = true;
        self.agent
            .emit(json!({ "type": start, "reason": reason }))
            .await;
        let done = tokio::select! {
            biased;
            () = self.stop.cancelled() => false,
            () = tokio::time::sleep(COMPACTION) => true,
        };
        let result = done.then(|| {
            json!({ "summary": "what was said so far", "firstKeptEntryId": "entry-1", "tokensBefore": 190_000 })
        });
        {
            let state = &mut *self.agent.state();
            state.compacting = false;
            if done {
                state.session.forget_messages();
            }
        }
        let event = json!({ "type": end, "reason": reason, "result": result, "aborted": !done, "willRetry": retry && done });
        self.agent.emit(event).await;
        retry && done
    }
}
