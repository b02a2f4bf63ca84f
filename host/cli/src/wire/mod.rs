//! What the programs that speak JSON lines on standard input and output share.

mod lines;
mod outbox;
mod signals;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::Stdin;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) use self::lines::{Broken, LONGEST, Lines};
pub(crate) use self::outbox::{Key, Outbox, Room};
pub(crate) use self::signals::Signals;

/// How long the end of what was under way may take: whoever started this process kills it after 5 s.
pub(crate) const END: Duration = Duration::from_millis(4200);
/// How long the last lines may take.
const FLUSH: Duration = Duration::from_millis(500);

/// Standard input, line by line, and what is to be written to standard output.
pub(crate) struct Stdio {
    pub(crate) lines: Lines<Stdin>,
    pub(crate) outbox: Arc<Outbox>,
    writer: JoinHandle<()>,
}

impl Stdio {
    pub(crate) fn open() -> Self {
        let outbox = Outbox::new();
        let writer = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.write(tokio::io::stdout()).await }
        });
        Self {
            lines: Lines::new(tokio::io::stdin(), LONGEST),
            outbox,
            writer,
        }
    }

    /// Writes what is still to be written. A reader that does not read loses the last lines.
    pub(crate) async fn finish(self) {
        self.outbox.finish();
        let _ = timeout(FLUSH, self.writer).await;
    }
}

/// A line of a frame, with its line feed. Nothing that is written can fail to be JSON.
pub(crate) fn line(frame: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(frame).unwrap_or_default();
    line.push(b'\n');
    line
}
