#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::judge;

/// Commands that have to pass, one a line; `⏎` is a line's end inside of one.
const ALLOWED: &str = include_str!("allowed.txt");
/// Commands that have to be refused.
const REFUSED: &str = include_str!("refused.txt");

fn commands(list: &str) -> Vec<String> {
    list.lines()
        .filter(|line| !line.is_empty() && !line.starts_with("## "))
        .map(|line| line.replace('⏎', "\n"))
        .collect()
}

#[test]
fn what_only_reads_passes() {
    let commands = commands(ALLOWED);
    assert!(commands.len() >= 150, "{}", commands.len());
    let wrong: Vec<String> = commands
        .iter()
        .filter_map(|command| Some(format!("{command}\n    {}", judge(command).err()?)))
        .collect();
    assert!(wrong.is_empty(), "refused:\n{}", wrong.join("\n"));
}

#[test]
fn what_may_change_something_is_refused() {
    let commands = commands(REFUSED);
    assert!(commands.len() >= 150, "{}", commands.len());
    let wrong: Vec<&String> = commands.iter().filter(|c| judge(c).is_ok()).collect();
    assert!(wrong.is_empty(), "passed:\n{wrong:#?}");
}

#[test]
fn a_refusal_names_the_program_and_what_is_wrong_with_it() {
    for (command, says) in [
        ("sort -o out in", "the option `-o` of `sort`"),
        ("cat a; python3 -c 1", "`python3`"),
        ("find . -delete", "`find -delete`"),
        ("echo x > out", "`> out` writes a file"),
        ("less a", "use cat"),
        ("git push", "`git push`"),
        ("[[ -f x ]]", "use `[ … ]` instead"),
        ("python3 x.py", "only its `--version`"),
        ("echo $(id)", "command substitution"),
        ("sed -i s/a/b/ f", "the option `-i` of `sed`"),
        ("sed -n 1p $f", "`$f` may become an option of `sed`"),
    ] {
        let why = judge(command).unwrap_err().to_string();
        assert!(why.contains(says), "{command}: {why}");
    }
}

#[test]
fn depth_and_length_are_bounded() {
    assert!(judge(&"( ".repeat(100_000)).is_err());
    assert!(judge(&"{ ".repeat(1000)).is_err());
    assert!(judge(&"env ".repeat(1000)).is_err());
    assert!(judge(&format!("echo {}", "x".repeat(100_000))).is_err());
}

/// A tree as it can be seen: names, kinds, bits, contents and times.
fn look(root: &Path) -> BTreeMap<String, (String, Vec<u8>)> {
    fn walk(at: &Path, root: &Path, tree: &mut BTreeMap<String, (String, Vec<u8>)>) {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            let meta = std::fs::symlink_metadata(&path).unwrap();
            let contents = if meta.is_file() {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            let facts = format!(
                "{:?} {:?} {:?}",
                meta.file_type(),
                meta.permissions(),
                meta.modified().unwrap()
            );
            let name = path.strip_prefix(root).unwrap().display().to_string();
            tree.insert(name, (facts, contents));
            if meta.is_dir() {
                walk(&path, root, tree);
            }
        }
    }
    let mut tree = BTreeMap::new();
    walk(root, root, &mut tree);
    tree
}

fn bash(script: &str, directory: &Path) -> Option<i32> {
    let mut command = Command::new("bash");
    command
        .args(["-c", script])
        .current_dir(directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
        .env("HOME", directory)
        .env("XDG_CONFIG_HOME", directory.join("none"))
        .env("GIT_CONFIG_NOSYSTEM", "1")
        // Without it `git status` writes down in its index what it has seen.
        .env("GIT_OPTIONAL_LOCKS", "0");
    command.status().expect("bash is there").code()
}

/// The proof by doing: whatever passes leaves a directory as it was.
#[test]
fn nothing_that_passes_changes_the_directory() {
    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let prepare = "mkdir -p src docs 'with space'; printf 'fn main() {}\\n' > src/main.rs; printf 'pub fn a() {}\\n' > src/lib.rs
        printf 'b\\na\\nb\\n' > a.txt; printf '1:x:2\\n3:y:4\\n' > b.txt; printf '# t\\n' > README.md; printf '{\"a\":1}' > package.json
        printf 'x\\n' > 'with space/f.txt'; printf 'log\\n' > app.log; printf 'docs\\n' > docs/a.md
        tar cf a.tar a.txt b.txt; gzip -k a.txt; cp a.txt -- -o; cp a.txt -- -delete
        if command -v git > /dev/null; then git init -q . && git add src a.txt && git -c user.name=a -c user.email=a@b commit -qm first; fi
        find . -exec touch -h -d '2001-01-01' {} + ; GIT_OPTIONAL_LOCKS=1 git status > /dev/null 2>&1; true";
    assert_eq!(bash(prepare, at), Some(0));
    let before = look(at);
    assert!(before.len() > 12);
    for command in commands(ALLOWED) {
        // What waits for the network or for time says nothing here.
        if [
            "curl",
            "ping",
            "dig",
            "host ",
            "kubectl",
            "docker",
            "sleep",
            "ls-remote",
        ]
        .iter()
        .any(|word| command.contains(word))
        {
            continue;
        }
        bash(&format!("ulimit -t 10; {command}"), at);
        let after = look(at);
        let changed: Vec<_> = after
            .keys()
            .chain(before.keys())
            .filter(|name| before.get(*name) != after.get(*name))
            .collect();
        assert!(changed.is_empty(), "{command} changed {changed:?}");
    }
}

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,4}",
        Just("cat".to_owned()),
        Just("ls".to_owned()),
        Just("grep x".to_owned()),
        Just("git log".to_owned()),
        Just("'q > q'".to_owned()),
        Just("\"d > d\"".to_owned()),
        Just("$x".to_owned()),
        Just("*.rs".to_owned()),
        Just("-l".to_owned()),
        Just("2".to_owned()),
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("(".to_owned()),
        Just(")".to_owned()),
    ]
}

fn joint() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        " ",
        " ",
        "; ",
        " | ",
        " && ",
        " || ",
        "\n",
        " 2>&1 ",
        " >/dev/null ",
        " \\\n ",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn any_text_is_judged_without_a_panic(text in any::<String>()) {
        let _ = judge(&text);
    }

    #[test]
    fn any_text_of_the_shells_characters_is_judged_without_a_panic(
        text in "(cat|sed|awk|find|git|tar|env|xargs|if|for|in|do|done|then|fi|read|x|\\.| |-|--|'|\"|\\$|\\{|\\}|\\(|\\)|<|>|&|\\||;|\n|=|\\[|\\]|\\*|#|\\\\|/|,|!|@|1|p|e|w|s){0,30}",
    ) {
        let _ = judge(&text);
    }

    #[test]
    fn a_redirection_into_a_file_is_never_allowed(
        before in prop::collection::vec((word(), joint()), 1..6),
        operator in prop::sample::select(vec![">", ">>", ">|", "&>", "&>>", "2>", "1>>", ">&", "<>"]),
        space in prop::sample::select(vec!["", " "]),
        target in "(\\$x|\"\\$x\"|out|/tmp/out|/dev/nul|/dev/null2|/dev/null/x|'a b'|~/x|\\./-|\\*|/dev//nullx)",
        after in prop::collection::vec((joint(), word()), 0..4),
    ) {
        let mut text = String::new();
        for (word, joint) in &before {
            text.push_str(word);
            text.push_str(joint);
        }
        text.push_str(&format!(" {operator}{space}{target}"));
        for (joint, word) in &after {
            text.push_str(joint);
            text.push_str(word);
        }
        prop_assert!(judge(&text).is_err(), "{}", text);
    }

    #[test]
    fn what_is_quoted_stays_text(inner in "[^'\u{0}]{0,40}") {
        prop_assert_eq!(judge(&format!("echo '{inner}'")), Ok(()));
    }
}

/// Pieces that mean something else depending on what surrounds them.
const PIECES: &[&str] = &[
    "cat a",
    "echo",
    "touch x",
    "rm a",
    "sort a",
    " ",
    " ",
    " ",
    "\n",
    ";",
    "|",
    "&&",
    "||",
    "&",
    "'",
    "'",
    "\"",
    "\"",
    "\\",
    "#",
    ">x",
    ">",
    "> /dev/null",
    "2>&1",
    "<<E",
    "<<-E",
    "<<'E'",
    "\nE\n",
    "<<<",
    "$x",
    "$'",
    "\\'",
    "${",
    "}",
    "$(",
    ")",
    "(",
    "{",
    "`",
    "for f in a b;",
    "for f in -o;",
    "do",
    "done",
    "if",
    "then",
    "fi",
    "$f",
    "\"$f\"",
    "-o x",
    "-",
    "--",
    "x",
    "a",
    "xargs",
    "xargs -I{}",
    "{}",
    "{a,b}",
    "*",
    "[",
    "]",
    "!",
    "=",
    "f=",
    "IFS=",
    "read f",
    "while",
    "env",
    "time",
    "\t",
    "1",
    "2",
    "<",
    "sed",
    "-n",
    "p",
    "'wx'",
    "awk",
    "'{print > \"x\"}'",
    "/",
    "find a",
    "-exec",
    "\\;",
    "-delete",
];

/// What passes is run by both shells, and changes nothing: the judge and they agree about what a script is.
#[test]
fn shells_understand_what_passes_as_the_judge_does() {
    use proptest::strategy::{Strategy as _, ValueTree as _};
    use proptest::test_runner::{Config, TestRunner};

    let home = tempfile::tempdir().unwrap();
    let at = home.path();
    let set = || {
        std::fs::write(at.join("a"), "b\na\n").unwrap();
        std::fs::write(at.join("b"), "x\n").unwrap();
    };
    set();
    let names = |at: &Path| -> BTreeMap<String, Vec<u8>> {
        let entries = std::fs::read_dir(at).unwrap();
        entries
            .map(|entry| {
                let path = entry.unwrap().path();
                (
                    path.display().to_string(),
                    std::fs::read(path).unwrap_or_default(),
                )
            })
            .collect()
    };
    let before = names(at);
    let mut runner = TestRunner::new(Config::default());
    let script = prop::collection::vec(prop::sample::select(PIECES), 1..12);
    let mut passed = 0;
    for _ in 0..60_000 {
        let script = script.new_tree(&mut runner).unwrap().current().concat();
        if judge(&script).is_err() {
            continue;
        }
        passed += 1;
        // Each of them costs a process: what is sure to do nothing but print is not worth it.
        if passed > 600 {
            break;
        }
        for shell in ["bash", "sh"] {
            let mut command = Command::new("timeout");
            command
                .args(["5", shell, "-c", &script])
                .current_dir(at)
                .env("x", "-o x")
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            command.status().expect("timeout is there");
            assert_eq!(names(at), before, "{shell}: {script:?}");
        }
    }
    assert!(passed > 100, "{passed}");
}
