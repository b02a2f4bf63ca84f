//! A port of this machine that leads to a port of a VM.
//!
//! Only loopback on both sides: what listens on the VM for itself alone can be reached from here, and from nowhere else.
//! Servers bind 127.0.0.1 or ::1 (or both), so both are tried on the VM, in this order.
//!
//! Each local connection becomes a channel of the VM's connection for [tunnels](super::Tunnel); when that is lost, its
//! channels end, and the next local connection opens it again. An end of one direction is passed on as such. Other ends
//! (the connection was lost, nothing answers on the VM) reset the local connection, so that a part of an answer is not
//! taken for the whole.
//!
//! Who does not read is not sent more, on either side. But SSH's implementation here stops a whole connection when one
//! of its channels is not read (after 2 MiB), so a local program that stops reading holds up the VM's other forwarded
//! connections, not its commands. They go on when it reads or goes; and when a new local connection finds the SSH
//! connection held up, that is given up for a new one, together with what goes through it.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use russh::client::Msg;
use russh::{Channel, ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::lease::Held;
use super::machine::Machine;
use crate::api::VmId;
use crate::error::{Error, Kind, Result};

/// Local connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 64;
/// An SSH connection that does not answer for so long is not used for a new local connection.
const PROOF: Duration = Duration::from_secs(3);
/// Accepting fails for lack of descriptors, for example: not at once again.
const PAUSE: Duration = Duration::from_millis(100);
const CHUNK: usize = 32 << 10;

/// A port that leads to a VM. Dropping it closes the port and what goes through it, as does closing the VM's
/// connections ([`Ssh::disconnect`](super::Ssh::disconnect), [`Ssh::abandon`](super::Ssh::abandon)).
#[derive(Debug)]
pub struct Forward {
    port: u16,
    end: CancellationToken,
    ended: CancellationToken,
    _guard: DropGuard,
}

impl Forward {
    /// The port of this machine, on 127.0.0.1.
    pub fn local_port(&self) -> u16 {
        self.port
    }

    /// Closes the port and what goes through it. Returns when that is done.
    pub async fn close(&self) {
        self.end.cancel();
        self.ended.cancelled().await;
    }
}

pub(super) async fn start(
    machine: Arc<Machine>,
    vm: VmId,
    remote: u16,
    local: Option<u16>,
    patience: Duration,
) -> Result<Forward> {
    let what = format!("forward to port {remote} of VM {vm}");
    if remote == 0 {
        return Err(Error::invalid(format!("{what}: ports begin at 1")));
    }
    let port = local.unwrap_or(0);
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
    let (listener, port) = bound
        .and_then(|listener| {
            let port = listener.local_addr()?.port();
            Ok((listener, port))
        })
        .map_err(|error| unbound(&what, port, &error))?;
    let forwarding = Forwarding {
        machine,
        remote,
        patience,
    };
    // Whoever asks is told now what is amiss.
    forwarding.connection().await?;
    let (end, ended) = (CancellationToken::new(), CancellationToken::new());
    let forward = Forward {
        port,
        end: end.clone(),
        ended: ended.clone(),
        _guard: end.clone().drop_guard(),
    };
    tokio::spawn(async move {
        let _ended = ended.drop_guard();
        let closed = forwarding.machine.closed().clone();
        let forwarding = Arc::new(forwarding);
        let mut serving = JoinSet::new();
        tokio::select! {
            () = forwarding.accept(listener, &end, &mut serving) => {}
            () = end.cancelled() => {}
            () = closed.cancelled() => {}
        }
        // Each closes its channel, which a task that is just dropped would not.
        end.cancel();
        while serving.join_next().await.is_some() {}
    });
    Ok(forward)
}

fn unbound(what: &str, port: u16, error: &std::io::Error) -> Error {
    let (kind, advice) = match error.kind() {
        std::io::ErrorKind::AddrInUse => (Kind::Conflict, "choose another, or leave it open"),
        std::io::ErrorKind::PermissionDenied => (Kind::Denied, "choose one from 1024 on"),
        _ => (Kind::Other, "choose another"),
    };
    Error::new(
        kind,
        format!("{what}: cannot listen on port {port} here ({error}); {advice}"),
    )
}

struct Forwarding {
    machine: Arc<Machine>,
    remote: u16,
    patience: Duration,
}

impl Forwarding {
    /// The open connection, or a new one.
    async fn connection(&self) -> Result<Held> {
        tokio::select! {
            biased;
            () = self.machine.closed().cancelled() => Err(ended()),
            connection = self.machine.tunnels(self.patience) => connection,
        }
    }

    async fn accept(
        self: &Arc<Self>,
        listener: TcpListener,
        end: &CancellationToken,
        serving: &mut JoinSet<()>,
    ) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(place) = room.clone().acquire_owned().await else {
                return;
            };
            let stream = loop {
                match listener.accept().await {
                    Ok((stream, _)) => break stream,
                    Err(error) => {
                        tracing::debug!(%error, "no connection accepted");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
            while serving.try_join_next().is_some() {}
            let (forwarding, end) = (self.clone(), end.clone());
            serving.spawn(async move {
                forwarding.serve(stream, &end).await;
                drop(place);
            });
        }
    }

    async fn serve(&self, mut stream: TcpStream, end: &CancellationToken) {
        let _ = stream.set_nodelay(true);
        let opened = tokio::select! {
            opened = self.open() => opened,
            () = end.cancelled() => Err(ended()),
        };
        let passed = match opened {
            Ok((connection, channel)) => {
                let closed = connection.link().closed();
                through(&mut stream, channel, closed, end).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = passed {
            tracing::debug!(port = self.remote, %error, "a forwarded connection ended");
            let _ = stream.set_zero_linger();
        }
    }

    /// A channel to the server on the VM. Nothing has been sent yet: a connection that is found dead is replaced.
    async fn open(&self) -> Result<(Held, Channel<Msg>)> {
        let mut again = true;
        loop {
            let connection = self.connection().await?;
            let link = connection.link();
            let opened = if link.ping(PROOF).await {
                match link.open_tcp("127.0.0.1", self.remote).await {
                    Err(_) if !link.is_closed() => link.open_tcp("::1", self.remote).await,
                    opened => opened,
                }
            } else {
                link.fail();
                Err(link.lost("forward a connection"))
            };
            match opened {
                Ok(channel) => return Ok((connection, channel)),
                Err(_) if again && link.is_closed() => again = false,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Passes on what either side sends, until both have ended.
async fn through(
    stream: &mut TcpStream,
    channel: Channel<Msg>,
    closed: &CancellationToken,
    end: &CancellationToken,
) -> Result<()> {
    let (local_in, local_out) = stream.split();
    let (remote_in, remote_out) = channel.split();
    let both = async {
        let down = down(remote_in, local_out);
        tokio::pin!(down);
        tokio::select! {
            sent = up(local_in, &remote_out) => sent?,
            // The VM's side takes nothing any more, either.
            received = &mut down => return received,
        }
        down.await
    };
    let passed = tokio::select! {
        passed = both => passed,
        // russh wakes nobody who waits for window when the session ends.
        () = closed.cancelled() => Err(lost()),
        () = end.cancelled() => Err(ended()),
    };
    // Dropping a channel does not close it; closing one twice does no harm.
    let _ = tokio::time::timeout(PROOF, remote_out.close()).await;
    passed
}

fn lost() -> Error {
    Error::unavailable("the connection to the VM was lost")
}

fn ended() -> Error {
    Error::cancelled("forward to a VM")
}

fn local(error: &std::io::Error) -> Error {
    Error::unavailable(format!("the local side: {error}"))
}

async fn up(mut from: ReadHalf<'_>, to: &ChannelWriteHalf<Msg>) -> Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(CHUNK);
        if from
            .read_buf(&mut buffer)
            .await
            .map_err(|error| local(&error))?
            == 0
        {
            return to.eof().await.map_err(|_| lost());
        }
        let data: Bytes = buffer.split().freeze();
        to.data_bytes(data).await.map_err(|_| lost())?;
    }
}

/// Ends when the VM has closed the channel, which it does when both directions have ended.
async fn down(mut from: ChannelReadHalf, mut to: WriteHalf<'_>) -> Result<()> {
    let mut ended = false;
    loop {
        match from.wait().await {
            Some(ChannelMsg::Data { data }) => {
                to.write_all(&data).await.map_err(|error| local(&error))?;
            }
            Some(ChannelMsg::Eof) => {
                ended = true;
                let _ = to.shutdown().await;
            }
            Some(ChannelMsg::Close) if ended => return Ok(()),
            Some(ChannelMsg::Close) | None => return Err(lost()),
            Some(_) => {}
        }
    }
}
