//! Time from GLib, and alarms as sources on its default main context, which QEMU's main loop dispatches under its big lock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use glib::{ControlFlow, IOCondition, Priority, Source};

use crate::clock::{Alarm, Clock};

use super::display::VfioDpy;

/// The display that alarms wake. It is known only once the display, which sets alarms as it is made, has been made.
pub type Sleeper = Rc<Cell<*const VfioDpy>>;

/// A [`Clock`] of the GLib main loop.
pub struct MainLoopClock {
    sleeper: Sleeper,
    alarms: RefCell<HashMap<Alarm, Timer>>,
}

/// A timer of the kernel: GLib's own count in milliseconds.
struct Timer {
    fd: OwnedFd,
    source: Source,
}

/// A pointer that a source, which GLib wants to be able to send to the main loop's thread, may carry.
struct Carried(*const Cell<*const VfioDpy>);

// SAFETY: the pointer is used by the source's callback only, which runs under the lock under which the display is used (see
// the module `capi`), and never after the clock that owns the cell was dropped.
unsafe impl Send for Carried {}

impl MainLoopClock {
    /// Alarms wake whom `sleeper` names when they go off.
    pub fn new(sleeper: Sleeper) -> Self {
        Self { sleeper, alarms: RefCell::default() }
    }

    fn timer(&self, alarm: Alarm) -> io::Result<Timer> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: the call has no preconditions.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let carried = Carried(Rc::as_ptr(&self.sleeper));
        let name = Some("vfio-display");
        let wake = move |fd, _| {
            let carried = &carried;
            let mut times = [0_u8; 8];
            // SAFETY: the buffer has the eight bytes that are read. The descriptor is the source's, which lives: it was dispatched.
            let len = unsafe { libc::read(fd, times.as_mut_ptr().cast(), times.len()) };
            // Set anew since it went off, it has nothing to read.
            if len > 0 {
                // SAFETY: the clock destroys its sources when it is dropped, so the cell lives.
                let display = unsafe { (*carried.0).get() };
                // SAFETY: the cell names a display that lives as long as its clock, or nobody.
                if let Some(display) = unsafe { display.as_ref() } {
                    display.wake(alarm);
                }
            }
            ControlFlow::Continue
        };
        let source = glib::unix_fd_source_new(
            fd.as_raw_fd(),
            IOCondition::IN,
            name,
            Priority::DEFAULT,
            wake,
        );
        source.attach(None);
        Ok(Timer { fd, source })
    }
}

impl Clock for MainLoopClock {
    fn now(&self) -> Duration {
        Duration::from_micros(glib::monotonic_time().unsigned_abs())
    }

    fn set_alarm(&self, alarm: Alarm, after: Duration) {
        let mut alarms = self.alarms.borrow_mut();
        if let Some(timer) = alarms.get(&alarm) {
            timer.set(Some(after));
        } else if let Ok(timer) = self.timer(alarm) {
            // Without descriptors there are no alarms; the front ends' refreshes go on.
            timer.set(Some(after));
            alarms.insert(alarm, timer);
        }
    }

    fn clear_alarm(&self, alarm: Alarm) {
        if let Some(timer) = self.alarms.borrow().get(&alarm) {
            timer.set(None);
        }
    }
}

impl Timer {
    /// Goes off once, after this time.
    fn set(&self, after: Option<Duration>) {
        // Zero would stop it.
        let after = after.map_or(Duration::ZERO, |after| after.max(Duration::from_nanos(1)));
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        #[expect(clippy::unnecessary_fallible_conversions, reason = "not on all machines")]
        let once = libc::timespec {
            tv_sec: libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::try_from(after.subsec_nanos()).unwrap_or(0),
        };
        let setting = libc::itimerspec { it_interval: never, it_value: once };
        // SAFETY: the descriptor is a timer, and the setting is read only.
        unsafe {
            libc::timerfd_settime(self.fd.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut())
        };
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.source.destroy();
    }
}
