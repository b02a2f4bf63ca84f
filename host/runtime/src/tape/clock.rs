//! The time and the chance that an extension of a taped session sees.
//!
//! Its clock stands still between two things that are brought to it, but for a microsecond at each look, so that no two looks are the
//! same. One that computes for long sees the clock jump; the jump is on the tape.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand_core::TryRng;
use sha2::{Digest as _, Sha256};
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use super::Voice;
use super::floor::Ticks;

/// How far the shown time may be behind, in microseconds.
const BEHIND: u64 = 100_000;

/// See the module.
#[derive(Default)]
pub(super) struct Clock(Mutex<Shown>);

#[derive(Default)]
struct Shown {
    /// Microseconds of the session.
    at: u64,
    /// Looks since the last thing that was brought.
    reads: u64,
    ticks: Ticks,
    /// Something was brought. Until then it stands: how long an instance takes to come up is chance.
    begun: bool,
}

impl Clock {
    /// Something was brought at this time.
    pub(super) fn set(&self, at: u64, ticks: Ticks) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.at = at.max(shown.at.saturating_add(shown.reads));
        shown.reads = 0;
        shown.ticks = ticks;
        shown.begun = true;
    }

    /// One look. `real`: the time there is, if it is not a replay's; says when the clock has to jump.
    pub(super) fn read(&self, real: Option<u64>) -> (u64, Option<(u64, u64)>) {
        let mut shown = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shown.reads += 1;
        let mut jump = None;
        let shows = shown.at.saturating_add(shown.reads);
        let behind = |real: &u64| shown.begun && *real > shows.saturating_add(BEHIND);
        if let Some(real) = real.filter(behind) {
            jump = Some((shown.reads, real));
            shown.at = real;
        }
        while let Some((reads, at)) = shown.ticks.front().copied() {
            if reads > shown.reads {
                break;
            }
            shown.ticks.pop_front();
            shown.at = at.max(shown.at);
        }
        (shown.at.saturating_add(shown.reads), jump)
    }

    /// The time without a look.
    pub(super) fn peek(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).at
    }
}

/// The clocks of WASI.
pub(crate) struct Clocks(pub(crate) Arc<Voice>);

impl HostWallClock for Clocks {
    fn resolution(&self) -> Duration {
        Duration::from_micros(1)
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.0.now())
    }
}

impl HostMonotonicClock for Clocks {
    fn resolution(&self) -> u64 {
        1_000
    }

    fn now(&self) -> u64 {
        self.0.ticks().saturating_mul(1_000)
    }
}

/// Random numbers that follow from a seed.
pub(crate) struct Seeded {
    seed: Vec<u8>,
    block: u64,
    left: Vec<u8>,
}

impl Seeded {
    /// Of the tape's seed, an extension's name, its instance and a use.
    pub(super) fn new(seed: &str, of: &str, instance: u64, use_: &str) -> Self {
        Self {
            seed: Sha256::digest(format!("{seed}\0{of}\0{instance}\0{use_}")).to_vec(),
            block: 0,
            left: Vec::new(),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            if self.left.is_empty() {
                self.block += 1;
                let block = Sha256::new()
                    .chain_update(&self.seed)
                    .chain_update(self.block.to_le_bytes());
                self.left = block.finalize().to_vec();
            }
            *byte = self.left.pop().unwrap_or_default();
        }
    }
}

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.fill(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_jumps_at_the_same_look_when_it_is_replayed() {
        let (recorded, replayed) = (Clock::default(), Clock::default());
        recorded.set(1_000, Ticks::new());
        let (mut shown, mut ticks) = (Vec::new(), Ticks::new());
        for real in [1_001, 1_500, 200_000, 200_001] {
            let (at, jump) = recorded.read(Some(real));
            shown.push(at);
            ticks.extend(jump);
        }
        assert_eq!(shown, [1_001, 1_002, 200_003, 200_004]);
        replayed.set(1_000, ticks);
        let again: Vec<u64> = (0..4).map(|_| replayed.read(None).0).collect();
        assert_eq!(again, shown);
    }

    #[test]
    fn chance_follows_from_the_seed() {
        let draw = |of: &str, instance| {
            let mut bytes = [0; 40];
            Seeded::new("seed", of, instance, "random").fill(&mut bytes);
            bytes
        };
        assert_eq!(draw("a", 1), draw("a", 1));
        assert_ne!(draw("a", 1), draw("b", 1));
        assert_ne!(draw("a", 1), draw("a", 2));
    }
}
