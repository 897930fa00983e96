//! A client that says anything, and a user who commands anything, as a string of bytes has it: for
//! fuzzing, and for random tests.
//!
//! The first bytes choose the device. Each step is a byte that chooses who speaks, and the bytes
//! that are said; where bytes are missing, they are zero. Whatever they are, the server must not
//! panic, and answers each command with one line.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use crate::control;
use crate::device::{Config, Device};
use crate::personality::Kind;
use crate::protocol::{HEADER, Header, command};
use crate::server::Session;
use crate::server::wire;
use crate::vgpu::Vgpu;

const MEMORY: u64 = 1 << 20;

/// No script is longer, in steps.
const MAX_STEPS: usize = 256;

const COMMANDS: [u16; 14] = [
    command::VERSION,
    command::DMA_MAP,
    command::DMA_UNMAP,
    command::GET_INFO,
    command::GET_REGION_INFO,
    command::GET_IRQ_INFO,
    command::SET_IRQS,
    command::REGION_READ,
    command::REGION_WRITE,
    command::RESET,
    command::REGION_WRITE_MULTI,
    command::QUERY_GFX_PLANE,
    command::GET_GFX_DMABUF,
    300,
];

/// Commands, or parts of such, that write files, take their time, or end the process.
const NOT_HERE: [&str; 9] =
    ["screenshot", "quit", "wait", "run", "scene", "delay", "chatter", "linger", "/"];

/// Reads a script.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let part = self.up_to(N);
        taken[..part.len()].copy_from_slice(part);
        taken
    }

    fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    fn up_to(&mut self, count: usize) -> &'a [u8] {
        let (now, later) = self.0.split_at(count.min(self.0.len()));
        self.0 = later;
        now
    }

    /// Up to a line break, which is taken, too.
    fn line(&mut self) -> &'a [u8] {
        let end = self.0.iter().position(|byte| *byte == b'\n').unwrap_or(self.0.len());
        let line = self.up_to(end);
        self.byte();
        line
    }
}

/// Does what the script says.
///
/// # Panics
///
/// If the server does something wrong, or the machine does not give what it needs.
pub fn run(script: &[u8]) {
    let mut bytes = Bytes(script);
    let device = Device::new(config(bytes.byte(), bytes.byte())).expect("a device");
    let vgpu = Arc::new(Vgpu::new(device, Vec::new()));
    let (ours, theirs) = UnixStream::pair().expect("sockets");
    // Somebody reads what the server answers, however much that is.
    let reader = ours.try_clone().expect("a descriptor");
    let reader = thread::spawn(move || io::copy(&mut &reader, &mut io::sink()));
    let mut session = Session::new(&theirs, &vgpu);
    for _ in 0..MAX_STEPS {
        let choice = bytes.byte();
        if choice & 1 == 0 {
            command(bytes.line(), &vgpu);
        } else if !message(choice, &mut bytes, &ours, &mut session) {
            break;
        }
        if bytes.0.is_empty() {
            break;
        }
    }
    drop((ours, theirs));
    // Where the server ended the session, something may be unread, which is an error then.
    let _ = reader.join().expect("who reads does not panic");
}

fn config(choices: u8, more: u8) -> Config {
    let is = |bit: u8| choices & bit != 0;
    Config {
        personality: [Kind::Mbochs, Kind::Gvt, Kind::Nvidia, Kind::Mdpy][usize::from(more & 3)],
        vram: MEMORY << u8::from(more & 4 != 0),
        pci_vendor: None,
        edid_max: (more & 8 != 0).then_some((1280, 1024)),
        edid: !is(1),
        edid_region: is(2),
        plane: more & 0xf0 != 0xf0,
        gfx: more & 0xf0 != 0xe0,
        display_events: is(4),
        write_multiple: is(8),
        sealed: !is(16),
        read_only: is(32),
        mappable: is(64),
        memfd: true,
        region_mmap: !is(128),
    }
}

fn command(line: &[u8], vgpu: &Arc<Vgpu>) {
    let Ok(line) = std::str::from_utf8(line) else { return };
    if NOT_HERE.iter().any(|word| line.contains(word)) {
        return;
    }
    let answer = control::answer(line.trim(), vgpu);
    assert_eq!(answer.find('\n'), Some(answer.len() - 1), "one line: {answer:?}");
}

/// Sends a message, and has it answered. Returns whether the session goes on.
fn message(
    choice: u8,
    bytes: &mut Bytes<'_>,
    client: &UnixStream,
    session: &mut Session<'_>,
) -> bool {
    let kind = bytes.byte();
    let command = match COMMANDS.get(usize::from(kind)) {
        Some(command) => *command,
        None => u16::from_le_bytes(bytes.take()),
    };
    let flags = if choice & 2 == 0 { 0 } else { bytes.byte().into() };
    let fds = if choice & 0xc == 0xc { descriptors(bytes.byte(), client) } else { Vec::new() };
    let len = bytes.byte();
    let payload = bytes.up_to(len.into());
    let size = u32::try_from(HEADER + payload.len()).expect("a short payload");
    // One that lies about its size is the last, or we would wait for the rest.
    let lies = choice & 0xf0 == 0xf0;
    let size = if lies { u32::from_le_bytes(bytes.take()) } else { size };
    let header = Header { id: choice.into(), command, size, flags, error: 0 };
    let message: Vec<_> = header.bytes().into_iter().chain(payload.iter().copied()).collect();
    if wire::send(client, &message, &fds).is_err() {
        return false;
    }
    if lies {
        client.shutdown(std::net::Shutdown::Write).expect("a socket");
        // It may lie so that all that was sent is several messages.
        while session.turn().is_ok_and(|goes_on| goes_on) {}
    }
    !lies && session.turn().unwrap_or(false)
}

/// What a client may attach to a message.
fn descriptors(choice: u8, client: &UnixStream) -> Vec<OwnedFd> {
    let one = |odd: bool| -> io::Result<OwnedFd> {
        if odd { client.as_fd().try_clone_to_owned() } else { Ok(rustix::pipe::pipe()?.1) }
    };
    (0..choice & 7)
        .filter_map(|index| one(choice.rotate_right(u32::from(index) + 3) & 1 != 0).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_run() {
        let mut state = 7_u64;
        for _ in 0..300 {
            let script: Vec<u8> = (0..400)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56).to_le_bytes()[0]
                })
                .collect();
            run(&script);
        }
        run(b"\0\0\0mode 64x64 buffers=2\n\0rect 0,0,8x8 ff0000\n\0fault get no-fd\n\x01\0\x2a\0\0\0\0{}\0");
    }
}
