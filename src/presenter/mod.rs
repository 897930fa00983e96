//! The console's half of a display: what it shows, and what the user is told.
//!
//! A presenter lives on the host's main loop. It never waits, never calls the device, and never closes or unmaps what the device gave: that goes
//! back to the watcher. Of pixels it only copies what changed into the console's surface.

#![forbid(unsafe_code)]

mod cursor;
mod one_shots;
mod report;
mod screen;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Config;
use crate::console::{Console, Monitor, ScanoutSupport, Severity};
use crate::damage::Picture;
use crate::exchange::{
    Block, Lease, Notes, Remark, Report, Returned, Shown, Verdict, View, Wishes,
};
use crate::memory::DmaBuf;
use crate::plane::{Geometry, Plane};
use crate::pool::Key;

use cursor::Pointer;
use one_shots::OneShots;
use report::Reporter;
use screen::{DISPLAY_IS_OFF, MESSAGE_SIZE};

#[cfg(test)]
pub(crate) use report::Reporter as TestedReporter;
pub(crate) use screen::Screen;

/// While a guest sets a mode, its plane is off. For no longer than this the last picture is shown meanwhile.
const GAP: Duration = Duration::from_millis(300);

/// What a presenter did so far.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Dma-bufs imported.
    pub imports: u64,
    /// Frames for which front ends were shown the region's memory itself.
    pub direct: u64,
    /// Buffers shown one after the other.
    pub flips: u64,
    /// What went wrong, by its kind.
    pub errors: BTreeMap<&'static str, u64>,
}

/// A dma-buf of the watcher's, until it says that the pool has let go of it.
struct Held<I> {
    buffer: Arc<DmaBuf>,
    geometry: Geometry,
    import: Option<I>,
}

/// The presenter of one device.
pub struct Presenter<C: Console> {
    console: C,
    name: String,
    imports: bool,
    screen: Screen<C>,
    standing: Standing,
    plane_state: PlaneState,
    pointer: Option<Pointer>,
    /// Size of the last picture, or of what is expected of the first. Messages have it too, so that windows keep theirs while a guest
    /// blanks its screen.
    size: (u32, u32),
    held: HashMap<Key, Held<C::Import>>,
    captured: Option<(Key, Picture)>,
    counters: Counters,
    reporter: Reporter,
    wishes: Wishes,
    one_shots: OneShots,
}

impl<C: Console> Presenter<C> {
    /// A presenter that has shown nothing yet, of a device with this name, whose guest prefers this size.
    pub fn new(console: C, name: &str, preferred: Option<(u32, u32)>, config: &Config) -> Self {
        Self {
            console,
            name: name.to_owned(),
            imports: config.import,
            screen: Screen::Untouched,
            standing: Standing::Current,
            plane_state: PlaneState::Unknown,
            pointer: None,
            size: preferred.unwrap_or(MESSAGE_SIZE),
            held: HashMap::new(),
            captured: None,
            counters: Counters::default(),
            reporter: Reporter::new(name),
            wishes: Wishes::default(),
            one_shots: OneShots::default(),
        }
    }

    /// What is wanted of the watcher now.
    pub fn wishes(&mut self) -> &mut Wishes {
        let wishes = &mut self.wishes;
        wishes.one_shot = self.one_shots.wanted();
        wishes.redraw = self.standing == Standing::Invalidated;
        wishes.shown = match self.standing {
            // What is shown now is not what the next report will meet.
            Standing::Reset => Shown::Other,
            _ => self.screen.shown(),
        };
        wishes.pointer = self.pointer.as_ref().map(|pointer| pointer.key);
        wishes
    }

    /// Shows what the watcher found. Returns whether the watcher is to look again, as the wishes then say. `once`: it was found for somebody
    /// who looks once, beside those of whom the report tells.
    pub fn apply(&mut self, report: Report, now: Duration, once: bool) -> bool {
        self.wishes.verdict = Verdict::Settled;
        if report.epoch != self.wishes.epoch {
            self.wishes.returned.push(Returned::Report(Box::new(report)));
            return false;
        }
        let Report { one_shot, redrawn, view, cursor, captured, .. } = report;
        let showing = match view {
            View::Same => Showing::Not(Verdict::Settled),
            View::Off => {
                if once || self.one_shots.awaits(one_shot) {
                    self.show_no_plane();
                } else {
                    self.miss_plane(now);
                }
                Showing::Not(Verdict::Settled)
            }
            View::Undecided(lease) => {
                self.ask_support(&lease);
                Showing::Not(Verdict::Again)
            }
            View::Buffer(..) if self.refuses(&cursor) => Showing::Not(Verdict::Again),
            View::Buffer(lease, support) => self.show_buffer(&lease, support),
            View::Picture(drawn) => self.show_drawn(&drawn, now),
            View::Memory { plane, memory, changed } => self.show_memory(plane, &memory, changed),
            View::Error { remarks, unread, message, frozen } => {
                if unread.is_none_or(|(lease, assumed)| self.ask_support(&lease) == assumed) {
                    self.say(remarks, now);
                    self.show_error(message, frozen);
                    Showing::Not(Verdict::Settled)
                } else {
                    Showing::Not(Verdict::Again)
                }
            }
        };
        match showing {
            Showing::Not(verdict) => self.wishes.verdict = verdict,
            Showing::Done => {
                let all = redrawn && self.standing == Standing::Invalidated;
                if all {
                    self.drawn_anew();
                }
                self.show_cursor(cursor, all);
            }
        }
        let again = self.wishes.verdict != Verdict::Settled;
        // They stay for who asked until somebody else is answered.
        if !again && self.one_shots.answer(one_shot) {
            self.captured = captured;
        }
        again
    }

    /// There is no report: what has to be shown again and again is.
    pub fn repeat(&mut self, now: Duration) {
        if let Some(key) = self.screen.shown().key() {
            // Front ends come and go.
            self.ask_support_of(key);
        }
        match (&self.screen, self.plane_state) {
            (_, PlaneState::Gap(..)) => self.miss_plane(now),
            (Screen::Scanout(_), _) => self.update_scanout(),
            (_, PlaneState::Off) => self.show_no_plane(),
            _ => (),
        }
    }

    /// Somebody looks once.
    pub fn want_one_shot(&mut self, now: Duration) {
        self.one_shots.want(now);
    }

    /// Since when somebody has waited for a single look.
    pub fn waits_since(&self) -> Option<Duration> {
        self.one_shots.waits_since()
    }

    /// Whether those who have waited for single looks are to be told, by [`Presenter::refresh_done`].
    pub fn has_answer(&mut self) -> bool {
        self.one_shots.take_answer()
    }

    /// Nobody waits for a single look any longer.
    pub fn give_up(&mut self) {
        if self.one_shots.give_up() {
            self.captured = None;
        }
    }

    /// Who waited has what there is.
    pub fn refresh_done(&self) {
        self.console.refresh_done();
    }

    /// A text stands for the picture, until there is a report.
    pub fn stand_in(&mut self, text: &'static str) {
        self.forget_plane();
        self.show_message(text);
    }

    /// A call of the device does not return.
    pub fn say_slow(&mut self, call: &str, now: Duration) {
        let text = format!("{call} takes longer than 100 ms");
        self.reporter.say(&self.console, now, Severity::Warning, &text);
    }

    /// Says what the watcher has to say, and lets go of what the pool let go of.
    pub fn note(&mut self, notes: Notes, now: Duration) {
        if !notes.retired.is_empty() {
            // What goes is not shown any more.
            self.show_reset();
        }
        for key in notes.retired {
            self.wishes.supports.forget(key);
            if let Some(held) = self.held.remove(&key) {
                if let Some(import) = held.import {
                    self.console.release(import);
                }
                self.wishes.returned.push(Returned::Buffer(held.buffer));
            }
        }
        self.say(notes.remarks, now);
    }

    fn say(&mut self, remarks: Vec<Remark>, now: Duration) {
        for remark in remarks {
            match remark {
                Remark::Say { severity, topic, text } => {
                    self.reporter.say_of(&topic, &self.console, now, severity, &text);
                }
                Remark::Count(kind) => self.count(kind),
                Remark::Trace(text) => self.console.log(Severity::Trace, format_args!("{text}")),
            }
        }
    }

    /// A front end wants to see all again.
    pub fn invalidate(&mut self) {
        if self.standing == Standing::Current {
            self.standing = Standing::Invalidated;
        }
    }

    /// Front ends have seen all again, if they wanted to.
    fn drawn_anew(&mut self) {
        if self.standing == Standing::Invalidated {
            self.standing = Standing::Current;
        }
    }

    /// A front end shows the console in a window like this.
    pub fn set_monitor(&mut self, monitor: Monitor) {
        self.wishes.monitor = Some(monitor);
    }

    /// A front end took the scanout and has not released it yet, or now has.
    pub fn block(&mut self, block: bool, now: Duration) {
        if self.wishes.in_use.take().is_some() && self.wishes.blocked == Block::Held {
            self.wishes.blocked = Block::Until(now);
        }
        let shown = self.screen.scanout().filter(|_| self.standing != Standing::Reset);
        if let (true, Some(key)) = (block, shown) {
            self.wishes.in_use = Some(key);
            self.wishes.blocked = Block::Held;
        }
    }

    /// The device is being reset from now on: nothing that it told before holds. The console is told by [`Presenter::show_reset`]: this
    /// may be a thread on which it must not be.
    pub fn reset(&mut self, now: Duration) {
        self.trace(format_args!("reset"));
        self.wishes.epoch += 1 + self.wishes.epoch % 2;
        self.standing = Standing::Reset;
        // The front end is shown something else in place of what it was given.
        if self.wishes.blocked == Block::Held {
            self.wishes.blocked = Block::Until(now);
        }
        self.wishes.verdict = Verdict::Settled;
    }

    /// The device has been reset.
    pub fn reset_done(&mut self) {
        self.wishes.epoch += self.wishes.epoch % 2;
    }

    /// A reset is shown, if there was one.
    pub fn show_reset(&mut self) {
        if self.standing != Standing::Reset {
            return;
        }
        self.standing = Standing::Current;
        self.plane_state = PlaneState::Unknown;
        if !matches!(self.screen, Screen::Untouched) {
            self.show_message(DISPLAY_IS_OFF);
        }
    }

    /// Has the front ends refresh.
    pub fn request_refresh(&self) {
        self.console.request_refresh();
    }

    /// What is scanned out.
    pub fn scanout(&self) -> Option<Key> {
        self.screen.scanout()
    }

    /// The pixels of what is scanned out, if who looked once was given them.
    pub fn take_capture(&mut self) -> Option<Picture> {
        let (key, picture) = self.captured.take()?;
        (self.screen.scanout() == Some(key)).then_some(picture)
    }

    /// Shows nothing of the device any more, and holds nothing of it.
    pub fn close(&mut self, now: Duration) {
        self.block(false, now);
        self.hide_cursor();
        if matches!(self.screen, Screen::Scanout(_) | Screen::Memory(..)) {
            // Imports are released only when they are not shown any more, and front ends let go of memory only then.
            self.show_message(DISPLAY_IS_OFF);
        }
        self.set_screen(Screen::Untouched);
        for (_, held) in self.held.drain() {
            if let Some(import) = held.import {
                self.console.release(import);
            }
            self.wishes.returned.push(Returned::Buffer(held.buffer));
        }
        self.wishes.stop = true;
    }

    /// What is shown.
    pub(crate) fn screen(&self) -> &Screen<C> {
        &self.screen
    }

    /// When the plane that is missed has gone for good, unless it comes back.
    pub fn gap_ends(&self) -> Option<Duration> {
        match self.plane_state {
            PlaneState::Gap(_, since) => Some(since + GAP),
            _ => None,
        }
    }

    /// The plane that is shown.
    pub fn plane(&self) -> Option<&Plane> {
        match &self.plane_state {
            PlaneState::On(plane) | PlaneState::Gap(plane, _) => Some(plane),
            PlaneState::Unknown | PlaneState::Off => None,
        }
    }

    /// The plane of the pointer that is shown.
    pub fn pointer(&self) -> Option<&Plane> {
        self.pointer.as_ref().map(|pointer| &pointer.plane)
    }

    /// What was done so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The last thing that went wrong, and how many were not said because too many others were.
    pub fn last_error(&self) -> Option<(&str, u64)> {
        self.reporter.last().map(|last| (last, self.reporter.withheld()))
    }

    /// What front ends do with a dma-buf; the watcher is told.
    fn ask_support(&mut self, lease: &Lease) -> ScanoutSupport {
        self.held.entry(lease.key).or_insert_with(|| Held {
            buffer: Arc::clone(&lease.buffer),
            geometry: lease.plane.geometry,
            import: None,
        });
        self.ask_support_of(lease.key)
    }

    fn ask_support_of(&mut self, key: Key) -> ScanoutSupport {
        let Some(Held { buffer, geometry, import }) = self.held.get(&key) else {
            return ScanoutSupport::None;
        };
        let support = if self.imports && buffer.can_be_mapped() {
            self.console.scanout_support(buffer.as_fd(), geometry, import.as_ref())
        } else {
            ScanoutSupport::None
        };
        self.wishes.supports.note(key, geometry, support);
        support
    }

    /// Has front ends import a dma-buf, if they have not.
    fn import(&mut self, lease: &Lease) {
        let held = self.held.entry(lease.key).or_insert_with(|| Held {
            buffer: Arc::clone(&lease.buffer),
            geometry: lease.plane.geometry,
            import: None,
        });
        if held.import.is_none() {
            self.counters.imports += 1;
            held.import = Some(self.console.import(held.buffer.as_fd(), &held.geometry));
        }
    }

    fn count(&mut self, kind: &'static str) {
        *self.counters.errors.entry(kind).or_default() += 1;
    }

    fn trace(&self, what: fmt::Arguments<'_>) {
        self.console.log(Severity::Trace, format_args!("{}: {what}", self.name));
    }
}

/// How what the console shows stands to what it is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is what was to be shown last.
    Current,
    /// So it is, but front ends want to see all of it again.
    Invalidated,
    /// The device was reset, which the console was not told yet.
    Reset,
}

/// What the device told last of what is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlaneState {
    /// Nothing, or nothing that can be shown.
    Unknown,
    /// There is no plane: the firmware may draw.
    Off,
    /// This plane.
    On(Plane),
    /// There is none, but so far it may only be away while the guest sets a mode: this one is still shown, and was missed then first.
    Gap(Plane, Duration),
}

/// What came of showing something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Showing {
    Done,
    /// It is not shown. If nothing is to be looked at again, the user was told why.
    Not(Verdict),
}
