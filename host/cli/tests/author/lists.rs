//! `add`, `list`, `remove`, `update` of a local file.

use serde_json::json;

use crate::common::Home;
use crate::{built, digest, home, other};

/// A home with the component in a file.
fn with_component() -> (Home, String) {
    let home = home();
    let file = home.write("work/hello.wasm", built().wasm());
    let file = file.display().to_string();
    (home, file)
}

#[test]
fn an_added_extension_is_in_every_session_until_it_is_removed() {
    let (home, file) = with_component();
    let ran = home.run(["add", &file]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out
            .contains("vers:platform/shell@0.1.0  run commands on Vers VMs"),
        "{ran:?}"
    );
    assert!(ran.out.contains("signed  by nobody"), "{ran:?}");
    assert!(ran.err.contains("granted nothing yet"), "{ran:?}");
    // The installed bytes are what runs: the file is not looked at any more.
    std::fs::remove_file(&file).unwrap();
    let ran = home.run(["run", "hello_greet", r#"{"name":"Ada"}"#]);
    assert_eq!(
        (ran.code, ran.out.as_str()),
        (0, "Hello, Ada! You are number 1.\n"),
        "{ran:?}"
    );
    let ran = home.run(["tools", "--json"]);
    assert!(ran.out.contains("\"hello_run\""), "{ran:?}");
    let listed = home.run(["list", "--json"]).json();
    assert_eq!(listed[0][0]["state"], "installed", "{listed:?}");
    assert_eq!(listed[0][0]["grants"], "nothing granted");
    assert_eq!(listed[0][0]["locked"]["digest"], digest(&built().wasm()));
    // By name, wherever a component is asked for.
    assert_eq!(home.run(["inspect", "hello"]).code, 0);
    let vm = "{\"vm\":\"00000000-0000-4000-8000-000000000001\",\"command\":[\"ls\"]}";
    let ran = home.run(["run", "hello_run", vm]);
    assert_eq!(ran.code, 3, "{ran:?}");
    let ran = home.run(["remove", "hello"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = home.run(["run", "hello_greet", r#"{"name":"Ada"}"#]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert_eq!(home.run(["remove", "hello"]).code, 2);
}

#[test]
fn the_bridge_and_mcp_offer_it_too() {
    let (home, file) = with_component();
    assert_eq!(home.run(["add", &file]).code, 0);
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#;
    let more = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/list\"}\n";
    listed(&home, "mcp", &format!("{hello}\n{more}"), "\"id\":2");
    let hello = r#"{"t":"hello","v":1,"cwd":"/"}"#;
    listed(&home, "bridge", &format!("{hello}\n"), "\"t\":\"ready\"");
}

/// Asks a front end, and looks for the tool in the line that answers.
fn listed(home: &Home, front: &str, ask: &str, answer: &str) {
    use std::io::{BufRead as _, Write as _};
    let mut command = home.command([front]);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(ask.as_bytes()).unwrap();
    input.flush().unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
    let line = output.find_map(|line| line.ok().filter(|line| line.contains(answer)));
    drop(input);
    let line = line.unwrap_or_default();
    assert!(line.contains("hello_greet"), "{front}: {line}");
    assert!(child.wait().unwrap().code().is_some());
}

#[test]
fn an_update_says_what_changed_and_voids_what_was_granted() {
    let (home, file) = with_component();
    assert_eq!(home.run(["add", &file]).code, 0);
    let rule = "vms = [\"list\"]";
    let ran = home.run(["policy", "grant", "hello", "--rule", rule, "--yes"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = home.run(["update"]);
    assert!(ran.out.contains("nothing new"), "{ran:?}");
    let new = other(&built().wasm(), "two");
    std::fs::write(&file, &new).unwrap();
    // Nothing changes by itself, and nothing by looking.
    let ran = home.run(["update", "--dry-run", "--json"]);
    assert_eq!(ran.json()[0]["updated"], true, "{ran:?}");
    assert_eq!(home.run(["policy", "explain", "hello", "vms.list"]).code, 0);
    let ran = home.run(["update", "hello"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.contains(&digest(&new)) && ran.out.contains("does not hold any more"),
        "{ran:?}"
    );
    assert!(ran.out.contains("vms: list"), "{ran:?}");
    assert_eq!(home.run(["policy", "explain", "hello", "vms.list"]).code, 3);
    let listed = home.run(["list", "--json"]).json();
    assert_eq!(
        listed[0][0]["grants"],
        "granted to other bytes: nothing holds"
    );
}

#[test]
fn what_cannot_be_added_changes_nothing() {
    let (home, file) = with_component();
    let bad = home.write("work/bad.wasm", b"\0asm\x01\0\0\0");
    for args in [
        vec!["add", "nowhere.wasm"],
        vec!["add", bad.to_str().unwrap()],
        vec!["add", "http://example.com/x.wasm"],
        vec!["add", "file:///etc/passwd"],
        vec!["add", &file, "--digest", &"0".repeat(64)],
        vec!["add", &file, "--signed-by", "alice"],
    ] {
        let ran = home.run(&args);
        assert!(ran.code > 1, "{args:?}: {ran:?}");
        assert_eq!(ran.out, "", "{args:?}");
    }
    assert_eq!(home.run(["list", "--json"]).json()[0], json!([]));
    // A shipped extension's name is not to be had.
    let shipped = std::env::current_exe().unwrap();
    let guests = crate::guests().join("wasm32-wasip2/release/vers_vm.wasm");
    assert!(
        guests.exists(),
        "{} beside {}",
        guests.display(),
        shipped.display()
    );
    let ran = home.run(["add", guests.to_str().unwrap()]);
    assert!(
        ran.err.contains("as an extension inside pi-vers does"),
        "{ran:?}"
    );
}

#[test]
fn an_installed_file_that_was_changed_is_not_used() {
    let (home, file) = with_component();
    assert_eq!(home.run(["add", &file]).code, 0);
    let name = digest(&built().wasm()).replace(':', "-");
    let installed = home.path(&format!(".local/state/pi-vers/components/{name}.wasm"));
    std::fs::write(&installed, other(&built().wasm(), "evil")).unwrap();
    let ran = home.run(["run", "hello_greet", r#"{"name":"Ada"}"#]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(
        ran.err.contains("other bytes than its digest says"),
        "{ran:?}"
    );
    // The lock brings back what it was.
    assert_eq!(home.run(["lock"]).code, 0);
    assert_eq!(
        home.run(["run", "hello_greet", r#"{"name":"Ada"}"#]).code,
        0
    );
}

#[test]
fn a_projects_list_runs_nothing_that_was_not_installed_here() {
    let (home, file) = with_component();
    // As it comes with somebody's repository: wanted, locked, and never installed here.
    let list = format!("[extensions]\nhello = \"{file}\"\n");
    home.write("work/pi-vers.toml", &list);
    let ran = home.run(["run", "hello_greet", r#"{"name":"Ada"}"#]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(
        ran.err.contains("not locked") && ran.err.contains("left out"),
        "{ran:?}"
    );
    let ran = home.run(["lock", "--project"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(
        home.run(["run", "hello_greet", r#"{"name":"Ada"}"#]).code,
        0
    );
    // Another user with the same files.
    let stranger = crate::home();
    stranger.write("work/pi-vers.toml", &list);
    stranger.write(
        "work/pi-vers.lock",
        std::fs::read(home.path("work/pi-vers.lock")).unwrap(),
    );
    let ran = stranger.run(["run", "hello_greet", r#"{"name":"Ada"}"#]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.err.contains("not installed here"), "{ran:?}");
}
