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
    /// What the host keeps of a dma-buf, such as a texture. Made by [`Console::import`], returned
    /// to [`Console::release`].
    type Import;

    /// The pixels of a surface.
    type Canvas: Canvas;

    /// Returns what the front ends would do with this dma-buf, which may change at any time.
    /// `import`: its import, if there is one.
    fn scanout_support(
        &self,
        buffer: BorrowedFd<'_>,
        geometry: &Geometry,
        import: Option<&Self::Import>,
    ) -> ScanoutSupport;

    /// Imports a dma-buf for the front ends. The descriptor stays open until the import is
    /// released.
    fn import(&self, buffer: BorrowedFd<'_>, geometry: &Geometry) -> Self::Import;

    /// Releases an import that is off screen.
    fn release(&self, import: Self::Import);

    /// Shows a dma-buf.
    fn scanout(&self, import: &Self::Import);

    /// Reports that a part of the scanout may have changed.
    fn update_scanout(&self, part: Rect);

    /// Shows a new surface. The canvas is valid until the console shows something else. `None` if
    /// the host has no memory for it: the console keeps what it shows.
    fn show_surface(&self, width: u32, height: u32) -> Option<Self::Canvas>;

    /// Shows XRGB8888 pixels in memory that others draw into, as a surface. Front ends read it at
    /// any time, and hold the memory as long as they do, even when the console shows something
    /// else. `false` if the host cannot: the console keeps what it shows.
    ///
    /// `stride * height` bytes are [in place](Memory::in_place).
    fn show_memory(&self, memory: &Arc<Memory>, geometry: &Geometry) -> bool;

    /// Reports that a part of the surface, or of the memory, has changed.
    fn update_surface(&self, part: Rect);

    /// Shows a line of text instead of a picture.
    fn show_message(&self, width: u32, height: u32, text: &str);

    /// Shows the firmware's framebuffer, or what changed of it. `false` if there is none.
    ///
    /// `switch_to`: the console has been showing something else.
    fn show_firmware(&self, switch_to: bool) -> bool;

    /// Shows a dma-buf as the cursor above a scanout, perhaps again, since it may have been drawn in
    /// place; `None` hides it.
    fn scanout_cursor(&self, cursor: Option<&Self::Import>, hotspot: Option<(u32, u32)>);

    /// Moves the cursor above a scanout: its upper left corner.
    fn move_scanout_cursor(&self, x: i32, y: i32);

    /// Sets the cursor above a surface, or above a scanout if front ends do not import the cursor's
    /// dma-buf; `None` hides it.
    fn surface_cursor(&self, cursor: Option<&CursorImage<'_>>);

    /// Moves that cursor: its upper left corner, as QEMU's virtio-gpu and SPICE have it.
    fn move_surface_cursor(&self, x: i32, y: i32);

    /// Makes the front ends refresh soon, as if their timers had fired: the guest flipped.
    fn request_refresh(&self);

    /// A one-shot refresh is complete.
    fn refresh_done(&self);

    /// Logs a message for the user, or for a developer.
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

/// The pixels of a cursor.
#[derive(Clone, Copy, Debug)]
pub struct CursorImage<'a> {
    /// Width in pixels.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// The pixel that points.
    pub hotspot: (u32, u32),
    /// ARGB8888 without padding, as the guest drew it: premultiplied by alpha, as DRM's planes
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
