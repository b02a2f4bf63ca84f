//! Vers VMs for coding agents.
//!
//! Tools `vers_vm*` manage VMs. One VM can be *active*: then `bash`, `read`, `edit`, `write` (and `grep`, `find`, `ls`, where the
//! harness has them) act on it; without one the harness's own tools run, untouched. What makes remote tools as
//! good as local ones is told where it is done:
//!
//! * [`wrapper`]: a working directory that outlives the command, and scripts that notice nothing of it;
//! * [`tail`], `output`: a command's output, its end kept, shown while it comes;
//! * [`page`]: pages of files, with lines counted right;
//! * [`edit`], [`diff`]: exact replacement on bytes;
//! * [`search`], [`glob`]: searching with argument vectors alone;
//! * `remote`: a VM that was paused, deleted or lost meanwhile;
//! * `session`: the choice of VM, which belongs to the session.
//!
//! Modules that are public know nothing of the contract and are tested on the machine itself.

pub mod diff;
pub mod edit;
pub mod glob;
pub mod limits;
pub mod media;
pub mod page;
pub mod paths;
pub mod search;
pub mod tail;
pub mod wrapper;

mod bash;
mod dashboard;
mod describe;
mod file_tools;
mod output;
mod remote;
mod route;
mod search_tools;
mod session;
mod start;
mod status;
mod turns;
mod vm_tools;

use pi_vers_sdk::{
    Answer, Completion, Error, Event, Extension, ExtensionInfo, Reason, ToolCall, ToolError,
    ToolResult, active_vm, task,
};

/// The extension.
struct VersVm;

impl Extension for VersVm {
    fn describe() -> ExtensionInfo {
        describe::describe()
    }

    async fn run(call: ToolCall) -> Result<ToolResult, ToolError> {
        route::run(&call).await
    }

    async fn start(reason: Reason) -> Result<(), Error> {
        start::start(reason).await;
        Ok(())
    }

    async fn command(_name: String, arguments: String) -> Result<(), Error> {
        dashboard::run(&arguments).await
    }

    async fn handle(event: Event) -> Answer {
        // Not here: the VM may have to be asked, and the events after this one wait.
        if let Some(question) = active_vm::question(&event) {
            task::spawn(session::answer(question.token));
        }
        if let Some(loan) = active_vm::loan(&event) {
            task::spawn(session::lend(loan));
        }
        Answer::Proceed
    }

    async fn complete(_name: String, prefix: String) -> Vec<Completion> {
        dashboard::complete(&prefix).await
    }
}

pi_vers_sdk::export!(VersVm);
