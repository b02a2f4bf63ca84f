//! What can go wrong with a sandbox, one readable line each.

use std::io;
use std::time::Duration;

/// An error of the sandbox half of the local platform. Each says what failed, on what, why, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No tier of isolation works here. Each reason names its tier, the step that failed and the way out.
    #[error("no sandbox can be built on this machine: {}", .reasons.join("; "))]
    NoTier {
        /// One sentence per tier that was tried.
        reasons: Vec<String>,
    },
    /// The helper process could not build this sandbox.
    #[error("sandbox {id} did not start: {step}")]
    Start {
        /// The VM.
        id: uuid::Uuid,
        /// The step that failed, and why.
        step: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not finish within {} s", .after.as_secs_f32())]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// The sandbox has no processes any more.
    #[error("sandbox {id} is not running (its first process, {pid}, is gone)")]
    NotRunning {
        /// The VM.
        id: uuid::Uuid,
        /// Its pid 1, as the host numbered it.
        pid: i32,
    },
    /// The agent inside refused the connection.
    #[error("nothing answers on {what} in sandbox {id}: {source}")]
    Refused {
        /// The VM.
        id: uuid::Uuid,
        /// The service asked for.
        what: String,
        /// The reason.
        source: io::Error,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was done, on what.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// Attaches what was done to an I/O error.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
