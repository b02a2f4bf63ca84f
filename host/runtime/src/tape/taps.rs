//! Streams and futures on their way to an extension, and what it writes on its way to the host.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use pi_vers_system::secrets::MARK;
use serde::Serialize;
use serde::de::DeserializeOwned;
use wasmtime::StoreContextMut;
use wasmtime::component::{Source, StreamConsumer, StreamResult};

use super::floor::Side;
use super::line::{Key, Line};
use super::voice::{Passed, Turn, Voice, ends, read, value};
use crate::guest::Guest;

/// A stream or a future of the ask that is being answered.
#[derive(Clone)]
pub(crate) struct Tap {
    voice: Arc<Voice>,
    n: u64,
}

/// How something on a stream is written down.
type Write<T> = fn(&Tap, Option<&T>, u64);

fn write_bytes(tap: &Tap, chunk: Option<&Bytes>, at: u64) {
    if tap.voice.is_over() {
        return;
    }
    let mut floor = tap.voice.tape.floor();
    if let Side::Record(recorder) = &mut floor.side {
        let piece = chunk.map(|chunk| &**chunk).unwrap_or_default();
        let data = recorder.strain(tap.n, false, piece, chunk.is_none());
        recorder.write(Line::Chunk {
            n: tap.n,
            by: tap.voice.by.to_string(),
            at,
            data: Some(data),
            item: None,
            end: chunk.is_none(),
        });
    }
}

fn write_item<T: Serialize>(tap: &Tap, item: Option<&T>, at: u64) {
    tap.voice.write(Line::Chunk {
        n: tap.n,
        by: tap.voice.by.to_string(),
        at,
        data: None,
        item: item.and_then(|item| value(item).ok()),
        end: item.is_none(),
    });
}

impl Tap {
    /// Of the ask that this guest is being answered, if its session is recorded.
    pub(crate) fn of(guest: &Guest) -> Option<Self> {
        let voice = guest.voice.clone()?;
        let n = voice.asking()?;
        Some(Self { voice, n })
    }

    pub(super) fn new(voice: Arc<Voice>, n: u64) -> Self {
        Self { voice, n }
    }

    /// Bytes, each piece written down as it passes.
    pub(crate) fn bytes(
        self,
        source: impl Stream<Item = Bytes> + Send + 'static,
    ) -> BoxStream<'static, Bytes> {
        self.taped(source, write_bytes)
    }

    /// The same with items.
    pub(crate) fn items<T: Serialize + Send + Unpin + 'static>(
        self,
        source: impl Stream<Item = T> + Send + 'static,
    ) -> BoxStream<'static, T> {
        self.taped(source, write_item::<T>)
    }

    fn taped<T: Send + Unpin + 'static>(
        self,
        source: impl Stream<Item = T> + Send + 'static,
        write: Write<T>,
    ) -> BoxStream<'static, T> {
        Taped {
            source: source.boxed(),
            turn: None,
            held: None,
            over: false,
            tap: self,
            write,
        }
        .boxed()
    }

    /// What comes of a stream.
    pub(crate) async fn done<R: Serialize>(
        self,
        outcome: impl Future<Output = R>,
    ) -> wasmtime::Result<R> {
        let outcome = outcome.await;
        let passed = self.voice.turn(Key::Done(self.n)).await?;
        self.voice.write(Line::Done {
            n: self.n,
            by: self.voice.by.to_string(),
            at: passed.at,
            value: value(&outcome)?,
        });
        Ok(outcome)
    }

    /// The consumer of what the guest writes, while it is recorded.
    pub(crate) fn taken(self) -> TakenTap {
        TakenTap {
            tap: self,
            turn: None,
        }
    }

    /// Bytes from the tape.
    pub(super) fn replayed_bytes(self) -> BoxStream<'static, Bytes> {
        self.replayed(|line| match line {
            Line::Chunk { data, end, .. } => {
                let bytes = data.map(|data| data.bytes().unwrap_or_default());
                (bytes.filter(|bytes| !bytes.is_empty() || !end), end)
            }
            _ => (None, true),
        })
        .map(Bytes::from)
        .boxed()
    }

    /// Items from the tape.
    pub(super) fn replayed_items<T: DeserializeOwned + Send + 'static>(
        self,
    ) -> BoxStream<'static, T> {
        self.replayed(|line| match line {
            Line::Chunk { item, end, .. } => (item.and_then(|item| read(item).ok()), end),
            _ => (None, true),
        })
    }

    fn replayed<T: Send + 'static>(
        self,
        open: fn(Line) -> (Option<T>, bool),
    ) -> BoxStream<'static, T> {
        stream::unfold((self, false), move |(tap, over)| async move {
            if over {
                return None;
            }
            // A replay that has failed ends every wait of its guest elsewhere; a stream just does not go on.
            let Ok(Passed {
                line: Some(line), ..
            }) = tap.voice.turn(Key::Chunk(tap.n)).await
            else {
                return std::future::pending().await;
            };
            let (item, end) = open(line);
            item.map(|item| (item, (tap, end)))
        })
        .boxed()
    }

    /// What came of a stream, from the tape.
    pub(super) async fn replayed_done<R: DeserializeOwned>(self) -> wasmtime::Result<R> {
        match self.voice.turn(Key::Done(self.n)).await?.line {
            Some(Line::Done { value, .. }) => read(value),
            _ => Err(wasmtime::Error::msg("the tape brings something else")),
        }
    }

    /// The consumer of what the guest writes, in a replay.
    pub(super) fn compared(self) -> Compared {
        let then = match &self.voice.tape.floor().side {
            Side::Replay(player) => player.taken(self.n),
            Side::Idle | Side::Record(_) => Vec::new(),
        };
        Compared {
            tap: self,
            turn: None,
            then,
            now: Vec::new(),
            count: 0,
        }
    }
}

/// Passes a stream on, piece by piece, each at its turn.
struct Taped<T> {
    source: BoxStream<'static, T>,
    turn: Option<Turn>,
    /// The next piece, or the end.
    held: Option<Option<T>>,
    over: bool,
    tap: Tap,
    write: Write<T>,
}

impl<T: Unpin> Stream for Taped<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        if this.over {
            return Poll::Ready(None);
        }
        if this.held.is_none() {
            this.held = Some(ready!(this.source.as_mut().poll_next(context)));
        }
        let turn = this
            .turn
            .get_or_insert_with(|| this.tap.voice.turn(Key::Chunk(this.tap.n)));
        let passed = ready!(Pin::new(turn).poll(context));
        this.turn = None;
        let next = this.held.take().flatten();
        if let Ok(passed) = passed {
            (this.write)(&this.tap, next.as_ref(), passed.at);
        }
        this.over = next.is_none();
        Poll::Ready(next)
    }
}

/// What the guest writes, while it is recorded.
pub(crate) struct TakenTap {
    tap: Tap,
    turn: Option<Turn>,
}

impl TakenTap {
    /// Whether it may be taken now, and when that is.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<wasmtime::Result<u64>> {
        let tap = &self.tap;
        let turn = self
            .turn
            .get_or_insert_with(|| tap.voice.turn(Key::Took(tap.n)));
        let passed = ready!(Pin::new(turn).poll(context));
        self.turn = None;
        Poll::Ready(passed.map(|passed| passed.at))
    }

    /// What was taken then; `None`: no more is.
    pub(crate) fn took(&self, bytes: Option<&[u8]>, at: u64) {
        if self.tap.voice.is_over() {
            return;
        }
        let mut floor = self.tap.voice.tape.floor();
        if let Side::Record(recorder) = &mut floor.side {
            let data = bytes.map(|bytes| recorder.strain(self.tap.n, true, bytes, false));
            recorder.write(Line::Took {
                n: self.tap.n,
                by: self.tap.voice.by.to_string(),
                at,
                data,
                count: bytes.map_or(0, |bytes| u64::try_from(bytes.len()).unwrap_or(u64::MAX)),
                end: bytes.is_none(),
            });
        }
    }
}

/// What the guest writes in a replay: compared with what it wrote then, and dropped. As much is taken in a step as then, or the guest would
/// have to be asked for more or fewer of them than are on the tape.
pub(super) struct Compared {
    tap: Tap,
    turn: Option<Turn>,
    /// All that was written then, as far as it may be known.
    then: Vec<u8>,
    now: Vec<u8>,
    /// Bytes that were taken then up to now.
    count: usize,
}

/// The most that is taken in one step.
const STEP: usize = 64 << 10;

impl Compared {
    /// Where what is written differs from what was, if it does.
    fn difference(&self) -> Option<usize> {
        // From a secret on, which is not on the tape, nothing can be compared; and what could be the beginning of one was
        // written down with the next piece, or never.
        let secret = find(&self.then, MARK.as_bytes());
        let known = secret.unwrap_or(self.then.len());
        let common = self.now.len().min(known);
        let pairs = self.now.iter().zip(&self.then).take(common);
        let differs = pairs.enumerate().find(|(_, (now, then))| now != then);
        match differs {
            Some((at, _)) => Some(at),
            None if secret.is_none() && self.now.len() != self.count => {
                Some(self.now.len().min(self.count))
            }
            None => None,
        }
    }
}

impl StreamConsumer<Guest> for Compared {
    type Item = u8;

    fn poll_consume(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'_, Guest>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let this = self.get_mut();
        let (voice, n) = (&this.tap.voice, this.tap.n);
        let turn = this.turn.get_or_insert_with(|| voice.turn(Key::Took(n)));
        let passed = match Pin::new(turn).poll(context) {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(passed) => passed?,
        };
        this.turn = None;
        let Some(Line::Took { count, end, .. }) = passed.line else {
            return Poll::Ready(Err(wasmtime::Error::msg("the tape brings something else")));
        };
        if end {
            return Poll::Ready(Ok(StreamResult::Dropped));
        }
        let mut direct = source.as_direct(store);
        let bytes = direct.remaining();
        let then = usize::try_from(count).unwrap_or(usize::MAX);
        this.count = this.count.saturating_add(then);
        // Where there was a secret then, its stand-in has another length: all that is there is taken.
        let most = match find(&this.then, MARK.as_bytes()) {
            Some(_) => STEP,
            None => then,
        };
        let count = bytes.len().min(most);
        this.now
            .extend_from_slice(bytes.get(..count).unwrap_or_default());
        direct.mark_read(count);
        if let Some(at) = this.difference() {
            let mut floor = voice.tape.floor();
            let why = match &floor.side {
                Side::Replay(player) => player.wrote_else(&voice.by, n, at, &this.then, &this.now),
                Side::Idle | Side::Record(_) => return Poll::Ready(Ok(StreamResult::Completed)),
            };
            return Poll::Ready(Err(ends(floor.fail(why))));
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

fn find(all: &[u8], part: &[u8]) -> Option<usize> {
    all.windows(part.len()).position(|window| window == part)
}
