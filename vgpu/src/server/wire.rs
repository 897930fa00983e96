//! Messages on the socket, with the descriptors that travel beside them.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

use crate::protocol::{HEADER, Header, MAX_FDS, MAX_PAYLOAD};

/// A message from the client.
#[derive(Debug)]
pub struct Message {
    pub header: Header,
    pub payload: Vec<u8>,
    /// What it brings along. Few messages need any; the rest is closed with the message.
    pub fds: Vec<OwnedFd>,
}

/// Waits for the next message. `None` when the client closed the connection between two messages.
pub fn receive(stream: &UnixStream) -> io::Result<Option<Message>> {
    let mut fds = Vec::new();
    let mut header = [0; HEADER];
    match fill(stream, &mut header, &mut fds)? {
        0 => return Ok(None),
        HEADER => {}
        got => return Err(truncated("header", got, HEADER)),
    }
    let header = Header::parse(&header);
    let size = usize::try_from(header.size).unwrap_or(usize::MAX);
    if !(HEADER..=HEADER + MAX_PAYLOAD).contains(&size) {
        return Err(io::Error::new(
            ErrorKind::InvalidData,
            format!(
                "message {} claims a size of {size} bytes ({HEADER} to {} are possible)",
                header.command,
                HEADER + MAX_PAYLOAD
            ),
        ));
    }
    let mut payload = vec![0; size - HEADER];
    let got = fill(stream, &mut payload, &mut fds)?;
    if got < payload.len() {
        return Err(truncated("payload", got, payload.len()));
    }
    Ok(Some(Message { header, payload, fds }))
}

/// Sends bytes; the descriptors go with the first one.
pub fn send(stream: &UnixStream, mut data: &[u8], fds: &[OwnedFd]) -> io::Result<()> {
    let mut fds = fds;
    while !data.is_empty() {
        let borrowed: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
            return Err(io::Error::new(ErrorKind::InvalidInput, "too many descriptors"));
        }
        match sendmsg(stream, &[IoSlice::new(data)], &mut control, SendFlags::NOSIGNAL) {
            Ok(sent) => {
                data = &data[sent..];
                fds = &[];
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Reads until `data` is full or the stream ends, and says how many bytes came.
fn fill(stream: &UnixStream, data: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut filled = 0;
    while filled < data.len() {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut buffers = [IoSliceMut::new(&mut data[filled..])];
        match recvmsg(stream, &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => {
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(received) = message {
                        fds.extend(received);
                    }
                }
                // Those beyond the limit were closed by the kernel; a client may trickle in more
                // with every byte.
                fds.truncate(MAX_FDS);
                if received.bytes == 0 {
                    break;
                }
                filled += received.bytes;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(filled)
}

fn truncated(part: &str, got: usize, wanted: usize) -> io::Error {
    io::Error::new(
        ErrorKind::UnexpectedEof,
        format!("connection ended after {got} of {wanted} bytes of a message's {part}"),
    )
}
