//! What people are shown: lines of widgets and of the status bar, dialogs, messages, warnings in the log.

use crate::harness::log::{self, Level};
use crate::harness::types::{Content, CustomMessage, Role, Span};
use crate::harness::ui::{self, Dialog, Severity};
use crate::{Error, outcome};

/// A stretch of text of one look, neither bold nor struck through.
#[must_use]
pub fn span(text: impl Into<String>, role: Role) -> Span {
    Span {
        text: text.into(),
        role,
        bold: false,
        strikethrough: false,
    }
}

/// A short notice that goes away by itself.
pub fn notice(text: impl AsRef<str>) {
    ui::notify(text.as_ref(), Severity::Info);
}

/// A dialog of this title that waits for its answer as long as it takes.
#[must_use]
pub fn dialog(title: impl Into<String>) -> Dialog {
    Dialog {
        title: title.into(),
        timeout: None,
    }
}

/// A message of the conversation, for the model and the user. `kind` tells this extension's messages apart, for example `my-tool-done`.
#[must_use]
pub fn message(kind: &str, text: impl Into<String>) -> CustomMessage {
    CustomMessage {
        kind: kind.into(),
        content: vec![Content::Text(text.into())],
        display: true,
        details: None,
    }
}

/// A line of the log about what should not be.
pub fn warning(line: &str) {
    log::write(Level::Warn, line);
}

/// A line of the log about what went wrong and nobody waits for.
pub fn failure(what: &str, error: &Error) {
    warning(&format!("{what}: {}", outcome::explain(error)));
}

/// The same for something that may also have gone well. A call or a session that ends is no news.
pub fn unwatched(what: &str, done: Result<(), Error>) {
    match done {
        Ok(()) | Err(Error::Cancelled) => {}
        Err(error) => failure(what, &error),
    }
}
