//! However the harness goes, everything that was started goes with it, within five seconds.

use std::time::Duration;

use pi_vers_tests::{Scratch, eventually, mark, traces};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::shim::Shim;

/// What the document promises.
const LIMIT: Duration = Duration::from_secs(5);

const SLEEP: &str = "process = [{ program = \"/bin/sleep\", args = [\"*\", \"*\"] }, { program = \"/usr/bin/sleep\", args = [\"*\", \"*\"] }, { program = \"/bin/sh\", args = [\"-c ...\"] }]";

#[derive(Debug, Clone, Copy)]
enum How {
    HangUp,
    Shutdown,
    Terminate,
    Interrupt,
    Garbage,
}

/// A shell of this machine that runs until it is stopped, started by a call that is over or by one in flight.
async fn with_a_process(shim: &mut Shim, mark: &str) {
    let script = format!(": {mark}; while :; do /bin/sleep 1; done");
    shim.text("keep", json!({ "argv": ["/bin/sh", "-c", script] }))
        .await;
    shim.begin("run", json!({ "argv": ["/bin/sh", "-c", script] }))
        .await;
    eventually("both run", || traces::marked(mark).len() >= 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_started_ends_with_the_harness() {
    for how in [
        How::HangUp,
        How::Shutdown,
        How::Terminate,
        How::Interrupt,
        How::Garbage,
    ] {
        let scratch = Scratch::new();
        let mark = mark();
        let (mut shim, _) = Shim::unruly(&scratch, SLEEP, &[]).await;
        shim.value("start", json!({ "reason": "startup" })).await;
        with_a_process(&mut shim, &mark).await;
        let pid = Pid::from_raw(i32::try_from(shim.pid()).unwrap()).unwrap();
        let expected = match how {
            How::HangUp => {
                shim.hang_up();
                0
            }
            How::Shutdown => {
                shim.send(json!({ "t": "shutdown", "reason": "quit" }))
                    .await;
                0
            }
            How::Terminate => {
                kill_process(pid, Signal::TERM).unwrap();
                0
            }
            How::Interrupt => {
                kill_process(pid, Signal::INT).unwrap();
                0
            }
            How::Garbage => {
                shim.bytes(b"}\n").await;
                2
            }
        };
        let ended = shim.ended_within(LIMIT).await;
        assert_eq!(ended.code, Some(expected), "{how:?}: {ended:?}");
        assert_eq!(traces::marked(&mark), Vec::<u32>::new(), "{how:?}");
        scratch.nothing_left();
    }
}

/// Calls in flight are cancelled and answered, and the answers are written before the end.
#[tokio::test(flavor = "multi_thread")]
async fn calls_in_flight_are_answered_at_a_shutdown() {
    let scratch = Scratch::new();
    let (mut shim, _) = Shim::unruly(&scratch, "ui = [\"confirm\"]", &[]).await;
    let mut ids = vec![shim.begin("ask", json!({ "text": "?", "n": 60_000 })).await];
    for _ in 0..10 {
        ids.push(shim.begin("sleep", json!({ "n": 600_000 })).await);
    }
    shim.asked("ui.confirm").await;
    shim.send(json!({ "t": "shutdown", "reason": "quit" }))
        .await;
    for id in ids {
        let answer = shim.answer(id).await;
        assert_eq!(answer["code"], "cancelled", "{answer}");
    }
    assert_eq!(shim.ended_within(LIMIT).await.code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_do_not_stop_do_not_hold_the_end_up() {
    for tool in ["spin", "stubborn", "deaf", "block"] {
        let scratch = Scratch::new();
        let (mut shim, _) = Shim::unruly(&scratch, "", &[]).await;
        shim.value("start", json!({ "reason": "startup" })).await;
        shim.text("nothing", json!({})).await;
        shim.begin(tool, json!({ "n": 600_000 })).await;
        // Answered by the reader, so the call before it has been taken, too.
        let id = shim.ask("call", json!({})).await;
        shim.answer(id).await;
        shim.hang_up();
        let ended = shim.ended_within(LIMIT).await;
        assert_eq!(ended.code, Some(0), "{tool}: {ended:?}");
        scratch.nothing_left();
    }
}

/// A harness that neither reads nor answers, and then goes.
#[tokio::test(flavor = "multi_thread")]
async fn a_harness_that_does_not_read_does_not_hold_the_end_up() {
    let scratch = Scratch::new();
    let (mut shim, _) = Shim::unruly(&scratch, "", &[]).await;
    for _ in 0..50 {
        shim.begin("echo", json!({ "text": "x".repeat(100_000) }))
            .await;
    }
    let pid = shim.pid();
    shim.hang_up();
    eventually("it has ended", || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    })
    .await;
    assert_eq!(shim.ended_within(LIMIT).await.code, Some(0));
}
