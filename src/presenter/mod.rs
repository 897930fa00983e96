//! The console's half of a display: what is shown, and what the user is told.
//!
//! A presenter runs on the host's main loop. It never blocks, never calls the device, and never
//! closes or unmaps anything that came from the device: that goes back to the watcher. The only
//! pixels it touches are those that changed, which it copies into the console's surface.

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

/// How long the last picture stays when the plane goes off: guests turn it off during a mode set.
const GAP: Duration = Duration::from_millis(300);

/// What a presenter has done so far.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Dma-bufs imported.
    pub imports: u64,
    /// Frames for which front ends were shown the region's memory itself.
    pub direct: u64,
    /// Flips from one buffer to another.
    pub flips: u64,
    /// Errors, by category.
    pub errors: BTreeMap<&'static str, u64>,
}

/// A dma-buf of the watcher's pool, until the watcher says that it was retired.
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
    /// Size of the last picture, or the one expected of the first. Messages have it, too, so that
    /// windows keep their size while a guest blanks its screen.
    size: (u32, u32),
    held: HashMap<Key, Held<C::Import>>,
    captured: Option<(Key, Picture)>,
    counters: Counters,
    reporter: Reporter,
    wishes: Wishes,
    one_shots: OneShots,
}

impl<C: Console> Presenter<C> {
    /// Creates a presenter that has shown nothing yet. `preferred`: the size that the guest
    /// prefers.
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

    /// Returns the wishes, brought up to date.
    pub fn wishes(&mut self) -> &mut Wishes {
        let wishes = &mut self.wishes;
        wishes.one_shot = self.one_shots.wanted();
        wishes.redraw = self.standing == Standing::Invalidated;
        wishes.shown = match self.standing {
            // The next report will find something else on the console.
            Standing::Reset => Shown::Other,
            _ => self.screen.shown(),
        };
        wishes.pointer = self.pointer.as_ref().map(|pointer| pointer.key);
        wishes
    }

    /// Shows what the watcher found. Returns whether the watcher must poll again, as the wishes
    /// then say. `once`: the poll was for a one-shot refresh that the report does not number.
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
                self.show_cursor(cursor, all, now);
            }
        }
        let again = self.wishes.verdict != Verdict::Settled;
        // The pixels stay for whoever asked, until the next answer.
        if !again && self.one_shots.answer(one_shot) {
            self.captured = captured;
        }
        again
    }

    /// Without a report: repeats what must be shown at each refresh.
    pub fn repeat(&mut self, now: Duration) {
        if let Some(key) = self.screen.shown().key() {
            // Front ends come and go.
            self.ask_support_of(key);
        }
        match (&self.screen, self.plane_state) {
            (_, PlaneState::Gap(..)) => self.miss_plane(now),
            (Screen::Scanout(_), _) => {
                self.update_scanout();
                self.repeat_cursor(now);
            }
            (_, PlaneState::Off) => self.show_no_plane(),
            _ => (),
        }
    }

    /// A one-shot refresh wants an answer.
    pub fn want_one_shot(&mut self, now: Duration) {
        self.one_shots.want(now);
    }

    /// Returns since when a one-shot refresh has been waiting.
    pub fn waits_since(&self) -> Option<Duration> {
        self.one_shots.waits_since()
    }

    /// Whether one-shot refreshes have been answered; [`Presenter::refresh_done`] tells the
    /// console.
    pub fn has_answer(&mut self) -> bool {
        self.one_shots.take_answer()
    }

    /// Ends the wait of all one-shot refreshes.
    pub fn give_up(&mut self) {
        if self.one_shots.give_up() {
            self.captured = None;
        }
    }

    /// Tells the console that a one-shot refresh is complete.
    pub fn refresh_done(&self) {
        self.console.refresh_done();
    }

    /// Shows a message in place of the picture, until the next report.
    pub fn stand_in(&mut self, text: &'static str) {
        self.forget_plane();
        self.show_message(text);
    }

    /// Logs that a device call takes long.
    pub fn say_slow(&mut self, call: &str, now: Duration) {
        let text = format!("{call} takes longer than 100 ms");
        self.reporter.say(&self.console, now, Severity::Warning, &text);
    }

    /// Logs the watcher's remarks, and releases the dma-bufs that the pool retired.
    pub fn note(&mut self, notes: Notes, now: Duration) {
        if !notes.retired.is_empty() {
            // A retired buffer must not stay on screen.
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

    /// A front end wants everything drawn again.
    pub fn invalidate(&mut self) {
        if self.standing == Standing::Current {
            self.standing = Standing::Invalidated;
        }
    }

    /// Front ends have had everything drawn again, if they wanted it.
    fn drawn_anew(&mut self) {
        if self.standing == Standing::Invalidated {
            self.standing = Standing::Current;
        }
    }

    /// A front end shows the console in a window of this size.
    pub fn set_monitor(&mut self, monitor: Monitor) {
        self.wishes.monitor = Some(monitor);
    }

    /// A front end is using the scanout (`gl_block`), or has released it.
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

    /// A reset of the device begins: no earlier answer is valid any more. [`Presenter::show_reset`]
    /// tells the console: this may be a thread on which it must not be called.
    pub fn reset(&mut self, now: Duration) {
        self.trace(format_args!("reset"));
        self.wishes.epoch += 1 + self.wishes.epoch % 2;
        self.standing = Standing::Reset;
        // The front end will be shown something else.
        if self.wishes.blocked == Block::Held {
            self.wishes.blocked = Block::Until(now);
        }
        self.wishes.verdict = Verdict::Settled;
    }

    /// The device has been reset.
    pub fn reset_done(&mut self) {
        self.wishes.epoch += self.wishes.epoch % 2;
    }

    /// Shows a reset, if there was one.
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

    /// Returns the scanout's dma-buf.
    pub fn scanout(&self) -> Option<Key> {
        self.screen.scanout()
    }

    /// Takes the pixels of the scanout, if a one-shot refresh was given them.
    pub fn take_capture(&mut self) -> Option<Picture> {
        let (key, picture) = self.captured.take()?;
        (self.screen.scanout() == Some(key)).then_some(picture)
    }

    /// Stops showing the device, and releases everything of it.
    pub fn close(&mut self, now: Duration) {
        self.block(false, now);
        self.hide_cursor();
        if matches!(self.screen, Screen::Scanout(_) | Screen::Memory(..)) {
            // Imports may be released only after they are off screen, and front ends release memory
            // only then.
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

    /// Returns what is shown.
    pub(crate) fn screen(&self) -> &Screen<C> {
        &self.screen
    }

    /// Returns when the gap ends, unless the plane comes back.
    pub fn gap_ends(&self) -> Option<Duration> {
        match self.plane_state {
            PlaneState::Gap(_, since) => Some(since + GAP),
            _ => None,
        }
    }

    /// Returns the plane on screen.
    pub fn plane(&self) -> Option<&Plane> {
        match &self.plane_state {
            PlaneState::On(plane) | PlaneState::Gap(plane, _) => Some(plane),
            PlaneState::Unknown | PlaneState::Off => None,
        }
    }

    /// Returns the cursor's plane, if one is shown.
    pub fn pointer(&self) -> Option<&Plane> {
        self.pointer.as_ref().map(|pointer| &pointer.plane)
    }

    /// Counters.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Returns the last error, and how many messages were withheld because there were too many.
    pub fn last_error(&self) -> Option<(&str, u64)> {
        self.reporter.last().map(|last| (last, self.reporter.withheld()))
    }

    /// Asks what front ends do with a dma-buf, and tells the watcher.
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

    /// Imports a dma-buf, unless it is.
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

/// Whether the console shows what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It does.
    Current,
    /// It does, but front ends want everything drawn again.
    Invalidated,
    /// The device was reset, and the console does not know yet.
    Reset,
}

/// The last answer of the device about the plane on screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PlaneState {
    /// None, or nothing that can be shown.
    Unknown,
    /// No plane: the firmware may draw.
    Off,
    /// This plane.
    On(Plane),
    /// No plane since then, perhaps only during a mode set: this one is still on screen.
    Gap(Plane, Duration),
}

/// Result of showing something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Showing {
    Done,
    /// Not shown. Unless the watcher must poll again, the user was told why.
    Not(Verdict),
}
