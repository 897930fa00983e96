//! `VfioDpyConsoleOps`: what the host's console takes, as a table of callbacks.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::console::{Console, CursorImage, Severity, Uptake};
use crate::damage::{Canvas, Rect};
use crate::memory::Memory;
use crate::plane::Geometry;

use super::{COMPLETE, boundary};

/// A dma-buf with one plane whose pixels begin at its first byte.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VfioDpyBuffer {
    /// DRM format modifier; LINEAR is 0.
    pub modifier: u64,
    /// The descriptor. It stays the library's, and open until the import of the buffer is released.
    pub fd: c_int,
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Bytes from a row to the next.
    pub stride: u32,
    /// DRM format.
    pub fourcc: u32,
}

/// Memory of a device that a console shows: counted by the library. It may outlive the display, and the device.
pub struct VfioDpyMemory {
    /// Held, not read: dropping it is what counts.
    _memory: Arc<Memory>,
}

/// Lets go of memory that show_memory was given. Any thread may call it. NULL is fine.
///
/// # Safety
///
/// `memory` is what show_memory was given, returned true for, and did not let go of yet, or NULL. Nobody reads its pixels any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_memory_release(memory: *mut VfioDpyMemory) {
    if !memory.is_null() {
        // SAFETY: the pointer is from `Box::into_raw` in `HostConsole::show_memory`, and freed once.
        boundary((), || drop(unsafe { Box::from_raw(memory) }));
    }
}

/// A VfioDpyUptake as it comes from C: any integer.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct AnyUptake(c_uint);

/// What the host's console takes. All callbacks are required, but for `looked`.
///
/// The console shows one thing at a time: a scanout, a surface, memory of the device, a message, or the firmware's framebuffer; showing
/// one ends the other. `console` is what was given to vfio_dpy_new().
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VfioDpyConsoleOps {
    /// What the front ends would do with this dma-buf. `import` is what `import` returned for it, or NULL if it was not imported yet.
    pub uptake: Option<
        unsafe extern "C" fn(
            console: *mut c_void,
            buffer: *const VfioDpyBuffer,
            import: *mut c_void,
        ) -> AnyUptake,
    >,
    /// Prepares a dma-buf for the front ends. The result is given back to `release`.
    pub import: Option<
        unsafe extern "C" fn(console: *mut c_void, buffer: *const VfioDpyBuffer) -> *mut c_void,
    >,
    /// Ends an import, and frees it. It is not shown any more.
    pub release: Option<unsafe extern "C" fn(console: *mut c_void, import: *mut c_void)>,
    /// Shows an imported dma-buf.
    pub scanout: Option<unsafe extern "C" fn(console: *mut c_void, import: *mut c_void)>,
    /// A part of the scanout may have changed, in pixels.
    pub update_scanout:
        Option<unsafe extern "C" fn(console: *mut c_void, x: u32, y: u32, width: u32, height: u32)>,
    /// Shows a new surface in XRGB8888. Returns its pixels, `height` rows that begin `*stride` bytes apart, which stay writable
    /// until the console shows something else. NULL if there is no memory for it: the console then shows what it did.
    pub show_surface: Option<
        unsafe extern "C" fn(
            console: *mut c_void,
            width: u32,
            height: u32,
            stride: *mut usize,
        ) -> *mut u8,
    >,
    /// Shows a picture in XRGB8888 that lies in memory of the device, as a surface of its own: `height` rows that begin `stride` bytes
    /// apart, a multiple of 4. The device, or the guest, may write to them at any moment; nobody else may. `stride * height` bytes can
    /// be read, by any thread, until `memory` is given to vfio_dpy_memory_release(), once: when the console shows something else and no front end
    /// reads them any more, be it after vfio_dpy_free().
    ///
    /// Returns false if it cannot: the console then shows what it did, and `memory` stays the library's.
    pub show_memory: Option<
        unsafe extern "C" fn(
            console: *mut c_void,
            pixels: *const u8,
            width: u32,
            height: u32,
            stride: usize,
            memory: *mut VfioDpyMemory,
        ) -> bool,
    >,
    /// A part of the surface, or of the memory, has changed, in pixels.
    pub update_surface:
        Option<unsafe extern "C" fn(console: *mut c_void, x: u32, y: u32, width: u32, height: u32)>,
    /// Shows a line of text on a surface of this size.
    pub show_message: Option<
        unsafe extern "C" fn(console: *mut c_void, width: u32, height: u32, text: *const c_char),
    >,
    /// Shows the firmware's framebuffer, or, unless `switch_to`, what changed of it. Returns false if there is none.
    pub show_firmware: Option<unsafe extern "C" fn(console: *mut c_void, switch_to: bool) -> bool>,
    /// Shows an imported dma-buf as the pointer above a scanout; NULL hides it.
    pub scanout_cursor: Option<
        unsafe extern "C" fn(
            console: *mut c_void,
            import: *mut c_void,
            has_hotspot: bool,
            hot_x: u32,
            hot_y: u32,
        ),
    >,
    /// Moves the upper left corner of the pointer above a scanout.
    pub move_scanout_cursor: Option<unsafe extern "C" fn(console: *mut c_void, x: i32, y: i32)>,
    /// Defines the pointer above a surface, or above a scanout if `uptake` has nobody for its dma-buf, in ARGB8888 with straight
    /// alpha, without padding; NULL hides it. The pixels are the library's, and valid during the call.
    pub surface_cursor: Option<
        unsafe extern "C" fn(
            console: *mut c_void,
            pixels: *const u8,
            width: u32,
            height: u32,
            hot_x: u32,
            hot_y: u32,
        ),
    >,
    /// Moves the upper left corner of that pointer.
    pub move_surface_cursor: Option<unsafe extern "C" fn(console: *mut c_void, x: i32, y: i32)>,
    /// Has the front ends refresh soon, as if their timer had gone off. Not from within the callback.
    pub request_refresh: Option<unsafe extern "C" fn(console: *mut c_void)>,
    /// A single look, which vfio_dpy_refresh() was asked for, is over: graphic_hw_update_done(). Not from within the callback. NULL
    /// if nobody waits for it: a host that calls vfio_dpy_watcher() should.
    pub looked: Option<unsafe extern "C" fn(console: *mut c_void)>,
    /// Says something; the text is the library's, and valid during the call.
    pub log: Option<
        unsafe extern "C" fn(console: *mut c_void, severity: Severity, message: *const c_char),
    >,
    /// Whether messages of severity VFIO_DPY_TRACE are wanted.
    pub tracing: Option<unsafe extern "C" fn(console: *mut c_void) -> bool>,
}

impl VfioDpyConsoleOps {
    /// The name of a callback that is not there.
    pub fn missing(&self) -> Option<&'static str> {
        let callbacks = [
            ("uptake", self.uptake.is_some()),
            ("import", self.import.is_some()),
            ("release", self.release.is_some()),
            ("scanout", self.scanout.is_some()),
            ("update_scanout", self.update_scanout.is_some()),
            ("show_surface", self.show_surface.is_some()),
            ("show_memory", self.show_memory.is_some()),
            ("update_surface", self.update_surface.is_some()),
            ("show_message", self.show_message.is_some()),
            ("show_firmware", self.show_firmware.is_some()),
            ("scanout_cursor", self.scanout_cursor.is_some()),
            ("move_scanout_cursor", self.move_scanout_cursor.is_some()),
            ("surface_cursor", self.surface_cursor.is_some()),
            ("move_surface_cursor", self.move_surface_cursor.is_some()),
            ("request_refresh", self.request_refresh.is_some()),
            ("log", self.log.is_some()),
            ("tracing", self.tracing.is_some()),
        ];
        callbacks.iter().find(|(_, there)| !there).map(|(name, _)| *name)
    }
}

/// A [`Console`] whose calls are callbacks into C.
pub struct HostConsole {
    ops: VfioDpyConsoleOps,
    console: *mut c_void,
}

/// The pixels of a surface of the host.
pub struct HostCanvas {
    pixels: NonNull<u8>,
    stride: usize,
    len: usize,
}

impl Canvas for HostCanvas {
    fn stride(&self) -> usize {
        self.stride
    }

    fn pixels(&mut self) -> &mut [u8] {
        // SAFETY: the host keeps the pixels writable until the console shows something else, and the display drops the canvas
        // then; it reads them only between the calls into the library.
        unsafe { std::slice::from_raw_parts_mut(self.pixels.as_ptr(), self.len) }
    }
}

impl HostConsole {
    /// # Safety
    ///
    /// No callback is [missing](VfioDpyConsoleOps::missing). They must be callable with `console`, from this thread, for as long as the value lives, and do what
    /// [`VfioDpyConsoleOps`] says.
    pub unsafe fn new(ops: VfioDpyConsoleOps, console: *mut c_void) -> Self {
        Self { ops, console }
    }
}

fn describe(buffer: BorrowedFd<'_>, geometry: &Geometry) -> VfioDpyBuffer {
    VfioDpyBuffer {
        modifier: geometry.format.modifier.into(),
        fd: buffer.as_raw_fd(),
        width: geometry.width,
        height: geometry.height,
        stride: geometry.stride,
        fourcc: geometry.format.fourcc as u32,
    }
}

fn c_string(text: &fmt::Arguments<'_>) -> CString {
    // A device's name is the only part that could hold a NUL.
    CString::new(text.to_string().replace('\0', " ")).unwrap_or_default()
}

// SAFETY of all calls below: `HostConsole::new` demands a callable table; pointers are to values that live during the call.
impl Console for HostConsole {
    type Import = *mut c_void;
    type Canvas = HostCanvas;

    fn uptake(
        &self,
        buffer: BorrowedFd<'_>,
        geometry: &Geometry,
        import: Option<&Self::Import>,
    ) -> Uptake {
        let import = import.map_or(std::ptr::null_mut(), |import| *import);
        // SAFETY: as said above the impl; the import was not released yet.
        let uptake = unsafe {
            (self.ops.uptake.expect(COMPLETE))(self.console, &describe(buffer, geometry), import)
        };
        match uptake {
            AnyUptake(it) if it == Uptake::Import as c_uint => Uptake::Import,
            AnyUptake(it) if it == Uptake::ReadBack as c_uint => Uptake::ReadBack,
            AnyUptake(_) => Uptake::None,
        }
    }

    fn import(&self, buffer: BorrowedFd<'_>, geometry: &Geometry) -> Self::Import {
        // SAFETY: as said above the impl.
        unsafe { (self.ops.import.expect(COMPLETE))(self.console, &describe(buffer, geometry)) }
    }

    fn release(&self, import: Self::Import) {
        // SAFETY: as said above the impl; the import is not used again.
        unsafe { (self.ops.release.expect(COMPLETE))(self.console, import) }
    }

    fn scanout(&self, import: &Self::Import) {
        // SAFETY: as said above the impl; the import was not released yet.
        unsafe { (self.ops.scanout.expect(COMPLETE))(self.console, *import) }
    }

    fn update_scanout(&self, part: Rect) {
        let Rect { x, y, width, height } = part;
        // SAFETY: as said above the impl.
        unsafe { (self.ops.update_scanout.expect(COMPLETE))(self.console, x, y, width, height) }
    }

    fn show_surface(&self, width: u32, height: u32) -> Option<Self::Canvas> {
        let mut stride = 0;
        // SAFETY: as said above the impl.
        let pixels = unsafe {
            (self.ops.show_surface.expect(COMPLETE))(self.console, width, height, &raw mut stride)
        };
        let pixels = NonNull::new(pixels)?;
        assert!(stride >= width as usize * 4, "the host gives a surface that is wide enough");
        Some(HostCanvas { pixels, stride, len: stride * height as usize })
    }

    fn show_memory(&self, memory: &Arc<Memory>, geometry: &Geometry) -> bool {
        let Geometry { width, height, stride, .. } = *geometry;
        let Some(pixels) = memory.in_place(u64::from(stride) * u64::from(height)) else {
            return false;
        };
        let (pixels, stride) = (pixels.as_ptr().cast_const(), stride as usize);
        let held = Box::into_raw(Box::new(VfioDpyMemory { _memory: Arc::clone(memory) }));
        // SAFETY: as said above the impl; the pixels stay for as long as `held` does.
        let shown = unsafe {
            (self.ops.show_memory.expect(COMPLETE))(
                self.console,
                pixels,
                width,
                height,
                stride,
                held,
            )
        };
        if !shown {
            // SAFETY: the pointer is from `Box::into_raw`, and the host did not take it.
            drop(unsafe { Box::from_raw(held) });
        }
        shown
    }

    fn update_surface(&self, part: Rect) {
        let Rect { x, y, width, height } = part;
        // SAFETY: as said above the impl.
        unsafe { (self.ops.update_surface.expect(COMPLETE))(self.console, x, y, width, height) }
    }

    fn show_message(&self, width: u32, height: u32, text: &str) {
        let text = c_string(&format_args!("{text}"));
        // SAFETY: as said above the impl.
        unsafe {
            (self.ops.show_message.expect(COMPLETE))(self.console, width, height, text.as_ptr());
        }
    }

    fn show_firmware(&self, switch_to: bool) -> bool {
        // SAFETY: as said above the impl.
        unsafe { (self.ops.show_firmware.expect(COMPLETE))(self.console, switch_to) }
    }

    fn scanout_cursor(&self, cursor: Option<&Self::Import>, hotspot: Option<(u32, u32)>) {
        let import = cursor.map_or(std::ptr::null_mut(), |import| *import);
        let (x, y) = hotspot.unwrap_or_default();
        // SAFETY: as said above the impl; the import was not released yet.
        unsafe {
            (self.ops.scanout_cursor.expect(COMPLETE))(
                self.console,
                import,
                hotspot.is_some(),
                x,
                y,
            );
        }
    }

    fn move_scanout_cursor(&self, x: i32, y: i32) {
        // SAFETY: as said above the impl.
        unsafe { (self.ops.move_scanout_cursor.expect(COMPLETE))(self.console, x, y) }
    }

    fn surface_cursor(&self, cursor: Option<&CursorImage<'_>>) {
        let hidden = CursorImage { width: 0, height: 0, hotspot: (0, 0), pixels: &[] };
        let CursorImage { width, height, hotspot: (x, y), pixels } = *cursor.unwrap_or(&hidden);
        let pixels = if cursor.is_some() { pixels.as_ptr() } else { std::ptr::null() };
        // SAFETY: as said above the impl; the pixels are as many as width and height say.
        unsafe {
            (self.ops.surface_cursor.expect(COMPLETE))(self.console, pixels, width, height, x, y);
        }
    }

    fn move_surface_cursor(&self, x: i32, y: i32) {
        // SAFETY: as said above the impl.
        unsafe { (self.ops.move_surface_cursor.expect(COMPLETE))(self.console, x, y) }
    }

    fn request_refresh(&self) {
        // SAFETY: as said above the impl.
        unsafe { (self.ops.request_refresh.expect(COMPLETE))(self.console) }
    }

    fn looked(&self) {
        if let Some(looked) = self.ops.looked {
            // SAFETY: as said above the impl.
            unsafe { looked(self.console) }
        }
    }

    fn log(&self, severity: Severity, message: fmt::Arguments<'_>) {
        if severity == Severity::Trace {
            // SAFETY: as said above the impl.
            let wanted = unsafe { (self.ops.tracing.expect(COMPLETE))(self.console) };
            if !wanted {
                return;
            }
        }
        // SAFETY: as said above the impl.
        unsafe {
            (self.ops.log.expect(COMPLETE))(self.console, severity, c_string(&message).as_ptr());
        }
    }
}
