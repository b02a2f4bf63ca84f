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
    for (extension, name) in [
        ("vers-vm", "vers_vms"),
        ("vers-vm", "vers_vm_create"),
        ("vers-vm", "vers_vm_use"),
        ("vers-vm", "bash"),
        ("vers-vm", "read"),
        ("vers-vm", "edit"),
        ("vers-vm", "write"),
        ("vers-vm", "grep"),
        ("vers-vm-copy", "vers_vm_copy"),
        ("background-process", "bg_start"),
        ("background-process", "bg_stop"),
        ("background-process", "bg_list"),
        ("background-process", "bg_logs"),
        ("vers-lieutenant", "vers_lt_create"),
        ("vers-lieutenant", "vers_lt_discover"),
        ("vers-swarm", "vers_swarm_spawn"),
        ("vers-swarm", "vers_swarm_message"),
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
            (Some(extension), Some("object"))
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

/// What an extension may do on this machine is in plain sight.
#[test]
fn rights_on_this_machine_are_shown() {
    let home = Home::new();
    for (name, parts) in [
        (
            "background-process",
            &[
                "process: /bin/bash -c ...",
                "process: /bin/sh -c ...",
                "process: /bin/sh, in /",
                "shell on any: any command",
                "bus: vers-vm.active",
            ][..],
        ),
        (
            "vers-vm-copy",
            &[
                "files: rw .",
                "shell on any: files rw",
                "granted by the shipped grants",
            ],
        ),
    ] {
        let ran = home.run(["inspect", name]);
        assert_eq!(ran.code, 0, "{ran:?}");
        for part in parts {
            assert!(ran.out.contains(part), "{part}: {}", ran.out);
        }
    }
    let copy = home.run(["inspect", "vers-vm-copy"]);
    assert!(!copy.out.contains("process: /"), "{}", copy.out);
}

#[test]
fn tools_that_may_not_replace_built_ins_are_told_in_one_line() {
    let home = Home::new();
    let policy = home.write(
        "p.toml",
        "[extension.vers-vm]\ndigest = \"shipped\"\nvms = [\"list\"]\n",
    );
    let ran = home.run(["run", "--policy", policy.to_str().unwrap(), "bg_list"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<&str> = ran
        .err
        .lines()
        .filter(|line| line.contains("may not replace"))
        .collect();
    assert!(
        matches!(lines.as_slice(), [line] if line.contains("bash, read, edit, write, grep, find, ls")),
        "{ran:?}"
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
