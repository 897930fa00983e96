//! dma-bufs, and what devices in processes hand out as such.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use super::{Kind, Memory, size};

/// A dma-buf, or what a device hands out as one, held through its descriptor.
#[derive(Debug)]
pub struct DmaBuf {
    file: File,
    kind: Kind,
    size: u64,
    identity: Identity,
}

/// Tells whether two descriptors are of the same buffer: device and inode of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(u64, u64);

impl DmaBuf {
    /// Takes ownership of the descriptor. One that is refused is closed; if that may take long, it goes through a [`Gate`].
    ///
    /// [`Gate`]: super::Gate
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let kind = Kind::of_memory(fd.as_fd())?;
        Self::of_kind(fd.into(), kind)
    }

    /// `kind` is that of the descriptor, and one of memory.
    pub(super) fn of_kind(file: File, kind: Kind) -> io::Result<Self> {
        let size = size(&file, kind)?;
        let metadata = file.metadata()?;
        Ok(Self { file, kind, size, identity: Identity(metadata.dev(), metadata.ino()) })
    }

    /// Bytes in the buffer, as the kernel says.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Which buffer it is.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether its pages stay where they are mapped, by us or by others.
    pub fn can_be_mapped(&self) -> bool {
        self.kind.can_be_mapped()
    }

    /// Makes the first `len` bytes readable.
    pub fn memory(&self, len: u64) -> io::Result<Memory> {
        Memory::of_kind(self.file.try_clone()?, self.kind, 0, len)
    }
}

impl AsFd for DmaBuf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// While it lives, the bytes of a dma-buf are coherent for the CPU.
#[derive(Debug)]
#[must_use]
pub struct Reading<'a>(Option<BorrowedFd<'a>>);

const DMA_BUF_SYNC_READ: u64 = 1;
const DMA_BUF_SYNC_START: u64 = 0;
const DMA_BUF_SYNC_END: u64 = 4;
/// `_IOW('b', 0, struct dma_buf_sync)`
const DMA_BUF_IOCTL_SYNC: libc::c_ulong = 0x4008_6200;

impl<'a> Reading<'a> {
    pub(super) fn begin(dma_buf: Option<BorrowedFd<'a>>) -> Self {
        let reading = Self(dma_buf);
        reading.sync(DMA_BUF_SYNC_START);
        reading
    }

    fn sync(&self, phase: u64) {
        let Some(fd) = self.0 else { return };
        let flags: u64 = DMA_BUF_SYNC_READ | phase;
        loop {
            // SAFETY: the descriptor is open, and the ioctl reads the eight bytes of `flags` only.
            let result =
                unsafe { libc::ioctl(fd.as_raw_fd(), DMA_BUF_IOCTL_SYNC, &raw const flags) };
            let again = result != 0
                && matches!(
                    io::Error::last_os_error().raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN)
                );
            if !again {
                return;
            }
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.sync(DMA_BUF_SYNC_END);
    }
}
