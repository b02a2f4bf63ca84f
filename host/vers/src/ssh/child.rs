//! A command that runs on a VM, and the task that looks after it.
//!
//! The task owns the command's channel: it reads it without pause (see [`output`](super::output)), notices how the
//! command ended, stops it when its [`Child`] is dropped or its time is up, and gives the channel's place back. It ends
//! with the channel, or with the connection.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf, Sig};
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard, PollSender};

use super::command::{self, Command, Exit, Signal};
use super::machine::{Lease, Slot};
use super::output::{self, Output, Sink, Unread};
use super::start::{Scan, StartScanner};
use crate::api::VmId;
use crate::error::{Error, Kind, Result};

/// A silence this long after the exit status, and an answer of the server after it, mean that no output is under way:
/// whatever holds the output open is a background process.
const QUIET: Duration = Duration::from_millis(100);
const SETTLE_PING: Duration = Duration::from_secs(5);
/// How long sshd may take to report the end of what was stopped.
const REPORT: Duration = Duration::from_secs(5);
/// Input chunks between the caller and the connection.
const INPUT_QUEUE: usize = 4;
const INPUT_CHUNK: usize = 128 << 10;

/// What [`Child::stop`] found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopReport {
    /// The strongest signal that its process group took; `None`: the group was gone already.
    pub signal: Option<Signal>,
    /// Processes that had left the group (`setsid`) and were killed one by one.
    pub escaped: u32,
    /// Processes that are still there.
    pub left: u32,
}

/// A command on a VM.
///
/// Dropping it stops the command in the background, as [`Child::stop`] does with the default grace. Once the command
/// has ended by itself, what it left in the background on the VM lives on.
pub struct Child {
    vm: VmId,
    id: u32,
    grace: Duration,
    stdin: Option<Stdin>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    outcome: watch::Receiver<Option<Result<Exit>>>,
    asks: mpsc::Sender<Ask>,
    /// Dropped: stop the command.
    guard: DropGuard,
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("vm", &self.vm)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

enum Ask {
    Signal(Signal, oneshot::Sender<Result<bool>>),
    Stop(Duration, oneshot::Sender<Result<StopReport>>),
    Detach,
}

impl Child {
    /// The id of its process on the VM, which is that of its process group.
    pub fn id(&self) -> Option<u32> {
        (self.id != 0).then_some(self.id)
    }

    /// Its input; once, and only if the command asked for it. Shutting it down or dropping it ends the input.
    pub fn take_stdin(&mut self) -> Option<Stdin> {
        self.stdin.take()
    }

    /// Its output; once.
    pub fn take_stdout(&mut self) -> Option<Output> {
        self.stdout.take()
    }

    /// Its second output; once. Empty if the outputs are merged.
    pub fn take_stderr(&mut self) -> Option<Output> {
        self.stderr.take()
    }

    /// How it ended: when its process has, and all that it wrote has arrived. A process that it left in the background
    /// does not delay this. May be called more than once; cancel-safe. A command whose output is not read does not end.
    ///
    /// # Errors
    /// [`Kind::Unavailable`]: the connection was lost, and whether the command took effect is unknown.
    /// [`Kind::TimedOut`]: its time limit passed, and it was stopped. [`Kind::Limit`]: it wrote without end what nobody
    /// read, and was stopped.
    pub async fn wait(&self) -> Result<Exit> {
        let mut outcome = self.outcome.clone();
        match outcome
            .wait_for(Option::is_some)
            .await
            .map(|outcome| outcome.clone())
        {
            Ok(Some(outcome)) => outcome,
            _ => Err(Error::unavailable(format!(
                "wait for a command on VM {}: its connection was given up",
                self.vm
            ))),
        }
    }

    /// Sends a signal to its process group.
    ///
    /// # Errors
    /// [`Kind::NotFound`] if it has ended.
    pub async fn signal(&self, signal: Signal) -> Result<()> {
        let (sender, receiver) = oneshot::channel();
        let what = format!("signal command {} on VM {}", self.id, self.vm);
        let ended = || Error::new(Kind::NotFound, format!("{what}: it has ended"));
        self.asks
            .send(Ask::Signal(signal, sender))
            .await
            .map_err(|_| ended())?;
        match receiver
            .await
            .map_err(|_| ended())?
            .map_err(|e| e.during(&what))?
        {
            true => Ok(()),
            false => Err(ended()),
        }
    }

    /// Stops it: `TERM` to its process group, `KILL` after `grace`, the same for what left the group, and a look whether
    /// all are gone. Without effect once it has ended by itself.
    ///
    /// # Errors
    /// [`Kind::Unavailable`] if the connection is lost meanwhile: the VM stops the command by itself then.
    pub async fn stop(&self, grace: Duration) -> Result<StopReport> {
        let (sender, receiver) = oneshot::channel();
        if self.asks.send(Ask::Stop(grace, sender)).await.is_err() {
            return Ok(StopReport::default());
        }
        match receiver.await {
            Ok(report) => {
                report.map_err(|e| e.during(format!("stop command {} on VM {}", self.id, self.vm)))
            }
            Err(_) => match &*self.outcome.borrow() {
                Some(Err(error)) => Err(error.clone()),
                _ => Ok(StopReport::default()),
            },
        }
    }

    /// The grace it is stopped with when it is dropped.
    pub fn default_grace(&self) -> Duration {
        self.grace
    }

    /// Lets it outlive this handle, and the connection. Its outputs are still read, and dropped unless they were taken;
    /// when the connection ends, writing to them fails for the command: one that shall live long had better write to
    /// files.
    pub fn detach(self) {
        // Bounded, and read by a task that never waits: there is room.
        let _ = self.asks.try_send(Ask::Detach);
        self.guard.disarm();
    }
}

/// The input of a command. Each write is handed to the connection as the VM takes it.
#[derive(Debug)]
pub struct Stdin {
    queue: PollSender<Bytes>,
}

impl Stdin {
    /// Hands bytes over without a copy, when there is room. Cancel-safe: all of them are taken, or none.
    pub(crate) async fn send(&mut self, data: Bytes) -> std::io::Result<()> {
        std::future::poll_fn(|cx| self.queue.poll_reserve(cx))
            .await
            .and_then(|()| self.queue.send_item(data))
            .map_err(|_| closed())
    }
}

/// Nobody reads the input any more.
fn closed() -> std::io::Error {
    std::io::Error::new(
        std::io::ErrorKind::BrokenPipe,
        "the command reads no more input",
    )
}

impl AsyncWrite for Stdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        std::task::ready!(self.queue.poll_reserve(cx)).map_err(|_| closed())?;
        let part = data.get(..INPUT_CHUNK).unwrap_or(data);
        if !part.is_empty() {
            self.queue
                .send_item(Bytes::copy_from_slice(part))
                .map_err(|_| closed())?;
        }
        Poll::Ready(Ok(part.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.queue.close();
        Poll::Ready(Ok(()))
    }
}

/// Starts a command on a channel that nothing was asked of yet. Returns when it runs.
pub(super) async fn start(
    lease: Lease,
    frame: Bytes,
    command: &Command,
    grace: Duration,
    patience: Duration,
) -> Result<Child> {
    let Some((slot, channel)) = lease.take() else {
        return Err(Error::other("start a command: its channel was used before"));
    };
    let vm = slot.connection().link().vm;
    let number = slot.connection().next_number();
    let control = slot.connection().control().clone();
    // The order matters: what is not watched is not stopped.
    control.watch(number)?;
    let (reader, writer) = channel.split();
    // Nothing is awaited before the guard exists: a start that is given up is stopped like a command.
    let ended = CancellationToken::new();
    let request = command::request(&slot.connection().tag(number));
    let closed = slot.connection().link().closed().clone();
    let stdin = feed(writer, request, frame, command.stdin, closed, ended.clone());

    let unread = Arc::new(Unread::default());
    let (stdout_sink, stdout) = output::output(unread.clone());
    let (stderr_sink, stderr) = output::output(unread.clone());
    let (asks, asked) = mpsc::channel(16);
    let (outcome_sender, outcome) = watch::channel(None);
    let (started_sender, started) = oneshot::channel();
    let abandoned = CancellationToken::new();
    let guard = abandoned.clone().drop_guard();
    let runner = Runner {
        vm,
        number,
        slot,
        reader,
        out: Stage {
            scanner: Some(StartScanner::new(true)),
            sink: Some(stdout_sink),
        },
        err: Stage {
            scanner: Some(StartScanner::new(false)),
            sink: Some(stderr_sink),
        },
        directory: command.cwd.clone(),
        started: Some(started_sender),
        group: None,
        unread,
        held: false,
        exit: None,
        verdict: None,
        stopping: None,
        stop_answers: Vec::new(),
        detached: false,
        grace,
        outcome: outcome_sender,
        _ended: ended.drop_guard(),
    };
    tokio::spawn(runner.run(asked, abandoned, command.timeout));

    // If this is given up, the guard has the command stopped.
    let id = match tokio::time::timeout(patience, started).await {
        Ok(Ok(id)) => id?,
        Ok(Err(_)) => {
            return Err(Error::unavailable(format!(
                "start a command on VM {vm}: the connection was lost; whether it started is unknown"
            )));
        }
        Err(_) => {
            return Err(Error::timed_out(format!(
                "start a command on VM {vm}: it did not start within {} s; is the VM overloaded?",
                patience.as_secs()
            )));
        }
    };
    Ok(Child {
        vm,
        id,
        grace,
        stdin,
        stdout: Some(stdout),
        stderr: Some(stderr),
        outcome,
        asks,
        guard,
    })
}

/// Makes the request, sends the frame and then the input, as fast as the VM takes them, from a task that ends with the
/// command.
fn feed(
    writer: ChannelWriteHalf<Msg>,
    request: String,
    frame: Bytes,
    with_stdin: bool,
    closed: CancellationToken,
    ended: CancellationToken,
) -> Option<Stdin> {
    let (sender, mut queue) = mpsc::channel(INPUT_QUEUE);
    let stdin = with_stdin.then(|| Stdin {
        queue: PollSender::new(sender),
    });
    tokio::spawn(async move {
        // Without a pause in between, so that they share a packet.
        let sending = async {
            writer.exec(true, request).await?;
            writer.data_bytes(frame).await?;
            while let Some(data) = queue.recv().await {
                writer.data_bytes(data).await?;
            }
            // An empty input was made on the VM.
            if with_stdin {
                writer.eof().await
            } else {
                Ok(())
            }
        };
        // russh wakes nobody who waits for window when the channel or the session ends.
        tokio::select! {
            _ = async { sending.await.ok(); std::future::pending::<()>().await } => {}
            () = closed.cancelled() => return,
            () = ended.cancelled() => {}
        }
        // Dropping a channel does not close it; closing one twice does no harm.
        tokio::select! {
            _ = writer.close() => {}
            () = closed.cancelled() => {}
        }
    });
    stdin
}

/// One output on its way from the channel to its reader.
struct Stage {
    /// Until the command's own output begins.
    scanner: Option<StartScanner>,
    sink: Option<Sink>,
}

struct Runner {
    vm: VmId,
    number: u64,
    slot: Slot,
    reader: ChannelReadHalf,
    out: Stage,
    err: Stage,
    directory: Option<String>,
    started: Option<oneshot::Sender<Result<u32>>>,
    group: Option<u32>,
    unread: Arc<Unread>,
    /// Whether the group is stopped until its output is read.
    held: bool,
    exit: Option<Exit>,
    /// Why waiting fails although the command ends: it was stopped by us.
    verdict: Option<Error>,
    stopping: Option<BoxFuture<'static, Result<StopReport>>>,
    stop_answers: Vec<oneshot::Sender<Result<StopReport>>>,
    detached: bool,
    grace: Duration,
    outcome: watch::Sender<Option<Result<Exit>>>,
    _ended: DropGuard,
}

/// Why the loop ended.
enum End {
    /// The channel is closed.
    Closed,
    /// The command has ended; something in the background keeps its channel open.
    Settled,
    /// Nobody reports what became of it.
    Lost,
}

impl Runner {
    async fn run(
        mut self,
        mut asked: mpsc::Receiver<Ask>,
        abandoned: CancellationToken,
        limit: Option<Duration>,
    ) {
        let link = self.slot.connection().link().clone();
        let unread = self.unread.clone();
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        let mut timed_out = false;
        let mut gone = false;
        let mut eof = false;
        // Runs from the exit status on; starts anew with every byte that comes after it.
        let mut settle: Option<BoxFuture<'static, ()>> = None;
        // Runs from the end of a stop on.
        let mut report_by: Option<Instant> = None;
        let end = loop {
            tokio::select! {
                biased;
                message = self.reader.wait() => {
                    match message {
                        Some(ChannelMsg::Data { data }) => self.take_stdout(data),
                        Some(ChannelMsg::ExtendedData { data, ext: 1 }) => self.take_stderr(data),
                        Some(ChannelMsg::ExitStatus { exit_status }) => {
                            self.exit = Some(Exit::Code(i32::try_from(exit_status).unwrap_or(i32::MAX)));
                        }
                        Some(ChannelMsg::ExitSignal { signal_name, .. }) => self.exit = Some(Exit::Signal(signal(signal_name))),
                        Some(ChannelMsg::Eof) => eof = true,
                        Some(ChannelMsg::Failure) => {
                            let error = Error::other(format!("start a command on VM {}: its SSH server runs no commands", self.vm));
                            self.refuse(error);
                            break End::Closed;
                        }
                        Some(ChannelMsg::Close) => break End::Closed,
                        None => break End::Lost,
                        Some(_) => continue,
                    }
                    if self.exit.is_some() {
                        if eof {
                            break End::Settled;
                        }
                        let link = link.clone();
                        settle = Some(Box::pin(async move {
                            tokio::time::sleep(QUIET).await;
                            link.ping(SETTLE_PING).await;
                        }));
                    }
                }
                () = async { if let Some(settle) = &mut settle { settle.await } }, if settle.is_some() => break End::Settled,
                report = async { match &mut self.stopping { Some(stop) => stop.await, None => std::future::pending().await } } => {
                    self.stopping = None;
                    for answer in self.stop_answers.drain(..) {
                        let _ = answer.send(report.clone());
                    }
                    report_by = Some(Instant::now() + REPORT);
                }
                ask = asked.recv(), if !gone => match ask {
                    Some(Ask::Signal(signal, answer)) => self.signal(signal, answer),
                    // It has ended by itself: what it left behind is meant to stay.
                    Some(Ask::Stop(_, answer)) if self.exit.is_some() && self.stopping.is_none() => {
                        let _ = answer.send(Ok(StopReport::default()));
                    }
                    Some(Ask::Stop(grace, answer)) => {
                        self.stop_answers.push(answer);
                        self.stop(grace);
                    }
                    Some(Ask::Detach) => self.detach(),
                    None => gone = true,
                },
                () = abandoned.cancelled(), if !self.detached && self.stopping.is_none() && report_by.is_none() && self.exit.is_none() => {
                    self.stop(self.grace);
                }
                () = async { match deadline { Some(at) => sleep_until(at).await, None => std::future::pending().await } }, if !timed_out && self.exit.is_none() => {
                    timed_out = true;
                    let after = limit.unwrap_or_default();
                    self.verdict = Some(Error::timed_out(format!("command on VM {}: stopped after its time limit of {after:?}", self.vm)));
                    self.stop(self.grace);
                }
                () = unread.below_low.notified(), if self.held => {
                    // The notice may be an old one.
                    if unread.bytes() < output::LOW {
                        self.hold(false);
                    }
                }
                () = async { match report_by { Some(at) => sleep_until(at).await, None => std::future::pending().await } } => break End::Lost,
                () = link.closed().cancelled() => break End::Lost,
            }
        };
        self.finish(end, asked).await;
    }

    fn take_stdout(&mut self, data: Bytes) {
        let Some(scanner) = &mut self.out.scanner else {
            return self.push(data, false);
        };
        match scanner.feed(&data) {
            Scan::More => {}
            Scan::NoDirectory => {
                let directory = crate::error::shown(self.directory.as_deref().unwrap_or_default());
                let line = format!(
                    "start a command on VM {}: there is no directory {directory:?} there that it could start in",
                    self.vm
                );
                self.refuse(Error::new(Kind::NotFound, line));
            }
            Scan::Started(group, rest) => {
                self.out.scanner = None;
                self.group = Some(group);
                // Fails only together with the connection, which is noticed.
                if !self.detached {
                    let _ = self.slot.connection().control().group(self.number, group);
                }
                if let Some(started) = self.started.take() {
                    let _ = started.send(Ok(group));
                }
                self.push(rest, false);
            }
        }
    }

    fn take_stderr(&mut self, data: Bytes) {
        let Some(scanner) = &mut self.err.scanner else {
            return self.push(data, true);
        };
        if let Scan::Started(_, rest) = scanner.feed(&data) {
            self.err.scanner = None;
            self.push(rest, true);
        }
    }

    fn push(&mut self, data: Bytes, stderr: bool) {
        let stage = if stderr { &self.err } else { &self.out };
        if let Some(sink) = &stage.sink {
            sink.push(data);
        }
        let unread = self.unread.bytes();
        if unread > output::MOST && self.verdict.is_none() {
            let mib = output::MOST >> 20;
            self.verdict = Some(Error::new(
                Kind::Limit,
                format!(
                    "command on VM {}: stopped with {mib} MiB of output that nobody read; read it, or write it to a file",
                    self.vm
                ),
            ));
            self.stop(Duration::ZERO);
        } else if unread > output::HIGH && !self.held {
            self.hold(true);
        }
    }

    /// Stops the group until its output is read, or lets it go on.
    fn hold(&mut self, held: bool) {
        if let Some(group) = self.group
            && self.exit.is_none()
            && self.stopping.is_none()
        {
            let signal = if held { Signal::Stop } else { Signal::Continue };
            let _ = self
                .slot
                .connection()
                .control()
                .nudge(self.number, group, signal);
        }
        self.held = held;
        // It may have been read meanwhile.
        if held && self.unread.bytes() < output::LOW {
            self.hold(false);
        }
    }

    fn signal(&mut self, signal: Signal, answer: oneshot::Sender<Result<bool>>) {
        let Some(group) = self.group.filter(|_| self.exit.is_none()) else {
            let _ = answer.send(Ok(false));
            return;
        };
        let sent = self
            .slot
            .connection()
            .control()
            .signal(self.number, group, signal);
        tokio::spawn(async move {
            let _ = answer.send(sent.await);
        });
    }

    fn stop(&mut self, grace: Duration) {
        // A second, more impatient stop replaces the first: its answer serves both.
        self.held = false;
        let stop = self
            .slot
            .connection()
            .control()
            .stop(self.number, self.group, grace);
        self.stopping = Some(Box::pin(stop));
    }

    fn detach(&mut self) {
        self.detached = true;
        let _ = self.slot.connection().control().forget(self.number);
    }

    /// The command did not start.
    fn refuse(&mut self, error: Error) {
        if let Some(started) = self.started.take() {
            let _ = started.send(Err(error.clone()));
        }
        self.verdict = Some(error);
    }

    async fn finish(mut self, end: End, asked: mpsc::Receiver<Ask>) {
        if let Some(started) = self.started.take() {
            let error = match end {
                End::Lost => self.slot.connection().link().lost("start a command"),
                End::Closed | End::Settled => {
                    let noise = self
                        .err
                        .scanner
                        .as_ref()
                        .map(StartScanner::noise)
                        .unwrap_or_default();
                    let noise = if noise.is_empty() {
                        "nothing".to_owned()
                    } else {
                        format!("{noise:?}")
                    };
                    Error::other(format!(
                        "start a command on VM {}: its shell ended before it began, and said {noise}",
                        self.vm
                    ))
                }
            };
            let _ = started.send(Err(error));
        }
        let outcome = match (self.verdict.take(), self.exit.take(), &end) {
            (Some(verdict), _, _) => Err(verdict),
            (None, Some(exit), _) => Ok(exit),
            (None, None, _) if self.slot.connection().link().is_closed() => {
                Err(self.slot.connection().link().lost("run a command"))
            }
            (None, None, _) => Err(Error::unavailable(format!(
                "run a command on VM {}: its SSH server does not tell how it ended",
                self.vm
            ))),
        };
        // Whoever asks from now on finds the end; whoever has asked gets an answer.
        drop(asked);
        self.out.sink = None;
        self.err.sink = None;
        self.outcome.send_replace(Some(outcome));
        if let Some(stop) = self.stopping.take() {
            // The leader is gone; the rest of its group may not be.
            let report = stop.await;
            for answer in self.stop_answers.drain(..) {
                let _ = answer.send(report.clone());
            }
        }
        if !matches!(end, End::Lost) {
            let _ = self.slot.connection().control().forget(self.number);
        }
        if matches!(end, End::Settled) {
            self.linger().await;
        }
    }

    /// Waits for the end of the channel, which usually is on its way. If something in the background holds it, it is
    /// still read, or that something would stop or die when it writes; but only a few are, as each takes a place at
    /// the server.
    async fn linger(mut self) {
        let closed = async {
            while let Some(message) = self.reader.wait().await {
                if matches!(message, ChannelMsg::Close) {
                    break;
                }
            }
        };
        tokio::pin!(closed);
        let link = self.slot.connection().link().clone();
        if tokio::time::timeout(QUIET, &mut closed).await.is_ok() {
            return;
        }
        let Some(_place) = self.slot.linger() else {
            return;
        };
        tokio::select! {
            () = closed => {}
            () = link.closed().cancelled() => {}
        }
    }
}

/// The name of a signal, without the `@` of an implementation's own.
fn signal(signal: Sig) -> String {
    match signal {
        Sig::ABRT => "ABRT".into(),
        Sig::ALRM => "ALRM".into(),
        Sig::FPE => "FPE".into(),
        Sig::HUP => "HUP".into(),
        Sig::ILL => "ILL".into(),
        Sig::INT => "INT".into(),
        Sig::KILL => "KILL".into(),
        Sig::PIPE => "PIPE".into(),
        Sig::QUIT => "QUIT".into(),
        Sig::SEGV => "SEGV".into(),
        Sig::TERM => "TERM".into(),
        Sig::USR1 => "USR1".into(),
        // OpenSSH has no name for the others and says "SIG@openssh.com".
        Sig::Custom(name) => match name.split('@').next() {
            Some("SIG" | "") | None => "UNKNOWN".into(),
            Some(name) => crate::error::shown(name),
        },
    }
}
