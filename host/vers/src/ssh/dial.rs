//! One attempt at a connection to a VM: TCP, TLS (verified, by the VM's name), SSH (pinned host key), root.
//!
//! Each phase has its time, and all that an attempt has started ends with it: a server that falls silent, talks without
//! end or talks nonsense at any point costs an error.

use std::borrow::Cow;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::OnceLock;
use std::time::Duration;

use russh::client::{self, AuthResult, ChannelOpenHandle, Msg, Session};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, cipher};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::connection::Link;
use super::pins::{First, Pins};
use super::wire::Wire;
use crate::api::VmId;
use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::tls;

/// Each phase of connecting.
const PHASE: Duration = Duration::from_secs(15);
/// A server that says nothing for so long is asked for a sign of life. What follows from silence is decided elsewhere
/// (`keeper.rs`).
pub(super) const KEEPALIVE: Duration = Duration::from_secs(2);
/// russh's own end of patience: only a net below the keeper.
const KEEPALIVE_MISSES: usize = 45;
/// What was sent and is not even acknowledged by the next machine after so long is lost.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

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
    pub(super) fn stop(error: Error) -> Self {
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

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Commands, and small things beside them.
    Commands,
    /// Bulk data: a connection of its own, so that commands do not wait behind it, with a window for long fast lines.
    Bulk,
}

/// What all connections have in common.
pub(super) struct Dialer {
    pub(super) settings: Settings,
    pub(super) pins: Pins,
    tls: tokio_rustls::TlsConnector,
    commands: Arc<client::Config>,
    bulk: Arc<client::Config>,
}

impl Dialer {
    pub(super) fn new(settings: Settings, pins: Pins) -> Result<Self> {
        let tls = tokio_rustls::TlsConnector::from(Arc::new(tls::client_config(settings.tls())?));
        Ok(Self {
            settings,
            pins,
            tls,
            // What a line of 3 Gbit/s and 20 ms holds; russh's own 2 MiB is slower than OpenSSH over distance.
            commands: Arc::new(ssh_config(8 << 20)),
            // 130 MiB/s at 80 ms. What lies unread of it lies in the server and the network, not here.
            bulk: Arc::new(ssh_config(32 << 20)),
        })
    }

    /// One attempt to get as far as a VM's TLS. Cancel-safe.
    pub(super) async fn edge(&self, vm: VmId) -> Result<TlsStream<TcpStream>, DialError> {
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
        tls.map_err(|e| {
            if tls::is_certificate_error(&e) {
                DialError::stop(Error::new(
                    Kind::Denied,
                    format!("connect to VM {vm}: the certificate of {host} is not trusted ({e}); name the file of its authority in VERS_TLS_CA"),
                ))
            } else {
                again(format!("TLS with {host}: {e}"))
            }
        })
    }

    /// One attempt. Cancel-safe: nothing of it stays behind.
    pub(super) async fn dial(
        &self,
        vm: VmId,
        key: Arc<PrivateKey>,
        purpose: Purpose,
    ) -> Result<Link, DialError> {
        let tls = self.edge(vm).await?;
        let again = |what: String| DialError::again(vm, what);
        let late = |phase: &str| {
            DialError::again(vm, format!("{phase} took more than {} s", PHASE.as_secs()))
        };

        let closed = CancellationToken::new();
        // russh's session is a task: this ends it if we get no further.
        let guard = closed.clone().drop_guard();
        let wire = Wire::new(tls, closed.clone());
        let pulse = wire.pulse().clone();
        let seen = Arc::new(OnceLock::new());
        let handler = Handler {
            vm,
            pins: self.pins.clone(),
            seen: seen.clone(),
            _closed: closed.clone().drop_guard(),
        };
        let config = match purpose {
            Purpose::Commands => &self.commands,
            Purpose::Bulk => &self.bulk,
        };
        let handshake = client::connect_stream(config.clone(), wire, handler);
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
        // russh tells of a connection that breaks meanwhile as of a refusal that leaves no method; a server leaves some.
        if matches!(&login, AuthResult::Failure { remaining_methods, .. } if remaining_methods.is_empty())
        {
            return Err(again("the connection broke during the SSH login".into()));
        }
        if !login.success() {
            let line = format!(
                "connect to VM {vm}: it does not accept the SSH key that the platform gave for it; was it restored just now? try again"
            );
            return Err(DialError {
                error: Error::new(Kind::Unauthorized, line),
                then: Then::NewKey,
            });
        }
        let mut first = First::No;
        if let Some(key) = seen.get() {
            first = self
                .pins
                .learn(vm, PublicKey::clone(key))
                .await
                .map_err(DialError::stop)?;
        }
        guard.disarm();
        Ok(Link::new(vm, handle, closed, pulse, first))
    }
}

fn ssh_config(window: u32) -> client::Config {
    let mut config = client::Config {
        window_size: window,
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
    config.preferred.cipher = Cow::Borrowed(&[
        cipher::AES_256_GCM,
        cipher::AES_128_GCM,
        cipher::CHACHA20_POLY1305,
    ]);
    config
}

/// russh sets this only on connections that it makes itself.
fn tune(tcp: &TcpStream) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    #[cfg(target_os = "linux")]
    {
        let most = u32::try_from(UNACKNOWLEDGED.as_millis()).unwrap_or(u32::MAX);
        rustix::net::sockopt::set_tcp_user_timeout(tcp, most)?;
    }
    Ok(())
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
