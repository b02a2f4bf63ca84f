//! A harness that writes down what one extension tells it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::BoxFuture;
use pi_vers_host::{
    Content, CustomMessage, Delivery, FlagValue, Harness, HarnessError, Line, Severity,
};
use serde_json::Value;

pub(crate) fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().expect("nobody panics with it")
}

/// A message of an extension to the conversation.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) kind: String,
    pub(crate) text: String,
    pub(crate) details: Value,
    pub(crate) wakes: bool,
    pub(crate) follow_up: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Desk {
    /// Whose widget it looks at, and the end of that one's key.
    widget_of: (&'static str, &'static str),
    id: String,
    directory: PathBuf,
    flags: BTreeMap<String, FlagValue>,
    pub(crate) sent: Mutex<Vec<Message>>,
    pub(crate) told: Mutex<Vec<String>>,
    bus: Mutex<Vec<(String, Value)>>,
    widget: Mutex<Option<String>>,
}

impl Desk {
    /// For a session of this id, in this directory.
    pub(crate) fn new(
        widget_of: (&'static str, &'static str),
        id: &str,
        directory: &Path,
        flags: &[(&str, FlagValue)],
    ) -> Arc<Self> {
        let flags = flags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        Arc::new(Self {
            widget_of,
            id: id.into(),
            directory: directory.to_owned(),
            flags: flags.collect(),
            sent: Mutex::default(),
            told: Mutex::default(),
            bus: Mutex::default(),
            widget: Mutex::default(),
        })
    }

    /// The messages of this kind so far.
    pub(crate) fn sent(&self, kind: &str) -> Vec<Message> {
        let sent = lock(&self.sent);
        let found = sent.iter().filter(|sent| sent.kind == kind);
        found.cloned().collect()
    }

    /// What the widget shows.
    pub(crate) fn widget(&self) -> Option<String> {
        lock(&self.widget).clone()
    }

    /// What was told the bus on this topic.
    pub(crate) fn heard(&self, topic: &str) -> Vec<Value> {
        let bus = lock(&self.bus);
        let said = bus.iter().filter(|(name, _)| name == topic);
        said.map(|(_, data)| data.clone()).collect()
    }
}

impl Harness for Desk {
    fn notify(&self, _: &str, message: &str, _: Severity) {
        lock(&self.told).push(message.to_owned());
    }

    fn set_widget(&self, from: &str, key: &str, lines: Option<Vec<Line>>) {
        if from != self.widget_of.0 {
            return;
        }
        assert!(key.ends_with(self.widget_of.1), "{key}");
        let line = |line: &Line| line.iter().map(|span| span.text.as_str()).collect();
        let lines = lines.map(|lines| lines.iter().map(line).collect::<Vec<String>>().join("\n"));
        *lock(&self.widget) = lines;
    }

    fn working_directory(&self) -> PathBuf {
        self.directory.clone()
    }

    fn session_id(&self) -> String {
        self.id.clone()
    }

    fn flag(&self, name: &str) -> Option<FlagValue> {
        self.flags.get(name).cloned()
    }

    fn send_message(
        &self,
        _: &str,
        message: CustomMessage,
        delivery: Delivery,
        trigger_turn: bool,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let text = message.content.iter().map(|block| match block {
            Content::Text(text) => text.as_str(),
            _ => "[no text]",
        });
        lock(&self.sent).push(Message {
            kind: message.kind.clone(),
            text: text.collect(),
            details: message.details.clone().unwrap_or_default(),
            wakes: trigger_turn,
            follow_up: matches!(delivery, Delivery::FollowUp),
        });
        Box::pin(async { Ok(()) })
    }

    fn append_entry(&self, _: &str, _: &str, _: Value) -> BoxFuture<'_, Result<(), HarnessError>> {
        Box::pin(async { Ok(()) })
    }

    fn entries(&self, _: &str, _: Option<&str>) -> BoxFuture<'_, Result<Vec<Value>, HarnessError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn bus(&self, _: &str, topic: &str, data: &Value) {
        lock(&self.bus).push((topic.to_owned(), data.clone()));
    }
}
