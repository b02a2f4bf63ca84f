//! Plan first, change later.
//!
//! In plan mode the model looks around and writes a plan; what could change something is hidden from it and blocked. When it has a
//! plan, the user says how it goes on, and while the plan is carried out its steps are ticked off.
//!
//! * [`judge`]: which shell commands only read;
//! * [`tools`]: which tools do;
//! * [`todos`], [`messages`]: the plan in what the model says, and the conversation without what is no longer true;
//! * `mode`: entering, leaving, a session that goes on;
//! * `branch`: a throw-away copy of the active VM, where anything may run;
//! * `ask`: the question when the agent has come to its end;
//! * `events`: what the harness tells.
//!
//! Modules that are public know nothing of the contract and are tested on the machine itself.

pub mod judge;
pub mod messages;
pub mod todos;
pub mod tools;

mod ask;
mod branch;
mod events;
mod mode;
mod show;
mod state;

use pi_vers_sdk::declare::Declaration;
use pi_vers_sdk::show::notice;
use pi_vers_sdk::{Completion, Error, FlagValue, active_vm};

fn extension() -> Declaration {
    Declaration::new(
        "plan-mode",
        env!("CARGO_PKG_VERSION"),
        env!("CARGO_PKG_DESCRIPTION"),
    )
    .command(
        "plan",
        "Toggle plan mode (read-only exploration)",
        Some("[branch]"),
        mode::command,
    )
    .completed_by(async |prefix: String| {
        let branch = Completion {
            value: "branch".into(),
            label: "branch".into(),
            description: Some("on a throw-away branch of the active VM".into()),
        };
        let fits = "branch".starts_with(prefix.trim());
        fits.then_some(branch).into_iter().collect()
    })
    .command("todos", "Show current plan todo list", None, async |_| {
        show_todos()
    })
    .shortcut("ctrl+alt+p", "Toggle plan mode", "plan")
    .flag(
        "plan",
        "Start in plan mode (read-only exploration)",
        FlagValue::Boolean(false),
    )
    .flag(
        "plan-branch",
        "Plan on a throw-away branch of the active VM, where anything may run",
        FlagValue::Boolean(false),
    )
    .flag(
        "plan-tools",
        "Names of further tools that only read and may run in plan mode, separated by commas",
        FlagValue::Text(String::new()),
    )
    .start(mode::start)
    .stop(mode::stop)
    .events(
        &[
            "tool-call",
            "context",
            "before-agent-start",
            "turn-end",
            "agent-end",
        ],
        &[active_vm::TOPIC],
        events::handle,
    )
}

pi_vers_sdk::extension!(extension);

#[cfg(test)]
mod tests;

/// `/todos`
fn show_todos() -> Result<(), Error> {
    let lines: Vec<String> = state::get(|state| {
        let lines = state.todos.iter().enumerate();
        let mark = |done| if done { "✓" } else { "○" };
        lines
            .map(|(at, todo)| format!("{}. {} {}", at + 1, mark(todo.completed), todo.text))
            .collect()
    });
    let text = if lines.is_empty() {
        "No todos. Create a plan first with /plan".to_owned()
    } else {
        format!("Plan Progress:\n{}", lines.join("\n"))
    };
    notice(text);
    Ok(())
}
