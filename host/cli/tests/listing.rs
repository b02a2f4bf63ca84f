//! What is listed and inspected.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::os::unix::fs::PermissionsExt as _;

use common::Home;

#[test]
fn every_tool_is_listed_with_its_extension() {
    let home = Home::new();
    let ran = home.run(["tools"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    assert!(
        ran.out.contains("vers-vm 0.1.0") && ran.out.contains("(shipped)"),
        "{ran:?}"
    );
    let ran = home.run(["tools", "--json"]);
    let tools = ran.json()[0].as_array().unwrap().clone();
    for name in [
        "vers_vms",
        "vers_vm_create",
        "vers_vm_use",
        "bash",
        "read",
        "edit",
        "write",
        "grep",
    ] {
        let tool = tools
            .iter()
            .find(|tool| tool["name"] == name)
            .unwrap_or_else(|| panic!("{name}"));
        assert_eq!(
            (
                tool["extension"].as_str(),
                tool["parameters"]["type"].as_str()
            ),
            (Some("vers-vm"), Some("object"))
        );
    }
    assert!(home.run(["tools", "bash"]).out.contains("\"command\""));
}

#[test]
fn a_shipped_extension_is_shown_like_anyones() {
    let home = Home::new();
    let ran = home.run(["inspect", "vers-vm"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in [
        "sha256:",
        "vers:platform/vms@0.1.",
        "run commands on Vers VMs",
        "vers_vm_use",
        "granted by the shipped grants",
        "24 h",
    ] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    let json = &home.run(["inspect", "--json", "vers-vm"]).json()[0];
    assert_eq!(json["policy"]["status"], "granted");
    assert!(
        json["imports"]
            .as_array()
            .unwrap()
            .iter()
            .any(|import| import["policy_key"] == "vms")
    );
}

#[test]
fn directories_are_private_and_outputs_survive_a_closed_pipe() {
    let home = Home::new();
    let mut child = home.command(["tools", "--json"]).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(common::finish(child).code, 0);
    let mode = std::fs::metadata(home.path(".local/state/pi-vers"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn colour_is_for_terminals_only() {
    let home = Home::new();
    for arguments in [&["tools"][..], &["inspect", "vers-vm"], &["--help"]] {
        let ran = home.run(arguments);
        assert!(
            !ran.out.contains('\u{1b}') && !ran.err.contains('\u{1b}'),
            "{arguments:?}"
        );
    }
}

#[test]
fn help_has_examples_and_the_exit_codes() {
    let home = Home::new();
    assert!(home.run(["--help"]).out.contains("Exit codes:\n  0  done"));
    assert!(
        home.run(["run", "--help"])
            .out
            .contains("pi-vers run vers_vms")
    );
    assert!(!home.run(["local", "--help"]).out.contains("serve"));
}
