//! A file of memory that a device sent.

use std::fs::File;
use std::io;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::LazyLock;

use super::Kind;
use super::reaper::Reaper;

/// Dropping the last reference to memory frees it, at some gigabytes a second. Up to this much is
/// freed in place.
const FREED_AT_ONCE: u64 = 64 << 20;

/// Frees larger ones.
static RECLAIM: LazyLock<Reaper> = LazyLock::new(Reaper::default);

/// A file of memory. If closing it may free much memory, a thread does.
#[derive(Debug)]
pub struct MemoryFile {
    file: ManuallyDrop<File>,
    kind: Kind,
    size: u64,
}

impl MemoryFile {
    /// Takes over a file of this kind, which is memory, so that the kernel alone answers for its
    /// size. The size of a sealed file is final.
    pub fn new(file: File, kind: Kind) -> io::Result<Self> {
        let size = match kind {
            // Its metadata has no size, but lseek() does.
            Kind::DmaBuf => io::Seek::seek(&mut &file, io::SeekFrom::End(0)),
            _ => file.metadata().map(|metadata| metadata.len()),
        }?;
        Ok(Self { file: ManuallyDrop::new(file), kind, size })
    }

    /// One more descriptor of it.
    pub fn try_clone(&self) -> io::Result<Self> {
        let Self { kind, size, .. } = *self;
        Ok(Self { file: ManuallyDrop::new(self.file.try_clone()?), kind, size })
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Bytes in it, when it was taken.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether closing it may take long.
    pub fn is_large(&self) -> bool {
        self.size > FREED_AT_ONCE
    }
}

impl Deref for MemoryFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.file
    }
}

impl Drop for MemoryFile {
    fn drop(&mut self) {
        // SAFETY: it is taken here only, and not used afterwards.
        let file = unsafe { ManuallyDrop::take(&mut self.file) };
        if self.is_large() {
            RECLAIM.close(file.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::memory::reaper::tests::wait_for;
    use crate::memory::{DmaBuf, Memory};
    use crate::testing::{Memfds, WrongFile};

    #[test]
    fn a_thread_frees_what_is_large() {
        // Until the other end has gone, it does nothing else.
        let (socket, other_end) = WrongFile::lingering();
        RECLAIM.close(socket.into());
        let files = Memfds::default();
        for sealed in [true, false] {
            let small = files.create(FREED_AT_ONCE, sealed);
            let memory = Memory::new(small.as_fd(), 0, 4096).unwrap();
            drop((DmaBuf::new(small.into()).unwrap(), memory));
            assert_eq!((files.open_descriptors(), files.mappings()), (0, 0));
        }
        for sealed in [true, false] {
            let large = files.create(FREED_AT_ONCE + 1, sealed);
            let memory = Memory::new(large.as_fd(), 0, 4096).unwrap();
            drop((DmaBuf::new(large.into()).unwrap(), memory));
        }
        assert_eq!(files.mappings(), 0);
        assert_eq!(files.open_descriptors(), 4, "the last to hold it is not who let go of it");
        // Not even where it is too small for what was wanted of it.
        assert!(Memory::new(files.create(FREED_AT_ONCE + 1, true).as_fd(), 1 << 40, 1).is_err());
        assert_eq!(files.open_descriptors(), 5);
        drop(other_end);
        wait_for("all are closed", || files.open_descriptors() == 0);
    }
}
