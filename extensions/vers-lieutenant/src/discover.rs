//! `vers_lt_discover`
//!
//! The labels of the VMs are the registry; where there is a control plane, its members are looked at too. What runs an agent is adopted; what does
//! not is named.

use std::collections::BTreeMap;

use futures::future::join_all;
use pi_vers_sdk::agent::{self, Kind, labels};
use pi_vers_sdk::declare::Nothing;
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::platform::vms::State;
use pi_vers_sdk::platform::{fleet, vms};
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, background, call, outcome};
use serde_json::{Value, json};

use crate::keep::{self, warn};
use crate::record::{Phase, Record};
use crate::table::{self, Lieutenant};
use crate::{follow, name, start};

/// A VM that may have a lieutenant.
struct Candidate {
    vm: String,
    name: String,
    role: Option<String>,
    created: Option<u64>,
    commit: Option<String>,
    /// Its state, where the platform listed it.
    state: Option<State>,
}

/// `vers_lt_discover`
pub(crate) async fn run(call: &ToolCall, _: Nothing) -> Result<ToolResult, ToolError> {
    let work = {
        let call = call.clone();
        async move { discover(&call).await }
    };
    match background::regardless(call, work).await {
        Ok(Some(done)) => done,
        Ok(None) => Ok(outcome::text_with(
            "Still looking: some VMs take long to answer. It goes on by itself, and lieutenants that answer are connected. Call vers_lt_status to \
             see them.",
            &json!({ "goesOn": true }),
        )),
        Err(error) => Err(outcome::ended("Cannot look for lieutenants", error)),
    }
}

async fn discover(call: &ToolCall) -> Result<ToolResult, ToolError> {
    let cannot = |error| outcome::ended("Cannot look for lieutenants", error);
    start::loaded(call).await.map_err(cannot)?;
    // What other sessions of this machine have left, too.
    start::take_over().await.map_err(cannot)?;
    call::show(call, "Looking for lieutenants …");
    let mut remarks = Vec::new();
    let candidates = candidates(&mut remarks).await.map_err(cannot)?;
    let results = join_all(candidates.into_values().map(adopt)).await;
    if call.is_cancelled() {
        return Err(ToolError::Cancelled);
    }
    let mut lines: Vec<String> = results.iter().map(|(line, _)| line.clone()).collect();
    lines.extend(remarks);
    let text = match lines.is_empty() {
        true => "No lieutenants found: no VM has their label, and no registry names one.".into(),
        false => format!("Discovery results:\n{}", lines.join("\n")),
    };
    let adopted: Vec<Value> = results
        .into_iter()
        .filter_map(|(_, name)| name.map(Value::String))
        .collect();
    Ok(outcome::text_with(text, &json!({ "adopted": adopted })))
}

async fn candidates(remarks: &mut Vec<String>) -> Result<BTreeMap<String, Candidate>, Error> {
    let mut found = BTreeMap::new();
    let mut states = BTreeMap::new();
    for vm in vms::list().await? {
        states.insert(vm.id.clone(), vm.state);
        let label = |wanted: &str| {
            let mut labels = vm.labels.iter();
            labels
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.clone())
        };
        if label(labels::ROLE).as_deref() != Some("lieutenant") {
            continue;
        }
        let candidate = Candidate {
            name: label(labels::NAME).unwrap_or_default(),
            role: None,
            created: label(labels::CREATED).and_then(|text| text.parse().ok()),
            commit: None,
            state: Some(vm.state),
            vm: vm.id.clone(),
        };
        found.insert(vm.id, candidate);
    }
    if !fleet::available() {
        return Ok(found);
    }
    match fleet::members(Some("lieutenant".into())).await {
        Ok(members) => {
            for member in members {
                let metadata: Value = serde_json::from_str(&member.metadata).unwrap_or_default();
                let text = |name: &str| {
                    metadata
                        .get(name)
                        .and_then(Value::as_str)
                        .map(str::to_owned)
                };
                let one = found.entry(member.vm.clone()).or_insert_with(|| Candidate {
                    state: states.get(&member.vm).copied(),
                    vm: member.vm,
                    name: member.name,
                    role: None,
                    created: None,
                    commit: None,
                });
                one.role = text("role");
                one.commit = text("commitId");
            }
        }
        Err(error) => remarks.push(format!(
            "The registry could not be asked: {}",
            outcome::explain(&error)
        )),
    }
    Ok(found)
}

/// Connects to one; a line about it, and the name under which it is known now, if it was adopted.
async fn adopt(candidate: Candidate) -> (String, Option<String>) {
    let Candidate { vm, .. } = &candidate;
    if let Some(known) = table::on_vm(vm) {
        let how = match known.held() {
            Some(_) => "another session looks after it".into(),
            None => match known.phase() {
                Phase::Idle | Phase::Working => "already connected".into(),
                phase => {
                    known.poke();
                    format!("already known ({})", phase.word())
                }
            },
        };
        return (format!("{}: {how}", known.name), None);
    }
    let wanted = match name::check(&candidate.name) {
        Ok(()) => candidate.name.clone(),
        Err(_) => format!("lt-{}", vm.chars().take(8).collect::<String>()),
    };
    let Some(name) = name::free(&wanted, |name| table::find(name).is_some()) else {
        return (
            format!("{wanted}: VM {vm} — every name is taken, skipping"),
            None,
        );
    };
    let Some(_reserved) = table::reserve(&name) else {
        return (
            format!("{name}: VM {vm} — is being created, skipping"),
            None,
        );
    };
    let mut record = record(&candidate, &name);
    if candidate.state == Some(State::Paused) || candidate.state == Some(State::Sleeping) {
        record.phase = Phase::Paused;
        return match keep_it(&record).await {
            Ok(text) => {
                Lieutenant::put(record, Some(text)).change(|_| ());
                (
                    format!("{name}: VM {vm} — paused; vers_lt_resume wakes it"),
                    Some(name),
                )
            }
            Err(error) => (format!("{name}: VM {vm} — {}", unkept(&error)), None),
        };
    }
    let (agent, inbox) = match agent::attach(vm, &name, None).await {
        Ok(attached) => attached,
        Err(failure) if failure.kind == Kind::Gone => {
            return (
                format!("{name}: VM {vm} — pi-rpc session not running, skipping"),
                None,
            );
        }
        Err(failure) => {
            return (
                format!("{name}: VM {vm} — reconnect failed: {}", failure.why),
                None,
            );
        }
    };
    record.bookmark = Some(agent.bookmark());
    match keep_it(&record).await {
        Ok(text) => {
            let one = Lieutenant::put(record, Some(text));
            follow::with(&one, agent, inbox);
            (format!("{name}: VM {vm} — reconnected"), Some(name))
        }
        Err(error) => {
            agent.let_go();
            (format!("{name}: VM {vm} — {}", unkept(&error)), None)
        }
    }
}

fn unkept(error: &Error) -> String {
    match error {
        Error::Conflict(_) => "another session has just found it, skipping".into(),
        error => format!("cannot be written down: {}", outcome::explain(error)),
    }
}

async fn keep_it(record: &Record) -> Result<String, Error> {
    if let Err(error) = keep::renew().await {
        warn("The lease cannot be renewed", &error);
    }
    keep::claim_name(record).await
}

fn record(candidate: &Candidate, name: &str) -> Record {
    let now = timers::now();
    let me = keep::me();
    Record {
        name: name.into(),
        role: candidate
            .role
            .clone()
            .unwrap_or_else(|| "(found; its role is in its system prompt)".into()),
        vm: Some(candidate.vm.clone()),
        directory: None,
        phase: Phase::Connecting,
        problem: None,
        busy: false,
        tasks: 0,
        runs: 0,
        untold: Vec::new(),
        created: candidate
            .created
            .map_or(now, |seconds| seconds.saturating_mul(1000)),
        active: now,
        bookmark: None,
        model: None,
        commit: candidate.commit.clone(),
        session: me.session,
        owner: Some(me.name),
    }
}
