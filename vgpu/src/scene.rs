//! Scenes: what moves on the screen while nobody sends commands.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use crate::arguments::{Words, number};
use crate::canvas::{CELL, Pattern, Rect, Surface, cursor_picture, mix, sentence};
use crate::format::{Color, Format};
use crate::memory::Memory;
use crate::pace::Pace;
use crate::screen::{Cursor, HostMode};
use crate::vgpu::Vgpu;

/// The highest rate, in frames a second.
const MAX_RATE: f64 = 10_000.0;

/// What is drawn before a flip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Draw {
    None,
    Block,
    Line,
    Full,
    /// The sequence number of the flip's stamp, as a colour.
    Mark,
}

/// How fast and for how long.
#[derive(Clone, Copy, Debug)]
struct Timing {
    rate: f64,
    /// `None`: until it is stopped.
    frames: Option<u64>,
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if rate > 0.0 && rate <= MAX_RATE => Ok(rate),
        _ => Err(format!("'{text}' is not a rate (frames a second, up to {MAX_RATE})")),
    }
}

fn draw_kind(text: &str) -> Result<Draw, String> {
    match text {
        "none" => Ok(Draw::None),
        "block" => Ok(Draw::Block),
        "line" => Ok(Draw::Line),
        "full" => Ok(Draw::Full),
        "mark" => Ok(Draw::Mark),
        _ => Err(format!("'{text}': none, block, line, full or mark")),
    }
}

/// `run flips=N [rate=HZ] [draw=none|block|line|full|mark] [fresh]`
pub fn run(words: &mut Words<'_>, vgpu: &Arc<Vgpu>) -> Result<(), String> {
    let flips = words.option("flips", number)?.ok_or("flips=N is missing")?;
    let rate = words.option("rate", rate)?.unwrap_or(60.0);
    let draw = words.option("draw", draw_kind)?.unwrap_or(Draw::None);
    let fresh = words.flag("fresh");
    words.end()?;
    surface(vgpu)?;
    // A flip that must fail, fails now.
    if vgpu.device().screen.mode.is_none() {
        return Err("there is nothing to flip: set a mode first".into());
    }
    let timing = Timing { rate, frames: Some(flips) };
    vgpu.start_scene(move |vgpu, stop| {
        play(vgpu, stop, timing, |frame| {
            if fresh {
                renew_next(vgpu)?;
            }
            flip(vgpu, frame, draw)
        })
    });
    Ok(())
}

/// `scene NAME [rate=HZ] [seconds=S|frames=N] [seed=N]`
pub fn named(words: &mut Words<'_>, vgpu: &Arc<Vgpu>) -> Result<(), String> {
    let name = words.next("the scene's name")?;
    let default_rate = match name {
        "flips" | "cursor" | "mark" => 60.0,
        "block" | "video" => 30.0,
        "typing" | "random" => 10.0,
        "static" => 1.0,
        _ => {
            return Err(format!(
                "no scene '{name}' (flips, block, typing, video, mark, cursor, static, random)"
            ));
        }
    };
    let rate = words.option("rate", rate)?.unwrap_or(default_rate);
    let seconds = words.option("seconds", |text| match text.parse::<f64>() {
        Ok(seconds) if (0.0..=86400.0).contains(&seconds) => Ok(seconds),
        _ => Err(format!("'{text}' is not a number of seconds")),
    })?;
    let frames = words.option("frames", number)?;
    let seed = words.option("seed", number)?.unwrap_or(0);
    words.end()?;
    if seconds.is_some() && frames.is_some() {
        return Err("seconds and frames exclude each other".into());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked above")]
    let frames = frames.or(seconds.map(|seconds| (seconds * rate).ceil() as u64));
    let timing = Timing { rate, frames };
    match name {
        "cursor" if vgpu.device().screen.cursor.is_none() => {
            return Err("there is no cursor to move".into());
        }
        "cursor" | "random" => {}
        _ => drop(surface(vgpu)?),
    }
    let name = name.to_owned();
    vgpu.start_scene(move |vgpu, stop| match name.as_str() {
        "flips" => {
            play(vgpu, stop, timing, |frame| flip(vgpu, frame.wrapping_add(seed), Draw::Full))
        }
        "block" => play(vgpu, stop, timing, |frame| block(vgpu, frame.wrapping_add(seed))),
        "typing" => play(vgpu, stop, timing, |frame| type_character(vgpu, frame, seed)),
        "video" => play(vgpu, stop, timing, |frame| video(vgpu, frame.wrapping_add(seed))),
        "mark" => play(vgpu, stop, timing, |_| draw_mark(vgpu)),
        "cursor" => play(vgpu, stop, timing, |frame| {
            move_cursor(vgpu, frame.wrapping_add(seed));
            Ok(())
        }),
        "random" => play(vgpu, stop, timing, |frame| random(vgpu, mix(seed ^ mix(frame)))),
        _ => play(vgpu, stop, timing, |_| Ok(())),
    });
    Ok(())
}

/// Calls `frame` with 0, 1, 2 and so on at the rate, and notes how it went.
fn play(
    vgpu: &Vgpu,
    stop: &AtomicBool,
    timing: Timing,
    mut frame: impl FnMut(u64) -> Result<(), String>,
) -> Result<(), String> {
    let stopped = || stop.load(Ordering::Relaxed);
    let mut pace = Pace::new(timing.rate);
    let mut number = 0;
    while timing.frames.is_none_or(|frames| number < frames) && pace.wait(stopped) {
        frame(number)?;
        number += 1;
    }
    vgpu.device().last_scene = json!({ "frames": number, "stopped": stopped() });
    Ok(())
}

fn surface(vgpu: &Vgpu) -> Result<Surface, String> {
    let device = vgpu.device();
    Ok(device.surface(&device.primary().ok_or("the plane is off")?))
}

fn drawn(result: io::Result<()>, vgpu: &Vgpu) -> Result<(), String> {
    result.map_err(|e| format!("cannot draw: {e}"))?;
    vgpu.device().drawn();
    Ok(())
}

/// Draws into the buffer that is next, then shows it.
fn flip(vgpu: &Vgpu, frame: u64, draw: Draw) -> Result<(), String> {
    let (next, surface, stamp) = {
        let device = vgpu.device();
        let mode = device.screen.mode.as_ref().ok_or("the mode is gone")?;
        let next = (mode.shown + 1) % mode.buffers.len();
        let picture = mode.picture(next).ok_or("the buffer is gone")?;
        (next, device.surface(&picture), device.next_stamp())
    };
    let whole = surface.whole();
    match draw {
        Draw::None => Ok(()),
        Draw::Full => surface.pattern(Pattern::Frame(frame), 0),
        Draw::Block => surface.fill(block_at(&surface, frame), tint(frame)),
        Draw::Line => {
            let y = u32::try_from(frame % u64::from(whole.height)).unwrap_or(0);
            surface.fill(Rect { y, height: 1, ..whole }, tint(frame))
        }
        Draw::Mark => mark(&surface, stamp),
    }
    .map_err(|e| format!("cannot draw: {e}"))?;
    vgpu.device().flip(Some(next)).map(drop)
}

/// The number of a stamp, as a colour in the top left corner.
fn mark(surface: &Surface, stamp: u64) -> io::Result<()> {
    let [b, g, r, ..] = stamp.to_le_bytes();
    surface.fill(Rect { x: 0, y: 0, width: 64, height: 64 }, [r, g, b, 255])
}

/// Draws in place, so that who sees the picture can tell which drawing it is.
fn draw_mark(vgpu: &Vgpu) -> Result<(), String> {
    let (surface, stamp) = {
        let device = vgpu.device();
        let picture = device.primary().ok_or("the plane is off")?;
        (device.surface(&picture), device.next_stamp())
    };
    drawn(mark(&surface, stamp), vgpu)
}

/// Puts a new buffer in the place of the next one.
fn renew_next(vgpu: &Vgpu) -> Result<(), String> {
    let gone = "the mode is gone";
    let (bytes, sealed) = {
        let device = vgpu.device();
        let mode = device.screen.mode.as_ref().ok_or(gone)?;
        (mode.geometry.bytes(), device.config.sealed)
    };
    let memory = Memory::new("vgpu-buffer", bytes, sealed).map_err(|e| format!("buffer: {e}"))?;
    let mut device = vgpu.device();
    let mode = device.screen.mode.as_mut().ok_or(gone)?;
    let next = (mode.shown + 1) % mode.buffers.len();
    mode.buffers[next] = Arc::new(memory);
    Ok(())
}

/// A block of 64x64 pixels that moves, and leaves nothing behind.
fn block(vgpu: &Vgpu, frame: u64) -> Result<(), String> {
    let surface = surface(vgpu)?;
    let erase = surface.fill(block_at(&surface, frame.wrapping_sub(1)), [0x20, 0x20, 0x20, 255]);
    let draw = || surface.fill(block_at(&surface, frame), tint(frame));
    drawn(erase.and_then(|()| draw()), vgpu)
}

fn block_at(surface: &Surface, frame: u64) -> Rect {
    const SIDE: u32 = 64;
    let whole = surface.whole();
    let along = |length: u32, step: u64| {
        let room = u64::from(length.saturating_sub(SIDE)) + 1;
        u32::try_from(frame.wrapping_mul(step) % room).unwrap_or(0)
    };
    Rect { x: along(whole.width, 7), y: along(whole.height, 5), width: SIDE, height: SIDE }
}

/// One character more on a terminal, and the cursor behind it.
fn type_character(vgpu: &Vgpu, frame: u64, seed: u64) -> Result<(), String> {
    const INK: Color = [0xd0, 0xd0, 0xd0, 255];
    const PAPER: Color = [0, 0, 0, 255];
    let surface = surface(vgpu)?;
    let whole = surface.whole();
    let (columns, lines) = (u64::from(whole.width / CELL.0), u64::from(whole.height / CELL.1));
    if columns < 2 || lines == 0 {
        return Ok(());
    }
    let (column, line) = (frame % (columns - 1), frame / (columns - 1));
    let text = sentence(mix(seed ^ line), usize::try_from(columns).unwrap_or(2));
    let character = text.as_bytes().get(usize::try_from(column).unwrap_or(0)).copied();
    let cell = |column: u64| u32::try_from(column).unwrap_or(0) * CELL.0;
    let y = u32::try_from(line % lines).unwrap_or(0) * CELL.1;
    let draw = || {
        if column == 0 {
            surface.fill(Rect { y, height: CELL.1, ..whole }, PAPER)?;
        }
        let character = char::from(character.unwrap_or(b' ')).to_string();
        surface.text(cell(column), y, &character, INK, PAPER)?;
        let cursor = Rect { x: cell(column + 1), y, width: CELL.0, height: CELL.1 };
        surface.fill(cursor, INK)
    };
    drawn(draw(), vgpu)
}

/// A window of half the width and height whose content changes as a whole; the rest stays.
fn video(vgpu: &Vgpu, frame: u64) -> Result<(), String> {
    let surface = surface(vgpu)?;
    let Rect { width, height, .. } = surface.whole();
    let window = Rect { x: width / 4, y: height / 4, width: width / 2, height: height / 2 };
    let phase = u32::try_from(frame.wrapping_mul(3) % 256).unwrap_or(0);
    let wave = |value: u32| ((value + phase) & 0xff) as u8;
    drawn(surface.draw(window, |x, y| [wave(x / 2), wave(y / 2), wave((x + y) / 4), 255]), vgpu)
}

/// Moves the cursor on a slanted line from edge to edge of the screen.
fn move_cursor(vgpu: &Vgpu, frame: u64) {
    let mut device = vgpu.device();
    let (width, height) = match device.primary() {
        Some(primary) => (primary.geometry.width, primary.geometry.height),
        None => (640, 480),
    };
    let along = |length: u32, step: u64| {
        i32::try_from(frame.wrapping_mul(step) % u64::from(length)).unwrap_or(0)
    };
    device.move_cursor(along(width, 7), along(height, 3));
}

/// Anything that a guest may do, as the bits say.
fn random(vgpu: &Vgpu, bits: u64) -> Result<(), String> {
    let part = |shift: u32, limit: u64| u32::try_from((bits >> shift) % limit).unwrap_or(0);
    let has_mode = vgpu.device().screen.mode.is_some();
    let action = if has_mode { part(0, 16) } else { 0 };
    match action {
        0 => random_mode(vgpu, bits),
        1..=3 => vgpu.device().set_plane(action != 1).map_err(|e| e.to_string()),
        4..=8 => vgpu.device().flip(None).map(drop),
        9 | 10 => random_cursor(vgpu, bits),
        _ => {
            let Ok(surface) = surface(vgpu) else { return Ok(()) };
            let rect = Rect {
                x: part(8, u64::from(surface.geometry.width)),
                y: part(20, u64::from(surface.geometry.height)),
                width: part(32, 300) + 1,
                height: part(44, 300) + 1,
            };
            let result = match action {
                11 => surface.pattern(Pattern::Frame(bits >> 8), 0),
                _ => surface.fill(rect, tint(bits)),
            };
            drawn(result, vgpu)
        }
    }
}

fn random_mode(vgpu: &Vgpu, bits: u64) -> Result<(), String> {
    const FORMATS: [&str; 7] = ["XR24", "XR24", "AR24", "XB24", "RG16", "XR30", "XB30"];
    let part = |shift: u32, limit: u64| u32::try_from((bits >> shift) % limit).unwrap_or(0);
    let format = Format::parse(FORMATS[part(4, 7) as usize])?;
    let (width, height) = (64 + part(8, 1900), 64 + part(20, 1100));
    let stride = (width + part(32, 64)) * format.bytes();
    let buffers = 1 + part(40, 8) as usize;
    let (geometry, sealed) = {
        let device = vgpu.device();
        let stride = stride.next_multiple_of(device.traits.pitch_align);
        (device.geometry(width, height, format, Some(stride), 0)?, device.config.sealed)
    };
    let mode = HostMode::new(geometry, buffers, sealed)?;
    vgpu.device().set_mode(mode).map_err(|e| e.to_string())?;
    drawn(surface(vgpu)?.pattern(Pattern::Frame(bits), 0), vgpu)
}

fn random_cursor(vgpu: &Vgpu, bits: u64) -> Result<(), String> {
    let part = |shift: u32, limit: u64| u32::try_from((bits >> shift) % limit).unwrap_or(0);
    if !vgpu.device().traits.has_cursor {
        return Ok(());
    }
    let side = 64 << part(8, 3);
    let [x, y] =
        [part(12, 2000), part(24, 1200)].map(|value| i32::try_from(value).unwrap_or(0) - 50);
    let hotspot = (part(36, 2) == 0).then(|| (part(38, 64), part(44, 64)));
    let sealed = vgpu.device().config.sealed;
    let picture = cursor_picture(side, None, sealed).map_err(|e| e.to_string())?;
    let mut device = vgpu.device();
    match part(50, 4) {
        0 => device.set_cursor(None),
        1 if device.move_cursor(x, y) => {}
        _ => device.set_cursor(Some(Cursor { picture, x, y, hotspot })),
    }
    Ok(())
}

fn tint(bits: u64) -> Color {
    let [r, g, b, ..] = mix(bits).to_le_bytes();
    [r, g, b, 255]
}
