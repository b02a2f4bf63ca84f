//! The agent: an SSH server that runs inside a sandbox, as its process 2.
//!
//! It is inside, and not beside the sandbox, so that a paused VM's SSH is paused too, that what it starts is born in the
//! right namespaces and cgroup, that forwarding dials in the right network, and that the server outside parses no guest's
//! bytes. It listens on Unix sockets that live in the VM's directory on the host; they outlast the server, so adopting a
//! VM is dialling it again.
//!
//! One thread serves everything; what may block (SFTP's file work, spilled input) goes to tokio's blocking threads.

mod command;
mod input;
mod ports;
mod pty;
mod server;
mod sftp;
mod signals;

pub(crate) use ports::ask_for_port;

use russh::keys::{PrivateKey, PublicKey};
use std::ffi::OsString;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

/// What the agent needs to know.
#[derive(Clone)]
pub(crate) struct Config {
    host_key: PrivateKey,
    authorized: PublicKey,
    env: Arc<Vec<(OsString, OsString)>>,
}

impl Config {
    /// Takes OpenSSH texts, and variables that every command gets.
    pub(crate) fn new(
        host_key: &str,
        authorized_key: &str,
        env: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, russh::keys::ssh_key::Error> {
        Ok(Self {
            host_key: PrivateKey::from_openssh(host_key)?,
            authorized: PublicKey::from_openssh(authorized_key)?,
            env: Arc::new(env.map(|(k, v)| (k.into(), v.into())).collect()),
        })
    }
}

/// Serves until something is wrong with the listeners.
///
/// # Errors
/// No runtime, or a listener that cannot accept any more.
pub(crate) fn run(
    config: &Config,
    ssh: &UnixListener,
    ports: &UnixListener,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let ssh = listener(ssh)?;
        let ports = listener(ports)?;
        tokio::select! {
            ended = server::serve(config.clone(), ssh) => ended,
            ended = ports::serve(ports) => ended,
        }
    })
}

fn listener(l: &UnixListener) -> std::io::Result<tokio::net::UnixListener> {
    let l = l.try_clone()?;
    l.set_nonblocking(true)?;
    tokio::net::UnixListener::from_std(l)
}
