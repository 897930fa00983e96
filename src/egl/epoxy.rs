//! The raw binding to libepoxy: the only place that calls EGL and GL.
//!
//! libepoxy exports one function pointer for each function of EGL and GL, `epoxy_` before its name.
//! A pointer leads to a resolver first, which looks the function up, stores it in the pointer, and
//! ends the process if no driver has it: so extensions are checked before their functions are
//! called, and GL's functions are called with a context only.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr::{null, null_mut};

use super::driver::{
    Comparer, Context, Driver, EglError, EglErrorCode, EglSync, Extensions, GlError, Image,
    Modifier, Shading, Target, signed, unsigned,
};

const EGL_NO_CONTEXT: *mut c_void = null_mut();
const EGL_NO_SURFACE: *mut c_void = null_mut();
const EGL_NONE: i32 = 0x3038;
const EGL_EXTENSIONS: i32 = 0x3055;
const EGL_DRAW: i32 = 0x3059;
const EGL_READ: i32 = 0x305A;
const EGL_CONTEXT_CLIENT_VERSION: i32 = 0x3098;
const EGL_OPENGL_ES_API: u32 = 0x30A0;
const EGL_GL_TEXTURE_2D_KHR: u32 = 0x30B1;
const EGL_SYNC_FENCE_KHR: u32 = 0x30F9;
const EGL_SYNC_NATIVE_FENCE_ANDROID: u32 = 0x3144;
const EGL_LINUX_DMA_BUF_EXT: u32 = 0x3270;
const EGL_DEVICE_EXT: i32 = 0x322C;
const EGL_TIMEOUT_EXPIRED: i32 = 0x30F5;
const EGL_CONDITION_SATISFIED: i32 = 0x30F6;

const GL_NO_ERROR: u32 = 0;
const GL_FALSE: u8 = 0;
const GL_MAP_READ_BIT: u32 = 1;
const GL_TRIANGLE_STRIP: u32 = 5;
const GL_TEXTURE_2D: u32 = 0x0DE1;
const GL_MAX_TEXTURE_SIZE: u32 = 0x0D33;
const GL_UNSIGNED_BYTE: u32 = 0x1401;
const GL_TEXTURE: u32 = 0x1702;
const GL_RENDERER: u32 = 0x1F01;
const GL_NEAREST: i32 = 0x2600;
const GL_LINEAR: i32 = 0x2601;
const GL_TEXTURE_MAG_FILTER: u32 = 0x2800;
const GL_TEXTURE_MIN_FILTER: u32 = 0x2801;
const GL_TEXTURE_WRAP_S: u32 = 0x2802;
const GL_TEXTURE_WRAP_T: u32 = 0x2803;
const GL_RGBA8: u32 = 0x8058;
const GL_TEXTURE_BINDING_2D: u32 = 0x8069;
const GL_BGRA: u32 = 0x80E1;
const GL_CLAMP_TO_EDGE: i32 = 0x812F;
const GL_R8: u32 = 0x8229;
const GL_TEXTURE0: u32 = 0x84C0;
const GL_TEXTURE1: u32 = 0x84C1;
const GL_QUERY_RESULT: u32 = 0x8866;
const GL_PIXEL_PACK_BUFFER: u32 = 0x88EB;
const GL_STREAM_READ: u32 = 0x88E1;
const GL_FRAGMENT_SHADER: u32 = 0x8B30;
const GL_VERTEX_SHADER: u32 = 0x8B31;
const GL_COMPILE_STATUS: u32 = 0x8B81;
const GL_LINK_STATUS: u32 = 0x8B82;
const GL_ANY_SAMPLES_PASSED: u32 = 0x8C2F;
const GL_READ_FRAMEBUFFER: u32 = 0x8CA8;
const GL_DRAW_FRAMEBUFFER: u32 = 0x8CA9;
const GL_FRAMEBUFFER_COMPLETE: u32 = 0x8CD5;
const GL_COLOR_ATTACHMENT0: u32 = 0x8CE0;
const GL_FRAMEBUFFER: u32 = 0x8D40;
const GL_TEXTURE_EXTERNAL_OES: u32 = 0x8D65;

/// What gives a texture the pixels of an image. NVIDIA's driver has had the latter only in contexts
/// of OpenGL.
const TEXTURE_OF_IMAGE: &CStr = c"GL_OES_EGL_image";
const STORAGE_OF_IMAGE: &CStr = c"GL_EXT_EGL_image_storage";

/// How many errors GL can have queued at most; a lost context reports its loss for ever.
const MOST_GL_ERRORS: usize = 64;

/// Declares libepoxy's pointers, and a function to call each.
macro_rules! functions {
    ($($pointer:ident as $name:ident($($arg:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        #[allow(non_upper_case_globals, reason = "libepoxy's names")]
        mod pointers {
            use std::ffi::{c_char, c_void};
            unsafe extern "C" {
                $(pub static mut $pointer: unsafe extern "C" fn($($type),*) $(-> $result)?;)*
            }
        }
        $(
            #[inline]
            #[allow(clippy::too_many_arguments, reason = "GL's functions have as many")]
            unsafe fn $name($($arg: $type),*) $(-> $result)? {
                // SAFETY: the pointer is valid from the start; libepoxy changes it to another valid
                // one with a single store. The caller answers for the call.
                unsafe { (pointers::$pointer)($($arg),*) }
            }
        )*
    };
}

functions! {
    epoxy_eglBindAPI as egl_bind_api(api: u32) -> u32;
    epoxy_eglCreateContext as egl_create_context(
        display: *mut c_void, config: *mut c_void, share: *mut c_void, attributes: *const i32
    ) -> *mut c_void;
    epoxy_eglDestroyContext as egl_destroy_context(display: *mut c_void, context: *mut c_void) -> u32;
    epoxy_eglGetCurrentContext as egl_get_current_context() -> *mut c_void;
    epoxy_eglGetCurrentDisplay as egl_get_current_display() -> *mut c_void;
    epoxy_eglGetCurrentSurface as egl_get_current_surface(which: i32) -> *mut c_void;
    epoxy_eglGetProcAddress as egl_get_proc_address(name: *const c_char) -> *mut c_void;
    epoxy_eglGetError as egl_get_error() -> i32;
    epoxy_eglMakeCurrent as egl_make_current(
        display: *mut c_void, draw: *mut c_void, read: *mut c_void, context: *mut c_void
    ) -> u32;
    epoxy_eglQueryAPI as egl_query_api() -> u32;
    epoxy_glActiveTexture as gl_active_texture(unit: u32);
    epoxy_glAttachShader as gl_attach_shader(program: u32, shader: u32);
    epoxy_glBeginQuery as gl_begin_query(target: u32, query: u32);
    epoxy_glBindBuffer as gl_bind_buffer(target: u32, buffer: u32);
    epoxy_glBindFramebuffer as gl_bind_framebuffer(target: u32, framebuffer: u32);
    epoxy_glBindTexture as gl_bind_texture(target: u32, texture: u32);
    epoxy_glBindVertexArray as gl_bind_vertex_array(array: u32);
    epoxy_glBufferData as gl_buffer_data(target: u32, bytes: isize, data: *const c_void, usage: u32);
    epoxy_glCheckFramebufferStatus as gl_check_framebuffer_status(target: u32) -> u32;
    epoxy_glCompileShader as gl_compile_shader(shader: u32);
    epoxy_glCreateProgram as gl_create_program() -> u32;
    epoxy_glCreateShader as gl_create_shader(kind: u32) -> u32;
    epoxy_glDeleteBuffers as gl_delete_buffers(count: i32, buffers: *const u32);
    epoxy_glDeleteFramebuffers as gl_delete_framebuffers(count: i32, framebuffers: *const u32);
    epoxy_glDeleteProgram as gl_delete_program(program: u32);
    epoxy_glDeleteQueries as gl_delete_queries(count: i32, queries: *const u32);
    epoxy_glDeleteShader as gl_delete_shader(shader: u32);
    epoxy_glDeleteTextures as gl_delete_textures(count: i32, textures: *const u32);
    epoxy_glDeleteVertexArrays as gl_delete_vertex_arrays(count: i32, arrays: *const u32);
    epoxy_glDrawArrays as gl_draw_arrays(mode: u32, first: i32, count: i32);
    epoxy_glEGLImageTargetTexStorageEXT as gl_storage_from_image(
        target: u32, image: *mut c_void, attributes: *const i32
    );
    epoxy_glEGLImageTargetTexture2DOES as gl_texture_from_image(target: u32, image: *mut c_void);
    epoxy_glEndQuery as gl_end_query(target: u32);
    epoxy_glFlush as gl_flush();
    epoxy_glFramebufferTexture2D as gl_framebuffer_texture(
        target: u32, attachment: u32, texture_target: u32, texture: u32, level: i32
    );
    epoxy_glGenBuffers as gl_gen_buffers(count: i32, buffers: *mut u32);
    epoxy_glGenFramebuffers as gl_gen_framebuffers(count: i32, framebuffers: *mut u32);
    epoxy_glGenQueries as gl_gen_queries(count: i32, queries: *mut u32);
    epoxy_glGenTextures as gl_gen_textures(count: i32, textures: *mut u32);
    epoxy_glGenVertexArrays as gl_gen_vertex_arrays(count: i32, arrays: *mut u32);
    epoxy_glGetError as gl_get_error() -> u32;
    epoxy_glGetIntegerv as gl_get_integer(name: u32, value: *mut i32);
    epoxy_glGetObjectLabel as gl_get_object_label(
        identifier: u32, name: u32, room: i32, length: *mut i32, label: *mut c_char
    );
    epoxy_glGetProgramiv as gl_get_program(program: u32, what: u32, value: *mut i32);
    epoxy_glGetQueryObjectuiv as gl_get_query(query: u32, what: u32, value: *mut u32);
    epoxy_glGetShaderInfoLog as gl_get_shader_log(shader: u32, room: i32, length: *mut i32, log: *mut c_char);
    epoxy_glGetShaderiv as gl_get_shader(shader: u32, what: u32, value: *mut i32);
    epoxy_glGetString as gl_get_string(name: u32) -> *const c_char;
    epoxy_glGetUniformLocation as gl_get_uniform_location(program: u32, name: *const c_char) -> i32;
    epoxy_glIsTexture as gl_is_texture(texture: u32) -> u8;
    epoxy_glLinkProgram as gl_link_program(program: u32);
    epoxy_glMapBufferRange as gl_map_buffer(target: u32, offset: isize, bytes: isize, access: u32) -> *mut c_void;
    epoxy_glObjectLabel as gl_object_label(identifier: u32, name: u32, length: i32, label: *const c_char);
    epoxy_glReadPixels as gl_read_pixels(
        x: i32, y: i32, width: i32, height: i32, format: u32, kind: u32, pixels: *mut c_void
    );
    epoxy_glShaderSource as gl_shader_source(
        shader: u32, count: i32, sources: *const *const c_char, lengths: *const i32
    );
    epoxy_glTexParameteri as gl_texture_parameter(target: u32, name: u32, value: i32);
    epoxy_glTexStorage2D as gl_texture_storage(target: u32, levels: i32, format: u32, width: i32, height: i32);
    epoxy_glUniform1i as gl_uniform(location: i32, value: i32);
    epoxy_glUnmapBuffer as gl_unmap_buffer(target: u32) -> u8;
    epoxy_glUseProgram as gl_use_program(program: u32);
    epoxy_glViewport as gl_viewport(x: i32, y: i32, width: i32, height: i32);
}

/// Declares functions of EGL's extensions. Their pointers are asked for here, not left to libepoxy:
/// its resolver knows a display's extensions only while a context is current, and we must do
/// without one.
macro_rules! extension_functions {
    ($($field:ident = $name:literal: fn($($type:ty),*) -> $result:ty;)*) => {
        #[derive(Debug)]
        struct Functions {
            $($field: Option<unsafe extern "C" fn($($type),*) -> $result>,)*
        }

        impl Functions {
            fn load() -> Self {
                Self {
                    $($field: {
                        // SAFETY: the name is a string.
                        let function = unsafe { egl_get_proc_address($name.as_ptr()) };
                        // SAFETY: a pointer that EGL gives for this name is to a function of this
                        // type; NULL is `None`.
                        unsafe { std::mem::transmute::<
                            *mut c_void,
                            Option<unsafe extern "C" fn($($type),*) -> $result>,
                        >(function) }
                    },)*
                }
            }
        }
    };
}

extension_functions! {
    client_wait_sync = c"eglClientWaitSyncKHR": fn(*mut c_void, *mut c_void, i32, u64) -> i32;
    create_image = c"eglCreateImageKHR": fn(*mut c_void, *mut c_void, u32, *mut c_void, *const i32) -> *mut c_void;
    create_sync = c"eglCreateSyncKHR": fn(*mut c_void, u32, *const i32) -> *mut c_void;
    destroy_image = c"eglDestroyImageKHR": fn(*mut c_void, *mut c_void) -> u32;
    destroy_sync = c"eglDestroySyncKHR": fn(*mut c_void, *mut c_void) -> u32;
    dup_native_fence = c"eglDupNativeFenceFDANDROID": fn(*mut c_void, *mut c_void) -> c_int;
    query_device_string = c"eglQueryDeviceStringEXT": fn(*mut c_void, i32) -> *const c_char;
    query_display_attribute = c"eglQueryDisplayAttribEXT": fn(*mut c_void, i32, *mut *mut c_void) -> u32;
    query_dma_buf_formats = c"eglQueryDmaBufFormatsEXT": fn(*mut c_void, i32, *mut i32, *mut i32) -> u32;
    query_dma_buf_modifiers = c"eglQueryDmaBufModifiersEXT": fn(*mut c_void, i32, i32, *mut u64, *mut u32, *mut i32) -> u32;
    wait_sync = c"eglWaitSyncKHR": fn(*mut c_void, *mut c_void, i32) -> i32;
}

unsafe extern "C" {
    fn epoxy_has_egl_extension(display: *mut c_void, extension: *const c_char) -> bool;
    fn epoxy_has_gl_extension(extension: *const c_char) -> bool;
    fn epoxy_gl_version() -> c_int;
    fn epoxy_is_desktop_gl() -> bool;
}

/// A display of the EGL that the host uses.
#[derive(Debug)]
pub struct Display {
    handle: NonZeroUsize,
    functions: Functions,
}

fn handle(pointer: *mut c_void) -> Option<NonZeroUsize> {
    NonZeroUsize::new(pointer.expose_provenance())
}

fn pointer(handle: NonZeroUsize) -> *mut c_void {
    std::ptr::with_exposed_provenance_mut(handle.get())
}

impl Display {
    /// `None` for `EGL_NO_DISPLAY`.
    ///
    /// # Safety
    ///
    /// `display` is an `EGLDisplay` that was initialised, and is not terminated while the value
    /// lives.
    pub unsafe fn new(display: *mut c_void) -> Option<Self> {
        handle(display).map(|handle| Self { handle, functions: Functions::load() })
    }

    fn raw(&self) -> *mut c_void {
        pointer(self.handle)
    }

    /// A function that an extension of the display, or of the client, promises.
    fn function<F>(function: Option<F>, call: &'static str) -> Result<F, EglError> {
        function.ok_or(EglError { call, code: EglErrorCode::Missing })
    }

    fn has(&self, extension: &CStr) -> bool {
        // SAFETY: the display is initialised, the name is a string.
        unsafe { epoxy_has_egl_extension(self.raw(), extension.as_ptr()) }
    }

    /// The current context must be one of GL: what libepoxy asks first is its version.
    fn has_gl(_: Context, extension: &CStr) -> bool {
        // SAFETY: a context is current, the name is a string.
        unsafe { epoxy_has_gl_extension(extension.as_ptr()) }
    }

    fn failure(call: &'static str) -> EglError {
        // SAFETY: the call has no preconditions.
        EglError::new(call, unsafe { egl_get_error() })
    }

    /// Forgets what earlier calls, of others, left in GL's queue, so that what is there afterwards
    /// is ours.
    fn clear_gl_errors() {
        // SAFETY: the callers have a context.
        for _ in 0..MOST_GL_ERRORS {
            // SAFETY: as above.
            if unsafe { gl_get_error() } == GL_NO_ERROR {
                return;
            }
        }
    }

    /// Takes all errors out of GL's queue; the first one counts.
    fn check_gl(call: &'static str) -> Result<(), GlError> {
        // SAFETY: the callers have a context.
        let first = unsafe { gl_get_error() };
        if first == GL_NO_ERROR {
            return Ok(());
        }
        Self::clear_gl_errors();
        Err(GlError { call, code: first })
    }

    /// Makes a texture whose pixels are the image's, and leaves the bindings as they were.
    fn bind_image(
        context: Context,
        target: u32,
        image: Image,
        filter: i32,
    ) -> Result<u32, GlError> {
        let call = if Self::has_gl(context, TEXTURE_OF_IMAGE) {
            "glEGLImageTargetTexture2DOES"
        } else {
            "glEGLImageTargetTexStorageEXT"
        };
        Self::clear_gl_errors();
        let mut texture = 0;
        let mut bound = 0;
        // SAFETY: a context is current; the pointers are to values that live during the calls; the
        // image exists.
        unsafe {
            if target == GL_TEXTURE_2D {
                gl_get_integer(GL_TEXTURE_BINDING_2D, &raw mut bound);
            }
            gl_gen_textures(1, &raw mut texture);
            gl_bind_texture(target, texture);
            gl_texture_parameter(target, GL_TEXTURE_MIN_FILTER, filter);
            gl_texture_parameter(target, GL_TEXTURE_MAG_FILTER, filter);
            gl_texture_parameter(target, GL_TEXTURE_WRAP_S, GL_CLAMP_TO_EDGE);
            gl_texture_parameter(target, GL_TEXTURE_WRAP_T, GL_CLAMP_TO_EDGE);
            if call == "glEGLImageTargetTexture2DOES" {
                gl_texture_from_image(target, pointer(image.0));
            } else {
                gl_storage_from_image(target, pointer(image.0), null());
            }
        }
        let result = Self::check_gl(call);
        // SAFETY: as above; what was bound before is a texture, or none.
        unsafe {
            gl_bind_texture(target, unsigned(bound));
            if result.is_err() {
                gl_delete_textures(1, &raw const texture);
            }
        }
        result.map(|()| texture)
    }

    fn delete_objects(target: Target) {
        // SAFETY: the callers have a context, and GL ignores names that it does not know.
        unsafe {
            gl_delete_framebuffers(1, &raw const target.framebuffer);
            gl_delete_textures(1, &raw const target.texture);
        }
    }

    fn new_target(format: u32, width: u32, height: u32) -> Result<Target, GlError> {
        Self::clear_gl_errors();
        let mut target = Target { texture: 0, framebuffer: 0, width, height };
        let status;
        // SAFETY: a context is current; the pointers are to values that live during the calls.
        unsafe {
            gl_gen_textures(1, &raw mut target.texture);
            gl_bind_texture(GL_TEXTURE_2D, target.texture);
            gl_texture_storage(GL_TEXTURE_2D, 1, format, signed(width), signed(height));
            gl_gen_framebuffers(1, &raw mut target.framebuffer);
            gl_bind_framebuffer(GL_FRAMEBUFFER, target.framebuffer);
            gl_framebuffer_texture(
                GL_FRAMEBUFFER,
                GL_COLOR_ATTACHMENT0,
                GL_TEXTURE_2D,
                target.texture,
                0,
            );
            status = gl_check_framebuffer_status(GL_FRAMEBUFFER);
        }
        let result = match Self::check_gl("glTexStorage2D") {
            Ok(()) if status != GL_FRAMEBUFFER_COMPLETE => {
                Err(GlError { call: "glCheckFramebufferStatus", code: status })
            }
            result => result.map(|()| target),
        };
        if result.is_err() {
            Self::delete_objects(target);
        }
        result
    }

    fn delete_comparer_objects(comparer: Comparer) {
        Self::delete_objects(comparer.scratch);
        // SAFETY: the callers have a context, and its objects, or names that GL ignores.
        unsafe {
            gl_delete_queries(1, &raw const comparer.query);
            gl_delete_vertex_arrays(1, &raw const comparer.array);
            gl_delete_program(comparer.program);
        }
    }

    fn compile(kind: u32, source: &CStr) -> Result<u32, String> {
        let mut compiled = 0;
        // SAFETY: a context is current; the pointers are to values that live during the calls.
        unsafe {
            let shader = gl_create_shader(kind);
            let sources = [source.as_ptr()];
            gl_shader_source(shader, 1, sources.as_ptr(), null());
            gl_compile_shader(shader);
            gl_get_shader(shader, GL_COMPILE_STATUS, &raw mut compiled);
            if compiled != 0 {
                return Ok(shader);
            }
            let mut log = [0_u8; 512];
            let mut length = 0;
            gl_get_shader_log(shader, 511, &raw mut length, log.as_mut_ptr().cast());
            gl_delete_shader(shader);
            Self::clear_gl_errors();
            let length = usize::try_from(length).unwrap_or(0).min(log.len());
            Err(String::from_utf8_lossy(&log[..length]).trim().to_owned())
        }
    }
}

fn label_text(label: u64) -> CString {
    CString::new(format!("vfio-display {label}")).unwrap_or_default()
}

impl Driver for Display {
    fn extensions(&self) -> Extensions {
        Extensions {
            image: self.has(c"EGL_KHR_image_base"),
            import: self.has(c"EGL_EXT_image_dma_buf_import"),
            modifiers: self.has(c"EGL_EXT_image_dma_buf_import_modifiers"),
            surfaceless: self.has(c"EGL_KHR_surfaceless_context"),
            configless: self.has(c"EGL_KHR_no_config_context")
                || self.has(c"EGL_MESA_configless_context"),
            texture_image: self.has(c"EGL_KHR_gl_texture_2D_image"),
            fence: self.has(c"EGL_KHR_fence_sync"),
            wait: self.has(c"EGL_KHR_wait_sync"),
            native_fence: self.has(c"EGL_KHR_fence_sync")
                && self.has(c"EGL_ANDROID_native_fence_sync"),
        }
    }

    fn formats(&self) -> Result<Vec<u32>, EglError> {
        const CALL: &str = "eglQueryDmaBufFormatsEXT";
        let query = Self::function(self.functions.query_dma_buf_formats, CALL)?;
        let mut count = 0;
        // SAFETY: with no room the call writes the count only.
        if unsafe { query(self.raw(), 0, null_mut(), &raw mut count) } == 0 {
            return Err(Self::failure(CALL));
        }
        let mut formats = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: there is room for `count` formats.
        if unsafe { query(self.raw(), count, formats.as_mut_ptr(), &raw mut count) } == 0 {
            return Err(Self::failure(CALL));
        }
        formats.truncate(usize::try_from(count).unwrap_or(0));
        Ok(formats.into_iter().map(unsigned).collect())
    }

    fn modifiers(&self, fourcc: u32) -> Result<Vec<Modifier>, EglError> {
        const CALL: &str = "eglQueryDmaBufModifiersEXT";
        let query = Self::function(self.functions.query_dma_buf_modifiers, CALL)?;
        let fourcc = signed(fourcc);
        let mut count = 0;
        // SAFETY: with no room the call writes the count only.
        if unsafe { query(self.raw(), fourcc, 0, null_mut(), null_mut(), &raw mut count) } == 0 {
            return Err(Self::failure(CALL));
        }
        let room = usize::try_from(count).unwrap_or(0);
        if room == 0 {
            return Ok(Vec::new());
        }
        let mut codes = vec![0; room];
        let mut external = vec![0; room];
        // SAFETY: there is room for `count` modifiers, and as many flags.
        if unsafe {
            query(
                self.raw(),
                fourcc,
                count,
                codes.as_mut_ptr(),
                external.as_mut_ptr(),
                &raw mut count,
            )
        } == 0
        {
            return Err(Self::failure(CALL));
        }
        let count = usize::try_from(count).unwrap_or(0);
        let modifiers = codes.into_iter().zip(external).take(count);
        Ok(modifiers.map(|(code, external)| Modifier { code, external: external != 0 }).collect())
    }

    fn is_software_device(&self) -> Option<bool> {
        let name = c"EGL_EXT_device_query";
        // SAFETY: extensions of the client are asked for without a display; the name is a string.
        let client_has = unsafe { epoxy_has_egl_extension(null_mut(), name.as_ptr()) };
        if !client_has && !self.has(name) {
            return None;
        }
        let Functions {
            query_display_attribute: Some(query_attribute),
            query_device_string: Some(query_string),
            ..
        } = self.functions
        else {
            return None;
        };
        let mut device = null_mut();
        // SAFETY: the call writes one value.
        let known = unsafe { query_attribute(self.raw(), EGL_DEVICE_EXT, &raw mut device) };
        if known == 0 || device.is_null() {
            // Mesa 25 has no device for its surfaceless software display. The error is taken out of
            // the thread's slot.
            Self::failure("eglQueryDisplayAttribEXT");
            return None;
        }
        // SAFETY: the device is the display's.
        let extensions = unsafe { query_string(device, EGL_EXTENSIONS) };
        if extensions.is_null() {
            Self::failure("eglQueryDeviceStringEXT");
            return None;
        }
        // SAFETY: EGL's strings are static.
        let extensions = unsafe { CStr::from_ptr(extensions) }.to_string_lossy();
        Some(extensions.split(' ').any(|name| name == "EGL_MESA_device_software"))
    }

    fn current(&self) -> Option<Context> {
        // SAFETY: the calls have no preconditions.
        let (display, context) = unsafe { (egl_get_current_display(), egl_get_current_context()) };
        handle(context).filter(|_| display == self.raw()).map(Context)
    }

    fn renderer(&self, _: Context) -> String {
        // SAFETY: a context is current.
        let name = unsafe { gl_get_string(GL_RENDERER) };
        if name.is_null() {
            return String::new();
        }
        // SAFETY: GL's strings are static.
        unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
    }

    fn max_texture_side(&self, _: Context) -> u32 {
        let mut side = 0;
        // SAFETY: a context is current, and the call writes one value.
        unsafe { gl_get_integer(GL_MAX_TEXTURE_SIZE, &raw mut side) };
        u32::try_from(side).unwrap_or(0)
    }

    fn takes_images(&self, context: Context) -> bool {
        Self::has_gl(context, TEXTURE_OF_IMAGE) || Self::has_gl(context, STORAGE_OF_IMAGE)
    }

    fn create_image(&self, attributes: &[i32]) -> Result<Image, EglError> {
        debug_assert_eq!(attributes.last(), Some(&EGL_NONE));
        let create = Self::function(self.functions.create_image, "eglCreateImageKHR")?;
        // SAFETY: the list ends with EGL_NONE; its descriptors stay the caller's.
        let image = unsafe {
            create(
                self.raw(),
                EGL_NO_CONTEXT,
                EGL_LINUX_DMA_BUF_EXT,
                null_mut(),
                attributes.as_ptr(),
            )
        };
        handle(image).map(Image).ok_or_else(|| Self::failure("eglCreateImageKHR"))
    }

    fn image_of_texture(&self, context: Context, texture: u32) -> Result<Image, EglError> {
        let create = Self::function(self.functions.create_image, "eglCreateImageKHR")?;
        let name = std::ptr::without_provenance_mut(texture as usize);
        // SAFETY: the context is current, and the texture is its own.
        let image = unsafe {
            create(self.raw(), pointer(context.0), EGL_GL_TEXTURE_2D_KHR, name, [EGL_NONE].as_ptr())
        };
        handle(image).map(Image).ok_or_else(|| Self::failure("eglCreateImageKHR"))
    }

    fn destroy_image(&self, image: Image) {
        let Some(destroy) = self.functions.destroy_image else { return };
        // SAFETY: the image is from one of the two calls above, and is not used again.
        if unsafe { destroy(self.raw(), pointer(image.0)) } == 0 {
            Self::failure("eglDestroyImageKHR");
        }
    }

    fn texture(&self, context: Context, image: Image, label: u64) -> Result<u32, GlError> {
        let texture = Self::bind_image(context, GL_TEXTURE_2D, image, GL_LINEAR)?;
        self.label_texture(context, texture, label);
        Ok(texture)
    }

    fn external_texture(&self, context: Context, image: Image) -> Result<u32, GlError> {
        // Pixels are copied one to one, and the colours of neighbours are not mixed.
        Self::bind_image(context, GL_TEXTURE_EXTERNAL_OES, image, GL_NEAREST)
    }

    fn has_texture(&self, context: Context, texture: u32, label: u64) -> Option<bool> {
        // SAFETY: a context is current.
        if unsafe { gl_is_texture(texture) } == 0 {
            return Some(false);
        }
        if !Self::has_gl(context, c"GL_KHR_debug") {
            return None;
        }
        let mut text = [0_u8; 64];
        let mut length = 0;
        // SAFETY: a context is current, the texture exists, there is room for 64 bytes.
        unsafe {
            gl_get_object_label(GL_TEXTURE, texture, 64, &raw mut length, text.as_mut_ptr().cast());
        }
        Self::clear_gl_errors();
        Some(
            CStr::from_bytes_until_nul(&text)
                .is_ok_and(|text| text == label_text(label).as_c_str()),
        )
    }

    fn delete_texture(&self, _: Context, texture: u32) {
        // SAFETY: a context is current, and GL ignores names that it does not know.
        unsafe { gl_delete_textures(1, &raw const texture) };
    }

    fn create_context(&self) -> Result<Context, EglError> {
        let attributes = [EGL_CONTEXT_CLIENT_VERSION, 3, EGL_NONE];
        // SAFETY: the calls have no preconditions; the API of the thread is put back.
        unsafe {
            let api = egl_query_api();
            if egl_bind_api(EGL_OPENGL_ES_API) == 0 {
                return Err(Self::failure("eglBindAPI"));
            }
            // Without a config: it never draws to a surface.
            let context =
                egl_create_context(self.raw(), null_mut(), EGL_NO_CONTEXT, attributes.as_ptr());
            let result =
                handle(context).map(Context).ok_or_else(|| Self::failure("eglCreateContext"));
            egl_bind_api(api);
            result
        }
    }

    fn destroy_context(&self, context: Context) {
        // SAFETY: the context is from `create_context`, and not used again.
        if unsafe { egl_destroy_context(self.raw(), pointer(context.0)) } == 0 {
            Self::failure("eglDestroyContext");
        }
    }

    fn visit(&self, context: Context, body: &mut dyn FnMut(Context)) -> Result<(), EglError> {
        // SAFETY: the calls have no preconditions.
        let (display, draw, read, before) = unsafe {
            (
                egl_get_current_display(),
                egl_get_current_surface(EGL_DRAW),
                egl_get_current_surface(EGL_READ),
                egl_get_current_context(),
            )
        };
        // SAFETY: EGL checks the handle: a context that is gone is an error, and no more.
        if unsafe {
            egl_make_current(self.raw(), EGL_NO_SURFACE, EGL_NO_SURFACE, pointer(context.0))
        } == 0
        {
            return Err(Self::failure("eglMakeCurrent"));
        }
        body(context);
        // SAFETY: this is what was current before.
        let back = unsafe {
            if before.is_null() {
                egl_make_current(self.raw(), EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT)
            } else {
                egl_make_current(display, draw, read, before)
            }
        };
        if back == 0 { Err(Self::failure("eglMakeCurrent")) } else { Ok(()) }
    }

    fn program(&self, _: Context, vertex: &CStr, fragment: &CStr) -> Result<u32, String> {
        Self::clear_gl_errors();
        let vertex = Self::compile(GL_VERTEX_SHADER, vertex)?;
        let fragment = Self::compile(GL_FRAGMENT_SHADER, fragment).inspect_err(|_| {
            // SAFETY: a context is current, and the shader is its own.
            unsafe { gl_delete_shader(vertex) };
        })?;
        let mut linked = 0;
        // SAFETY: a context is current; the shaders exist; the call writes one value. Shaders live
        // on as parts of the program.
        let program = unsafe {
            let program = gl_create_program();
            gl_attach_shader(program, vertex);
            gl_attach_shader(program, fragment);
            gl_link_program(program);
            gl_get_program(program, GL_LINK_STATUS, &raw mut linked);
            gl_delete_shader(vertex);
            gl_delete_shader(fragment);
            program
        };
        if linked != 0 {
            return Ok(program);
        }
        // SAFETY: as above.
        unsafe { gl_delete_program(program) };
        Err("the program does not link".to_owned())
    }

    fn target(&self, _: Context, width: u32, height: u32) -> Result<Target, GlError> {
        Self::new_target(GL_RGBA8, width, height)
    }

    fn delete_target(&self, _: Context, target: Target) {
        Self::delete_objects(target);
    }

    fn draw(&self, _: Context, program: u32, source: u32, target: Target) -> Result<(), GlError> {
        Self::clear_gl_errors();
        // SAFETY: a context is current, and it has these objects; the program reads no arrays.
        unsafe {
            gl_bind_framebuffer(GL_FRAMEBUFFER, target.framebuffer);
            gl_viewport(0, 0, signed(target.width), signed(target.height));
            gl_use_program(program);
            gl_bind_texture(GL_TEXTURE_EXTERNAL_OES, source);
            gl_draw_arrays(GL_TRIANGLE_STRIP, 0, 4);
            gl_flush();
        }
        Self::check_gl("glDrawArrays")
    }

    fn reads_back(&self, context: Context) -> Option<Shading> {
        // SAFETY: a context is current.
        let (version, is_gl) = unsafe { (epoxy_gl_version(), epoxy_is_desktop_gl()) };
        if is_gl {
            let has_storage = version >= 42 || Self::has_gl(context, c"GL_ARB_texture_storage");
            (version >= 33 && has_storage).then_some(Shading::Gl)
        } else {
            let has_bgra = Self::has_gl(context, c"GL_EXT_read_format_bgra");
            (version >= 30 && has_bgra).then_some(Shading::Gles)
        }
    }

    fn label_texture(&self, context: Context, texture: u32, label: u64) {
        if Self::has_gl(context, c"GL_KHR_debug") {
            let text = label_text(label);
            // SAFETY: a context is current, the texture exists, the label is a string.
            unsafe { gl_object_label(GL_TEXTURE, texture, -1, text.as_ptr()) };
            Self::clear_gl_errors();
        }
    }

    fn pixel_buffer(&self, context: Context, bytes: usize) -> Result<u32, GlError> {
        const CALL: &str = "glBufferData";
        const GL_INVALID_VALUE: u32 = 0x0501;
        let bytes =
            isize::try_from(bytes).map_err(|_| GlError { call: CALL, code: GL_INVALID_VALUE })?;
        Self::clear_gl_errors();
        let mut buffer = 0;
        // SAFETY: a context is current; the pointer is to a value that lives during the call; no
        // data means that there is none yet.
        unsafe {
            gl_gen_buffers(1, &raw mut buffer);
            gl_bind_buffer(GL_PIXEL_PACK_BUFFER, buffer);
            gl_buffer_data(GL_PIXEL_PACK_BUFFER, bytes, null(), GL_STREAM_READ);
            gl_bind_buffer(GL_PIXEL_PACK_BUFFER, 0);
        }
        let result = Self::check_gl(CALL);
        if result.is_err() {
            self.delete_pixel_buffer(context, buffer);
        }
        result.map(|()| buffer)
    }

    fn delete_pixel_buffer(&self, _: Context, buffer: u32) {
        // SAFETY: a context is current, and GL ignores names that it does not know.
        unsafe { gl_delete_buffers(1, &raw const buffer) };
    }

    fn start_reading(&self, _: Context, source: Target, buffer: u32) -> Result<(), GlError> {
        Self::clear_gl_errors();
        // SAFETY: a context is current, and it has these objects. While a pixel pack buffer is
        // bound, the pointer is an offset into it; GL refuses to write beyond its end.
        unsafe {
            gl_bind_framebuffer(GL_READ_FRAMEBUFFER, source.framebuffer);
            gl_bind_buffer(GL_PIXEL_PACK_BUFFER, buffer);
            gl_read_pixels(
                0,
                0,
                signed(source.width),
                signed(source.height),
                GL_BGRA,
                GL_UNSIGNED_BYTE,
                null_mut(),
            );
            gl_bind_buffer(GL_PIXEL_PACK_BUFFER, 0);
        }
        Self::check_gl("glReadPixels")
    }

    fn pixels(
        &self,
        _: Context,
        buffer: u32,
        bytes: usize,
        body: &mut dyn FnMut(&[u8]),
    ) -> Result<(), GlError> {
        Self::clear_gl_errors();
        let length = isize::try_from(bytes).unwrap_or(0);
        // SAFETY: a context is current; GL refuses a length that the buffer does not have.
        let mapped = unsafe {
            gl_bind_buffer(GL_PIXEL_PACK_BUFFER, buffer);
            gl_map_buffer(GL_PIXEL_PACK_BUFFER, 0, length, GL_MAP_READ_BIT)
        };
        let mut intact = GL_FALSE;
        if !mapped.is_null() {
            // SAFETY: GL mapped that many bytes, which nobody writes before they are unmapped.
            body(unsafe { std::slice::from_raw_parts(mapped.cast::<u8>(), bytes) });
            // SAFETY: the buffer is bound and mapped.
            intact = unsafe { gl_unmap_buffer(GL_PIXEL_PACK_BUFFER) };
        }
        // SAFETY: a context is current.
        unsafe { gl_bind_buffer(GL_PIXEL_PACK_BUFFER, 0) };
        Self::check_gl("glMapBufferRange")?;
        if intact == GL_FALSE {
            return Err(GlError { call: "glUnmapBuffer", code: GL_NO_ERROR });
        }
        Ok(())
    }

    fn comparer(
        &self,
        _: Context,
        program: u32,
        width: u32,
        height: u32,
    ) -> Result<Comparer, GlError> {
        let scratch = Self::new_target(GL_R8, width, height).inspect_err(|_| {
            // SAFETY: a context is current, and the program is its own.
            unsafe { gl_delete_program(program) };
        })?;
        let mut comparer = Comparer { program, array: 0, query: 0, scratch };
        // SAFETY: a context is current, and it has the program; the names are strings, the pointers
        // are to values that live during the calls.
        unsafe {
            gl_gen_vertex_arrays(1, &raw mut comparer.array);
            gl_gen_queries(1, &raw mut comparer.query);
            gl_use_program(program);
            gl_uniform(gl_get_uniform_location(program, c"now".as_ptr()), 0);
            gl_uniform(gl_get_uniform_location(program, c"before".as_ptr()), 1);
        }
        let result = Self::check_gl("glUniform1i");
        if result.is_err() {
            Self::delete_comparer_objects(comparer);
        }
        result.map(|()| comparer)
    }

    fn delete_comparer(&self, _: Context, comparer: Comparer) {
        Self::delete_comparer_objects(comparer);
    }

    fn start_comparing(
        &self,
        _: Context,
        comparer: Comparer,
        before: Target,
        now: Target,
    ) -> Result<(), GlError> {
        Self::clear_gl_errors();
        // SAFETY: a context is current, and it has these objects; the program reads no arrays.
        unsafe {
            gl_bind_framebuffer(GL_DRAW_FRAMEBUFFER, comparer.scratch.framebuffer);
            gl_viewport(0, 0, signed(now.width), signed(now.height));
            gl_use_program(comparer.program);
            gl_bind_vertex_array(comparer.array);
            gl_active_texture(GL_TEXTURE1);
            gl_bind_texture(GL_TEXTURE_2D, before.texture);
            gl_active_texture(GL_TEXTURE0);
            gl_bind_texture(GL_TEXTURE_2D, now.texture);
            gl_begin_query(GL_ANY_SAMPLES_PASSED, comparer.query);
            gl_draw_arrays(GL_TRIANGLE_STRIP, 0, 4);
            gl_end_query(GL_ANY_SAMPLES_PASSED);
            gl_bind_texture(GL_TEXTURE_2D, 0);
            gl_active_texture(GL_TEXTURE1);
            gl_bind_texture(GL_TEXTURE_2D, 0);
            gl_active_texture(GL_TEXTURE0);
            gl_bind_vertex_array(0);
        }
        Self::check_gl("glDrawArrays")
    }

    fn differ(&self, _: Context, comparer: Comparer) -> bool {
        // Without an answer, it may have changed.
        let mut drawn = 1;
        // SAFETY: a context is current, and it has the query; the call writes one value.
        unsafe { gl_get_query(comparer.query, GL_QUERY_RESULT, &raw mut drawn) };
        Self::clear_gl_errors();
        drawn != 0
    }

    fn flush(&self, _: Context) {
        // SAFETY: a context is current.
        unsafe { gl_flush() };
    }

    fn fence(&self, _: Context) -> Result<EglSync, EglError> {
        let create = Self::function(self.functions.create_sync, "eglCreateSyncKHR")?;
        // SAFETY: a context is current; a list of attributes is not needed.
        let sync = unsafe { create(self.raw(), EGL_SYNC_FENCE_KHR, null()) };
        handle(sync).map(EglSync).ok_or_else(|| Self::failure("eglCreateSyncKHR"))
    }

    fn native_fence(&self, _: Context) -> Result<EglSync, EglError> {
        let create = Self::function(self.functions.create_sync, "eglCreateSyncKHR")?;
        // SAFETY: a context is current; a list of attributes is not needed.
        let sync = unsafe { create(self.raw(), EGL_SYNC_NATIVE_FENCE_ANDROID, null()) };
        handle(sync).map(EglSync).ok_or_else(|| Self::failure("eglCreateSyncKHR"))
    }

    fn wait(&self, _: Context, sync: &EglSync) -> Result<(), EglError> {
        let wait = Self::function(self.functions.wait_sync, "eglWaitSyncKHR")?;
        // SAFETY: the sync exists; a context is current.
        if unsafe { wait(self.raw(), pointer(sync.0), 0) } == 0 {
            return Err(Self::failure("eglWaitSyncKHR"));
        }
        Ok(())
    }

    fn fence_of_sync(&self, sync: &EglSync) -> Result<OwnedFd, EglError> {
        const CALL: &str = "eglDupNativeFenceFDANDROID";
        let dup = Self::function(self.functions.dup_native_fence, CALL)?;
        // SAFETY: the sync exists.
        let fd = unsafe { dup(self.raw(), pointer(sync.0)) };
        if fd < 0 {
            return Err(Self::failure(CALL));
        }
        // SAFETY: the descriptor is new, and ours.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn has_fired(&self, sync: &EglSync) -> Result<bool, EglError> {
        const CALL: &str = "eglClientWaitSyncKHR";
        let wait = Self::function(self.functions.client_wait_sync, CALL)?;
        // SAFETY: the sync exists.
        match unsafe { wait(self.raw(), pointer(sync.0), 0, 0) } {
            EGL_CONDITION_SATISFIED => Ok(true),
            EGL_TIMEOUT_EXPIRED => Ok(false),
            _ => Err(Self::failure(CALL)),
        }
    }

    fn destroy_sync(&self, sync: EglSync) {
        let Some(destroy) = self.functions.destroy_sync else { return };
        // SAFETY: the sync exists, and is not used again.
        if unsafe { destroy(self.raw(), pointer(sync.0)) } == 0 {
            Self::failure("eglDestroySyncKHR");
        }
    }
}
