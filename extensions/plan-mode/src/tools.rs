//! Which tools only read.
//!
//! A session knows its tools by name alone, so this is a list of names; the flag `plan-tools` adds to it. What is not in it
//! is hidden from the model while it plans, and blocked if it is called all the same. `bash` is judged command by command.

/// The tool whose commands are judged.
pub const SHELL: &str = "bash";

/// What the model is offered while it plans even if it was not before, where the harness has it.
const OFFERED: [&str; 6] = ["read", "bash", "grep", "find", "ls", "questionnaire"];

/// Tools that read: of harnesses, and of the extensions that come with the host.
const READERS: [&str; 23] = [
    "read",
    "grep",
    "find",
    "ls",
    "questionnaire",
    "vers_vms",
    "bg_list",
    "bg_logs",
    "vers_lt_status",
    "vers_lt_read",
    "vers_lt_discover",
    "vers_swarm_status",
    "vers_swarm_read",
    "vers_swarm_wait",
    "vers_swarm_discover",
    // A harness's views of results that were too large.
    "handle_lines",
    "handle_grep",
    "handle_head",
    "handle_tail",
    "handle_count",
    "handle_count_matches",
    "handle_slice",
    "cot_replay",
];

/// Tools that act where `bash` acts, so that on a throw-away branch they may do anything.
const ROUTED: [&str; 7] = ["bash", "read", "edit", "write", "grep", "find", "ls"];

/// The names in a setting: separated by commas or spaces.
#[must_use]
pub fn names(setting: &str) -> Vec<String> {
    let names = setting.split(|c: char| c == ',' || c.is_whitespace());
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Whether a tool only reads; `more` are those that the user says do.
#[must_use]
pub fn reads(tool: &str, more: &[String]) -> bool {
    READERS.contains(&tool) || more.iter().any(|name| name == tool)
}

/// Whether a tool acts on the active VM.
#[must_use]
pub fn is_routed(tool: &str) -> bool {
    ROUTED.contains(&tool)
}

/// What the model is offered while it plans.
#[must_use]
pub fn offered(all: &[String], active: &[String], more: &[String], on_branch: bool) -> Vec<String> {
    let offer = |name: &&String| {
        let name = name.as_str();
        let was = active.iter().any(|tool| tool == name);
        name == SHELL
            || OFFERED.contains(&name)
            || more.iter().any(|tool| tool == name)
            || was && (reads(name, more) || on_branch && is_routed(name))
    };
    all.iter().filter(offer).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Vec<String> {
        names(text)
    }

    #[test]
    fn what_is_not_known_does_not_only_read() {
        for tool in [
            "edit",
            "write",
            "bash",
            "vers_vm_delete",
            "vers_vm_state",
            "vers_vm_use",
            "vers_vm_local",
            "bg_start",
            "bg_stop",
            "anything",
        ] {
            assert!(!reads(tool, &[]), "{tool}");
        }
        for tool in ["read", "grep", "vers_vms", "bg_logs", "vers_lt_read"] {
            assert!(reads(tool, &[]), "{tool}");
        }
        assert!(reads("web_search", &list("web_search, other")));
    }

    #[test]
    fn the_offer_is_made_of_tools_that_there_are() {
        let all = list("bash,edit,find,grep,ls,my_tool,read,vers_vm_use,vers_vms,write");
        let active = list("read bash edit write vers_vms vers_vm_use");
        assert_eq!(
            offered(&all, &active, &[], false),
            list("bash find grep ls read vers_vms")
        );
        assert_eq!(
            offered(&all, &active, &list("my_tool"), false),
            list("bash find grep ls my_tool read vers_vms")
        );
        assert_eq!(
            offered(&all, &active, &[], true),
            list("bash edit find grep ls read vers_vms write")
        );
    }
}
