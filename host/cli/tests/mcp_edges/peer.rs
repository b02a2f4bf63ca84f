//! A client by hand: it sends what no proper client would, and keeps all that comes back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::Digest as _;

use crate::common::{BINARY, Home, each_message};

/// Nothing that a test waits for takes so long: the first process compiles the extensions.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// What the server's standard input and output are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wire {
    Pipes,
    Sockets,
}

/// A client and its server.
pub(crate) struct Peer {
    pub(crate) child: Child,
    input: Option<Box<dyn Write + Send>>,
    lines: mpsc::Receiver<Value>,
    /// What came and was not asked for yet.
    pub(crate) kept: Vec<Value>,
}

impl Peer {
    /// With these fixtures, over pipes.
    pub(crate) fn new(home: &Home, guests: &[&str]) -> Self {
        Self::over(Wire::Pipes, home, guests)
    }

    pub(crate) fn over(wire: Wire, home: &Home, guests: &[&str]) -> Self {
        let mut command = home.command(arguments(home, guests));
        command.stderr(Stdio::null());
        match wire {
            Wire::Pipes => {
                let mut child = command
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let input = child.stdin.take().unwrap();
                let output = child.stdout.take().unwrap();
                Self::of(child, Box::new(input), output)
            }
            Wire::Sockets => {
                let (input, theirs) = UnixStream::pair().unwrap();
                let (output, ours) = UnixStream::pair().unwrap();
                command
                    .stdin(OwnedFd::from(theirs))
                    .stdout(OwnedFd::from(ours));
                let child = command.spawn().unwrap();
                // Its ends of the sockets go with the command.
                drop(command);
                Self::of(child, Box::new(input), output)
            }
        }
    }

    fn of(child: Child, input: Box<dyn Write + Send>, output: impl Read + Send + 'static) -> Self {
        // One line ahead and no more: what is not asked for stays with the server.
        let (sender, lines) = mpsc::sync_channel(0);
        each_message(output, move |message| sender.send(message).is_ok());
        Self {
            child,
            input: Some(input),
            lines,
            kept: Vec::new(),
        }
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.raw(format!("{message}\n").as_bytes());
    }

    /// No more input.
    pub(crate) fn close(&mut self) {
        self.input = None;
    }

    /// The next message for which this holds; others are kept for later.
    pub(crate) fn next(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        if let Some(at) = self.kept.iter().position(&wanted) {
            return self.kept.remove(at);
        }
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.lines.recv_timeout(left);
            let message =
                message.unwrap_or_else(|why| panic!("no {what} ({why}): {:?}", self.kept));
            if wanted(&message) {
                return message;
            }
            self.kept.push(message);
        }
    }

    pub(crate) fn answer(&mut self, id: &Value) -> Value {
        self.next(&format!("answer to {id}"), |message| {
            message.get("method").is_none() && message["id"] == *id
        })
    }

    pub(crate) fn notified(&mut self, method: &str) -> Value {
        self.next(method, |message| message["method"] == method)
    }

    pub(crate) fn request(&mut self, id: impl Into<Value>, method: &str, params: Value) {
        let id = id.into();
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
    }

    pub(crate) fn ask(&mut self, id: impl Into<Value>, method: &str, params: Value) -> Value {
        let id = id.into();
        self.request(id.clone(), method, params);
        self.answer(&id)
    }

    /// The text of a tool's result.
    pub(crate) fn call(&mut self, id: u64, tool: &str, arguments: Value) -> String {
        let answer = self.ask(id, "tools/call", call(tool, arguments));
        said(&answer["result"]).to_owned()
    }

    /// Still there, and listening.
    pub(crate) fn ping(&mut self) {
        let answer = self.ask("ping", "ping", json!({}));
        assert_eq!(answer["result"], json!({}), "{answer}");
    }

    pub(crate) fn initialize(&mut self) -> Value {
        let params = json!({
            "protocolVersion": "2025-11-25", "capabilities": { "elicitation": {} },
            "clientInfo": { "name": "test", "version": "0" },
        });
        let mut answer = self.ask("hello", "initialize", params);
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        answer["result"].take()
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self, since: Instant) -> (ExitStatus, Duration) {
        while since.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, since.elapsed());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("it did not end");
    }

    /// All that it still said, once it has ended.
    pub(crate) fn rest(&mut self) -> Vec<Value> {
        let mut all = std::mem::take(&mut self.kept);
        while let Ok(message) = self.lines.recv_timeout(DEADLINE) {
            all.push(message);
        }
        all
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn call(tool: &str, arguments: Value) -> Value {
    json!({ "name": tool, "arguments": arguments })
}

pub(crate) fn said(result: &Value) -> &str {
    result["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("no text: {result}"))
}

/// What a request of the newer era says about its sender.
pub(crate) fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "0" },
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } },
    })
}

/// How to start `pi-vers mcp` with these fixtures and what they need.
pub(crate) fn arguments(home: &Home, guests: &[&str]) -> Vec<String> {
    let mut arguments = vec!["mcp".to_owned()];
    let mut policy = String::new();
    for name in guests {
        let file = &fixtures()[*name];
        let digest = sha2::Sha256::digest(std::fs::read(file).unwrap());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        let ui = "[\"select\", \"confirm\", \"input\"]";
        writeln!(
            policy,
            "[extension.{name}]\ndigest = \"sha256:{digest}\"\nui = {ui}"
        )
        .unwrap();
        arguments.extend(["-e".to_owned(), file.to_str().unwrap().to_owned()]);
    }
    if !guests.is_empty() {
        let policy = home.write("policy.toml", policy);
        arguments.extend(["--policy".to_owned(), policy.to_str().unwrap().to_owned()]);
    }
    arguments
}

/// The guests for tests, all built at once.
fn fixtures() -> &'static BTreeMap<&'static str, PathBuf> {
    static BUILT: OnceLock<BTreeMap<&str, PathBuf>> = OnceLock::new();
    BUILT.get_or_init(|| {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let target = std::path::Path::new(BINARY).with_file_name("../fixtures");
        let names = ["showcase", "unruly"];
        let mut build = Command::new(env!("CARGO"));
        build
            .current_dir(root.join("extensions"))
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_TARGET_DIR")
            .args(["build", "--release", "--locked", "--target"])
            .args(["wasm32-wasip2", "--target-dir"])
            .arg(&target)
            .args(names.iter().flat_map(|name| ["-p", name]));
        let built = build.output().unwrap();
        let why = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{why}");
        let component = |name| target.join(format!("wasm32-wasip2/release/{name}.wasm"));
        names.map(|name| (name, component(name))).into()
    })
}
