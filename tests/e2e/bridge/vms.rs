//! The main job over the bridge: a VM of the local platform, chosen in one conversation and still chosen in its next.

use std::time::Duration;

use pi_vers_tests::{Scratch, eventually, ids, mark, traces};
use serde_json::{Value, json};

use super::shim::Shim;

#[tokio::test(flavor = "multi_thread")]
async fn the_tools_act_on_the_active_vm_and_a_resumed_session_goes_on_there() {
    let scratch = Scratch::new();
    scratch.up().await;
    let built_ins = ["bash", "read", "edit", "write"];
    let (mut shim, _) = Shim::greet(&scratch, &["--local"], &built_ins).await;
    shim.value("start", json!({ "reason": "startup" })).await;
    let vm = ids(&shim
        .text("vers_vm_create", json!({ "wait_boot": true }))
        .await)[0]
        .clone();
    scratch.note();
    shim.text("vers_vm_use", json!({ "vmId": vm })).await;
    let status = shim
        .until(|frame| frame["method"] == "ui.status" && frame["params"]["line"].is_array())
        .await;
    assert_eq!(status["params"]["key"], "vers-vm/vers");
    assert!(
        shim.entries
            .iter()
            .any(|entry| entry["extension"] == "vers-vm"
                && entry["kind"] == "active-vm"
                && entry["data"]["vmId"] == vm.as_str())
    );
    shim.text("write", json!({ "path": "/srv/a", "content": "one\n" }))
        .await;
    assert_eq!(
        shim.text("bash", json!({ "command": "cd /srv; cat a" }))
            .await,
        "one\n"
    );

    // What a command prints is shown while it runs; cancelled it is gone.
    let mark = mark();
    let command = format!("echo begun; : {mark}; while :; do sleep 1; done");
    let id = shim.begin("bash", json!({ "command": command })).await;
    let update = shim
        .until(|frame| {
            frame["t"] == "update"
                && frame["id"] == id
                && frame["content"].to_string().contains("begun")
        })
        .await;
    assert!(update["content"].is_array());
    assert!(!traces::marked(&mark).is_empty());
    let other = shim.text("bash", json!({ "command": "echo beside" })).await;
    assert_eq!(other, "beside\n");
    shim.send(json!({ "t": "cancel", "id": id })).await;
    assert_eq!(shim.answer(id).await["code"], "cancelled");
    eventually("the command is gone", || traces::marked(&mark).is_empty()).await;

    // The harness goes in the middle of a command.
    shim.begin("bash", json!({ "command": command })).await;
    eventually("it runs", || !traces::marked(&mark).is_empty()).await;
    let entries = std::mem::take(&mut shim.entries);
    shim.hang_up();
    assert_eq!(
        shim.ended_within(Duration::from_secs(5)).await.code,
        Some(0)
    );
    eventually("the command is gone", || traces::marked(&mark).is_empty()).await;

    // The conversation goes on in another process.
    let (mut shim, _) = Shim::greet(&scratch, &["--local"], &built_ins).await;
    shim.entries = entries;
    assert_eq!(
        shim.value("start", json!({ "reason": "resume" })).await,
        Value::Null
    );
    assert_eq!(
        shim.text("bash", json!({ "command": "cat a" })).await,
        "one\n"
    );
    // A conversation in which no VM was chosen.
    shim.entries.clear();
    shim.context(json!({ "sessionId": "another" })).await;
    shim.value("start", json!({ "reason": "resume" })).await;
    let id = shim.begin("bash", json!({ "command": "cat a" })).await;
    let asked = shim.asked("builtIn").await;
    shim.send(
        json!({ "t": "result", "id": asked["id"], "value": { "content": [], "isError": false } }),
    )
    .await;
    assert_eq!(shim.answer(id).await["t"], "result");
    shim.end().await;
    scratch.end().await;
}
