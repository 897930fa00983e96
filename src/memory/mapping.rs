//! Read-only mappings.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// A shared read-only mapping of a file whose pages stay.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is the process's, not a thread's: any thread may read it, and end it, which
// happens once. The other side may write at any time, which all reads allow for.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing of a mapping is written by us.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps `len` bytes from `offset` on. The pages must stay, whatever becomes of the file: see
    /// [`Kind::can_be_mapped`].
    ///
    /// [`Kind::can_be_mapped`]: super::Kind::can_be_mapped
    pub fn new(file: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<Self> {
        let too_large = |_| io::Error::from_raw_os_error(libc::EOVERFLOW);
        let len = usize::try_from(len).map_err(too_large)?;
        let offset = libc::off_t::try_from(offset).map_err(too_large)?;
        // SAFETY: no address is asked for, so no memory of ours is replaced.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { start, len })
    }

    /// Returns the address of the first byte.
    pub fn start(&self) -> NonNull<u8> {
        self.start
    }

    /// Returns the number of bytes that were asked for.
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Compares with the mapped bytes; beyond them, bytes are zero.
    pub fn equals(&self, offset: usize, bytes: &[u8]) -> bool {
        let reachable = self.len.saturating_sub(offset).min(bytes.len());
        let (mapped, behind) = bytes.split_at(reachable);
        // SAFETY: `offset + reachable` is within the mapping, which lives as long as `self` and
        // whose pages stay (see `new`). The other side may write meanwhile: this is C's function
        // because it only looks at bytes, and no reference to them is made.
        let order = unsafe {
            libc::memcmp(
                self.start.as_ptr().add(offset.min(self.len)).cast(),
                mapped.as_ptr().cast(),
                reachable,
            )
        };
        order == 0 && behind.iter().all(|&byte| byte == 0)
    }

    /// Copies the mapped bytes; beyond them, bytes are zero.
    pub fn read(&self, offset: usize, to: &mut [u8]) {
        let reachable = self.len.saturating_sub(offset).min(to.len());
        let (mapped, behind) = to.split_at_mut(reachable);
        // SAFETY: `offset + reachable` is within the mapping, which lives as long as `self` and
        // whose pages stay (see the module); `mapped` is ours alone. The other side may write
        // meanwhile: the bytes are then a mixture, and every mixture of bytes is valid as `u8`.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.start.as_ptr().add(offset.min(self.len)),
                mapped.as_mut_ptr(),
                reachable,
            );
        }
        behind.fill(0);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the mapping made in `new`; nothing points into it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}
