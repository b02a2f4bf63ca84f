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

mod look;
mod place;
mod process;
mod signals;
mod start;
mod table;

use pi_vers_sdk::declare::{Declaration, tool};
use pi_vers_sdk::{Answer, active_vm};

fn extension() -> Declaration {
    Declaration::new(
        "background-process",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_DESCRIPTION"),
    )
    .tool(
        tool(
            "bg_start",
            "Start Background Process",
            "Start a command that runs on in the background, such as a server, a watcher or a long build, and return at once with its \
             first output. It runs where bash does: on the active Vers VM if there is one, else on the local machine. It runs until it ends, \
             bg_stop is called or the session ends; its output is kept for bg_logs. Starting an id again stops the old process first. With \
             waitFor the call returns as soon as the output shows that the process is ready, or earlier and says so.",
        )
        .destructive()
        .open_world()
        .long_running(),
        start::run,
    )
    .tool(
        tool(
            "bg_stop",
            "Stop Background Process",
            "Stop a background process and everything it started. It gets the signal, and is killed if that does not end it.",
        )
        .destructive()
        .idempotent(),
        look::stop,
    )
    .tool(
        tool(
            "bg_list",
            "List Background Processes",
            "List the background processes: whether each runs or how it ended, process ID, uptime, command.",
        )
        .read_only()
        .idempotent(),
        look::list,
    )
    .tool(
        tool(
            "bg_logs",
            "Background Process Logs",
            "Show the newest output of a background process. The newest 2000 lines (256 KB) of each stream are kept, also after its end.",
        )
        .read_only()
        .idempotent(),
        look::logs,
    )
    .stop(table::clear)
    .events(&[], &[active_vm::TOPIC], async |event| {
        active_vm::heard(&event);
        Answer::Proceed
    })
}

pi_vers_sdk::extension!(extension);

#[cfg(test)]
mod tests;

#[cfg(test)]
mod declared {
    use super::*;

    #[test]
    fn names_and_parameters_are_those_users_know_and_some_more() {
        assert_eq!(
            extension().signatures(),
            [
                "bg_start id command cwd waitMs waitFor on forwardPort env",
                "bg_stop id signal",
                "bg_list",
                "bg_logs id last stream",
            ]
        );
    }
}
