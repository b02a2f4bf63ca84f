//! One server per state directory: `flock` on a file, which the kernel drops with its owner however that dies.

use crate::error::Error;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

/// Held as long as it lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

fn open(path: &Path) -> Result<File, Error> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::file("open", path))
}

impl Lock {
    /// Takes the lock if it is free.
    pub(crate) fn try_take(path: &Path) -> Result<Option<Self>, Error> {
        let file = open(path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(e) if e == rustix::io::Errno::WOULDBLOCK => Ok(None),
            Err(e) => Err(Error::file("lock", path)(e.into())),
        }
    }

    /// Waits until the lock is free, at most `within`. The waiting thread gives the lock back if nobody wants it any more.
    pub(crate) async fn take(path: &Path, within: Duration) -> Result<Option<Self>, Error> {
        if let Some(lock) = Self::try_take(path)? {
            return Ok(Some(lock));
        }
        let file = open(path)?;
        let (done, taken) = tokio::sync::oneshot::channel();
        // Not `spawn_blocking`: the runtime would wait for this thread when it ends.
        std::thread::spawn(move || {
            let result = flock(&file, FlockOperation::LockExclusive).map(|()| Self { _file: file });
            let _ = done.send(result);
        });
        match tokio::time::timeout(within, taken).await {
            Ok(Ok(Ok(lock))) => Ok(Some(lock)),
            Ok(Ok(Err(e))) => Err(Error::file("lock", path)(e.into())),
            Ok(Err(_)) | Err(_) => Ok(None),
        }
    }

    /// Whether somebody holds an exclusive lock on this open file.
    pub(crate) fn is_held(file: &File) -> bool {
        match flock(file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => {
                let _ = flock(file, FlockOperation::Unlock);
                false
            }
            Err(_) => true,
        }
    }

    /// Locks a file that is already open, for [`Lock::is_held`].
    pub(crate) fn hold(file: File) -> std::io::Result<Self> {
        flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Self { _file: file })
    }
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

    #[tokio::test]
    async fn a_second_taker_waits_for_the_first_to_let_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::try_take(&path).unwrap().unwrap();
        assert!(Lock::try_take(&path).unwrap().is_none());
        assert!(
            Lock::take(&path, Duration::from_millis(20))
                .await
                .unwrap()
                .is_none()
        );
        let waiting = tokio::spawn({
            let path = path.clone();
            async move { Lock::take(&path, Duration::from_secs(20)).await }
        });
        drop(first);
        assert!(waiting.await.unwrap().unwrap().is_some());
    }

    #[test]
    fn an_open_file_shows_whether_it_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("endpoint.json");
        std::fs::write(&path, "{}").unwrap();
        let held = Lock::hold(File::open(&path).unwrap()).unwrap();
        assert!(Lock::is_held(&File::open(&path).unwrap()));
        drop(held);
        assert!(!Lock::is_held(&File::open(&path).unwrap()));
    }
}
