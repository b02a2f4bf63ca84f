//! Processor time of the client's side: this process and the programs it starts, ended or not, but not the VM's.
//!
//! `ssh` leaves its proxy behind when it ends, and a proxy works as hard as `ssh` does. So this process takes in its
//! orphans (as a subreaper) and waits for them before it looks at the clock.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, waitpid};

use crate::Outcome;

/// How long a proxy may take to notice that it is alone.
const ORPHANS: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct Meter {
    vm: Option<u32>,
    /// What lives through many measurements.
    kept: Mutex<BTreeSet<u32>>,
    tick: Duration,
}

impl Meter {
    /// `vm`: the process whose work is not the client's.
    pub(crate) fn new(vm: Option<u32>) -> Outcome<Self> {
        rustix::process::set_child_subreaper(Pid::from_raw(1))?;
        let ticks = rustix::param::clock_ticks_per_second();
        let tick = Duration::from_secs(1) / u32::try_from(ticks)?;
        Ok(Self {
            vm,
            kept: Mutex::default(),
            tick,
        })
    }

    /// These processes, and what is below them or belongs to them now, are no orphans.
    pub(crate) fn keep_all(&self) {
        self.kept().extend(children(std::process::id()));
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client's processor time up to now.
    pub(crate) fn client(&self) -> Duration {
        let mut ticks = 0;
        let mut below = vec![std::process::id()];
        while let Some(process) = below.pop() {
            if Some(process) != self.vm {
                ticks += spent(process).unwrap_or(0);
                below.extend(children(process));
            }
        }
        self.tick * u32::try_from(ticks).unwrap_or(u32::MAX)
    }

    /// Waits for orphans, so that their time counts where it was spent.
    pub(crate) async fn reap(&self) {
        for orphan in children(std::process::id()) {
            if self.kept().contains(&orphan) || Some(orphan) == self.vm {
                continue;
            }
            if ended(vec![orphan], ORPHANS).await {
                let _ = waitpid(pid(orphan), WaitOptions::NOHANG);
            }
        }
    }
}

/// Waits until these processes of this machine have ended; `false` if they have not in this time.
pub(crate) async fn ended(processes: Vec<u32>, patience: Duration) -> bool {
    let deadline = Instant::now() + patience;
    let waiting = tokio::task::spawn_blocking(move || {
        processes.into_iter().all(|process| {
            let Some(Ok(handle)) = pid(process).map(|pid| pidfd_open(pid, PidfdFlags::empty()))
            else {
                return true;
            };
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).ok();
            let mut handle = [PollFd::new(&handle, PollFlags::IN)];
            poll(&mut handle, left.as_ref()).is_ok_and(|ready| ready > 0)
        })
    });
    waiting.await.unwrap_or(false)
}

fn pid(process: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(process).ok()?)
}

/// Ticks of a process and of those children it has waited for.
fn spent(process: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // Behind the name, which may hold anything: state is field 3, the four times are fields 14 to 17.
    let (_, rest) = stat.rsplit_once(") ")?;
    let times = rest.split(' ').skip(11).take(4);
    times.map(|time| time.parse::<u64>().ok()).sum()
}

/// The children of a process.
pub(crate) fn children(process: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    let lists = threads.into_iter().flatten().flatten();
    lists
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok())
        .flat_map(|list| {
            let ids = list.split_whitespace();
            ids.filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()
        })
        .collect()
}
