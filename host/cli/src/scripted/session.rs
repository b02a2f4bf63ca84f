//! The conversation: its messages, its numbers, and what of it is kept on disk.

use std::collections::VecDeque;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::text::keep_end;

/// Messages that are kept, in bytes: an agent that runs for days must not grow.
const MOST: usize = 32 << 20;
/// Of the last answer, so much is kept on disk.
const MOST_TEXT: usize = 64 << 10;
/// The file of a session.
const FILE: &str = "scripted-agent.json";

/// What is on disk.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    session_id: String,
    prompts: u64,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    last_text: Option<String>,
}

#[derive(Debug, Default)]
struct Counts {
    user: u64,
    assistant: u64,
    tool_calls: u64,
    tool_results: u64,
    input: u64,
    output: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Session {
    kept: Kept,
    file: Option<PathBuf>,
    messages: VecDeque<(usize, Value)>,
    bytes: usize,
    counts: Counts,
}

impl Session {
    /// A new one, kept in this directory if there is one.
    pub(super) fn new(directory: Option<&Path>) -> Self {
        let kept = Kept {
            session_id: uuid::Uuid::new_v4().to_string(),
            ..Kept::default()
        };
        Self {
            kept,
            file: directory.map(|directory| directory.join(FILE)),
            messages: VecDeque::new(),
            bytes: 0,
            counts: Counts::default(),
        }
    }

    /// The one that is kept in this directory, or else a new one.
    pub(super) fn resume(directory: Option<&Path>) -> Self {
        let mut session = Self::new(directory);
        let text = session
            .file
            .as_ref()
            .and_then(|file| std::fs::read(file).ok());
        if let Some(kept) = text.and_then(|text| serde_json::from_slice(&text).ok()) {
            session.kept = kept;
        }
        session
    }

    pub(super) fn id(&self) -> &str {
        &self.kept.session_id
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.kept.name.as_deref()
    }

    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    pub(super) fn messages(&self) -> impl Iterator<Item = &Value> {
        self.messages.iter().map(|(_, message)| message)
    }

    pub(super) fn message_count(&self) -> usize {
        self.messages.len()
    }

    /// Prompts since the session began, also before a restart.
    pub(super) fn prompts(&self) -> u64 {
        self.kept.prompts
    }

    /// The text of the newest answer.
    pub(super) fn last_text(&self) -> Option<&str> {
        self.kept.last_text.as_deref()
    }

    pub(super) fn rename(&mut self, name: &str) {
        self.kept.name = Some(name.to_owned());
        self.save();
    }

    /// The messages are replaced by a summary, as after a compaction.
    pub(super) fn forget_messages(&mut self) {
        self.messages.clear();
        self.bytes = 0;
    }

    /// Takes a message in.
    pub(super) fn record(&mut self, message: &Value) {
        let number = |path: &str| message.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        let parts = || {
            let parts = message.get("content").and_then(Value::as_array);
            parts.into_iter().flatten()
        };
        match message.get("role").and_then(Value::as_str) {
            Some("user") => {
                self.counts.user += 1;
                self.kept.prompts += 1;
                self.save();
            }
            Some("assistant") => {
                self.counts.assistant += 1;
                self.counts.input += number("/usage/input");
                self.counts.output += number("/usage/output");
                let calls = parts()
                    .filter(|part| part.get("type").and_then(Value::as_str) == Some("toolCall"))
                    .count();
                self.counts.tool_calls += calls as u64;
                let mut text: String = parts()
                    .filter_map(|part| part.get("text").and_then(Value::as_str))
                    .collect();
                if !text.is_empty() {
                    keep_end(&mut text, MOST_TEXT);
                    self.kept.last_text = Some(text);
                    self.save();
                }
            }
            Some("toolResult") => self.counts.tool_results += 1,
            _ => {}
        }
        let size = message.to_string().len();
        self.bytes += size;
        self.messages.push_back((size, message.clone()));
        while self.bytes > MOST
            && let Some((size, _)) = self.messages.pop_front()
        {
            self.bytes -= size;
        }
    }

    /// As `get_session_stats` has it.
    pub(super) fn stats(&self) -> Value {
        let counts = &self.counts;
        let mut stats = json!({
            "sessionId": self.id(),
            "userMessages": counts.user, "assistantMessages": counts.assistant,
            "toolCalls": counts.tool_calls, "toolResults": counts.tool_results,
            "totalMessages": self.messages.len(),
            "tokens": {
                "input": counts.input, "output": counts.output, "cacheRead": 0, "cacheWrite": 0,
                "total": counts.input + counts.output,
            },
            "cost": 0,
        });
        if let (Some(stats), Some(file)) = (stats.as_object_mut(), self.file()) {
            stats.insert("sessionFile".into(), file.display().to_string().into());
        }
        stats
    }

    /// Writes it whole or not at all. A disk that is full is told and does not end the agent.
    fn save(&self) {
        let Some(file) = &self.file else { return };
        let written = (|| {
            let directory = file.parent().unwrap_or(Path::new("."));
            std::fs::create_dir_all(directory)?;
            let mut draft = tempfile::NamedTempFile::new_in(directory)?;
            draft.write_all(&serde_json::to_vec(&self.kept)?)?;
            draft.persist(file).map_err(|why| why.error)?;
            Ok::<(), std::io::Error>(())
        })();
        if let Err(why) = written {
            tracing::error!("the session can't be kept in {}: {why}", file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_session_that_is_resumed_knows_what_was_before() {
        let directory = tempfile::tempdir().unwrap();
        let kept = directory.path().join("sessions");
        let mut session = Session::new(Some(&kept));
        session.record(&json!({ "role": "user", "content": "x" }));
        let answer = json!({ "role": "assistant", "content": [{ "type": "text", "text": "I did" }], "usage": { "output": 3 } });
        session.record(&answer);
        let again = Session::resume(Some(&kept));
        assert_eq!(
            (again.id(), again.prompts(), again.last_text()),
            (session.id(), 1, Some("I did"))
        );
        assert_eq!(again.message_count(), 0);
        let other = Session::new(Some(&kept));
        assert_ne!(other.id(), session.id());
        assert_eq!(other.prompts(), 0);
        assert_eq!(session.stats().pointer("/tokens/total"), Some(&json!(3)));
    }

    #[test]
    fn messages_do_not_grow_without_end() {
        let mut session = Session::new(None);
        let big = json!({ "role": "user", "content": "x".repeat(1 << 20) });
        for _ in 0..40 {
            session.record(&big);
        }
        assert!(session.message_count() < 33 && session.prompts() == 40);
    }
}
