//! The command line of what has to do with clients.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::args::Loading;

/// What `pi-vers mcp` does beside serving.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Write `pi-vers mcp` into a client's own configuration, or take it out again
    #[command(after_help = "\
Shows what changes, keeps everything else in the file as it is, and keeps the file as it was beside it. A second run finds nothing to do.

Examples:
  pi-vers mcp setup claude
  pi-vers mcp setup codex --print            show it and change nothing
  pi-vers mcp setup vscode --scope project
  pi-vers mcp setup claude -- --local        what follows -- is given to `pi-vers mcp`
  pi-vers mcp setup cursor --remove")]
    Setup(Setup),
    /// Start `pi-vers mcp` as clients do and check that it behaves; look at what clients are set up
    #[command(
        after_help = "Examples:\n  pi-vers mcp doctor\n  pi-vers mcp doctor -e my-tool.wasm --json"
    )]
    Doctor(Doctor),
    /// Write an MCPB bundle of this program, for clients that install by a click
    #[command(after_help = "\
Examples:
  pi-vers mcp bundle
  pi-vers mcp bundle --output vers.mcpb --url https://example.com/vers.mcpb

With --url, server.json for the MCP registry is written beside the bundle.")]
    Bundle(Bundle),
}

/// Clients whose configuration is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// Claude Code
    Claude,
    /// Codex
    Codex,
    /// Cursor
    Cursor,
    /// Visual Studio Code
    Vscode,
    /// Claude Desktop
    Desktop,
}

/// For whom a configuration holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Scope {
    /// All projects of this user
    User,
    /// Everybody who works on the project in this directory
    Project,
    /// This user in this project (Claude Code)
    Local,
}

/// How a client asks where its own tools may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HookKind {
    /// By a tool of the server (Claude Code 2.1.118 and newer)
    Tool,
    /// By a command (older versions)
    Command,
    /// Not at all
    None,
}

#[derive(Debug, Args)]
pub(crate) struct Setup {
    /// Which client
    pub(crate) client: Client,
    /// For whom it holds
    #[arg(long, default_value = "user")]
    pub(crate) scope: Scope,
    /// The server's name in the client
    #[arg(long, default_value = "vers", value_name = "NAME", value_parser = name)]
    pub(crate) name: String,
    /// While a VM is active, the client's own tools are pointed to those of the VM (Claude Code, Codex)
    #[arg(long, value_name = "HOW")]
    pub(crate) hook: Option<HookKind>,
    /// Show what would change, and change nothing
    #[arg(long)]
    pub(crate) print: bool,
    /// Take it out again
    #[arg(long, conflicts_with_all = ["arguments", "hook"])]
    pub(crate) remove: bool,
    /// Arguments for `pi-vers mcp`
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub(crate) arguments: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Do not ask the platform
    #[arg(long)]
    pub(crate) offline: bool,
    #[command(flatten)]
    pub(crate) loading: Loading,
}

#[derive(Debug, Args)]
pub(crate) struct Bundle {
    /// Where to write it (default: pi-vers-VERSION-SYSTEM-MACHINE.mcpb here)
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Where it will be for download: writes server.json beside it
    #[arg(long, value_name = "URL", value_parser = https)]
    pub(crate) url: Option<String>,
}

/// Every client makes names of tools from it.
fn name(text: &str) -> Result<String, String> {
    let fits = (1..=32).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
    if fits {
        Ok(text.to_owned())
    } else {
        Err("write up to 32 letters, digits, - and _".into())
    }
}

fn https(text: &str) -> Result<String, String> {
    let host = text.strip_prefix("https://").unwrap_or_default();
    if !host.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("write a whole address that begins with https://".into())
    }
}
