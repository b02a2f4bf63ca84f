//! A tool or a command that runs, and one request of a client that waits for it.
//!
//! The two are not the same: a call that asks something is handed back to a newer client and goes on under its
//! next request. So progress, log level and cancelling belong to the request, and the call belongs to nobody in between.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use pi_vers_host::{
    CallError, CallOptions, Cause, Conversation, Patience, QuestionKind, Speaker, ToolOutput,
    Update,
};
use rmcp::model::{GetPromptResult, PromptMessage, Role};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::asking;
use super::catalogue::Prompt;
use super::client::{Client, Offers};
use super::content::{block, unknown};
use super::desk::{Ask, Desk, Mark};
use super::home::{Home, House};
use super::question::Answers;
use super::words::{Words, caption};

/// How long a call that was given up is waited for.
const GRACE: Duration = Duration::from_secs(5);
/// The shortest time after which a client may give a call up (60 s), with room to spare. Progress buys no time.
const CLIENT: Duration = Duration::from_secs(45);

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
        let options = CallOptions {
            id: Some(id.clone()),
            patience: Some(CLIENT),
        };
        let main = home.site.main.clone();
        let mut call = house.session.call_from(main, options, name, arguments);
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
