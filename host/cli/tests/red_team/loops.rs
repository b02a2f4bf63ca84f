//! A guest that never gives way, in every place where it can run.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::raider::{Raid, text};
use crate::raw::{function, module, running, starting};
use crate::session::Peer;

/// The limit under which guests run here; what is asserted is many times more, for the machine may have other work.
const SLICE: &str = "limits = { cpu-slice = \"300 ms\", call = \"60 s\" }";
const SOON: Duration = Duration::from_secs(60);

#[test]
fn a_loop_before_anything_is_called_is_ended() {
    // The start function of a core module, and a description that never comes.
    let start = Instant::now();
    let ran = Raid::of(&running(b"\x03\x40\x0c\x00\x0b"), "raider", "").inspect();
    assert!(ran.code == 7 && ran.line().contains("cpu-slice"), "{ran:?}");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    let ran = Raid::ordered(&json!({ "spin": "describe" }), "").inspect();
    assert!(ran.code == 7 && ran.line().contains("cpu-slice"), "{ran:?}");
    // One that computes inside of a single instruction is ended behind it.
    let fill = b"\x41\x00\x41\x01\x41\x80\x80\x80\x80\x02\xfc\x0b\x00";
    let code = [b"\x03\x40", &fill[..], b"\x0c\x00\x0b"].concat();
    let memory = crate::raw::section(5, b"\x01\x00\x80\x40");
    let wasm = starting(&module(&[function(b"\x00", &code)], &memory));
    let start = Instant::now();
    let ran = Raid::of(&wasm, "raider", "").inspect();
    assert_eq!(ran.code, 7, "{ran:?}");
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn a_loop_at_start_in_a_call_or_at_the_end_costs_the_instance() {
    for place in ["start", "stop"] {
        let raid = Raid::ordered(&json!({ "spin": place }), SLICE);
        let start = Instant::now();
        let ran = raid.once(json!({ "what": "nothing" }));
        let expected = if place == "start" { 7 } else { 0 };
        assert_eq!(ran.code, expected, "{place}: {ran:?}");
        assert!(start.elapsed() < SOON, "{place}: {:?}", start.elapsed());
    }
    let raid = Raid::new(SLICE);
    let told = raid.each(&[
        json!({ "what": "spin" }),
        json!({ "what": "nothing" }),
        json!({ "what": "spin-later" }),
        json!({ "what": "sleep", "n": 60_000 }),
        json!({ "what": "nothing" }),
    ]);
    assert_eq!(told[0]["error"]["kind"], "crashed", "{}", told[0]);
    assert_eq!(text(&told[1]), "nothing");
    // It was waiting in the same instance when the background task began to loop.
    assert_eq!(told[3]["error"]["kind"], "crashed", "{}", told[3]);
    assert_eq!(text(&told[4]), "nothing");
}

#[test]
fn a_call_that_computes_on_after_it_was_given_up_is_ended_long_before_its_limits() {
    // Neither the slice nor the deadline would end it within the test's patience.
    let raid = Raid::new("limits = { cpu-slice = \"10 min\", call = \"10 min\" }");
    for what in ["spin", "spin-told"] {
        let start = Instant::now();
        let arguments = json!({ "what": what }).to_string();
        let ran = raid.run(&["run", "--json", "--timeout", "300ms", "raid", &arguments]);
        assert_eq!(ran.json()[0]["error"]["kind"], "timed-out", "{ran:?}");
        assert!(start.elapsed() < SOON, "{what}: {:?}", start.elapsed());
    }
}

#[test]
fn a_loop_in_what_a_client_asks_for_leaves_the_client_its_server() {
    let methods = [
        ("resources", "resources/list", json!({})),
        ("templates", "resources/templates/list", json!({})),
        ("read", "resources/read", json!({ "uri": "raider://one" })),
        ("prompts", "prompts/list", json!({})),
        ("prompt", "prompts/get", json!({ "name": "raid" })),
        (
            "complete-argument",
            "completion/complete",
            json!({ "ref": { "type": "ref/prompt", "name": "raid" }, "argument": { "name": "what", "value": "a" } }),
        ),
    ];
    for (place, method, parameters) in methods {
        let raid = Raid::ordered(&json!({ "spin": place, "text": "t" }), SLICE);
        let mut peer = Peer::new(&raid, &[]);
        let start = Instant::now();
        let answer = peer.ask(method, parameters);
        assert!(answer.get("id").is_some(), "{place}: {answer}");
        assert_eq!(
            peer.raid(json!({ "what": "nothing" })),
            "nothing",
            "{place}"
        );
        assert!(start.elapsed() < SOON, "{place}: {:?}", start.elapsed());
        peer.end();
    }
}

#[test]
fn a_panic_anywhere_is_a_sentence() {
    for (place, code) in [("describe", 7), ("start", 7), ("stop", 0)] {
        let raid = Raid::ordered(&json!({ "panic": place }), "");
        let ran = raid.once(json!({ "what": "nothing" }));
        assert_eq!(ran.code, code, "{place}: {ran:?}");
        assert!(!ran.err.contains("RUST_BACKTRACE"), "{place}: {ran:?}");
    }
    let told = Raid::new("").each(&[
        json!({ "what": "panic", "text": "\u{1b}[2J" }),
        json!({ "what": "nothing" }),
    ]);
    assert_eq!(told[0]["error"]["kind"], "crashed");
    assert_eq!(text(&told[1]), "nothing");
}
