//! Lieutenants: coding agents that live long, on VMs of their own, and keep their conversation.
//!
//! The model makes one, gives it tasks and goes on; when the lieutenant has completed one, the session is told. The agent itself is spoken with
//! through `pi_vers_sdk::agent`; what this extension adds is the memory of who there is:
//!
//! * [`record`], [`history`], [`lease`]: what is kept, and whose it is when several sessions share a machine;
//! * `keep`, `start`: the store, taking over at the start and giving back at the end;
//! * `table`: who there is; `follow`: reaching each, hearing it, reaching it again;
//! * `announce`: the end of a run, told once;
//! * `create`, `send`, `look`, `power`, `destroy`, `discover`: the tools;
//! * `clock`, [`idle`]: what happens at a time;
//! * [`name`], [`words`], [`panel`], [`time`]: names, texts, the widget.
//!
//! Modules that are public know nothing of the contract but its types and are tested on the machine itself.

pub mod history;
pub mod idle;
pub mod lease;
pub mod name;
pub mod panel;
pub mod record;
pub mod time;
pub mod words;

mod announce;
mod clock;
mod create;
mod describe;
mod destroy;
mod discover;
mod follow;
mod keep;
mod look;
mod power;
mod send;
mod show;
mod start;
mod table;

use pi_vers_sdk::{Error, Extension, ExtensionInfo, Reason, ToolCall, ToolError, ToolResult};

/// The extension.
struct VersLieutenant;

impl Extension for VersLieutenant {
    fn describe() -> ExtensionInfo {
        describe::describe()
    }

    async fn run(call: ToolCall) -> Result<ToolResult, ToolError> {
        match call.tool().as_str() {
            "vers_lt_create" => create::run(call).await,
            "vers_lt_send" => send::run(&call).await,
            "vers_lt_read" => look::read(&call).await,
            "vers_lt_status" => look::status(&call).await,
            "vers_lt_pause" => power::pause(&call).await,
            "vers_lt_resume" => power::resume(call).await,
            "vers_lt_destroy" => destroy::run(&call).await,
            "vers_lt_discover" => discover::run(call).await,
            tool => Err(ToolError::Capability(Error::NotFound(format!(
                "There is no tool {tool}."
            )))),
        }
    }

    async fn start(_reason: Reason) -> Result<(), Error> {
        start::start();
        Ok(())
    }

    async fn stop() {
        start::stop().await;
    }

    async fn command(name: String, _arguments: String) -> Result<(), Error> {
        match name.as_str() {
            "lieutenants" => {
                show::command();
                Ok(())
            }
            name => Err(Error::NotFound(format!("There is no command {name}."))),
        }
    }
}

pi_vers_sdk::export!(VersLieutenant);
