//! `VfioDpyConsoleOps`: what the host's console takes, as a table of callbacks.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::console::{Console, CursorImage, ScanoutSupport, Severity};
use crate::damage::{Canvas, Rect};
use crate::memory::Memory;
use crate::plane::Geometry;

use super::boundary;
use super::sized::Growing;
use super::strings::c_string;

/// A dma-buf with one plane, at offset 0.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VfioDpyBuffer {
    /// DRM format modifier; LINEAR is 0.
    pub modifier: u64,
    /// The dma-buf. It belongs to the library, and stays open until release() of struct
    /// VfioDpyConsoleOps returns.
    pub fd: c_int,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Stride in bytes.
    pub stride: u32,
    /// DRM format.
    pub fourcc: u32,
}

/// Memory of a device that a console shows.
///
/// It is reference-counted, and may outlive the display and the device.
pub struct VfioDpyMemory {
    /// Held, not read: dropping it is what counts.
    _memory: Arc<Memory>,
}

/// Frees memory that was passed to show_memory() of struct VfioDpyConsoleOps.
/// @memory: What show_memory() was passed, if that returned true; NULL is fine. Nobody reads its
/// pixels any more.
///
/// Context: Any thread.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_memory_free(memory: *mut VfioDpyMemory) {
    if !memory.is_null() {
        // SAFETY: the pointer is from `Box::into_raw` in `HostConsole::show_memory`, and freed
        // once.
        boundary((), || drop(unsafe { Box::from_raw(memory) }));
    }
}

/// A VfioDpyScanoutSupport as it comes from C: any integer.
#[repr(transparent)]
#[derive(Clone, Copy, Debug)]
pub struct AnySupport(pub(super) c_uint);

/// Callbacks of the host's console.
///
/// The console shows one thing at a time: a scanout (a dma-buf that a front end imports), a
/// surface, memory of the device, a message, or the firmware's framebuffer. Showing one replaces
/// the other. Each callback is passed the console that was given to vfio_dpy_new().
///
/// show_surface() is required. All others may be NULL, and are then not called, unless their
/// description says otherwise.
///
/// Context: The display's thread, within a call of the display's functions or from the GLib default
/// main context. They may call the display's functions, except vfio_dpy_free(): such a call takes
/// effect when the outer one ends.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VfioDpyConsoleOps {
    /// Set it to sizeof(struct VfioDpyConsoleOps).
    pub size: u32,
    /// Shows a new surface in XRGB8888. Returns its pixels, @height rows with a stride of *@stride
    /// bytes, writable until the console is told to show something else, or vfio_dpy_free()
    /// returns. Returns NULL if there is no memory for it; the console then keeps what it shows.
    pub show_surface: Option<
        unsafe extern "C" fn(
            console: *mut c_void,
            width: u32,
            height: u32,
            stride: *mut usize,
        ) -> *mut u8,
    >,
    /// Reports that a part of the surface, or of the memory, has changed; in pixels.
    pub update_surface:
        Option<unsafe extern "C" fn(console: *mut c_void, x: u32, y: u32, width: u32, height: u32)>,
    /// Shows a picture in XRGB8888 in the device's memory: @height rows with a stride of @stride
    /// bytes, a multiple of 4. The device, or the guest, may write to it at any time; nobody else
    /// may. Any thread may read the @stride * @height bytes until @memory is passed to
    /// vfio_dpy_memory_free(), once, when the console shows something else and no front end reads
    /// them any more; that may be after vfio_dpy_free().
    ///
    /// Returns false if the console cannot show it; it then keeps what it shows, and @memory stays
    /// the library's. NULL: false.
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
    /// Shows a line of text on a surface of this size in pixels. @text is valid during the call.
    pub show_message: Option<
        unsafe extern "C" fn(console: *mut c_void, width: u32, height: u32, text: *const c_char),
    >,
    /// Shows the firmware's framebuffer, or, unless @switch_to, what changed of it. Returns false
    /// if there is none. NULL: there is none.
    pub show_firmware: Option<unsafe extern "C" fn(console: *mut c_void, switch_to: bool) -> bool>,
    /// Returns what the front ends would do with a dma-buf, which may change at any time. @import
    /// is what import() returned for it, or NULL if it was not imported yet. If this, import(),
    /// release() or show_scanout() is NULL, there are no scanouts, and the next six callbacks are
    /// not called.
    pub scanout_support: Option<
        unsafe extern "C" fn(
            console: *mut c_void,
            buffer: *const VfioDpyBuffer,
            import: *mut c_void,
        ) -> AnySupport,
    >,
    /// Imports a dma-buf for the front ends, and returns what the host keeps of it, for release().
    pub import: Option<
        unsafe extern "C" fn(console: *mut c_void, buffer: *const VfioDpyBuffer) -> *mut c_void,
    >,
    /// Frees an import, which is off screen.
    pub release: Option<unsafe extern "C" fn(console: *mut c_void, import: *mut c_void)>,
    /// Shows an imported dma-buf.
    pub show_scanout: Option<unsafe extern "C" fn(console: *mut c_void, import: *mut c_void)>,
    /// Reports that a part of the scanout may have changed; in pixels.
    pub update_scanout:
        Option<unsafe extern "C" fn(console: *mut c_void, x: u32, y: u32, width: u32, height: u32)>,
    /// Shows an imported dma-buf as the cursor above a scanout; NULL hides it. Where the CPU cannot
    /// read it fast, it is shown again every 100 ms: guests draw cursors in place, so that a host
    /// that reads the pixels must do so each time.
    pub scanout_cursor: Option<
        unsafe extern "C" fn(
            console: *mut c_void,
            import: *mut c_void,
            has_hotspot: bool,
            hot_x: u32,
            hot_y: u32,
        ),
    >,
    /// Moves the upper left corner of the cursor above a scanout; in pixels.
    pub move_scanout_cursor: Option<unsafe extern "C" fn(console: *mut c_void, x: i32, y: i32)>,
    /// Sets the cursor above a surface, or above a scanout if no front end imports the cursor's
    /// dma-buf: @height rows of @width pixels in ARGB8888 as the guest has them (premultiplied, as
    /// DRM's planes are by default), without padding. NULL hides it. The pixels are valid during
    /// the call.
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
    /// Moves the upper left corner of that cursor; in pixels.
    pub move_surface_cursor: Option<unsafe extern "C" fn(console: *mut c_void, x: i32, y: i32)>,
    /// Makes the front ends refresh soon, as if their timers had fired, but not from within the
    /// callback.
    pub request_refresh: Option<unsafe extern "C" fn(console: *mut c_void)>,
    /// A refresh that is not periodic (see vfio_dpy_refresh()) is complete:
    /// graphic_hw_update_done(), but not from within the callback. NULL: nobody waits for that,
    /// which is fine if vfio_dpy_watcher() is not called.
    pub refresh_done: Option<unsafe extern "C" fn(console: *mut c_void)>,
    /// Logs a message, which is valid during the call. NULL: it goes to GLib's log, domain
    /// "vfio-display".
    pub log: Option<
        unsafe extern "C" fn(console: *mut c_void, severity: Severity, message: *const c_char),
    >,
    /// Returns whether messages of VFIO_DPY_SEVERITY_TRACE are wanted. NULL: false.
    pub tracing: Option<unsafe extern "C" fn(console: *mut c_void) -> bool>,
}

// SAFETY: it begins with its size, and of callbacks zero is `None`.
unsafe impl Growing for VfioDpyConsoleOps {
    const NAME: &'static str = "struct VfioDpyConsoleOps";
}

impl VfioDpyConsoleOps {
    /// The name of a callback without which nothing can be shown, and which is not there.
    pub fn missing(&self) -> Option<&'static str> {
        self.show_surface.is_none().then_some("show_surface")
    }

    /// Whether dma-bufs can be shown at all.
    fn has_scanouts(&self) -> bool {
        self.import.is_some() && self.release.is_some() && self.show_scanout.is_some()
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
        // SAFETY: the host keeps the pixels writable until the console shows something else, and
        // the display drops the canvas then; it reads them only between the calls into the library.
        unsafe { std::slice::from_raw_parts_mut(self.pixels.as_ptr(), self.len) }
    }
}

impl HostConsole {
    /// # Safety
    ///
    /// The callbacks can be called with `console`, from this thread, for as long as the value
    /// lives, and do what [`VfioDpyConsoleOps`] says.
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

// SAFETY of all calls below: `HostConsole::new` demands a callable table; pointers are to values
// that live during the call.
impl Console for HostConsole {
    type Import = *mut c_void;
    type Canvas = HostCanvas;

    fn scanout_support(
        &self,
        buffer: BorrowedFd<'_>,
        geometry: &Geometry,
        import: Option<&Self::Import>,
    ) -> ScanoutSupport {
        let Some(scanout_support) = self.ops.scanout_support.filter(|_| self.ops.has_scanouts())
        else {
            return ScanoutSupport::None;
        };
        let import = import.map_or(std::ptr::null_mut(), |import| *import);
        // SAFETY: as said above the impl; the import was not released yet.
        match unsafe { scanout_support(self.console, &describe(buffer, geometry), import) } {
            AnySupport(it) if it == ScanoutSupport::Import as c_uint => ScanoutSupport::Import,
            AnySupport(it) if it == ScanoutSupport::ReadBack as c_uint => ScanoutSupport::ReadBack,
            AnySupport(_) => ScanoutSupport::None,
        }
    }

    fn import(&self, buffer: BorrowedFd<'_>, geometry: &Geometry) -> Self::Import {
        let Some(import) = self.ops.import else { return std::ptr::null_mut() };
        // SAFETY: as said above the impl.
        unsafe { import(self.console, &describe(buffer, geometry)) }
    }

    fn release(&self, import: Self::Import) {
        if let Some(release) = self.ops.release {
            // SAFETY: as said above the impl; the import is not used again.
            unsafe { release(self.console, import) }
        }
    }

    fn scanout(&self, import: &Self::Import) {
        if let Some(show_scanout) = self.ops.show_scanout {
            // SAFETY: as said above the impl; the import was not released yet.
            unsafe { show_scanout(self.console, *import) }
        }
    }

    fn update_scanout(&self, part: Rect) {
        let Rect { x, y, width, height } = part;
        if let Some(update_scanout) = self.ops.update_scanout {
            // SAFETY: as said above the impl.
            unsafe { update_scanout(self.console, x, y, width, height) }
        }
    }

    fn show_surface(&self, width: u32, height: u32) -> Option<Self::Canvas> {
        let mut stride = 0;
        // SAFETY: as said above the impl.
        let pixels =
            unsafe { self.ops.show_surface?(self.console, width, height, &raw mut stride) };
        let pixels = NonNull::new(pixels)?;
        assert!(stride >= width as usize * 4, "the host gives a surface that is wide enough");
        Some(HostCanvas { pixels, stride, len: stride * height as usize })
    }

    fn show_memory(&self, memory: &Arc<Memory>, geometry: &Geometry) -> bool {
        let Some(show_memory) = self.ops.show_memory else { return false };
        let Geometry { width, height, stride, .. } = *geometry;
        let Some(pixels) = memory.in_place(u64::from(stride) * u64::from(height)) else {
            return false;
        };
        let (pixels, stride) = (pixels.as_ptr().cast_const(), stride as usize);
        let held = Box::into_raw(Box::new(VfioDpyMemory { _memory: Arc::clone(memory) }));
        // SAFETY: as said above the impl; the pixels stay for as long as `held` does.
        let shown = unsafe { show_memory(self.console, pixels, width, height, stride, held) };
        if !shown {
            // SAFETY: the pointer is from `Box::into_raw`, and the host did not take it.
            drop(unsafe { Box::from_raw(held) });
        }
        shown
    }

    fn update_surface(&self, part: Rect) {
        let Rect { x, y, width, height } = part;
        if let Some(update_surface) = self.ops.update_surface {
            // SAFETY: as said above the impl.
            unsafe { update_surface(self.console, x, y, width, height) }
        }
    }

    fn show_message(&self, width: u32, height: u32, text: &str) {
        if let Some(show_message) = self.ops.show_message {
            let text = c_string(text);
            // SAFETY: as said above the impl.
            unsafe { show_message(self.console, width, height, text.as_ptr()) }
        }
    }

    fn show_firmware(&self, switch_to: bool) -> bool {
        // SAFETY: as said above the impl.
        self.ops.show_firmware.is_some_and(|show| unsafe { show(self.console, switch_to) })
    }

    fn scanout_cursor(&self, cursor: Option<&Self::Import>, hotspot: Option<(u32, u32)>) {
        let import = cursor.map_or(std::ptr::null_mut(), |import| *import);
        let (x, y) = hotspot.unwrap_or_default();
        if let Some(scanout_cursor) = self.ops.scanout_cursor.filter(|_| self.ops.has_scanouts()) {
            // SAFETY: as said above the impl; the import was not released yet.
            unsafe { scanout_cursor(self.console, import, hotspot.is_some(), x, y) }
        }
    }

    fn move_scanout_cursor(&self, x: i32, y: i32) {
        if let Some(move_cursor) = self.ops.move_scanout_cursor.filter(|_| self.ops.has_scanouts())
        {
            // SAFETY: as said above the impl.
            unsafe { move_cursor(self.console, x, y) }
        }
    }

    fn surface_cursor(&self, cursor: Option<&CursorImage<'_>>) {
        let hidden = CursorImage { width: 0, height: 0, hotspot: (0, 0), pixels: &[] };
        let CursorImage { width, height, hotspot: (x, y), pixels } = *cursor.unwrap_or(&hidden);
        let pixels = if cursor.is_some() { pixels.as_ptr() } else { std::ptr::null() };
        if let Some(surface_cursor) = self.ops.surface_cursor {
            // SAFETY: as said above the impl; the pixels are as many as width and height say.
            unsafe { surface_cursor(self.console, pixels, width, height, x, y) }
        }
    }

    fn move_surface_cursor(&self, x: i32, y: i32) {
        if let Some(move_surface_cursor) = self.ops.move_surface_cursor {
            // SAFETY: as said above the impl.
            unsafe { move_surface_cursor(self.console, x, y) }
        }
    }

    fn request_refresh(&self) {
        if let Some(request_refresh) = self.ops.request_refresh {
            // SAFETY: as said above the impl.
            unsafe { request_refresh(self.console) }
        }
    }

    fn refresh_done(&self) {
        if let Some(refresh_done) = self.ops.refresh_done {
            // SAFETY: as said above the impl.
            unsafe { refresh_done(self.console) }
        }
    }

    fn log(&self, severity: Severity, message: fmt::Arguments<'_>) {
        // SAFETY: as said above the impl.
        let traces = || self.ops.tracing.is_some_and(|tracing| unsafe { tracing(self.console) });
        if severity == Severity::Trace && !traces() {
            return;
        }
        let Some(log) = self.ops.log else { return log_with_glib(severity, message) };
        // SAFETY: as said above the impl.
        unsafe { log(self.console, severity, c_string(&message.to_string()).as_ptr()) }
    }
}

/// Where messages go of a host that takes none.
fn log_with_glib(severity: Severity, message: fmt::Arguments<'_>) {
    match severity {
        Severity::Error | Severity::Warning => glib::g_warning!("vfio-display", "{message}"),
        Severity::Trace => glib::g_debug!("vfio-display", "{message}"),
    }
}
