//! dma-bufs as textures of the host's EGL and GL.
//!
//! | module   | what it is for                                                            |
//! |----------|---------------------------------------------------------------------------|
//! | buffer   | the description of a picture, checked before any driver sees it           |
//! | layout   | which bytes a format takes                                                |
//! | formats  | what the display imports, asked for once                                  |
//! | import   | [`Importer`]: from a buffer to a texture, and its end                     |
//! | convert  | YUV, and what is an external texture only, drawn to an RGBA texture       |
//! | readback | [`ReadBack`]: from a texture to memory, without waiting for the GPU          |
//! | fence    | fences of the kernel                                                      |
//! | driver   | what the above ask of EGL and GL; tests have a fake                       |
//! | epoxy    | the raw binding                                                           |

mod buffer;
mod convert;
mod driver;
/// cbindgen:ignore
pub(crate) mod epoxy;
mod fence;
mod formats;
mod import;
mod layout;
mod readback;
#[cfg(test)]
mod tests;

pub use buffer::{Buffer, BufferError, BufferPlane, ColorSpace, MAX_PLANES};
pub use convert::ConvertError;
pub use driver::{EglError, EglErrorCode, GlError};
pub use epoxy::Display;
pub use formats::Unsupported;
pub use import::{Import, ImportError, Importer, ReleaseError, Usable};
pub use readback::{Drawn, ReadBack, ReadBackError, Taken};
