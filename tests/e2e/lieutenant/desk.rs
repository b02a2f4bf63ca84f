//! A platform with an image for agents, and sessions on it that write down what they are told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::BoxFuture;
use pi_vers_host::platform::{Environment, Overrides, Secret, Settings};
use pi_vers_host::{
    CallError, Content, CustomMessage, Delivery, FlagValue, Harness, HarnessError, Host, Line,
    Session, Severity, StartReason,
};
use pi_vers_tests::{Bench, Scratch, built, eventually, ids, session_with, settings};
use serde_json::{Value, json};
use vers_local::Endpoint;

pub(super) fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().expect("nobody panics with it")
}

/// A message of an extension to the conversation.
#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) kind: String,
    pub(super) text: String,
    pub(super) details: Value,
    pub(super) wakes: bool,
    pub(super) follow_up: bool,
}

/// A harness.
#[derive(Debug)]
pub(super) struct Desk {
    id: String,
    directory: PathBuf,
    flags: BTreeMap<String, FlagValue>,
    pub(super) sent: Mutex<Vec<Message>>,
    pub(super) told: Mutex<Vec<String>>,
    pub(super) bus: Mutex<Vec<(String, Value)>>,
    widget: Mutex<Option<String>>,
}

impl Desk {
    /// The announcements so far.
    pub(super) fn announced(&self) -> Vec<Message> {
        let sent = lock(&self.sent);
        let announced = sent.iter().filter(|sent| sent.kind == "vers:lt_completed");
        announced.cloned().collect()
    }
}

impl Harness for Desk {
    fn notify(&self, _: &str, message: &str, _: Severity) {
        lock(&self.told).push(message.to_owned());
    }

    fn set_widget(&self, from: &str, key: &str, lines: Option<Vec<Line>>) {
        if from != "vers-lieutenant" {
            return;
        }
        assert!(key.ends_with("vers-lt"), "{key}");
        let line = |line: &Line| line.iter().map(|span| span.text.as_str()).collect();
        let lines = lines.map(|lines| lines.iter().map(line).collect::<Vec<String>>().join("\n"));
        *lock(&self.widget) = lines;
    }

    fn working_directory(&self) -> PathBuf {
        self.directory.clone()
    }

    fn session_id(&self) -> String {
        self.id.clone()
    }

    fn flag(&self, name: &str) -> Option<FlagValue> {
        self.flags.get(name).cloned()
    }

    fn send_message(
        &self,
        _: &str,
        message: CustomMessage,
        delivery: Delivery,
        trigger_turn: bool,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let text = message.content.iter().map(|block| match block {
            Content::Text(text) => text.as_str(),
            _ => "[no text]",
        });
        lock(&self.sent).push(Message {
            kind: message.kind.clone(),
            text: text.collect(),
            details: message.details.clone().unwrap_or_default(),
            wakes: trigger_turn,
            follow_up: matches!(delivery, Delivery::FollowUp),
        });
        Box::pin(async { Ok(()) })
    }

    fn append_entry(&self, _: &str, _: &str, _: Value) -> BoxFuture<'_, Result<(), HarnessError>> {
        Box::pin(async { Ok(()) })
    }

    fn entries(&self, _: &str, _: Option<&str>) -> BoxFuture<'_, Result<Vec<Value>, HarnessError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn bus(&self, _: &str, topic: &str, data: &Value) {
        lock(&self.bus).push((topic.to_owned(), data.clone()));
    }
}

/// A platform with a commit that an agent is installed in.
pub(super) struct Place {
    pub(super) scratch: Scratch,
    pub(super) endpoint: Endpoint,
    /// The commit with the agent.
    pub(super) golden: String,
}

/// What the agent's program is on a VM.
const AGENT: &str = "#!/bin/sh\nexec /usr/local/lib/pi-vers/pi-vers scripted-agent \"$@\"\n";

impl Place {
    pub(super) async fn new() -> Self {
        pi_vers_tests::needs("tmux");
        let scratch = Scratch::new();
        let endpoint = scratch.up().await;
        let golden = install(&scratch, &endpoint).await;
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

/// Makes a commit in which the scripted agent is `pi`.
async fn install(scratch: &Scratch, endpoint: &Endpoint) -> String {
    let program = scratch.work().join("pi-vers");
    std::fs::copy(built::binary(), &program).expect("the binary can be copied");
    std::fs::write(scratch.work().join("pi"), AGENT).expect("a file");
    let bench = Bench::open(settings(endpoint), &scratch.work()).await;
    let vm = ids(&bench
        .text("vers_vm_create", json!({ "wait_boot": true }))
        .await)
    .swap_remove(0);
    for (from, to) in [
        ("pi-vers", "/usr/local/lib/pi-vers/pi-vers"),
        ("pi", "/usr/local/bin/pi"),
    ] {
        bench
            .text(
                "vers_vm_copy",
                json!({ "src": from, "dst": format!("vm:{vm}:{to}") }),
            )
            .await;
    }
    bench.text("vers_vm_use", json!({ "vmId": vm })).await;
    let script = "chmod 755 /usr/local/bin/pi /usr/local/lib/pi-vers/pi-vers && pi --version";
    let version = bench.text("bash", json!({ "command": script })).await;
    assert!(version.contains("0."), "{version}");
    let commit = bench.text("vers_vm_commit", json!({ "vmId": vm })).await;
    let commit = ids(&commit)
        .into_iter()
        .find(|id| *id != vm)
        .unwrap_or_else(|| panic!("no commit: {commit}"));
    bench.text("vers_vm_delete", json!({ "vmId": vm })).await;
    bench.session.end().await;
    std::fs::remove_file(program).expect("it is there");
    commit
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
        let flags = flags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        let desk = Arc::new(Desk {
            id: id.into(),
            directory: directory.to_owned(),
            flags: flags.collect(),
            sent: Mutex::default(),
            told: Mutex::default(),
            bus: Mutex::default(),
            widget: Mutex::default(),
        });
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
        self.desk.announced()
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
        lock(&self.desk.widget).clone()
    }

    pub(super) fn told(&self, what: &str) -> bool {
        lock(&self.desk.told).iter().any(|told| told.contains(what))
    }

    pub(super) fn heard(&self, topic: &str) -> Vec<Value> {
        let bus = lock(&self.desk.bus);
        bus.iter()
            .filter(|(name, _)| name == topic)
            .map(|(_, data)| data.clone())
            .collect()
    }

    pub(super) async fn end(self) {
        self.session.end().await;
    }
}
