//! The audit log: what it holds of a guest's uses, and what it never holds.

use std::path::PathBuf;
use std::sync::Arc;

use pi_vers_host::policy::{Digest, REQUESTS};
use pi_vers_host::secrets::Secrets;
use pi_vers_host::{AuditFile, Session};
use serde_json::{Value, json};

use crate::HARMLESS;
use crate::support::{Front, guest, nowhere, session_audited};

/// Hard to find once it is quoted.
const CANARY: &str = "can\"ary \\ of-a-secret";

struct Audited {
    session: Session,
    log: Arc<AuditFile>,
    path: PathBuf,
    home: tempfile::TempDir,
}

impl Audited {
    async fn new(rules: &str, front: Front) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("audit.jsonl");
        let log = Arc::new(AuditFile::open(&path, AuditFile::LIMIT).unwrap());
        let secrets = Secrets::new();
        secrets.insert("MY_KEY", CANARY.into());
        let (_, session) = session_audited(
            &[("unruly", rules)],
            Arc::new(front),
            home.path(),
            nowhere(),
            secrets,
            Some(log.clone()),
        )
        .await;
        Self {
            session,
            log,
            path,
            home,
        }
    }

    async fn call(&self, id: &str, tool: &str, arguments: Value) -> String {
        let mut call = self.session.call_with_id(id, tool, arguments);
        match call.outcome().await {
            Ok(output) => output.text(),
            Err(why) => why.to_string(),
        }
    }

    fn text(&self) -> String {
        assert!(self.log.flush());
        std::fs::read_to_string(&self.path).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        let text = self.text();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_denied_import_leaves_a_line_that_says_who_what_and_which_rule_is_missing() {
    let audited = Audited::new("store = false\nsession = []\nui = []", Front::default()).await;
    for (function, _) in REQUESTS {
        let before = audited.lines().len();
        let answer = audited
            .call(function, "try", json!({ "text": function }))
            .await;
        if !answer.starts_with("Error::Denied") {
            continue;
        }
        let lines = audited.lines();
        let line = lines
            .get(before)
            .unwrap_or_else(|| panic!("{function}: no line"));
        assert_eq!(line["decision"], "deny", "{line}");
        assert_eq!(line["extension"], "unruly");
        assert_eq!(line["digest"], Digest::of(&guest("unruly")).to_string());
        assert!(line["session"].as_str().is_some_and(|id| !id.is_empty()));
        let rule = line["rule"].as_str().unwrap();
        assert!(
            rule.starts_with("none: ") && rule.ends_with(" in the test"),
            "{line}"
        );
        // What waits for nothing is made without a call.
        if function != &"vers:harness/session#variable" {
            assert_eq!(line["call"], *function, "{line}");
        }
    }
    let denied = audited.lines().len();
    assert!(denied > 40, "{denied} lines");
    assert!(HARMLESS.len() + denied >= REQUESTS.len() / 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_allowed_is_recorded_with_its_rule_and_its_bytes_and_no_secret() {
    let rules = format!(
        "process = [{{ program = \"/bin/sh\", args = [\"-c ...\"], env = [\"TOKEN\", \"VERS_AGENT_DEPTH\"] }}]\n\
         secrets = [\"MY_KEY -> child env /bin/sh\"]\nfiles = [{{ path = {:?}, mode = \"ro\" }}]",
        std::env::temp_dir()
    );
    let audited = Audited::new(&rules, Front::default()).await;
    let file = audited.home.path().join("data");
    std::fs::write(&file, vec![b'x'; 12_345]).unwrap();
    audited
        .call("read", "read-file", json!({ "text": file }))
        .await;
    let argv = ["/bin/sh", "-c", &format!("true '{CANARY}'")];
    let said = audited
        .call(
            "run",
            "with-secret",
            json!({ "text": "MY_KEY", "argv": argv }),
        )
        .await;
    assert!(said.contains("Code(0)"), "{said}");
    // Refused, so that the missing rule would be the very argument vector.
    audited
        .call("no", "run", json!({ "argv": ["/bin/echo", CANARY] }))
        .await;
    let text = audited.text();
    for form in ["ary \\ of", "ary \\\\ of", "of-a-secret", "b2YtYS1zZWNyZX"] {
        assert!(!text.contains(form), "{form}: {text}");
    }
    let lines = audited.lines();
    let find = |call: &str, key: &str, value: &str| {
        lines
            .iter()
            .find(|line| line["call"] == call && line[key] == value)
            .unwrap_or_else(|| panic!("{call} {value}: {text}"))
    };
    let run = find("run", "capability", "process");
    assert_eq!(run["decision"], "allow");
    assert!(
        run["what"]["arguments"]
            .as_str()
            .unwrap()
            .contains("[redacted]"),
        "{run}"
    );
    assert!(
        run["rule"].as_str().unwrap().contains("\"-c ...\""),
        "{run}"
    );
    let secret = find("run", "capability", "secrets");
    assert_eq!(
        secret["rule"],
        "secrets = [\"MY_KEY -> child env /bin/sh\"] in the test"
    );
    assert_eq!(find("no", "capability", "process")["decision"], "deny");
    let read = find("read", "decision", "allow");
    assert_eq!(read["what"]["access"], "read");
    let moved = lines.iter().find(|line| line["bytes"].is_u64()).unwrap();
    assert_eq!(
        (&moved["bytes"], &moved["call"]),
        (&json!(12_345), &json!("read"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_was_asked_is_recorded_with_the_answer() {
    for (approves, word) in [(true, "ask:yes"), (false, "ask:no")] {
        let front = Front {
            approves,
            ..Front::default()
        };
        let audited = Audited::new("ask = [\"fleet\"]", front).await;
        let import = json!({ "text": "vers:platform/fleet#members" });
        audited.call("c", "try", import).await;
        let lines = audited.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert_eq!(lines[0]["decision"], word);
        assert_eq!(lines[0]["verb"], "members");
    }
}
