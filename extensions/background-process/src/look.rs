//! `bg_list`, `bg_logs` and `bg_stop`

use pi_vers_sdk::declare::{JsonSchema, Nothing, schemars};
use pi_vers_sdk::{ToolCall, ToolError, ToolResult, outcome};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::rc::Rc;

use crate::process::{Place, Process, Stream};
use crate::start::{details, pid, uptime, url};
use crate::words::{Ended, one_line, section, state};
use crate::{signals, table};

/// How long a signal may take to end a process before it is stopped for good, in milliseconds.
const HEED: u64 = 500;
/// Lines of `bg_logs`, unless the call says otherwise.
const LINES: u64 = 50;
/// Bytes of output in one answer: what a model reads of a command's output, too.
const MAX_TEXT: usize = 50 * 1024;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Stop {
    /// Unique name for this process
    #[schemars(length(min = 1, max = 100))]
    id: String,
    /// Signal to send first (default: SIGTERM)
    signal: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Logs {
    /// Unique name for this process
    #[schemars(length(min = 1, max = 100))]
    id: String,
    /// Number of lines (default: 50)
    #[schemars(range(min = 1, max = 2_000))]
    last: Option<u64>,
    /// 'stdout', 'stderr', or 'both' (default: both)
    stream: Option<Which>,
}

#[derive(Deserialize, JsonSchema, Clone, Copy)]
#[serde(rename_all = "lowercase")]
enum Which {
    Stdout,
    Stderr,
    Both,
}

fn find(id: &str) -> Result<Rc<Process>, ToolError> {
    table::find(id).ok_or_else(|| {
        outcome::failed_with(
            format!("No process found with ID \"{id}\""),
            &json!({ "id": id }),
        )
    })
}

/// `bg_list`
pub(crate) async fn list(_call: &ToolCall, _: Nothing) -> Result<ToolResult, ToolError> {
    let all = table::all();
    let line = |process: &Rc<Process>| {
        let facts = &process.facts;
        let mut parts = vec![
            format!("{}: {}", facts.id, state(process.ended().as_ref())),
            format!("PID {}", pid(process)),
            format!("uptime {}", uptime(process)),
        ];
        if process.is_alive() && process.is_awaited() {
            parts.push("not ready yet".into());
        } else if process.is_alive() && process.ready().is_some() {
            parts.push("ready".into());
        }
        if let Place::Vm(vm) = &facts.place {
            parts.push(format!("VM {vm}"));
        }
        parts.extend(url(process));
        parts.push(one_line(&facts.command));
        parts.join(" | ")
    };
    let lines: Vec<String> = all.iter().map(line).collect();
    let text = if lines.is_empty() {
        "No background processes.".into()
    } else {
        lines.join("\n")
    };
    let processes: Vec<Value> = all
        .iter()
        .map(|process| Value::Object(details(process, false)))
        .collect();
    Ok(outcome::text_with(
        text,
        &json!({ "count": all.len(), "processes": processes }),
    ))
}

/// `bg_logs`
pub(crate) async fn logs(_call: &ToolCall, args: Logs) -> Result<ToolResult, ToolError> {
    let process = find(&args.id)?;
    let last = args.last.unwrap_or(LINES);
    let most = usize::try_from(last).unwrap_or(usize::MAX);
    let outputs: &[(&str, Stream)] = match args.stream.unwrap_or(Which::Both) {
        Which::Stdout => &[("stdout", Stream::Stdout)],
        Which::Stderr => &[("stderr", Stream::Stderr)],
        Which::Both => &[("stdout", Stream::Stdout), ("stderr", Stream::Stderr)],
    };
    let fits = MAX_TEXT / outputs.len();
    let mut text = format!(
        "Process \"{}\": {}",
        args.id,
        state(process.ended().as_ref())
    );
    if let Some(Ended::Lost(why)) = process.ended() {
        text.push_str(&format!(" ({why})"));
    }
    let mut dropped = Map::new();
    for (name, which) in outputs {
        let shown = process.read(*which, |ring| ring.last(most, fits));
        dropped.insert((*name).into(), shown.dropped.into());
        text.push_str("\n\n");
        text.push_str(&section(&format!("{name} (last {last})"), &shown));
    }
    let mut details = details(&process, false);
    details.insert("dropped".into(), Value::Object(dropped));
    Ok(outcome::text_with(text, &Value::Object(details)))
}

/// `bg_stop`
pub(crate) async fn stop(_call: &ToolCall, args: Stop) -> Result<ToolResult, ToolError> {
    let (signal, name) =
        signals::parse(args.signal.as_deref().unwrap_or("SIGTERM")).map_err(outcome::failed)?;
    let process = find(&args.id)?;
    let id = &args.id;
    let cannot = |error| outcome::ended(&format!("Cannot stop process \"{id}\""), error);
    let told = |text: String, process: &Process| {
        outcome::text_with(text, &Value::Object(details(process, false)))
    };
    if let Some(ended) = process.ended() {
        // What it has left behind in its group goes, too.
        process.stop(None).await.map_err(cannot)?;
        let text = match ended {
            Ended::Lost(_) => {
                format!("Process \"{id}\" {ended}. Look on the VM with bash, or start it again.")
            }
            Ended::Stopped => format!("Process \"{id}\" was stopped already."),
            ended => format!("Process \"{id}\" already {ended}"),
        };
        return Ok(told(text, &process));
    }
    process.signal(signal).await.map_err(cannot)?;
    let heeded = process.gone_within(HEED).await.map_err(cannot)?;
    // One that did not heed SIGTERM has had its time; after another signal it gets SIGTERM, and then as long again.
    let grace = (!heeded && name == "SIGTERM").then_some(0);
    let stopped = process.stop(grace).await.map_err(cannot)?;
    let mut text = format!("Process \"{id}\" stopped.");
    if !heeded {
        text.push_str(&format!(" {name} did not end it within {HEED} ms."));
    }
    match process.ended() {
        Some(Ended::Stopped) => {}
        Some(ended) => text.push_str(&format!(" It {ended}.")),
        None => text.push_str(" Its end is not known yet: bg_list will show it."),
    }
    if stopped.escaped > 0 {
        text.push_str(&format!(
            " {} process(es) that had left its group were killed, too.",
            stopped.escaped
        ));
    }
    if stopped.left > 0 {
        text.push_str(&format!(" {} process(es) are still there.", stopped.left));
    }
    let mut details = details(&process, false);
    details.insert("heeded".into(), heeded.into());
    details.insert("escaped".into(), stopped.escaped.into());
    details.insert("left".into(), stopped.left.into());
    Ok(outcome::text_with(text, &Value::Object(details)))
}
