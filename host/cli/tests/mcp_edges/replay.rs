//! What real clients really sent: their openings are answered as they were when they were recorded, and their first call
//! goes through.
//!
//! `captures/` has one message a line and who sent it. Lists in answers were emptied, since another server gave them, and so
//! were ids of people and sessions. The call names a tool of the fixture.

use serde_json::{Value, json};

use crate::common::Home;
use crate::peer::{Peer, Wire, said};

/// What was recorded has all these, of the same kind; the other may have more.
fn alike(recorded: &Value, ours: &Value, at: &str) {
    match (recorded, ours) {
        (Value::Object(recorded), Value::Object(ours)) => {
            for (name, value) in recorded {
                let at = format!("{at}/{name}");
                alike(
                    value,
                    ours.get(name)
                        .unwrap_or_else(|| panic!("no {at}: {ours:?}")),
                    &at,
                );
            }
        }
        (Value::Array(recorded), Value::Array(ours)) => {
            for one in recorded {
                assert!(ours.contains(one), "{at} has no {one}: {ours:?}");
            }
        }
        // Texts about a server and numbers of it are its own.
        (Value::String(recorded), Value::String(ours)) => {
            if !["name", "title", "version", "instructions"]
                .iter()
                .any(|own| at.ends_with(own))
            {
                assert_eq!(recorded, ours, "{at}");
            }
        }
        (Value::Number(_), Value::Number(_)) => {}
        (recorded, ours) => assert_eq!(recorded, ours, "{at}"),
    }
}

/// Plays an opening and returns the call that follows it.
fn open(peer: &mut Peer, recorded: &str) -> Value {
    let mut lines = recorded.lines().peekable();
    while let Some(line) = lines.next() {
        let line: Value = serde_json::from_str(line).unwrap();
        let message = &line["message"];
        if line["from"] == "client" {
            if lines.peek().is_none() {
                return message.clone();
            }
            peer.send(message);
            continue;
        }
        let ours = match message.get("method").and_then(Value::as_str) {
            Some(method) => peer.notified(method),
            None => peer.answer(&message["id"]),
        };
        alike(message, &ours, "");
    }
    panic!("there is no call at the end");
}

#[test]
fn claude_code_is_answered_as_it_was() {
    let home = Home::new();
    // It gives a server sockets.
    let mut peer = Peer::over(Wire::Sockets, &home, &["showcase"]);
    let mut call = open(
        &mut peer,
        include_str!("captures/claude-code-2.1.330.jsonl"),
    );
    // Nobody was there to answer: it calls again, cancelling each question.
    let mut id = call["id"].as_u64().unwrap();
    for round in 0.. {
        peer.send(&call);
        let result = peer.answer(&json!(id))["result"].take();
        if result["resultType"] == "complete" {
            assert_eq!((round, said(&result)), (2, "nobody answered, none"));
            break;
        }
        assert_eq!(result["resultType"], "input_required", "{result}");
        let questions = result["inputRequests"].as_object().unwrap();
        let answers: serde_json::Map<String, Value> = questions
            .keys()
            .map(|key| (key.clone(), json!({ "action": "cancel" })))
            .collect();
        id += 1;
        call["id"] = id.into();
        call["params"]["_meta"]["progressToken"] = id.into();
        call["params"]["inputResponses"] = answers.into();
        call["params"]["requestState"] = result["requestState"].clone();
    }
}

#[test]
fn codex_is_answered_as_it_was() {
    let home = Home::new();
    let mut peer = Peer::new(&home, &["showcase"]);
    let call = open(&mut peer, include_str!("captures/codex-0.169.0.jsonl"));
    peer.send(&call);
    // Its version of the protocol has no titles of choices.
    for _ in 0..2 {
        let asked = peer.notified("elicitation/create");
        assert!(
            asked["params"]["requestedSchema"]["properties"].is_object(),
            "{asked}"
        );
        assert!(!asked.to_string().contains("oneOf"), "{asked}");
        peer.send(
            &json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "action": "decline" } }),
        );
    }
    let result = peer.answer(&call["id"])["result"].take();
    assert_eq!(said(&result), "nobody answered, none");
    assert!(result.get("resultType").is_none(), "{result}");
}
