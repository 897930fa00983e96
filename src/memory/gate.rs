//! What a device gives, before anybody touches it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::reaper::Reaper;
use super::{DmaBuf, Kind, Memory, MemoryFile, Refused};

/// While so many descriptors that were refused are not closed, nothing is taken from the device: the process has not many.
pub const UNCLOSED_MOST: usize = 16;

/// Lets pass what one device gives, if it is memory. What is refused is closed without anybody waiting for that.
#[derive(Debug, Default)]
pub struct Gate(Reaper);

impl Gate {
    /// Fails if nothing is to be taken from the device now.
    pub fn check(&self) -> io::Result<()> {
        match self.0.unclosed() {
            unclosed if unclosed >= UNCLOSED_MOST => Err(Refused::Unclosed(unclosed).into()),
            _ => Ok(()),
        }
    }

    /// A descriptor that was given as a dma-buf.
    pub fn dma_buf(&self, fd: OwnedFd) -> io::Result<DmaBuf> {
        DmaBuf::of_file(self.pass(fd)?)
    }

    /// `len` bytes of a file that was given as memory, from `offset` on.
    pub fn memory(&self, fd: OwnedFd, offset: u64, len: u64) -> io::Result<Memory> {
        Memory::of_file(self.pass(fd)?, offset, len)
    }

    fn pass(&self, fd: OwnedFd) -> io::Result<MemoryFile> {
        match Kind::of_memory(fd.as_fd()) {
            Ok(kind) => MemoryFile::new(fd.into(), kind),
            Err(error) => {
                self.0.close(fd);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::reaper::tests::wait_for;
    use crate::memory::tests::memfd;
    use crate::testing::Odd;

    #[test]
    fn what_cannot_be_closed_is_not_taken_for_ever() {
        let gate = Gate::default();
        assert!(gate.dma_buf(memfd(&[1], true).into()).is_ok());
        let mut other_ends = Vec::new();
        for _ in 0..UNCLOSED_MOST {
            gate.check().unwrap();
            let (socket, other_end) = Odd::lingering();
            other_ends.push(other_end);
            let refused = gate.memory(socket.into(), 0, 1).unwrap_err();
            assert!(refused.to_string().contains("a socket"));
        }
        let error = gate.check().unwrap_err();
        assert!(Refused::is(&error));
        assert!(error.to_string().starts_with("not called: 16 descriptors"));
        drop(other_ends);
        wait_for("all are closed", || gate.0.unclosed() == 0);
        gate.check().unwrap();
    }
}
