use std::fs::File;
use std::io::Read;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::capi::shared_objects::duplicate;
use crate::memory::tests::memfd;

const UUID: Uuid = Uuid::from_u128(5);
const NO_WAIT: Duration = Duration::ZERO;
/// Longer than any test may take, so that waiting in vain shows as a hang.
const LONG: Duration = Duration::from_secs(3600);

fn borrowed(fd: i32) -> Object {
    Object::DmaBuf(DmaBuf::Borrowed(fd))
}

fn device(address: usize) -> Device {
    Device(NonZeroUsize::new(address).unwrap())
}

/// A connection: whether one end is closed can be read from the other.
fn pipe() -> (UnixStream, OwnedFd) {
    let (reader, writer) = UnixStream::pair().unwrap();
    (reader, writer.into())
}

#[test]
fn removing_and_clearing_before_the_first_add() {
    let objects = SharedObjects::new();
    assert!(!objects.remove(UUID));
    objects.clear();
    assert_eq!(objects.remove_device(device(1)), 0);
    assert_eq!(objects.dma_buf_number(UUID, NO_WAIT), Err(LookupError::Unknown(UUID)));
    assert_eq!(objects.kind(UUID), None);
    assert_eq!(objects.counts(), Counts::default());
}

#[test]
fn a_second_add_changes_nothing_and_names_the_holder() {
    let objects = SharedObjects::new();
    let owner = objects.owner("vgpu0");
    let claim = owner.add(UUID, borrowed(7)).unwrap();
    for object in [borrowed(8), Object::Device(device(0x1000))] {
        let error = objects.add(UUID, object).unwrap_err();
        assert_eq!(
            error.to_string(),
            "shared object 00000000-0000-0000-0000-000000000005 exists: it is a dma-buf, held by \
             vgpu0"
        );
    }
    assert_eq!(objects.dma_buf_number(UUID, NO_WAIT), Ok(7));
    drop(claim);
    objects.add(UUID, Object::Device(device(0x1000))).unwrap();
    let error = owner.reserve(UUID).unwrap_err();
    assert!(error.to_string().ends_with("it is a device, held by vhost device 0x1000"), "{error}");
}

#[test]
fn numbers_are_checked() {
    let objects = SharedObjects::new();
    let owner = objects.owner("vgpu0");
    let claim = owner.reserve(UUID).unwrap();
    for fd in [-1, -2, i32::MIN] {
        assert_eq!(objects.add(Uuid::nil(), borrowed(fd)), Err(AddError::BadDescriptor(fd)));
        assert_eq!(claim.complete(borrowed(fd)), Err(AddError::BadDescriptor(fd)));
    }
    assert_eq!(objects.kind(UUID), Some(Kind::Reserved));
    claim.complete(borrowed(0)).unwrap();
    assert_eq!(objects.dma_buf_number(UUID, NO_WAIT), Ok(0));
}

#[test]
fn kinds_are_told_apart() {
    let objects = SharedObjects::new();
    let other = Uuid::from_u128(6);
    objects.add(UUID, borrowed(7)).unwrap();
    objects.add(other, Object::Device(device(0x1000))).unwrap();
    assert_eq!(objects.kind(UUID), Some(Kind::DmaBuf));
    assert_eq!(objects.kind(other), Some(Kind::Device));
    assert_eq!(objects.device(UUID, NO_WAIT), Err(LookupError::WrongKind(UUID, Kind::DmaBuf)));
    assert_eq!(
        objects.dma_buf_number(other, NO_WAIT),
        Err(LookupError::WrongKind(other, Kind::Device))
    );
    assert_eq!(objects.device(other, NO_WAIT), Ok(device(0x1000)));
}

#[test]
fn a_reserved_entry_is_taken_and_not_found() {
    let objects = SharedObjects::new();
    let owner = objects.owner("vgpu0");
    let claim = owner.reserve(UUID).unwrap();
    assert_eq!(objects.dma_buf_number(UUID, NO_WAIT), Err(LookupError::NotYet(UUID)));
    assert_eq!(objects.device(UUID, NO_WAIT), Err(LookupError::NotYet(UUID)));
    assert_eq!(
        objects.dma_buf_number(UUID, Duration::from_millis(1)),
        Err(LookupError::NotYet(UUID))
    );
    assert!(matches!(objects.add(UUID, borrowed(7)), Err(AddError::Held(_))));
    claim.complete(borrowed(7)).unwrap();
    assert_eq!(objects.dma_buf_number(UUID, NO_WAIT), Ok(7));
    assert_eq!(claim.complete(borrowed(8)), Err(AddError::Complete(UUID)));
    assert_eq!(objects.dma_buf_number(UUID, NO_WAIT), Ok(7));
    drop(claim);
    assert_eq!(objects.kind(UUID), None);
}

#[test]
fn a_claim_touches_its_own_entry_only() {
    let objects = SharedObjects::new();
    let owner = objects.owner("vgpu0");
    let stale = owner.reserve(UUID).unwrap();
    assert!(objects.remove(UUID));
    assert_eq!(stale.complete(borrowed(7)), Err(AddError::Gone(UUID)));
    objects.add(UUID, borrowed(8)).unwrap();
    assert_eq!(stale.complete(borrowed(7)), Err(AddError::Gone(UUID)));
    drop(stale);
    assert_eq!(objects.dma_buf_number(UUID, NO_WAIT), Ok(8));
}

#[test]
fn an_owner_takes_all_its_entries_along_and_no_others() {
    let objects = SharedObjects::new();
    let (leaving, staying) = (objects.owner("leaving"), objects.owner("staying"));
    let claims: Vec<_> = (0..10)
        .map(|i| if i % 2 == 0 { &leaving } else { &staying }.reserve(Uuid::from_u128(i)).unwrap())
        .collect();
    claims[0].complete(borrowed(7)).unwrap();
    claims[1].complete(borrowed(8)).unwrap();
    objects.add(Uuid::from_u128(100), borrowed(9)).unwrap();
    drop(leaving);
    assert_eq!(objects.counts(), Counts { reserved: 4, dma_bufs: 2, devices: 0 });
    assert_eq!(claims[2].complete(borrowed(7)), Err(AddError::Gone(Uuid::from_u128(2))));
    assert_eq!(claims[3].complete(borrowed(7)), Ok(()));
    drop(claims);
    assert_eq!(objects.counts(), Counts { reserved: 0, dma_bufs: 1, devices: 0 });
    drop(staying);
}

#[test]
fn a_device_takes_along_what_leads_to_it() {
    let objects = SharedObjects::new();
    let owner = objects.owner("vgpu0");
    let claim = owner.add(Uuid::from_u128(1), Object::Device(device(0x1000))).unwrap();
    objects.add(Uuid::from_u128(2), Object::Device(device(0x1000))).unwrap();
    objects.add(Uuid::from_u128(3), Object::Device(device(0x2000))).unwrap();
    objects.add(Uuid::from_u128(4), borrowed(0x1000)).unwrap();
    assert_eq!(objects.remove_device(device(0x1000)), 2);
    assert_eq!(objects.remove_device(device(0x1000)), 0);
    assert_eq!(objects.counts(), Counts { reserved: 0, dma_bufs: 1, devices: 1 });
    drop(claim);
}

#[test]
fn one_owner_cannot_fill_the_table() {
    let objects = SharedObjects::new();
    let share = |n| objects.add(Uuid::from_u128(n), Object::Device(device(0x1000)));
    let limit = MAX_PER_OWNER as u128;
    (0..limit).for_each(|n| share(n).unwrap());
    let error = share(limit).unwrap_err();
    assert_eq!(
        error.to_string(),
        "vhost device 0x1000 has 65536 shared objects, the most that one may have"
    );
    objects.add(Uuid::from_u128(limit), Object::Device(device(0x2000))).unwrap();
    assert!(objects.remove(Uuid::from_u128(0)));
    share(0).unwrap();
    assert_eq!(objects.remove_device(device(0x1000)), MAX_PER_OWNER);
    share(0).unwrap();
    objects.clear();
    share(0).unwrap();
}

#[test]
fn what_the_table_owns_is_closed_when_it_goes_or_is_refused() {
    let objects = SharedObjects::new();
    let owner = objects.owner("vgpu0");
    let share = |fd| owner.share(Object::DmaBuf(DmaBuf::Owned(fd)));
    let is_closed = |mut reader: UnixStream| reader.read(&mut [0]).unwrap() == 0;

    let (reader, writer) = pipe();
    let number = writer.as_raw_fd();
    let claim = share(writer).unwrap();
    assert_eq!(objects.dma_buf_number(claim.uuid(), NO_WAIT), Ok(number));
    let (refused, writer) = pipe();
    assert!(owner.add(claim.uuid(), Object::DmaBuf(DmaBuf::Owned(writer))).is_err());
    assert!(is_closed(refused));
    let (refused, writer) = pipe();
    assert!(claim.complete(Object::DmaBuf(DmaBuf::Owned(writer))).is_err());
    assert!(is_closed(refused));
    drop(claim);
    assert!(is_closed(reader));

    let (reader, writer) = pipe();
    let _claim = share(writer).unwrap();
    objects.clear();
    assert!(is_closed(reader));

    let (reader, writer) = pipe();
    let _claim = share(writer).unwrap();
    drop(owner);
    assert!(is_closed(reader));
}

#[test]
fn shared_uuids_differ_and_are_random() {
    let objects = SharedObjects::new();
    let owner = objects.owner("vgpu0");
    let share = || owner.share(Object::DmaBuf(DmaBuf::Owned(pipe().1))).unwrap();
    let (one, two) = (share(), share());
    assert_ne!(one.uuid(), two.uuid());
    assert_eq!(one.uuid().get_version(), Some(uuid::Version::Random));
}

#[test]
fn the_list_is_ordered_and_names_owners() {
    let objects = SharedObjects::new();
    let owner = objects.owner("vgpu0");
    let _claim = owner.reserve(Uuid::from_u128(2)).unwrap();
    objects.add(Uuid::from_u128(3), Object::Device(device(0x1000))).unwrap();
    objects.add(Uuid::from_u128(1), borrowed(7)).unwrap();
    let list: Vec<String> = objects
        .list()
        .into_iter()
        .map(|entry| format!("{}: {}, {}", entry.uuid.as_u128(), entry.kind, entry.owner))
        .collect();
    assert_eq!(
        list,
        ["1: a dma-buf, unnamed", "2: reserved, vgpu0", "3: a device, vhost device 0x1000"]
    );
}

#[test]
fn a_lookup_that_waits_gets_what_another_thread_completes() {
    let objects = SharedObjects::new();
    let owner = objects.owner("vgpu0");
    let claim = owner.reserve(UUID).unwrap();
    let abandoned = owner.reserve(Uuid::from_u128(6)).unwrap();
    thread::scope(|scope| {
        let found = scope.spawn(|| objects.dma_buf_number(UUID, LONG));
        let nothing = scope.spawn(|| objects.dma_buf_number(Uuid::from_u128(6), LONG));
        claim.complete(borrowed(7)).unwrap();
        drop(abandoned);
        assert_eq!(found.join().unwrap(), Ok(7));
        assert_eq!(nothing.join().unwrap(), Err(LookupError::Unknown(Uuid::from_u128(6))));
    });
}

/// Readers duplicate what they find and check that it is the file of that UUID, while registrars
/// remove entries, close the files and make new ones, which get the numbers just freed.
#[test]
fn a_duplicate_is_never_of_another_file() {
    const UUIDS: u128 = 4;
    const ROUNDS: usize = 1000;
    let objects = SharedObjects::new();
    let stop = AtomicBool::new(false);
    let start = Barrier::new(4);
    thread::scope(|scope| {
        let registrars: Vec<_> = (0..2)
            .map(|half| {
                let (objects, start) = (&objects, &start);
                scope.spawn(move || {
                    start.wait();
                    for round in 0..ROUNDS {
                        let n = half * (UUIDS / 2) + round as u128 % (UUIDS / 2);
                        let file = memfd(&n.to_ne_bytes(), true);
                        objects.add(Uuid::from_u128(n), borrowed(file.as_raw_fd())).unwrap();
                        thread::yield_now();
                        assert!(objects.remove(Uuid::from_u128(n)));
                        drop(file);
                    }
                })
            })
            .collect();
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (objects, start, stop) = (&objects, &start, &stop);
                scope.spawn(move || {
                    start.wait();
                    let mut found = 0;
                    while !stop.load(Ordering::Relaxed) {
                        for n in 0..UUIDS {
                            let uuid = Uuid::from_u128(n);
                            let Ok(copy) = duplicate(objects, uuid, NO_WAIT) else { continue };
                            let mut bytes = [0; 16];
                            File::from(copy.unwrap()).read_exact_at(&mut bytes, 0).unwrap();
                            assert_eq!(u128::from_ne_bytes(bytes), n);
                            found += 1;
                        }
                    }
                    found
                })
            })
            .collect();
        for registrar in registrars {
            registrar.join().unwrap();
        }
        stop.store(true, Ordering::Relaxed);
        let found: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(found > 0, "the readers never met an entry");
    });
    assert_eq!(objects.counts(), Counts::default());
}
