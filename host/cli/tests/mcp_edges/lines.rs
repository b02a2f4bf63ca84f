//! Lines that are no message, or more than one, or too long. Whatever comes, the connection goes on.

use std::cell::RefCell;
use std::time::Instant;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::Home;
use crate::peer::{Peer, call};

/// Lines that no client sends.
fn garbage() -> Vec<Vec<u8>> {
    let deep = |open: &str, close: &str| {
        let depth = 200_000;
        format!("{}{}", open.repeat(depth), close.repeat(depth)).into_bytes()
    };
    let text = |text: &str| text.as_bytes().to_vec();
    let mut nested = text(r#"{"jsonrpc":"2.0","id":77,"method":"ping","params":"#);
    nested.extend(deep("{\"a\":[", "]}"));
    nested.push(b'}');
    vec![
        text("this is not JSON"),
        text(""),
        text("\r"),
        text("   "),
        text("null"),
        text("1e999"),
        text("\"text\""),
        text("{}"),
        text("[]"),
        text("[1,2,3]"),
        text("{\"jsonrpc\":\"1.0\",\"method\":1}"),
        text("{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"ping\"}"),
        text("{\"jsonrpc\":\"2.0\",\"result\":{}}"),
        text("{\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{},\"error\":{}}"),
        text("{\"jsonrpc\":\"2.0\",\"id\":12345,\"result\":{\"nobody\":\"asked\"}}"),
        text("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/no-such-thing\",\"params\":[]}"),
        text("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":[]}}"),
        text("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\"}"),
        vec![0],
        vec![0xff, 0xfe, b'{', b'}'],
        vec![0xc3],
        b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"\xff\xc0\"}}".to_vec(),
        text("{\"jsonrpc\":\"2.0\",\"id\":\"\\ud800\",\"method\":\"ping\"}"),
        deep("[", "]"),
        deep("{\"a\":", "}"),
        nested,
    ]
}

/// What is answered to garbage says that it is wrong, and claims to answer nobody who can tell.
fn refusals_only(peer: &mut Peer, sent: &str) {
    for message in peer.kept.drain(..) {
        assert!(message.get("error").is_some(), "{sent}: {message}");
    }
}

#[test]
fn garbage_ends_no_connection() {
    let home = Home::new();
    let mut peer = Peer::new(&home, &[]);
    // Before anybody has said who it is, and after.
    for introduced in [false, true] {
        if introduced {
            peer.initialize();
        }
        for mut line in garbage() {
            let shown: String = String::from_utf8_lossy(&line).chars().take(80).collect();
            line.push(b'\n');
            peer.raw(&line);
            peer.ping();
            refusals_only(&mut peer, &shown);
        }
    }
}

#[test]
fn any_line_at_all_ends_no_connection() {
    let home = Home::new();
    let mut peer = Peer::new(&home, &[]);
    peer.initialize();
    let peer = RefCell::new(peer);
    // Bytes, and JSON that is nearly a message.
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    let member = prop_oneof![
        Just(json!("2.0")),
        Just(json!("tools/call")),
        Just(json!({ "name": "vers_vms", "arguments": {} })),
        Just(json!(null)),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
    ];
    let names = ["jsonrpc", "method", "params", "result", "error", "_meta"];
    let nearly = proptest::collection::vec((0..names.len(), member), 0..6).prop_map(move |all| {
        let object: serde_json::Map<String, Value> = all
            .into_iter()
            .map(|(name, value)| (names[name].to_owned(), value))
            .collect();
        Value::Object(object).to_string().into_bytes()
    });
    let line = prop_oneof![bytes, nearly].prop_map(|mut line| {
        line.retain(|byte| *byte != b'\n');
        line.push(b'\n');
        line
    });
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(256));
    runner
        .run(&line, |line| {
            let mut peer = peer.borrow_mut();
            peer.raw(&line);
            peer.ping();
            peer.kept.clear();
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_message_may_come_in_any_pieces() {
    let home = Home::new();
    let mut peer = Peer::new(&home, &["unruly"]);
    peer.initialize();
    let text = "vögel 🦀 \\u0041";
    let message = format!(
        "{}\r\n",
        json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call("echo", json!({ "text": text })) })
    );
    // Each byte by itself: the pieces end within characters.
    for byte in message.as_bytes() {
        peer.raw(&[*byte]);
    }
    let answer = peer.answer(&json!(1));
    assert_eq!(answer["result"]["content"][0]["text"], text);
    // Many in one piece.
    let many: String = (10..60)
        .map(|id| {
            format!(
                "{}\n",
                json!({ "jsonrpc": "2.0", "id": id, "method": "ping" })
            )
        })
        .collect();
    peer.raw(many.as_bytes());
    for id in 10..60 {
        peer.answer(&json!(id));
    }
}

#[test]
fn a_batch_is_refused_or_answered_and_never_swallowed() {
    let home = Home::new();
    let mut peer = Peer::new(&home, &[]);
    peer.initialize();
    peer.raw(b"[{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"ping\"},{\"jsonrpc\":\"2.0\",\"id\":6,\"method\":\"ping\"}]\n");
    // Batches were in one version only, which had them for four months.
    let answer = peer.next("refusal", |message| message.get("error").is_some());
    assert_eq!(answer["error"]["code"], -32600, "{answer}");
    peer.ping();
}

#[test]
fn a_line_of_20_mb_is_taken_and_one_of_40_mb_refused() {
    let home = Home::new();
    let mut peer = Peer::new(&home, &["unruly"]);
    peer.initialize();
    let line = |id: u64, megabytes: usize| {
        let text = "x".repeat(megabytes * 1_000_000);
        format!(
            "{}\n",
            json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": call("nothing", json!({ "text": text })) })
        )
    };
    peer.raw(line(1, 20).as_bytes());
    let answer = peer.answer(&json!(1));
    // Whether a tool may be given so much is for the host to say, in words that the model reads.
    assert!(answer["result"]["content"].is_array(), "{answer}");
    peer.raw(line(2, 40).as_bytes());
    let answer = peer.answer(&Value::Null);
    assert_eq!(answer["error"]["code"], -32600, "{answer}");
    assert!(
        answer["error"]["message"].as_str().unwrap().contains("MiB"),
        "{answer}"
    );
    // Its rest is not taken for lines.
    peer.ping();
    refusals_only(&mut peer, "the rest of a long line");
}

#[test]
fn an_id_that_is_under_way_is_not_answered_twice_with_results() {
    let home = Home::new();
    let mut peer = Peer::new(&home, &["showcase"]);
    peer.initialize();
    peer.call(1, "noop", json!({}));
    peer.request(7, "tools/call", call("show_wait", json!({ "ms": 500 })));
    peer.request(7, "tools/call", call("noop", json!({})));
    let (one, two) = (peer.answer(&json!(7)), peer.answer(&json!(7)));
    let results: Vec<&Value> = [&one, &two]
        .into_iter()
        .filter(|answer| answer.get("result").is_some())
        .collect();
    assert_eq!(results.len(), 1, "{one} {two}");
    assert_eq!(results[0]["result"]["content"][0]["text"], "waited");
    // It is free again.
    assert_eq!(peer.call(7, "noop", json!({})), "ok");
}

#[test]
fn half_a_line_at_the_end_is_not_carried_out() {
    let home = Home::new();
    let mut peer = Peer::new(&home, &["showcase"]);
    peer.initialize();
    assert_eq!(peer.call(1, "show_count", json!({})), "1");
    let whole = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call("show_count", json!({})) }).to_string();
    // All but the end of the line.
    peer.raw(whole.as_bytes());
    let since = Instant::now();
    peer.close();
    let (status, _) = peer.ended(since);
    assert!(status.success(), "{status}");
    let rest = peer.rest();
    assert!(
        rest.iter()
            .all(|message| message["id"] != 2 || message.get("error").is_some()),
        "{rest:?}"
    );
}
