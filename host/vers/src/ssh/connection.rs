//! One authenticated SSH connection to a VM: TCP, TLS (verified, by the VM's name), SSH (pinned host key), root.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use russh::client::{self, AuthResult, ChannelOpenHandle, Handle, Msg, Session};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelOpenFailure, Disconnect, cipher};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::pins::Pins;
use crate::api::VmId;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::tls;

/// Each phase of connecting.
const PHASE: Duration = Duration::from_secs(15);
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_MISSES: usize = 3;
/// How long the server may refuse a channel before it is believed.
const REFUSALS: Duration = Duration::from_secs(2);
const OPEN: Duration = Duration::from_secs(30);

/// Why a connection did not come about.
pub(super) struct DialError {
    pub(super) error: Error,
    pub(super) then: Then,
}

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It will not get better.
    Stop,
    /// The VM may be booting.
    TryAgain,
    /// The key was refused: it may be an old one.
    NewKey,
}

impl DialError {
    fn stop(error: Error) -> Self {
        Self {
            error,
            then: Then::Stop,
        }
    }

    fn again(vm: VmId, what: impl Display) -> Self {
        Self {
            error: Error::unavailable(format!("connect to VM {vm}: {what}")),
            then: Then::TryAgain,
        }
    }
}

/// What all connections have in common.
pub(super) struct Dialer {
    pub(super) settings: Settings,
    pub(super) pins: Pins,
    tls: tokio_rustls::TlsConnector,
    ssh: Arc<client::Config>,
}

impl Dialer {
    pub(super) fn new(settings: Settings, pins: Pins) -> Result<Self> {
        let tls = tokio_rustls::TlsConnector::from(Arc::new(tls::client_config(settings.tls())?));
        let mut ssh = client::Config {
            // Twice what a line of 4 Gbit/s and 20 ms holds; russh's own 2 MiB is slower than OpenSSH over distance.
            window_size: 8 << 20,
            maximum_packet_size: 32 << 10,
            // Every channel is drained at all times, so this is only slack.
            channel_buffer_size: 64,
            keepalive_interval: Some(KEEPALIVE),
            keepalive_max: KEEPALIVE_MISSES,
            inactivity_timeout: None,
            nodelay: true,
            ..Default::default()
        };
        // AES in hardware is half the work of ChaCha20, OpenSSH's and russh's first choice.
        ssh.preferred.cipher = Cow::Borrowed(&[
            cipher::AES_256_GCM,
            cipher::AES_128_GCM,
            cipher::CHACHA20_POLY1305,
        ]);
        Ok(Self {
            settings,
            pins,
            tls,
            ssh: Arc::new(ssh),
        })
    }

    /// One attempt.
    pub(super) async fn dial(&self, vm: VmId, key: Arc<PrivateKey>) -> Result<Link, DialError> {
        let host = self.settings.vm_host(vm);
        let again = |what: String| DialError::again(vm, what);
        let late = |phase: &str| {
            DialError::again(vm, format!("{phase} took more than {} s", PHASE.as_secs()))
        };

        let tcp = match self.settings.vm_connect() {
            Some(address) => timeout(PHASE, TcpStream::connect(address)).await,
            None => timeout(PHASE, TcpStream::connect((host.as_str(), 443))).await,
        };
        let tcp = tcp
            .map_err(|_| late("reaching the network address"))?
            .map_err(|e| again(format!("{host}: {e}")))?;
        tune(&tcp).map_err(|e| again(e.to_string()))?;

        let name = ServerName::try_from(host.clone()).map_err(|_| {
            DialError::stop(Error::invalid(format!(
                "connect to VM {vm}: {host} is not a host name; check VERS_VM_DOMAIN"
            )))
        })?;
        let tls = timeout(PHASE, self.tls.connect(name, tcp))
            .await
            .map_err(|_| late("the TLS handshake"))?;
        let tls = tls.map_err(|e| {
            if tls::is_certificate_error(&e) {
                DialError::stop(Error::new(
                    Kind::Denied,
                    format!("connect to VM {vm}: the certificate of {host} is not trusted ({e}); name the file of its authority in VERS_TLS_CA"),
                ))
            } else {
                again(format!("TLS with {host}: {e}"))
            }
        })?;

        let closed = CancellationToken::new();
        let seen = Arc::new(OnceLock::new());
        let handler = Handler {
            vm,
            pins: self.pins.clone(),
            seen: seen.clone(),
            _closed: closed.clone().drop_guard(),
        };
        let handshake = client::connect_stream(self.ssh.clone(), tls, handler);
        let mut handle = match timeout(PHASE, handshake)
            .await
            .map_err(|_| late("the SSH handshake"))?
        {
            Ok(handle) => handle,
            Err(HandlerError::Refused(error)) => return Err(DialError::stop(error)),
            Err(HandlerError::Ssh(error)) => return Err(again(format!("SSH: {error}"))),
        };
        let key = PrivateKeyWithHashAlg::new(key, None);
        let login = timeout(PHASE, handle.authenticate_publickey("root", key))
            .await
            .map_err(|_| late("the SSH login"))?;
        let login = login.map_err(|e| again(format!("SSH login: {e}")))?;
        if !login.success() {
            // russh tells of a connection that breaks meanwhile as of a refusal that leaves no method; a server leaves some.
            if matches!(&login, AuthResult::Failure { remaining_methods, .. } if remaining_methods.is_empty())
            {
                return Err(again("the connection broke during the SSH login".into()));
            }
            let line = format!(
                "connect to VM {vm}: it does not accept the SSH key that the platform gave for it; was it restored just now? try again"
            );
            return Err(DialError {
                error: Error::new(Kind::Unauthorized, line),
                then: Then::NewKey,
            });
        }
        if let Some(key) = seen.get() {
            self.pins
                .learn(vm, PublicKey::clone(key))
                .await
                .map_err(DialError::stop)?;
        }
        Ok(Link { vm, handle, closed })
    }
}

fn tune(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    // While a write waits for a silent peer, no keepalive is counted; this bounds it as tightly.
    #[cfg(target_os = "linux")]
    {
        let most = u32::try_from(KEEPALIVE.as_millis()).unwrap_or(u32::MAX) * 4;
        rustix::net::sockopt::set_tcp_user_timeout(tcp, most)?;
    }
    Ok(())
}

/// The wire: an authenticated SSH session.
pub(super) struct Link {
    pub(super) vm: VmId,
    handle: Handle<Handler>,
    closed: CancellationToken,
}

impl Link {
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

    /// Says goodbye.
    pub(super) async fn disconnect(&self) {
        // The session's queue is short, and it may hang: do not wait for it for long.
        let _ = timeout(
            Duration::from_secs(1),
            self.handle.disconnect(Disconnect::ByApplication, "", "en"),
        )
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

    pub(super) fn lost(&self, what: impl Display) -> Error {
        Error::unavailable(format!(
            "{what} on VM {}: the connection was lost; whether it took effect is unknown",
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

/// The session's callbacks: the host key is checked, and whatever the VM would open towards us is refused.
pub(super) struct Handler {
    vm: VmId,
    pins: Pins,
    seen: Arc<OnceLock<PublicKey>>,
    /// Goes when the session goes.
    _closed: DropGuard,
}

#[derive(Debug)]
pub(super) enum HandlerError {
    Refused(Error),
    Ssh(russh::Error),
}

impl From<russh::Error> for HandlerError {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

/// russh accepts these by default; dropping the reply refuses.
macro_rules! refuse {
    ($($name:ident($($argument:ty),*);)*) => {$(
        async fn $name(
            &mut self,
            _channel: Channel<Msg>,
            $(_: $argument,)*
            reply: ChannelOpenHandle,
            _session: &mut Session,
        ) -> Result<(), HandlerError> {
            drop(reply);
            Ok(())
        }
    )*};
}

impl client::Handler for Handler {
    type Error = HandlerError;

    refuse! {
        server_channel_open_forwarded_tcpip(&str, u32, &str, u32);
        server_channel_open_forwarded_streamlocal(&str);
        server_channel_open_agent_forward();
        server_channel_open_session();
        server_channel_open_direct_tcpip(&str, u32, &str, u32);
        server_channel_open_direct_streamlocal(&str);
        server_channel_open_x11(&str, u32);
    }

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, HandlerError> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = key else {
            return Ok(false);
        };
        self.pins
            .check(self.vm, key)
            .await
            .map_err(HandlerError::Refused)?;
        let _ = self.seen.set(key.clone());
        Ok(true)
    }

    async fn disconnected(
        &mut self,
        reason: client::DisconnectReason<HandlerError>,
    ) -> Result<(), HandlerError> {
        tracing::debug!(vm = %self.vm, ?reason, "SSH connection ended");
        Ok(())
    }
}
