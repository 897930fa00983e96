//! dma-bufs: how a picture in our memory becomes a descriptor whose first byte is the picture's
//! first.
//!
//! With /dev/udmabuf it is a udmabuf. Without, a picture at the start of its memory is that
//! memory's memfd, live as a dma-buf would be, and one at another offset is a copy that is
//! refreshed at each query.

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{Mode, OFlags};

use crate::memory::{Memory, PAGE};
use crate::screen::Picture;
use crate::sys;

/// What a driver opens its dma-bufs for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadOnly,
    ReadWrite,
    /// For a GPU: nobody maps it to read, nor reads it.
    WriteOnly,
}

/// Makes exports.
#[derive(Debug)]
pub struct Exporter {
    udmabuf: Option<Arc<OwnedFd>>,
}

impl Exporter {
    /// Uses /dev/udmabuf if it is `wanted` and can be opened.
    pub fn new(wanted: bool) -> Self {
        let open =
            || rustix::fs::open("/dev/udmabuf", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let udmabuf = wanted.then(open).and_then(Result::ok).map(Arc::new);
        Self { udmabuf }
    }

    /// Whether dma-bufs are real ones.
    pub fn has_udmabuf(&self) -> bool {
        self.udmabuf.is_some()
    }

    /// Prepares a picture for being handed out; no descriptor is made yet.
    pub fn export(&self, picture: &Picture) -> io::Result<Export> {
        let size = picture.geometry.bytes().next_multiple_of(PAGE);
        let source = if let Some(device) = &self.udmabuf {
            Source::Udmabuf { device: device.clone(), size, given: RefCell::default() }
        } else if picture.offset == 0 {
            Source::Memory(picture.memory.clone())
        } else {
            let copy = Memory::new("vgpu-copy", size, true)?;
            Source::Copy(Arc::new(copy))
        };
        Ok(Export { picture: picture.clone(), source, marks: RefCell::default() })
    }
}

#[derive(Debug)]
enum Source {
    Udmabuf { device: Arc<OwnedFd>, size: u64, given: RefCell<Vec<OwnedFd>> },
    Memory(Arc<Memory>),
    Copy(Arc<Memory>),
}

/// A picture that a client may get as a dma-buf.
#[derive(Debug)]
pub struct Export {
    pub picture: Picture,
    source: Source,
    /// Bytes of the memfd where the descriptors that we gave away are marked as used, each for
    /// itself.
    marks: RefCell<Vec<u64>>,
}

impl Export {
    /// Brings a copy up to date.
    pub fn refresh(&self) -> io::Result<()> {
        match &self.source {
            Source::Copy(copy) => self.picture.copy_to(copy, self.picture.geometry.stride),
            Source::Udmabuf { .. } | Source::Memory(_) => Ok(()),
        }
    }

    /// A descriptor for the client. `fresh` asks for a new dma-buf each time, otherwise all of them
    /// are the same one.
    pub fn descriptor(&self, access: Access, fresh: bool) -> io::Result<OwnedFd> {
        match &self.source {
            Source::Udmabuf { device, size, given } => {
                let mut given = given.borrow_mut();
                if fresh || given.is_empty() {
                    let memfd = self.picture.memory.as_fd();
                    given.push(sys::udmabuf_create(
                        device.as_fd(),
                        memfd,
                        self.picture.offset,
                        *size,
                    )?);
                }
                given.last().ok_or(io::ErrorKind::NotFound)?.try_clone()
            }
            Source::Memory(memory) | Source::Copy(memory) => {
                static MARK: AtomicU64 = AtomicU64::new(1);

                let flags = match access {
                    Access::ReadOnly => OFlags::RDONLY,
                    Access::ReadWrite => OFlags::RDWR,
                    Access::WriteOnly => OFlags::WRONLY,
                };
                // Its own open file: so that we see when the client has closed it.
                let fd = sys::reopen(memory.as_fd(), flags)?;
                let mark = MARK.fetch_add(1, Ordering::Relaxed);
                sys::mark_use(fd.as_fd(), mark, access == Access::WriteOnly)?;
                self.marks.borrow_mut().push(mark);
                Ok(fd)
            }
        }
    }

    /// Whether a client holds one of the descriptors, or a mapping of one.
    pub fn held(&self) -> bool {
        match &self.source {
            Source::Udmabuf { given, .. } => {
                let mut given = given.borrow_mut();
                // A kernel that does not tell the count makes us believe that it is held.
                given.retain(|fd| sys::dmabuf_references(fd.as_fd()).map_or(true, |n| n > 1));
                !given.is_empty()
            }
            Source::Memory(memory) | Source::Copy(memory) => {
                let mut marks = self.marks.borrow_mut();
                marks.retain(|&mark| sys::in_use(memory.as_fd(), mark).unwrap_or(true));
                !marks.is_empty()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;
    use crate::screen::Geometry;

    fn picture(offset: u64) -> Picture {
        let geometry =
            Geometry { format: Format::XRGB8888, modifier: 0, width: 64, height: 64, stride: 256 };
        let memory = Arc::new(Memory::new("test", 1 << 16, true).unwrap());
        Picture { geometry, memory, offset }
    }

    #[test]
    fn a_picture_at_the_start_is_live() {
        let picture = picture(0);
        let export = Exporter { udmabuf: None }.export(&picture).unwrap();
        let fd = export.descriptor(Access::ReadWrite, true).unwrap();
        picture.memory.write(0, b"later").unwrap();
        let mut seen = [0; 5];
        rustix::io::pread(&fd, &mut seen, 0).unwrap();
        assert_eq!(&seen, b"later");
    }

    #[test]
    fn a_picture_elsewhere_is_a_copy_with_its_pixels_at_byte_0() {
        let picture = picture(8192);
        let export = Exporter { udmabuf: None }.export(&picture).unwrap();
        picture.memory.write(8192, b"first").unwrap();
        export.refresh().unwrap();
        let fd = export.descriptor(Access::ReadOnly, true).unwrap();
        let mut seen = [0; 5];
        rustix::io::pread(&fd, &mut seen, 0).unwrap();
        assert_eq!(&seen, b"first");
        assert!(rustix::io::pwrite(&fd, b"x", 0).is_err(), "opened read-only");
    }

    #[test]
    fn exports_of_one_memory_are_held_apart() {
        let picture = picture(0);
        let exporter = Exporter { udmabuf: None };
        let (one, two) = (exporter.export(&picture).unwrap(), exporter.export(&picture).unwrap());
        let fd = one.descriptor(Access::ReadWrite, false).unwrap();
        assert!(one.held() && !two.held());
        drop(fd);
        assert!(!one.held());
    }

    #[test]
    fn what_is_for_a_gpu_is_held_and_neither_mapped_nor_read() {
        let export = Exporter { udmabuf: None }.export(&picture(0)).unwrap();
        let [one, two] = [(); 2].map(|()| export.descriptor(Access::WriteOnly, true).unwrap());
        assert!(rustix::io::pread(&one, &mut [0; 1], 0).is_err());
        drop(one);
        assert!(export.held());
        drop(two);
        assert!(!export.held());
    }
}
