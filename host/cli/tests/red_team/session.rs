//! `pi-vers mcp` with a raider, driven by hand.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::common::each_message;
use crate::raider::Raid;

/// Nothing that is waited for takes so long.
const DEADLINE: Duration = Duration::from_secs(120);

/// A client and its server.
pub(crate) struct Peer {
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<Value>,
    errors: PathBuf,
    next: u64,
}

impl Peer {
    pub(crate) fn new(raid: &Raid, more: &[&str]) -> Self {
        let errors = raid.home.path("errors");
        let mut words = vec!["mcp"];
        words.extend(more);
        let mut child = raid
            .home
            .command(raid.words(&words))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).unwrap())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let output = child.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        each_message(output, move |message| sender.send(message).is_ok());
        let mut peer = Self {
            child,
            input,
            lines,
            errors,
            next: 0,
        };
        let hello = json!({
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "test", "version": "0" },
        });
        peer.ask("initialize", hello);
        peer.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        peer
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn send(&mut self, message: &Value) {
        let line = format!("{message}\n");
        let input = self.input.as_mut().unwrap();
        input.write_all(line.as_bytes()).unwrap();
    }

    /// Sends a request; its id.
    pub(crate) fn request(&mut self, method: &str, parameters: Value) -> u64 {
        self.next += 1;
        let id = self.next;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": parameters }));
        id
    }

    /// The answer to a request; everything else that comes meanwhile is dropped.
    pub(crate) fn answer(&mut self, id: u64) -> Value {
        loop {
            let message = self.lines.recv_timeout(DEADLINE);
            let message =
                message.unwrap_or_else(|why| panic!("no answer ({why}): {}", self.errors()));
            if message.get("method").is_none() && message["id"] == id {
                return message;
            }
        }
    }

    pub(crate) fn ask(&mut self, method: &str, parameters: Value) -> Value {
        let id = self.request(method, parameters);
        self.answer(id)
    }

    /// The text of a raid's result.
    pub(crate) fn raid(&mut self, what: Value) -> String {
        let answer = self.ask("tools/call", call(what));
        let text = answer["result"]["content"][0]["text"].as_str();
        text.unwrap_or_else(|| panic!("no text: {answer}"))
            .to_owned()
    }

    /// What it wrote to standard error.
    pub(crate) fn errors(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Closes its input and waits for its end.
    pub(crate) fn end(mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn call(what: Value) -> Value {
    json!({ "name": "raid", "arguments": what })
}
