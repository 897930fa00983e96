//! Memory of our own as a file.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const NAME: &CStr = c"vfio-display";

/// Creates a zeroed memfd that cannot shrink, as udmabuf wants it.
pub fn memfd(size: u64) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string; the call has no other preconditions.
    let fd =
        unsafe { libc::memfd_create(NAME.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(size)?;
    // SAFETY: the descriptor is open, and the argument is an integer.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, libc::F_SEAL_SHRINK) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::memory::Memory;

    #[test]
    fn it_is_zeros_that_can_be_mapped() {
        let file = memfd(4096).unwrap();
        let memory = Memory::new(file.as_fd(), 0, 4096).unwrap();
        assert!(memory.is_mapped());
        let mut bytes = [1; 4096];
        memory.read(0, &mut bytes).unwrap();
        assert_eq!(bytes, [0; 4096]);
    }
}
