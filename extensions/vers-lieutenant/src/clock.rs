//! What happens at a time: the lease is renewed, others' leases run out, idle lieutenants are warned of and paused.
//!
//! One task sleeps until the next of these moments, or until something is different. Without lieutenants it sleeps for good.

use std::cell::RefCell;

use futures::channel::mpsc;
use futures::future::{Either, select};
use futures::stream::StreamExt as _;
use pi_vers_sdk::FlagValue;
use pi_vers_sdk::harness::ui::{self, Severity};
use pi_vers_sdk::harness::{session, timers};

use crate::IDLE;
use crate::idle::{self, Due};
use crate::keep::{self, warn};
use crate::record::Phase;
use crate::time::length;
use crate::{power, start, table};

/// After a store that could not be read or written, in milliseconds.
const AGAIN: u64 = 5_000;
/// The longest sleep, in milliseconds: a clock that is set anew is noticed.
const LONGEST: u64 = 600_000;

thread_local! {
    static WAKE: RefCell<Option<mpsc::Sender<()>>> = const { RefCell::new(None) };
}

/// Something is different: the next moment may be another one.
pub(crate) fn wake() {
    WAKE.with_borrow_mut(|wake| {
        if let Some(wake) = wake {
            // Full: it is awake already.
            let _ = wake.try_send(());
        }
    });
}

/// Runs until the session ends.
pub(crate) async fn run() {
    let (send, mut woken) = mpsc::channel(1);
    WAKE.set(Some(send));
    loop {
        let next = [lease().await, others().await, idle().await]
            .into_iter()
            .flatten()
            .min();
        let rest = next.map(|at| at.saturating_sub(timers::now()).min(LONGEST));
        let changed = woken.next();
        let ended = match rest {
            None => changed.await.is_none(),
            Some(rest) => match select(Box::pin(timers::sleep(rest)), changed).await {
                Either::Left((slept, _)) => slept.is_err(),
                Either::Right((changed, _)) => changed.is_none(),
            },
        };
        if ended {
            return;
        }
    }
}

/// Renews the lease; says when to do it again.
async fn lease() -> Option<u64> {
    let ours = table::ours();
    if ours.is_empty() {
        return None;
    }
    if timers::now() < keep::renewal() {
        return Some(keep::renewal());
    }
    if let Err(error) = keep::renew().await {
        warn("The lease cannot be renewed", &error);
        return Some(timers::now() + AGAIN);
    }
    for one in ours {
        keep::check(&one).await;
    }
    Some(keep::renewal())
}

/// Takes over what others have left behind; says when to look again.
async fn others() -> Option<u64> {
    let next = || table::all().iter().filter_map(|one| one.held()).min();
    if next()? > timers::now() {
        return next();
    }
    if let Err(error) = start::take_over().await {
        warn("The lieutenants of other sessions cannot be read", &error);
        return Some(timers::now() + AGAIN);
    }
    // Whoever is alive has renewed its lease meanwhile; never at once again.
    next().map(|at| at.max(timers::now() + 1_000))
}

/// Warns of lieutenants that are idle, and pauses them; says when the next is due.
async fn idle() -> Option<u64> {
    let Some(FlagValue::Number(minutes)) = session::flag(IDLE) else {
        return None;
    };
    let lease = idle::lease(minutes)?;
    let mut next = None;
    for one in table::ours() {
        let record = one.record();
        if record.is_local() || record.busy || one.phase() != Phase::Idle {
            continue;
        }
        let (since, warned) = one.idle();
        let now = timers::now();
        let at = match idle::due(lease, since, warned, now) {
            Due::Nothing(at) => at,
            Due::Warn(at) => {
                one.warn(Some(at));
                let text = format!(
                    "Lieutenant \"{}\" is idle. It is paused in {} unless it gets something to do.",
                    one.name,
                    length(at - now)
                );
                ui::notify(&text, Severity::Warning);
                at
            }
            Due::Pause => {
                power::pause_idle(&one, lease).await;
                continue;
            }
        };
        next = Some(next.map_or(at, |next: u64| next.min(at)));
    }
    next
}
