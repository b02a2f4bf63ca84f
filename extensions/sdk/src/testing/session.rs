//! The conversation, and the harness around it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::{Value, json};

use super::Kit;
use super::world::{wait_for, world};
use crate::bindings::vers::harness::session::Delivery;
use crate::{Content, CustomMessage, Error, FlagValue, ToolCall, ToolError, ToolResult};

type BuiltIn = Rc<dyn Fn(Value) -> Result<ToolResult, ToolError>>;

pub(crate) struct Session {
    directory: String,
    pub(crate) flags: BTreeMap<String, FlagValue>,
    variables: BTreeMap<String, String>,
    secrets: BTreeSet<String>,
    pub(crate) entries: Vec<(String, String)>,
    messages: Vec<CustomMessage>,
    spoken: Vec<String>,
    pub(crate) tools: Vec<String>,
    active: Option<Vec<String>>,
    is_busy: bool,
    built_ins: BTreeMap<String, BuiltIn>,
}

impl Default for Session {
    fn default() -> Self {
        Self {
            directory: "/work".into(),
            flags: BTreeMap::new(),
            variables: BTreeMap::new(),
            secrets: BTreeSet::new(),
            entries: Vec::new(),
            messages: Vec::new(),
            spoken: Vec::new(),
            tools: Vec::new(),
            active: None,
            is_busy: false,
            built_ins: BTreeMap::new(),
        }
    }
}

/// The directory the user works in.
#[must_use]
pub fn working_directory() -> String {
    world(|world| world.session.directory.clone())
}

/// The harness's id of the session.
#[must_use]
pub fn id() -> String {
    "session-under-test".into()
}

/// The value of a flag that this extension declared.
#[must_use]
pub fn flag(name: &str) -> Option<FlagValue> {
    world(|world| world.session.flags.get(name).cloned())
}

/// An environment variable of the host.
///
/// # Errors
/// When the test denies it.
pub fn variable(name: &str) -> Result<Option<String>, Error> {
    super::world::ask("session.variable", json!({ "name": name }))?;
    Ok(world(|world| world.session.variables.get(name).cloned()))
}

/// Whether the host holds a secret of this name that this extension may use.
#[must_use]
pub fn has_secret(name: &str) -> bool {
    world(|world| world.session.secrets.contains(name))
}

fn word(delivery: Delivery) -> &'static str {
    match delivery {
        Delivery::Steer => "steer",
        Delivery::FollowUp => "follow-up",
        Delivery::NextTurn => "next-turn",
    }
}

/// Adds a message of the extension to the conversation.
pub async fn send_message(
    message: CustomMessage,
    delivery: Delivery,
    trigger_turn: bool,
) -> Result<(), Error> {
    let text = crate::outcome::text_of(&message.content);
    let with = json!({ "kind": message.kind, "text": text, "delivery": word(delivery), "trigger-turn": trigger_turn });
    wait_for("session.send-message", with).await?;
    world(|world| world.session.messages.push(message));
    Ok(())
}

/// Speaks in the user's place.
pub async fn send_user_message(content: Vec<Content>, delivery: Delivery) -> Result<(), Error> {
    let text = crate::outcome::text_of(&content);
    wait_for(
        "session.send-user-message",
        json!({ "text": text, "delivery": word(delivery) }),
    )
    .await?;
    world(|world| world.session.spoken.push(text));
    Ok(())
}

/// Keeps an entry with the session.
pub async fn append_entry(kind: String, data: String) -> Result<(), Error> {
    wait_for(
        "session.append-entry",
        json!({ "kind": kind, "data": data }),
    )
    .await?;
    world(|world| world.session.entries.push((kind, data)));
    Ok(())
}

/// The data of this extension's entries, oldest first.
pub async fn entries(kind: Option<String>) -> Result<Vec<String>, Error> {
    wait_for("session.entries", json!({ "kind": kind })).await?;
    Ok(world(|world| {
        let all = world.session.entries.iter();
        all.filter(|(one, _)| kind.as_ref().is_none_or(|kind| kind == one))
            .map(|(_, data)| data.clone())
            .collect()
    }))
}

/// The tools the model is offered now.
#[must_use]
pub fn active_tools() -> Vec<String> {
    world(|world| {
        world
            .session
            .active
            .clone()
            .unwrap_or_else(|| world.session.tools.clone())
    })
}

/// Every tool of the session.
#[must_use]
pub fn all_tools() -> Vec<String> {
    world(|world| world.session.tools.clone())
}

/// Replaces the list of offered tools.
pub async fn set_active_tools(names: Vec<String>) -> Result<(), Error> {
    wait_for("session.set-active-tools", json!({ "names": names })).await?;
    world(|world| {
        if let Some(unknown) = names
            .iter()
            .find(|name| !world.session.tools.contains(name))
        {
            return Err(Error::NotFound(format!("there is no tool {unknown}")));
        }
        world.session.active = Some(names);
        Ok(())
    })
}

/// Whether no agent turn is running.
#[must_use]
pub fn is_idle() -> bool {
    world(|world| !world.session.is_busy)
}

/// Runs the harness's own implementation of a built-in tool, for the same call.
pub async fn run_built_in(call: &ToolCall) -> Result<ToolResult, ToolError> {
    wait_for("session.run-built-in", json!({ "tool": call.tool() })).await?;
    let built_in = world(|world| world.session.built_ins.get(&call.tool()).cloned());
    match built_in {
        Some(built_in) => built_in(serde_json::from_str(&call.arguments()).unwrap_or_default()),
        None => Err(Error::NotFound(format!("this harness has no {}", call.tool())).into()),
    }
}

impl Kit {
    /// Lets the user work in this directory; `/work` without it.
    pub fn working_directory(&self, path: &str) {
        world(|world| world.session.directory = path.into());
    }

    /// Sets a flag of the command line.
    pub fn flag(&self, name: &str, value: FlagValue) {
        world(|world| world.session.flags.insert(name.into(), value));
    }

    /// Sets an environment variable of the host.
    pub fn variable(&self, name: &str, value: &str) {
        world(|world| world.session.variables.insert(name.into(), value.into()));
    }

    /// Lets the host hold a secret of this name.
    pub fn secret(&self, name: &str) {
        world(|world| world.session.secrets.insert(name.into()));
    }

    /// Gives the session further tools, of the harness or of other extensions.
    pub fn tools(&self, names: &[&str]) {
        world(|world| {
            world
                .session
                .tools
                .extend(names.iter().map(|&name| name.to_owned()))
        });
    }

    /// Gives the harness a tool of its own, which the extension may replace and run.
    pub fn built_in(
        &self,
        name: &str,
        run: impl Fn(Value) -> Result<ToolResult, ToolError> + 'static,
    ) {
        world(|world| world.session.built_ins.insert(name.into(), Rc::new(run)));
        self.tools(&[name]);
    }

    /// Whether an agent turn is running; none is without it.
    pub fn busy(&self, is_busy: bool) {
        world(|world| world.session.is_busy = is_busy);
    }

    /// The messages the extension has added to the conversation. [`Kit::asked`] of `session.send-message` tells how each was delivered.
    #[must_use]
    pub fn messages(&self) -> Vec<String> {
        world(|world| {
            world
                .session
                .messages
                .iter()
                .map(|message| crate::outcome::text_of(&message.content))
                .collect()
        })
    }

    /// What the extension has said in the user's place.
    #[must_use]
    pub fn spoken(&self) -> Vec<String> {
        world(|world| world.session.spoken.clone())
    }

    /// The session's entries of a kind, oldest first.
    #[must_use]
    pub fn entries(&self, kind: &str) -> Vec<Value> {
        world(|world| {
            let all = world.session.entries.iter().filter(|(one, _)| one == kind);
            all.filter_map(|(_, data)| serde_json::from_str(data).ok())
                .collect()
        })
    }

    /// The tools the model is offered now.
    #[must_use]
    pub fn offered(&self) -> Vec<String> {
        active_tools()
    }
}
