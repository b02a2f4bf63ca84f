//! Lieutenants, as a harness sees them: the shipped component, the local platform, and the scripted agent on its VMs.

mod chaos;
mod desk;
mod patience;

use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use axum::http::{Method, StatusCode, Uri};
use axum::{Json, Router};
use pi_vers_host::platform::{Environment, Overrides, Settings};
use pi_vers_host::{CallError, FlagValue};
use pi_vers_tests::{built, eventually, ids};
use serde_json::{Value, json};

use crate::bridge::shim::Shim;
use crate::desk::lock;
use desk::{Place, Run};

#[tokio::test]
async fn a_lieutenant_works_while_the_model_goes_on_and_wakes_it_when_it_is_done() {
    let place = Place::new().await;
    let run = place.session("one").await;
    assert_eq!(
        run.text("vers_lt_status", json!({})).await,
        "No lieutenants active."
    );
    assert_eq!(
        run.failure("vers_lt_send", json!({ "name": "x", "message": "y" }))
            .await,
        "Lieutenant 'x' not found. Available: none"
    );
    // Defect 31: quotes in a role were changed on their way.
    let role = "Bob's \"infra\" $(id) `x` \\ end";
    let arguments = json!({ "name": "infra", "role": role, "commitId": place.golden, "model": "scripted/scripted-2" });
    let (text, details) = run.ok("vers_lt_create", arguments).await;
    let vm = details["vmId"].as_str().unwrap().to_owned();
    assert_eq!(
        text,
        format!(
            "Lieutenant \"infra\" is ready.\n  VM: {vm}\n  Role: {role}\n  Status: idle — waiting for first task"
        )
    );
    assert_eq!(
        details,
        json!({ "name": "infra", "vmId": vm, "role": role })
    );
    let created = run.heard("vers:lt_created");
    assert_eq!(
        (
            &created[0]["vmId"],
            &created[0]["ltRole"],
            &created[0]["commitId"]
        ),
        (&json!(vm), &json!(role), &json!(place.golden))
    );
    let widget = run.widget().expect("a widget");
    assert!(
        widget.starts_with("─── Lieutenants (1) ───\n● infra: idle — Bob's"),
        "{widget}"
    );

    assert_eq!(
        run.send("infra", "sleep 300\nprompt\nmodel").await,
        "Sent to infra (prompt): \"sleep 300\nprompt\nmodel\""
    );
    // The model goes on: the call has returned, and the lieutenant works.
    assert!(
        run.widget().unwrap().contains("⟳ infra: working (1 tasks)"),
        "{:?}",
        run.widget()
    );
    let message = run.announcement(1).await;
    assert!(message.wakes && message.follow_up, "{message:?}");
    assert!(
        message.text.starts_with("[infra completed] ✅\n")
            && message
                .text
                .ends_with("Use vers_lt_read for the full output."),
        "{message:?}"
    );
    assert_eq!(
        (&message.details["error"], &message.details["lieutenant"]),
        (&json!(false), &json!("infra"))
    );
    assert!(message.details["lines"].is_array(), "{message:?}");
    let heard = run.heard("vers:lt_completed");
    assert_eq!(
        (
            heard.len(),
            &heard[0]["status"],
            &heard[0]["taskCount"],
            &heard[0]["error"]
        ),
        (1, &json!("idle"), &json!(1), &json!(false))
    );
    let output = run.read("infra").await;
    assert!(
        output.starts_with("[infra] (idle, 1 tasks):\n\n")
            && output.contains(&format!("Your role: {role}")),
        "{output}"
    );
    assert!(
        output.contains("scripted-2"),
        "the model that was asked for: {output}"
    );

    // Defect 39, 48: an error is one by its outcome, whatever the words are.
    run.send("infra", "say 0 failed, no errors").await;
    assert_eq!(run.announcement(2).await.details["error"], json!(false));
    run.send("infra", "fail the model is gone").await;
    let failed = run.announcement(3).await;
    assert_eq!(failed.details["error"], json!(true));
    assert!(
        failed.text.starts_with("[infra failed] ⚠️") && failed.text.contains("the model is gone"),
        "{failed:?}"
    );
    let history = run
        .text("vers_lt_read", json!({ "name": "infra", "history": 2 }))
        .await;
    assert!(
        history.contains("=== Response 2 ===\n0 failed, no errors")
            && history.contains("=== Response 3 === (failed: the model is gone)"),
        "{history}"
    );

    // A prompt while it works is queued, and heard in the same run.
    run.send("infra", "sleep 1500\nsay first").await;
    let queued = run.send("infra", "say second").await;
    assert!(
        queued.starts_with(
            "Sent to infra (followUp) (auto-queued as follow-up since lieutenant is working)"
        ),
        "{queued}"
    );
    let refused = run
        .failure("vers_lt_pause", json!({ "name": "infra" }))
        .await;
    assert_eq!(
        refused,
        "Lieutenant 'infra' is currently working. Send a steer to stop it first, or wait for it to finish."
    );
    run.announcement(4).await;
    let output = run.read("infra").await;
    assert!(
        output.contains("first") && output.contains("second") && output.contains("5 tasks"),
        "{output}"
    );

    let (_, status) = run.ok("vers_lt_status", json!({})).await;
    assert_eq!(status["lieutenants"][0]["vmId"], json!(vm));
    assert_eq!(
        run.text("vers_lt_destroy", json!({ "name": "infra" }))
            .await,
        format!("infra: destroyed (VM {vm}, 5 tasks completed)")
    );
    assert_eq!(
        run.heard("vers:lt_destroyed"),
        [json!({ "vmId": vm, "name": "infra" })]
    );
    assert_eq!((run.widget(), place.vms().await), (None, Vec::new()));
    assert_eq!(
        run.text("vers_lt_destroy", json!({ "name": "*" })).await,
        "No lieutenants to destroy."
    );
    run.end().await;
    place.end().await;
}

#[tokio::test]
async fn defect_46_a_paused_lieutenant_is_let_go_of_and_works_again_after_a_resume() {
    let place = Place::new().await;
    let run = place.session("one").await;
    let vm = run.create(&place, "infra", "r").await;
    run.send("infra", "say before").await;
    run.announcement(1).await;
    let name = || json!({ "name": "infra" });
    assert_eq!(
        run.text("vers_lt_resume", name()).await,
        "infra is not paused (status: idle)."
    );
    let paused = run.text("vers_lt_pause", name()).await;
    assert_eq!(
        paused,
        "Lieutenant \"infra\" paused. VM state preserved. Use vers_lt_resume to wake it."
    );
    assert_eq!(
        run.text("vers_lt_pause", name()).await,
        "infra is already paused."
    );
    let refused = run
        .failure("vers_lt_send", json!({ "name": "infra", "message": "m" }))
        .await;
    assert_eq!(
        refused,
        "Lieutenant 'infra' is paused. Resume it first with vers_lt_resume."
    );
    // What it said is still there to read.
    assert!(run.read("infra").await.contains("before"));
    let resumed = run.text("vers_lt_resume", name()).await;
    assert_eq!(
        resumed,
        "Lieutenant \"infra\" resumed. Pi session intact. Ready for tasks."
    );
    run.send("infra", "count").await;
    run.announcement(2).await;
    assert!(
        run.read("infra").await.contains('2'),
        "its conversation went on"
    );

    // Paused in one session, resumed in the next: there was no handle then.
    run.text("vers_lt_pause", name()).await;
    run.end().await;
    let run = place.session("two").await;
    let status = run.text("vers_lt_status", json!({})).await;
    assert!(status.starts_with("⏸ infra [paused]"), "{status}");
    run.text("vers_lt_resume", name()).await;
    run.send("infra", "say again").await;
    assert!(run.announcement(1).await.text.contains("again"));
    // A paused one need not be resumed to be destroyed.
    run.text("vers_lt_pause", name()).await;
    let gone = run.text("vers_lt_destroy", name()).await;
    assert_eq!(
        gone,
        format!("infra: destroyed (VM {vm}, 3 tasks completed)")
    );
    assert!(place.vms().await.is_empty());
    run.end().await;
    place.end().await;
}

#[tokio::test]
async fn defects_42_44_45_47_what_was_said_while_nobody_listened_is_told_once() {
    let place = Place::new().await;
    let run = place.session("mine").await;
    run.create(&place, "a", "r").await;
    run.create(&place, "b", "r").await;
    run.send("a", "say early").await;
    run.announcement(1).await;
    run.send("a", "sleep 1000\nsay late").await;
    run.send("b", "sleep 600000").await;
    run.end().await;
    assert_eq!(
        place.vms().await.len(),
        2,
        "the end of a session ends no VM"
    );

    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    let run = place.session("mine").await;
    let message = run.announcement(1).await;
    assert!(
        message.text.contains("[a completed]")
            && message.text.contains("late")
            && !message.text.contains("early"),
        "{message:?}"
    );
    let status = run.until_status("● a [idle]").await;
    // Defect 44: one that works was taken for idle.
    assert!(status.contains("⟳ b [working]"), "{status}");
    assert!(run.read("a").await.contains("late"));
    run.end().await;

    // Once more: nothing is told twice, and its history is there.
    let run = place.session("mine").await;
    run.until_status("● a [idle]").await;
    let history = run
        .text("vers_lt_read", json!({ "name": "a", "history": 20 }))
        .await;
    assert!(
        history.contains("early") && history.contains("late") && !history.contains("Response 3"),
        "{history}"
    );
    run.send("a", "say new").await;
    assert!(run.announcement(1).await.text.contains("new"));
    let gone = run.text("vers_lt_destroy", json!({ "name": "*" })).await;
    assert!(
        gone.contains("a: destroyed") && gone.contains("b: destroyed"),
        "{gone}"
    );
    run.end().await;
    place.end().await;
}

#[tokio::test]
async fn defect_47_two_coordinators_do_not_both_look_after_a_lieutenant() {
    let place = Place::new().await;
    let first = place.session("first").await;
    first.create(&place, "infra", "r").await;
    let second = place.session("second").await;
    let status = second.text("vers_lt_status", json!({})).await;
    assert!(status.contains("infra [in another session]"), "{status}");
    let refused = second
        .failure("vers_lt_send", json!({ "name": "infra", "message": "m" }))
        .await;
    assert!(refused.contains("another session"), "{refused}");
    let arguments = json!({ "name": "infra", "role": "r", "commitId": place.golden });
    let refused = second.failure("vers_lt_create", arguments).await;
    assert_eq!(
        refused,
        "Lieutenant 'infra' already exists. Destroy it first or use a different name."
    );
    let left = second.text("vers_lt_destroy", json!({ "name": "*" })).await;
    assert_eq!(left, "infra: left alone, another session looks after it");
    first.send("infra", "say one").await;
    first.announcement(1).await;
    assert!(second.announced().is_empty());

    // The first ends; the second may have it then.
    first.end().await;
    second.text("vers_lt_discover", json!({})).await;
    second.until_status("● infra [idle]").await;
    second.send("infra", "sleep 200\nsay two").await;
    assert!(second.announcement(1).await.text.contains("two"));

    // It belongs to who spoke to it last: the first does not get it back while the second lives.
    let first = place.session("first").await;
    let status = first.text("vers_lt_status", json!({})).await;
    assert!(status.contains("infra [in another session]"), "{status}");
    second
        .text("vers_lt_destroy", json!({ "name": "infra" }))
        .await;
    first.text("vers_lt_discover", json!({})).await;
    assert_eq!(
        first.text("vers_lt_status", json!({})).await,
        "No lieutenants active."
    );
    first.end().await;
    second.end().await;
    place.end().await;
}

#[tokio::test]
async fn defect_49_a_lieutenant_that_crashes_amid_a_task_is_reported() {
    let place = Place::new().await;
    let run = place.session("one").await;
    run.create(&place, "infra", "r").await;
    run.send("infra", "say so far\ncrash 3").await;
    let message = run.announcement(1).await;
    assert_eq!(message.details["error"], json!(true));
    assert!(
        message.text.contains("3") && message.text.starts_with("[infra failed] ⚠️"),
        "{message:?}"
    );
    let status = run.until_status("✗ infra [error]").await;
    assert!(status.contains("Problem:"), "{status}");
    let refused = run
        .failure("vers_lt_send", json!({ "name": "infra", "message": "m" }))
        .await;
    assert!(
        refused.starts_with("No RPC handle for 'infra'"),
        "{refused}"
    );
    // A new session says so too, and announces nothing again.
    run.end().await;
    let run = place.session("one").await;
    run.until_status("✗ infra [error]").await;
    assert!(run.announced().is_empty());
    // There was no way back from an error.
    let again = run.text("vers_lt_resume", json!({ "name": "infra" })).await;
    assert!(
        again.starts_with("Lieutenant \"infra\" started again."),
        "{again}"
    );
    run.send("infra", "say well again").await;
    assert!(run.announcement(1).await.text.contains("well again"));
    run.text("vers_lt_destroy", json!({ "name": "infra" }))
        .await;
    assert!(place.vms().await.is_empty());
    run.end().await;
    place.end().await;
}

#[tokio::test]
async fn defects_33_34_a_creation_that_fails_or_is_given_up_leaves_nothing() {
    let place = Place::new().await;
    let run = place.session("one").await;
    // A model that is not there.
    let arguments =
        json!({ "name": "a", "role": "r", "commitId": place.golden, "model": "scripted/none" });
    let why = run.failure("vers_lt_create", arguments).await;
    assert!(
        why.contains("Pi RPC failed to start on") && why.contains("scripted/none"),
        "{why}"
    );
    assert!(place.vms().await.is_empty());
    // A commit that is not there.
    let arguments =
        json!({ "name": "a", "role": "r", "commitId": "00000000-0000-4000-8000-000000000000" });
    run.failure("vers_lt_create", arguments).await;
    for name in ["*", "a b", "../x", "$(id)", ""] {
        let why = run
            .failure("vers_lt_create", json!({ "name": name, "role": "r" }))
            .await;
        assert!(why.contains("is no name for a lieutenant"), "{why}");
    }

    // Given up as soon as there is a VM.
    let arguments = json!({ "name": "a", "role": "r", "commitId": place.golden });
    let mut call = run.session.call("vers_lt_create", arguments.clone());
    let mut updates = call.updates();
    let shown = |content: &Value| {
        content.to_string().contains("booting") || content.to_string().contains("agent")
    };
    loop {
        let text = format!("{:?}", updates.borrow_and_update().content);
        if shown(&json!(text)) {
            break;
        }
        if updates.changed().await.is_err() {
            break;
        }
    }
    call.canceller().cancel();
    assert!(matches!(
        call.outcome().await,
        Err(CallError::Cancelled { .. })
    ));
    // Its VM is deleted after the call has ended; the last sign of it goes with that.
    eventually("nothing is left of it", || run.widget().is_none()).await;
    assert!(place.vms().await.is_empty());

    // Two at once under one name: one of them.
    let (one, two) = tokio::join!(
        async {
            run.session
                .call("vers_lt_create", arguments.clone())
                .outcome()
                .await
        },
        async {
            run.session
                .call("vers_lt_create", arguments.clone())
                .outcome()
                .await
        }
    );
    let failed = match (one, two) {
        (Ok(_), Err(CallError::Failed(why))) | (Err(CallError::Failed(why)), Ok(_)) => why.text(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        failed,
        "Lieutenant 'a' already exists. Destroy it first or use a different name."
    );
    assert_eq!(place.vms().await.len(), 1);
    run.text("vers_lt_destroy", json!({ "name": "a" })).await;
    assert!(place.vms().await.is_empty());
    run.end().await;
    place.end().await;
}

#[tokio::test]
async fn defect_50_lieutenants_are_found_by_their_labels_without_a_registry() {
    let place = Place::new().await;
    let run = place.session("one").await;
    let (infra, paused, dead) = (
        run.create(&place, "infra", "r").await,
        run.create(&place, "sleepy", "r").await,
        run.create(&place, "dead", "r").await,
    );
    run.text("vers_lt_pause", json!({ "name": "sleepy" })).await;
    run.send("dead", "kill KILL").await;
    run.announcement(1).await;
    run.send("infra", "say what was said there").await;
    run.announcement(2).await;
    run.end().await;

    // Another machine: it has never heard of them.
    let elsewhere = tempfile::tempdir().unwrap();
    let run = place
        .run("two", elsewhere.path(), place.settings(&[]), &[])
        .await;
    assert_eq!(
        run.text("vers_lt_status", json!({})).await,
        "No lieutenants active."
    );
    let found = run.text("vers_lt_discover", json!({})).await;
    assert!(found.starts_with("Discovery results:\n"), "{found}");
    assert!(
        found.contains(&format!("infra: VM {infra} — reconnected")),
        "{found}"
    );
    assert!(
        found.contains(&format!(
            "sleepy: VM {paused} — paused; vers_lt_resume wakes it"
        )),
        "{found}"
    );
    assert!(
        found.contains(&format!(
            "dead: VM {dead} — pi-rpc session not running, skipping"
        )),
        "{found}"
    );
    run.until_status("● infra [idle]").await;
    // Defect 44: what it said last, although nobody here heard it.
    let mut read = run.read("infra").await;
    for _ in 0..100 {
        if read.contains("what was said there") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        read = run.read("infra").await;
    }
    assert!(read.contains("what was said there"), "{read}");
    run.send("infra", "say hello").await;
    assert!(run.announcement(1).await.text.contains("hello"));
    run.text("vers_lt_resume", json!({ "name": "sleepy" }))
        .await;
    run.send("sleepy", "say awake").await;
    assert!(run.announcement(2).await.text.contains("awake"));
    let found = run.text("vers_lt_discover", json!({})).await;
    assert!(found.contains("infra: already connected"), "{found}");
    run.text("vers_lt_destroy", json!({ "name": "*" })).await;
    assert_eq!(place.vms().await, [dead]);
    run.end().await;
    place.end().await;
}

#[tokio::test]
async fn defect_53_an_idle_lieutenant_is_paused_after_a_warning() {
    let place = Place::new().await;
    let flags = [("vers-lt-idle-minutes", FlagValue::Number(0.05))];
    let run = place
        .run(
            "one",
            &place.scratch.work(),
            place.settings(&[("VERS_GOLDEN_COMMIT_ID", &place.golden)]),
            &flags,
        )
        .await;
    // The commit is that of the environment, and the model nobody asked for is one that this agent does not have.
    let (text, details) = run
        .ok("vers_lt_create", json!({ "name": "infra", "role": "r" }))
        .await;
    assert!(
        text.contains(
            "  Note: it uses its own choice of a model, since claude-opus-4-6-thinking was refused"
        ),
        "{text}"
    );
    let vm = details["vmId"].as_str().unwrap().to_owned();
    eventually("it is paused", || run.told("and has been paused")).await;
    assert!(
        run.told("Lieutenant \"infra\" is idle. It is paused in"),
        "{:?}",
        lock(&run.desk.told)
    );
    assert!(
        run.widget().unwrap().contains("⏸ infra: paused"),
        "{:?}",
        run.widget()
    );
    let status = run.text("vers_lt_status", json!({})).await;
    assert!(
        status.starts_with("⏸ infra [paused]") && status.contains(&vm),
        "{status}"
    );
    assert_eq!(place.vms().await, [vm], "it is never deleted");
    run.text("vers_lt_destroy", json!({ "name": "*" })).await;
    run.end().await;
    place.end().await;
}

#[tokio::test]
async fn defect_47_a_platform_that_cannot_be_reached_makes_nobody_forget_a_lieutenant() {
    let place = Place::new().await;
    let run = place.session("mine").await;
    let vm = run.create(&place, "infra", "r").await;
    run.end().await;

    let environment = Environment::of([
        ("VERS_BASE_URL", "http://127.0.0.1:9/api/v1"),
        ("VERS_API_KEY", "none"),
        ("HOME", "/nonexistent"),
    ]);
    let nowhere = Settings::discover(environment, Overrides::default()).expect("valid settings");
    let run = place.run("mine", &place.scratch.work(), nowhere, &[]).await;
    let status = run.until_status("infra [unreachable]").await;
    assert!(status.contains(&vm), "{status}");
    run.end().await;

    let run = place.session("mine").await;
    run.until_status("● infra [idle]").await;
    run.send("infra", "say still here").await;
    assert!(run.announcement(1).await.text.contains("still here"));
    run.text("vers_lt_destroy", json!({ "name": "infra" }))
        .await;
    run.end().await;
    place.end().await;
}

#[tokio::test]
async fn a_local_lieutenant_needs_no_vm_and_ends_with_the_session() {
    let place = Place::new().await;
    let program = place.scratch.root().join("agent");
    std::fs::write(
        &program,
        format!(
            "#!/bin/sh\nexec {} scripted-agent \"$@\"\n",
            built::binary().display()
        ),
    )
    .unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = program.display().to_string();
    let settings = place.settings(&[("PI_PATH", &program)]);
    let home = place.scratch.root().join("home/.pi/vers/lieutenants");
    // As in a policy of one's own: the program, and the directory of the home that this host is told of.
    let edit = |grants: String| {
        grants
            .replace("/usr/local/bin/pi\"", &format!("{program}\""))
            .replace("~/.pi/vers/lieutenants", &home.display().to_string())
    };
    let run = Run::new("one", &place.scratch.work(), settings.clone(), &[], edit).await;
    let arguments = json!({ "name": "here", "role": "it's here", "local": true, "model": "scripted/scripted-1" });
    let (text, details) = run.ok("vers_lt_create", arguments).await;
    let home = home.join("here");
    assert_eq!(
        text,
        format!(
            "Lieutenant \"here\" is ready (local mode).\n  Workspace: {}/workspace\n  Role: it's here\n  Status: idle — waiting for first task\n  \
             Note: local LTs share your filesystem and don't survive session restart.",
            home.display()
        )
    );
    assert_eq!(
        (&details["vmId"], &details["local"]),
        (&json!("local-here"), &json!(true))
    );
    run.send("here", "run pwd").await;
    assert!(
        run.announcement(1)
            .await
            .text
            .contains(&format!("{}/workspace", home.display()))
    );
    assert!(
        run.widget()
            .unwrap()
            .contains("● here [local]: idle (1 tasks)"),
        "{:?}",
        run.widget()
    );
    let refused = run
        .failure("vers_lt_pause", json!({ "name": "here" }))
        .await;
    assert_eq!(
        refused,
        "Lieutenant 'here' is a local process — pause/resume requires a Vers VM."
    );
    run.end().await;
    let run = place.session("one").await;
    assert_eq!(
        run.text("vers_lt_status", json!({})).await,
        "No lieutenants active."
    );
    run.end().await;
    assert!(ids(&place.scratch.text("vers_vms", json!({})).await).is_empty());
    place.end().await;
}

/// Kills a bridge as it cannot notice.
async fn kill(shim: Shim) {
    let pid = i32::try_from(shim.pid()).expect("a process id");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it still runs");
    assert_eq!(shim.ended().await.code, None);
}

/// A harness of this session, on the local platform, through the bridge.
async fn harness(place: &Place) -> Shim {
    let (mut shim, _) = Shim::greet(&place.scratch, &["--local"], &[]).await;
    shim.value("start", json!({ "reason": "resume" })).await;
    shim
}

/// What the harness's host keeps of lieutenants.
fn kept(place: &Place) -> String {
    let mut directories = vec![place.scratch.root().join("state")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name() == "vers-lieutenant.json" {
                return std::fs::read_to_string(entry.path()).unwrap_or_default();
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && entry.file_name() != "local" {
                directories.push(entry.path());
            }
        }
    }
    String::new()
}

/// The next message to the conversation; it is answered where the harness lives on.
async fn message(shim: &mut Shim, answered: bool) -> String {
    let asked = shim.asked("session.sendMessage").await;
    assert_eq!(asked["params"]["kind"], "vers:lt_completed", "{asked}");
    assert_eq!(
        (
            &asked["params"]["delivery"],
            &asked["params"]["triggerTurn"]
        ),
        (&json!("follow-up"), &json!(true))
    );
    if answered {
        shim.send(json!({ "t": "result", "id": asked["id"], "value": null }))
            .await;
    }
    asked["params"]["content"][0]["text"]
        .as_str()
        .expect("a text")
        .to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_42_47_a_killed_harness_finds_its_lieutenant_again_with_all_it_said() {
    let place = Place::new().await;
    let mut shim = harness(&place).await;
    let arguments = json!({ "name": "infra", "role": "r", "commitId": place.golden, "model": "scripted/scripted-1" });
    shim.text("vers_lt_create", arguments).await;
    place.scratch.note();
    let task = "say first\nrun sleep 1; echo second\nbig 3000000\nsay last";
    shim.text("vers_lt_send", json!({ "name": "infra", "message": task }))
        .await;
    kill(shim).await;

    // It is resumed, and killed again before it has taken what it is told.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let mut shim = harness(&place).await;
    let told = message(&mut shim, false).await;
    assert!(
        told.starts_with("[infra completed] ✅") && told.contains("last"),
        "{told}"
    );
    kill(shim).await;

    let mut shim = harness(&place).await;
    let told = message(&mut shim, true).await;
    assert!(
        told.contains("while this session did not listen") && told.contains("last"),
        "{told}"
    );
    let read = shim
        .text("vers_lt_read", json!({ "name": "infra", "history": 20 }))
        .await;
    assert!(
        read.contains("=== Response 1 ===") && !read.contains("=== Response 2 ==="),
        "once: {}",
        &read[read.len() - 300..]
    );
    shim.text(
        "vers_lt_send",
        json!({ "name": "infra", "message": "count" }),
    )
    .await;
    let told = message(&mut shim, true).await;
    assert!(
        told.starts_with("[infra completed] ✅\nprompt 2 of this session"),
        "its conversation went on: {told}"
    );
    let taken = || kept(&place).contains(r#"\"untold\":[]"#);
    eventually("it is written down that it was told", taken).await;
    kill(shim).await;

    // What was told and taken is not told again.
    let mut shim = harness(&place).await;
    shim.text(
        "vers_lt_send",
        json!({ "name": "infra", "message": "say new" }),
    )
    .await;
    let told = message(&mut shim, true).await;
    assert!(told.contains("new"), "{told}");
    let gone = shim.text("vers_lt_destroy", json!({ "name": "*" })).await;
    assert!(gone.contains("3 tasks completed"), "{gone}");
    shim.end().await;
    place.end().await;
}

#[tokio::test]
async fn defect_47_a_dead_coordinators_lieutenants_are_taken_over_when_its_lease_has_run_out() {
    let place = Place::new().await;
    let run = place.session("dead").await;
    run.create(&place, "infra", "r").await;
    run.end().await;
    // As if it had been killed a moment ago: its lease is there, and ends soon.
    let store = place.scratch.work().join("host/vers-lieutenant.json");
    let mut all: serde_json::Map<String, Value> =
        serde_json::from_slice(&std::fs::read(&store).expect("the store")).expect("a store");
    let mut record: Value =
        serde_json::from_str(all["lieutenant/infra"].as_str().unwrap()).unwrap();
    record["owner"] = json!("dead#1");
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let until = now.as_millis() as u64 + 4_000;
    all.insert("lieutenant/infra".into(), record.to_string().into());
    all.insert(
        "lease/dead#1".into(),
        json!({ "session": "dead", "until": until })
            .to_string()
            .into(),
    );
    std::fs::write(&store, Value::Object(all).to_string()).unwrap();

    let run = place.session("other").await;
    let status = run.text("vers_lt_status", json!({})).await;
    assert!(status.contains("infra [in another session]"), "{status}");
    eventually("it is taken over", || {
        run.widget()
            .is_some_and(|widget| widget.contains("● infra: idle"))
    })
    .await;
    run.send("infra", "say well").await;
    assert!(run.announcement(1).await.text.contains("well"));
    run.text("vers_lt_destroy", json!({ "name": "*" })).await;
    run.end().await;
    place.end().await;
}

#[tokio::test]
async fn defects_50_51_a_control_plane_names_the_image_and_hears_of_lieutenants() {
    let place = Place::new().await;
    let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let (log, golden) = (asked.clone(), place.golden.clone());
    let reef = Router::new().fallback(move |method: Method, uri: Uri, body: String| {
        let what = format!("{method} {}", uri.path());
        let answer = match what.as_str() {
            "GET /commits/current/golden" => (
                StatusCode::OK,
                json!({ "commitId": golden, "source": "store" }),
            ),
            "POST /vm-tree/vms" => (StatusCode::CREATED, json!({})),
            "GET /vm-tree/vms" => (StatusCode::OK, json!({ "vms": [], "count": 0 })),
            _ if method == Method::DELETE => (StatusCode::OK, json!({ "deleted": true })),
            _ => (StatusCode::NOT_FOUND, json!({ "error": "not found" })),
        };
        lock(&log).push((what, serde_json::from_str(&body).unwrap_or_default()));
        async move { (answer.0, Json(answer.1)) }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, reef).await });

    let settings = place.settings(&[("VERS_INFRA_URL", &url), ("VERS_AUTH_TOKEN", "t")]);
    let run = place.run("one", &place.scratch.work(), settings, &[]).await;
    let arguments = json!({ "name": "infra", "role": "r", "model": "scripted/scripted-1" });
    let (_, details) = run.ok("vers_lt_create", arguments).await;
    let vm = details["vmId"].as_str().unwrap();
    let heard = |what: &str| {
        lock(&asked)
            .iter()
            .find(|(asked, _)| asked == what)
            .cloned()
    };
    eventually("it is registered", || heard("POST /vm-tree/vms").is_some()).await;
    let (_, member) = heard("POST /vm-tree/vms").unwrap();
    assert_eq!(
        (
            member["vmId"].as_str(),
            &member["name"],
            &member["category"]
        ),
        (Some(vm), &json!("infra"), &json!("lieutenant"))
    );
    let found = run.text("vers_lt_discover", json!({})).await;
    assert_eq!(found, "Discovery results:\ninfra: already connected");
    run.text("vers_lt_destroy", json!({ "name": "infra" }))
        .await;
    let delete = format!("DELETE /vm-tree/vms/{vm}");
    eventually("it is taken off", || heard(&delete).is_some()).await;

    // A control plane that is gone keeps nobody from anything but its own part.
    server.abort();
    let _ = server.await;
    let arguments = json!({ "name": "infra", "role": "r", "commitId": place.golden, "model": "scripted/scripted-1" });
    run.text("vers_lt_create", arguments).await;
    let found = run.text("vers_lt_discover", json!({})).await;
    assert!(
        found.contains("infra: already connected\nThe registry could not be asked: "),
        "{found}"
    );
    run.text("vers_lt_destroy", json!({ "name": "infra" }))
        .await;
    run.end().await;
    place.end().await;
}
