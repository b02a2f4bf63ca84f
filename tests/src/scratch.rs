//! Directories of one test, and the shipped binary run in them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use vers_client::{Environment, Overrides, Secret, Settings};
use vers_local::Endpoint;

use crate::{DEADLINE, built, ids, traces};

/// Directories for one test: a home, and what the XDG variables name. Compiled components are shared by all tests.
#[derive(Debug)]
pub struct Scratch {
    directory: tempfile::TempDir,
    /// What was seen while VMs ran.
    seen: std::sync::Mutex<Seen>,
}

/// What has to be gone in the end.
#[derive(Debug, Default)]
struct Seen {
    vms: BTreeSet<String>,
    groups: BTreeSet<PathBuf>,
}

/// How a run of the binary ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// The binary, running.
#[derive(Debug)]
pub struct Running {
    child: Child,
    stdout: JoinHandle<Vec<u8>>,
    stderr: JoinHandle<Vec<u8>>,
    what: String,
}

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// New and empty.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn new() -> Self {
        // A short path: sockets lie below it, and their names have a limit.
        let directory = tempfile::Builder::new()
            .prefix("pv-")
            .tempdir()
            .expect("a directory for the test");
        for name in ["home", "work", "state", "config"] {
            std::fs::create_dir(directory.path().join(name)).expect("a directory for the test");
        }
        Self {
            directory,
            seen: std::sync::Mutex::default(),
        }
    }

    /// Where the test may keep what it likes. The binary is run here.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.directory.path().join("work")
    }

    /// The directory that all the others are in.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// `$XDG_CONFIG_HOME/pi-vers`
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.directory.path().join("config/pi-vers")
    }

    /// Where the local platform keeps everything.
    #[must_use]
    pub fn local(&self) -> PathBuf {
        self.directory.path().join("state/pi-vers/local")
    }

    /// The binary, to be run in these directories.
    ///
    /// # Panics
    /// When it does not build.
    #[must_use]
    pub fn command(&self) -> std::process::Command {
        let at = |name: &str| self.directory.path().join(name);
        let mut command = std::process::Command::new(built::binary());
        command
            .env_clear()
            .current_dir(self.work())
            .stdin(Stdio::null());
        command.env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin:/usr/sbin:/sbin".into()),
        );
        command
            .env("HOME", at("home"))
            .env("XDG_STATE_HOME", at("state"))
            .env("XDG_CONFIG_HOME", at("config"));
        // No test leaves this machine: what is not told another platform finds none.
        command
            .env("VERS_BASE_URL", "http://127.0.0.1:9/api/v1")
            .env("VERS_API_KEY", "none");
        command
            .env("XDG_CACHE_HOME", cache())
            .env("RUST_BACKTRACE", "1")
            .env("LANG", "C.UTF-8");
        command
    }

    /// Starts the binary.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(&self, args: &[&str]) -> Running {
        self.start_with(args, &[])
    }

    /// The same, with these variables.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_with(&self, args: &[&str], env: &[(&str, &str)]) -> Running {
        let mut command = Command::from(self.command());
        command
            .args(args)
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("the binary starts");
        let stdout = collect(child.stdout.take().expect("piped"));
        let stderr = collect(child.stderr.take().expect("piped"));
        Running {
            child,
            stdout,
            stderr,
            what: args.join(" "),
        }
    }

    /// Runs the binary to its end.
    ///
    /// # Panics
    /// When it does not end.
    pub async fn run(&self, args: &[&str]) -> Done {
        self.start(args).done().await
    }

    /// Calls a tool on the local platform in the session `s`; its result is one JSON object.
    ///
    /// # Panics
    /// When it says anything else.
    pub async fn call(&self, tool: &str, arguments: Value) -> Value {
        self.call_in("s", tool, arguments).await
    }

    /// The same in a session of this name.
    ///
    /// # Panics
    /// When it says anything else.
    pub async fn call_in(&self, session: &str, tool: &str, arguments: Value) -> Value {
        let done = self
            .run(&[
                "run",
                "--local",
                "--json",
                "--session",
                session,
                tool,
                &arguments.to_string(),
            ])
            .await;
        self.note();
        match done.lines().as_slice() {
            [line] => line.clone(),
            _ => panic!("{tool}: not one line: {done:?}"),
        }
    }

    /// The text of a call that has to succeed.
    ///
    /// # Panics
    /// When it does not.
    pub async fn text(&self, tool: &str, arguments: Value) -> String {
        let line = self.call(tool, arguments.clone()).await;
        assert_eq!(line["ok"], true, "{tool} {arguments}: {line}");
        text(&line)
    }

    /// A new VM's id.
    ///
    /// # Panics
    /// When there is none.
    pub async fn vm(&self) -> String {
        let made = self
            .text("vers_vm_create", json!({ "wait_boot": true }))
            .await;
        ids(&made).swap_remove(0)
    }

    /// Starts the local platform in the background. VMs have no network: their ports would meet.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn up(&self) -> Endpoint {
        let done = self
            .run(&["local", "up", "--network", "none", "--json"])
            .await;
        assert_eq!(done.code, Some(0), "{done:?}");
        self.endpoint().await
    }

    /// How to reach the platform that runs.
    ///
    /// # Panics
    /// When none runs.
    pub async fn endpoint(&self) -> Endpoint {
        vers_local::find(&self.local())
            .await
            .expect("it can be looked for")
            .expect("it runs")
    }

    /// Writes down which VMs and cgroups there are now, so that it can be seen later that they are gone. Every
    /// [`Scratch::call`] does.
    ///
    /// # Panics
    /// When another thread did while it wrote.
    pub fn note(&self) {
        let mut seen = self.seen.lock().expect("no test panics with it");
        for entry in std::fs::read_dir(self.local().join("vms"))
            .into_iter()
            .flatten()
            .flatten()
        {
            seen.vms.extend(entry.file_name().into_string());
            let Ok(text) = std::fs::read(entry.path().join("meta.json")) else {
                continue;
            };
            let Ok(record) = serde_json::from_slice::<Value>(&text) else {
                continue;
            };
            for name in ["cgroup", "pids_v1"] {
                // The platform's own group, too, which holds those of its VMs.
                let group = record["handle"][name].as_str().map(Path::new);
                seen.groups.extend(
                    group
                        .iter()
                        .flat_map(|group| group.ancestors().take(2))
                        .map(Path::to_owned),
                );
            }
        }
    }

    /// `local reset`, and nothing may be left: no process, no cgroup, no mount, no file.
    ///
    /// # Panics
    /// When anything is left.
    pub async fn end(self) {
        self.note();
        let done = self.run(&["local", "reset"]).await;
        assert_eq!(done.code, Some(0), "{done:?}");
        self.nothing_left();
        assert!(
            !self.local().exists(),
            "files are left: {:?}",
            std::fs::read_dir(self.local()).map(|all| all.flatten().collect::<Vec<_>>())
        );
    }

    /// No process, cgroup or mount of this test is left.
    ///
    /// # Panics
    /// When one is.
    pub fn nothing_left(&self) {
        assert_eq!(
            traces::of(self.root()),
            Vec::<String>::new(),
            "processes are left"
        );
        assert_eq!(
            traces::mounts(self.root()),
            Vec::<String>::new(),
            "mounts are left"
        );
        let seen = self.seen.lock().expect("no test panics with it");
        // A process of a VM has the VM's id in its arguments, or its parent has.
        let alive: Vec<_> = seen
            .vms
            .iter()
            .filter(|vm| !traces::marked(vm).is_empty())
            .collect();
        assert!(alive.is_empty(), "processes of VMs are left: {alive:?}");
        let left: Vec<_> = seen.groups.iter().filter(|group| group.exists()).collect();
        assert!(left.is_empty(), "cgroups are left: {left:?}");
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // After a test that failed half-way.
        if self.local().exists() {
            let _ = self
                .command()
                .args(["--quiet", "local", "reset"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
        }
    }
}

/// Compiled components, shared by the tests of this and every later run.
pub(crate) fn cache() -> PathBuf {
    built::target().join("tmp/e2e-cache")
}

/// What a client has to know of a local platform.
///
/// # Panics
/// Never with what the platform says of itself.
#[must_use]
pub fn settings(endpoint: &Endpoint) -> Settings {
    let overrides = Overrides {
        api_key: Some(Secret::new(endpoint.api_key.clone())),
        base_url: Some(endpoint.api_url.clone()),
        vm_domain: Some(endpoint.domain.clone()),
        vm_connect: Some(endpoint.ssh_addr),
        tls_ca: Some(endpoint.ca_pem.clone()),
        insecure_tls: Some(false),
    };
    Settings::discover(Environment::of([("HOME", "/nonexistent")]), overrides)
        .expect("the platform's own settings are valid")
}

/// The text blocks of a result line, joined by line feeds.
#[must_use]
pub fn text(line: &Value) -> String {
    let blocks = line["content"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let texts: Vec<&str> = blocks
        .iter()
        .filter_map(|block| block["text"].as_str())
        .collect();
    texts.join("\n")
}

impl Done {
    /// Standard output as JSON, one value a line.
    ///
    /// # Panics
    /// When it is anything else.
    #[must_use]
    pub fn lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| {
                serde_json::from_str(line)
                    .unwrap_or_else(|why| panic!("{why}: {line:?} of {self:?}"))
            })
            .collect()
    }
}

fn collect(mut pipe: impl tokio::io::AsyncRead + Unpin + Send + 'static) -> JoinHandle<Vec<u8>> {
    tokio::spawn(async move {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes).await;
        bytes
    })
}

impl Running {
    /// Its process.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .expect("it still runs")
    }

    /// Kills it with a signal that it cannot notice, and waits until it is gone.
    ///
    /// # Panics
    /// When it had ended already.
    pub async fn kill(mut self) {
        self.child.start_kill().expect("it still runs");
        let _ = tokio::time::timeout(DEADLINE, self.child.wait())
            .await
            .expect("a killed process ends");
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it does not come.
    pub async fn done(mut self) -> Done {
        let ended = tokio::time::timeout(DEADLINE, self.child.wait()).await;
        let Ok(ended) = ended else {
            panic!("pi-vers {} has not ended in {DEADLINE:?}", self.what)
        };
        let code = ended.expect("it can be waited for").code();
        // A process that inherited a pipe would keep it open: that is wrong, and is told as what it is.
        let mut texts = Vec::new();
        for (name, pipe) in [("output", self.stdout), ("error", self.stderr)] {
            let Ok(read) = tokio::time::timeout(Duration::from_secs(10), pipe).await else {
                panic!(
                    "pi-vers {} has ended, and somebody holds its standard {name}",
                    self.what
                )
            };
            texts.push(
                String::from_utf8(read.expect("read")).expect("what the binary says is UTF-8"),
            );
        }
        let stderr = texts.pop().unwrap_or_default();
        Done {
            code,
            stdout: texts.pop().unwrap_or_default(),
            stderr,
        }
    }
}
