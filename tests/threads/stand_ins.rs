//! Replacements for what the thread sanitizer cannot see into: `tests/shared_objects_threads.rs`
//! says why.

use std::sync::{LockResult, TryLockError};
use std::thread;

/// Takes a lock by trying until it is free.
pub fn insist<G>(attempt: impl Fn() -> Result<G, TryLockError<G>>) -> LockResult<G> {
    loop {
        match attempt() {
            Ok(guard) => return Ok(guard),
            Err(TryLockError::Poisoned(error)) => return Err(error),
            Err(TryLockError::WouldBlock) => thread::yield_now(),
        }
    }
}

/// A reference that is never dropped.
#[derive(Debug)]
pub struct Arc<T: 'static>(&'static T);

impl<T> Arc<T> {
    pub fn new(value: T) -> Self {
        Self(Box::leak(Box::new(value)))
    }
}

impl<T> Clone for Arc<T> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<T> std::ops::Deref for Arc<T> {
    type Target = T;
    fn deref(&self) -> &T {
        self.0
    }
}
