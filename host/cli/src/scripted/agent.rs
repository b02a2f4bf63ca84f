//! What commands and the run share: the state, the way out, and who is busy.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::models::Model;
use super::script::Deadly;
use super::session::Session;
use crate::wire::{Outbox, line};

/// How the process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Code(i32),
    Signal(Deadly),
}

/// How many messages of a queue are delivered at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    All,
    OneAtATime,
}

impl Delivery {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::OneAtATime => "one-at-a-time",
        }
    }
}

/// Messages that wait for the run.
#[derive(Debug)]
pub(super) struct Queue {
    pub(super) messages: VecDeque<String>,
    pub(super) delivery: Delivery,
}

impl Queue {
    fn new() -> Self {
        Self {
            messages: VecDeque::new(),
            delivery: Delivery::OneAtATime,
        }
    }

    fn take(&mut self) -> Vec<String> {
        match self.delivery {
            Delivery::All => self.messages.drain(..).collect(),
            Delivery::OneAtATime => self.messages.pop_front().into_iter().collect(),
        }
    }
}

/// Which queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    Steering,
    FollowUp,
}

/// What changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) session: Session,
    pub(super) model: Model,
    pub(super) thinking: String,
    pub(super) steering: Queue,
    pub(super) follow_up: Queue,
    pub(super) auto_retry: bool,
    pub(super) auto_compaction: bool,
    /// Between a prompt and `agent_end`; as in pi not while a retry or a compaction is waited for.
    pub(super) streaming: bool,
    pub(super) compacting: bool,
    /// Ends the run that is under way.
    pub(super) run: CancellationToken,
    /// Ends the command that `bash` runs.
    pub(super) bash: Option<CancellationToken>,
    /// Dialogs that wait for an answer.
    pub(super) dialogs: HashMap<String, oneshot::Sender<Value>>,
}

impl State {
    pub(super) fn queue(&mut self, queue: Line) -> &mut Queue {
        match queue {
            Line::Steering => &mut self.steering,
            Line::FollowUp => &mut self.follow_up,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) models: Vec<Model>,
    pub(super) system_prompt: String,
    /// Where sessions are kept.
    pub(super) sessions: Option<std::path::PathBuf>,
    pub(super) tasks: TaskTracker,
    /// Ends everything.
    pub(super) stop: CancellationToken,
    outbox: Arc<Outbox>,
    state: Mutex<State>,
    /// From a prompt until nothing more happens by itself.
    busy: watch::Sender<bool>,
    prompts: mpsc::Sender<String>,
    exit: mpsc::Sender<Exit>,
}

impl Agent {
    pub(super) fn new(
        models: Vec<Model>,
        model: Model,
        system_prompt: String,
        session: Session,
        sessions: Option<std::path::PathBuf>,
        outbox: Arc<Outbox>,
    ) -> (Arc<Self>, mpsc::Receiver<String>, mpsc::Receiver<Exit>) {
        let state = State {
            session,
            model,
            thinking: "off".to_owned(),
            steering: Queue::new(),
            follow_up: Queue::new(),
            auto_retry: true,
            auto_compaction: true,
            streaming: false,
            compacting: false,
            run: CancellationToken::new(),
            bash: None,
            dialogs: HashMap::new(),
        };
        let (prompts, inbox) = mpsc::channel(1);
        let (exit, exits) = mpsc::channel(1);
        let agent = Self {
            models,
            system_prompt,
            sessions,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            outbox,
            state: Mutex::new(state),
            busy: watch::Sender::new(false),
            prompts,
            exit,
        };
        (Arc::new(agent), inbox, exits)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an event or a response.
    pub(super) async fn emit(&self, event: Value) {
        self.outbox.send(line(&event)).await;
    }

    /// Writes a line that is none of the protocol's.
    pub(super) async fn noise(&self, text: &str) {
        self.outbox.send(format!("{text}\n").into_bytes()).await;
    }

    pub(super) fn is_busy(&self) -> bool {
        *self.busy.borrow()
    }

    /// Begins to be busy; `false` if it is already. The lock shows that nobody looks meanwhile.
    pub(super) fn begin(&self, state: &mut State) -> bool {
        if self.is_busy() {
            return false;
        }
        state.streaming = true;
        state.run = self.stop.child_token();
        self.busy.send_replace(true);
        true
    }

    /// Hands the run its prompt, after [`Agent::begin`].
    pub(super) async fn prompt(&self, message: String) {
        // It ends with the process.
        let _ = self.prompts.send(message).await;
    }

    /// Is not busy any more.
    pub(super) fn settle(&self, state: &mut State) {
        state.streaming = false;
        self.busy.send_replace(false);
    }

    /// Stops the run, and waits until nothing happens any more.
    pub(super) async fn abort(&self) {
        self.state().run.cancel();
        // The sender lives as long as this.
        let _ = self.busy.subscribe().wait_for(|busy| !busy).await;
    }

    /// Puts a message where the run will find it.
    pub(super) async fn enqueue(&self, queue: Line, message: String) {
        self.state().queue(queue).messages.push_back(message);
        self.tell_queues().await;
    }

    /// The same, unless there is no run that would find it.
    pub(super) async fn enqueue_if_busy(&self, queue: Line, message: &str) -> bool {
        {
            let state = &mut *self.state();
            if !self.is_busy() {
                return false;
            }
            state.queue(queue).messages.push_back(message.to_owned());
        }
        self.tell_queues().await;
        true
    }

    /// Takes what is to be delivered now.
    pub(super) async fn dequeue(&self, queue: Line) -> Vec<String> {
        let taken = self.state().queue(queue).take();
        if !taken.is_empty() {
            self.tell_queues().await;
        }
        taken
    }

    pub(super) async fn tell_queues(&self) {
        let event = {
            let state = self.state();
            json!({ "type": "queue_update", "steering": state.steering.messages, "followUp": state.follow_up.messages })
        };
        self.emit(event).await;
    }

    /// Asks the user, and waits for the answer; none when the run is stopped.
    pub(super) async fn ask(&self, mut request: Value, stop: &CancellationToken) -> Option<Value> {
        let id = uuid::Uuid::new_v4().to_string();
        let (sender, answer) = oneshot::channel();
        self.state().dialogs.insert(id.clone(), sender);
        if let Some(request) = request.as_object_mut() {
            request.shift_insert(0, "type".into(), "extension_ui_request".into());
            request.shift_insert(1, "id".into(), id.clone().into());
        }
        self.emit(request).await;
        let answer = tokio::select! {
            biased;
            () = stop.cancelled() => None,
            answer = answer => answer.ok(),
        };
        self.state().dialogs.remove(&id);
        answer
    }

    /// Ends the process; returns when nothing is heard any more of who called it. What was said before is still written.
    pub(super) async fn end(&self, exit: Exit) {
        let _ = self.exit.send(exit).await;
        self.stop.cancelled().await;
    }
}
