//! One at a time, by name: calls of a session run side by side, and some must not.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use futures::lock::{Mutex, OwnedMutexGuard};

/// It is the caller's turn as long as it holds this.
pub type Turn = OwnedMutexGuard<()>;

/// Turns, each under a name: a file, a process, a VM. Lives in a `thread_local!` cell. A name that nobody waits for or holds costs nothing.
///
/// ```
/// use pi_vers_sdk::turns::Turns;
///
/// thread_local! {
///     static TURNS: Turns = Turns::new();
/// }
///
/// async fn change(file: &str) {
///     let turn = TURNS.with(|turns| turns.take(file)).await;
///     // Nobody else changes this file until `turn` is dropped.
///     drop(turn);
/// }
/// ```
#[derive(Debug, Default)]
pub struct Turns(RefCell<HashMap<String, Weak<Mutex<()>>>>);

impl Turns {
    /// No turns yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Waits until nobody else holds the turn of this name. First come, first served is not promised. Cancel-safe.
    pub fn take(&self, name: &str) -> impl Future<Output = Turn> + use<> {
        let mut turns = self.0.borrow_mut();
        turns.retain(|_, turn| turn.strong_count() > 0);
        let known = turns.entry(name.into()).or_default();
        let turn = known.upgrade().unwrap_or_else(|| {
            let turn = Arc::new(Mutex::new(()));
            *known = Arc::downgrade(&turn);
            turn
        });
        async move { turn.lock_owned().await }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn one_name_one_turn_and_others_do_not_wait() {
        let turns = Turns::new();
        let first = turns.take("a").now_or_never();
        assert!(first.is_some());
        assert!(turns.take("a").now_or_never().is_none());
        assert!(turns.take("b").now_or_never().is_some());
        drop(first);
        assert!(turns.take("a").now_or_never().is_some());
        assert_eq!(turns.0.borrow().len(), 1);
    }
}
