//! Commands that tell what the device did and shows.

use std::path::Path;

use serde_json::{Value, json};

use crate::arguments::Words;
use crate::hardware::edid;
use crate::screen::Driver;
use crate::screenshot;
use crate::vgpu::Vgpu;

use super::Answer;

pub fn stats(words: &mut Words<'_>, vgpu: &Vgpu) -> Result<Answer, String> {
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

pub fn stamps(vgpu: &Vgpu) -> Value {
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

pub fn state(vgpu: &Vgpu) -> Value {
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
pub fn screenshot(rest: &str, vgpu: &Vgpu) -> Result<Answer, String> {
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
