//! Where the halves meet when each has a thread of its own.

use std::sync::PoisonError;
use std::time::Duration;

use super::sync::{Mutex, MutexGuard};
use super::{Facts, Notes, Report, Returned, Verdict, Wishes};

/// Wakes one of the halves, from any thread.
pub trait Waker: Send + Sync {
    /// Wakes it, at once or when it next goes to sleep.
    fn wake(&self);
}

/// Where the halves meet. The lock is held only to move values: nobody is called, and nothing of
/// the device is dropped under it.
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
    /// Which wishes the watcher has taken.
    acknowledged: Acknowledged,
    notes: Notes,
    facts: Facts,
    call: Option<Call>,
    ending: Ending,
}

/// Room for one report.
#[derive(Debug, Default)]
enum Slot {
    /// Empty: the watcher may poll.
    #[default]
    Free,
    /// A report waits for the presenter.
    Full(Box<Report>),
    /// The presenter is applying one.
    Applied,
}

/// The reset and the end that the watcher knows of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Acknowledged {
    epoch: u64,
    stop: bool,
}

/// A device call that has not returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// When it was made.
    pub since: Duration,
}

/// Whether the watcher is alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It is.
    #[default]
    Watching,
    /// It failed: the device is not polled any more.
    Failed,
}

/// What the watcher left for the presenter.
#[derive(Debug)]
pub struct Arrival {
    /// A report, to be applied before wishes are posted.
    pub report: Option<Box<Report>>,
    /// The notes.
    pub notes: Notes,
    /// The device call that has not returned, if any.
    pub call: Option<Call>,
    /// Whether the watcher is alive.
    pub ending: Ending,
}

impl Exchange {
    /// Creates an exchange without wishes or a report.
    pub fn new(watcher: Box<dyn Waker>, presenter: Box<dyn Waker>, facts: Facts) -> Self {
        let slots = Slots { facts, ..Slots::default() };
        Self { slots: Mutex::new(slots), watcher, presenter }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        // Values are moved whole, so a panic leaves none half done.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Presenter: takes what the watcher left.
    pub fn collect(&self) -> Arrival {
        let mut slots = self.slots();
        let report = slots.report.take();
        if report.is_some() {
            slots.report = Slot::Applied;
        }
        let notes = std::mem::take(&mut slots.notes);
        Arrival { report, notes, call: slots.call, ending: slots.ending }
    }

    /// Presenter: posts its wishes, having applied the report it took.
    pub fn post(&self, wishes: &mut Wishes) {
        self.post_as(wishes, false);
    }

    /// Presenter: like [`Exchange::post`], and takes back a report that waits, since the device was
    /// reset or the display closes.
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

    /// Watcher: takes the wishes. `None` while a report waits, unless the display is closing.
    pub fn wishes(&self) -> Option<Wishes> {
        let mut slots = self.slots();
        let Wishes { epoch, stop, .. } = slots.wishes;
        if !stop && !matches!(slots.report, Slot::Free) {
            return None;
        }
        slots.acknowledged = Acknowledged { epoch, stop };
        Some(take(&mut slots.wishes))
    }

    /// Watcher: leaves what it found.
    pub fn leave(&self, report: Option<Report>, notes: Notes, facts: Facts) {
        let mut slots = self.slots();
        let news = report.is_some() || !notes.remarks.is_empty() || !notes.retired.is_empty();
        slots.facts = facts;
        slots.notes.append(notes);
        // There may have been a reset, or the end, meanwhile.
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

    /// Watcher: announces a device call. Returns `false` if it must not be made: the device is
    /// being reset, or there was a reset or the end that the watcher does not know of yet.
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

    /// Watcher: the device call has returned.
    pub fn answered(&self) {
        self.slots().call = None;
    }

    /// Presenter: whether there is something to show.
    pub fn has_news(&self) -> bool {
        let slots = self.slots();
        matches!(slots.report, Slot::Full(_)) || slots.ending == Ending::Failed
    }

    /// Whether the watcher is alive.
    pub fn ending(&self) -> Ending {
        self.slots().ending
    }

    /// Presenter: takes the notes, and no report.
    pub fn take_notes(&self) -> Notes {
        std::mem::take(&mut self.slots().notes)
    }

    /// Wakes the presenter, for a change on its own side.
    pub fn wake_presenter(&self) {
        self.presenter.wake();
    }

    /// The watcher has failed.
    pub fn fail(&self) {
        let mut slots = self.slots();
        slots.ending = Ending::Failed;
        // It will not report that the call has returned.
        slots.call = None;
        drop(slots);
        self.presenter.wake();
    }

    /// Returns what is known of the device.
    pub fn facts(&self) -> Facts {
        self.slots().facts.clone()
    }
}

impl Slot {
    /// Takes the report that waits.
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

/// After such a pause between refreshes, the watcher may have stopped polling.
const NAP: Duration = Duration::from_secs(3);

/// Stores new wishes. Returns whether to wake the watcher.
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
            // The watcher sleeps by then, or is about to.
            known.refreshed.is_none_or(|(before, _)| now.saturating_sub(before) > NAP)
        });
    let monitor = new.monitor.take().or(known.monitor.take());
    let mut returned = std::mem::take(&mut known.returned);
    returned.append(&mut new.returned);
    // The verdict counts only once the report has been applied.
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

/// Copies all but what is to be done only once.
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
