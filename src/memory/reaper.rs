//! Closes descriptors on a thread, so that nobody waits for it.
//!
//! Closing the last descriptor of a file may block on whoever serves it: a lingering socket, a file
//! system in a process.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

/// Closes descriptors on a thread of its own, which exists while there is something to close.
#[derive(Clone, Debug, Default)]
pub struct Reaper(Arc<Mutex<Queue>>);

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<OwnedFd>,
    /// Whether one is being closed.
    closing: bool,
    runs: bool,
}

impl Reaper {
    /// Queues a descriptor to be closed.
    pub fn close(&self, fd: OwnedFd) {
        let mut queue = lock(&self.0);
        queue.waiting.push_back(fd);
        if !queue.runs {
            let theirs = Arc::clone(&self.0);
            // If there can be no thread now, the next descriptor gets one.
            queue.runs = spawn(move || close_all(&theirs)).is_ok();
        }
    }

    /// Returns how many descriptors are not closed yet.
    pub fn unclosed(&self) -> usize {
        let queue = lock(&self.0);
        queue.waiting.len() + usize::from(queue.closing)
    }
}

impl Drop for Queue {
    /// If no thread could be started, leak rather than block.
    fn drop(&mut self) {
        self.waiting.drain(..).for_each(std::mem::forget);
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close_all(queue: &Mutex<Queue>) {
    loop {
        let next = {
            let mut queue = lock(queue);
            let next = queue.waiting.pop_front();
            queue.closing = next.is_some();
            queue.runs = next.is_some();
            next
        };
        let Some(fd) = next else { return };
        drop(fd);
    }
}

/// Starts a thread that takes no signals: the host has its own threads for them.
fn spawn(body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: both sets are written before they are read; the mask is this thread's.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
    }
    let spawned = thread::Builder::new().name("vfio-dpy-close".into()).spawn(body);
    // SAFETY: this is the mask that was there before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), std::ptr::null_mut()) };
    spawned.map(drop)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::testing::WrongFile;
    use std::fs::File;
    use std::time::{Duration, Instant};

    pub fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < Duration::from_secs(60), "{what}");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn closing_takes_as_long_as_it_takes_and_nobody_waits() {
        let reaper = Reaper::default();
        let (slow, other_end) = WrongFile::lingering();
        reaper.close(slow.into());
        let (reader, pipe) = rustix::pipe::pipe().unwrap();
        reaper.close(pipe);
        assert_eq!(reaper.unclosed(), 2);
        drop(other_end);
        wait_for("both are closed", || reaper.unclosed() == 0);
        assert_eq!(
            io::read_to_string(File::from(reader)).unwrap(),
            "",
            "the pipe has no writer any more"
        );
        let (reader, pipe) = rustix::pipe::pipe().unwrap();
        reaper.close(pipe);
        drop(reaper);
        assert_eq!(
            io::read_to_string(File::from(reader)).unwrap(),
            "",
            "also after the reaper has gone"
        );
    }
}
