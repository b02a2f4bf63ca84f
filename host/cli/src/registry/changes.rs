//! What an update changes, in words.

use std::collections::BTreeSet;

use pi_vers_host::policy::{Digest, Grants, Lookup, Policy, diff};

use super::list::Locked;

/// The differences of two versions, one a line.
pub(super) fn lines(old: &Locked, new: &Locked) -> Vec<String> {
    let mut all = Vec::new();
    if old.digest == new.digest {
        return all;
    }
    if old.version != new.version {
        all.push(format!("version: {}, was {}", new.version, old.version));
    }
    all.push(format!("digest: {}, was {}", new.digest, old.digest));
    if old.signed_by != new.signed_by {
        let key = |key: &Option<String>| key.clone().unwrap_or_else(|| "nobody".into());
        all.push(format!(
            "signed by: {}, was {}",
            key(&new.signed_by),
            key(&old.signed_by)
        ));
    }
    for (what, old, new) in [
        ("imports", &old.imports, &new.imports),
        ("may ask for", &old.asks, &new.asks),
        ("tool", &old.tools, &new.tools),
    ] {
        let (old, new): (BTreeSet<_>, BTreeSet<_>) = (old.iter().collect(), new.iter().collect());
        all.extend(new.difference(&old).map(|one| format!("+ {what} {one}")));
        all.extend(old.difference(&new).map(|one| format!("- {what} {one}")));
    }
    all.iter().map(|line| pi_vers_host::visible(line)).collect()
}

/// What was granted to these bytes, and will not hold for others.
pub(super) fn lost(policy: &Policy, name: &str, old: &Digest) -> Vec<String> {
    match policy.grants(name, old) {
        Lookup::Granted(grants) => diff(&grants, &Grants::nothing(name)),
        Lookup::Changed { .. } | Lookup::Unknown => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_and_what_is_gone_are_named() {
        let old = Locked {
            name: "a".into(),
            version: "1".into(),
            source: "s".into(),
            digest: "sha256:1".into(),
            bound: None,
            size: 1,
            signed_by: Some("k".into()),
            imports: vec!["x".into(), "y".into()],
            asks: vec!["vms".into()],
            tools: vec!["t".into()],
        };
        let new = Locked {
            version: "2".into(),
            digest: "sha256:2".into(),
            signed_by: None,
            imports: vec!["y".into(), "z".into()],
            asks: vec!["vms".into(), "process".into()],
            ..old.clone()
        };
        let found = lines(&old, &new);
        for line in [
            "+ imports z",
            "- imports x",
            "+ may ask for process",
            "signed by: nobody, was k",
        ] {
            assert!(found.iter().any(|known| known == line), "{found:?}");
        }
        assert!(lines(&old, &old).is_empty());
    }
}
