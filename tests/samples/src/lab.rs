//! The local platform with one VM, and the policies under which a component is run.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::Outcome;

/// Nothing here takes so long, on a busy machine either.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// See the module.
pub(crate) struct Lab {
    root: tempfile::TempDir,
    binary: PathBuf,
    /// The VM's id.
    pub(crate) vm: String,
}

/// A component with what it may do.
pub(crate) struct Subject {
    pub(crate) component: PathBuf,
    /// A policy that grants what the sample needs.
    pub(crate) granted: PathBuf,
    /// One that grants nothing.
    pub(crate) bare: PathBuf,
}

impl Lab {
    /// Starts the platform and a VM.
    pub(crate) async fn start() -> Outcome<Self> {
        let binary = std::env::var_os("PI_VERS_BIN").ok_or("PI_VERS_BIN names no binary")?;
        let root = tempfile::Builder::new()
            .prefix("pv-samples-")
            .tempdir()
            .map_err(|why| why.to_string())?;
        for name in ["work", "state", "config"] {
            std::fs::create_dir(root.path().join(name)).map_err(|why| why.to_string())?;
        }
        let mut lab = Self {
            root,
            binary: binary.into(),
            vm: String::new(),
        };
        lab.run(&["local", "up", "--network", "none"]).await?;
        let made = lab
            .run(&[
                "run",
                "--local",
                "--json",
                "vers_vm_create",
                "{\"wait_boot\":true}",
            ])
            .await?;
        lab.vm = id_in(&made).ok_or_else(|| format!("no VM was made: {made}"))?;
        Ok(lab)
    }

    /// The binary, in directories of its own; compiled components are shared with other runs.
    pub(crate) fn command(&self) -> Command {
        let at = |name: &str| self.root.path().join(name);
        let mut command = Command::new(&self.binary);
        command
            .env_clear()
            .current_dir(at("work"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.root.path())
            .env("XDG_STATE_HOME", at("state"))
            .env("XDG_CONFIG_HOME", at("config"))
            .env(
                "XDG_CACHE_HOME",
                std::env::var_os("PI_VERS_TEST_CACHE").unwrap_or_else(|| at("cache").into()),
            )
            .env("VERS_BASE_URL", "http://127.0.0.1:9/api/v1")
            .env("VERS_API_KEY", "none")
            .stdin(Stdio::null())
            .kill_on_drop(true);
        command
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.path().join("work")
    }

    /// Runs the binary to its end; what it printed.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Outcome<String> {
        let what = arguments.join(" ");
        let output = tokio::time::timeout(DEADLINE, self.command().args(arguments).output())
            .await
            .map_err(|_| format!("{what}: not done within {DEADLINE:?}"))?
            .map_err(|why| format!("{what}: {why}"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        Err(format!("{what}: {}: {said}{why}", output.status))
    }

    /// Grants the component what its README asks for.
    pub(crate) async fn subject(&self, component: &Path) -> Outcome<Subject> {
        let path = component.display().to_string();
        let told = self.run(&["inspect", "--json", &path]).await?;
        let told: Value = serde_json::from_str(&told).map_err(|why| why.to_string())?;
        let digest = told.get("digest").and_then(Value::as_str);
        let digest = digest.ok_or("inspect tells no digest")?;
        let section = format!("[extension.build-watch]\ndigest = \"{digest}\"\n");
        let write = |name: &str, text: String| {
            let file = self.work().join(name);
            std::fs::write(&file, text).map_err(|why| why.to_string())?;
            Ok::<_, String>(file)
        };
        Ok(Subject {
            component: component.to_owned(),
            granted: write(
                "granted.toml",
                format!("{section}shell = {{ vms = \"any\", commands = \"any\" }}\n"),
            )?,
            bare: write("bare.toml", section)?,
        })
    }

    /// Stops and removes everything.
    pub(crate) async fn end(self) -> Outcome {
        self.run(&["local", "reset"]).await.map(drop)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // After a run that failed half-way.
        let mut reset: std::process::Command = std::mem::replace(
            self.command().as_std_mut(),
            std::process::Command::new("true"),
        );
        let _ = reset
            .args(["--quiet", "local", "reset"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

fn id_in(text: &str) -> Option<String> {
    let mut words = text.split(|c: char| !(c.is_ascii_hexdigit() || c == '-'));
    words
        .find(|word| word.len() == 36 && uuid::Uuid::try_parse(word).is_ok())
        .map(str::to_owned)
}

/// The processes of this machine, those inside of VMs too, that have this word in an argument.
pub(crate) fn marked(mark: &str) -> usize {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(mark)
        })
        .count()
}

/// Waits until something holds that nobody tells of, such as what a process on a VM has done.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Outcome {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(DEADLINE, waiting).await;
    waited.map_err(|_| format!("still not: {what}"))
}

/// A word that nothing else has.
pub(crate) fn mark() -> String {
    format!("mark{}", uuid::Uuid::new_v4().simple())
}

/// Arguments of `build_run`.
pub(crate) fn build(vm: &str, command: &[&str]) -> Value {
    json!({ "vm": vm, "command": command })
}
