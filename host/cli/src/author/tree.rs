//! The files of a project, and when one of them changes.
//!
//! What a build makes is no change: the directories of the usual toolchains are left out, and so is all that is hidden and what editors
//! keep for themselves. An editor writes a file in several steps: a change is told when all has been still for a moment.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

use crate::failure::{Code, Failure};
use crate::notices::{Notices, ReadFlags, WatchFlags};

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
    told: Notices,
    directories: HashMap<i32, PathBuf>,
}

impl Tree {
    /// Begins to watch.
    pub(super) fn watch(directory: &Path) -> Result<Self, Failure> {
        let wrong = |why: std::io::Error| {
            let why = format!("{} can't be watched: {why}", directory.display());
            Failure::new(Code::Usage, "usage", why)
        };
        let told = Notices::new().map_err(wrong)?;
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
            let what = WatchFlags::CLOSE_WRITE
                | WatchFlags::MOVED_TO
                | WatchFlags::MOVED_FROM
                | WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::ONLYDIR;
            let number = match self.told.add(&directory, what) {
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
            let Ok(all) = self.told.next().await else {
                // Nothing will be told any more.
                return std::future::pending().await;
            };
            let mut ours = false;
            for notice in all {
                ours |= notice.is_incomplete();
                let Some(name) = notice.name.filter(|name| counts(name)) else {
                    continue;
                };
                ours = true;
                let appeared = ReadFlags::CREATE | ReadFlags::MOVED_TO;
                if notice.what.contains(ReadFlags::ISDIR)
                    && notice.what.intersects(appeared)
                    && let Some(parent) = self.directories.get(&notice.directory)
                {
                    let directory = parent.join(name);
                    if let Err(why) = self.add(&directory) {
                        tracing::warn!("{} is not watched: {why}", directory.display());
                    }
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
