//! The contract in `wit/`, bound for the host.
//!
//! Nothing here is written by hand but the choice which functions need the store: those that make
//! streams or futures, and resource methods that must know which call they belong to.

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
    },
    require_store_data_send: true,
});
