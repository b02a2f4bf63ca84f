//! The disk side of a commit: copying a frozen upper layer, and removing trees.

use crate::sandbox::Error;
use std::path::Path;

/// What a snapshot did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SnapshotStats {
    /// Regular files (names, so a hard link counts again).
    pub files: u64,
    /// Directories, without the root of the tree.
    pub dirs: u64,
    /// Symbolic links, whiteouts, fifos, sockets, devices.
    pub others: u64,
    /// Bytes that were copied.
    pub bytes_copied: u64,
    /// Files shared with the source by the file system (`FICLONE`).
    pub reflinked: u64,
    /// Files shared with the previous commit by a hard link.
    pub shared: u64,
}

/// Copies the (frozen) tree `upper` to `to`, which must not exist.
///
/// Files that have not changed since `previous` (an immutable result of this function) are hard-linked to it; others are
/// cloned where the file system can, else copied. Extended attributes, whiteouts, hard links inside the tree, fifos,
/// sockets, modes, times and owners are kept. Beside `to` a file `<to>.manifest` is written for the next snapshot.
///
/// # Errors
/// The first thing that could not be copied. What was written so far stays.
///
/// # Cancel safety
/// Dropping the future stops the copy soon; the partial `to` is the caller's to remove.
pub async fn snapshot(
    upper: &Path,
    previous: Option<&Path>,
    to: &Path,
) -> Result<SnapshotStats, Error> {
    let _ = (upper, previous, to);
    Err(Error::Io {
        what: "snapshot is being written".into(),
        source: std::io::ErrorKind::Unsupported.into(),
    })
}

/// Removes a tree whatever the modes of its directories (overlayfs leaves `work/work` with mode 000). A tree that is
/// not there is removed already. Never follows symbolic links.
///
/// # Errors
/// The first name that could not be removed.
///
/// # Cancel safety
/// Dropping the future lets the removal go on in its thread.
pub async fn remove_tree(path: &Path) -> Result<(), Error> {
    let _ = path;
    Err(Error::Io {
        what: "remove_tree is being written".into(),
        source: std::io::ErrorKind::Unsupported.into(),
    })
}
