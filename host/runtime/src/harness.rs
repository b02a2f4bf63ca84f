//! What a front end offers to extensions: the trait a harness implements, and one without a screen.
//!
//! Everything has a default that says "not here", so that a front end implements only what it has. A
//! method never blocks the runtime: what can wait returns a future. The first argument `from` is the
//! extension's name, so that a front end can say who speaks.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::{ClientAnswers, Listing, Question, QuestionKind};
use crate::content::Content;
use crate::types::{CustomMessage, Delivery, FlagValue, Line, Severity, ToolOutput, Update};

/// Why a harness did not do what an extension asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HarnessError {
    /// The front end has no such thing.
    #[error("{0} is not available in this front end")]
    Unsupported(&'static str),
    /// The client behind this call can't be asked for that.
    #[error("the client does not offer {0} to be asked for")]
    NotOffered(QuestionKind),
    /// There is no such tool, entry or message.
    #[error("{0}")]
    NotFound(String),
    /// It failed.
    #[error("{0}")]
    Failed(String),
}

/// How a built-in tool of the harness failed.
#[derive(Debug, Clone)]
pub enum BuiltInError {
    /// The harness has no such tool.
    Missing(String),
    /// The tool ran and reported failure.
    Failed(ToolOutput),
    /// It was cancelled.
    Cancelled,
}

/// One call of a built-in tool of the harness.
#[derive(Debug)]
pub struct BuiltInCall {
    /// The tool's name.
    pub tool: String,
    /// The harness's id of the call.
    pub id: String,
    /// The arguments as the model gave them.
    pub arguments: Value,
    /// Where its updates go.
    pub updates: watch::Sender<Update>,
    /// Fires when the call is given up.
    pub cancel: CancellationToken,
}

/// What a dialog asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialog {
    /// Choose one of these.
    Select(Vec<String>),
    /// Yes or no, about this message.
    Confirm(String),
    /// One line of text; the hint shown while it is empty.
    Input(String),
    /// A text of several lines, beginning with this one.
    Edit(String),
}

/// What somebody answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The index of the chosen option.
    Index(usize),
    /// Yes or no.
    Yes(bool),
    /// The text.
    Text(String),
}

/// A front end: the harness an extension's session lives in.
pub trait Harness: Send + Sync + 'static {
    /// Whether somebody can answer a dialog.
    fn interactive(&self) -> bool {
        false
    }

    /// A short notice.
    fn notify(&self, from: &str, message: &str, severity: Severity) {
        let _ = (from, message, severity);
    }

    /// The same, while the call, command, prompt or event that the front end knows by this id is served; `None`: from the
    /// background. For front ends that show a notice where it belongs; the others need [`Harness::notify`] alone.
    fn notify_during(&self, from: &str, call: Option<&str>, message: &str, severity: Severity) {
        let _ = call;
        self.notify(from, message, severity);
    }

    /// The footer entry of this key; `None` removes it.
    fn set_status(&self, from: &str, key: &str, text: Option<Line>) {
        let _ = (from, key, text);
    }

    /// A block of lines; `None` removes it.
    fn set_widget(&self, from: &str, key: &str, lines: Option<Vec<Line>>) {
        let _ = (from, key, lines);
    }

    /// Asks somebody; `None` when nobody is there, the time is over, or the dialog was dismissed. `call` is the front
    /// end's own id of the call, command or event that asks, where there is one. The future is dropped when that is
    /// given up: then the dialog closes.
    fn ask(
        &self,
        from: &str,
        call: Option<&str>,
        title: &str,
        dialog: Dialog,
        timeout: Option<Duration>,
    ) -> BoxFuture<'_, Option<Answer>> {
        let _ = (from, call, title, dialog, timeout);
        Box::pin(async { None })
    }

    /// Whether whoever made this call, command or prompt can be asked this by [`Harness::ask_client`]. `None`: something in the
    /// background wants to know.
    fn offers(&self, call: Option<&str>, kind: QuestionKind) -> bool {
        let _ = (call, kind);
        false
    }

    /// Asks the client behind this call, command or prompt, all questions at once. The answers have the questions' keys; one that
    /// is missing counts as the front end's failure, one too many is left out. Their shapes are the front end's to check, against
    /// a form's schema, too: they come from a foreign program. The questions themselves were checked: 1 to 16 of them, keys
    /// unique, parameters of the kind's outer shape, 1 MiB together at most. The future is dropped when the call is given up.
    ///
    /// # Errors
    /// [`HarnessError::NotOffered`] for a kind that the client does not [offer](Harness::offers): then nothing is asked.
    fn ask_client(
        &self,
        from: &str,
        call: Option<&str>,
        questions: Vec<Question>,
    ) -> BoxFuture<'_, Result<ClientAnswers, HarnessError>> {
        let _ = (from, call);
        let kind = questions.first().map_or(QuestionKind::Form, |one| one.kind);
        Box::pin(async move { Err(HarnessError::NotOffered(kind)) })
    }

    /// An extension says that one of its lists has changed. May come often: a front end tells its clients once for many.
    fn list_changed(&self, from: &str, list: Listing) {
        let _ = (from, list);
    }

    /// Decides what the policy leaves open. The default is no.
    fn approve(&self, from: &str, question: &str) -> BoxFuture<'_, bool> {
        let _ = (from, question);
        Box::pin(async { false })
    }

    /// The directory the user works in.
    fn working_directory(&self) -> PathBuf {
        PathBuf::from(".")
    }

    /// The same when a session is resumed.
    fn session_id(&self) -> String;

    /// The value the user gave a flag, if any.
    fn flag(&self, name: &str) -> Option<FlagValue> {
        let _ = name;
        None
    }

    /// Adds a message to the conversation.
    fn send_message(
        &self,
        from: &str,
        message: CustomMessage,
        delivery: Delivery,
        trigger_turn: bool,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let _ = (from, message, delivery, trigger_turn);
        Box::pin(async { Err(HarnessError::Unsupported("a conversation")) })
    }

    /// Speaks in the user's place.
    fn send_user_message(
        &self,
        from: &str,
        content: Vec<Content>,
        delivery: Delivery,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let _ = (from, content, delivery);
        Box::pin(async { Err(HarnessError::Unsupported("a conversation")) })
    }

    /// Keeps a value with the session.
    fn append_entry(
        &self,
        from: &str,
        kind: &str,
        data: Value,
    ) -> BoxFuture<'_, Result<(), HarnessError>>;

    /// The extension's entries, oldest first; of one kind, or all.
    fn entries(
        &self,
        from: &str,
        kind: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<Value>, HarnessError>>;

    /// Names of the tools the model is offered; `None`: all of them, and they can't be chosen.
    fn active_tools(&self) -> Option<Vec<String>> {
        None
    }

    /// Names of tools that the front end has besides the session's and its own [built-ins](Self::built_ins), for example
    /// of other plugins.
    fn other_tools(&self) -> Vec<String> {
        Vec::new()
    }

    /// Replaces the offered tools.
    fn set_active_tools(&self, names: Vec<String>) -> BoxFuture<'_, Result<(), HarnessError>> {
        let _ = names;
        Box::pin(async { Err(HarnessError::Unsupported("choosing the active tools")) })
    }

    /// Hears what an extension told the [bus](crate::Session::tell), beside the extensions that subscribed.
    fn bus(&self, from: &str, topic: &str, data: &Value) {
        let _ = (from, topic, data);
    }

    /// Whether no agent turn is running.
    fn is_idle(&self) -> bool {
        true
    }

    /// Names of the harness's own tools.
    fn built_ins(&self) -> Vec<String> {
        Vec::new()
    }

    /// Runs one of them. Once `call.cancel` fires it has a second and a half to stop the tool before it is dropped.
    fn run_built_in(&self, call: BuiltInCall) -> BoxFuture<'_, Result<ToolOutput, BuiltInError>> {
        Box::pin(async move { Err(BuiltInError::Missing(call.tool)) })
    }
}

/// A harness without a screen, a model or tools of its own: for scripts, CI and tests. Entries live
/// as long as the value.
#[derive(Debug, Default)]
pub struct Headless {
    session: String,
    directory: PathBuf,
    flags: BTreeMap<String, FlagValue>,
    entries: Mutex<Vec<(String, String, Value)>>,
}

impl Headless {
    /// A new session in this directory.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self {
            session: uuid::Uuid::new_v4().to_string(),
            directory: directory.into(),
            ..Self::default()
        }
    }

    /// The same, with the value of a flag.
    #[must_use]
    pub fn with_flag(mut self, name: impl Into<String>, value: FlagValue) -> Self {
        self.flags.insert(name.into(), value);
        self
    }
}

impl Harness for Headless {
    fn working_directory(&self) -> PathBuf {
        self.directory.clone()
    }

    fn session_id(&self) -> String {
        self.session.clone()
    }

    fn flag(&self, name: &str) -> Option<FlagValue> {
        self.flags.get(name).cloned()
    }

    fn append_entry(
        &self,
        from: &str,
        kind: &str,
        data: Value,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let entry = (from.to_owned(), kind.to_owned(), data);
        self.entries
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(entry);
        Box::pin(async { Ok(()) })
    }

    fn entries(
        &self,
        from: &str,
        kind: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<Value>, HarnessError>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let found = entries
            .iter()
            .filter(|(name, k, _)| name == from && kind.is_none_or(|kind| kind == k))
            .map(|(_, _, data)| data.clone())
            .collect();
        Box::pin(async { Ok(found) })
    }
}
