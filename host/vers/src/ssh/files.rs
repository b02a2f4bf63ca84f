//! placeholder docs
use bytes::Bytes;
use futures::Stream;

use crate::api::VmId;
use crate::error::{Error, Result};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A device, a socket, a pipe.
    Other,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The last part of its path.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub modified: u64,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
}

/// How to write a file.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Make missing directories.
    pub parents: bool,
    /// Permission bits; `None` keeps those of the file that is replaced, and gives a new one 0644.
    pub mode: Option<u32>,
    /// Fail with [`Kind::Conflict`](crate::Kind) unless the file's present content has this SHA-256.
    pub expect_sha256: Option<[u8; 32]>,
}

/// The files of one VM.
#[derive(Clone)]
pub struct Files {
    pub(super) _vm: VmId,
}

impl Files {
    /// Follows links.
    pub async fn stat(&self, path: &str) -> Result<Metadata> {
        let _ = path;
        Err(Error::other("not built yet"))
    }
    /// The entries of a directory, by name, links not followed.
    pub async fn list(&self, path: &str) -> Result<Vec<Metadata>> {
        let _ = path;
        Err(Error::other("not built yet"))
    }
    /// The bytes of a file from `offset` on, `len` of them or to its end.
    pub fn read(
        &self,
        path: &str,
        offset: u64,
        len: Option<u64>,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let _ = (path, offset, len);
        futures::stream::empty()
    }
    /// Replaces a file in one step. Returns the bytes written.
    pub async fn write<S>(&self, path: &str, data: S, options: WriteOptions) -> Result<u64>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let _ = (path, data, options);
        Err(Error::other("not built yet"))
    }
    /// Makes a directory and its missing parents.
    pub async fn mkdir_all(&self, path: &str) -> Result<()> {
        let _ = path;
        Err(Error::other("not built yet"))
    }
    /// Removes a file, a link or an empty directory.
    pub async fn remove(&self, path: &str) -> Result<()> {
        let _ = path;
        Err(Error::other("not built yet"))
    }
    /// Renames, replacing what is there, in one step.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let _ = (from, to);
        Err(Error::other("not built yet"))
    }
}
