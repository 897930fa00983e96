//! The engine: one refresh walks from the device's plane to the console.
//!
//! | the device says         | the console shows                                                     |
//! |-------------------------|-----------------------------------------------------------------------|
//! | a plane                 | it: as a scanout where a front end takes the dma-buf, else as a surface |
//! |                         | or, while everything in a region moves, as that memory itself         |
//! | no plane now            | the firmware's framebuffer if there is one, else that the display is off |
//! | an error, or nonsense   | for a few refreshes what it showed, then what is wrong                  |
//! | that it has no planes   | [`probe`] said so, and there is no display                              |

#![forbid(unsafe_code)]

mod cursor;
mod describe;
mod direct;
mod dmabuf;
mod durations;
mod edid;
mod events;
mod options;
mod pacing;
mod problem;
mod region;
mod report;
mod share;
mod surface;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Alarm, Clock};
use crate::console::{Console, Monitor, Severity, Uptake};
use crate::damage::{Look, Picture, Rect, Snapshot};
use crate::device::{Device, Failure};
use crate::format::Conversion;
use crate::plane::{Geometry, Plane, PlaneInfo, PlaneKind};
use crate::pool::{Buffer, Key, User};
use crate::shared_objects::{Owner, SharedObjects};

use cursor::Cursor;
use direct::Direct;
use dmabuf::DmaBufPlanes;
use durations::Durations;
use edid::{Edid, EdidHost};
use events::Events;
use pacing::Pacer;
use problem::Problem;
use region::RegionPlane;
use report::Reporter;
use surface::Surface;

pub use edid::EdidError;
pub use options::{Config, OptionError};
pub use share::ShareError;

/// So many refreshes in a row may fail before the picture goes: a mode set takes a moment.
const PATIENCE: u32 = 3;

/// A device that is gone or silent is left alone for this long.
const RESPITE: Duration = Duration::from_secs(1);

/// Where this much time went by since the last refresh, waiting for another would take too long: all is looked at.
const SOON: Duration = Duration::from_millis(50);

/// What a look found is not asked for once more in a refresh that comes so soon: no guest flips as fast.
const FRESH: Duration = Duration::from_millis(1);

/// The smallest size of messages, in pixels.
const MESSAGE_SIZE: (u32, u32) = (640, 480);

/// Nor are they larger than this: a few words need no gigabyte because the picture before them did.
const MESSAGE_LIMIT: u32 = 4096;

const DISPLAY_IS_OFF: &str = "The display is off.";

/// How a device gives its planes. It is a fixed property of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As dma-bufs.
    DmaBuf,
    /// In a region of its own.
    Region,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DmaBuf => "dma-buf",
            Self::Region => "region",
        })
    }
}

/// Finds out how the device gives its planes. `Ok(None)`: it has none.
///
/// Fails if the device does not answer the question at all.
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

/// What a display did so far.
#[derive(Clone, Debug, Default)]
struct Counters {
    refreshes: u64,
    queries: u64,
    gets: u64,
    races: u64,
    imports: u64,
    maps: u64,
    /// Frames for which front ends were shown the region's memory itself.
    direct: u64,
    flips: u64,
    /// Looks beside the front ends' refreshes.
    looks: u64,
    durations: Durations,
    errors: BTreeMap<&'static str, u64>,
}

/// Asks the device once what a plane shows; `flag` says how it gives it.
fn ask(
    device: &impl Device,
    flag: u32,
    kind: PlaneKind,
    counters: &mut Counters,
) -> io::Result<PlaneInfo> {
    let mut info = PlaneInfo::request(flag, kind);
    counters.queries += 1;
    device.query_plane(&mut info).map(|()| info)
}

/// As [`ask`], and at once a second time if the first may have come too early.
fn query(
    device: &impl Device,
    flag: u32,
    kind: PlaneKind,
    counters: &mut Counters,
) -> Result<PlaneInfo, Problem> {
    match ask(device, flag, kind, counters) {
        // mbochs says ENOMEM to the first query of every mode. Who takes one look only, as screendump does, must see the picture
        // too.
        Err(error) if Failure::of(&error) == Failure::Transient => {
            ask(device, flag, kind, counters)
        }
        outcome => outcome,
    }
    .map_err(|error| Problem::Query { kind, error })
}

#[expect(clippy::large_enum_variant, reason = "there is one per display")]
enum Planes<H> {
    DmaBuf(DmaBufPlanes<H>),
    Region(RegionPlane),
}

/// What the console shows.
enum Screen<C: Console> {
    /// What it showed before we came.
    Untouched,
    Firmware,
    Message(&'static str),
    /// A dma-buf, which a front end imported.
    Scanout(Key),
    /// A surface that we draw; of a dma-buf, or of a region.
    Surface(Surface<C>, Option<Key>),
    /// The memory of a region itself.
    Memory(Direct),
}

impl<C: Console> Screen<C> {
    fn buffer(&self) -> Option<Key> {
        match self {
            Self::Scanout(key) => Some(*key),
            Self::Surface(_, key) => *key,
            _ => None,
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Untouched => "nothing",
            Self::Firmware => "firmware",
            Self::Message(_) => "message",
            Self::Scanout(_) => "scanout",
            Self::Surface(..) => "surface",
            Self::Memory(_) => "memory",
        }
    }
}

/// The display of one device.
pub struct Display<D: Device, C: Console, T: Clock> {
    device: D,
    console: C,
    clock: T,
    config: Config,
    planes: Planes<C::Import>,
    plane: Option<Plane>,
    /// Size of the last picture. Messages have it too, so that windows keep theirs while a guest blanks its screen.
    size: (u32, u32),
    screen: Screen<C>,
    cursor: Cursor,
    edid: Option<Edid>,
    /// What a front end was given and has not released yet.
    lent: Option<Key>,
    /// Whether nothing is shown until it is released.
    waiting: bool,
    redraw: bool,
    /// How long everything must move before front ends are shown the region's memory itself: see [`Direct::hesitation`].
    hesitation: u32,
    /// Whether the next picture must be what the device shows then, in every row.
    exact: bool,
    /// When the last refresh began.
    refreshed: Duration,
    failing: u32,
    /// What the last problem was about, and how it was said when it began.
    trouble: (String, String),
    resume: Duration,
    counters: Counters,
    reporter: Reporter,
    sharing: Option<Owner<'static>>,
    /// When to look beside the front ends' refreshes; `None`: never, or when the device says so.
    pacer: Option<Pacer>,
    /// When the alarm for that goes off.
    look_at: Option<Duration>,
    /// What a look has just found, and when, for the refresh that it asked for.
    found: Option<(PlaneInfo, Duration)>,
    /// When to listen to a device that says when something changed; `None`: it does not.
    events: Option<Events>,
}

impl<D: Device, C: Console, T: Clock> Display<D, C, T> {
    /// A display for a device that [`probe`] found to be in this mode.
    ///
    /// An EDID region that does not work costs the guest its choice of resolutions, not the user the picture:
    /// it is reported, and [`Display::has_edid`] is `false`.
    pub fn new(device: D, console: C, clock: T, mode: Mode, config: Config) -> Self {
        let mut reporter = Reporter::new(device.name());
        let edid = Edid::open(&device, config.xres, config.yres).unwrap_or_else(|error| {
            reporter.say(&console, clock.now(), Severity::Warning, &error);
            None
        });
        let planes = match mode {
            Mode::DmaBuf => Planes::DmaBuf(DmaBufPlanes::new(config.pool)),
            Mode::Region => Planes::Region(RegionPlane::default()),
        };
        let sharing = config.share.then(|| SharedObjects::global().owner(device.name()));
        let mut display = Self {
            device,
            console,
            clock,
            config,
            planes,
            plane: None,
            size: MESSAGE_SIZE,
            screen: Screen::Untouched,
            cursor: Cursor::default(),
            edid,
            lent: None,
            waiting: false,
            redraw: false,
            hesitation: 0,
            exact: false,
            refreshed: Duration::ZERO,
            failing: 0,
            trouble: Default::default(),
            resume: Duration::ZERO,
            counters: Counters::default(),
            reporter,
            sharing,
            // A region's plane does not change when the guest flips.
            pacer: (config.pacing && mode == Mode::DmaBuf).then(Pacer::default),
            look_at: None,
            found: None,
            events: None,
        };
        display.trace(format_args!("{mode} mode, EDID {}", display.has_edid()));
        if config.events {
            display.ask_for_events();
        }
        display.with_edid(|edid, host| edid.set_monitor(edid.default_monitor(), host));
        display
    }

    /// Has the device say when something changed, if it can.
    fn ask_for_events(&mut self) {
        let Self { device, clock, .. } = self;
        let asked =
            clock.event(Alarm::Change).and_then(|event| device.signal_changes(Some(event.as_fd())));
        match asked {
            Ok(()) => {
                self.pacer = None;
                self.events = Some(Events::default());
                self.trace(format_args!("the device says when something changed"));
            }
            Err(error) => {
                self.clock.clear_alarm(Alarm::Change);
                let severity = match Failure::of(&error) {
                    Failure::Unsupported => Severity::Trace,
                    _ => Severity::Warning,
                };
                let what = format!("the device cannot say when something changed: {error}");
                self.reporter.say(&self.console, self.clock.now(), severity, &what);
            }
        }
    }

    /// Whether the guest can be told about its monitor.
    pub fn has_edid(&self) -> bool {
        self.edid.is_some()
    }

    /// Looks at the device, and shows what it shows now.
    ///
    /// `periodic`: another refresh follows soon, so that a thin line may be seen only then. False for who looks once, for instance to
    /// take a screenshot.
    pub fn refresh(&mut self, periodic: bool) {
        self.counters.refreshes += 1;
        let began = self.clock.now();
        self.exact |= !periodic || began.saturating_sub(self.refreshed) > SOON;
        self.refreshed = began;
        if !periodic {
            self.found = None;
        }
        if !self.rests(began) {
            self.show_what_is_there(began);
        }
        let now = self.clock.now();
        let took = now.saturating_sub(began);
        self.counters.durations.record(took);
        if let Some(pacer) = &mut self.pacer {
            pacer.refreshed(now, took);
        }
        if let Some(events) = &mut self.events {
            events.refreshed(now, took);
        }
        self.plan_look(now);
    }

    /// Whether the device is left alone. A front end that has not released what it was given must not be given more.
    fn rests(&self, now: Duration) -> bool {
        self.waiting || now < self.resume
    }

    fn show_what_is_there(&mut self, now: Duration) {
        let outcome = match self.planes {
            Planes::DmaBuf(_) => self.refresh_dmabuf(now),
            Planes::Region(_) => self.refresh_region(),
        };
        match outcome {
            Ok(true) => {
                self.failing = 0;
                self.exact = false;
                let again = std::mem::take(&mut self.redraw);
                self.refresh_cursor(again);
            }
            Ok(false) => {
                self.failing = 0;
                self.show_no_plane();
            }
            Err(problem) => self.show_problem(&problem),
        }
        self.release_retired();
    }

    /// A front end wants to see all again.
    pub fn invalidate(&mut self) {
        self.redraw = true;
    }

    /// A front end shows the console in a window like this.
    pub fn set_monitor(&mut self, monitor: Monitor) {
        self.with_edid(|edid, host| edid.set_monitor(monitor, host));
    }

    /// A front end took the scanout and has not released it yet, or now has.
    pub fn block(&mut self, block: bool) {
        let now = self.clock.now();
        if let Planes::DmaBuf(planes) = &mut self.planes {
            let released = self.lent.take();
            if let Some(key) = released {
                planes.pool.unpin(key, User::FrontEnd);
                self.waiting = false;
            }
            if let (true, Screen::Scanout(key)) = (block, &self.screen) {
                planes.pool.pin(*key, User::FrontEnd);
                self.lent = Some(*key);
                self.waiting = true;
            }
            if released.is_some() {
                if let Some(pacer) = &mut self.pacer {
                    pacer.released(now);
                }
                self.release_retired();
            }
        }
        self.plan_look(now);
    }

    /// The device is about to be reset: nothing that it told holds any more.
    pub fn reset(&mut self) {
        self.trace(format_args!("reset"));
        if !self.device.keeps_ids() {
            self.invalidate_planes();
        }
        // The front end is shown something else in place of what it was given.
        self.waiting = false;
        self.found = None;
        self.cursor.forget();
        self.resume = Duration::ZERO;
        self.failing = 0;
        if !matches!(self.screen, Screen::Untouched) {
            self.show_message(DISPLAY_IS_OFF);
        }
        self.plane = None;
        self.release_retired();
    }

    /// Shows nothing of the device any more, and holds nothing of it. Dropping a display does the same.
    pub fn close(&mut self) {
        self.clock.clear_alarm(Alarm::Edid);
        self.pacer = None;
        self.clock.clear_alarm(Alarm::Look);
        if self.events.take().is_some() {
            self.clock.clear_alarm(Alarm::Change);
            // Asking a device that does not answer takes long.
            if self.clock.now() >= self.resume {
                // One that fails has gone, or goes now.
                let _ = self.device.signal_changes(None);
            }
        }
        self.block(false);
        self.hide_cursor();
        if matches!(self.screen, Screen::Scanout(_) | Screen::Memory(_)) {
            // Imports are released only when they are not shown any more, and front ends let go of memory only then.
            self.show_message(DISPLAY_IS_OFF);
        }
        self.set_screen(Screen::Untouched);
        self.invalidate_planes();
        self.release_retired();
    }

    /// An alarm that was set goes off.
    pub fn alarm(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Edid => self.with_edid(Edid::alarm),
            Alarm::Look => self.peek(),
            Alarm::Change => self.hear(),
        }
    }

    /// A copy of the scanout, for those who cannot import it. `None` if no scanout is shown, or if it cannot be
    /// read without a GPU.
    pub fn capture(&mut self) -> Option<Picture> {
        let (Screen::Scanout(key), Planes::DmaBuf(planes)) = (&self.screen, &mut self.planes)
        else {
            return None;
        };
        let buffer = planes.pool.get_mut(*key)?;
        let geometry = buffer.geometry;
        let conversion = Conversion::to_xrgb8888(geometry.format)?;
        let memory = buffer.memory().ok()?;
        let mut picture = Picture::new(geometry.width, geometry.height);
        let _reading = memory.begin_reading();
        Snapshot::default().update(memory, &geometry, conversion, &mut picture, Look::Copy).ok()?;
        Some(picture)
    }

    /// Looks whether the guest flipped, and if so, has the front ends refresh.
    fn peek(&mut self) {
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
    fn hear(&mut self) {
        if let Some(events) = &mut self.events {
            if events.hear(self.clock.now()) {
                self.request_refresh();
            }
        }
        self.plan_look(self.clock.now());
    }

    /// Something changed: has the front ends refresh, and see all of it.
    fn request_refresh(&mut self) {
        self.exact = true;
        self.console.request_refresh();
    }

    /// How closely a surface is compared with what it shows.
    fn look(&self) -> Look {
        if self.redraw || !self.config.compare {
            Look::Copy
        } else if self.exact || !self.config.glance {
            Look::Compare
        } else {
            Look::Glance
        }
    }

    fn plan_look(&mut self, now: Duration) {
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

    fn refresh_dmabuf(&mut self, now: Duration) -> Result<bool, Problem> {
        let Planes::DmaBuf(planes) = &mut self.planes else { return Ok(false) };
        let fresh = self.found.as_ref().filter(|(_, at)| now.saturating_sub(*at) <= FRESH);
        let told = fresh.map(|(info, _)| info);
        let shown = planes.look(&self.device, PlaneKind::Primary, told, &mut self.counters)?;
        // What the pacer was told is no second look.
        let asked = told.is_none() || planes.primary() != told;
        if let Some(pacer) = self.pacer.as_mut().filter(|_| asked) {
            pacer.look(self.clock.now(), planes.primary());
        }
        let Some((key, plane)) = shown else { return Ok(false) };
        self.note_plane(plane);
        self.show_buffer(key, &plane)?;
        Ok(true)
    }

    fn show_buffer(&mut self, key: Key, plane: &Plane) -> Result<(), Problem> {
        let Planes::DmaBuf(DmaBufPlanes { pool, .. }) = &mut self.planes else { return Ok(()) };
        let Some(buffer) = pool.get_mut(key) else { return Ok(()) };
        let uptake = if self.config.import {
            let Buffer { dma_buf, geometry, host, .. } = buffer;
            self.console.uptake(dma_buf.as_fd(), geometry, host.as_ref())
        } else {
            Uptake::None
        };
        match uptake {
            Uptake::Import => self.show_scanout(key, plane),
            Uptake::ReadBack if self.config.read_back || !self.is_fast_to_read(key, plane) => {
                self.show_scanout(key, plane);
            }
            Uptake::ReadBack | Uptake::None => return self.show_snapshot(key, plane),
        }
        Ok(())
    }

    fn is_fast_to_read(&mut self, key: Key, plane: &Plane) -> bool {
        let Planes::DmaBuf(planes) = &mut self.planes else { return false };
        Conversion::to_xrgb8888(plane.geometry.format).is_some()
            && planes.is_fast_to_read(key, &plane.geometry, &self.clock)
    }

    fn show_scanout(&mut self, key: Key, plane: &Plane) {
        let geometry = plane.geometry;
        let is_scanout = matches!(self.screen, Screen::Scanout(_));
        if self.screen.buffer() != Some(key) || self.redraw || !is_scanout {
            if !is_scanout {
                self.hide_cursor();
            }
            self.import(key);
            self.console_scanout(key);
            self.set_screen(Screen::Scanout(key));
            self.trace(format_args!("scanout of id {}: {geometry}", plane.handle));
        } else if geometry.format.is_yuv() {
            // Front ends show a copy in RGB, which they make when it is scanned out.
            self.console_scanout(key);
        }
        self.console.update_scanout(Rect::full(geometry.width, geometry.height));
    }

    fn console_scanout(&self, key: Key) {
        let Planes::DmaBuf(DmaBufPlanes { pool, .. }) = &self.planes else { return };
        if let Some(import) = pool.get(key).and_then(|buffer| buffer.host.as_ref()) {
            self.console.scanout(import);
        }
    }

    fn show_snapshot(&mut self, key: Key, plane: &Plane) -> Result<(), Problem> {
        let Planes::DmaBuf(DmaBufPlanes { pool, .. }) = &mut self.planes else { return Ok(()) };
        let Some(buffer) = pool.get_mut(key) else { return Ok(()) };
        let geometry = plane.geometry;
        let (what, handle, format) = ("dma-buf with id", plane.handle, geometry.format);
        let conversion = Conversion::to_xrgb8888(format)
            .ok_or(Problem::NoConversion { format, with_gl: true })?;
        let memory = buffer.memory().map_err(|error| Problem::Map { what, handle, error })?;
        let fits = matches!(&self.screen, Screen::Surface(s, _) if s.has_size_of(&geometry));
        if !fits {
            surface::try_reading(&geometry, memory).map_err(|error| Problem::Read {
                what,
                handle,
                error,
            })?;
            self.show_surface(&geometry, Some(key))?;
        } else if self.screen.buffer() != Some(key) {
            self.exact = true;
            self.repin(Some(key));
        }
        let look = self.look();
        let Self {
            screen: Screen::Surface(surface, shown), planes: Planes::DmaBuf(planes), ..
        } = self
        else {
            return Ok(());
        };
        *shown = Some(key);
        let Some(Ok(memory)) = planes.pool.get_mut(key).map(Buffer::memory) else { return Ok(()) };
        let _reading = memory.begin_reading();
        surface
            .update(&self.console, &geometry, conversion, memory, look)
            .map_err(|error| Problem::Read { what, handle, error })
    }

    fn refresh_region(&mut self) -> Result<bool, Problem> {
        let Planes::Region(region) = &mut self.planes else { return Ok(false) };
        let Some((plane, conversion, moved)) = region.look(&self.device, &mut self.counters)?
        else {
            return Ok(false);
        };
        let geometry = plane.geometry;
        let unreadable = |region: &mut RegionPlane, error| {
            region.invalidate();
            Problem::Read { what: "graphics region", handle: plane.handle, error }
        };
        if self.show_memory(&plane, conversion) {
            return Ok(true);
        }
        let Planes::Region(region) = &mut self.planes else { return Ok(false) };
        let fits = matches!(&self.screen, Screen::Surface(s, _) if s.has_size_of(&geometry));
        if !fits {
            let Some(source) = region.source(&self.device) else { return Ok(false) };
            surface::try_reading(&geometry, &source).map_err(|error| unreadable(region, error))?;
        }
        self.note_plane(plane);
        if !fits {
            self.show_surface(&geometry, None)?;
        }
        if moved {
            self.trace(format_args!("region {}: {geometry}", plane.handle));
        }
        let look = self.look();
        let Self { screen: Screen::Surface(surface, _), planes: Planes::Region(region), .. } = self
        else {
            return Ok(false);
        };
        let Some(source) = region.source(&self.device) else { return Ok(false) };
        if moved && source.is_slow() {
            let slow = format!(
                "graphics region {} cannot be mapped: it is read piece by piece, slowly",
                plane.handle
            );
            self.reporter.say(&self.console, self.clock.now(), Severity::Warning, &slow);
        }
        surface
            .update(&self.console, &geometry, conversion, &source, look)
            .map_err(|error| unreadable(region, error))?;
        Ok(true)
    }

    /// Shows the region's memory itself, or goes on with it, where that is better than a snapshot.
    fn show_memory(&mut self, plane: &Plane, conversion: Conversion) -> bool {
        let Planes::Region(region) = &self.planes else { return false };
        let geometry = plane.geometry;
        match &mut self.screen {
            Screen::Memory(direct) if direct.shows(region.memory()) => {
                // What cannot be read is no reason to hesitate, and the snapshot will say so.
                let Ok(tell) = direct.look() else { return false };
                if direct.is_calm() {
                    self.hesitation = direct.hesitation(self.hesitation);
                    return false;
                }
                self.counters.direct += 1;
                if !(tell || self.exact || self.redraw) {
                    return true;
                }
                direct.tell();
            }
            Screen::Surface(surface, _)
                if self.config.direct
                    && conversion.is_identity()
                    && surface.has_size_of(&geometry)
                    && surface.is_useless(self.hesitation) =>
            {
                let memory =
                    region.memory().filter(|memory| Direct::is_possible(memory, &geometry));
                let Some(Ok(direct)) =
                    memory.map(|memory| Direct::new(Arc::clone(memory), geometry))
                else {
                    return false;
                };
                if !self.console.show_memory(direct.picture().0, &geometry) {
                    return false;
                }
                self.counters.direct += 1;
                self.set_screen(Screen::Memory(direct));
                self.trace(format_args!("memory of region {}: {geometry}", plane.handle));
            }
            _ => return false,
        }
        self.note_plane(*plane);
        self.console.update_surface(Rect::full(geometry.width, geometry.height));
        true
    }

    /// Nobody knows whether the memory that is shown still is the picture: shows what it holds now, as a surface. `false` if there is no
    /// room for it.
    fn freeze(&mut self) -> bool {
        let Screen::Memory(direct) = &self.screen else { return true };
        let (memory, geometry) = direct.picture();
        let memory = Arc::clone(memory);
        let Some(conversion) = Conversion::to_xrgb8888(geometry.format) else { return false };
        if self.show_surface(&geometry, None).is_err() {
            return false;
        }
        let Screen::Surface(surface, _) = &mut self.screen else { return false };
        surface.update(&self.console, &geometry, conversion, &*memory, Look::Copy).is_ok()
    }

    fn show_no_plane(&mut self) {
        self.hide_cursor();
        self.plane = None;
        let switch_to = !matches!(self.screen, Screen::Firmware);
        if self.console.show_firmware(switch_to) {
            if switch_to {
                self.set_screen(Screen::Firmware);
                self.trace(format_args!("firmware"));
            }
        } else if !matches!(self.screen, Screen::Untouched) {
            self.show_message(DISPLAY_IS_OFF);
        }
    }

    fn show_problem(&mut self, problem: &Problem) {
        self.failing += 1;
        let lasting = !problem.is_passing() || self.failing > PATIENCE;
        let failure = problem.failure();
        if matches!(failure, Some(Failure::Gone | Failure::Silent)) {
            self.resume = self.clock.now() + RESPITE;
        }
        let topic = problem.topic();
        if self.failing == 1 || self.trouble.0 != topic {
            self.trouble = (topic, problem.to_string());
        }
        if lasting || problem.is_worth_saying() {
            let text = self.trouble.1.clone();
            self.complain_as(&text, problem, Severity::Error);
        } else {
            self.count(problem);
        }
        if lasting || failure == Some(Failure::Silent) || !self.freeze() {
            self.hide_cursor();
            self.plane = None;
            self.show_message(problem.headline());
        }
        if failure == Some(Failure::Gone) {
            self.invalidate_planes();
        }
    }

    /// Puts a new surface on the console, to be drawn.
    fn show_surface(&mut self, geometry: &Geometry, key: Option<Key>) -> Result<(), Problem> {
        self.hide_cursor();
        let Geometry { width, height, .. } = *geometry;
        let Some(surface) = Surface::new(&self.console, width, height) else {
            // Nor would there be room for a message of this size.
            self.size = MESSAGE_SIZE;
            return Err(Problem::NoSurface { width, height });
        };
        self.set_screen(Screen::Surface(surface, key));
        Ok(())
    }

    fn show_message(&mut self, text: &'static str) {
        if matches!(self.screen, Screen::Message(shown) if shown == text) && !self.redraw {
            return;
        }
        self.hide_cursor();
        self.redraw = false;
        let width = self.size.0.clamp(MESSAGE_SIZE.0, MESSAGE_LIMIT);
        let height = self.size.1.clamp(MESSAGE_SIZE.1, MESSAGE_LIMIT);
        self.console.show_message(width, height, text);
        self.set_screen(Screen::Message(text));
        self.trace(format_args!("message: {text}"));
    }

    /// Remembers what the device shows, and notices mode sets.
    fn note_plane(&mut self, plane: Plane) {
        let mode = |plane: &Plane| (plane.geometry.width, plane.geometry.height);
        if self.plane.as_ref().map(mode) != Some(mode(&plane)) {
            self.cursor.forget();
        }
        self.plane = Some(plane);
        self.size = (plane.geometry.width, plane.geometry.height);
    }

    fn set_screen(&mut self, screen: Screen<C>) {
        self.repin(screen.buffer());
        self.screen = screen;
    }

    /// The screen now shows this buffer.
    fn repin(&mut self, new: Option<Key>) {
        let old = self.screen.buffer();
        if old.is_some() && new.is_some() && old != new {
            self.counters.flips += 1;
        }
        self.move_pin(old, new, User::Scanout);
    }

    fn move_pin(&mut self, old: Option<Key>, new: Option<Key>, user: User) {
        let Planes::DmaBuf(DmaBufPlanes { pool, .. }) = &mut self.planes else { return };
        if old == new {
            return;
        }
        if let Some(new) = new {
            pool.pin(new, user);
        }
        if let Some(old) = old {
            pool.unpin(old, user);
        }
    }

    fn import(&mut self, key: Key) {
        let Planes::DmaBuf(DmaBufPlanes { pool, .. }) = &mut self.planes else { return };
        let Some(buffer) = pool.get_mut(key) else { return };
        if buffer.host.is_none() {
            self.counters.imports += 1;
            buffer.host = Some(self.console.import(buffer.dma_buf.as_fd(), &buffer.geometry));
        }
    }

    fn invalidate_planes(&mut self) {
        match &mut self.planes {
            Planes::DmaBuf(planes) => planes.invalidate(),
            Planes::Region(plane) => plane.invalidate(),
        }
    }

    fn release_retired(&mut self) {
        let Planes::DmaBuf(DmaBufPlanes { pool, .. }) = &mut self.planes else { return };
        // What is not shown any more may have been one too many.
        pool.evict(None);
        for buffer in pool.take_retired() {
            if let Some(import) = buffer.host {
                self.console.release(import);
            }
        }
        if let Some(violation) = pool.take_violation() {
            let now = self.clock.now();
            self.reporter.say(&self.console, now, Severity::Error, &violation);
        }
    }

    fn with_edid(&mut self, act: impl FnOnce(&mut Edid, &mut EdidHost<'_, D, C, T>)) {
        let Self { edid: Some(edid), device, console, clock, reporter, .. } = self else { return };
        act(edid, &mut EdidHost { device, console, clock, reporter });
    }

    fn complain(&mut self, problem: &Problem, severity: Severity) {
        self.complain_as(&problem.to_string(), problem, severity);
    }

    /// As [`Display::complain`], unless this text was said just now.
    fn complain_as(&mut self, text: &str, problem: &Problem, severity: Severity) {
        self.count(problem);
        let severity = if problem.is_known() { Severity::Trace } else { severity };
        self.reporter.say_of(text, &self.console, self.clock.now(), severity, problem);
    }

    fn count(&mut self, problem: &Problem) {
        *self.counters.errors.entry(problem.category()).or_default() += 1;
    }

    fn trace(&self, what: fmt::Arguments<'_>) {
        self.console.log(Severity::Trace, format_args!("{}: {what}", self.device.name()));
    }
}

impl<D: Device, C: Console, T: Clock> Drop for Display<D, C, T> {
    fn drop(&mut self) {
        self.close();
    }
}
