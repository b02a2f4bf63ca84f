//! Files of a VM, over one SFTP session that all its users share.
//!
//! Reads and writes keep several requests under way, so that distance costs throughput little. A file is replaced in
//! one step: its new content goes to a temporary file in the same directory, which then takes its name. Whoever reads
//! meanwhile sees the old content or the new, and after a failure there is the old.
//!
//! Paths are texts. They may hold any character but NUL; relative ones, and those that begin with `~/`, start in
//! root's home directory. A name that is no UTF-8 is listed with replacement characters, and cannot be opened.

use std::pin::pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, FuturesOrdered, FuturesUnordered};
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::{FileAttributes, OpenFlags};
use sha2::{Digest as _, Sha256};

use super::Ssh;
use super::sftp::{IN_FLIGHT, OpenFile, Sftp, is_end, is_missing};
use crate::api::VmId;
use crate::error::{Error, Kind, Result, shown};

/// Entries of one directory that are listed.
const MOST_ENTRIES: usize = 200_000;
const MOST_LINKS: usize = 40;

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

impl Metadata {
    fn new(path: &str, attributes: &FileAttributes) -> Self {
        let mode = attributes.permissions.unwrap_or(0);
        let kind = match mode & 0o170_000 {
            0o100_000 => FileKind::File,
            0o040_000 => FileKind::Directory,
            0o120_000 => FileKind::Link,
            _ => FileKind::Other,
        };
        let name = path
            .trim_end_matches('/')
            .rsplit('/')
            .next()
            .filter(|name| !name.is_empty())
            .unwrap_or("/");
        Self {
            name: name.to_owned(),
            kind,
            size: attributes.size.unwrap_or(0),
            mode: mode & 0o7777,
            modified: attributes.mtime.map_or(0, u64::from),
            uid: attributes.uid.unwrap_or(0),
            gid: attributes.gid.unwrap_or(0),
        }
    }
}

/// How to write a file.
#[derive(Debug, Clone, Default)]
pub struct WriteOptions {
    /// Make missing directories.
    pub parents: bool,
    /// Permission bits; `None` keeps those of the file that is replaced, and gives a new one 0644.
    pub mode: Option<u32>,
    /// Fail with [`Kind::Conflict`] unless the file's present content has this SHA-256.
    pub expect_sha256: Option<[u8; 32]>,
}

/// The files of one VM. Cheap to clone; lives on through [`Ssh::disconnect`], and connects again when it is used.
#[derive(Debug, Clone)]
pub struct Files {
    ssh: Ssh,
    vm: VmId,
}

impl Files {
    pub(super) fn new(ssh: Ssh, vm: VmId) -> Self {
        Self { ssh, vm }
    }

    /// Whose files they are.
    pub fn vm(&self) -> VmId {
        self.vm
    }

    async fn sftp(&self) -> Result<Arc<Sftp>> {
        self.ssh.machine(self.vm).sftp(self.ssh.patience()).await
    }

    /// What a path stands for; links are followed.
    pub async fn stat(&self, path: &str) -> Result<Metadata> {
        let at = checked(path)?;
        let sftp = self.sftp().await?;
        let found = sftp
            .raw()
            .stat(at.as_str())
            .await
            .map_err(|e| sftp.error(&named("stat", path), e))?;
        Ok(Metadata::new(&at, &found.attrs))
    }

    /// The entries of a directory, sorted by name; links are not followed.
    pub async fn list(&self, path: &str) -> Result<Vec<Metadata>> {
        let at = checked(path)?;
        let what = named("list", path);
        let sftp = self.sftp().await?;
        let directory = sftp
            .open_directory(&at)
            .await
            .map_err(|e| sftp.error(&what, e))?;
        let mut entries = Vec::new();
        loop {
            match sftp.raw().readdir(directory.handle.as_str()).await {
                Ok(page) => entries.extend(
                    page.files
                        .iter()
                        .filter(|file| file.filename != "." && file.filename != "..")
                        .map(|file| Metadata::new(&file.filename, &file.attrs)),
                ),
                Err(error) if is_end(&error) => break,
                Err(error) => return Err(sftp.error(&what, error)),
            }
            if entries.len() > MOST_ENTRIES {
                return Err(Error::new(
                    Kind::Limit,
                    format!("{what}: it has more than {MOST_ENTRIES} entries"),
                ));
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The bytes of a file from `offset` on, `len` of them or to its end. Fails at most once, as its last item; without
    /// a failure it was everything. Nothing is opened before it is polled. A file that grows is read as far as it went
    /// when it was opened.
    pub fn read(
        &self,
        path: &str,
        offset: u64,
        len: Option<u64>,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static + use<> {
        let (files, path) = (self.clone(), path.to_owned());
        stream::once(async move {
            let at = checked(&path)?;
            let sftp = files.sftp().await?;
            let reader = Reader::open(sftp, &at, named("read", &path), offset, len).await?;
            Ok::<_, Error>(stream::try_unfold(reader, |mut reader| async move {
                Ok(reader.next().await?.map(|data| (data, reader)))
            }))
        })
        .try_flatten()
    }

    /// A whole file of at most `most` bytes.
    ///
    /// # Errors
    /// [`Kind::Limit`] if it is longer.
    pub async fn read_all(&self, path: &str, most: usize) -> Result<Bytes> {
        let mut content = BytesMut::new();
        let mut data = pin!(self.read(path, 0, None));
        while let Some(data) = data.try_next().await? {
            if content.len() + data.len() > most {
                return Err(Error::new(
                    Kind::Limit,
                    format!("{}: it is longer than {most} bytes", named("read", path)),
                ));
            }
            content.extend_from_slice(&data);
        }
        Ok(content.freeze())
    }

    /// Replaces a file in one step, or makes a new one. Returns the bytes written. A link is followed, and its target
    /// replaced; owner and group are kept where the VM allows it. If `data` fails, or this is dropped, nothing has
    /// changed.
    ///
    /// # Errors
    /// [`Kind::Conflict`] if the content is not the expected one; [`Kind::Invalid`] if the path is no place for a file.
    pub async fn write<S>(&self, path: &str, data: S, options: WriteOptions) -> Result<u64>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let what = named("write", path);
        let at = checked(path)?;
        if at.ends_with('/') || matches!(at.rsplit('/').next(), Some("." | "..")) {
            return Err(Error::invalid(format!("{what}: it names a directory")));
        }
        let sftp = self.sftp().await?;
        let (target, before) = follow(&sftp, at, &what).await?;
        let old = before
            .as_ref()
            .map(|attributes| Metadata::new(&target, attributes));
        if let Some(old) = old.as_ref().filter(|old| old.kind != FileKind::File) {
            let it = if old.kind == FileKind::Directory {
                "a directory"
            } else {
                "no regular file"
            };
            return Err(Error::invalid(format!("{what}: it is {it}")));
        }
        if let Some(expected) = options.expect_sha256 {
            must_match(&sftp, &target, &what, old.is_some(), expected).await?;
        }

        let mut temporary = match Temporary::create(&sftp, &target).await {
            Err(error) if is_missing(&error) && options.parents => {
                make_directories(&sftp, parent(&target).unwrap_or("."), &what).await?;
                Temporary::create(&sftp, &target).await
            }
            made => made,
        }
        .map_err(|e| sftp.error(&what, e))?;
        let written = temporary.fill(pin!(data), &what).await?;
        let mode = options
            .mode
            .map(|mode| mode & 0o7777)
            .or(old.as_ref().map(|old| old.mode))
            .unwrap_or(0o644);
        temporary
            .finish(old.as_ref(), mode)
            .await
            .map_err(|e| sftp.error(&what, e))?;

        if options.expect_sha256.is_some() {
            // As late as can be: what came in between is not overwritten.
            let now = sftp
                .raw()
                .stat(target.as_str())
                .await
                .ok()
                .map(|found| Metadata::new(&target, &found.attrs));
            if now != old {
                return Err(Error::new(
                    Kind::Conflict,
                    format!("{what}: somebody else changed it just now; read it again"),
                ));
            }
        }
        temporary
            .take_name(&target)
            .await
            .map_err(|error| match error {
                SftpError::Status(_) if !sftp.posix_rename && old.is_some() => Error::other(
                    format!("{what}: the VM's SFTP server cannot replace a file in one step"),
                ),
                error => sftp.error(&what, error),
            })?;
        Ok(written)
    }

    /// Makes a directory and its missing parents; none of them needs to be missing.
    pub async fn mkdir_all(&self, path: &str) -> Result<()> {
        let at = checked(path)?;
        make_directories(&*self.sftp().await?, &at, &named("make directory", path)).await
    }

    /// Removes a file, a link or an empty directory.
    pub async fn remove(&self, path: &str) -> Result<()> {
        let at = checked(path)?;
        let what = named("remove", path);
        let sftp = self.sftp().await?;
        let found = sftp
            .raw()
            .lstat(at.as_str())
            .await
            .map_err(|e| sftp.error(&what, e))?;
        let removed = match Metadata::new(&at, &found.attrs).kind {
            FileKind::Directory => sftp.raw().rmdir(at).await,
            _ => sftp.raw().remove(at).await,
        };
        removed.map(drop).map_err(|e| sftp.error(&what, e))
    }

    /// Renames in one step; a file that has the new name is replaced.
    pub async fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (at, new) = (checked(from)?, checked(to)?);
        let sftp = self.sftp().await?;
        sftp.replace(&at, &new)
            .await
            .map_err(|e| sftp.error(&format!("rename {:?} to {:?}", shown(from), shown(to)), e))
    }
}

fn named(operation: &str, path: &str) -> String {
    format!("{operation} {:?}", shown(path))
}

/// A path as the VM's servers and scripts take it: `~` is the directory that they begin in.
pub(crate) fn checked(path: &str) -> Result<String> {
    if path.is_empty() || path.contains('\0') {
        return Err(Error::invalid(format!("{:?} is not a path", shown(path))));
    }
    Ok(match path.strip_prefix('~') {
        Some("") => ".".to_owned(),
        // Without the slash it would lead to the root.
        Some(rest) if rest.starts_with('/') => match rest.trim_start_matches('/') {
            "" => ".".to_owned(),
            rest => rest.to_owned(),
        },
        _ => path.to_owned(),
    })
}

/// The directory that a path lies in; `None` for one that lies in none.
fn parent(path: &str) -> Option<&str> {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", "")) | None => None,
        Some(("", _)) => Some("/"),
        Some((directory, _)) => Some(directory),
    }
}

fn beside(path: &str, name: &str) -> String {
    match parent(path) {
        Some("/") => format!("/{name}"),
        Some(directory) => format!("{directory}/{name}"),
        None => name.to_owned(),
    }
}

/// Where a path leads in the end, and what is there.
async fn follow(sftp: &Sftp, path: String, what: &str) -> Result<(String, Option<FileAttributes>)> {
    let mut at = path;
    for _ in 0..MOST_LINKS {
        let attributes = match sftp.raw().lstat(at.as_str()).await {
            Ok(found) => found.attrs,
            Err(error) if is_missing(&error) => return Ok((at, None)),
            Err(error) => return Err(sftp.error(what, error)),
        };
        if Metadata::new(&at, &attributes).kind != FileKind::Link {
            return Ok((at, Some(attributes)));
        }
        let link = sftp
            .raw()
            .readlink(at.as_str())
            .await
            .map_err(|e| sftp.error(what, e))?;
        let to = link
            .files
            .first()
            .map(|file| file.filename.as_str())
            .unwrap_or_default();
        at = if to.starts_with('/') {
            to.to_owned()
        } else {
            beside(&at, to)
        };
    }
    Err(Error::new(
        Kind::Conflict,
        format!("{what}: its links lead in a circle"),
    ))
}

async fn must_match(
    sftp: &Arc<Sftp>,
    path: &str,
    what: &str,
    exists: bool,
    expected: [u8; 32],
) -> Result<()> {
    if !exists {
        return Err(Error::new(
            Kind::Conflict,
            format!("{what}: it does not exist (any more)"),
        ));
    }
    let mut reader = Reader::open(sftp.clone(), path, what.to_owned(), 0, None).await?;
    let mut hash = Sha256::new();
    while let Some(data) = reader.next().await? {
        hash.update(&data);
    }
    if hash.finalize().as_slice() == expected {
        return Ok(());
    }
    Err(Error::new(
        Kind::Conflict,
        format!("{what}: its content is not what it was when it was read; read it again"),
    ))
}

async fn make_directories(sftp: &Sftp, path: &str, what: &str) -> Result<()> {
    let mut missing = vec![path];
    // Upwards until one can be made, or is there; then down again.
    while let Some(directory) = missing.last().copied() {
        let error = match sftp.raw().mkdir(directory, FileAttributes::default()).await {
            Ok(_) => {
                missing.pop();
                continue;
            }
            Err(error) => error,
        };
        if is_missing(&error)
            && let Some(above) = parent(directory)
        {
            missing.push(above);
            continue;
        }
        match sftp.raw().stat(directory).await {
            Ok(found) if Metadata::new(directory, &found.attrs).kind == FileKind::Directory => {
                missing.pop();
            }
            Ok(_) => {
                return Err(Error::new(
                    Kind::Conflict,
                    format!("{what}: {:?} is no directory", shown(directory)),
                ));
            }
            Err(_) => return Err(sftp.error(what, error)),
        }
    }
    Ok(())
}

type ReadAnswer = (u64, u32, Result<Vec<u8>, SftpError>);

/// Reads a file in order with several requests under way.
struct Reader {
    file: Arc<OpenFile>,
    what: String,
    /// What is asked for next.
    offset: u64,
    /// Where to end; `None`: where the file ends.
    end: Option<u64>,
    pending: FuturesOrdered<futures::future::BoxFuture<'static, ReadAnswer>>,
    /// How many requests may be under way. Starts with one: most files are small.
    window: usize,
}

impl Reader {
    async fn open(
        sftp: Arc<Sftp>,
        path: &str,
        what: String,
        offset: u64,
        len: Option<u64>,
    ) -> Result<Self> {
        let file = sftp
            .open_file(path, OpenFlags::READ, FileAttributes::default())
            .await
            .map_err(|e| sftp.error(&what, e))?;
        let end = len.map(|len| offset.saturating_add(len));
        let mut reader = Self {
            file: Arc::new(file),
            what,
            offset,
            end,
            pending: FuturesOrdered::new(),
            window: 1,
        };
        let file = reader.file.clone();
        let found = file
            .sftp
            .raw()
            .fstat(file.handle.as_str())
            .await
            .map_err(|e| file.sftp.error(&reader.what, e))?;
        let found = Metadata::new(path, &found.attrs);
        if found.kind == FileKind::Directory {
            return Err(Error::invalid(format!(
                "{}: it is a directory",
                reader.what
            )));
        }
        // Files of /proc have no length, and are read until they end.
        if found.kind == FileKind::File && found.size > 0 {
            reader.end = Some(end.map_or(found.size, |end| end.min(found.size)));
        }
        Ok(reader)
    }

    fn fill(&mut self) {
        while self.pending.len() < self.window {
            let rest = self
                .end
                .map_or(u64::MAX, |end| end.saturating_sub(self.offset));
            let count = rest.min(u64::from(self.file.sftp.read_chunk));
            if count == 0 {
                break;
            }
            let (file, offset, asked) = (
                self.file.clone(),
                self.offset,
                u32::try_from(count).unwrap_or(u32::MAX),
            );
            self.pending.push_back(Box::pin(async move {
                let answer = file
                    .sftp
                    .raw()
                    .read(file.handle.as_str(), offset, asked)
                    .await;
                (offset, asked, answer.map(|data| data.data))
            }));
            self.offset = self.offset.saturating_add(count);
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>> {
        self.fill();
        let Some((offset, asked, answer)) = self.pending.next().await else {
            return Ok(None);
        };
        match answer {
            Ok(data) if data.is_empty() => Ok(self.ended()),
            Ok(data) => {
                let got = data.len() as u64;
                if got < u64::from(asked) {
                    // What was asked for behind the gap is asked for again: it is the rare case.
                    self.pending = FuturesOrdered::new();
                    self.offset = offset + got;
                }
                self.window = (self.window * 2).min(IN_FLIGHT);
                Ok(Some(Bytes::from(data)))
            }
            Err(error) if is_end(&error) => Ok(self.ended()),
            Err(error) => Err(self.file.sftp.error(&self.what, error)),
        }
    }

    fn ended(&mut self) -> Option<Bytes> {
        self.pending = FuturesOrdered::new();
        self.end = Some(self.offset);
        None
    }
}

/// A name for what is not finished. All that we leave unfinished on a VM is found by it.
pub(crate) fn temporary_name() -> String {
    format!(".vers-{:016x}.tmp", rand::random::<u64>())
}

/// The new content of a file until it takes the file's name. Dropped before, it is removed.
struct Temporary {
    sftp: Arc<Sftp>,
    path: String,
    file: Option<OpenFile>,
    kept: bool,
}

impl Temporary {
    async fn create(sftp: &Arc<Sftp>, target: &str) -> Result<Self, SftpError> {
        let path = beside(target, &temporary_name());
        let flags = OpenFlags::WRITE | OpenFlags::CREATE | OpenFlags::EXCLUDE;
        // Nobody else reads it before it has the mode that it shall have.
        let private = FileAttributes {
            permissions: Some(0o600),
            ..FileAttributes::default()
        };
        // Made first: from here on what the VM may have made is removed.
        let mut temporary = Self {
            sftp: sftp.clone(),
            path,
            file: None,
            kept: false,
        };
        match sftp.open_file(&temporary.path, flags, private).await {
            Ok(file) => {
                temporary.file = Some(file);
                Ok(temporary)
            }
            Err(error) => {
                temporary.kept = true;
                Err(error)
            }
        }
    }

    async fn fill<S>(&self, mut data: std::pin::Pin<&mut S>, what: &str) -> Result<u64>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let Some(file) = &self.file else {
            return Err(Error::other(format!("{what}: it is closed")));
        };
        let chunk = self.sftp.write_chunk;
        let mut offset = 0u64;
        let mut buffer = BytesMut::new();
        let mut pending = FuturesUnordered::new();
        let mut more = true;
        loop {
            while pending.len() < IN_FLIGHT
                && (buffer.len() >= chunk || (!more && !buffer.is_empty()))
            {
                let part = buffer.split_to(buffer.len().min(chunk));
                let count = part.len() as u64;
                pending.push(
                    self.sftp
                        .raw()
                        .write(file.handle.as_str(), offset, part.to_vec()),
                );
                offset += count;
            }
            tokio::select! {
                // Requests are sent when they are polled, so before anything else is waited for.
                biased;
                Some(done) = pending.next(), if !pending.is_empty() => drop(done.map_err(|e| self.sftp.error(what, e))?),
                part = data.try_next(), if more && buffer.len() < chunk => match part? {
                    Some(part) => buffer.extend_from_slice(&part),
                    None => more = false,
                },
                else => return Ok(offset),
            }
        }
    }

    /// Everything on the disk, with the owner and mode it shall have, and closed.
    async fn finish(&mut self, old: Option<&Metadata>, mode: u32) -> Result<(), SftpError> {
        let Some(file) = self.file.take() else {
            return Ok(());
        };
        let raw = self.sftp.raw();
        if let Some(old) = old {
            let owner = FileAttributes {
                uid: Some(old.uid),
                gid: Some(old.gid),
                ..FileAttributes::default()
            };
            // Where the VM does not allow it, the new file is root's.
            let _ = raw.fsetstat(file.handle.as_str(), owner).await;
        }
        let mode = FileAttributes {
            permissions: Some(mode),
            ..FileAttributes::default()
        };
        raw.fsetstat(file.handle.as_str(), mode).await?;
        if self.sftp.fsync {
            raw.fsync(file.handle.as_str()).await?;
        }
        file.close().await
    }

    async fn take_name(mut self, target: &str) -> Result<(), SftpError> {
        self.sftp.replace(&self.path, target).await?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.kept
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (sftp, path, file) = (
                self.sftp.clone(),
                std::mem::take(&mut self.path),
                self.file.take(),
            );
            runtime.spawn(async move {
                if let Some(file) = file {
                    let _ = file.close().await;
                }
                let _ = sftp.raw().remove(path).await;
            });
        }
    }
}
