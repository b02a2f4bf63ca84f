//! The half of a copy that is on this machine. Everything here blocks and runs on threads that may; it ends when its
//! channel is closed.
//!
//! Paths are walked part by part from an open directory, never following a link: see [`pi_vers_system::files::tree`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use pi_vers_system::files::tree::{Directory, Found, Name, NewFile, Source, SourceFile, Stretch};
use pi_vers_system::files::{FileKind, Root};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::entry::{Content, Entry, Head, Item, Kind, Listing, Piece, parts, path_shown};
use super::exclude::Exclude;
use super::meter::{Meter, Share};
use super::{MOST_ENTRIES, MOST_PATH, SMALL};
use crate::error::{Error, Result};

/// Bytes that are read at a time.
const CHUNK: usize = 256 << 10;

/// An error of the local half, with the path of this copy.
pub(super) fn local(path: &[u8], error: &pi_vers_system::Error) -> Error {
    use crate::Kind as To;
    use pi_vers_system::Kind as From;
    let kind = match error.kind() {
        From::Denied => To::Denied,
        From::Invalid => To::Invalid,
        From::NotFound => To::NotFound,
        From::Conflict => To::Conflict,
        From::TimedOut => To::TimedOut,
        From::Cancelled => To::Cancelled,
        From::Unavailable => To::Unavailable,
        From::Limit => To::Limit,
        From::Other => To::Other,
    };
    Error::new(
        kind,
        format!("copy {} on this machine: {error}", path_shown(path)),
    )
}

fn io(doing: &str, path: &[u8], error: &std::io::Error) -> Error {
    let kind = match error.kind() {
        std::io::ErrorKind::StorageFull
        | std::io::ErrorKind::QuotaExceeded
        | std::io::ErrorKind::FileTooLarge => crate::Kind::Limit,
        _ => crate::Kind::Other,
    };
    Error::new(
        kind,
        format!(
            "copy: {doing} {} on this machine: {error}",
            path_shown(path)
        ),
    )
}

pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let ended = |error| Error::other(format!("copy: file work was abandoned: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

/// Opens the directories that paths lead through, and remembers the last one: entries come sorted.
struct Walker {
    top: Directory,
    last: Mutex<Option<(Vec<u8>, Directory)>>,
}

impl Walker {
    fn new(top: Directory) -> Self {
        Self {
            top,
            last: Mutex::default(),
        }
    }

    /// The directory that a path names. `make`: made where it is missing.
    fn directory(&self, path: &[u8], make: bool) -> Result<Directory> {
        if path.is_empty() {
            return Ok(self.top.clone());
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, directory)) = &*last
            && known == path
        {
            return Ok(directory.clone());
        }
        let mut directory = self.top.clone();
        for part in checked(path)? {
            directory = if make {
                directory.make(&part).map(|made| made.0)
            } else {
                directory.open(&part)
            }
            .map_err(|error| local(path, &error))?;
        }
        *last = Some((path.to_vec(), directory.clone()));
        Ok(directory)
    }

    /// The directory that holds a path, and its last part.
    fn place(&self, path: &[u8], make: bool) -> Result<(Directory, Name)> {
        let (above, name) = split(path);
        let name = Name::new(name).ok_or_else(|| refused(path))?;
        Ok((self.directory(above, make)?, name))
    }
}

/// The path of the directory that holds this one, and the last part.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (
            path.get(..at).unwrap_or_default(),
            path.get(at + 1..).unwrap_or_default(),
        ),
        None => (b"", path),
    }
}

fn checked(path: &[u8]) -> Result<Vec<Name>> {
    parts(path).ok_or_else(|| refused(path))
}

fn refused(path: &[u8]) -> Error {
    Error::new(
        crate::Kind::Denied,
        format!(
            "copy: {} would lead out of the target; nothing of it is written",
            path_shown(path)
        ),
    )
}

/// A source on this machine.
pub(super) struct LocalSource {
    tree: Tree,
    cancel: CancellationToken,
}

enum Tree {
    Directory(Walker),
    File(SourceFile),
}

impl LocalSource {
    /// Opens the source and lists it.
    pub(super) async fn open(
        root: Root,
        path: String,
        exclude: Arc<Exclude>,
        cancel: CancellationToken,
    ) -> Result<(Self, Listing)> {
        blocking(move || {
            let named = |error| local(path.as_bytes(), &error);
            let mut listing = Listing::default();
            let tree = match root.source(&path).map_err(named)? {
                Source::File(file) => {
                    listing.entries.push(file_entry(Vec::new(), &file.found()));
                    Tree::File(file)
                }
                Source::Directory(top, found) => {
                    listing.entries.push(Entry {
                        path: Vec::new(),
                        kind: Kind::Directory,
                        mode: found.mode,
                        modified: found.modified,
                    });
                    list(&top, &exclude, &cancel, &mut listing)?;
                    Tree::Directory(Walker::new(top))
                }
            };
            Ok((Self { tree, cancel }, listing))
        })
        .await
    }

    fn file(&self, path: &[u8]) -> Result<SourceFile> {
        match &self.tree {
            // Only for one that was opened before: each attempt may begin anew.
            Tree::File(file) => file.again(),
            Tree::Directory(walker) => {
                let (directory, name) = walker.place(path, false)?;
                return directory
                    .open_file(&name)
                    .map_err(|error| local(path, &error));
            }
        }
        .map_err(|error| local(path, &error))
    }

    /// Reads small files, in order. Ends early if nobody takes them.
    pub(super) fn batch(
        &self,
        entries: &[Entry],
        indices: &[usize],
        to: &mpsc::Sender<Item>,
    ) -> Result<()> {
        for index in indices {
            let Some(entry) = entries.get(*index) else {
                continue;
            };
            if !matches!(entry.kind, Kind::File { .. }) {
                continue;
            }
            let file = match self.file(&entry.path) {
                Ok(file) => file,
                // It has gone since it was listed.
                Err(error) if error.kind() == crate::Kind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let content = small(*index, entry, &file)?;
            if self.cancel.is_cancelled() {
                return Err(Error::cancelled("copy"));
            }
            if to.blocking_send(Item::File(content)).is_err() {
                return Ok(());
            }
        }
        let _ = to.blocking_send(Item::End);
        Ok(())
    }

    /// Reads a big file from this position in its data on.
    ///
    /// # Errors
    /// [`Kind::Conflict`](crate::Kind) with [`super::CHANGED`] if it is not what it was.
    pub(super) fn big(
        &self,
        entry: &Entry,
        from: u64,
        known: Option<&Head>,
        to: &mpsc::Sender<Piece>,
    ) -> Result<()> {
        let file = self.file(&entry.path)?;
        let found = file.found();
        let head = Head {
            size: found.size,
            mode: found.mode,
            modified: found.modified,
            stretches: file
                .stretches()
                .map_err(|error| local(&entry.path, &error))?,
            prefix: 0,
        };
        if known.is_some_and(|known| *known != head) {
            return Err(super::changed(entry));
        }
        let rest = head.rest(from);
        if to.blocking_send(Piece::Head(head)).is_err() {
            return Ok(());
        }
        for (offset, length) in rest {
            let mut at = offset;
            while at < offset + length {
                let count = usize::try_from(offset + length - at)
                    .unwrap_or(CHUNK)
                    .min(CHUNK);
                let data = file
                    .read_chunk(at, count)
                    .map_err(|error| io("reading", &entry.path, &error))?;
                let got = data.len();
                if got < count {
                    return Err(super::changed(entry));
                }
                at += got as u64;
                if self.cancel.is_cancelled() {
                    return Err(Error::cancelled("copy"));
                }
                if to.blocking_send(Piece::Data(data.into())).is_err() {
                    return Ok(());
                }
            }
        }
        let _ = to.blocking_send(Piece::End);
        Ok(())
    }
}

fn file_entry(path: Vec<u8>, found: &Found) -> Entry {
    Entry {
        path,
        kind: Kind::File {
            size: found.size,
            sparse: found.sparse,
        },
        mode: found.mode,
        modified: found.modified,
    }
}

fn list(
    top: &Directory,
    exclude: &Exclude,
    cancel: &CancellationToken,
    listing: &mut Listing,
) -> Result<()> {
    let walker = Walker::new(top.clone());
    let mut todo = vec![Vec::new()];
    while let Some(path) = todo.pop() {
        if cancel.is_cancelled() {
            return Err(Error::cancelled("copy"));
        }
        let failed = |error| local(&path, &error);
        let directory = walker.directory(&path, false)?;
        let mut below = Vec::new();
        for name in directory.names().map_err(failed)? {
            let mut inner = path.clone();
            if !inner.is_empty() {
                inner.push(b'/');
            }
            inner.extend_from_slice(name.as_bytes());
            let Some(found) = directory.look(&name).map_err(failed)? else {
                continue;
            };
            if exclude.matches(&inner, found.kind == FileKind::Directory) {
                continue;
            }
            if listing.entries.len() >= MOST_ENTRIES {
                return Err(super::too_many());
            }
            if inner.len() > MOST_PATH {
                return Err(super::too_deep(&inner));
            }
            let entry = match found.kind {
                FileKind::File => file_entry(inner, &found),
                FileKind::Directory => {
                    below.push(inner.clone());
                    Entry {
                        path: inner,
                        kind: Kind::Directory,
                        mode: found.mode,
                        modified: found.modified,
                    }
                }
                FileKind::Link => match directory.read_link(&name) {
                    Ok(target) => Entry {
                        path: inner,
                        kind: Kind::Link(target),
                        mode: 0o777,
                        modified: found.modified,
                    },
                    Err(error) if error.kind() == pi_vers_system::Kind::NotFound => continue,
                    Err(error) => return Err(local(&inner, &error)),
                },
                FileKind::Other => {
                    listing.left_out += 1;
                    continue;
                }
            };
            listing.entries.push(entry);
        }
        below.reverse();
        todo.append(&mut below);
    }
    Ok(())
}

fn small(index: usize, entry: &Entry, file: &SourceFile) -> Result<Content> {
    let found = file.found();
    let failed = |error: pi_vers_system::Error| local(&entry.path, &error);
    let mut stretches = file.stretches().map_err(failed)?;
    let stored: u64 = stretches.iter().map(|(_, length)| length).sum();
    // It was small when it was listed.
    if stored > 4 * SMALL {
        return Err(super::changed(entry));
    }
    let mut data = BytesMut::zeroed(usize::try_from(stored).unwrap_or(0));
    let mut filled = 0;
    let mut size = found.size;
    for stretch in &mut stretches {
        let length = usize::try_from(stretch.1).unwrap_or(0);
        let Some(room) = data.get_mut(filled..filled + length) else {
            break;
        };
        let got = file
            .read_at(room, stretch.0)
            .map_err(|error| io("reading", &entry.path, &error))?;
        filled += got;
        if got < length {
            // It is shorter by now: what there is, is what is copied.
            stretch.1 = got as u64;
            size = stretch.0 + got as u64;
            break;
        }
    }
    data.truncate(filled);
    let end = size;
    stretches.retain(|(offset, length)| *length > 0 && offset + length <= end);
    Ok(Content {
        index,
        size,
        mode: found.mode,
        modified: found.modified,
        stretches,
        data: data.freeze(),
    })
}

/// What a target's name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    Missing,
    Directory,
    File,
    Other,
}

/// A target on this machine.
pub(super) struct LocalSink {
    root: Root,
    path: String,
    walker: Mutex<Option<Arc<Walker>>>,
}

impl LocalSink {
    /// Looks at the target, and makes nothing yet.
    pub(super) async fn open(root: Root, path: String) -> Result<(Self, Is)> {
        blocking(move || {
            let named = |error| local(path.as_bytes(), &error);
            let is = match root.target(&path, false) {
                Ok(target) => match target.name {
                    None => Is::Directory,
                    Some(name) => match target
                        .directory
                        .look(&name)
                        .map_err(named)?
                        .map(|found| found.kind)
                    {
                        None => Is::Missing,
                        Some(FileKind::Directory) => Is::Directory,
                        Some(FileKind::File) => Is::File,
                        Some(_) => Is::Other,
                    },
                },
                Err(error) if error.kind() == pi_vers_system::Kind::NotFound => Is::Missing,
                Err(error) => return Err(named(error)),
            };
            let sink = Self {
                root,
                path,
                walker: Mutex::default(),
            };
            Ok((sink, is))
        })
        .await
    }

    fn named(&self, error: &pi_vers_system::Error) -> Error {
        local(self.path.as_bytes(), error)
    }

    /// The target directory, made if it is missing.
    fn walker(&self) -> Result<Arc<Walker>> {
        let mut walker = self.walker.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(walker) = &*walker {
            return Ok(walker.clone());
        }
        let target = self
            .root
            .target(&self.path, true)
            .map_err(|error| self.named(&error))?;
        let top = match target.name {
            None => target.directory,
            Some(name) => {
                target
                    .directory
                    .make(&name)
                    .map_err(|error| self.named(&error))?
                    .0
            }
        };
        Ok(walker.insert(Arc::new(Walker::new(top))).clone())
    }

    /// Makes the directories and links of a batch, and writes its files as they come. Returns which of them are
    /// finished, and whether that is all that was to come.
    pub(super) fn batch(
        &self,
        entries: &[Entry],
        indices: &[usize],
        from: &mut mpsc::Receiver<Item>,
        done: &mut Vec<usize>,
        meter: &Arc<Meter>,
    ) -> Result<bool> {
        let shared = self.walker()?;
        // Of its own, so that two batches do not spoil each other's memory.
        let walker = Walker::new(shared.top.clone());
        let share = meter.share();
        for index in indices {
            let Some(entry) = entries.get(*index) else {
                continue;
            };
            match &entry.kind {
                Kind::Directory => {
                    walker.directory(&entry.path, true)?;
                    meter.finished(0, 1, 0, 0);
                }
                Kind::Link(target) => {
                    let (directory, name) = walker.place(&entry.path, true)?;
                    directory
                        .set_link(&name, target, entry.modified)
                        .map_err(|error| local(&entry.path, &error))?;
                    meter.finished(0, 0, 1, 0);
                }
                Kind::File { .. } => continue,
            }
            done.push(*index);
        }
        while let Some(item) = from.blocking_recv() {
            let Item::File(content) = item else {
                return Ok(true);
            };
            let Some(entry) = entries.get(content.index) else {
                continue;
            };
            let (directory, name) = walker.place(&entry.path, true)?;
            let failed = |error| local(&entry.path, &error);
            let file = directory.draft(&name).map_err(failed)?;
            write_stretches(&file, &content.stretches, &content.data)
                .map_err(|error| io("writing", &entry.path, &error))?;
            file.place(content.size, content.mode, content.modified)
                .map_err(failed)?;
            done.push(content.index);
            share.moved(0, &entry.path);
            meter.finished(1, 0, 0, content.size);
        }
        Ok(false)
    }

    /// A big file that this copy writes over several attempts.
    pub(super) fn begin(&self, entry: &Entry) -> Result<LocalBig> {
        let file = if entry.path.is_empty() {
            let target = self
                .root
                .target(&self.path, true)
                .map_err(|error| self.named(&error))?;
            let Some(name) = target.name else {
                return Err(super::conflict_at_top());
            };
            target
                .directory
                .draft(&name)
                .map_err(|error| self.named(&error))?
        } else {
            let (directory, name) = self.walker()?.place(&entry.path, true)?;
            directory
                .draft(&name)
                .map_err(|error| local(&entry.path, &error))?
        };
        Ok(LocalBig {
            file,
            position: AtomicU64::new(0),
        })
    }

    /// Gives directories their mode and time, the innermost first.
    pub(super) fn finish(&self, entries: &[Entry]) -> Result<()> {
        let walker = self.walker()?;
        for entry in entries
            .iter()
            .rev()
            .filter(|entry| entry.kind == Kind::Directory)
        {
            walker
                .directory(&entry.path, false)?
                .set_attributes(entry.mode, entry.modified)
                .map_err(|error| local(&entry.path, &error))?;
        }
        Ok(())
    }
}

fn write_stretches(file: &NewFile, stretches: &[Stretch], data: &Bytes) -> std::io::Result<()> {
    let mut at = 0usize;
    for (offset, length) in stretches {
        let length = usize::try_from(*length).unwrap_or(usize::MAX);
        let part = data.get(at..at.saturating_add(length)).unwrap_or_default();
        file.write_at(part, *offset)?;
        at += part.len();
    }
    Ok(())
}

pub(super) struct LocalBig {
    file: NewFile,
    /// In the data, up to where it is written.
    position: AtomicU64,
}

impl LocalBig {
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Relaxed)
    }

    /// Writes what comes, from where it stands on. `false`: the source ended too early.
    pub(super) fn write(
        &self,
        entry: &Entry,
        head: &Head,
        from: &mut mpsc::Receiver<Piece>,
        share: &Share,
    ) -> Result<bool> {
        let mut position = self.position();
        let mut rest = head.rest(position).into_iter();
        let mut room = rest.next();
        while let Some(piece) = from.blocking_recv() {
            let mut data = match piece {
                Piece::Data(data) => data,
                Piece::Head(_) => continue,
                Piece::End => return Ok(position == head.data()),
            };
            share.moved(data.len() as u64, &entry.path);
            while !data.is_empty() {
                let Some((offset, length)) = room else {
                    return Err(super::changed(entry));
                };
                let part = data.split_to(
                    data.len()
                        .min(usize::try_from(length).unwrap_or(usize::MAX)),
                );
                self.file
                    .write_at(&part, offset)
                    .map_err(|error| io("writing", &entry.path, &error))?;
                let count = part.len() as u64;
                position += count;
                self.position.store(position, Ordering::Relaxed);
                room = if count == length {
                    rest.next()
                } else {
                    Some((offset + count, length - count))
                };
            }
        }
        Ok(false)
    }

    pub(super) fn place(self, entry: &Entry, head: &Head) -> Result<()> {
        self.file
            .place(head.size, head.mode, head.modified)
            .map_err(|error| local(&entry.path, &error))
    }
}
