//! A client of the Model Context Protocol, for `--mcp`: the demo's calls go to a child `pi-vers mcp` as any client's would.
//!
//! It speaks the newer era, in which every request says who sends it, and only what the demo needs: lists, calls, progress, cancels.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pi_vers_host::{CallError, Content, Progress, ToolOutput, Update};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::stage::wrong;
use crate::failure::Failure;
use crate::local;

/// Requests that wait to be written: one behind the other, there are never many.
const QUEUE: usize = 16;
/// A server ends within 200 ms; a busy machine gets more.
const END: Duration = Duration::from_secs(5);
/// What a server calls the tools that replace others.
const RENAMED: [&str; 4] = ["bash", "read", "edit", "write"];

/// A server, and the connection to it.
pub(super) struct Client {
    child: Child,
    wire: Arc<Wire>,
    tasks: [JoinHandle<()>; 2],
}

struct Wire {
    lines: mpsc::Sender<String>,
    waiting: Mutex<HashMap<u64, Waiting>>,
    last: AtomicU64,
}

struct Waiting {
    answer: oneshot::Sender<Value>,
    updates: watch::Sender<Update>,
}

impl Wire {
    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, line: &str) {
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            tracing::warn!("the server said what is no message: {line}");
            return;
        };
        let params = message.get("params");
        if message.get("method").and_then(Value::as_str) == Some("notifications/progress") {
            let id = params.and_then(|params| params.get("progressToken")?.as_u64());
            let (Some(params), Some(id)) = (params, id) else {
                return;
            };
            if let Some(waiting) = self.waiting().get(&id) {
                waiting.updates.send_replace(update(params));
            }
            return;
        }
        if message.get("method").is_none()
            && let Some(id) = message.get("id").and_then(Value::as_u64)
            && let Some(waiting) = self.waiting().remove(&id)
        {
            let _ = waiting.answer.send(message);
        }
    }
}

/// What a call shows of itself, as far as progress tells it.
fn update(params: &Value) -> Update {
    let text = |name: &str| params.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| params.get(name).and_then(Value::as_f64);
    // Without a total there is no bar, and the number says nothing to people.
    let progress = number("progress").zip(number("total"));
    Update {
        content: vec![Content::text(text("message"))],
        details: None,
        progress: progress.map(|(done, total)| Progress {
            done,
            total: Some(total),
            caption: text("message").to_owned(),
        }),
    }
}

impl Client {
    /// Starts a server for the platform in this state directory, which has to be up. Its own files go below `home`.
    pub(super) async fn start(state: &Path, home: &Path, work: &Path) -> Result<Self, Failure> {
        let failed =
            |why: std::io::Error| Failure::internal(format!("cannot start a server: {why}"));
        // The shipped grants alone, whatever the user's say.
        let policy = home.join("policy.toml");
        tokio::fs::create_dir_all(home).await.map_err(failed)?;
        tokio::fs::write(&policy, "").await.map_err(failed)?;
        let mut command = Command::new(local::program()?);
        command
            .args(["mcp", "--local", "--state"])
            .arg(state)
            .arg("--policy")
            .arg(&policy)
            .env("XDG_STATE_HOME", home)
            .current_dir(work)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::internal("the server has no input or output"));
        };
        let (lines, mut queue) = mpsc::channel::<String>(QUEUE);
        let wire = Arc::new(Wire {
            lines,
            waiting: Mutex::default(),
            last: AtomicU64::new(0),
        });
        let writing = tokio::spawn(async move {
            while let Some(line) = queue.recv().await {
                if input.write_all(line.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        let reading = tokio::spawn({
            let wire = wire.clone();
            async move {
                let mut lines = BufReader::new(output).lines();
                while let Ok(Some(line)) = lines.next_line().await {
                    wire.take(&line);
                }
                // Nobody answers any more.
                wire.waiting().clear();
            }
        });
        Ok(Self {
            child,
            wire,
            tasks: [writing, reading],
        })
    }

    /// Begins a request.
    async fn request(&self, method: &str, mut params: Value) -> Call {
        let id = self.wire.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (answer, outcome) = oneshot::channel();
        let (sender, updates) = watch::channel(Update::default());
        let waiting = Waiting {
            answer,
            updates: sender,
        };
        self.wire.waiting().insert(id, waiting);
        if let Some(params) = params.as_object_mut() {
            let meta = json!({
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "pi-vers demo", "version": env!("CARGO_PKG_VERSION") },
                "io.modelcontextprotocol/clientCapabilities": {},
                "progressToken": id,
            });
            params.insert("_meta".into(), meta);
        }
        let message = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        // If it can't be written, the answer does not come.
        let _ = self.wire.lines.send(format!("{message}\n")).await;
        Call {
            id,
            wire: self.wire.clone(),
            outcome,
            updates,
            cancelled: false,
        }
    }

    /// The result of a request that is no call.
    pub(super) async fn ask(&self, method: &str) -> Result<Value, Failure> {
        let mut call = self.request(method, json!({})).await;
        match call.answer().await {
            Some(mut answer) if answer.get("result").is_some() => Ok(answer
                .get_mut("result")
                .map(Value::take)
                .unwrap_or_default()),
            Some(answer) => Err(wrong(format!("{method} was answered with {answer}"))),
            None => Err(wrong(format!(
                "the server ended before it answered {method}"
            ))),
        }
    }

    /// Begins a call.
    pub(super) async fn call(&self, tool: &str, arguments: Value) -> Call {
        let name = match RENAMED.contains(&tool) {
            true => format!("vers_{tool}"),
            false => tool.to_owned(),
        };
        let params = json!({ "name": name, "arguments": arguments });
        self.request("tools/call", params).await
    }

    /// Ends the server as a client does: by the end of its input.
    pub(super) async fn end(mut self) -> Result<(), Failure> {
        let [writing, reading] = &self.tasks;
        writing.abort();
        let status = timeout(END, self.child.wait()).await;
        reading.abort();
        match status {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(wrong(format!("the server ended with {status}"))),
            Ok(Err(why)) => Err(Failure::internal(format!(
                "the server can't be waited for: {why}"
            ))),
            Err(_) => Err(wrong("the server did not end with its input")),
        }
    }
}

/// A request under way.
pub(super) struct Call {
    id: u64,
    wire: Arc<Wire>,
    outcome: oneshot::Receiver<Value>,
    updates: watch::Receiver<Update>,
    cancelled: bool,
}

impl Call {
    pub(super) fn updates(&self) -> watch::Receiver<Update> {
        self.updates.clone()
    }

    /// Gives it up. A server answers no call that was given up: so this is its end, here.
    pub(super) fn cancel(&mut self) {
        if std::mem::replace(&mut self.cancelled, true) {
            return;
        }
        let message = json!({
            "jsonrpc": "2.0", "method": "notifications/cancelled",
            "params": { "requestId": self.id },
        });
        if self.wire.lines.try_send(format!("{message}\n")).is_err() {
            tracing::warn!("the cancel could not be sent");
        }
        self.wire.waiting().remove(&self.id);
    }

    async fn answer(&mut self) -> Option<Value> {
        (&mut self.outcome).await.ok()
    }

    /// Waits for the result, as of a session's own call.
    pub(super) async fn outcome(&mut self) -> Result<ToolOutput, CallError> {
        let Some(answer) = self.answer().await else {
            return Err(match self.cancelled {
                true => CallError::Cancelled {
                    what: "the call".into(),
                    stopped: Vec::new(),
                    output: ToolOutput::default(),
                },
                false => CallError::Closed,
            });
        };
        let Some(result) = answer.get("result") else {
            return Err(CallError::Failed(said(&answer.to_string())));
        };
        let blocks = result.get("content").and_then(Value::as_array);
        let texts = blocks.into_iter().flatten();
        let texts = texts.filter_map(|block| block.get("text")?.as_str());
        let output = ToolOutput {
            content: texts.map(Content::text).collect(),
            details: result.pointer("/_meta/pi-vers~1details").cloned(),
            structured: result.get("structuredContent").cloned(),
        };
        match result.get("isError") {
            Some(Value::Bool(true)) => Err(CallError::Failed(output)),
            _ => Ok(output),
        }
    }
}

fn said(text: &str) -> ToolOutput {
    ToolOutput {
        content: vec![Content::text(text)],
        ..ToolOutput::default()
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.wire.waiting().contains_key(&self.id) {
            self.cancel();
        }
    }
}
