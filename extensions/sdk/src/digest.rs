//! SHA-256, for writes that expect a file to be as it was read.

use sha2::{Digest, Sha256};

/// The SHA-256 of these bytes: 32 bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// The first `digits` hexadecimal digits of the SHA-256 of a text: a file name made from foreign text. At most 64.
#[must_use]
pub fn short_name(text: &str, digits: usize) -> String {
    let mut name: String = sha256(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    name.truncate(digits);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hexadecimal_and_stable() {
        assert_eq!(short_name("abc", 16), "ba7816bf8f01cfea");
        assert_eq!(short_name("../../etc", 64).len(), 64);
        assert!(
            short_name("a b\n", 64)
                .bytes()
                .all(|b| b.is_ascii_hexdigit())
        );
    }
}
