//! A command that runs on a VM, as its owner sees it; and how it is started.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use russh::ChannelWriteHalf;
use russh::client::Msg;
use tokio::io::AsyncWrite;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, DropGuard, PollSender};

use super::SshOptions;
use super::command::{self, Command, Exit, Signal};
use super::dial::Purpose;
use super::lease::Lease;
use super::machine::Machine;
use super::output::{self, Output, Unread};
use super::runner::{Runner, Stage};
use crate::api::VmId;
use crate::error::{Error, Kind, Result};

/// A VM that said anything within this time takes a command in one round trip. Else it is asked first, and told what to
/// run when it has answered: one that is paused would do it when it is resumed, when nobody waits for it any more.
const FRESH: Duration = Duration::from_millis(500);
/// How much longer than the grace the end of a command is waited for whose start was given up.
const GONE: Duration = Duration::from_secs(1);
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

impl fmt::Display for StopReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signal {
            Some(signal) => write!(f, "its process group took {}", signal.name())?,
            None => write!(f, "its process group was gone already")?,
        }
        if self.escaped > 0 {
            write!(
                f,
                ", {} that had left it had to be killed",
                processes(self.escaped)
            )?;
        }
        match self.left {
            0 => write!(f, ", nothing is left"),
            left => write!(
                f,
                ", {} could not be stopped and are still there",
                processes(left)
            ),
        }
    }
}

fn processes(count: u32) -> String {
    match count {
        1 => "1 process".to_owned(),
        count => format!("{count} processes"),
    }
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

/// What its owner wants of it.
pub(super) enum Ask {
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

/// Starts a command on a connection for this purpose. Returns when it runs.
pub(super) async fn spawn(
    machine: &Arc<Machine>,
    purpose: Purpose,
    command: &Command,
    options: &SshOptions,
    given_up: &CancellationToken,
) -> Result<Child> {
    let frame = command::frame(command)?;
    let lease = async {
        match purpose {
            Purpose::Commands => machine.session(options.patience).await,
            Purpose::Bulk => machine.bulk(options.patience).await,
        }
    };
    let Some(lease) = given_up.run_until_cancelled(lease).await else {
        return Err(Error::cancelled("start a command"));
    };
    start(lease?, frame, command, options, given_up).await
}

/// The same, on a channel that nothing was asked of yet.
async fn start(
    lease: Lease,
    frame: Bytes,
    command: &Command,
    options: &SshOptions,
    given_up: &CancellationToken,
) -> Result<Child> {
    let grace = options.grace;
    let Some((slot, channel)) = lease.take() else {
        return Err(Error::other("start a command: its channel was used before"));
    };
    let vm = slot.connection().link().vm;
    let machine = slot.machine().clone();
    let number = slot.connection().next_number();
    let control = slot.connection().control().clone();
    // The order matters: what is not watched is not stopped.
    let watched = control.watch(number)?;
    let (reader, writer) = channel.split();
    // Nothing is awaited before the guard exists: a start that is given up is stopped like a command.
    let ended = CancellationToken::new();
    let (unwanted, accepted) = (CancellationToken::new(), CancellationToken::new());
    let request = command::request(&slot.connection().tag(number));
    let closed = slot.connection().link().closed().clone();
    // A VM that was heard just now is not frozen: it may be told what to run in one go.
    let variable = (control.takes_variables()
        && slot.connection().link().pulse().silent() <= FRESH)
        .then(|| command::in_variable(command, &frame))
        .flatten();
    let told_at_once = variable.is_some();
    let beginning = Beginning {
        watched,
        request,
        frame,
        variable,
        accepted: accepted.clone(),
        unwanted: unwanted.clone(),
    };
    let stdin = feed(writer, beginning, command.stdin, closed, ended.clone());

    let unread = Arc::new(Unread::default());
    let (stdout_sink, stdout) = output::output(unread.clone());
    let (stderr_sink, stderr) = output::output(unread.clone());
    let (asks, asked) = mpsc::channel(16);
    let (outcome_sender, mut outcome) = watch::channel(None);
    let (started_sender, started) = oneshot::channel();
    let abandoned = CancellationToken::new();
    let guard = abandoned.clone().drop_guard();
    let runner = Runner {
        vm,
        number,
        slot,
        reader,
        out: Stage::new(stdout_sink, true),
        err: Stage::new(stderr_sink, false),
        directory: command.cwd.clone(),
        started: Some(started_sender),
        group: None,
        wanted: None,
        unwanted,
        accepted,
        unread,
        dropped: 0,
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

    // If this is dropped, the guard has the command stopped.
    let started = tokio::time::timeout(options.patience, machine.unless_down(started));
    let Some(started) = given_up.run_until_cancelled(started).await else {
        drop(guard);
        // Its runner ends when the command is gone. A VM that does not answer is not waited for.
        let _ = tokio::time::timeout(grace + GONE, outcome.wait_for(Option::is_some)).await;
        return Err(Error::cancelled(format!("start a command on VM {vm}")));
    };
    let id = match started {
        Ok(Ok(Ok(id))) => id?,
        Ok(Ok(Err(_))) => {
            return Err(Error::unavailable(format!(
                "start a command on VM {vm}: the connection was lost; whether it started is unknown"
            )));
        }
        // The platform says that the VM does not answer. It has been told what to run, and may yet do it.
        Ok(Err(error)) if told_at_once => {
            return Err(Error::unavailable(format!(
                "start a command on VM {vm}: {error}; whether the command takes effect then is unknown"
            )));
        }
        Ok(Err(error)) => {
            return Err(error.during(format!(
                "start a command on VM {vm}: whether it started is unknown"
            )));
        }
        Err(_) => {
            return Err(Error::timed_out(format!(
                "start a command on VM {vm}: it did not start within {} s; is the VM overloaded?",
                options.patience.as_secs()
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

/// What a command begins with.
struct Beginning {
    /// The control shell knows of it.
    watched: oneshot::Receiver<()>,
    request: String,
    frame: Bytes,
    /// The frame, to go with the request.
    variable: Option<String>,
    /// The VM has agreed to the request.
    accepted: CancellationToken,
    /// Nobody wants it any more.
    unwanted: CancellationToken,
}

impl Beginning {
    /// Makes the request and sends the frame; whether it came to that.
    async fn send(self, writer: &ChannelWriteHalf<Msg>) -> Result<bool, russh::Error> {
        let send = async {
            if let Some(variable) = self.variable {
                if self.watched.await.is_err() {
                    return Ok(false);
                }
                let name = command::FRAME_VARIABLE;
                writer.set_env(false, name, variable).await?;
                return writer.exec(true, self.request).await.map(|()| true);
            }
            writer.exec(true, self.request).await?;
            // Its shell waits for the frame meanwhile, and ends if there comes none.
            if self.watched.await.is_err() {
                return Ok(false);
            }
            // OpenSSH takes no input before. A VM that is frozen agrees to nothing: it is not told what to run, and when
            // it goes on nobody may want that any more.
            self.accepted.cancelled().await;
            writer.data_bytes(self.frame).await.map(|()| true)
        };
        tokio::select! {
            biased;
            () = self.unwanted.cancelled() => Ok(false),
            sent = send => sent,
        }
    }
}

/// Makes the request, sends the frame and then the input, as fast as the VM takes them, from a task that ends with the
/// command.
fn feed(
    writer: ChannelWriteHalf<Msg>,
    beginning: Beginning,
    with_stdin: bool,
    closed: CancellationToken,
    ended: CancellationToken,
) -> Option<Stdin> {
    let (sender, mut queue) = mpsc::channel(INPUT_QUEUE);
    let stdin = with_stdin.then(|| Stdin {
        queue: PollSender::new(sender),
    });
    tokio::spawn(async move {
        let sending = async {
            if !beginning.send(&writer).await? {
                return writer.close().await;
            }
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
