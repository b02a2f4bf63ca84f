//! What stands in a configuration: a server, and a hook.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::options::{Client, HookKind};
use crate::hook::TOOL;

/// Codex gives a tool a minute and a server ten seconds: too little for a VM that boots and for the first start, which compiles.
const CODEX_TOOL: i64 = 600;
const CODEX_START: i64 = 60;
/// Codex hands its servers no variables but a few, and these if they are named. Their values are not in the file.
const CODEX_VARIABLES: [&str; 14] = [
    "VERS_API_KEY",
    "VERS_BASE_URL",
    "VERS_VM_DOMAIN",
    "VERS_VM_CONNECT",
    "VERS_TLS_CA",
    "VERS_HOME",
    "VERS_INFRA_URL",
    "VERS_AUTH_TOKEN",
    "LLM_PROXY_KEY",
    "ANTHROPIC_API_KEY",
    "PI_VERS_LOG",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
];
/// Tools of the clients that have a counterpart on a VM. That of Codex is a regular expression.
const CLAUDE_TOOLS: &str = "Bash|Read|Edit|Write|MultiEdit|NotebookEdit|Grep|Glob";
const CODEX_TOOLS: &str = "^(Bash|apply_patch)$";
/// Seconds. The answer takes microseconds; what does not answer shall not hold anybody up.
const HOOK_LIMIT: u64 = 5;

/// The name of this program's file.
const PROGRAM: &str = "pi-vers";

/// What runs when the client starts the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) command: String,
    pub(crate) arguments: Vec<String>,
}

/// Whose entry it is that stands under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Owner {
    /// This program's, or that of the TypeScript package which it replaces.
    Ours(Server),
    /// Another's: what it runs, for people.
    Other(String),
}

impl Server {
    /// The entry for this client, made from the one that is there: what we do not know stays.
    pub(crate) fn entry(&self, client: Client, old: Option<&Value>) -> Value {
        let mut entry = old.and_then(Value::as_object).cloned().unwrap_or_default();
        if matches!(client, Client::Claude | Client::Cursor | Client::Vscode) {
            entry.insert("type".into(), "stdio".into());
        }
        entry.insert("command".into(), self.command.as_str().into());
        entry.insert("args".into(), json!(self.arguments));
        if client == Client::Codex {
            at_least(&mut entry, "startup_timeout_sec", CODEX_START);
            at_least(&mut entry, "tool_timeout_sec", CODEX_TOOL);
            entry
                .entry("env_vars")
                .or_insert_with(|| json!(CODEX_VARIABLES));
        }
        Value::Object(entry)
    }
}

/// A limit that the user set higher stays.
fn at_least(entry: &mut Map<String, Value>, name: &str, least: i64) {
    let enough = entry
        .get(name)
        .and_then(Value::as_f64)
        .is_some_and(|there| there >= least as f64);
    if !enough {
        entry.insert(name.into(), least.into());
    }
}

/// Whose it is.
pub(crate) fn owner(entry: &Value) -> Owner {
    let command = entry.get("command").and_then(Value::as_str);
    let Some(command) = command else {
        let url = entry.get("url").and_then(Value::as_str);
        return Owner::Other(url.unwrap_or("something without a command").to_owned());
    };
    let arguments = entry.get("args").and_then(Value::as_array);
    let arguments: Vec<String> = arguments
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str().map(str::to_owned))
        .collect();
    let file = Path::new(command)
        .file_name()
        .and_then(|name| name.to_str());
    let this = file == Some(PROGRAM) && arguments.first().is_some_and(|first| first == "mcp");
    let original = file == Some("vers-mcp")
        || arguments.iter().any(|one| {
            let name = one.strip_prefix("@hdresearch/").unwrap_or(one);
            one.starts_with("@hdresearch/") && name.split('@').next() == Some("vers-mcp")
        });
    if this || original {
        return Owner::Ours(Server {
            command: command.to_owned(),
            arguments,
        });
    }
    // Arguments may hold keys; the program says enough.
    Owner::Other(command.to_owned())
}

/// The hook that asks the server of this name, or this program.
pub(crate) fn hook(client: Client, kind: HookKind, name: &str, program: &str) -> Option<Value> {
    match kind {
        HookKind::Tool => {
            let mut input = json!({ "tool_name": "${tool_name}" });
            // Codex has no such member, and gives a hook up that asks for one.
            if let (Client::Claude, Some(input)) = (client, input.as_object_mut()) {
                input.insert("path".into(), "${tool_input.file_path}".into());
            }
            Some(json!({
                "type": "mcp_tool",
                "server": name,
                "tool": TOOL,
                "input": input,
                "timeout": HOOK_LIMIT,
            }))
        }
        HookKind::Command => Some(json!({
            "type": "command",
            "command": format!("{} hook pre-tool-use", quoted(program)),
            "timeout": HOOK_LIMIT,
        })),
        HookKind::None => None,
    }
}

/// A group of the list of hooks with nothing but this one.
pub(crate) fn group(client: Client, hook: &Value) -> Value {
    let tools = match client {
        Client::Codex => CODEX_TOOLS,
        _ => CLAUDE_TOOLS,
    };
    json!({ "matcher": tools, "hooks": [hook] })
}

/// Whether a hook that stands in the list is ours: for this server, this program's command, or the script that both replace.
pub(crate) fn is_ours(hook: &Value, name: &str) -> bool {
    let text = |member: &str| hook.get(member).and_then(Value::as_str).unwrap_or_default();
    match text("type") {
        "mcp_tool" => text("tool") == TOOL && text("server") == name,
        "command" => {
            let command = text("command");
            let ours = command.ends_with(" hook pre-tool-use") && command.contains(PROGRAM);
            ours || command.contains("hooks/redirect-to-vm.sh")
        }
        _ => false,
    }
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// How clients start this program: by the name that leads to it in the `PATH`, which outlives an update, else by its file.
pub(crate) fn program(own: &Path, path: Option<&std::ffi::OsStr>) -> PathBuf {
    let directories = path.map(std::env::split_paths).into_iter().flatten();
    let found = directories
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join(PROGRAM))
        .find(|file| std::fs::canonicalize(file).is_ok_and(|real| real == own));
    found.unwrap_or_else(|| own.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn server() -> Server {
        Server {
            command: "/bin/pi-vers".into(),
            arguments: vec!["mcp".into()],
        }
    }

    #[test]
    fn an_entry_keeps_what_the_user_added() {
        let old = json!({ "command": "pi-vers", "args": ["mcp", "--local"], "env": { "A": "b" }, "tool_timeout_sec": 1200.0, "startup_timeout_sec": 10, "env_vars": [] });
        let new = server().entry(Client::Codex, Some(&old));
        assert_eq!(
            new,
            json!({ "command": "/bin/pi-vers", "args": ["mcp"], "env": { "A": "b" }, "tool_timeout_sec": 1200.0, "startup_timeout_sec": 60, "env_vars": [] })
        );
        assert_eq!(server().entry(Client::Codex, Some(&new)), new);
    }

    #[test]
    fn entries_of_others_are_known_by_what_they_run() {
        for (entry, ours) in [
            (json!({ "command": "pi-vers", "args": ["mcp"] }), true),
            (
                json!({ "command": "/old/place/pi-vers", "args": ["mcp", "--local"] }),
                true,
            ),
            (
                json!({ "command": "npx", "args": ["-y", "@hdresearch/vers-mcp"] }),
                true,
            ),
            (
                json!({ "command": "npx", "args": ["@hdresearch/vers-mcp@0.1.0"] }),
                true,
            ),
            (json!({ "command": "/x/bin/vers-mcp" }), true),
            (json!({ "command": "pi-vers", "args": ["core"] }), false),
            (json!({ "command": "/x/pi-vers/run" }), false),
            (
                json!({ "command": "npx", "args": ["@other/vers-mcp"] }),
                false,
            ),
            (json!({ "url": "https://example.com/mcp" }), false),
            (json!({}), false),
            (json!(5), false),
        ] {
            let found = matches!(owner(&entry), Owner::Ours(_));
            assert_eq!(found, ours, "{entry}");
        }
    }

    #[test]
    fn words_are_quoted_for_the_shell() {
        for (word, expected) in [
            ("/usr/bin/pi-vers", "/usr/bin/pi-vers"),
            ("/a b/pi-vers", "'/a b/pi-vers'"),
            ("/a'b$(x)/pi-vers", r"'/a'\''b$(x)/pi-vers'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn our_hooks_are_known_and_no_others() {
        for kind in [HookKind::Tool, HookKind::Command] {
            let hook = hook(Client::Claude, kind, "vers", "/a b/pi-vers").unwrap();
            assert!(is_ours(&hook, "vers"), "{hook}");
        }
        let script =
            json!({ "type": "command", "command": "\"$HOME\"/vers-mcp/hooks/redirect-to-vm.sh" });
        assert!(is_ours(&script, "vers"));
        for other in [
            json!({ "type": "mcp_tool", "server": "other", "tool": TOOL }),
            json!({ "type": "mcp_tool", "server": "vers", "tool": "scan" }),
            json!({ "type": "command", "command": "check.sh" }),
            json!("x"),
        ] {
            assert!(!is_ours(&other, "vers"), "{other}");
        }
    }

    #[test]
    fn the_name_in_the_path_is_taken_if_it_leads_here() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let own = root.join("store/1.0/pi-vers");
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::fs::write(&own, "").unwrap();
        let path = std::env::join_paths([Path::new("relative"), &root.join("bin")]).unwrap();
        assert_eq!(program(&own, Some(&path)), own);
        std::os::unix::fs::symlink(&own, root.join("bin/pi-vers")).unwrap();
        assert_eq!(program(&own, Some(&path)), root.join("bin/pi-vers"));
        assert_eq!(program(&own, None), own);
    }
}
