//! pi's RPC protocol: one JSON object a line, commands in, responses and events out.
//!
//! Foreign text: an agent may print anything, in three dialects (pi 0.73, pi 0.87, punkin-pi), and a line may have been cut at its
//! end, because one may have 1 MiB at most. So every field is looked for and none is relied on; what is not understood is
//! [`Line::Other`], which still is a sign of life. What decides whether something is over is read from the beginning of a
//! cut line.

use serde::Deserialize;
use serde_json::{Value, json};

/// The type of the line that our own start script writes when the agent has ended.
pub(crate) const EXIT: &str = "pi_vers_exit";

/// One line of an agent's output.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Line {
    Response(Response),
    AgentStart,
    /// With whether the agent says that it will try again by itself.
    AgentEnd {
        will_retry: bool,
    },
    /// The run is over for good (pi 0.87 and later).
    AgentSettled,
    /// A message of the assistant begins.
    MessageStart,
    /// More text of it.
    Text(String),
    /// It thinks, or writes a tool call.
    Thinking,
    /// It is complete.
    MessageEnd(Message),
    ToolStart(String),
    ToolEnd,
    RetryStart,
    RetryEnd {
        success: bool,
    },
    CompactionStart,
    CompactionEnd {
        will_retry: bool,
    },
    Dialog(Dialog),
    Notice(String),
    /// The agent's process has ended with this code: 128 and more for a signal.
    Exit(i32),
    Other,
}

/// The answer to a command.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Response {
    pub(crate) id: String,
    pub(crate) command: String,
    pub(crate) outcome: Result<Value, String>,
}

/// A complete message of the assistant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Message {
    /// Its text; none where the line was cut before it ended.
    pub(crate) text: Option<String>,
    /// `stop`, `length`, `toolUse`, `error`, `aborted`.
    pub(crate) stop_reason: String,
    pub(crate) error: Option<String>,
}

/// A question that the agent waits with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dialog {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) timeout: Option<u64>,
    pub(crate) kind: DialogKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DialogKind {
    Select(Vec<String>),
    Confirm(String),
    Input(String),
    Editor(String),
}

/// What `get_state` says, as far as it decides anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct State {
    pub(crate) is_streaming: bool,
    pub(crate) is_compacting: bool,
    pub(crate) pending_message_count: u64,
}

impl State {
    pub(crate) fn of(data: &Value) -> Self {
        Self::deserialize(data).unwrap_or_default()
    }

    pub(crate) fn is_busy(self) -> bool {
        self.is_streaming || self.is_compacting
    }
}

/// Older pis repeat the whole message with each piece of it. The first such field is an object that begins with the piece's end, so
/// everything from there on is left away; within a text these characters cannot stand, because its quotes are escaped.
const DELTAS: [&str; 3] = [
    r#"{"type":"message_update","assistantMessageEvent":{"type":"text_delta","#,
    r#"{"type":"message_update","assistantMessageEvent":{"type":"thinking_delta","#,
    r#"{"type":"message_update","assistantMessageEvent":{"type":"toolcall_delta","#,
];
const REPEATED: &str = r#","partial":{"#;

/// The type at the beginning of a line, also of one that was cut.
fn leading_type(line: &str) -> &str {
    line.strip_prefix(r#"{"type":""#)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or_default()
}

/// Reads a line.
pub(crate) fn parse(line: &str) -> Line {
    if DELTAS.iter().any(|delta| line.starts_with(delta))
        && let Some((piece, _)) = line.split_once(REPEATED)
        && let Ok(value) = serde_json::from_str::<Value>(&format!("{piece}}}}}"))
    {
        return of(&value);
    }
    match serde_json::from_str::<Value>(line) {
        Ok(value) => of(&value),
        // Cut at its end, or no JSON at all.
        Err(_) => match leading_type(line) {
            "agent_end" => Line::AgentEnd { will_retry: false },
            "message_end" if line.contains(r#""role":"assistant""#) => {
                Line::MessageEnd(Message::default())
            }
            "tool_execution_end" => Line::ToolEnd,
            _ => Line::Other,
        },
    }
}

fn text(value: &Value, name: &str) -> String {
    value
        .get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

fn flag(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or_default()
}

fn of(line: &Value) -> Line {
    match line.get("type").and_then(Value::as_str).unwrap_or_default() {
        "response" => response(line),
        "agent_start" => Line::AgentStart,
        "agent_end" => Line::AgentEnd {
            will_retry: flag(line, "willRetry"),
        },
        "agent_settled" => Line::AgentSettled,
        "message_start" if is_assistant(line) => Line::MessageStart,
        "message_update" => match line.get("assistantMessageEvent") {
            Some(event) if text(event, "type") == "text_delta" => Line::Text(text(event, "delta")),
            Some(_) => Line::Thinking,
            None => Line::Other,
        },
        "message_end" if is_assistant(line) => Line::MessageEnd(message(line)),
        "tool_execution_start" => Line::ToolStart(text(line, "toolName")),
        "tool_execution_end" => Line::ToolEnd,
        "auto_retry_start" => Line::RetryStart,
        "auto_retry_end" => Line::RetryEnd {
            success: flag(line, "success"),
        },
        "auto_compaction_start" | "compaction_start" => Line::CompactionStart,
        "auto_compaction_end" | "compaction_end" => Line::CompactionEnd {
            will_retry: flag(line, "willRetry"),
        },
        "extension_ui_request" => request(line),
        EXIT => Line::Exit(
            line.get("code")
                .and_then(Value::as_i64)
                .and_then(|code| i32::try_from(code).ok())
                .unwrap_or(-1),
        ),
        _ => Line::Other,
    }
}

fn is_assistant(line: &Value) -> bool {
    line.pointer("/message/role").and_then(Value::as_str) == Some("assistant")
}

fn response(line: &Value) -> Line {
    let id = text(line, "id");
    let outcome = if flag(line, "success") {
        Ok(line.get("data").cloned().unwrap_or_default())
    } else {
        Err(match text(line, "error") {
            error if error.is_empty() => "it said no without a reason".to_owned(),
            error => error,
        })
    };
    let command = text(line, "command");
    Line::Response(Response {
        id,
        command,
        outcome,
    })
}

fn message(line: &Value) -> Message {
    let Some(message) = line.get("message") else {
        return Message::default();
    };
    let said = match message.get("content") {
        Some(Value::String(said)) => Some(said.clone()),
        Some(Value::Array(blocks)) => Some(
            blocks
                .iter()
                .filter(|block| text(block, "type") == "text")
                .map(|block| text(block, "text"))
                .collect(),
        ),
        _ => None,
    };
    Message {
        text: said,
        stop_reason: text(message, "stopReason"),
        error: Some(text(message, "errorMessage")).filter(|error| !error.is_empty()),
    }
}

fn request(line: &Value) -> Line {
    let kind = match text(line, "method").as_str() {
        "select" => DialogKind::Select(
            line.get("options")
                .and_then(Value::as_array)
                .map(|options| {
                    options
                        .iter()
                        .map(|option| option.as_str().unwrap_or_default().to_owned())
                        .collect()
                })
                .unwrap_or_default(),
        ),
        "confirm" => DialogKind::Confirm(text(line, "message")),
        "input" => DialogKind::Input(text(line, "placeholder")),
        "editor" => DialogKind::Editor(text(line, "prefill")),
        "notify" => return Line::Notice(text(line, "message")),
        _ => return Line::Other,
    };
    Line::Dialog(Dialog {
        id: text(line, "id"),
        title: text(line, "title"),
        timeout: line.get("timeout").and_then(Value::as_u64),
        kind,
    })
}

/// A command as a line, without its end. punkin-pi also splits at U+2028 and U+2029: they are written as escapes.
pub(crate) fn command(id: &str, kind: &str, mut fields: Value) -> String {
    if let Some(fields) = fields.as_object_mut() {
        fields.insert("id".into(), id.into());
        fields.insert("type".into(), kind.into());
    }
    line(&fields)
}

/// The answer to a dialog as a line; none: dismissed.
pub(crate) fn dialog_answer(id: &str, answer: Option<Value>) -> String {
    let key = if matches!(answer, Some(Value::Bool(_))) {
        "confirmed"
    } else {
        "value"
    };
    line(&match answer {
        Some(answer) => json!({"type": "extension_ui_response", "id": id, key: answer}),
        None => json!({"type": "extension_ui_response", "id": id, "cancelled": true}),
    })
}

fn line(value: &Value) -> String {
    value
        .to_string()
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_dialects_say_the_same() {
        let old = r#"{"type":"message_update","assistantMessageEvent":{"type":"text_delta","contentIndex":0,"delta":"a,\"partial\":{b","partial":{"role":"assistant","content":[{"type":"text","text":"a"}]}},"message":{"role":"assistant"}}"#;
        let new = r#"{"type":"message_update","usage":{},"assistantMessageEvent":{"type":"text_delta","contentIndex":0,"delta":"a,\"partial\":{b"}}"#;
        assert_eq!(parse(old), Line::Text("a,\"partial\":{b".into()));
        assert_eq!(parse(new), Line::Text("a,\"partial\":{b".into()));
        assert_eq!(
            parse(r#"{"type":"auto_compaction_start","reason":"overflow"}"#),
            Line::CompactionStart
        );
        assert_eq!(
            parse(r#"{"type":"compaction_start","reason":"overflow"}"#),
            Line::CompactionStart
        );
    }

    #[test]
    fn a_line_that_was_cut_still_ends_what_it_ends() {
        assert_eq!(
            parse(r#"{"type":"agent_end","messages":[{"role":"us"#),
            Line::AgentEnd { will_retry: false }
        );
        let delta = r#"{"type":"message_update","assistantMessageEvent":{"type":"text_delta","contentIndex":0,"delta":"x","partial":{"role":"assis"#;
        assert_eq!(parse(delta), Line::Text("x".into()));
        assert_eq!(
            parse(r#"{"type":"message_end","message":{"role":"assistant","content":[{"type":"te"#),
            Line::MessageEnd(Message::default())
        );
        assert_eq!(
            parse(r#"{"type":"message_end","message":{"role":"user","con"#),
            Line::Other
        );
    }

    #[test]
    fn a_message_is_its_text_and_why_it_stopped() {
        let line = r#"{"type":"message_end","message":{"role":"assistant","content":[{"type":"thinking","thinking":"hm"},{"type":"text","text":"a"},{"type":"toolCall","id":"1"},{"type":"text","text":"b"}],"stopReason":"error","errorMessage":"overloaded"}}"#;
        assert_eq!(
            parse(line),
            Line::MessageEnd(Message {
                text: Some("ab".into()),
                stop_reason: "error".into(),
                error: Some("overloaded".into())
            })
        );
    }

    #[test]
    fn dialogs_wait_and_notices_do_not() {
        assert_eq!(
            parse(
                r#"{"type":"extension_ui_request","id":"u1","method":"select","title":"T","options":["a","b"],"timeout":5}"#
            ),
            Line::Dialog(Dialog {
                id: "u1".into(),
                title: "T".into(),
                timeout: Some(5),
                kind: DialogKind::Select(vec!["a".into(), "b".into()])
            })
        );
        assert_eq!(
            parse(
                r#"{"type":"extension_ui_request","id":"u2","method":"notify","message":"hello"}"#
            ),
            Line::Notice("hello".into())
        );
        assert_eq!(
            parse(
                r#"{"type":"extension_ui_request","id":"u3","method":"setStatus","statusKey":"k"}"#
            ),
            Line::Other
        );
        assert_eq!(
            dialog_answer("u", Some(true.into())),
            r#"{"type":"extension_ui_response","id":"u","confirmed":true}"#
        );
        assert_eq!(
            dialog_answer("u", Some("a".into())),
            r#"{"type":"extension_ui_response","id":"u","value":"a"}"#
        );
        assert_eq!(
            dialog_answer("u", None),
            r#"{"type":"extension_ui_response","id":"u","cancelled":true}"#
        );
    }

    #[test]
    fn a_refusal_without_a_reason_is_a_refusal() {
        let Line::Response(response) =
            parse(r#"{"type":"response","command":"prompt","success":false}"#)
        else {
            unreachable!()
        };
        assert!(response.outcome.is_err());
    }

    #[test]
    fn a_command_is_one_line_for_every_reader() {
        let line = command("1", "prompt", json!({"message": "a\nb\u{2028}c\u{2029}d"}));
        assert!(!line.contains(['\n', '\u{2028}', '\u{2029}']));
        let back: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(back["message"], "a\nb\u{2028}c\u{2029}d");
        assert_eq!(
            (back["id"].as_str(), back["type"].as_str()),
            (Some("1"), Some("prompt"))
        );
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(line in "\\PC{0,200}") {
            let _ = parse(&line);
        }

        #[test]
        fn no_object_panics(kind in "(response|agent_end|message_update|message_end|message_start|extension_ui_request|tool_execution_start|auto_retry_end|pi_vers_exit|x)", rest in "[\\[\\]{}\":,a-z0-9]{0,60}", cut in 0usize..80) {
            let line = format!("{{\"type\":\"{kind}\",{rest}}}");
            let _ = parse(line.get(..cut).unwrap_or(&line));
        }

        #[test]
        fn a_text_comes_out_of_an_old_pi_as_it_went_in(delta in "\\PC{0,60}") {
            let message = json!({"role": "assistant", "content": [{"type": "text", "text": delta}]});
            let line = json!({"type": "message_update", "assistantMessageEvent": {"type": "text_delta", "contentIndex": 0, "delta": delta, "partial": message}, "message": message});
            proptest::prop_assert_eq!(parse(&line.to_string()), Line::Text(delta));
        }
    }
}
