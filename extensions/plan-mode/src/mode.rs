//! Entering and leaving plan mode, and the start of a session.

use pi_vers_sdk::harness::session;
use pi_vers_sdk::harness::ui::{self, Severity};
use pi_vers_sdk::{Error, Reason, outcome, task};

use crate::state::{self, Branch, State, change, get, warn};
use crate::{ask, branch, show, tools};

/// `/plan`, `/plan branch`.
pub(crate) async fn command(arguments: String) -> Result<(), Error> {
    match arguments.trim() {
        "" if get(|state| state.enabled) => leave_by_hand().await,
        "" => enter(state::flag("plan-branch")).await,
        "branch" => enter(true).await,
        other => {
            return Err(Error::Invalid(format!(
                "`/plan {other}` is not known: `/plan` switches plan mode on and off, `/plan branch` plans on a throw-away branch of the active VM"
            )));
        }
    }
    Ok(())
}

/// Switches plan mode on; with `on_branch`, also makes the branch, if there is none yet.
async fn enter(on_branch: bool) {
    ask::dismiss();
    let new = change(|state| {
        let new = !state.enabled;
        if new {
            state.enabled = true;
            state.executing = false;
            state.todos.clear();
        }
        if on_branch && state.branch.is_none() {
            state.branch = Some(Branch { vm: None });
        }
        new
    });
    if new {
        hide().await;
    }
    if new && !on_branch {
        let offered = session::active_tools().join(", ");
        ui::notify(
            &format!("Plan mode enabled. Tools: {offered}"),
            Severity::Info,
        );
    }
    state::persist().await;
    show::show();
    if on_branch {
        branch::begin().await;
    }
}

async fn leave_by_hand() {
    leave(false).await;
    ui::notify("Plan mode disabled. Full access restored.", Severity::Info);
}

/// Switches plan mode off. `executing`: the plan's steps stay, to be worked on.
pub(crate) async fn leave(executing: bool) {
    ask::dismiss();
    change(|state| {
        state.enabled = false;
        state.executing = executing && !state.todos.is_empty();
        if !executing {
            state.todos.clear();
        }
    });
    // Before anything else can run: it shall not run on a VM that is about to go.
    branch::end().await;
    unhide().await;
    state::persist().await;
    show::show();
}

/// Takes from the model the tools that it may not use. What it has now is remembered, unless that was before.
pub(crate) async fn hide() {
    let active = session::active_tools();
    let before = change(|state| state.tools.get_or_insert(active).clone());
    let offered = tools::offered(
        &session::all_tools(),
        &before,
        &state::more_readers(),
        state::branch().is_some(),
    );
    set(offered).await;
}

/// Gives back exactly the tools that were active before.
async fn unhide() {
    let Some(before) = change(|state| state.tools.take()) else {
        return;
    };
    // One that is gone meanwhile would make the harness refuse all of them.
    let all = session::all_tools();
    set(before
        .into_iter()
        .filter(|tool| all.contains(tool))
        .collect())
    .await;
}

async fn set(names: Vec<String>) {
    match session::set_active_tools(names).await {
        // Harnesses that cannot choose offer all of them, and what may not be used is blocked.
        Ok(()) | Err(Error::Unavailable(_)) => {}
        Err(error) => warn(&format!(
            "The offered tools are unchanged: {}",
            outcome::explain(&error)
        )),
    }
}

/// The session starts, or another one is opened in the same instance. Safe to run more than once.
pub(crate) async fn start(_reason: Reason) -> Result<(), Error> {
    ask::begin();
    ask::dismiss();
    let recorded = state::recorded().await;
    let known = recorded.is_some();
    let mut new = recorded.unwrap_or_else(|| State {
        enabled: state::flag("plan"),
        branch: state::flag("plan-branch").then_some(Branch { vm: None }),
        ..State::default()
    });
    let old = get(Clone::clone);
    let live = old.branch.and_then(|branch| branch.vm);
    let stale = new.branch.as_mut().and_then(|branch| branch.vm.take());
    if !new.enabled {
        new.branch = None;
    }
    // The same session once more.
    let same = stale.is_some() && stale == live;
    if same && let Some(branch) = &mut new.branch {
        branch.vm.clone_from(&live);
    }
    let wants_branch = new
        .branch
        .as_ref()
        .is_some_and(|branch| branch.vm.is_none());
    // What is hidden now belongs to the session that was.
    new.tools = new.tools.or(old.tools);
    let enabled = new.enabled;
    change(|state| *state = new);
    if enabled {
        hide().await;
    } else {
        unhide().await;
    }
    show::show();
    if enabled && !known {
        state::persist().await;
    }
    // Not here: making a VM takes its time, and other extensions may still be starting.
    task::spawn(async move {
        // A stale one was left behind when the session, or this extension alone, was torn down.
        if !same && let Some(old) = live.or(stale) {
            branch::discard(&old).await;
        }
        if wants_branch {
            branch::begin().await;
        }
    });
    Ok(())
}

/// The session ends: nothing of it stays behind.
pub(crate) async fn stop() {
    if let Some(vm) = state::branch() {
        branch::delete(&vm).await;
    }
}
