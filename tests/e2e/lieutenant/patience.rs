//! Callers that wait no longer than a moment, as clients do that give a call up after a minute.

use std::time::Duration;

use pi_vers_host::{CallError, CallOptions, ToolOutput};
use pi_vers_tests::eventually;
use serde_json::{Value, json};

use super::desk::{Place, Run};

async fn hurried(run: &Run, tool: &str, arguments: Value) -> Result<ToolOutput, CallError> {
    let options = CallOptions {
        id: None,
        patience: Some(Duration::from_millis(100)),
    };
    run.session
        .call_with(options, tool, arguments)
        .outcome()
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_and_a_resume_go_on_when_their_caller_waits_no_longer() {
    let place = Place::new().await;
    let run = place.session("one").await;
    let arguments = |name: &str, model: &str| json!({ "name": name, "role": "r", "commitId": place.golden, "model": model });
    let output = hurried(
        &run,
        "vers_lt_create",
        arguments("a", "scripted/scripted-1"),
    )
    .await;
    let output = output.unwrap();
    assert!(
        output
            .text()
            .starts_with("Lieutenant \"a\" is still being created.")
            && output.text().contains("vers_lt_status"),
        "{}",
        output.text()
    );
    assert_eq!(output.details.unwrap()["goesOn"], true);
    run.until_status("[idle]").await;
    run.send("a", "say here").await;
    run.announcement(1).await;

    // A failure that nobody waited for is told to who asks.
    let output = hurried(&run, "vers_lt_create", arguments("b", "scripted/none")).await;
    assert!(output.unwrap().text().contains("still being created"));
    let status = run.until_status("Not created:").await;
    assert!(status.contains("scripted/none"), "{status}");
    assert_eq!(place.vms().await.len(), 1);

    run.text("vers_lt_pause", json!({ "name": "a" })).await;
    let output = hurried(&run, "vers_lt_resume", json!({ "name": "a" })).await;
    let text = output.unwrap().text();
    assert!(
        text.contains("is still being resumed") || text.contains("resumed. Pi session intact"),
        "{text}"
    );
    run.until_status("[idle]").await;
    run.send("a", "say again").await;
    run.announcement(2).await;

    // Given up while its caller still waited: nothing stays.
    let options = CallOptions {
        id: None,
        patience: Some(Duration::from_secs(600)),
    };
    let wanted = arguments("taken-back", "scripted/scripted-1");
    let mut call = run.session.call_with(options, "vers_lt_create", wanted);
    let mut updates = call.updates();
    while !format!("{:?}", updates.borrow_and_update().content).contains("booting") {
        updates.changed().await.unwrap();
    }
    call.canceller().cancel();
    assert!(matches!(
        call.outcome().await,
        Err(CallError::Cancelled { .. })
    ));
    eventually("nothing is left of it", || {
        run.widget()
            .is_some_and(|widget| !widget.contains("taken-back"))
    })
    .await;
    run.text("vers_lt_destroy", json!({ "name": "a" })).await;
    run.end().await;
    assert!(place.vms().await.is_empty());
    place.end().await;
}
