//! Every tool of `vers-vm` through the shipped binary, with the texts that its users know.

use std::collections::BTreeSet;

use pi_vers_tests::{Done, NO_VM, Scratch, ids, text, without_ids};
use serde_json::{Value, json};

/// Calls through the binary, each in a process of its own and all in one session; remembers which tools were driven.
struct Drive {
    scratch: Scratch,
    driven: BTreeSet<String>,
}

impl Drive {
    async fn call(&mut self, tool: &str, arguments: Value) -> Value {
        self.driven.insert(tool.to_owned());
        self.scratch.call(tool, arguments).await
    }

    /// Text and details of a call that has to succeed.
    async fn ok(&mut self, tool: &str, arguments: Value) -> (String, Value) {
        let line = self.call(tool, arguments.clone()).await;
        assert_eq!(line["ok"], true, "{tool} {arguments}: {line}");
        assert_eq!(
            (&line["tool"], &line["error"]),
            (&json!(tool), &Value::Null)
        );
        (text(&line), line["details"].clone())
    }

    /// Text of a call that has to fail in the tool's own words.
    async fn fails(&mut self, tool: &str, arguments: Value) -> String {
        let line = self.call(tool, arguments.clone()).await;
        assert_eq!(
            (&line["ok"], &line["error"]["kind"]),
            (&json!(false), &json!("failed")),
            "{tool} {arguments}: {line}"
        );
        text(&line)
    }
}

fn only_id(text: &str) -> String {
    match ids(text).as_slice() {
        [id] => id.clone(),
        _ => panic!("not one whole id: {text}"),
    }
}

/// The listing without what differs each time, its lines in order.
fn listing(text: &str) -> Vec<String> {
    let is_time = |word: &str| word.ends_with('Z') && word.contains('T') && word.starts_with("20");
    let line = |line: &str| {
        line.split(' ')
            .map(|word| if is_time(word) { "<time>" } else { word })
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut lines: Vec<String> = without_ids(text).lines().map(line).collect();
    lines[1..].sort();
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn every_tool_says_what_its_users_know() {
    let mut drive = Drive {
        scratch: Scratch::new(),
        driven: BTreeSet::new(),
    };
    drive.scratch.up().await;

    // Machines.
    assert_eq!(
        drive.ok("vers_vms", json!({})).await,
        ("0 VM(s)".to_owned(), json!({ "vms": [] }))
    );
    assert!(
        drive
            .fails("bash", json!({ "command": "true" }))
            .await
            .starts_with(NO_VM)
    );
    assert_eq!(
        drive.ok("vers_vm_local", json!({})).await.0,
        "Already in local mode."
    );
    let (created, details) = drive
        .ok(
            "vers_vm_create",
            json!({ "vcpu_count": 1, "mem_size_mib": 256, "fs_size_mib": 512, "wait_boot": true }),
        )
        .await;
    let vm = only_id(&created);
    assert_eq!(
        (created, details),
        (format!("VM created: {vm}"), json!({ "vm_id": vm }))
    );
    let (listed, details) = drive.ok("vers_vms", json!({})).await;
    assert_eq!(
        listing(&listed),
        ["1 VM(s)", "  <id> [running]  created <time>"]
    );
    assert_eq!(
        (
            ids(&listed),
            &details["vms"][0]["vm_id"],
            &details["vms"][0]["state"]
        ),
        (vec![vm.clone()], &json!(vm), &json!("running"))
    );
    let (used, details) = drive.ok("vers_vm_use", json!({ "vmId": vm })).await;
    let expected = "Active VM set to <id>. Persistent SSH session established. All read/bash/edit/write tools now execute on this VM.";
    assert_eq!(
        (without_ids(&used), ids(&used), details),
        (expected.to_owned(), vec![vm.clone()], json!({ "vmId": vm }))
    );
    let (listed, _) = drive.ok("vers_vms", json!({})).await;
    assert_eq!(
        listing(&listed),
        [
            "1 VM(s) (active: <id>)",
            "  <id> [running] ★  created <time>"
        ]
    );

    // Commands.
    assert_eq!(
        drive
            .ok("bash", json!({ "command": "echo out; echo err >&2" }))
            .await
            .0,
        "out\nerr\n"
    );
    assert_eq!(
        drive.ok("bash", json!({ "command": "true" })).await.0,
        "(no output)"
    );
    assert_eq!(
        drive
            .fails("bash", json!({ "command": "echo no; exit 7" }))
            .await,
        "no\n\n\nCommand exited with code 7"
    );

    // Files.
    let content = "one\ntwo\nthree";
    let written = drive
        .ok(
            "write",
            json!({ "path": "/srv/deep/er/a.txt", "content": content }),
        )
        .await
        .0;
    assert_eq!(
        written,
        format!(
            "Successfully wrote {} bytes to /srv/deep/er/a.txt",
            content.len()
        )
    );
    assert_eq!(
        drive
            .ok("read", json!({ "path": "/srv/deep/er/a.txt" }))
            .await
            .0,
        content
    );
    let page = drive
        .ok(
            "read",
            json!({ "path": "/srv/deep/er/a.txt", "offset": 2, "limit": 1 }),
        )
        .await
        .0;
    assert_eq!(
        page,
        "two\n\n[Showing lines 2-2 of 3. Use offset=3 to continue.]"
    );
    assert_eq!(
        drive.fails("read", json!({ "path": "/srv/none" })).await,
        "File not found: /srv/none"
    );
    let (edited, details) = drive
        .ok(
            "edit",
            json!({ "path": "/srv/deep/er/a.txt", "oldText": "two", "newText": "2" }),
        )
        .await;
    assert_eq!(
        (edited.as_str(), &details["firstChangedLine"]),
        (
            "Successfully replaced text in /srv/deep/er/a.txt.",
            &json!(2)
        )
    );
    let missing = drive
        .fails(
            "edit",
            json!({ "path": "/srv/deep/er/a.txt", "oldText": "two", "newText": "2" }),
        )
        .await;
    let why = "The old text must match exactly including all whitespace and newlines.";
    assert_eq!(
        missing,
        format!("Could not find the exact text in /srv/deep/er/a.txt. {why}")
    );
    let several = drive
        .fails(
            "edit",
            json!({ "path": "/srv/deep/er/a.txt", "oldText": "e", "newText": "x" }),
        )
        .await;
    let why = "Please provide more context to make it unique.";
    assert_eq!(
        several,
        format!("Found multiple occurrences of the text in /srv/deep/er/a.txt. {why}")
    );
    assert_eq!(
        drive
            .fails(
                "edit",
                json!({ "path": "/srv/none", "oldText": "a", "newText": "b" })
            )
            .await,
        "File not found: /srv/none"
    );
    assert_eq!(
        drive
            .ok(
                "bash",
                json!({ "command": "od -An -c /srv/deep/er/a.txt | tr -d ' \\n'" })
            )
            .await
            .0,
        "one\\n2\\nthree"
    );
    assert_eq!(
        drive
            .ok("grep", json!({ "pattern": "thr", "path": "/srv" }))
            .await
            .0,
        "deep/er/a.txt:3: three"
    );
    assert_eq!(
        drive
            .ok("find", json!({ "pattern": "*.txt", "path": "/srv" }))
            .await
            .0,
        "deep/er/a.txt"
    );
    assert_eq!(
        drive.ok("ls", json!({ "path": "/srv/deep" })).await.0,
        "er/"
    );

    // Snapshots: what a branch and a restored VM hold, and that they go apart.
    let (committed, details) = drive.ok("vers_vm_commit", json!({ "vmId": vm })).await;
    let commit = ids(&committed)[1].clone();
    assert_eq!(
        (committed, details),
        (
            format!("VM {vm} committed: {commit}"),
            json!({ "commit_id": commit })
        )
    );
    drive
        .ok("bash", json!({ "command": "echo later > /srv/later" }))
        .await;
    let (branched, details) = drive.ok("vers_vm_branch", json!({ "vmId": vm })).await;
    let branch = ids(&branched)[1].clone();
    assert_eq!(
        (branched, details),
        (
            format!("Branched VM {vm} -> {branch}"),
            json!({ "vm_id": branch })
        )
    );
    let (restored, details) = drive
        .ok("vers_vm_restore", json!({ "commitId": commit }))
        .await;
    let copy = ids(&restored)[1].clone();
    assert_eq!(
        (restored, details),
        (
            format!("Restored from commit {commit} -> VM {copy}"),
            json!({ "vm_id": copy })
        )
    );
    for (other, files) in [(&branch, "deep\nlater\n"), (&copy, "deep\n")] {
        drive.ok("vers_vm_use", json!({ "vmId": other })).await;
        assert_eq!(
            drive.ok("bash", json!({ "command": "ls /srv" })).await.0,
            files
        );
    }

    // States, and the way back.
    let (paused, details) = drive
        .ok(
            "vers_vm_state",
            json!({ "vmId": branch, "state": "Paused" }),
        )
        .await;
    assert_eq!(
        (paused, details),
        (
            format!("VM {branch} state set to Paused."),
            json!({ "vmId": branch, "state": "Paused" })
        )
    );
    let (listed, _) = drive.ok("vers_vms", json!({})).await;
    let expected = [
        "3 VM(s) (active: <id>)",
        "  <id> [paused]  created <time>",
        "  <id> [running]  created <time>",
        "  <id> [running] ★  created <time>",
    ];
    assert_eq!(listing(&listed), expected);
    let running = drive
        .ok(
            "vers_vm_state",
            json!({ "vmId": branch, "state": "Running" }),
        )
        .await
        .0;
    assert_eq!(running, format!("VM {branch} state set to Running."));
    let left = drive.ok("vers_vm_local", json!({})).await.0;
    assert_eq!(
        left,
        format!("Switched from VM {copy} back to local execution. SSH session closed.")
    );
    for vm in [&vm, &branch, &copy] {
        let (deleted, details) = drive.ok("vers_vm_delete", json!({ "vmId": vm })).await;
        assert_eq!(
            (deleted, &details["vm_id"]),
            (format!("VM {vm} deleted."), &json!(vm))
        );
    }
    assert_eq!(drive.ok("vers_vms", json!({})).await.0, "0 VM(s)");
    let gone = drive.fails("vers_vm_use", json!({ "vmId": vm })).await;
    assert_eq!(gone, format!("There is no VM {vm}. vers_vms lists them."));

    // Every tool there is was driven.
    let listed = drive.scratch.run(&["tools", "--json"]).await;
    let offered = listed.lines()[0].as_array().expect("a list").clone();
    let own = offered
        .iter()
        .filter(|tool| tool["extension"] == "vers-vm")
        .map(|tool| tool["name"].as_str().unwrap().to_owned());
    assert_eq!(own.collect::<BTreeSet<_>>(), drive.driven);
    drive.scratch.end().await;
}

async fn script(scratch: &Scratch, lines: &[Value], more: &[&str]) -> Done {
    let file = scratch.work().join("script.jsonl");
    let text: Vec<String> = lines.iter().map(Value::to_string).collect();
    std::fs::write(
        &file,
        format!("# all in one session\n\n{}\n", text.join("\n")),
    )
    .unwrap();
    let mut args = vec!["run", "--local", "--json", "--script", "script.jsonl"];
    args.extend(more);
    scratch.run(&args).await
}

/// Nothing was started before: the platform comes and goes with the run, and so do the processes of its VMs.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_one_session_and_the_first_failure_decides() {
    let scratch = Scratch::new();
    let lines = [
        json!({ "tool": "vers_vms" }),
        json!({ "tool": "vers_vm_create", "arguments": { "wait_boot": true } }),
        json!({ "tool": "bash", "arguments": { "command": "true" } }),
        json!({ "tool": "vers_vm_local", "arguments": {} }),
        json!({ "tool": "vers_vm_delete", "arguments": { "vmId": "zz" } }),
        json!({ "tool": "vers_vms", "arguments": { "what": 1 } }),
    ];
    let done = script(&scratch, &lines, &["--keep-going"]).await;
    let results = done.lines();
    let short: Vec<(String, Value)> = results
        .iter()
        .map(|line| (without_ids(&text(line)), line["error"]["kind"].clone()))
        .collect();
    assert_eq!(short.len(), lines.len(), "{done:?}");
    assert_eq!(short[0], ("0 VM(s)".to_owned(), Value::Null));
    assert_eq!(short[1], ("VM created: <id>".to_owned(), Value::Null));
    assert!(
        short[2].0.starts_with(NO_VM) && short[2].1 == "failed",
        "{short:?}"
    );
    assert_eq!(short[3], ("Already in local mode.".to_owned(), Value::Null));
    assert!(
        short[4].0.contains("zz") && short[4].1 == "failed",
        "{short:?}"
    );
    assert_eq!(short[5].1, "arguments", "{short:?}");
    // The first failure's code, not the last one's.
    assert_eq!(done.code, Some(1), "{done:?}");
    scratch.nothing_left();

    // Without --keep-going it ends there. The VM of the first run is still there, asleep.
    let done = script(&scratch, &lines, &[]).await;
    assert_eq!((done.code, done.lines().len()), (Some(1), 3), "{done:?}");
    assert_eq!(
        listing(&text(&done.lines()[0])),
        ["1 VM(s)", "  <id> [sleeping]  created <time>"]
    );
    scratch.nothing_left();
    scratch.end().await;
}
