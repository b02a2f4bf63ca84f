//! The ed25519 keys of VMs: one to log in with, one that the VM proves itself with.

use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::Ed25519Keypair;
use std::path::Path;

/// A new private key in OpenSSH's format, as `GET /ssh_key` returns it.
pub(crate) fn generate() -> Result<String, String> {
    let seed: [u8; 32] = rand::random();
    let key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
    let text = key.to_openssh(LineEnding::LF).map_err(|e| e.to_string())?;
    Ok(text.to_string())
}

/// Reads a private key file.
pub(crate) fn read(path: &Path) -> Result<PrivateKey, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    PrivateKey::from_openssh(&text)
        .map_err(|e| format!("{} holds no private key: {e}", path.display()))
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
    fn keys_are_openssh_and_differ() {
        let (a, b) = (generate().unwrap(), generate().unwrap());
        assert!(a.starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n") && a.ends_with('\n'));
        assert_ne!(a, b);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &a).unwrap();
        assert!(
            read(file.path())
                .unwrap()
                .public_key()
                .to_openssh()
                .unwrap()
                .starts_with("ssh-ed25519 ")
        );
        std::fs::write(file.path(), "x").unwrap();
        assert!(read(file.path()).is_err());
    }
}
