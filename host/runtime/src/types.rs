//! What front ends and extensions say to each other, as plain Rust values.
//!
//! These mirror `wit/deps/harness/types.wit`; the binding's own types stay inside the crate, so that
//! a new contract version is no breaking change for who embeds the host.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::bindings::exports::vers::harness::description as wit_description;
use crate::bindings::vers::harness::types as wit;
use crate::content::{Content, for_guest, from_guest};

/// What a tool handed back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ToolOutput {
    /// For the model.
    pub content: Vec<Content>,
    /// For the user interface and other extensions; never shown to the model.
    pub details: Option<Value>,
    /// For programs; matches the tool's output schema.
    pub structured: Option<Value>,
}

impl ToolOutput {
    /// All text blocks, joined by line feeds.
    #[must_use]
    pub fn text(&self) -> String {
        let texts: Vec<&str> = self.content.iter().filter_map(Content::as_text).collect();
        texts.join("\n")
    }
}

/// The latest a running call has shown of itself.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Update {
    /// Replaces what was shown before.
    pub content: Vec<Content>,
    /// Details for the user interface.
    pub details: Option<Value>,
    /// Progress, if the tool reports it.
    pub progress: Option<Progress>,
}

/// How far a call has come.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// Done so far.
    pub done: f64,
    /// Out of this many, if known.
    pub total: Option<f64>,
    /// What is being done.
    pub caption: String,
}

/// How a stretch of text should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(
    missing_docs,
    reason = "the names say it all; the front end's theme decides the rest"
)]
pub enum Role {
    Normal,
    Accent,
    Muted,
    Dim,
    Success,
    Warning,
    Error,
}

/// A stretch of text of one look.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Control characters are replaced by visible ones.
    pub text: String,
    /// What the text means.
    pub role: Role,
    /// Bold.
    pub bold: bool,
    /// Struck through.
    pub strikethrough: bool,
}

/// One line of a widget, status or message.
pub type Line = Vec<Span>;

/// How a notice is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it all")]
pub enum Severity {
    Info,
    Warning,
    Error,
}

/// The value of a flag.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FlagValue {
    /// On or off.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A text.
    Text(String),
}

/// A message of the conversation that an extension made.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomMessage {
    /// Tells kinds of messages apart.
    pub kind: String,
    /// The message.
    pub content: Vec<Content>,
    /// Whether the user sees it.
    pub display: bool,
    /// Details for the user interface.
    pub details: Option<Value>,
}

/// When a message reaches the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Delivery {
    /// Interrupts the running turn.
    Steer,
    /// After the running turn.
    FollowUp,
    /// With the user's next message.
    NextTurn,
}

/// True statements about a tool, by which clients decide what may run without asking.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hints {
    /// Changes nothing.
    pub read_only: bool,
    /// May destroy what was there.
    pub destructive: bool,
    /// Twice is the same as once.
    pub idempotent: bool,
    /// Talks to the outside.
    pub open_world: bool,
    /// May take minutes: a client that knows tasks may be given one.
    pub long_running: bool,
    /// Makes sense as a task only: not for clients that know no tasks.
    pub task_only: bool,
}

/// A tool as its extension describes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// Unique in the session.
    pub name: String,
    /// For people.
    pub label: String,
    /// For the model.
    pub description: String,
    /// JSON Schema of the arguments.
    pub parameters: Value,
    /// JSON Schema of [`ToolOutput::structured`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// True statements about it.
    pub hints: Hints,
    /// Offered only where the harness has a built-in of this name.
    pub only_replaces: bool,
}

/// A slash command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Without the slash.
    pub name: String,
    /// For people.
    pub description: String,
    /// What follows the name, for example `[vm-id]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arguments: Option<String>,
}

/// A key that runs a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortcut {
    /// For example `ctrl+alt+p`.
    pub key: String,
    /// For people.
    pub description: String,
    /// The command it runs.
    pub command: String,
}

/// A flag of the harness's command line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Flag {
    /// Without dashes.
    pub name: String,
    /// For people.
    pub description: String,
    /// The value when it is not given; also its type.
    pub default: FlagValue,
}

/// All that an extension offers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the contract")]
pub struct ExtensionInfo {
    pub name: String,
    pub version: String,
    pub summary: String,
    pub tools: Vec<Tool>,
    pub commands: Vec<Command>,
    pub shortcuts: Vec<Shortcut>,
    pub flags: Vec<Flag>,
    pub subscriptions: Vec<String>,
    pub topics: Vec<String>,
}

/// One way to go on typing a command's argument.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// What is inserted.
    pub value: String,
    /// What is shown.
    pub label: String,
    /// What it means.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

/// Why a session starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names say it all")]
pub enum StartReason {
    Startup,
    Reload,
    Resume,
    Fork,
}

/// Prose of a guest as it may be shown: line feeds, tabs and what joins emoji stay, every other character that is
/// [deceptive](pi_vers_policy::is_deceptive) gets a visible stand-in. Guest text must not move a terminal's cursor or
/// turn a sentence around. Names and questions are shown by [`pi_vers_policy::visible`], which keeps nothing.
#[must_use]
pub fn visible(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\t' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}' => c,
            '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + c as u32).unwrap_or('\u{fffd}'),
            '\u{7f}' => '\u{2421}',
            c if pi_vers_policy::is_deceptive(c) => '\u{fffd}',
            c => c,
        })
        .collect()
}

/// What every model API takes as a name, and every client as a slash command.
pub(crate) fn fits_name(what: &str, name: &str) -> Result<(), String> {
    let fits = (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
        && !name.starts_with('-');
    if fits {
        return Ok(());
    }
    let shown: String = visible(name).chars().take(80).collect();
    Err(format!(
        "{what} is {shown:?}: use 1 to 64 letters, digits, _ and -"
    ))
}

/// A JSON text of a guest, or why it is none.
pub(crate) fn json(text: &str, what: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|why| format!("{what} is no JSON: {why}"))
}

impl TryFrom<wit::ToolResult> for ToolOutput {
    type Error = String;

    fn try_from(result: wit::ToolResult) -> Result<Self, String> {
        Ok(Self {
            content: from_guest(result.content)?,
            details: result
                .details
                .map(|text| json(&text, "`details`"))
                .transpose()?,
            structured: result
                .structured
                .map(|text| json(&text, "`structured`"))
                .transpose()?,
        })
    }
}

impl From<ToolOutput> for wit::ToolResult {
    fn from(output: ToolOutput) -> Self {
        Self {
            content: for_guest(output.content),
            details: output.details.map(|value| value.to_string()),
            structured: output.structured.map(|value| value.to_string()),
        }
    }
}

impl From<wit::Span> for Span {
    fn from(span: wit::Span) -> Self {
        Self {
            text: visible(&span.text).replace('\n', "\u{240a}"),
            role: match span.role {
                wit::Role::Normal => Role::Normal,
                wit::Role::Accent => Role::Accent,
                wit::Role::Muted => Role::Muted,
                wit::Role::Dim => Role::Dim,
                wit::Role::Success => Role::Success,
                wit::Role::Warning => Role::Warning,
                wit::Role::Error => Role::Error,
            },
            bold: span.bold,
            strikethrough: span.strikethrough,
        }
    }
}

impl From<wit::FlagValue> for FlagValue {
    fn from(value: wit::FlagValue) -> Self {
        match value {
            wit::FlagValue::Boolean(value) => Self::Boolean(value),
            wit::FlagValue::Text(value) => Self::Text(value),
            wit::FlagValue::Number(value) => Self::Number(value),
        }
    }
}

impl From<FlagValue> for wit::FlagValue {
    fn from(value: FlagValue) -> Self {
        match value {
            FlagValue::Boolean(value) => Self::Boolean(value),
            FlagValue::Text(value) => Self::Text(value),
            FlagValue::Number(value) => Self::Number(value),
        }
    }
}

impl TryFrom<wit::CustomMessage> for CustomMessage {
    type Error = String;

    fn try_from(message: wit::CustomMessage) -> Result<Self, String> {
        Ok(Self {
            kind: message.kind,
            content: from_guest(message.content)?,
            display: message.display,
            details: message
                .details
                .map(|text| json(&text, "`details`"))
                .transpose()?,
        })
    }
}

/// Makes the prose of a JSON Schema visible: what says nothing to a validator, and much to a model.
fn visible_prose(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(visible_prose),
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(text)
                        if matches!(name.as_str(), "description" | "title" | "$comment") =>
                    {
                        *text = visible(text);
                    }
                    value => visible_prose(value),
                }
            }
        }
        _ => {}
    }
}

impl TryFrom<wit_description::Tool> for Tool {
    type Error = String;

    fn try_from(tool: wit_description::Tool) -> Result<Self, String> {
        use wit_description::Hints as H;
        let mut parameters = json(
            &tool.parameters,
            &format!("the parameter schema of tool {}", visible(&tool.name)),
        )?;
        let mut output = tool
            .output
            .map(|text| {
                json(
                    &text,
                    &format!("the output schema of tool {}", visible(&tool.name)),
                )
            })
            .transpose()?;
        visible_prose(&mut parameters);
        output.iter_mut().for_each(visible_prose);
        Ok(Self {
            name: tool.name,
            label: visible(&tool.label),
            description: visible(&tool.description),
            parameters,
            output,
            hints: Hints {
                read_only: tool.hints.contains(H::READ_ONLY),
                destructive: tool.hints.contains(H::DESTRUCTIVE),
                idempotent: tool.hints.contains(H::IDEMPOTENT),
                open_world: tool.hints.contains(H::OPEN_WORLD),
                long_running: tool.hints.contains(H::LONG_RUNNING),
                task_only: tool.hints.contains(H::TASK_ONLY),
            },
            only_replaces: tool.only_replaces,
        })
    }
}

impl TryFrom<wit_description::ExtensionInfo> for ExtensionInfo {
    type Error = String;

    fn try_from(info: wit_description::ExtensionInfo) -> Result<Self, String> {
        Ok(Self {
            name: info.name,
            version: visible(&info.version),
            summary: visible(&info.summary),
            tools: info
                .tools
                .into_iter()
                .map(Tool::try_from)
                .collect::<Result<_, _>>()?,
            commands: info
                .commands
                .into_iter()
                .map(|command| Command {
                    name: command.name,
                    description: visible(&command.description),
                    arguments: command.arguments.as_deref().map(visible),
                })
                .collect(),
            shortcuts: info
                .shortcuts
                .into_iter()
                .map(|shortcut| Shortcut {
                    key: shortcut.key,
                    description: visible(&shortcut.description),
                    command: shortcut.command,
                })
                .collect(),
            flags: info
                .flags
                .into_iter()
                .map(|flag| Flag {
                    name: flag.name,
                    description: visible(&flag.description),
                    default: flag.default.into(),
                })
                .collect(),
            subscriptions: info.subscriptions,
            topics: info.topics,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn guest_text_cannot_move_the_cursor_or_reorder_text() {
        let shown = visible("a\u{1b}[2Jb\u{202e}c\r\u{7f}\n\t");
        assert_eq!(shown, "a\u{241b}[2Jb\u{fffd}c\u{240d}\u{2421}\n\t");
        assert_eq!(
            visible("a\u{2028}\u{61c}\u{e0041}"),
            "a\u{fffd}\u{fffd}\u{fffd}"
        );
        let emoji = "\u{1f469}\u{200d}\u{1f4bb}\u{fe0f}";
        assert_eq!(visible(emoji), emoji);
    }

    #[test]
    fn details_that_are_no_json_are_named() {
        let result = wit::ToolResult {
            content: vec![],
            details: Some("{".into()),
            structured: None,
        };
        assert!(
            ToolOutput::try_from(result)
                .unwrap_err()
                .contains("`details` is no JSON")
        );
    }
}
