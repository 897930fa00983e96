//! What an import asks of EGL and GL: [`epoxy`](super::epoxy) is the real thing, tests have others.

#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::fmt;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;

// Handles are numbers to us: only EGL follows them.

/// A context. Functions that take one want it to be current.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Context(pub(super) NonZeroUsize);

/// An `EGLImage`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Image(pub(super) NonZeroUsize);

/// An `EGLSync`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct EglSync(pub(super) NonZeroUsize);

/// A texture to draw to, with the framebuffer that leads there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The texture, RGBA with 8 bits each unless said otherwise.
    pub texture: u32,
    /// Draws to the texture.
    pub framebuffer: u32,
    /// Width in pixels.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// What compares two targets: the objects of one context, and of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Comparer {
    /// Draws the pixels that differ, which the query counts.
    pub program: u32,
    /// Without a vertex array, OpenGL's core profile does not draw.
    pub array: u32,
    /// Tells whether anything was drawn.
    pub query: u32,
    /// Is drawn to, and never read: a byte for each pixel.
    pub scratch: Target,
}

/// A modifier that a display takes for one format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modifier {
    /// The code of `drm_fourcc.h`.
    pub code: u64,
    /// Whether the driver says that such an image can only be an external texture. Mesa's software
    /// renderers say so of all, and take all RGB formats as plain textures nevertheless.
    pub external: bool,
}

/// What a display has, asked once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is an extension of its own")]
pub struct Extensions {
    /// `EGL_KHR_image_base`
    pub image: bool,
    /// `EGL_EXT_image_dma_buf_import`
    pub import: bool,
    /// `EGL_EXT_image_dma_buf_import_modifiers`
    pub modifiers: bool,
    /// `EGL_KHR_surfaceless_context`
    pub surfaceless: bool,
    /// `EGL_KHR_no_config_context`, or Mesa's older one
    pub configless: bool,
    /// `EGL_KHR_gl_texture_2D_image`
    pub texture_image: bool,
    /// `EGL_KHR_fence_sync`
    pub fence: bool,
    /// `EGL_KHR_wait_sync`
    pub wait: bool,
    /// `EGL_ANDROID_native_fence_sync`, and what it builds on
    pub native_fence: bool,
}

/// A language of shaders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shading {
    /// `#version 330`
    Gl,
    /// `#version 300 es`
    Gles,
}

/// EGL and GL, on one display.
pub trait Driver {
    /// Extensions of the display.
    fn extensions(&self) -> Extensions;
    /// `eglQueryDmaBufFormatsEXT`
    fn formats(&self) -> Result<Vec<u32>, EglError>;
    /// `eglQueryDmaBufModifiersEXT`
    fn modifiers(&self, fourcc: u32) -> Result<Vec<Modifier>, EglError>;
    /// Whether the display's device is the CPU; `None` where EGL does not tell.
    fn is_software_device(&self) -> Option<bool>;

    /// The thread's current context, if it is one of this display.
    fn current(&self) -> Option<Context>;
    /// Runs `body` with another context, without surfaces, and goes back to what was current.
    fn visit(&self, context: Context, body: &mut dyn FnMut(Context)) -> Result<(), EglError>;
    /// Makes a context of OpenGL ES 3, without a config, that shares nothing with others.
    fn create_context(&self) -> Result<Context, EglError>;
    /// Ends a context of [`Driver::create_context`].
    fn destroy_context(&self, context: Context);

    /// `GL_RENDERER`
    fn renderer(&self, context: Context) -> String;
    /// `GL_MAX_TEXTURE_SIZE`
    fn max_texture_side(&self, context: Context) -> u32;
    /// Whether the context makes textures of images: `GL_OES_EGL_image`, or
    /// `GL_EXT_EGL_image_storage`.
    fn takes_images(&self, context: Context) -> bool;

    /// Makes an image of a dma-buf. The list ends with `EGL_NONE`; descriptors in it stay the
    /// caller's.
    fn create_image(&self, attributes: &[i32]) -> Result<Image, EglError>;
    /// Makes an image of a texture of the context.
    fn image_of_texture(&self, context: Context, texture: u32) -> Result<Image, EglError>;
    /// Ends an image; textures made of it live on.
    fn destroy_image(&self, image: Image);

    /// Makes a plain texture of an image, and marks it with `label`.
    fn texture(&self, context: Context, image: Image, label: u64) -> Result<u32, GlError>;
    /// Makes an external texture of an image.
    fn external_texture(&self, context: Context, image: Image) -> Result<u32, GlError>;
    /// Whether the context has this texture, with this label. `None`: it has one of the name, but
    /// cannot keep labels.
    fn has_texture(&self, context: Context, texture: u32, label: u64) -> Option<bool>;
    /// Ends a texture.
    fn delete_texture(&self, context: Context, texture: u32);

    /// Compiles a program.
    fn program(&self, context: Context, vertex: &CStr, fragment: &CStr) -> Result<u32, String>;
    /// Makes a texture to draw to. What was bound to the context before is not any more.
    fn target(&self, context: Context, width: u32, height: u32) -> Result<Target, GlError>;
    /// Ends a texture to draw to.
    fn delete_target(&self, context: Context, target: Target);
    /// Draws all of an external texture to all of a target, and flushes.
    fn draw(
        &self,
        context: Context,
        program: u32,
        source: u32,
        target: Target,
    ) -> Result<(), GlError>;

    /// Which language of shaders the context has, if it can read pixels back without waiting:
    /// OpenGL 3.3, or OpenGL ES 3.0.
    fn reads_back(&self, context: Context) -> Option<Shading>;
    /// Marks a texture, for [`Driver::has_texture`].
    fn label_texture(&self, context: Context, texture: u32, label: u64);
    /// Makes a buffer that pixels can be read into.
    fn pixel_buffer(&self, context: Context, bytes: usize) -> Result<u32, GlError>;
    /// Ends a buffer of pixels.
    fn delete_pixel_buffer(&self, context: Context, buffer: u32);
    /// Has a target's pixels copied into a buffer that has room for them: first row first,
    /// XRGB8888.
    fn start_reading(&self, context: Context, source: Target, buffer: u32) -> Result<(), GlError>;
    /// Hands out the bytes of a buffer of pixels. Waits if they are still being copied.
    fn pixels(
        &self,
        context: Context,
        buffer: u32,
        bytes: usize,
        body: &mut dyn FnMut(&[u8]),
    ) -> Result<(), GlError>;
    /// Makes what compares targets of a size. The program, whose samplers are called `before` and
    /// `now`, becomes its own.
    fn comparer(
        &self,
        context: Context,
        program: u32,
        width: u32,
        height: u32,
    ) -> Result<Comparer, GlError>;
    /// Ends what compares targets.
    fn delete_comparer(&self, context: Context, comparer: Comparer);
    /// Has two targets compared.
    fn start_comparing(
        &self,
        context: Context,
        comparer: Comparer,
        before: Target,
        now: Target,
    ) -> Result<(), GlError>;
    /// Whether the targets differ. Waits if they are still being compared.
    fn differ(&self, context: Context, comparer: Comparer) -> bool;
    /// Has commands carried out that were given so far, without waiting for it.
    fn flush(&self, context: Context);

    /// A sync that fires when all commands so far have been carried out.
    fn fence(&self, context: Context) -> Result<EglSync, EglError>;
    /// The same, that [`Driver::fence_of_sync`] can make a descriptor of once the commands were
    /// flushed.
    fn native_fence(&self, context: Context) -> Result<EglSync, EglError>;
    /// Lets the GPU, not the CPU, wait for a sync before it carries out what comes next.
    fn wait(&self, context: Context, sync: &EglSync) -> Result<(), EglError>;
    /// The kernel's fence behind a sync of [`Driver::native_fence`].
    fn fence_of_sync(&self, sync: &EglSync) -> Result<OwnedFd, EglError>;
    /// Whether a sync has fired. Does not wait.
    fn has_fired(&self, sync: &EglSync) -> Result<bool, EglError>;
    /// Ends a sync.
    fn destroy_sync(&self, sync: EglSync);
}

/// The same bits: EGL's attributes and GL's sizes are signed.
pub fn signed(bits: u32) -> i32 {
    i32::from_ne_bytes(bits.to_ne_bytes())
}

/// The same bits.
pub fn unsigned(bits: i32) -> u32 {
    u32::from_ne_bytes(bits.to_ne_bytes())
}

/// An EGL function failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EglError {
    /// The function.
    pub call: &'static str,
    /// What `eglGetError` said.
    pub code: EglErrorCode,
}

/// What `eglGetError` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are EGL's")]
pub enum EglErrorCode {
    Success,
    NotInitialized,
    BadAccess,
    BadAlloc,
    BadAttribute,
    BadConfig,
    BadContext,
    BadCurrentSurface,
    BadDisplay,
    BadMatch,
    BadNativePixmap,
    BadNativeWindow,
    BadParameter,
    BadSurface,
    ContextLost,
    BadDevice,
    /// Not EGL's: it promises the function in an extension, and does not have it.
    Missing,
    Other(i32),
}

impl EglError {
    /// From a code of `eglGetError`.
    pub fn new(call: &'static str, code: i32) -> Self {
        use EglErrorCode as C;
        let code = match code {
            0x3000 => C::Success,
            0x3001 => C::NotInitialized,
            0x3002 => C::BadAccess,
            0x3003 => C::BadAlloc,
            0x3004 => C::BadAttribute,
            0x3005 => C::BadConfig,
            0x3006 => C::BadContext,
            0x3007 => C::BadCurrentSurface,
            0x3008 => C::BadDisplay,
            0x3009 => C::BadMatch,
            0x300A => C::BadNativePixmap,
            0x300B => C::BadNativeWindow,
            0x300C => C::BadParameter,
            0x300D => C::BadSurface,
            0x300E => C::ContextLost,
            0x322B => C::BadDevice,
            other => C::Other(other),
        };
        Self { call, code }
    }
}

impl std::error::Error for EglError {}

impl fmt::Display for EglError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use EglErrorCode as C;
        let name = match self.code {
            C::Success => "it failed without an error",
            C::NotInitialized => "EGL_NOT_INITIALIZED",
            C::BadAccess => "EGL_BAD_ACCESS",
            C::BadAlloc => "EGL_BAD_ALLOC",
            C::BadAttribute => "EGL_BAD_ATTRIBUTE",
            C::BadConfig => "EGL_BAD_CONFIG",
            C::BadContext => "EGL_BAD_CONTEXT",
            C::BadCurrentSurface => "EGL_BAD_CURRENT_SURFACE",
            C::BadDisplay => "EGL_BAD_DISPLAY",
            C::BadMatch => "EGL_BAD_MATCH",
            C::BadNativePixmap => "EGL_BAD_NATIVE_PIXMAP",
            C::BadNativeWindow => "EGL_BAD_NATIVE_WINDOW",
            C::BadParameter => "EGL_BAD_PARAMETER",
            C::BadSurface => "EGL_BAD_SURFACE",
            C::ContextLost => "EGL_CONTEXT_LOST",
            C::BadDevice => "EGL_BAD_DEVICE_EXT",
            C::Missing => "EGL promises it, and does not have it",
            C::Other(code) => return write!(f, "{}: error 0x{code:04x}", self.call),
        };
        write!(f, "{}: {name}", self.call)
    }
}

/// A GL function failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlError {
    /// The function.
    pub call: &'static str,
    /// What `glGetError`, or the function itself, said.
    pub code: u32,
}

impl std::error::Error for GlError {}

impl fmt::Display for GlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.code {
            0x0500 => "GL_INVALID_ENUM",
            0x0501 => "GL_INVALID_VALUE",
            0x0502 => "GL_INVALID_OPERATION",
            0x0505 => "GL_OUT_OF_MEMORY",
            0x0506 => "GL_INVALID_FRAMEBUFFER_OPERATION",
            0x0507 => "GL_CONTEXT_LOST",
            code => return write!(f, "{}: error 0x{code:04x}", self.call),
        };
        write!(f, "{}: {name}", self.call)
    }
}

impl GlError {
    /// Whether GL would not have this object as it is, rather than being out of memory, or lost.
    pub fn is_refusal(&self) -> bool {
        matches!(self.code, 0x0500..=0x0502)
    }
}
