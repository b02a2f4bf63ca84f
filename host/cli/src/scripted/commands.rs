//! The commands of the protocol.
//!
//! As in pi they are not serialised: what takes time is done beside the others, and its response comes when it is done. A program
//! that sends `set_model` and a prompt at once gets the prompt on the old model.

use std::sync::Arc;
use std::time::Duration;

use pi_vers_system::process::Exit;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use super::agent::{Agent, Delivery, Line, State};
use super::messages::{done, refused};
use super::script::{self, Verdict};
use super::session::Session;
use super::shell::{self, Ended};
use super::text::{MOST_OUTPUT, keep_end};

/// How long pi looks for a model: it reads files meanwhile.
const LOOKING: Duration = Duration::from_millis(20);
/// How long after the first response a prompt is refused.
const REFUSING: Duration = Duration::from_millis(20);
/// Commands under way.
const MOST: usize = 256;
const LEVELS: [&str; 6] = ["off", "minimal", "low", "medium", "high", "xhigh"];
const BUSY: &str = "Agent is already processing. Specify streamingBehavior ('steer' or 'followUp') to queue the message.";

/// Deals with a line of the input.
pub(super) async fn take(agent: &Arc<Agent>, line: &[u8]) {
    let parsed: Value = match serde_json::from_slice(line) {
        Ok(parsed) => parsed,
        Err(why) => {
            let why = format!("Failed to parse command: {why}");
            return agent.emit(refused(None, "parse", &why)).await;
        }
    };
    let Value::Object(fields) = parsed else {
        let why = "Failed to parse command: it is no object";
        return agent.emit(refused(None, "parse", why)).await;
    };
    if text(&fields, "type") == "extension_ui_response" {
        let waiting = agent.state().dialogs.remove(text(&fields, "id"));
        // A late answer is passed over, as in pi.
        if let Some(waiting) = waiting {
            let _ = waiting.send(Value::Object(fields));
        }
        return;
    }
    let command = Command {
        agent: agent.clone(),
        id: fields.get("id").cloned(),
        kind: text(&fields, "type").to_owned(),
        fields,
    };
    command.run().await;
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

struct Command {
    agent: Arc<Agent>,
    id: Option<Value>,
    kind: String,
    fields: Map<String, Value>,
}

impl Command {
    fn text(&self, name: &str) -> &str {
        text(&self.fields, name)
    }

    async fn done(&self, data: Option<Value>) {
        self.agent
            .emit(done(self.id.as_ref(), &self.kind, data))
            .await;
    }

    async fn refuse(&self, why: &str) {
        self.agent
            .emit(refused(self.id.as_ref(), &self.kind, why))
            .await;
    }

    /// Does something beside the other commands.
    async fn beside<F: Future<Output = ()> + Send + 'static>(self, work: impl FnOnce(Self) -> F) {
        let tasks = self.agent.tasks.clone();
        if tasks.len() >= MOST {
            return self.refuse("too many commands are under way").await;
        }
        tasks.spawn(work(self));
    }

    async fn run(self) {
        let agent = self.agent.clone();
        match self.kind.as_str() {
            "prompt" => self.prompt().await,
            "steer" => {
                let message = self.text("message").to_owned();
                agent.enqueue(Line::Steering, message).await;
                self.done(None).await;
            }
            "follow_up" => {
                let message = self.text("message").to_owned();
                agent.enqueue(Line::FollowUp, message).await;
                self.done(None).await;
            }
            "abort" => {
                self.beside(async |command| {
                    command.agent.abort().await;
                    command.done(None).await;
                })
                .await;
            }
            "new_session" | "switch_session" => self.beside(Self::other_session).await,
            "get_state" => {
                let state = state(&agent.state());
                self.done(Some(state)).await;
            }
            "set_model" => self.beside(Self::set_model).await,
            "cycle_model" => {
                let model = {
                    let state = &mut *agent.state();
                    let at = agent.models.iter().position(|model| *model == state.model);
                    let next = at.map_or(0, |at| at + 1) % agent.models.len().max(1);
                    if let Some(model) = agent.models.get(next) {
                        state.model = model.clone();
                    }
                    state.model.json()
                };
                let thinking = agent.state().thinking.clone();
                let data = json!({ "model": model, "thinkingLevel": thinking, "isScoped": false });
                self.done(Some(data)).await;
            }
            "get_available_models" => {
                let models: Vec<Value> = agent.models.iter().map(|model| model.json()).collect();
                self.done(Some(json!({ "models": models }))).await;
            }
            "set_thinking_level" => {
                let level = self.text("level").to_owned();
                self.think(level).await;
                self.done(None).await;
            }
            "cycle_thinking_level" => {
                let now = agent.state().thinking.clone();
                let at = LEVELS.iter().position(|level| *level == now);
                let next = at.map_or(0, |at| at + 1) % LEVELS.len();
                let level = LEVELS.get(next).copied().unwrap_or("off");
                self.think(level.to_owned()).await;
                self.done(Some(json!({ "level": level }))).await;
            }
            "set_steering_mode" | "set_follow_up_mode" => {
                let mode = match self.text("mode") {
                    "all" => Delivery::All,
                    _ => Delivery::OneAtATime,
                };
                {
                    let state = &mut *agent.state();
                    match self.kind.as_str() {
                        "set_steering_mode" => state.steering.delivery = mode,
                        _ => state.follow_up.delivery = mode,
                    }
                }
                self.done(None).await;
            }
            "compact" => self.beside(Self::compact).await,
            "set_auto_compaction" | "set_auto_retry" => {
                let on = self.fields.get("enabled") == Some(&Value::Bool(true));
                {
                    let state = &mut *agent.state();
                    match self.kind.as_str() {
                        "set_auto_retry" => state.auto_retry = on,
                        _ => state.auto_compaction = on,
                    }
                }
                self.done(None).await;
            }
            "abort_retry" => {
                // As in pi the run ends with the retry that is waited for.
                let waits = !agent.state().streaming && agent.is_busy();
                if waits {
                    agent.state().run.cancel();
                }
                self.done(None).await;
            }
            "bash" => self.beside(Self::bash).await,
            "abort_bash" => {
                if let Some(running) = agent.state().bash.take() {
                    running.cancel();
                }
                self.done(None).await;
            }
            "get_session_stats" => {
                let stats = agent.state().session.stats();
                self.done(Some(stats)).await;
            }
            "get_last_assistant_text" => {
                // Without a text pi leaves the field out.
                let data = match agent.state().session.last_text() {
                    Some(text) => json!({ "text": text }),
                    None => json!({}),
                };
                self.done(Some(data)).await;
            }
            "set_session_name" => match self.text("name").trim() {
                "" => self.refuse("Session name cannot be empty").await,
                name => {
                    agent.state().session.rename(name);
                    let event = json!({ "type": "session_info_changed", "name": name });
                    agent.emit(event).await;
                    self.done(None).await;
                }
            },
            "get_messages" => {
                let messages: Vec<Value> = agent.state().session.messages().cloned().collect();
                self.done(Some(json!({ "messages": messages }))).await;
            }
            "get_commands" => self.done(Some(json!({ "commands": [] }))).await,
            other => {
                // pi answers this without the id.
                let why = format!("Unknown command: {other}");
                agent.emit(refused(None, other, &why)).await;
            }
        }
    }

    async fn prompt(self) {
        let agent = self.agent.clone();
        let message = self.text("message").to_owned();
        match script::verdict(&message) {
            Verdict::Take => {}
            Verdict::Reject(why) => return self.refuse(&why).await,
            Verdict::Refuse(why) => {
                self.done(None).await;
                return self
                    .beside(async move |command| {
                        tokio::time::sleep(REFUSING).await;
                        command.refuse(&why).await;
                    })
                    .await;
            }
        }
        let began = agent.begin(&mut agent.state());
        if began {
            self.done(None).await;
            return agent.prompt(message).await;
        }
        let queue = match self.text("streamingBehavior") {
            "steer" => Line::Steering,
            "followUp" => Line::FollowUp,
            _ => return self.refuse(BUSY).await,
        };
        if agent.enqueue_if_busy(queue, &message).await {
            self.done(None).await;
        } else {
            // It has settled meanwhile: then it is a prompt like any other.
            agent.begin(&mut agent.state());
            self.done(None).await;
            agent.prompt(message).await;
        }
    }

    async fn think(&self, level: String) {
        self.agent.state().thinking = level.clone();
        let event = json!({ "type": "thinking_level_changed", "level": level });
        self.agent.emit(event).await;
    }

    async fn set_model(self) {
        let (provider, id) = (self.text("provider"), self.text("modelId"));
        tokio::time::sleep(LOOKING).await;
        let found = self
            .agent
            .models
            .iter()
            .find(|model| model.provider == provider && model.id == id);
        match found {
            Some(model) => {
                self.agent.state().model = model.clone();
                self.done(Some(model.json())).await;
            }
            None => {
                let why = format!("Model not found: {provider}/{id}");
                self.refuse(&why).await;
            }
        }
    }

    async fn other_session(self) {
        let agent = &self.agent;
        agent.abort().await;
        let session = match self.text("sessionPath") {
            "" => Session::new(agent.sessions.as_deref()),
            path => Session::resume(std::path::Path::new(path).parent()),
        };
        {
            let state = &mut *agent.state();
            state.session = session;
            state.steering.messages.clear();
            state.follow_up.messages.clear();
        }
        self.done(Some(json!({ "cancelled": false }))).await;
    }

    async fn compact(self) {
        let agent = &self.agent;
        agent.abort().await;
        agent
            .emit(json!({ "type": "compaction_start", "reason": "manual" }))
            .await;
        let small = {
            let state = &mut *agent.state();
            let small = state.session.message_count() < 2;
            if !small {
                state.session.forget_messages();
            }
            small
        };
        let end = |result: Value, error: Option<&str>| {
            let mut event = json!({ "type": "compaction_end", "reason": "manual", "result": result, "aborted": false, "willRetry": false });
            if let (Some(event), Some(error)) = (event.as_object_mut(), error) {
                event.insert("errorMessage".into(), error.into());
            }
            event
        };
        if small {
            let why = "Nothing to compact (session too small)";
            let told = format!("Compaction failed: {why}");
            agent.emit(end(Value::Null, Some(&told))).await;
            return self.refuse(why).await;
        }
        let result = json!({ "summary": "what was said so far", "firstKeptEntryId": "entry-1", "tokensBefore": 1000 });
        agent.emit(end(result.clone(), None)).await;
        self.done(Some(result)).await;
    }

    async fn bash(self) {
        let stop = self.agent.stop.child_token();
        self.agent.state().bash = Some(stop.clone());
        let (heard, mut pieces) = mpsc::channel::<String>(16);
        let collecting = async {
            let (mut output, mut cut) = (String::new(), false);
            while let Some(piece) = pieces.recv().await {
                output += &piece;
                cut |= keep_end(&mut output, MOST_OUTPUT);
            }
            (output, cut)
        };
        let running = shell::run(self.text("command"), &stop, heard);
        let (ended, (output, truncated)) = tokio::join!(running, collecting);
        let mut data = json!({ "output": output });
        if let Some(data) = data.as_object_mut() {
            if let Ended::Exit(Exit::Code(code)) = &ended {
                data.insert("exitCode".into(), (*code).into());
            }
            data.insert("cancelled".into(), (ended == Ended::Stopped).into());
            data.insert("truncated".into(), truncated.into());
        }
        match ended {
            Ended::Failed(why) => self.refuse(&why).await,
            _ => self.done(Some(data)).await,
        }
    }
}

/// As `get_state` has it.
fn state(state: &State) -> Value {
    let mut data = json!({
        "model": state.model.json(),
        "thinkingLevel": state.thinking,
        "isStreaming": state.streaming,
        "isCompacting": state.compacting,
        "steeringMode": state.steering.delivery.word(),
        "followUpMode": state.follow_up.delivery.word(),
        "sessionId": state.session.id(),
        "autoCompactionEnabled": state.auto_compaction,
        "messageCount": state.session.message_count(),
        "pendingMessageCount": state.steering.messages.len() + state.follow_up.messages.len(),
    });
    if let Some(data) = data.as_object_mut() {
        // What there is not is left out, as in pi.
        if let Some(file) = state.session.file() {
            data.insert("sessionFile".into(), file.display().to_string().into());
        }
        if let Some(name) = state.session.name() {
            data.insert("sessionName".into(), name.into());
        }
    }
    data
}
