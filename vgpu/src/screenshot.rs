//! The picture that the vGPU believes to be on screen, as a PNG.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::format::Color;
use crate::screen::{Cursor, Picture};

/// Pixels of a picture, opaque.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub width: u32,
    pub height: u32,
    pub pixels: Vec<Color>,
}

/// Reads a picture's pixels.
pub fn read(picture: &Picture) -> Result<Image, String> {
    let geometry = &picture.geometry;
    if geometry.modifier != 0 {
        return Err(format!("modifier {:#x} is not linear: cannot be read", geometry.modifier));
    }
    let stride = geometry.stride as usize;
    let mut bytes = vec![0; stride * geometry.height as usize];
    // The last row's padding need not exist.
    let needed = bytes.len() - stride + geometry.row_bytes() as usize;
    picture
        .memory
        .read(picture.offset, &mut bytes[..needed])
        .map_err(|e| format!("cannot read the frame buffer: {e}"))?;
    let mut pixels = Vec::with_capacity((geometry.width * geometry.height) as usize);
    for row in bytes.chunks_exact(stride) {
        geometry.format.decode(&row[..geometry.row_bytes() as usize], &mut pixels);
    }
    Ok(Image { width: geometry.width, height: geometry.height, pixels })
}

impl Image {
    /// Puts the cursor on top. What lies beyond the edges is cut.
    pub fn compose(&mut self, cursor: &Cursor) -> Result<(), String> {
        let image = read(&cursor.picture)?;
        for (i, source) in image.pixels.iter().enumerate() {
            let at = |origin: i32, offset: usize| {
                usize::try_from(i64::from(origin) + i64::try_from(offset).ok()?).ok()
            };
            let width = image.width as usize;
            let (Some(x), Some(y)) = (at(cursor.x, i % width), at(cursor.y, i / width)) else {
                continue;
            };
            if x < self.width as usize && y < self.height as usize {
                let target = &mut self.pixels[y * self.width as usize + x];
                *target = blend(*source, *target);
            }
        }
        Ok(())
    }

    /// Writes 8-bit RGB. The file appears when it is complete.
    pub fn write_png(&self, path: &Path) -> Result<(), String> {
        let wrong = |e: &dyn std::fmt::Display| format!("cannot write {}: {e}", path.display());
        let name = path.file_name().ok_or_else(|| wrong(&"not a file name"))?;
        let mut part = std::ffi::OsString::from(".");
        part.push(name);
        part.push(format!(".{}", std::process::id()));
        let part = path.with_file_name(part);
        let file = File::create(&part).map_err(|e| wrong(&e))?;
        let written = self.encode(file).and_then(|()| Ok(std::fs::rename(&part, path)?));
        written.map_err(|e| {
            // The first error is the one to tell.
            let _ = std::fs::remove_file(&part);
            wrong(&e)
        })
    }

    fn encode(&self, file: File) -> Result<(), png::EncodingError> {
        let mut file = BufWriter::new(file);
        let mut encoder = png::Encoder::new(&mut file, self.width, self.height);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_compression(png::Compression::Fast);
        let mut writer = encoder.write_header()?;
        let bytes: Vec<u8> = self.pixels.iter().flat_map(|[r, g, b, _]| [*r, *g, *b]).collect();
        writer.write_image_data(&bytes)?;
        writer.finish()?;
        Ok(file.flush()?)
    }
}

/// The source's colours are multiplied by its alpha, as DRM's planes are by default; rounded to the
/// nearest.
fn blend(source: Color, target: Color) -> Color {
    let rest = u32::from(255 - source[3]);
    let channel = |i: usize| {
        let value = u32::from(source[i]) + (u32::from(target[i]) * rest + 127) / 255;
        u8::try_from(value).unwrap_or(u8::MAX)
    };
    [channel(0), channel(1), channel(2), 255]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Format;
    use crate::memory::Memory;
    use crate::screen::Geometry;
    use std::sync::Arc;

    fn picture(format: &str, width: u32, height: u32, rows: &[&[u8]]) -> Picture {
        let format = Format::parse(format).unwrap();
        let stride = width * format.bytes() + 4;
        let geometry = Geometry { format, modifier: 0, width, height, stride };
        let memory = Arc::new(Memory::new("test", 4096, true).unwrap());
        for (y, row) in (0..).zip(rows) {
            memory.write(64 + y * u64::from(stride), row).unwrap();
        }
        Picture { geometry, memory, offset: 64 }
    }

    #[test]
    fn rows_are_read_without_their_padding() {
        let picture = picture("RG16", 2, 2, &[&[0, 0xf8, 0xe0, 7], &[0x1f, 0, 0xff, 0xff]]);
        let image = read(&picture).unwrap();
        let expected = [[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255], [255, 255, 255, 255]];
        assert_eq!(image.pixels, expected);
    }

    #[test]
    fn the_cursor_is_blended_and_cut_at_the_edges() {
        let primary = picture("XR24", 2, 2, &[&[10; 8], &[10; 8]]);
        let image = picture(
            "AR24",
            2,
            2,
            &[&[255, 0, 0, 255, 0, 0, 0, 0], &[0, 0, 0, 0, 0, 100, 200, 128]],
        );
        let mut cursor = Cursor { picture: image, x: -1, y: -1, hotspot: None };
        let mut screen = read(&primary).unwrap();
        screen.compose(&cursor).unwrap();
        let grey = [10, 10, 10, 255];
        assert_eq!(screen.pixels, [[205, 105, 5, 255], grey, grey, grey]);
        (cursor.x, cursor.y) = (1, 1);
        let mut screen = read(&primary).unwrap();
        screen.compose(&cursor).unwrap();
        assert_eq!(screen.pixels, [grey, grey, grey, [0, 0, 255, 255]]);
        (cursor.x, cursor.y) = (i32::MAX, i32::MIN);
        let mut screen = read(&primary).unwrap();
        screen.compose(&cursor).unwrap();
        assert_eq!(screen.pixels, [grey; 4]);
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let mut tiled = picture("XR24", 2, 2, &[]);
        tiled.geometry.modifier = 5;
        assert!(read(&tiled).unwrap_err().contains("0x5"));
        let mut large = picture("XR24", 2, 2, &[]);
        large.geometry.height = 1000;
        assert!(read(&large).unwrap_err().contains("cannot read"));
    }
}
