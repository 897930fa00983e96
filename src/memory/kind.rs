//! The kinds of files, found out without asking whoever serves the file.
//!
//! A file system in a process (FUSE) answers `fstat`, `fstatfs`, `lseek` and `pread` when it likes,
//! so none of them is called before the kind is known.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// The kinds of files that differ in how they can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A memfd that is sealed against shrinking.
    SealedMemory,
    /// A memfd without that seal, or a file of a tmpfs: it may shrink at any time.
    Memory,
    /// Huge pages. They are unmapped whole, and a page that was punched out may not come back, so
    /// they are never mapped.
    HugePages,
    /// A dma-buf.
    DmaBuf,
    /// Anything else, in words: not touched.
    Other(&'static str),
}

/// Why a descriptor, or a region that should have one, is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not lead to memory.
    Kind(&'static str),
    /// This many refused ones wait to be closed.
    Unclosed(usize),
    /// A PCI region of a device in another process has none: each piece read of it may take
    /// seconds.
    Missing,
}

const S_IFMT: u32 = libc::S_IFMT;
const DMA_BUF_MAGIC: i64 = 0x444d_4142;
const TMPFS_MAGIC: i64 = 0x0102_1994;
const HUGETLBFS_MAGIC: i64 = 0x9584_58f6;

impl Kind {
    /// Finds out what a descriptor leads to. Never blocks.
    pub fn of(fd: BorrowedFd<'_>) -> io::Result<Self> {
        // Only memory has seals, and the kernel answers for them. SAFETY: the command takes no
        // argument, and touches no memory.
        let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
        if seals >= 0 {
            return Ok(match file_system(fd)? {
                TMPFS_MAGIC if seals & libc::F_SEAL_SHRINK != 0 => Self::SealedMemory,
                TMPFS_MAGIC => Self::Memory,
                HUGETLBFS_MAGIC => Self::HugePages,
                _ => Self::Other("memory of an unknown kind"),
            });
        }
        Ok(match file_type(fd)? {
            // Files without a type are served by the kernel, so it also answers what follows.
            0 if file_system(fd)? == DMA_BUF_MAGIC => Self::DmaBuf,
            0 => Self::Other("an anonymous file that is no dma-buf"),
            libc::S_IFREG => Self::Other("a regular file"),
            libc::S_IFDIR => Self::Other("a directory"),
            libc::S_IFSOCK => Self::Other("a socket"),
            libc::S_IFIFO => Self::Other("a pipe"),
            libc::S_IFCHR => Self::Other("a character device"),
            libc::S_IFBLK => Self::Other("a block device"),
            _ => Self::Other("something unknown"),
        })
    }

    /// Like [`Kind::of`], but fails if it is not memory that can be read.
    pub fn of_memory(fd: BorrowedFd<'_>) -> io::Result<Self> {
        match Self::of(fd)? {
            Self::Other(kind) => Err(Refused::Kind(kind).into()),
            kind => Ok(kind),
        }
    }

    /// Whether its mapped pages stay, whatever its owner does.
    pub fn can_be_mapped(self) -> bool {
        matches!(self, Self::SealedMemory | Self::DmaBuf)
    }
}

impl Refused {
    /// Whether this error is a refusal.
    pub fn is(error: &io::Error) -> bool {
        error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<Self>)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind(kind) => write!(f, "the descriptor leads to {kind}, not to memory"),
            Self::Unclosed(count) => {
                write!(f, "not called: {count} descriptors that were refused cannot be closed")
            }
            Self::Missing => {
                f.write_str("there is no memory, and a region of PCI's is not read piece by piece")
            }
        }
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(io::ErrorKind::InvalidInput, refused)
    }
}

/// The file's type as the kernel remembers it; no server is asked (Linux 5.3).
fn file_type(fd: BorrowedFd<'_>) -> io::Result<u32> {
    let mut status = std::mem::MaybeUninit::<libc::statx>::uninit();
    // SAFETY: the path is a C string, and `status` is large enough for what the call writes.
    let result = unsafe {
        libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC,
            libc::STATX_TYPE,
            status.as_mut_ptr(),
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it wrote the whole struct.
    let status = unsafe { status.assume_init() };
    Ok(u32::from(status.stx_mode) & S_IFMT)
}

fn file_system(fd: BorrowedFd<'_>) -> io::Result<i64> {
    let mut fs = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: the descriptor is open, and `fs` is large enough for what the call writes.
    if unsafe { libc::fstatfs(fd.as_raw_fd(), fs.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it wrote the whole struct.
    let fs = unsafe { fs.assume_init() };
    #[allow(clippy::useless_conversion, reason = "it is narrower on other machines")]
    Ok(i64::from(fs.f_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::tests::{huge_memfd, memfd};
    use std::fs::File;
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    #[test]
    fn memory_is_told_apart_by_whether_it_can_go() {
        assert_eq!(Kind::of(memfd(&[1], true).as_fd()).unwrap(), Kind::SealedMemory);
        assert_eq!(Kind::of(memfd(&[1], false).as_fd()).unwrap(), Kind::Memory);
        if let Some(huge) = huge_memfd() {
            assert_eq!(Kind::of(huge.as_fd()).unwrap(), Kind::HugePages);
        }
    }

    #[test]
    fn all_else_is_refused_by_its_name() {
        let open = |path: &str| File::open(path).unwrap();
        let (pipe, _end) = rustix::pipe::pipe().unwrap();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        // SAFETY: the call has no preconditions.
        let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
        // SAFETY: the descriptor was just made, and nobody else has it.
        let event: File = unsafe { std::os::fd::FromRawFd::from_raw_fd(event) };
        for (fd, kind) in [
            (open("/").as_fd(), "a directory"),
            (open("/dev/null").as_fd(), "a character device"),
            (open("/proc/self/maps").as_fd(), "a regular file"),
            (pipe.as_fd(), "a pipe"),
            (socket.as_fd(), "a socket"),
            (event.as_fd(), "an anonymous file that is no dma-buf"),
        ] {
            let error = Kind::of_memory(fd).unwrap_err();
            assert!(Refused::is(&error));
            let text = format!("the descriptor leads to {kind}, not to memory");
            assert_eq!(error.to_string(), text);
        }
        assert!(!Refused::is(&io::ErrorKind::InvalidInput.into()));
    }
}
