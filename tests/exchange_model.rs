//! Where a display's halves meet, under loom.
//!
//! Each case runs with every interleaving of the two (up to three preemptions). A half that is
//! never woken counts as a deadlock.

mod sync {
    use std::cell::Cell;

    pub use loom::sync::atomic::{AtomicBool, Ordering};
    pub use loom::sync::{Arc, Mutex, MutexGuard};

    loom::thread_local! {
        static IS_PRESENTER: Cell<bool> = Cell::new(false);
    }

    pub fn be_presenter() {
        IS_PRESENTER.with(|is| is.set(true));
    }

    pub fn is_presenter() -> bool {
        IS_PRESENTER.with(Cell::get)
    }

    /// Wakes a thread that waits, or waits next.
    #[derive(Debug)]
    pub struct Chime(loom::sync::Notify);

    impl Default for Chime {
        fn default() -> Self {
            Self(loom::sync::Notify::new())
        }
    }

    impl Chime {
        pub fn wake(&self) {
            self.0.notify();
        }

        pub fn wait(&self) {
            self.0.wait();
        }
    }
}

#[path = "exchange/halves.rs"]
mod exchange;

use exchange::{Meeting, Presenter};
use loom::thread;
use sync::Arc;

/// Runs both halves: what the presenter does, and then the end.
fn model(presents: impl Fn(&mut Presenter) + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let meeting = Meeting::new();
        let watcher = thread::spawn({
            let meeting = Arc::clone(&meeting);
            move || meeting.watch()
        });
        sync::be_presenter();
        let mut presenter = Presenter::new(&meeting);
        presents(&mut presenter);
        presenter.end();
        watcher.join().unwrap();
    });
}

#[test]
fn who_looks_once_gets_what_was_looked_at_after_that() {
    model(|presenter| {
        presenter.want_one_shot();
        presenter.want_one_shot();
    });
}

#[test]
fn the_end_may_come_at_any_time() {
    model(|_| ());
    model(Presenter::refresh);
}

#[test]
fn nobody_calls_a_device_that_is_being_reset() {
    model(Presenter::reset);
    model(|presenter| {
        presenter.reset();
        presenter.want_one_shot();
    });
}

#[test]
fn a_reset_takes_back_what_waits() {
    model(|presenter| {
        presenter.refresh();
        presenter.reset();
        presenter.refresh();
    });
}
