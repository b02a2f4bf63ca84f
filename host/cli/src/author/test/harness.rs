//! The front end of a test: nobody sits there, the script answers, and everything that is shown is kept.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use pi_vers_host::{
    Answer, BuiltInCall, BuiltInError, ClientAnswers, Content, CustomMessage, Delivery, Dialog,
    FlagValue, Harness, HarnessError, Line, Question, QuestionKind, Severity, ToolOutput,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::matching;
use super::script;
use crate::bridge::values;

/// Most notices and the like that are kept of one test.
const MOST: usize = 10_000;

/// What was shown, and what is answered.
#[derive(Debug, Default)]
struct Kept {
    notices: Vec<Value>,
    messages: Vec<Value>,
    entries: Vec<(String, Value)>,
    status: BTreeMap<String, Value>,
    widgets: BTreeMap<String, Value>,
    bus: Vec<Value>,
    dialogs: Vec<(u32, script::Dialog)>,
    clients: Vec<script::Client>,
    built_ins: Vec<script::BuiltIn>,
    unanswered: Vec<String>,
}

/// A front end for one test; it outlives the sessions of it.
#[derive(Debug)]
pub(super) struct Stage {
    directory: PathBuf,
    session: String,
    flags: BTreeMap<String, FlagValue>,
    kept: Mutex<Kept>,
    /// Counts what is kept.
    news: watch::Sender<u64>,
}

fn line(spans: &Line) -> String {
    spans.iter().map(|span| span.text.as_str()).collect()
}

impl Stage {
    pub(super) fn new(directory: PathBuf, flags: BTreeMap<String, FlagValue>) -> Self {
        Self {
            directory,
            session: uuid::Uuid::new_v4().to_string(),
            flags,
            kept: Mutex::default(),
            news: watch::Sender::new(0),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, change: impl FnOnce(&mut Kept)) {
        change(&mut self.kept());
        self.news.send_modify(|count| *count += 1);
    }

    /// Changes with everything that is shown or kept.
    pub(super) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    pub(super) fn entry(&self, kind: String, data: Value) {
        self.keep(|kept| kept.entries.push((kind, data)));
    }

    pub(super) fn dialog(&self, dialog: script::Dialog) {
        self.keep(|kept| kept.dialogs.push((0, dialog)));
    }

    pub(super) fn client(&self, client: script::Client) {
        self.keep(|kept| kept.clients.push(client));
    }

    pub(super) fn built_in(&self, tool: script::BuiltIn) {
        self.keep(|kept| kept.built_ins.push(tool));
    }

    pub(super) fn notices(&self) -> Value {
        Value::from(self.kept().notices.clone())
    }

    pub(super) fn messages(&self) -> Value {
        Value::from(self.kept().messages.clone())
    }

    pub(super) fn entries(&self) -> Value {
        let kept = self.kept();
        let all = kept.entries.iter();
        all.map(|(kind, data)| json!({ "kind": kind, "data": data }))
            .collect()
    }

    pub(super) fn status(&self) -> Value {
        json!(self.kept().status)
    }

    pub(super) fn widgets(&self) -> Value {
        json!(self.kept().widgets)
    }

    pub(super) fn bus(&self) -> Value {
        Value::from(self.kept().bus.clone())
    }

    /// Questions that no line answers, since this was last asked.
    pub(super) fn complaints(&self) -> Vec<String> {
        std::mem::take(&mut self.kept().unanswered)
    }

    fn answer(&self, title: &str, dialog: &Dialog) -> Option<Answer> {
        let (told, options) = match dialog {
            Dialog::Select(options) => (
                json!({ "kind": "select", "title": title, "options": options }),
                options.as_slice(),
            ),
            Dialog::Confirm(message) => (
                json!({ "kind": "confirm", "title": title, "message": message }),
                &[][..],
            ),
            Dialog::Input(hint) => (
                json!({ "kind": "input", "title": title, "text": hint }),
                &[][..],
            ),
            Dialog::Edit(text) => (
                json!({ "kind": "edit", "title": title, "text": text }),
                &[][..],
            ),
        };
        let mut kept = self.kept();
        let found = kept.dialogs.iter_mut().find(|(used, one)| {
            one.times.is_none_or(|times| *used < times) && matching::matches(&one.dialog, &told)
        });
        let Some((used, found)) = found else {
            kept.unanswered.push(format!(
                "it asked its user what no line of the script answers: add {}",
                json!({ "dialog": told, "answer": null })
            ));
            return None;
        };
        *used += 1;
        let answer = found.answer.clone();
        let wrong = |kept: &mut Kept| {
            kept.unanswered
                .push(format!("{answer} is no answer to the dialog {told}"));
            None
        };
        match (dialog, &answer) {
            (_, Value::Null) => None,
            (Dialog::Select(_), Value::Number(index)) => {
                match index.as_u64().and_then(|index| usize::try_from(index).ok()) {
                    Some(index) if index < options.len() => Some(Answer::Index(index)),
                    _ => wrong(&mut kept),
                }
            }
            (Dialog::Select(_), Value::String(text)) => {
                match options.iter().position(|option| option == text) {
                    Some(index) => Some(Answer::Index(index)),
                    None => wrong(&mut kept),
                }
            }
            (Dialog::Confirm(_), Value::Bool(yes)) => Some(Answer::Yes(*yes)),
            (Dialog::Input(_) | Dialog::Edit(_), Value::String(text)) => {
                Some(Answer::Text(text.clone()))
            }
            _ => wrong(&mut kept),
        }
    }
}

impl Harness for Stage {
    fn interactive(&self) -> bool {
        !self.kept().dialogs.is_empty()
    }

    fn notify(&self, _from: &str, message: &str, severity: Severity) {
        self.keep(|kept| {
            if kept.notices.len() < MOST {
                kept.notices
                    .push(json!({ "severity": severity, "text": message }));
            }
        });
    }

    fn set_status(&self, _from: &str, key: &str, text: Option<Line>) {
        self.keep(|kept| match text {
            Some(text) => drop(kept.status.insert(key.to_owned(), line(&text).into())),
            None => drop(kept.status.remove(key)),
        });
    }

    fn set_widget(&self, _from: &str, key: &str, lines: Option<Vec<Line>>) {
        self.keep(|kept| match lines {
            Some(lines) => {
                let lines: Vec<String> = lines.iter().map(line).collect();
                drop(kept.widgets.insert(key.to_owned(), json!(lines)));
            }
            None => drop(kept.widgets.remove(key)),
        });
    }

    fn ask(
        &self,
        _from: &str,
        _call: Option<&str>,
        title: &str,
        dialog: Dialog,
        _timeout: Option<Duration>,
    ) -> BoxFuture<'_, Option<Answer>> {
        let answer = self.answer(title, &dialog);
        self.news.send_modify(|count| *count += 1);
        Box::pin(async move { answer })
    }

    fn approve(&self, _from: &str, question: &str) -> BoxFuture<'_, bool> {
        let dialog = Dialog::Confirm(question.to_owned());
        let yes = self.answer("approve", &dialog) == Some(Answer::Yes(true));
        Box::pin(async move { yes })
    }

    fn offers(&self, _call: Option<&str>, kind: QuestionKind) -> bool {
        let word = json!(kind);
        let kept = self.kept();
        kept.clients.iter().any(|one| word == one.client.as_str())
    }

    fn ask_client(
        &self,
        _from: &str,
        _call: Option<&str>,
        questions: Vec<Question>,
    ) -> BoxFuture<'_, Result<ClientAnswers, HarnessError>> {
        let mut answers = ClientAnswers::new();
        let mut kept = self.kept();
        for question in questions {
            let word = json!(question.kind);
            let found = kept.clients.iter().find(|one| {
                word == one.client.as_str()
                    && one
                        .parameters
                        .as_ref()
                        .is_none_or(|wanted| matching::matches(wanted, &question.parameters))
            });
            match found.map(|one| one.answer.clone()) {
                Some(answer) => drop(answers.insert(question.key, answer)),
                None => {
                    kept.unanswered.push(format!(
                        "it asked the client what no line of the script answers: add {}",
                        json!({ "client": word, "parameters": question.parameters, "answer": {} })
                    ));
                    let kind = question.kind;
                    return Box::pin(async move { Err(HarnessError::NotOffered(kind)) });
                }
            }
        }
        Box::pin(async move { Ok(answers) })
    }

    fn working_directory(&self) -> PathBuf {
        self.directory.clone()
    }

    fn session_id(&self) -> String {
        self.session.clone()
    }

    fn flag(&self, name: &str) -> Option<FlagValue> {
        self.flags.get(name).cloned()
    }

    fn send_message(
        &self,
        _from: &str,
        message: CustomMessage,
        delivery: Delivery,
        trigger_turn: bool,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let texts: Vec<&str> = message
            .content
            .iter()
            .filter_map(Content::as_text)
            .collect();
        let text = texts.join("\n");
        let mut told = values::message(&message);
        told.insert("text".into(), text.into());
        told.insert("delivery".into(), json!(delivery));
        told.insert("triggerTurn".into(), trigger_turn.into());
        self.keep(|kept| kept.messages.push(Value::Object(told)));
        Box::pin(async { Ok(()) })
    }

    fn send_user_message(
        &self,
        _from: &str,
        content: Vec<Content>,
        delivery: Delivery,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        let texts: Vec<&str> = content.iter().filter_map(Content::as_text).collect();
        let told = json!({ "user": true, "text": texts.join("\n"), "delivery": delivery });
        self.keep(|kept| kept.messages.push(told));
        Box::pin(async { Ok(()) })
    }

    fn append_entry(
        &self,
        _from: &str,
        kind: &str,
        data: Value,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        self.entry(kind.to_owned(), data);
        Box::pin(async { Ok(()) })
    }

    fn entries(
        &self,
        _from: &str,
        kind: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<Value>, HarnessError>> {
        let kept = self.kept();
        let own = kept
            .entries
            .iter()
            .filter(|(known, _)| kind.is_none_or(|kind| kind == known));
        let found = own.map(|(_, data)| data.clone()).collect();
        Box::pin(async move { Ok(found) })
    }

    fn bus(&self, _from: &str, topic: &str, data: &Value) {
        self.keep(|kept| kept.bus.push(json!({ "topic": topic, "data": data })));
    }

    fn built_ins(&self) -> Vec<String> {
        // A tool that only replaces is tested without a line for what it replaces, too.
        let mut names: Vec<String> = ["bash", "read", "edit", "write", "grep", "find", "ls"]
            .map(str::to_owned)
            .into();
        names.extend(self.kept().built_ins.iter().map(|one| one.built_in.clone()));
        names.sort();
        names.dedup();
        names
    }

    fn run_built_in(&self, call: BuiltInCall) -> BoxFuture<'_, Result<ToolOutput, BuiltInError>> {
        let mut kept = self.kept();
        let found = kept.built_ins.iter().find(|one| {
            one.built_in == call.tool
                && one
                    .arguments
                    .as_ref()
                    .is_none_or(|wanted| matching::matches(wanted, &call.arguments))
        });
        let result = match found {
            Some(one) => {
                let output = ToolOutput {
                    content: vec![Content::text(&one.text)],
                    ..ToolOutput::default()
                };
                match one.failed {
                    true => Err(BuiltInError::Failed(output)),
                    false => Ok(output),
                }
            }
            None => {
                let line =
                    json!({ "built_in": call.tool, "arguments": call.arguments, "text": "" });
                kept.unanswered.push(format!(
                    "it ran a tool of the harness that no line of the script plays: add {line}"
                ));
                Err(BuiltInError::Missing(call.tool))
            }
        };
        drop(kept);
        Box::pin(async move { result })
    }
}
