//! An SSH client for the tests.

use russh::client::{self, Handle};
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKey, PublicKeyOrCertificate};
use russh::{Channel, ChannelMsg, Sig};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;

/// Nothing in these tests takes so long.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct Checker(PublicKey);

impl client::Handler for Checker {
    type Error = russh::Error;

    async fn check_server_key(
        &mut self,
        key: &PublicKeyOrCertificate,
    ) -> Result<bool, russh::Error> {
        Ok(
            matches!(key, PublicKeyOrCertificate::PublicKey { key, .. } if key.key_data() == self.0.key_data()),
        )
    }
}

/// What a command left.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Done {
    pub(crate) out: Vec<u8>,
    pub(crate) err: Vec<u8>,
    pub(crate) status: Option<u32>,
    pub(crate) signal: Option<String>,
}

impl Done {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).trim_end().to_owned()
    }
}

pub(crate) struct Client(pub(crate) Handle<Checker>);

impl Client {
    pub(crate) async fn connect(
        stream: UnixStream,
        host: &PublicKey,
        key: &PrivateKey,
    ) -> Option<Self> {
        let config = client::Config {
            inactivity_timeout: None,
            ..Default::default()
        };
        let mut handle = client::connect_stream(Arc::new(config), stream, Checker(host.clone()))
            .await
            .unwrap();
        let key = PrivateKeyWithHashAlg::new(Arc::new(key.clone()), None);
        let auth = handle.authenticate_publickey("root", key).await.unwrap();
        auth.success().then_some(Self(handle))
    }

    pub(crate) async fn start(&self, command: impl Into<Vec<u8>>) -> Channel<client::Msg> {
        let channel = self.0.channel_open_session().await.unwrap();
        channel.exec(true, command.into()).await.unwrap();
        channel
    }

    /// Runs to the end, with no input.
    pub(crate) async fn run(&self, command: impl Into<Vec<u8>>) -> Done {
        let channel = self.start(command).await;
        channel.eof().await.unwrap();
        finish(channel).await
    }

    /// Runs; must succeed; its output without the last line break.
    pub(crate) async fn text(&self, command: &str) -> String {
        let done = self.run(command).await;
        assert_eq!(done.status, Some(0), "{command}: {done:?}");
        done.text()
    }
}

/// Reads a channel to its close.
pub(crate) async fn finish(mut channel: Channel<client::Msg>) -> Done {
    let mut done = Done::default();
    let read = async {
        while let Some(message) = channel.wait().await {
            match message {
                ChannelMsg::Data { data } => done.out.extend_from_slice(&data),
                ChannelMsg::ExtendedData { data, .. } => done.err.extend_from_slice(&data),
                ChannelMsg::ExitStatus { exit_status } => done.status = Some(exit_status),
                ChannelMsg::ExitSignal { signal_name, .. } => {
                    done.signal = Some(name(&signal_name));
                }
                ChannelMsg::Failure => panic!("the server refused"),
                ChannelMsg::Close => break,
                _ => {}
            }
        }
    };
    tokio::time::timeout(DEADLINE, read)
        .await
        .expect("the command should end");
    done
}

fn name(sig: &Sig) -> String {
    format!("{sig:?}")
}
