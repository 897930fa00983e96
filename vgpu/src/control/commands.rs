//! Commands that change the device: what is shown, drawn, and how it behaves.

use std::io;
use std::sync::Arc;

use crate::arguments::{Words, number, number32, on_or_off, point, size};
use crate::canvas::{Pattern, Rect, Surface, cursor_picture, opaque, with_alpha};
use crate::device::OnReset;
use crate::format::{Color, Format};
use crate::screen::{Cursor, Driver, Geometry, HostMode};
use crate::vgpu::Vgpu;

use super::Answer;

/// The most buffers of a mode.
const MAX_BUFFERS: u64 = 64;

pub fn mode(words: &mut Words<'_>, vgpu: &Arc<Vgpu>) -> Result<Answer, String> {
    let (width, height) = size(words.next("the size")?)?;
    let format = words.option("fourcc", Format::parse)?.unwrap_or(Format::XRGB8888);
    let stride = words.option("stride", number32)?;
    let modifier = words.option("modifier", number)?.unwrap_or(0);
    let buffers = words.option("buffers", number)?.unwrap_or(1);
    let padded = words.flag("padded-width");
    words.end()?;
    if !(1..=MAX_BUFFERS).contains(&buffers) {
        return Err(format!("buffers={buffers}: 1 to {MAX_BUFFERS} are possible"));
    }
    let (geometry, sealed) = {
        let device = vgpu.device();
        (device.geometry(width, height, format, stride, modifier)?, device.config.sealed)
    };
    set_mode(vgpu, geometry, usize::try_from(buffers).unwrap_or(1), padded, sealed)?;
    Ok(Answer::Done)
}

/// Allocates a mode and shows it. Stops the scene that draws into the old one.
fn set_mode(
    vgpu: &Arc<Vgpu>,
    geometry: Geometry,
    buffers: usize,
    padded_width: bool,
    sealed: bool,
) -> Result<(), String> {
    vgpu.stop_scene();
    let mut mode = HostMode::new(geometry, buffers, sealed)?;
    if padded_width {
        mode.reported_width = geometry.stride / geometry.format.bytes();
    }
    vgpu.device().set_mode(mode).map_err(|e| format!("cannot show the mode: {e}"))
}

/// What a drawing command draws into: the picture on screen, or the buffer with that number.
fn surface(vgpu: &Vgpu, buffer: Option<u64>) -> Result<Surface, String> {
    let device = vgpu.device();
    let picture = match buffer {
        None => device.primary().ok_or("the plane is off"),
        Some(buffer) => {
            let mode = device.screen.mode.as_ref().filter(|_| device.screen.driver == Driver::Host);
            let picture = usize::try_from(buffer).ok().and_then(|b| mode?.picture(b));
            picture.ok_or("there is no such buffer")
        }
    };
    Ok(device.surface(&picture?))
}

fn draw(
    vgpu: &Vgpu,
    buffer: Option<u64>,
    draw: impl FnOnce(&Surface) -> io::Result<()>,
) -> Result<Answer, String> {
    let surface = surface(vgpu, buffer)?;
    draw(&surface).map_err(|e| format!("cannot draw: {e}"))?;
    let mut device = vgpu.device();
    let shown = device.screen.mode.as_ref().map(|mode| mode.shown as u64);
    if buffer.is_none_or(|buffer| shown == Some(buffer)) {
        device.drawn();
    }
    Ok(Answer::Done)
}

pub fn pattern(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let pattern = Pattern::parse(words.next("the pattern's name")?)?;
    let seed = words.option("seed", number)?.unwrap_or(0);
    let buffer = words.option("buffer", number)?;
    words.end()?;
    draw(vgpu, buffer, |surface| surface.pattern(pattern, seed))
}

pub fn rect(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let place = words.next("the rectangle")?;
    let wrong = || format!("'{place}' is not X,Y,WIDTHxHEIGHT");
    let (position, extent) = place.rsplit_once(',').ok_or_else(wrong)?;
    let (x, y) = point(position).map_err(|_| wrong())?;
    let (width, height) = size(extent).map_err(|_| wrong())?;
    let color = opaque(words.next("the colour")?)?;
    let buffer = words.option("buffer", number)?;
    words.end()?;
    draw(vgpu, buffer, |surface| surface.fill(Rect { x, y, width, height }, color))
}

pub fn text(rest: &str, vgpu: &Vgpu) -> Result<Answer, String> {
    const INK: Color = [255, 255, 255, 255];
    const PAPER: Color = [0, 0, 0, 255];
    let (place, text) = rest.split_once(' ').ok_or("text X,Y WORDS")?;
    let (x, y) = point(place)?;
    draw(vgpu, None, |surface| surface.text(x, y, text, INK, PAPER))
}

pub fn flip(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let to = match words.next("") {
        Ok(word) => Some(usize::try_from(number(word)?).map_err(|e| e.to_string())?),
        Err(_) => None,
    };
    words.end()?;
    vgpu.device().flip(to)?;
    Ok(Answer::Done)
}

pub fn flip_on_query(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let on = on_or_off(words)?;
    vgpu.device().flip_on_query = on;
    Ok(Answer::Done)
}

pub fn plane(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let on = on_or_off(words)?;
    let mut device = vgpu.device();
    if on && device.screen.driver == Driver::Host && device.screen.mode.is_none() {
        // It was off before there was a mode.
        device.give_to_guest();
    } else if !on && device.screen.driver == Driver::Guest {
        device.screen.driver = Driver::Host;
        device.screen.mode = None;
    }
    device.set_plane(on).map_err(|e| e.to_string())?;
    Ok(Answer::Done)
}

pub fn cursor(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let (sealed, has_cursor, name) = {
        let device = vgpu.device();
        (device.config.sealed, device.traits.has_cursor, device.config.personality.name())
    };
    if !has_cursor {
        return Err(format!("{name} has no cursor plane"));
    }
    match words.next("SIZE X,Y, move X,Y, color AARRGGBB, or off")? {
        "off" => {
            words.end()?;
            vgpu.device().set_cursor(None);
        }
        "move" => {
            let (x, y) = point(words.next("the position")?)?;
            words.end()?;
            if !vgpu.device().move_cursor(x, y) {
                return Err("there is no cursor to move".into());
            }
        }
        "color" => {
            let color = with_alpha(words.next("the colour")?)?;
            words.end()?;
            let device = vgpu.device();
            let cursor = device.screen.cursor.as_ref().ok_or("there is no cursor to draw in")?;
            let surface = device.surface(&cursor.picture);
            drop(device);
            surface.draw(surface.whole(), |_, _| color).map_err(|e| e.to_string())?;
        }
        extent => {
            let (width, height) = size(extent)?;
            let (x, y) = point(words.next("the position")?)?;
            let hotspot = words.option("hot", |text| match text {
                "unset" => Ok(None),
                _ => point(text).map(Some),
            })?;
            let color = words.option("color", with_alpha)?;
            words.end()?;
            if width != height || ![64, 128, 256].contains(&width) {
                return Err(format!("{width}x{height}: cursors are 64x64, 128x128 or 256x256"));
            }
            let picture = cursor_picture(width, color, sealed).map_err(|e| e.to_string())?;
            let hotspot = hotspot.flatten();
            vgpu.device().set_cursor(Some(Cursor { picture, x, y, hotspot }));
        }
    }
    Ok(Answer::Done)
}

pub fn fault(words: &[&str], vgpu: &Vgpu) -> Result<Answer, String> {
    let mut device = vgpu.device();
    if words.contains(&"unreadable") && device.has_udmabuf {
        return Err(
            "dma-bufs are udmabufs, which can be read (start the server with --memfd)".into()
        );
    }
    let faults = &mut device.faults;
    match words {
        ["clear"] => faults.clear(),
        ["list"] => return Ok(Answer::Json(faults.json())),
        _ => faults.add(words)?,
    }
    Ok(Answer::Done)
}

pub fn shrink_buffer(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let bytes = number(words.next("the number of bytes")?)?;
    words.end()?;
    let device = vgpu.device();
    // What a client of a display region maps is the region, whose plane is off where the memory has
    // become too small for it.
    let memory = match device.personality.region() {
        Some((_, memory)) => memory,
        None => device.primary().ok_or("the plane is off")?.memory,
    };
    memory.resize(bytes).map_err(|e| e.to_string())?;
    Ok(Answer::Done)
}

pub fn punch(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    words.end()?;
    let mut device = vgpu.device();
    let picture = device.primary().ok_or("the plane is off")?;
    picture.memory.punch().map_err(|e| e.to_string())?;
    if let Some((_, memory)) = device.personality.region() {
        memory.punch().map_err(|e| e.to_string())?;
    }
    device.drawn();
    Ok(Answer::Done)
}

pub fn on_reset(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let what = match words.next("keep, off or guest")? {
        "keep" => OnReset::Keep,
        "off" => OnReset::Off,
        "guest" => OnReset::Guest,
        word => return Err(format!("'{word}': keep, off or guest")),
    };
    words.end()?;
    vgpu.device().on_reset = what;
    Ok(Answer::Done)
}
