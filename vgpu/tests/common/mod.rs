//! A vGPU process, and a small vfio-user client that shows every byte.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs::File;
use std::io::{IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::SeekFrom;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde_json::Value;

pub const VERSION: u16 = 1;
pub const GET_INFO: u16 = 4;
pub const GET_REGION_INFO: u16 = 5;
pub const GET_IRQ_INFO: u16 = 7;
pub const SET_IRQS: u16 = 8;
pub const REGION_READ: u16 = 9;
pub const REGION_WRITE: u16 = 10;
pub const RESET: u16 = 13;
pub const WRITE_MULTI: u16 = 15;
pub const QUERY: u16 = 256;
pub const GET: u16 = 257;

pub const PROBE: u32 = 1;
pub const DMABUF: u32 = 2;
pub const REGION: u32 = 4;

pub const PRIMARY: u32 = 1;
pub const CURSOR: u32 = 2;

pub const ENOENT: u32 = 2;
pub const EIO: u32 = 5;
pub const ENOMEM: u32 = 12;
pub const EFAULT: u32 = 14;
pub const EINVAL: u32 = 22;
pub const ENOTTY: u32 = 25;
pub const ENOSYS: u32 = 38;

/// A running `vgpu serve`. It is killed, and its directory removed, when the test ends.
pub struct Server {
    pub child: Child,
    pub dir: PathBuf,
}

impl Server {
    pub fn start(args: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vgpu-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(name);
        std::fs::create_dir(&dir).unwrap();
        let mut child = vgpu("serve")
            .arg("--socket")
            .arg(dir.join("vfio"))
            .arg("--control")
            .arg(dir.join("control"))
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = Vec::new();
        let stdout = child.stdout.as_mut().unwrap();
        while line.last() != Some(&b'\n') {
            let mut byte = [0];
            assert_eq!(stdout.read(&mut byte).unwrap(), 1, "the server says that it is ready");
            line.push(byte[0]);
        }
        assert!(line.starts_with(b"vgpu: listening "), "{}", String::from_utf8_lossy(&line));
        Self { child, dir }
    }

    pub fn control(&self) -> PathBuf {
        self.dir.join("control")
    }

    pub fn ctl_output(&self, command: &str) -> Output {
        let words = command.split_whitespace();
        vgpu("ctl").arg("--control").arg(self.control()).args(words).output().unwrap()
    }

    /// Sends a command that must succeed.
    pub fn ctl(&self, command: &str) -> String {
        let output = self.ctl_output(command);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    pub fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.ctl(command)).unwrap()
    }

    /// Sends a command that must fail, and returns the message.
    pub fn ctl_error(&self, command: &str) -> String {
        let output = self.ctl_output(command);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(output.stdout.is_empty(), "{command}");
        String::from_utf8(output.stderr).unwrap()
    }

    pub fn screenshot(&self, args: &[&str]) -> Result<(u32, u32, Vec<u8>), String> {
        let file = self.dir.join("shot.png");
        let output = vgpu("screenshot")
            .arg("--control")
            .arg(self.control())
            .args(args)
            .arg(&file)
            .output()
            .unwrap();
        if !output.status.success() {
            assert_eq!(output.status.code(), Some(1));
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        let decoder = png::Decoder::new(std::io::BufReader::new(File::open(file).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        Ok((info.width, info.height, pixels))
    }

    /// Connects a client that has not sent anything yet.
    pub fn connect(&self) -> Client {
        let stream = UnixStream::connect(self.dir.join("vfio")).unwrap();
        // A missing reply shall fail the test, not hang it.
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client { stream, next_id: 0x1200 }
    }

    /// Connects a client that has negotiated graphics planes.
    pub fn client(&self) -> Client {
        let mut client = self.connect();
        client.version(r#"{"capabilities":{"gfx_plane":true,"write_multiple":true}}"#);
        client
    }

    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub fn vgpu(command: &str) -> Command {
    let mut vgpu = Command::new(env!("CARGO_BIN_EXE_vgpu"));
    vgpu.arg(command);
    vgpu
}

/// A reply as it came: header fields, payload, descriptors.
#[derive(Debug)]
pub struct Reply {
    pub id: u16,
    pub command: u16,
    pub flags: u32,
    pub error: u32,
    pub payload: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

impl Reply {
    /// The number at an offset of the payload.
    pub fn u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.payload[offset..offset + 4].try_into().unwrap())
    }

    pub fn u64(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.payload[offset..offset + 8].try_into().unwrap())
    }

    /// Returns the errno; the reply must be a well-formed error.
    pub fn errno(&self) -> u32 {
        assert_eq!(self.flags, 0x21, "{self:?}");
        assert!(self.payload.is_empty() && self.fds.is_empty() && self.error != 0, "{self:?}");
        self.error
    }

    /// Checks that it is a success.
    pub fn ok(self) -> Self {
        assert_eq!((self.flags, self.error), (1, 0), "{self:?}");
        self
    }
}

pub struct Client {
    pub stream: UnixStream,
    next_id: u16,
}

impl Client {
    pub fn header(&mut self, command: u16, flags: u32, payload: usize) -> Vec<u8> {
        self.next_id = self.next_id.wrapping_add(1);
        let mut bytes = self.next_id.to_le_bytes().to_vec();
        bytes.extend(command.to_le_bytes());
        bytes.extend(u32::try_from(16 + payload).unwrap().to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(0_u32.to_le_bytes());
        bytes
    }

    pub fn send(&mut self, command: u16, flags: u32, payload: &[u8]) -> u16 {
        let mut bytes = self.header(command, flags, payload.len());
        bytes.extend(payload);
        self.stream.write_all(&bytes).unwrap();
        self.next_id
    }

    pub fn send_with_fds(&mut self, command: u16, payload: &[u8], fds: &[&impl AsFd]) {
        let mut bytes = self.header(command, 0, payload.len());
        bytes.extend(payload);
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let iov = [IoSlice::new(&bytes)];
        let sent = sendmsg(&self.stream, &iov, &mut control, SendFlags::empty()).unwrap();
        assert_eq!(sent, bytes.len());
    }

    /// The next reply; `None` if the server closed the connection.
    pub fn receive(&mut self) -> Option<Reply> {
        let mut fds = Vec::new();
        let mut header = [0; 16];
        if !self.fill(&mut header, &mut fds) {
            return None;
        }
        let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let word = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let mut payload = vec![0; word(4) as usize - 16];
        assert!(self.fill(&mut payload, &mut fds), "the reply is complete");
        let (flags, error) = (word(8), word(12));
        Some(Reply { id: half(0), command: half(2), flags, error, payload, fds })
    }

    fn fill(&mut self, data: &mut [u8], fds: &mut Vec<OwnedFd>) -> bool {
        let mut filled = 0;
        while filled < data.len() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let mut iov = [IoSliceMut::new(&mut data[filled..])];
            let received =
                match recvmsg(&self.stream, &mut iov, &mut control, RecvFlags::CMSG_CLOEXEC) {
                    Ok(received) => received,
                    Err(rustix::io::Errno::CONNRESET) => return false,
                    Err(e) => panic!("no reply: {e}"),
                };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(received) = message {
                    fds.extend(received);
                }
            }
            if received.bytes == 0 {
                return false;
            }
            filled += received.bytes;
        }
        true
    }

    /// A request and its reply.
    pub fn call(&mut self, command: u16, payload: &[u8]) -> Reply {
        let id = self.send(command, 0, payload);
        let reply = self.receive().expect("a reply");
        assert_eq!((reply.id, reply.command), (id, command));
        reply
    }

    /// VERSION 0.0; returns the JSON of the reply.
    pub fn version(&mut self, json: &str) -> Value {
        let mut payload = vec![0; 4];
        payload.extend(json.bytes());
        payload.push(0);
        let reply = self.call(VERSION, &payload).ok();
        assert_eq!(reply.payload[..4], [0; 4]);
        assert_eq!(reply.payload.last(), Some(&0), "the JSON ends with a zero");
        serde_json::from_slice(&reply.payload[4..reply.payload.len() - 1]).unwrap()
    }

    pub fn query(&mut self, flags: u32, plane: u32) -> Reply {
        self.call(QUERY, &plane_info(&[(0, 64), (4, flags), (8, plane)]))
    }

    /// Queries, and repeats the query if it was the first of a new buffer on mbochs.
    pub fn query_primary(&mut self) -> Reply {
        let reply = self.query(DMABUF, PRIMARY);
        if reply.error == ENOMEM { self.query(DMABUF, PRIMARY) } else { reply }
    }

    pub fn get(&mut self, id: u32) -> Reply {
        self.call(GET, &words(&[16, 0, id, 0]))
    }

    pub fn region_info(&mut self, index: u32, argsz: u32) -> Reply {
        self.call(GET_REGION_INFO, &words(&[argsz, 0, index, 0, 0, 0, 0, 0]))
    }

    pub fn read(&mut self, region: u32, offset: u64, count: u32) -> Reply {
        let mut payload = offset.to_le_bytes().to_vec();
        payload.extend(words(&[region, count]));
        self.call(REGION_READ, &payload)
    }

    /// The data of a read that must succeed.
    pub fn data(&mut self, region: u32, offset: u64, count: u32) -> Vec<u8> {
        let reply = self.read(region, offset, count).ok();
        assert_eq!((reply.u64(0), reply.u32(8), reply.u32(12)), (offset, region, count));
        reply.payload[16..].to_vec()
    }

    pub fn write(&mut self, region: u32, offset: u64, data: &[u8]) -> Reply {
        let mut payload = offset.to_le_bytes().to_vec();
        payload.extend(words(&[region, u32::try_from(data.len()).unwrap()]));
        payload.extend(data);
        self.call(REGION_WRITE, &payload)
    }

    /// Sets the mode through the bochs registers.
    pub fn guest_mode(&mut self, width: u16, height: u16) {
        for (index, value) in [(4, 0), (1, width), (2, height), (3, 32), (4, 0x41)] {
            self.write(2, 0x500 + 2 * index, &value.to_le_bytes()).ok();
        }
    }
}

pub fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// 64 bytes with some 32-bit fields set.
pub fn plane_info(fields: &[(usize, u32)]) -> [u8; 64] {
    let mut bytes = [0; 64];
    for (offset, value) in fields {
        bytes[*offset..offset + 4].copy_from_slice(&value.to_le_bytes());
    }
    bytes
}

/// The size of a file or a dma-buf.
pub fn file_size(fd: impl AsFd) -> u64 {
    rustix::fs::seek(fd, SeekFrom::End(0)).unwrap()
}

/// Bytes of a file or a dma-buf, which must have so many.
pub fn read_fd(fd: impl AsFd, offset: u64, count: usize) -> Vec<u8> {
    let size = usize::try_from(file_size(&fd)).unwrap();
    let offset = usize::try_from(offset).unwrap();
    assert!(offset + count <= size, "{count} bytes at {offset} of {size}");
    // SAFETY: a new mapping at an address of the kernel's choice.
    let map = unsafe { mmap(null_mut(), size, ProtFlags::READ, MapFlags::SHARED, fd, 0) }.unwrap();
    let mut data = vec![0; count];
    // SAFETY: the range lies in the mapping, which nobody shrinks meanwhile: the tests that
    // truncate do not read. A plain copy may see old or new bytes of a writer, and both will do.
    unsafe {
        std::ptr::copy_nonoverlapping(map.cast::<u8>().add(offset), data.as_mut_ptr(), count);
        munmap(map, size).unwrap();
    }
    data
}

pub fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}
