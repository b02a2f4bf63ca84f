//! Where servers are found, and by what name.
//!
//! A server listens in a directory that only its user can enter, under a name made of its parent's process id and its own: the parent is
//! the client. A hook is a child of the same client and knows its ancestors, so it finds the servers of its own client and of no other.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// So many processes stand above a hook at most.
const MOST_ANCESTORS: usize = 64;
/// So many names of a directory are looked at.
const MOST_NAMES: usize = 4096;

/// A server's socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Socket {
    pub(super) path: PathBuf,
    pub(super) parent: u32,
    pub(super) process: u32,
}

/// Where sockets may be, best first. A client does not hand the same environment to a server and to a hook, so all are looked at.
pub(super) fn directories() -> Vec<PathBuf> {
    let user = rustix::process::geteuid().as_raw();
    let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let mut all: Vec<PathBuf> = given
        .filter(|path| path.is_absolute())
        .into_iter()
        .collect();
    all.push(PathBuf::from(format!("/run/user/{user}")));
    let mut all: Vec<PathBuf> = all.into_iter().map(|path| path.join("pi-vers")).collect();
    all.push(PathBuf::from(format!("/tmp/pi-vers-{user}")));
    all.dedup();
    all
}

/// Makes the directory, for its user alone. One of somebody else's, or one that others can enter, is refused: a socket there could be another's.
pub(super) fn prepare(directory: &Path) -> std::io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(why) if why.kind() != std::io::ErrorKind::AlreadyExists => return Err(why),
        _ => {}
    }
    if is_private(directory) {
        return Ok(());
    }
    let why = "it is not a directory of this user alone";
    Err(std::io::Error::new(
        std::io::ErrorKind::PermissionDenied,
        why,
    ))
}

fn is_private(directory: &Path) -> bool {
    // Not through a link, which somebody else could turn.
    std::fs::symlink_metadata(directory).is_ok_and(|metadata| {
        metadata.is_dir()
            && metadata.uid() == rustix::process::geteuid().as_raw()
            && metadata.permissions().mode() & 0o077 == 0
    })
}

/// The socket of this process in the directory.
pub(super) fn own(directory: &Path) -> Option<Socket> {
    let parent = rustix::process::getppid()?.as_raw_pid();
    let (parent, process) = (u32::try_from(parent).ok()?, std::process::id());
    let path = directory.join(format!("mcp-{parent}-{process}.sock"));
    Some(Socket {
        path,
        parent,
        process,
    })
}

/// The sockets in the directory, if it can be trusted.
pub(super) fn sockets(directory: &Path) -> Vec<Socket> {
    if !is_private(directory) {
        return Vec::new();
    }
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let named = entries.take(MOST_NAMES).flatten().filter_map(|entry| {
        let name = entry.file_name();
        let (parent, process) = read(name.to_str()?)?;
        Some(Socket {
            path: entry.path(),
            parent,
            process,
        })
    });
    named.collect()
}

fn read(name: &str) -> Option<(u32, u32)> {
    let ids = name.strip_prefix("mcp-")?.strip_suffix(".sock")?;
    let (parent, process) = ids.split_once('-')?;
    Some((parent.parse().ok()?, process.parse().ok()?))
}

/// The processes above this one, the nearest first.
pub(super) fn ancestors() -> Vec<u32> {
    let mut all = Vec::new();
    let mut process = std::process::id();
    while let Some(parent) = parent(process) {
        if parent == 0 || all.len() >= MOST_ANCESTORS {
            break;
        }
        all.push(parent);
        process = parent;
    }
    all
}

fn parent(process: u32) -> Option<u32> {
    parent_of(&std::fs::read(format!("/proc/{process}/stat")).ok()?)
}

/// `PID (NAME) STATE PARENT …`: the name may hold anything, also parentheses.
fn parent_of(stat: &[u8]) -> Option<u32> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// Whether a process of this id runs.
pub(super) fn runs(process: u32) -> bool {
    Path::new(&format!("/proc/{process}")).exists()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_are_read_back_and_others_are_none() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pi-vers");
        prepare(&directory).unwrap();
        let own = own(&directory).unwrap();
        for name in ["mcp-1-2.sock.x", "mcp-1.sock", "mcp-a-b.sock", "x"] {
            std::fs::write(directory.join(name), "").unwrap();
        }
        std::fs::write(&own.path, "").unwrap();
        assert_eq!(sockets(&directory), std::slice::from_ref(&own));
        assert!(ancestors().starts_with(&[own.parent]));
    }

    #[test]
    fn a_directory_that_others_can_enter_is_not_used() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("pi-vers");
        prepare(&directory).unwrap();
        std::fs::write(directory.join("mcp-1-2.sock"), "").unwrap();
        assert_eq!(sockets(&directory).len(), 1);
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(prepare(&directory).is_err());
        assert!(sockets(&directory).is_empty());
        let link = root.path().join("link");
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        assert!(prepare(&link).is_err() && sockets(&link).is_empty());
    }

    #[test]
    fn a_name_with_parentheses_does_not_hide_the_parent() {
        for (stat, parent) in [
            (&b"7 (sh) S 5 7 7 0"[..], Some(5)),
            (b"7 (a) R 1 (b) S 5 7", Some(5)),
            (b"7 (\xff) S 5 7", Some(5)),
            (b"7 (sh) S", None),
            (b"", None),
        ] {
            assert_eq!(parent_of(stat), parent);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(stat: Vec<u8>, name in "\\PC{0,30}") {
            let _ = (parent_of(&stat), read(&name));
        }
    }
}
