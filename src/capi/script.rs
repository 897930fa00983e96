//! A host that does what a string of bytes says, for a device that answers as they say: for
//! fuzzing, and for random tests.
//!
//! It keeps to the rules of the header: its pointers are valid, and it says how large its tables
//! are. Within these, it leaves callbacks out, fails, calls back from within its callbacks, and
//! calls whatever there is in any order. Whatever the bytes are, nothing must panic, all that the
//! console is told to show must be there, and everything must come back in the end.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::ptr::{null, null_mut};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;

use crate::console::{Monitor, Severity};
use crate::plane::PlaneInfo;
use crate::testing::Memfds;
use crate::testing::script::Bytes;

use super::console::{
    AnySupport, VfioDpyBuffer, VfioDpyConsoleOps, VfioDpyMemory, vfio_dpy_memory_free,
};
use super::device::{VfioDpyDeviceOps, VfioDpyRegion};
use super::display::{
    VfioDpy, VfioDpyConfig, vfio_dpy_block, vfio_dpy_capture, vfio_dpy_describe, vfio_dpy_free,
    vfio_dpy_has_edid, vfio_dpy_invalidate, vfio_dpy_message_size, vfio_dpy_new, vfio_dpy_probe,
    vfio_dpy_refresh, vfio_dpy_reset, vfio_dpy_reset_done, vfio_dpy_set_monitor,
    vfio_dpy_share_scanout, vfio_dpy_status, vfio_dpy_watcher,
};
use super::sized::Growing;
use super::watcher::{VfioDpyWatcher, vfio_dpy_watch};

/// No script is longer, in steps, and no callback calls back deeper.
const MAX_STEPS: usize = 512;
const MAX_DEPTH: u32 = 3;

/// No surface that the host has memory for is larger, in bytes.
const MAX_SURFACE: usize = 1 << 22;

const OPTIONS: [&CStr; 8] = [
    c"",
    c"thread=on",
    c"thread=off",
    c"events=on",
    c"import=off,events=on",
    c"pool-buffers=0",
    c"pool-buffers=1,pool-bytes=4K",
    c"thread=on,events=on",
];

/// Does what the script says.
///
/// # Panics
///
/// If the display does something wrong.
pub fn run(script: &[u8]) {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| glib::log_set_default_handler(|_, _, _| ()));
    // The device's bytes come after the host's: it answers as it does, whatever the host goes on to
    // do.
    let (split, rest) = script.split_first().map_or((0, script), |(split, rest)| (*split, rest));
    let (ours, theirs) = rest.split_at(rest.len() * usize::from(split) / 256);
    let files = Memfds::default();
    let device = HostileDevice {
        bytes: Mutex::new(Bytes(theirs)),
        files: files.clone(),
        events: Mutex::default(),
    };
    let host = Host {
        bytes: RefCell::new(Bytes(ours)),
        dpy: Cell::new(null_mut()),
        depth: Cell::new(0),
        shown: RefCell::new(Shown::Nothing),
        imports: RefCell::default(),
        next_import: Cell::new(0),
        memories: RefCell::default(),
        cursor: Cell::new(0),
    };
    host.live(&device);
    drop(host);
    assert_eq!(files.mappings(), 0, "a mapping is never ended");
    assert_eq!(files.open_descriptors(), 0, "a descriptor is never closed");
}

/// A table as the host has it, which may have been compiled with a larger one than ours.
#[repr(C)]
struct Table<T> {
    ours: T,
    more: [usize; 4],
}

impl<T: Growing> Table<T> {
    /// Leaves fields out, and says another size.
    fn vary(ours: T, bytes: &mut Bytes<'_>, fields: usize) -> Self {
        let mut table = Self { ours, more: [usize::MAX; 4] };
        let (all, missing) = (size_of::<T>(), bytes.word());
        let words = (&raw mut table).cast::<usize>();
        // The first is the size. Some of the rest are needed, so that one is left out seldom.
        for field in (1..=fields).filter(|field| missing >> 28 == 0 && missing >> field & 1 != 0) {
            // SAFETY: the table consists of so many words, and zero is valid for each.
            unsafe { words.add(field).write(0) };
        }
        let size = match bytes.byte() {
            0 => usize::from(bytes.byte()).min(size_of::<Self>()),
            1..=16 => size_of::<Self>(),
            _ => all,
        };
        // SAFETY: the table begins with its size.
        unsafe { words.cast::<u32>().write(u32::try_from(size).unwrap_or(0)) };
        table
    }
}

struct HostileDevice<'a> {
    bytes: Mutex<Bytes<'a>>,
    files: Memfds,
    /// What it is to signal.
    events: Mutex<Option<File>>,
}

/// What a console shows.
enum Shown {
    Nothing,
    Surface { pixels: Vec<u8>, width: u32, height: u32 },
    Memory { pixels: *const u8, len: usize, width: u32, height: u32 },
    Scanout { import: usize },
}

struct Host<'a> {
    bytes: RefCell<Bytes<'a>>,
    dpy: Cell<*mut VfioDpy>,
    /// How many callbacks call back.
    depth: Cell<u32>,
    shown: RefCell<Shown>,
    imports: RefCell<HashSet<usize>>,
    next_import: Cell<usize>,
    /// What was shown, and is read for a while.
    memories: RefCell<Vec<*mut VfioDpyMemory>>,
    /// The import that is the pointer; 0: none.
    cursor: Cell<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A watcher on its way to its thread.
struct ToThread(*mut VfioDpyWatcher);

// SAFETY: vfio_dpy_watch() wants to be called on a thread of its own.
unsafe impl Send for ToThread {}

impl ToThread {
    fn watch(self) {
        // SAFETY: the watcher is from vfio_dpy_watcher(), and given once.
        unsafe { vfio_dpy_watch(self.0) };
    }
}

impl Host<'_> {
    fn live(&self, device: &HostileDevice<'_>) {
        let device_data = std::ptr::from_ref(device).cast_mut().cast::<c_void>();
        let host_data = std::ptr::from_ref(self).cast_mut().cast::<c_void>();
        let device_ops = Table::vary(DEVICE_OPS, &mut self.bytes.borrow_mut(), 9);
        let console_ops = Table::vary(CONSOLE_OPS, &mut self.bytes.borrow_mut(), 18);
        let mut error = null_mut();
        // SAFETY: the tables and the error are there, and go with what they are called with.
        let probed =
            unsafe { vfio_dpy_probe(&raw const device_ops.ours, device_data, &raw mut error) };
        free_text(error, probed < 0);
        let choices = self.byte();
        // As it says, or as it does not.
        let mode = if choices & 1 == 0 { probed } else { c_int::from(choices >> 1 & 3) };
        let text = CString::new(self.bytes.borrow_mut().line()).unwrap_or_default();
        let (xres, yres) = self.bytes.borrow_mut().size();
        let config = VfioDpyConfig {
            size: 0,
            xres,
            yres,
            share: choices & 8 != 0,
            driver: [null(), c"mbochs".as_ptr(), c"i915".as_ptr(), text.as_ptr()]
                [usize::from(choices >> 4 & 3)],
            options: if choices & 64 == 0 {
                self.bytes.borrow_mut().one_of(OPTIONS).as_ptr()
            } else {
                text.as_ptr()
            },
        };
        let config = Table::vary(config, &mut self.bytes.borrow_mut(), 0);
        let config = if choices & 128 == 0 { &raw const config.ours } else { null() };
        // SAFETY: as above; the strings are strings.
        let dpy = unsafe {
            vfio_dpy_new(
                mode,
                &raw const device_ops.ours,
                device_data,
                text.as_ptr(),
                &raw const console_ops.ours,
                host_data,
                config,
                &raw mut error,
            )
        };
        free_text(error, dpy.is_null());
        if dpy.is_null() {
            return;
        }
        self.dpy.set(dpy);
        thread::scope(|threads| {
            if self.byte() & 3 == 3 {
                // SAFETY: the display lives; this is done once.
                let watcher = ToThread(unsafe { vfio_dpy_watcher(dpy) });
                if !watcher.0.is_null() {
                    threads.spawn(move || watcher.watch());
                }
            }
            for _ in 0..MAX_STEPS {
                if self.bytes.borrow().0.is_empty() {
                    break;
                }
                self.step();
                if let Some(events) = &*lock(&device.events) {
                    // It may be full.
                    let _ = (&mut &*events).write(&1_u64.to_ne_bytes());
                }
            }
            // SAFETY: the display lives.
            let status = self.text(|dpy| unsafe { vfio_dpy_status(dpy) });
            assert!(!status.contains("\"broken\""), "it has failed: {status}");
            self.dpy.set(null_mut());
            // SAFETY: no callback is under way.
            unsafe { vfio_dpy_free(dpy) };
        });
        assert!(self.imports.borrow().is_empty(), "an import is never released");
        self.show(Shown::Nothing);
        self.let_go(0);
    }

    /// One call of the display's functions, or what else happens on its thread.
    fn step(&self) {
        let choice = self.byte();
        let dpy = self.dpy.get();
        if dpy.is_null() {
            return;
        }
        match choice % 16 {
            // SAFETY: the display lives.
            0..4 => unsafe { vfio_dpy_refresh(dpy, choice & 64 == 0) },
            // SAFETY: the display lives.
            4 => unsafe { vfio_dpy_invalidate(dpy) },
            5 => {
                let mut bytes = self.bytes.borrow_mut();
                let monitor = Monitor {
                    width: bytes.word(),
                    height: bytes.word(),
                    max_width: bytes.medium(),
                    width_mm: bytes.medium(),
                    refresh_rate: bytes.word(),
                    ..Monitor::default()
                };
                drop(bytes);
                // SAFETY: the display lives, and so do the places for results.
                unsafe { vfio_dpy_set_monitor(dpy, &raw const monitor) }
            }
            // SAFETY: the display lives.
            6 => unsafe { vfio_dpy_block(dpy, choice & 64 == 0) },
            7 => {
                // SAFETY: the display lives, and so do the places for results.
                unsafe { vfio_dpy_reset(dpy) };
                if choice & 64 == 0 {
                    self.step();
                }
                // SAFETY: the display lives, and so do the places for results.
                unsafe { vfio_dpy_reset_done(dpy) }
            }
            8 => {
                let (mut uuid, mut error) = ([0; 16], null_mut());
                let result =
                    // SAFETY: the display lives, and so do the places for results.
                    unsafe { vfio_dpy_share_scanout(dpy, uuid.as_mut_ptr(), &raw mut error) };
                free_text(error, result < 0);
            }
            9 => {
                // SAFETY: the display lives, and so do the places for results.
                let text = self.text(|dpy| unsafe { vfio_dpy_describe(dpy) });
                assert!(text.ends_with('\n'), "{text:?}");
            }
            10 => {
                let (mut width, mut height) = (0, 0);
                // SAFETY: the display lives, and so do the places for results.
                let pixels = unsafe { vfio_dpy_capture(dpy, &raw mut width, &raw mut height) };
                if !pixels.is_null() {
                    read(pixels, width as usize * height as usize * 4);
                    // SAFETY: the copy is GLib's.
                    unsafe { glib::ffi::g_free(pixels.cast()) };
                }
            }
            11 => {
                let (mut width, mut height) = (0, 0);
                // SAFETY: the display lives, and so do the places for results.
                let told = unsafe {
                    vfio_dpy_has_edid(dpy);
                    vfio_dpy_message_size(dpy, &raw mut width, &raw mut height)
                };
                assert_eq!(told, width != 0 && height != 0, "{width}x{height}");
            }
            12 => self.let_go(choice.into()),
            _ => {
                // Not from within callbacks: a host's main loop is one.
                let context = glib::MainContext::default();
                while self.depth.get() == 0 && context.iteration(false) {}
            }
        }
    }

    /// A callback of the console may call back.
    fn called(&self) {
        let depth = self.depth.get();
        if depth < MAX_DEPTH && self.byte() & 7 == 7 {
            self.depth.set(depth + 1);
            self.step();
            self.depth.set(depth);
        }
    }

    fn text(&self, get: impl FnOnce(*const VfioDpy) -> *mut c_char) -> String {
        let text = get(self.dpy.get());
        // SAFETY: the display's functions give strings.
        let copy = unsafe { CStr::from_ptr(text) }.to_str().expect("UTF-8").to_owned();
        free_text(text, true);
        copy
    }

    fn byte(&self) -> u8 {
        self.bytes.borrow_mut().byte()
    }

    fn flag(&self) -> bool {
        self.byte() & 7 != 7
    }

    fn show(&self, next: Shown) {
        *self.shown.borrow_mut() = next;
    }

    /// The front ends have read all but so many of the memories that were shown.
    fn let_go(&self, left: usize) {
        let keep =
            if matches!(*self.shown.borrow(), Shown::Memory { .. }) { left.max(1) } else { left };
        let mut memories = self.memories.borrow_mut();
        let count = memories.len().saturating_sub(keep);
        for memory in memories.drain(..count) {
            // SAFETY: it was given by show_memory(), is not shown any more, and is let go of once.
            unsafe { vfio_dpy_memory_free(memory) };
        }
    }

    /// What changed of what is shown is within it, and can be read.
    fn updated(&self, x: u32, y: u32, width: u32, height: u32) {
        let (columns, rows) = match &*self.shown.borrow() {
            Shown::Surface { width, height, pixels } => {
                read(pixels.as_ptr(), pixels.len());
                (*width, *height)
            }
            Shown::Memory { width, height, pixels, len } => {
                read(*pixels, *len);
                (*width, *height)
            }
            _ => panic!("neither a surface nor memory is shown"),
        };
        let within = |from: u32, len: u32, size: u32| {
            len > 0 && from.checked_add(len).is_some_and(|end| end <= size)
        };
        assert!(
            within(x, width, columns) && within(y, height, rows),
            "{x},{y} {width}x{height} of {columns}x{rows}"
        );
    }
}

/// Reads all bytes, for a sanitizer to look at.
fn read(pixels: *const u8, len: usize) {
    for at in (0..len).step_by(61) {
        // SAFETY: the caller was told that there are so many bytes.
        unsafe { pixels.add(at).read_volatile() };
    }
}

fn free_text(text: *mut c_char, wanted: bool) {
    assert_eq!(!text.is_null(), wanted, "there is a text, or none");
    // SAFETY: the library's strings are GLib's.
    unsafe { glib::ffi::g_free(text.cast()) };
}

/// The host that a callback of the console is passed.
///
/// # Safety
///
/// That is what it is.
unsafe fn host<'a>(console: *mut c_void) -> &'a Host<'a> {
    // SAFETY: as the caller says; it lives as long as the display.
    unsafe { &*console.cast_const().cast::<Host<'a>>() }
}

/// The device that a callback of the device is passed.
///
/// # Safety
///
/// That is what it is.
unsafe fn device<'a>(device: *mut c_void) -> &'a HostileDevice<'a> {
    // SAFETY: as the caller says; it lives as long as the display, and its watcher.
    unsafe { &*device.cast_const().cast::<HostileDevice<'a>>() }
}

impl HostileDevice<'_> {
    /// What a call returns that has nothing else to say: mostly success.
    fn result(&self) -> c_int {
        let mut bytes = lock(&self.bytes);
        match bytes.byte() {
            0..200 => 0,
            200..250 => -bytes.errno(),
            _ => -c_int::from_le_bytes(bytes.take()).saturating_abs(),
        }
    }

    /// A descriptor that is the caller's from then on.
    fn file(&self) -> c_int {
        let mut bytes = lock(&self.bytes);
        let len = bytes.len();
        bytes.file(&self.files, len).into_raw_fd()
    }
}

const DEVICE_OPS: VfioDpyDeviceOps = VfioDpyDeviceOps {
    size: 0,
    query_plane: Some(query_plane),
    get_dmabuf: Some(get_dmabuf),
    region_info: Some(region_info),
    region_read: Some(region_read),
    region_write: Some(region_write),
    keeps_ids: Some(keeps_ids),
    signal_changes: Some(signal_changes),
    edid_region: Some(edid_region),
    generate_edid: Some(generate_edid),
};

unsafe extern "C" fn query_plane(data: *mut c_void, info: *mut PlaneInfo) -> c_int {
    // SAFETY: the library passes what it was given, and a question.
    let (device, info) = unsafe { (device(data), &mut *info) };
    let result = device.result();
    let mut bytes = lock(&device.bytes);
    if info.flags & PlaneInfo::PROBE == 0 || bytes.byte() & 7 == 7 {
        let likely = bytes.byte();
        let plane = if likely & 7 == 7 { bytes.any_plane() } else { bytes.likely_plane() };
        *info = PlaneInfo { argsz: info.argsz, flags: info.flags, ..plane };
    }
    result
}

unsafe extern "C" fn get_dmabuf(data: *mut c_void, _id: u32) -> c_int {
    // SAFETY: the library passes what it was given.
    let device = unsafe { device(data) };
    match device.result() {
        0 => device.file(),
        error => error,
    }
}

unsafe extern "C" fn region_info(
    data: *mut c_void,
    _index: u32,
    info: *mut VfioDpyRegion,
) -> c_int {
    // SAFETY: the library passes what it was given.
    let device = unsafe { device(data) };
    let result = device.result();
    if result == 0 {
        let choice = lock(&device.bytes).byte();
        let fd = if choice & 7 == 7 { -1 } else { device.file() };
        let mut bytes = lock(&device.bytes);
        let size = if choice & 8 == 0 { bytes.len() } else { u64::from_le_bytes(bytes.take()) };
        let offset = bytes.one_of([0, 0, 0, 4096, 1, u64::MAX]);
        // SAFETY: the place lives during the call.
        unsafe { *info = VfioDpyRegion { size, offset, fd, is_device: false } };
    }
    result
}

unsafe extern "C" fn region_read(
    data: *mut c_void,
    _: u32,
    _: u64,
    to: *mut u8,
    size: u32,
) -> c_int {
    // SAFETY: the library passes what it was given.
    let device = unsafe { device(data) };
    let result = device.result();
    let byte = lock(&device.bytes).byte();
    // What it does not know it leaves as it is.
    // SAFETY: there is room for so many bytes.
    unsafe { to.write_bytes(byte, size as usize) };
    result
}

unsafe extern "C" fn region_write(
    data: *mut c_void,
    _: u32,
    _: u64,
    from: *const u8,
    size: u32,
) -> c_int {
    read(from, size as usize);
    // SAFETY: the library passes what it was given.
    unsafe { device(data) }.result()
}

unsafe extern "C" fn keeps_ids(data: *mut c_void) -> bool {
    // SAFETY: the library passes what it was given.
    lock(&unsafe { device(data) }.bytes).flag()
}

unsafe extern "C" fn signal_changes(data: *mut c_void, eventfd: c_int) -> c_int {
    // SAFETY: the library passes what it was given.
    let device = unsafe { device(data) };
    let result = device.result();
    if result == 0 {
        // SAFETY: the descriptor is open for the call.
        let event = (eventfd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(eventfd) });
        *lock(&device.events) =
            event.and_then(|event| event.try_clone_to_owned().ok()).map(File::from);
    }
    result
}

unsafe extern "C" fn edid_region(data: *mut c_void) -> c_int {
    // SAFETY: the library passes what it was given.
    let device = unsafe { device(data) };
    match device.result() {
        0 => c_int::from(lock(&device.bytes).byte()),
        error => error,
    }
}

unsafe extern "C" fn generate_edid(
    data: *mut c_void,
    _: *const Monitor,
    blob: *mut u8,
    size: usize,
) -> usize {
    // SAFETY: the library passes what it was given.
    let len = usize::from(lock(&unsafe { device(data) }.bytes).byte()).min(size);
    // SAFETY: the blob has room for so many bytes.
    unsafe { blob.write_bytes(0x5a, len) };
    len
}

const CONSOLE_OPS: VfioDpyConsoleOps = VfioDpyConsoleOps {
    size: 0,
    show_surface: Some(show_surface),
    update_surface: Some(update_surface),
    show_memory: Some(show_memory),
    show_message: Some(show_message),
    show_firmware: Some(show_firmware),
    scanout_support: Some(scanout_support),
    import: Some(import),
    release: Some(release),
    show_scanout: Some(show_scanout),
    update_scanout: Some(update_scanout),
    scanout_cursor: Some(scanout_cursor),
    move_scanout_cursor: Some(move_cursor),
    surface_cursor: Some(surface_cursor),
    move_surface_cursor: Some(move_cursor),
    request_refresh: Some(request_refresh),
    refresh_done: Some(request_refresh),
    log: Some(log),
    tracing: Some(tracing),
};

unsafe extern "C" fn show_surface(
    data: *mut c_void,
    width: u32,
    height: u32,
    stride: *mut usize,
) -> *mut u8 {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    assert!(width > 0 && height > 0, "a surface of {width}x{height}");
    let padding = usize::from(host.byte() & 3) * 4;
    let bytes_per_row = width as usize * 4 + padding;
    let len = bytes_per_row * height as usize;
    if padding == 12 || len > MAX_SURFACE {
        return null_mut();
    }
    let mut pixels = vec![0; len];
    let start = pixels.as_mut_ptr();
    // SAFETY: the place lives during the call.
    unsafe { *stride = bytes_per_row };
    host.show(Shown::Surface { pixels, width, height });
    host.called();
    start
}

unsafe extern "C" fn update_surface(data: *mut c_void, x: u32, y: u32, width: u32, height: u32) {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    host.updated(x, y, width, height);
    host.called();
}

unsafe extern "C" fn show_memory(
    data: *mut c_void,
    pixels: *const u8,
    width: u32,
    height: u32,
    stride: usize,
    memory: *mut VfioDpyMemory,
) -> bool {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    assert!(stride >= width as usize * 4 && stride % 4 == 0, "a stride of {stride}");
    read(pixels, stride * height as usize);
    if !host.flag() {
        return false;
    }
    host.memories.borrow_mut().push(memory);
    host.show(Shown::Memory { pixels, len: stride * height as usize, width, height });
    host.called();
    true
}

unsafe extern "C" fn show_message(data: *mut c_void, width: u32, height: u32, text: *const c_char) {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    assert!(width > 0 && height > 0, "a message of {width}x{height}");
    assert!(
        // SAFETY: the text is a string for the call.
        !unsafe { CStr::from_ptr(text) }.to_str().expect("UTF-8").is_empty(),
        "a message says something"
    );
    host.show(Shown::Nothing);
    host.called();
}

unsafe extern "C" fn show_firmware(data: *mut c_void, switch_to: bool) -> bool {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    let has_some = host.flag();
    if has_some && switch_to {
        host.show(Shown::Nothing);
    }
    host.called();
    has_some
}

unsafe extern "C" fn scanout_support(
    data: *mut c_void,
    buffer: *const VfioDpyBuffer,
    import: *mut c_void,
) -> AnySupport {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    // SAFETY: the buffer lives during the call.
    assert!(unsafe { (*buffer).fd } >= 0, "a buffer is a descriptor");
    assert!(
        import.is_null() || host.imports.borrow().contains(&(import as usize)),
        "an import that was released"
    );
    AnySupport(c_uint::from(host.byte() & 3))
}

unsafe extern "C" fn import(data: *mut c_void, buffer: *const VfioDpyBuffer) -> *mut c_void {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    // SAFETY: the buffer lives during the call.
    assert!(unsafe { (*buffer).fd } >= 0, "a buffer is a descriptor");
    let import = host.next_import.get() + 1;
    host.next_import.set(import);
    host.imports.borrow_mut().insert(import);
    host.called();
    import as *mut c_void
}

unsafe extern "C" fn release(data: *mut c_void, import: *mut c_void) {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    let import = import as usize;
    assert!(host.imports.borrow_mut().remove(&import), "an import is released twice");
    assert_ne!(host.cursor.get(), import, "what is released is the pointer");
    let shown = matches!(*host.shown.borrow(), Shown::Scanout { import: shown } if shown == import);
    assert!(!shown, "what is released is shown");
    host.called();
}

unsafe extern "C" fn show_scanout(data: *mut c_void, import: *mut c_void) {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    assert!(host.imports.borrow().contains(&(import as usize)), "a scanout is imported");
    host.show(Shown::Scanout { import: import as usize });
    host.called();
}

unsafe extern "C" fn update_scanout(data: *mut c_void, _x: u32, _y: u32, width: u32, height: u32) {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    assert!(width > 0 && height > 0, "an update of {width}x{height}");
    assert!(matches!(*host.shown.borrow(), Shown::Scanout { .. }), "a scanout is shown");
    host.called();
}

unsafe extern "C" fn scanout_cursor(
    data: *mut c_void,
    import: *mut c_void,
    _: bool,
    _: u32,
    _: u32,
) {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    let import = import as usize;
    assert!(import == 0 || host.imports.borrow().contains(&import), "a pointer is imported");
    host.cursor.set(import);
    host.called();
}

unsafe extern "C" fn move_cursor(data: *mut c_void, _x: i32, _y: i32) {
    // SAFETY: the library passes what it was given.
    unsafe { host(data) }.called();
}

unsafe extern "C" fn surface_cursor(
    data: *mut c_void,
    pixels: *const u8,
    width: u32,
    height: u32,
    _: u32,
    _: u32,
) {
    if !pixels.is_null() {
        read(pixels, width as usize * height as usize * 4);
    }
    // SAFETY: the library passes what it was given.
    unsafe { host(data) }.called();
}

unsafe extern "C" fn request_refresh(data: *mut c_void) {
    // SAFETY: the library passes what it was given.
    unsafe { host(data) }.called();
}

unsafe extern "C" fn log(data: *mut c_void, _: Severity, message: *const c_char) {
    assert!(
        // SAFETY: the text is a string for the call.
        !unsafe { CStr::from_ptr(message) }.to_str().expect("UTF-8").is_empty(),
        "a message says something"
    );
    // SAFETY: the library passes what it was given.
    unsafe { host(data) }.called();
}

unsafe extern "C" fn tracing(data: *mut c_void) -> bool {
    // SAFETY: the library passes what it was given.
    unsafe { host(data) }.flag()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_scripts_run() {
        let mut random = fastrand::Rng::with_seed(5);
        for seed in 0..2000 {
            random.seed(seed);
            let mut bytes = vec![0; random.usize(..800)];
            random.fill(&mut bytes);
            run(&bytes);
        }
    }
}
