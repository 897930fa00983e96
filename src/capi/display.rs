//! `VfioDpy`: the display of one device.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{c_char, c_int, c_void};
use std::rc::Rc;

use crate::clock::Alarm;
use crate::config::{Config, OptionError};
use crate::console::{Console as _, Monitor};
use crate::device::Mode;
use crate::display::{self, Display, ShareError};

use super::clock::{Attached, MainLoopClock, on_signal};
use super::console::{HostConsole, VfioDpyConsoleOps};
use super::device::{HostDevice, VfioDpyDeviceOps};
use super::misuse::{self, OneThread};
use super::sized::{self, Growing};
use super::strings::{glib_string, text_of};
use super::watcher::{EventWaker, VfioDpyWatcher};
use super::{PANICKED, boundary, explained, tell};

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

/// What a user may choose. Zero everywhere except @size means defaults.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VfioDpyConfig {
    /// Set it to sizeof(struct VfioDpyConfig).
    pub size: u32,
    /// Preferred width for the EDID, in pixels; 0: the largest that the device supports.
    pub xres: u32,
    /// Preferred height for the EDID, in pixels; 0: the largest that the device supports.
    pub yres: u32,
    /// Allow the scanout to be shared with other devices of the VM: see vfio_dpy_share_scanout().
    pub share: bool,
    /// Name of the device's driver, the target of the symbolic link "driver" in sysfs. NULL if
    /// there is none, or it is not known. Some drivers have quirks.
    pub driver: *const c_char,
    /// More options: "key=value", separated by commas. NULL: defaults.
    ///
    /// - thread=on or off: whether to poll the device on a thread of its own, if the host provides
    ///   one: vfio_dpy_watcher().
    /// - events=on: let a device that can (docs/display-events.md) signal changes, instead of
    ///   polling it.
    /// - import=off: show dma-bufs as surfaces, even if a front end imports them.
    /// - pool-buffers=N, pool-bytes=N: maximum number of dma-bufs to hold besides those on screen,
    ///   and of their bytes; K, M or G may follow.
    pub options: *const c_char,
}

// SAFETY: it begins with its size, and consists of numbers and of pointers that may be NULL.
unsafe impl Growing for VfioDpyConfig {
    const NAME: &'static str = "struct VfioDpyConfig";
}

/// The display of one device.
///
/// Its functions are called by one thread at a time: on the display's thread, which runs the GLib
/// default main context, or under the lock that protects that (QEMU's big lock). They may be called
/// from within the callbacks of the console, except vfio_dpy_free(), and then take effect when the
/// outer call ends. They are not called from within the callbacks of the device.
///
/// If the library itself fails in a call (a bug), it prints that, and the display freezes: calls
/// have no effect from then on, and return what they return on failure.
pub struct VfioDpy {
    display: RefCell<Engine>,
    pending: RefCell<VecDeque<Event>>,
    broken: Cell<bool>,
    /// Hears what a watcher on a thread of its own rings.
    arrivals: RefCell<Option<Attached>>,
    /// For what must be answered even when the display is broken.
    console: HostConsole,
    caller: OneThread,
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
    /// Whether a call is under way from which this one comes.
    fn is_busy(&self) -> bool {
        self.display.try_borrow_mut().is_err()
    }

    /// Has the display do, or say, something at once; `None` if it is busy with a call that this
    /// one comes from, or broken.
    fn with<R>(&self, function: &str, body: impl FnOnce(&mut Engine) -> R) -> Option<R> {
        let _entered = self.caller.enter(function);
        if self.broken.get() {
            return None;
        }
        let Ok(mut display) = self.display.try_borrow_mut() else { return None };
        let result = boundary(None, || Some(body(&mut display)));
        self.broken.set(result.is_none());
        result
    }

    /// Callbacks may call back: what comes while the display is busy waits for its turn.
    fn handle(&self, function: &str, event: Event) {
        let _entered = self.caller.enter(function);
        if self.broken.get() {
            // A one-shot refresh waits for an answer, and gets the frozen picture.
            if matches!(event, Event::Refresh { periodic: false }) {
                self.console.refresh_done();
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
        // After a panic nobody knows what the display believes: the picture stands still, the VM
        // runs on.
        self.broken.set(!finished);
        if !finished {
            self.console.refresh_done();
        }
    }
}

/// Finds out how a device gives its planes.
/// @ops: Callbacks of the device.
/// @device: Passed to the callbacks.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL.
///
/// Context: Any thread that may call the device.
/// Return: A VfioDpyMode, or a negative errno: -EINVAL if @ops is invalid, else the error of a
/// device that does not answer.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_probe(
    ops: *const VfioDpyDeviceOps,
    device: *mut c_void,
    error: *mut *mut c_char,
) -> c_int {
    let probe = || {
        let fail = |errno: c_int, why: String| {
            // SAFETY: the caller gives a valid place, or NULL.
            unsafe { tell(error, &why) };
            -errno
        };
        // SAFETY: the caller gives a table.
        let ops = match unsafe { sized::read(ops) } {
            Ok(ops) => ops,
            Err(bad) => return fail(libc::EINVAL, bad.to_string()),
        };
        if ops.query_plane.is_none() {
            return fail(libc::EINVAL, missing("query_plane"));
        }
        // SAFETY: the table works with `device`, as the caller says.
        let device = unsafe { HostDevice::new(ops, device, String::new(), "") };
        match display::probe(&device) {
            Ok(Some(Mode::DmaBuf)) => VfioDpyMode::DmaBuf as c_int,
            Ok(Some(Mode::Region)) => VfioDpyMode::Region as c_int,
            Ok(None) => VfioDpyMode::None as c_int,
            Err(why) => fail(why.raw_os_error().unwrap_or(libc::EIO), why.to_string()),
        }
    };
    // SAFETY: the caller gives a valid place, or NULL.
    unsafe { explained(error, -libc::EIO, probe) }
}

fn missing(callback: &str) -> String {
    format!("the callback {callback} is missing")
}

/// Creates the display of a device.
/// @mode: How the device gives its planes: what vfio_dpy_probe() returned.
/// @device_ops: Callbacks of the device; copied.
/// @device: Passed to the callbacks of @device_ops.
/// @name: The device's name in messages; copied.
/// @console_ops: Callbacks of the console; copied.
/// @console: Passed to the callbacks of @console_ops.
/// @config: What the user chose; copied. NULL: defaults.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL.
///
/// Nothing is shown before the first vfio_dpy_refresh().
///
/// Context: The display's thread.
/// Return: The display, to be freed with vfio_dpy_free(); NULL if @mode is neither
/// VFIO_DPY_MODE_DMA_BUF nor VFIO_DPY_MODE_REGION, if a required callback is missing, or if an
/// option is invalid.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_new(
    mode: c_int,
    device_ops: *const VfioDpyDeviceOps,
    device: *mut c_void,
    name: *const c_char,
    console_ops: *const VfioDpyConsoleOps,
    console: *mut c_void,
    config: *const VfioDpyConfig,
    error: *mut *mut c_char,
) -> *mut VfioDpy {
    let create = || {
        // SAFETY: the caller's promise.
        let parts =
            unsafe { Parts::read(mode, device_ops, device, name, console_ops, console, config) };
        match parts {
            Ok(parts) => parts.assemble(),
            Err(why) => {
                // SAFETY: the caller gives a valid place, or NULL.
                unsafe { tell(error, &why) };
                std::ptr::null_mut()
            }
        }
    };
    // SAFETY: the caller gives a valid place, or NULL.
    unsafe { explained(error, std::ptr::null_mut(), create) }
}

/// What a display is made of, from the parameters of [`vfio_dpy_new`].
struct Parts {
    mode: Mode,
    device: HostDevice,
    console: HostConsole,
    /// The same, for when the display is broken.
    spare_console: HostConsole,
    config: Config,
}

impl Parts {
    /// Returns why the parameters are invalid, if they are.
    ///
    /// # Safety
    ///
    /// As the parameters of [`vfio_dpy_new`] say.
    unsafe fn read(
        mode: c_int,
        device_ops: *const VfioDpyDeviceOps,
        device: *mut c_void,
        name: *const c_char,
        console_ops: *const VfioDpyConsoleOps,
        console: *mut c_void,
        config: *const VfioDpyConfig,
    ) -> Result<Self, String> {
        let mode = match mode {
            m if m == VfioDpyMode::DmaBuf as c_int => Mode::DmaBuf,
            m if m == VfioDpyMode::Region as c_int => Mode::Region,
            _ => return Err(format!("{mode} is no mode of a display")),
        };
        // SAFETY: the caller gives both tables, and a configuration or NULL.
        let (device_ops, console_ops, config) = unsafe {
            let config = (!config.is_null()).then(|| sized::read(config));
            (sized::read(device_ops), sized::read(console_ops), config.transpose())
        };
        let device_ops = device_ops.map_err(|bad| bad.to_string())?;
        let console_ops = console_ops.map_err(|bad| bad.to_string())?;
        if let Some(callback) = device_ops.missing(mode).or(console_ops.missing()) {
            return Err(missing(callback));
        }
        let config = config.map_err(|bad| bad.to_string())?;
        let driver = config.map_or(std::ptr::null(), |config| config.driver);
        // SAFETY: the strings of the configuration are strings, or NULL.
        let config = config.map_or(Ok(Config::default()), |config| unsafe { config.to_config() });
        let config = config.map_err(|wrong| wrong.to_string())?;
        // SAFETY: the caller gives a valid string.
        let name = unsafe { text_of(name) }.into_owned();
        // SAFETY: the caller gives a table that works with `device`, until the display is freed.
        let device = unsafe { HostDevice::new(device_ops, device, name, &text_of(driver)) };
        // SAFETY: the caller gives a table that works with `console`, until the display is freed.
        let new_console = || unsafe { HostConsole::new(console_ops, console) };
        Ok(Self { mode, device, console: new_console(), spare_console: new_console(), config })
    }

    /// Returns a display, to be freed with [`vfio_dpy_free`].
    fn assemble(self) -> *mut VfioDpy {
        // The display sets alarms as it is made, before it has an address.
        let address = Rc::new(Cell::new(std::ptr::null::<VfioDpy>()));
        let asleep = Rc::clone(&address);
        let clock = MainLoopClock::new(Rc::new(move |alarm| {
            // SAFETY: the address is that of a display, which owns the clock and is not freed
            // before it, or NULL.
            if let Some(display) = unsafe { asleep.get().as_ref() } {
                display.handle("an alarm of the display", Event::Alarm(alarm));
            }
        }));
        let Self { mode, device, console, spare_console, config } = self;
        let handle = Box::into_raw(Box::new(VfioDpy {
            display: RefCell::new(Display::new(device, console, clock, mode, config)),
            pending: RefCell::default(),
            broken: Cell::new(false),
            arrivals: RefCell::default(),
            console: spare_console,
            caller: OneThread::default(),
        }));
        address.set(handle);
        handle
    }
}

impl VfioDpyConfig {
    /// # Safety
    ///
    /// `options` is a string, or NULL.
    unsafe fn to_config(self) -> Result<Config, OptionError> {
        let Self { size: _, xres, yres, options, share, driver: _ } = self;
        let mut config = Config { xres, yres, share, ..Config::default() };
        // SAFETY: the caller gives a string or NULL.
        config.apply(&unsafe { text_of(options) })?;
        Ok(config)
    }
}

/// Frees a display.
/// @dpy: The display; NULL is fine.
///
/// Releases all imports, and closes all descriptors. If there is a watcher, the device's callbacks
/// are called until vfio_dpy_watch() returns, which it does soon.
///
/// Context: The display's thread; not from within a callback: debug builds abort then, others log
/// it and do nothing.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_free(dpy: *mut VfioDpy) {
    const NAME: &str = "vfio_dpy_free()";
    const WITHIN: &str = "was called from within a callback of the display";
    if dpy.is_null() {
        return;
    }
    // SAFETY: the caller gives a display.
    let display = unsafe { &*dpy };
    if display.is_busy() {
        if cfg!(debug_assertions) {
            misuse::end(NAME, WITHIN);
        }
        glib::g_critical!("vfio-display", "{NAME} {WITHIN}, and does nothing");
        return;
    }
    // Front ends may call back while they release what they show, so that is done while the display
    // still is one.
    display.arrivals.borrow_mut().take();
    display.handle(NAME, Event::Close);
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

/// Returns whether the guest can be told about its monitor.
/// @dpy: The display.
///
/// Context: The display's thread.
/// Return: Whether vfio_dpy_set_monitor() has an effect. Never changes.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_has_edid(dpy: *const VfioDpy) -> bool {
    // SAFETY: the caller gives a display.
    let dpy = unsafe { &*dpy };
    dpy.with("vfio_dpy_has_edid()", |display| display.has_edid()).unwrap_or(false)
}

/// Returns the size that a message would have now.
/// @dpy: The display.
/// @width: Where to put its width in pixels.
/// @height: Where to put its height in pixels.
///
/// Before the first picture, that is the size of the monitor that the guest is told of. If the
/// console has it from the start, windows open with that size, and the guest is not told another
/// one at once.
///
/// Context: The display's thread.
/// Return: False, and nothing is written, if the display has failed, or from within a callback.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_message_size(
    dpy: *const VfioDpy,
    width: *mut u32,
    height: *mut u32,
) -> bool {
    // SAFETY: the caller gives a display.
    let dpy = unsafe { &*dpy };
    let size = dpy.with("vfio_dpy_message_size()", |display| display.message_size());
    if let Some((columns, rows)) = size {
        // SAFETY: the caller gives two places for numbers.
        unsafe {
            width.write(columns);
            height.write(rows);
        }
    }
    size.is_some()
}

/// Shows what the device shows now: GraphicHwOps.gfx_update.
/// @dpy: The display.
/// @periodic: True for a front end's timer, which will fire again: small changes may then wait for
/// the next refresh. False for a one-shot refresh, as for a screenshot: everything is shown, and
/// then refresh_done() of struct VfioDpyConsoleOps is called.
///
/// Context: The display's thread. Polls the device, unless there is a watcher.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_refresh(dpy: *mut VfioDpy, periodic: bool) {
    // SAFETY: the caller gives a display.
    unsafe { &*dpy }.handle("vfio_dpy_refresh()", Event::Refresh { periodic });
}

/// Makes the next refresh show everything again, changed or not: GraphicHwOps.invalidate.
/// @dpy: The display.
///
/// Context: The display's thread.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_invalidate(dpy: *mut VfioDpy) {
    // SAFETY: the caller gives a display.
    unsafe { &*dpy }.handle("vfio_dpy_invalidate()", Event::Invalidate);
}

/// Advertises a monitor of a window's size to the guest: GraphicHwOps.ui_info.
/// @dpy: The display.
/// @monitor: The window; copied. Zero pixels: the front end does not show the console.
///
/// Context: The display's thread.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_set_monitor(dpy: *mut VfioDpy, monitor: *const Monitor) {
    // SAFETY: the caller gives a display and a monitor.
    let (dpy, monitor) = unsafe { (&*dpy, *monitor) };
    dpy.handle("vfio_dpy_set_monitor()", Event::SetMonitor(monitor));
}

/// Holds the scanout still while a front end uses it: GraphicHwOps.gl_block.
/// @dpy: The display.
/// @block: True when a front end took the scanout, false when it has released it.
///
/// Context: The display's thread.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_block(dpy: *mut VfioDpy, block: bool) {
    // SAFETY: the caller gives a display.
    unsafe { &*dpy }.handle("vfio_dpy_block()", Event::Block(block));
}

/// Begins a reset of the device: forgets all its answers.
/// @dpy: The display.
///
/// vfio_dpy_reset_done() must follow. The console is asked to refresh, and shows the reset then.
///
/// Context: The display's thread, or another that excludes it, as a vCPU's does
/// under QEMU's BQL.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_reset(dpy: *mut VfioDpy) {
    // SAFETY: the caller gives a display.
    unsafe { &*dpy }.handle("vfio_dpy_reset()", Event::Reset);
}

/// Ends a reset: the device is polled again.
/// @dpy: The display.
///
/// Context: The display's thread.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_reset_done(dpy: *mut VfioDpy) {
    // SAFETY: the caller gives a display.
    unsafe { &*dpy }.handle("vfio_dpy_reset_done()", Event::ResetDone);
}

/// Takes the watcher, which polls the device, out of the display, for a thread of the host.
/// @dpy: The display.
///
/// From then on the display never blocks on the device. Call it at most once.
///
/// Context: The display's thread, and that which runs the GLib default main context.
/// Return: The watcher, to be given to vfio_dpy_watch(). NULL if the user does not want one (option
/// "thread"), or on failure: the device is then polled in vfio_dpy_refresh(), as if this function
/// had never been called.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_watcher(dpy: *mut VfioDpy) -> *mut VfioDpyWatcher {
    // SAFETY: the caller gives a display.
    let display = unsafe { &*dpy };
    let take = |engine: &mut Engine| {
        let (Ok((ours, arrivals)), Ok((theirs, rung))) = (EventWaker::new(), EventWaker::new())
        else {
            return std::ptr::null_mut();
        };
        let Some((watcher, exchange)) = engine.detach(Box::new(theirs), Box::new(ours)) else {
            return std::ptr::null_mut();
        };
        let dpy = dpy.cast_const();
        *display.arrivals.borrow_mut() = Some(on_signal(arrivals, move || {
            // SAFETY: the display owns the source, which is destroyed before it.
            unsafe { &*dpy }.handle("the watcher of the display", Event::Arrived);
        }));
        Box::into_raw(Box::new(VfioDpyWatcher::new(watcher, exchange, rung)))
    };
    display.with("vfio_dpy_watcher()", take).unwrap_or(std::ptr::null_mut())
}

/// Shares the dma-buf that the device shows now with other devices of the VM, by a UUID.
/// @dpy: The display.
/// @uuid: Where to put the UUID, of 16 bytes, on success.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL.
///
/// The UUID lasts as long as the display holds the dma-buf. The functions of vfio_display_objects.h
/// find it.
///
/// Context: The display's thread. May call the device, unless there is a watcher.
/// Return: 0 or a negative errno: -EPERM: sharing is not enabled; -ENOTSUP: the device shows a
/// region; -ENOENT: it shows nothing; -EBUSY: called from within a callback; -EIO: anything else,
/// such as a device that does not answer.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_share_scanout(
    dpy: *mut VfioDpy,
    uuid: *mut u8,
    error: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller gives a display.
    let dpy = unsafe { &*dpy };
    let share = || match dpy.with("vfio_dpy_share_scanout()", Display::share_scanout) {
        None => {
            let (errno, why) = if dpy.broken.get() {
                (libc::EIO, PANICKED)
            } else {
                (libc::EBUSY, "the display is busy")
            };
            // SAFETY: the caller gives a valid place, or NULL.
            unsafe { tell(error, why) };
            -errno
        }
        Some(Ok(shared)) => {
            // SAFETY: the caller gives room for 16 bytes; an array of bytes has no alignment.
            unsafe { *uuid.cast() = shared.into_bytes() };
            0
        }
        Some(Err(why)) => {
            // SAFETY: the caller gives a valid place, or NULL.
            unsafe { tell(error, &why.to_string()) };
            -match why {
                ShareError::Off => libc::EPERM,
                ShareError::Region => libc::ENOTSUP,
                ShareError::NoPlane => libc::ENOENT,
                ShareError::Plane(_) | ShareError::Duplicate(_) | ShareError::Table(_) => libc::EIO,
            }
        }
    };
    // SAFETY: the caller gives a valid place, or NULL.
    unsafe { explained(error, -libc::EIO, share) }
}

/// Returns the status of the display as JSON.
/// @dpy: The display.
///
/// Context: The display's thread.
/// Return: A JSON object, to be freed with g_free(). From within a callback, it says only
/// {"busy":true}.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_status(dpy: *const VfioDpy) -> *mut c_char {
    // SAFETY: the caller gives a display.
    let dpy = unsafe { &*dpy };
    let status = dpy.with("vfio_dpy_status()", |display| display.status().to_string());
    let otherwise = if dpy.broken.get() { r#"{"broken":true}"# } else { r#"{"busy":true}"# };
    glib_string(status.as_deref().unwrap_or(otherwise))
}

/// Returns the status of the display as a few lines of text.
/// @dpy: The display.
///
/// Context: The display's thread.
/// Return: The text, which ends with a line feed, to be freed with g_free(). From within a
/// callback, it says only that.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_describe(dpy: *const VfioDpy) -> *mut c_char {
    // SAFETY: the caller gives a display.
    let dpy = unsafe { &*dpy };
    let text = dpy.with("vfio_dpy_describe()", |display| display.describe());
    let otherwise = if dpy.broken.get() { PANICKED } else { "the display is busy" };
    glib_string(&text.unwrap_or_else(|| format!("{otherwise}\n")))
}

/// Copies the scanout, for those who cannot import it.
/// @dpy: The display.
/// @width: Where to put the width of the copy in pixels.
/// @height: Where to put its height in pixels.
///
/// Context: The display's thread.
/// Return: *@height rows of *@width pixels in XRGB8888, without padding, to be freed with g_free().
/// NULL, and nothing is written, if no scanout is shown, if only a GPU can read its pixels, or from
/// within a callback.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_capture(
    dpy: *mut VfioDpy,
    width: *mut u32,
    height: *mut u32,
) -> *mut u8 {
    // SAFETY: the caller gives a display.
    let dpy = unsafe { &*dpy };
    boundary(std::ptr::null_mut(), || {
        let Some(Some(picture)) = dpy.with("vfio_dpy_capture()", Display::capture) else {
            return std::ptr::null_mut();
        };
        // SAFETY: any size may be asked for.
        let copy = unsafe { glib::ffi::g_try_malloc(picture.pixels.len()) }.cast::<u8>();
        if !copy.is_null() {
            // SAFETY: the copy was made as large as the picture; the caller's pointers are
            // writable.
            unsafe {
                copy.copy_from_nonoverlapping(picture.pixels.as_ptr(), picture.pixels.len());
                *width = picture.width;
                *height = picture.height;
            }
        }
        copy
    })
}
