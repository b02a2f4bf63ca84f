//! The few files under `/etc` that are a VM's own: their contents.

use super::plan::Network;
use std::collections::BTreeMap;

/// `/etc/hosts`.
pub(super) fn hosts(hostname: &str) -> String {
    format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n127.0.1.1 {hostname}\n")
}

/// `/etc/resolv.conf`. `host` is the host's.
pub(super) fn resolv_conf(network: Network, host: &[u8]) -> Vec<u8> {
    match network {
        Network::None => {
            b"# This VM has no network but loopback: names are looked up in /etc/hosts only.\n"
                .to_vec()
        }
        Network::Host => host.to_vec(),
    }
}

/// `/etc/shadow` or `/etc/gshadow` in which nobody has a password, from `/etc/passwd` or `/etc/group`.
pub(super) fn without_passwords(names: &[u8], rest: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for line in names.split(|b| *b == b'\n') {
        let name = line.split(|b| *b == b':').next().unwrap_or_default();
        if !name.is_empty() && !name.starts_with(b"#") {
            out.extend_from_slice(name);
            out.extend_from_slice(rest.as_bytes());
            out.push(b'\n');
        }
    }
    out
}

/// Whether this is a host name that goes into files and `sethostname` as it is.
pub(super) fn valid_hostname(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

/// `/etc/environment` after boot: what was there, with our variables added or replaced. The format has no way to write
/// a line break, so a value that holds one is left out (commands get it all the same).
pub(super) fn merge_environment(existing: &[u8], ours: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for line in existing.split_inclusive(|b| *b == b'\n') {
        let replaced =
            environment_line(line).is_some_and(|(key, _)| ours.keys().any(|k| k.as_bytes() == key));
        if !replaced {
            out.extend_from_slice(line);
            if !line.ends_with(b"\n") {
                out.push(b'\n');
            }
        }
    }
    for (key, value) in ours {
        if !value.contains(['\n', '\r', '\0']) {
            out.extend_from_slice(format!("{key}=\"{value}\"\n").as_bytes());
        }
    }
    out
}

/// One line of `/etc/environment` as pam_env reads it: `KEY=value`, with an optional `export` and optional quotes around
/// the whole value; `#` starts a comment line.
pub(crate) fn environment_line(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.trim_ascii();
    let line = match line.strip_prefix(b"export") {
        Some(rest) if rest.first().is_some_and(u8::is_ascii_whitespace) => rest.trim_ascii_start(),
        _ => line,
    };
    if line.starts_with(b"#") {
        return None;
    }
    let at = line.iter().position(|b| *b == b'=')?;
    let (key, value) = line.split_at_checked(at)?;
    let value = value.get(1..)?;
    let valid = !key.is_empty()
        && !key.iter().any(|b| b.is_ascii_whitespace() || *b == 0)
        && !value.contains(&0);
    if !valid {
        return None;
    }
    let value = match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        plain => plain,
    };
    Some((key, value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn passwords_are_gone() {
        let shadow = without_passwords(
            b"root:x:0:0::/root:/bin/sh\n\n#c\na:x:1:1:::\n",
            ":*:19000:0:99999:7:::",
        );
        assert_eq!(
            shadow,
            b"root:*:19000:0:99999:7:::\na:*:19000:0:99999:7:::\n"
        );
    }

    #[test]
    fn hostnames() {
        assert!(valid_hostname("vm-1a.x"));
        for bad in ["", "a b", "a\n127.0.0.1 x", &"a".repeat(64)] {
            assert!(!valid_hostname(bad), "{bad:?}");
        }
    }

    #[test]
    fn environment_keeps_what_is_not_ours() {
        let ours = BTreeMap::from([("B".into(), "2".into()), ("LONG".into(), "a\nb".into())]);
        assert_eq!(
            merge_environment(b"# c\nexport B='1'\nA=x", &ours),
            b"# c\nA=x\nB=\"2\"\n"
        );
    }

    proptest! {
        #[test]
        fn environment_reads_back(ours in proptest::collection::btree_map("[A-Za-z_][A-Za-z0-9_]{0,8}", "[^\n\r\0]{0,20}", 0..6),
                                  before in proptest::collection::vec(any::<u8>(), 0..80)) {
            let once = merge_environment(&before, &ours);
            let read: Vec<_> = once.split(|b| *b == b'\n').filter_map(environment_line).collect();
            for (key, value) in &ours {
                let found: Vec<_> = read.iter().filter(|(k, _)| *k == key.as_bytes()).collect();
                prop_assert_eq!(found.len(), 1);
                prop_assert_eq!(found[0].1, value.as_bytes());
            }
            prop_assert_eq!(merge_environment(&once, &ours), once);
        }
    }
}
