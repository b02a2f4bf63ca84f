//! Signatures of components: those of OpenSSH.
//!
//! `ssh-keygen -Y sign -n pi-vers -f KEY hello.wasm` writes `hello.wasm.sig`: a format with a specification, a tool that is on every
//! developer's machine, and keys that people have and publish already. The namespace keeps a signature for something else from counting.
//! A signature stands beside a file or URL under its name with `.sig`, or is a layer of the artifact.
//!
//! One that does not belong to the bytes is refused always. One that does says who signed if the user knows the key; and once an
//! extension is tied to a key, it has to be signed by it for ever.

use std::collections::BTreeMap;

use russh::keys::ssh_key::{HashAlg, PublicKey, SshSig};

use crate::failure::{Code, Failure};

/// What a signature is for.
pub(super) const NAMESPACE: &str = "pi-vers";
pub(super) const LARGEST: usize = 64 << 10;

/// A public key, as OpenSSH writes it, without its comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key(PublicKey);

impl Key {
    /// `ssh-ed25519 AAAA…`
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut key = PublicKey::from_openssh(text.trim())
            .map_err(|why| format!("this is no public key of OpenSSH: {why}"))?;
        key.set_comment("");
        Ok(Self(key))
    }

    pub(super) fn text(&self) -> String {
        self.0.to_openssh().unwrap_or_default().trim().to_owned()
    }

    /// `SHA256:…`, as people compare it.
    pub(super) fn fingerprint(&self) -> String {
        self.0.fingerprint(HashAlg::Sha256).to_string()
    }
}

/// Keys by the names the user gave them.
pub(super) type Signers = BTreeMap<String, Key>;

/// Who signed: a key, and its name if the user knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signed {
    pub(super) key: Key,
    pub(super) name: Option<String>,
}

impl Signed {
    /// In words.
    pub(super) fn by(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({})", self.key.fingerprint()),
            None => format!("{}, a key you have no name for", self.key.fingerprint()),
        }
    }
}

fn refused(why: impl std::fmt::Display) -> Failure {
    Failure::new(Code::Denied, "signature", why.to_string())
        .next("do not use it before you know why; its author can sign it again")
}

/// Checks a signature against the bytes.
pub(super) fn verify(
    what: &str,
    bytes: &[u8],
    signature: &[u8],
    signers: &Signers,
) -> Result<Signed, Failure> {
    let signature = SshSig::from_pem(signature)
        .map_err(|why| refused(format!("the signature of {what} is none of OpenSSH: {why}")))?;
    let key = PublicKey::from(signature.public_key().clone());
    key.verify(NAMESPACE, bytes, &signature).map_err(|_| {
        refused(format!(
            "the signature of {what} does not belong to these bytes (or not to the namespace {NAMESPACE})"
        ))
    })?;
    let key = Key(key);
    let name = signers
        .iter()
        .find(|(_, known)| **known == key)
        .map(|(name, _)| name.clone());
    Ok(Signed { key, name })
}

/// Whether what an extension is tied to has signed.
pub(super) fn demand(what: &str, wanted: &Key, signed: Option<&Signed>) -> Result<(), Failure> {
    match signed {
        Some(signed) if signed.key == *wanted => Ok(()),
        Some(signed) => Err(refused(format!(
            "{what} has to be signed by {}, and is signed by {}",
            wanted.fingerprint(),
            signed.key.fingerprint()
        ))),
        None => Err(refused(format!(
            "{what} has to be signed by {}, and has no signature",
            wanted.fingerprint()
        ))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    // Made by `ssh-keygen -Y sign -n pi-vers` over "component\n", and with another namespace.
    const KEY: &str = include_str!("../../tests/author/keys/alice.pub");
    const GOOD: &[u8] = include_bytes!("../../tests/author/keys/component.sig");
    const OTHER: &[u8] = include_bytes!("../../tests/author/keys/component-other-namespace.sig");

    #[test]
    fn a_signature_of_openssh_counts_for_its_bytes_its_namespace_and_its_key_alone() {
        let alice = Key::parse(KEY).unwrap();
        let signers = Signers::from([("alice".to_owned(), alice.clone())]);
        let signed = verify("x", b"component\n", GOOD, &signers).unwrap();
        assert_eq!(signed.name.as_deref(), Some("alice"));
        assert!(demand("x", &alice, Some(&signed)).is_ok());
        assert!(demand("x", &alice, None).is_err());
        assert_eq!(
            verify("x", b"component\n", GOOD, &Signers::new())
                .unwrap()
                .name,
            None
        );
        for (bytes, signature) in [
            (&b"other\n"[..], GOOD),
            (b"component\n", OTHER),
            (
                b"component\n",
                b"-----BEGIN SSH SIGNATURE-----\n".as_slice(),
            ),
            (b"component\n", b""),
        ] {
            assert!(verify("x", bytes, signature, &signers).is_err());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_signature_panics(text in "\\PC{0,200}") {
            let _ = verify("x", b"y", text.as_bytes(), &Signers::new());
            let _ = Key::parse(&text);
        }
    }
}
