//! What the extension knows in one session, and what of it outlives the process.

use std::cell::RefCell;

use pi_vers_sdk::harness::session;
use pi_vers_sdk::{Error, FlagValue, args, outcome};
use serde::{Deserialize, Serialize};

use crate::todos::Todo;
use crate::tools;

/// The kind of the session's entries.
const ENTRY: &str = "plan-mode";

/// The state, as it is written into the session. The first three fields are those that users' sessions have already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// Whether the model plans.
    #[serde(default)]
    pub(crate) enabled: bool,
    #[serde(default)]
    pub(crate) todos: Vec<Todo>,
    /// Whether it carries the plan out.
    #[serde(default)]
    pub(crate) executing: bool,
    /// The tools that were active before it planned: these come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tools: Option<Vec<String>>,
    /// The throw-away branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) branch: Option<Branch>,
}

/// A throw-away branch of a VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Branch {
    /// Its id; none: it is wanted, but not there.
    pub(crate) vm: Option<String>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Looks at the state.
pub(crate) fn get<T>(look: impl FnOnce(&State) -> T) -> T {
    STATE.with_borrow(look)
}

/// Changes the state.
pub(crate) fn change<T>(change: impl FnOnce(&mut State) -> T) -> T {
    STATE.with_borrow_mut(change)
}

/// The throw-away branch that is there.
pub(crate) fn branch() -> Option<String> {
    get(|state| state.branch.as_ref()?.vm.clone())
}

/// Writes the state into the session.
pub(crate) async fn persist() {
    let entry = get(|state| serde_json::to_string(state).unwrap_or_default());
    if let Err(error) = session::append_entry(ENTRY.into(), entry).await {
        let why = outcome::explain(&error);
        warn(&format!(
            "Plan mode will not survive a restart of the session: {why}"
        ));
    }
}

/// The state that the session has recorded last.
pub(crate) async fn recorded() -> Option<State> {
    match session::entries(Some(ENTRY.into())).await {
        Ok(entries) => args::parse(entries.last()?).ok(),
        // The session is over before it has begun.
        Err(Error::Cancelled) => None,
        Err(error) => {
            warn(&format!(
                "Cannot read the state of plan mode: {}",
                outcome::explain(&error)
            ));
            None
        }
    }
}

pub(crate) use pi_vers_sdk::show::warning as warn;

/// Whether a flag is set.
pub(crate) fn flag(name: &str) -> bool {
    matches!(session::flag(name), Some(FlagValue::Boolean(true)))
}

/// The tools of which the user says that they only read.
pub(crate) fn more_readers() -> Vec<String> {
    match session::flag("plan-tools") {
        Some(FlagValue::Text(text)) => tools::names(&text),
        _ => Vec::new(),
    }
}
