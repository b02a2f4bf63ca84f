//! Byte streams across the border, both ways, with back-pressure and bounds.
//!
//! Outwards (host to guest) the guest's reads pull chunks from a host stream: what nobody reads stays
//! where it is. Inwards the guest's writes go through a channel of a few chunks. A guest that drops
//! its end drops the host's end with it.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{BoxStream, Stream, StreamExt};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use wasmtime::component::{
    Access, ComponentType, Destination, FutureReader, Lift, Lower, Source, StreamConsumer,
    StreamProducer, StreamReader, StreamResult, VecBuffer,
};
use wasmtime::{AsContextMut, StoreContextMut};

use crate::audit::Tally;
use crate::bindings::vers::harness::types::Error as WitError;
use crate::guest::{Guest, Has};
use crate::owner::Owner;
use crate::tape::{TakenTap, Tap};
use std::sync::Arc;

/// The most that moves in one step.
const CHUNK: usize = 64 << 10;

/// Chunks that wait between a guest's write and the host's use of them.
const CHUNKS: usize = 4;

/// Items that are handed over in one step.
const ITEMS: usize = 16;

/// A stream, and what came of it: whether all of it came, if nothing else.
pub(super) type Checkable<T = u8, R = ()> = (StreamReader<T>, FutureReader<Result<R, WitError>>);

/// Bytes for a guest.
pub(crate) type Output = BoxStream<'static, Bytes>;

/// Gives the guest a stream to read.
pub(crate) fn outgoing(
    mut access: Access<'_, Guest, Has>,
    source: Output,
) -> wasmtime::Result<StreamReader<u8>> {
    let source = taped(access.get(), source);
    StreamReader::new(
        &mut access,
        Producer {
            source,
            current: Bytes::new(),
        },
    )
}

/// A stream to read together with a future that says whether all of it came. The stream ends early
/// with its owner; the future fails at once when `ready` does.
pub(super) fn outgoing_checked<E: Into<WitError> + Send + 'static>(
    mut access: Access<'_, Guest, Has>,
    owner: Arc<Owner>,
    ready: impl Future<Output = Result<(), WitError>> + Send + 'static,
    source: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> wasmtime::Result<Checkable> {
    let (source, outcome) = checked(owner, source);
    let source = taped(access.get(), source.boxed());
    let stream = StreamReader::new(
        &mut access,
        Producer {
            source,
            current: Bytes::new(),
        },
    )?;
    Ok((stream, verdict(&mut access, ready, outcome)?))
}

/// The same with items of another type. They stay where they are until they are read.
pub(super) fn items_checked<T, E: Into<WitError> + Send + 'static>(
    mut access: Access<'_, Guest, Has>,
    owner: Arc<Owner>,
    ready: impl Future<Output = Result<(), WitError>> + Send + 'static,
    source: impl Stream<Item = Result<T, E>> + Send + 'static,
) -> wasmtime::Result<Checkable<T>>
where
    T: ComponentType + Lift + Lower + Serialize + Unpin + Send + Sync + 'static,
{
    let (source, outcome) = checked(owner, source);
    let source = match Tap::of(access.get()) {
        Some(tap) => tap.items(source),
        None => source.boxed(),
    };
    let stream = items(&mut access, source)?;
    Ok((stream, verdict(&mut access, ready, outcome)?))
}

/// Items for a guest.
pub(crate) fn items<T>(
    access: &mut Access<'_, Guest, Has>,
    source: BoxStream<'static, T>,
) -> wasmtime::Result<StreamReader<T>>
where
    T: ComponentType + Lift + Lower + Unpin + Send + Sync + 'static,
{
    let producer = Items {
        source,
        held: Vec::new(),
        over: false,
    };
    StreamReader::new(access, producer)
}

/// The same bytes, on the tape of the session if it has one.
fn taped(guest: &Guest, source: Output) -> Output {
    match Tap::of(guest) {
        Some(tap) => tap.bytes(source),
        None => source,
    }
}

/// The same stream, whose bytes are counted for the audit log until it ends or is dropped.
pub(super) fn counted<E: 'static>(
    source: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
    tally: Option<Tally>,
) -> impl Stream<Item = Result<Bytes, E>> + Send + 'static {
    source.inspect(move |chunk| {
        if let (Some(tally), Ok(chunk)) = (&tally, chunk) {
            tally.add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        }
    })
}

type Outcome = oneshot::Receiver<Result<(), WitError>>;

fn checked<S>(owner: Arc<Owner>, source: S) -> (Checked<S>, Outcome) {
    let (done, outcome) = oneshot::channel();
    let source = Checked {
        source: Box::pin(source),
        ended: Box::pin(ended(owner)),
        done: Some(done),
    };
    (source, outcome)
}

/// Fails when `ready` does, and else with what the stream came to.
fn verdict(
    access: &mut Access<'_, Guest, Has>,
    ready: impl Future<Output = Result<(), WitError>> + Send + 'static,
    outcome: Outcome,
) -> wasmtime::Result<FutureReader<Result<(), WitError>>> {
    done(access, async move {
        ready.await?;
        // The sender is gone when the guest dropped the stream before its end.
        outcome.await.unwrap_or(Err(WitError::Cancelled))
    })
}

/// What comes of a stream, on the tape of the session if it has one.
pub(super) fn done<R>(
    access: &mut Access<'_, Guest, Has>,
    outcome: impl Future<Output = Result<R, WitError>> + Send + 'static,
) -> wasmtime::Result<FutureReader<Result<R, WitError>>>
where
    R: ComponentType + Lift + Lower + Serialize + Send + Sync + 'static,
{
    match Tap::of(access.get()) {
        Some(tap) => FutureReader::new(access, tap.done(outcome)),
        None => FutureReader::new(
            access,
            async move { wasmtime::Result::<_>::Ok(outcome.await) },
        ),
    }
}

/// A stream that failed before it began, with the future that says so.
pub(super) fn failed<T, R>(
    mut access: Access<'_, Guest, Has>,
    why: WitError,
) -> wasmtime::Result<Checkable<T, R>>
where
    T: ComponentType + Lift + Lower + Serialize + Unpin + Send + Sync + 'static,
    R: ComponentType + Lift + Lower + Serialize + Send + Sync + 'static,
{
    let stream = match Tap::of(access.get()) {
        Some(tap) => items(&mut access, tap.items(futures::stream::empty()))?,
        None => StreamReader::new(&mut access, Vec::<T>::new())?,
    };
    let future = done(&mut access, async move { Err(why) })?;
    Ok((stream, future))
}

async fn ended(owner: Arc<Owner>) -> WitError {
    owner.token().cancelled().await;
    owner.error()
}

/// What a guest wrote and the host has not used yet, over all its streams: the limit `stream-buffers`. A guest that writes more waits.
#[derive(Clone)]
pub(crate) struct Buffers {
    bytes: Arc<Semaphore>,
    /// The most that one step takes: at least one chunk has to fit.
    step: u32,
}

impl Buffers {
    pub(crate) fn new(limit: u64) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let limit = limit.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self {
            bytes: Arc::new(Semaphore::new(limit)),
            step: u32::try_from(limit.min(CHUNK)).unwrap_or(1),
        }
    }

    async fn room(self) -> Option<OwnedSemaphorePermit> {
        self.bytes.acquire_many_owned(self.step).await.ok()
    }
}

/// Bytes that a guest wrote, with the room they take.
type Held = (Bytes, OwnedSemaphorePermit);

/// What the guest writes, piece by piece. Ends when the guest closes its end.
pub(super) struct Incoming(mpsc::Receiver<Held>);

impl Incoming {
    /// The next piece; its room is free again.
    pub(super) async fn recv(&mut self) -> Option<Bytes> {
        self.0.recv().await.map(|(chunk, _)| chunk)
    }
}

/// What the guest writes, for the host to take.
pub(super) fn incoming(
    mut access: Access<'_, Guest, Has>,
    reader: StreamReader<u8>,
) -> wasmtime::Result<Incoming> {
    let (to, from) = mpsc::channel(CHUNKS);
    let buffers = access.get().buffers.clone();
    let consumer = Consumer {
        to,
        buffers,
        room: None,
        held: None,
        tap: Tap::of(access.get()).map(Tap::taken),
    };
    reader.pipe(&mut access, consumer)?;
    Ok(Incoming(from))
}

/// [`Incoming`] as a stream.
pub(super) fn stream(from: Incoming) -> impl Stream<Item = Bytes> + Send + 'static {
    futures::stream::unfold(from, |mut from| async move {
        from.recv().await.map(|chunk| (chunk, from))
    })
}

/// Passes a fallible stream on, and reports how it ended.
struct Checked<S> {
    source: Pin<Box<S>>,
    ended: Pin<Box<dyn Future<Output = WitError> + Send>>,
    done: Option<oneshot::Sender<Result<(), WitError>>>,
}

impl<S> Checked<S> {
    fn finish<T>(&mut self, how: Result<(), WitError>) -> Poll<Option<T>> {
        if let Some(done) = self.done.take() {
            let _ = done.send(how);
        }
        Poll::Ready(None)
    }
}

impl<S, T, E> Stream for Checked<S>
where
    S: Stream<Item = Result<T, E>>,
    E: Into<WitError>,
{
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if self.done.is_none() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(why) = self.ended.as_mut().poll(context) {
            return self.finish(Err(why));
        }
        match ready!(self.source.as_mut().poll_next(context)) {
            Some(Ok(item)) => Poll::Ready(Some(item)),
            Some(Err(why)) => self.finish(Err(why.into())),
            None => self.finish(Ok(())),
        }
    }
}

struct Producer {
    source: Output,
    current: Bytes,
}

impl StreamProducer<Guest> for Producer {
    type Item = u8;
    type Buffer = BytesMut;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, Guest>,
        destination: Destination<'a, u8, BytesMut>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        while self.current.is_empty() {
            match self.source.as_mut().poll_next(context) {
                Poll::Ready(Some(chunk)) => self.current = chunk,
                Poll::Ready(None) => return Poll::Ready(Ok(StreamResult::Dropped)),
                Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if destination.remaining(store.as_context_mut()) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let mut direct = destination.as_direct(store, self.current.len().min(CHUNK));
        let room = direct.remaining();
        let count = room.len().min(self.current.len());
        if let (Some(room), Some(bytes)) = (room.get_mut(..count), self.current.get(..count)) {
            room.copy_from_slice(bytes);
        }
        self.current.advance(count);
        direct.mark_written(count);
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

struct Items<T> {
    source: BoxStream<'static, T>,
    /// Taken from the source and not yet from here.
    held: Vec<T>,
    over: bool,
}

impl<T> StreamProducer<Guest> for Items<T>
where
    T: ComponentType + Lift + Lower + Unpin + Send + Sync + 'static,
{
    type Item = T;
    type Buffer = VecBuffer<T>;

    fn poll_produce<'a>(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, Guest>,
        mut destination: Destination<'a, T, VecBuffer<T>>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let Self { source, held, over } = self.get_mut();
        let room = destination.remaining(store.as_context_mut());
        // Who reads nothing asks whether there is something.
        let wanted = room.unwrap_or(1).clamp(1, ITEMS);
        while held.len() < wanted && !*over {
            match source.as_mut().poll_next(context) {
                Poll::Ready(Some(item)) => held.push(item),
                Poll::Ready(None) => *over = true,
                Poll::Pending => break,
            }
        }
        if held.is_empty() {
            return match (*over, finish) {
                (true, _) => Poll::Ready(Ok(StreamResult::Dropped)),
                (false, true) => Poll::Ready(Ok(StreamResult::Cancelled)),
                (false, false) => Poll::Pending,
            };
        }
        if room != Some(0) {
            let rest = held.split_off(held.len().min(wanted));
            destination.set_buffer(std::mem::replace(held, rest).into());
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// A place in the queue and room for its bytes; `None`: nobody takes them any more.
type Room = Option<(mpsc::OwnedPermit<Held>, OwnedSemaphorePermit)>;

struct Consumer {
    to: mpsc::Sender<Held>,
    buffers: Buffers,
    room: Option<Pin<Box<dyn Future<Output = Room> + Send>>>,
    /// Room that was found, or that nobody takes more, while the tape has not come to this yet.
    held: Option<Room>,
    tap: Option<TakenTap>,
}

impl StreamConsumer<Guest> for Consumer {
    type Item = u8;

    /// Room first, bytes second: at the end of the stream a consumer is dropped without another poll, so
    /// bytes it had taken and not passed on would be lost.
    fn poll_consume(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        store: StoreContextMut<'_, Guest>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        let (to, buffers) = (self.to.clone(), self.buffers.clone());
        let room = match self.held.take() {
            Some(held) => Poll::Ready(held),
            None => {
                let room = self.room.get_or_insert_with(|| {
                    Box::pin(async move {
                        // The place first: who waits for it must not keep bytes from others.
                        let place = to.reserve_owned().await.ok()?;
                        Some((place, buffers.room().await?))
                    })
                });
                room.as_mut().poll(context)
            }
        };
        let room = match room {
            Poll::Pending if finish => return Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(room) => room,
        };
        self.room = None;
        let mut at = 0;
        if let Some(tap) = &mut self.tap {
            match tap.poll(context) {
                Poll::Ready(passed) => at = passed?,
                Poll::Pending => {
                    self.held = Some(room);
                    return match finish {
                        true => Poll::Ready(Ok(StreamResult::Cancelled)),
                        false => Poll::Pending,
                    };
                }
            }
        }
        let Some((place, mut bytes_room)) = room else {
            if let Some(tap) = &self.tap {
                tap.took(None, at);
            }
            return Poll::Ready(Ok(StreamResult::Dropped));
        };
        let mut direct = source.as_direct(store);
        let bytes = direct.remaining();
        let count = bytes.len().min(bytes_room.num_permits());
        // What is not needed is for others.
        drop(bytes_room.split(bytes_room.num_permits() - count));
        let chunk = bytes
            .get(..count)
            .map_or_else(Bytes::new, Bytes::copy_from_slice);
        direct.mark_read(count);
        if let Some(tap) = &self.tap {
            tap.took(Some(&chunk), at);
        }
        if !chunk.is_empty() {
            place.send((chunk, bytes_room));
        }
        Poll::Ready(Ok(StreamResult::Completed))
    }
}
