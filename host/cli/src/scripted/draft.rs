//! A message of the agent while it is being said: the events of its growth.
//!
//! As in pi each update holds the whole message so far, twice: what follows an agent's output must live with that.

use serde_json::{Value, json};

use super::agent::Agent;
use super::messages::{self, Part, Stop};
use super::models::Model;

/// See the module.
pub(super) struct Draft<'a> {
    agent: &'a Agent,
    model: Model,
    timestamp: u64,
    parts: Vec<Part>,
}

impl<'a> Draft<'a> {
    pub(super) async fn start(agent: &'a Agent) -> Self {
        let draft = Self {
            agent,
            model: agent.state().model.clone(),
            timestamp: messages::now(),
            parts: Vec::new(),
        };
        agent
            .emit(json!({ "type": "message_start", "message": draft.message(&Stop::End) }))
            .await;
        draft
    }

    pub(super) fn model(&self) -> &Model {
        &self.model
    }

    fn message(&self, stop: &Stop) -> Value {
        messages::assistant(&self.parts, &self.model, stop, self.timestamp)
    }

    async fn update(&self, mut event: Value) {
        let message = self.message(&Stop::End);
        if let Some(event) = event.as_object_mut() {
            let index = self.parts.len().saturating_sub(1);
            event.insert("contentIndex".into(), index.into());
            event.insert("partial".into(), message.clone());
        }
        let update =
            json!({ "type": "message_update", "assistantMessageEvent": event, "message": message });
        self.agent.emit(update).await;
    }

    /// Says more.
    pub(super) async fn say(&mut self, text: &str) {
        if !matches!(self.parts.last(), Some(Part::Text(_))) {
            self.parts.push(Part::Text(String::new()));
            self.update(json!({ "type": "text_start" })).await;
        }
        if let Some(Part::Text(said)) = self.parts.last_mut() {
            said.push_str(text);
        }
        self.update(json!({ "type": "text_delta", "delta": text }))
            .await;
    }

    /// Whether what was said last ends its line.
    pub(super) fn at_line_start(&self) -> bool {
        match self.parts.last() {
            Some(Part::Text(said)) => said.is_empty() || said.ends_with('\n'),
            _ => true,
        }
    }

    async fn end_text(&self) {
        if let Some(Part::Text(said)) = self.parts.last() {
            self.update(json!({ "type": "text_end", "content": said }))
                .await;
        }
    }

    /// Calls the tool.
    pub(super) async fn call(&mut self, id: &str, command: &str) {
        self.end_text().await;
        let part = Part::Call {
            id: id.to_owned(),
            command: command.to_owned(),
        };
        self.parts.push(part.clone());
        self.update(json!({ "type": "toolcall_start" })).await;
        let arguments = json!({ "command": command }).to_string();
        self.update(json!({ "type": "toolcall_delta", "delta": arguments }))
            .await;
        self.update(json!({ "type": "toolcall_end", "toolCall": part.json() }))
            .await;
    }

    /// Ends it; the message.
    pub(super) async fn end(self, stop: &Stop) -> Value {
        self.end_text().await;
        let message = self.message(stop);
        self.agent
            .emit(json!({ "type": "message_end", "message": message }))
            .await;
        message
    }
}
