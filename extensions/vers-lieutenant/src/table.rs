//! The lieutenants of this session, by name, those of other sessions that are known among them.
//!
//! What changes one takes turns with what else changes it: [`turn`]. A name that is being made is taken already: [`reserve`].

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use futures::channel::mpsc;
use futures::lock::Mutex;
use pi_vers_sdk::agent::{Agent, Status};
use pi_vers_sdk::bell::{Bell, Ring};
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::platform::vms::{self, Origin};
use pi_vers_sdk::turns::{Turn, Turns};
use pi_vers_sdk::{Error, background};

use crate::announce::Untold;
use crate::record::{Phase, Record};
use crate::words::View;
use crate::{clock, show};

/// A lieutenant, as this session knows it.
pub(crate) struct Lieutenant {
    /// What it is called.
    pub(crate) name: String,
    live: RefCell<Live>,
    /// Rings with every change.
    bell: Bell,
    /// Held by who writes its record.
    pub(crate) writing: Mutex<()>,
    /// The record as the store has it, as far as is known.
    pub(crate) stored: RefCell<Option<String>>,
    /// What is to be told of its runs.
    pub(crate) news: Untold,
    /// A call is giving it a message, and says itself what becomes of that.
    pub(crate) sending: Cell<bool>,
    /// Its VM is being made.
    making: Cell<bool>,
}

struct Live {
    record: Record,
    agent: Option<Agent>,
    /// Counts who looks after it: whoever began with an older number has nothing to say any more.
    term: u64,
    /// Wakes who tries to reach it.
    poke: Option<mpsc::UnboundedSender<()>>,
    /// Another instance looks after it, at least until then.
    held: Option<u64>,
    /// Since when it has been idle, as far as this session can tell.
    idle: u64,
    /// When it is paused; its owner has been warned.
    warned: Option<u64>,
    /// What it said in the last run that ended.
    last: String,
}

thread_local! {
    static ALL: RefCell<BTreeMap<String, Rc<Lieutenant>>> = RefCell::default();
    static RESERVED: RefCell<BTreeSet<String>> = RefCell::default();
    static TURNS: Turns = Turns::new();
    static TERMS: Cell<u64> = const { Cell::new(0) };
}

impl Lieutenant {
    /// Knows one from now on; `stored` is its record as the store has it.
    pub(crate) fn put(record: Record, stored: Option<String>) -> Rc<Self> {
        let name = record.name.clone();
        let lieutenant = Rc::new(Self {
            name: name.clone(),
            live: RefCell::new(Live {
                record,
                agent: None,
                term: next_term(),
                poke: None,
                held: None,
                idle: timers::now(),
                warned: None,
                last: String::new(),
            }),
            bell: Bell::new(),
            writing: Mutex::new(()),
            stored: RefCell::new(stored),
            news: Untold::default(),
            sending: Cell::new(false),
            making: Cell::new(false),
        });
        ALL.with_borrow_mut(|all| all.insert(name, lieutenant.clone()));
        changed();
        lieutenant
    }

    /// Its record now.
    pub(crate) fn record(&self) -> Record {
        self.live.borrow().record.clone()
    }

    /// Changes its record in memory, and tells who waits for a change.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Record)) {
        change(&mut self.live.borrow_mut().record);
        self.bell.ring();
        changed();
    }

    /// Gives it a VM. Also when whoever asks is gone meanwhile: then whoever deletes it has to know of the VM.
    ///
    /// # Errors
    /// The platform's.
    pub(crate) async fn restore(self: &Rc<Self>, commit: String) -> Result<String, Error> {
        let one = self.clone();
        one.making.set(true);
        background::claimed(async move {
            let made = vms::restore(Origin::Commit(commit.clone())).await;
            one.making.set(false);
            one.change(|record| {
                if let Ok(vm) = &made {
                    record.vm = Some(vm.clone());
                    record.commit = Some(commit);
                }
            });
            made
        })
        .await
    }

    /// Waits until its VM is there, or will not be. Says whether that was still open.
    pub(crate) async fn made(&self) -> bool {
        let mut waited = false;
        loop {
            let change = self.bell.next();
            if !self.making.get() {
                return waited;
            }
            waited = true;
            change.await;
        }
    }

    /// It is so, with what is wrong.
    pub(crate) fn is(&self, phase: Phase, problem: Option<String>) {
        self.change(|record| {
            record.phase = phase;
            record.problem = problem;
        });
    }

    /// It did something just now: it is not idle for long.
    pub(crate) fn lives(&self) {
        let now = timers::now();
        let mut live = self.live.borrow_mut();
        live.record.active = now;
        live.idle = now;
        live.warned = None;
    }

    /// It has something to do.
    pub(crate) fn works(&self) {
        self.lives();
        self.change(|record| {
            record.phase = Phase::Working;
            record.problem = None;
            record.busy = true;
        });
    }

    /// Since when it is idle, and whether a pause is announced.
    pub(crate) fn idle(&self) -> (u64, Option<u64>) {
        let live = self.live.borrow();
        (live.idle, live.warned)
    }

    /// Its owner is warned: it is paused then.
    pub(crate) fn warn(&self, at: Option<u64>) {
        self.live.borrow_mut().warned = at;
        changed();
    }

    /// Its agent, while it is connected.
    pub(crate) fn agent(&self) -> Option<Agent> {
        self.live.borrow().agent.clone()
    }

    /// Begins a term: who looked after it before has nothing to say any more. Returns the term's number and who wakes it.
    pub(crate) fn begin(&self) -> (u64, mpsc::UnboundedReceiver<()>) {
        let (poke, poked) = mpsc::unbounded();
        let term = next_term();
        let mut live = self.live.borrow_mut();
        live.term = term;
        live.poke = Some(poke);
        live.held = None;
        (term, poked)
    }

    /// Whether this term goes on.
    pub(crate) fn in_term(&self, term: u64) -> bool {
        self.live.borrow().term == term
    }

    /// Its agent is connected: how it is comes from it from now on.
    pub(crate) fn connect(&self, agent: Agent) {
        let phase = match agent.status() {
            Status::Working => Phase::Working,
            Status::Idle => Phase::Idle,
            _ => Phase::Connecting,
        };
        {
            let mut live = self.live.borrow_mut();
            live.agent = Some(agent);
            live.idle = timers::now();
            live.warned = None;
        }
        self.is(phase, None);
    }

    /// What happened meanwhile has been read: how its agent is is known.
    pub(crate) fn settle(&self) {
        let phase = self.phase();
        let busy = phase == Phase::Working;
        if matches!(phase, Phase::Working | Phase::Idle) {
            self.change(|record| {
                record.phase = phase;
                record.busy = busy;
            });
        }
    }

    /// Its agent is not connected any more.
    pub(crate) fn disconnect(&self) -> Option<Agent> {
        self.live.borrow_mut().agent.take()
    }

    /// Ends the term: nobody follows it from now on. Returns its agent, let go.
    pub(crate) fn end_term(&self) -> Option<Agent> {
        let agent = {
            let mut live = self.live.borrow_mut();
            live.term = next_term();
            live.poke = None;
            live.agent.take()
        };
        if let Some(agent) = agent.as_ref().filter(|_| !self.record().is_local()) {
            agent.let_go();
        }
        agent
    }

    /// Another instance looks after it, until then at least.
    pub(crate) fn yield_to(&self, until: u64) {
        drop(self.end_term());
        self.live.borrow_mut().held = Some(until);
        self.change(|_| ());
    }

    /// Until when another instance has it at least, if one has.
    pub(crate) fn held(&self) -> Option<u64> {
        self.live.borrow().held
    }

    /// Tries at once what is tried again and again.
    pub(crate) fn poke(&self) {
        if let Some(poke) = &self.live.borrow().poke {
            // Nobody waits where nothing is tried again.
            let _ = poke.unbounded_send(());
        }
    }

    /// Resolves with the next change.
    pub(crate) fn changed(&self) -> Ring {
        self.bell.next()
    }

    /// How it is now: as its agent says, where it is connected.
    pub(crate) fn phase(&self) -> Phase {
        let live = self.live.borrow();
        match live.agent.as_ref().map(Agent::status) {
            Some(Status::Working) => Phase::Working,
            Some(Status::Idle) => Phase::Idle,
            _ => live.record.phase,
        }
    }

    /// What it said in the last run that ended.
    pub(crate) fn said(&self, text: String) {
        self.live.borrow_mut().last = text;
    }

    /// What is said in the run under way, or was in the last one, as far as this session knows.
    pub(crate) fn output(&self) -> String {
        if let Some(agent) = self.agent() {
            let now = agent.output();
            if !now.is_empty() || agent.status() == Status::Working {
                return now;
            }
        }
        self.live.borrow().last.clone()
    }

    /// Shows it to somebody.
    pub(crate) fn view<T>(&self, show: impl FnOnce(View<'_>) -> T) -> T {
        let record = self.record();
        let activity = self.agent().and_then(|agent| agent.activity());
        show(View {
            record: &record,
            phase: self.phase(),
            elsewhere: self.held().is_some(),
            output: self.output().chars().count(),
            activity: activity.as_deref(),
        })
    }
}

fn next_term() -> u64 {
    TERMS.set(TERMS.get() + 1);
    TERMS.get()
}

/// Something is different: the widget is drawn again, and times are looked at anew.
fn changed() {
    show::refresh();
    clock::wake();
}

/// All of them, by name.
pub(crate) fn all() -> Vec<Rc<Lieutenant>> {
    ALL.with_borrow(|all| all.values().cloned().collect())
}

/// Those that this session looks after.
pub(crate) fn ours() -> Vec<Rc<Lieutenant>> {
    let mut all = all();
    all.retain(|one| one.held().is_none());
    all
}

/// The one of this name.
pub(crate) fn find(name: &str) -> Option<Rc<Lieutenant>> {
    ALL.with_borrow(|all| all.get(name).cloned())
}

/// The one on this VM.
pub(crate) fn on_vm(vm: &str) -> Option<Rc<Lieutenant>> {
    all()
        .into_iter()
        .find(|one| one.live.borrow().record.vm.as_deref() == Some(vm))
}

/// Knows this one no more.
pub(crate) fn remove(lieutenant: &Rc<Lieutenant>) {
    ALL.with_borrow_mut(|all| {
        if all
            .get(&lieutenant.name)
            .is_some_and(|known| Rc::ptr_eq(known, lieutenant))
        {
            all.remove(&lieutenant.name);
        }
    });
    lieutenant.change(|_| ());
}

/// A name that nobody else may take meanwhile.
pub(crate) struct Reserved(String);

impl Drop for Reserved {
    fn drop(&mut self) {
        RESERVED.with_borrow_mut(|reserved| reserved.remove(&self.0));
    }
}

/// Takes a name, if it is free.
pub(crate) fn reserve(name: &str) -> Option<Reserved> {
    let free = find(name).is_none()
        && RESERVED.with_borrow_mut(|reserved| reserved.insert(name.to_owned()));
    free.then(|| Reserved(name.into()))
}

/// Waits until no other call changes the lieutenant of this name.
pub(crate) async fn turn(name: &str) -> Turn {
    TURNS.with(|turns| turns.take(name)).await
}
