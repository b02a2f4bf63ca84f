//! What goes to clients beside answers: questions, news, log messages.
//!
//! An extension speaks when it likes and waits for nobody. So what it says is put into the ear of whoever listens: an older client's
//! connection, or one request of a newer client. An ear that is not emptied holds a bounded amount: of news that
//! something has changed one of a kind is enough, and of log messages the newest are kept.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use pi_vers_host::QuestionKind;
use rmcp::model::LoggingLevel;
use tokio::sync::{Notify, mpsc, oneshot};

use super::client::{Offers, rank};
use super::locked;
use super::question::{Answers, Questions};

/// Most listeners at a time.
const MOST_EARS: usize = 512;
/// Most URIs that one of them may ask to hear of.
pub(crate) const MOST_URIS: usize = 256;
/// Most log messages that wait in an ear.
const MOST_LOGS: usize = 256;
/// So much is kept of what a command says.
const MOST_SAID: usize = 256 << 10;

/// Questions of an extension to whoever called it.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) questions: Questions,
    pub(crate) reply: oneshot::Sender<Option<Answers>>,
}

/// What there is news of.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum News {
    Tools,
    Prompts,
    Resources,
    Resource(String),
    Log(Log),
}

/// A log message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Log {
    pub(crate) from: String,
    pub(crate) level: LoggingLevel,
    pub(crate) text: String,
}

/// What somebody wants to hear.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    pub(crate) tools: bool,
    pub(crate) prompts: bool,
    pub(crate) resources: bool,
    pub(crate) uris: BTreeSet<String>,
    /// Log messages from here on.
    pub(crate) level: Option<LoggingLevel>,
    /// Only log messages of this call.
    pub(crate) call: Option<String>,
}

impl Interest {
    fn wants(&self, news: &News, call: Option<&str>) -> bool {
        match news {
            News::Tools => self.tools,
            News::Prompts => self.prompts,
            News::Resources => self.resources,
            News::Resource(uri) => self.uris.contains(uri),
            News::Log(log) => {
                self.level
                    .is_some_and(|least| rank(log.level) >= rank(least))
                    && (self.call.is_none() || self.call.as_deref() == call)
            }
        }
    }
}

#[derive(Debug, Default)]
struct Pending {
    tools: bool,
    prompts: bool,
    resources: bool,
    uris: BTreeSet<String>,
    logs: VecDeque<Log>,
}

impl Pending {
    fn put(&mut self, news: News) {
        match news {
            News::Tools => self.tools = true,
            News::Prompts => self.prompts = true,
            News::Resources => self.resources = true,
            News::Resource(uri) => drop(self.uris.insert(uri)),
            News::Log(log) => {
                if self.logs.len() >= MOST_LOGS {
                    self.logs.pop_front();
                }
                self.logs.push_back(log);
            }
        }
    }

    fn take(&mut self) -> Option<News> {
        if let Some(log) = self.logs.pop_front() {
            return Some(News::Log(log));
        }
        for (set, news) in [
            (&mut self.tools, News::Tools),
            (&mut self.prompts, News::Prompts),
            (&mut self.resources, News::Resources),
        ] {
            if std::mem::take(set) {
                return Some(news);
            }
        }
        self.uris.pop_first().map(News::Resource)
    }
}

/// Where news arrive.
#[derive(Debug, Default)]
pub(crate) struct Ear {
    interest: Mutex<Interest>,
    pending: Mutex<Pending>,
    bell: Notify,
}

impl Ear {
    /// The next news. Cancel-safe.
    pub(crate) async fn next(&self) -> News {
        loop {
            let rung = self.bell.notified();
            if let Some(news) = self.now() {
                return news;
            }
            rung.await;
        }
    }

    /// The next news, if there are any.
    pub(crate) fn now(&self) -> Option<News> {
        locked(&self.pending).take()
    }

    /// Changes what is heard from now on.
    pub(crate) fn interest(&self) -> MutexGuard<'_, Interest> {
        locked(&self.interest)
    }
}

#[derive(Debug)]
struct Caller {
    asks: mpsc::Sender<Ask>,
    offers: Offers,
    /// It was asked for what it does not offer.
    lacked: Option<QuestionKind>,
}

#[derive(Debug, Default)]
struct State {
    /// Who waits for a call or command, by its id.
    callers: HashMap<String, Caller>,
    ears: HashMap<u64, Arc<Ear>>,
    /// What running commands have said, and whose they are.
    said: HashMap<u64, (String, String)>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Desk {
    state: Mutex<State>,
    next: AtomicU64,
    interactive: AtomicBool,
}

/// Takes what it stands for back when it is dropped.
pub(crate) struct Mark {
    desk: Arc<Desk>,
    undo: Box<dyn Fn(&mut State) + Send + Sync>,
}

impl Drop for Mark {
    fn drop(&mut self) {
        (self.undo)(&mut self.desk.state());
    }
}

/// An ear, and its place among those that hear.
pub(crate) struct Hearing {
    pub(crate) ear: Arc<Ear>,
    _mark: Mark,
}

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        locked(&self.state)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn mark(self: &Arc<Self>, undo: impl Fn(&mut State) + Send + Sync + 'static) -> Mark {
        Mark {
            desk: self.clone(),
            undo: Box::new(undo),
        }
    }

    /// Whether the newest client shows forms.
    pub(crate) fn interactive(&self) -> bool {
        self.interactive.load(Ordering::Relaxed)
    }

    pub(crate) fn set_interactive(&self, form: bool) {
        self.interactive.store(form, Ordering::Relaxed);
    }

    /// Questions of this call come out of the receiver, as long as the mark lives.
    pub(crate) fn questions_of(
        self: &Arc<Self>,
        call: String,
        offers: Offers,
    ) -> (mpsc::Receiver<Ask>, Mark) {
        let (asks, receiver) = mpsc::channel(8);
        let caller = Caller {
            asks,
            offers,
            lacked: None,
        };
        self.state().callers.insert(call.clone(), caller);
        let mark = self.mark(move |state| {
            state.callers.remove(&call);
        });
        (receiver, mark)
    }

    /// What the caller of this call offers; nothing where nobody waits for it.
    pub(crate) fn offers(&self, call: &str) -> Offers {
        let state = self.state();
        state
            .callers
            .get(call)
            .map_or_else(Offers::default, |caller| caller.offers)
    }

    /// The call goes on under another request.
    pub(crate) fn set_offers(&self, call: &str, offers: Offers) {
        if let Some(caller) = self.state().callers.get_mut(call) {
            caller.offers = offers;
        }
    }

    /// This call asked for what its caller does not offer.
    pub(crate) fn set_lacked(&self, call: &str, what: QuestionKind) {
        if let Some(caller) = self.state().callers.get_mut(call) {
            caller.lacked = Some(what);
        }
    }

    /// What [`Self::set_lacked`] was told of this call.
    pub(crate) fn lacked(&self, call: &str) -> Option<QuestionKind> {
        self.state().callers.get(call)?.lacked
    }

    /// Asks whoever called; `None` where nobody can be asked.
    pub(crate) async fn ask(&self, call: &str, questions: Questions) -> Option<Answers> {
        let asks = self.state().callers.get(call)?.asks.clone();
        let (reply, answer) = oneshot::channel();
        asks.send(Ask { questions, reply }).await.ok()?;
        answer.await.ok()?
    }

    /// Somebody who listens from now on. `None`: too many do.
    pub(crate) fn hear(self: &Arc<Self>, interest: Interest) -> Option<Hearing> {
        let number = self.number();
        let ear = Arc::new(Ear {
            interest: Mutex::new(interest),
            ..Ear::default()
        });
        {
            let mut state = self.state();
            if state.ears.len() >= MOST_EARS {
                return None;
            }
            state.ears.insert(number, ear.clone());
        }
        let mark = self.mark(move |state| {
            state.ears.remove(&number);
        });
        Some(Hearing { ear, _mark: mark })
    }

    /// Tells whoever listens; says whether anybody does.
    pub(crate) fn news(&self, news: &News) -> bool {
        self.tell(news, None)
    }

    fn tell(&self, news: &News, call: Option<&str>) -> bool {
        let state = self.state();
        let mut heard = false;
        for ear in state.ears.values() {
            if ear.interest().wants(news, call) {
                locked(&ear.pending).put(news.clone());
                ear.bell.notify_one();
                heard = true;
            }
        }
        heard
    }

    /// A log message, for whoever may hear it.
    pub(crate) fn log(&self, from: &str, call: Option<&str>, level: LoggingLevel, text: &str) {
        let log = Log {
            from: from.to_owned(),
            level,
            text: text.to_owned(),
        };
        if !self.tell(&News::Log(log), call) {
            tracing::info!("{from}: {text}");
        }
    }

    /// From now on what this extension says is kept, too, until the mark is dropped.
    pub(crate) fn keep_words_of(self: &Arc<Self>, extension: String) -> (u64, Mark) {
        let number = self.number();
        self.state().said.insert(number, (extension, String::new()));
        let mark = self.mark(move |state| {
            state.said.remove(&number);
        });
        (number, mark)
    }

    pub(crate) fn words(&self, number: u64) -> String {
        let said = self.state().said.get(&number).cloned();
        said.map(|(_, words)| words).unwrap_or_default()
    }

    /// An extension says something.
    pub(crate) fn say(&self, from: &str, text: &str) {
        for (extension, words) in self.state().said.values_mut() {
            if extension == from && words.len() + text.len() < MOST_SAID {
                if !words.is_empty() {
                    words.push('\n');
                }
                words.push_str(text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_ear_that_is_not_emptied_holds_one_of_each_news_and_the_newest_log_messages() {
        let desk = Arc::<Desk>::default();
        let interest = Interest {
            tools: true,
            uris: ["a".to_owned()].into(),
            level: Some(LoggingLevel::Info),
            ..Interest::default()
        };
        let hearing = desk.hear(interest).unwrap();
        for _ in 0..10 {
            assert!(desk.news(&News::Tools));
            desk.news(&News::Resource("a".into()));
        }
        assert!(!desk.news(&News::Resource("b".into())));
        assert!(!desk.news(&News::Prompts));
        desk.log("x", None, LoggingLevel::Debug, "too low");
        for at in 0..MOST_LOGS + 3 {
            desk.log("x", None, LoggingLevel::Warning, &at.to_string());
        }
        let mut logs = Vec::new();
        let mut others = Vec::new();
        while let Some(news) = hearing.ear.now() {
            match news {
                News::Log(log) => logs.push(log.text),
                other => others.push(other),
            }
        }
        assert_eq!(
            (logs.len(), logs.first().unwrap().as_str()),
            (MOST_LOGS, "3")
        );
        assert_eq!(others, [News::Tools, News::Resource("a".into())]);
        drop(hearing);
        assert!(!desk.news(&News::Tools), "nobody listens any more");
    }

    #[test]
    fn log_messages_of_a_call_reach_no_other_request() {
        let desk = Arc::<Desk>::default();
        let of = |call: &str| Interest {
            level: Some(LoggingLevel::Debug),
            call: Some(call.into()),
            ..Interest::default()
        };
        let (mine, other) = (desk.hear(of("1")).unwrap(), desk.hear(of("2")).unwrap());
        desk.log("x", Some("1"), LoggingLevel::Info, "for one");
        desk.log("x", None, LoggingLevel::Info, "for nobody");
        assert!(mine.ear.now().is_some() && mine.ear.now().is_none());
        assert!(other.ear.now().is_none());
    }
}
