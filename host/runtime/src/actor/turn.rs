//! The life of an instance, turned by its own task, or for a moment by whoever gives it an order.
//!
//! Most orders are done within microseconds, but waking a task on another thread takes tens of them, and many more where a
//! core sleeps. So whoever gives an order may turn the life itself, on its own thread, when nobody else does just then: most
//! replies are there before it would have waited. What is not done after a moment is left to the task, and so is for a
//! while an instance that took long: a front end that serves its clients from one thread must not lose it to a guest.
//!
//! One at a time holds the life. A wake-up that comes meanwhile is noted, and passed on to the task when the holder lets
//! go; so none is lost, and none costs a thread's wake-up that the holder's next poll makes needless.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use futures::task::AtomicWaker;
use tokio::runtime::Handle;

use crate::engine::computed;

/// Polls in one turn of a giver of orders: a reply takes two or three.
const ROUNDS: usize = 8;
/// No further poll in a turn that took this long.
const ENOUGH: Duration = Duration::from_micros(200);
/// A turn that computed for this long is one too long for a thread that has other things to do.
const LONG: Duration = Duration::from_millis(1);
/// So many orders are left to the task after that.
const SKIPPED: u32 = 32;
/// And at first: its start, and one that shows what it is like.
const FIRST: u32 = 2;

const FREE: u8 = 0;
const HELD: u8 = 1;
/// Held, and woken meanwhile.
const WOKEN: u8 = 2;
const OVER: u8 = 3;

thread_local! {
    /// This thread polls a life just now: an order that comes from there is left to the task, so that lives do not nest.
    static TURNING: Cell<bool> = const { Cell::new(false) };
}

/// See the module.
pub(super) struct Turn {
    state: AtomicU8,
    /// Locked by the holder only. `None` once it is over.
    life: Mutex<Option<BoxFuture<'static, ()>>>,
    task: AtomicWaker,
    /// Where what the life spawns and waits for belongs, whichever thread turns it.
    runtime: Handle,
    skip: AtomicU32,
}

impl Turn {
    /// Must be called within a tokio runtime, which the task is spawned in.
    pub(super) fn start(life: impl Future<Output = ()> + Send + 'static) -> Arc<Self> {
        let turn = Arc::new(Self {
            state: AtomicU8::new(FREE),
            life: Mutex::new(Some(Box::pin(life))),
            task: AtomicWaker::new(),
            runtime: Handle::current(),
            skip: AtomicU32::new(FIRST),
        });
        tokio::spawn(Task(turn.clone()));
        turn
    }

    /// Gives an order and turns the life for a moment, if nobody else does. The order comes back if it was not taken; `give`
    /// returns it likewise.
    pub(super) fn give<T>(
        self: &Arc<Self>,
        order: T,
        give: impl FnOnce(T) -> Option<T>,
    ) -> Option<T> {
        if TURNING.get() || self.skips() || !self.take() {
            return Some(order);
        }
        let _held = Held(self);
        let given = give(order);
        let _runtime = self.runtime.enter();
        let begun = Instant::now();
        for round in 1.. {
            let over = self.poll();
            // Whoever takes note of a wake-up polls again: in the last round it is left to be passed on to the task.
            if over || round == ROUNDS || begun.elapsed() > ENOUGH || !self.goes_on() {
                break;
            }
        }
        given
    }

    fn skips(&self) -> bool {
        let less = |left: u32| left.checked_sub(1);
        self.skip
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok()
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    fn take(&self) -> bool {
        self.change(FREE, HELD)
    }

    /// The holder was woken meanwhile, and takes note.
    fn goes_on(&self) -> bool {
        self.change(WOKEN, HELD)
    }

    /// The holder's. Says whether the life is over.
    fn poll(self: &Arc<Self>) -> bool {
        let waker = Waker::from(self.clone());
        let mut life = self.life.lock().unwrap_or_else(PoisonError::into_inner);
        // Taken out: one that panics is over.
        let Some(mut work) = life.take() else {
            return true;
        };
        TURNING.set(true);
        let _done = Done;
        let begun = computed();
        let over = work
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready();
        // Not by the clock on the wall: another process may have had the core.
        if computed().saturating_sub(begun) > LONG {
            self.skip.store(SKIPPED, Ordering::Relaxed);
        }
        if !over {
            *life = Some(work);
        }
        over
    }

    /// The holder lets go; the task goes on with what is left.
    fn let_go(&self) {
        let over = self
            .life
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none();
        let next = if over { OVER } else { FREE };
        if self.state.swap(next, Ordering::AcqRel) == WOKEN || over {
            self.task.wake();
        }
    }
}

/// Lets go when dropped, be it by a panic.
struct Held<'a>(&'a Turn);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.let_go();
    }
}

/// Polling has ended, be it by a panic.
struct Done;

impl Drop for Done {
    fn drop(&mut self) {
        TURNING.set(false);
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        loop {
            match self.state.load(Ordering::Acquire) {
                HELD if !self.change(HELD, WOKEN) => {}
                FREE => return self.task.wake(),
                _ => return,
            }
        }
    }
}

/// Sees the life through. Dropped with its runtime it drops the life.
struct Task(Arc<Turn>);

impl Future for Task {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let turn = &self.0;
        turn.task.register(context.waker());
        while !turn.take() {
            match turn.state.load(Ordering::Acquire) {
                OVER => return Poll::Ready(()),
                // Whoever holds it passes this on.
                HELD if !turn.change(HELD, WOKEN) => {}
                HELD | WOKEN => return Poll::Pending,
                _ => {}
            }
        }
        let held = Held(turn);
        let over = turn.poll();
        drop(held);
        if over { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        let life = self
            .0
            .life
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(life);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use tokio::sync::mpsc;

    type Seen = Vec<(u64, std::thread::ThreadId)>;

    /// Keeps what it is given; notes the thread it is polled on.
    fn counter() -> (Arc<Turn>, mpsc::UnboundedSender<u64>, Arc<Mutex<Seen>>) {
        let (sender, mut queue) = mpsc::unbounded_channel();
        let seen = Arc::new(Mutex::new(Seen::new()));
        let served = seen.clone();
        let turn = Turn::start(async move {
            while let Some(order) = queue.recv().await {
                served
                    .lock()
                    .unwrap()
                    .push((order, std::thread::current().id()));
            }
        });
        (turn, sender, seen)
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_order_is_served_on_the_thread_that_gives_it_and_nothing_is_lost_under_contention() {
        let (turn, orders, seen) = counter();
        // The task has had its first turn.
        while turn.state.load(Ordering::Acquire) != FREE || turn.life.try_lock().is_err() {
            tokio::task::yield_now().await;
        }
        let here = std::thread::current().id();
        std::thread::scope(|scope| {
            for giver in 0..4 {
                let (turn, orders) = (&turn, &orders);
                scope.spawn(move || {
                    for at in 0..5_000 {
                        let give = |order| orders.send(order).err().map(|lost| lost.0);
                        if let Some(order) = turn.give(giver * 5_000 + at, give) {
                            orders.send(order).unwrap();
                        }
                    }
                });
            }
        });
        let all = async {
            while seen.lock().unwrap().len() < 20_000 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), all)
            .await
            .expect("every order is served without a further push");
        let elsewhere = |seen: &Seen| seen.iter().filter(|(_, thread)| *thread != here).count();
        assert_eq!(elsewhere(&seen.lock().unwrap()), 20_000);
        let before = seen.lock().unwrap().len();
        proven(&turn);
        while turn
            .give(1, |order| orders.send(order).err().map(|lost| lost.0))
            .is_some()
        {
            tokio::task::yield_now().await;
        }
        assert_eq!(
            seen.lock().unwrap().len(),
            before + 1,
            "it was served at once"
        );
    }

    fn proven(turn: &Turn) {
        turn.skip.store(0, Ordering::Relaxed);
    }

    #[tokio::test]
    async fn a_life_that_takes_long_is_left_to_its_task_for_a_while() {
        let turns = Arc::new(AtomicUsize::new(0));
        let polled = turns.clone();
        let turn = Turn::start(std::future::poll_fn(move |_| {
            polled.fetch_add(1, Ordering::Relaxed);
            let begun = computed();
            while computed() < begun + 2 * LONG {}
            Poll::Pending
        }));
        for _ in 0..FIRST {
            assert_eq!(turn.give((), |()| None), Some(()));
        }
        let give = || turn.give((), |()| None);
        assert_eq!(give(), None);
        for _ in 0..SKIPPED {
            assert_eq!(give(), Some(()));
        }
        assert_eq!(turns.load(Ordering::Relaxed), 1);
        assert_eq!(give(), None);
    }

    #[tokio::test]
    async fn a_life_that_wakes_itself_more_often_than_a_giver_polls_is_seen_through_by_its_task() {
        for wakes in 1..3 * ROUNDS {
            let (polls, ordered) = (
                Arc::new(AtomicUsize::new(0)),
                Arc::new(std::sync::atomic::AtomicBool::new(false)),
            );
            let (polled, order) = (polls.clone(), ordered.clone());
            let turn = Turn::start(std::future::poll_fn(move |context| {
                if !order.load(Ordering::Relaxed) {
                    return Poll::Pending;
                }
                if polled.fetch_add(1, Ordering::Relaxed) == wakes {
                    return Poll::Ready(());
                }
                context.waker().wake_by_ref();
                Poll::Pending
            }));
            // The task has had its first turn: nothing but a wake-up brings it another.
            tokio::task::yield_now().await;
            proven(&turn);
            let give = |()| {
                ordered.store(true, Ordering::Relaxed);
                None
            };
            assert_eq!(turn.give((), give), None);
            let over = async {
                while turn.state.load(Ordering::Acquire) != OVER {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), over)
                .await
                .expect("no wake-up is lost");
        }
    }

    #[tokio::test]
    async fn an_order_from_within_a_life_is_left_to_the_task() {
        let (inner, orders, seen) = counter();
        let (within, sent) = (inner.clone(), orders.clone());
        proven(&inner);
        let outer = Turn::start(std::future::poll_fn(move |_| {
            let given = within.give(7, |order| sent.send(order).err().map(|lost| lost.0));
            assert_eq!(given, Some(7));
            Poll::Ready(())
        }));
        proven(&outer);
        assert_eq!(outer.give((), |()| None), None);
        assert!(seen.lock().unwrap().is_empty());
        assert_eq!(outer.give((), |()| None), Some(()), "it is over");
        drop(orders);
    }

    #[tokio::test]
    async fn a_life_that_panics_is_over() {
        let turn = Turn::start(std::future::poll_fn(|_| panic!("on purpose")));
        proven(&turn);
        let give = std::panic::AssertUnwindSafe(|| turn.give((), |()| None));
        assert!(std::panic::catch_unwind(give).is_err());
        assert_eq!(turn.give((), |()| None), Some(()));
        assert!(!TURNING.get());
    }
}
