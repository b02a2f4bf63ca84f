//! Waking all who wait for a change.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::channel::oneshot;

/// Wakes everybody who waits for its next ring. What has changed they look up themselves:
///
/// ```
/// # use std::cell::Cell;
/// # use pi_vers_sdk::bell::Bell;
/// # async fn until_done(bell: &Bell, done: &Cell<bool>) {
/// loop {
///     // First listen, then look: a ring in between is not missed.
///     let ring = bell.next();
///     if done.get() {
///         break;
///     }
///     ring.await;
/// }
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Bell(RefCell<Vec<oneshot::Sender<()>>>);

impl Bell {
    /// A bell that nobody listens to yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// Wakes all who listen now.
    pub fn ring(&self) {
        for waiting in self.0.take() {
            // It may have stopped listening.
            let _ = waiting.send(());
        }
    }

    /// Listens from now on, and resolves with the next ring, or when the bell is gone. Dropped, nobody listens.
    pub fn next(&self) -> Ring {
        let (ring, rung) = oneshot::channel();
        let mut waiting = self.0.borrow_mut();
        waiting.retain(|other| !other.is_canceled());
        waiting.push(ring);
        Ring(rung)
    }
}

/// The next ring of a [`Bell`].
#[derive(Debug)]
pub struct Ring(oneshot::Receiver<()>);

impl Future for Ring {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // A bell that is gone rings no more: then there is nothing to wait for.
        self.0.poll_unpin(context).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_wakes_all_who_listened_before_and_nobody_else() {
        let bell = Bell::new();
        bell.ring();
        let (one, two) = (bell.next(), bell.next());
        assert!(bell.next().now_or_never().is_none());
        bell.ring();
        assert!(one.now_or_never().is_some() && two.now_or_never().is_some());
        assert!(bell.next().now_or_never().is_none());
    }

    #[test]
    fn who_stopped_listening_is_forgotten() {
        let bell = Bell::new();
        for _ in 0..100 {
            drop(bell.next());
        }
        assert!(bell.0.borrow().len() <= 1);
    }
}
