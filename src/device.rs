//! What a vfio device offers to a display.
//!
//! Kernel drivers answer with ioctls, processes with vfio-user messages; both look like this trait.
//! Errors are the device's, as errno values in [`io::Error`].

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::console::Monitor;
use crate::plane::PlaneInfo;

/// A vfio device, seen from its display.
pub trait Device {
    /// Returns the device's name for messages.
    fn name(&self) -> &str;

    /// `VFIO_DEVICE_QUERY_GFX_PLANE`. `info` holds the question; on success the answer has taken
    /// its place.
    fn query_plane(&self, info: &mut PlaneInfo) -> io::Result<()>;

    /// `VFIO_DEVICE_GET_GFX_DMABUF`. The descriptor belongs to the caller, as does one more
    /// reference to the dma-buf.
    fn get_dmabuf(&self, id: u32) -> io::Result<OwnedFd>;

    /// `VFIO_DEVICE_GET_REGION_INFO`. Any index may be asked for: those of graphics regions lie
    /// beyond `num_regions` with some drivers.
    fn region(&self, index: u32) -> io::Result<RegionInfo>;

    /// Reads from a region without mapping it. Fills `buf` or fails.
    fn read_region(&self, index: u32, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes to a region without mapping it. Writes all of `buf` or fails.
    fn write_region(&self, index: u32, offset: u64, buf: &[u8]) -> io::Result<()>;

    /// Whether a dma-buf's id means that buffer for as long as a descriptor of it is open, even
    /// over a reset.
    ///
    /// Kernel drivers see that. A process does not see who holds what it gave away.
    fn keeps_ids(&self) -> bool;

    /// Quirk: the exporter must not be asked for the same dma-buf twice, even after the first was
    /// closed. The kernel's mbochs then frees pages that it did not allocate.
    fn exports_once(&self) -> bool {
        false
    }

    /// `VFIO_DEVICE_SET_IRQS` for the display interrupt (docs/display-events.md): the device
    /// signals this eventfd when its picture changes; `None` ends that. [`Failure::Unsupported`] if
    /// it has no such interrupt.
    fn signal_changes(&self, _event: Option<BorrowedFd<'_>>) -> io::Result<()> {
        Err(io::Error::from_raw_os_error(libc::ENOTTY))
    }

    /// Index of the region that takes the EDID, found by its type capability; `None` if the device
    /// has none.
    fn edid_region(&self) -> Option<u32>;

    /// Writes an EDID for this monitor into `blob`, which is zeroed, and returns its length. The
    /// host makes it, without asking the device.
    fn generate_edid(&self, monitor: &Monitor, blob: &mut [u8]) -> usize;
}

/// How a device gives its planes: a fixed property of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// As dma-bufs.
    DmaBuf,
    /// In a region of its own.
    Region,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DmaBuf => "dma-buf",
            Self::Region => "region",
        })
    }
}

/// A region of a device.
#[derive(Debug)]
pub struct RegionInfo {
    /// Size in bytes, as the device says.
    pub size: u64,
    /// Where to map its memory from; `None`: read it with [`Device::read_region`].
    pub memory: Option<RegionMemory>,
}

/// A piece of a file that is a region's memory.
#[derive(Debug)]
pub struct RegionMemory {
    /// The file to map.
    pub fd: OwnedFd,
    /// Where in the file the region begins, in bytes.
    pub offset: u64,
    /// Whether the file is the vfio device itself, opened by the host. Any other came from the
    /// device.
    pub is_device: bool,
}

/// What a device call's error means for the display.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The same call may succeed soon.
    Transient,
    /// What was asked for is not there: the guest flipped between query and get.
    NotThere,
    /// The device does not have this.
    Unsupported,
    /// The device does not answer in time.
    Silent,
    /// There is no device any more.
    Gone,
    /// The device was not asked: see [`NotAsked`].
    NotAsked,
    /// Anything else.
    Other,
}

impl Failure {
    /// Classifies an error of a device.
    pub fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            None if NotAsked::is(error) => Self::NotAsked,
            Some(libc::ENOMEM | libc::EAGAIN | libc::EINTR | libc::EBUSY) => Self::Transient,
            Some(libc::ENOENT | libc::EINVAL) => Self::NotThere,
            Some(libc::ENOTTY | libc::EOPNOTSUPP | libc::ENOSYS) => Self::Unsupported,
            Some(libc::ETIMEDOUT) => Self::Silent,
            Some(
                libc::ENODEV | libc::EPIPE | libc::ECONNRESET | libc::ENOTCONN | libc::ESHUTDOWN,
            ) => Self::Gone,
            // Each call was answered, but all of them together took too long.
            None if error.kind() == io::ErrorKind::TimedOut => Self::Silent,
            _ => Self::Other,
        }
    }
}

/// The device was not called, since it is being reset. Not an error of the device, which cannot
/// cause it.
#[derive(Clone, Copy, Debug)]
pub struct NotAsked;

impl NotAsked {
    /// Whether this error is one.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

impl fmt::Display for NotAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the device was not asked")
    }
}

impl std::error::Error for NotAsked {}

impl From<NotAsked> for io::Error {
    fn from(reason: NotAsked) -> Self {
        Self::other(reason)
    }
}
