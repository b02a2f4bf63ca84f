//! Files beneath granted directories.
//!
//! The threat: a path, a link, or a rename at the right moment that leads out of the directory; a device or a pipe
//! that acts when it is merely opened; a write that leaves half a file.
//!
//! A [`Root`] is a descriptor, so the directory may be renamed without the grant moving elsewhere. Paths are relative,
//! with `/` between parts, without `..`; links are followed only where they stay beneath (absolute ones never do).
//! What a path names is looked at before it is opened, and only regular files and directories are opened. See
//! `resolve` for how, and `write` for how a file is replaced in one step.

mod guard;
mod resolve;
#[cfg(test)]
mod tests;
pub mod tree;
mod write;

use std::ffi::CStr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::{ByteStream, Error, Kind};
pub use guard::Guard;
use resolve::{Last, Relative};

/// More entries than this are refused rather than held.
const MAX_ENTRIES: usize = 100_000;
/// Bytes read at a time.
const CHUNK: usize = 128 * 1024;

/// What a root may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// [`Root::write`] and [`Root::remove`] are denied.
    ReadOnly,
    /// Everything.
    ReadWrite,
}

/// A granted directory, held by descriptor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Root(Arc<Inner>, Guard);

#[derive(Debug)]
struct Inner {
    dir: OwnedFd,
    access: Access,
    /// Ask the kernel (`openat2`); tests turn it off to have the walk instead.
    kernel: bool,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a pipe, a socket: can be seen, not opened.
    Other,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The last part of the path; bytes that are no UTF-8 are replaced.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970; earlier is 0.
    pub modified: u64,
}

impl Metadata {
    fn new(name: String, stat: &Stat) -> Self {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => FileKind::File,
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Link,
            _ => FileKind::Other,
        };
        Self {
            name,
            kind,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mode: Mode::from_raw_mode(stat.st_mode).as_raw_mode() & 0o7777,
            modified: u64::try_from(stat.st_mtime).unwrap_or(0),
        }
    }
}

/// How to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Make missing directories (0755, less the umask).
    pub parents: bool,
    /// Permission bits, at most 0777; `None` keeps those of the file that is replaced, and gives a new one 0644.
    pub mode: Option<u32>,
    /// Fail with `Conflict` unless the file's content has this digest. Among those who write with this option, no
    /// two can both succeed on the same content.
    pub expect_sha256: Option<[u8; 32]>,
}

/// An error of the system while doing something to a path.
fn failed(doing: &str, path: &str, error: Errno) -> Error {
    Error::io(
        format_args!("{doing} `{}`", path.escape_debug()),
        &error.into(),
    )
}

/// Runs what blocks where blocking is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let ended = |error| Error::new(Kind::Other, format!("file work was abandoned: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

impl Root {
    /// Opens the directory. Links in `path` are followed: it is the user who named it. Blocks for one `open`.
    pub fn open(path: &Path, access: Access) -> Result<Self, Error> {
        Self::open_with(path, access, true)
    }

    fn open_with(path: &Path, access: Access, kernel: bool) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, path, flags, Mode::empty())
            .map_err(|error| failed("opening the directory", &path.to_string_lossy(), error))?;
        let inner = Inner {
            dir,
            access,
            kernel,
        };
        Ok(Self(Arc::new(inner), Guard::default()))
    }

    /// The same directory, in which what is guarded is not written to.
    #[must_use]
    pub fn guarded(self, guard: Guard) -> Self {
        Self(self.0, guard)
    }

    /// Follows links that stay beneath. "" and "." are the directory itself.
    pub async fn stat(&self, path: &str) -> Result<Metadata, Error> {
        let (root, path) = (self.clone(), Relative::parse(path)?);
        blocking(move || {
            let (_, stat) = root.look(&path)?;
            Ok(Metadata::new(path.name(), &stat))
        })
        .await
    }

    /// The entries of a directory, by name, links not followed. At most 100,000.
    pub async fn list(&self, path: &str) -> Result<Vec<Metadata>, Error> {
        let (root, path) = (self.clone(), Relative::parse(path)?);
        blocking(move || {
            let failed = |error| failed("listing", path.as_str(), error);
            let dir = root.open_beneath(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let mut entries = Vec::new();
            for entry in rustix::fs::Dir::read_from(&dir).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let name: &CStr = entry.file_name();
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                if entries.len() == MAX_ENTRIES {
                    let message =
                        format!("`{}` has more than {MAX_ENTRIES} entries", path.as_str());
                    return Err(Error::new(Kind::Limit, message));
                }
                match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => {
                        entries.push(Metadata::new(name.to_string_lossy().into_owned(), &stat))
                    }
                    // Gone since it was listed.
                    Err(Errno::NOENT) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            entries.sort_by(|a, b| a.name.cmp(&b.name));
            Ok(entries)
        })
        .await
    }

    /// The bytes of a file from `offset`, `len` of them or to the end; fewer if the file is shorter. The file is opened
    /// when the stream is first polled, and read only as fast as the stream is.
    pub fn read(&self, path: &str, offset: u64, len: Option<u64>) -> ByteStream {
        let (root, path) = (self.clone(), path.to_owned());
        let open = async move {
            let shown = path.clone();
            let path = Relative::parse(&path)?;
            let file = blocking(move || root.open_file(&path)).await?;
            let failed =
                move |error| Error::io(format_args!("reading `{}`", shown.escape_debug()), &error);
            let mut file = tokio::fs::File::from_std(file.into());
            if offset > 0 {
                file.seek(std::io::SeekFrom::Start(offset))
                    .await
                    .map_err(&failed)?;
            }
            file.set_max_buf_size(CHUNK);
            let bytes = ReaderStream::with_capacity(file.take(len.unwrap_or(u64::MAX)), CHUNK);
            Ok::<_, Error>(bytes.map_err(failed))
        };
        futures::stream::once(open).try_flatten().boxed()
    }

    /// Replaces the file in one step: readers see the old content or the new, never a part. A link that stays beneath
    /// is followed, and its target replaced. Durable when it returns. Returns the bytes written.
    ///
    /// If the data has an `Err`, or the future is dropped while data comes, the old content stays. Hard links to the old file keep it.
    ///
    /// # Errors
    /// `Denied` for a path that leads out, a read-only root, a device; `Conflict` if the content is not as expected.
    pub async fn write<S>(&self, path: &str, data: S, options: WriteOptions) -> Result<u64, Error>
    where
        S: Stream<Item = Result<Bytes, Error>> + Send,
    {
        self.check_writable(path)?;
        write::write(self.clone(), Relative::parse(path)?, data, options).await
    }

    /// Removes a file, a link (not what it points at), or an empty directory.
    pub async fn remove(&self, path: &str) -> Result<(), Error> {
        self.check_writable(path)?;
        let (root, path) = (self.clone(), Relative::parse(path)?);
        blocking(move || {
            let failed = |error| failed("removing", path.as_str(), error);
            let spot = root.walk(&path, Last::Keep, false)?;
            let Some(name) = &spot.name else {
                return Err(Error::new(
                    Kind::Invalid,
                    "the granted directory itself is not removed",
                ));
            };
            root.1.check(&spot.dir, Some(name))?;
            let stat =
                rustix::fs::statat(&spot.dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed)?;
            let flags = match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => AtFlags::REMOVEDIR,
                FileType::RegularFile | FileType::Symlink if !path.is_directory() => {
                    AtFlags::empty()
                }
                FileType::RegularFile | FileType::Symlink => return Err(failed(Errno::NOTDIR)),
                _ => return Err(not_a_file(path.as_str())),
            };
            rustix::fs::unlinkat(&spot.dir, name, flags).map_err(failed)
        })
        .await
    }

    fn check_writable(&self, path: &str) -> Result<(), Error> {
        match self.0.access {
            Access::ReadWrite => Ok(()),
            Access::ReadOnly => {
                let message = format!("`{}` is granted for reading only", path.escape_debug());
                Err(Error::new(Kind::Denied, message))
            }
        }
    }

    /// Opens a regular file for reading; anything else is looked at but never opened.
    fn open_file(&self, path: &Relative) -> Result<OwnedFd, Error> {
        let (_, seen) = self.look(path)?;
        check_is_file(path.as_str(), &seen)?;
        // Should a pipe or a device have taken its place, this neither waits nor makes it our terminal.
        let file = self.open_beneath(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
        let opened =
            rustix::fs::fstat(&file).map_err(|error| failed("opening", path.as_str(), error))?;
        if (opened.st_dev, opened.st_ino) != (seen.st_dev, seen.st_ino) {
            let message = format!(
                "`{}` was replaced while it was opened; try again",
                path.as_str()
            );
            return Err(Error::new(Kind::Conflict, message));
        }
        Ok(file)
    }
}

fn check_is_file(path: &str, stat: &Stat) -> Result<(), Error> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(failed("opening the file", path, Errno::ISDIR)),
        _ => Err(not_a_file(path)),
    }
}

fn not_a_file(path: &str) -> Error {
    let message = format!(
        "`{}` is a device, a pipe or a socket; only files and directories are served",
        path.escape_debug()
    );
    Error::new(Kind::Denied, message)
}
