//! Where a display's halves meet, under threads, in a form that the thread sanitizer can judge on a stable toolchain: see
//! `tests/shared_objects_threads.rs`, which says why there is no harness, and why locks are tried until they are free.

mod sync {
    use std::cell::Cell;
    use std::sync::{LockResult, Mutex as StdMutex, TryLockError};
    use std::thread;

    pub use std::sync::MutexGuard;
    pub use std::sync::atomic::{AtomicBool, Ordering};

    thread_local! {
        static IS_PRESENTER: Cell<bool> = const { Cell::new(false) };
    }

    pub fn be_presenter() {
        IS_PRESENTER.set(true);
    }

    pub fn is_presenter() -> bool {
        IS_PRESENTER.get()
    }

    #[derive(Debug, Default)]
    pub struct Mutex<T>(StdMutex<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Self(StdMutex::new(value))
        }

        pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
            loop {
                match self.0.try_lock() {
                    Ok(guard) => return Ok(guard),
                    Err(TryLockError::Poisoned(error)) => return Err(error),
                    Err(TryLockError::WouldBlock) => thread::yield_now(),
                }
            }
        }
    }

    /// A reference that is never dropped: the sanitizer does not see the fence in the standard library's.
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

    /// Wakes who waits, or waits next.
    #[derive(Debug, Default)]
    pub struct Chime(AtomicBool);

    impl Chime {
        pub fn ring(&self) {
            self.0.store(true, Ordering::Release);
        }

        pub fn wait(&self) {
            while !self.0.swap(false, Ordering::AcqRel) {
                thread::yield_now();
            }
        }
    }
}

#[path = "exchange/halves.rs"]
mod exchange;

use std::thread;

use exchange::{Meeting, Presenter};
use sync::Arc;

const ROUNDS: u32 = 200;

/// Looks, resets and refreshes in turns, and the end at some moment.
fn life(round: u32) {
    let meeting = Meeting::new();
    let watcher = thread::spawn({
        let meeting = Arc::clone(&meeting);
        move || meeting.watch()
    });
    let mut presenter = Presenter::new(&meeting);
    for step in 0..round % 7 {
        match (round / 7 + step) % 3 {
            0 => presenter.look_once(),
            1 => presenter.reset(),
            _ => presenter.refresh(),
        }
    }
    presenter.end();
    watcher.join().unwrap();
}

fn main() {
    sync::be_presenter();
    for round in 0..ROUNDS {
        life(round);
    }
    println!("1 passed; 0 failed");
}
