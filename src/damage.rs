//! What changed in a frame buffer that somebody else draws into.
//!
//! Nobody says what was drawn, so it is found by comparing, row by row, with what was read before. Rows that differ are copied, and
//! compared again with the copy, in [tiles](TILE_PIXELS): the shown picture is thus a snapshot. Whatever happens to the source
//! meanwhile, all that is shown was read, and all that was read is compared again at the next look.
//!
//! While nearly everything moves, comparing finds nothing to save. It is then left out for `BLIND_FRAMES` frames, in which
//! all rows are copied and reported.

#![forbid(unsafe_code)]

use std::io;
use std::ops::Range;

use crate::format::Conversion;
use crate::plane::Geometry;

/// Bytes read at a time from a source that is not mapped: half of a small second-level cache.
const BAND_BYTES: usize = 128 << 10;

/// Changed rows this close together, at most, are one rectangle: the granularity of VNC's dirty bits.
const BAND_ROWS: u32 = 16;

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

/// A frame buffer that somebody else draws into.
pub trait Source {
    /// Copies bytes from an offset on.
    fn read(&self, offset: u64, to: &mut [u8]) -> io::Result<()>;

    /// Whether it is memory: then reading it piece by piece costs no more than at once, and comparing less than reading.
    fn is_mapped(&self) -> bool;

    /// Whether these bytes lie at this offset. Asked of memory only.
    fn equals(&self, offset: u64, bytes: &[u8]) -> bool;
}

/// Keeps a [`Canvas`] equal to a frame buffer.
#[derive(Debug, Default)]
pub struct Snapshot {
    band: Vec<u8>,
    /// The rows as they were read, where they are not what is shown.
    unconverted: Vec<u8>,
    damage: Vec<Rect>,
    busy_frames: u32,
    blind_frames: u32,
    compared: u64,
    copied: u64,
}

impl Snapshot {
    /// Brings the canvas up to date, and says which parts of it changed. Without `compare` all is copied, and said to have changed:
    /// for a new canvas, another size or format, and after an error, which leaves the canvas partly updated.
    pub fn update<'a>(
        &'a mut self,
        source: &dyn Source,
        geometry: &Geometry,
        conversion: Conversion,
        canvas: &mut impl Canvas,
        compare: bool,
    ) -> io::Result<&'a [Rect]> {
        self.damage.clear();
        let mut rows = Rows::new(source, geometry, &mut self.band);
        let shown_row = geometry.width as usize * 4;
        let shown_stride = canvas.stride();
        let shown = canvas.pixels().chunks_mut(shown_stride).map(|row| &mut row[..shown_row]);
        if !conversion.is_identity() {
            self.unconverted.resize(rows.len * geometry.height as usize, 0);
        }
        let mut unconverted = self.unconverted.chunks_exact_mut(rows.len);

        if !compare || self.blind_frames > 0 {
            self.blind_frames = self.blind_frames.saturating_sub(1);
            self.copied += 1;
            for (y, shown) in (0..geometry.height).zip(shown) {
                if conversion.is_identity() {
                    rows.copy(y, shown)?;
                } else if let Some(unconverted) = unconverted.next() {
                    rows.copy(y, unconverted)?;
                    conversion.convert(unconverted, shown);
                }
            }
            self.damage.push(Rect::full(geometry.width, geometry.height));
            return Ok(&self.damage);
        }

        self.compared += 1;
        let mut changed_rows = 0;
        let mut band: Option<Rect> = None;
        for (y, shown) in (0..geometry.height).zip(shown) {
            if y % BAND_ROWS == 0 {
                add(&mut self.damage, band.take());
            }
            let part = if conversion.is_identity() {
                rows.update(y, shown)?.map(|part| part.rect)
            } else if let Some(unconverted) = unconverted.next() {
                let part = rows.update(y, unconverted)?;
                part.map(|Part { rect, bytes }| {
                    let pixels = rect.x as usize * 4..(rect.right() as usize) * 4;
                    conversion.convert(&unconverted[bytes], &mut shown[pixels]);
                    rect
                })
            } else {
                None
            };
            if let Some(rect) = part {
                changed_rows += 1;
                band = Some(band.map_or(rect, |band| band.join(&rect)));
            }
        }
        add(&mut self.damage, band);
        self.learn(changed_rows, geometry.height);
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
}

/// The rows of a source. One that is not mapped is read in bands.
struct Rows<'a> {
    source: &'a dyn Source,
    stride: usize,
    height: u32,
    /// Bytes in a row.
    len: usize,
    pixel_len: usize,
    band: &'a mut Vec<u8>,
    /// The rows in the band.
    held: Range<u32>,
}

/// What changed of a row: where in the picture, and where in the row's bytes.
struct Part {
    rect: Rect,
    bytes: Range<usize>,
}

impl<'a> Rows<'a> {
    fn new(source: &'a dyn Source, geometry: &Geometry, band: &'a mut Vec<u8>) -> Self {
        let stride = geometry.stride as usize;
        let len = geometry
            .format
            .row_bytes(geometry.width)
            .map_or(stride, |bytes| usize::try_from(bytes).unwrap_or(stride));
        let pixel_len = (len / geometry.width as usize).max(1);
        Self { source, stride, height: geometry.height, len, pixel_len, band, held: 0..0 }
    }

    fn offset(&self, y: u32) -> u64 {
        u64::from(y) * self.stride as u64
    }

    /// Copies a row.
    fn copy(&mut self, y: u32, to: &mut [u8]) -> io::Result<()> {
        if self.source.is_mapped() {
            return self.source.read(self.offset(y), to);
        }
        to.copy_from_slice(self.get(y)?);
        Ok(())
    }

    /// Brings a copy of a row up to date; `None`: it was.
    fn update(&mut self, y: u32, known: &mut [u8]) -> io::Result<Option<Part>> {
        if self.source.is_mapped() && self.source.equals(self.offset(y), known) {
            return Ok(None);
        }
        let pixel_len = self.pixel_len;
        let new = self.get(y)?;
        let Some(bytes) = changed_bytes(new, known, TILE_PIXELS * pixel_len) else {
            return Ok(None);
        };
        known[bytes.clone()].copy_from_slice(&new[bytes.clone()]);
        let pixels = |bytes: usize| u32::try_from(bytes / pixel_len).unwrap_or(u32::MAX);
        let (x, width) = (pixels(bytes.start), pixels(bytes.len()));
        Ok(Some(Part { rect: Rect { x, y, width, height: 1 }, bytes }))
    }

    /// A row as it is now, or was a moment ago: what is not mapped is read together with the rows that follow.
    fn get(&mut self, y: u32) -> io::Result<&[u8]> {
        if !self.held.contains(&y) {
            let at_once = if self.source.is_mapped() { 0 } else { BAND_BYTES };
            let rows = u32::try_from((at_once / self.stride).clamp(1, 16)).unwrap_or(1);
            let rows = rows.min(self.height - y);
            self.held = 0..0;
            self.band.resize((rows as usize - 1) * self.stride + self.len, 0);
            self.source.read(self.offset(y), self.band)?;
            self.held = y..y + rows;
        }
        Ok(&self.band[(y - self.held.start) as usize * self.stride..][..self.len])
    }
}

fn add(damage: &mut Vec<Rect>, rect: Option<Rect>) {
    let Some(rect) = rect else { return };
    let full = damage.len() == MAX_RECTS;
    if let Some(last) = damage.last_mut() {
        let same_columns = last.x == rect.x && last.width == rect.width;
        if full || (same_columns && rect.y <= last.bottom()) {
            *last = last.join(&rect);
            return;
        }
    }
    damage.push(rect);
}

/// From the first changed byte to the last one, both widened to whole tiles of this many bytes.
fn changed_bytes(new: &[u8], old: &[u8], tile: usize) -> Option<Range<usize>> {
    let differs = |(new, old): (&[u8], &[u8])| new != old;
    let mut tiles = new.chunks(tile).zip(old.chunks(tile));
    let first = tiles.position(differs)?;
    let last = tiles.rposition(differs).map_or(first, |behind| first + 1 + behind);
    Some(first * tile..((last + 1) * tile).min(new.len()))
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

    struct Frame {
        bytes: Vec<u8>,
        mapped: bool,
        /// So many reads succeed.
        reads: Cell<usize>,
    }

    impl Source for Frame {
        fn read(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
            let left = self.reads.get().checked_sub(1).ok_or(io::ErrorKind::UnexpectedEof)?;
            self.reads.set(left);
            let offset = usize::try_from(offset).unwrap();
            to.copy_from_slice(&self.bytes[offset..][..to.len()]);
            Ok(())
        }

        fn is_mapped(&self) -> bool {
            self.mapped
        }

        fn equals(&self, offset: u64, bytes: &[u8]) -> bool {
            assert!(self.mapped);
            self.bytes[usize::try_from(offset).unwrap()..][..bytes.len()] == *bytes
        }
    }

    struct Fixture {
        geometry: Geometry,
        conversion: Conversion,
        frame: Frame,
        screen: Screen,
        snapshot: Snapshot,
    }

    impl Fixture {
        fn new(fourcc: DrmFourcc, padding: u32, mapped: bool) -> Self {
            let format = Format { fourcc, modifier: DrmModifier::Linear };
            let stride = u32::try_from(format.row_bytes(WIDTH).unwrap()).unwrap() + padding;
            let screen_stride = WIDTH as usize * 4 + 16;
            let mut fixture = Self {
                geometry: Geometry {
                    format,
                    width: WIDTH,
                    height: HEIGHT,
                    stride,
                    size: stride * HEIGHT,
                },
                conversion: Conversion::to_xrgb8888(format).unwrap(),
                frame: Frame {
                    bytes: vec![0; (stride * HEIGHT) as usize],
                    mapped,
                    reads: Cell::new(usize::MAX),
                },
                screen: Screen {
                    stride: screen_stride,
                    pixels: vec![0xee; screen_stride * HEIGHT as usize],
                },
                snapshot: Snapshot::default(),
            };
            assert_eq!(fixture.look(false), [Rect::full(WIDTH, HEIGHT)]);
            fixture
        }

        /// Of memory, and of a file.
        fn both() -> [Self; 2] {
            [true, false].map(|mapped| Self::new(DrmFourcc::Xrgb8888, 64, mapped))
        }

        fn try_look(&mut self, compare: bool) -> io::Result<Vec<Rect>> {
            let Self { snapshot, frame, geometry, conversion, screen } = self;
            snapshot.update(frame, geometry, *conversion, screen, compare).map(<[Rect]>::to_vec)
        }

        fn look(&mut self, compare: bool) -> Vec<Rect> {
            let damage = self.try_look(compare).unwrap();
            self.assert_shown();
            damage
        }

        fn assert_shown(&self) {
            let row = WIDTH as usize * 4;
            let mut expected = vec![0; row];
            for y in 0..HEIGHT as usize {
                let source = &self.frame.bytes[y * self.geometry.stride as usize..];
                self.conversion.convert(source, &mut expected);
                assert_eq!(
                    self.screen.pixels[y * self.screen.stride..][..row],
                    expected,
                    "row {y}"
                );
            }
        }

        /// Changes the first byte of a pixel.
        fn set(&mut self, x: u32, y: u32, value: u8) {
            let pixel = self.geometry.format.row_bytes(1).unwrap();
            let at = u64::from(y) * u64::from(self.geometry.stride) + u64::from(x) * pixel;
            self.frame.bytes[usize::try_from(at).unwrap()] = value;
        }

        fn set_all(&mut self, value: u8) {
            self.frame.bytes.fill(value);
        }
    }

    #[test]
    fn nothing_changed_nothing_reported() {
        for mut fixture in Fixture::both() {
            assert_eq!(fixture.look(true), []);
        }
    }

    #[test]
    fn memory_that_did_not_change_is_not_even_copied() {
        let mut fixture = Fixture::new(DrmFourcc::Xbgr8888, 0, true);
        fixture.frame.reads.set(1);
        fixture.set(3, 4, 9);
        assert_eq!(fixture.look(true).len(), 1);
        assert_eq!(fixture.look(true), []);
    }

    #[test]
    fn a_pixel_is_reported_as_its_tile() {
        for mut fixture in Fixture::both() {
            fixture.set(70, 33, 1);
            assert_eq!(fixture.look(true), [Rect { x: 64, y: 33, width: 64, height: 1 }]);
            fixture.set(199, 0, 1);
            assert_eq!(fixture.look(true), [Rect { x: 192, y: 0, width: 8, height: 1 }]);
            fixture.set(0, 5, 1);
            fixture.set(130, 7, 1);
            assert_eq!(fixture.look(true), [Rect { x: 0, y: 5, width: 192, height: 3 }]);
        }
    }

    #[test]
    fn a_tall_change_is_one_rectangle() {
        for mut fixture in Fixture::both() {
            for y in 10..90 {
                fixture.set(64, y, 1);
            }
            assert_eq!(fixture.look(true), [Rect { x: 64, y: 10, width: 64, height: 80 }]);
        }
    }

    #[test]
    fn while_all_moves_nobody_compares_and_the_way_back_is_found() {
        for mut fixture in Fixture::both() {
            for frame in 0..50 {
                fixture.set_all(frame);
                let damage = fixture.look(true);
                if frame > 0 {
                    assert_eq!(damage, [Rect::full(WIDTH, HEIGHT)]);
                }
            }
            let (compared, copied) = fixture.snapshot.counts();
            assert!(compared < 10 && copied > 40, "{compared} compared, {copied} copied");
            for _ in 0..=BLIND_FRAMES {
                fixture.look(true);
            }
            assert_eq!(fixture.look(true), []);
        }
    }

    #[test]
    fn an_error_in_the_middle_is_mended_by_the_next_look() {
        for mut fixture in Fixture::both() {
            fixture.set_all(3);
            fixture.frame.reads.set(2);
            assert!(fixture.try_look(true).is_err());
            fixture.frame.reads.set(usize::MAX);
            fixture.look(false);
        }
    }

    /// Thousands of frames: comparing shows what copying shows, in every format, and says where.
    #[test]
    fn comparing_and_copying_show_the_same() {
        use DrmFourcc as F;
        let mut random = fastrand::Rng::with_seed(1);
        for fourcc in [F::Xrgb8888, F::Xbgr8888, F::Rgb565, F::Xrgb2101010] {
            for mapped in [true, false] {
                let padding = random.u32(..4) * 16;
                let mut fixture = Fixture::new(fourcc, padding, mapped);
                for _ in 0..500 {
                    change(&mut fixture, &mut random);
                    let before = fixture.screen.pixels.clone();
                    let damage = fixture.look(random.u8(..20) != 0);
                    assert!(damage.len() <= MAX_RECTS);
                    assert_covered(&before, &fixture.screen, &damage);
                }
            }
        }
    }

    /// Nothing, some pixels, a rectangle, or all of it.
    fn change(fixture: &mut Fixture, random: &mut fastrand::Rng) {
        match random.u8(..8) {
            0 => (),
            1 => fixture.set_all(random.u8(..)),
            2..=4 => {
                let (x, y) = (random.u32(..WIDTH), random.u32(..HEIGHT));
                let value = random.u8(..);
                for y in y..random.u32(y..HEIGHT) {
                    for x in x..random.u32(x..WIDTH) {
                        fixture.set(x, y, value);
                    }
                }
            }
            _ => {
                for _ in 0..random.u32(..60) {
                    fixture.set(random.u32(..WIDTH), random.u32(..HEIGHT), random.u8(..));
                }
            }
        }
    }

    fn assert_covered(before: &[u8], screen: &Screen, damage: &[Rect]) {
        let rows = before.chunks(screen.stride).zip(screen.pixels.chunks(screen.stride));
        for (y, (before, after)) in (0..).zip(rows) {
            for (x, (before, after)) in (0..).zip(before.chunks(4).zip(after.chunks(4))) {
                let covered = damage
                    .iter()
                    .any(|r| (r.x..r.right()).contains(&x) && (r.y..r.bottom()).contains(&y));
                assert!(covered || before == after, "({x},{y}) is not in {damage:?}");
            }
        }
    }
}
