//! `bg_start`

use std::collections::BTreeMap;

use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::platform::shell;
use pi_vers_sdk::system::process::{self, Child, Command, EnvValue, EnvVar, OutputMode, Program};
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, call, outcome, vm};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::place::{self, On, Spot};
use crate::process::{Facts, Place, Process, Stream};
use crate::ready::Pattern;
use crate::table;
use crate::words::section;

/// How long a new process is watched before the call returns, in milliseconds.
const WATCHED: u64 = 2_000;
/// The same when it has to become ready.
const AWAITED: u64 = 30_000;
/// Longest wait, in milliseconds: a call has ten minutes.
const LONGEST_WAIT: u64 = 540_000;
/// Longest command, in bytes: it travels in an argument vector.
const MAX_COMMAND: usize = 64 * 1024;
/// Lines shown of each output of a new process.
const SHOWN: usize = 20;
/// Bytes shown of each.
const SHOWN_BYTES: usize = 16 * 1024;

/// Runs the command, which is its argument and never part of this text, and then waits for what the command itself put into
/// the background: `server &` is the background process, not a shell that has ended.
const WRAPPER: &str = r#"trap wait EXIT; __pi_vers_script=$1; shift; eval "$__pi_vers_script""#;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Args {
    /// Unique name for this process
    #[schemars(length(min = 1, max = 100))]
    id: String,
    /// Shell command to run
    #[schemars(length(min = 1))]
    command: String,
    /// Working directory (default: that of bash)
    cwd: Option<String>,
    /// How long to watch the new process before returning, in milliseconds (default: 2000; with waitFor 30000)
    #[schemars(range(max = LONGEST_WAIT))]
    wait_ms: Option<u64>,
    /// Text or regular expression; the process is ready when a line of its output holds it
    #[schemars(length(min = 1, max = 1000))]
    wait_for: Option<String>,
    /// Where to run it (default: where bash runs)
    on: Option<On>,
    /// Port the process listens on, on the VM: makes it reachable on the local machine; the result names the URL
    #[schemars(range(min = 1, max = 65_535))]
    forward_port: Option<u64>,
    /// Environment variables
    env: Option<BTreeMap<String, String>>,
}

/// Runs one call.
pub(crate) async fn run(call: &ToolCall, args: Args) -> Result<ToolResult, ToolError> {
    let wanted = Wanted::of(&args).map_err(outcome::failed)?;
    let spot = place::find(args.on, args.cwd.as_deref()).await?;
    if wanted.port.is_some() && spot.place == Place::Local {
        return Err(outcome::failed(
            "forwardPort leads to a VM, and this process runs on this machine: its port is here already. Leave forwardPort away.",
        ));
    }
    let turn = table::turn(&args.id).await;
    let replaced = make_room(&args.id).await?;
    let process = begin(&args, spot, wanted.port, wanted.pattern).await?;
    let gone = table::put(process.clone());
    drop((gone, turn));
    let settled = call::patiently(call, process.settle(wanted.patience))
        .await
        .map_err(|error| outcome::ended("The wait for the process", error));
    // Where the caller only waits no longer, it is still looked for.
    if !matches!(settled, Ok(None)) {
        process.expect_no_more();
    }
    settled?;
    Ok(outcome::text_with(
        text(
            &process,
            args.wait_for.as_deref(),
            wanted.patience,
            replaced,
        ),
        &Value::Object(details(&process, args.wait_for.is_some())),
    ))
}

/// What was checked of the arguments.
struct Wanted {
    pattern: Option<Pattern>,
    patience: u64,
    port: Option<u16>,
}

impl Wanted {
    fn of(args: &Args) -> Result<Self, String> {
        if args.id.trim().is_empty() || args.id.chars().any(char::is_control) {
            return Err("id must be a name: not empty, without control characters.".into());
        }
        if args.command.contains('\0') {
            return Err("The command contains a NUL character, which no shell takes.".into());
        }
        if args.command.len() > MAX_COMMAND {
            return Err(format!(
                "The command has {} bytes, and {MAX_COMMAND} is the most. Write it into a file and run that.",
                args.command.len()
            ));
        }
        let patience = match (args.wait_ms, &args.wait_for) {
            (Some(asked), _) if asked > LONGEST_WAIT => {
                return Err(format!(
                    "waitMs is {asked}, and {LONGEST_WAIT} is the most. bg_logs shows later what the process writes."
                ));
            }
            (Some(asked), _) => asked,
            (None, Some(_)) => AWAITED,
            (None, None) => WATCHED,
        };
        let port = match args.forward_port.map(u16::try_from) {
            None => None,
            Some(Ok(port)) if port > 0 => Some(port),
            Some(_) => return Err("forwardPort must be from 1 to 65535.".into()),
        };
        Ok(Self {
            pattern: args.wait_for.as_deref().map(Pattern::parse).transpose()?,
            patience,
            port,
        })
    }
}

/// Ends the process that has this id, and waits until its whole group is gone. Says whether it still ran.
async fn make_room(id: &str) -> Result<bool, ToolError> {
    let Some(old) = table::find(id) else {
        if table::has_room_for(id) {
            return Ok(false);
        }
        return Err(outcome::failed(format!(
            "{} background processes run already, which is the most. Stop one with bg_stop; bg_list shows them.",
            table::MOST
        )));
    };
    let ran = old.is_alive();
    let stopped = old.stop(None).await.map_err(|error| {
        outcome::ended(
            &format!("Cannot stop the process \"{id}\" that is to be replaced"),
            error,
        )
    })?;
    if stopped.left > 0 {
        return Err(outcome::failed(format!(
            "{} process(es) of the \"{id}\" that is to be replaced do not end. Choose another id.",
            stopped.left
        )));
    }
    Ok(ran)
}

/// Starts it. The port comes first: a process whose port cannot be reached is not what was asked for.
async fn begin(
    args: &Args,
    spot: Spot,
    port: Option<u16>,
    pattern: Option<Pattern>,
) -> Result<std::rc::Rc<Process>, ToolError> {
    let forward = match (&spot.place, port) {
        (Place::Vm(vm), Some(port)) => Some(
            shell::forward_port(vm.clone(), port, None)
                .await
                .map_err(|error| {
                    outcome::ended(&format!("Cannot forward port {port} of VM {vm}"), error)
                })?,
        ),
        _ => None,
    };
    let (child, shell) = match &spot.place {
        Place::Local => here(args, spot.directory.as_deref()).await?,
        Place::Vm(vm) => on_vm(args, vm, spot.directory.as_deref()).await?,
    };
    let facts = Facts {
        id: args.id.clone(),
        command: args.command.clone(),
        cwd: spot.shown,
        shell,
        place: spot.place,
        port: forward.as_ref().map(shell::Forward::local_port),
    };
    Process::adopt(facts, child, forward, pattern).map_err(|error| cannot(&args.id, error))
}

/// On this machine: with bash, and with `sh` where there is none.
async fn here(args: &Args, directory: Option<&str>) -> Result<(Child, &'static str), ToolError> {
    let with = async |shell: &'static str| {
        process::spawn(command(args, shell, directory), None)
            .await
            .map(|child| (child, shell))
    };
    let started = match with("/bin/bash").await {
        Err(Error::NotFound(_)) => with("/bin/sh").await,
        started => started,
    };
    started.map_err(|error| cannot(&args.id, error))
}

async fn on_vm(
    args: &Args,
    id: &str,
    directory: Option<&str>,
) -> Result<(Child, &'static str), ToolError> {
    let error = match shell::spawn(id.into(), command(args, "bash", directory), None).await {
        Ok(child) => return Ok((child, "bash")),
        Err(error) => error,
    };
    if matches!(
        error,
        Error::Unavailable(_) | Error::NotFound(_) | Error::Conflict(_) | Error::TimedOut(_)
    ) && let Some(why) = vm::not_ready(id).await
    {
        return Err(outcome::failed(why));
    }
    // The host's message mostly names the VM already.
    let place = if outcome::explain(&error).contains(id) {
        String::new()
    } else {
        format!(" on VM {id}")
    };
    Err(outcome::ended(
        &format!("Cannot start \"{}\"{place}", args.id),
        error,
    ))
}

fn cannot(id: &str, error: Error) -> ToolError {
    outcome::ended(&format!("Cannot start \"{id}\""), error)
}

fn command(args: &Args, shell: &str, directory: Option<&str>) -> Command {
    let argv = [shell, "-c", WRAPPER, shell, &args.command];
    Command {
        program: Program::Argv(argv.map(str::to_owned).to_vec()),
        env: args
            .env
            .iter()
            .flatten()
            .map(|(name, value)| EnvVar {
                name: name.clone(),
                value: EnvValue::Plain(value.clone()),
            })
            .collect(),
        working_directory: directory.map(str::to_owned),
        timeout: None,
        output: OutputMode::Separate,
    }
}

/// What the model is told.
fn text(process: &Process, wanted: Option<&str>, patience: u64, replaced: bool) -> String {
    let facts = &process.facts;
    let id = &facts.id;
    let mut text = match (process.ended(), process.ready(), wanted) {
        (None, Some(line), _) => {
            format!("Process \"{id}\" started (running, ready)\nReady: {line}")
        }
        (None, None, Some(wanted)) if process.is_awaited() => format!(
            "Process \"{id}\" started (running, not ready yet)\nNothing it wrote so far matches {wanted}. It is still looked for: \
             call bg_list to see whether it is ready; bg_logs shows what it writes."
        ),
        (None, None, Some(wanted)) => format!(
            "Process \"{id}\" started (running, not ready yet)\nNothing it wrote within {patience} ms matches {wanted}. bg_logs \
             shows what it writes."
        ),
        (None, None, None) => format!("Process \"{id}\" started (running)"),
        (Some(ended), None, Some(_)) => format!("Process \"{id}\" {ended} before it was ready"),
        (Some(ended), ..) => format!("Process \"{id}\" {ended}"),
    };
    if replaced {
        text.push_str("\nThe process of this id that ran before was stopped first.");
    }
    text.push_str(&format!("\nPID: {}", pid(process)));
    if let Place::Vm(vm) = &facts.place {
        text.push_str(&format!("\nVM: {vm}"));
    }
    text.push_str(&format!(
        "\nShell: {}\nCommand: {}\nCWD: {}",
        facts.shell, facts.command, facts.cwd
    ));
    if let Some(url) = url(process) {
        text.push_str(&format!("\nURL: {url}"));
    }
    for (name, which) in [("stdout", Stream::Stdout), ("stderr", Stream::Stderr)] {
        let shown = process.read(which, |ring| ring.last(SHOWN, SHOWN_BYTES));
        if !shown.lines.is_empty() {
            text.push('\n');
            text.push_str(&section(name, &shown));
        }
    }
    text
}

/// What the harness and scripts are told of a process.
pub(crate) fn details(process: &Process, awaited: bool) -> Map<String, Value> {
    let mut details = Map::new();
    let facts = &process.facts;
    details.insert("id".into(), facts.id.as_str().into());
    details.insert("pid".into(), process.pid.into());
    details.insert("alive".into(), process.is_alive().into());
    match &facts.place {
        Place::Local => {
            details.insert("on".into(), "local".into());
        }
        Place::Vm(vm) => {
            details.insert("on".into(), "vm".into());
            details.insert("vmId".into(), vm.as_str().into());
        }
    }
    if awaited || process.is_awaited() || process.ready().is_some() {
        details.insert("ready".into(), process.ready().is_some().into());
    }
    if let Some(url) = url(process) {
        details.insert("url".into(), url.into());
    }
    if let Some(ended) = process.ended() {
        ended.tell(&mut details);
    }
    details
}

/// Where the process can be reached from this machine, as long as it runs.
pub(crate) fn url(process: &Process) -> Option<String> {
    let port = process.facts.port.filter(|_| process.is_alive())?;
    Some(format!("http://127.0.0.1:{port}"))
}

pub(crate) fn pid(process: &Process) -> String {
    process
        .pid
        .map_or_else(|| "unknown".into(), |pid| pid.to_string())
}

/// For how long it has run, in seconds; `-` once it has ended.
pub(crate) fn uptime(process: &Process) -> String {
    if !process.is_alive() {
        return "-".into();
    }
    format!("{}s", timers::ticks().saturating_sub(process.since) / 1000)
}
