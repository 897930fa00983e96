//! Fences of dma-bufs: waiting for those who draw, and telling them when a reader is done.
//!
//! Most drivers see to that by themselves. Those that do not (explicit sync only) need the two ioctls of Linux 6.0 that
//! turn a dma-buf's fences into a file, and back.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const DMA_BUF_SYNC_READ: u32 = 1;
/// `_IOWR('b', 2, struct dma_buf_export_sync_file)`
const DMA_BUF_IOCTL_EXPORT_SYNC_FILE: libc::c_ulong = 0xC008_6202;
/// `_IOW('b', 3, struct dma_buf_import_sync_file)`
const DMA_BUF_IOCTL_IMPORT_SYNC_FILE: libc::c_ulong = 0x4008_6203;

/// `struct dma_buf_export_sync_file`, and `dma_buf_import_sync_file`, of `linux/dma-buf.h`
#[repr(C)]
struct SyncFile {
    flags: u32,
    fd: i32,
}

fn ioctl(
    dma_buf: BorrowedFd<'_>,
    request: libc::c_ulong,
    argument: &mut SyncFile,
) -> io::Result<()> {
    loop {
        // SAFETY: the descriptor is open; both requests read and write the eight bytes of a `SyncFile` only.
        if unsafe { libc::ioctl(dma_buf.as_raw_fd(), request, &raw mut *argument) } == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) {
            return Err(error);
        }
    }
}

/// The fence that a reader has to wait for: all who write now. It fires at once if there are none.
pub fn writers(dma_buf: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut file = SyncFile { flags: DMA_BUF_SYNC_READ, fd: -1 };
    ioctl(dma_buf, DMA_BUF_IOCTL_EXPORT_SYNC_FILE, &mut file)?;
    if file.fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the kernel made the descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(file.fd) })
}

/// Adds a reader, who is done when the fence fires: who writes next waits for that.
pub fn add_reader(dma_buf: BorrowedFd<'_>, fence: BorrowedFd<'_>) -> io::Result<()> {
    let mut file = SyncFile { flags: DMA_BUF_SYNC_READ, fd: fence.as_raw_fd() };
    ioctl(dma_buf, DMA_BUF_IOCTL_IMPORT_SYNC_FILE, &mut file)
}

/// Whether a fence has fired. Does not wait.
pub fn has_fired(fence: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: fence.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: there is one entry.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::memory::tests::memfd;

    #[test]
    fn files_that_are_no_dma_bufs_have_no_fences() {
        let file = memfd(&[0; 16], true);
        let error = writers(file.as_fd()).unwrap_err();
        assert!(matches!(error.raw_os_error(), Some(libc::ENOTTY | libc::EINVAL)), "{error}");
        assert!(add_reader(file.as_fd(), file.as_fd()).is_err());
    }

    #[test]
    fn a_fence_fires_when_it_can_be_read() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!has_fired(reader.as_fd()));
        drop(writer);
        assert!(has_fired(reader.as_fd()));
    }
}
