//! The lines of a file that grows on a VM, over any number of connections.
//!
//! # The idea
//!
//! A place in a file is a byte offset, and only bytes that have arrived count. So after a cut the next connection goes
//! on at the byte after the last one that came, wherever in a line that is, and no line is lost or doubled. The place
//! is worth nothing in another file: so the file's identity is kept as well (device, inode, and time of birth where the
//! VM's `stat` tells it, as inode numbers are given anew), and the last bytes before the place, which have to be there
//! again.
//!
//! # On the VM
//!
//! One small shell (`follow.sh`) holds the file open and copies what is new with `cat`, which leaves the offset where it
//! stopped. `tail -F` does not do the copying, because it loses the end of a file that is replaced, or prints it twice,
//! and says so on another output, in no order; it only wakes the shell. GNU's `tail` watches (inotify) files that are on
//! the VM's own disks and no symbolic links; else (overlayfs counts as not its own) it looks ten times a second, and
//! busybox's once: everything is told then too, that much later. What the shell says stands within the data, [marked](marks).
//!
//! It is a command like others, stopped with the follow, and by the connection's control shell when that breaks. And it
//! ends by itself with its input: a connection may break before the control shell has heard of it. A consumer that does
//! not read leaves some megabytes here, and then the command is stopped until it does ([`Output`](super::Output)).
//!
//! # What cannot be known
//!
//! - While there is no connection, or nobody reads, a file may be replaced. The old one is found again if it is in the
//!   same directory under some name (as `logrotate` leaves it), and read to its end, as it was then. If it is not there
//!   any more, nobody knows how much of it was missed, and the follow fails and says so.
//! - A file that came and was replaced again in that time has never been seen, and is not told of.
//! - The old file is read once more after the path has come to lead elsewhere, and then left. What is written to it
//!   later is not told; between moving the file away and making the new one, it is told when the new one is there.
//! - A file that is truncated and has grown beyond the place before this side looks counts as grown. After a cut the
//!   last bytes before the place tell, if they are others.

mod lines;
mod marks;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use rand::Rng as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::lines::Lines;
use self::marks::{Marks, Piece};
use super::command::{Command, Exit};
use super::dial::Purpose;
use super::machine::Machine;
use super::{SshOptions, child};
use crate::api::VmId;
use crate::error::{Error, Kind, Result};

/// Where a follow begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// This byte offset, where a line begins. If the file is shorter, that is told as [`Followed::Truncated`].
    Offset(u64),
    /// The end that the file has now. A file that does not exist yet begins at 0.
    End,
}

/// What a follow tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The next line, when its end has been written.
    Line {
        /// The byte offset at which it begins.
        offset: u64,
        /// The byte offset at which the line after it begins.
        next: u64,
        /// Without its end (`\n` or `\r\n`), at most 1 MiB. What is no UTF-8 is replaced.
        text: String,
        /// Bytes of the file that were left out at its end.
        left_out: u64,
    },
    /// The path leads to another file: what comes is that one's, from offset 0 on. All lines of the old one were handed
    /// over, also a last one without an end.
    Replaced,
    /// The file became shorter: what comes is from offset 0 on. A line that had no end yet is dropped.
    Truncated,
}

/// A followed file: a stream that goes on until it is dropped, or ends with an error.
///
/// The errors: [`Kind::Conflict`] if the VM is paused, `NotFound` if it is gone, `Unavailable` or `TimedOut` if it could
/// not be reached for the time of [`SshOptions::patience`]; those of [`Ssh::connect`](super::Ssh::connect); `Cancelled`
/// when the VM's connections were closed on purpose; `Invalid` if the path leads to something else than a file; `Other`
/// if the file was replaced during a cut and the old one cannot be found. A VM that falls silent is noticed after about
/// a minute.
///
/// Dropping it ends what runs on the VM for it, in the background.
#[derive(Debug)]
pub struct Follow {
    queue: mpsc::Receiver<Result<Vec<Followed>>>,
    ready: std::vec::IntoIter<Followed>,
}

impl Follow {
    /// What is next; `None` after an error. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<Followed>> {
        std::future::poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Follow {
    type Item = Result<Followed>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Followed>>> {
        loop {
            if let Some(followed) = self.ready.next() {
                return Poll::Ready(Some(Ok(followed)));
            }
            match std::task::ready!(self.queue.poll_recv(cx)) {
                Some(Ok(batch)) => self.ready = batch.into_iter(),
                Some(Err(error)) => {
                    self.queue.close();
                    return Poll::Ready(Some(Err(error)));
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

/// Batches between the connection and the reader. Each is made of what one packet ends: a line of the longest, or 32 KiB
/// of short ones.
const BATCHES: usize = 2;
/// How much before the place is compared after a cut.
const RECENT: usize = 256;
/// Starts of the script that come to nothing before the VM is held to be unable.
const STARTS: u32 = 5;
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(3);

const SCRIPT: &str = include_str!("follow/follow.sh");

/// Begins to follow, in a task that ends with the [`Follow`].
pub(super) fn start(
    machine: Arc<Machine>,
    options: &SshOptions,
    vm: VmId,
    path: String,
    start: Position,
) -> Follow {
    let (out, queue) = mpsc::channel(BATCHES);
    let what = format!("follow {:?} on VM {vm}", crate::error::shown(&path));
    let follower = Follower {
        machine,
        options: options.clone(),
        path,
        what,
        out: out.clone(),
        place: Place {
            from_end: start == Position::End,
            lines: match start {
                Position::Offset(offset) => Lines::at(offset),
                Position::End => Lines::default(),
            },
            ..Place::default()
        },
    };
    tokio::spawn(async move {
        tokio::select! {
            () = out.closed() => {}
            error = follower.run() => {
                let _ = out.send(Err(error)).await;
            }
        }
    });
    Follow {
        queue,
        ready: Vec::new().into_iter(),
    }
}

/// How far the follow has come.
#[derive(Debug, Default)]
struct Place {
    /// It begins at the end of a file that was not found yet.
    from_end: bool,
    /// The file's identity, once there is one.
    file: Option<String>,
    lines: Lines,
    /// The last bytes that came of this file.
    recent: Vec<u8>,
}

impl Place {
    /// The beginning of a file.
    fn restart(&mut self) {
        self.lines = Lines::default();
        self.recent.clear();
    }

    /// Takes what the script sent.
    fn take(
        &mut self,
        piece: Piece,
        proof: &mut Proof,
        batch: &mut Vec<Followed>,
        what: &str,
    ) -> Option<Stopped> {
        let failed = |error: Error| Some(Stopped::Failed(error.during(what)));
        let word = match piece {
            Piece::Data(mut data) => {
                if proof.take(&mut data) {
                    self.read(&data, batch);
                    return None;
                }
                // The same file with another content: it has been written anew.
                batch.push(Followed::Truncated);
                self.restart();
                return Some(Stopped::Anew);
            }
            Piece::Said(word) => word,
        };
        let mut words = word.split(' ');
        match (words.next(), words.next(), words.next()) {
            // What will be there is read from its beginning.
            (Some("waiting"), None, None) => self.from_end = false,
            (Some("file"), Some(file), Some(offset)) => {
                self.file = Some(file.to_owned());
                if std::mem::take(&mut self.from_end)
                    && let Ok(offset) = offset.parse()
                {
                    self.lines = Lines::at(offset);
                }
            }
            (Some("truncated"), None, None) => {
                batch.push(Followed::Truncated);
                self.restart();
                *proof = Proof(Bytes::new());
            }
            (Some("replaced"), None, None) => {
                batch.extend(self.lines.rest());
                batch.push(Followed::Replaced);
                self.restart();
                self.file = None;
                *proof = Proof(Bytes::new());
            }
            (Some("irregular"), None, None) => {
                return failed(Error::invalid(
                    "the path leads to something else than a file",
                ));
            }
            (Some("lost"), None, None) => {
                return failed(Error::other(
                    "the file was replaced while the connection was lost, and the old one is not in its directory any \
                     more, so its last lines are unknown; follow the path again from offset 0",
                ));
            }
            _ => {
                let word = crate::error::shown(&word);
                return failed(Error::other(format!("its script said {word:?}")));
            }
        }
        None
    }

    fn read(&mut self, data: &[u8], batch: &mut Vec<Followed>) {
        self.lines.feed(data, |line| batch.push(line));
        let new = data
            .get(data.len().saturating_sub(RECENT)..)
            .unwrap_or(data);
        let surplus = (self.recent.len() + new.len()).saturating_sub(RECENT);
        self.recent.drain(..surplus);
        self.recent.extend_from_slice(new);
    }
}

/// What is to be compared before anything counts.
struct Proof(Bytes);

impl Proof {
    /// Takes from `data` what was expected; `false` if it is something else.
    fn take(&mut self, data: &mut Bytes) -> bool {
        let count = data.len().min(self.0.len());
        self.0.split_to(count) == data.split_to(count)
    }
}

/// Why the script on the VM is no more.
enum Stopped {
    /// It has ended, or the connection broke: its child knows.
    Ended,
    /// It has to be started again with another place.
    Anew,
    /// It cannot go on.
    Failed(Error),
}

struct Follower {
    machine: Arc<Machine>,
    options: SshOptions,
    path: String,
    /// For errors.
    what: String,
    out: mpsc::Sender<Result<Vec<Followed>>>,
    place: Place,
}

impl Follower {
    async fn run(mut self) -> Error {
        let mut heard = Instant::now();
        let mut delay = Duration::ZERO;
        let mut in_vain = 0;
        loop {
            let mark = uuid::Uuid::new_v4().simple().to_string();
            let error = match self.spawn(&mark).await {
                Ok(mut child) => {
                    let mut spoke = false;
                    let stopped = self.read(&mut child, &mark, &mut spoke).await;
                    heard = Instant::now();
                    if spoke {
                        (delay, in_vain) = (Duration::ZERO, 0);
                    }
                    match stopped {
                        Stopped::Failed(error) => return error,
                        Stopped::Anew => continue,
                        Stopped::Ended => match child.wait().await {
                            Err(error) => error,
                            Ok(exit) => {
                                in_vain += 1;
                                if in_vain > STARTS {
                                    return self.unable(&exit);
                                }
                                Error::other("its script ended")
                            }
                        },
                    }
                }
                Err(error) if passes(&error) && heard.elapsed() < self.options.patience => error,
                Err(error) => return error.during(&self.what),
            };
            tracing::debug!(what = self.what, %error, "going on");
            let pause = delay.mul_f64(rand::rng().random_range(0.5..1.5));
            tokio::time::sleep(pause).await;
            delay = (delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY);
        }
    }

    fn unable(&self, exit: &Exit) -> Error {
        Error::other(format!(
            "{}: its shell ended with {exit} each time; are tail, cat, dd and stat there?",
            self.what
        ))
    }

    async fn spawn(&self, mark: &str) -> Result<child::Child> {
        let place = &self.place;
        let offset = place.lines.offset();
        let start = if place.from_end {
            "end".to_owned()
        } else {
            (offset - place.recent.len() as u64).to_string()
        };
        let command = Command::shell(SCRIPT)
            .env("VERS_FOLLOW_PATH", self.path.as_str())
            .env("VERS_FOLLOW_START", start)
            .env("VERS_FOLLOW_LEAST", offset.to_string())
            .env("VERS_FOLLOW_FILE", place.file.clone().unwrap_or_default())
            .env("VERS_FOLLOW_MARK", mark)
            .with_stdin();
        let never = CancellationToken::new();
        child::spawn(
            &self.machine,
            Purpose::Commands,
            &command,
            &self.options,
            &never,
        )
        .await
    }

    /// Hands over what one run of the script brings.
    async fn read(&mut self, child: &mut child::Child, mark: &str, spoke: &mut bool) -> Stopped {
        let Some(mut output) = child.take_stdout() else {
            return Stopped::Ended;
        };
        // Nobody reads it, and it shall not fill anything.
        drop(child.take_stderr());
        let mut marks = Marks::new(mark);
        let mut proof = Proof(Bytes::copy_from_slice(&self.place.recent));
        while let Some(data) = output.next().await {
            marks.feed(&data);
            let mut batch = Vec::new();
            let mut stopped = None;
            while let Some(piece) = marks.next() {
                *spoke = true;
                stopped = self.place.take(piece, &mut proof, &mut batch, &self.what);
                if stopped.is_some() {
                    break;
                }
            }
            if !batch.is_empty() && self.out.send(Ok(batch)).await.is_err() {
                return Stopped::Ended;
            }
            if let Some(stopped) = stopped {
                return stopped;
            }
        }
        Stopped::Ended
    }
}

/// Whether an error may pass when it is tried again.
fn passes(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::Unavailable | Kind::TimedOut | Kind::Limit | Kind::Other
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::process::CommandExt as _;
    use std::path::Path;
    use std::process::{Child as Process, Stdio};

    /// The script by itself, and what is made of what it sends.
    struct Run {
        process: Process,
        marks: Marks,
        place: Place,
        proof: Proof,
        ready: std::collections::VecDeque<Followed>,
    }

    impl Run {
        fn new(shell: &[&str], programs: &Path, path: &Path, place: Place) -> Self {
            let offset = place.lines.offset();
            let (program, arguments) = shell.split_first().unwrap();
            let process = std::process::Command::new(program)
                .args(arguments)
                .args(["-c", SCRIPT])
                .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
                .env("VERS_FOLLOW_PATH", path)
                .env(
                    "VERS_FOLLOW_START",
                    (offset - place.recent.len() as u64).to_string(),
                )
                .env("VERS_FOLLOW_LEAST", offset.to_string())
                .env("VERS_FOLLOW_FILE", place.file.clone().unwrap_or_default())
                .env("VERS_FOLLOW_MARK", "mark")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .process_group(0)
                .spawn()
                .unwrap();
            Self {
                process,
                marks: Marks::new("mark"),
                proof: Proof(Bytes::copy_from_slice(&place.recent)),
                place,
                ready: std::collections::VecDeque::new(),
            }
        }

        fn next(&mut self) -> Followed {
            loop {
                if let Some(followed) = self.ready.pop_front() {
                    return followed;
                }
                let mut buffer = [0; 1000];
                let count = self
                    .process
                    .stdout
                    .as_mut()
                    .unwrap()
                    .read(&mut buffer)
                    .unwrap();
                assert!(count > 0, "the script has ended");
                self.marks.feed(buffer.get(..count).unwrap());
                while let Some(piece) = self.marks.next() {
                    let mut batch = Vec::new();
                    let stopped = self
                        .place
                        .take(piece, &mut self.proof, &mut batch, "follow");
                    assert!(stopped.is_none());
                    self.ready.extend(batch);
                }
            }
        }

        fn line(&mut self) -> String {
            match self.next() {
                Followed::Line { text, .. } => text,
                other => panic!("{other:?}"),
            }
        }

        /// The end of the input is the end of all its processes.
        fn end(mut self) -> Place {
            drop(self.process.stdin.take());
            self.process.wait().unwrap();
            // All of them hold the output.
            let mut rest = Vec::new();
            let mut output = self.process.stdout.take().unwrap();
            output.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, b"");
            self.place
        }
    }

    fn append(path: &Path, text: &str) {
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.append(true).create(true).open(path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    #[test]
    fn the_script_does_its_work_in_every_shell_and_with_busybox_alone() {
        let dir = tempfile::tempdir().unwrap();
        let busybox = dir.path().join("busybox");
        let gnu = dir.path().join("gnu");
        std::fs::create_dir_all(&busybox).unwrap();
        let mut all = vec![&gnu];
        if let Some(program) = ["/bin/busybox", "/usr/bin/busybox"]
            .map(Path::new)
            .iter()
            .find(|path| path.exists())
        {
            for name in ["tail", "dd", "cat", "stat", "find", "head"] {
                std::os::unix::fs::symlink(program, busybox.join(name)).unwrap();
            }
            all.push(&busybox);
        }
        for (number, (programs, shell)) in all
            .iter()
            .flat_map(|programs| {
                super::super::command::tests::shells()
                    .into_iter()
                    .map(move |shell| (programs, shell))
            })
            .enumerate()
        {
            let what = format!("{} {shell:?}", programs.display());
            let path = dir.path().join(format!("log {number}"));
            let mut run = Run::new(&shell, programs, &path, Place::default());
            append(&path, "one\nbegun");
            assert_eq!(run.line(), "one", "{what}");
            append(&path, " and ended\nlast");
            assert_eq!(run.line(), "begun and ended", "{what}");
            let old = dir.path().join(format!("old {number}"));
            std::fs::rename(&path, &old).unwrap();
            append(&path, "other\n");
            assert_eq!(run.line(), "last", "{what}");
            assert_eq!(run.next(), Followed::Replaced, "{what}");
            assert_eq!(run.line(), "other", "{what}");
            std::fs::write(&path, "new\n").unwrap();
            assert_eq!(run.next(), Followed::Truncated, "{what}");
            assert_eq!(run.line(), "new", "{what}");
            let place = run.end();
            // While nobody looked.
            append(&path, "more\nend");
            std::fs::rename(&path, &old).unwrap();
            append(&path, "next\n");
            let mut run = Run::new(&shell, programs, &path, place);
            assert_eq!(run.line(), "more", "{what}");
            assert_eq!(run.line(), "end", "{what}");
            assert_eq!(run.next(), Followed::Replaced, "{what}");
            assert_eq!(run.line(), "next", "{what}");
            run.end();
        }
    }

    /// The process of this name in a process group that follows.
    fn member(group: u32, name: &str) -> rustix::process::Pid {
        let deadline = std::time::Instant::now() + Duration::from_secs(15);
        while std::time::Instant::now() < deadline {
            for entry in std::fs::read_dir("/proc").unwrap().flatten() {
                let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
                let fields: Vec<&str> = stat.split(' ').collect();
                if let [pid, comm, _, _, pgrp, ..] = fields.as_slice()
                    && *comm == format!("({name})")
                    && *pgrp == group.to_string()
                    && std::fs::read(entry.path().join("cmdline"))
                        .is_ok_and(|line| line.windows(4).any(|part| part == b"\0-F\0"))
                {
                    return rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("no {name} came");
    }

    #[test]
    fn a_tail_that_comes_late_hides_no_truncation() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "");
        let mut run = Run::new(&["sh"], dir.path(), &path, Place::default());
        let group = run.process.id();
        let tail = member(group, "tail");
        // A script that is stuck fails, it does not hang.
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            if wait.recv_timeout(Duration::from_secs(30)).is_err() {
                let group = rustix::process::Pid::from_raw(group.cast_signed()).unwrap();
                rustix::process::kill_process_group(group, rustix::process::Signal::KILL).ok();
            }
        });
        append(&path, "one\n");
        assert_eq!(run.line(), "one");
        std::fs::write(&path, "").unwrap();
        assert_eq!(run.next(), Followed::Truncated);
        // It has seen the file empty.
        rustix::process::kill_process(tail, rustix::process::Signal::STOP).unwrap();
        append(&path, "two\n");
        assert_eq!(run.line(), "two");
        std::fs::write(&path, "").unwrap();
        rustix::process::kill_process(tail, rustix::process::Signal::CONT).unwrap();
        assert_eq!(run.next(), Followed::Truncated);
        append(&path, "three\n");
        assert_eq!(run.line(), "three");
        done.send(()).unwrap();
        watch.join().unwrap();
        run.end();
    }
}
