//! A session is recorded with the world, and replayed without it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

use std::path::Path;
use std::sync::Arc;

use pi_vers_host::policy::{Digest, Policy};
use pi_vers_host::secrets::Secrets;
use pi_vers_host::{Event, Headless, Host, Session, StartReason, Tape};
use serde_json::{Value, json};
use support::{guest, nowhere};

const CANARY: &str = "canary-3f9a51c07e";

const RULES: &str = "process = [{ program = \"/bin/cat\", args = [\"\"] }, { program = \"/usr/bin/cat\", args = [\"\"] }, \
                     { program = \"/bin/true\", args = [\"\"] }, { program = \"/usr/bin/true\", args = [\"\"] }]\n\
                     files = [{ path = \"/etc\", mode = \"ro\" }]\n\
                     events = [\"input\"]\n\
                     bus = [\"gossip\"]\n";

/// A session of `unruly` on this tape; replayed, it is granted nothing.
async fn session(tape: &Tape, home: &Path) -> Session {
    let wasm = guest("unruly");
    let rules = match tape.replays() {
        true => "",
        false => RULES,
    };
    let text = format!(
        "[extension.unruly]\ndigest = \"{}\"\n{rules}",
        Digest::of(&wasm)
    );
    let secrets = Secrets::new();
    secrets.insert("CANARY", CANARY.into());
    let host = Host::builder()
        .cache(Path::new(env!("CARGO_TARGET_TMPDIR")).join("cache"))
        .state(home.join("state"))
        .platform(nowhere())
        .secrets(Arc::new(secrets))
        .policy(Policy::parse(&text, "the test").unwrap())
        .tape(tape.clone())
        .build()
        .unwrap();
    let extension = host.load("unruly.wasm", wasm).await.unwrap();
    let front = Arc::new(Headless::new(std::env::temp_dir()));
    host.session(front, vec![extension]).unwrap()
}

/// What came of each of these calls, made one after another.
async fn play(tape: &Tape, calls: &[(&str, Value)]) -> Vec<String> {
    let home = tempfile::tempdir().unwrap();
    let session = session(tape, home.path()).await;
    let mut results = Vec::new();
    for (tool, arguments) in calls {
        let outcome = session.call(tool, arguments.clone()).outcome().await;
        results.push(match outcome {
            Ok(output) => output.text(),
            Err(why) => format!("{why:?}"),
        });
    }
    session.end().await;
    results
}

fn calls() -> Vec<(&'static str, Value)> {
    let long = "one line\n".repeat(20_000);
    vec![
        ("count", json!({})),
        ("run", json!({ "argv": ["cat"], "text": "hallo" })),
        ("run", json!({ "argv": ["cat"], "text": long })),
        (
            "run",
            json!({ "argv": ["cat"], "text": format!("a {CANARY} b") }),
        ),
        ("run", json!({ "argv": ["ls"] })),
        ("read-file", json!({ "text": "/etc/hostname" })),
        ("read-file", json!({ "text": "/root/secret" })),
        ("sleep", json!({ "n": 5 })),
        ("remember", json!({ "text": "this" })),
        ("recall", json!({})),
        ("panic", json!({ "text": "as asked" })),
        ("count", json!({})),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_session_comes_out_the_same_without_a_world() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tape.jsonl");
    let recording = Tape::record(&path);
    let recorded = play(&recording, &calls()).await;
    recording.finish().unwrap();
    assert_eq!(recorded[1], "Exit::Code(0)\nhallo");
    assert!(recorded[4].contains("Denied"), "{}", recorded[4]);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(CANARY));
    for _ in 0..2 {
        let replay = Tape::replay(&path).unwrap();
        let again = play(&replay, &calls()).await;
        replay.finish().unwrap();
        assert_eq!(again, recorded);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_difference_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tape.jsonl");
    let recording = Tape::record(&path);
    let calls = [("run", json!({ "argv": ["cat"], "text": "a" }))];
    play(&recording, &calls).await;
    recording.finish().unwrap();

    // Another argument.
    let replay = Tape::replay(&path).unwrap();
    let other = [("run", json!({ "argv": ["cat"], "text": "b" }))];
    let results = play(&replay, &other).await;
    let why = replay.finish().unwrap_err().to_string();
    assert!(
        why.contains("/arguments/text recorded \"a\", now \"b\"") && why.contains("line "),
        "{why}"
    );
    assert!(results[0].contains("differs"), "{}", results[0]);

    // A recording whose extension had asked something else.
    let changed = directory.path().join("changed.jsonl");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(
        &changed,
        text.replace("[\"cat\"]},\"env", "[\"tac\"]},\"env"),
    )
    .unwrap();
    assert_ne!(text, std::fs::read_to_string(&changed).unwrap());
    let replay = Tape::replay(&changed).unwrap();
    play(&replay, &calls).await;
    let why = replay.finish().unwrap_err().to_string();
    assert!(why.contains("recorded \"tac\", now \"cat\""), "{why}");

    // A call less.
    let replay = Tape::replay(&path).unwrap();
    play(&replay, &[]).await;
    let why = replay.finish().unwrap_err().to_string();
    assert!(why.contains("now the session ended before"), "{why}");

    // A call more.
    let replay = Tape::replay(&path).unwrap();
    let more = [calls[0].clone(), ("count", json!({}))];
    play(&replay, &more).await;
    let why = replay.finish().unwrap_err().to_string();
    assert!(
        why.contains("the recording is over, and unruly is called"),
        "{why}"
    );
}

/// Calls, events and messages that race, with streams both ways, one of which nobody reads to its end.
async fn race(tape: &Tape) -> Vec<String> {
    let home = tempfile::tempdir().unwrap();
    let session = session(tape, home.path()).await;
    session.start(StartReason::Startup).await.unwrap();
    session
        .call("background", json!({}))
        .outcome()
        .await
        .unwrap();
    let mut calls: Vec<_> = (0..3)
        .map(|n| {
            let text = format!("{n}\n").repeat(30_000);
            session.call("run", json!({ "argv": ["cat"], "text": text }))
        })
        .collect();
    let unread = "nobody reads this\n".repeat(20_000);
    calls.push(session.call("run", json!({ "argv": ["true"], "text": unread })));
    calls.push(session.call("sleep", json!({ "n": 3 })));
    calls.push(session.call("read-file", json!({ "text": "/etc/passwd" })));
    calls.push(session.call("read-file", json!({ "text": "/etc/not-there" })));
    session.tell("gossip", json!("hush"));
    let events = ["one", "two"].map(|text| session.event(Event::Input(text.into())));
    let reactions = futures::future::join_all(events).await;
    let mut results: Vec<_> = reactions.iter().map(|of| format!("{of:?}")).collect();
    for call in &mut calls {
        results.push(match call.outcome().await {
            Ok(output) => output.text(),
            Err(why) => format!("{why:?}"),
        });
    }
    for tool in ["ticks", "seen"] {
        let output = session.call(tool, json!({})).outcome().await.unwrap();
        results.push(output.text());
    }
    session.end().await;
    results
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fifty_replays_of_a_race_two_at_a_time_come_out_as_it_did() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tape.jsonl");
    let recording = Tape::record(&path);
    let recorded = race(&recording).await;
    recording.finish().unwrap();
    assert!(
        recorded.iter().any(|result| result.contains("hush")),
        "{recorded:?}"
    );
    for _ in 0..25 {
        let replays = [0, 1].map(|_| {
            let replay = Tape::replay(&path).unwrap();
            tokio::spawn(async move { (race(&replay).await, replay.finish()) })
        });
        for replay in replays {
            let (again, finished) = replay.await.unwrap();
            finished.unwrap();
            assert_eq!(again, recorded);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_given_up_is_given_up_at_the_same_place() {
    async fn cancelled(tape: &Tape) -> Vec<String> {
        let home = tempfile::tempdir().unwrap();
        let session = session(tape, home.path()).await;
        let arguments = json!({ "text": "https://vers.sh/", "n": 60_000 });
        let mut call = session.call("show-link", arguments);
        // A replay gives it up by itself; the recording once the extension has it.
        if !tape.replays() {
            call.updates().changed().await.unwrap();
            call.canceller().cancel();
        }
        let first = format!("{:?}", call.outcome().await);
        let second = session.call("count", json!({})).outcome().await.unwrap();
        session.end().await;
        vec![first, second.text()]
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tape.jsonl");
    let recording = Tape::record(&path);
    let recorded = cancelled(&recording).await;
    recording.finish().unwrap();
    for _ in 0..3 {
        let replay = Tape::replay(&path).unwrap();
        assert_eq!(cancelled(&replay).await, recorded);
        replay.finish().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_stands_still_ends_with_the_line_it_waits_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tape.jsonl");
    let recording = Tape::record(&path);
    play(&recording, &[("sleep", json!({ "n": 5 }))]).await;
    recording.finish().unwrap();
    // The answer that the call waits for is taken out: who made the tape was killed before it came.
    let text = std::fs::read_to_string(&path).unwrap();
    let cut: Vec<_> = text
        .lines()
        .take_while(|line| !line.contains("\"line\":\"answer\""))
        .collect();
    let short = directory.path().join("short.jsonl");
    std::fs::write(&short, cut.join("\n") + "\n").unwrap();
    let replay = Tape::replay(&short).unwrap();
    let results = play(&replay, &[("sleep", json!({ "n": 5 }))]).await;
    let why = replay.finish().unwrap_err().to_string();
    assert!(
        why.contains("the recording was cut off after line"),
        "{why}"
    );
    assert!(results[0].contains("cut off"), "{}", results[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tape_holds_one_session_and_overwrites_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tape.jsonl");
    let recording = Tape::record(&path);
    play(&recording, &[("count", json!({}))]).await;
    recording.finish().unwrap();
    let wasm = guest("unruly");
    let host = Host::builder()
        .platform(nowhere())
        .state(directory.path().join("state"))
        .tape(Tape::record(&path))
        .build()
        .unwrap();
    let extension = host.load("unruly.wasm", wasm).await.unwrap();
    let front = Arc::new(Headless::new(std::env::temp_dir()));
    let why = host.session(front, vec![extension]).unwrap_err();
    assert!(why.to_string().contains("is there already"), "{why}");
}
