//! The processes of the session, by the ids their users gave them.
//!
//! The table is bounded: where it is full, the process that ended first makes room. What is started and stopped under one id
//! takes turns, so that two calls at once never leave two processes of one name.

use std::cell::RefCell;
use std::rc::Rc;

use futures::future::join_all;
use pi_vers_sdk::turns::{Turn, Turns};

use crate::process::Process;

/// Most processes known at once, the ended ones too.
pub(crate) const MOST: usize = 64;

thread_local! {
    static PROCESSES: RefCell<Vec<Rc<Process>>> = const { RefCell::new(Vec::new()) };
    static TURNS: Turns = Turns::new();
}

/// Waits until no other call starts a process of this id. It is the caller's turn as long as it holds this.
pub(crate) async fn turn(id: &str) -> Turn {
    TURNS.with(|turns| turns.take(id)).await
}

/// The process of this id.
pub(crate) fn find(id: &str) -> Option<Rc<Process>> {
    PROCESSES.with_borrow(|all| {
        all.iter()
            .find(|process| process.facts.id == id)
            .map(Rc::clone)
    })
}

/// All of them, oldest first.
pub(crate) fn all() -> Vec<Rc<Process>> {
    PROCESSES.with_borrow(Clone::clone)
}

/// Whether there is room for one more of this id.
pub(crate) fn has_room_for(id: &str) -> bool {
    PROCESSES.with_borrow(|all| {
        all.len() < MOST
            || all
                .iter()
                .any(|process| process.facts.id == id || !process.is_alive())
    })
}

/// Adds a process, in the place of the one of its id. Returns who had to make room.
pub(crate) fn put(process: Rc<Process>) -> Vec<Rc<Process>> {
    PROCESSES.with_borrow_mut(|all| {
        let (mut gone, kept): (Vec<_>, Vec<_>) = std::mem::take(all)
            .into_iter()
            .partition(|known| known.facts.id == process.facts.id);
        *all = kept;
        if all.len() >= MOST
            && let Some(oldest) = all.iter().position(|known| !known.is_alive())
        {
            gone.push(all.remove(oldest));
        }
        all.push(process);
        gone
    })
}

/// Ends every process, side by side: the session ends.
pub(crate) async fn clear() {
    let all = PROCESSES.with_borrow_mut(std::mem::take);
    // What cannot be stopped so, the host stops when the instance goes.
    join_all(all.iter().map(|process| process.stop(None))).await;
}
