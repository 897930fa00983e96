//! What can go wrong with a picture, in messages that name the call and the value.

use std::fmt;
use std::io;

use crate::device::Failure;
use crate::format::Format;
use crate::memory::Refused;
use crate::plane::{PlaneError, PlaneKind};

/// Why there is no picture.
#[derive(Debug)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum Problem {
    Query { kind: PlaneKind, error: io::Error },
    Get { id: u32, attempts: u32, error: io::Error },
    InvalidPlane { kind: PlaneKind, error: PlaneError },
    UsedUp { id: u32 },
    DmaBuf { id: u32, error: io::Error },
    Map { what: &'static str, handle: u32, error: io::Error },
    Read { what: &'static str, handle: u32, error: io::Error },
    RegionInfo { index: u32, error: io::Error },
    RegionMemory { index: u32, error: io::Error },
    Region { index: u32, error: PlaneError },
    NoConversion { format: Format, with_gl: bool },
    NoSurface { width: u32, height: u32, bytes: u64 },
}

impl Problem {
    /// Whether the next poll may well succeed, so that the picture can stay.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Query { error, .. }
            | Self::Get { error, .. }
            | Self::RegionInfo { error, .. }
            | Self::Read { error, .. } => Failure::of(error) != Failure::Gone,
            Self::DmaBuf { error, .. } => !Refused::is(error),
            Self::UsedUp { .. } | Self::InvalidPlane { .. } | Self::Region { .. } => true,
            Self::RegionMemory { .. }
            | Self::Map { .. }
            | Self::NoConversion { .. }
            | Self::NoSurface { .. } => false,
        }
    }

    /// Whether the first occurrence is worth a message: what passes by itself is not.
    pub fn is_worth_saying(&self) -> bool {
        !matches!(self, Self::Query { error, .. } | Self::Get { error, .. }
            if Failure::of(error) == Failure::Transient)
    }

    /// Whether the host has told the user already: it knows why a connection ended, even while
    /// no front end shows the display.
    pub fn is_known(&self) -> bool {
        match self {
            Self::Query { error, .. }
            | Self::Get { error, .. }
            | Self::RegionInfo { error, .. }
            | Self::Read { error, .. } => error.raw_os_error() == Some(libc::ESHUTDOWN),
            _ => false,
        }
    }

    /// Whether a retry would bring one more descriptor that must be refused and closed.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::DmaBuf { error, .. } | Self::RegionMemory { error, .. }
            if Refused::is(error))
    }

    /// Returns how the device call failed, if it was one.
    pub fn failure(&self) -> Option<Failure> {
        match self {
            Self::Query { error, .. }
            | Self::Get { error, .. }
            | Self::RegionInfo { error, .. }
            | Self::Read { error, .. } => Some(Failure::of(error)),
            _ => None,
        }
    }

    /// Returns the category for counting.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Query { .. } => "query",
            Self::Get { .. } | Self::UsedUp { .. } => "get",
            Self::InvalidPlane { .. } | Self::Region { .. } => "invalid-plane",
            Self::DmaBuf { .. } => "dma-buf",
            Self::RegionMemory { .. } => "region-memory",
            Self::Map { .. } => "map",
            Self::Read { .. } => "read",
            Self::RegionInfo { .. } => "region-info",
            Self::NoConversion { .. } => "format",
            Self::NoSurface { .. } => "surface",
        }
    }

    /// Returns a key that is equal for the same error with another buffer: a guest flips, and its
    /// ids differ.
    pub fn topic(&self) -> String {
        match self {
            Self::Get { error, .. }
            | Self::DmaBuf { error, .. }
            | Self::RegionMemory { error, .. }
            | Self::Map { error, .. }
            | Self::Read { error, .. } => format!("{}: {error}", self.category()),
            Self::UsedUp { .. } => "spent".to_owned(),
            _ => self.to_string(),
        }
    }

    /// Whether it is said once for all buffers: if the CPU cannot read one, it cannot read the
    /// others either, in whatever mode.
    pub fn concerns_all_buffers(&self) -> bool {
        matches!(self, Self::Map { .. })
    }

    /// Returns the message for the screen.
    pub fn headline(&self) -> &'static str {
        match self.failure() {
            Some(Failure::Gone) => "The device is gone.",
            Some(Failure::Silent) => "The device does not answer.",
            _ => match self {
                Self::InvalidPlane { .. }
                | Self::Region { .. }
                | Self::DmaBuf { .. }
                | Self::RegionMemory { .. } => "The device describes its display wrongly.",
                Self::Map { .. } => "The picture can only be shown with OpenGL on a GPU.",
                Self::NoConversion { .. } => "The picture has a format that cannot be shown.",
                Self::NoSurface { .. } => "The picture is too large for the memory of the host.",
                _ => "The device does not give its picture.",
            },
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Query { kind, error } => {
                write!(f, "QUERY_GFX_PLANE of the {kind} plane: {error}")
            }
            Self::Get { id, attempts, error } if *attempts > 1 => {
                write!(f, "GET_GFX_DMABUF of id {id} ({attempts} attempts): {error}")
            }
            Self::InvalidPlane { kind, error } => {
                write!(f, "QUERY_GFX_PLANE of the {kind} plane: {error}")
            }
            Self::UsedUp { id } => write!(
                f,
                "GET_GFX_DMABUF of id {id} is not called: it was dropped for others, and the driver damages the kernel's memory \
                 when it is asked for a dma-buf twice"
            ),
            Self::Get { id, error, .. } | Self::DmaBuf { id, error } => {
                write!(f, "GET_GFX_DMABUF of id {id}: {error}")
            }
            Self::Map { what, handle, error } => write!(
                f,
                "{what} {handle} cannot be mapped ({error}), so it can only be shown by a display with OpenGL \
                 on a GPU (gl=on)"
            ),
            Self::Read { what, handle, error } => write!(f, "reading {what} {handle}: {error}"),
            Self::RegionInfo { index, error } | Self::RegionMemory { index, error } => {
                write!(f, "GET_REGION_INFO of the graphics region {index}: {error}")
            }
            Self::Region { index, error } => write!(f, "graphics region {index}: {error}"),
            Self::NoConversion { format, with_gl: true } => write!(
                f,
                "format {format} can only be shown by a display with OpenGL (gl=on) that knows it"
            ),
            Self::NoConversion { format, with_gl: false } => {
                write!(f, "format {format} cannot be shown from a region")
            }
            Self::NoSurface { width, height, bytes } => write!(
                f,
                "there is no memory for a surface of {width}x{height} pixels ({bytes} bytes)"
            ),
        }
    }
}
