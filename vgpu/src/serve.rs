//! `vgpu serve`: sockets, threads, and a clean end.

use std::io::{self, Write};
use std::os::fd::RawFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::device::{Config, Device};
use crate::vgpu::Vgpu;
use crate::{control, server, sys};

/// Who may connect to a socket, where that is not left to the umask.
#[derive(Debug, Default)]
pub struct Access {
    pub mode: Option<u32>,
    pub group: Option<u32>,
}

impl Access {
    /// The group first: the mode must not let in the group that was there before.
    fn grant(&self, path: &Path) -> Result<(), String> {
        if let Some(group) = self.group {
            chown(path, None, Some(group))
                .map_err(|e| format!("cannot give {} to group {group}: {e}", path.display()))?;
        }
        if let Some(mode) = self.mode {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
                .map_err(|e| format!("cannot set the mode of {}: {e}", path.display()))?;
        }
        Ok(())
    }
}

/// Serves until a signal or the command `quit` ends the process. Returns only on failure.
pub fn run(
    socket: PathBuf,
    access: &Access,
    control: PathBuf,
    config: Config,
    ready_fd: Option<RawFd>,
) -> Result<(), String> {
    // Before anything is opened: see `adopt_fd`.
    let ready = ready_fd
        .map(|fd| sys::adopt_fd(fd).map_err(|e| format!("--ready-fd {fd}: {e}")))
        .transpose()?;
    // Each buffer takes a descriptor, and clients rotate many. What is there without it does for
    // most.
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let device = Device::new(config).map_err(|e| format!("cannot make the device: {e}"))?;
    let description = format!(
        "{}, {} MiB VRAM, {}",
        config.personality.name(),
        config.vram >> 20,
        if device.has_udmabuf { "udmabuf" } else { "memfd" }
    );
    let clients = listen(&socket)?;
    access.grant(&socket).inspect_err(|_| remove(&socket))?;
    let commands = listen(&control).inspect_err(|_| remove(&socket))?;
    let text = format!("vgpu: listening on {} ({description})", socket.display());
    let vgpu = Arc::new(Vgpu::new(device, vec![socket, control]));
    let mut signals =
        Signals::new([SIGTERM, SIGINT]).map_err(|e| format!("cannot handle signals: {e}"))?;
    let at_end = vgpu.clone();
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            at_end.exit();
        }
    });
    let controlled = vgpu.clone();
    std::thread::spawn(move || control::run(&commands, &controlled));

    // The parent may have closed its end; that does not matter.
    let _ = writeln!(io::stdout(), "{text}");
    if let Some(mut ready) = ready {
        let _ = ready.write_all(b"\n");
    }
    server::run(&clients, &vgpu);
    Ok(())
}

/// Listens on a path. A socket that a dead server left there is replaced; anything else is not.
fn listen(path: &Path) -> Result<UnixListener, String> {
    let name = path.display();
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(format!("cannot listen on {name}: it exists and is not a socket"));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(format!("cannot listen on {name}: another server does"));
        }
        remove(path);
    }
    UnixListener::bind(path).map_err(|e| format!("cannot listen on {name}: {e}"))
}

fn remove(path: &Path) {
    // Whoever needs the path notices if it is still there.
    let _ = std::fs::remove_file(path);
}
