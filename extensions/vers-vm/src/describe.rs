//! What the extension offers.

use pi_vers_sdk::schema::{boolean, object, positive, string, tool};
use pi_vers_sdk::{Command, ExtensionInfo, Flag, FlagValue, Hints, Tool, active_vm};
use serde_json::{Value, json};

/// The description: the same every time.
pub(crate) fn describe() -> ExtensionInfo {
    ExtensionInfo {
        name: "vers-vm".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        summary: env!("CARGO_PKG_DESCRIPTION").into(),
        tools: vm_tools().into_iter().chain(routed_tools()).collect(),
        commands: vec![Command {
            name: "vers".into(),
            description: "Vers VM dashboard — view and manage VMs".into(),
            arguments: Some("[vm-id]".into()),
        }],
        shortcuts: Vec::new(),
        flags: flags(),
        subscriptions: Vec::new(),
        topics: vec![active_vm::ASK.into(), active_vm::USE.into()],
    }
}

fn flags() -> Vec<Flag> {
    let flag = |name: &str, description: &str, default| Flag {
        name: name.into(),
        description: description.into(),
        default,
    };
    vec![
        flag(
            "vers-api-key",
            "Vers API key (default: VERS_API_KEY, or the login of the vers CLI)",
            FlagValue::Text(String::new()),
        ),
        flag(
            "vers-base-url",
            "Base URL of the Vers API (default: VERS_BASE_URL, or the public platform)",
            FlagValue::Text(String::new()),
        ),
        flag(
            "vers-ssh-timeout",
            "Seconds a bash command may run on a VM unless the call says otherwise; 0 is no limit",
            FlagValue::Number(120.0),
        ),
    ]
}

fn vm_id() -> (&'static str, Value) {
    (
        "vmId",
        json!({ "type": "string", "minLength": 1, "description": "Id of the VM; the beginning of one is enough where only one VM's id begins so" }),
    )
}

fn vm_tools() -> Vec<Tool> {
    let reads = Hints::READ_ONLY | Hints::IDEMPOTENT | Hints::OPEN_WORLD;
    let adds = Hints::OPEN_WORLD;
    let sets = Hints::IDEMPOTENT | Hints::OPEN_WORLD;
    let ends = Hints::DESTRUCTIVE | Hints::OPEN_WORLD;
    vec![
        tool(
            "vers_vms",
            "Vers VMs",
            "List all Vers VMs. Returns VM IDs, states, and creation times.",
            reads,
            object(&[]),
        ),
        tool(
            "vers_vm_create",
            "Create Vers VM",
            "Create a new Vers VM. Returns its ID. It boots in the background unless wait_boot is true.",
            adds | Hints::LONG_RUNNING,
            object(&[
                ("vcpu_count?", positive("Number of vCPUs")),
                ("mem_size_mib?", positive("RAM in MiB")),
                ("fs_size_mib?", positive("Disk size in MiB")),
                (
                    "wait_boot?",
                    boolean("Wait until the VM runs (default: false)"),
                ),
            ]),
        ),
        tool(
            "vers_vm_delete",
            "Delete Vers VM",
            "Delete a Vers VM for good, with everything on it. If it is the active VM, tools act on the local machine again.",
            ends,
            object(&[vm_id()]),
        ),
        tool(
            "vers_vm_branch",
            "Branch Vers VM",
            "Clone a running Vers VM, with its memory, processes and files. Returns the new VM's ID.",
            adds,
            object(&[vm_id()]),
        ),
        tool(
            "vers_vm_commit",
            "Commit Vers VM",
            "Snapshot a Vers VM, with its memory, processes and files. Returns the commit ID, from which vers_vm_restore makes new VMs.",
            adds,
            object(&[
                vm_id(),
                (
                    "keep_paused?",
                    boolean("Leave the VM paused afterwards (default: false)"),
                ),
            ]),
        ),
        tool(
            "vers_vm_restore",
            "Restore Vers VM",
            "Start a new Vers VM from a commit. Returns the new VM's ID.",
            adds,
            object(&[(
                "commitId",
                json!({ "type": "string", "minLength": 1, "description": "Id of the commit" }),
            )]),
        ),
        tool(
            "vers_vm_state",
            "Set Vers VM State",
            "Pause or resume a Vers VM. A paused VM keeps its memory and files.",
            sets,
            object(&[
                vm_id(),
                (
                    "state",
                    json!({ "type": "string", "enum": ["Paused", "Running"], "description": "The state to set" }),
                ),
            ]),
        ),
        tool(
            "vers_vm_use",
            "Use Vers VM",
            "Make a Vers VM the active one: from then on bash, read, edit, write, grep, find and ls act on it instead of the local \
             machine, until vers_vm_local. A paused VM is resumed.",
            sets | Hints::LONG_RUNNING,
            object(&[vm_id()]),
        ),
        tool(
            "vers_vm_local",
            "Use Local Machine",
            "Let bash, read, edit, write, grep, find and ls act on the local machine again.",
            Hints::IDEMPOTENT,
            object(&[]),
        ),
    ]
}

fn routed_tools() -> Vec<Tool> {
    let reads = Hints::READ_ONLY | Hints::IDEMPOTENT;
    let only_replacing = |tool: Tool| Tool {
        only_replaces: true,
        ..tool
    };
    vec![
        tool(
            "bash",
            "bash",
            "Execute a bash command, on the active Vers VM if there is one, else on the local machine. The working directory persists \
             between commands. Returns stdout and stderr. Output is truncated to the last 2000 lines or 50KB (whichever is hit \
             first). If truncated, full output is saved to a file.",
            Hints::DESTRUCTIVE | Hints::OPEN_WORLD | Hints::LONG_RUNNING,
            object(&[
                ("command", string("Bash command to execute")),
                (
                    "timeout?",
                    json!({ "type": "number", "minimum": 0, "description": "Timeout in seconds (0: none; default on a VM: --vers-ssh-timeout, 120)" }),
                ),
            ]),
        ),
        tool(
            "read",
            "read",
            "Read the contents of a file, on the active Vers VM if there is one, else on the local machine. Supports text files and images \
             (jpg, png, gif, webp). Images are sent as attachments. For text files, output is truncated to 2000 lines or 50KB (whichever is \
             hit first). Use offset/limit for large files. When you need the full file, continue with offset until complete.",
            reads,
            object(&[
                (
                    "path",
                    string("Path to the file to read (relative or absolute)"),
                ),
                (
                    "offset?",
                    positive("Line number to start reading from (1-indexed)"),
                ),
                ("limit?", positive("Maximum number of lines to read")),
            ]),
        ),
        tool(
            "edit",
            "edit",
            "Edit a file by replacing exact text, on the active Vers VM if there is one, else on the local machine. The old text must match \
             exactly (including whitespace) and occur once. For several replacements in one file give edits; each is matched \
             against the original file, and they must not overlap.",
            Hints::DESTRUCTIVE,
            object(&[
                (
                    "path",
                    string("Path to the file to edit (relative or absolute)"),
                ),
                (
                    "oldText?",
                    string("Exact text to find and replace (must match exactly)"),
                ),
                ("newText?", string("New text to replace the old text with")),
                (
                    "edits?",
                    json!({
                        "type": "array",
                        "description": "Several replacements, instead of oldText and newText",
                        "items": object(&[
                            ("oldText", string("Exact text to find; must occur once in the original file")),
                            ("newText", string("New text to replace it with")),
                        ]),
                    }),
                ),
            ]),
        ),
        tool(
            "write",
            "write",
            "Write content to a file, on the active Vers VM if there is one, else on the local machine. Creates the file if it doesn't exist, \
             overwrites if it does. Automatically creates parent directories.",
            Hints::DESTRUCTIVE | Hints::IDEMPOTENT,
            object(&[
                (
                    "path",
                    string("Path to the file to write (relative or absolute)"),
                ),
                (
                    "content",
                    string("Content to write to the file, byte for byte"),
                ),
            ]),
        ),
        only_replacing(tool(
            "grep",
            "grep",
            "Search file contents for a pattern, on the active Vers VM if there is one, else on the local machine. Returns matching lines with file \
             paths and line numbers. Respects .gitignore (on a VM: where ripgrep is installed). Output is truncated to 100 matches or 50KB (whichever is hit \
             first). Long lines are truncated to 500 chars.",
            reads,
            object(&[
                (
                    "pattern",
                    string("Search pattern (regex or literal string)"),
                ),
                (
                    "path?",
                    string("Directory or file to search (default: current directory)"),
                ),
                (
                    "glob?",
                    string("Filter files by glob pattern, e.g. '*.ts' or '**/*.spec.ts'"),
                ),
                (
                    "ignoreCase?",
                    boolean("Case-insensitive search (default: false)"),
                ),
                (
                    "literal?",
                    boolean("Treat pattern as literal string instead of regex (default: false)"),
                ),
                (
                    "context?",
                    json!({ "type": "integer", "minimum": 0, "description": "Number of lines to show before and after each match (default: 0)" }),
                ),
                (
                    "limit?",
                    positive("Maximum number of matches to return (default: 100)"),
                ),
            ]),
        )),
        only_replacing(tool(
            "find",
            "find",
            "Search for files by glob pattern, on the active Vers VM if there is one, else on the local machine. Returns matching file paths relative \
             to the search directory. Respects .gitignore (on a VM: where ripgrep is installed). Output is truncated to 1000 results or 50KB \
             (whichever is hit first).",
            reads,
            object(&[
                (
                    "pattern",
                    string(
                        "Glob pattern to match files, e.g. '*.ts', '**/*.json', or 'src/**/*.spec.ts'",
                    ),
                ),
                (
                    "path?",
                    string("Directory to search in (default: current directory)"),
                ),
                (
                    "limit?",
                    positive("Maximum number of results (default: 1000)"),
                ),
            ]),
        )),
        only_replacing(tool(
            "ls",
            "ls",
            "List directory contents, on the active Vers VM if there is one, else on the local machine. Returns entries sorted alphabetically, with '/' \
             suffix for directories (on a VM: '@' for links). Includes dotfiles. Output is truncated to 500 entries or 50KB (whichever is hit first).",
            reads,
            object(&[
                (
                    "path?",
                    string("Directory to list (default: current directory)"),
                ),
                (
                    "limit?",
                    positive("Maximum number of entries to return (default: 500)"),
                ),
            ]),
        )),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn names_and_labels_are_those_users_know() {
        let info = describe();
        let names: Vec<&str> = info.tools.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "vers_vms",
                "vers_vm_create",
                "vers_vm_delete",
                "vers_vm_branch",
                "vers_vm_commit",
                "vers_vm_restore",
                "vers_vm_state",
                "vers_vm_use",
                "vers_vm_local",
                "bash",
                "read",
                "edit",
                "write",
                "grep",
                "find",
                "ls"
            ]
        );
        let replacing: Vec<&str> = info
            .tools
            .iter()
            .filter(|t| t.only_replaces)
            .map(|t| t.name.as_str())
            .collect();
        assert_eq!(replacing, ["grep", "find", "ls"]);
    }

    #[test]
    fn schemas_are_closed_and_every_parameter_is_described() {
        fn check(schema: &Value, tool: &str) {
            assert_eq!(schema["type"], "object");
            assert_eq!(schema["additionalProperties"], false, "{tool}");
            let properties = schema["properties"].as_object().unwrap();
            for required in schema["required"].as_array().unwrap() {
                assert!(properties.contains_key(required.as_str().unwrap()));
            }
            for (name, property) in properties {
                assert!(property["description"].is_string(), "{tool}.{name}");
                if let Some(items) = property.get("items") {
                    check(items, tool);
                }
            }
        }
        for tool in describe().tools {
            check(&serde_json::from_str(&tool.parameters).unwrap(), &tool.name);
        }
    }

    #[test]
    fn hints_are_true() {
        let hints = |name: &str| {
            describe()
                .tools
                .into_iter()
                .find(|t| t.name == name)
                .unwrap()
                .hints
        };
        for name in ["vers_vms", "read", "grep", "find", "ls"] {
            assert!(hints(name).contains(Hints::READ_ONLY), "{name}");
        }
        for name in ["vers_vm_delete", "bash", "edit", "write"] {
            assert!(
                hints(name).contains(Hints::DESTRUCTIVE) && !hints(name).contains(Hints::READ_ONLY),
                "{name}"
            );
        }
        assert!(!hints("vers_vm_create").contains(Hints::IDEMPOTENT));
    }
}
