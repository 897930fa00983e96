//! What is known of the device, for the status.

use std::time::Duration;

use uuid::Uuid;

use crate::damage;
use crate::pool::Statistics;

/// What a watcher did so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Questions for planes.
    pub queries: u64,
    /// Questions for dma-bufs.
    pub gets: u64,
    /// Gets that a flip came before.
    pub races: u64,
    /// Regions mapped.
    pub maps: u64,
    /// Looks beside the front ends' refreshes.
    pub polls: u64,
}

/// What is known of the device, for those who ask.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What was done so far.
    pub counters: Counters,
    /// Whether flips are followed, and the time between them, if they have a rhythm.
    pub pacing: Option<Option<Duration>>,
    /// How often the device said that something changed, if it does.
    pub signals: Option<u64>,
    /// How the frames of the surface were looked at.
    pub frames: Option<damage::Counts>,
    /// EDIDs that were written, if the device takes some.
    pub edids_written: Option<u64>,
    /// What the pool holds, if there is one.
    pub pool: Option<Statistics>,
    /// What is shared of it with other devices: what the device showed at the last look.
    pub shared: Option<Uuid>,
}
