//! Device memory that is safe to read: dma-bufs and regions.
//!
//! A device in another process can send any descriptor, and can still change the file. It must
//! never make us block, or touch pages that are gone: the kind of file is found out before anything
//! else ([`Kind`]), everything but memory is refused ([`Gate`]), and memory is mapped only if it
//! cannot shrink, and read with `pread` otherwise. Pixels may change while they are read; the
//! reader then gets a mixture, and polls again.

mod dma_buf;
mod file;
mod gate;
mod kind;
mod mapping;
mod memfd;
mod reaper;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

use crate::damage::Source;

pub use dma_buf::{DmaBuf, Identity, Reading};
use file::MemoryFile;
pub use gate::{Gate, UNCLOSED_MOST};
pub use kind::{Kind, Refused};
use mapping::Mapping;
pub use memfd::memfd;

/// Readable bytes of a file, from an offset on.
#[derive(Debug)]
pub struct Memory {
    len: u64,
    access: Access,
}

#[derive(Debug)]
enum Access {
    Mapped {
        mapping: Mapping,
        /// Kept beside the mapping where needed; dropped after it.
        file: Option<MemoryFile>,
    },
    /// The file can shrink at any time, or must not be mapped.
    Read { file: MemoryFile, offset: u64 },
}

impl Memory {
    /// Makes `len` bytes of the file behind `fd` readable, from `offset` on. The descriptor stays
    /// the caller's.
    ///
    /// One that is refused is closed; if that may take long, it goes through a [`Gate`].
    pub fn new(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<Self> {
        let kind = Kind::of_memory(fd)?;
        Self::of_file(MemoryFile::new(fd.try_clone_to_owned()?.into(), kind)?, offset, len)
    }

    /// Like [`Memory::new`], for the vfio device's own descriptor, which the host opened.
    ///
    /// Only regions that the guest cannot disable stay readable, so not those of PCI.
    pub fn of_device(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<Self> {
        let mapping = map_pages(fd, offset, len)?;
        Ok(Self { len, access: Access::Mapped { mapping, file: None } })
    }

    fn of_file(file: MemoryFile, offset: u64, len: u64) -> io::Result<Self> {
        let size = file.size();
        if offset.checked_add(len).is_none_or(|end| end > size) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file has {size} bytes, not {len} from {offset}"),
            ));
        }
        let access = match file.kind() {
            Kind::SealedMemory => {
                let mapping = Mapping::new(file.as_fd(), offset, len)?;
                Access::Mapped { mapping, file: file.is_large().then_some(file) }
            }
            Kind::DmaBuf => {
                let mapping = map_pages(file.as_fd(), offset, len)?;
                Access::Mapped { mapping, file: Some(file) }
            }
            _ => Access::Read { file, offset },
        };
        Ok(Self { len, access })
    }

    /// Bytes that can be read.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is nothing to read.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the bytes are mapped: their file cannot shrink.
    pub fn is_mapped(&self) -> bool {
        matches!(self.access, Access::Mapped { .. })
    }

    /// Bytes at the end that lie on a page that cannot be mapped, and read as zero.
    pub fn unreachable_bytes(&self) -> u64 {
        match &self.access {
            Access::Mapped { mapping, .. } => self.len.saturating_sub(mapping.len()),
            Access::Read { .. } => 0,
        }
    }

    /// Returns the address of the first byte, if `len` bytes can be read there, including what lies
    /// beyond the memory on its last page. They stay as long as `self` lives, and may change at any
    /// time, so no reference to them may be made.
    pub fn in_place(&self, len: u64) -> Option<NonNull<u8>> {
        let Access::Mapped { mapping, .. } = &self.access else { return None };
        let mapped = mapping.len().checked_next_multiple_of(page_size())?;
        (len <= mapped).then_some(mapping.start())
    }

    /// Copies bytes at `offset` into `to`.
    ///
    /// Fails if they lie outside of the memory, or if the file has shrunk.
    pub fn read(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        if offset.checked_add(to.len() as u64).is_none_or(|end| end > self.len) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match &self.access {
            Access::Mapped { mapping, .. } => {
                mapping
                    .read(usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?, to);
                Ok(())
            }
            Access::Read { file, offset: base } => {
                file.read_exact_at(to, base + offset).map_err(|error| match error.kind() {
                    kind @ io::ErrorKind::UnexpectedEof => io::Error::new(
                        kind,
                        format!("the file has less than {} bytes now", self.len),
                    ),
                    _ => error,
                })
            }
        }
    }

    /// Asks the exporter of a dma-buf for a coherent view until the guard is dropped. Costs nothing
    /// for other memory.
    ///
    /// ETIMEDOUT: a job of a GPU still writes, and has for 100 ms.
    pub fn begin_reading(&self) -> io::Result<Reading<'_>> {
        Reading::begin(match &self.access {
            Access::Mapped { file: Some(file), .. } if file.kind() == Kind::DmaBuf => {
                Some(file.as_fd())
            }
            _ => None,
        })
    }
}

impl Source for Memory {
    fn read(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        Memory::read(self, offset, to)
    }

    fn is_mapped(&self) -> bool {
        Memory::is_mapped(self)
    }

    /// A range past the end compares unequal.
    fn equals(&self, offset: u64, bytes: &[u8]) -> bool {
        let inside = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.len);
        match (&self.access, usize::try_from(offset)) {
            (Access::Mapped { mapping, .. }, Ok(offset)) if inside => mapping.equals(offset, bytes),
            _ => false,
        }
    }
}

/// Maps what a driver maps, which may be whole pages only.
fn map_pages(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<Mapping> {
    match Mapping::new(fd, offset, len) {
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
            Mapping::new(fd, offset, len - len % page_size())
        }
        result => result,
    }
}

fn page_size() -> u64 {
    // SAFETY: the call only looks up a constant.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::{AsRawFd, FromRawFd};

    /// A memfd with these bytes, which can be sealed.
    pub(crate) fn memfd(bytes: &[u8], seal: bool) -> File {
        // SAFETY: the name is a C string; the call has no other preconditions.
        let fd = unsafe {
            libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING)
        };
        assert!(fd >= 0, "memfd_create: {}", io::Error::last_os_error());
        // SAFETY: the descriptor was just made, and nobody else has it.
        let mut file = unsafe { File::from_raw_fd(fd) };
        file.write_all(bytes).unwrap();
        if seal {
            // SAFETY: the descriptor is open, and the argument is an integer.
            let sealed = unsafe { libc::fcntl(fd, libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) };
            assert_eq!(sealed, 0);
        }
        file
    }

    /// Two megabytes in huge pages, sealed; `None` where the machine has no such page to spare.
    pub(crate) fn huge_memfd() -> Option<File> {
        let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING | libc::MFD_HUGETLB;
        // SAFETY: the name is a C string; the call has no other preconditions.
        let fd = unsafe { libc::memfd_create(c"huge".as_ptr(), flags) };
        if fd < 0 {
            return None;
        }
        // SAFETY: the descriptor was just made, and nobody else has it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(2 << 20).ok()?;
        // SAFETY: the descriptor is open, and the argument is an integer.
        let sealed =
            unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) };
        assert_eq!(sealed, 0);
        Some(file)
    }

    fn read(memory: &Memory, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0xee; len];
        memory.read(offset, &mut bytes).map(|()| bytes)
    }

    #[test]
    fn both_ways_of_reading_are_live_and_bounded() {
        for seal in [true, false] {
            let file = memfd(&[7; 8192], seal);
            let memory = Memory::new(file.as_fd(), 4096, 4096).unwrap();
            assert_eq!(matches!(memory.access, Access::Mapped { .. }), seal);
            let _reading = memory.begin_reading().unwrap();
            assert_eq!(read(&memory, 4090, 6).unwrap(), [7; 6]);
            assert!(read(&memory, 4090, 7).is_err());
            assert!(read(&memory, u64::MAX, 2).is_err());
            assert_eq!(memory.equals(4090, &[7; 6]), seal);
            assert!(!memory.equals(4089, &[7, 7, 7, 7, 7, 7, 8]));
            assert!(!memory.equals(4090, &[7; 7]) && !memory.equals(u64::MAX, &[7]));
            file.write_all_at(&[9; 2], 4096).unwrap();
            assert_eq!(read(&memory, 0, 3).unwrap(), [9, 9, 7]);
        }
    }

    #[test]
    fn what_is_mapped_is_there_to_the_end_of_its_page() {
        let page = page_size();
        let file = memfd(&vec![7; usize::try_from(2 * page).unwrap()], true);
        let memory = Memory::new(file.as_fd(), page, 100).unwrap();
        assert!(memory.in_place(100).is_some() && memory.in_place(page).is_some());
        assert!(memory.in_place(page + 1).is_none() && memory.in_place(u64::MAX).is_none());
        let start = memory.in_place(page).unwrap().as_ptr();
        // SAFETY: a whole page can be read there.
        assert_eq!(unsafe { start.add(usize::try_from(page).unwrap() - 1).read_volatile() }, 7);
        let file = memfd(&[7; 4096], false);
        assert!(Memory::new(file.as_fd(), 0, 100).unwrap().in_place(1).is_none());
    }

    #[test]
    fn a_file_that_shrinks_is_an_error_and_no_signal() {
        let file = memfd(&[7; 8192], false);
        let memory = Memory::new(file.as_fd(), 0, 8192).unwrap();
        file.set_len(100).unwrap();
        assert!(read(&memory, 4096, 16).is_err());
        assert_eq!(read(&memory, 0, 100).unwrap(), [7; 100]);
    }

    #[test]
    fn a_file_that_is_too_small_is_refused() {
        for seal in [true, false] {
            let file = memfd(&[7; 4096], seal);
            assert!(Memory::new(file.as_fd(), 0, 4097).is_err());
            assert!(Memory::new(file.as_fd(), u64::MAX, 2).is_err());
        }
    }

    #[test]
    fn descriptors_of_one_file_have_one_identity() {
        let file = memfd(&[7; 4096], true);
        let one = DmaBuf::new(file.try_clone().unwrap().into()).unwrap();
        let two = DmaBuf::new(file.into()).unwrap();
        let other = DmaBuf::new(memfd(&[7; 4096], true).into()).unwrap();
        assert_eq!(one.size(), 4096);
        assert_eq!(one.identity(), two.identity());
        assert_ne!(one.identity(), other.identity());
    }

    /// Reading the size before the seals would believe in pages that are gone.
    #[test]
    fn a_file_that_shrinks_and_is_sealed_meanwhile_is_as_large_as_believed() {
        for _ in 0..3000 {
            let file = memfd(&[7; 16384], false);
            let theirs = file.try_clone().unwrap();
            let thief = std::thread::spawn(move || {
                theirs.set_len(0).unwrap();
                // SAFETY: the descriptor is open, and the argument is an integer.
                unsafe { libc::fcntl(theirs.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) };
            });
            let memory = Memory::new(file.as_fd(), 0, 16384);
            thief.join().unwrap();
            if let Ok(memory) = memory {
                assert!(!memory.is_mapped() || file.metadata().unwrap().len() == 16384);
            }
        }
    }

    #[test]
    fn huge_pages_are_read_and_never_mapped() {
        let Some(file) = huge_memfd() else { return };
        let buffer = DmaBuf::new(file.try_clone().unwrap().into()).unwrap();
        assert!(!buffer.can_be_mapped());
        let memory = buffer.memory(400 << 10).unwrap();
        assert!(!memory.is_mapped());
        // Nothing is reserved for it, and a page that is not there is a hole.
        assert_eq!(read(&memory, 4096, 16).unwrap(), [0; 16]);
    }

    #[test]
    fn what_is_no_memory_is_neither_mapped_nor_read() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let directory = File::open("/").unwrap();
        for fd in [socket.as_fd(), directory.as_fd()] {
            assert!(Refused::is(&Memory::new(fd, 0, 4096).unwrap_err()));
            assert!(Refused::is(&DmaBuf::new(fd.try_clone_to_owned().unwrap()).unwrap_err()));
        }
    }
}
