//! A process group, named by a leader that is not reaped before the group is done with.
//!
//! As long as the leader is ours, dead or alive, the kernel gives its number to nobody else. So the lock below holds
//! the two things that must not cross: sending a signal and reaping.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::Exit;
use crate::{Error, Kind};

#[derive(Debug)]
pub(super) struct Group {
    id: u32,
    /// `None` once reaped.
    leader: Mutex<Option<Pid>>,
    detached: AtomicBool,
}

impl Group {
    pub(super) fn new(id: u32) -> Result<Self, Error> {
        let leader = i32::try_from(id).ok().and_then(Pid::from_raw);
        let leader =
            leader.ok_or_else(|| Error::new(Kind::Other, format!("{id} is no process id")))?;
        Ok(Self {
            id,
            leader: Mutex::new(Some(leader)),
            detached: AtomicBool::new(false),
        })
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }

    pub(super) fn detach(&self) {
        self.detached.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_detached(&self) -> bool {
        self.detached.load(Ordering::Relaxed)
    }

    fn leader(&self) -> MutexGuard<'_, Option<Pid>> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whether there was a group to send it to.
    pub(super) fn signal(&self, signal: Signal) -> std::io::Result<bool> {
        match *self.leader() {
            Some(leader) => Ok(kill_process_group(leader, signal).map(|()| true)?),
            None => Ok(false),
        }
    }

    /// How the leader ended, if it has. It stays unreaped.
    pub(super) fn leader_exit(&self) -> std::io::Result<Option<Exit>> {
        let Some(leader) = *self.leader() else {
            return Ok(None);
        };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        Ok(waitid(WaitId::Pid(leader), look)?.map(|status| {
            match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, signal) => Exit::Signal(signal_name(signal.unwrap_or_default())),
            }
        }))
    }

    /// Reaps the leader if it is dead. No signal is sent any more after this.
    pub(super) fn reap(&self) {
        let mut leader = self.leader();
        if let Some(pid) = leader.take() {
            let _ = waitid(
                WaitId::Pid(pid),
                WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
            );
        }
    }

    /// Whether a process of the group is alive, the dead that nobody reaped not counted; `None` if it cannot be told.
    ///
    /// `kill(-group, 0)` would count the dead too, for ever where no init reaps them. Reads all of /proc: call it
    /// where blocking is allowed.
    pub(super) fn is_alive(&self) -> Option<bool> {
        let entries = std::fs::read_dir("/proc").ok()?;
        let mut seen_any = false;
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !name
                .to_str()
                .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
            {
                continue;
            }
            // A process may be gone by now; then it does not count.
            let Ok(stat) = std::fs::read(entry.path().join("stat")) else {
                continue;
            };
            seen_any = true;
            if living_member(&stat, self.id) {
                return Some(true);
            }
        }
        seen_any.then_some(false)
    }
}

impl Drop for Group {
    /// The last resort, when a runtime ends before its supervisor did.
    fn drop(&mut self) {
        if !self.is_detached() && self.leader().is_some() {
            let _ = self.signal(Signal::KILL);
            self.reap();
        }
    }
}

/// Whether this `/proc/N/stat` is of a living process of the group. The name in parentheses may hold anything, so the
/// fields are counted from the last parenthesis: state, parent, group.
fn living_member(stat: &[u8], group: u32) -> bool {
    let after_name = stat.rsplit(|byte| *byte == b')').next().unwrap_or_default();
    let fields = String::from_utf8_lossy(after_name);
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next().unwrap_or_default();
    !matches!(state, "Z" | "X" | "x")
        && fields.nth(1).and_then(|text| text.parse().ok()) == Some(group)
}

const NAMES: [(Signal, &str); 30] = [
    (Signal::HUP, "HUP"),
    (Signal::INT, "INT"),
    (Signal::QUIT, "QUIT"),
    (Signal::ILL, "ILL"),
    (Signal::TRAP, "TRAP"),
    (Signal::ABORT, "ABRT"),
    (Signal::BUS, "BUS"),
    (Signal::FPE, "FPE"),
    (Signal::KILL, "KILL"),
    (Signal::USR1, "USR1"),
    (Signal::SEGV, "SEGV"),
    (Signal::USR2, "USR2"),
    (Signal::PIPE, "PIPE"),
    (Signal::ALARM, "ALRM"),
    (Signal::TERM, "TERM"),
    (Signal::CHILD, "CHLD"),
    (Signal::CONT, "CONT"),
    (Signal::STOP, "STOP"),
    (Signal::TSTP, "TSTP"),
    (Signal::TTIN, "TTIN"),
    (Signal::TTOU, "TTOU"),
    (Signal::URG, "URG"),
    (Signal::XCPU, "XCPU"),
    (Signal::XFSZ, "XFSZ"),
    (Signal::VTALARM, "VTALRM"),
    (Signal::PROF, "PROF"),
    (Signal::WINCH, "WINCH"),
    (Signal::IO, "IO"),
    (Signal::POWER, "PWR"),
    (Signal::SYS, "SYS"),
];

/// The name without the prefix; a real-time signal has only its number.
fn signal_name(number: i32) -> String {
    NAMES
        .iter()
        .find(|(signal, _)| signal.as_raw() == number)
        .map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

impl From<super::Signal> for Signal {
    fn from(signal: super::Signal) -> Self {
        match signal {
            super::Signal::Interrupt => Self::INT,
            super::Signal::Terminate => Self::TERM,
            super::Signal::Kill => Self::KILL,
            super::Signal::HangUp => Self::HUP,
            super::Signal::User1 => Self::USR1,
            super::Signal::User2 => Self::USR2,
            super::Signal::Stop => Self::STOP,
            super::Signal::Continue => Self::CONT,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::living_member;

    #[test]
    fn a_process_name_cannot_pretend_to_be_another_group_or_state() {
        assert!(living_member(b"7 (sh) S 1 42 42 0", 42));
        assert!(!living_member(b"7 (sh) Z 1 42 42 0", 42));
        assert!(!living_member(b"7 (x) S 1 42 42) S 1 43 43 0", 42));
        assert!(!living_member(b"7 (\xff\xfe) S", 42));
        assert!(!living_member(b"", 42));
    }
}
