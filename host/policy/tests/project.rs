//! What else may stand in a project's file, and in no other.

#![allow(clippy::unwrap_used)]

use pi_vers_policy::Policy;

const OTHERS: &str =
    "[project]\nname = \"x\"\n[build]\ncommand = []\n[test]\n[extensions]\nx = \"x.wasm\"\n";

#[test]
fn a_projects_file_may_say_how_it_is_built_and_the_users_policy_may_not() {
    let project = Policy::parse_project(OTHERS, "pi-vers.toml").unwrap();
    assert_eq!(project.names().count(), 0);
    let why = Policy::parse(OTHERS, "policy.toml")
        .unwrap_err()
        .to_string();
    assert!(why.contains("unknown key"), "{why}");
    // What is mistyped is told in both.
    for text in ["[extnsion.x]\n", "[projects]\n"] {
        assert!(Policy::parse_project(text, "p").is_err(), "{text}");
        assert!(Policy::parse(text, "p").is_err(), "{text}");
    }
}
