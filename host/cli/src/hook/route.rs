//! The answer to a hook.

use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::ActiveVm;

/// The tool that a hook of the type `mcp_tool` calls.
pub(crate) const TOOL: &str = "vers_route";

/// A call of a client's own tool, as the hook tells of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Call {
    /// The client's name of the tool, for example `Bash`.
    pub(super) tool: String,
    /// The file that it is about, if it is about one.
    pub(super) path: Option<PathBuf>,
}

impl Call {
    /// From the arguments of [`TOOL`]. Claude Code puts an empty text where the call has no such member.
    pub(super) fn of(arguments: &Value) -> Self {
        let text = |name: &str| arguments.get(name).and_then(Value::as_str);
        Self {
            tool: text("tool_name").unwrap_or_default().to_owned(),
            path: text("path")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from),
        }
    }
}

/// How [`TOOL`] is listed.
pub(crate) fn listed() -> Value {
    json!({
        "name": TOOL,
        "title": "Route",
        "description": "For the hook of the client, not for you: says whether one of the client's own tools may run, or which vers_ tool takes its place.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "tool_name": { "type": "string", "description": "The client's own tool" },
                "path": { "type": "string", "description": "The file it is about, if any" },
            },
            "required": ["tool_name"],
        },
        "annotations": {
            "title": "Route",
            "readOnlyHint": true,
            "destructiveHint": false,
            "idempotentHint": true,
            "openWorldHint": false,
        },
    })
}

/// The text of the result of [`TOOL`], called with these arguments: the hook's JSON, an empty object to allow the call.
pub(crate) fn route(active: &ActiveVm, arguments: &Value) -> String {
    let (vm, own) = (active.get(), own_directory());
    let answer = decide(vm.as_deref(), &Call::of(arguments), own.as_deref());
    answer.map_or_else(|| "{}".to_owned(), |answer| answer.to_string())
}

/// The answer; `None` allows the call.
///
/// `own` is the client's own directory: plans, notes and the large results of tools, which it keeps there and tells the model to read.
/// They are on this machine whatever VM is active.
pub(super) fn decide(active: Option<&str>, call: &Call, own: Option<&Path>) -> Option<Value> {
    let vm = active?;
    let (instead, how) = counterpart(&call.tool)?;
    if let (Some(path), Some(own)) = (&call.path, own)
        && inside(path, own)
    {
        return None;
    }
    let vm: String = pi_vers_host::visible(vm).chars().take(12).collect();
    let reason = format!(
        "Vers VM {vm} is active, and {} acts on the local machine. Use {instead}{how} to act on the VM, or call vers_vm_local first to go back to the local machine.",
        call.tool
    );
    Some(json!({ "hookSpecificOutput": {
        "hookEventName": "PreToolUse",
        "permissionDecision": "deny",
        "permissionDecisionReason": reason,
    }}))
}

/// The tool that does the same on a VM, and what to do with it. Names of Claude Code, and `apply_patch` of Codex.
fn counterpart(tool: &str) -> Option<(&'static str, &'static str)> {
    Some(match tool {
        "Bash" => ("vers_bash", ""),
        "Read" => ("vers_read", ""),
        "Edit" | "MultiEdit" | "NotebookEdit" | "apply_patch" => ("vers_edit", ""),
        "Write" => ("vers_write", ""),
        "Grep" => ("vers_bash", " with grep or rg"),
        "Glob" => ("vers_bash", " with find"),
        _ => return None,
    })
}

/// Whether the path is below the directory, without a way out of it.
fn inside(path: &Path, directory: &Path) -> bool {
    let climbs = path.components().any(|part| part == Component::ParentDir);
    !climbs && path.starts_with(directory) && path != directory
}

/// Claude Code's own directory.
pub(super) fn own_directory() -> Option<PathBuf> {
    let given = std::env::var_os("CLAUDE_CONFIG_DIR").map(PathBuf::from);
    let given = given.filter(|path| path.is_absolute());
    given.or_else(|| Some(std::env::home_dir()?.join(".claude")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use proptest::prelude::*;

    const VM: &str = "0123456789abcdef";

    fn call(tool: &str, path: Option<&str>) -> Call {
        Call {
            tool: tool.into(),
            path: path.map(PathBuf::from),
        }
    }

    fn allowed(vm: Option<&str>, call: &Call, own: Option<&Path>) -> bool {
        decide(vm, call, own).is_none()
    }

    #[test]
    fn without_a_vm_everything_is_allowed() {
        for tool in ["Bash", "Read", "Write", "", "mcp__x__y"] {
            assert!(allowed(None, &call(tool, Some("/x")), None), "{tool}");
        }
        let active = ActiveVm::default();
        assert_eq!(route(&active, &json!({ "tool_name": "Bash" })), "{}");
        active.hear("vers-vm", "vers-vm.active", &json!({ "vmId": VM }));
        assert!(route(&active, &json!({ "tool_name": "Bash" })).contains("vers_bash"));
    }

    #[test]
    fn with_a_vm_each_tool_is_pointed_to_its_counterpart() {
        for (tool, instead) in [
            ("Bash", "vers_bash"),
            ("Read", "vers_read"),
            ("Edit", "vers_edit"),
            ("MultiEdit", "vers_edit"),
            ("NotebookEdit", "vers_edit"),
            ("Write", "vers_write"),
            ("Grep", "vers_bash with grep"),
            ("Glob", "vers_bash with find"),
            ("apply_patch", "vers_edit"),
        ] {
            let answer = decide(Some(VM), &call(tool, None), None).unwrap();
            let output = &answer["hookSpecificOutput"];
            assert_eq!(output["hookEventName"], "PreToolUse");
            assert_eq!(output["permissionDecision"], "deny");
            let reason = output["permissionDecisionReason"].as_str().unwrap();
            assert!(reason.contains(instead), "{reason}");
            assert!(reason.contains("VM 0123456789ab is") && reason.contains("vers_vm_local"));
        }
        for tool in ["WebFetch", "Task", "mcp__vers__vers_bash", "bash", ""] {
            assert!(allowed(Some(VM), &call(tool, None), None), "{tool}");
        }
    }

    /// Regression: a large result, which Claude Code keeps in a file and tells the model to read, could not be read.
    #[test]
    fn the_client_s_own_files_are_read_here_whatever_vm_is_active() {
        let own = Path::new("/home/u/.claude");
        let allowed = |path: &str| allowed(Some(VM), &call("Read", Some(path)), Some(own));
        assert!(allowed("/home/u/.claude/projects/p/tool-results/1.txt"));
        for path in [
            "/home/u/.claude/../secret",
            "/home/u/.claudes/x",
            "/home/u/.claude",
            "relative/.claude/x",
            "/etc/passwd",
        ] {
            assert!(!allowed(path), "{path}");
        }
    }

    #[test]
    fn arguments_of_any_kind_are_read() {
        let read = Call::of(&json!({ "tool_name": "Read", "path": "/x" }));
        assert_eq!(read, call("Read", Some("/x")));
        assert_eq!(
            Call::of(&json!({ "tool_name": "Bash", "path": "" })),
            call("Bash", None)
        );
        for odd in [json!(null), json!([]), json!({ "tool_name": 5 })] {
            assert_eq!(Call::of(&odd), Call::default());
        }
    }

    proptest! {
        #[test]
        fn the_answer_is_one_line_of_json_whatever_the_names(vm in "\\PC{0,40}", tool in "\\PC{0,20}", path in "\\PC{0,20}") {
            let answer = decide(Some(&vm), &call(&tool, Some(&path)), Some(Path::new("/o")));
            let answer = answer.unwrap_or_default().to_string();
            prop_assert!(!answer.contains('\n'));
            prop_assert!(serde_json::from_str::<Value>(&answer).is_ok());
        }
    }
}
