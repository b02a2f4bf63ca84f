//! Messages and responses in the protocol's form.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::models::Model;

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// What the user, or a program, says.
pub(super) fn user(text: &str) -> Value {
    json!({ "role": "user", "content": [{ "type": "text", "text": text }], "timestamp": now() })
}

/// A part of an assistant's message.
#[derive(Debug, Clone)]
pub(super) enum Part {
    Text(String),
    Call { id: String, command: String },
}

impl Part {
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Text(text) => json!({ "type": "text", "text": text }),
            Self::Call { id, command } => {
                json!({ "type": "toolCall", "id": id, "name": "bash", "arguments": { "command": command } })
            }
        }
    }
}

/// How an assistant's message ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// It has said all.
    End,
    ToolUse,
    Error(String),
    Aborted,
}

/// What the agent says.
pub(super) fn assistant(parts: &[Part], model: &Model, stop: &Stop, timestamp: u64) -> Value {
    let characters: usize = parts
        .iter()
        .map(|part| match part {
            Part::Text(text) | Part::Call { command: text, .. } => text.len(),
        })
        .sum();
    // About what models count.
    let (input, output) = (10, characters.div_ceil(4));
    let (reason, error) = match stop {
        Stop::End => ("stop", None),
        Stop::ToolUse => ("toolUse", None),
        Stop::Error(why) => ("error", Some(why.as_str())),
        Stop::Aborted => ("aborted", Some("Request was aborted")),
    };
    let mut message = json!({
        "role": "assistant",
        "content": parts.iter().map(Part::json).collect::<Vec<_>>(),
        "api": "scripted", "provider": model.provider, "model": model.id,
        "usage": {
            "input": input, "output": output, "cacheRead": 0, "cacheWrite": 0, "totalTokens": input + output,
            "cost": { "input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0, "total": 0 },
        },
        "stopReason": reason,
        "timestamp": timestamp,
    });
    if let (Some(message), Some(error)) = (message.as_object_mut(), error) {
        message.insert("errorMessage".into(), error.into());
    }
    message
}

/// What a tool handed back.
pub(super) fn tool_result(id: &str, result: &Value, is_error: bool) -> Value {
    json!({
        "role": "toolResult", "toolCallId": id, "toolName": "bash",
        "content": result.get("content").cloned().unwrap_or_else(|| json!([])),
        "isError": is_error, "timestamp": now(),
    })
}

/// A command was done. The id is left out where the command had none.
pub(super) fn done(id: Option<&Value>, command: &str, data: Option<Value>) -> Value {
    let mut response = json!({ "type": "response", "command": command, "success": true });
    if let Some(response) = response.as_object_mut() {
        if let Some(data) = data {
            response.insert("data".into(), data);
        }
        insert_id(response, id);
    }
    response
}

/// A command was refused.
pub(super) fn refused(id: Option<&Value>, command: &str, why: &str) -> Value {
    let mut response =
        json!({ "type": "response", "command": command, "success": false, "error": why });
    if let Some(response) = response.as_object_mut() {
        insert_id(response, id);
    }
    response
}

fn insert_id(response: &mut serde_json::Map<String, Value>, id: Option<&Value>) {
    if let Some(id) = id {
        response.shift_insert(0, "id".into(), id.clone());
    }
}
