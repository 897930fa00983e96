//! What the host's console takes: QEMU's, or a test's.
//!
//! A console shows one thing at a time: a dma-buf that a front end imports ([`Console::scanout`]),
//! a surface that we draw ([`Console::show_surface`]), memory of the device
//! ([`Console::show_memory`]), or a message. Showing one ends the other.

#![forbid(unsafe_code)]

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::damage::{Canvas, Rect};
use crate::memory::Memory;
use crate::plane::Geometry;

/// The console of one device.
pub trait Console {
    /// What the host keeps of a dma-buf, for instance a texture. Made by [`Console::import`], given
    /// back to [`Console::release`].
    type Import;

    /// The pixels of a surface.
    type Canvas: Canvas;

    /// What the front ends would do with this dma-buf. May change at any time. `import`: if it was
    /// prepared before.
    fn scanout_support(
        &self,
        buffer: BorrowedFd<'_>,
        geometry: &Geometry,
        import: Option<&Self::Import>,
    ) -> ScanoutSupport;

    /// Prepares a dma-buf for the front ends. The descriptor stays open, and the geometry the same,
    /// until it is released.
    fn import(&self, buffer: BorrowedFd<'_>, geometry: &Geometry) -> Self::Import;

    /// Ends an import; it is not shown any more.
    fn release(&self, import: Self::Import);

    /// Shows a dma-buf.
    fn scanout(&self, import: &Self::Import);

    /// A part of the dma-buf that is shown may have changed.
    fn update_scanout(&self, part: Rect);

    /// Shows a new surface of this many pixels. The canvas is valid until the console shows
    /// something else. `None` if the host has no memory for it: the console shows what it did.
    fn show_surface(&self, width: u32, height: u32) -> Option<Self::Canvas>;

    /// Shows a picture in XRGB8888 in memory that others draw into, as a surface of its own. Front
    /// ends read it when they want to; whoever still does holds the memory, also when the console
    /// shows something else. `false` if the host cannot: the console shows what it did.
    ///
    /// `stride * height` bytes are [in place](Memory::in_place).
    fn show_memory(&self, memory: &Arc<Memory>, geometry: &Geometry) -> bool;

    /// A part of the surface, or of the memory, has changed.
    fn update_surface(&self, part: Rect);

    /// Shows a line of text instead of a picture.
    fn show_message(&self, width: u32, height: u32, text: &str);

    /// Shows the framebuffer of the firmware, or what changed of it. `false` if there is none.
    ///
    /// `switch_to`: the console shows something else until now.
    fn show_firmware(&self, switch_to: bool) -> bool;

    /// Shows a dma-buf as the pointer, above a scanout. `None` hides it.
    fn scanout_cursor(&self, cursor: Option<&Self::Import>, hotspot: Option<(u32, u32)>);

    /// Moves the pointer above a scanout: its upper left corner.
    fn move_scanout_cursor(&self, x: i32, y: i32);

    /// Defines the pointer above a surface, or above a scanout if the front ends do not take the
    /// dma-buf of its pointer. `None` hides it.
    fn surface_cursor(&self, cursor: Option<&CursorImage<'_>>);

    /// Moves that pointer: its upper left corner, as QEMU's virtio-gpu means it and SPICE takes it.
    fn move_surface_cursor(&self, x: i32, y: i32);

    /// Has the front ends refresh soon, as if their timer had gone off: the guest flipped.
    fn request_refresh(&self);

    /// Who looked once has what there is to see.
    fn refresh_done(&self);

    /// Says something to the user, or to a developer.
    fn log(&self, severity: Severity, message: fmt::Arguments<'_>);
}

/// What the front ends of a console do with a dma-buf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub enum ScanoutSupport {
    /// None imports it.
    #[default]
    None = 0,
    /// The only one that imports it shows nothing itself: it copies the picture into the console's
    /// surface at each update.
    ReadBack = 1,
    /// One imports it, and shows it.
    Import = 2,
}

/// The pixels of a pointer.
#[derive(Clone, Copy, Debug)]
pub struct CursorImage<'a> {
    /// Width in pixels.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The pixel that points.
    pub hotspot: (u32, u32),
    /// ARGB8888 without padding, as the guest has it: colours multiplied by alpha, as DRM's planes
    /// are by default.
    pub pixels: &'a [u8],
}

/// Properties of the monitor that is advertised to the guest; 0 means unknown.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Monitor {
    /// Preferred width, in pixels.
    pub width: u32,
    /// Preferred height, in pixels.
    pub height: u32,
    /// The largest width that the device supports, in pixels.
    pub max_width: u32,
    /// The largest height that the device supports, in pixels.
    pub max_height: u32,
    /// Width of the picture, in millimetres.
    pub width_mm: u32,
    /// Height of the picture, in millimetres.
    pub height_mm: u32,
    /// Refresh rate, in millihertz.
    pub refresh_rate: u32,
}

/// Severity of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum Severity {
    /// The user sees no picture, or a wrong one.
    Error = 0,
    /// The user should know.
    Warning = 1,
    /// A decision of the display, for tracing.
    Trace = 2,
}
