//! A platform and VMs for the tests.

use crate::client::{Client, DEADLINE};
use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use uuid::Uuid;
use vers_local::internal::{Handle, Sandboxes, Service, Spec, remove_tree, snapshot};

pub(crate) struct Platform {
    pub(crate) sandboxes: Arc<Sandboxes>,
    pub(crate) state: PathBuf,
    pub(crate) instance: String,
    pub(crate) host_key: PrivateKey,
}

pub(crate) struct Vm {
    pub(crate) id: Uuid,
    pub(crate) dir: PathBuf,
    pub(crate) key: PrivateKey,
    pub(crate) handle: Handle,
    pub(crate) layers: Vec<PathBuf>,
}

fn new_key() -> PrivateKey {
    PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519).unwrap()
}

/// Where state directories are made: on the disk that also holds the build, so that layers lie below the host's root.
pub(crate) fn base() -> PathBuf {
    match std::env::var_os("VERS_TEST_DIR") {
        Some(dir) => dir.into(),
        None => env!("CARGO_TARGET_TMPDIR").into(),
    }
}

/// The program that sandboxes are started with.
pub(crate) fn helper() -> PathBuf {
    match std::env::var_os("VERS_TEST_HELPER") {
        Some(helper) => helper.into(),
        None => env!("CARGO_BIN_EXE_vers-local-helper").into(),
    }
}

impl Platform {
    pub(crate) async fn new() -> Self {
        let instance = format!("test-{}", Uuid::new_v4().simple());
        let state = base().join(&instance);
        std::fs::create_dir_all(state.join("vms")).unwrap();
        let host_key = new_key();
        let text = host_key.to_openssh(LineEnding::LF).unwrap();
        std::fs::write(state.join("host_key"), text.as_bytes()).unwrap();
        let sandboxes = Sandboxes::probe(&state, None, helper(), &instance)
            .await
            .unwrap_or_else(|e| panic!("these tests need a machine that can build sandboxes: {e}"));
        Self {
            sandboxes: Arc::new(sandboxes),
            state,
            instance,
            host_key,
        }
    }

    pub(crate) async fn vm(&self, layers: &[PathBuf]) -> Vm {
        let id = Uuid::new_v4();
        let dir = self.state.join("vms").join(id.to_string());
        std::fs::create_dir(&dir).unwrap();
        let key = new_key();
        let handle = self.start(id, &dir, layers, &key).await;
        Vm {
            id,
            dir,
            key,
            handle,
            layers: layers.to_vec(),
        }
    }

    pub(crate) async fn start(
        &self,
        id: Uuid,
        dir: &Path,
        layers: &[PathBuf],
        key: &PrivateKey,
    ) -> Handle {
        let env = BTreeMap::from([
            ("PROJECT".to_owned(), "a \"quoted\" value".to_owned()),
            ("LINES".to_owned(), "a\nb".to_owned()),
        ]);
        let spec = Spec {
            id,
            dir,
            layers,
            hostname: "testvm",
            vcpu: 1,
            mem_mib: 512,
            authorized_key: &key.public_key().to_openssh().unwrap(),
            host_key: &self.state.join("host_key"),
            env: &env,
        };
        self.sandboxes.start(spec).await.unwrap()
    }

    pub(crate) async fn connect(&self, vm: &Vm) -> Client {
        let stream = self.sandboxes.dial(&vm.handle, Service::Ssh).await.unwrap();
        Client::connect(stream, self.host_key.public_key(), &vm.key)
            .await
            .expect("login")
    }

    /// As the platform commits: frozen, copied, thawed. The layers of a VM that is restored from it.
    pub(crate) async fn commit(
        &self,
        vm: &Vm,
        previous: Option<&Path>,
        name: &str,
    ) -> Vec<PathBuf> {
        let to = self.state.join(name);
        self.sandboxes.freeze(&vm.handle).await.unwrap();
        let copied = snapshot(&vm.dir.join("upper"), previous, &to).await;
        self.sandboxes.thaw(&vm.handle).await.unwrap();
        copied.unwrap();
        std::iter::once(to)
            .chain(vm.layers.iter().cloned())
            .collect()
    }

    pub(crate) async fn delete(&self, vm: Vm) {
        self.sandboxes.stop(&vm.handle).await.unwrap();
        remove_tree(&vm.dir).await.unwrap();
    }

    /// Ends the platform and checks that nothing of it is left.
    pub(crate) async fn end(self) {
        self.sandboxes.sweep(&[]).await.unwrap();
        // One whose start was given up before it was a process ends as soon as it is one.
        let left = || async { processes_of(&self.instance).is_empty() };
        eventually("no process is left", left).await;
        assert_eq!(
            std::fs::read_dir(self.state.join("vms")).unwrap().count(),
            0
        );
        assert_eq!(groups_of(&self.instance), Vec::<PathBuf>::new());
        remove_tree(&self.state).await.unwrap();
        assert!(!self.state.exists());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&self.instance), "{mounts}");
    }
}

/// For tests that fail half-way.
impl Drop for Platform {
    fn drop(&mut self) {
        for group in groups_of(&self.instance) {
            for vm in std::fs::read_dir(&group).into_iter().flatten().flatten() {
                let _ = std::fs::write(vm.path().join("cgroup.kill"), "1");
            }
        }
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).starts_with(&format!("vers-vm {}", self.instance)) {
                let _ = std::process::Command::new("kill")
                    .arg("-9")
                    .arg(entry.file_name())
                    .status();
            }
        }
    }
}

/// Command lines of the instance's processes.
pub(crate) fn processes_of(instance: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        if let Ok(line) = std::fs::read(entry.path().join("cmdline")) {
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.starts_with("vers-vm ") && line.contains(instance) {
                found.push(line);
            }
        }
    }
    found
}

fn groups_of(instance: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for root in [
        "/sys/fs/cgroup",
        "/sys/fs/cgroup/unified",
        "/sys/fs/cgroup/pids",
    ] {
        let path = Path::new(root).join(format!("pi-vers-{instance}"));
        if path.exists() {
            found.push(path);
        }
    }
    found
}

/// Waits for something that has no event, with a deadline.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, wait)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}
