//! The widget, drawn when something is different.

use pi_vers_sdk::Error;
use pi_vers_sdk::harness::ui;
use pi_vers_sdk::show::notice;

use crate::panel::{self, WIDGET};
use crate::words::{View, block};
use crate::{table, words};

/// Draws the widget as things are now.
pub(crate) fn refresh() {
    let all = table::all();
    let told: Vec<_> = all
        .iter()
        .map(|one| {
            let (_, warned) = one.idle();
            let remark = warned.map(|_| "idle, is paused soon");
            (one.record(), one.phase(), one.held().is_some(), remark)
        })
        .collect();
    let views: Vec<View<'_>> = told
        .iter()
        .map(|(record, phase, elsewhere, remark)| View {
            record,
            phase: *phase,
            elsewhere: *elsewhere,
            output: 0,
            activity: *remark,
        })
        .collect();
    ui::set_widget(WIDGET, panel::widget(&views).as_deref());
}

/// Removes the widget: the session ends.
pub(crate) fn clear() {
    ui::set_widget(WIDGET, None);
}

/// All lieutenants, as `vers_lt_status` tells them.
pub(crate) fn all() -> String {
    let blocks: Vec<String> = table::all()
        .iter()
        .map(|one| one.view(|view| block(&view)))
        .collect();
    match blocks.is_empty() {
        true => "No lieutenants active.".into(),
        false => words::last_bytes(&blocks.join("\n\n"), words::MAX_TEXT).into(),
    }
}

/// `/lieutenants`
pub(crate) async fn command(_: String) -> Result<(), Error> {
    notice(all());
    Ok(())
}
