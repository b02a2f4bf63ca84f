//! The VMs of agents, through the binary, on a local platform.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod common;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use common::{Home, Ran};
use serde_json::{Value, json};

/// A platform of its own, removed with all it holds.
struct Platform {
    home: Home,
    state: PathBuf,
}

impl Platform {
    fn up() -> Self {
        let home = Home::new();
        let state = home.path("platform");
        let this = Self { home, state };
        let ran = this.local("up");
        assert_eq!(ran.code, 0, "{ran:?}");
        this
    }

    fn local(&self, what: &str) -> Ran {
        let state = self.state.to_str().unwrap();
        self.home.run(["local", what, "--json", "--state", state])
    }

    fn fleet(&self, words: &[&str]) -> Ran {
        let place = ["--local", "--state", self.state.to_str().unwrap()];
        self.home.run([&["fleet"], words, &place].concat())
    }

    /// Makes a VM with each of these sets of labels; their ids.
    fn vms(&self, labels: &[Value]) -> Vec<String> {
        let mut input = String::new();
        for (id, labels) in labels.iter().enumerate() {
            let config = json!({ "mem_size_mib": 256, "labels": labels });
            let request = json!({ "id": id, "method": "createRoot", "params": { "config": config, "waitBoot": true } });
            input.push_str(&format!("{request}\n"));
        }
        // Its input has to stay open until all is answered.
        let state = self.state.to_str().unwrap();
        let mut child = self
            .home
            .command(["core", "--local", "--state", state])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, input.as_bytes()).unwrap();
        let mut stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut ids = vec![String::new(); labels.len()];
        for _ in labels {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
            let answer: Value = serde_json::from_str(&line).unwrap();
            let id = usize::try_from(answer["id"].as_u64().unwrap()).unwrap();
            ids[id] = answer["result"]["vm_id"]
                .as_str()
                .unwrap_or_else(|| panic!("{line}"))
                .to_owned();
        }
        drop(stdin);
        assert!(child.wait().unwrap().success());
        ids
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        let ran = self.local("reset");
        if !std::thread::panicking() {
            assert_eq!(ran.code, 0, "{ran:?}");
        }
    }
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

#[test]
fn agents_are_listed_and_those_whose_time_has_passed_are_deleted_and_nothing_else() {
    let platform = Platform::up();
    let empty = platform.fleet(&["list"]);
    assert_eq!((empty.code, empty.out.as_str()), (0, ""));
    assert!(empty.line().contains("no VM carries"), "{empty:?}");

    let (old, later) = (now() - 7_300, now() + 9_000);
    let of = |name: &str, expires: &str| {
        json!({ "pi-vers.role": "worker", "pi-vers.name": name, "pi-vers.session": "s1", "pi-vers.owner": "local",
            "pi-vers.parent": "boss", "pi-vers.created": old.to_string(), "pi-vers.expires": expires })
    };
    let ids = platform.vms(&[
        of("over", &old.to_string()),
        of("needed", &later.to_string()),
        of("odd\u{1b}[2J\nforged row", "soon"),
        json!({ "pi-vers.role": "lieutenant", "pi-vers.name": "keeps" }),
        json!({ "team": "web" }),
    ]);
    let [over, needed, odd, keeps, other] = ids.as_slice() else {
        panic!("{ids:?}")
    };

    let listed = platform.fleet(&["list"]);
    assert_eq!((listed.code, listed.err.as_str()), (0, ""), "{listed:?}");
    assert_eq!(listed.out.lines().count(), 5, "{listed:?}");
    assert!(
        !listed.out.contains('\u{1b}') && !listed.out.contains(other),
        "{listed:?}"
    );
    let line = |id: &str| {
        listed
            .out
            .lines()
            .find(|line| line.starts_with(id))
            .unwrap()
    };
    for part in [
        "running", "worker", "over", "s1", "boss", "local", "2 h", "2 h ago",
    ] {
        assert!(line(over).contains(part), "{part}: {}", line(over));
    }
    assert!(line(needed).ends_with("in 2 h"), "{}", line(needed));
    assert!(
        line(odd).contains("\\u{1b}[2J\\u{a}forged row"),
        "{}",
        line(odd)
    );
    assert!(line(keeps).ends_with("never"), "{}", line(keeps));

    let json = platform.fleet(&["list", "--json"]).json();
    assert_eq!(json.len(), 4);
    let entry = json.iter().find(|entry| entry["vm"] == *over).unwrap();
    assert_eq!(
        (&entry["name"], &entry["expires"]),
        (&json!("over"), &json!(old))
    );

    let verdicts = |ran: &Ran| -> Vec<(String, String)> {
        let mut told: Vec<_> = ran
            .json()
            .iter()
            .map(|it| {
                (
                    it["vm"].as_str().unwrap().to_owned(),
                    it["action"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        told.sort();
        told
    };
    let expected = |action: &str| {
        let mut told: Vec<_> = [
            (over, action),
            (needed, "kept"),
            (odd, "kept"),
            (keeps, "kept"),
        ]
        .map(|(id, action)| (id.clone(), action.to_owned()))
        .into();
        told.sort();
        told
    };
    let dry = platform.fleet(&["gc", "--dry-run", "--json"]);
    assert_eq!(
        (dry.code, verdicts(&dry)),
        (0, expected("would-delete")),
        "{dry:?}"
    );
    let dry = platform.fleet(&["gc", "--dry-run"]);
    let said = |id: &str| dry.out.lines().find(|line| line.contains(id)).unwrap();
    assert!(said(over).starts_with("would delete") && said(over).contains("it expired 2 h ago"));
    assert!(said(needed).contains("it expires in 2 h"), "{dry:?}");
    assert!(
        said(odd).contains("is no time") && !dry.out.contains('\u{1b}'),
        "{dry:?}"
    );
    assert!(said(keeps).contains("no label pi-vers.expires"), "{dry:?}");
    assert_eq!(platform.fleet(&["list", "--json"]).json().len(), 4);

    let done = platform.fleet(&["gc", "--json"]);
    assert_eq!(
        (done.code, verdicts(&done)),
        (0, expected("deleted")),
        "{done:?}"
    );
    let left = platform.fleet(&["list", "--json"]).json();
    assert!(left.len() == 3 && left.iter().all(|entry| entry["vm"] != *over));
    // What is no agent's is not touched.
    let state = platform.state.to_str().unwrap();
    let vms = platform
        .home
        .run(["run", "--quiet", "--local", "--state", state, "vers_vms"]);
    assert!(vms.out.contains(other.as_str()), "{vms:?}");
}

#[test]
fn a_platform_that_cannot_be_asked_ends_with_the_code_for_it() {
    let home = Home::new();
    for words in [&["fleet", "list"][..], &["fleet", "gc", "--dry-run"]] {
        let ran = home.run(words);
        assert_eq!(ran.code, 4, "{ran:?}");
        assert!(ran.line().contains("127.0.0.1"), "{ran:?}");
    }
    let ran = home.run(["fleet", "list", "--local", "--state", "nothing-here"]);
    assert_eq!(ran.code, 4, "{ran:?}");
    assert!(ran.line().contains("pi-vers local up"), "{ran:?}");
    assert_eq!(home.run(["fleet"]).code, 2);
}
