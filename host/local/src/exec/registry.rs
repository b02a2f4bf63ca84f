//! The commands of all VMs: running ones, finished ones whose output may still be attached to, and the log per VM.
//!
//! Everything is bounded: running commands by number, finished ones by their bytes (the oldest go first), the log of a VM
//! by its bytes. Logs and finished commands live in memory and end with the server.

use super::command::{Command, check};
use super::ring::{Reader, Ring, Stream};
use super::session;
use crate::manager::{Fault, Manager};
use bytes::Bytes;
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

const RING: usize = 1 << 20;
const MAX_RUNNING: usize = 256;
const MAX_RUNNING_PER_VM: usize = 64;
const MAX_FINISHED: usize = 512;
const MAX_FINISHED_BYTES: usize = 64 << 20;
const MAX_LOG_BYTES: usize = 1 << 20;
const MAX_LOG_ENTRIES: usize = 16384;

/// One piece of output in a VM's log.
#[derive(Debug, Clone)]
pub(crate) struct LogEntry {
    pub(crate) offset: u64,
    pub(crate) at: Timestamp,
    pub(crate) stream: Stream,
    pub(crate) data: Bytes,
    pub(crate) exec_id: Uuid,
}

/// Some of a VM's log.
#[derive(Debug, Default)]
pub(crate) struct LogPage {
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) next_offset: u64,
    pub(crate) eof: bool,
}

#[derive(Debug, Default)]
struct Log {
    entries: VecDeque<LogEntry>,
    bytes: usize,
    end: u64,
}

impl Log {
    fn push(&mut self, at: Timestamp, stream: Stream, data: &Bytes, exec_id: Uuid) {
        self.entries.push_back(LogEntry {
            offset: self.end,
            at,
            stream,
            data: data.clone(),
            exec_id,
        });
        self.end += data.len() as u64;
        self.bytes += data.len();
        while self.bytes > MAX_LOG_BYTES || self.entries.len() > MAX_LOG_ENTRIES {
            match self.entries.pop_front() {
                Some(old) => self.bytes -= old.data.len(),
                None => break,
            }
        }
    }

    fn page(&self, offset: u64, max: usize, stream: Option<Stream>) -> LogPage {
        let mut page = LogPage {
            next_offset: offset.min(self.end),
            ..LogPage::default()
        };
        for entry in self.entries.iter().filter(|e| e.offset >= offset) {
            if stream.is_none_or(|s| s == entry.stream) {
                if page.entries.len() >= max {
                    return page;
                }
                page.entries.push(entry.clone());
            }
            page.next_offset = entry.offset + entry.data.len() as u64;
        }
        page.next_offset = self.end;
        page.eof = true;
        page
    }
}

#[derive(Debug)]
struct Exec {
    vm: Uuid,
    ring: Arc<Ring>,
    cancel: CancellationToken,
}

#[derive(Debug, Default)]
struct Inner {
    execs: HashMap<Uuid, Exec>,
    /// Oldest first.
    order: BTreeMap<u64, Uuid>,
    next: u64,
    logs: HashMap<Uuid, Log>,
}

/// All commands of a platform.
#[derive(Debug)]
pub(crate) struct Execs {
    manager: Arc<Manager>,
    inner: Mutex<Inner>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Execs {
    pub(crate) fn new(manager: Arc<Manager>) -> Arc<Self> {
        Arc::new(Self {
            manager,
            inner: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a command. It runs on when the reader is dropped, unless `cancel` is used.
    pub(crate) fn start(
        self: &Arc<Self>,
        vm: Uuid,
        exec_id: Option<Uuid>,
        command: Command,
    ) -> Result<(Uuid, Reader, CancellationToken), Fault> {
        check(&command)?;
        self.manager.check_running(vm)?;
        let id = exec_id.unwrap_or_else(Uuid::new_v4);
        let ring = Arc::new(Ring::new(RING));
        let cancel = self.stop.child_token();
        let reader = ring.attach(None);
        {
            let mut inner = self.inner();
            if inner.execs.contains_key(&id) {
                return Err(Fault::Invalid(format!("exec_id {id} is in use")));
            }
            let running = || inner.execs.values().filter(|e| !e.ring.is_finished());
            if running().count() >= MAX_RUNNING
                || running().filter(|e| e.vm == vm).count() >= MAX_RUNNING_PER_VM
            {
                return Err(Fault::Limit(format!(
                    "too many commands are running ({MAX_RUNNING_PER_VM} in a VM, {MAX_RUNNING} in all); wait for some to end"
                )));
            }
            evict(&mut inner);
            let n = inner.next;
            inner.next += 1;
            inner.order.insert(n, id);
            inner.execs.insert(
                id,
                Exec {
                    vm,
                    ring: ring.clone(),
                    cancel: cancel.clone(),
                },
            );
        }
        let me = self.clone();
        let token = cancel.clone();
        self.tasks.spawn(async move {
            let log = |stream, data: &Bytes| {
                me.inner()
                    .logs
                    .entry(vm)
                    .or_default()
                    .push(Timestamp::now(), stream, data, id);
            };
            session::run(&me.manager, vm, command, &ring, log, &token).await;
        });
        Ok((id, reader, cancel))
    }

    /// Attaches to a command, running or finished.
    pub(crate) fn attach(
        &self,
        vm: Uuid,
        id: Uuid,
        cursor: Option<u64>,
        from_latest: bool,
    ) -> Result<Reader, Fault> {
        self.manager.vm(vm)?;
        let inner = self.inner();
        let exec = inner
            .execs
            .get(&id)
            .filter(|e| e.vm == vm)
            .ok_or(Fault::NotFound("exec not found"))?;
        Ok(if from_latest {
            exec.ring.attach_latest()
        } else {
            exec.ring.attach(cursor)
        })
    }

    pub(crate) fn log(
        &self,
        vm: Uuid,
        offset: u64,
        max: usize,
        stream: Option<Stream>,
    ) -> Result<LogPage, Fault> {
        self.manager.vm(vm)?;
        let inner = self.inner();
        Ok(match inner.logs.get(&vm) {
            Some(log) => log.page(offset, max, stream),
            None => LogPage {
                eof: true,
                ..LogPage::default()
            },
        })
    }

    /// Drops what is kept of a deleted VM.
    pub(crate) fn forget(&self, vm: Uuid) {
        let mut inner = self.inner();
        inner.logs.remove(&vm);
        inner.execs.retain(|_, exec| {
            if exec.vm == vm {
                exec.cancel.cancel();
            }
            exec.vm != vm
        });
        let Inner { execs, order, .. } = &mut *inner;
        order.retain(|_, id| execs.contains_key(id));
    }

    /// Ends every command and waits for their tasks.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn evict(inner: &mut Inner) {
    let finished: Vec<(u64, Uuid, usize)> = inner
        .order
        .iter()
        .filter_map(|(n, id)| {
            let exec = inner.execs.get(id)?;
            exec.ring
                .is_finished()
                .then(|| (*n, *id, exec.ring.bytes()))
        })
        .collect();
    let mut count = finished.len();
    let mut bytes: usize = finished.iter().map(|(_, _, b)| b).sum();
    for (n, id, size) in finished {
        if count <= MAX_FINISHED && bytes <= MAX_FINISHED_BYTES {
            break;
        }
        inner.order.remove(&n);
        inner.execs.remove(&id);
        count -= 1;
        bytes -= size;
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )]
    use super::*;

    fn log(entries: &[(&'static str, Stream)]) -> Log {
        let mut log = Log::default();
        for (text, stream) in entries {
            log.push(
                Timestamp::UNIX_EPOCH,
                *stream,
                &Bytes::from_static(text.as_bytes()),
                Uuid::nil(),
            );
        }
        log
    }

    #[test]
    fn pages_follow_one_another_without_gap_or_overlap() {
        use Stream::{Stderr, Stdout};
        let log = log(&[
            ("one", Stdout),
            ("two", Stderr),
            ("three", Stdout),
            ("four", Stdout),
        ]);
        let mut seen = Vec::new();
        let mut offset = 0;
        loop {
            let page = log.page(offset, 1, None);
            seen.extend(page.entries.iter().map(|e| e.data.clone()));
            offset = page.next_offset;
            if page.eof {
                break;
            }
        }
        assert_eq!(seen, ["one", "two", "three", "four"]);
        assert_eq!(offset, 15);
        let page = log.page(0, 2, Some(Stdout));
        assert_eq!(
            page.entries
                .iter()
                .map(|e| e.data.clone())
                .collect::<Vec<_>>(),
            ["one", "three"]
        );
        assert!(!page.eof && log.page(page.next_offset, 2, Some(Stdout)).eof);
        assert!(log.page(0, 0, None).entries.is_empty());
        assert_eq!(log.page(u64::MAX, 10, None).next_offset, 15);
    }

    #[test]
    fn the_log_is_bounded_and_offsets_go_on() {
        let mut log = Log::default();
        let big = Bytes::from(vec![0; MAX_LOG_BYTES / 2 + 1]);
        for _ in 0..4 {
            log.push(Timestamp::UNIX_EPOCH, Stream::Stdout, &big, Uuid::nil());
        }
        assert_eq!(log.entries.len(), 1);
        assert_eq!(log.end, 4 * big.len() as u64);
        assert_eq!(
            log.page(0, 10, None).entries[0].offset,
            3 * big.len() as u64
        );
    }
}
