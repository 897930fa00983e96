//! The dma-bufs of a picture, and what is checked of them before a driver sees them.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use drm_fourcc::{DrmFourcc, DrmModifier};

use crate::format::Format;
use crate::memory::{self, DmaBuf, Memory};
use crate::plane::MAX_SIDE;

use super::driver::signed;
use super::formats::Telling;
use super::layout;

/// The most planes that a picture has.
pub const MAX_PLANES: usize = 4;

const EGL_WIDTH: i32 = 0x3057;
const EGL_HEIGHT: i32 = 0x3056;
const EGL_NONE: i32 = 0x3038;
const EGL_LINUX_DRM_FOURCC_EXT: i32 = 0x3271;
const EGL_YUV_COLOR_SPACE_HINT_EXT: i32 = 0x327B;
const EGL_SAMPLE_RANGE_HINT_EXT: i32 = 0x327C;
const EGL_ITU_REC601_EXT: i32 = 0x327F;
const EGL_ITU_REC709_EXT: i32 = 0x3280;
const EGL_ITU_REC2020_EXT: i32 = 0x3281;
const EGL_YUV_FULL_RANGE_EXT: i32 = 0x3282;
const EGL_YUV_NARROW_RANGE_EXT: i32 = 0x3283;

/// Names of attributes, for each plane.
const FD: [i32; MAX_PLANES] = [0x3272, 0x3275, 0x3278, 0x3440];
const OFFSET: [i32; MAX_PLANES] = [0x3273, 0x3276, 0x3279, 0x3441];
const PITCH: [i32; MAX_PLANES] = [0x3274, 0x3277, 0x327A, 0x3442];
const MODIFIER_LO: [i32; MAX_PLANES] = [0x3443, 0x3445, 0x3447, 0x3449];
const MODIFIER_HI: [i32; MAX_PLANES] = [0x3444, 0x3446, 0x3448, 0x344A];

/// Which colours luminance and chrominance mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ColorSpace {
    /// ITU-R BT.601, as in standard definition video; what drivers assume.
    #[default]
    Rec601,
    /// ITU-R BT.709, as in high definition video.
    Rec709,
    /// ITU-R BT.2020, as in ultra high definition video.
    Rec2020,
}

/// A picture in dma-bufs, as described by its owner, not yet checked.
#[derive(Clone, Copy, Debug)]
pub struct Buffer<'a> {
    /// Format and modifier.
    pub format: Format,
    /// Width in pixels.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Where the pixels are, 1 to [`MAX_PLANES`].
    pub planes: &'a [BufferPlane<'a>],
    /// The colour space of YUV formats.
    pub color_space: ColorSpace,
    /// Whether YUV formats use all values of a byte.
    pub full_range: bool,
}

/// One plane of a picture.
#[derive(Clone, Copy, Debug)]
pub struct BufferPlane<'a> {
    /// The dma-buf, which planes can share.
    pub fd: BorrowedFd<'a>,
    /// Byte of the dma-buf where the plane begins.
    pub offset: u32,
    /// Stride in bytes.
    pub stride: u32,
}

/// What a driver may mind about a buffer, whatever is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kind {
    format: Format,
    width: u32,
    height: u32,
    /// Offsets and strides.
    planes: Vec<(u32, u32)>,
}

/// Who reads the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A GPU, through the kernel's own checks.
    Gpu,
    /// The CPU, through a mapping, in threads where a fault ends the process.
    Cpu,
}

impl Buffer<'_> {
    /// What a driver may mind about it.
    pub fn kind(&self) -> Kind {
        let planes = self.planes.iter().map(|plane| (plane.offset, plane.stride)).collect();
        Kind { format: self.format, width: self.width, height: self.height, planes }
    }

    /// Checks that what will be read is there.
    pub fn check(&self, reader: Reader) -> Result<(), BufferError> {
        let (width, height) = (self.width, self.height);
        if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
            return Err(BufferError::Size { width, height });
        }
        let format = self.format;
        let needs =
            layout::plane_count(format.fourcc).ok_or(BufferError::UnknownLayout { format })?;
        let has = self.planes.len();
        // Compressed layouts keep their tables in further planes.
        let linear = matches!(format.modifier, DrmModifier::Linear | DrmModifier::Invalid);
        if has < needs || has > MAX_PLANES || (linear && has != needs) {
            return Err(BufferError::PlaneCount { format, needs, has });
        }
        for (index, plane) in self.planes.iter().enumerate() {
            self.check_plane(index, plane, reader)?;
        }
        Ok(())
    }

    /// Copies the pixels of a linear picture in ARGB8888 or XRGB8888, without padding, as ARGB8888.
    /// Hands out each row's bytes.
    pub fn read(&self, mut row: impl FnMut(&[u8])) -> Result<(), BufferError> {
        self.check(Reader::Gpu)?;
        let Format { fourcc, modifier } = self.format;
        let opaque = match (fourcc, modifier, self.planes) {
            (DrmFourcc::Argb8888, DrmModifier::Linear, [_]) => false,
            (DrmFourcc::Xrgb8888, DrmModifier::Linear, [_]) => true,
            _ => return Err(BufferError::UnknownLayout { format: self.format }),
        };
        let BufferPlane { fd, offset, stride } = self.planes[0];
        let unmappable = |error| BufferError::Unmappable { index: 0, error };
        let dma_buf = fd.try_clone_to_owned().and_then(DmaBuf::new).map_err(unmappable)?;
        let rows = u64::from(self.height - 1) * u64::from(stride);
        let end = u64::from(offset) + rows + u64::from(self.width) * 4;
        let memory = dma_buf.memory(end).map_err(unmappable)?;
        let _reading = memory.begin_reading().map_err(unmappable)?;
        let mut pixels = vec![0; self.width as usize * 4];
        for y in 0..self.height {
            let at = u64::from(offset) + u64::from(y) * u64::from(stride);
            memory.read(at, &mut pixels).map_err(unmappable)?;
            if opaque {
                pixels.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = 0xff);
            }
            row(&pixels);
        }
        Ok(())
    }

    fn check_plane(
        &self,
        index: usize,
        plane: &BufferPlane<'_>,
        reader: Reader,
    ) -> Result<(), BufferError> {
        let BufferPlane { fd, offset, stride } = *plane;
        if i32::try_from(stride).is_err() || i32::try_from(offset).is_err() {
            return Err(BufferError::TooFar { index, offset, stride });
        }
        let failed = |error| BufferError::Descriptor { index, fd: fd.as_raw_fd(), error };
        // Only memory is touched, be it to close a descriptor of it.
        let dma_buf = memory::Kind::of_memory(fd)
            .and_then(|_| fd.try_clone_to_owned())
            .and_then(DmaBuf::new)
            .map_err(failed)?;
        let size = dma_buf.size();
        match layout::extent(self.format, index, (self.width, self.height), stride) {
            Some(extent) if u64::from(stride) < extent.row => {
                return Err(BufferError::Stride { index, stride, needed: extent.row });
            }
            Some(extent) => {
                let needed = u64::from(offset) + extent.total;
                if needed > size {
                    return Err(BufferError::Storage { index, needed, size });
                }
            }
            None if u64::from(offset) >= size => {
                return Err(BufferError::Storage { index, needed: u64::from(offset) + 1, size });
            }
            None => {}
        }
        if reader == Reader::Cpu {
            check_mapping(&dma_buf, index)?;
        }
        Ok(())
    }

    /// The list of attributes that describes the picture to `eglCreateImageKHR`. What
    /// [`Buffer::check`] refuses must not come here.
    pub fn attributes(&self, telling: Telling) -> Vec<i32> {
        let mut list = vec![
            EGL_WIDTH,
            signed(self.width),
            EGL_HEIGHT,
            signed(self.height),
            EGL_LINUX_DRM_FOURCC_EXT,
            signed(self.format.fourcc as u32),
        ];
        let modifier = u64::from(self.format.modifier);
        #[expect(clippy::cast_possible_truncation, reason = "the attributes are the two halves")]
        let halves = (signed(modifier as u32), signed((modifier >> 32) as u32));
        for (index, plane) in self.planes.iter().enumerate().take(MAX_PLANES) {
            list.extend([FD[index], plane.fd.as_raw_fd()]);
            list.extend([OFFSET[index], signed(plane.offset)]);
            list.extend([PITCH[index], signed(plane.stride)]);
            if telling == Telling::Explicit {
                list.extend([MODIFIER_LO[index], halves.0, MODIFIER_HI[index], halves.1]);
            }
        }
        if self.format.is_yuv() {
            let space = match self.color_space {
                ColorSpace::Rec601 => EGL_ITU_REC601_EXT,
                ColorSpace::Rec709 => EGL_ITU_REC709_EXT,
                ColorSpace::Rec2020 => EGL_ITU_REC2020_EXT,
            };
            let range =
                if self.full_range { EGL_YUV_FULL_RANGE_EXT } else { EGL_YUV_NARROW_RANGE_EXT };
            list.extend([EGL_YUV_COLOR_SPACE_HINT_EXT, space]);
            list.extend([EGL_SAMPLE_RANGE_HINT_EXT, range]);
        }
        list.push(EGL_NONE);
        list
    }
}

/// Software renderers map the whole dma-buf, do not check whether that worked, and read it in
/// threads of their own: what cannot be mapped, or can shrink, would end the process.
fn check_mapping(dma_buf: &DmaBuf, index: usize) -> Result<(), BufferError> {
    let memory =
        dma_buf.memory(dma_buf.size()).map_err(|error| BufferError::Unmappable { index, error })?;
    if !memory.is_mapped() {
        return Err(BufferError::CanShrink { index });
    }
    match Memory::unreachable_bytes(&memory) {
        0 => Ok(()),
        bytes => Err(BufferError::NotWhollyMappable { index, bytes }),
    }
}

impl fmt::Display for Buffer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{} {}", self.width, self.height, self.format)
    }
}

/// Why a buffer must not reach a driver.
#[derive(Debug)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum BufferError {
    Size { width: u32, height: u32 },
    UnknownLayout { format: Format },
    PlaneCount { format: Format, needs: usize, has: usize },
    TooFar { index: usize, offset: u32, stride: u32 },
    Descriptor { index: usize, fd: i32, error: io::Error },
    Stride { index: usize, stride: u32, needed: u64 },
    Storage { index: usize, needed: u64, size: u64 },
    Unmappable { index: usize, error: io::Error },
    NotWhollyMappable { index: usize, bytes: u64 },
    CanShrink { index: usize },
}

impl std::error::Error for BufferError {}

impl fmt::Display for BufferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Size { width, height } => {
                write!(f, "size {width}x{height} is out of range (1x1 to {MAX_SIDE}x{MAX_SIDE})")
            }
            Self::UnknownLayout { format } => {
                write!(f, "how many bytes {format} takes is not known")
            }
            Self::PlaneCount { format, needs, has } => {
                write!(f, "{format} has {needs} planes, but there are {has}")
            }
            Self::TooFar { index, offset, stride } => {
                write!(f, "plane {index}: offset {offset} or stride {stride} is beyond 2 GiB")
            }
            Self::Descriptor { index, fd, error } => {
                write!(f, "plane {index}: descriptor {fd} is no dma-buf: {error}")
            }
            Self::Stride { index, stride, needed } => {
                write!(f, "plane {index}: stride {stride} is less than a row ({needed} bytes)")
            }
            Self::Storage { index, needed, size } => {
                write!(f, "plane {index} ends at byte {needed}, but its dma-buf has {size}")
            }
            Self::Unmappable { index, error } => {
                write!(f, "plane {index}: the CPU cannot map the dma-buf: {error}")
            }
            Self::NotWhollyMappable { index, bytes } => {
                write!(f, "plane {index}: the CPU cannot map the last {bytes} bytes of the dma-buf")
            }
            Self::CanShrink { index } => {
                write!(f, "plane {index}: the file is no dma-buf, and not sealed against shrinking")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::memory::tests::memfd;

    const XR24: Format = Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::Linear };
    const NV12: Format = Format { fourcc: DrmFourcc::Nv12, modifier: DrmModifier::Linear };

    fn buffer<'a>(format: Format, planes: &'a [BufferPlane<'a>]) -> Buffer<'a> {
        let color_space = ColorSpace::Rec709;
        Buffer { format, width: 16, height: 4, planes, color_space, full_range: false }
    }

    fn refusal(buffer: Buffer<'_>) -> String {
        buffer.check(Reader::Cpu).unwrap_err().to_string()
    }

    #[test]
    fn what_is_there_passes_and_not_a_byte_less() {
        for (file, whole) in [(memfd(&[0; 356], true), true), (memfd(&[0; 355], true), false)] {
            let planes = [BufferPlane { fd: file.as_fd(), offset: 100, stride: 64 }];
            assert_eq!(buffer(XR24, &planes).check(Reader::Cpu).is_ok(), whole);
        }
    }

    #[test]
    fn lies_are_refused_in_words() {
        let file = memfd(&[0; 256], true);
        let fd = file.as_fd();
        let plane = |offset, stride| [BufferPlane { fd, offset, stride }];
        let good = plane(0, 64);
        let refused = |planes: &[BufferPlane<'_>]| refusal(buffer(XR24, planes));
        assert_eq!(
            refusal(Buffer { width: 0, ..buffer(XR24, &good) }),
            "size 0x4 is out of range (1x1 to 16384x16384)"
        );
        assert_eq!(
            refusal(Buffer { width: 17, height: 1, ..buffer(XR24, &good) }),
            "plane 0: stride 64 is less than a row (68 bytes)"
        );
        assert_eq!(refused(&plane(1, 64)), "plane 0 ends at byte 257, but its dma-buf has 256");
        assert_eq!(
            refused(&plane(0, u32::MAX)),
            "plane 0: offset 0 or stride 4294967295 is beyond 2 GiB"
        );
        assert_eq!(
            refused(&plane(u32::MAX, 64)),
            "plane 0: offset 4294967295 or stride 64 is beyond 2 GiB"
        );
        assert_eq!(refused(&[]), "XR24 LINEAR has 1 planes, but there are 0");
        assert_eq!(refusal(buffer(NV12, &good)), "NV12 LINEAR has 2 planes, but there are 1");
        let unknown = Format { fourcc: DrmFourcc::Nv15, ..NV12 };
        assert_eq!(
            refusal(buffer(unknown, &good)),
            "how many bytes NV15 LINEAR takes is not known"
        );
    }

    #[test]
    fn planes_may_share_a_dma_buf() {
        let file = memfd(&[0; 96], true);
        let fd = file.as_fd();
        let planes =
            [BufferPlane { fd, offset: 0, stride: 16 }, BufferPlane { fd, offset: 64, stride: 16 }];
        buffer(NV12, &planes).check(Reader::Cpu).unwrap();
        let beyond = [planes[0], BufferPlane { offset: 65, ..planes[1] }];
        assert_eq!(
            refusal(buffer(NV12, &beyond)),
            "plane 1 ends at byte 97, but its dma-buf has 96"
        );
    }

    #[test]
    fn the_cpu_reads_only_what_stays() {
        let file = memfd(&[0; 256], false);
        let planes = [BufferPlane { fd: file.as_fd(), offset: 0, stride: 64 }];
        assert_eq!(
            refusal(buffer(XR24, &planes)),
            "plane 0: the file is no dma-buf, and not sealed against shrinking"
        );
        buffer(XR24, &planes).check(Reader::Gpu).unwrap();
    }

    #[test]
    fn what_cannot_be_mapped_is_for_gpus_only() {
        // As a dma-buf of mbochs: it has a size, and refuses to be mapped.
        let file = memfd(&[0; 256], true);
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let write_only = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        let planes = [BufferPlane { fd: write_only.as_fd(), offset: 0, stride: 64 }];
        assert_eq!(
            refusal(buffer(XR24, &planes)),
            "plane 0: the CPU cannot map the dma-buf: Permission denied (os error 13)"
        );
        buffer(XR24, &planes).check(Reader::Gpu).unwrap();
    }

    #[test]
    fn pixels_are_read_without_padding_and_as_far_as_they_are_there() {
        let bytes: Vec<u8> = (0..100).collect();
        let file = memfd(&bytes, false);
        let planes = [BufferPlane { fd: file.as_fd(), offset: 4, stride: 32 }];
        let read = |fourcc, height| {
            let format = Format { fourcc, modifier: DrmModifier::Linear };
            let mut pixels = Vec::new();
            let color_space = ColorSpace::Rec601;
            Buffer { format, width: 1, height, planes: &planes, color_space, full_range: false }
                .read(|row| pixels.extend_from_slice(row))
                .map(|()| pixels)
                .map_err(|error| error.to_string())
        };
        assert_eq!(read(DrmFourcc::Argb8888, 2).unwrap(), [4, 5, 6, 7, 36, 37, 38, 39]);
        assert_eq!(read(DrmFourcc::Xrgb8888, 1).unwrap(), [4, 5, 6, 255]);
        assert_eq!(
            read(DrmFourcc::Argb8888, 4).unwrap_err(),
            "plane 0 ends at byte 104, but its dma-buf has 100"
        );
        assert!(read(DrmFourcc::Rgb565, 1).is_err());
    }

    #[test]
    fn attributes_are_those_of_the_extension() {
        let file = memfd(&[0; 256], true);
        let fd = file.as_raw_fd();
        let planes = [BufferPlane { fd: file.as_fd(), offset: 8, stride: 64 }];
        let tiled = Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::I915_y_tiled };
        assert_eq!(
            buffer(tiled, &planes).attributes(Telling::Explicit),
            [
                0x3057,
                16,
                0x3056,
                4,
                0x3271,
                0x3432_5258,
                0x3272,
                fd,
                0x3273,
                8,
                0x3274,
                64,
                0x3443,
                2,
                0x3444,
                0x0100_0000,
                0x3038
            ]
        );
        assert_eq!(
            buffer(tiled, &planes).attributes(Telling::Implicit),
            [0x3057, 16, 0x3056, 4, 0x3271, 0x3432_5258, 0x3272, fd, 0x3273, 8, 0x3274, 64, 0x3038]
        );
        let plane = planes[0];
        let attributes = buffer(NV12, &[plane, plane]).attributes(Telling::Implicit);
        assert_eq!(
            attributes[12..],
            [0x3275, fd, 0x3276, 8, 0x3277, 64, 0x327B, 0x3280, 0x327C, 0x3283, 0x3038]
        );
    }
}
