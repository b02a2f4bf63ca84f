//! What the manager needs of sandboxes, so that its state machine can be tested with faults that no kernel gives on demand.

use crate::sandbox::{Capabilities, Error, Handle, Sandboxes, Service, Spec};
use futures::future::{BoxFuture, FutureExt as _};
use tokio::net::UnixStream;

/// The operations of [`Sandboxes`], with the same meaning.
pub(crate) trait Backend: Send + Sync + 'static {
    fn capabilities(&self) -> &Capabilities;
    fn start<'a>(&'a self, spec: Spec<'a>) -> BoxFuture<'a, Result<Handle, Error>>;
    fn alive<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, bool>;
    fn exited<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, ()>;
    fn freeze<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, Result<(), Error>>;
    fn thaw<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, Result<(), Error>>;
    fn stop<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, Result<(), Error>>;
    fn dial<'a>(&'a self, h: &'a Handle, to: Service) -> BoxFuture<'a, Result<UnixStream, Error>>;
    fn sweep<'a>(&'a self, known: &'a [Handle]) -> BoxFuture<'a, Result<(), Error>>;
}

impl Backend for Sandboxes {
    fn capabilities(&self) -> &Capabilities {
        Self::capabilities(self)
    }
    fn start<'a>(&'a self, spec: Spec<'a>) -> BoxFuture<'a, Result<Handle, Error>> {
        Self::start(self, spec).boxed()
    }
    fn alive<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, bool> {
        Self::alive(self, h).boxed()
    }
    fn exited<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, ()> {
        Self::exited(self, h).boxed()
    }
    fn freeze<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, Result<(), Error>> {
        Self::freeze(self, h).boxed()
    }
    fn thaw<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, Result<(), Error>> {
        Self::thaw(self, h).boxed()
    }
    fn stop<'a>(&'a self, h: &'a Handle) -> BoxFuture<'a, Result<(), Error>> {
        Self::stop(self, h).boxed()
    }
    fn dial<'a>(&'a self, h: &'a Handle, to: Service) -> BoxFuture<'a, Result<UnixStream, Error>> {
        Self::dial(self, h, to).boxed()
    }
    fn sweep<'a>(&'a self, known: &'a [Handle]) -> BoxFuture<'a, Result<(), Error>> {
        Self::sweep(self, known).boxed()
    }
}
