//! The scripted agent, through the binary: what a driver of agents sees is what it would see of pi.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use common::Home;
use serde_json::{Value, json};

/// Generous: only a hang reaches it.
const LONG: Duration = Duration::from_secs(30);

/// A scripted agent that runs.
struct Pi {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// All that was heard.
    log: Vec<Value>,
    noise: Vec<String>,
}

impl Pi {
    fn start(home: &Home, words: &[&str]) -> Self {
        let mut command = home.command(["scripted-agent", "--mode", "rpc"]);
        command.args(words).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
            log: Vec::new(),
            noise: Vec::new(),
        }
    }

    fn send(&mut self, command: Value) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{command}\n").as_bytes()).unwrap();
    }

    /// The next frame.
    fn next(&mut self) -> Value {
        loop {
            let line = self
                .lines
                .recv_timeout(LONG)
                .unwrap_or_else(|why| panic!("{why}: {:#?}", self.kinds()));
            match serde_json::from_str::<Value>(&line) {
                Ok(frame) => {
                    self.log.push(frame.clone());
                    return frame;
                }
                Err(_) => self.noise.push(line),
            }
        }
    }

    fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self.next();
            if fits(&frame) {
                return frame;
            }
        }
    }

    fn event(&mut self, kind: &str) -> Value {
        self.until(|frame| frame["type"] == kind)
    }

    /// Sends a command, and waits for its response.
    fn ask(&mut self, mut command: Value) -> Value {
        let id = format!("q{}", self.log.len());
        command["id"] = id.clone().into();
        self.send(command);
        self.until(|frame| frame["type"] == "response" && frame["id"] == id)
    }

    /// What the agent says to a prompt, up to `agent_end`; the text, and how its last message ended.
    fn prompt(&mut self, message: &str) -> (String, String) {
        let response = self.ask(json!({ "type": "prompt", "message": message }));
        assert_eq!(response["success"], true, "{response}");
        let from = self.log.len();
        self.event("agent_end");
        self.told(from)
    }

    /// The text that was said since, and how the last message ended.
    fn told(&self, from: usize) -> (String, String) {
        let frames = &self.log[from..];
        let text = frames
            .iter()
            .filter(|frame| frame["assistantMessageEvent"]["type"] == "text_delta")
            .filter_map(|frame| frame["assistantMessageEvent"]["delta"].as_str())
            .collect();
        let stop = frames
            .iter()
            .rev()
            .find(|frame| frame["type"] == "message_end" && frame["message"]["role"] == "assistant")
            .map(|frame| frame["message"]["stopReason"].as_str().unwrap().to_owned());
        (text, stop.unwrap_or_default())
    }

    fn state(&mut self) -> Value {
        self.ask(json!({ "type": "get_state" }))["data"].clone()
    }

    fn kinds(&self) -> Vec<&str> {
        self.log
            .iter()
            .map(|frame| frame["type"].as_str().unwrap_or("?"))
            .collect()
    }

    /// The end of the input; its exit code.
    fn close(mut self) -> Option<i32> {
        drop(self.stdin.take());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Pi {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn alive(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}

fn eventually_gone(pid: &str) {
    let begun = std::time::Instant::now();
    while alive(pid) {
        assert!(begun.elapsed() < LONG, "process {pid} still runs");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_run_has_pis_events_in_pis_order() {
    let home = Home::new();
    let mut pi = Pi::start(&home, &["--no-session"]);
    let (text, stop) = pi.prompt("say hello\nrun echo one; echo two >&2; exit 3\nsay bye");
    assert_eq!(
        text,
        "hello\n$ echo one; echo two >&2; exit 3\none\ntwo\n[exit code: 3]\nbye\n"
    );
    assert_eq!(stop, "stop");
    let mut kinds = pi.kinds();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "response",
            "agent_start",
            "turn_start",
            // The user's, and the agent's.
            "message_start",
            "message_end",
            "message_start",
            "message_update",
            "message_end",
            "tool_execution_start",
            "tool_execution_update",
            "tool_execution_end",
            "message_start",
            "message_end",
            "turn_end",
            "turn_start",
            "message_start",
            "message_update",
            "message_end",
            "turn_end",
            "agent_end",
        ]
    );
    let tool = pi
        .log
        .iter()
        .find(|frame| frame["type"] == "tool_execution_end")
        .unwrap();
    assert_eq!(tool["isError"], true);
    let end = pi.log.last().unwrap();
    let roles: Vec<&str> = end["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant", "toolResult", "assistant"]);
    let last = pi.ask(json!({ "type": "get_last_assistant_text" }));
    assert!(last["data"]["text"].as_str().unwrap().ends_with("bye\n"));
    let stats = pi.ask(json!({ "type": "get_session_stats" }))["data"].clone();
    assert_eq!(
        (
            &stats["toolCalls"],
            &stats["toolResults"],
            &stats["userMessages"],
            &stats["totalMessages"]
        ),
        (&json!(1), &json!(1), &json!(1), &json!(4))
    );
    assert_eq!(pi.close(), Some(0));
}

#[test]
fn get_state_has_pis_fields() {
    let home = Home::new();
    let mut pi = Pi::start(&home, &["--session-dir", "sessions"]);
    let state = pi.state();
    for (name, value) in [
        ("isStreaming", json!(false)),
        ("isCompacting", json!(false)),
        ("thinkingLevel", json!("off")),
        ("steeringMode", json!("one-at-a-time")),
        ("followUpMode", json!("one-at-a-time")),
        ("autoCompactionEnabled", json!(true)),
        ("messageCount", json!(0)),
        ("pendingMessageCount", json!(0)),
    ] {
        assert_eq!(state[name], value, "{name}");
    }
    assert_eq!(state["model"]["provider"], "scripted");
    assert!(state["sessionId"].is_string() && state["sessionFile"].is_string());
    let mut pi = Pi::start(&home, &["--no-session"]);
    assert!(pi.state().get("sessionFile").is_none());
}

#[test]
fn a_prompt_to_a_busy_agent_needs_to_say_how() {
    let home = Home::new();
    let mut pi = Pi::start(&home, &["--no-session"]);
    pi.ask(json!({ "type": "prompt", "message": "hang" }));
    assert_eq!(pi.state()["isStreaming"], true);
    let refused = pi.ask(json!({ "type": "prompt", "message": "say two" }));
    assert_eq!(refused["success"], false);
    assert!(
        refused["error"]
            .as_str()
            .unwrap()
            .starts_with("Agent is already processing.")
    );
    let queued = pi
        .ask(json!({ "type": "prompt", "message": "say three", "streamingBehavior": "followUp" }));
    assert_eq!(queued["success"], true);
    assert_eq!(pi.state()["pendingMessageCount"], 1);
    let from = pi.log.len();
    assert_eq!(pi.ask(json!({ "type": "abort" }))["success"], true);
    assert_eq!(pi.told(from).1, "aborted");
    // As in pi what was queued waits for the next prompt.
    assert_eq!(pi.state()["pendingMessageCount"], 1);
    let (text, _) = pi.prompt("say four");
    assert_eq!(text, "four\nthree\n");
}

#[test]
fn steering_is_heard_after_the_tool_call_and_takes_the_place_of_the_rest() {
    let home = Home::new();
    let mut pi = Pi::start(&home, &["--no-session"]);
    pi.ask(json!({ "type": "bash", "command": "mkfifo gate" }));
    let prompt = "run read -r line < gate; echo opened\nsay not this";
    pi.ask(json!({ "type": "prompt", "message": prompt }));
    pi.event("tool_execution_start");
    let from = pi.log.len();
    pi.ask(json!({ "type": "steer", "message": "say steered" }));
    pi.ask(json!({ "type": "follow_up", "message": "say followed" }));
    assert_eq!(pi.told(from).0, "", "the command still waits");
    std::fs::write(home.path("work/gate"), "open\n").unwrap();
    pi.event("agent_end");
    let (text, _) = pi.told(from);
    assert!(
        text.ends_with("opened\n[exit code: 0]\nsteered\nfollowed\n"),
        "{text}"
    );
}

#[test]
fn a_late_refusal_is_a_second_response_with_the_same_id() {
    let home = Home::new();
    let mut pi = Pi::start(&home, &["--no-session"]);
    let first = pi.ask(json!({ "type": "prompt", "message": "refuse no key for this" }));
    assert_eq!(first["success"], true);
    let second = pi.until(|frame| frame["type"] == "response");
    assert_eq!(
        (&second["id"], &second["success"]),
        (&first["id"], &json!(false))
    );
    assert_eq!(second["error"], "no key for this");
    let only = pi.ask(json!({ "type": "prompt", "message": "reject no" }));
    assert_eq!(only["success"], false);
    assert_eq!(pi.state()["isStreaming"], false);
}

#[test]
fn retries_and_compactions_go_on_after_agent_end() {
    let home = Home::new();
    let mut pi = Pi::start(&home, &["--no-session"]);
    let (_, stop) = pi.prompt("say before\nretry 2 1\nsay after");
    assert_eq!(stop, "error");
    let from = pi.log.len();
    let success = pi.event("auto_retry_end");
    assert_eq!(
        (&success["success"], &success["attempt"]),
        (&json!(true), &json!(2))
    );
    pi.event("agent_end");
    assert_eq!(pi.told(from), ("after\n".to_owned(), "stop".to_owned()));

    pi.prompt("retry 4 1");
    let failed = pi.event("auto_retry_end");
    assert_eq!(
        (&failed["success"], &failed["attempt"]),
        (&json!(false), &json!(3))
    );

    let (_, stop) = pi.prompt("compact overflow\nsay gone on");
    assert_eq!(stop, "error");
    assert_eq!(pi.event("compaction_start")["reason"], "overflow");
    assert_eq!(pi.event("compaction_end")["willRetry"], true);
    let from = pi.log.len();
    pi.event("agent_end");
    assert_eq!(pi.told(from).0, "gone on\n");

    pi.prompt("compact punkin\nsay all");
    assert_eq!(pi.event("auto_compaction_end")["willRetry"], false);

    let (_, stop) = pi.prompt("fail no credit");
    assert_eq!(stop, "error");
    assert_eq!(
        pi.log.last().unwrap()["messages"][1]["errorMessage"],
        "no credit"
    );
}

#[test]
fn a_retry_that_is_waited_for_ends_with_an_abort() {
    let home = Home::new();
    let mut pi = Pi::start(&home, &["--no-session"]);
    pi.prompt("retry 1 3600000");
    pi.event("auto_retry_start");
    assert_eq!(pi.state()["isStreaming"], false);
    pi.send(json!({ "type": "abort", "id": "a" }));
    assert_eq!(pi.event("auto_retry_end")["finalError"], "Retry cancelled");
    pi.until(|frame| frame["id"] == "a");
    assert_eq!(pi.prompt("say on").0, "on\n");
}

#[test]
fn a_command_that_is_aborted_leaves_nothing_running() {
    let home = Home::new();
    let mut pi = Pi::start(&home, &["--no-session"]);
    pi.ask(json!({ "type": "prompt", "message": "stream sleep 1000 & echo $!; wait" }));
    let said = pi.until(|frame| frame["assistantMessageEvent"]["type"] == "text_delta");
    let pid = said["assistantMessageEvent"]["delta"]
        .as_str()
        .unwrap()
        .trim()
        .to_owned();
    assert!(alive(&pid));
    pi.ask(json!({ "type": "abort" }));
    assert!(!alive(&pid), "it still runs");
    assert_eq!(pi.told(0).1, "aborted");

    // The same at the end of the input, and in pi's own `bash`.
    pi.send(json!({ "type": "bash", "id": "b", "command": "sleep 1000 & echo $! > pid; wait" }));
    let file = home.path("work/pid");
    let begun = std::time::Instant::now();
    let pid = loop {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if text.ends_with('\n') {
            break text.trim().to_owned();
        }
        assert!(begun.elapsed() < LONG);
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(pi.close(), Some(0));
    eventually_gone(&pid);
}

#[test]
fn bash_hands_back_output_and_exit_code() {
    let home = Home::new();
    let mut pi = Pi::start(&home, &["--no-session"]);
    let ran = pi.ask(json!({ "type": "bash", "command": "echo out; exit 4" }));
    assert_eq!(
        ran["data"],
        json!({ "output": "out\n", "exitCode": 4, "cancelled": false, "truncated": false })
    );
}

#[test]
fn a_crash_writes_what_was_said_and_nothing_more() {
    let home = Home::new();
    for (line, code) in [
        ("crash 42", Some(42)),
        ("kill KILL", None),
        ("kill SEGV", None),
    ] {
        let mut pi = Pi::start(&home, &["--no-session"]);
        pi.ask(
            json!({ "type": "prompt", "message": format!("say last words\n{line}\nsay never") }),
        );
        let status = pi.child.wait().unwrap();
        assert_eq!(status.code(), code, "{line}");
        while let Ok(line) = pi.lines.recv() {
            pi.log.push(serde_json::from_str(&line).unwrap());
        }
        assert_eq!(pi.told(0).0, "last words\n");
        assert!(!pi.kinds().contains(&"agent_end"), "{line}");
    }
}

#[test]
fn signals_end_it_with_pis_codes() {
    let home = Home::new();
    for (signal, code) in [
        (rustix::process::Signal::TERM, 143),
        (rustix::process::Signal::HUP, 129),
    ] {
        let mut pi = Pi::start(&home, &["--no-session"]);
        pi.state();
        let pid = rustix::process::Pid::from_child(&pi.child);
        rustix::process::kill_process(pid, signal).unwrap();
        assert_eq!(pi.child.wait().unwrap().code(), Some(code));
    }
}

#[test]
fn dialogs_wait_for_their_answer() {
    let home = Home::new();
    let mut pi = Pi::start(&home, &["--no-session"]);
    for (line, method, answer, says) in [
        (
            "ask confirm Sure?",
            "confirm",
            json!({ "confirmed": true }),
            "answer: yes\n",
        ),
        (
            "ask select Which? | a | b",
            "select",
            json!({ "value": "b" }),
            "answer: b\n",
        ),
        (
            "ask input Name?",
            "input",
            json!({ "value": "x y" }),
            "answer: x y\n",
        ),
        (
            "ask editor Text?",
            "editor",
            json!({ "cancelled": true }),
            "answer: cancelled\n",
        ),
    ] {
        pi.ask(json!({ "type": "prompt", "message": line }));
        let from = pi.log.len();
        let dialog = pi.event("extension_ui_request");
        assert_eq!(dialog["method"], method);
        pi.send(
            json!({ "type": "extension_ui_response", "id": "somebody else's", "confirmed": false }),
        );
        let mut response = json!({ "type": "extension_ui_response", "id": dialog["id"] });
        response
            .as_object_mut()
            .unwrap()
            .extend(answer.as_object().unwrap().clone());
        pi.send(response);
        pi.event("agent_end");
        assert_eq!(pi.told(from).0, says);
    }
    let (text, _) = pi.prompt("notify look here\nnoise this is {no json\nsay x");
    assert_eq!(text, "x\n");
    assert_eq!(pi.noise, ["this is {no json"]);
    assert!(
        pi.log
            .iter()
            .any(|frame| frame["method"] == "notify" && frame["message"] == "look here")
    );
}

#[test]
fn only_models_with_a_key_can_be_set_and_a_prompt_sent_at_once_has_the_old_one() {
    let mut home = Home::new();
    let mut pi = Pi::start(&home, &["--no-session"]);
    let refused = pi.ask(
        json!({ "type": "set_model", "provider": "vers", "modelId": "claude-opus-4-6-thinking" }),
    );
    assert_eq!(
        refused["error"],
        "Model not found: vers/claude-opus-4-6-thinking"
    );
    drop(pi);
    home.set("LLM_PROXY_KEY", "sk-vers-of-a-test");
    let mut pi = Pi::start(&home, &["--no-session"]);
    pi.send(json!({ "type": "set_model", "id": "m", "provider": "vers", "modelId": "claude-opus-4-6-thinking" }));
    let (text, _) = pi.prompt("model");
    assert_eq!(text, "model: scripted/scripted-1\n");
    if !pi.log.iter().any(|frame| frame["id"] == "m") {
        assert_eq!(pi.until(|frame| frame["id"] == "m")["success"], true);
    }
    let (text, _) = pi.prompt("model\nenv LLM_PROXY_KEY\nenv NOT_SET");
    // `printf sk-vers-of-a-test | sha256sum`
    assert_eq!(
        text,
        "model: vers/claude-opus-4-6-thinking\nLLM_PROXY_KEY is set, sha256 52ecf580c260\nNOT_SET is not set\n"
    );
    drop(pi);
    let ran = home.run(["scripted-agent", "--mode", "rpc", "--model", "nothing-9"]);
    assert_eq!(ran.code, 1);
    assert!(ran.line().contains("Model \"nothing-9\" not found"));
}

#[test]
fn a_session_goes_on_only_when_it_is_asked_to() {
    let home = Home::new();
    let prompt = home.write("prompt.md", "You are tested.");
    let prompt = prompt.to_str().unwrap();
    let words = ["--session-dir", "sessions", "--system-prompt", prompt];
    let mut pi = Pi::start(&home, &words);
    assert_eq!(
        pi.prompt("count\nprompt").0,
        "prompt 1 of this session\nYou are tested.\n"
    );
    let id = pi.state()["sessionId"].clone();
    drop(pi);
    let mut pi = Pi::start(&home, &["--session-dir", "sessions", "--continue"]);
    assert_eq!(pi.state()["sessionId"], id);
    let last = pi.ask(json!({ "type": "get_last_assistant_text" }));
    assert!(
        last["data"]["text"]
            .as_str()
            .unwrap()
            .contains("You are tested.")
    );
    assert_eq!(pi.prompt("count").0, "prompt 2 of this session\n");
    assert_eq!(
        pi.ask(json!({ "type": "new_session" }))["data"]["cancelled"],
        false
    );
    assert_ne!(pi.state()["sessionId"], id);
    assert_eq!(pi.prompt("count").0, "prompt 1 of this session\n");
    let mut pi = Pi::start(&home, &["--session-dir", "sessions"]);
    assert_eq!(pi.prompt("count").0, "prompt 1 of this session\n");
}

#[test]
fn what_is_no_command_is_told() {
    let home = Home::new();
    let mut pi = Pi::start(&home, &["--no-session"]);
    pi.stdin
        .as_mut()
        .unwrap()
        .write_all(b"{no json\n[]\n")
        .unwrap();
    for _ in 0..2 {
        let told = pi.next();
        assert_eq!(
            (&told["command"], &told["success"]),
            (&json!("parse"), &json!(false))
        );
        assert!(told.get("id").is_none());
    }
    pi.send(json!({ "type": "dance", "id": 7 }));
    let told = pi.next();
    assert_eq!(told["error"], "Unknown command: dance");
    assert!(told.get("id").is_none(), "pi leaves the id out: {told}");
    let (text, _) = pi.prompt("What is the weather like?");
    assert_eq!(text, "You said: What is the weather like?\n");
    let (text, _) = pi.prompt("big 100000");
    assert_eq!(text.len(), 100_001);
}
