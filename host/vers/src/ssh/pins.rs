//! Host keys, pinned for each VM on first use.
//!
//! The platform does not publish VMs' host keys. TLS says that we talk to the platform's edge; the pin says that it
//! is still the same VM behind it. VMs of one snapshot have the same key, so a new VM with a known key is nothing
//! special, and a known VM with a new key is refused.
//!
//! The file is shared by all processes of the user: it is read for each connection, and changed under a lock.

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use russh::keys::{HashAlg, PublicKey};
use serde::{Deserialize, Serialize};

use crate::api::VmId;
use crate::error::{Error, Kind, Result};

#[derive(Default, Serialize, Deserialize)]
struct File {
    /// `algorithm base64` by the id of the VM.
    #[serde(default)]
    hosts: BTreeMap<String, String>,
    #[serde(flatten)]
    other: serde_json::Map<String, serde_json::Value>,
}

/// The pins of one user.
#[derive(Clone)]
pub(super) struct Pins {
    path: Option<PathBuf>,
    /// What this process has seen: the file may be absent, or not be writable.
    seen: Arc<Mutex<HashMap<VmId, PublicKey>>>,
}

impl Pins {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self {
            path,
            seen: Arc::default(),
        }
    }

    /// Refuses a key that is not the pinned one.
    pub(super) async fn check(&self, vm: VmId, key: &PublicKey) -> Result<()> {
        let seen = self.lock().get(&vm).cloned();
        let pinned = match (seen, &self.path) {
            (Some(pinned), _) => Some(pinned),
            (None, Some(path)) => {
                let path = path.clone();
                blocking(move || Ok(lookup(&read(&path)?, vm))).await?
            }
            (None, None) => None,
        };
        match pinned {
            // Comments do not count.
            Some(pinned) if pinned.key_data() != key.key_data() => {
                Err(self.changed(vm, &pinned, key))
            }
            _ => Ok(()),
        }
    }

    /// Pins a key that nothing was pinned for.
    pub(super) async fn learn(&self, vm: VmId, key: PublicKey) -> Result<()> {
        if let Some(path) = self.path.clone().filter(|_| !self.lock().contains_key(&vm)) {
            let line = key.to_openssh().map_err(|e| {
                Error::other(format!(
                    "the host key of VM {vm} cannot be written down: {e}"
                ))
            })?;
            // Two fields: the comment is none of ours.
            let line = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
            blocking(move || add(&path, vm, line)).await?;
        }
        self.lock().entry(vm).or_insert(key);
        Ok(())
    }

    fn changed(&self, vm: VmId, pinned: &PublicKey, key: &PublicKey) -> Error {
        let way_out = match &self.path {
            Some(path) => format!("if you know why, remove its line from {}", path.display()),
            None => "if you know why, start pi-vers again".to_owned(),
        };
        Error::new(
            Kind::Denied,
            format!(
                "connect to VM {vm}: its host key has changed from {} to {}: somebody may be in between; {way_out}",
                pinned.fingerprint(HashAlg::Sha256),
                key.fingerprint(HashAlg::Sha256)
            ),
        )
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<VmId, PublicKey>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::other("reading the file of host keys was broken off")))
}

fn failed(path: &Path, error: impl std::fmt::Display) -> Error {
    Error::other(format!(
        "the file of host keys {}: {error}; repair or remove it",
        path.display()
    ))
}

fn read(path: &Path) -> Result<File> {
    match std::fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map_err(|e| failed(path, e)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(File::default()),
        Err(error) => Err(failed(path, error)),
    }
}

fn lookup(file: &File, vm: VmId) -> Option<PublicKey> {
    PublicKey::from_openssh(file.hosts.get(&vm.to_string())?).ok()
}

fn add(path: &Path, vm: VmId, line: String) -> Result<()> {
    let directory = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let change = || -> std::io::Result<Result<()>> {
        std::fs::create_dir_all(directory)?;
        let lock = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path.with_extension("lock"))?;
        lock.lock()?;
        let mut file = match read(path) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        // Another process may have been first.
        if file.hosts.contains_key(&vm.to_string()) {
            return Ok(Ok(()));
        }
        file.hosts.insert(vm.to_string(), line);
        // A temporary file has mode 0600.
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        temporary.write_all(&serde_json::to_vec_pretty(&file)?)?;
        temporary.as_file().sync_all()?;
        temporary.persist(path)?;
        Ok(Ok(()))
    };
    change().map_err(|e| failed(path, e))?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn key(seed: u8) -> PublicKey {
        use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
        let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32]));
        russh::keys::PrivateKey::new(pair, "comment")
            .unwrap()
            .public_key()
            .clone()
    }

    #[tokio::test]
    async fn a_changed_key_is_refused_and_a_shared_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new").join("hosts.json");
        let (one, two) = (
            VmId(uuid::Uuid::from_u128(1)),
            VmId(uuid::Uuid::from_u128(2)),
        );
        let pins = Pins::new(Some(path.clone()));
        pins.check(one, &key(1)).await.unwrap();
        pins.learn(one, key(1)).await.unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        // Another process, later; and the comment is different.
        let pins = Pins::new(Some(path.clone()));
        let mut same = key(1);
        same.set_comment("other");
        pins.check(one, &same).await.unwrap();
        pins.check(two, &key(1)).await.unwrap();
        pins.learn(two, key(1)).await.unwrap();
        let error = pins.check(one, &key(3)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.to_string().contains("hosts.json"), "{error}");
        // What is pinned stays pinned.
        Pins::new(Some(path.clone()))
            .learn(one, key(3))
            .await
            .unwrap();
        assert!(Pins::new(Some(path)).check(one, &key(3)).await.is_err());
    }

    #[tokio::test]
    async fn without_a_file_keys_are_pinned_for_the_process() {
        let vm = VmId(uuid::Uuid::from_u128(1));
        let pins = Pins::new(None);
        pins.learn(vm, key(1)).await.unwrap();
        assert!(pins.check(vm, &key(2)).await.is_err());
    }

    #[tokio::test]
    async fn a_broken_file_refuses_rather_than_trusts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts.json");
        std::fs::write(&path, "{").unwrap();
        assert!(
            Pins::new(Some(path))
                .check(VmId(uuid::Uuid::nil()), &key(1))
                .await
                .is_err()
        );
    }
}
