//! The Wasm engine of a process: one, shared by all extensions.
//!
//! On-demand allocation with copy-on-write images (a handful of long-lived instances gains nothing
//! from pooling, and interpreters as guests break its limits); epoch interruption, so that a looping
//! guest can be stopped; no fuel, which is per store and so useless for many calls in flight.

mod cache;
mod compiled;
mod processor;
mod ticker;
mod watchdog;

use std::path::Path;

pub(crate) use cache::Cache;
pub(crate) use processor::computed;
pub(crate) use ticker::Ticker;
pub(crate) use watchdog::{Overdue, Pulse, watch};

use crate::error::Error;

/// The configured engine and the clock that makes its guests interruptible.
#[derive(Clone)]
pub(crate) struct Engine {
    wasm: wasmtime::Engine,
    ticker: std::sync::Arc<Ticker>,
}

impl Engine {
    /// Configures the engine; `cache` is where compiled code is kept, if anywhere.
    pub(crate) fn new() -> Result<Self, Error> {
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(true);
        config.wasm_component_model_async(true);
        let wasm =
            wasmtime::Engine::new(&config).map_err(|why| Error::Engine(format!("{why:#}")))?;
        let ticker = Ticker::start(&wasm)?;
        Ok(Self { wasm, ticker })
    }

    pub(crate) fn wasm(&self) -> &wasmtime::Engine {
        &self.wasm
    }

    pub(crate) fn ticker(&self) -> &std::sync::Arc<Ticker> {
        &self.ticker
    }

    pub(crate) fn cache(&self, directory: &Path) -> Result<Cache, Error> {
        Cache::open(&self.wasm, directory)
    }
}
