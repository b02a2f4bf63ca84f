//! Work that goes on when the call that began it is over.
//!
//! What a guest spawns in a call is attributed to that call as long as the call runs: if it is given up, every wait of the spawned
//! work ends with it. So work that belongs to the session is handed over here, to one task that [`Extension::start`](crate::Extension::start)
//! spawned, and which the host attributes to the extension itself.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;

use futures::channel::{mpsc, oneshot};
use futures::future::abortable;
use futures::stream::{FuturesUnordered, StreamExt as _};

use crate::{Error, ToolCall, call, task};

type Work = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static DOOR: RefCell<Option<mpsc::UnboundedSender<Work>>> = const { RefCell::new(None) };
}

/// Opens the background. A [declaration](crate::declare) does so by itself; others call it in [`Extension::start`](crate::Extension::start), before
/// anything is handed over. Calling it again changes nothing.
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
    task::spawn(async move {
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
        task::spawn(work);
    }
}

/// Does work that is worth more than its caller's patience, such as starting a VM. As long as the caller is likely to wait this
/// waits, too; then it returns `None`, the work goes on in the background, and `late` is told what came of it. Given up before that,
/// the work is dropped.
///
/// Where no limit is known the work is awaited in the call itself: its own waits then end with the call.
///
/// # Errors
/// `Error::Cancelled`: the call was given up, and the work was dropped.
pub async fn outlasting<T: 'static>(
    call: &ToolCall,
    work: impl Future<Output = T> + 'static,
    late: impl FnOnce(T) + 'static,
) -> Result<Option<T>, Error> {
    if call.patience().is_none() {
        return Ok(Some(Box::pin(work).await));
    }
    let (work, handle) = abortable(Box::pin(work));
    let (tell, told) = oneshot::channel();
    let (gone, is_gone) = oneshot::channel::<()>();
    spawn(async move {
        let done = work.await;
        // Dropped by now, with all it held.
        drop(gone);
        if let Ok(done) = done
            && let Err(done) = tell.send(done)
        {
            late(done);
        }
    });
    let told = async { told.await.map_err(|_| Error::Cancelled) };
    let done = call::patiently(call, told).await;
    if done.is_err() {
        handle.abort();
        // Who gave it up may end the session next, and that waits for what is taken back only if it has begun.
        let _ = is_gone.await;
    }
    done
}

/// Asks for something that has to be given back if nobody takes it, such as a new VM: the answer is awaited also when whoever asks
/// is dropped meanwhile, and is then dropped, too. So `T` gives back in its `Drop`.
///
/// Without this an answer that arrives just before its call is given up belongs to nobody: the host has handed it over, and the
/// future that would have read it is gone.
///
/// # Errors
/// The request's own, or `Error::Cancelled`: the call it was made in is over.
pub async fn claimed<T: 'static>(
    ask: impl Future<Output = Result<T, Error>> + 'static,
) -> Result<T, Error> {
    let (tell, told) = oneshot::channel();
    task::spawn(async move {
        // Nobody may be there any more.
        let _ = tell.send(ask.await);
    });
    told.await.unwrap_or(Err(Error::Cancelled))
}

/// As [`outlasting`], for work that is better finished than dropped, such as looking for something: given up, it goes on, too.
///
/// # Errors
/// `Error::Cancelled`: the call was given up.
pub async fn regardless<T: 'static>(
    call: &ToolCall,
    work: impl Future<Output = T> + 'static,
) -> Result<Option<T>, Error> {
    if call.patience().is_none() {
        return Ok(Some(Box::pin(work).await));
    }
    let (tell, told) = oneshot::channel();
    let work = Box::pin(work);
    spawn(async move {
        // Nobody may be waiting any more.
        let _ = tell.send(work.await);
    });
    let told = async { told.await.map_err(|_| Error::Cancelled) };
    call::patiently(call, told).await
}

#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use futures::poll;

    use super::*;
    use crate::declare::Declaration;
    use crate::testing::Kit;

    struct Vm(Rc<Cell<u32>>);

    impl Drop for Vm {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }

    #[test]
    fn an_answer_that_nobody_waits_for_any_more_is_given_back() {
        let kit = Kit::new(Declaration::new("x", "1", "X"));
        let given_back = Rc::new(Cell::new(0));
        for is_read_late in [false, true] {
            let vm = Vm(given_back.clone());
            kit.run(async move {
                let (answer, answered) = oneshot::channel::<()>();
                let mut ask = Box::pin(claimed(async move {
                    let _ = answered.await;
                    Ok(vm)
                }));
                assert!(poll!(&mut ask).is_pending());
                task::yield_now().await;
                let _ = answer.send(());
                if is_read_late {
                    // The answer has arrived by then, and nobody reads it.
                    task::yield_now().await;
                }
            });
            kit.settle();
        }
        assert_eq!(given_back.get(), 2);
        let vm = Vm(given_back.clone());
        let read = kit.run(claimed(async move { Ok(vm) }));
        assert!(read.is_ok() && given_back.get() == 2);
    }
}
