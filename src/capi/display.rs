//! `VfioDpy`: the display of one device.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::rc::Rc;

use crate::clock::Alarm;
use crate::console::{Console as _, Monitor};
use crate::display::{self, Config, Display, Mode, OptionError, ShareError};

use super::clock::{Attached, MainLoopClock, Sleeper, on_readable};
use super::console::{HostConsole, VfioDpyConsoleOps};
use super::device::{HostDevice, VfioDpyDeviceOps};
use super::watcher::{EventBell, VfioDpyWatcher};
use super::{PANICKED, boundary, c_string, explained, tell};

/// How a device gives its planes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VfioDpyMode {
    /// The device has no graphics planes.
    None = 0,
    /// As dma-bufs.
    DmaBuf = 1,
    /// In a region of its own.
    Region = 2,
}

/// What a user may choose. Zero everywhere is a good choice.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VfioDpyConfig {
    /// Preferred pixels in a row, for the EDID; 0: the most that the device can do.
    pub xres: u32,
    /// Preferred rows, for the EDID; 0: the most that the device can do.
    pub yres: u32,
    /// More for experts: `key=value`, separated by commas. NULL says nothing.
    ///
    /// - `import=off`: show all as a surface, even where a front end imports dma-bufs;
    /// - `read-back=on`: give dma-bufs to front ends that only copy them back into memory (VFIO_DPY_UPTAKE_READ_BACK), even
    ///   where the library can read them itself;
    /// - `compare=off`: pass on whole surfaces, not only what changed;
    /// - `glance=off`: compare all rows of a surface at each periodic refresh, not half of them;
    /// - `direct=off`: never show a region's memory itself (show_memory), also while everything in it moves;
    /// - `pacing=off`: look at the device only at vfio_dpy_refresh();
    /// - `events=on`: have a device that can (docs/display-events.md) say when something changed, instead of looking when it
    ///   may have;
    /// - `thread=on`: ask the device on a thread of its own, if the host gives one: vfio_dpy_watcher();
    /// - `pool-buffers=N`, `pool-bytes=N`: how many dma-bufs to hold at most besides those on screen, and how many bytes (K, M
    ///   and G may follow).
    pub options: *const c_char,
    /// Let other devices of the VM have the scanout: see vfio_dpy_share_scanout().
    pub share: bool,
    /// The name of the device's driver, as the symbolic link `driver` in sysfs has it; NULL if there is none, or it is not known. Some
    /// drivers must be treated with care.
    pub driver: *const c_char,
}

/// The display of one device.
///
/// If the library fails in a call, that is printed, and the display stands still from then on: what it is told has no effect, and what it is
/// asked for is what the functions return on failure.
///
/// All functions of a display run on one thread, or under one lock; they may be called from within the callbacks, and then take
/// effect when the outer call ends.
pub struct VfioDpy {
    display: RefCell<Engine>,
    pending: RefCell<VecDeque<Event>>,
    broken: Cell<bool>,
    /// Hears what a watcher on a thread of its own rings.
    arrivals: RefCell<Option<Attached>>,
    /// For what must be answered even when the display is broken.
    console: HostConsole,
}

type Engine = Display<HostDevice, HostConsole, MainLoopClock>;

/// What a caller wants of the display.
enum Event {
    Refresh { periodic: bool },
    Invalidate,
    SetMonitor(Monitor),
    Block(bool),
    Reset,
    ResetDone,
    Arrived,
    Alarm(Alarm),
    Close,
}

impl VfioDpy {
    /// Called when an alarm goes off.
    pub(super) fn wake(&self, alarm: Alarm) {
        self.handle(Event::Alarm(alarm));
    }

    /// Has the display do, or say, something at once; `None` if it is busy with a call that this one comes from, or broken.
    fn with<R>(&self, body: impl FnOnce(&mut Engine) -> R) -> Option<R> {
        if self.broken.get() {
            return None;
        }
        let Ok(mut display) = self.display.try_borrow_mut() else { return None };
        let result = boundary(None, || Some(body(&mut display)));
        self.broken.set(result.is_none());
        result
    }

    /// Called when the watcher rings.
    pub(super) fn arrived(&self) {
        self.handle(Event::Arrived);
    }

    /// Callbacks may call back: what comes while the display is busy waits for its turn.
    fn handle(&self, event: Event) {
        if self.broken.get() {
            // Who looks once waits for an answer, and gets the picture that stands still.
            if matches!(event, Event::Refresh { periodic: false }) {
                self.console.looked();
            }
            return;
        }
        self.pending.borrow_mut().push_back(event);
        let finished = boundary(false, || {
            let Ok(mut display) = self.display.try_borrow_mut() else { return true };
            loop {
                let Some(event) = self.pending.borrow_mut().pop_front() else { return true };
                match event {
                    Event::Refresh { periodic } => display.refresh(periodic),
                    Event::Invalidate => display.invalidate(),
                    Event::SetMonitor(monitor) => display.set_monitor(monitor),
                    Event::Block(block) => display.block(block),
                    Event::Reset => display.reset(),
                    Event::ResetDone => display.reset_done(),
                    Event::Arrived => display.arrived(),
                    Event::Alarm(alarm) => display.alarm(alarm),
                    Event::Close => display.close(),
                }
            }
        });
        // After a panic nobody knows what the display believes: the picture stands still, the VM runs on.
        self.broken.set(!finished);
        if !finished {
            self.console.looked();
        }
    }
}

/// Finds out how a device gives its planes.
///
/// Returns a VfioDpyMode, or a negative errno if the device does not answer at all; EINVAL: a callback is missing.
///
/// # Safety
///
/// `ops` points to a whole table, which works with `device`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_probe(
    ops: *const VfioDpyDeviceOps,
    device: *mut c_void,
) -> c_int {
    boundary(-libc::EIO, || {
        // SAFETY: the caller gives a table.
        if unsafe { &*ops }.missing().is_some() {
            return -libc::EINVAL;
        }
        // SAFETY: the table is whole, and works with `device`, as the caller says.
        let device = unsafe { HostDevice::new(*ops, device, String::new(), "") };
        match display::probe(&device) {
            Ok(Some(Mode::DmaBuf)) => VfioDpyMode::DmaBuf as c_int,
            Ok(Some(Mode::Region)) => VfioDpyMode::Region as c_int,
            Ok(None) => VfioDpyMode::None as c_int,
            Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
        }
    })
}

/// Makes the display of a device that vfio_dpy_probe() found to be in this mode.
///
/// `name` is how messages name the device. The tables, the configuration and the name are copied; `device` and `console` are
/// used until vfio_dpy_free().
///
/// Returns NULL if `mode` is not VFIO_DPY_MODE_DMA_BUF or VFIO_DPY_MODE_REGION, if a callback is missing, or if the options are none;
/// then, if `message` is not NULL, *message says why. Free it with g_free().
///
/// # Safety
///
/// All pointers are valid, except that `message` may be NULL; `name` is a string, as are those of `config` unless NULL; the tables work
/// with `device` and `console`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_new(
    mode: c_int,
    device_ops: *const VfioDpyDeviceOps,
    device: *mut c_void,
    name: *const c_char,
    console_ops: *const VfioDpyConsoleOps,
    console: *mut c_void,
    config: *const VfioDpyConfig,
    message: *mut *mut c_char,
) -> *mut VfioDpy {
    let make = || {
        let refuse = |why: String| {
            // SAFETY: the caller gives a valid place, or NULL.
            unsafe { tell(message, &why) };
            std::ptr::null_mut()
        };
        // SAFETY: the caller gives both tables.
        let missing = unsafe { (*device_ops).missing().or((*console_ops).missing()) };
        if let Some(callback) = missing {
            return refuse(format!("the callback {callback} is missing"));
        }
        let mode = match mode {
            m if m == VfioDpyMode::DmaBuf as c_int => Mode::DmaBuf,
            m if m == VfioDpyMode::Region as c_int => Mode::Region,
            _ => return refuse(format!("{mode} is no mode of a display")),
        };
        // SAFETY: the caller gives a valid configuration.
        let VfioDpyConfig { driver, .. } = unsafe { *config };
        // SAFETY: as above.
        let config = match unsafe { (*config).to_config() } {
            Ok(config) => config,
            Err(error) => return refuse(error.to_string()),
        };
        // SAFETY: the caller gives a valid string.
        let name = unsafe { text_of(name) }.into_owned();
        // SAFETY: the caller gives a whole table that works with `device`, until the display is freed.
        let device = unsafe { HostDevice::new(*device_ops, device, name, &text_of(driver)) };
        // SAFETY: the caller gives a whole table that works with `console`, until the display is freed.
        let new_console = || unsafe { HostConsole::new(*console_ops, console) };

        let sleeper = Sleeper::new(Cell::new(std::ptr::null()));
        let clock = MainLoopClock::new(Rc::clone(&sleeper));
        let display = Display::new(device, new_console(), clock, mode, config);
        let handle = Box::into_raw(Box::new(VfioDpy {
            display: RefCell::new(display),
            pending: RefCell::default(),
            broken: Cell::new(false),
            arrivals: RefCell::default(),
            console: new_console(),
        }));
        sleeper.set(handle);
        handle
    };
    // SAFETY: the caller gives a valid place, or NULL.
    unsafe { explained(message, std::ptr::null_mut(), make) }
}

impl VfioDpyConfig {
    /// # Safety
    ///
    /// `options` is a string or NULL.
    unsafe fn to_config(self) -> Result<Config, OptionError> {
        let Self { xres, yres, options, share, driver: _ } = self;
        let mut config = Config { xres, yres, share, ..Config::default() };
        // SAFETY: the caller gives a string or NULL.
        config.apply(&unsafe { text_of(options) })?;
        Ok(config)
    }
}

/// A string from C; NULL is empty.
///
/// # Safety
///
/// `text` is a string that lives for as long as the result, or NULL.
unsafe fn text_of<'a>(text: *const c_char) -> Cow<'a, str> {
    if text.is_null() {
        return Cow::Borrowed("");
    }
    // SAFETY: the caller gives a string.
    unsafe { CStr::from_ptr(text) }.to_string_lossy()
}

/// Ends a display: releases all imports, and closes all descriptors. Not from within a callback. NULL is fine.
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new() and not freed yet, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_free(dpy: *mut VfioDpy) {
    if dpy.is_null() {
        return;
    }
    // Front ends may call back while they let go of what they show, so that is done while the display still is one.
    // SAFETY: the caller gives a display.
    let display = unsafe { &*dpy };
    display.arrivals.borrow_mut().take();
    display.handle(Event::Close);
    if display.broken.replace(true) {
        // Nobody knows what the console still shows: rather lose all of it than free what is used.
        boundary((), || {
            if let Ok(mut display) = display.display.try_borrow_mut() {
                display.abandon();
            }
        });
        return;
    }
    // SAFETY: the pointer is from `Box::into_raw` in vfio_dpy_new(), and freed once.
    boundary((), || drop(unsafe { Box::from_raw(dpy) }));
}

/// Whether the guest can be told about its monitor.
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_has_edid(dpy: *const VfioDpy) -> bool {
    // SAFETY: the caller gives a display.
    let dpy = unsafe { &*dpy };
    dpy.with(|display| display.has_edid()).unwrap_or(false)
}

/// Looks at the device, and shows what it shows now: GraphicHwOps.gfx_update.
///
/// `periodic`: a front end's timer went off, and will again: of a surface, a line one row high may be seen only at the next refresh. False
/// for who looks once, for instance to take a screenshot: all that is shown then is what the device shows.
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_refresh(dpy: *const VfioDpy, periodic: bool) {
    // SAFETY: the caller gives a display.
    unsafe { &*dpy }.handle(Event::Refresh { periodic });
}

/// A front end wants to see all again: GraphicHwOps.invalidate.
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_invalidate(dpy: *const VfioDpy) {
    // SAFETY: the caller gives a display.
    unsafe { &*dpy }.handle(Event::Invalidate);
}

/// A front end shows the console in a window like this: GraphicHwOps.ui_info. Zero pixels: it does not show it.
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new(), `monitor` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_set_monitor(dpy: *const VfioDpy, monitor: *const Monitor) {
    // SAFETY: the caller gives a display and a monitor.
    let (dpy, monitor) = unsafe { (&*dpy, *monitor) };
    dpy.handle(Event::SetMonitor(monitor));
}

/// A front end took the scanout and has not released it yet, or now has: GraphicHwOps.gl_block.
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_block(dpy: *const VfioDpy, block: bool) {
    // SAFETY: the caller gives a display.
    unsafe { &*dpy }.handle(Event::Block(block));
}

/// The device is about to be reset: nothing that it told holds any more.
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_reset(dpy: *const VfioDpy) {
    // SAFETY: the caller gives a display.
    unsafe { &*dpy }.handle(Event::Reset);
}

/// The device has been reset: see vfio_dpy_reset().
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_reset_done(dpy: *const VfioDpy) {
    // SAFETY: the caller gives a display.
    unsafe { &*dpy }.handle(Event::ResetDone);
}

/// Gives what watches the device away, for a thread of the host's to call vfio_dpy_watch() with: from now on the display waits for the device
/// neither in vfio_dpy_refresh() nor elsewhere. To be called once, on the thread that runs the GLib default main context.
///
/// NULL if the user does not want that (the option `thread=off`), or if it cannot be done: the device is then asked in
/// vfio_dpy_refresh(), as it is where this function is never called.
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_watcher(dpy: *const VfioDpy) -> *mut VfioDpyWatcher {
    // SAFETY: the caller gives a display.
    let dpy = unsafe { &*dpy };
    boundary(std::ptr::null_mut(), || {
        let (Ok((ours, arrivals)), Ok((theirs, rung))) = (EventBell::new(), EventBell::new())
        else {
            return std::ptr::null_mut();
        };
        let Ok(mut display) = dpy.display.try_borrow_mut() else { return std::ptr::null_mut() };
        let Some((watcher, exchange)) = display.detach(Box::new(theirs), Box::new(ours)) else {
            return std::ptr::null_mut();
        };
        *dpy.arrivals.borrow_mut() = Some(on_readable(arrivals, dpy, VfioDpy::arrived));
        Box::into_raw(Box::new(VfioDpyWatcher::new(watcher, exchange, rung)))
    })
}

/// Shares the dma-buf that the device shows now with other devices of the VM, by a UUID.
///
/// The UUID is the same for as long as the display holds the buffer, and goes with it. virtio_lookup_dmabuf() and
/// vfio_dpy_objects_dup_dmabuf() find it.
///
/// Writes 16 bytes to `uuid` on success. On failure, if `message` is not NULL, *message says why; free it with g_free().
///
/// Returns 0 or a negative errno: EPERM: sharing is not switched on; ENOTSUP: the device shows a region; ENOENT: it shows
/// nothing; EBUSY: called from within a callback; EIO: anything else, such as a device that does not answer.
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new(), `uuid` has room for 16 bytes, `message` is valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_share_scanout(
    dpy: *const VfioDpy,
    uuid: *mut u8,
    message: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller gives a display.
    let dpy = unsafe { &*dpy };
    let share = || match dpy.with(Display::share_scanout) {
        None => {
            let (errno, why) = if dpy.broken.get() {
                (libc::EIO, PANICKED)
            } else {
                (libc::EBUSY, "the display is busy")
            };
            // SAFETY: the caller gives a valid place, or NULL.
            unsafe { tell(message, why) };
            -errno
        }
        Some(Ok(shared)) => {
            // SAFETY: the caller gives room for 16 bytes; an array of bytes has no alignment.
            unsafe { *uuid.cast() = shared.into_bytes() };
            0
        }
        Some(Err(error)) => {
            // SAFETY: the caller gives a valid place, or NULL.
            unsafe { tell(message, &error.to_string()) };
            -match error {
                ShareError::Off => libc::EPERM,
                ShareError::Region => libc::ENOTSUP,
                ShareError::NoPlane => libc::ENOENT,
                ShareError::Plane(_) | ShareError::Duplicate(_) | ShareError::Table(_) => libc::EIO,
            }
        }
    };
    // SAFETY: the caller gives a valid place, or NULL.
    unsafe { explained(message, -libc::EIO, share) }
}

/// What the display shows, holds and did, as a JSON object. Free it with g_free(). NULL from within a callback.
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_status(dpy: *const VfioDpy) -> *mut c_char {
    // SAFETY: the caller gives a display.
    unsafe { text(dpy, r#"{"broken":true}"#, |display| display.status().to_string()) }
}

/// What the display shows, holds and did, in a few lines for people. Free it with g_free(). NULL from within a callback.
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_describe(dpy: *const VfioDpy) -> *mut c_char {
    // SAFETY: the caller gives a display.
    unsafe { text(dpy, &format!("{PANICKED}\n"), Engine::describe) }
}

/// # Safety
///
/// `dpy` is from vfio_dpy_new().
unsafe fn text(
    dpy: *const VfioDpy,
    broken: &str,
    tell: impl FnOnce(&Engine) -> String,
) -> *mut c_char {
    // SAFETY: the caller gives a display.
    let dpy = unsafe { &*dpy };
    let text = dpy.with(|display| tell(display)).or(dpy.broken.get().then(|| broken.to_owned()));
    text.map_or(std::ptr::null_mut(), |text| c_string(&text))
}

/// A copy of the scanout, for those who cannot import it: `*height` rows of `*width` pixels in XRGB8888, without padding. Free it
/// with g_free().
///
/// NULL, and nothing written, if no scanout is shown, if its pixels cannot be read without a GPU, or from within a callback.
///
/// # Safety
///
/// `dpy` is from vfio_dpy_new(), `width` and `height` are writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_capture(
    dpy: *const VfioDpy,
    width: *mut u32,
    height: *mut u32,
) -> *mut u8 {
    // SAFETY: the caller gives a display.
    let dpy = unsafe { &*dpy };
    boundary(std::ptr::null_mut(), || {
        let Some(Some(picture)) = dpy.with(Display::capture) else { return std::ptr::null_mut() };
        // SAFETY: any size may be asked for.
        let copy = unsafe { glib::ffi::g_try_malloc(picture.pixels.len()) }.cast::<u8>();
        if !copy.is_null() {
            // SAFETY: the copy was made as large as the picture; the caller's pointers are writable.
            unsafe {
                copy.copy_from_nonoverlapping(picture.pixels.as_ptr(), picture.pixels.len());
                *width = picture.width;
                *height = picture.height;
            }
        }
        copy
    })
}
