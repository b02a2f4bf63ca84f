//! `vers_lt_read` and `vers_lt_status`

use std::pin::pin;

use futures::future::{Either, select};
use pi_vers_sdk::declare::{JsonSchema, Nothing, schemars};
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::{ToolCall, ToolError, ToolResult, outcome};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::record::Phase;
use crate::{create, history, keep, send, show, start, table, words};

/// How long lieutenants that are being reached are waited for before their status is told, in milliseconds.
const PATIENCE: u64 = 5_000;

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Read {
    /// Name of the lieutenant
    name: String,
    /// Only the last so many characters
    #[schemars(range(min = 1))]
    tail: Option<u64>,
    /// So many earlier responses too (at most 20)
    #[schemars(range(max = 20))]
    history: Option<u64>,
}

/// `vers_lt_read`
pub(crate) async fn read(call: &ToolCall, args: Read) -> Result<ToolResult, ToolError> {
    let one = send::look_up(call, &args.name).await?;
    let record = one.record();
    let status = one.view(|view| words::status(&view));
    let working = one.phase() == Phase::Working;
    let kept = history::kept(record.runs);
    let kept: Vec<u64> = kept.collect();
    let wanted = usize::try_from(args.history.unwrap_or(0)).unwrap_or(usize::MAX);
    let wanted = kept
        .get(kept.len().saturating_sub(wanted)..)
        .unwrap_or_default();
    let output = one.output();
    let tail = args
        .tail
        .map(|tail| usize::try_from(tail).unwrap_or(usize::MAX));
    let mut past = Vec::new();
    for number in wanted {
        let run = keep::run(&record.name, *number).await.map_err(|error| {
            outcome::ended(&format!("Cannot read what {} said", record.name), error)
        })?;
        past.extend(run.map(|run| (*number, run)));
    }
    let mut text = match wanted.is_empty() {
        true => words::read(&record.name, &status, record.tasks, &output, tail, 0),
        false => words::read_history(&status, &past, working.then_some(output.as_str()), tail),
    };
    if let Some(problem) = &record.problem {
        text.push_str(&format!("\n\n[{problem}]"));
    }
    let details = json!({
        "name": record.name,
        "status": status,
        "taskCount": record.tasks,
        "outputLength": output.chars().count(),
        "historyCount": kept.len(),
    });
    Ok(outcome::text_with(text, &details))
}

/// `vers_lt_status`
pub(crate) async fn status(call: &ToolCall, _: Nothing) -> Result<ToolResult, ToolError> {
    start::loaded(call)
        .await
        .map_err(|error| outcome::ended("Cannot tell which lieutenants there are", error))?;
    let deadline = pin!(timers::sleep(PATIENCE));
    let known = pin!(async {
        for one in table::all() {
            loop {
                let changed = one.changed();
                if one.phase() != Phase::Connecting {
                    break;
                }
                changed.await;
            }
        }
    });
    if let Either::Left((Err(error), _)) = select(deadline, known).await {
        return Err(outcome::ended("Cannot tell how the lieutenants are", error));
    }
    let all: Vec<Value> = table::all()
        .iter()
        .map(|one| {
            one.view(|view| {
                let record = view.record;
                json!({
                    "name": record.name,
                    "role": record.role,
                    "status": words::status(&view),
                    "vmId": record.place(),
                    "taskCount": record.tasks,
                    "lastActivityAt": record.active,
                    "outputLength": view.output,
                    "problem": record.problem,
                })
            })
        })
        .collect();
    let mut text = show::all();
    let mut details = json!({ "lieutenants": all });
    let missed = create::missed();
    if !missed.is_empty() {
        text.push_str(&format!("\n\nNot created:\n  {}", missed.join("\n  ")));
        if let Some(details) = details.as_object_mut() {
            details.insert("failed".into(), missed.into());
        }
    }
    Ok(outcome::text_with(text, &details))
}
