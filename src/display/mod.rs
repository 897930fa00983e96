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
mod looks;
mod options;
mod pacing;
mod problem;
mod region;
mod report;
mod screen;
mod share;
mod surface;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::clock::{Alarm, Clock};
use crate::console::{Console, Monitor, Severity};
use crate::damage::{Look, Picture, Snapshot};
use crate::device::{Device, Failure};
use crate::format::Conversion;
use crate::plane::{Geometry, Plane, PlaneInfo, PlaneKind};
use crate::pool::{Key, User};
use crate::room::NoRoom;
use crate::shared_objects::{Owner, SharedObjects};

use cursor::Cursor;
use dmabuf::DmaBufPlanes;
use durations::Durations;
use edid::{Edid, EdidHost};
use events::Events;
use pacing::Pacer;
use problem::Problem;
use region::RegionPlane;
use report::Reporter;
use screen::{DISPLAY_IS_OFF, MESSAGE_SIZE, Screen};

pub use edid::EdidError;
pub use options::{Config, OptionError};
pub use share::ShareError;

/// Where this much time went by since the last refresh, waiting for another would take too long: all is looked at.
const SOON: Duration = Duration::from_millis(50);

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
    /// How long everything must move before front ends are shown the region's memory itself: see [`direct::Direct::hesitation`].
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
            Mode::DmaBuf => Planes::DmaBuf(DmaBufPlanes::new(config.pool, device.gives_once())),
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
        let mut picture = match Picture::new(geometry.width, geometry.height) {
            Ok(picture) => picture,
            Err(NoRoom(bytes)) => {
                let Geometry { width, height, .. } = geometry;
                self.complain(&Problem::NoSurface { width, height, bytes }, Severity::Warning);
                return None;
            }
        };
        let _reading = memory.begin_reading();
        Snapshot::default().update(memory, &geometry, conversion, &mut picture, Look::Copy).ok()?;
        Some(picture)
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
