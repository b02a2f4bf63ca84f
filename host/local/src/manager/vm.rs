//! One VM in memory.

use crate::state::record::VmRecord;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// The record may be read at any time and is changed only under `op`.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) id: Uuid,
    /// Held by the one operation that works on this VM: freeze, commit, delete and start never interleave.
    pub(crate) op: Arc<tokio::sync::Mutex<()>>,
    record: Mutex<VmRecord>,
    starts: AtomicU64,
}

impl Vm {
    pub(crate) fn new(record: VmRecord) -> Self {
        Self {
            id: record.id,
            op: Arc::default(),
            record: Mutex::new(record),
            starts: AtomicU64::new(0),
        }
    }

    pub(crate) fn record(&self) -> VmRecord {
        self.record
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set(&self, record: VmRecord) {
        *self.record.lock().unwrap_or_else(PoisonError::into_inner) = record;
    }

    /// Counts a start (or an adoption); its watcher knows by the number whether it watches the current one.
    pub(crate) fn started(&self) -> u64 {
        self.starts.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(crate) fn current_start(&self) -> u64 {
        self.starts.load(Ordering::SeqCst)
    }
}
