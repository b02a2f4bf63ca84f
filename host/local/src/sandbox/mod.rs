//! Sandboxes of this machine: what a VM of the local platform is made of.

mod error;

pub use error::Error;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;
use uuid::Uuid;

/// How strongly a VM is fenced, and what it may do. There is no weaker tier: a "process" tier, with no fence at all and
/// one VM at a time, was left out on purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// Needs root: the whole root file system is private and writable, 65 536 user ids.
    Sandbox,
    /// For an ordinary user: the host's system read-only, everything else private and writable, one user id.
    UserSandbox,
}

/// How a VM is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pause {
    /// The cgroup v2 freezer: atomic, and invisible inside.
    Freezer,
    /// `SIGSTOP` to every process: parents inside may notice stopped children.
    Signal,
}

/// What the platform can promise here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// The tier in use.
    pub tier: Tier,
    /// Whether a commit holds memory and processes. Never, today: it holds the disk.
    pub memory_snapshots: bool,
    /// Whether memory and CPU limits are enforced.
    pub limits: bool,
    /// How VMs are paused.
    pub pause: Pause,
    /// Whether the whole root file system is writable (packages can be installed).
    pub full_root: bool,
    /// Why no better tier was had, and what else is missing: one sentence each.
    pub notes: Vec<String>,
}

/// What a VM is started with.
#[derive(Debug, Clone, Copy)]
pub struct Spec<'a> {
    /// The VM.
    pub id: Uuid,
    /// Its directory (`vms/<id>`, exists, absolute): `upper`, `work`, `root` and the sockets live here.
    pub dir: &'a Path,
    /// Commit layers, newest first; the machine's own file system is below them.
    pub layers: &'a [PathBuf],
    /// The host name inside.
    pub hostname: &'a str,
    /// CPUs, as a limit.
    pub vcpu: u32,
    /// Memory in MiB, as a limit.
    pub mem_mib: u32,
    /// The only public key that may log in (an OpenSSH line).
    pub authorized_key: &'a str,
    /// File with the OpenSSH private host key.
    pub host_key: &'a Path,
    /// Goes to `/etc/environment`, with `VERS_VM_ID`.
    pub env: &'a BTreeMap<String, String>,
}

/// What to reach in a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// The SSH server.
    Ssh,
    /// A TCP port on the VM's loopback.
    Port(u16),
}

/// A started sandbox, as stored in `meta.json`, so that a later server can adopt it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    pub(crate) id: Uuid,
    pub(crate) tier: Tier,
    /// `/proc/sys/kernel/random/boot_id` when it was started.
    pub(crate) boot_id: String,
    /// Its pid 1, as the host numbers it.
    pub(crate) pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: with the boot id it makes the pid unique.
    pub(crate) start_time: u64,
    /// Directory with the sockets.
    pub(crate) dir: PathBuf,
    /// Its cgroup v2 directory, if one could be made.
    pub(crate) cgroup: Option<PathBuf>,
    /// Its cgroup in the v1 pids hierarchy, if one could be made.
    pub(crate) pids_v1: Option<PathBuf>,
}

/// The sandboxes of one platform (one state directory). Share it behind an `Arc`.
#[derive(Debug)]
pub struct Sandboxes {
    capabilities: Capabilities,
}

fn unfinished(what: &str) -> Error {
    Error::Io {
        what: format!("{what} is being written"),
        source: std::io::ErrorKind::Unsupported.into(),
    }
}

impl Sandboxes {
    /// Finds the best tier that works (or `wanted`) by building and running a throw-away sandbox in `state_dir`.
    ///
    /// `helper` is a program whose `main` calls [`helper_main`] first; `instance` names this platform's cgroups.
    ///
    /// # Errors
    /// [`Error::NoTier`] with the failed step of each tier.
    pub async fn probe(
        state_dir: &Path,
        wanted: Option<Tier>,
        helper: PathBuf,
        instance: &str,
    ) -> Result<Self, Error> {
        let _ = (state_dir, wanted, helper, instance);
        Err(unfinished("probe"))
    }

    /// What was found.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Starts a VM and waits until its SSH server listens.
    ///
    /// # Errors
    /// [`Error::Start`] with the step that failed. Nothing is left running.
    ///
    /// # Cancel safety
    /// A dropped future leaves nothing running.
    pub async fn start(&self, spec: Spec<'_>) -> Result<Handle, Error> {
        let _ = spec;
        Err(unfinished("start"))
    }

    /// Whether the VM's first process is still the one that was started.
    pub async fn alive(&self, h: &Handle) -> bool {
        let _ = h;
        false
    }

    /// Resolves when the VM's first process is gone, and reaps it. Resolves at once if it is gone already.
    pub async fn exited(&self, h: &Handle) {
        let _ = h;
    }

    /// Stops every process of the VM where it is, and returns when all have stopped.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Timeout`] (thawed again).
    pub async fn freeze(&self, h: &Handle) -> Result<(), Error> {
        let _ = h;
        Err(unfinished("freeze"))
    }

    /// Undoes [`Sandboxes::freeze`].
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Timeout`].
    pub async fn thaw(&self, h: &Handle) -> Result<(), Error> {
        let _ = h;
        Err(unfinished("thaw"))
    }

    /// Kills every process of the VM, frozen or not, waits until they are gone, removes its cgroups. The disk stays.
    ///
    /// # Errors
    /// [`Error::Timeout`] when something would not die.
    pub async fn stop(&self, h: &Handle) -> Result<(), Error> {
        let _ = h;
        Err(unfinished("stop"))
    }

    /// Connects to a service inside the VM.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Refused`], [`Error::Timeout`].
    pub async fn dial(&self, h: &Handle, to: Service) -> Result<UnixStream, Error> {
        let _ = (h, to);
        Err(unfinished("dial"))
    }

    /// Recovery: kills and removes the cgroups of this instance that belong to none of `known`.
    ///
    /// # Errors
    /// The first one that would not go away.
    pub async fn sweep(&self, known: &[Handle]) -> Result<(), Error> {
        let _ = known;
        Err(unfinished("sweep"))
    }
}

/// Runs the sandbox helper if this process was started as one, and never returns then. Call it first in `main` of every
/// program that embeds the platform, before any thread is started.
pub fn helper_main() {}
