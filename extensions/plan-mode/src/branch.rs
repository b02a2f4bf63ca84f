//! The throw-away branch: a copy of the active VM on which anything may run while the model plans.
//!
//! It is made by the platform from the running VM, labelled, and put in the place of the active VM (`vers-vm.use`), so that `bash` and the
//! file tools act there. It is deleted when plan mode is left, when the session ends, and, if both were impossible, when the
//! session is opened again. If it cannot be made or used, plan mode is what it is without it: read-only.

use std::cell::{Cell, RefCell};

use pi_vers_sdk::active_vm::ActiveVm;
use pi_vers_sdk::harness::session;
use pi_vers_sdk::harness::ui::{self, Severity};
use pi_vers_sdk::platform::vms;
use pi_vers_sdk::{Error, Event, active_vm, args, outcome};

use crate::state::{self, change, get, warn};
use crate::{mode, show};

/// The label of every such branch; its value is the session's id.
const LABEL: &str = "pi-vers.plan-mode";

thread_local! {
    /// The VM that tools act on, as `vers-vm` has told last.
    static ACTING: RefCell<Option<String>> = RefCell::default();
    /// Whether a branch is being made: a second one would take the first one's place.
    static MAKING: Cell<bool> = const { Cell::new(false) };
}

/// Makes the branch that is wanted, and says what came of it.
pub(crate) async fn begin() {
    if !wanted() || MAKING.replace(true) {
        return;
    }
    let made = make().await;
    MAKING.set(false);
    match made {
        Ok(vm) => {
            // Plan mode may have been left meanwhile.
            let taken = change(|state| match &mut state.branch {
                Some(branch) if state.enabled && branch.vm.is_none() => {
                    branch.vm = Some(vm.clone());
                    true
                }
                _ => false,
            });
            if !taken {
                return discard(&vm).await;
            }
            mode::hide().await;
            state::persist().await;
            show::show();
            ui::notify(
                &format!(
                    "Plan mode enabled on a throw-away branch: VM {vm}. Anything may run there; it is deleted when plan mode is left."
                ),
                Severity::Info,
            );
        }
        Err(why) => {
            change(|state| state.branch = None);
            state::persist().await;
            show::show();
            ui::notify(
                &format!("Plan mode has no throw-away branch and is read-only: {why}."),
                Severity::Warning,
            );
        }
    }
}

fn wanted() -> bool {
    get(|state| {
        state.enabled
            && state
                .branch
                .as_ref()
                .is_some_and(|branch| branch.vm.is_none())
    })
}

async fn make() -> Result<String, String> {
    let explain = |error: Error| outcome::explain(&error).trim_end_matches('.').to_owned();
    let active = active_vm::ask().await.map_err(explain)?;
    let Some(origin) = active.vm_id else {
        return Err("no VM is active".into());
    };
    let made = vms::branch(origin.clone(), 1).await;
    let made =
        made.map_err(|error| format!("VM {origin} cannot be branched: {}", explain(error)))?;
    let Some(vm) = made.into_iter().next() else {
        return Err(format!("the platform made no branch of VM {origin}"));
    };
    let label = (LABEL.to_owned(), session::id());
    let ready = async {
        vms::set_labels(vm.clone(), vec![label]).await?;
        active_vm::use_for_now(Some(vm.clone())).await
    };
    match ready.await {
        Ok(active) if active.vm_id.as_deref() == Some(&*vm) => Ok(vm),
        Ok(_) => {
            discard(&vm).await;
            Err("another VM was chosen meanwhile".into())
        }
        Err(error) => {
            discard(&vm).await;
            Err(format!("the branch cannot be used: {}", explain(error)))
        }
    }
}

/// Lets tools act on the chosen VM again and deletes the branch, if there is one.
pub(crate) async fn end() {
    let branch = change(|state| state.branch.take());
    if let Some(vm) = branch.and_then(|branch| branch.vm) {
        discard(&vm).await;
    }
}

/// Takes the branch out of use and deletes it.
pub(crate) async fn discard(vm: &str) {
    if let Err(error) = active_vm::use_for_now(None).await {
        warn(&format!(
            "Tools may still act on VM {vm}: {}",
            outcome::explain(&error)
        ));
    }
    delete(vm).await;
}

/// Deletes a branch; one that is gone is fine.
pub(crate) async fn delete(vm: &str) {
    match vms::delete(vm.into()).await {
        Ok(()) | Err(Error::NotFound(_)) => {}
        Err(error) => {
            let text = format!(
                "The throw-away branch {vm} could not be deleted: {}. It has the label {LABEL}.",
                outcome::explain(&error).trim_end_matches('.')
            );
            warn(&text);
            ui::notify(&text, Severity::Warning);
        }
    }
}

/// `vers-vm` has told which VM tools act on.
pub(crate) fn heard(event: &Event) {
    let Event::Bus((topic, data)) = event else {
        return;
    };
    if topic == active_vm::TOPIC
        && let Ok(active) = args::parse::<ActiveVm>(data)
    {
        ACTING.with_borrow_mut(|acting| *acting = active.vm_id);
    }
}

/// Whether tools act on the branch: the user may have chosen another VM, or it may be gone. What was heard last counts. It cannot be asked
/// for here: the answer would be an event, and events wait for the one that is being answered.
pub(crate) fn is_in_use() -> bool {
    state::branch().is_some_and(|vm| ACTING.with_borrow(|acting| acting.as_deref() == Some(&*vm)))
}
