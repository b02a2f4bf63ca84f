//! What the extension offers.

use pi_vers_sdk::schema::{boolean, object, string, tool};
use pi_vers_sdk::{ExtensionInfo, Hints};
use serde_json::json;

/// The description: the same every time.
pub(crate) fn describe() -> ExtensionInfo {
    ExtensionInfo {
        name: "vers-vm-copy".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        summary: env!("CARGO_PKG_DESCRIPTION").into(),
        tools: vec![tool(
            "vers_vm_copy",
            "Copy files to/from VM",
            "Copy a file or a directory from the local machine to a Vers VM, from a VM to the local machine, or between two VMs. A path \
             with the prefix 'vm:<vm_id>:' is on that VM (absolute, or relative to the home directory; ~ is the home directory), any other is \
             local (a local file called vm:x:y is ./vm:x:y). dst is the exact name of the copy, not the directory to put it into: copy \
             'a.txt' to 'vm:<vm_id>:/srv/a.txt'. Missing directories above dst are made. A file replaces a file; a directory is merged into a \
             directory that is there. Modes, times, links and empty directories are kept.",
            Hints::DESTRUCTIVE | Hints::IDEMPOTENT | Hints::OPEN_WORLD | Hints::LONG_RUNNING,
            object(&[
                (
                    "src",
                    string(
                        "What to copy. Prefix with 'vm:<vm_id>:' for VM paths, otherwise local.",
                    ),
                ),
                (
                    "dst",
                    string(
                        "The exact name of the copy. Prefix with 'vm:<vm_id>:' for VM paths, otherwise local.",
                    ),
                ),
                (
                    "recursive?",
                    boolean("Whether a directory may be copied (default: if src is one)"),
                ),
                (
                    "exclude?",
                    json!({
                        "type": "array",
                        "items": { "type": "string", "minLength": 1 },
                        "description": "What to leave out of a directory: patterns relative to src, as in .gitignore (for example node_modules, *.o, /target)",
                    }),
                ),
            ]),
        )],
        commands: Vec::new(),
        shortcuts: Vec::new(),
        flags: Vec::new(),
        subscriptions: Vec::new(),
        topics: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_parameters_are_those_users_know_and_one_more() {
        let info = describe();
        let schema: Value = serde_json::from_str(&info.tools[0].parameters).unwrap();
        let names: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        assert_eq!(names, ["src", "dst", "recursive", "exclude"]);
        assert_eq!(schema["required"], json!(["src", "dst"]));
    }

    #[test]
    fn the_description_says_what_a_destination_is() {
        let text = &describe().tools[0].description;
        assert!(
            text.contains("dst is the exact name of the copy") && text.contains("./vm:x:y"),
            "{text}"
        );
    }
}
