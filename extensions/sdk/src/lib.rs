//! What an extension of pi-vers is written against, in Rust.
//!
//! Most extensions are a [declaration](declare): tools, commands and events beside the functions that run.
//!
//! ```
//! use pi_vers_sdk::declare::{Declaration, JsonSchema, schemars, tool};
//! use pi_vers_sdk::{ToolCall, ToolError};
//! use serde::Deserialize;
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Greeting {
//!     /// Who is greeted
//!     name: String,
//! }
//!
//! async fn hello(_call: &ToolCall, greeting: Greeting) -> Result<String, ToolError> {
//!     Ok(format!("Hello, {}!", greeting.name))
//! }
//!
//! fn extension() -> Declaration {
//!     Declaration::new("hello", "0.1.0", "Says hello")
//!         .tool(tool("hello", "Hello", "Greets somebody.").read_only().idempotent(), hello)
//! }
//!
//! pi_vers_sdk::extension!(extension);
//! # fn main() {}
//! ```
//!
//! What it may use of the outside is the contract, the WIT world `vers:extension/extension`: [`harness`], [`platform`] and [`system`] are its
//! packages as Rust modules. The other modules make of it what most extensions need: [commands](run) and their lines,
//! [values](stored) of the store, work in the [`background`], waits that end with their [`call`], [results and errors in
//! words](outcome), what people are [shown](show). `docs/extensions/sdk.md` is the guide, `examples/deploy.rs` a whole extension.
//!
//! On other targets than Wasm the contract's functions are fakes, so that `cargo test` runs an extension without a host: `testing`.
//!
//! An extension that is not known before it runs is a type that implements [`Extension`], given to [`export!`]; what it publishes to read and to
//! fill in, one that implements [`Publisher`].
//!
//! Three rules of the platform, because breaking them is easy in Rust:
//! * Never block: `std::thread::sleep` and the like stop every call of the extension. Use
//!   [`harness::timers::sleep`].
//! * A long computation stops the other calls too; put [`task::yield_now`] into its loop.
//! * What a call, a command or an event leaves behind is its own, and given up, all its waits end. Work that shall go on, such as asking the
//!   user after an event, belongs into the [background](background::spawn).

pub mod active_vm;
pub mod agent;
pub mod args;
pub mod background;
pub mod bell;
pub mod call;
pub mod client;
mod contract;
pub mod declare;
pub mod digest;
mod extension;
pub mod outcome;
pub mod printable;
mod publisher;
pub mod run;
pub mod schema;
pub mod show;
pub mod stored;
pub mod stream;
pub mod task;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod text;
pub mod turns;
pub mod vm;

/// The contract's bindings, generated: one module for each package and interface of the WIT.
#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    rust_2018_idioms,
    clippy::all,
    clippy::restriction
)]
pub mod bindings {
    wit_bindgen::generate!({
        world: "vers:extension/extension",
        path: "../../wit",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "pi_vers_sdk::bindings",
    });
}

/// The bindings of what an extension may publish besides: only components of extensions that do
/// export these interfaces, see [`Publisher`].
#[allow(
    missing_docs,
    unreachable_pub,
    unsafe_code,
    rust_2018_idioms,
    clippy::all,
    clippy::restriction
)]
pub mod publications {
    wit_bindgen::generate!({
        inline: "
            package pi-vers:sdk@0.1.0;
            world publications {
                export vers:harness/resources@0.1.0;
                export vers:harness/prompts@0.1.0;
            }
        ",
        path: "../../wit",
        world: "pi-vers:sdk/publications",
        with: { "vers:harness/types@0.1.0": crate::bindings::vers::harness::types },
        pub_export_macro: true,
        export_macro_name: "export_publications",
        default_bindings_module: "pi_vers_sdk::publications",
    });
}

pub use contract::{harness, platform, system};

pub use bindings::exports::vers::harness::commands::Completion;
pub use bindings::exports::vers::harness::description::{
    Command, ExtensionInfo, Flag, Hints, Shortcut, Tool,
};
pub use bindings::exports::vers::harness::events::{Answer, Event};
pub use bindings::exports::vers::harness::lifecycle::Reason;
pub use bindings::vers::harness::types::{
    Audio, Content, CustomMessage, Error, FlagValue, Image, ResourceBody, ResourceContents,
    ResourceLink, ToolError, ToolResult,
};
pub use call::ToolCall;
pub use extension::Extension;
pub use publications::exports::vers::harness::prompts::{
    Argument, Conversation, Message, Prompt, Speaker,
};
pub use publications::exports::vers::harness::resources::{
    Entry as Resource, Template as ResourceTemplate,
};
pub use publisher::Publisher;
/// The exact version that the bindings were made with: tasks work across crates only with one version.
pub use wit_bindgen;
