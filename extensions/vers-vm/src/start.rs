//! The start of a session: the choice of VM is taken up, and the status line says how things are.

use pi_vers_sdk::harness::session::{self as harness, Delivery};
use pi_vers_sdk::harness::ui::{self, Severity};
use pi_vers_sdk::platform::vms::{self, State, Vm};
use pi_vers_sdk::show::{failure, message};
use pi_vers_sdk::{Error, Reason, outcome, task};

use crate::{session, status};

/// How long the start of a session may wait for the platform, in milliseconds.
const PATIENCE: u64 = 5_000;

/// Takes up the session's VM. Safe to run more than once.
pub(crate) async fn start(reason: Reason) -> Result<(), Error> {
    session::set_active(session::recorded().await);
    status::show();
    session::tell();
    match session::active() {
        // Before any call: none shall act on this machine that was meant for the VM, or the other way round.
        Some(vm) => check(&vm).await,
        None => task::spawn(count(reason)),
    }
    Ok(())
}

/// Drops the session's VM if it is gone, and tells the user and the model.
async fn check(vm: &str) {
    let gone = match session::within(PATIENCE, vms::get(vm.into())).await {
        Some(Ok(Vm {
            state: State::Dead, ..
        })) => "is dead",
        Some(Err(Error::NotFound(_))) => "no longer exists",
        Some(Ok(_)) => return,
        Some(Err(error)) => return unreachable(&outcome::explain(&error)),
        None => return unreachable("it did not answer in time"),
    };
    session::forget(vm);
    session::activate(None).await;
    let text = format!(
        "VM {vm}, which was active in this session, {gone}. Tools act on the local machine again."
    );
    ui::notify(&text, Severity::Warning);
    let message = message("vers-vm", text);
    if let Err(error) = harness::send_message(message, Delivery::NextTurn, false).await {
        failure("The model could not be told", &error);
    }
}

/// Shows how many VMs there are.
async fn count(reason: Reason) {
    match vms::list().await {
        // A VM may have been chosen meanwhile.
        Ok(_) | Err(_) if session::active().is_some() => {}
        Ok(vms) => status::count(vms.len()),
        Err(Error::Cancelled) => {}
        Err(error) if reason == Reason::Startup => unreachable(&outcome::explain(&error)),
        Err(_) => status::offline(),
    }
}

fn unreachable(why: &str) {
    if session::active().is_none() {
        status::offline();
    }
    ui::notify(&format!("Vers connection failed: {why}"), Severity::Warning);
}
