//! The planes of a device, checked.
//!
//! [`PlaneInfo`] is what a device says, [`Plane`] what we believe of it. Nothing behind this module
//! computes with a number from a device that was not checked here.

#![forbid(unsafe_code)]

use std::fmt;

use drm_fourcc::{DrmFourcc, DrmModifier};

use crate::format::{Format, FourccCode};

/// The largest width and height shown, in pixels. QEMU's pixel library ends at 32767; no display is
/// as large as this yet.
pub const MAX_SIDE: u32 = 16384;

/// The largest cursor, in pixels a side: twice what any driver offers.
pub const MAX_CURSOR_SIDE: u32 = 512;

/// A hotspot coordinate that the driver did not set.
pub const HOTSPOT_UNSET: u32 = u32::MAX;

/// `struct vfio_device_gfx_plane_info` of `linux/vfio.h`, as the device filled it in.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields are those of linux/vfio.h")]
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
    /// The union: `dmabuf_id` or `region_index`, by `flags`.
    pub handle: u32,
    pub reserved: u32,
}

impl PlaneInfo {
    /// `VFIO_GFX_PLANE_TYPE_PROBE`
    pub const PROBE: u32 = 1;
    /// `VFIO_GFX_PLANE_TYPE_DMABUF`
    pub const DMABUF: u32 = 2;
    /// `VFIO_GFX_PLANE_TYPE_REGION`
    pub const REGION: u32 = 4;

    /// Creates a query. Everything else is zero: gvt leaves it unchanged when there is no plane.
    pub fn request(flags: u32, kind: PlaneKind) -> Self {
        // A region query has no plane type: QEMU always sent 0, and drivers may check.
        let drm_plane_type = if flags & Self::REGION == 0 { kind as u32 } else { 0 };
        #[expect(clippy::cast_possible_truncation, reason = "64 bytes")]
        let argsz = size_of::<Self>() as u32;
        Self { argsz, flags, drm_plane_type, ..Self::default() }
    }

    /// Whether the device says that there is no plane now.
    pub fn is_off(&self) -> bool {
        self.drm_format == 0 || self.size == 0
    }
}

/// Which plane: the values are `DRM_PLANE_TYPE_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum PlaneKind {
    /// The screen.
    Primary = 1,
    /// The cursor, above the screen.
    Cursor = 2,
}

impl fmt::Display for PlaneKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Cursor => "cursor",
        })
    }
}

/// Layout of a plane's pixels. Fixed for the life of a buffer: another geometry is another buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Geometry {
    /// Format of the pixels.
    pub format: Format,
    /// Pixels in a row, 1 to [`MAX_SIDE`].
    pub width: u32,
    /// Rows, 1 to [`MAX_SIDE`].
    pub height: u32,
    /// Bytes from a row to the next.
    pub stride: u32,
    /// Size of the plane in bytes, as the device says; at least [`Geometry::bytes_needed`].
    pub size: u32,
}

impl Geometry {
    /// Returns how many bytes are touched when the whole plane is read. The storage must be at
    /// least as large.
    pub fn bytes_needed(&self) -> u64 {
        let rows = u64::from(self.height);
        match self.format.row_bytes(self.width) {
            // The last row need not be padded.
            Some(row) => (rows - 1) * u64::from(self.stride) + row,
            None => rows * u64::from(self.stride),
        }
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{} {} stride {}", self.width, self.height, self.format, self.stride)
    }
}

/// A plane of a device, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plane {
    /// What its pixels look like.
    pub geometry: Geometry,
    /// The dma-buf's id or the region's index, by the mode of the device.
    pub handle: u32,
    /// Upper left corner on the screen, in pixels (cursor). Drivers report magnitudes: the sign is
    /// lost.
    pub position: (i32, i32),
    /// Hotspot, from the cursor's upper left corner; `None` if the driver did not set it, or set
    /// one outside of the cursor.
    pub hotspot: Option<(u32, u32)>,
}

impl Plane {
    /// Checks a device's answer about a plane. `Ok(None)`: the plane is off.
    pub fn check(kind: PlaneKind, info: &PlaneInfo) -> Result<Option<Self>, PlaneError> {
        if info.is_off() {
            return Ok(None);
        }
        // The crate knows the bit for big-endian pixels as a format of its own, which it cannot
        // even print.
        let fourcc = DrmFourcc::try_from(info.drm_format)
            .ok()
            .filter(|&fourcc| fourcc != DrmFourcc::Big_endian)
            .ok_or(PlaneError::UnknownFourcc(FourccCode(info.drm_format)))?;
        let format = Format { fourcc, modifier: DrmModifier::from(info.drm_format_mod) };

        let max = if kind == PlaneKind::Cursor { MAX_CURSOR_SIDE } else { MAX_SIDE };
        let (width, height) = (info.width, info.height);
        if !(1..=max).contains(&width) || !(1..=max).contains(&height) {
            return Err(PlaneError::Size { width, height, max });
        }
        let needed = format.row_bytes(width).unwrap_or(1);
        if u64::from(info.stride) < needed {
            return Err(PlaneError::Stride { stride: info.stride, needed, width, format });
        }
        let geometry = Geometry { format, width, height, stride: info.stride, size: info.size };
        let needed = geometry.bytes_needed();
        if u64::from(info.size) < needed {
            return Err(PlaneError::TooLarge { needed, has: info.size.into(), geometry });
        }

        let hotspot = Some((info.x_hot, info.y_hot)).filter(|&(x, y)| x < width && y < height);
        Ok(Some(Self {
            geometry,
            handle: info.handle,
            position: (signed(info.x_pos), signed(info.y_pos)),
            hotspot,
        }))
    }

    /// Checks that the storage behind the plane is as large as its geometry needs.
    pub fn fits(&self, storage_bytes: u64) -> Result<(), PlaneError> {
        let needed = self.geometry.bytes_needed();
        if needed > storage_bytes {
            return Err(PlaneError::TooLarge {
                needed,
                has: storage_bytes,
                geometry: self.geometry,
            });
        }
        Ok(())
    }
}

/// Reinterprets the bits: a position left of or above the screen is negative, if the driver reports
/// that.
fn signed(position: u32) -> i32 {
    i32::from_ne_bytes(position.to_ne_bytes())
}

/// Why a device's answer is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PlaneError {
    UnknownFourcc(FourccCode),
    Size { width: u32, height: u32, max: u32 },
    Stride { stride: u32, needed: u64, width: u32, format: Format },
    TooLarge { needed: u64, has: u64, geometry: Geometry },
}

impl std::error::Error for PlaneError {}

impl fmt::Display for PlaneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFourcc(code) => write!(f, "unknown format {code}"),
            Self::Size { width, height, max } => {
                write!(f, "size {width}x{height} is out of range (1x1 to {max}x{max})")
            }
            Self::Stride { stride, needed, width, format } => {
                write!(
                    f,
                    "stride {stride} is too small for {width} pixels of {format} ({needed} bytes)"
                )
            }
            Self::TooLarge { needed, has, geometry } => {
                write!(f, "{geometry} takes {needed} bytes, but there are only {has}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const XR24: u32 = DrmFourcc::Xrgb8888 as u32;

    fn full_hd() -> PlaneInfo {
        PlaneInfo {
            drm_format: XR24,
            width: 1920,
            height: 1080,
            stride: 7680,
            size: 7680 * 1080,
            handle: 7,
            x_hot: HOTSPOT_UNSET,
            y_hot: HOTSPOT_UNSET,
            ..PlaneInfo::default()
        }
    }

    fn primary(info: PlaneInfo) -> Result<Option<Plane>, PlaneError> {
        Plane::check(PlaneKind::Primary, &info)
    }

    #[test]
    fn the_struct_is_the_kernels() {
        assert_eq!(size_of::<PlaneInfo>(), 64);
        assert_eq!(std::mem::offset_of!(PlaneInfo, handle), 56);
    }

    #[test]
    fn zero_format_or_size_means_no_plane() {
        assert_eq!(primary(PlaneInfo { drm_format: 0, ..full_hd() }), Ok(None));
        assert_eq!(primary(PlaneInfo { size: 0, ..full_hd() }), Ok(None));
    }

    #[test]
    fn a_true_plane_passes() {
        let plane = primary(full_hd()).unwrap().unwrap();
        assert_eq!(plane.geometry.bytes_needed(), 7680 * 1080);
        assert_eq!((plane.handle, plane.hotspot), (7, None));
    }

    #[test]
    fn lies_are_refused_in_words() {
        let refusal = |info| primary(info).unwrap_err().to_string();
        assert_eq!(
            refusal(PlaneInfo { width: 0, ..full_hd() }),
            "size 0x1080 is out of range (1x1 to 16384x16384)"
        );
        assert_eq!(
            refusal(PlaneInfo { width: u32::MAX, height: u32::MAX, stride: u32::MAX, ..full_hd() }),
            "size 4294967295x4294967295 is out of range (1x1 to 16384x16384)"
        );
        assert_eq!(
            refusal(PlaneInfo { stride: 4, ..full_hd() }),
            "stride 4 is too small for 1920 pixels of XR24 LINEAR (7680 bytes)"
        );
        assert_eq!(
            refusal(PlaneInfo { stride: u32::MAX, ..full_hd() }),
            "1920x1080 XR24 LINEAR stride 4294967295 takes 4634269718985 bytes, but there are only 8294400"
        );
        assert_eq!(
            refusal(PlaneInfo { drm_format: 0x3030_3030, ..full_hd() }),
            "unknown format '0000' (0x30303030)"
        );
        assert_eq!(
            refusal(PlaneInfo { drm_format: 1 << 31, ..full_hd() }),
            "unknown format 0x80000000"
        );
    }

    #[test]
    fn the_last_row_need_not_be_padded() {
        let info = PlaneInfo { stride: 8192, size: 8192 * 1079 + 7680, ..full_hd() };
        assert!(primary(info).unwrap().is_some());
        assert!(primary(PlaneInfo { size: info.size - 1, ..info }).is_err());
    }

    #[test]
    fn tiles_are_measured_in_whole_rows() {
        let tiled = PlaneInfo { drm_format_mod: DrmModifier::I915_x_tiled.into(), ..full_hd() };
        assert_eq!(primary(tiled).unwrap().unwrap().geometry.bytes_needed(), 7680 * 1080);
        assert!(primary(PlaneInfo { stride: 0, ..tiled }).is_err());
    }

    #[test]
    fn a_hotspot_outside_of_the_cursor_is_none() {
        let cursor = |x_hot, y_hot| PlaneInfo {
            width: 64,
            height: 64,
            stride: 256,
            size: 256 * 64,
            x_hot,
            y_hot,
            ..full_hd()
        };
        let hotspot = |info| Plane::check(PlaneKind::Cursor, &info).unwrap().unwrap().hotspot;
        assert_eq!(hotspot(cursor(0, 0)), Some((0, 0)));
        assert_eq!(hotspot(cursor(63, 1)), Some((63, 1)));
        assert_eq!(hotspot(cursor(64, 1)), None);
        assert_eq!(hotspot(cursor(HOTSPOT_UNSET, HOTSPOT_UNSET)), None);
        assert!(Plane::check(PlaneKind::Cursor, &full_hd()).is_err());
    }
}
