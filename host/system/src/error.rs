//! Why a request was not carried out, in the words of the contract's `error` variant.

/// The closed set of reasons. The contract gives each its meaning; prose may change, these do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A grant's bound was reached: a path that leads out, an address that was judged away.
    Denied,
    /// The argument is malformed.
    Invalid,
    /// There is no such thing.
    NotFound,
    /// Exists already, or is not in the state the request needs.
    Conflict,
    /// The deadline passed, and what ran was stopped.
    TimedOut,
    /// The caller stopped it.
    Cancelled,
    /// The other side could not be reached; the request may be tried again.
    Unavailable,
    /// A limit was reached: size, count, quota.
    Limit,
    /// Anything else, such as an error of the operating system.
    Other,
}

/// One readable line for people, and the [`Kind`] for programs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
}

impl Error {
    /// An error of this kind; the message says what failed, on what, why, and what to do next.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Which of the contract's reasons this is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// For people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// An error of the operating system while `doing` something, for example ``reading `a/b` ``.
    ///
    /// The system's own "permission denied" is [`Kind::Other`]: `Denied` is kept for the user's policy.
    pub(crate) fn io(doing: impl std::fmt::Display, error: &std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::NotFound => Kind::NotFound,
            Io::AlreadyExists | Io::DirectoryNotEmpty => Kind::Conflict,
            Io::InvalidInput | Io::NotADirectory | Io::IsADirectory | Io::InvalidFilename => {
                Kind::Invalid
            }
            Io::TimedOut => Kind::TimedOut,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge | Io::ArgumentListTooLong => {
                Kind::Limit
            }
            _ => Kind::Other,
        };
        Self::new(kind, format!("{doing} failed: {error}"))
    }
}
