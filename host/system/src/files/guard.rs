//! What no grant reaches: files that say what may be done, and directories in which only the host writes.
//!
//! The threat is a guest that grants itself more. A grant to write to `~` would be a grant to write the policy, to put machine code into the
//! cache of compiled components, or to remove the project's file that narrows it. So these are named once and refused, whatever
//! is granted around them.
//!
//! A path is not compared with a path: links (a copy makes them), bind mounts and other spellings lead to the same place. What is
//! compared is device and inode: of the directory that is about to be changed and of all above it, and of what has the name now. What is
//! not there yet is guarded as a name in the nearest directory that is.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat, fstat, openat, statat};
use rustix::io::Errno;

use crate::{Error, Kind};

/// Deeper than any directory is.
const DEEPEST: usize = 4096;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::CLOEXEC);
#[cfg(target_os = "linux")]
const LOOK: OFlags = DIRECTORY.union(OFlags::PATH);
#[cfg(not(target_os = "linux"))]
const LOOK: OFlags = DIRECTORY.union(OFlags::RDONLY);

/// Which file: device and inode.
type Identity = (u64, u64);

fn identity(stat: &Stat) -> Identity {
    #[allow(clippy::unnecessary_cast, reason = "their types differ by platform")]
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// Places that are never written to. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Guard(Arc<Places>);

#[derive(Debug, Default)]
struct Places {
    /// With all that is in them.
    directories: Vec<Identity>,
    /// A name in a directory, whether it is there or not.
    names: Vec<(Identity, OsString)>,
}

impl Guard {
    /// Guards these files and directories, as they are now: with all that is in them, and their names. Those that are not there are guarded
    /// against being made. Blocks for a few looks each.
    pub fn new<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Self {
        let mut places = Places::default();
        for path in paths {
            places.add(path.as_ref());
            // Where a link leads is guarded, and so is the link.
            if let Ok(real) = std::fs::canonicalize(&path) {
                places.add(&real);
            }
        }
        Self(Arc::new(places))
    }

    /// Refuses a change of this name in this directory; `None`: of the directory itself.
    pub(super) fn check(&self, directory: impl AsFd, name: Option<&OsStr>) -> Result<(), Error> {
        let Places { directories, names } = &*self.0;
        if directories.is_empty() && names.is_empty() {
            return Ok(());
        }
        let directory = directory.as_fd();
        let own = fstat(directory).map_err(unknown)?;
        let own = identity(&own);
        if let Some(name) = name {
            if names
                .iter()
                .any(|(parent, guarded)| *parent == own && guarded == name)
            {
                return Err(guarded(name));
            }
            match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if directories.contains(&identity(&stat)) => return Err(guarded(name)),
                Ok(_) | Err(Errno::NOENT) => {}
                Err(why) => return Err(unknown(why)),
            }
        }
        match self.is_inside(directory)? {
            true => Err(guarded(name.unwrap_or(OsStr::new(".")))),
            false => Ok(()),
        }
    }

    /// The same for a directory just entered from one that was checked.
    pub(super) fn check_entered(&self, directory: impl AsFd) -> Result<(), Error> {
        if self.0.directories.is_empty() {
            return Ok(());
        }
        let own = fstat(directory).map_err(unknown)?;
        match self.0.directories.contains(&identity(&own)) {
            true => Err(guarded(OsStr::new("."))),
            false => Ok(()),
        }
    }

    /// The same for a name in a directory that was checked.
    pub(super) fn check_name(&self, directory: impl AsFd, name: &OsStr) -> Result<(), Error> {
        if self.0.names.iter().all(|(_, guarded)| guarded != name) {
            return Ok(());
        }
        let own = identity(&fstat(directory).map_err(unknown)?);
        let names = &self.0.names;
        match names
            .iter()
            .any(|(parent, it)| *parent == own && it == name)
        {
            true => Err(guarded(name)),
            false => Ok(()),
        }
    }

    /// Whether the directory or one above it is guarded.
    fn is_inside(&self, directory: BorrowedFd<'_>) -> Result<bool, Error> {
        let mut here: OwnedFd = openat(directory, ".", LOOK, Mode::empty()).map_err(unknown)?;
        let mut last = None;
        for _ in 0..DEEPEST {
            let own = identity(&fstat(&here).map_err(unknown)?);
            if self.0.directories.contains(&own) {
                return Ok(true);
            }
            // The root is its own parent.
            if last == Some(own) {
                return Ok(false);
            }
            last = Some(own);
            here = openat(&here, "..", LOOK, Mode::empty()).map_err(unknown)?;
        }
        Err(Error::new(
            Kind::Denied,
            "a directory is too deep to say where it is",
        ))
    }
}

impl Places {
    fn add(&mut self, path: &Path) {
        let look = |path: &Path| {
            let there = openat(CWD, path, LOOK, Mode::empty()).ok()?;
            fstat(&there).ok().map(|stat| identity(&stat))
        };
        if let Some(directory) = look(path) {
            self.directories.push(directory);
        }
        // The lowest part of it whose directory is there: the thing itself, or what would have to be made first.
        let mut part = path;
        while let (Some(parent), Some(name)) = (part.parent(), part.file_name()) {
            let parent = match parent.as_os_str().is_empty() {
                true => Path::new("."),
                false => parent,
            };
            if let Some(directory) = look(parent) {
                self.names.push((directory, name.to_owned()));
                return;
            }
            part = parent;
        }
    }
}

/// What cannot be told to be harmless is refused.
fn unknown(why: Errno) -> Error {
    Error::new(
        Kind::Denied,
        format!("whether this is one of the host's own places cannot be told: {why}"),
    )
}

fn guarded(name: &OsStr) -> Error {
    let name = name.to_string_lossy();
    let message = format!(
        "`{}` is one of the host's own places (its policy, its caches, its state), where no extension writes whatever it is granted",
        name.escape_debug()
    );
    Error::new(Kind::Denied, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::symlink;

    use super::super::{Access, Root, WriteOptions};
    use super::*;

    fn text(
        text: &'static str,
    ) -> futures::stream::Iter<std::vec::IntoIter<Result<bytes::Bytes, Error>>> {
        futures::stream::iter(vec![Ok(bytes::Bytes::from_static(text.as_bytes()))])
    }

    #[tokio::test]
    async fn no_spelling_leads_to_a_guarded_place() {
        let home = tempfile::tempdir().unwrap();
        let at = |name: &str| home.path().join(name);
        std::fs::create_dir_all(at("config/pi-vers/deep")).unwrap();
        std::fs::create_dir_all(at("other")).unwrap();
        std::fs::write(at("config/pi-vers/policy.toml"), "strict").unwrap();
        std::fs::write(at("project.toml"), "strict").unwrap();
        symlink("config/pi-vers", at("way")).unwrap();
        symlink("config", at("half")).unwrap();
        symlink("../project.toml", at("other/link")).unwrap();
        let guard = Guard::new([
            at("config/pi-vers"),
            at("project.toml"),
            at("later/pi-vers/policy.toml"),
        ]);
        let root = Root::open(home.path(), Access::ReadWrite)
            .unwrap()
            .guarded(guard);
        let options = || WriteOptions {
            parents: true,
            ..WriteOptions::default()
        };
        for path in [
            "config/pi-vers/policy.toml",
            "config/pi-vers/new",
            "config/pi-vers/deep/new",
            "config/pi-vers/made/deeper/new",
            "way/policy.toml",
            "way/deep/new",
            "half/pi-vers/policy.toml",
            "./config/./pi-vers//policy.toml",
            "project.toml",
            "other/link",
            "later/pi-vers/policy.toml",
            "later",
            "later/x",
        ] {
            let written = root.write(path, text("mine"), options()).await;
            assert_eq!(written.unwrap_err().kind(), Kind::Denied, "{path}");
            assert!(root.target(path, true).is_err(), "{path}");
        }
        for path in [
            "config/pi-vers/policy.toml",
            "project.toml",
            "way/deep",
            "config/pi-vers/deep",
        ] {
            let removed = root.remove(path).await;
            assert_eq!(removed.unwrap_err().kind(), Kind::Denied, "{path}");
        }
        let strict = |name: &str| std::fs::read_to_string(at(name)).unwrap() == "strict";
        assert!(strict("config/pi-vers/policy.toml") && strict("project.toml"));
        assert!(!at("later").exists() && !at("config/pi-vers/made").exists());
        // What is beside them is not.
        for path in [
            "config/other",
            "other/project.toml",
            "other/policy.toml",
            "x/y",
        ] {
            root.write(path, text("x"), options()).await.unwrap();
        }
        root.remove("other/link").await.unwrap();
        // They may be read, if that is granted.
        assert_eq!(
            root.stat("config/pi-vers/policy.toml").await.unwrap().size,
            6
        );
    }

    #[test]
    fn a_copied_tree_does_not_reach_one_either() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(home.path().join("config/pi-vers")).unwrap();
        let guard = Guard::new([
            home.path().join("config/pi-vers"),
            home.path().join("later"),
        ]);
        let root = Root::open(home.path(), Access::ReadWrite)
            .unwrap()
            .guarded(guard);
        let name = |text: &str| super::super::tree::Name::new(text.as_bytes()).unwrap();
        let top = root.target(".", false).unwrap().directory;
        let (config, _) = top.make(&name("config")).unwrap();
        assert_eq!(
            config.make(&name("pi-vers")).unwrap_err().kind(),
            Kind::Denied
        );
        assert_eq!(
            config.draft(&name("pi-vers")).unwrap_err().kind(),
            Kind::Denied
        );
        assert_eq!(top.make(&name("later")).unwrap_err().kind(), Kind::Denied);
        assert_eq!(top.draft(&name("later")).unwrap_err().kind(), Kind::Denied);
        let link = top.set_link(&name("later"), b"x", Default::default());
        assert_eq!(link.unwrap_err().kind(), Kind::Denied);
        assert!(config.make(&name("else")).is_ok());
    }
}
