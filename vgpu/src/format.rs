//! Pixel formats: how a colour is stored. Fourcc codes and bit positions are those of
//! `drm_fourcc.h`.

use std::fmt;

/// Red, green, blue and alpha, 8 bits each.
pub type Color = [u8; 4];

/// A format with one plane, little endian.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Format {
    name: [u8; 4],
    layout: Layout,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// One channel after the other in one word: (bits, position of the lowest) for red, green,
    /// blue, alpha.
    Packed { bytes: u32, channels: [(u32, u32); 4] },
    /// Two pixels share their colour difference: bytes Y0 U Y1 V, ITU-R BT.601, limited range.
    Yuyv,
}

const fn packed(name: [u8; 4], bytes: u32, channels: [(u32, u32); 4]) -> Format {
    Format { name, layout: Layout::Packed { bytes, channels } }
}

const FORMATS: [Format; 10] = [
    packed(*b"XR24", 4, [(8, 16), (8, 8), (8, 0), (0, 0)]),
    packed(*b"AR24", 4, [(8, 16), (8, 8), (8, 0), (8, 24)]),
    packed(*b"XB24", 4, [(8, 0), (8, 8), (8, 16), (0, 0)]),
    packed(*b"AB24", 4, [(8, 0), (8, 8), (8, 16), (8, 24)]),
    packed(*b"RG16", 2, [(5, 11), (6, 5), (5, 0), (0, 0)]),
    packed(*b"XR30", 4, [(10, 20), (10, 10), (10, 0), (0, 0)]),
    packed(*b"AR30", 4, [(10, 20), (10, 10), (10, 0), (2, 30)]),
    packed(*b"XB30", 4, [(10, 0), (10, 10), (10, 20), (0, 0)]),
    packed(*b"AB30", 4, [(10, 0), (10, 10), (10, 20), (2, 30)]),
    Format { name: *b"YUYV", layout: Layout::Yuyv },
];

impl Format {
    /// What bochs hardware shows.
    pub const XRGB8888: Self = FORMATS[0];
    /// What cursors are made of.
    pub const ARGB8888: Self = FORMATS[1];

    /// The format with this four letter name.
    pub fn parse(name: &str) -> Result<Self, String> {
        FORMATS.iter().find(|f| f.name == name.as_bytes()).copied().ok_or_else(|| {
            let known: Vec<String> = FORMATS.iter().map(ToString::to_string).collect();
            format!("fourcc '{name}' is not known (one of {})", known.join(", "))
        })
    }

    /// The code in `drm_format`.
    pub fn fourcc(self) -> u32 {
        u32::from_le_bytes(self.name)
    }

    /// Bytes that a pixel takes (on average, for YUYV).
    pub fn bytes(self) -> u32 {
        match self.layout {
            Layout::Packed { bytes, .. } => bytes,
            Layout::Yuyv => 2,
        }
    }

    /// Whether rows must have an even number of pixels.
    pub fn pairs(self) -> bool {
        self.layout == Layout::Yuyv
    }

    /// Appends a row of pixels. A format of pairs takes the left pixel's colour difference.
    pub fn encode(self, colors: impl Iterator<Item = Color>, out: &mut Vec<u8>) {
        match self.layout {
            Layout::Packed { bytes, channels } => {
                for color in colors {
                    let word =
                        channels.iter().zip(color).fold(0, |word, ((bits, shift), value)| {
                            word | (widen(value, *bits) << shift)
                        });
                    out.extend_from_slice(&word.to_le_bytes()[..bytes as usize]);
                }
            }
            Layout::Yuyv => {
                for (x, color) in colors.enumerate() {
                    let [y, u, v] = to_yuv(color);
                    out.extend_from_slice(&[y, if x % 2 == 0 { u } else { v }]);
                }
            }
        }
    }

    /// Appends the colours of a row of pixels. Formats without alpha are opaque.
    pub fn decode(self, row: &[u8], out: &mut Vec<Color>) {
        match self.layout {
            Layout::Packed { bytes, channels } => {
                let alpha = channels[3].0 > 0;
                out.extend(row.chunks_exact(bytes as usize).map(|pixel| {
                    let mut word = [0; 4];
                    word[..pixel.len()].copy_from_slice(pixel);
                    let word = u32::from_le_bytes(word);
                    let [r, g, b, a] = channels.map(|(bits, shift)| narrow(word >> shift, bits));
                    [r, g, b, if alpha { a } else { 255 }]
                }));
            }
            Layout::Yuyv => out.extend(
                row.chunks_exact(4)
                    .flat_map(|p| [from_yuv([p[0], p[1], p[3]]), from_yuv([p[2], p[1], p[3]])]),
            ),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.name).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A channel of 8 bits in `bits` bits.
fn widen(value: u8, bits: u32) -> u32 {
    let value = u32::from(value);
    match bits {
        0 => 0,
        1..=8 => value >> (8 - bits),
        // Bit replication, so that 255 becomes the largest value.
        _ => (value << (bits - 8)) | (value >> (16 - bits)),
    }
}

/// The lowest `bits` of a word as a channel of 8 bits: wider ones are cut, narrower ones replicate
/// their bits.
fn narrow(word: u32, bits: u32) -> u8 {
    let wide = match bits {
        0 => 0,
        2 => (word & 3) * 0x55,
        1..=7 => {
            let value = word & ((1 << bits) - 1);
            (value << (8 - bits)) | (value >> (2 * bits - 8))
        }
        _ => (word >> (bits - 8)) & 0xff,
    };
    #[expect(clippy::cast_possible_truncation, reason = "8 bits by construction")]
    let byte = wide as u8;
    byte
}

#[expect(clippy::cast_sign_loss, reason = "clamped")]
fn byte(value: i32) -> u8 {
    value.clamp(0, 255) as u8
}

fn to_yuv([r, g, b, _]: Color) -> [u8; 3] {
    let (r, g, b) = (i32::from(r), i32::from(g), i32::from(b));
    [
        byte(((66 * r + 129 * g + 25 * b + 128) >> 8) + 16),
        byte(((-38 * r - 74 * g + 112 * b + 128) >> 8) + 128),
        byte(((112 * r - 94 * g - 18 * b + 128) >> 8) + 128),
    ]
}

fn from_yuv(yuv: [u8; 3]) -> Color {
    let [luma, blue, red] = yuv.map(i32::from);
    let (luma, blue, red) = (298 * (luma - 16) + 128, blue - 128, red - 128);
    [
        byte((luma + 409 * red) >> 8),
        byte((luma - 100 * blue - 208 * red) >> 8),
        byte((luma + 516 * blue) >> 8),
        255,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(name: &str, color: Color) -> Vec<u8> {
        let mut out = Vec::new();
        Format::parse(name).unwrap().encode(std::iter::once(color), &mut out);
        out
    }

    fn colors(name: &str, row: &[u8]) -> Vec<Color> {
        let mut out = Vec::new();
        Format::parse(name).unwrap().decode(row, &mut out);
        out
    }

    #[test]
    fn codes_are_those_of_drm_fourcc_h() {
        assert_eq!(Format::XRGB8888.fourcc(), 0x3432_5258);
        assert_eq!(Format::ARGB8888.fourcc(), 0x3432_5241);
        assert!(Format::parse("NV12").unwrap_err().contains("XR24"));
    }

    #[test]
    fn channels_lie_where_drm_fourcc_h_puts_them() {
        let color = [0x12, 0x34, 0x56, 0x78];
        assert_eq!(bytes("XR24", color), [0x56, 0x34, 0x12, 0]);
        assert_eq!(bytes("AR24", color), [0x56, 0x34, 0x12, 0x78]);
        assert_eq!(bytes("XB24", color), [0x12, 0x34, 0x56, 0]);
        assert_eq!(bytes("AB24", color), [0x12, 0x34, 0x56, 0x78]);
        assert_eq!(bytes("RG16", [0xff, 0, 0, 0]), [0, 0xf8]);
        assert_eq!(bytes("XR30", [0xff, 0, 0, 0]), 0x3ff0_0000_u32.to_le_bytes());
        assert_eq!(bytes("XB30", [0xff, 0, 0, 0]), 0x0000_03ff_u32.to_le_bytes());
    }

    #[test]
    fn narrow_channels_replicate_their_bits_and_wide_ones_are_cut() {
        // 0b10110 -> 0b10110101, 0b101101 -> 0b10110110
        let word = (0b10110_u16 << 11) | (0b10_1101 << 5) | 0b00001;
        assert_eq!(colors("RG16", &word.to_le_bytes()), [[0b1011_0101, 0b1011_0110, 8, 255]]);
        let word = (0x3fd_u32 << 20) | (0x003 << 10) | 0x200;
        assert_eq!(colors("XR30", &word.to_le_bytes()), [[0xff, 0, 0x80, 255]]);
    }

    #[test]
    fn eight_bits_survive_a_round_trip() {
        for name in ["XR24", "AR24", "XB24", "AB24", "XR30", "XB30"] {
            for value in 0..=255 {
                let color = [value, 255 - value, value ^ 0x5a, 255];
                assert_eq!(colors(name, &bytes(name, color)), [color], "{name}");
            }
        }
    }

    #[test]
    fn grey_survives_yuyv_within_a_step() {
        let format = Format::parse("YUYV").unwrap();
        for value in 0..=255_u8 {
            let mut row = Vec::new();
            format.encode([[value, value, value, 255]; 2].into_iter(), &mut row);
            let mut out = Vec::new();
            format.decode(&row, &mut out);
            assert_eq!(out.len(), 2);
            assert!(out.iter().flat_map(|c| &c[..3]).all(|c| c.abs_diff(value) <= 1), "{value}");
        }
    }
}
