//! `tool`: a tool of `vers-swarm`, for programs that have no harness of their own.
//!
//! Extensions run in sessions, which the program names: a session of the same name finds the agents of the last time again. There is no
//! conversation and nobody to answer dialogs. When the input ends, sessions end, and agents run on.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use futures::future::{BoxFuture, join_all};
use pi_vers_host::{Extension, Harness, HarnessError, Host, Session, Severity, StartReason};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};
use vers_client::Settings;

use super::{Problem, Request, Result};
use crate::failure::Failure;
use crate::setup;
use crate::shipped::SHIPPED;

/// The extension whose tools there are: others need a harness.
const EXTENSION: &str = "vers-swarm";
/// Sessions at once.
const MOST: usize = 32;
/// The session of a request that names none.
const DEFAULT: &str = "core";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Call {
    name: String,
    #[serde(default)]
    arguments: Option<Value>,
    #[serde(default)]
    session: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct End {
    session: String,
}

/// The host and its sessions, made when they are first needed.
#[derive(Default)]
pub(super) struct Tools {
    host: OnceCell<(Host, Extension)>,
    sessions: Mutex<HashMap<String, Session>>,
}

impl Tools {
    async fn host(&self, settings: &Settings) -> std::result::Result<&(Host, Extension), Failure> {
        let made = self.host.get_or_try_init(|| async {
            let host = setup::host(setup::policy(None)?, settings.clone()).await?;
            let shipped = SHIPPED
                .iter()
                .find(|shipped| shipped.name == EXTENSION)
                .ok_or_else(|| Failure::internal(format!("{EXTENSION} is not in this binary")))?;
            let extension = host
                .load(&setup::origin(shipped.name), shipped.wasm)
                .await?;
            Ok((host, extension))
        });
        made.await
    }

    async fn session(&self, name: &str, settings: &Settings) -> Result<Session> {
        let fits = (1..=64).contains(&name.len())
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !fits {
            let why = "session: use 1 to 64 letters, digits, -, _ and .";
            return Err(Problem::new("invalid", why));
        }
        let (host, extension) = self.host(settings).await?;
        let mut sessions = self.sessions.lock().await;
        if let Some(session) = sessions.get(name) {
            return Ok(session.clone());
        }
        if sessions.len() >= MOST {
            let why = format!("{MOST} sessions are open: end one with endSession");
            return Err(Problem::new("limit", why));
        }
        let harness = Arc::new(Program {
            session: name.to_owned(),
            directory: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
        });
        let session = host
            .session(harness, vec![extension.clone()])
            .map_err(Failure::from)?;
        session
            .start(StartReason::Startup)
            .await
            .map_err(Failure::from)?;
        sessions.insert(name.to_owned(), session.clone());
        Ok(session)
    }

    /// Ends all sessions, side by side.
    pub(super) async fn end(&self) {
        let sessions: Vec<Session> = self.sessions.lock().await.drain().map(|(_, s)| s).collect();
        join_all(sessions.into_iter().map(Session::end)).await;
    }
}

/// Calls a tool; cancelled, it returns when what the tool had started is gone.
pub(super) async fn call(request: &Request, call: Call) -> Result<Value> {
    let name = call.session.as_deref().unwrap_or(DEFAULT);
    let settings = request.platform.api.settings();
    let session = request.race(request.tools.session(name, settings)).await?;
    let arguments = call.arguments.unwrap_or_else(|| json!({}));
    let mut running = session.call(&call.name, arguments);
    let canceller = running.canceller();
    let outcome = tokio::select! {
        biased;
        outcome = running.outcome() => outcome,
        () = request.cancel.cancelled() => {
            canceller.cancel();
            running.outcome().await
        }
    };
    match outcome {
        Ok(output) => Ok(json!({ "text": output.text(), "details": output.details })),
        Err(pi_vers_host::CallError::Failed(output)) => Err(Problem::new("failed", output.text())),
        Err(why) => Err(Failure::from(why).into()),
    }
}

/// Ends a session: its agents run on.
pub(super) async fn end(request: &Request, end: End) -> Result<Value> {
    let session = request.tools.sessions.lock().await.remove(&end.session);
    if let Some(session) = session {
        session.end().await;
    }
    Ok(Value::Null)
}

/// The program as a harness: it has a directory, and nothing to show anything with.
#[derive(Debug)]
struct Program {
    session: String,
    directory: PathBuf,
}

impl Harness for Program {
    fn notify(&self, from: &str, message: &str, _: Severity) {
        tracing::warn!(extension = from, "{message}");
    }

    fn working_directory(&self) -> PathBuf {
        self.directory.clone()
    }

    fn session_id(&self) -> String {
        format!("core-{}", self.session)
    }

    fn append_entry(
        &self,
        _: &str,
        _: &str,
        _: Value,
    ) -> BoxFuture<'_, std::result::Result<(), HarnessError>> {
        Box::pin(async { Err(HarnessError::Unsupported("a session's entries")) })
    }

    fn entries(
        &self,
        _: &str,
        _: Option<&str>,
    ) -> BoxFuture<'_, std::result::Result<Vec<Value>, HarnessError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}
