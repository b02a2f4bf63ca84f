//! How far a copy has come: counted here, told by a channel that keeps only the newest value.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Progress, Summary};

#[derive(Default)]
struct State {
    summary: Summary,
    /// Bytes of entries that are not finished.
    under_way: u64,
    told: Progress,
    moved: Option<Instant>,
}

pub(super) struct Meter {
    state: Mutex<State>,
    tell: watch::Sender<Progress>,
}

impl Meter {
    pub(super) fn new(tell: watch::Sender<Progress>) -> Self {
        Self {
            state: Mutex::default(),
            tell,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All there is to do.
    pub(super) fn totals(&self, files: u64, bytes: u64, left_out: u64, was_directory: bool) {
        let mut state = self.state();
        state.told.total_files = Some(files);
        state.told.total_bytes = Some(bytes);
        state.summary.left_out = left_out;
        state.summary.was_directory = was_directory;
        self.publish(&mut state);
    }

    /// Counts the bytes of something that is not finished; until it is dropped.
    pub(super) fn share(self: &Arc<Self>) -> Share {
        Share {
            meter: self.clone(),
            bytes: AtomicU64::new(0),
        }
    }

    pub(super) fn finished(&self, files: u64, directories: u64, links: u64, bytes: u64) {
        let mut state = self.state();
        state.summary.files += files;
        state.summary.directories += directories;
        state.summary.links += links;
        state.summary.bytes += bytes;
        state.moved = Some(Instant::now());
        self.publish(&mut state);
    }

    /// What has moved is there to stay.
    pub(super) fn advanced(&self) {
        self.state().moved = Some(Instant::now());
    }

    /// When something came to stay last.
    pub(super) fn last_move(&self) -> Option<Instant> {
        self.state().moved
    }

    pub(super) fn summary(&self) -> Summary {
        self.state().summary.clone()
    }

    fn publish(&self, state: &mut State) {
        state.told.files = state.summary.files;
        // What has to be sent again is not counted back.
        state.told.bytes = state.told.bytes.max(state.summary.bytes + state.under_way);
        if let Some(total) = state.told.total_bytes {
            state.told.bytes = state.told.bytes.min(total.max(state.summary.bytes));
        }
        self.tell.send_replace(state.told.clone());
    }
}

pub(super) struct Share {
    meter: Arc<Meter>,
    bytes: AtomicU64,
}

impl Share {
    /// So many bytes of it have moved.
    pub(super) fn moved(&self, bytes: u64, what: &[u8]) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut state = self.meter.state();
        state.under_way += bytes;
        state.told.current = String::from_utf8_lossy(what).into_owned();
        self.meter.publish(&mut state);
    }

    /// This is how many really are there.
    pub(super) fn stands_at(&self, bytes: u64) {
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        let mut state = self.meter.state();
        state.under_way = state.under_way.saturating_sub(before) + bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.stands_at(0);
    }
}
