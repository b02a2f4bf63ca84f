//! `vers_swarm_wait`: until agents have done what they were told.
//!
//! It looks again whenever something changed, and at no other time. What it waits for are agents with a task; the others are told as
//! what they are. Many clients give a call up after a minute: it answers before that with how things stand, and the next call
//! goes on waiting.

use std::rc::Rc;

use futures::future::{Either, select};
use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, call, outcome};
use serde::Deserialize;

use crate::words::{self, Waited};
use crate::worker::Worker;
use crate::{keep, swarm};

/// Seconds, unless the call says otherwise.
const DEFAULT: f64 = 300.0;
/// The longest wait, in seconds: a call has no more.
const LONGEST: f64 = 82_800.0;

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Args {
    /// Agents to wait for (default: all)
    agent_ids: Option<Vec<String>>,
    /// Longest wait in seconds (default: 300; 0 looks and returns at once)
    #[schemars(range(min = 0, max = LONGEST))]
    timeout_seconds: Option<f64>,
}

/// Runs one call.
pub(crate) async fn run(call: &ToolCall, args: Args) -> Result<ToolResult, ToolError> {
    let workers = chosen(args.agent_ids.as_deref())?;
    if workers.is_empty() {
        return Ok(outcome::text_with(
            words::summary(&[]),
            &serde_json::json!({ "waited": 0, "agents": [] }),
        ));
    }
    let millis = args.timeout_seconds.unwrap_or(DEFAULT).clamp(0.0, LONGEST) * 1000.0;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped above"
    )]
    let longest = millis as u64;
    let since = timers::ticks();
    let waited = call::patiently(call, wait(call, &workers, longest))
        .await
        .map_err(|error| outcome::ended("The wait for agents", error))?
        .unwrap_or_else(|| Waited {
            millis: Some(timers::ticks() - since),
            again: true,
        });
    let views: Vec<_> = workers.iter().map(|worker| worker.view()).collect();
    let (text, details, shown) = words::waited(&views, waited);
    let seen = workers.iter().zip(shown).filter(|(_, shown)| *shown);
    for (worker, _) in seen {
        saw(worker, false).await;
    }
    Ok(outcome::text_with(text, &details))
}

/// Somebody is shown what an agent said last, and, if `all`, what it said before.
pub(crate) async fn saw(worker: &Rc<Worker>, all: bool) {
    if worker.change(|state| state.seen(all)) {
        keep::save(worker).await;
    }
}

fn chosen(ids: Option<&[String]>) -> Result<Vec<Rc<Worker>>, ToolError> {
    let Some(ids) = ids else {
        return Ok(swarm::all());
    };
    let mut workers: Vec<Rc<Worker>> = Vec::new();
    for id in ids {
        let worker = swarm::find(id).map_err(outcome::failed)?;
        if !workers.iter().any(|known| Rc::ptr_eq(known, &worker)) {
            workers.push(worker);
        }
    }
    Ok(workers)
}

async fn wait(call: &ToolCall, workers: &[Rc<Worker>], longest: u64) -> Result<Waited, Error> {
    let pending = || {
        workers
            .iter()
            .filter(|worker| worker.phase().is_pending())
            .count()
    };
    if pending() == 0 {
        return Ok(Waited {
            millis: None,
            again: false,
        });
    }
    let since = timers::ticks();
    let late = timers::sleep(longest);
    futures::pin_mut!(late);
    let mut shown = usize::MAX;
    loop {
        let change = swarm::next_change();
        let left = pending();
        if left == 0 {
            break;
        }
        if left != shown {
            shown = left;
            call::show(
                call,
                format!(
                    "{} of {} agents finished",
                    workers.len() - left,
                    workers.len()
                ),
            );
        }
        if let Either::Right((passed, _)) = select(change, late.as_mut()).await {
            passed?;
            break;
        }
    }
    Ok(Waited {
        millis: Some(timers::ticks() - since),
        again: false,
    })
}
