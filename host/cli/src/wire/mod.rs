//! What the programs that speak JSON lines on standard input and output share.

mod lines;
mod outbox;
mod signals;

pub(crate) use self::lines::{LONGEST, Lines};
pub(crate) use self::outbox::{Key, Outbox, Room};
pub(crate) use self::signals::Signals;

/// A line of a frame, with its line feed. Nothing that is written can fail to be JSON.
pub(crate) fn line(frame: &impl serde::Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(frame).unwrap_or_default();
    line.push(b'\n');
    line
}
