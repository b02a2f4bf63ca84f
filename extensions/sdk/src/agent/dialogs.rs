//! Questions that an agent, or an extension of it, waits with: passed on to the user.
//!
//! An agent that asks and gets no answer hangs for ever. Where nobody is there to answer, the question is dismissed at once.

use serde_json::Value;

use crate::harness::ui;

use super::protocol::{Dialog, DialogKind};

/// The user's answer; none: dismissed.
pub(crate) async fn ask(agent: &str, dialog: &Dialog) -> Option<Value> {
    if !ui::available() {
        return None;
    }
    let shown = ui::Dialog {
        title: format!("[{agent}] {}", dialog.title),
        timeout: dialog.timeout,
    };
    match &dialog.kind {
        DialogKind::Select(options) => {
            let chosen = ui::select(shown, options.clone()).await.ok()??;
            let chosen = options.get(usize::try_from(chosen).ok()?)?;
            Some(chosen.clone().into())
        }
        DialogKind::Confirm(message) => ui::confirm(shown, message.clone())
            .await
            .ok()?
            .map(Value::Bool),
        DialogKind::Input(placeholder) => ui::input(shown, placeholder.clone())
            .await
            .ok()?
            .map(Value::String),
        DialogKind::Editor(prefill) => ui::edit(shown, prefill.clone())
            .await
            .ok()?
            .map(Value::String),
    }
}
