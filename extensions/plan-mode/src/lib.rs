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
mod describe;
mod events;
mod mode;
mod show;
mod state;

use pi_vers_sdk::harness::ui::{self, Severity};
use pi_vers_sdk::{
    Answer, Completion, Error, Event, Extension, ExtensionInfo, Reason, ToolCall, ToolError,
    ToolResult,
};

/// The extension.
struct PlanMode;

impl Extension for PlanMode {
    fn describe() -> ExtensionInfo {
        describe::describe()
    }

    async fn run(call: ToolCall) -> Result<ToolResult, ToolError> {
        Err(ToolError::Capability(Error::NotFound(format!(
            "There is no tool {}.",
            call.tool()
        ))))
    }

    async fn start(reason: Reason) -> Result<(), Error> {
        mode::start(reason).await;
        Ok(())
    }

    async fn stop() {
        mode::stop().await;
    }

    async fn command(name: String, arguments: String) -> Result<(), Error> {
        match name.as_str() {
            "plan" => mode::command(&arguments).await,
            "todos" => {
                show_todos();
                Ok(())
            }
            name => Err(Error::NotFound(format!("There is no command {name}."))),
        }
    }

    async fn complete(name: String, prefix: String) -> Vec<Completion> {
        let fits = name == "plan" && "branch".starts_with(prefix.trim());
        let branch = Completion {
            value: "branch".into(),
            label: "branch".into(),
            description: Some("on a throw-away branch of the active VM".into()),
        };
        fits.then_some(branch).into_iter().collect()
    }

    async fn handle(event: Event) -> Answer {
        events::handle(event).await
    }
}

/// `/todos`
fn show_todos() {
    let lines: Vec<String> = state::get(|state| {
        let lines = state.todos.iter().enumerate();
        let mark = |done| if done { "✓" } else { "○" };
        lines
            .map(|(at, todo)| format!("{}. {} {}", at + 1, mark(todo.completed), todo.text))
            .collect()
    });
    let text = if lines.is_empty() {
        "No todos. Create a plan first with /plan".into()
    } else {
        format!("Plan Progress:\n{}", lines.join("\n"))
    };
    ui::notify(&text, Severity::Info);
}

pi_vers_sdk::export!(PlanMode);
