//! What the extension offers.

use pi_vers_sdk::schema::{boolean, object, one_of, string, tool};
use pi_vers_sdk::{Command, ExtensionInfo, Flag, FlagValue, Hints, Tool};
use serde_json::{Value, json};

/// The flag that says how long a lieutenant may be idle.
pub(crate) const IDLE: &str = "vers-lt-idle-minutes";

/// The description: the same every time.
pub(crate) fn describe() -> ExtensionInfo {
    ExtensionInfo {
        name: "vers-lieutenant".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        summary: env!("CARGO_PKG_DESCRIPTION").into(),
        tools: tools(),
        commands: vec![Command {
            name: "lieutenants".into(),
            description: "Show the lieutenants and how they are".into(),
            arguments: None,
        }],
        shortcuts: Vec::new(),
        flags: vec![Flag {
            name: IDLE.into(),
            description: "Pause the VM of a lieutenant that has been idle this many minutes, after a warning (0: never)".into(),
            default: FlagValue::Number(0.0),
        }],
        subscriptions: Vec::new(),
        topics: Vec::new(),
    }
}

fn name(description: &str) -> (&'static str, Value) {
    ("name", string(description))
}

fn tools() -> Vec<Tool> {
    let whom = || name("Name of the lieutenant");
    vec![
        tool(
            "vers_lt_create",
            "Create Lieutenant",
            "Create a lieutenant: a coding agent that lives long, keeps its conversation, and works on tasks you send it while you go on with \
             something else. It gets a Vers VM of its own, or with local=true it runs on this machine. You are told when it completes a task. It may \
             return while the VM is still being made, and says so: then vers_lt_status shows when it is ready.",
            Hints::OPEN_WORLD | Hints::LONG_RUNNING,
            object(&[
                name("Short name, e.g. infra: letters, digits, '-', '_' or '.'"),
                (
                    "role",
                    json!({ "type": "string", "minLength": 1, "maxLength": 50_000, "description": "What it is responsible for; becomes the lieutenant's system prompt context" }),
                ),
                (
                    "commitId?",
                    string("Commit to start its VM from (default: the golden commit of the fleet)"),
                ),
                (
                    "llmProxyKey?",
                    string("Key for its model (default: the LLM_PROXY_KEY of the host)"),
                ),
                (
                    "model?",
                    string("Model, e.g. claude-opus-4-6-thinking, the default"),
                ),
                (
                    "local?",
                    boolean("Run it on this machine, without a VM (default: false)"),
                ),
            ]),
        ),
        tool(
            "vers_lt_send",
            "Send to Lieutenant",
            "Send a message to a lieutenant, and return at once. A prompt is a new task; while the lieutenant works it is queued. You are told \
             when it has completed what it does; do not wait or ask for it.",
            Hints::OPEN_WORLD,
            object(&[
                whom(),
                (
                    "message",
                    json!({ "type": "string", "minLength": 1, "maxLength": 1_000_000, "description": "The task or message" }),
                ),
                (
                    "mode?",
                    one_of(
                        &["prompt", "steer", "followUp"],
                        "prompt: a new task (default). steer: interrupts what it does. followUp: after what it does",
                    ),
                ),
            ]),
        ),
        tool(
            "vers_lt_read",
            "Read Lieutenant Output",
            "Read what a lieutenant says in its current or last run, and earlier responses.",
            Hints::READ_ONLY | Hints::IDEMPOTENT,
            object(&[
                whom(),
                (
                    "tail?",
                    json!({ "type": "integer", "minimum": 1, "description": "Only the last so many characters" }),
                ),
                (
                    "history?",
                    json!({ "type": "integer", "minimum": 0, "maximum": 20, "description": "So many earlier responses too (at most 20)" }),
                ),
            ]),
        ),
        tool(
            "vers_lt_status",
            "Lieutenant Status",
            "Show all lieutenants: how each is, its role, VM, tasks and last activity.",
            Hints::READ_ONLY | Hints::IDEMPOTENT,
            object(&[]),
        ),
        tool(
            "vers_lt_pause",
            "Pause Lieutenant",
            "Pause the VM of an idle lieutenant. It keeps everything, costs nothing meanwhile, and does nothing until it is resumed.",
            Hints::IDEMPOTENT | Hints::OPEN_WORLD,
            object(&[whom()]),
        ),
        tool(
            "vers_lt_resume",
            "Resume Lieutenant",
            "Resume a paused lieutenant, with its conversation as it was. Of one whose agent has ended, start a new agent on its VM.",
            Hints::IDEMPOTENT | Hints::OPEN_WORLD | Hints::LONG_RUNNING,
            object(&[whom()]),
        ),
        tool(
            "vers_lt_destroy",
            "Destroy Lieutenant",
            "End a lieutenant for good: its VM is deleted with everything on it.",
            Hints::DESTRUCTIVE | Hints::IDEMPOTENT | Hints::OPEN_WORLD,
            object(&[name("Name of the lieutenant, or * for all of this session")]),
        ),
        tool(
            "vers_lt_discover",
            "Discover Lieutenants",
            "Look for lieutenants that run on Vers VMs and are not known here, and connect to them.",
            Hints::IDEMPOTENT | Hints::OPEN_WORLD | Hints::LONG_RUNNING,
            object(&[]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_parameters_are_those_users_know() {
        let parameters = |tool: &Tool| {
            let schema: Value = serde_json::from_str(&tool.parameters).unwrap();
            let names = schema.get("properties").and_then(Value::as_object).unwrap();
            names.keys().cloned().collect::<Vec<_>>().join(" ")
        };
        let all: Vec<(String, String)> = tools()
            .iter()
            .map(|tool| (tool.name.clone(), parameters(tool)))
            .collect();
        let expected = [
            (
                "vers_lt_create",
                "name role commitId llmProxyKey model local",
            ),
            ("vers_lt_send", "name message mode"),
            ("vers_lt_read", "name tail history"),
            ("vers_lt_status", ""),
            ("vers_lt_pause", "name"),
            ("vers_lt_resume", "name"),
            ("vers_lt_destroy", "name"),
            ("vers_lt_discover", ""),
        ];
        assert_eq!(all, expected.map(|(n, p)| (n.to_owned(), p.to_owned())));
    }

    #[test]
    fn only_what_only_reads_says_so() {
        let reading: Vec<String> = tools()
            .into_iter()
            .filter(|tool| tool.hints.contains(Hints::READ_ONLY))
            .map(|tool| tool.name)
            .collect();
        assert_eq!(reading, ["vers_lt_read", "vers_lt_status"]);
    }
}
