//! Where a tool of the harness acts that this extension stands in for: on the active VM, or where it always did.

use pi_vers_sdk::harness::session as harness;
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, outcome};

use crate::remote::Notices;
use crate::session;

/// Runs this on the active VM. Without one nothing of this extension stands between the model and the harness's own tool.
pub(crate) fn routed<A: 'static>(
    run: impl AsyncFn(&ToolCall, &str, A, &mut Notices) -> Result<ToolResult, ToolError> + 'static,
) -> impl AsyncFn(&ToolCall, A) -> Result<ToolResult, ToolError> + 'static {
    async move |call: &ToolCall, args: A| {
        let Some(vm) = session::active() else {
            return built_in(call).await;
        };
        let mut notices = Notices::default();
        let result = run(call, &vm, args, &mut notices).await;
        notices.lead(result)
    }
}

async fn built_in(call: &ToolCall) -> Result<ToolResult, ToolError> {
    harness::run_built_in(call).await.map_err(|error| match error {
        ToolError::Capability(Error::NotFound(_)) => outcome::failed(format!(
            "No VM is active, and this harness has no {} of its own. Choose a VM with vers_vm_use (vers_vms lists them, vers_vm_create \
             makes one).",
            call.tool()
        )),
        error => error,
    })
}
