//! Orders and replies, as they stand on a tape.

use serde_json::{Value, json};

use super::voice::value;
use crate::actor::{Found, Job, Reply, Wanted};

/// What an order asks for; `None`: it is not brought to the guest.
pub(super) fn job(job: &Job) -> wasmtime::Result<Option<Value>> {
    Ok(Some(match job {
        Job::Tool(call) => {
            let arguments: Value = serde_json::from_str(&call.arguments).unwrap_or_default();
            json!({ "tool": call.tool, "arguments": arguments })
        }
        Job::Command { name, arguments } => json!({ "command": name, "arguments": arguments }),
        Job::Complete { name, prefix } => json!({ "complete": name, "prefix": prefix }),
        Job::Event(event) => json!({ "event": value(event)? }),
        Job::Publication(wanted) => json!({ "publication": publication(wanted) }),
        Job::Start(reason) => json!({ "start": value(reason)? }),
        Job::Stop => json!("stop"),
        Job::Poke => return Ok(None),
    }))
}

fn publication(wanted: &Wanted) -> Value {
    match wanted {
        Wanted::Resources => json!("resources"),
        Wanted::Templates => json!("templates"),
        Wanted::Contents { uri } => json!({ "resource": uri }),
        Wanted::Prompts => json!("prompts"),
        Wanted::Conversation { name, arguments } => {
            json!({ "prompt": name, "arguments": arguments })
        }
        Wanted::Values {
            prompt,
            argument,
            value,
        } => json!({ "prompt": prompt, "argument": argument, "value": value }),
    }
}

/// The front end's id of a tool call, which the extension can see.
pub(super) fn id(job: &Job) -> Option<String> {
    match job {
        Job::Tool(call) => Some(call.id.clone()),
        _ => None,
    }
}

pub(super) fn set_id(job: &mut Job, id: String) {
    if let Job::Tool(call) = job {
        call.id = id;
    }
}

/// What an order came to.
pub(super) fn reply(reply: &Reply) -> wasmtime::Result<Value> {
    match reply {
        Reply::Tool(result) => value(result),
        Reply::Done(result) => value(result),
        Reply::Completions(found) => value(found),
        Reply::Answer(answer) => value(answer),
        Reply::Publication(found) => match found {
            Found::Resources(found) => value(found),
            Found::Templates(found) => value(found),
            Found::Contents(found) => value(found),
            Found::Prompts(found) => value(found),
            Found::Conversation(found) => value(found),
            Found::Values(found) => value(found),
        },
    }
}
