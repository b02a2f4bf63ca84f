//! An agent as a child of this machine: it ends with the session.

use std::cell::RefCell;
use std::collections::VecDeque;

use futures::lock::Mutex;

use crate::stream::{StreamReader, StreamWriter};
use crate::system::files::{self, Location, WriteOptions};
use crate::system::process::{self, Child, Command, EnvVar, Exit, OutputMode, Program};
use crate::text::Decoder;
use crate::{Error, stream};

use super::failure::{Failure, Kind};

/// A longer line is dropped, as it is on a VM.
const LONGEST: usize = 1 << 20;
/// How much of its standard error is kept, in bytes.
const LAST_WORDS: usize = 2_000;
/// How long it may take to end when it is asked to, in milliseconds.
const GRACE: u64 = 3_000;

/// A child that is an agent.
pub(crate) struct Local {
    child: Child,
    stdin: Mutex<StreamWriter<u8>>,
    stderr: RefCell<VecDeque<u8>>,
}

/// The outputs of a child, to be read.
pub(crate) struct Outputs {
    pub(crate) stdout: StreamReader<u8>,
    pub(crate) stderr: StreamReader<u8>,
}

impl Local {
    /// Starts the agent.
    pub(crate) async fn start(
        directory: &str,
        program: &str,
        keeps_sessions: bool,
        system_prompt: Option<&str>,
        identity: String,
        env: Vec<EnvVar>,
    ) -> Result<(Self, Outputs), Failure> {
        let doing = || format!("Cannot start {program} here");
        let failed = |error: &Error| Failure::of(doing(), error);
        // Writing a file makes the directories above it.
        let workspace = format!("{directory}/workspace");
        write(&format!("{workspace}/.pi-vers/identity.json"), identity)
            .await
            .map_err(|error| failed(&error))?;
        let mut argv: Vec<String> = [program, "--mode", "rpc"].map(str::to_owned).into();
        if keeps_sessions {
            argv.extend(["--session-dir".into(), format!("{directory}/sessions")]);
        } else {
            argv.push("--no-session".into());
        }
        if let Some(prompt) = system_prompt {
            let path = format!("{directory}/system-prompt.md");
            write(&path, prompt.to_owned())
                .await
                .map_err(|error| failed(&error))?;
            argv.extend(["--system-prompt".into(), path]);
        }
        let command = Command {
            program: Program::Argv(argv),
            env,
            working_directory: Some(workspace),
            timeout: None,
            output: OutputMode::Separate,
        };
        let (writer, reader) = stream::pipe();
        let child = process::spawn(command, Some(reader))
            .await
            .map_err(|error| match error {
                Error::NotFound(why) => Failure::new(
                    Kind::Refused,
                    doing(),
                    format!("{why}. Install it, or name it with PI_PATH."),
                ),
                error => failed(&error),
            })?;
        let outputs = Outputs {
            stdout: child.stdout().map_err(|error| failed(&error))?,
            stderr: child.stderr().map_err(|error| failed(&error))?,
        };
        let local = Self {
            child,
            stdin: Mutex::new(writer),
            stderr: RefCell::default(),
        };
        Ok((local, outputs))
    }

    /// Gives it a line.
    pub(crate) async fn send(&self, line: &str) -> Result<(), Error> {
        let mut bytes = line.as_bytes().to_vec();
        bytes.push(b'\n');
        let rest = self.stdin.lock().await.write_all(bytes).await;
        if rest.is_empty() {
            Ok(())
        } else {
            Err(Error::NotFound("the agent does not listen any more".into()))
        }
    }

    /// Reads its standard error until it ends, and keeps the end of it.
    pub(crate) async fn keep_errors(&self, mut stderr: StreamReader<u8>) {
        let mut buffer = Vec::new();
        while let Some(bytes) = stream::next(&mut stderr, buffer).await {
            let mut kept = self.stderr.borrow_mut();
            kept.extend(&bytes);
            let over = kept.len().saturating_sub(LAST_WORDS);
            kept.drain(..over);
            drop(kept);
            buffer = bytes;
        }
    }

    pub(crate) fn last_words(&self) -> String {
        let kept: Vec<u8> = self.stderr.borrow().iter().copied().collect();
        String::from_utf8_lossy(&kept).trim().to_owned()
    }

    /// Waits for its end: its code, 128 and more for a signal it is not told as a code.
    pub(crate) async fn wait(&self) -> String {
        match self.child.wait().await {
            Ok(Exit::Code(code)) => format!("it exited with code {code}"),
            Ok(Exit::Signal(signal)) => format!("it was ended by {signal}"),
            Err(error) => crate::outcome::explain(&error),
        }
    }

    /// Ends it and waits until it is gone.
    pub(crate) async fn stop(&self) -> Result<(), Error> {
        self.child.stop(Some(GRACE)).await.map(drop)
    }
}

async fn write(path: &str, text: String) -> Result<(), Error> {
    let options = WriteOptions {
        parents: true,
        mode: Some(0o600),
        expect: None,
    };
    let at = Location::Local(path.to_owned());
    stream::feed(text.into_bytes(), |data| files::write(at, data, options))
        .await
        .map(drop)
}

/// Cuts bytes into lines. One that is too long is dropped, and its end is not taken for a line.
#[derive(Default)]
pub(crate) struct Lines {
    decoder: Decoder,
    open: String,
    is_too_long: bool,
}

impl Lines {
    /// Takes in bytes and hands over the lines that they end.
    pub(crate) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&str)) {
        let mut text = String::new();
        self.decoder.push(bytes, &mut text);
        let mut rest = text.as_str();
        while let Some((end, next)) = rest.split_once('\n') {
            if self.open.is_empty() && !self.is_too_long {
                line(end.trim_end_matches('\r'));
            } else {
                self.open.push_str(end);
                if !self.is_too_long {
                    line(self.open.trim_end_matches('\r'));
                }
                self.open.clear();
                self.is_too_long = false;
            }
            rest = next;
        }
        self.open.push_str(rest);
        if self.open.len() > LONGEST {
            self.is_too_long = true;
            self.open.clear();
        }
    }
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    #[test]
    fn lines_are_whole_however_the_bytes_are_cut() {
        let text = "one\r\ntwö\n\nthree\nopen";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let mut got = Vec::new();
            for chunk in text.as_bytes().chunks(size) {
                lines.push(chunk, |line| got.push(line.to_owned()));
            }
            assert_eq!(got, ["one", "twö", "", "three"], "{size}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_takes_no_other_with_it() {
        let mut lines = Lines::default();
        let mut got = Vec::new();
        for _ in 0..40 {
            lines.push(&[b'x'; 65_536], |line| got.push(line.to_owned()));
        }
        lines.push(b"x\nnext\n", |line| got.push(line.to_owned()));
        assert_eq!(got, ["next"]);
    }
}
