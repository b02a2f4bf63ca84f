//! Calls that wait for an answer while no request of the client is under way.
//!
//! A newer client gets a ticket and brings it back with the answer. The ticket is no state: it names one waiting call, for this
//! tool with these arguments, once, for ten minutes. A ticket that this process did not write is refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

use super::desk::Ask;
use super::rpc::Fault;
use super::running::Running;

/// How long somebody may take to answer.
const LONGEST: Duration = Duration::from_secs(600);
/// Most calls that wait: each keeps what it has begun.
const MOST: usize = 64;

/// What a call was made with: it has to be the same when it is made again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Made {
    pub(crate) method: &'static str,
    pub(crate) name: String,
    pub(crate) arguments: Value,
}

struct Parked {
    running: Running,
    ask: Ask,
    made: Made,
    /// Ends the wait for the time limit.
    _taken: DropGuard,
}

/// What a ticket leads to.
pub(crate) enum Found {
    Call(Running, Ask),
    /// The ticket is ours, but its call is gone.
    Gone,
}

/// See the module.
pub(crate) struct Parking {
    key: [u8; 32],
    all: Mutex<HashMap<Uuid, Parked>>,
}

impl Parking {
    pub(crate) fn new() -> Arc<Self> {
        let mut key = [0; 32];
        let (first, second) = key.split_at_mut(16);
        first.copy_from_slice(Uuid::new_v4().as_bytes());
        second.copy_from_slice(Uuid::new_v4().as_bytes());
        Arc::new(Self {
            key,
            all: Mutex::default(),
        })
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Uuid, Parked>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a call, and returns its ticket; where there is no room it returns the call.
    pub(crate) fn park(
        self: &Arc<Self>,
        running: Running,
        ask: Ask,
        made: Made,
    ) -> Result<String, Box<(Running, Ask)>> {
        let id = Uuid::new_v4();
        let taken = CancellationToken::new();
        {
            let mut all = self.all();
            if all.len() >= MOST {
                return Err(Box::new((running, ask)));
            }
            let parked = Parked {
                running,
                ask,
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
        Ok(format!("{}.{}", id.simple(), self.seal(id)))
    }

    fn seal(&self, id: Uuid) -> String {
        // Both parts have a fixed length: nothing can be appended to what was sealed.
        let mut hash = Sha256::new();
        hash.update(self.key);
        hash.update(id.as_bytes());
        let sealed = hash.finalize();
        sealed.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Takes the call of a ticket out.
    pub(crate) fn take(&self, ticket: &str, made: &Made) -> Result<Found, Fault> {
        let forged = || Fault::params("`requestState` is not what this server handed out");
        let (id, seal) = ticket.split_once('.').ok_or_else(forged)?;
        let id = Uuid::try_parse(id).map_err(|_| forged())?;
        let same = |a: &[u8], b: &[u8]| {
            // Says by its time nothing of where they differ.
            a.len() == b.len() && a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b)) == 0
        };
        if !same(seal.as_bytes(), self.seal(id).as_bytes()) {
            return Err(forged());
        }
        let mut all = self.all();
        match all.get(&id) {
            None => Ok(Found::Gone),
            Some(parked) if parked.made != *made => Err(Fault::params(
                "`requestState` belongs to a call with another name or other arguments",
            )),
            Some(_) => Ok(all.remove(&id).map_or(Found::Gone, |parked| {
                Found::Call(parked.running, parked.ask)
            })),
        }
    }

    /// Gives all of them up.
    pub(crate) fn clear(&self) {
        let all = std::mem::take(&mut *self.all());
        drop(all);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_ticket_that_was_not_handed_out_is_refused() {
        let (parking, other) = (Parking::new(), Parking::new());
        let made = Made {
            method: "tools/call",
            name: "t".into(),
            arguments: Value::Null,
        };
        let id = Uuid::new_v4();
        let ours = format!("{}.{}", id.simple(), parking.seal(id));
        assert!(matches!(parking.take(&ours, &made), Ok(Found::Gone)));
        let theirs = format!("{}.{}", id.simple(), other.seal(id));
        let changed = format!("{}.{}", Uuid::new_v4().simple(), parking.seal(id));
        for forged in [&theirs, &changed, "", ".", "x.y", id.to_string().as_str()] {
            assert!(parking.take(forged, &made).is_err(), "{forged}");
        }
    }
}
