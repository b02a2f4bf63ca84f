//! Messages of the conversation, as harnesses have them.

use serde_json::Value;

/// How messages begin that tell the model it plans.
pub const PLANNING: &str = "[PLAN MODE ACTIVE]";
/// The kind of those messages.
pub const PLANNING_KIND: &str = "plan-mode-context";
/// The kind of messages that tell the model which steps are left.
pub const EXECUTING_KIND: &str = "plan-execution-context";
/// The kind of the message that starts the work.
pub const EXECUTE_KIND: &str = "plan-mode-execute";

/// Whether a message, as JSON, may be one of those that this extension makes.
#[must_use]
pub fn concerns(message: &str) -> bool {
    [PLANNING, PLANNING_KIND, EXECUTING_KIND, EXECUTE_KIND]
        .iter()
        .any(|mark| message.contains(mark))
}

/// The text of an assistant's message; none if it is somebody else's.
#[must_use]
pub fn assistant(message: &Value) -> Option<String> {
    (message.get("role")? == "assistant").then(|| text(message))
}

/// The text of a message.
fn text(message: &Value) -> String {
    match message.get("content") {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Array(blocks)) => {
            let texts = blocks
                .iter()
                .filter(|block| block.get("type").is_some_and(|kind| kind == "text"))
                .filter_map(|block| block.get("text")?.as_str());
            texts.collect::<Vec<_>>().join("\n")
        }
        _ => String::new(),
    }
}

fn kind(message: &Value) -> &str {
    message
        .get("customType")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Takes out what is no longer true: messages that say what mode it is, but for the newest of the mode that is (`current`).
/// Whether there was one.
pub fn forget(messages: &mut Vec<Value>, current: Option<&str>) -> bool {
    let before = messages.len();
    let newest = current.and_then(|current| {
        messages
            .iter()
            .rposition(|message| kind(message) == current)
    });
    let mut at = 0;
    messages.retain(|message| {
        let here = at;
        at += 1;
        match kind(message) {
            PLANNING_KIND | EXECUTING_KIND => newest == Some(here),
            // As older versions of harnesses keep them.
            "" if message.get("role").is_some_and(|role| role == "user") => {
                current == Some(PLANNING_KIND) || !text(message).starts_with(PLANNING)
            }
            _ => true,
        }
    });
    messages.len() != before
}

/// What the assistant has said since the work began.
#[must_use]
pub fn since_execute(messages: &[Value]) -> String {
    let Some(begin) = messages
        .iter()
        .rposition(|message| kind(message) == EXECUTE_KIND)
    else {
        return String::new();
    };
    let said = messages.iter().skip(begin).filter_map(assistant);
    said.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn conversation() -> Vec<Value> {
        vec![
            json!({ "role": "user", "content": "hello" }),
            json!({ "role": "custom", "customType": "plan-mode-context", "content": "[PLAN MODE ACTIVE] 1" }),
            json!({ "role": "user", "content": [{ "type": "text", "text": "[PLAN MODE ACTIVE] as a user's" }] }),
            json!({ "role": "user", "content": "What does [PLAN MODE ACTIVE] mean?" }),
            json!({ "role": "custom", "customType": "plan-mode-context", "content": "[PLAN MODE ACTIVE] 2" }),
            json!({ "role": "assistant", "content": [{ "type": "text", "text": "[DONE:1]" }] }),
            json!({ "role": "custom", "customType": "plan-execution-context", "content": "left" }),
            json!({ "role": "custom", "customType": "plan-mode-execute", "content": "go" }),
            json!({ "role": "assistant", "content": [{ "type": "thinking", "thinking": "[DONE:3]" }, { "type": "text", "text": "[DONE:2]" }] }),
        ]
    }

    #[test]
    fn what_is_no_longer_true_is_taken_out() {
        let left = |current| {
            let mut messages = conversation();
            assert!(forget(&mut messages, current));
            messages
                .iter()
                .filter_map(|m| m["content"].as_str().map(str::to_owned))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            left(None),
            ["hello", "What does [PLAN MODE ACTIVE] mean?", "go"]
        );
        assert_eq!(
            left(Some(PLANNING_KIND)),
            [
                "hello",
                "What does [PLAN MODE ACTIVE] mean?",
                "[PLAN MODE ACTIVE] 2",
                "go"
            ]
        );
        assert_eq!(
            left(Some(EXECUTING_KIND)),
            ["hello", "What does [PLAN MODE ACTIVE] mean?", "left", "go"]
        );
        let mut plain = vec![json!({ "role": "user", "content": "x" })];
        assert!(!forget(&mut plain, None));
    }

    #[test]
    fn only_what_was_said_since_the_work_began_counts() {
        assert_eq!(since_execute(&conversation()), "[DONE:2]");
        assert_eq!(since_execute(&[]), "");
    }
}
