//! A virtual GPU in a process: a vfio-user server whose guest-facing hardware is that of the
//! kernel's mbochs, with the host-facing personalities of several vGPU drivers. See README.md.
//!
//! - `server` speaks vfio-user, whose messages `protocol` defines; `control` takes commands, whose
//!   words `arguments` parses; `client` sends them.
//! - `device` is the vGPU: parts of `hardware` for the guest, and a `personality`, which is a host
//!   driver, with the dma-bufs of `export`.
//! - `screen` knows what is shown; `canvas` draws, `scene` draws over time; `screenshot` reads it
//!   back.
//! - `fault` makes calls fail, and `wrong_fd` has the descriptors for that; `sys` has the few
//!   unsafe calls.
//! - `script` is for fuzzing.

#![deny(unsafe_code)]

mod arguments;
mod canvas;
mod client;
mod control;
mod device;
mod export;
mod fault;
mod format;
mod hardware;
mod memory;
mod pace;
mod personality;
mod protocol;
mod scene;
mod screen;
mod screenshot;
#[cfg(any(test, feature = "testing"))]
pub mod script;
mod serve;
mod server;
mod stats;
#[expect(unsafe_code, reason = "system calls without a safe wrapper")]
mod sys;
mod vgpu;
mod wrong_fd;

use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::device::Config;
use crate::personality::Kind;

/// A virtual GPU in a process: a vfio-user server for demos, tests and benches of display paths.
#[derive(Debug, Parser)]
#[command(version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be a vGPU for one client after the other, until SIGTERM, SIGINT, or the command `quit`.
    Serve(Serve),
    /// Send one command to a running server and print its reply.
    ///
    /// Exit status 1, and the message on standard error, when the server answers with an error. The
    /// commands are listed by `help` and described in vgpu/README.md.
    Ctl {
        /// The server's control socket.
        #[arg(long, value_name = "PATH")]
        control: PathBuf,
        /// The command and its arguments, e.g. `mode 1920x1080 buffers=3`.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Write what the vGPU itself believes to be on screen: the primary plane with the cursor on
    /// top.
    ///
    /// Exit status 1 when the plane is off.
    Screenshot {
        /// The server's control socket.
        #[arg(long, value_name = "PATH")]
        control: PathBuf,
        /// Leave the cursor out.
        #[arg(long)]
        no_cursor: bool,
        /// The PNG file to write.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
struct Serve {
    /// The vfio-user socket, for QEMU.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Permissions of the vfio-user socket, in octal, where QEMU runs as another user: 660.
    /// Default: what the umask leaves.
    #[arg(long, value_name = "MODE", value_parser = permissions)]
    socket_mode: Option<u32>,
    /// Group of the vfio-user socket, a name or a number.
    #[arg(long, value_name = "GROUP", value_parser = group)]
    socket_group: Option<u32>,
    /// The control socket, for `vgpu ctl` and `vgpu screenshot`.
    #[arg(long, value_name = "PATH")]
    control: PathBuf,
    /// Which driver's behaviour the host sees.
    #[arg(long, value_enum, default_value_t = Kind::Mbochs)]
    personality: Kind,
    /// Size of the video memory: a power of two, 1 to 1024.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = vram)]
    vram: u64,
    /// The largest mode in the EDID region, 0x0 for no limit. Default: what the personality has.
    #[arg(long, value_name = "WxH", value_parser = arguments::size)]
    edid_max: Option<(u32, u32)>,
    /// The PCI vendor, in hexadecimal, instead of the personality's (10de: NVIDIA). A guest's
    /// drivers go by it.
    #[arg(long, value_name = "ID", value_parser = pci_id)]
    pci_vendor: Option<u16>,
    /// Have an EDID region, as mbochs', although the personality has none. The guest of nvidia sees
    /// what the host writes there.
    #[arg(long, conflicts_with = "no_edid")]
    edid_region: bool,
    /// Have no EDID region.
    #[arg(long)]
    no_edid: bool,
    /// Negotiate graphics planes, but refuse both kinds.
    #[arg(long)]
    no_plane: bool,
    /// Do not negotiate graphics planes.
    #[arg(long)]
    no_gfx: bool,
    /// Have the display interrupt of docs/display-events.md.
    #[arg(long)]
    display_events: bool,
    /// Negotiate vfio-user's `write_multiple`.
    #[arg(long)]
    write_multiple: bool,
    /// Make memfds that can be truncated (and that udmabuf does not take).
    #[arg(long)]
    unsealed: bool,
    /// The display region cannot be mapped, only read with messages.
    #[arg(long)]
    no_region_mmap: bool,
    /// Hand out memfds also where there is /dev/udmabuf.
    #[arg(long)]
    memfd: bool,
    /// Hand out memfds that can only be read, as the kernel's mbochs opens its dma-bufs. Software
    /// renderers want to map what they import for writing too, and cannot then.
    #[arg(long)]
    read_only: bool,
    /// As gvt, hand out dma-bufs that a CPU can map, which those of GVT-g's driver are not: they
    /// are for a GPU.
    #[arg(long)]
    mappable: bool,
    /// Write a line to this descriptor, and close it, when the server is ready.
    #[arg(long, value_name = "N")]
    ready_fd: Option<RawFd>,
}

fn vram(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(mib @ 1..=1024) if u64::is_power_of_two(mib) => Ok(mib),
        _ => Err("must be a power of two from 1 to 1024".into()),
    }
}

fn pci_id(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text, 16).map_err(|_| "must be hexadecimal, at most ffff".into())
}

fn permissions(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o777) => Ok(mode),
        _ => Err("must be octal, at most 777".into()),
    }
}

fn group(text: &str) -> Result<u32, String> {
    text.parse().or_else(|_| sys::group_id(text).ok_or_else(|| "no such group".into()))
}

/// The program: does what its command line says.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(serve) => {
            let config = Config {
                personality: serve.personality,
                vram: serve.vram << 20,
                pci_vendor: serve.pci_vendor,
                edid_max: serve.edid_max,
                edid: !serve.no_edid,
                edid_region: serve.edid_region,
                plane: !serve.no_plane,
                gfx: !serve.no_gfx,
                display_events: serve.display_events,
                write_multiple: serve.write_multiple,
                sealed: !serve.unsealed,
                read_only: serve.read_only,
                region_mmap: !serve.no_region_mmap,
                mappable: serve.mappable,
                memfd: serve.memfd || serve.read_only,
            };
            let access = serve::Access { mode: serve.socket_mode, group: serve.socket_group };
            serve::run(serve.socket, &access, serve.control, config, serve.ready_fd)
        }
        Command::Ctl { control, command } => {
            client::ask(&control, &command.join(" ")).map(|answer| {
                println!("{}", if answer.is_empty() { "ok" } else { &answer });
            })
        }
        Command::Screenshot { control, no_cursor, file } => std::path::absolute(&file)
            .map_err(|e| format!("{}: {e}", file.display()))
            .and_then(|file| {
                let file = file.to_str().ok_or("the file's name is not UTF-8")?.to_owned();
                let cursor = if no_cursor { "no-cursor " } else { "" };
                client::ask(&control, &format!("screenshot {cursor}{file}"))
            })
            .map(drop),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("vgpu: {message}");
            ExitCode::FAILURE
        }
    }
}
