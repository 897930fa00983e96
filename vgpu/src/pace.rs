//! Time: the monotonic clock, and sleeping to absolute deadlines.

use std::time::Duration;

use rustix::thread::{ClockId as SleepClock, clock_nanosleep_absolute};
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The longest sleep in one piece: how late a scene notices that it shall stop.
const SLICE: u64 = 50_000_000;

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}

/// Beats at a fixed rate, without drift: each deadline is counted from the first.
#[derive(Debug)]
pub struct Pace {
    start: u64,
    period: Duration,
    beat: u64,
}

impl Pace {
    /// `rate`: beats per second.
    pub fn new(rate: f64) -> Self {
        Self { start: now(), period: Duration::from_secs_f64(1.0 / rate), beat: 0 }
    }

    /// Sleeps until the next beat; returns early, with false, when `stop` says so. Beats that are
    /// past already are skipped: a scene that cannot keep up gets slower, it does not rush
    /// afterwards.
    pub fn wait(&mut self, stop: impl Fn() -> bool) -> bool {
        let period = u64::try_from(self.period.as_nanos()).unwrap_or(u64::MAX).max(1);
        let elapsed = now().saturating_sub(self.start);
        self.beat = (self.beat + 1).max(elapsed / period);
        let deadline = self.start.saturating_add(self.beat.saturating_mul(period));
        loop {
            if stop() {
                return false;
            }
            let now = now();
            if now >= deadline {
                return true;
            }
            sleep_until(deadline.min(now + SLICE));
        }
    }
}

#[expect(clippy::cast_possible_wrap, reason = "less than a second, and centuries")]
fn sleep_until(time: u64) {
    let request =
        Timespec { tv_sec: (time / 1_000_000_000) as i64, tv_nsec: (time % 1_000_000_000) as i64 };
    // An interrupted sleep is made up for by the caller's loop.
    let _ = clock_nanosleep_absolute(SleepClock::Monotonic, &request);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_do_not_come_early() {
        let mut pace = Pace::new(1000.0);
        let start = pace.start;
        for _ in 0..5 {
            assert!(pace.wait(|| false));
        }
        assert!(now() >= start + 5_000_000);
    }

    #[test]
    fn a_stopped_pace_does_not_wait() {
        let mut pace = Pace::new(0.001);
        assert!(!pace.wait(|| true));
    }
}
