//! The widget, and messages as users see them.

use pi_vers_sdk::harness::types::{Role, Span};
use pi_vers_sdk::show::span;
use serde_json::{Value, json};

use crate::record::Phase;
use crate::words::{View, first, one_line, status};

/// The widget's key.
pub const WIDGET: &str = "vers-lt";
/// Most lieutenants in the widget; more are counted.
const MOST: usize = 12;

fn look(phase: Phase) -> Role {
    match phase {
        Phase::Working => Role::Accent,
        Phase::Idle => Role::Success,
        Phase::Error | Phase::Gone => Role::Error,
        Phase::Unreachable => Role::Warning,
        Phase::Starting | Phase::Connecting | Phase::Paused | Phase::Doomed => Role::Muted,
    }
}

/// The widget's lines; none where there is nobody. A view's `activity` is a remark here, such as a pause that is due.
#[must_use]
pub fn widget(views: &[View<'_>]) -> Option<Vec<Vec<Span>>> {
    if views.is_empty() {
        return None;
    }
    let mut lines = vec![vec![span(
        format!("─── Lieutenants ({}) ───", views.len()),
        Role::Dim,
    )]];
    for view in views.iter().take(MOST) {
        let record = view.record;
        let mode = if record.is_local() { " [local]" } else { "" };
        let tasks = match record.tasks {
            0 => String::new(),
            tasks => format!(" ({tasks} tasks)"),
        };
        let mut line = vec![
            span(format!("{} ", view.phase.icon()), look(view.phase)),
            span(format!("{}{mode}", record.name), Role::Normal),
            span(format!(": {}{tasks}", status(view)), Role::Normal),
            span(
                format!(" — {}", first(&one_line(&record.role), 40, "")),
                Role::Dim,
            ),
        ];
        if let Some(remark) = view.activity {
            line.push(span(format!(" ({remark})"), Role::Warning));
        }
        lines.push(line);
    }
    if let Some(more) = views.len().checked_sub(MOST).filter(|n| *n > 0) {
        lines.push(vec![span(format!("… and {more} more"), Role::Dim)]);
    }
    Some(lines)
}

/// The lines of a message about the end of a run, for `details.lines`: the heading, and the rest dimmed.
#[must_use]
pub fn message(heading: &str, is_error: bool, content: &str) -> Value {
    let sign = if is_error { "⚠️" } else { "✅" };
    let role = if is_error { "warning" } else { "success" };
    let mut lines =
        vec![json!([{ "text": format!("{sign} {heading}"), "role": role, "bold": true }])];
    // The first line of the content is the heading's.
    lines.extend(
        content
            .lines()
            .skip(1)
            .map(|line| json!([{ "text": line, "role": "dim" }])),
    );
    Value::Array(lines)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::record::Record;

    fn record(name: &str, tasks: u64, directory: Option<&str>) -> Record {
        serde_json::from_value(json!({ "name": name, "role": "does\nthis and that, and much more than fits into a line", "directory": directory,
            "phase": "idle", "tasks": tasks, "created": 0, "active": 0, "session": "s" }))
        .unwrap()
    }

    fn view(record: &Record, phase: Phase) -> View<'_> {
        View {
            record,
            phase,
            elsewhere: false,
            output: 0,
            activity: None,
        }
    }

    fn text(lines: &[Vec<Span>]) -> Vec<String> {
        let line = |line: &Vec<Span>| line.iter().map(|span| span.text.as_str()).collect();
        lines.iter().map(line).collect()
    }

    #[test]
    fn the_widget_is_as_users_know_it_and_goes_when_nobody_is_left() {
        assert!(widget(&[]).is_none());
        let (a, b) = (record("a", 0, None), record("b", 3, Some("/d")));
        let mut views = [view(&a, Phase::Paused), view(&b, Phase::Working)];
        views[0].activity = Some("soon");
        assert_eq!(
            text(&widget(&views).unwrap()),
            [
                "─── Lieutenants (2) ───",
                "⏸ a: paused — does this and that, and much more than f (soon)",
                "⟳ b [local]: working (3 tasks) — does this and that, and much more than f",
            ]
        );
    }

    #[test]
    fn the_widget_stays_small() {
        let many: Vec<Record> = (0..30).map(|n| record(&n.to_string(), 0, None)).collect();
        let views: Vec<View<'_>> = many.iter().map(|r| view(r, Phase::Idle)).collect();
        let lines = text(&widget(&views).unwrap());
        assert_eq!((lines.len(), lines[13].as_str()), (14, "… and 18 more"));
    }

    #[test]
    fn a_message_has_a_heading_and_the_rest_dimmed() {
        let lines = message(
            "Lieutenant \"a\" completed",
            false,
            "[a completed] ✅\nx\ny",
        );
        assert_eq!(
            lines,
            json!([
                [{ "text": "✅ Lieutenant \"a\" completed", "role": "success", "bold": true }],
                [{ "text": "x", "role": "dim" }],
                [{ "text": "y", "role": "dim" }],
            ])
        );
    }
}
