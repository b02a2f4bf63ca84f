//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Shown below the list of commands.
const AFTER: &str = "\
Exit codes:
  0  done                                    5  a time limit passed
  1  the tool or the platform said no        6  cancelled
  2  wrong use: arguments, JSON, names       7  a broken extension
  3  denied by the policy or the platform    8  something of this machine
  4  platform or VM unreachable, or key refused

Environment:
  VERS_API_KEY       the key; else the files of the Vers tools, see `pi-vers login`
  VERS_BASE_URL      the API (default https://api.vers.sh)
  VERS_VM_DOMAIN     below this name VMs answer
  VERS_VM_CONNECT    ip:port to dial instead of a VM's name
  VERS_TLS_CA        a PEM file of certificates to trust besides the system's
  VERS_INSECURE_TLS  1: trust any certificate
  VERS_HOME          where keys are kept (default ~/.pi/vers)
  VERS_INFRA_URL, VERS_AUTH_TOKEN
                     Reef, the control plane of a fleet, and its token
  LLM_PROXY_KEY, ANTHROPIC_API_KEY
                     keys for agents: handed on where the policy lets them
  VERS_AGENT_DEPTH   how many agents stand above this one (default 0)
  PI_VERS_AUDIT      a file that keeps what extensions were allowed and denied
  PI_VERS_RECORD, PI_VERS_REPLAY
                     the tape that a session is written to, or replayed from
  PI_VERS_LOG        what to log, for example debug or audit=info (default warn)
  NO_COLOR           no colour
  XDG_CONFIG_HOME, XDG_STATE_HOME, XDG_CACHE_HOME
                     below each, in pi-vers/: policy.toml; sessions and the local
                     platform; compiled components";

/// Extensions for coding agents that work on Vers VMs.
#[derive(Debug, Parser)]
#[command(name = "pi-vers", version, about, after_help = AFTER, max_term_width = 120, infer_subcommands = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say nothing but results and errors
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show everything at work on this machine: no account, under a minute
    #[command(
        after_help = "Examples:\n  pi-vers demo\n  pi-vers demo --keep     leave the local platform and one VM for you to play with\n  pi-vers demo --swarm 8  eight agents, each on a VM of its own, do a job together\n  pi-vers demo --swarm 8 --agent pi   the same with the real pi"
    )]
    Demo(Demo),
    /// List the tools there are, or show one
    #[command(
        after_help = "Examples:\n  pi-vers tools\n  pi-vers tools bash\n  pi-vers tools --extension my-tool.wasm --json"
    )]
    Tools(Tools),
    /// Call a tool, or a script of calls
    #[command(after_help = "\
Examples:
  pi-vers run vers_vms
  pi-vers run --local vers_vm_create '{\"wait_boot\":true}'
  pi-vers run --session work vers_vm_use '{\"vmId\":\"1f2e\"}'
  pi-vers run --session work bash '{\"command\":\"uname -a\"}'
  echo '{\"path\":\"/etc/hosts\"}' | pi-vers run --session work read -
  pi-vers run --local --json --script calls.jsonl

A script holds one call a line, {\"tool\":\"bash\",\"arguments\":{\"command\":\"ls\"}}; blank lines and lines that begin with # are
skipped. All its calls share one session.

With --json each result is one line: {\"tool\",\"ok\",\"content\":[…],\"details\",\"error\":{\"kind\",\"message\"},\"ms\"}.
Ctrl-C cancels the running call, which also stops it on the VM; a second one quits at once.")]
    Run(Run),
    /// Serve a harness: JSON lines on standard input and output
    #[command(
        after_help = "A harness's own extension starts this; docs/bridge.md has the protocol.\n\nExample:\n  pi-vers bridge --local"
    )]
    Bridge(Bridge),
    /// Serve a client of the Model Context Protocol on standard input and output
    #[command(after_help = "\
A client starts this; docs/mcp.md says how each is set up.

Examples:
  pi-vers mcp setup claude     write it into the client's own configuration
  pi-vers mcp doctor           check that it would work
  claude mcp add vers -- pi-vers mcp
  codex mcp add vers -- pi-vers mcp --local")]
    Mcp(McpLine),
    /// Answer a hook of a client
    #[command(subcommand)]
    Hook(crate::hook::Hook),
    /// Serve a program that wants the platform: JSON lines on standard input and output
    #[command(
        after_help = "docs/core.md has the methods.\n\nExample:\n  echo '{\"id\":1,\"method\":\"listVms\"}' | pi-vers core"
    )]
    Core(Core),
    /// Begin a new extension: a project that builds and passes its tests
    #[command(
        after_help = "Example:\n  pi-vers new hello --lang rust && cd hello && pi-vers test\n\ndocs/authoring.md goes on from there."
    )]
    New(crate::author::New),
    /// Build the extension of a project, and show what it imports
    #[command(after_help = "\
Runs the command that pi-vers.toml names, as you would, and puts the component to build/NAME.wasm.

Examples:
  pi-vers build
  pi-vers build ../hello --json")]
    Build(crate::author::Build),
    /// Build and test a project each time one of its files changes
    #[command(after_help = "\
Goes on until Ctrl-C. A front end with --watch loads each build by itself; the grants that the project proposes in its policy.toml are beside
the component, bound to the bytes of the last build:
  pi-vers mcp --watch --extension build/hello.wasm --policy build/hello.policy.toml")]
    Dev(crate::author::Dev),
    /// Run an extension's test scripts against fakes: nothing is run, sent or made
    #[command(after_help = "\
Builds the project first. Each script is JSON, one object a line: how the world is, calls, and what is expected of them. Ends with 1
if one fails. docs/authoring.md has all kinds of lines.

Examples:
  pi-vers test
  pi-vers test tests/greet.jsonl
  pi-vers test ../hello --local --json
  pi-vers test hello.wasm scripts/a.jsonl --policy policy.toml")]
    Test(crate::author::Test),
    /// Install an extension for every session: from a file, a URL or an OCI registry
    #[command(after_help = "\
Its digest goes into a lock; what is loaded are these bytes and no others. It is granted nothing: `pi-vers policy grant` does that.
docs/authoring.md says where lists and locks are, and how extensions are signed.

Examples:
  pi-vers add build/hello.wasm
  pi-vers add https://example.com/hello.wasm --digest sha256:…
  pi-vers add oci://registry.example/team/hello:1.2 --signed-by alice")]
    Add(crate::registry::Add),
    /// Take an extension out of a list
    #[command(after_help = "Example:\n  pi-vers remove hello")]
    Remove(crate::registry::Remove),
    /// Show the extensions that were added
    #[command(after_help = "Example:\n  pi-vers list --json")]
    List(crate::registry::Show),
    /// Fetch what is new, and say what changed in it
    #[command(after_help = "\
Grants are bound to bytes: those of an extension that was updated do not hold any more, and are shown.

Examples:
  pi-vers update --dry-run
  pi-vers update hello")]
    Update(crate::registry::Update),
    /// Make the lock agree with the list, and install what it says
    #[command(after_help = "\
Examples:
  pi-vers lock
  pi-vers lock --project --locked     in CI: what is locked, or nothing")]
    Lock(crate::registry::Lock),
    /// Show what an extension imports, offers and may do
    #[command(
        after_help = "Examples:\n  pi-vers inspect vers-vm\n  pi-vers inspect ./my-tool.wasm --json"
    )]
    Inspect(Inspect),
    /// What extensions may do: check, explain, compare and change it
    #[command(subcommand)]
    Policy(crate::policy::Command),
    /// The VMs of agents: lieutenants and workers
    #[command(subcommand)]
    Fleet(Fleet),
    /// The Vers platform on this machine
    #[command(subcommand)]
    Local(Local),
    /// Print the arguments with which OpenSSH's `ssh` gets into a VM
    #[command(after_help = "\
Examples:
  pi-vers ssh-config 1f2e      [\"-o\",\"ProxyCommand=…\",…,\"-i\",KEY,\"root@VM\"]

The VM's key (mode 0600) and its pinned host key are put below pi-vers/ssh in XDG_STATE_HOME. A program that runs `ssh` appends
the command to these arguments.")]
    SshConfig(SshConfig),
    /// The way to a VM's SSH server, as OpenSSH's ProxyCommand
    #[command(after_help = "\
Connects standard input and output to the VM's SSH server, inside TLS with a verified certificate. `pi-vers ssh-config`
says how `ssh` uses it.")]
    SshProxy(SshProxy),
    /// Get an API key: by mail, without a browser session
    #[command(after_help = "Example:\n  pi-vers login --email you@example.com")]
    Login(Login),
    /// Show which platform and account calls go to
    Whoami(Whoami),
    /// Check this machine, the settings and the platform
    Doctor(Doctor),
    /// A coding agent without a model, for tests: speaks pi's RPC protocol
    #[command(hide = true, disable_help_flag = true)]
    ScriptedAgent(ScriptedAgent),
}

#[derive(Debug, Args)]
pub(crate) struct ScriptedAgent {
    /// pi's own flags
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) words: Vec<std::ffi::OsString>,
}

/// Which extensions, under which policy.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Loading {
    /// Load this component or script (.js), too; one with the name of a shipped extension takes its place
    #[arg(long, short = 'e', value_name = "FILE")]
    pub(crate) extension: Vec<PathBuf>,
    /// The policy (default: pi-vers/policy.toml in XDG_CONFIG_HOME); ./pi-vers.toml narrows it
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Fail unless every added extension is locked and installed as its lock says
    #[arg(long)]
    pub(crate) locked: bool,
    /// Append a line to this file for each thing an extension is allowed or denied (default: PI_VERS_AUDIT; none)
    #[arg(long, value_name = "FILE")]
    pub(crate) audit: Option<PathBuf>,
    /// Write all that reaches the extensions of this session to this file, for --replay (default: PI_VERS_RECORD; none)
    #[arg(long, value_name = "FILE", conflicts_with = "replay")]
    pub(crate) record: Option<PathBuf>,
    /// Run a recorded session again, without a platform; ends with 9 at the first difference (default: PI_VERS_REPLAY; none)
    #[arg(long, value_name = "FILE")]
    pub(crate) replay: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Leave the platform and a VM when it is over
    #[arg(long, conflicts_with = "swarm")]
    pub(crate) keep: bool,
    /// Call the tools through `pi-vers mcp`, as a client of the Model Context Protocol
    #[arg(long, conflicts_with_all = ["swarm", "keep"])]
    pub(crate) mcp: bool,
    /// A job for this many agents, each on a VM of its own
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=64))]
    pub(crate) swarm: Option<u8>,
    /// Which agent works in the swarm
    #[arg(long, requires = "swarm", default_value = "scripted")]
    pub(crate) agent: DemoAgent,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Where the platform keeps everything (default: a temporary directory, with --keep the one of `pi-vers local`)
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoAgent {
    /// One inside this program, which does what it is told line by line
    Scripted,
    /// The pi that PI_PATH names or the PATH has, with a model API of the demo's own
    Pi,
}

#[derive(Debug, Args)]
pub(crate) struct Tools {
    /// Show this tool whole, with its parameters
    pub(crate) tool: Option<String>,
    /// One JSON array
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) loading: Loading,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The tool
    #[arg(required_unless_present = "script", conflicts_with = "script")]
    pub(crate) tool: Option<String>,
    /// Its arguments: JSON, @FILE, or - for standard input
    #[arg(default_value = "{}", hide_default_value = true)]
    pub(crate) arguments: String,
    /// Run the calls of this file (- is standard input)
    #[arg(long, value_name = "FILE")]
    pub(crate) script: Option<PathBuf>,
    /// Go on after a call of the script that failed
    #[arg(long, requires = "script")]
    pub(crate) keep_going: bool,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Use the platform of this machine; started for this run if it is not up
    #[arg(long)]
    pub(crate) local: bool,
    /// Its state directory
    #[arg(long, value_name = "DIR", requires = "local")]
    pub(crate) state: Option<PathBuf>,
    /// Give each call up after this long: 500ms, 30s, 5min, 2h
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,
    /// Remember the session under this name, for example which VM is active
    #[arg(long, value_name = "NAME")]
    pub(crate) session: Option<String>,
    /// Set a flag of an extension
    #[arg(long, value_name = "NAME=VALUE", value_parser = flag)]
    pub(crate) flag: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) loading: Loading,
}

#[derive(Debug, Args)]
pub(crate) struct Bridge {
    /// Use the platform of this machine; started for this harness if it is not up
    #[arg(long)]
    pub(crate) local: bool,
    /// Its state directory
    #[arg(long, value_name = "DIR", requires = "local")]
    pub(crate) state: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) loading: Loading,
}

/// `pi-vers mcp` alone serves; with a command it does something about serving.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct McpLine {
    #[command(subcommand)]
    pub(crate) command: Option<crate::clients::Command>,
    #[command(flatten)]
    pub(crate) serve: Mcp,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Mcp {
    /// Serve HTTP here instead of standard input and output, at /mcp (port 0: any, it is said on standard error)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) http: Option<SocketAddr>,
    /// A file with the token that clients have to send as `Authorization: Bearer`; needed unless the address is loopback
    #[arg(long, value_name = "FILE", requires = "http")]
    pub(crate) token_file: Option<PathBuf>,
    /// A name by which clients may call this machine, besides its address and localhost
    #[arg(long, value_name = "NAME", requires = "http")]
    pub(crate) allow_host: Vec<String>,
    /// The origin of a web page that may use it, for example <https://app.example.com:443>; without one none may
    #[arg(long, value_name = "ORIGIN", requires = "http")]
    pub(crate) allow_origin: Vec<String>,
    /// Load extensions anew when a file given with --extension, or the policy, has changed
    #[arg(long)]
    pub(crate) watch: bool,
    /// Serve the skills in this directory, too: each in a directory of its own with a SKILL.md
    #[arg(long, value_name = "DIR")]
    pub(crate) skills: Option<PathBuf>,
    /// Use the platform of this machine; started for this client if it is not up
    #[arg(long)]
    pub(crate) local: bool,
    /// Its state directory
    #[arg(long, value_name = "DIR", requires = "local")]
    pub(crate) state: Option<PathBuf>,
    /// Remember the session under this name, for example which VM is active
    #[arg(long, value_name = "NAME")]
    pub(crate) session: Option<String>,
    /// Set a flag of an extension
    #[arg(long, value_name = "NAME=VALUE", value_parser = flag)]
    pub(crate) flag: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) loading: Loading,
}

#[derive(Debug, Args)]
pub(crate) struct Core {
    /// Use the platform of this machine, which has to be up
    #[arg(long)]
    pub(crate) local: bool,
    /// Its state directory
    #[arg(long, value_name = "DIR", requires = "local")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A component's or script's file, or the name of a shipped extension
    pub(crate) what: String,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// The policy (default: pi-vers/policy.toml in XDG_CONFIG_HOME); ./pi-vers.toml narrows it
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
}

/// Which platform.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Platform {
    /// Use the platform of this machine, which has to be up
    #[arg(long)]
    pub(crate) local: bool,
    /// Its state directory
    #[arg(long, value_name = "DIR", requires = "local")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Fleet {
    /// Show them, the oldest first: every VM that carries the labels of an agent
    #[command(
        after_help = "The list holds the agents of the whole organisation.\n\nExample:\n  pi-vers fleet list --json"
    )]
    List(FleetList),
    /// Delete those whose time has passed, for good, and nothing else
    #[command(after_help = "\
Deletes VMs whose label pi-vers.expires (seconds since 1970) has passed. Every other VM of an agent is named with the reason why
it stays.

Example:
  pi-vers fleet gc --dry-run")]
    Gc(FleetGc),
}

#[derive(Debug, Args)]
pub(crate) struct FleetList {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) platform: Platform,
}

#[derive(Debug, Args)]
pub(crate) struct FleetGc {
    /// Delete nothing, and say what would be deleted
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) platform: Platform,
}

/// Where the local platform is.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Place {
    /// Its state directory (default: pi-vers/local in XDG_STATE_HOME)
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Local {
    /// Start it, in the background
    #[command(after_help = "Example:\n  pi-vers local up\n  pi-vers run --local vers_vms")]
    Up(Up),
    /// Show what runs, and what this machine can do
    Status(Place),
    /// End it and every process in its VMs; disks and commits stay
    Down(Place),
    /// End it and remove everything: VMs, commits, keys
    Reset(Place),
    /// Serve in the foreground what `up` puts on standard input
    #[command(hide = true)]
    Serve,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Where the API listens; loopback only, port 0 is any
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) api: Option<SocketAddr>,
    /// Where SSH over TLS listens; loopback only, port 0 is any
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ssh: Option<SocketAddr>,
    /// The tier of isolation (default: the best that works here)
    #[arg(long)]
    pub(crate) tier: Option<Tier>,
    /// How VMs reach the network
    #[arg(long)]
    pub(crate) network: Option<Network>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Tier {
    /// Needs root: a whole private root file system
    Sandbox,
    /// For an ordinary user: the system read-only
    UserSandbox,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Network {
    /// Nothing but a loopback of its own
    None,
    /// This machine's network
    Host,
}

#[derive(Debug, Args)]
pub(crate) struct SshConfig {
    /// The VM: its id, or the beginning of it
    pub(crate) vm: String,
    /// The VM is one of the platform of this machine
    #[arg(long)]
    pub(crate) local: bool,
    /// Its state directory
    #[arg(long, value_name = "DIR", requires = "local")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct SshProxy {
    /// The VM: its whole id
    pub(crate) vm: uuid::Uuid,
    /// The VM is one of the platform of this machine
    #[arg(long)]
    pub(crate) local: bool,
    /// Its state directory
    #[arg(long, value_name = "DIR", requires = "local")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// Your address; asked for when it is not given
    #[arg(long)]
    pub(crate) email: Option<String>,
    /// The organisation the key is for
    #[arg(long)]
    pub(crate) org: Option<String>,
    /// Get a new key even if there is one
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Whoami {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
    /// Ask the platform of this machine
    #[arg(long)]
    pub(crate) local: bool,
    /// Its state directory
    #[arg(long, value_name = "DIR", requires = "local")]
    pub(crate) state: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// The policy to check
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Do not ask the platform
    #[arg(long)]
    pub(crate) offline: bool,
}

/// `500ms`, `30s`, `5min` (or `m`), `2h`; a bare number is seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write it like 500ms, 30s, 5min or 2h, more than nothing".to_owned();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits).ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let factor = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    // Longer than a month is a slip, and would overflow a deadline somewhere.
    let millis = number
        .checked_mul(factor)
        .filter(|millis| (1..=31 * 24 * 3_600_000).contains(millis));
    millis.map(Duration::from_millis).ok_or_else(wrong)
}

fn flag(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            Ok((name.trim_start_matches('-').to_owned(), value.to_owned()))
        }
        _ => Err("write it like name=value".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_read_strictly() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5min", 300_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
            ("7", 7000),
        ] {
            assert_eq!(duration(text).unwrap().as_millis(), millis, "{text}");
        }
        for text in [
            "",
            "0s",
            "s",
            "-1s",
            "1.5s",
            "1d",
            "99999999999999999999s",
            "9999999h",
            "1 0s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_for_a_duration_panics(text in "\\PC{0,20}") {
            let _ = duration(&text);
        }
    }
}
