//! One SSH connection to a VM, and one command on it.
//!
//! A connection each: over a local socket it costs a millisecond, and then no command can stall or end another.

use super::command::Command;
use super::ring::{Ring, Stream};
use crate::keys;
use crate::manager::{Fault, Manager};
use crate::sandbox::Service;
use bytes::Bytes;
use russh::client::{self, Handle};
use russh::keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Disconnect, Sig};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const CONNECT: Duration = Duration::from_secs(15);
const GOODBYE: Duration = Duration::from_secs(2);
const AFTER_EXIT: Duration = Duration::from_millis(250);

/// Accepts the VM's own host key and no other.
pub(super) struct Trust(PublicKey);

impl client::Handler for Trust {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(
            matches!(key, PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.0.key_data()),
        )
    }
}

fn failed(vm: Uuid, what: &str) -> impl FnOnce(russh::Error) -> Fault {
    let what = format!("cannot {what} in VM {vm}");
    move |e| Fault::Internal(format!("{what}: {e}"))
}

/// Logs in as root.
pub(super) async fn connect(manager: &Manager, vm: Uuid) -> Result<Handle<Trust>, Fault> {
    let dir = manager.vm_dir(vm);
    let connecting = async {
        let stream = manager.dial(vm, Service::Ssh).await?;
        let keys = tokio::task::spawn_blocking(move || {
            Ok::<_, String>((
                keys::read(&dir.join("ssh_key"))?,
                keys::read(&dir.join("host_key"))?,
            ))
        });
        let (key, host) = keys
            .await
            .map_err(|e| Fault::Internal(e.to_string()))?
            .map_err(Fault::Internal)?;
        let config = client::Config {
            nodelay: false,
            ..client::Config::default()
        };
        let trust = Trust(host.public_key().clone());
        let mut session = client::connect_stream(Arc::new(config), stream, trust)
            .await
            .map_err(failed(vm, "open an SSH session"))?;
        let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
        let auth = session
            .authenticate_publickey("root", key)
            .await
            .map_err(failed(vm, "log in"))?;
        if !auth.success() {
            return Err(Fault::Internal(format!(
                "VM {vm} does not accept its own SSH key"
            )));
        }
        Ok(session)
    };
    match tokio::time::timeout(CONNECT, connecting).await {
        Ok(result) => result,
        Err(_) => Err(Fault::Internal(format!(
            "the SSH server of VM {vm} did not answer within {} s",
            CONNECT.as_secs()
        ))),
    }
}

pub(super) async fn open(session: &Handle<Trust>, vm: Uuid) -> Result<Channel<client::Msg>, Fault> {
    session
        .channel_open_session()
        .await
        .map_err(failed(vm, "open an SSH channel"))
}

/// Runs a command to its end, its time limit, or `cancel`, and records everything in `ring`.
pub(super) async fn run(
    manager: &Manager,
    vm: Uuid,
    command: Command,
    ring: &Ring,
    log: impl Fn(Stream, &Bytes),
    cancel: &CancellationToken,
) {
    let opened = async {
        let session = connect(manager, vm).await?;
        let channel = open(&session, vm).await?;
        channel
            .exec(true, command.line())
            .await
            .map_err(failed(vm, "run a command"))?;
        Ok::<_, Fault>((session, channel))
    };
    let (session, channel) = tokio::select! {
        () = cancel.cancelled() => return ring.fail("cancelled", "the command was cancelled before it started".into()),
        opened = opened => match opened {
            Ok(opened) => opened,
            Err(e) => return ring.fail("not_started", e.to_string()),
        },
    };
    let (mut read, write) = channel.split();
    let timeout = async {
        match command.timeout {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let finished = tokio::select! {
        code = transfer(&mut read, &write, command.stdin, ring, log) => Ok(code),
        () = timeout => Err(true),
        () = cancel.cancelled() => Err(false),
    };
    if finished.is_err() {
        // Bounded: a frozen VM does not answer, and closing the connection says the same.
        let _ = tokio::time::timeout(GOODBYE, async {
            let _ = write.signal(Sig::KILL).await;
            let _ = write.close().await;
            while read.wait().await.is_some() {}
        })
        .await;
    }
    let _ = tokio::time::timeout(
        GOODBYE,
        session.disconnect(Disconnect::ByApplication, "", ""),
    )
    .await;
    match finished {
        Ok(Some(code)) => ring.exit(code, false),
        Ok(None) => ring.fail(
            "connection_lost",
            format!("VM {vm} went away before the command ended"),
        ),
        // As timeout(1) does.
        Err(true) => ring.exit(124, true),
        Err(false) => ring.fail("cancelled", "the command was cancelled".into()),
    }
}

async fn transfer(
    read: &mut ChannelReadHalf,
    write: &ChannelWriteHalf<client::Msg>,
    stdin: Option<String>,
    ring: &Ring,
    log: impl Fn(Stream, &Bytes),
) -> Option<i32> {
    let feed = async {
        // A command that does not read its input may be gone already.
        if let Some(text) = stdin {
            let _ = write.data_bytes(text.into_bytes()).await;
        }
        let _ = write.eof().await;
        std::future::pending::<()>().await;
    };
    let drain = async {
        let mut code = None;
        loop {
            // The command's own output comes before its exit status. What it left in the background may hold the outputs
            // open for ever, and is not waited for.
            let message = match code {
                None => read.wait().await,
                Some(_) => tokio::time::timeout(AFTER_EXIT, read.wait())
                    .await
                    .unwrap_or_default(),
            };
            let Some(message) = message else { return code };
            match message {
                ChannelMsg::Data { data } => {
                    log(Stream::Stdout, &data);
                    ring.push(Stream::Stdout, data).await;
                }
                ChannelMsg::ExtendedData { data, ext: 1 } => {
                    log(Stream::Stderr, &data);
                    ring.push(Stream::Stderr, data).await;
                }
                ChannelMsg::ExitStatus { exit_status } => {
                    code = Some(i32::try_from(exit_status).unwrap_or(255))
                }
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    code = Some(128 + number(&signal_name))
                }
                // The server refused the request itself.
                ChannelMsg::Failure => return None,
                _ => {}
            }
        }
    };
    tokio::select! {
        code = drain => code,
        () = feed => None,
    }
}

fn number(signal: &Sig) -> i32 {
    match signal {
        Sig::HUP => 1,
        Sig::INT => 2,
        Sig::QUIT => 3,
        Sig::ILL => 4,
        Sig::ABRT => 6,
        Sig::FPE => 8,
        Sig::KILL => 9,
        Sig::USR1 => 10,
        Sig::SEGV => 11,
        Sig::PIPE => 13,
        Sig::ALRM => 14,
        Sig::TERM => 15,
        Sig::Custom(name) => match name.as_str() {
            "TRAP" => 5,
            "BUS" => 7,
            "USR2" => 12,
            "XCPU" => 24,
            "XFSZ" => 25,
            "SYS" => 31,
            // Unknown here: the shell's word for "killed by a signal" without saying which.
            _ => 0,
        },
    }
}
