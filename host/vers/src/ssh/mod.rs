//! Commands and files on VMs, over SSH inside TLS.
//!
//! # The way there
//!
//! TCP to `<vm>.<domain>:443`, TLS with a verified certificate of that name, SSH as root inside it, with the key that
//! the platform gives for the VM (kept in memory only) and a host key that is pinned on first use. No program of this
//! machine is needed. One set of connections for each VM is shared by all clones of an [`Ssh`]; they are opened as
//! commands need them, and again after a loss.
//!
//! # How a command runs
//!
//! The exec request is one fixed text: "read a line and evaluate it". The line comes over the channel's input and
//! carries what the caller gave, correctly quoted; so nothing of it is in an argument vector of the VM's sshd or shell,
//! and its length is not limited by the system's limit for arguments (`command.rs`). The program then replaces that
//! shell: exit codes and signals are the program's own.
//!
//! # How a command ends
//!
//! sshd lets commands run on when their channel or connection goes, and ignores requests to signal root's processes.
//! What stops them is a small shell on the VM, one for each connection (`control.sh`), which is told of each command
//! before it starts. It signals and stops process groups on request; and when its input ends, because this process
//! asks for it, dies, or loses the connection, it stops everything that it still watches: `TERM`, some grace, `KILL`,
//! and a search for what left its group. The alternative, a watcher beside each command, costs each command two
//! processes more, takes its standard input or a second channel, and turns signals into exit codes.
//!
//! What a command leaves in the background when it ends by itself is left alone.
//!
//! # What is not covered
//!
//! A connection that dies without either side's network telling is noticed here after some seconds (`keeper.rs`); on the
//! VM, sshd's own settings decide when. A process that both leaves its group and clears its environment is not found.

mod child;
mod command;
mod connection;
mod control;
mod dial;
mod edge;
mod files;
mod follow;
mod forward;
mod keeper;
mod lease;
mod machine;
mod output;
mod pins;
mod pool;
mod runner;
mod sftp;
mod start;
mod tunnel;
mod wire;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use self::child::{Child, Stdin, StopReport};
pub use self::command::{Command, EnvValue, Exit, Program, Signal};
pub(crate) use self::dial::Purpose;
pub use self::edge::Edge;
pub use self::files::{FileKind, Files, Metadata, WriteOptions};
pub(crate) use self::files::{checked, temporary_name};
pub use self::follow::{Follow, Followed, Position};
pub use self::forward::Forward;
pub use self::output::Output;
pub use self::tunnel::Tunnel;

use tokio_util::sync::CancellationToken;

use self::dial::Dialer;
use self::machine::Machine;
use self::pins::Pins;
use crate::api::{Api, VmId};
use crate::error::{Error, Result};

/// How to connect.
#[derive(Debug, Clone)]
pub struct SshOptions {
    /// The file that remembers VMs' host keys; `None` remembers them for the life of the [`Ssh`] only.
    pub known_hosts: Option<PathBuf>,
    /// How long calls other than [`Ssh::connect`] wait for a VM that boots or cannot be reached, and for a place for
    /// a command while too many run.
    pub patience: Duration,
    /// How long a process group has between `TERM` and `KILL`, where the caller does not say.
    pub grace: Duration,
    /// How long a VM's connection is kept when nothing uses it; `Duration::MAX`: for ever. Further connections, which
    /// many commands at once, tunnels and bulk data make, are kept for half a minute at most.
    pub idle: Duration,
}

impl Default for SshOptions {
    /// No file, 30 seconds of patience, half a second of grace, five minutes of idleness.
    fn default() -> Self {
        Self {
            known_hosts: None,
            patience: Duration::from_secs(30),
            grace: Duration::from_millis(500),
            idle: Duration::from_secs(5 * 60),
        }
    }
}

/// Commands and files on VMs. Cheap to clone; all clones share one set of connections for each VM. When the last
/// clone, [`Child`] and [`Files`] are gone, what still runs is stopped and the connections are closed.
#[derive(Clone)]
pub struct Ssh {
    shared: Arc<Shared>,
}

struct Shared {
    api: Api,
    options: SshOptions,
    dialer: Arc<Dialer>,
    machines: Mutex<HashMap<VmId, Arc<Machine>>>,
}

impl std::fmt::Debug for Ssh {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ssh")
            .field("options", &self.shared.options)
            .finish_non_exhaustive()
    }
}

impl Ssh {
    /// Connects nowhere yet.
    ///
    /// # Errors
    /// [`Kind::Invalid`](crate::Kind) if the file of extra certificates cannot be used.
    pub fn new(api: Api, options: SshOptions) -> Result<Self> {
        let dialer = Arc::new(Dialer::new(
            api.settings().clone(),
            Pins::new(options.known_hosts.clone()),
        )?);
        Ok(Self {
            shared: Arc::new(Shared {
                api,
                options,
                dialer,
                machines: Mutex::default(),
            }),
        })
    }

    fn machines(&self) -> MutexGuard<'_, HashMap<VmId, Arc<Machine>>> {
        self.shared
            .machines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn machine(&self, vm: VmId) -> Arc<Machine> {
        let shared = &self.shared;
        let new = || {
            Arc::new(Machine::new(
                vm,
                shared.api.clone(),
                shared.dialer.clone(),
                shared.options.clone(),
            ))
        };
        self.machines().entry(vm).or_insert_with(new).clone()
    }

    fn patience(&self) -> Duration {
        self.shared.options.patience
    }

    /// Opens a connection now, if there is none that answers, waiting for the VM to answer at most this long. Cancel-safe.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::Kind) if the VM is paused. `Denied` if its certificate or host key is not the right
    /// one, `Unauthorized` if it does not accept its key, `NotFound` if there is no such VM: all of these at once.
    /// `Unavailable` if it did not answer in time.
    pub async fn connect(&self, vm: VmId, patience: Duration) -> Result<()> {
        self.machine(vm).connect(patience).await
    }

    /// Stops what runs over a VM's connections and closes them. Returns when the VM has confirmed that, or after some
    /// seconds.
    pub async fn disconnect(&self, vm: VmId) {
        let machine = self.machines().remove(&vm);
        if let Some(machine) = machine {
            machine.close().await;
        }
    }

    /// Closes a VM's connections without waiting for the VM, which cannot answer: it is paused, or gone.
    pub async fn abandon(&self, vm: VmId) {
        let machine = self.machines().remove(&vm);
        if let Some(machine) = machine {
            machine.abandon();
        }
    }

    /// A connection to a VM's SSH server for a program that speaks SSH itself, and has to check the VM's
    /// [host key](Self::host_key) then. One attempt, of half a minute at most; it is not among the shared ones. Cancel-safe.
    ///
    /// # Errors
    /// [`Kind::Denied`](crate::Kind) if the certificate is not trusted, `Unavailable` if the platform cannot be reached.
    pub async fn edge(&self, vm: VmId) -> Result<Edge> {
        let edge = self.shared.dialer.edge(vm).await;
        edge.map(Edge::new).map_err(|failed| failed.error)
    }

    /// The host key that is pinned for a VM, as `algorithm base64`; connects first, with the patience of the options, where
    /// none is.
    ///
    /// # Errors
    /// Those of [`Ssh::connect`], and when the file of host keys cannot be read.
    pub async fn host_key(&self, vm: VmId) -> Result<String> {
        let pins = &self.shared.dialer.pins;
        let mut pinned = pins.pinned(vm).await?;
        if pinned.is_none() {
            self.connect(vm, self.patience()).await?;
            pinned = pins.pinned(vm).await?;
        }
        let line = pinned.and_then(|mut key| {
            key.set_comment("");
            key.to_openssh().ok()
        });
        let line = line.ok_or_else(|| {
            Error::other(format!(
                "VM {vm} has shown no host key that can be written down"
            ))
        })?;
        Ok(line.trim_end().to_owned())
    }

    /// Whether a connection of this VM is open, as far as is known.
    pub fn is_connected(&self, vm: VmId) -> bool {
        self.machines()
            .get(&vm)
            .is_some_and(|machine| machine.is_connected())
    }

    /// Starts a command; connects first if need be. Returns when it has started. Cancel-safe: a command whose start is
    /// given up is stopped.
    ///
    /// # Errors
    /// Those of [`Ssh::connect`]. [`Kind::NotFound`](crate::Kind) if there is no directory of that name; `Limit` if forty
    /// commands run and none ends in time. A program that does not exist is no error: its exit code is 127.
    pub async fn spawn(&self, vm: VmId, command: Command) -> Result<Child> {
        self.spawn_until(vm, command, &CancellationToken::new())
            .await
    }

    /// Like [`Ssh::spawn`], for a caller who must know that nothing is left: once `given_up` is cancelled, returns
    /// [`Kind::Cancelled`](crate::Kind) when a command that was being started is gone (at the latest a second after the
    /// grace of the options, for a VM that does not answer). Dropped instead, the command is stopped in the background.
    ///
    /// # Errors
    /// Those of [`Ssh::spawn`], and `Cancelled`.
    pub async fn spawn_until(
        &self,
        vm: VmId,
        command: Command,
        given_up: &CancellationToken,
    ) -> Result<Child> {
        let (machine, options) = (self.machine(vm), &self.shared.options);
        child::spawn(&machine, Purpose::Commands, &command, options, given_up).await
    }

    /// Like [`Ssh::spawn`], on a connection for this purpose.
    pub(crate) async fn spawn_for(
        &self,
        purpose: Purpose,
        vm: VmId,
        command: Command,
    ) -> Result<Child> {
        let (machine, options) = (self.machine(vm), &self.shared.options);
        child::spawn(
            &machine,
            purpose,
            &command,
            options,
            &CancellationToken::new(),
        )
        .await
    }

    /// The lines of a file that grows on a VM, each exactly once and in order, whatever happens to the connection. A
    /// relative path begins at root's home directory; a file that does not exist yet is waited for. Returns at once; takes
    /// the place of a command (see [`Ssh::spawn`]).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn follow(&self, vm: VmId, path: impl Into<String>, start: Position) -> Follow {
        follow::start(
            self.machine(vm),
            &self.shared.options,
            vm,
            path.into(),
            start,
        )
    }

    /// The files of a VM. Connects when they are used.
    pub fn files(&self, vm: VmId) -> Files {
        Files::new(self.clone(), vm)
    }

    /// Forwards a port of this machine's loopback interface (`None`: a free one) to a port of the VM's. Connects first if
    /// need be. Cancel-safe.
    ///
    /// # Errors
    /// Those of [`Ssh::connect`], with the patience of the options. [`Kind::Conflict`](crate::Kind) if somebody listens on
    /// the local port, `Denied` if this user may not. That nothing listens on the VM is no error: it may later.
    pub async fn forward_port(&self, vm: VmId, remote: u16, local: Option<u16>) -> Result<Forward> {
        forward::start(self.machine(vm), vm, remote, local, self.patience()).await
    }

    /// A connection from the VM to a port that it reaches, for example `localhost`.
    pub async fn forward(&self, vm: VmId, host: &str, port: u16) -> Result<Tunnel> {
        let connection = self
            .machine(vm)
            .tunnels(self.shared.options.patience)
            .await?;
        let channel = connection.link().open_tcp(host, port).await?;
        Ok(Tunnel::new(channel, connection.link().closed().clone()).holding(connection))
    }
}
