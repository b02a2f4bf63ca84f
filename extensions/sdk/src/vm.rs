//! VMs in words: the id that a model means, and why one cannot be used.

use crate::platform::vms::{self, State};
use crate::{Error, ToolError, outcome};

/// The whole id of the VM that an id or the beginning of one means.
///
/// # Errors
/// In words, with what to do: there is none, there are several, or the platform cannot be asked.
pub async fn resolve(id: &str) -> Result<String, ToolError> {
    let id = id.trim();
    if id.is_empty() {
        return Err(outcome::failed("Give the id of a VM. vers_vms lists them."));
    }
    vms::resolve(id.into()).await.map_err(|error| match error {
        Error::NotFound(_) => outcome::failed(missing(id)),
        Error::Conflict(why) => outcome::failed(format!(
            "{id} is the beginning of several VM ids: {why}. Give more of it."
        )),
        error => outcome::ended(&format!("Cannot find VM {id}"), error),
    })
}

/// There is no such VM, in words.
#[must_use]
pub fn missing(id: &str) -> String {
    format!("There is no VM {id}. vers_vms lists them.")
}

/// Why nothing can be done on a VM now and what to do about it, if that is so; none also when it cannot be told.
/// For the moment when something failed there: asking each time before would cost a round trip each time.
pub async fn not_ready(vm: &str) -> Option<String> {
    match vms::get(vm.into()).await {
        Ok(found) => match found.state {
            State::Paused | State::Sleeping => Some(format!(
                "VM {vm} is paused. Resume it with vers_vm_state, then try again."
            )),
            State::Booting => Some(format!(
                "VM {vm} is still booting. Try again in a few seconds."
            )),
            State::Dead => Some(format!("VM {vm} is dead. vers_vms lists the others.")),
            State::Running | State::Unknown => None,
        },
        Err(Error::NotFound(_)) => Some(missing(vm)),
        Err(_) => None,
    }
}
