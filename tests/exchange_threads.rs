//! Where a display's halves meet, with threads, for the thread sanitizer on a stable toolchain: see
//! `tests/shared_objects_threads.rs`, which says why there is no harness, and why locks are tried
//! until they are free.

#[path = "threads/stand_ins.rs"]
mod stand_ins;

mod sync {
    use std::cell::Cell;
    use std::sync::{LockResult, Mutex as StdMutex};
    use std::thread;

    use crate::stand_ins::insist;

    pub use crate::stand_ins::Arc;
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
            insist(|| self.0.try_lock())
        }
    }

    /// Wakes a thread that waits, or waits next.
    #[derive(Debug, Default)]
    pub struct Chime(AtomicBool);

    impl Chime {
        pub fn wake(&self) {
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

/// Polls, resets and refreshes in turn, with the end at some moment.
fn life(round: u32) {
    let meeting = Meeting::new();
    let watcher = thread::spawn({
        let meeting = Arc::clone(&meeting);
        move || meeting.watch()
    });
    let mut presenter = Presenter::new(&meeting);
    for step in 0..round % 7 {
        match (round / 7 + step) % 3 {
            0 => presenter.want_one_shot(),
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
