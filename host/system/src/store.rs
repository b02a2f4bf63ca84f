//! Small JSON values that outlive the session, a space for each extension.
//!
//! A space is one file, a JSON object from key to JSON text, replaced as a whole: written beside, synced, renamed, the
//! directory synced. So a crash leaves the state before or after a call; any string is a key without an encoding that
//! could go wrong; the quota is exact; and `swap` needs no more than the lock. That a `set` costs the size of the space
//! is fine for spaces of this size (a file for each key would be faster beyond some megabytes, and slower to list).
//!
//! Writers of several processes take turns by `flock` on a file beside; readers need no lock. Values come back exactly
//! as they were set, so a number loses no digit. Directory 0700, files 0600.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Kind};

/// Bytes of a key.
const MAX_KEY: usize = 1024;
/// Bytes of a file's name, the ending aside.
const MAX_NAME: usize = 200;
/// How long to wait for other processes' turns.
const LOCK_DEADLINE: Duration = Duration::from_secs(10);

type Space = BTreeMap<String, String>;

/// One extension's space. Cheap to clone; the clones take turns without asking the system.
#[derive(Debug, Clone)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    /// The name of the extension, encoded.
    name: String,
    max_bytes: u64,
    turn: Mutex<()>,
}

/// What a change decides to do with the space.
enum Change<T> {
    Write(T),
    Leave(T),
}

impl Store {
    /// Opens the space of an extension beneath `dir`, which is made if it is missing. `max_bytes` bounds the sum of its
    /// keys and values. Blocks for a few system calls.
    pub fn open(dir: &Path, extension: &str, max_bytes: u64) -> Result<Self, Error> {
        let name = encode(extension);
        if name.is_empty() || name.len() > MAX_NAME {
            let message = format!(
                "`{}` is too short or too long for the name of an extension",
                extension.escape_debug()
            );
            return Err(Error::new(Kind::Invalid, message));
        }
        let failed = |error| {
            Error::io(
                format_args!("opening the store `{}`", dir.display()),
                &error,
            )
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
        let mode = std::fs::metadata(dir).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            std::fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(failed)?;
        }
        Ok(Self(Arc::new(Inner {
            dir: dir.to_owned(),
            name,
            max_bytes,
            turn: Mutex::new(()),
        })))
    }

    /// The value, if there is one.
    pub async fn get(&self, key: &str) -> Result<Option<String>, Error> {
        let key = key.to_owned();
        self.blocking(move |store| Ok(store.load()?.remove(&key)))
            .await
    }

    /// The keys that begin with this, sorted.
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let prefix = prefix.to_owned();
        self.blocking(move |store| {
            Ok(store
                .load()?
                .into_keys()
                .filter(|key| key.starts_with(&prefix))
                .collect())
        })
        .await
    }

    /// Sets a value, a JSON text. Durable when it returns; if the future is dropped it is done or not.
    ///
    /// # Errors
    /// `Invalid` if the value is no JSON; `Limit` if the space would become too large.
    pub async fn set(&self, key: &str, value: &str) -> Result<(), Error> {
        check(key, value)?;
        let (key, value) = (key.to_owned(), value.to_owned());
        self.change(move |space| {
            space.insert(key, value);
            Change::Write(())
        })
        .await
    }

    /// Removes a value; no error if there is none.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        let key = key.to_owned();
        self.change(move |space| match space.remove(&key) {
            Some(_) => Change::Write(()),
            None => Change::Leave(()),
        })
        .await
    }

    /// Sets (or with `None` removes) the value only if it is still `old`, compared as JSON, not as text; says whether it
    /// was.
    pub async fn swap(
        &self,
        key: &str,
        old: Option<&str>,
        new: Option<&str>,
    ) -> Result<bool, Error> {
        for value in [old, new].into_iter().flatten() {
            check(key, value)?;
        }
        let (key, old, new) = (
            key.to_owned(),
            old.map(str::to_owned),
            new.map(str::to_owned),
        );
        self.change(move |space| {
            if !same(space.get(&key).map(String::as_str), old.as_deref()) {
                return Change::Leave(false);
            }
            match new {
                Some(new) => space.insert(key, new),
                None => space.remove(&key),
            };
            Change::Write(true)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let inner = self.0.clone();
        let ended = |error| {
            Error::new(
                Kind::Other,
                format!("work on the store was abandoned: {error}"),
            )
        };
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(ended)?
    }

    async fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Space) -> Change<T> + Send + 'static,
    ) -> Result<T, Error> {
        self.blocking(move |store| {
            let _turn = store.turn.lock().unwrap_or_else(PoisonError::into_inner);
            let _lock = store.lock()?;
            let mut space = store.load()?;
            let before = size(&space);
            match change(&mut space) {
                Change::Leave(answer) => Ok(answer),
                Change::Write(answer) => {
                    let after = size(&space);
                    // What makes the space smaller is allowed even above a limit that was lowered.
                    if after > store.max_bytes && after >= before {
                        let message = format!(
                            "the store would hold {after} bytes; it may hold {}",
                            store.max_bytes
                        );
                        return Err(Error::new(Kind::Limit, message));
                    }
                    store.save(&space)?;
                    Ok(answer)
                }
            }
        })
        .await
    }
}

impl Inner {
    fn path(&self, ending: &str) -> PathBuf {
        self.dir.join(format!("{}.{ending}", self.name))
    }

    fn failed(&self, doing: &str, error: &std::io::Error) -> Error {
        Error::io(
            format_args!("{doing} the store `{}`", self.path("json").display()),
            error,
        )
    }

    fn load(&self) -> Result<Space, Error> {
        let text = match std::fs::read(self.path("json")) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Space::new()),
            Err(error) => return Err(self.failed("reading", &error)),
        };
        // Not quoted: serde's message tells a place, never the content.
        serde_json::from_slice(&text).map_err(|error| {
            let path = self.path("json");
            let message = format!(
                "the store `{}` is damaged ({error}); repair it or move it away",
                path.display()
            );
            Error::new(Kind::Other, message)
        })
    }

    fn save(&self, space: &Space) -> Result<(), Error> {
        let text =
            serde_json::to_vec(space).map_err(|error| self.failed("writing", &error.into()))?;
        // One name is enough: whoever holds the lock is alone, and what a crash left is overwritten.
        let draft = self.path("new");
        let save = || {
            let mut file = private()
                .write(true)
                .create(true)
                .truncate(true)
                .open(&draft)?;
            file.write_all(&text)?;
            file.sync_all()?;
            std::fs::rename(&draft, self.path("json"))?;
            File::open(&self.dir)?.sync_all()
        };
        save().map_err(|error| self.failed("writing", &error))
    }

    /// The turn among processes; ends when the file is closed.
    fn lock(&self) -> Result<File, Error> {
        let failed = |error| self.failed("locking", &error);
        let file = private()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.path("lock"))
            .map_err(failed)?;
        let start = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                // A lock that is waited for in the kernel cannot be given up; so ask again, with a deadline.
                Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_DEADLINE => {
                    std::thread::sleep(pause)
                }
                Err(TryLockError::WouldBlock) => {
                    let path = self.path("lock");
                    let message = format!(
                        "another process holds `{}` for too long; try again",
                        path.display()
                    );
                    return Err(Error::new(Kind::Unavailable, message));
                }
            }
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn size(space: &Space) -> u64 {
    space
        .iter()
        .map(|(key, value)| (key.len() + value.len()) as u64)
        .sum()
}

fn check(key: &str, value: &str) -> Result<(), Error> {
    if key.len() > MAX_KEY {
        return Err(Error::new(
            Kind::Invalid,
            format!(
                "a key of {} bytes is too long; at most {MAX_KEY}",
                key.len()
            ),
        ));
    }
    serde_json::from_str::<serde_json::Value>(value)
        .map(drop)
        .map_err(|error| {
            Error::new(
                Kind::Invalid,
                format!("the value for `{}` is no JSON: {error}", key.escape_debug()),
            )
        })
}

fn same(a: Option<&str>, b: Option<&str>) -> bool {
    let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    match (a, b) {
        (Some(a), Some(b)) => a == b || parse(a).is_some_and(|a| parse(b) == Some(a)),
        (None, None) => true,
        _ => false,
    }
}

/// A file's name for any string, another for every other: `a`-`z`, digits and `-` stay, the rest is `_` and two hex
/// digits a byte. Without capitals, so that it holds on file systems that do not tell them apart.
fn encode(name: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        _ => format!("_{byte:02x}"),
    };
    name.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests;
