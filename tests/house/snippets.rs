//! What the pages show to type, to save and to write works as it stands there.
//!
//! The forms:
//! - `sh` blocks of a page are run in their order by one shell, in a home of its own, with the binary in the `PATH`. The block after one may be its
//!   output: `text,output`, in which `…` stands for anything, and a line of its own for any lines. `sh,fails` has to fail.
//! - A block whose first line is a comment with nothing but a file's name (`// hello.js`, `# policy.toml`) is that file for the commands after it.
//! - `<!-- run by FILE -->` before a block names the test that runs it instead. `sh,no-run` runs nowhere, and `<!-- no-run: … -->` before it says why.
//!   `NOT_RUN` has how many of them a page may have, so that one more is a decision.
//! - `toml` is a policy if it speaks of an extension, `js` an extension, `json` and `jsonl` are parsed, `wit` is resolved against the contract. Code of other
//!   languages is a file of a sample (`{{#include …}}`), which the sample's own test builds, a file for the page's commands, or run by another test.
//!
//! Commands that are not run are still looked up in the help of the binary, by the tests of `readme`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pi_vers_tests::{Scratch, built};
use serde_json::Value;
use wit_parser::Resolve;

use crate::page::{Block, Page, pages, parts};

/// How many blocks of a page no test runs.
const NOT_RUN: [(&str, usize); 9] = [
    ("README.md", 4),
    ("docs/authoring.md", 1),
    ("docs/benchmarks.md", 3),
    ("docs/cli.md", 1),
    ("docs/extensions/sdk.md", 1),
    ("docs/mcp-clients.md", 4),
    ("docs/mcp.md", 2),
    ("docs/pi.md", 1),
    ("docs/policy.md", 1),
];

/// What a block before it, or its own tag, says of who runs it.
enum Runner {
    This,
    Other(String),
    Nobody(String),
}

fn runner(block: &Block) -> Runner {
    let comment = block
        .before
        .strip_prefix("<!-- ")
        .and_then(|rest| rest.strip_suffix(" -->"))
        .unwrap_or_default();
    if block.has("no-run") {
        let why = comment.strip_prefix("no-run: ").unwrap_or_default();
        return Runner::Nobody(why.to_owned());
    }
    match comment.strip_prefix("run by ") {
        Some(file) => Runner::Other(file.to_owned()),
        None => Runner::This,
    }
}

/// The file that a block is, if it says so.
fn file(block: &Block) -> Option<&str> {
    let first = block.text.lines().next()?;
    let name = first
        .strip_prefix("// ")
        .or_else(|| first.strip_prefix("# "))?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    (name.contains('.') && name.chars().all(plain) && !name.starts_with('/')).then_some(name)
}

/// The block with the files that it includes.
fn whole(page: &Page, block: &Block) -> String {
    let mut text = block.text.clone();
    while let Some((before, rest)) = text.split_once("{{#include ") {
        let (name, after) = rest.split_once("}}").expect("an inclusion ends");
        let path = page
            .path
            .parent()
            .expect("a page lies in a directory")
            .join(name);
        let included = std::fs::read_to_string(&path)
            .unwrap_or_else(|why| panic!("{}: {}: {why}", page.name, path.display()));
        text = format!("{before}{included}{after}");
    }
    text
}

/// A shell with the binary in its `PATH`, a scratch home, and what cargo needs to build a project without a network.
fn shell(scratch: &Scratch) -> Command {
    // A page that hangs fails.
    let mut shell = Command::new("timeout");
    shell.args(["--kill-after=10", "900", "/bin/sh"]);
    let as_binary = scratch.command();
    shell
        .env_clear()
        .current_dir(scratch.work())
        .stdin(Stdio::null());
    for (name, value) in as_binary.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let directory = built::binary().parent().expect("it lies in a directory");
    let real = std::env::home_dir().expect("who runs tests has a home");
    for (name, below) in [("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup")] {
        let known = std::env::var_os(name).map_or_else(|| real.join(below), PathBuf::from);
        shell.env(name, known);
    }
    if let Some(toolchain) = std::env::var_os("RUSTUP_TOOLCHAIN") {
        shell.env("RUSTUP_TOOLCHAIN", toolchain);
    }
    // What the SDK needs was fetched and compiled for the extensions inside the binary.
    let guests = std::env::var_os("PI_VERS_GUESTS_TARGET_DIR")
        .map_or_else(|| built::target().join("guests"), PathBuf::from);
    shell
        .env("CARGO_NET_OFFLINE", "true")
        .env("CARGO_TARGET_DIR", guests)
        .env("PATH", format!("{}:{path}", directory.display()));
    shell
}

/// Whether this is what is expected, where `…` stands for anything.
fn matches(expected: &str, got: &str) -> bool {
    fn line(expected: &str, got: &str) -> bool {
        match expected.split_once('…') {
            None => expected == got,
            Some((start, rest)) => got.strip_prefix(start).is_some_and(|got| {
                got.char_indices()
                    .map(|(at, _)| at)
                    .chain([got.len()])
                    .any(|at| line(rest, &got[at..]))
            }),
        }
    }
    fn lines(expected: &[&str], got: &[&str]) -> bool {
        match (expected.split_first(), got.split_first()) {
            (None, None) => true,
            (Some((first, rest)), _) if *first == "…" => {
                (0..=got.len()).any(|at| lines(rest, &got[at..]))
            }
            (Some((first, expected)), Some((next, got))) => {
                line(first, next) && lines(expected, got)
            }
            _ => false,
        }
    }
    let split = |text| -> Vec<&str> { str::trim(text).lines().map(str::trim_end).collect() };
    lines(&split(expected), &split(got))
}

/// Runs the commands of a page; what is wrong with them.
fn run(page: &Page) -> Vec<String> {
    let scratch = Scratch::new();
    let (blocks, _) = parts(&page.text);
    let kept = scratch.root().join("blocks");
    std::fs::create_dir(&kept).expect("a directory for blocks");
    let mut script = String::from("set -e\n");
    let mut ran = 0;
    for (number, block) in blocks.iter().enumerate() {
        let at = |what: &str| kept.join(format!("{number}.{what}")).display().to_string();
        let here = matches!(runner(block), Runner::This);
        if block.language == "sh" && here {
            ran += 1;
            let (out, text) = (at("out"), &block.text);
            if block.has("fails") {
                script.push_str(&format!("if {{\n{text}}} >{out} 2>&1; then exit 99; fi\n"));
            } else {
                script.push_str(&format!("{{\n{text}}} >{out} 2>&1\n"));
            }
        } else if let Some(name) = file(block).filter(|_| here) {
            std::fs::write(at("file"), whole(page, block)).expect("a block is written");
            script.push_str(&format!(
                "mkdir -p \"$(dirname {name})\"; cp {} {name}\n",
                at("file")
            ));
        }
    }
    if ran == 0 {
        return Vec::new();
    }
    let output = shell(&scratch)
        .args(["-c", &script])
        .output()
        .expect("there is a shell");
    let mut wrong = Vec::new();
    let said = |number: usize| std::fs::read_to_string(kept.join(format!("{number}.out"))).ok();
    for (number, block) in blocks.iter().enumerate() {
        let (Some(next), Some(said)) = (blocks.get(number + 1), said(number)) else {
            continue;
        };
        if next.has("output") && !matches(&next.text, &said) {
            let Block { line, text, .. } = next;
            wrong.push(format!(
                "{}:{line}: this should come of\n{}:\n{text}\nand this came:\n{said}",
                page.name, block.text
            ));
        }
    }
    if !output.status.success() {
        let last = (0..blocks.len())
            .rev()
            .find(|number| said(*number).is_some());
        let (line, said) = last.map_or((0, None), |number| (blocks[number].line, said(number)));
        wrong.push(format!(
            "{}:{line}: the commands end with {}: {}{}",
            page.name,
            output.status,
            said.unwrap_or_default(),
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    wrong
}

/// Runs the binary on a file with this text.
fn judged(args: &[&str], name: &str, text: &str, may: &[i32]) -> Result<(), String> {
    let scratch = Scratch::new();
    let path = scratch.work().join(name);
    std::fs::write(&path, text).expect("a block is written");
    let output = scratch
        .command()
        .args(args)
        .arg(&path)
        .output()
        .expect("the binary starts");
    if output.status.code().is_some_and(|code| may.contains(&code)) {
        return Ok(());
    }
    let (out, err) = (&output.stdout, &output.stderr);
    Err(format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    ))
}

/// A policy as a page shows it: its digests are not written out, or not there, and it may be lines of a section.
fn policy(text: &str) -> Result<(), String> {
    let digest = format!("sha256:{}", "0".repeat(64));
    let mut text = text.replace("sha256:…", &digest).replace("[…]", "[]");
    if !text.contains("[extension.") {
        text = format!("[extension.some]\n{text}");
    }
    if !text.contains("digest") {
        let bound = |line: &str| match line.starts_with("[extension.") {
            true => format!("{line}\ndigest = \"{digest}\"\n"),
            false => format!("{line}\n"),
        };
        text = text.lines().map(bound).collect();
    }
    // 1: it warns, of a digest that is nobody's, for example.
    judged(&["policy", "check"], "policy.toml", &text, &[0, 1])
}

fn contract(text: &str) -> Result<(), String> {
    let mut resolve = Resolve::default();
    resolve
        .push_dir(built::root().join("wit"))
        .map_err(|why| format!("{why:#}"))?;
    resolve
        .push_str("page.wit", text)
        .map(drop)
        .map_err(|why| format!("{why:#}"))
}

/// Whether a block is what its language says.
fn check(page: &Page, block: &Block) -> Result<(), String> {
    let text = whole(page, block);
    let json = |text: &str| serde_json::from_str::<Value>(text).map_err(|why| why.to_string());
    match &*block.language {
        "sh" | "text" => Ok(()),
        "json" => json(&text).map(drop),
        "jsonl" => {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(json).collect::<Result<Vec<_>, _>>().map(drop)
        }
        "js" => judged(
            &["inspect"],
            file(block).map_or("some.js", base),
            &text,
            &[0],
        ),
        // A section of a policy, or lines of one.
        "toml"
            if text.contains("[extension.") || !text.lines().any(|line| line.starts_with('[')) =>
        {
            policy(&text)
        }
        "toml" => toml::from_str::<toml::Table>(&text)
            .map(drop)
            .map_err(|why| why.to_string()),
        "wit" => contract(&text),
        "rust" | "python" | "c" | "zig" => {
            let known = block.text.starts_with("{{#include ") || file(block).is_some();
            let known = known || !matches!(runner(block), Runner::This);
            known
                .then_some(())
                .ok_or_else(|| "code that nothing builds".to_owned())
        }
        other => Err(format!("no test knows what to do with {other:?}")),
    }
}

fn base(name: &str) -> &str {
    Path::new(name)
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or(name)
}

#[test]
fn every_block_is_what_it_says() {
    let mut wrong = Vec::new();
    let mut idle: BTreeMap<String, usize> = BTreeMap::new();
    for page in pages() {
        for block in parts(&page.text).0 {
            let at = format!("{}:{}", page.name, block.line);
            match runner(&block) {
                Runner::This => {}
                Runner::Nobody(why) if why.is_empty() => {
                    wrong.push(format!("{at}: say why it can't run: <!-- no-run: … -->"));
                }
                Runner::Nobody(_) => *idle.entry(page.name.clone()).or_default() += 1,
                Runner::Other(test) => {
                    let name = base(&page.name);
                    let text = std::fs::read_to_string(built::root().join(&test));
                    // A script does what the page says without reading it.
                    let script = |text: &str| text.starts_with("#!");
                    if !text.is_ok_and(|text| text.contains(name) || script(&text)) {
                        wrong.push(format!("{at}: {test} is no test that speaks of {name}"));
                    }
                }
            }
            if let Err(why) = check(&page, &block) {
                wrong.push(format!("{at}: {why}"));
            }
        }
    }
    let known: BTreeMap<String, usize> = NOT_RUN
        .iter()
        .map(|(page, blocks)| ((*page).to_owned(), *blocks))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(idle, known, "blocks that nothing runs");
}

#[test]
fn every_command_that_can_run_does_what_its_page_says() {
    let wrong: Vec<String> = pages().iter().flat_map(run).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn output_is_compared_as_it_is_meant() {
    assert!(matches("a\nb", "a  \nb\n"));
    assert!(!matches("a", "a\nb"));
    assert!(matches("a … c", "a b b c"));
    assert!(!matches("a … c", "a b b d"));
    assert!(matches("…\nb\n…", "a\na\nb"));
    assert!(!matches("…\nb", "b\nc"));
    assert!(matches("exit …, … bytes", "exit 0, 5 bytes"));
}
