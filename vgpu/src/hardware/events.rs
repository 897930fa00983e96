//! The display interrupt of docs/display-events.md: an eventfd that the client gave is signalled
//! when the picture changes.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use crate::protocol::Change;

/// Where signals go.
#[derive(Debug, Default)]
pub struct DisplayEvents {
    eventfd: Option<OwnedFd>,
}

impl DisplayEvents {
    /// From now on signals go there. EINVAL if it is no eventfd.
    pub fn set(&mut self, fd: OwnedFd) -> Result<(), Errno> {
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        match std::fs::read_link(link) {
            Ok(target) if target.as_os_str() == "anon_inode:[eventfd]" => {}
            _ => return Err(Errno::INVAL),
        }
        self.eventfd = Some(fd);
        Ok(())
    }

    /// There are no signals any more.
    pub fn unset(&mut self) {
        self.eventfd = None;
    }

    pub fn is_set(&self) -> bool {
        self.eventfd.is_some()
    }

    /// Returns whether there was anybody to tell.
    pub fn signal(&self, change: Change) -> bool {
        let Some(eventfd) = &self.eventfd else { return false };
        // The client shares the flags, and must not make us wait. If there is no room in the value,
        // it has not read what came before.
        if let Ok(flags) = fcntl_getfl(eventfd) {
            let _ = fcntl_setfl(eventfd, flags | OFlags::NONBLOCK);
        }
        let _ = rustix::io::write(eventfd.as_fd(), &(1_u64 << change.bit()).to_ne_bytes());
        true
    }
}
