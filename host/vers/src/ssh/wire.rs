//! The byte stream below SSH: whether the other side still gives signs of life, and an end that always works.
//!
//! russh's session is a task of its own that ends with its stream. A peer that goes silent in the middle of the
//! handshake, or that stops reading, would keep it for as long as TCP likes; and russh's own count of missed keepalives
//! stands still while it waits to write. So the stream itself keeps the time, and fails as soon as the connection is
//! given up.
//!
//! Silence counts only while we wait: a session that does not read because its own reader is slow hears nothing, and
//! that is no fault of the other side. Keepalives see to it that there always is something to hear.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The signs of life on one connection. Times are milliseconds after its beginning.
#[derive(Debug)]
pub(super) struct Pulse {
    began: Instant,
    /// Something arrived, or a write that had to wait went on.
    last: AtomicU64,
    /// Since when a read or a write waits; [`NOT`] if it does not.
    reading: AtomicU64,
    writing: AtomicU64,
    /// Whether somebody wants to hear of the next sign.
    listened: AtomicBool,
    heard: Notify,
}

const NOT: u64 = u64::MAX;

impl Pulse {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            last: AtomicU64::new(0),
            reading: AtomicU64::new(NOT),
            writing: AtomicU64::new(NOT),
            listened: AtomicBool::new(false),
            heard: Notify::new(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(NOT - 1)
    }

    fn beat(&self) {
        self.last.store(self.now(), Relaxed);
        if self.listened.load(Relaxed) {
            self.heard.notify_waiters();
        }
    }

    fn wait(&self, side: &AtomicU64) {
        if side.load(Relaxed) == NOT {
            side.store(self.now(), Relaxed);
        }
    }

    /// How long the other side has been silent although we wait for it; nothing if we do not.
    pub(super) fn silent(&self) -> Duration {
        let since = self.reading.load(Relaxed).min(self.writing.load(Relaxed));
        if since == NOT {
            return Duration::ZERO;
        }
        let since = since.max(self.last.load(Relaxed));
        Duration::from_millis(self.now().saturating_sub(since))
    }

    /// Resolves when it has been silent for so long. Cancel-safe.
    pub(super) async fn silence(&self, most: Duration) {
        loop {
            let left = most.saturating_sub(self.silent());
            if left.is_zero() {
                return;
            }
            sleep(left).await;
        }
    }

    /// Resolves at the next sign of life.
    pub(super) async fn sign(&self) {
        let heard = self.heard.notified();
        self.listened.store(true, Relaxed);
        heard.await;
    }
}

/// The stream of one connection.
pub(super) struct Wire<S> {
    inner: S,
    pulse: Arc<Pulse>,
    closed: CancellationToken,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl<S> Wire<S> {
    /// Fails from the moment on that `closed` is cancelled.
    pub(super) fn new(inner: S, closed: CancellationToken) -> Self {
        Self {
            inner,
            pulse: Arc::new(Pulse::new()),
            closing: Box::pin(closed.clone().cancelled_owned()),
            closed,
        }
    }

    pub(super) fn pulse(&self) -> &Arc<Pulse> {
        &self.pulse
    }

    /// Wakes the task at the end of the connection; says whether that has come.
    fn given_up(&mut self, cx: &mut Context<'_>) -> bool {
        self.closing.as_mut().poll(cx).is_ready()
    }
}

fn given_up() -> io::Error {
    io::Error::new(
        io::ErrorKind::ConnectionAborted,
        "the connection was given up",
    )
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.closed.is_cancelled() {
            return Poll::Ready(Err(given_up()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut self.inner).poll_read(cx, buf) {
            Poll::Ready(read) => {
                self.pulse.reading.store(NOT, Relaxed);
                if buf.filled().len() > before {
                    self.pulse.beat();
                }
                Poll::Ready(read)
            }
            Poll::Pending if self.given_up(cx) => Poll::Ready(Err(given_up())),
            Poll::Pending => {
                self.pulse.wait(&self.pulse.reading);
                Poll::Pending
            }
        }
    }
}

impl<S> Wire<S> {
    /// What all kinds of writing have in common.
    fn written<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match written {
            Poll::Ready(done) => {
                if self.pulse.writing.swap(NOT, Relaxed) != NOT && done.is_ok() {
                    self.pulse.beat();
                }
                Poll::Ready(done)
            }
            Poll::Pending if self.given_up(cx) => Poll::Ready(Err(given_up())),
            Poll::Pending => {
                self.pulse.wait(&self.pulse.writing);
                Poll::Pending
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.closed.is_cancelled() {
            return Poll::Ready(Err(given_up()));
        }
        let written = Pin::new(&mut self.inner).poll_write(cx, data);
        self.written(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        self.written(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = ready!(self.shut(cx));
        Poll::Ready(shut)
    }
}

impl<S: AsyncWrite + Unpin> Wire<S> {
    fn shut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.written(cx, shut)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[tokio::test]
    async fn silence_counts_only_while_we_wait() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut wire = Wire::new(ours, CancellationToken::new());
        let pulse = wire.pulse().clone();
        sleep(Duration::from_millis(60)).await;
        // Nobody reads.
        assert_eq!(pulse.silent(), Duration::ZERO);
        let reading = tokio::spawn(async move {
            let mut all = [0; 2];
            wire.read_exact(&mut all).await.unwrap();
            wire
        });
        let began = Instant::now();
        pulse.silence(Duration::from_millis(100)).await;
        assert!(began.elapsed() >= Duration::from_millis(99));
        let (sign, ()) = tokio::join!(
            tokio::time::timeout(Duration::from_secs(10), pulse.sign()),
            async { theirs.write_all(b"a").await.unwrap() }
        );
        sign.unwrap();
        let last = pulse.last.load(Relaxed);
        assert!(last >= 160, "{last}");
        theirs.write_all(b"b").await.unwrap();
        reading.await.unwrap();
        sleep(Duration::from_millis(60)).await;
        assert_eq!(pulse.silent(), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_write_that_goes_on_is_a_sign_and_one_that_does_not_is_silence() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut wire = Wire::new(ours, CancellationToken::new());
        let pulse = wire.pulse().clone();
        wire.write_all(&[0; 64]).await.unwrap();
        // What the buffers took at once says nothing about the other side.
        assert_eq!(pulse.last.load(Relaxed), 0);
        let writing = tokio::spawn(async move { wire.write_all(&[0; 64]).await });
        pulse.silence(Duration::from_millis(100)).await;
        let mut all = [0; 64];
        theirs.read_exact(&mut all).await.unwrap();
        writing.await.unwrap().unwrap();
        assert!(pulse.last.load(Relaxed) >= 100);
        assert_eq!(pulse.silent(), Duration::ZERO);
    }

    #[tokio::test]
    async fn giving_up_ends_reads_and_writes_that_wait() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let closed = CancellationToken::new();
        let (mut reader, mut writer) = tokio::io::split(Wire::new(ours, closed.clone()));
        let reading = tokio::spawn(async move { reader.read_u8().await });
        sleep(Duration::from_millis(20)).await;
        closed.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), reading).await;
        assert!(ended.unwrap().unwrap().is_err());
        assert!(writer.write_u8(0).await.is_err());
    }
}
