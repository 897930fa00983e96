//! The table itself; the module above says what it is for.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use uuid::Uuid;

use super::sync::{Arc, AtomicU64, Condvar, Mutex, TableLock};

/// Maximum number of entries per owner: a vhost-user device in another process adds them at will.
pub const MAX_PER_OWNER: usize = 65_536;

/// What a UUID can stand for.
#[derive(Debug)]
pub enum Object {
    /// A dma-buf.
    DmaBuf(DmaBuf),
    /// A device to be asked for the dma-buf.
    Device(Device),
}

/// A dma-buf in the table.
#[derive(Debug)]
pub enum DmaBuf {
    /// A descriptor that stays with whoever added it, and is open until the entry is removed.
    Borrowed(RawFd),
    /// A descriptor that the table closes with the entry.
    Owned(OwnedFd),
}

/// A device that shares objects, identified by its address, which is never dereferenced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device(
    /// The address.
    pub NonZeroUsize,
);

/// The kind of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Taken, but not completed yet.
    Reserved,
    /// A dma-buf.
    DmaBuf,
    /// A device.
    Device,
}

/// An entry, described for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// The entry's name.
    pub uuid: Uuid,
    /// What it is.
    pub kind: Kind,
    /// Who holds it.
    pub owner: std::sync::Arc<str>,
}

/// How many entries there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reserved ones.
    pub reserved: usize,
    /// Dma-bufs.
    pub dma_bufs: usize,
    /// Devices; one that shares ten objects counts ten times.
    pub devices: usize,
}

/// Why an object was not added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddError {
    /// The UUID is taken, by this entry.
    Held(Description),
    /// This owner has [`MAX_PER_OWNER`] entries already.
    Full(std::sync::Arc<str>),
    /// This is no descriptor's number.
    BadDescriptor(RawFd),
    /// The entry to complete was removed in the meantime.
    Gone(Uuid),
    /// The entry to complete is complete.
    Complete(Uuid),
}

/// Why a lookup found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// No such entry.
    Unknown(Uuid),
    /// The entry is reserved, and was not completed in the time given.
    NotYet(Uuid),
    /// The entry is of another kind, namely this.
    WrongKind(Uuid, Kind),
}

/// The table: see the module's documentation.
#[derive(Debug)]
pub struct SharedObjects {
    table: TableLock<Table>,
    next: AtomicU64,
}

// foldhash: hashing would be most of a lookup otherwise. Its seed is random; nobody who chooses
// UUIDs sees hashes, or may have more than MAX_PER_OWNER of them.
#[derive(Debug, Default)]
struct Table {
    entries: HashMap<Uuid, Entry, RandomState>,
    owners: HashMap<OwnerId, OwnerRecord>,
}

#[derive(Debug)]
struct Entry {
    serial: u64,
    owner: OwnerId,
    state: State,
}

#[derive(Debug)]
enum State {
    Reserved(Arc<Gate>),
    Ready(Object),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum OwnerId {
    Unnamed,
    Device(Device),
    Named(u64),
}

#[derive(Debug)]
struct OwnerRecord {
    name: std::sync::Arc<str>,
    entries: usize,
}

impl SharedObjects {
    /// An empty table.
    pub fn new() -> Self {
        Self { table: TableLock::new(Table::default()), next: AtomicU64::new(0) }
    }

    /// Makes an owner. Its name is for people, and need not be unique.
    pub fn owner(&self, name: &str) -> Owner<'_> {
        let id = OwnerId::Named(self.next.fetch_add(1, Ordering::Relaxed));
        let record = OwnerRecord { name: name.into(), entries: 0 };
        self.change(|table| table.owners.insert(id, record));
        Owner { objects: self, id }
    }

    /// Adds an object without a claim on it. It stays until it is removed by its UUID, or, if it is
    /// a device, by [`SharedObjects::remove_device`].
    pub fn add(&self, uuid: Uuid, object: Object) -> Result<(), AddError> {
        check(&object)?;
        let owner = match object {
            Object::DmaBuf(_) => OwnerId::Unnamed,
            Object::Device(device) => OwnerId::Device(device),
        };
        self.insert(uuid, owner, State::Ready(object)).map(|_| ())
    }

    /// Removes the entry of this UUID, whoever owns it. Returns whether there was one.
    pub fn remove(&self, uuid: Uuid) -> bool {
        let entry = self.change(|table| table.remove(uuid, |_| true));
        entry.map(Entry::retire).is_some()
    }

    /// Removes every entry that leads to this device, whoever added it. Returns the number of
    /// entries that went.
    pub fn remove_device(&self, device: Device) -> usize {
        let entries = self.change(|table| table.remove_where(|entry| entry.leads_to(device)));
        let count = entries.len();
        entries.into_iter().for_each(Entry::retire);
        count
    }

    /// Removes every entry. The owners stay.
    pub fn clear(&self) {
        let entries = self.change(|table| {
            table.owners.retain(|id, _| matches!(id, OwnerId::Named(_)));
            for record in table.owners.values_mut() {
                record.entries = 0;
            }
            std::mem::take(&mut table.entries)
        });
        entries.into_values().for_each(Entry::retire);
    }

    /// Runs `f` with the number of this dma-buf's descriptor, under the lock: until `f` has
    /// returned, the entry cannot be removed, so the number means this dma-buf and no other file.
    /// `f` must not call the table.
    pub(crate) fn with_dma_buf<R>(
        &self,
        uuid: Uuid,
        patience: Duration,
        f: impl FnOnce(RawFd) -> R,
    ) -> Result<R, LookupError> {
        self.look_up(uuid, patience, |object| match object {
            Object::DmaBuf(DmaBuf::Borrowed(fd)) => Ok(f(*fd)),
            Object::DmaBuf(DmaBuf::Owned(fd)) => Ok(f(fd.as_raw_fd())),
            Object::Device(_) => Err(LookupError::WrongKind(uuid, Kind::Device)),
        })
    }

    /// The number of this dma-buf's descriptor. It means that dma-buf only while the entry is
    /// there: another thread may remove it at any time.
    pub fn dma_buf_number(&self, uuid: Uuid, patience: Duration) -> Result<RawFd, LookupError> {
        self.with_dma_buf(uuid, patience, |fd| fd)
    }

    /// The device to ask for this object.
    pub fn device(&self, uuid: Uuid, patience: Duration) -> Result<Device, LookupError> {
        self.look_up(uuid, patience, |object| match object {
            Object::Device(device) => Ok(*device),
            Object::DmaBuf(_) => Err(LookupError::WrongKind(uuid, Kind::DmaBuf)),
        })
    }

    /// The kind of the entry of this UUID, if there is one.
    pub fn kind(&self, uuid: Uuid) -> Option<Kind> {
        self.read(|table| table.entries.get(&uuid).map(Entry::kind))
    }

    /// Describes the entry of this UUID, if there is one.
    pub fn describe(&self, uuid: Uuid) -> Option<Description> {
        self.read(|table| table.entries.get(&uuid).map(|entry| table.describe(uuid, entry)))
    }

    /// Describes every entry, in the order of the UUIDs, as of one moment.
    pub fn list(&self) -> Vec<Description> {
        let mut list: Vec<_> = self.read(|table| {
            table.entries.iter().map(|(uuid, entry)| table.describe(*uuid, entry)).collect()
        });
        list.sort_by_key(|description| description.uuid);
        list
    }

    /// Counts the entries, as of one moment.
    pub fn counts(&self) -> Counts {
        self.read(|table| {
            table.entries.values().fold(Counts::default(), |mut counts, entry| {
                match entry.kind() {
                    Kind::Reserved => counts.reserved += 1,
                    Kind::DmaBuf => counts.dma_bufs += 1,
                    Kind::Device => counts.devices += 1,
                }
                counts
            })
        })
    }

    fn look_up<R>(
        &self,
        uuid: Uuid,
        patience: Duration,
        f: impl FnOnce(&Object) -> Result<R, LookupError>,
    ) -> Result<R, LookupError> {
        let mut wait = Wait::new(patience);
        loop {
            let gate = {
                let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
                match table.entries.get(&uuid).map(|entry| &entry.state) {
                    None => return Err(LookupError::Unknown(uuid)),
                    Some(State::Ready(object)) => return f(object),
                    Some(State::Reserved(gate)) => Arc::clone(gate),
                }
            };
            // Whoever opens a gate has changed the table before, but by now it may be reserved
            // anew.
            if !gate.pass(&mut wait) {
                return Err(LookupError::NotYet(uuid));
            }
        }
    }

    /// Returns the new entry's serial number.
    fn insert(&self, uuid: Uuid, owner: OwnerId, state: State) -> Result<u64, AddError> {
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        // Taken out on success only: what is refused may have a file to close, which is not done
        // under the lock.
        let mut entry = Some(Entry { serial, owner, state });
        self.change(|table| table.insert(uuid, owner, &mut entry))?;
        Ok(serial)
    }

    fn read<R>(&self, f: impl FnOnce(&Table) -> R) -> R {
        f(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn change<R>(&self, f: impl FnOnce(&mut Table) -> R) -> R {
        f(&mut self.table.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for SharedObjects {
    fn default() -> Self {
        Self::new()
    }
}

impl Table {
    fn insert(
        &mut self,
        uuid: Uuid,
        owner: OwnerId,
        entry: &mut Option<Entry>,
    ) -> Result<(), AddError> {
        if let Some(holder) = self.entries.get(&uuid) {
            return Err(AddError::Held(self.describe(uuid, holder)));
        }
        let record = self.owners.entry(owner).or_insert_with(|| OwnerRecord {
            name: match owner {
                OwnerId::Device(Device(address)) => format!("vhost device {address:#x}").into(),
                OwnerId::Unnamed | OwnerId::Named(_) => "unnamed".into(),
            },
            entries: 0,
        });
        // What has no name was added by the host itself, which is trusted.
        if record.entries >= MAX_PER_OWNER && owner != OwnerId::Unnamed {
            return Err(AddError::Full(record.name.clone()));
        }
        if let Some(entry) = entry.take() {
            record.entries += 1;
            self.entries.insert(uuid, entry);
        }
        Ok(())
    }

    fn remove(&mut self, uuid: Uuid, condition: impl FnOnce(&Entry) -> bool) -> Option<Entry> {
        if !condition(self.entries.get(&uuid)?) {
            return None;
        }
        let entry = self.entries.remove(&uuid)?;
        if let Some(record) = self.owners.get_mut(&entry.owner) {
            record.entries -= 1;
            if record.entries == 0 && !matches!(entry.owner, OwnerId::Named(_)) {
                self.owners.remove(&entry.owner);
            }
        }
        Some(entry)
    }

    fn remove_where(&mut self, condition: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        let uuids: Vec<Uuid> = self
            .entries
            .iter()
            .filter(|(_, entry)| condition(entry))
            .map(|(uuid, _)| *uuid)
            .collect();
        uuids.into_iter().filter_map(|uuid| self.remove(uuid, |_| true)).collect()
    }

    fn describe(&self, uuid: Uuid, entry: &Entry) -> Description {
        let owner =
            self.owners.get(&entry.owner).map_or_else(|| "".into(), |record| record.name.clone());
        Description { uuid, kind: entry.kind(), owner }
    }
}

impl Entry {
    fn kind(&self) -> Kind {
        match self.state {
            State::Reserved(_) => Kind::Reserved,
            State::Ready(Object::DmaBuf(_)) => Kind::DmaBuf,
            State::Ready(Object::Device(_)) => Kind::Device,
        }
    }

    fn leads_to(&self, device: Device) -> bool {
        matches!(self.state, State::Ready(Object::Device(found)) if found == device)
    }

    /// Finishes off an entry that has left the table, outside the lock: closes what it owned, and
    /// wakes those who waited for it.
    fn retire(self) {
        if let State::Reserved(gate) = self.state {
            gate.open();
        }
    }
}

fn check(object: &Object) -> Result<(), AddError> {
    match object {
        Object::DmaBuf(DmaBuf::Borrowed(fd)) if *fd < 0 => Err(AddError::BadDescriptor(*fd)),
        _ => Ok(()),
    }
}

/// An owner of entries in the table. They are removed when it is dropped.
#[derive(Debug)]
pub struct Owner<'t> {
    objects: &'t SharedObjects,
    id: OwnerId,
}

impl<'t> Owner<'t> {
    /// Takes a UUID, to complete it later.
    pub fn reserve(&self, uuid: Uuid) -> Result<Claim<'t>, AddError> {
        self.insert(uuid, State::Reserved(Arc::new(Gate::default())))
    }

    /// Adds an object.
    pub fn add(&self, uuid: Uuid, object: Object) -> Result<Claim<'t>, AddError> {
        check(&object)?;
        self.insert(uuid, State::Ready(object))
    }

    /// Adds an object under a new, random UUID.
    pub fn share(&self, object: Object) -> Result<Claim<'t>, AddError> {
        self.add(Uuid::new_v4(), object)
    }

    fn insert(&self, uuid: Uuid, state: State) -> Result<Claim<'t>, AddError> {
        let serial = self.objects.insert(uuid, self.id, state)?;
        Ok(Claim { objects: self.objects, uuid, serial })
    }
}

impl Drop for Owner<'_> {
    fn drop(&mut self) {
        let entries = self.objects.change(|table| {
            let entries = table.remove_where(|entry| entry.owner == self.id);
            table.owners.remove(&self.id);
            entries
        });
        entries.into_iter().for_each(Entry::retire);
    }
}

/// The right to complete an entry and to remove it. The entry goes when it is dropped.
#[derive(Debug)]
pub struct Claim<'t> {
    objects: &'t SharedObjects,
    uuid: Uuid,
    serial: u64,
}

impl Claim<'_> {
    /// The entry's UUID.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// Puts the object in place of the reservation.
    pub fn complete(&self, object: Object) -> Result<(), AddError> {
        check(&object)?;
        let mut object = Some(object);
        let gate = self.objects.change(|table| {
            let entry = table.entries.get_mut(&self.uuid);
            let Some(entry) = entry.filter(|entry| entry.serial == self.serial) else {
                return Err(AddError::Gone(self.uuid));
            };
            let State::Reserved(gate) = &entry.state else {
                return Err(AddError::Complete(self.uuid));
            };
            let gate = Arc::clone(gate);
            if let Some(object) = object.take() {
                entry.state = State::Ready(object);
            }
            Ok(gate)
        })?;
        gate.open();
        Ok(())
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        let entry = self
            .objects
            .change(|table| table.remove(self.uuid, |entry| entry.serial == self.serial));
        if let Some(entry) = entry {
            entry.retire();
        }
    }
}

/// Where lookups wait for a reserved entry to be completed or to go.
#[derive(Debug, Default)]
struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    /// The table must say so already, and must not be locked.
    fn open(&self) {
        *self.is_open.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.opened.notify_all();
    }

    fn pass(&self, wait: &mut Wait) -> bool {
        if wait.is_over() {
            return false;
        }
        let mut is_open = self.is_open.lock().unwrap_or_else(PoisonError::into_inner);
        while !*is_open {
            let Some(left) = wait.left() else { return false };
            is_open =
                self.opened.wait_timeout(is_open, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// How long a lookup still waits. The clock is read only by one that has to.
#[derive(Debug)]
struct Wait {
    patience: Duration,
    since: Option<Instant>,
}

impl Wait {
    fn new(patience: Duration) -> Self {
        Self { patience, since: None }
    }

    fn is_over(&self) -> bool {
        self.patience.is_zero()
    }

    fn left(&mut self) -> Option<Duration> {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.patience.checked_sub(since.elapsed()).filter(|left| !left.is_zero())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reserved => "reserved",
            Self::DmaBuf => "a dma-buf",
            Self::Device => "a device",
        })
    }
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(Description { uuid, kind, owner }) => {
                write!(f, "shared object {uuid} exists: it is {kind}, held by {owner}")
            }
            Self::Full(owner) => {
                write!(f, "{owner} has {MAX_PER_OWNER} shared objects, the most that one may have")
            }
            Self::BadDescriptor(fd) => write!(f, "{fd} is no file descriptor of a shared object"),
            Self::Gone(uuid) => {
                write!(f, "shared object {uuid} was removed before it was completed")
            }
            Self::Complete(uuid) => write!(f, "shared object {uuid} is complete already"),
        }
    }
}

impl std::error::Error for AddError {}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(uuid) => write!(f, "there is no shared object {uuid}"),
            Self::NotYet(uuid) => write!(f, "shared object {uuid} is not complete yet"),
            Self::WrongKind(uuid, kind) => write!(f, "shared object {uuid} is {kind}"),
        }
    }
}

impl std::error::Error for LookupError {}
