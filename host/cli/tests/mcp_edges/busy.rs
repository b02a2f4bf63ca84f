//! Guests that only compute: they delay nobody, and a cancel stops them.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::common::Home;
use crate::peer::{DEADLINE, Peer, call};

/// The processor time of a process so far.
fn spent(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Behind the name, which may hold anything: user and system time are fields 14 and 15.
    let (_, rest) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = rest
        .split(' ')
        .skip(11)
        .take(2)
        .map(|time| time.parse::<u64>().unwrap())
        .sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

fn spin(peer: &mut Peer, id: &str) {
    peer.request(id, "tools/call", call("spin", json!({})));
}

fn cancel(peer: &mut Peer, id: &str) {
    peer.send(&json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": id } }));
}

#[test]
fn a_cancel_stops_a_guest_that_only_computes() {
    let home = Home::new();
    let mut peer = Peer::new(&home, &["unruly"]);
    peer.initialize();
    peer.call(1, "echo", json!({ "text": "warm" }));
    let process = peer.child.id();
    let before = spent(process);
    spin(&mut peer, "busy");
    // It computes: that is seen from outside.
    let deadline = Instant::now() + DEADLINE;
    while spent(process) < before + Duration::from_millis(100) {
        peer.ping();
        assert!(Instant::now() < deadline, "it does not compute");
    }
    cancel(&mut peer, "busy");
    // It has stopped when window after window passes without it: a busy machine may leave it out of one.
    let cancelled = Instant::now();
    let mut quiet = 0;
    while quiet < 5 {
        let begun = spent(process);
        std::thread::sleep(Duration::from_millis(100));
        quiet = if spent(process) == begun {
            quiet + 1
        } else {
            0
        };
        assert!(Instant::now() < deadline, "it still computes");
    }
    println!("quiet {:?} after the cancel", cancelled.elapsed());
    peer.ping();
    // The extension goes on, and a cancelled call is not answered.
    assert_eq!(peer.call(2, "echo", json!({ "text": "again" })), "again");
    assert!(
        peer.kept.iter().all(|message| message["id"] != "busy"),
        "{:?}",
        peer.kept
    );
}

#[test]
fn busy_guests_delay_no_ping() {
    let home = Home::new();
    let mut peer = Peer::new(&home, &["unruly", "showcase"]);
    peer.initialize();
    peer.call(1, "noop", json!({}));
    for at in 0..8 {
        spin(&mut peer, &format!("busy {at}"));
    }
    // One after the other: a delay of some milliseconds each would be seen. Alone they take a fraction of it.
    let (count, bound) = (500, Duration::from_secs(10));
    let begun = Instant::now();
    let mut worst = Duration::ZERO;
    for _ in 0..count {
        let sent = Instant::now();
        peer.ping();
        worst = worst.max(sent.elapsed());
    }
    let took = begun.elapsed();
    println!("{count} pings beside busy guests: {took:?}, the longest {worst:?}");
    assert!(took < bound, "{count} pings took {took:?}");
    // Lists and calls of other extensions neither.
    let listed = peer.ask(2, "tools/list", json!({}));
    assert!(listed["result"]["tools"].is_array());
    assert_eq!(peer.call(3, "noop", json!({})), "ok");
    let busy: Vec<&Value> = peer
        .kept
        .iter()
        .filter(|message| {
            message["id"]
                .as_str()
                .is_some_and(|id| id.starts_with("busy"))
        })
        .collect();
    for message in busy {
        // The host's limit of computing without giving way, if it was reached meanwhile.
        assert_eq!(message["result"]["isError"], true, "{message}");
    }
}
