//! What is offered, under which names, in an order that never changes.
//!
//! Clients have tools of their own for commands and files, and models are used to those names. So what an extension offers
//! in the place of a built-in tool is offered as `vers_…`, next to the client's own: it acts on the active VM, and fails when there is none.

use std::collections::BTreeMap;

use pi_vers_host::{Command, Extension, Offer, Session, Tool};
use rmcp::model::{Prompt as ListedPrompt, Tool as ListedTool};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Tools of clients, which extensions may offer in their place; see [`crate::mcp::front`].
pub(crate) const BUILT_INS: [&str; 4] = ["bash", "read", "edit", "write"];

/// How extensions describe tools that replace others, and how that reads where they stand beside them.
const PHRASES: [(&str, &str); 4] = [
    (
        ", on the active Vers VM if there is one, else on the local machine",
        " on the active Vers VM (vers_vm_use makes one active)",
    ),
    (
        "bash, read, edit, write, grep, find and ls act on it instead of the local machine, until vers_vm_local",
        "vers_bash, vers_read, vers_edit and vers_write act on it, until vers_vm_local. Tools without vers_ in their name always act on the local machine",
    ),
    (
        "Let bash, read, edit, write, grep, find and ls act on the local machine again",
        "Let no VM be the active one: vers_bash, vers_read, vers_edit and vers_write then fail",
    ),
    (
        " (0: none; default on a VM: --vers-ssh-timeout, 120)",
        " (0: none; default: 120)",
    ),
];

/// A tool of the list.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its name in the session.
    pub(crate) name: String,
    pub(crate) listed: ListedTool,
    /// It declares what its structured results look like.
    pub(crate) structured: bool,
    /// It may take minutes.
    pub(crate) long: bool,
    /// It makes sense only as a task.
    pub(crate) task_only: bool,
}

/// A command, as a prompt.
#[derive(Debug)]
pub(crate) struct Prompt {
    pub(crate) extension: String,
    pub(crate) description: String,
    pub(crate) listed: ListedPrompt,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    pub(crate) tools: BTreeMap<String, Entry>,
    pub(crate) prompts: BTreeMap<String, Prompt>,
    /// Extensions publish others.
    pub(crate) more_prompts: bool,
}

impl Catalogue {
    pub(crate) fn of(session: &Session) -> Self {
        let mut all = Self::new(session.tools(), session.commands());
        let exports = |extension: &Extension| {
            let exports = &extension.anatomy().exports;
            exports
                .iter()
                .any(|name| name.starts_with("vers:harness/prompts@"))
        };
        all.more_prompts = session.extensions().any(exports);
        all
    }

    fn new(tools: Vec<Offer<Tool>>, commands: Vec<Offer<Command>>) -> Self {
        let mut all = Self::default();
        let (replacing, others): (Vec<_>, Vec<_>) = tools
            .into_iter()
            .partition(|offer| BUILT_INS.contains(&offer.item.name.as_str()));
        for Offer { item, .. } in others {
            all.offer(item.name.clone(), item, false);
        }
        for Offer { item, .. } in replacing {
            all.offer(format!("vers_{}", item.name), item, true);
        }
        for Offer { item, extension } in commands {
            if !fits(&item.name) {
                left_out("command", &item.name, "its name is none that clients take");
                continue;
            }
            let mut listed = json!({ "name": item.name, "description": item.description });
            if let (Some(listed), Some(usage)) = (listed.as_object_mut(), &item.arguments) {
                let argument =
                    json!([{ "name": "arguments", "description": usage, "required": false }]);
                listed.insert("arguments".into(), argument);
            }
            let Some(listed) = typed("command", &item.name, listed) else {
                continue;
            };
            let prompt = Prompt {
                extension,
                description: item.description,
                listed,
            };
            all.prompts.insert(item.name, prompt);
        }
        all
    }

    fn offer(&mut self, name: String, tool: Tool, replaces: bool) {
        if !fits(&name) {
            return left_out("tool", &name, "its name is none that clients take");
        }
        if self.tools.contains_key(&name) {
            return left_out("tool", &name, "there is one of that name");
        }
        let Some(listed) = typed("tool", &name, listed(&name, &tool, replaces)) else {
            return;
        };
        let entry = Entry {
            listed,
            name: tool.name,
            structured: tool.output.is_some(),
            long: tool.hints.long_running,
            task_only: tool.hints.task_only,
        };
        self.tools.insert(name, entry);
    }
}

/// What is listed, as the protocol's type. An extension's schema may be none.
fn typed<T: DeserializeOwned>(what: &str, name: &str, listed: Value) -> Option<T> {
    match serde_json::from_value(listed) {
        Ok(typed) => Some(typed),
        Err(why) => {
            left_out(what, name, &why.to_string());
            None
        }
    }
}

fn listed(name: &str, tool: &Tool, replaces: bool) -> Value {
    let mut schema = tool.parameters.clone();
    if let Some(schema) = schema.as_object_mut() {
        schema.entry("type").or_insert_with(|| "object".into());
    }
    // Descriptions of parameters, too, tell of flags that nobody can give here.
    reword(&mut schema);
    let mut description = Value::String(tool.description.clone());
    reword(&mut description);
    let mut listed = json!({
        "name": name,
        "title": tool.label,
        "description": description,
        "inputSchema": schema,
        "annotations": {
            "title": tool.label,
            "readOnlyHint": tool.hints.read_only,
            "destructiveHint": tool.hints.destructive,
            "idempotentHint": tool.hints.idempotent,
            "openWorldHint": tool.hints.open_world,
        },
    });
    if let Some(listed) = listed.as_object_mut() {
        if let Some(output) = &tool.output {
            listed.insert("outputSchema".into(), output.clone());
        }
        if replaces {
            // A client that loads tools when they are asked for would use its own instead.
            listed.insert("_meta".into(), json!({ "anthropic/alwaysLoad": true }));
        }
    }
    listed
}

fn reword(value: &mut Value) {
    match value {
        Value::String(text) => {
            for (old, new) in PHRASES {
                if text.contains(old) {
                    *text = text.replacen(old, new, 1);
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(reword),
        Value::Object(all) => all.values_mut().for_each(reword),
        _ => {}
    }
}

/// Whether every client takes this name.
fn fits(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

fn left_out(what: &str, name: &str, why: &str) {
    let name = pi_vers_host::visible(name);
    tracing::warn!("the {what} {name} is not offered: {why}");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use pi_vers_host::Hints;

    fn tool(name: &str) -> Offer<Tool> {
        Offer {
            extension: "x".into(),
            item: Tool {
                name: name.into(),
                label: "Label".into(),
                description: format!("Does it{}.", PHRASES[0].0),
                parameters: json!({}),
                output: None,
                hints: Hints {
                    read_only: true,
                    ..Hints::default()
                },
                only_replaces: false,
            },
        }
    }

    #[test]
    fn what_replaces_a_built_in_tool_stands_beside_it() {
        let all = Catalogue::new(vec![tool("zeta"), tool("bash"), tool("alpha")], Vec::new());
        let names: Vec<_> = all.tools.keys().map(String::as_str).collect();
        assert_eq!(names, ["alpha", "vers_bash", "zeta"]);
        let bash = &all.tools["vers_bash"];
        assert_eq!(bash.name, "bash");
        let listed = serde_json::to_value(&bash.listed).unwrap();
        assert_eq!(listed["annotations"]["readOnlyHint"], true);
        assert_eq!(listed["annotations"]["openWorldHint"], false);
        assert_eq!(listed["_meta"]["anthropic/alwaysLoad"], true);
        assert_eq!(listed["inputSchema"], json!({ "type": "object" }));
        let description = listed["description"].as_str().unwrap();
        assert!(!description.contains("local machine"), "{description}");
    }

    #[test]
    fn a_name_that_clients_refuse_or_that_is_taken_is_left_out() {
        let offers = vec![
            tool("a b"),
            tool("vers_bash"),
            tool("bash"),
            tool(&"x".repeat(65)),
        ];
        let all = Catalogue::new(offers, Vec::new());
        assert_eq!(all.tools.len(), 1);
        assert_eq!(all.tools["vers_bash"].name, "vers_bash");
    }
}
