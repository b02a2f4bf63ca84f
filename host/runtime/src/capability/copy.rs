//! `vers:system/files.copy`: a copy runs by itself; the guest sees how far it is, and what became of it.
//!
//! The copy is never slowed down by its guest: progress is the newest state only, and a guest that reads seldom sees
//! fewer steps. It ends with the call that asked for it, and when the guest drops the outcome's future: then it is
//! stopped, and what was not finished is removed.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{BoxStream, StreamExt as _};
use tokio::sync::{oneshot, watch};
use tokio::time::{Duration, Instant};
use tokio_util::sync::{CancellationToken, DropGuard};
use vers_client::transfer::{self, Options, Progress, Side};
use wasmtime::StoreContextMut;
use wasmtime::component::{Access, Destination, StreamProducer, StreamReader, StreamResult};

use super::files::{Place, place};
use super::streams;
use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::system::files::{CopyOptions, CopyProgress, CopySummary, Location};
use crate::guest::{Ask, Guest, Has};
use crate::owner::Stoppable;
use crate::tape::Tap;
use pi_vers_policy::Access as Want;

/// No more than one step is told in this time: people read them.
const STEP: Duration = Duration::from_millis(100);

/// Starts a copy.
pub(super) fn start(
    mut access: Access<'_, Guest, Has>,
    source: Location,
    target: Location,
    options: CopyOptions,
) -> wasmtime::Result<streams::Checkable<CopyProgress, CopySummary>> {
    let ask = match Ask::with(&mut access) {
        Ok(ask) => ask,
        Err(denied) => return streams::failed(access, denied),
    };
    let (sender, progress) = watch::channel(Progress::default());
    let (tell, outcome) = oneshot::channel();
    let running = Arc::new(Running {
        cancel: CancellationToken::new(),
        ended: CancellationToken::new(),
    });
    ask.owner.started(&running);
    let owner = ask.owner.clone();
    let (cancel, ended) = (running.cancel.clone(), running.ended.clone().drop_guard());
    tokio::spawn(async move {
        let result = run(&ask, source, target, options, sender, cancel).await;
        let _ = tell.send(result);
        drop(ended);
    });
    let first = Instant::now();
    let steps = futures::stream::unfold((progress, first), |(mut progress, next)| async move {
        // Not for longer than the copy lasts.
        let mut lasts = progress.clone();
        let _ = tokio::time::timeout_at(next, lasts.wait_for(|_| false)).await;
        progress.changed().await.ok()?;
        let step = progress.borrow_and_update().clone();
        Some((step, (progress, Instant::now() + STEP)))
    });
    let steps = steps.map(CopyProgress::from).boxed();
    let steps = Steps(match Tap::of(access.get()) {
        Some(tap) => tap.items(steps),
        None => steps,
    });
    let progress = StreamReader::new(&mut access, steps)?;
    let guard = Guard {
        _cancel: running.cancel.clone().drop_guard(),
        _running: running,
    };
    let done = streams::done(&mut access, async move {
        // Dropped by the guest, or with its store, it stops the copy.
        let _guard = guard;
        let result = outcome.await.unwrap_or(Err(Error::Cancelled));
        match result {
            Err(Error::Cancelled) => Err(owner.error()),
            result => result,
        }
    })?;
    Ok((progress, done))
}

async fn run(
    ask: &Ask,
    source: Location,
    target: Location,
    options: CopyOptions,
    progress: watch::Sender<Progress>,
    cancel: CancellationToken,
) -> Result<CopySummary, Error> {
    let judged = async {
        let source = place(ask, source, Want::Read).await?;
        Ok::<_, Error>((source, place(ask, target, Want::Write).await?))
    };
    let judged = cancel
        .run_until_cancelled(ask.owner.race(judged))
        .await
        .ok_or(Error::Cancelled)?;
    let (source, target) = judged??;
    let _leases = [&source, &target].map(|place| match place {
        Place::OnVm { lease, .. } => Some(lease.clone()),
        Place::Here { .. } => None,
    });
    let options = Options {
        recursive: options.recursive,
        exclude: options.exclude,
        ..Options::default()
    };
    let copying = transfer::copy(
        side(ask, source),
        side(ask, target),
        options,
        progress,
        cancel.clone(),
    );
    tokio::pin!(copying);
    // Stopped rather than dropped: whoever ended the call may wait until nothing is left of it.
    let summary = tokio::select! {
        summary = &mut copying => summary,
        () = ask.owner.token().cancelled() => {
            cancel.cancel();
            copying.await
        }
    };
    if let (Ok(summary), Some(tally)) = (&summary, ask.tally("files")) {
        tally.add(summary.bytes);
    }
    summary.map(CopySummary::from).map_err(Error::from)
}

fn side(ask: &Ask, place: Place) -> Side {
    match place {
        Place::Here { root, path } => Side::Local { root, path },
        Place::OnVm { files, path, .. } => Side::Vm {
            ssh: ask.services.ssh.clone(),
            vm: files.vm(),
            path,
        },
    }
}

/// A copy that its owner can stop.
struct Running {
    cancel: CancellationToken,
    ended: CancellationToken,
}

impl Stoppable for Running {
    fn what(&self) -> String {
        "a copy".into()
    }

    fn stop(&self) -> BoxFuture<'_, bool> {
        let over = self.ended.is_cancelled();
        self.cancel.cancel();
        self.ended.cancelled().map(move |()| !over).boxed()
    }
}

struct Guard {
    _cancel: DropGuard,
    _running: Arc<Running>,
}

/// The steps of a copy, for a guest.
struct Steps(BoxStream<'static, CopyProgress>);

impl StreamProducer<Guest> for Steps {
    type Item = CopyProgress;
    type Buffer = Option<CopyProgress>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut store: StoreContextMut<'a, Guest>,
        mut destination: Destination<'a, CopyProgress, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        if destination.remaining(&mut store) == Some(0) {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        match self.0.as_mut().poll_next(context) {
            Poll::Ready(Some(step)) => {
                destination.set_buffer(Some(step));
                Poll::Ready(Ok(StreamResult::Completed))
            }
            Poll::Ready(None) => Poll::Ready(Ok(StreamResult::Dropped)),
            Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl From<Progress> for CopyProgress {
    fn from(progress: Progress) -> Self {
        Self {
            files: progress.files,
            bytes: progress.bytes,
            total_files: progress.total_files,
            total_bytes: progress.total_bytes,
            current: progress.current,
        }
    }
}

impl From<transfer::Summary> for CopySummary {
    fn from(summary: transfer::Summary) -> Self {
        Self {
            files: summary.files,
            directories: summary.directories,
            links: summary.links,
            bytes: summary.bytes,
            left_out: summary.left_out,
            was_directory: summary.was_directory,
        }
    }
}
