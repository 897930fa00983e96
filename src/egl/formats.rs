//! What a display imports: asked for once, then looked up.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;

use drm_fourcc::{DrmFourcc, DrmModifier};

use crate::format::{Format, FourccCode, ModifierName};

use super::driver::{Driver, Modifier};

/// Maximum number of alternatives that a message names.
const MOST_NAMED: usize = 8;

/// Formats and modifiers that a display imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatTable {
    /// Modifiers by format; `None` where the display has no way to tell.
    known: Option<BTreeMap<u32, Vec<Modifier>>>,
}

/// How a modifier is passed to the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// As it is.
    Explicit,
    /// Not at all: the driver knows it from the buffer, or takes it for linear.
    Implicit,
}

impl FormatTable {
    /// Asks the display. `with_modifiers`: it has the extension that tells them. A format whose
    /// modifiers it cannot tell is one that it does not have; where it cannot tell its formats, it
    /// is as if it lacked the extension.
    pub fn ask(driver: &impl Driver, with_modifiers: bool) -> Self {
        let formats = with_modifiers.then(|| driver.formats().ok()).flatten();
        let known = formats.map(|formats| {
            let tell = |fourcc| Some((fourcc, driver.modifiers(fourcc).ok()?));
            formats.into_iter().filter_map(tell).collect()
        });
        Self { known }
    }

    /// Finds out whether, and how, the display imports a format.
    pub fn look_up(&self, format: Format) -> Result<Telling, Unsupported> {
        let Format { fourcc, modifier } = format;
        let plain = matches!(modifier, DrmModifier::Linear | DrmModifier::Invalid);
        let Some(known) = &self.known else {
            return if plain {
                Ok(Telling::Implicit)
            } else {
                Err(Unsupported { format, instead: Instead::NoModifiers })
            };
        };
        let Some(modifiers) = known.get(&(fourcc as u32)) else {
            return Err(Unsupported { format, instead: Instead::Formats(named(known.keys())) });
        };
        let code = u64::from(modifier);
        if modifiers.iter().any(|known| known.code == code) {
            return Ok(Telling::Explicit);
        }
        // A driver without modifiers for the format knows only what comes with the buffer.
        if modifier == DrmModifier::Invalid || (modifiers.is_empty() && plain) {
            return Ok(Telling::Implicit);
        }
        let names = modifiers
            .iter()
            .map(|known| ModifierName(DrmModifier::from(known.code)).to_string())
            .collect();
        Err(Unsupported { format, instead: Instead::Modifiers(names) })
    }

    /// How many formats there are; `None` where the display has no way to tell.
    pub fn count(&self) -> Option<usize> {
        self.known.as_ref().map(BTreeMap::len)
    }
}

fn named<'a>(codes: impl Iterator<Item = &'a u32>) -> Vec<String> {
    codes
        .map(|&code| match DrmFourcc::try_from(code) {
            Ok(fourcc) => fourcc.to_string(),
            Err(_) => FourccCode(code).to_string(),
        })
        .collect()
}

/// A display does not import a format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsupported {
    format: Format,
    instead: Instead,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Instead {
    NoModifiers,
    Modifiers(Vec<String>),
    Formats(Vec<String>),
}

impl std::error::Error for Unsupported {}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fourcc = self.format.fourcc;
        match &self.instead {
            Instead::NoModifiers => write!(
                f,
                "EGL cannot import {}: without EGL_EXT_image_dma_buf_import_modifiers it takes LINEAR only",
                self.format
            ),
            Instead::Modifiers(names) => {
                write!(f, "EGL cannot import {}, but {fourcc} with {}", self.format, List(names))
            }
            Instead::Formats(names) => {
                write!(f, "EGL cannot import {fourcc}, but {}", List(names))
            }
        }
    }
}

struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing");
        }
        let shown = self.0.len().min(MOST_NAMED);
        f.write_str(&self.0[..shown].join(", "))?;
        match self.0.len() - shown {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TILED: DrmModifier = DrmModifier::I915_y_tiled;

    fn format(fourcc: DrmFourcc, modifier: DrmModifier) -> Format {
        Format { fourcc, modifier }
    }

    fn table(entries: &[(DrmFourcc, &[DrmModifier])]) -> FormatTable {
        let modifiers = |list: &[DrmModifier]| {
            list.iter().map(|&m| Modifier { code: m.into(), external: false }).collect()
        };
        let known = entries.iter().map(|&(fourcc, list)| (fourcc as u32, modifiers(list)));
        FormatTable { known: Some(known.collect()) }
    }

    #[test]
    fn linear_is_told_and_invalid_is_not() {
        let table = table(&[(DrmFourcc::Xrgb8888, &[DrmModifier::Linear, TILED])]);
        let telling = |modifier| table.look_up(format(DrmFourcc::Xrgb8888, modifier));
        assert_eq!(telling(DrmModifier::Linear), Ok(Telling::Explicit));
        assert_eq!(telling(TILED), Ok(Telling::Explicit));
        assert_eq!(telling(DrmModifier::Invalid), Ok(Telling::Implicit));
    }

    #[test]
    fn a_format_without_modifiers_is_imported_without() {
        let table = table(&[(DrmFourcc::Xrgb8888, &[])]);
        let telling = |modifier| table.look_up(format(DrmFourcc::Xrgb8888, modifier));
        assert_eq!(telling(DrmModifier::Linear), Ok(Telling::Implicit));
        assert_eq!(telling(DrmModifier::Invalid), Ok(Telling::Implicit));
        assert_eq!(
            telling(TILED).unwrap_err().to_string(),
            "EGL cannot import XR24 I915_Y_TILED, but XR24 with nothing"
        );
    }

    #[test]
    fn refusals_name_what_is_taken_instead() {
        let some = table(&[
            (DrmFourcc::Xrgb8888, &[DrmModifier::Linear, DrmModifier::I915_x_tiled]),
            (DrmFourcc::Argb8888, &[DrmModifier::Linear]),
        ]);
        let refusal = |fourcc, modifier| some.look_up(format(fourcc, modifier)).unwrap_err();
        assert_eq!(
            refusal(DrmFourcc::Xrgb8888, TILED).to_string(),
            "EGL cannot import XR24 I915_Y_TILED, but XR24 with LINEAR, I915_X_TILED"
        );
        assert_eq!(
            refusal(DrmFourcc::Nv12, DrmModifier::Linear).to_string(),
            "EGL cannot import NV12, but AR24, XR24"
        );
        let blind = FormatTable { known: None };
        assert_eq!(
            blind.look_up(format(DrmFourcc::Nv12, DrmModifier::Linear)),
            Ok(Telling::Implicit)
        );
        assert_eq!(
            blind.look_up(format(DrmFourcc::Xrgb8888, TILED)).unwrap_err().to_string(),
            "EGL cannot import XR24 I915_Y_TILED: \
             without EGL_EXT_image_dma_buf_import_modifiers it takes LINEAR only"
        );
    }

    #[test]
    fn long_lists_end_with_a_count() {
        let names: Vec<String> = (0..11).map(|i| i.to_string()).collect();
        assert_eq!(List(&names).to_string(), "0, 1, 2, 3, 4, 5, 6, 7 and 3 more");
    }
}
