//! A platform in a process of its own: `up`, `serve`, `down`, `reset`, `status`.
//!
//! The words mean what they mean for `docker compose`: `down` ends all processes and keeps what they wrote (VM disks,
//! commits, names, keys: VMs become `sleeping`, and start again on request), `reset` (`down -v`) removes everything.
//! SIGTERM ends only the server: VMs run on, and the next `up` adopts them.

use crate::endpoint::{Endpoint, find};
use crate::error::Error;
use crate::options::Options;
use crate::platform::{End, Platform};
use crate::sandbox::{Handle, Sandboxes};
use crate::state::record::{CommitRecord, Phase, VmRecord};
use crate::state::{Lock, StateDir, list, read_json, write_json};
use crate::status::{Captured, Status, VmStatus, disk_use};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::signal::unix::{SignalKind, signal};

const READY: Duration = Duration::from_secs(60);
const STOP: Duration = Duration::from_secs(180);
const MAX_LOG: u64 = 4 << 20;

/// What `down` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DownReport {
    /// Whether a server was running.
    pub was_running: bool,
    /// VMs that had processes and have none now.
    pub vms_put_to_sleep: usize,
}

/// How a server says that it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// It prints nothing.
    Silent,
    /// One JSON line on standard output (`{"ready":true}` or `{"error":"…"}`), which is then closed.
    Stdout,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Ready(bool),
    Error(String),
}

/// Starts a platform that outlives this process, or returns the one that runs already (its options may differ).
///
/// `serve_command` is run in a session of its own with the options as JSON on standard input; its `main` must call
/// [`serve_main`], or read the [`Options`] and call [`serve`] with [`Ready::Stdout`]. Its standard error goes to
/// `server.log` in the state directory.
///
/// # Errors
/// [`Error::Start`] with what the server said and the end of its log; what [`find`] says.
///
/// # Cancel safety
/// A dropped future may leave the server starting; a later call finds it.
pub async fn up(
    mut options: Options,
    serve_command: (PathBuf, Vec<OsString>),
) -> Result<Endpoint, Error> {
    options.state_dir =
        std::path::absolute(&options.state_dir).map_err(Error::file("find", &options.state_dir))?;
    if let Some(running) = find(&options.state_dir).await? {
        return Ok(running);
    }
    let state = StateDir::create(&options.state_dir)?;
    match launch(&options, &state, serve_command).await {
        Ok(()) => match find(state.root()).await? {
            Some(endpoint) => Ok(endpoint),
            None => Err(start_error(
                &state,
                "it ended as soon as it was ready".into(),
            )),
        },
        // Another one may have been faster.
        Err(e) => match find(state.root()).await {
            Ok(Some(endpoint)) => Ok(endpoint),
            _ => Err(e),
        },
    }
}

fn start_error(state: &StateDir, why: String) -> Error {
    let log = state.path("server.log");
    let log_tail = log_tail(&log).unwrap_or_default();
    Error::Start { why, log, log_tail }
}

fn log_tail(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(SeekFrom::Start(size.saturating_sub(4096)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<_> = text.lines().collect();
    let from = lines.len().saturating_sub(20);
    Ok(lines.get(from..).unwrap_or_default().join("\n"))
}

async fn launch(
    options: &Options,
    state: &StateDir,
    command: (PathBuf, Vec<OsString>),
) -> Result<(), Error> {
    let log_path = state.path("server.log");
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(Error::file("open", &log_path))?;
    if log.metadata().is_ok_and(|m| m.len() > MAX_LOG) {
        log.set_len(0).map_err(Error::file("shorten", &log_path))?;
    }
    let (program, args) = command;
    let failed = |what: &str, e: std::io::Error| {
        start_error(state, format!("{what} {}: {e}", program.display()))
    };
    let mut child = tokio::process::Command::new(&program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(log))
        .current_dir("/")
        .process_group(0)
        .spawn()
        .map_err(|e| failed("cannot run", e))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let talk = async {
        let json = serde_json::to_vec(options)
            .map_err(|e| failed("cannot tell the options to", e.into()))?;
        if let Some(mut stdin) = stdin {
            // If it does not read, it says why below.
            let _ = stdin.write_all(&json).await;
        }
        let mut said = String::new();
        if let Some(stdout) = stdout {
            // To the end: the pipe closes when the server is ready or gone, whatever it started meanwhile.
            let read = stdout.take(64 << 10).read_to_string(&mut said).await;
            read.map_err(|e| failed("cannot listen to", e))?;
        }
        match said
            .lines()
            .find_map(|line| serde_json::from_str(line).ok())
        {
            Some(Word::Ready(_)) => Ok(()),
            Some(Word::Error(why)) => Err(start_error(state, why)),
            None => {
                let ended = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
                Err(start_error(
                    state,
                    match ended {
                        Ok(Ok(status)) => {
                            format!("{} ended ({status}) before it was ready", program.display())
                        }
                        _ => format!(
                            "{} closed its output before it was ready",
                            program.display()
                        ),
                    },
                ))
            }
        }
    };
    match tokio::time::timeout(READY, talk).await {
        Ok(result) => result,
        Err(_) => {
            if let Err(e) = child.start_kill() {
                tracing::debug!("cannot end the server that did not get ready: {e}");
            }
            Err(start_error(
                state,
                format!("it was not ready within {} s", READY.as_secs()),
            ))
        }
    }
}

fn say(word: &Word) {
    let mut out = std::io::stdout().lock();
    if let Ok(line) = serde_json::to_string(word) {
        // The parent may be gone; the server is there all the same.
        let _ = writeln!(out, "{line}");
        let _ = out.flush();
    }
    // Closes the pipe that the parent reads to its end.
    if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null")
        && let Err(e) = rustix::stdio::dup2_stdout(&null)
    {
        tracing::warn!("cannot close standard output: {e}");
    }
}

/// Serves until SIGTERM or SIGINT (VMs run on), or until [`down`] asks for the end. With [`Ready::Stdout`] the process
/// becomes the leader of its own session.
///
/// # Errors
/// Those of [`Platform::start`] and [`Platform::shutdown`].
pub async fn serve(options: Options, ready: Ready) -> Result<(), Error> {
    if ready == Ready::Stdout {
        // Fails for a process group's leader, which `up` makes it: then it has no terminal to lose but its session.
        let _ = rustix::process::setsid();
    }
    let here = options.state_dir.clone();
    let signals = || {
        Ok::<_, std::io::Error>((
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        ))
    };
    let (mut terminate, mut interrupt) =
        signals().map_err(Error::file("watch for signals in", &here))?;
    // Before it is ready: a terminal that closes must not end it.
    let _hangup =
        signal(SignalKind::hangup()).map_err(Error::file("watch for signals in", &here))?;
    let started = tokio::select! {
        started = Platform::start(options) => started,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    let platform = match started {
        Ok(platform) => platform,
        Err(e) => {
            if ready == Ready::Stdout {
                say(&Word::Error(e.to_string()));
            }
            return Err(e);
        }
    };
    if ready == Ready::Stdout {
        say(&Word::Ready(true));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = platform.stopped() => {}
    }
    platform.shutdown(End::KeepVms).await
}

/// The `main` of a process started by [`up`]: reads the options from standard input and serves. An error goes to standard
/// error (the server's log) and to the parent.
pub fn serve_main() -> ExitCode {
    let serving = || -> Result<(), String> {
        let mut text = String::new();
        std::io::stdin()
            .take(1 << 20)
            .read_to_string(&mut text)
            .map_err(|e| format!("cannot read the options from standard input: {e}"))?;
        let options = serde_json::from_str(&text)
            .map_err(|e| format!("standard input holds no options: {e}"))?;
        let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("cannot start: {e}"))?;
        runtime
            .block_on(serve(options, Ready::Stdout))
            .map_err(|e| e.to_string())
    };
    match serving() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            let _ = writeln!(std::io::stderr(), "{e}");
            ExitCode::FAILURE
        }
    }
}

/// Ends every VM's processes and the server, and checks that no process, cgroup or mount is left. Disks, commits and
/// names stay. Also ends VMs that a killed server left behind. Nothing to do is no error.
///
/// # Errors
/// [`Error::Leftovers`], and what [`find`] says.
pub async fn down(state_dir: &Path) -> Result<DownReport, Error> {
    let Some(state) = StateDir::open(state_dir)? else {
        return Ok(DownReport::default());
    };
    let mut report = DownReport::default();
    match find(state.root()).await {
        Ok(Some(endpoint)) => {
            report.was_running = true;
            let wish = serde_json::json!({"vms": End::SleepVms});
            let answer: Result<serde_json::Value, _> = endpoint
                .call("POST", "/api/v1/local/shutdown", Some(&wish), STOP)
                .await;
            match answer {
                Ok(answer) => {
                    let slept = answer
                        .get("vms_put_to_sleep")
                        .and_then(serde_json::Value::as_u64);
                    report.vms_put_to_sleep =
                        slept.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
                }
                Err(e) => tracing::warn!("{e}; its process is ended instead"),
            }
        }
        Ok(None) => {}
        Err(e) => {
            report.was_running = true;
            tracing::warn!("{e}; its process is ended instead");
        }
    }
    let _lock = take_over(&state).await?;
    let (slept, left) = end_remains(&state).await?;
    report.vms_put_to_sleep += slept;
    if left.is_empty() {
        Ok(report)
    } else {
        Err(Error::Leftovers(left))
    }
}

/// The lock, from a server that is ending, or that is made to.
async fn take_over(state: &StateDir) -> Result<Lock, Error> {
    let path = state.path("lock");
    for (signal, patience) in [
        (None, 20),
        (Some(Signal::TERM), 20),
        (Some(Signal::KILL), 10),
    ] {
        if let Some(signal) = signal {
            kill_server(state, signal);
        }
        // A server that is gone answers at once.
        if let Some(lock) = Lock::take(&path, Duration::from_secs(patience)).await? {
            return Ok(lock);
        }
    }
    Err(Error::Locked {
        state_dir: state.root().to_owned(),
    })
}

/// Signals the process that holds `endpoint.json`, and no other.
fn kill_server(state: &StateDir, signal: Signal) {
    let path = state.path("endpoint.json");
    let Ok(file) = std::fs::File::open(&path) else {
        return;
    };
    let Ok(endpoint) = read_json::<Endpoint>(&path) else {
        return;
    };
    let Some(pid) = i32::try_from(endpoint.pid).ok().and_then(Pid::from_raw) else {
        return;
    };
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else {
        return;
    };
    // The file is held as long as its writer lives: the number was not given to another meanwhile.
    if Lock::is_held(&file)
        && let Err(e) = pidfd_send_signal(&process, signal)
    {
        tracing::warn!("cannot signal the server: {e}");
    }
}

/// With the lock held and no server: ends VMs that still have processes.
async fn end_remains(state: &StateDir) -> Result<(usize, Vec<String>), Error> {
    let sandboxes = Sandboxes::unprobed(state.root(), &state.instance());
    let mut left = Vec::new();
    let mut handles = Vec::new();
    let mut slept = 0;
    for dir in list(&state.path("vms")) {
        let path = dir.join("meta.json");
        let Ok(mut record) = read_json::<VmRecord>(&path) else {
            continue;
        };
        let Some(handle) = record.handle.take() else {
            continue;
        };
        if sandboxes.alive(&handle).await {
            slept += 1;
        }
        match sandboxes.stop(&handle).await {
            Ok(()) if matches!(record.phase, Phase::Running | Phase::Paused) => {
                record.phase = Phase::Sleeping;
                record.note = Some("it was put to sleep when the platform was stopped".to_owned());
                write_json(&path, &record)?;
            }
            Ok(()) => {}
            Err(e) => left.push(e.to_string()),
        }
        handles.push(handle);
    }
    if let Err(e) = sandboxes.sweep(&[]).await {
        left.push(e.to_string());
    }
    left.extend(leftovers(state, &handles));
    Ok((slept, left))
}

/// What should not be there after the end of these VMs.
pub(crate) fn leftovers(state: &StateDir, handles: &[Handle]) -> Vec<String> {
    let mut left = Vec::new();
    for handle in handles {
        for cgroup in [&handle.cgroup, &handle.pids_v1].into_iter().flatten() {
            if cgroup.exists() {
                left.push(format!("cgroup {}", cgroup.display()));
            }
        }
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts.lines().filter_map(|line| line.split(' ').nth(4)) {
        if Path::new(mount).starts_with(state.root()) && Path::new(mount) != state.root() {
            left.push(format!("mount {mount}"));
        }
    }
    left
}

/// [`down`], then removes everything the platform wrote: VMs, commits, names, keys. The directory itself goes if nothing
/// else is in it.
///
/// # Errors
/// [`Error::NotOurs`] for a directory that is none of a platform; what [`down`] says; [`Error::File`].
pub async fn reset(state_dir: &Path) -> Result<DownReport, Error> {
    let Some(state) = StateDir::open(state_dir)? else {
        if state_dir.exists() && !list(state_dir).is_empty() {
            return Err(Error::NotOurs {
                path: state_dir.to_owned(),
                why: "it has no lock file and no vms directory".into(),
            });
        }
        return Ok(DownReport::default());
    };
    let report = down(state.root()).await?;
    let lock = take_over(&state).await?;
    for part in StateDir::PARTS {
        crate::layers::remove_tree(&state.path(part)).await?;
    }
    for file in StateDir::FILES {
        crate::state::remove(&state.path(file))?;
    }
    drop(lock);
    match std::fs::remove_dir(state.root()) {
        // Somebody else's files stay, and so does the directory.
        Err(e) if e.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
            tracing::warn!(
                "{} has files that are not the platform's; it stays",
                state.root().display()
            );
            Ok(report)
        }
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove", state.root())(e))
        }
        _ => Ok(report),
    }
}

/// What the platform is and holds. Without a server, what its records say.
///
/// # Errors
/// What [`find`] says.
pub async fn status(state_dir: &Path) -> Result<Status, Error> {
    if let Some(endpoint) = find(state_dir).await? {
        return endpoint
            .call::<(), _>("GET", "/api/v1/local/status", None, Duration::from_secs(60))
            .await;
    }
    let mut status = Status {
        running: false,
        pid: None,
        api_url: None,
        ssh_addr: None,
        uptime_secs: None,
        capabilities: None,
        captured: Captured::of(None),
        vms: Vec::new(),
        commits: 0,
        disk_bytes: 0,
        pending_logins: Vec::new(),
    };
    let Some(state) = StateDir::open(state_dir)? else {
        return Ok(status);
    };
    let mut vms: Vec<VmRecord> = list(&state.path("vms"))
        .iter()
        .filter_map(|dir| read_json(&dir.join("meta.json")).ok())
        .collect();
    vms.sort_by_key(|vm| (vm.created_at, vm.id));
    status.vms = vms.iter().map(VmStatus::of).collect();
    status.commits = list(&state.path("commits"))
        .iter()
        .filter(|dir| read_json::<CommitRecord>(&dir.join("meta.json")).is_ok())
        .count();
    status.disk_bytes = disk_use(state.root()).await;
    Ok(status)
}
