//! What changed in a frame buffer that somebody else draws into.
//!
//! Nobody reports what was drawn, so rows are compared with what was read before. Rows that differ
//! are copied, and compared again with the copy, in [tiles](TILE_PIXELS): the picture on screen is
//! a snapshot. Whatever happens to the source meanwhile, everything shown was read, and everything
//! read is compared again at the next update, or within some [samples](Comparison::Sampled).
//!
//! While nearly everything moves, comparing saves nothing. It is then skipped for `BLIND_FRAMES`
//! frames, in which all rows are copied and reported. A frame without any change does not end that
//! by itself: guests draw video more slowly than front ends refresh.

#![forbid(unsafe_code)]

mod sample;

use std::io;
use std::ops::Range;
use std::time::Duration;

use crate::allocate::{self, OutOfMemory};
use crate::format::Conversion;
use crate::plane::Geometry;

use sample::Sampler;

/// Bytes read at a time from a source that is not mapped: half of a small second-level cache.
const BAND_BYTES: usize = 128 << 10;

/// Changed rows this close together are one rectangle: the granularity of VNC's dirty bits. Samples
/// take them together, too.
pub const BAND_ROWS: usize = 16;

/// Every change is seen after this long, or at the first update after it: a thin line where nothing
/// changed before may take as long, what is as high as a character's line is seen at once.
pub const LATEST: Duration = Duration::from_millis(500);

/// Width of a group of columns in pixels: 16 cache lines, or 4 of VNC's dirty bits.
pub const TILE_PIXELS: usize = 64;

/// Maximum number of rectangles of one frame; neighbours are joined where there are more.
pub const MAX_RECTS: usize = 32;

/// Frames in a row in which nearly all rows changed, after which comparing stops.
const BUSY_FRAMES: u32 = 4;

/// This many frames in a row without any change count neither for nor against it: guests that draw
/// video are slower than front ends.
const STILL_FRAMES: u32 = 2;

/// Frames without comparing; then one is compared again.
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
    /// Returns the whole of a picture.
    pub fn full(width: u32, height: u32) -> Self {
        Self { x: 0, y: 0, width, height }
    }

    fn right(&self) -> u32 {
        self.x + self.width
    }

    fn bottom(&self) -> u32 {
        self.y + self.height
    }

    /// Returns the smallest rectangle around both.
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
    /// Allocates a black picture.
    pub fn new(width: u32, height: u32) -> Result<Self, OutOfMemory> {
        let pixels = allocate::zeros(width as usize * height as usize * 4)?;
        Ok(Self { width, height, pixels })
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
    /// Copies bytes at an offset.
    fn read(&self, offset: u64, to: &mut [u8]) -> io::Result<()>;

    /// Whether it is mapped memory: reading that in pieces costs no more than at once, and
    /// comparing less than reading.
    fn is_mapped(&self) -> bool;

    /// Whether these bytes are at this offset. Called only for mapped memory.
    fn equals(&self, offset: u64, bytes: &[u8]) -> bool;
}

/// How to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// Copy everything, and report all of it: for a new canvas, another size or format, and after
    /// an error, which leaves the canvas partly updated.
    Copy,
    /// Compare every row.
    Compare,
    /// Compare some rows of each band, in turn, so many that all are compared within [`LATEST`]; the
    /// last update was so long ago. Where one changed, all rows of its band, and of the bands beside
    /// it, are compared, now and for some samples to come. So a change as high as a band is seen at
    /// once and whole, and a single row after that time, or at the first update after it.
    Sampled(Duration),
}

/// Frames so far, by how they were compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "as in `Look`")]
pub struct Counts {
    pub copied: u64,
    pub compared: u64,
    pub sampled: u64,
}

/// Keeps a [`Canvas`] equal to a frame buffer.
#[derive(Debug, Default)]
pub struct Snapshot {
    band: Vec<u8>,
    /// The rows as they were read, if they are converted for the canvas.
    unconverted: Vec<u8>,
    /// What changed of each row.
    changed: Vec<Option<Columns>>,
    damage: Vec<Rect>,
    sampler: Sampler,
    /// Updates in a row that found nearly all rows changed.
    busy_frames: u32,
    /// Updates since then that found nothing changed.
    still_frames: u32,
    blind_frames: u32,
    counts: Counts,
}

impl Snapshot {
    /// Allocates memory for pictures like this.
    pub fn prepare_surface(
        &mut self,
        geometry: &Geometry,
        conversion: Conversion,
    ) -> Result<(), OutOfMemory> {
        if conversion.is_identity() {
            return Ok(());
        }
        let len = row_len(geometry) * geometry.height as usize;
        allocate::resize(&mut self.unconverted, len)
    }

    /// Updates the canvas. Returns which parts of it changed.
    pub fn update<'a>(
        &'a mut self,
        source: &dyn Source,
        geometry: &Geometry,
        conversion: Conversion,
        canvas: &mut impl Canvas,
        update: Comparison,
    ) -> io::Result<&'a [Rect]> {
        // If not mapped, all rows of a band are read as fast as a few of them.
        let worth_it = if source.is_mapped() { BAND_ROWS - 1 } else { 2 };
        let mut sample = 0;
        let update = match update {
            _ if self.blind_frames > 0 => Comparison::Copy,
            Comparison::Sampled(since) => {
                sample = self.sampler.rows_due(since);
                if sample <= worth_it { update } else { Comparison::Compare }
            }
            update => update,
        };
        let height = geometry.height;
        let Self { band, unconverted, changed, damage, .. } = self;
        let mut rows = Rows::new(source, geometry, band);
        let mut shown = Shown::new(&rows, canvas, conversion, unconverted)?;
        changed.clear();
        changed.resize(height as usize, None);
        damage.clear();
        match update {
            Comparison::Copy => {
                for y in 0..height {
                    rows.copy(y, shown.known(y))?;
                    shown.convert(y, 0..rows.len, Columns { x: 0, width: geometry.width });
                }
                damage.push(Rect::full(geometry.width, height));
                self.blind_frames = self.blind_frames.saturating_sub(1);
                self.counts.copied += 1;
                return Ok(&self.damage);
            }
            Comparison::Compare => {
                rows.update_all(0..height as usize, &mut shown, changed)?;
                self.counts.compared += 1;
            }
            Comparison::Sampled(_) => {
                self.sampler.update(sample, &mut rows, &mut shown, changed)?;
                self.counts.sampled += 1;
            }
        }
        self.sampler.warm(changed);
        self.find_rectangles();
        self.learn();
        Ok(&self.damage)
    }

    /// Returns the number of frames so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether nearly everything moved at the last update, and at this many before it that followed
    /// frames without comparing: a snapshot is then useless.
    pub fn is_useless(&self, times: u32) -> bool {
        self.blind_frames == BLIND_FRAMES && self.busy_frames >= BUSY_FRAMES + times
    }

    /// Joins the rows that changed, band by band.
    fn find_rectangles(&mut self) {
        for (first, band) in (0..).step_by(BAND_ROWS).zip(self.changed.chunks(BAND_ROWS)) {
            let rows = (first..).zip(band).filter_map(|(y, changed)| {
                changed.map(|Columns { x, width }| Rect { x, y, width, height: 1 })
            });
            if let Some(rect) = rows.reduce(|band, row| band.join(&row)) {
                add(&mut self.damage, rect);
            }
        }
    }

    fn learn(&mut self) {
        let rows = self.changed.len();
        match self.changed.iter().flatten().count() {
            changed if is_nearly_all(changed, rows) => {
                self.busy_frames = self.busy_frames.saturating_add(1);
                self.still_frames = 0;
                if self.busy_frames >= BUSY_FRAMES {
                    self.blind_frames = BLIND_FRAMES;
                }
            }
            0 if self.still_frames < STILL_FRAMES => self.still_frames += 1,
            _ => self.busy_frames = 0,
        }
    }
}

/// The columns of a row that changed, in pixels.
#[derive(Clone, Copy, Debug)]
struct Columns {
    x: u32,
    width: u32,
}

/// The picture on screen, and what is known of the source by it.
struct Shown<'a> {
    pixels: &'a mut [u8],
    stride: usize,
    conversion: Conversion,
    unconverted: &'a mut [u8],
    /// Bytes in a row of the source.
    len: usize,
}

impl<'a> Shown<'a> {
    fn new(
        rows: &Rows<'_>,
        canvas: &'a mut impl Canvas,
        conversion: Conversion,
        unconverted: &'a mut Vec<u8>,
    ) -> Result<Self, OutOfMemory> {
        if !conversion.is_identity() {
            allocate::resize(unconverted, rows.len * rows.height as usize)?;
        }
        Ok(Self {
            stride: canvas.stride(),
            pixels: canvas.pixels(),
            conversion,
            unconverted,
            len: rows.len,
        })
    }

    /// A row as it was read.
    fn known(&mut self, y: u32) -> &mut [u8] {
        let y = y as usize;
        if self.conversion.is_identity() {
            &mut self.pixels[y * self.stride..][..self.len]
        } else {
            &mut self.unconverted[y * self.len..][..self.len]
        }
    }

    /// Converts bytes of a row to these columns of the canvas.
    fn convert(&mut self, y: u32, bytes: Range<usize>, columns: Columns) {
        if !self.conversion.is_identity() {
            let y = y as usize;
            let known = &self.unconverted[y * self.len..][bytes];
            let shown = &mut self.pixels[y * self.stride + columns.x as usize * 4..];
            self.conversion.convert(known, &mut shown[..columns.width as usize * 4]);
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

impl<'a> Rows<'a> {
    fn new(source: &'a dyn Source, geometry: &Geometry, band: &'a mut Vec<u8>) -> Self {
        let stride = geometry.stride as usize;
        let len = row_len(geometry);
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

    /// Whether one of these rows has changed.
    fn differ(
        &mut self,
        rows: &mut dyn Iterator<Item = usize>,
        shown: &mut Shown<'_>,
    ) -> io::Result<bool> {
        for y in rows.map_while(|y| u32::try_from(y).ok()) {
            let known = shown.known(y);
            let differs = if self.source.is_mapped() {
                !self.source.equals(self.offset(y), known)
            } else {
                self.read(y, 1)? != known
            };
            if differs {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Updates rows, and notes which of their columns changed.
    fn update_all(
        &mut self,
        rows: Range<usize>,
        shown: &mut Shown<'_>,
        changed: &mut [Option<Columns>],
    ) -> io::Result<()> {
        for (y, changed) in (0..).zip(changed).skip(rows.start).take(rows.len()) {
            *changed = self.update(y, shown)?;
        }
        Ok(())
    }

    /// Updates a row. Returns which of its columns changed.
    fn update(&mut self, y: u32, shown: &mut Shown<'_>) -> io::Result<Option<Columns>> {
        let known = shown.known(y);
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
        let columns = Columns { x: pixels(bytes.start), width: pixels(bytes.len()) };
        shown.convert(y, bytes, columns);
        Ok(Some(columns))
    }

    /// Returns a row as it is now, or was a moment ago: if not mapped, it is read together with the
    /// rows that follow.
    fn get(&mut self, y: u32) -> io::Result<&[u8]> {
        let at_once = if self.source.is_mapped() { 0 } else { BAND_BYTES };
        let rows = (at_once / self.stride).clamp(1, BAND_ROWS);
        self.read(y, u32::try_from(rows).unwrap_or(1))
    }

    /// Like [`Rows::get`], reading this many rows together.
    fn read(&mut self, y: u32, rows: u32) -> io::Result<&[u8]> {
        if !self.held.contains(&y) {
            let rows = rows.min(self.height - y);
            self.held = 0..0;
            self.band.resize((rows as usize - 1) * self.stride + self.len, 0);
            self.source.read(self.offset(y), self.band)?;
            self.held = y..y + rows;
        }
        Ok(&self.band[(y - self.held.start) as usize * self.stride..][..self.len])
    }
}

/// Returns the bytes of a row without padding.
fn row_len(geometry: &Geometry) -> usize {
    let stride = geometry.stride as usize;
    let row = geometry.format.row_bytes(geometry.width);
    row.map_or(stride, |bytes| usize::try_from(bytes).unwrap_or(stride))
}

/// Whether too many rows changed for comparing to pay.
pub fn is_nearly_all(changed: usize, rows: usize) -> bool {
    changed > rows - rows / 8
}

fn add(damage: &mut Vec<Rect>, rect: Rect) {
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

/// Returns the range from the first to the last changed byte, widened to whole tiles.
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

    /// The pace while things move.
    const FAST: Duration = Duration::from_millis(15);

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
            assert_eq!(fixture.update(Comparison::Copy), [Rect::full(WIDTH, HEIGHT)]);
            fixture
        }

        /// Of memory, and of a file.
        fn both() -> [Self; 2] {
            [true, false].map(|mapped| Self::new(DrmFourcc::Xrgb8888, 64, mapped))
        }

        fn try_update(&mut self, update: Comparison) -> io::Result<Vec<Rect>> {
            let Self { snapshot, frame, geometry, conversion, screen } = self;
            snapshot.update(frame, geometry, *conversion, screen, update).map(<[Rect]>::to_vec)
        }

        fn update(&mut self, update: Comparison) -> Vec<Rect> {
            let damage = self.try_update(update).unwrap();
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

        /// Has it forget what changed a moment ago.
        fn let_cool(&mut self) {
            for _ in 0..30 {
                self.update(Comparison::Sampled(FAST));
            }
        }

        fn set_all(&mut self, value: u8) {
            self.frame.bytes.fill(value);
        }
    }

    #[test]
    fn nothing_changed_nothing_reported() {
        for mut fixture in Fixture::both() {
            assert_eq!(fixture.update(Comparison::Compare), []);
        }
    }

    #[test]
    fn memory_that_did_not_change_is_not_even_copied() {
        let mut fixture = Fixture::new(DrmFourcc::Xbgr8888, 0, true);
        fixture.frame.reads.set(1);
        fixture.set(3, 4, 9);
        assert_eq!(fixture.update(Comparison::Compare).len(), 1);
        assert_eq!(fixture.update(Comparison::Compare), []);
    }

    #[test]
    fn a_pixel_is_reported_as_its_tile() {
        for mut fixture in Fixture::both() {
            fixture.set(70, 33, 1);
            assert_eq!(
                fixture.update(Comparison::Compare),
                [Rect { x: 64, y: 33, width: 64, height: 1 }]
            );
            fixture.set(199, 0, 1);
            assert_eq!(
                fixture.update(Comparison::Compare),
                [Rect { x: 192, y: 0, width: 8, height: 1 }]
            );
            fixture.set(0, 5, 1);
            fixture.set(130, 7, 1);
            assert_eq!(
                fixture.update(Comparison::Compare),
                [Rect { x: 0, y: 5, width: 192, height: 3 }]
            );
        }
    }

    #[test]
    fn a_tall_change_is_one_rectangle() {
        for mut fixture in Fixture::both() {
            for y in 10..90 {
                fixture.set(64, y, 1);
            }
            assert_eq!(
                fixture.update(Comparison::Compare),
                [Rect { x: 64, y: 10, width: 64, height: 80 }]
            );
        }
    }

    #[test]
    fn while_all_moves_nobody_compares_and_the_way_back_is_found() {
        for mut fixture in Fixture::both() {
            for frame in 0..50 {
                fixture.set_all(frame);
                let damage = fixture.update(Comparison::Compare);
                if frame > 0 {
                    assert_eq!(damage, [Rect::full(WIDTH, HEIGHT)]);
                }
            }
            let Counts { compared, copied, .. } = fixture.snapshot.counts();
            assert!(compared < 10 && copied > 40, "{compared} compared, {copied} copied");
            for _ in 0..=BLIND_FRAMES {
                fixture.update(Comparison::Compare);
            }
            assert_eq!(fixture.update(Comparison::Compare), []);
        }
    }

    #[test]
    fn a_guest_slower_than_the_front_ends_moves_everything_too() {
        for (still, moves) in [(0, true), (1, true), (2, true), (3, false), (10, false)] {
            let mut fixture = Fixture::new(DrmFourcc::Xrgb8888, 0, true);
            for frame in 1..=4 {
                assert!(!fixture.snapshot.is_useless(0));
                fixture.set_all(frame);
                fixture.update(Comparison::Compare);
                (0..still * u32::from(frame != 4))
                    .for_each(|_| drop(fixture.update(Comparison::Sampled(FAST))));
            }
            assert_eq!(fixture.snapshot.is_useless(0), moves, "{still} still frames between");
            assert!(!fixture.snapshot.is_useless(1));
        }
    }

    #[test]
    fn an_error_in_the_middle_is_mended_by_the_next_poll() {
        for mut fixture in Fixture::both() {
            fixture.set_all(3);
            fixture.frame.reads.set(2);
            assert!(fixture.try_update(Comparison::Compare).is_err());
            fixture.frame.reads.set(usize::MAX);
            fixture.update(Comparison::Copy);
        }
    }

    #[test]
    fn a_sample_sees_at_once_and_whole_what_is_as_high_as_a_band() {
        let height = u32::try_from(BAND_ROWS).unwrap();
        for mut fixture in Fixture::both() {
            // Wherever it begins, in a band or in two.
            for (value, y) in (1..).zip(0..40) {
                fixture.set_all(0);
                fixture.update(Comparison::Copy);
                fixture.let_cool();
                for y in y..y + height {
                    fixture.set(64, y, value);
                }
                let rect = Rect { x: 64, y, width: 64, height };
                assert_eq!(fixture.update(Comparison::Sampled(FAST)), [rect]);
            }
        }
    }

    #[test]
    fn what_a_sample_finds_is_followed_as_far_as_it_reaches() {
        for mut fixture in Fixture::both() {
            fixture.let_cool();
            // A frame of a window whose sides are thin, and which one row of the sample meets,
            // whichever it is.
            for y in 3..97 {
                fixture.set(70, y, 1);
            }
            let rect = Rect { x: 64, y: 3, width: 64, height: 94 };
            assert_eq!(fixture.update(Comparison::Sampled(FAST)), [rect]);
        }
    }

    #[test]
    fn a_thin_line_is_seen_in_time_whatever_the_pace() {
        let ms = Duration::from_millis;
        let mut random = fastrand::Rng::with_seed(1);
        let mut paces: Vec<[Duration; 2]> = [0, 7, 15, 20, 33, 62, 66, 100, 125, 200, 300]
            .into_iter()
            .flat_map(|long| [[ms(0), ms(long)], [ms(15), ms(long)], [ms(long), ms(long)]])
            .filter(|pace| *pace != [ms(0), ms(0)])
            .collect();
        paces.extend((0..30).map(|_| [(); 2].map(|()| ms(random.u64(1..100)))));
        for pace in paces {
            for y in [0, 1, 50, HEIGHT - 2, HEIGHT - 1] {
                let mut fixture = Fixture::new(DrmFourcc::Rgb565, 0, true);
                let mut pace = pace.into_iter().cycle();
                for since in pace.by_ref().take(random.usize(..40)) {
                    fixture.update(Comparison::Sampled(since));
                }
                fixture.set(3, y, 1);
                let (mut found, mut time) = (Vec::new(), Duration::ZERO);
                while found.is_empty() {
                    assert!(time < LATEST, "{pace:?}, row {y}: not after {time:?}");
                    let since = pace.next().unwrap();
                    time += since;
                    found = fixture.try_update(Comparison::Sampled(since)).unwrap();
                }
                assert_eq!(found, [Rect { x: 0, y, width: 64, height: 1 }]);
                fixture.assert_shown();
            }
        }
    }

    #[test]
    fn where_something_changed_even_a_thin_line_is_seen_by_the_next_sample() {
        for mut fixture in Fixture::both() {
            fixture.set(0, 33, 1);
            fixture.update(Comparison::Compare);
            for value in 2..100 {
                fixture.set(0, 33, value);
                let row = Rect { x: 0, y: 33, width: 64, height: 1 };
                assert_eq!(fixture.update(Comparison::Sampled(FAST)), [row]);
            }
        }
    }

    #[test]
    fn a_sample_of_what_did_not_change_reads_little() {
        let mut fixture = Fixture::new(DrmFourcc::Xrgb8888, 64, false);
        fixture.let_cool();
        let bands = HEIGHT.div_ceil(16) as usize;
        fixture.frame.reads.set(2 * bands);
        assert_eq!(fixture.update(Comparison::Sampled(FAST)), []);
        // A sample that takes more rows reads no less than all of them.
        fixture.frame.reads.set(usize::MAX);
        fixture.update(Comparison::Sampled(8 * FAST));
        assert_eq!(fixture.snapshot.counts().compared, 1);
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
                    let update = match random.u8(..20) {
                        0 => Comparison::Copy,
                        1..10 => Comparison::Compare,
                        _ => Comparison::Sampled(Duration::from_millis(random.u64(1..300))),
                    };
                    let mut damage = fixture.try_update(update).unwrap();
                    if let Comparison::Sampled(since) = update {
                        let mut time = since;
                        while time < LATEST {
                            damage.extend(fixture.try_update(update).unwrap());
                            time += since;
                        }
                    }
                    fixture.assert_shown();
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
