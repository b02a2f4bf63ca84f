//! The tools as a model uses them, in a world of fakes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use pi_vers_sdk::platform::vms::State;
use pi_vers_sdk::testing::{Kit, Reply, Script, read};
use pi_vers_sdk::{Error, Reason, ToolError};
use serde_json::json;

use crate::extension;

const VM: &str = "0a000000-0000-4000-8000-000000000001";

/// A session with an active VM.
fn on_vm() -> Kit {
    let kit = Kit::new(extension());
    kit.add_vm(VM);
    kit.call("vers_vm_use", json!({ "vmId": "0a" })).unwrap();
    kit
}

fn bash(kit: &Kit) -> Result<pi_vers_sdk::ToolResult, ToolError> {
    kit.call("bash", json!({ "command": "make" }))
}

#[test]
fn without_an_active_vm_the_harness_runs_its_own_tools() {
    let kit = Kit::new(extension());
    let told = read(&bash(&kit));
    assert!(
        told.contains("this harness has no bash of its own"),
        "{told}"
    );
    kit.built_in("bash", |arguments| {
        Ok(format!("ran {}", arguments["command"]).into())
    });
    assert_eq!(read(&bash(&kit)), r#"ran "make""#);
    assert!(kit.processes().is_empty());
}

#[test]
fn a_command_runs_on_the_active_vm_and_how_it_ended_is_told() {
    let kit = on_vm();
    kit.programs(|started| {
        let is_make = started.argv.iter().any(|argument| argument == "make");
        is_make.then(|| Script::new().print("half\n").exit(2))
    });
    let told = read(&bash(&kit));
    assert_eq!(told, "half\n\n\nCommand exited with code 2");
    assert_eq!(kit.process().started().vm.as_deref(), Some(VM));
}

#[test]
fn a_paused_vm_is_resumed_and_the_model_is_told() {
    let kit = on_vm();
    kit.change_vm(VM, |vm| vm.state = State::Paused);
    kit.programs(|_| Some(Script::new().print("ok").exit(0)));
    let told = read(&bash(&kit));
    assert!(
        told.contains("was paused and has been resumed") && told.ends_with("ok"),
        "{told}"
    );
}

#[test]
fn a_vm_that_is_gone_is_said_to_be() {
    let kit = on_vm();
    kit.lose_vm(VM);
    let told = read(&bash(&kit));
    assert!(
        told.contains("no longer exists") && told.contains("vers_vm_local"),
        "{told}"
    );
}

#[test]
fn a_command_that_is_given_up_is_stopped_and_shows_what_it_wrote() {
    let kit = on_vm();
    let running = kit.begin("bash", json!({ "command": "make" }));
    kit.process().print("half\n");
    kit.pass(1_000);
    assert!(running.updates().last().unwrap().contains("half"));
    assert!(matches!(running.cancel(), Some(Err(ToolError::Cancelled))));
    assert!(!kit.process().is_running());
}

#[test]
fn an_edit_loses_nothing_that_was_written_meanwhile() {
    let kit = on_vm();
    kit.put_on(VM, "/srv/a", "one two");
    let edit = json!({ "path": "/srv/a", "oldText": "one", "newText": "1" });
    kit.hold("files.write");
    let running = kit.begin("edit", edit.clone());
    kit.put_on(VM, "/srv/a", "one two three");
    kit.release("files.write");
    let told = read(&running.finish());
    assert!(told.contains("changed while it was edited"), "{told}");
    assert_eq!(kit.file_on(VM, "/srv/a").unwrap(), b"one two three");
    kit.call("edit", edit).unwrap();
    assert_eq!(kit.file_on(VM, "/srv/a").unwrap(), b"1 two three");
}

#[test]
fn a_refusal_of_the_policy_is_handed_on() {
    let kit = on_vm();
    kit.deny("shell.spawn");
    assert!(matches!(
        bash(&kit),
        Err(ToolError::Capability(Error::Denied(_)))
    ));
}

#[test]
fn a_session_that_is_resumed_has_its_vm_again_or_is_told_that_it_is_gone() {
    let kept = std::thread::spawn(|| on_vm().keep()).join().unwrap();
    for is_there in [true, false] {
        let kept = kept.clone();
        let session = std::thread::spawn(move || {
            let kit = Kit::resumed(extension(), kept);
            if is_there {
                kit.add_vm(VM);
            }
            kit.start(Reason::Resume).unwrap();
            kit.programs(|_| Some(Script::new().print("ok").exit(0)));
            (read(&bash(&kit)), kit.notices().join("\n"))
        });
        let (told, notices) = session.join().unwrap();
        assert_eq!(told == "ok", is_there, "{told}");
        assert_eq!(notices.contains("no longer exists"), !is_there, "{notices}");
    }
}

#[test]
fn the_dashboard_deletes_only_what_is_confirmed() {
    for (reply, left) in [(Reply::No, 1), (Reply::Yes, 0)] {
        let kit = std::thread::spawn(move || {
            let kit = on_vm();
            kit.reply(Reply::Choose("delete — Delete".into()));
            kit.reply(reply);
            kit.command("vers", "0a").unwrap();
            kit.vms().len()
        });
        assert_eq!(kit.join().unwrap(), left);
    }
}
