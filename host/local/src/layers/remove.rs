//! Removing trees that do not want to be removed.

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, fchmod, openat, unlinkat};
use rustix::io::Errno;
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Directories on one path from the root to the deepest: beyond it something is wrong.
const DEEPEST: usize = 4096;

/// Removes `path` and everything in it.
///
/// Works relative to open directories and without following links, so that nobody who writes into the tree meanwhile can
/// lead it out. Directories that may not be read are made readable first.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    match unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let dir = match open_dir(CWD, path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    empty(dir)?;
    unlinkat(CWD, path, AtFlags::REMOVEDIR)?;
    Ok(())
}

/// Empties a directory without recursion: guests may nest deeper than a thread's stack.
fn empty(root: OwnedFd) -> io::Result<()> {
    // Each open directory, and the name by which its parent knows it.
    let mut stack: Vec<(OwnedFd, Option<std::ffi::CString>)> = vec![(root, None)];
    while let Some((dir, _)) = stack.last() {
        match clear_or_find_dir(dir.as_fd())? {
            Some(name) => {
                if stack.len() > DEEPEST {
                    return Err(io::Error::other("directories are nested too deeply"));
                }
                let child = open_dir(dir.as_fd(), name.as_c_str())?;
                stack.push((child, Some(name)));
            }
            None => {
                let done = stack.pop();
                if let (Some((_, Some(name))), Some((parent, _))) = (done, stack.last()) {
                    unlinkat(parent, &name, AtFlags::REMOVEDIR)?;
                }
            }
        }
    }
    Ok(())
}

/// Removes what is no directory or an empty one; returns the first directory that is not empty.
fn clear_or_find_dir(dir: BorrowedFd<'_>) -> io::Result<Option<std::ffi::CString>> {
    // `read_from` opens the directory anew, so every look starts at its first entry.
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name: &CStr = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match unlinkat(dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
        match unlinkat(dir, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::ACCESS) => {
                return Ok(Some(name.to_owned()));
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(None)
}

fn open_dir(at: impl AsFd, name: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match openat(&at, name, flags, Mode::empty()) {
        Err(Errno::ACCESS) => {
            // Owned by us, but closed: open it by path only, open up its mode through that, and try again.
            let closed = openat(
                &at,
                name,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            use std::os::fd::AsRawFd as _;
            let path = format!("/proc/self/fd/{}", closed.as_raw_fd());
            rustix::fs::chmod(path, Mode::RWXU)?;
            openat(&at, name, flags, Mode::empty())?
        }
        other => other?,
    };
    // Without write and search rights nothing in it can be removed.
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&dir)?.st_mode & 0o7777);
    if !mode.contains(Mode::RWXU) {
        fchmod(&dir, mode | Mode::RWXU)?;
    }
    Ok(dir)
}
