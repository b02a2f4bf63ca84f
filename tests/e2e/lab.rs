//! A session of all shipped extensions with one active VM, on a platform of its own.

use std::sync::Arc;

use pi_vers_host::ToolOutput;
use pi_vers_tests::{Bench, Scratch, ids, settings};
use serde_json::{Value, json};

pub(crate) struct Lab {
    pub(crate) scratch: Scratch,
    pub(crate) bench: Arc<Bench>,
    pub(crate) vm: String,
}

impl Lab {
    pub(crate) async fn new() -> Self {
        let scratch = Scratch::new();
        let endpoint = scratch.up().await;
        let bench = Arc::new(Bench::open(settings(&endpoint), &scratch.work()).await);
        let vm = ids(&bench
            .text("vers_vm_create", json!({ "wait_boot": true }))
            .await)[0]
            .clone();
        bench.text("vers_vm_use", json!({ "vmId": vm })).await;
        Self { scratch, bench, vm }
    }

    pub(crate) async fn bash(&self, command: &str) -> String {
        self.bench.text("bash", json!({ "command": command })).await
    }

    /// Text and details of a call that has to succeed.
    pub(crate) async fn ok(&self, tool: &str, arguments: Value) -> (String, Value) {
        match self.bench.call(tool, arguments.clone()).await {
            Ok(output) => told(output),
            Err(why) => panic!("{tool} {arguments}: {why}"),
        }
    }

    /// Ends the session, and looks whether anything is left of it and its platform.
    pub(crate) async fn end(self) {
        Arc::into_inner(self.bench)
            .expect("nobody uses it any more")
            .session
            .end()
            .await;
        self.scratch.end().await;
    }
}

fn told(output: ToolOutput) -> (String, Value) {
    (output.text(), output.details.unwrap_or_default())
}
