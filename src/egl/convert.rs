//! Pictures that no plain texture can show: YUV, and what a driver takes as an external texture
//! only.
//!
//! A context of our own samples the dma-buf through an external texture, and draws it to an RGBA
//! texture, which the host's context sees through an image. So neither the host's state nor its
//! kind of GL (external textures are OpenGL ES only) matters. What results is a copy: it is drawn
//! again before each use.

#![forbid(unsafe_code)]

use std::fmt;

use super::driver::{Context, Driver, EglError, EglErrorCode, Extensions, GlError, Image, Target};

const VERTEX: &std::ffi::CStr = c"#version 300 es
out highp vec2 at;
void main() {
    at = vec2(float(gl_VertexID & 1), float(gl_VertexID >> 1));
    gl_Position = vec4(at * 2.0 - 1.0, 0.0, 1.0);
}
";

const FRAGMENT: &std::ffi::CStr = c"#version 300 es
#extension GL_OES_EGL_image_external_essl3 : require
uniform highp samplerExternalOES picture;
in highp vec2 at;
out highp vec4 pixel;
void main() {
    pixel = texture(picture, at);
}
";

/// Draws conversions, for one display.
#[derive(Debug)]
pub struct Converter {
    context: Context,
    program: u32,
}

/// One picture that is drawn again before each use.
#[derive(Debug)]
pub struct Conversion {
    /// The context that has the objects.
    context: Context,
    source: u32,
    target: Target,
}

impl Converter {
    /// Makes a context, and compiles the program.
    pub fn new(driver: &impl Driver, extensions: Extensions) -> Result<Self, ConvertError> {
        let needed = [
            (extensions.configless, "EGL_KHR_no_config_context"),
            (extensions.surfaceless, "EGL_KHR_surfaceless_context"),
            (extensions.texture_image, "EGL_KHR_gl_texture_2D_image"),
        ];
        if let Some((_, name)) = needed.iter().find(|(has, _)| !has) {
            return Err(ConvertError::Extension(name));
        }
        let context = driver.create_context()?;
        let mut program = Err(String::new());
        let visited = driver.visit(context, &mut |context| {
            program = driver.program(context, VERTEX, FRAGMENT);
        });
        match visited.map_err(ConvertError::Egl).and(program.map_err(ConvertError::Program)) {
            Ok(program) => Ok(Self { context, program }),
            Err(error) => {
                driver.destroy_context(context);
                Err(error)
            }
        }
    }

    /// Prepares the conversion of a dma-buf's image. The result is an image of the RGBA texture
    /// that [`Converter::draw`] draws to.
    pub fn convert(
        &self,
        driver: &impl Driver,
        image: Image,
        (width, height): (u32, u32),
    ) -> Result<(Conversion, Image), ConvertError> {
        let mut result = Err(ConvertError::Program(String::new()));
        let visited = driver.visit(self.context, &mut |context| {
            result = prepare(driver, context, image, width, height);
        });
        match (visited, result) {
            (Ok(()), result) => result,
            (Err(error), Ok((conversion, image))) => {
                driver.destroy_image(image);
                self.end(driver, &conversion);
                Err(error.into())
            }
            (Err(error), Err(_)) => Err(error.into()),
        }
    }

    /// Draws what the dma-buf shows now. What the host's context draws afterwards shows it.
    pub fn draw(
        &self,
        driver: &impl Driver,
        extensions: Extensions,
        conversion: &Conversion,
    ) -> Result<(), ConvertError> {
        let mut drawn = Ok(());
        let mut done = None;
        let visited = driver.visit(self.context, &mut |context| {
            drawn = driver.draw(context, self.program, conversion.source, conversion.target);
            if extensions.fence && extensions.wait {
                done = driver.fence(context).ok();
            }
        });
        if let Some(sync) = done {
            if let Some(context) = driver.current().filter(|_| visited.is_ok()) {
                driver.wait(context, &sync).ok();
            }
            driver.destroy_sync(sync);
        }
        visited?;
        Ok(drawn?)
    }

    /// Whether a conversion was made here.
    pub fn has_made(&self, conversion: &Conversion) -> bool {
        self.context == conversion.context
    }

    /// Ends a conversion.
    pub fn end(&self, driver: &impl Driver, conversion: &Conversion) {
        // If the context is lost, so are its objects.
        let _ = driver.visit(self.context, &mut |context| {
            driver.delete_texture(context, conversion.source);
            driver.delete_target(context, conversion.target);
        });
    }

    /// Ends all: the objects go with their context.
    pub fn free(self, driver: &impl Driver) {
        driver.destroy_context(self.context);
    }
}

fn prepare(
    driver: &impl Driver,
    context: Context,
    image: Image,
    width: u32,
    height: u32,
) -> Result<(Conversion, Image), ConvertError> {
    let source = driver.external_texture(context, image)?;
    let target = driver.target(context, width, height).inspect_err(|_| {
        driver.delete_texture(context, source);
    })?;
    let image = driver.image_of_texture(context, target.texture).inspect_err(|_| {
        driver.delete_texture(context, source);
        driver.delete_target(context, target);
    })?;
    Ok((Conversion { context, source, target }, image))
}

/// Why a picture cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ConvertError {
    Extension(&'static str),
    Egl(EglError),
    Gl(GlError),
    Program(String),
    ContextGone,
}

impl ConvertError {
    /// Whether it was lost where it was made: another attempt makes it anew.
    pub fn is_loss(&self) -> bool {
        const LOST: u32 = 0x0507;
        match self {
            Self::ContextGone => true,
            Self::Egl(error) => {
                matches!(error.code, EglErrorCode::ContextLost | EglErrorCode::BadContext)
            }
            Self::Gl(error) => error.code == LOST,
            _ => false,
        }
    }
}

impl From<EglError> for ConvertError {
    fn from(error: EglError) -> Self {
        Self::Egl(error)
    }
}

impl From<GlError> for ConvertError {
    fn from(error: GlError) -> Self {
        Self::Gl(error)
    }
}

impl std::error::Error for ConvertError {}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Extension(name) => write!(f, "the display lacks {name}"),
            Self::Egl(error) => error.fmt(f),
            Self::Gl(error) => error.fmt(f),
            Self::Program(log) => write!(f, "the shader is refused: {log}"),
            Self::ContextGone => f.write_str("the context that it was made in is lost"),
        }
    }
}
