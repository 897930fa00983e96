//! `VfioDpyWatcher`: the device's half of a display, on a thread of the host's.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::display::DeviceWatcher;
use crate::exchange::{Exchange, Waker};
use crate::watcher::Next;

use super::boundary;
use super::clock::{Monotonic, eventfd, take};
use super::device::HostDevice;
use super::misuse;

/// Polls the device of a display, on a thread of the host.
pub struct VfioDpyWatcher {
    watcher: DeviceWatcher<HostDevice, Monotonic>,
    exchange: Arc<Exchange>,
    /// What the presenter rings.
    rung: Arc<File>,
}

/// An eventfd that wakes somebody.
pub(super) struct EventWaker(Arc<File>);

impl EventWaker {
    /// A waker, and the eventfd that it signals.
    pub fn new() -> io::Result<(Self, Arc<File>)> {
        let file = Arc::new(File::from(eventfd()?));
        Ok((Self(Arc::clone(&file)), file))
    }
}

impl Waker for EventWaker {
    fn wake(&self) {
        // Where there is no room, it rings already.
        let _ = (&*self.0).write(&1_u64.to_ne_bytes());
    }
}

impl VfioDpyWatcher {
    pub(super) fn new(
        watcher: DeviceWatcher<HostDevice, Monotonic>,
        exchange: Arc<Exchange>,
        rung: Arc<File>,
    ) -> Self {
        Self { watcher, exchange, rung }
    }

    fn watch(&mut self) {
        let mut signalled = false;
        loop {
            let Next::Sleep(until) = self.watcher.turn(&self.exchange, signalled) else { return };
            signalled = self.sleep(until);
        }
    }

    /// After a failure, only drops what the presenter gives back, until the display closes.
    fn let_go(&self) {
        while !self.exchange.wishes().is_some_and(|wishes| wishes.stop) {
            wait_for(&[self.rung.as_fd()], None);
            take(self.rung.as_raw_fd());
        }
    }

    /// Sleeps until it is rung, until then, or until the device says that something changed, which
    /// is returned.
    fn sleep(&self, until: Option<Duration>) -> bool {
        let timeout = until.map(|until| until.saturating_sub(Monotonic.now()));
        let changes = self.watcher.listens_to();
        let fds: Vec<_> = [self.rung.as_fd()].into_iter().chain(changes).collect();
        wait_for(&fds, timeout);
        take(self.rung.as_raw_fd());
        changes.is_some_and(|changes| take(changes.as_raw_fd()))
    }
}

/// Waits until one of them can be read, for this time at most.
fn wait_for(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) {
    #[expect(clippy::unnecessary_fallible_conversions, reason = "not on all machines")]
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::try_from(timeout.subsec_nanos()).unwrap_or(0),
    });
    let readable =
        |fd: &BorrowedFd<'_>| libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut fds: Vec<_> = fds.iter().map(readable).collect();
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the descriptors are open, and the pointers are to values that live during the call.
    unsafe {
        libc::ppoll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout, std::ptr::null());
    }
}

/// Polls the device of a display on the calling thread, until the display is freed.
/// @watcher: The watcher, from vfio_dpy_watcher(). It is freed.
///
/// The device's callbacks are called on this thread meanwhile; the device must exist until this
/// returns.
///
/// Context: A thread of the host's own, once, without any lock. Returns when the display was freed
/// and no callback of the device is running.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_watch(watcher: *mut VfioDpyWatcher) {
    // SAFETY: the pointer is from `Box::into_raw` in vfio_dpy_watcher(), and taken back once.
    let mut watcher = unsafe { Box::from_raw(watcher) };
    misuse::this_thread_watches(true);
    let ended = boundary(false, || {
        watcher.watch();
        true
    });
    misuse::this_thread_watches(false);
    if !ended {
        watcher.exchange.fail();
        boundary((), || watcher.let_go());
    }
    boundary((), || drop(watcher));
}
