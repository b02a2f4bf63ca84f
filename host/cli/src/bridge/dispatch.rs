//! What the shim asks: each in a task of its own, but events, which one task handles in their order.
//!
//! Reading goes on whatever happens to a request, since what it waits for may be the next line. So nothing here waits; what
//! would be too much is refused.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared};
use pi_vers_host::{CallError, Cause, Harness as _, Session, Severity};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::events::{self, Told};
use super::frames::{self, Incoming, Outgoing};
use super::harness::{Shim, UnderWay};
use super::stage::Stage;
use super::values;
use crate::failure::Failure;
use crate::wire::{LONGEST, Outbox, Room};

/// Requests of the shim under way.
const MOST: usize = 1024;
/// Bytes of all of them.
const BYTES: usize = 128 << 20;
/// Events that wait for their turn.
const EVENTS: usize = 1024;
/// A call is not shown more often than this: nobody sees more.
const PAUSE: Duration = Duration::from_millis(30);

/// The session, once it is open; or why there is none.
type Opening = Shared<BoxFuture<'static, Result<Session, Arc<Failure>>>>;

/// Why a request has no result: a code of the protocol and a sentence.
type Refusal = (&'static str, String);

/// See the module.
pub(crate) struct Dispatch {
    shim: Arc<Shim>,
    answers: Answers,
    stage: Arc<tokio::sync::Mutex<Stage>>,
    opening: Opening,
    started: bool,
    under_way: Arc<Mutex<HashMap<u64, CancellationToken>>>,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    events: mpsc::Sender<Queued>,
}

/// A place of one request among those under way.
struct Place {
    id: Option<u64>,
    cancel: CancellationToken,
    under_way: Arc<Mutex<HashMap<u64, CancellationToken>>>,
    _room: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            let mut all = self
                .under_way
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            all.remove(&id);
        }
    }
}

struct Queued {
    place: Place,
    told: Told,
    opening: Opening,
}

impl Dispatch {
    pub(crate) fn new(
        shim: Arc<Shim>,
        outbox: Arc<Outbox>,
        stage: Stage,
        session: Session,
    ) -> Self {
        let (events, queue) = mpsc::channel(EVENTS);
        let answers = Answers(outbox);
        let tasks = TaskTracker::new();
        tasks.spawn(handle(queue, shim.clone(), answers.clone()));
        Self {
            shim,
            answers,
            stage: Arc::new(tokio::sync::Mutex::new(stage)),
            opening: std::future::ready(Ok(session)).boxed().shared(),
            started: false,
            under_way: Arc::default(),
            room: Arc::new(Semaphore::new(BYTES)),
            tasks,
            events,
        }
    }

    /// Takes a frame that came as a line of so many bytes. `false`: the session is to end.
    pub(crate) fn take(&mut self, frame: Incoming, bytes: usize) -> bool {
        let Some(frame) = self.shim.requests.take(frame) else {
            return true;
        };
        match frame {
            Incoming::Context(context) => self.shim.set_context(*context),
            Incoming::Start(start) => self.start(&start, bytes),
            Incoming::Call(call) => self.call(call, bytes),
            Incoming::Command(command) => self.command(command, bytes),
            Incoming::Complete(complete) => self.complete(complete, bytes),
            Incoming::Event(event) => self.event(event, bytes),
            Incoming::Bus(bus) => {
                // Messages go to the session that there is; one that is just being opened has nobody who listens.
                if let Some(Ok(session)) = self.opening.clone().now_or_never() {
                    session.tell(&bus.topic, bus.data);
                }
            }
            Incoming::Cancel(cancel) => {
                let all = self
                    .under_way
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                if let Some(cancel) = all.get(&cancel.id) {
                    cancel.cancel();
                }
            }
            Incoming::Misfit { id, why } => {
                tracing::warn!("{why}");
                if let Some(id) = id {
                    self.answers.refuse(id, "invalid", &why);
                }
            }
            Incoming::Hello(_) => tracing::warn!("a second `hello` is passed over"),
            // Answers were taken before.
            Incoming::Result(_) | Incoming::Error(_) | Incoming::Update(_) | Incoming::Unknown => {}
            Incoming::Shutdown => return false,
        }
        true
    }

    /// A place for a request; one that has none is refused.
    fn place(&self, id: Option<u64>, bytes: usize) -> Option<Place> {
        let cancel = CancellationToken::new();
        let mut all = self
            .under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = id
            && all.contains_key(&id)
        {
            // Which of the two an answer is for could not be told.
            tracing::warn!(id, "a request whose id is in use is passed over");
            return None;
        }
        let count = u32::try_from(bytes.max(1)).unwrap_or(u32::MAX);
        let room = self.room.clone().try_acquire_many_owned(count).ok();
        let (Some(room), true) = (room, all.len() < MOST) else {
            drop(all);
            match id {
                Some(id) => self
                    .answers
                    .refuse(id, "limit", "too many requests are under way"),
                None => tracing::warn!("an event is dropped: too much is under way"),
            }
            return None;
        };
        if let Some(id) = id {
            all.insert(id, cancel.clone());
        }
        Some(Place {
            id,
            cancel,
            under_way: self.under_way.clone(),
            _room: room,
        })
    }

    fn start(&mut self, start: &frames::Start, bytes: usize) {
        let Some(place) = self.place(Some(start.id), bytes) else {
            return;
        };
        let (id, reason) = (start.id, start.reason);
        let (stage, shim) = (self.stage.clone(), self.shim.clone());
        let (old, again) = (self.opening.clone(), self.started);
        self.started = true;
        // From here on requests are for the new session, and wait until it is open.
        self.opening = async move {
            let mut stage = stage.lock().await;
            let session = if !again && !stage.is_outdated(&shim) {
                old.await?
            } else {
                if let Ok(old) = old.await {
                    old.end().await;
                }
                stage.update(&shim).await.map_err(Arc::new)?;
                stage.open(&shim).map_err(Arc::new)?
            };
            // A call may be quicker than the start.
            session.set_reason(reason);
            Ok(session)
        }
        .boxed()
        .shared();
        let (opening, answers, shim) = (
            self.opening.clone(),
            self.answers.clone(),
            self.shim.clone(),
        );
        self.tasks.spawn(async move {
            let started = async {
                let session = opening.await.map_err(|why| refusal_of(&why))?;
                if let Err(why) = session.start(reason).await {
                    // The others have started; a call of this one says it again.
                    let line = Failure::from(why).line();
                    shim.notify("pi-vers", &line, Severity::Warning);
                }
                Ok(Value::Null)
            };
            let answer = tokio::select! {
                biased;
                // Nobody waits for it any more; calls still find the session that is opened.
                () = place.cancel.cancelled() => Err(cancelled()),
                answer = started => answer,
            };
            answers.give(id, answer, place).await;
        });
    }

    fn call(&self, call: frames::Call, bytes: usize) {
        let Some(place) = self.place(Some(call.id), bytes) else {
            return;
        };
        let (opening, answers) = (self.opening.clone(), self.answers.clone());
        let mark = self.shim.working_on(call.call_id.clone(), call.id);
        self.tasks.spawn(async move {
            let answer = match open(opening, &place.cancel).await {
                Ok(session) => {
                    let call_id = call.call_id;
                    let running = session.call_with_id(&call_id, &call.tool, call.arguments);
                    see_through(running, call.id, &answers, &place.cancel).await
                }
                Err(why) => Err(why),
            };
            drop(mark);
            answers.give(call.id, answer, place).await;
        });
    }

    fn command(&self, command: frames::Command, bytes: usize) {
        let Some(place) = self.place(Some(command.id), bytes) else {
            return;
        };
        let (opening, answers) = (self.opening.clone(), self.answers.clone());
        let (cause, mark) = work_on(&self.shim, &place, command.id);
        self.tasks.spawn(async move {
            let answer = match open(opening, &place.cancel).await {
                Ok(session) => {
                    let run = session.command_for(&cause, &command.name, &command.arguments);
                    run.await.map(|()| Value::Null).map_err(refusal)
                }
                Err(why) => Err(why),
            };
            drop(mark);
            answers.give(command.id, answer, place).await;
        });
    }

    fn complete(&self, complete: frames::Complete, bytes: usize) {
        let Some(place) = self.place(Some(complete.id), bytes) else {
            return;
        };
        let (opening, answers) = (self.opening.clone(), self.answers.clone());
        let cause = cause(&place, complete.id);
        self.tasks.spawn(async move {
            let answer = match open(opening, &place.cancel).await {
                Ok(session) => {
                    let found = session.complete_for(&cause, &complete.name, &complete.prefix);
                    found.await.map(|found| json!(found)).map_err(refusal)
                }
                Err(why) => Err(why),
            };
            answers.give(complete.id, answer, place).await;
        });
    }

    fn event(&self, event: frames::Event, bytes: usize) {
        let told = match events::read(&event.name, event.data) {
            Ok(told) => told,
            Err(why) => {
                tracing::warn!("{why}");
                if let Some(id) = event.id {
                    self.answers.refuse(id, "invalid", &why);
                }
                return;
            }
        };
        let Some(place) = self.place(event.id, bytes) else {
            return;
        };
        let queued = Queued {
            place,
            told,
            opening: self.opening.clone(),
        };
        if self.events.try_send(queued).is_err() {
            match event.id {
                Some(id) => self
                    .answers
                    .refuse(id, "limit", "too many events wait for their turn"),
                None => tracing::warn!(event = event.name, "dropped: too many events wait"),
            }
        }
    }

    /// Ends the session, and answers what was under way.
    pub(crate) async fn end(self) {
        drop(self.events);
        if let Ok(session) = self.opening.await {
            session.end().await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn open(opening: Opening, cancel: &CancellationToken) -> Result<Session, Refusal> {
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(cancelled()),
        opened = opening => opened.map_err(|why| refusal_of(&why)),
    }
}

fn cancelled() -> Refusal {
    ("cancelled", "it was cancelled".to_owned())
}

/// A name that no id of a call has: those are the harness's.
fn name_of(id: u64) -> String {
    format!("\u{0}{id}")
}

fn cause(place: &Place, id: u64) -> Cause {
    Cause {
        id: Some(name_of(id)),
        cancel: place.cancel.clone(),
    }
}

/// The same, and from now on requests of the host for it are made for the shim's `id`, until the second value is dropped.
fn work_on(shim: &Arc<Shim>, place: &Place, id: u64) -> (Cause, UnderWay) {
    (cause(place, id), shim.working_on(name_of(id), id))
}

/// Shows what a call shows, and waits for what comes of it.
async fn see_through(
    mut call: pi_vers_host::Call,
    id: u64,
    answers: &Answers,
    cancel: &CancellationToken,
) -> Result<Value, Refusal> {
    let (mut updates, canceller) = (call.updates(), call.canceller());
    let (mut live, mut news, mut told) = (true, false, false);
    let mut pause = Box::pin(tokio::time::sleep_until(Instant::now()));
    loop {
        tokio::select! {
            biased;
            outcome = call.outcome() => {
                return match outcome {
                    Ok(output) => Ok(values::tool_result(&output, false)),
                    Err(CallError::Failed(output)) => Ok(values::tool_result(&output, true)),
                    Err(why) => Err(refusal(why)),
                };
            }
            () = cancel.cancelled(), if !told => {
                told = true;
                canceller.cancel();
            }
            changed = updates.changed(), if live && !news => match changed {
                Ok(()) => news = true,
                Err(_) => live = false,
            },
            // Looked at only when it can be written: so the newest is.
            room = until_room(pause.as_mut(), &answers.0), if news => {
                news = false;
                if let Some(room) = room {
                    let update = updates.borrow_and_update().clone();
                    let line = Outgoing::Update {
                        id,
                        content: values::content(&update.content),
                        details: update.details.as_ref(),
                        progress: update.progress.as_ref().map(values::progress),
                    }
                    .line();
                    if line.len() <= LONGEST {
                        answers.0.put(room, line);
                    }
                }
                pause.as_mut().reset(Instant::now() + PAUSE);
            }
        }
    }
}

async fn until_room(pause: Pin<&mut tokio::time::Sleep>, outbox: &Outbox) -> Option<Room> {
    pause.await;
    outbox.room(0).await
}

/// Handles events one after another.
async fn handle(mut queue: mpsc::Receiver<Queued>, shim: Arc<Shim>, answers: Answers) {
    while let Some(Queued {
        place,
        told,
        opening,
    }) = queue.recv().await
    {
        let answer = match open(opening, &place.cancel).await {
            Ok(session) => {
                let (cause, mark) = match place.id {
                    Some(id) => {
                        let (cause, mark) = work_on(&shim, &place, id);
                        (cause, Some(mark))
                    }
                    None => (Cause::default(), None),
                };
                let reaction = session.event_for(&cause, told.event).await;
                drop(mark);
                if place.cancel.is_cancelled() {
                    Err(cancelled())
                } else {
                    Ok(events::reaction(&reaction, told.is_error))
                }
            }
            Err(why) => Err(why),
        };
        if let Some(id) = place.id {
            answers.give(id, answer, place).await;
        }
    }
}

/// How requests of the shim are answered.
#[derive(Clone)]
struct Answers(Arc<Outbox>);

impl Answers {
    /// Answers; the place is free before the shim can know.
    async fn give(&self, id: u64, answer: Result<Value, Refusal>, place: Place) {
        let error = |code: &str, message: &str| Outgoing::Error { id, code, message }.line();
        let line = match answer {
            Ok(value) => {
                let line = Outgoing::Result { id, value }.line();
                if line.len() <= LONGEST {
                    line
                } else {
                    error("limit", "the result is larger than a line may be")
                }
            }
            Err((code, message)) => error(code, &message),
        };
        let Some(room) = self.0.room(line.len()).await else {
            return;
        };
        drop(place);
        self.0.put(room, line);
    }

    /// Answers what has no place, if there is room for that much.
    fn refuse(&self, id: u64, code: &str, message: &str) {
        let line = Outgoing::Error { id, code, message }.line();
        if !self.0.try_send(line) {
            tracing::warn!(id, "not answered: the harness does not read");
        }
    }
}

fn refusal(why: CallError) -> Refusal {
    let code = match &why {
        CallError::Unknown { .. } => "not-found",
        CallError::Arguments { .. } => "invalid",
        CallError::Refused { kind, .. } => kind.name(),
        CallError::TimedOut { .. } => "timed-out",
        CallError::Cancelled { .. } | CallError::Closed => "cancelled",
        CallError::Crashed { .. } => "trap",
        CallError::Failed(_) | CallError::Contract { .. } => "other",
    };
    (code, Failure::from(why).line())
}

/// Why there is no session.
fn refusal_of(why: &Failure) -> Refusal {
    ("unavailable", why.line())
}
