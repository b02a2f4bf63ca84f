//! The host against a guest that does what it must not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod support;

#[path = "unruly/audit.rs"]
mod audit;
#[path = "unruly/environment.rs"]
mod environment;
#[path = "unruly/fleet.rs"]
mod fleet;

use std::time::{Duration, Instant};

use pi_vers_host::policy::{Digest, Lookup, Policy};
use pi_vers_host::{
    Answer, CallError, Cause, Content, Event, Host, Reaction, Refusal, StartReason,
};
use serde_json::json;
use support::{Bench, Front, guest, nowhere};

/// No sleep of a test decides anything; it only gives the other side time to be wrong.
const SOON: Duration = Duration::from_secs(20);

async fn refused(bench: &Bench, tool: &str, arguments: serde_json::Value) -> (Refusal, String) {
    match bench.session.call(tool, arguments).outcome().await {
        Err(CallError::Refused { kind, message }) => (kind, message),
        other => panic!("{tool}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_share_one_instance_and_its_state() {
    let bench = Bench::new("").await;
    let calls: Vec<_> = (0..50)
        .map(|_| bench.session.call("count", json!({})))
        .collect();
    let mut seen: Vec<u32> = Vec::new();
    for mut call in calls {
        seen.push(call.outcome().await.unwrap().text().parse().unwrap());
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=50).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_call_does_not_delay_the_others() {
    let bench = Bench::new("").await;
    let mut slow = bench.session.call("sleep", json!({ "n": 600_000 }));
    assert_eq!(bench.text("echo", json!({ "text": "hi" })).await, "hi");
    slow.canceller().cancel();
    assert!(matches!(
        slow.outcome().await,
        Err(CallError::Cancelled { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_are_checked_before_the_guest_sees_them() {
    let bench = Bench::new("").await;
    match bench
        .session
        .call("echo", json!({ "text": 1, "n": -1, "x": 0 }))
        .outcome()
        .await
    {
        Err(CallError::Arguments { tool, problems }) => {
            assert_eq!(tool, "echo");
            let mut paths: Vec<&str> = problems
                .iter()
                .map(|problem| problem.path.as_str())
                .collect();
            paths.sort_unstable();
            assert_eq!(paths, ["", "/n", "/text"], "{problems:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_tool_is_named_with_the_nearest_one() {
    let bench = Bench::new("").await;
    let why = bench
        .session
        .call("ecko", json!({}))
        .outcome()
        .await
        .unwrap_err();
    assert_eq!(why.to_string(), "there is no tool ecko; did you mean echo?");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancel_ends_even_a_call_that_does_not_listen() {
    let bench = Bench::new("").await;
    for tool in ["stubborn", "deaf", "sleep"] {
        let mut call = bench.session.call(tool, json!({ "n": 600_000 }));
        bench.text("nothing", json!({})).await;
        call.canceller().cancel();
        let outcome = tokio::time::timeout(SOON, call.outcome())
            .await
            .expect("a cancelled call ends");
        assert!(
            matches!(outcome, Err(CallError::Cancelled { .. })),
            "{tool}: {outcome:?}"
        );
    }
    assert_eq!(
        bench.text("echo", json!({ "text": "still here" })).await,
        "still here"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_ends_a_call_and_bounds_what_it_waits_for() {
    let bench = Bench::new("limits = { call = \"300 ms\" }").await;
    let start = Instant::now();
    let outcome = bench
        .session
        .call("sleep", json!({ "n": 600_000 }))
        .outcome()
        .await;
    assert!(
        matches!(outcome, Err(CallError::TimedOut { .. })),
        "{outcome:?}"
    );
    assert!(start.elapsed() >= Duration::from_millis(300) && start.elapsed() < SOON);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_looping_guest_is_stopped_at_its_deadline_and_started_anew() {
    let bench = Bench::new("limits = { call = \"700 ms\" }").await;
    bench.text("count", json!({})).await;
    let outcome = tokio::time::timeout(SOON, bench.session.call("spin", json!({})).outcome())
        .await
        .expect("stopped");
    assert!(
        matches!(outcome, Err(CallError::TimedOut { .. })),
        "{outcome:?}"
    );
    assert_eq!(
        bench.text("count", json!({})).await,
        "1",
        "a new instance has new memory"
    );
    assert!(
        bench
            .text("seen", json!({}))
            .await
            .contains("start Reason::Reload")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_looping_guest_is_stopped_at_its_cpu_slice_and_others_go_on() {
    let bench = Bench::new("limits = { cpu-slice = \"500 ms\" }").await;
    let other = Bench::new("").await;
    let mut spinning = bench.session.call("spin", json!({}));
    for _ in 0..20 {
        assert_eq!(other.text("echo", json!({ "text": "x" })).await, "x");
    }
    match tokio::time::timeout(SOON, spinning.outcome())
        .await
        .expect("stopped")
    {
        Err(CallError::Crashed { extension, why }) => {
            assert!(extension == "unruly" && why.contains("cpu-slice"), "{why}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_computes_but_gives_way_is_left_alone() {
    let bench = Bench::new("limits = { cpu-slice = \"500 ms\" }").await;
    let mut long = bench.session.call("spin-nicely", json!({ "n": 1500 }));
    assert_eq!(
        bench.text("echo", json!({ "text": "between" })).await,
        "between"
    );
    assert_eq!(long.outcome().await.unwrap().text(), "spun");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_blocks_its_thread_loses_its_instance_not_the_host() {
    let bench = Bench::new("limits = { call = \"500 ms\" }").await;
    let outcome = tokio::time::timeout(
        SOON,
        bench
            .session
            .call("block", json!({ "n": 600_000 }))
            .outcome(),
    )
    .await
    .expect("ended");
    assert!(
        matches!(
            outcome,
            Err(CallError::TimedOut { .. } | CallError::Crashed { .. })
        ),
        "{outcome:?}"
    );
    assert_eq!(bench.text("echo", json!({ "text": "back" })).await, "back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_fails_all_open_calls_with_the_reason() {
    let bench = Bench::new("").await;
    let mut waiting = bench.session.call("sleep", json!({ "n": 600_000 }));
    bench.text("nothing", json!({})).await;
    let outcome = bench
        .session
        .call("panic", json!({ "text": "oh" }))
        .outcome()
        .await;
    assert!(
        matches!(&outcome, Err(CallError::Crashed { why, .. }) if why.contains("panicked")),
        "{outcome:?}"
    );
    assert!(matches!(
        waiting.outcome().await,
        Err(CallError::Crashed { .. })
    ));
    assert_eq!(bench.text("count", json!({})).await, "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_beyond_the_limit_is_refused_and_named() {
    let bench = Bench::new("limits = { memory = \"64 MiB\" }").await;
    bench.text("eat", json!({ "n": 16 })).await;
    assert!(bench.session.memory()["unruly"] > 0);
    match bench
        .session
        .call("eat", json!({ "n": 200 }))
        .outcome()
        .await
    {
        Err(CallError::Crashed { why, .. }) => {
            assert!(why.contains("64 MiB") && why.contains("`memory`"), "{why}")
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_recursion_costs_the_instance_only() {
    let bench = Bench::new("").await;
    let outcome = bench
        .session
        .call("recurse", json!({ "n": 100_000_000 }))
        .outcome()
        .await;
    assert!(
        matches!(outcome, Err(CallError::Crashed { .. })),
        "{outcome:?}"
    );
    assert_eq!(bench.text("recurse", json!({ "n": 10 })).await, "10");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_keeps_crashing_is_still_started_anew() {
    let bench = Bench::new("").await;
    for _ in 0..4 {
        assert!(matches!(
            bench.session.call("panic", json!({})).outcome().await,
            Err(CallError::Crashed { .. })
        ));
    }
    assert_eq!(
        bench.text("echo", json!({ "text": "again" })).await,
        "again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn background_tasks_live_between_calls_and_die_with_the_session() {
    let bench = Bench::new("").await;
    bench.text("background", json!({})).await;
    let ticks = async {
        while bench.text("ticks", json!({})).await.parse::<u64>().unwrap() < 3 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, ticks)
        .await
        .expect("it ticks between calls");
    let session = bench.session.clone();
    tokio::time::timeout(SOON, bench.session.end())
        .await
        .expect("the session ends");
    assert!(matches!(
        session.call("echo", json!({})).outcome().await,
        Err(CallError::Closed | CallError::Cancelled { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_are_coalesced_to_the_newest() {
    let bench = Bench::new("").await;
    let mut call = bench.session.call("updates", json!({ "n": 10_000 }));
    let updates = call.updates();
    call.outcome().await.unwrap();
    let last = updates.borrow();
    assert_eq!(last.content, [Content::text("9999")]);
    assert_eq!(last.progress.as_ref().unwrap().total, Some(10_000.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_break_the_contract_are_refused() {
    let bench = Bench::new("limits = { output = \"1 MiB\" }").await;
    for (tool, arguments, sentence) in [
        ("broken-details", json!({}), "`details` is no JSON"),
        ("undeclared", json!({}), "declares no output schema"),
        ("huge", json!({ "n": 2 << 20 }), "`output`"),
    ] {
        match bench.session.call(tool, arguments).outcome().await {
            Err(CallError::Contract { why, .. }) => assert!(why.contains(sentence), "{why}"),
            other => panic!("{tool}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_grants_everything_is_denied_with_the_rule_that_is_missing() {
    let bench = Bench::new("").await;
    let vm = "01234567-89ab-4def-8123-456789abcdef";
    for (tool, arguments, rule) in [
        ("run", json!({ "argv": ["/bin/true"] }), "process"),
        ("read-file", json!({ "text": "x" }), "files"),
    ] {
        let (kind, message) = refused(&bench, tool, arguments).await;
        assert_eq!(kind, Refusal::Denied, "{message}");
        assert!(
            message.contains(rule) && message.contains("unruly"),
            "{message}"
        );
    }
    // What a VM may be needs the platform, which is not there; nothing is granted either way.
    let (kind, message) = refused(&bench, "delete-vm", json!({ "text": vm })).await;
    assert!(
        matches!(kind, Refusal::Denied | Refusal::Unavailable),
        "{kind:?} {message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_do_not_hold_for_changed_bytes() {
    let wasm = guest("unruly");
    let text = format!(
        "[extension.unruly]\ndigest = \"{}\"\nfiles = [{{ path = \"/\", mode = \"ro\" }}]\n",
        Digest::of(b"other bytes")
    );
    let host = Host::builder()
        .platform(nowhere())
        .policy(Policy::parse(&text, "test").unwrap())
        .build()
        .unwrap();
    let extension = host.load("unruly.wasm", wasm).await.unwrap();
    assert!(matches!(host.lookup(&extension), Lookup::Changed { .. }));
    let session = host
        .session(std::sync::Arc::new(Front::default()), vec![extension])
        .unwrap();
    let outcome = session
        .call("read-file", json!({ "text": "/etc/hostname" }))
        .outcome()
        .await;
    assert!(
        matches!(
            outcome,
            Err(CallError::Refused {
                kind: Refusal::Denied,
                ..
            })
        ),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_stream_both_ways_and_end_with_their_call() {
    let bench = Bench::new("process = [{ program = \"/bin/cat\", args = [\"\"] }, { program = \"/bin/sleep\", args = [\"*\"] }, { program = \"/usr/bin/cat\", args = [\"\"] }, { program = \"/usr/bin/sleep\", args = [\"*\"] }]").await;
    let input = "bytes\n".repeat(100_000);
    let output = bench
        .text("run", json!({ "argv": ["cat"], "text": input }))
        .await;
    assert_eq!(output, format!("Exit::Code(0)\n{input}"));

    let mut call = bench
        .session
        .call("run", json!({ "argv": ["sleep", "8642975"] }));
    let running = async {
        while processes("8642975").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, running).await.expect("it runs");
    call.canceller().cancel();
    match call.outcome().await {
        Err(CallError::Cancelled { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(processes("8642975").is_empty(), "cancelled means stopped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_takes_the_guests_processes_with_it() {
    let bench = Bench::new("process = [{ program = \"/bin/sleep\", args = [\"*\"] }, { program = \"/usr/bin/sleep\", args = [\"*\"] }]").await;
    bench
        .text("keep", json!({ "argv": ["sleep", "8642976"] }))
        .await;
    // Between fork and exec a process has no argument vector yet.
    let there = async {
        while processes("8642976").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, there).await.expect("it runs");
    let _ = bench.session.call("panic", json!({})).outcome().await;
    let gone = async {
        while !processes("8642976").is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, gone)
        .await
        .expect("nothing is left of a crashed guest");
}

/// Processes of this machine with this argument.
fn processes(argument: &str) -> Vec<String> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.starts_with("sleep") || line.contains("/sleep "))
        .filter(|line| line.contains(argument))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn values_and_entries_outlive_a_crash() {
    let bench = Bench::new("").await;
    bench.text("remember", json!({ "text": "this" })).await;
    let _ = bench.session.call("panic", json!({})).outcome().await;
    assert_eq!(
        bench.text("recall", json!({})).await,
        "Some(\"\\\"this\\\"\") 1"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn guest_text_reaches_no_terminal_raw_and_flags_hold_no_foreign_values() {
    let bench = Bench::new("").await;
    let flags = bench.text("escape", json!({})).await;
    assert_eq!(flags, "Some(FlagValue::Number(7.0)) None");
    assert!(
        bench
            .front
            .told()
            .contains(&"unruly Error \u{241b}[2Jgone".into()),
        "{:?}",
        bench.front.told()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialog_nobody_answers_is_dismissed_in_time() {
    let front = Front::default();
    front.answers.lock().unwrap().push(Answer::Yes(true));
    let bench = Bench::with("", front).await;
    assert_eq!(
        bench
            .text("ask", json!({ "text": "sure", "n": 60_000 }))
            .await,
        "Some(true)"
    );
    assert_eq!(
        bench.text("ask", json!({ "text": "sure", "n": 50 })).await,
        "None"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn events_reach_granted_subscribers_only_and_a_crash_counts_as_silence() {
    let bench = Bench::new("").await;
    bench.session.start(StartReason::Resume).await.unwrap();
    assert!(
        bench
            .text("seen", json!({}))
            .await
            .contains("start Reason::Resume")
    );
    let silent = bench.session.event(Event::TurnStart(1)).await;
    assert_eq!(silent, pi_vers_host::Reaction::default());
    let ungranted = bench.session.event(Event::Input("hello".into())).await;
    assert_eq!(
        ungranted.input, None,
        "what an extension may answer takes a grant"
    );

    let granted = Bench::new("events = [\"input\", \"tool-call\"]").await;
    assert_eq!(
        granted
            .session
            .event(Event::Input("hello".into()))
            .await
            .input
            .as_deref(),
        Some("hello!")
    );
    let call = Event::ToolCall {
        call_id: "1".into(),
        tool: "bash".into(),
        arguments: json!({}),
    };
    assert_eq!(
        granted.session.event(call).await.block.as_deref(),
        Some("not today")
    );
    // Who was to judge and could not has not agreed.
    let call = Event::ToolCall {
        call_id: "2".into(),
        tool: "panic".into(),
        arguments: json!({}),
    };
    let block = granted.session.event(call).await.block.unwrap_or_default();
    assert!(block.contains("unruly judges tool calls"), "{block}");
    assert_eq!(
        granted
            .session
            .event(Event::Input("panic".into()))
            .await
            .input,
        None
    );
    assert_eq!(
        granted
            .session
            .event(Event::Input("again".into()))
            .await
            .input
            .as_deref(),
        Some("again!")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_front_end_hears_the_bus_speaks_on_it_and_knows_for_which_call_it_is_asked() {
    let bench = Bench::new("bus = [\"gossip\"]\nui = [\"confirm\"]").await;
    bench.text("emit", json!({ "text": "psst" })).await;
    assert_eq!(bench.front.told(), ["unruly gossip \"psst\""]);
    bench.session.tell("gossip", json!({ "n": 1 }));
    bench.session.tell("else", json!(2));
    // Nobody tells when a message has arrived.
    let mut seen = String::new();
    for _ in 0..10_000 {
        seen = bench.text("seen", json!({})).await;
        if seen.contains("gossip") {
            break;
        }
    }
    assert!(seen.contains("gossip {\"n\":1}"), "{seen}");
    assert!(!seen.contains("psst") && !seen.contains("else"), "{seen}");
    let mut asked =
        bench
            .session
            .call_with_id("call-7", "ask", json!({ "text": "Sure?", "n": 50 }));
    asked.outcome().await.unwrap();
    assert_eq!(bench.front.told().last().unwrap(), "asked Sure? for call-7");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_its_cause_gives_up_is_cancelled() {
    let bench = Bench::new("").await;
    let cause = Cause::default();
    cause.cancel.cancel();
    let why = bench
        .session
        .command_for(&cause, "unruly", "")
        .await
        .unwrap_err();
    assert!(matches!(why, CallError::Cancelled { .. }), "{why:?}");
    assert_eq!(bench.text("count", json!({})).await, "1");
    assert_eq!(
        bench.session.event_for(&cause, Event::TurnStart(1)).await,
        Reaction::default()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_and_report_errors() {
    let bench = Bench::new("").await;
    bench.session.command("unruly", "").await.unwrap();
    assert_eq!(bench.text("count", json!({})).await, "2");
    let why = bench.session.command("unruly", "fail").await.unwrap_err();
    assert!(
        matches!(&why, CallError::Refused { kind: Refusal::Conflict, message } if message == "as asked"),
        "{why:?}"
    );
    let why = bench.session.command("unruly", "vm").await.unwrap_err();
    assert!(
        matches!(&why, CallError::Refused { kind: Refusal::Invalid, message } if message.contains("no-uuid")),
        "{why:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chatty_guest_fills_no_log_and_ten_thousand_calls_leave_nothing() {
    let bench = Bench::new("limits = { log = \"4 KiB\" }").await;
    bench
        .text("chatter", json!({ "n": 100_000, "text": "x".repeat(100) }))
        .await;
    for _ in 0..10_000 {
        bench
            .session
            .call("nothing", json!({}))
            .outcome()
            .await
            .unwrap();
    }
    assert!(
        bench.session.memory()["unruly"] < 8 << 20,
        "{:?}",
        bench.session.memory()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_that_only_replaces_is_offered_only_where_there_is_something_to_replace() {
    let bench = Bench::new("session = [\"run-built-in\"]").await;
    assert!(
        bench
            .session
            .tools()
            .iter()
            .all(|offer| offer.item.name != "built-in")
    );
    let front = Front {
        built_ins: vec!["built-in".into()],
        ..Front::default()
    };
    let bench = Bench::with(
        "session = [\"run-built-in\"]\nreplace = [\"built-in\"]",
        front,
    )
    .await;
    assert!(
        bench
            .session
            .tools()
            .iter()
            .any(|offer| offer.item.name == "built-in")
    );
    assert_eq!(
        bench.text("built-in", json!({ "n": 1 })).await,
        "the harness ran built-in {\"n\":1}"
    );
}

/// Functions of the contract that never wait and so hand no error back: they tell, or change nothing worth
/// keeping, or are methods of a handle that was granted when it was made.
const TELL: [&str; 19] = [
    "log#write",
    "timers#now",
    "timers#ticks",
    "ui#available",
    "ui#notify",
    "ui#set-status",
    "ui#set-widget",
    "client#offers",
    "client#list-changed",
    "session#working-directory",
    "session#id",
    "session#flag",
    "session#has-secret",
    "session#active-tools",
    "session#all-tools",
    "session#is-idle",
    "bus#emit",
    "fleet#available",
    "#[method]",
];

/// What works without a grant, because it changes nothing but the extension's own.
const HARMLESS: [&str; 10] = [
    "vers:harness/timers#sleep",
    "vers:harness/ui#select",
    "vers:harness/ui#confirm",
    "vers:harness/session#append-entry",
    "vers:harness/session#entries",
    "vers:system/store#get",
    "vers:system/store#set",
    "vers:system/store#delete",
    "vers:system/store#keys",
    "vers:system/store#swap",
];

#[tokio::test(flavor = "multi_thread")]
async fn every_import_function_is_denied_without_a_grant() {
    let bench = Bench::new("").await;
    let mut tried = 0;
    for (function, _) in pi_vers_host::policy::REQUESTS {
        if TELL.iter().any(|part| function.contains(part)) {
            continue;
        }
        tried += 1;
        let answer = bench.text("try", json!({ "text": function })).await;
        if HARMLESS.contains(function) {
            assert_eq!(answer, "done", "{function}");
        } else {
            assert!(answer.starts_with("Error::Denied"), "{function}: {answer}");
            assert!(answer.contains("unruly"), "a denial says who: {answer}");
            // And it holds the line that would allow it: `… : add ITEM to KEY of [extension.unruly] in the test`.
            let message = answer.replace("\\\"", "\"");
            let fix = message
                .split_once(": add ")
                .and_then(|(_, fix)| fix.split_once(" of [extension.unruly] in the test"));
            let (fix, _) = fix.unwrap_or_else(|| panic!("{function}: no line in {answer}"));
            let line = match fix.rsplit_once(" to ") {
                Some((item, key)) => format!("{key} = [{item}]"),
                None => fix.to_owned(),
            };
            let section = format!("[extension.unruly]\ndigest = \"shipped\"\n{line}");
            if let Err(why) = Policy::parse(&section, "policy.toml") {
                panic!("{function}: {why} in {line}");
            }
        }
    }
    assert!(tried > 40, "only {tried} functions were tried");
}
