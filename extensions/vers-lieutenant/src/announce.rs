//! The end of a run: kept, then told to the session and the bus.
//!
//! The order makes that nothing is lost and nothing told twice: what was said is kept, then the record says that there is a
//! run to be told of (and whoever was taken over learns it here, before a word is said), then it is told, then the record says so.
//! Only a machine that dies between the last two tells a run twice.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;

use futures::future::{Either, select};
use pi_vers_sdk::agent::{Bookmark, Outcome, Run};
use pi_vers_sdk::harness::session::{self, Delivery};
use pi_vers_sdk::harness::{bus, timers};
use pi_vers_sdk::show::message;
use pi_vers_sdk::{CustomMessage, background};
use serde_json::json;

use crate::history::{MOST, Past};
use crate::keep::{self, Kept, warn};
use crate::record::Phase;
use crate::table::Lieutenant;
use crate::words::announcement;
use crate::{panel, start};

/// The topic of the bus, and the kind of the message.
pub(crate) const COMPLETED: &str = "vers:lt_completed";

/// A run has ended. False when the lieutenant is another's by now.
pub(crate) async fn ended(lieutenant: &Rc<Lieutenant>, run: &Run) -> bool {
    let past = Past::of(run, timers::now());
    lieutenant.said(run.text.clone());
    keep_and_tell(lieutenant, past, Some(run.bookmark.clone())).await
}

/// What it had to do comes to nothing, for this reason.
pub(crate) async fn broke_off(lieutenant: &Rc<Lieutenant>, why: String) -> bool {
    let past = Past {
        outcome: Outcome::Failed(why),
        text: String::new(),
        left_out: 0,
        at: timers::now(),
    };
    lieutenant.said(String::new());
    keep_and_tell(lieutenant, past, None).await
}

async fn keep_and_tell(lieutenant: &Rc<Lieutenant>, past: Past, at: Option<Bookmark>) -> bool {
    let number = lieutenant.record().runs + 1;
    keep::keep_run(&lieutenant.name, number, &past).await;
    lieutenant.news.insert(number, past);
    lieutenant.lives();
    lieutenant.change(|record| {
        record.runs = number;
        record.untold.push(number);
        record.busy = false;
        if at.is_some() {
            record.bookmark = at;
            record.phase = Phase::Idle;
            record.problem = None;
        }
    });
    if keep::save(lieutenant).await == Kept::TakenOver {
        return false;
    }
    tell(lieutenant);
    true
}

/// What is to be told of a lieutenant's runs.
#[derive(Default)]
pub(crate) struct Untold {
    /// Runs of this session.
    runs: RefCell<BTreeMap<u64, Past>>,
    /// Up to here the bus has heard of them.
    heard: Cell<u64>,
    /// Somebody tells.
    busy: Cell<bool>,
}

impl Untold {
    fn insert(&self, number: u64, past: Past) {
        let mut runs = self.runs.borrow_mut();
        runs.insert(number, past);
        if runs.len() as u64 > MOST {
            runs.pop_first();
        }
    }
}

/// Tells in the background, in order, of what has not been told: a harness that takes its time holds nobody up.
pub(crate) fn tell(lieutenant: &Rc<Lieutenant>) {
    if lieutenant.record().untold.is_empty() || lieutenant.news.busy.replace(true) {
        return;
    }
    let lieutenant = lieutenant.clone();
    background::spawn(async move {
        while let Some(number) = lieutenant.record().untold.first().copied() {
            // A session that ends leaves it to the next one.
            if lieutenant.held().is_some()
                || start::is_stopping()
                || !tell_of(&lieutenant, number).await
            {
                break;
            }
            lieutenant.news.runs.borrow_mut().remove(&number);
            lieutenant.change(|record| record.untold.retain(|one| *one != number));
            if keep::save(&lieutenant).await == Kept::TakenOver {
                break;
            }
        }
        lieutenant.news.busy.set(false);
        lieutenant.change(|_| ());
    });
}

/// Waits until what is being told has been told, and written down: at most this many milliseconds.
pub(crate) async fn told(lieutenant: &Lieutenant, patience: u64) {
    let mut late = pin!(timers::sleep(patience));
    loop {
        let changed = lieutenant.changed();
        if !lieutenant.news.busy.get() {
            return;
        }
        if let Either::Right(_) = select(changed, late.as_mut()).await {
            return;
        }
    }
}

/// Tells of one run. False when that is left to the next session.
async fn tell_of(lieutenant: &Rc<Lieutenant>, number: u64) -> bool {
    let own = lieutenant.news.runs.borrow().get(&number).cloned();
    let late = own.is_none();
    let past = match own {
        Some(past) => past,
        None => match keep::run(&lieutenant.name, number).await {
            Ok(Some(past)) => past,
            // It is not kept any more: there is nothing to tell.
            Ok(None) => return true,
            Err(error) => {
                warn(
                    &format!("What {} said cannot be read", lieutenant.name),
                    &error,
                );
                return false;
            }
        },
    };
    let record = lieutenant.record();
    let (name, summary) = (&record.name, past.summary());
    let error = past.is_error();
    let status = lieutenant.phase().word();
    let mut facts = json!({
        "name": name,
        "role": record.role,
        "status": status,
        "summary": summary,
        "taskCount": record.tasks,
        "timestamp": past.at,
        "error": error,
    });
    if let (Some(reason), Some(facts)) = (past.reason(), facts.as_object_mut()) {
        facts.insert("reason".into(), reason.into());
    }
    if lieutenant.news.heard.get() < number {
        lieutenant.news.heard.set(number);
        bus::emit(COMPLETED, &facts.to_string());
    }
    let content = announcement(name, &past, late);
    let word = if error { "failed" } else { "completed" };
    let heading = format!("Lieutenant \"{name}\" {word}");
    if let Some(facts) = facts.as_object_mut() {
        facts.insert("lieutenant".into(), name.as_str().into());
        facts.insert("vmId".into(), record.place().into());
        facts.insert("run".into(), number.into());
        facts.insert("lines".into(), panel::message(&heading, error, &content));
    }
    let message = CustomMessage {
        details: Some(facts.to_string()),
        ..message(COMPLETED, content)
    };
    match session::send_message(message, Delivery::FollowUp, true).await {
        Ok(()) => true,
        Err(error) => {
            warn(&format!("The session cannot be told of {name}"), &error);
            false
        }
    }
}
