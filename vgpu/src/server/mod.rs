//! The vfio-user server: one client at a time, one message after the other.

pub mod protocol;
pub mod wire;

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::device::Device;
use crate::fault::{Action, Call, Subject};
use crate::personality::Truncation;
use crate::sys;
use crate::vgpu::Vgpu;
use crate::wrong_fd::WrongFd;
use protocol::{
    DEVICE_FLAGS, Header, IRQ_COUNT, IRQ_ERR, MAX_FDS, MAX_TRANSFER, PlaneInfo, command,
    display_irq_info, flag, irq_set, region_flag, u32_at, u64_at,
};
use wire::Message;

/// Serves clients until the process ends.
pub fn run(listener: &UnixListener, vgpu: &Arc<Vgpu>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                {
                    let mut device = vgpu.device();
                    device.stats.connections += 1;
                    device.stats.connected = true;
                }
                let result = Session::new(&stream, vgpu).run();
                let mut device = vgpu.device();
                device.stats.connected = false;
                device.stats.gfx_plane = false;
                device.personality.closed();
                device.events.unset();
                if let Some(e) = result.err().filter(|e| !is_end(e)) {
                    device.stats.protocol_errors += 1;
                    drop(device);
                    eprintln!("vgpu: client dropped: {e}");
                }
            }
            Err(e) => {
                eprintln!("vgpu: cannot accept a client: {e}");
                // Most likely out of descriptors; that may pass.
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Whether the client has only gone: who ends does not wait for the answers to what it has asked.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe)
}

/// A successful answer.
#[derive(Debug, Default)]
struct Reply {
    payload: Vec<u8>,
    fds: Vec<OwnedFd>,
    /// Whether closing what it brings may take long.
    is_odd: bool,
}

impl Reply {
    fn of(payload: impl Into<Vec<u8>>) -> Self {
        Self { payload: payload.into(), ..Self::default() }
    }
}

/// What was agreed on with the client.
#[derive(Debug, Default)]
struct Client {
    /// Whether it has sent VERSION.
    known: bool,
    gfx_plane: bool,
    write_multiple: bool,
}

/// What is between us and a client, from its first message on.
pub struct Session<'a> {
    stream: &'a UnixStream,
    vgpu: &'a Vgpu,
    client: Client,
    /// Requests of ours.
    unanswered: u64,
}

impl<'a> Session<'a> {
    pub fn new(stream: &'a UnixStream, vgpu: &'a Vgpu) -> Self {
        Self { stream, vgpu, client: Client::default(), unanswered: 0 }
    }

    fn run(mut self) -> io::Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// Waits for the client's next message, and answers it. Returns whether the client is served
    /// further.
    pub fn turn(&mut self) -> io::Result<bool> {
        let Some(message) = wire::receive(self.stream)? else { return Ok(false) };
        let header = message.header;
        if header.flags & flag::TYPE != 0 && self.unanswered > 0 {
            self.unanswered -= 1;
            return Ok(true);
        }
        if header.flags & flag::TYPE != 0 {
            // We ask the client nothing, so there is nothing that it could answer.
            return Err(io::Error::other(format!(
                "unexpected message {} with flags {:#x}",
                header.command, header.flags
            )));
        }
        let fault = {
            let mut device = self.vgpu.device();
            device.stats.messages += 1;
            let subject = subject(&message, &device);
            let fault = device.faults.take(subject);
            device.stats.faults += u64::from(fault.is_some());
            fault
        };
        let answer = match &fault {
            Some(Action::Hangup) => return Ok(false),
            Some(Action::Silence) => return Ok(true),
            Some(Action::Errno(errno)) => Err(*errno),
            Some(Action::IdRace) => Err(self.vgpu.device().race()),
            Some(Action::Chatter(count)) => {
                self.chatter(*count)?;
                self.handle(message)
            }
            Some(Action::Delay(milliseconds)) => {
                thread::sleep(Duration::from_millis(*milliseconds));
                self.handle(message)
            }
            _ => self.handle(message),
        };
        if header.flags & flag::NO_REPLY != 0 {
            return Ok(true);
        }
        let answer = answer.map(|mut reply| {
            match &fault {
                Some(Action::Fd(given)) => {
                    reply.fds.clear();
                    self.give(&mut reply, given);
                }
                Some(Action::ExtraFd(given)) => self.give(&mut reply, given),
                Some(fault) => spoil(&mut reply, fault),
                None => {}
            }
            reply
        });
        self.reply(header, answer)?;
        Ok(true)
    }

    /// Gives a descriptor that is not the right one.
    fn give(&self, reply: &mut Reply, given: &WrongFd) {
        match given.open() {
            Ok((fd, needed)) => {
                reply.fds.push(fd);
                reply.is_odd = true;
                if let Some(needed) = needed {
                    self.vgpu.device().faults.keep(needed);
                }
            }
            Err(e) => eprintln!("vgpu: fault {given:?}: {e}"),
        }
    }

    /// Sends so many requests that nobody knows, and as many answers that nobody waits for.
    fn chatter(&mut self, count: u64) -> io::Result<()> {
        let size = u32::try_from(protocol::HEADER).map_err(io::Error::other)?;
        for turn in 0..count {
            // No request of the client's has such a number so soon.
            let id = u16::try_from(turn % 100).unwrap_or(0) | 0xff00;
            for flags in [0, flag::REPLY] {
                let header = Header { id, command: 300, size, flags, error: 0 };
                wire::send(self.stream, &header.bytes(), &[])?;
            }
            self.unanswered += 1;
        }
        Ok(())
    }

    fn reply(&self, request: Header, answer: Result<Reply, Errno>) -> io::Result<()> {
        let (reply, flags, error) = match answer {
            Ok(reply) => (reply, flag::REPLY, 0),
            Err(errno) => {
                let error = u32::try_from(errno.raw_os_error()).unwrap_or(0);
                (Reply::default(), flag::REPLY | flag::ERROR, error)
            }
        };
        let size = protocol::HEADER + reply.payload.len();
        let size = u32::try_from(size).map_err(io::Error::other)?;
        let header = Header { id: request.id, command: request.command, size, flags, error };
        let mut bytes = header.bytes().to_vec();
        bytes.extend_from_slice(&reply.payload);
        if !reply.is_odd {
            return wire::send(self.stream, &bytes, &reply.fds);
        }
        // The client is to be the last who closes them, so that it is the one whom they make wait:
        // it cannot while it has not got the whole message. Should it do so nevertheless, a thread
        // waits, and we for a second.
        let (first, rest) = bytes.split_at(protocol::HEADER);
        wire::send(self.stream, first, &reply.fds)?;
        let (closed, is_closed) = mpsc::channel();
        thread::spawn(move || {
            drop(reply.fds);
            let _ = closed.send(());
        });
        let _ = is_closed.recv_timeout(Duration::from_secs(1));
        wire::send(self.stream, rest, &[])
    }

    /// Descriptors that came with a message and are not wanted are closed with it.
    fn handle(&mut self, message: Message) -> Result<Reply, Errno> {
        let Message { header, payload, fds } = message;
        if header.command == command::VERSION {
            return self.version(&payload);
        }
        if !self.client.known {
            return Err(Errno::INVAL);
        }
        let mut device = self.vgpu.device();
        match header.command {
            command::DMA_MAP => {
                u64_at(&payload, 24)?;
                device.stats.dma_maps += 1;
                Ok(Reply::default())
            }
            command::DMA_UNMAP => {
                u64_at(&payload, 16)?;
                Ok(Reply::of(&payload[..24]))
            }
            command::GET_INFO => {
                if u32_at(&payload, 0)? < 16 {
                    return Err(Errno::INVAL);
                }
                Ok(Reply::of(words(&[16, DEVICE_FLAGS, device.region_count(), device.irq_count()])))
            }
            command::GET_REGION_INFO => region_info(&mut device, &payload),
            command::GET_IRQ_INFO => {
                let (argsz, index) = (u32_at(&payload, 0)?, u32_at(&payload, 8)?);
                if argsz >= 16 && device.display_irq() == Some(index) {
                    return Ok(Reply::of(display_irq_info(index, argsz)));
                }
                // Errors are reported on PCI Express only.
                if argsz < 16 || index >= IRQ_COUNT || index == IRQ_ERR {
                    return Err(Errno::INVAL);
                }
                Ok(Reply::of(words(&[16, 0, index, 0])))
            }
            command::SET_IRQS => set_irqs(&mut device, &payload, fds).map(|()| Reply::default()),
            command::REGION_READ => {
                let (offset, region, count) = access(&payload)?;
                let mut reply = payload[..16].to_vec();
                reply.resize(16 + count, 0);
                device.region_read(region, offset, &mut reply[16..])?;
                Ok(Reply::of(reply))
            }
            command::REGION_WRITE => {
                let (offset, region, count) = access(&payload)?;
                let data = payload.get(16..16 + count).ok_or(Errno::INVAL)?;
                device.region_write(region, offset, data)?;
                Ok(Reply::of(&payload[..16]))
            }
            command::REGION_WRITE_MULTI if self.client.write_multiple => {
                write_multi(&mut device, &payload)
            }
            command::RESET => {
                device.reset();
                Ok(Reply::default())
            }
            command::QUERY_GFX_PLANE if self.client.gfx_plane => {
                let request = PlaneInfo::parse(&payload)?;
                Ok(Reply::of(device.query(&request)?.bytes()))
            }
            command::GET_GFX_DMABUF if self.client.gfx_plane => {
                if payload.len() != 16 || u32_at(&payload, 0)? < 16 || u32_at(&payload, 4)? != 0 {
                    return Err(Errno::INVAL);
                }
                let id = u32_at(&payload, 8)?;
                let fds = vec![device.get(id)?];
                Ok(Reply { payload: words(&[16, 0, id, 0]), fds, is_odd: false })
            }
            command::QUERY_GFX_PLANE | command::GET_GFX_DMABUF => Err(Errno::NOTTY),
            _ => Err(Errno::NOSYS),
        }
    }

    fn version(&mut self, payload: &[u8]) -> Result<Reply, Errno> {
        let version = u32_at(payload, 0)?;
        // Major in the lower half, minor in the upper: 0.0 is what we speak, and any 0.x includes
        // it.
        if version & 0xffff != 0 {
            return Err(Errno::INVAL);
        }
        let offer = match payload[4..].split(|byte| *byte == 0).next() {
            None | Some([]) => Value::Null,
            Some(text) => serde_json::from_slice(text).map_err(|_| Errno::INVAL)?,
        };
        let offers = |name| offer["capabilities"][name] == true;
        let mut device = self.vgpu.device();
        self.client = Client {
            known: true,
            gfx_plane: device.config.gfx && offers("gfx_plane"),
            write_multiple: device.config.write_multiple && offers("write_multiple"),
        };
        device.stats.gfx_plane = self.client.gfx_plane;
        let mut capabilities = json!({
            "max_msg_fds": MAX_FDS,
            "max_data_xfer_size": MAX_TRANSFER,
        });
        if self.client.gfx_plane {
            capabilities["gfx_plane"] = true.into();
        }
        if self.client.write_multiple {
            capabilities["write_multiple"] = true.into();
        }
        let mut reply = words(&[0]);
        reply.extend(json!({ "capabilities": capabilities }).to_string().bytes());
        reply.push(0);
        Ok(Reply::of(reply))
    }
}

/// What a message is about, as far as a fault may care.
fn subject(message: &Message, device: &Device) -> Subject {
    let at = |offset| u32_at(&message.payload, offset).ok();
    let command = message.header.command;
    let (region, irq, plane) = match command {
        command::GET_REGION_INFO | command::REGION_READ | command::REGION_WRITE => {
            (at(8), None, None)
        }
        command::GET_IRQ_INFO | command::SET_IRQS => (None, at(8), None),
        command::QUERY_GFX_PLANE => (None, None, at(8)),
        _ => (None, None, None),
    };
    let edid = region.is_some() && region == device.edid_index();
    Subject { call: Call::of(command, edid), index: region.or(irq), plane }
}

/// Makes an answer wrong.
fn spoil(reply: &mut Reply, fault: &Action) {
    match fault {
        Action::Size(delta) => {
            let delta = isize::try_from(*delta).unwrap_or(0);
            let size = reply.payload.len().saturating_add_signed(delta);
            reply.payload.resize(size, 0xee);
        }
        Action::NoFd => reply.fds.clear(),
        Action::Unreadable => {
            for fd in &mut reply.fds {
                match sys::reopen(fd.as_fd(), OFlags::WRONLY) {
                    Ok(write_only) => *fd = write_only,
                    Err(e) => eprintln!("vgpu: fault unreadable: only memfds can be that: {e}"),
                }
            }
        }
        Action::Set(fields) => {
            for (offset, bytes) in fields {
                if let Some(field) = reply.payload.get_mut(*offset..*offset + bytes.len()) {
                    field.copy_from_slice(bytes);
                }
            }
        }
        _ => {}
    }
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Offset, region and byte count of a region access.
fn access(payload: &[u8]) -> Result<(u64, u32, usize), Errno> {
    let (offset, region, count) = (u64_at(payload, 0)?, u32_at(payload, 8)?, u32_at(payload, 12)?);
    match usize::try_from(count) {
        Ok(count) if count <= MAX_TRANSFER => Ok((offset, region, count)),
        _ => Err(Errno::INVAL),
    }
}

fn region_info(device: &mut Device, payload: &[u8]) -> Result<Reply, Errno> {
    const BASE: u32 = 32;

    let (argsz, index) = (u32_at(payload, 0)?, u32_at(payload, 8)?);
    u64_at(payload, 24)?;
    if argsz < BASE || argsz > device.traits.region_info_argsz_max {
        return Err(Errno::INVAL);
    }
    let info = device.region_info(index)?;
    let capability: &[u8] = info.capability.as_ref().map_or(&[], |c| c.as_slice());
    let needed = BASE + u32::try_from(capability.len()).unwrap_or(0);
    let fits = argsz >= needed;
    let offset_told = fits || device.traits.truncation == Truncation::KeepsOffset;
    let cap_offset = if info.flags & region_flag::CAPS != 0 && offset_told { BASE } else { 0 };
    let mut reply = words(&[needed, info.flags, index, cap_offset]);
    reply.extend(info.size.to_le_bytes());
    // All regions with a descriptor start at its first byte.
    reply.extend(0_u64.to_le_bytes());
    if fits {
        reply.extend(capability);
    }
    Ok(Reply { payload: reply, fds: info.fd.into_iter().collect(), is_odd: false })
}

fn set_irqs(device: &mut Device, payload: &[u8], mut fds: Vec<OwnedFd>) -> Result<(), Errno> {
    const UNSET: u32 = irq_set::DATA_NONE | irq_set::ACTION_TRIGGER;
    const SET: u32 = irq_set::DATA_EVENTFD | irq_set::ACTION_TRIGGER;

    let (flags, index) = (u32_at(payload, 4)?, u32_at(payload, 8)?);
    let (start, count) = (u32_at(payload, 12)?, u32_at(payload, 16)?);
    if device.display_irq() != Some(index) {
        // No other interrupt exists, so nothing can be set, but all can be disabled.
        return if count == 0 { Ok(()) } else { Err(Errno::INVAL) };
    }
    match (flags, start, count, fds.len()) {
        (UNSET, _, 0, 0) | (SET, 0, 1, 0) => device.events.unset(),
        (SET, 0, 1, 1) => device.events.set(fds.remove(0))?,
        _ => return Err(Errno::INVAL),
    }
    Ok(())
}

fn write_multi(device: &mut Device, payload: &[u8]) -> Result<Reply, Errno> {
    const ENTRY: usize = 24;

    let count = usize::try_from(u64_at(payload, 0)?).map_err(|_| Errno::INVAL)?;
    let writes = payload[8..].chunks_exact(ENTRY);
    if count > writes.len() {
        return Err(Errno::INVAL);
    }
    for write in writes.take(count) {
        let (offset, region, bytes) = access(write)?;
        let data = write[16..].get(..bytes).ok_or(Errno::INVAL)?;
        device.region_write(region, offset, data)?;
    }
    Ok(Reply::of((count as u64).to_le_bytes()))
}
