//! A relay between the host and the platform's edge whose connections the demo can cut.
//!
//! A cut is what a network does: both ends find their connection closed in the middle of whatever it carried. Nothing is asked of the
//! host, which has to notice by itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// See the module. It ends with its connections when it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    address: SocketAddr,
    /// How many cuts there were; each connection belongs to one number.
    cuts: watch::Sender<u64>,
    open: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A connection that is counted.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Relay {
    /// Listens on loopback, and connects whoever comes with `target`.
    pub(super) async fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let cuts = watch::Sender::new(0);
        let open = Arc::new(AtomicUsize::new(0));
        let task = tokio::spawn(serve(listener, target, cuts.subscribe(), open.clone()));
        Ok(Self {
            address,
            cuts,
            open,
            task,
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Cuts every connection there is; how many.
    pub(super) fn cut(&self) -> usize {
        let open = self.open.load(Ordering::Relaxed);
        self.cuts.send_modify(|cuts| *cuts += 1);
        open
    }
}

async fn serve(
    listener: TcpListener,
    target: SocketAddr,
    cuts: watch::Receiver<u64>,
    open: Arc<AtomicUsize>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else { continue };
                open.fetch_add(1, Ordering::Relaxed);
                let counted = Counted(open.clone());
                connections.spawn(carry(client, target, cuts.clone(), counted));
            }
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
        }
    }
}

async fn carry(
    mut client: TcpStream,
    target: SocketAddr,
    mut cuts: watch::Receiver<u64>,
    _counted: Counted,
) {
    cuts.mark_unchanged();
    let carried = async {
        let mut edge = TcpStream::connect(target).await?;
        // What is typed shall not wait for more.
        client.set_nodelay(true)?;
        edge.set_nodelay(true)?;
        copy_bidirectional(&mut client, &mut edge).await
    };
    tokio::select! {
        _ = carried => {}
        // Both sockets are dropped.
        _ = cuts.changed() => {}
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn a_cut_closes_all_connections_and_new_ones_are_carried() {
        let edge = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let relay = Relay::start(edge.local_addr().unwrap()).await.unwrap();
        for _ in 0..3 {
            let mut client = TcpStream::connect(relay.address()).await.unwrap();
            let (mut server, _) = edge.accept().await.unwrap();
            client.write_all(b"ping").await.unwrap();
            let mut bytes = [0; 4];
            server.read_exact(&mut bytes).await.unwrap();
            assert_eq!(&bytes, b"ping");
            assert_eq!(relay.cut(), 1);
            assert_eq!(client.read(&mut bytes).await.unwrap_or(0), 0);
            assert_eq!(server.read(&mut bytes).await.unwrap_or(0), 0);
        }
    }
}
