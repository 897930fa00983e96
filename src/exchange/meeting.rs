//! Where the halves meet if each has a thread of its own.

use std::sync::PoisonError;
use std::time::Duration;

use super::sync::{Mutex, MutexGuard};
use super::{Facts, Notes, Report, Returned, Verdict, Wishes};

/// Wakes one of the halves, from any thread.
pub trait Waker: Send + Sync {
    /// It is woken, at once or when it goes to sleep next.
    fn wake(&self);
}

/// Where the halves meet. Its lock is held to move things, never while somebody is called, and nothing of the device's is let go of under it.
pub struct Exchange {
    slots: Mutex<Slots>,
    /// Wakes the watcher.
    watcher: Box<dyn Waker>,
    /// Wakes the presenter.
    presenter: Box<dyn Waker>,
}

#[derive(Debug, Default)]
struct Slots {
    report: Slot,
    wishes: Wishes,
    /// What the watcher knows of them.
    acknowledged: Acknowledged,
    notes: Notes,
    facts: Facts,
    call: Option<Call>,
    ending: Ending,
}

/// The one place for a report.
#[derive(Debug, Default)]
enum Slot {
    /// The watcher may look.
    #[default]
    Free,
    /// One waits for the presenter.
    Full(Box<Report>),
    /// The presenter applies one.
    Applied,
}

/// Whether calls of the device are still what the presenter wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Acknowledged {
    epoch: u64,
    stop: bool,
}

/// A call of the device that has not returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// When it was made.
    pub since: Duration,
}

/// Whether there is still a watcher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It watches.
    #[default]
    Watching,
    /// It failed: nothing is looked at any more.
    Failed,
}

/// What the watcher left for the presenter.
#[derive(Debug)]
pub struct Arrival {
    /// A report, to be applied before anything is posted.
    pub report: Option<Box<Report>>,
    /// What was said beside.
    pub notes: Notes,
    /// The call that has not returned, if there is one.
    pub call: Option<Call>,
    /// Whether there is still a watcher.
    pub ending: Ending,
}

impl Exchange {
    /// Nothing is wanted, and nothing was found.
    pub fn new(watcher: Box<dyn Waker>, presenter: Box<dyn Waker>, facts: Facts) -> Self {
        let slots = Slots { facts, ..Slots::default() };
        Self { slots: Mutex::new(slots), watcher, presenter }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // What is moved is whole at any time.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The presenter takes what there is.
    pub fn collect(&self) -> Arrival {
        let mut slots = self.slots();
        let report = slots.report.take();
        if report.is_some() {
            slots.report = Slot::Applied;
        }
        let notes = std::mem::take(&mut slots.notes);
        Arrival { report, notes, call: slots.call, ending: slots.ending }
    }

    /// The presenter has applied what it took, and says what it wants now.
    pub fn post(&self, wishes: &mut Wishes) {
        self.post_as(wishes, false);
    }

    /// As [`Exchange::post`], and a report that waits goes back: the device that it is about is not any more, or nobody shows it.
    pub fn withdraw(&self, wishes: &mut Wishes) {
        self.post_as(wishes, true);
    }

    fn post_as(&self, wishes: &mut Wishes, withdraw: bool) {
        let mut slots = self.slots();
        if withdraw {
            wishes.returned.extend(slots.report.take().map(Returned::Report));
        }
        let applied = matches!(slots.report, Slot::Applied);
        let urgent = post(&mut slots.wishes, wishes, applied) || applied;
        if applied {
            slots.report = Slot::Free;
        }
        drop(slots);
        if urgent {
            self.watcher.wake();
        }
    }

    /// The watcher takes the wishes; `None` while a report waits, except that all is over.
    pub fn wishes(&self) -> Option<Wishes> {
        let mut slots = self.slots();
        let Wishes { epoch, stop, .. } = slots.wishes;
        if !stop && !matches!(slots.report, Slot::Free) {
            return None;
        }
        slots.acknowledged = Acknowledged { epoch, stop };
        Some(take(&mut slots.wishes))
    }

    /// The watcher leaves what it found.
    pub fn leave(&self, report: Option<Report>, notes: Notes, facts: Facts) {
        let mut slots = self.slots();
        let news = report.is_some() || !notes.remarks.is_empty() || !notes.retired.is_empty();
        slots.facts = facts;
        slots.notes.append(notes);
        // A reset, or the end, may have come between.
        let Wishes { epoch, stop, .. } = slots.wishes;
        let (report, outdated) = match report {
            Some(report) if report.epoch == epoch && !stop => (Some(report), None),
            outdated => (None, outdated),
        };
        if let Some(report) = report {
            slots.report = Slot::Full(Box::new(report));
        }
        drop(slots);
        drop(outdated);
        if news {
            self.presenter.wake();
        }
    }

    /// The watcher is about to call the device. `false`: it must not, as the device is being reset, or was, or all is over, and the
    /// watcher has not heeded that yet.
    #[must_use]
    pub fn calls(&self, call: Call) -> bool {
        let mut slots = self.slots();
        let Wishes { epoch, stop, .. } = slots.wishes;
        let may = epoch % 2 == 0 && slots.acknowledged == Acknowledged { epoch, stop };
        if may {
            slots.call = Some(call);
        }
        may
    }

    /// The device has answered.
    pub fn answered(&self) {
        self.slots().call = None;
    }

    /// Whether there is something to show.
    pub fn has_news(&self) -> bool {
        let slots = self.slots();
        matches!(slots.report, Slot::Full(_)) || slots.ending == Ending::Failed
    }

    /// Whether there is still a watcher.
    pub fn ending(&self) -> Ending {
        self.slots().ending
    }

    /// The presenter takes what was said, and no report.
    pub fn take_notes(&self) -> Notes {
        std::mem::take(&mut self.slots().notes)
    }

    /// Something changed on the presenter's side that is to be shown.
    pub fn wake_presenter(&self) {
        self.presenter.wake();
    }

    /// The watcher is no more.
    pub fn fail(&self) {
        let mut slots = self.slots();
        slots.ending = Ending::Failed;
        // It will not say that this has returned.
        slots.call = None;
        drop(slots);
        self.presenter.wake();
    }

    /// What is known of the device.
    pub fn facts(&self) -> Facts {
        self.slots().facts.clone()
    }
}

impl Slot {
    /// The report that waits.
    fn take(&mut self) -> Option<Box<Report>> {
        match std::mem::take(self) {
            Self::Full(report) => Some(report),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// Who refreshes after such a pause may find that nobody looks any more.
const NAP: Duration = Duration::from_secs(3);

/// Takes over what is wanted now. Returns whether the watcher is to be woken for it.
fn post(known: &mut Wishes, new: &mut Wishes, applied: bool) -> bool {
    let urgent = known.epoch != new.epoch
        || known.one_shot != new.one_shot
        || new.verdict != Verdict::Settled
        || (new.redraw && !known.redraw)
        || known.blocked != new.blocked
        || known.supports.changes() != new.supports.changes()
        || new.monitor.is_some()
        || !new.returned.is_empty()
        || new.stop
        || new.refreshed.is_some_and(|(now, _)| {
            // The watcher has gone to sleep by then, or is about to.
            known.refreshed.is_none_or(|(before, _)| now.saturating_sub(before) > NAP)
        });
    let monitor = new.monitor.take().or(known.monitor.take());
    let mut returned = std::mem::take(&mut known.returned);
    returned.append(&mut new.returned);
    // What came of a report is known when it has been applied.
    let verdict = if applied { new.verdict } else { known.verdict };
    *known = Wishes { verdict, monitor, returned, ..state(new) };
    new.verdict = Verdict::Settled;
    urgent
}

fn take(wishes: &mut Wishes) -> Wishes {
    let taken = Wishes {
        monitor: wishes.monitor.take(),
        returned: std::mem::take(&mut wishes.returned),
        ..state(wishes)
    };
    wishes.verdict = Verdict::Settled;
    taken
}

/// All but what is to be done once.
fn state(wishes: &Wishes) -> Wishes {
    let Wishes { epoch, refreshed, one_shot, verdict, redraw, shown, pointer, in_use, .. } =
        *wishes;
    Wishes {
        epoch,
        refreshed,
        one_shot,
        verdict,
        redraw,
        shown,
        pointer,
        in_use,
        blocked: wishes.blocked,
        supports: wishes.supports.clone(),
        monitor: None,
        returned: Vec::new(),
        stop: wishes.stop,
    }
}
