//! Replacing a file in one step: a new file beside it, written, synced, renamed over it, and the directory synced.
//!
//! A crash leaves the old content or the new. What a crash can leave behind is a file `.pi-vers-….tmp`.

use std::ffi::OsString;
use std::hash::{BuildHasher as _, Hasher as _};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use rustix::fs::{AtFlags, FlockOperation, Gid, Mode, OFlags, Stat, Uid};
use rustix::fs::{fchmod, fchown, flock, fstat, fsync, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use super::resolve::{Last, Relative, Spot};
use super::{Root, WriteOptions, blocking, check_is_file, failed};
use crate::{Error, Kind};

/// How long to wait for others who replace an expected content in the same directory.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn write<S>(
    root: Root,
    path: Relative,
    data: S,
    options: WriteOptions,
) -> Result<u64, Error>
where
    S: Stream<Item = Result<Bytes, Error>> + Send,
{
    if options.mode.is_some_and(|mode| mode > 0o777) {
        return Err(Error::new(
            Kind::Invalid,
            "a mode is made of permission bits only, at most 0777",
        ));
    }
    let shown = path.as_str().to_owned();
    let mut draft = blocking(move || Draft::new(&root, &path, options)).await?;

    let io = |error| Error::io(format_args!("writing `{}`", shown.escape_debug()), &error);
    let mut file = tokio::fs::File::from_std(draft.take_file()?.into());
    let mut data = pin!(data);
    let mut written = 0;
    while let Some(chunk) = data.next().await {
        let chunk = chunk?;
        file.write_all(&chunk).await.map_err(io)?;
        written += chunk.len() as u64;
    }
    file.flush().await.map_err(io)?;
    let file = OwnedFd::from(file.into_std().await);
    blocking(move || draft.commit(&file)).await?;
    Ok(written)
}

/// The new file before it takes its place. Dropped, it is removed.
struct Draft {
    dir: OwnedFd,
    name: OsString,
    temporary: String,
    file: Option<OwnedFd>,
    committed: bool,
    options: WriteOptions,
    shown: String,
}

impl Draft {
    fn new(root: &Root, path: &Relative, options: WriteOptions) -> Result<Self, Error> {
        let failed = |error| failed("writing", path.as_str(), error);
        if path.is_directory() {
            return Err(failed(Errno::ISDIR));
        }
        let Spot { dir, name } = root.walk(path, Last::Follow, options.parents)?;
        let name = name.ok_or_else(|| failed(Errno::ISDIR))?;
        root.1.check(&dir, Some(&name))?;
        // A descriptor that can be synced and locked.
        let dir = openat(
            &dir,
            ".",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .map_err(failed)?;
        let random = std::hash::RandomState::new().build_hasher().finish();
        let temporary = format!(".pi-vers-{random:016x}.tmp");
        let mut draft = Self {
            dir,
            name,
            temporary,
            file: None,
            committed: true,
            options,
            shown: path.as_str().to_owned(),
        };
        // What cannot succeed fails before a byte is taken.
        draft.check()?;
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        draft.file = Some(
            openat(
                &draft.dir,
                &draft.temporary,
                flags,
                Mode::from_raw_mode(0o600),
            )
            .map_err(failed)?,
        );
        draft.committed = false;
        Ok(draft)
    }

    fn take_file(&mut self) -> Result<OwnedFd, Error> {
        self.file
            .take()
            .ok_or_else(|| Error::new(Kind::Other, "a draft without a file"))
    }

    fn failed(&self, error: Errno) -> Error {
        failed("writing", &self.shown, error)
    }

    /// What is replaced, if it may be.
    fn check(&self) -> Result<Option<Stat>, Error> {
        let old = match statat(&self.dir, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(self.failed(error)),
        };
        if let Some(stat) = &old {
            check_is_file(&self.shown, stat)?;
        }
        if let Some(expected) = self.options.expect_sha256 {
            let conflict = |why| {
                Error::new(
                    Kind::Conflict,
                    format!("`{}` {why}; read it again", self.shown.escape_debug()),
                )
            };
            match old {
                None => return Err(conflict("is not there any more")),
                Some(_) if self.digest()? != expected => {
                    return Err(conflict("has changed since it was read"));
                }
                Some(_) => {}
            }
        }
        Ok(old)
    }

    fn digest(&self) -> Result<[u8; 32], Error> {
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&self.dir, &self.name, flags, Mode::empty())
            .map_err(|error| self.failed(error))?;
        check_is_file(
            &self.shown,
            &fstat(&file).map_err(|error| self.failed(error))?,
        )?;
        let mut file = std::fs::File::from(file);
        let mut digest = Sha256::new();
        let mut buffer = vec![0; super::CHUNK];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(digest.finalize().into()),
                Ok(count) => digest.update(buffer.get(..count).unwrap_or_default()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    return Err(Error::io(
                        format_args!("reading `{}`", self.shown.escape_debug()),
                        &error,
                    ));
                }
            }
        }
    }

    fn commit(&mut self, file: &OwnedFd) -> Result<(), Error> {
        // Held until the rename, so that two who expect the same content cannot both find it.
        let _lock = match self.options.expect_sha256 {
            Some(_) => Some(self.lock()?),
            None => None,
        };
        let old = self.check()?;
        if let Some(old) = &old {
            // Root keeps the file its owner's. Others cannot give files away, and need not.
            let _ = fchown(
                file,
                Some(Uid::from_raw(old.st_uid)),
                Some(Gid::from_raw(old.st_gid)),
            );
        }
        let mode = self
            .options
            .mode
            .unwrap_or_else(|| old.map_or(0o644, |old| old.st_mode & 0o777));
        fchmod(file, Mode::from_raw_mode(mode)).map_err(|error| self.failed(error))?;
        fsync(file).map_err(|error| self.failed(error))?;
        renameat(&self.dir, &self.temporary, &self.dir, &self.name)
            .map_err(|error| self.failed(error))?;
        self.committed = true;
        fsync(&self.dir).map_err(|error| self.failed(error))
    }

    /// A lock on the directory; let go when the descriptor is closed.
    fn lock(&self) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir =
            openat(&self.dir, ".", flags, Mode::empty()).map_err(|error| self.failed(error))?;
        let start = Instant::now();
        loop {
            match flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(dir),
                // A lock that is waited for in the kernel cannot be given up; so ask again, with a deadline.
                Err(Errno::WOULDBLOCK) if start.elapsed() < LOCK_DEADLINE => {
                    std::thread::sleep(Duration::from_millis(2))
                }
                Err(Errno::WOULDBLOCK) => {
                    let message = format!(
                        "another program holds the directory of `{}` locked; try again",
                        self.shown
                    );
                    return Err(Error::new(Kind::Unavailable, message));
                }
                Err(error) => return Err(self.failed(error)),
            }
        }
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.committed {
            let _ = unlinkat(&self.dir, &self.temporary, AtFlags::empty());
        }
    }
}
