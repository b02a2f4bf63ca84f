//! Which VM is active, as the extension `vers-vm` tells it on the bus.

use std::sync::{Arc, PoisonError, RwLock};

use serde_json::Value;

/// The extension that says it, and how.
const SAYS: &str = "vers-vm";
const TOPIC: &str = "vers-vm.active";
/// A longer id is none.
const LONGEST: usize = 128;

/// Shared by whoever hears the bus and whoever answers hooks.
#[derive(Debug, Clone, Default)]
pub(crate) struct ActiveVm(Arc<RwLock<Option<Arc<str>>>>);

impl ActiveVm {
    /// Takes note of a message of the bus; call it for all of them, from [`pi_vers_host::Harness::bus`].
    ///
    /// Only `vers-vm` itself is believed. Answers to somebody's question are passed over: every change is told by itself.
    pub(crate) fn hear(&self, from: &str, topic: &str, data: &Value) {
        if from != SAYS || topic != TOPIC || data.get("answerTo").is_some() {
            return;
        }
        let vm = match data.get("vmId") {
            Some(Value::String(vm)) if !vm.is_empty() && vm.len() <= LONGEST => {
                Some(Arc::from(vm.as_str()))
            }
            Some(Value::Null) => None,
            _ => return,
        };
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = vm;
    }

    /// The whole id of the VM that tools act on; `None`: they act on this machine.
    pub(crate) fn get(&self) -> Option<Arc<str>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use serde_json::json;

    #[test]
    fn changes_are_taken_from_the_extension_alone() {
        let active = ActiveVm::default();
        let now = || active.get().as_deref().map(str::to_owned);
        active.hear("vers-vm", TOPIC, &json!({ "vmId": "one" }));
        assert_eq!(now().as_deref(), Some("one"));
        for (from, topic, data) in [
            ("forger", TOPIC, json!({ "vmId": null })),
            ("vers-vm", "vers-vm.use", json!({ "vmId": null })),
            ("vers-vm", TOPIC, json!({ "vmId": null, "answerTo": "t" })),
            ("vers-vm", TOPIC, json!({ "vmId": 5 })),
            ("vers-vm", TOPIC, json!({ "vmId": "x".repeat(200) })),
            ("vers-vm", TOPIC, json!("two")),
        ] {
            active.hear(from, topic, &data);
            assert_eq!(now().as_deref(), Some("one"), "{from} {topic} {data}");
        }
        active.hear("vers-vm", TOPIC, &json!({ "vmId": null }));
        assert_eq!(now(), None);
    }
}
