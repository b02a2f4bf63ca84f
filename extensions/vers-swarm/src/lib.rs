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

mod discover;
mod doomed;
mod keep;
mod look;
mod outbox;
mod registry;
mod spawn;
mod swarm;
mod task;
mod teardown;
mod wait;
mod widget;
mod worker;

use pi_vers_sdk::declare::{Declaration, tool};
use pi_vers_sdk::{Error, FlagValue, Reason};

fn extension() -> Declaration {
    Declaration::new(
        "vers-swarm",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_DESCRIPTION"),
    )
    .tool(
        tool(
            "vers_swarm_spawn",
            "Spawn Agent Swarm",
            "Start coding agents (pi), each on a Vers VM of its own, side by side from one commit. Returns when each is ready or has failed; \
             the VM of one that failed is deleted. Give them work with vers_swarm_task. It may return while they are still starting, and says so: \
             then vers_swarm_status shows when they are ready.",
        )
        .open_world()
        .long_running(),
        spawn::run,
    )
    .tool(
        tool(
            "vers_swarm_task",
            "Send Task to Agent",
            "Give an agent of the swarm a task. Returns when the agent has taken it, not when it is done: see vers_swarm_wait. An agent that is \
             done takes the next task; one that is working does not.",
        )
        .open_world(),
        task::task,
    )
    .tool(
        tool(
            "vers_swarm_message",
            "Message Working Agent",
            "Tell an agent of the swarm something while it is working: it reads it after its running tool calls. Agents can say something \
             meanwhile, too; that arrives by itself.",
        )
        .open_world(),
        task::message,
    )
    .tool(
        tool(
            "vers_swarm_wait",
            "Wait for Agents",
            "Wait until agents of the swarm have finished their tasks, and show what they said. Tells apart who is done, failed, still working at \
             the time limit, was never given a task, has ended or is lost. Long output is cut at its beginning; vers_swarm_read shows more. It may \
             return early and say so: call it again then.",
        )
        .read_only()
        .open_world()
        .long_running(),
        wait::run,
    )
    .tool(
        tool(
            "vers_swarm_status",
            "Swarm Status",
            "List the agents of the swarm: how each is, its VM, its task.",
        )
        .read_only()
        .idempotent(),
        look::status,
    )
    .tool(
        tool(
            "vers_swarm_read",
            "Read Agent Output",
            "Show what an agent of the swarm said to its last task, or has said so far.",
        )
        .read_only()
        .idempotent(),
        look::read,
    )
    .tool(
        tool(
            "vers_swarm_teardown",
            "Tear Down Swarm",
            "Delete the VMs of all agents of the swarm. Refuses while an agent works or has said something that nobody has read, unless it is \
             collected or force is given. collect saves what the agents said, and files or a git bundle of a repository from each VM, into \
             directories here, before anything is deleted.",
        )
        .destructive()
        .open_world()
        .long_running(),
        teardown::run,
    )
    .tool(
        tool(
            "vers_swarm_discover",
            "Discover Swarm Agents",
            "Find agents that are running on VMs, by the VMs' labels, and connect to those that are not connected: after a restart, or when the \
             connection to one was lost.",
        )
        .idempotent()
        .open_world()
        .long_running(),
        discover::run,
    )
    .flag(
        sync::FLAG,
        "What of ~/.pi/agent swarm agents get: a list of skills, agents-md, prompts (default: nothing)",
        FlagValue::Text(String::new()),
    )
    .flag(
        spawn::EXPIRES,
        "Hours after which `pi-vers fleet gc` may delete the VMs of swarm agents (default: 0, never)",
        FlagValue::Number(0.0),
    )
    .start(start)
    .stop(stop)
}

pi_vers_sdk::extension!(extension);

async fn start(_reason: Reason) -> Result<(), Error> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_parameters_are_those_users_know_and_some_more() {
        assert_eq!(
            extension().signatures(),
            [
                "vers_swarm_spawn commitId count labels llmProxyKey model",
                "vers_swarm_task agentId task",
                "vers_swarm_message agentId message",
                "vers_swarm_wait agentIds timeoutSeconds",
                "vers_swarm_status",
                "vers_swarm_read agentId tail",
                "vers_swarm_teardown collect force",
                "vers_swarm_discover",
            ]
        );
    }
}
