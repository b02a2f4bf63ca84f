//! What stands in for the world while an extension is tested: commands, requests and the files of VMs are answered by a script
//! instead of being done.
//!
//! It sits below everything else: a request is judged by the policy, attributed to its call, counted and cancelled as in earnest, and the
//! component is the one that is shipped. VMs come from the platform's REST API as always, so a test gives the host settings that lead to
//! a platform of its own.

use std::path::PathBuf;

use crate::error::Refusal;

/// Most bytes of a process's input or of a request's body that are kept for whoever stands in.
pub(crate) const MOST_INPUT: usize = 16 << 20;

/// Why something is refused: of which kind, and why in words.
pub type Refused = (Refusal, String);

/// A command that an extension starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandInCommand {
    /// The VM it is for; none: this machine.
    pub vm: Option<String>,
    /// The argument vector. A script of the contract's `shell` program is `/bin/sh -c SCRIPT` on this machine, and on a VM as well.
    pub argv: Vec<String>,
    /// The variables that the extension sets; a secret's value is never here.
    pub env: Vec<(String, StandInValue)>,
    /// The directory it starts in, as the extension gave it.
    pub directory: Option<String>,
}

/// The value of a variable or a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandInValue {
    /// A plain one.
    Plain(String),
    /// That of the secret of this name.
    Secret(String),
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandInRun {
    /// What it writes to standard output, piece by piece.
    pub stdout: Vec<Vec<u8>>,
    /// The same for standard error; behind standard output where the extension wants both in one.
    pub stderr: Vec<Vec<u8>>,
    /// How it ends.
    pub end: StandInEnd,
    /// Names the run in what [`StandIn::input`] and [`StandIn::stopped`] are told.
    pub id: u64,
}

/// How a command ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandInEnd {
    /// By itself, with this code.
    Code(i32),
    /// By this signal, by name without the prefix.
    Signal(String),
    /// Not before somebody stops it.
    Never,
}

/// An HTTP request that an extension sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandInRequest {
    /// The method.
    pub method: String,
    /// The whole address.
    pub url: String,
    /// The headers in order.
    pub headers: Vec<(String, StandInValue)>,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer to it. Redirects are not followed: the answer is the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandInResponse {
    /// The status code.
    pub status: u16,
    /// The headers in order.
    pub headers: Vec<(String, String)>,
    /// The body, piece by piece.
    pub body: Vec<Vec<u8>>,
}

/// Stands in for the world. Its methods answer at once and never block.
pub trait StandIn: Send + Sync + 'static {
    /// What a command does, or why it does not start.
    ///
    /// # Errors
    /// What the extension is told.
    fn command(&self, command: StandInCommand) -> Result<StandInRun, Refused>;

    /// The command of this id runs now: from here on it is stopped with its call.
    fn started(&self, id: u64) {
        let _ = id;
    }

    /// The input that the command of this id was given, once there is no more of it.
    fn input(&self, id: u64, bytes: Vec<u8>) {
        let _ = (id, bytes);
    }

    /// The command of this id was stopped, or sent a signal that ends it.
    fn stopped(&self, id: u64) {
        let _ = id;
    }

    /// The answer to a request.
    ///
    /// # Errors
    /// What the extension is told.
    fn request(&self, request: StandInRequest) -> Result<StandInResponse, Refused>;

    /// The directory of this machine that stands for the root of a VM's files.
    ///
    /// # Errors
    /// What the extension is told.
    fn vm_files(&self, vm: &str) -> Result<PathBuf, Refused>;
}
