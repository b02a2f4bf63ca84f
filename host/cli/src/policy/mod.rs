//! `pi-vers policy`: what extensions may do, looked at before it is needed.
//!
//! Only `grant` writes, shows first what it would write, and binds it to a component's bytes. None of this can be reached by a model: no
//! tool runs it.

mod asked;
mod check;
mod diff;
mod explain;
mod grant;
pub(crate) mod section;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, Subcommand};
use pi_vers_host::policy::{Digest, Grants, Lookup, Policy};

use crate::failure::{Code, Failure};
use crate::terminal::Terminal;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Look for mistakes in a policy, and for grants that nobody needs
    #[command(after_help = "\
Ends with 2 if the file cannot be read as a policy, with 1 if there is a warning.

Examples:
  pi-vers policy check
  pi-vers policy check policy.toml --extension my-tool.wasm --json")]
    Check(Check),
    /// Say whether an extension would be allowed something, and by which rule
    #[command(after_help = "\
Ends with 0 if it is allowed, with 3 if it is denied or somebody would be asked.

What to ask for:
  vms.VERB [VM]               vms.create; vms.delete 1f2e…
  shell VM PROGRAM ARGUMENT…  a command on a VM
  shell.files VM ro|rw PATH   shell.ports VM PORT
  process PROGRAM ARGUMENT…   a program of this machine, in this directory
  files ro|rw PATH            a file of this machine
  http [METHOD] URL
  secrets NAME vm env         secrets NAME child env PROGRAM; secrets NAME http URL
  environment NAME            bus TOPIC, events NAME, replace TOOL, store
  session.VERB                ui.VERB, client.VERB, fleet.VERB

Examples:
  pi-vers policy explain vers-vm vms.delete 1f2e3d4c-0000-4000-8000-000000000000
  pi-vers policy explain my-tool.wasm process git status
  pi-vers policy explain my-tool http GET https://api.example.com/v1/x --json")]
    Explain(Explain),
    /// Say in words what a policy grants more and less than another
    #[command(after_help = "Example:\n  pi-vers policy diff policy.toml policy.toml.new")]
    Diff(Diff),
    /// Add rules for a component to your policy, bound to its bytes
    #[command(after_help = "\
Shows what would be granted more and less and asks before it writes. Comments and all else in the file stay as they are. A rule is a line
as denials name it: items of lists are added, every other value takes the place of the one before.

Examples:
  pi-vers policy grant my-tool.wasm --rule 'vms = [\"list\", \"get\"]'
  pi-vers policy grant my-tool.wasm --rule 'http = [\"https://api.example.com/*\"]' --yes")]
    Grant(Grant),
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// The policy (default: pi-vers/policy.toml in XDG_CONFIG_HOME, and ./pi-vers.toml)
    pub(crate) file: Option<PathBuf>,
    /// A component that the policy may speak of, besides the shipped ones
    #[arg(long, short = 'e', value_name = "FILE")]
    pub(crate) extension: Vec<String>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// A component's file, or the name of an extension
    pub(crate) extension: String,
    /// The capability and what of it
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) capability: Vec<String>,
    #[command(flatten)]
    pub(crate) about: asked::About,
    /// The policy (default: pi-vers/policy.toml in XDG_CONFIG_HOME); ./pi-vers.toml narrows it
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Diff {
    /// A policy
    pub(crate) old: PathBuf,
    /// Another
    pub(crate) new: PathBuf,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Grant {
    /// A component's file, or the name of a shipped extension
    pub(crate) extension: String,
    /// A line of the policy to add
    #[arg(long, value_name = "LINE")]
    pub(crate) rule: Vec<String>,
    /// Take the rules of [extension.NAME] in this file, such as an author's proposal
    #[arg(long, value_name = "FILE")]
    pub(crate) from: Option<PathBuf>,
    /// Write without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Show it and write nothing
    #[arg(long, conflicts_with = "yes")]
    pub(crate) print: bool,
    /// The policy (default: pi-vers/policy.toml in XDG_CONFIG_HOME)
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// Runs one of them.
pub(crate) async fn command(terminal: Arc<Terminal>, command: Command) -> Result<Code, Failure> {
    match command {
        Command::Check(options) => check::check(&terminal, options).await,
        Command::Explain(options) => explain::explain(&terminal, options).await,
        Command::Diff(options) => diff::compare(&terminal, &options),
        Command::Grant(options) => grant::grant(&terminal, options).await,
    }
}

/// What the policy holds for a name, for whichever bytes.
fn held(policy: &Policy, name: &str) -> Option<(Digest, Grants)> {
    // Nobody's bytes: the answer names those that were granted.
    let nobody = Digest::from_bytes([0; 32]);
    match policy.grants(name, &nobody) {
        Lookup::Changed { granted_to, grants } => Some((granted_to, grants)),
        Lookup::Granted(grants) => Some((nobody, grants)),
        Lookup::Unknown => None,
    }
}
