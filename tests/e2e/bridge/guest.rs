//! Calls, dialogs, events and the rest, with a guest that does on request what there is to do.

use pi_vers_tests::{Scratch, eventually};
use serde_json::{Value, json};

use super::shim::Shim;

#[tokio::test(flavor = "multi_thread")]
async fn calls_run_side_by_side_and_a_cancelled_one_is_answered() {
    let scratch = Scratch::new();
    let (mut shim, _) = Shim::unruly(&scratch, "", &[]).await;
    let slow = shim.begin("sleep", json!({ "n": 600_000 })).await;
    let deaf = shim.begin("deaf", json!({})).await;
    let mut echoes = Vec::new();
    for n in 0..20 {
        echoes.push(shim.begin("echo", json!({ "text": n.to_string() })).await);
    }
    for (n, id) in echoes.into_iter().enumerate().rev() {
        let answer = shim.answer(id).await;
        assert_eq!(pi_vers_tests::text(&answer["value"]), n.to_string());
    }
    for id in [slow, deaf] {
        shim.send(json!({ "t": "cancel", "id": id })).await;
        shim.send(json!({ "t": "cancel", "id": id })).await;
        let answer = shim.answer(id).await;
        assert_eq!(
            (&answer["t"], &answer["code"]),
            (&json!("error"), &json!("cancelled"))
        );
    }
    // A command and its completions.
    assert_eq!(
        shim.value("command", json!({ "name": "unruly", "arguments": "" }))
            .await,
        Value::Null
    );
    let id = shim
        .ask("command", json!({ "name": "unruly", "arguments": "fail" }))
        .await;
    assert_eq!(shim.answer(id).await["code"], "conflict");
    let id = shim.ask("command", json!({ "name": "unrule" })).await;
    assert_eq!(shim.answer(id).await["code"], "not-found");
    let completions = shim
        .value("complete", json!({ "name": "unruly", "prefix": "" }))
        .await;
    assert!(completions.is_array(), "{completions}");
    shim.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crashes_and_denials_have_their_codes_and_the_next_call_works() {
    let scratch = Scratch::new();
    let (mut shim, _) = Shim::unruly(&scratch, "limits = { call = \"700 ms\" }", &[]).await;
    assert_eq!(shim.code("panic", json!({ "text": "oh" })).await, "trap");
    assert_eq!(
        shim.code(
            "delete-vm",
            json!({ "text": "00000000-0000-4000-8000-000000000001" })
        )
        .await,
        "denied"
    );
    assert_eq!(
        shim.code("sleep", json!({ "n": 600_000 })).await,
        "timed-out"
    );
    assert_eq!(shim.code("broken-details", json!({})).await, "other");
    assert_eq!(shim.text("echo", json!({ "text": "on" })).await, "on");
    let empty = shim.call("nothing", json!({})).await;
    assert_eq!(empty, json!({ "content": [], "isError": false }));
    shim.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialog_is_asked_for_its_call_and_closed_with_it() {
    let scratch = Scratch::new();
    let (mut shim, _) = Shim::unruly(&scratch, "ui = [\"confirm\"]", &[]).await;
    let id = shim
        .begin("ask", json!({ "text": "Sure?", "n": 60_000 }))
        .await;
    let asked = shim.asked("ui.confirm").await;
    assert_eq!(asked["call"], id);
    assert_eq!(
        asked["params"],
        json!({ "title": "Sure?", "message": "?", "timeoutMs": 60_000 })
    );
    shim.send(json!({ "t": "result", "id": asked["id"], "value": true }))
        .await;
    let answer = shim.answer(id).await;
    assert_eq!(pi_vers_tests::text(&answer["value"]), "Some(true)");

    // Dismissed, refused, nonsense: nobody has answered.
    for reply in [
        json!({ "t": "result", "value": null }),
        json!({ "t": "error", "code": "other", "message": "no" }),
        json!({ "t": "result", "value": "yes" }),
    ] {
        let id = shim.begin("ask", json!({ "text": "?", "n": 60_000 })).await;
        let mut reply = reply;
        reply["id"] = shim.asked("ui.confirm").await["id"].clone();
        shim.send(reply).await;
        let answer = shim.answer(id).await;
        assert_eq!(pi_vers_tests::text(&answer["value"]), "None");
    }

    // Its time passes.
    let id = shim.begin("ask", json!({ "text": "?", "n": 50 })).await;
    let asked = shim.asked("ui.confirm").await;
    shim.until(|frame| frame["t"] == "cancel" && frame["id"] == asked["id"])
        .await;
    let answer = shim.answer(id).await;
    assert_eq!(pi_vers_tests::text(&answer["value"]), "None");

    // The call is given up.
    let id = shim.begin("ask", json!({ "text": "?", "n": 60_000 })).await;
    let asked = shim.asked("ui.confirm").await;
    shim.send(json!({ "t": "cancel", "id": id })).await;
    shim.until(|frame| frame["t"] == "cancel" && frame["id"] == asked["id"])
        .await;
    assert_eq!(shim.answer(id).await["code"], "cancelled");
    // An answer that comes too late is nobody's.
    shim.send(json!({ "t": "result", "id": asked["id"], "value": true }))
        .await;

    // Nobody is there.
    shim.context(json!({ "interactive": false })).await;
    assert_eq!(
        shim.text("ask", json!({ "text": "?", "n": 60_000 })).await,
        "None"
    );
    shim.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_answered_in_their_order_and_those_that_nobody_waits_for_never() {
    let scratch = Scratch::new();
    let (mut shim, ready) =
        Shim::unruly(&scratch, "events = [\"input\", \"tool-call\"]", &[]).await;
    let events = ready["events"].as_array().unwrap();
    assert!(events.contains(&json!("input")) && events.contains(&json!("tool-call")));
    let blocked = shim
        .value("event", json!({ "name": "tool-call", "data": { "callId": "c", "tool": "bash", "arguments": {} } }))
        .await;
    assert_eq!(blocked, json!({ "block": "not today" }));
    let mut ids = Vec::new();
    for n in 0..20 {
        shim.send(json!({ "t": "event", "name": "input", "data": { "text": "unheard" } }))
            .await;
        ids.push(
            shim.ask(
                "event",
                json!({ "name": "input", "data": { "text": n.to_string() } }),
            )
            .await,
        );
    }
    for (n, id) in ids.into_iter().enumerate() {
        let answer = shim.next().await;
        assert_eq!(
            answer,
            json!({ "t": "result", "id": id, "value": { "text": format!("{n}!") } })
        );
    }
    // A subscriber that crashes has nothing to say; one that is not there neither.
    let silent = shim
        .value(
            "event",
            json!({ "name": "input", "data": { "text": "panic" } }),
        )
        .await;
    assert_eq!(silent, json!({}));
    let silent = shim
        .value("event", json!({ "name": "session-compact", "data": 1 }))
        .await;
    assert_eq!(silent, json!({}));
    let rewritten = shim
        .value(
            "event",
            json!({ "name": "input", "data": { "text": "on" } }),
        )
        .await;
    assert_eq!(rewritten, json!({ "text": "on!" }));
    // Other extensions say what they show.
    shim.seen.retain(|frame| frame["t"] != "notice");
    assert!(shim.seen.is_empty(), "{:?}", shim.seen);
    shim.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bus_goes_both_ways() {
    let scratch = Scratch::new();
    let (mut shim, ready) = Shim::unruly(&scratch, "bus = [\"gossip\"]", &[]).await;
    assert!(
        ready["topics"]
            .as_array()
            .unwrap()
            .contains(&json!("gossip"))
    );
    shim.text("emit", json!({ "text": "psst" })).await;
    assert_eq!(
        shim.noticed("bus").await,
        json!({ "topic": "gossip", "data": "psst" })
    );
    shim.send(json!({ "t": "bus", "topic": "gossip", "data": { "heard": 1 } }))
        .await;
    shim.send(json!({ "t": "bus", "topic": "other", "data": 2 }))
        .await;
    // Nobody tells when a message has arrived.
    let mut seen = String::new();
    for _ in 0..1000 {
        seen = shim.text("seen", json!({})).await;
        if seen.contains("heard") {
            break;
        }
    }
    assert!(seen.contains("gossip {\"heard\":1}"), "{seen}");
    assert!(!seen.contains("other") && !seen.contains("psst"), "{seen}");
    // What came from outside does not go out again.
    assert!(
        shim.seen.iter().all(|frame| frame["method"] != "bus"),
        "{:?}",
        shim.seen
    );
    shim.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notices_and_flags() {
    let scratch = Scratch::new();
    let (mut shim, _) = Shim::unruly(&scratch, "", &[]).await;
    shim.context(json!({ "flags": { "unruly-number": "30", "vers-api-key": "secret" } }))
        .await;
    let text = shim.text("escape", json!({})).await;
    assert!(
        text.contains("Number(30") && !text.contains("secret"),
        "{text}"
    );
    assert_eq!(
        shim.noticed("ui.notify").await,
        json!({ "message": "\u{241b}[2Jgone", "severity": "error" })
    );
    assert_eq!(
        shim.noticed("ui.status").await,
        json!({ "key": "unruly/key", "line": [] })
    );
    shim.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_is_a_new_session_with_fresh_instances() {
    let scratch = Scratch::new();
    let (mut shim, _) = Shim::unruly(&scratch, "", &[]).await;
    assert_eq!(
        shim.value("start", json!({ "reason": "startup" })).await,
        Value::Null
    );
    assert_eq!(shim.text("count", json!({})).await, "1");
    assert_eq!(shim.text("count", json!({})).await, "2");
    let open = shim.begin("sleep", json!({ "n": 600_000 })).await;
    let start = shim.ask("start", json!({ "reason": "fork" })).await;
    // Asked for after the start, so it belongs to the new session, whenever that is open.
    let count = shim.begin("count", json!({})).await;
    assert_eq!(shim.answer(open).await["code"], "cancelled");
    assert_eq!(shim.answer(start).await["t"], "result");
    assert_eq!(pi_vers_tests::text(&shim.answer(count).await["value"]), "1");
    assert!(shim.text("seen", json!({})).await.contains("Fork"));
    shim.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_built_in_tool_of_the_harness_is_run_by_it_and_stopped_by_it() {
    let scratch = Scratch::new();
    let (mut shim, _) = Shim::greet(&scratch, &[], &["bash"]).await;
    let arguments = json!({ "command": "ls" });
    let id = shim.begin("bash", arguments.clone()).await;
    let asked = shim.asked("builtIn").await;
    assert_eq!(asked["call"], id);
    assert_eq!(
        asked["params"],
        json!({ "tool": "bash", "arguments": arguments })
    );
    let news = json!([{ "type": "text", "text": "so far" }]);
    shim.send(json!({ "t": "update", "id": asked["id"], "content": news, "details": { "n": 1 } }))
        .await;
    let update = shim.until(|frame| frame["t"] == "update").await;
    assert_eq!(
        (&update["id"], &update["content"], &update["details"]),
        (&json!(id), &news, &json!({ "n": 1 }))
    );
    let result = json!({ "content": [{ "type": "text", "text": "files" }], "isError": false });
    shim.send(json!({ "t": "result", "id": asked["id"], "value": result }))
        .await;
    assert_eq!(shim.answer(id).await["value"], result);

    // What it says of its failure is the call's.
    let id = shim.begin("bash", arguments.clone()).await;
    let asked = shim.asked("builtIn").await;
    let result = json!({ "content": [{ "type": "text", "text": "exit 3" }], "isError": true });
    shim.send(json!({ "t": "result", "id": asked["id"], "value": result }))
        .await;
    assert_eq!(shim.answer(id).await["value"], result);

    // Cancelled is answered when the harness's own tool has stopped, not before.
    let id = shim.begin("bash", arguments.clone()).await;
    let asked = shim.asked("builtIn").await;
    shim.send(json!({ "t": "cancel", "id": id })).await;
    shim.until(|frame| frame["t"] == "cancel" && frame["id"] == asked["id"])
        .await;
    // Another call's answer comes meanwhile.
    let vms = shim.begin("vers_vm_local", json!({})).await;
    shim.answer(vms).await;
    assert!(
        shim.seen
            .iter()
            .all(|frame| frame["id"] != id || frame["t"] == "update"),
        "{:?}",
        shim.seen
    );
    shim.send(
        json!({ "t": "error", "id": asked["id"], "code": "cancelled", "message": "aborted" }),
    )
    .await;
    assert_eq!(shim.answer(id).await["code"], "cancelled");

    // A harness that lost it.
    let id = shim.begin("bash", arguments).await;
    let asked = shim.asked("builtIn").await;
    shim.send(json!({ "t": "error", "id": asked["id"], "code": "not-found", "message": "none" }))
        .await;
    let answer = shim.answer(id).await;
    assert!(
        answer["t"] == "error" || answer["value"]["isError"] == true,
        "{answer}"
    );
    shim.end().await;
}

/// Resident memory of a process, in MiB.
fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        >> 10
}

/// A shim that does not read holds no tool up and does not make the host grow.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_costs_updates_and_notices_but_no_tool_and_no_memory() {
    let scratch = Scratch::new();
    let rules = "bus = [\"gossip\"]\nprocess = [{ program = \"/bin/touch\", args = [\"*\"] }, { program = \"/usr/bin/touch\", args = [\"*\"] }]\nfiles = [{ path = \".\", mode = \"rw\" }]\nlimits = { calls = 2000 }";
    let (mut shim, _) = Shim::unruly(&scratch, rules, &[]).await;
    shim.text("nothing", json!({})).await;
    let before = memory(shim.pid());
    // Nothing is read from here on. Each call is small and says something of 100 KiB to everybody.
    let gossip = "x".repeat(100_000);
    let mut ids = Vec::new();
    for _ in 0..400 {
        ids.push(shim.begin("emit", json!({ "text": gossip })).await);
        ids.push(shim.begin("updates", json!({ "n": 200 })).await);
    }
    let mark = scratch.work().join("reached");
    let touch = ["/bin/touch", "/usr/bin/touch"]
        .into_iter()
        .find(|path| std::path::Path::new(path).exists());
    let last = shim
        .begin(
            "run",
            json!({ "argv": [touch.unwrap(), mark.to_str().unwrap()] }),
        )
        .await;
    eventually("the last call has run", || mark.exists()).await;
    let grown = memory(shim.pid()).saturating_sub(before);
    assert!(grown < 300, "it has grown by {grown} MiB");
    // Now everything that was asked is answered.
    ids.push(last);
    let mut refused = 0;
    for id in ids {
        let answer = shim.answer(id).await;
        if answer["t"] == "error" {
            assert_eq!(answer["code"], "limit", "{answer}");
            refused += 1;
        }
    }
    assert!(refused == 0, "{refused}");
    let gossips = shim
        .seen
        .iter()
        .filter(|frame| frame["method"] == "bus")
        .count();
    assert!(gossips < 400, "{gossips}");
    shim.end().await;
}
