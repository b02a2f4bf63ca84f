//! The clock of epoch interruption: a thread that moves the engine's epoch while guest code runs.
//!
//! It is a thread and not a task because the runtime's workers may all be inside guests. It parks as
//! soon as no guest runs, so an idle host does not wake the CPU a hundred times a second.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::{self, Thread};
use std::time::Duration;

use crate::error::Error;

/// How often the epoch moves while guest code runs.
pub(crate) const TICK: Duration = Duration::from_millis(10);

/// Ticks without a running guest before the thread parks.
const IDLE_TICKS: u32 = 20;

pub(crate) struct Ticker {
    running: AtomicUsize,
    parked: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Ticker {
    pub(crate) fn start(engine: &wasmtime::Engine) -> Result<Arc<Self>, Error> {
        let ticker = Arc::new(Self {
            running: AtomicUsize::new(0),
            parked: AtomicBool::new(false),
            thread: OnceLock::new(),
        });
        let (weak, engine) = (Arc::downgrade(&ticker), engine.weak());
        let handle = thread::Builder::new()
            .name("wasm-epoch".into())
            .spawn(move || tick(&weak, &engine))
            .map_err(|why| Error::Engine(format!("no thread for the epoch clock: {why}")))?;
        let _ = ticker.thread.set(handle.thread().clone());
        Ok(ticker)
    }

    /// Guest code may run until the guard is dropped.
    pub(crate) fn enter(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        if self.parked.load(Ordering::SeqCst) {
            self.wake();
        }
        Running(self)
    }

    fn wake(&self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.wake();
    }
}

/// Says that guest code runs.
pub(crate) struct Running<'a>(&'a Ticker);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

fn tick(ticker: &Weak<Ticker>, engine: &wasmtime::EngineWeak) {
    let mut idle = 0;
    loop {
        let Some(state) = ticker.upgrade() else {
            return;
        };
        if idle >= IDLE_TICKS {
            // Announce first, look again second: whoever enters in between sees the flag and unparks.
            state.parked.store(true, Ordering::SeqCst);
            if state.running.load(Ordering::SeqCst) == 0 {
                drop(state);
                thread::park();
                if let Some(state) = ticker.upgrade() {
                    state.parked.store(false, Ordering::SeqCst);
                }
                idle = 0;
                continue;
            }
            state.parked.store(false, Ordering::SeqCst);
        }
        idle = if state.running.load(Ordering::SeqCst) == 0 {
            idle + 1
        } else {
            0
        };
        drop(state);
        thread::sleep(TICK);
        let Some(engine) = engine.upgrade() else {
            return;
        };
        engine.increment_epoch();
    }
}
