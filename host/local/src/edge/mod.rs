//! SSH (and any TCP port) of a VM inside TLS: one listener, routed by the name the client asks for (SNI).
//!
//! `<vm>.vm.localhost` leads to the VM's SSH server, `<port>--<vm>.vm.localhost` to a TCP port on the VM's loopback. A name
//! that leads nowhere (unknown or paused VM, no name) is refused inside the handshake with a TLS alert, so that clients
//! need no time-out to notice. Bytes are relayed, never read; each direction ends on its own.

mod name;
mod tls;

pub(crate) use name::Target;
pub(crate) use tls::Authority;

use crate::manager::Manager;
use crate::sandbox::Service;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// What names end with.
pub(crate) const DOMAIN: &str = "vm.localhost";
const HANDSHAKE: Duration = Duration::from_secs(10);
const MAX_CONNECTIONS: usize = 1024;

/// Counters for `/health`.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) total: AtomicU64,
    pub(crate) active: AtomicU64,
    pub(crate) failed_handshakes: AtomicU64,
    pub(crate) failed_dials: AtomicU64,
}

struct Active(Arc<Counters>);

impl Active {
    fn new(counters: &Arc<Counters>) -> Self {
        counters.total.fetch_add(1, Ordering::Relaxed);
        counters.active.fetch_add(1, Ordering::Relaxed);
        Self(counters.clone())
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives the certificate only to names that lead somewhere.
struct Resolver {
    manager: Arc<Manager>,
    certified: Arc<CertifiedKey>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let target = Target::parse(hello.server_name()?, DOMAIN)?;
        self.manager
            .is_reachable(target.vm)
            .then(|| self.certified.clone())
    }
}

/// Serves until `stop`, and returns when every connection is closed.
pub(crate) async fn serve(
    listener: TcpListener,
    authority: Authority,
    manager: Arc<Manager>,
    counters: Arc<Counters>,
    stop: CancellationToken,
) {
    let resolver = Resolver {
        manager: manager.clone(),
        certified: authority.certified,
    };
    let acceptor = TlsAcceptor::from(authority.config.with_resolver(Arc::new(resolver)));
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let tasks = TaskTracker::new();
    loop {
        // Beyond the limit, clients wait in the kernel's queue.
        let permit = tokio::select! {
            () = stop.cancelled() => break,
            permit = room.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (acceptor, manager, counters, stop) = (
                    acceptor.clone(),
                    manager.clone(),
                    counters.clone(),
                    stop.clone(),
                );
                tasks.spawn(async move {
                    let _permit = permit;
                    let _active = Active::new(&counters);
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = connection(stream, acceptor, &manager, &counters) => {}
                    }
                });
            }
            Err(e) => {
                // Out of descriptors, mostly: give others the time to close some.
                tracing::warn!("cannot accept a connection: {e}");
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                }
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    manager: &Manager,
    counters: &Counters,
) {
    if let Err(e) = stream.set_nodelay(true) {
        tracing::debug!("cannot set nodelay: {e}");
    }
    let mut tls = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(e)) => {
            counters.failed_handshakes.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("TLS handshake failed: {e}");
            return;
        }
        Err(_) => {
            counters.failed_handshakes.fetch_add(1, Ordering::Relaxed);
            return;
        }
    };
    let target = tls
        .get_ref()
        .1
        .server_name()
        .and_then(|name| Target::parse(name, DOMAIN));
    let dialled = match target {
        Some(Target { vm, port: None }) => manager.dial(vm, Service::Ssh).await,
        Some(Target {
            vm,
            port: Some(port),
        }) => manager.dial(vm, Service::Port(port)).await,
        None => Err(crate::manager::Fault::NOT_FOUND),
    };
    match dialled {
        Ok(mut inner) => {
            // Either side may go away at any time; there is nobody to tell.
            let _ = tokio::io::copy_bidirectional(&mut tls, &mut inner).await;
        }
        Err(e) => {
            counters.failed_dials.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("cannot reach {target:?}: {e}");
            let _ = tokio::time::timeout(HANDSHAKE, tls.shutdown()).await;
        }
    }
}
