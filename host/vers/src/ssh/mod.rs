//! placeholder docs
mod child;
mod command;
mod files;

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

pub use self::child::{Child, Output, Stdin, StopReport};
pub use self::command::{Command, EnvValue, Exit, Program, Signal};
pub use self::files::{FileKind, Files, Metadata, WriteOptions};
use crate::api::{Api, VmId};
use crate::error::{Error, Result};

/// How to connect.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SshOptions {
    /// The file that remembers VMs' host keys; `None` remembers them for the life of the [`Ssh`] only.
    pub known_hosts: Option<PathBuf>,
    /// How long [`Ssh::spawn`] and the other calls wait for a VM that boots or cannot be reached.
    pub patience: Duration,
    /// How long a process group has between `TERM` and `KILL`, where the caller does not say.
    pub grace: Duration,
}

impl Default for SshOptions {
    fn default() -> Self {
        Self {
            known_hosts: None,
            patience: Duration::from_secs(30),
            grace: Duration::from_millis(500),
        }
    }
}

/// Commands and files on VMs. Cheap to clone; all clones share one set of connections for each VM.
#[derive(Clone)]
pub struct Ssh {
    api: Api,
    options: SshOptions,
}

impl Ssh {
    /// Connects nowhere yet.
    pub fn new(api: Api, options: SshOptions) -> Result<Self> {
        Ok(Self { api, options })
    }

    /// Opens a connection now, waiting for the VM to answer at most this long.
    pub async fn connect(&self, vm: VmId, patience: Duration) -> Result<()> {
        let _ = (&self.api, &self.options, vm, patience);
        Err(Error::other("not built yet"))
    }

    /// Closes the connections of a VM and stops what runs over them.
    pub async fn disconnect(&self, vm: VmId) {
        let _ = vm;
    }

    /// Whether a connection of this VM is open.
    pub fn is_connected(&self, vm: VmId) -> bool {
        let _ = vm;
        false
    }

    /// Starts a command. Returns when it has started.
    pub async fn spawn(&self, vm: VmId, command: Command) -> Result<Child> {
        let _ = (vm, command::frame(&command)?, command::request(""));
        Err(Error::other("not built yet"))
    }

    /// The files of a VM.
    pub fn files(&self, vm: VmId) -> Files {
        Files { _vm: vm }
    }

    /// A connection from the VM to `host:port`.
    pub async fn forward(&self, vm: VmId, host: &str, port: u16) -> Result<Tunnel> {
        let _ = (vm, host, port);
        Err(Error::other("not built yet"))
    }
}

/// A byte stream in both directions through a VM.
pub struct Tunnel {
    io: tokio::io::DuplexStream,
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        std::pin::Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
