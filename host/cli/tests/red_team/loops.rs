//! A guest that never gives way, in every place where it can run.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::patch::{SPIN, begun_with};
use crate::raider::{Raid, text, with};
use crate::raw::{destroying, function, module, number, running, starting};
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

/// How long a text is for which the guest never makes room.
const LENGTH: usize = 4002;

#[test]
fn a_loop_where_the_host_asks_for_room_costs_the_instance() {
    // `cabi_realloc`: the host calls it to write a text into the guest. Only for one length, so that the guest lives until then.
    let wasm = begun_with(&with(&json!({})), "cabi_realloc", |_| {
        [
            b"\x20\x03\x41",
            &number(LENGTH)[..],
            b"\x46\x04\x40",
            SPIN,
            b"\x0b",
        ]
        .concat()
    });
    let raid = Raid::of(&wasm, "raider", SLICE);
    let blank = json!({ "what": "nothing", "text": "" });
    let arguments =
        json!({ "what": "nothing", "text": "x".repeat(LENGTH - blank.to_string().len()) });
    // Once as what a function of the host returns at once, and once as what comes of it later, while the guest waits.
    let value = format!("\"{}\"", "x".repeat(LENGTH - 2));
    let start = Instant::now();
    let told = raid.each(&[
        json!({ "what": "nothing" }),
        arguments,
        json!({ "what": "nothing" }),
        json!({ "what": "set", "text": "k", "argv": [value] }),
        json!({ "what": "get", "text": "k" }),
        json!({ "what": "nothing" }),
    ]);
    for (told, expected) in told
        .iter()
        .zip(["nothing", "", "nothing", "set", "", "nothing"])
    {
        match expected {
            "" => {
                assert_eq!(told["error"]["kind"], "crashed", "{told}");
                let why = told["error"]["message"].as_str().unwrap();
                assert!(why.contains("cpu-slice"), "{why}");
            }
            expected => assert_eq!(text(told), expected, "{told}"),
        }
    }
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn a_loop_behind_a_result_or_in_a_destructor_is_ended() {
    // The function that frees a result when the host has read it.
    let post_return = begun_with(
        &with(&json!({})),
        "cabi_post_vers:harness/description@0.1.0#describe",
        |_| SPIN.to_vec(),
    );
    // The destructor of a resource, when its handle is dropped.
    for wasm in [post_return, destroying(SPIN)] {
        let start = Instant::now();
        let ran = Raid::of(&wasm, "raider", SLICE).inspect();
        assert!(ran.code == 7 && ran.line().contains("cpu-slice"), "{ran:?}");
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
    // It is the destructor that does not end: one without a loop is no more than a description that is missing.
    let ran = Raid::of(&destroying(b""), "raider", SLICE).inspect();
    assert!(ran.code == 7 && ran.line().contains("describe"), "{ran:?}");
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
