//! The few system calls that have no safe wrapper: udmabuf, locks that belong to an open file,
//! adopting a descriptor, and groups by name.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};

/// `struct udmabuf_create` of `linux/udmabuf.h`.
#[repr(C)]
struct UdmabufCreate {
    memfd: u32,
    flags: u32,
    offset: u64,
    size: u64,
}

const UDMABUF_FLAGS_CLOEXEC: u32 = 1;

// SAFETY: the opcode is UDMABUF_CREATE, whose argument is a pointer to `UdmabufCreate`, which lives
// in `self` for the call, and whose result is a new file descriptor.
unsafe impl Ioctl for UdmabufCreate {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        opcode::write::<Self>(b'u', 0x42)
    }

    fn as_ptr(&mut self) -> *mut std::ffi::c_void {
        std::ptr::from_mut(self).cast()
    }

    unsafe fn output_from_ptr(
        result: IoctlOutput,
        _: *mut std::ffi::c_void,
    ) -> rustix::io::Result<OwnedFd> {
        // SAFETY: the ioctl succeeded, so its result is a descriptor that nobody else owns yet.
        Ok(unsafe { OwnedFd::from_raw_fd(result) })
    }
}

/// Makes a dma-buf of `size` bytes at `offset` of a memfd (both in whole pages; the memfd sealed
/// against shrinking).
pub fn udmabuf_create(
    device: BorrowedFd<'_>,
    memfd: BorrowedFd<'_>,
    offset: u64,
    size: u64,
) -> rustix::io::Result<OwnedFd> {
    let memfd = u32::try_from(memfd.as_raw_fd()).map_err(|_| rustix::io::Errno::BADF)?;
    let create = UdmabufCreate { memfd, flags: UDMABUF_FLAGS_CLOEXEC, offset, size };
    // SAFETY: `device` is /dev/udmabuf, which knows this request; see the implementation of
    // `Ioctl`.
    unsafe { rustix::ioctl::ioctl(device, create) }
}

/// Opens the file behind `fd` once more: a new open file with its own access mode and its own
/// locks.
pub fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
}

fn flock(kind: libc::c_int, byte: u64) -> libc::flock {
    // SAFETY: `struct flock` is plain data for which zeros are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    #[expect(clippy::cast_possible_truncation, reason = "these constants are 0 to 2")]
    {
        lock.l_type = kind as libc::c_short;
        lock.l_whence = libc::SEEK_SET as libc::c_short;
    }
    lock.l_start = libc::off_t::try_from(byte).unwrap_or(libc::off_t::MAX);
    lock.l_len = 1;
    lock
}

/// Marks `byte` of the file as used by this open file. The mark lasts until the last descriptor and
/// mapping of the open file is gone, in whatever process they are.
///
/// `writes`: it is open for writing only. Then nobody else may mark the byte.
pub fn mark_use(fd: BorrowedFd<'_>, byte: u64, writes: bool) -> io::Result<()> {
    let lock = flock(if writes { libc::F_WRLCK } else { libc::F_RDLCK }, byte);
    // SAFETY: F_OFD_SETLK reads a `struct flock` that lives for the call.
    let rc = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) };
    if rc == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether another open file than `fd`'s has marked `byte` with [`mark_use`].
pub fn in_use(fd: BorrowedFd<'_>, byte: u64) -> io::Result<bool> {
    let mut lock = flock(libc::F_WRLCK, byte);
    // SAFETY: F_OFD_GETLK reads and writes a `struct flock` that lives for the call.
    let rc = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    if rc == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(libc::c_int::from(lock.l_type) != libc::F_UNLCK)
}

/// How many references a dma-buf has, ours included.
pub fn dmabuf_references(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    info.lines()
        .find_map(|line| line.strip_prefix("count:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::other("the kernel tells no reference count for this descriptor"))
}

/// Takes over a descriptor whose number was given on the command line.
pub fn adopt_fd(number: RawFd) -> io::Result<File> {
    if number <= 2 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "must be 3 or larger"));
    }
    // SAFETY: F_GETFD takes no argument and fails on a number that is not open.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is open, and it was handed to this process for this purpose: the caller runs
    // before anything else is opened, so no other object owns it.
    Ok(unsafe { File::from_raw_fd(number) })
}

/// The number of a group, wherever the system keeps its names. For a time without other threads.
pub fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    // SAFETY: the string ends with NUL and outlives the call; no other thread runs that could call
    // this family of functions.
    let group = unsafe { libc::getgrnam(name.as_ptr()) };
    // SAFETY: the pointer is NULL or to an entry that is valid until the next such call.
    unsafe { group.as_ref() }.map(|group| group.gr_gid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;
    use std::os::fd::AsFd;

    #[test]
    fn use_is_seen_until_the_last_descriptor_closes() {
        let memory = Memory::new("test", 4096, true).unwrap();
        let given = reopen(memory.as_fd(), OFlags::RDONLY).unwrap();
        mark_use(given.as_fd(), 7, false).unwrap();
        let dup = given.try_clone().unwrap();
        assert!(in_use(memory.as_fd(), 7).unwrap());
        assert!(!in_use(memory.as_fd(), 8).unwrap());
        drop(given);
        assert!(in_use(memory.as_fd(), 7).unwrap());
        drop(dup);
        assert!(!in_use(memory.as_fd(), 7).unwrap());
    }

    #[test]
    fn standard_and_closed_descriptors_are_not_adopted() {
        assert!(adopt_fd(1).is_err());
        assert!(adopt_fd(1_000_000).is_err());
    }
}
