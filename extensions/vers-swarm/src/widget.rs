//! The lines near the editor, under the key `vers-swarm`.

use pi_vers_sdk::harness::types::{Role, Span};
use pi_vers_sdk::harness::ui;

use crate::bound::one_line;
use crate::state::Phase;
use crate::words::{View, icon};

const KEY: &str = "vers-swarm";
/// Agents that are shown: a screen has so many lines.
const MOST: usize = 12;

/// Shows the swarm; nothing when there is none.
pub(crate) fn show(views: &[View]) {
    if views.is_empty() {
        ui::set_widget(KEY, None);
        return;
    }
    let mut lines = vec![vec![span(
        format!("─── Swarm ({}) ───", views.len()),
        Role::Accent,
    )]];
    lines.extend(views.iter().take(MOST).map(line));
    if let Some(more) = views.len().checked_sub(MOST).filter(|more| *more > 0) {
        lines.push(vec![span(
            format!("… {more} more: vers_swarm_status"),
            Role::Dim,
        )]);
    }
    ui::set_widget(KEY, Some(&lines));
}

fn line(view: &View) -> Vec<Span> {
    let phase = &view.state.phase;
    let role = match phase {
        Phase::Working => Role::Accent,
        Phase::Done => Role::Success,
        Phase::Failed(_) | Phase::Ended(_) | Phase::Lost { .. } => Role::Error,
        Phase::Starting | Phase::Idle => Role::Muted,
    };
    let mut spans = vec![
        span(format!("{} ", icon(phase)), role),
        span(format!("{}: {}", view.id, phase.word()), Role::Normal),
    ];
    if let Some(task) = &view.state.task {
        spans.push(span(format!(" — {}", one_line(task, 40)), Role::Dim));
    }
    spans
}

fn span(text: String, role: Role) -> Span {
    Span {
        text,
        role,
        bold: false,
        strikethrough: false,
    }
}
