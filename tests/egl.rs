//! dma-bufs as textures, on Mesa's software renderer without any window system: the real EGL and GL, on any machine.
//!
//! Needs a Mesa whose llvmpipe imports dma-bufs (24 or newer). Where it is missing or too old, the tests fail and say so.

#![cfg(feature = "egl")]

use std::ffi::c_void;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use drm_fourcc::{DrmFourcc, DrmModifier};
use glow::HasContext;
use khronos_egl as egl;
use rustix::fs::{MemfdFlags, SealFlags};

use vfio_display::egl::{Buffer, BufferPlane, ColorSpace, Display, Import, Importer, Usable};
use vfio_display::format::Format;

const EGL_PLATFORM_SURFACELESS_MESA: egl::Enum = 0x31DD;
const LINEAR: DrmModifier = DrmModifier::Linear;

type Egl = egl::DynamicInstance<egl::EGL1_5>;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Api {
    Gl,
    Gles,
}

/// A host like QEMU: a display, a context that is current, and an importer.
struct Host {
    egl: Egl,
    display: egl::Display,
    config: egl::Config,
    api: Api,
    context: egl::Context,
    gl: glow::Context,
    importer: Arc<Importer<Display>>,
}

impl Host {
    fn new(api: Api) -> Self {
        // SAFETY: libEGL is loaded as any program would load it.
        let egl = unsafe { Egl::load_required() }.expect("libEGL.so.1 (Debian: libegl1)");
        // SAFETY: the platform has one display, of no native type.
        let display = unsafe {
            egl.get_platform_display(
                EGL_PLATFORM_SURFACELESS_MESA,
                egl::DEFAULT_DISPLAY,
                &[egl::ATTRIB_NONE],
            )
        }
        .expect("Mesa's surfaceless platform (Debian: libegl-mesa0, libgl1-mesa-dri)");
        egl.initialize(display).expect("eglInitialize");
        let extensions = egl.query_string(Some(display), egl::EXTENSIONS).unwrap();
        let extensions = extensions.to_string_lossy().into_owned();
        assert!(
            extensions.contains("EGL_EXT_image_dma_buf_import_modifiers"),
            "these tests need a Mesa whose software renderer imports dma-bufs: 24 or newer (Debian 12: suite \
             bookworm-backports, packages libegl-mesa0, libgl1-mesa-dri and libgbm1); this one has only {extensions}"
        );
        let (renderable, bind) = match api {
            Api::Gl => (egl::OPENGL_BIT, egl::OPENGL_API),
            Api::Gles => (egl::OPENGL_ES2_BIT, egl::OPENGL_ES_API),
        };
        egl.bind_api(bind).unwrap();
        let wanted =
            [egl::SURFACE_TYPE, egl::PBUFFER_BIT, egl::RENDERABLE_TYPE, renderable, egl::NONE];
        let config = egl.choose_first_config(display, &wanted).unwrap().expect("a config");
        let context = create_context(&egl, display, config, api, None);
        egl.make_current(display, None, None, Some(context)).unwrap();
        // SAFETY: the names are those of GL's functions, the context is current.
        let gl = unsafe {
            glow::Context::from_loader_function(|name| {
                egl.get_proc_address(name).map_or(std::ptr::null(), |f| f as *const c_void)
            })
        };
        // SAFETY: the display is initialised, and never terminated.
        let driver = unsafe { Display::new(display.as_ptr()) }.unwrap();
        let importer = Arc::new(Importer::new(driver).unwrap());
        Self { egl, display, config, api, context, gl, importer }
    }

    fn make_current(&self, context: Option<egl::Context>) {
        self.egl.make_current(self.display, None, None, context).unwrap();
    }

    fn context(&self, share: Option<egl::Context>) -> egl::Context {
        create_context(&self.egl, self.display, self.config, self.api, share)
    }

    fn import(&self, picture: &Picture) -> Import<Display> {
        let import = picture.with_buffer(|buffer| self.importer.import(&buffer)).unwrap();
        self.assert_no_error();
        import
    }

    /// The pixels of a texture, as 0xRRGGBB, row by row.
    fn read(&self, texture: u32, width: u32, height: u32) -> Vec<u32> {
        let gl = &self.gl;
        let texture = glow::NativeTexture(texture.try_into().expect("a texture"));
        let mut bytes = vec![0; (width * height * 4) as usize];
        // SAFETY: the context is current, and there is room for the pixels.
        unsafe {
            let framebuffer = gl.create_framebuffer().unwrap();
            gl.bind_framebuffer(glow::FRAMEBUFFER, Some(framebuffer));
            gl.framebuffer_texture_2d(
                glow::FRAMEBUFFER,
                glow::COLOR_ATTACHMENT0,
                glow::TEXTURE_2D,
                Some(texture),
                0,
            );
            assert_eq!(gl.check_framebuffer_status(glow::FRAMEBUFFER), glow::FRAMEBUFFER_COMPLETE);
            gl.read_pixels(
                0,
                0,
                i32::try_from(width).unwrap(),
                i32::try_from(height).unwrap(),
                glow::RGBA,
                glow::UNSIGNED_BYTE,
                glow::PixelPackData::Slice(Some(&mut bytes)),
            );
            gl.bind_framebuffer(glow::FRAMEBUFFER, None);
            gl.delete_framebuffer(framebuffer);
        }
        self.assert_no_error();
        let pixel = |p: &[u8]| u32::from_be_bytes([0, p[0], p[1], p[2]]);
        bytes.chunks_exact(4).map(pixel).collect()
    }

    fn assert_no_error(&self) {
        // SAFETY: the context is current.
        assert_eq!(
            unsafe { self.gl.get_error() },
            glow::NO_ERROR,
            "an error is left in GL's queue"
        );
        assert_eq!(self.egl.get_error(), None, "an error is left in EGL's slot");
    }

    fn has_texture(&self, name: u32) -> bool {
        // SAFETY: the context is current.
        unsafe { self.gl.is_texture(glow::NativeTexture(name.try_into().unwrap())) }
    }

    fn status(&self, what: &str) -> u64 {
        self.importer.status()[what].as_u64().unwrap()
    }
}

fn create_context(
    egl: &Egl,
    display: egl::Display,
    config: egl::Config,
    api: Api,
    share: Option<egl::Context>,
) -> egl::Context {
    let attributes: &[egl::Int] = match api {
        Api::Gl => {
            &[egl::CONTEXT_OPENGL_PROFILE_MASK, egl::CONTEXT_OPENGL_CORE_PROFILE_BIT, egl::NONE]
        }
        // As QEMU asks for it.
        Api::Gles => &[egl::CONTEXT_CLIENT_VERSION, 2, egl::NONE],
    };
    egl.create_context(display, config, share, attributes).unwrap()
}

/// A picture in a file that stands for a dma-buf.
struct Picture {
    file: File,
    format: Format,
    width: u32,
    height: u32,
    /// Offset and stride of each plane.
    planes: Vec<(u32, u32)>,
    color_space: ColorSpace,
    full_range: bool,
}

impl Picture {
    fn new(
        fourcc: DrmFourcc,
        width: u32,
        height: u32,
        planes: &[(u32, u32)],
        bytes: &[u8],
    ) -> Self {
        Self {
            file: sealed(bytes),
            format: Format { fourcc, modifier: LINEAR },
            width,
            height,
            planes: planes.to_vec(),
            color_space: ColorSpace::Rec601,
            full_range: false,
        }
    }

    /// XRGB8888, without padding.
    fn of_pixels(width: u32, height: u32, pixel: impl Fn(u32, u32) -> u32) -> Self {
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let bytes: Vec<u8> = pixels.flat_map(|(x, y)| pixel(x, y).to_le_bytes()).collect();
        Self::new(DrmFourcc::Xrgb8888, width, height, &[(0, width * 4)], &bytes)
    }

    fn with_buffer<R>(&self, body: impl FnOnce(Buffer<'_>) -> R) -> R {
        let fd: BorrowedFd<'_> = self.file.as_fd();
        let planes: Vec<_> = self
            .planes
            .iter()
            .map(|&(offset, stride)| BufferPlane { fd, offset, stride })
            .collect();
        body(Buffer {
            format: self.format,
            width: self.width,
            height: self.height,
            planes: &planes,
            color_space: self.color_space,
            full_range: self.full_range,
        })
    }
}

fn memfd(bytes: &[u8]) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("picture", flags).unwrap());
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn sealed(bytes: &[u8]) -> File {
    let file = memfd(bytes);
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    file
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn gradient(x: u32, y: u32) -> u32 {
    (x * 7 % 256) << 16 | (y * 5 % 256) << 8 | ((x + y) % 256)
}

#[test]
fn a_texture_shows_the_pixels_and_what_is_drawn_later() {
    for api in [Api::Gl, Api::Gles] {
        let host = Host::new(api);
        let picture = Picture::of_pixels(61, 37, gradient);
        let import = host.import(&picture);
        assert!(!import.is_converted());
        let expected: Vec<u32> =
            (0..37).flat_map(|y| (0..61).map(move |x| gradient(x, y))).collect();
        assert_eq!(host.read(import.texture(), 61, 37), expected, "{api:?}");

        picture.file.write_all_at(&0x00ab_cdef_u32.to_le_bytes(), 4).unwrap();
        assert_eq!(import.begin().unwrap(), Usable::Yes);
        assert_eq!(host.read(import.texture(), 61, 37)[1], 0x00ab_cdef);

        let texture = import.texture();
        import.release().unwrap();
        assert!(!host.has_texture(texture));
        host.assert_no_error();
        assert_eq!(host.status("imports"), 0);
    }
}
