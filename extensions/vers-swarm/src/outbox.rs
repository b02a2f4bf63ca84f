//! What agents say while they work: the lines of a file on their VM.
//!
//! Each line is a message of the bus, and some are a message of the conversation, see [`crate::mail`]. A worker that writes without end
//! is read slowly: its file is what it fills, nothing here.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use pi_vers_sdk::background;
use pi_vers_sdk::harness::session::{self, Delivery};
use pi_vers_sdk::harness::types::CustomMessage;
use pi_vers_sdk::harness::{bus, timers};
use pi_vers_sdk::platform::shell::{self, Followed, Position};
use pi_vers_sdk::printable::Printable;
use pi_vers_sdk::show::{self, unwatched as warn};
use pi_vers_sdk::system::files::{self, Location};
use serde_json::json;

use crate::bound::first;
use crate::keep;
use crate::mail::{Mail, Note};
use crate::worker::Worker;

/// Where agents write.
pub(crate) const PATH: &str = "/root/.swarm/outbox";
/// The topic of the bus, and the kind of the conversation's messages.
pub(crate) const TOPIC: &str = "vers:swarm_message";
/// Characters of a line on the bus.
const LONGEST: usize = 4_000;
/// Lines that are taken at once before the reader slows down.
const BURST: u64 = 20;
/// From one line to the next after that, in milliseconds.
const PACE: u64 = 500;

thread_local! {
    static MAIL: RefCell<Mail> = RefCell::default();
    static SENDING: Cell<bool> = const { Cell::new(false) };
}

/// Where the outbox of a new VM begins: what an image has brought along is nobody's message.
pub(crate) async fn beginning(vm: &str) -> u64 {
    match files::stat(Location::Vm((vm.to_owned(), PATH.into()))).await {
        Ok(found) => found.size,
        // There is none yet; or it cannot be looked at, and then it cannot be followed either.
        Err(_) => 0,
    }
}

/// Takes in what an agent writes, until this is dropped or its VM is out of reach.
pub(crate) async fn listen(worker: Rc<Worker>) {
    let Some(vm) = worker.vm() else { return };
    let from = worker.note(|record| record.outbox);
    let (mut lines, done) = shell::follow(&vm, PATH, Position::Offset(from));
    let (mut tokens, mut since) = (BURST, timers::ticks());
    while let Some(told) = lines.next().await {
        let next = match told {
            Followed::Line(line) => {
                hear(&worker, &vm, &line.text);
                line.next
            }
            Followed::Replaced | Followed::Truncated => 0,
        };
        worker.note(|record| record.outbox = next);
        keep::save(&worker).await;
        let earned = timers::ticks().saturating_sub(since) / PACE;
        tokens = (tokens + earned).min(BURST);
        since += earned * PACE;
        match tokens.checked_sub(1) {
            Some(left) => tokens = left,
            None => {
                if timers::sleep(PACE).await.is_err() {
                    return;
                }
            }
        }
    }
    warn(
        &format!("The messages of {} are not heard any more", worker.label),
        done.await,
    );
}

fn hear(worker: &Worker, vm: &str, line: &str) {
    let mut text = String::new();
    let mut printable = Printable::default();
    printable.push(line, &mut text);
    printable.finish(&mut text);
    let text = first(text.trim(), LONGEST, "…");
    if text.is_empty() {
        return;
    }
    let message = json!({ "agentId": worker.label, "vmId": vm, "message": text });
    bus::emit(TOPIC, &message.to_string());
    MAIL.with_borrow_mut(|mail| mail.put(&worker.label, &text));
    if !SENDING.replace(true) {
        background::spawn(send());
    }
}

/// Sends what waits, and what comes meanwhile.
async fn send() {
    while let Some(due) = MAIL.with_borrow(|mail| mail.due(timers::ticks())) {
        if timers::sleep(due).await.is_err() {
            break;
        }
        let Some((text, notes)) = MAIL.with_borrow_mut(|mail| mail.take(timers::ticks())) else {
            break;
        };
        warn(
            "A message of agents did not reach the conversation",
            session::send_message(message(text, &notes), Delivery::FollowUp, true).await,
        );
    }
    SENDING.set(false);
}

fn message(text: String, notes: &[Note]) -> CustomMessage {
    let messages: Vec<_> = notes
        .iter()
        .map(|note| json!({ "agentId": note.from, "message": note.text }))
        .collect();
    CustomMessage {
        details: Some(json!({ "messages": messages }).to_string()),
        ..show::message(TOPIC, text)
    }
}
