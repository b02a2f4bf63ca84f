//! The frames of the protocol, see `docs/bridge.md`.
//!
//! Three ways a line can be wrong are told apart: no JSON object at all, which ends the bridge, since nothing behind it
//! can be trusted; a frame of a kind that is not known, which a newer peer may send and which is passed over; and a known
//! frame that lacks what it needs, which is answered where it has an `id`.

use pi_vers_host::StartReason;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The protocol's version.
pub(crate) const VERSION: u64 = 1;

/// What the shim says first.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hello {
    pub(crate) v: u64,
    pub(crate) cwd: String,
    #[serde(default)]
    pub(crate) harness: Kind,
    #[serde(default)]
    pub(crate) built_ins: Vec<String>,
}

/// Which harness it is.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Kind {
    pub(crate) kind: String,
    pub(crate) version: String,
}

/// The state of the harness, whole.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Context {
    pub(crate) session_id: String,
    pub(crate) cwd: String,
    pub(crate) interactive: bool,
    pub(crate) idle: bool,
    pub(crate) active_tools: Vec<String>,
    pub(crate) all_tools: Vec<String>,
    pub(crate) flags: Map<String, Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Start {
    pub(crate) id: u64,
    pub(crate) reason: StartReason,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Call {
    pub(crate) id: u64,
    pub(crate) tool: String,
    pub(crate) call_id: String,
    #[serde(default)]
    pub(crate) arguments: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Command {
    pub(crate) id: u64,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) arguments: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Complete {
    pub(crate) id: u64,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) prefix: String,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Event {
    #[serde(default)]
    pub(crate) id: Option<u64>,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) data: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Bus {
    pub(crate) topic: String,
    #[serde(default)]
    pub(crate) data: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Cancel {
    pub(crate) id: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) id: u64,
    #[serde(default)]
    pub(crate) value: Value,
}

#[derive(Debug, Deserialize)]
pub(crate) struct News {
    pub(crate) id: u64,
    #[serde(default)]
    pub(crate) content: Value,
    #[serde(default)]
    pub(crate) details: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) id: u64,
    #[serde(default)]
    pub(crate) code: String,
    #[serde(default)]
    pub(crate) message: String,
}

/// A frame of the shim.
#[derive(Debug)]
pub(crate) enum Incoming {
    Hello(Hello),
    Context(Box<Context>),
    Start(Start),
    Call(Call),
    Command(Command),
    Complete(Complete),
    Event(Event),
    Bus(Bus),
    Cancel(Cancel),
    Result(Answer),
    Update(News),
    Error(Refusal),
    Shutdown,
    /// Of a kind that is not known here.
    Unknown,
    /// Of a known kind, without what that needs.
    Misfit {
        id: Option<u64>,
        why: String,
    },
}

/// Reads a line.
///
/// # Errors
/// Why it is no frame.
pub(crate) fn read(line: &[u8]) -> Result<Incoming, String> {
    let frame = match serde_json::from_slice(line) {
        Ok(Value::Object(frame)) => frame,
        Ok(_) => return Err("it is no JSON object".into()),
        Err(why) => return Err(format!("it is no JSON: {why}")),
    };
    let kind = match frame.get("t") {
        Some(Value::String(kind)) => kind.clone(),
        _ => return Ok(Incoming::Unknown),
    };
    Ok(match kind.as_str() {
        "hello" => fit(&kind, frame, Incoming::Hello),
        "context" => fit(&kind, frame, |context| Incoming::Context(Box::new(context))),
        "start" => fit(&kind, frame, Incoming::Start),
        "call" => fit(&kind, frame, Incoming::Call),
        "command" => fit(&kind, frame, Incoming::Command),
        "complete" => fit(&kind, frame, Incoming::Complete),
        "event" => fit(&kind, frame, Incoming::Event),
        "bus" => fit(&kind, frame, Incoming::Bus),
        "cancel" => fit(&kind, frame, Incoming::Cancel),
        "result" => fit(&kind, frame, Incoming::Result),
        "update" => fit(&kind, frame, Incoming::Update),
        "error" => fit(&kind, frame, Incoming::Error),
        "shutdown" => Incoming::Shutdown,
        _ => Incoming::Unknown,
    })
}

fn fit<T: DeserializeOwned>(
    kind: &str,
    frame: Map<String, Value>,
    make: impl FnOnce(T) -> Incoming,
) -> Incoming {
    let id = frame.get("id").and_then(Value::as_u64);
    match serde_json::from_value(Value::Object(frame)) {
        Ok(frame) => make(frame),
        Err(why) => Incoming::Misfit {
            id,
            why: format!("the frame `{kind}` is not as it should be: {why}"),
        },
    }
}

/// A frame of the host.
#[derive(Debug, Serialize)]
#[serde(tag = "t", rename_all = "lowercase")]
pub(crate) enum Outgoing<'a> {
    Ready(Box<super::ready::Ready>),
    Fatal {
        message: &'a str,
    },
    Update {
        id: u64,
        content: Value,
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<&'a Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        progress: Option<Value>,
    },
    Result {
        id: u64,
        value: Value,
    },
    Error {
        id: u64,
        code: &'a str,
        message: &'a str,
    },
    Request {
        id: u64,
        method: &'a str,
        params: Value,
        #[serde(skip_serializing_if = "Option::is_none")]
        call: Option<u64>,
    },
    Cancel {
        id: u64,
    },
    Notice {
        method: &'a str,
        params: Value,
    },
}

impl Outgoing<'_> {
    /// The line, with its line feed.
    pub(crate) fn line(&self) -> Vec<u8> {
        crate::wire::line(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn of(value: &Value) -> Incoming {
        read(value.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn frames_and_fields_that_are_not_known_are_passed_over() {
        for value in [
            json!({}),
            json!({ "t": 1 }),
            json!({ "t": "later", "id": 4 }),
        ] {
            assert!(matches!(of(&value), Incoming::Unknown), "{value}");
        }
        let call = json!({ "t": "call", "id": 7, "tool": "bash", "callId": "c", "arguments": { "command": "ls" }, "new": 1 });
        let Incoming::Call(call) = of(&call) else {
            unreachable!("a call is read as one")
        };
        assert_eq!(
            (call.id, call.tool.as_str(), call.arguments),
            (7, "bash", json!({ "command": "ls" }))
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for line in ["", "1", "[]", "null", "{", "{}{}", "\u{feff}{}"] {
            assert!(read(line.as_bytes()).is_err(), "{line:?}");
        }
        assert!(read(b"{\"t\":\"\xff\"}").is_err());
    }

    #[test]
    fn a_frame_that_lacks_something_keeps_its_id() {
        let Incoming::Misfit { id, why } = of(&json!({ "t": "call", "id": 9 })) else {
            unreachable!("it lacks its tool")
        };
        assert_eq!(id, Some(9));
        assert!(why.contains("`call`") && why.contains("tool"), "{why}");
        let start = of(&json!({ "t": "start", "id": 1, "reason": "whim" }));
        assert!(matches!(start, Incoming::Misfit { id: Some(1), .. }));
    }

    proptest! {
        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&line);
        }

        #[test]
        fn no_object_panics(kind in "(hello|context|start|call|command|complete|event|bus|cancel|result|update|error)", id in any::<i64>(), name in "\\PC{0,10}", text in "\\PC{0,20}") {
            let _ = of(&json!({ "t": kind, "id": id, name: text }));
        }
    }
}
