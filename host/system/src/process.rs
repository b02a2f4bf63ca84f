//! Processes (signatures first; the bodies follow).
use std::path::PathBuf;
use std::time::Duration;
use crate::{ByteStream, Error};

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// An argument vector; the first is an absolute path (see [`resolve_program`]).
    Argv(Vec<String>),
    /// A script for `/bin/sh -c`.
    Shell(String),
}

/// What to start, and how. `Debug` shows the names of the environment, never the values.
#[derive(Clone)]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// The whole environment: the child's starts empty.
    pub env: Vec<(String, String)>,
    /// Absolute.
    pub cwd: PathBuf,
    /// After this long the group is stopped.
    pub timeout: Option<Duration>,
    /// Both outputs on `stdout`.
    pub merge_output: bool,
    /// A pipe to write to; otherwise the input is empty.
    pub stdin: bool,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal, without the prefix: `KILL`.
    Signal(String),
}

/// Signals a group can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Signal { Interrupt, Terminate, Kill, HangUp, User1, User2, Stop, Continue }

/// A running process and its group.
#[derive(Debug)]
pub struct Child(());

/// The child's standard input: `AsyncWrite`; dropping it closes it.
pub type Stdin = tokio::net::unix::pipe::Sender;

/// Starts a process. Needs a tokio runtime.
pub fn spawn(_command: Command) -> Result<Child, Error> { unimplemented!() }

impl Child {
    /// The process id.
    pub fn id(&self) -> u32 { unimplemented!() }
    /// Once; `None` if there is none or it was taken.
    pub fn take_stdin(&self) -> Option<Stdin> { unimplemented!() }
    /// Once.
    pub fn take_stdout(&self) -> Option<ByteStream> { unimplemented!() }
    /// Once; empty when the outputs are merged.
    pub fn take_stderr(&self) -> Option<ByteStream> { unimplemented!() }
    /// How it ended. Any number of callers; cancel-safe.
    pub async fn wait(&self) -> Result<Exit, Error> { unimplemented!() }
    /// To the group.
    pub fn signal(&self, _signal: Signal) -> Result<(), Error> { unimplemented!() }
    /// TERM, after `grace` KILL; returns when the group is gone.
    pub async fn stop(&self, _grace: Duration) -> Result<(), Error> { unimplemented!() }
    /// Lets the process outlive this handle.
    pub fn detach(&self) { unimplemented!() }
}

/// The absolute path of a program.
pub fn resolve_program(_name: &str, _path_dirs: &[PathBuf]) -> Result<PathBuf, Error> { unimplemented!() }
