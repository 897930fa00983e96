//! The C boundary: `include/vfio_display.h`.
//!
//! It decides nothing. Calls from C become calls of the safe core, tables of C callbacks become its traits; one file per C object.
//! Rules for all of them:
//!
//! - A panic never crosses the boundary: `boundary` turns it into a message and a harmless result.
//! - Integers from C are checked before they are an enum; callbacks may be missing, and are looked for before the first call.
//! - Where a function says why it fails, `*message` is set at each failure, and NULL at first.
//! - Pointers from C are used only here, under what the functions' documentation asks of the caller.
//! - All functions of a display, and the callbacks of its console, run on the thread that runs QEMU's main loop or under its big lock. So do the
//!   callbacks of its device, until its watcher is given a thread: from then on they run there, and need no lock.

mod clock;
mod console;
mod device;
mod display;
#[cfg(feature = "egl")]
mod egl;
#[cfg(feature = "egl")]
mod read_back;
pub(crate) mod shared_objects;
mod watcher;

use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Of a table of callbacks that was found to have them all.
const COMPLETE: &str = "no callback is missing";

/// What a caller is told who gets no other reason.
const PANICKED: &str = "vfio-display has failed (what it printed says where)";

/// Runs what a C function is to do. If it panics, the result is `otherwise`; the panic hook has told why.
fn boundary<R>(otherwise: R, body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

/// As [`boundary`], of a function that says why it fails. `*message` is NULL unless `body` sets it, or panics.
///
/// # Safety
///
/// `message` is writable, or NULL.
unsafe fn explained<R>(message: *mut *mut c_char, otherwise: R, body: impl FnOnce() -> R) -> R {
    if !message.is_null() {
        // SAFETY: the caller gives a valid place.
        unsafe { *message = std::ptr::null_mut() };
    }
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        // SAFETY: the caller gives a valid place, or NULL.
        unsafe { tell(message, PANICKED) };
        otherwise
    })
}

/// Leaves a copy of the text, which g_free() frees, where a caller wants to be told.
///
/// # Safety
///
/// `message` is writable, or NULL.
unsafe fn tell(message: *mut *mut c_char, text: &str) {
    if !message.is_null() {
        // SAFETY: the caller gives a valid place.
        unsafe { *message = c_string(text) };
    }
}

/// A string that g_free() frees.
fn c_string(text: &str) -> *mut c_char {
    // A device's name is the only part that could hold a NUL.
    let text = CString::new(text.replace('\0', " ")).unwrap_or_default();
    // SAFETY: the string is valid; the result is GLib's.
    unsafe { glib::ffi::g_strdup(text.as_ptr()) }
}
