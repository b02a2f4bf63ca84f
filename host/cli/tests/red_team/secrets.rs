//! Canaries: values that are planted wherever the host takes secrets from, and looked for wherever anything comes out.

use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::raider::Raid;
use crate::session::Peer;
use crate::web::Web;

const KEY: &str = "canary/K+9-of-the-platform key";
const PROXY: &str = "canary/P+8-of-the-model proxy";
const TOKEN: &str = "canary/T+7-of-the-fleet token";

/// The values, and what they look like in other clothes.
fn forms() -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for value in [KEY, PROXY, TOKEN] {
        forms.push(value.as_bytes().to_vec());
        forms.push(
            base64::engine::general_purpose::STANDARD
                .encode(value)
                .into_bytes(),
        );
        let escaped: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
        forms.push(escaped.into_bytes());
        forms.push(
            value
                .replace('/', "%2F")
                .replace('+', "%2B")
                .replace(' ', "%20")
                .into_bytes(),
        );
        let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
        forms.push(hex.into_bytes());
    }
    forms
}

fn clean(what: &str, bytes: &[u8]) {
    for form in forms() {
        let found = bytes.windows(form.len()).any(|window| window == form);
        assert!(
            !found,
            "a secret in {what}: {}",
            String::from_utf8_lossy(bytes)
        );
    }
}

/// Every file below.
fn clean_files(root: &Path, but: &Path) {
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        if path == but || path.is_symlink() {
            continue;
        }
        match std::fs::read_dir(&path) {
            Ok(entries) => open.extend(entries.map(|entry| entry.unwrap().path())),
            Err(_) => clean(
                &path.display().to_string(),
                &std::fs::read(&path).unwrap_or_default(),
            ),
        }
    }
}

fn raid(web: &Web) -> Raid {
    let rules = format!(
        "http = [{}]\nsecrets = [\"LLM_PROXY_KEY -> child env\", \"LLM_PROXY_KEY -> vm env\", \"LLM_PROXY_KEY -> http {}\"]\nprocess = [{{ program = \"/usr/bin/printenv\", args = [\"*\"], env = \"any\" }}, {{ program = \"/usr/bin/sleep\", args = [\"*\"], env = \"any\" }}, {{ program = \"/bin/sleep\", args = [\"*\"], env = \"any\" }}]\nvms = [\"get\"]\nshell = {{ vms = \"any\", commands = \"any\", env = \"any\" }}\nfiles = [{{ path = \".\", mode = \"rw\" }}]\nui = [\"confirm\"]\nenvironment = [\"OTHER\"]\nsession = [\"append-entry\", \"entries\", \"send-message\"]",
        web.rule("/*"),
        web.url("")
    );
    let mut raid = Raid::new(&rules);
    raid.home.set("VERS_API_KEY", KEY);
    raid.home.set("LLM_PROXY_KEY", PROXY);
    raid.home.set("VERS_AUTH_TOKEN", TOKEN);
    // A key in a variable that is granted by mistake.
    raid.home.set("OTHER", &format!("prefix {TOKEN}"));
    let audit = raid.home.path("audit.jsonl");
    raid.home.set("PI_VERS_AUDIT", audit.to_str().unwrap());
    raid.home.set("PI_VERS_LOG", "trace");
    raid
}

#[test]
fn no_canary_is_found_in_anything_that_comes_out() {
    let web = Web::new();
    let raid = raid(&web);
    let header = json!([["x-key", "secret:LLM_PROXY_KEY"]]);
    let secret = json!([["TOKEN", "secret:LLM_PROXY_KEY"]]);
    let vm = "01234567-89ab-4def-8123-456789abcdef";
    let mut raids = vec![
        // Used as granted: by a server that repeats what it was sent, in a header and in pieces.
        json!({ "what": "http", "text": web.url("/echo"), "headers": header }),
        // By a program that prints it: the program has it, and what the tool says of it has not.
        json!({ "what": "exec", "argv": ["printenv", "TOKEN"], "env": secret }),
        // To where it was not granted.
        json!({ "what": "exec", "argv": ["printenv", "TOKEN"], "env": [["TOKEN", "secret:VERS_API_KEY"]] }),
        json!({ "what": "exec", "argv": ["printenv", "TOKEN"], "env": [["TOKEN", "secret:NOBODY"]] }),
        json!({ "what": "http", "text": "http://127.0.0.1:9/", "headers": header }),
        json!({ "what": "http", "text": web.url("/echo"), "headers": [["x-key", "secret:VERS_API_KEY"]] }),
        json!({ "what": "variable", "text": "LLM_PROXY_KEY" }),
        json!({ "what": "variable", "text": "OTHER" }),
        json!({ "what": "variable", "text": "VERS_API_KEY" }),
        json!({ "what": "has-secret", "text": "LLM_PROXY_KEY" }),
        json!({ "what": "has-secret", "text": "VERS_API_KEY" }),
        // Failures of every kind on the way.
        json!({ "what": "vm-exec", "vm": vm, "argv": ["true"], "env": secret }),
        json!({ "what": "http", "text": web.url("/to?http://127.0.0.1:9/"), "headers": header }),
        json!({ "what": "http", "text": web.url("/fields"), "headers": header }),
        json!({ "what": "exec", "argv": ["/nonexistent"], "env": secret }),
        json!({ "what": "read", "text": "/proc/self/environ" }),
    ];
    // A guest that has a value from elsewhere, and wants to hand it on in whatever it can.
    let quoted = serde_json::to_string(PROXY).unwrap();
    let member = json!({ PROXY: [PROXY, { "a": PROXY }] }).to_string();
    for what in [
        "text", "fail", "error", "denied", "update", "log", "notify", "warn", "status", "panic",
        "ask",
    ] {
        raids.push(json!({ "what": what, "text": PROXY, "n": 1 }));
    }
    raids.extend([
        json!({ "what": "details", "text": quoted }),
        json!({ "what": "details", "text": member }),
        json!({ "what": "append", "text": "k", "argv": [member] }),
        json!({ "what": "text", "text": base64::engine::general_purpose::STANDARD.encode(PROXY) }),
        json!({ "what": "exec", "argv": ["printenv", PROXY] }),
        json!({ "what": "exec", "argv": ["/usr/bin/id", PROXY] }),
        json!({ "what": "http", "text": format!("http://127.0.0.1:9/?{}", PROXY.replace(' ', "%20")) }),
        json!({ "what": "read", "text": format!("/nowhere/{PROXY}") }),
    ]);
    // The host's own view of what it was told to do is the test's: it is not looked into.
    let lines: Vec<String> = raids
        .iter()
        .map(|raid| json!({ "tool": "raid", "arguments": raid }).to_string())
        .collect();
    let elsewhere = tempfile::tempdir().unwrap();
    let script = elsewhere.path().join("script.jsonl");
    std::fs::write(&script, lines.join("\n")).unwrap();
    for json in [true, false] {
        let mut words = vec![
            "run",
            "--keep-going",
            "--session",
            "kept",
            "--script",
            script.to_str().unwrap(),
        ];
        if json {
            words.push("--json");
        }
        let ran = raid.run(&words);
        clean("standard output", ran.out.as_bytes());
        clean("standard error", ran.err.as_bytes());
        if json {
            let told = ran.json();
            let text = |at: usize| {
                told[at]["content"][0]["text"]
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            };
            assert!(
                text(0).starts_with("200 ") && text(0).contains("[redacted]"),
                "{}",
                text(0)
            );
            assert!(text(1).contains("[redacted]"), "{}", text(1));
            assert_eq!((text(9), text(10)), ("true".into(), "false".into()));
        }
    }
    // The server it was for has it.
    assert!(web.seen().iter().any(|request| request.contains(PROXY)));
    clean_files(raid.home.root.path(), Path::new("/nonexistent"));
    for words in [vec!["tools", "--json"], vec!["tools"]] {
        let ran = raid.run(&words);
        clean("the tools", ran.out.as_bytes());
        clean("the tools' errors", ran.err.as_bytes());
    }
    for words in [vec!["whoami"], vec!["doctor"], vec!["policy", "check"]] {
        let ran = raid.home.run(&words);
        clean(words[0], ran.out.as_bytes());
        clean(words[0], ran.err.as_bytes());
    }
}

#[test]
fn a_guest_is_not_told_what_a_server_repeats() {
    let web = Web::new();
    let raid = raid(&web);
    let header = json!([["x-key", "secret:LLM_PROXY_KEY"], ["x-other", "plain"]]);
    // The guest writes down what it was told, and reads it in pieces: no redaction of the tool's own text is between it and the value.
    let told = raid.each(&[json!({ "what": "http", "text": web.url("/echo"), "headers": header })]);
    let text = crate::raider::text(&told[0]);
    assert!(text.contains("x-other: plain"), "{text}");
    // Twice: in the header that repeats it, and in the body.
    assert_eq!(text.matches("[redacted]").count(), 2, "{text}");
}

#[test]
fn no_argument_vector_of_a_child_holds_a_secret() {
    let web = Web::new();
    let raid = raid(&web);
    let mut peer = Peer::new(&raid, &[]);
    let secret = json!([["TOKEN", "secret:LLM_PROXY_KEY"]]);
    peer.raid(json!({ "what": "keep", "argv": ["sleep", "9517534"], "env": secret }));
    let end = Instant::now() + Duration::from_secs(30);
    while crate::processes::processes("9517534") == 0 {
        assert!(Instant::now() < end, "it runs");
        std::thread::sleep(Duration::from_millis(5));
    }
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    for entry in all {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        clean("an argument vector", &line);
    }
    peer.end();
    let log: Vec<Value> = std::fs::read_to_string(raid.home.path("audit.jsonl"))
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    // Who, which bytes, what, and what was decided.
    let used = log
        .iter()
        .find(|line| line["capability"] == "secrets")
        .unwrap();
    assert_eq!(
        (&used["extension"], &used["decision"]),
        (&"raider".into(), &"allow".into())
    );
    assert!(
        used["digest"].as_str().unwrap().starts_with("sha256:"),
        "{used}"
    );
    assert!(
        used["time"].is_string() && used["what"].is_object(),
        "{used}"
    );
}
