//! Results and errors of tool calls.

use serde_json::Value;

use crate::{Content, Error, ToolError, ToolResult};

/// A result of one text.
#[must_use]
pub fn text(text: impl Into<String>) -> ToolResult {
    ToolResult {
        content: vec![Content::Text(text.into())],
        details: None,
        structured: None,
    }
}

/// A result of these blocks.
#[must_use]
pub fn blocks(content: Vec<Content>) -> ToolResult {
    ToolResult {
        content,
        details: None,
        structured: None,
    }
}

/// A result of one text, with details for the user interface and other extensions.
#[must_use]
pub fn text_with(text: impl Into<String>, details: &Value) -> ToolResult {
    ToolResult {
        content: vec![Content::Text(text.into())],
        details: Some(details.to_string()),
        structured: None,
    }
}

/// A result of a value that fits the tool's `output` schema: for programs as it is, for the model as JSON. `ToolSpec::output` declares it.
#[must_use]
pub fn structured(value: &impl serde::Serialize) -> ToolResult {
    // What has a schema has names that are texts, and is JSON.
    let value = serde_json::to_string(value).unwrap_or_default();
    ToolResult {
        content: vec![Content::Text(value.clone())],
        details: None,
        structured: Some(value),
    }
}

/// The text of these blocks, one after the other; what is no text is named in brackets.
#[must_use]
pub fn text_of(content: &[Content]) -> String {
    let text = |block: &Content| match block {
        Content::Text(text) => text.clone(),
        Content::Image(image) => format!("[{}]", image.media_type),
        Content::Audio(audio) => format!("[{}]", audio.media_type),
        Content::Resource(resource) => format!("[{}]", resource.uri),
        Content::Link(link) => format!("[{}]", link.uri),
    };
    content.iter().map(text).collect::<Vec<_>>().join("\n")
}

/// A failure that the model reads.
#[must_use]
pub fn failed(message: impl Into<String>) -> ToolError {
    ToolError::Failed(text(message))
}

/// A failure that the model reads, with details.
#[must_use]
pub fn failed_with(message: impl Into<String>, details: &Value) -> ToolError {
    ToolError::Failed(text_with(message, details))
}

/// The end of a call that a capability's error ended. A refusal of the policy goes on as it is, for
/// the front end to explain; cancelled stays cancelled; anything else becomes `{what}: {why}`. Where the other side
/// did not answer, the kind goes on with it: a script tells that apart from a tool's own failure.
#[must_use]
pub fn ended(what: &str, error: Error) -> ToolError {
    match error {
        Error::Cancelled => ToolError::Cancelled,
        Error::Denied(_) => ToolError::Capability(error),
        Error::Unavailable(_) => {
            ToolError::Capability(Error::Unavailable(format!("{what}: {}", explain(&error))))
        }
        Error::TimedOut(_) => {
            ToolError::Capability(Error::TimedOut(format!("{what}: {}", explain(&error))))
        }
        other => failed(format!("{what}: {}", explain(&other))),
    }
}

/// An error in words for people. Says what kind it is where the host's message may leave that open.
#[must_use]
pub fn explain(error: &Error) -> String {
    let (kind, message) = match error {
        Error::Denied(m) => ("not allowed by the policy", m),
        Error::Invalid(m) => ("malformed request", m),
        Error::NotFound(m) => ("not found", m),
        Error::Conflict(m) => ("conflict", m),
        Error::TimedOut(m) => ("timed out", m),
        Error::Unavailable(m) => ("unreachable", m),
        Error::Limit(m) => ("limit reached", m),
        Error::Other(m) => ("failed", m),
        Error::Cancelled => return "cancelled".into(),
    };
    let message = message.trim();
    if message.is_empty() {
        kind.into()
    } else {
        message.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_a_message_still_says_something() {
        assert_eq!(explain(&Error::Unavailable(String::new())), "unreachable");
        assert_eq!(
            explain(&Error::Unavailable("no route to host\n".into())),
            "no route to host"
        );
        assert_eq!(explain(&Error::Cancelled), "cancelled");
    }

    #[test]
    fn a_refusal_is_handed_on_unchanged() {
        match ended("Cannot list VMs", Error::Denied("vms.read".into())) {
            ToolError::Capability(Error::Denied(rule)) => assert_eq!(rule, "vms.read"),
            other => unreachable!("{other:?}"),
        }
        assert!(matches!(ended("x", Error::Cancelled), ToolError::Cancelled));
    }

    #[test]
    fn an_unreachable_platform_stays_one_with_what_was_being_done() {
        match ended(
            "Cannot list VMs",
            Error::Unavailable("no route to host".into()),
        ) {
            ToolError::Capability(Error::Unavailable(why)) => {
                assert_eq!(why, "Cannot list VMs: no route to host")
            }
            other => unreachable!("{other:?}"),
        }
    }
}
