//! A client that can be asked, in several moods.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::future::BoxFuture;
use pi_vers_host::{
    ClientAnswers, Harness, HarnessError, Headless, Listing, Question, QuestionKind, Severity,
};
use serde_json::{Value, json};
use tokio::sync::Notify;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Answers,
    AnswersNothing,
    NeverAnswers,
    OffersNothing,
    OffersForms,
}

/// Who asked, for which call, and what.
pub(crate) type Asked = (String, Option<String>, Vec<Question>);

pub(crate) struct Client {
    headless: Headless,
    mood: Mood,
    asked: Mutex<Vec<Asked>>,
    told: Mutex<Vec<String>>,
    changed: Mutex<Vec<Listing>>,
    heard: Notify,
    open: Arc<AtomicUsize>,
}

/// Counts a question as open until it is dropped.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock<T>(it: &Mutex<T>) -> MutexGuard<'_, T> {
    it.lock().expect("nobody panics with it")
}

impl Client {
    pub(crate) fn new(mood: Mood) -> Self {
        Self {
            headless: Headless::new(std::env::temp_dir()),
            mood,
            asked: Mutex::default(),
            told: Mutex::default(),
            changed: Mutex::default(),
            heard: Notify::new(),
            open: Arc::default(),
        }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }

    pub(crate) fn told(&self) -> Vec<String> {
        lock(&self.told).clone()
    }

    pub(crate) fn changed(&self) -> Vec<Listing> {
        lock(&self.changed).clone()
    }

    /// Waits for the first question.
    pub(crate) async fn is_asked(&self) {
        self.heard.notified().await;
    }

    /// Questions nobody has answered or given up.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

fn answer(question: &Question) -> Value {
    match question.kind {
        QuestionKind::Form => {
            json!({ "action": "accept", "content": { "name": "Ada", "context": "tests" } })
        }
        QuestionKind::Sampling => {
            json!({ "role": "assistant", "content": { "type": "text", "text": "Hello" }, "model": "m" })
        }
        QuestionKind::Roots => json!({ "roots": [] }),
    }
}

impl Harness for Client {
    fn offers(&self, call: Option<&str>, kind: QuestionKind) -> bool {
        let all = self.mood != Mood::OffersNothing && self.mood != Mood::OffersForms;
        call.is_some() && (all || (self.mood == Mood::OffersForms && kind == QuestionKind::Form))
    }

    fn ask_client(
        &self,
        from: &str,
        call: Option<&str>,
        questions: Vec<Question>,
    ) -> BoxFuture<'_, Result<ClientAnswers, HarnessError>> {
        if let Some(kind) = questions
            .iter()
            .map(|question| question.kind)
            .find(|kind| !self.offers(call, *kind))
        {
            return Box::pin(async move { Err(HarnessError::NotOffered(kind)) });
        }
        let answers: ClientAnswers = questions
            .iter()
            .map(|question| (question.key.clone(), answer(question)))
            .collect();
        let asked = (from.to_owned(), call.map(str::to_owned), questions);
        lock(&self.asked).push(asked);
        self.open.fetch_add(1, Ordering::SeqCst);
        let open = Open(self.open.clone());
        self.heard.notify_one();
        Box::pin(async move {
            let _open = open;
            match self.mood {
                Mood::NeverAnswers => std::future::pending().await,
                Mood::AnswersNothing => Ok(ClientAnswers::new()),
                _ => Ok(answers),
            }
        })
    }

    fn list_changed(&self, _: &str, list: Listing) {
        lock(&self.changed).push(list);
    }

    fn notify_during(&self, from: &str, call: Option<&str>, message: &str, severity: Severity) {
        let call = call.unwrap_or("-");
        lock(&self.told).push(format!("{from} {call} {severity:?} {message}"));
    }

    fn session_id(&self) -> String {
        self.headless.session_id()
    }

    fn working_directory(&self) -> PathBuf {
        self.headless.working_directory()
    }

    fn append_entry(
        &self,
        from: &str,
        kind: &str,
        data: Value,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        self.headless.append_entry(from, kind, data)
    }

    fn entries(
        &self,
        from: &str,
        kind: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<Value>, HarnessError>> {
        self.headless.entries(from, kind)
    }
}
