//! What the pages tell an author to type and to write works as it stands there.

use std::path::Path;
use std::process::Command;

use crate::common::BINARY;
use crate::{built, home};

fn page(name: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::read_to_string(root.join(name)).unwrap()
}

/// The fenced blocks of a language, from this heading on.
fn blocks(page: &str, from: &str, language: &str) -> Vec<String> {
    let (_, rest) = page.split_once(from).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<(bool, String)> = None;
    for line in rest.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => open = Some((kind == language, String::new())),
            (Some((wanted, text)), Some(_)) => {
                if *wanted {
                    blocks.push(text.clone());
                }
                open = None;
            }
            (Some((_, text)), None) => text.push_str(&format!("{line}\n")),
            (None, None) => {}
        }
    }
    blocks
}

#[test]
fn from_nothing_to_a_tool_call_in_six_commands() {
    for (name, from) in [
        ("README.md", "### An extension of your own"),
        ("docs/authoring.md", "# Writing an extension"),
    ] {
        let block = blocks(&page(name), from, "sh").remove(0);
        let commands = block.lines().filter(|line| !line.trim().is_empty());
        assert!((3..=6).contains(&commands.count()), "{name}: {block}");
        let home = home();
        let mut shell = Command::new("/bin/sh");
        // As the user's shell would find it.
        let directory = Path::new(BINARY).parent().unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        shell
            .args(["-e", "-c", &block])
            .current_dir(home.path("work"))
            .env_clear()
            .env("HOME", home.root.path())
            .env("XDG_CACHE_HOME", directory.join("pi-vers-test-cache"))
            .env("PATH", format!("{}:{path}", directory.display()))
            .envs(home.variables.iter().map(|(name, value)| (name, value)));
        let output = shell.output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{name}: {out}{said}");
        assert!(
            out.ends_with("Hello, Ada! You are number 1.\n"),
            "{name}: {out}{said}"
        );
    }
}

#[test]
fn every_script_in_the_pages_passes() {
    let scripts = blocks(&page("docs/authoring.md"), "## Tests", "jsonl");
    assert!(scripts.len() >= 2, "the scripts were not found");
    let home = home();
    let project = built().project();
    for (number, script) in scripts.iter().enumerate() {
        let file = home.write(&format!("work/{number}.jsonl"), script);
        let args = [
            "test",
            project.to_str().unwrap(),
            "--no-build",
            file.to_str().unwrap(),
        ];
        let ran = home.run(args);
        assert_eq!(ran.code, 0, "{script}: {ran:?}");
    }
}
