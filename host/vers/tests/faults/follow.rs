//! A thousand cuts while files are followed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::faults::{Fault, Faults, Plan};
use crate::lab::{Lab, eventually, marked};
use crate::story::{self, Checker, Progress};
use crate::{ALONE, SEED, descriptors, of_vm, ssh};
use vers_client::ssh::{Follow, Position};

/// Nothing at all came for so long: it hangs.
const SILENCE: Duration = Duration::from_secs(120);
/// Each has a VM and a connection of its own.
const FOLLOWS: u64 = 4;

async fn next(follow: &mut Follow, checker: &mut Checker) {
    let followed = tokio::time::timeout(SILENCE, follow.next())
        .await
        .unwrap_or_else(|_| panic!("nothing came after line {}", checker.count))
        .expect("the follow has ended");
    checker.take(followed.unwrap_or_else(|error| panic!("after line {}: {error}", checker.count)));
}

/// Follows through these faults until there were as many as this, and to the end of the file then.
async fn survive(plan: Plan, upheaval: bool, enough: impl Fn(&Faults) -> bool) {
    let _alone = ALONE.lock().await;
    let lab = Lab::start().await;
    let tasks = tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks();
    let files = descriptors();
    let faults = Faults::start(lab.settings(&[]).vm_connect().unwrap(), SEED)
        .await
        .unwrap();
    let began = Instant::now();
    faults.plan(plan);
    let (faults, enough) = (&faults, &enough);
    let all = (0..FOLLOWS).map(|number| {
        let (vm, ssh) = (vers_client::VmId(uuid::Uuid::new_v4()), ssh(&lab, faults));
        let path = lab.dir.path().join(format!("log{number}"));
        async move {
            let progress = Arc::<Progress>::default();
            let writer = story::write(path.clone(), SEED + number, upheaval, progress.clone());
            let mut checker = Checker::new(SEED + number, progress.clone());
            let mut follow = ssh.follow(vm, path.to_str().unwrap(), Position::Offset(0));
            while !enough(faults) {
                next(&mut follow, &mut checker).await;
            }
            progress.enough.store(true, Ordering::SeqCst);
            let count = tokio::task::spawn_blocking(|| writer.join().unwrap())
                .await
                .unwrap();
            faults.plan(Plan::default());
            while checker.count < count {
                next(&mut follow, &mut checker).await;
            }
            // And nothing behind it.
            let more = tokio::time::timeout(Duration::from_millis(200), follow.next()).await;
            if let Ok(Some(Ok(more))) = more {
                checker.take(more);
                assert_eq!(checker.count, count, "a line that was never written");
            }
            checker
        }
    });
    let all = futures::future::join_all(all).await;
    let counts = faults.counts();
    let of = |what: fn(&Checker) -> u64| all.iter().map(what).sum::<u64>();
    eprintln!(
        "{:.0} s: {counts:?}; {} lines, {} bytes, {} replaced, {} truncated",
        began.elapsed().as_secs_f64(),
        of(|checker| checker.count),
        of(|checker| checker.bytes),
        of(|checker| checker.replaced),
        of(|checker| checker.truncated),
    );
    if upheaval {
        assert!(of(|checker| checker.replaced) > 5 && of(|checker| checker.truncated) > 5);
    }
    // The clients went with their follows.
    faults.cut();
    eventually("nothing is left on the VM", || {
        marked(&of_vm(&lab)).is_empty()
    })
    .await;
    let metrics = tokio::runtime::Handle::current().metrics();
    // The proxy itself, and no more than the edge may need to notice.
    eventually("no task is left", || metrics.num_alive_tasks() <= tasks + 1).await;
    eventually("no file is left open", || descriptors() <= files + 2).await;
}

fn cuts() -> Plan {
    Plan {
        faults: vec![Fault::Reset, Fault::Close, Fault::Truncate],
        // Some hit the handshake, most the following.
        after: 2_000..100_000,
        ..Plan::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_cuts_lose_and_double_nothing() {
    survive(cuts(), false, |faults| faults.counts().cuts() >= 1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_amid_rotations_and_truncations_lose_and_double_nothing() {
    survive(cuts(), true, |faults| faults.counts().cuts() >= 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupted_byte_ends_in_a_reconnect_and_never_in_a_line() {
    let plan = Plan {
        faults: vec![Fault::Corrupt],
        ..cuts()
    };
    survive(plan, false, |faults| faults.counts().corruptions >= 100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_line_is_only_slow() {
    let plan = Plan {
        delay: Duration::from_millis(3),
        rate: Some(4 << 20),
        ..cuts()
    };
    survive(plan, true, |faults| faults.counts().cuts() >= 30).await;
}

/// A silent stall is told by keepalives, after a minute; here by the cut that ends it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_ends_in_a_reconnect() {
    let _alone = ALONE.lock().await;
    let lab = Lab::start().await;
    let faults = Faults::start(lab.settings(&[]).vm_connect().unwrap(), SEED)
        .await
        .unwrap();
    faults.plan(Plan {
        faults: vec![Fault::Stall],
        after: 20_000..30_000,
        ..Plan::default()
    });
    let progress = Arc::<Progress>::default();
    let path = lab.dir.path().join("log");
    let writer = story::write(path.clone(), SEED, false, progress.clone());
    let mut checker = Checker::new(SEED, progress.clone());
    let mut follow = ssh(&lab, &faults).follow(lab.vm, path.to_str().unwrap(), Position::Offset(0));
    for stalls in 1..=3 {
        while faults.counts().stalls < stalls {
            let followed = tokio::time::timeout(Duration::from_millis(50), follow.next()).await;
            if let Ok(followed) = followed {
                checker.take(followed.unwrap().unwrap());
            }
        }
        faults.cut();
    }
    progress.enough.store(true, Ordering::SeqCst);
    faults.plan(Plan::default());
    let count = tokio::task::spawn_blocking(|| writer.join().unwrap())
        .await
        .unwrap();
    faults.cut();
    while checker.count < count {
        next(&mut follow, &mut checker).await;
    }
}
