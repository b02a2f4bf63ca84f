//! What a platform is and holds, for people and programs.

use crate::api::shell_auth::PendingLogin;
use crate::sandbox::{Capabilities, Tier};
use crate::state::record::VmRecord;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// The state of a local platform, running or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Whether a server answers.
    pub running: bool,
    /// Its process.
    pub pid: Option<u32>,
    /// Where its REST API is, ending in `/api/v1`.
    pub api_url: Option<String>,
    /// Where SSH over TLS is.
    pub ssh_addr: Option<SocketAddr>,
    /// Seconds since it was started.
    pub uptime_secs: Option<u64>,
    /// What it can do; `None` when it is not running.
    pub capabilities: Option<Capabilities>,
    /// What its commits hold, and what not.
    pub captured: Captured,
    /// Its VMs, oldest first.
    pub vms: Vec<VmStatus>,
    /// How many commits it keeps.
    pub commits: usize,
    /// Bytes on disk, files shared between commits counted once.
    pub disk_bytes: u64,
    /// Logins that wait for their link to be opened.
    pub pending_logins: Vec<PendingLogin>,
}

/// The plain statement of what a commit, a branch and a restore carry over on this platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// One sentence.
    pub statement: String,
    /// What is kept.
    pub captured: Vec<String>,
    /// What is lost, and kept in the cloud.
    pub not_captured: Vec<String>,
}

impl Captured {
    pub(crate) fn of(capabilities: Option<&Capabilities>) -> Self {
        let files = match capabilities.map(|c| c.tier) {
            Some(Tier::Sandbox) | None => "every file the VM changed, created or deleted",
            Some(Tier::UserSandbox) => {
                "every file the VM changed, created or deleted in its private directories (the rest of the system is read-only here)"
            }
        };
        let list = |items: &[&str]| items.iter().map(|s| (*s).to_owned()).collect();
        Self {
            statement: "A commit on the local platform holds the VM's disk only. In the cloud it also holds memory and running processes."
                .to_owned(),
            captured: list(&[files, "owners, modes, times, links, extended attributes", "the SSH host key"]),
            not_captured: list(&[
                "memory and running processes: a restored or branched VM starts with none",
                "open files, sockets and connections",
                "what lies on tmpfs inside the VM (/run, /dev/shm)",
                "this machine's own system files, which lie below every VM and change with it",
            ]),
        }
    }
}

/// One VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmStatus {
    /// Its id.
    pub vm_id: Uuid,
    /// The platform's word for its state.
    pub state: String,
    /// RFC 3339.
    pub created_at: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Why it is sleeping or dead.
    pub note: Option<String>,
}

impl VmStatus {
    pub(crate) fn of(vm: &VmRecord) -> Self {
        Self {
            vm_id: vm.id,
            state: vm.phase.word().to_owned(),
            created_at: vm.created_at.to_string(),
            labels: vm.labels.clone(),
            note: vm.note.clone(),
        }
    }
}

/// Bytes that a tree takes. What cannot be read counts nothing.
pub(crate) async fn disk_use(root: &Path) -> u64 {
    let root = root.to_owned();
    tokio::task::spawn_blocking(move || tree_bytes(root))
        .await
        .unwrap_or(0)
}

fn tree_bytes(root: PathBuf) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let mut shared = HashSet::new();
    let mut bytes = 0;
    let mut dirs = vec![root];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            // Not following links.
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.is_dir() {
                dirs.push(entry.path());
            }
            if found.is_dir() || found.nlink() == 1 || shared.insert((found.dev(), found.ino())) {
                bytes += found.blocks() * 512;
            }
        }
    }
    bytes
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
    fn shared_files_count_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let before = tree_bytes(dir.path().to_owned());
        std::fs::write(dir.path().join("a"), vec![1; 1 << 20]).unwrap();
        std::fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("c")).unwrap();
        let more = tree_bytes(dir.path().to_owned()) - before;
        assert!((1 << 20..2 << 20).contains(&more), "{more}");
    }
}
