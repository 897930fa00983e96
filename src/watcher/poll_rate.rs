//! How often a watcher on a thread of its own polls.

use std::time::Duration;

use super::budget::REST_SHARE;

/// How long after a change the device is polled often.
const RESTLESS: Duration = Duration::from_millis(300);

/// Poll interval then: the shorter one when nearly every poll finds something. No front end shows
/// more pictures than that.
const STEP: Duration = Duration::from_millis(15);
const SHORT_STEP: Duration = Duration::from_micros(7_500);

/// Polls in a row that found something before the interval gets shorter.
const BUSY_POLLS: u32 = 8;

/// Poll intervals at rest, and after [`LONG`] at rest.
const REST_STEP: Duration = Duration::from_millis(66);
pub const LONG_REST_STEP: Duration = Duration::from_millis(200);
const LONG: Duration = Duration::from_secs(5);

/// How often to poll: fast while things change.
#[derive(Debug, Default)]
pub struct PollRate {
    /// When something last changed.
    changed: Duration,
    /// Polls in a row that found something.
    hits: u32,
    /// When to poll next.
    pub next: Duration,
    /// The device is left to the guest until then.
    pub free: Duration,
    /// Somebody is assumed to watch until then.
    pub attention: Duration,
    /// A change is expected that was not polled yet.
    pub expected: bool,
    /// Whether the last poll was for a one-shot refresh.
    pub was_one_shot: bool,
}

/// What a poll found, as far as the poll rate is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing new.
    Nothing,
    /// A new error, which may pass.
    Error,
    /// Something moved.
    Motion,
}

impl PollRate {
    /// Forgets how fast things changed: the device was reset. Who watches still does.
    pub fn reset(&mut self) {
        *self = Self { attention: self.attention, ..Self::default() };
    }

    fn step(&self, now: Duration) -> Duration {
        match now.saturating_sub(self.changed) {
            still if still <= RESTLESS && self.hits >= BUSY_POLLS => SHORT_STEP,
            still if still <= RESTLESS => STEP,
            still if still <= LONG => REST_STEP,
            _ => LONG_REST_STEP,
        }
    }

    /// A poll began and ended then. `step`: the poll interval, if something else decides on it.
    pub fn polled(
        &mut self,
        began: Duration,
        ended: Duration,
        found: Found,
        step: Option<Duration>,
    ) {
        match found {
            Found::Nothing => self.hits /= 2,
            Found::Error => (self.changed, self.hits) = (ended, 0),
            Found::Motion => (self.changed, self.hits) = (ended, self.hits.saturating_add(1)),
        }
        self.expected = false;
        self.rest(began, ended);
        let step = step.unwrap_or_else(|| self.step(ended));
        self.next = (began + step).max(self.free);
    }

    /// Leaves the device to the guest after a poll.
    pub fn rest(&mut self, began: Duration, ended: Duration) {
        self.free = ended + ended.saturating_sub(began) * REST_SHARE;
    }
}
