//! The contract in `wit/`, bound for the host.
//!
//! Nothing here is written by hand but the choice which functions need the store: those that make
//! streams or futures, and resource methods that must know which call they belong to.
//!
//! `vers:system/http` is bound apart from the rest: all other types can be written to a tape, and an answer of that
//! interface holds a stream, which cannot.

#![allow(missing_docs, clippy::all, unreachable_pub)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "vers:extension/publisher",
    imports: {
        "vers:harness/log.write": store | trappable,
        "vers:harness/ui.notify": store | trappable,
        "vers:harness/client.offers": store | trappable,
        "vers:system/process.[method]child.stdout": store | trappable,
        "vers:system/process.[method]child.stderr": store | trappable,
        "vers:system/files.read": store | trappable,
        "vers:system/files.copy": store | trappable,
        "vers:platform/shell.follow": store | trappable,
        default: trappable,
    },
    exports: { default: async | store },
    with: {
        "vers:harness/call.tool-call": crate::capability::call::ToolCall,
        "vers:platform/shell.forward": crate::capability::forward::Forward,
        "vers:system/process.child": crate::capability::process::Child,
        "vers:system/http": crate::bindings::web::vers::system::http,
    },
    additional_derives: [serde::Serialize, serde::Deserialize],
    require_store_data_send: true,
});

/// `vers:system/http`.
pub(crate) mod web {
    wasmtime::component::bindgen!({
        path: "../../wit",
        inline: "
            package pi-vers:host;
            world web { import vers:system/http@0.1.0; }
        ",
        imports: { default: trappable },
        with: {
            "vers:harness/types": crate::bindings::vers::harness::types,
        },
        require_store_data_send: true,
    });
}

use exports::vers::harness::description::Hints;

const HINTS: [Hints; 6] = [
    Hints::READ_ONLY,
    Hints::DESTRUCTIVE,
    Hints::IDEMPOTENT,
    Hints::OPEN_WORLD,
    Hints::LONG_RUNNING,
    Hints::TASK_ONLY,
];

// Flags get none of the derives.
impl serde::Serialize for Hints {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        HINTS.map(|hint| self.contains(hint)).serialize(serializer)
    }
}

impl<'de> serde::Deserialize<'de> for Hints {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let set = <[bool; 6]>::deserialize(deserializer)?;
        let hints = HINTS.into_iter().zip(set).filter(|(_, set)| *set);
        Ok(hints.fold(Self::empty(), |all, (hint, _)| all | hint))
    }
}
