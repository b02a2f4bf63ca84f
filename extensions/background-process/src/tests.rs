//! The tools as a model uses them, in a world of fakes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use pi_vers_sdk::testing::{Kit, Script, read};
use pi_vers_sdk::{Error, ToolError, active_vm};
use serde_json::{Value, json};

use crate::extension;

const VM: &str = "0a000000-0000-4000-8000-000000000001";

fn kit() -> Kit {
    Kit::new(extension())
}

fn start(kit: &Kit, more: Value) -> String {
    let mut arguments = json!({ "id": "web", "command": "serve" });
    let all = arguments.as_object_mut().unwrap();
    all.extend(more.as_object().cloned().unwrap_or_default());
    read(&kit.call("bg_start", arguments))
}

#[test]
fn what_is_waited_for_ends_the_wait_at_once() {
    let kit = kit();
    let script = Script::new()
        .print("starting\n")
        .wait(100)
        .print("listening on 80\n");
    kit.program(&["/bin/bash"], script);
    let running = kit.begin(
        "bg_start",
        json!({ "id": "web", "command": "serve", "waitFor": "listening" }),
    );
    kit.pass(100);
    assert!(running.is_done(), "it waits on although the line was there");
    let told = read(&running.finish());
    assert!(
        told.contains("(running, ready)\nReady: listening on 80"),
        "{told}"
    );
    let argv = kit.process().argv();
    // The command is an argument, and never part of a script.
    assert_eq!(
        (argv[0].as_str(), argv.last().unwrap().as_str()),
        ("/bin/bash", "serve")
    );
}

#[test]
fn a_process_that_never_gets_ready_is_told_of_at_the_end_of_the_wait() {
    let kit = kit();
    let told = start(&kit, json!({ "waitFor": "listening", "waitMs": 5_000 }));
    assert!(
        told.contains("Nothing it wrote within 5000 ms matches listening"),
        "{told}"
    );
    // Whoever has less patience is answered before, and it is looked for on.
    kit.patience(Some(4_000));
    let told = start(&kit, json!({ "waitFor": "listening", "waitMs": 5_000 }));
    assert!(told.contains("It is still looked for"), "{told}");
    kit.process().print("listening\n");
    let listed = read(&kit.call("bg_list", json!({})));
    assert!(
        listed.contains("web: RUNNING") && listed.contains("| ready |"),
        "{listed}"
    );
}

#[test]
fn an_id_that_is_started_again_stops_the_old_process_first() {
    let kit = kit();
    start(&kit, json!({}));
    let old = kit.process();
    let told = start(&kit, json!({}));
    assert!(told.contains("was stopped first"), "{told}");
    assert!(!old.is_running() && kit.process().is_running());
}

#[test]
fn what_does_not_heed_a_signal_is_killed() {
    let kit = kit();
    start(&kit, json!({}));
    kit.process().ignore_signals();
    let told = read(&kit.call("bg_stop", json!({ "id": "web", "signal": "INT" })));
    assert!(
        told.contains("SIGINT did not end it within 500 ms"),
        "{told}"
    );
    assert_eq!(kit.process().signals(), ["INT", "KILL"]);
}

#[test]
fn it_runs_where_bash_does() {
    let kit = kit();
    kit.add_vm(VM);
    kit.tools(&["vers_vm_use"]);
    let running = kit.begin(
        "bg_start",
        json!({ "id": "web", "command": "serve", "forwardPort": 80 }),
    );
    let (topic, question) = kit.told().pop().unwrap();
    assert_eq!(topic, active_vm::ASK);
    let answer = json!({ "vmId": VM, "workingDirectory": "/srv", "answerTo": question["token"] });
    kit.tell(active_vm::TOPIC, &answer);
    let told = read(&running.finish());
    assert!(
        told.contains(&format!("VM: {VM}")) && told.contains("CWD: /srv"),
        "{told}"
    );
    let (process, forwards) = (kit.process(), kit.forwards());
    assert_eq!(process.started().vm.as_deref(), Some(VM));
    assert_eq!((forwards[0].1.as_str(), forwards[0].2), (VM, 80));
    // The port goes with the process.
    process.exit(1);
    assert!(kit.forwards().is_empty());
}

#[test]
fn a_policy_that_says_no_is_told_as_it_is() {
    let kit = kit();
    kit.deny("process");
    let denied = kit.call("bg_start", json!({ "id": "web", "command": "serve" }));
    assert!(
        matches!(denied, Err(ToolError::Capability(Error::Denied(_)))),
        "{denied:?}"
    );
    assert_eq!(
        read(&kit.call("bg_list", json!({}))),
        "No background processes."
    );
}

#[test]
fn the_end_of_the_session_ends_every_process() {
    let kit = kit();
    start(&kit, json!({}));
    start(&kit, json!({ "id": "db" }));
    kit.stop();
    assert!(kit.processes().iter().all(|process| !process.is_running()));
}
