//! When to listen to a device that signals changes (docs/display-events.md).
//!
//! The device is not trusted to signal at a sensible rate: after each signal, it is not listened to
//! for a while.

use std::time::Duration;

use super::pacing::{ATTENTION, SHORTEST_PERIOD};

/// Decides when to listen.
#[derive(Debug, Default)]
pub struct Events {
    /// Somebody is assumed to watch until then.
    attention: Duration,
    /// How long the last refresh took: as much time is left to others.
    busy: Duration,
    /// When to listen again.
    again: Duration,
    signals: u64,
}

impl Events {
    /// A front end refreshed, which took this long.
    pub fn refreshed(&mut self, now: Duration, took: Duration) {
        self.attention = now + ATTENTION;
        self.busy = took;
    }

    /// The device said that something changed. Returns whether somebody wants to see it.
    pub fn on_event(&mut self, now: Duration) -> bool {
        self.signals += 1;
        self.again = now + SHORTEST_PERIOD.max(self.busy);
        now < self.attention
    }

    /// Returns when to listen; `None` if nobody watches.
    pub fn next(&self, now: Duration) -> Option<Duration> {
        (now < self.attention).then(|| self.again.saturating_sub(now))
    }

    /// Returns how often the device signalled.
    pub fn signals(&self) -> u64 {
        self.signals
    }
}
