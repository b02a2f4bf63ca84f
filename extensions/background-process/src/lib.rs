//! Processes that run on in the background.
//!
//! `bg_start` starts one, on the active VM or on this machine, and the others look after it: `bg_logs`, `bg_list`, `bg_stop`. What
//! makes that reliable is told where it is done:
//!
//! * `process`: outputs that are always read, an end that is always known;
//! * [`ring`]: whole lines, bounded, with what was dropped counted;
//! * [`ready`]: when a process counts as ready;
//! * `place`: where `bash` would run;
//! * `table`: one process of each id, also when two calls want it at once.
//!
//! Each process leads a group of its own, which the host ends with the instance: nothing outlives the session.
//!
//! Modules that are public know nothing of the contract and are tested on the machine itself.

pub mod ready;
pub mod ring;
pub mod words;

mod describe;
mod look;
mod place;
mod process;
mod signals;
mod start;
mod table;

use pi_vers_sdk::{
    Answer, Error, Event, Extension, ExtensionInfo, ToolCall, ToolError, ToolResult, active_vm,
};

/// The extension.
struct BackgroundProcess;

impl Extension for BackgroundProcess {
    fn describe() -> ExtensionInfo {
        describe::describe()
    }

    async fn run(call: ToolCall) -> Result<ToolResult, ToolError> {
        match call.tool().as_str() {
            "bg_start" => start::run(&call).await,
            "bg_stop" => look::stop(&call).await,
            "bg_list" => Ok(look::list()),
            "bg_logs" => look::logs(&call),
            tool => Err(ToolError::Capability(Error::NotFound(format!(
                "There is no tool {tool}."
            )))),
        }
    }

    async fn stop() {
        table::clear().await;
    }

    async fn handle(event: Event) -> Answer {
        active_vm::heard(&event);
        Answer::Proceed
    }
}

pi_vers_sdk::export!(BackgroundProcess);
