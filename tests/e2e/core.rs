//! `pi-vers core`: every method against the local platform.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use pi_vers_tests::{DEADLINE, Scratch, eventually, mark, traces};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A command that runs until it is stopped. It has the mark in its arguments: a script has none.
fn running(mark: &str) -> String {
    format!("sh -c ': {mark}; while :; do sleep 1; done'")
}

struct Core {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
    next: u64,
    /// Answers that came while another was waited for.
    answers: BTreeMap<u64, Value>,
    /// Output, by request: what came on each stream.
    output: Vec<Value>,
}

impl Core {
    fn start(scratch: &Scratch) -> Self {
        let mut child = Command::from(scratch.command())
            .args(["core", "--local"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the binary starts");
        let stdout = child.stdout.take().expect("piped");
        Self {
            stdin: child.stdin.take(),
            lines: BufReader::new(stdout).lines(),
            child,
            next: 0,
            answers: BTreeMap::new(),
            output: Vec::new(),
        }
    }

    async fn send(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("open");
        stdin.write_all(line.as_bytes()).await.unwrap();
        stdin.write_all(b"\n").await.unwrap();
    }

    async fn begin(&mut self, method: &str, params: Value) -> u64 {
        self.next += 1;
        let id = self.next;
        self.send(&json!({ "id": id, "method": method, "params": params }).to_string())
            .await;
        id
    }

    async fn frame(&mut self) -> Value {
        let line = tokio::time::timeout(DEADLINE, self.lines.next_line()).await;
        let line = line.expect("it says something").unwrap();
        serde_json::from_str(&line.expect("it has not ended")).unwrap()
    }

    async fn answer(&mut self, id: u64) -> Value {
        loop {
            if let Some(answer) = self.answers.remove(&id) {
                return answer;
            }
            let frame = self.frame().await;
            if frame.get("data").is_some() {
                self.output.push(frame);
            } else {
                self.answers.insert(frame["id"].as_u64().unwrap(), frame);
            }
        }
    }

    async fn result(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params).await;
        let answer = self.answer(id).await;
        assert!(answer.get("result").is_some(), "{method}: {answer}");
        answer["result"].clone()
    }

    async fn error(&mut self, method: &str, params: Value) -> Value {
        let id = self.begin(method, params).await;
        let answer = self.answer(id).await;
        assert!(answer.get("error").is_some(), "{method}: {answer}");
        answer["error"].clone()
    }

    async fn end(mut self) -> Option<i32> {
        self.stdin = None;
        let ended = tokio::time::timeout(Duration::from_secs(5), self.child.wait()).await;
        ended.expect("it ends in time").unwrap().code()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_method_does_what_the_document_says() {
    let scratch = Scratch::new();
    let endpoint = scratch.up().await;
    let mut core = Core::start(&scratch);
    let shape = json!({ "vcpu_count": 1, "mem_size_mib": 256, "fs_size_mib": 512 });
    let made = core
        .result("createRoot", json!({ "config": shape, "waitBoot": true }))
        .await;
    let vm = made["vm_id"].as_str().unwrap().to_owned();
    scratch.note();
    let on = |more: Value| {
        let mut params = json!({ "vmId": vm });
        for (name, value) in more.as_object().unwrap() {
            params[name] = value.clone();
        }
        params
    };
    assert_eq!(core.result("getState", on(json!({}))).await, "running");
    assert_eq!(
        core.result("listVms", Value::Null).await[0]["vm_id"],
        vm.as_str()
    );

    // Commands.
    let ran = core
        .result(
            "exec",
            on(json!({ "command": "echo out; echo err >&2; exit 3" })),
        )
        .await;
    assert_eq!(
        ran,
        json!({ "exitCode": 3, "stdout": "out\n", "stderr": "err\n" })
    );
    let late = core
        .error(
            "exec",
            on(json!({ "command": "sleep 600", "timeoutMs": 300.5 })),
        )
        .await;
    assert_eq!(late["kind"], "timed-out");
    let script = "set -e\nx='a b'\nprintf '%s' \"$x\"\n";
    assert_eq!(
        core.result("execScript", on(json!({ "script": script })))
            .await["stdout"],
        "a b"
    );
    let failed = core
        .error(
            "execScript",
            on(json!({ "script": "echo why >&2; exit 4" })),
        )
        .await;
    assert_eq!(failed["kind"], "failed");
    assert_eq!(
        failed["message"],
        format!("Remote script failed on {vm} (exit 4): why")
    );
    let huge = core
        .error(
            "exec",
            on(json!({ "command": "head -c 11000000 /dev/zero" })),
        )
        .await;
    assert_eq!(huge["kind"], "limit");
    let killed = core
        .result(
            "execStreaming",
            on(json!({ "command": "echo one; echo two >&2; kill -9 $$" })),
        )
        .await;
    assert_eq!(killed, json!({ "exitCode": null, "signal": "KILL" }));
    let mut streams: Vec<(String, String)> = core
        .output
        .drain(..)
        .map(|frame| {
            (
                frame["stream"].as_str().unwrap().to_owned(),
                frame["data"].as_str().unwrap().to_owned(),
            )
        })
        .collect();
    streams.sort();
    // base64 of "two\n" and "one\n"
    assert_eq!(
        streams,
        [
            ("stderr".into(), "dHdvCg==".into()),
            ("stdout".into(), "b25lCg==".into())
        ]
    );

    // Cancelled is stopped, and others go on beside it.
    let mark = mark();
    let id = core
        .begin("execStreaming", on(json!({ "command": running(&mark) })))
        .await;
    eventually("it runs", || !traces::marked(&mark).is_empty()).await;
    assert_eq!(
        core.result("exec", on(json!({ "command": "echo beside" })))
            .await["stdout"],
        "beside\n"
    );
    core.send(&json!({ "cancel": id }).to_string()).await;
    assert_eq!(core.answer(id).await["error"]["kind"], "cancelled");
    assert_eq!(traces::marked(&mark), Vec::<u32>::new());

    // A directory.
    let tree = scratch.work().join("tree");
    for file in ["a/b.txt", "node_modules/no.js", ".git/config", "dist/x"] {
        let file = tree.join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "content").unwrap();
    }
    let copied = core
        .result(
            "uploadDirectory",
            on(json!({ "localDir": tree, "remoteDir": "/srv/deep/tree" })),
        )
        .await;
    assert_eq!((&copied["files"], &copied["bytes"]), (&json!(1), &json!(7)));
    let found = core
        .result(
            "exec",
            on(json!({ "command": "cd /srv/deep/tree; find . -type f" })),
        )
        .await;
    assert_eq!(found["stdout"], "./a/b.txt\n");
    let none = core
        .error(
            "uploadDirectory",
            on(json!({ "localDir": scratch.work().join("none"), "remoteDir": "/x" })),
        )
        .await;
    assert!(
        none["message"]
            .as_str()
            .unwrap()
            .starts_with("Failed to upload "),
        "{none}"
    );

    // Snapshots.
    let commit = core
        .result("commit", on(json!({ "keepPaused": false })))
        .await["commit_id"]
        .clone();
    let copy = core
        .result("restoreFromCommit", json!({ "commitId": commit }))
        .await["vm_id"]
        .clone();
    let branches = core.result("branch", on(json!({}))).await;
    assert_eq!(branches["vm_id"], branches["vms"][0]["vm_id"]);
    scratch.note();
    let there = json!({ "vmId": copy, "command": "cat /srv/deep/tree/a/b.txt" });
    assert_eq!(core.result("exec", there).await["stdout"], "content");
    let page = core.result("listCommits", json!({ "limit": 10 })).await;
    assert!(
        page["commits"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["commit_id"] == commit)
    );
    assert_eq!(
        core.result("listPublicCommits", json!({})).await["commits"],
        json!([])
    );
    core.result(
        "setCommitPublic",
        json!({ "commitId": commit, "isPublic": true }),
    )
    .await;
    let public = core.result("listPublicCommits", json!({})).await;
    assert_eq!(public["commits"][0]["commit_id"], commit);

    // States, the disk, the way in.
    core.result("updateState", on(json!({ "state": "Paused" })))
        .await;
    assert_eq!(core.result("getState", on(json!({}))).await, "paused");
    core.result("updateState", on(json!({ "state": "Running" })))
        .await;
    assert_eq!(
        core.result("resizeDisk", on(json!({ "fsSizeMib": 600 })))
            .await,
        Value::Null
    );
    let key = core.result("ensureKeyFile", on(json!({}))).await;
    let arguments = core.result("sshArgs", on(json!({}))).await;
    let arguments: Vec<&str> = arguments
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap())
        .collect();
    assert!(arguments.contains(&key.as_str().unwrap()), "{arguments:?}");
    assert_eq!(
        core.result("ensureVersApiKey", Value::Null).await,
        endpoint.api_key.as_str()
    );
    assert_eq!(core.result("loadVersKeyFromDisk", Value::Null).await, "");

    // What is wrong is named, with the platform's status where there is one.
    let gone = core
        .error(
            "getState",
            json!({ "vmId": "00000000-0000-4000-8000-000000000001" }),
        )
        .await;
    assert_eq!(
        (&gone["kind"], &gone["status"]),
        (&json!("not-found"), &json!(404))
    );
    for (method, params) in [
        ("frobnicate", Value::Null),
        ("getState", Value::Null),
        ("getState", json!({ "vmId": "x" })),
        ("updateState", on(json!({ "state": "Asleep" }))),
        ("exec", on(json!({ "command": "true", "timeout": 1 }))),
    ] {
        assert_eq!(
            core.error(method, params).await["kind"],
            "invalid",
            "{method}"
        );
    }
    for vm in [&json!(vm), &copy, &branches["vm_id"]] {
        assert_eq!(
            core.result("delete", json!({ "vmId": vm })).await["vm_id"],
            *vm
        );
    }
    assert_eq!(core.end().await, Some(0));
    scratch.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_ends_with_the_input_and_a_line_that_is_no_request_ends_it_all() {
    let scratch = Scratch::new();
    scratch.up().await;
    let mut core = Core::start(&scratch);
    let vm = core.result("createRoot", json!({ "waitBoot": true })).await["vm_id"].clone();
    scratch.note();
    let mark = mark();
    let command = running(&mark);
    core.begin("exec", json!({ "vmId": vm, "command": command }))
        .await;
    eventually("it runs", || !traces::marked(&mark).is_empty()).await;
    assert_eq!(core.end().await, Some(0));
    eventually("it has stopped", || traces::marked(&mark).is_empty()).await;
    let mut core = Core::start(&scratch);
    core.send("what?").await;
    let ended = tokio::time::timeout(DEADLINE, core.child.wait()).await;
    assert_eq!(ended.expect("it ends").unwrap().code(), Some(2));
    scratch.end().await;
}
