//! What to run on a VM, and how it is written down for the VM's shell.
//!
//! sshd hands an exec request to root's login shell as an argument, where everybody on the VM can read it. So the
//! request is a fixed text, [`REQUEST`], that reads one line from its standard input and evaluates it. That line, the
//! *frame*, carries what the caller gave: directory, environment, arguments, script. It is POSIX shell text in which
//! every byte of the caller stands between single quotes, with quotes and newlines taken out by [`quote`].
//!
//! sshd takes no input before it has agreed to the request, which costs a round trip of its own. So a short frame without
//! secrets stands in a variable instead, sent along with the request, where the server accepts such variables (Debian's
//! does: `AcceptEnv LC_*`). Only root can read that, and no program that is run inherits it.
//!
//! Shells read a line byte by byte (they must not take what belongs to the command's input), which is slow for
//! megabytes. A long frame is therefore announced by a short line that has `dd` take the rest in one piece:
//! `iflag=fullblock` because a socket gives less than asked, `count=1` so that nothing of the input behind is taken.
//!
//! The program replaces the shell (`exec`), so its process is the session's leader, its exit status and its signals
//! reach us unchanged, and its process group has the id that the frame reported before.

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, Result};
use crate::secret::Secret;

/// What to run.
#[derive(Clone, PartialEq, Eq)]
pub enum Program {
    /// An argument vector; no shell interprets it. The first is looked up in the VM's `PATH`.
    Argv(Vec<String>),
    /// A script for `bash`, or for `sh` on a VM without it. It starts in a fresh shell that read no profile.
    Shell(String),
}

/// The value of an environment variable.
#[derive(Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// Not worth hiding.
    Plain(String),
    /// Absent from `Debug`.
    Secret(Secret),
}

impl EnvValue {
    fn expose(&self) -> &str {
        match self {
            Self::Plain(value) => value,
            Self::Secret(value) => value.expose(),
        }
    }
}

impl From<&str> for EnvValue {
    fn from(value: &str) -> Self {
        Self::Plain(value.to_owned())
    }
}

impl From<String> for EnvValue {
    fn from(value: String) -> Self {
        Self::Plain(value)
    }
}

impl From<Secret> for EnvValue {
    fn from(value: Secret) -> Self {
        Self::Secret(value)
    }
}

/// A command for a VM. Every text may hold any character but NUL, newlines and quotes included.
#[derive(Clone)]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// Variables set for it, besides those of root's sessions. Never part of a command line on the VM.
    pub env: Vec<(String, EnvValue)>,
    /// The directory it starts in; root's home directory unless given.
    pub cwd: Option<String>,
    /// Both outputs in one stream, in the order they were written: joined on the VM (`2>&1`).
    pub merge_output: bool,
    /// Whether [`Child::take_stdin`](super::Child::take_stdin) gives its input. Otherwise the input is empty.
    pub stdin: bool,
    /// After this long its process group is stopped, and waiting for it fails with [`Kind::TimedOut`](crate::Kind).
    pub timeout: Option<Duration>,
}

impl Command {
    /// Runs an argument vector.
    pub fn argv<S: Into<String>>(argv: impl IntoIterator<Item = S>) -> Self {
        Self::of(Program::Argv(argv.into_iter().map(Into::into).collect()))
    }

    /// Runs a script.
    pub fn shell(script: impl Into<String>) -> Self {
        Self::of(Program::Shell(script.into()))
    }

    fn of(program: Program) -> Self {
        Self {
            program,
            env: Vec::new(),
            cwd: None,
            merge_output: false,
            stdin: false,
            timeout: None,
        }
    }

    /// Sets a variable.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<EnvValue>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// Sets the directory.
    pub fn cwd(mut self, directory: impl Into<String>) -> Self {
        self.cwd = Some(directory.into());
        self
    }

    /// Joins both outputs.
    pub fn merged(mut self) -> Self {
        self.merge_output = true;
        self
    }

    /// Asks for its input.
    pub fn with_stdin(mut self) -> Self {
        self.stdin = true;
        self
    }

    /// Sets the time limit.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }
}

impl fmt::Debug for Command {
    /// Says what sort of command it is. Its texts may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = match &self.program {
            Program::Argv(argv) => format!(
                "{} and {} arguments",
                argv.first().map_or("", String::as_str),
                argv.len().saturating_sub(1)
            ),
            Program::Shell(script) => format!("script of {} bytes", script.len()),
        };
        let env: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Command")
            .field("program", &program)
            .field("env", &env)
            .field("cwd", &self.cwd)
            .finish_non_exhaustive()
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code (0 to 255).
    Code(i32),
    /// By a signal, named without its prefix: `KILL`.
    Signal(String),
}

impl Exit {
    /// Whether it ended by itself with code 0.
    pub fn is_success(&self) -> bool {
        *self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(name) => write!(f, "signal {name}"),
        }
    }
}

/// Signals that a command's process group can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// `INT`
    Interrupt,
    /// `TERM`
    Terminate,
    /// `KILL`
    Kill,
    /// `HUP`
    HangUp,
    /// `USR1`
    User1,
    /// `USR2`
    User2,
    /// `STOP`
    Stop,
    /// `CONT`
    Continue,
}

impl Signal {
    /// The name for `kill -s`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
            Self::Kill => "KILL",
            Self::HangUp => "HUP",
            Self::User1 => "USR1",
            Self::User2 => "USR2",
            Self::Stop => "STOP",
            Self::Continue => "CONT",
        }
    }
}

/// The exec request. `tag` is ours: hexadecimal digits, dashes and dots. It stands in the environment from the first
/// process on, which is how what left the process group is found again.
pub(super) fn request(tag: &str) -> String {
    format!(
        "{MARKER_VARIABLE}={tag}; export {MARKER_VARIABLE}; \
         if command -v bash >/dev/null 2>&1; then exec bash --norc -c {READ} bash; else exec sh -c {READ} sh; fi"
    )
}

/// The environment variable that marks the processes of a command.
pub(super) const MARKER_VARIABLE: &str = "VERS_EXEC_ID";
const READ: &str = concat!(
    r#"'if [ "$LC_VERS_FRAME" ]; then __f=$LC_VERS_FRAME; unset LC_VERS_FRAME; "#,
    r#"else IFS= read -r __f || exit; fi; eval "$__f"'"#
);

/// The variable that a frame may stand in. Servers accept variables of locales, if any.
pub(super) const FRAME_VARIABLE: &str = "LC_VERS_FRAME";

/// The frame as the value of its variable, if it may stand there: a long one is read from the input, and secrets that were
/// given as such do not stand in the environment of a shell that has no need of them.
pub(super) fn in_variable(command: &Command, frame: &Bytes) -> Option<String> {
    let secret = |(_, value): &(String, EnvValue)| matches!(value, EnvValue::Secret(_));
    if command.env.iter().any(secret) {
        return None;
    }
    // A long one does not end with a line.
    let line = frame.strip_suffix(b"\n")?;
    std::str::from_utf8(line).ok().map(str::to_owned)
}

/// Comes first on both outputs, before anything of the command: what root's profile printed lies before it.
/// On standard output the process id follows, ended by the same byte.
pub(super) const START: &[u8] = b"\x1evers-start ";
/// In its place on standard output if the directory cannot be entered.
pub(super) const NO_DIRECTORY: &[u8] = b"\x1evers-nodir ";
pub(super) const START_END: u8 = 0x1e;

/// A frame longer than this is not read byte by byte.
const SHORT_FRAME: usize = 4096;
/// A frame beyond this is refused: the VM's shell holds it in memory several times.
const MAX_FRAME: usize = 64 << 20;
/// Ends a long frame, so that a part of one is never run.
const LONG_END: &[u8] = b" #vers-end";

/// What goes over the channel's input before the command's own.
pub(super) fn frame(command: &Command) -> Result<Bytes> {
    let body = body(command)?;
    if body.len() > MAX_FRAME {
        let mib = MAX_FRAME >> 20;
        return Err(Error::new(
            crate::Kind::Limit,
            format!(
                "start command: arguments, environment and script exceed {mib} MiB; put them into a file"
            ),
        ));
    }
    let mut frame = BytesMut::with_capacity(body.len() + 256);
    frame.put_slice(b"__n=${IFS#??};");
    if body.len() <= SHORT_FRAME {
        frame.put_slice(&body);
        frame.put_u8(b'\n');
    } else {
        let length = body.len() + LONG_END.len();
        frame.put_slice(
            format!("__f=$(dd bs={length} count=1 iflag=fullblock 2>/dev/null);").as_bytes(),
        );
        frame.put_slice(br#"case $__f in *"#);
        frame.put_slice(b"'");
        frame.put_slice(LONG_END);
        frame.put_slice(b"'");
        frame.put_slice(b") eval \"$__f\";; *) echo 'vers: the command arrived incomplete; is dd missing on this VM?' >&2; exit 255;; esac\n");
        frame.put_slice(&body);
        frame.put_slice(LONG_END);
    }
    Ok(frame.freeze())
}

fn body(command: &Command) -> Result<BytesMut> {
    let mut body = BytesMut::new();
    let nul = |what: &str| {
        Error::invalid(format!(
            "start command: {what} holds a NUL character, which no program can be given"
        ))
    };
    if let Some(directory) = &command.cwd {
        if directory.is_empty() {
            return Err(Error::invalid(
                "start command: the directory is empty; leave it out for the home directory",
            ));
        }
        body.put_slice(b"cd -- ");
        // `cd -` means something else.
        let directory = if directory == "-" {
            "./-"
        } else {
            directory.as_str()
        };
        quote(&mut body, directory).map_err(|_| nul("the directory"))?;
        body.put_slice(br" >/dev/null 2>&1 || { printf '\036vers-nodir \036'; exit 1; };");
    }
    // On standard output last: who has seen it may end the connection, and nothing of ours is written after that.
    body.put_slice(br#"printf '\036vers-start ' >&2; printf '\036vers-start %s\036' "$$";"#);
    for (name, value) in &command.env {
        if !is_name(name) {
            return Err(Error::invalid(format!(
                "start command: {:?} cannot be the name of a variable",
                crate::error::shown(name)
            )));
        }
        body.put_slice(b"export ");
        body.put_slice(name.as_bytes());
        body.put_u8(b'=');
        quote(&mut body, value.expose()).map_err(|_| nul(&format!("the variable {name}")))?;
        body.put_u8(b';');
    }
    // A bash that finds itself near the top of an SSH session reads root's profile, which may print.
    body.put_slice(b"export SHLVL=3;");
    if !command.stdin {
        body.put_slice(b"exec </dev/null;");
    }
    if command.merge_output {
        body.put_slice(b"exec 2>&1;");
    }
    match &command.program {
        Program::Argv(argv) => {
            match argv.first().map(String::as_str) {
                None | Some("") => {
                    return Err(Error::invalid("start command: there is no program to run"));
                }
                // The shell would take it for an option.
                Some(program) if program.starts_with('-') => {
                    return Err(Error::invalid(format!(
                        "start command: the program {:?} begins with '-'; write ./ before it",
                        crate::error::shown(program)
                    )));
                }
                Some(_) => {}
            }
            body.put_slice(b"exec");
            for argument in argv {
                body.put_u8(b' ');
                quote(&mut body, argument).map_err(|_| nul("an argument"))?;
            }
        }
        Program::Shell(script) => {
            // Nothing of ours is left in the script's shell, and its lines keep their numbers.
            body.put_slice(b"set -- ");
            quote(&mut body, script).map_err(|_| nul("the script"))?;
            body.put_slice(br#"; unset __f __n; eval "set --; $1""#);
        }
    }
    Ok(body)
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// There is no way to write NUL.
struct Nul;

/// One shell word that means exactly `text`, on one line; `$__n` is a newline.
fn quote(out: &mut BytesMut, text: &str) -> Result<(), Nul> {
    out.put_u8(b'\'');
    for byte in text.bytes() {
        match byte {
            0 => return Err(Nul),
            b'\'' => out.put_slice(br"'\''"),
            b'\n' => out.put_slice(br#"'"$__n"'"#),
            other => out.put_u8(other),
        }
    }
    out.put_u8(b'\'');
    Ok(())
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;
    use std::process::{Command as Process, Stdio};

    /// What root's shell may be, as far as it is installed here; `sh` always is.
    pub(in crate::ssh) fn shells() -> Vec<Vec<&'static str>> {
        let installed = |name: &str| {
            ["/bin", "/usr/bin"]
                .iter()
                .any(|dir| std::path::Path::new(dir).join(name).exists())
        };
        let known = [
            ("sh", vec!["sh"]),
            ("bash", vec!["bash"]),
            ("dash", vec!["dash"]),
            ("busybox", vec!["busybox", "sh"]),
        ];
        known
            .into_iter()
            .filter(|(name, _)| *name == "sh" || installed(name))
            .map(|(_, shell)| shell)
            .collect()
    }

    /// What a shell makes of a frame, behind the start mark.
    fn evaluate(shell: &[&str], frame: &[u8], input: &[u8]) -> Vec<u8> {
        let output = evaluate_over(shell, None, &[frame, input].concat());
        if let Some(line) = frame.strip_suffix(b"\n") {
            let line = std::str::from_utf8(line).unwrap();
            assert_eq!(evaluate_over(shell, Some(line), input), output);
        }
        output
    }

    fn evaluate_over(shell: &[&str], variable: Option<&str>, data: &[u8]) -> Vec<u8> {
        let read = READ.trim_matches('\'');
        let mut child = Process::new(shell[0])
            .args(&shell[1..])
            .args(["-c", read])
            .envs(variable.map(|value| (FRAME_VARIABLE, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let data = data.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&data));
        let output = child.wait_with_output().unwrap();
        let _ = writer.join();
        let pid = output.stdout.strip_prefix(START).expect("no start mark");
        let end = pid.iter().position(|b| *b == START_END).unwrap();
        pid[end + 1..].to_vec()
    }

    fn check(text: &str, value: &str, long: bool) {
        let padding = if long {
            "#".repeat(SHORT_FRAME)
        } else {
            String::new()
        };
        let argv = ["/usr/bin/printf", "%s|%s", text, &padding];
        let expected = format!("{text}|{padding}").into_bytes();
        let frame_of_argv = frame(&Command::argv(argv)).unwrap();
        let script = format!("exec /usr/bin/env printf '%s' \"$A\" # {padding}");
        let frame_of_script = frame(&Command::shell(script).env("A", value)).unwrap();
        let frame_of_input = frame(&Command::argv(["cat"]).env("P", padding).with_stdin()).unwrap();
        for shell in shells() {
            assert_eq!(evaluate(&shell, &frame_of_argv, b""), expected, "{shell:?}");
            assert_eq!(
                evaluate(&shell, &frame_of_script, b""),
                value.as_bytes(),
                "{shell:?}"
            );
            assert_eq!(
                evaluate(&shell, &frame_of_input, value.as_bytes()),
                value.as_bytes(),
                "{shell:?}"
            );
        }
    }

    #[test]
    fn every_byte_that_utf8_can_hold_survives_every_shell() {
        // The bytes that dash and busybox use as marks of their own are among these.
        let all: String = ('\u{1}'..='\u{17f}')
            .chain("💩\u{2028}\u{fffd}".chars())
            .collect();
        for long in [false, true] {
            check(&all, &all, long);
            check("", "\n", long);
            check("-n", "\\", long);
            check("'", "a\n\n", long);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_text_survives_every_shell(text in "[^\0]{0,60}", value in "['\"\\\\$`\n \t;&|#!~*?a]{0,40}", long in any::<bool>()) {
            check(&text, &value, long);
        }
    }

    #[test]
    fn no_program_inherits_the_frame() {
        for command in [Command::argv(["env"]), Command::shell("env")] {
            let frame = frame(&command).unwrap();
            let variable = in_variable(&command, &frame).unwrap();
            for shell in shells() {
                let seen = evaluate_over(&shell, Some(&variable), b"");
                let seen = String::from_utf8_lossy(&seen).into_owned();
                assert!(seen.contains("PATH=") && !seen.contains("FRAME"), "{seen}");
            }
        }
    }

    #[test]
    fn what_is_long_or_secret_does_not_stand_in_a_variable() {
        let in_variable = |command: Command| in_variable(&command, &frame(&command).unwrap());
        assert!(in_variable(Command::argv(["true"]).env("A", "b")).is_some());
        assert!(in_variable(Command::shell("x".repeat(SHORT_FRAME))).is_none());
        let secret = Command::argv(["true"]).env("A", Secret::new("b"));
        assert!(in_variable(secret).is_none());
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        let kind = |command: Command| frame(&command).unwrap_err().kind();
        for command in [
            Command::argv(Vec::<String>::new()),
            Command::argv([""]),
            Command::argv(["-x"]),
            Command::argv(["a\0b"]),
            Command::shell("a\0b"),
            Command::shell("").env("A B", ""),
            Command::shell("").env("1A", ""),
            Command::shell("").env("", ""),
            Command::shell("").env("A=B", ""),
            Command::shell("").env("A", "\0"),
            Command::shell("").cwd(""),
            Command::shell("").cwd("\0"),
        ] {
            assert_eq!(kind(command), crate::Kind::Invalid);
        }
        assert_eq!(
            kind(Command::shell("x".repeat(MAX_FRAME))),
            crate::Kind::Limit
        );
    }

    #[test]
    fn a_part_of_a_long_frame_is_never_run() {
        let mark = tempfile::NamedTempFile::new().unwrap();
        let path = mark.path().to_str().unwrap().to_owned();
        let whole = frame(&Command::shell(format!(
            "echo ran >{path}\n#{}",
            "x".repeat(2 * SHORT_FRAME)
        )))
        .unwrap();
        for shell in shells() {
            for cut in [whole.len() - 1, whole.len() - SHORT_FRAME, 100] {
                let mut child = Process::new(shell[0])
                    .args(&shell[1..])
                    .args(["-c", READ.trim_matches('\'')])
                    .stdin(Stdio::piped())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .spawn()
                    .unwrap();
                child
                    .stdin
                    .take()
                    .unwrap()
                    .write_all(&whole[..cut])
                    .unwrap();
                assert!(!child.wait().unwrap().success(), "{shell:?}");
                assert_eq!(std::fs::read(&path).unwrap(), b"", "{shell:?}");
            }
        }
    }

    #[test]
    fn debug_shows_no_text_of_the_caller() {
        let command = Command::argv(["curl", "--header", "tok3n"])
            .env("KEY", "s3cret")
            .env("OTHER", Secret::new("s3cret"));
        let shown = format!("{command:?} {:?}", Command::shell("s3cret"));
        assert!(
            shown.contains("KEY") && !shown.contains("s3cret") && !shown.contains("tok3n"),
            "{shown}"
        );
    }
}
