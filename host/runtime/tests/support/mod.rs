//! Builds the guests that the tests load, and hosts to load them into.

#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    reason = "each test file uses a part"
)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use futures::future::BoxFuture;
use pi_vers_host::platform::{Environment, Overrides, Settings};
use pi_vers_host::policy::{Digest, Policy};
use pi_vers_host::secrets::Secrets;
use pi_vers_host::{
    Answer, AuditFile, BuiltInCall, BuiltInError, Content, Dialog, Harness, HarnessError, Headless,
    Host, Session, Severity, ToolOutput,
};
use serde_json::Value;

/// The component of a guest crate, built once a run.
pub fn guest(name: &str) -> Vec<u8> {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let extensions = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../extensions");
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--release",
            "--locked",
            "--target",
            "wasm32-wasip2",
            "-p",
            "unruly",
            "-p",
            "conformance",
        ]);
        build
            .current_dir(&extensions)
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .env_remove("CARGO_TARGET_DIR");
        let built = build.output().expect("cargo can be started");
        assert!(
            built.status.success(),
            "the guests do not build (is the target there? rustup target add wasm32-wasip2):\n{}",
            String::from_utf8_lossy(&built.stderr)
        );
        extensions.join("target/wasm32-wasip2/release")
    });
    std::fs::read(directory.join(format!("{name}.wasm"))).expect("the guest was built")
}

/// A platform that is not there.
pub fn nowhere() -> Settings {
    let environment = Environment::of([
        ("VERS_BASE_URL", "http://127.0.0.1:9/api/v1"),
        ("VERS_API_KEY", "none"),
        ("HOME", "/nonexistent"),
    ]);
    Settings::discover(environment, Overrides::default()).expect("the settings are valid")
}

/// A host whose policy holds these lines for `unruly`, and a session of it.
pub struct Bench {
    pub host: Host,
    pub session: Session,
    pub front: Arc<Front>,
    pub home: tempfile::TempDir,
}

/// A host whose policy holds these lines for each of these guests, and a session of them in this order.
pub async fn session_of(
    guests: &[(&str, &str)],
    front: Arc<dyn Harness>,
    home: &Path,
    platform: Settings,
    secrets: Secrets,
) -> (Host, Session) {
    session_audited(guests, front, home, platform, secrets, None).await
}

/// The same with an audit log.
pub async fn session_audited(
    guests: &[(&str, &str)],
    front: Arc<dyn Harness>,
    home: &Path,
    platform: Settings,
    secrets: Secrets,
    audit: Option<Arc<AuditFile>>,
) -> (Host, Session) {
    let mut text = String::new();
    let mut loaded = Vec::new();
    for (name, rules) in guests {
        let wasm = guest(name);
        let digest = Digest::of(&wasm);
        text.push_str(&format!(
            "[extension.{name}]\ndigest = \"{digest}\"\n{rules}\n"
        ));
        loaded.push((format!("{name}.wasm"), wasm));
    }
    let policy = Policy::parse(&text, "the test").unwrap_or_else(|why| panic!("{why}"));
    let mut builder = Host::builder();
    if let Some(audit) = audit {
        builder = builder.audit(audit);
    }
    let host = builder
        .cache(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"))
        .state(home.join("state"))
        .platform(platform)
        .secrets(Arc::new(secrets))
        .policy(policy)
        .build()
        .expect("the host can be built");
    let mut extensions = Vec::new();
    for (origin, wasm) in loaded {
        let extension = host.load(&origin, wasm).await;
        extensions.push(extension.unwrap_or_else(|why| panic!("{why}")));
    }
    let session = host
        .session(front, extensions)
        .unwrap_or_else(|why| panic!("{why}"));
    (host, session)
}

impl Bench {
    pub async fn new(rules: &str) -> Self {
        Self::with(rules, Front::default()).await
    }

    pub async fn with(rules: &str, front: Front) -> Self {
        Self::on(rules, front, nowhere(), Secrets::new()).await
    }

    pub async fn on(rules: &str, front: Front, platform: Settings, secrets: Secrets) -> Self {
        let home = tempfile::tempdir().expect("a directory");
        let front = Arc::new(front);
        let (host, session) = session_of(
            &[("unruly", rules)],
            front.clone(),
            home.path(),
            platform,
            secrets,
        )
        .await;
        Self {
            host,
            session,
            front,
            home,
        }
    }

    /// The text of a tool's result.
    pub async fn text(&self, tool: &str, arguments: Value) -> String {
        match self.session.call(tool, arguments).outcome().await {
            Ok(output) => output.text(),
            Err(why) => panic!("{tool}: {why}"),
        }
    }
}

/// A front end that writes down what it is told.
pub struct Front {
    pub headless: Headless,
    pub told: Mutex<Vec<String>>,
    pub answers: Mutex<Vec<Answer>>,
    pub built_ins: Vec<String>,
    /// What it says to what the policy leaves open.
    pub approves: bool,
}

impl Default for Front {
    fn default() -> Self {
        Self {
            headless: Headless::new(std::env::temp_dir()),
            told: Mutex::default(),
            answers: Mutex::default(),
            built_ins: Vec::new(),
            approves: false,
        }
    }
}

impl Front {
    pub fn told(&self) -> Vec<String> {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Harness for Front {
    fn interactive(&self) -> bool {
        true
    }

    fn notify(&self, from: &str, message: &str, severity: Severity) {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!("{from} {severity:?} {message}"));
    }

    fn bus(&self, from: &str, topic: &str, data: &Value) {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!("{from} {topic} {data}"));
    }

    fn ask(
        &self,
        _: &str,
        call: Option<&str>,
        title: &str,
        _: Dialog,
        _: Option<std::time::Duration>,
    ) -> BoxFuture<'_, Option<Answer>> {
        self.told
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(format!("asked {title} for {}", call.unwrap_or("nobody")));
        let answer = self
            .answers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        Box::pin(async move {
            match answer {
                Some(answer) => Some(answer),
                None => std::future::pending().await,
            }
        })
    }

    fn approve(&self, _: &str, _: &str) -> BoxFuture<'_, bool> {
        let approves = self.approves;
        Box::pin(async move { approves })
    }

    fn session_id(&self) -> String {
        self.headless.session_id()
    }

    fn working_directory(&self) -> PathBuf {
        self.headless.working_directory()
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
        self.built_ins.clone()
    }

    fn run_built_in(&self, call: BuiltInCall) -> BoxFuture<'_, Result<ToolOutput, BuiltInError>> {
        let output = ToolOutput {
            content: vec![Content::text(format!(
                "the harness ran {} {}",
                call.tool, call.arguments
            ))],
            ..ToolOutput::default()
        };
        Box::pin(async { Ok(output) })
    }
}
