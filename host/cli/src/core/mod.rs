//! `pi-vers core`: the platform for programs in other languages, see `docs/core.md`.
//!
//! A request a line, an answer a line, any number at once. What a request had started ends when it is cancelled, and with the
//! input everything ends.

mod methods;
mod run;
mod tool;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::args::Core;
use crate::failure::{Code, Failure};
use crate::ssh::Platform;
use crate::wire::{END, LONGEST, Outbox, Signals, Stdio, line};

/// Requests under way.
const MOST: usize = 256;

/// A line of the input.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Request {
        id: u64,
        method: String,
        #[serde(default)]
        params: Value,
    },
    Cancel {
        cancel: u64,
    },
}

/// Why a request has no result.
#[derive(Debug)]
struct Problem {
    kind: &'static str,
    message: String,
    status: Option<u16>,
}

impl Problem {
    fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            status: None,
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Self::new(failure.kind, failure.line())
    }
}

impl From<vers_client::Error> for Problem {
    fn from(error: vers_client::Error) -> Self {
        let status = error.status();
        Self {
            status,
            ..Failure::from(error).into()
        }
    }
}

type Result<T, E = Problem> = std::result::Result<T, E>;

/// A request that runs.
struct Request {
    id: u64,
    platform: Arc<Platform>,
    tools: Arc<tool::Tools>,
    outbox: Arc<Outbox>,
    cancel: CancellationToken,
}

impl Request {
    /// Waits for what can be dropped at any time. Boxed: the futures of the platform's client are large.
    fn race<'a, T, E: Into<Problem>>(
        &'a self,
        work: impl Future<Output = Result<T, E>> + Send + 'a,
    ) -> impl Future<Output = Result<T>> + Send + 'a {
        let work = Box::pin(work);
        async move {
            tokio::select! {
                biased;
                () = self.cancel.cancelled() => Err(Problem::new("cancelled", "it was cancelled")),
                done = work => done.map_err(Into::into),
            }
        }
    }
}

/// The requests under way.
type UnderWay = Arc<Mutex<HashMap<u64, CancellationToken>>>;

fn lock(under_way: &UnderWay) -> MutexGuard<'_, HashMap<u64, CancellationToken>> {
    under_way.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Serves a program on standard input and output until its input ends.
pub(crate) async fn core(options: Core) -> Result<Code, Failure> {
    let mut signals = Signals::watch()?;
    let platform = Arc::new(Platform::of(options.local, options.state.as_deref()).await?);
    let tools = Arc::new(tool::Tools::default());
    let mut stdio = Stdio::open();
    let outbox = stdio.outbox.clone();
    let tasks = TaskTracker::new();
    let under_way = UnderWay::default();
    let stop = CancellationToken::new();
    let ended = loop {
        let next = tokio::select! {
            biased;
            () = signals.any() => break Ok(()),
            () = outbox.gone().cancelled() => break Ok(()),
            next = stdio.lines.next() => next,
        };
        let next = match next {
            Ok(Some(line)) => serde_json::from_slice(&line).map_err(|why| why.to_string()),
            Ok(None) => break Ok(()),
            Err(why) => Err(why.to_string()),
        };
        match next {
            Ok(Line::Cancel { cancel }) => {
                if let Some(token) = lock(&under_way).get(&cancel) {
                    token.cancel();
                }
            }
            Ok(Line::Request { id, method, params }) => {
                let cancel = stop.child_token();
                {
                    let mut all = lock(&under_way);
                    if all.contains_key(&id) || all.len() >= MOST {
                        drop(all);
                        let why = "too many requests are under way, or the id is in use";
                        let refused = answer(id, Err(Problem::new("limit", why)));
                        if !outbox.try_send(refused) {
                            tracing::warn!(id, "not answered: nobody reads");
                        }
                        continue;
                    }
                    all.insert(id, cancel.clone());
                }
                let request = Request {
                    id,
                    platform: platform.clone(),
                    tools: tools.clone(),
                    outbox: outbox.clone(),
                    cancel,
                };
                let under_way = under_way.clone();
                tasks.spawn(async move {
                    let result = methods::run(&request, &method, params).await;
                    let line = answer(id, result);
                    let room = request.outbox.room(line.len()).await;
                    lock(&under_way).remove(&id);
                    if let Some(room) = room {
                        request.outbox.put(room, line);
                    }
                });
            }
            Err(why) => {
                let why = format!("what came on standard input is no request: {why}");
                break Err(Failure::new(Code::Usage, "protocol", why).next("see docs/core.md"));
            }
        }
    };
    stop.cancel();
    tasks.close();
    let all = async {
        tasks.wait().await;
        tools.end().await;
    };
    if timeout(END, all).await.is_err() {
        tracing::warn!("a request or a session did not end in time");
    }
    stdio.finish().await;
    ended.map(|()| Code::Ok)
}

fn answer(id: u64, result: Result<Value>) -> Vec<u8> {
    let problem = |problem: &Problem| {
        let mut error = json!({ "kind": problem.kind, "message": problem.message });
        if let (Some(error), Some(status)) = (error.as_object_mut(), problem.status) {
            error.insert("status".into(), status.into());
        }
        line(&json!({ "id": id, "error": error }))
    };
    match result {
        Ok(result) => {
            let line = line(&json!({ "id": id, "result": result }));
            if line.len() <= LONGEST {
                return line;
            }
            problem(&Problem::new(
                "limit",
                "the result is larger than a line may be",
            ))
        }
        Err(why) => problem(&why),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_error_has_its_kind_and_the_platforms_status() {
        let mut problem = Problem::new("not-found", "there is no VM");
        problem.status = Some(404);
        let line = answer(3, Err(problem));
        let expected = json!({ "id": 3, "error": { "kind": "not-found", "message": "there is no VM", "status": 404 } });
        assert_eq!(serde_json::from_slice::<Value>(&line).unwrap(), expected);
        let line = answer(4, Ok("x".repeat(LONGEST).into()));
        let answered: Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(answered.pointer("/error/kind"), Some(&json!("limit")));
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics(text in "\\PC{0,100}", id in proptest::prelude::any::<i64>()) {
            let _ = serde_json::from_str::<Line>(&text);
            let _ = serde_json::from_value::<Line>(json!({ "id": id, "method": text }));
        }
    }
}
