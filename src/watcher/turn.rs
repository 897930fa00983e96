//! A watcher on a thread of its own: one turn after the other, until the display closes.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use crate::clock::Clock;
use crate::device::Device;
use crate::exchange::{CursorView, Exchange, Report, Shown, Verdict, View, Wishes};
use crate::plane::Plane;
use crate::pool::Key;

use super::pacing::ATTENTION;
use super::poll::{FlipCheck, PollRequest};
use super::poll_rate::{Found, LONG_REST_STEP};
use super::{Pace, Reported, Watcher};

/// What a watcher does after a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Sleep until woken, or until then.
    Sleep(Option<Duration>),
    /// The display is closing.
    Over,
}

/// What reports told the presenter, by which the next one is news or not.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// The last one-shot refresh that was answered, and the one that the report answers unless it
    /// cannot be shown.
    answered: u64,
    answers: u64,
    /// What the last report said of the cursor, and why there was no picture.
    pointer: Option<(Key, Plane, Option<Vec<u8>>)>,
    no_picture: Option<NoPicture>,
}

/// What a report shows in place of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoPicture {
    Off,
    Message(&'static str),
}

impl<D: Device, T: Clock> Watcher<D, T> {
    /// Takes one turn: does what is wanted and what is due, and leaves what it found. `signalled`:
    /// the device signalled a change.
    pub fn turn(&mut self, exchange: &Exchange, signalled: bool) -> Next {
        if signalled {
            // Below it turns out whether somebody watches.
            self.on_event();
            self.expect_change();
            self.rate.expected = true;
        }
        let Some(mut wishes) = exchange.wishes() else {
            // A report waits for the presenter.
            self.tell_monitor_if_due();
            exchange.leave(None, self.take_notes(), self.facts());
            return Next::Sleep(self.edid_due());
        };
        let was_reset = self.epoch != wishes.epoch;
        if let Some((when, _)) = wishes.refreshed {
            self.rate.attention = when + ATTENTION;
        }
        self.rate.expected |= self.supports.changes() != wishes.supports.changes();
        self.rate.expected |= wishes.redraw && !self.redraw;
        self.apply_wishes(&mut wishes);
        if wishes.stop {
            self.close();
            return Next::Over;
        }
        if was_reset {
            self.rate.reset();
            self.told = Told { answered: self.told.answered, ..Told::default() };
        }
        let answers = std::mem::take(&mut self.told.answers);
        if wishes.verdict == Verdict::Settled {
            self.told.answered = self.told.answered.max(answers);
        }
        if wishes.epoch % 2 == 1 {
            // The device must not be called during a reset.
            exchange.leave(None, self.take_notes(), self.facts());
            return Next::Sleep(None);
        }
        if was_reset {
            self.subscribe_again();
        }
        self.tell_monitor_if_due();
        let report = self.poll_if_due(&wishes);
        let left = report.is_some();
        exchange.leave(report, self.take_notes(), self.facts());
        let next = if left { None } else { self.next_turn() };
        Next::Sleep([next, self.edid_due()].into_iter().flatten().min())
    }

    fn tell_monitor_if_due(&mut self) {
        let now = self.clock.now();
        if self.edid_due().is_some_and(|due| due <= now) {
            self.tell_monitor();
        }
    }

    /// Returns when to poll again, unless woken before.
    fn next_turn(&self) -> Option<Duration> {
        let now = self.clock.now();
        if now >= self.rate.attention {
            return None;
        }
        let expected = self.rate.expected && !self.backs_off(now);
        let poll = if expected { self.rate.free } else { self.rate.next };
        let next = self.next_poll(now).map_or(poll, |next| next.min(poll));
        Some(next.max(self.rate.free).max(self.health.backoff_until))
    }

    fn poll_if_due(&mut self, wishes: &Wishes) -> Option<Report> {
        let began = self.clock.now();
        let single = wishes.one_shot > self.told.answered;
        let mut request = PollRequest { exact: single, verdict: wishes.verdict };
        let wanted = single || wishes.verdict != Verdict::Settled;
        if !wanted {
            if began < self.rate.free || began >= self.rate.attention {
                return None;
            }
            let due = self.rate.expected || began >= self.rate.next;
            match self.check_flip() {
                FlipCheck::Nothing if !due => {
                    let ended = self.clock.now();
                    self.rate.rest(began, ended);
                    return None;
                }
                FlipCheck::Nothing | FlipCheck::Changed => (),
                FlipCheck::Failed(report) => return self.news(*report, false).0,
            }
        }
        if single {
            request.verdict = Verdict::Settled;
            // A one-shot refresh is polled at once, but a series of them leaves the device to the
            // guest.
            if self.rate.was_one_shot && began < self.rate.free {
                self.rate.expected = true;
                return None;
            }
        }
        self.rate.was_one_shot = single;
        let report = self.poll(request);
        let ended = self.clock.now();
        let Some(mut report) = report else {
            // The device is left alone.
            let expected = self.rate.expected;
            self.polled(began, ended, Found::Nothing);
            self.rate.expected = expected;
            if !single {
                return None;
            }
            let report = self.report(View::Same, CursorView::Unchanged);
            return Some(self.answering(report, wishes));
        };
        if single {
            report = self.answering(report, wishes);
        }
        if self.sharing.is_some() {
            self.share_known();
        }
        let (report, found) = self.news(report, single);
        self.polled(began, self.clock.now(), found);
        report
    }

    /// Completes a report for a one-shot refresh.
    fn answering(&mut self, mut report: Report, wishes: &Wishes) -> Report {
        let scanout = match (&report.view, self.shown) {
            (View::Undecided(_), _) => return report,
            (View::Buffer(lease, _), _) => Some(lease.key),
            (View::Same | View::Error { message: None, .. }, Shown::Scanout(key)) => Some(key),
            _ => None,
        };
        self.told.answers = wishes.one_shot;
        report.captured = scanout.and_then(|key| Some((key, self.capture(key)?)));
        report
    }

    fn polled(&mut self, began: Duration, ended: Duration, found: Found) {
        // Such a device signals changes, but not that it is gone, nor that it has recovered.
        let step = matches!(self.pace, Pace::Events(_)).then_some(LONG_REST_STEP);
        self.rate.polled(began, ended, found, step);
    }

    /// Returns the report, if it is new or somebody waits for it, and what was found.
    fn news(&mut self, report: Report, awaited: bool) -> (Option<Report>, Found) {
        let no_picture = match &report.view {
            View::Off => Some(NoPicture::Off),
            View::Error { message: Some(message), .. } => Some(NoPicture::Message(message)),
            _ => None,
        };
        let pointer = match &report.cursor {
            CursorView::Unchanged => None,
            CursorView::Hidden => Some(None),
            CursorView::Shown(lease, pixels) => {
                Some(Some((lease.key, lease.plane, pixels.clone())))
            }
        };
        // The presenter waits for a plane that was off, whether or not its picture changed
        // meanwhile.
        let is_back = no_picture.is_none() && self.told.no_picture == Some(NoPicture::Off);
        let seen = match &report.view {
            View::Same => false,
            _ if is_back => true,
            View::Off => self.told.no_picture != no_picture || self.shown != Shown::Other,
            View::Buffer(lease, _) => self.shown != Shown::Scanout(lease.key),
            View::Picture(drawn) => {
                let size = (drawn.plane.geometry.width, drawn.plane.geometry.height);
                let key = drawn.lease.as_ref().map(|(lease, _)| lease.key);
                self.shown != Shown::Surface(size.0, size.1, key) || !drawn.damage.is_empty()
            }
            View::Memory { changed, .. } => *changed || self.shown != Shown::Memory,
            View::Undecided(_) | View::Error { .. } => true,
        };
        let moved = pointer.as_ref().is_some_and(|pointer| *pointer != self.told.pointer);
        let found = match &report.view {
            View::Error { message: Some(_), .. } if no_picture == self.told.no_picture => {
                Found::Nothing
            }
            View::Error { .. } => Found::Error,
            _ if seen || moved => Found::Motion,
            _ => Found::Nothing,
        };
        if seen || moved || awaited || report.redrawn {
            // These do not change what the presenter shows.
            if !matches!(report.view, View::Undecided(_) | View::Error { message: None, .. }) {
                self.told.no_picture = no_picture;
            }
            if let Some(pointer) = pointer {
                self.told.pointer = pointer;
            }
            return (Some(report), found);
        }
        self.exact = false;
        self.reported = Reported::Nothing;
        (None, found)
    }

    /// Returns the eventfd that the device signals, if it is to be listened to now.
    pub fn listens_to(&self) -> Option<BorrowedFd<'_>> {
        let listens = self.listens(self.clock.now()).unwrap_or(false);
        self.event.as_ref().filter(|_| listens).map(OwnedFd::as_fd)
    }

    fn subscribe_again(&mut self) {
        let Some(event) = self.event.take() else { return };
        if !self.subscribe(Ok(event)) {
            self.pace = Pace::of(&self.planes, self.config);
        }
    }
}
