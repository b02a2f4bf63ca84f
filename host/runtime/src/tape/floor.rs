//! The turnstile: one thing at a time is brought to each extension, and only while it rests.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Poll, Waker};

use pi_vers_system::secrets::Secrets;
use serde_json::Value;
use tokio::sync::watch;

use super::TapeError;
use super::line::{Key, Line, Loaded, brief, difference};
use super::read::{Item, Read};
use super::record::{Recorder, clean};
use crate::owner::End;

/// Which way the tape runs.
pub(super) enum Side {
    /// No session yet.
    Idle,
    Record(Box<Recorder>),
    Replay(Box<Player>),
}

/// One instance.
#[derive(Default)]
struct Place {
    rests: bool,
    /// Who may come in.
    granted: Option<u64>,
}

struct Waiter {
    id: u64,
    actor: u64,
    key: Key,
    waker: Waker,
    /// Somebody listens: a stream that nobody reads is not brought anything.
    live: bool,
}

/// See the module.
pub(super) struct Floor {
    pub(super) side: Side,
    places: HashMap<u64, Place>,
    waiters: Vec<Waiter>,
    next_waiter: u64,
    next: u64,
    /// Grows with each thing that passes.
    pub(super) progress: u64,
    failed: Option<TapeError>,
    /// Told when the tape gives up calls, when somebody has come to rest or is gone, and when the replay has failed.
    pub(super) changed: watch::Sender<()>,
}

impl Floor {
    pub(super) fn new(side: Side) -> Self {
        Self {
            side,
            places: HashMap::new(),
            waiters: Vec::new(),
            next_waiter: 0,
            next: 0,
            progress: 0,
            failed: None,
            changed: watch::Sender::new(()),
        }
    }

    /// A new number for a call or an ask.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn failed(&self) -> Option<&TapeError> {
        self.failed.as_ref()
    }

    /// Ends the replay. The first difference counts.
    pub(super) fn fail(&mut self, why: TapeError) -> TapeError {
        let why = self.failed.get_or_insert(why).clone();
        for waiter in &self.waiters {
            waiter.waker.wake_by_ref();
        }
        self.changed.send_replace(());
        why
    }

    /// Replaying: whether all of the tape was brought, and everybody has come to rest after it.
    pub(super) fn is_played(&self) -> bool {
        let Side::Replay(player) = &self.side else {
            return true;
        };
        let rests = |place: &Place| place.rests && place.granted.is_none();
        player.next().is_none() && self.places.values().all(rests)
    }

    /// The guest computes.
    pub(super) fn computes(&mut self) {
        self.progress += 1;
    }

    pub(super) fn runs(&mut self, actor: u64) {
        self.places.entry(actor).or_default().rests = false;
    }

    pub(super) fn rests(&mut self, actor: u64) {
        let place = self.places.entry(actor).or_default();
        place.rests = true;
        if let Some(id) = place.granted.take()
            && let Some(waiter) = self.waiters.iter_mut().find(|waiter| waiter.id == id)
        {
            // It was let in, was woken, and nobody came: nobody listens there now.
            waiter.live = false;
        }
        self.grant();
        self.changed.send_replace(());
    }

    pub(super) fn gone(&mut self, actor: u64) {
        self.places.remove(&actor);
        self.waiters.retain(|waiter| waiter.actor != actor);
        self.grant();
        self.changed.send_replace(());
    }

    pub(super) fn wait(&mut self, actor: u64, key: Key, waker: Waker) -> u64 {
        self.next_waiter += 1;
        self.waiters.push(Waiter {
            id: self.next_waiter,
            actor,
            key,
            waker,
            live: true,
        });
        self.next_waiter
    }

    pub(super) fn leave(&mut self, id: u64) {
        if let Some(at) = self.waiters.iter().position(|waiter| waiter.id == id) {
            let waiter = self.waiters.remove(at);
            if let Some(place) = self.places.get_mut(&waiter.actor)
                && place.granted == Some(id)
            {
                place.granted = None;
                self.grant();
            }
        }
    }

    /// Comes in, if it is this one's turn; with what the tape brings, in a replay.
    pub(super) fn pass(
        &mut self,
        id: u64,
        waker: &Waker,
    ) -> Poll<Result<Option<(Line, Ticks)>, TapeError>> {
        let Some(at) = self.waiters.iter().position(|waiter| waiter.id == id) else {
            return Poll::Pending;
        };
        let Some(waiter) = self.waiters.get_mut(at) else {
            return Poll::Pending;
        };
        let place = self.places.entry(waiter.actor).or_default();
        if place.granted != Some(id) {
            waiter.live = true;
            waiter.waker.clone_from(waker);
            return Poll::Pending;
        }
        place.granted = None;
        place.rests = false;
        self.waiters.remove(at);
        self.progress += 1;
        let mut brought = None;
        if let Side::Replay(player) = &mut self.side {
            // Not sooner: a guest that blocks in a function of WASI looks as if it rested, and nobody of it comes here.
            if let Some(missing) = player.missing() {
                return Poll::Ready(Err(self.fail(missing)));
            }
            let before = player.given_up.len();
            brought = player.take();
            if player.given_up.len() != before {
                self.changed.send_replace(());
            }
        }
        self.grant();
        Poll::Ready(Ok(brought))
    }

    /// Lets in whoever may come in now.
    fn grant(&mut self) {
        let Self {
            side,
            places,
            waiters,
            failed,
            ..
        } = self;
        if failed.is_some() {
            return;
        }
        match side {
            Side::Idle => {}
            Side::Record(_) => {
                for waiter in waiters.iter().filter(|waiter| waiter.live) {
                    if let Some(place) = places.get_mut(&waiter.actor)
                        && place.rests
                        && place.granted.is_none()
                    {
                        place.granted = Some(waiter.id);
                        waiter.waker.wake_by_ref();
                    }
                }
            }
            Side::Replay(player) => {
                let Some(key) = player.next() else {
                    return;
                };
                let Some(waiter) = waiters
                    .iter()
                    .find(|waiter| waiter.key == key && waiter.live)
                else {
                    return;
                };
                let Some(place) = places.get_mut(&waiter.actor) else {
                    return;
                };
                if !place.rests || place.granted.is_some() {
                    return;
                }
                place.granted = Some(waiter.id);
                waiter.waker.wake_by_ref();
            }
        }
    }

    /// Nothing passes any more.
    pub(super) fn stuck(&mut self) -> TapeError {
        let why = match &self.side {
            Side::Replay(player) => player.stuck(),
            Side::Idle | Side::Record(_) => TapeError::Differs {
                path: PathBuf::new(),
                line: None,
                what: "nothing happens any more".into(),
            },
        };
        self.fail(why)
    }
}

/// When the clock of an extension is set while it runs: at which read, to what.
pub(super) type Ticks = VecDeque<(u64, u64)>;

/// The reading side of a replay.
pub(super) struct Player {
    path: PathBuf,
    head: Line,
    items: Vec<Item>,
    whole: bool,
    cursor: usize,
    pub(super) secrets: Arc<Secrets>,
    /// Where asks are, by what they ask.
    asks: HashMap<String, VecDeque<usize>>,
    /// What holds now, from where each extension is.
    states: HashMap<String, Value>,
    pub(super) given_up: BTreeMap<u64, End>,
    /// Up to where the lines of an extension were looked at.
    looked: HashMap<String, usize>,
}

/// What an event is called, and the topic of one that has one.
fn kind(job: &Value) -> Option<(&str, Option<&Value>)> {
    match job.get("event")? {
        Value::String(name) => Some((name, None)),
        Value::Object(event) => event
            .iter()
            .next()
            .map(|(name, of)| (name.as_str(), of.get(0).filter(|_| name == "Bus"))),
        _ => None,
    }
}

/// Without what an extension did once it was told that the session ends: how much of it that was is chance.
fn until_stopped(items: Vec<Item>) -> Vec<Item> {
    let mut stopped = HashSet::new();
    let mut kept = items;
    kept.retain(|item| {
        let Some(by) = item.line.by() else {
            return true;
        };
        if matches!(&item.line, Line::Enter { job, .. } if job == "stop") {
            stopped.insert(by.to_owned());
        }
        !stopped.contains(by)
    });
    kept
}

/// What makes two asks the same.
pub(super) fn same(by: &str, what: &str, with: &Value) -> String {
    format!("{by}\0{what}\0{with}")
}

impl Player {
    pub(super) fn new(path: &Path, tape: Read) -> Self {
        let mut this = Self {
            path: path.to_owned(),
            head: tape.head,
            items: until_stopped(tape.items),
            whole: tape.whole,
            cursor: 0,
            secrets: Arc::default(),
            asks: HashMap::new(),
            states: HashMap::new(),
            given_up: BTreeMap::new(),
            looked: HashMap::new(),
        };
        let mut all = HashSet::new();
        for (at, item) in this.items.iter().enumerate() {
            if let Line::Ask { by, what, with, .. } = &item.line {
                let places = this.asks.entry(same(by, what, with)).or_default();
                places.push_back(at);
            }
            all.extend(item.line.by().map(str::to_owned));
        }
        for by in all {
            this.reaction(&by);
        }
        this.skip();
        this
    }

    /// How the extensions that are here differ from the recorded ones.
    pub(super) fn compare(&self, now: &[Loaded]) -> Vec<String> {
        let Line::Tape { extensions, .. } = &self.head else {
            return Vec::new();
        };
        let other = extensions.iter().filter_map(|then| {
            let here = now.iter().find(|here| here.name == then.name);
            match here {
                None => Some(format!(
                    "the extension {} of the recording is not here",
                    brief(&then.name)
                )),
                Some(here) if here.digest != then.digest => Some(format!(
                    "the extension {} is not the recorded one: its bytes changed",
                    brief(&then.name)
                )),
                Some(_) => None,
            }
        });
        other.collect()
    }

    fn differs(&self, at: Option<usize>, what: String) -> TapeError {
        let number = at.and_then(|at| self.items.get(at)).map(|item| item.number);
        TapeError::Differs {
            path: self.path.clone(),
            line: number,
            what,
        }
    }

    /// The next thing that is brought to somebody.
    fn next(&self) -> Option<Key> {
        let item = self.items.get(self.cursor)?;
        item.line.delivery().map(|(_, key, _)| key)
    }

    /// Goes on to the next thing that is brought to somebody.
    fn skip(&mut self) {
        while let Some(item) = self.items.get_mut(self.cursor) {
            if item.line.delivery().is_some() {
                return;
            }
            if let Line::GiveUp { n, why, .. } = &item.line {
                let end = match why.as_str() {
                    "timed-out" => End::TimedOut,
                    "stopped" => End::Stopped,
                    _ => End::Cancelled,
                };
                self.given_up.insert(*n, end);
            }
            self.cursor += 1;
        }
    }

    fn take(&mut self) -> Option<(Line, Ticks)> {
        let item = self.items.get_mut(self.cursor)?;
        item.met = true;
        let line = item.line.clone();
        let by = line.by().unwrap_or_default().to_owned();
        self.cursor += 1;
        let ticks = self.reaction(&by);
        self.skip();
        Some((line, ticks))
    }

    /// What holds for an extension until the next thing is brought to it: others may be brought something meanwhile, so it
    /// does not end there. What its questions are answered is noted, when its clock jumps is returned.
    fn reaction(&mut self, by: &str) -> Ticks {
        let after = self.items.get(self.cursor..).unwrap_or_default();
        let reaction = after
            .iter()
            .filter(|item| item.line.by() == Some(by))
            .take_while(|item| item.line.delivery().is_none());
        let mut ticks = Ticks::new();
        for item in reaction {
            match &item.line {
                Line::State {
                    what, with, value, ..
                } => {
                    self.states.insert(same(by, what, with), value.clone());
                }
                Line::Clock { reads, at, .. } => ticks.push_back((*reads, *at)),
                _ => {}
            }
        }
        ticks
    }

    /// What the extension that is brought the next thing did then before it, and has not done now.
    fn missing(&mut self) -> Option<TapeError> {
        let by = self.items.get(self.cursor)?.line.by()?.to_owned();
        let by = by.as_str();
        let from = self.looked.get(by).copied().unwrap_or(0);
        let found = (from..self.cursor).find(|at| {
            self.items.get(*at).is_some_and(|item| {
                !item.met
                    && item.line.by() == Some(by)
                    && matches!(item.line, Line::Ask { .. } | Line::Return { .. })
            })
        });
        match found {
            Some(at) => {
                let then = self.items.get(at).map(|item| item.line.words());
                Some(self.differs(
                    Some(at),
                    format!(
                        "the recording has there: {}; now that does not happen",
                        then.unwrap_or_default()
                    ),
                ))
            }
            None => {
                self.looked.insert(by.to_owned(), self.cursor);
                None
            }
        }
    }

    fn stuck(&self) -> TapeError {
        match self.items.get(self.cursor) {
            Some(item) => self.differs(
                Some(self.cursor),
                format!(
                    "the recording goes on there: {}; now nothing happens any more",
                    item.line.words()
                ),
            ),
            None => self.differs(None, self.over("an extension goes on waiting")),
        }
    }

    fn over(&self, what: &str) -> String {
        match self.whole {
            true => format!("the recording is over, and {what}"),
            false => format!(
                "the recording was cut off after line {}, and {what}",
                self.items.last().map_or(1, |item| item.number)
            ),
        }
    }

    /// Whether an extension had such an event then. A message on the bus has to be the same and still to come: the last ones of a session may
    /// have come too late to be delivered, and whether they were sent is compared where they are sent.
    pub(super) fn has_event(&self, of: &str, mut job: Value) -> bool {
        clean(&self.secrets, &mut job);
        let wanted = kind(&job);
        let message = wanted.is_some_and(|(_, topic)| topic.is_some());
        self.items.iter().any(|item| match &item.line {
            Line::Enter { by, job: then, .. } if by == of => match message {
                true => !item.met && *then == job,
                false => kind(then) == wanted,
            },
            _ => false,
        })
    }

    /// Finds an ask on the tape: its number, and the answer of one that waits for nothing.
    pub(super) fn ask(
        &mut self,
        by: &str,
        what: &str,
        mut with: Value,
    ) -> Result<(u64, Option<Value>), TapeError> {
        clean(&self.secrets, &mut with);
        let place = self
            .asks
            .get_mut(&same(by, what, &with))
            .and_then(VecDeque::pop_front);
        if let Some(item) = place.and_then(|at| self.items.get_mut(at))
            && let Line::Ask { n, answer, .. } = &item.line
        {
            item.met = true;
            return Ok((*n, answer.clone()));
        }
        // What it did then instead: the first of its asks that nobody has made, the same function before others.
        let open = |item: &Item| {
            !item.met && item.line.by() == Some(by) && matches!(item.line, Line::Ask { .. })
        };
        let alike = |item: &Item| match &item.line {
            Line::Ask { what: then, .. } => open(item) && then == what,
            _ => false,
        };
        let end = self.reaction_end(by);
        let reaction = self.items.get(..end).unwrap_or_default();
        let at = reaction
            .iter()
            .position(alike)
            .or_else(|| reaction.iter().position(open))
            .or_else(|| self.items.iter().position(open));
        let now = brief(&format!("{by} asks {what} {with}"));
        Err(match at.and_then(|at| self.items.get(at)) {
            Some(item) => {
                let (words, differs) = match &item.line {
                    Line::Ask {
                        what: then,
                        with: old,
                        ..
                    } if then == what => (item.line.words(), difference(old, &with)),
                    line => (line.words(), None),
                };
                let differs = differs
                    .map(|differs| format!(" ({differs})"))
                    .unwrap_or_default();
                self.differs(
                    at,
                    format!("now {now}; the recording has there: {words}{differs}"),
                )
            }
            None => self.differs(None, self.over(&now)),
        })
    }

    /// Where what an extension does after the last thing that was brought to it ends on the tape.
    fn reaction_end(&self, by: &str) -> usize {
        let after = self.items.iter().enumerate().skip(self.cursor);
        after
            .filter(|(_, item)| item.line.by() == Some(by))
            .find(|(_, item)| item.line.delivery().is_some())
            .map_or(self.items.len(), |(at, _)| at)
    }

    /// Finds a call on the tape: its number, and the id it had.
    pub(super) fn enter(
        &mut self,
        by: &str,
        mut job: Value,
    ) -> Result<(u64, Option<String>), TapeError> {
        clean(&self.secrets, &mut job);
        let open = |item: &&mut Item| {
            !item.met && matches!(&item.line, Line::Enter { by: name, .. } if name == by)
        };
        let fits =
            |item: &&mut Item| matches!(&item.line, Line::Enter { job: then, .. } if *then == job);
        if let Some(item) = self.items.iter_mut().filter(open).find(fits)
            && let Line::Enter { n, id, .. } = &item.line
        {
            item.met = true;
            return Ok((*n, id.clone()));
        }
        let at = self.items.iter().position(|item| {
            !item.met && matches!(&item.line, Line::Enter { by: name, .. } if name == by)
        });
        let now = brief(&format!("{by} is called: {job}"));
        Err(match at.and_then(|at| self.items.get(at)) {
            Some(item) => {
                let differs = match &item.line {
                    Line::Enter { job: then, .. } => difference(then, &job),
                    _ => None,
                };
                let words = item.line.words();
                self.differs(
                    at,
                    format!(
                        "now {now}; the recording has there: {words} ({})",
                        differs.unwrap_or_default()
                    ),
                )
            }
            None => self.differs(None, self.over(&now)),
        })
    }

    /// Compares what a call returned.
    pub(super) fn returned(&mut self, by: &str, n: u64, mut reply: Value) -> Result<(), TapeError> {
        clean(&self.secrets, &mut reply);
        let at = self
            .items
            .iter()
            .position(|item| matches!(&item.line, Line::Return { n: number, .. } if *number == n));
        let Some(item) = at.and_then(|at| self.items.get_mut(at)) else {
            let now = brief(&format!("{by} returns from call {n}: {reply}"));
            return Err(self.differs(
                None,
                format!("now {now}; in the recording that call did not return"),
            ));
        };
        let differs = match &item.line {
            Line::Return { reply: then, .. } => difference(then, &reply),
            _ => None,
        };
        item.met = true;
        match differs {
            None => Ok(()),
            Some(differs) => Err(self.differs(
                at,
                format!("{by} returns something else from call {n}: {differs}"),
            )),
        }
    }

    /// What a question that waits for nothing is answered now.
    pub(super) fn state(&self, by: &str, what: &str, mut with: Value) -> Result<Value, TapeError> {
        clean(&self.secrets, &mut with);
        if let Some(value) = self.states.get(&same(by, what, &with)) {
            return Ok(value.clone());
        }
        // Sooner than then: what it would have been answered.
        let later = self.items.iter().skip(self.cursor);
        let mut states = later.filter_map(|item| match &item.line {
            Line::State {
                by: name,
                what: then,
                with: old,
                value,
            } if name == by && then == what && *old == with => Some(value.clone()),
            _ => None,
        });
        states.next().ok_or_else(|| {
            let now = brief(&format!("{by} looks at {what} {with}"));
            self.differs(None, format!("now {now}; in the recording it never does"))
        })
    }

    /// All that was taken of what an extension wrote into a stream.
    pub(super) fn taken(&self, n: u64) -> Vec<u8> {
        let mut all = Vec::new();
        for item in &self.items {
            if let Line::Took {
                n: number,
                data: Some(data),
                ..
            } = &item.line
                && *number == n
            {
                all.extend(data.bytes().unwrap_or_default());
            }
        }
        all
    }

    /// That an extension writes something else than then, from this byte of the stream on.
    pub(super) fn wrote_else(
        &self,
        by: &str,
        n: u64,
        from: usize,
        then: &[u8],
        now: &[u8],
    ) -> TapeError {
        let show = |bytes: &[u8]| {
            let rest = bytes.get(from..).unwrap_or_default();
            let rest = rest.get(..rest.len().min(60)).unwrap_or_default();
            Value::String(String::from_utf8_lossy(rest).into_owned()).to_string()
        };
        let at = self
            .items
            .iter()
            .position(|item| matches!(&item.line, Line::Took { n: number, .. } if *number == n));
        self.differs(
            at,
            format!(
                "{by} writes something else into the stream of ask {n}: from byte {from} on recorded {}, now {}",
                show(then),
                show(now)
            ),
        )
    }

    /// What the tape has and the session did not do, at its end.
    pub(super) fn left(&self) -> Option<TapeError> {
        let at = self.items.iter().position(|item| {
            !item.met
                && (item.line.delivery().is_some()
                    || matches!(item.line, Line::Ask { .. } | Line::Return { .. }))
        })?;
        let words = self.items.get(at)?.line.words();
        Some(self.differs(
            Some(at),
            format!("the recording has there: {words}; now the session ended before"),
        ))
    }
}
