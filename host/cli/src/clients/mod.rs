//! What has to do with clients of the Model Context Protocol besides serving them, see `docs/mcp-clients.md`.
//!
//! A client starts `pi-vers mcp` because a file of its own says so. [`setup`] writes that file, [`doctor`] looks whether what it says
//! would work, [`bundle`] makes the file that clients install by a click. Nothing here knows how the server is made.

mod bundle;
mod diff;
mod doctor;
mod document;
mod entry;
pub(crate) mod file;
mod json;
mod options;
mod places;
mod plan;
mod setup;
mod toml;
mod zip;

use std::sync::Arc;

use clap::ValueEnum as _;

pub(crate) use self::options::Command;
use self::options::{Client, Scope};
use crate::failure::{Code, Failure};
use crate::terminal::Terminal;

/// Runs the command.
pub(crate) async fn command(terminal: Arc<Terminal>, command: Command) -> Result<Code, Failure> {
    match command {
        Command::Setup(options) => setup::setup(&terminal, &options).await,
        Command::Doctor(options) => doctor::doctor(terminal, options).await,
        Command::Bundle(options) => bundle::bundle(&terminal, &options),
    }
}

/// How its makers call it.
fn title(client: Client) -> &'static str {
    match client {
        Client::Claude => "Claude Code",
        Client::Codex => "Codex",
        Client::Cursor => "Cursor",
        Client::Vscode => "VS Code",
        Client::Desktop => "Claude Desktop",
    }
}

/// How the command line calls it.
fn word(scope: Scope) -> String {
    let word = scope.to_possible_value();
    word.map(|word| word.get_name().to_owned())
        .unwrap_or_default()
}
