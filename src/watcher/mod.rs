//! The device's half of a display: when to poll it, what it shows, and what changed of its picture.
//!
//! A watcher may be stepped on any thread, and blocks while the device is called; it knows no
//! console. It owns the dma-bufs and mappings, and closes and unmaps them. `poll` is one poll of
//! the device, `turn` one step on a thread; the other files are the parts of those.

#![forbid(unsafe_code)]

mod announced;
mod blank;
mod budget;
mod cursor;
pub(crate) mod direct;
mod dmabuf;
mod edid;
mod events;
mod pacing;
mod picture;
mod poll;
mod poll_rate;
mod query;
mod region;
mod share;
mod turn;

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::allocate::OutOfMemory;
use crate::clock::Clock;
use crate::config::Config;
use crate::console::{ScanoutSupport, Severity};
use crate::damage::{self, Picture, Snapshot};
use crate::device::{Device, Failure, Mode};
use crate::exchange::{
    Block, Counters, Facts, Lease, Notes, Remark, Shown, SupportCache, Verdict, Wishes,
};
use crate::format::Conversion;
use crate::plane::{Geometry, Plane, PlaneInfo, PlaneKind};
use crate::pool::{Key, User};
use crate::problem::{self, Problem};
use crate::shared_objects::{Owner, SharedObjects};

use uuid::Uuid;

use blank::Blanks;
use budget::Budget;
use cursor::Presence;
use direct::Direct;
use dmabuf::DmaBufPlanes;
use edid::{Edid, EdidHost};
use events::Events;
use pacing::Pacer;
use picture::Drawing;
use poll_rate::PollRate;
use region::RegionPlane;
use turn::Told;

pub use announced::Announced;
pub use share::ShareError;
pub use turn::Next;

#[cfg(test)]
pub(crate) use blank::BLACK;
#[cfg(test)]
pub(crate) use budget::POLL_MOST;
#[cfg(test)]
pub(crate) use cursor::ABSENT_INTERVAL;
#[cfg(test)]
pub(crate) use poll::{BACKOFF, PATIENCE};
pub(crate) use poll::{FlipCheck, PollRequest};

/// Finds out how the device gives its planes. `Ok(None)`: it has none.
///
/// Fails if the device does not answer at all.
pub fn probe(device: &impl Device) -> io::Result<Option<Mode>> {
    for (mode, flag) in [(Mode::DmaBuf, PlaneInfo::DMABUF), (Mode::Region, PlaneInfo::REGION)] {
        let mut info = PlaneInfo {
            drm_plane_type: 0,
            ..PlaneInfo::request(PlaneInfo::PROBE | flag, PlaneKind::Primary)
        };
        match device.query_plane(&mut info) {
            Ok(()) => return Ok(Some(mode)),
            Err(e) if matches!(Failure::of(&e), Failure::Gone | Failure::Silent) => return Err(e),
            Err(_) => (),
        }
    }
    Ok(None)
}

#[expect(clippy::large_enum_variant, reason = "there is one per display")]
enum Planes {
    DmaBuf(DmaBufPlanes),
    Region(RegionPlane),
}

/// What the report that is under way has of the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Reported {
    #[default]
    Nothing,
    /// The dma-buf, or the memory.
    Given,
    /// Pixels that were read.
    Drawn,
}

/// When to poll besides the front ends' refreshes.
enum Pace {
    /// Never.
    FrontEnds,
    /// When the guest is about to flip.
    Flips(Pacer),
    /// When the device signals a change.
    Events(Events),
}

impl Pace {
    /// The pace of a device that signals nothing.
    fn of(planes: &Planes, config: Config) -> Self {
        match planes {
            Planes::DmaBuf(_) if config.pacing => Self::Flips(Pacer::default()),
            // A region's plane does not change when the guest flips.
            _ => Self::FrontEnds,
        }
    }
}

/// Failures of the device, and the backoff after them.
#[derive(Debug, Default)]
struct Health {
    /// Failed polls in a row.
    failures: u32,
    /// Topic of the last problem, and its message when it began.
    error: (String, String),
    /// The device is not polled before this.
    backoff_until: Duration,
}

/// The dma-bufs pinned for the console, and for the report that is under way.
#[derive(Debug, Default)]
struct Pins {
    scanout: Option<Key>,
    cursor: Option<Key>,
    in_use: Option<Key>,
    reported: [Option<Key>; 2],
}

/// The watcher of one device.
pub struct Watcher<D: Device, T: Clock> {
    device: D,
    clock: T,
    config: Config,
    planes: Planes,
    pins: Pins,
    /// From the last wishes.
    shown: Shown,
    supports: SupportCache,
    blocked: Block,
    redraw: bool,
    epoch: u64,
    one_shot: u64,
    /// The picture that surfaces are copied from.
    drawing: Option<Drawing>,
    /// The memory that is shown itself.
    direct: Option<Direct>,
    /// How long everything must move before memory is shown itself: see [`Direct::hesitation`].
    hesitation: u32,
    /// Size of the last plane: a change is a mode set.
    mode: Option<(u32, u32)>,
    cursor: Presence,
    blanks: Option<Blanks>,
    edid: Option<Edid>,
    pace: Pace,
    health: Health,
    /// Whether the next picture must be exact in every row.
    exact: bool,
    /// What the report that is under way has of the picture.
    reported: Reported,
    /// The dma-buf that is being read, or could not be read.
    unread: Option<(Lease, ScanoutSupport)>,
    /// When the picture was last compared.
    compared: Duration,
    /// The time budget of the current or last poll.
    budget: Budget,
    /// What a flip check has just found, and when.
    found: Option<(PlaneInfo, Duration)>,
    counters: Counters,
    notes: Notes,
    rate: PollRate,
    told: Told,
    /// The eventfd that the device signals, if it can.
    event: Option<OwnedFd>,
    sharing: Option<Owner<'static>>,
    shared: Option<Uuid>,
}

impl<D: Device, T: Clock> Watcher<D, T> {
    /// Creates the watcher of a device that [`probe`] found to be in this mode, and tells the guest
    /// of a first monitor.
    ///
    /// A broken EDID region costs the guest its choice of resolutions, not the user the picture: it
    /// is reported, and [`Watcher::has_edid`] is `false`.
    pub fn new(device: D, clock: T, mode: Mode, config: Config) -> Self {
        let mut notes = Notes::default();
        let edid = Edid::open(&device, config.xres, config.yres).unwrap_or_else(|error| {
            notes.say(Severity::Warning, &error);
            None
        });
        let planes = match mode {
            Mode::DmaBuf => Planes::DmaBuf(DmaBufPlanes::new(config.pool, device.exports_once())),
            Mode::Region => Planes::Region(RegionPlane::default()),
        };
        let blanks = match mode {
            Mode::DmaBuf => None,
            Mode::Region => Blanks::of(&device),
        };
        let pace = Pace::of(&planes, config);
        let sharing = config.share.then(|| SharedObjects::global().owner(device.name()));
        let mut watcher = Self {
            device,
            clock,
            config,
            planes,
            pins: Pins::default(),
            shown: Shown::Other,
            supports: SupportCache::default(),
            blocked: Block::Never,
            redraw: false,
            epoch: 0,
            one_shot: 0,
            drawing: None,
            direct: None,
            hesitation: 0,
            mode: None,
            cursor: Presence::default(),
            blanks,
            edid,
            pace,
            health: Health::default(),
            exact: false,
            reported: Reported::Nothing,
            unread: None,
            compared: Duration::ZERO,
            budget: Budget::default(),
            found: None,
            counters: Counters::default(),
            notes,
            rate: PollRate::default(),
            told: Told::default(),
            event: None,
            sharing,
            shared: None,
        };
        watcher.trace(format_args!("{mode} mode, EDID {}", watcher.has_edid()));
        watcher.with_edid(|edid, host| edid.set_monitor(edid.default_monitor(), host));
        watcher
    }

    /// Makes the device signal this eventfd on changes, if it can, so that it need not be polled.
    /// Returns whether it does.
    pub fn subscribe(&mut self, event: io::Result<OwnedFd>) -> bool {
        let subscribed = event.and_then(|event| {
            match self.device.signal_changes(Some(event.as_fd())) {
                // During another reset: it will be asked again after that.
                Err(error) if Failure::of(&error) != Failure::NotAsked => Err(error),
                _ => Ok(event),
            }
        });
        match subscribed {
            Ok(event) => {
                self.event = Some(event);
                if !matches!(self.pace, Pace::Events(_)) {
                    self.pace = Pace::Events(Events::default());
                }
                self.trace(format_args!("the device says when something changed"));
                true
            }
            Err(error) => {
                let severity = match Failure::of(&error) {
                    Failure::Unsupported => Severity::Trace,
                    _ => Severity::Warning,
                };
                let what = format!("the device cannot signal changes: {error}");
                self.notes.say(severity, &what);
                false
            }
        }
    }

    /// Returns the device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// Whether the guest can be told about its monitor.
    pub fn has_edid(&self) -> bool {
        self.edid.is_some()
    }

    /// Returns the size that the guest prefers until it is told about a window, if it can be told.
    pub fn preferred_size(&self) -> Option<(u32, u32)> {
        self.edid.as_ref().map(Edid::preferred_size)
    }

    /// Applies the presenter's wishes, without polling.
    pub fn apply_wishes(&mut self, wishes: &mut Wishes) {
        match (std::mem::take(&mut self.reported), wishes.verdict) {
            (Reported::Nothing, _) | (Reported::Given, Verdict::Again | Verdict::NoMemory) => (),
            (_, Verdict::Settled) => self.exact = false,
            // What was read is not on screen.
            (Reported::Drawn, _) => self.drawing = None,
        }
        self.shown = wishes.shown;
        self.redraw = wishes.redraw;
        self.one_shot = wishes.one_shot;
        self.supports.clone_from(&wishes.supports);
        if self.blocked != wishes.blocked {
            self.blocked = wishes.blocked;
            if let (Block::Until(then), Pace::Flips(pacer)) = (self.blocked, &mut self.pace) {
                pacer.released(then);
            }
        }
        if let Some((when, took)) = wishes.refreshed.take() {
            match &mut self.pace {
                Pace::FrontEnds => (),
                Pace::Flips(pacer) => pacer.refreshed(when, took),
                Pace::Events(events) => events.refreshed(when, took),
            }
        }
        if !matches!(self.shown, Shown::Surface(..)) {
            self.drawing = None;
        }
        if self.shown != Shown::Memory {
            self.direct = None;
        }
        self.move_pins(wishes);
        // What the presenter gave back is dropped here.
        wishes.returned.clear();
        if self.epoch != wishes.epoch {
            self.epoch = wishes.epoch;
            self.forget_device();
        }
        if let Some(monitor) = wishes.monitor.take() {
            self.with_edid(|edid, host| edid.set_monitor(monitor, host));
        }
        self.retire();
    }

    /// Takes the notes since the last time.
    pub fn take_notes(&mut self) -> Notes {
        std::mem::take(&mut self.notes)
    }

    /// Returns when the next step of the EDID update is due.
    pub fn edid_due(&self) -> Option<Duration> {
        self.edid.as_ref().and_then(Edid::due)
    }

    /// Takes the next step of the EDID update.
    pub fn tell_monitor(&mut self) {
        self.with_edid(Edid::alarm);
    }

    /// Returns a copy of a dma-buf, for those who cannot import it. `None` if only a GPU can read
    /// it.
    pub fn capture(&mut self, key: Key) -> Option<Picture> {
        let Planes::DmaBuf(planes) = &mut self.planes else { return None };
        let buffer = planes.pool.get_mut(key)?;
        let geometry = buffer.geometry;
        let conversion = Conversion::to_xrgb8888(geometry.format)?;
        let memory = buffer.memory().ok()?;
        let mut picture = match Picture::new(geometry.width, geometry.height) {
            Ok(picture) => picture,
            Err(OutOfMemory(bytes)) => {
                let Geometry { width, height, .. } = geometry;
                self.complain(&Problem::NoSurface { width, height, bytes }, Severity::Warning);
                return None;
            }
        };
        let _reading = memory.begin_reading().ok()?;
        let comparison = damage::Comparison::Copy;
        Snapshot::default().update(memory, &geometry, conversion, &mut picture, comparison).ok()?;
        Some(picture)
    }

    /// Returns what is known of the device.
    pub fn facts(&self) -> Facts {
        let (pacing, signals) = match &self.pace {
            Pace::FrontEnds => (None, None),
            Pace::Flips(pacer) => (Some(pacer.period()), None),
            Pace::Events(events) => (None, Some(events.signals())),
        };
        Facts {
            counters: self.counters,
            pacing,
            signals,
            frames: self.drawing.as_ref().map(Drawing::counts),
            edids_written: self.edid.as_ref().map(Edid::written),
            pool: match &self.planes {
                Planes::DmaBuf(planes) => Some(planes.pool.statistics()),
                Planes::Region(_) => None,
            },
            shared: self.shared,
        }
    }

    /// Releases everything of the device. Nothing is shown any more.
    pub fn close(&mut self) {
        if let Pace::Events(_) = std::mem::replace(&mut self.pace, Pace::FrontEnds) {
            // Calling a device that does not answer takes long.
            if self.clock.now() >= self.health.backoff_until {
                // If it fails, the device is gone, or goes now.
                let _ = self.device.signal_changes(None);
            }
        }
        if let Some(edid) = &mut self.edid {
            edid.close();
        }
        self.drawing = None;
        self.direct = None;
        self.invalidate_planes();
        self.retire();
    }

    /// Forgets the device's answers from before a reset.
    fn forget_device(&mut self) {
        if !self.device.keeps_ids() {
            self.invalidate_planes();
        }
        self.found = None;
        self.shared = None;
        self.cursor.forget();
        self.health.backoff_until = Duration::ZERO;
        self.health.failures = 0;
        self.mode = None;
    }

    fn invalidate_planes(&mut self) {
        match &mut self.planes {
            Planes::DmaBuf(planes) => planes.invalidate(),
            Planes::Region(plane) => plane.invalidate(),
        }
    }

    /// Pins what the console shows now, and unpins the rest.
    fn move_pins(&mut self, wishes: &Wishes) {
        let Self { planes: Planes::DmaBuf(DmaBufPlanes { pool, .. }), pins, .. } = self else {
            return;
        };
        let Pins { scanout, cursor, in_use, reported } = pins;
        let moves = [
            (scanout, wishes.shown.key(), User::Scanout),
            (cursor, wishes.pointer, User::Cursor),
            (in_use, wishes.in_use, User::FrontEnd),
        ];
        let mut unpinned = Vec::new();
        for (pinned, now, user) in moves {
            if *pinned == now {
                continue;
            }
            if let Some(key) = now {
                pool.pin(key, user);
            }
            unpinned.extend(std::mem::replace(pinned, now).map(|key| (key, user)));
        }
        if wishes.verdict == Verdict::Settled {
            let users = [User::Scanout, User::Cursor];
            let reported = reported.iter_mut().zip(users);
            unpinned.extend(reported.filter_map(|(key, user)| Some((key.take()?, user))));
        }
        for (key, user) in unpinned {
            pool.unpin(key, user);
        }
    }

    /// Returns a dma-buf for a report, pinned until the presenter says what it shows instead.
    fn lease(&mut self, key: Key, plane: &Plane, kind: PlaneKind) -> Option<Lease> {
        let Self { planes: Planes::DmaBuf(DmaBufPlanes { pool, .. }), pins, .. } = self else {
            return None;
        };
        let buffer = Arc::clone(&pool.get(key)?.dma_buf);
        let (at, user, pinned) = match kind {
            PlaneKind::Primary => (0, User::Scanout, pins.scanout),
            PlaneKind::Cursor => (1, User::Cursor, pins.cursor),
        };
        if pinned != Some(key) && pins.reported[at] != Some(key) {
            pool.pin(key, user);
            if let Some(before) = pins.reported[at].replace(key) {
                pool.unpin(before, user);
            }
        }
        Some(Lease { key, plane: *plane, buffer })
    }

    /// Closes what the pool retired, and notes it.
    fn retire(&mut self) {
        let Planes::DmaBuf(DmaBufPlanes { pool, .. }) = &mut self.planes else { return };
        // What was just unpinned may exceed the limits.
        pool.evict(None);
        self.notes.retired.extend(pool.take_retired().into_iter().map(|(key, _)| key));
        if let Some(violation) = pool.take_violation() {
            self.notes.say(Severity::Error, &violation);
        }
    }

    fn with_edid(&mut self, act: impl FnOnce(&mut Edid, &mut EdidHost<'_, D>)) {
        let Self { edid: Some(edid), device, notes, clock, .. } = self else { return };
        let now = clock.now();
        act(edid, &mut EdidHost { device, now, notes });
    }

    fn complain(&mut self, problem: &Problem, severity: Severity) {
        for remark in Self::complaint(problem.to_string(), problem, severity) {
            self.notes.add(remark);
        }
    }

    /// Returns what to log and count of a problem.
    fn complaint(topic: String, problem: &Problem, severity: Severity) -> [Remark; 2] {
        let severity = if problem.is_known() { Severity::Trace } else { severity };
        let text = problem.to_string();
        [Remark::Count(problem.category()), Remark::Say { severity, topic, text }]
    }

    fn trace(&mut self, what: fmt::Arguments<'_>) {
        let what = format!("{}: {what}", self.device.name());
        self.notes.trace(&what);
    }
}

impl<D: Device, T: Clock> Drop for Watcher<D, T> {
    fn drop(&mut self) {
        self.close();
    }
}
