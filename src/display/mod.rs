//! The display of one device: a watcher and a presenter, and what makes each take its steps.
//!
//! Only alarms, threads and the order of steps belong here: what is polled is the watcher's, what
//! is shown is the presenter's.
//!
//! | The device answers | The console shows |
//! |---|---|
//! | a plane | a scanout if a front end imports it, else a surface, or a region's memory itself |
//! | no plane | the firmware's framebuffer if there is one, else that the display is off |
//! | an error, or an invalid answer | the last picture for a few polls, then what is wrong |
//! | no kind of planes | nothing: [`probe`] said so, and there is no display |

#![forbid(unsafe_code)]

mod describe;
mod durations;
mod status;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::clock::{Alarm, Alarms, Clock};
use crate::config::Config;
use crate::console::{Console, Monitor};
use crate::damage::Picture;
use crate::device::{Device, Mode};
use crate::exchange::{Arrival, Call, Ending, Exchange, Facts, Report, Waker};
use crate::presenter::Presenter;
use crate::watcher::{Announced, FlipCheck, PollRequest, Watcher};

use durations::Durations;

pub use crate::watcher::{ShareError, probe};

/// Maximum number of polls within one refresh, when front ends treat the dma-buf differently than
/// assumed.
const ROUNDS: u32 = 4;

/// A device call that takes longer is logged.
const SLOW: Duration = Duration::from_millis(100);

/// After this long, a message replaces the picture, which may be outdated by then.
const STUCK: Duration = Duration::from_secs(1);

/// How long a one-shot refresh waits for the watcher; then it gets the last picture. A scanout has
/// none until the watcher has read it, so that is waited for as long as [`STUCK`].
const PATIENCE: Duration = Duration::from_millis(100);

const SILENT: &str = "The device does not answer.";

const FAILED: &str = "The display has failed.";

/// A watcher whose device calls are announced to the exchange.
pub type DeviceWatcher<D, T> = Watcher<Announced<D, T>, T>;

/// A watcher for a thread of its own, and the exchange through which it talks to the presenter.
pub type Detached<D, T> = (DeviceWatcher<D, T>, Arc<Exchange>);

/// Who steps the watcher.
#[expect(clippy::large_enum_variant, reason = "there is one per display")]
enum WatcherSide<D: Device, T: Clock> {
    /// The display, within refreshes.
    Inline(DeviceWatcher<D, T>),
    /// A thread of its own, at the other end of this exchange.
    Threaded(Arc<Exchange>),
}

/// The display of one device.
pub struct Display<D: Device, C: Console, T: Alarms> {
    watcher: WatcherSide<D, T::Time>,
    presenter: Presenter<C>,
    name: String,
    has_edid: bool,
    clock: T,
    mode: Mode,
    config: Config,
    refreshes: u64,
    durations: Durations,
    /// When the alarms that are set go off.
    poll_at: Option<Duration>,
    edid_at: Option<Duration>,
    answer_at: Option<Duration>,
    gap_at: Option<Duration>,
}

impl<D: Device, C: Console, T: Alarms> Display<D, C, T> {
    /// Creates the display of a device that [`probe`] found to be in this mode.
    ///
    /// A broken EDID region costs the guest its choice of resolutions, not the user the picture:
    /// it is reported, and [`Display::has_edid`] is `false`.
    pub fn new(device: D, console: C, clock: T, mode: Mode, config: Config) -> Self {
        let name = device.name().to_owned();
        let device = Announced::new(device, clock.watch());
        let mut watcher = Watcher::new(device, clock.watch(), mode, config);
        if config.events && !watcher.subscribe(clock.event(Alarm::Change)) {
            clock.clear_alarm(Alarm::Change);
        }
        let has_edid = watcher.has_edid();
        let presenter = Presenter::new(console, &name, watcher.preferred_size(), &config);
        let mut display = Self {
            watcher: WatcherSide::Inline(watcher),
            presenter,
            name,
            has_edid,
            clock,
            mode,
            config,
            refreshes: 0,
            durations: Durations::default(),
            poll_at: None,
            edid_at: None,
            answer_at: None,
            gap_at: None,
        };
        display.settle();
        display.plan_edid();
        display
    }

    /// Gives the watcher away, to be stepped on a thread of its own; `None` if the user does not
    /// want that. The wakers wake it, and have [`Display::arrived`] called.
    pub fn detach(
        &mut self,
        watcher_waker: Box<dyn Waker>,
        presenter_waker: Box<dyn Waker>,
    ) -> Option<Detached<D, T::Time>> {
        if !self.config.thread {
            return None;
        }
        let WatcherSide::Inline(watcher) = &self.watcher else { return None };
        let exchange = Arc::new(Exchange::new(watcher_waker, presenter_waker, watcher.facts()));
        watcher.device().announce_to(Arc::clone(&exchange));
        let there = WatcherSide::Threaded(Arc::clone(&exchange));
        let WatcherSide::Inline(watcher) = std::mem::replace(&mut self.watcher, there) else {
            return None;
        };
        for alarm in [Alarm::Edid, Alarm::Poll, Alarm::Change] {
            self.clock.clear_alarm(alarm);
        }
        Some((watcher, exchange))
    }

    /// Whether the guest can be told about its monitor.
    pub fn has_edid(&self) -> bool {
        self.has_edid
    }

    /// Returns the size a message would have now: that of the last picture, or what the guest
    /// prefers before the first.
    pub fn message_size(&self) -> (u32, u32) {
        self.presenter.message_size()
    }

    /// Shows what the device shows now; if the watcher has a thread, what it found last.
    ///
    /// `periodic`: another refresh follows soon, so that small changes may wait for it. False for a
    /// one-shot refresh, as for a screenshot.
    pub fn refresh(&mut self, periodic: bool) {
        self.refreshes += 1;
        let began = self.clock.now();
        match &self.watcher {
            WatcherSide::Inline(_) => {
                self.presenter.show_reset();
                self.poll(periodic);
            }
            WatcherSide::Threaded(exchange) => {
                let arrival = exchange.collect();
                self.presenter.show_reset();
                self.receive(arrival, began);
                if !periodic {
                    self.presenter.want_one_shot(began);
                }
            }
        }
        let now = self.clock.now();
        let took = now.saturating_sub(began);
        self.durations.record(took);
        self.presenter.wishes().refreshed = Some((now, took));
        self.settle();
        match &self.watcher {
            WatcherSide::Inline(_) if periodic => (),
            WatcherSide::Inline(_) => self.presenter.refresh_done(),
            WatcherSide::Threaded(_) => self.answer(),
        }
        self.plan_gap();
        self.plan_poll(now);
    }

    /// Reports that a one-shot refresh is complete; one that still waits gets a deadline, which
    /// later ones do not move.
    fn answer(&mut self) {
        if self.presenter.has_answer() {
            self.presenter.refresh_done();
        }
        let due = self.presenter.waits_since().map(|since| {
            let patience = if self.presenter.scanout().is_some() { STUCK } else { PATIENCE };
            since + patience
        });
        plan(&self.clock, Alarm::Answer, &mut self.answer_at, due);
    }

    /// The watcher left something. A one-shot refresh may be waiting for it where no front end
    /// refreshes.
    pub fn arrived(&mut self) {
        let WatcherSide::Threaded(exchange) = &self.watcher else { return };
        if self.presenter.waits_since().is_some() {
            let arrival = exchange.collect();
            self.presenter.show_reset();
            self.receive(arrival, self.clock.now());
        } else if exchange.has_news() {
            self.presenter.request_refresh();
        }
        self.plan_gap();
        self.settle();
        self.answer();
    }

    fn poll(&mut self, periodic: bool) {
        let mut request = PollRequest { exact: !periodic, ..PollRequest::default() };
        self.apply_wishes();
        for _ in 0..ROUNDS {
            let WatcherSide::Inline(watcher) = &mut self.watcher else { break };
            let Some(report) = watcher.poll(request) else { break };
            if !self.apply(report, !periodic) {
                break;
            }
            request.verdict = self.presenter.wishes().verdict;
        }
    }

    /// Shows what the watcher left in the exchange.
    fn receive(&mut self, arrival: Arrival, now: Duration) {
        let Arrival { report, notes, call, ending } = arrival;
        let so_far = call.map_or(Duration::ZERO, |call| now.saturating_sub(call.since));
        let instead = match ending {
            Ending::Failed => Some(FAILED),
            Ending::Watching => (so_far > STUCK).then_some(SILENT),
        };
        match report {
            Some(report) => {
                self.presenter.apply(*report, now, false);
            }
            None if instead.is_none() => self.presenter.repeat(now),
            None => (),
        }
        self.presenter.note(notes, now);
        if let Some(text) = instead {
            self.presenter.stand_in(text);
        }
        if let Some(Call { name, .. }) = call.filter(|_| so_far > SLOW) {
            self.presenter.say_slow(name, now);
        }
    }

    /// A front end wants everything drawn again.
    pub fn invalidate(&mut self) {
        self.presenter.invalidate();
    }

    /// A front end shows the console in a window of this size.
    pub fn set_monitor(&mut self, monitor: Monitor) {
        self.presenter.set_monitor(monitor);
        self.settle();
        self.plan_edid();
    }

    /// A front end is using the scanout (`gl_block`), or has released it.
    pub fn block(&mut self, block: bool) {
        let now = self.clock.now();
        self.presenter.block(block, now);
        self.settle();
        self.plan_poll(now);
    }

    /// The device is about to be reset: no earlier answer is valid any more. The console shows it
    /// at its next refresh, since this may be a vCPU's thread. If the watcher has a thread, the
    /// device is not called until [`Display::reset_done`].
    pub fn reset(&mut self) {
        self.presenter.reset(self.clock.now());
        match &mut self.watcher {
            WatcherSide::Inline(watcher) => {
                // Nothing can come between.
                self.presenter.reset_done();
                watcher.apply_wishes(self.presenter.wishes());
                self.presenter.request_refresh();
            }
            WatcherSide::Threaded(exchange) => exchange.withdraw(self.presenter.wishes()),
        }
    }

    /// The device has been reset.
    pub fn reset_done(&mut self) {
        if let WatcherSide::Threaded(exchange) = &self.watcher {
            self.presenter.reset_done();
            exchange.post(self.presenter.wishes());
            exchange.wake_presenter();
        }
    }

    /// Stops showing the device, and releases everything of it, as dropping the display does. A
    /// watcher on a thread ends.
    pub fn close(&mut self) {
        self.presenter.close(self.clock.now());
        match &mut self.watcher {
            WatcherSide::Inline(_) => {
                self.settle();
                if let WatcherSide::Inline(watcher) = &mut self.watcher {
                    watcher.close();
                }
                self.settle();
            }
            WatcherSide::Threaded(exchange) => {
                self.presenter.note(exchange.take_notes(), self.clock.now());
                exchange.withdraw(self.presenter.wishes());
            }
        }
        for alarm in [Alarm::Edid, Alarm::Poll, Alarm::Change, Alarm::Answer, Alarm::Gap] {
            self.clock.clear_alarm(alarm);
        }
        // One-shot refreshes would wait for ever.
        self.presenter.give_up();
        self.answer();
    }

    /// Ends a watcher on its thread, and nothing else.
    pub fn abandon(&mut self) {
        if let WatcherSide::Threaded(exchange) = &self.watcher {
            self.presenter.wishes().stop = true;
            exchange.post(self.presenter.wishes());
        }
    }

    /// An alarm goes off.
    pub fn alarm(&mut self, alarm: Alarm) {
        if alarm == Alarm::Answer {
            self.answer_at = None;
            self.presenter.give_up();
            self.settle();
            return self.answer();
        }
        if alarm == Alarm::Gap {
            self.gap_at = None;
            return self.presenter.request_refresh();
        }
        let WatcherSide::Inline(watcher) = &mut self.watcher else { return };
        match alarm {
            Alarm::Answer | Alarm::Gap => (),
            Alarm::Edid => {
                self.edid_at = None;
                watcher.tell_monitor();
                self.settle();
                self.plan_edid();
            }
            Alarm::Poll => {
                self.poll_at = None;
                match watcher.check_flip() {
                    FlipCheck::Nothing => (),
                    FlipCheck::Changed => self.presenter.request_refresh(),
                    FlipCheck::Failed(report) => {
                        self.apply(*report, false);
                    }
                }
                self.settle();
                self.plan_poll(self.clock.now());
            }
            Alarm::Change => {
                if watcher.on_event() {
                    self.presenter.request_refresh();
                }
                self.plan_poll(self.clock.now());
            }
        }
    }

    /// Returns a copy of the scanout, for those who cannot import it. `None` if no scanout is
    /// shown, or if only a GPU can read it.
    pub fn capture(&mut self) -> Option<Picture> {
        match &mut self.watcher {
            WatcherSide::Inline(watcher) => watcher.capture(self.presenter.scanout()?),
            WatcherSide::Threaded(_) => self.presenter.take_capture(),
        }
    }

    /// Returns the UUID of the dma-buf that the device shows now, see [`Watcher::share_scanout`];
    /// if the watcher has a thread, of the one that it saw last.
    pub fn share_scanout(&mut self) -> Result<Uuid, ShareError> {
        match &mut self.watcher {
            WatcherSide::Inline(watcher) => {
                let shared = watcher.share_scanout();
                self.settle();
                shared
            }
            WatcherSide::Threaded(exchange) => {
                if !self.config.share {
                    return Err(ShareError::Off);
                }
                if self.mode == Mode::Region {
                    return Err(ShareError::Region);
                }
                exchange.facts().shared.ok_or(ShareError::NoPlane)
            }
        }
    }

    /// Whether the watcher has a thread of its own.
    fn has_thread(&self) -> bool {
        matches!(self.watcher, WatcherSide::Threaded(_))
    }

    /// Whether the watcher has failed on its thread.
    fn has_failed(&self) -> bool {
        matches!(&self.watcher, WatcherSide::Threaded(exchange) if exchange.ending() == Ending::Failed)
    }

    fn facts(&self) -> Facts {
        match &self.watcher {
            WatcherSide::Inline(watcher) => watcher.facts(),
            WatcherSide::Threaded(exchange) => exchange.facts(),
        }
    }

    /// Shows what the watcher found. `once`: for a one-shot refresh. Returns whether it must poll
    /// again.
    fn apply(&mut self, report: Report, once: bool) -> bool {
        let again = self.presenter.apply(report, self.clock.now(), once);
        self.apply_wishes();
        again
    }

    fn apply_wishes(&mut self) {
        if let WatcherSide::Inline(watcher) = &mut self.watcher {
            watcher.apply_wishes(self.presenter.wishes());
        }
    }

    /// Passes wishes one way, and notes the other.
    fn settle(&mut self) {
        match &mut self.watcher {
            WatcherSide::Inline(watcher) => {
                watcher.apply_wishes(self.presenter.wishes());
                self.presenter.note(watcher.take_notes(), self.clock.now());
                // Drops what the presenter gave back.
                self.presenter.wishes().returned.clear();
            }
            WatcherSide::Threaded(exchange) => {
                self.presenter.note(exchange.take_notes(), self.clock.now());
                exchange.post(self.presenter.wishes());
            }
        }
    }

    fn plan_edid(&mut self) {
        let WatcherSide::Inline(watcher) = &self.watcher else { return };
        let due = watcher.edid_due();
        plan(&self.clock, Alarm::Edid, &mut self.edid_at, due);
    }

    /// Ends a gap in time even if front ends refresh rarely.
    fn plan_gap(&mut self) {
        let due = self.presenter.gap_ends();
        plan(&self.clock, Alarm::Gap, &mut self.gap_at, due);
    }

    fn plan_poll(&mut self, now: Duration) {
        let WatcherSide::Inline(watcher) = &self.watcher else { return };
        if let Some(listens) = watcher.listens(now) {
            self.clock.listen(Alarm::Change, listens);
        }
        // An alarm that goes off too early is set again then: that is rarer than setting it at each
        // refresh.
        let next = watcher.next_poll(now);
        if let Some(next) = next.filter(|next| self.poll_at.is_none_or(|set| *next < set)) {
            self.clock.set_alarm(Alarm::Poll, next.saturating_sub(now));
            self.poll_at = Some(next);
        }
    }
}

/// Sets or clears an alarm. `set`: when it goes off so far.
fn plan(clock: &impl Alarms, alarm: Alarm, set: &mut Option<Duration>, due: Option<Duration>) {
    if *set == due {
        return;
    }
    *set = due;
    match due {
        Some(due) => clock.set_alarm(alarm, due.saturating_sub(clock.now())),
        None => clock.clear_alarm(alarm),
    }
}

impl<D: Device, C: Console, T: Alarms> Drop for Display<D, C, T> {
    fn drop(&mut self) {
        self.close();
    }
}
