//! The beginning and the end of a session: lieutenants are taken over, and given back.
//!
//! Nothing here delays the start of the session: all is reached side by side, in the background. Calls that come before the
//! store has been read wait for it ([`loaded`]).

use std::cell::Cell;
use std::rc::Rc;

use futures::future::join_all;
use pi_vers_sdk::bell::Bell;
use pi_vers_sdk::harness::timers;
use pi_vers_sdk::platform::vms::{self, State};
use pi_vers_sdk::{Error, Reason, ToolCall, background, call};

use crate::keep::{self, Found, Kept, warn};
use crate::lease::Claim;
use crate::record::Phase;
use crate::table::{self, Lieutenant};
use crate::{announce, clock, destroy, follow, show};

/// How long after a store that could not be read it is read again, in milliseconds.
const AGAIN: u64 = 5_000;
/// How long the last deletions may take when the session ends, in milliseconds.
const CLEANING: u64 = 5_000;

/// How long what is just being told may take when the session ends, in milliseconds.
const TELLING: u64 = 1_000;

thread_local! {
    static STARTED: Cell<bool> = const { Cell::new(false) };
    static STOPPING: Cell<bool> = const { Cell::new(false) };
    static LOADED: Cell<bool> = const { Cell::new(false) };
    /// Rings when the store has been read, or could not be.
    static LOOKED: Bell = const { Bell::new() };
}

/// The session starts.
pub(crate) async fn start(_reason: Reason) -> Result<(), Error> {
    // It may be told more than once.
    if STARTED.replace(true) {
        return Ok(());
    }
    background::spawn(async {
        while let Err(error) = take_over().await {
            warn("The lieutenants of before cannot be read", &error);
            LOOKED.with(Bell::ring);
            if timers::sleep(AGAIN).await.is_err() {
                return;
            }
        }
        LOADED.set(true);
        LOOKED.with(Bell::ring);
        clock::run().await;
    });
    Ok(())
}

/// Waits until it is known which lieutenants there are; at most until the store could not be read once more.
///
/// # Errors
/// `Error::Cancelled` with the call; `Error::Unavailable` when the store cannot be read.
pub(crate) async fn loaded(call: &ToolCall) -> Result<(), Error> {
    if LOADED.get() {
        return Ok(());
    }
    let looked = LOOKED.with(Bell::next);
    let looked = call::until_cancelled(call, async {
        looked.await;
        Ok(())
    });
    looked.await?;
    LOADED.get().then_some(()).ok_or_else(|| {
        Error::Unavailable("the store with the lieutenants cannot be read; the log says why".into())
    })
}

/// Reads which lieutenants there are, and takes over those that nobody looks after.
///
/// # Errors
/// The store's.
pub(crate) async fn take_over() -> Result<(), Error> {
    let found = keep::look().await?;
    if found.iter().any(|one| one.claim == Claim::Free) {
        keep::renew().await?;
    }
    let names: Vec<String> = found.iter().map(|one| one.record.name.clone()).collect();
    join_all(found.into_iter().map(take)).await;
    for one in table::all() {
        // Another session destroyed it.
        if one.held().is_some() && !names.contains(&one.name) {
            table::remove(&one);
        }
    }
    Ok(())
}

async fn take(found: Found) {
    let Found {
        record,
        text,
        claim,
    } = found;
    let known = table::find(&record.name);
    match claim {
        Claim::Held(until) => {
            let one = known.unwrap_or_else(|| Lieutenant::put(record.clone(), Some(text)));
            one.change(|mine| *mine = record);
            one.yield_to(until);
        }
        Claim::Free | Claim::Ours => {
            if known.as_ref().is_some_and(|one| one.held().is_none()) {
                return;
            }
            let one = match known {
                Some(one) => {
                    *one.stored.borrow_mut() = Some(text);
                    one.change(|mine| *mine = record);
                    one
                }
                None => Lieutenant::put(record, Some(text)),
            };
            adopt(&one).await;
        }
    }
}

/// Looks after it from now on.
async fn adopt(one: &Rc<Lieutenant>) {
    // Begins a term, and is nobody else's any more.
    drop(one.begin());
    let phase = one.record().phase;
    if !matches!(phase, Phase::Starting | Phase::Doomed | Phase::Paused) {
        one.is(Phase::Connecting, None);
    }
    if keep::save(one).await == Kept::TakenOver {
        return;
    }
    let newest = one.record().runs;
    if let Ok(Some(past)) = keep::run(&one.name, newest).await {
        one.said(past.text);
    }
    let record = one.record();
    if record.is_local() {
        // Its process ended with the session that it was of.
        destroy::forget(one).await;
        return;
    }
    match phase {
        // Nobody was told that it is there.
        Phase::Starting | Phase::Doomed => destroy::doom(one),
        Phase::Paused => background::spawn({
            let one = one.clone();
            async move {
                announce::tell(&one);
                let state = vms::get(record.vm.unwrap_or_default()).await;
                // Somebody else has resumed it.
                if state.is_ok_and(|vm| vm.state == State::Running)
                    && one.record().phase == Phase::Paused
                {
                    one.is(Phase::Connecting, None);
                    follow::reach(&one);
                }
            }
        }),
        _ => follow::reach(one),
    }
}

/// Whether the session ends.
pub(crate) fn is_stopping() -> bool {
    STOPPING.get()
}

/// The session ends: what is known is stored, local lieutenants end, the others go on without anybody who listens.
pub(crate) async fn stop() {
    STOPPING.set(true);
    let ours = table::ours();
    join_all(ours.iter().map(async |one| {
        let record = one.record();
        if matches!(record.phase, Phase::Starting | Phase::Doomed) {
            return;
        }
        let agent = one.end_term();
        announce::told(one, TELLING).await;
        if record.is_local() {
            if let Some(agent) = agent {
                // What cannot be ended so, the host ends with the instance.
                let _ = agent.end().await;
            }
            destroy::forget(one).await;
        } else {
            keep::release(one).await;
        }
    }))
    .await;
    destroy::cleaned(CLEANING).await;
    keep::resign().await;
    show::clear();
}
