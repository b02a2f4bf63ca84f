//! A VM with OpenSSH's own server, behind TLS, with as much of the REST API as it takes to find and enter it. All on
//! loopback; the "VM" is this machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::extract::Path as UrlPath;
use axum::routing::get;
use axum::{Json, Router};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use vers_client::{Environment, Overrides, Secret, Settings};

use crate::{DEADLINE, needs};

const DOMAIN: &str = "vm.localhost";

/// See the module. Ends with the value.
#[derive(Debug)]
pub struct OpenSsh {
    directory: tempfile::TempDir,
    /// The VM's id.
    pub vm: String,
    sshd: Child,
    sshd_address: SocketAddr,
    api: SocketAddr,
    edge: SocketAddr,
    servers: [JoinHandle<()>; 2],
}

impl OpenSsh {
    /// Starts it all.
    ///
    /// # Panics
    /// When OpenSSH's server is not there and cannot be installed, or does not start.
    pub async fn start() -> Self {
        needs("openssh-server");
        assert!(
            crate::traces::is_root(),
            "sshd lets nobody but root log in as root: run these tests as root"
        );
        let directory = tempfile::Builder::new()
            .prefix("pv-ssh-")
            .tempdir()
            .expect("a directory");
        let at = |name: &str| directory.path().join(name);
        // Where the Debian package's server goes for its own safety.
        std::fs::create_dir_all("/run/sshd").expect("root can make it");
        std::fs::create_dir(at("home")).expect("made");
        // What a profile prints is not a command's output.
        std::fs::write(at("home/.bashrc"), "echo NOISE; echo NOISE >&2\n").expect("written");
        for name in ["user", "host"] {
            let made = Command::new("ssh-keygen")
                .args(["-q", "-t", "ed25519", "-N", "", "-f"])
                .arg(at(name))
                .output();
            assert!(
                made.is_ok_and(|made| made.status.success()),
                "ssh-keygen, which comes with sshd, makes a key"
            );
        }
        let (sshd, server) = start_sshd(directory.path()).await;
        let (edge, terminator) = start_edge(directory.path(), server).await;
        let key = std::fs::read_to_string(at("user")).expect("made above");
        let (api, stub) = start_api(key).await;
        Self {
            directory,
            vm: uuid::Uuid::new_v4().to_string(),
            sshd,
            sshd_address: server,
            api,
            edge,
            servers: [terminator, stub],
        }
    }

    /// The home directory of `root` on it.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.directory.path().join("home")
    }

    /// Where everything of it lies: the keys of user and host (`user`, `user.pub`, `host.pub`) among it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Where sshd itself listens, without TLS.
    #[must_use]
    pub fn sshd(&self) -> SocketAddr {
        self.sshd_address
    }

    /// How a client gets there.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn settings(&self) -> Settings {
        let overrides = Overrides {
            api_key: Some(Secret::new("key")),
            base_url: Some(format!("http://{}/api/v1", self.api)),
            vm_domain: Some(DOMAIN.into()),
            vm_connect: Some(self.edge),
            tls_ca: Some(self.directory.path().join("ca.pem")),
            insecure_tls: Some(false),
        };
        Settings::discover(Environment::of([("HOME", "/nonexistent")]), overrides)
            .expect("valid settings")
    }
}

impl Drop for OpenSsh {
    fn drop(&mut self) {
        self.servers.iter().for_each(JoinHandle::abort);
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
        if std::thread::panicking() {
            eprintln!(
                "sshd said:\n{}",
                std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
            );
        }
    }
}

async fn start_sshd(directory: &Path) -> (Child, SocketAddr) {
    let at = |name: &str| directory.join(name).display().to_string();
    // It cannot be told to take any free port: one that was free just now may be taken by another, so it is tried again.
    for _ in 0..20 {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .and_then(|free| free.local_addr())
            .expect("a free port")
            .port();
        let config = format!(
            "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nAcceptEnv LANG LC_*\nSubsystem sftp internal-sftp -d {}\nSetEnv HOME={}\n",
            at("host"),
            at("user.pub"),
            at("home"),
            at("home"),
        );
        std::fs::write(at("config"), config).expect("written");
        let sshd = crate::needs::sshd().expect("looked for above");
        let mut child = Command::new(sshd)
            .args(["-D", "-f", &at("config"), "-E", &at("log")])
            .stdin(Stdio::null())
            .spawn()
            .expect("it starts");
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let answers = tokio::time::timeout(DEADLINE, async {
            while child.try_wait().is_ok_and(|ended| ended.is_none()) {
                if let Ok(mut stream) = TcpStream::connect(address).await {
                    let mut banner = [0; 4];
                    return stream.read_exact(&mut banner).await.is_ok() && &banner == b"SSH-";
                }
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
            false
        });
        if answers.await.unwrap_or(false) {
            return (child, address);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
    panic!(
        "sshd does not start: {}",
        std::fs::read_to_string(at("log")).unwrap_or_default()
    );
}

async fn start_edge(directory: &Path, to: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new()).expect("no names");
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    std::fs::write(
        directory.join("ca.pem"),
        authority.self_signed(&key).expect("signed").pem(),
    )
    .expect("written");
    let issuer = rcgen::Issuer::new(authority, key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let leaf = rcgen::CertificateParams::new(vec![format!("*.{DOMAIN}")])
        .expect("a name")
        .signed_by(&key, &issuer)
        .expect("signed");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .expect("versions")
    .with_no_client_auth()
    .with_single_cert(vec![leaf.der().clone()], key)
    .expect("a certificate");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else {
                    return;
                };
                let Ok(mut inner) = TcpStream::connect(to).await else {
                    return;
                };
                // As real terminators do; without it each small packet waits for the one before.
                let _ = (tls.get_ref().0.set_nodelay(true), inner.set_nodelay(true));
                let _ = copy_bidirectional(&mut tls, &mut inner).await;
            });
        }
    });
    (address, serving)
}

async fn start_api(key: String) -> (SocketAddr, JoinHandle<()>) {
    fn vm(id: &str) -> Value {
        json!({ "vm_id": id, "owner_id": uuid::Uuid::nil(), "state": "running", "created_at": "2026-01-01T00:00:00Z", "labels": {} })
    }
    let key = json!({ "ssh_port": 22, "ssh_private_key": key });
    let app = Router::new()
        .route(
            "/api/v1/vm/{id}/ssh_key",
            get(move || std::future::ready(Json(key.clone()))),
        )
        .route(
            "/api/v1/vm/{id}/status",
            get(|UrlPath(id): UrlPath<String>| async move { Json(vm(&id)) }),
        );
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let serving = tokio::spawn(async move {
        let _ = axum::serve(listener, app).await;
    });
    (address, serving)
}
