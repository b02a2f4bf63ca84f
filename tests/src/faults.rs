//! A network that fails on purpose: a TCP proxy on loopback that cuts, corrupts, truncates, stalls, delays and throttles
//! what goes through it.
//!
//! Client and server know nothing of it: the client is pointed at it where it would be pointed at the server. What it
//! does to a connection is drawn when the connection begins, from a [`Plan`] and a seed: the same seed draws the same
//! faults in the same order of connections, though the bytes that they hit depend on timing. It counts what it did, so
//! that a test can tell that there was something to survive.
//!
//! Stands by itself (tokio and std only): other crates' tests include this file by its path.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What can become of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Both sides are reset (RST); bytes under way are lost.
    Reset,
    /// Both sides are told that it is over (FIN), in the middle of whatever it was.
    Close,
    /// Some bytes vanish, and then it is closed in good order: an end that looks like one.
    Truncate,
    /// One byte becomes another. Everything else arrives.
    Corrupt,
    /// Nothing arrives any more, and nobody is told. Ends with the next [`Faults::cut`] or with the client.
    Stall,
}

/// What the connections that begin from now on meet.
#[derive(Debug, Clone)]
pub struct Plan {
    /// One of these, drawn for each connection. None: nothing goes wrong.
    pub faults: Vec<Fault>,
    /// After how many bytes, of both directions together; drawn for each connection.
    pub after: Range<u64>,
    /// Each stretch of bytes is held back for so long.
    pub delay: Duration,
    /// Bytes a second, each direction; `None`: as many as can be.
    pub rate: Option<u64>,
}

impl Default for Plan {
    /// Nothing goes wrong.
    fn default() -> Self {
        Self {
            faults: Vec::new(),
            after: 0..1,
            delay: Duration::ZERO,
            rate: None,
        }
    }
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections that were accepted.
    pub connections: u64,
    /// [`Fault::Reset`]s.
    pub resets: u64,
    /// [`Fault::Close`]s.
    pub closes: u64,
    /// [`Fault::Truncate`]s.
    pub truncations: u64,
    /// [`Fault::Corrupt`]s.
    pub corruptions: u64,
    /// [`Fault::Stall`]s.
    pub stalls: u64,
    /// Bytes that went through.
    pub bytes: u64,
}

impl Counts {
    /// Connections that were broken, however.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.resets + self.closes + self.truncations
    }
}

#[derive(Debug)]
struct State {
    plan: Plan,
    random: Random,
    counts: Counts,
}

/// The proxy. Ends with its value, and so do its connections.
#[derive(Debug)]
pub struct Faults {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Counts the cuts by hand; closed: the end.
    cut: watch::Sender<u64>,
}

impl Faults {
    /// Listens on a free port of the loopback interface and leads to `to`. Nothing goes wrong yet.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(to: SocketAddr, seed: u64) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            plan: Plan::default(),
            random: Random(seed),
            counts: Counts::default(),
        }));
        let (cut, end) = watch::channel(0);
        tokio::spawn(accept(listener, to, state.clone(), end));
        Ok(Self {
            address,
            state,
            cut,
        })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What connections meet that begin from now on.
    pub fn plan(&self, plan: Plan) {
        lock(&self.state).plan = plan;
    }

    /// Resets all connections that there are, stalled ones too.
    pub fn cut(&self) {
        self.cut.send_modify(|count| *count += 1);
    }

    /// What was done so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn accept(
    listener: TcpListener,
    to: SocketAddr,
    state: Arc<Mutex<State>>,
    mut end: watch::Receiver<u64>,
) {
    loop {
        let client = tokio::select! {
            client = listener.accept() => client,
            // Only a closed channel ends this; cuts by hand are the connections' matter.
            () = async { while end.changed().await.is_ok() {} } => return,
        };
        let Ok((client, _)) = client else { return };
        let connection = {
            let mut state = lock(&state);
            state.counts.connections += 1;
            let plan = state.plan.clone();
            let fault = match plan.faults.len() {
                0 => None,
                many => {
                    let drawn = state.random.below(many as u64);
                    plan.faults
                        .get(usize::try_from(drawn).unwrap_or(0))
                        .copied()
                }
            };
            let span = plan.after.end.saturating_sub(plan.after.start);
            let after = plan.after.start + state.random.below(span);
            Connection {
                fault,
                left: Mutex::new(if fault.is_some() { after } else { u64::MAX }),
                random: Mutex::new(Random(state.random.number())),
                delay: plan.delay,
                rate: plan.rate,
            }
        };
        tokio::spawn(connection.serve(client, to, state.clone(), end.clone()));
    }
}

struct Connection {
    fault: Option<Fault>,
    /// Bytes before the fault.
    left: Mutex<u64>,
    random: Mutex<Random>,
    delay: Duration,
    rate: Option<u64>,
}

impl Connection {
    async fn serve(
        self,
        mut client: TcpStream,
        to: SocketAddr,
        state: Arc<Mutex<State>>,
        mut cut: watch::Receiver<u64>,
    ) {
        cut.mark_unchanged();
        let Ok(mut server) = TcpStream::connect(to).await else {
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let struck = {
            let (mut from_client, mut to_client) = client.split();
            let (mut from_server, mut to_server) = server.split();
            let both = async {
                tokio::try_join!(
                    self.pump(&mut from_client, &mut to_server, &state),
                    self.pump(&mut from_server, &mut to_client, &state),
                )
            };
            tokio::select! {
                ended = both => ended.err(),
                _ = cut.changed() => Some(Fault::Reset),
            }
        };
        match struck {
            None => return,
            Some(Fault::Reset) => {
                lock(&state).counts.resets += 1;
                let _ = (client.set_zero_linger(), server.set_zero_linger());
                // Dropped like this they are reset; shut down before, they would end in good order.
                return;
            }
            Some(Fault::Close) => lock(&state).counts.closes += 1,
            Some(Fault::Truncate) => {
                lock(&state).counts.truncations += 1;
                let most = lock(&state).random.below(4096);
                let mut lost = vec![0; usize::try_from(most).unwrap_or(0) + 1];
                tokio::select! {
                    _ = server.read(&mut lost) => {}
                    () = tokio::time::sleep(Duration::from_millis(20)) => {}
                }
            }
            Some(Fault::Stall | Fault::Corrupt) => {
                lock(&state).counts.stalls += 1;
                let mut nothing = [0; 4096];
                tokio::select! {
                    // What it still sends is taken and dropped; the end of it is the end.
                    () = async { while client.read(&mut nothing).await.is_ok_and(|count| count > 0) {} } => {}
                    _ = cut.changed() => {}
                }
                let _ = (client.set_zero_linger(), server.set_zero_linger());
                return;
            }
        }
        let _ = (client.shutdown().await, server.shutdown().await);
    }

    /// One direction, up to its end or to the fault.
    async fn pump(
        &self,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        state: &Mutex<State>,
    ) -> Result<(), Fault> {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = match from.read(&mut buffer).await {
                Ok(0) => {
                    let _ = to.shutdown().await;
                    return Ok(());
                }
                Ok(count) => count,
                Err(_) => return Err(Fault::Reset),
            };
            let Some(data) = buffer.get_mut(..count) else {
                return Ok(());
            };
            let mut through = count;
            let mut struck = None;
            {
                let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
                let before = *left;
                *left = left.saturating_sub(count as u64);
                if before < count as u64 {
                    let at = usize::try_from(before).unwrap_or(0);
                    if self.fault == Some(Fault::Corrupt) {
                        *left = u64::MAX;
                        lock(state).counts.corruptions += 1;
                        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Some(byte) = data.get_mut(at) {
                            *byte ^= 1 << random.below(8);
                        }
                    } else {
                        through = at;
                        struck = self.fault;
                    }
                }
            }
            let mut pause = self.delay;
            if let Some(rate) = self.rate {
                pause += Duration::from_secs(1).mul_f64(through as f64 / rate.max(1) as f64);
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            lock(state).counts.bytes += through as u64;
            if to
                .write_all(data.get(..through).unwrap_or_default())
                .await
                .is_err()
            {
                return Err(Fault::Reset);
            }
            if let Some(fault) = struck {
                return Err(fault);
            }
        }
    }
}

/// Numbers that only need to look random, and to be the same each time (splitmix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next of all numbers.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next number below this one; 0 below 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number().checked_rem(end).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    /// What comes back of a MiB, and how it ended.
    async fn through(fault: Option<Fault>) -> (Vec<u8>, std::io::Result<()>, Counts) {
        let faults = Faults::start(echo().await, 7).await.unwrap();
        faults.plan(Plan {
            faults: fault.into_iter().collect(),
            after: 100_000..200_000,
            ..Plan::default()
        });
        let stream = TcpStream::connect(faults.address()).await.unwrap();
        let (mut from, mut to) = stream.into_split();
        let writing = tokio::spawn(async move {
            let _ = to.write_all(&vec![b'x'; 1 << 20]).await;
            let _ = to.shutdown().await;
            to
        });
        let mut got = Vec::new();
        let reading = from.read_to_end(&mut got);
        let ended = match tokio::time::timeout(Duration::from_secs(2), reading).await {
            Ok(ended) => ended.map(drop),
            Err(_) => {
                faults.cut();
                Err(std::io::ErrorKind::TimedOut.into())
            }
        };
        let _ = writing.await;
        (got, ended, faults.counts())
    }

    #[tokio::test]
    async fn each_fault_is_what_it_says() {
        let (got, ended, counts) = through(None).await;
        assert!(ended.is_ok() && got == vec![b'x'; 1 << 20]);
        assert_eq!((counts.cuts(), counts.bytes), (0, 2 << 20));

        let (got, ended, counts) = through(Some(Fault::Reset)).await;
        assert!(
            ended.is_err() && got.len() < 200_000,
            "{ended:?} {} {counts:?}",
            got.len()
        );
        assert_eq!((counts.resets, counts.cuts()), (1, 1));

        for fault in [Fault::Close, Fault::Truncate] {
            let (got, _, counts) = through(Some(fault)).await;
            assert!(got.len() < 200_000 && got.iter().all(|byte| *byte == b'x'));
            assert_eq!(counts.cuts(), 1);
        }

        let (got, ended, counts) = through(Some(Fault::Corrupt)).await;
        assert!(ended.is_ok() && got.len() == 1 << 20);
        assert_eq!(got.iter().filter(|byte| **byte != b'x').count(), 1);
        assert_eq!(counts.corruptions, 1);

        let (got, ended, counts) = through(Some(Fault::Stall)).await;
        assert!(ended.is_err() && got.len() < 200_000);
        assert_eq!(counts.stalls, 1);
    }
}
