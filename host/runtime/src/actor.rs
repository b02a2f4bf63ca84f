//! One instance at work: a task that owns the store, serves a queue of orders, and ends with a reason.
//!
//! wasmtime gives an instance to whoever holds its store, and component tasks of one instance run
//! side by side only inside one `run_concurrent`. So the store belongs to one task for good; all
//! others send orders and wait for replies. Orders run side by side, events one after another in the
//! order they came. A trap ends the instance: every open order then fails with the reason the task
//! left behind, and whoever holds the extension may start another actor.

mod publications;
mod turn;

use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use wasmtime::Store;
use wasmtime::component::{
    Accessor, AccessorTask, ComponentNamedList, Lift, Lower, Resource, TypedFunc,
};

use crate::bindings::exports::vers::harness as exports;
use crate::bindings::vers::harness::types as wit;
use crate::capability::call::ToolCall;
use crate::engine::{Engine, Overdue, Pulse, Ticker, watch};
use crate::extension::Extension;
use crate::guest::Guest;
use crate::owner::Owner;
use crate::tape::Voice;
use publications::Publications;
pub(crate) use publications::{Found, Wanted};
use turn::Turn;

/// Bytes of strings and lists that one host call may make the host hold: wasmtime's budget.
const HOSTCALL_BYTES: usize = 64 << 20;

/// Orders that wait for an actor that is busy.
const QUEUE: usize = 256;

/// What an instance is asked to do.
pub(crate) enum Job {
    Tool(ToolCall),
    Command {
        name: String,
        arguments: String,
    },
    Complete {
        name: String,
        prefix: String,
    },
    Event(exports::events::Event),
    Publication(Wanted),
    Start(exports::lifecycle::Reason),
    Stop,
    /// A sign of life of its loop; the guest is not asked.
    Poke,
}

/// What it answered.
pub(crate) enum Reply {
    Tool(Result<wit::ToolResult, wit::ToolError>),
    Done(Result<(), wit::Error>),
    Completions(Vec<exports::commands::Completion>),
    Answer(exports::events::Answer),
    Publication(Found),
}

/// The component has no such export.
#[derive(Debug)]
pub(crate) struct NotExported(pub(crate) &'static str);

type Answer = oneshot::Sender<Result<Reply, NotExported>>;

struct Order {
    owner: Arc<Owner>,
    job: Job,
    answer: Answer,
}

/// A running instance. Dropping it drops the store and everything the guest held.
pub(crate) struct Actor {
    orders: mpsc::Sender<Order>,
    turn: Arc<Turn>,
    kill: CancellationToken,
    killed_for: Arc<OnceLock<String>>,
    crashed: Arc<OnceLock<String>>,
    /// Fires when the store is gone and the reason written down.
    over: CancellationToken,
    urgency: Urgency,
    pulse: Arc<Pulse>,
    memory: Arc<AtomicU64>,
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.kill.cancel();
    }
}

impl Actor {
    /// Starts a task for a new instance; the instance itself is made in it.
    pub(crate) fn start(engine: &Engine, extension: &Extension, guest: Guest) -> Self {
        let (orders, queue) = mpsc::channel(QUEUE);
        let kill = CancellationToken::new();
        let (killed_for, crashed) = (
            Arc::new(OnceLock::<String>::new()),
            Arc::new(OnceLock::new()),
        );
        let (pulse, overdue, memory) = (
            Arc::new(Pulse::default()),
            Arc::new(Overdue::new()),
            Arc::new(AtomicU64::new(0)),
        );
        let life = Life {
            engine: engine.clone(),
            extension: extension.clone(),
            pulse: pulse.clone(),
            overdue: overdue.clone(),
            memory: memory.clone(),
        };
        let over = CancellationToken::new();
        let ending = (
            kill.clone(),
            killed_for.clone(),
            crashed.clone(),
            over.clone(),
        );
        let turn = Turn::start(async move {
            let (kill, killed_for, crashed, over) = ending;
            let why = tokio::select! {
                biased;
                () = kill.cancelled() => killed_for.get().cloned(),
                why = life.run(guest, queue) => why,
            };
            if let Some(why) = why {
                let _ = crashed.set(why);
            }
            over.cancel();
        });
        Self {
            orders,
            turn,
            kill,
            killed_for,
            crashed,
            over,
            urgency: Urgency::new(overdue),
            pulse,
            memory,
        }
    }

    /// Hands an order over, and turns the instance for a moment (see [`turn`]). The receiver fails when the instance ends
    /// first; see [`Actor::crashed`].
    pub(crate) async fn order(
        &self,
        owner: Arc<Owner>,
        job: Job,
    ) -> oneshot::Receiver<Result<Reply, NotExported>> {
        let (answer, reply) = oneshot::channel();
        let order = Order { owner, job, answer };
        // A closed queue drops the answer's sender, which is all the receiver needs to know.
        let left = self
            .turn
            .give(order, |order| match self.orders.try_send(order) {
                Ok(()) | Err(TrySendError::Closed(_)) => None,
                Err(TrySendError::Full(order)) => Some(order),
            });
        if let Some(order) = left {
            let _ = self.orders.send(order).await;
        }
        reply
    }

    /// From this moment on the call is overdue: a guest that hogs the store then is interrupted.
    pub(crate) fn overdue(&self, at: Instant) -> Overdueness<'_> {
        self.urgency.add(at)
    }

    /// Whether the instance has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.orders.is_closed()
    }

    /// Why it ended, once it has and not of its own accord.
    pub(crate) fn crashed(&self) -> Option<&str> {
        self.crashed.get().map(String::as_str)
    }

    /// Waits until the task has let go of the store and written down why.
    pub(crate) async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Drops the store, whatever it does: for guests that block in the host's Wasm, where no epoch
    /// reaches them.
    pub(crate) fn kill(&self, why: String) {
        let _ = self.killed_for.set(why);
        self.kill.cancel();
    }

    /// How often its loop has had a turn.
    pub(crate) fn beats(&self) -> u64 {
        self.pulse.beats()
    }

    /// Linear memory after the last order, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.memory.load(Ordering::Relaxed)
    }
}

/// The earliest moment at which one of an actor's calls is overdue.
struct Urgency {
    overdue: Arc<Overdue>,
    calls: Mutex<Vec<(u64, Instant)>>,
    next: AtomicU64,
}

impl Urgency {
    fn new(overdue: Arc<Overdue>) -> Self {
        Self {
            overdue,
            calls: Mutex::new(Vec::new()),
            next: AtomicU64::new(0),
        }
    }

    fn add(&self, at: Instant) -> Overdueness<'_> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.change(|calls| calls.push((id, at)));
        Overdueness { urgency: self, id }
    }

    fn change(&self, change: impl FnOnce(&mut Vec<(u64, Instant)>)) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut calls);
        self.overdue.set(calls.iter().map(|(_, at)| *at).min());
    }
}

/// Takes the call off the list when dropped.
pub(crate) struct Overdueness<'a> {
    urgency: &'a Urgency,
    id: u64,
}

impl Overdueness<'_> {
    /// Brings the moment forward.
    pub(crate) fn hasten(&self, at: Instant) {
        self.urgency.change(|calls| {
            for (id, when) in calls.iter_mut() {
                if *id == self.id {
                    *when = at.min(*when);
                }
            }
        });
    }
}

impl Drop for Overdueness<'_> {
    fn drop(&mut self) {
        self.urgency
            .change(|calls| calls.retain(|(id, _)| *id != self.id));
    }
}

struct Life {
    engine: Engine,
    extension: Extension,
    pulse: Arc<Pulse>,
    overdue: Arc<Overdue>,
    memory: Arc<AtomicU64>,
}

impl Life {
    /// Serves the queue until it closes (`None`) or the guest crashes (the reason).
    async fn run(self, guest: Guest, mut queue: mpsc::Receiver<Order>) -> Option<String> {
        let slice = Duration::from_millis(guest.limits.cpu_slice);
        let voice = guest.voice.clone();
        let handles = usize::try_from(guest.limits.handles).unwrap_or(usize::MAX);
        let mut store = Store::new(self.engine.wasm(), guest);
        store.limiter(|guest| &mut guest.limiter);
        store.set_hostcall_fuel(HOSTCALL_BYTES);
        store.set_max_component_handles(handles);
        watch(&mut store, slice, self.pulse.clone(), self.overdue.clone());
        let ended = {
            let work = self.serve(&mut store, &mut queue);
            Metered {
                work: pin!(work),
                ticker: self.engine.ticker(),
                voice: voice.as_deref(),
            }
            .await
        };
        // Later senders learn that nobody serves any more; orders in the queue lose their answers.
        queue.close();
        ended.err().map(|why| crash(&why, store.data()))
    }

    async fn serve(
        &self,
        store: &mut Store<Guest>,
        queue: &mut mpsc::Receiver<Order>,
    ) -> wasmtime::Result<()> {
        let instance = self.extension.pre().instantiate_async(&mut *store).await?;
        let exports = Arc::new(Exports::find(&mut *store, &instance, &self.extension)?);
        let (events, mut event_queue) = mpsc::channel::<Order>(QUEUE);
        let (pulse, memory) = (self.pulse.clone(), self.memory.clone());
        let replays = store
            .data()
            .voice
            .as_ref()
            .is_some_and(|voice| voice.replays());
        store
            .run_concurrent(async move |accessor| {
                let in_order = async {
                    while let Some(order) = event_queue.recv().await {
                        Serve {
                            exports: exports.clone(),
                            order,
                        }
                        .run(accessor)
                        .await?;
                    }
                    wasmtime::Result::Ok(())
                };
                let all = async {
                    while let Some(order) = queue.recv().await {
                        accessor.with(|mut access| {
                            memory.store(access.get().limiter.memory(), Ordering::Relaxed)
                        });
                        // A replay takes their order from its tape: whoever waited for his turn behind another would wait for ever.
                        if matches!(order.job, Job::Event(_)) && !replays {
                            // A guest that does not keep up loses events rather than memory.
                            if let Err(full) = events.try_send(order) {
                                tracing::warn!("an event was dropped: {full}");
                            }
                        } else {
                            accessor.spawn(Serve {
                                exports: exports.clone(),
                                order,
                            })?;
                        }
                    }
                    drop(events);
                    wasmtime::Result::Ok(())
                };
                Beating {
                    work: pin!(async { tokio::try_join!(all, in_order) }),
                    pulse: &pulse,
                }
                .await
                .map(|_| ())
            })
            .await?
    }
}

/// The exports an instance has, found once.
struct Exports {
    tool: Export<(Resource<ToolCall>,), Result<wit::ToolResult, wit::ToolError>>,
    command: Export<(String, String), Result<(), wit::Error>>,
    complete: Export<(String, String), Vec<exports::commands::Completion>>,
    event: Export<(exports::events::Event,), exports::events::Answer>,
    publications: Publications,
    start: Export<(exports::lifecycle::Reason,), Result<(), wit::Error>>,
    stop: Option<TypedFunc<(), ()>>,
}

/// A function of one result that the component may export.
type Export<P, R> = Option<TypedFunc<P, (R,)>>;

impl Exports {
    fn find(
        store: &mut Store<Guest>,
        instance: &wasmtime::component::Instance,
        extension: &Extension,
    ) -> wasmtime::Result<Self> {
        Ok(Self {
            tool: export(store, instance, extension, TOOLS, "run")?,
            command: export(store, instance, extension, COMMANDS, "run")?,
            complete: export(store, instance, extension, COMMANDS, "complete")?,
            event: export(store, instance, extension, EVENTS, "handle")?,
            publications: Publications::find(store, instance, extension)?,
            start: export(store, instance, extension, LIFECYCLE, "start")?,
            stop: export(store, instance, extension, LIFECYCLE, "stop")?,
        })
    }
}

const TOOLS: &str = "vers:harness/tools";
const COMMANDS: &str = "vers:harness/commands";
const EVENTS: &str = "vers:harness/events";
const LIFECYCLE: &str = "vers:harness/lifecycle";

/// An exported function, if the component has the interface.
fn export<P, R>(
    store: &mut Store<Guest>,
    instance: &wasmtime::component::Instance,
    extension: &Extension,
    interface: &str,
    function: &str,
) -> wasmtime::Result<Option<TypedFunc<P, R>>>
where
    P: ComponentNamedList + Lower,
    R: ComponentNamedList + Lift,
{
    let Some(name) = extension.anatomy().export(interface) else {
        return Ok(None);
    };
    let Some(outer) = instance.get_export_index(&mut *store, None, name) else {
        return Ok(None);
    };
    let Some(inner) = instance.get_export_index(&mut *store, Some(&outer), function) else {
        return Ok(None);
    };
    instance.get_typed_func(store, inner).map(Some)
}

struct Serve {
    exports: Arc<Exports>,
    order: Order,
}

impl AccessorTask<Guest> for Serve {
    /// An error here is a trap: it ends the store, and with it every open order.
    async fn run(self, accessor: &Accessor<Guest>) -> wasmtime::Result<()> {
        let Self {
            exports,
            order:
                Order {
                    owner,
                    mut job,
                    answer,
                },
        } = self;
        let voice = accessor.with(|mut access| access.get().voice.clone());
        let told = owner.clone();
        if let Some(voice) = &voice {
            voice.enter(&owner, &mut job).await?;
        }
        let reply = match job {
            Job::Tool(call) => {
                let call = accessor.with(|mut access| access.get().table.push(call))?;
                invoke(accessor, exports.tool, owner, (call,), "tools")
                    .await?
                    .map(|(reply,)| Reply::Tool(reply))
            }
            Job::Command { name, arguments } => invoke(
                accessor,
                exports.command,
                owner,
                (name, arguments),
                "commands",
            )
            .await?
            .map(|(reply,)| Reply::Done(reply)),
            Job::Complete { name, prefix } => invoke(
                accessor,
                exports.complete,
                owner,
                (name, prefix),
                "commands",
            )
            .await?
            .map(|(reply,)| Reply::Completions(reply)),
            Job::Event(event) => invoke(accessor, exports.event, owner, (event,), "events")
                .await?
                .map(|(reply,)| Reply::Answer(reply)),
            Job::Publication(wanted) => exports
                .publications
                .serve(accessor, owner, wanted)
                .await?
                .map(Reply::Publication),
            Job::Start(reason) => invoke(accessor, exports.start, owner, (reason,), "lifecycle")
                .await?
                .map(|(reply,)| Reply::Done(reply)),
            Job::Poke => Ok(Reply::Done(Ok(()))),
            Job::Stop => invoke(accessor, exports.stop, owner, (), "lifecycle")
                .await?
                .map(|()| Reply::Done(Ok(()))),
        };
        if let Some(voice) = &voice {
            voice.returned(&told, reply.as_ref().ok())?;
        }
        // Nobody may be waiting any more: the call was given up.
        let _ = answer.send(reply);
        Ok(())
    }
}

/// Calls an export and lets every import call made meanwhile be known as the owner's.
async fn invoke<P, R>(
    accessor: &Accessor<Guest>,
    function: Option<TypedFunc<P, R>>,
    owner: Arc<Owner>,
    parameters: P,
    interface: &'static str,
) -> wasmtime::Result<Result<R, NotExported>>
where
    P: ComponentNamedList + Lower + Send + Sync + 'static,
    R: ComponentNamedList + Lift + Send + Sync + 'static,
{
    let Some(function) = function else {
        return Ok(Err(NotExported(interface)));
    };
    let (call, task) = accessor.with(|mut access| -> wasmtime::Result<_> {
        let call = function.start_call_concurrent(&mut access, parameters)?;
        let task = call.task();
        access.get().own(task, owner.clone());
        Ok((call, task))
    })?;
    let result = function.finish_call_concurrent(accessor, call).await;
    accessor.with(|mut access| access.get().disown(task, &owner));
    result.map(Ok)
}

/// What comes before what a guest said when it aborted.
pub(crate) const ABORTED_SAYING: &str = "it panicked or aborted: ";

/// Why a store ended, in words for people.
pub(crate) fn crash(why: &wasmtime::Error, guest: &Guest) -> String {
    if let Some(refused) = guest.limiter.refused() {
        return refused.to_owned();
    }
    match why.downcast_ref::<wasmtime::Trap>() {
        Some(wasmtime::Trap::Interrupt) => "it computed without giving way for longer than its limit `cpu-slice` or its call's deadline allows".into(),
        Some(wasmtime::Trap::StackOverflow) => "its stack overflowed".into(),
        Some(wasmtime::Trap::UnreachableCodeReached) => match guest.last_words() {
            Some(said) => format!("{ABORTED_SAYING}{said}"),
            None => "it panicked or aborted".into(),
        },
        Some(trap) => trap.to_string(),
        None => {
            let root = why.root_cause().to_string();
            if root.contains("handle limit exceeded") {
                return "it wanted more handles than its limit `handles` allows".into();
            }
            crate::types::visible(&root).chars().take(500).collect()
        }
    }
}

/// Says to the ticker, poll by poll, when guest code runs.
struct Metered<'a, F> {
    work: Pin<&'a mut F>,
    ticker: &'a Ticker,
    /// To be told when the guest rests.
    voice: Option<&'a Voice>,
}

impl<F: Future> Future for Metered<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _running = self.ticker.enter();
        match self.voice {
            None => self.work.as_mut().poll(context),
            Some(voice) => voice.polled(context, |context| self.work.as_mut().poll(context)),
        }
    }
}

/// Beats whenever it is polled, that is whenever the guest has given way.
struct Beating<'a, F> {
    work: Pin<&'a mut F>,
    pulse: &'a Pulse,
}

impl<F: Future> Future for Beating<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.pulse.beat();
        self.work.as_mut().poll(context)
    }
}
