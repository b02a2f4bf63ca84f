//! The command line against the local platform, with real VMs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use common::{Home, Ran, finish, interrupt};
use serde_json::{Value, json};

/// A platform of its own, removed with all it holds.
struct Platform {
    home: Home,
    state: PathBuf,
}

impl Platform {
    fn up() -> Self {
        let home = Home::new();
        let state = home.path("platform");
        let this = Self { home, state };
        let ran = this.local("up");
        assert_eq!(ran.code, 0, "{ran:?}");
        this
    }

    fn state(&self) -> &str {
        self.state.to_str().unwrap()
    }

    fn local(&self, what: &str) -> Ran {
        self.home
            .run(["local", what, "--json", "--state", self.state()])
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [
            &[
                "run",
                "--quiet",
                "--json",
                "--local",
                "--state",
                self.state(),
            ][..],
            more,
        ]
        .concat()
    }

    fn run(&self, more: &[&str]) -> Ran {
        self.home.run(self.arguments(more))
    }

    /// Runs calls in one session, to the end.
    fn script(&self, calls: &[(&str, Value)]) -> (Ran, Vec<Value>) {
        let lines: Vec<String> = calls
            .iter()
            .map(|(tool, arguments)| json!({ "tool": tool, "arguments": arguments }).to_string())
            .collect();
        let ran = self.home.run_with_input(
            &self.arguments(&["--keep-going", "--script", "-"]),
            &lines.join("\n"),
        );
        let results = ran.json();
        assert_eq!(results.len(), calls.len(), "{ran:?}");
        (ran, results)
    }

    fn create(&self) -> String {
        let ran = self.run(&["vers_vm_create", r#"{"wait_boot":true}"#]);
        assert_eq!(ran.code, 0, "{ran:?}");
        vm_in(&ran.json()[0])
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let ran = self.local("reset");
        if !std::thread::panicking() {
            assert_eq!(ran.code, 0, "{ran:?}");
            assert!(!self.state.exists());
        }
    }
}

fn vm_in(result: &Value) -> String {
    let text = text_of(result);
    let mut words = text.split(|c: char| !c.is_ascii_hexdigit() && c != '-');
    words
        .rfind(|word| word.len() == 36)
        .unwrap_or_else(|| panic!("{result}"))
        .to_owned()
}

fn text_of(result: &Value) -> String {
    result["content"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|block| block["text"].as_str())
        .collect()
}

#[test]
fn calls_of_a_script_share_a_session_and_fail_one_by_one() {
    let platform = Platform::up();
    let vm = platform.create();
    let (ran, results) = platform.script(&[
        ("vers_vm_use", json!({ "vmId": vm })),
        (
            "bash",
            json!({ "command": "echo out; echo err >&2; exit 7" }),
        ),
        ("bash", json!({ "command": "echo still here" })),
        ("bash", json!({ "comand": "ls" })),
    ]);
    assert_eq!(ran.code, 1, "the first failure's: {ran:?}");
    let ok: Vec<bool> = results
        .iter()
        .map(|result| result["ok"].as_bool().unwrap())
        .collect();
    assert_eq!(ok, [true, false, true, false], "{ran:?}");
    assert!(
        text_of(&results[1]).contains("out")
            && results[1]["error"]["message"]
                .as_str()
                .unwrap()
                .contains('7'),
        "{}",
        results[1]
    );
    assert_eq!(results[3]["error"]["kind"], "arguments");
    // Without --keep-going the first failure is the last call.
    let lines = format!(
        "{}\n{}\n",
        json!({ "tool": "bash", "arguments": {} }),
        json!({ "tool": "vers_vms" })
    );
    let ran = platform
        .home
        .run_with_input(&platform.arguments(&["--script", "-"]), &lines);
    assert_eq!((ran.code, ran.json().len()), (2, 1), "{ran:?}");
}

#[test]
fn ids_that_are_unknown_partial_or_ambiguous() {
    let platform = Platform::up();
    let vm = platform.create();
    let unknown = "01234567-89ab-4cde-8f01-23456789abcd";
    let (_, results) = platform.script(&[
        ("vers_vm_use", json!({ "vmId": unknown })),
        ("vers_vm_use", json!({ "vmId": "zzz" })),
        ("vers_vm_use", json!({ "vmId": vm.get(..8).unwrap() })),
        ("bash", json!({ "command": "echo reached" })),
        ("vers_vm_delete", json!({ "vmId": unknown })),
        ("vers_vm_restore", json!({ "commitId": unknown })),
    ]);
    for at in [0, 1, 4, 5] {
        assert_eq!(results[at]["ok"], false, "{}", results[at]);
        let line = results[at]["error"]["message"].as_str().unwrap();
        assert!(!line.contains('\n') && !line.is_empty());
    }
    assert!(
        results[0]["error"]["message"]
            .as_str()
            .unwrap()
            .contains(unknown),
        "{}",
        results[0]
    );
    assert!(
        text_of(&results[3]).contains("reached"),
        "a beginning of the id is enough: {}",
        results[3]
    );
}

#[test]
fn a_vm_that_is_paused_or_deleted_meanwhile() {
    let platform = Platform::up();
    let vm = platform.create();
    let (_, results) = platform.script(&[
        ("vers_vm_use", json!({ "vmId": vm })),
        ("bash", json!({ "command": "echo one" })),
        ("vers_vm_state", json!({ "vmId": vm, "state": "Paused" })),
        ("bash", json!({ "command": "echo two" })),
    ]);
    assert!(
        results.iter().all(|result| result["ok"] == true),
        "{results:?}"
    );
    assert!(
        text_of(&results[3]).contains("resumed") && text_of(&results[3]).contains("two"),
        "{}",
        results[3]
    );
    // Deleted by somebody else while a session has it as its active VM.
    let session = ["--session", "gone"];
    let used = platform.run(
        &[
            &session[..],
            &["vers_vm_use", &format!("{{\"vmId\":\"{vm}\"}}")],
        ]
        .concat(),
    );
    assert_eq!(used.code, 0, "{used:?}");
    let deleted = platform.run(&["vers_vm_delete", &format!("{{\"vmId\":\"{vm}\"}}")]);
    assert_eq!(deleted.code, 0, "{deleted:?}");
    let ran = platform.run(&[&session[..], &["bash", r#"{"command":"echo three"}"#]].concat());
    assert_ne!(ran.code, 0, "{ran:?}");
    let line = ran.json()[0]["error"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(line.contains("vers_vm_use") || line.contains(&vm), "{line}");
}

#[test]
fn the_active_vm_belongs_to_the_session() {
    let platform = Platform::up();
    let vm = platform.create();
    let bash = ["bash", r#"{"command":"echo \"on $VERS_VM_ID\"; cd /tmp"}"#];
    let used = platform.run(&[
        "--session",
        "work",
        "vers_vm_use",
        &format!("{{\"vmId\":\"{vm}\"}}"),
    ]);
    assert_eq!(used.code, 0, "{used:?}");
    let same = platform.run(&[&["--session", "work"][..], &bash].concat());
    assert_eq!(same.code, 0, "{same:?}");
    assert!(text_of(&same.json()[0]).contains("on "), "{same:?}");
    let other = platform.run(&[&["--session", "other"][..], &bash].concat());
    assert_eq!(other.code, 1, "{other:?}");
    assert!(
        text_of(&other.json()[0]).contains("No VM is active"),
        "{other:?}"
    );
    let file = platform
        .home
        .path(".local/state/pi-vers/sessions/work.json");
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(
        std::fs::metadata(file).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn ctrl_c_stops_the_command_on_the_vm() {
    let platform = Platform::up();
    let vm = platform.create();
    let mark = format!("mark-{}", std::process::id());
    let calls = format!(
        "{}\n{}\n",
        json!({ "tool": "vers_vm_use", "arguments": { "vmId": vm } }),
        json!({ "tool": "bash", "arguments": { "command": format!("export MARK={mark}; echo started; sleep 1000") } }),
    );
    let script = platform.home.write("s.jsonl", calls);
    let arguments = [
        "run",
        "--local",
        "--state",
        platform.state(),
        "--script",
        script.to_str().unwrap(),
    ];
    let mut child = platform.home.command(arguments).spawn().unwrap();
    // Shown while it runs, line by line, on standard error.
    let mut errors = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(
        errors.any(|line| line.contains("started")),
        "it ended before it started"
    );
    interrupt(&child);
    let rest: Vec<String> = errors.collect();
    let ran = finish(child);
    assert_eq!(ran.code, 6, "{ran:?} {rest:?}");
    let count = format!(
        "n=0; for f in /proc/[0-9]*/environ; do grep -qsa MARK={mark} $f && n=$((n + 1)); done; echo left: $n"
    );
    let (_, results) = platform.script(&[
        ("vers_vm_use", json!({ "vmId": vm })),
        ("bash", json!({ "command": count })),
    ]);
    assert!(text_of(&results[1]).contains("left: 0"), "{results:?}");
}

#[test]
fn a_platform_that_was_not_up_is_up_for_the_run_only() {
    let home = Home::new();
    let state = home.path("platform");
    let state = state.to_str().unwrap();
    let ran = home.run(["run", "--local", "--state", state, "vers_vms"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.err.contains("starting the local platform for this run"),
        "{ran:?}"
    );
    let status = home.run(["local", "status", "--json", "--state", state]);
    assert_eq!(status.json()[0]["running"], false, "{status:?}");
    // What was there is there again: the VM sleeps between runs.
    let ran = home.run([
        "run",
        "--json",
        "--local",
        "--state",
        state,
        "vers_vm_create",
        r#"{"wait_boot":true}"#,
    ]);
    let vm = vm_in(&ran.json()[0]);
    let ran = home.run(["run", "--local", "--state", state, "vers_vms"]);
    assert!(ran.out.contains(&vm), "{ran:?}");
    assert_eq!(home.run(["local", "reset", "--state", state]).code, 0);
}

#[test]
fn the_platform_is_not_up_when_it_has_to_be() {
    let home = Home::new();
    let state = home.path("platform");
    let ran = home.run(["whoami", "--local", "--state", state.to_str().unwrap()]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.line().contains("pi-vers local up --state"), "{ran:?}");
}

#[test]
fn the_demo_does_all_it_says_and_leaves_nothing() {
    let home = Home::new();
    let temporary = home.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let ran = finish(
        home.command(["--quiet", "demo", "--json"])
            .env("TMPDIR", &temporary)
            .spawn()
            .unwrap(),
    );
    let lines = ran.json();
    let failed: Vec<&Value> = lines.iter().filter(|line| line["ok"] != true).collect();
    assert!(
        ran.code == 0 && failed.is_empty(),
        "{failed:#?} {}",
        ran.err
    );
    assert_eq!(lines.last().unwrap()["steps"], 15);
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn a_swarm_does_its_job_across_cuts_and_leaves_nothing() {
    let mut home = Home::new();
    // Of a user who has them: they are not for a demo.
    home.set("LLM_PROXY_KEY", "sk-vers-of-the-user");
    home.set("PI_PATH", "/nowhere/pi");
    let temporary = home.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let ran = finish(
        home.command(["--quiet", "demo", "--json", "--swarm", "2"])
            .env("TMPDIR", &temporary)
            .spawn()
            .unwrap(),
    );
    let lines = ran.json();
    let failed: Vec<&Value> = lines.iter().filter(|line| line["ok"] != true).collect();
    assert!(
        ran.code == 0 && failed.is_empty(),
        "{failed:#?} {}",
        ran.err
    );
    assert_eq!(lines.last().unwrap()["steps"], 9);
    for says in [
        "each of them there exactly once",
        "003-is_leap.sh",
        "2 connections cut",
        "vers_vms finds none",
    ] {
        assert!(ran.out.contains(says), "{says}: {}", ran.out);
    }
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

#[test]
fn a_swarm_of_pis_needs_a_pi_of_npm() {
    let mut home = Home::new();
    home.set("PI_PATH", "/bin/sh");
    let ran = home.run(["demo", "--swarm", "2", "--agent", "pi"]);
    assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{ran:?}");
    assert!(ran.line().contains("is no pi from npm"), "{ran:?}");
    for wrong in [
        &["demo", "--swarm", "1"][..],
        &["demo", "--agent", "pi"],
        &["demo", "--swarm", "2", "--keep"],
    ] {
        assert_eq!(home.run(wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn a_demo_that_is_kept_can_be_played_with() {
    let home = Home::new();
    let state = home.path("platform");
    let state = state.to_str().unwrap();
    let ran = home.run(["--quiet", "demo", "--keep", "--state", state]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for part in [
        "Go on with it:",
        "local status --state",
        "local down --state",
    ] {
        assert!(ran.out.contains(part), "{part}: {ran:?}");
    }
    // The very commands it prints.
    for command in ran
        .out
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pi-vers run "))
    {
        let script = format!("exec \"$0\" run {command}");
        let mut shell = home.command([""; 0]);
        let program = shell.get_program().to_owned();
        let variables: Vec<_> = shell
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
            .collect();
        shell = std::process::Command::new("/bin/sh");
        shell.args(["-c".as_ref(), script.as_ref(), program.as_os_str()]);
        shell
            .env_clear()
            .envs(variables)
            .current_dir(home.path("work"));
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{command}: {output:?}");
    }
    let status = home.run(["local", "status", "--json", "--state", state]);
    assert_eq!(
        status.json()[0]["vms"].as_array().unwrap().len(),
        1,
        "{status:?}"
    );
    assert_eq!(home.run(["local", "reset", "--state", state]).code, 0);
}

#[test]
fn a_command_that_is_stopped_at_the_time_limit_keeps_what_it_said() {
    let platform = Platform::up();
    let vm = platform.create();
    let used = platform.run(&[
        "--session",
        "s",
        "vers_vm_use",
        &format!("{{\"vmId\":\"{vm}\"}}"),
    ]);
    assert_eq!(used.code, 0, "{used:?}");
    let ran = platform.run(&[
        "--session",
        "s",
        "--timeout",
        "3s",
        "bash",
        r#"{"command":"echo said; sleep 1000"}"#,
    ]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(text_of(&ran.json()[0]).contains("said"), "{ran:?}");
}

#[test]
fn a_demo_that_is_interrupted_cleans_up_and_says_so() {
    let home = Home::new();
    let temporary = home.path("tmp");
    std::fs::create_dir(&temporary).unwrap();
    let mut child = home
        .command(["--quiet", "demo", "--json"])
        .env("TMPDIR", &temporary)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(|line| -> Value { serde_json::from_str(&line.unwrap()).unwrap() });
    assert!(lines.any(|line| {
        line["step"]
            .as_str()
            .is_some_and(|step| step.contains("vers_vm_use"))
    }));
    interrupt(&child);
    let rest: Vec<Value> = lines.collect();
    let ran = finish(child);
    assert_eq!(ran.code, 6, "{ran:?} {rest:?}");
    assert!(rest.iter().any(|line| line["skipped"] == true), "{rest:?}");
    let end = rest
        .iter()
        .rfind(|line| {
            line["step"]
                .as_str()
                .is_some_and(|step| step.contains("nothing is left"))
        })
        .unwrap();
    assert_eq!(end["ok"], true, "{end}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}
