//! A clock that a test sets.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::{Alarm, Clock};

/// A clock that stands still until it is set, or goes by a step whenever somebody looks at it.
#[derive(Clone, Debug, Default)]
pub struct ManualClock {
    now: Rc<Cell<Duration>>,
    alarms: Rc<RefCell<HashMap<Alarm, Duration>>>,
    step: Rc<Cell<Duration>>,
}

impl ManualClock {
    /// What it shows.
    pub fn time(&self) -> Duration {
        self.now.get()
    }

    /// Sets it.
    pub fn set_time(&self, now: Duration) {
        self.now.set(now);
    }

    /// From now on, goes on by this much at each look.
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

    fn set_alarm(&self, alarm: Alarm, after: Duration) {
        self.alarms.borrow_mut().insert(alarm, self.time() + after);
    }

    fn clear_alarm(&self, alarm: Alarm) {
        self.forget(alarm);
    }
}
