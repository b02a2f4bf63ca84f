//! Stops guests that do not give way.
//!
//! While guest code runs, nothing else of its store does: not the actor's loop, not a timer in it. So
//! the judge sits in the epoch callback, which wasmtime calls from inside the running guest every
//! tick. It yields each time, so that other tasks of the thread get their turn, and interrupts the
//! guest when
//!
//! - it has computed longer than its CPU slice without the actor's loop getting a turn, or
//! - it has computed a quarter of a second so, and some call of the extension is past its deadline, or
//! - it has computed a quarter of a second so, for a call that was given up meanwhile: who waits for something learns of that by
//!   the end of the wait, and who only computes never would.
//!
//! What counts is processor time: on a busy machine a guest loses its core for seconds and has done nothing wrong.
//!
//! A guest that computes for long but yields in between is never interrupted: its loop gets turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use wasmtime::{Store, UpdateDeadline};

use super::processor::computed;
use super::ticker::TICK;
use crate::guest::Guest;

/// How long a guest may have hogged its store before a call that is overdue or given up costs it its life.
const HOG: Duration = Duration::from_millis(250);

/// Beats whenever the actor's own loop gets a turn.
#[derive(Default)]
pub(crate) struct Pulse(AtomicU64);

impl Pulse {
    pub(crate) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How often it has beaten.
    pub(crate) fn beats(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// When the most urgent call of an extension is over: microseconds on a clock of its own.
pub(crate) struct Overdue {
    start: Instant,
    at: AtomicU64,
}

impl Overdue {
    pub(crate) fn new() -> Self {
        Self {
            start: Instant::now(),
            at: AtomicU64::new(u64::MAX),
        }
    }

    /// From this moment on some call is overdue; `None`: none will be.
    pub(crate) fn set(&self, at: Option<Instant>) {
        let micros = at.map_or(u64::MAX, |at| {
            u64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX)
        });
        self.at.store(micros, Ordering::Relaxed);
    }

    fn is_past(&self) -> bool {
        let now = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        now >= self.at.load(Ordering::Relaxed)
    }
}

/// Makes a store's guest interruptible. Call it before anything is instantiated in the store.
pub(crate) fn watch(
    store: &mut Store<Guest>,
    slice: Duration,
    pulse: Arc<Pulse>,
    overdue: Arc<Overdue>,
) {
    let mut last = u64::MAX;
    // What it has computed since the loop's last turn, and how much of that is known to be for a call that was given up.
    let mut hogged = Duration::ZERO;
    let mut in_vain: Option<Duration> = None;
    // What the guest's thread had computed when the guest went on: it may be another one each time.
    let resumed = Arc::new(AtomicU64::new(0));
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |mut context| {
        let beats = pulse.beats();
        let step = match beats == last {
            true => {
                computed().saturating_sub(Duration::from_nanos(resumed.load(Ordering::Relaxed)))
            }
            // When it began to run is not known: within the tick.
            false => {
                (last, hogged, in_vain) = (beats, Duration::ZERO, None);
                TICK
            }
        };
        hogged += step;
        // Whose computing it is: another call of the extension that was given up is no reason to end this one.
        let oldest = context.async_call_stack().ok().and_then(Iterator::last);
        match context.data().was_given_up(oldest) {
            true => in_vain = Some(in_vain.map_or(Duration::ZERO, |before| before + step)),
            false => in_vain = None,
        }
        let vain = in_vain.is_some_and(|computed| computed > HOG);
        if hogged > slice || vain || (hogged > HOG.min(slice) && overdue.is_past()) {
            return Ok(UpdateDeadline::Interrupt);
        }
        if let Some(voice) = &context.data().voice {
            voice.gives_way();
        }
        Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(resume(resumed.clone())),
        ))
    });
}

/// Lets others of the thread have their turn, and notes when the guest goes on.
async fn resume(resumed: Arc<AtomicU64>) {
    tokio::task::yield_now().await;
    let now = u64::try_from(computed().as_nanos()).unwrap_or(u64::MAX);
    resumed.store(now, Ordering::Relaxed);
}
