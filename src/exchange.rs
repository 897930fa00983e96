//! What the two halves of a display tell each other: reports one way, wishes the other.
//!
//! The watcher talks to the device, the presenter to the console. At most one [`Report`] is under
//! way: the presenter applies it before the next poll, and its [`Wishes`] say what the console
//! shows since. Wishes are state, not a queue: what is no longer wanted is forgotten. What must not
//! be lost, however many reports are skipped, goes into the [`Notes`]. Nothing here calls a device
//! or a console.

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

/// The locks that `meeting` uses, by name, so that `tests/exchange_model.rs` can replace them with
/// a model checker's.
mod sync {
    pub use std::sync::{Mutex, MutexGuard};
}

/// What the watcher found at one poll.
#[derive(Debug)]
pub struct Report {
    /// See [`Wishes::epoch`]: a report of another epoch is about the device before a reset.
    pub epoch: u64,
    /// See [`Wishes::one_shot`]: the last one that was wanted when this poll began.
    pub one_shot: u64,
    /// Whether the poll knew that everything must be drawn again.
    pub redrawn: bool,
    /// What there is to show.
    pub view: View,
    /// The cursor above it.
    pub cursor: CursorView,
    /// The pixels of a dma-buf that front ends import, for a one-shot refresh.
    pub captured: Option<(Key, Picture)>,
}

/// What there is to show.
#[derive(Debug)]
pub enum View {
    /// The same as before, as far as is known.
    Same,
    /// No plane.
    Off,
    /// A dma-buf; front ends have not been asked yet what they do with it.
    Undecided(Lease),
    /// A dma-buf for front ends to import, as they did others like it.
    Buffer(Lease, ScanoutSupport),
    /// A picture that was read.
    Picture(Drawn),
    /// Memory to be shown itself.
    Memory {
        /// The plane in it.
        plane: Plane,
        /// The memory.
        memory: Arc<Memory>,
        /// Whether to tell front ends that it changed.
        changed: bool,
    },
    /// No picture, because of an error.
    Error {
        /// What to log.
        remarks: Vec<Remark>,
        /// The dma-buf that cannot be read, and what the watcher assumed front ends to do with it.
        unread: Option<(Lease, ScanoutSupport)>,
        /// What to show; `None`: keep what is shown.
        message: Option<&'static str>,
        /// Replaces memory that was shown itself, which may hold anything by now: its last content,
        /// or the text if there is no memory for a copy.
        frozen: Option<(Drawn, &'static str)>,
    },
}

/// A dma-buf that the presenter may use until the watcher says that the pool retired it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// Its key in the pool.
    pub key: Key,
    /// The plane in it.
    pub plane: Plane,
    /// The dma-buf.
    pub buffer: Arc<DmaBuf>,
}

/// A picture that the watcher read, and what changed of it.
#[derive(Debug)]
pub struct Drawn {
    /// The plane that was read.
    pub plane: Plane,
    /// The dma-buf it was read from, and what the watcher assumed front ends to do with that.
    pub lease: Option<(Lease, ScanoutSupport)>,
    /// The pixels, which do not change until this report is applied.
    pub picture: SharedPicture,
    /// What changed.
    pub damage: Vec<Rect>,
}

/// A picture that the watcher writes and the presenter reads, in turns.
#[derive(Clone, Debug)]
pub struct SharedPicture(Arc<Mutex<Picture>>);

impl SharedPicture {
    /// Shares a picture.
    pub fn new(picture: Picture) -> Self {
        Self(Arc::new(Mutex::new(picture)))
    }

    /// Uses the picture. Never blocks: the halves take turns.
    pub fn with<R>(&self, act: impl FnOnce(&mut Picture) -> R) -> R {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The cursor.
#[derive(Debug)]
pub enum CursorView {
    /// As before: the device was not asked, or did not answer.
    Unchanged,
    /// There is none.
    Hidden,
    /// This one, and its pixels, for above a surface. If front ends import the buffer, they are
    /// there only where reading is cheap.
    Shown(Lease, Option<Vec<u8>>),
}

/// What the console shows, as far as the watcher needs to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shown {
    /// Nothing of the device, and nothing to draw on.
    #[default]
    Other,
    /// A dma-buf.
    Scanout(Key),
    /// A surface: width, height, and the dma-buf last read for it.
    Surface(u32, u32, Option<Key>),
    /// The memory of the last report.
    Memory,
}

impl Shown {
    /// Returns the dma-buf it came from.
    pub fn key(&self) -> Option<Key> {
        match self {
            Self::Scanout(key) => Some(*key),
            Self::Surface(_, _, key) => *key,
            Self::Other | Self::Memory => None,
        }
    }
}

/// What the presenter wants of the watcher. State, not events.
#[derive(Debug, Default)]
pub struct Wishes {
    /// Counts resets, twice each. Odd while the device is being reset, and then nobody calls it.
    pub epoch: u64,
    /// When a front end last refreshed, and how long that took.
    pub refreshed: Option<(Duration, Duration)>,
    /// Number of the last one-shot refresh, as for a screenshot: it wants a poll that begins after
    /// this was counted up.
    pub one_shot: u64,
    /// What became of the last report.
    pub verdict: Verdict,
    /// Front ends want everything drawn again.
    pub redraw: bool,
    /// What the console shows.
    pub shown: Shown,
    /// The dma-buf of the cursor.
    pub pointer: Option<Key>,
    /// The dma-buf that a front end is using, and has not released.
    pub in_use: Option<Key>,
    /// Whether a front end blocks new pictures (`gl_block`), or until when one did.
    pub blocked: Block,
    /// What front ends do with dma-bufs.
    pub supports: SupportCache,
    /// Monitor properties to advertise to the guest.
    pub monitor: Option<Monitor>,
    /// What the presenter no longer needs, for the watcher to drop: that may take long.
    pub returned: Vec<Returned>,
    /// The display is closing.
    pub stop: bool,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Shown, or there is nothing to be done.
    #[default]
    Settled,
    /// It cannot be shown as it is: the watcher works on the same answer again, with the new
    /// wishes.
    Again,
    /// Like [`Verdict::Again`], since the console cannot show the memory itself.
    NoMemory,
}

/// Whether a front end is using what is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Block {
    /// None ever was.
    #[default]
    Never,
    /// One is.
    Held,
    /// One was, until then.
    Until(Duration),
}

/// Something of the device that is closed or unmapped when it is dropped.
#[derive(Debug)]
pub enum Returned {
    /// A dma-buf.
    Buffer(Arc<DmaBuf>),
    /// A region's memory.
    Memory(Arc<Memory>),
    /// A report that is not shown.
    Report(Box<Report>),
}

/// Maximum number of formats that are remembered: no device has as many.
const MOST_FORMATS: usize = 64;

/// What front ends answered when asked what they do with dma-bufs.
#[derive(Clone, Debug, Default)]
pub struct SupportCache {
    by_key: HashMap<Key, ScanoutSupport>,
    by_format: HashMap<Format, ScanoutSupport>,
    changes: u64,
}

impl SupportCache {
    /// Returns what they do with this one; if not asked, import is assumed if they imported the
    /// last one of that format.
    pub fn of(&self, key: Key, format: Format) -> Option<ScanoutSupport> {
        let like_it =
            || self.by_format.get(&format).filter(|support| **support == ScanoutSupport::Import);
        self.by_key.get(&key).or_else(like_it).copied()
    }

    /// Remembers an answer.
    pub fn note(&mut self, key: Key, geometry: &Geometry, support: ScanoutSupport) {
        if self.by_format.len() >= MOST_FORMATS {
            self.by_format.clear();
        }
        let before = self.by_key.insert(key, support);
        self.changes += u64::from(before.is_some_and(|before| before != support));
        self.by_format.insert(geometry.format, support);
    }

    /// Returns how often an answer changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Forgets a buffer that the pool retired.
    pub fn forget(&mut self, key: Key) {
        self.by_key.remove(&key);
    }
}

/// What the watcher says besides reports; none of it may be lost.
#[derive(Debug, Default)]
pub struct Notes {
    /// To be logged or counted.
    pub remarks: Vec<Remark>,
    /// Dma-bufs that the pool retired: nobody shows them.
    pub retired: Vec<Key>,
}

/// Something to log or count.
#[derive(Debug)]
pub enum Remark {
    /// For the user, unless the same topic was logged just now.
    Say {
        /// The severity.
        severity: Severity,
        /// Equal for texts with the same meaning.
        topic: String,
        /// The text.
        text: String,
    },
    /// Counts an error of this category.
    Count(&'static str),
    /// For tracing.
    Trace(String),
}

/// Maximum number of remarks that wait for the presenter.
const MOST_REMARKS: usize = 256;

impl Notes {
    /// Logs something.
    pub fn say(&mut self, severity: Severity, what: &impl fmt::Display) {
        let text = what.to_string();
        self.add(Remark::Say { severity, topic: text.clone(), text });
    }

    /// Traces something.
    pub fn trace(&mut self, what: &impl fmt::Display) {
        self.add(Remark::Trace(what.to_string()));
    }

    /// Adds a remark, if there is room.
    pub fn add(&mut self, remark: Remark) {
        if self.remarks.len() < MOST_REMARKS {
            self.remarks.push(remark);
        }
    }

    /// Appends later notes.
    pub fn append(&mut self, notes: Self) {
        self.retired.extend(notes.retired);
        for remark in notes.remarks {
            self.add(remark);
        }
    }
}
