//! `pi-vers policy`, and the audit log of a run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::os::unix::fs::PermissionsExt as _;

use common::Home;

const VM: &str = "0a0b0c0d-0000-4000-8000-000000000001";

#[test]
fn explain_names_the_rule_or_the_line_that_is_missing() {
    let home = Home::new();
    let ran = home.run(["policy", "explain", "vers-vm", "vms.list"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(
        ran.out.starts_with("allowed")
            && ran.out.contains("vms = [\"list\"] in the shipped grants"),
        "{ran:?}"
    );
    // The words after the capability are its own.
    let ran = home.run(["policy", "explain", "vers-vm", "vms.list", "--json"]);
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[test]
fn explain_says_what_to_add() {
    let home = Home::new();
    let ran = home.run(["policy", "explain", "--json", "vers-vm", "fleet.members"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    let said = &ran.json()[0];
    assert_eq!(said["decision"], "deny");
    assert_eq!(said["denied"]["add"]["line"], "fleet = [\"members\"]");
    let policy = format!(
        "[extension.mine]\ndigest = \"sha256:{}\"\nvms = {{ verbs = [\"delete\"], scope = \"label:team=web\" }}\nask = [\"process\"]\n",
        "0".repeat(64)
    );
    let file = home.write("policy.toml", policy);
    let run = |words: &[&str]| {
        let start = ["policy", "explain", "--policy", file.to_str().unwrap()];
        home.run(start.iter().chain(words))
    };
    assert_eq!(run(&["mine", "vms.delete", VM]).code, 3);
    let ran = run(&["--label", "team=web", "mine", "vms.delete", VM]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ran = run(&["mine", "process", "/bin/sh", "-c", "true"]);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.out.contains("somebody is asked"), "{ran:?}");
    for wrong in [
        ["mine", "vms.delet"],
        ["mine", "vms.delete"],
        ["mine", "sudo"],
        ["nobody", "store"],
    ] {
        assert_eq!(run(&wrong).code, 2, "{wrong:?}");
    }
}

#[test]
fn check_finds_unknown_keys_other_bytes_and_what_nobody_needs() {
    let home = Home::new();
    let check = |text: &str| {
        let file = home.write("policy.toml", text);
        home.run(["policy", "check", file.to_str().unwrap(), "--json"])
    };
    let ran = check("[extension.a]\ndigest = \"shipped\"\nproces = []\n");
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(
        ran.err.contains("policy.toml:3:1") && ran.err.contains("process"),
        "{ran:?}"
    );
    let text = format!(
        "[extension.vers-vm]\ndigest = \"sha256:{}\"\n[extension.vers-vm-copy]\ndigest = \"shipped\"\nfleet = [\"members\"]\n[extension.background-process]\ndigest = \"shipped\"\nprocess = [{{ program = \"/bin/sh\", args = \"any\" }}]\n",
        "0".repeat(64)
    );
    let ran = check(&text);
    assert_eq!(ran.code, 1, "{ran:?}");
    let said = &ran.json()[0];
    assert_eq!(said["ok"], false);
    let findings = said["findings"].to_string();
    for words in [
        "bound to sha256:0000",
        "grants `fleet`",
        "/bin/sh with any arguments",
    ] {
        assert!(findings.contains(words), "{words}: {findings}");
    }
    let ran = check("[extension.vers-vm]\ndigest = \"shipped\"\nvms = [\"list\"]\n");
    assert_eq!(
        (ran.code, &ran.json()[0]["ok"]),
        (0, &true.into()),
        "{ran:?}"
    );
}

#[test]
fn grant_shows_what_it_would_write_and_keeps_the_rest_of_the_file() {
    let home = Home::new();
    let old = "# mine\n[extension.other] # of a friend\ndigest = \"shipped\"\n";
    let file = home.write("policy.toml", old);
    let grant = |more: &[&str]| {
        let start = [
            "policy",
            "grant",
            "vers-vm",
            "--policy",
            file.to_str().unwrap(),
            "--rule",
            "fleet = [\"members\"]",
        ];
        home.run(start.iter().chain(more))
    };
    let now = || std::fs::read_to_string(&file).unwrap();
    // Nobody agreed.
    assert_eq!(grant(&[]).code, 2);
    let ran = grant(&["--print"]);
    assert!(
        ran.code == 0 && ran.out.contains("+ fleet: members"),
        "{ran:?}"
    );
    assert_eq!(now(), old);
    let ran = grant(&["--yes", "--json"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let said = &ran.json()[0];
    assert_eq!(said["changes"], serde_json::json!(["+ fleet: members"]));
    assert_eq!(said["written"], true);
    assert!(now().starts_with(old), "{}", now());
    let ran = home.run([
        "policy",
        "explain",
        "--policy",
        file.to_str().unwrap(),
        "vers-vm",
        "fleet.members",
    ]);
    assert_eq!(ran.code, 0, "{ran:?}");
    let before = home.write("old.toml", old);
    let ran = home.run([
        "policy",
        "diff",
        before.to_str().unwrap(),
        file.to_str().unwrap(),
    ]);
    assert_eq!(ran.out, "vers-vm\n  + fleet: members\n", "{ran:?}");
}

#[test]
fn a_run_leaves_its_uses_in_a_private_file_without_the_key() {
    let home = Home::new();
    let log = home.path("audit.jsonl");
    home.run(["run", "--audit", log.to_str().unwrap(), "vers_vms"]);
    let text = std::fs::read_to_string(&log).unwrap();
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let list = lines
        .iter()
        .find(|line| line["capability"] == "vms" && line["verb"] == "list");
    let list = list.unwrap_or_else(|| panic!("{text}"));
    assert_eq!(
        (&list["extension"], &list["decision"]),
        (&"vers-vm".into(), &"allow".into())
    );
    assert!(!text.contains("key-for-tests"), "{text}");
    let mode = std::fs::metadata(&log).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    // Without its log nothing runs.
    std::fs::set_permissions(&log, std::fs::Permissions::from_mode(0o644)).unwrap();
    let ran = home.run(["run", "--audit", log.to_str().unwrap(), "vers_vms"]);
    assert_eq!(ran.code, 8, "{ran:?}");
    assert!(ran.line().contains("chmod 600"), "{ran:?}");
}
