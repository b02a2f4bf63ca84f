//! The lines near the editor, under the key `vers-swarm`.

use pi_vers_sdk::harness::types::{Role, Span};
use pi_vers_sdk::harness::ui;
use pi_vers_sdk::show::span;

use crate::bound::one_line;
use crate::state::Phase;
use crate::words::icon;

const KEY: &str = "vers-swarm";
/// Agents that are shown: a screen has so many lines.
const MOST: usize = 12;

/// What is shown of an agent: little, because it is made at every change.
pub(crate) struct Row {
    pub(crate) label: String,
    pub(crate) phase: Phase,
    pub(crate) task: Option<String>,
}

/// Shows the swarm; nothing when there is none.
pub(crate) fn show(rows: &[Row]) {
    if rows.is_empty() {
        ui::set_widget(KEY, None);
        return;
    }
    let mut lines = vec![vec![span(
        format!("─── Swarm ({}) ───", rows.len()),
        Role::Accent,
    )]];
    lines.extend(rows.iter().take(MOST).map(line));
    if let Some(more) = rows.len().checked_sub(MOST).filter(|more| *more > 0) {
        lines.push(vec![span(
            format!("… {more} more: vers_swarm_status"),
            Role::Dim,
        )]);
    }
    ui::set_widget(KEY, Some(&lines));
}

fn line(row: &Row) -> Vec<Span> {
    let phase = &row.phase;
    let role = match phase {
        Phase::Working => Role::Accent,
        Phase::Done => Role::Success,
        Phase::Failed(_) | Phase::Ended(_) | Phase::Lost { .. } => Role::Error,
        Phase::Starting | Phase::Idle => Role::Muted,
    };
    let mut spans = vec![
        span(format!("{} ", icon(phase)), role),
        span(format!("{}: {}", row.label, phase.word()), Role::Normal),
    ];
    if let Some(task) = &row.task {
        spans.push(span(format!(" — {}", one_line(task, 40)), Role::Dim));
    }
    spans
}
