//! An output as a stream that takes from the pipe only what was asked for.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::DRAIN_GRACE;
use super::supervisor::{Shared, State};
use crate::{ByteStream, Error};

/// As much as a pipe holds.
const CHUNK: usize = 64 * 1024;

struct Output {
    pipe: Receiver,
    scratch: Vec<u8>,
    state: watch::Receiver<State>,
    /// How many bytes were in the pipe when the end of the process was noticed: the last that can be the process's own.
    owed: Option<u64>,
    shared: Arc<Shared>,
}

pub(super) fn stream(pipe: Receiver, shared: Arc<Shared>) -> ByteStream {
    shared.state.send_modify(|now| now.open += 1);
    let output = Output {
        pipe,
        scratch: Vec::new(),
        state: shared.state.subscribe(),
        owed: None,
        shared,
    };
    futures::stream::unfold(output, async |mut output| {
        Some((output.next().await?, output))
    })
    .boxed()
}

impl Output {
    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        self.scratch.resize(CHUNK, 0);
        loop {
            let ended = self
                .state
                .borrow_and_update()
                .ended
                .as_ref()
                .map(|(at, _)| *at);
            if ended.is_some() && self.owed.is_none() {
                self.owed = Some(rustix::io::ioctl_fionread(&self.pipe).unwrap_or(0));
            }
            let closing = ended.map(|at| at + DRAIN_GRACE);
            if self.owed == Some(0) && closing.is_some_and(|at| at <= Instant::now()) {
                return None;
            }
            tokio::select! {
                biased;
                ready = self.pipe.readable() => match ready.and_then(|()| self.pipe.try_read(&mut self.scratch)) {
                    Ok(0) => return None,
                    Ok(count) => {
                        self.owed = self.owed.map(|owed| owed.saturating_sub(count as u64));
                        // Whoever waits for the outputs to be drained sees that they move.
                        self.shared.state.send_modify(|_| {});
                        return Some(Ok(Bytes::copy_from_slice(self.scratch.get(..count)?)));
                    }
                    Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(error) => return Some(Err(Error::io("reading the output of a process", &error))),
                },
                () = async {
                    match closing {
                        Some(at) => sleep_until(at).await,
                        // If the supervisor is gone without a word the pipe's own end is all there is to wait for.
                        None => match self.state.changed().await {
                            Ok(()) => {}
                            Err(_) => std::future::pending().await,
                        },
                    }
                } => {}
            }
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.shared.state.send_modify(|now| now.open -= 1);
    }
}
