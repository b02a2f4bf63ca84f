//! `pi-vers mcp` as a client sees it: both eras, by hand-written lines over pipes and sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it is test code: a panic is how it says what is wrong"
)]

mod common;

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{Home, each_message, platform};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

/// Nothing that a test waits for takes so long: the first process compiles the extensions.
const DEADLINE: Duration = Duration::from_secs(120);
/// A process ends within 200 ms; the machine may be busy.
const END: Duration = Duration::from_secs(3);

/// A client and its server.
struct Client {
    child: Child,
    input: Option<Box<dyn Write>>,
    lines: mpsc::Receiver<Value>,
    kept: Vec<Value>,
}

impl Client {
    fn new(home: &Home) -> Self {
        Self::with(home, &["mcp"])
    }

    fn with(home: &Home, arguments: &[&str]) -> Self {
        let mut command = home.command(arguments);
        let mut child = Self::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let input = Box::new(child.stdin.take().unwrap());
        let output = child.stdout.take().unwrap();
        Self::of(child, input, output)
    }

    /// Over socket pairs, as some clients do it.
    fn over_sockets(home: &Home) -> Self {
        let (input, theirs) = UnixStream::pair().unwrap();
        let (output, ours) = UnixStream::pair().unwrap();
        let mut command = home.command(["mcp"]);
        command
            .stdin(OwnedFd::from(theirs))
            .stdout(OwnedFd::from(ours));
        let child = Self::spawn(&mut command);
        // Its ends of the sockets go with the command.
        drop(command);
        Self::of(child, Box::new(input), output)
    }

    fn spawn(command: &mut Command) -> Child {
        command.stderr(Stdio::null()).spawn().unwrap()
    }

    fn of(child: Child, input: Box<dyn Write>, output: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::channel();
        each_message(output, move |message| sender.send(message).is_ok());
        Self {
            child,
            input: Some(input),
            lines,
            kept: Vec::new(),
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    fn send(&mut self, message: &Value) {
        self.raw(format!("{message}\n").as_bytes());
    }

    /// The next message for which this holds; others are kept for later.
    fn next(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
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

    fn answer(&mut self, id: &Value) -> Value {
        self.next(&format!("answer to {id}"), |message| {
            message.get("method").is_none() && message["id"] == *id
        })
    }

    fn ask(&mut self, id: u64, method: &str, params: Value) -> Value {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        self.answer(&json!(id))
    }

    /// The result of a request of the new era.
    fn modern(&mut self, id: u64, method: &str, mut params: Value) -> Value {
        params["_meta"] = meta();
        self.ask(id, method, params)["result"].take()
    }

    fn initialize(&mut self, version: &str) -> Value {
        let params = json!({
            "protocolVersion": version, "capabilities": { "elicitation": {} },
            "clientInfo": { "name": "test", "version": "0" },
        });
        let result = self.ask(0, "initialize", params)["result"].take();
        self.send(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
        result
    }

    /// Waits for its end.
    fn ended(mut self, since: Instant) -> Duration {
        while since.elapsed() < DEADLINE {
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "{status}");
                return since.elapsed();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        panic!("it did not end");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "0" },
        "io.modelcontextprotocol/clientCapabilities": { "elicitation": { "form": {} } },
    })
}

fn names(list: &Value, of: &str) -> Vec<String> {
    let all = list[of]
        .as_array()
        .unwrap_or_else(|| panic!("no list: {list}"));
    let name = |one: &Value| one["name"].as_str().unwrap().to_owned();
    all.iter().map(name).collect()
}

fn said(result: &Value) -> &str {
    result["content"][0]["text"]
        .as_str()
        .unwrap_or_else(|| panic!("no text: {result}"))
}

/// A platform that never answers, and a call that waits for it.
fn stuck() -> (Home, Client) {
    let mut home = Home::new();
    home.set("VERS_BASE_URL", &platform(None));
    let mut client = Client::new(&home);
    client.initialize("2025-11-25");
    // Loaded: from here on a call is a call.
    client.ask(
        1,
        "tools/call",
        json!({ "name": "vers_bash", "arguments": { "command": "x" } }),
    );
    let params = json!({ "name": "vers_vms", "arguments": {}, "_meta": { "progressToken": "p" } });
    client.send(
        &json!({ "jsonrpc": "2.0", "id": "stuck", "method": "tools/call", "params": params }),
    );
    client.ask(2, "ping", json!({}));
    (home, client)
}

#[test]
fn both_eras_list_the_same_tools_sorted_and_with_their_hints() {
    let home = Home::new();
    let mut client = Client::new(&home);
    let hello = client.initialize("2025-06-18");
    assert_eq!(hello["protocolVersion"], "2025-06-18");
    assert_eq!(hello["serverInfo"]["name"], "pi-vers");
    assert!(
        hello["instructions"]
            .as_str()
            .unwrap()
            .contains("vers_bash")
    );
    let old = client.ask(1, "tools/list", json!({}))["result"].take();
    let found = client.modern(2, "server/discover", json!({}));
    assert_eq!(found["resultType"], "complete");
    assert_eq!(found["supportedVersions"][4], "2026-07-28");
    assert_eq!(
        found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"],
        "pi-vers"
    );
    let new = client.modern(3, "tools/list", json!({}));
    assert_eq!(
        (new["ttlMs"].as_u64(), &new["resultType"]),
        (Some(0), &json!("complete"))
    );
    assert_eq!(new["tools"], old["tools"]);

    let names = names(&new, "tools");
    assert!(names.is_sorted(), "{names:?}");
    for there in [
        "vers_bash",
        "vers_read",
        "vers_edit",
        "vers_write",
        "vers_vms",
        "vers_swarm_wait",
        "bg_start",
    ] {
        assert!(
            names.iter().any(|name| name == there),
            "{there} is missing: {names:?}"
        );
    }
    for own in ["bash", "read", "edit", "write", "grep", "find", "ls"] {
        assert!(
            !names.iter().any(|name| name == own),
            "{own} is the client's own"
        );
    }
    for tool in new["tools"].as_array().unwrap() {
        assert_eq!(tool["inputSchema"]["type"], "object", "{tool}");
        assert!(tool["annotations"]["readOnlyHint"].is_boolean(), "{tool}");
        let text = tool.to_string();
        assert!(
            !text.contains("grep, find and ls"),
            "it names tools that are not here: {text}"
        );
    }
    let tool = |name: &str| {
        let all = new["tools"].as_array().unwrap();
        all.iter()
            .find(|tool| tool["name"] == name)
            .unwrap()
            .clone()
    };
    assert_eq!(tool("vers_vms")["annotations"]["readOnlyHint"], true);
    assert_eq!(
        tool("vers_vm_delete")["annotations"]["destructiveHint"],
        true
    );
    assert!(
        !tool("vers_bash")["description"]
            .as_str()
            .unwrap()
            .contains("else on the local machine")
    );
}

#[test]
fn a_call_fails_as_a_result_and_an_unknown_tool_as_an_error() {
    let home = Home::new();
    let mut client = Client::over_sockets(&home);
    let call = |name: &str, arguments: Value| json!({ "name": name, "arguments": arguments });
    let result = client.modern(
        1,
        "tools/call",
        call("vers_bash", json!({ "command": "id" })),
    );
    assert_eq!(
        (&result["isError"], &result["resultType"]),
        (&json!(true), &json!("complete"))
    );
    assert!(said(&result).starts_with("No VM is active"), "{result}");
    let result = client.modern(2, "tools/call", call("vers_bash", json!({ "comand": 1 })));
    assert_eq!(result["isError"], true);
    assert!(
        said(&result).starts_with("The arguments do not fit"),
        "{result}"
    );
    // A connection that began without `initialize` needs to say who it is in each request.
    let mut client = Client::over_sockets(&home);
    client.initialize("2025-11-25");
    for unknown in ["bash", "vers_nothing", ""] {
        let answer = client.ask(3, "tools/call", call(unknown, json!({})));
        assert_eq!(answer["error"]["code"], -32602, "{answer}");
    }
    let answer = client.ask(
        4,
        "tools/call",
        json!({ "name": "vers_vms", "arguments": [] }),
    );
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    let answer = client.ask(5, "tools/call", json!({}));
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
}

#[test]
fn what_is_no_message_is_refused_and_the_connection_goes_on() {
    let home = Home::new();
    let mut client = Client::new(&home);
    for (line, code) in [
        ("nonsense", -32700),
        ("[]", -32600),
        ("{\"jsonrpc\":\"2.0\"}", -32600),
    ] {
        client.raw(format!("{line}\n").as_bytes());
        assert_eq!(client.answer(&Value::Null)["error"]["code"], code, "{line}");
    }
    let mut huge = vec![b'x'; 33 << 20];
    huge.push(b'\n');
    client.raw(&huge);
    assert_eq!(client.answer(&Value::Null)["error"]["code"], -32600);
    client.initialize("2025-11-25");
    let answer = client.ask(1, "no/such", json!({}));
    assert_eq!(answer["error"]["code"], -32601);
    let other = json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": "2031-01-01" } });
    let answer = client.ask(2, "tools/list", other);
    assert_eq!(answer["error"]["code"], -32022);
    assert_eq!(answer["error"]["data"]["requested"], "2031-01-01");
    assert_eq!(client.ask(3, "ping", json!({}))["result"], json!({}));
    // There is no ping in the new era.
    let answer = client.ask(4, "ping", json!({ "_meta": meta() }));
    assert_eq!(answer["error"]["code"], -32601);
    // Half a line is none.
    client.raw(b"{\"jsonrpc\":\"2.0\",\"id\":9,\"method\":\"ping\"");
    let since = Instant::now();
    client.input = None;
    assert!(
        client.lines.recv_timeout(DEADLINE).is_err(),
        "half a line was answered"
    );
    client.ended(since);
}

#[test]
fn a_cancelled_call_gets_no_answer_and_frees_its_id() {
    let (_home, mut client) = stuck();
    client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "stuck" } }));
    // Its id can be used again once it is gone: until then this is refused.
    let deadline = Instant::now() + DEADLINE;
    loop {
        client.send(&json!({ "jsonrpc": "2.0", "id": "stuck", "method": "tools/list" }));
        let answer = client.answer(&json!("stuck"));
        if answer.get("result").is_some() {
            break;
        }
        assert_eq!(answer["error"]["code"], -32600, "{answer}");
        assert!(Instant::now() < deadline, "the call was not stopped");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(
        client.kept.iter().all(|message| message["id"] != "stuck"),
        "{:?}",
        client.kept
    );
}

#[test]
fn it_ends_at_once_with_a_call_and_a_listener_under_way() {
    for end in [None, Some(Signal::INT), Some(Signal::TERM)] {
        let (_home, mut client) = stuck();
        client.send(&json!({
            "jsonrpc": "2.0", "id": "listen:0", "method": "subscriptions/listen",
            "params": { "_meta": meta(), "notifications": { "toolsListChanged": true } },
        }));
        let told = client.next("acknowledgement", |message| {
            message["method"] == "notifications/subscriptions/acknowledged"
        });
        assert_eq!(
            told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"],
            "listen:0"
        );
        assert_eq!(
            told["params"]["notifications"],
            json!({ "toolsListChanged": true })
        );
        let since = Instant::now();
        match end {
            None => client.input = None,
            Some(signal) => {
                let pid = Pid::from_raw(i32::try_from(client.child.id()).unwrap()).unwrap();
                kill_process(pid, signal).unwrap();
            }
        }
        let took = client.ended(since);
        assert!(took < END, "{end:?}: it took {took:?}");
    }
}

#[test]
fn it_answers_and_ends_before_extensions_are_loaded() {
    let home = Home::new();
    let mut command = home.command(["mcp"]);
    // A cache of its own: everything has to be compiled.
    command.env("XDG_CACHE_HOME", home.path("cache"));
    let mut child = Client::spawn(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut client = Client::of(child, Box::new(input), output);
    client.initialize("2025-11-25");
    client.send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "vers_vms" } }));
    client.ask(2, "ping", json!({}));
    assert!(
        client.kept.is_empty(),
        "the call did not wait: {:?}",
        client.kept
    );
    let since = Instant::now();
    client.input = None;
    let took = client.ended(since);
    assert!(took < END, "it took {took:?}");
}

#[test]
fn what_was_listed_before_is_listed_at_once() {
    let home = Home::new();
    let list = || {
        let mut client = Client::new(&home);
        client.initialize("2025-11-25");
        client.ask(1, "tools/list", json!({}))["result"].take()
    };
    let first = list();
    let kept = std::fs::read_dir(
        std::path::Path::new(common::BINARY).with_file_name("pi-vers-test-cache/pi-vers/mcp"),
    );
    assert!(kept.unwrap().count() > 0, "nothing is kept");
    assert_eq!(list(), first);
}

#[test]
fn commands_are_prompts_and_the_status_is_a_resource() {
    let home = Home::new();
    let mut client = Client::new(&home);
    let prompts = client.modern(1, "prompts/list", json!({}));
    let names = names(&prompts, "prompts");
    assert!(
        names.is_sorted() && names.iter().any(|name| name == "vers"),
        "{names:?}"
    );
    let resources = client.modern(2, "resources/list", json!({}));
    assert_eq!(resources["resources"][0]["uri"], "pi-vers://status");
    let read = client.modern(3, "resources/read", json!({ "uri": "pi-vers://status" }));
    assert_eq!(read["contents"][0]["uri"], "pi-vers://status");
    let unknown = json!({ "uri": "pi-vers://nothing", "_meta": meta() });
    assert_eq!(
        client.ask(4, "resources/read", unknown)["error"]["code"],
        -32602
    );
    let mut client = Client::new(&home);
    client.initialize("2025-11-25");
    let unknown = json!({ "uri": "pi-vers://nothing" });
    assert_eq!(
        client.ask(5, "resources/read", unknown)["error"]["code"],
        -32002
    );
    let answer = client.ask(6, "prompts/get", json!({ "name": "nothing" }));
    assert_eq!(answer["error"]["code"], -32602);
}

/// The guest of the host's tests, with the right to ask.
fn unruly(home: &Home) -> Client {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let target = std::path::Path::new(common::BINARY).with_file_name("../fixtures");
    let mut build = Command::new(env!("CARGO"));
    build
        .current_dir(root.join("extensions"))
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_TARGET_DIR")
        .args([
            "build",
            "--release",
            "--locked",
            "--target",
            "wasm32-wasip2",
            "-p",
            "unruly",
            "-p",
            "crew",
            "--target-dir",
        ])
        .arg(&target);
    let built = build.output().unwrap();
    assert!(
        built.status.success(),
        "{}",
        String::from_utf8_lossy(&built.stderr)
    );
    let guest = target.join("wasm32-wasip2/release/unruly.wasm");
    let digest = sha256(&std::fs::read(&guest).unwrap());
    let grants = format!("[extension.unruly]\ndigest = \"sha256:{digest}\"\nui = [\"confirm\"]\n");
    let policy = home.write("policy.toml", grants);
    let (guest, policy) = (guest.to_str().unwrap(), policy.to_str().unwrap());
    Client::with(home, &["mcp", "-e", guest, "--policy", policy])
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(bytes);
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn confirm(yes: bool) -> Value {
    json!({ "action": "accept", "content": { "answer": yes } })
}

#[test]
fn a_dialog_is_asked_in_both_eras_and_a_ticket_works_once_for_the_same_call() {
    let home = Home::new();
    let mut client = unruly(&home);
    let call = json!({ "name": "ask", "arguments": { "text": "Sure?", "n": 600_000 } });
    let with = |ticket: &Value, answer: Option<Value>| {
        let mut call = call.clone();
        call["requestState"] = ticket.clone();
        if let Some(answer) = answer {
            call["inputResponses"] = json!({ "answer": answer });
        }
        call
    };
    let first = client.modern(1, "tools/call", call.clone());
    assert_eq!(first["resultType"], "input_required", "{first}");
    let asked = &first["inputRequests"]["answer"];
    assert_eq!(asked["method"], "elicitation/create");
    assert!(
        asked["params"]["message"]
            .as_str()
            .unwrap()
            .starts_with("Sure?")
    );
    // Forged, or for another call: refused, and the call still waits.
    let mut other = with(&first["requestState"], Some(confirm(true)));
    other["arguments"]["text"] = "Else?".into();
    let mut forged = with(&json!("x.y"), None);
    for wrong in [&mut other, &mut forged] {
        wrong["_meta"] = meta();
        assert_eq!(
            client.ask(2, "tools/call", wrong.take())["error"]["code"],
            -32602
        );
    }
    // Nonsense is asked for again, with another ticket.
    let again = client.modern(
        3,
        "tools/call",
        with(&first["requestState"], Some(json!({ "action": 1 }))),
    );
    assert_eq!(again["resultType"], "input_required", "{again}");
    let ticket = &again["requestState"];
    let done = client.modern(4, "tools/call", with(ticket, Some(confirm(true))));
    assert_eq!(
        (said(&done), &done["resultType"]),
        ("Some(true)", &json!("complete"))
    );
    let late = client.modern(5, "tools/call", with(ticket, Some(confirm(true))));
    assert_eq!(late["isError"], true, "{late}");

    let mut client = unruly(&home);
    client.initialize("2025-06-18");
    for (id, answer, result) in [
        (6, confirm(false), "Some(false)"),
        (7, json!({ "action": "decline" }), "None"),
    ] {
        client.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call }));
        let asked = client.next("question", |message| {
            message["method"] == "elicitation/create"
        });
        client.send(&json!({ "jsonrpc": "2.0", "id": asked["id"], "result": answer }));
        assert_eq!(said(&client.answer(&json!(id))["result"]), result);
    }
}

#[test]
fn a_question_is_taken_back_with_its_call() {
    let home = Home::new();
    let mut client = unruly(&home);
    client.initialize("2025-11-25");
    let call = json!({ "name": "ask", "arguments": { "text": "Sure?", "n": 600_000 } });
    client.send(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call }));
    let asked = client.next("question", |message| {
        message["method"] == "elicitation/create"
    });
    client.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } }));
    client.next("cancel of the question", |message| {
        message["method"] == "notifications/cancelled"
            && message["params"]["requestId"] == asked["id"]
    });
}

#[test]
fn a_client_without_forms_is_asked_nothing() {
    let home = Home::new();
    let mut client = unruly(&home);
    let mut call = json!({ "name": "ask", "arguments": { "text": "Sure?", "n": 600_000 } });
    call["_meta"] = meta();
    call["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let result = client.ask(1, "tools/call", call)["result"].take();
    assert_eq!(said(&result), "None", "{result}");
}

#[test]
fn a_guest_that_only_computes_delays_no_ping_and_no_end() {
    let home = Home::new();
    let mut client = unruly(&home);
    client.initialize("2025-11-25");
    client.ask(
        1,
        "tools/call",
        json!({ "name": "nothing", "arguments": {} }),
    );
    for id in 2..5 {
        let call = json!({ "name": "spin", "arguments": {} });
        client.send(&json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call }));
    }
    client.ask(9, "ping", json!({}));
    let since = Instant::now();
    client.input = None;
    let took = client.ended(since);
    assert!(took < END, "it took {took:?}");
}

#[test]
fn an_extension_that_changes_is_loaded_anew_and_the_client_is_told() {
    let home = Home::new();
    // The guests are built.
    drop(unruly(&home));
    let guests =
        std::path::Path::new(common::BINARY).with_file_name("../fixtures/wasm32-wasip2/release");
    let file = home.path("mine.wasm");
    std::fs::copy(guests.join("unruly.wasm"), &file).unwrap();
    let mut client = Client::with(&home, &["mcp", "--watch", "-e", file.to_str().unwrap()]);
    client.initialize("2025-11-25");
    let list = |client: &mut Client, id| {
        let list = client.ask(id, "tools/list", json!({}))["result"].take();
        names(&list, "tools")
    };
    let before = list(&mut client, 1);
    assert!(before.iter().any(|name| name == "spin"), "{before:?}");
    // It is loaded: a list is there before that.
    client.ask(
        9,
        "tools/call",
        json!({ "name": "nothing", "arguments": {} }),
    );
    // A call that nobody ends is ended with its extension.
    let call = json!({ "name": "spin", "arguments": {} });
    client.send(&json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call }));
    // What is no component changes nothing.
    std::fs::write(&file, "no component").unwrap();
    let new = home.path("new.wasm");
    std::fs::copy(guests.join("crew.wasm"), &new).unwrap();
    std::fs::rename(&new, &file).unwrap();
    client.next("news of tools", |message| {
        message["method"] == "notifications/tools/list_changed"
    });
    assert_eq!(client.answer(&json!(2))["result"]["isError"], true);
    let after = list(&mut client, 3);
    assert!(!after.iter().any(|name| name == "spin"), "{after:?}");
    assert_ne!(before, after);
}
