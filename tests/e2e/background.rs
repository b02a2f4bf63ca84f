//! Background processes, on this machine and on a VM: started, watched, stopped, and gone with their session.

use std::time::Duration;

use pi_vers_host::{CallError, CallOptions};
use pi_vers_tests::{Scratch, eventually, mark, text, traces, without_ids};
use serde_json::{Value, json};

use crate::lab::Lab;

/// A server as far as tests need one: says what it does, line by line, and does not end.
fn server(mark: &str) -> String {
    format!(
        "echo starting; echo careful >&2; sleep 0.2; echo 'listening on port 80'; : {mark}; while :; do sleep 5; done"
    )
}

/// Processes that do not heed TERM, one of them put into the background.
fn stubborn(mark: &str) -> String {
    let child = format!("sh -c 'trap \"\" TERM; : {mark}; while :; do sleep 5; done'");
    format!("trap '' TERM; {child} & echo begun; : {mark}; while :; do sleep 5; done")
}

async fn runs(mark: &str, least: usize) {
    eventually("the process runs", || traces::marked(mark).len() >= least).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_started_watched_restarted_and_stopped() {
    let lab = Lab::new().await;
    for on in ["local", "vm"] {
        let (first, second) = (mark(), mark());
        let (started, details) = lab
            .ok(
                "bg_start",
                json!({ "id": "web", "command": server(&first), "waitFor": r"listening on port \d+", "on": on }),
            )
            .await;
        assert!(
            started.starts_with(
                "Process \"web\" started (running, ready)\nReady: listening on port 80\nPID: "
            ),
            "{started}"
        );
        assert!(
            started.ends_with(
                "--- stdout ---\nstarting\nlistening on port 80\n--- stderr ---\ncareful"
            ),
            "{started}"
        );
        assert_eq!(
            (
                &details["id"],
                &details["alive"],
                &details["ready"],
                &details["on"]
            ),
            (&json!("web"), &json!(true), &json!(true), &json!(on))
        );
        let expected = if on == "vm" {
            json!(lab.vm)
        } else {
            Value::Null
        };
        assert_eq!(details["vmId"], expected);
        assert_eq!(started.contains(&lab.vm), on == "vm", "{started}");

        // Other calls see it, long after the one that started it.
        let (logs, details) = lab.ok("bg_logs", json!({ "id": "web", "last": 1 })).await;
        assert_eq!(
            logs,
            "Process \"web\": RUNNING\n\n--- stdout (last 1) ---\nlistening on port 80\n\n--- stderr (last 1) ---\ncareful"
        );
        assert_eq!(details["dropped"], json!({ "stdout": 0, "stderr": 0 }));
        let (listed, details) = lab.ok("bg_list", json!({})).await;
        assert!(
            listed.starts_with("web: RUNNING | PID ") && listed.contains(" | uptime "),
            "{listed}"
        );
        assert_eq!(details["count"], 1);

        // The same id again: the first is gone when the second starts.
        let (started, _) = lab
            .ok(
                "bg_start",
                json!({ "id": "web", "command": server(&second), "waitFor": "listening", "on": on }),
            )
            .await;
        assert!(
            started.contains("\nThe process of this id that ran before was stopped first.\n"),
            "{started}"
        );
        assert_eq!(traces::marked(&first), Vec::<u32>::new());
        assert!(!traces::marked(&second).is_empty());

        let (stopped, details) = lab.ok("bg_stop", json!({ "id": "web" })).await;
        assert_eq!(stopped, "Process \"web\" stopped. It ended (signal: TERM).");
        assert_eq!(
            (
                &details["alive"],
                &details["signal"],
                &details["heeded"],
                &details["left"]
            ),
            (&json!(false), &json!("TERM"), &json!(true), &json!(0))
        );
        assert_eq!(traces::marked(&second), Vec::<u32>::new());
        let (again, _) = lab.ok("bg_stop", json!({ "id": "web" })).await;
        assert_eq!(again, "Process \"web\" already ended (signal: TERM)");
        // What it wrote can still be read.
        let (logs, _) = lab
            .ok("bg_logs", json!({ "id": "web", "stream": "stderr" }))
            .await;
        assert_eq!(
            logs,
            "Process \"web\": SIGNALED(TERM)\n\n--- stderr (last 50) ---\ncareful"
        );
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_told_as_they_were() {
    let lab = Lab::new().await;
    for on in ["local", "vm"] {
        for (command, head, state) in [
            ("exit 0", "exited (code: 0)", "EXITED(0)"),
            ("exit 137", "exited (code: 137)", "EXITED(137)"),
            ("no-such-program-here", "exited (code: 127)", "EXITED(127)"),
            ("kill -KILL $$", "ended (signal: KILL)", "SIGNALED(KILL)"),
            ("kill -SEGV $$", "ended (signal: SEGV)", "SIGNALED(SEGV)"),
        ] {
            let (started, details) = lab
                .ok(
                    "bg_start",
                    json!({ "id": "e", "command": command, "waitMs": 60_000, "on": on }),
                )
                .await;
            assert!(
                started.starts_with(&format!("Process \"e\" {head}\n")),
                "{command}: {started}"
            );
            assert_eq!(details["alive"], false);
            let (listed, _) = lab.ok("bg_list", json!({})).await;
            assert!(
                listed.starts_with(&format!("e: {state} | PID "))
                    && listed.contains("| uptime - |"),
                "{listed}"
            );
        }
        // What the command put into the background is the process, not the shell that started it.
        let m = mark();
        let (started, _) = lab
            .ok(
                "bg_start",
                json!({ "id": "e", "command": format!("sh -c 'echo up; : {m}; sleep 600; :' &"), "waitFor": "^up$", "on": on }),
            )
            .await;
        assert!(started.contains("(running, ready)"), "{started}");
        lab.ok("bg_stop", json!({ "id": "e" })).await;
        assert_eq!(traces::marked(&m), Vec::<u32>::new());

        // Readiness that does not come.
        let (early, details) = lab
            .ok(
                "bg_start",
                json!({ "id": "e", "command": "echo no; exit 3", "waitFor": "yes", "on": on }),
            )
            .await;
        assert!(
            early.starts_with("Process \"e\" exited (code: 3) before it was ready\n"),
            "{early}"
        );
        assert_eq!(
            (&details["ready"], &details["exitCode"]),
            (&json!(false), &json!(3))
        );
        let (late, details) = lab
            .ok("bg_start", json!({ "id": "e", "command": "sleep 600", "waitFor": "yes", "waitMs": 300, "on": on }))
            .await;
        assert!(
            late.starts_with("Process \"e\" started (running, not ready yet)\nNothing it wrote within 300 ms matches yes."),
            "{late}"
        );
        assert_eq!(
            (&details["ready"], &details["alive"]),
            (&json!(false), &json!(true))
        );
        lab.ok("bg_stop", json!({ "id": "e", "signal": "KILL" }))
            .await;
    }
    let unknown = lab.bench.failure("bg_logs", json!({ "id": "x" })).await;
    assert_eq!(unknown, "No process found with ID \"x\"");
    let unknown = lab.bench.failure("bg_stop", json!({ "id": "x" })).await;
    assert_eq!(unknown, "No process found with ID \"x\"");
    let odd = lab
        .bench
        .failure("bg_stop", json!({ "id": "e", "signal": "SIGWHAT" }))
        .await;
    assert!(
        odd.starts_with("There is no signal SIGWHAT. Use one of SIGTERM,"),
        "{odd}"
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_answers_before_its_caller_is_gone_and_still_looks_for_readiness() {
    let lab = Lab::new().await;
    for on in ["local", "vm"] {
        let ready = lab.scratch.work().join("ready");
        let flag = match on {
            "vm" => "/tmp/ready".to_owned(),
            _ => ready.display().to_string(),
        };
        let command = format!("while [ ! -e {flag} ]; do sleep 0.05; done; echo yes; sleep 600");
        let options = CallOptions {
            id: None,
            patience: Some(Duration::from_millis(500)),
        };
        let arguments =
            json!({ "id": "p", "command": command, "waitFor": "yes", "waitMs": 500_000, "on": on });
        let mut call = lab.bench.session.call_with(options, "bg_start", arguments);
        let output = call.outcome().await.unwrap();
        let text = output.text();
        assert!(
            text.starts_with("Process \"p\" started (running, not ready yet)\nNothing it wrote so far matches yes. It is still looked for: call bg_list"),
            "{text}"
        );
        assert_eq!(output.details.unwrap()["ready"], false);
        let (listed, _) = lab.ok("bg_list", json!({})).await;
        assert!(listed.contains("| not ready yet |"), "{listed}");
        match on {
            "vm" => drop(lab.bash("touch /tmp/ready").await),
            _ => std::fs::write(&ready, "").unwrap(),
        }
        let mut listed = String::new();
        for _ in 0..200 {
            listed = lab.ok("bg_list", json!({})).await.0;
            if listed.contains("| ready |") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(listed.contains("| ready |"), "{listed}");
        lab.ok("bg_stop", json!({ "id": "p", "signal": "KILL" }))
            .await;
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vm_is_named_before_the_caller_that_waits_for_its_boot_is_gone() {
    let lab = Lab::new().await;
    let options = CallOptions {
        id: None,
        patience: Some(Duration::ZERO),
    };
    let arguments = json!({ "wait_boot": true });
    let mut call = lab
        .bench
        .session
        .call_with(options.clone(), "vers_vm_create", arguments);
    let output = call.outcome().await.unwrap();
    let text = output.text();
    assert!(
        text.starts_with("VM created: ")
            && text.contains("It is still booting, by itself. Call vers_vm_use"),
        "{text}"
    );
    let vm = output.details.unwrap()["vm_id"].clone();
    let mut call = lab
        .bench
        .session
        .call_with(options, "vers_vm_use", json!({ "vmId": vm }));
    match call.outcome().await {
        Err(CallError::Failed(output)) => {
            let text = output.text();
            assert!(text.contains("Call vers_vm_use again"), "{text}");
        }
        other => panic!("{other:?}"),
    }
    lab.ok("vers_vm_use", json!({ "vmId": vm })).await;
    lab.ok("vers_vm_delete", json!({ "vmId": vm })).await;
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_heed_a_signal_is_killed_with_all_it_started() {
    let lab = Lab::new().await;
    for on in ["local", "vm"] {
        let m = mark();
        lab.ok(
            "bg_start",
            json!({ "id": "s", "command": stubborn(&m), "waitFor": "begun", "on": on }),
        )
        .await;
        runs(&m, 2).await;
        let (stopped, details) = lab.ok("bg_stop", json!({ "id": "s" })).await;
        assert_eq!(
            stopped,
            "Process \"s\" stopped. SIGTERM did not end it within 500 ms. It ended (signal: KILL)."
        );
        assert_eq!(details["heeded"], false);
        assert_eq!(traces::marked(&m), Vec::<u32>::new());
        // Another signal first: one that it heeds in its own way.
        let (_, _) = lab
            .ok(
                "bg_start",
                json!({ "id": "s", "command": "trap 'echo bye; exit 5' INT; echo set; while :; do sleep 0.1; done", "waitFor": "set", "on": on }),
            )
            .await;
        let (stopped, _) = lab
            .ok("bg_stop", json!({ "id": "s", "signal": "SIGINT" }))
            .await;
        assert_eq!(stopped, "Process \"s\" stopped. It exited (code: 5).");
        let (logs, _) = lab
            .ok("bg_logs", json!({ "id": "s", "stream": "stdout" }))
            .await;
        assert!(logs.ends_with("\nset\nbye"), "{logs}");
    }
    // One that left its group is found on a VM, and told.
    let m = mark();
    lab.ok(
        "bg_start",
        json!({ "id": "s", "command": format!("setsid sh -c 'echo away; : {m}; sleep 600; :' & sleep 600"), "waitFor": "away" }),
    )
    .await;
    let (stopped, details) = lab.ok("bg_stop", json!({ "id": "s" })).await;
    assert!(
        stopped.contains("process(es) that had left its group were killed, too."),
        "{stopped}"
    );
    assert_eq!(details["left"], 0);
    assert_eq!(traces::marked(&m), Vec::<u32>::new());
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_always_read_and_its_newest_lines_are_kept_whole() {
    let lab = Lab::new().await;
    for on in ["local", "vm"] {
        // Far more than any pipe or ring holds, and nobody asks for it: it still comes to its end.
        let (started, _) = lab
            .ok(
                "bg_start",
                json!({ "id": "o", "command": "seq 1 400000; echo the end", "waitFor": "^the end$", "waitMs": 60_000, "on": on }),
            )
            .await;
        assert!(started.contains("Ready: the end"), "{started}");
        let (logs, details) = lab
            .ok(
                "bg_logs",
                json!({ "id": "o", "last": 3, "stream": "stdout" }),
            )
            .await;
        let dropped = 400_001 - 2000;
        assert_eq!(
            logs.lines().skip(2).collect::<Vec<_>>(),
            [
                "--- stdout (last 3) ---",
                &format!(
                    "[{dropped} earlier line(s) dropped: the newest 2000 lines, 256.0KB at most, are kept]"
                ),
                "399999",
                "400000",
                "the end"
            ]
        );
        assert_eq!(details["dropped"], json!({ "stdout": dropped }));
        // A character and a line in pieces.
        let (_, _) = lab
            .ok(
                "bg_start",
                json!({ "id": "o", "command": r"printf 'pri\xe2\x82'; sleep 0.2; printf '\xacce: 3\n\xff\nope'; sleep 0.2; printf 'n'; exit 0", "waitMs": 60_000, "on": on }),
            )
            .await;
        let (logs, _) = lab
            .ok("bg_logs", json!({ "id": "o", "stream": "stdout" }))
            .await;
        assert!(
            logs.ends_with("--- stdout (last 50) ---\npri€ce: 3\n\u{fffd}\nopen"),
            "{logs}"
        );
    }
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_runs_where_bash_runs() {
    let lab = Lab::new().await;
    let here = lab.scratch.work();
    let here = here.to_str().unwrap();
    let start = async |arguments: Value| {
        let mut all = json!({ "id": "w", "command": "pwd; echo \"[$NAME]\"", "waitMs": 60_000 });
        all.as_object_mut()
            .unwrap()
            .extend(arguments.as_object().unwrap().clone());
        let (started, details) = lab.ok("bg_start", all).await;
        let said = started
            .split_once("--- stdout ---\n")
            .unwrap_or_else(|| panic!("{started}"))
            .1
            .to_owned();
        (said, details["on"].as_str().unwrap().to_owned())
    };
    let on = |said: &str, on: &str| (said.to_owned(), on.to_owned());
    assert_eq!(start(json!({})).await, on("/root\n[]", "vm"));
    // The directory that the session's commands left behind, also when the command came just before.
    lab.bash("mkdir -p '/srv/a b/sub' && cd '/srv/a b'").await;
    assert_eq!(start(json!({})).await, on("/srv/a b\n[]", "vm"));
    assert_eq!(
        start(json!({ "cwd": "sub" })).await,
        on("/srv/a b/sub\n[]", "vm")
    );
    assert_eq!(start(json!({ "cwd": "~" })).await, on("/root\n[]", "vm"));
    assert_eq!(
        start(json!({ "env": { "NAME": "a 'b' $c" } })).await,
        on("/srv/a b\n[a 'b' $c]", "vm")
    );
    assert_eq!(
        start(json!({ "on": "local" })).await,
        on(&format!("{here}\n[]"), "local")
    );
    // Back and forth: never the one before.
    for _ in 0..5 {
        lab.ok("vers_vm_local", json!({})).await;
        assert_eq!(
            start(json!({ "env": { "NAME": "x" } })).await,
            on(&format!("{here}\n[x]"), "local")
        );
        lab.ok("vers_vm_use", json!({ "vmId": lab.vm })).await;
        assert_eq!(start(json!({})).await, on("/srv/a b\n[]", "vm"));
    }
    lab.ok("vers_vm_local", json!({})).await;
    assert_eq!(start(json!({ "cwd": "/" })).await, on("/\n[]", "local"));
    let none = lab
        .bench
        .failure(
            "bg_start",
            json!({ "id": "w", "command": "true", "on": "vm" }),
        )
        .await;
    assert_eq!(
        none,
        "No VM is active. Choose one with vers_vm_use, or leave on away to run it on this machine."
    );
    let port = lab
        .bench
        .failure(
            "bg_start",
            json!({ "id": "w", "command": "true", "forwardPort": 80 }),
        )
        .await;
    assert!(port.starts_with("forwardPort leads to a VM"), "{port}");
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_outlives_the_choice_of_its_vm_and_is_lost_with_the_vm() {
    let lab = Lab::new().await;
    let m = mark();
    let start = json!({ "id": "v", "command": server(&m), "waitFor": "listening" });
    lab.ok("bg_start", start.clone()).await;
    lab.ok("vers_vm_local", json!({})).await;
    let (listed, _) = lab.ok("bg_list", json!({})).await;
    assert!(
        listed.starts_with("v: RUNNING") && listed.contains(&lab.vm),
        "{listed}"
    );
    assert!(!traces::marked(&m).is_empty());
    lab.ok("vers_vm_delete", json!({ "vmId": lab.vm })).await;
    let (listed, details) = lab.ok("bg_list", json!({})).await;
    assert!(listed.starts_with("v: LOST"), "{listed}");
    assert!(details["processes"][0]["lost"].is_string(), "{details}");
    let (stopped, _) = lab.ok("bg_stop", json!({ "id": "v" })).await;
    assert!(
        stopped.starts_with("Process \"v\" is lost: whether it still runs is unknown"),
        "{stopped}"
    );
    // What is lost does not stand in the way.
    let (_, details) = lab.ok("bg_start", start).await;
    assert_eq!(
        (&details["on"], &details["ready"]),
        (&json!("local"), &json!(true))
    );
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_is_given_up_leaves_nothing_and_the_session_goes_on() {
    let lab = Lab::new().await;
    for on in ["local", "vm"] {
        let m = mark();
        let mut call = lab.bench.session.call(
            "bg_start",
            json!({ "id": "c", "command": stubborn(&m), "waitFor": "never", "waitMs": 500_000, "on": on }),
        );
        runs(&m, 2).await;
        call.canceller().cancel();
        let outcome = call.outcome().await;
        assert!(
            matches!(outcome, Err(CallError::Cancelled { .. })),
            "{outcome:?}"
        );
        assert_eq!(traces::marked(&m), Vec::<u32>::new());
        let (listed, _) = lab.ok("bg_list", json!({})).await;
        assert!(listed.starts_with("c: S"), "{listed}");
    }
    // Two calls at once for one id leave one process.
    let (first, second) = (mark(), mark());
    let start = |mark: &str| {
        lab.ok(
            "bg_start",
            json!({ "id": "c", "command": server(mark), "waitFor": "listening" }),
        )
    };
    futures::join!(start(&first), start(&second));
    let left = [&first, &second].map(|mark| !traces::marked(mark).is_empty());
    assert_eq!(left.iter().filter(|lives| **lives).count(), 1, "{left:?}");
    let (_, details) = lab.ok("bg_list", json!({})).await;
    assert_eq!(details["count"], 1);
    lab.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_session_ends_its_processes() {
    let lab = Lab::new().await;
    let (local, vm) = (mark(), mark());
    for (id, on, mark) in [("a", "local", &local), ("b", "vm", &vm)] {
        lab.ok(
            "bg_start",
            json!({ "id": id, "command": stubborn(mark), "waitFor": "begun", "on": on }),
        )
        .await;
        runs(mark, 2).await;
    }
    let Lab { scratch, bench, .. } = lab;
    let bench = std::sync::Arc::into_inner(bench).unwrap();
    bench.session.end().await;
    assert_eq!(traces::marked(&local), Vec::<u32>::new());
    assert_eq!(traces::marked(&vm), Vec::<u32>::new());
    scratch.end().await;
}

/// The lines of a script that starts something stubborn there and then waits.
fn starting(vm: &str, on: &str, mark: &str) -> String {
    [
        json!({ "tool": "vers_vm_use", "arguments": { "vmId": vm } }),
        json!({ "tool": "bg_start", "arguments": { "id": "s", "command": stubborn(mark), "waitFor": "begun", "on": on } }),
        json!({ "tool": "bash", "arguments": { "command": "sleep 600", "timeout": 0 } }),
    ]
    .map(|line| format!("{line}\n"))
    .concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_leaves_nothing_on_the_vm() {
    let scratch = Scratch::new();
    scratch.up().await;
    let vm = scratch.vm().await;
    let m = mark();
    std::fs::write(scratch.work().join("s.jsonl"), starting(&vm, "vm", &m)).unwrap();
    let running = scratch.start(&["run", "--local", "--script", "s.jsonl"]);
    runs(&m, 2).await;
    running.kill().await;
    eventually("nothing of the process is left on the VM", || {
        traces::marked(&m).is_empty()
    })
    .await;
    scratch.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_the_binary_drives_every_tool_and_leaves_nothing() {
    let scratch = Scratch::new();
    let m = mark();
    let lines = [
        json!({ "tool": "bg_list" }),
        json!({ "tool": "bg_start", "arguments": { "id": "web", "command": server(&m), "waitFor": "listening" } }),
        json!({ "tool": "bg_logs", "arguments": { "id": "web", "last": 1, "stream": "stdout" } }),
        json!({ "tool": "bg_list" }),
        json!({ "tool": "bg_stop", "arguments": { "id": "web" } }),
        json!({ "tool": "bg_start", "arguments": { "id": "left", "command": stubborn(&m), "waitFor": "begun" } }),
    ];
    let script: String = lines.iter().map(|line| format!("{line}\n")).collect();
    std::fs::write(scratch.work().join("s.jsonl"), script).unwrap();
    let done = scratch.run(&["run", "--json", "--script", "s.jsonl"]).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    let texts: Vec<String> = done.lines().iter().map(text).collect();
    assert_eq!(texts[0], "No background processes.");
    assert!(texts[1].contains("(running, ready)"), "{texts:?}");
    assert!(texts[2].ends_with("\nlistening on port 80"), "{texts:?}");
    assert!(texts[3].starts_with("web: RUNNING"), "{texts:?}");
    assert!(
        texts[4].starts_with("Process \"web\" stopped."),
        "{texts:?}"
    );
    assert!(texts[5].contains("(running, ready)"), "{texts:?}");
    assert_eq!(traces::marked(&m), Vec::<u32>::new());

    // Every tool there is was driven.
    let offered = scratch.run(&["tools", "--json"]).await.lines()[0].clone();
    let own: Vec<&str> = offered
        .as_array()
        .unwrap()
        .iter()
        .filter(|tool| tool["extension"] == "background-process")
        .map(|tool| tool["name"].as_str().unwrap())
        .collect();
    assert_eq!(own, ["bg_start", "bg_stop", "bg_list", "bg_logs"]);
    scratch.nothing_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_of_ones_own_narrows_what_runs_here() {
    let scratch = Scratch::new();
    let run = async |rules: &str, arguments: Value| {
        let policy = format!("[extension.background-process]\ndigest = \"shipped\"\n{rules}\n");
        std::fs::write(scratch.work().join("p.toml"), policy).unwrap();
        let done = scratch
            .run(&[
                "run",
                "--json",
                "--policy",
                "p.toml",
                "bg_start",
                &arguments.to_string(),
            ])
            .await;
        let line = done.lines()[0].clone();
        (
            done.code,
            line["error"]["message"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
        )
    };
    let start = |more: Value| {
        let mut all = json!({ "id": "x", "command": "true", "on": "local" });
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    // No local programs at all: the refusal names the rule.
    let (code, why) = run("process = []", start(json!({}))).await;
    assert_eq!(code, Some(3), "{why}");
    assert!(
        why.contains("background-process may not start `/bin/bash") && why.contains("process"),
        "{why}"
    );
    // A shell, but not with what makes another program load code.
    let shell = "process = [{ program = \"/bin/bash\", args = [\"-c ...\"] }]";
    assert_eq!(run(shell, start(json!({}))).await.0, Some(0));
    for name in ["LD_PRELOAD", "LD_AUDIT", "BASH_ENV", "PATH"] {
        let (code, why) = run(shell, start(json!({ "env": { name: "/tmp/x" } }))).await;
        assert_eq!(code, Some(3), "{why}");
        assert!(
            why.contains(&format!("not with the variable {name}")),
            "{why}"
        );
    }
    // Nor elsewhere than in the session's directory.
    let (code, why) = run(shell, start(json!({ "cwd": "/" }))).await;
    assert_eq!(code, Some(3), "{why}");
    assert!(why.contains("not in the directory /"), "{why}");
    // A planted bash in the working directory is not what runs.
    let planted = scratch.work().join("bash");
    std::fs::write(&planted, "#!/bin/sh\ntouch planted-ran\n").unwrap();
    std::fs::set_permissions(
        &planted,
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    assert_eq!(run(shell, start(json!({}))).await.0, Some(0));
    assert!(!scratch.work().join("planted-ran").exists());
    scratch.nothing_left();
}

/// Needs `shell.forward-port`.
#[tokio::test(flavor = "multi_thread")]
async fn a_port_of_the_vm_is_reachable_here_as_long_as_its_process_runs() {
    let lab = Lab::new().await;
    // One answer, then the next, with bash alone: the VM may have no other server.
    lab.bash("command -v python3 >/dev/null || command -v busybox >/dev/null")
        .await;
    let serve = "mkdir -p /srv/www && cd /srv/www && echo hello > index.html && if command -v python3 >/dev/null; then exec python3 -u -m http.server 8123 --bind 127.0.0.1; else echo Serving; exec busybox httpd -f -p 127.0.0.1:8123; fi";
    let (started, details) = lab
        .ok(
            "bg_start",
            json!({ "id": "web", "command": serve, "waitFor": "Serving", "forwardPort": 8123 }),
        )
        .await;
    let url = details["url"]
        .as_str()
        .unwrap_or_else(|| panic!("{started}"))
        .to_owned();
    assert!(
        url.starts_with("http://127.0.0.1:") && started.contains(&format!("\nURL: {url}\n")),
        "{started}"
    );
    let address = url.trim_start_matches("http://").to_owned();
    let answer = get(&address).await;
    assert!(
        answer.contains("200 OK") && answer.ends_with("hello\n"),
        "{answer}"
    );
    let (listed, _) = lab.ok("bg_list", json!({})).await;
    assert!(listed.contains(&url), "{}", without_ids(&listed));
    lab.ok("bg_stop", json!({ "id": "web" })).await;
    let closed = async {
        while tokio::net::TcpStream::connect(&address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(pi_vers_tests::DEADLINE, closed)
        .await
        .expect("the port closes with the process");
    lab.end().await;
}

async fn get(address: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
