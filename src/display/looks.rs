//! When the device is looked at beside the front ends' refreshes, and how closely.

use std::time::Duration;

use crate::clock::{Alarm, Clock};
use crate::console::Console;
use crate::damage::Look;
use crate::device::{Device, Failure};
use crate::plane::PlaneKind;

use super::pacing::Pacer;
use super::problem::Problem;
use super::{Display, dmabuf};

impl<D: Device, C: Console, T: Clock> Display<D, C, T> {
    /// Looks whether the guest flipped, and if so, has the front ends refresh.
    pub(super) fn peek(&mut self) {
        self.look_at = None;
        let now = self.clock.now();
        let rests = self.rests(now);
        let due = |pacer: &&mut Pacer| !rests && pacer.next_look(now).is_some_and(|at| at <= now);
        if let Some(pacer) = self.pacer.as_mut().filter(due) {
            self.counters.looks += 1;
            match dmabuf::peek(&self.device, &mut self.counters) {
                Ok(shows) => {
                    let now = self.clock.now();
                    if pacer.look(now, shows.as_ref()) {
                        self.found = shows.map(|info| (info, now));
                        self.request_refresh();
                    }
                }
                // Asking again would take as long.
                Err(error) if matches!(Failure::of(&error), Failure::Gone | Failure::Silent) => {
                    self.show_problem(&Problem::Query { kind: PlaneKind::Primary, error });
                    self.release_retired();
                }
                // The next refresh will tell.
                Err(_) => pacer.lose(self.clock.now()),
            }
        }
        self.plan_look(self.clock.now());
    }

    /// The device says that something changed.
    pub(super) fn hear(&mut self) {
        if let Some(events) = &mut self.events {
            if events.hear(self.clock.now()) {
                self.request_refresh();
            }
        }
        self.plan_look(self.clock.now());
    }

    /// Something changed: has the front ends refresh, and see all of it.
    pub(super) fn request_refresh(&mut self) {
        self.exact = true;
        self.console.request_refresh();
    }

    /// How closely a surface is compared with what it shows.
    pub(super) fn look(&self) -> Look {
        if self.redraw || !self.config.compare {
            Look::Copy
        } else if self.exact || !self.config.glance {
            Look::Compare
        } else {
            Look::Glance
        }
    }

    pub(super) fn plan_look(&mut self, now: Duration) {
        let rests = self.rests(now);
        let next = if let Some(events) = &self.events {
            let after = events.next(now).filter(|_| !rests);
            self.clock.listen(Alarm::Change, after.is_some_and(|after| after.is_zero()));
            after.filter(|after| !after.is_zero()).map(|after| now + after)
        } else {
            self.pacer.as_ref().filter(|_| !rests).and_then(|pacer| pacer.next_look(now))
        };
        // An alarm that goes off too early, or for nothing, is set again then, or when there is something to look for: that is
        // rarer than to set it at each refresh.
        if let Some(next) = next.filter(|next| self.look_at.is_none_or(|set| *next < set)) {
            self.clock.set_alarm(Alarm::Look, next.saturating_sub(now));
            self.look_at = Some(next);
        }
    }
}
