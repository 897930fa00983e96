//! `VfioDpyEglReadBack`: pictures drawn with the host's GL, copied into memory without waiting for
//! the GPU.

use std::ffi::{c_char, c_void};
use std::fmt::Display as Show;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use glib::{ControlFlow, IOCondition, Priority};

use crate::egl::{Display, Drawn, ReadBack, ReadBackError, Taken};

use super::clock::Attached;
use super::egl::{KnownDisplay, tell};
use super::{boundary, explained};

/// How often a fence that has no descriptor is polled.
const POLL: Duration = Duration::from_millis(1);

/// Bytes of a pixel.
const PIXEL_BYTES: usize = 4;

/// Reads pictures that the host draws with OpenGL back into memory, without waiting for the GPU.
///
/// Its functions are called on the thread that runs the GLib default main context.
pub struct VfioDpyEglReadBack {
    read_back: ReadBack<Display>,
    display: Arc<KnownDisplay>,
    ready: Ready,
    source: Option<Attached>,
}

/// Memory that a picture is copied to, in XRGB8888.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VfioDpyEglPixels {
    /// The first row.
    pub data: *mut u8,
    /// Stride in bytes.
    pub stride: usize,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Set by vfio_dpy_egl_read_back_take(): the first row that changed.
    pub first_changed_row: u32,
    /// Set by vfio_dpy_egl_read_back_take(): how many rows there are from that one to the last that
    /// changed; 0: none.
    pub changed_rows: u32,
}

/// The callback that says that it is time for vfio_dpy_egl_read_back_take().
#[derive(Clone, Copy)]
struct Ready {
    callback: unsafe extern "C" fn(opaque: *mut c_void),
    opaque: *mut c_void,
}

// SAFETY: sources of the default main context are dispatched on the thread that made them, see
// `VfioDpyEglReadBack`.
unsafe impl Send for Ready {}

impl Ready {
    fn tell(&self) {
        // SAFETY: the caller of vfio_dpy_egl_read_back_new() answers for the callback until it
        // frees what that made, which destroys the source.
        unsafe { (self.callback)(self.opaque) }
    }
}

impl VfioDpyEglReadBack {
    /// Calls the host back when what is under way now is done.
    fn watch(&mut self) {
        self.source = None;
        if !self.read_back.is_busy() {
            return;
        }
        let ready = self.ready;
        let name = Some("vfio-display read-back");
        let source = match self.read_back.fence() {
            Some(fence) => {
                let tell = move |_, _| {
                    let ready = &ready;
                    ready.tell();
                    ControlFlow::Break
                };
                let fd = fence.as_raw_fd();
                glib::unix_fd_source_new(fd, IOCondition::IN, name, Priority::DEFAULT, tell)
            }
            None => glib::timeout_source_new(POLL, name, Priority::DEFAULT, move || {
                let ready = &ready;
                ready.tell();
                ControlFlow::Continue
            }),
        };
        self.source = Some(Attached::new(source));
    }

    /// # Safety
    ///
    /// `error` is valid, or NULL.
    unsafe fn tell(&self, error: *mut *mut c_char, why: Option<&ReadBackError>) {
        let why = why.map(|why| why as &dyn Show);
        // SAFETY: as the caller says.
        unsafe { tell(error, Some(&self.display), "EGL read-back", why) };
    }
}

/// Copies the rows of a picture that differ, and notes which do.
///
/// # Safety
///
/// `pixels` has room for the picture, and nobody else uses it meanwhile.
unsafe fn copy_changed(from: &[u8], pixels: &mut VfioDpyEglPixels) {
    let row_bytes = pixels.width as usize * PIXEL_BYTES;
    let (mut first, mut end) = (None, 0);
    for (y, row) in (0_u32..).zip(from.chunks_exact(row_bytes)) {
        // SAFETY: there are as many rows as in the picture, and each has room for `row_bytes`.
        let to = unsafe {
            std::slice::from_raw_parts_mut(pixels.data.add(y as usize * pixels.stride), row_bytes)
        };
        if to != row {
            to.copy_from_slice(row);
            first = first.or(Some(y));
            end = y + 1;
        }
    }
    if let Some(first) = first {
        pixels.first_changed_row = first;
        pixels.changed_rows = end - first;
    }
}

/// Creates a read-back context.
/// @display: An EGLDisplay, initialised and never terminated, or EGL_NO_DISPLAY.
/// @ready: Called from the GLib default main context when it is time for
/// vfio_dpy_egl_read_back_take().
/// @opaque: Passed to @ready.
///
/// Return: The context, to be freed with vfio_dpy_egl_read_back_free(); NULL if there is no EGL
/// display.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_read_back_new(
    display: *mut c_void,
    ready: unsafe extern "C" fn(opaque: *mut c_void),
    opaque: *mut c_void,
) -> *mut VfioDpyEglReadBack {
    boundary(std::ptr::null_mut(), || {
        // SAFETY: as the caller says.
        let Ok(display) = (unsafe { KnownDisplay::of(display) }) else {
            return std::ptr::null_mut();
        };
        let read_back = ReadBack::new(display.importer());
        let ready = Ready { callback: ready, opaque };
        Box::into_raw(Box::new(VfioDpyEglReadBack { read_back, display, ready, source: None }))
    })
}

/// Returns a texture to draw the next picture to.
/// @read_back: The read-back context.
/// @width: Width of the picture, in pixels.
/// @height: Height of the picture, in pixels.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL. The message
/// is NULL if the same one was given for the display before.
///
/// Context: A context of the display is current.
/// Return: A GL_TEXTURE_2D of the current context, whose first row is at coordinate 0. It is valid
/// until the next call of a function of the read-back context. 0 if this cannot be done without
/// waiting for the GPU: *@error says why, or the context has neither OpenGL 3.3 nor OpenGL ES 3.0
/// with what is needed.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_read_back_target(
    read_back: *mut VfioDpyEglReadBack,
    width: u32,
    height: u32,
    error: *mut *mut c_char,
) -> u32 {
    // SAFETY: the caller gives one of ours.
    let this = unsafe { &mut *read_back };
    let body = || {
        let target = this.read_back.target(width, height);
        // SAFETY: as the caller says.
        unsafe { this.tell(error, target.as_ref().err()) };
        if !this.read_back.is_busy() {
            this.source = None;
        }
        target.ok().flatten().unwrap_or(0)
    };
    // SAFETY: as the caller says.
    unsafe { explained(error, 0, body) }
}

/// Reads back what was drawn to vfio_dpy_egl_read_back_target().
/// @read_back: The read-back context.
/// @anew: Whether the picture has certainly changed. If not, the GPU compares it first.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL. The message
/// is NULL if the same one was given for the display before.
///
/// If another read is pending, this one follows it.
///
/// Context: The same context is current.
/// Return: False on failure: the texture is gone.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_read_back_start(
    read_back: *mut VfioDpyEglReadBack,
    anew: bool,
    error: *mut *mut c_char,
) -> bool {
    // SAFETY: the caller gives one of ours.
    let this = unsafe { &mut *read_back };
    let body = || {
        let was_busy = this.read_back.is_busy();
        let started = this.read_back.start(if anew { Drawn::Anew } else { Drawn::Perhaps });
        // SAFETY: as the caller says.
        unsafe { this.tell(error, started.as_ref().err()) };
        if !was_busy || started.is_err() {
            this.watch();
        }
        started.is_ok()
    };
    // SAFETY: as the caller says.
    unsafe { explained(error, false, body) }
}

/// Copies the picture that was read last, where it differs, if it has arrived.
/// @read_back: The read-back context.
/// @wait: Whether to wait for all that was drawn.
/// @pixels: Where to put it. If the sizes differ, nothing is copied. Nobody else uses the memory
/// meanwhile.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL. The message
/// is NULL if the same one was given for the display before.
///
/// Context: Whichever context of EGL is current, or none.
/// Return: False on failure: the last picture will not arrive; draw it again.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_read_back_take(
    read_back: *mut VfioDpyEglReadBack,
    wait: bool,
    pixels: *mut VfioDpyEglPixels,
    error: *mut *mut c_char,
) -> bool {
    // SAFETY: the caller gives one of ours.
    let (this, pixels) = unsafe { (&mut *read_back, &mut *pixels) };
    let body = || {
        (pixels.first_changed_row, pixels.changed_rows) = (0, 0);
        if this.read_back.size() != Some((pixels.width, pixels.height)) {
            this.read_back.forget();
        }
        let taken = this.read_back.take(wait, &mut |bytes| {
            // SAFETY: it has the size of what was read, and the memory for it, as the caller says.
            unsafe { copy_changed(bytes, pixels) };
        });
        // SAFETY: as the caller says.
        unsafe { this.tell(error, taken.as_ref().err()) };
        // A timer goes on while the same work is under way; a fence may have been replaced by the
        // next one.
        if taken != Ok(Taken::Nothing)
            || !this.read_back.is_busy()
            || this.read_back.fence().is_some()
        {
            this.watch();
        }
        taken.is_ok()
    };
    // SAFETY: as the caller says.
    unsafe { explained(error, false, body) }
}

/// Reports that the host's memory no longer holds what was read last: it was replaced, or shows
/// something else.
/// @read_back: The read-back context.
///
/// Pending reads are not copied.
///
/// Context: Whichever context of EGL is current, or none.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_read_back_forget(read_back: *mut VfioDpyEglReadBack) {
    // SAFETY: the caller gives one of ours.
    let this = unsafe { &mut *read_back };
    boundary((), || {
        this.read_back.forget();
        this.source = None;
    });
}

/// Frees a read-back context, and its textures.
/// @read_back: The read-back context; NULL is fine.
///
/// Context: Whichever context of EGL is current, or none.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_read_back_free(read_back: *mut VfioDpyEglReadBack) {
    if !read_back.is_null() {
        // SAFETY: the pointer is from `Box::into_raw` in vfio_dpy_egl_read_back_new(), and freed
        // once.
        boundary((), || drop(unsafe { Box::from_raw(read_back) }));
    }
}
