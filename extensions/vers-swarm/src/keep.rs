//! The records in the extension's store.

use std::rc::Rc;

use pi_vers_sdk::Error;
use pi_vers_sdk::harness::{session, timers};
use pi_vers_sdk::show::{unwatched as warn, warning};
use pi_vers_sdk::system::store;

use crate::record::{PREFIX, Record};
use crate::worker::Worker;

/// Key of the owners' ids that the platform gave our VMs: of one account there are several users, and their VMs are listed, too.
const OWNERS: &str = "owners";
/// Age of a record of another session that nobody comes back for, in seconds.
const OLD: u64 = 30 * 86_400;
/// How many of them are remembered.
const MOST_OWNERS: usize = 16;

/// Writes down how an agent is. A record that cannot be written is said in the log: the VM's labels still find the agent.
pub(crate) async fn save(worker: &Rc<Worker>) {
    let gone = worker.saving.lock().await;
    // Not before it is somebody's: a spawn that is given up leaves nothing.
    if *gone || worker.is_spawning.get() {
        return;
    }
    let record = worker.record();
    let Ok(text) = serde_json::to_string(&record) else {
        return;
    };
    warn(
        "The state of an agent will not survive a restart",
        store::set(key(&record.vm), text).await,
    );
}

/// There is nothing to find again.
pub(crate) async fn forget(worker: &Rc<Worker>) {
    let mut gone = worker.saving.lock().await;
    *gone = true;
    if let Some(vm) = worker.vm() {
        warn(
            "The state of an agent was not deleted",
            store::delete(key(&vm)).await,
        );
    }
}

/// The record of the agent on this VM.
pub(crate) async fn of(vm: &str) -> Option<Record> {
    let text = store::get(key(vm)).await.ok()??;
    serde_json::from_str(&text).ok()
}

/// The records of this session's agents. Old ones of other sessions are deleted: labels still find such agents, and the store is
/// bounded.
///
/// # Errors
/// The store's.
pub(crate) async fn ours() -> Result<Vec<Record>, Error> {
    let session = session::id();
    let now = timers::now() / 1000;
    let mut records = Vec::new();
    for key in store::keys(PREFIX.into()).await? {
        let Some(text) = store::get(key.clone()).await? else {
            continue;
        };
        match serde_json::from_str::<Record>(&text) {
            Ok(record) if record.session == session && !record.vm.is_empty() => {
                records.push(record);
            }
            Ok(record) if now.saturating_sub(record.created) > OLD => {
                warn("An old record was not deleted", store::delete(key).await);
            }
            Ok(_) => {}
            Err(why) => warning(&format!("An unreadable record: {why}")),
        }
    }
    records.sort_by(|a, b| (a.created, &a.label).cmp(&(b.created, &b.label)));
    Ok(records)
}

/// Who our VMs have belonged to.
pub(crate) async fn owners() -> Vec<String> {
    let text = store::get(OWNERS.into()).await.ok().flatten();
    text.and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or_default()
}

/// Remembers who one of our VMs belongs to.
pub(crate) async fn add_owner(id: &str) {
    let mut known = owners().await;
    if id.is_empty() || known.iter().any(|known| known == id) {
        return;
    }
    known.push(id.to_owned());
    let from = known.len().saturating_sub(MOST_OWNERS);
    let text = serde_json::to_string(known.get(from..).unwrap_or_default()).unwrap_or_default();
    warn(
        "The account was not noted",
        store::set(OWNERS.into(), text).await,
    );
}

fn key(vm: &str) -> String {
    format!("{PREFIX}{vm}")
}
