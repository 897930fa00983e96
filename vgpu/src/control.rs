//! The control socket: one command a line, one line of answer each.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::canvas::{Pattern, Rect, Surface, opaque, with_alpha};
use crate::device::{OnReset, edid};
use crate::fault::{number, number32};
use crate::format::{Color, Format};
use crate::memory::Memory;
use crate::scene;
use crate::screen::{Cursor, Driver, Geometry, HostMode, Picture};
use crate::screenshot;
use crate::vgpu::Vgpu;

/// The longest command.
const MAX_LINE: u64 = 64 * 1024;

/// The most buffers of a mode.
const MAX_BUFFERS: u64 = 64;

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
        let text = match answer {
            Ok(Answer::Json(value)) => format!("ok {value}\n"),
            Ok(Answer::Done | Answer::Quit) => "ok\n".into(),
            Err(e) => format!("error {}\n", e.replace('\n', " ")),
        };
        writer.write_all(text.as_bytes())?;
        if quit {
            vgpu.exit();
        }
    }
}

#[derive(Debug)]
enum Answer {
    Done,
    Json(Value),
    Quit,
}

/// A command's words: plain ones, and options of the form `name=value`.
#[derive(Debug)]
pub struct Words<'a> {
    plain: Vec<&'a str>,
    options: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    fn parse(words: &[&'a str]) -> Self {
        let (mut plain, mut options) = (Vec::new(), Vec::new());
        for word in words {
            match word.split_once('=') {
                Some(option) => options.push(option),
                None => plain.push(*word),
            }
        }
        Self { plain, options }
    }

    /// The value of an option, which must be asked for only once.
    pub fn option<T>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        let Some(at) = self.options.iter().position(|(n, _)| *n == name) else { return Ok(None) };
        let (_, value) = self.options.remove(at);
        parse(value).map(Some).map_err(|e| format!("{name}: {e}"))
    }

    /// Whether a word without value is there.
    pub fn flag(&mut self, name: &str) -> bool {
        let at = self.plain.iter().position(|word| *word == name);
        at.map(|at| self.plain.remove(at)).is_some()
    }

    /// The next plain word.
    pub fn next(&mut self, what: &str) -> Result<&'a str, String> {
        if self.plain.is_empty() {
            return Err(format!("{what} is missing"));
        }
        Ok(self.plain.remove(0))
    }

    /// Nothing may be left.
    pub fn end(&self) -> Result<(), String> {
        match (self.plain.first(), self.options.first()) {
            (Some(word), _) => Err(format!("'{word}' is one word too many")),
            (None, Some((name, _))) => Err(format!("no option '{name}'")),
            (None, None) => Ok(()),
        }
    }
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

/// `WxH`
pub fn size(text: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("'{text}' is not WIDTHxHEIGHT");
    let (width, height) = text.split_once('x').ok_or_else(wrong)?;
    Ok((number32(width).map_err(|_| wrong())?, number32(height).map_err(|_| wrong())?))
}

/// `X,Y`
fn point<T: std::str::FromStr>(text: &str) -> Result<(T, T), String> {
    let wrong = || format!("'{text}' is not X,Y");
    let (x, y) = text.split_once(',').ok_or_else(wrong)?;
    Ok((x.parse().map_err(|_| wrong())?, y.parse().map_err(|_| wrong())?))
}

fn mode(words: &mut Words<'_>, vgpu: &Arc<Vgpu>) -> Result<Answer, String> {
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

fn pattern(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let pattern = Pattern::parse(words.next("the pattern's name")?)?;
    let seed = words.option("seed", number)?.unwrap_or(0);
    let buffer = words.option("buffer", number)?;
    words.end()?;
    draw(vgpu, buffer, |surface| surface.pattern(pattern, seed))
}

fn rect(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
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

fn text(rest: &str, vgpu: &Vgpu) -> Result<Answer, String> {
    const INK: Color = [255, 255, 255, 255];
    const PAPER: Color = [0, 0, 0, 255];
    let (place, text) = rest.split_once(' ').ok_or("text X,Y WORDS")?;
    let (x, y) = point(place)?;
    draw(vgpu, None, |surface| surface.text(x, y, text, INK, PAPER))
}

fn flip(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let to = match words.next("") {
        Ok(word) => Some(usize::try_from(number(word)?).map_err(|e| e.to_string())?),
        Err(_) => None,
    };
    words.end()?;
    vgpu.device().flip(to)?;
    Ok(Answer::Done)
}

fn on_or_off(words: &mut Words<'_>) -> Result<bool, String> {
    let on = match words.next("on or off")? {
        "on" => true,
        "off" => false,
        word => return Err(format!("'{word}': on or off")),
    };
    words.end()?;
    Ok(on)
}

fn flip_on_query(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let on = on_or_off(words)?;
    vgpu.device().flip_on_query = on;
    Ok(Answer::Done)
}

fn plane(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
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

fn cursor(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
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

/// A cursor's image: of one colour, or an arrow with a soft shadow.
pub fn cursor_picture(side: u32, color: Option<Color>, sealed: bool) -> io::Result<Picture> {
    let format = Format::ARGB8888;
    let stride = side * format.bytes();
    let geometry = Geometry { format, modifier: 0, width: side, height: side, stride };
    let memory = Arc::new(Memory::new("vgpu-cursor", geometry.bytes(), sealed)?);
    let surface = Surface::new(geometry, vec![(memory.clone(), 0)]);
    let arrow = |x: u32, y: u32| {
        let tip = side / 2;
        match (x <= y && y < tip, x == 0 || x == y || y + 1 == tip) {
            (true, true) => [0, 0, 0, 255],
            (true, false) => [255, 255, 255, 255],
            // The shadow lies two pixels below and to the right.
            _ if x >= 2 && y >= 2 && x <= y && y - 2 < tip => [0, 0, 0, 96],
            _ => [0, 0, 0, 0],
        }
    };
    surface.draw(surface.whole(), |x, y| color.unwrap_or_else(|| arrow(x, y)))?;
    Ok(Picture { geometry, memory, offset: 0 })
}

fn fault(words: &[&str], vgpu: &Vgpu) -> Result<Answer, String> {
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

fn shrink_buffer(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let bytes = number(words.next("the number of bytes")?)?;
    words.end()?;
    let device = vgpu.device();
    // What a client of a display region maps is the region, whose plane is off where the memory has become too small for it.
    let memory = match device.personality.region() {
        Some((_, memory)) => memory,
        None => device.primary().ok_or("the plane is off")?.memory,
    };
    memory.resize(bytes).map_err(|e| e.to_string())?;
    Ok(Answer::Done)
}

fn punch(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
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

fn on_reset(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
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

fn stats(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
    let reset = words.flag("reset");
    words.end()?;
    let mut device = vgpu.device();
    if reset {
        device.stats.reset();
        return Ok(Answer::Done);
    }
    let mut stats = device.stats.json();
    let ids = device.personality.ids();
    let of =
        |held: bool| ids.iter().filter(|(_, h)| *h || !held).map(|(id, _)| *id).collect::<Vec<_>>();
    stats["ids"] = of(false).into();
    stats["held_ids"] = of(true).into();
    stats["events_set"] = device.events.is_set().into();
    if let Some(region) = &device.edid {
        stats["edid_hex"] = edid::hex(region.blob()).into();
        stats["link_state"] = edid::link_name(region.link_state()).into();
    }
    Ok(Answer::Json(stats))
}

fn stamps(vgpu: &Vgpu) -> Value {
    let device = vgpu.device();
    device
        .stamps
        .iter()
        .map(|stamp| {
            let id = device.personality.id_of(&stamp.place).unwrap_or(0);
            json!([stamp.sequence, id, stamp.time, stamp.seen.unwrap_or(0)])
        })
        .collect()
}

fn state(vgpu: &Vgpu) -> Value {
    let scene = vgpu.scene_runs();
    let device = vgpu.device();
    let primary = device.primary();
    let screen = &device.screen;
    let geometry =
        primary.as_ref().map(|p| p.geometry).or(screen.mode.as_ref().map(|m| m.geometry));
    let mut state = json!({
        "personality": device.config.personality.name(),
        "driver": match screen.driver { Driver::Guest => "guest", Driver::Host => "host" },
        "plane": if primary.is_some() { "on" } else { "off" },
        "buffers": screen.mode.as_ref().map_or(0, |m| m.buffers.len()),
        "shown": screen.mode.as_ref().map_or(0, |m| m.shown),
        "scene": scene,
        "last_scene": device.last_scene,
        "udmabuf": device.has_udmabuf,
    });
    if let Some(geometry) = geometry {
        state["mode"] = format!("{}x{}", geometry.width, geometry.height).into();
        state["width"] = geometry.width.into();
        state["height"] = geometry.height.into();
        state["stride"] = geometry.stride.into();
        state["fourcc"] = geometry.format.to_string().into();
        state["modifier"] = geometry.modifier.into();
    }
    if let Some(picture) = &primary {
        state["offset"] = picture.offset.into();
        state["dmabuf_id"] = device.personality.id_of(&picture.place()).into();
    }
    if let Some((index, _)) = device.personality.region() {
        state["region_index"] = index.into();
    }
    if let Some(cursor) = &screen.cursor {
        state["cursor"] = json!({
            "size": cursor.picture.geometry.width,
            "x": cursor.x,
            "y": cursor.y,
            "hotspot": cursor.hotspot.map(|(x, y)| vec![x, y]),
        });
    }
    state
}

/// `screenshot [no-cursor] FILE`
fn screenshot(rest: &str, vgpu: &Vgpu) -> Result<Answer, String> {
    let (with_cursor, path) = match rest.strip_prefix("no-cursor ") {
        Some(path) => (false, path.trim_start()),
        None => (true, rest),
    };
    if path.is_empty() {
        return Err("the file's name is missing".into());
    }
    let (primary, cursor) = {
        let device = vgpu.device();
        (device.primary(), device.screen.cursor.clone().filter(|_| with_cursor))
    };
    let mut image = screenshot::read(&primary.ok_or("the plane is off")?)?;
    if let Some(cursor) = &cursor {
        image.compose(cursor)?;
    }
    image.write_png(Path::new(path))?;
    let composed = cursor.is_some();
    Ok(Answer::Json(json!({ "width": image.width, "height": image.height, "cursor": composed })))
}
