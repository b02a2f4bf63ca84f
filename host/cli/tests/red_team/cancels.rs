//! Ten thousand calls given up at random moments: nothing of them is left.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::processes::processes;
use crate::raider::Raid;
use crate::session::{Peer, call};
use crate::web::Web;

/// By then all is gone that is being stopped in the background.
const SOON: Duration = Duration::from_secs(60);

/// Numbers that are the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most
    }
}

/// Open descriptors, threads and resident KiB of a process.
fn size(id: u32) -> (usize, usize, usize) {
    let process = Path::new("/proc").join(id.to_string());
    let open = std::fs::read_dir(process.join("fd")).unwrap().count();
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let number = |key: &str| {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (open, number("Threads:"), number("VmRSS:"))
}

#[test]
fn ten_thousand_calls_given_up_at_random_moments_leave_nothing() {
    const CALLS: u64 = 10_000;
    const WAVE: u64 = 50;
    let seed = std::env::var("PI_VERS_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_nanos() as u64 | 1
    });
    let mut random = Random(seed);
    let web = Web::new();
    let silent = web.url("/silent");
    let rules = format!(
        "process = [{{ program = \"/bin/sleep\", args = [\"*\"] }}, {{ program = \"/usr/bin/sleep\", args = [\"*\"] }}]\nhttp = [{}]\nlimits = {{ handles = 1500, processes = 60, calls = 60, connections = 60 }}",
        web.rule("/*")
    );
    let raid = Raid::new(&rules);
    // This run's own: another one's are not counted.
    let forever = format!("8642{}", std::process::id());
    let mut peer = Peer::new(&raid, &[]);
    assert_eq!(peer.raid(json!({ "what": "nothing" })), "nothing");
    let mut before = None;
    for wave in 0..CALLS / WAVE {
        let mut open = Vec::new();
        for _ in 0..WAVE {
            let what = match random.below(20) {
                0 | 1 => json!({ "what": "exec", "argv": ["sleep", forever] }),
                2 => json!({ "what": "http", "text": silent }),
                3..6 => json!({ "what": "sleeps", "n": 5, "timeout": 600_000 }),
                6..9 => json!({ "what": "sleep", "n": random.below(4) }),
                9 => json!({ "what": "updates", "n": 50, "text": "u" }),
                10 => json!({ "what": "streams-dropped", "n": 20 }),
                11 => json!({ "what": "text", "text": "t", "n": 10_000 }),
                _ => json!({ "what": "sleep", "n": 600_000 }),
            };
            open.push(peer.request("tools/call", call(what)));
            // Some are given up while others are just being asked for.
            if random.below(3) == 0 {
                let id =
                    open.swap_remove(usize::try_from(random.below(open.len() as u64)).unwrap());
                cancel(&mut peer, id);
            }
        }
        if random.below(2) == 0 {
            std::thread::sleep(Duration::from_micros(random.below(3_000)));
        }
        while !open.is_empty() {
            let id = open.swap_remove(usize::try_from(random.below(open.len() as u64)).unwrap());
            cancel(&mut peer, id);
        }
        // It serves on, in the same instance.
        assert_eq!(
            peer.raid(json!({ "what": "nothing" })),
            "nothing",
            "seed {seed}"
        );
        if wave == 20 {
            before = Some(size(peer.id()));
        }
    }
    // What is being stopped in the background is gone soon.
    let end = Instant::now() + SOON;
    while processes(&forever) > 0 || web.open() > 0 {
        let (left, open) = (processes(&forever), web.open());
        let late = Instant::now() > end;
        assert!(!late, "seed {seed}: {left} left, {open} open");
        std::thread::sleep(Duration::from_millis(10));
    }
    // All handles, places for processes and connections are free again.
    let kept = peer.raid(json!({ "what": "sleeps", "n": 400 }));
    assert_eq!(kept, "slept 400", "seed {seed}");
    let kept = peer.raid(json!({ "what": "http-keep", "text": web.url("/hello"), "n": 60 }));
    assert_eq!(kept, "kept 60", "seed {seed}");
    peer.raid(json!({ "what": "http-drop" }));
    let mut kept = 0;
    while kept < 60 {
        // A place is free a moment after its process is gone.
        let told = peer.raid(json!({ "what": "keep", "argv": ["sleep", forever], "n": 60 - kept }));
        let number = told.split(' ').find_map(|word| word.parse::<usize>().ok());
        kept += number.unwrap_or_else(|| panic!("seed {seed}: {told}"));
        assert!(Instant::now() < end, "seed {seed}: {kept} of 60, {told}");
    }
    let (before, after) = (before.unwrap(), size(peer.id()));
    // 60 processes are kept, each with a few descriptors.
    assert!(
        after.0 < before.0 + 60 * 4 + 40,
        "seed {seed}: {before:?} {after:?}"
    );
    assert!(
        after.2 < before.2 + (96 << 10),
        "seed {seed}: {before:?} {after:?}"
    );
    let errors = peer.errors();
    assert!(
        !errors.contains("crashed") && !errors.contains("panicked"),
        "seed {seed}: {errors}"
    );
    peer.end();
    gone(&forever);
}

/// The server had little time for being polite, and none is left.
fn gone(forever: &str) {
    let end = Instant::now() + SOON;
    while processes(forever) > 0 {
        let left = processes(forever);
        assert!(Instant::now() < end, "{left} left");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_process_that_ignores_polite_signals_ends_with_the_server() {
    let raid = Raid::new(
        "process = [{ program = \"/bin/sh\", args = [\"-c *\"] }, { program = \"/usr/bin/sh\", args = [\"-c *\"] }]",
    );
    let forever = format!("8643{}", std::process::id());
    let script = format!("trap '' TERM INT HUP; sleep {forever}; sleep {forever}");
    let mut peer = Peer::new(&raid, &[]);
    let kept = peer.raid(json!({ "what": "keep", "argv": ["sh", "-c", script], "n": 5 }));
    assert_eq!(kept, "kept 5");
    let end = Instant::now() + SOON;
    // Each shell and its child.
    while processes(&forever) < 10 {
        assert!(Instant::now() < end, "they run");
        std::thread::sleep(Duration::from_millis(5));
    }
    peer.end();
    gone(&forever);
}

fn cancel(peer: &mut Peer, id: u64) {
    let parameters = json!({ "requestId": id, "reason": "no longer wanted" });
    peer.send(
        &json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": parameters }),
    );
}
