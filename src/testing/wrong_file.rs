//! Descriptors of things that are not what a device should give.

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::sockopt::set_socket_linger;
use rustix::pipe::pipe;

/// What a descriptor leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum WrongFile {
    Socket,
    Pipe,
    Directory,
    Device,
    Unsealed,
    /// Sealed. Where the machine has no huge pages at all, a file that is not sealed.
    HugePages,
}

impl WrongFile {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Socket, Self::Pipe, Self::Directory, Self::Device, Self::Unsealed, Self::HugePages];

    /// Opens one.
    ///
    /// # Panics
    ///
    /// If the machine cannot provide it.
    pub fn open(self) -> File {
        let huge = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB;
        match self {
            // It maps at any length, and raises a signal at each access.
            Self::Socket => OwnedFd::from(TcpListener::bind("127.0.0.1:0").expect("a port")).into(),
            Self::Pipe => pipe().expect("a pipe").0.into(),
            Self::Directory => File::open("/").expect("a root"),
            Self::Device => File::open("/dev/null").expect("a device"),
            Self::Unsealed => {
                let file = File::from(memfd_create("odd", MemfdFlags::CLOEXEC).expect("a memfd"));
                file.set_len(2 << 20).expect("a size");
                file
            }
            Self::HugePages => match memfd_create("odd", huge) {
                Ok(file) => {
                    let file = File::from(file);
                    file.set_len(2 << 20).expect("a size");
                    fcntl_add_seals(&file, SealFlags::SHRINK).expect("a seal");
                    file
                }
                Err(_) => Self::Unsealed.open(),
            },
        }
    }

    /// A socket, and its other end: closing the socket blocks until the other end is closed.
    ///
    /// # Panics
    ///
    /// If the machine cannot provide it.
    pub fn lingering() -> (File, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut ours =
            TcpStream::connect(listener.local_addr().expect("an address")).expect("a connection");
        let theirs = listener.accept().expect("a connection").0;
        ours.set_nonblocking(true).expect("a socket");
        while ours.write(&[0; 4096]).is_ok() {}
        ours.set_nonblocking(false).expect("a socket");
        set_socket_linger(&ours, Some(Duration::from_secs(3600))).expect("a socket");
        (OwnedFd::from(ours).into(), theirs)
    }
}
