//! The vfio-user server: one client at a time, one message after the other. `wire` receives and
//! sends messages, `requests` does what they ask; sessions, and faults, are here.

mod requests;
pub mod wire;

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::io::Errno;
use serde_json::{Value, json};

use crate::device::Device;
use crate::fault::{Action, Call, Subject};
use crate::protocol::{self, Header, MAX_FDS, MAX_TRANSFER, command, flag, u32_at};
use crate::sys;
use crate::vgpu::Vgpu;
use crate::wrong_fd::WrongFd;
use requests::{Reply, words};
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
    /// Requests that we sent, and the client has not answered.
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

    /// Sends this many unknown requests, and as many unexpected answers.
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
        // The client must be the last to close them, so that it is the one who waits: it cannot
        // close them before it has the whole message. In case it does, a thread closes ours, and
        // this one waits for a second at most.
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

    /// Does what a message asks. Descriptors that it brings and does not need are closed with it.
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
            command::DMA_MAP => requests::dma_map(&mut device, &payload),
            command::DMA_UNMAP => requests::dma_unmap(&payload),
            command::GET_INFO => requests::info(&device, &payload),
            command::GET_REGION_INFO => requests::region_info(&mut device, &payload),
            command::GET_IRQ_INFO => requests::irq_info(&device, &payload),
            command::SET_IRQS => requests::set_irqs(&mut device, &payload, fds),
            command::REGION_READ => requests::region_read(&mut device, &payload),
            command::REGION_WRITE => requests::region_write(&mut device, &payload),
            command::REGION_WRITE_MULTI if self.client.write_multiple => {
                requests::region_write_multi(&mut device, &payload)
            }
            command::RESET => {
                device.reset();
                Ok(Reply::default())
            }
            command::QUERY_GFX_PLANE if self.client.gfx_plane => {
                requests::query_plane(&mut device, &payload)
            }
            command::GET_GFX_DMABUF if self.client.gfx_plane => {
                requests::get_dmabuf(&mut device, &payload)
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
