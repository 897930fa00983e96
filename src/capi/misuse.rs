//! Calls that break the rules of the header. Debug builds end the process at such a call, as
//! `assert()` does; others do not check.

use std::cell::Cell;
use std::process::abort;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Says what was wrong, and ends the process.
pub fn end(function: &str, what: &str) -> ! {
    eprintln!("vfio-display: {function} {what}");
    abort();
}

thread_local!(static WATCHES: Cell<bool> = const { Cell::new(false) });

/// This thread asks a device from now on: no function of a display is to be called here.
pub fn this_thread_watches(watches: bool) {
    WATCHES.set(watches);
}

/// Notices calls from a second thread while one is under way, or from one that only asks the
/// device.
#[derive(Default)]
pub struct OneThread(AtomicUsize);

/// A call that is under way.
pub struct Entered<'a>(Option<&'a OneThread>);

impl OneThread {
    /// To be called at the begin of each call, whose end is that of the result. Calls from within
    /// callbacks are fine.
    pub fn enter(&self, function: &str) -> Entered<'_> {
        if !cfg!(debug_assertions) {
            return Entered(None);
        }
        if WATCHES.get() {
            end(function, "was called on the thread of vfio_dpy_watch()");
        }
        let this_thread = this_thread();
        match self.0.compare_exchange(0, this_thread, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Entered(Some(self)),
            Err(inside) if inside == this_thread => Entered(None),
            Err(_) => {
                end(function, "was called while another thread is within a call of this display")
            }
        }
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        if let Some(OneThread(inside)) = self.0 {
            inside.store(0, Ordering::Relaxed);
        }
    }
}

/// A number that no other living thread has; never 0.
fn this_thread() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    HERE.with(|here| std::ptr::from_ref(here).addr())
}
