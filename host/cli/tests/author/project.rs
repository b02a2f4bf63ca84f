//! A project from nothing to a tool call.

use crate::{built, common, home};

#[test]
fn a_new_project_builds_and_says_what_it_is() {
    let built = built();
    let said: serde_json::Value = serde_json::from_str(built.said.trim()).unwrap();
    assert_eq!(said["name"], "hello");
    assert_eq!(
        said["tools"],
        serde_json::json!(["hello_greet", "hello_run"])
    );
    assert_eq!(said["digest"], crate::digest(&built.wasm()));
    let imports = said["imports"].as_array().unwrap();
    // What it does not use it does not import.
    assert!(imports.iter().any(|one| one == "vers:platform/shell@0.1.0"));
    assert!(
        !imports.iter().any(|one| one == "vers:system/http@0.1.0"),
        "{imports:?}"
    );
    assert!(said["size"].as_u64().unwrap() < 400_000, "{said}");
}

#[test]
fn a_new_project_passes_its_tests_at_once() {
    let built = built();
    let ran = built.home.run(["test", "hello", "--no-build"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.ends_with("2 scripts passed\n"), "{ran:?}");
}

#[test]
fn what_it_proposes_is_granted_and_nothing_else() {
    let built = built();
    let home = home();
    let wasm = built.project().join("build/hello.wasm");
    let wasm = wasm.to_str().unwrap();
    let policy = built.project().join("policy.toml");
    let args = [
        "policy",
        "grant",
        wasm,
        "--from",
        policy.to_str().unwrap(),
        "--yes",
    ];
    let ran = home.run(args);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("+ vms: get, of any"), "{ran:?}");
    let vm = "00000000-0000-4000-8000-000000000001";
    let explain = |words: &[&str]| {
        let start = ["policy", "explain", wasm, "shell", vm];
        home.run(start.iter().chain(words)).code
    };
    assert_eq!(explain(&["uname", "-a"]), 0);
    assert_eq!(explain(&["rm", "-r", "/"]), 3);
}

#[test]
fn inside_a_project_the_other_tools_work_on() {
    // Its pi-vers.toml says how it is built, and is no policy that takes everything away.
    let built = built();
    let mut command = built
        .home
        .command(["policy", "explain", "vers-vm", "vms.list"]);
    command.current_dir(built.project());
    let ran = common::finish(command.spawn().unwrap());
    assert_eq!(ran.code, 0, "{ran:?}");
    // One with a section of a policy is one.
    let home = home();
    home.write(
        "work/pi-vers.toml",
        "[project]\nname = \"x\"\n[extension.vers-vm]\nvms = []\n",
    );
    let ran = home.run(["policy", "explain", "vers-vm", "vms.list"]);
    assert_eq!(ran.code, 3, "{ran:?}");
}

#[test]
fn a_project_replaces_nothing_and_has_a_plain_name() {
    let home = home();
    home.write("work/taken/file", "mine");
    let ran = home.run(["new", "taken"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert_eq!(
        std::fs::read(home.path("work/taken/file")).unwrap(),
        b"mine"
    );
    for name in ["../up", "Vers", "vers-vm", "fn", "a b", "-x"] {
        let ran = home.run(["new", "--", name]);
        assert_eq!(ran.code, 2, "{name}: {ran:?}");
    }
    let ran = home.run(["new", "x", "--lang", "cobol"]);
    assert!(ran.line().contains("--lang is one of"), "{ran:?}");
    // Nothing was left half made.
    assert_eq!(std::fs::read_dir(home.path("work")).unwrap().count(), 1);
}

#[test]
fn a_build_that_cannot_be_says_why_in_one_line() {
    let home = home();
    let build = |manifest: &str| {
        home.write("work/p/pi-vers.toml", manifest);
        home.run(["build", "p"])
    };
    let ran = home.run(["build", "nowhere"]);
    assert!(ran.line().contains("pi-vers new"), "{ran:?}");
    let ran = build("[project]\nname = \"p\"\n");
    assert!(ran.line().contains("no [build]"), "{ran:?}");
    let ran = build(
        "[project]\nname = \"p\"\n[build]\ncommand = [\"no-such-tool\"]\noutput = \"p.wasm\"\n",
    );
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("needs no-such-tool"), "{ran:?}");
    let ran =
        build("[project]\nname = \"p\"\n[build]\ncommand = [\"false\"]\noutput = \"p.wasm\"\n");
    assert_eq!(ran.code, 1, "{ran:?}");
    let ran =
        build("[project]\nname = \"p\"\n[build]\ncommand = [\"true\"]\noutput = \"p.wasm\"\n");
    assert!(ran.err.contains("left no p/p.wasm"), "{ran:?}");
    let ran = build(
        "[project]\nname = \"p\"\n[build]\ncommand = [\"touch\", \"p.wasm\"]\noutput = \"p.wasm\"\n",
    );
    assert_eq!(ran.code, 7, "{ran:?}");
    // A command is an argument vector: no shell reads it.
    let ran = build(
        "[project]\nname = \"p\"\n[build]\ncommand = [\"touch\", \"a b;touch c\"]\noutput = \"p.wasm\"\n",
    );
    assert!(
        home.path("work/p/a b;touch c").exists() && !home.path("work/p/c").exists(),
        "{ran:?}"
    );
}

#[test]
fn a_missing_target_is_named_with_the_command_that_adds_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut home = home();
    let stub = home.write("bin/rustc", "#!/bin/sh\necho /nowhere/at/all\n");
    std::fs::set_permissions(&stub, std::fs::Permissions::from_mode(0o755)).unwrap();
    home.set("RUSTC", stub.to_str().unwrap());
    home.write("work/p/pi-vers.toml", "[project]\nname = \"p\"\n[build]\ncommand = [\"cargo\", \"build\", \"--target\", \"wasm32-wasip2\"]\n");
    let ran = home.run(["build", "p"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(
        ran.err.contains("rustup target add wasm32-wasip2"),
        "{ran:?}"
    );
}
