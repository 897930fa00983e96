//! A clock that a test sets.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::clock::{Alarm, Alarms, Clock};

/// A clock that stands still until it is set, or advances by a step whenever it is read.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    now: Rc<Cell<Duration>>,
    alarms: Rc<RefCell<HashMap<Alarm, Duration>>>,
    events: Rc<RefCell<HashMap<Alarm, Event>>>,
    step: Rc<Cell<Duration>>,
}

#[derive(Debug)]
struct Event {
    fd: OwnedFd,
    listens: bool,
}

impl ManualClock {
    /// The plane in it.
    pub fn time(&self) -> Duration {
        self.now.get()
    }

    /// Sets it.
    pub fn set_time(&self, now: Duration) {
        self.now.set(now);
    }

    /// Advances by this much whenever it is read from now on.
    pub fn set_step(&self, step: Duration) {
        self.step.set(step);
    }

    /// The alarm that goes off first, and when.
    pub fn next_alarm(&self) -> Option<(Alarm, Duration)> {
        let alarms = self.alarms.borrow();
        alarms.iter().map(|(&alarm, &due)| (alarm, due)).min_by_key(|&(_, due)| due)
    }

    /// When this alarm goes off.
    pub fn due(&self, alarm: Alarm) -> Option<Duration> {
        self.alarms.borrow().get(&alarm).copied()
    }

    /// Whether the eventfd of this alarm is listened to.
    pub fn listens(&self, alarm: Alarm) -> bool {
        self.events.borrow().get(&alarm).is_some_and(|event| event.listens)
    }

    /// An alarm whose eventfd is listened to and has been signalled. It is not listened to any
    /// more.
    pub fn take_signalled(&self) -> Option<Alarm> {
        let mut events = self.events.borrow_mut();
        let signalled = |event: &Event| rustix::io::read(&event.fd, &mut [0; 8]).is_ok();
        let (alarm, event) =
            events.iter_mut().find(|(_, event)| event.listens && signalled(event))?;
        event.listens = false;
        Some(*alarm)
    }

    /// The alarm went off.
    pub fn forget(&self, alarm: Alarm) {
        self.alarms.borrow_mut().remove(&alarm);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Duration {
        self.set_time(self.time() + self.step.get());
        self.time()
    }
}

impl Alarms for ManualClock {
    type Time = Self;

    fn watch(&self) -> Self {
        self.clone()
    }

    fn set_alarm(&self, alarm: Alarm, after: Duration) {
        self.alarms.borrow_mut().insert(alarm, self.time() + after);
    }

    fn event(&self, alarm: Alarm) -> io::Result<OwnedFd> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let given = fd.try_clone()?;
        self.events.borrow_mut().insert(alarm, Event { fd, listens: false });
        Ok(given)
    }

    fn listen(&self, alarm: Alarm, on: bool) {
        let mut events = self.events.borrow_mut();
        events.get_mut(&alarm).expect("there is an eventfd for this alarm").listens = on;
    }

    fn clear_alarm(&self, alarm: Alarm) {
        self.forget(alarm);
        self.events.borrow_mut().remove(&alarm);
    }
}
