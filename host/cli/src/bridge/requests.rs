//! What the host asks of the shim.
//!
//! A request ends by its answer, by its deadline, or by its future being dropped, as the host does when the call that asked
//! is given up. In the last two cases the shim is told to let go of it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::CancellationToken;

use super::frames::{Incoming, News, Outgoing};
use crate::wire::{LONGEST, Outbox};

/// Requests under way; further ones wait.
const MOST: usize = 256;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Refused {
    fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
        }
    }
}

/// Hears what a request that runs has to tell.
pub(crate) type Hear = Box<dyn Fn(News) + Send + Sync>;

struct Pending {
    answer: oneshot::Sender<Result<Value, Refused>>,
    hear: Option<Arc<Hear>>,
}

/// See the module.
pub(crate) struct Requests {
    outbox: Arc<Outbox>,
    /// `None` once the session has ended.
    pending: Mutex<Option<HashMap<u64, Pending>>>,
    places: Semaphore,
    next: AtomicU64,
}

/// A request to be made.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) params: Value,
    /// The shim's id of what it is made for.
    pub(crate) call: Option<u64>,
    /// How long it may take; none is as long as who asks.
    pub(crate) limit: Option<Duration>,
    pub(crate) hear: Option<Hear>,
}

impl Requests {
    pub(crate) fn new(outbox: Arc<Outbox>) -> Self {
        Self {
            outbox,
            pending: Mutex::new(Some(HashMap::new())),
            places: Semaphore::new(MOST),
            next: AtomicU64::new(1),
        }
    }

    fn pending(&self) -> MutexGuard<'_, Option<HashMap<u64, Pending>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks. Dropping the future tells the shim that nobody wants the answer any more.
    pub(crate) async fn ask(&self, request: Request<'_>) -> Result<Value, Refused> {
        let (method, limit) = (request.method.to_owned(), request.limit);
        let answer = self.make(request, std::future::pending());
        match limit {
            None => answer.await,
            Some(limit) => tokio::time::timeout(limit, answer)
                .await
                .unwrap_or_else(|_| {
                    let why = format!(
                        "the harness did not answer {method} within {} s",
                        limit.as_secs()
                    );
                    Err(Refused::new("timed-out", why))
                }),
        }
    }

    /// Asks, and tells the shim once `cancel` fires; the answer is waited for all the same: it says that what was asked for
    /// has stopped.
    pub(crate) async fn ask_until(
        &self,
        request: Request<'_>,
        cancel: &CancellationToken,
    ) -> Result<Value, Refused> {
        self.make(request, cancel.cancelled()).await
    }

    async fn make(
        &self,
        request: Request<'_>,
        given_up: impl Future<Output = ()>,
    ) -> Result<Value, Refused> {
        let closed = || Refused::new("unavailable", "the session has ended");
        let Ok(_place) = self.places.acquire().await else {
            return Err(closed());
        };
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let line = Outgoing::Request {
            id,
            method: request.method,
            params: request.params,
            call: request.call,
        }
        .line();
        if line.len() > LONGEST {
            let why = format!(
                "what {} is asked is larger than a line may be",
                request.method
            );
            return Err(Refused::new("limit", why));
        }
        let Some(room) = self.outbox.room(line.len()).await else {
            return Err(closed());
        };
        let (sender, answer) = oneshot::channel();
        match self.pending().as_mut() {
            Some(pending) => pending.insert(
                id,
                Pending {
                    answer: sender,
                    hear: request.hear.map(Arc::new),
                },
            ),
            None => return Err(closed()),
        };
        let _guard = Guard { requests: self, id };
        self.outbox.put(room, line);
        let mut answer = pin!(answer);
        let given_up = pin!(given_up);
        let answer = tokio::select! {
            biased;
            answer = &mut answer => answer,
            () = given_up => {
                self.outbox.send_small(Outgoing::Cancel { id }.line());
                answer.await
            }
        };
        answer.unwrap_or_else(|_| Err(closed()))
    }

    /// Takes an answer, or news of a request that runs; hands back what is neither.
    pub(crate) fn take(&self, frame: Incoming) -> Option<Incoming> {
        match frame {
            Incoming::Result(answer) => self.answered(answer.id, Ok(answer.value)),
            Incoming::Error(why) => {
                let (code, message) = (why.code, why.message);
                self.answered(why.id, Err(Refused { code, message }));
            }
            Incoming::Update(news) => self.heard(news),
            other => return Some(other),
        }
        None
    }

    /// An answer has come. One that nobody waits for is passed over: the shim had sent it before it heard of the cancelling.
    fn answered(&self, id: u64, answer: Result<Value, Refused>) {
        let pending = self.pending().as_mut().and_then(|all| all.remove(&id));
        if let Some(pending) = pending {
            let _ = pending.answer.send(answer);
        }
    }

    /// News of a request that runs.
    fn heard(&self, news: News) {
        let hear = self
            .pending()
            .as_ref()
            .and_then(|all| all.get(&news.id)?.hear.clone());
        if let Some(hear) = hear {
            hear(news);
        }
    }

    /// Ends all of them: nobody is there to answer.
    pub(crate) fn close(&self) {
        self.pending().take();
        self.places.close();
    }
}

/// Tells the shim of a request that nobody wants the answer of.
struct Guard<'a> {
    requests: &'a Requests,
    id: u64,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let open = self
            .requests
            .pending()
            .as_mut()
            .and_then(|all| all.remove(&self.id));
        if open.is_some() {
            let line = Outgoing::Cancel { id: self.id }.line();
            self.requests.outbox.send_small(line);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use serde_json::json;

    fn request(limit: Option<Duration>) -> Request<'static> {
        Request {
            method: "ui.confirm",
            params: json!({}),
            call: Some(3),
            limit,
            hear: None,
        }
    }

    async fn written(outbox: &Outbox) -> Vec<Value> {
        outbox.finish();
        let mut bytes = Vec::new();
        outbox.write(&mut bytes).await;
        let lines = bytes.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }

    #[tokio::test]
    async fn a_request_ends_by_answer_deadline_or_by_being_dropped() {
        let outbox = Outbox::new();
        let requests = Requests::new(outbox.clone());
        let (answer, ()) = tokio::join!(requests.ask(request(None)), async {
            requests.answered(1, Ok(json!(true)));
            requests.answered(1, Ok(json!(false)));
            requests.answered(77, Ok(json!(1)));
        });
        assert_eq!(answer, Ok(json!(true)));
        let late = requests.ask(request(Some(Duration::from_millis(1)))).await;
        assert_eq!(late.unwrap_err().code, "timed-out");
        let dropped = tokio::time::timeout(Duration::from_millis(1), requests.ask(request(None)));
        assert!(dropped.await.is_err());
        let (closed, ()) = tokio::join!(requests.ask(request(None)), async { requests.close() });
        assert_eq!(closed.unwrap_err().code, "unavailable");
        assert!(requests.ask(request(None)).await.is_err());

        let frames = written(&outbox).await;
        let short: Vec<_> = frames
            .iter()
            .map(|frame| (frame["t"].as_str().unwrap(), frame["id"].as_u64().unwrap()))
            .collect();
        assert_eq!(
            short,
            [
                ("request", 1),
                ("request", 2),
                ("cancel", 2),
                ("request", 3),
                ("cancel", 3),
                ("request", 4)
            ]
        );
        assert_eq!(frames[0]["call"], 3);
    }
}
