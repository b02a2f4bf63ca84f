//! The shape of an extension: one trait, with a default for all that an extension may leave out.
//!
//! The trait is implemented instead of the five generated `Guest` traits, so that an extension that
//! only offers tools says nothing of sessions, commands and events. Its component still exports
//! those interfaces, with the defaults: the host asks `describe` what there is to call.

#[cfg(target_family = "wasm")]
use crate::bindings::exports::vers::harness::{commands, description, events, lifecycle, tools};
use crate::{
    Answer, Completion, Error, Event, ExtensionInfo, Reason, ToolCall, ToolError, ToolResult,
};

/// An extension. There is one instance of it in a session, and the host may have many calls in flight
/// in it at once: state lives in a `thread_local!` cell, borrowed for no longer than a statement.
#[allow(
    async_fn_in_trait,
    reason = "guests have one thread; no caller could need `Send`"
)]
pub trait Extension: 'static {
    /// What the extension offers: the same every time. Runs with every import but `log` denied.
    fn describe() -> ExtensionInfo;

    /// Runs one tool call.
    async fn run(call: ToolCall) -> Result<ToolResult, ToolError>;

    /// The session starts; comes before any call. May spawn background tasks. May be delivered more than
    /// once. An error is shown to the user and leaves the extension loaded.
    async fn start(_reason: Reason) -> Result<(), Error> {
        Ok(())
    }

    /// The session ends. Background tasks are dropped once this returns.
    async fn stop() {}

    /// Runs a slash command with the text that followed its name.
    async fn command(name: String, _arguments: String) -> Result<(), Error> {
        Err(Error::NotFound(format!("There is no command {name}.")))
    }

    /// Ways to go on typing a command's arguments.
    async fn complete(_name: String, _prefix: String) -> Vec<Completion> {
        Vec::new()
    }

    /// Answers an event that `describe` subscribed to.
    async fn handle(_event: Event) -> Answer {
        Answer::Proceed
    }
}

#[cfg(target_family = "wasm")]
impl<E: Extension> description::Guest for E {
    fn describe() -> ExtensionInfo {
        E::describe()
    }
}

#[cfg(target_family = "wasm")]
impl<E: Extension> tools::Guest for E {
    async fn run(call: crate::contract::Call) -> Result<ToolResult, ToolError> {
        E::run(call.into()).await
    }
}

#[cfg(target_family = "wasm")]
impl<E: Extension> lifecycle::Guest for E {
    async fn start(reason: Reason) -> Result<(), Error> {
        E::start(reason).await
    }
    async fn stop() {
        E::stop().await;
    }
}

#[cfg(target_family = "wasm")]
impl<E: Extension> commands::Guest for E {
    async fn run(name: String, arguments: String) -> Result<(), Error> {
        E::command(name, arguments).await
    }
    async fn complete(name: String, prefix: String) -> Vec<Completion> {
        E::complete(name, prefix).await
    }
}

#[cfg(target_family = "wasm")]
impl<E: Extension> events::Guest for E {
    async fn handle(event: Event) -> Answer {
        E::handle(event).await
    }
}

/// Makes a type that implements [`Extension`] the component's extension. Once in a crate. With `, Publisher` after
/// the type the component publishes resources and prompts, too: then it implements [`Publisher`](crate::Publisher).
///
/// On other targets than Wasm there is nothing to export, and native linkers refuse the names: there it only
/// checks the type, so that a crate's tests run on the machine itself.
#[macro_export]
macro_rules! export {
    ($extension:ident) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the generated entry points of the component")]
        mod __pi_vers_export {
            use super::$extension;
            $crate::bindings::export!($extension);
        }
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn is_extension<E: $crate::Extension>() {}
            is_extension::<$extension>();
        };
    };
    ($extension:ident, Publisher) => {
        $crate::export!($extension);
        $crate::export_publisher!($extension);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! export_publisher {
    ($publisher:ident) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, reason = "the generated entry points of the component")]
        mod __pi_vers_export_publications {
            use super::$publisher;
            $crate::publications::export_publications!($publisher);
        }
        #[cfg(not(target_family = "wasm"))]
        const _: fn() = || {
            fn is_publisher<E: $crate::Publisher>() {}
            is_publisher::<$publisher>();
        };
    };
}
