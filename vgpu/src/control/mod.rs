//! The control socket: one command a line, one line of answer each.

mod commands;
mod reports;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::arguments::Words;
use crate::scene;
use crate::vgpu::Vgpu;

use commands::{
    cursor, fault, flip, flip_on_query, mode, on_reset, pattern, plane, punch, rect, shrink_buffer,
    text,
};
use reports::{screenshot, stamps, state, stats};

/// The longest command.
const MAX_LINE: u64 = 64 * 1024;

/// What `help` answers; the README says more.
pub const COMMANDS: &str = "mode, pattern, rect, text, flip, run, scene, wait, stop, cursor, plane, guest, fault, \
                            shrink-buffer, punch, on-reset, flip-on-query, stats, edid, stamps, state, screenshot, help, quit";

/// Answers clients until the process ends.
pub fn run(listener: &UnixListener, vgpu: &Arc<Vgpu>) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let vgpu = vgpu.clone();
                std::thread::spawn(move || {
                    // The client went away; that is its own business.
                    let _ = converse(&stream, &vgpu);
                });
            }
            Err(e) => {
                eprintln!("vgpu: cannot accept a control client: {e}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn converse(stream: &UnixStream, vgpu: &Arc<Vgpu>) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut line = Vec::new();
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && line.len() as u64 == MAX_LINE {
            writer.write_all(b"error the command is too long\n")?;
            return Ok(());
        }
        let answer = match std::str::from_utf8(&line) {
            Ok(line) => execute(line.trim(), vgpu),
            Err(_) => Err("the command is not UTF-8".into()),
        };
        let quit = matches!(&answer, Ok(Answer::Quit));
        writer.write_all(in_words(answer).as_bytes())?;
        if quit {
            vgpu.exit();
        }
    }
}

fn in_words(answer: Result<Answer, String>) -> String {
    match answer {
        Ok(Answer::Json(value)) => format!("ok {value}\n"),
        Ok(Answer::Done | Answer::Quit) => "ok\n".into(),
        Err(e) => format!("error {}\n", e.replace('\n', " ")),
    }
}

/// What is answered to a command, which is not `quit`.
#[cfg(any(test, feature = "testing"))]
pub fn answer(line: &str, vgpu: &Arc<Vgpu>) -> String {
    in_words(execute(line, vgpu))
}

#[derive(Debug)]
enum Answer {
    Done,
    Json(Value),
    Quit,
}

fn execute(line: &str, vgpu: &Arc<Vgpu>) -> Result<Answer, String> {
    let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let list: Vec<&str> = rest.split_whitespace().collect();
    let words = &mut Words::parse(&list);
    let answer = match command {
        "" => return Err(format!("no command (one of {COMMANDS})")),
        // These take their arguments as they are.
        "fault" => fault(&list, vgpu),
        "screenshot" => screenshot(rest.trim(), vgpu),
        "text" => text(rest, vgpu),
        "mode" => mode(words, vgpu),
        "pattern" => pattern(words, vgpu),
        "rect" => rect(words, vgpu),
        "flip" => flip(words, vgpu),
        "run" => scene::run(words, vgpu).map(|()| Answer::Done),
        "scene" => scene::named(words, vgpu).map(|()| Answer::Done),
        "wait" => words.end().map(|()| {
            vgpu.wait_scene();
            Answer::Done
        }),
        "stop" => words.end().map(|()| {
            vgpu.stop_scene();
            Answer::Done
        }),
        "cursor" => cursor(words, vgpu),
        "plane" => plane(words, vgpu),
        "guest" => words.end().map(|()| {
            vgpu.stop_scene();
            vgpu.device().give_to_guest();
            Answer::Done
        }),
        "shrink-buffer" => shrink_buffer(words, vgpu),
        "punch" => punch(words, vgpu),
        "on-reset" => on_reset(words, vgpu),
        "flip-on-query" => flip_on_query(words, vgpu),
        "stats" => stats(words, vgpu),
        "edid" => words.end().and_then(|()| match &vgpu.device().edid {
            Some(edid) => Ok(Answer::Json(edid.describe())),
            None => Err("this device has no EDID region".into()),
        }),
        "stamps" => words.end().map(|()| Answer::Json(stamps(vgpu))),
        "state" => words.end().map(|()| Answer::Json(state(vgpu))),
        "help" => Ok(Answer::Json(COMMANDS.into())),
        "quit" => words.end().map(|()| Answer::Quit),
        _ => return Err(format!("no command '{command}' (one of {COMMANDS})")),
    };
    answer.map_err(|e| format!("{command}: {e}"))
}
