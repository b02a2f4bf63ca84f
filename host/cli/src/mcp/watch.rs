//! Files of extensions that change while the server runs.
//!
//! A compiler or an editor writes a file in several steps, or puts a new one in its place. So directories are watched, not files, and
//! only what has been still for a moment is loaded.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::site::Site;
use crate::failure::{Code, Failure};
use crate::notices::{Notice, Notices, WatchFlags};

/// So long nothing may happen to the files before they are loaded.
const STILL: Duration = Duration::from_millis(150);
/// What never is still is loaded all the same.
const MOST: usize = 40;

/// Begins to watch these files; the future loads what changes, until it is dropped.
pub(crate) fn watch(
    site: Arc<Site>,
    files: Vec<PathBuf>,
) -> Result<impl Future<Output = ()>, Failure> {
    let mut changes = Changes::of(files)?;
    Ok(async move {
        while changes.next().await {
            for _ in 0..MOST {
                if timeout(STILL, changes.next()).await.is_err() {
                    break;
                }
            }
            match site.reload().await {
                Ok(true) => tracing::info!("the extensions are loaded anew"),
                Ok(false) => {}
                Err(why) => tracing::warn!("the extensions stay as they were: {}", why.line()),
            }
        }
    })
}

/// What the system tells of the directories of some files.
struct Changes {
    told: Notices,
    /// Names of files, by the number under which the system knows their directory.
    names: HashMap<i32, Vec<OsString>>,
}

impl Changes {
    fn of(files: Vec<PathBuf>) -> Result<Self, Failure> {
        let wrong = |what: String, why: std::io::Error| {
            let why = format!("{what} can't be watched: {why}");
            Failure::new(Code::Usage, "usage", why).next("start without --watch")
        };
        let all = || "the files of extensions".to_owned();
        let told = Notices::new().map_err(|why| wrong(all(), why))?;
        let mut names: HashMap<i32, Vec<OsString>> = HashMap::new();
        for file in files {
            let absolute = std::path::absolute(&file).unwrap_or(file);
            let (Some(directory), Some(name)) = (absolute.parent(), absolute.file_name()) else {
                continue;
            };
            let what = WatchFlags::CLOSE_WRITE
                | WatchFlags::MOVED_TO
                | WatchFlags::CREATE
                | WatchFlags::MODIFY;
            let number = told
                .add(directory, what)
                .map_err(|why| wrong(directory.display().to_string(), why.into()))?;
            names.entry(number).or_default().push(name.to_owned());
        }
        Ok(Self { told, names })
    }

    /// Waits until something has happened to one of the files; `false`: nothing will be told any more. Cancel-safe.
    async fn next(&mut self) -> bool {
        loop {
            match self.told.next().await {
                Err(_) => return false,
                Ok(all) if all.iter().any(|notice| self.is_ours(notice)) => return true,
                Ok(_) => {}
            }
        }
    }

    /// Whether one of the files may have changed.
    fn is_ours(&self, notice: &Notice) -> bool {
        notice.is_incomplete()
            || notice.name.as_ref().is_some_and(|name| {
                let names = self.names.get(&notice.directory);
                names.is_some_and(|names| names.contains(name))
            })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Whether a change is told; what is not told is waited for in vain.
    async fn told(changes: &mut Changes) -> bool {
        timeout(Duration::from_millis(300), changes.next())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn a_file_that_is_written_or_replaced_is_told_and_its_neighbour_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let (file, other) = (directory.path().join("a.wasm"), directory.path().join("b"));
        std::fs::write(&file, "1").unwrap();
        let mut changes = Changes::of(vec![file.clone(), directory.path().join("policy")]).unwrap();
        std::fs::write(&other, "2").unwrap();
        assert!(!told(&mut changes).await);
        std::fs::write(&file, "2").unwrap();
        assert!(told(&mut changes).await);
        while told(&mut changes).await {}
        std::fs::rename(&other, &file).unwrap();
        assert!(told(&mut changes).await);
    }
}
