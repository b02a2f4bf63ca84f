//! A session with real VMs of the local platform, recorded, and replayed when the platform is gone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Home, Ran};
use serde_json::{Value, json};

const CANARY: &str = "canary-91c0d7e2aa54";

/// The calls of a script as its lines.
fn script(calls: &[(&str, Value)]) -> String {
    let lines = calls
        .iter()
        .map(|(tool, arguments)| json!({ "tool": tool, "arguments": arguments }).to_string());
    lines.collect::<Vec<_>>().join("\n")
}

fn run(home: &Home, more: &[&str], input: &str) -> Ran {
    let all = [
        &["run", "--quiet", "--keep-going", "--script", "-"][..],
        more,
    ];
    home.run_with_input(&all.concat(), input)
}

/// What it said to people, without the log: that is about this machine.
fn said(ran: &Ran) -> Vec<&str> {
    let lines = ran.err.lines();
    lines.filter(|line| line.starts_with("pi-vers:")).collect()
}

#[test]
fn a_session_with_vms_is_replayed_without_a_platform() {
    let mut home = Home::new();
    home.set("LLM_PROXY_KEY", CANARY);
    let state = home.path("platform");
    let state = state.to_str().unwrap();
    let up = home.run(["local", "up", "--json", "--state", state]);
    assert_eq!(up.code, 0, "{up:?}");
    let created = home.run([
        "run",
        "--quiet",
        "--json",
        "--local",
        "--state",
        state,
        "vers_vm_create",
        r#"{"wait_boot":true}"#,
    ]);
    assert_eq!(created.code, 0, "{created:?}");
    let text = created.json()[0]["content"][0]["text"].to_string();
    let mut words = text.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    let vm = words.rfind(|word| word.len() == 36).unwrap().to_owned();
    let calls = |command: &str| {
        script(&[
            ("vers_vms", json!({})),
            ("vers_vm_use", json!({ "vmId": vm })),
            ("bash", json!({ "command": command })),
            // Long enough to be cut: the result counts its bytes.
            ("bash", json!({ "command": "seq 1 3000" })),
            (
                "write",
                json!({ "path": "/root/file", "content": "one\ntwo\n" }),
            ),
            ("read", json!({ "path": "/root/file" })),
            ("bash", json!({ "command": "exit 7" })),
            ("vers_vm_commit", json!({ "vmId": vm })),
            ("vers_vm_delete", json!({ "vmId": vm })),
        ])
    };
    let told = calls(&format!("echo out; echo err >&2; echo {CANARY}"));
    let tape = home.path("tape.jsonl");
    let tape = tape.to_str().unwrap();
    let recorded = run(
        &home,
        &["--local", "--state", state, "--record", tape],
        &told,
    );
    let reset = home.run(["local", "reset", "--json", "--state", state]);
    assert_eq!(reset.code, 0, "{reset:?}");
    assert_eq!(recorded.code, 1, "`exit 7` failed: {recorded:?}");
    assert!(!std::fs::read_to_string(tape).unwrap().contains(CANARY));

    for _ in 0..2 {
        let replayed = run(&home, &["--replay", tape], &told);
        assert_eq!(replayed.code, recorded.code, "{replayed:?}");
        assert_eq!(replayed.out, recorded.out);
        assert_eq!(said(&replayed), said(&recorded));
    }
    let other = run(&home, &["--replay", tape], &calls("echo something else"));
    assert_eq!(other.code, 9, "{other:?}");
    let last = other.err.lines().last().unwrap();
    assert!(
        last.contains("the replay differs from") && last.contains("now \"echo something else\""),
        "{last}"
    );
}

#[test]
fn what_is_wrong_with_a_tape_is_told_before_anything_runs() {
    let home = Home::new();
    let cut = home.write("work/cut.jsonl", "{\"line\":\"tape\"");
    let ran = home.run(["run", "--replay", cut.to_str().unwrap(), "vers_vms"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.line().contains("line 1: it is cut off"), "{ran:?}");
    let ran = home.run(["run", "--record", cut.to_str().unwrap(), "vers_vms"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.line().contains("is there already"), "{ran:?}");
}
