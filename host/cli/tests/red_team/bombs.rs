//! Guests that use up: memory, tables, the stack, handles, streams, tasks, logs, notices, results. The host lives, and says which limit it was.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::patch::begun_with;
use crate::raider::{Raid, text, with};
use crate::raw::{function, module, number, running, section, starting};

/// A raid that costs the instance, and what the host says of it; then a new instance serves.
fn costs(raid: &Raid, what: Value, says: &str) {
    let told = raid.each(&[what, json!({ "what": "nothing" })]);
    assert_eq!(told[0]["error"]["kind"], "crashed", "{}", told[0]);
    let message = told[0]["error"]["message"].as_str().unwrap();
    assert!(message.contains(says), "{says}: {message}");
    assert_eq!(text(&told[1]), "nothing");
}

#[test]
fn memory_and_the_stack_have_an_end() {
    let raid = Raid::new("limits = { memory = \"64 MiB\" }");
    costs(&raid, json!({ "what": "eat", "n": 100 }), "`memory`");
    costs(
        &raid,
        json!({ "what": "recurse", "n": 100_000_000 }),
        "stack",
    );
}

/// A loop that grows something by what `grow` says until it fails, and then traps: in the start function.
fn growing(grow: &[u8], memory: &[u8]) -> Raid {
    // loop { grow; -1; i32.ne; br_if 0 }; unreachable
    let code = [b"\x03\x40", grow, b"\x41\x7f\x47\x0d\x00\x0b\x00"].concat();
    let wasm = starting(&module(&[function(b"\x00", &code)], memory));
    Raid::of(&wasm, "raider", "")
}

#[test]
fn memories_and_tables_of_a_description_have_an_end() {
    let memory = section(5, b"\x01\x00\x00");
    let ran = growing(b"\x41\x80\x04\x40\x00", &memory).inspect();
    assert!(ran.code == 7 && ran.line().contains("`memory`"), "{ran:?}");
    let table = section(4, b"\x01\x70\x00\x00");
    let ran = growing(b"\xd0\x70\x41\x80\x80\x40\xfc\x0f\x00", &table).inspect();
    assert!(
        ran.code == 7 && ran.line().contains("`table-elements`"),
        "{ran:?}"
    );
    // 4 GiB at once, a table of 4 billion elements, and one of 2^40: before anything runs.
    for declared in [
        section(5, b"\x01\x00\x80\x80\x04"),
        section(4, b"\x01\x70\x00\xff\xff\xff\xff\x0f"),
        section(4, b"\x01\x70\x04\x80\x80\x80\x80\x80\x20"),
    ] {
        let wasm = starting(&module(&[function(b"\x00", b"")], &declared));
        let ran = Raid::of(&wasm, "raider", "").inspect();
        assert_eq!(ran.code, 7, "{ran:?}");
    }
    // A function that calls itself.
    let ran = Raid::of(&running(b"\x10\x00"), "raider", "").inspect();
    assert!(ran.code == 7 && ran.line().contains("stack"), "{ran:?}");
}

#[test]
fn a_new_instance_finds_zeros_where_another_left_its_memory() {
    // Each start function grows its memory by 32 MiB, traps if a word of it is not zero, and then fills it. Both have run in one process, one after another,
    // when the second is refused for having no `describe`; with anything of the first in it, it would be refused for a trap.
    let size: &[u8] = b"\x80\x80\x80\x10";
    let scan = [
        &b"\x41\x80\x04\x40\x00\x1a"[..],
        b"\x03\x40\x20\x00\x29\x03\x00\x50\x45\x04\x40\x00\x0b",
        b"\x20\x00\x41\x08\x6a\x22\x00\x41",
        size,
        b"\x49\x0d\x00\x0b",
        b"\x41\x00\x41\xa5\x01\x41",
        size,
        b"\xfc\x0b\x00",
    ]
    .concat();
    let memory = section(5, b"\x01\x00\x00");
    let core = module(&[function(b"\x01\x01\x7f", &scan)], &memory);
    // The same module ten times over: ten instances, made one after another.
    let instances = [vec![10], [0, 0, 0].repeat(10)].concat();
    let mut twice = section(1, &core);
    twice.extend(section(2, &instances));
    let raid = Raid::of(
        &crate::raw::extension(&twice),
        "raider",
        "limits = { memory = \"1 GiB\" }",
    );
    // 320 MiB are more than a description may have: two instances are within it.
    let ran = raid.inspect();
    assert!(ran.line().contains("`memory`"), "{ran:?}");
    let instances = [vec![7], [0, 0, 0].repeat(7)].concat();
    let seven = [section(1, &core), section(2, &instances)].concat();
    let raid = Raid::of(&crate::raw::extension(&seven), "raider", "");
    for _ in 0..3 {
        let ran = raid.inspect();
        assert!(ran.line().contains("describe"), "{ran:?}");
    }
    // And an instance that is started anew after it filled its memory.
    let raid = Raid::new("limits = { memory = \"128 MiB\" }");
    let told = raid.each(&[
        json!({ "what": "eat", "n": 60 }),
        json!({ "what": "panic" }),
        json!({ "what": "eat", "n": 60 }),
    ]);
    assert_eq!(text(&told[2]), "ate", "what the first held is free again");
}

/// Grows the memory by 32 MiB and traps where any word of all that there is then is the raider's canary: `local` is where it looks.
fn looking(local: u32) -> Vec<u8> {
    let local = number(local as usize);
    // The same number, with its sign.
    let mut canary = number(usize::from_ne_bytes([0x5a; 8]));
    *canary.last_mut().unwrap() |= 0x80;
    canary.push(0);
    [
        &b"\x41\x80\x04\x40\x00\x1a\x03\x40\x20"[..],
        &local,
        b"\x29\x03\x00\x42",
        &canary,
        b"\x51\x04\x40\x00\x0b\x20",
        &local,
        b"\x41\x08\x6a\x22",
        &local,
        b"\x3f\x00\x41\x10\x74\x49\x0d\x00\x0b",
    ]
    .concat()
}

#[test]
fn nothing_that_an_extension_had_in_memory_is_in_that_of_another() {
    let raid = Raid::new("limits = { memory = \"256 MiB\" }");
    let orders = json!({ "name": "finder", "tool": "sift" });
    let tool = "[async-lift]vers:harness/tools@0.1.0#run";
    let finder = begun_with(&with(&orders), tool, looking);
    let at = raid.home.write("finder.wasm", &finder);
    let more = crate::raider::section("finder", &finder, "limits = { memory = \"256 MiB\" }");
    let policy = std::fs::read_to_string(&raid.policy).unwrap();
    std::fs::write(&raid.policy, policy + &more).unwrap();
    let sift = ("sift", json!({ "what": "nothing" }));
    let calls = [
        ("raid", json!({ "what": "eat", "n": 100 })),
        ("raid", json!({ "what": "panic" })),
        // Its instance may be older than the other's end. The next one is not.
        ("sift", json!({ "what": "panic" })),
        sift.clone(),
        // It would have found it: here is its own.
        ("sift", json!({ "what": "eat", "n": 1 })),
        sift.clone(),
        sift,
    ];
    let told = raid.script(&["-e", at.to_str().unwrap()], &calls);
    assert_eq!(text(&told[0]), "ate");
    assert_eq!(told[1]["error"]["kind"], "crashed", "{}", told[1]);
    assert_eq!(
        text(&told[3]),
        "nothing",
        "something of the other was found"
    );
    assert_eq!(text(&told[4]), "ate");
    assert_eq!(told[5]["error"]["kind"], "crashed", "{}", told[5]);
    assert_eq!(text(&told[6]), "nothing", "nor of one's own before");
}

#[test]
fn handles_streams_and_tasks_have_an_end_and_dropped_ones_are_free_again() {
    let raid = Raid::new("limits = { handles = 1000 }");
    costs(
        &raid,
        json!({ "what": "streams", "n": 100_000 }),
        "`handles`",
    );
    costs(&raid, json!({ "what": "tasks", "n": 100_000 }), "`handles`");
    costs(
        &raid,
        json!({ "what": "sleeps", "n": 100_000, "timeout": 60_000 }),
        "`handles`",
    );
    let told = raid.told(&[
        json!({ "what": "streams-dropped", "n": 100_000 }),
        json!({ "what": "sleeps", "n": 300 }),
        json!({ "what": "sleeps", "n": 300 }),
        json!({ "what": "sleeps", "n": 300 }),
        json!({ "what": "sleeps", "n": 300 }),
        json!({ "what": "random", "n": 100_000 }),
    ]);
    assert_eq!(
        told,
        [
            "dropped",
            "slept 300",
            "slept 300",
            "slept 300",
            "slept 300",
            "drawn"
        ]
    );
}

#[test]
fn processes_are_counted_and_go_with_their_instance() {
    let rule = "process = [{ program = \"/bin/sleep\", args = [\"*\"] }, { program = \"/usr/bin/sleep\", args = [\"*\"] }]\nlimits = { processes = 5 }";
    let raid = Raid::new(rule);
    let told = raid.told(&[
        json!({ "what": "keep", "argv": ["sleep", "7531975"], "n": 20 }),
        json!({ "what": "keep", "argv": ["sleep", "7531975"] }),
    ]);
    assert!(
        told[0].contains("5 Error::Limit") && told[0].contains("`processes`"),
        "{told:?}"
    );
    assert!(told[1].contains("Error::Limit"), "{told:?}");
    assert_eq!(crate::processes::processes("7531975"), 0);
}

#[test]
fn times_without_end_are_no_error_of_the_host() {
    let rule = "process = [{ program = \"/bin/true\" }, { program = \"/usr/bin/true\" }, { program = \"/bin/sleep\", args = [\"*\"] }, { program = \"/usr/bin/sleep\", args = [\"*\"] }]\nvms = [\"get\"]\nshell = { vms = \"any\", commands = \"any\" }\nui = [\"confirm\"]";
    let raid = Raid::new(rule);
    let most = u64::MAX;
    let told = raid.told(&[
        json!({ "what": "exec", "argv": ["true"], "timeout": most }),
        json!({ "what": "stop-child", "argv": ["sleep", "100"], "n": most }),
        json!({ "what": "ask", "text": "?", "timeout": most }),
        json!({ "what": "connect", "vm": "01234567-89ab-4def-8123-456789abcdef", "n": most }),
        json!({ "what": "sleep", "n": 1 }),
    ]);
    assert!(told[0].starts_with("Exit::Code(0)"), "{told:?}");
    assert!(told[1].starts_with("Stopped"), "{told:?}");
    assert_eq!(told[2], "None");
    assert!(told[3].contains("Error::Unavailable"), "{told:?}");
    assert_eq!(told[4], "slept");
    let arguments = json!({ "what": "sleep", "n": most }).to_string();
    let ran = raid.run(&["run", "--json", "--timeout", "100ms", "raid", &arguments]);
    assert_eq!(ran.code, 5, "{ran:?}");
}

#[test]
fn logs_notices_and_status_lines_are_a_bounded_amount() {
    let raid = Raid::new("limits = { log = \"16 KiB\" }");
    let ran = raid.once(json!({ "what": "log", "n": 100_000, "text": "x".repeat(100) }));
    assert!(
        ran.code == 0 && ran.err.len() < 64 << 10,
        "{}",
        ran.err.len()
    );
    let ran = raid.once(json!({ "what": "log-long", "n": 1_000_000, "text": "0123456789" }));
    assert!(
        ran.code == 0 && ran.err.len() < 64 << 10,
        "{}",
        ran.err.len()
    );
    let ran = raid.once(json!({ "what": "notify", "n": 100_000, "text": "look" }));
    assert!(
        ran.err.lines().count() < 2_000,
        "{}",
        ran.err.lines().count()
    );
    let ran = raid.once(json!({ "what": "warn", "text": "w".repeat(1 << 20) }));
    assert!(ran.err.len() < 64 << 10, "{}", ran.err.len());
    let ran = raid.once(json!({ "what": "status", "n": 100_000, "text": "s" }));
    assert_eq!(ran.code, 0, "{ran:?}");
    // With a key of its own in the policy, the log can be turned off.
    let ran = Raid::new("log = false").once(json!({ "what": "log", "n": 10, "text": "said" }));
    assert!(ran.code == 0 && !ran.err.contains("said"), "{ran:?}");
}

#[test]
fn results_are_a_bounded_amount_wherever_they_stand() {
    let raid = Raid::ordered(
        &json!({ "tools": [{ "name": "structured", "parameters": { "type": "object" }, "output": { "type": "string" } }] }),
        "limits = { output = \"1 MiB\" }",
    );
    let large = 200_000;
    let quoted = format!("\"{}\"", "x".repeat(2 << 20));
    let told = raid.each(&[
        json!({ "what": "text", "text": "0123456789", "n": large }),
        json!({ "what": "fail", "text": "0123456789", "n": large }),
        json!({ "what": "details", "text": quoted }),
        json!({ "what": "nothing" }),
    ]);
    for told in &told[..3] {
        assert_eq!(told["error"]["kind"], "contract", "{}", told["error"]);
        let message = told["error"]["message"].as_str().unwrap();
        assert!(message.contains("`output`"), "{message}");
    }
    assert_eq!(text(&told[3]), "nothing");
    // A message of an error is for people.
    let ran = raid.once(json!({ "what": "error", "text": "0123456789", "n": large }));
    assert!(
        ran.code == 1 && ran.out.len() < 64 << 10,
        "{}",
        ran.out.len()
    );
}

#[test]
fn bytes_without_end_wait_or_end_with_their_call() {
    let rule = "process = [{ program = \"/bin/sleep\", args = [\"*\"] }, { program = \"/usr/bin/sleep\", args = [\"*\"] }]\nfiles = [{ path = \".\", mode = \"rw\" }]\nlimits = { stream-buffers = \"256 KiB\", call = \"2 s\" }";
    let raid = Raid::new(rule);
    let start = Instant::now();
    let told = raid.each(&[
        // Nobody reads it: the guest waits, and the call's end ends that.
        json!({ "what": "feed", "argv": ["sleep", "100"], "n": 1_u64 << 40 }),
        json!({ "what": "nothing" }),
    ]);
    assert_eq!(told[0]["ok"], false, "{}", told[0]);
    assert_eq!(text(&told[1]), "nothing");
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn stores_are_a_bounded_amount() {
    let raid = Raid::new("limits = { store = \"64 KiB\" }");
    let quoted = format!("\"{}\"", "x".repeat(100_000));
    let told = raid.told(&[
        json!({ "what": "set", "text": "large", "argv": [quoted] }),
        json!({ "what": "set", "text": "no JSON", "argv": ["{"] }),
        json!({ "what": "set", "text": "../../escape", "argv": ["1"] }),
        json!({ "what": "set", "text": "a\u{0}b", "argv": ["1"] }),
        json!({ "what": "keys", "text": "" }),
    ]);
    assert!(told[0].contains("Error::Limit"), "{told:?}");
    assert!(told[1].contains("Error::Invalid"), "{told:?}");
    // A key is no path, whatever it looks like.
    assert!(!raid.home.path("escape").exists() && !raid.home.path("work/escape").exists());
    assert!(!told[4].contains("large"), "{told:?}");
}
