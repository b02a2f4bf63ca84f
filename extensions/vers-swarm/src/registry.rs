//! Who else is told of agents: the bus, and the fleet's control plane where there is one.

use pi_vers_sdk::agent::{self, Role, labels};
use pi_vers_sdk::background;
use pi_vers_sdk::harness::{bus, session, timers};
use pi_vers_sdk::platform::fleet::{self, Member};
use pi_vers_sdk::show::unwatched as warn;
use serde_json::json;

use crate::worker::Worker;

/// What our agents are, in labels and registries.
pub(crate) const ROLE: &str = "worker";
/// Who registers them.
const BY: &str = "vers-swarm";

/// Where this coordinator runs: the id of its VM, or `local`.
pub(crate) fn owner() -> String {
    agent::own_vm().unwrap_or_else(|| "local".into())
}

/// The labels of a new agent's VM. `expires`: after so many seconds.
pub(crate) fn of(label: &str, expires: Option<u64>) -> Vec<(String, String)> {
    let now = timers::now() / 1000;
    let mut all = labels::of(Role::Worker, label, &session::id(), now);
    if let Some(expires) = expires {
        let expires = now.saturating_add(expires).to_string();
        all.push((labels::EXPIRES.to_owned(), expires));
    }
    all
}

fn address(vm: &str) -> String {
    format!("{vm}.vm.vers.sh")
}

/// An agent is there.
pub(crate) fn spawned(worker: &Worker, vm: &str) {
    let commit = worker.note(|record| record.commit.clone());
    let said = json!({ "vmId": vm, "label": worker.label, "role": ROLE, "address": address(vm), "commitId": commit });
    bus::emit("vers:agent_spawned", &said.to_string());
    if !fleet::available() {
        return;
    }
    let metadata = json!({ "agentId": worker.label, "commitId": commit, "parentSession": true, "sessionId": session::id() });
    let member = Member {
        vm: vm.to_owned(),
        name: worker.label.clone(),
        role: ROLE.into(),
        address: address(vm),
        registered_by: BY.into(),
        metadata: metadata.to_string(),
    };
    let label = worker.label.clone();
    background::spawn(async move {
        warn(
            &format!("{label} was not registered"),
            fleet::register(member).await,
        );
    });
}

/// An agent is about to be deleted.
pub(crate) fn destroyed(label: &str, vm: &str) {
    let said = json!({ "vmId": vm, "label": label });
    bus::emit("vers:agent_destroyed", &said.to_string());
    if !fleet::available() {
        return;
    }
    let (vm, label) = (vm.to_owned(), label.to_owned());
    background::spawn(async move {
        warn(
            &format!("{label} was not taken out of the fleet's registry"),
            fleet::deregister(vm).await,
        );
    });
}
