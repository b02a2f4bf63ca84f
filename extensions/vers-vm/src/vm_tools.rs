//! The tools that manage VMs. Their texts carry whole ids: a model completes a shortened one from its fancy.

use pi_vers_sdk::declare::{JsonSchema, Nothing, schemars};
use pi_vers_sdk::platform::shell;
use pi_vers_sdk::platform::vms::{self, Origin, State, Vm, VmConfig};
use pi_vers_sdk::vm::{self, resolve};
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, call, outcome};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{remote, session};

/// How long a running VM may take to answer, in milliseconds.
const PATIENCE: u64 = 30_000;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Create {
    /// Number of vCPUs
    #[schemars(range(min = 1))]
    vcpu_count: Option<u64>,
    /// RAM in MiB
    #[schemars(range(min = 1))]
    mem_size_mib: Option<u64>,
    /// Disk size in MiB
    #[schemars(range(min = 1))]
    fs_size_mib: Option<u64>,
    /// Wait until the VM runs (default: false)
    wait_boot: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct OneVm {
    /// Id of the VM; the beginning of one is enough where only one VM's id begins so
    #[schemars(length(min = 1))]
    vm_id: String,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Commit {
    /// Id of the VM; the beginning of one is enough where only one VM's id begins so
    #[serde(rename = "vmId")]
    #[schemars(length(min = 1))]
    vm_id: String,
    /// Leave the VM paused afterwards (default: false)
    keep_paused: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Restore {
    /// Id of the commit
    #[schemars(length(min = 1))]
    commit_id: String,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SetState {
    /// Id of the VM; the beginning of one is enough where only one VM's id begins so
    #[schemars(length(min = 1))]
    vm_id: String,
    /// The state to set
    state: WantedState,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
enum WantedState {
    Paused,
    Running,
}

/// The state in the platform's words.
pub(crate) fn word(state: State) -> &'static str {
    match state {
        State::Booting => "booting",
        State::Running => "running",
        State::Paused => "paused",
        State::Sleeping => "sleeping",
        State::Dead => "dead",
        State::Unknown => "unknown",
    }
}

fn body(vm: &Vm) -> Value {
    let labels: serde_json::Map<String, Value> = vm
        .labels
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().into()))
        .collect();
    json!({
        "vm_id": vm.id,
        "owner_id": vm.owner_id,
        "state": word(vm.state),
        "created_at": vm.created_at,
        "labels": labels,
    })
}

/// `vers_vms`
pub(crate) async fn list(_call: &ToolCall, _: Nothing) -> Result<ToolResult, ToolError> {
    let vms = vms::list()
        .await
        .map_err(|e| outcome::ended("Cannot list VMs", e))?;
    let active = session::active();
    let mut text = format!("{} VM(s)", vms.len());
    if let Some(active) = &active {
        text.push_str(&format!(" (active: {active})"));
    }
    for vm in &vms {
        let star = if active.as_ref() == Some(&vm.id) {
            " ★"
        } else {
            ""
        };
        text.push_str(&format!(
            "\n  {} [{}]{star}  created {}",
            vm.id,
            word(vm.state),
            vm.created_at
        ));
    }
    Ok(outcome::text_with(
        text,
        &json!({ "vms": vms.iter().map(body).collect::<Vec<_>>() }),
    ))
}

/// `vers_vm_create`
pub(crate) async fn create(call: &ToolCall, args: Create) -> Result<ToolResult, ToolError> {
    let wait_boot = args.wait_boot == Some(true);
    let number = |name: &str, value: Option<u64>| {
        value
            .map(|v| {
                u32::try_from(v).map_err(|_| outcome::failed(format!("{name} is too large: {v}")))
            })
            .transpose()
    };
    let config = VmConfig {
        vcpu_count: number("vcpu_count", args.vcpu_count)?,
        mem_size_mib: number("mem_size_mib", args.mem_size_mib)?,
        fs_size_mib: number("fs_size_mib", args.fs_size_mib)?,
        labels: Vec::new(),
    };
    // Who may not wait until it has booted shall know its id before that.
    let in_a_hurry = wait_boot && call.patience().is_some();
    let id = vms::create(config, wait_boot && !in_a_hurry)
        .await
        .map_err(|e| outcome::ended("Cannot create a VM", e))?;
    let mut text = format!("VM created: {id}");
    if in_a_hurry {
        match call::patiently(call, shell::connect(id.clone(), remote::PATIENCE)).await {
            Ok(Some(())) => {}
            Ok(None) => text.push_str(
                "\nIt is still booting, by itself. Call vers_vm_use to wait for it and make it the active VM; vers_vms shows its state.",
            ),
            Err(error) => {
                return Err(outcome::ended(
                    &format!("VM {id} was created and does not answer yet"),
                    error,
                ));
            }
        }
    }
    Ok(outcome::text_with(text, &json!({ "vm_id": id })))
}

/// `vers_vm_delete`
pub(crate) async fn delete(_call: &ToolCall, args: OneVm) -> Result<ToolResult, ToolError> {
    let id = resolve(&args.vm_id).await?;
    delete_vm(&id)
        .await
        .map_err(|e| outcome::ended(&format!("Cannot delete VM {id}"), e))?;
    Ok(outcome::text_with(
        format!("VM {id} deleted."),
        &json!({ "vm_id": id }),
    ))
}

/// Deletes a VM; if tools acted on it, they act on this machine from now on.
pub(crate) async fn delete_vm(id: &str) -> Result<(), Error> {
    vms::delete(id.into()).await?;
    session::forget(id);
    if session::is_active(id) {
        session::activate(None).await;
    }
    Ok(())
}

/// `vers_vm_branch`
pub(crate) async fn branch(_call: &ToolCall, args: OneVm) -> Result<ToolResult, ToolError> {
    let id = resolve(&args.vm_id).await?;
    let new = branch_vm(&id)
        .await
        .map_err(|e| outcome::ended(&format!("Cannot branch VM {id}"), e))?;
    Ok(outcome::text_with(
        format!("Branched VM {id} -> {new}"),
        &json!({ "vm_id": new }),
    ))
}

/// Clones a VM once.
pub(crate) async fn branch_vm(id: &str) -> Result<String, Error> {
    let new = vms::branch(id.into(), 1).await?;
    new.into_iter()
        .next()
        .ok_or_else(|| Error::Other("the platform named no new VM; vers_vms may list it".into()))
}

/// `vers_vm_commit`
pub(crate) async fn commit(_call: &ToolCall, args: Commit) -> Result<ToolResult, ToolError> {
    let id = resolve(&args.vm_id).await?;
    let commit = vms::commit(id.clone(), args.keep_paused == Some(true))
        .await
        .map_err(|e| outcome::ended(&format!("Cannot commit VM {id}"), e))?;
    Ok(outcome::text_with(
        format!("VM {id} committed: {commit}"),
        &json!({ "commit_id": commit }),
    ))
}

/// `vers_vm_restore`
pub(crate) async fn restore(_call: &ToolCall, args: Restore) -> Result<ToolResult, ToolError> {
    let commit = args.commit_id.trim();
    let id = vms::restore(Origin::Commit(commit.into()))
        .await
        .map_err(|e| outcome::ended(&format!("Cannot restore commit {commit}"), e))?;
    Ok(outcome::text_with(
        format!("Restored from commit {commit} -> VM {id}"),
        &json!({ "vm_id": id }),
    ))
}

/// `vers_vm_state`
pub(crate) async fn set_state(_call: &ToolCall, args: SetState) -> Result<ToolResult, ToolError> {
    let id = resolve(&args.vm_id).await?;
    let (state, word) = match args.state {
        WantedState::Paused => (State::Paused, "Paused"),
        WantedState::Running => (State::Running, "Running"),
    };
    vms::set_state(id.clone(), state)
        .await
        .map_err(|e| outcome::ended(&format!("Cannot set VM {id} to {word}"), e))?;
    Ok(outcome::text_with(
        format!("VM {id} state set to {word}."),
        &json!({ "vmId": id, "state": word }),
    ))
}

/// `vers_vm_use`
pub(crate) async fn activate(call: &ToolCall, args: OneVm) -> Result<ToolResult, ToolError> {
    let id = resolve(&args.vm_id).await?;
    let reached = call::patiently(call, reach(&id)).await;
    let reached = reached.map_err(|error| match error {
        Error::Cancelled | Error::Denied(_) => outcome::ended("", error),
        error => outcome::failed(outcome::explain(&error)),
    })?;
    let Some(resumed) = reached else {
        return Err(outcome::failed(format!(
            "VM {id} does not answer yet: it is still booting or resuming, by itself. Call vers_vm_use again to go on waiting; the active VM is \
             what it was."
        )));
    };
    session::activate(Some(id.clone())).await;
    let resumed = resumed.map_or_else(String::new, |notice| format!("{notice} "));
    let text = format!(
        "{resumed}Active VM set to {id}. Persistent SSH session established. All read/bash/edit/write tools now execute on this VM."
    );
    Ok(outcome::text_with(text, &json!({ "vmId": id })))
}

/// Makes sure that a VM answers; resumes a paused one and says so.
///
/// # Errors
/// In full words, except for refusals and `cancelled`.
pub(crate) async fn reach(id: &str) -> Result<Option<String>, Error> {
    let cannot = |error: Error| match error {
        Error::Cancelled | Error::Denied(_) => error,
        // A whole id is not looked up before.
        Error::NotFound(_) => Error::NotFound(vm::missing(id)),
        error => Error::Unavailable(format!(
            "Cannot reach VM {id}: {}",
            outcome::explain(&error)
        )),
    };
    let vm = vms::get(id.into()).await.map_err(cannot)?;
    match vm.state {
        State::Paused | State::Sleeping => remote::resume(id).await.map(Some).map_err(cannot),
        State::Dead => Err(cannot(Error::Conflict(
            "it is dead. vers_vms lists the others".into(),
        ))),
        State::Booting => shell::connect(id.into(), remote::PATIENCE)
            .await
            .map(|()| None)
            .map_err(cannot),
        State::Running | State::Unknown => shell::connect(id.into(), PATIENCE)
            .await
            .map(|()| None)
            .map_err(cannot),
    }
}

/// `vers_vm_local`
pub(crate) async fn local(_call: &ToolCall, _: Nothing) -> Result<ToolResult, ToolError> {
    let Some(vm) = session::active() else {
        return Ok(outcome::text_with("Already in local mode.", &json!({})));
    };
    // The host's connection stays: other extensions may have processes and ports on the VM, which would end with it.
    session::activate(None).await;
    let text = format!("Switched from VM {vm} back to local execution. SSH session closed.");
    Ok(outcome::text_with(text, &json!({})))
}
