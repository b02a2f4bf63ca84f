//! VMs for agents: a commit in which the scripted agent is `pi`, and a way to the VMs past all that a test lets fail.

use std::sync::Arc;

use serde_json::json;
use vers_client::api::SetState;
use vers_client::{Api, Command, CommitId, Ssh, SshOptions, VmId};
use vers_local::Endpoint;

use crate::{Bench, Scratch, built, ids, settings};

/// What the agent's program is on a VM.
const AGENT: &str = "#!/bin/sh\nexec /usr/local/lib/pi-vers/pi-vers scripted-agent \"$@\"\n";
/// The label that every agent's VM has.
const ROLE: &str = "pi-vers.role";

/// Makes a commit in which the scripted agent is `pi`; no VM of it is left.
///
/// # Panics
/// When it cannot be made.
pub async fn golden(scratch: &Scratch, endpoint: &Endpoint) -> String {
    golden_with(scratch, endpoint, AGENT, "true").await
}

/// The same with another `/usr/local/bin/pi`, and after this script has run on the VM.
///
/// # Panics
/// When it cannot be made.
pub async fn golden_with(
    scratch: &Scratch,
    endpoint: &Endpoint,
    agent: &str,
    script: &str,
) -> String {
    let work = scratch.work();
    let (program, wrapper) = (work.join("pi-vers"), work.join("pi"));
    std::fs::copy(built::binary(), &program).expect("the binary can be copied");
    std::fs::write(&wrapper, agent).expect("a file");
    let bench = Bench::open(settings(endpoint), &work).await;
    let vm = ids(&bench
        .text("vers_vm_create", json!({ "wait_boot": true }))
        .await)
    .swap_remove(0);
    for (from, to) in [
        ("pi-vers", "/usr/local/lib/pi-vers/pi-vers"),
        ("pi", "/usr/local/bin/pi"),
    ] {
        let arguments = json!({ "src": from, "dst": format!("vm:{vm}:{to}") });
        bench.text("vers_vm_copy", arguments).await;
    }
    bench.text("vers_vm_use", json!({ "vmId": vm })).await;
    let ready = format!(
        "chmod 755 /usr/local/bin/pi /usr/local/lib/pi-vers/pi-vers && pi --version && {script}"
    );
    bench.text("bash", json!({ "command": ready })).await;
    let commit = bench.text("vers_vm_commit", json!({ "vmId": vm })).await;
    bench.text("vers_vm_delete", json!({ "vmId": vm })).await;
    bench.session.end().await;
    for file in [program, wrapper] {
        std::fs::remove_file(file).expect("it is there");
    }
    ids(&commit)
        .into_iter()
        .find(|id| *id != vm)
        .unwrap_or_else(|| panic!("no commit: {commit}"))
}

/// The platform and its VMs, past whatever stands between them and the host under test.
#[derive(Debug, Clone)]
pub struct Direct(Arc<(Api, Ssh)>);

impl Direct {
    /// To this platform.
    ///
    /// # Panics
    /// When it cannot be reached.
    #[must_use]
    pub fn new(endpoint: &Endpoint) -> Self {
        let api = Api::new(settings(endpoint)).expect("a client");
        let ssh = Ssh::new(api.clone(), SshOptions::default()).expect("a client");
        Self(Arc::new((api, ssh)))
    }

    /// All VMs there are.
    ///
    /// # Panics
    /// When the platform does not answer.
    pub async fn all(&self) -> Vec<String> {
        let all = self.0.0.list_vms().await.expect("the platform answers");
        all.iter().map(|vm| vm.id.to_string()).collect()
    }

    /// What all VMs are labelled with.
    ///
    /// # Panics
    /// When the platform does not answer.
    pub async fn labels(&self) -> Vec<String> {
        let all = self.0.0.list_vms().await.expect("the platform answers");
        all.iter()
            .map(|vm| format!("{} {:?}", vm.id, vm.labels))
            .collect()
    }

    /// Those that are labelled as agents' VMs.
    ///
    /// # Panics
    /// When the platform does not answer.
    pub async fn agents(&self) -> Vec<String> {
        let mut all = self.0.0.list_vms().await.expect("the platform answers");
        all.retain(|vm| vm.labels.contains_key(ROLE));
        all.iter().map(|vm| vm.id.to_string()).collect()
    }

    /// Starts a VM from a commit.
    ///
    /// # Panics
    /// When the platform does not.
    pub async fn restore(&self, commit: &str) -> String {
        let commit: CommitId = commit.parse().expect("an id");
        let origin = vers_client::api::Origin::Commit(commit);
        let vm = self.0.0.restore(&origin).await;
        vm.expect("a VM").to_string()
    }

    /// Runs a script on a VM, whatever comes of it: the VM may be going.
    pub async fn run(&self, vm: &str, script: &str) {
        let Ok(id) = vm.parse::<VmId>() else { return };
        if let Ok(child) = self.0.1.spawn(id, Command::shell(script)).await {
            let _ = child.wait().await;
        }
    }

    /// Pauses a VM, if it is there and runs.
    pub async fn pause(&self, vm: &str) {
        self.set(vm, SetState::Paused).await;
    }

    /// Resumes a VM, if it is there and paused.
    pub async fn resume(&self, vm: &str) {
        self.set(vm, SetState::Running).await;
    }

    async fn set(&self, vm: &str, state: SetState) {
        if let Ok(id) = vm.parse::<VmId>() {
            let _ = self.0.0.set_state(id, state).await;
        }
    }
}
