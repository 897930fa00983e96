//! The cursor plane: when to ask for it, what changed of it, and how the console shows it.

use std::os::fd::AsFd;

use drm_fourcc::DrmFourcc;

use crate::clock::Clock;
use crate::console::{Console, CursorImage, Severity, Uptake};
use crate::device::{Device, Failure};
use crate::format::Conversion;
use crate::plane::{Geometry, Plane, PlaneKind};
use crate::pool::{Buffer, Key, User};
use crate::room;

use super::problem::Problem;
use super::{Display, Planes, Screen};

/// While the device answers "no cursor", it is asked at one refresh of this many: drivers without a cursor plane
/// and drivers whose cursor is off answer alike.
pub const ABSENT_INTERVAL: u32 = 16;

/// What is known of the cursor plane.
#[derive(Debug, Default)]
pub struct Cursor {
    presence: Presence,
    /// What the console shows.
    pub shown: Option<Shown>,
}

#[derive(Debug, Default)]
enum Presence {
    /// To be asked for at the next refresh.
    #[default]
    Unknown,
    /// The device never showed a cursor, and refused the question: asked again only after a reset or a mode set.
    Unsupported,
    /// Off, for so many refreshes more.
    Absent(u32),
    /// Seen: asked for at each refresh.
    Present,
}

/// A cursor on the console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its buffer.
    pub key: Key,
    /// What the device said of it.
    pub plane: Plane,
    /// Its pixels, where the console shows them itself rather than a front end the buffer.
    pub pixels: Option<Vec<u8>>,
}

impl Cursor {
    /// Whether to ask the device at this refresh.
    pub fn is_due(&mut self) -> bool {
        match &mut self.presence {
            Presence::Unknown | Presence::Present => true,
            Presence::Unsupported => false,
            Presence::Absent(refreshes) => {
                *refreshes = refreshes.saturating_sub(1);
                *refreshes == 0
            }
        }
    }

    /// The device showed a cursor.
    pub fn seen(&mut self) {
        self.presence = Presence::Present;
    }

    /// The device has a cursor plane, and it is off.
    pub fn absent(&mut self) {
        if !matches!(self.presence, Presence::Present) {
            self.pause();
        }
    }

    /// The device refused the question. One that had a cursor has a cursor plane, whatever ails it now.
    pub fn refused(&mut self) {
        match self.presence {
            Presence::Present => self.pause(),
            _ => self.presence = Presence::Unsupported,
        }
    }

    /// Asking is not worth it for a while.
    pub fn pause(&mut self) {
        self.presence = Presence::Absent(ABSENT_INTERVAL);
    }

    /// A reset or a mode set: what is known may not hold any more.
    pub fn forget(&mut self) {
        self.presence = Presence::Unknown;
    }
}

impl<D: Device, C: Console, T: Clock> Display<D, C, T> {
    /// `again`: the console is to be told of the cursor even if it shows it already.
    pub(super) fn refresh_cursor(&mut self, again: bool) {
        if !self.cursor.is_due() {
            return;
        }
        let Planes::DmaBuf(planes) = &mut self.planes else { return };
        match planes.look(&self.device, PlaneKind::Cursor, None, &mut self.counters) {
            Ok(Some((key, plane))) => {
                self.cursor.seen();
                if let Err(problem) = self.show_cursor(key, plane, again) {
                    self.complain(&problem, Severity::Warning);
                    self.hide_cursor();
                }
            }
            Ok(None) => {
                self.cursor.absent();
                self.hide_cursor();
            }
            Err(problem) => match problem.failure() {
                Some(Failure::Transient) => (),
                Some(Failure::NotThere | Failure::Unsupported)
                    if matches!(problem, Problem::Query { .. }) =>
                {
                    self.cursor.refused();
                    self.hide_cursor();
                }
                failure => {
                    // Each question of a device that does not answer costs time.
                    if failure == Some(Failure::Silent) {
                        self.cursor.pause();
                    }
                    self.complain(&problem, Severity::Warning);
                    self.hide_cursor();
                }
            },
        }
    }

    fn show_cursor(&mut self, key: Key, plane: Plane, again: bool) -> Result<(), Problem> {
        let pixels = match self.screen {
            Screen::Scanout(_) if self.takes_cursor(key) => None,
            _ => Some(self.cursor_pixels(key, &plane)?),
        };
        let is_other = |shown: &Shown| shown.pixels.is_some() != pixels.is_some();
        if self.cursor.shown.as_ref().is_some_and(is_other) {
            self.hide_cursor();
        }
        let before = self.cursor.shown.take();
        self.move_pin(before.as_ref().map(|b| b.key), Some(key), User::Cursor);
        let known = before.filter(|_| !again);
        let moved = known.as_ref().is_none_or(|b| b.plane.position != plane.position);
        let same_buffer = known.as_ref().is_some_and(|b| b.key == key);
        let same_hotspot = known.as_ref().is_some_and(|b| b.plane.hotspot == plane.hotspot);
        let same_pixels = known.is_some_and(|b| b.pixels == pixels);

        let (x, y) = plane.position;
        if let Some(pixels) = &pixels {
            let hotspot = plane.hotspot.unwrap_or_default();
            if !same_pixels || !same_hotspot {
                let Geometry { width, height, .. } = plane.geometry;
                let image = CursorImage { width, height, hotspot, pixels };
                self.console.surface_cursor(Some(&image));
            }
            if moved || !same_hotspot {
                self.console.move_surface_cursor(x, y);
            }
        } else {
            if !same_buffer || !same_hotspot {
                self.import(key);
                let Planes::DmaBuf(planes) = &self.planes else { return Ok(()) };
                let import = planes.pool.get(key).and_then(|buffer| buffer.host.as_ref());
                self.console.scanout_cursor(import, plane.hotspot);
            }
            if moved || !same_buffer {
                self.console.move_scanout_cursor(x, y);
            }
        }
        self.cursor.shown = Some(Shown { key, plane, pixels });
        Ok(())
    }

    /// A front end that takes the picture need not take the cursor above it.
    fn takes_cursor(&self, key: Key) -> bool {
        let Planes::DmaBuf(planes) = &self.planes else { return false };
        let Some(Buffer { dma_buf, geometry, host, .. }) = planes.pool.get(key) else {
            return false;
        };
        // Front ends map what they import, as do their clients.
        dma_buf.can_be_mapped()
            && self.console.uptake(dma_buf.as_fd(), geometry, host.as_ref()) != Uptake::None
    }

    fn cursor_pixels(&mut self, key: Key, plane: &Plane) -> Result<Vec<u8>, Problem> {
        let (geometry, handle, what) = (plane.geometry, plane.handle, "cursor dma-buf with id");
        let Planes::DmaBuf(planes) = &mut self.planes else { return Ok(Vec::new()) };
        let Some(buffer) = planes.pool.get_mut(key) else { return Ok(Vec::new()) };
        if !Conversion::to_xrgb8888(geometry.format).is_some_and(Conversion::is_identity) {
            return Err(Problem::NoConversion { format: geometry.format, with_gl: true });
        }
        let memory = buffer.memory().map_err(|error| Problem::Map { what, handle, error })?;
        let row_bytes = geometry.width as usize * 4;
        let mut pixels = room::zeros(row_bytes * geometry.height as usize)
            .map_err(|error| Problem::Read { what, handle, error: error.into() })?;
        let _reading = memory.begin_reading();
        for (y, row) in (0..).zip(pixels.chunks_exact_mut(row_bytes)) {
            memory.read(y * u64::from(geometry.stride), row).map_err(|error| Problem::Read {
                what,
                handle,
                error,
            })?;
        }
        if geometry.format.fourcc == DrmFourcc::Xrgb8888 {
            pixels.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = 0xff);
        }
        Ok(pixels)
    }

    pub(super) fn hide_cursor(&mut self) {
        let Some(shown) = self.cursor.shown.take() else { return };
        if shown.pixels.is_some() {
            self.console.surface_cursor(None);
        } else {
            self.console.scanout_cursor(None, None);
        }
        self.move_pin(Some(shown.key), None, User::Cursor);
    }
}
