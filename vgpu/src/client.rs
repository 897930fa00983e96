//! The other end of the control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// Sends one command, and returns what follows `ok` in the answer.
pub fn ask(control: &Path, command: &str) -> Result<String, String> {
    if command.contains('\n') {
        return Err("a command cannot contain a line break".into());
    }
    let path = control.display();
    let mut stream = UnixStream::connect(control)
        .map_err(|e| format!("cannot connect to the control socket {path}: {e}"))?;
    stream
        .write_all(format!("{command}\n").as_bytes())
        .map_err(|e| format!("cannot write to the control socket {path}: {e}"))?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .map_err(|e| format!("cannot read from the control socket {path}: {e}"))?;
    let line = line.trim_end_matches('\n');
    match line.split_once(' ').unwrap_or((line, "")) {
        ("ok", answer) => Ok(answer.to_owned()),
        ("error", message) => Err(message.to_owned()),
        ("", _) => Err(format!("the server behind {path} went away without an answer")),
        _ => Err(format!("{path} answers '{line}': not a vgpu's control socket?")),
    }
}
