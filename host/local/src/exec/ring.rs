//! The output of one command, for any number of readers that come and go.
//!
//! A bounded backlog with cursors. While a reader is attached, the command waits for it (as with a pipe), so that an
//! attached reader never loses a byte; with nobody attached, the oldest output makes room for the newest.

use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Chunk {
        cursor: u64,
        stream: Stream,
        data: Bytes,
    },
    /// The last one of a command that ran.
    Exit {
        cursor: u64,
        code: i32,
        timed_out: bool,
    },
    /// The last one of a command that did not, or of a reader that came too late.
    Error { code: &'static str, message: String },
}

#[derive(Debug)]
struct Chunk {
    cursor: u64,
    stream: Stream,
    data: Bytes,
}

#[derive(Debug, Default)]
struct Inner {
    chunks: VecDeque<Chunk>,
    bytes: usize,
    /// Of the newest chunk; cursors start at 1, so that "after 0" is everything.
    newest: u64,
    end: Option<Event>,
    /// The cursor each attached reader has read up to.
    readers: HashMap<u64, u64>,
    next_reader: u64,
}

/// Shared by the command's task and the readers.
#[derive(Debug)]
pub(crate) struct Ring {
    inner: Mutex<Inner>,
    capacity: usize,
    /// Something for readers.
    written: Notify,
    /// Something for the writer.
    read: Notify,
}

impl Ring {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            inner: Mutex::default(),
            capacity,
            written: Notify::new(),
            read: Notify::new(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends output; waits while an attached reader still needs what would have to go.
    ///
    /// # Cancel safety
    /// A dropped future has appended nothing.
    pub(crate) async fn push(&self, stream: Stream, data: Bytes) {
        if data.is_empty() {
            return;
        }
        loop {
            let room = self.read.notified();
            tokio::pin!(room);
            // Before looking, so that a reader's progress in between is not missed.
            room.as_mut().enable();
            {
                let mut inner = self.inner();
                if make_room(&mut inner, data.len(), self.capacity) {
                    inner.newest += 1;
                    inner.bytes += data.len();
                    let cursor = inner.newest;
                    inner.chunks.push_back(Chunk {
                        cursor,
                        stream,
                        data,
                    });
                    break;
                }
            }
            room.await;
        }
        self.written.notify_waiters();
    }

    /// No more output will come. The first end counts.
    pub(crate) fn exit(&self, code: i32, timed_out: bool) {
        self.finish(|newest| Event::Exit {
            cursor: newest + 1,
            code,
            timed_out,
        });
    }

    /// The command could not be run or watched to its end.
    pub(crate) fn fail(&self, code: &'static str, message: String) {
        self.finish(|_| Event::Error { code, message });
    }

    fn finish(&self, end: impl FnOnce(u64) -> Event) {
        let mut inner = self.inner();
        if inner.end.is_none() {
            inner.end = Some(end(inner.newest));
        }
        drop(inner);
        self.written.notify_waiters();
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.inner().end.is_some()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.inner().bytes
    }

    /// Attaches behind `after` (exclusive); `None` from the oldest output that is kept.
    pub(crate) fn attach(self: &Arc<Self>, after: Option<u64>) -> Reader {
        let mut inner = self.inner();
        let oldest = inner.chunks.front().map_or(inner.newest + 1, |c| c.cursor);
        let lost = after.is_some_and(|after| after.saturating_add(1) < oldest);
        let at = after.unwrap_or(oldest - 1).max(oldest - 1);
        let id = inner.next_reader;
        inner.next_reader += 1;
        inner.readers.insert(id, at);
        drop(inner);
        Reader {
            ring: self.clone(),
            id,
            done: false,
            lost: lost.then_some(oldest),
        }
    }

    /// Attaches behind the newest output.
    pub(crate) fn attach_latest(self: &Arc<Self>) -> Reader {
        let newest = self.inner().newest;
        self.attach(Some(newest))
    }
}

fn make_room(inner: &mut Inner, more: usize, capacity: usize) -> bool {
    while inner.bytes + more > capacity {
        let Some(oldest) = inner.chunks.front() else {
            return true;
        };
        if inner.readers.values().any(|read| *read < oldest.cursor) {
            return false;
        }
        inner.bytes -= oldest.data.len();
        inner.chunks.pop_front();
    }
    true
}

/// Reads on from where it attached. Dropping it detaches it.
#[derive(Debug)]
pub(crate) struct Reader {
    ring: Arc<Ring>,
    id: u64,
    done: bool,
    lost: Option<u64>,
}

impl Reader {
    /// The next event; `None` after the last one.
    ///
    /// # Cancel safety
    /// A dropped future has taken nothing.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        if self.done {
            return None;
        }
        if let Some(oldest) = self.lost.take() {
            self.done = true;
            return Some(Event::Error {
                code: "backlog_truncated",
                message: format!(
                    "output before cursor {oldest} is not kept any more; attach without a cursor to go on there"
                ),
            });
        }
        let ring = self.ring.clone();
        loop {
            let more = ring.written.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            if let Some(event) = self.take() {
                ring.read.notify_one();
                return Some(event);
            }
            more.await;
        }
    }

    fn take(&mut self) -> Option<Event> {
        let mut inner = self.ring.inner();
        let at = inner.readers.get(&self.id).copied().unwrap_or(0);
        let skip = inner
            .chunks
            .front()
            .map_or(0, |c| at.saturating_add(1).saturating_sub(c.cursor));
        let next = usize::try_from(skip)
            .ok()
            .and_then(|skip| inner.chunks.get(skip));
        if let Some(chunk) = next {
            let event = Event::Chunk {
                cursor: chunk.cursor,
                stream: chunk.stream,
                data: chunk.data.clone(),
            };
            let cursor = chunk.cursor;
            inner.readers.insert(self.id, cursor);
            return Some(event);
        }
        let end = inner.end.clone();
        self.done = end.is_some();
        end
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.ring.inner().readers.remove(&self.id);
        self.ring.read.notify_one();
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
    use std::time::Duration;

    async fn text(reader: &mut Reader) -> (String, Option<Event>) {
        let mut all = String::new();
        while let Some(event) = reader.next().await {
            match event {
                Event::Chunk { data, .. } => all.push_str(std::str::from_utf8(&data).unwrap()),
                end => return (all, Some(end)),
            }
        }
        (all, None)
    }

    #[tokio::test]
    async fn an_attached_reader_loses_nothing_however_slow() {
        let ring = Arc::new(Ring::new(16));
        let mut reader = ring.attach(None);
        let writer = tokio::spawn({
            let ring = ring.clone();
            async move {
                for n in 0..200 {
                    ring.push(Stream::Stdout, Bytes::from(format!("{n:03} ")))
                        .await;
                }
                ring.exit(0, false);
            }
        });
        let (all, end) = text(&mut reader).await;
        writer.await.unwrap();
        assert_eq!(
            all,
            (0..200).map(|n| format!("{n:03} ")).collect::<String>()
        );
        assert_eq!(
            end,
            Some(Event::Exit {
                cursor: 201,
                code: 0,
                timed_out: false
            })
        );
        assert_eq!(reader.next().await, None);
    }

    #[tokio::test]
    async fn a_reader_that_stalls_holds_the_writer_until_it_leaves() {
        let ring = Arc::new(Ring::new(8));
        let reader = ring.attach(None);
        ring.push(Stream::Stdout, Bytes::from_static(b"12345678"))
            .await;
        let push = ring.push(Stream::Stdout, Bytes::from_static(b"9"));
        tokio::pin!(push);
        assert!(
            tokio::time::timeout(Duration::from_millis(20), &mut push)
                .await
                .is_err()
        );
        drop(reader);
        push.await;
        let (all, _) = {
            ring.exit(3, false);
            text(&mut ring.attach(None)).await
        };
        assert_eq!(all, "9");
    }

    #[tokio::test]
    async fn cursors_are_exclusive_and_lost_ones_are_named() {
        let ring = Arc::new(Ring::new(4));
        for n in ["aa", "bb", "cc"] {
            ring.push(Stream::Stderr, Bytes::from(n)).await;
        }
        ring.exit(1, true);
        assert_eq!(text(&mut ring.attach(None)).await.0, "bbcc");
        assert_eq!(text(&mut ring.attach(Some(2))).await.0, "cc");
        assert_eq!(text(&mut ring.attach(Some(1))).await.0, "bbcc");
        assert_eq!(text(&mut ring.attach_latest()).await.0, "");
        assert_eq!(text(&mut ring.attach(Some(99))).await.0, "");
        let (_, end) = text(&mut ring.attach(Some(0))).await;
        assert!(matches!(
            end,
            Some(Event::Error {
                code: "backlog_truncated",
                ..
            })
        ));
    }

    #[tokio::test]
    async fn a_chunk_larger_than_the_backlog_is_kept_whole() {
        let ring = Arc::new(Ring::new(4));
        ring.push(Stream::Stdout, Bytes::from_static(b"0123456789"))
            .await;
        ring.exit(0, false);
        assert_eq!(text(&mut ring.attach(None)).await.0, "0123456789");
    }
}
