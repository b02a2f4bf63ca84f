//! The extensions inside the binary, and what they may do: see `build.rs` and `policy/shipped.toml`.

use pi_vers_host::policy::Policy;

use crate::failure::Failure;

/// An extension inside the binary.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shipped {
    pub(crate) name: &'static str,
    pub(crate) wasm: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/shipped.rs"));

/// The grants, bound to the digests of the bytes above.
const GRANTS: &str = include_str!(concat!(env!("OUT_DIR"), "/shipped.toml"));

/// The grants as text: the digests of all that is shipped are in it.
pub(crate) fn grants() -> &'static str {
    GRANTS
}

/// The policy of the shipped extensions.
pub(crate) fn policy() -> Result<Policy, Failure> {
    Ok(Policy::parse(GRANTS, "the shipped grants")?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use pi_vers_host::policy::{Digest, Lookup};

    #[test]
    fn every_shipped_extension_is_granted_by_its_digest_and_no_other() {
        let policy = policy().unwrap();
        assert!(!SHIPPED.is_empty());
        assert_eq!(policy.names().count(), SHIPPED.len());
        for shipped in SHIPPED {
            let found = policy.grants(shipped.name, &Digest::of(shipped.wasm));
            assert!(matches!(found, Lookup::Granted(_)), "{}", shipped.name);
            let found = policy.grants(shipped.name, &Digest::of(b"other bytes"));
            assert!(matches!(found, Lookup::Changed { .. }), "{}", shipped.name);
        }
    }
}
