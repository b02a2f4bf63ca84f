//! Sessions with a name: what extensions keep with a session survives the process.
//!
//! One file for a session, in the state directory, private to the user: an id and the entries of each extension. A change
//! is written beside it and renamed into place, under a lock, so that two processes with one session lose nothing and
//! a crash leaves the old file or the new one.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::dirs;
use crate::failure::Failure;

/// Another process holds the lock for a read and a write of one file.
const LOCK: Duration = Duration::from_secs(10);
/// A session's file is never larger.
const LARGEST: u64 = 64 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    id: String,
    #[serde(default)]
    entries: Vec<Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Entry {
    extension: String,
    kind: String,
    data: Value,
}

/// A session's file.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    path: PathBuf,
    id: String,
}

/// What goes wrong with it, in words.
type Result<T> = std::result::Result<T, String>;

impl Stored {
    /// The session of this name, made if it is new.
    pub(crate) async fn open(name: &str) -> std::result::Result<Self, Failure> {
        let fits = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
            && !name.starts_with(['.', '-']);
        if !fits {
            return Err(Failure::usage(format!(
                "{name:?} is no name for a session: use 1 to 64 letters, digits, -, _ and ."
            )));
        }
        let directory = dirs::private(dirs::state()?.join("sessions"))?;
        let path = directory.join(format!("{name}.json"));
        let at = path.clone();
        let id = update(at, |record| record.id.clone())
            .await
            .map_err(Failure::internal)?;
        Ok(Self { path, id })
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Adds an entry.
    pub(crate) async fn append(&self, extension: &str, kind: &str, data: Value) -> Result<()> {
        let entry = Entry {
            extension: extension.to_owned(),
            kind: kind.to_owned(),
            data,
        };
        update(self.path.clone(), move |record| record.entries.push(entry)).await
    }

    /// The entries of an extension, oldest first.
    pub(crate) async fn entries(&self, extension: &str, kind: Option<&str>) -> Result<Vec<Value>> {
        let path = self.path.clone();
        let record = blocking(move || read(&path)).await?;
        let entries = record.into_iter().flat_map(|record| record.entries);
        let wanted = entries.filter(|entry| {
            entry.extension == extension && kind.is_none_or(|kind| kind == entry.kind)
        });
        Ok(wanted.map(|entry| entry.data).collect())
    }

    /// Whether anything is kept in it.
    pub(crate) async fn is_new(&self) -> bool {
        let path = self.path.clone();
        blocking(move || read(&path))
            .await
            .is_ok_and(|record| record.is_none_or(|record| record.entries.is_empty()))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|why| format!("the session's file: {why}"))?
}

/// Reads, changes and writes the record under the lock.
async fn update<T: Send + 'static>(
    path: PathBuf,
    change: impl FnOnce(&mut Record) -> T + Send + 'static,
) -> Result<T> {
    let lock = lock(path.with_extension("lock")).await?;
    blocking(move || {
        let mut record = read(&path)?.unwrap_or_else(|| Record {
            id: uuid::Uuid::new_v4().to_string(),
            entries: Vec::new(),
        });
        let answer = change(&mut record);
        write(&path, &record)?;
        drop(lock);
        Ok(answer)
    })
    .await
}

/// The lock, within its time. A thread that still waits then takes it and lets it go again.
async fn lock(path: PathBuf) -> Result<File> {
    let failed = |why: &dyn std::fmt::Display| format!("cannot lock {}: {why}", path.display());
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&path)
        .map_err(|why| failed(&why))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(why)) => return Err(failed(&why)),
    }
    let waiting = blocking(move || file.lock().map(|()| file).map_err(|why| why.to_string()));
    match tokio::time::timeout(LOCK, waiting).await {
        Ok(locked) => locked.map_err(|why| failed(&why)),
        Err(_) => Err(failed(
            &"another pi-vers has held it for 10 s; end that one, or use another session",
        )),
    }
}

fn read(path: &Path) -> Result<Option<Record>> {
    let failed = |why: &dyn std::fmt::Display| {
        format!("the session {} can't be read: {why}", path.display())
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(why) if why.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(why) => return Err(failed(&why)),
    };
    let mut text = String::new();
    file.take(LARGEST)
        .read_to_string(&mut text)
        .map_err(|why| failed(&why))?;
    let record = serde_json::from_str(&text);
    record
        .map(Some)
        .map_err(|why| failed(&format!("it is damaged ({why}); remove it to begin anew")))
}

fn write(path: &Path, record: &Record) -> Result<()> {
    let failed = |why: &dyn std::fmt::Display| {
        format!("the session {} can't be written: {why}", path.display())
    };
    let text = serde_json::to_vec(record).map_err(|why| failed(&why))?;
    if text.len() as u64 >= LARGEST {
        return Err(failed(&"it has grown to 64 MiB; begin another session"));
    }
    let directory = path.parent().unwrap_or(Path::new("."));
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory).map_err(|why| failed(&why))?;
    file.write_all(&text).map_err(|why| failed(&why))?;
    file.persist(path)
        .map_err(|why| failed(&why.error))
        .map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::PermissionsExt as _;

    async fn at(path: &Path) -> Stored {
        let id = update(path.to_owned(), |record| record.id.clone())
            .await
            .unwrap();
        Stored {
            path: path.to_owned(),
            id,
        }
    }

    #[tokio::test]
    async fn entries_and_the_id_survive_and_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        let first = at(&path).await;
        assert!(first.is_new().await);
        first.append("x", "a", json!(1)).await.unwrap();
        first.append("y", "a", json!(2)).await.unwrap();
        first.append("x", "b", json!(3)).await.unwrap();
        let second = at(&path).await;
        assert_eq!(second.id(), first.id());
        assert!(!second.is_new().await);
        assert_eq!(
            second.entries("x", None).await.unwrap(),
            [json!(1), json!(3)]
        );
        assert_eq!(second.entries("x", Some("b")).await.unwrap(), [json!(3)]);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn writers_side_by_side_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        let session = at(&path).await;
        let appends = (0..40).map(|n| {
            let session = session.clone();
            tokio::spawn(async move { session.append("x", "n", json!(n)).await })
        });
        for append in futures::future::join_all(appends).await {
            append.unwrap().unwrap();
        }
        let mut found: Vec<u64> = session
            .entries("x", None)
            .await
            .unwrap()
            .iter()
            .filter_map(Value::as_u64)
            .collect();
        found.sort_unstable();
        assert_eq!(found, (0..40).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_damaged_file_is_named_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.json");
        std::fs::write(&path, "{").unwrap();
        let why = update(path.clone(), |_| ()).await.unwrap_err();
        assert!(why.contains("damaged") && why.contains("s.json"), "{why}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{");
    }

    #[tokio::test]
    async fn names_that_lead_elsewhere_are_refused() {
        for name in ["", "..", "a/b", "-x", ".hidden", "a b", &"x".repeat(65)] {
            assert!(Stored::open(name).await.is_err(), "{name:?}");
        }
    }
}
