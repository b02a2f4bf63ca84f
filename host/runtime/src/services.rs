//! What the capabilities of one session stand on: the front end, the platform, secrets, stores, the bus.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use pi_vers_policy::Digest;
use pi_vers_system::secrets::Secrets;
use pi_vers_system::store::Store;
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;
use vers_client::{Api, Fleet, Ssh};

use crate::audit::{Audit, Auditor};
use crate::bindings::vers::harness::types::Error as WitError;
use crate::budget::Budget;
use crate::harness::Harness;
use crate::stand_in::StandIn;
use crate::tape::Tape;
use crate::types::FlagValue;

/// Variables that every process started here gets, if the host has them: where things are and which
/// language they speak, nothing that changes what a program does.
const BASIC: [&str; 6] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ"];

/// The host's own key.
const API_KEY: &str = "VERS_API_KEY";

/// Variables that are secrets wherever they are set, held by this host or not.
pub(crate) const SECRET: [&str; 4] = [
    API_KEY,
    "VERS_AUTH_TOKEN",
    "LLM_PROXY_KEY",
    "ANTHROPIC_API_KEY",
];

/// Messages of the bus that wait for their subscribers.
const BUS_QUEUE: usize = 1024;

pub(crate) struct Services {
    pub(crate) harness: Arc<dyn Harness>,
    pub(crate) api: Api,
    pub(crate) ssh: Ssh,
    pub(crate) fleet: Fleet,
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) bus: Bus,
    /// Takes the world's place in a test.
    pub(crate) stand_in: Option<Arc<dyn StandIn>>,
    /// Records the session, or replays one.
    pub(crate) tape: Option<Tape>,
    audit: Option<Arc<dyn Audit>>,
    state: PathBuf,
    /// Where no extension writes.
    guarded: Arc<[PathBuf]>,
    /// The flags each extension declared, with their defaults.
    flags: HashMap<String, BTreeMap<String, FlagValue>>,
    tools: OnceLock<Vec<String>>,
    pub(crate) budget: Budget,
    /// VMs that are being made, and those that are being deleted: with the process they would be left as they are.
    pub(crate) vm_changes: TaskTracker,
    stores: Mutex<HashMap<Arc<str>, Store>>,
}

impl Services {
    pub(crate) fn new(
        harness: Arc<dyn Harness>,
        (api, ssh, fleet): (Api, Ssh, Fleet),
        (secrets, audit): (Arc<Secrets>, Option<Arc<dyn Audit>>),
        (state, guarded): (PathBuf, Arc<[PathBuf]>),
        flags: HashMap<String, BTreeMap<String, FlagValue>>,
    ) -> (Self, mpsc::Receiver<Message>) {
        let (bus, messages) = mpsc::channel(BUS_QUEUE);
        let services = Self {
            bus: Bus {
                queue: bus,
                harness: harness.clone(),
                queued: AtomicU64::new(0),
                heard: Arc::new(watch::Sender::new(0)),
            },
            harness,
            api,
            ssh,
            fleet,
            secrets,
            stand_in: None,
            tape: None,
            audit,
            state,
            guarded,
            flags,
            tools: OnceLock::new(),
            budget: Budget::default(),
            vm_changes: TaskTracker::new(),
            stores: Mutex::new(HashMap::new()),
        };
        (services, messages)
    }

    /// Who records what this extension does, if anybody does.
    pub(crate) fn auditor(&self, extension: Arc<str>, digest: Digest) -> Option<Arc<Auditor>> {
        let sink = self.audit.clone()?;
        let (secrets, harness) = (self.secrets.clone(), self.harness.clone());
        Some(Arc::new(Auditor::new(
            sink, secrets, harness, extension, digest,
        )))
    }

    /// Names of all tools of the session.
    pub(crate) fn all_tools(&self) -> Vec<String> {
        let mut all = self.tools.get().cloned().unwrap_or_default();
        all.extend(self.harness.other_tools());
        all.sort();
        all.dedup();
        all
    }

    pub(crate) fn set_tools(&self, names: Vec<String>) {
        let _ = self.tools.set(names);
    }

    /// The value of a flag that this extension declared: the user's, or the default.
    pub(crate) fn flag(&self, extension: &str, name: &str) -> Option<FlagValue> {
        let default = self.flags.get(extension)?.get(name)?;
        let given = self
            .harness
            .flag(name)
            .and_then(|value| coerce(value, default));
        Some(given.unwrap_or_else(|| default.clone()))
    }

    /// A guest's words as they may be shown: without the values of secrets, and with every control character visible.
    pub(crate) fn clean(&self, text: &str) -> String {
        crate::types::visible(&self.secrets.redact(text))
    }

    /// The same, cut to what a list has room for.
    pub(crate) fn clean_brief(&self, text: &str, most: usize) -> String {
        match text.char_indices().nth(most) {
            // Redacted before it is cut: half a secret is not found any more.
            Some(_) => self
                .clean(text)
                .chars()
                .take(most)
                .chain(['\u{2026}'])
                .collect(),
            None => self.clean(text),
        }
    }

    /// Whether this is the name of something nobody but its receiver may see: held now, or known to be a secret wherever it is set.
    pub(crate) fn is_secret(&self, name: &str) -> bool {
        SECRET.contains(&name) || self.secrets.get(name).is_some()
    }

    /// The value of a secret by its name.
    pub(crate) async fn secret(&self, name: &str) -> Result<String, WitError> {
        if name == API_KEY && self.secrets.get(name).is_some() {
            // A login in another process changes it: what is handed on is what the host itself would use now.
            if let Ok(key) = self.api.settings().api_key().await {
                self.secrets.insert(name, key.expose().to_owned());
            }
        }
        match self.secrets.get(name) {
            Some(secret) => Ok(secret.expose().to_owned()),
            None => Err(WitError::NotFound(format!(
                "the host holds no secret named {}",
                crate::types::visible(name)
            ))),
        }
    }

    /// The session's directory, absolute.
    pub(crate) fn directory(&self) -> PathBuf {
        let directory = self.harness.working_directory();
        std::path::absolute(&directory).unwrap_or(directory)
    }

    /// What no grant reaches.
    pub(crate) fn guarded(&self) -> Arc<[PathBuf]> {
        self.guarded.clone()
    }

    /// Where programs are looked up: the host's own `PATH`, absolute parts only.
    pub(crate) fn path(&self) -> Vec<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .filter(|part| part.is_absolute())
            .collect()
    }

    pub(crate) fn basic_environment(&self) -> Vec<(String, String)> {
        BASIC
            .iter()
            .filter_map(|name| {
                std::env::var(name)
                    .ok()
                    .map(|value| ((*name).to_owned(), value))
            })
            .collect()
    }

    /// The store of an extension, opened once.
    pub(crate) fn store(&self, extension: &Arc<str>, most: u64) -> Result<Store, WitError> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(extension) {
            return Ok(store.clone());
        }
        let store = Store::open(&self.state, extension, most)?;
        stores.insert(extension.clone(), store.clone());
        Ok(store)
    }
}

/// A flag's value in the type of its default: some harnesses pass numbers as texts.
fn coerce(value: FlagValue, default: &FlagValue) -> Option<FlagValue> {
    match (value, default) {
        (FlagValue::Text(text), FlagValue::Number(_)) => text
            .trim()
            .parse()
            .ok()
            .filter(|n: &f64| n.is_finite())
            .map(FlagValue::Number),
        (FlagValue::Text(text), FlagValue::Boolean(_)) => {
            text.trim().parse().ok().map(FlagValue::Boolean)
        }
        (value @ FlagValue::Number(_), FlagValue::Number(_))
        | (value @ FlagValue::Boolean(_), FlagValue::Boolean(_))
        | (value @ FlagValue::Text(_), FlagValue::Text(_)) => Some(value),
        _ => None,
    }
}

/// A message between extensions.
pub(crate) struct Message {
    /// None is the front end.
    pub(crate) from: Option<Arc<str>>,
    pub(crate) topic: String,
    pub(crate) data: Value,
}

/// The sending side of the bus.
pub(crate) struct Bus {
    queue: mpsc::Sender<Message>,
    harness: Arc<dyn Harness>,
    /// Messages that were queued, and how many of them all subscribers have heard.
    queued: AtomicU64,
    heard: Arc<watch::Sender<u64>>,
}

impl Bus {
    /// A message of an extension: to its subscribers and to the front end.
    pub(crate) fn emit(&self, from: &Arc<str>, topic: String, data: String) {
        match serde_json::from_str::<Value>(&data) {
            Ok(data) => {
                self.harness.bus(from, &topic, &data);
                self.put(Some(from.clone()), topic, data);
            }
            Err(why) => {
                tracing::warn!(
                    extension = &**from,
                    "a message on the bus is no JSON: {why}"
                );
            }
        }
    }

    /// A message for the subscribers alone.
    pub(crate) fn put(&self, from: Option<Arc<str>>, topic: String, data: Value) {
        let message = Message { from, topic, data };
        match self.queue.try_send(message) {
            Ok(()) => drop(self.queued.fetch_add(1, Ordering::Relaxed)),
            Err(why) => tracing::warn!("a message on the bus was dropped: {why}"),
        }
    }

    /// Waits until all that was said so far has been heard, but no longer than this.
    pub(crate) async fn settled(&self, limit: Duration) {
        let queued = self.queued.load(Ordering::Relaxed);
        let mut heard = self.heard.subscribe();
        // Who is slower than that is told later.
        let _ = tokio::time::timeout(limit, heard.wait_for(|heard| *heard >= queued)).await;
    }

    /// Counts a message that all have heard.
    pub(crate) fn heard(&self) -> Arc<watch::Sender<u64>> {
        self.heard.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_take_the_type_of_their_default() {
        let number = FlagValue::Number(120.0);
        assert_eq!(
            coerce(FlagValue::Text("30".into()), &number),
            Some(FlagValue::Number(30.0))
        );
        assert_eq!(coerce(FlagValue::Text("soon".into()), &number), None);
        assert_eq!(coerce(FlagValue::Text("NaN".into()), &number), None);
        assert_eq!(
            coerce(FlagValue::Text("true".into()), &FlagValue::Boolean(false)),
            Some(FlagValue::Boolean(true))
        );
    }
}
