//! Quantiles, and ratios of what was measured in the same round.
//!
//! A shared machine is fast in one minute and slow in the next. Two methods are therefore compared round by round, where both met
//! the same machine, and the median of those ratios is reported; never the ratio of two medians.

use std::time::Duration;

/// What one method gave: the samples of each round, in the order of the rounds; none of a round in which it failed or
/// had no turn.
#[derive(Debug, Clone, Default)]
pub struct Series {
    rounds: Vec<Vec<f64>>,
    /// Runs that failed.
    pub failures: usize,
    /// What the first failure said.
    pub first_failure: Option<String>,
    /// Processor time of the client, all runs together.
    pub cpu: Duration,
}

impl Series {
    /// Begins a round.
    pub fn round(&mut self) {
        self.rounds.push(Vec::new());
    }

    /// Adds a sample to the round, in seconds.
    pub fn add(&mut self, seconds: f64) {
        if let Some(round) = self.rounds.last_mut() {
            round.push(seconds);
        }
    }

    /// Counts a failure.
    pub fn fail(&mut self, why: String) {
        self.failures += 1;
        self.first_failure.get_or_insert(why);
    }

    /// All samples, sorted.
    #[must_use]
    pub fn sorted(&self) -> Vec<f64> {
        sorted(self.rounds.iter().flatten().copied().collect())
    }

    /// How many samples there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rounds.iter().map(Vec::len).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A quantile of all samples; `None` without samples.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<f64> {
        quantile(&self.sorted(), part)
    }

    /// Processor seconds of the client for each run; `None` where they were not measured.
    #[must_use]
    pub fn cpu_each(&self) -> Option<f64> {
        let runs = self.len() + self.failures;
        let measured = runs > 0 && !self.cpu.is_zero();
        measured.then(|| self.cpu.as_secs_f64() / runs as f64)
    }

    /// How many times as long the other takes: the median over the rounds in which both have samples.
    #[must_use]
    pub fn times_faster_than(&self, other: &Self) -> Option<f64> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        let ratios = pairs.filter_map(|(own, theirs)| {
            let own = quantile(&sorted(own.clone()), 0.5)?;
            Some(quantile(&sorted(theirs.clone()), 0.5)? / own)
        });
        quantile(&sorted(ratios.collect()), 0.5)
    }

    /// By how much it takes longer than the other, in seconds: the median over the rounds in which both have samples.
    #[must_use]
    pub fn longer_than(&self, other: &Self) -> Option<f64> {
        let pairs = self.rounds.iter().zip(&other.rounds);
        let differences = pairs.filter_map(|(own, theirs)| {
            let own = quantile(&sorted(own.clone()), 0.5)?;
            Some(own - quantile(&sorted(theirs.clone()), 0.5)?)
        });
        quantile(&sorted(differences.collect()), 0.5)
    }
}

fn sorted(mut samples: Vec<f64>) -> Vec<f64> {
    samples.sort_by(f64::total_cmp);
    samples
}

/// Between the two nearest samples, in proportion.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = last as f64 * part.clamp(0.0, 1.0);
    let (low, share) = (at.floor(), at.fract());
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the length"
    )]
    let low = low as usize;
    let lower = sorted.get(low)?;
    let upper = sorted.get(low + 1).unwrap_or(lower);
    Some(lower + (upper - lower) * share)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn series(rounds: &[&[f64]]) -> Series {
        let mut series = Series::default();
        for round in rounds {
            series.round();
            round.iter().for_each(|sample| series.add(*sample));
        }
        series
    }

    #[test]
    fn quantiles_lie_between_samples() {
        let four = series(&[&[4.0, 1.0], &[3.0, 2.0]]);
        assert_eq!(four.quantile(0.0), Some(1.0));
        assert_eq!(four.quantile(0.5), Some(2.5));
        assert_eq!(four.quantile(0.25), Some(1.75));
        assert_eq!(four.quantile(1.0), Some(4.0));
        assert_eq!(Series::default().quantile(0.5), None);
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        // Twice as slow in each round, though the machine was ten times as slow in the second.
        let own = series(&[&[1.0], &[10.0], &[1.0]]);
        let other = series(&[&[2.0], &[20.0], &[2.0]]);
        assert_eq!(own.times_faster_than(&other), Some(2.0));
        assert_eq!(other.longer_than(&own), Some(1.0));
    }

    #[test]
    fn a_round_in_which_one_failed_has_no_ratio() {
        let own = series(&[&[1.0], &[], &[1.0]]);
        let other = series(&[&[3.0], &[100.0], &[5.0]]);
        assert_eq!(own.times_faster_than(&other), Some(4.0));
        assert_eq!(series(&[&[]]).times_faster_than(&other), None);
    }

    #[test]
    fn the_first_failure_is_kept_and_all_are_counted() {
        let mut series = series(&[&[1.0]]);
        series.fail("first".into());
        series.fail("second".into());
        series.cpu = Duration::from_secs(6);
        assert_eq!(
            (series.failures, series.first_failure.as_deref()),
            (2, Some("first"))
        );
        assert_eq!(series.cpu_each(), Some(2.0));
    }
}
