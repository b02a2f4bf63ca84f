//! The status line, under the key `vers`.

use pi_vers_sdk::harness::types::{Role, Span};
use pi_vers_sdk::harness::ui;

use crate::session;

const KEY: &str = "vers";

/// Shows the active VM; nothing when tools act on this machine.
pub(crate) fn show() {
    match session::active() {
        Some(vm) => set(&format!("vers: {}", short(&vm)), Role::Accent),
        None => ui::set_status(KEY, None),
    }
}

/// Shows how many VMs there are.
pub(crate) fn count(vms: usize) {
    set(&format!("vers: {vms} VM(s)"), Role::Muted);
}

/// Shows that the platform does not answer.
pub(crate) fn offline() {
    set("vers: offline", Role::Warning);
}

fn set(text: &str, role: Role) {
    let span = Span {
        text: text.into(),
        role,
        bold: false,
        strikethrough: false,
    };
    ui::set_status(KEY, Some(&[span]));
}

/// An id for a person's eye; never for a model, which would invent the rest.
pub(crate) fn short(vm: &str) -> &str {
    vm.get(..12).unwrap_or(vm)
}
