//! What the extension offers.

use pi_vers_sdk::{Command, ExtensionInfo, Flag, FlagValue, Shortcut, active_vm};

/// The description: the same every time.
pub(crate) fn describe() -> ExtensionInfo {
    let flag = |name: &str, description: &str, default| Flag {
        name: name.into(),
        description: description.into(),
        default,
    };
    ExtensionInfo {
        name: "plan-mode".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        summary: env!("CARGO_PKG_DESCRIPTION").into(),
        tools: Vec::new(),
        commands: vec![
            Command {
                name: "plan".into(),
                description: "Toggle plan mode (read-only exploration)".into(),
                arguments: Some("[branch]".into()),
            },
            Command {
                name: "todos".into(),
                description: "Show current plan todo list".into(),
                arguments: None,
            },
        ],
        shortcuts: vec![Shortcut {
            key: "ctrl+alt+p".into(),
            description: "Toggle plan mode".into(),
            command: "plan".into(),
        }],
        flags: vec![
            flag(
                "plan",
                "Start in plan mode (read-only exploration)",
                FlagValue::Boolean(false),
            ),
            flag(
                "plan-branch",
                "Plan on a throw-away branch of the active VM, where anything may run",
                FlagValue::Boolean(false),
            ),
            flag(
                "plan-tools",
                "Names of further tools that only read and may run in plan mode, separated by commas",
                FlagValue::Text(String::new()),
            ),
        ],
        subscriptions: [
            "tool-call",
            "context",
            "before-agent-start",
            "turn-end",
            "agent-end",
        ]
        .map(str::to_owned)
        .into(),
        topics: vec![active_vm::TOPIC.into()],
    }
}
