//! Starting the helper and hearing from it.

use super::cgroup::Made;
use super::plan::{Answer, HELPER_ARGUMENT, Plan};
use super::process::{self, Held};
use super::{Error, Handle};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// A sandbox takes milliseconds; a machine that is swapping takes longer.
const DEADLINE: Duration = Duration::from_secs(30);
/// Longest answer.
const LONGEST: u64 = 64 * 1024;

/// Builds the sandbox. On failure nothing of it is left running.
pub(super) async fn launch(
    helper: &Path,
    instance: &str,
    plan: Plan,
    groups: Option<Made>,
) -> Result<Handle, Error> {
    let id = plan.id;
    let failed = |step: String| Error::Start { id, step };
    let boot_id = process::boot_id()?;
    let mut child = Command::new(helper)
        .arg0(first_argument(instance, &plan))
        .arg(HELPER_ARGUMENT)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::io(format!("start the helper {}", helper.display())))?;
    let mut pid = None;
    let built = tokio::time::timeout(DEADLINE, talk(&mut child, &plan, &mut pid)).await;
    let error = match built {
        Ok(Ok(())) => None,
        Ok(Err(step)) => Some(failed(step)),
        Err(_) => Some(Error::Timeout {
            what: format!("starting sandbox {id}"),
            after: DEADLINE,
        }),
    };
    let start_time = pid.and_then(|p| process::stat(p).map(|s| s.start_time));
    let handle = match (pid, start_time) {
        (Some(pid), Some(start_time)) => Some(Handle {
            id,
            tier: plan.tier,
            boot_id,
            pid,
            start_time,
            dir: plan.dir.clone(),
            cgroup: groups.as_ref().map(|g| g.v2.clone()),
            pids_v1: groups.as_ref().and_then(|g| g.pids_v1.clone()),
        }),
        _ => None,
    };
    let error = match (error, handle) {
        (None, Some(handle)) => {
            // It has nothing left to do; what it cannot finish it need not.
            let _ = tokio::time::timeout(DEADLINE, child.wait()).await;
            return Ok(handle);
        }
        (Some(error), handle) => {
            let _ = child.kill().await;
            if let Some(handle) = handle {
                let _ = end(&handle).await;
            }
            error
        }
        (None, None) => failed("its first process ended at once".into()),
    };
    if let Some(groups) = groups {
        let _ = groups.end().await;
    }
    Err(error)
}

/// What `ps` shows, and how [`super::Sandboxes::sweep`] finds sandboxes without a cgroup.
fn first_argument(instance: &str, plan: &Plan) -> String {
    format!("{}{}", argument_prefix(instance), plan.id)
}

pub(super) fn argument_prefix(instance: &str) -> String {
    format!("vers-vm {instance} ")
}

async fn talk(child: &mut Child, plan: &Plan, pid: &mut Option<i32>) -> Result<(), String> {
    let text = serde_json::to_vec(plan).map_err(|e| format!("encode the plan: {e}"))?;
    let mut stdin = child.stdin.take().ok_or("the helper has no input")?;
    let stdout = child.stdout.take().ok_or("the helper has no output")?;
    let mut stderr = child
        .stderr
        .take()
        .ok_or("the helper has no error output")?;
    let heard = async {
        stdin
            .write_all(&text)
            .await
            .map_err(|e| format!("tell the helper: {e}"))?;
        drop(stdin);
        hear(stdout, pid).await
    };
    let mut said = Vec::new();
    let mut errors = (&mut stderr).take(LONGEST);
    tokio::select! {
        heard = heard => match heard {
            Ok(true) => Ok(()),
            // It ended without an answer: its last words, if any.
            Ok(false) => {
                let _ = errors.read_to_end(&mut said).await;
                Err(format!("the helper ended without an answer: {}", String::from_utf8_lossy(&said).trim()))
            }
            Err(e) => Err(e),
        },
    }
}

/// `Ok(false)` when the helper ended without an answer.
async fn hear(stdout: ChildStdout, pid: &mut Option<i32>) -> Result<bool, String> {
    let mut lines = BufReader::new(stdout.take(LONGEST)).lines();
    while let Some(line) = lines
        .next_line()
        .await
        .map_err(|e| format!("hear the helper: {e}"))?
    {
        match serde_json::from_str(&line) {
            Ok(Answer::Pid(p)) => *pid = Some(p),
            Ok(Answer::Ready) => return Ok(true),
            Ok(Answer::Failed(step)) => return Err(step),
            Err(_) => {
                return Err(
                    "the helper program does not call vers_local::helper_main first".into(),
                );
            }
        }
    }
    Ok(false)
}

/// Kills everything of a sandbox, waits until it is gone, removes its cgroups.
pub(super) async fn end(h: &Handle) -> Result<(), Error> {
    let held = Held::open(h.pid, h.start_time)
        .map_err(Error::io(format!("open process {}", h.pid)))?
        .filter(|_| process::boot_id().is_ok_and(|b| b == h.boot_id));
    if let Some(held) = &held {
        held.kill()
            .map_err(Error::io(format!("kill process {}", h.pid)))?;
    }
    if let Some(v2) = &h.cgroup {
        let made = Made {
            v2: v2.clone(),
            pids_v1: h.pids_v1.clone(),
        };
        made.end().await?;
    }
    if let Some(held) = held {
        // When a namespace's first process is gone, the kernel has ended all others.
        tokio::time::timeout(DEADLINE, held.ended())
            .await
            .map_err(|_| Error::Timeout {
                what: format!("ending sandbox {}", h.id),
                after: DEADLINE,
            })?
            .map_err(Error::io(format!("wait for process {}", h.pid)))?;
    }
    Ok(())
}
