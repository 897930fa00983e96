//! The picture that the watcher read of a plane, and that surfaces are copied from.

use std::io;

use crate::allocate::OutOfMemory;
use crate::damage::{Comparison, Counts, Picture, Rect, Snapshot, Source};
use crate::exchange::SharedPicture;
use crate::format::{Conversion, Format};
use crate::plane::Geometry;

/// A picture that is kept equal to a plane's.
pub struct Drawing {
    picture: SharedPicture,
    width: u32,
    height: u32,
    snapshot: Snapshot,
    /// The format that was read last; `None`: there is nothing to compare with.
    drawn: Option<Format>,
}

impl Drawing {
    /// Allocates a picture, to be read by the first update.
    pub fn new(geometry: &Geometry, conversion: Conversion) -> Result<Self, OutOfMemory> {
        let Geometry { width, height, .. } = *geometry;
        let mut snapshot = Snapshot::default();
        snapshot.prepare_surface(geometry, conversion)?;
        let picture = SharedPicture::new(Picture::new(width, height)?);
        Ok(Self { picture, width, height, snapshot, drawn: None })
    }

    /// Whether it has the size of this plane.
    pub fn has_size_of(&self, geometry: &Geometry) -> bool {
        (self.width, self.height) == (geometry.width, geometry.height)
    }

    /// Returns the picture.
    pub fn picture(&self) -> SharedPicture {
        self.picture.clone()
    }

    /// Reads what changed, and returns where. Fails if the pixels cannot be read.
    pub fn update(
        &mut self,
        geometry: &Geometry,
        conversion: Conversion,
        source: &dyn Source,
        comparison: Comparison,
    ) -> io::Result<Vec<Rect>> {
        let comparison =
            if self.drawn == Some(geometry.format) { comparison } else { Comparison::Copy };
        self.drawn = None;
        let Self { picture, snapshot, .. } = self;
        let damage = picture.with(|picture| {
            snapshot.update(source, geometry, conversion, picture, comparison).map(<[Rect]>::to_vec)
        })?;
        self.drawn = Some(geometry.format);
        Ok(damage)
    }

    /// Whether a copy gains nothing: see [`Snapshot::is_useless`].
    pub fn is_useless(&self, times: u32) -> bool {
        self.snapshot.is_useless(times)
    }

    /// Returns the number of frames so far.
    pub fn counts(&self) -> Counts {
        self.snapshot.counts()
    }
}
