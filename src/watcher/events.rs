//! When to listen to a device that says when something changed (docs/display-events.md).
//!
//! A device is not trusted to say so at a sensible rate: between two times that somebody is told, nobody listens for a while.

use std::time::Duration;

use super::pacing::{ATTENTION, SHORTEST_PERIOD};

/// Decides when to listen.
#[derive(Debug, Default)]
pub struct Events {
    /// Until when somebody is believed to watch.
    attention: Duration,
    /// How long showing a picture took: listening leaves as much time to others.
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

    /// When to listen, from now; `None` if nobody watches.
    pub fn next(&self, now: Duration) -> Option<Duration> {
        (now < self.attention).then(|| self.again.saturating_sub(now))
    }

    /// How often the device was heard.
    pub fn signals(&self) -> u64 {
        self.signals
    }
}
