//! Swarms, as a harness sees them: the shipped component, the local platform, and the scripted agent on its VMs. Tests are named after the
//! defects of the original that must not come back.

mod desk;
mod patience;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{Method, StatusCode, Uri};
use axum::{Json, Router};
use pi_vers_host::{CallError, FlagValue};
use pi_vers_tests::agents::Direct;
use pi_vers_tests::eventually;
use serde_json::{Value, json};

use crate::desk::lock;
use desk::Place;

/// A command that runs until somebody makes this file.
const UNTIL_GO: &str = "run while [ ! -e /tmp/go ]; do sleep 0.05; done";

/// Tells an agent that does the above to go on.
async fn go(place: &Place, vm: &str) {
    Direct::new(&place.endpoint).run(vm, "touch /tmp/go").await;
}

/// How agents stand when a wait is over.
fn outcomes(details: &Value) -> Vec<&str> {
    let agents = details["agents"].as_array().unwrap();
    agents
        .iter()
        .filter_map(|agent| agent["outcome"].as_str())
        .collect()
}

fn labels(vm: &Value) -> &Value {
    &vm["labels"]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swarm_is_spawned_tasked_awaited_read_and_torn_down() {
    let place = Place::new().await;
    let run = place.session("one").await;
    assert_eq!(run.text("status", json!({})).await, "No agents in swarm.");
    assert_eq!(run.text("wait", json!({})).await, "No agents in swarm.");
    assert_eq!(run.text("teardown", json!({})).await, "No agents in swarm.");

    let (text, details) = run.ok("spawn", run.order(3, &["tests"])).await;
    let agents = details["agents"].as_array().unwrap();
    let vm = |at: usize| agents[at]["vmId"].as_str().unwrap().to_owned();
    assert_eq!(
        text,
        format!(
            "Spawned 3 agent(s):\ntests: VM {0} — ready\nagent-1: VM {1} — ready\nagent-2: VM {2} — ready\n\n\
             Swarm (3 agents):\n  tests [idle] ({0})\n  agent-1 [idle] ({1})\n  agent-2 [idle] ({2})",
            vm(0),
            vm(1),
            vm(2)
        )
    );
    assert_eq!(
        agents[1],
        json!({ "id": "agent-1", "vmId": vm(1), "status": "idle" })
    );
    let spawned = run.heard("vers:agent_spawned");
    assert_eq!(spawned.len(), 3);
    assert_eq!(
        (
            &spawned[0]["label"],
            &spawned[0]["role"],
            &spawned[0]["vmId"]
        ),
        (&json!("tests"), &json!("worker"), &json!(vm(0)))
    );
    let listed = place.vms().await;
    let of = |id: &str| listed.iter().find(|vm| vm["vm_id"] == id).unwrap();
    let labels = labels(of(&vm(1)));
    assert_eq!(
        (
            &labels["pi-vers.role"],
            &labels["pi-vers.name"],
            &labels["pi-vers.session"],
            &labels["pi-vers.owner"],
            &labels["pi-vers.parent"]
        ),
        (
            &json!("worker"),
            &json!("agent-1"),
            &json!("one"),
            &json!("local"),
            &json!("orchestrator")
        )
    );
    assert!(labels["pi-vers.created"].is_string() && labels["pi-vers.expires"].is_null());

    assert_eq!(
        run.task("tests", "say one\nrun cat ~/.swarm/identity.json; pwd")
            .await,
        "Task sent to tests: \"say one\nrun cat ~/.swarm/identity.json; pwd\""
    );
    run.task("agent-1", &format!("say {}", "long ".repeat(40)))
        .await;
    let long = format!("{UNTIL_GO}\nsay {}", "x".repeat(150));
    let sent = run.task("agent-2", &long).await;
    assert_eq!(
        sent,
        format!("Task sent to agent-2: \"{}[...]\"", &long[..100])
    );
    // It wakes when the last one is done.
    run.until("agent-1 [done]").await;
    run.until("tests [done]").await;
    let mut wait = run.session.call("vers_swarm_wait", json!({}));
    let mut updates = wait.updates();
    while !format!("{:?}", updates.borrow_and_update().content).contains("2 of 3 agents finished") {
        updates.changed().await.unwrap();
    }
    go(&place, &vm(2)).await;
    let output = wait.outcome().await.unwrap();
    let (text, details) = (output.text(), output.details.unwrap());
    assert!(text.starts_with("All agents finished in "), "{text}");
    assert!(text.contains("=== tests [done] ===\none\n"), "{text}");
    // Defect 35: identity and workspace are there although the image had none.
    assert!(
        text.contains(&format!("\"vmId\":\"{}\"", vm(0))) && text.contains("/root/workspace"),
        "{text}"
    );
    assert_eq!(
        (&details["timedOut"], &details["agents"][0]["status"]),
        (&json!(false), &json!("done"))
    );
    let widget = run.widget().unwrap();
    assert!(
        widget.starts_with("─── Swarm (3) ───\n✓ tests: done — say one run cat"),
        "{widget}"
    );

    assert!(
        run.read("tests")
            .await
            .starts_with("[tests] (done):\n\none\n")
    );
    let (tail, details) = run
        .ok("read", json!({ "agentId": "agent-1", "tail": 5 }))
        .await;
    assert!(tail.starts_with("[agent-1] (done):\n\n..."), "{tail}");
    assert_eq!(
        (&details["agentId"], &details["status"]),
        (&json!("agent-1"), &json!("done"))
    );
    assert!(details["outputLength"].as_u64().unwrap() > 190 && details["lastActivityAt"].is_u64());
    let (why, _) = run.failure("read", json!({ "agentId": "x" })).await;
    assert_eq!(
        why,
        "Agent 'x' not found. Available: tests, agent-1, agent-2"
    );

    let text = run.text("teardown", json!({})).await;
    assert_eq!(
        text,
        format!(
            "Swarm torn down:\ntests: VM {} deleted\nagent-1: VM {} deleted\nagent-2: VM {} deleted",
            vm(0),
            vm(1),
            vm(2)
        )
    );
    assert_eq!(run.heard("vers:agent_destroyed").len(), 3);
    assert!(place.vms().await.is_empty());
    assert_eq!(run.widget(), None);
    run.end().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_33_an_agent_that_fails_leaks_no_vm_and_hurts_no_other() {
    let place = Place::new().await;
    let run = place.session("one").await;
    let (text, details) = run
        .ok("spawn", run.order(4, &["a", "broken-1", "b", "broken-2"]))
        .await;
    assert!(
        text.starts_with("Spawned 2 of 4 agent(s):\na: VM "),
        "{text}"
    );
    let failed = text
        .lines()
        .find(|line| line.starts_with("broken-1: VM "))
        .unwrap();
    assert!(
        failed.contains("booted but pi RPC failed to start")
            && failed.contains("this one is broken")
            && failed.ends_with("The VM was deleted."),
        "{text}"
    );
    assert_eq!(details["agents"].as_array().unwrap().len(), 2);
    assert_eq!(
        (&details["failed"][1]["id"], &details["failed"][1]["step"]),
        (&json!("broken-2"), &json!("start"))
    );
    assert_eq!(place.vms().await.len(), 2);
    run.task("b", "say still here").await;
    let (text, _) = run.ok("wait", json!({ "agentIds": ["b"] })).await;
    assert!(text.contains("still here"), "{text}");

    // Nothing at all: an error, and the labels are free again.
    let (why, _) = run.failure("spawn", run.order(1, &["broken-1"])).await;
    assert!(
        why.starts_with("Spawned 0 of 1 agent(s):\nbroken-1: VM "),
        "{why}"
    );
    let mut order = run.order(1, &["c"]);
    order["commitId"] = json!("00000000-0000-4000-8000-000000000000");
    let (why, details) = run.failure("spawn", order).await;
    assert!(
        why.contains("c: FAILED to restore commit 00000000-"),
        "{why}"
    );
    assert_eq!(details["failed"][0]["step"], "restore");
    // Defect 38: a model that is not there is an error, not another model.
    let mut order = run.order(1, &["c"]);
    order["model"] = json!("scripted/none");
    let (why, _) = run.failure("spawn", order).await;
    assert!(why.contains("scripted/none"), "{why}");
    let mut order = run.order(1, &["c"]);
    order["model"] = json!("scripted/scripted-2");
    run.ok("spawn", order).await;
    run.task("c", "model").await;
    let (text, _) = run.ok("wait", json!({ "agentIds": ["c"] })).await;
    assert!(text.contains("scripted/scripted-2"), "{text}");
    assert_eq!(place.vms().await.len(), 3);
    run.throw_away().await;
    assert!(place.vms().await.is_empty());

    // Without a key nothing is made.
    let mut order = run.order(1, &[]);
    order["llmProxyKey"] = json!("");
    let (why, _) = run.failure("spawn", order).await;
    assert!(
        why.starts_with("LLM_PROXY_KEY is required for swarm agents."),
        "{why}"
    );
    run.end().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_34_labels_are_never_taken_twice() {
    let place = Place::new().await;
    let run = place.session("one").await;
    // Two at once that want the same.
    let (one, two) = tokio::join!(
        async {
            run.session
                .call("vers_swarm_spawn", run.order(2, &["a", "b"]))
                .outcome()
                .await
        },
        async {
            run.session
                .call("vers_swarm_spawn", run.order(2, &["b", "c"]))
                .outcome()
                .await
        }
    );
    let (won, lost) = match (one, two) {
        (Ok(won), Err(CallError::Failed(lost))) | (Err(CallError::Failed(lost)), Ok(won)) => {
            (won, lost.text())
        }
        other => panic!("{other:?}"),
    };
    assert!(won.text().starts_with("Spawned 2 agent(s):"));
    assert!(
        lost.starts_with("Agent 'b' is in the swarm already."),
        "{lost}"
    );
    assert_eq!(place.vms().await.len(), 2);
    let (why, _) = run.failure("spawn", run.order(2, &["d", "d"])).await;
    assert_eq!(
        why,
        "The label 'd' is given twice: each agent needs its own."
    );
    // Two at once without labels: they count on.
    let (one, two) = tokio::join!(
        run.ok("spawn", run.order(2, &[])),
        run.ok("spawn", run.order(1, &[]))
    );
    let mut names: Vec<String> = [one.1, two.1]
        .iter()
        .flat_map(|details| details["agents"].as_array().unwrap().clone())
        .map(|agent| agent["id"].as_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["agent-1", "agent-2", "agent-3"]);
    assert_eq!(place.vms().await.len(), 5);
    run.text("teardown", json!({})).await;
    assert!(place.vms().await.is_empty());
    run.end().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_32_a_spawn_is_side_by_side_shows_how_far_it_is_and_can_be_given_up() {
    let place = Place::new().await;
    let run = place.session("one").await;
    let mut call = run.session.call("vers_swarm_spawn", run.order(6, &[]));
    let mut updates = call.updates();
    let (mut seen, mut together) = (Vec::new(), 0);
    let outcome = loop {
        tokio::select! {
            outcome = call.outcome() => break outcome,
            changed = updates.changed() => {
                if changed.is_err() { continue; }
                let text = format!("{:?}", updates.borrow_and_update().content);
                // How many are on their way at once.
                together = together.max(text.matches("restoring").count() + text.matches("booting").count() + text.matches("starting").count());
                seen.push(text);
            }
        }
    };
    outcome.unwrap();
    assert!(together > 1, "one after the other: {seen:?}");
    assert!(
        seen.iter().any(|text| text.contains("of 6 ready")),
        "{seen:?}"
    );

    // Given up when some are ready and some are not: nobody is told of any, so none stays.
    let mut order = run.order(8, &[]);
    order["labels"] = json!((1..=8).map(|n| format!("x{n}")).collect::<Vec<_>>());
    let mut call = run.session.call("vers_swarm_spawn", order);
    let mut updates = call.updates();
    loop {
        let text = format!("{:?}", updates.borrow_and_update().content);
        if text.contains(" of 8 ready") && !text.contains("0 of 8 ready") {
            break;
        }
        updates.changed().await.unwrap();
    }
    call.canceller().cancel();
    assert!(matches!(
        call.outcome().await,
        Err(CallError::Cancelled { .. })
    ));
    eventually("the labels are free again", || {
        !run.widget().unwrap().contains("x1")
    })
    .await;
    let mut left = place.vms().await.len();
    for _ in 0..600 {
        if left == 6 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        left = place.vms().await.len();
    }
    assert_eq!(left, 6, "VMs of a call that was given up");
    // The others live, and the names can be had.
    run.spawn(&["x1"]).await;
    for id in ["agent-1", "agent-6", "x1"] {
        run.task(id, "say hello").await;
    }
    let (_, details) = run
        .ok("wait", json!({ "agentIds": ["agent-1", "agent-6", "x1"] }))
        .await;
    assert_eq!(outcomes(&details), ["done", "done", "done"]);

    // Given up at once, and the session ends at the same moment: the end waits for the deletions.
    let mut call = run
        .session
        .call("vers_swarm_spawn", run.order(3, &["y1", "y2", "y3"]));
    let mut updates = call.updates();
    let begun = |text: &str| {
        ["booting", "starting", "ready\\ny"]
            .iter()
            .any(|word| text.contains(word))
    };
    while !begun(&format!("{:?}", updates.borrow_and_update().content)) {
        updates.changed().await.unwrap();
    }
    run.throw_away().await;
    let canceller = call.canceller();
    canceller.cancel();
    assert!(matches!(
        call.outcome().await,
        Err(CallError::Cancelled { .. })
    ));
    run.end().await;
    assert!(place.vms().await.is_empty());
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_41_a_wait_tells_done_failed_late_never_tasked_and_ended_apart() {
    let place = Place::new().await;
    let run = place.session("one").await;
    run.spawn(&["a", "b", "c", "d", "e"]).await;
    // Nothing to wait for.
    let (text, details) = run.wait().await;
    assert!(
        text.starts_with("=== a [idle] ===\n(never given a task)\n\n=== b [idle]"),
        "{text}"
    );
    assert_eq!(details["waited"], 0);
    run.task("a", "say 0 failed, no errors").await;
    // Defect 39: an error is one, whatever the words are; a retry is not the end.
    run.task("b", "say partly\nfail no credit").await;
    run.task("c", "retry 2\nsay after all").await;
    run.task("d", "say so far\nsleep 600000").await;
    let (why, _) = run
        .failure("wait", json!({ "agentIds": ["a", "nobody"] }))
        .await;
    assert_eq!(why, "Agent 'nobody' not found. Available: a, b, c, d, e");
    let (text, details) = run
        .ok("wait", json!({ "agentIds": ["a", "b", "c", "a"] }))
        .await;
    assert_eq!(outcomes(&details), ["done", "failed", "done"]);
    assert!(
        text.contains("=== b [error] ===\nFailed: no credit\npartly"),
        "{text}"
    );
    assert!(
        text.contains("=== c [done] ===") && text.contains("after all"),
        "{text}"
    );

    // 0 looks and returns.
    let (text, details) = run.ok("wait", json!({ "timeoutSeconds": 0 })).await;
    assert!(
        text.starts_with(
            "TIMED OUT after 0s: 2 done, 1 failed (b), 1 timed out (d), 1 never tasked (e)\n\n"
        ),
        "{text}"
    );
    assert_eq!(details["timedOut"], true);
    assert_eq!(details["agents"][4]["outcome"], "never tasked");
    run.until("d [working]").await;
    eventually("what it said so far is read", || true).await;
    // Defect 40: quiet is not done.
    let text = run.read("d").await;
    assert!(text.starts_with("[d] (working):\n\n"), "{text}");

    // A busy agent takes no task; a message, yes.
    let (why, _) = run
        .failure("task", json!({ "agentId": "d", "task": "say x" }))
        .await;
    assert!(
        why.starts_with("Agent 'd' is busy on \"say so far sleep 600000\". Wait for it"),
        "{why}"
    );
    let (why, _) = run
        .failure("message", json!({ "agentId": "e", "message": "hi" }))
        .await;
    assert!(why.starts_with("Agent 'e' is not working"), "{why}");

    // Given up, it is an error, and nothing else changes.
    let mut call = run
        .session
        .call("vers_swarm_wait", json!({ "agentIds": ["d"] }));
    call.canceller().cancel();
    assert!(matches!(
        call.outcome().await,
        Err(CallError::Cancelled { .. })
    ));

    // Defect 49: one that crashes is not working for ever, and wakes who waits for it.
    run.task("e", "say last words\ncrash 3").await;
    let (text, _) = run.ok("wait", json!({ "agentIds": ["e"] })).await;
    assert!(
        text.contains("=== e [ended] ===")
            && text.contains("last words")
            && text.contains("code 3"),
        "{text}"
    );
    let (why, _) = run
        .failure("task", json!({ "agentId": "e", "task": "say x" }))
        .await;
    assert!(why.starts_with("Agent 'e' has ended ("), "{why}");

    // Of a done agent the next task starts.
    run.task("a", &format!("big {}", 300_000)).await;
    let (text, details) = run.ok("wait", json!({ "agentIds": ["a"] })).await;
    assert!(
        text.len() < 20_000
            && text.contains("earlier bytes are not shown: vers_swarm_read a shows more]"),
        "{}",
        text.len()
    );
    assert!(details["agents"][0]["outputLength"].as_u64().unwrap() >= 300_000);
    run.throw_away().await;
    run.end().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_their_coordinator_talk_while_they_work() {
    let place = Place::new().await;
    let run = place.session("one").await;
    let vms = run.spawn(&["a", "b"]).await;
    run.task("a", "run printf 'need the key\\nand quickly\\033[31m\\n' >>/root/.swarm/outbox\nsleep 600000\nsay never").await;
    eventually("the bus has it", || {
        run.heard("vers:swarm_message").len() >= 2
    })
    .await;
    let said = run.heard("vers:swarm_message");
    assert_eq!(
        (
            &said[0]["agentId"],
            &said[0]["message"],
            &said[1]["message"]
        ),
        (&json!("a"), &json!("need the key"), &json!("and quickly"))
    );
    eventually("the conversation has it", || !run.messages().is_empty()).await;
    let messages = run.messages();
    assert_eq!(messages.len(), 1, "{messages:?}");
    let message = &messages[0];
    assert_eq!(
        message.text,
        "Messages of swarm agents at work:\n[a] need the key\n[a] and quickly\nAnswer with vers_swarm_message while the agent is working."
    );
    assert!(message.wakes && message.follow_up && message.kind == "vers:swarm_message");
    let sent = run
        .text(
            "message",
            json!({ "agentId": "a", "message": "say the key is 42" }),
        )
        .await;
    assert_eq!(sent, "Message sent to a: \"say the key is 42\"");
    // The scripted agent hears a steer after what it does now: that has to be short.
    run.task("b", &format!("{UNTIL_GO}\nsleep 600000")).await;
    run.until("b [working]").await;
    run.text(
        "message",
        json!({ "agentId": "b", "message": "say steered" }),
    )
    .await;
    go(&place, &vms[1]).await;
    let (text, details) = run.ok("wait", json!({ "agentIds": ["b"] })).await;
    assert_eq!(outcomes(&details), ["done"]);
    assert!(text.contains("steered"), "{text}");
    run.throw_away().await;
    run.end().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn finished_work_is_collected_before_a_vm_goes() {
    let place = Place::new().await;
    let run = place.session("one").await;
    let vms = run.spawn(&["a", "b"]).await;
    run.task("a", "run mkdir -p out && echo result >out/r.txt && git init -q repo && echo new >repo/file\nsay all done").await;
    run.task("b", "sleep 600000").await;
    run.ok("wait", json!({ "agentIds": ["b"], "timeoutSeconds": 0 }))
        .await;
    run.until("a [done]").await;
    let (why, details) = run.failure("teardown", json!({})).await;
    assert!(why.starts_with("Nothing was torn down: 2 agent(s) have work that nobody has collected.\n  a: done, and nobody has read what it said\n  b: working on \"sleep 600000\"\n"), "{why}");
    assert!(why.contains("force: true"), "{why}");
    assert_eq!(details["refused"][1]["id"], "b");
    assert_eq!(place.vms().await.len(), 2);
    for bad in [
        json!({ "to": "/tmp" }),
        json!({ "to": "../x" }),
        json!({ "files": ["/a/../b"] }),
    ] {
        run.failure("teardown", json!({ "collect": bad, "force": true }))
            .await;
    }
    assert_eq!(place.vms().await.len(), 2);
    // What b does not have keeps b, and not a.
    let collect =
        json!({ "files": ["workspace/out"], "bundle": "workspace/repo", "to": "results" });
    let (why, _) = run.failure("teardown", json!({ "collect": collect })).await;
    assert!(
        why.starts_with("Nothing was torn down: 1 agent(s)"),
        "{why}"
    );
    let (text, details) = run.failure("teardown", json!({ "collect": { "files": ["workspace/nothing"], "to": "results" }, "force": false })).await;
    assert!(
        text.starts_with("Nothing was torn down"),
        "{text} {details}"
    );
    let (text, details) = run
        .ok("teardown", json!({ "collect": collect, "force": true }))
        .await;
    assert!(text.contains(&format!("a: VM {} deleted, collected results/a/output.txt, results/a/files/workspace/out, results/a/repo.bundle", vms[0])), "{text}");
    assert!(
        text.contains(&format!("b: VM {} deleted", vms[1]))
            && text.contains("; not collected: workspace/out ("),
        "{text}"
    );
    assert_eq!(
        (
            &details["agents"][0]["output"],
            &details["agents"][0]["deleted"]
        ),
        (&json!("results/a/output.txt"), &json!(true))
    );
    let work = place.scratch.work().join("results/a");
    let read = |path: &str| std::fs::read_to_string(work.join(path)).unwrap();
    assert!(read("output.txt").ends_with("all done") || read("output.txt").contains("all done"));
    assert_eq!(read("files/workspace/out/r.txt"), "result\n");
    let heads = std::process::Command::new("git")
        .args(["bundle", "list-heads"])
        .arg(work.join("repo.bundle"))
        .output()
        .unwrap();
    assert!(
        String::from_utf8_lossy(&heads.stdout).contains("refs/pi-vers/uncommitted"),
        "{heads:?}"
    );
    assert!(place.vms().await.is_empty());

    // What cannot be collected keeps its VM, without force; the results of the agent before it are not touched.
    let again = run.spawn(&["a"]).await;
    run.task("a", "say second").await;
    run.wait().await;
    let (why, _) = run
        .failure(
            "teardown",
            json!({ "collect": { "files": ["nothing"], "to": "results" } }),
        )
        .await;
    assert!(
        why.contains(&format!(
            "a: VM {} kept — not collected: nothing (",
            again[0]
        )),
        "{why}"
    );
    assert_eq!(place.vms().await.len(), 1);
    let text = run
        .text("teardown", json!({ "collect": { "to": "results" } }))
        .await;
    assert!(
        text.contains(&format!("results/a-{}/output.txt", again[0])),
        "{text}"
    );
    assert!(read("output.txt").contains("all done"));
    run.end().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_42_44_45_47_a_session_that_ends_leaves_agents_at_work_and_the_next_one_has_all_they_said_once()
 {
    let place = Place::new().await;
    let run = place.session("mine").await;
    let vms = run.spawn(&["a", "b", "c"]).await;
    run.task("a", "say early").await;
    run.ok("wait", json!({ "agentIds": ["a"] })).await;
    run.task("a", "say begun\nsleep 1500\nsay ended").await;
    run.task("b", "say begun\nsleep 600000").await;
    run.end().await;
    assert_eq!(
        place.vms().await.len(),
        3,
        "the end of a session ends no VM"
    );

    let run = place.session("mine").await;
    // At once, by name: also before they are reached.
    let (text, details) = run.ok("wait", json!({ "agentIds": ["a"] })).await;
    assert_eq!(outcomes(&details), ["done"]);
    let output = text.split("=== a [done] ===\n").nth(1).unwrap();
    assert_eq!(
        (
            output.matches("begun").count(),
            output.matches("ended").count(),
            output.matches("early").count()
        ),
        (1, 1, 0),
        "{text}"
    );
    // Defect 44: one that works is not taken for idle.
    let status = run.until("b [working]").await;
    run.until("c [idle]").await;
    assert!(status.contains(&vms[1]), "{status}");
    assert!(run.heard("vers:agent_spawned").is_empty());
    run.task("c", "say still here").await;
    run.ok("wait", json!({ "agentIds": ["c"] })).await;
    let found = run.text("discover", json!({})).await;
    assert!(found.starts_with("Discovery results:\na: already connected\nb: already connected\nc: already connected\n\nSwarm (3 agents):"), "{found}");
    // New ones count on from those of before.
    let (_, details) = run.ok("spawn", run.order(1, &[])).await;
    assert_eq!(details["agents"][0]["id"], "agent-1");
    run.end().await;

    // What was read stays read; what works still holds.
    let run = place.session("mine").await;
    let (why, _) = run.failure("teardown", json!({})).await;
    assert!(
        why.contains("1 agent(s)") && why.contains("b: working"),
        "{why}"
    );
    run.throw_away().await;
    assert!(place.vms().await.is_empty());
    run.end().await;
    let run = place.session("mine").await;
    assert_eq!(run.text("status", json!({})).await, "No agents in swarm.");
    run.end().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defect_50_agents_are_found_by_their_labels_without_a_registry() {
    let place = Place::new().await;
    let run = place.session("one").await;
    let nothing = run.text("discover", json!({})).await;
    assert!(
        nothing.starts_with("Discovery results:\nNo swarm agents found"),
        "{nothing}"
    );
    let vms = run.spawn(&["a", "dead", "sleepy"]).await;
    run.task("dead", "kill KILL").await;
    run.task("a", "say what was said there").await;
    run.ok("wait", json!({ "agentIds": ["a", "dead"] })).await;
    run.text(
        "vers_vm_state",
        json!({ "vmId": vms[2], "state": "Paused" }),
    )
    .await;
    run.until("sleepy [lost]").await;
    let (why, _) = run
        .failure("task", json!({ "agentId": "sleepy", "task": "say x" }))
        .await;
    assert!(
        why.starts_with("Agent 'sleepy' cannot be reached (") && why.contains("paused"),
        "{why}"
    );
    run.end().await;

    // Another machine: it has never heard of them.
    let elsewhere = tempfile::tempdir().unwrap();
    let run = place
        .session_in("two", elsewhere.path(), place.settings(&[]), &[])
        .await;
    assert_eq!(run.text("status", json!({})).await, "No agents in swarm.");
    let found = run.text("discover", json!({})).await;
    assert!(
        found.contains(&format!("a: VM {} — reconnected", vms[0])),
        "{found}"
    );
    assert!(
        found.contains(&format!(
            "dead: VM {} — pi-rpc session not running, skipping",
            vms[1]
        )),
        "{found}"
    );
    assert!(
        found.contains(&format!("sleepy: VM {} — paused, skipping", vms[2])),
        "{found}"
    );
    run.until("a [idle]").await;
    run.task("a", "say hello").await;
    let (text, _) = run.wait().await;
    assert!(text.contains("hello"), "{text}");
    let a = |all: Vec<Value>| all.into_iter().find(|vm| vm["vm_id"] == vms[0]).unwrap();
    assert_eq!(labels(&a(place.vms().await))["pi-vers.session"], "two");
    run.text("teardown", json!({})).await;
    assert_eq!(place.vms().await.len(), 2);
    run.end().await;

    // The first session knows of its own what became of them, and drops nothing.
    let run = place.session("one").await;
    run.until("sleepy [lost]").await;
    run.until("dead [ended]").await;
    run.until("a [lost]").await;
    run.text(
        "vers_vm_state",
        json!({ "vmId": vms[2], "state": "Running" }),
    )
    .await;
    run.throw_away().await;
    assert!(place.vms().await.is_empty());
    run.end().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_flags_ask_for_is_sent_and_labelled_and_nothing_else() {
    let place = Place::new().await;
    let home = place.home();
    for (path, text) in [
        (".pi/agent/skills/x/SKILL.md", "skill"),
        (".pi/agent/AGENTS.md", "rules"),
        (".pi/agent/settings.json", "secret"),
    ] {
        let path = home.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let flags = |sync: &str| {
        [
            ("vers-swarm-sync", FlagValue::Text(sync.into())),
            ("vers-swarm-expires", FlagValue::Number(2.0)),
        ]
    };
    let bad = place
        .session_in(
            "one",
            &place.scratch.work(),
            place.settings(&[]),
            &flags("settings"),
        )
        .await;
    let (why, _) = bad.failure("spawn", bad.order(1, &[])).await;
    assert!(why.contains("only skills, agents-md and prompts"), "{why}");
    bad.end().await;
    let run = place
        .session_in(
            "one",
            &place.scratch.work(),
            place.settings(&[]),
            &flags("skills, prompts"),
        )
        .await;
    run.spawn(&["a"]).await;
    let listed = place.vms().await;
    let label = |name: &str| {
        labels(&listed[0])[name]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    assert_eq!(label("pi-vers.expires") - label("pi-vers.created"), 7200);
    run.task(
        "a",
        "run cd ~/.pi/agent; find . -type f | sort; ls -a; cat skills/x/SKILL.md",
    )
    .await;
    let (text, _) = run.wait().await;
    assert!(
        text.contains("./skills/x/SKILL.md") && text.contains("skill\n"),
        "{text}"
    );
    assert!(
        !text.contains("settings.json") && !text.contains("AGENTS.md"),
        "{text}"
    );
    run.throw_away().await;
    run.end().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn defects_50_51_a_golden_image_that_is_built_is_waited_for_in_sight_and_agents_are_registered()
 {
    let place = Place::new().await;
    // A control plane that has no image yet, and takes its time to build one.
    let asked: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let (log, golden) = (asked.clone(), place.golden.clone());
    let reef = Router::new().fallback(move |method: Method, uri: Uri, body: String| {
        let what = format!("{method} {}", uri.path());
        lock(&log).push((
            what.clone(),
            serde_json::from_str(&body).unwrap_or_default(),
        ));
        let golden = golden.clone();
        async move {
            let (status, answer) = match what.as_str() {
                "POST /commits/ensure-golden" => {
                    tokio::time::sleep(Duration::from_secs(6)).await;
                    (
                        StatusCode::CREATED,
                        json!({ "commitId": golden, "created": true, "source": "created" }),
                    )
                }
                "POST /vm-tree/vms" => (StatusCode::CREATED, json!({})),
                "GET /vm-tree/vms" => (StatusCode::OK, json!({ "vms": [], "count": 0 })),
                _ if method == Method::DELETE => (StatusCode::OK, json!({ "deleted": true })),
                _ => (StatusCode::NOT_FOUND, json!({ "error": "not found" })),
            };
            (status, Json(answer))
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move { axum::serve(listener, reef).await });

    let settings = place.settings(&[("VERS_INFRA_URL", &url), ("VERS_AUTH_TOKEN", "t")]);
    let run = place
        .session_in("one", &place.scratch.work(), settings, &[])
        .await;
    let mut order = run.order(2, &[]);
    order.as_object_mut().unwrap().remove("commitId");
    let mut call = run.session.call("vers_swarm_spawn", order);
    let mut updates = call.updates();
    let mut seen = false;
    let outcome = loop {
        tokio::select! {
            outcome = call.outcome() => break outcome,
            changed = updates.changed() => {
                if changed.is_err() { continue; }
                seen |= format!("{:?}", updates.borrow_and_update().content).contains("Looking for the golden commit for ");
            }
        }
    };
    let output = outcome.unwrap();
    assert!(seen, "nothing was shown while the image was built");
    assert!(
        output.text().starts_with("Spawned 2 agent(s):"),
        "{}",
        output.text()
    );
    assert_eq!(output.details.unwrap()["commitId"], json!(place.golden));
    let heard = |what: &str| {
        lock(&asked)
            .iter()
            .filter(|(asked, _)| asked.starts_with(what))
            .map(|(_, body)| body.clone())
            .collect::<Vec<_>>()
    };
    eventually("they are registered", || {
        heard("POST /vm-tree/vms").len() == 2
    })
    .await;
    let members = heard("POST /vm-tree/vms");
    assert!(
        members.iter().all(|member| member["category"] == "swarm_vm"
            && member["name"].as_str().unwrap().starts_with("agent-")),
        "{members:?}"
    );
    run.text("teardown", json!({})).await;
    eventually("they are taken out", || {
        heard("DELETE /vm-tree/vms/").len() == 2
    })
    .await;
    run.end().await;
    server.abort();

    // The environment names one; a control plane that does not answer keeps nobody from spawning.
    let settings = place.settings(&[
        ("VERS_GOLDEN_COMMIT_ID", &place.golden),
        ("VERS_INFRA_URL", &url),
    ]);
    let run = place
        .session_in("two", &place.scratch.work(), settings, &[])
        .await;
    let mut order = run.order(1, &[]);
    order.as_object_mut().unwrap().remove("commitId");
    run.ok("spawn", order).await;
    run.throw_away().await;
    assert!(place.vms().await.is_empty());
    run.end().await;
    place.end().await;
}
