//! The time budget of a poll.
//!
//! Each device call ends in time; many of them together need not. A device that answers each just
//! in time is as good as silent.

use std::io;
use std::time::Duration;

/// A poll that has taken this long makes no further calls. Reading a large picture piece by piece
/// from a process takes less than a tenth.
pub(crate) const POLL_MOST: Duration = Duration::from_secs(1);

/// After a poll, the device is left alone for this many times its duration: the guest calls the
/// same device, and waits for the same locks.
pub const REST_SHARE: u32 = 2;

/// The time budget of one poll.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    began: Duration,
}

impl Budget {
    /// Creates the budget of a poll that begins now.
    pub fn new(now: Duration) -> Self {
        Self { began: now }
    }

    /// Returns the time spent so far.
    pub fn spent(self, now: Duration) -> Duration {
        now.saturating_sub(self.began)
    }

    /// Whether it is spent.
    pub fn is_spent(self, now: Duration) -> bool {
        self.spent(now) >= POLL_MOST
    }

    /// Fails, like a device that does not answer, if it is spent.
    pub fn check(self, now: Duration) -> io::Result<()> {
        if self.is_spent(now) {
            let text = format!("all its pieces take more than {} ms", POLL_MOST.as_millis());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Ok(())
    }
}
