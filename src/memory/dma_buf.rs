//! dma-bufs, and what devices in processes send as such.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use super::{Kind, Memory, MemoryFile};

/// A dma-buf, or what a device sent as one, held through its descriptor.
#[derive(Debug)]
pub struct DmaBuf {
    file: MemoryFile,
    identity: Identity,
}

/// Identifies a buffer, whatever its descriptor: device and inode of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(u64, u64);

impl DmaBuf {
    /// Takes ownership of the descriptor. One that is refused is closed; if that may take long, it
    /// goes through a [`Gate`].
    ///
    /// [`Gate`]: super::Gate
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let kind = Kind::of_memory(fd.as_fd())?;
        Self::of_file(MemoryFile::new(fd.into(), kind)?)
    }

    pub(super) fn of_file(file: MemoryFile) -> io::Result<Self> {
        let metadata = file.metadata()?;
        Ok(Self { file, identity: Identity(metadata.dev(), metadata.ino()) })
    }

    /// Returns the size in bytes, from the kernel.
    pub fn size(&self) -> u64 {
        self.file.size()
    }

    /// Returns the buffer's identity.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// Whether it may be mapped, by us or others: its pages cannot go away.
    pub fn can_be_mapped(&self) -> bool {
        self.file.kind().can_be_mapped()
    }

    /// Waits, with a bound, until GPU jobs that write into it have ended: a reader with a GPU of
    /// its own would wait without one. ETIMEDOUT: somebody still writes.
    pub fn wait_for_writers(&self) -> io::Result<()> {
        match self.file.kind() {
            Kind::DmaBuf => wait_for_writers(self.as_fd(), WRITERS_TIMEOUT),
            _ => Ok(()),
        }
    }

    /// Makes the first `len` bytes readable.
    pub fn memory(&self, len: u64) -> io::Result<Memory> {
        Memory::of_file(self.file.try_clone()?, 0, len)
    }
}

impl AsFd for DmaBuf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Keeps a dma-buf coherent for the CPU while it lives.
#[derive(Debug)]
#[must_use]
pub struct Reading<'a>(Option<BorrowedFd<'a>>);

const DMA_BUF_SYNC_READ: u64 = 1;
const DMA_BUF_SYNC_START: u64 = 0;
const DMA_BUF_SYNC_END: u64 = 4;
/// `_IOW('b', 0, struct dma_buf_sync)`
const DMA_BUF_IOCTL_SYNC: libc::c_ulong = 0x4008_6200;

/// How long a GPU job may take before it counts as stuck. DMA_BUF_IOCTL_SYNC would wait for it
/// without a bound.
const WRITERS_TIMEOUT: Duration = Duration::from_millis(100);

/// How often an exporter may ask for a retry (EINTR, EAGAIN).
const SYNC_ATTEMPTS: u32 = 100;

impl<'a> Reading<'a> {
    /// ETIMEDOUT: somebody still writes.
    pub(super) fn begin(dma_buf: Option<BorrowedFd<'a>>) -> io::Result<Self> {
        if let Some(fd) = dma_buf {
            wait_for_writers(fd, WRITERS_TIMEOUT)?;
        }
        let reading = Self(dma_buf);
        reading.sync(DMA_BUF_SYNC_START);
        Ok(reading)
    }

    fn sync(&self, phase: u64) {
        let Some(fd) = self.0 else { return };
        let flags: u64 = DMA_BUF_SYNC_READ | phase;
        for _ in 0..SYNC_ATTEMPTS {
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

/// Waits until the jobs that write into a dma-buf have ended: its POLLIN.
fn wait_for_writers(dma_buf: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let milliseconds = libc::c_int::try_from(left.as_millis()).unwrap_or(libc::c_int::MAX);
        let mut entry = libc::pollfd { fd: dma_buf.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `entry` is one entry, and outlives the call.
        match unsafe { libc::poll(&raw mut entry, 1, milliseconds) } {
            0 => return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
            1.. => return Ok(()),
            _ => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.sync(DMA_BUF_SYNC_END);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::Reading;

    /// A socket has something to read, or not, as a dma-buf that nobody writes any more, or
    /// somebody does.
    #[test]
    fn a_job_that_does_not_end_is_not_waited_for_without_end() {
        let (reader, mut writer) = UnixStream::pair().unwrap();
        let error = Reading::begin(Some(reader.as_fd())).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        writer.write_all(b"x").unwrap();
        assert!(Reading::begin(Some(reader.as_fd())).is_ok());
        assert!(Reading::begin(None).is_ok());
    }
}
