//! Time from GLib, and alarms as sources on its default main context, which QEMU's main loop
//! dispatches under its big lock.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::c_int;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use glib::{ControlFlow, IOCondition, Priority, Source};

use crate::clock::{Alarm, Alarms, Clock};

/// What is called when an alarm goes off.
pub type OnAlarm = Rc<dyn Fn(Alarm)>;

/// A [`Clock`] of the GLib main loop.
pub struct MainLoopClock {
    on_alarm: OnAlarm,
    timers: RefCell<HashMap<Alarm, Timer>>,
    events: RefCell<HashMap<Alarm, Event>>,
}

/// GLib's monotonic time, on any thread.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic;

/// A timer of the kernel: GLib's own count in milliseconds.
struct Timer {
    _source: Attached,
    fd: OwnedFd,
}

/// An eventfd that others signal.
struct Event {
    /// `None` while nobody listens: a source that does not read would be dispatched again and
    /// again.
    source: Option<Attached>,
    fd: OwnedFd,
}

/// A source on the main context, for as long as it lives.
pub struct Attached(Source);

/// What a source's callback carries, which GLib wants to be able to send to the main loop's thread.
struct SendRc<T: ?Sized>(Rc<T>);

// SAFETY: made, called and dropped under the lock under which the display is used (see the module
// `capi`): whoever owns the source destroys it there, and the main loop dispatches it there.
unsafe impl<T: ?Sized> Send for SendRc<T> {}

impl MainLoopClock {
    /// Alarms call `on_alarm` when they go off.
    pub fn new(on_alarm: OnAlarm) -> Self {
        Self { on_alarm, timers: RefCell::default(), events: RefCell::default() }
    }

    /// Wakes the display whenever this timer or eventfd has something to read; `again`: not only
    /// once.
    fn attach(&self, fd: &OwnedFd, alarm: Alarm, again: ControlFlow) -> Attached {
        let on_alarm = Rc::clone(&self.on_alarm);
        on_input(fd.as_raw_fd(), "vfio-display", move || {
            on_alarm(alarm);
            again
        })
    }

    fn timer(&self, alarm: Alarm) -> io::Result<Timer> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: the call has no preconditions.
        let fd = own(unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) })?;
        let source = self.attach(&fd, alarm, ControlFlow::Continue);
        Ok(Timer { _source: source, fd })
    }
}

/// Calls this whenever an eventfd was signalled, for as long as the result lives.
pub fn on_signal(fd: Arc<File>, act: impl Fn() + 'static) -> Attached {
    let raw = fd.as_raw_fd();
    on_input(raw, "vfio-display reports", move || {
        // The descriptor is open for as long as the source listens to it.
        let _ = &fd;
        act();
        ControlFlow::Continue
    })
}

/// A source that takes what a timer or an eventfd has to read, and then acts; for as long as the
/// source lives, the descriptor is open.
fn on_input(fd: RawFd, name: &str, act: impl Fn() -> ControlFlow + 'static) -> Attached {
    let act = SendRc(Rc::new(act));
    let dispatch = move |fd, _| {
        let act = &act;
        // Set anew since it went off, a timer has nothing to read; nor has an eventfd that somebody
        // else has read.
        if take(fd) { (act.0)() } else { ControlFlow::Continue }
    };
    let (condition, priority) = (IOCondition::IN, Priority::DEFAULT);
    Attached::new(glib::unix_fd_source_new(fd, condition, Some(name), priority, dispatch))
}

/// An eventfd that nobody has signalled yet.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: the call has no preconditions.
    own(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })
}

/// A descriptor that a call has just made.
fn own(fd: c_int) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Takes what there is to read from a timer or an eventfd of a living source. Returns whether there
/// was anything.
///
/// Never waits: a device in another process that reads an eventfd before us may have taken
/// O_NONBLOCK from it, too.
pub fn take(fd: RawFd) -> bool {
    let mut count = [0_u8; 8];
    let room = libc::iovec { iov_base: count.as_mut_ptr().cast(), iov_len: count.len() };
    // SAFETY: the vector names the eight bytes that are read.
    let len = unsafe { libc::preadv2(fd, &raw const room, 1, -1, libc::RWF_NOWAIT) };
    if len < 0 && io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock {
        // Timers before Linux 6.9, and eventfds before 5.8, know no RWF_NOWAIT.
        return take_if_readable(fd);
    }
    len > 0
}

/// As [`take`], with calls that any Linux knows.
fn take_if_readable(fd: RawFd) -> bool {
    let mut readable = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let mut count = [0_u8; 8];
    // SAFETY: there is one descriptor to look at, and the buffer has the eight bytes that are read.
    unsafe {
        libc::poll(&raw mut readable, 1, 0) == 1
            && readable.revents & libc::POLLIN != 0
            && libc::read(fd, count.as_mut_ptr().cast(), count.len()) > 0
    }
}

impl Clock for MainLoopClock {
    fn now(&self) -> Duration {
        Monotonic.now()
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Duration {
        Duration::from_micros(glib::monotonic_time().unsigned_abs())
    }
}

impl Alarms for MainLoopClock {
    type Time = Monotonic;

    fn watch(&self) -> Monotonic {
        Monotonic
    }

    fn set_alarm(&self, alarm: Alarm, after: Duration) {
        let mut timers = self.timers.borrow_mut();
        if let Some(timer) = timers.get(&alarm) {
            timer.set(Some(after));
        } else if let Ok(timer) = self.timer(alarm) {
            // Without descriptors there are no alarms; the front ends' refreshes go on.
            timer.set(Some(after));
            timers.insert(alarm, timer);
        }
    }

    fn event(&self, alarm: Alarm) -> io::Result<OwnedFd> {
        let fd = eventfd()?;
        let given = fd.try_clone()?;
        self.events.borrow_mut().insert(alarm, Event { source: None, fd });
        Ok(given)
    }

    fn listen(&self, alarm: Alarm, on: bool) {
        let mut events = self.events.borrow_mut();
        let Some(event) = events.get_mut(&alarm) else { return };
        if !on {
            event.source = None;
        } else if event.source.as_ref().is_none_or(|Attached(source)| source.is_destroyed()) {
            event.source = Some(self.attach(&event.fd, alarm, ControlFlow::Break));
        }
    }

    fn clear_alarm(&self, alarm: Alarm) {
        if let Some(timer) = self.timers.borrow().get(&alarm) {
            timer.set(None);
        }
        self.events.borrow_mut().remove(&alarm);
    }
}

impl Timer {
    /// Goes off once, after this time.
    fn set(&self, after: Option<Duration>) {
        // Zero would stop it.
        let after = after.map_or(Duration::ZERO, |after| after.max(Duration::from_nanos(1)));
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        #[expect(clippy::unnecessary_fallible_conversions, reason = "not on all machines")]
        let once = libc::timespec {
            tv_sec: libc::time_t::try_from(after.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::try_from(after.subsec_nanos()).unwrap_or(0),
        };
        let setting = libc::itimerspec { it_interval: never, it_value: once };
        // SAFETY: the descriptor is a timer, and the setting is read only.
        unsafe {
            libc::timerfd_settime(self.fd.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut())
        };
    }
}

impl Attached {
    /// Has the default main context dispatch the source.
    pub fn new(source: Source) -> Self {
        source.attach(None);
        Self(source)
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.destroy();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn nobody_waits_for_an_eventfd_that_others_made_blocking() {
        let mut event = File::from(eventfd().unwrap());
        // SAFETY: the descriptor is open, and the flags are none.
        assert_eq!(unsafe { libc::fcntl(event.as_raw_fd(), libc::F_SETFL, 0) }, 0);
        for takes in [take, take_if_readable] {
            assert!(!takes(event.as_raw_fd()));
            event.write_all(&3_u64.to_ne_bytes()).unwrap();
            assert!(takes(event.as_raw_fd()));
            assert!(!takes(event.as_raw_fd()));
        }
    }
}
