//! The tasks behind an agent: one reads what it says, one waits for its end, others ask it and answer it.
//!
//! They belong to the session ([`background`]), not to the call that started the agent, and end with the last handle.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;

use futures::SinkExt as _;
use futures::channel::{mpsc, oneshot};
use futures::future::{Either, FutureExt as _, Shared, select};
use futures::lock::Mutex;
use serde_json::{Value, json};

use crate::harness::timers;
use crate::platform::shell::{self, Followed, Position};
use crate::stream::StreamResult;
use crate::{Error, background, stream};

use super::dialogs;
use super::failure::{Failure, Kind};
use super::local::{Lines, Local, Outputs};
use super::protocol::{self, Dialog, Line, Response};
use super::remote::{self, Remote};
use super::tracker::{Effect, Tracker};
use super::{Bookmark, News, Outcome, Run, Status};

/// How long an agent may take to answer a command, in milliseconds.
const ANSWER: u64 = 60_000;
/// News that may wait for their consumer.
const NEWS: usize = 1024;
/// How long the record of an end may be under way after the end itself, in milliseconds.
const RECORD: u64 = 3_000;
/// Lines that are taken at a time.
const BATCH: usize = 64;
/// From this on the disk space of what was read is given back, in bytes.
const TRIM: u64 = 4 << 20;
/// Pauses before something that failed is tried again, and between looks at an agent, in milliseconds.
const PAUSES: [u64; 5] = [250, 1_000, 2_000, 5_000, 10_000];

/// The `n`th pause.
fn pause(n: usize) -> u64 {
    PAUSES.get(n).or(PAUSES.last()).copied().unwrap_or(10_000)
}

/// Where an agent lives, and how it is reached.
pub(crate) enum Place {
    Vm(Remote),
    Local(Local),
}

/// One agent.
pub(crate) struct Driver {
    pub(crate) name: String,
    pub(crate) place: Place,
    tracker: RefCell<Tracker>,
    pending: RefCell<HashMap<String, oneshot::Sender<Result<Value, String>>>>,
    /// Its end, or why it cannot be reached.
    last: RefCell<Option<Status>>,
    watchers: RefCell<Vec<oneshot::Sender<()>>>,
    bookmark: RefCell<Bookmark>,
    /// Up to here what it wrote was there when it was found: nothing is asked before that has been read.
    known_until: Cell<u64>,
    /// A question of its that it waits with.
    asked: RefCell<Option<Dialog>>,
    looking: Cell<bool>,
    active_at: Cell<u64>,
    /// The ends of the last run and of the one before it, in its output.
    ends: Cell<(u64, u64)>,
    trimmed: Cell<u64>,
    token: String,
    serial: Cell<u64>,
    sending: Mutex<()>,
    news: RefCell<Option<mpsc::Sender<News>>>,
    stop: RefCell<Option<oneshot::Sender<()>>>,
    stopped: Shared<oneshot::Receiver<()>>,
}

impl Driver {
    /// A driver that does nothing yet. `token` makes its commands' ids its own.
    pub(crate) fn new(
        name: String,
        place: Place,
        bookmark: Bookmark,
        known_until: u64,
        token: String,
    ) -> (Rc<Self>, mpsc::Receiver<News>) {
        let (news, inbox) = mpsc::channel(NEWS);
        let (stop, stopped) = oneshot::channel();
        let offset = bookmark.offset;
        let driver = Rc::new(Self {
            name,
            place,
            tracker: RefCell::new(Tracker::new()),
            pending: RefCell::default(),
            last: RefCell::new(None),
            watchers: RefCell::default(),
            bookmark: RefCell::new(bookmark),
            known_until: Cell::new(known_until),
            asked: RefCell::new(None),
            looking: Cell::new(false),
            active_at: Cell::new(timers::now()),
            ends: Cell::new((offset, offset)),
            trimmed: Cell::new(offset),
            token,
            serial: Cell::new(0),
            sending: Mutex::new(()),
            news: RefCell::new(Some(news)),
            stop: RefCell::new(Some(stop)),
            stopped: stopped.shared(),
        });
        (driver, inbox)
    }

    /// Begins to read and to watch an agent on a VM.
    pub(crate) fn read_vm(self: &Rc<Self>) {
        background::spawn(self.clone().until_stopped(self.clone().follow()));
        background::spawn(self.clone().until_stopped(self.clone().watch()));
    }

    /// Begins to read and to watch a child.
    pub(crate) fn read_child(self: &Rc<Self>, outputs: Outputs) {
        background::spawn(self.clone().until_stopped(self.clone().drain(outputs)));
    }

    async fn until_stopped(self: Rc<Self>, work: impl Future<Output = ()>) {
        select(pin!(work), pin!(self.stopped.clone())).await;
    }

    // What it says.

    async fn follow(self: Rc<Self>) {
        let Place::Vm(remote) = &self.place else {
            return;
        };
        let offset = self.bookmark.borrow().offset;
        let (mut lines, outcome) = shell::follow(&remote.vm, remote::OUT, Position::Offset(offset));
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            let (result, mut got) = lines.read(batch).await;
            for followed in got.drain(..) {
                match followed {
                    Followed::Line(line) => self.line(&line.text, line.next).await,
                    // Another start of an agent has taken its place, or somebody emptied the file.
                    Followed::Replaced | Followed::Truncated => self.restarted(),
                }
            }
            batch = got;
            batch.reserve(BATCH);
            if matches!(result, StreamResult::Dropped | StreamResult::Cancelled) {
                break;
            }
        }
        let error = match outcome.await {
            Ok(()) => Error::Unavailable("the agent's output has ended".into()),
            // Not ours, or this would have ended, too: somebody paused or deleted the VM.
            Err(Error::Cancelled) => Error::Unavailable("the VM's connection was closed".into()),
            Err(error) => error,
        };
        let failure = remote
            .failure(format!("Lost {} on VM {}", self.name, remote.vm), &error)
            .await;
        self.over(Status::Lost(failure.kind, failure.why)).await;
    }

    async fn drain(self: Rc<Self>, outputs: Outputs) {
        let Place::Local(local) = &self.place else {
            return;
        };
        let Outputs { mut stdout, stderr } = outputs;
        let read = async {
            let mut lines = Lines::default();
            let mut buffer = Vec::new();
            let mut offset = 0_u64;
            while let Some(bytes) = stream::next(&mut stdout, buffer).await {
                offset = offset.saturating_add(bytes.len() as u64);
                let mut whole = Vec::new();
                lines.push(&bytes, |line| whole.push(line.to_owned()));
                for line in whole {
                    self.line(&line, offset).await;
                }
                buffer = bytes;
            }
        };
        let mut outputs = pin!(futures::future::join(read, local.keep_errors(stderr)));
        let how = match select(outputs.as_mut(), pin!(local.wait())).await {
            Either::Left((_, end)) => end.await,
            Either::Right((how, _)) => {
                // What something in the background holds open does not delay the end for long.
                select(outputs, pin!(timers::sleep(RECORD))).await;
                how
            }
        };
        self.ended(&how, &local.last_words()).await;
    }

    /// Finds out how an agent is that was found again, once all that was there has been read.
    pub(crate) fn find_out(self: &Rc<Self>) {
        let driver = self.clone();
        background::spawn(self.clone().until_stopped(async move {
            driver.until(|driver| driver.known_until.get() == 0).await;
            let mut failures = 0;
            while driver.ask_it("get_state", json!({})).await.is_err()
                && driver.last.borrow().is_none()
            {
                let _ = timers::sleep(pause(failures)).await;
                failures += 1;
            }
            if driver.status() == Status::Idle && driver.output().1 == 0 {
                let last = driver.ask_it("get_last_assistant_text", json!({})).await;
                if let Some(text) = last
                    .ok()
                    .as_ref()
                    .and_then(|data| data.get("text")?.as_str())
                {
                    driver.tracker.borrow_mut().recall(text);
                }
            }
        }));
    }

    fn restarted(&self) {
        self.bookmark.borrow_mut().offset = 0;
        self.known_until.set(0);
        self.ends.set((0, 0));
        self.trimmed.set(0);
    }

    /// Deals with one line; `next` is where the one after it begins.
    async fn line(self: &Rc<Self>, text: &str, next: u64) {
        let line = protocol::parse(text);
        self.bookmark.borrow_mut().offset = next;
        self.active_at.set(timers::now());
        // Whatever it does shows that a question of before was answered or given up.
        if !matches!(
            line,
            Line::Other | Line::Dialog(_) | Line::Notice(_) | Line::Response(_)
        ) {
            self.asked.borrow_mut().take();
        }
        let before = self.status();
        let effects = self.tracker.borrow_mut().line(line);
        for effect in effects {
            self.effect(effect).await;
        }
        if self.tracker.borrow().is_waiting_for_run() {
            self.look();
        }
        if next >= self.known_until.get() && self.known_until.replace(0) > 0 {
            self.caught_up();
        }
        if self.status() != before {
            self.tell();
        }
    }

    /// All that was there has been read: what follows is what happens now.
    fn caught_up(self: &Rc<Self>) {
        if let Some(dialog) = self.asked.borrow_mut().take() {
            self.ask(dialog);
        }
        if self.tracker.borrow().is_ending() {
            self.look();
        }
    }

    async fn effect(self: &Rc<Self>, effect: Effect) {
        match effect {
            Effect::Answer(Response { id, outcome, .. }) => {
                if let Some(waiting) = self.pending.borrow_mut().remove(&id) {
                    // Whoever asked may have given up.
                    let _ = waiting.send(outcome);
                }
            }
            Effect::Started => self.announce(News::Started).await,
            Effect::Look => self.look(),
            Effect::Ended(outcome) => self.run_ended(outcome).await,
            Effect::Dialog(dialog) if self.known_until.get() > 0 => {
                *self.asked.borrow_mut() = Some(dialog);
            }
            Effect::Dialog(dialog) => self.ask(dialog),
            Effect::Notice(text) => self.announce(News::Notice(text)).await,
            Effect::Exit(code) => {
                let words = match &self.place {
                    Place::Vm(remote) => remote.last_words().await,
                    Place::Local(local) => local.last_words(),
                };
                self.ended(&how(code), &words).await;
            }
        }
    }

    async fn run_ended(self: &Rc<Self>, outcome: Outcome) {
        let run = {
            let tracker = self.tracker.borrow();
            let said = tracker.said();
            let text = said.end().to_owned();
            Run {
                outcome,
                left_out: said.bytes() - text.len() as u64,
                text,
                bookmark: self.bookmark.borrow().clone(),
            }
        };
        let (last, _) = self.ends.get();
        self.ends.set((run.bookmark.offset, last));
        self.announce(News::Ended(run)).await;
        self.trim(last);
    }

    /// Gives back disk space up to here. Not up to the end of the last run: its consumer may have to read that again.
    fn trim(self: &Rc<Self>, to: u64) {
        let to = to & !4095;
        if to < self.trimmed.get().saturating_add(TRIM) {
            return;
        }
        self.trimmed.set(to);
        let driver = self.clone();
        background::spawn(async move {
            if let Place::Vm(remote) = &driver.place {
                // Disk space is no reason to disturb anybody.
                let _ = remote.trim(to).await;
            }
        });
    }

    // Its end.

    /// Waits for the end of an agent on a VM, whatever causes it.
    async fn watch(self: Rc<Self>) {
        let Place::Vm(remote) = &self.place else {
            return;
        };
        let mut failures = 0;
        loop {
            match remote.watch().await {
                Ok(()) => break,
                // Following decides when a VM is lost.
                Err(_) => {
                    if timers::sleep(pause(failures)).await.is_err() {
                        return;
                    }
                    failures += 1;
                }
            }
        }
        // What it wrote last, and the record of its end, may be under way.
        self.until(|driver| driver.known_until.get() == 0).await;
        if timers::sleep(RECORD).await.is_ok() && self.last.borrow().is_none() {
            let words = remote.last_words().await;
            self.ended("it was killed", &words).await;
        }
    }

    async fn ended(self: &Rc<Self>, how: &str, last_words: &str) {
        let mut why = format!("the agent has ended: {how}");
        if !last_words.is_empty() {
            why.push_str("\nThe end of its standard error:\n");
            why.push_str(last_words);
        }
        self.over(Status::Ended(why)).await;
    }

    /// There is nothing more to hear of it.
    async fn over(self: &Rc<Self>, status: Status) {
        if self.last.borrow().is_some() {
            return;
        }
        *self.last.borrow_mut() = Some(status.clone());
        if let Status::Ended(why) = &status {
            let broken = self.tracker.borrow_mut().broken(why);
            if let Some(Effect::Ended(outcome)) = broken {
                self.run_ended(outcome).await;
            }
        }
        // Whoever waits for an answer gets none.
        self.pending.borrow_mut().clear();
        self.announce(News::Status(status)).await;
        self.close();
    }

    /// Ends all tasks.
    pub(crate) fn close(&self) {
        self.news.borrow_mut().take();
        if let Some(stop) = self.stop.borrow_mut().take() {
            let _ = stop.send(());
        }
        self.pending.borrow_mut().clear();
        self.tell();
    }

    // What others want to know.

    pub(crate) fn status(&self) -> Status {
        if let Some(status) = &*self.last.borrow() {
            return status.clone();
        }
        let tracker = self.tracker.borrow();
        if tracker.is_working() {
            Status::Working
        } else if tracker.is_known() {
            Status::Idle
        } else {
            Status::Starting
        }
    }

    pub(crate) fn output(&self) -> (String, u64) {
        let tracker = self.tracker.borrow();
        (tracker.said().end().to_owned(), tracker.said().bytes())
    }

    pub(crate) fn activity(&self) -> Option<String> {
        self.tracker.borrow().activity().map(str::to_owned)
    }

    pub(crate) fn active_at(&self) -> u64 {
        self.active_at.get()
    }

    pub(crate) fn bookmark(&self) -> Bookmark {
        self.bookmark.borrow().clone()
    }

    /// Waits until this holds, or all is over.
    pub(crate) async fn until(&self, holds: impl Fn(&Self) -> bool) {
        loop {
            let news = {
                if holds(self) || self.stop.borrow().is_none() {
                    return;
                }
                let (tell, news) = oneshot::channel();
                let mut watchers = self.watchers.borrow_mut();
                watchers.retain(|watcher| !watcher.is_canceled());
                watchers.push(tell);
                news
            };
            let _ = news.await;
        }
    }

    fn tell(&self) {
        for watcher in self.watchers.borrow_mut().drain(..) {
            let _ = watcher.send(());
        }
    }

    async fn announce(&self, news: News) {
        let sender = self.news.borrow().clone();
        if let Some(mut sender) = sender {
            // A consumer that is gone wants no news.
            let _ = sender.send(news).await;
        }
        self.tell();
    }

    // What it is told.

    fn id(&self) -> String {
        self.serial.set(self.serial.get() + 1);
        format!("{}-{}", self.token, self.serial.get())
    }

    /// Gives it a line, once, and tries again as long as it cannot be reached.
    async fn write(&self, id: &str, line: &str) -> Result<(), Error> {
        let _turn = self.sending.lock().await;
        let begun = timers::ticks();
        let mut failures = 0;
        loop {
            let sent = match &self.place {
                Place::Vm(remote) => remote.send(id, line).await,
                Place::Local(local) => local.send(line).await,
            };
            match sent {
                Err(Error::Unavailable(_))
                    if self.last.borrow().is_none()
                        && timers::ticks().saturating_sub(begun) < ANSWER =>
                {
                    timers::sleep(pause(failures)).await?;
                    failures += 1;
                }
                sent => return sent,
            }
        }
    }

    /// Gives it a command and waits for its answer.
    pub(crate) async fn command(
        &self,
        kind: &str,
        fields: Value,
        patience: u64,
    ) -> Result<Value, Failure> {
        let doing = || format!("Cannot reach agent {}", self.name);
        self.check(doing)?;
        let id = self.id();
        let (answer, answered) = oneshot::channel();
        self.pending.borrow_mut().insert(id.clone(), answer);
        let forget = Forget(&self.pending, &id);
        let line = protocol::command(&id, kind, fields);
        if let Err(error) = self.write(&id, &line).await {
            if matches!(error, Error::NotFound(_)) {
                // How it ended is under way.
                let known = pin!(self.until(|driver| driver.last.borrow().is_some()));
                select(known, pin!(timers::sleep(2 * RECORD))).await;
            }
            self.check(doing)?;
            return Err(match &self.place {
                Place::Vm(remote) => remote.failure(doing(), &error).await,
                Place::Local(_) => Failure::of(doing(), &error),
            });
        }
        let late = pin!(timers::sleep(patience));
        let outcome = select(answered, late).await;
        drop(forget);
        match outcome {
            Either::Left((Ok(Ok(data)), _)) => Ok(data),
            Either::Left((Ok(Err(why)), _)) => Err(Failure::new(
                Kind::Refused,
                format!("Agent {} refused it", self.name),
                why,
            )),
            Either::Left((Err(_), _)) => {
                self.check(doing)?;
                Err(Failure::new(Kind::Unreachable, doing(), "it was let go of"))
            }
            Either::Right((Err(error), _)) => Err(Failure::of(doing(), &error)),
            Either::Right((Ok(()), _)) => Err(Failure::new(
                Kind::TimedOut,
                format!("Agent {} does not answer", self.name),
                format!(
                    "nothing came back within {} s, so nobody knows whether it was heard",
                    patience / 1000
                ),
            )),
        }
    }

    /// The same with the usual patience.
    pub(crate) async fn ask_it(&self, kind: &str, fields: Value) -> Result<Value, Failure> {
        self.command(kind, fields, ANSWER).await
    }

    fn check(&self, doing: impl Fn() -> String) -> Result<(), Failure> {
        match &*self.last.borrow() {
            Some(Status::Ended(why)) => Err(Failure::new(Kind::Ended, doing(), why.clone())),
            Some(Status::Lost(kind, why)) => Err(Failure::new(*kind, doing(), why.clone())),
            _ => Ok(()),
        }
    }

    /// A prompt that is sent while the end of a run is being decided could not be told from that run.
    pub(crate) async fn until_decided(&self) -> Result<(), Failure> {
        let decided = pin!(self.until(|driver| !driver.tracker.borrow().is_ending()));
        match select(decided, pin!(timers::sleep(ANSWER))).await {
            Either::Right((Err(error), _)) => Err(Failure::of(
                format!("Cannot reach agent {}", self.name),
                &error,
            )),
            Either::Left(_) | Either::Right((Ok(()), _)) => Ok(()),
        }
    }

    /// Asks it how it is until that is decided.
    fn look(self: &Rc<Self>) {
        if self.known_until.get() > 0 || self.looking.replace(true) {
            return;
        }
        let driver = self.clone();
        background::spawn(self.clone().until_stopped(async move {
            let undecided = |driver: &Self| {
                let tracker = driver.tracker.borrow();
                tracker.is_ending() || tracker.is_waiting_for_run()
            };
            let mut looks = 0;
            // At the end of a run it has done already what it does; a prompt that was just taken needs a moment.
            if driver.tracker.borrow().is_waiting_for_run() {
                let _ = timers::sleep(pause(looks + 1)).await;
            }
            while undecided(&driver) {
                // The answer is dealt with where it is read.
                if driver.ask_it("get_state", json!({})).await.is_err()
                    && driver.last.borrow().is_some()
                {
                    break;
                }
                if undecided(&driver) {
                    let _ = timers::sleep(pause(looks + 1)).await;
                    looks += 1;
                }
            }
            driver.looking.set(false);
        }));
    }

    /// Passes a question of its on to the user, and the answer back.
    fn ask(self: &Rc<Self>, dialog: Dialog) {
        let driver = self.clone();
        background::spawn(self.clone().until_stopped(async move {
            let answer = dialogs::ask(&driver.name, &dialog).await;
            let line = protocol::dialog_answer(&dialog.id, answer);
            // Where it cannot be reached, it asks again or has gone on.
            let _ = driver.write(&driver.id(), &line).await;
        }));
    }

    /// Ends it and waits until it is gone.
    pub(crate) async fn end(&self) -> Result<(), Failure> {
        let ended = match &self.place {
            Place::Vm(remote) => remote.stop().await,
            Place::Local(local) => local.stop().await,
        };
        let Err(error) = ended else {
            return Ok(());
        };
        let doing = format!("Cannot end agent {}", self.name);
        Err(match &self.place {
            Place::Vm(remote) => remote.failure(doing, &error).await,
            Place::Local(_) => Failure::of(doing, &error),
        })
    }
}

/// Nobody waits for this answer any more once it is dropped.
struct Forget<'a>(
    &'a RefCell<HashMap<String, oneshot::Sender<Result<Value, String>>>>,
    &'a str,
);

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.0.borrow_mut().remove(self.1);
    }
}

/// An exit code in words; a shell tells a signal as 128 and its number.
fn how(code: i32) -> String {
    let signal = match code {
        129 => "HUP",
        130 => "INT",
        134 => "ABRT",
        137 => "KILL",
        139 => "SEGV",
        143 => "TERM",
        127 => return "its program was not found".into(),
        126 => return "its program cannot be run".into(),
        _ => return format!("it exited with code {code}"),
    };
    format!("it exited with code {code}, as after the signal {signal}")
}
