//! The C boundary: `include/vfio_display.h`.
//!
//! It decides nothing. Calls from C become calls of the safe core, tables of C callbacks become its traits; one file per C object.
//! Rules for all of them:
//!
//! - A panic never crosses the boundary: `boundary` turns it into a message and a harmless result.
//! - Pointers from C are used only here, under what the functions' documentation asks of the caller.
//! - All functions of a display, and all callbacks, run on the thread that runs QEMU's main loop or under its big lock.

mod clock;
mod console;
mod device;
mod display;
#[cfg(feature = "egl")]
mod egl;
#[cfg(feature = "egl")]
mod read_back;
pub(crate) mod shared_objects;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs what a C function is to do. If it panics, the result is `otherwise`; the panic hook has told why.
fn boundary<R>(otherwise: R, body: impl FnOnce() -> R) -> R {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or(otherwise)
}
