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

use pi_vers_sdk::declare::{Declaration, tool};
use pi_vers_sdk::{Answer, Event, FlagValue, active_vm, task};
use route::routed;

fn extension() -> Declaration {
    let declared = Declaration::new(
        "vers-vm",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_DESCRIPTION"),
    );
    let vms = vm_tools(declared);
    routed_tools(vms)
        .command(
            "vers",
            "Vers VM dashboard — view and manage VMs",
            Some("[vm-id]"),
            dashboard::run,
        )
        .completed_by(dashboard::complete)
        .flag(
            "vers-api-key",
            "Vers API key (default: VERS_API_KEY, or the login of the vers CLI)",
            FlagValue::Text(String::new()),
        )
        .flag(
            "vers-base-url",
            "Base URL of the Vers API (default: VERS_BASE_URL, or the public platform)",
            FlagValue::Text(String::new()),
        )
        .flag(
            "vers-ssh-timeout",
            "Seconds a bash command may run on a VM unless the call says otherwise; 0 is no limit",
            FlagValue::Number(120.0),
        )
        .start(start::start)
        .events(&[], &[active_vm::ASK, active_vm::USE], heard)
}

/// The tools that manage VMs.
fn vm_tools(declared: Declaration) -> Declaration {
    declared
        .tool(
            tool(
                "vers_vms",
                "Vers VMs",
                "List all Vers VMs. Returns VM IDs, states, and creation times.",
            )
            .read_only()
            .idempotent()
            .open_world(),
            vm_tools::list,
        )
        .tool(
            tool(
                "vers_vm_create",
                "Create Vers VM",
                "Create a new Vers VM. Returns its ID. It boots in the background unless wait_boot is true.",
            )
            .open_world()
            .long_running(),
            vm_tools::create,
        )
        .tool(
            tool(
                "vers_vm_delete",
                "Delete Vers VM",
                "Delete a Vers VM for good, with everything on it. If it is the active VM, tools act on the local machine again.",
            )
            .destructive()
            .open_world(),
            vm_tools::delete,
        )
        .tool(
            tool(
                "vers_vm_branch",
                "Branch Vers VM",
                "Clone a running Vers VM, with its memory, processes and files. Returns the new VM's ID.",
            )
            .open_world(),
            vm_tools::branch,
        )
        .tool(
            tool(
                "vers_vm_commit",
                "Commit Vers VM",
                "Snapshot a Vers VM, with its memory, processes and files. Returns the commit ID, from which vers_vm_restore makes new VMs.",
            )
            .open_world(),
            vm_tools::commit,
        )
        .tool(
            tool(
                "vers_vm_restore",
                "Restore Vers VM",
                "Start a new Vers VM from a commit. Returns the new VM's ID.",
            )
            .open_world(),
            vm_tools::restore,
        )
        .tool(
            tool(
                "vers_vm_state",
                "Set Vers VM State",
                "Pause or resume a Vers VM. A paused VM keeps its memory and files.",
            )
            .idempotent()
            .open_world(),
            vm_tools::set_state,
        )
        .tool(
            tool(
                "vers_vm_use",
                "Use Vers VM",
                "Make a Vers VM the active one: from then on bash, read, edit, write, grep, find and ls act on it instead of the local \
                 machine, until vers_vm_local. A paused VM is resumed.",
            )
            .idempotent()
            .open_world()
            .long_running(),
            vm_tools::activate,
        )
        .tool(
            tool(
                "vers_vm_local",
                "Use Local Machine",
                "Let bash, read, edit, write, grep, find and ls act on the local machine again.",
            )
            .idempotent(),
            vm_tools::local,
        )
}

/// The tools that act on the active VM.
fn routed_tools(declared: Declaration) -> Declaration {
    declared
        .tool(
            tool(
                "bash",
                "bash",
                "Execute a bash command, on the active Vers VM if there is one, else on the local machine. The working directory persists \
                 between commands. Returns stdout and stderr. Output is truncated to the last 2000 lines or 50KB (whichever is hit \
                 first). If truncated, full output is saved to a file.",
            )
            .destructive()
            .open_world()
            .long_running(),
            routed(bash::run),
        )
        .tool(
            tool(
                "read",
                "read",
                "Read the contents of a file, on the active Vers VM if there is one, else on the local machine. Supports text files and images \
                 (jpg, png, gif, webp). Images are sent as attachments. For text files, output is truncated to 2000 lines or 50KB (whichever is \
                 hit first). Use offset/limit for large files. When you need the full file, continue with offset until complete.",
            )
            .read_only()
            .idempotent(),
            routed(file_tools::read),
        )
        .tool(
            tool(
                "edit",
                "edit",
                "Edit a file by replacing exact text, on the active Vers VM if there is one, else on the local machine. The old text must match \
                 exactly (including whitespace) and occur once. For several replacements in one file give edits; each is matched \
                 against the original file, and they must not overlap.",
            )
            .destructive(),
            routed(file_tools::edit),
        )
        .tool(
            tool(
                "write",
                "write",
                "Write content to a file, on the active Vers VM if there is one, else on the local machine. Creates the file if it doesn't exist, \
                 overwrites if it does. Automatically creates parent directories.",
            )
            .destructive()
            .idempotent(),
            routed(file_tools::write),
        )
        .tool(
            tool(
                "grep",
                "grep",
                "Search file contents for a pattern, on the active Vers VM if there is one, else on the local machine. Returns matching lines with file \
                 paths and line numbers. Respects .gitignore (on a VM: where ripgrep is installed). Output is truncated to 100 matches or 50KB (whichever is hit \
                 first). Long lines are truncated to 500 chars.",
            )
            .read_only()
            .idempotent()
            .only_replaces(),
            routed(search_tools::grep),
        )
        .tool(
            tool(
                "find",
                "find",
                "Search for files by glob pattern, on the active Vers VM if there is one, else on the local machine. Returns matching file paths relative \
                 to the search directory. Respects .gitignore (on a VM: where ripgrep is installed). Output is truncated to 1000 results or 50KB \
                 (whichever is hit first).",
            )
            .read_only()
            .idempotent()
            .only_replaces(),
            routed(search_tools::find),
        )
        .tool(
            tool(
                "ls",
                "ls",
                "List directory contents, on the active Vers VM if there is one, else on the local machine. Returns entries sorted alphabetically, with '/' \
                 suffix for directories (on a VM: '@' for links). Includes dotfiles. Output is truncated to 500 entries or 50KB (whichever is hit first).",
            )
            .read_only()
            .idempotent()
            .only_replaces(),
            routed(search_tools::ls),
        )
}

pi_vers_sdk::extension!(extension);

#[cfg(test)]
mod tests;

/// What other extensions ask for. Not answered here: the VM may have to be asked, and the events after this one wait.
async fn heard(event: Event) -> Answer {
    if let Some(question) = active_vm::question(&event) {
        task::spawn(session::answer(question.token));
    }
    if let Some(loan) = active_vm::loan(&event) {
        task::spawn(session::lend(loan));
    }
    Answer::Proceed
}

#[cfg(test)]
mod declared {
    use super::*;
    use pi_vers_sdk::Hints;

    #[test]
    fn names_and_parameters_are_those_users_know() {
        assert_eq!(
            extension().signatures(),
            [
                "vers_vms",
                "vers_vm_create vcpu_count mem_size_mib fs_size_mib wait_boot",
                "vers_vm_delete vmId",
                "vers_vm_branch vmId",
                "vers_vm_commit vmId keep_paused",
                "vers_vm_restore commitId",
                "vers_vm_state vmId state",
                "vers_vm_use vmId",
                "vers_vm_local",
                "bash command timeout",
                "read path offset limit",
                "edit path oldText newText edits",
                "write path content",
                "grep pattern path glob ignoreCase literal context limit",
                "find pattern path limit",
                "ls path limit",
            ]
        );
    }

    #[test]
    fn hints_are_true() {
        let declared = extension();
        let with = |wanted: &dyn Fn(Hints) -> bool| {
            let tools = declared.info().tools.iter();
            let names = tools.filter(|tool| wanted(tool.hints));
            names.map(|tool| tool.name.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(
            with(&|hints| hints.contains(Hints::READ_ONLY)),
            ["vers_vms", "read", "grep", "find", "ls"]
        );
        assert_eq!(
            with(&|hints| hints.contains(Hints::DESTRUCTIVE)),
            ["vers_vm_delete", "bash", "edit", "write"]
        );
        let replacing = declared
            .info()
            .tools
            .iter()
            .filter(|tool| tool.only_replaces);
        let replacing: Vec<&str> = replacing.map(|tool| tool.name.as_str()).collect();
        assert_eq!(replacing, ["grep", "find", "ls"]);
    }
}
