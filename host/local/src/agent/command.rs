//! Running a command, as sshd does: the login shell with `-c`, in a session of its own.
//!
//! The exit status goes out as soon as the command has ended; the channel is closed when its outputs have ended too (a
//! child in the background may hold them). When the client closes the channel or is lost, the command runs on.

use super::input::Input;
use super::pty::{self, Master};
use super::server::{Running, Table};
use super::signals;
use crate::sandbox::{environment_line, sys};
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelId, ChannelWriteHalf};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Child;

/// How long outputs that are already there may take before the exit status is sent ahead of them.
const STATUS_GRACE: Duration = Duration::from_millis(20);
/// How long a terminal is drained after its command has ended.
const TERMINAL_GRACE: Duration = Duration::from_millis(200);
const CHUNK: usize = 64 * 1024;

/// What to run.
pub(super) struct Start {
    /// The login shell if nothing.
    pub(super) command: Option<Vec<u8>>,
    pub(super) env: Vec<(OsString, OsString)>,
    pub(super) terminal: Option<pty::Request>,
}

/// Home of the only user.
pub(super) const HOME: &str = "/root";

fn shell() -> &'static str {
    if Path::new("/bin/bash").exists() {
        "/bin/bash"
    } else {
        "/bin/sh"
    }
}

impl Start {
    /// Account, then the platform's variables, then `/etc/environment`, then what the client asked for.
    fn build(&self, platform: &[(OsString, OsString)]) -> std::process::Command {
        let shell = shell();
        let mut c = std::process::Command::new(shell);
        c.env_clear();
        for (k, v) in [
            ("HOME", HOME),
            ("USER", "root"),
            ("LOGNAME", "root"),
            ("SHELL", shell),
        ] {
            c.env(k, v);
        }
        c.envs(platform.iter().map(|(k, v)| (k, v)));
        let file = std::fs::read("/etc/environment").unwrap_or_default();
        for (k, v) in file.split(|b| *b == b'\n').filter_map(environment_line) {
            c.env(OsStr::from_bytes(k), OsStr::from_bytes(v));
        }
        c.envs(self.env.iter().map(|(k, v)| (k, v)));
        match &self.command {
            Some(command) => {
                c.arg("-c").arg(OsString::from_vec(command.clone()));
            }
            None => {
                let name = Path::new(shell).file_name().unwrap_or_default();
                let mut login = OsString::from("-");
                login.push(name);
                c.arg0(login);
            }
        }
        c.current_dir(if Path::new(HOME).is_dir() { HOME } else { "/" });
        c
    }

    /// Starts it on `channel`, which it serves to its end.
    pub(super) fn spawn(
        self,
        platform: &[(OsString, OsString)],
        channel: Channel<Msg>,
        handle: Handle,
        table: Table,
    ) -> io::Result<()> {
        let mut c = self.build(platform);
        let id = channel.id();
        if let Some(request) = &self.terminal {
            let (master, slave, name) = pty::open(request)?;
            c.env("TERM", &request.term).env("SSH_TTY", name);
            c.stdin(slave.try_clone()?)
                .stdout(slave.try_clone()?)
                .stderr(slave);
            sys::own_session(&mut c, true);
            let child = start(c)?;
            note(&table, id, &child, Some(master.clone()));
            tokio::spawn(async move {
                with_terminal(channel, child, master, &handle, &table).await;
                table.forget(id);
            });
        } else {
            c.stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            sys::own_session(&mut c, false);
            let child = start(c)?;
            note(&table, id, &child, None);
            tokio::spawn(async move {
                with_pipes(channel, child, &handle, &table).await;
                table.forget(id);
            });
        }
        Ok(())
    }
}

/// Takes the command by value, so that the slave's descriptors in it are closed on this side.
fn start(c: std::process::Command) -> io::Result<Child> {
    tokio::process::Command::from(c).spawn()
}

fn note(table: &Table, id: ChannelId, child: &Child, terminal: Option<Master>) {
    let group = child
        .id()
        .and_then(|p| i32::try_from(p).ok())
        .and_then(rustix::process::Pid::from_raw);
    table.running(id, Running { group, terminal });
}

async fn with_pipes(channel: Channel<Msg>, mut child: Child, handle: &Handle, table: &Table) {
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return;
    };
    let id = channel.id();
    let (read, write) = channel.split();
    let mut input = Input::new(read, stdin);
    let outputs = async {
        tokio::join!(copy(stdout, &write, None), copy(stderr, &write, Some(1)));
    };
    let served = async {
        tokio::pin!(outputs);
        let mut ended = false;
        let status = loop {
            tokio::select! {
                biased;
                () = &mut outputs, if !ended => ended = true,
                status = child.wait() => break status,
            }
        };
        table.ended(id);
        if !ended {
            ended = tokio::time::timeout(STATUS_GRACE, &mut outputs)
                .await
                .is_ok();
        }
        if ended {
            let _ = handle.eof(id).await;
        }
        report(handle, id, status).await;
        if !ended {
            outputs.await;
            let _ = handle.eof(id).await;
        }
        let _ = handle.close(id).await;
    };
    let closed = tokio::select! {
        () = served => false,
        () = input.until_closed() => true,
    };
    if closed {
        // As sshd does: the outputs are gone, what was sent is still delivered, the command runs on.
        input.finish().await;
        let _ = child.wait().await;
        table.ended(id);
    }
}

async fn with_terminal(
    channel: Channel<Msg>,
    mut child: Child,
    master: Master,
    handle: &Handle,
    table: &Table,
) {
    let id = channel.id();
    let (read, write) = channel.split();
    let mut input = Input::new(read, master.clone());
    let served = async {
        let output = copy(master, &write, None);
        tokio::pin!(output);
        let mut ended = false;
        let status = loop {
            tokio::select! {
                biased;
                () = &mut output, if !ended => ended = true,
                status = child.wait() => break status,
            }
        };
        table.ended(id);
        if !ended {
            // Jobs in the background may hold the terminal; they get a hang-up when it is closed below.
            let _ = tokio::time::timeout(TERMINAL_GRACE, &mut output).await;
        }
        let _ = handle.eof(id).await;
        report(handle, id, status).await;
        let _ = handle.close(id).await;
    };
    let closed = tokio::select! {
        () = served => false,
        () = input.until_closed() => true,
    };
    // The table's and our own ends of the terminal: without them it hangs up.
    drop(input);
    table.hang_up(id);
    if closed {
        let _ = child.wait().await;
        table.ended(id);
    }
}

/// Copies until the end of `from`; each piece waits until the client has room for it.
async fn copy(mut from: impl AsyncRead + Unpin, to: &ChannelWriteHalf<Msg>, extended: Option<u32>) {
    let mut to = to.make_writer_ext(extended);
    let mut buffer = vec![0; CHUNK];
    loop {
        match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => {
                let Some(data) = buffer.get(..n) else { return };
                if to.write_all(data).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn report(handle: &Handle, id: ChannelId, status: io::Result<ExitStatus>) {
    let Ok(status) = status else {
        let _ = handle.exit_status_request(id, 255).await;
        return;
    };
    match status.signal() {
        Some(signal) => {
            let core = status.core_dumped();
            let _ = handle
                .exit_signal_request(
                    id,
                    signals::to_ssh(signal),
                    core,
                    String::new(),
                    String::new(),
                )
                .await;
        }
        None => {
            let code = status
                .code()
                .and_then(|c| u32::try_from(c).ok())
                .unwrap_or(255);
            let _ = handle.exit_status_request(id, code).await;
        }
    }
}
