//! Whoever sits at the terminal: asked for what a policy leaves open, and by extensions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::io::{BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{BINARY, Home};

/// Nobody waits longer for a question.
const SOON: Duration = Duration::from_secs(60);
/// What ends a question about a permission.
const PROMPT: &str = "[N]o:";

/// A script whose tool has this body, and a policy that leaves its processes open.
fn set_up(home: &Home, body: &str) -> (PathBuf, PathBuf) {
    let script = format!(
        "export default {{ name: \"s\", tools: [{{ name: \"t\", parameters: {{ type: \"object\" }}, async execute(args, ctx) {{ {body} }} }}] }};"
    );
    let script = home.write("work/s.js", script);
    let told = home.run(["inspect", "--json", script.to_str().unwrap()]);
    let digest = told.json()[0]["digest"].to_string();
    let rules = "process = [{ program = \"/usr/bin/true\", args = [\"nothing\"] }]\nui = [\"select\", \"confirm\", \"input\", \"edit\"]\nask = [\"process\"]";
    let policy = home.write(
        "granted.toml",
        format!("[extension.s]\ndigest = {digest}\n{rules}\n"),
    );
    (script, policy)
}

/// Runs the tool at a terminal where somebody waits for each of these texts, then types what stands beside it. `before` is typed
/// before anything is asked.
fn at_terminal(
    home: &Home,
    (script, policy): &(PathBuf, PathBuf),
    before: &str,
    dialogue: &[(&str, &str)],
) -> (i32, String) {
    let line = format!(
        "exec {BINARY} run --policy {} --extension {} t '{{}}'",
        policy.display(),
        script.display()
    );
    let mut plain = home.command(["--version"]);
    let mut command = Command::new("script");
    command
        .args(["-qefc", &line, "/dev/null"])
        .env_clear()
        .envs(
            plain
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        )
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .current_dir(
            plain
                .current_dir(home.path("work"))
                .get_current_dir()
                .unwrap(),
        )
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let mut child = command.spawn().expect("`script` of util-linux is there");
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let (to, from) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for byte in BufReader::new(output).bytes().map_while(Result::ok) {
            if to.send(byte).is_err() {
                return;
            }
        }
    });
    let deadline = Instant::now() + SOON;
    let mut seen = Vec::new();
    let mut wait_for = |text: &str| {
        let from_here = seen.len();
        while !String::from_utf8_lossy(&seen[from_here..]).contains(text) {
            match from.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(byte) => seen.push(byte),
                Err(_) => return false,
            }
        }
        true
    };
    input.write_all(before.as_bytes()).unwrap();
    for (question, answer) in dialogue {
        assert!(wait_for(question), "{question:?} was not asked");
        input.write_all(answer.as_bytes()).unwrap();
    }
    // To its end: this text never comes.
    wait_for("\u{0}\u{0}never");
    drop(input);
    let code = child.wait().unwrap().code().unwrap_or(-1);
    (code, String::from_utf8_lossy(&seen).into_owned())
}

const TRUE: &str = "const { code } = await ctx.process.exec([\"true\"]); return `ended ${code}`;";

#[test]
fn what_the_policy_leaves_open_is_asked_at_the_terminal_once_each_time() {
    let home = Home::new();
    let set_up = set_up(&home, TRUE);
    let (code, seen) = at_terminal(&home, &set_up, "", &[(PROMPT, "y\n")]);
    assert!(code == 0 && seen.contains("ended 0"), "{code}: {seen}");
    assert!(seen.contains("May s "), "it says who wants what: {seen}");
    for no in ["n\n", "\n", "\u{4}"] {
        let (code, seen) = at_terminal(&home, &set_up, "", &[(PROMPT, no)]);
        assert!(
            code != 0 && seen.contains("nobody approved it"),
            "{code}: {seen}"
        );
    }
}

#[test]
fn a_yes_for_the_session_is_not_asked_for_again_and_another_question_is() {
    let home = Home::new();
    let body = "for (const argv of [[\"true\"], [\"true\"], [\"true\", \"other\"]]) await ctx.process.exec(argv); return \"all\";";
    let set_up = set_up(&home, body);
    let (code, seen) = at_terminal(&home, &set_up, "", &[(PROMPT, "s\n"), (PROMPT, "y\n")]);
    assert!(code == 0 && seen.contains("all"), "{code}: {seen}");
    assert_eq!(seen.matches(PROMPT).count(), 2, "{seen}");
}

#[test]
fn what_was_typed_before_the_question_answers_nothing() {
    let home = Home::new();
    let set_up = set_up(&home, TRUE);
    let (code, seen) = at_terminal(&home, &set_up, "y\ny\ny\n", &[(PROMPT, "n\n")]);
    assert!(
        code != 0 && seen.contains("nobody approved it"),
        "{code}: {seen}"
    );
}

#[test]
fn without_a_terminal_nobody_is_asked_and_a_pipe_answers_nothing() {
    let home = Home::new();
    let (script, policy) = set_up(&home, TRUE);
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let arguments = [
        "run",
        "--policy",
        &path(&policy),
        "--extension",
        &path(&script),
        "t",
        "{}",
    ]
    .map(str::to_owned);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ran = home.run_with_input(&arguments, "y\ny\n");
    assert!(ran.code != 0 && !ran.err.contains(PROMPT), "{ran:?}");
    assert!(ran.err.contains("nobody approved it"), "{ran:?}");
}

#[test]
fn dialogs_of_extensions_are_answered_at_the_terminal_and_their_text_moves_no_cursor() {
    let home = Home::new();
    let body = "const one = await ctx.ui.select(\"Which\\u001b[2J\", [\"red\", \"green\"]); const sure = await ctx.ui.confirm(\"Sure\", \"really\"); \
                const name = await ctx.ui.input(\"Name\"); return JSON.stringify([one, sure, name]);";
    let set_up = set_up(&home, body);
    let (code, seen) = at_terminal(
        &home,
        &set_up,
        "",
        &[("or nothing]", "2\n"), ("[y/N]", "y\n"), ("> ", "Änne\n")],
    );
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("true,\"Änne\"]"), "{seen}");
    assert!(
        seen.contains("Which") && !seen.contains("Which\u{1b}"),
        "{seen}"
    );
}
