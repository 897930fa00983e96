//! The table of shared objects under loom.
//!
//! Each case runs with every interleaving of its threads (up to three preemptions). A thread that
//! is never woken counts as a deadlock.

use std::num::NonZeroUsize;
use std::time::Duration;

use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use uuid::Uuid;

mod sync {
    pub use loom::sync::atomic::AtomicU64;
    pub use loom::sync::{Arc, Condvar, Mutex, RwLock as TableLock};
}

#[path = "../src/shared_objects/table.rs"]
#[allow(dead_code, reason = "the model does not use all of it")]
mod table;

use table::{AddError, Counts, Device, DmaBuf, LookupError, Object, SharedObjects};

const UUID: Uuid = Uuid::from_u128(5);
const NO_WAIT: Duration = Duration::ZERO;
/// In the model, time does not pass: a waiting lookup waits until it is woken.
const FOREVER: Duration = Duration::from_secs(3600);

fn lent(fd: i32) -> Object {
    Object::DmaBuf(DmaBuf::Borrowed(fd))
}

fn model(case: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(case);
}

#[test]
fn a_lookup_sees_an_entry_or_none() {
    model(|| {
        let objects = Arc::new(SharedObjects::new());
        let changes = thread::spawn({
            let objects = Arc::clone(&objects);
            move || {
                objects.add(UUID, lent(7)).unwrap();
                assert!(objects.remove(UUID));
                assert!(!objects.remove(UUID));
            }
        });
        let found = objects.dma_buf_number(UUID, NO_WAIT);
        assert!(matches!(found, Ok(7) | Err(LookupError::Unknown(_))), "{found:?}");
        changes.join().unwrap();
        assert_eq!(objects.kind(UUID), None);
    });
}

#[test]
fn a_number_cannot_be_reused_while_it_is_looked_at() {
    const SHARED: usize = 1;
    const PRIVATE: usize = 2;
    model(|| {
        let objects = Arc::new(SharedObjects::new());
        let file_of_number_7 = Arc::new(AtomicUsize::new(SHARED));
        objects.add(UUID, lent(7)).unwrap();
        let registrar = thread::spawn({
            let (objects, file) = (Arc::clone(&objects), Arc::clone(&file_of_number_7));
            move || {
                assert!(objects.remove(UUID));
                file.store(PRIVATE, Ordering::Relaxed);
            }
        });
        let seen =
            objects.with_dma_buf(UUID, NO_WAIT, |_| file_of_number_7.load(Ordering::Relaxed));
        assert_ne!(seen, Ok(PRIVATE));
        registrar.join().unwrap();
    });
}

#[test]
fn waiting_lookups_are_woken_by_completion() {
    model(|| {
        let objects = Arc::new(SharedObjects::new());
        let ready = Arc::new(AtomicUsize::new(0));
        let owner = objects.owner("exporter");
        let claim = owner.reserve(UUID).unwrap();
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let (objects, ready) = (Arc::clone(&objects), Arc::clone(&ready));
                thread::spawn(move || {
                    assert_eq!(objects.dma_buf_number(UUID, FOREVER), Ok(7));
                    assert_eq!(ready.load(Ordering::Relaxed), 1, "found before it was complete");
                })
            })
            .collect();
        ready.store(1, Ordering::Relaxed);
        claim.complete(lent(7)).unwrap();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

#[test]
fn waiting_lookups_are_woken_when_the_reservation_goes() {
    model(|| {
        let objects = Arc::new(SharedObjects::new());
        let owner = objects.owner("exporter");
        let claim = owner.reserve(UUID).unwrap();
        let waiter = thread::spawn({
            let objects = Arc::clone(&objects);
            move || objects.dma_buf_number(UUID, FOREVER)
        });
        drop(claim);
        assert_eq!(waiter.join().unwrap(), Err(LookupError::Unknown(UUID)));
    });
}

#[test]
fn a_waiting_lookup_survives_a_change_of_owners() {
    model(|| {
        let objects = Arc::new(SharedObjects::new());
        let owner = objects.owner("exporter");
        let first = owner.reserve(UUID).unwrap();
        let waiter = thread::spawn({
            let objects = Arc::clone(&objects);
            move || objects.dma_buf_number(UUID, FOREVER)
        });
        drop(first);
        let second = owner.reserve(UUID).unwrap();
        second.complete(lent(8)).unwrap();
        let found = waiter.join().unwrap();
        assert!(matches!(found, Ok(8) | Err(LookupError::Unknown(_))), "{found:?}");
    });
}

#[test]
fn one_of_two_reservations_wins_and_the_other_is_told_who() {
    model(|| {
        let objects = Arc::new(SharedObjects::new());
        let reserve = |name: &'static str| {
            let objects = Arc::clone(&objects);
            move || {
                let owner = objects.owner(name);
                let result = owner.reserve(UUID);
                match result {
                    Ok(claim) => {
                        // Leaked, so that the entry outlives the thread.
                        std::mem::forget(claim);
                        std::mem::forget(owner);
                        None
                    }
                    Err(AddError::Held(holder)) => Some(holder.owner.to_string()),
                    Err(other) => panic!("{other}"),
                }
            }
        };
        let one = thread::spawn(reserve("one"));
        let two = reserve("two")();
        let one = one.join().unwrap();
        assert!(
            matches!((one.as_deref(), two.as_deref()), (None, Some("one")) | (Some("two"), None)),
            "{one:?} {two:?}"
        );
    });
}

#[test]
fn completing_and_unplugging_meet() {
    model(|| {
        let objects = Arc::new(SharedObjects::new());
        let owner = objects.owner("exporter");
        let claim = owner.reserve(UUID).unwrap();
        let unplug = thread::spawn({
            let objects = Arc::clone(&objects);
            move || objects.clear()
        });
        let waiter = thread::spawn({
            let objects = Arc::clone(&objects);
            move || objects.dma_buf_number(UUID, FOREVER)
        });
        let completed = claim.complete(lent(7));
        let found = waiter.join().unwrap();
        unplug.join().unwrap();
        match completed {
            Ok(()) => {
                assert!(found == Ok(7) || found == Err(LookupError::Unknown(UUID)), "{found:?}");
            }
            Err(error) => {
                assert_eq!(error, AddError::Gone(UUID));
                assert_eq!(found, Err(LookupError::Unknown(UUID)));
            }
        }
        assert_eq!(objects.counts(), Counts::default());
        drop(claim);
        drop(owner);
    });
}

#[test]
fn a_device_and_all_that_leads_to_it_go_together() {
    model(|| {
        let objects = Arc::new(SharedObjects::new());
        let device = Device(NonZeroUsize::new(0x1000).unwrap());
        objects.add(UUID, Object::Device(device)).unwrap();
        let lookup = thread::spawn({
            let objects = Arc::clone(&objects);
            move || objects.device(UUID, NO_WAIT)
        });
        assert_eq!(objects.remove_device(device), 1);
        assert_eq!(objects.device(UUID, NO_WAIT), Err(LookupError::Unknown(UUID)));
        let found = lookup.join().unwrap();
        assert!(found == Ok(device) || found == Err(LookupError::Unknown(UUID)), "{found:?}");
    });
}
