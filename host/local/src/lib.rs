//! The Vers platform on this machine.

mod layers;
mod sandbox;

pub use sandbox::helper_main;

/// For this crate's own integration tests; no promise is made.
#[doc(hidden)]
pub mod internal {
    pub use crate::layers::{SnapshotStats, remove_tree, snapshot};
    pub use crate::sandbox::{
        Capabilities, Error, Handle, Pause, Sandboxes, Service, Spec, Tier,
    };
}
