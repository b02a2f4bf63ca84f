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

use pi_vers_sdk::FlagValue;
use pi_vers_sdk::declare::{Declaration, tool};

/// The flag that says how long a lieutenant may be idle.
pub(crate) const IDLE: &str = "vers-lt-idle-minutes";

fn extension() -> Declaration {
    Declaration::new(
        "vers-lieutenant",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_DESCRIPTION"),
    )
    .tool(
        tool(
            "vers_lt_create",
            "Create Lieutenant",
            "Create a lieutenant: a coding agent that lives long, keeps its conversation, and works on tasks you send it while you go on with \
             something else. It gets a Vers VM of its own, or with local=true it runs on this machine. You are told when it completes a task. It may \
             return while the VM is still being made, and says so: then vers_lt_status shows when it is ready.",
        )
        .open_world()
        .long_running(),
        create::run,
    )
    .tool(
        tool(
            "vers_lt_send",
            "Send to Lieutenant",
            "Send a message to a lieutenant, and return at once. A prompt is a new task; while the lieutenant works it is queued. You are told \
             when it has completed what it does; do not wait or ask for it.",
        )
        .open_world(),
        send::run,
    )
    .tool(
        tool(
            "vers_lt_read",
            "Read Lieutenant Output",
            "Read what a lieutenant says in its current or last run, and earlier responses.",
        )
        .read_only()
        .idempotent(),
        look::read,
    )
    .tool(
        tool(
            "vers_lt_status",
            "Lieutenant Status",
            "Show all lieutenants: how each is, its role, VM, tasks and last activity.",
        )
        .read_only()
        .idempotent(),
        look::status,
    )
    .tool(
        tool(
            "vers_lt_pause",
            "Pause Lieutenant",
            "Pause the VM of an idle lieutenant. It keeps everything, costs nothing meanwhile, and does nothing until it is resumed.",
        )
        .idempotent()
        .open_world(),
        power::pause,
    )
    .tool(
        tool(
            "vers_lt_resume",
            "Resume Lieutenant",
            "Resume a paused lieutenant, with its conversation as it was. Of one whose agent has ended, start a new agent on its VM.",
        )
        .idempotent()
        .open_world()
        .long_running(),
        power::resume,
    )
    .tool(
        tool(
            "vers_lt_destroy",
            "Destroy Lieutenant",
            "End a lieutenant for good: its VM is deleted with everything on it.",
        )
        .destructive()
        .idempotent()
        .open_world(),
        destroy::run,
    )
    .tool(
        tool(
            "vers_lt_discover",
            "Discover Lieutenants",
            "Look for lieutenants that run on Vers VMs and are not known here, and connect to them.",
        )
        .idempotent()
        .open_world()
        .long_running(),
        discover::run,
    )
    .command(
        "lieutenants",
        "Show the lieutenants and how they are",
        None,
        show::command,
    )
    .flag(
        IDLE,
        "Pause the VM of a lieutenant that has been idle this many minutes, after a warning (0: never)",
        FlagValue::Number(0.0),
    )
    .start(start::start)
    .stop(start::stop)
}

pi_vers_sdk::extension!(extension);

#[cfg(test)]
mod tests {
    use super::*;
    use pi_vers_sdk::Hints;

    #[test]
    fn names_and_parameters_are_those_users_know() {
        assert_eq!(
            extension().signatures(),
            [
                "vers_lt_create name role commitId llmProxyKey model local",
                "vers_lt_send name message mode",
                "vers_lt_read name tail history",
                "vers_lt_status",
                "vers_lt_pause name",
                "vers_lt_resume name",
                "vers_lt_destroy name",
                "vers_lt_discover",
            ]
        );
    }

    #[test]
    fn only_what_only_reads_says_so() {
        let declared = extension();
        let tools = declared.info().tools.iter();
        let reading: Vec<&str> = tools
            .filter(|tool| tool.hints.contains(Hints::READ_ONLY))
            .map(|tool| tool.name.as_str())
            .collect();
        assert_eq!(reading, ["vers_lt_read", "vers_lt_status"]);
    }
}
