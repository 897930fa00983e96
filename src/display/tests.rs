//! The display's rules, tested between fakes.

mod cursor;
mod descriptors;
mod direct;
mod dmabuf;
mod edid;
mod events;
mod gap;
mod messages;
mod pacing;
mod random;
mod region;
mod reset;
mod share;
mod soak;
mod switches;
mod thread;

use crate::console::ScanoutSupport;
use crate::testing::{Call, FakeDevice, Fixture, plane};

use crate::presenter::Screen;

use super::{Config, Mode};

const OFF: &str = "The display is off.";

/// A device with a picture of 32 by 16 pixels in a dma-buf with id 1, each byte 0x11, and no
/// cursor.
fn dma_buf_device() -> FakeDevice {
    let device = FakeDevice::default();
    device.show(plane(1, 32, 16), 0x11);
    device
}

/// Its display, with a front end that imports dma-bufs.
fn scanout() -> Fixture {
    let fixture = surface();
    fixture.console.set().support = ScanoutSupport::Import;
    fixture
}

/// Its display, without such a front end.
fn surface() -> Fixture {
    Fixture::new(Mode::DmaBuf, Config::default(), &dma_buf_device())
}

/// A display whose guest rotates this many buffers.
fn rotating(buffers: u32) -> Fixture {
    let device = FakeDevice::default();
    for id in 1..=buffers {
        device.add(&plane(id, 16, 16), 0);
    }
    device.point(crate::testing::cursor(100, 1, 1), 0);
    let fixture = Fixture::new(Mode::DmaBuf, Config::default(), &device);
    fixture.console.set().support = ScanoutSupport::Import;
    fixture
}

/// A device with a picture of 32 by 16 pixels in region 16, each byte 0x11.
fn region() -> Fixture {
    let device = FakeDevice::default();
    device.add_region(16, 1 << 16, 0x11);
    device.set().primary = plane(16, 32, 16);
    Fixture::new(Mode::Region, Config::default(), &device)
}

/// Returns the pixels of the surface that is shown, row by row, without padding.
fn shown(fixture: &mut Fixture) -> Vec<u32> {
    let pixel =
        |bytes: &[u8]| bytes.iter().rev().fold(0, |all, &byte| (all << 8) | u32::from(byte));
    if let Some(seen) = &fixture.console.get().memory {
        return seen.rows.chunks_exact(4).map(pixel).collect();
    }
    let display = fixture.display();
    let Screen::Surface(surface) = display.presenter.screen() else {
        panic!("no surface is shown");
    };
    let (canvas, (width, _)) = (surface.canvas(), surface.size());
    canvas
        .rows
        .chunks_exact(canvas.stride)
        .flat_map(|row| row[..width as usize * 4].chunks_exact(4).map(pixel))
        .collect()
}

/// Returns a field of the display's status, by its path.
fn status(fixture: &mut Fixture, path: &str) -> serde_json::Value {
    fixture.display().status().pointer(path).cloned().unwrap_or_default()
}

/// Returns how often something of this kind failed, by the display's status.
fn errors(fixture: &mut Fixture, kind: &str) -> u64 {
    let all = status(fixture, "/errors");
    let of_kind = all.as_array().unwrap().iter().find(|errors| errors["kind"] == kind);
    of_kind.map_or(0, |errors| errors["count"].as_u64().unwrap())
}

fn is_update(call: &Call) -> bool {
    matches!(call, Call::UpdateScanout(_) | Call::UpdateSurface(_))
}
