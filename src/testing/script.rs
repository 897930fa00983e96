//! A device, a guest and a user who do what a string of bytes says: for fuzzing, and for random
//! tests.
//!
//! The first byte chooses the mode. Each step is a byte that chooses what happens, and the bytes
//! that it needs; where bytes are missing, they are zero. Whatever the bytes are, the display must
//! not panic, must read and import no more than there is, and must give everything back in the end.

use std::os::unix::fs::FileExt;
use std::time::Duration;

use crate::config::Config;
use crate::console::{Monitor, ScanoutSupport};
use crate::device::Mode;
use crate::display::Display;
use crate::pool::Limits;

use super::bytes::{Bytes, MAX_FILE};
use super::{Apart, FakeConsole, FakeDevice, FakeEdid, FakeRegion, Fixture, ManualClock};

type TestedDisplay = Display<FakeDevice, FakeConsole, ManualClock>;

/// No script is longer, in steps.
const MAX_STEPS: usize = 4096;

/// Kinds of steps.
const STEPS: u8 = 26;

const EDID_REGION: u32 = 9;

const SUPPORTS: [ScanoutSupport; 3] =
    [ScanoutSupport::None, ScanoutSupport::ReadBack, ScanoutSupport::Import];

/// Does what the script says, and panics if the display does something wrong.
///
/// # Panics
///
/// If the display, or a fake, finds something wrong.
pub fn run(script: &[u8]) {
    play(script, |mode, config, device| Halves::Together(Fixture::new(mode, config, device)));
}

/// As [`run`], with the halves of the display apart: the watcher takes its turns between the steps,
/// and some steps come while a call of the device is under way.
///
/// # Panics
///
/// If the display, or a fake, finds something wrong.
pub fn run_apart(script: &[u8]) {
    play(script, |mode, config, device| Halves::Apart(Box::new(Apart::new(mode, config, device))));
}

/// The display of a script.
enum Halves {
    Together(Fixture),
    Apart(Box<Apart>),
}

impl Halves {
    fn fixture(&mut self) -> &mut Fixture {
        match self {
            Self::Together(fixture) => fixture,
            Self::Apart(apart) => &mut apart.fixture,
        }
    }

    /// Runs the watcher, or hooks into it, before a step.
    fn meet(&mut self, how: u8) {
        let Self::Apart(apart) = self else { return };
        let display = apart.fixture.share_display();
        let during = |act: fn(&mut TestedDisplay)| {
            apart.fixture.device.on_next_query(move || {
                if let Some(display) = display.borrow_mut().as_mut() {
                    act(display);
                }
            });
        };
        match how {
            0..6 => (0..how % 3).for_each(|_| {
                apart.turn();
            }),
            6 => during(|display| display.refresh(true)),
            7 => during(|display| display.refresh(false)),
            8 => during(Display::reset),
            _ => during(Display::invalidate),
        }
    }

    fn reset(&mut self) {
        self.fixture().display().reset();
        if let Self::Apart(apart) = self {
            // As long as it takes.
            apart.turn();
            apart.fixture.refresh();
        }
        self.fixture().display().reset_done();
    }

    fn refresh(&mut self) {
        if let Self::Apart(apart) = self {
            apart.turn();
            if apart.for_presenter.take() > 0 {
                apart.fixture.display().arrived();
            }
        }
        self.fixture().refresh();
    }

    fn end(self) -> (FakeDevice, FakeConsole) {
        match self {
            Self::Together(mut fixture) => {
                fixture.end();
                (fixture.device, fixture.console)
            }
            Self::Apart(apart) => {
                // Ends a reset that began within a device call.
                apart.fixture.share_display().borrow_mut().iter_mut().for_each(Display::reset_done);
                apart.end()
            }
        }
    }
}

fn play(script: &[u8], new: impl FnOnce(Mode, Config, &FakeDevice) -> Halves) {
    let mut bytes = Bytes(script);
    let device = FakeDevice::default();
    let choices = bytes.byte();
    let mode = if choices & 1 == 0 { Mode::DmaBuf } else { Mode::Region };
    if choices & 2 != 0 {
        let registers: [u8; 24] = bytes.take();
        let mut edid = FakeEdid::new(EDID_REGION, 128, 0, 0);
        edid.bytes[..24].copy_from_slice(&registers);
        edid.strict = choices & 4 != 0;
        device.set().edid = Some(edid);
    }
    device.set().keeps_ids = choices & 32 != 0;
    device.set().has_events = choices & 128 != 0;
    let config = Config {
        pool: Limits { count: 3, bytes: 2 * MAX_FILE },
        import: choices & 8 == 0,
        share: choices & 64 != 0,
        events: choices & 128 != 0,
        ..Config::default()
    };
    let mut halves = new(mode, config, &device);
    halves.fixture().console.set().support =
        if choices & 16 != 0 { ScanoutSupport::Import } else { ScanoutSupport::None };
    for _ in 0..MAX_STEPS {
        if bytes.0.is_empty() {
            break;
        }
        step(&mut halves, &mut bytes);
    }
    let status = halves.fixture().display().status();
    assert!(halves.fixture().display().describe().contains("fake"));
    if mode == Mode::DmaBuf {
        assert_eq!(status["pool"]["violations"], 0, "{status}");
    }
    let (_, console) = halves.end();
    assert!(console.get().imports.is_empty(), "an import is never released");
    let mut inner = device.set();
    inner.dma_bufs.clear();
    inner.regions.clear();
    drop(inner);
    assert_eq!(device.files().open_descriptors(), 0, "a descriptor is never closed");
    assert_eq!(device.files().mappings(), 0, "a mapping is never ended");
}

/// Fills all that is shown, as the guest.
fn draw_all(device: &FakeDevice, value: u8) {
    let inner = device.get();
    let handle = inner.primary.handle;
    let files = inner.dma_bufs.get(&handle).into_iter();
    for file in files.chain(inner.regions.get(&handle).map(|region| &region.file)) {
        let len = file.metadata().map_or(0, |metadata| metadata.len());
        let bytes = vec![value; usize::try_from(len).unwrap_or(0)];
        // Writing within the file cannot fail for lack of room.
        let _ = file.write_all_at(&bytes, 0);
    }
}

fn step(halves: &mut Halves, bytes: &mut Bytes<'_>) {
    let choice = bytes.byte();
    halves.meet(choice / STEPS);
    match choice % STEPS {
        what @ 0..17 => change_device(&halves.fixture().device.clone(), what, bytes),
        what => act(halves, what, bytes),
    }
}

/// What the device, its driver or the guest does.
fn change_device(device: &FakeDevice, what: u8, bytes: &mut Bytes<'_>) {
    match what {
        0 => device.set().primary = bytes.any_plane(),
        1 => device.set().primary = bytes.likely_plane(),
        2 => device.set().cursor = bytes.any_plane(),
        3 => device.set().cursor = bytes.likely_plane(),
        4 => {
            let len = bytes.len();
            let file = bytes.file(device.files(), len);
            device.set().dma_bufs.insert(bytes.handle(), file);
        }
        5 => {
            let plane = bytes.likely_plane();
            let size = u64::from(plane.size).min(MAX_FILE);
            let file = bytes.file(device.files(), size);
            device.set().dma_bufs.insert(plane.handle, file);
            device.set().primary = plane;
        }
        6 => {
            let handle = bytes.handle();
            device.set().dma_bufs.remove(&handle);
        }
        7 => {
            let size = bytes.one_of([0, 4096, 1 << 16, u64::MAX]);
            let len = bytes.len();
            let region = FakeRegion {
                size,
                file: bytes.file(device.files(), len),
                offset: bytes.one_of([0, 0, 4096, 1, u64::MAX]),
                mappable: bytes.flag(),
            };
            device.set().regions.insert(bytes.handle(), region);
        }
        8 => {
            let plane = bytes.likely_plane();
            let size = u64::from(plane.size).min(MAX_FILE);
            let file = bytes.file(device.files(), size);
            let region = FakeRegion { size, file, offset: 0, mappable: bytes.flag() };
            device.set().regions.insert(plane.handle, region);
            device.set().primary = plane;
        }
        9 => {
            // Sealed files refuse.
            let (handle, len) = (bytes.handle(), bytes.len());
            let inner = device.get();
            let files = inner.dma_bufs.get(&handle).into_iter();
            for file in files.chain(inner.regions.get(&handle).map(|region| &region.file)) {
                let _ = file.set_len(len);
            }
        }
        10 => {
            let plane = bytes.likely_plane();
            device.set().flips_before_gets.push_back(plane);
        }
        11 => device.set().primary_errors = bytes.errors(),
        12 => device.set().cursor_errors = bytes.errors(),
        13 => device.set().get_errors = bytes.errors(),
        14 => device.set().region_errors = bytes.errors(),
        15 => device.set().read_errors = bytes.errors(),
        _ => device.set().write_errors = bytes.errors(),
    }
}

/// What front ends, QEMU or time do.
fn act(halves: &mut Halves, what: u8, bytes: &mut Bytes<'_>) {
    let fixture = halves.fixture();
    match what {
        17 => fixture.console.set().support = SUPPORTS[usize::from(bytes.byte()) % SUPPORTS.len()],
        18 => fixture.console.set().firmware = bytes.flag(),
        19 => {
            let block = bytes.flag();
            fixture.display().block(block);
        }
        20 => halves.reset(),
        21 => fixture.display().invalidate(),
        22 => {
            let monitor =
                Monitor { width: bytes.medium(), height: bytes.small(), ..Monitor::default() };
            fixture.display().set_monitor(monitor);
            let _ = fixture.display().capture();
        }
        23 => {
            let device = fixture.device.clone();
            fixture.pass(Duration::from_millis(bytes.medium().into()));
            let count = bytes.byte();
            for value in 0..=count % 8 {
                if count & 128 != 0 {
                    draw_all(&device, value);
                }
                halves.refresh();
            }
        }
        24 => fixture.device.signal(),
        _ => {
            let _ = fixture.display().share_scanout();
        }
    }
}
