//! A tool or a command that runs, and one request of a client that waits for it.
//!
//! The two are not the same: a call that asks something is handed back to a newer client and goes on under its
//! next request. So progress, log level and cancelling belong to the request, and the call belongs to nobody in between.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use pi_vers_host::{
    CallError, CallOptions, Cause, Content, Conversation, Patience, QuestionKind, Speaker,
    ToolOutput, Update, visible,
};
use rmcp::model::{
    GetPromptResult, LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam,
    ProgressToken, PromptMessage, Role,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::asking;
use super::catalogue::Prompt;
use super::client::{Client, Offers};
use super::content::{block, unknown};
use super::desk::{Ask, Desk, Hearing, Interest, Log, Mark, News};
use super::home::{Home, House};
use super::question::Answers;

/// So many notices of progress may come at once,
const BURST: u32 = 10;
/// and one more each time so much time has gone by.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a call that was given up is waited for.
const GRACE: Duration = Duration::from_secs(5);
/// The shortest time after which a client may give a call up (60 s), with room to spare. Progress buys no time.
const CLIENT: Duration = Duration::from_secs(45);
/// The part of a text that shows what is going on.
const CAPTION: usize = 200;

/// How a tool ended.
pub(crate) type ToolEnd = Result<ToolOutput, CallError>;
/// How a prompt ended.
pub(crate) type PromptEnd = Result<GetPromptResult, ErrorData>;

/// See the module. Dropping it gives the call up.
pub(crate) struct Running<T> {
    /// The call's id, for extensions.
    pub(crate) id: String,
    pub(crate) desk: Arc<Desk>,
    work: BoxFuture<'static, T>,
    asks: mpsc::Receiver<Ask>,
    updates: Option<watch::Receiver<Update>>,
    cancel: Box<dyn Fn() + Send>,
    /// How long its caller is likely to wait.
    patience: Option<Patience>,
    /// It asks nothing any more.
    mute: bool,
    _mark: Mark,
}

/// How far a request got with it.
pub(crate) enum Step<T> {
    /// With what it lacked of its client, see [`Desk::lacked`].
    Done(T, Option<QuestionKind>),
    /// It waits for answers that only another request can bring; these are there already.
    Asks(Running<T>, Ask, Answers),
    /// It takes longer than this request was to wait.
    Long(Running<T>),
    /// The client waits no more.
    GivenUp,
}

/// A request is given up by its client, or with everything else of its home.
pub(crate) struct GiveUp {
    request: CancellationToken,
    home: CancellationToken,
}

impl GiveUp {
    pub(crate) fn of(context: &RequestContext<RoleServer>, home: &CancellationToken) -> Self {
        Self {
            request: context.ct.clone(),
            home: home.clone(),
        }
    }

    /// Cancel-safe.
    pub(crate) async fn cancelled(&self) {
        tokio::select! {
            () = self.request.cancelled() => {}
            () = self.home.cancelled() => {}
        }
    }
}

/// What a request brings along.
pub(crate) struct Leg<'a> {
    pub(crate) client: &'a Client,
    pub(crate) give_up: &'a GiveUp,
    /// Answers that came with it.
    pub(crate) answers: &'a mut Answers,
    /// Wait no longer than this.
    pub(crate) patience: Option<Duration>,
}

impl Running<ToolEnd> {
    /// Starts a tool.
    pub(crate) fn tool(
        home: &Home,
        house: &House,
        offers: Offers,
        name: &str,
        arguments: Value,
    ) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        let (asks, mark) = home.desk.questions_of(id.clone(), offers);
        // What it spawns belongs where extensions run.
        let entered = home.site.main.enter();
        let options = CallOptions {
            id: Some(id.clone()),
            patience: Some(CLIENT),
        };
        let mut call = house.session.call_with(options, name, arguments);
        drop(entered);
        let (updates, canceller) = (call.updates(), call.canceller());
        let patience = call.patience();
        Self {
            id,
            desk: home.desk.clone(),
            work: async move { call.outcome().await }.boxed(),
            asks,
            updates: Some(updates),
            cancel: Box::new(move || canceller.cancel()),
            patience: Some(patience),
            mute: false,
            _mark: mark,
        }
    }
}

impl Running<PromptEnd> {
    /// Starts a command. What it says is the prompt's message.
    pub(crate) fn command(
        home: &Home,
        house: &Arc<House>,
        offers: Offers,
        name: &str,
        prompt: &Prompt,
        arguments: String,
    ) -> Self {
        let (number, words) = home.desk.keep_words_of(prompt.extension.clone());
        let (desk, description) = (home.desk.clone(), prompt.description.clone());
        let (house, name) = (house.clone(), name.to_owned());
        Self::spawn(home, offers, move |cause| async move {
            let outcome = house.session.command_for(&cause, &name, &arguments).await;
            let mut text = desk.words(number);
            drop(words);
            if let Err(why) = outcome {
                return Err(ErrorData::internal_error(format!("/{name}: {why}"), None));
            }
            if text.is_empty() {
                text = format!("/{name} was run and said nothing.");
            }
            let message = PromptMessage::new_text(Role::User, text);
            Ok(GetPromptResult::new(vec![message]).with_description(description))
        })
    }

    /// Gets a prompt that an extension publishes.
    pub(crate) fn published(
        home: &Home,
        house: &Arc<House>,
        offers: Offers,
        name: &str,
        arguments: Vec<(String, String)>,
    ) -> Self {
        let (house, name) = (house.clone(), name.to_owned());
        Self::spawn(home, offers, move |cause| async move {
            match house.session.prompt(&cause, &name, arguments).await {
                Ok(conversation) => Ok(conversed(conversation)),
                Err(CallError::Unknown { .. }) => Err(unknown("prompt", &name)),
                Err(why) => Err(ErrorData::internal_error(why.to_string(), None)),
            }
        })
    }

    fn spawn<F: Future<Output = PromptEnd> + Send + 'static>(
        home: &Home,
        offers: Offers,
        work: impl FnOnce(Cause) -> F,
    ) -> Self {
        let id = uuid::Uuid::new_v4().to_string();
        let (asks, mark) = home.desk.questions_of(id.clone(), offers);
        let cancel = CancellationToken::new();
        let cause = Cause {
            id: Some(id.clone()),
            cancel: cancel.clone(),
        };
        let spawned = home.site.main.spawn(work(cause));
        // Whoever drops this gives it up.
        let guard = cancel.clone().drop_guard();
        let work = async move {
            let done = spawned.await;
            drop(guard);
            done.unwrap_or_else(|why| Err(ErrorData::internal_error(why.to_string(), None)))
        };
        Self {
            id,
            desk: home.desk.clone(),
            work: work.boxed(),
            asks,
            updates: None,
            cancel: Box::new(move || cancel.cancel()),
            patience: None,
            mute: false,
            _mark: mark,
        }
    }
}

impl<T> Running<T> {
    /// Sees it through as far as this request can.
    pub(crate) async fn drive(mut self, leg: &mut Leg<'_>) -> Step<T> {
        let client = leg.client;
        self.desk.set_offers(&self.id, client.offers);
        self.set_patience(Some(CLIENT));
        let mut words = Words::of(client, &self.desk, &self.id);
        let late = leg.patience.map(|patience| Instant::now() + patience);
        loop {
            tokio::select! {
                biased;
                () = leg.give_up.cancelled() => {
                    self.stop().await;
                    return Step::GivenUp;
                }
                ask = self.asks.recv(), if !self.mute => match ask {
                    None => self.mute = true,
                    Some(ask) if !ask.questions.possible(client.offers) => drop(ask.reply.send(None)),
                    Some(ask) if client.modern => {
                        let given = ask.questions.fitting(std::mem::take(leg.answers));
                        if given.len() < ask.questions.requests(true).len() {
                            return Step::Asks(self, ask, given);
                        }
                        drop(ask.reply.send(Some(given)));
                    }
                    Some(ask) => {
                        let asking = asking::inline(&client.peer, ask, client.titled);
                        tokio::select! {
                            biased;
                            // Taken back with its call.
                            () = leg.give_up.cancelled() => {}
                            () = asking => {}
                        }
                    }
                },
                done = &mut self.work => {
                    words.rest(self.updates.as_mut()).await;
                    return Step::Done(done, self.desk.lacked(&self.id));
                }
                () = words.speak(self.updates.as_mut()) => {}
                () = at(late) => return Step::Long(self),
            }
        }
    }

    /// From now on whoever called is likely to wait this long; `None`: as long as it takes.
    pub(crate) fn set_patience(&self, patience: Option<Duration>) {
        if let Some(all) = &self.patience {
            all.set(patience);
        }
    }

    /// Gives it up. Its end is waited for, so that the place it has counts until it is free.
    pub(crate) async fn stop(&mut self) {
        (self.cancel)();
        let _ = timeout(GRACE, &mut self.work).await;
    }

    /// The next question, update or end, for one that no request waits for.
    pub(crate) async fn next(&mut self) -> Event<T> {
        tokio::select! {
            biased;
            Some(ask) = self.asks.recv(), if !self.mute => Event::Ask(ask),
            done = &mut self.work => Event::Done(done),
            caption = changed(self.updates.as_mut()) => Event::Caption(caption),
        }
    }
}

fn conversed(conversation: Conversation) -> GetPromptResult {
    let messages = conversation.messages.iter().map(|message| {
        let role = match message.speaker {
            Speaker::User => Role::User,
            Speaker::Assistant => Role::Assistant,
        };
        PromptMessage::new(role, block(&message.content))
    });
    let result = GetPromptResult::new(messages.collect());
    match conversation.description {
        Some(description) => result.with_description(description),
        None => result,
    }
}

/// See [`Running::next`].
pub(crate) enum Event<T> {
    Ask(Ask),
    Caption(String),
    Done(T),
}

async fn changed(updates: Option<&mut watch::Receiver<Update>>) -> String {
    let Some(updates) = updates else {
        return std::future::pending().await;
    };
    loop {
        if updates.changed().await.is_err() {
            return std::future::pending().await;
        }
        if let Some(caption) = caption(&updates.borrow_and_update()) {
            return caption;
        }
    }
}

async fn at(late: Option<Instant>) {
    match late {
        Some(late) => tokio::time::sleep_until(late).await,
        None => std::future::pending().await,
    }
}

/// What one request hears while its call runs: progress, always rising and seldom enough, and of a newer client log messages, which
/// become progress where it wants none.
struct Words<'a> {
    client: &'a Client,
    hearing: Option<Hearing>,
    last: Option<f64>,
    news: bool,
    /// Notices that may be sent now, and since when there are so many.
    credit: u32,
    since: Instant,
    pause: Pin<Box<Sleep>>,
}

impl<'a> Words<'a> {
    fn of(client: &'a Client, desk: &Arc<Desk>, call: &str) -> Self {
        let level = client
            .log
            .or(client.progress.is_some().then_some(LoggingLevel::Info));
        let interest = Interest {
            level: level.filter(|_| client.modern),
            call: Some(call.to_owned()),
            ..Interest::default()
        };
        Self {
            client,
            hearing: interest.level.and_then(|_| desk.hear(interest)),
            last: None,
            news: false,
            credit: BURST,
            since: Instant::now(),
            pause: Box::pin(tokio::time::sleep_until(Instant::now())),
        }
    }

    /// Waits until there is something to say, and says it.
    async fn speak(&mut self, updates: Option<&mut watch::Receiver<Update>>) {
        let heard = async {
            match &self.hearing {
                Some(hearing) => hearing.ear.next().await,
                None => std::future::pending().await,
            }
        };
        let token = self.client.progress.clone();
        match (updates, token) {
            (Some(updates), Some(token)) => tokio::select! {
                news = heard => self.log(news).await,
                () = rung(updates, &mut self.news, self.pause.as_mut()) => {
                    let params = params(token, &mut self.last, &updates.borrow_and_update());
                    self.news = false;
                    self.pay();
                    let _ = self.client.peer.notify_progress(params).await;
                }
            },
            _ => {
                let news = heard.await;
                self.log(news).await;
            }
        }
    }

    /// One notice is sent: says when the next one may be.
    fn pay(&mut self) {
        let now = Instant::now();
        let earned = now.duration_since(self.since).as_millis() / PAUSE.as_millis();
        if earned > 0 {
            let earned = u32::try_from(earned).unwrap_or(BURST);
            self.credit = self.credit.saturating_add(earned).min(BURST);
            self.since = now;
        }
        self.credit = self.credit.saturating_sub(1);
        let next = if self.credit > 0 { now } else { now + PAUSE };
        self.pause.as_mut().reset(next);
    }

    /// What is still to be said.
    async fn rest(&mut self, updates: Option<&mut watch::Receiver<Update>>) {
        if let (Some(updates), Some(token)) = (updates, self.client.progress.clone())
            && (self.news || updates.has_changed().unwrap_or(false))
        {
            let params = params(token, &mut self.last, &updates.borrow_and_update());
            let _ = self.client.peer.notify_progress(params).await;
        }
        while let Some(news) = self.hearing.as_ref().and_then(|hearing| hearing.ear.now()) {
            self.log(news).await;
        }
    }

    async fn log(&mut self, news: News) {
        let News::Log(log) = news else { return };
        if self.client.log.is_some() {
            let _ = self.client.peer.notify_logging_message(message(log)).await;
        } else if let Some(token) = self.client.progress.clone() {
            let next = rising(&mut self.last, None);
            let params = ProgressNotificationParam::new(token, next).with_message(log.text);
            let _ = self.client.peer.notify_progress(params).await;
        }
    }
}

/// A log message as the protocol has it.
pub(crate) fn message(log: Log) -> LoggingMessageNotificationParam {
    LoggingMessageNotificationParam::new(log.level, Value::String(log.text)).with_logger(log.from)
}

/// Waits for news that may be told now. Cancel-safe.
async fn rung(updates: &mut watch::Receiver<Update>, news: &mut bool, mut pause: Pin<&mut Sleep>) {
    if !*news && updates.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    *news = true;
    pause.as_mut().await;
}

/// A number above the last one, whatever an extension reports.
fn rising(last: &mut Option<f64>, done: Option<f64>) -> f64 {
    let next = match (*last, done.filter(|done| done.is_finite())) {
        (None, done) => done.unwrap_or(0.0),
        (Some(last), Some(done)) if done > last => done,
        // A step that changes the number, however large it is.
        (Some(last), _) => (last + 0.001).max(last.next_up()),
    };
    *last = Some(next);
    next
}

fn params(
    token: ProgressToken,
    last: &mut Option<f64>,
    update: &Update,
) -> ProgressNotificationParam {
    let told = update.progress.as_ref();
    let next = rising(last, told.map(|told| told.done));
    let mut params = ProgressNotificationParam::new(token, next);
    params.total = told
        .and_then(|told| told.total)
        .filter(|total| *total >= next);
    params.message = caption(update);
    params
}

/// What is going on, in one line.
fn caption(update: &Update) -> Option<String> {
    let told = update.progress.as_ref().map(|told| told.caption.clone());
    let told = told.filter(|caption| !caption.is_empty());
    let told = told.or_else(|| last_line(&update.content))?;
    Some(visible(&told))
}

fn last_line(content: &[Content]) -> Option<String> {
    let text = content.iter().rev().find_map(Content::as_text)?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    Some(line.trim().chars().take(CAPTION).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use rmcp::model::NumberOrString;

    #[test]
    fn progress_rises_whatever_a_tool_reports() {
        let mut last = None;
        let mut before = f64::NEG_INFINITY;
        let token = || ProgressToken(NumberOrString::Number(1));
        for done in [5.0, 5.0, 3.0, f64::NAN, 1e300, 1e300, 2.0] {
            let update = Update {
                progress: Some(pi_vers_host::Progress {
                    done,
                    total: Some(10.0),
                    caption: String::new(),
                }),
                ..Update::default()
            };
            let params = params(token(), &mut last, &update);
            let now = params.progress;
            assert!(now > before, "{now} after {before}");
            assert_eq!(params.total.is_some(), now <= 10.0);
            before = now;
        }
        let update = Update {
            content: vec![Content::text("one\ntwo\n\n")],
            ..Update::default()
        };
        assert_eq!(params(token(), &mut None, &update).message.unwrap(), "two");
    }
}
