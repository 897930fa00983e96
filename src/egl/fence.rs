//! Fences of the kernel (`sync_file`).

use std::os::fd::{AsRawFd, BorrowedFd};

/// Whether a fence has fired. Does not wait.
pub fn has_fired(fence: BorrowedFd<'_>) -> bool {
    let mut poll = libc::pollfd { fd: fence.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: there is one entry.
    unsafe { libc::poll(&raw mut poll, 1, 0) > 0 }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_fence_fires_when_it_can_be_read() {
        let (reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!has_fired(reader.as_fd()));
        drop(writer);
        assert!(has_fired(reader.as_fd()));
    }
}
