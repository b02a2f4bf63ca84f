//! Files beneath granted directories (signatures first; the bodies follow).
use crate::{ByteStream, Error};
use bytes::Bytes;
use futures::Stream;
use std::path::Path;

/// What a root may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Access {
    ReadOnly,
    ReadWrite,
}

/// A granted directory, held by descriptor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Root(());

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum FileKind {
    File,
    Directory,
    Link,
    Other,
}

/// What is known of a file without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Metadata {
    pub name: String,
    pub kind: FileKind,
    pub size: u64,
    pub mode: u32,
    pub modified: u64,
}

/// How to write.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Make missing directories.
    pub parents: bool,
    /// Permission bits (at most 0777); `None` keeps those of the file, or 0644.
    pub mode: Option<u32>,
    /// `Conflict` unless the file's content has this digest.
    pub expect_sha256: Option<[u8; 32]>,
}

impl Root {
    /// Opens the directory; links in `path` itself are followed (the user named it).
    pub fn open(_path: &Path, _access: Access) -> Result<Self, Error> {
        unimplemented!()
    }
    /// Follows links. Paths are relative, `/`-separated; "" and "." are the root.
    pub async fn stat(&self, _path: &str) -> Result<Metadata, Error> {
        unimplemented!()
    }
    /// By name, links not followed.
    pub async fn list(&self, _path: &str) -> Result<Vec<Metadata>, Error> {
        unimplemented!()
    }
    /// Opened when first polled; `len: None` is to the end.
    pub fn read(&self, _path: &str, _offset: u64, _len: Option<u64>) -> ByteStream {
        unimplemented!()
    }
    /// Replaces in one step; an `Err` in the data leaves the old content. Cancel-safe in that sense too.
    pub async fn write<S>(
        &self,
        _path: &str,
        _data: S,
        _options: WriteOptions,
    ) -> Result<u64, Error>
    where
        S: Stream<Item = Result<Bytes, Error>> + Send,
    {
        unimplemented!()
    }
    /// A file, a link itself, or an empty directory.
    pub async fn remove(&self, _path: &str) -> Result<(), Error> {
        unimplemented!()
    }
}
