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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_users_know() {
        let info = describe();
        let commands: Vec<&str> = info.commands.iter().map(|c| c.name.as_str()).collect();
        assert_eq!(commands, ["plan", "todos"]);
        let shortcuts: Vec<_> = info
            .shortcuts
            .iter()
            .map(|s| (s.key.as_str(), s.command.as_str()))
            .collect();
        assert_eq!(shortcuts, [("ctrl+alt+p", "plan")]);
        let flags: Vec<&str> = info.flags.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(flags, ["plan", "plan-branch", "plan-tools"]);
        assert!(info.tools.is_empty());
    }
}
