//! How much longer the caller of a tool is likely to wait.
//!
//! A front end knows it, the tool has to act on it, and it changes on the way: a call that was handed back with a
//! question and is taken up again has a new request behind it, and one that became a task has no limit any more.
//! So it is a handle that both hold, not a number given once. It ends nothing by itself.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The patience of one call. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct Patience(Arc<Mutex<Option<Instant>>>);

impl Patience {
    pub(crate) fn new(limit: Option<Duration>) -> Self {
        let patience = Self::default();
        patience.set(limit);
        patience
    }

    /// From now on the caller waits this much longer; `None`: no limit is known.
    pub fn set(&self, limit: Option<Duration>) {
        // A limit beyond what the clock can tell is none.
        let until = limit.and_then(|limit| Instant::now().checked_add(limit));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }

    /// What is left of it.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.map(|until| until.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_are_one_and_what_is_used_up_is_nothing() {
        let patience = Patience::new(None);
        let same = patience.clone();
        assert_eq!(same.left(), None);
        patience.set(Some(Duration::ZERO));
        assert_eq!(same.left(), Some(Duration::ZERO));
        patience.set(Some(Duration::from_secs(60)));
        assert!(
            same.left()
                .is_some_and(|left| left <= Duration::from_secs(60))
        );
        patience.set(Some(Duration::MAX));
        assert_eq!(same.left(), None);
    }
}
