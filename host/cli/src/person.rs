//! Whoever sits at the terminal, to be asked what a policy leaves open and what an extension wants to know.
//!
//! The threat is an answer that nobody gave: a key typed before the question was there, a line of a script that was meant
//! for something else, a question that looks like another one. So answers are read from the controlling terminal and never
//! from standard input, what was typed before is dropped, one question is asked at a time, and all text of an
//! extension is made harmless. Where standard error is no terminal, or this process runs in the background, nobody is there.
//!
//! A question is taken back with the call that asks it. An answer "for this session" holds for the very same question of the same
//! extension; what holds longer belongs into the policy (`pi-vers policy grant`).

use std::collections::HashSet;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pi_vers_host::{Answer, Dialog, visible};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::termios::{QueueSelector, tcflush, tcgetpgrp};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::terminal::Terminal;

/// The longest line that is taken for an answer, in bytes: what a terminal hands over at once.
const LONGEST: usize = 4096;
/// Lines of a text that somebody writes.
const MOST_LINES: usize = 1000;
/// Questions that were answered for the session.
const MOST_KEPT: usize = 1000;

/// See the module.
#[derive(Debug)]
pub(crate) struct Person {
    terminal: Arc<Terminal>,
    turn: tokio::sync::Mutex<()>,
    /// Who asked what, and got a yes for the session.
    allowed: Mutex<HashSet<(String, String)>>,
}

/// The terminal while a question is on it.
struct Tty(AsyncFd<OwnedFd>);

impl Person {
    /// Nobody is asked before there is a question.
    pub(crate) fn at(terminal: Arc<Terminal>) -> Self {
        Self {
            terminal,
            turn: tokio::sync::Mutex::default(),
            allowed: Mutex::default(),
        }
    }

    /// Whether somebody could be asked now.
    pub(crate) fn is_there(&self) -> bool {
        reach().is_some()
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashSet<(String, String)>> {
        self.allowed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether they allow it; no where nobody is there.
    pub(crate) async fn approves(&self, from: &str, question: &str) -> bool {
        let key = (from.to_owned(), question.to_owned());
        let _turn = self.turn.lock().await;
        if self.kept().contains(&key) {
            return true;
        }
        let Some(tty) = Tty::open() else {
            return false;
        };
        let _quiet = self.terminal.hold();
        // The policy's own words, each value escaped, over several lines.
        for line in question.lines() {
            say(&visible(line), true);
        }
        for _ in 0..3 {
            say(
                "[y]es, once · yes to this for the [s]ession · [N]o: ",
                false,
            );
            let Some(answer) = tty.line().await else {
                return false;
            };
            match answer.trim().to_ascii_lowercase().as_str() {
                "y" | "yes" => return true,
                "s" | "session" => {
                    let mut kept = self.kept();
                    if kept.len() < MOST_KEPT {
                        kept.insert(key);
                    }
                    return true;
                }
                "" | "n" | "no" => return false,
                _ => {}
            }
        }
        false
    }

    /// Asks for an extension; `None` where nobody is there or answers.
    pub(crate) async fn answers(
        &self,
        from: &str,
        title: &str,
        dialog: Dialog,
        limit: Option<Duration>,
    ) -> Option<Answer> {
        let asked = async {
            let _turn = self.turn.lock().await;
            let tty = Tty::open()?;
            let _quiet = self.terminal.hold();
            say(&format!("{}: {}", visible(from), visible(title)), true);
            match dialog {
                Dialog::Confirm(message) => {
                    for line in message.lines().filter(|line| !line.is_empty()) {
                        say(&format!("  {}", visible(line)), true);
                    }
                    say("[y/N] ", false);
                    let answer = tty.line().await?;
                    let yes = matches!(answer.trim(), "y" | "Y" | "yes");
                    Some(Answer::Yes(yes))
                }
                Dialog::Select(options) => {
                    for (at, option) in options.iter().enumerate() {
                        say(&format!("  {}) {}", at + 1, visible(option)), true);
                    }
                    say(&format!("[1 to {}, or nothing] ", options.len()), false);
                    let number: usize = tty.line().await?.trim().parse().ok()?;
                    let at = number.checked_sub(1).filter(|at| *at < options.len())?;
                    Some(Answer::Index(at))
                }
                Dialog::Input(hint) => {
                    if !hint.is_empty() {
                        say(&format!("  ({})", visible(&hint)), true);
                    }
                    say("> ", false);
                    Some(Answer::Text(tty.line().await?))
                }
                Dialog::Edit(text) => {
                    for line in text.lines() {
                        say(&format!("  | {}", visible(line)), true);
                    }
                    say(
                        "Write it anew; a line of one dot ends it. At once a dot: it stays.",
                        true,
                    );
                    let mut lines = Vec::new();
                    while lines.len() < MOST_LINES {
                        say("> ", false);
                        let line = tty.line().await?;
                        if line == "." {
                            break;
                        }
                        lines.push(line);
                    }
                    Some(Answer::Text(match lines.is_empty() {
                        true => text,
                        false => lines.join("\n"),
                    }))
                }
            }
        };
        match limit {
            Some(limit) => tokio::time::timeout(limit, asked).await.ok().flatten(),
            None => asked.await,
        }
    }
}

/// Writes to standard error, past the live view.
fn say(text: &str, whole: bool) {
    let mut err = std::io::stderr().lock();
    let _ = err.write_all(text.as_bytes());
    let _ = err.write_all(if whole { b"\n" } else { b"" });
    let _ = err.flush();
}

/// The terminal, where somebody sits at it and sees what is asked.
fn reach() -> Option<OwnedFd> {
    if !std::io::stderr().is_terminal() {
        return None;
    }
    // An open file of its own: that it does not block concerns nobody else.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let tty = rustix::fs::open("/dev/tty", flags, Mode::empty()).ok()?;
    // To read in the background is to be stopped by the terminal.
    let ours = tcgetpgrp(&tty).ok()? == rustix::process::getpgrp();
    ours.then_some(tty)
}

impl Tty {
    /// `None` where nobody is there to be asked.
    fn open() -> Option<Self> {
        let tty = reach()?;
        // What was typed before the question is no answer to it.
        tcflush(&tty, QueueSelector::IFlush).ok()?;
        #[allow(
            deprecated,
            reason = "deprecated for types that may change their descriptor: `OwnedFd` does not, and the other way is unsafe"
        )]
        let tty = AsyncFd::with_interest(tty, Interest::READABLE).ok()?;
        Some(Self(tty))
    }

    /// A line, without its end. `None` at the end of the input. Cancel-safe but for a line's part.
    async fn line(&self) -> Option<String> {
        let mut line = Vec::new();
        let mut buffer = [0; LONGEST];
        loop {
            let mut ready = self.0.readable().await.ok()?;
            let read = ready.try_io(|tty| {
                rustix::io::read(tty.get_ref(), &mut buffer).map_err(|why: Errno| why.into())
            });
            let Ok(read) = read else {
                continue;
            };
            let read = read.ok().filter(|read| *read > 0)?;
            line.extend_from_slice(buffer.get(..read).unwrap_or_default());
            if line.len() > LONGEST {
                return None;
            }
            if let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                line.truncate(end);
                return Some(String::from_utf8_lossy(&line).into_owned());
            }
        }
    }
}
