//! From a buffer to a texture, and its end.
//!
//! Nothing reaches a driver that [`Importer::check`] refuses. A texture belongs to the context that
//! was current when it was made, and to those that share with it. So each carries a label, and
//! before a texture is used or deleted its name is looked up in the context at hand: contexts count
//! their textures alike, and another one's texture of the same name is none of ours.
//!
//! What a driver lists is not what it takes: its answer to an import decides. A refusal holds for
//! all buffers of the kind.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use drm_fourcc::{DrmFourcc, DrmModifier};
use serde_json::json;

use crate::format::Format;
use crate::memory;

use super::buffer::{Buffer, BufferError, BufferPlane, ColorSpace, Kind, Reader};
use super::convert::{Conversion, ConvertError, Converter};
use super::driver::{Context, Driver, EglError, EglErrorCode, EglSync, Extensions, GlError, Image};
use super::formats::{FormatTable, Telling, Unsupported};

/// How many kinds of refused buffers are remembered; the oldest are forgotten.
const MOST_REFUSED: usize = 64;

/// Makes textures of dma-bufs, on one display.
#[derive(Debug)]
pub struct Importer<D: Driver> {
    pub(super) driver: D,
    pub(super) extensions: Extensions,
    formats: FormatTable,
    software: OnceLock<bool>,
    /// Whether a renderer in software maps what it imports itself.
    maps_itself: OnceLock<bool>,
    /// Whether the host's contexts make textures of images: they are all of one sort.
    takes_images: OnceLock<bool>,
    /// What the driver did not take, and why.
    refused: Mutex<VecDeque<(Kind, String)>>,
    converter: Mutex<Option<Converter>>,
    orphans: Mutex<Vec<Texture>>,
    pub(super) next_label: AtomicU64,
    alive: AtomicUsize,
    /// Those of them that are conversions.
    converted: AtomicUsize,
    made: AtomicU64,
    /// Pictures that were read back.
    pub(super) read_back: AtomicU64,
    /// Pictures that were not: they were the same as the one before.
    pub(super) unchanged: AtomicU64,
}

/// A texture, and where it is.
#[derive(Clone, Copy, Debug)]
struct Texture {
    name: u32,
    context: Context,
    label: u64,
}

/// A dma-buf's texture.
///
/// It ends when it is dropped, wherever that is; [`Import::release`] tells whether that worked.
#[derive(Debug)]
pub struct Import<D: Driver> {
    importer: Arc<Importer<D>>,
    texture: Texture,
    kind: Kind,
    conversion: Option<Conversion>,
    /// Fires when the host has drawn the texture.
    drawn: Option<EglSync>,
    ended: bool,
}

/// Whether a texture can be drawn now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usable {
    /// It shows what the dma-buf has.
    Yes,
    /// The current context does not have it: the buffer is to be imported again.
    NotHere,
}

impl<D: Driver> Importer<D> {
    /// Asks the display what it can do.
    pub fn new(driver: D) -> Self {
        let extensions = driver.extensions();
        let can_ask = extensions.import && extensions.modifiers;
        let formats = FormatTable::ask(&driver, can_ask);
        Self {
            driver,
            extensions,
            formats,
            software: OnceLock::new(),
            maps_itself: OnceLock::new(),
            takes_images: OnceLock::new(),
            refused: Mutex::default(),
            converter: Mutex::new(None),
            orphans: Mutex::default(),
            next_label: AtomicU64::new(1),
            alive: AtomicUsize::new(0),
            converted: AtomicUsize::new(0),
            made: AtomicU64::new(0),
            read_back: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
        }
    }

    /// Whether the display imports dma-bufs of a format.
    pub fn supports(&self, format: Format) -> Result<(), ImportError> {
        self.telling(format).map(drop)
    }

    /// Whether the display imports dma-bufs at all.
    pub fn imports(&self) -> bool {
        self.extensions.import && self.extensions.image
    }

    fn telling(&self, format: Format) -> Result<Telling, ImportError> {
        if !self.imports() {
            return Err(ImportError::NoImport);
        }
        Ok(self.formats.look_up(format)?)
    }

    /// Whether the display can import a buffer, as far as that is known before it does. No context
    /// is needed.
    pub fn check(&self, buffer: &Buffer<'_>) -> Result<(), ImportError> {
        self.telling(buffer.format)?;
        if self.takes_images.get() == Some(&false) {
            return Err(ImportError::NoTexturesOfImages);
        }
        if self.maps_itself.get() == Some(&false) {
            return Err(ImportError::ReadsThroughDevice);
        }
        let kind = buffer.kind();
        if let Some((_, why)) = lock(&self.refused).iter().find(|(refused, _)| *refused == kind) {
            return Err(ImportError::Refused(why.clone()));
        }
        let reader = match self.is_software() {
            Some(true) => Reader::Cpu,
            _ => Reader::Gpu,
        };
        Ok(buffer.check(reader)?)
    }

    /// Whether the CPU draws: the display's device says so, or the name of the renderer, for which
    /// we need a context of our own where there is none. Mesa has displays whose device is a GPU
    /// that it has no driver for, and draws there with the CPU.
    pub fn is_software(&self) -> Option<bool> {
        if let Some(&known) = self.software.get() {
            return Some(known);
        }
        let told = self.driver.is_software_device();
        let software = told == Some(true)
            || match self.renderer() {
                Some(name) => is_software_renderer(&name),
                None => return told,
            };
        Some(*self.software.get_or_init(|| software))
    }

    fn renderer(&self) -> Option<String> {
        if let Some(context) = self.driver.current() {
            return Some(self.driver.renderer(context));
        }
        if !self.extensions.configless || !self.extensions.surfaceless {
            return None;
        }
        let mut name = None;
        let context = self.driver.create_context().ok()?;
        let visited = self.driver.visit(context, &mut |context| {
            name = Some(self.driver.renderer(context));
        });
        self.driver.destroy_context(context);
        visited.ok()?;
        name
    }

    /// Whether a software renderer maps its imports by itself, which is tried once, before it gets
    /// any. If its display is a DRM device's, Mesa's renderer has that device map them, which fails
    /// for others' dma-bufs; Mesa does not check, and the first draw ends the process. A memfd
    /// tells the two apart: the kernel does not take it for a dma-buf.
    fn maps_itself(&self) -> bool {
        *self.maps_itself.get_or_init(|| self.imports_memfd().unwrap_or(false))
    }

    fn imports_memfd(&self) -> std::io::Result<bool> {
        const SIDE: u32 = 64;
        const STRIDE: u32 = 4 * SIDE;
        let format = Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::Linear };
        let telling = self.telling(format).unwrap_or(Telling::Implicit);
        let memory = memory::memfd(u64::from(STRIDE * SIDE))?;
        let planes = [BufferPlane { fd: memory.as_fd(), offset: 0, stride: STRIDE }];
        let color_space = ColorSpace::default();
        let (width, height) = (SIDE, SIDE);
        let buffer =
            Buffer { format, width, height, planes: &planes, color_space, full_range: false };
        let image = self.driver.create_image(&buffer.attributes(telling));
        Ok(image.map(|image| self.driver.destroy_image(image)).is_ok())
    }

    /// Makes a texture of a buffer, in the current context. The descriptors stay the caller's, and
    /// can be closed afterwards.
    pub fn import(self: &Arc<Self>, buffer: &Buffer<'_>) -> Result<Import<D>, ImportError> {
        let context = self.driver.current().ok_or(ImportError::NoContext)?;
        self.sweep();
        self.check(buffer)?;
        if !self.takes_images.get_or_init(|| self.driver.takes_images(context)) {
            return Err(ImportError::NoTexturesOfImages);
        }
        let made = match self.make(context, buffer) {
            // The next attempt makes anew what was lost.
            Err(error) if error.is_loss() => self.make(context, buffer),
            made => made,
        };
        made.map_err(|error| self.refuse(buffer.kind(), error))
    }

    fn make(
        self: &Arc<Self>,
        context: Context,
        buffer: &Buffer<'_>,
    ) -> Result<Import<D>, ImportError> {
        let most = self.driver.max_texture_side(context);
        if buffer.width > most || buffer.height > most {
            let (width, height) = (buffer.width, buffer.height);
            return Err(ImportError::TooLarge { width, height, most });
        }
        let telling = self.telling(buffer.format)?;
        let stride = buffer.planes.first().map_or(0, |plane| plane.stride);
        let image = self
            .driver
            .create_image(&buffer.attributes(telling))
            .map_err(|error| ImportError::Image { error, stride })?;
        let label = self.next_label.fetch_add(1, Ordering::Relaxed);
        let result = if self.is_software() == Some(true) && !self.maps_itself() {
            Err(ImportError::ReadsThroughDevice)
        } else {
            self.texture(context, image, buffer, label)
        };
        self.driver.destroy_image(image);
        let (name, conversion) = result?;

        self.alive.fetch_add(1, Ordering::Relaxed);
        self.converted.fetch_add(usize::from(conversion.is_some()), Ordering::Relaxed);
        self.made.fetch_add(1, Ordering::Relaxed);
        let import = Import {
            importer: Arc::clone(self),
            texture: Texture { name, context, label },
            kind: buffer.kind(),
            conversion,
            drawn: None,
            ended: false,
        };
        import.prepare()?;
        Ok(import)
    }

    /// Remembers that the driver does not take a kind of buffer.
    fn refuse(&self, kind: Kind, error: ImportError) -> ImportError {
        let why = error.to_string();
        let mut refused = lock(&self.refused);
        if refused.iter().all(|(known, _)| *known != kind) {
            refused.truncate(MOST_REFUSED - 1);
            refused.push_front((kind, why));
        }
        error
    }

    fn texture(
        &self,
        context: Context,
        image: Image,
        buffer: &Buffer<'_>,
        label: u64,
    ) -> Result<(u32, Option<Conversion>), ImportError> {
        if !buffer.format.is_yuv() {
            match self.driver.texture(context, image, label) {
                Ok(texture) => return Ok((texture, None)),
                // The driver may take it as an external texture.
                Err(error) if error.is_refusal() => {}
                Err(error) => return Err(error.into()),
            }
        }
        let size = (buffer.width, buffer.height);
        let (conversion, converted) =
            self.with_converter(|converter| converter.convert(&self.driver, image, size))?;
        let texture = self.driver.texture(context, converted, label);
        self.driver.destroy_image(converted);
        match texture {
            Ok(texture) => Ok((texture, Some(conversion))),
            Err(error) => {
                self.end_conversion(&conversion);
                Err(error.into())
            }
        }
    }

    fn with_converter<R>(
        &self,
        body: impl FnOnce(&Converter) -> Result<R, ConvertError>,
    ) -> Result<R, ConvertError> {
        let mut slot = self.converter();
        let converter = match slot.take() {
            Some(converter) => converter,
            None => Converter::new(&self.driver, self.extensions)?,
        };
        let result = body(&converter);
        match &result {
            Err(error) if error.is_loss() => converter.free(&self.driver),
            _ => *slot = Some(converter),
        }
        result
    }

    fn draw_conversion(&self, conversion: &Conversion) -> Result<(), ConvertError> {
        self.with_converter(|converter| {
            if !converter.has_made(conversion) {
                return Err(ConvertError::ContextGone);
            }
            converter.draw(&self.driver, self.extensions, conversion)
        })
    }

    fn end_conversion(&self, conversion: &Conversion) {
        let slot = self.converter();
        if let Some(converter) = slot.as_ref().filter(|converter| converter.has_made(conversion)) {
            converter.end(&self.driver, conversion);
        }
    }

    /// A context holds on to what it drew last. It is of no use when nothing is left to convert.
    fn end_converter(&self) {
        if self.converted.load(Ordering::Relaxed) == 0 {
            if let Some(converter) = self.converter().take() {
                converter.free(&self.driver);
            }
        }
    }

    fn converter(&self) -> MutexGuard<'_, Option<Converter>> {
        lock(&self.converter)
    }

    /// Whether the context has the texture: the one that made it, or one that shares with that.
    fn has(&self, context: Context, texture: &Texture) -> bool {
        self.driver
            .has_texture(context, texture.name, texture.label)
            .unwrap_or(context == texture.context)
    }

    fn delete(&self, texture: &Texture) -> Result<(), EglError> {
        if let Some(context) = self.driver.current().filter(|&context| self.has(context, texture)) {
            self.driver.delete_texture(context, texture.name);
            return Ok(());
        }
        let visited = self.driver.visit(texture.context, &mut |context| {
            // Not if another context has come to live where ours was.
            if self.has(context, texture) {
                self.driver.delete_texture(context, texture.name);
            }
        });
        // Textures go with their context.
        visited.or_else(|error| match error.code {
            EglErrorCode::BadContext => Ok(()),
            _ => Err(error),
        })
    }

    /// Deletes the textures whose context was another thread's when they were to go. They wait for
    /// a call from that thread.
    pub fn sweep(&self) {
        let mut orphans = lock(&self.orphans);
        orphans.retain(|texture| self.delete(texture).is_err());
    }

    /// Whether there is something to [`Importer::sweep`].
    pub fn has_orphans(&self) -> bool {
        !lock(&self.orphans).is_empty()
    }

    /// What the display can do, and what is imported.
    pub fn status(&self) -> serde_json::Value {
        json!({
            "imports-dmabufs": self.imports(),
            "modifiers": self.extensions.modifiers,
            "formats": self.formats.count(),
            "native-fences": self.extensions.native_fence,
            "software": self.is_software(),
            "imports": self.alive.load(Ordering::Relaxed),
            "converted": self.converted.load(Ordering::Relaxed),
            "imports-made": self.made.load(Ordering::Relaxed),
            "read-back": self.read_back.load(Ordering::Relaxed),
            "unchanged": self.unchanged.load(Ordering::Relaxed),
        })
    }
}

/// The status in a line of text.
impl<D: Driver> fmt::Display for Importer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.is_software() {
            Some(true) => f.write_str("EGL (software): ")?,
            Some(false) => f.write_str("EGL (GPU): ")?,
            None => f.write_str("EGL: ")?,
        }
        if !self.imports() {
            return f.write_str(
                "imports no dma-bufs (no EGL_EXT_image_dma_buf_import): they are shown as surfaces",
            );
        }
        match self.formats.count() {
            Some(count) => write!(f, "imports {count} formats with modifiers")?,
            None => f.write_str("does not tell what it imports")?,
        }
        write!(
            f,
            "; {} dma-bufs are textures now, {} of them converted; {} were imported in all",
            self.alive.load(Ordering::Relaxed),
            self.converted.load(Ordering::Relaxed),
            self.made.load(Ordering::Relaxed)
        )?;
        let read_back = self.read_back.load(Ordering::Relaxed);
        let unchanged = self.unchanged.load(Ordering::Relaxed);
        if read_back > 0 {
            write!(
                f,
                "\n  read back: {read_back} pictures; {unchanged} times there was no new one"
            )?;
        }
        Ok(())
    }
}

impl<D: Driver> Drop for Importer<D> {
    fn drop(&mut self) {
        if let Some(converter) = self.converter().take() {
            converter.free(&self.driver);
        }
    }
}

impl<D: Driver> Import<D> {
    /// The texture's name: a plain texture of the context that it was imported in.
    pub fn texture(&self) -> u32 {
        self.texture.name
    }

    /// Whether the texture is a copy that [`Import::begin`] brings up to date.
    pub fn is_converted(&self) -> bool {
        self.conversion.is_some()
    }

    /// Whether the current context has the texture.
    pub fn is_here(&self) -> bool {
        let current = self.importer.driver.current();
        current.is_some_and(|context| self.importer.has(context, &self.texture))
    }

    /// To be called before the texture is drawn, each time: converts what needs it.
    pub fn begin(&self) -> Result<Usable, ImportError> {
        let driver = &self.importer.driver;
        let context = driver.current().ok_or(ImportError::NoContext)?;
        if !self.importer.has(context, &self.texture) {
            return Ok(Usable::NotHere);
        }
        match self.prepare() {
            Ok(()) => Ok(Usable::Yes),
            Err(error) if error.is_loss() => Ok(Usable::NotHere),
            Err(error) => Err(self.importer.refuse(self.kind.clone(), error)),
        }
    }

    fn prepare(&self) -> Result<(), ImportError> {
        if let Some(conversion) = &self.conversion {
            self.importer.draw_conversion(conversion)?;
        }
        Ok(())
    }

    /// To be called after the texture was drawn, and before `glFlush`: [`Import::take_fence`] will
    /// tell when that is done.
    pub fn drew(&mut self) -> Result<(), ImportError> {
        let driver = &self.importer.driver;
        if !self.importer.extensions.native_fence {
            return Ok(());
        }
        let context = driver.current().ok_or(ImportError::NoContext)?;
        let sync = driver.native_fence(context)?;
        if let Some(older) = self.drawn.replace(sync) {
            driver.destroy_sync(older);
        }
        Ok(())
    }

    /// A fence of the kernel (`sync_file`) that fires when what [`Import::drew`] spoke of is done;
    /// to be called after `glFlush`. `None` where the display has none.
    pub fn take_fence(&mut self) -> Result<Option<OwnedFd>, ImportError> {
        let driver = &self.importer.driver;
        let Some(sync) = self.drawn.take() else { return Ok(None) };
        let fence = driver.fence_of_sync(&sync);
        driver.destroy_sync(sync);
        Ok(Some(fence?))
    }

    /// Ends the import, whichever context is current, or none.
    pub fn release(mut self) -> Result<(), ReleaseError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), ReleaseError> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let importer = Arc::clone(&self.importer);
        let driver = &importer.driver;
        importer.alive.fetch_sub(1, Ordering::Relaxed);
        importer.converted.fetch_sub(usize::from(self.conversion.is_some()), Ordering::Relaxed);
        if let Some(sync) = self.drawn.take() {
            driver.destroy_sync(sync);
        }
        if let Some(conversion) = self.conversion.take() {
            importer.end_conversion(&conversion);
            importer.end_converter();
        }
        importer.delete(&self.texture).map_err(|error| {
            lock(&importer.orphans).push(self.texture);
            ReleaseError { texture: self.texture.name, error }
        })
    }
}

impl<D: Driver> Drop for Import<D> {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_software_renderer(name: &str) -> bool {
    ["llvmpipe", "softpipe", "swrast", "SwiftShader", "Software Rasterizer"]
        .iter()
        .any(|software| name.contains(software))
}

/// Why a buffer was not imported.
#[derive(Debug)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ImportError {
    NoContext,
    NoImport,
    NoTexturesOfImages,
    ReadsThroughDevice,
    Unsupported(Unsupported),
    Buffer(BufferError),
    TooLarge {
        width: u32,
        height: u32,
        most: u32,
    },
    Image {
        error: EglError,
        stride: u32,
    },
    Egl(EglError),
    Gl(GlError),
    Convert(ConvertError),
    /// Another buffer of the kind was refused.
    Refused(String),
}

impl ImportError {
    /// The error, and what it is about, unless that is any buffer.
    pub fn of(&self, buffer: &Buffer<'_>) -> String {
        match self {
            Self::NoImport | Self::NoTexturesOfImages | Self::ReadsThroughDevice => {
                self.to_string()
            }
            _ => format!("{buffer}: {self}"),
        }
    }

    fn is_loss(&self) -> bool {
        matches!(self, Self::Convert(error) if error.is_loss())
    }
}

macro_rules! from {
    ($($error:ident => $variant:ident),*) => {
        $(impl From<$error> for ImportError {
            fn from(error: $error) -> Self {
                Self::$variant(error)
            }
        })*
    };
}

from! {
    Unsupported => Unsupported,
    BufferError => Buffer,
    EglError => Egl,
    GlError => Gl,
    ConvertError => Convert
}

impl std::error::Error for ImportError {}

impl fmt::Display for ImportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoContext => f.write_str("no context of the EGL display is current"),
            Self::NoImport => {
                f.write_str("EGL cannot import dma-bufs: no EGL_EXT_image_dma_buf_import")
            }
            Self::NoTexturesOfImages => {
                f.write_str("GL cannot make textures of dma-bufs: no GL_OES_EGL_image, nor GL_EXT_EGL_image_storage")
            }
            Self::ReadsThroughDevice => {
                f.write_str("EGL draws with the CPU on a DRM device that is no GPU, and cannot read what others export")
            }
            Self::Unsupported(error) => error.fmt(f),
            Self::Buffer(error) => error.fmt(f),
            Self::TooLarge { width, height, most } => {
                write!(f, "{width}x{height} is more than the {most}x{most} of a texture")
            }
            Self::Image { error, stride } => write!(f, "{error} (stride {stride})"),
            Self::Egl(error) => error.fmt(f),
            Self::Gl(error) => error.fmt(f),
            Self::Refused(why) => f.write_str(why),
            Self::Convert(error) => write!(f, "the picture needs a conversion, but {error}"),
        }
    }
}

/// A texture could not be deleted here: [`Importer::sweep`] will, or it goes with its context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReleaseError {
    texture: u32,
    error: EglError,
}

impl std::error::Error for ReleaseError {}

impl fmt::Display for ReleaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "texture {} stays: {}", self.texture, self.error)
    }
}
