//! Events of a harness, and what extensions answer.
//!
//! An event goes to its subscribers in the order they were loaded. Rewriting answers build on each
//! other: the second subscriber sees what the first made of it. An answer that does not fit its event
//! (a `block` of a turn's end) counts as none.

use serde_json::Value;

use crate::bindings::exports::vers::harness::events as wit;
use crate::types::{CustomMessage, ToolOutput, json};

/// What happened in the harness.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A tool is about to run.
    ToolCall {
        /// The harness's id of the call.
        call_id: String,
        /// The tool.
        tool: String,
        /// Its arguments.
        arguments: Value,
    },
    /// A tool has run.
    ToolResult {
        /// The harness's id of the call.
        call_id: String,
        /// The tool.
        tool: String,
        /// Its arguments.
        arguments: Value,
        /// Its result.
        output: ToolOutput,
        /// Whether it failed.
        is_error: bool,
    },
    /// The user's text, before the agent sees it.
    Input(String),
    /// A `!` command of the user.
    UserBash(String),
    /// Before the agent loop starts, with the prompt.
    BeforeAgentStart(String),
    /// Before a model call, with the messages.
    Context(Vec<Value>),
    /// The agent loop has started.
    AgentStart,
    /// It has ended, with these messages.
    AgentEnd(Vec<Value>),
    /// A turn has started.
    TurnStart(u32),
    /// It has ended, with this message.
    TurnEnd(Value),
    /// The model was changed.
    ModelSelect(Value),
    /// A message of another extension.
    Bus {
        /// The topic.
        topic: String,
        /// The message.
        data: Value,
    },
    /// Any other event of the harness.
    Other {
        /// Its name.
        name: String,
        /// Its data.
        data: Value,
    },
}

impl Event {
    /// The name under which extensions subscribe.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::ToolCall { .. } => "tool-call",
            Self::ToolResult { .. } => "tool-result",
            Self::Input(_) => "input",
            Self::UserBash(_) => "user-bash",
            Self::BeforeAgentStart(_) => "before-agent-start",
            Self::Context(_) => "context",
            Self::AgentStart => "agent-start",
            Self::AgentEnd(_) => "agent-end",
            Self::TurnStart(_) => "turn-start",
            Self::TurnEnd(_) => "turn-end",
            Self::ModelSelect(_) => "model-select",
            Self::Bus { .. } => "bus",
            Self::Other { name, .. } => name,
        }
    }
}

/// What a harness shall do about an event, after all subscribers have answered.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reaction {
    /// The tool does not run, for this reason.
    pub block: Option<String>,
    /// The tool runs with these arguments.
    pub arguments: Option<Value>,
    /// The model sees this result.
    pub output: Option<ToolOutput>,
    /// The agent gets this text.
    pub input: Option<String>,
    /// The input is dealt with and does not reach the agent.
    pub handled: bool,
    /// The `!` command is dealt with; this came of it.
    pub bash: Option<BashOutcome>,
    /// These messages go to the model before the loop starts.
    pub inject: Vec<CustomMessage>,
    /// The model gets these messages.
    pub messages: Option<Vec<Value>>,
    /// Answers to an [`Event::Other`].
    pub other: Vec<Value>,
}

/// What a `!` command of the user printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BashOutcome {
    /// Both outputs.
    pub output: String,
    /// Its exit code, if it ended by itself.
    pub exit_code: Option<i32>,
    /// Whether the output was cut.
    pub truncated: bool,
}

impl Reaction {
    /// Whether later subscribers need not be asked.
    pub(crate) fn is_final(&self) -> bool {
        self.block.is_some() || self.handled || self.bash.is_some()
    }

    /// Takes an answer in, and changes the event so that the next subscriber sees what this one made of it.
    pub(crate) fn take(&mut self, event: &mut Event, answer: wit::Answer) -> Result<(), String> {
        match (event, answer) {
            (_, wit::Answer::Proceed) => {}
            (Event::ToolCall { .. }, wit::Answer::Block(why)) => self.block = Some(why),
            (Event::ToolCall { arguments, .. }, wit::Answer::RewriteCall(text)) => {
                *arguments = json(&text, "the rewritten arguments")?;
                self.arguments = Some(arguments.clone());
            }
            (Event::ToolResult { output, .. }, wit::Answer::RewriteResult(result)) => {
                *output = result.try_into()?;
                self.output = Some(output.clone());
            }
            (Event::Input(text), wit::Answer::RewriteInput(new)) => {
                text.clone_from(&new);
                self.input = Some(new);
            }
            (Event::Input(_), wit::Answer::Handled) => self.handled = true,
            (Event::UserBash(_), wit::Answer::HandledBash(outcome)) => {
                self.bash = Some(BashOutcome {
                    output: outcome.output,
                    exit_code: outcome.exit_code,
                    truncated: outcome.truncated,
                });
            }
            (Event::BeforeAgentStart(_), wit::Answer::Inject(message)) => {
                self.inject.push(message.try_into()?)
            }
            (Event::Context(messages), wit::Answer::RewriteMessages(new)) => {
                *messages = new
                    .iter()
                    .map(|text| json(text, "a rewritten message"))
                    .collect::<Result<_, _>>()?;
                self.messages = Some(messages.clone());
            }
            (Event::Other { .. }, wit::Answer::Other(text)) => {
                self.other.push(json(&text, "the answer")?)
            }
            (event, answer) => {
                return Err(format!(
                    "it answered {} with {}",
                    event.name(),
                    kind(&answer)
                ));
            }
        }
        Ok(())
    }
}

fn kind(answer: &wit::Answer) -> &'static str {
    match answer {
        wit::Answer::Proceed => "proceed",
        wit::Answer::Block(_) => "block",
        wit::Answer::RewriteCall(_) => "rewrite-call",
        wit::Answer::RewriteResult(_) => "rewrite-result",
        wit::Answer::RewriteInput(_) => "rewrite-input",
        wit::Answer::Handled => "handled",
        wit::Answer::HandledBash(_) => "handled-bash",
        wit::Answer::Inject(_) => "inject",
        wit::Answer::RewriteMessages(_) => "rewrite-messages",
        wit::Answer::Other(_) => "other",
    }
}

fn texts(values: &[Value]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

fn tool_use(call_id: &str, tool: &str, arguments: &Value) -> wit::ToolUse {
    wit::ToolUse {
        call_id: call_id.into(),
        tool: tool.into(),
        arguments: arguments.to_string(),
    }
}

impl From<&Event> for wit::Event {
    fn from(event: &Event) -> Self {
        match event {
            Event::ToolCall {
                call_id,
                tool,
                arguments,
            } => Self::ToolCall(tool_use(call_id, tool, arguments)),
            Event::ToolResult {
                call_id,
                tool,
                arguments,
                output,
                is_error,
            } => Self::ToolResult(wit::ToolOutcome {
                use_: tool_use(call_id, tool, arguments),
                result: output.clone().into(),
                is_error: *is_error,
            }),
            Event::Input(text) => Self::Input(text.clone()),
            Event::UserBash(command) => Self::UserBash(command.clone()),
            Event::BeforeAgentStart(prompt) => Self::BeforeAgentStart(prompt.clone()),
            Event::Context(messages) => Self::Context(texts(messages)),
            Event::AgentStart => Self::AgentStart,
            Event::AgentEnd(messages) => Self::AgentEnd(texts(messages)),
            Event::TurnStart(number) => Self::TurnStart(*number),
            Event::TurnEnd(message) => Self::TurnEnd(message.to_string()),
            Event::ModelSelect(model) => Self::ModelSelect(model.to_string()),
            Event::Bus { topic, data } => Self::Bus((topic.clone(), data.to_string())),
            Event::Other { name, data } => Self::Other((name.clone(), data.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn rewrites_build_on_each_other_and_misfits_are_refused() {
        let mut event = Event::Input("one".into());
        let mut reaction = Reaction::default();
        reaction
            .take(&mut event, wit::Answer::RewriteInput("two".into()))
            .unwrap();
        assert_eq!(event, Event::Input("two".into()));
        assert_eq!(reaction.input.as_deref(), Some("two"));
        assert!(
            reaction
                .take(&mut event, wit::Answer::Block("no".into()))
                .unwrap_err()
                .contains("input with block")
        );
        assert!(!reaction.is_final());
    }
}
