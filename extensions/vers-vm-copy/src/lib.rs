//! Copies between this machine and Vers VMs.
//!
//! One tool, `vers_vm_copy`. The host moves the bytes, keeps modes, times and links, goes on after a broken connection
//! and cleans up after a copy that was given up; here is what a model writes ([`place`]) and reads ([`report`]).
//!
//! Modules that are public know nothing of the contract and are tested on the machine itself.

pub mod place;
pub mod report;

mod copy;
mod describe;

use pi_vers_sdk::{Extension, ExtensionInfo, ToolCall, ToolError, ToolResult};

/// The extension.
struct VersVmCopy;

impl Extension for VersVmCopy {
    fn describe() -> ExtensionInfo {
        describe::describe()
    }

    async fn run(call: ToolCall) -> Result<ToolResult, ToolError> {
        copy::run(&call).await
    }
}

pi_vers_sdk::export!(VersVmCopy);
