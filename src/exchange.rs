//! What the two halves of a display tell one another: reports one way, wishes the other.
//!
//! The watcher talks to the device, the presenter to the console. One [`Report`] is under way at most: before the next look the presenter
//! has applied it, and its [`Wishes`] say what the console shows since then. Wishes are state, not a queue: what is not wanted any more is
//! forgotten. What must not be lost, however many reports are left out, is in the [`Notes`].

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::console::{Monitor, Severity, Uptake};
use crate::damage::{Picture, Rect};
use crate::format::Format;
use crate::memory::{DmaBuf, Memory};
use crate::plane::{Geometry, Plane};
use crate::pool::Key;
use crate::watcher::Facts;

/// What the watcher found at one look.
#[derive(Debug)]
pub struct Report {
    /// See [`Wishes::epoch`]: a report of another one is about a device that is not any more.
    pub epoch: u64,
    /// See [`Wishes::single_look`]: the last one that was wanted when this look began.
    pub single_look: u64,
    /// Whether the look knew that all is to be drawn again.
    pub redrawn: bool,
    /// What there is to see.
    pub view: View,
    /// The pointer above it.
    pub cursor: CursorView,
    /// A dma-buf that front ends import, or go on showing, and its pixels, for who looks once.
    pub captured: Option<(Key, Picture)>,
}

/// What there is to see.
#[derive(Debug)]
pub enum View {
    /// Nothing else than before, as far as can be told.
    Same,
    /// No plane.
    Off,
    /// A dma-buf, of which nobody knows yet what front ends do with it.
    Undecided(Lease),
    /// A dma-buf for front ends to import, as they do with others like it.
    Buffer(Lease, Uptake),
    /// A picture that was read.
    Picture(Drawn),
    /// Memory to be shown itself; `changed`: front ends are to be told.
    Memory {
        /// What is in it.
        plane: Plane,
        /// It.
        memory: Arc<Memory>,
        /// Whether front ends are to be told that it changed.
        changed: bool,
    },
    /// Something is wrong.
    Trouble {
        /// What there is to say.
        remarks: Vec<Remark>,
        /// The dma-buf that cannot be read, and what the watcher took front ends to do with it.
        unread: Option<(Lease, Uptake)>,
        /// What to show then, `None`: what is shown.
        message: Option<&'static str>,
        /// Instead of memory that was shown itself, of which nobody knows whether it still is the picture: what it held last. If there is no
        /// room for it, the text.
        frozen: Option<(Drawn, &'static str)>,
    },
}

/// A dma-buf that the presenter may use until it is told that the pool has let go of it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Its name in the pool.
    pub key: Key,
    /// What it shows.
    pub plane: Plane,
    /// The dma-buf.
    pub buffer: Arc<DmaBuf>,
}

/// A picture as the watcher drew it, and what of it is not as before.
#[derive(Debug)]
pub struct Drawn {
    /// What was drawn.
    pub plane: Plane,
    /// Where it was read from, and what the watcher took front ends to do with that.
    pub lease: Option<(Lease, Uptake)>,
    /// The picture, which stays as it is until this report is applied.
    pub picture: SharedPicture,
    /// What changed.
    pub damage: Vec<Rect>,
}

/// A picture that the watcher writes and the presenter reads, in turns.
#[derive(Clone, Debug)]
pub struct SharedPicture(Arc<Mutex<Picture>>);

impl SharedPicture {
    /// Shares it.
    pub fn new(picture: Picture) -> Self {
        Self(Arc::new(Mutex::new(picture)))
    }

    /// Uses it. Nobody waits: the halves take turns.
    pub fn with<R>(&self, act: impl FnOnce(&mut Picture) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The pointer.
#[derive(Debug)]
pub enum CursorView {
    /// As it was: nobody asked, or there was no answer.
    Unchanged,
    /// There is none.
    Hidden,
    /// This one. The pixels, for above a surface; if front ends are to take the buffer, only where reading is cheap.
    Shown(Lease, Option<Vec<u8>>),
}

/// What the console shows, as far as the watcher must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// Nothing of the device's, and nothing that could be drawn on.
    #[default]
    Other,
    /// A dma-buf.
    Scanout(Key),
    /// A surface of this width and height, and what was last read for it.
    Surface(u32, u32, Option<Key>),
    /// The memory of the last report.
    Memory,
}

impl Shown {
    /// The dma-buf that it came from.
    pub fn key(&self) -> Option<Key> {
        match self {
            Self::Scanout(key) => Some(*key),
            Self::Surface(_, _, key) => *key,
            Self::Other | Self::Memory => None,
        }
    }
}

/// What the presenter wants of the watcher: a state.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Counts resets, twice each: it is odd while the device is being reset, and then nobody calls it.
    pub epoch: u64,
    /// When a front end last refreshed, and how long that took.
    pub refreshed: Option<(Duration, Duration)>,
    /// Who looks once, for instance to take a screenshot, wants a look that begins after this number was counted up.
    pub single_look: u64,
    /// What came of the last report.
    pub verdict: Verdict,
    /// Front ends want to see all again.
    pub redraw: bool,
    /// What the console shows.
    pub shown: Shown,
    /// The dma-buf of the pointer.
    pub pointer: Option<Key>,
    /// The dma-buf that a front end was given, and has not given back.
    pub lent: Option<Key>,
    /// Nothing new may be shown until it is given back; or when it was, last.
    pub blocked: Block,
    /// What front ends do with dma-bufs.
    pub uptakes: Uptakes,
    /// What the guest shall believe of its monitor.
    pub monitor: Option<Monitor>,
    /// What the presenter held, to be let go of where that may take its time.
    pub returned: Vec<Returned>,
    /// All is over.
    pub stop: bool,
}

/// What came of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// It was shown, or nothing can be.
    #[default]
    Settled,
    /// It cannot be shown as it is: what led to it is looked at again, with the wishes of now.
    Again,
    /// So, and the console did not take the memory that it was offered.
    NoMemory,
}

/// Whether a front end has what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Block {
    /// None ever had.
    #[default]
    Never,
    /// One has.
    Held,
    /// One had until then.
    Until(Duration),
}

/// Something of the device that is closed, or not mapped any more, when it is dropped.
#[derive(Debug)]
pub enum Returned {
    /// A dma-buf.
    Buffer(Arc<DmaBuf>),
    /// A region's memory.
    Memory(Arc<Memory>),
}

/// Formats whose uptake is remembered: no device has as many.
const MOST_FORMATS: usize = 64;

/// What front ends do with dma-bufs, as far as they were asked.
#[derive(Clone, Debug, Default)]
pub struct Uptakes {
    by_key: HashMap<Key, Uptake>,
    by_format: HashMap<Format, Uptake>,
    changes: u64,
}

impl Uptakes {
    /// What they do with this one, or else, if they imported the last one like it, probably.
    pub fn of(&self, key: Key, format: Format) -> Option<Uptake> {
        let like_it = || self.by_format.get(&format).filter(|uptake| **uptake == Uptake::Import);
        self.by_key.get(&key).or_else(like_it).copied()
    }

    /// They were asked.
    pub fn note(&mut self, key: Key, geometry: &Geometry, uptake: Uptake) {
        if self.by_format.len() >= MOST_FORMATS {
            self.by_format.clear();
        }
        let before = self.by_key.insert(key, uptake);
        self.changes += u64::from(before.is_some_and(|before| before != uptake));
        self.by_format.insert(geometry.format, uptake);
    }

    /// How often they changed their minds.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The pool let go of it.
    pub fn forget(&mut self, key: Key) {
        self.by_key.remove(&key);
    }
}

/// What is said beside the reports.
#[derive(Debug, Default)]
pub struct Notes {
    /// For the user, or counted.
    pub remarks: Vec<Remark>,
    /// Dma-bufs that the pool let go of: nobody shows them.
    pub retired: Vec<Key>,
}

/// Something to say.
#[derive(Debug)]
pub enum Remark {
    /// To the user, unless the same was said of this topic just now.
    Say {
        /// How much it matters.
        severity: Severity,
        /// What is the same in texts that mean the same.
        topic: String,
        /// The words.
        text: String,
    },
    /// Counted as an error of this kind.
    Count(&'static str),
    /// For those who trace.
    Trace(String),
}

/// Remarks at most that wait: a presenter that does not come need not hear all of it.
const MOST_REMARKS: usize = 256;

impl Notes {
    /// Says something.
    pub fn say(&mut self, severity: Severity, what: &impl fmt::Display) {
        let text = what.to_string();
        self.add(Remark::Say { severity, topic: text.clone(), text });
    }

    /// Traces something.
    pub fn trace(&mut self, what: &impl fmt::Display) {
        self.add(Remark::Trace(what.to_string()));
    }

    /// One more remark, if there is room.
    pub fn add(&mut self, remark: Remark) {
        if self.remarks.len() < MOST_REMARKS {
            self.remarks.push(remark);
        }
    }
}

/// Wakes one of the halves, from any thread.
pub trait Bell: Send + Sync {
    /// It is woken, at once or when it goes to sleep next.
    fn ring(&self);
}

/// Where the halves meet if each has a thread of its own. Its lock is held to move things, never while somebody is called.
pub struct Exchange {
    slots: Mutex<Slots>,
    /// Wakes the watcher.
    watcher: Box<dyn Bell>,
    /// Wakes the presenter.
    presenter: Box<dyn Bell>,
}

#[derive(Debug, Default)]
struct Slots {
    report: Slot,
    wishes: Wishes,
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
    pub fn new(watcher: Box<dyn Bell>, presenter: Box<dyn Bell>, facts: Facts) -> Self {
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
        let report = match std::mem::take(&mut slots.report) {
            Slot::Full(report) => {
                slots.report = Slot::Applied;
                Some(report)
            }
            Slot::Free | Slot::Applied => None,
        };
        let notes = std::mem::take(&mut slots.notes);
        Arrival { report, notes, call: slots.call, ending: slots.ending }
    }

    /// The presenter has applied what it took, and says what it wants now.
    pub fn post(&self, wishes: &mut Wishes) {
        let mut slots = self.slots();
        let applied = matches!(slots.report, Slot::Applied);
        let urgent = slots.wishes.post(wishes, applied) || applied;
        if applied {
            slots.report = Slot::Free;
        }
        drop(slots);
        if urgent {
            self.watcher.ring();
        }
    }

    /// A report that waits is about a device that is not any more.
    pub fn discard(&self) {
        let report = std::mem::take(&mut self.slots().report);
        drop(report);
    }

    /// The watcher takes the wishes; `None` while a report waits, except that all is over.
    pub fn wishes(&self) -> Option<Wishes> {
        let mut slots = self.slots();
        let over = slots.wishes.stop;
        (over || matches!(slots.report, Slot::Free)).then(|| slots.wishes.take())
    }

    /// The watcher leaves what it found.
    pub fn leave(&self, report: Option<Report>, notes: Notes, facts: Facts) {
        let mut slots = self.slots();
        let news = report.is_some() || !notes.remarks.is_empty() || !notes.retired.is_empty();
        slots.facts = facts;
        slots.notes.append(notes);
        if let Some(report) = report {
            // A reset may have come between.
            if report.epoch == slots.wishes.epoch {
                slots.report = Slot::Full(Box::new(report));
            }
        }
        drop(slots);
        if news {
            self.presenter.ring();
        }
    }

    /// The watcher makes a call of the device, or has an answer.
    pub fn calls(&self, call: Option<Call>) {
        self.slots().call = call;
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
    pub fn ring_presenter(&self) {
        self.presenter.ring();
    }

    /// The watcher is no more.
    pub fn fail(&self) {
        let mut slots = self.slots();
        slots.ending = Ending::Failed;
        // It will not say that this has returned.
        slots.call = None;
        drop(slots);
        self.presenter.ring();
    }

    /// What is known of the device.
    pub fn facts(&self) -> Facts {
        self.slots().facts.clone()
    }
}

impl Notes {
    fn append(&mut self, notes: Self) {
        self.retired.extend(notes.retired);
        for remark in notes.remarks {
            self.add(remark);
        }
    }
}

/// Who refreshes after such a pause may find that nobody looks any more.
const NAP: Duration = Duration::from_secs(3);

impl Wishes {
    /// Takes over what is wanted now. Returns whether the watcher is to be woken for it.
    fn post(&mut self, new: &mut Self, applied: bool) -> bool {
        let urgent = self.epoch != new.epoch
            || self.single_look != new.single_look
            || new.verdict != Verdict::Settled
            || self.redraw != new.redraw
            || self.blocked != new.blocked
            || self.uptakes.changes != new.uptakes.changes
            || new.monitor.is_some()
            || !new.returned.is_empty()
            || new.stop
            || new.refreshed.is_some_and(|(now, _)| {
                // The watcher has gone to sleep by then, or is about to.
                self.refreshed.is_none_or(|(before, _)| now.saturating_sub(before) > NAP)
            });
        let monitor = new.monitor.take().or(self.monitor.take());
        let mut returned = std::mem::take(&mut self.returned);
        returned.append(&mut new.returned);
        // What came of a report is known when it has been applied.
        let verdict = if applied { new.verdict } else { self.verdict };
        *self = Self { verdict, monitor, returned, ..new.state() };
        new.verdict = Verdict::Settled;
        urgent
    }

    fn take(&mut self) -> Self {
        let taken = Self {
            monitor: self.monitor.take(),
            returned: std::mem::take(&mut self.returned),
            ..self.state()
        };
        self.verdict = Verdict::Settled;
        taken
    }

    /// All but what is to be done once.
    fn state(&self) -> Self {
        let Self { epoch, refreshed, single_look, verdict, redraw, shown, pointer, lent, .. } =
            *self;
        Self {
            epoch,
            refreshed,
            single_look,
            verdict,
            redraw,
            shown,
            pointer,
            lent,
            blocked: self.blocked,
            uptakes: self.uptakes.clone(),
            monitor: None,
            returned: Vec::new(),
            stop: self.stop,
        }
    }
}
