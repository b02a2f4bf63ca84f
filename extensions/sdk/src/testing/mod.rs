//! An extension under test, without a host: `cargo test` on the machine itself.
//!
//! ```
//! use pi_vers_sdk::declare::{Declaration, JsonSchema, schemars, tool};
//! use pi_vers_sdk::testing::{Kit, Script, read};
//! use pi_vers_sdk::{Error, ToolCall, ToolError, platform::vms};
//! use serde::Deserialize;
//! use serde_json::json;
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Count {
//!     /// Only VMs with this label
//!     label: Option<String>,
//! }
//!
//! async fn count(_call: &ToolCall, args: Count) -> Result<String, ToolError> {
//!     let mut all = vms::list().await?;
//!     all.retain(|vm| args.label.as_ref().is_none_or(|label| vm.labels.iter().any(|(name, _)| name == label)));
//!     Ok(format!("{} VMs", all.len()))
//! }
//!
//! fn extension() -> Declaration {
//!     Declaration::new("counter", "0.1.0", "Counts VMs")
//!         .tool(tool("count", "Count", "Counts the VMs.").read_only(), count)
//! }
//!
//! let kit = Kit::new(extension());
//! kit.add_vm("0a000000-0000-4000-8000-000000000001");
//! assert_eq!(read(&kit.call("count", json!({}))), "1 VMs");
//! assert_eq!(read(&kit.call("count", json!({ "label": "web" }))), "0 VMs");
//!
//! kit.deny("vms");
//! assert!(matches!(kit.call("count", json!({})), Err(ToolError::Capability(Error::Denied(_)))));
//! assert_eq!(kit.asked("vms.list").len(), 3);
//! ```
//!
//! On other targets than Wasm the functions of [`harness`](crate::harness), [`platform`](crate::platform) and [`system`](crate::system)
//! are fakes: VMs, files, a store, a user that answers dialogs, programs that print what the test says. The same code runs as in a component.
//!
//! * **Everything is granted** until [`Kit::deny`]; [`Kit::fail`] lets a request fail, [`Kit::hold`] lets it wait.
//! * **Every request is noted**: [`Kit::asked`].
//! * **The clock stands still** while there is something to do. [`Kit::call`] and [`Running::finish`] let it go on from one timer to the next,
//!   [`Kit::pass`] for as long as you say: hours take no time.
//! * **A call that is [given up](Running::cancel)** has its waits ended with `Error::Cancelled` and its processes stopped, as by the host.
//! * **Arguments are checked** against the tool's schema, and structured results against the `output` schema, as by the host.
//!
//! What is not the same: nothing is limited (memory, time, output), no policy is read, and a front end's own checks are not made. That is
//! what `pi-vers test` is for.
//!
//! A kit is one session. The extension's own state (its `thread_local!` cells) lives as long as the thread, so give each test that
//! needs a fresh extension a thread of its own; `cargo test` does. [`Kit::keep`] and [`Kit::resumed`] take what outlives a session to the next thread.

#![allow(
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "this is for tests, and a test that asks for the impossible shall fail"
)]

pub(crate) mod call;
mod client;
pub(crate) mod contract;
mod executor;
mod files;
mod fleet;
mod http;
mod kit;
mod processes;
mod schema;
mod session;
mod shell;
mod store;
pub(crate) mod streams;
mod ui;
mod vms;
mod world;

pub use call::{Progress, Running, Update, read};
pub use http::Answered;
pub use kit::{Kept, Kit};
pub use processes::{Process, Script, Started};
pub use ui::{Asks, Dialog, Reply, Widget};
pub use world::Asked;

use crate::ToolResult;

/// The text of a result: that of its blocks, one after the other; what is no text is named in brackets.
#[must_use]
pub fn said(result: &ToolResult) -> String {
    crate::outcome::text_of(&result.content)
}
