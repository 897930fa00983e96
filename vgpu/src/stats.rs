//! What clients did, counted.

use serde_json::{Value, json};

/// Counters since the start or the last `stats reset`.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    pub connections: u64,
    pub messages: u64,
    pub protocol_errors: u64,
    pub probes: u64,
    pub queries: u64,
    pub queries_primary: u64,
    pub queries_cursor: u64,
    pub queries_other: u64,
    pub gets: u64,
    pub get_errors: u64,
    pub region_infos: u64,
    pub region_reads: u64,
    pub region_writes: u64,
    pub edid_reads: u64,
    pub edid_writes: u64,
    pub edid_blobs: u64,
    pub dma_maps: u64,
    pub resets: u64,
    pub flips: u64,
    pub mode_sets: u64,
    /// Signals to the client's eventfd.
    pub events_primary: u64,
    pub events_cursor: u64,
    pub faults: u64,
    /// Not a counter: whether a client is there, and has agreed on graphics planes.
    pub connected: bool,
    pub gfx_plane: bool,
}

impl Stats {
    /// Starts over, except for what is no counter.
    pub fn reset(&mut self) {
        *self = Self { connected: self.connected, gfx_plane: self.gfx_plane, ..Self::default() };
    }

    pub fn json(&self) -> Value {
        json!({
            "connections": self.connections,
            "connected": self.connected,
            "gfx_plane": self.gfx_plane,
            "messages": self.messages,
            "protocol_errors": self.protocol_errors,
            "probes": self.probes,
            "queries": self.queries,
            "queries_primary": self.queries_primary,
            "queries_cursor": self.queries_cursor,
            "queries_other": self.queries_other,
            "gets": self.gets,
            "get_errors": self.get_errors,
            "region_infos": self.region_infos,
            "region_reads": self.region_reads,
            "region_writes": self.region_writes,
            "edid_reads": self.edid_reads,
            "edid_writes": self.edid_writes,
            "edid_blobs": self.edid_blobs,
            "dma_maps": self.dma_maps,
            "resets": self.resets,
            "flips": self.flips,
            "mode_sets": self.mode_sets,
            "events_primary": self.events_primary,
            "events_cursor": self.events_cursor,
            "faults": self.faults,
        })
    }
}
