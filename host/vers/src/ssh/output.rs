//! What a command wrote, between the connection and whoever reads it.
//!
//! A connection carries many channels, and one channel that is not read stops them all (russh grants the server more
//! window before its queue has room). So a channel is always read, into memory; when more than [`HIGH`] lies there, the
//! command's process group is stopped on the VM (`STOP`), and goes on (`CONT`) when less than [`LOW`] is left. What is
//! under way meanwhile is bounded by the window. Only what escapes `STOP` can go on past that; at [`MOST`] the command
//! is ended with [`Kind::Limit`](crate::Kind).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use tokio::sync::{Notify, mpsc};

/// Unread bytes of a command that stop it.
pub(super) const HIGH: usize = 4 << 20;
/// Unread bytes below which it goes on.
pub(super) const LOW: usize = 1 << 20;
/// Unread bytes that end it.
pub(super) const MOST: usize = 64 << 20;

/// How much of a command's output lies unread, over both its outputs.
#[derive(Debug, Default)]
pub(super) struct Unread {
    bytes: AtomicUsize,
    pub(super) below_low: Notify,
}

impl Unread {
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn taken(&self, count: usize) {
        let before = self.bytes.fetch_sub(count, Ordering::Relaxed);
        if before >= LOW && before - count < LOW {
            self.below_low.notify_one();
        }
    }
}

/// The end that the connection fills. Dropping it ends the [`Output`].
#[derive(Debug)]
pub(super) struct Sink {
    queue: mpsc::UnboundedSender<Bytes>,
    unread: Arc<Unread>,
}

impl Sink {
    /// Bytes that nobody will read are dropped.
    pub(super) fn push(&self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let count = data.len();
        // Counted first: the reader may be quicker.
        self.unread.bytes.fetch_add(count, Ordering::Relaxed);
        if self.queue.send(data).is_err() {
            self.unread.taken(count);
        }
    }
}

/// An output of a command. Ends with the command, or with its connection: [`Child::wait`](super::Child::wait) says which.
///
/// What is not read stays with the command: after some megabytes its process group is stopped until it is. Dropping
/// this drops what is there and what still comes, and never stops the command.
#[derive(Debug)]
pub struct Output {
    queue: mpsc::UnboundedReceiver<Bytes>,
    unread: Arc<Unread>,
}

impl Output {
    /// The next stretch of output; `None` at its end. Cancel-safe.
    pub async fn next(&mut self) -> Option<Bytes> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Everything up to the end, or up to `most` bytes; the rest is dropped, and `true` says that there was some.
    pub async fn collect(mut self, most: usize) -> (Vec<u8>, bool) {
        let mut all = Vec::new();
        let mut cut = false;
        while let Some(data) = self.next().await {
            let room = most - all.len();
            all.extend_from_slice(data.get(..room).unwrap_or(&data));
            cut |= data.len() > room;
        }
        (all, cut)
    }

    /// As a reader.
    pub fn into_reader(self) -> impl tokio::io::AsyncRead + Send + Unpin + 'static {
        use futures::StreamExt as _;
        tokio_util::io::StreamReader::new(self.map(Ok::<_, std::io::Error>))
    }
}

impl Stream for Output {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let next = std::task::ready!(self.queue.poll_recv(cx));
        if let Some(data) = &next {
            self.unread.taken(data.len());
        }
        Poll::Ready(next)
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.queue.close();
        while let Ok(data) = self.queue.try_recv() {
            self.unread.taken(data.len());
        }
    }
}

/// One output; `unread` is shared with the other one.
pub(super) fn output(unread: Arc<Unread>) -> (Sink, Output) {
    let (sender, receiver) = mpsc::unbounded_channel();
    (
        Sink {
            queue: sender,
            unread: unread.clone(),
        },
        Output {
            queue: receiver,
            unread,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_counted_until_they_are_read_or_dropped() {
        let unread = Arc::new(Unread::default());
        let (sink, mut one) = output(unread.clone());
        let (other_sink, two) = output(unread.clone());
        sink.push(Bytes::from(vec![0; LOW]));
        other_sink.push(Bytes::from_static(b"abc"));
        assert_eq!(unread.bytes(), LOW + 3);
        drop(two);
        other_sink.push(Bytes::from_static(b"nobody reads this"));
        assert_eq!(unread.bytes(), LOW);
        assert_eq!(one.next().await.map(|b| b.len()), Some(LOW));
        assert_eq!(unread.bytes(), 0);
        unread.below_low.notified().await;
        drop(sink);
        assert_eq!(one.next().await, None);
    }

    #[tokio::test]
    async fn collecting_is_bounded() {
        let (sink, all) = output(Arc::default());
        sink.push(Bytes::from_static(b"hello "));
        sink.push(Bytes::from_static(b"world"));
        drop(sink);
        assert_eq!(all.collect(8).await, (b"hello wo".to_vec(), true));
    }
}
