//! Swarms of coding agents on Vers VMs.
//!
//! `vers_swarm_spawn` makes agents side by side from one snapshot, `vers_swarm_task` gives them work, `vers_swarm_wait` waits for it,
//! `vers_swarm_teardown` collects it and deletes the VMs. What makes that reliable is told where it is done:
//!
//! * `spawn`, `doomed`: each agent its own success or failure, and no VM that nobody was told of;
//! * [`state`]: how an agent is, from what it says and never from its silence;
//! * [`names`], `swarm`: labels that are never taken twice;
//! * `wait`, [`words`]: waits that wake on events, and results that tell done from failed, late, idle, ended and lost;
//! * `teardown`, [`collect`]: nothing is thrown away that nobody has seen;
//! * [`record`], `discover`: a session that ends loses nothing, and one that begins finds it again;
//! * [`mail`], `outbox`: what agents say while they work.
//!
//! Modules that are public know nothing of the contract, or next to nothing, and are tested on the machine itself.

pub mod bound;
pub mod collect;
pub mod mail;
pub mod names;
pub mod record;
pub mod state;
pub mod sync;
pub mod words;

mod describe;
mod discover;
mod doomed;
mod keep;
mod look;
mod notes;
mod outbox;
mod registry;
mod spawn;
mod swarm;
mod task;
mod teardown;
mod wait;
mod widget;
mod worker;

use pi_vers_sdk::{
    Error, Extension, ExtensionInfo, Reason, ToolCall, ToolError, ToolResult, background,
};

/// The extension.
struct VersSwarm;

impl Extension for VersSwarm {
    fn describe() -> ExtensionInfo {
        describe::describe()
    }

    async fn run(call: ToolCall) -> Result<ToolResult, ToolError> {
        match call.tool().as_str() {
            "vers_swarm_spawn" => spawn::run(call).await,
            "vers_swarm_task" => task::task(&call).await,
            "vers_swarm_message" => task::message(&call).await,
            "vers_swarm_wait" => wait::run(&call).await,
            "vers_swarm_status" => Ok(look::status()),
            "vers_swarm_read" => look::read(&call).await,
            "vers_swarm_teardown" => teardown::run(&call).await,
            "vers_swarm_discover" => discover::run(&call).await,
            tool => Err(ToolError::Capability(Error::NotFound(format!(
                "There is no tool {tool}."
            )))),
        }
    }

    async fn start(_reason: Reason) -> Result<(), Error> {
        background::open();
        discover::take_up().await;
        Ok(())
    }

    /// VMs and agents run on: the next start, or `vers_swarm_discover`, finds them.
    async fn stop() {
        for worker in swarm::all() {
            worker.let_go();
        }
        doomed::all_deleted().await;
    }
}

pi_vers_sdk::export!(VersSwarm);
