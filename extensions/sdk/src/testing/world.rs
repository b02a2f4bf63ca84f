//! The world around the extension under test: what it asked for, what is denied to it, and the state of each fake.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::executor;
use super::{client, files, fleet, http, processes, session, shell, store, ui, vms};
use crate::Error;
use crate::bell::Bell;
use crate::harness::log::Level;

/// One request of the extension to its host.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The interface and its function, as in the contract: `vms.create`, `process.spawn`.
    pub what: String,
    /// The arguments by name, as far as they can be shown.
    pub with: Value,
}

#[derive(Default)]
pub(crate) struct World {
    pub(crate) asked: Vec<Asked>,
    denied: BTreeSet<String>,
    held: BTreeSet<String>,
    failures: BTreeMap<String, Vec<Error>>,
    pub(crate) patience: Option<u64>,
    pub(crate) log: Vec<(Level, String)>,
    pub(crate) told: Vec<(String, Value)>,
    pub(crate) vms: vms::Vms,
    pub(crate) shell: shell::Shell,
    pub(crate) fleet: fleet::Fleet,
    pub(crate) files: files::Files,
    pub(crate) processes: processes::Processes,
    pub(crate) http: http::Http,
    pub(crate) store: store::Store,
    pub(crate) ui: ui::Ui,
    pub(crate) session: session::Session,
    pub(crate) client: client::Client,
}

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
    static RELEASED: Bell = const { Bell::new() };
}

/// Looks at the world, or changes it. Never across an await.
pub(crate) fn world<T>(look: impl FnOnce(&mut World) -> T) -> T {
    WORLD.with_borrow_mut(look)
}

pub(crate) fn clear() {
    drop(WORLD.take());
}

/// Whether a rule such as `vms` or `vms.create` is about this function.
fn covers(rule: &str, what: &str) -> bool {
    rule == what
        || what
            .split_once('.')
            .is_some_and(|(interface, _)| rule == interface)
}

/// Notes a request and says whether it is granted.
pub(crate) fn ask(what: &str, with: Value) -> Result<(), Error> {
    world(|world| {
        world.asked.push(Asked {
            what: what.into(),
            with,
        });
        if world.denied.iter().any(|rule| covers(rule, what)) {
            return Err(Error::Denied(format!("{what} is denied by this test")));
        }
        let planned = world
            .failures
            .get_mut(what)
            .filter(|planned| !planned.is_empty());
        planned.map_or(Ok(()), |planned| Err(planned.remove(0)))
    })
}

/// The same for requests that take a while: others run meanwhile, and it ends with whoever asks.
pub(crate) async fn wait_for(what: &str, with: Value) -> Result<(), Error> {
    ask(what, with)?;
    executor::waiting(async {
        executor::yield_now().await;
        loop {
            let released = RELEASED.with(Bell::next);
            if !world(|world| world.held.iter().any(|rule| covers(rule, what))) {
                break;
            }
            released.await;
        }
    })
    .await
}

impl super::Kit {
    /// Denies an interface (`vms`) or one of its functions (`vms.create`), as a policy without the grant does. A request then fails
    /// with `Error::Denied`; functions that cannot fail are not affected.
    pub fn deny(&self, rule: &str) {
        world(|world| world.denied.insert(rule.into()));
    }

    /// Grants again what was denied.
    pub fn grant(&self, rule: &str) {
        world(|world| world.denied.remove(rule));
    }

    /// Lets the next request of this function fail with this. More than once: the next requests, in order.
    pub fn fail(&self, what: &str, error: Error) {
        world(|world| world.failures.entry(what.into()).or_default().push(error));
    }

    /// Lets requests of an interface or a function wait until [`Kit::release`](super::Kit::release).
    pub fn hold(&self, rule: &str) {
        world(|world| world.held.insert(rule.into()));
    }

    /// Lets requests go on that were held, and runs until all wait again.
    pub fn release(&self, rule: &str) {
        world(|world| world.held.remove(rule));
        RELEASED.with(Bell::ring);
        self.settle();
    }

    /// The requests of an interface or a function so far, oldest first.
    #[must_use]
    pub fn asked(&self, rule: &str) -> Vec<Asked> {
        world(|world| {
            let all = world.asked.iter().filter(|asked| covers(rule, &asked.what));
            all.cloned().collect()
        })
    }

    /// Forgets the requests so far.
    pub fn forget_asked(&self) {
        world(|world| world.asked.clear());
    }

    /// What the extension has logged.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        world(|world| world.log.iter().map(|(_, line)| line.clone()).collect())
    }

    /// What the extension has said on the bus: topics and messages.
    #[must_use]
    pub fn told(&self) -> Vec<(String, Value)> {
        world(|world| world.told.clone())
    }
}
