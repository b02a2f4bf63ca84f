//! The kit itself: an extension in a world of fakes.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::rc::Rc;

use futures::future::{FutureExt as _, LocalBoxFuture};
use serde_json::Value;

use super::call::{Call, Running};
use super::executor::{self, Owner};
use super::world::{self, world};
use super::{files, schema, ui};
use crate::declare::Declaration;
use crate::{
    Answer, Completion, Error, Event, Extension, ExtensionInfo, Reason, ToolCall, ToolError,
    ToolResult,
};

type Work<T> = LocalBoxFuture<'static, T>;

/// What runs: a declaration, or a type.
trait Guest {
    fn info(&self) -> ExtensionInfo;
    fn run(&self, call: ToolCall) -> Work<Result<ToolResult, ToolError>>;
    fn start(&self, reason: Reason) -> Work<Result<(), Error>>;
    fn stop(&self) -> Work<()>;
    fn command(&self, name: String, text: String) -> Work<Result<(), Error>>;
    fn complete(&self, name: String, prefix: String) -> Work<Vec<Completion>>;
    fn handle(&self, event: Event) -> Work<Answer>;
}

impl Guest for Declaration {
    fn info(&self) -> ExtensionInfo {
        self.info().clone()
    }
    fn run(&self, call: ToolCall) -> Work<Result<ToolResult, ToolError>> {
        let this = self.clone();
        async move { this.run(call).await }.boxed_local()
    }
    fn start(&self, reason: Reason) -> Work<Result<(), Error>> {
        let this = self.clone();
        async move { this.started(reason).await }.boxed_local()
    }
    fn stop(&self) -> Work<()> {
        let this = self.clone();
        async move { this.stopped().await }.boxed_local()
    }
    fn command(&self, name: String, text: String) -> Work<Result<(), Error>> {
        let this = self.clone();
        async move { this.run_command(&name, text).await }.boxed_local()
    }
    fn complete(&self, name: String, prefix: String) -> Work<Vec<Completion>> {
        let this = self.clone();
        async move { Declaration::complete(&this, &name, prefix).await }.boxed_local()
    }
    fn handle(&self, event: Event) -> Work<Answer> {
        let this = self.clone();
        async move { this.happened(event).await }.boxed_local()
    }
}

struct Typed<E>(PhantomData<E>);

impl<E: Extension> Guest for Typed<E> {
    fn info(&self) -> ExtensionInfo {
        E::describe()
    }
    fn run(&self, call: ToolCall) -> Work<Result<ToolResult, ToolError>> {
        E::run(call).boxed_local()
    }
    fn start(&self, reason: Reason) -> Work<Result<(), Error>> {
        E::start(reason).boxed_local()
    }
    fn stop(&self) -> Work<()> {
        E::stop().boxed_local()
    }
    fn command(&self, name: String, text: String) -> Work<Result<(), Error>> {
        E::command(name, text).boxed_local()
    }
    fn complete(&self, name: String, prefix: String) -> Work<Vec<Completion>> {
        E::complete(name, prefix).boxed_local()
    }
    fn handle(&self, event: Event) -> Work<Answer> {
        E::handle(event).boxed_local()
    }
}

/// What outlives a session: the store, the session's entries, local files. May be taken to another thread.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    store: BTreeMap<String, String>,
    entries: Vec<(String, String)>,
    files: files::Tree,
}

/// An extension in a world of fakes; see the [module](crate::testing). There is one at a time on a thread.
pub struct Kit {
    guest: Box<dyn Guest>,
    info: ExtensionInfo,
    calls: Cell<u64>,
    is_started: Cell<bool>,
}

impl fmt::Debug for Kit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kit")
            .field("extension", &self.info.name)
            .finish_non_exhaustive()
    }
}

impl Kit {
    /// A session with this extension. It is started before its first call, command or event, so that a test can furnish the world first.
    #[must_use]
    pub fn new(extension: Declaration) -> Self {
        Self::with(Box::new(extension))
    }

    /// The same for a type that implements [`Extension`].
    #[must_use]
    pub fn of<E: Extension>() -> Self {
        Self::with(Box::new(Typed::<E>(PhantomData)))
    }

    /// A session after another one, of which this was kept.
    #[must_use]
    pub fn resumed(extension: Declaration, kept: Kept) -> Self {
        let kit = Self::new(extension);
        world(|world| {
            world.store.values = kept.store;
            world.session.entries = kept.entries;
            world.files.tree = kept.files;
        });
        kit
    }

    fn with(guest: Box<dyn Guest>) -> Self {
        executor::clear();
        world::clear();
        let info = guest.info();
        world(|world| {
            world.session.tools = info.tools.iter().map(|tool| tool.name.clone()).collect();
            for flag in &info.flags {
                world
                    .session
                    .flags
                    .insert(flag.name.clone(), flag.default.clone());
            }
        });
        assert!(
            world(|world| world.asked.is_empty()),
            "an extension must ask for nothing while it is declared: every capability is denied then"
        );
        Self {
            guest,
            info,
            calls: Cell::new(0),
            is_started: Cell::new(false),
        }
    }

    /// What the extension offers.
    #[must_use]
    pub fn info(&self) -> &ExtensionInfo {
        &self.info
    }

    /// What outlives this session.
    #[must_use]
    pub fn keep(&self) -> Kept {
        world(|world| Kept {
            store: world.store.values.clone(),
            entries: world.session.entries.clone(),
            files: world.files.tree.here(),
        })
    }

    /// Starts the session for this reason. Without it, the first call starts it up.
    ///
    /// # Errors
    /// The extension's.
    pub fn start(&self, reason: Reason) -> Result<(), Error> {
        self.is_started.set(true);
        self.finished("the start", Rc::default(), self.guest.start(reason))
    }

    /// Ends the session: what runs in the background is dropped after the extension's own farewell.
    pub fn stop(&self) {
        self.begin_session();
        self.finished("the stop", Rc::default(), self.guest.stop());
        executor::clear();
    }

    fn begin_session(&self) {
        if !self.is_started.get() {
            // An error of the start is shown to the user and leaves the extension loaded.
            if let Err(error) = self.start(Reason::Startup) {
                ui::notify(
                    &crate::outcome::explain(&error),
                    crate::harness::ui::Severity::Error,
                );
            }
        }
    }

    /// Calls a tool and waits for its end.
    ///
    /// # Errors
    /// The tool's; `Capability(Invalid)` when the arguments do not fit the tool's schema.
    ///
    /// # Panics
    /// When there is no such tool, when the call waits for what will not come, and when a structured result does not fit the schema.
    pub fn call(&self, tool: &str, arguments: Value) -> Result<ToolResult, ToolError> {
        self.begin(tool, arguments).finish()
    }

    /// Begins a call, and runs until everything waits.
    ///
    /// # Panics
    /// When there is no such tool.
    pub fn begin(&self, tool: &str, arguments: Value) -> Running<'_> {
        self.begin_session();
        let Some(known) = self.info.tools.iter().find(|known| known.name == tool) else {
            panic!("{} has no tool {tool}", self.info.name);
        };
        self.calls.set(self.calls.get() + 1);
        let call = Call::new(
            format!("call-{}", self.calls.get()),
            tool,
            arguments.to_string(),
        );
        let state = call.state.clone();
        let done = Rc::new(RefCell::new(None));
        match schema::check(&known.parameters, &arguments) {
            Err(why) => {
                let why = format!("the arguments do not fit the schema of {tool}: {why}");
                done.replace(Some(Err(ToolError::Capability(Error::Invalid(why)))));
            }
            Ok(()) => {
                let work = self.guest.run(call.into());
                let (end, output) = (done.clone(), known.output.clone());
                executor::spawn_for(state.owner.clone(), async move {
                    let ended = work.await;
                    if let (
                        Ok(ToolResult {
                            structured: Some(value),
                            ..
                        }),
                        Some(output),
                    ) = (&ended, output)
                    {
                        let value = serde_json::from_str(value).unwrap_or_default();
                        if let Err(why) = schema::check(&output, &value) {
                            panic!(
                                "the structured result {value} does not fit the output schema: {why}"
                            );
                        }
                    }
                    end.replace(Some(ended));
                });
            }
        }
        self.settle();
        Running {
            kit: self,
            tool: tool.into(),
            state,
            done,
        }
    }

    /// For how many milliseconds the callers of the next calls are likely to wait; `None`, the default: no limit is known.
    pub fn patience(&self, millis: Option<u64>) {
        world(|world| world.patience = millis);
    }

    /// Runs a slash command with the text that followed its name. Dialogs need their [replies](Kit::reply) before.
    ///
    /// # Errors
    /// The command's.
    pub fn command(&self, name: &str, text: &str) -> Result<(), Error> {
        self.begin_session();
        let work = self.guest.command(name.into(), text.into());
        self.finished(&format!("the command /{name}"), Rc::default(), work)
    }

    /// Ways to go on typing a command's arguments.
    #[must_use]
    pub fn complete(&self, name: &str, prefix: &str) -> Vec<Completion> {
        self.begin_session();
        let work = self.guest.complete(name.into(), prefix.into());
        self.finished(&format!("completions of /{name}"), Rc::default(), work)
    }

    /// Tells the extension of an event. One that it has not subscribed to is not delivered, and counts as `Proceed`.
    #[must_use]
    pub fn event(&self, event: Event) -> Answer {
        self.begin_session();
        let is_wanted = match &event {
            Event::Bus((topic, _)) => self.info.topics.contains(topic),
            event => self
                .info
                .subscriptions
                .iter()
                .any(|name| *name == name_of(event)),
        };
        if !is_wanted {
            return Answer::Proceed;
        }
        let work = self.guest.handle(event);
        self.finished("an event", Rc::default(), work)
    }

    /// Says something on the bus, as another extension.
    pub fn tell(&self, topic: &str, message: &Value) {
        let _ = self.event(Event::Bus((topic.into(), message.to_string())));
    }

    /// Runs until everything waits. The clock stands.
    pub fn settle(&self) {
        executor::settle();
    }

    /// Lets this many milliseconds pass.
    pub fn pass(&self, millis: u64) {
        let until = executor::ticks() + millis;
        self.settle();
        while executor::forward(until) {
            self.settle();
        }
        executor::set_ticks(until);
        self.settle();
    }

    /// Runs something else of the extension to its end, such as a function that publishes a resource.
    ///
    /// # Panics
    /// When it waits for what will not come.
    pub fn run<T: 'static>(&self, work: impl Future<Output = T> + 'static) -> T {
        self.begin_session();
        self.finished("the work", Rc::default(), work.boxed_local())
    }

    fn finished<T: 'static>(&self, what: &str, owner: Rc<Owner>, work: Work<T>) -> T {
        let done = Rc::new(RefCell::new(None));
        let end = done.clone();
        executor::spawn_for(owner, async move {
            let ended = work.await;
            end.replace(Some(ended));
        });
        self.until(what, || done.borrow().is_some());
        match done.take() {
            Some(done) => done,
            // Just looked at.
            None => unreachable!("{what} has ended"),
        }
    }

    /// Runs, and lets the clock go on, until this is so.
    pub(crate) fn until(&self, what: &str, is_done: impl Fn() -> bool) {
        loop {
            self.settle();
            if is_done() {
                return;
            }
            if !executor::forward(u64::MAX) {
                panic!(
                    "{what} waits for what will not come. Open dialogs: {:?}. Running processes: {:?}. Last requests: {:?}",
                    self.dialogs(),
                    self.processes()
                        .iter()
                        .filter(|one| one.is_running())
                        .map(|one| one.argv())
                        .collect::<Vec<_>>(),
                    world(|world| world
                        .asked
                        .iter()
                        .rev()
                        .take(5)
                        .map(|asked| asked.what.clone())
                        .collect::<Vec<_>>()),
                );
            }
        }
    }
}

impl Drop for Kit {
    fn drop(&mut self) {
        executor::clear();
    }
}

/// As in `subscriptions`.
fn name_of(event: &Event) -> &str {
    match event {
        Event::ToolCall(_) => "tool-call",
        Event::ToolResult(_) => "tool-result",
        Event::Input(_) => "input",
        Event::UserBash(_) => "user-bash",
        Event::BeforeAgentStart(_) => "before-agent-start",
        Event::Context(_) => "context",
        Event::AgentStart => "agent-start",
        Event::AgentEnd(_) => "agent-end",
        Event::TurnStart(_) => "turn-start",
        Event::TurnEnd(_) => "turn-end",
        Event::ModelSelect(_) => "model-select",
        Event::Bus(_) => "bus",
        Event::Other((name, _)) => name,
    }
}
