//! The C boundary: one file per C object, from which `tests/header.rs` makes the headers in
//! `include/`. The comments are the documentation of the C interface, in kernel-doc form; the
//! section on safety is for Rust only.
//!
//! Nothing is decided here: calls from C become calls of the safe core, and tables of C callbacks
//! become its traits. Rules:
//!
//! - A panic never crosses the boundary: `boundary` turns it into a message and a harmless result.
//! - Integers from C are checked before they become enums; callbacks may be missing.
//! - Structs that C passes and that may grow begin with their size (`sized`).
//! - A function that fails returns NULL, false, or a negative errno. If there is more to say,
//!   `*error` is set at each failure, and NULL otherwise.
//! - Pointers from C are used only here, under what the functions' documentation asks of the
//!   caller.
//! - All functions of a display, and the callbacks of its console, run on the thread that runs
//!   QEMU's main loop, or under its big lock. So do the callbacks of its device, until its watcher
//!   is given a thread: from then on they run there, and need no lock.

mod clock;
mod console;
mod device;
mod display;
#[cfg(feature = "egl")]
mod egl;
mod misuse;
#[cfg(feature = "egl")]
mod read_back;
#[cfg(any(test, feature = "testing"))]
pub mod script;
pub(crate) mod shared_objects;
mod sized;
mod strings;
mod version;
mod watcher;

use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

use strings::glib_string;

/// The message of a failure without another reason.
const PANICKED: &str = "vfio-display has failed (what it printed says where)";

/// Runs what a C function is to do. If it panics, the result is `otherwise`; the panic hook has
/// printed why.
fn boundary<R>(otherwise: R, body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}

/// As [`boundary`], of a function that says why it fails. `*error` is NULL unless `body` sets it,
/// or panics.
///
/// # Safety
///
/// `error` is writable, or NULL.
unsafe fn explained<R>(error: *mut *mut c_char, otherwise: R, body: impl FnOnce() -> R) -> R {
    if !error.is_null() {
        // SAFETY: the caller gives a valid place.
        unsafe { *error = std::ptr::null_mut() };
    }
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        // SAFETY: the caller gives a valid place, or NULL.
        unsafe { tell(error, PANICKED) };
        otherwise
    })
}

/// Stores a copy of the text, to be freed with g_free(), in `*error`, unless `error` is NULL.
///
/// # Safety
///
/// `error` is writable, or NULL.
unsafe fn tell(error: *mut *mut c_char, text: &str) {
    if !error.is_null() {
        // SAFETY: the caller gives a valid place.
        unsafe { *error = glib_string(text) };
    }
}
