//! The VM: OpenSSH's server with its default limits behind a TLS terminator, at three distances.
//!
//! It runs in a process of its own, which is this program once more, so that its work is not counted as the client's
//! and does not wait for the client's threads. It says on its standard output where it is, one line of JSON, obeys one
//! word on its input, `cut`, and ends with its input.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use pi_vers_bench::proxy::Proxy;
use pi_vers_tests::OpenSsh;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};
use vers_client::{Environment, Overrides, Secret, Settings};

use crate::Outcome;

/// The argument with which this program is the VM.
pub(crate) const ARGUMENT: &str = "--be-the-vm";
/// There and back to the far VM.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(20);
const DOMAIN: &str = "vm.localhost";
/// What the terminator moves at once.
const BUFFER: usize = 64 << 10;

/// Where things are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Places {
    /// The VM's id.
    pub(crate) vm: String,
    api: String,
    /// The TLS terminator.
    pub(crate) near: SocketAddr,
    /// The same, [`ROUND_TRIP`] away.
    pub(crate) far: SocketAddr,
    /// The same, where connections can be cut.
    pub(crate) fragile: SocketAddr,
    directory: PathBuf,
    /// Home directory on the VM.
    pub(crate) home: PathBuf,
}

impl Places {
    /// The name that TLS asks for.
    pub(crate) fn host(&self) -> String {
        format!("{}.{DOMAIN}", self.vm)
    }

    /// The user's private key.
    pub(crate) fn key(&self) -> PathBuf {
        self.directory.join("user")
    }

    /// The server's public key.
    pub(crate) fn host_key(&self) -> PathBuf {
        self.directory.join("host.pub")
    }

    /// The authority of the terminator's certificate.
    pub(crate) fn authority(&self) -> PathBuf {
        self.directory.join("bench-ca.pem")
    }

    /// How this project's client gets there.
    pub(crate) fn settings(&self, edge: SocketAddr) -> Outcome<Settings> {
        let overrides = Overrides {
            api_key: Some(Secret::new("key")),
            base_url: Some(self.api.clone()),
            vm_domain: Some(DOMAIN.into()),
            vm_connect: Some(edge),
            tls_ca: Some(self.authority()),
            insecure_tls: Some(false),
        };
        let environment = Environment::of([("HOME", "/nonexistent")]);
        Ok(Settings::discover(environment, overrides)?)
    }
}

/// The VM, from the client's side. Ends with the value.
#[derive(Debug)]
pub(crate) struct Lab {
    pub(crate) places: Places,
    process: Child,
    talk: tokio::sync::Mutex<(ChildStdin, Lines<BufReader<ChildStdout>>)>,
}

impl Lab {
    /// Starts it, with its files below `scratch`.
    pub(crate) async fn start(scratch: &Path) -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg(ARGUMENT)
            .env("TMPDIR", scratch)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // It ends with its input, and its sshd with it; killed, it would leave that behind.
            .kill_on_drop(false)
            .spawn()?;
        let (Some(input), Some(output)) = (process.stdin.take(), process.stdout.take()) else {
            return Err("the VM's process has no pipes".into());
        };
        let mut lines = BufReader::new(output).lines();
        let first = lines
            .next_line()
            .await?
            .ok_or("the VM did not start; what it said is above")?;
        Ok(Self {
            places: serde_json::from_str(&first)?,
            process,
            talk: tokio::sync::Mutex::new((input, lines)),
        })
    }

    /// Its process.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.id()
    }

    /// Resets the connections to [`Places::fragile`]; returns when that is done.
    pub(crate) async fn cut(&self) -> Outcome<()> {
        let mut talk = self.talk.lock().await;
        talk.0.write_all(b"cut\n").await?;
        talk.1.next_line().await?.ok_or("the VM has ended")?;
        Ok(())
    }

    /// Ends it and what runs on it.
    pub(crate) async fn end(mut self) -> Outcome<()> {
        drop(self.talk);
        self.process.wait().await?;
        Ok(())
    }
}

/// Is the VM, until the input ends.
pub(crate) async fn serve() -> Outcome<()> {
    // What commands leave behind comes to init on a real VM.
    rustix::process::set_child_subreaper(rustix::process::Pid::from_raw(1))?;
    let vm = OpenSsh::start().await;
    let mut children = signal(SignalKind::child())?;
    tokio::spawn(async move {
        while children.recv().await.is_some() {
            while let Ok(Some(_)) = rustix::process::wait(rustix::process::WaitOptions::NOHANG) {}
        }
    });
    // No profile that prints: OpenSSH's own programs would take it for output.
    std::fs::write(vm.home().join(".bashrc"), "# empty\n")?;
    let directory = vm.directory().to_owned();
    let near = terminate(&directory.join("bench-ca.pem"), vm.sshd()).await?;
    let far = Proxy::start(near, ROUND_TRIP / 2).await?;
    let fragile = Proxy::start(near, Duration::ZERO).await?;
    let places = Places {
        vm: vm.vm.clone(),
        api: vm.settings().base_url().to_string(),
        near,
        far: far.address(),
        fragile: fragile.address(),
        directory,
        home: vm.home(),
    };
    let mut out = tokio::io::stdout();
    let mut say = async |line: String| {
        out.write_all(line.as_bytes()).await?;
        out.flush().await
    };
    say(format!("{}\n", serde_json::to_string(&places)?)).await?;
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        if line == "cut" {
            fragile.cut();
            say("done\n".into()).await?;
        }
    }
    drop(vm);
    Ok(())
}

/// A TLS terminator before `to`. Writes its authority's certificate.
///
/// Not that of the tests: theirs is compiled without optimisation, and bulk passes through here.
async fn terminate(authority_file: &Path, to: SocketAddr) -> Outcome<SocketAddr> {
    let mut authority = rcgen::CertificateParams::new(Vec::<String>::new())?;
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate()?;
    std::fs::write(authority_file, authority.self_signed(&key)?.pem())?;
    let issuer = rcgen::Issuer::new(authority, key);
    let key = rcgen::KeyPair::generate()?;
    let leaf =
        rcgen::CertificateParams::new(vec![format!("*.{DOMAIN}")])?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)?;
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                tcp.set_nodelay(true)?;
                let mut tls = acceptor.accept(tcp).await?;
                let mut inner = TcpStream::connect(to).await?;
                inner.set_nodelay(true)?;
                tokio::io::copy_bidirectional_with_sizes(&mut tls, &mut inner, BUFFER, BUFFER).await
            });
        }
    });
    Ok(address)
}
