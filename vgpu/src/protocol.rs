//! The vfio-user messages as bytes: numbers and layouts of the protocol, of `linux/vfio.h`, and of
//! the extension for graphics planes. All numbers are little endian.

use rustix::io::Errno;

/// Bytes of a message's header.
pub const HEADER: usize = 16;

/// The most data that one region access may carry.
pub const MAX_TRANSFER: usize = 1024 * 1024;

/// Room for a header's payload: the largest access and what describes it.
pub const MAX_PAYLOAD: usize = MAX_TRANSFER + 64;

/// Descriptors that a client may attach to one message.
pub const MAX_FDS: usize = 8;

/// Message numbers.
pub mod command {
    pub const VERSION: u16 = 1;
    pub const DMA_MAP: u16 = 2;
    pub const DMA_UNMAP: u16 = 3;
    pub const GET_INFO: u16 = 4;
    pub const GET_REGION_INFO: u16 = 5;
    pub const GET_IRQ_INFO: u16 = 7;
    pub const SET_IRQS: u16 = 8;
    pub const REGION_READ: u16 = 9;
    pub const REGION_WRITE: u16 = 10;
    pub const RESET: u16 = 13;
    pub const REGION_WRITE_MULTI: u16 = 15;
    pub const QUERY_GFX_PLANE: u16 = 256;
    pub const GET_GFX_DMABUF: u16 = 257;
}

/// Bits of the header's flags.
pub mod flag {
    pub const TYPE: u32 = 0xf;
    pub const REPLY: u32 = 1;
    pub const NO_REPLY: u32 = 0x10;
    pub const ERROR: u32 = 0x20;
}

/// `VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI`
pub const DEVICE_FLAGS: u32 = 1 | 2;

/// `VFIO_REGION_INFO_FLAG_*`
pub mod region_flag {
    pub const READ: u32 = 1;
    pub const WRITE: u32 = 2;
    pub const MMAP: u32 = 4;
    pub const CAPS: u32 = 8;
}

/// Region indices of a PCI device.
pub mod region {
    pub const BAR0: u32 = 0;
    pub const BAR2: u32 = 2;
    pub const CONFIG: u32 = 7;
    /// How many every PCI device has.
    pub const COUNT: u32 = 9;
}

/// Interrupts of a PCI device; the fourth (errors) exists on PCI Express only.
pub const IRQ_COUNT: u32 = 5;
/// `VFIO_PCI_ERR_IRQ_INDEX`
pub const IRQ_ERR: u32 = 3;

/// `VFIO_IRQ_INFO_*`
pub mod irq_flag {
    pub const EVENTFD: u32 = 1;
    pub const CAPS: u32 = 1 << 4;
}

/// `VFIO_IRQ_SET_*`
pub mod irq_set {
    pub const DATA_NONE: u32 = 1;
    pub const DATA_EVENTFD: u32 = 1 << 2;
    pub const ACTION_TRIGGER: u32 = 1 << 5;
}

/// What a display interrupt says that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Primary,
    Cursor,
}

impl Change {
    /// Its bit in the eventfd's value. There is room for 2^32 signals above each.
    pub const fn bit(self) -> u8 {
        match self {
            Self::Cursor => 0,
            Self::Primary => 32,
        }
    }
}

/// What GET_IRQ_INFO tells about the display interrupt, to a caller with room for it:
/// docs/display-events.md.
pub fn display_irq_info(index: u32, room: u32) -> Vec<u8> {
    /// Capabilities are aligned to 8 bytes.
    const TYPE: u32 = 24;
    const DISPLAY: u32 = TYPE + 16;
    const WHOLE: u32 = DISPLAY + 16;

    let flags = irq_flag::EVENTFD | irq_flag::CAPS;
    let cap_offset = if room < WHOLE { 0 } else { TYPE };
    let (type_header, display_header) = (1 | (1 << 16), 2 | (1 << 16));
    let head = [WHOLE, flags, index, 1, cap_offset, 0];
    let bits = u32::from_le_bytes([Change::Cursor.bit(), Change::Primary.bit(), 0, 0]);
    let capabilities = [type_header, DISPLAY, 1, 1, display_header, 0, bits, 0];
    let mut info: Vec<u8> =
        head.iter().chain(&capabilities).flat_map(|word: &u32| word.to_le_bytes()).collect();
    match room {
        ..20 => info.truncate(16),
        20..WHOLE => info.truncate(20),
        _ => {}
    }
    info
}

/// `VFIO_REGION_INFO_CAP_TYPE` with type GFX, subtype EDID: 16 bytes.
pub fn edid_type_capability() -> [u8; 16] {
    let mut cap = [0; 16];
    cap[0..2].copy_from_slice(&2_u16.to_le_bytes());
    cap[2..4].copy_from_slice(&1_u16.to_le_bytes());
    cap[8..12].copy_from_slice(&1_u32.to_le_bytes());
    cap[12..16].copy_from_slice(&1_u32.to_le_bytes());
    cap
}

/// A message's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub id: u16,
    pub command: u16,
    /// Bytes of the message, this header included.
    pub size: u32,
    pub flags: u32,
    pub error: u32,
}

impl Header {
    pub fn parse(b: &[u8; HEADER]) -> Self {
        Self {
            id: u16::from_le_bytes([b[0], b[1]]),
            command: u16::from_le_bytes([b[2], b[3]]),
            size: u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
            flags: u32::from_le_bytes([b[8], b[9], b[10], b[11]]),
            error: u32::from_le_bytes([b[12], b[13], b[14], b[15]]),
        }
    }

    pub fn bytes(self) -> [u8; HEADER] {
        let mut b = [0; HEADER];
        b[0..2].copy_from_slice(&self.id.to_le_bytes());
        b[2..4].copy_from_slice(&self.command.to_le_bytes());
        b[4..8].copy_from_slice(&self.size.to_le_bytes());
        b[8..12].copy_from_slice(&self.flags.to_le_bytes());
        b[12..16].copy_from_slice(&self.error.to_le_bytes());
        b
    }
}

/// The number at `offset` of a payload, EINVAL if the payload is too short.
pub fn u32_at(payload: &[u8], offset: usize) -> Result<u32, Errno> {
    let bytes = payload.get(offset..).and_then(|rest| rest.first_chunk()).ok_or(Errno::INVAL)?;
    Ok(u32::from_le_bytes(*bytes))
}

/// The number at `offset` of a payload, EINVAL if the payload is too short.
pub fn u64_at(payload: &[u8], offset: usize) -> Result<u64, Errno> {
    let bytes = payload.get(offset..).and_then(|rest| rest.first_chunk()).ok_or(Errno::INVAL)?;
    Ok(u64::from_le_bytes(*bytes))
}

/// `struct vfio_device_gfx_plane_info`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlaneInfo {
    pub argsz: u32,
    pub flags: u32,
    pub drm_plane_type: u32,
    pub drm_format: u32,
    pub drm_format_mod: u64,
    pub width: u32,
    pub height: u32,
    pub stride: u32,
    pub size: u32,
    pub x_pos: u32,
    pub y_pos: u32,
    pub x_hot: u32,
    pub y_hot: u32,
    /// `dmabuf_id` or `region_index`.
    pub handle: u32,
    pub reserved: u32,
}

impl PlaneInfo {
    pub const BYTES: usize = 64;
    /// The bytes that drivers insist on; they never touch what follows.
    pub const ARGSZ_MIN: u32 = 60;

    pub const PROBE: u32 = 1;
    pub const DMABUF: u32 = 2;
    pub const REGION: u32 = 4;

    pub const PRIMARY: u32 = 1;
    pub const CURSOR: u32 = 2;

    /// Names and offsets of the 32-bit fields, for those who want to lie.
    pub const FIELDS: [(&str, usize); 15] = [
        ("argsz", 0),
        ("flags", 4),
        ("drm_plane_type", 8),
        ("drm_format", 12),
        ("width", 24),
        ("height", 28),
        ("stride", 32),
        ("size", 36),
        ("x_pos", 40),
        ("y_pos", 44),
        ("x_hot", 48),
        ("y_hot", 52),
        ("dmabuf_id", 56),
        ("region_index", 56),
        ("reserved", 60),
    ];
    /// `drm_format_mod`, the only one with 64 bits.
    pub const MODIFIER: (&str, usize) = ("drm_format_mod", 16);

    pub fn parse(payload: &[u8]) -> Result<Self, Errno> {
        if payload.len() != Self::BYTES {
            return Err(Errno::INVAL);
        }
        let at = |offset| u32_at(payload, offset);
        Ok(Self {
            argsz: at(0)?,
            flags: at(4)?,
            drm_plane_type: at(8)?,
            drm_format: at(12)?,
            drm_format_mod: u64_at(payload, 16)?,
            width: at(24)?,
            height: at(28)?,
            stride: at(32)?,
            size: at(36)?,
            x_pos: at(40)?,
            y_pos: at(44)?,
            x_hot: at(48)?,
            y_hot: at(52)?,
            handle: at(56)?,
            reserved: at(60)?,
        })
    }

    pub fn bytes(&self) -> [u8; Self::BYTES] {
        let mut out = [0; Self::BYTES];
        let head = [self.argsz, self.flags, self.drm_plane_type, self.drm_format];
        let tail = [
            self.width,
            self.height,
            self.stride,
            self.size,
            self.x_pos,
            self.y_pos,
            self.x_hot,
            self.y_hot,
            self.handle,
            self.reserved,
        ];
        for (field, value) in out.chunks_exact_mut(4).zip(head) {
            field.copy_from_slice(&value.to_le_bytes());
        }
        out[16..24].copy_from_slice(&self.drm_format_mod.to_le_bytes());
        for (field, value) in out[24..].chunks_exact_mut(4).zip(tail) {
            field.copy_from_slice(&value.to_le_bytes());
        }
        out
    }

    /// The answer "there is no such plane" of drivers that clear all they know.
    pub fn without_plane(&self) -> Self {
        Self {
            argsz: self.argsz,
            flags: self.flags,
            drm_plane_type: self.drm_plane_type,
            reserved: self.reserved,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plane_info_has_the_layout_of_linux_vfio_h() {
        let mut bytes = [0_u8; 64];
        for (i, byte) in (0_u8..).zip(bytes.iter_mut()) {
            *byte = i;
        }
        let info = PlaneInfo::parse(&bytes).unwrap();
        assert_eq!(info.drm_format_mod, 0x1716_1514_1312_1110);
        assert_eq!(info.width, 0x1b1a_1918);
        assert_eq!(info.handle, 0x3b3a_3938);
        assert_eq!(info.bytes(), bytes);
        assert!(PlaneInfo::parse(&bytes[..60]).is_err());
    }

    #[test]
    fn fields_are_where_their_names_say() {
        for (name, offset) in PlaneInfo::FIELDS {
            let mut bytes = [0; 64];
            bytes[offset] = 1;
            let info = PlaneInfo::parse(&bytes).unwrap();
            let name = if offset == 56 { "handle" } else { name };
            assert!(format!("{info:?}").contains(&format!(" {name}: 1")), "{name}");
        }
    }

    #[test]
    fn headers_round_trip() {
        let header = Header { id: 0x0102, command: 257, size: 80, flags: 0x21, error: 22 };
        assert_eq!(Header::parse(&header.bytes()), header);
        assert_eq!(header.bytes()[..8], [2, 1, 1, 1, 80, 0, 0, 0]);
    }
}
