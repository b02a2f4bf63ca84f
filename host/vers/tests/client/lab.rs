//! A VM for tests: a real OpenSSH server with its default limits, behind a TLS terminator, with as much of the REST
//! API as it takes to find and enter it. All on loopback; the "VM" is this machine.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::edge::{Terminator, Traffic};
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use vers_client::{Api, Environment, Overrides, Settings, Ssh, SshOptions, VmId};

/// What the stub answers; tests change it.
pub struct Platform {
    pub state: &'static str,
    pub key: String,
    pub key_requests: u32,
    pub state_requests: u32,
    pub metadata_requests: u32,
    /// The VM that all VMs descend from.
    pub parent: Option<VmId>,
}

pub struct Lab {
    pub dir: tempfile::TempDir,
    pub vm: VmId,
    pub platform: Arc<Mutex<Platform>>,
    pub good_key: String,
    sshd: Server,
    /// Where sshd itself listens.
    pub sshd_address: SocketAddr,
    /// Where the TLS terminator listens.
    pub edge: SocketAddr,
    api: SocketAddr,
    /// What happens to the connections through the edge.
    pub traffic: Arc<Traffic>,
}

fn new_key() -> PrivateKey {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
}

fn private(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

fn find_sshd() -> Option<PathBuf> {
    ["/usr/sbin/sshd", "/usr/local/sbin/sshd"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists())
}

/// OpenSSH's server. Never skipped: on Debian, as root, it is installed; else the test fails with the command.
fn sshd_binary() -> PathBuf {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if find_sshd().is_none() {
            let install = "apt-get update -qq && DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends openssh-server";
            let _ = std::process::Command::new("sh")
                .args(["-c", install])
                .output();
        }
    });
    find_sshd().expect("these tests need OpenSSH's server: apt-get install openssh-server")
}

/// What Debian's server takes of its clients.
const VARIABLES: &str = "AcceptEnv LANG LC_*\n";

impl Lab {
    pub async fn start() -> Self {
        Self::start_with(VARIABLES).await
    }

    /// With more lines for the server's configuration than its usual ones.
    pub async fn start_with(more: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("vers-lab-")
            .tempdir()
            .unwrap();
        let vm = VmId(uuid::Uuid::new_v4());
        std::fs::create_dir_all("/run/sshd")
            .expect("these tests run sshd, and have to run as root");

        let user = new_key();
        let good_key = user.to_openssh(LineEnding::LF).unwrap().to_string();
        std::fs::write(
            dir.path().join("authorized_keys"),
            user.public_key().to_openssh().unwrap(),
        )
        .unwrap();
        private(
            &dir.path().join("host_key"),
            &new_key().to_openssh(LineEnding::LF).unwrap(),
        );
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        // What a profile prints is not a command's output.
        std::fs::write(
            home.join(".bashrc"),
            "echo NOISE; echo NOISE >&2; alias true=false\n",
        )
        .unwrap();
        let (sshd, sshd_address) = start_sshd(dir.path(), more).await;

        let traffic = Arc::new(Traffic::default());
        let edge = Terminator::new(dir.path(), "*.vm.localhost")
            .relay(sshd_address, traffic.clone())
            .await;
        let platform = Arc::new(Mutex::new(Platform {
            state: "running",
            key: good_key.clone(),
            key_requests: 0,
            state_requests: 0,
            metadata_requests: 0,
            parent: None,
        }));
        let api = start_api(platform.clone()).await;
        Self {
            dir,
            vm,
            platform,
            good_key,
            sshd,
            sshd_address,
            edge,
            api,
            traffic,
        }
    }

    pub fn settings(&self, extra: &[(&str, &str)]) -> Settings {
        let ca = self.dir.path().join("ca.pem");
        let mut variables = vec![
            ("VERS_BASE_URL", format!("http://{}", self.api)),
            ("VERS_API_KEY", "key".to_owned()),
            ("VERS_VM_DOMAIN", "vm.localhost".to_owned()),
            ("VERS_VM_CONNECT", self.edge.to_string()),
            ("VERS_TLS_CA", ca.to_str().unwrap().to_owned()),
        ];
        variables.extend(
            extra
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        Settings::discover(Environment::of(variables), Overrides::default()).unwrap()
    }

    pub fn options(&self) -> SshOptions {
        SshOptions {
            known_hosts: Some(self.dir.path().join("known_hosts.json")),
            ..SshOptions::default()
        }
    }

    pub fn ssh(&self) -> Ssh {
        Ssh::new(Api::new(self.settings(&[])).unwrap(), self.options()).unwrap()
    }

    pub fn ssh_with(&self, options: SshOptions) -> Ssh {
        Ssh::new(Api::new(self.settings(&[])).unwrap(), options).unwrap()
    }

    /// A client of another server in the VM's place.
    pub fn ssh_to(&self, edge: SocketAddr, patience: Duration) -> Ssh {
        let settings = self.settings(&[("VERS_VM_CONNECT", &edge.to_string())]);
        let options = SshOptions {
            patience,
            known_hosts: None,
            ..self.options()
        };
        Ssh::new(Api::new(settings).unwrap(), options).unwrap()
    }

    pub fn platform(&self) -> std::sync::MutexGuard<'_, Platform> {
        self.platform.lock().unwrap()
    }

    /// Breaks every connection through the edge.
    pub fn cut(&self) {
        self.traffic.cut();
    }

    /// From now on nobody is let in.
    pub fn close(&self) {
        self.traffic.close(true);
    }

    /// From now on everybody is let in again.
    pub fn open(&self) {
        self.traffic.close(false);
    }

    /// Another server in its place, with another host key.
    pub async fn replace_host_key(&mut self) {
        self.sshd.stop();
        private(
            &self.dir.path().join("host_key"),
            &new_key().to_openssh(LineEnding::LF).unwrap(),
        );
        let (sshd, address) = start_sshd(self.dir.path(), VARIABLES).await;
        self.sshd = sshd;
        self.sshd_address = address;
        self.edge = Terminator::new(self.dir.path(), "*.vm.localhost")
            .relay(address, self.traffic.clone())
            .await;
    }

    /// An edge whose certificate is for other names.
    pub async fn wrong_name(&mut self) {
        self.edge = Terminator::new(self.dir.path(), "*.elsewhere.example")
            .relay(self.sshd_address, self.traffic.clone())
            .await;
    }
}

/// An sshd that ends with this.
struct Server(Child);

impl Server {
    fn stop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.path().join("sshd.log")).unwrap_or_default();
            eprintln!("sshd said:\n{log}");
        }
    }
}

async fn start_sshd(dir: &Path, more: &str) -> (Server, SocketAddr) {
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let at = |name: &str| dir.join(name).to_str().unwrap().to_owned();
    let config = format!(
        "ListenAddress 127.0.0.1:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
         PermitRootLogin prohibit-password\nPasswordAuthentication no\nSubsystem sftp internal-sftp\nSetEnv HOME={}\n{more}",
        at("host_key"),
        at("authorized_keys"),
        at("home"),
    );
    std::fs::write(dir.join("sshd_config"), config).unwrap();
    let mut sshd = Command::new(sshd_binary());
    sshd.args(["-D", "-f", &at("sshd_config"), "-E", &at("sshd.log")])
        .stdin(Stdio::null());
    let sshd = Server(sshd.spawn().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        if let Ok(mut stream) = TcpStream::connect(address).await {
            let mut banner = [0; 4];
            if stream.read_exact(&mut banner).await.is_ok() {
                assert_eq!(&banner, b"SSH-");
                return (sshd, address);
            }
        }
        assert!(
            Instant::now() < deadline,
            "sshd does not start: {}",
            std::fs::read_to_string(dir.join("sshd.log")).unwrap_or_default()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn start_api(platform: Arc<Mutex<Platform>>) -> SocketAddr {
    type Shared = State<Arc<Mutex<Platform>>>;
    async fn key(
        State(platform): Shared,
        UrlPath(_): UrlPath<String>,
    ) -> (StatusCode, Json<Value>) {
        let mut platform = platform.lock().unwrap();
        platform.key_requests += 1;
        (
            StatusCode::OK,
            Json(json!({ "ssh_port": 22, "ssh_private_key": platform.key })),
        )
    }
    async fn status(
        State(platform): Shared,
        UrlPath(id): UrlPath<String>,
    ) -> (StatusCode, Json<Value>) {
        let mut platform = platform.lock().unwrap();
        platform.state_requests += 1;
        let state = platform.state;
        (
            StatusCode::OK,
            Json(
                json!({ "vm_id": id, "owner_id": "o", "state": state, "created_at": "2026-01-01T00:00:00Z" }),
            ),
        )
    }
    async fn metadata(State(platform): Shared, UrlPath(id): UrlPath<String>) -> Json<Value> {
        let mut platform = platform.lock().unwrap();
        platform.metadata_requests += 1;
        let parent = platform.parent.map(|parent| parent.to_string());
        Json(
            json!({ "vm_id": id, "owner_id": "o", "state": platform.state, "created_at": "2026-01-01T00:00:00Z",
                "ip": "fd00::1", "grandparent_vm_id": parent }),
        )
    }
    let app = Router::new()
        .route("/api/v1/vm/{id}/metadata", get(metadata))
        .route("/api/v1/vm/{id}/ssh_key", get(key))
        .route("/api/v1/vm/{id}/status", get(status))
        .with_state(platform);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// Processes of this machine whose environment holds this text.
pub fn marked(mark: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if environment
            .windows(mark.len())
            .any(|window| window == mark.as_bytes())
        {
            found.push(pid);
        }
    }
    found
}

/// The process group of a process; `None` if it is gone, or a zombie.
pub fn group_of(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?;
    fields
        .nth(1)
        .filter(|_| !matches!(state, "Z" | "X"))?
        .parse()
        .ok()
}

/// Whether a process group has a process that is no zombie.
pub fn group_lives(group: u32) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        pid.and_then(group_of) == Some(group)
    })
}

/// Waits until something holds; says what does not.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(15);
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
