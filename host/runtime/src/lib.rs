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
mod audit;
mod bindings;
mod budget;
mod capability;
mod client;
mod connections;
mod content;
mod engine;
mod error;
mod events;
mod extension;
mod guest;
mod harness;
mod host;
mod outgoing;
mod owner;
mod patience;
mod publications;
mod rate;
mod services;
mod session;
mod slot;
mod stand_in;
mod stderr;
mod tape;
mod types;

pub use audit::{Audit, AuditFile, AuditFileError, AuditRecord};
pub use client::{ClientAnswers, Listing, Question, QuestionKind};
pub use content::{Audio, Content, Image, ResourceBody, ResourceContents, ResourceLink};
pub use error::{CallError, Error, Problem, Refusal};
pub use events::{BashOutcome, Event, Reaction};
pub use extension::{Anatomy, Extension, LARGEST};
pub use harness::{Answer, BuiltInCall, BuiltInError, Dialog, Harness, HarnessError, Headless};
pub use host::{Host, HostBuilder};
pub use patience::Patience;
pub use publications::{
    Conversation, Prompt, PromptArgument, PromptMessage, Resource, ResourceTemplate, Speaker,
};
pub use session::{Call, CallOptions, Canceller, Cause, Offer, Session};
pub use stand_in::{
    Refused, StandIn, StandInCommand, StandInEnd, StandInRequest, StandInResponse, StandInRun,
    StandInValue,
};
pub use tape::{Tape, TapeError};
pub use types::{
    Command, Completion, CustomMessage, Delivery, ExtensionInfo, Flag, FlagValue, Hints, Line,
    Progress, Role, Severity, Shortcut, Span, StartReason, Tool, ToolOutput, Update, visible,
};

pub use pi_vers_policy as policy;
pub use pi_vers_system::process::kill_all;
pub use pi_vers_system::secrets;
pub use vers_client as platform;
