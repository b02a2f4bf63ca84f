//! The edge in front of a VM: it terminates TLS and relays, and does to the connections what a test asks for.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What becomes of a byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The connection ends before it.
    Cut,
    /// It arrives changed.
    Flip,
    /// Neither it nor what comes behind it arrives.
    Stall,
}

/// Which way it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the VM.
    Down,
    /// To the VM.
    Up,
}

/// What happens to the connections through an edge.
#[derive(Default)]
pub struct Traffic {
    cuts: watch::Sender<u64>,
    frozen: watch::Sender<bool>,
    closed: AtomicBool,
    /// For the next connection only.
    fault: Mutex<Option<(Way, usize, Fault)>>,
    /// Bytes of the connection that was last made.
    down: AtomicUsize,
    up: AtomicUsize,
    open: AtomicUsize,
}

impl Traffic {
    /// Breaks every connection.
    pub fn cut(&self) {
        self.cuts.send_modify(|count| *count += 1);
    }

    /// Nothing passes any more, or again; connections are neither refused nor ended.
    pub fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// From now on nobody is let in, or everybody again.
    pub fn close(&self, closed: bool) {
        self.closed.store(closed, Ordering::SeqCst);
    }

    /// Something happens to one byte of the next connection.
    pub fn fault(&self, way: Way, at: usize, fault: Fault) {
        *self.fault.lock().unwrap() = Some((way, at, fault));
    }

    /// Bytes that passed on the last connection.
    pub fn passed(&self, way: Way) -> usize {
        self.count(way).load(Ordering::Relaxed)
    }

    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    fn count(&self, way: Way) -> &AtomicUsize {
        match way {
            Way::Down => &self.down,
            Way::Up => &self.up,
        }
    }
}

/// A certificate for a name, of an authority of its own that it leaves in the directory.
pub struct Terminator(TlsAcceptor);

impl Terminator {
    pub fn new(dir: &Path, name: &str) -> Self {
        let mut ca = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.distinguished_name
            .push(rcgen::DnType::CommonName, "lab authority");
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        std::fs::write(dir.join("ca.pem"), ca_certificate.pem()).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let leaf_key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&leaf_key, &issuer)
            .unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key)
            .unwrap();
        Self(TlsAcceptor::from(Arc::new(config)))
    }

    /// Serves each connection with this.
    pub async fn serve<F>(
        self,
        serve: impl Fn(TlsStream<TcpStream>) -> F + Send + Sync + 'static,
    ) -> SocketAddr
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                // As real terminators do; without it each small packet waits for the one before.
                tcp.set_nodelay(true).unwrap();
                if let Ok(tls) = self.0.accept(tcp).await {
                    tokio::spawn(serve(tls));
                }
            }
        });
        address
    }

    /// Passes each connection on.
    pub async fn relay(self, to: SocketAddr, traffic: Arc<Traffic>) -> SocketAddr {
        self.serve(move |tls| relay(tls, to, traffic.clone())).await
    }
}

async fn relay(tls: TlsStream<TcpStream>, to: SocketAddr, traffic: Arc<Traffic>) {
    if traffic.closed.load(Ordering::SeqCst) {
        return;
    }
    let mut cuts = traffic.cuts.subscribe();
    let fault = traffic.fault.lock().unwrap().take();
    traffic.open.fetch_add(1, Ordering::Relaxed);
    traffic.down.store(0, Ordering::Relaxed);
    traffic.up.store(0, Ordering::Relaxed);
    let inner = TcpStream::connect(to).await.unwrap();
    inner.set_nodelay(true).unwrap();
    let (from_client, to_client) = tokio::io::split(tls);
    let (from_server, to_server) = inner.into_split();
    let fault_of = |way| {
        fault
            .filter(|(of, ..)| *of == way)
            .map(|(_, at, fault)| (at, fault))
    };
    let both = async {
        tokio::try_join!(
            pump(
                from_server,
                to_client,
                &traffic,
                Way::Down,
                fault_of(Way::Down)
            ),
            pump(from_client, to_server, &traffic, Way::Up, fault_of(Way::Up)),
        )
    };
    tokio::select! {
        _ = both => {}
        _ = cuts.changed() => {}
    }
    traffic.open.fetch_sub(1, Ordering::Relaxed);
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    traffic: &Traffic,
    way: Way,
    mut fault: Option<(usize, Fault)>,
) -> std::io::Result<()> {
    let mut frozen = traffic.frozen.subscribe();
    let mut buffer = vec![0; 64 << 10];
    let mut passed = 0;
    loop {
        let count = from.read(&mut buffer).await?;
        if frozen.wait_for(|frozen| !frozen).await.is_err() {
            return Ok(());
        }
        if count == 0 {
            return to.shutdown().await;
        }
        if let Some((at, kind)) = fault
            && passed + count > at
        {
            match kind {
                Fault::Flip => {
                    buffer[at - passed] ^= 0x20;
                    fault = None;
                }
                Fault::Cut | Fault::Stall => {
                    to.write_all(&buffer[..at - passed]).await?;
                    to.flush().await?;
                    if kind == Fault::Stall {
                        std::future::pending::<()>().await;
                    }
                    return Err(std::io::ErrorKind::ConnectionReset.into());
                }
            }
        }
        to.write_all(&buffer[..count]).await?;
        to.flush().await?;
        passed += count;
        traffic.count(way).store(passed, Ordering::Relaxed);
    }
}
