//! What the EGL of this machine does with dma-bufs, for a report: see run.
//!
//! Each EGL device is asked for what it lists, exports pictures, and imports them with the library.
//! Where it exports nothing, as a software renderer, a memfd stands for a dma-buf. A picture that
//! is wrong is an error; what a driver refuses is a line of the report.

#![cfg(feature = "egl")]

use std::ffi::{CStr, c_char, c_void};
use std::fs::File;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use drm_fourcc::{DrmFourcc, DrmModifier};
use glow::HasContext;
use khronos_egl as egl;
use rustix::fs::{MemfdFlags, SealFlags};

use vfio_display::egl::{Buffer, BufferPlane, ColorSpace, Display, Importer};
use vfio_display::format::{Format, ModifierName};
use vfio_display::memory::DmaBuf;

type Egl = egl::DynamicInstance<egl::EGL1_5>;

const EGL_PLATFORM_DEVICE_EXT: egl::Enum = 0x313F;
const EGL_DRM_RENDER_NODE_FILE_EXT: i32 = 0x3377;
const EGL_GL_TEXTURE_2D: egl::Enum = 0x30B1;
const MOST_DEVICES: i32 = 16;
const MOST_MODIFIERS: i32 = 64;

/// Those that a driver may mind: strides of 1024 pixels are multiples of 256 bytes, those of 800
/// and 1366 are not.
const SIZES: [(u32, u32); 3] = [(1024, 768), (800, 600), (1366, 768)];

/// A function of an extension, if EGL has it.
fn function<F: Copy>(egl: &Egl, name: &str) -> Option<F> {
    let found = egl.get_proc_address(name)?;
    assert_eq!(size_of::<F>(), size_of_val(&found));
    // SAFETY: both are pointers to functions; the caller gives the type that the extension has for
    // the name.
    Some(unsafe { std::mem::transmute_copy(&found) })
}

/// Calls a function of an extension. The caller gives it what the extension says.
macro_rules! call {
    ($egl:expr, $name:literal, fn($($kind:ty),*) -> $result:ty, $($value:expr),*) => {{
        let found: Option<unsafe extern "C" fn($($kind),*) -> $result> = function($egl, $name);
        // SAFETY: the pointers are to values that live during the call, with the room that is told;
        // handles are EGL's.
        found.map(|function| unsafe { function($($value),*) })
    }};
}

fn pixel(x: u32, y: u32) -> u32 {
    0xFF00_0000 | ((x & 0xFF) << 16) | ((y & 0xFF) << 8) | (((x ^ y) >> 3) & 0xFF)
}

/// A picture that something exported.
struct Exported {
    format: Format,
    planes: Vec<(OwnedFd, u32, u32)>,
}

struct Gpu<'a> {
    egl: &'a Egl,
    display: egl::Display,
    gl: glow::Context,
    importer: Arc<Importer<Display>>,
    context: egl::Context,
}

impl<'a> Gpu<'a> {
    /// Opens a device, with a context that has no config and no surface.
    fn open(egl: &'a Egl, device: *mut c_void, api: egl::Enum) -> Result<Self, String> {
        let in_words = |error: egl::Error| error.to_string();
        // SAFETY: the device is one of those that EGL listed.
        let display = unsafe {
            egl.get_platform_display(EGL_PLATFORM_DEVICE_EXT, device, &[egl::ATTRIB_NONE])
        }
        .map_err(in_words)?;
        egl.initialize(display).map_err(in_words)?;
        egl.bind_api(api).map_err(in_words)?;
        let renderable = if api == egl::OPENGL_API { egl::OPENGL_BIT } else { egl::OPENGL_ES2_BIT };
        let wanted =
            [egl::SURFACE_TYPE, egl::PBUFFER_BIT, egl::RENDERABLE_TYPE, renderable, egl::NONE];
        let config =
            egl.choose_first_config(display, &wanted).map_err(in_words)?.ok_or("no config")?;
        let version = if api == egl::OPENGL_API {
            [egl::NONE, egl::NONE, egl::NONE]
        } else {
            [egl::CONTEXT_CLIENT_VERSION, 3, egl::NONE]
        };
        let context = egl.create_context(display, config, None, &version).map_err(in_words)?;
        egl.make_current(display, None, None, Some(context)).map_err(in_words)?;
        // SAFETY: the names are those of GL's functions, the context is current.
        let gl = unsafe {
            glow::Context::from_loader_function(|name| {
                egl.get_proc_address(name).map_or(std::ptr::null(), |f| f as *const c_void)
            })
        };
        // SAFETY: the display is initialised, and never terminated.
        let driver = unsafe { Display::new(display.as_ptr()) }.ok_or("no display")?;
        Ok(Self { egl, display, gl, importer: Arc::new(Importer::new(driver)), context })
    }

    fn describe(&self) {
        // SAFETY: the context is current.
        let (renderer, version) = unsafe {
            (
                self.gl.get_parameter_string(glow::RENDERER),
                self.gl.get_parameter_string(glow::VERSION),
            )
        };
        println!("  {renderer}, {version}");
        let extensions = self.gl.supported_extensions();
        for name in ["GL_OES_EGL_image", "GL_EXT_EGL_image_storage", "GL_OES_EGL_image_external"] {
            println!("    {name}: {}", if extensions.contains(name) { "yes" } else { "no" });
        }
        println!("    {}", self.importer.status());
    }

    /// What the display lists for the formats that vGPUs have.
    fn list(&self) {
        for fourcc in [DrmFourcc::Xrgb8888, DrmFourcc::Argb8888, DrmFourcc::Rgb565, DrmFourcc::Nv12]
        {
            let mut codes = [0_u64; MOST_MODIFIERS as usize];
            let mut external = [0_u32; MOST_MODIFIERS as usize];
            let mut count = 0;
            let listed = call!(
                self.egl,
                "eglQueryDmaBufModifiersEXT",
                fn(*mut c_void, u32, i32, *mut u64, *mut u32, *mut i32) -> u32,
                self.display.as_ptr(),
                fourcc as u32,
                MOST_MODIFIERS,
                codes.as_mut_ptr(),
                external.as_mut_ptr(),
                &raw mut count
            );
            if listed != Some(1) {
                let _ = self.egl.get_error();
                println!("    {fourcc}: its modifiers cannot be had");
                continue;
            }
            let count = usize::try_from(count).unwrap_or(0);
            let names = codes.iter().zip(external).take(count).map(|(&code, external)| {
                let name = ModifierName(DrmModifier::from(code));
                if external == 0 { name.to_string() } else { format!("{name} (external)") }
            });
            println!("    {fourcc}: {}", names.collect::<Vec<_>>().join(", "));
        }
    }

    /// A picture in memory of the GPU's, if it exports that.
    fn export(&self, width: u32, height: u32) -> Option<Exported> {
        let pixels: Vec<u8> = (0..height)
            .flat_map(|y| {
                (0..width).flat_map(move |x| {
                    let [b, g, r, a] = pixel(x, y).to_le_bytes();
                    [r, g, b, a]
                })
            })
            .collect();
        let (w, h) = (i32::try_from(width).ok()?, i32::try_from(height).ok()?);
        // SAFETY: the context is current; there are as many pixels as are told.
        let texture = unsafe {
            let texture = self.gl.create_texture().ok()?;
            self.gl.bind_texture(glow::TEXTURE_2D, Some(texture));
            self.gl.tex_storage_2d(glow::TEXTURE_2D, 1, glow::RGBA8, w, h);
            let pixels = glow::PixelUnpackData::Slice(Some(&pixels));
            self.gl.tex_sub_image_2d(
                glow::TEXTURE_2D,
                0,
                0,
                0,
                w,
                h,
                glow::RGBA,
                glow::UNSIGNED_BYTE,
                pixels,
            );
            self.gl.finish();
            texture
        };
        let name = std::ptr::without_provenance_mut(texture.0.get() as usize);
        let image = call!(
            self.egl,
            "eglCreateImageKHR",
            fn(*mut c_void, *mut c_void, u32, *mut c_void, *const i32) -> *mut c_void,
            self.display.as_ptr(),
            self.context.as_ptr(),
            EGL_GL_TEXTURE_2D,
            name,
            std::ptr::null()
        )?;
        if image.is_null() {
            let _ = self.egl.get_error();
            return None;
        }
        let (mut fourcc, mut count, mut modifiers) = (0, 0, [0_u64; 4]);
        let (mut fds, mut strides, mut offsets) = ([-1; 4], [0_i32; 4], [0_i32; 4]);
        let asked = call!(
            self.egl,
            "eglExportDMABUFImageQueryMESA",
            fn(*mut c_void, *mut c_void, *mut i32, *mut i32, *mut u64) -> u32,
            self.display.as_ptr(),
            image,
            &raw mut fourcc,
            &raw mut count,
            modifiers.as_mut_ptr()
        );
        let given = (asked == Some(1)).then(|| {
            call!(
                self.egl,
                "eglExportDMABUFImageMESA",
                fn(*mut c_void, *mut c_void, *mut i32, *mut i32, *mut i32) -> u32,
                self.display.as_ptr(),
                image,
                fds.as_mut_ptr(),
                strides.as_mut_ptr(),
                offsets.as_mut_ptr()
            )
        });
        call!(
            self.egl,
            "eglDestroyImageKHR",
            fn(*mut c_void, *mut c_void) -> u32,
            self.display.as_ptr(),
            image
        );
        if given != Some(Some(1)) {
            let _ = self.egl.get_error();
            return None;
        }
        let fourcc = DrmFourcc::try_from(u32::from_ne_bytes(fourcc.to_ne_bytes())).ok()?;
        let count = usize::try_from(count).ok()?.min(4);
        // A software renderer succeeds, and gives none.
        if count == 0 || fds[..count].iter().any(|&fd| fd < 0) {
            return None;
        }
        let planes = (0..count).map(|plane| {
            // SAFETY: EGL made the descriptor for us.
            let fd = unsafe { OwnedFd::from_raw_fd(fds[plane]) };
            let told = |number: i32| u32::try_from(number).unwrap_or(0);
            (fd, told(offsets[plane]), told(strides[plane]))
        });
        let format = Format { fourcc, modifier: DrmModifier::from(modifiers[0]) };
        Some(Exported { format, planes: planes.collect() })
    }

    /// Imports a picture, and compares its pixels. Returns whether none is wrong.
    fn import(&self, picture: &Exported, width: u32, height: u32) -> bool {
        let planes: Vec<_> = picture
            .planes
            .iter()
            .map(|(fd, offset, stride)| BufferPlane {
                fd: fd.as_fd(),
                offset: *offset,
                stride: *stride,
            })
            .collect();
        let strides: Vec<_> = planes.iter().map(|plane| plane.stride).collect();
        print!("    {width}x{height} {} strides {strides:?}: ", picture.format);
        let color_space = ColorSpace::Rec601;
        let format = picture.format;
        let buffer =
            Buffer { format, width, height, planes: &planes, color_space, full_range: false };
        let import = match self.importer.import(&buffer) {
            Ok(import) => import,
            Err(error) => {
                println!("refused: {error}");
                return true;
            }
        };
        let wrong = self.wrong_pixels(import.texture(), width, height);
        let how = if import.is_converted() { "converted" } else { "as it is" };
        println!("imported {how}, {wrong} pixels are wrong");
        wrong == 0
    }

    fn wrong_pixels(&self, texture: u32, width: u32, height: u32) -> usize {
        let mut bytes = vec![0; (width * height * 4) as usize];
        let (w, h) = (i32::try_from(width).unwrap(), i32::try_from(height).unwrap());
        let texture = texture.try_into().ok().map(glow::NativeTexture);
        // SAFETY: the context is current, and there is room for the pixels.
        unsafe {
            let framebuffer = self.gl.create_framebuffer().unwrap();
            self.gl.bind_framebuffer(glow::FRAMEBUFFER, Some(framebuffer));
            let (end, point) = (glow::FRAMEBUFFER, glow::COLOR_ATTACHMENT0);
            self.gl.framebuffer_texture_2d(end, point, glow::TEXTURE_2D, texture, 0);
            let pixels = glow::PixelPackData::Slice(Some(&mut bytes));
            self.gl.read_pixels(0, 0, w, h, glow::RGBA, glow::UNSIGNED_BYTE, pixels);
            self.gl.delete_framebuffer(framebuffer);
        }
        let expected = (0..height).flat_map(|y| (0..width).map(move |x| pixel(x, y)));
        bytes
            .chunks_exact(4)
            .zip(expected)
            .filter(|(p, expected)| {
                u32::from_be_bytes([0, p[0], p[1], p[2]]) != expected & 0xFF_FFFF
            })
            .count()
    }
}

/// A memfd in place of a dma-buf, as software renderers take it.
fn memfd(width: u32, height: u32) -> Exported {
    let bytes: Vec<u8> =
        (0..height).flat_map(|y| (0..width).flat_map(move |x| pixel(x, y).to_le_bytes())).collect();
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = File::from(rustix::fs::memfd_create("picture", flags).unwrap());
    file.write_all_at(&bytes, 0).unwrap();
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
    let format = Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::Linear };
    Exported { format, planes: vec![(file.into(), 0, width * 4)] }
}

/// How fast the CPU reads a dma-buf: what a surface of it would cost.
fn read_speed(picture: &Exported) -> String {
    let Some((fd, ..)) = picture.planes.first() else { return "nothing to read".to_owned() };
    let memory =
        fd.try_clone().and_then(DmaBuf::new).and_then(|dma_buf| dma_buf.memory(dma_buf.size()));
    let memory = match memory {
        Ok(memory) => memory,
        Err(error) => return format!("the CPU cannot map it: {error}"),
    };
    let mut bytes = vec![0; usize::try_from(memory.len()).unwrap_or(0)];
    let mut best = f64::MAX;
    for _ in 0..4 {
        let began = Instant::now();
        let _reading = memory.begin_reading();
        if let Err(error) = memory.read(0, &mut bytes) {
            return format!("the CPU cannot read it: {error}");
        }
        best = best.min(began.elapsed().as_secs_f64());
    }
    #[expect(clippy::cast_precision_loss, reason = "it is for people")]
    let rate = bytes.len() as f64 / best / f64::from(1 << 20);
    format!("the CPU reads {rate:.0} MiB/s")
}

/// Reports on one device. Returns whether all pictures were right.
fn report(egl: &Egl, device: *mut c_void) -> Result<bool, String> {
    let mut right = true;
    for (name, api) in [("OpenGL", egl::OPENGL_API), ("OpenGL ES", egl::OPENGL_ES_API)] {
        println!(" {name}:");
        let gpu = Gpu::open(egl, device, api)?;
        gpu.describe();
        if api == egl::OPENGL_API {
            gpu.list();
        }
        if gpu.importer.is_software() == Some(true) {
            println!("    a software renderer: this says nothing about a GPU");
        }
        for (width, height) in SIZES {
            let picture = gpu.export(width, height).unwrap_or_else(|| {
                println!("    it exports nothing: a memfd is imported");
                memfd(width, height)
            });
            right &= gpu.import(&picture, width, height);
            println!("      {}", read_speed(&picture));
        }
    }
    Ok(right)
}

fn main() -> ExitCode {
    // SAFETY: libEGL is loaded as any program would load it.
    let egl = match unsafe { Egl::load_required() } {
        Ok(egl) => egl,
        Err(error) => {
            eprintln!("gpu: libEGL.so.1: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut devices = [std::ptr::null_mut(); MOST_DEVICES as usize];
    let mut count = 0;
    let listed = call!(
        &egl,
        "eglQueryDevicesEXT",
        fn(i32, *mut *mut c_void, *mut i32) -> u32,
        MOST_DEVICES,
        devices.as_mut_ptr(),
        &raw mut count
    );
    if listed != Some(1) || count == 0 {
        eprintln!("gpu: EGL lists no devices (EGL_EXT_device_enumeration)");
        return ExitCode::FAILURE;
    }
    let mut right = true;
    for (number, &device) in devices.iter().take(usize::try_from(count).unwrap_or(0)).enumerate() {
        let node = call!(
            &egl,
            "eglQueryDeviceStringEXT",
            fn(*mut c_void, i32) -> *const c_char,
            device,
            EGL_DRM_RENDER_NODE_FILE_EXT
        )
        .filter(|text| !text.is_null())
        // SAFETY: EGL's strings are static.
        .map_or("no render node".into(), |text| unsafe { CStr::from_ptr(text) }.to_string_lossy());
        let _ = egl.get_error();
        println!("device {number}: {node}");
        match report(&egl, device) {
            Ok(all) => right &= all,
            Err(error) => println!("  cannot be used: {error}"),
        }
    }
    println!("{}", if right { "no picture is wrong" } else { "WRONG PICTURES" });
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
