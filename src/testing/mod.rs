//! Fakes of everything around a display: a device, a console and a clock.
//!
//! They are strict: what a real console could not bear, such as the release of a buffer that is
//! shown, is a panic here. Handles are clones of one another, so that a test keeps its own while
//! the display owns one.

#![forbid(unsafe_code)]

mod apart;
pub(crate) mod bytes;
mod clock;
mod console;
mod device;
pub mod script;
mod wrong_file;

use std::cell::{RefCell, RefMut};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use drm_fourcc::DrmFourcc;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::clock::Alarm;
use crate::config::Config;
use crate::device::Mode;
use crate::display::Display;
use crate::plane::{HOTSPOT_UNSET, PlaneInfo};

pub use apart::{Apart, Rings};
pub use clock::ManualClock;
pub use console::{Call, FakeCanvas, FakeConsole, Image, Import, SeenMemory, Shows};
pub use device::{Counts, Errors, FakeDevice, FakeEdid, FakeRegion, Write};
pub use wrong_file::WrongFile;

/// A display that several parts of a test use in turn.
pub type SharedDisplay = Rc<RefCell<Option<Display<FakeDevice, FakeConsole, ManualClock>>>>;

/// A display between fakes.
pub struct Fixture {
    /// The device.
    pub device: FakeDevice,
    /// The console.
    pub console: FakeConsole,
    /// The clock.
    pub clock: ManualClock,
    /// The display; `None` once it has ended.
    display: SharedDisplay,
}

impl Fixture {
    /// A display of this device, which is set up already.
    pub fn new(mode: Mode, config: Config, device: &FakeDevice) -> Self {
        let console = FakeConsole::default();
        device.set().edid_len = 128;
        let clock = ManualClock::default();
        let display = Display::new(device.clone(), console.clone(), clock.clone(), mode, config);
        Self {
            device: device.clone(),
            console,
            clock,
            display: Rc::new(RefCell::new(Some(display))),
        }
    }

    /// The display.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn display(&mut self) -> RefMut<'_, Display<FakeDevice, FakeConsole, ManualClock>> {
        RefMut::map(self.display.borrow_mut(), |display| {
            display.as_mut().expect("the display has not ended")
        })
    }

    /// Returns the same display, for hooks that run during device calls.
    pub fn share_display(&self) -> SharedDisplay {
        Rc::clone(&self.display)
    }

    /// Refreshes once, and returns the calls of the console.
    pub fn refresh(&mut self) -> Vec<Call> {
        self.refresh_as(true)
    }

    /// As [`Fixture::refresh`]; also returns whether another refresh was requested.
    pub fn refresh_as(&mut self, periodic: bool) -> Vec<Call> {
        self.console.take_calls();
        self.display().refresh(periodic);
        self.console.take_calls()
    }

    /// Refreshes until the display stops waiting for a plane that is off. Returns the calls of the
    /// console then.
    pub fn refresh_after_gap(&mut self) -> Vec<Call> {
        self.refresh();
        self.pass(Duration::from_millis(300));
        self.refresh()
    }

    /// Lets time pass, with alarms that go off on time.
    pub fn pass(&mut self, time: Duration) {
        let end = self.clock.time() + time;
        loop {
            if let Some(alarm) = self.clock.take_signalled() {
                self.display().alarm(alarm);
                continue;
            }
            let Some((alarm, due)) = self.clock.next_alarm().filter(|&(_, due)| due <= end) else {
                break;
            };
            self.clock.set_time(due);
            self.clock.forget(alarm);
            self.display().alarm(alarm);
        }
        self.clock.set_time(end);
    }

    /// Ends the display.
    pub fn end(&mut self) {
        *self.display.borrow_mut() = None;
    }

    /// When this alarm will go off, from now.
    pub fn alarm_in(&self, alarm: Alarm) -> Option<Duration> {
        self.clock.due(alarm).map(|due| due.saturating_sub(self.clock.time()))
    }
}

/// Files in memory with a name of their own, so that a test can tell its descriptors from those of
/// tests beside it.
#[derive(Clone, Debug)]
pub struct Memfds {
    name: String,
}

impl Default for Memfds {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { name: format!("vfio-display-test-{}-", NEXT.fetch_add(1, Ordering::Relaxed)) }
    }
}

impl Memfds {
    /// A file of `len` zero bytes; sealed, it cannot shrink, and can therefore be mapped.
    ///
    /// # Panics
    ///
    /// If the machine cannot provide it.
    pub fn create(&self, len: u64, sealed: bool) -> File {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create(self.name.as_str(), flags).expect("a memfd"));
        file.set_len(len).expect("a memfd of this size");
        if sealed {
            fcntl_add_seals(&file, SealFlags::SHRINK).expect("a seal");
        }
        file
    }

    /// As [`Memfds::create`], with these bytes.
    ///
    /// # Panics
    ///
    /// If the machine cannot provide it.
    pub fn with(&self, bytes: &[u8], sealed: bool) -> File {
        let file = self.create(bytes.len() as u64, sealed);
        file.write_all_at(bytes, 0).expect("room in a memfd");
        file
    }

    /// How many descriptors of this process lead to such files.
    ///
    /// # Panics
    ///
    /// If /proc is not there.
    pub fn open_descriptors(&self) -> usize {
        let links = fs::read_dir("/proc/self/fd").expect("/proc is mounted");
        // Tests that run beside this one may close descriptors meanwhile.
        links
            .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
            .filter(|target| target.to_string_lossy().contains(&self.name))
            .count()
    }

    /// How many mappings of this process are of such files.
    ///
    /// # Panics
    ///
    /// If /proc is not there.
    pub fn mappings(&self) -> usize {
        let maps = fs::read_to_string("/proc/self/maps").expect("/proc is mounted");
        maps.lines().filter(|line| line.contains(&self.name)).count()
    }
}

/// The answer of a device with a plane of 32-bit pixels without padding.
pub fn plane(handle: u32, width: u32, height: u32) -> PlaneInfo {
    PlaneInfo {
        drm_format: DrmFourcc::Xrgb8888 as u32,
        width,
        height,
        stride: width * 4,
        size: width * height * 4,
        x_hot: HOTSPOT_UNSET,
        y_hot: HOTSPOT_UNSET,
        handle,
        ..PlaneInfo::default()
    }
}

/// The answer of a device with a cursor of 64 by 64 pixels.
pub fn cursor(handle: u32, x_pos: u32, y_pos: u32) -> PlaneInfo {
    PlaneInfo { drm_format: DrmFourcc::Argb8888 as u32, x_pos, y_pos, ..plane(handle, 64, 64) }
}
