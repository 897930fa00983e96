//! The dma-bufs we hold.
//!
//! # The contract
//!
//! It follows the kernel's contract between importers and exporters of dma-bufs (`dma_buf_pin`,
//! `dma_buf_unpin`, `move_notify`), with the pool between the device that exports and the host that
//! imports.
//!
//! - A buffer is **immutable**: an id that comes back with another geometry is another buffer.
//! - A buffer is **pinned** by a [`User`] as long as that user shows it, or a front end uses it.
//!   Pins are counted per user; each [`Pool::pin`] is matched by one [`Pool::unpin`] of the same
//!   user. What is not pinned is **cached**.
//! - Only cached buffers are **evicted**, the one used longest ago first, when the pool holds more
//!   than its [`Limits`]. Pinned buffers may exceed them.
//! - [`Pool::invalidate`] says that the device may have given the memory behind every buffer to
//!   something else: cached buffers go at once; a pinned one becomes **stale**: no id leads to it
//!   any more, its pixels may still be read, its users are to replace it at once, and it goes with
//!   its last pin. [`Pool::invalidate_id`] does so for one id.
//! - Buffers that leave the pool are **retired**: the pool calls nobody; its owner takes them with
//!   [`Pool::take_retired`], and tells all users of the descriptor, which is closed when the last
//!   of them drops it.
//! - What the device gives only once ([`Device::exports_once`]) is kept beyond the limits, up to
//!   [`KEPT_MOST`] buffers. The ids of those that went are **spent** for the life of the pool: see
//!   [`Pool::is_used_up`].
//! - A buffer has [`IDS_MOST`] ids at most: the device may make up a new one at each flip, and the
//!   oldest then means it no longer.
//! - Unpinning what the user had not pinned and using a key whose buffer is gone are
//!   **violations**: harmless, counted in [`Pool::violations`], and described, with a backtrace in
//!   debug builds, to the log of the display.
//!
//! Where it differs from the kernel's: pins belong to the kind of user, not to an attachment
//! object; invalidating a pinned buffer is no violation, since devices reset while their screen is
//! shown, but its users must react; and there are no fences here, as the pool does not wait for the
//! GPU.
//!
//! [`Device::exports_once`]: crate::device::Device::exports_once

#![forbid(unsafe_code)]

use std::backtrace::Backtrace;
use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;

use foldhash::fast::RandomState;
use slotmap::{Key as _, SlotMap};

use crate::memory::{DmaBuf, Identity, Memory};
use crate::plane::Geometry;
use crate::shared_objects::Claim;

/// Who pins a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum User {
    /// It is the screen.
    Scanout,
    /// It is the pointer.
    Cursor,
    /// A front end uses it, and has not released it yet.
    FrontEnd,
}

const USERS: usize = 3;

/// How much a pool may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Buffers at most.
    pub count: usize,
    /// Bytes of device memory at most, by the dma-bufs' own sizes.
    pub bytes: u64,
}

/// The most ids that lead to one buffer: more than a guest has buffers.
pub const IDS_MOST: usize = 64;

/// How many dma-bufs are kept that the device gives only once. They take a descriptor or two each,
/// of which a process has 1024 as a rule, and no memory: all are parts of the same.
pub const KEPT_MOST: usize = 256;

impl Default for Limits {
    /// Room for a guest that rotates 16 buffers of 3840x2160 pixels with a cursor or two; a guest
    /// that makes a new buffer at each flip keeps no more than that.
    fn default() -> Self {
        Self { count: 24, bytes: 1 << 30 }
    }
}

slotmap::new_key_type! {
    /// Names a buffer of one pool, and never names another one later.
    pub struct Key;
}

/// A buffer, and its pixels.
#[derive(Debug)]
pub struct Buffer {
    /// What its pixels look like.
    pub geometry: Geometry,
    /// The descriptor.
    pub dma_buf: Arc<DmaBuf>,
    /// Its place in the table of shared objects, if somebody asked for one; it is given up with the
    /// buffer.
    pub claim: Option<Claim<'static>>,
    memory: Option<Memory>,
    ids: VecDeque<u32>,
    pins: [u32; USERS],
    used: u64,
}

impl Buffer {
    /// Its bytes, for the CPU to read; mapped when first asked for.
    pub fn memory(&mut self) -> io::Result<&Memory> {
        match &mut self.memory {
            Some(memory) => Ok(memory),
            empty @ None => {
                let memory = self.dma_buf.memory(self.geometry.bytes_needed())?;
                Ok(empty.insert(memory))
            }
        }
    }

    /// Whether anybody shows or uses it.
    pub fn is_pinned(&self) -> bool {
        self.pins.iter().any(|&count| count > 0)
    }
}

/// What a pool holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Buffers held.
    pub buffers: usize,
    /// Of these, pinned.
    pub pinned: usize,
    /// Bytes held.
    pub bytes: u64,
    /// Questions for a buffer by its id, so far.
    pub look_ups: u64,
    /// Buffers that went because the pool was full, so far.
    pub evictions: u64,
    /// Descriptors that turned out to be of a buffer held already, so far.
    pub duplicates: u64,
    /// Breaches of the contract, so far.
    pub violations: u64,
}

/// The dma-bufs that a display holds.
#[derive(Debug)]
pub struct Pool {
    limits: Limits,
    exports_once: bool,
    buffers: SlotMap<Key, Buffer>,
    // Each refresh looks for an id. foldhash's seed is random, and the device, which chooses the
    // ids, does not see the hashes.
    by_id: HashMap<u32, Key, RandomState>,
    by_identity: HashMap<(Identity, Geometry), Key>,
    used_up: HashSet<u32>,
    retired: Vec<(Key, Buffer)>,
    now: u64,
    // Each buffer may be as large as a file can be.
    bytes: u128,
    look_ups: u64,
    evictions: u64,
    duplicates: u64,
    violations: u64,
    unreported: Option<Violation>,
}

impl Pool {
    /// An empty pool. `exports_once`: of a device of [that
    /// kind](crate::device::Device::exports_once).
    pub fn new(limits: Limits, exports_once: bool) -> Self {
        Self {
            limits,
            exports_once,
            buffers: SlotMap::with_key(),
            by_id: HashMap::default(),
            by_identity: HashMap::new(),
            used_up: HashSet::new(),
            retired: Vec::new(),
            now: 0,
            bytes: 0,
            look_ups: 0,
            evictions: 0,
            duplicates: 0,
            violations: 0,
            unreported: None,
        }
    }

    /// Looks for the buffer with this id and geometry, and counts it as used.
    ///
    /// Finding the id with another geometry means that the device gave the id to a new buffer: the
    /// old one is invalidated.
    pub fn look_up(&mut self, id: u32, geometry: &Geometry) -> Option<Key> {
        self.look_ups += 1;
        let key = *self.by_id.get(&id)?;
        self.now += 1;
        let now = self.now;
        let buffer = self.get_mut(key)?;
        if buffer.geometry != *geometry {
            self.invalidate_id(id);
            return None;
        }
        buffer.used = now;
        Some(key)
    }

    /// Takes in what a get returned. A buffer that is held already, by another id, is recognised,
    /// and the new descriptor is closed.
    pub fn insert(&mut self, id: u32, geometry: Geometry, dma_buf: DmaBuf) -> Key {
        self.invalidate_id(id);
        self.now += 1;
        let identity = (dma_buf.identity(), geometry);
        let held = self.by_identity.get(&identity).copied();
        let now = self.now;
        if let Some((key, buffer)) = held.and_then(|key| Some((key, self.get_mut(key)?))) {
            buffer.ids.push_back(id);
            buffer.used = now;
            let too_old = if buffer.ids.len() > IDS_MOST { buffer.ids.pop_front() } else { None };
            if let Some(too_old) = too_old {
                self.by_id.remove(&too_old);
                self.use_up([too_old]);
            }
            self.duplicates += 1;
            self.by_id.insert(id, key);
            return key;
        }
        self.bytes += u128::from(dma_buf.size());
        let key = self.buffers.insert(Buffer {
            geometry,
            dma_buf: Arc::new(dma_buf),
            claim: None,
            memory: None,
            ids: VecDeque::from([id]),
            pins: [0; USERS],
            used: now,
        });
        self.by_identity.insert(identity, key);
        self.by_id.insert(id, key);
        key
    }

    /// Whether the device must not be asked for this id any more: it gives each dma-buf once, and
    /// this one was closed.
    pub fn is_used_up(&self, id: u32) -> bool {
        self.used_up.contains(&id)
    }

    /// What a get returned cannot be used, and is about to be closed.
    pub fn refuse(&mut self, id: u32) {
        self.use_up([id]);
    }

    /// The buffer of this name, if it is still there.
    pub fn get(&self, key: Key) -> Option<&Buffer> {
        self.buffers.get(key)
    }

    /// As [`Pool::get`], to read its pixels or attach a claim.
    pub fn get_mut(&mut self, key: Key) -> Option<&mut Buffer> {
        self.buffers.get_mut(key)
    }

    /// Whether the device has taken the buffer back.
    pub fn is_stale(&self, key: Key) -> bool {
        self.get(key).is_none_or(|buffer| buffer.ids.is_empty())
    }

    /// Keeps the buffer from being evicted until the same user unpins it.
    pub fn pin(&mut self, key: Key, user: User) {
        match self.get_mut(key) {
            Some(buffer) => buffer.pins[user as usize] += 1,
            None => self.violation(Breach::PinOfGone, user, key),
        }
    }

    /// Takes one pin of this user back. A stale buffer retires with its last pin.
    pub fn unpin(&mut self, key: Key, user: User) {
        let Some(buffer) = self.get_mut(key) else {
            return self.violation(Breach::UnpinOfGone, user, key);
        };
        let Some(fewer) = buffer.pins[user as usize].checked_sub(1) else {
            return self.violation(Breach::UnpinOfUnpinned, user, key);
        };
        buffer.pins[user as usize] = fewer;
        if buffer.ids.is_empty() && !buffer.is_pinned() {
            self.retire(key);
        }
    }

    /// Evicts cached buffers until the pool is within its limits, except `keep`, which is about to
    /// be pinned.
    pub fn evict(&mut self, keep: Option<Key>) {
        let is_over = |pool: &Self| {
            let (count, bytes) = (pool.buffers.len(), pool.bytes);
            if pool.exports_once {
                count > KEPT_MOST.max(pool.limits.count)
            } else {
                count > pool.limits.count || bytes > pool.limits.bytes.into()
            }
        };
        while is_over(self) {
            let oldest = self
                .buffers
                .iter()
                .filter(|(key, buffer)| !buffer.is_pinned() && Some(*key) != keep)
                .min_by_key(|(_, buffer)| buffer.used)
                .map(|(key, _)| key);
            let Some(oldest) = oldest else { return };
            self.evictions += 1;
            self.retire(oldest);
        }
    }

    /// The device may have reused all memory: see the contract.
    pub fn invalidate(&mut self) {
        self.by_id.clear();
        self.by_identity.clear();
        for buffer in self.buffers.values_mut() {
            let ids = buffer.ids.drain(..);
            if self.exports_once {
                self.used_up.extend(ids);
            }
        }
        let cached: Vec<Key> = self
            .buffers
            .iter()
            .filter(|(_, buffer)| !buffer.is_pinned())
            .map(|(key, _)| key)
            .collect();
        for key in cached {
            self.retire(key);
        }
    }

    /// The device no longer means by `id` what it meant: the buffer loses it, and goes with its
    /// last id.
    pub fn invalidate_id(&mut self, id: u32) {
        let Some(key) = self.by_id.remove(&id) else { return };
        let Some(buffer) = self.get_mut(key) else { return };
        buffer.ids.retain(|&other| other != id);
        if !buffer.ids.is_empty() {
            return;
        }
        let is_pinned = buffer.is_pinned();
        let identity = (buffer.dma_buf.identity(), buffer.geometry);
        self.by_identity.remove(&identity);
        if !is_pinned {
            self.retire(key);
        }
    }

    /// Takes the buffers that went since the last call, with the names that they had.
    pub fn take_retired(&mut self) -> Vec<(Key, Buffer)> {
        std::mem::take(&mut self.retired)
    }

    /// What the pool holds and did.
    pub fn statistics(&self) -> Statistics {
        Statistics {
            buffers: self.buffers.len(),
            pinned: self.buffers.values().filter(|buffer| buffer.is_pinned()).count(),
            bytes: self.bytes.try_into().unwrap_or(u64::MAX),
            look_ups: self.look_ups,
            evictions: self.evictions,
            duplicates: self.duplicates,
            violations: self.violations,
        }
    }

    /// Breaches of the contract, so far.
    pub fn violations(&self) -> u64 {
        self.violations
    }

    /// The last breach, once, for the log.
    pub fn take_violation(&mut self) -> Option<Violation> {
        self.unreported.take()
    }

    /// These ids do not lead to their buffers any more.
    fn use_up(&mut self, ids: impl IntoIterator<Item = u32>) {
        if self.exports_once {
            self.used_up.extend(ids);
        }
    }

    fn retire(&mut self, key: Key) {
        let Some(buffer) = self.buffers.remove(key) else { return };
        for id in &buffer.ids {
            self.by_id.remove(id);
        }
        self.use_up(buffer.ids.iter().copied());
        let identity = (buffer.dma_buf.identity(), buffer.geometry);
        // A newer buffer may have the same file by now.
        if self.by_identity.get(&identity) == Some(&key) {
            self.by_identity.remove(&identity);
        }
        self.bytes -= u128::from(buffer.dma_buf.size());
        self.retired.push((key, buffer));
    }

    fn violation(&mut self, breach: Breach, user: User, key: Key) {
        self.violations += 1;
        let backtrace = cfg!(debug_assertions).then(Backtrace::force_capture);
        self.unreported = Some(Violation { breach, user, key, backtrace });
    }
}

/// A breach of the pool's contract.
#[derive(Debug)]
pub struct Violation {
    breach: Breach,
    user: User,
    key: Key,
    backtrace: Option<Backtrace>,
}

#[derive(Clone, Copy, Debug)]
enum Breach {
    PinOfGone,
    UnpinOfGone,
    UnpinOfUnpinned,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its place in the pool, and for the how many-th time that is used.
        let (user, key) = (self.user, self.key.data());
        match self.breach {
            Breach::PinOfGone => write!(f, "{user:?} pins buffer {key:?}, which is gone")?,
            Breach::UnpinOfGone => write!(f, "{user:?} unpins buffer {key:?}, which is gone")?,
            Breach::UnpinOfUnpinned => {
                write!(f, "{user:?} unpins buffer {key:?}, which it has not pinned")?;
            }
        }
        match &self.backtrace {
            Some(backtrace) => write!(f, "\n{backtrace}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;
    use crate::memory::tests::memfd;
    use drm_fourcc::{DrmFourcc, DrmModifier};

    const GEOMETRY: Geometry = Geometry {
        format: Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::Linear },
        width: 16,
        height: 16,
        stride: 64,
        size: 1024,
    };

    fn pool(count: usize) -> Pool {
        Pool::new(Limits { count, bytes: 1 << 20 }, false)
    }

    fn dma_buf() -> DmaBuf {
        DmaBuf::new(memfd(&[0; 1024], true).into()).unwrap()
    }

    fn insert(pool: &mut Pool, id: u32) -> Key {
        let key = pool.insert(id, GEOMETRY, dma_buf());
        pool.evict(Some(key));
        key
    }

    #[test]
    fn what_rotates_within_the_limit_stays() {
        let mut pool = pool(16);
        let keys: Vec<Key> = (0..16).map(|id| insert(&mut pool, id)).collect();
        for flip in 0..1000 {
            let id = flip % 16;
            assert_eq!(pool.look_up(id, &GEOMETRY), Some(keys[id as usize]));
        }
        assert!(pool.take_retired().is_empty());
    }

    #[test]
    fn the_one_used_longest_ago_goes_first_and_pinned_ones_never() {
        let mut pool = pool(3);
        let keys: Vec<Key> = (0..3).map(|id| insert(&mut pool, id)).collect();
        pool.pin(keys[0], User::Scanout);
        pool.look_up(1, &GEOMETRY);
        insert(&mut pool, 3);
        assert_eq!(pool.take_retired().len(), 1);
        assert_eq!(pool.look_up(2, &GEOMETRY), None);
        for id in 4..100 {
            insert(&mut pool, id);
        }
        assert_eq!(pool.look_up(0, &GEOMETRY), Some(keys[0]));
        let statistics = pool.statistics();
        assert_eq!((statistics.buffers, statistics.pinned, statistics.bytes), (3, 1, 3 * 1024));
        assert_eq!(statistics.evictions, 97);
    }

    #[test]
    fn what_is_given_once_is_kept_longer_and_never_asked_for_again() {
        let mut pool: Pool = Pool::new(Limits { count: 3, bytes: 1024 }, true);
        let most = u32::try_from(KEPT_MOST).unwrap();
        for id in 0..most {
            insert(&mut pool, id);
        }
        assert_eq!(pool.take_retired().len(), 0);
        assert!(pool.look_up(0, &GEOMETRY).is_some() && !pool.is_used_up(0));
        insert(&mut pool, most);
        assert_eq!(pool.take_retired().len(), 1);
        assert_eq!(pool.look_up(1, &GEOMETRY), None);
        assert!(pool.is_used_up(1) && !pool.is_used_up(0) && !pool.is_used_up(most + 1));
        pool.invalidate();
        assert!(pool.is_used_up(0) && pool.is_used_up(most));
        pool.refuse(7777);
        assert!(pool.is_used_up(7777));

        let mut pool: Pool = Pool::new(Limits { count: 1, bytes: 1024 }, false);
        insert(&mut pool, 1);
        insert(&mut pool, 2);
        pool.refuse(3);
        assert!(!pool.is_used_up(1) && !pool.is_used_up(3), "others give it again");
    }

    #[test]
    fn a_new_id_at_each_flip_takes_no_more_room() {
        for exports_once in [false, true] {
            let mut pool: Pool = Pool::new(Limits::default(), exports_once);
            let file = memfd(&[0; 1024], true);
            let again = || DmaBuf::new(file.try_clone().unwrap().into()).unwrap();
            let key = pool.insert(0, GEOMETRY, again());
            let most = u32::try_from(IDS_MOST).unwrap();
            for id in 1..10 * most {
                assert_eq!(pool.insert(id, GEOMETRY, again()), key);
            }
            assert_eq!((pool.by_id.len(), pool.buffers[key].ids.len()), (IDS_MOST, IDS_MOST));
            assert_eq!(pool.look_up(9 * most, &GEOMETRY), Some(key));
            assert_eq!(pool.look_up(9 * most - 1, &GEOMETRY), None);
            assert_eq!(pool.is_used_up(9 * most - 1), exports_once);
            assert_eq!(pool.take_retired().len(), 0);
        }
    }

    #[test]
    fn bytes_are_bounded_too() {
        let mut pool: Pool = Pool::new(Limits { count: 100, bytes: 2048 }, false);
        for id in 0..10 {
            insert(&mut pool, id);
        }
        assert_eq!(pool.statistics().bytes, 2048);
    }

    #[test]
    fn an_id_with_another_geometry_is_another_buffer() {
        let mut pool = pool(16);
        let old = insert(&mut pool, 1);
        pool.pin(old, User::Scanout);
        let other = Geometry { width: 8, ..GEOMETRY };
        assert_eq!(pool.look_up(1, &other), None);
        assert!(pool.is_stale(old));
        assert!(pool.get(old).is_some(), "what is on screen stays until it is replaced");
        let new = pool.insert(1, other, dma_buf());
        assert_ne!(new, old);
        pool.unpin(old, User::Scanout);
        assert_eq!(pool.take_retired().len(), 1);
        assert_eq!(pool.look_up(1, &other), Some(new));
    }

    #[test]
    fn two_descriptors_of_one_file_are_one_buffer() {
        let mut pool = pool(16);
        let file = memfd(&[0; 1024], true);
        let again = || DmaBuf::new(file.try_clone().unwrap().into()).unwrap();
        let key = pool.insert(1, GEOMETRY, again());
        assert_eq!(pool.insert(2, GEOMETRY, again()), key);
        assert_eq!(pool.look_up(2, &GEOMETRY), Some(key));
        assert_eq!(pool.look_up(1, &GEOMETRY), Some(key));
        assert_eq!(pool.statistics().duplicates, 1);
        pool.invalidate_id(1);
        assert!(!pool.is_stale(key), "the other id still leads to it");
        pool.invalidate_id(2);
        assert_eq!(pool.take_retired().len(), 1);
        assert_ne!(
            pool.insert(1, GEOMETRY, again()),
            key,
            "what has gone is not found by its inode"
        );
    }

    #[test]
    fn invalidation_spares_what_is_pinned_until_it_is_unpinned() {
        let mut pool = pool(16);
        let shown = insert(&mut pool, 1);
        insert(&mut pool, 2);
        pool.pin(shown, User::Scanout);
        pool.pin(shown, User::FrontEnd);
        pool.invalidate();
        assert_eq!(pool.take_retired().len(), 1);
        assert!(pool.is_stale(shown));
        assert_eq!(pool.look_up(1, &GEOMETRY), None);
        pool.unpin(shown, User::Scanout);
        assert!(pool.take_retired().is_empty());
        pool.unpin(shown, User::FrontEnd);
        assert_eq!(pool.take_retired().len(), 1);
        let empty = Statistics { look_ups: 1, ..Statistics::default() };
        assert_eq!(pool.statistics(), empty);
    }

    #[test]
    fn breaches_are_counted_described_and_harmless() {
        let mut pool = pool(16);
        let key = insert(&mut pool, 1);
        pool.unpin(key, User::Cursor);
        let said = pool.take_violation().unwrap().to_string();
        assert!(said.starts_with("Cursor unpins buffer 1v1, which it has not pinned"), "{said}");
        assert_eq!(said.contains("breaches_are_counted"), cfg!(debug_assertions), "{said}");
        pool.invalidate();
        pool.pin(key, User::Scanout);
        pool.unpin(key, User::Scanout);
        assert_eq!(pool.violations(), 3);
        assert!(pool.take_violation().unwrap().to_string().contains("which is gone"));
        assert!(pool.take_violation().is_none());
    }
}
