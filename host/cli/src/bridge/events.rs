//! Events of the harness and what it shall do about them, as the protocol writes them.

use pi_vers_host::{Event, Reaction};
use serde_json::{Map, Value, json};

use super::values;

/// An event, and whether the tool result in it is one of a failure.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) event: Event,
    pub(crate) is_error: bool,
}

/// Reads an event.
pub(crate) fn read(name: &str, data: Value) -> Result<Told, String> {
    let text = |field: &str| {
        let value = data.get(field).and_then(Value::as_str);
        value
            .map(str::to_owned)
            .ok_or_else(|| format!("an event {name} has no `{field}`"))
    };
    let list = |field: &str| match data.get(field) {
        Some(Value::Array(values)) => Ok(values.clone()),
        _ => Err(format!("an event {name} has no list `{field}`")),
    };
    let arguments = || data.get("arguments").cloned().unwrap_or(Value::Null);
    let mut is_error = false;
    let event = match name {
        "tool-call" => Event::ToolCall {
            call_id: text("callId")?,
            tool: text("tool")?,
            arguments: arguments(),
        },
        "tool-result" => {
            let output;
            (output, is_error) =
                values::read_tool_result(data.get("result").unwrap_or(&Value::Null))?;
            Event::ToolResult {
                call_id: text("callId")?,
                tool: text("tool")?,
                arguments: arguments(),
                output,
                is_error,
            }
        }
        "input" => Event::Input(text("text")?),
        "user-bash" => Event::UserBash(text("command")?),
        "before-agent-start" => Event::BeforeAgentStart(text("prompt")?),
        "context" => Event::Context(list("messages")?),
        "agent-start" => Event::AgentStart,
        "agent-end" => Event::AgentEnd(list("messages")?),
        "turn-start" => {
            let index = data.get("index").and_then(Value::as_u64);
            let index = index.and_then(|index| u32::try_from(index).ok());
            Event::TurnStart(index.ok_or("an event turn-start has no `index`")?)
        }
        "turn-end" => Event::TurnEnd(data.get("message").cloned().unwrap_or(Value::Null)),
        "model-select" => Event::ModelSelect(data),
        // Messages of the bus come as such.
        "bus" => return Err("`bus` is no event".into()),
        _ => Event::Other {
            name: name.to_owned(),
            data,
        },
    };
    Ok(Told { event, is_error })
}

/// Writes what the harness shall do.
pub(crate) fn reaction(reaction: &Reaction, was_error: bool) -> Value {
    let mut object = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            object.insert(name.to_owned(), value);
        }
    };
    put("block", reaction.block.as_deref().map(Value::from));
    put("arguments", reaction.arguments.clone());
    let result = reaction.output.as_ref();
    put(
        "result",
        result.map(|output| values::tool_result(output, was_error)),
    );
    put("text", reaction.input.as_deref().map(Value::from));
    put("handled", reaction.handled.then(|| true.into()));
    put(
        "bash",
        reaction.bash.as_ref().map(|bash| {
            let mut outcome = json!({ "output": bash.output, "truncated": bash.truncated });
            if let (Some(outcome), Some(code)) = (outcome.as_object_mut(), bash.exit_code) {
                outcome.insert("exitCode".into(), code.into());
            }
            outcome
        }),
    );
    // Injected ones are an answer to `before-agent-start`, rewritten ones to `context`: an event has one or the other.
    let injected = reaction.inject.iter().map(values::message);
    put(
        "messages",
        match &reaction.messages {
            Some(messages) => Some(Value::from(messages.clone())),
            None if reaction.inject.is_empty() => None,
            None => Some(injected.map(Value::Object).collect()),
        },
    );
    put(
        "other",
        (!reaction.other.is_empty()).then(|| Value::from(reaction.other.clone())),
    );
    Value::Object(object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use pi_vers_host::{BashOutcome, Content, CustomMessage, ToolOutput};

    #[test]
    fn every_event_of_the_document_is_read() {
        let result = json!({ "content": [{ "type": "text", "text": "t" }], "isError": true });
        let table = [
            (
                "tool-call",
                json!({ "callId": "c", "tool": "bash", "arguments": { "command": "ls" } }),
            ),
            (
                "tool-result",
                json!({ "callId": "c", "tool": "bash", "arguments": {}, "result": result }),
            ),
            ("input", json!({ "text": "hi" })),
            ("user-bash", json!({ "command": "ls" })),
            ("before-agent-start", json!({ "prompt": "p" })),
            ("context", json!({ "messages": [{ "role": "user" }] })),
            ("agent-start", Value::Null),
            ("agent-end", json!({ "messages": [] })),
            ("turn-start", json!({ "index": 3 })),
            ("turn-end", json!({ "message": {} })),
            ("model-select", json!({ "id": "m" })),
            ("session-compact", json!({ "any": 1 })),
        ];
        for (name, data) in table {
            let told = read(name, data.clone()).unwrap_or_else(|why| unreachable!("{why}"));
            assert_eq!(told.event.name(), name);
            assert_eq!(told.is_error, name == "tool-result");
            let loose = ["agent-start", "turn-end", "model-select", "session-compact"];
            assert_eq!(
                read(name, json!({})).is_ok(),
                loose.contains(&name),
                "{name}"
            );
        }
        assert!(read("bus", json!({})).is_err());
    }

    #[test]
    fn a_reaction_has_only_what_was_said() {
        assert_eq!(reaction(&Reaction::default(), true), json!({}));
        let all = Reaction {
            block: Some("no".into()),
            arguments: Some(json!({ "a": 1 })),
            output: Some(ToolOutput::default()),
            input: Some("in".into()),
            handled: true,
            bash: Some(BashOutcome {
                output: "out".into(),
                exit_code: None,
                truncated: true,
            }),
            inject: vec![CustomMessage {
                kind: "k".into(),
                content: vec![Content::text("m")],
                display: true,
                details: None,
            }],
            messages: None,
            other: vec![json!(1)],
        };
        let expected = json!({
            "block": "no", "arguments": { "a": 1 }, "result": { "content": [], "isError": true }, "text": "in", "handled": true,
            "bash": { "output": "out", "truncated": true },
            "messages": [{ "kind": "k", "content": [{ "type": "text", "text": "m" }], "display": true }], "other": [1],
        });
        assert_eq!(reaction(&all, true), expected);
    }

    proptest::proptest! {
        #[test]
        fn no_data_panics(name in "(tool-call|tool-result|input|context|turn-start|x)", field in "(callId|tool|text|result|index|messages)", text in "\\PC{0,9}", number in proptest::prelude::any::<i64>()) {
            let mut data = json!({});
            data[&field] = text.into();
            let _ = read(&name, data.clone());
            data[&field] = number.into();
            let _ = read(&name, data);
        }
    }
}
