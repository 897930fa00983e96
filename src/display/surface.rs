//! A plane shown as a surface: a snapshot of its pixels, in memory of the host.

use std::io;

use crate::console::Console;
use crate::damage::{Counts, Look, Snapshot, Source};
use crate::format::{Conversion, Format};
use crate::plane::Geometry;
use crate::room::NoRoom;

/// What the console shows while it shows a surface.
pub struct Surface<C: Console> {
    canvas: C::Canvas,
    width: u32,
    height: u32,
    snapshot: Snapshot,
    /// The format of the pixels that were drawn; `None`: the canvas holds nothing worth comparing with.
    drawn: Option<Format>,
}

impl<C: Console> Surface<C> {
    /// Puts a surface for pictures like this on the console, if there is room for it and for what is beside it. It is drawn by the first
    /// update.
    pub fn new(console: &C, geometry: &Geometry, conversion: Conversion) -> Result<Self, NoRoom> {
        let Geometry { width, height, .. } = *geometry;
        let mut snapshot = Snapshot::default();
        snapshot.make_room(geometry, conversion)?;
        let pixels = u64::from(width) * u64::from(height);
        let canvas = console.show_surface(width, height).ok_or(NoRoom(pixels * 4))?;
        Ok(Self { canvas, width, height, snapshot, drawn: None })
    }

    /// Whether pictures of this size can go on this surface.
    pub fn has_size_of(&self, geometry: &Geometry) -> bool {
        (self.width, self.height) == (geometry.width, geometry.height)
    }

    /// Draws what changed, and tells the console. Fails if the pixels cannot be read.
    pub fn update(
        &mut self,
        console: &C,
        geometry: &Geometry,
        conversion: Conversion,
        source: &dyn Source,
        look: Look,
    ) -> io::Result<()> {
        let look = if self.drawn == Some(geometry.format) { look } else { Look::Copy };
        self.drawn = None;
        let canvas = &mut self.canvas;
        let damage = self.snapshot.update(source, geometry, conversion, canvas, look)?;
        self.drawn = Some(geometry.format);
        for rect in damage {
            console.update_surface(*rect);
        }
        Ok(())
    }

    /// Whether a snapshot gains nothing: see [`Snapshot::is_useless`].
    pub fn is_useless(&self, times: u32) -> bool {
        self.snapshot.is_useless(times)
    }

    /// What the console shows.
    #[cfg(test)]
    pub fn canvas(&self) -> &C::Canvas {
        &self.canvas
    }

    /// Pixels in a row, and rows.
    #[cfg(test)]
    pub fn size(&self) -> (u32, u32) {
        (self.width, self.height)
    }

    /// How many frames there were so far.
    pub fn counts(&self) -> Counts {
        self.snapshot.counts()
    }
}

/// Reads the first and the last pixel, so that a picture that cannot be read does not replace the one that is shown.
pub fn try_reading(geometry: &Geometry, source: &dyn Source) -> io::Result<()> {
    let size = geometry.bytes_needed();
    let mut pixel = [0; 4];
    let (len, last) = if size < 4 { (2, 0) } else { (4, size - 4) };
    source.read(0, &mut pixel[..len])?;
    source.read(last, &mut pixel[..len])
}
