//! Memory of a device that we read: dma-bufs and regions.
//!
//! A device in another process hands out files that it can still change. What must never happen is that
//! it makes us touch pages that are gone: memory is mapped only where it cannot shrink, and is read with
//! `pread` otherwise. Pixels may change while they are read; whoever reads gets a mixture then, and looks again.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::ptr::NonNull;

use crate::damage::Source;

const S_IFMT: u32 = libc::S_IFMT;
const S_IFREG: u32 = libc::S_IFREG;

/// A dma-buf, or what a device hands out as one, held through its descriptor.
#[derive(Debug)]
pub struct DmaBuf {
    file: File,
    size: u64,
    identity: Option<Identity>,
    once: bool,
}

/// Tells whether two descriptors are of the same buffer: device and inode of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(u64, u64);

impl DmaBuf {
    /// Takes ownership of the descriptor.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let file = File::from(fd);
        let metadata = file.metadata()?;
        // A dma-buf's metadata has no size, but it can be sought.
        let size = io::Seek::seek(&mut &file, io::SeekFrom::End(0))?;
        let identity =
            has_inode_of_its_own(&file)?.then(|| Identity(metadata.dev(), metadata.ino()));
        let once = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))
            .is_ok_and(|info| is_given_once(&info));
        Ok(Self { file, size, identity, once })
    }

    /// As [`DmaBuf::new`], of an exporter that gives each dma-buf once.
    #[cfg(test)]
    pub(crate) fn given_once(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { once: true, ..Self::new(fd)? })
    }

    /// Whether its exporter damages the kernel's memory when it is asked for this dma-buf a second time, be it after it
    /// was closed: the kernel's mbochs gives back pages that it did not take.
    pub fn is_given_once(&self) -> bool {
        self.once
    }

    /// Bytes in the buffer, as the kernel says.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// `None` where files of one kind share an inode (dma-bufs before Linux 5.3).
    pub fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// Makes the first `len` bytes readable.
    pub fn memory(&self, len: u64) -> io::Result<Memory> {
        Memory::new(self.file.as_fd(), 0, len)
    }
}

impl Source for Memory {
    fn read(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        Memory::read(self, offset, to)
    }

    fn is_mapped(&self) -> bool {
        Memory::is_mapped(self)
    }

    /// What does not reach so far equals nothing.
    fn equals(&self, offset: u64, bytes: &[u8]) -> bool {
        let inside = offset.checked_add(bytes.len() as u64).is_some_and(|end| end <= self.len);
        match (&self.access, usize::try_from(offset)) {
            (Access::Mapped { mapping, .. }, Ok(offset)) if inside => mapping.equals(offset, bytes),
            _ => false,
        }
    }
}

impl AsFd for DmaBuf {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn has_inode_of_its_own(file: &File) -> io::Result<bool> {
    const ANON_INODE_FS_MAGIC: i64 = 0x0904_1934;
    let mut fs = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open, and `fs` is large enough for what the call writes.
    if unsafe { libc::fstatfs(file.as_raw_fd(), fs.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it wrote the whole struct.
    let fs = unsafe { fs.assume_init() };
    Ok(fs.f_type != ANON_INODE_FS_MAGIC)
}

/// The kernel says in a descriptor's `fdinfo` which driver exported a dma-buf.
fn is_given_once(info: &str) -> bool {
    // And what is made of mbochs, for instance a copy whose dma-bufs can be mapped.
    let drivers = info.lines().filter_map(|line| line.strip_prefix("exp_name:"));
    drivers.map(str::trim).any(|driver| driver == "mbochs" || driver.starts_with("mbochs_"))
}

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
        dma_buf: Option<OwnedFd>,
    },
    /// The file can shrink at any moment.
    Read {
        file: File,
        offset: u64,
    },
}

impl Memory {
    /// Makes `len` bytes of the file behind `fd` readable, from `offset` on. The descriptor stays the caller's.
    pub fn new(fd: BorrowedFd<'_>, offset: u64, len: u64) -> io::Result<Self> {
        let file = File::from(fd.try_clone_to_owned()?);
        let metadata = file.metadata()?;
        let regular = metadata.mode() & S_IFMT == S_IFREG;
        if regular && offset.checked_add(len).is_none_or(|end| end > metadata.len()) {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file has {} bytes, not {len} from {offset}", metadata.len()),
            ));
        }
        let access = if regular && !sealed_against_shrinking(&file) {
            Access::Read { file, offset }
        } else {
            // Devices and dma-bufs do not shrink. Of a dma-buf only whole pages can be mapped.
            let mapping = match Mapping::new(&file, offset, len) {
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) && !regular => {
                    Mapping::new(&file, offset, len - len % page_size())
                }
                result => result,
            }?;
            let dma_buf = (!regular).then(|| OwnedFd::from(file));
            Access::Mapped { mapping, dma_buf }
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
            Access::Mapped { mapping, .. } => self.len.saturating_sub(mapping.len as u64),
            Access::Read { .. } => 0,
        }
    }

    /// Where the first byte is mapped, if `len` bytes from there on can be read: what lies behind the memory, on its last page, too.
    /// They stay for as long as `self` lives, and change at any moment, so that no reference to them may be made.
    pub fn in_place(&self, len: u64) -> Option<NonNull<u8>> {
        let Access::Mapped { mapping, .. } = &self.access else { return None };
        let mapped = (mapping.len as u64).checked_next_multiple_of(page_size())?;
        (len <= mapped).then_some(mapping.start)
    }

    /// Copies bytes from `offset` on into `to`.
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

    /// Asks the exporter of a dma-buf for a coherent view until the guard is dropped. Costs nothing for other memory.
    pub fn begin_reading(&self) -> Reading<'_> {
        let dma_buf = match &self.access {
            Access::Mapped { dma_buf: Some(fd), .. } => Some(fd.as_fd()),
            _ => None,
        };
        let reading = Reading(dma_buf);
        reading.sync(DMA_BUF_SYNC_START);
        reading
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

impl Reading<'_> {
    /// Files that are no dma-bufs refuse, which is as good: they need no sync.
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

fn sealed_against_shrinking(file: &File) -> bool {
    // SAFETY: the descriptor is open, and the command takes no argument.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    seals >= 0 && seals & libc::F_SEAL_SHRINK != 0
}

fn page_size() -> u64 {
    // SAFETY: the call only looks up a constant.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u64::try_from(size).unwrap_or(4096)
}

/// A shared read-only mapping.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: a mapping is the process's, not a thread's: any thread may read it, and end it, which happens once. The other side writes to it
// in any case, and all reads bear that.
unsafe impl Send for Mapping {}
// SAFETY: as above; nothing of a mapping is written by us.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &File, offset: u64, len: u64) -> io::Result<Self> {
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

    /// Compares with what is mapped; what lies behind is zero.
    fn equals(&self, offset: usize, bytes: &[u8]) -> bool {
        let reachable = self.len.saturating_sub(offset).min(bytes.len());
        let (mapped, behind) = bytes.split_at(reachable);
        // SAFETY: `offset + reachable` is within the mapping, which lives as long as `self` and whose pages stay (see the module).
        // The other side may write meanwhile: this is C's function because it only looks at bytes, and no reference to them is made.
        let order = unsafe {
            libc::memcmp(
                self.start.as_ptr().add(offset.min(self.len)).cast(),
                mapped.as_ptr().cast(),
                reachable,
            )
        };
        order == 0 && behind.iter().all(|&byte| byte == 0)
    }

    /// Copies what is mapped; what lies behind is zero.
    fn read(&self, offset: usize, to: &mut [u8]) {
        let reachable = self.len.saturating_sub(offset).min(to.len());
        let (mapped, behind) = to.split_at_mut(reachable);
        // SAFETY: `offset + reachable` is within the mapping, which lives as long as `self` and whose pages stay
        // (see the module); `mapped` is ours alone. The other side may write meanwhile: the
        // bytes are then a mixture, and every mixture of bytes is valid as `u8`.
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Write;
    use std::os::fd::FromRawFd;

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
            let _reading = memory.begin_reading();
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
    fn the_driver_that_gives_dma_bufs_once_is_known_by_its_name() {
        let info =
            |driver| format!("pos:\t0\nflags:\t02\nsize:\t4096\ncount:\t1\nexp_name:\t{driver}\n");
        assert!(is_given_once(&info("mbochs")) && is_given_once(&info("mbochs_rw")));
        assert!(!is_given_once(&info("i915")) && !is_given_once(&info("udmabuf")));
        assert!(!is_given_once("name:\tmbochs\n"), "anybody can give a dma-buf a name");
        assert!(!DmaBuf::new(memfd(&[7; 4096], true).into()).unwrap().is_given_once());
    }

    #[test]
    fn descriptors_of_one_file_have_one_identity() {
        let file = memfd(&[7; 4096], true);
        let one = DmaBuf::new(file.try_clone().unwrap().into()).unwrap();
        let two = DmaBuf::new(file.into()).unwrap();
        let other = DmaBuf::new(memfd(&[7; 4096], true).into()).unwrap();
        assert_eq!(one.size(), 4096);
        assert!(one.identity().is_some());
        assert_eq!(one.identity(), two.identity());
        assert_ne!(one.identity(), other.identity());
    }
}
