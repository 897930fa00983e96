//! What is on screen, as the vGPU itself knows it: the primary plane, driven by the guest's
//! registers or by the control socket, and the cursor.

use std::io;
use std::sync::Arc;

use crate::format::Format;
use crate::memory::Memory;

/// The largest side of a mode, in pixels.
pub const MAX_SIDE: u32 = 16384;

/// How many bytes the buffers of one mode may take.
pub const MAX_MODE_BYTES: u64 = 1 << 30;

/// What the pixels of a frame buffer look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    pub format: Format,
    pub modifier: u64,
    pub width: u32,
    pub height: u32,
    /// Bytes from a row to the next.
    pub stride: u32,
}

impl Geometry {
    /// Bytes that the rows take, the last one padded too.
    pub fn bytes(&self) -> u64 {
        u64::from(self.stride) * u64::from(self.height)
    }

    /// Bytes of a row without its padding.
    pub fn row_bytes(&self) -> u32 {
        self.width * self.format.bytes()
    }
}

/// A frame buffer: pixels at an offset of some memory.
#[derive(Clone, Debug)]
pub struct Picture {
    pub geometry: Geometry,
    pub memory: Arc<Memory>,
    pub offset: u64,
}

/// Which picture it is, without keeping its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub geometry: Geometry,
    /// The serial number of the memory.
    pub memory: u64,
    pub offset: u64,
}

impl Picture {
    pub fn place(&self) -> Place {
        Place { geometry: self.geometry, memory: self.memory.serial(), offset: self.offset }
    }

    /// Whether both are the same pixels in the same memory.
    pub fn is(&self, other: &Self) -> bool {
        self.place() == other.place()
    }

    /// Copies the rows to the start of `target`, `stride` bytes apart.
    pub fn copy_to(&self, target: &Memory, stride: u32) -> io::Result<()> {
        const CHUNK: u64 = 256 * 1024;
        let row = u64::from(self.geometry.row_bytes().min(stride));
        if stride == self.geometry.stride {
            // Through a buffer that stays in the cache.
            let bytes = (self.geometry.bytes() - u64::from(stride)) + row;
            let mut chunk = vec![0; usize::try_from(CHUNK.min(bytes)).unwrap_or_default()];
            let mut at = 0;
            while at < bytes {
                let part = usize::try_from(CHUNK.min(bytes - at)).unwrap_or_default();
                self.memory.read(self.offset + at, &mut chunk[..part])?;
                target.write(at, &chunk[..part])?;
                at += part as u64;
            }
            return Ok(());
        }
        let mut data = vec![0; usize::try_from(row).unwrap_or_default()];
        for y in 0..u64::from(self.geometry.height) {
            self.memory.read(self.offset + y * u64::from(self.geometry.stride), &mut data)?;
            target.write(y * u64::from(stride), &data)?;
        }
        Ok(())
    }
}

/// Who decides what the primary plane shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Driver {
    /// The guest, through the device's registers.
    Guest,
    /// The control socket.
    Host,
}

/// A mode that was set through the control socket, with its buffers.
#[derive(Debug)]
pub struct HostMode {
    pub geometry: Geometry,
    /// The width that is reported to the host; some drivers report the pitch in pixels.
    pub reported_width: u32,
    pub buffers: Vec<Arc<Memory>>,
    pub shown: usize,
}

impl HostMode {
    /// Allocates the buffers.
    pub fn new(geometry: Geometry, buffers: usize, sealed: bool) -> Result<Self, String> {
        let bytes = geometry.bytes();
        if bytes.saturating_mul(buffers as u64) > MAX_MODE_BYTES {
            return Err(format!(
                "{buffers} buffers of {bytes} bytes are more than the limit of {MAX_MODE_BYTES} bytes"
            ));
        }
        let buffers = (0..buffers)
            .map(|_| Memory::new("vgpu-buffer", bytes, sealed).map(Arc::new))
            .collect::<io::Result<_>>()
            .map_err(|e| format!("cannot allocate {buffers} buffers of {bytes} bytes: {e}"))?;
        Ok(Self { geometry, reported_width: geometry.width, buffers, shown: 0 })
    }

    pub fn picture(&self, buffer: usize) -> Option<Picture> {
        let memory = self.buffers.get(buffer)?.clone();
        Some(Picture { geometry: self.geometry, memory, offset: 0 })
    }
}

/// The cursor plane.
#[derive(Clone, Debug)]
pub struct Cursor {
    pub picture: Picture,
    /// Where the image's top left corner is on the primary plane; may be negative.
    pub x: i32,
    pub y: i32,
    pub hotspot: Option<(u32, u32)>,
}

/// The state behind the planes.
#[derive(Debug)]
pub struct Screen {
    pub driver: Driver,
    /// Whether the host-driven plane is enabled.
    pub on: bool,
    pub mode: Option<HostMode>,
    pub cursor: Option<Cursor>,
}

impl Screen {
    pub fn new() -> Self {
        Self { driver: Driver::Guest, on: true, mode: None, cursor: None }
    }
}

/// The planes at one moment, for a personality to describe.
#[derive(Debug)]
pub struct Planes<'a> {
    pub primary: Option<Picture>,
    /// The reported width of the primary plane.
    pub reported_width: u32,
    pub screen: &'a Screen,
}

impl Planes<'_> {
    /// Whether this picture is on screen, or one flip away from it.
    pub fn may_show(&self, picture: &Picture) -> bool {
        let is = |memory: &Arc<Memory>| memory.serial() == picture.memory.serial();
        if self.screen.cursor.as_ref().is_some_and(|c| is(&c.picture.memory)) {
            return true;
        }
        match (self.screen.driver, &self.screen.mode) {
            (Driver::Host, Some(mode)) => mode.buffers.iter().any(is),
            (Driver::Host, None) => false,
            (Driver::Guest, _) => self
                .primary
                .as_ref()
                .is_some_and(|p| is(&p.memory) && p.geometry == picture.geometry),
        }
    }
}
