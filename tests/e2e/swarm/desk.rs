//! A platform with an image for agents, and sessions on it that write down what they are told.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pi_vers_host::{CallError, FlagValue, Host, Session, StartReason};
use pi_vers_tests::{DEADLINE, Scratch, agents, session_with};
use serde_json::{Value, json};
use vers_client::{Environment, Overrides, Secret, Settings};
use vers_local::Endpoint;

use crate::desk::{Desk, Message, lock};

/// A platform with a commit that an agent is installed in.
pub(super) struct Place {
    pub(super) scratch: Scratch,
    pub(super) endpoint: Endpoint,
    /// The commit with the agent.
    pub(super) golden: String,
}

/// What the agent's program is on a VM. One that is called `broken` does not start.
const AGENT: &str = "#!/bin/sh\ncase $VERS_AGENT_NAME in broken*) echo 'this one is broken' >&2; exit 7;; esac\nexec /usr/local/lib/pi-vers/pi-vers scripted-agent \"$@\"\n";
/// What an image brings along is nobody's message.
const STALE: &str = "mkdir -p /root/.swarm && echo stale >/root/.swarm/outbox";

impl Place {
    pub(super) async fn new() -> Self {
        pi_vers_tests::needs("tmux");
        let scratch = Scratch::new();
        let endpoint = scratch.up().await;
        let golden = agents::golden_with(&scratch, &endpoint, AGENT, STALE).await;
        Self {
            scratch,
            endpoint,
            golden,
        }
    }

    /// A session of this id, on this machine.
    pub(super) async fn session(&self, id: &str) -> Run {
        self.session_in(id, &self.scratch.work(), self.settings(&[]), &[])
            .await
    }

    /// How to reach the platform, for a user who has a home and these variables.
    pub(super) fn settings(&self, variables: &[(&str, &str)]) -> Settings {
        let mut all = vec![("HOME".to_owned(), self.home().display().to_string())];
        let named = variables.iter();
        all.extend(named.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let endpoint = &self.endpoint;
        let overrides = Overrides {
            api_key: Some(Secret::new(endpoint.api_key.clone())),
            base_url: Some(endpoint.api_url.clone()),
            vm_domain: Some(endpoint.domain.clone()),
            vm_connect: Some(endpoint.ssh_addr),
            tls_ca: Some(endpoint.ca_pem.clone()),
            insecure_tls: Some(false),
        };
        Settings::discover(Environment::of(all), overrides).expect("valid settings")
    }

    pub(super) fn home(&self) -> PathBuf {
        self.scratch.root().join("home")
    }

    /// A session with its state below `directory`: another one is another machine.
    pub(super) async fn session_in(
        &self,
        id: &str,
        directory: &Path,
        settings: Settings,
        flags: &[(&str, FlagValue)],
    ) -> Run {
        Run::new(id, directory, settings, self, flags).await
    }

    /// The VMs that there are, as the platform lists them.
    pub(super) async fn vms(&self) -> Vec<Value> {
        let line = self.scratch.call("vers_vms", json!({})).await;
        line["details"]["vms"].as_array().expect("a list").clone()
    }

    /// Ends it; nothing may be left.
    pub(super) async fn end(self) {
        self.scratch.end().await;
    }
}

/// One run of a session.
pub(super) struct Run {
    pub(super) session: Session,
    desk: Arc<Desk>,
    golden: String,
    _host: Host,
}

impl Run {
    async fn new(
        id: &str,
        directory: &Path,
        settings: Settings,
        place: &Place,
        flags: &[(&str, FlagValue)],
    ) -> Self {
        let desk = Desk::new(("vers-swarm", "vers-swarm"), id, directory, flags);
        // The home that a policy means is that of the process.
        let home = format!("{}/.pi/agent", place.home().display());
        let edit = |grants: String| grants.replace("~/.pi/agent", &home);
        let (host, session) = session_with(settings, directory, desk.clone(), edit).await;
        session
            .start(StartReason::Startup)
            .await
            .expect("it starts");
        Self {
            session,
            desk,
            golden: place.golden.clone(),
            _host: host,
        }
    }

    /// Text and details of a call that has to succeed.
    pub(super) async fn ok(&self, tool: &str, arguments: Value) -> (String, Value) {
        let mut call = self.session.call(&tool_name(tool), arguments.clone());
        match tokio::time::timeout(DEADLINE, call.outcome()).await {
            Ok(Ok(output)) => (output.text(), output.details.unwrap_or_default()),
            Ok(Err(why)) => panic!("{tool} {arguments}: {why}"),
            Err(_) => panic!("{tool} {arguments}: no answer; {:?}", self.widget()),
        }
    }

    pub(super) async fn text(&self, tool: &str, arguments: Value) -> String {
        self.ok(tool, arguments).await.0
    }

    /// Text and details of a call that has to fail.
    pub(super) async fn failure(&self, tool: &str, arguments: Value) -> (String, Value) {
        let mut call = self.session.call(&tool_name(tool), arguments.clone());
        match tokio::time::timeout(DEADLINE, call.outcome()).await {
            Ok(Err(CallError::Failed(output))) => {
                (output.text(), output.details.unwrap_or_default())
            }
            other => panic!("{tool} {arguments}: {other:?}"),
        }
    }

    /// The arguments of a spawn of so many from the golden commit.
    pub(super) fn order(&self, count: usize, labels: &[&str]) -> Value {
        json!({ "count": count, "commitId": self.golden, "labels": labels, "llmProxyKey": "sk-test", "model": "scripted/scripted-1" })
    }

    /// Spawns agents of these names; their VMs.
    pub(super) async fn spawn(&self, labels: &[&str]) -> Vec<String> {
        let (_, details) = self.ok("spawn", self.order(labels.len(), labels)).await;
        let agents = details["agents"].as_array().expect("agents");
        let vms = agents
            .iter()
            .map(|agent| agent["vmId"].as_str().expect("its VM").to_owned());
        vms.collect()
    }

    pub(super) async fn task(&self, id: &str, task: &str) -> String {
        self.text("task", json!({ "agentId": id, "task": task }))
            .await
    }

    pub(super) async fn wait(&self) -> (String, Value) {
        self.ok("wait", json!({})).await
    }

    pub(super) async fn read(&self, id: &str) -> String {
        self.text("read", json!({ "agentId": id })).await
    }

    /// Gives all of it up.
    pub(super) async fn throw_away(&self) {
        self.text("teardown", json!({ "force": true })).await;
    }

    pub(super) fn messages(&self) -> Vec<Message> {
        lock(&self.desk.sent).clone()
    }

    pub(super) fn widget(&self) -> Option<String> {
        self.desk.widget()
    }

    pub(super) fn heard(&self, topic: &str) -> Vec<Value> {
        self.desk.heard(topic)
    }

    /// Waits until the status has this in it.
    pub(super) async fn until(&self, what: &str) -> String {
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            let status = self.text("status", json!({})).await;
            if status.contains(what) {
                return status;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "never {what}: {status}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }

    pub(super) async fn end(self) {
        self.session.end().await;
    }
}

fn tool_name(name: &str) -> String {
    if name.starts_with("vers_") {
        name.to_owned()
    } else {
        format!("vers_swarm_{name}")
    }
}
