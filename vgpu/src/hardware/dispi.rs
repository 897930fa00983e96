//! The bochs display interface: eleven registers of 16 bits that say what the guest wants to be
//! shown.

use crate::format::Format;
use crate::screen::Geometry;

/// How many registers there are.
pub const COUNT: usize = 11;

const ID: usize = 0;
const XRES: usize = 1;
const YRES: usize = 2;
const BPP: usize = 3;
const ENABLE: usize = 4;
const VIRT_WIDTH: usize = 6;
const X_OFFSET: usize = 8;
const Y_OFFSET: usize = 9;
const VIDEO_MEMORY_64K: usize = 10;

const ID5: u16 = 0xb0c5;

/// The registers.
#[derive(Debug)]
pub struct Dispi {
    registers: [u16; COUNT],
    vram: u64,
}

impl Dispi {
    /// Creates the registers for a VRAM of this many bytes.
    pub fn new(vram: u64) -> Self {
        let mut dispi = Self { registers: [0; COUNT], vram };
        dispi.reset();
        dispi
    }

    pub fn reset(&mut self) {
        self.registers = [0; COUNT];
        self.registers[ID] = ID5;
        self.registers[VIDEO_MEMORY_64K] = u16::try_from(self.vram / 65536).unwrap_or(u16::MAX);
    }

    /// Zero beyond the last register.
    pub fn read(&self, index: usize) -> u16 {
        self.registers.get(index).copied().unwrap_or(0)
    }

    /// Writes to read-only registers and beyond the last one have no effect.
    pub fn write(&mut self, index: usize, value: u16) {
        if index != VIDEO_MEMORY_64K && index < COUNT {
            self.registers[index] = value;
        }
    }

    /// The frame buffer that the registers describe, and its offset in VRAM; `None` while they
    /// describe none that can be shown.
    pub fn frame_buffer(&self) -> Option<(Geometry, u64)> {
        let reg = |index: usize| u32::from(self.registers[index]);
        let (width, height) = (reg(XRES), reg(YRES));
        if reg(ENABLE) & 1 == 0 || reg(BPP) != 32 || width < 64 || height < 64 {
            return None;
        }
        let stride = reg(VIRT_WIDTH).max(width) * 4;
        let geometry = Geometry { format: Format::XRGB8888, modifier: 0, width, height, stride };
        let offset = u64::from(reg(Y_OFFSET)) * u64::from(stride) + u64::from(reg(X_OFFSET)) * 4;
        (offset + geometry.bytes() <= self.vram).then_some((geometry, offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(dispi: &mut Dispi, values: &[(usize, u16)]) {
        for (index, value) in values {
            dispi.write(*index, *value);
        }
    }

    #[test]
    fn a_plane_needs_enable_32_bpp_and_room() {
        let mut dispi = Dispi::new(4 << 20);
        assert_eq!(dispi.read(ID), 0xb0c5);
        assert_eq!(dispi.read(VIDEO_MEMORY_64K), 64);
        assert!(dispi.frame_buffer().is_none());
        set(&mut dispi, &[(XRES, 800), (YRES, 600), (BPP, 32)]);
        assert!(dispi.frame_buffer().is_none());
        set(&mut dispi, &[(ENABLE, 0x41)]);
        let (geometry, offset) = dispi.frame_buffer().unwrap();
        assert_eq!((geometry.width, geometry.height, geometry.stride, offset), (800, 600, 3200, 0));
        for bad in [(BPP, 24), (XRES, 63), (YRES, 63), (XRES, 2048), (ENABLE, 2)] {
            let old = dispi.read(bad.0);
            dispi.write(bad.0, bad.1);
            assert!(dispi.frame_buffer().is_none(), "{bad:?}");
            dispi.write(bad.0, old);
            assert!(dispi.frame_buffer().is_some(), "{bad:?}");
        }
    }

    #[test]
    fn virtual_width_makes_the_stride_and_offsets_pan() {
        let mut dispi = Dispi::new(16 << 20);
        set(&mut dispi, &[(XRES, 640), (YRES, 480), (BPP, 32), (ENABLE, 1)]);
        set(&mut dispi, &[(VIRT_WIDTH, 1000), (X_OFFSET, 3), (Y_OFFSET, 2)]);
        let (geometry, offset) = dispi.frame_buffer().unwrap();
        assert_eq!((geometry.stride, offset), (4000, 8012));
        dispi.write(VIRT_WIDTH, 100);
        assert_eq!(dispi.frame_buffer().unwrap().0.stride, 2560);
    }

    #[test]
    fn reset_turns_the_plane_off() {
        let mut dispi = Dispi::new(16 << 20);
        set(&mut dispi, &[(XRES, 640), (YRES, 480), (BPP, 32), (ENABLE, 1)]);
        dispi.reset();
        assert!(dispi.frame_buffer().is_none());
        dispi.write(VIDEO_MEMORY_64K, 1);
        dispi.write(99, 1);
        assert_eq!(dispi.read(VIDEO_MEMORY_64K), 256);
    }
}
