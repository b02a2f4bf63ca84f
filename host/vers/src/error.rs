//! One error type for the whole crate: a closed [`Kind`] for programs, one line for people.
//!
//! The line names the operation, the VM where there is one, the status of the platform's answer where there was
//! one, and what to do next. It never holds a key, a command's environment or a request's body.

use std::fmt;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What sort of failure it was. Programs decide by this; the message is for people and may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No API key, or the platform does not accept it; or a VM does not accept its SSH key.
    Unauthorized,
    /// The key is good, but not for this: somebody else's VM, or (for deletions) one that does not exist. Or this side
    /// refused: the certificate or the host key is not the right one.
    Denied,
    /// An argument or a setting is malformed.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// It exists already, is ambiguous, or is in a state that does not allow the request.
    Conflict,
    /// The deadline passed.
    TimedOut,
    /// The caller gave up.
    Cancelled,
    /// The other side could not be reached, or the connection broke. May be tried again; whether a command that was
    /// already started took effect is unknown.
    Unavailable,
    /// Too large, too many, over a quota.
    Limit,
    /// Anything else, for example an answer that makes no sense.
    Other,
}

/// Why an operation failed.
#[derive(Clone, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
    status: Option<u16>,
}

impl Error {
    /// An error of this kind with this line for people.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            status: None,
        }
    }

    /// What sort of failure it was.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The HTTP status of the platform's answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// The same failure, with what was being done put before it.
    pub(crate) fn during(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("{what}: {}", self.message);
        self
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable, message)
    }

    pub(crate) fn timed_out(message: impl Into<String>) -> Self {
        Self::new(Kind::TimedOut, message)
    }

    pub(crate) fn cancelled(what: impl fmt::Display) -> Self {
        Self::new(Kind::Cancelled, format!("{what}: cancelled"))
    }

    pub(crate) fn other(message: impl Into<String>) -> Self {
        Self::new(Kind::Other, message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)
    }
}

/// Foreign text made fit for one line of a message: control characters visible, length bounded.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 300;
    let mut line = String::new();
    for (count, c) in text.trim().chars().enumerate() {
        if count == MOST {
            line.push('…');
            break;
        }
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_break_or_flood_a_line() {
        assert_eq!(shown("a\x1b[2J\nb\n"), "a\\u{1b}[2J\\nb");
        assert_eq!(shown(&"x".repeat(1000)).chars().count(), 301);
    }
}
