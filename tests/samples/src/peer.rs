//! A harness that says what a case tells it to, in the words of `docs/bridge.md`.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};

use crate::Outcome;
use crate::lab::{DEADLINE, Lab, Subject};

/// A session with the shipped extensions and the sample.
pub(crate) struct Peer {
    child: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    next: u64,
    /// What the host offered.
    pub(crate) ready: Value,
    /// Frames that came while a case waited for another.
    seen: Vec<Value>,
}

impl Peer {
    /// Opens a session under what the sample needs.
    pub(crate) async fn open(lab: &Lab, subject: &Subject) -> Outcome<Self> {
        Self::open_under(lab, subject, &subject.granted).await
    }

    /// Opens a session under this policy.
    pub(crate) async fn open_under(lab: &Lab, subject: &Subject, policy: &Path) -> Outcome<Self> {
        let mut command = lab.command();
        command
            .args(["bridge", "--local", "--policy"])
            .arg(policy)
            .arg("--extension")
            .arg(&subject.component)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        let mut child = command.spawn().map_err(|why| why.to_string())?;
        let stdin = child.stdin.take().ok_or("no input")?;
        let stdout = child.stdout.take().ok_or("no output")?;
        let mut peer = Self {
            child,
            stdin,
            lines: BufReader::new(stdout).lines(),
            next: 0,
            ready: Value::Null,
            seen: Vec::new(),
        };
        let work = lab.work();
        peer.send(json!({
            "t": "hello", "v": 1, "cwd": work, "harness": { "kind": "test", "version": "0" }, "builtIns": ["bash"],
        }))
        .await?;
        peer.ready = peer.frame().await?;
        if field(&peer.ready, "t") != "ready" {
            return Err(format!("not ready: {}", peer.ready));
        }
        peer.send(json!({
            "t": "context", "sessionId": "s", "cwd": work, "interactive": true, "idle": true, "activeTools": ["bash"],
            "allTools": ["bash"], "flags": {},
        }))
        .await?;
        let started = peer.ask("start", json!({ "reason": "startup" })).await?;
        peer.answer(started).await?;
        Ok(peer)
    }

    async fn send(&mut self, frame: Value) -> Outcome {
        let line = format!("{frame}\n");
        let sent = self.stdin.write_all(line.as_bytes()).await;
        sent.map_err(|why| format!("the bridge reads no more: {why}"))
    }

    /// Asks, without waiting for the answer.
    pub(crate) async fn ask(&mut self, kind: &str, fields: Value) -> Outcome<u64> {
        self.next += 1;
        let mut frame = json!({ "t": kind, "id": self.next });
        if let (Some(frame), Value::Object(fields)) = (frame.as_object_mut(), fields) {
            frame.extend(fields);
        }
        self.send(frame).await?;
        Ok(self.next)
    }

    /// Calls a tool, without waiting for what comes of it.
    pub(crate) async fn begin(&mut self, tool: &str, arguments: Value) -> Outcome<u64> {
        let call = format!("call-{}", self.next + 1);
        let fields = json!({ "tool": tool, "callId": call, "arguments": arguments });
        self.ask("call", fields).await
    }

    pub(crate) async fn cancel(&mut self, id: u64) -> Outcome {
        self.send(json!({ "t": "cancel", "id": id })).await
    }

    async fn frame(&mut self) -> Outcome<Value> {
        loop {
            let line = tokio::time::timeout(DEADLINE, self.lines.next_line())
                .await
                .map_err(|_| format!("the bridge says nothing; before that: {:?}", self.seen))?
                .map_err(|why| why.to_string())?
                .ok_or_else(|| format!("the bridge has ended; before that: {:?}", self.seen))?;
            let frame: Value =
                serde_json::from_str(&line).map_err(|why| format!("{why}: {line}"))?;
            // What the shipped extensions keep with the session.
            let value = match field(&frame, "method") {
                "session.appendEntry" => Value::Null,
                "session.entries" => json!([]),
                _ => return Ok(frame),
            };
            self.send(json!({ "t": "result", "id": frame.get("id"), "value": value }))
                .await?;
        }
    }

    /// Waits for a frame; those before it are kept.
    pub(crate) async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Outcome<Value> {
        if let Some(at) = self.seen.iter().position(&fits) {
            return Ok(self.seen.remove(at));
        }
        loop {
            let frame = self.frame().await?;
            if fits(&frame) {
                return Ok(frame);
            }
            self.seen.push(frame);
        }
    }

    /// The answer to a request: a `result` or an `error`.
    pub(crate) async fn answer(&mut self, id: u64) -> Outcome<Value> {
        self.until(|frame| {
            frame.get("id").and_then(Value::as_u64) == Some(id)
                && matches!(field(frame, "t"), "result" | "error")
        })
        .await
    }

    /// News of a call that fit.
    pub(crate) async fn update(&mut self, id: u64, fits: impl Fn(&str) -> bool) -> Outcome<String> {
        let is = |frame: &Value| {
            let own = frame.get("id").and_then(Value::as_u64) == Some(id);
            own && (field(frame, "t") != "update" || fits(&text(frame)))
        };
        let frame = self.until(is).await?;
        match field(&frame, "t") {
            "update" => Ok(text(&frame)),
            _ => Err(format!("it ended before that: {frame}")),
        }
    }

    /// The tool result of a call.
    pub(crate) async fn call(&mut self, tool: &str, arguments: Value) -> Outcome<Value> {
        let id = self.begin(tool, arguments).await?;
        let answer = self.answer(id).await?;
        match (field(&answer, "t"), answer.get("value")) {
            ("result", Some(value)) => Ok(value.clone()),
            _ => Err(format!("{tool}: {answer}")),
        }
    }

    /// The text of a call that has to succeed.
    pub(crate) async fn text(&mut self, tool: &str, arguments: Value) -> Outcome<String> {
        let result = self.call(tool, arguments).await?;
        match result.get("isError") {
            Some(Value::Bool(false)) => Ok(text(&result)),
            _ => Err(format!("{tool}: {result}")),
        }
    }

    /// Code and message of a call that has to come to nothing.
    pub(crate) async fn refused(
        &mut self,
        tool: &str,
        arguments: Value,
    ) -> Outcome<(String, String)> {
        let id = self.begin(tool, arguments).await?;
        let answer = self.answer(id).await?;
        match field(&answer, "t") {
            "error" => Ok((
                field(&answer, "code").to_owned(),
                field(&answer, "message").to_owned(),
            )),
            _ => Err(format!("{tool} was not refused: {answer}")),
        }
    }

    /// Runs a command; it has to succeed.
    pub(crate) async fn command(&mut self, name: &str, arguments: &str) -> Outcome {
        let fields = json!({ "name": name, "arguments": arguments });
        let id = self.ask("command", fields).await?;
        let answer = self.answer(id).await?;
        match field(&answer, "t") {
            "result" => Ok(()),
            _ => Err(format!("/{name} {arguments}: {answer}")),
        }
    }

    /// The next notice of this method that fits.
    pub(crate) async fn notice(
        &mut self,
        method: &str,
        fits: impl Fn(&Value) -> bool,
    ) -> Outcome<Value> {
        let is = |frame: &Value| {
            field(frame, "method") == method && frame.get("params").is_some_and(&fits)
        };
        let mut frame = self.until(is).await?;
        Ok(frame.get_mut("params").map(Value::take).unwrap_or_default())
    }

    /// Runs this in a shell of the VM, whatever the sample does: by a shipped extension.
    pub(crate) async fn bash(&mut self, vm: &str, command: &str) -> Outcome<String> {
        self.text("vers_vm_use", json!({ "vmId": vm })).await?;
        self.text("bash", json!({ "command": command })).await
    }

    /// Ends the session, which has to end well.
    pub(crate) async fn end(self) -> Outcome {
        let Self {
            mut child,
            stdin,
            mut lines,
            ..
        } = self;
        drop(stdin);
        let ending = async {
            while let Ok(Some(_)) = lines.next_line().await {}
            child.wait().await
        };
        let ended = tokio::time::timeout(DEADLINE, ending)
            .await
            .map_err(|_| "the bridge does not end")?
            .map_err(|why| why.to_string())?;
        match ended.success() {
            true => Ok(()),
            false => Err(format!("the bridge ended with {ended}")),
        }
    }
}

/// A text member, or an empty text.
pub(crate) fn field<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The text blocks of a result or an update, joined by line feeds.
pub(crate) fn text(value: &Value) -> String {
    let blocks = value.get("content").and_then(Value::as_array);
    let texts: Vec<&str> = blocks
        .into_iter()
        .flatten()
        .filter_map(|block| block.get("text")?.as_str())
        .collect();
    texts.join("\n")
}
