//! A bare SSH channel: TCP, TLS, russh, and nothing of this project. The measure of what the project adds.
//!
//! Same cipher, window and certificate check as the project's client.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use russh::client::{self, Handle, Msg, Session};
use russh::keys::{PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, cipher};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;

use crate::Outcome;
use crate::lab::Places;

/// One connection.
pub(crate) struct Bare {
    handle: Handle<Handler>,
    spare: tokio::sync::Mutex<Option<Channel<Msg>>>,
    /// What was agreed on.
    pub(crate) agreed: String,
}

struct Handler {
    pinned: PublicKey,
    agreed: Arc<Mutex<String>>,
}

impl client::Handler for Handler {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, Self::Error> {
        Ok(
            matches!(key, PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.pinned.key_data()),
        )
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        names: &russh::Names,
        _session: &mut Session,
    ) -> Result<(), Self::Error> {
        *self.agreed.lock().unwrap_or_else(PoisonError::into_inner) =
            format!("{}, {}", names.kex.as_ref(), names.cipher.as_ref());
        Ok(())
    }
}

impl Bare {
    /// Connects.
    pub(crate) async fn connect(places: &Places, edge: SocketAddr) -> Outcome<Self> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(places.authority())?)?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tcp = TcpStream::connect(edge).await?;
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from(places.host())?;
        let tls = tokio_rustls::TlsConnector::from(Arc::new(tls))
            .connect(name, tcp)
            .await?;
        let mut config = client::Config {
            window_size: 8 << 20,
            maximum_packet_size: 32 << 10,
            nodelay: true,
            ..Default::default()
        };
        config.preferred.cipher = Cow::Borrowed(&[cipher::AES_256_GCM]);
        let agreed = Arc::new(Mutex::new(String::new()));
        let handler = Handler {
            pinned: russh::keys::load_public_key(places.host_key())?,
            agreed: agreed.clone(),
        };
        let mut handle = client::connect_stream(Arc::new(config), tls, handler).await?;
        let key = Arc::new(russh::keys::load_secret_key(places.key(), None)?);
        let key = PrivateKeyWithHashAlg::new(key, None);
        if !handle.authenticate_publickey("root", key).await?.success() {
            return Err("sshd does not take the key".into());
        }
        let agreed = agreed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Ok(Self {
            handle,
            spare: tokio::sync::Mutex::default(),
            agreed,
        })
    }

    /// A global request and its answer.
    pub(crate) async fn ping(&self) -> Outcome<Duration> {
        let begun = Instant::now();
        self.handle.send_ping().await?;
        Ok(begun.elapsed())
    }

    /// A channel and a command on it: two round trips.
    pub(crate) async fn run(&self, command: &str) -> Outcome<Duration> {
        let begun = Instant::now();
        let channel = self.handle.channel_open_session().await?;
        run_on(channel, command).await?;
        Ok(begun.elapsed())
    }

    /// A command on a channel that was opened before: one round trip. The next is opened after the clock has stopped.
    pub(crate) async fn run_on_spare(&self, command: &str) -> Outcome<Duration> {
        let mut spare = self.spare.lock().await;
        let channel = match spare.take() {
            Some(channel) => channel,
            None => self.handle.channel_open_session().await?,
        };
        let begun = Instant::now();
        run_on(channel, command).await?;
        let took = begun.elapsed();
        *spare = Some(self.handle.channel_open_session().await?);
        Ok(took)
    }

    /// Counts what a command writes.
    pub(crate) async fn drain(&self, command: &str, bytes: u64) -> Outcome<Duration> {
        let begun = Instant::now();
        let channel = self.handle.channel_open_session().await?;
        let seen = run_on(channel, command).await?;
        if seen != bytes {
            return Err(format!("{seen} of {bytes} bytes").into());
        }
        Ok(begun.elapsed())
    }

    /// Feeds a command.
    pub(crate) async fn feed(&self, command: &str, chunk: &Bytes, bytes: u64) -> Outcome<Duration> {
        let begun = Instant::now();
        let mut channel = self.handle.channel_open_session().await?;
        channel.exec(true, command).await?;
        let mut left = bytes;
        while left > 0 {
            let part = chunk.slice(..chunk.len().min(usize::try_from(left)?));
            left -= part.len() as u64;
            channel.data_bytes(part).await?;
        }
        channel.eof().await?;
        ended(&mut channel).await?;
        Ok(begun.elapsed())
    }
}

async fn run_on(mut channel: Channel<Msg>, command: &str) -> Outcome<u64> {
    channel.exec(true, command).await?;
    channel.eof().await?;
    ended(&mut channel).await
}

/// Until the exit status and the end of the output: how much there was of it.
async fn ended(channel: &mut Channel<Msg>) -> Outcome<u64> {
    let (mut seen, mut status, mut eof) = (0, None, false);
    while status.is_none() || !eof {
        match channel.wait().await {
            Some(ChannelMsg::Data { data }) => seen += data.len() as u64,
            Some(ChannelMsg::ExitStatus { exit_status }) => status = Some(exit_status),
            Some(ChannelMsg::Eof) => eof = true,
            Some(ChannelMsg::Close) | None => break,
            Some(_) => {}
        }
    }
    match status {
        Some(0) => Ok(seen),
        other => Err(format!("exit status {other:?}").into()),
    }
}
