//! What the host offers a harness.

use std::collections::BTreeSet;

use pi_vers_host::{ExtensionInfo, FlagValue, Hints, Session};
use serde::Serialize;
use serde_json::Value;

use super::frames::VERSION;

#[derive(Debug, Serialize)]
pub(crate) struct Ready {
    v: u64,
    host: HostInfo,
    extensions: Vec<Loaded>,
    tools: Vec<Tool>,
    commands: Vec<Command>,
    shortcuts: Vec<Shortcut>,
    flags: Vec<Flag>,
    events: BTreeSet<String>,
    topics: BTreeSet<String>,
}

#[derive(Debug, Serialize)]
struct HostInfo {
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct Loaded {
    name: String,
    version: String,
    summary: String,
}

#[derive(Debug, Serialize)]
struct Tool {
    name: String,
    label: String,
    description: String,
    parameters: Value,
    extension: String,
    hints: Hints,
    replaces: bool,
}

#[derive(Debug, Serialize)]
struct Command {
    name: String,
    description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<String>,
    extension: String,
}

#[derive(Debug, Serialize)]
struct Shortcut {
    key: String,
    description: String,
    command: String,
    extension: String,
}

#[derive(Debug, Serialize)]
struct Flag {
    name: String,
    description: String,
    r#type: &'static str,
    default: FlagValue,
    extension: String,
}

impl Ready {
    /// What this session offers a harness that has these tools of its own. Of shortcuts and flags of one name the first
    /// counts: a harness has room for one.
    pub(crate) fn new<'a>(
        session: &Session,
        infos: impl Iterator<Item = &'a ExtensionInfo> + Clone,
        built_ins: &[String],
    ) -> Self {
        let tools = session.tools().into_iter().map(|offer| Tool {
            replaces: built_ins.contains(&offer.item.name),
            name: offer.item.name,
            label: offer.item.label,
            description: offer.item.description,
            parameters: offer.item.parameters,
            hints: offer.item.hints,
            extension: offer.extension,
        });
        let commands = session.commands().into_iter().map(|offer| Command {
            name: offer.item.name,
            description: offer.item.description,
            arguments: offer.item.arguments,
            extension: offer.extension,
        });
        let mut shortcuts: Vec<Shortcut> = Vec::new();
        let mut flags: Vec<Flag> = Vec::new();
        for info in infos.clone() {
            for shortcut in &info.shortcuts {
                if let Some(first) = shortcuts.iter().find(|one| one.key == shortcut.key) {
                    twice("shortcut", &shortcut.key, &first.extension, &info.name);
                    continue;
                }
                shortcuts.push(Shortcut {
                    key: shortcut.key.clone(),
                    description: shortcut.description.clone(),
                    command: shortcut.command.clone(),
                    extension: info.name.clone(),
                });
            }
            for flag in &info.flags {
                if let Some(first) = flags.iter().find(|one| one.name == flag.name) {
                    twice("flag", &flag.name, &first.extension, &info.name);
                    continue;
                }
                flags.push(Flag {
                    name: flag.name.clone(),
                    description: flag.description.clone(),
                    r#type: match flag.default {
                        FlagValue::Boolean(_) => "boolean",
                        FlagValue::Text(_) => "string",
                        FlagValue::Number(_) => "number",
                    },
                    default: flag.default.clone(),
                    extension: info.name.clone(),
                });
            }
        }
        let all = |list: fn(&ExtensionInfo) -> &Vec<String>| -> BTreeSet<String> {
            infos.clone().flat_map(list).cloned().collect()
        };
        Self {
            v: VERSION,
            host: HostInfo {
                version: env!("CARGO_PKG_VERSION"),
            },
            extensions: infos
                .clone()
                .map(|info| Loaded {
                    name: info.name.clone(),
                    version: info.version.clone(),
                    summary: info.summary.clone(),
                })
                .collect(),
            tools: tools.collect(),
            commands: commands.collect(),
            shortcuts,
            flags,
            events: all(|info| &info.subscriptions),
            topics: all(|info| &info.topics),
        }
    }
}

fn twice(what: &str, name: &str, first: &str, second: &str) {
    tracing::warn!("the {what} {name} of {second} is left out: {first} has one of that name");
}
