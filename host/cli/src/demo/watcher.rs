//! The demo's harness: the command line, with somebody who looks at widgets.

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use pi_vers_host::{
    BuiltInCall, BuiltInError, CustomMessage, Delivery, FlagValue, Harness, HarnessError, Line,
    Severity, ToolOutput,
};
use serde_json::Value;

use crate::harness::CommandLine;
use crate::terminal::Terminal;

/// See the module.
pub(super) struct Watcher {
    below: CommandLine,
    terminal: Arc<Terminal>,
}

impl Watcher {
    pub(super) fn new(below: CommandLine, terminal: Arc<Terminal>) -> Self {
        Self { below, terminal }
    }
}

impl Harness for Watcher {
    fn set_widget(&self, _from: &str, _key: &str, lines: Option<Vec<Line>>) {
        let lines = lines.unwrap_or_default();
        let lines: Vec<String> = lines
            .iter()
            .map(|line| line.iter().map(|span| span.text.as_str()).collect())
            .collect();
        self.terminal.panel(&lines);
    }

    fn notify(&self, from: &str, message: &str, severity: Severity) {
        self.below.notify(from, message, severity);
    }

    fn working_directory(&self) -> PathBuf {
        self.below.working_directory()
    }

    fn session_id(&self) -> String {
        self.below.session_id()
    }

    fn flag(&self, name: &str) -> Option<FlagValue> {
        self.below.flag(name)
    }

    fn send_message(
        &self,
        from: &str,
        message: CustomMessage,
        delivery: Delivery,
        trigger_turn: bool,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        self.below
            .send_message(from, message, delivery, trigger_turn)
    }

    fn append_entry(
        &self,
        from: &str,
        kind: &str,
        data: Value,
    ) -> BoxFuture<'_, Result<(), HarnessError>> {
        self.below.append_entry(from, kind, data)
    }

    fn entries(
        &self,
        from: &str,
        kind: Option<&str>,
    ) -> BoxFuture<'_, Result<Vec<Value>, HarnessError>> {
        self.below.entries(from, kind)
    }

    fn built_ins(&self) -> Vec<String> {
        self.below.built_ins()
    }

    fn run_built_in(&self, call: BuiltInCall) -> BoxFuture<'_, Result<ToolOutput, BuiltInError>> {
        self.below.run_built_in(call)
    }
}
