//! Processes of this machine, each with its group.
//!
//! The threat: a command that runs on after it was stopped, a grandchild nobody remembers, a host that stalls or
//! swells because nobody reads an output, a program found in the wrong place, a secret in an argument vector.
//!
//! So every child leads a process group of its own, gets the environment it was given and nothing else, and
//! inherits no descriptor. Outputs are pipes that are read only when somebody asks: what is unread stays with the
//! writer. The leader is reaped last, when no signal to the group can follow any more: until then its number
//! cannot be given to anybody else, so a signal never hits a stranger.
//!
//! A program that makes a session of its own (`setsid`) leaves its group, and with it the reach of this module.
//! cgroups would hold it, but need rights that a user's host does not have. And a signal that the host was started with
//! as ignored (HUP under `nohup`) is ignored by its children too: to change that takes code between fork and exec, which
//! cannot be written in safe Rust.

mod group;
mod living;
mod output;
mod program;
mod supervisor;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io::{PipeReader, PipeWriter};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::unix::pipe::{Receiver, Sender};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use crate::{ByteStream, Error, Kind};
use group::Group;
pub use living::kill_all;
pub use program::resolve_program;
use supervisor::{Order, Shared, Supervisor};

/// How long outputs may stand still after the process is gone, before nobody waits for them any more.
const DRAIN_GRACE: Duration = Duration::from_millis(250);

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Program {
    /// An argument vector; the first is an absolute path (see [`resolve_program`]).
    Argv(Vec<String>),
    /// A script for `/bin/sh -c`. Never put data into it; use `env` and `"$NAME"`.
    Shell(String),
}

/// What to start, and how. `Debug` shows the names of the environment, never the values.
#[derive(Clone)]
pub struct Command {
    /// What to run.
    pub program: Program,
    /// The whole environment, `PATH` and `HOME` included: the child's starts empty. The place for secrets.
    pub env: Vec<(String, String)>,
    /// The working directory, absolute.
    pub cwd: PathBuf,
    /// After this long the group is stopped, and [`Child::wait`] says [`Kind::TimedOut`].
    pub timeout: Option<Duration>,
    /// Both outputs on `stdout`, in the order the program wrote them.
    pub merge_output: bool,
    /// A pipe for [`Child::take_stdin`]; otherwise the input is empty.
    pub stdin: bool,
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Command")
            .field("program", &self.program)
            .field("env", &names)
            .field("cwd", &self.cwd)
            .field("timeout", &self.timeout)
            .field("merge_output", &self.merge_output)
            .field("stdin", &self.stdin)
            .finish()
    }
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// Ended by a signal, by name without the prefix: `KILL`.
    Signal(String),
}

/// Signals a group can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Signal {
    Interrupt,
    Terminate,
    Kill,
    HangUp,
    User1,
    User2,
    Stop,
    Continue,
}

/// The child's standard input: `AsyncWrite`; dropping it closes it.
pub type Stdin = Sender;

/// A running process and its group.
///
/// Dropping it stops the group (TERM, then KILL) in a task of its own that ends by itself; if the runtime goes away
/// meanwhile the group is killed at once. [`Child::detach`] lets the group live on.
#[derive(Debug)]
pub struct Child {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Order>,
    stdin: Mutex<Option<Sender>>,
    stdout: Mutex<Option<Receiver>>,
    stderr: Mutex<Option<Receiver>>,
}

/// Starts a process. Must be called within a tokio runtime; blocks for the time of a `posix_spawn`.
///
/// # Errors
/// `Invalid` for a malformed command, `NotFound` if the program or the directory is not there.
pub fn spawn(command: Command) -> Result<Child, Error> {
    let (path, mut std_command) = prepare(&command)?;
    let doing = format!("starting `{path}`");
    let io = |error: std::io::Error| Error::io(&doing, &error);
    tokio::runtime::Handle::try_current().map_err(|_| {
        Error::new(
            Kind::Other,
            format!("{doing} failed: there is no tokio runtime here"),
        )
    })?;

    let (stdout, for_stdout) = std::io::pipe().map_err(io)?;
    let (stderr, for_stderr) = match command.merge_output {
        true => (None, for_stdout.try_clone().map_err(io)?),
        false => {
            let (reader, writer) = std::io::pipe().map_err(io)?;
            (Some(reader), writer)
        }
    };
    std_command.stdout(for_stdout).stderr(for_stderr);
    let stdin = match command.stdin {
        true => {
            let (reader, writer) = std::io::pipe().map_err(io)?;
            std_command.stdin(reader);
            Some(sender(writer).map_err(io)?)
        }
        false => {
            std_command.stdin(Stdio::null());
            None
        }
    };
    let stdout = receiver(stdout).map_err(io)?;
    let stderr = stderr.map(receiver).transpose().map_err(io)?;

    // Registered before the child exists, so that its end cannot be missed.
    let ended = signal(SignalKind::child()).map_err(io)?;
    // Rust's own descriptors are close-on-exec; what the host inherited, or a C library opened, may not be.
    close_fds::set_fds_cloexec_threadsafe(3, &[]);
    let start = || {
        let child = std_command.spawn().map_err(io)?;
        Ok(Arc::new(Shared::new(Group::new(child.id())?)))
    };
    let shared = living::born(start)?;
    // Our copies of the child's ends go now: the outputs end when the last process that has them does.
    drop(std_command);

    let (orders, inbox) = mpsc::channel(1);
    tokio::spawn(Supervisor::new(shared.clone(), ended, inbox, command.timeout, path).run());
    Ok(Child {
        shared,
        orders,
        stdin: Mutex::new(stdin),
        stdout: Mutex::new(Some(stdout)),
        stderr: Mutex::new(stderr),
    })
}

fn prepare(command: &Command) -> Result<(String, std::process::Command), Error> {
    let (path, args): (&str, Vec<&str>) = match &command.program {
        Program::Argv(argv) => {
            let (first, rest) = argv.split_first().ok_or_else(|| {
                Error::new(
                    Kind::Invalid,
                    "the argument vector is empty; name a program",
                )
            })?;
            if !first.starts_with('/') {
                let message =
                    format!("the program `{first}` is not an absolute path; resolve it first");
                return Err(Error::new(Kind::Invalid, message));
            }
            (first, rest.iter().map(String::as_str).collect())
        }
        Program::Shell(script) => ("/bin/sh", vec!["-c", script]),
    };
    if let Some((name, _)) = command
        .env
        .iter()
        .find(|(name, _)| name.is_empty() || name.contains(['=', '\0']))
    {
        return Err(Error::new(
            Kind::Invalid,
            format!(
                "`{}` is no name for an environment variable",
                name.escape_debug()
            ),
        ));
    }
    if !command.cwd.is_absolute() || !command.cwd.is_dir() {
        let message = format!(
            "the working directory `{}` is not an absolute path of a directory",
            command.cwd.display()
        );
        return Err(Error::new(Kind::NotFound, message));
    }
    let mut std_command = std::process::Command::new(path);
    std_command
        .args(args)
        .env_clear()
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .current_dir(&command.cwd)
        .process_group(0);
    Ok((path.to_owned(), std_command))
}

fn receiver(pipe: PipeReader) -> std::io::Result<Receiver> {
    Receiver::from_owned_fd(OwnedFd::from(pipe))
}

fn sender(pipe: PipeWriter) -> std::io::Result<Sender> {
    Sender::from_owned_fd(OwnedFd::from(pipe))
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}

impl Child {
    /// The process id, which is the group's too.
    pub fn id(&self) -> u32 {
        self.shared.group.id()
    }

    /// The standard input, once; `None` if there is none or it was taken.
    pub fn take_stdin(&self) -> Option<Stdin> {
        take(&self.stdin)
    }

    /// The standard output, once; `None` if it was taken.
    ///
    /// Nothing is read from the pipe until the stream is polled, so the program waits for its reader. Ends when every
    /// writer is gone; or, if the process has left something in the background that holds the pipe, once all that the
    /// process wrote was handed over and a short grace has passed.
    pub fn take_stdout(&self) -> Option<ByteStream> {
        take(&self.stdout).map(|pipe| output::stream(pipe, self.shared.clone()))
    }

    /// The standard error, once; `None` if it was taken or the outputs are merged. See [`Child::take_stdout`].
    pub fn take_stderr(&self) -> Option<ByteStream> {
        take(&self.stderr).map(|pipe| output::stream(pipe, self.shared.clone()))
    }

    /// How it ended. Any number of callers, at any time; cancel-safe.
    ///
    /// Resolves when the process is gone and the outputs that were taken have been handed over or dropped. Outputs
    /// that stand still for a quarter of a second after the end (nobody reads them) do not hold it up; they stay readable.
    ///
    /// # Errors
    /// `TimedOut` if the command's timeout passed: the group has been stopped.
    pub async fn wait(&self) -> Result<Exit, Error> {
        let mut state = self.shared.state.subscribe();
        let lost = || {
            Error::new(
                Kind::Other,
                "the runtime that watched the process has ended",
            )
        };
        let outcome = match state.wait_for(|now| now.ended.is_some()).await {
            Ok(now) => now.ended.clone().ok_or_else(lost)?.1,
            Err(_) => return Err(lost()),
        };
        while state.borrow_and_update().open > 0 {
            match timeout(DRAIN_GRACE, state.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => break,
            }
        }
        outcome
    }

    /// Sends a signal to the whole group.
    ///
    /// # Errors
    /// `NotFound` if the group was stopped before.
    pub fn signal(&self, signal: Signal) -> Result<(), Error> {
        let doing = || format!("sending {signal:?} to process group {}", self.id());
        match self.shared.group.signal(signal.into()) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::new(
                Kind::NotFound,
                format!("{} failed: it is gone", doing()),
            )),
            Err(error) => Err(Error::io(doing(), &error)),
        }
    }

    /// TERM to the group and, if it is not gone after `grace`, KILL. Returns when every process of the group is gone.
    /// Dropping the future does not stop the stopping.
    ///
    /// # Errors
    /// `Other` if a process survives even KILL (it hangs in the kernel).
    pub async fn stop(&self, grace: Duration) -> Result<(), Error> {
        let (done, stopped) = oneshot::channel();
        let lost = || {
            Error::new(
                Kind::Other,
                "the runtime that watched the process has ended",
            )
        };
        self.orders
            .send(Order { grace, done })
            .await
            .map_err(|_| lost())?;
        stopped.await.map_err(|_| lost())?
    }

    /// Lets the process outlive this handle. Its timeout still holds.
    pub fn detach(&self) {
        self.shared.group.detach();
    }
}
