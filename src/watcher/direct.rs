//! While everything in a region moves, front ends are shown its memory itself.
//!
//! A snapshot would be a copy of each frame for nothing. Without one, nobody knows what changed: all has, at each refresh. Whether a
//! snapshot would pay again is told by a sample of the rows; what is shown never depends on it for longer than one refresh.

use std::io;
use std::sync::Arc;

use crate::allocate;
use crate::damage::{Source, is_nearly_all};
use crate::memory::Memory;
use crate::plane::Geometry;

/// Rows that are looked at, evenly spread: of a picture in 4K half a megabyte of 32.
const SAMPLE_ROWS: u32 = 32;

/// After so many frames in a row in which not nearly all of the sample moved, a snapshot pays: a quarter of a second at usual rates.
pub const CALM_FRAMES: u32 = 8;

/// Who stays for so many frames was right to come.
pub const LASTING_FRAMES: u64 = 256;

/// The most that a display [hesitates](Direct::hesitation), which is for about four seconds.
const MAX_HESITATION: u32 = 8;

/// Memory of the device that the console shows.
#[derive(Debug)]
pub struct Direct {
    memory: Arc<Memory>,
    geometry: Geometry,
    sample: Sample,
    calm_frames: u32,
    frames: u64,
    /// Whether front ends were not told of the last frame.
    unreported: bool,
}

impl Direct {
    /// Whether front ends can read this picture where it is, and better than a copy of it. The pixels need no conversion.
    pub fn is_possible(memory: &Memory, geometry: &Geometry) -> bool {
        let Geometry { width, height, stride, .. } = *geometry;
        let len = u64::from(stride) * u64::from(height);
        // Some front ends pass on the padding, too, and all compute with C's int.
        let is_dense = u64::from(stride) <= 2 * 4 * u64::from(width) && i32::try_from(len).is_ok();
        stride % 4 == 0 && is_dense && memory.in_place(len).is_some()
    }

    /// The console shows this memory from now on, and front ends know.
    pub fn new(memory: Arc<Memory>, geometry: Geometry) -> io::Result<Self> {
        let sample = Sample::new(&memory, &geometry)?;
        Ok(Self { memory, geometry, sample, calm_frames: 0, frames: 0, unreported: false })
    }

    /// Whether it is this memory that is shown.
    pub fn shows(&self, memory: Option<&Arc<Memory>>) -> bool {
        memory.is_some_and(|memory| Arc::ptr_eq(&self.memory, memory))
    }

    /// What is shown.
    pub fn picture(&self) -> (&Arc<Memory>, Geometry) {
        (&self.memory, self.geometry)
    }

    /// Looks at the sample, and says whether front ends are to be told that all changed. If not, they are told of the next frame in any
    /// case.
    pub fn poll(&mut self) -> io::Result<bool> {
        let moved = self.sample.update(&self.memory)?;
        self.calm_frames =
            if is_nearly_all(moved, self.sample.rows.len()) { 0 } else { self.calm_frames + 1 };
        self.frames += 1;
        // A guest that draws more slowly than front ends refresh.
        self.unreported = moved == 0 && !self.unreported;
        Ok(!self.unreported)
    }

    /// Front ends are told in any case.
    pub fn tell(&mut self) {
        self.unreported = false;
    }

    /// Whether a snapshot would pay.
    pub fn is_calm(&self) -> bool {
        self.calm_frames >= CALM_FRAMES
    }

    /// How many times everything must be found moving, after not looking for a while, before the memory itself is shown again: a change
    /// costs front ends a whole update. It was this much before.
    pub fn hesitation(&self, before: u32) -> u32 {
        if self.frames >= LASTING_FRAMES { 0 } else { (before * 2).clamp(1, MAX_HESITATION) }
    }
}

/// Some rows as they were last.
#[derive(Debug)]
struct Sample {
    /// Where they begin.
    rows: Vec<u64>,
    /// Bytes in a row.
    len: usize,
    pixels: Vec<u8>,
}

impl Sample {
    fn new(memory: &Memory, geometry: &Geometry) -> io::Result<Self> {
        let count = SAMPLE_ROWS.min(geometry.height);
        // The middle one of as many rows each.
        let row = |n: u32| u64::from(2 * n + 1) * u64::from(geometry.height) / u64::from(2 * count);
        let rows: Vec<u64> = (0..count).map(|n| row(n) * u64::from(geometry.stride)).collect();
        let len = geometry.width as usize * 4;
        let mut sample = Self { pixels: allocate::zeros(len * rows.len())?, rows, len };
        for (offset, row) in sample.rows.iter().zip(sample.pixels.chunks_exact_mut(len)) {
            memory.read(*offset, row)?;
        }
        Ok(sample)
    }

    /// How many rows are not what they were.
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
