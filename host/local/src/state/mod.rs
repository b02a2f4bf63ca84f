//! The state directory: one directory or file per object, JSON, written beside and renamed into place.
//!
//! ```text
//! <state>/ 0700      lock  endpoint.json  api_key(0600)  ca.pem  ca.key(0600)  server.log  env_vars.json
//!   vms/<id>/        meta.json  ssh_key  host_key  (and what the sandbox makes: upper/ work/ root/ sockets)
//!   commits/<id>/    meta.json  host_key  layer/  layer.manifest
//!   commits/.tmp-<id>/   a commit being made
//!   commit_tags/<id>.json  repositories/<id>.json
//!   logins/<id>.txt  links of the shell login, 0600
//!   trash/           what is being removed
//! ```
//!
//! A rename is atomic, so that a crash at any point leaves the old or the new record, never half of one. Only commits are
//! made durable (`syncfs`): a VM does not outlive the machine's crash anyway, and two `fsync`s cost more than a start.

mod lock;
pub(crate) mod record;

pub(crate) use lock::Lock;

use crate::error::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Paths of one platform.
#[derive(Debug, Clone)]
pub(crate) struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// Its directories.
    pub(crate) const PARTS: [&str; 6] = [
        "vms",
        "commits",
        "commit_tags",
        "repositories",
        "logins",
        "trash",
    ];
    /// Its files. The lock goes last.
    pub(crate) const FILES: [&str; 8] = [
        "endpoint.json",
        "endpoint.json.new",
        "api_key",
        "ca.pem",
        "ca.key",
        "server.log",
        "env_vars.json",
        "lock",
    ];

    /// Makes the directory and its parts, private to this user.
    pub(crate) fn create(root: &Path) -> Result<Self, Error> {
        let mut make = fs::DirBuilder::new();
        make.recursive(true).mode(0o700);
        make.create(root).map_err(Error::file("create", root))?;
        let root = root.canonicalize().map_err(Error::file("find", root))?;
        fs::set_permissions(&root, fs::Permissions::from_mode(0o700))
            .map_err(Error::file("make private", &root))?;
        for part in Self::PARTS {
            let dir = root.join(part);
            make.create(&dir).map_err(Error::file("create", &dir))?;
        }
        Ok(Self { root })
    }

    /// The directory if it is there and looks like a platform's.
    pub(crate) fn open(root: &Path) -> Result<Option<Self>, Error> {
        let root = match root.canonicalize() {
            Ok(root) => root,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::file("find", root)(e)),
        };
        if root.join("lock").is_file() && root.join("vms").is_dir() {
            Ok(Some(Self { root }))
        } else {
            Ok(None)
        }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Names this platform among others of the machine (in cgroup names): derived from the path.
    pub(crate) fn instance(&self) -> String {
        use sha2::{Digest as _, Sha256};
        use std::os::unix::ffi::OsStrExt as _;
        let digest = Sha256::digest(self.root.as_os_str().as_bytes());
        digest.iter().take(6).map(|b| format!("{b:02x}")).collect()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn vm(&self, id: Uuid) -> PathBuf {
        self.root.join("vms").join(id.to_string())
    }

    pub(crate) fn commit(&self, id: Uuid) -> PathBuf {
        self.root.join("commits").join(id.to_string())
    }

    pub(crate) fn commit_in_progress(&self, id: Uuid) -> PathBuf {
        self.root.join("commits").join(format!(".tmp-{id}"))
    }

    pub(crate) fn commit_tag(&self, id: Uuid) -> PathBuf {
        self.root.join("commit_tags").join(format!("{id}.json"))
    }

    pub(crate) fn repository(&self, id: Uuid) -> PathBuf {
        self.root.join("repositories").join(format!("{id}.json"))
    }

    /// Moves something out of the way, to be removed from there. What is not there is moved already.
    pub(crate) fn discard(&self, path: &Path) -> Result<Option<PathBuf>, Error> {
        let to = self.root.join("trash").join(Uuid::new_v4().to_string());
        match fs::rename(path, &to) {
            Ok(()) => Ok(Some(to)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::file("move to the trash", path)(e)),
        }
    }

    /// What lies in the trash.
    pub(crate) fn trash(&self) -> Vec<PathBuf> {
        list(&self.root.join("trash"))
    }

    /// The first secret of the platform: made at the first start, `<uuid><64 hex>` as in the cloud.
    pub(crate) fn api_key(&self) -> Result<String, Error> {
        let path = self.path("api_key");
        match fs::read_to_string(&path) {
            Ok(text) if valid_key(text.trim()) => return Ok(text.trim().to_owned()),
            Ok(_) => {
                return Err(Error::Damaged {
                    path,
                    why: "it holds no API key".into(),
                });
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Error::file("read", &path)(e)),
        }
        let secret: [u8; 32] = rand::random();
        let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
        let key = format!("{}{hex}", Uuid::new_v4());
        write(&path, key.as_bytes())?;
        Ok(key)
    }
}

/// Whether `key` is 36 characters of a UUID and 64 hex digits.
pub(crate) fn valid_key(key: &str) -> bool {
    key.len() == 100
        && key.split_at_checked(36).is_some_and(|(id, secret)| {
            Uuid::try_parse(id).is_ok() && secret.bytes().all(|b| b.is_ascii_hexdigit())
        })
}

/// Everything in a directory; nothing if it cannot be read.
pub(crate) fn list(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .collect()
}

/// Writes a private file (0600) so that readers see the old or the new content.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", Uuid::new_v4().simple()));
    let new = path.with_file_name(name);
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::rename(&new, path));
    written.map_err(|e| {
        let _ = fs::remove_file(&new);
        Error::file("write", path)(e)
    })
}

/// Writes a record as JSON.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Error> {
    let bytes = serde_json::to_vec_pretty(value).map_err(|e| Error::Damaged {
        path: path.to_owned(),
        why: format!("the record cannot be written as JSON: {e}"),
    })?;
    write(path, &bytes)
}

/// Reads a record.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = fs::read(path).map_err(Error::file("read", path))?;
    serde_json::from_slice(&bytes).map_err(|e| Error::Damaged {
        path: path.to_owned(),
        why: e.to_string(),
    })
}

/// Removes a record; a missing one is removed already.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(e)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;

    #[test]
    fn the_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(&dir.path().join("deep/state")).unwrap();
        let key = state.api_key().unwrap();
        assert!(valid_key(&key), "{key}");
        assert_eq!(state.api_key().unwrap(), key);
        let mode = fs::metadata(state.path("api_key"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let mode = fs::metadata(state.root()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_damaged_key_is_not_replaced_silently() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::create(dir.path()).unwrap();
        fs::write(state.path("api_key"), "x").unwrap();
        assert!(matches!(state.api_key(), Err(Error::Damaged { .. })));
    }

    #[test]
    fn a_record_is_replaced_whole_and_nothing_is_left_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("meta.json");
        write_json(&path, &vec![1, 2, 3]).unwrap();
        write_json(&path, &vec![4]).unwrap();
        assert_eq!(read_json::<Vec<u32>>(&path).unwrap(), [4]);
        assert_eq!(list(dir.path()), [path]);
    }

    #[test]
    fn instances_differ_by_path_and_stay_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let a = StateDir::create(&dir.path().join("a")).unwrap();
        let b = StateDir::create(&dir.path().join("b")).unwrap();
        assert_ne!(a.instance(), b.instance());
        drop(Lock::try_take(&a.path("lock")).unwrap());
        assert_eq!(
            StateDir::open(a.root()).unwrap().unwrap().instance(),
            a.instance()
        );
    }

    #[test]
    fn a_foreign_directory_is_not_taken_for_a_platform() {
        let dir = tempfile::tempdir().unwrap();
        assert!(StateDir::open(dir.path()).unwrap().is_none());
        assert!(
            StateDir::open(&dir.path().join("missing"))
                .unwrap()
                .is_none()
        );
    }
}
