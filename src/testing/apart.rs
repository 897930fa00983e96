//! The two halves of a display, as if the watcher had a thread: each is stepped by hand, also
//! during a slow device call.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::config::Config;
use crate::device::Mode;
use crate::display::DeviceWatcher;
use crate::exchange::{Exchange, Waker};
use crate::watcher::Next;

use super::{Call, FakeConsole, FakeDevice, Fixture, ManualClock};

const MS: Duration = Duration::from_millis(1);

/// A waker that counts.
#[derive(Clone, Debug, Default)]
pub struct Rings(Arc<AtomicUsize>);

impl Waker for Rings {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Rings {
    /// Returns how often since the last call.
    pub fn take(&self) -> usize {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// A display, and its watcher.
pub struct Apart {
    /// The display's half.
    pub fixture: Fixture,
    /// The device's half.
    pub watcher: DeviceWatcher<FakeDevice, ManualClock>,
    /// The exchange between them.
    pub exchange: Arc<Exchange>,
    /// What wakes the watcher.
    pub for_watcher: Rings,
    /// What wakes the presenter.
    pub for_presenter: Rings,
    /// When the watcher wakes, and whether also for signals of the device.
    asleep: (Option<Duration>, bool),
}

impl Apart {
    /// A display in two halves.
    ///
    /// # Panics
    ///
    /// Never: a display that wants a thread gives its watcher away.
    pub fn new(mode: Mode, config: Config, device: &FakeDevice) -> Self {
        let mut fixture = Fixture::new(mode, Config { thread: true, ..config }, device);
        fixture.clock.set_time(Duration::from_secs(1));
        let (for_watcher, for_presenter) = (Rings::default(), Rings::default());
        let wakers = (Box::new(for_watcher.clone()), Box::new(for_presenter.clone()));
        let (watcher, exchange) = fixture.display().detach(wakers.0, wakers.1).expect("a watcher");
        Self { fixture, watcher, exchange, for_watcher, for_presenter, asleep: (None, false) }
    }

    /// Runs the watcher's turn.
    pub fn turn(&mut self) -> Next {
        self.watcher.turn(&self.exchange, false)
    }

    /// Runs both as they become due, with a refresh every 30 ms.
    pub fn run(&mut self, time: Duration) {
        let end = self.fixture.clock.time() + time;
        while self.fixture.clock.time() < end {
            self.turn();
            self.fixture.display().refresh(true);
            self.turn();
            self.fixture.display().refresh(true);
            self.fixture.pass(30 * MS);
        }
    }

    /// Runs both when they are woken, with a refresh every 30 ms.
    pub fn live(&mut self, time: Duration) {
        let end = self.fixture.clock.time() + time;
        let mut refresh = self.fixture.clock.time();
        while self.fixture.clock.time() < end {
            let now = self.fixture.clock.time();
            let signal = |watcher: &DeviceWatcher<_, _>| {
                let event = watcher.listens_to();
                event.is_some_and(|event| rustix::io::read(event, &mut [0; 8]).is_ok())
            };
            let signalled = self.asleep.1 && signal(&self.watcher);
            let rung = self.for_watcher.take() > 0;
            if rung || signalled || self.asleep.0.is_some_and(|until| until <= now) {
                let Next::Sleep(until) = self.watcher.turn(&self.exchange, signalled) else {
                    return;
                };
                self.asleep = (until, self.watcher.listens_to().is_some());
            }
            if self.for_presenter.take() > 0 {
                self.fixture.display().arrived();
                let asked = self.fixture.console.take_calls().contains(&Call::RequestRefresh);
                refresh = if asked { now } else { refresh };
            }
            if refresh <= now {
                self.fixture.display().refresh(true);
                refresh = now + 30 * MS;
            }
            self.fixture.pass(MS);
        }
    }

    /// Returns the queries of the primary plane so far.
    pub fn queries(&self) -> u32 {
        self.fixture.device.get().counts.primary
    }

    /// Returns the id of what is shown, from the display's status.
    pub fn handle(&mut self) -> serde_json::Value {
        self.fixture.display().status().pointer("/plane/handle").cloned().unwrap_or_default()
    }

    /// Ends both, and returns device and console.
    ///
    /// # Panics
    ///
    /// If the watcher does not end at once.
    pub fn end(mut self) -> (FakeDevice, FakeConsole) {
        self.fixture.end();
        assert_eq!(self.turn(), Next::Over);
        let Self { fixture, .. } = self;
        (fixture.device, fixture.console)
    }

    /// Returns how many one-shot refreshes are complete.
    pub fn refresh_done(&self) -> u64 {
        self.fixture.console.get().refresh_done
    }
}
