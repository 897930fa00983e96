//! Time, and being called when it comes.

#![forbid(unsafe_code)]

use std::time::Duration;

/// The clock of a display. Times are since some moment that never changes.
pub trait Clock {
    /// Monotonic time.
    fn now(&self) -> Duration;

    /// Calls the display's `alarm` once, after this time, instead of when it was set to before.
    fn set_alarm(&self, alarm: Alarm, after: Duration);

    /// Forgets what was set.
    fn clear_alarm(&self, alarm: Alarm);
}

/// What a display wants to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// The next step of telling the guest about its monitor.
    Edid,
    /// The next look at the device, beside those that front ends ask for.
    Look,
}
