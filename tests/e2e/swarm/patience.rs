//! Callers that wait no longer than a moment, as clients do that give a call up after a minute.

use std::time::Duration;

use pi_vers_host::{CallError, CallOptions, ToolOutput};
use pi_vers_tests::eventually;
use serde_json::{Value, json};

use super::desk::{Place, Run};
use super::{UNTIL_GO, go, outcomes};

async fn hurried(run: &Run, tool: &str, arguments: Value) -> Result<ToolOutput, CallError> {
    let options = CallOptions {
        id: None,
        patience: Some(Duration::from_millis(200)),
    };
    run.session
        .call_with(options, tool, arguments)
        .outcome()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_answers_before_its_caller_is_gone_and_goes_on_when_called_again() {
    let place = Place::new().await;
    let run = place.session("one").await;
    let vms = run.spawn(&["a", "b"]).await;
    run.task("a", "say quick").await;
    run.ok("wait", json!({ "agentIds": ["a"] })).await;
    run.task("b", &format!("{UNTIL_GO}\nsay slow")).await;
    let output = hurried(&run, "vers_swarm_wait", json!({})).await.unwrap();
    let (text, details) = (output.text(), output.details.unwrap());
    assert!(
        text.starts_with("STILL WORKING after 0s: 1 done, 1 working (b)\nCall vers_swarm_wait again to go on waiting."),
        "{text}"
    );
    assert_eq!(outcomes(&details), ["done", "working"]);
    assert_eq!(
        (&details["again"], &details["timedOut"]),
        (&json!(true), &json!(false))
    );
    go(&place, &vms[1]).await;
    let (text, details) = run.ok("wait", json!({})).await;
    assert!(text.starts_with("All agents finished"), "{text}");
    assert_eq!(outcomes(&details), ["done", "done"]);
    run.end().await;

    // Another machine finds them, also when nobody waits for it.
    let elsewhere = tempfile::tempdir().unwrap();
    let run = place
        .session_in("two", elsewhere.path(), place.settings(&[]), &[])
        .await;
    let options = CallOptions {
        id: None,
        patience: Some(Duration::ZERO),
    };
    let mut call = run
        .session
        .call_with(options, "vers_swarm_discover", json!({}));
    let text = call.outcome().await.unwrap().text();
    assert!(
        text.starts_with("Still looking") && text.contains("vers_swarm_status"),
        "{text}"
    );
    run.until("b [idle]").await;
    run.until("a [idle]").await;
    run.throw_away().await;
    run.end().await;
    place.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spawn_goes_on_when_its_caller_waits_no_longer_and_is_taken_back_when_it_is_given_up() {
    let place = Place::new().await;
    let run = place.session("one").await;
    let order = run.order(2, &["a", "broken-1"]);
    let output = hurried(&run, "vers_swarm_spawn", order).await.unwrap();
    let text = output.text();
    assert!(
        text.starts_with("Still starting 2 agent(s): a, broken-1.")
            && text.contains("vers_swarm_status"),
        "{text}"
    );
    // Labels are taken meanwhile, and a task has to wait.
    let (why, _) = run
        .failure("task", json!({ "agentId": "a", "task": "say early" }))
        .await;
    assert!(why.contains("still starting"), "{why}");
    // Whoever waits for one that comes to nothing does not wait for ever.
    let (_, details) = run.ok("wait", json!({ "agentIds": ["broken-1"] })).await;
    assert_eq!(outcomes(&details), ["ended"]);
    let status = run.until("a [idle]").await;
    let status = match status.contains("Not started") {
        true => status,
        false => run.until("Not started").await,
    };
    assert!(
        status.contains("Not started:\n  broken-1: VM ") && status.contains("this one is broken"),
        "{status}"
    );
    assert_eq!(place.vms().await.len(), 1);
    run.task("a", "say here").await;
    let (text, _) = run.ok("wait", json!({})).await;
    assert!(text.contains("here"), "{text}");

    // Given up while its caller still waited: nothing stays, also if the session ends at once.
    let options = CallOptions {
        id: None,
        patience: Some(Duration::from_secs(600)),
    };
    let order = run.order(3, &["y1", "y2", "y3"]);
    let mut call = run.session.call_with(options, "vers_swarm_spawn", order);
    let mut updates = call.updates();
    let begun = |text: &str| {
        ["booting", "starting", "ready\\ny"]
            .iter()
            .any(|word| text.contains(word))
    };
    while !begun(&format!("{:?}", updates.borrow_and_update().content)) {
        updates.changed().await.unwrap();
    }
    call.canceller().cancel();
    assert!(matches!(
        call.outcome().await,
        Err(CallError::Cancelled { .. })
    ));
    eventually("the labels are free again", || {
        !run.widget().unwrap().contains("y1")
    })
    .await;
    run.throw_away().await;
    run.end().await;
    assert!(place.vms().await.is_empty());
    place.end().await;
}
