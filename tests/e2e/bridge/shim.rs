//! A shim that says what a test tells it to.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use pi_vers_host::policy::Digest;
use pi_vers_tests::{DEADLINE, Scratch, built};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

pub(crate) struct Shim {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    stderr: JoinHandle<String>,
    next: u64,
    directory: PathBuf,
    /// Frames that came while the test waited for another.
    pub(crate) seen: Vec<Value>,
    /// `{extension, kind, data}`, as a harness keeps them with its session.
    pub(crate) entries: Vec<Value>,
}

/// How it ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

impl Shim {
    /// Starts the bridge and says nothing yet.
    pub(crate) fn spawn(scratch: &Scratch, args: &[&str]) -> Self {
        let mut command = Command::from(scratch.command());
        command
            .arg("bridge")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        let mut stderr = child.stderr.take().expect("piped");
        Self {
            stdin: child.stdin.take(),
            lines: BufReader::new(stdout).lines(),
            stderr: tokio::spawn(async move {
                let mut text = String::new();
                let _ = stderr.read_to_string(&mut text).await;
                text
            }),
            child,
            next: 0,
            directory: scratch.work(),
            seen: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// Starts the bridge for a harness with these tools of its own; the shim and what it was offered.
    pub(crate) async fn greet(
        scratch: &Scratch,
        args: &[&str],
        built_ins: &[&str],
    ) -> (Self, Value) {
        let mut shim = Self::spawn(scratch, args);
        shim.send(json!({
            "t": "hello", "v": 1, "cwd": scratch.work(), "harness": { "kind": "test", "version": "0" }, "builtIns": built_ins,
        }))
        .await;
        let ready = shim.next().await;
        assert_eq!(ready["t"], "ready", "{ready}");
        shim.context(json!({})).await;
        (shim, ready)
    }

    /// The same with the guest that does what it must not, under these lines of policy.
    pub(crate) async fn unruly(
        scratch: &Scratch,
        rules: &str,
        built_ins: &[&str],
    ) -> (Self, Value) {
        let guest = built::fixture("unruly");
        let digest = Digest::of(&std::fs::read(&guest).unwrap());
        let policy = format!("[extension.unruly]\ndigest = \"{digest}\"\n{rules}\n");
        std::fs::write(scratch.work().join("policy.toml"), policy).unwrap();
        let guest = guest.to_str().unwrap();
        let args = ["--extension", guest, "--policy", "policy.toml"];
        Self::greet(scratch, &args, built_ins).await
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id().expect("it still runs")
    }

    pub(crate) async fn bytes(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().expect("not closed yet");
        // One that has ended already reads no more; the test finds out how it ended.
        let _ = stdin.write_all(bytes).await;
    }

    pub(crate) async fn send(&mut self, frame: Value) {
        self.bytes(format!("{frame}\n").as_bytes()).await;
    }

    /// A snapshot of the harness, with these fields instead of the usual ones.
    pub(crate) async fn context(&mut self, fields: Value) {
        let mut context = json!({
            "t": "context", "sessionId": "s", "cwd": self.directory, "interactive": true, "idle": true, "activeTools": ["bash"],
            "allTools": ["bash", "other"], "flags": {},
        });
        for (name, value) in fields.as_object().unwrap() {
            context[name] = value.clone();
        }
        self.send(context).await;
    }

    /// Asks, without waiting for the answer.
    pub(crate) async fn ask(&mut self, kind: &str, fields: Value) -> u64 {
        self.next += 1;
        let mut frame = json!({ "t": kind, "id": self.next });
        for (name, value) in fields.as_object().unwrap() {
            frame[name] = value.clone();
        }
        self.send(frame).await;
        self.next
    }

    /// Calls a tool, without waiting for what comes of it.
    pub(crate) async fn begin(&mut self, tool: &str, arguments: Value) -> u64 {
        let call = format!("call-{}", self.next + 1);
        self.ask(
            "call",
            json!({ "tool": tool, "callId": call, "arguments": arguments }),
        )
        .await
    }

    /// The next frame; what the harness keeps with its session is answered on the way.
    pub(crate) async fn next(&mut self) -> Value {
        loop {
            let line = tokio::time::timeout(DEADLINE, self.lines.next_line()).await;
            let line = line.expect("the bridge says something").unwrap();
            let Some(line) = line else {
                panic!("the bridge has ended; before that: {:?}", self.seen)
            };
            let frame: Value =
                serde_json::from_str(&line).unwrap_or_else(|why| panic!("{why}: {line}"));
            let value = match frame["method"].as_str() {
                Some("session.appendEntry") => {
                    self.entries.push(frame["params"].clone());
                    Value::Null
                }
                Some("session.entries") => {
                    let wanted = &frame["params"];
                    let fits = |entry: &&Value| {
                        entry["extension"] == wanted["extension"]
                            && (wanted["kind"].is_null() || entry["kind"] == wanted["kind"])
                    };
                    let found = self.entries.iter().filter(fits);
                    found.map(|entry| entry["data"].clone()).collect()
                }
                _ => return frame,
            };
            self.send(json!({ "t": "result", "id": frame["id"], "value": value }))
                .await;
        }
    }

    /// Waits for a frame; those before it are kept.
    pub(crate) async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.seen.iter().position(&fits) {
            return self.seen.remove(at);
        }
        loop {
            let frame = self.next().await;
            if fits(&frame) {
                return frame;
            }
            self.seen.push(frame);
        }
    }

    /// The answer to a request: a `result` or an `error`.
    pub(crate) async fn answer(&mut self, id: u64) -> Value {
        self.until(|frame| frame["id"] == id && (frame["t"] == "result" || frame["t"] == "error"))
            .await
    }

    /// What was asked of the shim by this method.
    pub(crate) async fn asked(&mut self, method: &str) -> Value {
        self.until(|frame| frame["t"] == "request" && frame["method"] == method)
            .await
    }

    pub(crate) async fn noticed(&mut self, method: &str) -> Value {
        let notice = self
            .until(|frame| frame["t"] == "notice" && frame["method"] == method)
            .await;
        notice["params"].clone()
    }

    /// The value of a request that has to have a result.
    pub(crate) async fn value(&mut self, kind: &str, fields: Value) -> Value {
        let id = self.ask(kind, fields).await;
        let answer = self.answer(id).await;
        assert_eq!(answer["t"], "result", "{answer}");
        answer["value"].clone()
    }

    /// The tool result of a call.
    pub(crate) async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let id = self.begin(tool, arguments).await;
        let answer = self.answer(id).await;
        assert_eq!(answer["t"], "result", "{tool}: {answer}");
        answer["value"].clone()
    }

    /// The text of a call that has to succeed.
    pub(crate) async fn text(&mut self, tool: &str, arguments: Value) -> String {
        let result = self.call(tool, arguments).await;
        assert_eq!(result["isError"], false, "{tool}: {result}");
        pi_vers_tests::text(&result)
    }

    /// The code of a call that has to come to nothing.
    pub(crate) async fn code(&mut self, tool: &str, arguments: Value) -> String {
        let id = self.begin(tool, arguments).await;
        let answer = self.answer(id).await;
        assert_eq!(answer["t"], "error", "{tool}: {answer}");
        assert_ne!(answer["message"].as_str().unwrap(), "");
        answer["code"].as_str().unwrap().to_owned()
    }

    /// Closes the input.
    pub(crate) fn hang_up(&mut self) {
        self.stdin = None;
    }

    /// Waits for the end, which has to come within this time. Reads what still comes.
    pub(crate) async fn ended_within(mut self, limit: Duration) -> Ended {
        let reading = async { while let Ok(Some(_)) = self.lines.next_line().await {} };
        let ended = tokio::time::timeout(limit, async {
            let (ended, ()) = tokio::join!(self.child.wait(), reading);
            ended
        });
        let ended = ended.await.expect("it ends in time").expect("waited for");
        Ended {
            code: ended.code(),
            stderr: self.stderr.await.expect("read"),
        }
    }

    /// The same with all the time there is.
    pub(crate) async fn ended(self) -> Ended {
        self.ended_within(DEADLINE).await
    }

    /// Closes the input, and it has to end well.
    pub(crate) async fn end(mut self) {
        self.hang_up();
        let ended = self.ended().await;
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
}
