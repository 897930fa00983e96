//! A host that does what a string of bytes says, for a device that answers as they say: for
//! fuzzing, and for random tests.
//!
//! It keeps to the rules of the header: its pointers are valid, and it says how large its tables
//! are. Within these, it leaves callbacks out, fails, calls back from within its callbacks, and
//! calls whatever there is in any order. Whatever the bytes are, nothing must panic, all that the
//! console is told to show must be there, and everything must come back in the end.
//!
//! The host's life and its calls are here; `console` and `device` have its callbacks.

mod console;
mod device;

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::Once;
use std::thread::{self, Scope};

use crate::console::Monitor;
use crate::testing::Memfds;
use crate::testing::bytes::Bytes;

use super::device::VfioDpyDeviceOps;
use super::display::{
    VfioDpy, VfioDpyConfig, vfio_dpy_block, vfio_dpy_capture, vfio_dpy_describe, vfio_dpy_free,
    vfio_dpy_has_edid, vfio_dpy_invalidate, vfio_dpy_message_size, vfio_dpy_new, vfio_dpy_probe,
    vfio_dpy_refresh, vfio_dpy_reset, vfio_dpy_reset_done, vfio_dpy_set_monitor,
    vfio_dpy_share_scanout, vfio_dpy_status, vfio_dpy_watcher,
};
use super::sized::Growing;
use super::watcher::{VfioDpyWatcher, vfio_dpy_watch};
use console::Console;
use device::HostileDevice;

/// No script is longer, in steps, and no callback calls back deeper.
const MAX_STEPS: usize = 512;
const MAX_DEPTH: u32 = 3;

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
    let device = HostileDevice::new(theirs, files.clone());
    let host = Host {
        bytes: RefCell::new(Bytes(ours)),
        dpy: Cell::new(null_mut()),
        depth: Cell::new(0),
        console: Console::new(),
    };
    host.live(&device);
    drop(host);
    assert_eq!(files.mappings(), 0, "a mapping is never ended");
    assert_eq!(files.open_descriptors(), 0, "a descriptor is never closed");
}

/// A table of a host, which may have been compiled with a larger one.
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
        for field in (1..=fields).filter(|field| missing >> 28 == 0 && (missing >> field) & 1 != 0)
        {
            // SAFETY: the table consists of that many words, and zero is valid for each.
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

struct Host<'a> {
    bytes: RefCell<Bytes<'a>>,
    dpy: Cell<*mut VfioDpy>,
    /// How many callbacks call back.
    depth: Cell<u32>,
    console: Console,
}

impl Host<'_> {
    /// A display's life, from its device's probe to its end.
    fn live(&self, device: &HostileDevice<'_>) {
        let data = std::ptr::from_ref(device).cast_mut().cast::<c_void>();
        let device_ops = Table::vary(device::OPS, &mut self.bytes.borrow_mut(), 9);
        let dpy = self.create(&device_ops, data);
        if dpy.is_null() {
            return;
        }
        self.dpy.set(dpy);
        thread::scope(|threads| {
            self.start_watcher(threads);
            for _ in 0..MAX_STEPS {
                if self.bytes.borrow().0.is_empty() {
                    break;
                }
                self.step();
                device.signal();
            }
            // SAFETY: the display lives.
            let status = self.text(|dpy| unsafe { vfio_dpy_status(dpy) });
            assert!(!status.contains("\"broken\""), "it has failed: {status}");
            self.dpy.set(null_mut());
            // SAFETY: no callback is under way.
            unsafe { vfio_dpy_free(dpy) };
        });
        self.console.end();
    }

    /// Probes the device, and makes a display of it.
    fn create(&self, device_ops: &Table<VfioDpyDeviceOps>, device: *mut c_void) -> *mut VfioDpy {
        let host = std::ptr::from_ref(self).cast_mut().cast::<c_void>();
        let console_ops = Table::vary(console::OPS, &mut self.bytes.borrow_mut(), 18);
        let mut error = null_mut();
        // SAFETY: the table and the error are there, and go with what they are called with.
        let probed = unsafe { vfio_dpy_probe(&raw const device_ops.ours, device, &raw mut error) };
        free_text(error, probed < 0);
        let choices = self.byte();
        // As it says, or as it does not.
        let mode = if choices & 1 == 0 { probed } else { c_int::from((choices >> 1) & 3) };
        let text = CString::new(self.bytes.borrow_mut().line()).unwrap_or_default();
        let config = self.config(choices, &text);
        let config = if choices & 128 == 0 { &raw const config.ours } else { null() };
        // SAFETY: as above; the strings are strings.
        let dpy = unsafe {
            vfio_dpy_new(
                mode,
                &raw const device_ops.ours,
                device,
                text.as_ptr(),
                &raw const console_ops.ours,
                host,
                config,
                &raw mut error,
            )
        };
        free_text(error, dpy.is_null());
        dpy
    }

    /// A configuration with pointers to `text`.
    fn config(&self, choices: u8, text: &CStr) -> Table<VfioDpyConfig> {
        let (xres, yres) = self.bytes.borrow_mut().size();
        let config = VfioDpyConfig {
            size: 0,
            xres,
            yres,
            share: choices & 8 != 0,
            driver: [null(), c"mbochs".as_ptr(), c"i915".as_ptr(), text.as_ptr()]
                [usize::from((choices >> 4) & 3)],
            options: if choices & 64 == 0 {
                self.bytes.borrow_mut().one_of(OPTIONS).as_ptr()
            } else {
                text.as_ptr()
            },
        };
        Table::vary(config, &mut self.bytes.borrow_mut(), 0)
    }

    /// Gives the watcher a thread, perhaps.
    fn start_watcher<'scope>(&self, threads: &'scope Scope<'scope, '_>) {
        if self.byte() & 3 == 3 {
            // SAFETY: the display lives; this is done once.
            let watcher = ToThread(unsafe { vfio_dpy_watcher(self.dpy.get()) });
            if !watcher.0.is_null() {
                threads.spawn(move || watcher.watch());
            }
        }
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
            5 => self.set_monitor(dpy),
            // SAFETY: the display lives.
            6 => unsafe { vfio_dpy_block(dpy, choice & 64 == 0) },
            7 => {
                // SAFETY: the display lives.
                unsafe { vfio_dpy_reset(dpy) };
                if choice & 64 == 0 {
                    self.step();
                }
                // SAFETY: the display lives.
                unsafe { vfio_dpy_reset_done(dpy) }
            }
            8 => share_scanout(dpy),
            9 => {
                // SAFETY: the display lives.
                let text = self.text(|dpy| unsafe { vfio_dpy_describe(dpy) });
                assert!(text.ends_with('\n'), "{text:?}");
            }
            10 => capture(dpy),
            11 => message_size(dpy),
            12 => self.console.let_go(choice.into()),
            _ => {
                // Not from within callbacks: a host's main loop is one.
                let context = glib::MainContext::default();
                while self.depth.get() == 0 && context.iteration(false) {}
            }
        }
    }

    fn set_monitor(&self, dpy: *mut VfioDpy) {
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
        // SAFETY: the display lives, and so does the monitor.
        unsafe { vfio_dpy_set_monitor(dpy, &raw const monitor) }
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
}

fn share_scanout(dpy: *mut VfioDpy) {
    let (mut uuid, mut error) = ([0; 16], null_mut());
    // SAFETY: the display lives, and so do the places for results.
    let result = unsafe { vfio_dpy_share_scanout(dpy, uuid.as_mut_ptr(), &raw mut error) };
    free_text(error, result < 0);
}

fn capture(dpy: *mut VfioDpy) {
    let (mut width, mut height) = (0, 0);
    // SAFETY: the display lives, and so do the places for results.
    let pixels = unsafe { vfio_dpy_capture(dpy, &raw mut width, &raw mut height) };
    if !pixels.is_null() {
        read(pixels, width as usize * height as usize * 4);
        // SAFETY: the copy is GLib's.
        unsafe { glib::ffi::g_free(pixels.cast()) };
    }
}

fn message_size(dpy: *mut VfioDpy) {
    let (mut width, mut height) = (0, 0);
    // SAFETY: the display lives, and so do the places for results.
    let told = unsafe {
        vfio_dpy_has_edid(dpy);
        vfio_dpy_message_size(dpy, &raw mut width, &raw mut height)
    };
    assert_eq!(told, width != 0 && height != 0, "{width}x{height}");
}

/// Reads all bytes, so that a sanitizer checks them.
fn read(pixels: *const u8, len: usize) {
    for at in (0..len).step_by(61) {
        // SAFETY: the library gave that many bytes.
        unsafe { pixels.add(at).read_volatile() };
    }
}

fn free_text(text: *mut c_char, wanted: bool) {
    assert_eq!(!text.is_null(), wanted, "there is a text, or none");
    // SAFETY: the library's strings are GLib's.
    unsafe { glib::ffi::g_free(text.cast()) };
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
