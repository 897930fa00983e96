//! Pixel formats: what a fourcc and a modifier mean, and their names in words.
//!
//! The codes are those of `drm_fourcc.h`; crate `drm-fourcc` knows them all. This module adds what
//! a display needs: how many bytes a row of pixels takes, and how a pixel becomes XRGB8888, the one
//! format of the surfaces that we draw ourselves.

#![forbid(unsafe_code)]

use std::fmt;

use drm_fourcc::{DrmFourcc, DrmModifier, DrmVendor};

/// A fourcc that `drm_fourcc.h` knows, with a modifier, which may be any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// Which bits of a pixel are which colour.
    pub fourcc: DrmFourcc,
    /// How pixels lie in memory.
    pub modifier: DrmModifier,
}

impl Format {
    /// Whether pixels are luminance and chrominance, as in video.
    pub fn is_yuv(self) -> bool {
        use DrmFourcc as F;
        matches!(
            self.fourcc,
            F::Yuyv
                | F::Yvyu
                | F::Uyvy
                | F::Vyuy
                | F::Ayuv
                | F::Xyuv8888
                | F::Y210
                | F::Y212
                | F::Y216
                | F::Y410
                | F::Y412
                | F::Y416
                | F::Nv12
                | F::Nv21
                | F::Nv16
                | F::Nv61
                | F::Nv24
                | F::Nv42
                | F::P010
                | F::P012
                | F::P016
                | F::Yuv420
                | F::Yvu420
                | F::Yuv422
                | F::Yvu422
                | F::Yuv444
                | F::Yvu444
        )
    }

    /// Bytes that `width` pixels take in one row, without padding.
    ///
    /// `None` where rows mean something else: tiled and compressed layouts, and formats whose
    /// pixels lie in several planes.
    pub fn row_bytes(self, width: u32) -> Option<u64> {
        if self.modifier != DrmModifier::Linear && self.modifier != DrmModifier::Invalid {
            return None;
        }
        bits_per_pixel(self.fourcc).map(|bits| (u64::from(width) * u64::from(bits)).div_ceil(8))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.fourcc, ModifierName(self.modifier))
    }
}

/// Prints a code as its four characters, or in hexadecimal where they cannot be printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FourccCode(
    /// The code as the device gave it.
    pub u32,
);

impl fmt::Display for FourccCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.to_le_bytes();
        if bytes.iter().all(|b| b.is_ascii_graphic() || *b == b' ') {
            write!(f, "'{}' (0x{:08x})", bytes.map(char::from).iter().collect::<String>(), self.0)
        } else {
            write!(f, "0x{:08x}", self.0)
        }
    }
}

/// Prints a modifier as `drm_fourcc.h` names it, without its prefix: `LINEAR`, `I915_Y_TILED`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModifierName(
    /// The modifier to print.
    pub DrmModifier,
);

impl fmt::Display for ModifierName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            DrmModifier::Linear => f.write_str("LINEAR"),
            DrmModifier::Invalid => f.write_str("INVALID"),
            DrmModifier::Unrecognized(code) => match self.0.vendor() {
                Ok(Some(vendor)) => write!(f, "{}_0x{code:x}", vendor_name(vendor)),
                _ => write!(f, "0x{code:016x}"),
            },
            known => f.write_str(&format!("{known:?}").to_uppercase()),
        }
    }
}

fn vendor_name(vendor: DrmVendor) -> String {
    format!("{vendor:?}").to_uppercase()
}

/// Bits that one pixel takes in a packed format with one plane; `None` for the others.
fn bits_per_pixel(fourcc: DrmFourcc) -> Option<u32> {
    use DrmFourcc as F;
    Some(match fourcc {
        F::C8 | F::R8 | F::Rgb332 | F::Bgr233 => 8,
        F::Rgb565
        | F::Bgr565
        | F::Xrgb1555
        | F::Argb1555
        | F::Xbgr1555
        | F::Abgr1555
        | F::Rgba5551
        | F::Rgbx5551
        | F::Bgra5551
        | F::Bgrx5551
        | F::Xrgb4444
        | F::Argb4444
        | F::Xbgr4444
        | F::Abgr4444
        | F::Rgba4444
        | F::Rgbx4444
        | F::Bgra4444
        | F::Bgrx4444
        | F::Yuyv
        | F::Uyvy
        | F::Yvyu
        | F::Vyuy => 16,
        F::Rgb888 | F::Bgr888 => 24,
        F::Xrgb8888
        | F::Argb8888
        | F::Xbgr8888
        | F::Abgr8888
        | F::Rgbx8888
        | F::Rgba8888
        | F::Bgrx8888
        | F::Bgra8888
        | F::Xrgb2101010
        | F::Argb2101010
        | F::Xbgr2101010
        | F::Abgr2101010
        | F::Rgbx1010102
        | F::Rgba1010102
        | F::Bgrx1010102
        | F::Bgra1010102 => 32,
        F::Xrgb16161616f | F::Argb16161616f | F::Xbgr16161616f | F::Abgr16161616f => 64,
        _ => return None,
    })
}

/// How pixels of one format become XRGB8888, row by row.
#[derive(Clone, Copy, Debug)]
pub enum Conversion {
    /// The bytes are XRGB8888 already; alpha, if any, is ignored: a primary plane is opaque.
    Identity,
    /// Each pixel is `bytes` long and goes through `pixel`.
    PerPixel {
        /// Bytes of one pixel, 2 or 4.
        bytes: usize,
        /// Little-endian pixel to 0x00RRGGBB.
        pixel: fn(u32) -> u32,
    },
}

impl Conversion {
    /// The way from `format` to XRGB8888; `None` if there is no faithful one (palettes, YUV,
    /// tiles).
    pub fn to_xrgb8888(format: Format) -> Option<Self> {
        use DrmFourcc as F;
        if format.modifier != DrmModifier::Linear && format.modifier != DrmModifier::Invalid {
            return None;
        }
        let four = |pixel| Self::PerPixel { bytes: 4, pixel };
        Some(match format.fourcc {
            F::Xrgb8888 | F::Argb8888 => Self::Identity,
            F::Xbgr8888 | F::Abgr8888 => four(|p| swap_red_blue(p & 0x00ff_ffff)),
            F::Rgbx8888 | F::Rgba8888 => four(|p| p >> 8),
            F::Bgrx8888 | F::Bgra8888 => four(|p| swap_red_blue(p >> 8)),
            F::Xrgb2101010 | F::Argb2101010 => four(from_2101010),
            F::Xbgr2101010 | F::Abgr2101010 => four(|p| swap_red_blue(from_2101010(p))),
            F::Rgb565 => Self::PerPixel { bytes: 2, pixel: from_565 },
            F::Bgr565 => Self::PerPixel { bytes: 2, pixel: |p| swap_red_blue(from_565(p)) },
            _ => return None,
        })
    }

    /// Whether there is nothing to do.
    pub fn is_identity(self) -> bool {
        matches!(self, Self::Identity)
    }

    /// Converts one row. `xrgb` gives the number of pixels; `row` holds at least as many.
    pub fn convert(self, row: &[u8], xrgb: &mut [u8]) {
        match self {
            Self::Identity => xrgb.copy_from_slice(&row[..xrgb.len()]),
            Self::PerPixel { bytes, pixel } => {
                for (from, to) in row.chunks_exact(bytes).zip(xrgb.chunks_exact_mut(4)) {
                    let mut wide = [0; 4];
                    wide[..bytes].copy_from_slice(from);
                    to.copy_from_slice(&pixel(u32::from_le_bytes(wide)).to_le_bytes());
                }
            }
        }
    }
}

fn swap_red_blue(rgb: u32) -> u32 {
    (rgb & 0x0000_ff00) | ((rgb & 0xff) << 16) | ((rgb >> 16) & 0xff)
}

fn from_2101010(p: u32) -> u32 {
    (((p >> 22) & 0xff) << 16) | (((p >> 12) & 0xff) << 8) | ((p >> 2) & 0xff)
}

/// Widens by repeating the high bits, so that full intensity stays full.
fn from_565(p: u32) -> u32 {
    let wide5 = |v: u32| (v << 3) | (v >> 2);
    let wide6 = |v: u32| (v << 2) | (v >> 4);
    (wide5((p >> 11) & 0x1f) << 16) | (wide6((p >> 5) & 0x3f) << 8) | wide5(p & 0x1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(fourcc: DrmFourcc) -> Format {
        Format { fourcc, modifier: DrmModifier::Linear }
    }

    #[test]
    fn names_are_those_of_drm_fourcc_h() {
        assert_eq!(linear(DrmFourcc::Xrgb8888).to_string(), "XR24 LINEAR");
        let tiled = Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::I915_y_tiled };
        assert_eq!(tiled.to_string(), "XR24 I915_Y_TILED");
        assert_eq!(FourccCode(0x3432_5258).to_string(), "'XR24' (0x34325258)");
        assert_eq!(FourccCode(1).to_string(), "0x00000001");
    }

    #[test]
    fn video_is_told_from_pictures() {
        for fourcc in [DrmFourcc::Yuyv, DrmFourcc::Nv12, DrmFourcc::Yuv420, DrmFourcc::Ayuv] {
            assert!(linear(fourcc).is_yuv(), "{fourcc}");
        }
        for fourcc in [DrmFourcc::Xrgb8888, DrmFourcc::Rgb565, DrmFourcc::R8, DrmFourcc::Gr88] {
            assert!(!linear(fourcc).is_yuv(), "{fourcc}");
        }
    }

    #[test]
    fn rows_of_tiles_have_no_byte_count() {
        assert_eq!(linear(DrmFourcc::Rgb565).row_bytes(3), Some(6));
        assert_eq!(linear(DrmFourcc::Nv12).row_bytes(3), None);
        let tiled = Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::I915_x_tiled };
        assert_eq!(tiled.row_bytes(3), None);
    }

    #[test]
    fn primaries_keep_their_colours_in_every_format() {
        // One white, red, green and blue pixel each, as the format's definition in drm_fourcc.h
        // writes them.
        let cases: [(DrmFourcc, [u32; 4]); 8] = [
            (DrmFourcc::Xrgb8888, [0x00ff_ffff, 0x00ff_0000, 0x0000_ff00, 0x0000_00ff]),
            (DrmFourcc::Xbgr8888, [0x00ff_ffff, 0x0000_00ff, 0x0000_ff00, 0x00ff_0000]),
            (DrmFourcc::Rgbx8888, [0xffff_ff00, 0xff00_0000, 0x00ff_0000, 0x0000_ff00]),
            (DrmFourcc::Bgrx8888, [0xffff_ff00, 0x0000_ff00, 0x00ff_0000, 0xff00_0000]),
            (DrmFourcc::Xrgb2101010, [0x3fff_ffff, 0x3ff0_0000, 0x000f_fc00, 0x0000_03ff]),
            (DrmFourcc::Xbgr2101010, [0x3fff_ffff, 0x0000_03ff, 0x000f_fc00, 0x3ff0_0000]),
            (DrmFourcc::Rgb565, [0xffff, 0xf800, 0x07e0, 0x001f]),
            (DrmFourcc::Bgr565, [0xffff, 0x001f, 0x07e0, 0xf800]),
        ];
        for (fourcc, pixels) in cases {
            let conversion = Conversion::to_xrgb8888(linear(fourcc)).unwrap();
            let bytes = if let Conversion::PerPixel { bytes, .. } = conversion { bytes } else { 4 };
            let row: Vec<u8> =
                pixels.iter().flat_map(|p| p.to_le_bytes()[..bytes].to_vec()).collect();
            let mut xrgb = [0; 16];
            conversion.convert(&row, &mut xrgb);
            let got: Vec<u32> = xrgb
                .chunks_exact(4)
                .map(|p| u32::from_le_bytes(p.try_into().unwrap()) & 0x00ff_ffff)
                .collect();
            assert_eq!(got, [0x00ff_ffff, 0x00ff_0000, 0x0000_ff00, 0x0000_00ff], "{fourcc}");
        }
    }

    #[test]
    fn palettes_and_yuv_are_refused() {
        assert!(Conversion::to_xrgb8888(linear(DrmFourcc::C8)).is_none());
        assert!(Conversion::to_xrgb8888(linear(DrmFourcc::Yuyv)).is_none());
    }
}
