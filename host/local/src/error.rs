//! What can go wrong with the platform as a whole. Each error is one line a person can act on.

use std::io;
use std::path::{Path, PathBuf};

/// An error of starting, finding, stopping or removing a local platform.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory of the platform could not be used.
    #[error("cannot {what} {}: {source}", .path.display())]
    File {
        /// The verb: "read", "create", …
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the platform holds something else than it should.
    #[error("{} is damaged ({why}); remove it, or reset the platform", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Another server works on this state directory.
    #[error("another local platform is running on {}; stop it with `down`, or use another state directory", .state_dir.display())]
    Locked {
        /// The state directory.
        state_dir: PathBuf,
    },
    /// A listener could not be opened.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The platform serves loopback only.
    #[error(
        "refusing to listen on {address}: the local platform gives root in its VMs and listens on loopback only"
    )]
    NotLoopback {
        /// The address asked for.
        address: std::net::SocketAddr,
    },
    /// The certificates could not be made.
    #[error("cannot make the platform's TLS certificates: {0}")]
    Tls(String),
    /// The sandboxes failed.
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::Error),
    /// The detached server ended, or said nothing, before it was ready.
    #[error("the local platform did not start: {why}{}", tail(.log, .log_tail))]
    Start {
        /// What it said, or that it said nothing.
        why: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of it.
        log_tail: String,
    },
    /// The running server did not answer as it should.
    #[error("the local platform at {address} did not answer: {why}")]
    Unreachable {
        /// Its address.
        address: String,
        /// What happened.
        why: String,
    },
    /// Something of the platform outlived it.
    #[error("the local platform was stopped, but something is left: {}", .0.join("; "))]
    Leftovers(
        /// One sentence each.
        Vec<String>,
    ),
    /// The directory given is not the state directory of a local platform.
    #[error("{} does not look like the state directory of a local platform ({why}); nothing was removed", .path.display())]
    NotOurs {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        why: String,
    },
}

fn tail(log: &Path, text: &str) -> String {
    if text.is_empty() {
        format!(" (log: {})", log.display())
    } else {
        format!("; the end of its log {}:\n{text}", log.display())
    }
}

impl Error {
    /// Attaches the verb and the path to an I/O error.
    pub(crate) fn file(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::File { what, path, source }
    }
}
