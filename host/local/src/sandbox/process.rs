//! Processes of the host by pid, told apart from later ones with the same number.

use super::{Error, sys};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, waitid};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Identifies this boot of the host.
pub(super) fn boot_id() -> Result<String, Error> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(path).map_err(Error::io(format!("read {path}")))?;
    Ok(text.trim().to_owned())
}

/// What `/proc/<pid>/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// `R`, `S`, `D`, `T`, `t`, `Z`, …
    pub(super) state: u8,
    pub(super) parent: i32,
    /// Clock ticks after boot.
    pub(super) start_time: u64,
}

/// `None` when there is no such process.
pub(super) fn stat(pid: i32) -> Option<Stat> {
    parse_stat(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

fn parse_stat(text: &[u8]) -> Option<Stat> {
    // The name is in parentheses and may itself hold spaces and parentheses.
    let after = text.iter().rposition(|b| *b == b')')?;
    let rest = std::str::from_utf8(text.get(after + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    let start_time = fields.nth(17)?.parse().ok()?;
    Some(Stat {
        state,
        parent,
        start_time,
    })
}

/// Whether the process with this number and start time lives (a zombie does not).
pub(super) fn lives(pid: i32, start_time: u64) -> bool {
    stat(pid).is_some_and(|s| s.start_time == start_time && !matches!(s.state, b'Z' | b'X'))
}

/// A process held by descriptor.
pub(super) struct Held(AsyncFd<OwnedFd>);

impl Held {
    /// `None` when it is gone already.
    pub(super) fn open(pid: i32, start_time: u64) -> io::Result<Option<Self>> {
        let Some(pid) = Pid::from_raw(pid).filter(|p| p.as_raw_pid() > 1) else {
            return Ok(None);
        };
        let fd = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        // Checked after opening: if it is the right one now, the descriptor is of the right one. A zombie counts, so that
        // it is reaped.
        if stat(pid.as_raw_pid()).is_none_or(|s| s.start_time != start_time) {
            return Ok(None);
        }
        Ok(Some(Self(sys::watched(fd, Interest::READABLE)?)))
    }

    pub(super) fn kill(&self) -> io::Result<()> {
        match rustix::process::pidfd_send_signal(self.0.get_ref(), Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Waits until it has ended, and reaps it if it is our child.
    pub(super) async fn ended(&self) -> io::Result<()> {
        let _ready = self.0.readable().await?;
        // ECHILD: adopted from an earlier server, somebody else reaps it.
        let _ = waitid(
            WaitId::PidFd(self.0.get_ref().as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        );
        Ok(())
    }
}

/// `pid` and everything that descends from it, from one look at `/proc`.
fn tree(pid: i32) -> BTreeMap<i32, Stat> {
    let mut all = BTreeMap::new();
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(p) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else {
            continue;
        };
        if let Some(s) = stat(p) {
            children.entry(s.parent).or_default().push(p);
            all.insert(p, s);
        }
    }
    let mut found = BTreeMap::new();
    let mut next = vec![pid];
    while let Some(p) = next.pop() {
        if let Some(s) = all.get(&p)
            && found.insert(p, *s).is_none()
        {
            next.extend(children.get(&p).into_iter().flatten());
        }
    }
    found
}

/// Stops (or continues) the whole tree of `pid` with signals. There is no event for a stranger's stopping, so this looks
/// again, soon at first and then less often, until every process is stopped and no new one has appeared.
pub(super) async fn signal_tree(pid: i32, stop: bool, deadline: Duration) -> Result<(), Error> {
    let signal = if stop { Signal::STOP } else { Signal::CONT };
    let what = if stop {
        "stopping every process of the VM"
    } else {
        "continuing the VM's processes"
    };
    let settle = async {
        let mut signalled = BTreeSet::new();
        let mut pause = Duration::from_micros(200);
        loop {
            let mut settled = true;
            for (p, s) in tree(pid) {
                let stopped = matches!(s.state, b'T' | b't');
                let done = matches!(s.state, b'Z' | b'X') || stopped == stop;
                settled &= done;
                if !done
                    && signalled.insert((p, s.start_time))
                    && let Some(p) = Pid::from_raw(p)
                {
                    let _ = rustix::process::kill_process(p, signal);
                }
            }
            if settled {
                return;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    };
    tokio::time::timeout(deadline, settle)
        .await
        .map_err(|_| Error::Timeout {
            what: what.into(),
            after: deadline,
        })
}

/// Processes of this user whose first argument starts with `prefix` and that are the first of a pid namespace.
pub(super) fn first_processes(prefix: &str) -> Vec<(i32, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|n| n.parse::<i32>().ok())
        else {
            continue;
        };
        let named = fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|c| c.starts_with(prefix.as_bytes()));
        if !named {
            continue;
        }
        let first = fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|s| {
            s.lines().any(|l| {
                l.strip_prefix("NSpid:")
                    .is_some_and(|n| n.split_ascii_whitespace().nth(1) == Some("1"))
            })
        });
        if first && let Some(s) = stat(pid) {
            found.push((pid, s.start_time));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_with_parentheses_do_not_confuse_stat() {
        let text = b"42 (a) R (b)) S 7 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 98765 1 2";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                state: b'S',
                parent: 7,
                start_time: 98765
            })
        );
        assert_eq!(parse_stat(b"42 (a"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn this_process_lives_and_another_start_time_does_not() {
        let me = i32::try_from(std::process::id()).unwrap();
        let s = stat(me).unwrap();
        assert!(lives(me, s.start_time));
        assert!(!lives(me, s.start_time + 1));
    }

    #[tokio::test]
    async fn a_child_is_stopped_continued_killed_and_reaped() {
        let mut child = std::process::Command::new("sleep")
            .arg("600")
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let start = stat(pid).unwrap().start_time;
        signal_tree(pid, true, Duration::from_secs(20))
            .await
            .unwrap();
        assert_eq!(stat(pid).unwrap().state, b'T');
        signal_tree(pid, false, Duration::from_secs(20))
            .await
            .unwrap();
        assert_ne!(stat(pid).unwrap().state, b'T');
        let held = Held::open(pid, start).unwrap().unwrap();
        assert!(Held::open(pid, start + 1).unwrap().is_none());
        held.kill().unwrap();
        held.ended().await.unwrap();
        assert!(stat(pid).is_none());
        let _ = child.wait();
    }
}
