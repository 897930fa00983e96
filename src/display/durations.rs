//! How long something took, each time.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Longer ones count as this long, in microseconds: a minute.
const LONGEST: u64 = 60_000_000;

/// Remembers durations to two digits, in microseconds.
#[derive(Clone, Debug)]
pub struct Durations(Histogram<u32>);

impl Default for Durations {
    fn default() -> Self {
        Self(Histogram::new_with_max(LONGEST, 2).expect("two digits up to a minute"))
    }
}

impl Durations {
    /// One more.
    pub fn record(&mut self, duration: Duration) {
        self.0.saturating_record(u64::try_from(duration.as_micros()).unwrap_or(LONGEST));
    }

    /// As many out of 100 were no longer than this, in microseconds.
    pub fn percentile(&self, percentile: f64) -> u64 {
        self.0.value_at_percentile(percentile)
    }

    /// How long, in microseconds, and how often: who keeps an earlier answer can tell what came since.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter_recorded().map(|step| (step.value_iterated_to(), step.count_at_value().into()))
    }

    /// The longest, in microseconds.
    pub fn longest(&self) -> u64 {
        self.0.max()
    }
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
        assert_eq!(durations.percentile(99.0), 100);
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
