//! What SFTP requests do.

use super::attributes::{self, Attributes, Target, long_name};
use super::wire::{Reader, Writer, code, kind};
use rustix::fs::{CWD, RenameFlags};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, ReadDir};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Most open files and directories of a session.
const MOST_HANDLES: usize = 1024;
/// Most bytes of one read.
const LONGEST_READ: u32 = 256 * 1024;
/// A listing's answer is sent when it is this long.
const LISTING: usize = 32 * 1024;

mod flag {
    pub(super) const READ: u32 = 1;
    pub(super) const WRITE: u32 = 2;
    pub(super) const APPEND: u32 = 4;
    pub(super) const CREATE: u32 = 8;
    pub(super) const TRUNCATE: u32 = 16;
    pub(super) const EXCLUSIVE: u32 = 32;
}

enum Open {
    File { file: File, append: bool },
    Dir { path: PathBuf, entries: ReadDir },
}

/// One SFTP channel's open files.
pub(super) struct Session {
    home: PathBuf,
    open: HashMap<u32, Open>,
    next: u32,
}

/// A failed request.
enum Refusal {
    Io(io::Error),
    Code(u32, &'static str),
}

impl From<io::Error> for Refusal {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<rustix::io::Errno> for Refusal {
    fn from(e: rustix::io::Errno) -> Self {
        Self::Io(e.into())
    }
}

const SHORT: Refusal = Refusal::Code(code::BAD_MESSAGE, "the request is too short");

/// A new packet with the request's number.
fn packet(kind: u8, id: u32) -> Writer {
    let mut w = Writer::new(kind);
    w.u32(id);
    w
}

fn status(id: u32, code: u32, text: &str) -> Vec<u8> {
    let mut w = packet(kind::STATUS, id);
    w.u32(code).bytes(text.as_bytes()).bytes(b"en");
    w.finish()
}

fn refuse(id: u32, refusal: &Refusal) -> Vec<u8> {
    match refusal {
        Refusal::Code(code, text) => status(id, *code, text),
        Refusal::Io(e) => {
            let code = match e.kind() {
                io::ErrorKind::NotFound => code::NO_SUCH_FILE,
                io::ErrorKind::PermissionDenied => code::PERMISSION_DENIED,
                io::ErrorKind::UnexpectedEof => code::EOF,
                _ => code::FAILURE,
            };
            status(id, code, &e.to_string())
        }
    }
}

impl Session {
    pub(super) fn new(home: &str) -> Self {
        Self {
            home: home.into(),
            open: HashMap::new(),
            next: 0,
        }
    }

    /// Answers one packet (without its length).
    ///
    /// # Errors
    /// When the bytes are no request at all: the channel cannot go on.
    pub(super) fn handle(&mut self, request: &[u8]) -> io::Result<Vec<u8>> {
        let mut r = Reader(request);
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let what = r.u8().ok_or_else(broken)?;
        let id = r.u32().ok_or_else(broken)?;
        if what == kind::INIT {
            return Ok(version());
        }
        Ok(self
            .answer(what, id, &mut r)
            .unwrap_or_else(|refusal| refuse(id, &refusal)))
    }

    fn path(&self, r: &mut Reader<'_>) -> Result<PathBuf, Refusal> {
        let bytes = r.bytes().ok_or(SHORT)?;
        if bytes.contains(&0) {
            return Err(Refusal::Code(
                code::BAD_MESSAGE,
                "the name holds a zero byte",
            ));
        }
        // Relative names start at home, like a login's.
        Ok(self.home.join(OsStr::from_bytes(bytes)))
    }

    fn answer(&mut self, what: u8, id: u32, r: &mut Reader<'_>) -> Result<Vec<u8>, Refusal> {
        match what {
            kind::OPEN => return self.open_file(id, r),
            kind::OPENDIR => {
                let path = self.path(r)?;
                let entries = fs::read_dir(&path)?;
                return self.keep(id, Open::Dir { path, entries });
            }
            kind::CLOSE => {
                let key = key(r)?;
                self.open.remove(&key).ok_or(NO_HANDLE)?;
            }
            kind::READ => return self.read(id, r),
            kind::WRITE => {
                let key = key(r)?;
                let at = r.u64().ok_or(SHORT)?;
                let data = r.bytes().ok_or(SHORT)?;
                match self.open.get_mut(&key) {
                    Some(Open::File { file, append: true }) => io::Write::write_all(file, data)?,
                    Some(Open::File { file, .. }) => file.write_all_at(data, at)?,
                    _ => return Err(NO_HANDLE),
                }
            }
            kind::READDIR => return self.read_dir(id, r),
            kind::STAT => return Ok(attrs(id, &fs::metadata(self.path(r)?)?)),
            kind::LSTAT => return Ok(attrs(id, &fs::symlink_metadata(self.path(r)?)?)),
            kind::FSTAT => {
                let key = key(r)?;
                return match self.open.get(&key) {
                    Some(Open::File { file, .. }) => Ok(attrs(id, &file.metadata()?)),
                    Some(Open::Dir { path, .. }) => Ok(attrs(id, &fs::metadata(path)?)),
                    None => Err(NO_HANDLE),
                };
            }
            kind::SETSTAT => {
                let path = self.path(r)?;
                Attributes::read(r)
                    .ok_or(SHORT)?
                    .apply(Target::Path(&path))?;
            }
            kind::FSETSTAT => {
                let key = key(r)?;
                let wanted = Attributes::read(r).ok_or(SHORT)?;
                match self.open.get(&key) {
                    Some(Open::File { file, .. }) => wanted.apply(Target::File(file))?,
                    Some(Open::Dir { path, .. }) => wanted.apply(Target::Path(path))?,
                    None => return Err(NO_HANDLE),
                }
            }
            kind::REMOVE => fs::remove_file(self.path(r)?)?,
            kind::RMDIR => fs::remove_dir(self.path(r)?)?,
            kind::MKDIR => {
                let path = self.path(r)?;
                let wanted = Attributes::read(r).ok_or(SHORT)?;
                fs::create_dir(&path)?;
                wanted.apply(Target::Path(&path))?;
            }
            kind::REALPATH => {
                let path = real_path(&self.path(r)?)?;
                return Ok(one_name(id, path.as_os_str().as_bytes()));
            }
            kind::READLINK => {
                let target = fs::read_link(self.path(r)?)?;
                return Ok(one_name(id, &target.into_os_string().into_vec()));
            }
            kind::RENAME => {
                let (from, to) = (self.path(r)?, self.path(r)?);
                // Version 3: an existing target is an error.
                rustix::fs::renameat_with(CWD, &from, CWD, &to, RenameFlags::NOREPLACE)?;
            }
            kind::SYMLINK => {
                // OpenSSH's order, which everybody follows: what the link says, then where it is.
                let target = r.bytes().ok_or(SHORT)?;
                symlink(OsStr::from_bytes(target), self.path(r)?)?;
            }
            kind::EXTENDED => return self.extended(id, r),
            _ => return Err(Refusal::Code(code::UNSUPPORTED, "unknown request")),
        }
        Ok(status(id, code::OK, "done"))
    }

    fn keep(&mut self, id: u32, open: Open) -> Result<Vec<u8>, Refusal> {
        if self.open.len() >= MOST_HANDLES {
            return Err(Refusal::Code(code::FAILURE, "too many open files"));
        }
        let key = self.next;
        self.next = self.next.wrapping_add(1);
        self.open.insert(key, open);
        let mut w = packet(kind::HANDLE, id);
        // Text: there are clients that take handles for UTF-8 and hand others back changed.
        w.bytes(key.to_string().as_bytes());
        Ok(w.finish())
    }

    fn open_file(&mut self, id: u32, r: &mut Reader<'_>) -> Result<Vec<u8>, Refusal> {
        let path = self.path(r)?;
        let flags = r.u32().ok_or(SHORT)?;
        let wanted = Attributes::read(r).ok_or(SHORT)?;
        let has = |f: u32| flags & f != 0;
        let append = has(flag::APPEND);
        let mut options = fs::OpenOptions::new();
        options
            .read(has(flag::READ))
            .write(has(flag::WRITE) && !append)
            .append(append)
            .mode(wanted.mode.unwrap_or(0o666) & 0o7777);
        if has(flag::CREATE) && has(flag::EXCLUSIVE) {
            options.create_new(true);
        } else if has(flag::CREATE) {
            options.create(true);
        }
        if has(flag::TRUNCATE) && !append {
            options.truncate(true);
        }
        let file = options.open(&path)?;
        if has(flag::TRUNCATE) && append {
            file.set_len(0)?;
        }
        self.keep(id, Open::File { file, append })
    }

    fn read(&mut self, id: u32, r: &mut Reader<'_>) -> Result<Vec<u8>, Refusal> {
        let key = key(r)?;
        let at = r.u64().ok_or(SHORT)?;
        let length = r.u32().ok_or(SHORT)?.min(LONGEST_READ);
        let Some(Open::File { file, .. }) = self.open.get(&key) else {
            return Err(NO_HANDLE);
        };
        let mut data = vec![0; length as usize];
        let mut filled = 0;
        while let Some(rest) = data.get_mut(filled..).filter(|r| !r.is_empty()) {
            match file.read_at(rest, at.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        if filled == 0 && length > 0 {
            return Err(Refusal::Code(code::EOF, "end of file"));
        }
        let mut w = packet(kind::DATA, id);
        w.bytes(data.get(..filled).unwrap_or_default());
        Ok(w.finish())
    }

    fn read_dir(&mut self, id: u32, r: &mut Reader<'_>) -> Result<Vec<u8>, Refusal> {
        let key = key(r)?;
        let Some(Open::Dir { entries, .. }) = self.open.get_mut(&key) else {
            return Err(NO_HANDLE);
        };
        let mut names = Vec::new();
        let mut length = 0;
        while length < LISTING {
            let Some(entry) = entries.next() else { break };
            let entry = entry?;
            let Ok(meta) = entry.metadata() else {
                continue; // gone meanwhile
            };
            let name = entry.file_name().into_vec();
            let long = long_name(&name, &meta);
            length += name.len() + long.len();
            names.push((name, long, meta));
        }
        if names.is_empty() {
            return Err(Refusal::Code(code::EOF, "end of the directory"));
        }
        let mut w = packet(kind::NAME, id);
        w.u32(u32::try_from(names.len()).unwrap_or(u32::MAX));
        for (name, long, meta) in &names {
            w.bytes(name).bytes(long);
            attributes::write(&mut w, meta);
        }
        debug_assert!(w.len() > 9);
        Ok(w.finish())
    }

    fn extended(&mut self, id: u32, r: &mut Reader<'_>) -> Result<Vec<u8>, Refusal> {
        match r.bytes().ok_or(SHORT)? {
            b"posix-rename@openssh.com" => fs::rename(self.path(r)?, self.path(r)?)?,
            b"hardlink@openssh.com" => fs::hard_link(self.path(r)?, self.path(r)?)?,
            b"fsync@openssh.com" => {
                let key = key(r)?;
                match self.open.get(&key) {
                    Some(Open::File { file, .. }) => file.sync_all()?,
                    _ => return Err(NO_HANDLE),
                }
            }
            b"lsetstat@openssh.com" => {
                let path = self.path(r)?;
                Attributes::read(r)
                    .ok_or(SHORT)?
                    .apply(Target::Link(&path))?;
            }
            b"statvfs@openssh.com" => {
                return Ok(file_system(id, &rustix::fs::statvfs(self.path(r)?)?));
            }
            b"fstatvfs@openssh.com" => {
                let key = key(r)?;
                let found = match self.open.get(&key) {
                    Some(Open::File { file, .. }) => rustix::fs::fstatvfs(file)?,
                    Some(Open::Dir { path, .. }) => rustix::fs::statvfs(path)?,
                    None => return Err(NO_HANDLE),
                };
                return Ok(file_system(id, &found));
            }
            b"limits@openssh.com" => {
                let mut w = packet(kind::EXTENDED_REPLY, id);
                w.u64(super::LONGEST_REQUEST.into())
                    .u64(LONGEST_READ.into())
                    .u64(LONGEST_READ.into())
                    .u64(MOST_HANDLES as u64);
                return Ok(w.finish());
            }
            _ => return Err(Refusal::Code(code::UNSUPPORTED, "unknown extension")),
        }
        Ok(status(id, code::OK, "done"))
    }
}

const NO_HANDLE: Refusal = Refusal::Code(code::FAILURE, "no such handle");

fn key(r: &mut Reader<'_>) -> Result<u32, Refusal> {
    let bytes = r.bytes().ok_or(SHORT)?;
    let text = std::str::from_utf8(bytes).map_err(|_| NO_HANDLE)?;
    text.parse().map_err(|_| NO_HANDLE)
}

fn version() -> Vec<u8> {
    let mut w = Writer::new(kind::VERSION);
    w.u32(3);
    for (name, version) in [
        ("posix-rename@openssh.com", "1"),
        ("statvfs@openssh.com", "2"),
        ("fstatvfs@openssh.com", "2"),
        ("hardlink@openssh.com", "1"),
        ("fsync@openssh.com", "1"),
        ("lsetstat@openssh.com", "1"),
        ("limits@openssh.com", "1"),
    ] {
        w.bytes(name.as_bytes()).bytes(version.as_bytes());
    }
    w.finish()
}

fn attrs(id: u32, m: &fs::Metadata) -> Vec<u8> {
    let mut w = packet(kind::ATTRS, id);
    attributes::write(&mut w, m);
    w.finish()
}

fn one_name(id: u32, name: &[u8]) -> Vec<u8> {
    let mut w = packet(kind::NAME, id);
    w.u32(1).bytes(name).bytes(name);
    attributes::write_none(&mut w);
    w.finish()
}

fn file_system(id: u32, s: &rustix::fs::StatVfs) -> Vec<u8> {
    let mut flags = 0;
    if s.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        flags |= 1;
    }
    if s.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID) {
        flags |= 2;
    }
    let mut w = packet(kind::EXTENDED_REPLY, id);
    for n in [
        s.f_bsize,
        s.f_frsize,
        s.f_blocks,
        s.f_bfree,
        s.f_bavail,
        s.f_files,
        s.f_ffree,
        s.f_favail,
        s.f_fsid,
        flags,
        s.f_namemax,
    ] {
        w.u64(n);
    }
    w.finish()
}

/// Resolved; only the last part may not exist, as with OpenSSH.
fn real_path(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
            _ => Err(e),
        },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    fn status_of(reply: &[u8]) -> u32 {
        assert_eq!(reply[4], kind::STATUS);
        u32::from_be_bytes(reply[9..13].try_into().unwrap())
    }

    #[test]
    fn names_that_are_no_utf8_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut s = Session::new(dir.path().to_str().unwrap());
        let mut w = Writer::new(kind::OPEN);
        w.u32(7)
            .bytes(b"a\xff\n")
            .u32(flag::WRITE | flag::CREATE)
            .u32(0);
        let reply = s.handle(&w.finish()[4..]).unwrap();
        assert_eq!(reply[4], kind::HANDLE);
        let handle = &reply[9..];
        let mut w = Writer::new(kind::WRITE);
        w.u32(8).bytes(&handle[4..]).u64(3).bytes(b"xyz");
        assert_eq!(status_of(&s.handle(&w.finish()[4..]).unwrap()), code::OK);
        let name = dir.path().join(OsStr::from_bytes(b"a\xff\n"));
        assert_eq!(fs::read(name).unwrap(), b"\0\0\0xyz");
    }

    #[test]
    fn the_thousandth_handle_is_still_text_that_a_client_can_hand_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut s = Session::new(dir.path().to_str().unwrap());
        for _ in 0..1000 {
            let mut w = Writer::new(kind::OPENDIR);
            w.u32(1).bytes(b".");
            let reply = s.handle(&w.finish()[4..]).unwrap();
            // Length, kind and id, and the handle with its own length.
            let handle = std::str::from_utf8(&reply[13..]).unwrap().to_owned();
            let mut w = Writer::new(kind::CLOSE);
            w.u32(1).bytes(handle.as_bytes());
            assert_eq!(
                status_of(&s.handle(&w.finish()[4..]).unwrap()),
                code::OK,
                "{handle}"
            );
        }
    }

    #[test]
    fn rename_refuses_an_existing_target_and_posix_rename_does_not() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), "a").unwrap();
        fs::write(dir.path().join("b"), "b").unwrap();
        let mut s = Session::new(dir.path().to_str().unwrap());
        let mut w = Writer::new(kind::RENAME);
        w.u32(1).bytes(b"a").bytes(b"b");
        assert_eq!(
            status_of(&s.handle(&w.finish()[4..]).unwrap()),
            code::FAILURE
        );
        let mut w = Writer::new(kind::EXTENDED);
        w.u32(1)
            .bytes(b"posix-rename@openssh.com")
            .bytes(b"a")
            .bytes(b"b");
        assert_eq!(status_of(&s.handle(&w.finish()[4..]).unwrap()), code::OK);
        assert_eq!(fs::read(dir.path().join("b")).unwrap(), b"a");
    }

    proptest! {
        #[test]
        fn any_packet_gets_an_answer_or_ends_the_session(
            // Nothing that changes files: the names are arbitrary.
            what in prop::sample::select(vec![kind::CLOSE, kind::READ, kind::WRITE, kind::FSTAT, kind::READDIR, kind::FSETSTAT, 0, 77, 255]),
            rest in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut s = Session::new("/nonexistent");
            let mut packet = vec![what];
            packet.extend(&rest);
            match s.handle(&packet) {
                Ok(reply) => prop_assert_eq!(reply.len() - 4, u32::from_be_bytes(reply[..4].try_into().unwrap()) as usize),
                Err(_) => prop_assert!(rest.len() < 4),
            }
        }
    }
}
