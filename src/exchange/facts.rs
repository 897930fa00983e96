//! What the watcher knows, for the status.

use std::time::Duration;

use uuid::Uuid;

use crate::damage;
use crate::pool::Statistics;

/// What a watcher has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Plane queries.
    pub queries: u64,
    /// Dma-bufs requested.
    pub gets: u64,
    /// Requests that failed because the guest flipped in between.
    pub races: u64,
    /// Regions mapped.
    pub maps: u64,
    /// Polls besides the front ends' refreshes.
    pub polls: u64,
}

/// What is known of the device, for the status.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Counters.
    pub counters: Counters,
    /// Whether flips are predicted, and the time between them if they have a rhythm.
    pub pacing: Option<Option<Duration>>,
    /// How often the device signalled a change, if it can.
    pub signals: Option<u64>,
    /// How frames were compared.
    pub frames: Option<damage::Counts>,
    /// EDIDs written, if the device takes any.
    pub edids_written: Option<u64>,
    /// The pool's statistics, in dma-buf mode.
    pub pool: Option<Statistics>,
    /// UUID of the dma-buf that the device showed at the last poll, if it is shared with other
    /// devices.
    pub shared: Option<Uuid>,
}
