//! What can go wrong, each as one line for people: what failed, on what, why, what to do next.

use std::path::PathBuf;

use crate::types::ToolOutput;

/// A host, an extension or a session could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The session can't be recorded or replayed.
    #[error(transparent)]
    Tape(#[from] crate::tape::TapeError),
    /// The Wasm engine could not be configured.
    #[error("the Wasm engine did not start: {0}")]
    Engine(String),
    /// The cache of compiled code can't be used.
    #[error("the cache of compiled components {directory} can't be used: {why}")]
    Cache {
        /// Where it is.
        directory: PathBuf,
        /// Why not.
        why: String,
    },
    /// The file could not be read.
    #[error("{origin} can't be read: {why}")]
    Read {
        /// The file.
        origin: String,
        /// Why not.
        why: String,
    },
    /// The bytes are no component.
    #[error("{origin} is no WASI component: {why}")]
    NotAComponent {
        /// Where the bytes came from.
        origin: String,
        /// What they are instead, and what to do.
        why: String,
    },
    /// A component, but not one for this host.
    #[error("{origin} was built for another world: {why}")]
    OtherWorld {
        /// Where the bytes came from.
        origin: String,
        /// What is missing or too much, and what to do.
        why: String,
    },
    /// `describe` failed, or what it said is not usable.
    #[error("{origin} does not describe itself rightly: {why}")]
    Description {
        /// Where the bytes came from.
        origin: String,
        /// What is wrong.
        why: String,
    },
    /// A script could not be run.
    #[error("{origin} can't be run: {why}")]
    Script {
        /// The file.
        origin: String,
        /// What is wrong with it, with its place where that is known.
        why: String,
    },
    /// Two extensions of one session claim the same name.
    #[error("{what} {name} is offered by both {first} and {second}: leave one of them out")]
    Clash {
        /// `tool`, `command`, `prompt`, `resource`, or `name`: that of an extension, of which there is one in a session.
        what: &'static str,
        /// The name.
        name: String,
        /// Who was first.
        first: String,
        /// Who came second.
        second: String,
    },
    /// The policy says no, or could not be read.
    #[error("{0}")]
    Policy(String),
    /// The platform's client could not be set up.
    #[error("{0}")]
    Platform(String),
}

/// What kind of refusal a capability gave: the contract's closed `error` variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "see vers:harness/types.error")]
pub enum Refusal {
    Denied,
    Invalid,
    NotFound,
    Conflict,
    TimedOut,
    Cancelled,
    Unavailable,
    Limit,
    Other,
}

impl Refusal {
    /// The word of the contract.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::TimedOut => "timed-out",
            Self::Cancelled => "cancelled",
            Self::Unavailable => "unavailable",
            Self::Limit => "limit",
            Self::Other => "other",
        }
    }
}

/// One thing that is wrong with a call's arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer of the place; empty: the whole.
    pub path: String,
    /// What is wrong there.
    pub message: String,
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let path = if self.path.is_empty() {
            "/"
        } else {
            &self.path
        };
        write!(f, "{path}: {}", self.message)
    }
}

/// Why a call has no result.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CallError {
    /// The tool ran and says it failed; this is what the model shall see.
    #[error("{}", .0.text())]
    Failed(ToolOutput),
    /// No extension of the session offers this.
    #[error("there is no {what} {name}{}", hint(.near))]
    Unknown {
        /// `tool`, `command`, `prompt`, `resource`, or `name`: that of an extension, of which there is one in a session.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// The most similar name there is.
        near: Option<String>,
    },
    /// The arguments do not fit the tool's schema; the extension has not seen them.
    #[error("the arguments of {tool} do not fit its schema: {}", list(.problems))]
    Arguments {
        /// The tool.
        tool: String,
        /// All that is wrong.
        problems: Vec<Problem>,
    },
    /// A capability refused or failed, and the extension handed its error on.
    #[error("{message}")]
    Refused {
        /// Which case of the contract.
        kind: Refusal,
        /// Why, and what to do.
        message: String,
    },
    /// The deadline passed; what the call had started was stopped.
    #[error("{what} was stopped at its time limit of {after} s")]
    TimedOut {
        /// The call.
        what: String,
        /// The limit in seconds.
        after: u64,
        /// What the tool had to say about it.
        output: ToolOutput,
    },
    /// The caller gave it up; what it had started was stopped.
    #[error("{what} was cancelled{}", also_stopped(.stopped))]
    Cancelled {
        /// The call.
        what: String,
        /// The processes that were stopped for it.
        stopped: Vec<String>,
        /// What the tool had to say about it.
        output: ToolOutput,
    },
    /// The extension crashed; its other calls failed with it. The next call starts it anew.
    #[error("extension {extension} crashed: {why}; it is started anew for the next call")]
    Crashed {
        /// The extension.
        extension: String,
        /// Trap, memory limit, CPU limit.
        why: String,
    },
    /// What the extension handed back breaks the contract.
    #[error("extension {extension} broke the contract: {why}")]
    Contract {
        /// The extension.
        extension: String,
        /// What was wrong.
        why: String,
    },
    /// The session has ended.
    #[error("the session has ended")]
    Closed,
}

fn hint(near: &Option<String>) -> String {
    near.as_ref()
        .map_or_else(String::new, |near| format!("; did you mean {near}?"))
}

fn list(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

fn also_stopped(stopped: &[String]) -> String {
    if stopped.is_empty() {
        String::new()
    } else {
        format!("; stopped {}", stopped.join(", "))
    }
}
