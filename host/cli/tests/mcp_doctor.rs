//! `pi-vers mcp doctor` on a healthy program, and on what is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "it is test code: a panic is how it says what is wrong"
)]

mod common;

use common::{BINARY, Home, Ran};
use serde_json::Value;

fn doctor(home: &Home, more: &[&str]) -> Ran {
    home.run(["mcp", "doctor", "--offline", "--json"].iter().chain(more))
}

/// The checks by name.
fn text<'a>(checks: &'a [Value], name: &str) -> (&'a str, bool) {
    let check = checks.iter().find(|check| check["check"] == name);
    let check = check.unwrap_or_else(|| panic!("no check {name}: {checks:?}"));
    (check["text"].as_str().unwrap(), check["ok"] == true)
}

#[test]
fn a_healthy_server_passes_every_check_in_both_eras() {
    let home = Home::new();
    home.run(["mcp", "setup", "claude"]);
    let before: Vec<_> = std::fs::read_dir(home.root.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    let ran = doctor(&home, &[]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let checks = ran.json();
    for year in ["2025", "2026"] {
        for (what, says) in [
            ("start", "answered in"),
            ("lists", " tools, "),
            ("call", "bg_list answered"),
            ("unknown", "refused"),
            ("cancel", "stopped within"),
            ("end", "with a call under way"),
            ("output", "nothing but the protocol"),
        ] {
            let (text, ok) = text(&checks, &format!("{what} {year}"));
            assert!(ok && text.contains(says), "{what} {year}: {text}");
        }
    }
    let (text, ok) = text(&checks, "claude");
    assert!(
        ok && text.contains(BINARY) && text.contains("with the hook"),
        "{text}"
    );
    let after: Vec<_> = std::fs::read_dir(home.root.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(before, after, "it leaves nothing behind");
}

#[test]
fn what_is_wrong_is_told_with_the_next_step_and_exit_code_1() {
    let home = Home::new();
    home.write(
        ".cursor/mcp.json",
        r#"{"mcpServers":{"vers":{"command":"/gone/pi-vers","args":["mcp"]}}}"#,
    );
    home.write(".codex/config.toml", "x = \n");
    let missing = home.path("work/missing.wasm");
    let ran = doctor(&home, &["-e", missing.to_str().unwrap()]);
    assert_eq!(ran.code, 1, "{ran:?}");
    let checks = ran.json();
    let (said, ok) = text(&checks, "lists 2025");
    assert!(!ok && said.contains("missing.wasm"), "{said}");
    let (said, ok) = text(&checks, "cursor");
    assert!(!ok && said.contains("/gone/pi-vers is not there"), "{said}");
    assert!(
        said.contains("`pi-vers mcp setup cursor --scope user`"),
        "{said}"
    );
    let (said, ok) = text(&checks, "codex");
    assert!(!ok && said.contains("no valid TOML"), "{said}");
    for check in checks.iter().filter(|check| check["ok"] == false) {
        assert!(check["text"].as_str().unwrap().contains('→'), "{check}");
    }
}

#[test]
fn the_key_and_the_platform_are_looked_at_unless_offline() {
    let mut home = Home::new();
    home.set("VERS_BASE_URL", "http://127.0.0.1:9");
    let ran = home.run(["mcp", "doctor", "--json"]);
    assert_eq!(ran.code, 1, "nobody is there: {ran:?}");
    let checks = ran.json();
    let (said, ok) = text(&checks, "key");
    assert!(
        ok && said.contains("VERS_API_KEY") && !ran.out.contains("key-for-tests"),
        "{said}"
    );
    assert!(!text(&checks, "platform").1);
    let (said, ok) = text(&checks, "clients");
    assert!(ok && said.contains("`pi-vers mcp setup claude`"), "{said}");
}
