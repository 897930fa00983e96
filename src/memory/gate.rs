//! Checks what a device sends, before anybody touches it.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::reaper::Reaper;
use super::{DmaBuf, Kind, Memory, MemoryFile, Refused};

/// Maximum number of refused descriptors that are not closed yet. Beyond that nothing is taken from
/// the device: descriptors are scarce.
pub const UNCLOSED_MOST: usize = 16;

/// Accepts what one device sends if it is memory. The rest is closed without waiting for that.
#[derive(Debug, Default)]
pub struct Gate(Reaper);

impl Gate {
    /// Fails if nothing may be taken from the device now.
    pub fn check(&self) -> io::Result<()> {
        match self.0.unclosed() {
            unclosed if unclosed >= UNCLOSED_MOST => Err(Refused::Unclosed(unclosed).into()),
            _ => Ok(()),
        }
    }

    /// Accepts a descriptor that was sent as a dma-buf.
    pub fn dma_buf(&self, fd: OwnedFd) -> io::Result<DmaBuf> {
        DmaBuf::of_file(self.pass(fd)?)
    }

    /// Accepts `len` bytes of a file that was sent as memory, at `offset`.
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
    use crate::testing::WrongFile;

    #[test]
    fn what_cannot_be_closed_is_not_taken_for_ever() {
        let gate = Gate::default();
        assert!(gate.dma_buf(memfd(&[1], true).into()).is_ok());
        let mut other_ends = Vec::new();
        for _ in 0..UNCLOSED_MOST {
            gate.check().unwrap();
            let (socket, other_end) = WrongFile::lingering();
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
