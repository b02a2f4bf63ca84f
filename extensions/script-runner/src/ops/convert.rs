//! The contract's values as JSON, and back.

use pi_vers_sdk::bindings::exports::vers::harness::events::{BashOutcome, ToolUse};
use pi_vers_sdk::bindings::vers::harness::types::{Line, Role, Span};
use pi_vers_sdk::{
    Answer, Audio, Completion, Content, CustomMessage, Error, Event, Image, Reason, ResourceBody,
    ResourceContents, ResourceLink, ToolError, ToolResult, outcome,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn read<T: DeserializeOwned>(what: &str, value: Value) -> Result<T, Error> {
    serde_json::from_value(value)
        .map_err(|why| Error::Invalid(format!("{what} is not as it should be: {why}")))
}

/// A JSON text of the host; what is none stays a text.
pub(crate) fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Block {
    Text {
        text: String,
    },
    Image {
        #[serde(rename = "mimeType")]
        mime_type: String,
        data: Vec<u8>,
    },
    Audio {
        #[serde(rename = "mimeType")]
        mime_type: String,
        data: Vec<u8>,
    },
    Resource {
        uri: String,
        #[serde(rename = "mimeType")]
        mime_type: Option<String>,
        text: Option<String>,
        data: Option<Vec<u8>>,
    },
    Link {
        uri: String,
        name: String,
        description: Option<String>,
        #[serde(rename = "mimeType")]
        mime_type: Option<String>,
    },
}

/// Blocks of a message, as the prelude writes them.
pub(crate) fn content(value: Value) -> Result<Vec<Content>, Error> {
    let blocks: Vec<Block> = read("the content", value)?;
    Ok(blocks
        .into_iter()
        .map(|block| match block {
            Block::Text { text } => Content::Text(text),
            Block::Image { mime_type, data } => Content::Image(Image {
                media_type: mime_type,
                data,
            }),
            Block::Audio { mime_type, data } => Content::Audio(Audio {
                media_type: mime_type,
                data,
            }),
            Block::Resource {
                uri,
                mime_type,
                text,
                data,
            } => Content::Resource(ResourceContents {
                uri,
                media_type: mime_type,
                body: match data {
                    Some(data) => ResourceBody::Blob(data),
                    None => ResourceBody::Text(text.unwrap_or_default()),
                },
            }),
            Block::Link {
                uri,
                name,
                description,
                mime_type,
            } => Content::Link(ResourceLink {
                uri,
                name,
                description,
                media_type: mime_type,
            }),
        })
        .collect())
}

#[derive(Deserialize)]
struct SaidResult {
    content: Value,
    details: Option<Value>,
    structured: Option<Value>,
}

/// A tool's result, as the prelude writes it.
pub(crate) fn tool_result(value: Value) -> Result<ToolResult, Error> {
    let said: SaidResult = read("the result", value)?;
    let json = |value: Option<Value>| {
        value
            .filter(|value| !value.is_null())
            .map(|value| value.to_string())
    };
    Ok(ToolResult {
        content: content(said.content)?,
        details: json(said.details),
        structured: json(said.structured),
    })
}

/// A tool's result for a script. Pictures and sounds are named, not shown.
fn told(result: &ToolResult) -> Value {
    let blocks: Vec<Value> = result
        .content
        .iter()
        .map(|content| match content {
            Content::Text(text) => json!({ "type": "text", "text": text }),
            Content::Image(image) => {
                json!({ "type": "image", "mimeType": image.media_type, "data": image.data })
            }
            Content::Audio(audio) => {
                json!({ "type": "audio", "mimeType": audio.media_type, "data": audio.data })
            }
            Content::Resource(resource) => match &resource.body {
                ResourceBody::Text(text) => {
                    json!({ "type": "resource", "uri": resource.uri, "mimeType": resource.media_type, "text": text })
                }
                ResourceBody::Blob(data) => {
                    json!({ "type": "resource", "uri": resource.uri, "mimeType": resource.media_type, "data": data })
                }
            },
            Content::Link(link) => {
                json!({ "type": "link", "uri": link.uri, "name": link.name, "description": link.description, "mimeType": link.media_type })
            }
        })
        .collect();
    json!({
        "content": blocks,
        "details": result.details.as_deref().map(parsed),
        "structured": result.structured.as_deref().map(parsed),
    })
}

/// What a built-in of the harness gave.
pub(crate) fn said(outcome: Result<ToolResult, ToolError>) -> Result<Value, Error> {
    let (result, failed) = match &outcome {
        Ok(result) => (result, false),
        Err(ToolError::Failed(result)) => (result, true),
        Err(ToolError::Capability(why)) => return Err(why.clone()),
        Err(ToolError::Cancelled) => return Err(Error::Cancelled),
    };
    let mut value = told(result);
    if let Some(object) = value.as_object_mut() {
        object.insert("isError".into(), failed.into());
    }
    Ok(value)
}

#[derive(Deserialize)]
struct SaidMessage {
    kind: String,
    content: Value,
    #[serde(default = "yes")]
    display: bool,
    details: Option<Value>,
}

fn yes() -> bool {
    true
}

/// A message of the extension.
pub(crate) fn message(value: Value) -> Result<CustomMessage, Error> {
    let said: SaidMessage = read("the message", value)?;
    Ok(CustomMessage {
        kind: said.kind,
        content: content(said.content)?,
        display: said.display,
        details: said.details.map(|details| details.to_string()),
    })
}

#[derive(Deserialize)]
struct SaidSpan {
    text: String,
    role: Option<String>,
    #[serde(default)]
    bold: bool,
    #[serde(default)]
    strikethrough: bool,
}

/// A line of the user interface: a text, a list of spans, or nothing.
pub(crate) fn line(value: Value) -> Result<Option<Line>, Error> {
    let spans: Vec<SaidSpan> = match value {
        Value::Null => return Ok(None),
        Value::String(text) => {
            return Ok(Some(vec![Span {
                text,
                role: Role::Normal,
                bold: false,
                strikethrough: false,
            }]));
        }
        spans => read("the line", spans)?,
    };
    let spans: Result<Vec<Span>, Error> = spans
        .into_iter()
        .map(|span| {
            Ok(Span {
                text: span.text,
                role: role(span.role.as_deref())?,
                bold: span.bold,
                strikethrough: span.strikethrough,
            })
        })
        .collect();
    spans.map(Some)
}

/// Lines of a widget, or none.
pub(crate) fn lines(value: Value) -> Result<Option<Vec<Line>>, Error> {
    let all: Vec<Value> = match value {
        Value::Null => return Ok(None),
        all => read("the lines", all)?,
    };
    let all: Result<Vec<Option<Line>>, Error> = all.into_iter().map(line).collect();
    Ok(Some(all?.into_iter().flatten().collect()))
}

fn role(word: Option<&str>) -> Result<Role, Error> {
    Ok(match word {
        None | Some("normal") => Role::Normal,
        Some("accent") => Role::Accent,
        Some("muted") => Role::Muted,
        Some("dim") => Role::Dim,
        Some("success") => Role::Success,
        Some("warning") => Role::Warning,
        Some("error") => Role::Error,
        Some(other) => return Err(Error::Invalid(format!("there is no role {other}"))),
    })
}

/// Why a session starts.
pub(crate) fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Startup => "startup",
        Reason::Reload => "reload",
        Reason::Resume => "resume",
        Reason::Fork => "fork",
    }
}

/// Ways to go on typing.
pub(crate) fn completions(value: Value) -> Vec<Completion> {
    #[derive(Deserialize)]
    struct Said {
        value: String,
        label: Option<String>,
        description: Option<String>,
    }
    let all: Vec<Said> = serde_json::from_value(value).unwrap_or_default();
    all.into_iter()
        .map(|said| Completion {
            label: said.label.unwrap_or_else(|| said.value.clone()),
            value: said.value,
            description: said.description,
        })
        .collect()
}

/// An event by its name, with its data.
pub(crate) fn event(event: Event) -> Value {
    let used = |call: &ToolUse| json!({ "callId": call.call_id, "tool": call.tool, "arguments": parsed(&call.arguments) });
    let all = |texts: &[String]| -> Vec<Value> { texts.iter().map(|text| parsed(text)).collect() };
    let (name, data) = match &event {
        Event::ToolCall(call) => ("tool-call", used(call)),
        Event::ToolResult(outcome) => {
            let mut data = used(&outcome.use_);
            if let Some(object) = data.as_object_mut() {
                object.insert("result".into(), told(&outcome.result));
                object.insert("isError".into(), outcome.is_error.into());
            }
            ("tool-result", data)
        }
        Event::Input(text) => ("input", json!({ "text": text })),
        Event::UserBash(command) => ("user-bash", json!({ "command": command })),
        Event::BeforeAgentStart(prompt) => ("before-agent-start", json!({ "prompt": prompt })),
        Event::Context(messages) => ("context", json!({ "messages": all(messages) })),
        Event::AgentStart => ("agent-start", json!({})),
        Event::AgentEnd(messages) => ("agent-end", json!({ "messages": all(messages) })),
        Event::TurnStart(index) => ("turn-start", json!({ "index": index })),
        Event::TurnEnd(message) => ("turn-end", json!({ "message": parsed(message) })),
        Event::ModelSelect(model) => ("model-select", json!({ "model": parsed(model) })),
        Event::Bus((topic, data)) => {
            return json!({ "topic": topic, "data": parsed(data) });
        }
        Event::Other((name, data)) => {
            return json!({ "name": name, "data": parsed(data) });
        }
    };
    json!({ "name": name, "data": data })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SaidAnswer {
    block: Option<String>,
    arguments: Option<Value>,
    result: Option<Value>,
    text: Option<String>,
    #[serde(default)]
    handled: bool,
    bash: Option<SaidBash>,
    message: Option<Value>,
    messages: Option<Vec<Value>>,
    other: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SaidBash {
    output: String,
    exit_code: Option<i32>,
    #[serde(default)]
    truncated: bool,
}

/// What a script answers an event with.
pub(crate) fn answer(value: Value) -> Result<Answer, String> {
    if value.is_null() {
        return Ok(Answer::Proceed);
    }
    let wrong = |why: Error| outcome::explain(&why);
    let said: SaidAnswer = read("the answer", value).map_err(wrong)?;
    Ok(if let Some(reason) = said.block {
        Answer::Block(reason)
    } else if let Some(arguments) = said.arguments {
        Answer::RewriteCall(arguments.to_string())
    } else if let Some(result) = said.result {
        Answer::RewriteResult(tool_result(result).map_err(wrong)?)
    } else if let Some(text) = said.text {
        Answer::RewriteInput(text)
    } else if let Some(bash) = said.bash {
        Answer::HandledBash(BashOutcome {
            output: bash.output,
            exit_code: bash.exit_code,
            truncated: bash.truncated,
        })
    } else if let Some(given) = said.message {
        Answer::Inject(message(given).map_err(wrong)?)
    } else if let Some(messages) = said.messages {
        Answer::RewriteMessages(messages.iter().map(Value::to_string).collect())
    } else if let Some(other) = said.other {
        Answer::Other(other.to_string())
    } else if said.handled {
        Answer::Handled
    } else {
        Answer::Proceed
    })
}
