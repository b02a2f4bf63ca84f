//! The SSH public key that identifies the person: one of theirs, else a new pair.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use russh::keys::ssh_key::LineEnding;
use russh::keys::{Algorithm, PrivateKey, PublicKey};

use crate::error::{Error, Result};

const NAMES: [&str; 3] = ["id_ed25519.pub", "id_ecdsa.pub", "id_rsa.pub"];
const NEW: &str = "id_ed25519";

/// The public key as one line, made if there is none.
pub(super) async fn public_key(directory: &Path) -> Result<String> {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || find(&directory))
        .await
        .unwrap_or_else(|_| Err(Error::other("log in: broken off")))
}

fn find(directory: &Path) -> Result<String> {
    for name in NAMES {
        let path = directory.join(name);
        if let Ok(text) = std::fs::read_to_string(&path) {
            let line = text.trim();
            // Its kind may be one that this crate cannot use; the platform only compares it.
            if line.lines().count() != 1 || PublicKey::from_openssh(line).is_err() {
                return Err(bad(
                    &path,
                    "is not an OpenSSH public key; repair or remove it",
                ));
            }
            return Ok(line.to_owned());
        }
    }
    let private = directory.join(NEW);
    if private.exists() {
        // Never overwrite somebody's key.
        let key = russh::keys::load_secret_key(&private, None)
            .map_err(|_| bad(&private, "has no public half beside it, and is not readable without a passphrase; make it with ssh-keygen -y"))?;
        return line(key.public_key(), &private);
    }
    make(directory)
}

fn make(directory: &Path) -> Result<String> {
    let path = directory.join(NEW);
    let key = PrivateKey::random(&mut russh::keys::key::safe_rng(), Algorithm::Ed25519)
        .map_err(|e| bad(&path, &format!("cannot be made: {e}")))?;
    let private = key
        .to_openssh(LineEnding::LF)
        .map_err(|e| bad(&path, &format!("cannot be made: {e}")))?;
    let public = line(key.public_key(), &path)?;
    let write = || -> std::io::Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let mut file = std::fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(private.as_bytes())?;
        file.sync_all()?;
        std::fs::write(path.with_extension("pub"), format!("{public}\n"))
    };
    write().map_err(|e| bad(&path, &format!("cannot be written: {e}")))?;
    Ok(public)
}

fn line(key: &PublicKey, path: &Path) -> Result<String> {
    key.to_openssh()
        .map(|line| line.trim().to_owned())
        .map_err(|e| bad(path, &format!("cannot be written down: {e}")))
}

fn bad(path: &Path, why: &str) -> Error {
    Error::invalid(format!("log in: the SSH key {} {why}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_pair_is_made_once_and_kept_private() {
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join(".ssh");
        let made = find(&directory).unwrap();
        assert!(made.starts_with("ssh-ed25519 "));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(
            (mode(&directory), mode(&directory.join(NEW))),
            (0o700, 0o600)
        );
        assert_eq!(find(&directory).unwrap(), made);
        // Only the public half is missing: it is the same key.
        std::fs::remove_file(directory.join("id_ed25519.pub")).unwrap();
        assert_eq!(find(&directory).unwrap(), made);
        std::fs::write(directory.join(NEW), "no key").unwrap();
        assert!(find(&directory).is_err());
        assert_eq!(std::fs::read(directory.join(NEW)).unwrap(), b"no key");
    }

    #[test]
    fn the_persons_own_key_is_preferred() {
        let home = tempfile::tempdir().unwrap();
        let other = find(home.path()).unwrap();
        let directory = home.path().join("ssh");
        std::fs::create_dir(&directory).unwrap();
        std::fs::write(directory.join("id_rsa.pub"), format!("{other} me@here\n")).unwrap();
        assert_eq!(find(&directory).unwrap(), format!("{other} me@here"));
        assert!(!directory.join(NEW).exists());
    }
}
