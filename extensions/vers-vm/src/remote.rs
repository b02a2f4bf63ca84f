//! Reaching a VM, and saying what is wrong when it does not answer.
//!
//! Asking for a VM's state before each call would cost a round trip each time, so it is asked for when something failed. A
//! paused VM is resumed and the call tried once more; of any other the error says what it is and what to do next. The active
//! VM is never given up in the middle of a session: the next `rm -rf build` would then hit this machine.

use pi_vers_sdk::harness::ui;
use pi_vers_sdk::platform::shell;
use pi_vers_sdk::platform::vms::{self, State};
use pi_vers_sdk::system::files::{self, Location, WriteOptions};
use pi_vers_sdk::{Content, Error, ToolError, ToolResult, outcome, stream};

/// How long a VM that was just resumed may take to answer, in milliseconds.
pub(crate) const PATIENCE: u64 = 60_000;

/// What the model is told besides a call's own result.
#[derive(Debug, Default)]
pub(crate) struct Notices(Vec<String>);

impl Notices {
    fn add(&mut self, notice: String) {
        ui::notify(&notice, ui::Severity::Info);
        self.0.push(format!("[{notice}]"));
    }

    /// Puts the notices in front of a call's outcome.
    pub(crate) fn lead(
        self,
        result: Result<ToolResult, ToolError>,
    ) -> Result<ToolResult, ToolError> {
        let before = |mut result: ToolResult| {
            let notices = self.0.into_iter().map(Content::Text);
            result.content.splice(0..0, notices);
            result
        };
        match result {
            Ok(result) => Ok(before(result)),
            Err(ToolError::Failed(result)) => Err(ToolError::Failed(before(result))),
            Err(other) => Err(other),
        }
    }
}

/// Does something on a VM. If the VM turns out to be paused, it is resumed and the work done again, once. `work` must be
/// harmless to repeat when it failed.
///
/// # Errors
/// The work's own; or, when the VM is the reason, `Error::Unavailable` that says what it is and what to do.
pub(crate) async fn attempt<T>(
    vm: &str,
    notices: &mut Notices,
    mut work: impl AsyncFnMut() -> Result<T, Error>,
) -> Result<T, Error> {
    let error = match work().await {
        Ok(done) => return Ok(done),
        Err(error) => error,
    };
    match ready(vm, &error).await? {
        Some(notice) => {
            notices.add(notice);
            work().await
        }
        None => Err(error),
    }
}

/// Whether work that failed so is worth another try: says what was done for it. None: the VM is not the reason.
async fn ready(vm: &str, error: &Error) -> Result<Option<String>, Error> {
    if !matches!(
        error,
        Error::Unavailable(_) | Error::NotFound(_) | Error::Conflict(_) | Error::TimedOut(_)
    ) {
        return Ok(None);
    }
    match vms::get(vm.into()).await {
        Ok(found) => match found.state {
            State::Paused | State::Sleeping => resume(vm).await.map(Some),
            State::Booting => {
                shell::connect(vm.into(), PATIENCE)
                    .await
                    .map_err(|e| gone(vm, "is still booting", &e))?;
                Ok(Some(format!("VM {vm} was still booting and is ready now.")))
            }
            State::Dead => Err(Error::Unavailable(format!("VM {vm} is dead. {CHOOSE}"))),
            State::Running | State::Unknown => Ok(None),
        },
        Err(Error::NotFound(_)) => Err(Error::Unavailable(format!(
            "VM {vm} no longer exists. {CHOOSE}"
        ))),
        Err(Error::Cancelled) => Err(Error::Cancelled),
        // Then the first error says more.
        Err(_) => Ok(None),
    }
}

/// The end of a call that failed on a VM: `{what} on VM {vm}: {why}`, and the id once.
pub(crate) fn failed(what: &str, vm: &str, error: Error) -> ToolError {
    if outcome::explain(&error).contains(vm) {
        outcome::ended(what, error)
    } else {
        outcome::ended(&format!("{what} on VM {vm}"), error)
    }
}

/// What to do about an active VM that is gone.
const CHOOSE: &str = "Choose another with vers_vm_use (vers_vms lists them), or return to this machine with vers_vm_local.";

/// Resumes a paused VM; says so.
///
/// # Errors
/// `Error::Unavailable` in full words.
pub(crate) async fn resume(vm: &str) -> Result<String, Error> {
    vms::set_state(vm.into(), State::Running)
        .await
        .map_err(|e| gone(vm, "is paused and could not be resumed", &e))?;
    shell::connect(vm.into(), PATIENCE)
        .await
        .map_err(|e| gone(vm, "was resumed and does not answer", &e))?;
    Ok(format!("VM {vm} was paused and has been resumed."))
}

fn gone(vm: &str, state: &str, error: &Error) -> Error {
    match error {
        Error::Cancelled => Error::Cancelled,
        Error::Denied(rule) => Error::Denied(rule.clone()),
        _ => Error::Unavailable(format!(
            "VM {vm} {state}: {}. {CHOOSE}",
            outcome::explain(error).trim_end_matches('.')
        )),
    }
}

/// What became of a VM whose connection broke, as a sentence; empty if it seems well.
pub(crate) async fn what_became_of(vm: &str) -> String {
    let state = match vms::get(vm.into()).await {
        Ok(found) => match found.state {
            State::Paused | State::Sleeping => "is paused now",
            State::Dead => "is dead",
            State::Booting => "is booting",
            State::Running | State::Unknown => return String::new(),
        },
        Err(Error::NotFound(_)) => "no longer exists",
        Err(_) => return String::new(),
    };
    format!(" VM {vm} {state}.")
}

/// Reads a file of a VM whole.
///
/// # Errors
/// `Error::Limit` when it is longer than `most` bytes; the host's own.
pub(crate) async fn read_all(vm: &str, path: &str, most: usize) -> Result<Vec<u8>, Error> {
    let (bytes, done) = files::read(&at(vm, path), None);
    let bytes = stream::read_to_end(bytes, most).await?;
    done.await?;
    Ok(bytes)
}

/// A place on a VM.
pub(crate) fn at(vm: &str, path: &str) -> Location {
    Location::Vm((vm.into(), path.into()))
}

/// How the extension writes its own files: for the user's eyes alone.
pub(crate) fn private() -> WriteOptions {
    WriteOptions {
        parents: true,
        mode: Some(0o600),
        expect: None,
    }
}
