//! What the extension offers.

use pi_vers_sdk::schema::{object, one_of, string, tool};
use pi_vers_sdk::{ExtensionInfo, Hints, Tool, active_vm};
use serde_json::{Value, json};

/// The description: the same every time.
pub(crate) fn describe() -> ExtensionInfo {
    ExtensionInfo {
        name: "background-process".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        summary: env!("CARGO_PKG_DESCRIPTION").into(),
        tools: tools(),
        commands: Vec::new(),
        shortcuts: Vec::new(),
        flags: Vec::new(),
        subscriptions: Vec::new(),
        topics: vec![active_vm::TOPIC.into()],
    }
}

fn id() -> (&'static str, Value) {
    (
        "id",
        json!({ "type": "string", "minLength": 1, "maxLength": 100, "description": "Unique name for this process" }),
    )
}

fn number(least: u64, most: u64, description: &str) -> Value {
    json!({ "type": "integer", "minimum": least, "maximum": most, "description": description })
}

fn tools() -> Vec<Tool> {
    vec![
        tool(
            "bg_start",
            "Start Background Process",
            "Start a command that runs on in the background, such as a server, a watcher or a long build, and return at once with its \
             first output. It runs where bash does: on the active Vers VM if there is one, else on the local machine. It runs until it ends, \
             bg_stop is called or the session ends; its output is kept for bg_logs. Starting an id again stops the old process first. With \
             waitFor the call returns as soon as the output shows that the process is ready, or earlier and says so.",
            Hints::DESTRUCTIVE | Hints::OPEN_WORLD | Hints::LONG_RUNNING,
            object(&[
                id(),
                (
                    "command",
                    json!({ "type": "string", "minLength": 1, "description": "Shell command to run" }),
                ),
                ("cwd?", string("Working directory (default: that of bash)")),
                (
                    "waitMs?",
                    number(
                        0,
                        540_000,
                        "How long to watch the new process before returning, in milliseconds (default: 2000; with waitFor 30000)",
                    ),
                ),
                (
                    "waitFor?",
                    json!({ "type": "string", "minLength": 1, "maxLength": 1000, "description": "Text or regular expression; the process is ready when a line of its output holds it" }),
                ),
                (
                    "on?",
                    one_of(
                        &["vm", "local"],
                        "Where to run it (default: where bash runs)",
                    ),
                ),
                (
                    "forwardPort?",
                    number(
                        1,
                        65_535,
                        "Port the process listens on, on the VM: makes it reachable on the local machine; the result names the URL",
                    ),
                ),
                (
                    "env?",
                    json!({ "type": "object", "additionalProperties": { "type": "string" }, "description": "Environment variables" }),
                ),
            ]),
        ),
        tool(
            "bg_stop",
            "Stop Background Process",
            "Stop a background process and everything it started. It gets the signal, and is killed if that does not end it.",
            Hints::DESTRUCTIVE | Hints::IDEMPOTENT,
            object(&[
                id(),
                ("signal?", string("Signal to send first (default: SIGTERM)")),
            ]),
        ),
        tool(
            "bg_list",
            "List Background Processes",
            "List the background processes: whether each runs or how it ended, process ID, uptime, command.",
            Hints::READ_ONLY | Hints::IDEMPOTENT,
            object(&[]),
        ),
        tool(
            "bg_logs",
            "Background Process Logs",
            "Show the newest output of a background process. The newest 2000 lines (256 KB) of each stream are kept, also after its end.",
            Hints::READ_ONLY | Hints::IDEMPOTENT,
            object(&[
                id(),
                ("last?", number(1, 2_000, "Number of lines (default: 50)")),
                (
                    "stream?",
                    one_of(
                        &["stdout", "stderr", "both"],
                        "'stdout', 'stderr', or 'both' (default: both)",
                    ),
                ),
            ]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_and_parameters_are_those_users_know_and_some_more() {
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
                "bg_start",
                "id command cwd waitMs waitFor on forwardPort env",
            ),
            ("bg_stop", "id signal"),
            ("bg_list", ""),
            ("bg_logs", "id last stream"),
        ];
        assert_eq!(
            all,
            expected.map(|(name, names)| (name.to_owned(), names.to_owned()))
        );
    }
}
