//! What the end-to-end tests share.
//!
//! The tests drive the binary that users get ([`built`]), each with directories of its own ([`Scratch`]), and look at the
//! machine itself to see what is left ([`traces`]). Where a test needs many calls in one session it opens one
//! through the Rust API ([`Bench`]), with the very component and grants that are inside the binary. [`OpenSsh`] is a
//! VM with OpenSSH's server instead of the local platform's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "it is test code: a panic is how it says what is wrong"
)]

pub mod agents;
pub mod built;
pub mod faults;
mod needs;
mod openssh;
mod scratch;
mod session;
pub mod traces;

pub use needs::needs;
pub use openssh::OpenSsh;
pub use scratch::{Done, Running, Scratch, settings, text};
pub use session::{Bench, Front, NO_VM, session, session_with};

use std::time::{Duration, Instant};

/// Nothing that a test waits for takes so long, on a busy machine either.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until something holds that nobody tells of, such as what another process has done.
///
/// # Panics
/// When it still does not hold at the [`DEADLINE`]: with what it is.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "still not: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A word that no other test and no other run has.
#[must_use]
pub fn mark() -> String {
    format!("mark{}", uuid::Uuid::new_v4().simple())
}

/// The whole ids in a text, in order.
#[must_use]
pub fn ids(text: &str) -> Vec<String> {
    let words = text.split(|c: char| !(c.is_ascii_hexdigit() || c == '-'));
    words
        .filter(|word| word.len() == 36 && uuid::Uuid::try_parse(word).is_ok())
        .map(str::to_owned)
        .collect()
}

/// The text with every whole id replaced by `<id>`: what stays has to be the same each time.
#[must_use]
pub fn without_ids(text: &str) -> String {
    ids(text).iter().fold(text.to_owned(), |text, id| {
        text.replace(id.as_str(), "<id>")
    })
}
