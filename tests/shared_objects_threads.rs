//! The table of shared objects with threads, for the thread sanitizer on a stable toolchain.
//!
//! The standard library is not instrumented. Where it takes a lock by itself, as after a wait, the
//! sanitizer does not see that, and reports false races; so it does for the fence in `Arc`. Here
//! the table therefore uses a lock that is tried until it is free, a condition variable that checks
//! again from time to time, and references that are never dropped. There is no test harness, since
//! its channel is such code, too.
//!
//! The sanitizer also watches descriptors: duplicating one while another thread closes it counts as
//! a race.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use uuid::Uuid;

#[path = "threads/stand_ins.rs"]
mod stand_ins;

#[expect(
    clippy::match_wild_err_arm,
    clippy::unnecessary_wraps,
    clippy::unused_self,
    reason = "the signatures are those of the locks that it stands in for"
)]
mod sync {
    use std::sync::{
        LockResult, Mutex as StdMutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
    };
    use std::thread;
    use std::time::Duration;

    use crate::stand_ins::insist;

    pub use crate::stand_ins::Arc;
    pub use std::sync::atomic::AtomicU64;

    #[derive(Debug)]
    pub struct TableLock<T>(RwLock<T>);

    impl<T> TableLock<T> {
        pub fn new(value: T) -> Self {
            Self(RwLock::new(value))
        }

        pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
            insist(|| self.0.try_read())
        }

        pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
            insist(|| self.0.try_write())
        }
    }

    #[derive(Debug, Default)]
    pub struct Mutex<T>(StdMutex<T>);

    /// A guard that knows its mutex, so that a condition variable can release it.
    pub struct Guard<'a, T>(&'a Mutex<T>, MutexGuard<'a, T>);

    impl<T> Mutex<T> {
        pub fn lock(&self) -> LockResult<Guard<'_, T>> {
            match insist(|| self.0.try_lock()) {
                Ok(guard) => Ok(Guard(self, guard)),
                Err(_) => panic!("another thread panicked"),
            }
        }
    }

    impl<T> std::ops::Deref for Guard<'_, T> {
        type Target = T;
        fn deref(&self) -> &T {
            &self.1
        }
    }

    impl<T> std::ops::DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            &mut self.1
        }
    }

    #[derive(Debug, Default)]
    pub struct Condvar;

    impl Condvar {
        pub fn notify_all(&self) {}

        pub fn wait_timeout<'a, T>(
            &self,
            guard: Guard<'a, T>,
            _timeout: Duration,
        ) -> LockResult<(Guard<'a, T>, ())> {
            let mutex = guard.0;
            drop(guard);
            thread::sleep(Duration::from_micros(50));
            mutex.lock().map(|guard| (guard, ())).map_err(|_| panic!("another thread panicked"))
        }
    }
}

#[path = "../src/shared_objects/table.rs"]
#[allow(dead_code, reason = "this test does not use all of it")]
mod table;

use table::{DmaBuf, LookupError, Object, SharedObjects};

const ROUNDS: u128 = 300;
const NO_WAIT: Duration = Duration::ZERO;
const LONG: Duration = Duration::from_secs(3600);

fn new_file() -> OwnedFd {
    // SAFETY: the name is a string, and the kernel gives a new descriptor or -1, which is checked.
    unsafe {
        let fd = libc::memfd_create(c"shared".as_ptr(), libc::MFD_CLOEXEC);
        assert!(fd >= 0, "memfd_create: {}", std::io::Error::last_os_error());
        OwnedFd::from_raw_fd(fd)
    }
}

/// Duplicates as the library does, but with the call that the sanitizer knows.
fn duplicate(
    objects: &SharedObjects,
    uuid: Uuid,
    patience: Duration,
) -> Result<OwnedFd, LookupError> {
    objects.with_dma_buf(uuid, patience, |fd| {
        // SAFETY: dup takes any number; the new descriptor is checked, and ours.
        unsafe {
            let copy = libc::dup(fd);
            assert!(copy >= 0, "dup({fd}): {}", std::io::Error::last_os_error());
            OwnedFd::from_raw_fd(copy)
        }
    })
}

/// One thread adds, removes and closes, others look up.
fn lent_descriptors(objects: &'static SharedObjects) {
    static STOP: AtomicBool = AtomicBool::new(false);
    static FOUND: AtomicUsize = AtomicUsize::new(0);
    let readers: Vec<_> = (0..3)
        .map(|_| {
            thread::spawn(|| {
                while !STOP.load(Ordering::Relaxed) {
                    if duplicate(objects, Uuid::from_u128(1), NO_WAIT).is_ok() {
                        FOUND.fetch_add(1, Ordering::Relaxed);
                    }
                    objects.kind(Uuid::from_u128(1));
                    objects.counts();
                }
            })
        })
        .collect();
    let mut round = 0;
    while round < ROUNDS || FOUND.load(Ordering::Relaxed) == 0 {
        let file = new_file();
        let lent = Object::DmaBuf(DmaBuf::Borrowed(file.as_raw_fd()));
        objects.add(Uuid::from_u128(1), lent).unwrap();
        thread::yield_now();
        assert!(objects.remove(Uuid::from_u128(1)));
        drop(file);
        round += 1;
    }
    STOP.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.join().unwrap();
    }
}

/// Lookups wait for what another thread completes; owners end with entries of all kinds.
fn two_steps(objects: &'static SharedObjects) {
    for round in 0..ROUNDS {
        let uuid = Uuid::from_u128(1000 + round);
        let owner = objects.owner("exporter");
        let claim = owner.reserve(uuid).unwrap();
        let waiters: Vec<_> =
            (0..2).map(|_| thread::spawn(move || duplicate(objects, uuid, LONG))).collect();
        if round % 2 == 0 {
            claim.complete(Object::DmaBuf(DmaBuf::Owned(new_file()))).unwrap();
            // They are to find it before it goes.
            for waiter in waiters {
                waiter.join().unwrap().unwrap();
            }
            drop(owner);
        } else {
            drop(owner);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap().unwrap_err(), LookupError::Unknown(uuid));
            }
        }
        assert_eq!(objects.kind(uuid), None);
    }
}

fn main() {
    let objects: &'static SharedObjects = Box::leak(Box::new(SharedObjects::new()));
    lent_descriptors(objects);
    two_steps(objects);
    println!("2 passed; 0 failed");
}
