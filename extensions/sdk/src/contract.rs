//! The contract as extensions call it: in a component the generated bindings, on the machine itself the fakes of [`testing`](crate::testing).
//!
//! Both have the same functions and, but for streams and handles, the same types. So an extension's code is one, and its tests run it
//! without a host.

#[cfg(not(target_family = "wasm"))]
pub(crate) use crate::testing::contract::{Call, pipe, spawn, yield_now};
#[cfg(not(target_family = "wasm"))]
pub use crate::testing::contract::{harness, platform, system};
#[cfg(target_family = "wasm")]
pub(crate) use component::{Call, pipe, spawn, yield_now};
#[cfg(target_family = "wasm")]
pub use component::{harness, platform, system};

#[cfg(target_family = "wasm")]
mod component {
    use crate::bindings::vers;

    pub(crate) use crate::bindings::vers::harness::call::ToolCall as Call;
    pub(crate) use crate::bindings::wit_stream::new as pipe;
    pub(crate) use wit_bindgen::{spawn_local as spawn, yield_async as yield_now};

    /// What extension and harness say to each other: `types`, `session`, `client`, `ui`, `timers`, `log`, `bus`.
    pub mod harness {
        use super::vers;

        pub use vers::harness::{bus, client, log, timers, types, ui};

        /// The conversation and the harness around it.
        pub mod session {
            pub use super::vers::harness::session::{
                Delivery, active_tools, all_tools, append_entry, entries, flag, has_secret, id,
                is_idle, send_message, send_user_message, set_active_tools, variable,
                working_directory,
            };
            use crate::{ToolError, ToolResult};

            /// Runs the harness's own implementation of a built-in tool that this extension replaced, for the same call.
            ///
            /// # Errors
            /// The tool's; `Capability(NotFound)`: the harness has no such built-in.
            pub async fn run_built_in(call: &crate::ToolCall) -> Result<ToolResult, ToolError> {
                super::vers::harness::session::run_built_in(call.handle()).await
            }
        }
    }

    /// The Vers platform: `vms`, `shell`, `fleet`.
    pub use vers::platform;
    /// The machine and its surroundings: `process`, `files`, `http`, `store`.
    pub use vers::system;
}
