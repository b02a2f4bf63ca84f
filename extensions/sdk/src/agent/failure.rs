//! Why something with an agent failed, in kinds and in words.

use std::fmt;

use crate::platform::vms::{self, State};
use crate::{Error, ToolError, outcome};

/// What kind of failure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is no such VM, or no agent on it.
    Gone,
    /// The VM is paused.
    Paused,
    /// The VM cannot be reached now.
    Unreachable,
    /// The agent said no, or could not be started.
    Refused,
    /// The agent's process has ended.
    Ended,
    /// No answer in time: nobody knows whether it was done.
    TimedOut,
    /// The call that waits was given up.
    Cancelled,
    /// The policy does not grant it.
    Denied,
}

/// Why something with an agent failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was being done: `Cannot start pi on VM …`.
    pub doing: String,
    /// Why, and what to do about it.
    pub why: String,
    /// What kind of failure it is.
    pub kind: Kind,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.doing, self.why)
    }
}

impl Failure {
    /// A failure of this kind.
    #[must_use]
    pub fn new(kind: Kind, doing: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            doing: doing.into(),
            why: why.into(),
            kind,
        }
    }

    /// What the host said about something that has nothing to do with one VM.
    #[must_use]
    pub fn of(doing: impl Into<String>, error: &Error) -> Self {
        let kind = match error {
            Error::Denied(_) => Kind::Denied,
            Error::Cancelled => Kind::Cancelled,
            Error::TimedOut(_) => Kind::TimedOut,
            Error::NotFound(_) => Kind::Gone,
            Error::Unavailable(_) => Kind::Unreachable,
            Error::Invalid(_) | Error::Conflict(_) | Error::Limit(_) | Error::Other(_) => {
                Kind::Refused
            }
        };
        Self::new(kind, doing, outcome::explain(error))
    }

    /// What the host said about a VM. Where that may mean several things, the platform is asked how the VM is.
    pub async fn on_vm(doing: impl Into<String>, vm: &str, error: &Error) -> Self {
        let failure = Self::of(doing, error);
        if !matches!(
            failure.kind,
            Kind::Unreachable | Kind::Gone | Kind::Refused | Kind::TimedOut
        ) {
            return failure;
        }
        match vms::get(vm.into()).await {
            Ok(found) if matches!(found.state, State::Paused | State::Sleeping) => Self {
                kind: Kind::Paused,
                why: format!("VM {vm} is paused"),
                ..failure
            },
            Ok(found) if found.state == State::Dead => Self {
                kind: Kind::Gone,
                why: format!("VM {vm} is dead"),
                ..failure
            },
            Err(Error::NotFound(_)) => Self {
                kind: Kind::Gone,
                why: format!("there is no VM {vm} any more"),
                ..failure
            },
            // The VM is there, so it is not what was not found.
            Ok(_) if failure.kind == Kind::Gone => Self {
                kind: Kind::Refused,
                ..failure
            },
            Ok(_) | Err(_) => failure,
        }
    }

    /// The end of a tool call that it ends.
    #[must_use]
    pub fn into_tool_error(self) -> ToolError {
        match self.kind {
            Kind::Cancelled => ToolError::Cancelled,
            Kind::Denied => ToolError::Capability(Error::Denied(self.why)),
            Kind::Unreachable => ToolError::Capability(Error::Unavailable(self.to_string())),
            Kind::TimedOut => ToolError::Capability(Error::TimedOut(self.to_string())),
            Kind::Gone | Kind::Paused | Kind::Refused | Kind::Ended => {
                outcome::failed(self.to_string())
            }
        }
    }
}
