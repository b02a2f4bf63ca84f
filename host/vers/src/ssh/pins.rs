//! Host keys, pinned for each VM on first use.
//!
//! # What a host key proves here
//!
//! The platform does not publish VMs' host keys. TLS says that we talk to the platform's edge; the pin says that it is
//! still the same VM behind it. A branch, and a VM restored from a commit, resume with the memory and the disk of the
//! VM they come from: so they have its host key, public and private half. A key thus proves that it is *one of a
//! family*; which one, only the name that TLS verified says.
//!
//! # The rule, and what lineage means in it
//!
//! - **A VM is pinned by its id**, which is a UUID and never used twice. A VM with a pin must show that key, always.
//!   That some relative of it, known or claimed, has the other key is no excuse: whoever is root on a branch can make
//!   that branch's key anything, and would otherwise be let in for the parent.
//! - **A VM without a pin is pinned to what it shows**, over verified TLS. If the key is one that another VM is pinned
//!   to, that is what a branch or a restored commit looks like: it is taken silently. Relatives and strangers are not
//!   told apart in this: VMs of one image may share a key without a common commit that the platform still knows, and
//!   a stranger can show a family's key only by being root on a member of it.
//! - **A descendant of a pinned VM that shows another key** has made itself a new one after it was branched, as it
//!   should, or is not what it claims. It is taken as any first use is, and the log says so (`keeper.rs`). Refusing
//!   would punish good practice, on the word of an inference about the platform that nobody has promised.
//!
//! The alternative, one pin for a whole lineage, would have to accept every key of the family for every member: a hole
//! for each branch that runs what nobody has reviewed.
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

/// Whether a VM was met for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    /// It was known.
    No,
    /// Its key is that of another VM, too.
    WithKnownKey,
    /// Its key was never seen.
    WithNewKey,
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
        match self.pinned(vm).await? {
            // Comments do not count.
            Some(pinned) if pinned.key_data() != key.key_data() => {
                Err(self.changed(vm, &pinned, key))
            }
            _ => Ok(()),
        }
    }

    /// Pins a key that nothing was pinned for.
    pub(super) async fn learn(&self, vm: VmId, key: PublicKey) -> Result<First> {
        let mut first = {
            let mut seen = self.lock();
            if seen.contains_key(&vm) {
                return Ok(First::No);
            }
            let shared = seen
                .values()
                .any(|other| other.key_data() == key.key_data());
            if self.path.is_none() {
                seen.insert(vm, key.clone());
            }
            if shared {
                First::WithKnownKey
            } else {
                First::WithNewKey
            }
        };
        if let Some(path) = self.path.clone() {
            let line = key.to_openssh().map_err(|e| {
                Error::other(format!(
                    "the host key of VM {vm} cannot be written down: {e}"
                ))
            })?;
            // Two fields: the comment is none of ours.
            let line = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
            first = blocking(move || add(&path, vm, line)).await?;
            if first == First::No {
                // Another process was quicker, and may have been shown something else.
                self.check(vm, &key).await?;
            }
            self.lock().entry(vm).or_insert(key);
        }
        Ok(first)
    }

    /// Whether this VM has a pin.
    pub(super) async fn knows(&self, vm: VmId) -> bool {
        self.pinned(vm).await.is_ok_and(|pinned| pinned.is_some())
    }

    /// The key that this VM has to show.
    pub(super) async fn pinned(&self, vm: VmId) -> Result<Option<PublicKey>> {
        let seen = self.lock().get(&vm).cloned();
        match (seen, self.path.clone()) {
            (None, Some(path)) => blocking(move || lookup(&path, vm)).await,
            (seen, _) => Ok(seen),
        }
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

fn lookup(path: &Path, vm: VmId) -> Result<Option<PublicKey>> {
    let Some(line) = read(path)?.hosts.remove(&vm.to_string()) else {
        return Ok(None);
    };
    PublicKey::from_openssh(&line)
        .map(Some)
        .map_err(|e| failed(path, format_args!("the key of VM {vm}: {e}")))
}

/// Opens the lock file for this user alone; one that an earlier version left open to others is closed to them.
fn lock_file(path: &Path) -> std::io::Result<std::fs::File> {
    let mut options = std::fs::File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let lock = options.open(path)?;
    #[cfg(unix)]
    lock.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(lock)
}

fn add(path: &Path, vm: VmId, line: String) -> Result<First> {
    let directory = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let change = || -> std::io::Result<Result<First>> {
        std::fs::create_dir_all(directory)?;
        let lock = lock_file(&path.with_extension("lock"))?;
        lock.lock()?;
        let mut file = match read(path) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        // Another process may have been first.
        if file.hosts.contains_key(&vm.to_string()) {
            return Ok(Ok(First::No));
        }
        let first = if file.hosts.values().any(|other| *other == line) {
            First::WithKnownKey
        } else {
            First::WithNewKey
        };
        file.hosts.insert(vm.to_string(), line);
        // A temporary file has mode 0600.
        let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
        temporary.write_all(&serde_json::to_vec_pretty(&file)?)?;
        temporary.as_file().sync_all()?;
        temporary.persist(path)?;
        Ok(Ok(first))
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
        assert_eq!(pins.learn(one, key(1)).await.unwrap(), First::WithNewKey);
        let lock = path.with_extension("lock");
        for file in [&path, &lock] {
            assert_eq!(
                std::fs::metadata(file).unwrap().permissions().mode() & 0o777,
                0o600
            );
        }
        // As an earlier version left it.
        std::fs::set_permissions(&lock, std::fs::Permissions::from_mode(0o644)).unwrap();
        // Another process, later; and the comment is different.
        let pins = Pins::new(Some(path.clone()));
        let mut same = key(1);
        same.set_comment("other");
        pins.check(one, &same).await.unwrap();
        pins.check(two, &key(1)).await.unwrap();
        assert!(!pins.knows(two).await && pins.knows(one).await);
        assert_eq!(pins.learn(two, key(1)).await.unwrap(), First::WithKnownKey);
        assert_eq!(pins.learn(two, key(1)).await.unwrap(), First::No);
        assert_eq!(
            std::fs::metadata(&lock).unwrap().permissions().mode() & 0o777,
            0o600
        );
        // That a relative has the other key is no excuse.
        let three = VmId(uuid::Uuid::from_u128(3));
        assert_eq!(pins.learn(three, key(3)).await.unwrap(), First::WithNewKey);
        let error = pins.check(one, &key(3)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        assert!(error.to_string().contains("hosts.json"), "{error}");
        // What is pinned stays pinned.
        let learnt = Pins::new(Some(path.clone())).learn(one, key(3)).await;
        assert_eq!(learnt.unwrap_err().kind(), Kind::Denied);
        assert!(Pins::new(Some(path)).check(one, &key(3)).await.is_err());
    }

    #[tokio::test]
    async fn of_two_processes_at_a_first_use_only_one_key_wins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts.json");
        let vm = VmId(uuid::Uuid::from_u128(1));
        let (one, two) = (Pins::new(Some(path.clone())), Pins::new(Some(path)));
        // Both have looked before either has written.
        one.check(vm, &key(1)).await.unwrap();
        two.check(vm, &key(2)).await.unwrap();
        one.learn(vm, key(1)).await.unwrap();
        assert_eq!(
            two.learn(vm, key(2)).await.unwrap_err().kind(),
            Kind::Denied
        );
        assert!(two.check(vm, &key(2)).await.is_err());
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
        let vm = VmId(uuid::Uuid::nil());
        for broken in [
            "{".to_owned(),
            format!(r#"{{"hosts":{{"{vm}":"ssh-ed25519 AAAA"}}}}"#),
        ] {
            std::fs::write(&path, broken).unwrap();
            let pins = Pins::new(Some(path.clone()));
            assert!(pins.check(vm, &key(1)).await.is_err());
        }
    }
}
