//! The doctor as a client: `pi-vers mcp` as a child, line by line.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pi_vers_host::visible;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::args::Loading;
use crate::failure::{Code, Failure};
use crate::local;
use crate::wire::{LONGEST, Lines};

/// So much is kept of what it says on standard error.
const KEPT: usize = 8 << 10;

/// See the module. The process is killed when this is dropped.
pub(super) struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<ChildStdout>,
    errors: Arc<Mutex<Vec<u8>>>,
    listening: JoinHandle<()>,
    next: u64,
    /// Answers that nobody waited for.
    pub(super) unasked: Vec<u64>,
    /// What came that is not of the protocol.
    pub(super) stray: Option<String>,
}

/// What is wrong, and what to do.
pub(super) fn wrong(what: impl Into<String>) -> Failure {
    Failure::new(Code::Tool, "mcp", what)
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

impl Peer {
    /// Starts it, with this platform and a state directory of its own.
    pub(super) fn start(loading: &Loading, platform: &str, state: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(local::program()?);
        command.arg("mcp");
        for extension in &loading.extension {
            command.arg("--extension").arg(extension);
        }
        if let Some(policy) = &loading.policy {
            command.arg("--policy").arg(policy);
        }
        command
            .env("VERS_BASE_URL", platform)
            .env("VERS_API_KEY", "pi-vers-doctor")
            .env("XDG_STATE_HOME", state)
            .env_remove("VERS_VM_DOMAIN")
            .env_remove("VERS_VM_CONNECT")
            .env_remove("VERS_INFRA_URL")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|why| wrong(format!("cannot start `pi-vers mcp`: {why}")))?;
        let (Some(input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(Failure::internal("a child has no pipes"));
        };
        let kept = Arc::default();
        Ok(Self {
            child,
            input: Some(input),
            lines: Lines::new(output, LONGEST),
            listening: tokio::spawn(listen(errors, Arc::clone(&kept))),
            errors: kept,
            next: 1,
            unasked: Vec::new(),
            stray: None,
        })
    }

    /// Sends a request; its id.
    pub(super) async fn send(&mut self, method: &str, params: Value) -> Result<u64, Failure> {
        let id = self.next;
        self.next += 1;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.write(&request).await?;
        Ok(id)
    }

    pub(super) async fn notify(&mut self, method: &str, params: Value) -> Result<(), Failure> {
        self.write(&json!({ "jsonrpc": "2.0", "method": method, "params": params }))
            .await
    }

    async fn write(&mut self, message: &Value) -> Result<(), Failure> {
        let line = format!("{message}\n");
        let Some(input) = &mut self.input else {
            return Err(Failure::internal("the input is closed"));
        };
        let written = input.write_all(line.as_bytes()).await;
        if written.is_err() {
            return Err(self.gone().await);
        }
        Ok(())
    }

    /// Asks, and waits for the answer: the whole message.
    pub(super) async fn ask(
        &mut self,
        method: &str,
        params: Value,
        within: Duration,
    ) -> Result<Value, Failure> {
        let id = self.send(method, params).await?;
        match timeout(within, self.answer(id)).await {
            Ok(answer) => answer,
            Err(_) => Err(wrong(format!(
                "{method} was not answered within {} s",
                within.as_secs()
            ))),
        }
    }

    async fn answer(&mut self, wanted: u64) -> Result<Value, Failure> {
        loop {
            let Some(message) = self.message().await? else {
                return Err(self.gone().await);
            };
            let id = message.get("id");
            if message.get("method").is_some() {
                // A request to us: a client may refuse any.
                if let Some(id) = id {
                    let error = json!({ "code": -32601, "message": "a doctor answers nothing" });
                    self.write(&json!({ "jsonrpc": "2.0", "id": id, "error": error }))
                        .await?;
                }
                continue;
            }
            match id.and_then(Value::as_u64) {
                Some(id) if id == wanted => return Ok(message),
                Some(id) => self.unasked.push(id),
                None => {}
            }
        }
    }

    /// The next message; what is none is remembered.
    async fn message(&mut self) -> Result<Option<Value>, Failure> {
        loop {
            let line = self.lines.next().await;
            let line = line.map_err(|why| wrong(format!("standard output: {why}")))?;
            let Some(line) = line else { return Ok(None) };
            match serde_json::from_slice::<Value>(&line) {
                Ok(message) if message.get("jsonrpc") == Some(&json!("2.0")) => {
                    return Ok(Some(message));
                }
                _ => {
                    let text = String::from_utf8_lossy(&line);
                    let text: String = text.chars().take(80).collect();
                    self.stray.get_or_insert(visible(&text));
                }
            }
        }
    }

    /// It ended too early: what it said last.
    async fn gone(&mut self) -> Failure {
        let status = timeout(Duration::from_secs(1), self.child.wait()).await;
        let status = match status {
            Ok(Ok(status)) => status.to_string(),
            _ => "it still runs, but closed its output".to_owned(),
        };
        let said = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        let said = String::from_utf8_lossy(&said);
        let last = said.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.map(|line| format!(": {}", visible(line)));
        wrong(format!("it ended ({status}){}", last.unwrap_or_default()))
    }

    /// Closes its input, or sends the signal, and waits for its end.
    pub(super) async fn end(
        &mut self,
        signal: Option<Signal>,
        within: Duration,
    ) -> Result<(Duration, ExitStatus), Failure> {
        let begun = Instant::now();
        match signal {
            None => drop(self.input.take()),
            Some(signal) => {
                let pid = self.child.id().and_then(|id| i32::try_from(id).ok());
                let sent = pid
                    .and_then(Pid::from_raw)
                    .map(|pid| kill_process(pid, signal));
                if !matches!(sent, Some(Ok(()))) {
                    return Err(wrong("it was gone before it was ended"));
                }
            }
        }
        // What it still says is read: it must not wait for us.
        let ended = timeout(within, async {
            while let Ok(Some(message)) = self.message().await {
                self.unasked
                    .extend(message.get("id").and_then(Value::as_u64));
            }
            self.child.wait().await
        });
        match ended.await {
            Ok(Ok(status)) => Ok((begun.elapsed(), status)),
            Ok(Err(why)) => Err(wrong(format!("its end is not known: {why}"))),
            Err(_) => Err(wrong(format!("it still runs {} s later", within.as_secs()))),
        }
    }
}

/// Keeps the end of what comes.
async fn listen(mut errors: ChildStderr, kept: Arc<Mutex<Vec<u8>>>) {
    let mut bytes = [0; 1024];
    while let Ok(read @ 1..) = errors.read(&mut bytes).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(bytes.get(..read).unwrap_or_default());
        let more = kept.len().saturating_sub(KEPT);
        kept.drain(..more);
    }
}
