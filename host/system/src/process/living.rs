//! The groups that this program has started, so that its end is theirs.
//!
//! A group is stopped by its supervisor, a task, and by the last handle to it. A program that ends while its runtime still
//! works runs neither: [`kill_all`] is the last thing it does, and after that nothing starts.

use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use rustix::process::Signal;

use super::supervisor::Shared;
use crate::{Error, Kind};

/// Whether the program ends. Read-locked while a process is started: none is born unseen.
static ENDS: RwLock<bool> = RwLock::new(false);
static LIVING: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

/// Starts a process and notes its group, unless the program ends.
pub(super) fn born(
    start: impl FnOnce() -> Result<Arc<Shared>, Error>,
) -> Result<Arc<Shared>, Error> {
    let ends = ENDS.read().unwrap_or_else(PoisonError::into_inner);
    if *ends {
        return Err(Error::new(Kind::Other, "this program is about to end"));
    }
    let started = start()?;
    let mut living = LIVING.lock().unwrap_or_else(PoisonError::into_inner);
    living.retain(|group| group.strong_count() > 0);
    living.push(Arc::downgrade(&started));
    Ok(started)
}

/// Kills every group that is neither done with nor detached, at once. Nothing can be started any more: call it where the
/// program ends, after whatever stops processes politely has had its time.
pub fn kill_all() {
    *ENDS.write().unwrap_or_else(PoisonError::into_inner) = true;
    let living = std::mem::take(&mut *LIVING.lock().unwrap_or_else(PoisonError::into_inner));
    for shared in living.iter().filter_map(Weak::upgrade) {
        if !shared.group.is_detached() {
            // One that cannot be signalled is gone, or not ours any more.
            let _ = shared.group.signal(Signal::KILL);
        }
    }
}
