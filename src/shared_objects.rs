//! Objects that virtio devices share across devices, found by UUID.
//!
//! A virtio device exports a buffer by giving it a UUID ("cross-device resource"); another device
//! of the same VM finds the buffer by that UUID. [`SharedObjects`] is the table between them. It
//! holds dma-bufs, and vhost-user devices that have to be asked for the dma-buf themselves.
//!
//! # An entry's life
//!
//! - [`Owner::reserve`] takes a UUID and gives a [`Claim`] on it. Nobody else gets the UUID from
//!   then on, and no lookup succeeds yet: it waits for up to its timeout, then fails with
//!   [`LookupError::NotYet`]. So a registration that needs a round trip can begin when the buffer
//!   is made and end when the answer comes.
//! - [`Claim::complete`] puts the object in place and wakes the lookups that wait.
//! - The entry is removed with its claim, with its owner, by [`SharedObjects::remove`] or by
//!   [`SharedObjects::clear`], whichever comes first. A claim whose entry is gone is harmless,
//!   whoever has the UUID now.
//! - [`SharedObjects::add`] and [`SharedObjects::remove`] do without owners and claims, for code
//!   that keeps its own books.
//!
//! # Threads
//!
//! Every method may be called from any thread. No reference into the table leaves its lock, no
//! caller's code runs and no file is closed under it.
//!
//! Lookups are frequent, changes are rare. So the table is one hash map under a lock that costs
//! readers one atomic operation on a cache line that they share with few others (crossbeam's
//! `ShardedLock`); whoever changes the table pays for that by taking all shards. A map in shards
//! would not help where it matters: several queues that look up the same buffer. Snapshots without
//! locks (RCU) would be faster still, but `with_dma_buf` must keep an entry in place while its
//! descriptor is duplicated, and that is a lock.

#![forbid(unsafe_code)]

mod table;
#[cfg(test)]
mod tests;

pub use table::*;

use std::sync::LazyLock;

/// What the table is built on, by name, so that `tests/shared_objects_model.rs` can build it on a
/// model checker's instead.
mod sync {
    pub use crossbeam_utils::sync::ShardedLock as TableLock;
    pub use std::sync::atomic::AtomicU64;
    pub use std::sync::{Arc, Condvar, Mutex};
}

static GLOBAL: LazyLock<SharedObjects> = LazyLock::new(SharedObjects::new);

impl SharedObjects {
    /// The table of this process.
    pub fn global() -> &'static Self {
        &GLOBAL
    }
}
