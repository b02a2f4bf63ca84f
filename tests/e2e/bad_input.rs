//! Extensions that do what they must not, through the binary: each is stopped, named, and started anew; others go on.

use pi_vers_host::policy::Digest;
use pi_vers_tests::{Done, Scratch, built, text};
use serde_json::{Value, json};

/// Runs these calls in one session, with the guest that breaks every rule and these lines of policy for it.
async fn run(rules: &str, calls: &[(&str, Value)]) -> Done {
    let scratch = Scratch::new();
    let guest = built::fixture("unruly");
    let digest = Digest::of(&std::fs::read(&guest).unwrap());
    std::fs::write(
        scratch.work().join("policy.toml"),
        format!("[extension.unruly]\ndigest = \"{digest}\"\n{rules}\n"),
    )
    .unwrap();
    let lines: Vec<String> = calls
        .iter()
        .map(|(tool, arguments)| json!({ "tool": tool, "arguments": arguments }).to_string())
        .collect();
    std::fs::write(scratch.work().join("script"), lines.join("\n")).unwrap();
    let guest = guest.to_str().unwrap();
    let done = scratch
        .run(&[
            "run",
            "--json",
            "--keep-going",
            "--extension",
            guest,
            "--policy",
            "policy.toml",
            "--script",
            "script",
        ])
        .await;
    scratch.nothing_left();
    done
}

fn kind(line: &Value) -> &str {
    line["error"]["kind"].as_str().unwrap_or("ok")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_that_traps_loops_or_eats_is_stopped_named_and_started_anew() {
    let cases = [
        ("panic", json!({ "text": "as asked" }), "crashed"),
        ("recurse", json!({ "n": 100_000_000 }), "crashed"),
        ("eat", json!({ "n": 500 }), "crashed"),
        ("spin", json!({}), "timed-out"),
        ("stubborn", json!({}), "timed-out"),
        ("deaf", json!({}), "timed-out"),
        ("huge", json!({ "n": 60_000_000 }), "contract"),
        ("broken-details", json!({}), "contract"),
    ];
    let mut calls = vec![("count", json!({}))];
    for (tool, arguments, _) in &cases {
        calls.extend([
            (*tool, arguments.clone()),
            ("echo", json!({ "text": "still here" })),
            ("count", json!({})),
        ]);
    }
    let done = run(
        "limits = { call = \"1500 ms\", memory = \"64 MiB\" }",
        &calls,
    )
    .await;
    let lines = done.lines();
    assert_eq!(lines.len(), calls.len(), "{done:?}");
    assert_eq!(text(&lines[0]), "1");
    for ((tool, _, expected), results) in cases.iter().zip(lines[1..].chunks(3)) {
        let [bad, echo, count] = results else {
            panic!("{results:?}")
        };
        assert_eq!(kind(bad), *expected, "{tool}: {bad}");
        let message = bad["error"]["message"].as_str().unwrap();
        assert!(
            message.contains(if *expected == "timed-out" {
                tool
            } else {
                "unruly"
            }) && !message.contains('\n'),
            "{message}"
        );
        assert_eq!(
            (kind(echo), text(echo).as_str()),
            ("ok", "still here"),
            "after {tool}: {echo}"
        );
        // What crashed or hung has lost its memory; what only broke a promise has not.
        let anew = *expected == "crashed" || *tool == "spin";
        assert_eq!(text(count) == "1", anew, "after {tool}: {count}");
    }
    assert_eq!(
        done.code,
        Some(7),
        "the first failure was a crash: {done:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_grants_nothing_outside_is_reached() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "secret").unwrap();
    let calls = [
        ("run", json!({ "argv": ["/bin/true"] })),
        ("read-file", json!({ "text": secret.path() })),
        (
            "delete-vm",
            json!({ "text": "00000000-0000-4000-8000-000000000000" }),
        ),
        ("echo", json!({ "text": "but it may talk" })),
        // Another extension of the same session, and no way through it.
        ("vers_vm_local", json!({})),
    ];
    let done = run("", &calls).await;
    let lines = done.lines();
    for (line, (tool, _)) in lines[..3].iter().zip(&calls) {
        assert_eq!(kind(line), "denied", "{tool}: {line}");
        assert!(
            line["error"]["message"]
                .as_str()
                .unwrap()
                .contains("unruly"),
            "{tool}: who asked: {line}"
        );
    }
    assert_eq!(
        (text(&lines[3]).as_str(), text(&lines[4]).as_str()),
        ("but it may talk", "Already in local mode.")
    );
    assert!(!done.stdout.contains("secret"), "{done:?}");
    assert_eq!(done.code, Some(3));
}
