//! Trees beneath granted directories, for copies: names of any bytes, links as links, times, holes.
//!
//! The threat is the same as for single files, twice over: when a tree is read, somebody may swap a directory for a
//! link while it is walked; when one is written, its names come from a stranger, and may build a link first and
//! then write through it. So there are no paths here. A [`Directory`] is a descriptor, a name is one part ([`Name`]:
//! no `/`, no NUL, not `.` or `..`), and nothing that a name stands for is ever followed. Only the way to the top goes
//! through [`Root`]'s rules for links.
//!
//! All of this blocks; it is for threads that may.

use std::ffi::{CStr, CString, OsStr};
use std::hash::{BuildHasher as _, Hasher as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps};
use rustix::fs::{
    fchmod, fstat, ftruncate, futimens, mkdirat, openat, readlinkat, renameat, seek, statat,
    symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::resolve::{Last, Relative};
use super::{FileKind, Guard, Root, failed, not_a_file};
use crate::{Error, Kind};

/// Entries of one directory.
const MOST_ENTRIES: usize = 1_000_000;
/// Stretches of data that a file is read in; beyond, the small holes between them are filled.
const MOST_STRETCHES: usize = 2_000;

/// One part of a path, of any bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name(CString);

impl Name {
    /// `None` for what would lead elsewhere or names nothing: empty, `.`, `..`, with `/` or NUL.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        if matches!(bytes, b"" | b"." | b"..") || bytes.contains(&b'/') {
            return None;
        }
        CString::new(bytes).ok().map(Self)
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn as_c(&self) -> &CStr {
        &self.0
    }

    fn shown(&self) -> String {
        self.0.to_string_lossy().into_owned()
    }
}

/// A point in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Since 1970; negative before.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// What is known of an entry without reading it. Links are not followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// What it is.
    pub kind: FileKind,
    /// Bytes, holes included.
    pub size: u64,
    /// Permission bits, those for set-user-id and the like among them.
    pub mode: u32,
    /// When its content changed last.
    pub modified: Time,
    /// Whether it takes less room than its size: it may have holes.
    pub sparse: bool,
}

impl Found {
    fn new(stat: &Stat) -> Self {
        let data = super::Metadata::new(String::new(), stat);
        Self {
            kind: data.kind,
            size: data.size,
            mode: data.mode,
            modified: Time {
                seconds: stat.st_mtime,
                nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            },
            sparse: u64::try_from(stat.st_blocks)
                .unwrap_or(u64::MAX)
                .saturating_mul(512)
                < data.size,
        }
    }
}

/// What a path that shall be copied leads to.
#[derive(Debug)]
pub enum Source {
    /// A directory.
    Directory(Directory, Found),
    /// A file, open for reading.
    File(SourceFile),
}

/// Where a copy goes: a name in a directory, or (`None`) that directory itself.
#[derive(Debug)]
pub struct Target {
    /// The directory.
    pub directory: Directory,
    /// The name in it.
    pub name: Option<Name>,
}

impl Root {
    /// Opens what shall be copied. Links on the way, and one at the end, are followed if they stay beneath.
    pub fn source(&self, path: &str) -> Result<Source, Error> {
        let path = Relative::parse(path)?;
        let (_, stat) = self.look(&path)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let fd = self.open_beneath(&path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let directory = Directory::new(fd, false, Guard::default());
            let found = directory.attributes()?;
            return Ok(Source::Directory(directory, found));
        }
        let fd = self.open_file(&path)?;
        SourceFile::new(fd).map(Source::File)
    }

    /// Finds where a copy goes. Links are followed if they stay beneath; so the name, if there is one, is no link,
    /// unless somebody makes it one now. With `make`, missing directories above it are made.
    ///
    /// # Errors
    /// `NotFound` if directories are missing; `Denied` if the path leads out, or may not be written to.
    pub fn target(&self, path: &str, make: bool) -> Result<Target, Error> {
        self.check_writable(path)?;
        let path = Relative::parse(path)?;
        let spot = self.walk(&path, Last::Follow, make)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(&spot.dir, ".", flags, Mode::empty())
            .map_err(|error| failed("opening the directory of", path.as_str(), error))?;
        self.1.check(&directory, spot.name.as_deref())?;
        let name = match spot.name {
            None => None,
            Some(name) => Some(Name::new(name.as_encoded_bytes()).ok_or_else(|| {
                Error::new(Kind::Invalid, format!("`{}` is no name", path.as_str()))
            })?),
        };
        Ok(Target {
            directory: Directory::new(directory, true, self.1.clone()),
            name,
        })
    }
}

/// An open directory. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Directory {
    fd: Arc<OwnedFd>,
    writable: bool,
    guard: Guard,
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

impl Directory {
    fn new(fd: OwnedFd, writable: bool, guard: Guard) -> Self {
        Self {
            fd: Arc::new(fd),
            writable,
            guard,
        }
    }

    fn must_be_writable(&self, name: &Name) -> Result<(), Error> {
        if self.writable {
            // The directory itself was looked at when it was entered.
            return self
                .guard
                .check_name(&self.fd, OsStr::from_bytes(name.as_bytes()));
        }
        let message = format!("`{}` is opened for reading only", name.shown());
        Err(Error::new(Kind::Denied, message))
    }

    /// What the directory itself is.
    pub fn attributes(&self) -> Result<Found, Error> {
        let stat = fstat(&self.fd).map_err(|error| failed("looking at", ".", error))?;
        Ok(Found::new(&stat))
    }

    /// Its entries, sorted, each name once.
    pub fn names(&self) -> Result<Vec<Name>, Error> {
        let failed = |error| failed("listing", ".", error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let Some(name) = Name::new(entry.file_name().to_bytes()) else {
                continue;
            };
            if names.len() == MOST_ENTRIES {
                let message = format!("a directory has more than {MOST_ENTRIES} entries");
                return Err(Error::new(Kind::Limit, message));
            }
            names.push(name);
        }
        names.sort();
        names.dedup();
        Ok(names)
    }

    /// What a name stands for; `None` if there is nothing.
    pub fn look(&self, name: &Name) -> Result<Option<Found>, Error> {
        match statat(&self.fd, name.as_c(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Found::new(&stat))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(failed("looking at", &name.shown(), error)),
        }
    }

    /// What a link says.
    pub fn read_link(&self, name: &Name) -> Result<Vec<u8>, Error> {
        readlinkat(&self.fd, name.as_c(), Vec::new())
            .map(CString::into_bytes)
            .map_err(|error| failed("reading the link", &name.shown(), error))
    }

    /// Opens a directory in it.
    ///
    /// # Errors
    /// `Conflict` if it is something else, such as a link.
    pub fn open(&self, name: &Name) -> Result<Self, Error> {
        match openat(&self.fd, name.as_c(), DIRECTORY, Mode::empty()) {
            Ok(fd) => {
                if self.writable {
                    self.guard.check_entered(&fd)?;
                }
                Ok(Self::new(fd, self.writable, self.guard.clone()))
            }
            Err(Errno::LOOP | Errno::NOTDIR) => {
                let message = format!("`{}` is no directory", name.shown().escape_debug());
                Err(Error::new(Kind::Conflict, message))
            }
            Err(error) => Err(failed("opening the directory", &name.shown(), error)),
        }
    }

    /// Opens a regular file in it for reading.
    ///
    /// # Errors
    /// `Conflict` if it is something else by now.
    pub fn open_file(&self, name: &Name) -> Result<SourceFile, Error> {
        // Should a pipe or a device have taken its place, this neither waits nor makes it our terminal.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match openat(&self.fd, name.as_c(), flags, Mode::empty()) {
            Ok(fd) => SourceFile::new(fd),
            Err(Errno::LOOP) => {
                let message = format!("`{}` became a link meanwhile", name.shown().escape_debug());
                Err(Error::new(Kind::Conflict, message))
            }
            Err(error) => Err(failed("opening the file", &name.shown(), error)),
        }
    }

    /// Opens a directory in it, made if it is missing; `true` if it was made. One that is made is for its owner alone
    /// until it is given its mode.
    ///
    /// # Errors
    /// `Conflict` if something else has the name.
    pub fn make(&self, name: &Name) -> Result<(Self, bool), Error> {
        self.must_be_writable(name)?;
        let made = match mkdirat(&self.fd, name.as_c(), Mode::RWXU) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(error) => return Err(failed("making the directory", &name.shown(), error)),
        };
        Ok((self.open(name)?, made))
    }

    /// Gives the directory itself its mode (at most 0777) and time.
    pub fn set_attributes(&self, mode: u32, modified: Time) -> Result<(), Error> {
        let failed = |error| failed("setting mode and time of", ".", error);
        fchmod(&self.fd, Mode::from_raw_mode(mode & 0o777)).map_err(failed)?;
        futimens(&self.fd, &timestamps(modified)).map_err(failed)
    }

    /// Makes a link, in the place of a file or link that has the name.
    ///
    /// # Errors
    /// `Conflict` if a directory has the name.
    pub fn set_link(&self, name: &Name, target: &[u8], modified: Time) -> Result<(), Error> {
        self.must_be_writable(name)?;
        self.must_be_replaceable(name)?;
        let shown = name.shown();
        let failed = |error| failed("making the link", &shown, error);
        let target = CString::new(target).map_err(|_| failed(Errno::INVAL))?;
        let temporary = temporary();
        symlinkat(target.as_c_str(), &self.fd, temporary.as_str()).map_err(failed)?;
        let placed = utimensat(
            &self.fd,
            temporary.as_str(),
            &timestamps(modified),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .and_then(|()| renameat(&self.fd, temporary.as_str(), &self.fd, name.as_c()));
        placed.map_err(|error| {
            let _ = unlinkat(&self.fd, temporary.as_str(), AtFlags::empty());
            failed(error)
        })
    }

    /// Begins a file that shall have this name.
    ///
    /// # Errors
    /// `Conflict` if a directory has the name.
    pub fn draft(&self, name: &Name) -> Result<NewFile, Error> {
        self.must_be_writable(name)?;
        self.must_be_replaceable(name)?;
        let temporary = temporary();
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = openat(&self.fd, temporary.as_str(), flags, mode)
            .map_err(|error| failed("writing", &name.shown(), error))?;
        Ok(NewFile {
            directory: self.clone(),
            temporary,
            name: name.clone(),
            file: file.into(),
            placed: false,
        })
    }

    fn must_be_replaceable(&self, name: &Name) -> Result<(), Error> {
        let shown = name.shown();
        match self.look(name)?.map(|found| found.kind) {
            Some(FileKind::Directory) => {
                let message = format!(
                    "`{}` is a directory, and is not replaced by something else",
                    shown.escape_debug()
                );
                Err(Error::new(Kind::Conflict, message))
            }
            Some(FileKind::Other) => Err(not_a_file(&shown)),
            _ => Ok(()),
        }
    }
}

fn temporary() -> String {
    let random = std::hash::RandomState::new().build_hasher().finish();
    format!(".vers-{random:016x}.tmp")
}

fn timestamps(modified: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: rustix::fs::UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: modified.seconds,
            tv_nsec: modified.nanos.min(999_999_999).into(),
        },
    }
}

/// A stretch of a file that holds data: offset and length.
pub type Stretch = (u64, u64);

/// A regular file, open for reading.
#[derive(Debug)]
pub struct SourceFile {
    file: std::fs::File,
    found: Found,
}

impl SourceFile {
    fn new(fd: OwnedFd) -> Result<Self, Error> {
        let stat = fstat(&fd).map_err(|error| failed("opening the file", ".", error))?;
        let found = Found::new(&stat);
        if found.kind != FileKind::File {
            return Err(Error::new(Kind::Conflict, "it is no regular file any more"));
        }
        Ok(Self {
            file: fd.into(),
            found,
        })
    }

    /// What it was when it was opened.
    pub fn found(&self) -> Found {
        self.found
    }

    /// The same file as it is now.
    pub fn again(&self) -> Result<Self, Error> {
        let file = self
            .file
            .try_clone()
            .map_err(|error| Error::io("opening the file again", &error))?;
        Self::new(file.into())
    }

    /// Its stretches of data, in order; what lies between them is holes. A file system that cannot tell has one stretch.
    pub fn stretches(&self) -> Result<Vec<Stretch>, Error> {
        let size = self.found.size;
        let whole = || if size == 0 { vec![] } else { vec![(0, size)] };
        if !self.found.sparse {
            return Ok(whole());
        }
        let mut stretches = Vec::new();
        let mut at = 0;
        while at < size {
            let start = match seek(&self.file, SeekFrom::Data(at)) {
                Ok(start) => start,
                // Nothing but a hole up to the end.
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(whole()),
                Err(error) => return Err(failed("looking for holes", ".", error)),
            };
            let end = seek(&self.file, SeekFrom::Hole(start))
                .map_err(|error| failed("looking for holes", ".", error))?
                .min(size);
            if start >= end {
                break;
            }
            stretches.push((start, end - start));
            at = end;
        }
        Ok(coarse(stretches))
    }

    /// Reads this many bytes from this offset on; fewer only at the end of the file.
    pub fn read_chunk(&self, offset: u64, count: usize) -> std::io::Result<Vec<u8>> {
        let mut chunk = Vec::with_capacity(count);
        while chunk.len() < count {
            let at = offset + chunk.len() as u64;
            match rustix::io::pread(&self.file, rustix::buffer::spare_capacity(&mut chunk), at) {
                Ok(0) => break,
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        chunk.truncate(count);
        Ok(chunk)
    }

    /// Reads into the buffer from this offset on; fewer bytes only at the end of the file.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Fills the smallest holes until there are few enough stretches.
fn coarse(mut stretches: Vec<Stretch>) -> Vec<Stretch> {
    let mut gap = 4096;
    while stretches.len() > MOST_STRETCHES {
        let mut merged: Vec<Stretch> = Vec::new();
        for (offset, length) in stretches {
            match merged.last_mut() {
                Some(last) if offset - (last.0 + last.1) <= gap => {
                    last.1 = offset + length - last.0
                }
                _ => merged.push((offset, length)),
            }
        }
        stretches = merged;
        gap *= 2;
    }
    stretches
}

/// A file before it takes its name. Dropped, it is removed.
#[derive(Debug)]
pub struct NewFile {
    directory: Directory,
    temporary: String,
    name: Name,
    file: std::fs::File,
    placed: bool,
}

impl NewFile {
    /// Writes data at an offset. What is never written is a hole.
    pub fn write_at(&self, data: &[u8], offset: u64) -> std::io::Result<()> {
        self.file.write_all_at(data, offset)
    }

    /// Gives it its size, mode (at most 0777) and time, and in one step its name.
    ///
    /// # Errors
    /// `Conflict` if a directory has taken the name meanwhile.
    pub fn place(mut self, size: u64, mode: u32, modified: Time) -> Result<(), Error> {
        let shown = self.name.shown();
        let failed = |error| failed("writing", &shown, error);
        let stat = fstat(&self.file).map_err(failed)?;
        if u64::try_from(stat.st_size) != Ok(size) {
            ftruncate(&self.file, size).map_err(failed)?;
        }
        fchmod(&self.file, Mode::from_raw_mode(mode & 0o777)).map_err(failed)?;
        futimens(&self.file, &timestamps(modified)).map_err(failed)?;
        let directory = &self.directory.fd;
        match renameat(
            directory,
            self.temporary.as_str(),
            directory,
            self.name.as_c(),
        ) {
            Ok(()) => {
                self.placed = true;
                Ok(())
            }
            Err(Errno::ISDIR) => {
                let message = format!("`{}` became a directory", shown.escape_debug());
                Err(Error::new(Kind::Conflict, message))
            }
            Err(error) => Err(failed(error)),
        }
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.placed {
            let _ = unlinkat(
                &self.directory.fd,
                self.temporary.as_str(),
                AtFlags::empty(),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::super::Access;
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn top(path: &std::path::Path) -> Directory {
        let root = Root::open(path, Access::ReadWrite).unwrap();
        root.target(".", false).unwrap().directory
    }

    #[test]
    fn a_name_is_one_part_and_leads_nowhere_else() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b", b"../x", b"a/"] {
            assert_eq!(Name::new(bad), None, "{bad:?}");
        }
        for good in [&b"..."[..], b"-rf", b"\xff\xfe", b"a\nb", b" ", b".x"] {
            assert_eq!(Name::new(good).unwrap().as_bytes(), good);
        }
    }

    #[test]
    fn what_is_made_never_goes_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, outside) = (dir.path().join("in"), dir.path().join("out"));
        std::fs::create_dir(&inside).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("file"), "untouched").unwrap();
        let top = top(&inside);
        let now = Time::default();
        top.set_link(&name("a"), b"../out", now).unwrap();
        top.set_link(&name("f"), b"../out/file", now).unwrap();
        assert_eq!(top.make(&name("a")).unwrap_err().kind(), Kind::Conflict);
        assert_eq!(top.open(&name("a")).unwrap_err().kind(), Kind::Conflict);
        assert_eq!(
            top.open_file(&name("f")).unwrap_err().kind(),
            Kind::Conflict
        );
        // A file in the place of a link replaces the link.
        let draft = top.draft(&name("f")).unwrap();
        draft.write_at(b"new", 0).unwrap();
        draft.place(3, 0o7777, now).unwrap();
        assert_eq!(std::fs::read(outside.join("file")).unwrap(), b"untouched");
        let made = std::fs::symlink_metadata(inside.join("f")).unwrap();
        assert!(made.is_file());
        assert_eq!(made.permissions().mode() & 0o7777, 0o777);
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_is_not_replaced_and_a_draft_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        let top = top(dir.path());
        assert_eq!(top.draft(&name("d")).unwrap_err().kind(), Kind::Conflict);
        let link = top.set_link(&name("d"), b"x", Time::default());
        assert_eq!(link.unwrap_err().kind(), Kind::Conflict);
        let draft = top.draft(&name("e")).unwrap();
        draft.write_at(b"half", 0).unwrap();
        drop(draft);
        let draft = top.draft(&name("f")).unwrap();
        std::fs::create_dir(dir.path().join("f")).unwrap();
        let late = draft.place(0, 0o644, Time::default());
        assert_eq!(late.unwrap_err().kind(), Kind::Conflict);
        assert_eq!(top.names().unwrap(), [name("d"), name("f")]);
    }

    #[test]
    fn holes_times_and_modes_survive_beyond_four_gibibytes() {
        let dir = tempfile::tempdir().unwrap();
        let top = top(dir.path());
        let far = (5 << 30) + 4096;
        let time = Time {
            seconds: -5,
            nanos: 123_456_789,
        };
        let draft = top.draft(&name("big")).unwrap();
        draft.write_at(b"start", 0).unwrap();
        draft.write_at(b"far", far).unwrap();
        draft.place(6 << 30, 0o640, time).unwrap();
        let meta = std::fs::metadata(dir.path().join("big")).unwrap();
        assert!(meta.len() == 6 << 30 && meta.blocks() < 100);
        let file = top.open_file(&name("big")).unwrap();
        assert_eq!((file.found().mode, file.found().modified), (0o640, time));
        let stretches = file.stretches().unwrap();
        let covers = |at: u64| {
            stretches
                .iter()
                .any(|(from, len)| (*from..from + len).contains(&at))
        };
        assert!(
            covers(0) && covers(far) && !covers(1 << 30),
            "{stretches:?}"
        );
        let mut buffer = [0; 8];
        assert_eq!(file.read_at(&mut buffer, far).unwrap(), 8);
        assert_eq!(&buffer, b"far\0\0\0\0\0");
        assert_eq!(file.read_chunk(far, 3).unwrap(), b"far");
        assert_eq!(file.read_chunk((6 << 30) - 2, 9).unwrap(), b"\0\0");
    }

    #[test]
    fn a_source_that_leads_out_or_is_a_device_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("in");
        std::fs::create_dir(&inside).unwrap();
        symlink("/etc", inside.join("out")).unwrap();
        symlink("file", inside.join("near")).unwrap();
        std::fs::write(inside.join("file"), "x").unwrap();
        let root = Root::open(&inside, Access::ReadOnly).unwrap();
        assert_eq!(root.source("out").unwrap_err().kind(), Kind::Denied);
        assert!(matches!(root.source("near").unwrap(), Source::File(_)));
        assert!(matches!(root.source(".").unwrap(), Source::Directory(..)));
        assert_eq!(root.source("none").unwrap_err().kind(), Kind::NotFound);
        assert_eq!(root.target("x", false).unwrap_err().kind(), Kind::Denied);
        let Source::Directory(top, _) = root.source(".").unwrap() else {
            panic!("a directory")
        };
        assert_eq!(top.draft(&name("x")).unwrap_err().kind(), Kind::Denied);
        assert_eq!(top.make(&name("x")).unwrap_err().kind(), Kind::Denied);
        let device = Root::open(std::path::Path::new("/dev"), Access::ReadOnly).unwrap();
        assert_eq!(device.source("null").unwrap_err().kind(), Kind::Denied);
    }

    proptest! {
        #[test]
        fn fewer_stretches_cover_the_same_data(gaps in prop::collection::vec((1u64..1_000_000, 1u64..5000), 0..5000)) {
            let mut at = 0;
            let stretches: Vec<_> = gaps
                .iter()
                .map(|(gap, length)| {
                    let start = at + gap;
                    at = start + length;
                    (start, *length)
                })
                .collect();
            let fewer = coarse(stretches.clone());
            prop_assert!(fewer.len() <= MOST_STRETCHES);
            prop_assert!(fewer.windows(2).all(|pair| matches!(pair, [a, b] if a.0 + a.1 < b.0)));
            let mut rest = fewer.iter();
            let mut current = rest.next();
            for (start, length) in stretches {
                while current.is_some_and(|c| c.0 + c.1 <= start) {
                    current = rest.next();
                }
                prop_assert!(current.is_some_and(|c| c.0 <= start && start + length <= c.0 + c.1));
            }
        }
    }
}
