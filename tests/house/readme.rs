//! What the README and the guides say to type exists, and so do the files they lead to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use pi_vers_tests::built;

/// The README, and every page of `docs/`.
fn pages() -> Vec<PathBuf> {
    let root = built::root();
    let mut pages = vec![root.join("README.md")];
    let mut open = vec![root.join("docs")];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages
}

/// The commands of all fenced `sh` blocks: with their continuations, without comments and prompts.
fn commands(page: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let (mut inside, mut continued) = (None, false);
    for line in page.lines() {
        let line = line.trim();
        if let Some(language) = line.strip_prefix("```") {
            inside = if inside.is_some() {
                None
            } else {
                Some(["sh", "bash", "shell", "console"].contains(&language))
            };
            continued = false;
            continue;
        }
        let line = line.strip_prefix("$ ").unwrap_or(line);
        if inside != Some(true) || line.is_empty() || line.starts_with('#') {
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
        let text = std::fs::read_to_string(&page).expect("a page");
        for command in commands(&text) {
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
                                page.display()
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
                        wrong.extend(unknown.map(|flag| {
                            format!("{}: `{command}`: there is no {flag}", page.display())
                        }));
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

/// The targets of inline links.
fn links(page: &str) -> Vec<&str> {
    page.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', ' ']).next())
        .collect()
}

#[test]
fn every_file_that_is_linked_to_exists() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).expect("a page");
        for link in links(&text) {
            let file = link.split('#').next().unwrap_or_default();
            if file.is_empty() || file.contains("://") || file.starts_with("mailto:") {
                continue;
            }
            checked += 1;
            if !page.parent().unwrap_or(Path::new("/")).join(file).exists() {
                wrong.push(format!(
                    "{} leads to {link}, which is not there",
                    page.display()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked >= 3, "the README's links were not found");
}

#[test]
fn the_page_reader_reads() {
    let page = "a\n```sh\n# no\n$ pi-vers run \\\n  --local x '{\"a\": 1}'   # why\ncargo run --release -- demo\n```\n```text\npi-vers no\n```\n[b](c.md#d)";
    let found = commands(page);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(given(&words(&found[0])), Some(vec!["run", "--local", "x"]));
    assert_eq!(given(&words(&found[1])), Some(vec!["demo"]));
    assert_eq!(links(page), ["c.md#d"]);
    assert_eq!(
        subcommands(
            "Usage\n\nCommands:\n  run    Call it\n         twice\n  local  The\n\nOptions:\n  -q"
        ),
        ["run", "local"]
    );
}
