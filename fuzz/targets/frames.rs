//! The bridge's lines: cut from a stream that comes in any pieces, and read as frames.

#![cfg_attr(feature = "engine", no_main)]

// The host's files name its library; here they mean this program.
extern crate self as pi_vers_host;

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, ReadBuf};

/// As in the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartReason {
    /// A new session.
    Startup,
    /// After a change.
    Reload,
    /// Gone on with.
    Resume,
    /// Branched off.
    Fork,
}

#[allow(dead_code, unreachable_pub, reason = "they are used in the host")]
#[path = "."]
mod bridge {
    pub(crate) mod ready {
        #[derive(Debug, serde::Serialize)]
        pub(crate) struct Ready;
    }

    #[path = "../../host/cli/src/bridge/frames.rs"]
    pub(crate) mod frames;
}

#[allow(dead_code, unreachable_pub, reason = "they are used in the host")]
#[path = "."]
mod wire {
    #[path = "../../host/cli/src/wire/lines.rs"]
    pub(crate) mod lines;

    pub(crate) fn line(frame: &impl serde::Serialize) -> Vec<u8> {
        serde_json::to_vec(frame).unwrap_or_default()
    }
}

/// Bytes in pieces of a few lengths.
struct Pieces<'a> {
    left: &'a [u8],
    step: usize,
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        let count = this.step.min(this.left.len()).min(buffer.remaining());
        let (piece, rest) = this.left.split_at(count);
        buffer.put_slice(piece);
        this.left = rest;
        Poll::Ready(Ok(()))
    }
}

fn lines(data: &[u8], step: usize) -> Vec<Option<Vec<u8>>> {
    let mut lines = wire::lines::Lines::new(Pieces { left: data, step }, 64);
    let mut context = Context::from_waker(Waker::noop());
    let mut all = Vec::new();
    loop {
        let next = std::pin::pin!(lines.next()).poll(&mut context);
        match next {
            Poll::Ready(Ok(Some(line))) => all.push(Some(line.to_vec())),
            Poll::Ready(Err(_)) => all.push(None),
            Poll::Ready(Ok(None)) | Poll::Pending => return all,
        }
    }
}

fn run(data: &[u8]) {
    let whole = lines(data, usize::MAX);
    assert_eq!(whole, lines(data, 1));
    assert_eq!(whole, lines(data, 7));
    for line in whole.iter().flatten() {
        assert!(line.len() <= 64 && !line.contains(&b'\n'));
    }
    for line in data.split(|byte| *byte == b'\n') {
        let _ = bridge::frames::read(line);
    }
}

pi_vers_fuzz::target!(run);
