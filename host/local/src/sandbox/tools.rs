//! Which tools of the host's homes are shown inside.
//!
//! Homes are private to a VM, and with them would go every toolchain that lives in one. The threat the other way: a home
//! is also where credentials live (`~/.cargo/credentials.toml`, `~/.docker/config.json`). So a `PATH` entry under a home is
//! shown by itself, read-only, and its whole tree only when it is the home of a known toolchain.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

/// Trees that hold a toolchain and nothing else.
const TOOLCHAINS: [&str; 14] = [
    ".pyenv",
    ".rbenv",
    ".nodenv",
    ".nvm",
    ".fnm",
    ".volta",
    ".asdf",
    ".sdkman",
    ".npm-global",
    ".linuxbrew",
    "miniconda3",
    "anaconda3",
    "miniforge3",
    "google-cloud-sdk",
];

/// Directories that every VM shows as the host has them.
pub(super) const SHOWN: [&str; 10] = [
    "usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix", "gnu",
];

const SYSTEM_PATH: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// What a VM takes over from the host's environment.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tools {
    /// Directories under homes to show read-only; none lies in another.
    pub(super) trees: Vec<PathBuf>,
    /// `PATH`, and where toolchains are told that they live.
    pub(super) env: BTreeMap<String, String>,
}

/// Looks through the host's `PATH`. `exists` says whether a directory exists.
pub(super) fn find(path: &OsStr, home: Option<&Path>, exists: impl Fn(&Path) -> bool) -> Tools {
    let mut trees: Vec<PathBuf> = Vec::new();
    let mut entries: Vec<PathBuf> = Vec::new();
    let mut env = BTreeMap::new();
    for entry in std::env::split_paths(path) {
        let plain = entry.is_absolute()
            && entry
                .components()
                .all(|c| matches!(c, Component::RootDir | Component::Normal(_)));
        if !plain || entries.contains(&entry) || !exists(&entry) {
            continue;
        }
        if shown(&entry) {
            entries.push(entry);
            continue;
        }
        let Some(base) = home_of(&entry, home) else {
            continue;
        };
        if entry == base {
            continue;
        }
        if entry == base.join(".cargo/bin") && exists(&base.join(".rustup")) {
            let rustup = base.join(".rustup");
            if let Some(text) = rustup.to_str() {
                env.insert("RUSTUP_HOME".into(), text.into());
            }
            trees.push(rustup);
        }
        let tree = toolchain(&entry, &base).unwrap_or_else(|| entry.clone());
        if tree.ends_with(".pyenv")
            && let Some(text) = tree.to_str()
        {
            env.insert("PYENV_ROOT".into(), text.into());
        }
        trees.push(tree);
        entries.push(entry);
    }
    for entry in SYSTEM_PATH.map(PathBuf::from) {
        if !entries.contains(&entry) {
            entries.push(entry);
        }
    }
    trees.sort();
    trees.dedup_by(|later, kept| later.starts_with(&*kept));
    let joined: Vec<&str> = entries.iter().filter_map(|e| e.to_str()).collect();
    env.insert("PATH".into(), joined.join(":"));
    Tools { trees, env }
}

/// What this server would give its VMs.
pub(super) fn of_this_process() -> Tools {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let home = std::env::var_os("HOME").map(PathBuf::from);
    find(&path, home.as_deref(), Path::is_dir)
}

fn shown(path: &Path) -> bool {
    matches!(path.components().nth(1), Some(Component::Normal(top)) if SHOWN.iter().any(|s| top == *s))
}

/// The home directory that `path` lies in.
fn home_of(path: &Path, home: Option<&Path>) -> Option<PathBuf> {
    let depth = if path.starts_with("/root") {
        2
    } else if path.starts_with("/home") {
        3
    } else {
        return None;
    };
    match home {
        Some(home) if home.components().count() >= depth && path.starts_with(home) => {
            Some(home.to_path_buf())
        }
        _ => Some(path.components().take(depth).collect()),
    }
}

/// The outermost known toolchain that `entry` lies in.
fn toolchain(entry: &Path, base: &Path) -> Option<PathBuf> {
    let mut tree = base.to_path_buf();
    for part in entry.strip_prefix(base).ok()?.components() {
        tree.push(part);
        if TOOLCHAINS.iter().any(|t| part.as_os_str() == *t) {
            return Some(tree);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    fn all(path: &str, home: &str) -> Tools {
        find(OsStr::new(path), Some(Path::new(home)), |_| true)
    }

    #[test]
    fn toolchains_come_whole_and_credentials_stay_away() {
        let t = all(
            "/root/.cargo/bin:/root/.pyenv/plugins/x/shims:/root/.pyenv/bin:/root/.docker/bin:/usr/bin",
            "/root",
        );
        let trees: Vec<&str> = t.trees.iter().map(|p| p.to_str().unwrap()).collect();
        assert_eq!(
            trees,
            [
                "/root/.cargo/bin",
                "/root/.docker/bin",
                "/root/.pyenv",
                "/root/.rustup"
            ]
        );
        assert!(t.env["PATH"].starts_with("/root/.cargo/bin:/root/.pyenv/plugins/x/shims:"));
        assert!(t.env["PATH"].contains(":/usr/bin:"));
        assert_eq!(t.env["RUSTUP_HOME"], "/root/.rustup");
    }

    #[test]
    fn a_home_itself_and_odd_places_are_not_shown() {
        let t = all(
            "/root:/home/u:relative:.:/work/bin:/home/u/../v/bin:/var/lib/x/bin",
            "/home/u",
        );
        assert!(t.trees.is_empty(), "{:?}", t.trees);
        assert_eq!(t.env["PATH"], SYSTEM_PATH.join(":"));
    }

    #[test]
    fn home_slash_shows_nothing() {
        let t = all("/secret/bin:/etc/x", "/");
        assert!(t.trees.is_empty());
    }
}
