//! One instance of an extension on the tape.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures::task::AtomicWaker;
use rand_core::TryRng as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::clock::{Clock, Seeded};
use super::floor::{Side, same};
use super::line::{Key, Line};
use super::orders;
use super::{Tape, TapeError};
use crate::actor::{Job, Reply};
use crate::owner::Owner;

/// See the module.
pub(crate) struct Voice {
    pub(super) tape: Tape,
    pub(super) by: Arc<str>,
    actor: u64,
    /// Which instance of its extension it is.
    instance: u64,
    clock: Clock,
    signal: Arc<Signal>,
    /// The guest gave way in the middle of its work.
    gave_way: AtomicBool,
    /// Answers that hold until something is brought.
    fresh: Mutex<HashMap<String, Value>>,
    /// It was told that the session ends.
    stopping: AtomicBool,
    /// It has returned from that: what it does from here on until it is dropped is chance, and on no tape.
    over: AtomicBool,
    /// The ask that streams which are made now belong to; 0: none.
    asking: AtomicU64,
}

impl Drop for Voice {
    fn drop(&mut self) {
        self.tape.floor().gone(self.actor);
    }
}

/// Whether an instance was woken since it was polled.
#[derive(Default)]
struct Signal {
    woken: AtomicBool,
    outer: AtomicWaker,
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.outer.wake();
    }
}

/// An error that ends the guest: it cannot go on on a tape that has no way on for it.
pub(super) fn ends(why: TapeError) -> wasmtime::Error {
    wasmtime::Error::msg(why.to_string())
}

/// A value for the tape.
pub(super) fn value(of: &impl Serialize) -> wasmtime::Result<Value> {
    serde_json::to_value(of).map_err(|why| wasmtime::Error::msg(why.to_string()))
}

/// A value from the tape.
pub(super) fn read<R: DeserializeOwned>(from: Value) -> wasmtime::Result<R> {
    serde_json::from_value(from).map_err(|why| {
        wasmtime::Error::msg(format!(
            "the tape has an answer of another shape than the contract's: {why}"
        ))
    })
}

/// What passed the turnstile.
pub(super) struct Passed {
    /// Replaying: the line.
    pub(super) line: Option<Line>,
    pub(super) at: u64,
}

impl Voice {
    pub(crate) fn new(tape: &Tape, by: Arc<str>) -> Arc<Self> {
        let instance = tape.0.instances(&by);
        Arc::new(Self {
            tape: tape.clone(),
            by,
            actor: tape.0.actors.fetch_add(1, Ordering::Relaxed),
            instance,
            clock: Clock::default(),
            signal: Arc::default(),
            gave_way: AtomicBool::new(false),
            fresh: Mutex::default(),
            stopping: AtomicBool::new(false),
            over: AtomicBool::new(false),
            asking: AtomicU64::new(0),
        })
    }

    pub(crate) fn replays(&self) -> bool {
        self.tape.replays()
    }

    /// Polls the instance, and says when it has come to rest.
    pub(crate) fn polled<T>(
        &self,
        context: &mut Context<'_>,
        work: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.signal.outer.register(context.waker());
        self.signal.woken.store(false, Ordering::SeqCst);
        self.gave_way.store(false, Ordering::SeqCst);
        self.tape.floor().runs(self.actor);
        let waker = Waker::from(self.signal.clone());
        let result = work(&mut Context::from_waker(&waker));
        if result.is_pending() {
            if self.gave_way.load(Ordering::SeqCst) {
                self.tape.floor().computes();
            } else if !self.signal.woken.load(Ordering::SeqCst) {
                self.tape.floor().rests(self.actor);
            }
        }
        result
    }

    /// The guest gives way, and has not come to rest.
    pub(crate) fn gives_way(&self) {
        self.gave_way.store(true, Ordering::SeqCst);
    }

    /// Waits for the turn of this.
    pub(super) fn turn(self: &Arc<Self>, key: Key) -> Turn {
        Turn {
            voice: self.clone(),
            key,
            id: None,
        }
    }

    /// Whether nothing of it is of interest any more.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn write(&self, line: Line) {
        if self.is_over() {
            return;
        }
        if let Side::Record(recorder) = &mut self.tape.floor().side {
            recorder.write(line);
        }
    }

    /// The extension asks: the number of it, and, replaying, the answer if it is one that waits for nothing.
    pub(super) fn ask(
        &self,
        call: Option<u64>,
        what: &str,
        with: Value,
        answer: Option<Value>,
    ) -> wasmtime::Result<(u64, Option<Value>)> {
        let mut floor = self.tape.floor();
        if let Some(failed) = floor.failed() {
            return Err(ends(failed.clone()));
        }
        let n = floor.number();
        if self.is_over() {
            return Ok((n, None));
        }
        match &mut floor.side {
            Side::Idle => Ok((n, None)),
            Side::Record(recorder) => {
                recorder.write(Line::Ask {
                    n,
                    by: self.by.to_string(),
                    call,
                    what: what.to_owned(),
                    with,
                    answer,
                });
                Ok((n, None))
            }
            Side::Replay(player) => match player.ask(&self.by, what, with) {
                Ok(found) => Ok(found),
                Err(why) => Err(ends(floor.fail(why))),
            },
        }
    }

    /// A question that waits for nothing and changes nothing: one answer until something is brought.
    pub(super) fn look<R: Serialize + DeserializeOwned>(
        &self,
        what: &str,
        with: Value,
        real: impl FnOnce() -> wasmtime::Result<R>,
    ) -> wasmtime::Result<R> {
        let key = same(&self.by, what, &with);
        if let Some(known) = self.fresh().get(&key) {
            return read(known.clone());
        }
        let found = if self.is_over() {
            value(&real()?)?
        } else if self.replays() {
            let mut floor = self.tape.floor();
            let found = match &floor.side {
                Side::Replay(player) => player.state(&self.by, what, with),
                Side::Idle | Side::Record(_) => Ok(Value::Null),
            };
            found.map_err(|why| ends(floor.fail(why)))?
        } else {
            let found = value(&real()?)?;
            if let Side::Record(recorder) = &mut self.tape.floor().side
                && !self.is_over()
                && recorder.states.get(&key) != Some(&found)
            {
                recorder.states.insert(key.clone(), found.clone());
                recorder.write(Line::State {
                    by: self.by.to_string(),
                    what: what.to_owned(),
                    with,
                    value: found.clone(),
                });
            }
            found
        };
        self.fresh().insert(key, found.clone());
        read(found)
    }

    fn fresh(&self) -> std::sync::MutexGuard<'_, HashMap<String, Value>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ask that streams which are made now belong to.
    pub(super) fn set_asking(&self, n: Option<u64>) {
        self.asking.store(n.unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn asking(&self) -> Option<u64> {
        Some(self.asking.load(Ordering::Relaxed)).filter(|n| *n != 0)
    }

    /// Lets a call in: waits for its turn, and gives it the id that it had.
    pub(crate) async fn enter(
        self: &Arc<Self>,
        owner: &Owner,
        job: &mut Job,
    ) -> wasmtime::Result<()> {
        let Some(told) = orders::job(job)? else {
            return Ok(());
        };
        let found = {
            let mut floor = self.tape.floor();
            if let Some(failed) = floor.failed() {
                return Err(ends(failed.clone()));
            }
            match &mut floor.side {
                Side::Replay(player) => match player.enter(&self.by, told.clone()) {
                    Ok((n, id)) => Some((n, id)),
                    Err(why) => return Err(ends(floor.fail(why))),
                },
                Side::Idle | Side::Record(_) => None,
            }
        };
        let n = match &found {
            Some((n, _)) => *n,
            None => self.tape.floor().number(),
        };
        owner.set_number(n, self.by.clone());
        if matches!(job, Job::Stop) {
            self.stopping.store(true, Ordering::Relaxed);
        }
        let passed = self.turn(Key::Enter(n)).await?;
        match found {
            Some((_, Some(id))) => orders::set_id(job, id),
            Some((_, None)) => {}
            None => self.write(Line::Enter {
                n,
                by: self.by.to_string(),
                at: passed.at,
                id: orders::id(job),
                job: told,
            }),
        }
        Ok(())
    }

    /// A call is over, and came to this if the extension serves such calls.
    pub(crate) fn returned(&self, owner: &Owner, reply: Option<&Reply>) -> wasmtime::Result<()> {
        let compared = reply.map_or(Ok(()), |reply| self.compared(owner, reply));
        if self.stopping.load(Ordering::Relaxed) {
            self.over.store(true, Ordering::Relaxed);
        }
        compared
    }

    fn compared(&self, owner: &Owner, reply: &Reply) -> wasmtime::Result<()> {
        if self.is_over() {
            return Ok(());
        }
        let Some((n, _)) = owner.number() else {
            return Ok(());
        };
        let reply = orders::reply(reply)?;
        let mut floor = self.tape.floor();
        match &mut floor.side {
            Side::Idle => Ok(()),
            Side::Record(recorder) => {
                recorder.write(Line::Return {
                    n: *n,
                    by: self.by.to_string(),
                    reply,
                });
                Ok(())
            }
            Side::Replay(player) => match player.returned(&self.by, *n, reply) {
                Ok(()) => Ok(()),
                Err(why) => Err(ends(floor.fail(why))),
            },
        }
    }

    /// A look at the clock: microseconds of the session.
    pub(crate) fn ticks(&self) -> u64 {
        let real = (!self.replays()).then(|| self.tape.elapsed());
        let (at, jump) = self.clock.read(real);
        if let Some((reads, at)) = jump {
            self.write(Line::Clock {
                by: self.by.to_string(),
                reads,
                at,
            });
        }
        at
    }

    /// A look at the clock of the world: microseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        let started = self.tape.0.started.saturating_mul(1_000);
        started.saturating_add(self.ticks())
    }

    /// Random numbers for this instance.
    pub(crate) fn chance(&self, use_: &str) -> Seeded {
        Seeded::new(&self.tape.0.seed, &self.by, self.instance, use_)
    }

    /// The seed of the guest's own generators.
    pub(crate) fn seed(&self) -> u128 {
        let mut chance = self.chance("seed");
        let Ok(high) = chance.try_next_u64();
        let Ok(low) = chance.try_next_u64();
        (u128::from(high) << 64) | u128::from(low)
    }

    fn passed(&self, brought: Option<(Line, super::floor::Ticks)>) -> Passed {
        self.fresh().clear();
        let (line, at, ticks) = match brought {
            Some((line, ticks)) => {
                let at = line.delivery().map_or(0, |(_, _, at)| at);
                (Some(line), at, ticks)
            }
            None => {
                let at = self.tape.elapsed().max(self.clock.peek());
                (None, at, super::floor::Ticks::new())
            }
        };
        self.clock.set(at, ticks);
        Passed { line, at }
    }
}

/// A place in the queue before the turnstile. It waits as long as the tape does not come to it: whoever called the extension sees
/// that a replay does not stand still, see [`Tape::gives_up`].
pub(super) struct Turn {
    voice: Arc<Voice>,
    key: Key,
    id: Option<u64>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.voice.tape.floor().leave(id);
        }
    }
}

impl Future for Turn {
    type Output = wasmtime::Result<Passed>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut floor = this.voice.tape.floor();
        if let Some(failed) = floor.failed() {
            return Poll::Ready(Err(ends(failed.clone())));
        }
        // Before anything is looked at: a grant from here on wakes this.
        let id = *this
            .id
            .get_or_insert_with(|| floor.wait(this.voice.actor, this.key, context.waker().clone()));
        let brought = ready!(floor.pass(id, context.waker()));
        this.id = None;
        drop(floor);
        Poll::Ready(match brought {
            Ok(brought) => Ok(this.voice.passed(brought)),
            Err(why) => Err(ends(why)),
        })
    }
}
