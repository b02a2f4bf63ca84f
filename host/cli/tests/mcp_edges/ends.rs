//! Its end: by end of input or by signal, over pipes and sockets, at once, whatever is under way.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::common::{Home, platform};
use crate::peer::{Peer, Wire, call, meta};

/// The bar is 200 ms; a busy machine gets some more.
const BOUND: Duration = Duration::from_secs(1);

/// What is under way when the end comes.
#[derive(Debug, Clone, Copy)]
enum Work {
    Nothing,
    /// A call that waits for a platform that never answers, one that waits for a clock, one that only computes, one that
    /// waits for the client, and a subscription.
    Much,
}

fn busy_with(work: Work, wire: Wire) -> (Home, Peer) {
    let mut home = Home::new();
    home.set("VERS_BASE_URL", &platform(None));
    let mut peer = Peer::over(wire, &home, &["showcase", "unruly"]);
    peer.initialize();
    peer.call(1, "noop", json!({}));
    if let Work::Nothing = work {
        return (home, peer);
    }
    let mut with_progress = call("show_wait", json!({ "ms": 3_600_000 }));
    with_progress["_meta"] = json!({ "progressToken": "waits" });
    peer.request(2, "tools/call", with_progress);
    peer.notified("notifications/progress");
    peer.request(3, "tools/call", call("vers_vms", json!({})));
    peer.request(4, "tools/call", call("show_ask", json!({})));
    peer.notified("elicitation/create");
    peer.request(
        "listen:0",
        "subscriptions/listen",
        json!({ "_meta": meta(), "notifications": { "toolsListChanged": true } }),
    );
    peer.notified("notifications/subscriptions/acknowledged");
    peer.request(5, "tools/call", call("spin", json!({})));
    peer.ping();
    (home, peer)
}

fn ends(wire: Wire, work: Work) {
    for end in [None, Some(Signal::INT), Some(Signal::TERM)] {
        let (_home, mut peer) = busy_with(work, wire);
        let pid = Pid::from_raw(i32::try_from(peer.child.id()).unwrap()).unwrap();
        let since = Instant::now();
        match end {
            None => peer.close(),
            Some(signal) => kill_process(pid, signal).unwrap(),
        }
        let (status, took) = peer.ended(since);
        println!("{wire:?} {work:?} {end:?}: {took:?}");
        assert!(status.success(), "{wire:?} {work:?} {end:?}: {status}");
        assert!(took < BOUND, "{wire:?} {work:?} {end:?}: it took {took:?}");
    }
}

#[test]
fn it_ends_in_time_over_pipes() {
    ends(Wire::Pipes, Work::Nothing);
}

#[test]
fn it_ends_in_time_over_sockets() {
    ends(Wire::Sockets, Work::Nothing);
}

#[test]
fn it_ends_in_time_over_pipes_with_much_under_way() {
    ends(Wire::Pipes, Work::Much);
}

#[test]
fn it_ends_in_time_over_sockets_with_much_under_way() {
    ends(Wire::Sockets, Work::Much);
}

#[test]
fn it_ends_when_nobody_reads_its_answers() {
    let home = Home::new();
    let mut peer = Peer::new(&home, &["unruly"]);
    peer.initialize();
    peer.call(1, "echo", json!({ "text": "warm" }));
    // More than any pipe holds, and none of it is read.
    for id in 2..6 {
        peer.request(id, "tools/call", call("huge", json!({ "n": 4_000_000 })));
    }
    let since = Instant::now();
    peer.close();
    let (status, took) = peer.ended(since);
    assert!(status.success(), "{status}");
    assert!(took < BOUND, "it took {took:?}");
}

#[test]
fn two_signals_are_as_good_as_one() {
    let (_home, mut peer) = busy_with(Work::Much, Wire::Sockets);
    let pid = Pid::from_raw(i32::try_from(peer.child.id()).unwrap()).unwrap();
    let since = Instant::now();
    // As Claude Code does it.
    kill_process(pid, Signal::INT).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let (status, took) = peer.ended(since);
    assert!(status.success(), "{status}");
    assert!(took < BOUND, "it took {took:?}");
}
