//! Agents that are there and that this session does not hold: those of its own from before a restart, and others.
//!
//! The labels of VMs say what they are, so no registry is needed; where the fleet has a control plane, its members are looked at, too.
//! What cannot be reached is never dropped: an agent of this session stays in the list as `lost`, with what it said.

use std::collections::HashMap;
use std::rc::Rc;

use futures::StreamExt as _;
use pi_vers_sdk::agent::{self, Failure, Kind, labels};
use pi_vers_sdk::declare::Nothing;
use pi_vers_sdk::harness::{session, timers};
use pi_vers_sdk::platform::fleet;
use pi_vers_sdk::platform::vms::{self, State as VmState, Vm};
use pi_vers_sdk::show::{failure, warning};
use pi_vers_sdk::{Error, ToolCall, ToolError, ToolResult, background, outcome};
use serde_json::{Value, json};

use crate::record::Record;
use crate::spawn::AT_ONCE;
use crate::state::Phase;
use crate::worker::Worker;
use crate::{keep, registry, swarm, words};

/// Pauses before an agent is tried to be reached again, in milliseconds.
const RETRIES: [u64; 5] = [1_000, 2_000, 4_000, 8_000, 16_000];

/// Takes this session's agents up again: their names at once, themselves in the background, side by side.
pub(crate) async fn take_up() {
    let records = match keep::ours().await {
        Ok(records) => records,
        Err(error) => {
            let why = outcome::explain(&error);
            warning(&format!(
                "What was known of this session's agents cannot be read: {why}. vers_swarm_discover finds them"
            ));
            return;
        }
    };
    let mut found = Vec::new();
    for record in records {
        if swarm::on(&record.vm).is_none() {
            let worker = Worker::known(swarm::free(&record.label), record);
            swarm::add(worker.clone());
            found.push(worker);
        }
    }
    background::spawn(async move {
        futures::stream::iter(found)
            .for_each_concurrent(AT_ONCE, insist)
            .await;
    });
}

/// Reaches an agent of the list that is `starting`, also if that takes some tries. It stays `starting` meanwhile.
pub(crate) async fn insist(worker: Rc<Worker>) {
    let mut pauses = RETRIES.into_iter();
    loop {
        let Err(failure) = attach(&worker).await else {
            return;
        };
        let passes = matches!(failure.kind, Kind::Unreachable | Kind::TimedOut);
        let Some(pause) = pauses.next().filter(|_| passes) else {
            return give_up(&worker, &failure).await;
        };
        if timers::sleep(pause).await.is_err() {
            return;
        }
        // It may have been torn down meanwhile.
        if worker.phase() != Phase::Starting || !swarm::has(&worker) {
            return;
        }
    }
}

/// Reaches an agent once.
async fn attach(worker: &Rc<Worker>) -> Result<(), Failure> {
    let vm = worker.vm().unwrap_or_default();
    let bookmark = worker.note(|record| record.bookmark.clone());
    let (agent, inbox) = agent::attach(&vm, &worker.label, bookmark).await?;
    worker.hold(agent, inbox);
    Ok(())
}

/// Says in an agent's state why it cannot be reached.
async fn give_up(worker: &Rc<Worker>, failure: &Failure) {
    let vm = worker.vm().unwrap_or_default();
    let gone = failure.kind == Kind::Gone && matches!(vms::get(vm).await, Err(Error::NotFound(_)));
    if failure.kind == Kind::Gone && !gone {
        worker.change(|state| state.exited("no agent runs on its VM any more", String::new(), 0));
    } else {
        worker.change(|state| state.lost(&failure.why, gone));
    }
}

/// `vers_swarm_discover`
pub(crate) async fn run(call: &ToolCall, _: Nothing) -> Result<ToolResult, ToolError> {
    match background::regardless(call, discover()).await {
        Ok(Some(done)) => done,
        Ok(None) => Ok(outcome::text_with(
            "Still looking: some VMs take long to answer. It goes on by itself, and agents that answer are connected. Call vers_swarm_status to see \
             them.",
            &json!({ "goesOn": true }),
        )),
        Err(error) => Err(outcome::ended("The search for agents", error)),
    }
}

async fn discover() -> Result<ToolResult, ToolError> {
    let vms = vms::list()
        .await
        .map_err(|error| outcome::ended("Cannot list VMs", error))?;
    let members = members().await;
    let found = candidates(vms, &members).await;
    if found.is_empty() {
        let text = format!(
            "Discovery results:\nNo swarm agents found: no VM of this coordinator has the label {}={}.\n\n{}",
            labels::ROLE,
            registry::ROLE,
            words::summary(&swarm::views())
        );
        return Ok(outcome::text_with(text, &words::status(&swarm::views())));
    }
    let owners = keep::owners().await;
    let each = found.iter().map(|found| Box::pin(found.look(&owners)));
    let lines: Vec<String> = futures::stream::iter(each)
        .buffered(AT_ONCE)
        .collect()
        .await;
    let views = swarm::views();
    let text = format!(
        "Discovery results:\n{}\n\n{}",
        lines.join("\n"),
        words::summary(&views)
    );
    let mut details = words::status(&views);
    if let Some(details) = details.as_object_mut() {
        details.insert(
            "found".into(),
            found
                .iter()
                .map(Found::details)
                .collect::<Vec<Value>>()
                .into(),
        );
    }
    Ok(outcome::text_with(text, &details))
}

/// A VM that may have an agent of a swarm.
struct Found {
    label: String,
    vm: Vm,
    /// The session that its label names.
    session: Option<String>,
}

/// What the control plane knows: the names of agents by VM.
async fn members() -> HashMap<String, String> {
    if !fleet::available() {
        return HashMap::new();
    }
    match fleet::members(None).await {
        Ok(members) => members
            .into_iter()
            .filter(|member| member.role == registry::ROLE || member.role == "swarm_vm")
            .map(|member| (member.vm, member.name))
            .collect(),
        Err(error) => {
            failure("The fleet's members cannot be listed", &error);
            HashMap::new()
        }
    }
}

async fn candidates(vms: Vec<Vm>, members: &HashMap<String, String>) -> Vec<Found> {
    let owner = registry::owner();
    let mut found: Vec<Found> = vms
        .into_iter()
        .filter_map(|vm| {
            let value = |name: &str| {
                let label = vm.labels.iter().find(|(key, _)| key == name);
                label.map(|(_, value)| value.clone())
            };
            let labelled = value(labels::ROLE).as_deref() == Some(registry::ROLE)
                && value(labels::OWNER).is_none_or(|other| other == owner);
            let member = members.get(&vm.id);
            if !labelled && member.is_none() && swarm::on(&vm.id).is_none() {
                return None;
            }
            let label = value(labels::NAME).or_else(|| member.cloned());
            Some(Found {
                label: label.unwrap_or_else(|| "agent".into()),
                session: value(labels::SESSION),
                vm,
            })
        })
        .collect();
    found.sort_by(|a, b| (&a.label, &a.vm.id).cmp(&(&b.label, &b.vm.id)));
    found
}

impl Found {
    fn details(&self) -> Value {
        json!({ "label": self.label, "vmId": self.vm.id, "session": self.session })
    }

    /// Reaches it, and says what came of it.
    async fn look(&self, owners: &[String]) -> String {
        let vm = &self.vm.id;
        let known = swarm::on(vm);
        let label = known
            .as_ref()
            .map_or(&self.label, |worker| &worker.label)
            .clone();
        if let Some(worker) = &known {
            if worker.is_spawning.get() || worker.phase() == Phase::Starting {
                return format!("{label}: VM {vm} — still starting");
            }
            if worker.phase().is_reached() {
                return format!("{label}: already connected");
            }
        } else if !owners.is_empty() && !owners.contains(&self.vm.owner_id) {
            let owner = &self.vm.owner_id;
            return format!("{label}: VM {vm} — belongs to another API key ({owner}), skipping");
        }
        match self.vm.state {
            VmState::Paused | VmState::Sleeping => {
                return format!(
                    "{label}: VM {vm} — paused, skipping (resume it with vers_vm_state, then discover again)"
                );
            }
            VmState::Dead => return format!("{label}: VM {vm} — dead, skipping"),
            VmState::Booting | VmState::Running | VmState::Unknown => {}
        }
        let worker = match known {
            Some(worker) => {
                worker.change(|state| state.phase = Phase::Starting);
                worker
            }
            None => self.adopt().await,
        };
        let is_new = worker.record().session != session::id();
        let Err(failure) = attach(&worker).await else {
            if is_new {
                self.take_over(&worker).await;
            }
            keep::save(&worker).await;
            return format!("{}: VM {vm} — reconnected", worker.label);
        };
        give_up(&worker, &failure).await;
        if is_new {
            swarm::remove(&worker);
        }
        let label = &worker.label;
        match failure.kind {
            Kind::Gone => format!(
                "{label}: VM {vm} — pi-rpc session not running, skipping (vers_vm_delete deletes the VM)"
            ),
            Kind::Refused | Kind::TimedOut => format!(
                "{label}: VM {vm} — pi-rpc alive but RPC probe failed, skipping ({failure})"
            ),
            Kind::Paused | Kind::Unreachable | Kind::Ended | Kind::Cancelled | Kind::Denied => {
                format!("{label}: VM {vm} — reconnect failed: {failure}")
            }
        }
    }

    /// Puts an agent that this session did not know into the list.
    async fn adopt(&self) -> Rc<Worker> {
        let record = keep::of(&self.vm.id).await.unwrap_or_else(|| Record {
            vm: self.vm.id.clone(),
            session: self.session.clone().unwrap_or_default(),
            created: timers::now() / 1000,
            // It may have been told by whoever had it before.
            briefed: true,
            ..Record::default()
        });
        if let Some(worker) = swarm::on(&self.vm.id) {
            // Another discovery was quicker.
            return worker;
        }
        let label = swarm::free(&self.label);
        let worker = Worker::known(label.clone(), Record { label, ..record });
        swarm::add(worker.clone());
        worker
    }

    /// From now on it is this session's: also for who looks at its labels.
    async fn take_over(&self, worker: &Rc<Worker>) {
        worker.note(|record| record.session = session::id());
        let labels = vec![(labels::SESSION.to_owned(), session::id())];
        if let Err(error) = vms::set_labels(self.vm.id.clone(), labels).await {
            let what = format!("The label of VM {} still names another session", self.vm.id);
            failure(&what, &error);
        }
    }
}
