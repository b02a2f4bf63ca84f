//! From a path to a descriptor, beneath a directory.
//!
//! To look and to read, the kernel is asked (`openat2` with `RESOLVE_BENEATH` and `RESOLVE_NO_MAGICLINKS`): it alone sees
//! a rename in the middle of a resolution. To write, the directory and the last name are needed one by one, which
//! `openat2` cannot give for a path that ends in a link; and some kernels and sandboxes do not have it at all. For these
//! there is the walk: part by part, `O_NOFOLLOW` always, links read as text and walked in turn, `..` of a link taken from
//! the stack of directories that were passed and never asked of the file system.
//!
//! Why not compare canonical paths: between the comparison and the use, a link can be put in between.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Mode, OFlags, Stat, mkdirat, openat, readlinkat};
use rustix::io::Errno;

use super::{Root, failed};
use crate::{Error, Kind};

/// As many as Linux follows.
const MAX_LINKS: usize = 40;
/// Parts of a path and of the links on its way, not yet walked.
const MAX_PARTS: usize = 10_000;

/// Enough to look at a file or to look something up in a directory; opens nothing in the sense of a device.
#[cfg(target_os = "linux")]
const LOOK: OFlags = OFlags::PATH;
#[cfg(not(target_os = "linux"))]
const LOOK: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// A path that is relative, has no `..` and no NUL.
#[derive(Debug)]
pub(super) struct Relative {
    text: String,
    parts: Vec<String>,
    /// Ends in `/` or `/.`: names a directory or nothing.
    directory: bool,
}

impl Relative {
    pub(super) fn parse(path: &str) -> Result<Self, Error> {
        let shown = path.escape_debug();
        if path.contains('\0') {
            return Err(Error::new(
                Kind::Invalid,
                format!("the path `{shown}` has a NUL in it"),
            ));
        }
        if path.starts_with('/') {
            let message =
                format!("`{shown}` is absolute; paths are relative to a granted directory");
            return Err(Error::new(Kind::Denied, message));
        }
        if path.split('/').any(|part| part == "..") {
            let message =
                format!("`{shown}` has `..` in it, which may lead out of the granted directory");
            return Err(Error::new(Kind::Denied, message));
        }
        if path.len() > 4096 {
            return Err(Error::new(
                Kind::Invalid,
                format!("a path of {} bytes is too long", path.len()),
            ));
        }
        let parts: Vec<_> = path
            .split('/')
            .filter(|part| !matches!(*part, "" | "."))
            .map(str::to_owned)
            .collect();
        let directory = parts.is_empty() || path.ends_with('/') || path.ends_with("/.");
        let text = if parts.is_empty() {
            ".".to_owned()
        } else {
            parts.join("/")
        };
        Ok(Self {
            text,
            parts,
            directory,
        })
    }

    /// Without empty parts and dots; `.` for the root.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The last part.
    pub(super) fn name(&self) -> String {
        self.parts.last().cloned().unwrap_or_else(|| ".".to_owned())
    }

    /// Whether it can name nothing but a directory.
    pub(super) fn is_directory(&self) -> bool {
        self.directory
    }
}

/// What to do with a link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Follow,
    Keep,
}

/// Where a walk ended: a name in a directory, or (`None`) the directory itself.
#[derive(Debug)]
pub(super) struct Spot {
    pub(super) dir: OwnedFd,
    pub(super) name: Option<OsString>,
}

fn leads_out(path: &Relative) -> Error {
    let message = format!(
        "`{}` leads out of the granted directory by a link",
        path.as_str().escape_debug()
    );
    Error::new(Kind::Denied, message)
}

fn too_many_links(path: &Relative) -> Error {
    let message = format!(
        "`{}` has too many links on its way, or one of /proc",
        path.as_str().escape_debug()
    );
    Error::new(Kind::Denied, message)
}

impl Root {
    /// What the path names, links followed, without opening it.
    pub(super) fn look(&self, path: &Relative) -> Result<(OwnedFd, Stat), Error> {
        let flags = if path.directory {
            LOOK | OFlags::DIRECTORY
        } else {
            LOOK
        };
        let fd = self.open_beneath(path, flags)?;
        let stat =
            rustix::fs::fstat(&fd).map_err(|error| failed("looking at", path.as_str(), error))?;
        Ok((fd, stat))
    }

    /// Opens what the path names, links followed. Not for creating.
    pub(super) fn open_beneath(&self, path: &Relative, flags: OFlags) -> Result<OwnedFd, Error> {
        let flags = flags | OFlags::CLOEXEC;
        if self.0.kernel
            && let Some(answer) = self.ask_kernel(path, flags)
        {
            return answer;
        }
        let spot = self.walk(path, Last::Follow, false)?;
        let opened = match &spot.name {
            Some(name) => openat(&spot.dir, name, flags | OFlags::NOFOLLOW, Mode::empty()),
            None => openat(&spot.dir, ".", flags, Mode::empty()),
        };
        opened.map_err(|error| match error {
            // A link where there was none when the walk passed.
            Errno::LOOP => leads_out(path),
            error => failed("opening", path.as_str(), error),
        })
    }

    /// `None` where the kernel, or a sandbox around us, has no `openat2`.
    #[cfg(target_os = "linux")]
    fn ask_kernel(&self, path: &Relative, flags: OFlags) -> Option<Result<OwnedFd, Error>> {
        use rustix::fs::{ResolveFlags, openat2};
        static MISSING: AtomicBool = AtomicBool::new(false);
        if MISSING.load(Ordering::Relaxed) {
            return None;
        }
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        // EAGAIN: something was renamed meanwhile, and the kernel cannot vouch for the result.
        for _ in 0..32 {
            return Some(
                match openat2(&self.0.dir, path.as_str(), flags, Mode::empty(), how) {
                    Ok(fd) => Ok(fd),
                    Err(Errno::AGAIN) => continue,
                    Err(Errno::NOSYS | Errno::PERM) => {
                        MISSING.store(true, Ordering::Relaxed);
                        return None;
                    }
                    Err(Errno::XDEV) => Err(leads_out(path)),
                    Err(Errno::LOOP) => Err(too_many_links(path)),
                    Err(error) => Err(failed("opening", path.as_str(), error)),
                },
            );
        }
        let message = format!(
            "`{}` is being renamed all the time; try again",
            path.as_str().escape_debug()
        );
        Some(Err(Error::new(Kind::Unavailable, message)))
    }

    #[cfg(not(target_os = "linux"))]
    fn ask_kernel(&self, _path: &Relative, _flags: OFlags) -> Option<Result<OwnedFd, Error>> {
        None
    }

    /// Walks to where the path ends, which need not exist; `make` makes missing directories on the way.
    pub(super) fn walk(&self, path: &Relative, last: Last, make: bool) -> Result<Spot, Error> {
        let failed = |error| failed("resolving", path.as_str(), error);
        let here = |flags| openat(&self.0.dir, ".", flags, Mode::empty());
        let directory = LOOK | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut passed = vec![here(directory).map_err(failed)?];
        let mut todo: VecDeque<OsString> = path.parts.iter().map(OsString::from).collect();
        let mut links = 0;
        while let Some(part) = todo.pop_front() {
            let Some(dir) = passed.last() else {
                return Err(leads_out(path));
            };
            if part == ".." {
                // Only a link's text has these. The root's own parent is outside.
                passed.pop();
                if passed.is_empty() {
                    return Err(leads_out(path));
                }
                continue;
            }
            let is_last = todo.is_empty();
            let target = match readlinkat(dir, &part, Vec::new()) {
                Ok(target) => target,
                Err(Errno::NOENT) if is_last => return spot(passed, Some(part)),
                Err(Errno::NOENT) if make => {
                    self.1.check(dir, Some(&part))?;
                    match mkdirat(dir, &part, Mode::from_raw_mode(0o755)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(failed(error)),
                    }
                    passed.push(openat(dir, &part, directory, Mode::empty()).map_err(failed)?);
                    continue;
                }
                // Not a link.
                Err(Errno::INVAL) if is_last => return spot(passed, Some(part)),
                Err(Errno::INVAL) => {
                    passed.push(openat(dir, &part, directory, Mode::empty()).map_err(failed)?);
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            if is_last && last == Last::Keep {
                return spot(passed, Some(part));
            }
            links += 1;
            if links > MAX_LINKS || todo.len() > MAX_PARTS {
                return Err(too_many_links(path));
            }
            let target = target.as_bytes();
            if target.starts_with(b"/") {
                return Err(leads_out(path));
            }
            for part in target
                .rsplit(|byte| *byte == b'/')
                .filter(|part| !matches!(*part, b"" | b"."))
            {
                todo.push_front(OsString::from_vec(part.to_vec()));
            }
        }
        spot(passed, None)
    }
}

fn spot(mut passed: Vec<OwnedFd>, name: Option<OsString>) -> Result<Spot, Error> {
    let dir = passed
        .pop()
        .ok_or_else(|| Error::new(Kind::Other, "a walk lost its way"))?;
    Ok(Spot { dir, name })
}
