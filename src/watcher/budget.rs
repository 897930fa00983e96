//! What a look may take altogether.
//!
//! Each call of a device ends in time; many of them need not. A device that answers each just in time is as good as silent.

use std::io;
use std::time::Duration;

/// A look that has taken so long makes no more calls than it must. Not a tenth of it is needed for a large picture that is read piece by
/// piece from a process.
pub(crate) const POLL_MOST: Duration = Duration::from_secs(1);

/// The time of one look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Budget {
    began: Duration,
}

impl Budget {
    /// For a look that begins now.
    pub fn new(now: Duration) -> Self {
        Self { began: now }
    }

    /// What the look has taken so far.
    pub fn spent(self, now: Duration) -> Duration {
        now.saturating_sub(self.began)
    }

    /// Whether nothing is left of it.
    pub fn is_spent(self, now: Duration) -> bool {
        self.spent(now) >= POLL_MOST
    }

    /// Fails, as a device does that does not answer, if nothing is left for one more of many pieces.
    pub fn check(self, now: Duration) -> io::Result<()> {
        if self.is_spent(now) {
            let text = format!("all its pieces take more than {} ms", POLL_MOST.as_millis());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Ok(())
    }
}
