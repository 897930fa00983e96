//! A console that takes what it is shown as a script says, and checks that it is there.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ffi::{CStr, c_char, c_uint, c_void};
use std::ptr::null_mut;

use crate::capi::console::{
    AnySupport, VfioDpyBuffer, VfioDpyConsoleOps, VfioDpyMemory, vfio_dpy_memory_free,
};
use crate::console::Severity;

use super::{Host, read};

/// No surface that the host has memory for is larger, in bytes.
const MAX_SURFACE: usize = 1 << 22;

/// What a console shows.
enum Shown {
    Nothing,
    Surface { pixels: Vec<u8>, width: u32, height: u32 },
    Memory { pixels: *const u8, len: usize, width: u32, height: u32 },
    Scanout { import: usize },
}

/// What a console holds of a display.
pub struct Console {
    shown: RefCell<Shown>,
    imports: RefCell<HashSet<usize>>,
    next_import: Cell<usize>,
    /// What was shown, and is read for a while.
    memories: RefCell<Vec<*mut VfioDpyMemory>>,
    /// The import that is the pointer; 0: none.
    cursor: Cell<usize>,
}

impl Console {
    pub fn new() -> Self {
        Self {
            shown: RefCell::new(Shown::Nothing),
            imports: RefCell::default(),
            next_import: Cell::new(0),
            memories: RefCell::default(),
            cursor: Cell::new(0),
        }
    }

    /// Shows nothing any more, and gives back what front ends still read.
    pub fn end(&self) {
        assert!(self.imports.borrow().is_empty(), "an import is never released");
        self.show(Shown::Nothing);
        self.let_go(0);
    }

    fn show(&self, next: Shown) {
        *self.shown.borrow_mut() = next;
    }

    /// Frees all but the last `left` of the memories that were shown, as front ends do in the end.
    pub fn let_go(&self, left: usize) {
        let keep =
            if matches!(*self.shown.borrow(), Shown::Memory { .. }) { left.max(1) } else { left };
        let mut memories = self.memories.borrow_mut();
        let count = memories.len().saturating_sub(keep);
        for memory in memories.drain(..count) {
            // SAFETY: it was given by show_memory(), is not shown any more, and is let go of once.
            unsafe { vfio_dpy_memory_free(memory) };
        }
    }

    /// What changed of what is shown is within it, and can be read.
    fn updated(&self, x: u32, y: u32, width: u32, height: u32) {
        let (columns, rows) = match &*self.shown.borrow() {
            Shown::Surface { width, height, pixels } => {
                read(pixels.as_ptr(), pixels.len());
                (*width, *height)
            }
            Shown::Memory { width, height, pixels, len } => {
                read(*pixels, *len);
                (*width, *height)
            }
            _ => panic!("neither a surface nor memory is shown"),
        };
        let within = |from: u32, len: u32, size: u32| {
            len > 0 && from.checked_add(len).is_some_and(|end| end <= size)
        };
        assert!(
            within(x, width, columns) && within(y, height, rows),
            "{x},{y} {width}x{height} of {columns}x{rows}"
        );
    }
}

/// The host that a callback of the console is passed.
///
/// # Safety
///
/// That is what it is.
unsafe fn host<'a>(console: *mut c_void) -> &'a Host<'a> {
    // SAFETY: as the caller says; it lives as long as the display.
    unsafe { &*console.cast_const().cast::<Host<'a>>() }
}

pub const OPS: VfioDpyConsoleOps = VfioDpyConsoleOps {
    size: 0,
    show_surface: Some(show_surface),
    update_surface: Some(update_surface),
    show_memory: Some(show_memory),
    show_message: Some(show_message),
    show_firmware: Some(show_firmware),
    scanout_support: Some(scanout_support),
    import: Some(import),
    release: Some(release),
    show_scanout: Some(show_scanout),
    update_scanout: Some(update_scanout),
    scanout_cursor: Some(scanout_cursor),
    move_scanout_cursor: Some(move_cursor),
    surface_cursor: Some(surface_cursor),
    move_surface_cursor: Some(move_cursor),
    request_refresh: Some(request_refresh),
    refresh_done: Some(request_refresh),
    log: Some(log),
    tracing: Some(tracing),
};

unsafe extern "C" fn show_surface(
    data: *mut c_void,
    width: u32,
    height: u32,
    stride: *mut usize,
) -> *mut u8 {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    assert!(width > 0 && height > 0, "a surface of {width}x{height}");
    let padding = usize::from(host.byte() & 3) * 4;
    let bytes_per_row = width as usize * 4 + padding;
    let len = bytes_per_row * height as usize;
    if padding == 12 || len > MAX_SURFACE {
        return null_mut();
    }
    let mut pixels = vec![0; len];
    let start = pixels.as_mut_ptr();
    // SAFETY: the place lives during the call.
    unsafe { *stride = bytes_per_row };
    host.console.show(Shown::Surface { pixels, width, height });
    host.called();
    start
}

unsafe extern "C" fn update_surface(data: *mut c_void, x: u32, y: u32, width: u32, height: u32) {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    host.console.updated(x, y, width, height);
    host.called();
}

unsafe extern "C" fn show_memory(
    data: *mut c_void,
    pixels: *const u8,
    width: u32,
    height: u32,
    stride: usize,
    memory: *mut VfioDpyMemory,
) -> bool {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    assert!(stride >= width as usize * 4 && stride % 4 == 0, "a stride of {stride}");
    read(pixels, stride * height as usize);
    if !host.flag() {
        return false;
    }
    host.console.memories.borrow_mut().push(memory);
    host.console.show(Shown::Memory { pixels, len: stride * height as usize, width, height });
    host.called();
    true
}

unsafe extern "C" fn show_message(data: *mut c_void, width: u32, height: u32, text: *const c_char) {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    assert!(width > 0 && height > 0, "a message of {width}x{height}");
    assert!(
        // SAFETY: the text is a string for the call.
        !unsafe { CStr::from_ptr(text) }.to_str().expect("UTF-8").is_empty(),
        "a message says something"
    );
    host.console.show(Shown::Nothing);
    host.called();
}

unsafe extern "C" fn show_firmware(data: *mut c_void, switch_to: bool) -> bool {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    let has_some = host.flag();
    if has_some && switch_to {
        host.console.show(Shown::Nothing);
    }
    host.called();
    has_some
}

unsafe extern "C" fn scanout_support(
    data: *mut c_void,
    buffer: *const VfioDpyBuffer,
    import: *mut c_void,
) -> AnySupport {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    // SAFETY: the buffer lives during the call.
    assert!(unsafe { (*buffer).fd } >= 0, "a buffer is a descriptor");
    assert!(
        import.is_null() || host.console.imports.borrow().contains(&(import as usize)),
        "an import that was released"
    );
    AnySupport(c_uint::from(host.byte() & 3))
}

unsafe extern "C" fn import(data: *mut c_void, buffer: *const VfioDpyBuffer) -> *mut c_void {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    // SAFETY: the buffer lives during the call.
    assert!(unsafe { (*buffer).fd } >= 0, "a buffer is a descriptor");
    let import = host.console.next_import.get() + 1;
    host.console.next_import.set(import);
    host.console.imports.borrow_mut().insert(import);
    host.called();
    import as *mut c_void
}

unsafe extern "C" fn release(data: *mut c_void, import: *mut c_void) {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    let import = import as usize;
    assert!(host.console.imports.borrow_mut().remove(&import), "an import is released twice");
    assert_ne!(host.console.cursor.get(), import, "what is released is the pointer");
    let shown =
        matches!(*host.console.shown.borrow(), Shown::Scanout { import: shown } if shown == import);
    assert!(!shown, "what is released is shown");
    host.called();
}

unsafe extern "C" fn show_scanout(data: *mut c_void, import: *mut c_void) {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    assert!(host.console.imports.borrow().contains(&(import as usize)), "a scanout is imported");
    host.console.show(Shown::Scanout { import: import as usize });
    host.called();
}

unsafe extern "C" fn update_scanout(data: *mut c_void, _x: u32, _y: u32, width: u32, height: u32) {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    assert!(width > 0 && height > 0, "an update of {width}x{height}");
    assert!(matches!(*host.console.shown.borrow(), Shown::Scanout { .. }), "a scanout is shown");
    host.called();
}

unsafe extern "C" fn scanout_cursor(
    data: *mut c_void,
    import: *mut c_void,
    _: bool,
    _: u32,
    _: u32,
) {
    // SAFETY: the library passes what it was given.
    let host = unsafe { host(data) };
    let import = import as usize;
    assert!(
        import == 0 || host.console.imports.borrow().contains(&import),
        "a pointer is imported"
    );
    host.console.cursor.set(import);
    host.called();
}

unsafe extern "C" fn move_cursor(data: *mut c_void, _x: i32, _y: i32) {
    // SAFETY: the library passes what it was given.
    unsafe { host(data) }.called();
}

unsafe extern "C" fn surface_cursor(
    data: *mut c_void,
    pixels: *const u8,
    width: u32,
    height: u32,
    _: u32,
    _: u32,
) {
    if !pixels.is_null() {
        read(pixels, width as usize * height as usize * 4);
    }
    // SAFETY: the library passes what it was given.
    unsafe { host(data) }.called();
}

unsafe extern "C" fn request_refresh(data: *mut c_void) {
    // SAFETY: the library passes what it was given.
    unsafe { host(data) }.called();
}

unsafe extern "C" fn log(data: *mut c_void, _: Severity, message: *const c_char) {
    assert!(
        // SAFETY: the text is a string for the call.
        !unsafe { CStr::from_ptr(message) }.to_str().expect("UTF-8").is_empty(),
        "a message says something"
    );
    // SAFETY: the library passes what it was given.
    unsafe { host(data) }.called();
}

unsafe extern "C" fn tracing(data: *mut c_void) -> bool {
    // SAFETY: the library passes what it was given.
    unsafe { host(data) }.flag()
}
