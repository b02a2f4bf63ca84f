//! Where a client's own tools may act while a VM is active.
//!
//! A coding agent has tools of its own for commands and files, and models like them best: with a VM active, `Bash` would quietly act on
//! the wrong machine. Claude Code asks a hook before each such call. It is answered by the process that knows the active VM, so there is no
//! file with a state that another session could read, plant or leave behind:
//!
//! - a hook of the type `mcp_tool` calls the tool [`TOOL`] of the running server ([`route()`]);
//! - older versions run `pi-vers hook pre-tool-use`, which finds the server of the same client by a socket and asks it ([`ask`], [`serve`]).
//!
//! Whatever goes wrong, the call is allowed: a hook that blocks for no reason makes a client useless.

mod active;
mod ask;
mod route;
mod serve;
mod socket;

use clap::Subcommand;

pub(crate) use self::active::ActiveVm;
pub(crate) use self::route::{TOOL, listed, route};
pub(crate) use self::serve::listen;

use crate::failure::{Code, Failure};

/// Which hook.
#[derive(Debug, Subcommand)]
pub(crate) enum Hook {
    /// May this tool of the client run? Reads the hook's JSON from standard input, as Claude Code gives it
    #[command(after_help = "\
`pi-vers mcp setup claude --hook command` makes Claude Code run this. It asks the `pi-vers mcp` of the same Claude Code, and says
nothing, which allows the call, when there is none, when it does not answer at once, and when no VM is active.")]
    PreToolUse,
}

/// Answers it.
pub(crate) async fn hook(hook: Hook) -> Result<Code, Failure> {
    match hook {
        Hook::PreToolUse => ask::pre_tool_use().await,
    }
    Ok(Code::Ok)
}
