//! Time, and being called when it comes.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A clock. Times are since some moment that never changes.
pub trait Clock {
    /// Monotonic time.
    fn now(&self) -> Duration;
}

/// Alarms of a display whose halves are stepped on one thread.
pub trait Alarms: Clock {
    /// The same time, for a watcher.
    type Time: Clock;

    /// The clock of a watcher.
    fn watch(&self) -> Self::Time;

    /// Calls the display's `alarm` once, after this time, instead of when it was set to before.
    fn set_alarm(&self, alarm: Alarm, after: Duration);

    /// Makes an eventfd for this alarm, and gives it away for others to signal. Once somebody has, [`Alarms::listen`] has the alarm
    /// called.
    fn event(&self, alarm: Alarm) -> io::Result<OwnedFd>;

    /// Calls the display's `alarm` once, when the eventfd has been signalled; or does not any more.
    fn listen(&self, alarm: Alarm, on: bool);

    /// Forgets what was set, and its eventfd.
    fn clear_alarm(&self, alarm: Alarm);
}

/// What a display wants to be woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Alarm {
    /// The next step of telling the guest about its monitor.
    Edid,
    /// The next look at the device, beside those that front ends ask for.
    Poll,
    /// The device says that something changed.
    Change,
    /// Who looks once waits no longer.
    Answer,
    /// A plane that went has not come back.
    Gap,
}
