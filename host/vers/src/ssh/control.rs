//! The one process on the VM that stops the others: one small shell for each connection.
//!
//! A command on the VM outlives its channel and its connection, and sshd ignores requests to signal root's processes.
//! So each connection opens a channel for `control.sh` first. It is told of every command before that command is
//! started, sends signals to process groups, stops groups and looks whether they are gone. When its input ends,
//! because we end it or because the connection or this whole process is lost, it stops every command it still knows.
//! Commands themselves then need no wrapper: the program is the direct child of sshd, with its own exit status,
//! its own standard input, and no process of ours beside it.
//!
//! Requests are lines: `+ n` watch command n, `= n group` its group, `- n` forget it, `s n group SIG seq` send a
//! signal, `x n group naps seq` stop it. Answers begin with the number of the request (`-`: nobody waits for one); number 0
//! is what it says of itself. The shell finds what has left
//! its group (`setsid`) by the command's mark in `/proc/*/environ`. A command whose first process has ended counts as
//! forgotten: this process may have ended before it could say so.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use russh::ChannelMsg;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::StopReport;
use super::command::{self, Command, Signal};
use super::connection::Link;
use super::start::{Scan, StartScanner};
use crate::error::{Error, Kind, Result};

/// Requests that wait to be sent. Each command makes a few.
const QUEUE: usize = 1024;
/// One look at a group that is given time, as in `control.sh`.
const NAP: Duration = Duration::from_millis(20);
/// How long the control shell may take beyond what it was given.
const PATIENCE: Duration = Duration::from_secs(15);
/// Whether the server hands over variables that come with a request.
const PROBE: &str = "LC_VERS_PROBE";
/// What the shell says if it does.
const VARIABLES: &str = "0 variables";
/// An answer is a short line.
const LONGEST_LINE: usize = 1024;

struct Request {
    line: String,
    answer: Option<(u64, oneshot::Sender<String>)>,
    /// Told when the line has been sent and the shell runs.
    sent: Option<oneshot::Sender<()>>,
}

/// The way to a connection's control shell. When the last clone is dropped, the shell stops all commands that it
/// still watches, and the connection is closed.
#[derive(Clone, Debug)]
pub(super) struct Control {
    requests: mpsc::Sender<Request>,
    sequence: Arc<AtomicU64>,
    /// Whether the server hands variables over.
    variables: Arc<AtomicBool>,
}

impl Control {
    /// Starts the shell of a connection in the background; if it cannot be had, the connection is given up: without
    /// it nothing could be stopped.
    ///
    /// Cancelling `shutdown` has it stop all commands that it watches, and then closes the connection.
    pub(super) fn start(
        link: Arc<Link>,
        connection: &str,
        grace: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        let (requests, queue) = mpsc::channel(QUEUE);
        let connection = connection.to_owned();
        let variables = Arc::<AtomicBool>::default();
        let handed_over = variables.clone();
        tokio::spawn(async move {
            // russh wakes nobody who waits for window when the session ends, and sshd gives none before the shell starts.
            let served = tokio::select! {
                served = serve(&link, &connection, grace, queue, &shutdown, &handed_over) => served,
                () = link.closed().cancelled() => Err(link.lost("control commands")),
            };
            if let Err(error) = served {
                tracing::debug!(vm = %link.vm, %error, "control shell ended");
            }
            link.disconnect().await;
        });
        Self {
            requests,
            sequence: Arc::default(),
            variables,
        }
    }

    /// Whether the shell runs and got a variable that came with its request: so will others.
    pub(super) fn takes_variables(&self) -> bool {
        self.variables.load(Ordering::Relaxed)
    }

    /// Before a command starts: it must not be told what to run before the answer is there, which says that the shell
    /// runs, deaf to signals, and gets this before it gets anything later. Without an answer the connection is lost, or
    /// about to be.
    pub(super) fn watch(&self, number: u64) -> Result<oneshot::Receiver<()>> {
        let (sender, receiver) = oneshot::channel();
        self.send(Request {
            line: format!("+ {number}\n"),
            answer: None,
            sent: Some(sender),
        })?;
        Ok(receiver)
    }

    /// When its group is known.
    pub(super) fn group(&self, number: u64, group: u32) -> Result<()> {
        self.tell(format!("= {number} {group}\n"))
    }

    /// When it has ended, or shall live on.
    pub(super) fn forget(&self, number: u64) -> Result<()> {
        self.tell(format!("- {number}\n"))
    }

    /// Sends a signal without asking what came of it.
    pub(super) fn nudge(&self, number: u64, group: u32, signal: Signal) -> Result<()> {
        self.tell(format!("s {number} {group} {} -\n", signal.name()))
    }

    /// Sends a signal; whether there was somebody to get it.
    pub(super) fn signal(
        &self,
        number: u64,
        group: u32,
        signal: Signal,
    ) -> impl Future<Output = Result<bool>> + use<> {
        let asked =
            self.ask(|sequence| format!("s {number} {group} {} {sequence}\n", signal.name()));
        async move { Ok(answer(asked, PATIENCE).await? == "ok") }
    }

    /// Stops a command; `None` for a group that is not known yet.
    pub(super) fn stop(
        &self,
        number: u64,
        group: Option<u32>,
        grace: Duration,
    ) -> impl Future<Output = Result<StopReport>> + use<> {
        let naps = naps(grace);
        let group = group.map_or("-".to_owned(), |g| g.to_string());
        let asked = self.ask(|sequence| format!("x {number} {group} {naps} {sequence}\n"));
        async move {
            let line = answer(asked, grace + PATIENCE).await?;
            parse_report(&line).ok_or_else(|| {
                Error::other(format!(
                    "stop a command: the VM answered {:?}",
                    crate::error::shown(&line)
                ))
            })
        }
    }

    fn tell(&self, line: String) -> Result<()> {
        self.send(Request {
            line,
            answer: None,
            sent: None,
        })
    }

    fn ask(&self, line: impl FnOnce(u64) -> String) -> Result<oneshot::Receiver<String>> {
        let sequence = 1 + self.sequence.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.send(Request {
            line: line(sequence),
            answer: Some((sequence, sender)),
            sent: None,
        })?;
        Ok(receiver)
    }

    fn send(&self, request: Request) -> Result<()> {
        self.requests.try_send(request).map_err(|_| {
            Error::unavailable(
                "the connection to the VM was lost; whether the command goes on is unknown",
            )
        })
    }
}

fn naps(grace: Duration) -> u128 {
    grace.as_millis().div_ceil(NAP.as_millis())
}

async fn answer(asked: Result<oneshot::Receiver<String>>, patience: Duration) -> Result<String> {
    match timeout(patience, asked?).await {
        Ok(Ok(line)) => Ok(line),
        Ok(Err(_)) => Err(Error::unavailable(
            "the connection to the VM was lost; what it still watched is being stopped there",
        )),
        Err(_) => Err(Error::timed_out(
            "the VM did not confirm in time; it may be overloaded",
        )),
    }
}

fn parse_report(line: &str) -> Option<StopReport> {
    let mut fields = line.split(' ');
    let signal = match fields.next()? {
        "TERM" => Some(Signal::Terminate),
        "KILL" => Some(Signal::Kill),
        "-" => None,
        _ => return None,
    };
    Some(StopReport {
        signal,
        escaped: fields.next()?.parse().ok()?,
        left: fields.next()?.parse().ok()?,
    })
}

fn script(connection: &str, grace: Duration) -> String {
    format!(
        "c={connection}\nnaps={}\n{}",
        naps(grace),
        include_str!("control.sh")
    )
}

async fn serve(
    link: &Link,
    connection: &str,
    grace: Duration,
    mut queue: mpsc::Receiver<Request>,
    shutdown: &CancellationToken,
    variables: &AtomicBool,
) -> Result<()> {
    let channel = link.open_first_session().await?;
    let lost = || link.lost("control commands");
    let (mut output, input) = channel.split();
    let frame = command::frame(&Command::shell(script(connection, grace)).with_stdin())?;
    // Deaf as soon as root's profile has run: a connection that breaks from then on must not end it by SIGPIPE, with
    // commands on the VM that nobody else knows of. Until it says that it runs, no command does.
    let request = command::request(&format!("{connection}.0."));
    input.set_env(false, PROBE, "1").await.map_err(|_| lost())?;
    input
        .exec(true, format!("trap '' HUP INT QUIT TERM PIPE; {request}"))
        .await
        .map_err(|_| lost())?;
    input.data_bytes(frame).await.map_err(|_| lost())?;

    let mut scanner = Some(StartScanner::new(true));
    let mut line = Vec::new();
    let mut waiting: HashMap<u64, oneshot::Sender<String>> = HashMap::new();
    let mut told: Vec<oneshot::Sender<()>> = Vec::new();
    let mut ending = false;
    loop {
        tokio::select! {
            message = output.wait() => match message {
                Some(ChannelMsg::Data { data }) => {
                    let data = match scanner.as_mut().map(|s| s.feed(&data)) {
                        None => data,
                        Some(Scan::Started(_, rest)) => {
                            scanner = None;
                            tell(&mut told);
                            rest
                        }
                        Some(_) => continue,
                    };
                    take_lines(&mut line, &data, &mut waiting, variables)?;
                }
                Some(ChannelMsg::Close) | None => return if ending { Ok(()) } else { Err(lost()) },
                Some(ChannelMsg::Failure) => return Err(Error::new(Kind::Other, "the VM's SSH server runs no commands")),
                Some(_) => {}
            },
            request = queue.recv(), if !ending => match request {
                Some(Request { mut line, answer, sent }) => {
                    waiting.extend(answer);
                    told.extend(sent);
                    // What else waits goes along in the same packet.
                    while let Ok(more) = queue.try_recv() {
                        line.push_str(&more.line);
                        waiting.extend(more.answer);
                        told.extend(more.sent);
                    }
                    // Lines are few and short, the window is large: this does not wait for the VM.
                    input.data_bytes(Bytes::from(line)).await.map_err(|_| lost())?;
                    // Before it runs, root's profile does: whatever ends that leaves nobody who watches.
                    if scanner.is_none() {
                        tell(&mut told);
                    }
                }
                None => {
                    ending = true;
                    input.eof().await.map_err(|_| lost())?;
                }
            },
            () = shutdown.cancelled(), if !ending => {
                ending = true;
                // Above all, which commands have ended meanwhile.
                let mut rest = String::new();
                // Commands that were about to start do not: nobody answers that they are watched.
                while let Ok(Request { line, answer, .. }) = queue.try_recv() {
                    rest.push_str(&line);
                    waiting.extend(answer);
                }
                if !rest.is_empty() {
                    input.data_bytes(Bytes::from(rest)).await.map_err(|_| lost())?;
                }
                input.eof().await.map_err(|_| lost())?;
            }
            () = link.closed().cancelled() => return Err(lost()),
            () = tokio::time::sleep(grace + PATIENCE), if ending => return Err(lost()),
        }
    }
}

fn tell(told: &mut Vec<oneshot::Sender<()>>) {
    for sent in told.drain(..) {
        let _ = sent.send(());
    }
}

/// Hands complete lines to whoever waits for them; `variables` is told if the server hands them over.
fn take_lines(
    line: &mut Vec<u8>,
    data: &[u8],
    waiting: &mut HashMap<u64, oneshot::Sender<String>>,
    variables: &AtomicBool,
) -> Result<()> {
    for byte in data {
        if *byte != b'\n' {
            line.push(*byte);
            if line.len() > LONGEST_LINE {
                return Err(Error::other("the VM's control shell makes no sense"));
            }
            continue;
        }
        let text = String::from_utf8_lossy(line).into_owned();
        line.clear();
        if text == VARIABLES {
            variables.store(true, Ordering::Relaxed);
        } else if let Some((sequence, rest)) = text.split_once(' ')
            && let Some(sender) = sequence
                .parse()
                .ok()
                .and_then(|sequence: u64| waiting.remove(&sequence))
        {
            let _ = sender.send(rest.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reports_are_understood() {
        let report = StopReport {
            signal: Some(Signal::Kill),
            escaped: 2,
            left: 0,
        };
        assert_eq!(parse_report("KILL 2 0"), Some(report));
        assert_eq!(parse_report("- 0 0"), Some(StopReport::default()));
        assert_eq!(parse_report("TERM 0"), None);
    }

    /// The script by itself, in every shell that root may have.
    #[test]
    fn the_script_stops_groups_and_what_left_them_in_every_shell() {
        use std::io::{BufRead as _, BufReader, Write as _};
        use std::os::unix::process::CommandExt as _;
        use std::process::{Child, Command as Process, Stdio};

        /// A process group that is gone when this is.
        struct Victim(Child);

        impl Victim {
            fn new(connection: &str, number: u64, script: &str) -> Self {
                let mark = format!("{connection}.{number}.");
                let mut process = Process::new("bash");
                process
                    .args(["-c", script])
                    .env(command::MARKER_VARIABLE, mark);
                process
                    .stdout(Stdio::piped())
                    .stderr(Stdio::null())
                    .process_group(0);
                let mut victim = Self(process.spawn().unwrap());
                // It says so when it is ready.
                let output = victim.0.stdout.take().unwrap();
                BufReader::new(output)
                    .read_line(&mut String::new())
                    .unwrap();
                victim
            }

            fn id(&self) -> u32 {
                self.0.id()
            }
        }

        impl Drop for Victim {
            fn drop(&mut self) {
                let group = rustix::process::Pid::from_raw(self.id().cast_signed()).unwrap();
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                let _ = self.0.wait();
            }
        }

        for shell in command::tests::shells() {
            let connection = uuid::Uuid::new_v4().simple().to_string();
            let mut control = Process::new(shell[0])
                .args(&shell[1..])
                .args(["-c", &script(&connection, Duration::from_millis(100))])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut input = control.stdin.take().unwrap();
            let mut output = BufReader::new(control.stdout.take().unwrap()).lines();
            let mut ask = |line: String| {
                input.write_all(line.as_bytes()).unwrap();
                output.next().unwrap().unwrap()
            };
            let mut mild = Victim::new(&connection, 1, "echo; exec sleep 1000");
            let mut wild = Victim::new(
                &connection,
                2,
                "trap '' TERM; setsid sleep 1000 & (trap '' TERM; sleep 1000) & echo; wait",
            );
            let mut left = Victim::new(
                &connection,
                3,
                "trap '' TERM; setsid sleep 1000 & echo; sleep 1000; true",
            );
            let mut spared = Victim::new(&connection, 4, "echo; exec sleep 1000");
            let mut known = Victim::new(&connection, 11, "echo; exec sleep 1000");
            assert_eq!(
                ask(format!("+ 1\n= 1 {0}\n+ 2\ns 1 {0} CONT 7\n", mild.id())),
                "7 ok",
                "{shell:?}"
            );
            // The process is this test's child, and a zombie until it is waited for: nobody to stop any more.
            assert_eq!(
                ask(format!("x 1 {} 50 8\n", mild.id())),
                "8 TERM 0 0",
                "{shell:?}"
            );
            assert_eq!(
                ask(format!("x 2 {} 5 9\n", wild.id())),
                "9 KILL 1 0",
                "{shell:?}"
            );
            mild.0.wait().unwrap();
            assert_eq!(
                ask(format!("s 1 {} TERM 10\n", mild.id())),
                "10 gone",
                "{shell:?}"
            );
            wild.0.wait().unwrap();
            // Its process has ended, and nobody has said so: what it has left in the background is no command any more.
            let mut over = Victim::new(&connection, 12, "sleep 1000 & echo");
            over.0.wait().unwrap();
            // At the end of its input: what is watched, with and without a known group, and nothing else.
            let more = format!(
                "- 1\n- 2\n+ 3\n+ 4\n+ 11\n= 11 {}\n- 4\n+ 12\n= 12 {}\n",
                known.id(),
                over.id()
            );
            input.write_all(more.as_bytes()).unwrap();
            drop(input);
            assert!(control.wait().unwrap().success(), "{shell:?}");
            left.0.wait().unwrap();
            known.0.wait().unwrap();
            assert!(spared.0.try_wait().unwrap().is_none(), "{shell:?}");
            let group = rustix::process::Pid::from_raw(over.id().try_into().unwrap()).unwrap();
            assert!(
                rustix::process::test_kill_process_group(group).is_ok(),
                "{shell:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_survived(data in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _ = take_lines(&mut Vec::new(), &data, &mut HashMap::new(), &AtomicBool::new(false));
            let _ = parse_report(&String::from_utf8_lossy(&data));
        }
    }
}
