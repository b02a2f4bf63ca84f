//! Whatever is wrong with what the user gave: one clear line, the next step, a distinct exit code, nothing on standard
//! output, and nothing started.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use common::{Home, Ran, finish, interrupt, platform};

const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\ncontent-type: text/plain\r\ncontent-length: 13\r\nconnection: close\r\n\r\nunauthorized\n";

fn check(ran: &Ran, code: i32, says: &[&str]) {
    assert_eq!(ran.code, code, "{ran:?}");
    assert_eq!(ran.out, "", "nothing but results on standard output");
    let line = ran.line();
    for part in says {
        assert!(line.contains(part), "{part:?} is missing in: {line}");
    }
}

#[test]
fn an_unknown_tool_is_told_with_the_nearest_one() {
    let home = Home::new();
    check(
        &home.run(["run", "vers_vm_us"]),
        2,
        &[
            "no tool vers_vm_us",
            "did you mean vers_vm_use?",
            "`pi-vers tools`",
        ],
    );
    check(&home.run(["tools", "bsh"]), 2, &["did you mean bash?"]);
}

#[test]
fn bad_json_is_told_before_anything_is_loaded() {
    let home = Home::new();
    check(
        &home.run(["run", "bash", "{command: ls}"]),
        2,
        &["is no JSON", "line 1 column 2", "@FILE"],
    );
    check(
        &home.run(["run", "bash", "@missing.json"]),
        2,
        &["missing.json", "check the path"],
    );
    check(
        &home.run_with_input(&["run", "bash", "-"], "["),
        2,
        &["standard input is no JSON"],
    );
}

#[test]
fn all_problems_of_the_arguments_are_listed_with_their_paths() {
    let home = Home::new();
    let ran = home.run(["run", "read", r#"{"offset":0,"limit":"x","colour":"red"}"#]);
    check(
        &ran,
        2,
        &[
            "/offset:",
            "/limit:",
            "path",
            "colour",
            "`pi-vers tools read`",
        ],
    );
    let ran = home.run([
        "run",
        "--json",
        "read",
        r#"{"offset":0,"limit":"x","colour":"red"}"#,
    ]);
    let error = &ran.json()[0]["error"];
    assert_eq!((ran.code, error["kind"].as_str()), (2, Some("arguments")));
    assert_eq!(error["problems"].as_array().unwrap().len(), 4, "{error}");
}

#[test]
fn a_script_with_a_bad_line_runs_nothing_of_it() {
    let home = Home::new();
    let script = home.write("s.jsonl", "# fine\n{\"tool\":\"vers_vms\"}\nvers_vms\n");
    check(
        &home.run([
            std::ffi::OsStr::new("run"),
            "--script".as_ref(),
            script.as_os_str(),
        ]),
        2,
        &["s.jsonl:3:", "nothing was run"],
    );
}

#[test]
fn wrong_use_names_the_way_out() {
    let home = Home::new();
    for (arguments, says) in [
        (vec!["run"], "<TOOL|--script"),
        (vec!["run", "a", "--timeout", "soon"], "30s"),
        (vec!["run", "a", "--flag", "x"], "name=value"),
        (vec!["frobnicate"], "unrecognized subcommand"),
    ] {
        let ran = home.run(&arguments);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(
            ran.err.contains(says) || ran.err.contains("TOOL"),
            "{says}: {ran:?}"
        );
        assert_eq!(ran.out, "");
    }
    check(
        &home.run(["run", "--session", "../x", "vers_vms"]),
        2,
        &["no name for a session"],
    );
    check(
        &home.run(["run", "--flag", "colour=red", "vers_vms"]),
        2,
        &["no extension has a flag colour", "vers-ssh-timeout"],
    );
    check(
        &home.run(["run", "--flag", "vers-ssh-timeout=long", "vers_vms"]),
        2,
        &["takes a number"],
    );
}

#[test]
fn files_that_are_no_extension_are_told_apart() {
    let home = Home::new();
    let text = home.write("work/script.wasm", "#!/bin/sh\necho hello\n");
    let module = home.write("work/module.wasm", b"\0asm\x01\0\0\0");
    let stranger = home.write("work/stranger.wasm", b"\0asm\x0d\0\x01\0");
    let damaged = home.write("work/damaged.wasm", b"\0asm\x0d\0\x01\0\x07\xff");
    for (file, says) in [
        (text, ["no WASI component", "does not begin as WebAssembly"]),
        (module, ["core module", "wasm32-wasip2"]),
        (stranger, ["another world", "vers:extension/extension"]),
        (damaged, ["no WASI component", "damaged"]),
    ] {
        let file = file.to_str().unwrap();
        for ran in [
            home.run(["inspect", file]),
            home.run(["tools", "--extension", file]),
            home.run(["run", "-e", file, "vers_vms"]),
        ] {
            check(&ran, 7, &says);
        }
    }
    check(
        &home.run(["inspect", "missing.wasm"]),
        2,
        &["missing.wasm can't be read", "check the path"],
    );
    check(
        &home.run(["inspect", "vers-wm"]),
        2,
        &["no file and no extension vers-wm", "one of vers-vm"],
    );
}

#[test]
fn a_platform_that_is_down_is_told_by_its_own_code() {
    let mut home = Home::new();
    let port = {
        // Nobody listens there once it is dropped.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    home.set("VERS_BASE_URL", &format!("http://127.0.0.1:{port}"));
    check(
        &home.run(["run", "vers_vms"]),
        4,
        &["list VMs", "cannot reach 127.0.0.1"],
    );
    check(&home.run(["whoami"]), 4, &["cannot reach 127.0.0.1"]);
}

#[test]
fn a_refused_key_is_told_without_the_key() {
    let mut home = Home::new();
    home.set("VERS_BASE_URL", &platform(Some(REFUSED)));
    for arguments in [&["run", "vers_vms"][..], &["whoami"]] {
        let ran = home.run(arguments);
        check(&ran, 4, &["key is not accepted", "pi-vers login"]);
        assert!(!ran.err.contains("key-for-tests"));
    }
}

#[test]
fn a_missing_key_is_told_with_both_ways_to_one() {
    let mut home = Home::new();
    home.set("VERS_API_KEY", "");
    check(
        &home.run(["run", "vers_vms"]),
        4,
        &["VERS_API_KEY", "pi-vers login"],
    );
}

#[test]
fn a_platform_that_does_not_answer_ends_at_the_time_limit() {
    let mut home = Home::new();
    home.set("VERS_BASE_URL", &platform(None));
    let ran = home.run(["run", "--timeout", "300ms", "vers_vms"]);
    check(&ran, 5, &["300ms", "--timeout", "give it longer"]);
    let ran = home.run(["run", "--json", "--timeout", "300ms", "vers_vms"]);
    assert_eq!(
        (ran.code, ran.json()[0]["error"]["kind"].as_str()),
        (5, Some("timed-out"))
    );
}

#[test]
fn ctrl_c_cancels_the_call_and_the_rest_of_the_script() {
    let mut home = Home::new();
    // The first request says that the call runs: no guess at how long starting takes.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    home.set(
        "VERS_BASE_URL",
        &format!("http://{}", listener.local_addr().unwrap()),
    );
    let script = home.write(
        "s.jsonl",
        "{\"tool\":\"vers_vms\"}\n{\"tool\":\"vers_vms\"}\n",
    );
    let script = script.to_str().unwrap();
    let child = home
        .command(["run", "--json", "--keep-going", "--script", script])
        .spawn()
        .unwrap();
    let held = listener.accept().unwrap();
    interrupt(&child);
    let ran = finish(child);
    drop(held);
    assert_eq!(ran.code, 6, "{ran:?}");
    assert_eq!(ran.json().len(), 1, "the second call did not run: {ran:?}");
    assert_eq!(ran.json()[0]["error"]["kind"], "cancelled");
    assert!(ran.err.contains("cancelling; once more to quit"), "{ran:?}");
}

#[test]
fn the_users_policy_decides_and_says_what_would_allow_it() {
    let home = Home::new();
    let policy = home.write(
        "p.toml",
        "[extension.vers-vm]\ndigest = \"shipped\"\nvms = [\"get\"]\nreplace = [\"*\"]\n",
    );
    let policy = policy.to_str().unwrap();
    check(
        &home.run(["run", "--policy", policy, "vers_vms"]),
        3,
        &["vers-vm may not list VMs", "p.toml"],
    );
    // Also where it is looked for by itself.
    home.write(
        ".config/pi-vers/policy.toml",
        "[extension.vers-vm]\ndigest = \"shipped\"\nvms = [\"get\"]\nreplace = [\"*\"]\n",
    );
    check(
        &home.run(["run", "vers_vms"]),
        3,
        &[".config/pi-vers/policy.toml"],
    );
}

#[test]
fn a_project_can_narrow_the_policy_and_not_widen_it() {
    let home = Home::new();
    home.write(
        "work/pi-vers.toml",
        "[extension.vers-vm]\nvms = [\"get\", \"labels\"]\nreplace = [\"*\"]\n",
    );
    check(
        &home.run(["run", "vers_vms"]),
        3,
        &["vers-vm may not list VMs", "pi-vers.toml"],
    );
    let explained = home.run(["inspect", "--json", "vers-vm"]);
    assert_eq!(explained.json()[0]["policy"]["status"], "granted");
}

#[test]
fn a_policy_that_cannot_be_read_is_no_policy() {
    let home = Home::new();
    let policy = home.write(
        "p.toml",
        "[extension.vers-vm]\ndigest = \"shipped\"\nvsm = []\n",
    );
    check(
        &home.run(["run", "--policy", policy.to_str().unwrap(), "vers_vms"]),
        2,
        &["p.toml:3:1", "vsm"],
    );
    check(
        &home.run(["tools", "--policy", "missing.toml"]),
        2,
        &["missing.toml"],
    );
}

#[test]
fn grants_of_other_bytes_do_not_hold() {
    let home = Home::new();
    let zeros = "0".repeat(64);
    let policy = home.write(
        "p.toml",
        format!("[extension.vers-vm]\ndigest = \"sha256:{zeros}\"\nvms = [\"list\"]\n"),
    );
    let policy = policy.to_str().unwrap();
    let ran = home.run(["inspect", "--policy", policy, "vers-vm"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.contains("its bytes changed")
            && ran.out.contains("- ")
            && ran.out.contains("if you trust the new bytes"),
        "{ran:?}"
    );
    let ran = home.run(["run", "--policy", policy, "vers_vms"]);
    assert_eq!(ran.code, 3, "{ran:?}");
}

#[test]
fn a_setting_that_makes_no_sense_is_named() {
    let mut home = Home::new();
    home.set("VERS_BASE_URL", "http://api.example.com");
    check(&home.run(["run", "vers_vms"]), 2, &["not encrypted"]);
    let mut home = Home::new();
    home.set("VERS_VM_CONNECT", "here");
    check(&home.run(["tools"]), 2, &["VERS_VM_CONNECT"]);
}

#[test]
fn without_a_vm_bash_says_how_to_choose_one() {
    let home = Home::new();
    let ran = home.run(["run", "bash", r#"{"command":"true"}"#]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.out.contains("vers_vm_use") && ran.err.contains("vers_vm_use"),
        "{ran:?}"
    );
}
