//! `shell.follow`: the lines of a file that grows on a VM.
//!
//! A follow lives as long as the guest's stream. The call that began it may end before; but when that call is given up,
//! the follow ends with it, also if the guest keeps the stream and does not read.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use futures::future::{BoxFuture, FutureExt, Shared};
use futures::stream::{Stream, StreamExt, TryStreamExt};
use pi_vers_policy::Request;
use tokio::sync::OwnedSemaphorePermit;
use vers_client::ssh::{self, Follow};

use super::vms::facts;
use crate::bindings::vers::harness::types::Error;
use crate::bindings::vers::platform::shell::{Followed, Line, Position};
use crate::connections::Lease;
use crate::guest::Ask;
use crate::owner::Stoppable;

/// Whether a follow may begin, and once that is known, that it has.
type Begun = Shared<BoxFuture<'static, Result<(), Error>>>;

/// A follow that its owner can end.
struct Running {
    what: String,
    follow: Mutex<Option<Follow>>,
    /// It is a process on the VM.
    _room: OwnedSemaphorePermit,
    _lease: Lease,
}

impl Stoppable for Running {
    fn what(&self) -> String {
        self.what.clone()
    }

    fn stop(&self) -> BoxFuture<'_, bool> {
        // What runs on the VM is stopped in the background.
        let follow = self.take();
        std::future::ready(follow.is_some()).boxed()
    }
}

impl Running {
    fn take(&self) -> Option<Follow> {
        let mut follow = self.follow.lock().unwrap_or_else(PoisonError::into_inner);
        follow.take()
    }
}

/// What the guest reads. The follow goes with it.
struct Lines(Arc<Running>);

impl Stream for Lines {
    type Item = Result<Followed, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let running = &self.get_mut().0;
        let mut follow = running
            .follow
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(follow) = follow.as_mut() else {
            return Poll::Ready(None);
        };
        let next = ready!(Pin::new(follow).poll_next(context));
        Poll::Ready(next.map(|followed| followed.map(Followed::from).map_err(Error::from)))
    }
}

impl From<ssh::Followed> for Followed {
    fn from(followed: ssh::Followed) -> Self {
        match followed {
            ssh::Followed::Line {
                offset,
                next,
                text,
                left_out,
            } => Self::Line(Line {
                offset,
                next,
                text,
                left_out,
            }),
            ssh::Followed::Replaced => Self::Replaced,
            ssh::Followed::Truncated => Self::Truncated,
        }
    }
}

/// Asks the policy, begins, and gives what comes; whoever polls either of the two drives the first steps.
pub(super) fn follow(
    ask: Ask,
    vm: String,
    path: String,
    start: Position,
) -> (
    impl Stream<Item = Result<Followed, Error>> + Send + 'static,
    Begun,
) {
    let place = Arc::new(Mutex::new(None));
    let to = place.clone();
    let begun = async move {
        let facts = ask.owner.race(facts(&ask, &vm)).await??;
        ask.permit(&Request::ShellFollow {
            vm: facts.vm(),
            path: &path,
        })
        .await?;
        super::stand_in::none_for(&ask, "following a file")?;
        let room = ask.room_for_process()?;
        let lease = ask.connections.to_vm(facts.id)?;
        let start = match start {
            Position::Offset(offset) => ssh::Position::Offset(offset),
            Position::End => ssh::Position::End,
        };
        let running = Arc::new(Running {
            what: format!(
                "following {:?} on VM {}",
                crate::types::visible(&path),
                facts.id
            ),
            follow: Mutex::new(Some(ask.services.ssh.follow(facts.id, path, start))),
            _room: room,
            _lease: lease,
        });
        ask.owner.started(&running);
        *to.lock().unwrap_or_else(PoisonError::into_inner) = Some(Lines(running));
        Ok(())
    };
    let begun = begun.boxed().shared();
    let first = begun.clone();
    let stream = futures::stream::once(async move {
        first.await?;
        let lines = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok::<_, Error>(lines.map_or_else(|| futures::stream::empty().boxed(), StreamExt::boxed))
    })
    .try_flatten();
    (stream, begun)
}
