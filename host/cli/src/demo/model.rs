//! A model API on loopback, so that a real pi does real work without a model.
//!
//! It speaks OpenAI's chat completions, streamed. What it answers follows from the conversation alone: for each line `run CMD` (or
//! `stream CMD`) of the newest prompt it calls the tool `bash` once, one after the other, and then it says what came of them. Requests without
//! the right key are refused: that they come shows that the key reached the agents.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Json, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// The model's id.
pub(super) const MODEL: &str = "stub-1";
/// The longest conversation, in bytes.
const MOST: usize = 16 << 20;
/// What is said at once, in characters: so that there are deltas.
const PIECE: usize = 200;

/// See the module. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct ModelApi {
    address: SocketAddr,
    served: Arc<Served>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for ModelApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug, Default)]
struct Served {
    key: String,
    answered: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Deserialize)]
struct Request {
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    #[serde(default)]
    content: Value,
}

/// What the model does.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Call(String),
    Say(String),
}

impl ModelApi {
    /// Listens on loopback; requests need this key.
    pub(super) async fn start(key: String) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let served = Arc::new(Served {
            key,
            ..Served::default()
        });
        let router = Router::new()
            .route("/v1/models", get(models))
            .route("/v1/chat/completions", post(complete))
            .layer(DefaultBodyLimit::max(MOST))
            .with_state(served.clone());
        let task = tokio::spawn(async move {
            if let Err(why) = axum::serve(listener, router).await {
                tracing::error!("the model API ended: {why}");
            }
        });
        Ok(Self {
            address,
            served,
            task,
        })
    }

    /// Its base URL, as an agent's configuration has it.
    pub(super) fn url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// How many requests it has answered, and how many it has refused for their key.
    pub(super) fn requests(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.served.answered), read(&self.served.refused))
    }
}

/// What pi is told of it: `models.json`. The key is read from the environment, at each request.
pub(super) fn configuration(url: &str) -> Value {
    json!({ "providers": { "vers": {
        "baseUrl": url,
        "api": "openai-completions",
        "apiKey": "!printenv LLM_PROXY_KEY",
        "compat": {
            "supportsDeveloperRole": false, "supportsReasoningEffort": false, "supportsStore": false,
            "maxTokensField": "max_tokens",
        },
        "models": [{
            "id": MODEL, "name": "Stub", "reasoning": false, "input": ["text"], "contextWindow": 128_000, "maxTokens": 4096,
            "cost": { "input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0 },
        }],
    } } })
}

async fn models() -> Json<Value> {
    Json(json!({ "object": "list", "data": [{ "id": MODEL, "object": "model" }] }))
}

async fn complete(
    State(served): State<Arc<Served>>,
    headers: HeaderMap,
    Json(request): Json<Request>,
) -> Response {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if given.and_then(|given| given.strip_prefix("Bearer ")) != Some(&served.key) {
        served.refused.fetch_add(1, Ordering::Relaxed);
        let why = json!({ "error": { "message": "this is not the key", "type": "invalid_request_error", "code": "invalid_api_key" } });
        return (StatusCode::UNAUTHORIZED, Json(why)).into_response();
    }
    let count = served.answered.fetch_add(1, Ordering::Relaxed) + 1;
    let body = stream(&answer(&request.messages), count);
    let kind = [(header::CONTENT_TYPE, "text/event-stream")];
    (kind, Body::from(body)).into_response()
}

/// The text of a message, however it is written.
fn text(message: &Message) -> String {
    match &message.content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts
            .iter()
            .filter_map(|part| part.get("text").and_then(Value::as_str))
            .collect(),
        _ => String::new(),
    }
}

/// The commands that a prompt names.
fn commands(prompt: &str) -> Vec<&str> {
    let command = |line: &'_ str| -> Option<usize> {
        let begins = line.starts_with("run ") || line.starts_with("stream ");
        begins.then(|| line.find(' ').unwrap_or(0))
    };
    prompt
        .lines()
        .map(str::trim)
        .filter_map(|line| line.get(command(line)?..).map(str::trim))
        .collect()
}

/// What the model does next.
fn answer(messages: &[Message]) -> Answer {
    let newest = messages
        .iter()
        .rposition(|message| message.role == "user")
        .and_then(|at| messages.get(at..))
        .unwrap_or_default();
    let Some((prompt, rest)) = newest.split_first() else {
        return Answer::Say("Nobody has said anything.".to_owned());
    };
    let prompt = text(prompt);
    let commands = commands(&prompt);
    let results: Vec<String> = rest
        .iter()
        .filter(|message| message.role == "tool")
        .map(text)
        .collect();
    if let Some(next) = commands.get(results.len()) {
        return Answer::Call((*next).to_owned());
    }
    if commands.is_empty() {
        return Answer::Say("There was no command in that.".to_owned());
    }
    let told = commands.iter().zip(&results);
    let told = told.map(|(command, result)| format!("I ran: {command}\n{}\n", result.trim_end()));
    Answer::Say(told.collect())
}

/// The events of an answer.
fn stream(answer: &Answer, count: u64) -> String {
    let mut events = String::new();
    let mut event = |fields: Value| {
        let mut whole = json!({ "id": format!("answer-{count}"), "object": "chat.completion.chunk", "created": 1, "model": MODEL });
        if let (Some(whole), Value::Object(fields)) = (whole.as_object_mut(), fields) {
            whole.extend(fields);
        }
        events += &format!("data: {whole}\n\n");
    };
    let delta = |delta: Value, finish: Option<&str>| json!({ "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }] });
    event(delta(json!({ "role": "assistant", "content": "" }), None));
    let finish = match answer {
        Answer::Say(text) => {
            let characters: Vec<char> = text.chars().collect();
            for piece in characters.chunks(PIECE) {
                let piece: String = piece.iter().collect();
                event(delta(json!({ "content": piece }), None));
            }
            "stop"
        }
        Answer::Call(command) => {
            let arguments = json!({ "command": command }).to_string();
            let call = json!({ "index": 0, "id": format!("call_{count}"), "type": "function", "function": { "name": "bash", "arguments": arguments } });
            event(delta(json!({ "tool_calls": [call] }), None));
            "tool_calls"
        }
    };
    event(delta(json!({}), Some(finish)));
    event(
        json!({ "choices": [], "usage": { "prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15 } }),
    );
    events + "data: [DONE]\n\n"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    fn message(role: &str, content: impl Into<Value>) -> Message {
        Message {
            role: role.to_owned(),
            content: content.into(),
        }
    }

    #[test]
    fn each_command_is_called_once_and_then_told() {
        let prompt =
            json!([{ "type": "text", "text": "Please:\nrun echo a\n  stream echo b\nthank you" }]);
        let mut messages = vec![
            message("system", "x"),
            message("user", "run never"),
            message("tool", "old"),
            message("user", prompt),
        ];
        assert_eq!(answer(&messages), Answer::Call("echo a".into()));
        messages.push(message("assistant", Value::Null));
        messages.push(message("tool", "a\n"));
        assert_eq!(answer(&messages), Answer::Call("echo b".into()));
        messages.push(message("assistant", Value::Null));
        messages.push(message("tool", json!([{ "type": "text", "text": "b" }])));
        let said = "I ran: echo a\na\nI ran: echo b\nb\n";
        assert_eq!(answer(&messages), Answer::Say(said.into()));
        assert_eq!(answer(&[]), Answer::Say("Nobody has said anything.".into()));
    }

    proptest! {
        #[test]
        fn a_stream_says_what_the_answer_says(text in "\\PC{0,600}", count in any::<u64>()) {
            let events = stream(&Answer::Say(text.clone()), count);
            let said: String = events
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).ok())
                .filter_map(|event| Some(event.pointer("/choices/0/delta/content")?.as_str()?.to_owned()))
                .collect();
            prop_assert_eq!(said, text);
            prop_assert!(events.ends_with("data: [DONE]\n\n"));
        }
    }

    async fn ask(api: &ModelApi, key: &str) -> String {
        let body = json!({ "messages": [{ "role": "user", "content": "run uname" }] }).to_string();
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let mut stream = tokio::net::TcpStream::connect(api.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn only_the_right_key_is_answered() {
        let api = ModelApi::start("right".to_owned()).await.unwrap();
        assert!(ask(&api, "wrong").await.starts_with("HTTP/1.1 401"));
        let answer = ask(&api, "right").await;
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.contains("\\\"command\\\":\\\"uname\\\"")
        );
        assert_eq!(api.requests(), (1, 1));
    }
}
