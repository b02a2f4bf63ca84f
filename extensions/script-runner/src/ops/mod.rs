//! The contract's functions, as a script sees them: by name, with JSON in and JSON out.
//!
//! Names are `family.operation`; `prelude.js` makes objects of them. A malformed request is refused as `invalid`: the
//! prelude passes on what a script gave.

mod conversation;
pub(crate) mod convert;
mod data;
mod machines;
mod processes;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use pi_vers_sdk::harness::log::{self, Level};
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::wit_bindgen::StreamReader;
use pi_vers_sdk::{Content, Error, outcome, text::Decoder};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::scope::Scope;

/// A script's wish.
pub(crate) struct Request {
    pub(crate) operation: String,
    pub(crate) json: String,
    pub(crate) bytes: Option<Vec<u8>>,
}

/// What came of it.
pub(crate) enum Answer {
    /// `{"ok": …}` or `{"error": …}`.
    Json(Value),
    /// Text of a stream, and how many bytes it was.
    Text(String, usize),
    /// Bytes of a stream.
    Bytes(Vec<u8>),
}

/// What an operation gives.
pub(crate) type Outcome = Result<Value, Error>;

impl Answer {
    pub(crate) fn refused(error: Error) -> Self {
        let kind = kind_of(&error);
        Self::Json(json!({ "error": { "kind": kind, "message": outcome::explain(&error) } }))
    }
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Ok(value) => Self::Json(json!({ "ok": value })),
            Err(error) => Self::refused(error),
        }
    }
}

impl Request {
    /// What the script gave, as the type that is wanted.
    pub(super) fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(&self.json).map_err(|why| {
            Error::Invalid(format!(
                "{} can't do with these arguments: {why}",
                self.operation
            ))
        })
    }
}

/// What a scope holds for its script, by number: dropped with the scope, which stops a process.
#[derive(Default)]
pub(crate) struct Handles {
    next: Cell<u32>,
    all: RefCell<HashMap<u32, Rc<Handle>>>,
}

/// One of them. A stream is taken out while it is read from.
pub(crate) enum Handle {
    Child(pi_vers_sdk::system::process::Child),
    Bytes(RefCell<Option<(StreamReader<u8>, Decoder)>>),
    Lines(processes::Follow),
    Body(data::Body),
}

impl Handles {
    pub(super) fn add(&self, handle: Handle) -> u32 {
        let number = self.next.get().wrapping_add(1);
        self.next.set(number);
        self.all.borrow_mut().insert(number, Rc::new(handle));
        number
    }

    pub(super) fn get(&self, number: u32) -> Result<Rc<Handle>, Error> {
        let found = self.all.borrow().get(&number).cloned();
        found.ok_or_else(|| Error::NotFound("it was closed".into()))
    }

    pub(super) fn remove(&self, number: u32) {
        self.all.borrow_mut().remove(&number);
    }

    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.all.borrow_mut());
        drop(all);
    }
}

/// An operation that may wait. Never fails but in its answer.
pub(crate) async fn later(scope: &Scope, request: Request) -> Answer {
    let family = request.operation.split('.').next().unwrap_or_default();
    match family {
        "timers" => sleep(&request).await.into(),
        "call" => cancelled(scope).await.into(),
        "vms" => machines::run(&request).await.into(),
        "shell" | "process" | "child" | "follow" => processes::run(scope, request).await.into(),
        "stream" => processes::read(scope, &request).await,
        "store" => data::store(&request).await.into(),
        "files" => data::files(scope, request).await.into(),
        "http" => data::http(scope, request).await.into(),
        "ui" => conversation::dialog(&request).await.into(),
        "session" => conversation::session(scope, &request).await.into(),
        "client" => conversation::client(&request).await.into(),
        _ => Answer::refused(unknown(&request)),
    }
}

/// An operation that never waits.
pub(crate) fn now(scope: &Scope, request: &Request) -> Answer {
    let family = request.operation.split('.').next().unwrap_or_default();
    match family {
        "log" => write(request).into(),
        "call" => of_call(scope, request).into(),
        "child" | "stream" | "follow" => processes::now(scope, request).into(),
        _ => conversation::now(request).into(),
    }
}

pub(super) fn unknown(request: &Request) -> Error {
    Error::NotFound(format!("there is no operation {}", request.operation))
}

/// A scope that has been closed.
pub(crate) fn over(operation: &str) -> Error {
    Error::Conflict(format!(
        "{operation}: the call that this ctx belongs to is over; work that goes on belongs into on.start"
    ))
}

async fn sleep(request: &Request) -> Outcome {
    #[derive(serde::Deserialize)]
    struct For {
        ms: f64,
    }
    let wanted: For = request.read()?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what is too small or too large ends at a bound"
    )]
    timers::sleep(wanted.ms.ceil() as u64).await?;
    Ok(Value::Null)
}

async fn cancelled(scope: &Scope) -> Outcome {
    match &scope.call {
        Some(call) => call.cancelled().await,
        None => std::future::pending().await,
    }
    Ok(Value::Null)
}

fn of_call(scope: &Scope, request: &Request) -> Outcome {
    #[derive(serde::Deserialize)]
    struct Update {
        content: Value,
        details: Option<Value>,
    }
    #[derive(serde::Deserialize)]
    struct Progress {
        done: f64,
        total: Option<f64>,
        #[serde(default)]
        caption: String,
    }
    let Some(call) = &scope.call else {
        return Err(Error::Conflict("this is no call of a tool".into()));
    };
    Ok(match request.operation.as_str() {
        "call.update" => {
            let Update { content, details } = request.read()?;
            let content: Vec<Content> = convert::content(content)?;
            let details = details.filter(|details| !details.is_null());
            call.update(
                &content,
                details.map(|details| details.to_string()).as_deref(),
            );
            Value::Null
        }
        "call.progress" => {
            let progress: Progress = request.read()?;
            call.progress(progress.done, progress.total, &progress.caption);
            Value::Null
        }
        "call.isCancelled" => call.is_cancelled().into(),
        "call.remaining" => call.remaining().into(),
        "call.patience" => call.patience().into(),
        _ => return Err(unknown(request)),
    })
}

/// Writes a line of the log.
pub(crate) fn write(request: &Request) -> Outcome {
    #[derive(serde::Deserialize)]
    struct Line {
        level: String,
        message: String,
    }
    let line: Line = request.read()?;
    let level = match line.level.as_str() {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "warn" => Level::Warn,
        "error" => Level::Error,
        _ => Level::Info,
    };
    log::write(level, &line.message);
    Ok(Value::Null)
}

/// For who reads the log.
pub(crate) fn warn(message: &str) {
    log::write(Level::Warn, message);
}

fn kind_of(error: &Error) -> &'static str {
    match error {
        Error::Denied(_) => "denied",
        Error::Invalid(_) => "invalid",
        Error::NotFound(_) => "not-found",
        Error::Conflict(_) => "conflict",
        Error::TimedOut(_) => "timed-out",
        Error::Cancelled => "cancelled",
        Error::Unavailable(_) => "unavailable",
        Error::Limit(_) => "limit",
        Error::Other(_) => "other",
    }
}

/// The error of this kind.
pub(crate) fn error_of(kind: &str, message: String) -> Error {
    match kind {
        "denied" => Error::Denied(message),
        "invalid" => Error::Invalid(message),
        "not-found" => Error::NotFound(message),
        "conflict" => Error::Conflict(message),
        "timed-out" => Error::TimedOut(message),
        "cancelled" => Error::Cancelled,
        "unavailable" => Error::Unavailable(message),
        "limit" => Error::Limit(message),
        _ => Error::Other(message),
    }
}
