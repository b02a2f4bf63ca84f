//! What the README and the guides say to type exists.

use std::collections::BTreeMap;
use std::process::Command;

use pi_vers_tests::built;

use crate::page::{pages, parts};

/// The commands of all fenced `sh` blocks: with their continuations, without comments and prompts.
fn commands(page: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let shells = ["sh", "bash", "shell", "console"];
    let (blocks, _) = parts(page);
    for block in blocks
        .iter()
        .filter(|block| shells.contains(&&*block.language))
    {
        let mut continued = false;
        for line in block.text.lines().map(str::trim) {
            let line = line.strip_prefix("$ ").unwrap_or(line);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (text, more) = line
                .strip_suffix('\\')
                .map_or((line, false), |text| (text, true));
            match commands.last_mut().filter(|_| continued) {
                Some(last) => last.push_str(text),
                None => commands.push(text.to_owned()),
            }
            continued = more;
        }
    }
    commands
}

/// The words of a command as far as they are plain: up to the first that a shell would change.
fn words(command: &str) -> Vec<&str> {
    let words = command.split_whitespace();
    words
        .take_while(|word| !word.contains(['\'', '"', '$', '|', '>', '<', ';', '&', '#', '`', '{']))
        .collect()
}

/// What `pi-vers` is given, where the command runs it.
fn given<'a>(words: &[&'a str]) -> Option<Vec<&'a str>> {
    if words.first() == Some(&"pi-vers") {
        return Some(words[1..].to_vec());
    }
    if words.starts_with(&["cargo", "run"]) {
        let after = words
            .iter()
            .position(|word| *word == "--")
            .map_or(words.len(), |at| at + 1);
        // Another program of the workspace.
        if words[..after].contains(&"-p") {
            return None;
        }
        return Some(words[after..].to_vec());
    }
    None
}

/// The help of a command of the binary.
fn help(helps: &mut BTreeMap<String, String>, path: &[&str]) -> String {
    let known = helps.entry(path.join(" ")).or_insert_with(|| {
        let output = Command::new(built::binary())
            .args(path)
            .arg("--help")
            .output()
            .expect("the binary starts");
        assert!(
            output.status.success(),
            "pi-vers {} --help: {}",
            path.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    });
    known.clone()
}

/// The commands a help lists.
fn subcommands(help: &str) -> Vec<&str> {
    let lines = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    // Continued descriptions are indented deeper.
    lines
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect()
}

#[test]
fn every_command_in_the_pages_is_one() {
    let mut helps = BTreeMap::new();
    let (mut checked, mut wrong) = (0, Vec::new());
    for page in pages() {
        for command in commands(&page.text) {
            let words = words(&command);
            let Some(given) = given(&words) else { continue };
            checked += 1;
            let mut path: Vec<&str> = Vec::new();
            let mut rest = given.as_slice();
            // Down the tree of commands, as far as there is one.
            loop {
                let shown = help(&mut helps, &path);
                let below = subcommands(&shown);
                match rest.first() {
                    Some(word) if !below.is_empty() && !word.starts_with('-') => {
                        if !below.contains(word) {
                            wrong.push(format!(
                                "{}: `{command}`: there is no command {word}",
                                page.name
                            ));
                            break;
                        }
                        path.push(word);
                        rest = &rest[1..];
                    }
                    _ => {
                        let flags = rest
                            .iter()
                            .take_while(|word| **word != "--")
                            .filter(|word| word.starts_with("--"));
                        let unknown = flags
                            .map(|flag| flag.split('=').next().unwrap_or(flag))
                            .filter(|flag| !has_flag(&shown, flag));
                        wrong.extend(
                            unknown.map(|flag| {
                                format!("{}: `{command}`: there is no {flag}", page.name)
                            }),
                        );
                        break;
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked >= 3, "the README's commands were not found");
}

fn has_flag(help: &str, flag: &str) -> bool {
    help.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .any(|word| word == flag)
}

#[test]
fn the_page_reader_reads() {
    let page = "a\n```sh\n# no\n$ pi-vers run \\\n  --local x '{\"a\": 1}'   # why\ncargo run --release -- demo\n```\n```text\npi-vers no\n```";
    let found = commands(page);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(given(&words(&found[0])), Some(vec!["run", "--local", "x"]));
    assert_eq!(given(&words(&found[1])), Some(vec!["demo"]));
    assert_eq!(
        subcommands(
            "Usage\n\nCommands:\n  run    Call it\n         twice\n  local  The\n\nOptions:\n  -q"
        ),
        ["run", "local"]
    );
}
