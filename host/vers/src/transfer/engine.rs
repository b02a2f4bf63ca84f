//! What is sent when, and again after a cut.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rand::Rng as _;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::entry::{Entry, Head, Item, Kind as What, Listing, Piece};
use super::exclude::Exclude;
use super::local::{Is, LocalBig, LocalSink, LocalSource, blocking};
use super::meter::{Meter, Share};
use super::vm::{Vm, VmBig, VmSink, VmSource};
use super::{Options, Progress, SMALL, Side, Summary, changed, conflict_at_top};
use crate::error::{Error, Kind, Result};

/// Batches, or big files, at once.
const AT_ONCE: usize = 2;
/// Of one batch.
const BATCH_BYTES: u64 = 16 << 20;
const BATCH_ENTRIES: usize = 4096;
/// So that one process can be given all names of a batch.
const BATCH_NAMES: usize = 256 << 10;
/// Small files between source and sink.
const FILES: usize = 8;
/// Pieces of a big file between them: 32 KiB each from a VM, 256 KiB from this machine.
const PIECES: usize = 32;
/// How often a file may change while it is read.
const CHANGES: u32 = 3;
/// For removing what a failed copy may have left, a new connection included.
const CLEAN_UP: Duration = Duration::from_secs(20);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(2);

enum Source {
    Local(Arc<LocalSource>),
    Vm(VmSource),
}

enum Sink {
    Local(Arc<LocalSink>),
    Vm(VmSink),
}

/// A big file on its way.
enum Big {
    Local(Arc<LocalBig>),
    Vm(VmBig),
}

pub(super) async fn run(
    source: Side,
    target: Side,
    options: Options,
    progress: watch::Sender<Progress>,
    cancel: CancellationToken,
) -> Result<Summary> {
    let exclude = Arc::new(Exclude::new(&options.exclude)?);
    // Also ends the other workers when one fails.
    let stop = cancel.child_token();
    let patience = Patience::new(options.patience);
    let (opened, sink) = tokio::join!(
        open_source(&source, &exclude, &stop, patience),
        open_sink(&target, &stop, patience)
    );
    let (source, listing) = opened?;
    let (sink, is) = sink?;
    check(&listing, is, &options)?;

    let meter = Arc::new(Meter::new(progress));
    let files = listing
        .entries
        .iter()
        .filter(|entry| matches!(entry.kind, What::File { .. }));
    let (count, bytes) = files.fold((0, 0u64), |(count, bytes), file| {
        (count + 1, bytes.saturating_add(file.size()))
    });
    meter.totals(count, bytes, listing.left_out, listing.is_directory());
    let work = Work {
        source,
        sink,
        entries: Arc::new(listing.entries),
        meter,
        stop,
        patience,
    };
    let outcome = Box::pin(work.all()).await;
    // The token is the caller's; what is left behind is removed whatever it says.
    let cleaned = Box::pin(work.clean()).await;
    if outcome.is_ok() {
        cleaned?;
    }
    if cancel.is_cancelled() && outcome.is_err() {
        return Err(Error::cancelled("copy"));
    }
    outcome.map(|()| work.meter.summary())
}

async fn open_source(
    side: &Side,
    exclude: &Arc<Exclude>,
    stop: &CancellationToken,
    mut patience: Patience,
) -> Result<(Source, Listing)> {
    match side {
        Side::Local { root, path } => {
            let (source, listing) =
                LocalSource::open(root.clone(), path.clone(), exclude.clone(), stop.clone())
                    .await?;
            Ok((Source::Local(Arc::new(source)), listing))
        }
        Side::Vm { ssh, vm, path } => loop {
            let vm = Vm {
                ssh: ssh.clone(),
                id: *vm,
                cancel: stop.clone(),
            };
            match VmSource::open(vm, path, exclude).await {
                Ok((source, listing)) => return Ok((Source::Vm(source), listing)),
                Err(error) => patience.again(error, None, stop).await?,
            }
        },
    }
}

async fn open_sink(
    side: &Side,
    stop: &CancellationToken,
    mut patience: Patience,
) -> Result<(Sink, Is)> {
    match side {
        Side::Local { root, path } => {
            let (sink, is) = LocalSink::open(root.clone(), path.clone()).await?;
            Ok((Sink::Local(Arc::new(sink)), is))
        }
        Side::Vm { ssh, vm, path } => loop {
            let vm = Vm {
                ssh: ssh.clone(),
                id: *vm,
                cancel: stop.clone(),
            };
            match VmSink::open(vm, path).await {
                Ok((sink, is)) => return Ok((Sink::Vm(sink), is)),
                Err(error) => patience.again(error, None, stop).await?,
            }
        },
    }
}

fn check(listing: &Listing, is: Is, options: &Options) -> Result<()> {
    let directory = listing.is_directory();
    if directory && options.recursive == Some(false) {
        return Err(Error::invalid(
            "copy: the source is a directory, and `recursive` says that none is copied",
        ));
    }
    match (directory, is) {
        (_, Is::Missing) | (true, Is::Directory) | (false, Is::File) => Ok(()),
        (false, Is::Directory) => Err(conflict_at_top()),
        (true, Is::File) => Err(Error::new(
            Kind::Conflict,
            "copy: the source is a directory, and the target is a file; remove it first",
        )),
        (_, Is::Other) => Err(Error::new(
            Kind::Conflict,
            "copy: the target is a device, a pipe or a socket; remove it first",
        )),
    }
}

/// How long failures that may pass are borne.
#[derive(Clone, Copy)]
struct Patience {
    limit: Duration,
    since: Instant,
    delay: Duration,
}

impl Patience {
    fn new(limit: Duration) -> Self {
        Self {
            limit: limit.min(Duration::from_secs(24 * 60 * 60)),
            since: Instant::now(),
            delay: Duration::ZERO,
        }
    }

    /// Waits a little before another attempt; fails with the error if there shall be none.
    async fn again(
        &mut self,
        error: Error,
        last_move: Option<Instant>,
        stop: &CancellationToken,
    ) -> Result<()> {
        if !matches!(error.kind(), Kind::Unavailable | Kind::TimedOut) {
            return Err(error);
        }
        if let Some(moved) = last_move.filter(|moved| *moved > self.since) {
            self.since = moved;
            self.delay = Duration::ZERO;
        }
        if self.since.elapsed() + self.delay > self.limit {
            return Err(error);
        }
        tracing::debug!(%error, "copying goes on");
        let wait = self.delay.mul_f64(rand::rng().random_range(0.5..1.5));
        self.delay = (self.delay * 2).clamp(FIRST_DELAY, LONGEST_DELAY);
        stop.run_until_cancelled(tokio::time::sleep(wait))
            .await
            .ok_or_else(|| Error::cancelled("copy"))
    }
}

/// What is still to be sent in batches.
struct Queue {
    todo: VecDeque<usize>,
    big: VecDeque<usize>,
    /// How much a batch may hold: less after a cut, more again after a success.
    bytes: u64,
    entries: usize,
}

struct Work {
    source: Source,
    sink: Sink,
    entries: Arc<Vec<Entry>>,
    meter: Arc<Meter>,
    stop: CancellationToken,
    patience: Patience,
}

impl Work {
    async fn all(&self) -> Result<()> {
        if self
            .entries
            .first()
            .is_some_and(|first| first.kind != What::Directory)
        {
            return self.big(0).await;
        }
        let (big, todo): (VecDeque<usize>, VecDeque<usize>) =
            (0..self.entries.len()).partition(|index| {
                self.entries
                    .get(*index)
                    .is_some_and(|entry| entry.size() > SMALL)
            });
        let queue = Mutex::new(Queue {
            todo,
            big,
            bytes: BATCH_BYTES,
            entries: BATCH_ENTRIES,
        });
        let first = self.next_batch(&queue);
        // Nobody else writes, and nothing is written later: then the tree comes to its place as it is.
        let only = lock(&queue).todo.is_empty() && lock(&queue).big.is_empty();
        let whole = only && matches!(&self.sink, Sink::Vm(sink) if sink.is_new());
        let mut patience = self.patience;
        if only {
            self.batch_or_requeue(first, true, &queue, &mut patience)
                .await?;
            if whole && lock(&queue).todo.is_empty() && lock(&queue).big.is_empty() {
                return Ok(());
            }
        } else {
            let mut queue = lock(&queue);
            for index in first.into_iter().rev() {
                queue.todo.push_front(index);
            }
        }
        self.side_by_side((0..AT_ONCE).map(|_| self.batches(&queue)))
            .await?;
        self.side_by_side((0..AT_ONCE).map(|_| self.bigs(&queue)))
            .await?;
        // First, as it changes the times of directories. What is left of attempts that were cut off, and perhaps goes on
        // for a moment, finds its files gone then.
        self.clean().await?;
        self.finish().await
    }

    /// Some workers; the first failure ends them all.
    async fn side_by_side<W>(&self, workers: impl Iterator<Item = W>) -> Result<()>
    where
        W: Future<Output = Result<()>>,
    {
        let mut workers: FuturesUnordered<W> = workers.collect();
        let mut outcome = Ok(());
        while let Some(ended) = workers.next().await {
            if outcome.is_ok() && ended.is_err() {
                self.stop.cancel();
                outcome = ended;
            }
        }
        outcome
    }

    async fn bigs(&self, queue: &Mutex<Queue>) -> Result<()> {
        loop {
            let next = lock(queue).big.pop_front();
            match next {
                Some(index) => self.big(index).await?,
                None => return Ok(()),
            }
        }
    }

    async fn batches(&self, queue: &Mutex<Queue>) -> Result<()> {
        let mut patience = self.patience;
        loop {
            let batch = self.next_batch(queue);
            if batch.is_empty() {
                return Ok(());
            }
            self.batch_or_requeue(batch, false, queue, &mut patience)
                .await?;
        }
    }

    fn next_batch(&self, queue: &Mutex<Queue>) -> Vec<usize> {
        let mut queue = lock(queue);
        let mut batch = Vec::new();
        let (mut bytes, mut names) = (0, 0);
        while batch.len() < queue.entries {
            let Some(entry) = queue
                .todo
                .front()
                .and_then(|index| self.entries.get(*index))
            else {
                break;
            };
            bytes += entry.size() + 1024;
            names += entry.path.len() + 64;
            if !batch.is_empty() && (bytes > queue.bytes || names > BATCH_NAMES) {
                break;
            }
            batch.extend(queue.todo.pop_front());
        }
        batch
    }

    async fn batch_or_requeue(
        &self,
        batch: Vec<usize>,
        whole: bool,
        queue: &Mutex<Queue>,
        patience: &mut Patience,
    ) -> Result<()> {
        let (done, outcome) = Box::pin(self.batch(&batch, whole)).await;
        let Err(error) = outcome else {
            let mut queue = lock(queue);
            queue.bytes = (queue.bytes * 2).min(BATCH_BYTES);
            queue.entries = (queue.entries * 2).min(BATCH_ENTRIES);
            return Ok(());
        };
        patience
            .again(error, self.meter.last_move(), &self.stop)
            .await?;
        let mut queue = lock(queue);
        let left: Vec<usize> = batch
            .into_iter()
            .filter(|index| !done.contains(index))
            .collect();
        queue.bytes = (queue.bytes / 2).max(64 << 10);
        queue.entries = (left.len() / 2).clamp(1, BATCH_ENTRIES);
        match left.as_slice() {
            // Even alone it does not get through at once.
            [one] if self.entries.get(*one).is_some_and(|entry| entry.size() > 0) => {
                queue.big.push_back(*one)
            }
            left => left
                .iter()
                .rev()
                .for_each(|index| queue.todo.push_front(*index)),
        }
        Ok(())
    }

    /// Copies a batch. Also says which of it is in its place.
    async fn batch(&self, indices: &[usize], whole: bool) -> (Vec<usize>, Result<()>) {
        let (to, mut from) = mpsc::channel::<Item>(FILES);
        let entries = self.entries.clone();
        let reading = async {
            match &self.source {
                Source::Local(source) => {
                    let (source, entries, indices) =
                        (source.clone(), entries.clone(), indices.to_vec());
                    blocking(move || source.batch(&entries, &indices, &to)).await
                }
                Source::Vm(source) => source.batch(&entries, indices, to).await,
            }
        };
        // Owns its end of the queue: when it is done, nobody waits for it.
        let writing = async move {
            let mut done = Vec::new();
            let outcome = match &self.sink {
                Sink::Vm(sink) => {
                    sink.batch(
                        &self.entries,
                        indices,
                        whole,
                        &mut from,
                        &mut done,
                        &self.meter,
                    )
                    .await
                }
                Sink::Local(sink) => {
                    let (sink, entries, indices, meter) = (
                        sink.clone(),
                        self.entries.clone(),
                        indices.to_vec(),
                        self.meter.clone(),
                    );
                    let work = move || {
                        let mut done = Vec::new();
                        let outcome = sink.batch(&entries, &indices, &mut from, &mut done, &meter);
                        Ok((done, outcome))
                    };
                    match blocking(work).await {
                        Ok((finished, outcome)) => {
                            done = finished;
                            outcome
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            (done, outcome)
        };
        let (read, (done, written)) = tokio::join!(reading, writing);
        (done, joined(read, written))
    }

    /// Copies one file, in as many attempts as it takes.
    async fn big(&self, index: usize) -> Result<()> {
        let Some(entry) = self.entries.get(index) else {
            return Ok(());
        };
        let mut patience = self.patience;
        let mut changes = 0;
        let mut known: Option<Head> = None;
        let mut target = self.begin(entry).await?;
        let mut reached = 0;
        let share = Arc::new(self.meter.share());
        loop {
            let attempt = async {
                let position = match (&target, &known) {
                    (_, None) => 0,
                    (Big::Local(big), Some(_)) => big.position(),
                    (Big::Vm(big), Some(head)) => match &self.sink {
                        Sink::Vm(sink) => match sink.position(big, head).await? {
                            Some(position) => position,
                            None => {
                                sink.placed(big);
                                return Ok(());
                            }
                        },
                        Sink::Local(_) => 0,
                    },
                };
                if position > reached {
                    reached = position;
                    self.meter.advanced();
                }
                share.stands_at(position);
                Box::pin(self.attempt(entry, &mut target, &mut known, position, &share)).await
            };
            match Box::pin(attempt).await {
                Ok(()) => break,
                Err(error)
                    if error.to_string() == changed(entry).to_string() && changes < CHANGES =>
                {
                    changes += 1;
                    known = None;
                    target = self.begin(entry).await?;
                }
                Err(error) => {
                    patience
                        .again(error, self.meter.last_move(), &self.stop)
                        .await?
                }
            }
        }
        let size = known.as_ref().map_or(0, |head| head.size);
        if let Big::Local(big) = target {
            let (entries, head) = (self.entries.clone(), known);
            blocking(
                move || match (Arc::into_inner(big), head, entries.get(index)) {
                    (Some(big), Some(head), Some(entry)) => big.place(entry, &head),
                    _ => Err(Error::other("copy: a file was given up")),
                },
            )
            .await?;
        }
        drop(share);
        self.meter.finished(1, 0, 0, size);
        Ok(())
    }

    async fn begin(&self, entry: &Entry) -> Result<Big> {
        match &self.sink {
            Sink::Vm(sink) => sink.begin(entry).map(Big::Vm),
            Sink::Local(sink) => {
                let (sink, entry) = (sink.clone(), entry.clone());
                blocking(move || sink.begin(&entry))
                    .await
                    .map(|big| Big::Local(Arc::new(big)))
            }
        }
    }

    async fn attempt(
        &self,
        entry: &Entry,
        target: &mut Big,
        known: &mut Option<Head>,
        position: u64,
        share: &Arc<Share>,
    ) -> Result<()> {
        let (to, mut from) = mpsc::channel::<Piece>(PIECES);
        let before = known.clone();
        let reading = async {
            match &self.source {
                Source::Local(source) => {
                    let (source, entry, known) = (source.clone(), entry.clone(), before.clone());
                    blocking(move || source.big(&entry, position, known.as_ref(), &to)).await
                }
                Source::Vm(source) => source
                    .big(entry, position, before.as_ref(), &to)
                    .await
                    .map(|()| drop(to)),
            }
        };
        let known = &mut *known;
        let writing = async move {
            let Some(Piece::Head(head)) = from.recv().await else {
                return Ok(false);
            };
            *known = Some(head.clone());
            match (target, &self.sink) {
                (Big::Vm(big), Sink::Vm(sink)) => {
                    sink.write(big, entry, &head, position, &mut from, share)
                        .await
                }
                (Big::Local(big), _) => {
                    let (big, entry, share) = (big.clone(), entry.clone(), share.clone());
                    blocking(move || big.write(&entry, &head, &mut from, &share)).await
                }
                (Big::Vm(_), Sink::Local(_)) => Ok(false),
            }
        };
        let (read, written) = tokio::join!(reading, writing);
        joined(read, written)
    }

    async fn finish(&self) -> Result<()> {
        let mut patience = self.patience;
        match &self.sink {
            Sink::Local(sink) => {
                let (sink, entries) = (sink.clone(), self.entries.clone());
                blocking(move || sink.finish(&entries)).await
            }
            Sink::Vm(sink) => loop {
                match sink.finish(&self.entries).await {
                    Ok(()) => return Ok(()),
                    Err(error) => {
                        patience
                            .again(error, self.meter.last_move(), &self.stop)
                            .await?
                    }
                }
            },
        }
    }

    async fn clean(&self) -> Result<()> {
        let Sink::Vm(sink) = &self.sink else {
            return Ok(());
        };
        sink.clean(CLEAN_UP).await
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What became of both ends.
fn joined(read: Result<()>, written: Result<bool>) -> Result<()> {
    match (read, written) {
        // It stopped because the other one did.
        (Err(error), Ok(false)) | (_, Err(error)) => Err(error),
        (_, Ok(true)) => Ok(()),
        (Ok(()), Ok(false)) => Err(Error::unavailable("copy: the source ended too early")),
    }
}
