//! The hook of a client, from the active VM of a running server to what the client is told.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it is test code: a panic is how it says what is wrong"
)]

mod common;

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use common::Home;
use serde_json::{Value, json};

/// A client: this process is the parent of the server and of the hooks.
struct Client {
    home: Home,
    server: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    next: u64,
}

impl Client {
    fn new(more: &[&str]) -> Self {
        let mut home = Home::new();
        let runtime = home.path("run");
        std::fs::create_dir(&runtime).unwrap();
        home.set("XDG_RUNTIME_DIR", runtime.to_str().unwrap());
        let mut command = home.command(["mcp"].iter().chain(more));
        command.stdin(Stdio::piped()).stderr(Stdio::null());
        let mut server = command.spawn().unwrap();
        let input = server.stdin.take().unwrap();
        let lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let mut this = Self {
            home,
            server,
            input,
            lines,
            next: 1,
        };
        this.ask(
            "initialize",
            json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "0" } }),
        );
        writeln!(
            this.input,
            r#"{{"jsonrpc":"2.0","method":"notifications/initialized"}}"#
        )
        .unwrap();
        this
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        let id = self.next;
        self.next += 1;
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        writeln!(self.input, "{request}").unwrap();
        loop {
            let line = self.lines.next().expect("the server ended").unwrap();
            let mut message: Value = serde_json::from_str(&line).unwrap();
            if message["id"] == id && message.get("method").is_none() {
                assert!(message.get("error").is_none(), "{message}");
                return message["result"].take();
            }
        }
    }

    /// The text of a tool's result.
    fn call(&mut self, tool: &str, arguments: Value) -> String {
        let result = self.ask(
            "tools/call",
            json!({ "name": tool, "arguments": arguments }),
        );
        let text = result["content"][0]["text"].as_str().unwrap_or_default();
        assert_ne!(result["isError"], true, "{tool}: {text}");
        text.to_owned()
    }

    /// What the command says.
    fn hook(&self, tool: &str, arguments: Value) -> String {
        let input = json!({ "session_id": "s", "hook_event_name": "PreToolUse", "tool_name": tool, "tool_input": arguments });
        let ran = self
            .home
            .run_with_input(&["hook", "pre-tool-use"], &input.to_string());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
        ran.out
    }

    fn sockets(&self) -> Vec<PathBuf> {
        let directory = self.home.path("run/pi-vers");
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        // Of a server without a platform there is nothing to reset.
        self.home.run(["local", "reset"]);
    }
}

fn denied(answer: &str) -> String {
    let answer: Value =
        serde_json::from_str(answer).unwrap_or_else(|why| panic!("{why}: {answer}"));
    let output = &answer["hookSpecificOutput"];
    assert_eq!(output["permissionDecision"], "deny", "{answer}");
    output["permissionDecisionReason"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn a_client_s_own_tools_are_refused_exactly_while_a_vm_is_active() {
    let mut client = Client::new(&["--local"]);
    let route = |tool: &str| json!({ "tool_name": tool, "path": "" });
    assert_eq!(client.call("vers_route", route("Bash")), "{}");
    assert_eq!(client.hook("Bash", json!({ "command": "ls" })), "");

    let said = client.call("vers_vm_create", json!({ "wait_boot": true }));
    let mut words = said.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    let vm = words
        .find(|word| word.len() == 36)
        .unwrap_or_else(|| panic!("{said}"))
        .to_owned();
    assert_eq!(
        client.hook("Bash", json!({})),
        "",
        "it is there, but not active"
    );
    client.call("vers_vm_use", json!({ "vmId": vm }));

    let short = &vm[..12];
    for (tool, instead) in [
        ("Bash", "vers_bash"),
        ("Write", "vers_write"),
        ("Glob", "vers_bash"),
    ] {
        let reason = denied(&client.call("vers_route", route(tool)));
        assert!(
            reason.contains(short) && reason.contains(instead),
            "{reason}"
        );
        assert_eq!(
            denied(&client.hook(tool, json!({ "file_path": "/x" }))),
            reason
        );
    }
    assert_eq!(client.hook("WebFetch", json!({})), "");
    let own = client.home.path(".claude/projects/p/1.txt");
    assert_eq!(
        client.hook("Read", json!({ "file_path": own })),
        "",
        "a result that the client keeps"
    );
    assert!(
        client
            .call("vers_bash", json!({ "command": "echo on-$((1+1))" }))
            .contains("on-2")
    );

    client.call("vers_vm_local", json!({}));
    assert_eq!(client.hook("Bash", json!({})), "");
    assert_eq!(client.call("vers_route", route("Bash")), "{}");

    // A server that is killed blocks nothing, and what it left is cleaned up by the next hook.
    client.call("vers_vm_use", json!({ "vmId": vm }));
    denied(&client.hook("Bash", json!({})));
    assert_eq!(client.sockets().len(), 1);
    client.server.kill().unwrap();
    client.server.wait().unwrap();
    assert_eq!(client.hook("Bash", json!({})), "");
    assert_eq!(client.sockets(), Vec::<PathBuf>::new());
}

#[test]
fn a_server_takes_its_socket_along() {
    let mut client = Client::new(&[]);
    assert_eq!(client.sockets().len(), 1);
    let own = client.sockets();
    let pid = rustix::process::Pid::from_raw(client.server.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(client.server.wait().unwrap().success());
    assert!(!own[0].exists());
}
