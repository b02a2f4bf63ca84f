//! `vers_swarm_teardown`: what was done is collected, then the VMs go.
//!
//! Nothing is thrown away that nobody has seen: an agent that works, a run whose output was not read, or something that was to be
//! collected and could not be. Either all of that is dealt with, or the call says so and nothing was touched; `force` says that
//! it may go.

use std::rc::Rc;

use futures::StreamExt as _;
use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, background, call, outcome};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::collect::{self, Collect, Source};
use crate::spawn::AT_ONCE;
use crate::state::Phase;
use crate::task::REACHING;
use crate::worker::Worker;
use crate::{doomed, keep, registry, swarm};

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Args {
    /// What to save first; what the agents said always is
    collect: Option<Collect>,
    /// Also throw away what nobody has collected (default: false)
    force: Option<bool>,
}

impl Args {
    fn is_forced(&self) -> bool {
        self.force == Some(true)
    }
}

/// What became of one agent.
struct Gone {
    line: String,
    is_deleted: bool,
    details: Map<String, Value>,
    denied: Option<Error>,
}

/// Runs one call.
pub(crate) async fn run(call: &ToolCall, args: Args) -> Result<ToolResult, ToolError> {
    if let Some(collect) = &args.collect {
        collect.check().map_err(outcome::failed)?;
    }
    let (starting, workers): (Vec<_>, Vec<_>) = swarm::all()
        .into_iter()
        .partition(|worker| worker.is_spawning.get());
    if workers.is_empty() && starting.is_empty() {
        return Ok(outcome::text_with(
            "No agents in swarm.",
            &json!({ "agents": [] }),
        ));
    }
    let settled = futures::future::join_all(workers.iter().map(|worker| worker.settled(REACHING)));
    if settled.await.iter().any(Result::is_err) {
        return Err(ToolError::Cancelled);
    }
    if !args.is_forced() {
        refuse(&workers, args.collect.is_some())?;
    }
    let each = workers.iter().map(|worker| Box::pin(one(worker, &args)));
    let all = futures::stream::iter(each).buffered(AT_ONCE).collect();
    let gone: Vec<Gone> = call::until_cancelled(call, async { Ok(all.await) })
        .await
        .map_err(|error| outcome::ended("The teardown", error))?;
    let mut text = String::from("Swarm torn down:");
    let mut agents = Vec::new();
    for one in &gone {
        text.push_str(&format!("\n{}", one.line));
        agents.push(Value::Object(one.details.clone()));
    }
    for worker in &starting {
        text.push_str(&format!(
            "\n{}: still being started, left alone",
            worker.label
        ));
    }
    let details = json!({ "agents": agents });
    if gone.iter().all(|one| one.is_deleted) {
        return Ok(outcome::text_with(text, &details));
    }
    if let Some(error) = gone.into_iter().find_map(|one| one.denied) {
        return Err(ToolError::Capability(error));
    }
    Err(outcome::failed_with(
        text.replacen(
            "Swarm torn down:",
            "The swarm was not torn down as a whole:",
            1,
        ),
        &details,
    ))
}

/// Says no while something would be lost. `saved`: what agents said is about to be written to files.
fn refuse(workers: &[Rc<Worker>], saved: bool) -> Result<(), ToolError> {
    let held: Vec<(&str, String)> = workers
        .iter()
        .filter_map(|worker| Some((worker.label.as_str(), worker.holds(saved)?)))
        .collect();
    if held.is_empty() {
        return Ok(());
    }
    let mut text = format!(
        "Nothing was torn down: {} agent(s) have work that nobody has collected.",
        held.len()
    );
    for (label, why) in &held {
        text.push_str(&format!("\n  {label}: {why}"));
    }
    text.push_str(
        "\nvers_swarm_wait waits for them and shows what they said, vers_swarm_read shows it, `collect` saves it to files; `force: true` throws it away.",
    );
    let agents: Vec<Value> = held
        .iter()
        .map(|(label, why)| json!({ "id": label, "uncollected": why }))
        .collect();
    Err(outcome::failed_with(text, &json!({ "refused": agents })))
}

/// Collects from one agent, and deletes its VM.
async fn one(worker: &Rc<Worker>, args: &Args) -> Gone {
    let label = worker.label.clone();
    let vm = worker.vm().unwrap_or_default();
    let mut gone = Gone {
        line: String::new(),
        is_deleted: false,
        details: Map::new(),
        denied: None,
    };
    gone.details.insert("id".into(), label.as_str().into());
    gone.details.insert("vmId".into(), vm.as_str().into());
    let mut note = String::new();
    if let Some(collect) = &args.collect {
        match save(worker, collect, &vm).await {
            Ok((saved, missing)) => {
                if !saved.is_empty() {
                    note = format!(", collected {}", names(&saved));
                }
                gone.details.extend(saved);
                if !missing.is_empty() {
                    gone.details
                        .insert("missing".into(), missing.clone().into());
                    let missing = missing.join("; ");
                    if !args.is_forced() {
                        gone.line = format!(
                            "{label}: VM {vm} kept — not collected: {missing}. Leave it out of collect, or give force: true"
                        );
                        return gone;
                    }
                    note.push_str(&format!("; not collected: {missing}"));
                }
            }
            Err(error) => {
                gone.line = format!(
                    "{label}: VM {vm} kept — not collected: {}",
                    outcome::explain(&error)
                );
                gone.denied = matches!(error, Error::Denied(_)).then_some(error);
                return gone;
            }
        }
    }
    registry::destroyed(&label, &vm);
    // Until it is gone nobody holds it; a call that is given up here leaves it to be found again.
    worker.let_go();
    let before = worker.phase();
    worker.change(|state| state.lost("its VM was about to be deleted", false));
    match doomed::delete(&vm).await {
        Ok(()) => {
            swarm::remove(worker);
            let worker = worker.clone();
            background::spawn(async move { keep::forget(&worker).await });
            gone.is_deleted = true;
            let was_gone = matches!(before, Phase::Lost { gone: true, .. });
            gone.line = if was_gone {
                format!("{label}: VM {vm} was gone already{note}")
            } else {
                format!("{label}: VM {vm} deleted{note}")
            };
        }
        Err(error) => {
            gone.line = format!(
                "{label}: failed to delete VM {vm} — {}{note}",
                outcome::explain(&error)
            );
            gone.denied = matches!(error, Error::Denied(_)).then_some(error);
        }
    }
    gone.details
        .insert("deleted".into(), gone.is_deleted.into());
    gone
}

fn names(saved: &Map<String, Value>) -> String {
    let mut names: Vec<String> = Vec::new();
    for value in saved.values() {
        match value {
            Value::Array(paths) => {
                names.extend(paths.iter().filter_map(Value::as_str).map(str::to_owned))
            }
            Value::String(path) => names.push(path.clone()),
            _ => {}
        }
    }
    names.join(", ")
}

async fn save(
    worker: &Rc<Worker>,
    collect: &Collect,
    vm: &str,
) -> Result<(Map<String, Value>, Vec<String>), Error> {
    let view = worker.view();
    let live = view.live.as_ref().map(|(text, _)| text.as_str());
    let source = Source {
        label: &worker.label,
        vm,
        output: collect::output(&view.state, live),
        is_there: !matches!(view.state.phase, Phase::Lost { .. }),
    };
    let done = collect::save(collect, source).await?;
    if done.0.contains_key("output") {
        crate::wait::saw(worker, true).await;
    }
    Ok(done)
}
