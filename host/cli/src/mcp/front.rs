//! The client as the harness of extensions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::BoxFuture;
use pi_vers_host::{
    Answer, BuiltInCall, BuiltInError, ClientAnswers, Content, CustomMessage, Delivery, Dialog,
    FlagValue, Harness, HarnessError, Line, Listing, Question, QuestionKind, Severity, ToolOutput,
    visible,
};
use rmcp::model::{LoggingLevel, Resource};
use serde_json::Value;
use tokio::time::timeout;

use super::catalogue::BUILT_INS;
use super::client::Offers;
use super::desk::{Desk, News};
use super::locked;
use super::question::{KEY, Questions, Reading, read};
use crate::harness::CommandLine;
use crate::hook::ActiveVm;

/// A dialog that stays open this long is as good as one without a limit.
const LONGEST_DIALOG: Duration = Duration::from_secs(60 * 60);
/// Most widgets that are shown.
const MOST_WIDGETS: usize = 256;
/// The resource with all status entries.
pub(crate) const STATUS: &str = "pi-vers://status";

/// What extensions show without being asked: readable as resources.
#[derive(Debug, Default)]
pub(crate) struct Board {
    status: BTreeMap<(String, String), String>,
    /// Name and text, by URI.
    widgets: BTreeMap<String, (String, String)>,
}

impl Board {
    pub(crate) fn list(&self) -> Vec<Resource> {
        let status = Resource::new(STATUS, "status")
            .with_title("Status")
            .with_mime_type("text/plain")
            .with_description("What extensions show in a status line, for example the active VM");
        let widget = |(uri, (name, _)): (&String, &(String, String))| {
            Resource::new(uri, name).with_mime_type("text/plain")
        };
        std::iter::once(status)
            .chain(self.widgets.iter().map(widget))
            .collect()
    }

    pub(crate) fn read(&self, uri: &str) -> Option<String> {
        if uri != STATUS {
            return self.widgets.get(uri).map(|(_, text)| text.clone());
        }
        let lines: Vec<&str> = self.status.values().map(String::as_str).collect();
        Some(lines.join("\n"))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Front {
    /// Keeps flags and entries.
    line: CommandLine,
    desk: Arc<Desk>,
    board: Arc<Mutex<Board>>,
    active: ActiveVm,
}

impl Front {
    pub(crate) fn new(
        line: CommandLine,
        desk: Arc<Desk>,
        board: Arc<Mutex<Board>>,
        active: ActiveVm,
    ) -> Self {
        Self {
            line,
            desk,
            board,
            active,
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        locked(&self.board)
    }

    fn said(&self, from: &str, content: &[Content]) {
        let texts: Vec<&str> = content.iter().filter_map(Content::as_text).collect();
        let text = visible(&texts.join("\n"));
        self.desk.say(from, &text);
        self.desk.log(from, None, LoggingLevel::Info, &text);
    }
}

fn text(line: Line) -> String {
    line.into_iter().map(|span| span.text).collect()
}

/// A part of a URI.
fn escaped(part: &str) -> String {
    let mut escaped = String::new();
    for byte in part.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            escaped.push(byte.into());
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

impl Harness for Front {
    fn interactive(&self) -> bool {
        self.desk.interactive()
    }

    fn notify(&self, from: &str, message: &str, severity: Severity) {
        self.notify_during(from, None, message, severity);
    }

    fn notify_during(&self, from: &str, call: Option<&str>, message: &str, severity: Severity) {
        let level = match severity {
            Severity::Info => LoggingLevel::Info,
            Severity::Warning => LoggingLevel::Warning,
            Severity::Error => LoggingLevel::Error,
        };
        let message = visible(message);
        self.desk.say(from, &message);
        self.desk.log(from, call, level, &message);
    }

    fn bus(&self, from: &str, topic: &str, data: &Value) {
        self.active.hear(from, topic, data);
    }

    fn set_status(&self, from: &str, key: &str, line: Option<Line>) {
        let at = (from.to_owned(), key.to_owned());
        let old = match line {
            Some(line) => {
                let new = text(line);
                let mut board = self.board();
                if board.status.len() >= MOST_WIDGETS && !board.status.contains_key(&at) {
                    return;
                }
                let old = board.status.insert(at, new.clone());
                if old.as_ref() == Some(&new) {
                    return;
                }
                old
            }
            None => match self.board().status.remove(&at) {
                None => return,
                old => old,
            },
        };
        drop(old);
        self.desk.news(&News::Resource(STATUS.to_owned()));
    }

    fn set_widget(&self, from: &str, key: &str, lines: Option<Vec<Line>>) {
        let uri = format!("pi-vers://widgets/{}/{}", escaped(from), escaped(key));
        let changed = match lines {
            Some(lines) => {
                let lines: Vec<String> = lines.into_iter().map(text).collect();
                let mut board = self.board();
                if board.widgets.len() >= MOST_WIDGETS && !board.widgets.contains_key(&uri) {
                    return;
                }
                let widget = (format!("{from} {}", visible(key)), lines.join("\n"));
                board.widgets.insert(uri.clone(), widget).is_none()
            }
            None => match self.board().widgets.remove(&uri) {
                None => return,
                Some(_) => true,
            },
        };
        if changed {
            self.desk.news(&News::Resources);
        }
        self.desk.news(&News::Resource(uri));
    }

    fn ask(
        &self,
        _from: &str,
        call: Option<&str>,
        title: &str,
        dialog: Dialog,
        limit: Option<Duration>,
    ) -> BoxFuture<'_, Option<Answer>> {
        let (call, title) = (call.map(str::to_owned), title.to_owned());
        let limit = limit.unwrap_or(LONGEST_DIALOG).min(LONGEST_DIALOG);
        Box::pin(async move {
            let call = call?;
            let questions = Questions::Dialog {
                title,
                dialog: dialog.clone(),
            };
            let asked = self.desk.ask(&call, questions);
            let answers = timeout(limit, asked).await.ok().flatten()?;
            match read(&dialog, answers.get(KEY)?) {
                Reading::Answer(answer) => Some(answer),
                Reading::Dismissed | Reading::Misfit => None,
            }
        })
    }

    fn offers(&self, call: Option<&str>, kind: QuestionKind) -> bool {
        let offers = call.map_or_else(Offers::default, |call| self.desk.offers(call));
        offers.kind(kind)
    }

    fn ask_client(
        &self,
        _from: &str,
        call: Option<&str>,
        questions: Vec<Question>,
    ) -> BoxFuture<'_, Result<ClientAnswers, HarnessError>> {
        let call = call.map(str::to_owned);
        Box::pin(async move {
            let nobody = || HarnessError::Failed("nobody answered".into());
            let call = call.ok_or_else(nobody)?;
            let offers = self.desk.offers(&call);
            if let Some(lacked) = questions.iter().find(|one| !offers.kind(one.kind)) {
                self.desk.set_lacked(&call, lacked.kind);
                return Err(HarnessError::NotOffered(lacked.kind));
            }
            let own = Questions::own(questions).map_err(HarnessError::Failed)?;
            self.desk.ask(&call, own).await.ok_or_else(nobody)
        })
    }

    fn list_changed(&self, _from: &str, list: Listing) {
        self.desk.news(match list {
            Listing::Tools => &News::Tools,
            Listing::Prompts => &News::Prompts,
            Listing::Resources => &News::Resources,
        });
    }

    fn working_directory(&self) -> PathBuf {
        self.line.working_directory()
    }

    fn session_id(&self) -> String {
        self.line.session_id()
    }

    fn flag(&self, name: &str) -> Option<FlagValue> {
        self.line.flag(name)
    }

    fn send_message(
        &self,
        from: &str,
        message: CustomMessage,
        _delivery: Delivery,
        _trigger_turn: bool,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        if message.display {
            self.said(from, &message.content);
        }
        Box::pin(async { Ok(()) })
    }

    /// A command that speaks for the user is a prompt: its text is the message.
    fn send_user_message(
        &self,
        from: &str,
        content: Vec<Content>,
        _delivery: Delivery,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        self.said(from, &content);
        Box::pin(async { Ok(()) })
    }

    fn append_entry(
        &self,
        from: &str,
        kind: &str,
        data: Value,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        self.line.append_entry(from, kind, data)
    }

    fn entries(
        &self,
        from: &str,
        kind: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<Value>, HarnessError>> {
        self.line.entries(from, kind)
    }

    fn built_ins(&self) -> Vec<String> {
        BUILT_INS.map(str::to_owned).into()
    }

    fn run_built_in(&self, call: BuiltInCall) -> BoxFuture<'_, Result<ToolOutput, BuiltInError>> {
        let name = visible(&call.tool);
        let text = format!(
            "No VM is active: vers_{name} acts on the active VM only. Make one active with vers_vm_use (vers_vms lists them, vers_vm_create makes one), or use your own {name} for the local machine."
        );
        Box::pin(async move {
            Err(BuiltInError::Failed(ToolOutput {
                content: vec![Content::Text(text)],
                ..ToolOutput::default()
            }))
        })
    }
}
