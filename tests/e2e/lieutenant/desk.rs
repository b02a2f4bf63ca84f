//! A platform with an image for agents, and sessions on it that write down what they are told.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use pi_vers_host::platform::{Environment, Overrides, Secret, Settings};
use pi_vers_host::{CallError, FlagValue, Host, Session, StartReason};
use pi_vers_tests::{Scratch, agents, eventually, ids, session_with};
use serde_json::{Value, json};
use vers_local::Endpoint;

use crate::desk::{Desk, Message, lock};

/// The kind of message by which the end of a run is announced.
pub(super) const ANNOUNCEMENT: &str = "vers:lt_completed";

/// A platform with a commit that an agent is installed in.
pub(super) struct Place {
    pub(super) scratch: Scratch,
    pub(super) endpoint: Endpoint,
    /// The commit with the agent.
    pub(super) golden: String,
}

impl Place {
    pub(super) async fn new() -> Self {
        pi_vers_tests::needs("tmux");
        let scratch = Scratch::new();
        let endpoint = scratch.up().await;
        let golden = agents::golden(&scratch, &endpoint).await;
        Self {
            scratch,
            endpoint,
            golden,
        }
    }

    /// How to reach the platform; `variables` are those of the host.
    pub(super) fn settings(&self, variables: &[(&str, &str)]) -> Settings {
        self.settings_through(None, variables)
    }

    /// The same, where VMs are reached through this address.
    pub(super) fn settings_through(
        &self,
        edge: Option<SocketAddr>,
        variables: &[(&str, &str)],
    ) -> Settings {
        let home = self.scratch.root().join("home").display().to_string();
        let mut all = vec![("HOME".to_owned(), home)];
        let named = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        all.extend(named);
        let endpoint = &self.endpoint;
        let overrides = Overrides {
            api_key: Some(Secret::new(endpoint.api_key.clone())),
            base_url: Some(endpoint.api_url.clone()),
            vm_domain: Some(endpoint.domain.clone()),
            vm_connect: Some(edge.unwrap_or(endpoint.ssh_addr)),
            tls_ca: Some(endpoint.ca_pem.clone()),
            insecure_tls: Some(false),
        };
        Settings::discover(Environment::of(all), overrides).expect("the settings are valid")
    }

    /// A session of this id, on this machine.
    pub(super) async fn session(&self, id: &str) -> Run {
        self.run(id, &self.scratch.work(), self.settings(&[]), &[])
            .await
    }

    /// A session with its state below `directory`: another one is another machine.
    pub(super) async fn run(
        &self,
        id: &str,
        directory: &Path,
        settings: Settings,
        flags: &[(&str, FlagValue)],
    ) -> Run {
        Run::new(id, directory, settings, flags, |grants| grants).await
    }

    /// The VMs that there are, but for their labels.
    pub(super) async fn vms(&self) -> Vec<String> {
        let text = self.scratch.text("vers_vms", json!({})).await;
        ids(&text)
    }

    /// Ends it; nothing may be left.
    pub(super) async fn end(self) {
        self.scratch.end().await;
    }
}

/// One run of a session.
pub(super) struct Run {
    pub(super) session: Session,
    pub(super) desk: Arc<Desk>,
    _host: Host,
}

impl Run {
    pub(super) async fn new(
        id: &str,
        directory: &Path,
        settings: Settings,
        flags: &[(&str, FlagValue)],
        edit: impl FnOnce(String) -> String,
    ) -> Self {
        let desk = Desk::new(("vers-lieutenant", "vers-lt"), id, directory, flags);
        let (host, session) = session_with(settings, directory, desk.clone(), edit).await;
        session
            .start(StartReason::Startup)
            .await
            .expect("it starts");
        Self {
            session,
            desk,
            _host: host,
        }
    }

    /// Text and details of a call that has to succeed.
    pub(super) async fn ok(&self, tool: &str, arguments: Value) -> (String, Value) {
        match self.session.call(tool, arguments.clone()).outcome().await {
            Ok(output) => (output.text(), output.details.unwrap_or_default()),
            Err(why) => panic!("{tool} {arguments}: {why}"),
        }
    }

    pub(super) async fn text(&self, tool: &str, arguments: Value) -> String {
        self.ok(tool, arguments).await.0
    }

    /// The text of a call that has to fail.
    pub(super) async fn failure(&self, tool: &str, arguments: Value) -> String {
        match self.session.call(tool, arguments.clone()).outcome().await {
            Err(CallError::Failed(output)) => output.text(),
            Err(CallError::Refused { message, .. }) => message,
            other => panic!("{tool} {arguments}: {other:?}"),
        }
    }

    /// Creates a lieutenant on a VM; its VM.
    pub(super) async fn create(&self, place: &Place, name: &str, role: &str) -> String {
        let arguments = json!({ "name": name, "role": role, "commitId": place.golden, "model": "scripted/scripted-1" });
        let (_, details) = self.ok("vers_lt_create", arguments).await;
        details["vmId"].as_str().expect("its VM").to_owned()
    }

    pub(super) async fn send(&self, name: &str, message: &str) -> String {
        self.text("vers_lt_send", json!({ "name": name, "message": message }))
            .await
    }

    pub(super) async fn read(&self, name: &str) -> String {
        self.text("vers_lt_read", json!({ "name": name })).await
    }

    /// The announcements so far.
    pub(super) fn announced(&self) -> Vec<Message> {
        self.desk.sent(ANNOUNCEMENT)
    }

    /// Waits for so many announcements; the last one.
    pub(super) async fn announcement(&self, number: usize) -> Message {
        eventually("the end of a run is announced", || {
            self.announced().len() >= number
        })
        .await;
        let all = self.announced();
        assert_eq!(all.len(), number, "{all:?}");
        all[number - 1].clone()
    }

    /// Waits until the status of all has this in it.
    pub(super) async fn until_status(&self, what: &str) -> String {
        for _ in 0..600 {
            let status = self.text("vers_lt_status", json!({})).await;
            if status.contains(what) {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        panic!(
            "never {what}: {}",
            self.text("vers_lt_status", json!({})).await
        );
    }

    pub(super) fn widget(&self) -> Option<String> {
        self.desk.widget()
    }

    pub(super) fn told(&self, what: &str) -> bool {
        lock(&self.desk.told).iter().any(|told| told.contains(what))
    }

    pub(super) fn heard(&self, topic: &str) -> Vec<Value> {
        self.desk.heard(topic)
    }

    pub(super) async fn end(self) {
        self.session.end().await;
    }
}
