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
}
