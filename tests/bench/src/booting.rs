//! VMs that take their time to boot: a TCP proxy before the platform's edge.
//!
//! A VM can be reached a fixed time after somebody tried it first; until then its connections are closed, as an edge does whose VM does
//! not answer. Which VM is meant stands in the beginning of TLS, in the clear.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// The name is within so many bytes.
const HELLO: usize = 16 << 10;
/// How long a client may take to say it.
const PATIENCE: Duration = Duration::from_secs(10);

type Seen = Arc<Mutex<HashMap<Vec<u8>, Instant>>>;

/// See the module. Ends with the value; connections end with their ends.
#[derive(Debug)]
pub struct Booting {
    address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Drop for Booting {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Booting {
    /// VMs below `domain`, whose edge is `edge`, boot in `boot`.
    ///
    /// # Errors
    /// Without a free port.
    pub async fn start(edge: SocketAddr, domain: &str, boot: Duration) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let suffix: Arc<[u8]> = format!(".{domain}").into_bytes().into();
        let seen = Seen::default();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, edge, suffix.clone(), boot, seen.clone()));
            }
        });
        Ok(Self { address, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn carry(
    mut client: TcpStream,
    edge: SocketAddr,
    suffix: Arc<[u8]>,
    boot: Duration,
    seen: Seen,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut hello = Vec::new();
    let name = loop {
        if let Some(name) = name(&hello, &suffix) {
            break name.to_vec();
        }
        let read = tokio::time::timeout(PATIENCE, client.read_buf(&mut hello)).await??;
        if read == 0 || hello.len() > HELLO {
            return Ok(());
        }
    };
    let first = {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        *seen.entry(name).or_insert_with(Instant::now)
    };
    if first.elapsed() < boot {
        return Ok(());
    }
    let mut server = TcpStream::connect(edge).await?;
    server.set_nodelay(true)?;
    server.write_all(&hello).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// The VM's name: what is before the domain, up to a byte that is in no name.
fn name<'a>(hello: &'a [u8], suffix: &[u8]) -> Option<&'a [u8]> {
    let end = hello
        .windows(suffix.len())
        .position(|part| part == suffix)?;
    let before = hello.get(..end)?;
    let start = before
        .iter()
        .rposition(|byte| !byte.is_ascii_alphanumeric() && *byte != b'-')
        .map_or(0, |at| at + 1);
    before.get(start..).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_wherever_it_stands() {
        let suffix = b".vm.localhost";
        let hello = b"\x16\x03\x01\x00\x1d\x00ab-12.vm.localhost\x00\x17";
        assert_eq!(name(hello, suffix), Some(&b"ab-12"[..]));
        assert_eq!(name(b"ab.vm.localhost", suffix), Some(&b"ab"[..]));
        assert_eq!(name(b"\x00.vm.localhost", suffix), None);
        assert_eq!(name(b"ab.vm.localhos", suffix), None);
    }

    #[tokio::test]
    async fn a_vm_that_boots_is_closed_and_then_carried() -> std::io::Result<()> {
        let edge = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let boot = Duration::from_millis(200);
        let proxy = Booting::start(edge.local_addr()?, "vm.localhost", boot).await?;
        let begun = Instant::now();
        loop {
            let mut client = TcpStream::connect(proxy.address()).await?;
            client.write_all(b"\x00ab.vm.localhost").await?;
            let carried = tokio::select! {
                accepted = edge.accept() => { accepted?; true }
                _ = client.read_u8() => false,
            };
            if carried {
                break;
            }
        }
        assert!(begun.elapsed() >= boot);
        Ok(())
    }
}
