//! The connections of one VM, shared by everybody in this process.
//!
//! sshd allows ten sessions on a connection and frees one a little after its user has seen it end; so five commands
//! run on each, besides the control shell, the file session and what lingers. More connections are opened as commands
//! wait, two at a time (sshd drops unauthenticated connections from the tenth on), up to eight.
//!
//! Opening a channel costs a round trip, which is most of what a short command takes over distance. So each
//! connection keeps up to two channels open in advance.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::Rng as _;
use russh::Channel;
use russh::client::Msg;
use russh::keys::PrivateKey;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::{Dialer, Link, Then};
use super::control::Control;
use super::sftp::Sftp;
use crate::api::{Api, VmId, VmState};
use crate::error::{Error, Kind, Result};

/// Commands at once on a connection.
const COMMANDS: usize = 5;
const CONNECTIONS: usize = 8;
const OPENING: usize = 2;
/// Channels opened in advance on a connection.
const SPARES: usize = 2;
/// Ended commands on a connection whose background processes hold their channels.
const LINGERING: usize = 2;
/// A connection that was quiet for so long is asked whether it is alive before it is used.
const STALE: Duration = Duration::from_secs(10);
const PROOF: Duration = Duration::from_secs(3);
/// After this long without a connection the platform is asked what the VM does.
const ASK_AFTER: Duration = Duration::from_millis(1500);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(3);
/// No further connection is tried for so long after one failed to come about.
const GROWTH_PAUSE: Duration = Duration::from_secs(1);

/// That far from now; a day stands for "for ever".
fn deadline(patience: Duration) -> Instant {
    Instant::now() + patience.min(Duration::from_secs(24 * 60 * 60))
}

/// A connection with what goes with it. When it is dropped, its control shell stops what still runs.
pub(super) struct Connection {
    link: Arc<Link>,
    control: Control,
    id: String,
    next: AtomicU64,
    spares: Mutex<Vec<Channel<Msg>>>,
    lingering: Arc<Semaphore>,
    shutdown: CancellationToken,
}

impl Connection {
    fn new(link: Link, grace: Duration) -> Self {
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

    fn spares(&self) -> MutexGuard<'_, Vec<Channel<Msg>>> {
        self.spares.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session channel. One that is opened in vain, because the caller gave up, is kept for the next.
    async fn session(self: &Arc<Self>) -> Result<Channel<Msg>> {
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
    last_used: Instant,
}

#[derive(Default)]
struct State {
    places: Vec<Place>,
    opening: usize,
    /// No growth before this.
    pause_until: Option<Instant>,
}

/// A VM, as far as SSH goes.
pub(super) struct Machine {
    vm: VmId,
    api: Api,
    dialer: Arc<Dialer>,
    grace: Duration,
    state: Mutex<State>,
    /// A place was freed, or a connection came or went.
    changed: Notify,
    /// Held while the first connection is made.
    connecting: tokio::sync::Mutex<()>,
    key: tokio::sync::Mutex<Option<Arc<PrivateKey>>>,
    sftp: tokio::sync::Mutex<Option<Arc<Sftp>>>,
    tunnels: tokio::sync::Mutex<Option<Arc<Connection>>>,
    closed: CancellationToken,
}

enum Pick {
    /// There is room on this one; `true`: prove it first.
    Slot(Slot, bool),
    /// All are busy.
    Full,
    /// There is no connection.
    None,
}

impl Machine {
    pub(super) fn new(vm: VmId, api: Api, dialer: Arc<Dialer>, grace: Duration) -> Self {
        Self {
            vm,
            api,
            dialer,
            grace,
            state: Mutex::default(),
            changed: Notify::new(),
            connecting: tokio::sync::Mutex::default(),
            key: tokio::sync::Mutex::default(),
            sftp: tokio::sync::Mutex::default(),
            tunnels: tokio::sync::Mutex::default(),
            closed: CancellationToken::new(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state
            .places
            .retain(|place| !place.connection.link.is_closed());
        state
    }

    /// Resolves when the connections are closed on purpose.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.state().places.is_empty()
    }

    /// Makes sure that there is a connection, waiting for the VM at most this long.
    pub(super) async fn connect(self: &Arc<Self>, patience: Duration) -> Result<()> {
        let deadline = deadline(patience);
        let connection = self.any(deadline).await?;
        if !connection.link.ping(PROOF).await {
            // It died unnoticed, for example while the VM was paused.
            connection.link.fail();
            self.any(deadline).await?;
        }
        Ok(())
    }

    /// A place for a command, with its channel.
    pub(super) async fn session(self: &Arc<Self>, patience: Duration) -> Result<Lease> {
        let deadline = deadline(patience);
        loop {
            // Listening before looking: nothing that changes in between is missed.
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match self.pick() {
                Pick::Slot(slot, stale) => {
                    let link = slot.connection.link.clone();
                    if stale && !link.ping(PROOF).await {
                        tracing::debug!(vm = %self.vm, "an idle connection is dead");
                        link.fail();
                        continue;
                    }
                    match slot.connection.session().await {
                        Ok(channel) => {
                            self.refill(&slot.connection);
                            return Ok(Lease {
                                slot: Some(slot),
                                channel: Some(channel),
                            });
                        }
                        // Nothing was asked of the VM yet: another connection does as well.
                        Err(_) if link.is_closed() && Instant::now() < deadline => {}
                        Err(error) => return Err(error),
                    }
                }
                Pick::None => drop(self.any(deadline).await?),
                Pick::Full => {
                    self.grow();
                    if tokio::time::timeout_at(deadline, changed).await.is_err() {
                        let most = COMMANDS * CONNECTIONS;
                        return Err(Error::new(
                            Kind::Limit,
                            format!(
                                "start a command on VM {}: {most} are running already; stop some first",
                                self.vm
                            ),
                        ));
                    }
                }
            }
        }
    }

    fn pick(self: &Arc<Self>) -> Pick {
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
                let stale = place.last_used.elapsed() > STALE;
                place.last_used = Instant::now();
                Pick::Slot(
                    Slot {
                        connection: place.connection.clone(),
                        machine: self.clone(),
                    },
                    stale,
                )
            }
        }
    }

    /// Opens channels in advance, in the background.
    fn refill(self: &Arc<Self>, connection: &Arc<Connection>) {
        {
            let mut state = self.state();
            let Some(place) = state
                .places
                .iter_mut()
                .find(|place| Arc::ptr_eq(&place.connection, connection))
            else {
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
                    let Some(place) = state
                        .places
                        .iter_mut()
                        .find(|place| Arc::ptr_eq(&place.connection, &connection))
                    else {
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
                        if let Some(place) = state
                            .places
                            .iter_mut()
                            .find(|place| Arc::ptr_eq(&place.connection, &connection))
                        {
                            place.refilling = false;
                        }
                        return;
                    }
                }
            }
        });
    }

    /// Opens one more connection in the background, if there may be one.
    fn grow(self: &Arc<Self>) {
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
            let opened = machine.open().await;
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

    fn admit(&self, state: &mut State, connection: Arc<Connection>) {
        if self.closed.is_cancelled() {
            connection.shutdown.cancel();
        }
        state.places.push(Place {
            connection,
            commands: 0,
            refilling: false,
            last_used: Instant::now(),
        });
    }

    /// Some connection: one that is open, else a new one.
    pub(super) async fn any(self: &Arc<Self>, deadline: Instant) -> Result<Arc<Connection>> {
        if let Some(place) = self.state().places.first() {
            return Ok(place.connection.clone());
        }
        let waiting = || {
            Error::timed_out(format!(
                "connect to VM {}: somebody else's attempt did not end in time",
                self.vm
            ))
        };
        let _turn = tokio::time::timeout_at(deadline, self.connecting.lock())
            .await
            .map_err(|_| waiting())?;
        if let Some(place) = self.state().places.first() {
            return Ok(place.connection.clone());
        }
        let connection = tokio::select! {
            connection = self.open_patiently(deadline) => connection?,
            () = self.closed.cancelled() => return Err(Error::cancelled(format!("connect to VM {}", self.vm))),
        };
        self.admit(&mut self.state(), connection.clone());
        self.changed.notify_waiters();
        self.refill(&connection);
        Ok(connection)
    }

    /// A new connection, waiting for a VM that boots.
    async fn open_patiently(&self, deadline: Instant) -> Result<Arc<Connection>> {
        let mut delay = FIRST_DELAY;
        let mut first = true;
        loop {
            // A paused VM looks like a silent one; only the platform knows.
            let attempt = async {
                let opening = self.open();
                tokio::pin!(opening);
                if let Ok(opened) = tokio::time::timeout(ASK_AFTER, &mut opening).await {
                    return opened;
                }
                self.must_be_up()
                    .await
                    .map_err(|error| (error, Then::Stop))?;
                opening.await
            };
            let error = match tokio::time::timeout_at(deadline, attempt).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err((error, Then::TryAgain))) => error,
                Ok(Err((error, Then::Stop | Then::NewKey))) => return Err(error),
                Err(_) => {
                    return Err(Error::unavailable(format!(
                        "connect to VM {}: it did not answer in time; ask for its state",
                        self.vm
                    )));
                }
            };
            tracing::debug!(vm = %self.vm, %error, "trying again");
            self.must_be_up().await?;
            if !first {
                let wait = delay.mul_f64(rand::rng().random_range(0.5..1.5));
                if Instant::now() + wait >= deadline {
                    return Err(error);
                }
                tokio::time::sleep(wait).await;
                delay = (delay * 2).min(LONGEST_DELAY);
            }
            first = false;
        }
    }

    /// Fails if the platform says that the VM will not answer. What the platform does not know is no failure.
    async fn must_be_up(&self) -> Result<()> {
        let vm = self.vm;
        match self.api.vm(vm).await.map(|found| found.state) {
            Ok(VmState::Paused) => Err(Error::new(
                Kind::Conflict,
                format!("connect to VM {vm}: it is paused; resume it first"),
            )),
            Ok(VmState::Sleeping) => Err(Error::new(
                Kind::Conflict,
                format!("connect to VM {vm}: it is asleep; resume it first"),
            )),
            Ok(VmState::Dead) => Err(Error::new(
                Kind::NotFound,
                format!("connect to VM {vm}: it is dead; restore it from a commit"),
            )),
            Err(error)
                if matches!(
                    error.kind(),
                    Kind::NotFound | Kind::Denied | Kind::Unauthorized
                ) =>
            {
                Err(error.during(format!("connect to VM {vm}")))
            }
            _ => Ok(()),
        }
    }

    /// One attempt at a new connection; two if the key turns out to be an old one.
    async fn open(&self) -> Result<Arc<Connection>, (Error, Then)> {
        for fresh in [false, true] {
            let key = self.key(fresh).await.map_err(|error| {
                let then = if error.kind() == Kind::Unavailable {
                    Then::TryAgain
                } else {
                    Then::Stop
                };
                (error.during(format!("connect to VM {}", self.vm)), then)
            })?;
            match self.dialer.dial(self.vm, key).await {
                Ok(link) => return Ok(Arc::new(Connection::new(link, self.grace))),
                Err(failed) if failed.then == Then::NewKey && !fresh => {}
                Err(failed) => return Err((failed.error, failed.then)),
            }
        }
        Err((
            Error::other(format!("connect to VM {}: no key", self.vm)),
            Then::Stop,
        ))
    }

    async fn key(&self, fresh: bool) -> Result<Arc<PrivateKey>> {
        let mut cached = self.key.lock().await;
        match &*cached {
            Some(key) if !fresh => Ok(key.clone()),
            _ => {
                let text = self.api.ssh_key(self.vm).await?.private_key;
                let key = russh::keys::decode_secret_key(text.expose(), None).map_err(|_| {
                    Error::other(
                        "the platform gave an SSH key that is not understood; update pi-vers",
                    )
                })?;
                let key = Arc::new(key);
                *cached = Some(key.clone());
                Ok(key)
            }
        }
    }

    /// The file session, opened if there is none.
    pub(super) async fn sftp(self: &Arc<Self>, patience: Duration) -> Result<Arc<Sftp>> {
        let mut current = self.sftp.lock().await;
        if let Some(sftp) = current.as_ref().filter(|sftp| !sftp.is_closed()) {
            return Ok(sftp.clone());
        }
        let connection = self.any(deadline(patience)).await?;
        let sftp = Arc::new(Sftp::open(connection).await?);
        *current = Some(sftp.clone());
        Ok(sftp)
    }

    /// The connection that tunnels go over: its own, as a tunnel that is not read stops all that share it.
    pub(super) async fn tunnels(self: &Arc<Self>, patience: Duration) -> Result<Arc<Connection>> {
        let mut current = self.tunnels.lock().await;
        if let Some(connection) = current
            .as_ref()
            .filter(|connection| !connection.link.is_closed())
        {
            return Ok(connection.clone());
        }
        let connection = self.open_patiently(deadline(patience)).await?;
        *current = Some(connection.clone());
        Ok(connection)
    }

    /// Lets no new work in, takes all connections and tells them to end.
    async fn begin_to_close(&self) -> Vec<Arc<Connection>> {
        self.closed.cancel();
        let mut connections: Vec<_> = self
            .state()
            .places
            .drain(..)
            .map(|place| place.connection)
            .collect();
        connections.extend(self.tunnels.lock().await.take());
        *self.sftp.lock().await = None;
        for connection in &connections {
            connection.spares().clear();
            connection.shutdown.cancel();
        }
        connections
    }

    /// Drops all connections: the VM cannot confirm anything.
    pub(super) async fn abandon(&self) {
        for connection in self.begin_to_close().await {
            connection.link.fail();
        }
        self.changed.notify_waiters();
    }

    /// Stops what runs and closes all connections. Waits until the VM has confirmed, or its time is up.
    pub(super) async fn close(&self) {
        let connections = self.begin_to_close().await;
        let patience = self.grace + Duration::from_secs(5);
        let all = futures::future::join_all(
            connections
                .iter()
                .map(|connection| connection.link.closed().cancelled()),
        );
        if tokio::time::timeout(patience, all).await.is_err() {
            connections
                .iter()
                .for_each(|connection| connection.link.fail());
        }
        self.changed.notify_waiters();
    }
}

/// A command's place on a connection.
pub(super) struct Slot {
    connection: Arc<Connection>,
    machine: Arc<Machine>,
}

impl Slot {
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Gives the place up for one among those that linger, if there is one.
    pub(super) fn linger(self) -> Option<OwnedSemaphorePermit> {
        self.connection.lingering.clone().try_acquire_owned().ok()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut state = self.machine.state();
            if let Some(place) = state
                .places
                .iter_mut()
                .find(|place| Arc::ptr_eq(&place.connection, &self.connection))
            {
                place.commands = place.commands.saturating_sub(1);
                place.last_used = Instant::now();
            }
        }
        self.machine.changed.notify_one();
    }
}

/// A place with a channel that nothing was asked of yet. Dropped unused, the channel is kept for the next command.
pub(super) struct Lease {
    slot: Option<Slot>,
    channel: Option<Channel<Msg>>,
}

impl Lease {
    /// For use. `None` never happens: it is taken once.
    pub(super) fn take(mut self) -> Option<(Slot, Channel<Msg>)> {
        self.slot.take().zip(self.channel.take())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (Some(slot), Some(channel)) = (&self.slot, self.channel.take()) {
            slot.connection.spares().push(channel);
        }
    }
}
