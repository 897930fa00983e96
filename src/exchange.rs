//! What the two halves of a display tell one another: reports one way, wishes the other.
//!
//! The watcher talks to the device, the presenter to the console. One [`Report`] is under way at most: before the next look the presenter
//! has applied it, and its [`Wishes`] say what the console shows since then. Wishes are state, not a queue: what is not wanted any more is
//! forgotten. What must not be lost, however many reports are left out, is in the [`Notes`].

#![forbid(unsafe_code)]

mod facts;
mod meeting;

pub use facts::{Counters, Facts};
pub use meeting::{Arrival, Call, Ending, Exchange, Waker};

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::console::{Monitor, ScanoutSupport, Severity};
use crate::damage::{Picture, Rect};
use crate::format::Format;
use crate::memory::{DmaBuf, Memory};
use crate::plane::{Geometry, Plane};
use crate::pool::Key;

/// What the meeting place is built on, by name, so that `tests/exchange_model.rs` can build it on a model checker's instead.
mod sync {
    pub use std::sync::{Mutex, MutexGuard};
}

/// What the watcher found at one look.
#[derive(Debug)]
pub struct Report {
    /// See [`Wishes::epoch`]: a report of another one is about a device that is not any more.
    pub epoch: u64,
    /// See [`Wishes::one_shot`]: the last one that was wanted when this look began.
    pub one_shot: u64,
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
    Buffer(Lease, ScanoutSupport),
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
    Error {
        /// What there is to say.
        remarks: Vec<Remark>,
        /// The dma-buf that cannot be read, and what the watcher took front ends to do with it.
        unread: Option<(Lease, ScanoutSupport)>,
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
    pub lease: Option<(Lease, ScanoutSupport)>,
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
    pub one_shot: u64,
    /// What came of the last report.
    pub verdict: Verdict,
    /// Front ends want to see all again.
    pub redraw: bool,
    /// What the console shows.
    pub shown: Shown,
    /// The dma-buf of the pointer.
    pub pointer: Option<Key>,
    /// The dma-buf that a front end was given, and has not given back.
    pub in_use: Option<Key>,
    /// Nothing new may be shown until it is given back; or when it was, last.
    pub blocked: Block,
    /// What front ends do with dma-bufs.
    pub supports: SupportCache,
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
    /// All that came with a report which is not shown.
    Report(Box<Report>),
}

/// Formats whose uptake is remembered: no device has as many.
const MOST_FORMATS: usize = 64;

/// What front ends do with dma-bufs, as far as they were asked.
#[derive(Clone, Debug, Default)]
pub struct SupportCache {
    by_key: HashMap<Key, ScanoutSupport>,
    by_format: HashMap<Format, ScanoutSupport>,
    changes: u64,
}

impl SupportCache {
    /// What they do with this one, or else, if they imported the last one like it, probably.
    pub fn of(&self, key: Key, format: Format) -> Option<ScanoutSupport> {
        let like_it =
            || self.by_format.get(&format).filter(|support| **support == ScanoutSupport::Import);
        self.by_key.get(&key).or_else(like_it).copied()
    }

    /// They were asked.
    pub fn note(&mut self, key: Key, geometry: &Geometry, support: ScanoutSupport) {
        if self.by_format.len() >= MOST_FORMATS {
            self.by_format.clear();
        }
        let before = self.by_key.insert(key, support);
        self.changes += u64::from(before.is_some_and(|before| before != support));
        self.by_format.insert(geometry.format, support);
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

    /// What was said later.
    pub fn append(&mut self, notes: Self) {
        self.retired.extend(notes.retired);
        for remark in notes.remarks {
            self.add(remark);
        }
    }
}
