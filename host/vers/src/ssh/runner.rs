//! The task that looks after a command on a VM.
//!
//! It owns the command's channel: it reads it without pause (see [`output`](super::output)), notices how the command
//! ended, stops it when its [`Child`](super::Child) is dropped or its time is up, and gives the channel's place back.
//! It ends with the channel, or with the connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use russh::{ChannelMsg, ChannelReadHalf, Sig};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::StopReport;
use super::child::Ask;
use super::command::{Exit, Signal};
use super::lease::Slot;
use super::output::{self, Sink, Unread};
use super::start::{Scan, StartScanner};
use crate::api::VmId;
use crate::error::{Error, Kind, Result};

/// A silence this long after the exit status, and an answer of the server after it, mean that no output is under way:
/// whatever holds the output open is a background process.
const QUIET: Duration = Duration::from_millis(100);
const SETTLE_PING: Duration = Duration::from_secs(5);
/// How long sshd may take to report the end of what was stopped.
const REPORT: Duration = Duration::from_secs(5);
/// How long a command that is to be stopped may take to begin, before it is looked for all the same.
const BEGINNING: Duration = Duration::from_secs(15);

/// One output on its way from the channel to its reader.
pub(super) struct Stage {
    /// Until the command's own output begins.
    scanner: Option<StartScanner>,
    sink: Option<Sink>,
}

impl Stage {
    /// `with_pid`: the one that the process id comes on.
    pub(super) fn new(sink: Sink, with_pid: bool) -> Self {
        Self {
            scanner: Some(StartScanner::new(with_pid)),
            sink: Some(sink),
        }
    }
}

/// A command and its channel.
pub(super) struct Runner {
    pub(super) vm: VmId,
    pub(super) number: u64,
    pub(super) slot: Slot,
    pub(super) reader: ChannelReadHalf,
    pub(super) out: Stage,
    pub(super) err: Stage,
    pub(super) directory: Option<String>,
    pub(super) started: Option<oneshot::Sender<Result<u32>>>,
    pub(super) group: Option<u32>,
    /// A stop with this grace, as soon as the group is known, or then.
    pub(super) wanted: Option<(Duration, Instant)>,
    /// Cancelled with that: if it was not told what to run, it will not be.
    pub(super) unwanted: CancellationToken,
    /// Cancelled when the VM has agreed to run something.
    pub(super) accepted: CancellationToken,
    pub(super) unread: Arc<Unread>,
    /// Bytes that came after it had written too much.
    pub(super) dropped: usize,
    /// Whether the group is stopped until its output is read.
    pub(super) held: bool,
    pub(super) exit: Option<Exit>,
    /// Why waiting fails although the command ends: it was stopped by us.
    pub(super) verdict: Option<Error>,
    pub(super) stopping: Option<BoxFuture<'static, Result<StopReport>>>,
    pub(super) stop_answers: Vec<oneshot::Sender<Result<StopReport>>>,
    pub(super) detached: bool,
    pub(super) grace: Duration,
    pub(super) outcome: watch::Sender<Option<Result<Exit>>>,
    pub(super) _ended: DropGuard,
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
    pub(super) async fn run(
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
                        Some(ChannelMsg::Success) => {
                            self.accepted.cancel();
                            continue;
                        }
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
                    self.judge(&report);
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
                () = abandoned.cancelled(), if !self.detached && self.stopping.is_none() && self.wanted.is_none() && report_by.is_none() && self.exit.is_none() => {
                    self.stop(self.grace);
                }
                () = async { match deadline { Some(at) => sleep_until(at).await, None => std::future::pending().await } }, if !timed_out && self.exit.is_none() => {
                    timed_out = true;
                    let after = limit.unwrap_or_default();
                    self.verdict = Some(Error::timed_out(format!("command on VM {}: stopped after its time limit of {after:?}", self.vm)));
                    self.stop(self.grace);
                }
                () = async { match self.wanted { Some((_, at)) => sleep_until(at).await, None => std::future::pending().await } } => {
                    if let Some((grace, _)) = self.wanted.take() {
                        self.stop_now(grace);
                    }
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
                if let Some((grace, _)) = self.wanted.take() {
                    self.stop_now(grace);
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
        match &stage.sink {
            Some(sink) if self.unread.bytes() <= output::MOST => sink.push(data),
            // What still comes of one that wrote too much is not kept. A VM that cannot stop it gets no more of our time.
            _ => {
                self.dropped += data.len();
                if self.dropped > output::MOST {
                    let link = self.slot.connection().link();
                    link.fail_because("the VM sent without end what nobody reads");
                }
            }
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
        if self.group.is_some() {
            self.stop_now(grace);
        } else {
            // A process that has not begun is not found by its mark, and begins afterwards.
            let begun_by = Instant::now() + BEGINNING;
            self.wanted = Some((grace, begun_by));
            self.unwanted.cancel();
        }
    }

    fn stop_now(&mut self, grace: Duration) {
        // A second, more impatient stop replaces the first: its answer serves both.
        self.held = false;
        let stop = self
            .slot
            .connection()
            .control()
            .stop(self.number, self.group, grace);
        self.stopping = Some(Box::pin(stop));
    }

    /// Says in the verdict what the stop came to.
    fn judge(&mut self, report: &Result<StopReport>) {
        if let Some(verdict) = self.verdict.take() {
            let came = match report {
                Ok(report) => report.to_string(),
                Err(error) => format!("whether it is gone is unknown: {error}"),
            };
            self.verdict = Some(Error::new(verdict.kind(), format!("{verdict}; {came}")));
        }
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
        // The verdict says what the stop came to.
        if self.verdict.is_some()
            && let Some(stop) = self.stopping.take()
        {
            let report = stop.await;
            self.judge(&report);
            for answer in self.stop_answers.drain(..) {
                let _ = answer.send(report.clone());
            }
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
