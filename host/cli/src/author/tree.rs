//! The files of a project, and when one of them changes.
//!
//! What a build makes is no change: the directories of the usual toolchains are left out, and so is all that is hidden and what editors
//! keep for themselves. An editor writes a file in several steps: a change is told when all has been still for a moment.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::inotify;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::failure::{Code, Failure};

/// So long nothing may happen before a change is told.
const STILL: Duration = Duration::from_millis(100);
/// What never is still is told all the same.
const MOST_WAITS: usize = 50;
/// A project has fewer directories.
const MOST: usize = 5000;
/// Directories that builds fill.
const MADE: [&str; 6] = [
    "target",
    "build",
    "node_modules",
    "dist",
    "__pycache__",
    "venv",
];

/// See the module.
pub(super) struct Tree {
    told: AsyncFd<OwnedFd>,
    directories: HashMap<i32, PathBuf>,
}

impl Tree {
    /// Begins to watch.
    pub(super) fn watch(directory: &Path) -> Result<Self, Failure> {
        let wrong = |why: std::io::Error| {
            let why = format!("{} can't be watched: {why}", directory.display());
            Failure::new(Code::Usage, "usage", why)
        };
        let flags = inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK;
        let told = inotify::init(flags).map_err(|why| wrong(why.into()))?;
        #[allow(
            deprecated,
            reason = "deprecated for types that may change their descriptor: `OwnedFd` does not, and the other way is unsafe"
        )]
        let told = AsyncFd::new(told).map_err(wrong)?;
        let mut tree = Self {
            told,
            directories: HashMap::new(),
        };
        tree.add(directory).map_err(wrong)?;
        Ok(tree)
    }

    /// This directory and all below it.
    fn add(&mut self, root: &Path) -> std::io::Result<()> {
        let mut open = vec![root.to_owned()];
        while let Some(directory) = open.pop() {
            if self.directories.len() >= MOST {
                return Err(std::io::Error::other(format!(
                    "it has more than {MOST} directories"
                )));
            }
            let what = inotify::WatchFlags::CLOSE_WRITE
                | inotify::WatchFlags::MOVED_TO
                | inotify::WatchFlags::MOVED_FROM
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::DELETE
                | inotify::WatchFlags::ONLYDIR;
            let number = match inotify::add_watch(self.told.get_ref(), &directory, what) {
                Ok(number) => number,
                // It was there a moment ago.
                Err(rustix::io::Errno::NOENT) if directory != root => continue,
                Err(why) => return Err(why.into()),
            };
            for entry in std::fs::read_dir(&directory)?.flatten() {
                // Links are not followed: they may lead in a circle.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) && counts(&entry.file_name()) {
                    open.push(entry.path());
                }
            }
            self.directories.insert(number, directory);
        }
        Ok(())
    }

    /// Resolves when something has changed since the last time, and all is still. Cancel-safe.
    pub(super) async fn changed(&mut self) {
        self.event().await;
        for _ in 0..MOST_WAITS {
            if timeout(STILL, self.event()).await.is_err() {
                return;
            }
        }
    }

    async fn event(&mut self) {
        loop {
            let Ok(mut ready) = self.told.readable().await else {
                // Nothing will be told any more.
                return std::future::pending().await;
            };
            let (mut ours, mut new) = (false, Vec::new());
            let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
            let mut reader = inotify::Reader::new(self.told.get_ref(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) => {
                        if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) {
                            ours = true;
                        }
                        let Some(name) = event.file_name() else {
                            continue;
                        };
                        let name = OsStr::from_bytes(name.to_bytes());
                        if !counts(name) {
                            continue;
                        }
                        ours = true;
                        let appeared = inotify::ReadFlags::CREATE | inotify::ReadFlags::MOVED_TO;
                        if event.events().contains(inotify::ReadFlags::ISDIR)
                            && event.events().intersects(appeared)
                            && let Some(parent) = self.directories.get(&event.wd())
                        {
                            new.push(parent.join(name));
                        }
                    }
                    Err(rustix::io::Errno::INTR) => {}
                    Err(_) => break,
                }
            }
            ready.clear_ready();
            for directory in new {
                if let Err(why) = self.add(&directory) {
                    tracing::warn!("{} is not watched: {why}", directory.display());
                }
            }
            if ours {
                return;
            }
        }
    }
}

/// Whether something of this name belongs to a project's sources.
fn counts(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let editors = name.ends_with('~') || name.starts_with('#') || name == "4913";
    !(name.starts_with('.') || editors || MADE.contains(&&*name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    async fn told(tree: &mut Tree) -> bool {
        timeout(Duration::from_millis(500), tree.changed())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn sources_are_told_of_wherever_they_are_and_what_a_build_makes_is_not() {
        let project = tempfile::tempdir().unwrap();
        let at = |path: &str| project.path().join(path);
        for directory in ["src/deep", "target/debug", ".git", "build"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        let mut tree = Tree::watch(project.path()).unwrap();
        for made in [
            "target/debug/x",
            ".git/index",
            "build/x.wasm",
            "src/.lib.rs.swp",
            "src/lib.rs~",
        ] {
            std::fs::write(at(made), "x").unwrap();
        }
        assert!(!told(&mut tree).await);
        for source in ["policy.toml", "src/lib.rs", "src/deep/a.rs"] {
            std::fs::write(at(source), "x").unwrap();
            assert!(told(&mut tree).await, "{source}");
        }
        std::fs::create_dir_all(at("src/new/deeper")).unwrap();
        assert!(told(&mut tree).await);
        std::fs::write(at("src/new/deeper/b.rs"), "x").unwrap();
        assert!(told(&mut tree).await, "in a directory that came later");
        std::fs::remove_file(at("src/lib.rs")).unwrap();
        assert!(told(&mut tree).await);
        assert!(!told(&mut tree).await, "each change once");
    }
}
