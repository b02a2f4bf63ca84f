//! A session on a tape: recorded with all that came to its extensions from outside, and replayed without an outside.
//!
//! The idea: an extension is a deterministic machine. What it does follows from what is brought to it (calls, answers, pieces of streams,
//! the time, random numbers) and from the order in which that comes. So while a tape runs, all of it passes one turnstile, one thing at a
//! time: the next one is brought to an extension only when it has come to rest after the last one. Recording, each thing is written down as it passes;
//! replaying, it is taken from the tape, in the order of the tape, and the functions that reach the world are not called at all.
//! What the extension does in between (what it asks, what it returns) is compared with what it did then, and the first difference ends the
//! replay.
//!
//! - The world stands still while an extension runs: its clock does not move between two things that are brought to it (unless it runs
//!   for a tenth of a second), and a question that waits for nothing has one answer.
//! - What is asked is found on the tape by its content, not by its place: an extension that asks the same in another order between two answers
//!   is the same extension.
//! - Values of secrets are taken out as the tape is written. A session that looks into a secret's value differs, then; one that
//!   hands it on does not.
//! - A tape cannot make a replay do anything to the world: not the policy says no there, the capabilities are not linked.

mod clock;
mod floor;
mod line;
mod orders;
mod read;
mod record;
mod taps;
mod voice;
pub(crate) mod wrap;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pi_vers_system::secrets::Secrets;
use rand::RngCore as _;

use floor::{Floor, Side};
use line::{FORMAT, Line, Loaded};
use record::Recorder;

use crate::actor::Job;
use crate::extension::Extension;
use crate::owner::{End, Owner};
use crate::slot::GRACE;
pub(crate) use clock::Clocks;
pub(crate) use taps::{TakenTap, Tap};
pub(crate) use voice::Voice;

/// How long a call of a replay waits while nothing happens.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the end of a replay waits for what is still on its way: a message on the bus, an instance that starts.
const LAST: Duration = Duration::from_secs(5);

/// The contract whose calls are on the tape.
const CONTRACT: &str = "0.1.0";

/// Why a session cannot be recorded or replayed, or how a replay differs. One line each.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TapeError {
    /// The file can't be used.
    #[error("the tape {} {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A line of it is wrong.
    #[error("the tape {}, line {line}: {what}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// The session does something else than when it was recorded: the first difference.
    #[error("the replay differs from {}{}: {what}", path.display(), line.map(|line| format!(", line {line}")).unwrap_or_default())]
    Differs {
        /// The tape.
        path: PathBuf,
        /// Where on it, if it is anywhere.
        line: Option<usize>,
        /// What is now, and what was then.
        what: String,
    },
    /// The tape that was being written is not whole.
    #[error("the tape {} is not whole: {what}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Why.
        what: String,
    },
}

/// A tape: one session, recorded or replayed. Cheap to clone; give it to [`HostBuilder::tape`](crate::HostBuilder::tape), and ask it at the
/// end, by [`Tape::finish`].
#[derive(Clone)]
pub struct Tape(Arc<Inner>);

struct Inner {
    path: PathBuf,
    replays: bool,
    /// Milliseconds since 1970.
    started: u64,
    begun: Instant,
    seed: String,
    used: AtomicBool,
    actors: AtomicU64,
    /// How many instances each extension has had.
    instances: Mutex<HashMap<String, u64>>,
    floor: Mutex<Floor>,
    notes: Mutex<Vec<String>>,
}

impl Inner {
    /// Which instance of its extension a new one is, from 1.
    fn instances(&self, of: &str) -> u64 {
        let mut all = self
            .instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(of.to_owned()).or_default();
        *count += 1;
        *count
    }
}

impl std::fmt::Debug for Tape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tape")
            .field("path", &self.0.path)
            .field("replays", &self.0.replays)
            .finish_non_exhaustive()
    }
}

impl Tape {
    /// A tape to be written to this file, once its session begins. The file must not be there then; it is made for its owner alone.
    #[must_use]
    pub fn record(path: impl Into<PathBuf>) -> Self {
        let mut seed = [0; 32];
        rand::rng().fill_bytes(&mut seed);
        let seed = seed.iter().map(|byte| format!("{byte:02x}")).collect();
        let started = SystemTime::now().duration_since(UNIX_EPOCH);
        let started = started.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        });
        Self::new(path.into(), false, started, seed, Floor::new(Side::Idle))
    }

    /// A tape to be replayed. All of it is read and checked here.
    ///
    /// # Errors
    /// What is wrong with it, with the line.
    pub fn replay(path: impl Into<PathBuf>) -> Result<Self, TapeError> {
        let path = path.into();
        let tape = read::read(&path)?;
        let (started, seed) = match &tape.head {
            Line::Tape { started, seed, .. } => (*started, seed.clone()),
            _ => (0, String::new()),
        };
        let floor = Floor::new(Side::Replay(Box::new(floor::Player::new(&path, tape))));
        Ok(Self::new(path, true, started, seed, floor))
    }

    fn new(path: PathBuf, replays: bool, started: u64, seed: String, floor: Floor) -> Self {
        Self(Arc::new(Inner {
            path,
            replays,
            started,
            begun: Instant::now(),
            seed,
            used: AtomicBool::new(false),
            actors: AtomicU64::new(0),
            instances: Mutex::default(),
            floor: Mutex::new(floor),
            notes: Mutex::default(),
        }))
    }

    /// Whether it is replayed.
    #[must_use]
    pub fn replays(&self) -> bool {
        self.0.replays
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// What is worth knowing about a replay that does not differ: extensions that are not the recorded ones. One line each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        self.0
            .notes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The end of the session: writes the last line, or says whether the replay came to the end of the tape without a difference.
    ///
    /// # Errors
    /// The first difference; or why the tape is not whole.
    pub fn finish(&self) -> Result<(), TapeError> {
        let mut floor = self.floor();
        if let Some(failed) = floor.failed() {
            return Err(failed.clone());
        }
        match &mut floor.side {
            Side::Idle => Ok(()),
            Side::Record(recorder) => {
                recorder.finish();
                match recorder.broken() {
                    None => Ok(()),
                    Some(why) => Err(TapeError::Broken {
                        path: self.0.path.clone(),
                        what: why.to_owned(),
                    }),
                }
            }
            Side::Replay(player) => player.left().map_or(Ok(()), Err),
        }
    }

    fn floor(&self) -> MutexGuard<'_, Floor> {
        self.0.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Microseconds of this session.
    fn elapsed(&self) -> u64 {
        u64::try_from(self.0.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// A session of these extensions begins on it: one for each tape.
    pub(crate) fn begin<'a>(
        &self,
        secrets: &Arc<Secrets>,
        extensions: impl Iterator<Item = &'a Extension>,
    ) -> Result<(), TapeError> {
        let file = |what: String| TapeError::File {
            path: self.0.path.clone(),
            what,
        };
        if self.0.used.swap(true, Ordering::SeqCst) {
            return Err(file(
                "has a session already: each session needs a tape of its own".into(),
            ));
        }
        let loaded: Vec<Loaded> = extensions
            .map(|extension| Loaded {
                name: extension.name().to_owned(),
                digest: extension.digest().to_string(),
            })
            .collect();
        let mut floor = self.floor();
        if let Side::Replay(player) = &mut floor.side {
            player.secrets = secrets.clone();
            let mut notes = self.0.notes.lock().unwrap_or_else(PoisonError::into_inner);
            *notes = player.compare(&loaded);
            return Ok(());
        }
        let head = Line::Tape {
            format: FORMAT,
            contract: CONTRACT.into(),
            host: env!("CARGO_PKG_VERSION").into(),
            started: self.0.started,
            seed: self.0.seed.clone(),
            extensions: loaded,
        };
        let recorder = Recorder::create(&self.0.path, secrets.clone(), &head).map_err(|why| {
            file(match why.kind() {
                std::io::ErrorKind::AlreadyExists => {
                    "is there already: remove it, or name another file".into()
                }
                _ => format!("cannot be made: {why}"),
            })
        })?;
        floor.side = Side::Record(Box::new(recorder));
        Ok(())
    }

    /// Writes down that a call was given up.
    pub(crate) fn gave_up(&self, owner: &Owner, end: End) {
        if let (Side::Record(recorder), Some((n, by))) = (&mut self.floor().side, owner.number()) {
            recorder.write(Line::GiveUp {
                n: *n,
                by: by.to_string(),
                why: match end {
                    End::Cancelled => "cancelled",
                    End::TimedOut => "timed-out",
                    End::Stopped => "stopped",
                }
                .into(),
            });
        }
    }

    /// Waits until the tape gives this call up; for ever, if it does not. A replay that stands still while it waits has failed: so no call
    /// waits longer than that.
    pub(crate) async fn gives_up(&self, owner: &Owner) -> End {
        if !self.replays() {
            return std::future::pending().await;
        }
        // From before the first look on, so that no change is missed.
        let mut changes = self.floor().changed.subscribe();
        let (mut before, mut late) = (None, false);
        loop {
            {
                let mut floor = self.floor();
                if late && before == Some(floor.progress) {
                    floor.stuck();
                }
                before = Some(floor.progress);
                if floor.failed().is_some() {
                    break;
                }
                if let (Side::Replay(player), Some((n, _))) = (&floor.side, owner.number())
                    && let Some(end) = player.given_up.get(n)
                {
                    return *end;
                }
            }
            late = tokio::time::timeout(PATIENCE, changes.changed())
                .await
                .is_err();
        }
        // The extension's instance ends with the reason, if it is in the tape's hands.
        tokio::time::sleep(GRACE).await;
        End::Stopped
    }

    /// Why the replay has failed, if it has: nothing more is begun then.
    pub(crate) fn failed(&self) -> Option<TapeError> {
        self.floor().failed().cloned()
    }

    /// The session is about to end: a replay first waits until all that the tape has was brought, as long as anything happens.
    /// [`Tape::finish`] says what was not.
    pub(crate) async fn played(&self) {
        // From before the first look on, so that no change is missed.
        let mut changes = self.floor().changed.subscribe();
        loop {
            let progress = {
                let floor = self.floor();
                if floor.failed().is_some() || floor.is_played() {
                    return;
                }
                floor.progress
            };
            let still = tokio::time::timeout(LAST, changes.changed()).await;
            if still.is_err() && self.floor().progress == progress {
                return;
            }
        }
    }

    /// Whether an extension was granted an event such as this, if a replay can tell.
    pub(crate) fn grants(&self, of: &str, job: &Job) -> Option<bool> {
        let Side::Replay(player) = &self.floor().side else {
            return None;
        };
        let told = orders::job(job).ok().flatten()?;
        Some(player.has_event(of, told))
    }
}
