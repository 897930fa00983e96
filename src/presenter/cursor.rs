//! The cursor on the console.

use std::time::Duration;

use crate::console::{Console, CursorImage, ScanoutSupport};
use crate::exchange::{CursorView, Lease};
use crate::plane::{Geometry, Plane};
use crate::pool::Key;

use super::Presenter;

/// Guests draw each shape into one buffer, as X servers do. Where the watcher cannot see that, the
/// front ends are shown the buffer again after this time: some of them read it only then.
const UNREAD_AGAIN: Duration = Duration::from_millis(100);

/// A cursor that the console shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// Its buffer.
    pub key: Key,
    /// Its plane, as the device described it.
    pub plane: Plane,
    /// Its pixels, if the watcher could read them.
    pixels: Option<Vec<u8>>,
    /// Whether a front end imports the buffer; if not, the console has the pixels.
    taken: bool,
    /// When the console was last told of the buffer, or of its pixels.
    told: Duration,
}

impl<C: Console> Presenter<C> {
    /// Shows the cursor, or hides it. `again`: even if the console shows it already.
    pub(super) fn show_cursor(&mut self, cursor: CursorView, again: bool, now: Duration) {
        match cursor {
            CursorView::Unchanged => (),
            CursorView::Hidden => self.hide_cursor(),
            CursorView::Shown(lease, pixels) => self.show_pointer(&lease, pixels, again, now),
        }
        self.repeat_cursor(now);
    }

    /// Shows a cursor again that only front ends read, since it may have been drawn in place.
    pub(super) fn repeat_cursor(&mut self, now: Duration) {
        let Some(pointer) = &mut self.pointer else { return };
        if pointer.pixels.is_some() || now.saturating_sub(pointer.told) < UNREAD_AGAIN {
            return;
        }
        pointer.told = now;
        let import = self.held.get(&pointer.key).and_then(|held| held.import.as_ref());
        if import.is_some() {
            self.console.scanout_cursor(import, pointer.plane.hotspot);
        }
    }

    fn show_pointer(&mut self, lease: &Lease, pixels: Option<Vec<u8>>, again: bool, now: Duration) {
        let Lease { key, plane, .. } = *lease;
        let taken = pixels.is_none() || self.takes(lease);
        if self.pointer.as_ref().is_some_and(|shown| shown.taken != taken) {
            self.hide_cursor();
        }
        let known = self.pointer.take().filter(|_| !again);
        let moved = known.as_ref().is_none_or(|b| b.plane.position != plane.position);
        let same_buffer = known.as_ref().is_some_and(|b| b.key == key);
        let same_hotspot = known.as_ref().is_some_and(|b| b.plane.hotspot == plane.hotspot);
        let same_pixels = known.as_ref().is_some_and(|b| b.pixels == pixels || pixels.is_none());
        let mut told = known.map_or(now, |b| b.told);

        let (x, y) = plane.position;
        if let Some(pixels) = pixels.as_ref().filter(|_| !taken) {
            let hotspot = plane.hotspot.unwrap_or_default();
            if !same_pixels || !same_hotspot {
                let Geometry { width, height, .. } = plane.geometry;
                let image = CursorImage { width, height, hotspot, pixels };
                self.console.surface_cursor(Some(&image));
                told = now;
            }
            if moved || !same_hotspot {
                self.console.move_surface_cursor(x, y);
            }
        } else {
            // Some front ends pass on the pixels that the buffer has now.
            if !same_buffer || !same_hotspot || !same_pixels {
                self.import(lease);
                let import = self.held.get(&key).and_then(|held| held.import.as_ref());
                self.console.scanout_cursor(import, plane.hotspot);
                told = now;
            }
            if moved || !same_buffer {
                self.console.move_scanout_cursor(x, y);
            }
        }
        self.pointer = Some(Pointer { key, plane, pixels, taken, told });
    }

    /// Whether front ends import this cursor above the scanout.
    fn takes(&mut self, lease: &Lease) -> bool {
        self.screen.scanout().is_some() && self.ask_support(lease) != ScanoutSupport::None
    }

    /// Whether front ends that import the screen do not import this cursor, whose pixels the
    /// watcher did not read.
    pub(super) fn refuses(&mut self, cursor: &CursorView) -> bool {
        matches!(cursor, CursorView::Shown(lease, None) if self.ask_support(lease) == ScanoutSupport::None)
    }

    pub(super) fn hide_cursor(&mut self) {
        let Some(shown) = self.pointer.take() else { return };
        if shown.taken {
            self.console.scanout_cursor(None, None);
        } else {
            self.console.surface_cursor(None);
        }
    }
}
