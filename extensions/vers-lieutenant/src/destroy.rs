//! `vers_lt_destroy`, and deleting what must not stay.
//!
//! A VM costs as long as it is there. So what is to be deleted stays on the list, in the store too, until the platform has said that it is gone,
//! and is tried again: by this session, and by the next.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;

use futures::future::{join_all, select};
use pi_vers_sdk::bell::Bell;
use pi_vers_sdk::declare::{JsonSchema, schemars};
use pi_vers_sdk::harness::{bus, timers};
use pi_vers_sdk::platform::{fleet, shell, vms};
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, background, outcome};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::power::not_now;
use crate::record::Phase;
use crate::table::{self, Lieutenant};
use crate::words::{self, elsewhere};
use crate::{follow, keep, send, start};

/// The bus's topic of lieutenants that are gone.
const DESTROYED: &str = "vers:lt_destroyed";
/// The first and the longest pause between two attempts to delete, in milliseconds.
const PAUSES: (u64, u64) = (1_000, 60_000);

thread_local! {
    static UNDER_WAY: Cell<usize> = const { Cell::new(0) };
    static CLEANED: Bell = const { Bell::new() };
}

#[derive(Deserialize, JsonSchema)]
pub(crate) struct Args {
    /// Name of the lieutenant, or * for all of this session
    name: String,
}

/// `vers_lt_destroy`
pub(crate) async fn run(call: &ToolCall, args: Args) -> Result<ToolResult, ToolError> {
    let name = args.name;
    if name != "*" {
        let one = send::find(call, &name).await?;
        let details = json!({ "name": name, "vmId": one.record().place() });
        return match destroy(call, &one).await {
            Ok(text) => Ok(outcome::text_with(text, &details)),
            Err(Undone::Failed(text)) => Err(outcome::failed_with(text, &details)),
            Err(Undone::Ended(error)) => Err(error),
        };
    }
    start::loaded(call)
        .await
        .map_err(|error| outcome::ended("Cannot tell which lieutenants there are", error))?;
    let (ours, others): (Vec<_>, Vec<_>) = table::all()
        .into_iter()
        .partition(|one| one.held().is_none());
    let results = join_all(ours.iter().map(|one| destroy(call, one))).await;
    let mut lines = Vec::new();
    let mut told = Vec::new();
    for (one, result) in ours.iter().zip(results) {
        let (text, good) = match result {
            Ok(text) => (text, true),
            Err(Undone::Failed(text)) => (text, false),
            // Given up, or not granted: that holds for all.
            Err(Undone::Ended(error)) => return Err(error),
        };
        told.push(json!({ "name": one.name, "destroyed": good }));
        lines.push(text);
    }
    lines.extend(
        others
            .iter()
            .map(|one| format!("{}: left alone, another session looks after it", one.name)),
    );
    if lines.is_empty() {
        lines.push("No lieutenants to destroy.".into());
    }
    let details = json!({ "results": Value::Array(told) });
    Ok(outcome::text_with(lines.join("\n"), &details))
}

enum Undone {
    /// In words.
    Failed(String),
    /// The call itself is over.
    Ended(ToolError),
}

async fn destroy(call: &ToolCall, one: &Rc<Lieutenant>) -> Result<String, Undone> {
    let name = &one.name;
    let _turn = send::turn(call, name).await.map_err(Undone::Ended)?;
    if one.held().is_some() {
        return Err(Undone::Failed(elsewhere(name)));
    }
    if one.phase() == Phase::Starting {
        return Err(Undone::Failed(not_now(one)));
    }
    let before = one.phase();
    let agent = one.end_term();
    let record = one.record();
    match &record.vm {
        None => {
            if let Some(agent) = agent
                && let Err(failure) = agent.end().await
            {
                keep::warn(&format!("Ending {name}"), &follow::error(failure));
            }
        }
        Some(vm) => {
            if let Err(error) = delete(vm).await {
                match before {
                    Phase::Paused | Phase::Doomed => one.change(|_| ()),
                    _ => {
                        one.is(Phase::Connecting, None);
                        follow::reach(one);
                    }
                }
                return Err(match error {
                    Error::Cancelled | Error::Denied(_) => Undone::Ended(outcome::ended(
                        &format!("{name}: failed to delete VM"),
                        error,
                    )),
                    error => Undone::Failed(format!(
                        "{name}: failed to delete VM — {}",
                        outcome::explain(&error)
                    )),
                });
            }
        }
    }
    forget(one).await;
    Ok(words::destroyed(&record))
}

/// Deletes a VM; one that is not there any more is deleted.
async fn delete(vm: &str) -> Result<(), Error> {
    match vms::delete(vm.into()).await {
        Ok(()) | Err(Error::NotFound(_)) => {
            // What is open to it leads nowhere now.
            let _ = shell::disconnect(vm.into()).await;
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// Knows it no more, nor does the store; tells the others. Its VM is gone.
pub(crate) async fn forget(one: &Rc<Lieutenant>) {
    let record = one.record();
    drop(one.end_term());
    if let Err(error) = keep::forget(&one.name).await {
        keep::warn(&format!("Forgetting {}", one.name), &error);
        // Its VM is gone; so this only forgets it.
        if record.phase != Phase::Doomed {
            doom(one);
        }
        return;
    }
    table::remove(one);
    if record.phase == Phase::Starting
        || (record.phase == Phase::Doomed && record.runs + record.tasks == 0)
    {
        // Nobody was told that it is there.
        return;
    }
    let place = record.place();
    bus::emit(
        DESTROYED,
        &json!({ "vmId": place, "name": record.name }).to_string(),
    );
    if let Some(vm) = record.vm.filter(|_| fleet::available()) {
        background::spawn(async move {
            if let Err(error) = fleet::deregister(vm).await {
                keep::warn(
                    "The fleet cannot be told of a lieutenant that is gone",
                    &error,
                );
            }
        });
    }
}

/// Deletes it in the background, however often that has to be tried.
pub(crate) fn doom(one: &Rc<Lieutenant>) {
    drop(one.end_term());
    one.is(Phase::Doomed, None);
    UNDER_WAY.set(UNDER_WAY.get() + 1);
    let one = one.clone();
    background::spawn(async move {
        keep::save(&one).await;
        if one.made().await {
            keep::save(&one).await;
        }
        let mut pause = PAUSES.0;
        loop {
            let deleted = match one.record().vm {
                Some(vm) => delete(&vm).await,
                None => Ok(()),
            };
            let failed = match deleted {
                Ok(()) => {
                    forget(&one).await;
                    table::find(&one.name).is_some_and(|known| Rc::ptr_eq(&known, &one))
                }
                Err(error) => {
                    let text = outcome::explain(&error);
                    one.is(
                        Phase::Doomed,
                        Some(format!("its VM cannot be deleted: {text}")),
                    );
                    true
                }
            };
            if !failed || timers::sleep(pause).await.is_err() {
                break;
            }
            pause = (pause * 2).min(PAUSES.1);
        }
        UNDER_WAY.set(UNDER_WAY.get() - 1);
        if UNDER_WAY.get() == 0 {
            CLEANED.with(Bell::ring);
        }
    });
}

/// Waits until all is deleted that is to be, at most this many milliseconds.
pub(crate) async fn cleaned(patience: u64) {
    if UNDER_WAY.get() == 0 {
        return;
    }
    select(CLEANED.with(Bell::next), pin!(timers::sleep(patience))).await;
}
