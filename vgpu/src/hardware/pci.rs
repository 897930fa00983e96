//! PCI configuration space.

use crate::screen::Geometry;

/// Bytes of the configuration space: conventional PCI.
pub const SIZE: usize = 256;

const COMMAND: usize = 0x04;
/// I/O, memory, bus master, parity error response, SERR#, INTx disable.
const COMMAND_WRITABLE: u16 = 0x0547;
const STATUS: usize = 0x06;
const STATUS_CAP_LIST: u16 = 0x10;
const CLASS_DISPLAY_OTHER: u16 = 0x0380;
const BAR0: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const VENDOR_CAP: usize = 0x40;

/// Who the device says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub vendor: u16,
    pub device: u16,
    pub revision: u8,
    /// Whether a capability describes the mode, as mdpy's does.
    pub mode_capability: bool,
}

/// The configuration space, as the guest reads and writes it.
#[derive(Debug)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    identity: Identity,
    /// Size and fixed low bits of BAR 0 to 5; size 0 where there is none.
    bars: [(u32, u32); 6],
}

impl ConfigSpace {
    /// `bars`: size in bytes (a power of two) and type bits of each.
    pub fn new(identity: Identity, bars: [(u32, u32); 6]) -> Self {
        let mut space = Self { bytes: [0; SIZE], identity, bars };
        space.reset();
        space
    }

    /// Forgets what the guest wrote. A mode in the capability stays.
    pub fn reset(&mut self) {
        let capability: [u8; 16] = std::array::from_fn(|i| self.bytes[VENDOR_CAP + i]);
        self.bytes = [0; SIZE];
        self.put16(0x00, self.identity.vendor);
        self.put16(0x02, self.identity.device);
        self.bytes[0x08] = self.identity.revision;
        self.put16(0x0a, CLASS_DISPLAY_OTHER);
        self.put16(0x2c, 0x1af4);
        self.put16(0x2e, 0x1100);
        for bar in 0..6 {
            self.put32(BAR0 + 4 * bar, self.bars[bar].1);
        }
        if self.identity.mode_capability {
            self.put16(STATUS, STATUS_CAP_LIST);
            self.bytes[CAPABILITIES] = 0x40;
            self.bytes[VENDOR_CAP..VENDOR_CAP + 16].copy_from_slice(&capability);
            // Vendor specific, the last one, 16 bytes.
            self.bytes[VENDOR_CAP] = 0x09;
            self.bytes[VENDOR_CAP + 1] = 0;
            self.bytes[VENDOR_CAP + 2] = 0x10;
        }
    }

    /// Describes the mode in the vendor's capability.
    pub fn set_mode(&mut self, geometry: &Geometry) {
        if self.identity.mode_capability {
            self.put32(VENDOR_CAP + 4, geometry.format.fourcc());
            self.put32(VENDOR_CAP + 8, geometry.width);
            self.put32(VENDOR_CAP + 12, geometry.height);
        }
    }

    /// The caller has checked the range.
    pub fn read(&self, offset: usize, data: &mut [u8]) {
        data.copy_from_slice(&self.bytes[offset..offset + data.len()]);
    }

    /// The caller has checked the range. Writes to read-only bits have no effect.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        let before = self.bytes;
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
        let written = self.bytes;
        self.bytes = before;
        self.put16(
            COMMAND,
            u16::from_le_bytes([written[COMMAND], written[COMMAND + 1]]) & COMMAND_WRITABLE,
        );
        // Interrupt line: a note that firmware leaves for the operating system.
        self.bytes[0x3c] = written[0x3c];
        for (bar, (size, kind)) in self.bars.into_iter().enumerate() {
            let at = BAR0 + 4 * bar;
            let value = std::array::from_fn(|i| written[at + i]);
            let mask = if size == 0 { 0 } else { !(size - 1) };
            self.put32(at, (u32::from_le_bytes(value) & mask) | kind);
        }
    }

    fn put16(&mut self, offset: usize, value: u16) {
        self.bytes[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn put32(&mut self, offset: usize, value: u32) {
        self.bytes[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;

    fn space(mode_capability: bool) -> ConfigSpace {
        let identity = Identity { vendor: 0x1234, device: 0x1111, revision: 1, mode_capability };
        let mut bars = [(0, 0); 6];
        bars[0] = (16 << 20, 8);
        bars[2] = (4096, 0);
        ConfigSpace::new(identity, bars)
    }

    fn read32(space: &ConfigSpace, offset: usize) -> u32 {
        let mut data = [0; 4];
        space.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    #[test]
    fn identity_is_that_of_bochs_display() {
        let space = space(false);
        assert_eq!(read32(&space, 0), 0x1111_1234);
        assert_eq!(read32(&space, 8), 0x0380_0001);
        assert_eq!(read32(&space, 0x2c), 0x1100_1af4);
        assert_eq!(read32(&space, 0x34), 0);
    }

    #[test]
    fn bars_can_be_sized_and_placed() {
        let mut space = space(false);
        space.write(0x10, &[0xff; 4]);
        assert_eq!(read32(&space, 0x10), 0xff00_0008);
        space.write(0x18, &[0xff; 4]);
        assert_eq!(read32(&space, 0x18), 0xffff_f000);
        space.write(0x14, &[0xff; 4]);
        assert_eq!(read32(&space, 0x14), 0);
        space.write(0x10, &0xfd00_0000_u32.to_le_bytes());
        assert_eq!(read32(&space, 0x10), 0xfd00_0008);
    }

    #[test]
    fn only_the_command_register_is_writable_besides_the_bars() {
        let mut space = space(false);
        space.write(0, &[0xff; 16]);
        assert_eq!(read32(&space, 0), 0x1111_1234);
        assert_eq!(read32(&space, 4), 0x0547);
        space.reset();
        assert_eq!(read32(&space, 4), 0);
    }

    #[test]
    fn the_mode_capability_survives_a_reset() {
        let mut space = space(true);
        let geometry = Geometry {
            format: Format::XRGB8888,
            modifier: 0,
            width: 1024,
            height: 768,
            stride: 4096,
        };
        space.set_mode(&geometry);
        space.reset();
        assert_eq!(read32(&space, 0x40), 0x0010_0009);
        assert_eq!(read32(&space, 0x44), 0x3432_5258);
        assert_eq!(read32(&space, 0x48), 1024);
        assert_eq!(read32(&space, 0x4c), 768);
        assert_eq!(read32(&space, 4) >> 16, 0x10);
    }
}
