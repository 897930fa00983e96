//! What the console shows, and the transitions between those.

use std::sync::Arc;
use std::time::Duration;

use crate::console::{Console, ScanoutSupport, Severity};
use crate::damage::{Canvas, Picture, Rect};
use crate::exchange::{Drawn, Lease, Returned, Shown, Verdict};
use crate::memory::Memory;
use crate::plane::{Geometry, Plane};
use crate::pool::Key;
use crate::problem::Problem;

use super::{GAP, PlaneState, Presenter, Showing, Standing};

/// The smallest size of messages, in pixels.
pub(super) const MESSAGE_SIZE: (u32, u32) = (640, 480);

/// The largest size of messages, so that a few words do not take a gigabyte after a huge picture.
const MESSAGE_LIMIT: u32 = 4096;

pub(super) const DISPLAY_IS_OFF: &str = "The display is off.";

/// What the console shows.
pub(crate) enum Screen<C: Console> {
    /// What it showed before the display.
    Untouched,
    Firmware,
    Message(&'static str),
    /// A dma-buf, which a front end imported.
    Scanout(Key),
    /// A surface.
    Surface(Surface<C>),
    /// A region's memory itself.
    Memory(Arc<Memory>),
}

/// A surface that we draw, of a dma-buf or a region.
pub(crate) struct Surface<C: Console> {
    canvas: C::Canvas,
    width: u32,
    height: u32,
    key: Option<Key>,
}

impl<C: Console> Surface<C> {
    /// What the console shows.
    #[cfg(test)]
    pub fn canvas(&self) -> &C::Canvas {
        &self.canvas
    }

    /// Returns width and height in pixels.
    #[cfg(test)]
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// Copies a part of a picture of the same size.
    fn copy(&mut self, picture: &Picture, part: &Rect) {
        let from_stride = picture.width as usize * 4;
        let to_stride = self.canvas.stride();
        let to = self.canvas.pixels();
        let (x, width) = (part.x as usize * 4, part.width as usize * 4);
        for y in part.y as usize..(part.y + part.height) as usize {
            let row = &picture.pixels[y * from_stride + x..][..width];
            to[y * to_stride + x..][..width].copy_from_slice(row);
        }
    }
}

impl<C: Console> Screen<C> {
    pub(super) fn shown(&self) -> Shown {
        match self {
            Self::Scanout(key) => Shown::Scanout(*key),
            Self::Surface(Surface { width, height, key, .. }) => {
                Shown::Surface(*width, *height, *key)
            }
            Self::Memory(_) => Shown::Memory,
            Self::Untouched | Self::Firmware | Self::Message(_) => Shown::Other,
        }
    }

    pub(super) fn scanout(&self) -> Option<Key> {
        match self {
            Self::Scanout(key) => Some(*key),
            _ => None,
        }
    }

    pub(crate) fn name(&self) -> &'static str {
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

impl<C: Console> Presenter<C> {
    /// Shows a dma-buf. `assumed`: what the watcher assumed front ends to do with it.
    pub(super) fn show_buffer(&mut self, lease: &Lease, assumed: ScanoutSupport) -> Showing {
        match self.ask_support(lease) {
            ScanoutSupport::Import => (),
            ScanoutSupport::ReadBack if assumed == ScanoutSupport::ReadBack => (),
            _ => return Showing::Not(Verdict::Again),
        }
        self.note_plane(lease.plane);
        self.show_scanout(lease);
        Showing::Done
    }

    fn show_scanout(&mut self, lease: &Lease) {
        let geometry = lease.plane.geometry;
        let shown = self.screen.scanout();
        if shown != Some(lease.key) || self.standing == Standing::Invalidated {
            if shown.is_none() {
                self.hide_cursor();
            }
            self.import(lease);
            self.scan_out(lease.key);
            self.set_screen(Screen::Scanout(lease.key));
            self.trace(format_args!("scanout of id {}: {geometry}", lease.plane.handle));
        }
        self.console.update_scanout(Rect::full(geometry.width, geometry.height));
    }

    /// Reports the whole scanout as changed.
    pub(super) fn update_scanout(&self) {
        let Screen::Scanout(key) = self.screen else { return };
        let Some(plane) = self.plane().filter(|_| self.held.contains_key(&key)) else { return };
        self.console.update_scanout(Rect::full(plane.geometry.width, plane.geometry.height));
    }

    fn scan_out(&self, key: Key) {
        if let Some(import) = self.held.get(&key).and_then(|held| held.import.as_ref()) {
            self.console.scanout(import);
        }
    }

    /// Shows a picture that was read.
    pub(super) fn show_drawn(&mut self, drawn: &Drawn, now: Duration) -> Showing {
        if let Some((lease, assumed)) = &drawn.lease {
            if self.ask_support(lease) != *assumed {
                return Showing::Not(Verdict::Again);
            }
        }
        self.note_plane(drawn.plane);
        if self.draw(drawn) {
            return Showing::Done;
        }
        // There would be no memory for a message of this size either.
        self.size = MESSAGE_SIZE;
        let Geometry { width, height, .. } = drawn.plane.geometry;
        let bytes = u64::from(width) * u64::from(height) * 4;
        let problem = Problem::NoSurface { width, height, bytes };
        self.count(problem.category());
        self.reporter.say(&self.console, now, Severity::Error, &problem);
        self.forget_plane();
        self.show_message(problem.headline());
        Showing::Not(Verdict::Settled)
    }

    /// Copies what changed to the surface, a new one if necessary. Returns `false` if there is no
    /// memory for it.
    fn draw(&mut self, drawn: &Drawn) -> bool {
        let Geometry { width, height, .. } = drawn.plane.geometry;
        let key = drawn.lease.as_ref().map(|(lease, _)| lease.key);
        let fits =
            matches!(&self.screen, Screen::Surface(s) if (s.width, s.height) == (width, height));
        let all = [Rect::full(width, height)];
        // The watcher may not know yet that a message has replaced the surface.
        let damage: &[Rect] = if fits { &drawn.damage } else { &all };
        if !fits {
            self.hide_cursor();
            let Some(canvas) = self.console.show_surface(width, height) else { return false };
            self.set_screen(Screen::Surface(Surface { canvas, width, height, key }));
        }
        let flipped = self.is_flip(key);
        let Screen::Surface(surface) = &mut self.screen else { return false };
        surface.key = key;
        self.counters.flips += u64::from(flipped);
        drawn.picture.with(|picture| {
            for part in damage {
                surface.copy(picture, part);
            }
        });
        for part in damage {
            self.console.update_surface(*part);
        }
        true
    }

    /// Shows the region's memory itself, or continues to.
    pub(super) fn show_memory(
        &mut self,
        plane: Plane,
        memory: &Arc<Memory>,
        changed: bool,
    ) -> Showing {
        let Geometry { width, height, .. } = plane.geometry;
        if !matches!(&self.screen, Screen::Memory(shown) if Arc::ptr_eq(shown, memory)) {
            if !self.console.show_memory(memory, &plane.geometry) {
                return Showing::Not(Verdict::NoMemory);
            }
            self.set_screen(Screen::Memory(Arc::clone(memory)));
            self.trace(format_args!("memory of region {}: {}", plane.handle, plane.geometry));
        }
        self.counters.direct += 1;
        if changed {
            self.note_plane(plane);
            self.console.update_surface(Rect::full(width, height));
        }
        Showing::Done
    }

    pub(super) fn show_error(
        &mut self,
        message: Option<&'static str>,
        frozen: Option<(Drawn, &'static str)>,
    ) {
        let message = match frozen {
            Some((drawn, headline)) if !self.draw(&drawn) => {
                self.size = MESSAGE_SIZE;
                Some(headline)
            }
            _ => message,
        };
        if let Some(message) = message {
            self.plane_state = PlaneState::Unknown;
            self.hide_cursor();
            self.show_message(message);
        }
    }

    /// The plane is off: its picture stays for a moment. The device's memory itself does not: it
    /// may hold anything by now.
    pub(super) fn miss_plane(&mut self, now: Duration) {
        let shows_plane = matches!(self.screen, Screen::Scanout(_) | Screen::Surface(_));
        match self.plane_state {
            PlaneState::On(plane) if shows_plane => self.plane_state = PlaneState::Gap(plane, now),
            PlaneState::Gap(_, since) if shows_plane && now.saturating_sub(since) < GAP => (),
            _ => self.show_no_plane(),
        }
    }

    pub(super) fn show_no_plane(&mut self) {
        self.hide_cursor();
        self.plane_state = PlaneState::Off;
        let switch_to = !matches!(self.screen, Screen::Firmware);
        if self.console.show_firmware(switch_to) {
            self.drawn_anew();
            if switch_to {
                self.set_screen(Screen::Firmware);
                self.trace(format_args!("firmware"));
            }
        } else if !matches!(self.screen, Screen::Untouched) {
            self.show_message(DISPLAY_IS_OFF);
        } else {
            // Nothing of the device is on screen.
            self.drawn_anew();
        }
    }

    /// Returns the size of a message.
    pub fn message_size(&self) -> (u32, u32) {
        let (width, height) = self.size;
        (width.clamp(MESSAGE_SIZE.0, MESSAGE_LIMIT), height.clamp(MESSAGE_SIZE.1, MESSAGE_LIMIT))
    }

    pub(super) fn show_message(&mut self, text: &'static str) {
        if matches!(self.screen, Screen::Message(shown) if shown == text)
            && self.standing != Standing::Invalidated
        {
            return;
        }
        self.hide_cursor();
        self.drawn_anew();
        let (width, height) = self.message_size();
        self.console.show_message(width, height, text);
        self.set_screen(Screen::Message(text));
        self.trace(format_args!("message: {text}"));
    }

    fn note_plane(&mut self, plane: Plane) {
        self.plane_state = PlaneState::On(plane);
        self.size = (plane.geometry.width, plane.geometry.height);
    }

    /// The plane leaves the screen. If the last answer was that it is off, that remains.
    pub(super) fn forget_plane(&mut self) {
        self.hide_cursor();
        if let PlaneState::On(_) | PlaneState::Gap(..) = self.plane_state {
            self.plane_state = PlaneState::Unknown;
        }
    }

    fn is_flip(&self, key: Option<Key>) -> bool {
        let before = self.screen.shown().key();
        before.is_some() && key.is_some() && before != key
    }

    pub(super) fn set_screen(&mut self, screen: Screen<C>) {
        self.counters.flips += u64::from(self.is_flip(screen.shown().key()));
        if let Screen::Memory(memory) = std::mem::replace(&mut self.screen, screen) {
            self.wishes.returned.push(Returned::Memory(memory));
        }
    }
}
