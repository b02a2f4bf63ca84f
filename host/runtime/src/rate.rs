//! How often: a number of things at once, and then so many a second.
//!
//! Without it a guest in a loop could fill a terminal, a client's log and its own user's patience, all with what it may always do.

use std::time::Instant;

/// So many at once, and so many more each second.
pub(crate) struct Rate {
    most: f64,
    each_second: f64,
    left: f64,
    at: Instant,
}

impl Rate {
    pub(crate) fn new(most: u32, each_second: u32) -> Self {
        Self {
            most: f64::from(most),
            each_second: f64::from(each_second),
            left: f64::from(most),
            at: Instant::now(),
        }
    }

    /// Whether there may be one more now.
    pub(crate) fn take(&mut self) -> bool {
        self.take_at(Instant::now())
    }

    fn take_at(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.left = (self.left + passed * self.each_second).min(self.most);
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_burst_is_bounded_and_time_gives_it_back() {
        let mut rate = Rate::new(3, 2);
        let start = Instant::now();
        let many = |rate: &mut Rate, at| (0..100).filter(|_| rate.take_at(at)).count();
        assert_eq!(many(&mut rate, start), 3);
        assert_eq!(many(&mut rate, start + Duration::from_secs(1)), 2);
        assert_eq!(many(&mut rate, start + Duration::from_secs(3600)), 3);
    }
}
