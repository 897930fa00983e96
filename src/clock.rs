//! The host's time and alarms.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A monotonic clock. Times count from some fixed moment.
pub trait Clock {
    /// Monotonic time.
    fn now(&self) -> Duration;
}

/// Alarms of a display.
pub trait Alarms: Clock {
    /// The type of the watcher's clock.
    type Time: Clock;

    /// Returns the same clock for a watcher, which may be on another thread.
    fn watch(&self) -> Self::Time;

    /// Calls the display's `alarm` once, after this time; replaces an earlier setting.
    fn set_alarm(&self, alarm: Alarm, after: Duration);

    /// Creates an eventfd for this alarm, for others to signal. See [`Alarms::listen`].
    fn event(&self, alarm: Alarm) -> io::Result<OwnedFd>;

    /// Calls the display's `alarm` once, when the eventfd has been signalled; or stops that.
    fn listen(&self, alarm: Alarm, on: bool);

    /// Clears the alarm, and closes its eventfd.
    fn clear_alarm(&self, alarm: Alarm);
}

/// What a display wants to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// The next step of an EDID update.
    Edid,
    /// The next poll of the device, besides those for front ends.
    Poll,
    /// The device signalled a change.
    Change,
    /// A one-shot refresh has waited long enough.
    Answer,
    /// The plane has not come back.
    Gap,
}
