//! Which bytes of its dma-bufs a picture takes: what a driver will read, so what must be there.

#![forbid(unsafe_code)]

use drm_fourcc::{DrmFourcc, DrmModifier};

use crate::format::Format;

/// One plane of a format: samples that lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PlaneLayout {
    /// Pixels in a row that share a sample.
    across: u32,
    /// Rows that share a sample.
    down: u32,
    /// Bytes of a sample.
    bytes: u32,
}

const fn plane(across: u32, down: u32, bytes: u32) -> PlaneLayout {
    PlaneLayout { across, down, bytes }
}

/// The planes of a format whose bytes we can count.
fn planes(fourcc: DrmFourcc) -> Option<&'static [PlaneLayout]> {
    use DrmFourcc as F;
    Some(match fourcc {
        F::Nv12 | F::Nv21 => const { &[plane(1, 1, 1), plane(2, 2, 2)] },
        F::Nv16 | F::Nv61 => const { &[plane(1, 1, 1), plane(2, 1, 2)] },
        F::Nv24 | F::Nv42 => const { &[plane(1, 1, 1), plane(1, 1, 2)] },
        F::P010 | F::P012 | F::P016 => const { &[plane(1, 1, 2), plane(2, 2, 4)] },
        F::Yuv420 | F::Yvu420 => const { &[plane(1, 1, 1), plane(2, 2, 1), plane(2, 2, 1)] },
        F::Yuv422 | F::Yvu422 => const { &[plane(1, 1, 1), plane(2, 1, 1), plane(2, 1, 1)] },
        F::Yuv444 | F::Yvu444 => const { &[plane(1, 1, 1), plane(1, 1, 1), plane(1, 1, 1)] },
        F::Yuyv | F::Yvyu | F::Uyvy | F::Vyuy => const { &[plane(2, 1, 4)] },
        F::Y210 | F::Y212 | F::Y216 => const { &[plane(2, 1, 8)] },
        F::Ayuv | F::Xyuv8888 | F::Y410 | F::Gr1616 | F::Rg1616 => const { &[plane(1, 1, 4)] },
        F::Y412 | F::Y416 => const { &[plane(1, 1, 8)] },
        F::R16 | F::Gr88 | F::Rg88 => const { &[plane(1, 1, 2)] },
        packed => {
            let linear = Format { fourcc: packed, modifier: DrmModifier::Linear };
            match linear.row_bytes(1)? {
                1 => const { &[plane(1, 1, 1)] },
                2 => const { &[plane(1, 1, 2)] },
                3 => const { &[plane(1, 1, 3)] },
                4 => const { &[plane(1, 1, 4)] },
                8 => const { &[plane(1, 1, 8)] },
                _ => return None,
            }
        }
    })
}

/// How many planes a picture has, at least; `None` if we do not know the format's bytes.
pub fn plane_count(fourcc: DrmFourcc) -> Option<usize> {
    planes(fourcc).map(<[_]>::len)
}

/// Rows of a tile, for the layouts that devices export.
fn tile_rows(modifier: DrmModifier) -> u64 {
    const I915_YF_TILED: u64 = 0x0100_0000_0000_0003;
    match modifier {
        DrmModifier::I915_x_tiled => 8,
        DrmModifier::I915_y_tiled
        | DrmModifier::I915_y_tiled_ccs
        | DrmModifier::I915_y_tiled_gen12_rc_ccs
        | DrmModifier::I915_y_tiled_gen12_mc_ccs
        | DrmModifier::Unrecognized(I915_YF_TILED) => 32,
        _ => 1,
    }
}

/// What one plane of a picture takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The smallest stride, in bytes.
    pub row: u64,
    /// Bytes from the first to the last that is read.
    pub total: u64,
}

/// What plane `index` of a picture takes with this stride. `None` for planes that the format does
/// not have: those of compressed layouts, whose size only the driver knows.
pub fn extent(
    format: Format,
    index: usize,
    (width, height): (u32, u32),
    stride: u32,
) -> Option<Extent> {
    let layout = planes(format.fourcc)?.get(index)?;
    let rows = u64::from(height.div_ceil(layout.down));
    let row = u64::from(width.div_ceil(layout.across)) * u64::from(layout.bytes);
    let stride = u64::from(stride);
    Some(match format.modifier {
        // The last row need not be padded.
        DrmModifier::Linear | DrmModifier::Invalid => {
            Extent { row, total: rows.saturating_sub(1) * stride + row }
        }
        tiled => Extent { row, total: rows.next_multiple_of(tile_rows(tiled)) * stride },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(fourcc: DrmFourcc) -> Format {
        Format { fourcc, modifier: DrmModifier::Linear }
    }

    #[test]
    fn subsampled_planes_round_up() {
        let nv12 = |index, stride| extent(linear(DrmFourcc::Nv12), index, (5, 3), stride).unwrap();
        assert_eq!(nv12(0, 8), Extent { row: 5, total: 2 * 8 + 5 });
        assert_eq!(nv12(1, 8), Extent { row: 6, total: 8 + 6 });
        assert_eq!(extent(linear(DrmFourcc::Nv12), 2, (5, 3), 8), None);
    }

    #[test]
    fn an_odd_row_of_yuyv_ends_with_a_whole_pair() {
        let yuyv = extent(linear(DrmFourcc::Yuyv), 0, (3, 2), 16).unwrap();
        assert_eq!(yuyv, Extent { row: 8, total: 24 });
    }

    #[test]
    fn tiles_take_whole_rows_of_tiles() {
        let tiled = Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::I915_y_tiled };
        assert_eq!(extent(tiled, 0, (1, 33), 512).unwrap().total, 64 * 512);
    }

    #[test]
    fn formats_whose_bytes_are_not_known_have_no_planes() {
        assert_eq!(plane_count(DrmFourcc::Nv15), None);
        assert_eq!(plane_count(DrmFourcc::Yuv420), Some(3));
    }
}
