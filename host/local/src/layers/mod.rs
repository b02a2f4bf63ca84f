//! The disk side of a commit: copying a frozen upper layer, and removing trees.
//!
//! A commit costs by the file, not by the byte. So a file that has not changed since the previous commit is not copied but
//! hard-linked to that commit's copy; both are immutable. Never to the live layer: the guest writes there.
//!
//! "Not changed" is the same path, inode, size and change time as in the manifest that lies beside the previous commit.
//! Change times have a grain: a file that was changed within [`manifest::RACY`] before a snapshot may be changed again
//! without a new time, so such a file is written down as unknown, and copied the next time (git's rule for its index).

mod copy;
mod manifest;
mod remove;

use crate::sandbox::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

/// Sets the flag when it is dropped: the copying thread looks at it.
struct CancelOnDrop(Arc<AtomicBool>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Copies the (frozen) tree `upper` to `to`, which must not exist.
///
/// Files that have not changed since `previous` (an immutable result of this function, of the same `upper`) are
/// hard-linked to it; others are cloned where the file system can, else copied. Extended attributes, whiteouts, hard links
/// inside the tree, fifos, sockets, modes, times and owners are kept. Beside `to` the file `<to>.manifest` is written for
/// the next snapshot.
///
/// # Errors
/// The first thing that could not be copied. What was written so far stays.
///
/// # Cancel safety
/// When the future is dropped the copying stops after the file at hand. The partial `to` is the caller's to remove.
pub async fn snapshot(
    upper: &Path,
    previous: Option<&Path>,
    to: &Path,
) -> Result<SnapshotStats, Error> {
    let (upper, previous, to) = (
        upper.to_path_buf(),
        previous.map(Path::to_path_buf),
        to.to_path_buf(),
    );
    let cancelled = Arc::new(AtomicBool::new(false));
    let guard = CancelOnDrop(Arc::clone(&cancelled));
    let copied = blocking("copy a layer", move || {
        copy::snapshot(&upper, previous.as_deref(), &to, &cancelled)
    })
    .await;
    drop(guard);
    copied
}

/// Removes a tree whatever the modes of its directories (overlayfs leaves `work/work` with mode 000). A tree that is
/// not there is removed already. Never follows symbolic links.
///
/// # Errors
/// The first name that could not be removed.
///
/// # Cancel safety
/// When the future is dropped the removal goes on in its thread.
pub async fn remove_tree(path: &Path) -> Result<(), Error> {
    let path = path.to_path_buf();
    blocking("remove a tree", move || {
        remove::remove_tree(&path).map_err(Error::io(format!("remove {}", path.display())))
    })
    .await
}

async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(e) => Err(Error::Io {
            what: what.into(),
            source: e.into(),
        }),
    }
}

/// The manifest that lies beside the copy `layer`.
fn manifest_path(layer: &Path) -> PathBuf {
    let mut name = layer.as_os_str().to_owned();
    name.push(".manifest");
    name.into()
}

#[cfg(test)]
mod tests;
