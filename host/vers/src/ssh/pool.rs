//! A VM's connections and the places on them.
//!
//! sshd allows ten sessions on a connection and frees one a little after its user has seen it end; so five commands
//! run on each, besides the control shell, the file session and what lingers. More connections are opened as commands
//! wait, two at a time (sshd drops unauthenticated connections from the tenth on), up to eight.
//!
//! Opening a channel costs a round trip, which is most of what a short command takes over distance. So each
//! connection keeps up to two channels open in advance.
//!
//! A connection that nothing uses is closed after a while ([`keeper`](super::keeper)): the first after the time that the
//! options say, the further ones and those for bulk data and tunnels sooner.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use russh::Channel;
use russh::client::Msg;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::Link;
use super::control::Control;
use super::dial::Purpose;
use super::keeper;
use super::lease::{Held, Slot};
use super::machine::Machine;
use super::sftp::Sftp;
use crate::error::Result;

/// Commands at once on a connection.
pub(super) const COMMANDS: usize = 5;
pub(super) const CONNECTIONS: usize = 8;
const OPENING: usize = 2;
/// Channels opened in advance on a connection.
const SPARES: usize = 2;
/// Ended commands on a connection whose background processes hold their channels.
const LINGERING: usize = 2;
/// No further connection is tried for so long after one failed to come about.
const GROWTH_PAUSE: Duration = Duration::from_secs(1);

/// A connection with what goes with it. When it is dropped, its control shell stops what still runs.
pub(super) struct Connection {
    link: Arc<Link>,
    control: Control,
    id: String,
    next: AtomicU64,
    spares: Mutex<Vec<Channel<Msg>>>,
    lingering: Arc<Semaphore>,
    users: watch::Sender<usize>,
    shutdown: CancellationToken,
}

impl Connection {
    pub(super) fn new(link: Link, grace: Duration) -> Self {
        let link = Arc::new(link);
        let id = uuid::Uuid::new_v4().simple().to_string();
        let shutdown = CancellationToken::new();
        let control = Control::start(link.clone(), &id, grace, shutdown.clone());
        let lingering = Arc::new(Semaphore::new(LINGERING));
        // Number 0 is the control shell itself.
        Self {
            link,
            control,
            id,
            next: AtomicU64::new(1),
            spares: Mutex::default(),
            lingering,
            users: watch::Sender::new(0),
            shutdown,
        }
    }

    pub(super) fn link(&self) -> &Arc<Link> {
        &self.link
    }

    pub(super) fn control(&self) -> &Control {
        &self.control
    }

    pub(super) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The mark of a command's processes.
    pub(super) fn tag(&self, number: u64) -> String {
        format!("{}.{number}.", self.id)
    }

    /// How many use it.
    pub(super) fn users(&self) -> &watch::Sender<usize> {
        &self.users
    }

    pub(super) fn lingering(&self) -> Arc<Semaphore> {
        self.lingering.clone()
    }

    /// For the next command.
    pub(super) fn keep_spare(&self, channel: Channel<Msg>) {
        self.spares().push(channel);
    }

    /// Has its control shell stop what runs, and then closes it.
    pub(super) fn shut_down(&self) {
        self.spares().clear();
        self.shutdown.cancel();
    }

    fn spares(&self) -> MutexGuard<'_, Vec<Channel<Msg>>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session channel. One that is opened in vain, because the caller gave up, is kept for the next.
    pub(super) async fn session(self: &Arc<Self>) -> Result<Channel<Msg>> {
        if let Some(channel) = self.spares().pop() {
            return Ok(channel);
        }
        let (sender, receiver) = oneshot::channel();
        let connection = self.clone();
        tokio::spawn(async move {
            let opened = connection.link.open_session().await;
            if let Err(Ok(channel)) = sender.send(opened) {
                connection.spares().push(channel);
            }
        });
        receiver
            .await
            .unwrap_or_else(|_| Err(self.link.lost("open a session")))
    }
}

struct Place {
    connection: Arc<Connection>,
    commands: usize,
    refilling: bool,
}

/// The connections of a VM.
#[derive(Default)]
pub(super) struct State {
    places: Vec<Place>,
    opening: usize,
    /// No growth before this.
    pause_until: Option<Instant>,
    tunnels: Option<Arc<Connection>>,
    bulk: Option<Arc<Connection>>,
    /// The file session; it lives on one of the connections for commands.
    sftp: Option<Arc<Sftp>>,
}

/// Connections for something of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// A tunnel that is not read stops all that share its connection.
    Tunnels,
    /// Bulk data would delay everybody else, and wants a larger window.
    Bulk,
}

impl State {
    fn side(&mut self, side: Side) -> &mut Option<Arc<Connection>> {
        match side {
            Side::Tunnels => &mut self.tunnels,
            Side::Bulk => &mut self.bulk,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Some connection for commands.
    pub(super) fn first(&self) -> Option<Held> {
        self.places
            .first()
            .map(|place| Held::new(&place.connection))
    }

    pub(super) fn of_side(&mut self, side: Side) -> Option<Held> {
        self.side(side)
            .as_ref()
            .filter(|connection| !connection.link.is_closed())
            .map(Held::new)
    }

    /// The file session, if it is open. Its connection counts as used just now.
    pub(super) fn sftp(&self) -> Option<Arc<Sftp>> {
        let sftp = self.sftp.as_ref().filter(|sftp| !sftp.is_closed())?;
        drop(Held::new(sftp.connection()));
        Some(sftp.clone())
    }

    pub(super) fn set_sftp(&mut self, sftp: &Arc<Sftp>) {
        self.sftp = Some(sftp.clone());
    }

    /// Takes all connections.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Connection>> {
        let all = self.places.drain(..).map(|place| place.connection);
        let all = all.chain(self.tunnels.take()).chain(self.bulk.take());
        self.sftp = None;
        all.collect()
    }

    /// Whether somebody works with it.
    pub(super) fn is_used(&self, connection: &Arc<Connection>) -> bool {
        // Whoever works with files holds the session, which does not count as a user by itself.
        let of_files = self.sftp.as_ref().is_some_and(|sftp| {
            Arc::ptr_eq(sftp.connection(), connection) && Arc::strong_count(sftp) > 1
        });
        of_files || *connection.users.borrow() > 0
    }

    fn place(&mut self, connection: &Arc<Connection>) -> Option<&mut Place> {
        self.places
            .iter_mut()
            .find(|place| Arc::ptr_eq(&place.connection, connection))
    }
}

pub(super) enum Pick {
    /// There is room on this one.
    Slot(Slot),
    /// All are busy.
    Full,
    /// There is no connection.
    None,
}

impl Machine {
    pub(super) fn pick(self: &Arc<Self>) -> Pick {
        let mut state = self.state();
        if state.places.is_empty() {
            return Pick::None;
        }
        // Where a channel lies ready, else where there is the most room.
        let best = state
            .places
            .iter_mut()
            .filter(|place| place.commands < COMMANDS)
            .min_by_key(|place| (place.connection.spares().is_empty(), place.commands));
        match best {
            None => Pick::Full,
            Some(place) => {
                place.commands += 1;
                Pick::Slot(Slot {
                    connection: Held::new(&place.connection),
                    machine: self.clone(),
                    _place: None,
                })
            }
        }
    }

    /// Opens channels in advance, in the background.
    pub(super) fn refill(self: &Arc<Self>, connection: &Arc<Connection>) {
        {
            let mut state = self.state();
            let Some(place) = state.place(connection) else {
                return;
            };
            if place.refilling {
                return;
            }
            place.refilling = true;
        }
        let (machine, connection) = (Arc::downgrade(self), Arc::downgrade(connection));
        tokio::spawn(async move {
            loop {
                let (Some(machine), Some(connection)) = (machine.upgrade(), connection.upgrade())
                else {
                    return;
                };
                let wanted = {
                    let mut state = machine.state();
                    let Some(place) = state.place(&connection) else {
                        return;
                    };
                    let ready = connection.spares().len();
                    let wanted = ready < SPARES && ready + place.commands < COMMANDS;
                    place.refilling = wanted;
                    wanted
                };
                if !wanted {
                    return;
                }
                match connection.link.open_session().await {
                    Ok(channel) => connection.spares().push(channel),
                    Err(_) => {
                        let mut state = machine.state();
                        if let Some(place) = state.place(&connection) {
                            place.refilling = false;
                        }
                        return;
                    }
                }
            }
        });
    }

    /// Opens one more connection in the background, if there may be one.
    pub(super) fn grow(self: &Arc<Self>) {
        {
            let mut state = self.state();
            let paused = state
                .pause_until
                .is_some_and(|until| Instant::now() < until);
            if paused
                || state.opening >= OPENING
                || state.places.len() + state.opening >= CONNECTIONS
            {
                return;
            }
            state.opening += 1;
        }
        let machine = Arc::downgrade(self);
        tokio::spawn(async move {
            let Some(machine) = machine.upgrade() else {
                return;
            };
            let opened = machine.open(Purpose::Commands).await;
            let mut state = machine.state();
            state.opening -= 1;
            match opened {
                Ok(connection) => machine.admit(&mut state, connection),
                Err((error, _)) => {
                    tracing::debug!(vm = %machine.vm, %error, "no further connection");
                    state.pause_until = Some(Instant::now() + GROWTH_PAUSE);
                }
            }
            drop(state);
            machine.changed.notify_waiters();
        });
    }

    /// Takes a new connection in.
    pub(super) fn admit(self: &Arc<Self>, state: &mut State, connection: Arc<Connection>) {
        self.look_after(&connection);
        state.places.push(Place {
            connection,
            commands: 0,
            refilling: false,
        });
    }

    pub(super) fn admit_side(
        self: &Arc<Self>,
        state: &mut State,
        side: Side,
        connection: &Arc<Connection>,
    ) {
        self.look_after(connection);
        *state.side(side) = Some(connection.clone());
    }

    fn look_after(self: &Arc<Self>, connection: &Arc<Connection>) {
        if self.closed.is_cancelled() {
            connection.shut_down();
        }
        keeper::start(self, connection);
    }

    /// A command's place is free again.
    pub(super) fn vacate(&self, connection: &Arc<Connection>) {
        if let Some(place) = self.state().place(connection) {
            place.commands = place.commands.saturating_sub(1);
        }
        self.changed.notify_one();
    }

    /// Whether this is the only connection for commands.
    pub(super) fn is_last(&self, connection: &Arc<Connection>) -> bool {
        matches!(self.state().places.as_slice(), [only] if Arc::ptr_eq(&only.connection, connection))
    }

    /// Closes a connection unless somebody uses it; whether it did.
    pub(super) fn retire(&self, connection: &Arc<Connection>) -> bool {
        let mut state = self.state();
        if state.is_used(connection) {
            return false;
        }
        state
            .sftp
            .take_if(|sftp| Arc::ptr_eq(sftp.connection(), connection));
        state
            .places
            .retain(|place| !Arc::ptr_eq(&place.connection, connection));
        for side in [Side::Tunnels, Side::Bulk] {
            state
                .side(side)
                .take_if(|current| Arc::ptr_eq(current, connection));
        }
        drop(state);
        connection.shut_down();
        true
    }

    /// All that is known of it, without what has ended.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .places
            .retain(|place| !place.connection.link.is_closed());
        state
    }
}
