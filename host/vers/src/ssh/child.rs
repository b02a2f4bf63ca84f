//! placeholder docs
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::io::AsyncWrite;

use super::{Exit, Signal};
use crate::error::{Error, Result};

/// What [`Child::stop`] found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopReport {
    /// The strongest signal that it took; `None`: it had ended before.
    pub signal: Option<Signal>,
    /// Processes that had left the group (`setsid`) and were killed one by one.
    pub escaped: u32,
    /// Processes that are still there.
    pub left: u32,
}

/// A command on a VM. Dropping it stops the command in the background.
pub struct Child {
    id: u32,
}

impl Child {
    /// The id of its process, which is that of its group.
    pub fn id(&self) -> Option<u32> {
        Some(self.id)
    }
    /// Its input; once, and only if the command asked for it. Dropping it ends the input.
    pub fn take_stdin(&mut self) -> Option<Stdin> {
        None
    }
    /// Its output; once.
    pub fn take_stdout(&mut self) -> Option<Output> {
        None
    }
    /// Its second output; once. Empty if the outputs are merged.
    pub fn take_stderr(&mut self) -> Option<Output> {
        None
    }
    /// How it ended. May be called more than once, and dropped without harm.
    pub async fn wait(&self) -> Result<Exit> {
        Err(Error::other("not built yet"))
    }
    /// Sends a signal to its process group.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let _ = signal;
        Err(Error::other("not built yet"))
    }
    /// Stops it: `TERM`, after `grace` `KILL`, and a look whether it is gone.
    pub async fn stop(&self, grace: Duration) -> Result<StopReport> {
        let _ = grace;
        Err(Error::other("not built yet"))
    }
    /// Lets it outlive this handle and the connection.
    pub fn detach(self) {}
}

/// The input of a command.
#[derive(Debug)]
pub struct Stdin {
    io: tokio::io::DuplexStream,
}

impl AsyncWrite for Stdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// An output of a command. Ends with the command, or with its connection: [`Child::wait`] says which.
#[derive(Debug)]
pub struct Output {}

impl Stream for Output {
    type Item = Bytes;
    fn poll_next(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        Poll::Ready(None)
    }
}
