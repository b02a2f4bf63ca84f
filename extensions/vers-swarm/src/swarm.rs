//! The agents of the session.
//!
//! All of it is one list. A label in it is taken from the moment it is chosen, before anything is made, so that two spawns at once
//! never choose the same. Whoever waits for something waits for the next change of the list, never for a while.

use std::cell::RefCell;
use std::rc::Rc;

use pi_vers_sdk::bell::{Bell, Ring};

use crate::names;
use crate::widget;
use crate::words::View;
use crate::worker::Worker;

thread_local! {
    static WORKERS: RefCell<Vec<Rc<Worker>>> = const { RefCell::new(Vec::new()) };
    static CHANGE: Bell = const { Bell::new() };
}

/// All of them, oldest first.
pub(crate) fn all() -> Vec<Rc<Worker>> {
    WORKERS.with_borrow(Clone::clone)
}

/// All of them as they are shown.
pub(crate) fn views() -> Vec<View> {
    all().iter().map(|worker| worker.view()).collect()
}

fn labels() -> Vec<String> {
    WORKERS.with_borrow(|all| all.iter().map(|worker| worker.label.clone()).collect())
}

/// The agent of this label.
///
/// # Errors
/// There is none, and which there are.
pub(crate) fn find(label: &str) -> Result<Rc<Worker>, String> {
    let found = WORKERS.with_borrow(|all| all.iter().find(|worker| worker.label == label).cloned());
    found.ok_or_else(|| {
        let labels = labels();
        let available = if labels.is_empty() {
            "none".to_owned()
        } else {
            labels.join(", ")
        };
        format!("Agent '{label}' not found. Available: {available}")
    })
}

/// The agent on this VM.
pub(crate) fn on(vm: &str) -> Option<Rc<Worker>> {
    WORKERS.with_borrow(|all| {
        all.iter()
            .find(|worker| worker.vm().as_deref() == Some(vm))
            .cloned()
    })
}

/// Takes labels for new agents, which are `starting` from now on.
///
/// # Errors
/// Why these labels cannot be had.
pub(crate) fn reserve(count: usize, given: &[String]) -> Result<Vec<Rc<Worker>>, String> {
    let labels = names::choose(count, given, &labels())?;
    let new: Vec<Rc<Worker>> = labels.into_iter().map(Worker::spawning).collect();
    WORKERS.with_borrow_mut(|all| all.extend(new.iter().cloned()));
    changed();
    Ok(new)
}

/// A label for an agent that was found: its own, or one like it.
pub(crate) fn free(label: &str) -> String {
    names::like(label, &labels())
}

/// Adds an agent that was found.
pub(crate) fn add(worker: Rc<Worker>) {
    WORKERS.with_borrow_mut(|all| all.push(worker));
    changed();
}

/// Whether the agent is in the list.
pub(crate) fn has(worker: &Rc<Worker>) -> bool {
    WORKERS.with_borrow(|all| all.iter().any(|known| Rc::ptr_eq(known, worker)))
}

/// Takes an agent out.
pub(crate) fn remove(worker: &Rc<Worker>) {
    WORKERS.with_borrow_mut(|all| all.retain(|known| !Rc::ptr_eq(known, worker)));
    changed();
}

/// Something changed: whoever waits looks again, and the user sees it.
pub(crate) fn changed() {
    CHANGE.with(Bell::ring);
    let rows: Vec<_> = all().iter().map(|worker| worker.row()).collect();
    widget::show(&rows);
}

/// Resolves at the next change.
pub(crate) fn next_change() -> Ring {
    CHANGE.with(Bell::next)
}
