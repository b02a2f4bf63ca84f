//! Work that goes on when the call that began it is over.
//!
//! What a guest spawns in a call is attributed to that call as long as the call runs: if it is given up, every wait of the spawned
//! work ends with it. So work that belongs to the session is handed over here, to one task that [`Extension::start`](crate::Extension::start)
//! spawned, and which the host attributes to the extension itself.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;

use futures::channel::mpsc;
use futures::stream::{FuturesUnordered, StreamExt as _};

type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static DOOR: RefCell<Option<mpsc::UnboundedSender<Work>>> = const { RefCell::new(None) };
}

/// Opens the background. Call it in [`Extension::start`](crate::Extension::start), before anything is handed over; calling it again changes nothing.
pub fn open() {
    let Some(mut work) = DOOR.with_borrow_mut(|door| {
        if door.is_some() {
            return None;
        }
        let (send, receive) = mpsc::unbounded();
        *door = Some(send);
        Some(receive)
    }) else {
        return;
    };
    wit_bindgen::spawn_local(async move {
        let mut running = FuturesUnordered::new();
        loop {
            futures::select! {
                next = work.next() => match next {
                    Some(work) => running.push(work),
                    None => break,
                },
                // Empty, it is `None` at once and then not asked again until something was pushed.
                _ = running.next() => {}
            }
        }
    });
}

/// Does this in the background until it is done or the session ends. Before [`open`] it is spawned where the caller runs.
pub fn spawn(work: impl Future<Output = ()> + 'static) {
    let left = DOOR.with_borrow(|door| match door {
        Some(door) => door
            .unbounded_send(Box::pin(work))
            .err()
            .map(|why| why.into_inner()),
        None => Some(Box::pin(work) as Work),
    });
    if let Some(work) = left {
        wit_bindgen::spawn_local(work);
    }
}
