//! A TCP proxy that makes distance, and cuts.
//!
//! What comes in goes out a fixed time later, in each direction: a long line of unlimited bandwidth, without loss or
//! jitter. [`Proxy::cut`] resets all its connections on the client's side, as a router that forgot them does.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, tcp};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio::time::Instant;

const CHUNK: usize = 64 << 10;
/// Chunks on the line.
const ON_THE_LINE: usize = 1024;

/// See the module. Ends, with its connections, with the value.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    cut: broadcast::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = self.cut.send(());
    }
}

impl Proxy {
    /// A proxy to `to`, `delay` away in each direction.
    ///
    /// # Errors
    /// Without a free port.
    pub async fn start(to: SocketAddr, delay: Duration) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (cut, _) = broadcast::channel(1);
        let cuts = cut.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, to, delay, cuts.subscribe()));
            }
        });
        Ok(Self {
            address,
            cut,
            accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets what goes through it now. Connections after this are let through.
    pub fn cut(&self) {
        // Without a connection there is nobody to tell.
        let _ = self.cut.send(());
    }
}

async fn carry(
    mut near: TcpStream,
    to: SocketAddr,
    delay: Duration,
    mut cut: broadcast::Receiver<()>,
) {
    let Ok(mut far) = TcpStream::connect(to).await else {
        return;
    };
    if near.set_nodelay(true).is_err() || far.set_nodelay(true).is_err() {
        return;
    }
    let was_cut = {
        let ((from_near, to_near), (from_far, to_far)) = (near.split(), far.split());
        tokio::select! {
            _ = async { tokio::join!(pass(from_near, to_far, delay), pass(from_far, to_near, delay)) } => false,
            _ = cut.recv() => true,
        }
    };
    if was_cut {
        // Closing with this set is a reset.
        let _ = rustix::net::sockopt::set_socket_linger(&near, Some(Duration::ZERO));
    }
}

/// One direction, until its source ends or its sink fails.
async fn pass(mut from: tcp::ReadHalf<'_>, mut to: tcp::WriteHalf<'_>, delay: Duration) {
    let (sender, mut line) = mpsc::channel::<(Instant, Vec<u8>)>(ON_THE_LINE);
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(count @ 1..) = from.read(&mut buffer).await {
            let chunk = buffer.get(..count).unwrap_or_default().to_vec();
            if sender.send((Instant::now() + delay, chunk)).await.is_err() {
                break;
            }
        }
    };
    let writing = async move {
        while let Some((at, chunk)) = line.recv().await {
            if !delay.is_zero() {
                tokio::time::sleep_until(at).await;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    #[tokio::test]
    async fn everything_arrives_in_order_and_not_before_its_time() {
        let proxy = Proxy::start(echo().await, Duration::from_millis(20))
            .await
            .unwrap();
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        let data: Vec<u8> = (0..1_000_000_u32).map(|i| (i % 251) as u8).collect();
        let begun = Instant::now();
        let (mut from, mut to) = stream.split();
        let mut back = vec![0; data.len()];
        let (sent, got) = tokio::join!(to.write_all(&data), from.read_exact(&mut back));
        sent.unwrap();
        got.unwrap();
        assert!(back == data);
        assert!(begun.elapsed() >= Duration::from_millis(40));
    }

    #[tokio::test]
    async fn a_cut_resets_and_the_next_connection_works() {
        let proxy = Proxy::start(echo().await, Duration::ZERO).await.unwrap();
        for _ in 0..3 {
            let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
            stream.write_all(b"x").await.unwrap();
            let mut byte = [0];
            stream.read_exact(&mut byte).await.unwrap();
            proxy.cut();
            match stream.read(&mut byte).await {
                Err(why) => assert_eq!(why.kind(), std::io::ErrorKind::ConnectionReset),
                Ok(count) => panic!("{count} bytes instead of a reset"),
            }
        }
    }
}
