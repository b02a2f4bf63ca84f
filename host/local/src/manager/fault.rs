//! Why an operation on a VM, a commit or a name was refused or failed.

/// One readable line each; the API gives every kind its status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    /// There is no such thing.
    #[error("{0}")]
    NotFound(&'static str),
    /// The request makes no sense, whatever the state.
    #[error("{0}")]
    Invalid(String),
    /// The VM's state does not allow it now.
    #[error("{0}")]
    WrongState(String),
    /// Something else stands in the way: a name that is taken, a commit in use.
    #[error("{0}")]
    Conflict(String),
    /// There would be too many.
    #[error("{0}")]
    Limit(String),
    /// An answer or a file is larger than this interface carries.
    #[error("{0}")]
    TooLarge(String),
    /// The platform is shutting down.
    #[error("the local platform is shutting down")]
    Closing,
    /// Something that should have worked did not.
    #[error("{0}")]
    Internal(String),
}

impl Fault {
    /// The platform's words for an unknown VM, commit or label target.
    pub(crate) const NOT_FOUND: Self = Self::NotFound("not found");
    pub(crate) const COMMIT_NOT_FOUND: Self = Self::NotFound("commit not found");
    pub(crate) const TAG_NOT_FOUND: Self = Self::NotFound("tag not found");
    pub(crate) const REPOSITORY_NOT_FOUND: Self = Self::NotFound("repository not found");
}

impl From<crate::error::Error> for Fault {
    fn from(e: crate::error::Error) -> Self {
        Self::Internal(e.to_string())
    }
}

impl From<crate::sandbox::Error> for Fault {
    fn from(e: crate::sandbox::Error) -> Self {
        match e {
            crate::sandbox::Error::NotRunning { .. } => Self::WrongState(e.to_string()),
            e => Self::Internal(e.to_string()),
        }
    }
}
