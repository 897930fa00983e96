//! What changed in a frame buffer that somebody else draws into.
//!
//! Nobody says what was drawn, so it is found by comparing with the picture that is shown already: rows are read in bands that
//! stay in the processor's cache, compared in [tiles](TILE_PIXELS), and copied where they differ. The shown picture is thus a
//! snapshot: whatever happens to the source meanwhile, all that is shown was read, and all that was read is compared again
//! at the next look.
//!
//! While nearly everything moves, comparing finds nothing to save. It is then left out for `BLIND_FRAMES` frames, in which
//! all rows are copied and reported.

#![forbid(unsafe_code)]

use std::io;

use crate::format::Conversion;
use crate::plane::Geometry;

/// Bytes read at a time: half of a small second-level cache, so that what was read is compared before it leaves.
const BAND_BYTES: usize = 128 << 10;

/// Columns are told apart in groups of as many pixels: 16 cache lines, or 4 of VNC's dirty bits.
pub const TILE_PIXELS: usize = 64;

/// No more rectangles than this come from one frame; neighbours are joined where there are more.
pub const MAX_RECTS: usize = 32;

/// After so many frames in a row in which nearly all rows changed, looking stops.
const BUSY_FRAMES: u32 = 4;

/// For so many frames nobody looks; then one is compared again.
const BLIND_FRAMES: u32 = 15;

/// A rectangle of a picture, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the fields say it")]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Rect {
    /// The whole of a picture.
    pub fn full(width: u32, height: u32) -> Self {
        Self { x: 0, y: 0, width, height }
    }

    fn right(&self) -> u32 {
        self.x + self.width
    }

    fn bottom(&self) -> u32 {
        self.y + self.height
    }

    /// The smallest rectangle around both.
    fn join(&self, other: &Self) -> Self {
        let (x, y) = (self.x.min(other.x), self.y.min(other.y));
        Self {
            x,
            y,
            width: self.right().max(other.right()) - x,
            height: self.bottom().max(other.bottom()) - y,
        }
    }
}

/// A picture in XRGB8888 that somebody shows: what [`Snapshot`] keeps up to date.
pub trait Canvas {
    /// Bytes from a row to the next.
    fn stride(&self) -> usize;

    /// All rows.
    fn pixels(&mut self) -> &mut [u8];
}

/// A picture of our own, without padding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// XRGB8888.
    pub pixels: Vec<u8>,
}

impl Picture {
    /// A black one.
    pub fn new(width: u32, height: u32) -> Self {
        Self { width, height, pixels: vec![0; width as usize * height as usize * 4] }
    }
}

impl Canvas for Picture {
    fn stride(&self) -> usize {
        self.width as usize * 4
    }

    fn pixels(&mut self) -> &mut [u8] {
        &mut self.pixels
    }
}

/// Keeps a [`Canvas`] equal to a frame buffer.
#[derive(Debug, Default)]
pub struct Snapshot {
    band: Vec<u8>,
    row: Vec<u8>,
    damage: Vec<Rect>,
    busy_frames: u32,
    blind_frames: u32,
    compared: u64,
    copied: u64,
}

impl Snapshot {
    /// Brings the canvas up to date, and says which parts of it changed.
    ///
    /// `read` copies bytes of the frame buffer from an offset on. `all` says that the canvas holds
    /// nothing worth comparing with. On an error the canvas is partly updated, which the next look mends.
    pub fn update<'a>(
        &'a mut self,
        read: &dyn Fn(u64, &mut [u8]) -> io::Result<()>,
        geometry: &Geometry,
        conversion: Conversion,
        canvas: &mut impl Canvas,
        all: bool,
    ) -> io::Result<&'a [Rect]> {
        self.damage.clear();
        let compare = !all && self.blind_frames == 0;
        let changed_rows = self.bands(read, geometry, conversion, canvas, compare)?;
        if compare {
            self.compared += 1;
            self.learn(changed_rows, geometry.height);
        } else {
            self.copied += 1;
            self.blind_frames = self.blind_frames.saturating_sub(1);
            self.damage.push(Rect::full(geometry.width, geometry.height));
        }
        Ok(&self.damage)
    }

    /// Frames that were compared, and frames that were only copied, so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.compared, self.copied)
    }

    fn learn(&mut self, changed_rows: u32, rows: u32) {
        if changed_rows > rows - rows / 8 {
            self.busy_frames += 1;
            if self.busy_frames >= BUSY_FRAMES {
                self.blind_frames = BLIND_FRAMES;
            }
        } else {
            self.busy_frames = 0;
        }
    }

    /// Returns the number of rows that changed.
    fn bands(
        &mut self,
        read: &dyn Fn(u64, &mut [u8]) -> io::Result<()>,
        geometry: &Geometry,
        conversion: Conversion,
        canvas: &mut impl Canvas,
        compare: bool,
    ) -> io::Result<u32> {
        let stride = geometry.stride as usize;
        let source_row = geometry
            .format
            .row_bytes(geometry.width)
            .map_or(stride, |bytes| usize::try_from(bytes).unwrap_or(stride));
        let shown_row = geometry.width as usize * 4;
        let shown_stride = canvas.stride();
        let shown = canvas.pixels();
        let band_rows = (BAND_BYTES / stride).clamp(1, 16);
        self.row.resize(shown_row, 0);

        let mut changed_rows = 0;
        let mut first = 0;
        while first < geometry.height {
            let rows = u32::try_from(band_rows).unwrap_or(1).min(geometry.height - first);
            self.band.resize((rows as usize - 1) * stride + source_row, 0);
            read(u64::from(first) * stride as u64, &mut self.band)?;
            let mut band_damage: Option<Rect> = None;
            for row in 0..rows {
                let source = &self.band[row as usize * stride..][..source_row];
                let y = first + row;
                let target = &mut shown[y as usize * shown_stride..][..shown_row];
                let source = if conversion.is_identity() {
                    source
                } else {
                    conversion.convert(source, &mut self.row);
                    &self.row
                };
                if compare {
                    let Some((x, width)) = changed_columns(source, target) else { continue };
                    changed_rows += 1;
                    let rect = Rect { x, y, width, height: 1 };
                    band_damage = Some(band_damage.map_or(rect, |band| band.join(&rect)));
                }
                target.copy_from_slice(source);
            }
            if let Some(rect) = band_damage {
                self.add(rect);
            }
            first += rows;
        }
        Ok(changed_rows)
    }

    fn add(&mut self, rect: Rect) {
        let full = self.damage.len() == MAX_RECTS;
        if let Some(last) = self.damage.last_mut() {
            let same_columns = last.x == rect.x && last.width == rect.width;
            if full || (same_columns && rect.y <= last.bottom()) {
                *last = last.join(&rect);
                return;
            }
        }
        self.damage.push(rect);
    }
}

/// First changed pixel and number of pixels up to the last changed one, both widened to whole tiles.
fn changed_columns(new: &[u8], old: &[u8]) -> Option<(u32, u32)> {
    const TILE: usize = TILE_PIXELS * 4;
    if new == old {
        return None;
    }
    let differs = |(new, old): (&[u8], &[u8])| new != old;
    let mut tiles = new.chunks(TILE).zip(old.chunks(TILE));
    let first = tiles.position(differs)?;
    let last = tiles.rposition(differs).map_or(first, |behind| first + 1 + behind);
    let (from, to) = (first * TILE_PIXELS, ((last + 1) * TILE_PIXELS).min(new.len() / 4));
    Some((u32::try_from(from).ok()?, u32::try_from(to - from).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;
    use drm_fourcc::{DrmFourcc, DrmModifier};
    use std::cell::Cell;

    const WIDTH: u32 = 200;
    const HEIGHT: u32 = 100;

    struct Screen {
        stride: usize,
        pixels: Vec<u8>,
    }

    impl Canvas for Screen {
        fn stride(&self) -> usize {
            self.stride
        }

        fn pixels(&mut self) -> &mut [u8] {
            &mut self.pixels
        }
    }

    fn geometry(stride: u32) -> Geometry {
        let format = Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::Linear };
        Geometry { format, width: WIDTH, height: HEIGHT, stride, size: stride * HEIGHT }
    }

    struct Fixture {
        geometry: Geometry,
        source: Vec<u8>,
        screen: Screen,
        snapshot: Snapshot,
    }

    impl Fixture {
        fn new(stride: u32) -> Self {
            let screen_stride = WIDTH as usize * 4 + 16;
            let mut fixture = Self {
                geometry: geometry(stride),
                source: vec![0; (stride * HEIGHT) as usize],
                screen: Screen {
                    stride: screen_stride,
                    pixels: vec![0xee; screen_stride * HEIGHT as usize],
                },
                snapshot: Snapshot::default(),
            };
            assert_eq!(fixture.look(true), [Rect::full(WIDTH, HEIGHT)]);
            fixture
        }

        fn look(&mut self, all: bool) -> Vec<Rect> {
            let source = &self.source;
            let read = |offset: u64, to: &mut [u8]| {
                let offset = usize::try_from(offset).unwrap();
                to.copy_from_slice(&source[offset..offset + to.len()]);
                Ok(())
            };
            let damage = self
                .snapshot
                .update(&read, &self.geometry, Conversion::Identity, &mut self.screen, all)
                .unwrap()
                .to_vec();
            self.assert_shown();
            damage
        }

        fn assert_shown(&self) {
            let row = WIDTH as usize * 4;
            for y in 0..HEIGHT as usize {
                assert_eq!(
                    self.screen.pixels[y * self.screen.stride..][..row],
                    self.source[y * self.geometry.stride as usize..][..row],
                    "row {y}"
                );
            }
        }

        fn set(&mut self, x: u32, y: u32, value: u8) {
            self.source[(y * self.geometry.stride + x * 4) as usize] = value;
        }

        fn set_all(&mut self, value: u8) {
            self.source.fill(value);
        }
    }

    #[test]
    fn nothing_changed_nothing_reported() {
        let mut fixture = Fixture::new(WIDTH * 4);
        assert_eq!(fixture.look(false), []);
    }

    #[test]
    fn a_pixel_is_reported_as_its_tile() {
        let mut fixture = Fixture::new(WIDTH * 4 + 64);
        fixture.set(70, 33, 1);
        assert_eq!(fixture.look(false), [Rect { x: 64, y: 33, width: 64, height: 1 }]);
        fixture.set(199, 0, 1);
        assert_eq!(fixture.look(false), [Rect { x: 192, y: 0, width: 8, height: 1 }]);
        fixture.set(0, 5, 1);
        fixture.set(130, 7, 1);
        assert_eq!(fixture.look(false), [Rect { x: 0, y: 5, width: 192, height: 3 }]);
    }

    #[test]
    fn a_tall_change_is_one_rectangle() {
        let mut fixture = Fixture::new(WIDTH * 4);
        for y in 10..90 {
            fixture.set(64, y, 1);
        }
        assert_eq!(fixture.look(false), [Rect { x: 64, y: 10, width: 64, height: 80 }]);
    }

    #[test]
    fn while_all_moves_nobody_compares_and_the_way_back_is_found() {
        let mut fixture = Fixture::new(WIDTH * 4);
        for frame in 0..50 {
            fixture.set_all(frame);
            let damage = fixture.look(false);
            if frame > 0 {
                assert_eq!(damage, [Rect::full(WIDTH, HEIGHT)]);
            }
        }
        let (compared, copied) = fixture.snapshot.counts();
        assert!(compared < 10 && copied > 40, "{compared} compared, {copied} copied");
        for _ in 0..=BLIND_FRAMES {
            fixture.look(false);
        }
        assert_eq!(fixture.look(false), []);
    }

    #[test]
    fn an_error_in_the_middle_is_mended_by_the_next_look() {
        let mut fixture = Fixture::new(WIDTH * 4);
        fixture.set_all(3);
        let reads = Cell::new(0);
        let source = fixture.source.clone();
        let read = |offset: u64, to: &mut [u8]| {
            reads.set(reads.get() + 1);
            if reads.get() > 2 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let offset = usize::try_from(offset).unwrap();
            to.copy_from_slice(&source[offset..offset + to.len()]);
            Ok(())
        };
        let result = fixture.snapshot.update(
            &read,
            &fixture.geometry,
            Conversion::Identity,
            &mut fixture.screen,
            false,
        );
        assert!(result.is_err());
        fixture.look(false);
    }

    #[test]
    fn rectangles_are_bounded_and_cover_all_that_changed() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut fixture = Fixture::new(WIDTH * 4);
        for _ in 0..500 {
            let changes: Vec<(u32, u32)> = (0..random.u32(..60))
                .map(|_| (random.u32(..WIDTH), random.u32(..HEIGHT)))
                .collect();
            for &(x, y) in &changes {
                let value = fixture.source[(y * fixture.geometry.stride + x * 4) as usize];
                fixture.set(x, y, value.wrapping_add(random.u8(1..4)));
            }
            let before = fixture.screen.pixels.clone();
            let damage = fixture.look(false);
            assert!(damage.len() <= MAX_RECTS);
            for (x, y) in changes {
                let at = y as usize * fixture.screen.stride + x as usize * 4;
                let changed = before[at] != fixture.screen.pixels[at];
                let covered = damage
                    .iter()
                    .any(|r| (r.x..r.right()).contains(&x) && (r.y..r.bottom()).contains(&y));
                assert!(covered || !changed, "({x},{y}) is not in {damage:?}");
            }
        }
    }
}
