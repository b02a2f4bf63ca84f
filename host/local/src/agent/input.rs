//! From a channel to a program's standard input, so that a program that does not read hurts nobody else.
//!
//! russh gives the client new window as data *arrives*, and then waits until the channel's queue has room: one channel
//! that is not read would stall its whole connection. So every channel is always read. What the program has not taken
//! waits in memory, and beyond [`IN_MEMORY`] in an unlinked file on the VM's own disk; only when [`IN_FILE`] is full too,
//! reading stops.

use bytes::Bytes;
use russh::{ChannelMsg, ChannelReadHalf};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// Bytes that wait in memory, per channel.
const IN_MEMORY: usize = 1 << 20;
/// Bytes that wait in a file, per channel.
const IN_FILE: u64 = 1 << 30;
const CHUNK: u64 = 64 * 1024;

/// Bytes in order, first in memory, then in a file.
#[derive(Default)]
struct Backlog {
    memory: VecDeque<Bytes>,
    in_memory: usize,
    file: Option<Arc<File>>,
    /// Where the file's unread part starts and ends.
    read: u64,
    written: u64,
    /// No file could be made: then memory is all there is.
    no_file: bool,
}

impl Backlog {
    fn full(&self) -> bool {
        let file_full = self.written - self.read >= IN_FILE || self.no_file;
        file_full && self.in_memory >= IN_MEMORY
    }

    fn is_empty(&self) -> bool {
        self.memory.is_empty() && self.read == self.written
    }

    async fn push(&mut self, data: Bytes) -> io::Result<()> {
        let file_empty = self.read == self.written;
        if (file_empty && self.in_memory < IN_MEMORY) || self.no_file {
            self.in_memory += data.len();
            self.memory.push_back(data);
            return Ok(());
        }
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => match tokio::task::spawn_blocking(tempfile::tempfile).await? {
                Ok(file) => Arc::clone(self.file.insert(Arc::new(file))),
                Err(_) => {
                    self.no_file = true;
                    self.in_memory += data.len();
                    self.memory.push_back(data);
                    return Ok(());
                }
            },
        };
        let at = self.written;
        let end = at + data.len() as u64;
        tokio::task::spawn_blocking(move || file.write_all_at(&data, at)).await??;
        self.written = end;
        Ok(())
    }

    /// Makes the next bytes available in [`Backlog::front`].
    async fn load(&mut self) -> io::Result<()> {
        if !self.memory.is_empty() || self.read == self.written {
            return Ok(());
        }
        let Some(file) = self.file.clone() else {
            return Ok(());
        };
        let at = self.read;
        let length = usize::try_from((self.written - at).min(CHUNK)).unwrap_or(0);
        let chunk = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; length];
            file.read_exact_at(&mut chunk, at).map(|()| chunk)
        })
        .await??;
        self.read += chunk.len() as u64;
        if self.read == self.written {
            // Nothing is in it any more: give the space back.
            (self.read, self.written, self.file) = (0, 0, None);
        }
        self.in_memory += chunk.len();
        self.memory.push_back(chunk.into());
        Ok(())
    }

    fn front(&self) -> Option<Bytes> {
        self.memory.front().cloned()
    }

    fn advance(&mut self, n: usize) {
        if let Some(front) = self.memory.front_mut() {
            let n = n.min(front.len());
            let _ = front.split_to(n);
            self.in_memory -= n;
            if front.is_empty() {
                self.memory.pop_front();
            }
        }
    }
}

/// A channel's input on its way to `sink`.
pub(super) struct Input<W> {
    read: ChannelReadHalf,
    sink: Option<W>,
    backlog: Backlog,
    ended: bool,
    closed: bool,
}

impl<W: AsyncWrite + Unpin> Input<W> {
    pub(super) fn new(read: ChannelReadHalf, sink: W) -> Self {
        Self {
            read,
            sink: Some(sink),
            backlog: Backlog::default(),
            ended: false,
            closed: false,
        }
    }

    /// Feeds the sink until the channel is closed (or its connection lost).
    ///
    /// Cancel safety: none; dropping it closes the sink.
    pub(super) async fn until_closed(&mut self) {
        while !self.closed {
            self.step().await;
        }
    }

    /// Feeds the sink until the client has said all (or the sink takes no more, or the channel is closed).
    ///
    /// Cancel safety: none; dropping it closes the sink.
    pub(super) async fn until_taken(&mut self) {
        while !self.closed && self.sink.is_some() {
            self.step().await;
        }
    }

    /// Feeds the sink what is left after the channel was closed.
    pub(super) async fn finish(mut self) {
        while self.sink.is_some() && !self.backlog.is_empty() {
            self.step().await;
        }
    }

    async fn step(&mut self) {
        if self.backlog.load().await.is_err() {
            self.give_up();
        }
        if (self.ended || self.closed)
            && self.backlog.is_empty()
            && let Some(mut sink) = self.sink.take()
        {
            let _ = sink.shutdown().await;
        }
        let next = if self.sink.is_some() {
            self.backlog.front()
        } else {
            None
        };
        let room = !self.backlog.full();
        let write = async {
            match (&mut self.sink, &next) {
                (Some(sink), Some(data)) => sink.write(data).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            message = self.read.wait(), if room && !self.closed => match message {
                Some(ChannelMsg::Data { data }) if self.sink.is_some() => {
                    if self.backlog.push(data).await.is_err() {
                        self.give_up();
                    }
                }
                Some(ChannelMsg::Eof) => self.ended = true,
                Some(ChannelMsg::Close) | None => self.closed = true,
                Some(_) => {}
            },
            written = write, if next.is_some() => match written {
                Ok(n) if n > 0 => self.backlog.advance(n),
                // The program closed its input, or ended.
                _ => self.give_up(),
            },
            else => {}
        }
    }

    fn give_up(&mut self) {
        self.sink = None;
        self.backlog = Backlog::default();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[tokio::test]
    async fn a_backlog_keeps_order_through_memory_and_file() {
        let mut backlog = Backlog::default();
        let all: Vec<u8> = (0..5_000_000u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let (mut pushed, mut popped) = (0, Vec::new());
        for round in 0.. {
            for size in [1, 70_000, 32_768, 200_000] {
                let end = (pushed + size).min(all.len());
                if end > pushed {
                    backlog
                        .push(Bytes::copy_from_slice(&all[pushed..end]))
                        .await
                        .unwrap();
                    pushed = end;
                }
            }
            // Slower than it fills at first, then to the end.
            let take = if pushed < all.len() { 3 } else { usize::MAX };
            for _ in 0..take {
                backlog.load().await.unwrap();
                let Some(front) = backlog.front() else { break };
                let n = (front.len() / 2).max(1);
                popped.extend_from_slice(&front[..n]);
                backlog.advance(n);
            }
            assert!(backlog.in_memory <= IN_MEMORY + 300_000);
            if pushed == all.len() && backlog.is_empty() {
                break;
            }
            assert!(round < 10_000);
        }
        assert!(popped == all);
        assert!(backlog.file.is_none(), "the file's space is given back");
    }
}
