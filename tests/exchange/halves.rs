//! Minimal halves of a display, to test where they meet (`src/exchange/meeting.rs`).
//!
//! Their messages have only the fields that the meeting place uses. A [`Token`] stands for a
//! dma-buf.

use std::time::Duration;

use crate::sync::{self, Arc, AtomicBool, Chime, Ordering};

#[path = "../../src/exchange/meeting.rs"]
#[allow(dead_code, reason = "the tests do not use all of it")]
mod meeting;

pub use meeting::{Call, Ending, Exchange, Waker};

/// What the watcher must release, like a dma-buf.
#[derive(Debug)]
pub struct Token;

impl Drop for Token {
    fn drop(&mut self) {
        assert!(!sync::is_presenter(), "it is let go of where nobody may wait");
    }
}

#[derive(Debug)]
pub struct Report {
    pub epoch: u64,
    pub one_shot: u64,
    pub token: Token,
}

#[derive(Debug)]
pub enum Returned {
    Token(Token),
    Report(#[expect(dead_code, reason = "it is dropped")] Box<Report>),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    #[default]
    Settled,
}

#[derive(Clone, Debug, Default)]
pub struct SupportCache;

impl SupportCache {
    #[expect(clippy::unused_self, reason = "the signature is that of what it stands in for")]
    pub fn changes(&self) -> u64 {
        0
    }
}

#[derive(Debug, Default)]
pub struct Wishes {
    pub epoch: u64,
    pub refreshed: Option<(Duration, Duration)>,
    pub one_shot: u64,
    pub verdict: Verdict,
    pub redraw: bool,
    pub shown: u8,
    pub pointer: u8,
    pub in_use: u8,
    pub blocked: u8,
    pub supports: SupportCache,
    pub monitor: Option<u8>,
    pub returned: Vec<Returned>,
    pub stop: bool,
}

#[derive(Debug, Default)]
pub struct Notes {
    pub remarks: Vec<u8>,
    pub retired: Vec<u8>,
}

impl Notes {
    fn append(&mut self, other: Self) {
        self.remarks.extend(other.remarks);
        self.retired.extend(other.retired);
    }
}

#[derive(Clone, Debug, Default)]
pub struct Facts;

impl Waker for Chime {
    fn wake(&self) {
        Self::wake(self);
    }
}

/// A device, which is being reset or not.
#[derive(Debug, Default)]
pub struct Device {
    resets: AtomicBool,
}

/// What both halves know.
pub struct Meeting {
    pub exchange: Exchange,
    pub device: Device,
    for_watcher: Arc<Chime>,
    for_presenter: Arc<Chime>,
}

impl Meeting {
    pub fn new() -> Arc<Self> {
        let (for_watcher, for_presenter) = (Arc::new(Chime::default()), Arc::new(Chime::default()));
        let waker = |chime: &Arc<Chime>| Box::new(Shared(Arc::clone(chime)));
        let exchange = Exchange::new(waker(&for_watcher), waker(&for_presenter), Facts);
        Arc::new(Self { exchange, device: Device::default(), for_watcher, for_presenter })
    }

    /// The watcher's half, until the end. Like the real one, it polls once for each wake-up.
    pub fn watch(&self) {
        loop {
            let Some(wishes) = self.exchange.wishes() else {
                self.for_watcher.wait();
                continue;
            };
            if wishes.stop {
                return;
            }
            let Wishes { epoch, one_shot, .. } = wishes;
            drop(wishes);
            if epoch % 2 == 0 && self.call() {
                let report = Report { epoch, one_shot, token: Token };
                let notes = Notes { remarks: vec![1], retired: Vec::new() };
                self.exchange.leave(Some(report), notes, Facts);
            }
            self.for_watcher.wait();
        }
    }

    /// Calls the device. Returns false if that was not allowed.
    fn call(&self) -> bool {
        let before = self.device.resets.load(Ordering::SeqCst);
        let call = Call { name: "query", since: Duration::ZERO };
        let may = self.exchange.calls(call);
        let after = self.device.resets.load(Ordering::SeqCst);
        assert!(!(before && may && after), "a device that is being reset is called");
        if may {
            self.exchange.answered();
        }
        may
    }
}

#[derive(Debug)]
struct Shared(Arc<Chime>);

impl Waker for Shared {
    fn wake(&self) {
        self.0.wake();
    }
}

/// The presenter's half.
pub struct Presenter {
    meeting: Arc<Meeting>,
    wishes: Wishes,
    /// The last one-shot refresh that was answered.
    answered: u64,
    heard: usize,
}

impl Presenter {
    pub fn new(meeting: &Arc<Meeting>) -> Self {
        Self { meeting: Arc::clone(meeting), wishes: Wishes::default(), answered: 0, heard: 0 }
    }

    /// A refresh.
    pub fn refresh(&mut self) {
        let arrival = self.meeting.exchange.collect();
        assert_eq!(arrival.ending, Ending::Watching);
        self.heard += arrival.notes.remarks.len();
        if let Some(report) = arrival.report {
            if report.epoch == self.wishes.epoch {
                self.answered = report.one_shot;
                self.wishes.returned.push(Returned::Token(report.token));
            } else {
                self.wishes.returned.push(Returned::Report(report));
            }
        }
        self.meeting.exchange.post(&mut self.wishes);
    }

    /// A one-shot refresh, which waits for its answer.
    pub fn want_one_shot(&mut self) {
        self.wishes.one_shot += 1;
        self.meeting.exchange.post(&mut self.wishes);
        while self.answered < self.wishes.one_shot {
            self.meeting.for_presenter.wait();
            self.refresh();
        }
        assert!(self.heard > 0, "what was said came with it, or before");
    }

    pub fn reset(&mut self) {
        self.wishes.epoch += 1;
        self.meeting.exchange.withdraw(&mut self.wishes);
        self.meeting.device.resets.store(true, Ordering::SeqCst);
        self.meeting.device.resets.store(false, Ordering::SeqCst);
        self.wishes.epoch += 1;
        self.meeting.exchange.post(&mut self.wishes);
    }

    pub fn end(mut self) {
        self.wishes.stop = true;
        self.meeting.exchange.withdraw(&mut self.wishes);
    }
}
