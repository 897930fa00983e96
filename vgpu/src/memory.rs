//! Shared memory: the VRAM and the buffers, each a memfd.
//!
//! The vGPU reads and writes it with pread and pwrite instead of mapping it: guest and host change
//! and even truncate it behind our back, which a system call answers with an error where a mapping
//! would answer with SIGBUS or a data race.

use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags, fallocate};

/// What memfds and udmabufs are multiples of.
pub const PAGE: u64 = 4096;

/// A memfd and its size.
#[derive(Debug)]
pub struct Memory {
    file: File,
    /// Bytes that may be used; less than `capacity` after [`Memory::resize`].
    len: AtomicU64,
    capacity: u64,
    sealed: bool,
    serial: u64,
}

impl Memory {
    /// A zeroed memfd of `len` bytes, rounded up to whole pages. `sealed` fixes its size for ever,
    /// which udmabuf demands.
    pub fn new(name: &str, len: u64, sealed: bool) -> io::Result<Self> {
        static SERIAL: AtomicU64 = AtomicU64::new(1);

        let capacity = len
            .max(1)
            .checked_next_multiple_of(PAGE)
            .ok_or_else(|| io::Error::new(ErrorKind::InvalidInput, "size overflows"))?;
        let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&fd, capacity)?;
        if sealed {
            rustix::fs::fcntl_add_seals(
                &fd,
                SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
            )?;
        }
        Ok(Self {
            file: fd.into(),
            len: capacity.into(),
            capacity,
            sealed,
            serial: SERIAL.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// Bytes that are there now.
    pub fn len(&self) -> u64 {
        self.len.load(Ordering::Relaxed)
    }

    /// Bytes that it was made with.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Tells memories apart, also when one is gone and another took its place.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Truncates the file under whoever maps it, or undoes that. Only unsealed memory can be
    /// resized, and it never exceeds the size it was made with.
    pub fn resize(&self, len: u64) -> io::Result<()> {
        if self.sealed {
            return Err(io::Error::new(
                ErrorKind::PermissionDenied,
                "the memory is sealed against shrinking (start the server with --unsealed)",
            ));
        }
        if len > self.capacity {
            return Err(io::Error::new(
                ErrorKind::InvalidInput,
                format!("{len} bytes are more than the buffer's {}", self.capacity),
            ));
        }
        self.file.set_len(len)?;
        self.len.store(len, Ordering::Relaxed);
        Ok(())
    }

    /// Gives all pages back: what is read then is zero, also where it is mapped.
    pub fn punch(&self) -> io::Result<()> {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.file, flags, 0, self.capacity)?)
    }

    /// Fills `data` from `offset` on.
    pub fn read(&self, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.check(offset, data.len())?;
        self.file.read_exact_at(data, offset)
    }

    /// Stores `data` at `offset`. Never makes the file larger.
    pub fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check(offset, data.len())?;
        self.file.write_all_at(data, offset)
    }

    fn check(&self, offset: u64, bytes: usize) -> io::Result<()> {
        let len = self.len();
        match offset.checked_add(bytes as u64) {
            Some(end) if end <= len => Ok(()),
            _ => Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                format!("{bytes} bytes at {offset} end beyond the memory's {len}"),
            )),
        }
    }
}

impl AsFd for Memory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_memory_keeps_its_size() {
        let memory = Memory::new("test", 5000, true).unwrap();
        assert_eq!(memory.len(), 8192);
        assert!(memory.resize(4096).is_err());
        let client = memory.as_fd().try_clone_to_owned().unwrap();
        assert!(rustix::fs::ftruncate(&client, 4096).is_err());
        assert!(rustix::fs::ftruncate(&client, 1 << 20).is_err());
    }

    #[test]
    fn shrunk_memory_is_an_error_and_does_not_grow_back() {
        let memory = Memory::new("test", 8192, false).unwrap();
        memory.resize(4096).unwrap();
        assert!(memory.write(4090, &[1; 10]).is_err());
        assert!(memory.read(4096, &mut [0; 1]).is_err());
        assert_eq!(rustix::fs::fstat(&memory).unwrap().st_size, 4096);
        memory.resize(8192).unwrap();
        memory.write(8191, &[1]).unwrap();
    }

    #[test]
    fn a_client_that_truncates_is_an_error() {
        let memory = Memory::new("test", 8192, false).unwrap();
        rustix::fs::ftruncate(&memory, 0).unwrap();
        assert!(memory.read(0, &mut [0; 16]).is_err());
    }
}
