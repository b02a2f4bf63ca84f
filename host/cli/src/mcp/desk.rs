//! What goes to the client beside answers: questions, news, log messages.
//!
//! An extension speaks when it likes. Who may hear it depends on the era: to an older client that has introduced itself
//! everything is said; a newer one hears what it listens to, and log messages only while a request that wants them runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pi_vers_host::{Answer, Dialog};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};

use super::era::{Leg, Level};
use super::rpc::{self, Id};
use crate::wire::{self, Key, Outbox};

/// Most streams of news at a time.
const MOST_LISTENERS: usize = 64;
/// Most URIs that a client may ask to hear of.
const MOST_URIS: usize = 256;
/// So much is kept of what a command says.
const MOST_SAID: usize = 256 << 10;

/// A question of an extension to whoever called it.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) title: String,
    pub(crate) dialog: Dialog,
    pub(crate) reply: oneshot::Sender<Option<Answer>>,
}

/// What there is news of.
#[derive(Debug)]
pub(crate) enum News<'a> {
    Tools,
    Prompts,
    Resources,
    Resource(&'a str),
}

/// What somebody listens to.
#[derive(Debug, Default)]
struct Listener {
    id: Option<Id>,
    tools: bool,
    prompts: bool,
    resources: bool,
    uris: BTreeSet<String>,
}

#[derive(Debug, Default)]
struct State {
    /// Where questions of a call go, by the call's id.
    asking: HashMap<String, mpsc::Sender<Ask>>,
    /// Requests to the client that wait for an answer.
    waiting: HashMap<String, oneshot::Sender<Result<Value, String>>>,
    listeners: HashMap<u64, Listener>,
    /// The log levels of modern requests under way.
    levels: HashMap<u64, Level>,
    /// An older client hears log messages from here on.
    level: Option<Level>,
    /// What running commands have said, and whose they are.
    said: HashMap<u64, (String, String)>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Desk {
    outbox: Arc<Outbox>,
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

impl Desk {
    pub(crate) fn new(outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self {
            outbox,
            state: Mutex::default(),
            next: AtomicU64::new(1),
            interactive: AtomicBool::new(false),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    pub(crate) fn questions_of(self: &Arc<Self>, call: String) -> (mpsc::Receiver<Ask>, Mark) {
        let (sender, receiver) = mpsc::channel(8);
        self.state().asking.insert(call.clone(), sender);
        let mark = self.mark(move |state| {
            state.asking.remove(&call);
        });
        (receiver, mark)
    }

    /// Asks whoever called; `None` where nobody can be asked.
    pub(crate) async fn ask(&self, call: &str, title: String, dialog: Dialog) -> Option<Answer> {
        let sender = self.state().asking.get(call).cloned()?;
        let (reply, answer) = oneshot::channel();
        let ask = Ask {
            title,
            dialog,
            reply,
        };
        sender.send(ask).await.ok()?;
        answer.await.ok()?
    }

    /// A request to the client. Dropping the future takes it back.
    pub(crate) async fn request(
        self: &Arc<Self>,
        method: &str,
        params: &Value,
    ) -> Result<Value, String> {
        /// Tells the client that nobody waits any more.
        struct Waiting<'a>(&'a Desk, String);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                if self.0.state().waiting.remove(&self.1).is_some() {
                    let params = json!({ "requestId": self.1 });
                    self.0.notify("notifications/cancelled", params, Key::Alone);
                }
            }
        }
        let id = format!("pi-vers-{}", self.number());
        let (reply, answer) = oneshot::channel();
        self.state().waiting.insert(id.clone(), reply);
        let _waiting = Waiting(self, id.clone());
        let line = wire::line(&rpc::request(&id, method, params));
        self.outbox.send(line).await;
        answer
            .await
            .unwrap_or_else(|_| Err("the client is gone".into()))
    }

    /// The client answers one of our requests.
    pub(crate) fn answered(&self, id: &Id, outcome: Result<Value, String>) {
        let value = id.value();
        let waiting = value
            .as_str()
            .and_then(|id| self.state().waiting.remove(id));
        match waiting {
            // Nobody waits any more: the call was given up.
            Some(waiting) => drop(waiting.send(outcome)),
            None => tracing::debug!("an answer to no request is passed over"),
        }
    }

    pub(crate) fn notify(&self, method: &str, params: Value, key: Key) {
        let line = wire::line(&rpc::notification(method, params));
        self.outbox.notice(key, line);
    }

    /// The older client is ready to hear.
    pub(crate) fn introduced(&self) {
        let mut state = self.state();
        state.level.get_or_insert(Level::Info);
        let all = state.listeners.entry(0).or_default();
        (all.tools, all.prompts, all.resources) = (true, true, true);
    }

    pub(crate) fn set_level(&self, level: Level) {
        self.state().level = Some(level);
    }

    /// While the mark lives this modern request is under way.
    pub(crate) fn under_way(self: &Arc<Self>, leg: &Leg) -> Option<Mark> {
        let level = leg.log?;
        let number = self.number();
        self.state().levels.insert(number, level);
        Some(self.mark(move |state| {
            state.levels.remove(&number);
        }))
    }

    /// An older client wants to hear of this resource, or no more.
    pub(crate) fn subscribe(&self, uri: &str, wanted: bool) -> bool {
        let mut state = self.state();
        let uris = &mut state.listeners.entry(0).or_default().uris;
        if !wanted {
            uris.remove(uri);
            return true;
        }
        uris.len() < MOST_URIS && {
            uris.insert(uri.to_owned());
            true
        }
    }

    /// Opens a stream of news for a newer client; it lives as long as the mark. `None`: there are too many.
    pub(crate) fn listen(self: &Arc<Self>, id: &Id, wanted: &Map<String, Value>) -> Option<Mark> {
        let on = |name: &str| wanted.get(name) == Some(&Value::Bool(true));
        let uris = wanted
            .get("resourceSubscriptions")
            .and_then(Value::as_array);
        let uris = uris.into_iter().flatten().filter_map(Value::as_str);
        let listener = Listener {
            id: Some(id.clone()),
            tools: on("toolsListChanged"),
            prompts: on("promptsListChanged"),
            resources: on("resourcesListChanged"),
            uris: uris.take(MOST_URIS).map(str::to_owned).collect(),
        };
        let mut accepted = Map::new();
        for (name, on) in [
            ("toolsListChanged", listener.tools),
            ("promptsListChanged", listener.prompts),
            ("resourcesListChanged", listener.resources),
        ] {
            if on {
                accepted.insert(name.into(), true.into());
            }
        }
        if !listener.uris.is_empty() {
            accepted.insert("resourceSubscriptions".into(), json!(listener.uris));
        }
        let number = self.number();
        {
            let mut state = self.state();
            if state.listeners.len() >= MOST_LISTENERS {
                return None;
            }
            state.listeners.insert(number, listener);
        }
        self.notify(
            "notifications/subscriptions/acknowledged",
            json!({ "_meta": subscription(id), "notifications": accepted }),
            Key::Alone,
        );
        Some(self.mark(move |state| {
            state.listeners.remove(&number);
        }))
    }

    /// Tells whoever listens.
    pub(crate) fn news(&self, news: &News<'_>) {
        let method = match news {
            News::Tools => "notifications/tools/list_changed",
            News::Prompts => "notifications/prompts/list_changed",
            News::Resources => "notifications/resources/list_changed",
            News::Resource(_) => "notifications/resources/updated",
        };
        let state = self.state();
        for (number, listener) in &state.listeners {
            let mut params = json!({});
            let wanted = match news {
                News::Tools => listener.tools,
                News::Prompts => listener.prompts,
                News::Resources => listener.resources,
                News::Resource(uri) => {
                    params = json!({ "uri": uri });
                    listener.uris.contains(*uri)
                }
            };
            if !wanted {
                continue;
            }
            let key = Key::Of(format!("{number} {method} {params}"));
            if let (Some(id), Some(params)) = (&listener.id, params.as_object_mut()) {
                params.insert("_meta".into(), subscription(id));
            }
            self.notify(method, params, key);
        }
    }

    /// A log message, for whoever may hear it.
    pub(crate) fn log(&self, from: &str, level: Level, text: &str) {
        let state = self.state();
        let older = state.level.is_some_and(|least| level >= least);
        if older || state.levels.values().any(|least| level >= *least) {
            let params = json!({ "level": level.name(), "logger": from, "data": text });
            self.notify("notifications/message", params, Key::Alone);
        } else {
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

fn subscription(id: &Id) -> Value {
    json!({ "io.modelcontextprotocol/subscriptionId": id.value() })
}
