//! Native client of the Vers platform.
//!
//! - [`config`]: where the platform is and which key to use
//! - [`Api`]: the REST API (VMs, commits, tags)
//! - [`fleet`]: Reef, the control plane of a fleet, where there is one
//! - [`login`]: an API key for somebody who has none yet
//! - [`Ssh`]: commands on VMs, over SSH inside TLS, and [`ssh::Files`] on them
//! - [`transfer`]: copies of files and trees
//!
//! Nothing in here knows of extensions or of Wasm. Every wait has a deadline, every buffer a bound, every error is
//! one line that names the operation, the VM and what to do next ([`Error`]).

pub mod api;
pub mod config;
mod error;
pub mod fleet;
pub mod login;
mod secret;
pub mod ssh;
mod tls;
pub mod transfer;

pub use api::{Api, CommitId, VmId};
pub use config::{Environment, Overrides, Settings};
pub use error::{Error, Kind, Result};
pub use fleet::Fleet;
pub use secret::Secret;
pub use ssh::{Child, Command, Exit, Program, Signal, Ssh, SshOptions};
