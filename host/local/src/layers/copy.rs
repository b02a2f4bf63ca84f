//! Copying a tree with everything that belongs to it.

use super::manifest::{self, Manifest, Seen};
use super::{SnapshotStats, manifest_path};
use crate::sandbox::Error;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

/// Longest value of an extended attribute in Linux.
const LONGEST_XATTR: usize = 64 * 1024;

/// See [`super::snapshot`].
pub(super) fn snapshot(
    upper: &Path,
    previous: Option<&Path>,
    to: &Path,
    cancelled: &AtomicBool,
) -> Result<SnapshotStats, Error> {
    let start = SystemTime::now();
    let before = previous.and_then(|p| {
        let bytes = fs::read(manifest_path(p)).ok()?;
        Some((p, manifest::parse(&bytes)?))
    });
    let manifest = manifest_path(to);
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&manifest)
        .map_err(Error::io(format!("make {}", manifest.display())))?;
    let writer = manifest::Writer::new(BufWriter::new(file))
        .map_err(Error::io(format!("write {}", manifest.display())))?;
    let mut job = Job {
        from: upper,
        to,
        before,
        start,
        cancelled,
        links: HashMap::new(),
        can_clone: true,
        writer,
        stats: SnapshotStats::default(),
    };
    job.tree()?;
    let Job { writer, stats, .. } = job;
    writer
        .finish()
        .map_err(Error::io(format!("write {}", manifest.display())))?;
    Ok(stats)
}

struct Job<'a> {
    from: &'a Path,
    to: &'a Path,
    before: Option<(&'a Path, Manifest)>,
    start: SystemTime,
    cancelled: &'a AtomicBool,
    /// Files with several names: where their first copy is.
    links: HashMap<(u64, u64), PathBuf>,
    /// Until the file system refuses.
    can_clone: bool,
    writer: manifest::Writer<BufWriter<File>>,
    stats: SnapshotStats,
}

impl Job<'_> {
    /// Goes through the tree in name order. A directory gets its attributes after its contents, which change its times.
    fn tree(&mut self) -> Result<(), Error> {
        let meta = fs::symlink_metadata(self.from)
            .map_err(Error::io(format!("look at {}", self.from.display())))?;
        self.mkdir(Path::new(""))?;
        let mut stack = vec![Visit::open(self.from, PathBuf::new(), meta)?];
        while let Some(visit) = stack.last_mut() {
            if self.cancelled.load(Ordering::Relaxed) {
                return Err(Error::io("copy a layer")(io::ErrorKind::Interrupted.into()));
            }
            let Some(name) = visit.names.pop() else {
                if let Some(done) = stack.pop() {
                    self.attributes(&done.rel, &done.meta)?;
                }
                continue;
            };
            let rel = visit.rel.join(name);
            let from = self.from.join(&rel);
            let meta = fs::symlink_metadata(&from)
                .map_err(Error::io(format!("look at {}", from.display())))?;
            if meta.is_dir() {
                self.mkdir(&rel)?;
                self.stats.dirs += 1;
                stack.push(Visit::open(self.from, rel, meta)?);
            } else if meta.is_file() {
                self.stats.files += 1;
                self.file(&rel, &meta)?;
            } else {
                self.stats.others += 1;
                self.special(&rel, &meta)?;
            }
        }
        Ok(())
    }

    fn mkdir(&self, rel: &Path) -> Result<(), Error> {
        let to = self.to.join(rel);
        fs::create_dir(&to).map_err(Error::io(format!("make {}", to.display())))
    }

    fn file(&mut self, rel: &Path, meta: &Metadata) -> Result<(), Error> {
        let to = self.to.join(rel);
        let seen = Seen::of(meta);
        if seen.settled(self.start) {
            self.writer
                .add(rel, &seen)
                .map_err(Error::io("write a manifest"))?;
        }
        let key = (meta.dev(), meta.ino());
        if meta.nlink() > 1 {
            if let Some(first) = self.links.get(&key) {
                return fs::hard_link(first, &to)
                    .map_err(Error::io(format!("link {}", to.display())));
            }
            self.links.insert(key, to.clone());
        }
        if self.share(rel, &seen, &to) {
            self.stats.shared += 1;
            return Ok(());
        }
        self.contents(&self.from.join(rel), &to)
            .map_err(Error::io(format!("copy {}", to.display())))?;
        self.attributes(rel, meta)
    }

    /// Links to the previous commit's copy if the file is the same.
    fn share(&self, rel: &Path, seen: &Seen, to: &Path) -> bool {
        match &self.before {
            // A failure (too many links, another file system) means copying.
            Some((dir, manifest)) if manifest.get(rel) == Some(seen) => {
                fs::hard_link(dir.join(rel), to).is_ok()
            }
            _ => false,
        }
    }

    fn contents(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let source = fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(from)?;
        let copy = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(to)?;
        if self.can_clone {
            match rustix::fs::ioctl_ficlone(&copy, &source) {
                Ok(()) => {
                    self.stats.reflinked += 1;
                    return Ok(());
                }
                Err(_) => self.can_clone = false,
            }
        }
        self.stats.bytes_copied += copy_data(&source, &copy)?;
        Ok(())
    }

    fn special(&mut self, rel: &Path, meta: &Metadata) -> Result<(), Error> {
        let (from, to) = (self.from.join(rel), self.to.join(rel));
        let key = (meta.dev(), meta.ino());
        if meta.nlink() > 1 {
            if let Some(first) = self.links.get(&key) {
                return rustix::fs::linkat(CWD, first, CWD, &to, AtFlags::empty())
                    .map_err(io::Error::from)
                    .map_err(Error::io(format!("link {}", to.display())));
            }
            self.links.insert(key, to.clone());
        }
        let made = if meta.is_symlink() {
            fs::read_link(&from).and_then(|target| std::os::unix::fs::symlink(target, &to))
        } else {
            rustix::fs::mknodat(
                CWD,
                &to,
                FileType::from_raw_mode(meta.mode()),
                Mode::from_raw_mode(meta.mode() & 0o7777),
                meta.rdev(),
            )
            .map_err(io::Error::from)
        };
        made.map_err(Error::io(format!("make {}", to.display())))?;
        self.attributes(rel, meta)
    }

    /// Owner, mode, extended attributes, times: in this order, because each but the last may change what is before it.
    fn attributes(&self, rel: &Path, meta: &Metadata) -> Result<(), Error> {
        let (from, to) = (self.from.join(rel), self.to.join(rel));
        let fail = |what: &str| Error::io(format!("{what} of {}", to.display()));
        // An ordinary user owns all that is in the tree and can give nothing away.
        let now = fs::symlink_metadata(&to).map_err(fail("read the attributes"))?;
        if (now.uid(), now.gid()) != (meta.uid(), meta.gid()) {
            std::os::unix::fs::lchown(&to, Some(meta.uid()), Some(meta.gid()))
                .map_err(fail("set the owner"))?;
        }
        copy_xattrs(&from, &to).map_err(fail("set the extended attributes"))?;
        if !meta.is_symlink() {
            fs::set_permissions(&to, fs::Permissions::from_mode(meta.mode() & 0o7777))
                .map_err(fail("set the mode"))?;
        }
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: meta.atime(),
                tv_nsec: meta.atime_nsec(),
            },
            last_modification: Timespec {
                tv_sec: meta.mtime(),
                tv_nsec: meta.mtime_nsec(),
            },
        };
        rustix::fs::utimensat(CWD, &to, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)
            .map_err(fail("set the times"))
    }
}

/// A directory whose entries are being copied.
struct Visit {
    rel: PathBuf,
    meta: Metadata,
    /// What is left, last name first.
    names: Vec<std::ffi::OsString>,
}

impl Visit {
    fn open(root: &Path, rel: PathBuf, meta: Metadata) -> Result<Self, Error> {
        let path = root.join(&rel);
        let list = || -> io::Result<Vec<_>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&path)? {
                names.push(entry?.file_name());
            }
            Ok(names)
        };
        let mut names = list().map_err(Error::io(format!("list {}", path.display())))?;
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(Self { rel, meta, names })
    }
}

/// Copies data and keeps holes: a guest's sparse file may be larger than the disk.
fn copy_data(source: &File, copy: &File) -> io::Result<u64> {
    use rustix::fs::SeekFrom;
    let size = source.metadata()?.len();
    let mut copied = 0;
    let mut at = 0;
    while at < size {
        let data = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => break, // a hole to the end
            Err(Errno::INVAL) => at,
            Err(e) => return Err(e.into()),
        };
        let end = rustix::fs::seek(source, SeekFrom::Hole(data)).unwrap_or(size);
        copied += copy_range(source, copy, data, end)?;
        at = end;
    }
    copy.set_len(size)?;
    Ok(copied)
}

fn copy_range(source: &File, copy: &File, from: u64, end: u64) -> io::Result<u64> {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let (mut source, mut copy) = (source, copy);
    source.seek(SeekFrom::Start(from))?;
    copy.seek(SeekFrom::Start(from))?;
    // The standard library uses copy_file_range where it can.
    io::copy(&mut source.take(end - from), &mut copy)
}

fn copy_xattrs(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0u8; LONGEST_XATTR];
    let length = match rustix::fs::llistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    let names = names.get(..length).unwrap_or_default();
    let mut value = Vec::new();
    for name in names.split(|b| *b == 0).filter(|n| !n.is_empty()) {
        value.resize(LONGEST_XATTR, 0u8);
        let length = rustix::fs::lgetxattr(from, name, &mut value[..])?;
        let value = value.get(..length).unwrap_or_default();
        rustix::fs::lsetxattr(to, name, value, XattrFlags::empty())?;
    }
    Ok(())
}
