//! Descriptors that are not memory, or not for long: what a fault hands out in place of the right
//! one.

use std::fs::File;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::sockopt::set_socket_linger;

/// Of files in memory: larger than any picture that a test shows.
const SIZE: u64 = 64 << 20;

/// What is given in place of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WrongFd {
    /// Can be mapped at any length; each access is SIGBUS.
    Tcp,
    /// Whose closing waits until the fault is cleared.
    Linger,
    Pipe,
    /// Not sealed.
    Memfd,
    /// Sealed, but of one page.
    Short,
    /// Memory in huge pages, sealed.
    Hugetlb,
    /// Truncated, and then sealed against shrinking, while the client checks it.
    ShrinkThenSeal,
    /// Whatever this path names.
    Path(PathBuf),
}

impl WrongFd {
    pub const NAMES: &'static str =
        "tcp, linger, pipe, memfd, short, hugetlb, shrink-then-seal, or an absolute path";

    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "tcp" => Self::Tcp,
            "linger" => Self::Linger,
            "pipe" => Self::Pipe,
            "memfd" => Self::Memfd,
            "short" => Self::Short,
            "hugetlb" => Self::Hugetlb,
            "shrink-then-seal" => Self::ShrinkThenSeal,
            path if path.starts_with('/') => Self::Path(path.into()),
            _ => return Err(format!("fd={text}: {}", Self::NAMES)),
        })
    }

    /// A descriptor to give, and what must stay open for as long as it shall do what it does.
    pub fn open(&self) -> io::Result<(OwnedFd, Option<OwnedFd>)> {
        static TURN: AtomicU64 = AtomicU64::new(0);

        let memfd = |flags| -> io::Result<File> {
            let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | flags;
            let file = File::from(memfd_create("vgpu-given", flags)?);
            file.set_len(SIZE)?;
            Ok(file)
        };
        Ok(match self {
            Self::Tcp => (TcpListener::bind("127.0.0.1:0")?.into(), None),
            Self::Linger => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let mut ours = TcpStream::connect(listener.local_addr()?)?;
                let theirs = listener.accept()?.0;
                ours.set_nonblocking(true)?;
                while ours.write(&[0; 4096]).is_ok() {}
                ours.set_nonblocking(false)?;
                set_socket_linger(&ours, Some(Duration::from_secs(3600)))?;
                (ours.into(), Some(theirs.into()))
            }
            Self::Pipe => (rustix::pipe::pipe()?.0, None),
            Self::Memfd => (memfd(MemfdFlags::empty())?.into(), None),
            Self::Short => {
                let file = memfd(MemfdFlags::empty())?;
                file.set_len(4096)?;
                fcntl_add_seals(&file, SealFlags::SHRINK)?;
                (file.into(), None)
            }
            Self::Hugetlb => {
                let file = memfd(MemfdFlags::HUGETLB)?;
                fcntl_add_seals(&file, SealFlags::SHRINK)?;
                (file.into(), None)
            }
            Self::ShrinkThenSeal => {
                let file = memfd(MemfdFlags::empty())?;
                let ours = file.try_clone()?;
                // When the client checks is not known, so the delay varies.
                let delay = 40 * (TURN.fetch_add(1, Ordering::Relaxed) % 16);
                thread::spawn(move || {
                    thread::sleep(Duration::from_micros(delay));
                    let _ = ours.set_len(0).map(|()| fcntl_add_seals(&ours, SealFlags::SHRINK));
                });
                (file.into(), None)
            }
            Self::Path(path) => (File::open(path)?.into(), None),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_given_is_named() {
        assert_eq!(WrongFd::parse("tcp"), Ok(WrongFd::Tcp));
        assert_eq!(WrongFd::parse("/dev/null"), Ok(WrongFd::Path("/dev/null".into())));
        assert!(WrongFd::parse("udp").unwrap_err().contains("shrink-then-seal"));
    }

    #[test]
    fn all_but_huge_pages_can_be_had_anywhere() {
        for given in [
            WrongFd::Tcp,
            WrongFd::Linger,
            WrongFd::Pipe,
            WrongFd::Memfd,
            WrongFd::Short,
            WrongFd::ShrinkThenSeal,
            WrongFd::Path("/".into()),
        ] {
            let (fd, needed) = given.open().unwrap();
            // The other end first, or closing waits.
            drop(needed);
            drop(fd);
        }
    }
}
