//! The Vers platform on this machine.

mod agent;
mod api;
mod daemon;
mod edge;
mod endpoint;
mod error;
mod exec;
mod keys;
mod layers;
mod manager;
mod options;
mod platform;
mod sandbox;
mod state;
mod status;
mod wire;

pub use api::shell_auth::PendingLogin;
pub use daemon::{DownReport, Ready, down, reset, serve, serve_main, status, up};
pub use endpoint::{Endpoint, find};
pub use error::Error;
pub use options::{Limits, Options};
pub use platform::{End, Platform};
pub use sandbox::helper_main;
pub use sandbox::{Capabilities, Error as SandboxError, Network, Pause, Tier};
pub use status::{Captured, Status, VmStatus};

/// For this crate's own integration tests; no promise is made.
#[doc(hidden)]
pub mod internal {
    pub use crate::layers::{SnapshotStats, remove_tree, snapshot};
    pub use crate::sandbox::{
        Capabilities, Error, Handle, Network, Pause, Sandboxes, Service, Spec, Tier,
    };
}
