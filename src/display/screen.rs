//! What the console shows, and how it comes to show something else.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::console::{Console, Severity, Uptake};
use crate::damage::{Look, Rect};
use crate::device::{Device, Failure};
use crate::format::Conversion;
use crate::plane::{Geometry, Plane, PlaneKind};
use crate::pool::{Buffer, Key, User};
use crate::room::NoRoom;

use super::direct::Direct;
use super::dmabuf::DmaBufPlanes;
use super::problem::Problem;
use super::region::RegionPlane;
use super::surface::{self, Surface};
use super::{Display, Planes};

/// What a look found is not asked for once more in a refresh that comes so soon: no guest flips as fast.
const FRESH: Duration = Duration::from_millis(1);

/// So many refreshes in a row may fail before the picture goes: a mode set takes a moment.
pub(super) const PATIENCE: u32 = 3;

/// A device that is gone or silent, or gives what it should not, is left alone for this long.
pub(super) const RESPITE: Duration = Duration::from_secs(1);

/// The smallest size of messages, in pixels.
pub(super) const MESSAGE_SIZE: (u32, u32) = (640, 480);

/// Nor are they larger than this: a few words need no gigabyte because the picture before them did.
const MESSAGE_LIMIT: u32 = 4096;

pub(super) const DISPLAY_IS_OFF: &str = "The display is off.";

/// What the console shows.
pub(super) enum Screen<C: Console> {
    /// What it showed before we came.
    Untouched,
    Firmware,
    Message(&'static str),
    /// A dma-buf, which a front end imported.
    Scanout(Key),
    /// A surface that we draw; of a dma-buf, or of a region.
    Surface(Surface<C>, Option<Key>),
    /// The memory of a region itself.
    Memory(Direct),
}

impl<C: Console> Screen<C> {
    pub(super) fn buffer(&self) -> Option<Key> {
        match self {
            Self::Scanout(key) => Some(*key),
            Self::Surface(_, key) => *key,
            _ => None,
        }
    }

    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Untouched => "nothing",
            Self::Firmware => "firmware",
            Self::Message(_) => "message",
            Self::Scanout(_) => "scanout",
            Self::Surface(..) => "surface",
            Self::Memory(_) => "memory",
        }
    }
}

impl<D: Device, C: Console, T: Clock> Display<D, C, T> {
    pub(super) fn refresh_dmabuf(&mut self, now: Duration) -> Result<bool, Problem> {
        let Planes::DmaBuf(planes) = &mut self.planes else { return Ok(false) };
        let fresh = self.found.as_ref().filter(|(_, at)| now.saturating_sub(*at) <= FRESH);
        let told = fresh.map(|(info, _)| info);
        let shown = planes.look(&self.device, PlaneKind::Primary, told, &mut self.counters)?;
        // What the pacer was told is no second look.
        let asked = told.is_none() || planes.primary() != told;
        if let Some(pacer) = self.pacer.as_mut().filter(|_| asked) {
            pacer.look(self.clock.now(), planes.primary());
        }
        let Some((key, plane)) = shown else { return Ok(false) };
        self.note_plane(plane);
        self.show_buffer(key, &plane)?;
        Ok(true)
    }

    fn show_buffer(&mut self, key: Key, plane: &Plane) -> Result<(), Problem> {
        let Planes::DmaBuf(DmaBufPlanes { pool, .. }) = &mut self.planes else { return Ok(()) };
        let Some(buffer) = pool.get_mut(key) else { return Ok(()) };
        // Front ends map what they import, as do their clients.
        let uptake = if self.config.import && buffer.dma_buf.can_be_mapped() {
            let Buffer { dma_buf, geometry, host, .. } = buffer;
            self.console.uptake(dma_buf.as_fd(), geometry, host.as_ref())
        } else {
            Uptake::None
        };
        match uptake {
            Uptake::Import => self.show_scanout(key, plane),
            Uptake::ReadBack if self.config.read_back || !self.is_fast_to_read(key, plane) => {
                self.show_scanout(key, plane);
            }
            Uptake::ReadBack | Uptake::None => return self.show_snapshot(key, plane),
        }
        Ok(())
    }

    fn is_fast_to_read(&mut self, key: Key, plane: &Plane) -> bool {
        let Planes::DmaBuf(planes) = &mut self.planes else { return false };
        Conversion::to_xrgb8888(plane.geometry.format).is_some()
            && planes.is_fast_to_read(key, &plane.geometry, &self.clock)
    }

    fn show_scanout(&mut self, key: Key, plane: &Plane) {
        let geometry = plane.geometry;
        let is_scanout = matches!(self.screen, Screen::Scanout(_));
        if self.screen.buffer() != Some(key) || self.redraw || !is_scanout {
            if !is_scanout {
                self.hide_cursor();
            }
            self.import(key);
            self.console_scanout(key);
            self.set_screen(Screen::Scanout(key));
            self.trace(format_args!("scanout of id {}: {geometry}", plane.handle));
        }
        self.console.update_scanout(Rect::full(geometry.width, geometry.height));
    }

    fn console_scanout(&self, key: Key) {
        let Planes::DmaBuf(DmaBufPlanes { pool, .. }) = &self.planes else { return };
        if let Some(import) = pool.get(key).and_then(|buffer| buffer.host.as_ref()) {
            self.console.scanout(import);
        }
    }

    fn show_snapshot(&mut self, key: Key, plane: &Plane) -> Result<(), Problem> {
        let Planes::DmaBuf(DmaBufPlanes { pool, .. }) = &mut self.planes else { return Ok(()) };
        let Some(buffer) = pool.get_mut(key) else { return Ok(()) };
        let geometry = plane.geometry;
        let (what, handle, format) = ("dma-buf with id", plane.handle, geometry.format);
        let conversion = Conversion::to_xrgb8888(format)
            .ok_or(Problem::NoConversion { format, with_gl: true })?;
        let memory = buffer.memory().map_err(|error| Problem::Map { what, handle, error })?;
        let fits = matches!(&self.screen, Screen::Surface(s, _) if s.has_size_of(&geometry));
        if !fits {
            surface::try_reading(&geometry, memory).map_err(|error| Problem::Read {
                what,
                handle,
                error,
            })?;
            self.show_surface(&geometry, conversion, Some(key))?;
        } else if self.screen.buffer() != Some(key) {
            self.exact = true;
            self.repin(Some(key));
        }
        let look = self.look();
        let Self {
            screen: Screen::Surface(surface, shown), planes: Planes::DmaBuf(planes), ..
        } = self
        else {
            return Ok(());
        };
        *shown = Some(key);
        let Some(Ok(memory)) = planes.pool.get_mut(key).map(Buffer::memory) else { return Ok(()) };
        let _reading = memory.begin_reading();
        surface
            .update(&self.console, &geometry, conversion, memory, look)
            .map_err(|error| Problem::Read { what, handle, error })
    }

    pub(super) fn refresh_region(&mut self) -> Result<bool, Problem> {
        let Planes::Region(region) = &mut self.planes else { return Ok(false) };
        let Some((plane, conversion, moved)) = region.look(&self.device, &mut self.counters)?
        else {
            return Ok(false);
        };
        let geometry = plane.geometry;
        let unreadable = |region: &mut RegionPlane, error| {
            region.invalidate();
            Problem::Read { what: "graphics region", handle: plane.handle, error }
        };
        if self.show_memory(&plane, conversion) {
            return Ok(true);
        }
        let Planes::Region(region) = &mut self.planes else { return Ok(false) };
        let fits = matches!(&self.screen, Screen::Surface(s, _) if s.has_size_of(&geometry));
        if !fits {
            let Some(source) = region.source(&self.device) else { return Ok(false) };
            surface::try_reading(&geometry, &source).map_err(|error| unreadable(region, error))?;
        }
        self.note_plane(plane);
        if !fits {
            self.show_surface(&geometry, conversion, None)?;
        }
        if moved {
            self.trace(format_args!("region {}: {geometry}", plane.handle));
        }
        let look = self.look();
        let Self { screen: Screen::Surface(surface, _), planes: Planes::Region(region), .. } = self
        else {
            return Ok(false);
        };
        let Some(source) = region.source(&self.device) else { return Ok(false) };
        if moved && source.is_slow() {
            let slow = format!(
                "graphics region {} cannot be mapped: it is read piece by piece, slowly",
                plane.handle
            );
            self.reporter.say(&self.console, self.clock.now(), Severity::Warning, &slow);
        }
        surface
            .update(&self.console, &geometry, conversion, &source, look)
            .map_err(|error| unreadable(region, error))?;
        Ok(true)
    }

    /// Shows the region's memory itself, or goes on with it, where that is better than a snapshot.
    fn show_memory(&mut self, plane: &Plane, conversion: Conversion) -> bool {
        let Planes::Region(region) = &self.planes else { return false };
        let geometry = plane.geometry;
        match &mut self.screen {
            Screen::Memory(direct) if direct.shows(region.memory()) => {
                // What cannot be read is no reason to hesitate, and the snapshot will say so.
                let Ok(tell) = direct.look() else { return false };
                if direct.is_calm() {
                    self.hesitation = direct.hesitation(self.hesitation);
                    return false;
                }
                self.counters.direct += 1;
                if !(tell || self.exact || self.redraw) {
                    return true;
                }
                direct.tell();
            }
            Screen::Surface(surface, _)
                if self.config.direct
                    && conversion.is_identity()
                    && surface.has_size_of(&geometry)
                    && surface.is_useless(self.hesitation) =>
            {
                let memory =
                    region.memory().filter(|memory| Direct::is_possible(memory, &geometry));
                let Some(Ok(direct)) =
                    memory.map(|memory| Direct::new(Arc::clone(memory), geometry))
                else {
                    return false;
                };
                if !self.console.show_memory(direct.picture().0, &geometry) {
                    return false;
                }
                self.counters.direct += 1;
                self.set_screen(Screen::Memory(direct));
                self.trace(format_args!("memory of region {}: {geometry}", plane.handle));
            }
            _ => return false,
        }
        self.note_plane(*plane);
        self.console.update_surface(Rect::full(geometry.width, geometry.height));
        true
    }

    /// Nobody knows whether the memory that is shown still is the picture: shows what it holds now, as a surface. `false` if there is no
    /// room for it.
    fn freeze(&mut self) -> bool {
        let Screen::Memory(direct) = &self.screen else { return true };
        let (memory, geometry) = direct.picture();
        let memory = Arc::clone(memory);
        let Some(conversion) = Conversion::to_xrgb8888(geometry.format) else { return false };
        if self.show_surface(&geometry, conversion, None).is_err() {
            return false;
        }
        let Screen::Surface(surface, _) = &mut self.screen else { return false };
        surface.update(&self.console, &geometry, conversion, &*memory, Look::Copy).is_ok()
    }

    pub(super) fn show_no_plane(&mut self) {
        self.hide_cursor();
        self.plane = None;
        let switch_to = !matches!(self.screen, Screen::Firmware);
        if self.console.show_firmware(switch_to) {
            if switch_to {
                self.set_screen(Screen::Firmware);
                self.trace(format_args!("firmware"));
            }
        } else if !matches!(self.screen, Screen::Untouched) {
            self.show_message(DISPLAY_IS_OFF);
        }
    }

    pub(super) fn show_problem(&mut self, problem: &Problem) {
        self.failing += 1;
        let lasting = !problem.is_passing() || self.failing > PATIENCE;
        let failure = problem.failure();
        if matches!(failure, Some(Failure::Gone | Failure::Silent)) || problem.is_refusal() {
            self.resume = self.clock.now() + RESPITE;
        }
        let topic = problem.topic();
        if self.failing == 1 || self.trouble.0 != topic {
            self.trouble = (topic, problem.to_string());
        }
        if lasting || problem.is_worth_saying() {
            let text = self.trouble.1.clone();
            self.complain_as(&text, problem, Severity::Error);
        } else {
            self.count(problem);
        }
        if lasting || failure == Some(Failure::Silent) || !self.freeze() {
            self.hide_cursor();
            self.plane = None;
            self.show_message(problem.headline());
        }
        if failure == Some(Failure::Gone) {
            self.invalidate_planes();
        }
    }

    /// Puts a new surface on the console, to be drawn.
    fn show_surface(
        &mut self,
        geometry: &Geometry,
        conversion: Conversion,
        key: Option<Key>,
    ) -> Result<(), Problem> {
        self.hide_cursor();
        let surface =
            Surface::new(&self.console, geometry, conversion).map_err(|NoRoom(bytes)| {
                // Nor would there be room for a message of this size.
                self.size = MESSAGE_SIZE;
                let Geometry { width, height, .. } = *geometry;
                Problem::NoSurface { width, height, bytes }
            })?;
        self.set_screen(Screen::Surface(surface, key));
        Ok(())
    }

    pub(super) fn show_message(&mut self, text: &'static str) {
        if matches!(self.screen, Screen::Message(shown) if shown == text) && !self.redraw {
            return;
        }
        self.hide_cursor();
        self.redraw = false;
        let width = self.size.0.clamp(MESSAGE_SIZE.0, MESSAGE_LIMIT);
        let height = self.size.1.clamp(MESSAGE_SIZE.1, MESSAGE_LIMIT);
        self.console.show_message(width, height, text);
        self.set_screen(Screen::Message(text));
        self.trace(format_args!("message: {text}"));
    }

    /// Remembers what the device shows, and notices mode sets.
    pub(super) fn note_plane(&mut self, plane: Plane) {
        let mode = |plane: &Plane| (plane.geometry.width, plane.geometry.height);
        if self.plane.as_ref().map(mode) != Some(mode(&plane)) {
            self.cursor.forget();
        }
        self.plane = Some(plane);
        self.size = (plane.geometry.width, plane.geometry.height);
    }

    pub(super) fn set_screen(&mut self, screen: Screen<C>) {
        self.repin(screen.buffer());
        self.screen = screen;
    }

    /// The screen now shows this buffer.
    fn repin(&mut self, new: Option<Key>) {
        let old = self.screen.buffer();
        if old.is_some() && new.is_some() && old != new {
            self.counters.flips += 1;
        }
        self.move_pin(old, new, User::Scanout);
    }

    pub(super) fn import(&mut self, key: Key) {
        let Planes::DmaBuf(DmaBufPlanes { pool, .. }) = &mut self.planes else { return };
        let Some(buffer) = pool.get_mut(key) else { return };
        if buffer.host.is_none() {
            self.counters.imports += 1;
            buffer.host = Some(self.console.import(buffer.dma_buf.as_fd(), &buffer.geometry));
        }
    }
}
