//! One VM, as far as SSH goes: its connections, shared by everybody in this process, and what the platform says of it.
//!
//! A VM that is paused looks like one that is booting, overloaded or cut off: it is silent. Only the platform knows. So
//! whoever waits for a VM for longer than [`ASK_AFTER`] asks it, and fails at once if the VM will not answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::Rng as _;
use russh::Channel;
use russh::client::Msg;
use russh::keys::PrivateKey;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::SshOptions;
use super::dial::{Dialer, KEEPALIVE, Purpose, Then};
pub(super) use super::lease::{Held, Lease, Slot};
pub(super) use super::pool::Connection;
use super::pool::{COMMANDS, CONNECTIONS, Pick, Side, State};
use super::sftp::Sftp;
use crate::api::{Api, VmId, VmState};
use crate::error::{Error, Kind, Result};

/// A connection that was silent for longer than its keepalives are apart is asked whether it is alive before it is used.
const QUIET: Duration = KEEPALIVE.saturating_add(Duration::from_secs(1));
const PROOF: Duration = Duration::from_secs(3);
/// After this long without an answer the platform is asked what the VM does.
const ASK_AFTER: Duration = Duration::from_millis(1500);
/// How long the platform may take to say.
const ASK: Duration = Duration::from_secs(5);
/// How long it may take to give the VM's key.
const KEY: Duration = Duration::from_secs(15);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(3);
/// Rounds without a word of the VM or of the platform.
const LONELY_ROUNDS: u32 = 2;

/// That far from now; a day stands for "for ever".
fn deadline(patience: Duration) -> Instant {
    Instant::now() + patience.min(Duration::from_secs(24 * 60 * 60))
}

/// What the platform says of a VM that may answer.
pub(super) enum Word {
    /// It is in this state.
    State(VmState),
    /// Nothing: it cannot be asked.
    Silence(Error),
}

/// A VM, as far as SSH goes.
pub(super) struct Machine {
    pub(super) vm: VmId,
    pub(super) api: Api,
    pub(super) dialer: Arc<Dialer>,
    pub(super) options: SshOptions,
    pub(super) state: Mutex<State>,
    /// A place was freed, or a connection came or went.
    pub(super) changed: Notify,
    pub(super) closed: CancellationToken,
    /// Held while the first connection is made.
    connecting: tokio::sync::Mutex<()>,
    opening_tunnels: tokio::sync::Mutex<()>,
    opening_bulk: tokio::sync::Mutex<()>,
    bulk_places: Arc<tokio::sync::Semaphore>,
    opening_sftp: tokio::sync::Mutex<()>,
    key: tokio::sync::Mutex<Option<Arc<PrivateKey>>>,
}

impl Machine {
    pub(super) fn new(vm: VmId, api: Api, dialer: Arc<Dialer>, options: SshOptions) -> Self {
        Self {
            vm,
            api,
            dialer,
            options,
            state: Mutex::default(),
            changed: Notify::new(),
            closed: CancellationToken::new(),
            connecting: tokio::sync::Mutex::default(),
            opening_tunnels: tokio::sync::Mutex::default(),
            opening_bulk: tokio::sync::Mutex::default(),
            bulk_places: Arc::new(tokio::sync::Semaphore::new(COMMANDS)),
            opening_sftp: tokio::sync::Mutex::default(),
            key: tokio::sync::Mutex::default(),
        }
    }

    /// Resolves when the connections are closed on purpose.
    pub(super) fn closed(&self) -> &CancellationToken {
        &self.closed
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.state().is_empty()
    }

    /// Makes sure that there is a connection, waiting for the VM at most this long.
    pub(super) async fn connect(self: &Arc<Self>, patience: Duration) -> Result<()> {
        let deadline = deadline(patience);
        let connection = self.any(deadline).await?;
        if !self.unless_down(connection.link().ping(PROOF)).await? {
            // It died unnoticed, for example while the VM was paused.
            connection.link().fail();
            self.any(deadline).await?;
        }
        Ok(())
    }

    /// A place on the connection for bulk data, with its channel.
    pub(super) async fn bulk(self: &Arc<Self>, patience: Duration) -> Result<Lease> {
        let deadline = deadline(patience);
        let place = timeout_at(deadline, self.bulk_places.clone().acquire_owned());
        let Ok(Ok(place)) = place.await else {
            return Err(Error::new(
                Kind::Limit,
                format!(
                    "copy to or from VM {}: {COMMANDS} big files are under way already, and none ended in time",
                    self.vm
                ),
            ));
        };
        loop {
            let connection = self.side(Side::Bulk, deadline).await?;
            if let Some(channel) = self.channel(&connection, deadline).await? {
                return Ok(Lease {
                    slot: Some(Slot {
                        connection,
                        machine: self.clone(),
                        _place: Some(place),
                    }),
                    channel: Some(channel),
                });
            }
        }
    }

    /// A channel on this connection; `None` if that turns out to be dead, and there is time to try another: nothing was
    /// asked of the VM yet.
    async fn channel(
        &self,
        connection: &Arc<Connection>,
        deadline: Instant,
    ) -> Result<Option<Channel<Msg>>> {
        let link = connection.link();
        if link.pulse().silent() > QUIET && !self.unless_down(link.ping(PROOF)).await? {
            link.fail_because("its network path is dead");
            return Ok(None);
        }
        match self.unless_down(connection.session()).await? {
            Ok(channel) => Ok(Some(channel)),
            Err(_) if link.is_closed() && Instant::now() < deadline => Ok(None),
            Err(error) => Err(error),
        }
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
                Pick::Slot(slot) => {
                    if let Some(channel) = self.channel(slot.connection(), deadline).await? {
                        self.refill(slot.connection());
                        return Ok(Lease {
                            slot: Some(slot),
                            channel: Some(channel),
                        });
                    }
                }
                Pick::None => drop(self.any(deadline).await?),
                Pick::Full => {
                    self.grow();
                    if timeout_at(deadline, changed).await.is_err() {
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

    /// Waits for something that the VM does; fails as soon as it is known that the VM will not do it.
    pub(super) async fn unless_down<T>(&self, work: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(work);
        if let Ok(done) = timeout(ASK_AFTER, &mut work).await {
            return Ok(done);
        }
        tokio::select! {
            done = &mut work => return Ok(done),
            word = self.ask() => drop(word?),
        }
        Ok(work.await)
    }

    /// Some connection for commands: one that is open, else a new one.
    async fn any(self: &Arc<Self>, deadline: Instant) -> Result<Held> {
        if let Some(connection) = self.state().first() {
            return Ok(connection);
        }
        let _turn = self.turn(&self.connecting, deadline).await?;
        if let Some(connection) = self.state().first() {
            return Ok(connection);
        }
        let connection = self.open_patiently(deadline, Purpose::Commands).await?;
        // Held before anybody could find it idle.
        let held = Held::new(&connection);
        self.admit(&mut self.state(), connection);
        self.changed.notify_waiters();
        self.refill(&held);
        Ok(held)
    }

    /// Waits until nobody else is making the same connection.
    async fn turn<'a>(
        &self,
        lock: &'a tokio::sync::Mutex<()>,
        deadline: Instant,
    ) -> Result<tokio::sync::MutexGuard<'a, ()>> {
        timeout_at(deadline, lock.lock()).await.map_err(|_| {
            Error::timed_out(format!(
                "connect to VM {}: somebody else's attempt did not end in time",
                self.vm
            ))
        })
    }

    /// A new connection, waiting for a VM that boots.
    async fn open_patiently(&self, deadline: Instant, purpose: Purpose) -> Result<Arc<Connection>> {
        tokio::select! {
            // On the heap: making a connection is rare and needs 20 kB, which every start of a command would carry along.
            connection = Box::pin(self.try_to_open(deadline, purpose)) => connection,
            () = self.closed.cancelled() => Err(Error::cancelled(format!("connect to VM {}", self.vm))),
        }
    }

    async fn try_to_open(&self, deadline: Instant, purpose: Purpose) -> Result<Arc<Connection>> {
        let vm = self.vm;
        let mut delay = FIRST_DELAY;
        let mut first = true;
        let mut lonely = 0;
        // What the platform said last.
        let mut state = None;
        let mut error = None;
        loop {
            let attempt = async {
                let opening = self.open(purpose);
                tokio::pin!(opening);
                if let Ok(opened) = timeout(ASK_AFTER, &mut opening).await {
                    return opened;
                }
                let word = tokio::select! {
                    opened = &mut opening => return opened,
                    word = self.ask() => word.map_err(|error| (error, Then::Stop))?,
                };
                if let Word::State(now) = word {
                    state = Some(now);
                }
                opening.await
            };
            let failed = match timeout_at(deadline, attempt).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err((failed, Then::TryAgain))) => failed,
                Ok(Err((failed, Then::Stop | Then::NewKey))) => return Err(failed),
                Err(_) => {
                    let late = || {
                        Error::unavailable(format!("connect to VM {vm}: it did not answer in time"))
                    };
                    return Err(with_state(error.unwrap_or_else(late), state.as_ref()));
                }
            };
            tracing::debug!(%vm, error = %failed, "trying again");
            match self.ask().await? {
                Word::State(now) => {
                    lonely = 0;
                    state = Some(now);
                }
                Word::Silence(platform) => {
                    lonely += 1;
                    if lonely == LONELY_ROUNDS {
                        return Err(Error::unavailable(format!("{failed}; and {platform}")));
                    }
                }
            }
            if !first {
                let wait = delay.mul_f64(rand::rng().random_range(0.5..1.5));
                if Instant::now() + wait >= deadline {
                    return Err(with_state(failed, state.as_ref()));
                }
                tokio::time::sleep(wait).await;
                delay = (delay * 2).min(LONGEST_DELAY);
            }
            first = false;
            error = Some(failed);
        }
    }

    /// What the platform says about the VM.
    ///
    /// # Errors
    /// That it will not answer: it is paused, asleep, dead or not ours.
    pub(super) async fn ask(&self) -> Result<Word> {
        let vm = self.vm;
        let conflict = |why: &str| {
            Err(Error::new(
                Kind::Conflict,
                format!("connect to VM {vm}: it is {why}; resume it first"),
            ))
        };
        let asked = timeout(ASK, self.api.vm(vm)).await.unwrap_or_else(|_| {
            Err(Error::timed_out(format!(
                "get VM {vm}: the platform did not answer within {} s; check the network and VERS_BASE_URL",
                ASK.as_secs()
            )))
        });
        match asked.map(|found| found.state) {
            Ok(VmState::Paused) => conflict("paused"),
            Ok(VmState::Sleeping) => conflict("asleep"),
            Ok(VmState::Dead) => Err(Error::new(
                Kind::NotFound,
                format!("connect to VM {vm}: it is dead; restore it from a commit"),
            )),
            Ok(state) => Ok(Word::State(state)),
            Err(error)
                if matches!(
                    error.kind(),
                    Kind::NotFound | Kind::Denied | Kind::Unauthorized
                ) =>
            {
                Err(error.during(format!("connect to VM {vm}")))
            }
            Err(error) => Ok(Word::Silence(error)),
        }
    }

    /// One attempt at a new connection; two if the key turns out to be an old one.
    pub(super) async fn open(&self, purpose: Purpose) -> Result<Arc<Connection>, (Error, Then)> {
        for fresh in [false, true] {
            // The platform's client has tried again already.
            let key = self.key(fresh).await.map_err(|error| {
                (
                    error.during(format!("connect to VM {}", self.vm)),
                    Then::Stop,
                )
            })?;
            match self.dialer.dial(self.vm, key, purpose).await {
                Ok(link) => return Ok(Arc::new(Connection::new(link, self.options.grace))),
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
                let late = |_| {
                    Error::unavailable(format!(
                        "the platform did not give the VM's key within {} s; try again",
                        KEY.as_secs()
                    ))
                };
                let answer = timeout(KEY, self.api.ssh_key(self.vm))
                    .await
                    .map_err(late)??;
                let key = russh::keys::decode_secret_key(answer.private_key.expose(), None)
                    .map_err(|_| {
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
        if let Some(sftp) = self.state().sftp() {
            return Ok(sftp);
        }
        let deadline = deadline(patience);
        let _turn = self.turn(&self.opening_sftp, deadline).await?;
        if let Some(sftp) = self.state().sftp() {
            return Ok(sftp);
        }
        let held = self.any(deadline).await?;
        let sftp = Arc::new(self.unless_down(Sftp::open(Arc::clone(&held))).await??);
        self.state().set_sftp(&sftp);
        Ok(sftp)
    }

    /// The connection that tunnels go over: its own, as a tunnel that is not read stops all that share it. Keep what
    /// this returns for as long as the connection is used.
    pub(super) async fn tunnels(self: &Arc<Self>, patience: Duration) -> Result<Held> {
        self.side(Side::Tunnels, deadline(patience)).await
    }

    async fn side(self: &Arc<Self>, side: Side, deadline: Instant) -> Result<Held> {
        if let Some(connection) = self.state().of_side(side) {
            return Ok(connection);
        }
        let (lock, purpose) = match side {
            Side::Tunnels => (&self.opening_tunnels, Purpose::Commands),
            Side::Bulk => (&self.opening_bulk, Purpose::Bulk),
        };
        let _turn = self.turn(lock, deadline).await?;
        if let Some(connection) = self.state().of_side(side) {
            return Ok(connection);
        }
        let connection = self.open_patiently(deadline, purpose).await?;
        let held = Held::new(&connection);
        self.admit_side(&mut self.state(), side, &connection);
        Ok(held)
    }

    /// Lets no new work in, takes all connections and tells them to end.
    fn begin_to_close(&self) -> Vec<Arc<Connection>> {
        self.closed.cancel();
        let connections = self.state().take_all();
        for connection in &connections {
            connection.shut_down();
        }
        connections
    }

    /// Drops all connections: the VM cannot confirm anything.
    pub(super) fn abandon(&self) {
        for connection in self.begin_to_close() {
            connection
                .link()
                .fail_because("the VM was paused or deleted");
        }
        self.changed.notify_waiters();
    }

    /// Stops what runs and closes all connections. Waits until the VM has confirmed, or its time is up.
    pub(super) async fn close(&self) {
        let connections = self.begin_to_close();
        let patience = self.options.grace + Duration::from_secs(5);
        let all = futures::future::join_all(
            connections
                .iter()
                .map(|connection| connection.link().closed().cancelled()),
        );
        if timeout(patience, all).await.is_err() {
            connections
                .iter()
                .for_each(|connection| connection.link().fail());
        }
        self.changed.notify_waiters();
    }
}

/// A failure to reach a VM, with what the platform says about that.
fn with_state(error: Error, state: Option<&VmState>) -> Error {
    match state {
        Some(state) => Error::new(
            error.kind(),
            format!("{error}; the platform says that it is {}", state.as_str()),
        ),
        None => error,
    }
}
