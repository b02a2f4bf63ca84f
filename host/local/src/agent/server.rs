//! The SSH side: who may log in, and what a channel may ask for.

use super::Config;
use super::command::Start;
use super::input::Input;
use super::pty::{self, Master};
use super::{sftp, signals};
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, MethodKind, MethodSet, Pty, Sig};
use rustix::process::Pid;
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::{Notify, Semaphore};

/// Connections at a time.
const MOST_CONNECTIONS: usize = 256;
/// Channels at a time, per connection.
const MOST_CHANNELS: usize = 1024;
/// Variables and bytes of them that a channel may ask for.
const MOST_ENV: usize = 1024;
const MOST_ENV_BYTES: usize = 1 << 20;
/// Bytes of a connection that wait to be understood.
const READ_AHEAD: usize = 64 << 20;
/// For logging in.
const LOGIN_DEADLINE: Duration = Duration::from_secs(120);
const DIAL_DEADLINE: Duration = Duration::from_secs(30);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn serve(config: Config, listener: UnixListener) -> io::Result<()> {
    let ssh = Arc::new(russh::server::Config {
        server_id: russh::SshId::Standard(
            concat!("SSH-2.0-vers_local_", env!("CARGO_PKG_VERSION")).into(),
        ),
        keys: vec![config.host_key.clone()],
        methods: MethodSet::from(&[MethodKind::PublicKey][..]),
        auth_rejection_time: Duration::from_millis(300),
        auth_rejection_time_initial: Some(Duration::ZERO),
        inactivity_timeout: None,
        channel_buffer_size: 32,
        event_buffer_size: 64,
        ..Default::default()
    });
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return Ok(());
        };
        let (stream, _) = accept(&listener).await?;
        let (ssh, config) = (Arc::clone(&ssh), config.clone());
        tokio::spawn(async move {
            connection(ssh, config, stream).await;
            drop(place);
        });
    }
}

/// Accepts; rides out a moment without descriptors.
pub(super) async fn accept(
    listener: &UnixListener,
) -> io::Result<(UnixStream, tokio::net::unix::SocketAddr)> {
    loop {
        match listener.accept().await {
            Ok(accepted) => return Ok(accepted),
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS)
                ) =>
            {
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(e) => return Err(e),
        }
    }
}

async fn connection(ssh: Arc<russh::server::Config>, config: Config, stream: UnixStream) {
    let logged_in = Arc::new(Notify::new());
    let client = Client {
        config,
        table: Table::default(),
        logged_in: Arc::clone(&logged_in),
    };
    // russh writes without reading meanwhile. If the client does so too, both wait for ever with full sockets. So what
    // comes is always taken: it is bounded by the windows that we gave, and by READ_AHEAD for clients that ignore them.
    let (mut from, to) = stream.into_split();
    let (ahead, mut taken) = tokio::io::simplex(READ_AHEAD);
    let reading = async move {
        let _ = tokio::io::copy(&mut from, &mut taken).await;
        let _ = taken.shutdown().await;
    };
    let serving = session(ssh, tokio::io::join(ahead, to), client, logged_in);
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => return,
        () = reading => {}
    }
    serving.await;
}

/// Serves one connection to its end.
async fn session<S>(
    ssh: Arc<russh::server::Config>,
    stream: S,
    client: Client,
    logged_in: Arc<Notify>,
) where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let start = russh::server::run_stream(ssh, stream, client);
    // A client that says nothing does not even get a session.
    let Ok(Ok(mut session)) = tokio::time::timeout(LOGIN_DEADLINE, start).await else {
        return;
    };
    let login = tokio::time::timeout(LOGIN_DEADLINE, logged_in.notified());
    tokio::select! {
        _ = &mut session => return,
        login = login => if login.is_err() {
            session.shutdown();
        }
    }
    let _ = session.await;
}

trait Shutdown {
    fn shutdown(&self);
}

impl<H: Handler> Shutdown for russh::server::RunningSession<H> {
    fn shutdown(&self) {
        let handle = self.handle();
        tokio::spawn(async move {
            let _ = handle
                .disconnect(
                    russh::Disconnect::ByApplication,
                    "no login in time".into(),
                    String::new(),
                )
                .await;
        });
    }
}

/// A command that runs on a channel.
pub(super) struct Running {
    /// Its process group, while its leader lives.
    pub(super) group: Option<Pid>,
    pub(super) terminal: Option<Master>,
}

/// A session channel.
enum State {
    /// Opened; collects what its command will get.
    Open {
        channel: Box<Channel<Msg>>,
        env: Vec<(OsString, OsString)>,
        terminal: Option<pty::Request>,
    },
    Running(Running),
}

/// The channels of one connection, shared with the tasks that serve them.
#[derive(Clone, Default)]
pub(super) struct Table(Arc<Mutex<HashMap<ChannelId, State>>>);

impl Table {
    fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `false` when there are too many.
    fn open(&self, channel: Channel<Msg>) -> bool {
        let mut map = self.lock();
        let room = map.len() < MOST_CHANNELS;
        if room {
            let id = channel.id();
            let state = State::Open {
                channel: Box::new(channel),
                env: Vec::new(),
                terminal: None,
            };
            map.insert(id, state);
        }
        room
    }

    pub(super) fn running(&self, id: ChannelId, running: Running) {
        self.lock().insert(id, State::Running(running));
    }

    /// The leader was reaped: its number may be another's soon.
    pub(super) fn ended(&self, id: ChannelId) {
        if let Some(State::Running(r)) = self.lock().get_mut(&id) {
            r.group = None;
        }
    }

    pub(super) fn hang_up(&self, id: ChannelId) {
        if let Some(State::Running(r)) = self.lock().get_mut(&id) {
            r.terminal = None;
        }
    }

    pub(super) fn forget(&self, id: ChannelId) {
        self.lock().remove(&id);
    }

    /// Takes an open channel to start something on it; a channel runs one thing.
    fn take(&self, id: ChannelId) -> Option<(Channel<Msg>, Start)> {
        let mut map = self.lock();
        match map.remove(&id)? {
            State::Open {
                channel,
                env,
                terminal,
            } => {
                let start = Start {
                    command: None,
                    env,
                    terminal,
                };
                Some((*channel, start))
            }
            running => {
                map.insert(id, running);
                None
            }
        }
    }
}

struct Client {
    config: Config,
    table: Table,
    logged_in: Arc<Notify>,
}

impl Client {
    /// The comment of a key is not part of it.
    fn may(&self, user: &str, key: &russh::keys::PublicKey) -> Auth {
        if user == "root" && key.key_data() == self.config.authorized.key_data() {
            Auth::Accept
        } else {
            Auth::reject()
        }
    }

    fn start(
        &self,
        id: ChannelId,
        command: Option<&[u8]>,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        let Some((channel, mut start)) = self.table.take(id) else {
            return session.channel_failure(id);
        };
        start.command = command.map(<[u8]>::to_vec);
        match start.spawn(
            &self.config.env,
            channel,
            session.handle(),
            self.table.clone(),
        ) {
            Ok(()) => session.channel_success(id),
            Err(e) => {
                tracing::warn!(error = %e, "cannot start a command");
                session.channel_failure(id)
            }
        }
    }
}

impl Handler for Client {
    type Error = russh::Error;

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.may(user, offer.public_key))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, Self::Error> {
        Ok(self.may(user, key.public_key))
    }

    async fn auth_succeeded(&mut self, _: &mut Session) -> Result<(), Self::Error> {
        self.logged_in.notify_one();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if self.table.open(channel) {
            reply.accept().await;
        } else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
        }
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let Ok(port) = u16::try_from(port) else {
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            return Ok(());
        };
        let host = host.to_owned();
        // Beside the session: a slow name server must not hold up other channels.
        tokio::spawn(async move {
            let dial = TcpStream::connect((host.as_str(), port));
            match tokio::time::timeout(DIAL_DEADLINE, dial).await {
                Ok(Ok(stream)) => {
                    reply.accept().await;
                    forward(channel, stream).await;
                }
                _ => reply.reject(ChannelOpenFailure::ConnectFailed).await,
            }
        });
        Ok(())
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let valid = !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0');
        let taken = match self.table.lock().get_mut(&id) {
            Some(State::Open { env, .. }) if valid && env.len() < MOST_ENV => {
                let held: usize = env.iter().map(|(k, v)| k.len() + v.len()).sum();
                let fits = held + name.len() + value.len() <= MOST_ENV_BYTES;
                if fits {
                    env.push((name.into(), value.into()));
                }
                fits
            }
            _ => false,
        };
        if taken {
            session.channel_success(id)
        } else {
            session.channel_failure(id)
        }
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        term: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        let taken = match self.table.lock().get_mut(&id) {
            Some(State::Open { terminal, .. }) if !term.contains('\0') => {
                *terminal = Some(pty::Request {
                    term: term.to_owned(),
                    size: pty::size(columns, rows, width, height),
                    modes: modes.to_vec(),
                });
                true
            }
            _ => false,
        };
        if taken {
            session.channel_success(id)
        } else {
            session.channel_failure(id)
        }
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        let size = pty::size(columns, rows, width, height);
        match self.table.lock().get_mut(&id) {
            Some(State::Running(Running {
                terminal: Some(terminal),
                ..
            })) => terminal.resize(size),
            Some(State::Open {
                terminal: Some(terminal),
                ..
            }) => terminal.size = size,
            _ => {}
        }
        Ok(())
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        self.start(id, None, session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if command.contains(&0) {
            return session.channel_failure(id);
        }
        self.start(id, Some(command), session)
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), Self::Error> {
        if name != "sftp" {
            return session.channel_failure(id);
        }
        let Some((channel, _)) = self.table.take(id) else {
            return session.channel_failure(id);
        };
        self.table.running(
            id,
            Running {
                group: None,
                terminal: None,
            },
        );
        let (handle, table) = (session.handle(), self.table.clone());
        tokio::spawn(async move {
            sftp::serve(channel, &handle).await;
            table.forget(id);
        });
        session.channel_success(id)
    }

    async fn signal(
        &mut self,
        id: ChannelId,
        signal: Sig,
        _: &mut Session,
    ) -> Result<(), Self::Error> {
        if let Some(State::Running(Running {
            group: Some(group), ..
        })) = self.table.lock().get(&id)
            && let Some(signal) = signals::from_ssh(&signal)
        {
            // It may have ended in this instant.
            let _ = rustix::process::kill_process_group(*group, signal);
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Self::Error> {
        let mut map = self.table.lock();
        if matches!(map.get(&id), Some(State::Open { .. })) {
            map.remove(&id);
        }
        Ok(())
    }
}

/// Bytes both ways between a channel and a connection.
async fn forward(channel: Channel<Msg>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let (mut from, to) = stream.into_split();
    let (read, write) = channel.split();
    let mut input = Input::new(read, to);
    let output = async {
        let mut writer = write.make_writer();
        let copied = tokio::io::copy(&mut from, &mut writer).await;
        if copied.is_ok() {
            let _ = writer.shutdown().await;
        }
        copied.is_ok()
    };
    tokio::pin!(output);
    let mut done = false;
    tokio::select! {
        () = input.until_closed() => {}
        ok = &mut output => done = ok,
    }
    if done {
        // The other direction may go on.
        input.until_taken().await;
    }
    let _ = write.close().await;
    input.finish().await;
}
