//! Sandboxes of this machine: what a VM of the local platform is made of.
//!
//! A sandbox is a set of namespaces whose root file system is an overlay: commits below, the VM's own `upper` on top, the
//! machine's own system at the bottom. Its process 1 reaps; process 2 is the SSH server ([`crate::agent`]). Two tiers:
//!
//! * [`Tier::Sandbox`], for root: the overlay is made outside, with layers whose ids are mapped to a range that means
//!   nothing on the host, and handed in. Root inside is nobody outside.
//! * [`Tier::UserSandbox`], for an ordinary user: an overlay of directories that the user owns, made inside; the host's
//!   `/usr` and its like are bound into it read-only. A restore stacks the same kind of layers as in tier 1, so private
//!   directories come back whole and at no cost in size.
//!
//! Sandboxes outlive the server. Nothing ties them to it (`PR_SET_PDEATHSIG` would: it fires when the *thread* that
//! started them ends); a later server finds them by their [`Handle`].
//!
//! What it does not promise: the kernel is shared, memory is not part of a commit, disk sizes are not enforced, and the
//! lowest layer follows the host's own updates.

mod base;
mod cgroup;
mod error;
mod etc;
mod helper;
mod init;
mod launch;
mod link;
mod mounts;
mod plan;
mod probe;
mod process;
mod steps;
pub(crate) mod sys;
mod tools;

pub use error::Error;
pub(crate) use etc::environment_line;
pub use helper::helper_main;
pub use plan::Network;

use cgroup::{Groups, Made};
use plan::Plan;
use process::Held;

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use uuid::Uuid;

/// The SSH server's socket in a VM's directory.
pub(crate) const SSH_SOCKET: &str = "ssh.sock";
/// The socket in a VM's directory through which its loopback ports are reached.
pub(crate) const PORT_SOCKET: &str = "ports.sock";
/// For connecting inside a VM.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// For stopping and continuing processes with signals.
const SIGNAL_DEADLINE: Duration = Duration::from_secs(20);

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
    core: Arc<Core>,
    capabilities: Capabilities,
}

#[derive(Debug)]
struct Core {
    tier: Tier,
    network: Network,
    helper: PathBuf,
    instance: String,
    /// Hidden from all VMs.
    state_dir: PathBuf,
    groups: Option<Groups>,
}

impl Handle {
    fn groups(&self) -> Option<Made> {
        Some(Made {
            v2: self.cgroup.clone()?,
            pids_v1: self.pids_v1.clone(),
        })
    }

    fn lives(&self) -> bool {
        process::lives(self.pid, self.start_time)
            && process::boot_id().is_ok_and(|b| b == self.boot_id)
    }

    fn must_live(&self) -> Result<(), Error> {
        if self.lives() {
            Ok(())
        } else {
            Err(Error::NotRunning {
                id: self.id,
                pid: self.pid,
            })
        }
    }
}

impl Core {
    /// Owns its arguments, so that it can go on when the caller is gone.
    async fn start(&self, mut plan: Plan, vcpu: u32, mem_mib: u32) -> Result<Handle, Error> {
        if !etc::valid_hostname(&plan.hostname) {
            return Err(Error::Start {
                id: plan.id,
                step: format!(
                    "{:?} is no host name: use 1 to 63 letters, digits, '-' and '.'",
                    plan.hostname
                ),
            });
        }
        for name in ["upper", "work", "root"] {
            let path = plan.dir.join(name);
            make_dir(&path)
                .await
                .map_err(Error::io(format!("make {}", path.display())))?;
        }
        let groups = match &self.groups {
            Some(groups) => Some(groups.make(plan.id, vcpu, mem_mib)?),
            None => None,
        };
        plan.cgroups = groups.as_ref().map(Made::join_files).unwrap_or_default();
        launch::launch(&self.helper, &self.instance, plan, groups).await
    }

    fn plan(&self, spec: &Spec<'_>, host_key: String) -> Plan {
        let tools = tools::of_this_process();
        let mut base_env = tools.env;
        base_env.insert("LANG".into(), "C.UTF-8".into());
        let mut env = spec.env.clone();
        env.insert("VERS_VM_ID".into(), spec.id.to_string());
        Plan {
            id: spec.id,
            tier: self.tier,
            network: self.network,
            dir: spec.dir.to_path_buf(),
            layers: spec.layers.to_vec(),
            hostname: spec.hostname.to_owned(),
            cgroups: Vec::new(),
            hidden: vec![self.state_dir.clone()],
            tools: tools.trees,
            authorized_key: spec.authorized_key.to_owned(),
            host_key,
            env,
            base_env,
        }
    }
}

/// Like a fresh machine's directories: readable by all, whatever the server's umask.
async fn make_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    match tokio::fs::create_dir(path).await {
        Ok(()) => tokio::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).await,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    }
}

impl Sandboxes {
    /// Finds the best tier that works (or `wanted`) by building and running a throw-away sandbox in `state_dir`.
    ///
    /// `helper` is a program whose `main` calls [`helper_main`] first; `instance` names this platform's cgroups: two state
    /// directories must have two names. VMs get [`Network::None`]; see [`Sandboxes::with_network`].
    ///
    /// # Errors
    /// [`Error::NoTier`] with the failed step of each tier.
    pub async fn probe(
        state_dir: &Path,
        wanted: Option<Tier>,
        helper: PathBuf,
        instance: &str,
    ) -> Result<Self, Error> {
        let (core, capabilities) = probe::probe(state_dir, wanted, helper, instance).await?;
        Ok(Self {
            core: Arc::new(core),
            capabilities,
        })
    }

    /// Without looking for a tier: to end what an earlier server left running, when no server does. It cannot start VMs
    /// in a tier that was found to work; do not call [`Sandboxes::start`] on it.
    pub fn unprobed(state_dir: &Path, instance: &str) -> Self {
        let (groups, tier) = (Groups::prepare(instance).ok(), Tier::UserSandbox);
        let capabilities = Capabilities {
            tier,
            memory_snapshots: false,
            limits: groups.as_ref().is_some_and(Groups::limits),
            pause: match groups {
                Some(_) => Pause::Freezer,
                None => Pause::Signal,
            },
            full_root: false,
            notes: vec!["not probed".into()],
        };
        let core = Core {
            tier,
            network: Network::None,
            helper: PathBuf::new(),
            instance: instance.to_owned(),
            state_dir: state_dir.to_path_buf(),
            groups,
        };
        Self {
            core: Arc::new(core),
            capabilities,
        }
    }

    /// Gives VMs that are started from now on another network. With [`Network::Host`] they reach what the host reaches,
    /// their ports collide with the host's and each other's, and `/sys` is empty.
    #[must_use]
    pub fn with_network(self, network: Network) -> Self {
        let core = Core {
            network,
            tier: self.core.tier,
            helper: self.core.helper.clone(),
            instance: self.core.instance.clone(),
            state_dir: self.core.state_dir.clone(),
            groups: self.core.groups.clone(),
        };
        Self {
            core: Arc::new(core),
            capabilities: self.capabilities,
        }
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
    /// When the future is dropped, what was started is stopped again in the background.
    pub async fn start(&self, spec: Spec<'_>) -> Result<Handle, Error> {
        let host_key = tokio::fs::read_to_string(spec.host_key)
            .await
            .map_err(Error::io(format!(
                "read the host key {}",
                spec.host_key.display()
            )))?;
        let plan = self.core.plan(&spec, host_key);
        let (vcpu, mem_mib, id) = (spec.vcpu, spec.mem_mib, spec.id);
        let core = Arc::clone(&self.core);
        let (tell, told) = oneshot::channel();
        tokio::spawn(async move {
            let started = core.start(plan, vcpu, mem_mib).await;
            if let Err(Ok(unwanted)) = tell.send(started) {
                let _ = launch::end(&unwanted).await;
            }
        });
        told.await.unwrap_or_else(|_| {
            Err(Error::Start {
                id,
                step: "the runtime is shutting down".into(),
            })
        })
    }

    /// Whether the VM's first process is still the one that was started.
    pub async fn alive(&self, h: &Handle) -> bool {
        h.lives()
    }

    /// Resolves when the VM's first process is gone, and reaps it. Resolves at once if it is gone already.
    ///
    /// # Cancel safety
    /// Can be dropped and called again.
    pub async fn exited(&self, h: &Handle) {
        match Held::open(h.pid, h.start_time) {
            Ok(Some(held)) if process::boot_id().is_ok_and(|b| b == h.boot_id) => {
                if let Err(e) = held.ended().await {
                    tracing::warn!(vm = %h.id, error = %e, "cannot watch the VM's first process");
                }
            }
            Ok(_) => {}
            Err(e) => {
                tracing::warn!(vm = %h.id, error = %e, "cannot open the VM's first process");
            }
        }
    }

    /// Stops every process of the VM where it is, and returns when all have stopped.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Timeout`] (thawed again).
    ///
    /// # Cancel safety
    /// When the future is dropped the VM may be frozen or not: thaw it.
    pub async fn freeze(&self, h: &Handle) -> Result<(), Error> {
        h.must_live()?;
        match h.groups() {
            Some(groups) => groups.freeze(true).await,
            None => {
                let stopped = process::signal_tree(h.pid, true, SIGNAL_DEADLINE).await;
                if stopped.is_err() {
                    let _ = process::signal_tree(h.pid, false, SIGNAL_DEADLINE).await;
                }
                stopped
            }
        }
    }

    /// Undoes [`Sandboxes::freeze`]. With [`Pause::Signal`], processes that the guest itself had stopped run on too.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Timeout`].
    pub async fn thaw(&self, h: &Handle) -> Result<(), Error> {
        h.must_live()?;
        match h.groups() {
            Some(groups) => groups.freeze(false).await,
            None => process::signal_tree(h.pid, false, SIGNAL_DEADLINE).await,
        }
    }

    /// Kills every process of the VM, frozen or not, waits until they are gone, removes its cgroups. The disk stays.
    /// A VM that is gone already is stopped.
    ///
    /// # Errors
    /// [`Error::Timeout`] when something would not die.
    ///
    /// # Cancel safety
    /// Can be called again.
    pub async fn stop(&self, h: &Handle) -> Result<(), Error> {
        launch::end(h).await
    }

    /// Connects to a service inside the VM.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Refused`], [`Error::Timeout`] (a frozen VM).
    pub async fn dial(&self, h: &Handle, to: Service) -> Result<UnixStream, Error> {
        h.must_live()?;
        let (socket, what) = match to {
            Service::Ssh => (SSH_SOCKET, "the SSH socket".to_owned()),
            Service::Port(port) => (PORT_SOCKET, format!("port {port}")),
        };
        let connect = async {
            // Through a descriptor, because socket paths end at 107 bytes.
            let dir = std::fs::File::open(&h.dir)?;
            let path = format!("/proc/self/fd/{}/{socket}", dir.as_raw_fd());
            let mut stream = UnixStream::connect(path).await?;
            if let Service::Port(port) = to {
                crate::agent::ask_for_port(&mut stream, port).await?;
            }
            Ok(stream)
        };
        match tokio::time::timeout(DIAL_DEADLINE, connect).await {
            Ok(connected) => connected.map_err(|source| Error::Refused {
                id: h.id,
                what,
                source,
            }),
            Err(_) => Err(Error::Timeout {
                what: format!("connecting to {what} of sandbox {}", h.id),
                after: DIAL_DEADLINE,
            }),
        }
    }

    /// Recovery: kills what this instance left running and none of `known` accounts for, and removes its cgroups.
    ///
    /// # Errors
    /// The first one that would not go away.
    pub async fn sweep(&self, known: &[Handle]) -> Result<(), Error> {
        let prefix = launch::argument_prefix(&self.core.instance);
        let mut unknown = Vec::new();
        for (pid, start_time) in process::first_processes(&prefix) {
            let is_known = known
                .iter()
                .any(|h| h.pid == pid && h.start_time == start_time);
            if !is_known {
                let opened = Held::open(pid, start_time);
                let opened = opened.map_err(Error::io(format!("open process {pid}")))?;
                unknown.extend(opened.map(|held| (pid, held)));
            }
        }
        for (pid, held) in &unknown {
            held.kill()
                .map_err(Error::io(format!("kill process {pid}")))?;
        }
        for group in self.core.groups.iter().flat_map(Groups::all) {
            if !known.iter().any(|h| h.cgroup.as_ref() == Some(&group.v2)) {
                group.end().await?;
            }
        }
        for (pid, held) in &unknown {
            tokio::time::timeout(SIGNAL_DEADLINE, held.ended())
                .await
                .map_err(|_| Error::Timeout {
                    what: format!("ending process {pid}"),
                    after: SIGNAL_DEADLINE,
                })?
                .map_err(Error::io(format!("wait for process {pid}")))?;
        }
        // Stays while it has VMs, and is made again for the next one.
        if let Some(groups) = &self.core.groups {
            groups.remove();
        }
        Ok(())
    }
}
