//! A session: the extensions of one conversation, behind one front end.

mod publications;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use pi_vers_system::secrets::Secrets;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::actor::{Job, Reply};
use crate::bindings::vers::harness::types as wit;
use crate::capability::call::ToolCall;
use crate::capability::refusal;
use crate::error::{CallError, Error};
use crate::events::{Event, Reaction};
use crate::extension::Extension;
use crate::host::Host;
use crate::outgoing;
use crate::owner::{End, Owner};
use crate::patience::Patience;
use crate::services::{Message, Services};
use crate::slot::{Ended, Slot};
use crate::types::{Command, Completion, FlagValue, StartReason, Tool, ToolOutput, Update};

/// How long an extension may take over one event before the harness goes on without it: 10 s with the grace in which
/// its guest is told.
const EVENT: Duration = Duration::from_secs(8);

/// How long a tool call waits until its judges have heard what was said on the bus before it.
const HEARD: Duration = Duration::from_secs(1);

/// How long completions may take.
const COMPLETE: Duration = Duration::from_secs(5);

/// How long the end waits for VMs that are being made or deleted.
const VMS: Duration = Duration::from_secs(5);

/// The longest message of an error that a guest hands on, in characters.
const LONGEST_MESSAGE: usize = 4_000;

/// More completions than this help nobody.
const MOST_COMPLETIONS: usize = 1_000;

/// The extension (by its place in the session) that offers a name.
type Names = HashMap<String, usize>;

/// A session. Cheap to clone; ends with [`Session::end`], or when the last clone is dropped.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    slots: Vec<Arc<Slot>>,
    tools: HashMap<String, usize>,
    commands: HashMap<String, usize>,
    services: Arc<Services>,
    calls: TaskTracker,
    /// Gives every open call up.
    give_up: CancellationToken,
    /// Drops everything.
    end: CancellationToken,
    /// Keeps the engine and its clock alive.
    host: Host,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = self.0.slots.iter().map(|slot| slot.name()).collect();
        f.debug_struct("Session")
            .field("extensions", &names)
            .finish_non_exhaustive()
    }
}

/// What a front end can say about a call of a tool.
#[derive(Debug, Clone, Default)]
pub struct CallOptions {
    /// The front end's id of it; `None`: one is made.
    pub id: Option<String>,
    /// How long the caller is likely to wait, from now on; `None`: no limit is known. See [`Call::patience`].
    pub patience: Option<Duration>,
}

/// What a command, its completions, a prompt, a resource or an event are asked for, as the front end knows it.
#[derive(Debug, Clone, Default)]
pub struct Cause {
    /// The front end's id of it: what the extension asks of the harness meanwhile names it.
    pub id: Option<String>,
    /// Fires when it is given up.
    pub cancel: CancellationToken,
}

/// A tool of a session and who offers it.
#[derive(Debug, Clone)]
pub struct Offer<T> {
    /// The extension's name.
    pub extension: String,
    /// What it offers.
    pub item: T,
}

impl Session {
    pub(crate) fn new(
        host: Host,
        harness: Arc<dyn crate::harness::Harness>,
        extensions: Vec<Extension>,
    ) -> Result<Self, Error> {
        let flags = extensions.iter().map(|extension| {
            let flags: BTreeMap<String, FlagValue> = extension
                .info()
                .flags
                .iter()
                .map(|flag| (flag.name.clone(), flag.default.clone()))
                .collect();
            (extension.name().to_owned(), flags)
        });
        unique(&extensions)?;
        let (services, messages) = host.services(harness, flags.collect());
        let services = Arc::new(services);
        let end = CancellationToken::new();
        let directory = services.directory();
        let slots: Vec<Arc<Slot>> = extensions
            .into_iter()
            .map(|extension| {
                let grants = host.grants(&extension, &directory);
                let stop = end.child_token();
                Arc::new(Slot::new(
                    host.engine().clone(),
                    extension,
                    grants,
                    services.clone(),
                    stop,
                ))
            })
            .collect();
        let built_ins = services.harness.built_ins();
        let (tools, commands) = names(&slots, &built_ins)?;
        let mut all: Vec<String> = tools.keys().cloned().chain(built_ins).collect();
        all.sort();
        all.dedup();
        services.set_tools(all);
        let calls = TaskTracker::new();
        calls.spawn(deliver(
            slots.clone(),
            messages,
            services.bus.heard(),
            end.clone(),
        ));
        Ok(Self(Arc::new(Inner {
            slots,
            tools,
            commands,
            services,
            calls,
            give_up: end.child_token(),
            end,
            host,
        })))
    }

    /// The tools offered, in the order the extensions were loaded and described them.
    #[must_use]
    pub fn tools(&self) -> Vec<Offer<Tool>> {
        self.offers(
            &self.0.tools,
            |slot| &slot.extension.info().tools,
            |tool| &tool.name,
        )
    }

    /// The commands offered.
    #[must_use]
    pub fn commands(&self) -> Vec<Offer<Command>> {
        self.offers(
            &self.0.commands,
            |slot| &slot.extension.info().commands,
            |command| &command.name,
        )
    }

    fn offers<T: Clone>(
        &self,
        taken: &HashMap<String, usize>,
        all: fn(&Slot) -> &Vec<T>,
        name: fn(&T) -> &String,
    ) -> Vec<Offer<T>> {
        let mut offers = Vec::new();
        for (index, slot) in self.0.slots.iter().enumerate() {
            let items = all(slot)
                .iter()
                .filter(|item| taken.get(name(item)) == Some(&index));
            offers.extend(items.map(|item| Offer {
                extension: slot.name().to_owned(),
                item: item.clone(),
            }));
        }
        offers
    }

    /// The extensions of the session.
    pub fn extensions(&self) -> impl Iterator<Item = &Extension> {
        self.0.slots.iter().map(|slot| &slot.extension)
    }

    /// Memory of the running instances, in bytes, by extension; those not started yet are left out.
    #[must_use]
    pub fn memory(&self) -> BTreeMap<String, u64> {
        self.0
            .slots
            .iter()
            .filter_map(|slot| Some((slot.name().to_owned(), slot.memory()?)))
            .collect()
    }

    /// Says why the session starts, for extensions that a call starts before [`Session::start`] does. The first reason counts.
    pub fn set_reason(&self, reason: StartReason) {
        for slot in &self.0.slots {
            slot.set_reason(reason);
        }
    }

    /// Starts every extension that wants to know of the session's start, side by side. Without it each starts
    /// at its first call.
    ///
    /// # Errors
    /// The first crash; the other extensions have started all the same.
    pub async fn start(&self, reason: StartReason) -> Result<(), CallError> {
        self.set_reason(reason);
        let starts = self
            .0
            .slots
            .iter()
            .map(|slot| async { slot.actor().await.map(|_| ()) });
        futures::future::join_all(starts)
            .await
            .into_iter()
            .collect()
    }

    /// Calls a tool. The call runs at once, whether or not anybody awaits it, and is given up when the
    /// returned handle is dropped.
    #[must_use]
    pub fn call(&self, tool: &str, arguments: Value) -> Call {
        self.call_with(CallOptions::default(), tool, arguments)
    }

    /// The same, under the harness's id of the call.
    #[must_use]
    pub fn call_with_id(&self, id: &str, tool: &str, arguments: Value) -> Call {
        let options = CallOptions {
            id: Some(id.to_owned()),
            ..CallOptions::default()
        };
        self.call_with(options, tool, arguments)
    }

    /// The same, with all that a front end can say about the call.
    #[must_use]
    pub fn call_with(&self, options: CallOptions, tool: &str, arguments: Value) -> Call {
        let (mut call, work) = self.prepare(options, tool, arguments);
        let (done, outcome) = oneshot::channel();
        self.0.calls.spawn(async move {
            // Nobody may be waiting: the handle was dropped, which cancelled the call.
            let _ = done.send(work.await);
        });
        call.work = Work::Spawned(outcome);
        call
    }

    /// The same for a front end on a thread of its own: the call begins when its [`Call::outcome`] is first waited for, and is seen
    /// through by whoever waits, which spares a call the way over another thread. What it spawns, also the rest of one
    /// whose handle was dropped, runs in `runtime`.
    #[must_use]
    pub fn call_from(
        &self,
        runtime: Handle,
        options: CallOptions,
        tool: &str,
        arguments: Value,
    ) -> Call {
        let (mut call, work) = self.prepare(options, tool, arguments);
        let work = self.0.calls.track_future(work).boxed();
        call.work = Work::Polled(runtime, work);
        call
    }

    fn prepare(
        &self,
        options: CallOptions,
        tool: &str,
        arguments: Value,
    ) -> (
        Call,
        impl Future<Output = Result<ToolOutput, CallError>> + Send + 'static,
    ) {
        let id = options
            .id
            .unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
        let patience = Patience::new(options.patience);
        let (updates, seen) = watch::channel(Update::default());
        let cancel = self.0.give_up.child_token();
        let work = run_tool(
            self.clone(),
            tool.to_owned(),
            Request {
                id: id.clone(),
                arguments,
                patience: patience.clone(),
                updates,
                cancel: cancel.clone(),
            },
        );
        let call = Call {
            id,
            updates: seen,
            patience,
            work: Work::Over,
            cancel: Some(cancel),
        };
        (call, work)
    }

    /// Runs a slash command with the text that followed its name.
    ///
    /// # Errors
    /// Like a tool call's. Cancel-safe: dropping the future gives the command up.
    pub async fn command(&self, name: &str, arguments: &str) -> Result<(), CallError> {
        self.command_for(&Cause::default(), name, arguments).await
    }

    /// The same, on behalf of this. Given up by its `cancel` it returns when what the command had started is gone.
    ///
    /// # Errors
    /// Like a tool call's.
    pub async fn command_for(
        &self,
        cause: &Cause,
        name: &str,
        arguments: &str,
    ) -> Result<(), CallError> {
        let slot = self.slot("command", &self.0.commands, name)?;
        let owner = Owner::of_call(
            cause.id.clone(),
            format!("/{name}"),
            slot.token(),
            Some(Instant::now() + slot.limit()),
            None,
        );
        let job = Job::Command {
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        };
        match self.give(cause, slot, owner.clone(), job).await? {
            Ended {
                reply: Some(Reply::Done(Ok(()))),
                end: None,
                ..
            } => Ok(()),
            Ended {
                reply: Some(Reply::Done(Err(why))),
                end: None,
                ..
            } => Err(refused(&self.0.services.secrets, why)),
            ended => Err(given_up(&owner, slot, ended, ToolOutput::default())),
        }
    }

    /// Completions of a command's argument text.
    ///
    /// # Errors
    /// Like a tool call's.
    pub async fn complete(&self, name: &str, prefix: &str) -> Result<Vec<Completion>, CallError> {
        self.complete_for(&Cause::default(), name, prefix).await
    }

    /// The same, on behalf of this.
    ///
    /// # Errors
    /// Like a tool call's.
    pub async fn complete_for(
        &self,
        cause: &Cause,
        name: &str,
        prefix: &str,
    ) -> Result<Vec<Completion>, CallError> {
        let slot = self.slot("command", &self.0.commands, name)?;
        let owner = Owner::of_call(
            cause.id.clone(),
            format!("completions of /{name}"),
            slot.token(),
            Some(Instant::now() + COMPLETE),
            None,
        );
        let job = Job::Complete {
            name: name.to_owned(),
            prefix: prefix.to_owned(),
        };
        match self.give(cause, slot, owner.clone(), job).await? {
            Ended {
                reply: Some(Reply::Completions(found)),
                end: None,
                ..
            } => Ok(found
                .into_iter()
                .take(MOST_COMPLETIONS)
                .map(|one| Completion {
                    value: line(&one.value),
                    label: line(&one.label),
                    description: one.description.as_deref().map(line),
                })
                .collect()),
            ended => Err(given_up(&owner, slot, ended, ToolOutput::default())),
        }
    }

    /// Tells the subscribers of an event, one after another, and says what the harness shall do. An extension
    /// that fails or takes longer than 10 s counts as having nothing to say; but a tool call that it did not get to judge
    /// is blocked: it may be the one that keeps the user's files from being changed.
    pub async fn event(&self, event: Event) -> Reaction {
        self.event_for(&Cause::default(), event).await
    }

    /// The same, on behalf of this. Once its `cancel` has fired nobody more is told.
    pub async fn event_for(&self, cause: &Cause, mut event: Event) -> Reaction {
        let mut reaction = Reaction::default();
        if matches!(event, Event::ToolCall { .. }) {
            // Who judges it knows what was said before: for example which VM it would act on.
            self.0.services.bus.settled(HEARD).await;
        }
        for slot in &self.0.slots {
            if !slot
                .extension
                .info()
                .subscriptions
                .iter()
                .any(|name| name == event.name())
            {
                continue;
            }
            let request = pi_vers_policy::Request::Event { name: event.name() };
            let job = Job::Event((&event).into());
            if !slot.may_have(&request, &job) {
                tracing::info!(target: "audit", extension = slot.name(), event = event.name(), "not delivered: not granted");
                continue;
            }
            if cause.cancel.is_cancelled() {
                break;
            }
            let owner = Owner::of_call(
                cause.id.clone(),
                format!("event {}", event.name()),
                slot.token(),
                Some(Instant::now() + EVENT),
                None,
            );
            let given = self.give(cause, slot, owner, job);
            let answer = match given.await {
                Ok(Ended {
                    reply: Some(Reply::Answer(answer)),
                    end: None,
                    ..
                }) => Some(answer),
                Ok(_) => {
                    if !cause.cancel.is_cancelled() {
                        tracing::warn!(
                            extension = slot.name(),
                            event = event.name(),
                            "no answer in time"
                        );
                    }
                    None
                }
                Err(why) => {
                    tracing::warn!(extension = slot.name(), event = event.name(), "{why}");
                    None
                }
            };
            let Some(answer) = answer else {
                if matches!(event, Event::ToolCall { .. }) {
                    reaction.block = Some(format!(
                        "the extension {} judges tool calls, and failed to judge this one; try again, or unload it",
                        slot.name()
                    ));
                    break;
                }
                continue;
            };
            if let Err(why) = reaction.take(&mut event, answer) {
                tracing::warn!(extension = slot.name(), "{why}");
            }
            if reaction.is_final() {
                break;
            }
        }
        reaction
    }

    /// Puts a message of the front end on the bus, for the extensions that subscribed to its topic. Does not wait for them.
    pub fn tell(&self, topic: &str, data: Value) {
        self.0.services.bus.put(None, topic.to_owned(), data);
    }

    /// Ends the session: open calls are given up, every extension is told and then dropped with all it holds.
    /// A VM that was being made for a call that is given up is deleted. Returns when all that is done, after seconds at most.
    pub async fn end(self) {
        let inner = &self.0;
        if let Some(tape) = &inner.services.tape {
            tape.played().await;
        }
        inner.give_up.cancel();
        inner.calls.close();
        let stops = inner.slots.iter().map(|slot| slot.stop());
        futures::future::join_all(stops).await;
        inner.end.cancel();
        inner.calls.wait().await;
        let changes = &inner.services.vm_changes;
        changes.close();
        if tokio::time::timeout(VMS, changes.wait()).await.is_err() {
            tracing::warn!(
                "the platform is slow: a VM may be left that was being made for a call that was given up, or was to be deleted; list the VMs"
            );
        }
    }

    /// Whether a VM is being made or deleted. A process that ends now may leave one that nobody asked for any more:
    /// [`Session::end`] waits for it.
    #[must_use]
    pub fn changes_vms(&self) -> bool {
        !self.0.services.vm_changes.is_empty()
    }

    #[allow(
        clippy::result_large_err,
        reason = "the error is the call's result, made once a call"
    )]
    fn slot(
        &self,
        what: &'static str,
        taken: &HashMap<String, usize>,
        name: &str,
    ) -> Result<&Arc<Slot>, CallError> {
        taken
            .get(name)
            .and_then(|index| self.0.slots.get(*index))
            .ok_or_else(|| CallError::Unknown {
                what,
                name: crate::types::visible(name).chars().take(80).collect(),
                near: nearest(name, taken.keys()),
            })
    }

    /// Gives an order whose caller may simply stop waiting.
    async fn give(
        &self,
        cause: &Cause,
        slot: &Arc<Slot>,
        owner: Arc<Owner>,
        job: Job,
    ) -> Result<Ended, CallError> {
        let _guard = FinishOnDrop(owner.clone());
        let _place = tokio::select! {
            biased;
            () = cause.cancel.cancelled() => {
                return Ok(Ended { reply: None, end: Some(End::Cancelled), stopped: Vec::new() });
            }
            place = slot.place() => place?,
        };
        slot.run(owner, job, &cause.cancel).await
    }

    /// The host this session belongs to.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.0.host
    }
}

/// A wait that is dropped ends the waits of the guest with it.
struct FinishOnDrop(Arc<Owner>);

impl Drop for FinishOnDrop {
    fn drop(&mut self) {
        self.0.finish(End::Cancelled);
    }
}

/// A running call of a tool. Dropping it gives the call up.
#[derive(Debug)]
pub struct Call {
    id: String,
    updates: watch::Receiver<Update>,
    patience: Patience,
    work: Work,
    cancel: Option<CancellationToken>,
}

/// Who sees a call through.
enum Work {
    /// A task, which hands over what came of it.
    Spawned(oneshot::Receiver<Result<ToolOutput, CallError>>),
    /// Whoever waits for it.
    Polled(Handle, BoxFuture<'static, Result<ToolOutput, CallError>>),
    Over,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spawned(_) => "Spawned",
            Self::Polled(..) => "Polled",
            Self::Over => "Over",
        })
    }
}

impl Call {
    /// The harness's id of the call.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// What the call shows of itself while it runs: always the newest, older ones are skipped.
    #[must_use]
    pub fn updates(&self) -> watch::Receiver<Update> {
        self.updates.clone()
    }

    /// How much longer its caller waits, for the tool to know: to be set anew when that changes.
    #[must_use]
    pub fn patience(&self) -> Patience {
        self.patience.clone()
    }

    /// A handle that gives the call up from elsewhere.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller(self.cancel.clone().unwrap_or_default())
    }

    /// Waits for the result. Cancel-safe as `&mut`: a wait that is dropped loses nothing.
    ///
    /// # Errors
    /// Why there is no result; see [`CallError`].
    pub async fn outcome(&mut self) -> Result<ToolOutput, CallError> {
        let outcome = match &mut self.work {
            Work::Spawned(outcome) => outcome.await.unwrap_or(Err(CallError::Closed)),
            Work::Polled(runtime, work) => {
                std::future::poll_fn(|context| {
                    let _entered = runtime.enter();
                    work.as_mut().poll(context)
                })
                .await
            }
            Work::Over => Err(CallError::Closed),
        };
        self.work = Work::Over;
        self.cancel = None;
        outcome
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(cancel) = &self.cancel {
            cancel.cancel();
        }
        // What it started has to be stopped, and that takes its time.
        if let Work::Polled(runtime, work) = std::mem::replace(&mut self.work, Work::Over) {
            runtime.spawn(work);
        }
    }
}

/// Gives a call up. The call then ends with [`CallError::Cancelled`] once everything it started is gone.
#[derive(Debug, Clone)]
pub struct Canceller(CancellationToken);

impl Canceller {
    /// Gives the call up. More than once is the same as once.
    pub fn cancel(&self) {
        self.0.cancel();
    }
}

/// One call as the session sees it through.
struct Request {
    id: String,
    arguments: Value,
    patience: Patience,
    updates: watch::Sender<Update>,
    cancel: CancellationToken,
}

async fn run_tool(
    session: Session,
    tool: String,
    request: Request,
) -> Result<ToolOutput, CallError> {
    let Request {
        id,
        arguments,
        patience,
        updates,
        cancel,
    } = request;
    let slot = session.slot("tool", &session.0.tools, &tool)?;
    let problems = slot.extension.problems(&tool, &arguments);
    if !problems.is_empty() {
        return Err(CallError::Arguments { tool, problems });
    }
    let owner = Owner::of_call(
        Some(id.clone()),
        format!("call of {tool}"),
        slot.token(),
        Some(Instant::now() + slot.limit()),
        Some(updates),
    );
    let _place = tokio::select! {
        biased;
        () = cancel.cancelled() => {
            owner.finish(End::Cancelled);
            let ended = Ended { reply: None, end: Some(End::Cancelled), stopped: Vec::new() };
            return Err(given_up(&owner, slot, ended, ToolOutput::default()));
        }
        place = slot.place() => place?,
    };
    let call = ToolCall {
        id,
        tool: tool.clone(),
        arguments: arguments.to_string(),
        patience,
        owner: owner.clone(),
    };
    let ended = slot.run(owner.clone(), Job::Tool(call), &cancel).await?;
    let contract = |why: String| CallError::Contract {
        extension: slot.name().to_owned(),
        why,
    };
    let secrets = &session.0.services.secrets;
    let handed_on = |result: wit::ToolResult| {
        let mut output = ToolOutput::try_from(result)?;
        let data = [&mut output.details, &mut output.structured];
        let data = data.into_iter().flatten();
        outgoing::message(
            secrets,
            slot.grants.limits().output,
            &mut output.content,
            data,
        )
        .map_err(|why| format!("its result {why}"))?;
        Ok(output)
    };
    match ended {
        Ended {
            reply: Some(Reply::Tool(Ok(result))),
            end: None,
            ..
        } => {
            let output = handed_on(result).map_err(contract)?;
            if let Some(structured) = &output.structured
                && let Some(problem) = slot.extension.check_structured(&tool, structured).first()
            {
                return Err(contract(format!(
                    "the structured result of {tool} does not fit its schema: {problem}"
                )));
            }
            Ok(output)
        }
        Ended {
            reply: Some(Reply::Tool(Err(wit::ToolError::Failed(result)))),
            end: None,
            ..
        } => Err(CallError::Failed(handed_on(result).map_err(contract)?)),
        Ended {
            reply: Some(Reply::Tool(Err(wit::ToolError::Capability(why)))),
            end: None,
            ..
        } => Err(refused(secrets, why)),
        // What the tool said about its own end is worth showing, whatever it called it.
        mut ended => {
            let said = match ended.reply.take() {
                Some(Reply::Tool(Ok(result) | Err(wit::ToolError::Failed(result)))) => {
                    handed_on(result).unwrap_or_default()
                }
                _ => ToolOutput::default(),
            };
            Err(given_up(&owner, slot, ended, said))
        }
    }
}

/// An error that a guest handed on, or made up: so it is neither believed to be free of secrets nor to be short.
fn refused(secrets: &Secrets, why: wit::Error) -> CallError {
    let (kind, mut message) = refusal(why);
    outgoing::clean(secrets, &mut message);
    CallError::Refused {
        kind,
        message: crate::types::visible(&message)
            .chars()
            .take(LONGEST_MESSAGE)
            .collect(),
    }
}

/// One line for a list.
fn line(text: &str) -> String {
    let text = crate::types::visible(text).replace(['\n', '\t'], " ");
    text.chars().take(LONGEST_MESSAGE).collect()
}

fn given_up(owner: &Owner, slot: &Slot, ended: Ended, output: ToolOutput) -> CallError {
    let what = owner.what().to_owned();
    match ended.end {
        Some(End::TimedOut) => CallError::TimedOut {
            what,
            after: slot.limit().as_secs(),
            output,
        },
        Some(End::Stopped) => CallError::Closed,
        // Without an end of the host's, the guest itself said `cancelled`.
        Some(End::Cancelled) | None => CallError::Cancelled {
            what,
            stopped: ended.stopped,
            output,
        },
    }
}

/// Who offers which name. `only-replaces` tools count only where the harness has that built-in, and
/// replacing a built-in takes a grant.
fn names(slots: &[Arc<Slot>], built_ins: &[String]) -> Result<(Names, Names), Error> {
    let (mut tools, mut commands) = (HashMap::new(), HashMap::new());
    for (index, slot) in slots.iter().enumerate() {
        let info = slot.extension.info();
        let mut refused: Vec<&str> = Vec::new();
        for tool in &info.tools {
            let built_in = built_ins.contains(&tool.name);
            if tool.only_replaces && !built_in {
                continue;
            }
            if built_in
                && !slot
                    .grants
                    .decide(&pi_vers_policy::Request::ReplaceTool { name: &tool.name })
                    .is_allowed()
            {
                refused.push(&tool.name);
                continue;
            }
            claim("tool", &mut tools, slots, &tool.name, index)?;
        }
        if !refused.is_empty() {
            let tools = refused.join(", ");
            tracing::warn!(target: "audit", extension = slot.name(), tools, "may not replace built-in tools: its policy has no `replace` for them");
        }
        for command in &info.commands {
            claim("command", &mut commands, slots, &command.name, index)?;
        }
    }
    Ok((tools, commands))
}

/// Two extensions of one name would share a store, and be one in every log.
fn unique(extensions: &[Extension]) -> Result<(), Error> {
    let mut seen: HashMap<&str, &str> = HashMap::new();
    for extension in extensions {
        if let Some(first) = seen.insert(extension.name(), extension.origin()) {
            return Err(Error::Clash {
                what: "name",
                name: extension.name().to_owned(),
                first: first.to_owned(),
                second: extension.origin().to_owned(),
            });
        }
    }
    Ok(())
}

fn claim(
    what: &'static str,
    taken: &mut HashMap<String, usize>,
    slots: &[Arc<Slot>],
    name: &str,
    index: usize,
) -> Result<(), Error> {
    let owner = |index: usize| {
        slots
            .get(index)
            .map_or_else(String::new, |slot| slot.name().to_owned())
    };
    match taken.insert(name.to_owned(), index) {
        None => Ok(()),
        Some(first) => Err(Error::Clash {
            what,
            name: name.to_owned(),
            first: owner(first),
            second: owner(index),
        }),
    }
}

/// Passes messages of the bus on to their subscribers, in order.
async fn deliver(
    slots: Vec<Arc<Slot>>,
    mut messages: mpsc::Receiver<Message>,
    heard: Arc<watch::Sender<u64>>,
    end: CancellationToken,
) {
    let work = async {
        while let Some(message) = messages.recv().await {
            let event = Event::Bus {
                topic: message.topic,
                data: message.data,
            };
            let Event::Bus { topic, .. } = &event else {
                continue;
            };
            for slot in &slots {
                let wants = message.from.as_deref() != Some(slot.name())
                    && slot.extension.info().topics.contains(topic);
                let request = pi_vers_policy::Request::Bus { topic };
                let job = Job::Event((&event).into());
                if !wants || !slot.may_have(&request, &job) {
                    continue;
                }
                let owner = Owner::new(
                    format!("message on {topic}"),
                    slot.token(),
                    Some(Instant::now() + EVENT),
                    None,
                );
                match slot.run(owner, job, &CancellationToken::new()).await {
                    // Nobody waits for a message: one that comes as the session ends is just too late.
                    Ok(_) | Err(CallError::Closed) => {}
                    Err(why) => tracing::warn!(extension = slot.name(), "{why}"),
                }
            }
            heard.send_modify(|heard| *heard += 1);
        }
    };
    tokio::select! {
        () = end.cancelled() => {}
        () = work => {}
    }
}

/// The name most like the one asked for, if any is like it at all.
fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a String>) -> Option<String> {
    let name: String = name.chars().take(64).collect();
    let (distance, found) = names.map(|known| (distance(&name, known), known)).min()?;
    (distance <= known_slack(found)).then(|| found.clone())
}

fn known_slack(name: &str) -> usize {
    (name.len() / 3).max(1)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        for (cell, y) in row.iter_mut().skip(1).zip(&b) {
            let above = *cell;
            let best = if x == *y {
                diagonal
            } else {
                1 + diagonal.min(above).min(left)
            };
            diagonal = above;
            *cell = best;
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_offered_and_a_far_one_is_not() {
        let names: Vec<String> = ["bash", "vers_vm_use", "vers_vms"].map(String::from).into();
        assert_eq!(
            nearest("vers_vm_us", names.iter()),
            Some("vers_vm_use".into())
        );
        assert_eq!(nearest("bsh", names.iter()), Some("bash".into()));
        assert_eq!(nearest("frobnicate", names.iter()), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
