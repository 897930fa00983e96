//! Time from GLib, and alarms as sources on its default main context, which QEMU's main loop dispatches under its big lock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use glib::{ControlFlow, Priority, Source};

use crate::clock::{Alarm, Clock};

use super::display::VfioDpy;

/// The display that alarms wake. It is known only once the display, which sets alarms as it is made, has been made.
pub type Sleeper = Rc<Cell<*const VfioDpy>>;

/// A [`Clock`] of the GLib main loop.
pub struct MainLoopClock {
    sleeper: Sleeper,
    alarms: RefCell<HashMap<Alarm, Source>>,
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
}

impl Clock for MainLoopClock {
    fn now(&self) -> Duration {
        Duration::from_micros(glib::monotonic_time().unsigned_abs())
    }

    fn set_alarm(&self, alarm: Alarm, after: Duration) {
        self.clear_alarm(alarm);
        let carried = Carried(Rc::as_ptr(&self.sleeper));
        let wake = move || {
            let carried = &carried;
            // SAFETY: the clock destroys its sources when it is dropped, so the cell lives.
            let display = unsafe { (*carried.0).get() };
            // SAFETY: the cell names a display that lives as long as its clock, or nobody.
            if let Some(display) = unsafe { display.as_ref() } {
                display.wake(alarm);
            }
            ControlFlow::Break
        };
        let name = Some("vfio-display");
        let source = glib::timeout_source_new(after, name, Priority::DEFAULT, wake);
        source.attach(None);
        self.alarms.borrow_mut().insert(alarm, source);
    }

    fn clear_alarm(&self, alarm: Alarm) {
        if let Some(source) = self.alarms.borrow_mut().remove(&alarm) {
            source.destroy();
        }
    }
}

impl Drop for MainLoopClock {
    fn drop(&mut self) {
        for source in self.alarms.take().into_values() {
            source.destroy();
        }
    }
}
