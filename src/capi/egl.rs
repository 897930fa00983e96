//! `VfioDpyEglImport`: a dma-buf as a texture of the host's GL.

use std::collections::BTreeMap;
use std::ffi::{c_char, c_int, c_void};
use std::fmt::Display as Show;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::egl::{
    Buffer, BufferPlane, ColorSpace, Display, Import, ImportError, Importer, MAX_PLANES, Usable,
};
use crate::format::{Format, FourccCode};
use drm_fourcc::{DrmFourcc, DrmModifier};

use super::strings::glib_string;
use super::{boundary, explained};

/// The most messages that are remembered, and so said, for one display.
const MOST_MESSAGES: usize = 256;

/// The most of them that a description repeats: the last ones.
const MOST_DESCRIBED: usize = 8;

/// And the most that are said within [`BURST_TIME`]: a guest chooses what there is to say of its
/// buffers.
const BURST: u32 = 8;

const BURST_TIME: Duration = Duration::from_secs(30);

/// What messages are about.
const IMPORT: &str = "EGL import";

/// How luminance and chrominance become colours.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VfioDpyEglColorSpace {
    /// ITU-R BT.601, which drivers assume.
    Rec601 = 0,
    /// ITU-R BT.709.
    Rec709 = 1,
    /// ITU-R BT.2020.
    Rec2020 = 2,
}

/// A picture in dma-bufs.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VfioDpyEglBuffer {
    /// DRM format modifier; LINEAR is 0, and INVALID (0x00ffffffffffffff) leaves it to the driver.
    pub modifier: u64,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// DRM format.
    pub fourcc: u32,
    /// How many planes there are, 1 to 4.
    pub num_planes: u32,
    /// The dma-buf of each plane; a negative one stands for that of the first plane. They stay the
    /// caller's.
    pub fd: [c_int; 4],
    /// Where each plane begins in its dma-buf, in bytes.
    pub offset: [u32; 4],
    /// Stride of each plane in bytes.
    pub stride: [u32; 4],
    /// An enum VfioDpyEglColorSpace, for YUV formats.
    pub color_space: u32,
    /// Whether YUV formats use all values of a byte.
    pub full_range: bool,
}

/// A dma-buf as a texture.
///
/// The functions of one import are called by one thread at a time.
pub struct VfioDpyEglImport {
    import: Import<Display>,
    display: Arc<KnownDisplay>,
}

/// What is kept of a display, once and for all.
pub struct KnownDisplay {
    importer: Arc<Importer<Display>>,
    said: Mutex<Said>,
}

/// The messages of a display.
#[derive(Debug, Default)]
struct Said {
    /// In the order in which they were said.
    texts: Vec<String>,
    /// When the first of the last burst was said, and how many there were since.
    burst: Option<(Instant, u32)>,
}

impl Said {
    /// Whether a message is worth saying: it was not said before, and there were not many others
    /// just now.
    fn say(&mut self, message: &str, now: Instant) -> bool {
        let recent = |&(began, _): &(Instant, u32)| now.duration_since(began) < BURST_TIME;
        let (began, count) = self.burst.filter(recent).unwrap_or((now, 0));
        let known = self.texts.iter().any(|known| known == message);
        let new = !known && self.texts.len() < MOST_MESSAGES && count < BURST;
        if new {
            self.texts.push(message.to_owned());
            self.burst = Some((began, count + 1));
        }
        new
    }
}

static DISPLAYS: LazyLock<Mutex<BTreeMap<usize, Arc<KnownDisplay>>>> =
    LazyLock::new(Mutex::default);

impl KnownDisplay {
    /// # Safety
    ///
    /// `display` is an `EGLDisplay` that was initialised, and is never terminated; or NULL.
    pub unsafe fn of(display: *mut c_void) -> Result<Arc<Self>, String> {
        let mut displays = DISPLAYS.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = displays.get(&display.addr()) {
            return Ok(Arc::clone(known));
        }
        // SAFETY: as the caller says.
        let driver = unsafe { Display::new(display) }.ok_or("there is no EGL display")?;
        let importer = Arc::new(Importer::new(driver));
        let known = Arc::new(Self { importer, said: Mutex::default() });
        displays.insert(display.addr(), Arc::clone(&known));
        Ok(known)
    }

    /// What imports and reads back for this display.
    pub fn importer(&self) -> Arc<Importer<Display>> {
        Arc::clone(&self.importer)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The status in a few lines of text.
    fn describe(&self) -> String {
        let mut text = format!("{}\n", self.importer);
        let said = self.said();
        for message in said.texts.iter().skip(said.texts.len().saturating_sub(MOST_DESCRIBED)) {
            text.push_str("  ");
            text.push_str(message);
            text.push('\n');
        }
        text
    }
}

impl VfioDpyEglBuffer {
    /// Runs `body` with the buffer in our terms.
    ///
    /// # Safety
    ///
    /// The descriptors of the planes are open.
    unsafe fn with<R>(&self, body: impl FnOnce(&Buffer<'_>) -> R) -> Result<R, String> {
        let fourcc = DrmFourcc::try_from(self.fourcc)
            .map_err(|_| format!("unknown format {}", FourccCode(self.fourcc)))?;
        let format = Format { fourcc, modifier: DrmModifier::from(self.modifier) };
        let count = self.num_planes as usize;
        if !(1..=MAX_PLANES).contains(&count) {
            return Err(format!("{count} planes are out of range (1 to {MAX_PLANES})"));
        }
        let color_space = match self.color_space {
            space if space == VfioDpyEglColorSpace::Rec601 as u32 => ColorSpace::Rec601,
            space if space == VfioDpyEglColorSpace::Rec709 as u32 => ColorSpace::Rec709,
            space if space == VfioDpyEglColorSpace::Rec2020 as u32 => ColorSpace::Rec2020,
            unknown => return Err(format!("unknown colour space {unknown}")),
        };
        let mut planes = Vec::with_capacity(count);
        for index in 0..count {
            let fd = if self.fd[index] < 0 { self.fd[0] } else { self.fd[index] };
            if fd < 0 {
                return Err(format!("plane {index}: there is no dma-buf"));
            }
            // SAFETY: the descriptor is open, as the caller says.
            let fd = unsafe { BorrowedFd::borrow_raw(fd) };
            planes.push(BufferPlane { fd, offset: self.offset[index], stride: self.stride[index] });
        }
        Ok(body(&Buffer {
            format,
            width: self.width,
            height: self.height,
            planes: &planes,
            color_space,
            full_range: self.full_range,
        }))
    }
}

/// Tells what is new; the pointer is set in any case.
///
/// # Safety
///
/// `error` is valid, or NULL.
pub unsafe fn tell(
    error: *mut *mut c_char,
    display: Option<&KnownDisplay>,
    work: &str,
    why: Option<&dyn Show>,
) {
    if error.is_null() {
        return;
    }
    let text = why.map(|why| format!("{work}: {why}"));
    let is_new = |text: &String| display.is_none_or(|known| known.said().say(text, Instant::now()));
    let new = text.filter(is_new);
    // SAFETY: the pointer is valid, as the caller says.
    unsafe { *error = new.map_or(std::ptr::null_mut(), |text| glib_string(&text)) };
}

/// What one of the functions below does with a display and a buffer.
///
/// # Safety
///
/// As for [`vfio_dpy_egl_import_new`].
unsafe fn try_with<R>(
    display: *mut c_void,
    buffer: *const VfioDpyEglBuffer,
    error: *mut *mut c_char,
    body: impl FnOnce(&Arc<KnownDisplay>, &Buffer<'_>) -> Result<R, ImportError>,
) -> Option<R> {
    // SAFETY: as the caller says.
    let known = match unsafe { KnownDisplay::of(display) } {
        Ok(known) => known,
        Err(why) => {
            // SAFETY: as the caller says.
            unsafe { tell(error, None, IMPORT, Some(&why)) };
            return None;
        }
    };
    // SAFETY: as the caller says.
    let result =
        unsafe { (*buffer).with(|buffer| body(&known, buffer).map_err(|error| error.of(buffer))) };
    let (result, why) = match result.and_then(|result| result) {
        Ok(result) => (Some(result), None),
        Err(why) => (None, Some(why)),
    };
    // SAFETY: as the caller says.
    unsafe {
        tell(error, Some(&known), IMPORT, why.as_ref().map(|why| why as &dyn Show));
    }
    result
}

/// Returns whether a display imports dma-bufs at all.
/// @display: An EGLDisplay, initialised and never terminated, or EGL_NO_DISPLAY.
///
/// Context: Any thread.
/// Return: Whether it does.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_imports(display: *mut c_void) -> bool {
    boundary(false, || {
        // SAFETY: as the caller says.
        unsafe { KnownDisplay::of(display) }.is_ok_and(|known| known.importer.imports())
    })
}

/// Checks whether a display can import a picture, as far as that is known beforehand.
/// @display: An EGLDisplay, initialised and never terminated, or EGL_NO_DISPLAY.
/// @buffer: The picture; its descriptors are open.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL. The message
/// is NULL if the same one was given for this display before.
///
/// What the display supports is queried once.
///
/// Context: Any thread; no context of EGL is needed.
/// Return: Whether it can.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_can_import(
    display: *mut c_void,
    buffer: *const VfioDpyEglBuffer,
    error: *mut *mut c_char,
) -> bool {
    let body = || {
        // SAFETY: as the caller says.
        let checked = unsafe {
            try_with(display, buffer, error, |known, buffer| known.importer.check(buffer))
        };
        checked.is_some()
    };
    // SAFETY: as the caller says.
    unsafe { explained(error, false, body) }
}

/// Copies a linear picture in ARGB8888 or XRGB8888, for those who do not draw it with OpenGL.
/// @buffer: The picture; its descriptors are open.
/// @pixels: Where to put its pixels in ARGB8888, without padding.
///
/// Context: Any thread.
/// Return: False if the CPU cannot read them.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_read(
    buffer: *const VfioDpyEglBuffer,
    pixels: *mut u32,
) -> bool {
    boundary(false, || {
        let mut to = pixels.cast::<u8>();
        let copy = |row: &[u8]| {
            // SAFETY: there are no more rows than the buffer says, and as many bytes in each.
            unsafe {
                std::ptr::copy_nonoverlapping(row.as_ptr(), to, row.len());
                to = to.add(row.len());
            }
        };
        // SAFETY: as the caller says.
        unsafe { (*buffer).with(|buffer| buffer.read(copy).is_ok()) }.unwrap_or(false)
    })
}

/// Makes a texture of a picture.
/// @display: An EGLDisplay, initialised and never terminated, or EGL_NO_DISPLAY.
/// @buffer: The picture; its descriptors are open, and may be closed afterwards.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL. The message
/// is NULL if the same one was given for this display before.
///
/// Nothing is left in the error queues of GL and EGL.
///
/// Context: A context of the display is current.
/// Return: The import, to be freed with vfio_dpy_egl_import_free(), or NULL on failure.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_import_new(
    display: *mut c_void,
    buffer: *const VfioDpyEglBuffer,
    error: *mut *mut c_char,
) -> *mut VfioDpyEglImport {
    let body = || {
        // SAFETY: as the caller says.
        let import = unsafe {
            try_with(display, buffer, error, |known, buffer| {
                let import = known.importer.import(buffer)?;
                Ok(VfioDpyEglImport { import, display: Arc::clone(known) })
            })
        };
        import.map_or(std::ptr::null_mut(), |import| Box::into_raw(Box::new(import)))
    };
    // SAFETY: as the caller says.
    unsafe { explained(error, std::ptr::null_mut(), body) }
}

/// Returns the name of an import's texture.
/// @import: The import.
///
/// Context: Any.
/// Return: The name of a GL_TEXTURE_2D whose first row is at coordinate 0.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_import_texture(import: *const VfioDpyEglImport) -> u32 {
    // SAFETY: the caller gives an import.
    let import = unsafe { &*import };
    boundary(0, || import.import.texture())
}

/// Returns whether the current context has an import's texture.
/// @import: The import.
///
/// Context: A context of EGL, or none, is current.
/// Return: Whether it has. If not, free the import, and make another one.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_import_is_current(import: *const VfioDpyEglImport) -> bool {
    // SAFETY: the caller gives an import.
    let import = unsafe { &*import };
    boundary(true, || import.import.is_here())
}

/// Prepares an import's texture for drawing; call it before each draw.
/// @import: The import.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL. The message
/// is NULL if the same one was given for this display before.
///
/// Converts pictures that cannot be textures as they are. If that fails, *@error says why, and the
/// texture shows what it showed before.
///
/// Context: A context of the display is current.
/// Return: False if the current context does not have the texture: free the import, and make
/// another one.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_import_begin(
    import: *mut VfioDpyEglImport,
    error: *mut *mut c_char,
) -> bool {
    // SAFETY: the caller gives an import.
    let import = unsafe { &*import };
    let body = || {
        let begun = import.import.begin();
        let why = begun.as_ref().err().map(|why| why as &dyn Show);
        // SAFETY: as the caller says.
        unsafe { tell(error, Some(&import.display), IMPORT, why) };
        !matches!(begun, Ok(Usable::NotHere))
    };
    // SAFETY: as the caller says.
    unsafe { explained(error, true, body) }
}

/// Reports that an import's texture was drawn; call it before glFlush().
/// @import: The import.
///
/// vfio_dpy_egl_import_take_fence() then says when the GPU is done.
///
/// Context: The context in which it was drawn is current.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_import_end(import: *mut VfioDpyEglImport) {
    // SAFETY: the caller gives an import.
    let import = unsafe { &mut *import };
    // Without a fence the host waits for nothing, which it copes with.
    boundary((), || drop(import.import.drew()));
}

/// Takes the fence of vfio_dpy_egl_import_end(); call it after glFlush().
/// @import: The import.
///
/// Context: The context in which it was drawn is current.
/// Return: A descriptor (a sync_file) that is readable when the GPU is done, for the caller to
/// close; -1 if the display has no native fences.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_import_take_fence(import: *mut VfioDpyEglImport) -> c_int {
    // SAFETY: the caller gives an import.
    let import = unsafe { &mut *import };
    boundary(-1, || import.import.take_fence().ok().flatten().map_or(-1, IntoRawFd::into_raw_fd))
}

/// Frees an import.
/// @import: The import; NULL is fine.
///
/// Its texture is deleted in the context that has it, from the GLib default main context if that is
/// current on another thread.
///
/// Context: Whichever context of EGL is current, or none.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_egl_import_free(import: *mut VfioDpyEglImport) {
    if !import.is_null() {
        // SAFETY: the pointer is from `Box::into_raw` in vfio_dpy_egl_import_new(), and freed once.
        boundary((), || {
            // SAFETY: as above.
            let VfioDpyEglImport { import, display } = *unsafe { Box::from_raw(import) };
            drop(import);
            // A device may go in the thread of a guest's processor, and the contexts are the main
            // loop's.
            if display.importer.has_orphans() {
                glib::idle_add_once(move || boundary((), || display.importer.sweep()));
            }
        });
    }
}

/// Returns what was imported and refused, for each display, as a few lines of text.
///
/// Context: Any thread.
/// Return: The text, empty or ending with a line feed, to be freed with g_free().
#[unsafe(no_mangle)]
pub extern "C" fn vfio_dpy_egl_describe() -> *mut c_char {
    boundary(std::ptr::null_mut(), || {
        let displays = DISPLAYS.lock().unwrap_or_else(PoisonError::into_inner);
        glib_string(&displays.values().map(|known| known.describe()).collect::<String>())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_does_not_fill_the_log() {
        let (mut said, mut now) = (Said::default(), Instant::now());
        let mut count = |now, numbers: std::ops::Range<u32>| {
            numbers.filter(|number| said.say(&format!("stride {number}"), now)).count()
        };
        assert_eq!(count(now, 0..100), 8);
        now += BURST_TIME;
        assert_eq!(count(now, 0..8), 0, "it was logged");
        assert_eq!(count(now, 90..95), 5, "what was withheld is logged now");
    }
}
