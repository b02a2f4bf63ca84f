//! The JavaScript engine of this instance: one, made with its script when it is first needed.
//!
//! Everything that runs in it runs inside [`enter`], which turns the microtasks afterwards. It never waits: what a
//! script awaits is done by a [scope](crate::scope), which enters again when it is there.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use boa_engine::builtins::promise::{OperationType, PromiseState};
use boa_engine::context::{ContextBuilder, HostHooks};
use boa_engine::job::{Job, JobExecutor};
use boa_engine::module::{ModuleLoader, ModuleRequest, Referrer};
use boa_engine::object::builtins::{JsFunction, JsPromise};
use boa_engine::{
    Context, JsError, JsNativeError, JsObject, JsResult, JsString, JsValue, Module, Source,
    js_string,
};
use futures::FutureExt as _;

use crate::{natives, ops};

/// What scripts see of the host.
const PRELUDE: &str = include_str!("prelude.js");
/// Calls inside of calls; the engine's own stack is as deep as the component's.
const DEEPEST: usize = 400;
/// Rejections that are remembered until it is known whether somebody handles them.
const MOST_REJECTIONS: usize = 64;

thread_local! {
    static ENGINE: RefCell<Option<Engine>> = const { RefCell::new(None) };
}

struct Engine {
    context: Context,
    jobs: Rc<Jobs>,
    hooks: Rc<Hooks>,
    /// `(kind, scope, payload) -> promise of JSON`, of the prelude.
    dispatch: JsFunction,
    /// What the script offers, as JSON.
    description: String,
}

/// What the script offers, as JSON.
///
/// # Errors
/// What is wrong with the script, with its place.
pub(crate) fn describe() -> Result<String, String> {
    with(|engine| engine.description.clone())
}

/// Runs this in the engine, and the microtasks that follow from it.
///
/// # Errors
/// When there is no engine, because the script is wrong.
pub(crate) fn enter<T>(work: impl FnOnce(&mut Context) -> T) -> Result<T, String> {
    with(|engine| {
        let done = work(&mut engine.context);
        engine.turn();
        done
    })
}

/// Begins what the script does about something; the promise of its answer as JSON.
///
/// # Errors
/// When there is no engine, because the script is wrong.
pub(crate) fn begin(
    kind: &str,
    scope: u32,
    payload: &str,
    watch: impl FnOnce(JsPromise, &mut Context) -> JsResult<()>,
) -> Result<(), String> {
    with(|engine| {
        let context = &mut engine.context;
        let arguments = [
            JsString::from(kind).into(),
            JsValue::from(scope),
            JsString::from(payload).into(),
        ];
        let begun = engine
            .dispatch
            .call(&JsValue::undefined(), &arguments, context)
            .and_then(|value| JsPromise::resolve(value, context))
            .and_then(|promise| watch(promise, context));
        let begun = begun.map_err(|why| words(&why, context));
        engine.turn();
        begun
    })
    .and_then(|begun| begun)
}

fn with<T>(work: impl FnOnce(&mut Engine) -> T) -> Result<T, String> {
    ENGINE.with_borrow_mut(|slot| {
        if slot.is_none() {
            *slot = Some(Engine::start()?);
        }
        match slot {
            Some(engine) => Ok(work(engine)),
            None => Err("there is no engine".into()),
        }
    })
}

impl Engine {
    fn start() -> Result<Self, String> {
        let mut arguments = std::env::args();
        let (Some(name), Some(source)) = (arguments.next(), arguments.next()) else {
            return Err("this component runs scripts, and was given none: load a .js file".into());
        };
        let (jobs, hooks) = (Rc::new(Jobs::default()), Rc::new(Hooks::default()));
        let mut context = ContextBuilder::new()
            .job_executor(jobs.clone())
            .host_hooks(hooks.clone())
            .module_loader(Rc::new(NoModules))
            .build()
            .map_err(|why| format!("the JavaScript engine did not start: {why}"))?;
        context.runtime_limits_mut().set_recursion_limit(DEEPEST);
        let prelude = prelude(&mut context).map_err(|why| words(&why, &mut context))?;
        let exported = evaluate(&name, &source, &mut context, &jobs)?;
        let dispatch = function(&prelude, "dispatch", &mut context)?;
        let setup = function(&prelude, "setup", &mut context)?;
        let description = setup
            .call(&JsValue::undefined(), &[exported], &mut context)
            .map_err(|why| format!("{name}: {}", words(&why, &mut context)))?;
        let description = text_of(&description);
        let mut engine = Self {
            context,
            jobs,
            hooks,
            dispatch,
            description,
        };
        engine.turn();
        Ok(engine)
    }

    /// Runs microtasks until there are none.
    fn turn(&mut self) {
        if let Err(why) = self.jobs.drain(&mut self.context) {
            // What this task was to settle never will be: calls would wait for ever.
            crate::give_up(&words(&why, &mut self.context));
        }
        self.context.clear_kept_objects();
        for rejected in self.hooks.take() {
            if let PromiseState::Rejected(why) = rejected.state() {
                let why = words(&JsError::from_opaque(why), &mut self.context);
                ops::warn(&format!("nobody handled this error of the script: {why}"));
            }
        }
    }
}

/// The prelude's functions. It is a function of the two doors to the host, so that scripts find neither among the globals.
fn prelude(context: &mut Context) -> JsResult<JsObject> {
    let source = Source::from_bytes(PRELUDE);
    let made = context.eval(source)?;
    let made = made
        .as_callable()
        .ok_or_else(|| JsNativeError::typ().with_message("the prelude is no function"))?;
    let doors = natives::all(context);
    let object = made.call(&JsValue::undefined(), &doors, context)?;
    object.as_object().ok_or_else(|| {
        JsNativeError::typ()
            .with_message("the prelude makes no object")
            .into()
    })
}

fn function(object: &JsObject, name: &str, context: &mut Context) -> Result<JsFunction, String> {
    let found = object.get(JsString::from(name), context);
    let found = found.map_err(|why| words(&why, context))?;
    found
        .as_function()
        .ok_or_else(|| format!("the prelude has no function {name}"))
}

/// The script's default export.
fn evaluate(
    name: &str,
    source: &str,
    context: &mut Context,
    jobs: &Rc<Jobs>,
) -> Result<JsValue, String> {
    let path = std::path::Path::new(name);
    let source = Source::from_bytes(source).with_path(path);
    let at = |why: JsError, context: &mut Context| {
        let why = words(&why, context);
        if why.contains(name) {
            why
        } else {
            format!("{name}: {why}")
        }
    };
    let module = Module::parse(source, None, context).map_err(|why| at(why, context))?;
    let evaluated = module.load_link_evaluate(context);
    jobs.drain(context).map_err(|why| at(why, context))?;
    match evaluated.state() {
        PromiseState::Fulfilled(_) => {}
        PromiseState::Rejected(why) => return Err(at(JsError::from_opaque(why), context)),
        PromiseState::Pending => {
            return Err(format!(
                "{name} waits for something while it is loaded: do that in on.start"
            ));
        }
    }
    let exported = module
        .namespace(context)
        .get(js_string!("default"), context);
    exported.map_err(|why| at(why, context))
}

/// An error in words, with its place in the script where that is known.
pub(crate) fn words(error: &JsError, context: &mut Context) -> String {
    let text = error.to_string();
    // The first line says what, the others where, from the inside out.
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next()) {
        (Some(what), Some(place)) => return format!("{what} ({place})"),
        (Some(what), None) => return what.to_owned(),
        _ => {}
    }
    error
        .clone()
        .into_opaque(context)
        .map_or_else(|_| "an error".into(), |value| text_of(&value))
}

/// The text of a value that is one; else how it looks.
pub(crate) fn text_of(value: &JsValue) -> String {
    value.as_string().map_or_else(
        || value.display().to_string(),
        |text| text.to_std_string_lossy(),
    )
}

/// The microtasks. Nothing here waits: jobs that would are of features that scripts do not have.
#[derive(Default)]
struct Jobs {
    queue: RefCell<VecDeque<Job>>,
}

impl Jobs {
    /// Ends early with an error that no script can catch: a limit of the engine was reached.
    fn drain(&self, context: &mut Context) -> JsResult<()> {
        loop {
            let Some(job) = self.queue.borrow_mut().pop_front() else {
                return Ok(());
            };
            match job {
                Job::PromiseJob(job) => job.call(context).map(drop)?,
                Job::GenericJob(job) => job.call(context).map(drop)?,
                // The loading of a module, which ends at once: there are none.
                Job::AsyncJob(job) => {
                    let context = RefCell::new(&mut *context);
                    job.call(&context)
                        .now_or_never()
                        .map_or(Ok(()), |done| done.map(drop))?;
                }
                _ => {}
            }
        }
    }
}

impl JobExecutor for Jobs {
    fn enqueue_job(self: Rc<Self>, job: Job, _: &mut Context) {
        self.queue.borrow_mut().push_back(job);
    }

    fn run_jobs(self: Rc<Self>, context: &mut Context) -> JsResult<()> {
        self.drain(context)
    }
}

/// Remembers what was rejected and not handled yet.
#[derive(Default)]
struct Hooks {
    rejected: RefCell<Vec<JsPromise>>,
}

impl Hooks {
    fn take(&self) -> Vec<JsPromise> {
        std::mem::take(&mut self.rejected.borrow_mut())
    }
}

impl HostHooks for Hooks {
    fn promise_rejection_tracker(
        &self,
        promise: &JsObject<boa_engine::builtins::promise::Promise>,
        operation: OperationType,
        _: &mut Context,
    ) {
        let Ok(promise) = JsPromise::from_object(promise.clone().upcast()) else {
            return;
        };
        let mut rejected = self.rejected.borrow_mut();
        match operation {
            OperationType::Reject if rejected.len() < MOST_REJECTIONS => rejected.push(promise),
            OperationType::Reject => {}
            OperationType::Handle => rejected.retain(|one| !JsObject::equals(one, &promise)),
        }
    }
}

/// A script is one file.
struct NoModules;

impl ModuleLoader for NoModules {
    async fn load_imported_module(
        self: Rc<Self>,
        _: Referrer,
        request: ModuleRequest,
        _: &RefCell<&mut Context>,
    ) -> JsResult<Module> {
        Err(JsNativeError::typ()
            .with_message(format!(
                "a script is one file and imports nothing, this one imports {}: bundle it first",
                request.specifier().to_std_string_lossy()
            ))
            .into())
    }
}
