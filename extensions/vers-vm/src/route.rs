//! Which code runs a call.

use pi_vers_sdk::harness::session as harness;
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, outcome};

use crate::{bash, file_tools, search_tools, session, vm_tools};

/// Runs one call.
pub(crate) async fn run(call: &ToolCall) -> Result<ToolResult, ToolError> {
    let tool = call.tool();
    match tool.as_str() {
        "vers_vms" => vm_tools::list().await,
        "vers_vm_create" => vm_tools::create(call).await,
        "vers_vm_delete" => vm_tools::delete(call).await,
        "vers_vm_branch" => vm_tools::branch(call).await,
        "vers_vm_commit" => vm_tools::commit(call).await,
        "vers_vm_restore" => vm_tools::restore(call).await,
        "vers_vm_state" => vm_tools::set_state(call).await,
        "vers_vm_use" => vm_tools::activate(call).await,
        "vers_vm_local" => vm_tools::local().await,
        _ => match session::active() {
            Some(vm) => on_vm(call, &tool, &vm).await,
            None => built_in(call, &tool).await,
        },
    }
}

async fn on_vm(call: &ToolCall, tool: &str, vm: &str) -> Result<ToolResult, ToolError> {
    match tool {
        "bash" => bash::run(call, vm).await,
        "read" => file_tools::read(call, vm).await,
        "edit" => file_tools::edit(call, vm).await,
        "write" => file_tools::write(call, vm).await,
        "grep" => search_tools::grep(call, vm).await,
        "find" => search_tools::find(call, vm).await,
        "ls" => search_tools::ls(call, vm).await,
        _ => Err(ToolError::Capability(Error::NotFound(format!(
            "There is no tool {tool}."
        )))),
    }
}

/// Without an active VM nothing of this extension stands between the model and the harness's own tool.
async fn built_in(call: &ToolCall, tool: &str) -> Result<ToolResult, ToolError> {
    harness::run_built_in(call).await.map_err(|error| match error {
        ToolError::Capability(Error::NotFound(_)) => outcome::failed(format!(
            "No VM is active, and this harness has no {tool} of its own. Choose a VM with vers_vm_use (vers_vms lists them, vers_vm_create \
             makes one)."
        )),
        error => error,
    })
}
