//! One process: what is known of it, and the task that looks after it.
//!
//! The task is the guest's own and lives on when the call that started the process has ended. It always reads: what a process
//! writes goes into the two rings, whose bounds are the only back-pressure there is, so no process ever stands still because
//! nobody looks. It ends with the process, and with the session at the latest.

use std::cell::RefCell;
use std::rc::Rc;

use futures::future::{Either, join, select};
use pi_vers_sdk::bell::Bell;
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::platform::shell::Forward;
use pi_vers_sdk::stream::StreamReader;
use pi_vers_sdk::system::process::{Child, Exit, Stopped};
use pi_vers_sdk::{Error, outcome, stream, task};

use crate::ready::Pattern;
use crate::ring::Ring;
use crate::words::Ended;

/// How long the last output of a process may still be under way when it has ended, in milliseconds.
const LAST_WORDS: u64 = 250;
/// How long it may take until a stopped process is known to have ended, in milliseconds.
const NEWS_OF_END: u64 = 2_000;

/// Where a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this machine.
    Local,
    /// On the VM with this id.
    Vm(String),
}

/// One of the two outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

/// What does not change about a process.
pub(crate) struct Facts {
    pub(crate) id: String,
    pub(crate) command: String,
    /// The directory it was started in, for people.
    pub(crate) cwd: String,
    pub(crate) shell: &'static str,
    pub(crate) place: Place,
    /// The port of this machine that leads to its port, if it was asked for.
    pub(crate) port: Option<u16>,
}

/// A process. Dropping the last handle ends its group.
pub(crate) struct Process {
    pub(crate) facts: Facts,
    pub(crate) pid: Option<u32>,
    /// By the clock that only goes forward, in milliseconds.
    pub(crate) since: u64,
    child: Child,
    now: RefCell<Now>,
}

#[derive(Default)]
struct Now {
    stdout: Ring,
    stderr: Ring,
    ended: Option<Ended>,
    readiness: Readiness,
    forward: Option<Forward>,
    news: Bell,
}

/// Whether a process has said that it is ready.
#[derive(Default)]
enum Readiness {
    /// Nobody asks.
    #[default]
    Unasked,
    /// This is looked for.
    Expected(Pattern),
    /// This line held it.
    Seen(String),
}

impl Process {
    /// Takes charge of a process that was just started.
    ///
    /// # Errors
    /// When its outputs cannot be had; it is then stopped.
    pub(crate) fn adopt(
        facts: Facts,
        child: Child,
        forward: Option<Forward>,
        expected: Option<Pattern>,
    ) -> Result<Rc<Self>, Error> {
        let (stdout, stderr) = (child.stdout()?, child.stderr()?);
        let process = Rc::new(Self {
            facts,
            pid: child.id(),
            since: timers::ticks(),
            child,
            now: RefCell::new(Now {
                forward,
                readiness: expected.map_or(Readiness::Unasked, Readiness::Expected),
                ..Now::default()
            }),
        });
        task::spawn(process.clone().look_after(stdout, stderr));
        Ok(process)
    }

    async fn look_after(self: Rc<Self>, stdout: StreamReader<u8>, stderr: StreamReader<u8>) {
        let outputs = join(
            self.drain(stdout, Stream::Stdout),
            self.drain(stderr, Stream::Stderr),
        );
        let ended = self.child.wait();
        futures::pin_mut!(outputs, ended);
        let ended = match select(ended, outputs).await {
            Either::Right((_, ended)) => ended.await,
            Either::Left((ended, outputs)) => {
                let late = timers::sleep(LAST_WORDS);
                futures::pin_mut!(late);
                match select(outputs, late).await {
                    Either::Left(_) => ended,
                    // Something in the background holds an output open: it is read on, and the end is told now.
                    Either::Right((_, outputs)) => {
                        self.end(ended);
                        outputs.await;
                        return;
                    }
                }
            }
        };
        self.end(ended);
    }

    async fn drain(&self, mut output: StreamReader<u8>, which: Stream) {
        let mut buffer = Vec::new();
        while let Some(bytes) = stream::next(&mut output, buffer).await {
            self.now
                .borrow_mut()
                .put(which, |ring, line| ring.push(&bytes, line));
            buffer = bytes;
        }
        self.now.borrow_mut().put(which, Ring::finish);
    }

    fn end(&self, ended: Result<Exit, Error>) {
        let ended = match ended {
            Ok(Exit::Code(code)) => Ended::Exited(code),
            Ok(Exit::Signal(name)) => Ended::Signaled(name),
            Err(Error::Cancelled | Error::TimedOut(_)) => Ended::Stopped,
            Err(error) => Ended::Lost(outcome::explain(&error)),
        };
        let mut now = self.now.borrow_mut();
        now.ended = Some(ended);
        // Nobody answers behind it any more.
        now.forward = None;
        now.news.ring();
    }

    /// How it ended; none while it runs.
    pub(crate) fn ended(&self) -> Option<Ended> {
        self.now.borrow().ended.clone()
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.now.borrow().ended.is_none()
    }

    /// The line that said that it is ready.
    pub(crate) fn ready(&self) -> Option<String> {
        match &self.now.borrow().readiness {
            Readiness::Seen(line) => Some(line.clone()),
            Readiness::Unasked | Readiness::Expected(_) => None,
        }
    }

    /// Reads something of an output.
    pub(crate) fn read<T>(&self, which: Stream, look: impl FnOnce(&Ring) -> T) -> T {
        let now = self.now.borrow();
        match which {
            Stream::Stdout => look(&now.stdout),
            Stream::Stderr => look(&now.stderr),
        }
    }

    /// Waits until it is ready or has ended, this long at most.
    ///
    /// # Errors
    /// `Error::Cancelled` with the call that waits.
    pub(crate) async fn settle(&self, patience: u64) -> Result<(), Error> {
        self.wait_until(patience, |now| {
            now.ended.is_some() || matches!(now.readiness, Readiness::Seen(_))
        })
        .await
    }

    /// From here on nobody looks for readiness any more.
    pub(crate) fn expect_no_more(&self) {
        let mut now = self.now.borrow_mut();
        if matches!(now.readiness, Readiness::Expected(_)) {
            now.readiness = Readiness::Unasked;
        }
    }

    /// Whether it is still looked for whether it is ready.
    pub(crate) fn is_awaited(&self) -> bool {
        matches!(self.now.borrow().readiness, Readiness::Expected(_))
    }

    /// Waits until it has ended, this long at most; says whether it has.
    ///
    /// # Errors
    /// `Error::Cancelled` with the call that waits.
    pub(crate) async fn gone_within(&self, patience: u64) -> Result<bool, Error> {
        self.wait_until(patience, |now| now.ended.is_some()).await?;
        Ok(!self.is_alive())
    }

    /// Sends its group a signal; one that is gone already has no need of it.
    ///
    /// # Errors
    /// The host's.
    pub(crate) async fn signal(
        &self,
        signal: pi_vers_sdk::system::process::Signal,
    ) -> Result<(), Error> {
        match self.child.signal(signal).await {
            Err(Error::NotFound(_) | Error::Conflict(_)) => Ok(()),
            sent => sent,
        }
    }

    /// Ends its group and waits until that is known. Also after its own end: it may have left something behind.
    ///
    /// # Errors
    /// The host's; not for one whose end is known.
    pub(crate) async fn stop(&self, grace: Option<u64>) -> Result<Stopped, Error> {
        let stopped = match self.child.stop(grace).await {
            Ok(stopped) => stopped,
            Err(Error::Cancelled) => return Err(Error::Cancelled),
            Err(_) if !self.is_alive() => Stopped {
                escaped: 0,
                left: 0,
            },
            Err(error) => return Err(error),
        };
        self.gone_within(NEWS_OF_END).await?;
        Ok(stopped)
    }

    async fn wait_until(&self, patience: u64, holds: impl Fn(&Now) -> bool) -> Result<(), Error> {
        let late = timers::sleep(patience);
        futures::pin_mut!(late);
        loop {
            let news = self.now.borrow().news.next();
            if holds(&self.now.borrow()) {
                return Ok(());
            }
            if let Either::Right((passed, _)) = select(news, late.as_mut()).await {
                return passed;
            }
        }
    }
}

impl Now {
    /// Puts something into a ring, and looks for readiness in the lines that come of it.
    fn put(&mut self, which: Stream, put: impl FnOnce(&mut Ring, &mut dyn FnMut(&str))) {
        let Self {
            stdout,
            stderr,
            readiness,
            ..
        } = self;
        let ring = match which {
            Stream::Stdout => stdout,
            Stream::Stderr => stderr,
        };
        let mut ready = false;
        put(ring, &mut |line| {
            if let Readiness::Expected(pattern) = readiness
                && pattern.is_in(line)
            {
                *readiness = Readiness::Seen(line.to_owned());
                ready = true;
            }
        });
        if ready {
            self.news.ring();
        }
    }
}
