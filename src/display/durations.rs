//! How long refreshes took, for the status.

use std::collections::BTreeMap;
use std::time::Duration;

/// The longest duration that is counted as such, in microseconds: a minute.
const LONGEST: u64 = 60_000_000;

/// Significant bits of a duration: two decimal digits.
const BITS: u32 = 8;

/// A histogram of durations in microseconds, to two digits.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    /// How often, by the longest duration that is counted as the same.
    counts: BTreeMap<u64, u64>,
    total: u64,
}

impl Durations {
    /// Adds one.
    pub fn record(&mut self, duration: Duration) {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(LONGEST).min(LONGEST);
        *self.counts.entry(step(microseconds)).or_default() += 1;
        self.total += 1;
    }

    /// Returns the microseconds that this percentage of the durations did not exceed; 0 if there
    /// are none.
    pub fn percentile(&self, percent: u64) -> u64 {
        let wanted = (self.total * percent).div_ceil(100).max(1);
        let mut so_far = 0;
        let found = self.counts.iter().find(|(_, count)| {
            so_far += **count;
            so_far >= wanted
        });
        found.map_or(0, |(microseconds, _)| *microseconds)
    }

    /// Returns how often each duration came, in microseconds. The difference of two answers is what
    /// came between them.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().map(|(microseconds, count)| (*microseconds, *count))
    }

    /// Returns the longest, in microseconds; 0 if there is none.
    pub fn longest(&self) -> u64 {
        self.counts.last_key_value().map_or(0, |(microseconds, _)| *microseconds)
    }
}

/// Returns the longest duration that is counted as this one.
fn step(microseconds: u64) -> u64 {
    let dropped = (u64::BITS - microseconds.leading_zeros()).saturating_sub(BITS);
    microseconds | ((1 << dropped) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_are_short_and_the_longest_is_not_lost() {
        let mut durations = Durations::default();
        for _ in 0..999 {
            durations.record(Duration::from_micros(100));
        }
        durations.record(Duration::from_millis(50));
        assert_eq!(durations.percentile(99), 100);
        assert!(durations.longest().abs_diff(50_000) < 500);
        durations.record(Duration::from_secs(1000));
        assert!(durations.longest().abs_diff(LONGEST) < LONGEST / 50);
    }

    #[test]
    fn counts_tell_how_often_each_came() {
        let mut durations = Durations::default();
        assert_eq!(durations.counts().count(), 0);
        for microseconds in [7, 100, 7, 50_000] {
            durations.record(Duration::from_micros(microseconds));
        }
        let counts: Vec<_> = durations.counts().collect();
        assert!(matches!(counts[..], [(7, 2), (100, 1), (50_000.., 1)]), "{counts:?}");
        assert_eq!(counts[2].0, durations.longest());
    }
}
