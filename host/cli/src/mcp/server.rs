//! What the client asks for, and what it is told.
//!
//! What is known without extensions is answered at once, before they are loaded and whatever they do. All else is a task of
//! its own that a cancel reaches.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use serde_json::{Map, Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::desk::{Desk, Mark};
use super::dialog::{self, KEY, Reading};
use super::era::{self, Introduced, Leg, Level, VERSIONS};
use super::front::Board;
use super::house::{House, Opening};
use super::listing::Listing;
use super::parking::{Found, Made, Parking};
use super::rpc::{
    self, Fault, INTERNAL, INVALID_REQUEST, Id, Message, Request, UNKNOWN_METHOD, UNKNOWN_RESOURCE,
};
use super::running::{Outcome, Running, Step, said};
use crate::wire::{self, Outbox};

/// Most requests under way.
const MOST: usize = 256;
/// Most bytes of them.
const BYTES: usize = 96 << 20;
/// Most completions of an answer, as the protocol has it.
const MOST_COMPLETIONS: usize = 100;

const INSTRUCTIONS: &str = "\
Vers VMs: whole Linux machines that can be branched, committed, paused and restored with memory and processes.
vers_vms lists them, vers_vm_create makes one, vers_vm_use makes one active. vers_bash, vers_read, vers_edit and vers_write act on \
the active VM and fail without one; your own tools always act on the local machine. vers_vm_copy copies between the two.
Delete VMs that are no longer needed with vers_vm_delete: it can't be undone. A tool that says it is still waiting is to be called again.";

/// See the module.
pub(crate) struct Server {
    shared: Arc<Shared>,
    introduced: Option<Introduced>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
}

/// What all requests share.
struct Shared {
    outbox: Arc<Outbox>,
    desk: Arc<Desk>,
    board: Arc<Mutex<Board>>,
    opening: Opening,
    /// What is told until the house stands.
    early: Option<Listing>,
    parking: Arc<Parking>,
    under_way: Mutex<HashMap<Id, CancellationToken>>,
    end: CancellationToken,
}

impl Shared {
    fn under_way(&self) -> MutexGuard<'_, HashMap<Id, CancellationToken>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place among those under way.
struct Place {
    shared: Arc<Shared>,
    id: Id,
    cancel: CancellationToken,
    _room: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.under_way().remove(&self.id);
    }
}

impl Server {
    pub(crate) fn new(
        outbox: Arc<Outbox>,
        desk: Arc<Desk>,
        board: Arc<Mutex<Board>>,
        opening: Opening,
        early: Option<Listing>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                outbox,
                desk,
                board,
                opening,
                early,
                parking: Parking::new(),
                under_way: Mutex::default(),
                end: CancellationToken::new(),
            }),
            introduced: None,
            room: Arc::new(Semaphore::new(BYTES)),
            tasks: TaskTracker::new(),
        }
    }

    /// Takes a line.
    pub(crate) async fn take(&mut self, line: &[u8]) {
        match rpc::read(line) {
            Ok(Message::Request(request)) => self.request(request, line.len()).await,
            Ok(Message::Notification { method, params }) => self.notification(&method, &params),
            Ok(Message::Answer { id, outcome }) => self.shared.desk.answered(&id, outcome),
            Err(misfit) => self.refuse(misfit.0.as_ref(), &misfit.1).await,
        }
    }

    /// A line was too long to be read: nobody knows what it asked for.
    pub(crate) async fn take_too_long(&self) {
        let why = format!(
            "a line may have {} MiB, and this one had more",
            rpc::LONGEST >> 20
        );
        self.refuse(None, &Fault::new(INVALID_REQUEST, why)).await;
    }

    async fn refuse(&self, id: Option<&Id>, why: &Fault) {
        let line = wire::line(&rpc::fault(id, why));
        self.shared.outbox.send(line).await;
    }

    fn notification(&mut self, method: &str, params: &Map<String, Value>) {
        match method {
            "notifications/cancelled" => {
                let id = Id::named(params.get("requestId"));
                let all = self.shared.under_way();
                if let Some(cancel) = id.and_then(|id| all.get(&id)) {
                    cancel.cancel();
                }
            }
            "notifications/initialized" => self.shared.desk.introduced(),
            _ => {}
        }
    }

    async fn request(&mut self, request: Request, bytes: usize) {
        let Request { id, method, params } = request;
        let leg = match Leg::of(&params, self.introduced.as_ref()) {
            Ok(leg) => leg,
            Err(why) => return self.refuse(Some(&id), &why).await,
        };
        if leg.modern {
            self.shared.desk.set_interactive(leg.form);
        }
        if let Some(outcome) = self.at_once(&method, &params, &leg) {
            return answer(&self.shared.outbox, &id, outcome, &leg).await;
        }
        let Some(place) = self.place(&id, bytes) else {
            let why = "too many requests are under way, or one of them has this id";
            return self
                .refuse(Some(&id), &Fault::new(INVALID_REQUEST, why))
                .await;
        };
        self.tasks.spawn(serve(place, method, params, leg));
    }

    fn place(&self, id: &Id, bytes: usize) -> Option<Place> {
        let count = u32::try_from(bytes.max(1)).ok()?;
        let room = self.room.clone().try_acquire_many_owned(count).ok()?;
        let cancel = self.shared.end.child_token();
        let mut all = self.shared.under_way();
        if all.len() >= MOST || all.contains_key(id) {
            return None;
        }
        all.insert(id.clone(), cancel.clone());
        drop(all);
        Some(Place {
            shared: self.shared.clone(),
            id: id.clone(),
            cancel,
            _room: room,
        })
    }

    /// What needs no extension.
    fn at_once(&mut self, method: &str, params: &Map<String, Value>, leg: &Leg) -> Option<Outcome> {
        Some(match (method, leg.modern) {
            ("initialize", false) => Ok(self.introduce(params)),
            ("ping", false) => Ok(json!({})),
            ("server/discover", _) => Ok(json!({
                "supportedVersions": VERSIONS,
                "capabilities": capabilities(),
                "instructions": INSTRUCTIONS,
                "ttlMs": 0,
                "cacheScope": "private",
                "_meta": { "io.modelcontextprotocol/serverInfo": info() },
            })),
            ("logging/setLevel", false) => match params.get("level").and_then(Level::read) {
                Some(level) => {
                    self.shared.desk.set_level(level);
                    Ok(json!({}))
                }
                None => Err(Fault::params("`level` is no level of log messages")),
            },
            ("resources/subscribe" | "resources/unsubscribe", false) => match text(params, "uri") {
                Ok(uri)
                    if self
                        .shared
                        .desk
                        .subscribe(uri, method == "resources/subscribe") =>
                {
                    Ok(json!({}))
                }
                Ok(_) => Err(Fault::params("there are too many subscriptions")),
                Err(why) => Err(why),
            },
            ("resources/templates/list", _) => Ok(json!({ "resourceTemplates": [] })),
            (
                "tools/list"
                | "tools/call"
                | "prompts/list"
                | "prompts/get"
                | "completion/complete"
                | "resources/list"
                | "resources/read",
                _,
            )
            | ("subscriptions/listen", true) => return None,
            _ => Err(Fault::new(
                UNKNOWN_METHOD,
                format!("there is no method {}", pi_vers_host::visible(method)),
            )),
        })
    }

    fn introduce(&mut self, params: &Map<String, Value>) -> Value {
        let wanted = params.get("protocolVersion").and_then(Value::as_str);
        let version = era::negotiate(wanted);
        let introduced = Introduced {
            version: version.to_owned(),
            form: era::shows_forms(params.get("capabilities")),
        };
        self.shared.desk.set_interactive(introduced.form);
        self.introduced = Some(introduced);
        json!({
            "protocolVersion": version,
            "capabilities": capabilities(),
            "serverInfo": info(),
            "instructions": INSTRUCTIONS,
        })
    }

    /// Gives everything up and ends the session. Returns when what was started is gone; the caller has a limit.
    pub(crate) async fn end(self) {
        self.shared.end.cancel();
        self.shared.parking.clear();
        // A house that does not stand yet has started nothing.
        let standing = self.shared.opening.clone().now_or_never();
        if let Some(Ok(house)) = standing {
            house.session.clone().end().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

fn info() -> Value {
    json!({
        "name": "pi-vers",
        "title": "Vers",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Vers VMs and the agents on them",
    })
}

fn capabilities() -> Value {
    json!({
        "tools": { "listChanged": true },
        "prompts": { "listChanged": true },
        "resources": { "subscribe": true, "listChanged": true },
        "completions": {},
        "logging": {},
    })
}

async fn answer(outbox: &Outbox, id: &Id, outcome: Outcome, leg: &Leg) {
    let message = match outcome {
        Ok(mut value) => {
            if let (true, Some(result)) = (leg.modern, value.as_object_mut()) {
                result
                    .entry("resultType")
                    .or_insert_with(|| "complete".into());
            }
            rpc::result(id, value)
        }
        Err(why) => rpc::fault(Some(id), &why),
    };
    outbox.send(wire::line(&message)).await;
}

/// One request, to its end. A request that was cancelled gets no answer.
async fn serve(place: Place, method: String, params: Map<String, Value>, leg: Leg) {
    let shared = place.shared.clone();
    let level: Option<Mark> = shared.desk.under_way(&leg);
    let cancel = place.cancel.clone();
    let outcome = match method.as_str() {
        "tools/call" | "prompts/get" => run(&shared, &method, params, &leg, &cancel).await,
        _ => tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            outcome = look(&shared, &method, &params, &leg, &place.id) => outcome,
        },
    };
    drop(level);
    let id = place.id.clone();
    // The place is free before the client can know.
    drop(place);
    if let Some(outcome) = outcome {
        answer(&shared.outbox, &id, outcome, &leg).await;
    }
}

fn text<'a>(params: &'a Map<String, Value>, name: &str) -> Result<&'a str, Fault> {
    let found = params.get(name).and_then(Value::as_str);
    found.ok_or_else(|| Fault::params(format!("`{name}` is missing or no text")))
}

/// Waits for the house.
async fn house(shared: &Shared) -> Result<Arc<House>, Fault> {
    let opened = shared.opening.clone().await;
    opened.map_err(|why| Fault::new(INTERNAL, why.line()))
}

/// What is offered: as it is, or as it was when the same was loaded before.
async fn listing(shared: &Shared) -> Result<Listing, Fault> {
    let standing = shared.opening.clone().now_or_never();
    match (standing, &shared.early) {
        (None, Some(early)) => Ok(early.clone()),
        _ => Ok(Listing::of(&house(shared).await?.catalogue)),
    }
}

/// Requests that run nothing but completions.
async fn look(
    shared: &Arc<Shared>,
    method: &str,
    params: &Map<String, Value>,
    _leg: &Leg,
    id: &Id,
) -> Option<Outcome> {
    if method == "subscriptions/listen" {
        let none = Map::new();
        let wanted = params.get("notifications").and_then(Value::as_object);
        let Some(_listening) = shared.desk.listen(id, wanted.unwrap_or(&none)) else {
            return Some(Err(Fault::params("there are too many subscriptions")));
        };
        return std::future::pending().await;
    }
    Some(read(shared, method, params).await)
}

async fn read(shared: &Shared, method: &str, params: &Map<String, Value>) -> Outcome {
    // What changes at any time is not to be kept.
    let fresh = |name: &str, value: Value| {
        let mut result = json!({ "ttlMs": 0, "cacheScope": "private" });
        if let Some(result) = result.as_object_mut() {
            result.insert(name.to_owned(), value);
        }
        result
    };
    match method {
        "tools/list" => Ok(fresh("tools", listing(shared).await?.tools.into())),
        "prompts/list" => Ok(fresh("prompts", listing(shared).await?.prompts.into())),
        "resources/list" => Ok(fresh("resources", shared.board().list().into())),
        "resources/read" => {
            let uri = text(params, "uri")?;
            let Some(text) = shared.board().read(uri) else {
                let modern = params.get("_meta").is_some_and(|meta| {
                    meta.get("io.modelcontextprotocol/protocolVersion")
                        .is_some()
                });
                let code = if modern {
                    rpc::INVALID_PARAMS
                } else {
                    UNKNOWN_RESOURCE
                };
                return Err(
                    Fault::new(code, "there is no such resource").with(json!({ "uri": uri }))
                );
            };
            let contents = json!([{ "uri": uri, "mimeType": "text/plain", "text": text }]);
            Ok(fresh("contents", contents))
        }
        _ => complete(&*house(shared).await?, params).await,
    }
}

async fn complete(house: &House, params: &Map<String, Value>) -> Outcome {
    let of = params.get("ref").and_then(Value::as_object);
    let of = of.ok_or_else(|| Fault::params("`ref` is missing"))?;
    let argument = params.get("argument").and_then(Value::as_object);
    let argument = argument.ok_or_else(|| Fault::params("`argument` is missing"))?;
    let mut found = Vec::new();
    if of.get("type").and_then(Value::as_str) == Some("ref/prompt") {
        let name = text(of, "name")?;
        if !house.catalogue.prompts.contains_key(name) {
            return Err(Fault::params("there is no such prompt"));
        }
        let completed = house.session.complete(name, text(argument, "value")?).await;
        let completed = completed.map_err(|why| Fault::new(INTERNAL, why.to_string()))?;
        found.extend(completed.into_iter().map(|one| one.value));
    }
    let total = found.len();
    found.truncate(MOST_COMPLETIONS);
    let more = total > found.len();
    Ok(json!({ "completion": { "values": found, "total": total, "hasMore": more } }))
}

/// Runs a tool or a command, or goes on with one that was handed back.
async fn run(
    shared: &Arc<Shared>,
    method: &str,
    mut params: Map<String, Value>,
    leg: &Leg,
    cancel: &CancellationToken,
) -> Option<Outcome> {
    let is_tool = method == "tools/call";
    let name = match text(&params, "name") {
        Ok(name) => name.to_owned(),
        Err(why) => return Some(Err(why)),
    };
    let arguments = match params.remove("arguments") {
        None | Some(Value::Null) => json!({}),
        Some(arguments @ Value::Object(_)) => arguments,
        Some(_) => return Some(Err(Fault::params("`arguments` is no object"))),
    };
    let made = Made {
        method: if is_tool { "tools/call" } else { "prompts/get" },
        name,
        arguments,
    };
    let running = match params.get("requestState") {
        Some(ticket) => resume(shared, ticket, &params, &made),
        None => tokio::select! {
            biased;
            () = cancel.cancelled() => return None,
            started = start(shared, &made) => started,
        },
    };
    let mut running = match running {
        Ok(Begun::Running(running)) => running,
        Ok(Begun::Answer(value)) => return Some(Ok(value)),
        Err(why) => return Some(Err(why)),
    };
    loop {
        match running.drive(leg, &shared.desk, cancel).await? {
            Step::Done(outcome) => return Some(outcome),
            Step::Asks(waiting, ask) => match hand_back(shared, waiting, ask, made.clone()) {
                Ok(value) => return Some(Ok(value)),
                Err(without) => running = without,
            },
        }
    }
}

enum Begun {
    Running(Running),
    /// There is nothing to wait for.
    Answer(Value),
}

async fn start(shared: &Arc<Shared>, made: &Made) -> Result<Begun, Fault> {
    let name = &made.name;
    let house = match house(shared).await {
        Ok(house) => house,
        // The model shall see why.
        Err(why) if made.method == "tools/call" => return Ok(Begun::Answer(said(&why.message))),
        Err(why) => return Err(why),
    };
    let unknown = |what: &str| {
        let name: String = pi_vers_host::visible(name).chars().take(80).collect();
        Fault::params(format!("Unknown {what}: {name}"))
    };
    if made.method == "tools/call" {
        let entry = house.catalogue.tools.get(name);
        let entry = entry.ok_or_else(|| unknown("tool"))?;
        let arguments = made.arguments.clone();
        return Ok(Begun::Running(Running::tool(
            &house,
            &shared.desk,
            entry,
            arguments,
        )));
    }
    let prompt = house.catalogue.prompts.get(name);
    let prompt = prompt.ok_or_else(|| unknown("prompt"))?;
    let arguments = made.arguments.get("arguments").and_then(Value::as_str);
    let arguments = arguments.unwrap_or_default().to_owned();
    Ok(Begun::Running(Running::command(
        &house,
        &shared.desk,
        name,
        prompt,
        arguments,
    )))
}

/// Hands a call back to the client that has to bring an answer; where there is no room for it, nobody answers.
fn hand_back(
    shared: &Shared,
    running: Running,
    ask: super::desk::Ask,
    made: Made,
) -> Result<Value, Running> {
    let form = dialog::form(&ask.title, &ask.dialog, true);
    match shared.parking.park(running, ask, made) {
        Ok(ticket) => Ok(json!({
            "resultType": "input_required",
            "inputRequests": { KEY: { "method": "elicitation/create", "params": form } },
            "requestState": ticket,
        })),
        Err(full) => {
            let (running, ask) = *full;
            tracing::warn!("too many calls wait for an answer: this one gets none");
            let _ = ask.reply.send(None);
            Err(running)
        }
    }
}

fn resume(
    shared: &Shared,
    ticket: &Value,
    params: &Map<String, Value>,
    made: &Made,
) -> Result<Begun, Fault> {
    let ticket = ticket
        .as_str()
        .ok_or_else(|| Fault::params("`requestState` is no text"))?;
    let (running, ask) = match shared.parking.take(ticket, made)? {
        Found::Call(running, ask) => (running, ask),
        Found::Gone => {
            let text = "This call waits no more: its question was answered before, or nobody answered in time. Call it again from the beginning.";
            return match made.method {
                "tools/call" => Ok(Begun::Answer(said(text))),
                _ => Err(Fault::params(text)),
            };
        }
    };
    // The extension did not wait so long.
    if ask.reply.is_closed() {
        return Ok(Begun::Running(running));
    }
    let response = params.get("inputResponses").and_then(|all| all.get(KEY));
    let reading = response.map_or(Reading::Misfit, |result| dialog::read(&ask.dialog, result));
    let reply = match reading {
        Reading::Answer(answer) => Some(answer),
        Reading::Dismissed => None,
        // Asked again.
        Reading::Misfit => {
            return match hand_back(shared, running, ask, made.clone()) {
                Ok(value) => Ok(Begun::Answer(value)),
                Err(running) => Ok(Begun::Running(running)),
            };
        }
    };
    let _ = ask.reply.send(reply);
    Ok(Begun::Running(running))
}
