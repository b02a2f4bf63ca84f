//! The status line and the list of steps.

use pi_vers_sdk::harness::types::{Role, Span};
use pi_vers_sdk::harness::ui;
use pi_vers_sdk::show::span;

use crate::state::{branch, get};

const STATUS: &str = "plan-mode";
const WIDGET: &str = "plan-todos";

/// Shows how things are.
pub(crate) fn show() {
    let (status, widget) = get(|state| {
        if state.executing && !state.todos.is_empty() {
            let done = state.todos.iter().filter(|todo| todo.completed).count();
            let status = span(format!("📋 {done}/{}", state.todos.len()), Role::Accent);
            let lines = state.todos.iter().map(|todo| {
                if todo.completed {
                    let text = Span {
                        strikethrough: true,
                        ..span(&todo.text, Role::Muted)
                    };
                    vec![span("☑ ", Role::Success), text]
                } else {
                    vec![span("☐ ", Role::Muted), span(&todo.text, Role::Normal)]
                }
            });
            return (Some(vec![status]), Some(lines.collect::<Vec<_>>()));
        }
        let text = if branch().is_some() {
            "⏸ plan (branch)"
        } else {
            "⏸ plan"
        };
        (state.enabled.then(|| vec![span(text, Role::Warning)]), None)
    });
    ui::set_status(STATUS, status.as_deref());
    ui::set_widget(WIDGET, widget.as_deref());
}
