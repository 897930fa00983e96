//! Shows front ends a region's memory itself while everything in it moves.
//!
//! A snapshot would then be a copy of each frame for nothing. Without one, everything counts as
//! changed at each refresh. A sample of the rows says when a snapshot would pay again; it never
//! affects the picture for longer than one refresh.

use std::io;
use std::sync::Arc;

use crate::allocate;
use crate::damage::{Source, is_nearly_all};
use crate::memory::Memory;
use crate::plane::Geometry;

/// Number of sampled rows, evenly spread: in 4K, half a megabyte of 32.
const SAMPLE_ROWS: u32 = 32;

/// Frames in a row in which part of the sample stands still, after which a snapshot pays: a quarter
/// of a second at usual rates.
pub const CALM_FRAMES: u32 = 8;

/// A direct phase of at least this many frames was worthwhile.
pub const LASTING_FRAMES: u64 = 256;

/// Maximum [hesitation](Direct::hesitation), about four seconds.
const MAX_HESITATION: u32 = 8;

/// The device's memory, shown on the console.
#[derive(Debug)]
pub struct Direct {
    memory: Arc<Memory>,
    geometry: Geometry,
    sample: Sample,
    calm_frames: u32,
    frames: u64,
    /// Whether the last frame was not reported to front ends.
    unreported: bool,
}

impl Direct {
    /// Whether front ends can read this picture in place, given that the pixels need no conversion.
    pub fn is_possible(memory: &Memory, geometry: &Geometry) -> bool {
        let Geometry { width, height, stride, .. } = *geometry;
        let len = u64::from(stride) * u64::from(height);
        // Some front ends pass on the padding, too, and all calculate with C's int.
        let is_dense = u64::from(stride) <= 2 * 4 * u64::from(width) && i32::try_from(len).is_ok();
        stride % 4 == 0 && is_dense && memory.in_place(len).is_some()
    }

    /// Begins a direct phase: front ends know of this frame.
    pub fn new(memory: Arc<Memory>, geometry: Geometry) -> io::Result<Self> {
        let sample = Sample::new(&memory, &geometry)?;
        Ok(Self { memory, geometry, sample, calm_frames: 0, frames: 0, unreported: false })
    }

    /// Whether this memory is on screen.
    pub fn shows(&self, memory: Option<&Arc<Memory>>) -> bool {
        memory.is_some_and(|memory| Arc::ptr_eq(&self.memory, memory))
    }

    /// Returns what is shown.
    pub fn picture(&self) -> (&Arc<Memory>, Geometry) {
        (&self.memory, self.geometry)
    }

    /// Compares the sample. Returns whether to report a change to front ends; if not, the next
    /// frame is reported in any case.
    pub fn poll(&mut self) -> io::Result<bool> {
        let moved = self.sample.update(&self.memory)?;
        self.calm_frames =
            if is_nearly_all(moved, self.sample.rows.len()) { 0 } else { self.calm_frames + 1 };
        self.frames += 1;
        // The guest draws more slowly than front ends refresh.
        self.unreported = moved == 0 && !self.unreported;
        Ok(!self.unreported)
    }

    /// The frame is reported in any case.
    pub fn tell(&mut self) {
        self.unreported = false;
    }

    /// Whether a snapshot would pay.
    pub fn is_calm(&self) -> bool {
        self.calm_frames >= CALM_FRAMES
    }

    /// Returns how many times, after this phase, everything must move before the next one begins,
    /// since switching costs front ends a whole update. `before`: the last value.
    pub fn hesitation(&self, before: u32) -> u32 {
        if self.frames >= LASTING_FRAMES { 0 } else { (before * 2).clamp(1, MAX_HESITATION) }
    }
}

/// Rows as they were last.
#[derive(Debug)]
struct Sample {
    /// Their offsets.
    rows: Vec<u64>,
    /// Bytes in a row.
    len: usize,
    pixels: Vec<u8>,
}

impl Sample {
    fn new(memory: &Memory, geometry: &Geometry) -> io::Result<Self> {
        let count = SAMPLE_ROWS.min(geometry.height);
        // The middle row of equal bands.
        let row = |n: u32| u64::from(2 * n + 1) * u64::from(geometry.height) / u64::from(2 * count);
        let rows: Vec<u64> = (0..count).map(|n| row(n) * u64::from(geometry.stride)).collect();
        let len = geometry.width as usize * 4;
        let mut sample = Self { pixels: allocate::zeros(len * rows.len())?, rows, len };
        for (offset, row) in sample.rows.iter().zip(sample.pixels.chunks_exact_mut(len)) {
            memory.read(*offset, row)?;
        }
        Ok(sample)
    }

    /// Returns how many rows changed.
    fn update(&mut self, memory: &Memory) -> io::Result<usize> {
        let mut moved = 0;
        for (offset, row) in self.rows.iter().zip(self.pixels.chunks_exact_mut(self.len)) {
            if !memory.equals(*offset, row) {
                memory.read(*offset, row)?;
                moved += 1;
            }
        }
        Ok(moved)
    }
}
