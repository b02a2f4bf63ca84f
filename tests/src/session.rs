//! A session through the Rust API, with the component and the grants that are inside the binary.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use pi_vers_host::policy::{Digest, Policy};
use pi_vers_host::secrets::Secrets;
use pi_vers_host::{
    CallError, FlagValue, Harness, HarnessError, Headless, Host, HostBuilder, Session, Severity,
    ToolOutput,
};
use serde_json::Value;
use vers_client::Settings;

use crate::{built, scratch};

/// A session and its host.
#[derive(Debug)]
pub struct Bench {
    /// The host.
    pub host: Host,
    /// The session.
    pub session: Session,
    /// Its front end.
    pub front: Arc<Front>,
}

/// A front end with the built-in tools of a coding agent, in name, that writes down what it is told.
#[derive(Debug)]
pub struct Front {
    headless: Headless,
    flags: BTreeMap<String, FlagValue>,
    told: Mutex<Vec<String>>,
}

/// How the text about a tool begins when no VM is active.
pub const NO_VM: &str = "No VM is active";

impl Front {
    /// In this directory.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        Self {
            headless: Headless::new(directory),
            flags: BTreeMap::new(),
            told: Mutex::default(),
        }
    }

    /// What extensions have told the user.
    ///
    /// # Panics
    /// When another thread did while it told something.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        self.told.lock().expect("nobody panics with it").clone()
    }
}

impl Harness for Front {
    fn notify(&self, _: &str, message: &str, _: Severity) {
        self.told
            .lock()
            .expect("nobody panics with it")
            .push(message.to_owned());
    }

    fn working_directory(&self) -> PathBuf {
        self.headless.working_directory()
    }

    fn session_id(&self) -> String {
        self.headless.session_id()
    }

    fn flag(&self, name: &str) -> Option<FlagValue> {
        self.flags.get(name).cloned()
    }

    fn append_entry(
        &self,
        from: &str,
        kind: &str,
        data: Value,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        self.headless.append_entry(from, kind, data)
    }

    fn entries(
        &self,
        from: &str,
        kind: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<Value>, HarnessError>> {
        self.headless.entries(from, kind)
    }

    fn built_ins(&self) -> Vec<String> {
        ["bash", "read", "edit", "write", "grep", "find", "ls"]
            .map(str::to_owned)
            .into()
    }
}

/// The grants inside the binary, as they are written.
fn grants() -> String {
    std::fs::read_to_string(built::root().join("host/cli/policy/shipped.toml"))
        .expect("the shipped grants")
}

/// The shipped extensions that the grants name.
fn shipped(grants: &str) -> Vec<String> {
    let lines = grants
        .lines()
        .filter_map(|line| line.trim().strip_prefix("digest"));
    lines
        .filter_map(|line| Some(line.split('"').nth(1)?.strip_prefix('@')?.to_owned()))
        .collect()
}

/// The grants inside the binary, for the components its build made; `edit` may change their text.
fn policy(edit: impl FnOnce(String) -> String) -> Policy {
    let mut text = edit(grants());
    for name in shipped(&text) {
        let wasm = std::fs::read(built::shipped(&name)).expect("the component was built");
        text = text.replace(
            &format!("\"@{name}\""),
            &format!("\"{}\"", Digest::of(&wasm)),
        );
    }
    Policy::parse(&text, "the shipped grants").unwrap_or_else(|why| panic!("{why}"))
}

impl Bench {
    /// A session of the shipped extensions on a platform, with its state below `directory`.
    ///
    /// # Panics
    /// When it cannot be set up.
    pub async fn open(settings: Settings, directory: &Path) -> Self {
        let front = Arc::new(Front::new(directory));
        let (host, session) = session(settings, directory, front.clone()).await;
        Self {
            host,
            session,
            front,
        }
    }

    /// A session of the guest that does on request what an extension must not do, with these grants.
    ///
    /// # Panics
    /// When it cannot be set up.
    pub async fn unruly(settings: Settings, directory: &Path, grants: &str) -> Self {
        Self::guest("unruly", settings, directory, grants, &[]).await
    }

    /// A session of a guest that is there for tests, with these grants and secrets.
    ///
    /// # Panics
    /// When it cannot be set up.
    pub async fn guest(
        name: &str,
        settings: Settings,
        directory: &Path,
        grants: &str,
        secrets: &[(&str, &str)],
    ) -> Self {
        let path = built::fixture(name);
        let digest = Digest::of(&std::fs::read(&path).expect("the component was built"));
        let text = format!("[extension.{name}]\ndigest = \"{digest}\"\n{grants}\n");
        let policy =
            Policy::parse(&text, "the test's grants").unwrap_or_else(|why| panic!("{why}"));
        let held = Secrets::new();
        for (name, value) in secrets {
            held.insert(name, (*value).to_owned());
        }
        let front = Arc::new(Front::new(directory));
        let builder = Host::builder().policy(policy).secrets(Arc::new(held));
        let (host, session) =
            session_of(builder, settings, directory, vec![path], front.clone()).await;
        Self {
            host,
            session,
            front,
        }
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// As the session does.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<ToolOutput, CallError> {
        self.session.call(tool, arguments).outcome().await
    }

    /// The text of a call that has to succeed.
    ///
    /// # Panics
    /// When it does not.
    pub async fn text(&self, tool: &str, arguments: Value) -> String {
        match self.call(tool, arguments.clone()).await {
            Ok(output) => output.text(),
            Err(why) => panic!("{tool} {}: {why}", short(&arguments)),
        }
    }

    /// The text of a call that has to fail in the tool's own words.
    ///
    /// # Panics
    /// When it succeeds, or fails otherwise.
    pub async fn failure(&self, tool: &str, arguments: Value) -> String {
        match self.call(tool, arguments.clone()).await {
            Err(CallError::Failed(output)) => output.text(),
            other => panic!("{tool} {}: {other:?}", short(&arguments)),
        }
    }
}

fn short(arguments: &Value) -> String {
    arguments.to_string().chars().take(120).collect()
}

/// A session of the shipped extensions behind any front end, and its host.
///
/// # Panics
/// When it cannot be set up.
pub async fn session(
    settings: Settings,
    directory: &Path,
    harness: Arc<dyn Harness>,
) -> (Host, Session) {
    session_with(settings, directory, harness, |grants| grants).await
}

/// The same with other grants than the shipped ones: `edit` changes their text.
///
/// # Panics
/// When it cannot be set up.
pub async fn session_with(
    settings: Settings,
    directory: &Path,
    harness: Arc<dyn Harness>,
    edit: impl FnOnce(String) -> String,
) -> (Host, Session) {
    let components = shipped(&grants());
    let components = components.iter().map(|name| built::shipped(name)).collect();
    let builder = Host::builder().policy(policy(edit));
    session_of(builder, settings, directory, components, harness).await
}

async fn session_of(
    builder: HostBuilder,
    settings: Settings,
    directory: &Path,
    components: Vec<PathBuf>,
    harness: Arc<dyn Harness>,
) -> (Host, Session) {
    let host = builder
        .cache(scratch::cache().join("compiled"))
        .state(directory.join("host"))
        .platform(settings);
    let host = host.build().unwrap_or_else(|why| panic!("{why}"));
    let mut extensions = Vec::new();
    for component in components {
        let loaded = host.load_file(&component).await;
        extensions.push(loaded.unwrap_or_else(|why| panic!("{why}")));
    }
    let session = host
        .session(harness, extensions)
        .unwrap_or_else(|why| panic!("{why}"));
    (host, session)
}
