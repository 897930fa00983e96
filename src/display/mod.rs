//! The display of one device: a watcher and a presenter, stepped one after the other.
//!
//! | the device says         | the console shows                                                     |
//! |-------------------------|-----------------------------------------------------------------------|
//! | a plane                 | it: as a scanout where a front end takes the dma-buf, else as a surface |
//! |                         | or, while everything in a region moves, as that memory itself         |
//! | no plane now            | the firmware's framebuffer if there is one, else that the display is off |
//! | an error, or nonsense   | for a few looks what it showed, then what is wrong                      |
//! | that it has no planes   | [`probe`] said so, and there is no display                              |

#![forbid(unsafe_code)]

mod describe;
mod durations;
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

/// So often, at most, is looked again within one refresh because front ends do something else with the picture than was thought.
const ROUNDS: u32 = 4;

/// A call of the device that takes so long is said to.
const SLOW: Duration = Duration::from_millis(100);

/// And after so long, it is shown in place of the picture, which may be wrong by then.
const STUCK: Duration = Duration::from_secs(1);

/// Who looks once waits no longer than this, and has what there was last; of a scanout there is nothing until the watcher has read it, and
/// that is waited for until the device counts as silent.
const PATIENCE: Duration = Duration::from_millis(100);

const SILENT: &str = "The device does not answer.";

const FAILED: &str = "The display has failed.";

/// A watcher of a device whose calls are announced.
pub type DeviceWatcher<D, T> = Watcher<Announced<D, T>, T>;

/// A watcher that was given away, and where it meets the presenter.
pub type Detached<D, T> = (DeviceWatcher<D, T>, Arc<Exchange>);

/// Where the watcher is.
#[expect(clippy::large_enum_variant, reason = "there is one per display")]
enum WatcherSide<D: Device, T: Clock> {
    /// Here: it is stepped within refreshes.
    Inline(DeviceWatcher<D, T>),
    /// On a thread of its own, on the other side of this.
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
    /// When the alarms go off that are set.
    poll_at: Option<Duration>,
    edid_at: Option<Duration>,
    answer_at: Option<Duration>,
    gap_at: Option<Duration>,
}

impl<D: Device, C: Console, T: Alarms> Display<D, C, T> {
    /// A display for a device that [`probe`] found to be in this mode.
    ///
    /// An EDID region that does not work costs the guest its choice of resolutions, not the user the picture:
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

    /// Gives the watcher away, to be stepped on a thread of its own, if the user wants that. The bells wake it, and have
    /// [`Display::arrived`] called.
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

    /// How large a message would be, if there were one now: as the last picture, or as the guest prefers it before the first.
    pub fn message_size(&self) -> (u32, u32) {
        self.presenter.message_size()
    }

    /// Shows what the device shows now. If the watcher has a thread of its own: what it found last.
    ///
    /// `periodic`: another refresh follows soon, so that a thin line may be seen only then. False for who looks once, for instance to
    /// take a screenshot.
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

    /// Who looked once is told that it is over; who waits still does so for no longer than a moment, whoever else comes.
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

    /// The watcher rang: something is there for a refresh. Who looks once waits for it, and there may be no front end that refreshes.
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

    /// Shows what the watcher left.
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

    /// A front end wants to see all again.
    pub fn invalidate(&mut self) {
        self.presenter.invalidate();
    }

    /// A front end shows the console in a window like this.
    pub fn set_monitor(&mut self, monitor: Monitor) {
        self.presenter.set_monitor(monitor);
        self.settle();
        self.plan_edid();
    }

    /// A front end took the scanout and has not released it yet, or now has.
    pub fn block(&mut self, block: bool) {
        let now = self.clock.now();
        self.presenter.block(block, now);
        self.settle();
        self.plan_poll(now);
    }

    /// The device is about to be reset: nothing that it told holds any more. The console shows it at its next refresh, since this may be
    /// a vCPU's thread. Where the watcher has a thread of its own, nobody calls the device until [`Display::reset_done`].
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

    /// Shows nothing of the device any more, and holds nothing of it. Dropping a display does the same. A watcher that has a thread of
    /// its own ends then.
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
        // Who waits would wait for ever.
        self.presenter.give_up();
        self.answer();
    }

    /// Ends a watcher that has a thread of its own, and nothing else.
    pub fn abandon(&mut self) {
        if let WatcherSide::Threaded(exchange) = &self.watcher {
            self.presenter.wishes().stop = true;
            exchange.post(self.presenter.wishes());
        }
    }

    /// An alarm that was set goes off.
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

    /// A copy of the scanout, for those who cannot import it. `None` if no scanout is shown, or if it cannot be
    /// read without a GPU.
    pub fn capture(&mut self) -> Option<Picture> {
        match &mut self.watcher {
            WatcherSide::Inline(watcher) => watcher.capture(self.presenter.scanout()?),
            WatcherSide::Threaded(_) => self.presenter.take_capture(),
        }
    }

    /// The UUID of the dma-buf that the device shows now: see [`Watcher::share_scanout`]. Where the watcher has a thread of its own, of
    /// the one that it saw last.
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

    /// Whether the watcher, on its thread, is no more.
    fn has_failed(&self) -> bool {
        matches!(&self.watcher, WatcherSide::Threaded(exchange) if exchange.ending() == Ending::Failed)
    }

    fn facts(&self) -> Facts {
        match &self.watcher {
            WatcherSide::Inline(watcher) => watcher.facts(),
            WatcherSide::Threaded(exchange) => exchange.facts(),
        }
    }

    /// Shows what the watcher found, for somebody who looks `once` or not. Returns whether it is to look again.
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

    /// Has each half know of the other.
    fn settle(&mut self) {
        match &mut self.watcher {
            WatcherSide::Inline(watcher) => {
                watcher.apply_wishes(self.presenter.wishes());
                self.presenter.note(watcher.take_notes(), self.clock.now());
                // What the presenter gave back is let go of.
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

    /// Front ends that refresh rarely are not to show for longer what has gone.
    fn plan_gap(&mut self) {
        let due = self.presenter.gap_ends();
        plan(&self.clock, Alarm::Gap, &mut self.gap_at, due);
    }

    fn plan_poll(&mut self, now: Duration) {
        let WatcherSide::Inline(watcher) = &self.watcher else { return };
        if let Some(listens) = watcher.listens(now) {
            self.clock.listen(Alarm::Change, listens);
        }
        // An alarm that goes off too early, or for nothing, is set again then, or when there is something to look for: that is
        // rarer than to set it at each refresh.
        let next = watcher.next_poll(now);
        if let Some(next) = next.filter(|next| self.poll_at.is_none_or(|set| *next < set)) {
            self.clock.set_alarm(Alarm::Poll, next.saturating_sub(now));
            self.poll_at = Some(next);
        }
    }
}

/// Has this alarm go off when it is due, if it is. `set`: when it would so far.
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
