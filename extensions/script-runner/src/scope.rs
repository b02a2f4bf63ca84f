//! What belongs to one call, command or event: its waits, its streams, its processes.
//!
//! The host knows for whom an import is called by the task that calls it, and ends what a call left behind with the call. A microtask
//! of one call may be turned by another, so a script's wish is not carried out where it was said: it goes to the scope
//! that it was said to (`ctx`), and the scope's own task carries it out.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use boa_engine::object::FunctionObjectBuilder;
use boa_engine::object::builtins::JsPromise;
use boa_engine::{Context, JsArgs as _, JsResult, JsValue, NativeFunction};
use futures::channel::{mpsc, oneshot};
use futures::future::LocalBoxFuture;
use futures::select_biased;
use futures::stream::{FuturesUnordered, StreamExt as _};
use pi_vers_sdk::{Error, ToolCall, ToolError, wit_bindgen};
use serde_json::Value;

use crate::engine::{self, text_of};
use crate::ops::{self, Answer, Handles, Request, convert};

/// Waits that a script may have under way in one call.
const MOST_WAITS: usize = 1024;

/// Settles the promise of a wish, in the engine.
pub(crate) type Settle = Box<dyn FnOnce(Answer, &mut Context) -> JsResult<()>>;

type Work = LocalBoxFuture<'static, (Settle, Answer)>;
/// The answer of the prelude: JSON, or the text of what it threw.
type Outcome = Result<String, String>;

thread_local! {
    static SCOPES: RefCell<HashMap<u32, Rc<Scope>>> = RefCell::new(HashMap::new());
    static NEXT: Cell<u32> = const { Cell::new(1) };
    static WATCHED: RefCell<HashMap<u32, oneshot::Sender<Outcome>>> = RefCell::new(HashMap::new());
}

/// See the module.
pub(crate) struct Scope {
    id: u32,
    /// The call, if it is one of a tool.
    pub(crate) call: Option<ToolCall>,
    /// Processes and streams that the script holds.
    pub(crate) handles: Handles,
    waits: Cell<usize>,
    wishes: mpsc::UnboundedSender<Work>,
    door: RefCell<Option<mpsc::UnboundedReceiver<Work>>>,
}

/// The scope that is still open under this id.
pub(crate) fn find(id: u32) -> Option<Rc<Scope>> {
    SCOPES.with_borrow(|scopes| scopes.get(&id).cloned())
}

/// Why a script has no answer.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The contract's word, or `failed` for an error of the script's own.
    kind: String,
    pub(crate) message: String,
    /// What the script gives besides, as a tool result.
    result: Option<Value>,
}

impl Scope {
    /// Opens a scope, for a call of a tool or for something else.
    pub(crate) fn open(call: Option<ToolCall>) -> Rc<Self> {
        let (wishes, door) = mpsc::unbounded();
        let id = NEXT.get();
        NEXT.set(id.wrapping_add(1).max(1));
        let scope = Rc::new(Self {
            id,
            call,
            handles: Handles::default(),
            waits: Cell::new(0),
            wishes,
            door: RefCell::new(Some(door)),
        });
        SCOPES.with_borrow_mut(|scopes| scopes.insert(id, scope.clone()));
        scope
    }

    /// What is asked of the scope from now on is refused, and what it held is let go of.
    fn close(&self) {
        SCOPES.with_borrow_mut(|scopes| scopes.remove(&self.id));
        WATCHED.with_borrow_mut(|watched| watched.remove(&self.id));
        self.handles.clear();
    }

    /// Takes a wish of the script on.
    ///
    /// # Errors
    /// When it has too many, with what would have settled it.
    pub(crate) fn ask(
        self: &Rc<Self>,
        request: Request,
        settle: Settle,
    ) -> Result<(), (Settle, Error)> {
        if self.waits.get() >= MOST_WAITS {
            let why = format!("more than {MOST_WAITS} waits at once in one call");
            return Err((settle, Error::Limit(why)));
        }
        self.waits.set(self.waits.get() + 1);
        let scope = self.clone();
        let work: Work = Box::pin(async move {
            let answer = ops::later(&scope, request).await;
            scope.waits.set(scope.waits.get().saturating_sub(1));
            (settle, answer)
        });
        // The receiver goes with the scope, and a scope that can be asked is open.
        let _ = self.wishes.unbounded_send(work);
        Ok(())
    }

    /// Lets the script do this, and ends with its answer: what it began and did not wait for is given up then.
    pub(crate) async fn run(
        scope: &Rc<Self>,
        kind: &str,
        payload: Value,
    ) -> Result<Value, Failure> {
        let outcome = match scope.begin(kind, &payload) {
            Ok(answer) => scope.serve(answer).await,
            Err(why) => Err(why),
        };
        scope.close();
        read(outcome)
    }

    /// The same, but what it began goes on.
    pub(crate) async fn run_on(
        scope: &Rc<Self>,
        kind: &str,
        payload: Value,
    ) -> Result<Value, Failure> {
        let mut answer = match scope.begin(kind, &payload) {
            Ok(answer) => answer,
            Err(why) => return read(Err(why)),
        };
        let (tell, told) = oneshot::channel();
        let serving = scope.clone();
        wit_bindgen::spawn_local(async move {
            let outcome = serving.serve_until(&mut answer).await;
            // Whoever started it may be gone.
            let _ = tell.send(outcome);
            let (_never, mut never) = oneshot::channel();
            let _ = serving.serve_until(&mut never).await;
        });
        read(told.await.unwrap_or_else(|_| Err("it was given up".into())))
    }

    fn begin(&self, kind: &str, payload: &Value) -> Result<oneshot::Receiver<Outcome>, String> {
        let (tell, told) = oneshot::channel();
        let id = self.id;
        WATCHED.with_borrow_mut(|watched| watched.insert(id, tell));
        engine::begin(kind, id, &payload.to_string(), |promise, context| {
            watch(id, &promise, context)
        })?;
        Ok(told)
    }

    async fn serve(&self, mut answer: oneshot::Receiver<Outcome>) -> Outcome {
        self.serve_until(&mut answer).await
    }

    /// Carries out what the script wishes, until it has answered.
    async fn serve_until(&self, answer: &mut oneshot::Receiver<Outcome>) -> Outcome {
        let Some(mut door) = self.door.borrow_mut().take() else {
            return Err("it is served already".into());
        };
        let mut running = FuturesUnordered::new();
        let outcome = loop {
            select_biased! {
                outcome = &mut *answer => {
                    break outcome.unwrap_or_else(|_| Err("the script gave no answer".into()));
                }
                wish = door.next() => if let Some(wish) = wish {
                    running.push(wish);
                },
                done = running.next() => if let Some((settle, answer)) = done {
                    let settled = engine::enter(|context| settle(answer, context).map_err(|why| engine::words(&why, context)));
                    if let Err(why) | Ok(Err(why)) = settled {
                        ops::warn(&format!("an answer did not reach the script: {why}"));
                    }
                    // A stream that always has more would never let others have their turn, and the host would end this as a loop.
                    wit_bindgen::yield_async().await;
                },
            }
        };
        // Who serves next goes on with what is under way.
        for work in running {
            let _ = self.wishes.unbounded_send(work);
        }
        *self.door.borrow_mut() = Some(door);
        outcome
    }
}

/// Tells the scope when the promise is settled, whoever turns the microtask.
fn watch(id: u32, promise: &JsPromise, context: &mut Context) -> JsResult<()> {
    let settled = |rejected: bool| {
        NativeFunction::from_copy_closure(move |_, arguments, _| {
            let text = text_of(arguments.get_or_undefined(0));
            if let Some(tell) = WATCHED.with_borrow_mut(|watched| watched.remove(&id)) {
                // Nobody listens any more once the call was given up.
                let _ = tell.send(if rejected { Err(text) } else { Ok(text) });
            }
            Ok(JsValue::undefined())
        })
    };
    let (good, bad) = (settled(false), settled(true));
    let good = FunctionObjectBuilder::new(context.realm(), good).build();
    let bad = FunctionObjectBuilder::new(context.realm(), bad).build();
    promise.then(Some(good), Some(bad), context).map(drop)
}

/// The prelude's answer: `{"ok": value}` or `{"error": {kind, message, result?}}`.
fn read(outcome: Outcome) -> Result<Value, Failure> {
    let failed = |message: String| Failure {
        kind: "failed".into(),
        message,
        result: None,
    };
    let mut answer: Value = serde_json::from_str(&outcome.map_err(failed)?)
        .map_err(|why| failed(format!("the answer of the script can't be read: {why}")))?;
    match answer.get_mut("error").map(Value::take) {
        Some(mut error) => Err(Failure {
            kind: text(&error, "kind"),
            message: text(&error, "message"),
            result: error.get_mut("result").map(Value::take),
        }),
        None => Ok(answer.get_mut("ok").map(Value::take).unwrap_or_default()),
    }
}

fn text(object: &Value, key: &str) -> String {
    object
        .get(key)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

impl Failure {
    /// As the end of a call of a tool.
    pub(crate) fn into_tool_error(self) -> ToolError {
        if let Some(result) = self.result.clone().filter(|result| !result.is_null()) {
            return match convert::tool_result(result) {
                Ok(result) => ToolError::Failed(result),
                Err(why) => ToolError::Capability(why),
            };
        }
        match self.kind.as_str() {
            "failed" => pi_vers_sdk::outcome::failed(self.message),
            "cancelled" => ToolError::Cancelled,
            _ => ToolError::Capability(self.into_error()),
        }
    }

    /// As the end of anything else.
    pub(crate) fn into_error(self) -> Error {
        ops::error_of(&self.kind, self.message)
    }
}
