//! A channel as a byte stream.

use std::pin::Pin;
use std::task::{Context, Poll};

use russh::client::Msg;
use russh::{Channel, ChannelStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::machine::Held;

/// A byte stream in both directions through a VM. Shutting it down ends what is sent; dropping it closes it.
///
/// All tunnels of a VM share one connection, apart from that of its commands. One that is not read stops the others
/// after some megabytes: read it, or drop it.
pub struct Tunnel {
    stream: ChannelStream<Msg>,
    /// russh wakes nobody who waits for window when the session ends.
    closed: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Keeps its connection from being closed for being idle.
    held: Option<Held>,
}

impl Tunnel {
    pub(super) fn new(channel: Channel<Msg>, closed: CancellationToken) -> Self {
        Self {
            stream: channel.into_stream(),
            closed: Box::pin(closed.cancelled_owned()),
            held: None,
        }
    }

    /// The same, and its connection counts as used while it lives.
    pub(super) fn holding(mut self, connection: Held) -> Self {
        self.held = Some(connection);
        self
    }

    fn lost(&mut self, cx: &mut Context<'_>) -> Option<std::io::Error> {
        self.closed.as_mut().poll(cx).is_ready().then(|| {
            std::io::Error::new(
                std::io::ErrorKind::ConnectionAborted,
                "the connection to the VM was lost",
            )
        })
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tunnel")
    }
}

impl AsyncRead for Tunnel {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        // Ends by itself with the session.
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        match Pin::new(&mut self.stream).poll_write(cx, data) {
            Poll::Pending => self
                .lost(cx)
                .map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
            ready => ready,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match Pin::new(&mut self.stream).poll_shutdown(cx) {
            Poll::Pending => self
                .lost(cx)
                .map_or(Poll::Pending, |error| Poll::Ready(Err(error))),
            ready => ready,
        }
    }
}
