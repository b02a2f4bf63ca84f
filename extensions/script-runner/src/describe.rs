//! What a script offers, from what its default export says.

use pi_vers_sdk::{Command, ExtensionInfo, Flag, FlagValue, Hints, Shortcut, Tool};
use serde::Deserialize;
use serde_json::Value;

/// What `prelude.js` makes of the default export.
#[derive(Debug, Deserialize)]
struct Said {
    name: String,
    version: String,
    summary: String,
    tools: Vec<SaidTool>,
    commands: Vec<SaidCommand>,
    shortcuts: Vec<SaidShortcut>,
    flags: Vec<SaidFlag>,
    events: Vec<String>,
    topics: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct SaidTool {
    name: String,
    label: String,
    description: String,
    parameters: Value,
    output: Option<Value>,
    hints: Vec<String>,
    replaces: bool,
}

#[derive(Debug, Deserialize)]
struct SaidCommand {
    name: String,
    description: String,
    arguments: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SaidShortcut {
    key: String,
    description: String,
    command: String,
}

#[derive(Debug, Deserialize)]
struct SaidFlag {
    name: String,
    description: String,
    default: Value,
}

/// The contract's words for it.
pub(crate) fn info(said: &str) -> Result<ExtensionInfo, String> {
    let said: Said = serde_json::from_str(said)
        .map_err(|why| format!("what the script exports can't be read: {why}"))?;
    let tools: Result<Vec<Tool>, String> = said.tools.into_iter().map(tool).collect();
    let flags: Result<Vec<Flag>, String> = said.flags.into_iter().map(flag).collect();
    Ok(ExtensionInfo {
        name: said.name,
        version: said.version,
        summary: said.summary,
        tools: tools?,
        commands: said
            .commands
            .into_iter()
            .map(|command| Command {
                name: command.name,
                description: command.description,
                arguments: command.arguments,
            })
            .collect(),
        shortcuts: said
            .shortcuts
            .into_iter()
            .map(|shortcut| Shortcut {
                key: shortcut.key,
                description: shortcut.description,
                command: shortcut.command,
            })
            .collect(),
        flags: flags?,
        subscriptions: said.events,
        topics: said.topics,
    })
}

fn tool(said: SaidTool) -> Result<Tool, String> {
    let mut hints = Hints::empty();
    for hint in &said.hints {
        hints |= match hint.as_str() {
            "readOnly" => Hints::READ_ONLY,
            "destructive" => Hints::DESTRUCTIVE,
            "idempotent" => Hints::IDEMPOTENT,
            "openWorld" => Hints::OPEN_WORLD,
            "longRunning" => Hints::LONG_RUNNING,
            "taskOnly" => Hints::TASK_ONLY,
            other => {
                return Err(format!(
                    "{} has a hint {other} that nobody knows",
                    said.name
                ));
            }
        };
    }
    Ok(Tool {
        name: said.name,
        label: said.label,
        description: said.description,
        parameters: said.parameters.to_string(),
        output: said.output.map(|schema| schema.to_string()),
        hints,
        only_replaces: said.replaces,
    })
}

fn flag(said: SaidFlag) -> Result<Flag, String> {
    let default = match said.default {
        Value::Bool(value) => FlagValue::Boolean(value),
        Value::String(value) => FlagValue::Text(value),
        Value::Number(value) => FlagValue::Number(value.as_f64().unwrap_or_default()),
        _ => {
            return Err(format!(
                "the flag {} needs a default that is true, false, a text or a number",
                said.name
            ));
        }
    };
    Ok(Flag {
        name: said.name,
        description: said.description,
        default,
    })
}
