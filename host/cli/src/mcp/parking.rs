//! Calls that wait for an answer while no request of a client is under way.
//!
//! A newer client gets a ticket and brings it back with the answer. The ticket is no state: it is sealed with a key of this process, and
//! names one waiting call, for this tool with these arguments, once, for ten minutes. One that this process did not write is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use rmcp::ErrorData;
use rmcp::model::{InputRequiredResult, RequestStateCodec, SealOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::desk::Ask;
use super::locked;
use super::question::Answers;
use super::running::Running;

/// How long somebody may take to answer.
const LONGEST: Duration = Duration::from_secs(600);
/// Most calls that wait: each keeps what it has begun.
const MOST: usize = 64;

/// What a call was made with: it has to be the same when it is made again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) arguments: Value,
}

/// A call that waits for answers.
pub(crate) struct Waiting<T> {
    pub(crate) running: Running<T>,
    pub(crate) ask: Ask,
    /// Those that are there already.
    pub(crate) given: Answers,
}

struct Parked<T> {
    waiting: Waiting<T>,
    made: Made,
    /// Ends the wait for the time limit.
    _taken: DropGuard,
}

#[derive(Debug, Serialize, Deserialize)]
struct Ticket {
    id: Uuid,
}

/// See the module.
pub(crate) struct Parking<T> {
    codec: RequestStateCodec,
    all: Mutex<HashMap<Uuid, Parked<T>>>,
}

impl<T: Send + 'static> Parking<T> {
    pub(crate) fn new() -> Arc<Self> {
        let mut key = Vec::with_capacity(32);
        key.extend_from_slice(Uuid::new_v4().as_bytes());
        key.extend_from_slice(Uuid::new_v4().as_bytes());
        Arc::new(Self {
            codec: RequestStateCodec::new(key),
            all: Mutex::default(),
        })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Uuid, Parked<T>>> {
        locked(&self.all)
    }

    /// Keeps a call and says what to hand to the client; where there is no room it returns the call.
    pub(crate) fn park(
        self: &Arc<Self>,
        waiting: Waiting<T>,
        made: Made,
    ) -> Result<InputRequiredResult, Box<Waiting<T>>> {
        let id = Uuid::new_v4();
        let options = SealOptions::new()
            .associated_data(made.name.as_bytes())
            .ttl(LONGEST);
        let Ok(ticket) = self.codec.seal_json_with(&Ticket { id }, &options) else {
            return Err(Box::new(waiting));
        };
        let mut requests = waiting.ask.questions.requests(true);
        requests.retain(|key, _| !waiting.given.contains_key(key));
        let taken = CancellationToken::new();
        {
            let mut all = self.all();
            if all.len() >= MOST {
                return Err(Box::new(waiting));
            }
            let parked = Parked {
                waiting,
                made,
                _taken: taken.clone().drop_guard(),
            };
            all.insert(id, parked);
        }
        let parking = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::select! {
                () = taken.cancelled() => {}
                () = tokio::time::sleep(LONGEST) => {
                    let late = parking.upgrade().and_then(|parking| parking.all().remove(&id));
                    // Gives the call up.
                    drop(late);
                }
            }
        });
        Ok(InputRequiredResult::new(Some(requests), Some(ticket)))
    }

    /// Takes the call of a ticket out. `None`: the ticket is ours, but its call is gone.
    pub(crate) fn take(&self, ticket: &str, made: &Made) -> Result<Option<Waiting<T>>, ErrorData> {
        let opened = self.codec.open_json_with(ticket, made.name.as_bytes());
        let Ticket { id } = opened.map_err(|why| {
            tracing::debug!("a ticket is refused: {why}");
            let why = "`requestState` is not what this server handed out for this name, or too old";
            ErrorData::invalid_params(why, None)
        })?;
        let mut all = self.all();
        if all.get(&id).is_some_and(|parked| parked.made != *made) {
            let why = "`requestState` belongs to a call with other arguments";
            return Err(ErrorData::invalid_params(why, None));
        }
        Ok(all.remove(&id).map(|parked| parked.waiting))
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Gives all of them up.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.all());
        drop(all);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_ticket_that_was_not_handed_out_is_refused() {
        let (parking, other) = (Parking::<()>::new(), Parking::<()>::new());
        let made = |name: &str| Made {
            name: name.into(),
            arguments: Value::Null,
        };
        let ticket = |parking: &Parking<()>, name: &str| {
            let options = SealOptions::new().associated_data(name.as_bytes());
            let ticket = Ticket { id: Uuid::new_v4() };
            parking.codec.seal_json_with(&ticket, &options).unwrap()
        };
        let ours = ticket(&parking, "t");
        assert!(matches!(parking.take(&ours, &made("t")), Ok(None)));
        assert!(parking.take(&ours, &made("u")).is_err(), "another name");
        let theirs = ticket(&other, "t");
        let mut changed = ours.clone().into_bytes();
        let at = changed.len() - 10;
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        for forged in [theirs.as_str(), &changed, "", ".", "x.y"] {
            assert!(parking.take(forged, &made("t")).is_err(), "{forged}");
        }
    }
}
