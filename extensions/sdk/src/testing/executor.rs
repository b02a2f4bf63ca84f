//! One thread, many tasks, and a clock that only moves when a test lets it: a test of hours takes no time, and is the same every time.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::future::LocalBoxFuture;
use futures::stream::{FuturesUnordered, Stream as _};

use crate::Error;
use crate::bell::Bell;

/// Whose work something is: of a call, a command, an event, or of the session.
#[derive(Debug, Default)]
pub(crate) struct Owner {
    given_up: Cell<bool>,
    bell: Bell,
}

impl Owner {
    pub(crate) fn give_up(&self) {
        self.given_up.set(true);
        self.bell.ring();
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.get()
    }

    pub(crate) async fn given_up(&self) {
        while !self.given_up.get() {
            self.bell.next().await;
        }
    }
}

struct Task {
    owner: Rc<Owner>,
    work: LocalBoxFuture<'static, ()>,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let outer = OWNER.replace(Some(self.owner.clone()));
        let done = self.work.as_mut().poll(context);
        OWNER.set(outer);
        done
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

struct Timer {
    due: u64,
    waker: Waker,
}

thread_local! {
    static OWNER: RefCell<Option<Rc<Owner>>> = const { RefCell::new(None) };
    static NEW: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
    static RUNNING: RefCell<FuturesUnordered<Task>> = RefCell::new(FuturesUnordered::new());
    static TIMERS: RefCell<Vec<Timer>> = const { RefCell::new(Vec::new()) };
    static TICKS: Cell<u64> = const { Cell::new(0) };
}

/// Whose work runs now.
pub(crate) fn owner() -> Rc<Owner> {
    OWNER.with_borrow(Clone::clone).unwrap_or_default()
}

/// Runs this beside the others, as work of whoever runs now.
pub(crate) fn spawn(work: impl Future<Output = ()> + 'static) {
    spawn_for(owner(), work);
}

pub(crate) fn spawn_for(owner: Rc<Owner>, work: impl Future<Output = ()> + 'static) {
    let work: LocalBoxFuture<'static, ()> = Box::pin(work);
    NEW.with_borrow_mut(|new| new.push(Task { owner, work }));
}

/// Runs all tasks until each waits for something.
pub(crate) fn settle() {
    let woken = Arc::new(Woken::default());
    let waker = Waker::from(woken.clone());
    // Not borrowed while tasks run: they spawn others.
    let mut running = RUNNING.take();
    loop {
        running.extend(NEW.take());
        woken.0.store(false, Ordering::Relaxed);
        let next = pin!(&mut running).poll_next(&mut Context::from_waker(&waker));
        let is_idle = match next {
            Poll::Ready(Some(())) => false,
            Poll::Ready(None) | Poll::Pending => !woken.0.load(Ordering::Relaxed),
        };
        if is_idle && NEW.with_borrow(Vec::is_empty) {
            break;
        }
    }
    RUNNING.set(running);
}

/// Milliseconds of the clock.
pub(crate) fn ticks() -> u64 {
    TICKS.get()
}

/// Lets the clock go on to when something is due, but not beyond `limit`; `false`: nothing is due until then.
pub(crate) fn forward(limit: u64) -> bool {
    let next = TIMERS.with_borrow(|timers| timers.iter().map(|timer| timer.due).min());
    let Some(due) = next.filter(|due| *due <= limit) else {
        return false;
    };
    TICKS.set(ticks().max(due));
    let now = ticks();
    let due: Vec<Timer> =
        TIMERS.with_borrow_mut(|timers| timers.extract_if(.., |timer| timer.due <= now).collect());
    for timer in due {
        timer.waker.wake();
    }
    true
}

/// Lets the clock show this, at least.
pub(crate) fn set_ticks(to: u64) {
    TICKS.set(ticks().max(to));
}

/// Waits until the clock shows this.
pub(crate) async fn until(due: u64) {
    std::future::poll_fn(|context| {
        if ticks() >= due {
            return Poll::Ready(());
        }
        let waker = context.waker().clone();
        TIMERS.with_borrow_mut(|timers| {
            timers.retain(|timer| timer.due != due || !timer.waker.will_wake(&waker));
            timers.push(Timer { due, waker });
        });
        Poll::Pending
    })
    .await;
}

/// Waits for this as work of whoever runs now: given up, it ends.
pub(crate) async fn waiting<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    let owner = owner();
    if owner.is_given_up() {
        return Err(Error::Cancelled);
    }
    match futures::future::select(pin!(work), pin!(owner.given_up())).await {
        futures::future::Either::Left((done, _)) => Ok(done),
        futures::future::Either::Right(_) => Err(Error::Cancelled),
    }
}

/// Lets the others run.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Drops all work and sets the clock back.
pub(crate) fn clear() {
    // What is dropped may ask for the clock or spawn again.
    drop(RUNNING.take());
    drop(NEW.take());
    drop(TIMERS.take());
    TICKS.set(0);
}
