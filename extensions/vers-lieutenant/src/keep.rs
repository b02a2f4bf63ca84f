//! What is kept in the store: records, what was said, and the lease of this instance.
//!
//! A store that cannot be written must not stop anybody from working with a lieutenant: it is logged, and the next change is
//! another attempt. Only being taken over ends a term.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::rc::Rc;

use pi_vers_sdk::harness::log::{self, Level};
use pi_vers_sdk::harness::{session, timers};
use pi_vers_sdk::system::store;
use pi_vers_sdk::{Error, background};

use crate::history::{self, Past};
use crate::lease::{self, Claim, Instance, Lease, claim};
use crate::record::{self, Record};
use crate::table::{self, Lieutenant};

thread_local! {
    static ME: RefCell<Option<Instance>> = const { RefCell::new(None) };
    static RENEWED: Cell<u64> = const { Cell::new(0) };
}

/// This instance.
pub(crate) fn me() -> Instance {
    ME.with_borrow_mut(|me| {
        me.get_or_insert_with(|| {
            let session = session::id();
            let name = format!(
                "{session}#{:x}.{:x}",
                timers::now(),
                RandomState::new().hash_one(timers::ticks())
            );
            Instance { session, name }
        })
        .clone()
    })
}

pub(crate) use pi_vers_sdk::show::failure as warn;

/// How writing a record went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It is in the store, or that is tried again with the next change.
    Yes,
    /// Somebody else looks after it now: this session has let go of it.
    TakenOver,
}

/// Writes its record, as it is now, as its owner; `release`: as nobody's.
async fn write(lieutenant: &Rc<Lieutenant>, release: bool) -> Kept {
    let _turn = lieutenant.writing.lock().await;
    let key = Record::key(&lieutenant.name);
    let me = me().name;
    // Once more than the store can have been changed by a write of ours whose answer was not heard.
    for _ in 0..3 {
        if lieutenant.held().is_some() {
            return Kept::TakenOver;
        }
        let mut record = lieutenant.record();
        record.owner = (!release).then(|| me.clone());
        let Ok(new) = serde_json::to_string(&record) else {
            return Kept::Yes;
        };
        let old = lieutenant.stored.borrow().clone();
        if old.as_ref() == Some(&new) {
            return Kept::Yes;
        }
        match store::swap(key.clone(), old, Some(new.clone())).await {
            Ok(true) => {
                *lieutenant.stored.borrow_mut() = Some(new);
                return Kept::Yes;
            }
            Ok(false) => match current(&key).await {
                // A write of ours came through although we were told otherwise.
                Ok(found) if owner(found.as_deref()).as_ref() == Some(&me) => {
                    *lieutenant.stored.borrow_mut() = found;
                }
                Ok(found) => {
                    *lieutenant.stored.borrow_mut() = found.clone();
                    taken_over(lieutenant, found);
                    return Kept::TakenOver;
                }
                Err(error) => {
                    warn(
                        &format!("The record of {} cannot be read", lieutenant.name),
                        &error,
                    );
                    return Kept::Yes;
                }
            },
            Err(error) => {
                warn(
                    &format!("The record of {} cannot be written", lieutenant.name),
                    &error,
                );
                return Kept::Yes;
            }
        }
    }
    Kept::Yes
}

async fn current(key: &str) -> Result<Option<String>, Error> {
    store::get(key.into()).await
}

fn owner(record: Option<&str>) -> Option<String> {
    serde_json::from_str::<Record>(record?).ok()?.owner
}

/// Its record is another's: this session lets go of it, or knows it no more if it was destroyed there.
fn taken_over(lieutenant: &Rc<Lieutenant>, found: Option<String>) {
    match found.and_then(|text| serde_json::from_str::<Record>(&text).ok()) {
        Some(record) => {
            lieutenant.yield_to(timers::now() + lease::LENGTH);
            lieutenant.change(|mine| *mine = record);
        }
        None => {
            drop(lieutenant.end_term());
            table::remove(lieutenant);
        }
    }
}

/// Writes its record now.
pub(crate) async fn save(lieutenant: &Rc<Lieutenant>) -> Kept {
    write(lieutenant, false).await
}

/// Writes its record soon: for calls, which may be given up.
pub(crate) fn save_soon(lieutenant: &Rc<Lieutenant>) {
    let lieutenant = lieutenant.clone();
    background::spawn(async move {
        save(&lieutenant).await;
    });
}

/// Writes its record as nobody's: the session ends.
pub(crate) async fn release(lieutenant: &Rc<Lieutenant>) {
    write(lieutenant, true).await;
}

/// Takes a name in the store for a lieutenant that is about to be made.
///
/// # Errors
/// The store's; `Error::Conflict` when there is one.
pub(crate) async fn claim_name(record: &Record) -> Result<String, Error> {
    let text = serde_json::to_string(record).map_err(|why| Error::Other(why.to_string()))?;
    match store::swap(Record::key(&record.name), None, Some(text.clone())).await? {
        true => Ok(text),
        false => Err(Error::Conflict(String::new())),
    }
}

/// Forgets a lieutenant with all it said.
///
/// # Errors
/// The store's.
pub(crate) async fn forget(name: &str) -> Result<(), Error> {
    for key in store::keys(history::prefix(name)).await? {
        store::delete(key).await?;
    }
    store::delete(Record::key(name)).await
}

/// Keeps what was said in a run.
pub(crate) async fn keep_run(name: &str, number: u64, past: &Past) {
    let Ok(text) = serde_json::to_string(past) else {
        return;
    };
    if let Some(old) = history::dropped(number) {
        let _ = store::delete(history::key(name, old)).await;
    }
    let mut kept = store::set(history::key(name, number), text.clone()).await;
    if matches!(kept, Err(Error::Limit(_))) {
        // The newest is worth more than what is old.
        for old in history::kept(number).take(10) {
            let _ = store::delete(history::key(name, old)).await;
        }
        kept = store::set(history::key(name, number), text).await;
    }
    if let Err(error) = kept {
        warn(&format!("What {name} said cannot be kept"), &error);
    }
}

/// What was said in a run, if it is kept.
///
/// # Errors
/// The store's.
pub(crate) async fn run(name: &str, number: u64) -> Result<Option<Past>, Error> {
    let text = store::get(history::key(name, number)).await?;
    Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
}

/// Says that this instance is alive.
///
/// # Errors
/// The store's.
pub(crate) async fn renew() -> Result<(), Error> {
    let me = me();
    let now = timers::now();
    let lease = Lease {
        session: me.session,
        until: now + lease::LENGTH,
    };
    let text = serde_json::to_string(&lease).map_err(|why| Error::Other(why.to_string()))?;
    store::set(Instance::key(&me.name), text).await?;
    RENEWED.set(now);
    Ok(())
}

/// When to say so again.
pub(crate) fn renewal() -> u64 {
    RENEWED.get() + lease::RENEWAL
}

/// Looks whether it is still this session that looks after it, as after a machine that slept.
pub(crate) async fn check(lieutenant: &Rc<Lieutenant>) {
    let _turn = lieutenant.writing.lock().await;
    if lieutenant.held().is_some() {
        return;
    }
    match current(&Record::key(&lieutenant.name)).await {
        Ok(found) if owner(found.as_deref()).as_deref() == Some(me().name.as_str()) => {}
        Ok(found) => {
            *lieutenant.stored.borrow_mut() = found.clone();
            taken_over(lieutenant, found);
        }
        Err(error) => warn(
            &format!("The record of {} cannot be read", lieutenant.name),
            &error,
        ),
    }
}

/// Says that this instance is no more.
pub(crate) async fn resign() {
    if let Err(error) = store::delete(Instance::key(&me().name)).await {
        warn("The lease cannot be given back", &error);
    }
}

/// A record of the store, and whose it is.
pub(crate) struct Found {
    pub(crate) record: Record,
    /// As the store has it.
    pub(crate) text: String,
    pub(crate) claim: Claim,
}

/// All records, with whose they are. Leases that have run out long ago are removed.
///
/// # Errors
/// The store's.
pub(crate) async fn look() -> Result<Vec<Found>, Error> {
    let now = timers::now();
    let me = me();
    let mut leases = HashMap::new();
    let mut found = Vec::new();
    for key in store::keys(record::PREFIX.into()).await? {
        let Some(text) = store::get(key.clone()).await? else {
            continue;
        };
        match serde_json::from_str::<Record>(&text) {
            Ok(record) => found.push((record, text)),
            Err(why) => log::write(Level::Error, &format!("The record {key} is damaged: {why}")),
        }
    }
    if found.is_empty() {
        return Ok(Vec::new());
    }
    for key in store::keys(lease::PREFIX.into()).await? {
        let text = store::get(key.clone()).await?;
        let lease = text.and_then(|text| serde_json::from_str::<Lease>(&text).ok());
        let name = key.trim_start_matches(lease::PREFIX).to_owned();
        match lease {
            Some(lease) if lease.until + 10 * lease::LENGTH > now => {
                leases.insert(name, lease);
            }
            _ => store::delete(key).await?,
        }
    }
    let found = found.into_iter().map(|(record, text)| {
        let lease = record.owner.as_ref().and_then(|owner| leases.get(owner));
        Found {
            claim: claim(&record, lease, &me, now),
            record,
            text,
        }
    });
    Ok(found.collect())
}
