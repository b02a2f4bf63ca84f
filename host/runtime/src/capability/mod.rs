//! The capabilities: one module for each imported interface of the contract.
//!
//! Each function first takes what it needs from the store (who calls, for which call, under which
//! grants), asks the policy, and only then acts. Functions that can wait race the end of the call
//! that made them. An error is one of the contract's closed cases; a trap is kept for guests that
//! break the ABI.

mod bus;
pub(crate) mod call;
mod client;
mod copy;
mod files;
mod fleet;
mod follow;
pub(crate) mod forward;
mod http;
mod log;
pub(crate) mod process;
mod session;
mod shell;
mod stand_in;
mod store;
pub(crate) mod streams;
mod timers;
mod ui;
mod vms;

use wasmtime::component::Linker;

use crate::bindings::{Publisher, vers};
use crate::engine::Engine;
use crate::error::{Error, Refusal};
use crate::guest::{Guest, Has};

pub(crate) use streams::Buffers;
use vers::harness::types::Error as WitError;

/// Links every interface of the contract, and WASI with nothing behind it. `taped`: for a session that is recorded or replayed.
pub(crate) fn linker(engine: &Engine, taped: bool) -> Result<Linker<Guest>, Error> {
    let mut linker = Linker::new(engine.wasm());
    if taped {
        let linked = wasmtime_wasi::p2::add_to_linker_async(&mut linker)
            .and_then(|()| crate::tape::wrap::link(&mut linker));
        return linked.map(|()| linker).map_err(|why| unlinked(&why));
    }
    let linked = wasmtime_wasi::p2::add_to_linker_async(&mut linker)
        .and_then(|()| Publisher::add_to_linker::<_, Has>(&mut linker, |guest| guest));
    linked.map(|()| linker).map_err(|why| unlinked(&why))
}

fn unlinked(why: &wasmtime::Error) -> Error {
    Error::Engine(format!("the capabilities could not be linked: {why:#}"))
}

impl vers::harness::types::Host for Guest {}

impl From<vers_client::Error> for WitError {
    fn from(error: vers_client::Error) -> Self {
        use vers_client::Kind as K;
        let message = error.to_string();
        match error.kind() {
            K::Unauthorized => Self::Unavailable(message),
            K::Denied => Self::Denied(message),
            K::Invalid => Self::Invalid(message),
            K::NotFound => Self::NotFound(message),
            K::Conflict => Self::Conflict(message),
            K::TimedOut => Self::TimedOut(message),
            K::Cancelled => Self::Cancelled,
            K::Unavailable => Self::Unavailable(message),
            K::Limit => Self::Limit(message),
            _ => Self::Other(message),
        }
    }
}

impl From<pi_vers_system::Error> for WitError {
    fn from(error: pi_vers_system::Error) -> Self {
        use pi_vers_system::Kind as K;
        let message = error.to_string();
        match error.kind() {
            K::Denied => Self::Denied(message),
            K::Invalid => Self::Invalid(message),
            K::NotFound => Self::NotFound(message),
            K::Conflict => Self::Conflict(message),
            K::TimedOut => Self::TimedOut(message),
            K::Cancelled => Self::Cancelled,
            K::Unavailable => Self::Unavailable(message),
            K::Limit => Self::Limit(message),
            K::Other => Self::Other(message),
        }
    }
}

/// The case and the text of a contract error.
pub(crate) fn refusal(error: WitError) -> (Refusal, String) {
    match error {
        WitError::Denied(message) => (Refusal::Denied, message),
        WitError::Invalid(message) => (Refusal::Invalid, message),
        WitError::NotFound(message) => (Refusal::NotFound, message),
        WitError::Conflict(message) => (Refusal::Conflict, message),
        WitError::TimedOut(message) => (Refusal::TimedOut, message),
        WitError::Cancelled => (Refusal::Cancelled, "cancelled".into()),
        WitError::Unavailable(message) => (Refusal::Unavailable, message),
        WitError::Limit(message) => (Refusal::Limit, message),
        WitError::Other(message) => (Refusal::Other, message),
    }
}
