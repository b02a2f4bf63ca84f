//! One authenticated SSH session with a VM, and its channels.

use std::fmt::Display;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use russh::client::{Handle, Msg};
use russh::{Channel, ChannelOpenFailure, Disconnect};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::dial::Handler;
use super::pins::First;
use super::wire::Pulse;
use crate::api::VmId;
use crate::error::{Error, Kind, Result};

/// How long the server may refuse a channel before it is believed.
const REFUSALS: Duration = Duration::from_secs(2);
const OPEN: Duration = Duration::from_secs(30);
/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// The wire: an authenticated SSH session.
pub(super) struct Link {
    pub(super) vm: VmId,
    handle: Handle<Handler>,
    closed: CancellationToken,
    pulse: Arc<Pulse>,
    /// Whether its host key is new to us.
    pub(super) first: First,
    /// Why it was given up, if it was.
    why: OnceLock<String>,
}

impl Link {
    pub(super) fn new(
        vm: VmId,
        handle: Handle<Handler>,
        closed: CancellationToken,
        pulse: Arc<Pulse>,
        first: First,
    ) -> Self {
        Self {
            vm,
            handle,
            closed,
            pulse,
            first,
            why: OnceLock::new(),
        }
    }

    /// Its signs of life.
    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Resolves when the session has ended.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled() || self.handle.is_closed()
    }

    /// Gives the connection up, also if the other side is silent.
    pub(super) fn fail(&self) {
        self.closed.cancel();
    }

    /// The same, with a reason for whoever has been using it.
    pub(super) fn fail_because(&self, why: impl Into<String>) {
        let _ = self.why.set(why.into());
        self.fail();
    }

    /// Says goodbye.
    pub(super) async fn disconnect(&self) {
        // The session's queue is short, and it may hang: do not wait for it for long.
        let _ = timeout(GOODBYE, async {
            let said = self
                .handle
                .disconnect(Disconnect::ByApplication, "", "en")
                .await;
            if said.is_ok() {
                self.closed.cancelled().await;
            }
        })
        .await;
        self.closed.cancel();
    }

    /// Whether the other side answers within this time.
    pub(super) async fn ping(&self, patience: Duration) -> bool {
        let answered = timeout(patience, self.handle.send_ping());
        tokio::select! {
            answer = answered => matches!(answer, Ok(Ok(()))) && !self.is_closed(),
            () = self.closed.cancelled() => false,
        }
    }

    /// What happened to something that this connection was lost under.
    pub(super) fn lost(&self, what: impl Display) -> Error {
        let why = self
            .why
            .get()
            .map_or(String::new(), |why| format!(" ({why})"));
        Error::unavailable(format!(
            "{what} on VM {}: the connection was lost{why}; whether it took effect is unknown",
            self.vm
        ))
    }

    /// Opens a session channel. sshd frees a slot later than its user sees the channel closed: a refusal is tried again
    /// for a while, and then says that the server's limit is reached ([`Kind::Limit`]).
    pub(super) async fn open_session(&self) -> Result<Channel<Msg>> {
        let give_up = Instant::now() + REFUSALS;
        let mut delay = Duration::from_millis(1);
        loop {
            match self.open(self.handle.channel_open_session()).await? {
                Ok(channel) => return Ok(channel),
                Err(refusal) if Instant::now() >= give_up => {
                    return Err(Error::new(
                        Kind::Limit,
                        format!(
                            "open a session on VM {}: its SSH server refuses ({refusal:?}); stop some commands first",
                            self.vm
                        ),
                    ));
                }
                Err(_) => {
                    tokio::time::sleep(delay).await;
                    delay = (delay * 2).min(Duration::from_millis(250));
                }
            }
        }
    }

    /// The first channel of a connection. sshd holds its answer back for the 40 ms of a delayed acknowledgement; any
    /// packet of ours carries that acknowledgement.
    pub(super) async fn open_first_session(&self) -> Result<Channel<Msg>> {
        let nudge = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(1)).await;
                let _ = self.handle.send_keepalive(true).await;
            }
            std::future::pending::<()>().await
        };
        tokio::select! {
            channel = self.open_session() => channel,
            () = nudge => Err(self.lost("open a session")),
        }
    }

    /// A channel to a port that the VM reaches.
    pub(super) async fn open_tcp(&self, host: &str, port: u16) -> Result<Channel<Msg>> {
        let opening = self
            .handle
            .channel_open_direct_tcpip(host, u32::from(port), "127.0.0.1", 0);
        self.open(opening).await?.map_err(|refusal| {
            let why = match refusal {
                ChannelOpenFailure::ConnectFailed => "nothing answers there",
                ChannelOpenFailure::AdministrativelyProhibited => "its SSH server forbids it",
                _ => "its SSH server refuses",
            };
            Error::unavailable(format!(
                "forward to {}:{port} on VM {}: {why}",
                crate::error::shown(host),
                self.vm
            ))
        })
    }

    async fn open(
        &self,
        opening: impl Future<Output = Result<Channel<Msg>, russh::Error>>,
    ) -> Result<Result<Channel<Msg>, ChannelOpenFailure>> {
        let what = "open a channel";
        tokio::select! {
            opened = timeout(OPEN, opening) => match opened {
                Ok(Ok(channel)) => Ok(Ok(channel)),
                Ok(Err(russh::Error::ChannelOpenFailure(refusal))) => Ok(Err(refusal)),
                Ok(Err(_)) => Err(self.lost(what)),
                Err(_) => {
                    self.fail();
                    Err(self.lost(what))
                }
            },
            () = self.closed.cancelled() => Err(self.lost(what)),
        }
    }
}
