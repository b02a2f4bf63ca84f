//! Commands on VMs and copies to them.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pi_vers_system::files::{Access, Root};
use serde_json::{Value, json};
use tokio::sync::watch;
use vers_client::ssh::Output;
use vers_client::transfer::{self, Options, Side};
use vers_client::{Child, Command, Exit, VmId};

use super::methods::{Exec, Script, Upload};
use super::{Problem, Request, Result};
use crate::wire::line;

/// How long `exec` waits, unless it is told.
const EXEC: Duration = Duration::from_secs(300);
/// Bytes of each output that are handed back at once.
const MOST: usize = 10 << 20;
/// Bytes of output in one line.
const PIECE: usize = 1 << 20;
/// How long a command that is cancelled may take to stop.
const STOP: Duration = Duration::from_secs(3);
/// What is not uploaded, unless it is said.
const LEFT_OUT: [&str; 6] = [".git", "node_modules", "dist", "out", "coverage", "data"];

/// What a command left.
struct Ran {
    stdout: String,
    stderr: String,
    exit: Exit,
}

fn ended(exit: &Exit) -> Value {
    match exit {
        Exit::Code(code) => json!({ "exitCode": code }),
        Exit::Signal(signal) => json!({ "exitCode": null, "signal": signal }),
    }
}

async fn start(
    request: &Request,
    vm: VmId,
    script: String,
    limit: Option<Duration>,
) -> Result<(Child, Output, Output)> {
    let mut command = Command::shell(script);
    command.timeout = limit;
    let mut child = request
        .race(request.platform.ssh.spawn(vm, command))
        .await?;
    match (child.take_stdout(), child.take_stderr()) {
        (Some(stdout), Some(stderr)) => Ok((child, stdout, stderr)),
        _ => Err(Problem::new("other", "the command has no outputs")),
    }
}

/// Waits for `work`; cancelled, it stops the command and returns when that is gone.
async fn while_running<T>(
    request: &Request,
    child: &Child,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        biased;
        () = request.cancel.cancelled() => {
            let stopped = tokio::time::timeout(STOP, child.stop(child.default_grace())).await;
            if !matches!(stopped, Ok(Ok(_))) {
                tracing::warn!("whether a cancelled command has stopped is not known");
            }
            Err(Problem::new("cancelled", "it was cancelled, and the command stopped"))
        }
        done = work => done,
    }
}

async fn collect(
    request: &Request,
    vm: VmId,
    script: String,
    limit: Option<Duration>,
) -> Result<Ran> {
    let (child, stdout, stderr) = start(request, vm, script, limit).await?;
    let work = async {
        let ((stdout, more), (stderr, still_more), exit) =
            tokio::join!(stdout.collect(MOST), stderr.collect(MOST), child.wait());
        let exit = exit?;
        if more || still_more {
            let why = format!("the command wrote more than {} MiB", MOST >> 20);
            return Err(Problem::new("limit", why));
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ran {
            stdout: text(stdout),
            stderr: text(stderr),
            exit,
        })
    };
    while_running(request, &child, work).await
}

fn with_outputs(ran: Ran) -> Value {
    let mut value = ended(&ran.exit);
    if let Some(object) = value.as_object_mut() {
        object.insert("stdout".into(), ran.stdout.into());
        object.insert("stderr".into(), ran.stderr.into());
    }
    value
}

pub(super) async fn exec(request: &Request, exec: Exec) -> Result<Value> {
    let limit = exec.timeout_ms.unwrap_or(EXEC);
    let ran = collect(request, exec.vm_id, exec.command, Some(limit)).await?;
    Ok(with_outputs(ran))
}

pub(super) async fn exec_script(request: &Request, script: Script) -> Result<Value> {
    let ran = collect(request, script.vm_id, script.script, script.timeout_ms).await?;
    if ran.exit.is_success() {
        return Ok(with_outputs(ran));
    }
    let said = if ran.stderr.trim().is_empty() {
        &ran.stdout
    } else {
        &ran.stderr
    };
    let why = match &ran.exit {
        Exit::Code(code) => format!("exit {code}"),
        Exit::Signal(signal) => format!("signal {signal}"),
    };
    Err(Problem::new(
        "failed",
        format!(
            "Remote script failed on {} ({why}): {}",
            script.vm_id,
            said.trim()
        ),
    ))
}

pub(super) async fn exec_streaming(request: &Request, exec: Exec) -> Result<Value> {
    let (child, stdout, stderr) = start(request, exec.vm_id, exec.command, exec.timeout_ms).await?;
    let work = async {
        let ((), (), exit) = tokio::join!(
            pass_on(request, "stdout", stdout),
            pass_on(request, "stderr", stderr),
            child.wait()
        );
        Ok(ended(&exit?))
    };
    while_running(request, &child, work).await
}

/// Writes an output as it comes. A reader who is slow slows the command down.
async fn pass_on(request: &Request, stream: &str, mut output: Output) {
    while let Some(bytes) = output.next().await {
        for piece in bytes.chunks(PIECE) {
            let data = STANDARD.encode(piece);
            let line = line(&json!({ "id": request.id, "stream": stream, "data": data }));
            request.outbox.send(line).await;
        }
    }
}

pub(super) async fn upload(request: &Request, upload: Upload) -> Result<Value> {
    let shown = upload.local_dir.display().to_string();
    let failed = |kind, why: &dyn std::fmt::Display| {
        let (vm, to) = (upload.vm_id, &upload.remote_dir);
        Problem::new(
            kind,
            format!("Failed to upload {shown} to {vm}:{to}: {why}"),
        )
    };
    let root =
        Root::open(&upload.local_dir, Access::ReadOnly).map_err(|why| failed("not-found", &why))?;
    let source = Side::Local {
        root,
        path: String::new(),
    };
    let target = Side::Vm {
        ssh: request.platform.ssh.clone(),
        vm: upload.vm_id,
        path: upload.remote_dir.clone(),
    };
    let options = Options {
        recursive: Some(true),
        exclude: upload
            .exclude
            .clone()
            .unwrap_or_else(|| LEFT_OUT.map(str::to_owned).into()),
        ..Options::default()
    };
    let (progress, _) = watch::channel(transfer::Progress::default());
    let copied = transfer::copy(source, target, options, progress, request.cancel.clone()).await;
    let summary = copied.map_err(|why| {
        let mut problem = Problem::from(why);
        problem.message = failed("", &problem.message).message;
        problem
    })?;
    Ok(json!({
        "files": summary.files, "directories": summary.directories, "links": summary.links, "bytes": summary.bytes,
    }))
}
