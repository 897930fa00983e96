//! dma-bufs as textures, on Mesa's software renderer without any window system: the real EGL and
//! GL, on any machine.
//!
//! Needs a Mesa whose llvmpipe imports dma-bufs (24 or newer). Where it is missing or too old, the
//! tests fail and say so.

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

use vfio_display::egl::{
    Buffer, BufferPlane, ColorSpace, Display, Drawn, Import, Importer, ReadBack, Taken, Usable,
};
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
        let importer = Arc::new(Importer::new(driver));
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

    /// Returns the pixels of a texture, as 0xRRGGBB, row by row.
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
        let left = unsafe { self.gl.get_error() };
        assert_eq!(left, glow::NO_ERROR, "an error is left in GL's queue");
        assert_eq!(self.egl.get_error(), None, "an error is left in EGL's slot");
    }

    /// Checks that all imports and read-backs have ended.
    fn assert_nothing_left(&self) {
        assert!((1..100).all(|name| !self.has_texture(name)), "a texture is left");
        self.assert_no_error();
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
            file: sealed("picture", bytes),
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

fn memfd(name: &str, bytes: &[u8]) -> File {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create(name, flags).unwrap());
    file.write_all_at(bytes, 0).unwrap();
    file
}

fn sealed(name: &str, bytes: &[u8]) -> File {
    let file = memfd(name, bytes);
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    file
}

/// Returns how many memfds with this name the process has open; other tests run in it, too.
fn open_descriptors(name: &str) -> usize {
    let prefix = format!("/memfd:{name} ");
    let is_named = |link: std::path::PathBuf| link.to_string_lossy().starts_with(&prefix);
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries.filter(|e| std::fs::read_link(e.as_ref().unwrap().path()).is_ok_and(is_named)).count()
}

fn gradient(x: u32, y: u32) -> u32 {
    ((x * 7 % 256) << 16) | ((y * 5 % 256) << 8) | ((x + y) % 256)
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

#[test]
fn every_rgb_format_shows_its_colours() {
    // One white, red, green and blue pixel each, as drm_fourcc.h defines the format.
    let formats: [(DrmFourcc, usize, [u64; 4]); 12] = [
        (DrmFourcc::Xrgb8888, 4, [0x00ff_ffff, 0x00ff_0000, 0x0000_ff00, 0x0000_00ff]),
        (DrmFourcc::Argb8888, 4, [0xffff_ffff, 0xffff_0000, 0xff00_ff00, 0xff00_00ff]),
        (DrmFourcc::Xbgr8888, 4, [0x00ff_ffff, 0x0000_00ff, 0x0000_ff00, 0x00ff_0000]),
        (DrmFourcc::Abgr8888, 4, [0xffff_ffff, 0xff00_00ff, 0xff00_ff00, 0xffff_0000]),
        (DrmFourcc::Xrgb2101010, 4, [0x3fff_ffff, 0x3ff0_0000, 0x000f_fc00, 0x0000_03ff]),
        (DrmFourcc::Argb2101010, 4, [0xffff_ffff, 0xfff0_0000, 0xc00f_fc00, 0xc000_03ff]),
        (DrmFourcc::Xbgr2101010, 4, [0x3fff_ffff, 0x0000_03ff, 0x000f_fc00, 0x3ff0_0000]),
        (DrmFourcc::Abgr2101010, 4, [0xffff_ffff, 0xc000_03ff, 0xc00f_fc00, 0xfff0_0000]),
        (DrmFourcc::Rgb565, 2, [0xffff, 0xf800, 0x07e0, 0x001f]),
        (DrmFourcc::Argb1555, 2, [0xffff, 0xfc00, 0x83e0, 0x801f]),
        (DrmFourcc::Argb4444, 2, [0xffff, 0xff00, 0xf0f0, 0xf00f]),
        (
            DrmFourcc::Abgr16161616f,
            8,
            [
                0x3c00_3c00_3c00_3c00,
                0x3c00_0000_0000_3c00,
                0x3c00_0000_3c00_0000,
                0x3c00_3c00_0000_0000,
            ],
        ),
    ];
    let host = Host::new(Api::Gl);
    for (fourcc, bytes, pixels) in formats {
        let row: Vec<u8> = pixels.iter().flat_map(|p| p.to_le_bytes()[..bytes].to_vec()).collect();
        let stride = u32::try_from(row.len()).unwrap();
        let picture = Picture::new(fourcc, 4, 1, &[(0, stride)], &row);
        let import = host.import(&picture);
        assert_eq!(
            host.read(import.texture(), 4, 1),
            [0x00ff_ffff, 0x00ff_0000, 0x0000_ff00, 0x0000_00ff],
            "{fourcc}"
        );
    }
}

/// BT.601 in narrow range: luminance and chrominance of white, black, red, green and blue.
const COLORS: [(u32, [u8; 3]); 5] = [
    (0x00ff_ffff, [235, 128, 128]),
    (0x0000_0000, [16, 128, 128]),
    (0x00ff_0000, [81, 90, 240]),
    (0x0000_ff00, [145, 54, 34]),
    (0x0000_00ff, [41, 240, 110]),
];

fn assert_near(got: &[u32], expected: u32, what: &str) {
    for &pixel in got {
        let off = |shift: u32| ((pixel >> shift) & 0xff).abs_diff((expected >> shift) & 0xff);
        assert!(
            [0, 8, 16].into_iter().all(|shift| off(shift) <= 3),
            "{what}: 0x{pixel:06x} is not 0x{expected:06x}"
        );
    }
}

/// A picture of one colour.
fn video(fourcc: DrmFourcc, [y, u, v]: [u8; 3]) -> Picture {
    const SIDE: usize = 16;
    let stride = 64;
    let packed = |pair: [u8; 4]| {
        let mut bytes = vec![0; 64 * SIDE];
        for row in bytes.chunks_exact_mut(64) {
            row[..SIDE * 2].chunks_exact_mut(4).for_each(|pixels| pixels.copy_from_slice(&pair));
        }
        (bytes, vec![(0, stride)])
    };
    let (bytes, planes) = match fourcc {
        DrmFourcc::Yuyv => packed([y, u, y, v]),
        DrmFourcc::Yvyu => packed([y, v, y, u]),
        DrmFourcc::Uyvy => packed([u, y, v, y]),
        DrmFourcc::Vyuy => packed([v, y, u, y]),
        DrmFourcc::Nv12 | DrmFourcc::Nv21 => {
            let pair = if fourcc == DrmFourcc::Nv12 { [u, v] } else { [v, u] };
            let mut bytes = vec![y; 64 * SIDE];
            bytes.extend(pair.repeat(32 * SIDE / 2));
            (bytes, vec![(0, stride), (64 * 16, stride)])
        }
        DrmFourcc::Yuv420 => {
            let mut bytes = vec![y; 64 * SIDE];
            bytes.extend([[u; 256], [v; 256]].concat());
            (bytes, vec![(0, stride), (1024, 32), (1280, 32)])
        }
        other => panic!("no test picture in {other}"),
    };
    Picture::new(fourcc, 16, 16, &planes, &bytes)
}

const PACKED: [DrmFourcc; 4] = [DrmFourcc::Yuyv, DrmFourcc::Yvyu, DrmFourcc::Uyvy, DrmFourcc::Vyuy];
const PLANAR: [DrmFourcc; 3] = [DrmFourcc::Nv12, DrmFourcc::Nv21, DrmFourcc::Yuv420];

#[test]
fn video_is_not_black_in_gl_and_gles() {
    for api in [Api::Gl, Api::Gles] {
        let host = Host::new(api);
        for fourcc in PACKED {
            for (rgb, yuv) in COLORS {
                let import = host.import(&video(fourcc, yuv));
                assert!(import.is_converted());
                let what = format!("{fourcc} in {api:?}");
                assert_near(&host.read(import.texture(), 16, 16), rgb, &what);
            }
        }
        assert_eq!(host.egl.get_current_context(), Some(host.context));
    }
}

#[test]
fn planar_video_is_right_or_refused() {
    let host = Host::new(Api::Gl);
    for fourcc in PLANAR {
        for (rgb, yuv) in COLORS {
            let picture = video(fourcc, yuv);
            match picture.with_buffer(|buffer| host.importer.import(&buffer)) {
                Ok(import) => {
                    assert_near(&host.read(import.texture(), 16, 16), rgb, &fourcc.to_string());
                }
                // Mesa 25's llvmpipe lists these formats, and does not import them.
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.starts_with("eglCreateImageKHR: EGL_BAD_ALLOC ("), "{error}");
                }
            }
            host.assert_no_error();
        }
    }
    assert_eq!(host.status("imports"), 0);
}

#[test]
fn what_ends_in_another_thread_is_deleted_where_its_context_is() {
    let host = Host::new(Api::Gl);
    let import = host.import(&Picture::of_pixels(16, 16, gradient));
    let texture = glow::NativeTexture(import.texture().try_into().unwrap());
    // SAFETY: the context is current when it is asked.
    let is_there = || unsafe { host.gl.is_texture(texture) };
    assert!(is_there());
    std::thread::scope(|scope| {
        scope.spawn(|| import.release().unwrap_err()).join().unwrap();
    });
    assert!(is_there() && host.importer.has_orphans());
    host.importer.sweep();
    assert!(!is_there() && !host.importer.has_orphans());
    host.assert_nothing_left();
}

#[test]
fn a_conversion_follows_the_video() {
    let host = Host::new(Api::Gl);
    let picture = video(DrmFourcc::Yuyv, COLORS[2].1);
    let import = host.import(&picture);
    assert_near(&host.read(import.texture(), 16, 16), COLORS[2].0, "at first");

    let [y, u, v] = COLORS[4].1;
    let row: Vec<u8> = [y, u, y, v].repeat(8);
    picture.file.write_all_at(&row, 64 * 15).unwrap();
    assert_eq!(import.begin().unwrap(), Usable::Yes);
    let pixels = host.read(import.texture(), 16, 16);
    assert_near(&pixels[..16 * 15], COLORS[2].0, "the rows that stayed");
    assert_near(&pixels[16 * 15..], COLORS[4].0, "the last row");
    host.assert_no_error();
}

#[test]
fn hints_reach_the_driver() {
    let host = Host::new(Api::Gl);
    let full = Picture { full_range: true, ..video(DrmFourcc::Yuyv, [255, 128, 128]) };
    let import = host.import(&full);
    assert_near(&host.read(import.texture(), 16, 16), 0x00ff_ffff, "full range");
    // Red in BT.709 is not red in BT.601.
    let red = Picture { color_space: ColorSpace::Rec709, ..video(DrmFourcc::Yuyv, [63, 102, 240]) };
    let import = host.import(&red);
    assert_near(&host.read(import.texture(), 16, 16), 0x00ff_0000, "BT.709");
}

#[test]
fn offsets_and_strides_are_respected() {
    let host = Host::new(Api::Gl);
    let (width, height, offset, stride) = (13_u32, 9_u32, 4096_u32, 128_u32);
    let mut bytes = vec![0x55; (offset + (height - 1) * stride + width * 4) as usize];
    for (x, y) in (0..height).flat_map(|y| (0..width).map(move |x| (x, y))) {
        let at = (offset + y * stride + x * 4) as usize;
        bytes[at..at + 4].copy_from_slice(&gradient(x, y).to_le_bytes());
    }
    let picture = Picture::new(DrmFourcc::Xrgb8888, width, height, &[(offset, stride)], &bytes);
    let import = host.import(&picture);
    let expected: Vec<u32> =
        (0..height).flat_map(|y| (0..width).map(move |x| gradient(x, y))).collect();
    assert_eq!(host.read(import.texture(), width, height), expected);
}

#[test]
fn an_implicit_modifier_is_imported_too() {
    let host = Host::new(Api::Gl);
    let mut picture = Picture::of_pixels(8, 8, gradient);
    picture.format.modifier = DrmModifier::Invalid;
    let import = host.import(&picture);
    assert_eq!(host.read(import.texture(), 8, 8)[9], gradient(1, 1));
}

fn refusal(host: &Host, picture: &Picture) -> String {
    let checked = picture.with_buffer(|buffer| host.importer.check(&buffer));
    let imported = picture.with_buffer(|buffer| host.importer.import(&buffer).map(drop));
    host.assert_no_error();
    let (checked, imported) = (checked.unwrap_err().to_string(), imported.unwrap_err().to_string());
    assert_eq!(checked, imported, "both refuse, for the same reason");
    imported
}

#[test]
fn lies_never_reach_the_driver() {
    let host = Host::new(Api::Gl);
    let honest = || Picture::of_pixels(64, 64, gradient);
    let lies: [(&str, Picture); 7] = [
        ("plane 0 ends at byte", Picture { height: 65, ..honest() }),
        ("is less than a row", Picture { width: 65, height: 8, ..honest() }),
        ("plane 0 ends at byte", Picture { planes: vec![(0, 0x7fff_ff00)], ..honest() }),
        ("beyond 2 GiB", Picture { planes: vec![(0, u32::MAX)], ..honest() }),
        ("plane 0 ends at byte", Picture { planes: vec![(4, 256)], ..honest() }),
        ("out of range", Picture { width: 0, ..honest() }),
        ("out of range", Picture { height: u32::MAX, ..honest() }),
    ];
    for (reason, lie) in lies {
        let told = refusal(&host, &lie);
        assert!(told.contains(reason), "{told}");
    }
    let mut tiled = honest();
    tiled.format.modifier = DrmModifier::I915_y_tiled;
    assert_eq!(refusal(&host, &tiled), "EGL cannot import XR24 I915_Y_TILED, but XR24 with LINEAR");
    let mut palette = honest();
    palette.format.fourcc = DrmFourcc::C8;
    assert!(refusal(&host, &palette).starts_with("EGL cannot import C8  , but "));
    assert_eq!(host.status("imports-made"), 0);
}

#[test]
fn a_software_renderer_gets_no_file_that_it_could_die_of() {
    let host = Host::new(Api::Gl);
    assert_eq!(host.importer.status()["software"], true);
    let shrinking =
        Picture { file: memfd("picture", &[0; 1024]), ..Picture::of_pixels(16, 16, gradient) };
    assert!(refusal(&host, &shrinking).contains("not sealed against shrinking"));
    // As a dma-buf of the kernel's mbochs: a size, and no mapping.
    let honest = Picture::of_pixels(16, 16, gradient);
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&honest.file));
    let file = File::options().write(true).open(path).unwrap();
    let unmappable = Picture { file, ..honest };
    assert!(refusal(&host, &unmappable).contains("the CPU cannot map the dma-buf"));
}

#[test]
fn without_a_context_nothing_happens() {
    let host = Host::new(Api::Gl);
    let picture = Picture::of_pixels(4, 4, gradient);
    host.make_current(None);
    // SAFETY: the display is initialised, and never terminated.
    let driver = unsafe { Display::new(host.display.as_ptr()) }.unwrap();
    let fresh = Importer::new(driver);
    picture.with_buffer(|buffer| fresh.check(&buffer)).unwrap();
    assert_eq!(fresh.status()["software"], true);
    assert_eq!(host.egl.get_current_context(), None);
    let error = picture.with_buffer(|buffer| host.importer.import(&buffer).map(drop)).unwrap_err();
    assert_eq!(error.to_string(), "no context of the EGL display is current");
}

#[test]
fn a_texture_ends_in_the_context_that_has_it() {
    let host = Host::new(Api::Gl);
    let picture = Picture::of_pixels(4, 4, gradient);
    let mine = host.import(&picture);

    // Each context numbers its textures: the other one's has the same name.
    let other = host.context(None);
    host.make_current(Some(other));
    let theirs = host.import(&picture);
    assert_eq!(mine.texture(), theirs.texture());
    assert_eq!(mine.begin().unwrap(), Usable::NotHere);
    assert_eq!(theirs.begin().unwrap(), Usable::Yes);

    let name = mine.texture();
    mine.release().unwrap();
    assert_eq!(host.egl.get_current_context(), Some(other));
    assert!(host.has_texture(name), "the texture of the other context stays");
    host.make_current(Some(host.context));
    assert!(!host.has_texture(name));

    host.make_current(None);
    theirs.release().unwrap();
    assert_eq!(host.egl.get_current_context(), None);
    host.make_current(Some(other));
    assert!(!host.has_texture(name));
}

#[test]
fn contexts_that_share_have_the_texture_both() {
    let host = Host::new(Api::Gl);
    let sharing = host.context(Some(host.context));
    let import = host.import(&Picture::of_pixels(4, 4, gradient));
    let name = import.texture();
    host.make_current(Some(sharing));
    assert_eq!(import.begin().unwrap(), Usable::Yes);
    import.release().unwrap();
    assert!(!host.has_texture(name));
    host.assert_no_error();
}

#[test]
fn a_lost_context_takes_its_textures_along() {
    let host = Host::new(Api::Gl);
    let lost = host.context(None);
    host.make_current(Some(lost));
    let picture = Picture::of_pixels(4, 4, gradient);
    let import = host.import(&picture);
    let converted = host.import(&video(DrmFourcc::Yuyv, COLORS[0].1));
    host.make_current(Some(host.context));
    host.egl.destroy_context(host.display, lost).unwrap();

    assert_eq!(import.begin().unwrap(), Usable::NotHere);
    import.release().unwrap();
    converted.release().unwrap();
    assert_eq!(host.egl.get_current_context(), Some(host.context));
    host.assert_no_error();
    let again = host.import(&picture);
    assert_eq!(host.read(again.texture(), 4, 4)[5], gradient(1, 1));
}

#[test]
fn a_drawn_texture_has_a_fence_where_the_display_has_native_ones() {
    let host = Host::new(Api::Gl);
    let mut import = host.import(&Picture::of_pixels(4, 4, gradient));
    assert!(import.take_fence().unwrap().is_none(), "nothing was drawn");
    import.drew().unwrap();
    // SAFETY: the context is current.
    unsafe { host.gl.flush() };
    let fence = import.take_fence().unwrap();
    assert_eq!(fence.is_some(), host.importer.status()["native-fences"] == true);
    assert!(import.take_fence().unwrap().is_none(), "a fence is taken once");
    import.drew().unwrap();
    import.release().unwrap();
    host.assert_no_error();
}

#[test]
fn a_hundred_thousand_flips_make_no_more_textures() {
    for api in [Api::Gl, Api::Gles] {
        let host = Host::new(api);
        let pictures: Vec<_> =
            (0..4).map(|n| Picture::of_pixels(16, 16, move |x, y| gradient(x + n, y))).collect();
        let imports: Vec<_> = pictures.iter().map(|picture| host.import(picture)).collect();
        for flip in 0..100_000 {
            let import = &imports[flip % imports.len()];
            assert_eq!(import.begin().unwrap(), Usable::Yes);
            if flip % 1001 == 0 {
                let n = u32::try_from(flip % imports.len()).unwrap();
                assert_eq!(host.read(import.texture(), 16, 16)[0], gradient(n, 0));
            }
        }
        host.assert_no_error();
        let textures = || (1..1000).filter(|&name| host.has_texture(name)).count();
        assert_eq!((textures(), host.status("imports"), host.status("imports-made")), (4, 4, 4));
        drop(imports);
        assert_eq!((textures(), host.status("imports")), (0, 0));
        host.assert_no_error();
    }
}

#[test]
fn ten_thousand_imports_leave_nothing_behind() {
    let host = Host::new(Api::Gl);
    let picture =
        |_| Picture { file: sealed("counted", &[0; 1024]), ..Picture::of_pixels(16, 16, gradient) };
    let pictures: Vec<_> = (0..4).map(picture).collect();
    let first = host.import(&pictures[0]).texture();
    drop(host.import(&video(DrmFourcc::Yuyv, COLORS[0].1)));
    assert_eq!(open_descriptors("counted"), 4);
    for round in 0..10_000 {
        let import = host.import(&pictures[round % 4]);
        assert_eq!(import.texture(), first, "the name was free again");
        if round % 100 == 0 {
            drop(host.import(&video(DrmFourcc::Yuyv, COLORS[0].1)));
        }
        import.release().unwrap();
    }
    assert_eq!(open_descriptors("counted"), 4);
    assert_eq!(host.status("imports"), 0);
    assert_eq!(host.status("imports-made"), 10_102);
}

/// Copies a texture to one that is to be read back, like a host that composes its picture.
fn draw(host: &Host, source: u32, target: u32, (width, height): (u32, u32)) {
    let gl = &host.gl;
    let (width, height) = (i32::try_from(width).unwrap(), i32::try_from(height).unwrap());
    // SAFETY: the context is current, and has the textures.
    unsafe {
        let framebuffers: Vec<_> =
            [(source, glow::READ_FRAMEBUFFER), (target, glow::DRAW_FRAMEBUFFER)]
                .into_iter()
                .map(|(texture, end)| {
                    let framebuffer = gl.create_framebuffer().unwrap();
                    gl.bind_framebuffer(end, Some(framebuffer));
                    gl.framebuffer_texture_2d(
                        end,
                        glow::COLOR_ATTACHMENT0,
                        glow::TEXTURE_2D,
                        Some(glow::NativeTexture(texture.try_into().unwrap())),
                        0,
                    );
                    framebuffer
                })
                .collect();
        let color = glow::COLOR_BUFFER_BIT;
        gl.blit_framebuffer(0, 0, width, height, 0, 0, width, height, color, glow::NEAREST);
        for framebuffer in framebuffers {
            gl.delete_framebuffer(framebuffer);
        }
    }
    host.assert_no_error();
}

/// Polls until what is under way has ended. Returns the last picture, if there was one.
fn taken(read_back: &mut ReadBack<Display>) -> Option<Vec<u32>> {
    let mut picture = None;
    while read_back.is_busy() {
        let got = read_back
            .take(false, &mut |bytes| {
                let pixel = |p: &[u8]| u32::from_le_bytes([p[0], p[1], p[2], 0]);
                picture = Some(bytes.chunks_exact(4).map(pixel).collect());
            })
            .unwrap();
        assert!(got == Taken::Nothing || picture.is_some());
        std::thread::yield_now();
    }
    picture
}

#[test]
fn what_is_drawn_is_read_back_and_what_is_not_is_not() {
    for api in [Api::Gl, Api::Gles] {
        let host = Host::new(api);
        let size = (61, 37);
        let picture = Picture::of_pixels(size.0, size.1, gradient);
        let import = host.import(&picture);
        let mut expected: Vec<u32> =
            (0..size.1).flat_map(|y| (0..size.0).map(move |x| gradient(x, y))).collect();
        let mut read_back = ReadBack::new(Arc::clone(&host.importer));
        let mut show = |drawn| {
            let target = read_back.target(size.0, size.1).unwrap().expect("a target");
            draw(&host, import.texture(), target, size);
            read_back.start(drawn).unwrap();
            host.assert_no_error();
            // As in a call from the main loop.
            host.make_current(None);
            let picture = taken(&mut read_back);
            host.make_current(Some(host.context));
            host.assert_no_error();
            picture
        };
        assert_eq!(show(Drawn::Anew).as_ref(), Some(&expected), "{api:?}");
        assert_eq!(show(Drawn::Perhaps), None);
        assert_eq!(show(Drawn::Perhaps), None);
        // One pixel changes, as little as possible.
        for (at, bit) in [(0, 1), (61 * 37 - 1, 1 << 8), (61 * 20 + 30, 1 << 16)] {
            expected[at] ^= bit;
            let bytes = expected[at].to_le_bytes();
            picture.file.write_all_at(&bytes, 4 * at as u64).unwrap();
            assert_eq!(import.begin().unwrap(), Usable::Yes);
            assert_eq!(show(Drawn::Perhaps).as_ref(), Some(&expected), "{api:?}, pixel {at}");
            assert_eq!(show(Drawn::Perhaps), None);
        }
        assert_eq!((host.status("read-back"), host.status("unchanged")), (4, 5));
        import.release().unwrap();
        drop(read_back);
        host.assert_nothing_left();
    }
}

#[test]
fn flips_are_read_back_in_order_and_the_last_one_stays() {
    let host = Host::new(Api::Gl);
    let pictures: Vec<_> =
        (0..4).map(|n| Picture::of_pixels(16, 16, move |x, y| gradient(x + n, y))).collect();
    let imports: Vec<_> = pictures.iter().map(|picture| host.import(picture)).collect();
    let mut read_back = ReadBack::new(Arc::clone(&host.importer));
    for flip in 0..1000 {
        let n = flip % imports.len();
        let target = read_back.target(16, 16).unwrap().unwrap();
        draw(&host, imports[n].texture(), target, (16, 16));
        read_back.start(Drawn::Anew).unwrap();
        // Now and then some flips are not read back.
        if flip % 7 < 3 {
            let got = taken(&mut read_back).unwrap();
            assert_eq!(got[0], gradient(u32::try_from(n).unwrap(), 0), "flip {flip}");
        }
    }
    drop(imports);
    drop(read_back);
    host.assert_nothing_left();
}

#[test]
fn a_lost_context_takes_its_read_back_along() {
    let host = Host::new(Api::Gl);
    let lost = host.context(None);
    host.make_current(Some(lost));
    let mut read_back = ReadBack::new(Arc::clone(&host.importer));
    assert!(read_back.target(16, 16).unwrap().is_some());
    read_back.start(Drawn::Anew).unwrap();
    host.make_current(Some(host.context));
    host.egl.destroy_context(host.display, lost).unwrap();
    assert!(read_back.take(true, &mut |_| panic!("nothing is there")).is_err());

    let import = host.import(&Picture::of_pixels(16, 16, gradient));
    let target = read_back.target(16, 16).unwrap().unwrap();
    draw(&host, import.texture(), target, (16, 16));
    read_back.start(Drawn::Perhaps).unwrap();
    assert_eq!(taken(&mut read_back).unwrap()[17], gradient(1, 1));
    host.assert_no_error();
}
