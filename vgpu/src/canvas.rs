//! Drawing: patterns and rectangles, into every memory where a picture is seen.

use std::io;
use std::sync::Arc;

use font8x8::legacy::BASIC_LEGACY;

use crate::format::{Color, Format};
use crate::memory::Memory;
use crate::screen::{Geometry, Picture};

/// A character's cell, in pixels: the font's 8x8, each row twice.
pub const CELL: (u32, u32) = (8, 16);

const INK: Color = [0xd0, 0xd0, 0xd0, 0xff];
const PAPER: Color = [0x10, 0x18, 0x28, 0xff];

/// Bytes that are written at once.
const CHUNK: usize = 256 * 1024;

/// A rectangle on a surface, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

/// What a picture can be filled with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    Gradient,
    Bars,
    Checker,
    Noise,
    Text,
    Solid(Color),
    /// A different picture for each number, cheap to draw.
    Frame(u64),
}

impl Pattern {
    pub fn parse(name: &str) -> Result<Self, String> {
        Ok(match name {
            "gradient" => Self::Gradient,
            "bars" => Self::Bars,
            "checker" => Self::Checker,
            "noise" => Self::Noise,
            "text" => Self::Text,
            _ => match name.split_once(':') {
                Some(("solid", color)) => Self::Solid(opaque(color)?),
                Some(("frame", number)) => Self::Frame(crate::arguments::number(number)?),
                _ => {
                    return Err(format!(
                        "no pattern '{name}' (gradient, bars, checker, noise, text, solid:RRGGBB, frame:N)"
                    ));
                }
            },
        })
    }
}

/// A colour of six hexadecimal digits, opaque.
pub fn opaque(text: &str) -> Result<Color, String> {
    let bytes = digits(text, 6)?.to_be_bytes();
    Ok([bytes[1], bytes[2], bytes[3], 255])
}

/// A colour of eight hexadecimal digits, alpha first.
pub fn with_alpha(text: &str) -> Result<Color, String> {
    let [a, r, g, b] = digits(text, 8)?.to_be_bytes();
    Ok([r, g, b, a])
}

fn digits(text: &str, count: usize) -> Result<u32, String> {
    let wrong = || format!("colour '{text}' is not {count} hexadecimal digits");
    if text.len() != count || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    u32::from_str_radix(text, 16).map_err(|_| wrong())
}

/// Mixes bits: numbers that look random, always the same ones for the same input.
pub fn mix(seed: u64) -> u64 {
    // The output function of SplitMix64.
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A picture to draw into.
#[derive(Clone, Debug)]
pub struct Surface {
    pub geometry: Geometry,
    targets: Vec<(Arc<Memory>, u64)>,
}

impl Surface {
    /// `targets`: memories, and the offset of the picture in each.
    pub fn new(geometry: Geometry, targets: Vec<(Arc<Memory>, u64)>) -> Self {
        Self { geometry, targets }
    }

    pub fn whole(&self) -> Rect {
        Rect { x: 0, y: 0, width: self.geometry.width, height: self.geometry.height }
    }

    /// The part of a rectangle that lies on the surface. Formats of pairs get whole pairs.
    pub fn clip(&self, rect: Rect) -> Rect {
        let Geometry { width, height, format, .. } = self.geometry;
        let mut x = rect.x.min(width);
        let mut right = rect.x.saturating_add(rect.width).min(width);
        if format.pairs() {
            x &= !1;
            right = right.next_multiple_of(2);
        }
        let y = rect.y.min(height);
        let bottom = rect.y.saturating_add(rect.height).min(height);
        Rect { x, y, width: right - x, height: bottom - y }
    }

    /// Colours every pixel of the rectangle that lies on the surface. `color` is called with the
    /// pixel's position.
    pub fn draw(&self, rect: Rect, color: impl Fn(u32, u32) -> Color) -> io::Result<()> {
        let rect = self.clip(rect);
        self.rows(rect, |y, row| {
            let colors = (rect.x..rect.x + rect.width).map(|x| color(x, y));
            self.geometry.format.encode(colors, row);
        })
    }

    /// Fills a rectangle with one colour.
    pub fn fill(&self, rect: Rect, color: Color) -> io::Result<()> {
        let rect = self.clip(rect);
        let mut pixels = Vec::new();
        let colors = (0..rect.width).map(|_| color);
        self.geometry.format.encode(colors, &mut pixels);
        self.rows(rect, |_, row| row.extend_from_slice(&pixels))
    }

    /// Fills the whole picture.
    pub fn pattern(&self, pattern: Pattern, seed: u64) -> io::Result<()> {
        let Geometry { width, height, .. } = self.geometry;
        let whole = self.whole();
        let shift = |value: u64| u32::try_from(mix(seed) % value).unwrap_or(0);
        match pattern {
            Pattern::Solid(color) => self.fill(whole, color),
            Pattern::Gradient => {
                let blue = if seed == 0 { 0x40 } else { byte(shift(256)) };
                self.draw(whole, |x, y| {
                    [byte(x * 255 / width.max(1)), byte(y * 255 / height.max(1)), blue, 255]
                })
            }
            Pattern::Bars => {
                const BARS: [Color; 8] = [
                    [255, 255, 255, 255],
                    [255, 255, 0, 255],
                    [0, 255, 255, 255],
                    [0, 255, 0, 255],
                    [255, 0, 255, 255],
                    [255, 0, 0, 255],
                    [0, 0, 255, 255],
                    [0, 0, 0, 255],
                ];
                let first = if seed == 0 { 0 } else { shift(8) };
                self.draw(whole, |x, _| BARS[((x * 8 / width + first) % 8) as usize])
            }
            Pattern::Checker => {
                let (first, second) =
                    if seed == 0 { (INK, PAPER) } else { (tint(mix(seed)), tint(mix(!seed))) };
                self.draw(whole, |x, y| if (x / 32 + y / 32) % 2 == 0 { first } else { second })
            }
            Pattern::Noise => self.draw(whole, |x, y| {
                tint(mix(seed ^ ((u64::from(y) << 32) | u64::from(x)) ^ (0x5eed << 48)))
            }),
            Pattern::Text => self.page(seed),
            Pattern::Frame(number) => self.frame(number.wrapping_add(seed)),
        }
    }

    /// Writes a line of text, in cells of [`CELL`].
    pub fn text(&self, x: u32, y: u32, text: &str, ink: Color, paper: Color) -> io::Result<()> {
        let bytes = text.as_bytes();
        let columns = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let rect = Rect { x, y, width: columns.saturating_mul(CELL.0), height: CELL.1 };
        self.draw(rect, |px, py| {
            let (dx, dy) = (px.saturating_sub(x), py.saturating_sub(y));
            let character = bytes.get((dx / CELL.0) as usize).copied().unwrap_or(b' ');
            if has_ink(character, dx % CELL.0, dy) { ink } else { paper }
        })
    }

    /// A page of text that fills the picture.
    fn page(&self, seed: u64) -> io::Result<()> {
        let Geometry { format, width, height, .. } = self.geometry;
        let columns = (width / CELL.0) as usize;
        let lines: Vec<Vec<u8>> = (0..height.div_ceil(CELL.1))
            .map(|line| {
                let text = match line {
                    0 => format!("vgpu {width}x{height} {format} text seed {seed}"),
                    1 => String::new(),
                    _ => sentence(mix(seed ^ u64::from(line)), columns),
                };
                text.into_bytes()
            })
            .collect();
        self.draw(self.whole(), |x, y| {
            let line = &lines[(y / CELL.1) as usize];
            let character = line.get((x / CELL.0) as usize).copied().unwrap_or(b' ');
            if has_ink(character, x % CELL.0, y % CELL.1) { INK } else { PAPER }
        })
    }

    fn frame(&self, number: u64) -> io::Result<()> {
        let Geometry { width, height, .. } = self.geometry;
        self.fill(self.whole(), tint(mix(number)))?;
        let bar = (width / 16).max(1);
        let x = u32::try_from(number.wrapping_mul(u64::from(bar)) % u64::from(width)).unwrap_or(0);
        self.fill(Rect { x, y: 0, width: bar, height }, [255, 255, 255, 255])?;
        self.text(0, 0, &format!("frame {number}"), INK, PAPER)
    }

    fn rows(&self, rect: Rect, row: impl Fn(u32, &mut Vec<u8>)) -> io::Result<()> {
        if rect.width == 0 || rect.height == 0 {
            return Ok(());
        }
        let stride = self.geometry.stride as usize;
        let start = u64::from(rect.x) * u64::from(self.geometry.format.bytes());
        let at = |y: u32| u64::from(y) * u64::from(self.geometry.stride) + start;
        // Whole rows go many at a time; the padding between them has no meaning.
        let whole = rect.width == self.geometry.width;
        let mut data = Vec::new();
        let mut first = rect.y;
        for y in rect.y..rect.y + rect.height {
            data.resize(stride * (y - first) as usize, 0);
            row(y, &mut data);
            if !whole || data.len() >= CHUNK || y + 1 == rect.y + rect.height {
                for (memory, offset) in &self.targets {
                    memory.write(offset + at(first), &data)?;
                }
                data.clear();
                first = y + 1;
            }
        }
        Ok(())
    }
}

/// A cursor's image: of one colour, or an arrow with a soft shadow.
pub fn cursor_picture(side: u32, color: Option<Color>, sealed: bool) -> io::Result<Picture> {
    let format = Format::ARGB8888;
    let stride = side * format.bytes();
    let geometry = Geometry { format, modifier: 0, width: side, height: side, stride };
    let memory = Arc::new(Memory::new("vgpu-cursor", geometry.bytes(), sealed)?);
    let surface = Surface::new(geometry, vec![(memory.clone(), 0)]);
    let arrow = |x: u32, y: u32| {
        let tip = side / 2;
        match (x <= y && y < tip, x == 0 || x == y || y + 1 == tip) {
            (true, true) => [0, 0, 0, 255],
            (true, false) => [255, 255, 255, 255],
            // The shadow lies two pixels below and to the right.
            _ if x >= 2 && y >= 2 && x <= y && y - 2 < tip => [0, 0, 0, 96],
            _ => [0, 0, 0, 0],
        }
    };
    surface.draw(surface.whole(), |x, y| color.unwrap_or_else(|| arrow(x, y)))?;
    Ok(Picture { geometry, memory, offset: 0 })
}

fn has_ink(character: u8, x: u32, y: u32) -> bool {
    let glyph = BASIC_LEGACY.get(usize::from(character)).unwrap_or(&BASIC_LEGACY[0]);
    (glyph[(y / 2) as usize % 8] >> (x % 8)) & 1 != 0
}

fn tint(bits: u64) -> Color {
    let bytes = bits.to_le_bytes();
    [bytes[0], bytes[1], bytes[2], 255]
}

#[expect(clippy::cast_possible_truncation, reason = "callers stay below 256")]
fn byte(value: u32) -> u8 {
    value as u8
}

/// Returns words that fill a line of this many characters.
pub fn sentence(seed: u64, columns: usize) -> String {
    const WORDS: [&str; 16] = [
        "plane",
        "scanout",
        "stride",
        "modifier",
        "fourcc",
        "hotspot",
        "the",
        "quick",
        "brown",
        "fox",
        "jumps",
        "over",
        "a",
        "lazy",
        "dog",
        "0123456789",
    ];
    let mut text = String::new();
    let mut state = seed;
    loop {
        state = mix(state);
        let word = WORDS[(state % 16) as usize];
        if text.len() + word.len() + 1 > columns {
            return text;
        }
        if !text.is_empty() {
            text.push(' ');
        }
        text.push_str(word);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn surface(format: &str, width: u32, height: u32, padding: u32) -> (Surface, Arc<Memory>) {
        let format = Format::parse(format).unwrap();
        let stride = width * format.bytes() + padding;
        let geometry = Geometry { format, modifier: 0, width, height, stride };
        let memory = Arc::new(Memory::new("test", geometry.bytes() + 100, true).unwrap());
        (Surface::new(geometry, vec![(memory.clone(), 100)]), memory)
    }

    fn pixel(surface: &Surface, memory: &Memory, x: u32, y: u32) -> Color {
        let Geometry { format, stride, .. } = surface.geometry;
        let mut data = vec![0; format.bytes() as usize];
        let at = u64::from(y) * u64::from(stride) + u64::from(x * format.bytes());
        memory.read(100 + at, &mut data).unwrap();
        let mut out = Vec::new();
        format.decode(&data, &mut out);
        out[0]
    }

    #[test]
    fn a_rectangle_colours_its_pixels_and_no_others() {
        for padding in [0, 20] {
            let (surface, memory) = surface("XR24", 100, 50, padding);
            let red = [255, 0, 0, 255];
            surface.fill(Rect { x: 10, y: 5, width: 20, height: 10 }, red).unwrap();
            for y in 0..50 {
                for x in 0..100 {
                    let inside = (10..30).contains(&x) && (5..15).contains(&y);
                    let expected = if inside { red } else { [0, 0, 0, 255] };
                    assert_eq!(pixel(&surface, &memory, x, y), expected, "{x},{y}");
                }
            }
        }
    }

    #[test]
    fn drawing_beyond_the_edge_is_clipped() {
        let (surface, memory) = surface("RG16", 64, 64, 0);
        let white = [255, 255, 255, 255];
        surface.fill(Rect { x: 60, y: 60, width: u32::MAX, height: u32::MAX }, white).unwrap();
        surface.fill(Rect { x: 900, y: 900, width: 5, height: 5 }, white).unwrap();
        assert_eq!(pixel(&surface, &memory, 63, 63), white);
        assert_eq!(pixel(&surface, &memory, 59, 63), [0, 0, 0, 255]);
        let mut before = [9; 100];
        memory.read(0, &mut before).unwrap();
        assert_eq!(before, [0; 100]);
    }

    #[test]
    fn every_pattern_fills_every_format_and_depends_on_its_seed() {
        for format in ["XR24", "AB24", "RG16", "XB30", "YUYV"] {
            for pattern in ["gradient", "bars", "checker", "noise", "text", "frame:3"] {
                let picture = |seed| {
                    let (surface, memory) = surface(format, 170, 50, 8);
                    surface.pattern(Pattern::parse(pattern).unwrap(), seed).unwrap();
                    let mut bytes = vec![0; surface.geometry.stride as usize * 50];
                    memory.read(100, &mut bytes).unwrap();
                    bytes
                };
                assert!(picture(1) == picture(1), "{format} {pattern}");
                assert!(picture(1) != picture(2), "{format} {pattern}");
            }
        }
    }

    #[test]
    fn frames_differ_from_one_another() {
        let (surface, memory) = surface("XR24", 64, 64, 0);
        let mut seen = std::collections::HashSet::new();
        for number in 0..500 {
            surface.pattern(Pattern::Frame(number), 0).unwrap();
            let mut bytes = vec![0; 64 * 64 * 4];
            memory.read(100, &mut bytes).unwrap();
            assert!(seen.insert(bytes), "frame {number}");
        }
    }

    #[test]
    fn names_and_colours_are_checked() {
        assert!(Pattern::parse("plaid").unwrap_err().contains("gradient"));
        assert!(Pattern::parse("solid:12345").is_err());
        assert!(Pattern::parse("solid:+12345").is_err());
        assert_eq!(Pattern::parse("solid:102030"), Ok(Pattern::Solid([0x10, 0x20, 0x30, 255])));
        assert_eq!(with_alpha("80102030"), Ok([0x10, 0x20, 0x30, 0x80]));
    }
}
