//! Runs a plain JavaScript file as an extension: the smallest extension is one file and no build.
//!
//! This is one component for all scripts. The host gives it the script as its program arguments (`NAME SOURCE`), makes an
//! instance of it for each script, and binds the script's grants to the digest of both. So a script can do
//! what any extension can do, and no more.
//!
//! * [`engine`] holds the JavaScript engine of the instance, and turns its microtasks.
//! * [`scope`] ties what a script waits for to the call that it waits for.
//! * [`ops`] are the contract's functions, as JSON.
//! * `prelude.js` is what scripts see of all that; `docs/extensions/scripts.md` describes it.
//!
//! The engine is written in Rust, so that nothing but cargo is needed to build this. Scripts mostly wait: it need not be the fastest.

mod describe;
mod engine;
mod natives;
mod ops;
mod scope;

use std::rc::Rc;

use pi_vers_sdk::{
    Answer, Completion, Error, Event, Extension, ExtensionInfo, Reason, ToolCall, ToolError,
    ToolResult,
};
use serde_json::{Value, json};

use crate::ops::convert;
use crate::scope::{Failure, Scope};

struct ScriptRunner;

impl Extension for ScriptRunner {
    fn describe() -> ExtensionInfo {
        match engine::describe().and_then(|said| describe::info(&said)) {
            Ok(info) => info,
            Err(why) => give_up(&why),
        }
    }

    async fn run(call: ToolCall) -> Result<ToolResult, ToolError> {
        let payload =
            json!({ "tool": call.tool(), "id": call.id(), "arguments": call.arguments() });
        let scope = Scope::open(Some(call));
        match Scope::run(&scope, "tool", payload).await {
            Ok(value) => convert::tool_result(value).map_err(ToolError::Capability),
            Err(failure) => Err(failure.into_tool_error()),
        }
    }

    async fn start(reason: Reason) -> Result<(), Error> {
        // What it waits for goes on when this has returned: it belongs to the extension.
        let scope = Scope::open(None);
        let payload = json!({ "reason": convert::reason(reason) });
        Scope::run_on(&scope, "start", payload)
            .await
            .map(drop)
            .map_err(Failure::into_error)
    }

    async fn stop() {
        // The session ends whatever it says.
        let _ = Scope::run(&Scope::open(None), "stop", Value::Null).await;
    }

    async fn command(name: String, arguments: String) -> Result<(), Error> {
        let payload = json!({ "name": name, "text": arguments });
        let done = Scope::run(&Scope::open(None), "command", payload).await;
        done.map(drop).map_err(Failure::into_error)
    }

    async fn complete(name: String, prefix: String) -> Vec<Completion> {
        let payload = json!({ "name": name, "prefix": prefix });
        match Scope::run(&Scope::open(None), "complete", payload).await {
            Ok(value) => convert::completions(value),
            Err(failure) => {
                ops::warn(&format!("completions of {name}: {}", failure.message));
                Vec::new()
            }
        }
    }

    async fn handle(event: Event) -> Answer {
        let payload = convert::event(event);
        let scope: Rc<Scope> = Scope::open(None);
        let answered = match Scope::run(&scope, "event", payload).await {
            Ok(value) => convert::answer(value),
            Err(failure) => Err(failure.message),
        };
        answered.unwrap_or_else(|why| {
            ops::warn(&format!("an event was not answered: {why}"));
            Answer::Proceed
        })
    }
}

pi_vers_sdk::export!(ScriptRunner);

/// Ends the instance with a reason: `describe` has no other way to say that there is no extension.
#[allow(
    clippy::print_stderr,
    reason = "the host shows it as the reason of the end"
)]
fn give_up(why: &str) -> ! {
    eprintln!("{why}");
    std::process::abort()
}
