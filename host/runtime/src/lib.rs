//! Embeds harness extensions: WASI components that a policy holds to what their user granted.
//!
//! A [`Host`] belongs to a process. It loads [`Extension`]s and opens [`Session`]s: a session puts
//! extensions behind one front end, which is anything that implements [`Harness`].
//!
//! ```no_run
//! use std::sync::Arc;
//! use pi_vers_host::{Headless, Host};
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let host = Host::builder().build()?;
//! let extension = host.load_file("my-extension.wasm".as_ref()).await?;
//! let session = host.session(Arc::new(Headless::new(".")), vec![extension])?;
//! let output = session.call("my_tool", serde_json::json!({})).outcome().await?;
//! println!("{}", output.text());
//! session.end().await;
//! # Ok(())
//! # }
//! ```
//!
//! Extensions see nothing but the interfaces in `wit/`; each of their requests is judged by the policy, attributed
//! to the call that made it, and ended with it.

mod actor;
mod bindings;
mod budget;
mod capability;
mod engine;
mod error;
mod events;
mod extension;
mod guest;
mod harness;
mod host;
mod owner;
mod services;
mod session;
mod slot;
mod types;

pub use error::{CallError, Error, Problem, Refusal};
pub use events::{BashOutcome, Event, Reaction};
pub use extension::{Anatomy, Extension, LARGEST};
pub use harness::{Answer, BuiltInCall, BuiltInError, Dialog, Harness, HarnessError, Headless};
pub use host::{Host, HostBuilder};
pub use session::{Call, Canceller, Cause, Offer, Session};
pub use types::{
    Command, Completion, Content, CustomMessage, Delivery, ExtensionInfo, Flag, FlagValue, Hints,
    Image, Line, Progress, Role, Severity, Shortcut, Span, StartReason, Tool, ToolOutput, Update,
    visible,
};

pub use pi_vers_policy as policy;
pub use pi_vers_system::secrets;
pub use vers_client as platform;
