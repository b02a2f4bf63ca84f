//! A platform running in this process.

use crate::api::{self, App, Connections};
use crate::edge::{self, Authority};
use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::exec::Execs;
use crate::manager::{Fault, Manager};
use crate::options::Options;
use crate::sandbox::Sandboxes;
use crate::state::{Lock, StateDir};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a server that is just ending may take to let go of the state directory.
const HANDOVER: Duration = Duration::from_secs(2);
const CLOSE: Duration = Duration::from_secs(60);
const CONNECTIONS_END: Duration = Duration::from_secs(5);

/// What becomes of the VMs when a platform ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// They run on, and the next start adopts them.
    KeepVms,
    /// Their processes end and their disks stay: they become `sleeping`.
    SleepVms,
    /// They are deleted. Commits stay.
    DestroyAll,
}

impl End {
    /// Lets no new work in and does it. How many VMs were put to sleep, and what went wrong.
    pub(crate) async fn apply(self, manager: &Arc<Manager>) -> (usize, Vec<String>) {
        manager.refuse();
        let text = |faults: Vec<Fault>| faults.iter().map(ToString::to_string).collect();
        match self {
            Self::KeepVms => (0, Vec::new()),
            Self::SleepVms => {
                let (slept, failed) = manager.sleep_all().await;
                (slept, text(failed))
            }
            Self::DestroyAll => (0, text(manager.delete_all().await)),
        }
    }
}

/// A local platform served by this process. Dropping it without [`Platform::shutdown`] leaves the VMs running, to be
/// adopted by the next start on the same state directory.
pub struct Platform {
    endpoint: Endpoint,
    manager: Arc<Manager>,
    execs: Arc<Execs>,
    state: StateDir,
    stop: CancellationToken,
    servers: Vec<JoinHandle<()>>,
    // Given up in this order: first the file that leads here, then the directory.
    _published: Lock,
    _lock: Lock,
}

impl std::fmt::Debug for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Platform")
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    if !address.ip().is_loopback() {
        return Err(Error::NotLoopback { address });
    }
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

async fn file_work<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(Error::Damaged {
            path: PathBuf::new(),
            why: e.to_string(),
        }),
    }
}

impl Platform {
    /// Takes the state directory, finds the best tier that works, takes up what is there, and serves.
    ///
    /// # Errors
    /// [`Error::Locked`] when another server has the directory, [`Error::Sandbox`] when no sandbox can be built here,
    /// [`Error::Listen`], [`Error::NotLoopback`], [`Error::File`], [`Error::Damaged`], [`Error::Tls`].
    ///
    /// # Cancel safety
    /// A dropped future serves nothing. VMs that were adopted run on.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let (api_listener, api_addr) = listen(options.api_listen).await?;
        let (ssh_listener, ssh_addr) = listen(options.ssh_listen).await?;
        let root = options.state_dir.clone();
        let state = file_work(move || StateDir::create(&root)).await?;
        let Some(lock) = Lock::take(&state.path("lock"), HANDOVER).await? else {
            return Err(Error::Locked {
                state_dir: state.root().to_owned(),
            });
        };
        let (api_key, authority) = {
            let state = state.clone();
            file_work(move || Ok((state.api_key()?, Authority::load(&state)?))).await?
        };
        let owner = api_key
            .get(..36)
            .and_then(|id| Uuid::try_parse(id).ok())
            .unwrap_or_default();
        let sandboxes = Sandboxes::probe(
            state.root(),
            options.tier,
            options.helper.clone(),
            &state.instance(),
        )
        .await?
        .with_network(options.network);
        let tier = sandboxes.capabilities().tier;
        let (manager, recovered) = Manager::open(
            state.clone(),
            owner,
            options.limits.clone(),
            Box::new(sandboxes),
        )
        .await?;
        tracing::info!(?recovered, ?tier, "took up {}", state.root().display());
        let execs = Execs::new(manager.clone());
        let stop = CancellationToken::new();
        let started_at = Timestamp::now();
        let endpoint = Endpoint {
            api_url: format!("http://{api_addr}/api/v1"),
            api_key: api_key.clone(),
            ssh_addr,
            domain: edge::DOMAIN.to_owned(),
            ca_pem: authority.ca_pem.clone(),
            tier,
            pid: std::process::id(),
            started_at: started_at.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            state_dir: state.root().to_owned(),
        };
        let counters = Arc::<edge::Counters>::default();
        let http = Arc::<Connections>::default();
        let app = Arc::new(App {
            manager: manager.clone(),
            execs: execs.clone(),
            api_key,
            origin: format!("http://{api_addr}"),
            ssh_addr,
            started_at,
            logins_dir: state.path("logins"),
            state: state.clone(),
            logins: api::shell_auth::Logins::default(),
            auto_verify: options.auto_verify,
            edge: counters.clone(),
            http: http.clone(),
            stop: stop.clone(),
        });
        let published = {
            let (endpoint, state) = (endpoint.clone(), state.clone());
            file_work(move || endpoint.publish(&state)).await?
        };
        let api = {
            let stopped = stop.clone().cancelled_owned();
            let served = axum::serve(api::Bounded::new(api_listener, http), api::router(app))
                .with_graceful_shutdown(stopped);
            tokio::spawn(async move {
                if let Err(e) = served.await {
                    tracing::error!("the REST server ended: {e}");
                }
            })
        };
        let edge = tokio::spawn(edge::serve(
            ssh_listener,
            authority,
            manager.clone(),
            counters,
            stop.clone(),
        ));
        Ok(Self {
            endpoint,
            manager,
            execs,
            state,
            stop,
            servers: vec![api, edge],
            _published: published,
            _lock: lock,
        })
    }

    /// How to reach it.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// What it can do here.
    pub fn capabilities(&self) -> &crate::sandbox::Capabilities {
        self.manager.capabilities()
    }

    /// Resolves when somebody asked for the end over the API (`down`).
    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// Ends it: no new work, VMs as `end` says, listeners closed, running operations finished, state directory given back.
    ///
    /// # Errors
    /// [`Error::Leftovers`] with everything that could not be ended.
    ///
    /// # Cancel safety
    /// A dropped future has begun to end it; VMs may be in either state. The next start takes up from there.
    pub async fn shutdown(mut self, end: End) -> Result<(), Error> {
        let handles = self.manager.handles();
        let (_, mut left) = end.apply(&self.manager).await;
        self.stop.cancel();
        let execs = self.execs.clone();
        if tokio::time::timeout(CONNECTIONS_END, async move { execs.close().await })
            .await
            .is_err()
        {
            left.push("commands that did not end".to_owned());
        }
        for server in std::mem::take(&mut self.servers) {
            let abort = server.abort_handle();
            // Clients that keep their connections are cut off.
            if tokio::time::timeout(CONNECTIONS_END, server).await.is_err() {
                abort.abort();
            }
        }
        if !self.manager.close(CLOSE).await {
            left.push(format!(
                "file work in {} that did not end",
                self.state.path("trash").display()
            ));
        }
        if end != End::KeepVms {
            if let Err(e) = self.manager.sweep().await {
                left.push(e.to_string());
            }
            left.extend(crate::daemon::leftovers(&self.state, &handles));
        }
        let path = self.state.path("endpoint.json");
        file_work(move || crate::state::remove(&path)).await?;
        if left.is_empty() {
            Ok(())
        } else {
            Err(Error::Leftovers(left))
        }
    }
}
