//! Pictures read back from textures into memory, without waiting for the GPU.
//!
//! The host draws each picture into a texture that it is given, and says so. If the picture is new
//! for sure, it is copied into a buffer that the CPU can map; if it may be the same as before, the
//! GPU compares the two, and copies only if they differ. What is in the way of the result is a
//! fence, not the main loop. There are two textures, which take turns: one has what was read last,
//! the other is drawn to. One of these works is under way at a time; what is drawn meanwhile is
//! processed afterwards, once, however often that was.

#![forbid(unsafe_code)]

use std::ffi::CStr;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::driver::{
    Comparer, Context, Driver, EglError, EglErrorCode, EglSync, GlError, Shading, Target,
};
use super::import::Importer;

/// Shaders of one language: its first line, and the same text for all.
macro_rules! shaders {
    ($version:literal) => {
        [
            concat!(
                $version,
                "void main() {\n",
                "    vec2 at = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1));\n",
                "    gl_Position = vec4(at * 2.0 - 1.0, 0.0, 1.0);\n",
                "}\n\0"
            ),
            concat!(
                $version,
                "uniform sampler2D before;\n",
                "uniform sampler2D now;\n",
                "out vec4 pixel;\n",
                "void main() {\n",
                "    ivec2 at = ivec2(gl_FragCoord.xy);\n",
                "    if (texelFetch(before, at, 0).rgb == texelFetch(now, at, 0).rgb) {\n",
                "        discard;\n",
                "    }\n",
                "    pixel = vec4(1.0);\n",
                "}\n\0"
            ),
        ]
    };
}

const GL_SHADERS: [&str; 2] = shaders!("#version 330\n");
const GLES_SHADERS: [&str; 2] = shaders!(
    "#version 300 es\nprecision highp float;\nprecision highp int;\nprecision highp sampler2D;\n"
);

/// Bytes of a pixel, as it is read.
const PIXEL_BYTES: usize = 4;

/// Reads back what is drawn to its textures, in one context at a time.
///
/// Its textures end when it is dropped, wherever that is.
#[derive(Debug)]
pub struct ReadBack<D: Driver> {
    importer: Arc<Importer<D>>,
    objects: Option<Objects>,
    work: Option<Work>,
    /// Whether the host has the picture that was read last.
    delivered: bool,
    /// What was drawn since the work began.
    drawn: Option<Drawn>,
    /// A context that could not: it is not asked again.
    refused: Option<Context>,
}

/// What is known of a picture that was drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Drawn {
    /// It may be the same as the one before.
    Perhaps,
    /// It is another one, for instance because the guest flipped.
    Anew,
}

/// What [`ReadBack::take`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Nothing that the host has not: it is up to date, or did not draw.
    Nothing,
    /// A picture was handed out.
    Picture,
}

/// What belongs to one context, for one size.
#[derive(Debug)]
struct Objects {
    context: Context,
    targets: [Target; 2],
    /// Which of them has what was read last; the other one is drawn to.
    last: usize,
    label: u64,
    buffer: u32,
    comparer: Comparer,
}

#[derive(Debug)]
struct Work {
    kind: Kind,
    /// Fires when it is done. `None`: there is no telling, but to wait.
    sync: Option<EglSync>,
    /// The same, as a file.
    fence: Option<OwnedFd>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Compare,
    Read,
}

impl Objects {
    fn size(&self) -> (u32, u32) {
        (self.targets[0].width, self.targets[0].height)
    }

    fn bytes(&self) -> usize {
        bytes_of(self.size())
    }

    fn drawn(&self) -> Target {
        self.targets[1 - self.last]
    }
}

/// Sizes are below those of textures, which GL checked before they come here.
fn bytes_of((width, height): (u32, u32)) -> usize {
    (width as usize).saturating_mul(height as usize).saturating_mul(PIXEL_BYTES)
}

impl<D: Driver> ReadBack<D> {
    /// Nothing is made before the first picture.
    pub fn new(importer: Arc<Importer<D>>) -> Self {
        Self { importer, objects: None, work: None, delivered: false, drawn: None, refused: None }
    }

    /// The texture to draw the next picture to, in the current context, with its first row at
    /// coordinate 0.
    ///
    /// `None`: this context cannot read back without waiting.
    pub fn target(&mut self, width: u32, height: u32) -> Result<Option<u32>, ReadBackError> {
        let importer = Arc::clone(&self.importer);
        let Some(context) = importer.driver.current() else { return Ok(None) };
        let fits = |objects: &Objects| {
            objects.context == context
                && objects.size() == (width, height)
                && has(&importer.driver, objects)
        };
        if !self.objects.as_ref().is_some_and(fits) {
            if self.refused == Some(context) {
                return Ok(None);
            }
            self.end();
            match self.make(context, width, height) {
                Ok(Some(objects)) => self.objects = Some(objects),
                Ok(None) => {
                    self.refused = Some(context);
                    return Ok(None);
                }
                Err(error) => {
                    self.refused = Some(context);
                    return Err(error);
                }
            }
        }
        Ok(self.objects.as_ref().map(|objects| objects.drawn().texture))
    }

    fn make(
        &self,
        context: Context,
        width: u32,
        height: u32,
    ) -> Result<Option<Objects>, ReadBackError> {
        let driver = &self.importer.driver;
        if !self.importer.extensions.fence {
            return Ok(None);
        }
        let Some(shading) = driver.reads_back(context) else { return Ok(None) };
        let most = driver.max_texture_side(context);
        if width == 0 || height == 0 || width > most || height > most {
            return Err(ReadBackError::Size { width, height, most });
        }
        let [vertex, fragment] = match shading {
            Shading::Gl => GL_SHADERS,
            Shading::Gles => GLES_SHADERS,
        }
        .map(|text| CStr::from_bytes_with_nul(text.as_bytes()).unwrap_or_default());
        let program = driver.program(context, vertex, fragment).map_err(ReadBackError::Program)?;
        let comparer = driver.comparer(context, program, width, height)?;
        let mut targets = Vec::with_capacity(2);
        let made = (0..2)
            .try_for_each(|_| {
                targets.push(driver.target(context, width, height)?);
                Ok(())
            })
            .and_then(|()| driver.pixel_buffer(context, bytes_of((width, height))));
        match (made, targets.as_slice()) {
            (Ok(buffer), &[first, second]) => {
                let label = self.importer.next_label.fetch_add(1, Ordering::Relaxed);
                driver.label_texture(context, first.texture, label);
                let targets = [first, second];
                Ok(Some(Objects { context, targets, last: 0, label, buffer, comparer }))
            }
            (made, targets) => {
                for target in targets {
                    driver.delete_target(context, *target);
                }
                driver.delete_comparer(context, comparer);
                made.map_err(ReadBackError::from).map(|_| None)
            }
        }
    }

    /// The host has drawn a picture to [`ReadBack::target`], in the context that is current now.
    pub fn start(&mut self, drawn: Drawn) -> Result<(), ReadBackError> {
        self.drawn = self.drawn.max(Some(drawn));
        if self.work.is_some() {
            return Ok(());
        }
        let Some(context) = self.importer.driver.current() else {
            return Err(ReadBackError::NoContext);
        };
        let begun = self.go_on(context);
        self.checked(begun)
    }

    /// Begins with what was drawn since the last time, if anything was.
    fn go_on(&mut self, context: Context) -> Result<(), ReadBackError> {
        let (Some(drawn), Some(objects)) = (self.drawn.take(), &mut self.objects) else {
            return Ok(());
        };
        if objects.context != context {
            return Err(ReadBackError::NoContext);
        }
        let driver = &self.importer.driver;
        let kind = if drawn == Drawn::Anew || !self.delivered {
            driver.start_reading(context, objects.drawn(), objects.buffer)?;
            objects.last = 1 - objects.last;
            Kind::Read
        } else {
            let [before, now] = [objects.targets[objects.last], objects.drawn()];
            driver.start_comparing(context, objects.comparer, before, now)?;
            Kind::Compare
        };
        let native = self.importer.extensions.native_fence;
        let sync = if native { driver.native_fence(context) } else { driver.fence(context) }.ok();
        driver.flush(context);
        let fence = sync.as_ref().filter(|_| native).and_then(|s| driver.fence_of_sync(s).ok());
        self.work = Some(Work { kind, sync, fence });
        Ok(())
    }

    /// What it reads with.
    pub fn importer(&self) -> &Importer<D> {
        &self.importer
    }

    /// Whether there is something that [`ReadBack::take`] will be able to take.
    pub fn is_busy(&self) -> bool {
        self.work.is_some()
    }

    /// Can be read when it is time for [`ReadBack::take`]. `None` while nothing is under way, and
    /// where there are no native fences: then try again and again.
    pub fn fence(&self) -> Option<BorrowedFd<'_>> {
        self.work.as_ref()?.fence.as_ref().map(AsFd::as_fd)
    }

    /// Pixels in a row, and rows, of what is read back.
    pub fn size(&self) -> Option<(u32, u32)> {
        self.objects.as_ref().map(Objects::size)
    }

    /// Hands out the picture that was read, if it is there; then begins with what was drawn
    /// meanwhile. Whichever context is current, or none.
    ///
    /// `wait`: until all that was drawn is read. The last picture counts, if there are several.
    pub fn take(
        &mut self,
        wait: bool,
        body: &mut dyn FnMut(&[u8]),
    ) -> Result<Taken, ReadBackError> {
        let mut taken = Taken::Nothing;
        while self.work.is_some() && (wait || self.is_done()) {
            let Some(context) = self.objects.as_ref().map(|objects| objects.context) else { break };
            let importer = Arc::clone(&self.importer);
            let mut result = Ok(Taken::Nothing);
            let visited = importer.driver.visit(context, &mut |context| {
                result = self.finish(context, body);
            });
            let result = visited.map_err(ReadBackError::Egl).and(result);
            match self.checked(result)? {
                Taken::Nothing => {}
                Taken::Picture => taken = Taken::Picture,
            }
        }
        Ok(taken)
    }

    fn is_done(&self) -> bool {
        let Some(work) = &self.work else { return false };
        match (&work.fence, &work.sync) {
            (Some(fence), _) => super::fence::has_fired(fence.as_fd()),
            // Without an answer, wait.
            (None, Some(sync)) => self.importer.driver.has_fired(sync).unwrap_or(true),
            (None, None) => true,
        }
    }

    /// Ends the work under way, and begins with what comes after it.
    fn finish(
        &mut self,
        context: Context,
        body: &mut dyn FnMut(&[u8]),
    ) -> Result<Taken, ReadBackError> {
        let Some(kind) = self.drop_work() else { return Ok(Taken::Nothing) };
        let importer = Arc::clone(&self.importer);
        let Some(objects) = self.objects.as_ref().filter(|o| has(&importer.driver, o)) else {
            return Err(ReadBackError::ContextGone);
        };
        let mut taken = Taken::Nothing;
        match kind {
            Kind::Read => {
                importer.driver.pixels(context, objects.buffer, objects.bytes(), body)?;
                importer.read_back.fetch_add(1, Ordering::Relaxed);
                self.delivered = true;
                taken = Taken::Picture;
            }
            Kind::Compare if importer.driver.differ(context, objects.comparer) => {
                self.drawn = Some(Drawn::Anew);
            }
            Kind::Compare => {
                importer.unchanged.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.go_on(context)?;
        Ok(taken)
    }

    /// What the host has is not what was read last any more, for instance because its memory is
    /// another one. What is under way is of no use to it.
    pub fn forget(&mut self) {
        self.drop_work();
        self.drawn = None;
        self.delivered = false;
    }

    fn drop_work(&mut self) -> Option<Kind> {
        let work = self.work.take()?;
        if let Some(sync) = work.sync {
            self.importer.driver.destroy_sync(sync);
        }
        Some(work.kind)
    }

    /// After a failure nothing is as it was: the host reads back by itself, unless the context is
    /// just another one now.
    fn checked<T>(&mut self, result: Result<T, ReadBackError>) -> Result<T, ReadBackError> {
        if let Err(error) = &result {
            if !error.is_change_of_context() {
                self.refused = self.objects.as_ref().map(|objects| objects.context);
            }
            self.end();
        }
        result
    }

    fn end(&mut self) {
        self.forget();
        let Some(objects) = self.objects.take() else { return };
        let driver = &self.importer.driver;
        // If the context is gone, so are its objects.
        let _ = driver.visit(objects.context, &mut |context| {
            // Not if another context has come to live where ours was.
            if has(driver, &objects) {
                for target in objects.targets {
                    driver.delete_target(context, target);
                }
                driver.delete_pixel_buffer(context, objects.buffer);
                driver.delete_comparer(context, objects.comparer);
            }
        });
    }
}

/// Whether the current context, which is where the objects were made or has come to live there, has
/// them.
fn has(driver: &impl Driver, objects: &Objects) -> bool {
    let texture = objects.targets[0].texture;
    driver.has_texture(objects.context, texture, objects.label).unwrap_or(true)
}

impl<D: Driver> Drop for ReadBack<D> {
    fn drop(&mut self) {
        self.end();
    }
}

/// Why a picture is not read back.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ReadBackError {
    NoContext,
    ContextGone,
    Size { width: u32, height: u32, most: u32 },
    Egl(EglError),
    Gl(GlError),
    Program(String),
}

impl ReadBackError {
    fn is_change_of_context(&self) -> bool {
        match self {
            Self::NoContext | Self::ContextGone => true,
            Self::Egl(error) => error.code == EglErrorCode::BadContext,
            _ => false,
        }
    }
}

impl From<EglError> for ReadBackError {
    fn from(error: EglError) -> Self {
        Self::Egl(error)
    }
}

impl From<GlError> for ReadBackError {
    fn from(error: GlError) -> Self {
        Self::Gl(error)
    }
}

impl std::error::Error for ReadBackError {}

impl fmt::Display for ReadBackError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoContext => {
                f.write_str("the context that the picture was drawn in is not current")
            }
            Self::ContextGone => f.write_str("the context that the picture was drawn in is lost"),
            Self::Size { width, height, most } => {
                write!(f, "{width}x{height} is not within 1x1 and the {most}x{most} of a texture")
            }
            Self::Egl(error) => error.fmt(f),
            Self::Gl(error) => error.fmt(f),
            Self::Program(log) => write!(f, "the shader is refused: {log}"),
        }
    }
}
