//! One agent of the swarm: its record, its state, and the driver that holds it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use futures::future::AbortHandle;
use futures::lock::Mutex;
use pi_vers_sdk::agent::{Agent, Inbox, Kind, News, Status};
use pi_vers_sdk::background;
use pi_vers_sdk::harness::{log, timers};

use crate::record::Record;
use crate::state::{Giving, Phase, State};
use crate::widget::Row;
use crate::words::View;
use crate::{discover, keep, outbox, swarm};

/// See the module.
pub(crate) struct Worker {
    pub(crate) label: String,
    record: RefCell<Record>,
    state: RefCell<State>,
    agent: RefCell<Option<Agent>>,
    /// Counts the drivers: news of an earlier one are not heard.
    generation: Cell<u64>,
    /// A spawn makes it, and nobody else may touch it until that is told.
    pub(crate) is_spawning: Cell<bool>,
    outbox: RefCell<Option<AbortHandle>>,
    /// Whoever writes its record takes turns; `true` once there is none any more.
    pub(crate) saving: Mutex<bool>,
}

impl Worker {
    fn new(label: String, record: Record, state: State, is_spawning: bool) -> Rc<Self> {
        Rc::new(Self {
            label,
            record: RefCell::new(record),
            state: RefCell::new(state),
            agent: RefCell::new(None),
            generation: Cell::new(0),
            is_spawning: Cell::new(is_spawning),
            outbox: RefCell::new(None),
            saving: Mutex::new(false),
        })
    }

    /// One that a spawn is about to make.
    pub(crate) fn spawning(label: String) -> Rc<Self> {
        let record = Record {
            label: label.clone(),
            ..Record::default()
        };
        Self::new(label, record, State::default(), true)
    }

    /// One that there was before.
    pub(crate) fn known(label: String, record: Record) -> Rc<Self> {
        let state = record.state();
        Self::new(label, record, state, false)
    }

    /// The whole id of its VM, once there is one.
    pub(crate) fn vm(&self) -> Option<String> {
        let record = self.record.borrow();
        (!record.vm.is_empty()).then(|| record.vm.clone())
    }

    /// What is kept of it.
    pub(crate) fn record(&self) -> Record {
        let mut record = self.record.borrow().clone();
        record.keep(&self.state.borrow());
        record
    }

    /// Changes what is kept besides its state.
    pub(crate) fn note<T>(&self, change: impl FnOnce(&mut Record) -> T) -> T {
        change(&mut self.record.borrow_mut())
    }

    /// How it is now.
    pub(crate) fn phase(&self) -> Phase {
        self.state.borrow().phase.clone()
    }

    /// Its driver, if it is reached.
    pub(crate) fn agent(&self) -> Option<Agent> {
        self.agent.borrow().clone()
    }

    /// Changes its state, and lets everybody know.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let changed = change(&mut self.state.borrow_mut());
        swarm::changed();
        changed
    }

    /// Begins to give it a task.
    pub(crate) fn give(&self, task: &str) -> Result<Giving, Phase> {
        let given = self.state.borrow_mut().give(task);
        swarm::changed();
        given
    }

    /// Why its VM must not be thrown away yet.
    pub(crate) fn holds(&self, saved: bool) -> Option<String> {
        self.state.borrow().holds(saved)
    }

    /// As the widget shows it.
    pub(crate) fn row(&self) -> Row {
        let state = self.state.borrow();
        Row {
            label: self.label.clone(),
            phase: state.phase.clone(),
            task: state.task.clone(),
        }
    }

    /// As it is shown, with all it said.
    pub(crate) fn view(&self) -> View {
        let state = self.state.borrow().clone();
        let agent = self.agent.borrow();
        let live = match &*agent {
            Some(agent) if state.owed && state.running => {
                Some((agent.output(), agent.output_bytes()))
            }
            _ if state.owed => Some((String::new(), 0)),
            _ => None,
        };
        View {
            id: self.label.clone(),
            vm: self.vm(),
            last_activity: agent.as_ref().map(Agent::last_activity),
            live,
            state,
        }
    }

    /// Holds it by this driver from now on: hears its news and its outbox.
    pub(crate) fn hold(self: &Rc<Self>, agent: Agent, inbox: Inbox) {
        self.let_go();
        let generation = self.generation.get();
        *self.agent.borrow_mut() = Some(agent.clone());
        let now = agent.bookmark();
        let before = self.note(|record| record.bookmark.replace(now.clone()));
        if before.is_some_and(|before| before.start != now.start) {
            self.change(|state| {
                state.exited("another agent was started in its place", String::new(), 0);
                state.phase = Phase::Starting;
            });
        }
        background::spawn(self.clone().listen(agent.clone(), inbox, generation));
        let (listening, stop) = futures::future::abortable(outbox::listen(self.clone()));
        *self.outbox.borrow_mut() = Some(stop);
        background::spawn(async move {
            // It is aborted when it is let go.
            let _ = listening.await;
        });
        if agent.status() != Status::Starting {
            return self.reached(&agent);
        }
        // All that it said meanwhile is heard first.
        let worker = self.clone();
        background::spawn(async move {
            agent.changed(&Status::Starting).await;
            if worker.generation.get() == generation && worker.phase() == Phase::Starting {
                worker.reached(&agent);
            }
        });
    }

    /// It is held and says how it is.
    fn reached(&self, agent: &Agent) {
        let is_working = agent.status() == Status::Working;
        self.change(|state| {
            state.reached();
            if is_working && !state.owed {
                // Somebody else gave it something to do.
                state.started();
            }
        });
    }

    /// Hears and says no more. The agent goes on.
    pub(crate) fn let_go(&self) {
        self.generation.set(self.generation.get() + 1);
        if let Some(listening) = self.outbox.take() {
            listening.abort();
        }
        if let Some(agent) = self.agent.take() {
            agent.let_go();
        }
    }

    async fn listen(self: Rc<Self>, agent: Agent, mut inbox: Inbox, generation: u64) {
        while let Some(news) = inbox.next().await {
            if self.generation.get() != generation {
                return;
            }
            self.hear(&agent, news);
            keep::save(&self).await;
        }
        if self.generation.get() == generation && self.phase().is_reached() {
            self.change(|state| state.lost("its driver stopped", false));
        }
    }

    fn hear(self: &Rc<Self>, agent: &Agent, news: News) {
        match news {
            News::Started => self.change(State::started),
            News::Ended(run) => {
                self.note(|record| record.bookmark = Some(run.bookmark.clone()));
                // A run that ended with its agent: who waits for the one hears of both.
                let over = match agent.status() {
                    Status::Ended(why) => Some(why),
                    _ => None,
                };
                self.change(|state| {
                    state.ended(run);
                    if let Some(why) = over {
                        state.exited(&why, String::new(), 0);
                    }
                });
            }
            News::Notice(text) => {
                log::write(log::Level::Info, &format!("{}: {text}", self.label));
            }
            News::Status(Status::Ended(why)) => {
                let said = agent.output();
                let left_out = agent.output_bytes().saturating_sub(said.len() as u64);
                self.change(|state| state.exited(&why, said, left_out));
            }
            News::Status(Status::Lost(Kind::Unreachable | Kind::TimedOut, _)) => {
                self.let_go();
                self.change(|state| state.phase = Phase::Starting);
                background::spawn(discover::insist(self.clone()));
            }
            News::Status(Status::Lost(kind, why)) => {
                self.change(|state| state.lost(&why, kind == Kind::Gone));
            }
            // What these say, `Started` and `Ended` say better.
            News::Status(Status::Starting | Status::Idle | Status::Working) => {}
        }
    }

    /// Waits until it is not being started or reached any more, this long at most.
    ///
    /// # Errors
    /// `Error::Cancelled` with the call that waits.
    pub(crate) async fn settled(&self, patience: u64) -> Result<(), pi_vers_sdk::Error> {
        use futures::future::{Either, select};
        let late = timers::sleep(patience);
        futures::pin_mut!(late);
        while self.phase() == Phase::Starting && !self.is_spawning.get() {
            if let Either::Right((passed, _)) = select(swarm::next_change(), late.as_mut()).await {
                return passed;
            }
        }
        Ok(())
    }
}
