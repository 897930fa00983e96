//! Imports on a fake EGL, which counts all objects, and can refuse.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::fmt;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

use drm_fourcc::{DrmFourcc, DrmModifier};

use super::buffer::{Buffer, BufferPlane, ColorSpace};
use super::driver::{
    Comparer, Context, Driver, EglError, EglErrorCode, EglSync, Extensions, GlError, Image,
    Modifier, Shading, Target,
};
use super::import::{Import, ImportError, Importer, Usable};
use super::readback::{Drawn, ReadBack, ReadBackError, Taken};
use crate::config::Config;
use crate::console::{Console, CursorImage, ScanoutSupport, Severity};
use crate::damage::Rect;
use crate::device::Mode;
use crate::display::Display;
use crate::format::Format;
use crate::memory::{Memory, tests::memfd};
use crate::plane::{Geometry, PlaneInfo};
use crate::testing::{FakeCanvas, FakeConsole, FakeDevice, ManualClock, cursor, plane};

const GL_INVALID_OPERATION: u32 = 0x0502;
const GL_OUT_OF_MEMORY: u32 = 0x0505;
const ALL: Extensions = Extensions {
    image: true,
    import: true,
    modifiers: true,
    surfaceless: true,
    configless: true,
    texture_image: true,
    fence: true,
    wait: true,
    native_fence: true,
};

/// What the fake contains, and how it behaves.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
struct State {
    extensions: Extensions,
    software_device: Option<bool>,
    renderer: String,
    plain_textures: bool,
    keeps_labels: bool,
    make_current: Option<EglErrorCode>,
    /// Making the previous context current again fails.
    go_back: Option<EglErrorCode>,
    image_error: Option<EglErrorCode>,
    draw_error: Option<u32>,
    takes_no_images: bool,
    /// It imports dma-bufs, but no memfds.
    reads_through_device: bool,
    formats_error: bool,
    /// The format whose modifiers cannot be queried.
    unlisted: Option<DrmFourcc>,
    current: Option<Context>,
    /// Textures by context, with their labels; 0: no label.
    contexts: BTreeMap<usize, BTreeMap<u32, u64>>,
    images: BTreeSet<usize>,
    syncs: BTreeSet<usize>,
    images_made: usize,
    draws: usize,
    /// What was drawn to textures of contexts, as one colour. Commands are executed at once, but
    /// syncs are signalled only when the test says so.
    pictures: BTreeMap<(usize, u32), u8>,
    pixel_buffers: BTreeMap<u32, u8>,
    comparers: BTreeMap<u32, bool>,
    fired: bool,
    shading: Option<Shading>,
    reading_error: Option<u32>,
    last: usize,
}

impl State {
    fn next(&mut self) -> NonZeroUsize {
        self.last += 1;
        NonZeroUsize::new(self.last).unwrap()
    }

    fn new_context(&mut self) -> Context {
        let context = Context(self.next());
        self.contexts.insert(context.0.get(), BTreeMap::new());
        context
    }

    fn textures(&mut self, context: Context) -> &mut BTreeMap<u32, u64> {
        self.contexts.get_mut(&context.0.get()).expect("the context exists")
    }

    /// Each context has its own numbers, as in OpenGL.
    fn new_texture(&mut self, context: Context, label: u64) -> u32 {
        let textures = self.textures(context);
        let name = (1..=u32::MAX).find(|name| !textures.contains_key(name)).unwrap();
        textures.insert(name, label);
        name
    }

    fn new_image(&mut self) -> Image {
        self.images_made += 1;
        let image = self.next();
        self.images.insert(image.get());
        Image(image)
    }

    fn new_sync(&mut self) -> EglSync {
        let sync = self.next();
        self.syncs.insert(sync.get());
        EglSync(sync)
    }
}

#[derive(Clone, Debug)]
struct Fake(Arc<Mutex<State>>);

impl Fake {
    fn new(change: impl FnOnce(&mut State)) -> (Self, Arc<Importer<Self>>) {
        let mut state = State {
            extensions: ALL,
            software_device: Some(false),
            plain_textures: true,
            keeps_labels: true,
            ..State::default()
        };
        state.current = Some(state.new_context());
        change(&mut state);
        let fake = Self(Arc::new(Mutex::new(state)));
        let importer = Arc::new(Importer::new(fake.clone()));
        (fake, importer)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Textures of all contexts.
    fn textures(&self) -> usize {
        self.state().contexts.values().map(BTreeMap::len).sum()
    }

    /// How many textures, images and syncs there are.
    fn objects(&self) -> (usize, usize, usize) {
        let textures = self.textures();
        let state = self.state();
        (textures, state.images.len(), state.syncs.len())
    }

    fn assert_current_exists(&self, context: Context) {
        let state = self.state();
        assert_eq!(state.current, Some(context), "the context must be current");
        assert!(state.contexts.contains_key(&context.0.get()));
    }
}

impl Driver for Fake {
    fn extensions(&self) -> Extensions {
        self.state().extensions
    }

    fn formats(&self) -> Result<Vec<u32>, EglError> {
        if self.state().formats_error {
            return Err(EglError { call: "formats", code: EglErrorCode::BadAlloc });
        }
        Ok(vec![DrmFourcc::Xrgb8888 as u32, DrmFourcc::Yuyv as u32, DrmFourcc::Nv12 as u32])
    }

    fn modifiers(&self, fourcc: u32) -> Result<Vec<Modifier>, EglError> {
        if self.state().unlisted.is_some_and(|unlisted| unlisted as u32 == fourcc) {
            return Err(EglError { call: "modifiers", code: EglErrorCode::BadParameter });
        }
        Ok(vec![Modifier { code: 0, external: true }])
    }

    fn is_software_device(&self) -> Option<bool> {
        self.state().software_device
    }

    fn current(&self) -> Option<Context> {
        self.state().current
    }

    fn visit(&self, context: Context, body: &mut dyn FnMut(Context)) -> Result<(), EglError> {
        let before = {
            let mut state = self.state();
            let call = "eglMakeCurrent";
            if let Some(code) = state.make_current {
                return Err(EglError { call, code });
            }
            if !state.contexts.contains_key(&context.0.get()) {
                return Err(EglError { call, code: EglErrorCode::BadContext });
            }
            state.current.replace(context)
        };
        body(context);
        let mut state = self.state();
        state.current = before;
        state.go_back.map_or(Ok(()), |code| Err(EglError { call: "eglMakeCurrent", code }))
    }

    fn create_context(&self) -> Result<Context, EglError> {
        Ok(self.state().new_context())
    }

    fn destroy_context(&self, context: Context) {
        assert!(self.state().contexts.remove(&context.0.get()).is_some());
    }

    fn renderer(&self, context: Context) -> String {
        self.assert_current_exists(context);
        self.state().renderer.clone()
    }

    fn max_texture_side(&self, context: Context) -> u32 {
        self.assert_current_exists(context);
        64
    }

    fn takes_images(&self, context: Context) -> bool {
        self.assert_current_exists(context);
        !self.state().takes_no_images
    }

    fn create_image(&self, _: &[i32]) -> Result<Image, EglError> {
        let mut state = self.state();
        if let Some(code) = state.image_error {
            state.images_made += 1;
            return Err(EglError { call: "eglCreateImageKHR", code });
        }
        // Besides the guest's buffer, a memfd is tried.
        if state.reads_through_device && state.images.len() == 1 {
            return Err(EglError { call: "eglCreateImageKHR", code: EglErrorCode::BadAlloc });
        }
        Ok(state.new_image())
    }

    fn image_of_texture(&self, context: Context, texture: u32) -> Result<Image, EglError> {
        self.assert_current_exists(context);
        assert!(self.state().textures(context).contains_key(&texture));
        Ok(self.state().new_image())
    }

    fn destroy_image(&self, image: Image) {
        assert!(self.state().images.remove(&image.0.get()));
    }

    fn texture(&self, context: Context, image: Image, label: u64) -> Result<u32, GlError> {
        self.assert_current_exists(context);
        let mut state = self.state();
        assert!(state.images.contains(&image.0.get()));
        // A converted picture is the second image: only those of dma-bufs are refused.
        if !state.plain_textures && state.images.len() == 1 {
            return Err(GlError { call: "texture", code: GL_INVALID_OPERATION });
        }
        Ok(state.new_texture(context, label))
    }

    fn external_texture(&self, context: Context, image: Image) -> Result<u32, GlError> {
        self.assert_current_exists(context);
        let mut state = self.state();
        assert!(state.images.contains(&image.0.get()));
        Ok(state.new_texture(context, 0))
    }

    fn has_texture(&self, context: Context, texture: u32, label: u64) -> Option<bool> {
        self.assert_current_exists(context);
        let mut state = self.state();
        let keeps_labels = state.keeps_labels;
        match state.textures(context).get(&texture) {
            None => Some(false),
            Some(&found) => keeps_labels.then_some(found == label),
        }
    }

    fn delete_texture(&self, context: Context, texture: u32) {
        self.assert_current_exists(context);
        assert!(self.state().textures(context).remove(&texture).is_some());
    }

    fn program(&self, context: Context, _: &CStr, _: &CStr) -> Result<u32, String> {
        self.assert_current_exists(context);
        Ok(1)
    }

    fn target(&self, context: Context, width: u32, height: u32) -> Result<Target, GlError> {
        self.assert_current_exists(context);
        let texture = self.state().new_texture(context, 0);
        Ok(Target { texture, framebuffer: 1, width, height })
    }

    fn delete_target(&self, context: Context, target: Target) {
        self.delete_texture(context, target.texture);
    }

    fn draw(&self, context: Context, _: u32, source: u32, target: Target) -> Result<(), GlError> {
        self.assert_current_exists(context);
        let mut state = self.state();
        assert!(state.textures(context).contains_key(&source));
        assert!(state.textures(context).contains_key(&target.texture));
        state.draws += 1;
        state.draw_error.map_or(Ok(()), |code| Err(GlError { call: "glDrawArrays", code }))
    }

    fn reads_back(&self, context: Context) -> Option<Shading> {
        self.assert_current_exists(context);
        self.state().shading
    }

    fn label_texture(&self, context: Context, texture: u32, label: u64) {
        self.assert_current_exists(context);
        assert!(self.state().textures(context).insert(texture, label).is_some());
    }

    fn pixel_buffer(&self, context: Context, _: usize) -> Result<u32, GlError> {
        self.assert_current_exists(context);
        let mut state = self.state();
        let buffer = u32::try_from(state.next().get()).unwrap();
        state.pixel_buffers.insert(buffer, 0);
        Ok(buffer)
    }

    fn delete_pixel_buffer(&self, context: Context, buffer: u32) {
        self.assert_current_exists(context);
        assert!(self.state().pixel_buffers.remove(&buffer).is_some());
    }

    fn start_reading(&self, context: Context, source: Target, buffer: u32) -> Result<(), GlError> {
        self.assert_current_exists(context);
        let mut state = self.state();
        if let Some(code) = state.reading_error {
            return Err(GlError { call: "glReadPixels", code });
        }
        let picture = state.pictures[&(context.0.get(), source.texture)];
        *state.pixel_buffers.get_mut(&buffer).expect("the buffer exists") = picture;
        Ok(())
    }

    fn pixels(
        &self,
        context: Context,
        buffer: u32,
        bytes: usize,
        body: &mut dyn FnMut(&[u8]),
    ) -> Result<(), GlError> {
        self.assert_current_exists(context);
        let picture = self.state().pixel_buffers[&buffer];
        body(&vec![picture; bytes]);
        Ok(())
    }

    fn comparer(
        &self,
        context: Context,
        program: u32,
        width: u32,
        height: u32,
    ) -> Result<Comparer, GlError> {
        let scratch = self.target(context, width, height)?;
        let mut state = self.state();
        let query = u32::try_from(state.next().get()).unwrap();
        state.comparers.insert(query, true);
        Ok(Comparer { program, array: 1, query, scratch })
    }

    fn delete_comparer(&self, context: Context, comparer: Comparer) {
        assert!(self.state().comparers.remove(&comparer.query).is_some());
        self.delete_target(context, comparer.scratch);
    }

    fn start_comparing(
        &self,
        context: Context,
        comparer: Comparer,
        before: Target,
        now: Target,
    ) -> Result<(), GlError> {
        self.assert_current_exists(context);
        let mut state = self.state();
        let [before, now] =
            [before, now].map(|target| state.pictures[&(context.0.get(), target.texture)]);
        state.comparers.insert(comparer.query, before != now);
        Ok(())
    }

    fn differ(&self, context: Context, comparer: Comparer) -> bool {
        self.assert_current_exists(context);
        self.state().comparers[&comparer.query]
    }

    fn flush(&self, context: Context) {
        self.assert_current_exists(context);
    }

    fn has_fired(&self, sync: &EglSync) -> Result<bool, EglError> {
        let state = self.state();
        assert!(state.syncs.contains(&sync.0.get()));
        Ok(state.fired)
    }

    fn fence(&self, context: Context) -> Result<EglSync, EglError> {
        self.native_fence(context)
    }

    fn native_fence(&self, context: Context) -> Result<EglSync, EglError> {
        self.assert_current_exists(context);
        Ok(self.state().new_sync())
    }

    fn wait(&self, context: Context, sync: &EglSync) -> Result<(), EglError> {
        self.assert_current_exists(context);
        assert!(self.state().syncs.contains(&sync.0.get()));
        Ok(())
    }

    fn fence_of_sync(&self, sync: &EglSync) -> Result<OwnedFd, EglError> {
        assert!(self.state().syncs.contains(&sync.0.get()));
        Ok(memfd(&[], false).into())
    }

    fn destroy_sync(&self, sync: EglSync) {
        assert!(self.state().syncs.remove(&sync.0.get()));
    }
}

fn import_as(
    importer: &Arc<Importer<Fake>>,
    fourcc: DrmFourcc,
    modifier: DrmModifier,
) -> Result<Import<Fake>, ImportError> {
    let file = memfd(&[0; 1024], true);
    let planes = [BufferPlane { fd: file.as_fd(), offset: 0, stride: 64 }];
    importer.import(&Buffer {
        format: Format { fourcc, modifier },
        width: 16,
        height: 16,
        planes: &planes,
        color_space: ColorSpace::Rec601,
        full_range: false,
    })
}

fn import(importer: &Arc<Importer<Fake>>, fourcc: DrmFourcc) -> Result<Import<Fake>, ImportError> {
    import_as(importer, fourcc, DrmModifier::Linear)
}

#[test]
fn what_is_not_supported_never_becomes_an_image() {
    let (fake, importer) = Fake::new(|_| ());
    let tiled = import_as(&importer, DrmFourcc::Xrgb8888, DrmModifier::I915_y_tiled).unwrap_err();
    assert!(matches!(tiled, ImportError::Unsupported(_)), "{tiled}");
    let unknown = import(&importer, DrmFourcc::Rgb565).unwrap_err();
    assert_eq!(unknown.to_string(), "EGL cannot import RG16, but NV12, XR24, YUYV");
    let planes = import(&importer, DrmFourcc::Nv12).unwrap_err();
    assert_eq!(planes.to_string(), "NV12 LINEAR has 2 planes, but there are 1");
    assert_eq!(fake.state().images_made, 0);
}

#[test]
fn a_display_without_the_extension_says_so() {
    let (_, importer) = Fake::new(|state| state.extensions.import = false);
    let error = import(&importer, DrmFourcc::Xrgb8888).unwrap_err();
    let message = "EGL cannot import dma-bufs: no EGL_EXT_image_dma_buf_import";
    assert_eq!(error.to_string(), message);
    assert_eq!(importer.status()["imports-dmabufs"], false);
}

#[test]
fn an_import_ends_with_all_that_it_made() {
    let (fake, importer) = Fake::new(|_| ());
    let one = import(&importer, DrmFourcc::Xrgb8888).unwrap();
    assert!(fake.state().images.is_empty(), "the image is not needed any more");
    assert_eq!((fake.textures(), fake.state().draws), (1, 0));
    drop(one);
    assert_eq!((fake.textures(), importer.status()["imports"].as_u64()), (0, Some(0)));
}

#[test]
fn what_is_no_plain_texture_is_converted() {
    for fourcc in [DrmFourcc::Xrgb8888, DrmFourcc::Yuyv] {
        let (fake, importer) = Fake::new(|state| state.plain_textures = false);
        let one = import(&importer, fourcc).unwrap();
        assert!(one.is_converted());
        assert!(fake.state().images.is_empty());
        assert_eq!(fake.state().draws, 1);
        assert_eq!(one.begin().unwrap(), Usable::Yes);
        assert_eq!(fake.state().draws, 2);
        let other = import(&importer, fourcc).unwrap();
        one.release().unwrap();
        assert_eq!(fake.state().contexts.len(), 2, "there is something to convert");
        other.release().unwrap();
        assert_eq!(fake.state().contexts.len(), 1, "the host's context is left");
        assert_eq!(fake.objects(), (0, 0, 0));
    }
}

#[test]
fn a_conversion_that_cannot_be_names_what_is_missing() {
    let (fake, importer) = Fake::new(|state| state.extensions.configless = false);
    let error = import(&importer, DrmFourcc::Yuyv).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the picture needs a conversion, but the display lacks EGL_KHR_no_config_context"
    );
    assert_eq!((fake.textures(), fake.state().images.len()), (0, 0));
}

#[test]
fn a_lost_converter_is_made_again() {
    let (fake, importer) = Fake::new(|_| ());
    let one = import(&importer, DrmFourcc::Yuyv).unwrap();
    fake.state().make_current = Some(EglErrorCode::ContextLost);
    assert_eq!(one.begin().unwrap(), Usable::NotHere);
    fake.state().make_current = None;
    assert_eq!(one.begin().unwrap(), Usable::NotHere);
    let again = import(&importer, DrmFourcc::Yuyv).unwrap();
    assert_eq!(again.begin().unwrap(), Usable::Yes);
    one.release().unwrap();
    again.release().unwrap();
    assert_eq!(fake.textures(), 0);
}

#[test]
fn a_texture_of_the_same_name_is_not_deleted() {
    for keeps_labels in [true, false] {
        let (fake, importer) = Fake::new(|state| state.keeps_labels = keeps_labels);
        let one = import(&importer, DrmFourcc::Xrgb8888).unwrap();
        let mine = fake.state().current;
        let other = {
            let mut state = fake.state();
            let other = state.new_context();
            state.new_texture(other, 99);
            state.current = Some(other);
            other
        };
        assert_eq!(one.begin().unwrap(), Usable::NotHere);
        one.release().unwrap();
        assert_eq!(fake.state().current, Some(other));
        assert_eq!(fake.state().textures(other).len(), 1);
        assert_eq!(fake.state().textures(mine.unwrap()).len(), 0);
    }
}

#[test]
fn a_context_that_is_gone_is_no_error_and_one_in_use_is() {
    let (fake, importer) = Fake::new(|_| ());
    let gone = import(&importer, DrmFourcc::Xrgb8888).unwrap();
    let first = fake.state().current.take().unwrap();
    fake.destroy_context(first);
    gone.release().unwrap();

    let second = fake.state().new_context();
    fake.state().current = Some(second);
    let busy = import(&importer, DrmFourcc::Xrgb8888).unwrap();
    fake.state().current = None;
    fake.state().make_current = Some(EglErrorCode::BadAccess);
    let error = busy.release().unwrap_err();
    assert_eq!(error.to_string(), "texture 1 stays: eglMakeCurrent: EGL_BAD_ACCESS");
    assert!(importer.has_orphans());
    importer.sweep();
    assert!(importer.has_orphans(), "it is in use still");
    fake.state().make_current = None;
    importer.sweep();
    assert_eq!((importer.has_orphans(), fake.objects()), (false, (0, 0, 0)));
}

#[test]
fn what_a_driver_refuses_is_not_tried_again_and_harms_no_other_kind() {
    let (fake, importer) = Fake::new(|_| ());
    let message = "eglCreateImageKHR: EGL_BAD_ALLOC (stride 64)";
    fake.state().image_error = Some(EglErrorCode::BadAlloc);
    for _ in 0..3 {
        let error = import(&importer, DrmFourcc::Xrgb8888).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    assert_eq!(fake.state().images_made, 1, "the first answer counts");
    fake.state().image_error = None;
    let file = memfd(&[0; 1024], true);
    let planes = [BufferPlane { fd: file.as_fd(), offset: 0, stride: 64 }];
    let format = Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::Linear };
    let color_space = ColorSpace::Rec601;
    let refused =
        Buffer { format, width: 16, height: 16, planes: &planes, color_space, full_range: false };
    assert_eq!(importer.check(&refused).unwrap_err().to_string(), message);
    let smaller = Buffer { height: 15, ..refused };
    importer.check(&smaller).unwrap();
    importer.import(&smaller).unwrap().release().unwrap();
    import(&importer, DrmFourcc::Yuyv).unwrap().release().unwrap();
    assert_eq!(importer.check(&refused).unwrap_err().to_string(), message);
}

#[test]
fn what_cannot_be_drawn_any_more_is_refused_from_then_on() {
    let (fake, importer) = Fake::new(|_| ());
    let one = import(&importer, DrmFourcc::Yuyv).unwrap();
    fake.state().draw_error = Some(GL_OUT_OF_MEMORY);
    let message = "the picture needs a conversion, but glDrawArrays: GL_OUT_OF_MEMORY";
    assert_eq!(one.begin().unwrap_err().to_string(), message);
    let again = import(&importer, DrmFourcc::Yuyv).unwrap_err();
    assert_eq!(again.to_string(), message);
    one.release().unwrap();
    assert_eq!(fake.objects(), (0, 0, 0));
}

#[test]
fn a_converter_that_is_lost_again_at_once_is_given_up() {
    let (fake, importer) = Fake::new(|_| ());
    let one = import(&importer, DrmFourcc::Yuyv).unwrap();
    fake.state().make_current = Some(EglErrorCode::ContextLost);
    let error = import(&importer, DrmFourcc::Yuyv).unwrap_err();
    let message = "the picture needs a conversion, but eglMakeCurrent: EGL_CONTEXT_LOST";
    assert_eq!(error.to_string(), message);
    fake.state().make_current = None;
    assert!(import(&importer, DrmFourcc::Yuyv).is_err(), "twice in a row is no accident");
    drop(one);
    assert_eq!(fake.objects(), (0, 0, 0));
}

#[test]
fn contexts_that_take_no_images_are_known_after_the_first() {
    let (fake, importer) = Fake::new(|state| state.takes_no_images = true);
    let message = "GL cannot make textures of dma-bufs: no GL_OES_EGL_image, nor \
                   GL_EXT_EGL_image_storage";
    let error = import(&importer, DrmFourcc::Xrgb8888).unwrap_err();
    assert_eq!(error.to_string(), message);
    fake.state().takes_no_images = false;
    let error = import(&importer, DrmFourcc::Yuyv).unwrap_err();
    assert_eq!(error.to_string(), message);
    assert_eq!(fake.state().images_made, 0);
}

#[test]
fn what_a_display_cannot_list_costs_that_and_no_more() {
    let (_, importer) = Fake::new(|state| state.unlisted = Some(DrmFourcc::Yuyv));
    let error = import(&importer, DrmFourcc::Yuyv).unwrap_err();
    assert_eq!(error.to_string(), "EGL cannot import YUYV, but NV12, XR24");
    assert!(import(&importer, DrmFourcc::Xrgb8888).is_ok());
    let (_, importer) = Fake::new(|state| state.formats_error = true);
    assert!(import(&importer, DrmFourcc::Xrgb8888).is_ok());
    assert!(import_as(&importer, DrmFourcc::Xrgb8888, DrmModifier::I915_x_tiled).is_err());
}

#[test]
fn a_sync_ends_where_there_is_no_way_back() {
    let (fake, importer) = Fake::new(|_| ());
    let one = import(&importer, DrmFourcc::Yuyv).unwrap();
    fake.state().go_back = Some(EglErrorCode::BadSurface);
    assert!(one.begin().is_err());
    assert!(fake.state().syncs.is_empty());
    fake.state().go_back = None;
    drop(one);
    assert_eq!(fake.objects(), (0, 0, 0));
}

#[test]
fn fences_are_given_once_and_syncs_end() {
    let (fake, importer) = Fake::new(|_| ());
    let mut one = import(&importer, DrmFourcc::Xrgb8888).unwrap();
    assert!(one.take_fence().unwrap().is_none());
    one.drew().unwrap();
    one.drew().unwrap();
    assert_eq!(fake.state().syncs.len(), 1, "the later one counts");
    assert!(one.take_fence().unwrap().is_some());
    assert!(one.take_fence().unwrap().is_none());
    one.drew().unwrap();
    one.release().unwrap();
    assert!(fake.state().syncs.is_empty());
}

#[test]
fn a_display_is_asked_for_its_renderer_unless_its_device_is_the_cpu() {
    for (told, renderer, software) in [
        (None, "llvmpipe (LLVM 19.1)", true),
        (None, "Mesa Intel(R) UHD", false),
        (Some(false), "llvmpipe (LLVM 15.0.6, 256 bits)", true),
        (Some(false), "Mesa Intel(R) UHD", false),
        (Some(true), "anything", true),
    ] {
        let (fake, importer) = Fake::new(|state| {
            state.software_device = told;
            renderer.clone_into(&mut state.renderer);
            state.current = None;
        });
        assert_eq!(importer.status()["software"], software);
        assert_eq!(fake.state().contexts.len(), 1, "the context that asked is gone");
        assert_eq!(fake.state().current, None);
    }
}

#[test]
fn software_on_a_device_is_given_nothing_to_read() {
    let why =
        "EGL draws with the CPU on a DRM device that is no GPU, and cannot read what others export";
    let (fake, importer) = Fake::new(|state| {
        state.renderer = "llvmpipe".to_owned();
        state.reads_through_device = true;
    });
    assert_eq!(import(&importer, DrmFourcc::Xrgb8888).unwrap_err().to_string(), why);
    assert_eq!(fake.objects(), (0, 0, 0));
    let made = fake.state().images_made;
    assert_eq!(import(&importer, DrmFourcc::Xrgb8888).unwrap_err().to_string(), why);
    assert_eq!(fake.state().images_made, made, "it is not tried again");

    let (fake, importer) = Fake::new(|state| state.reads_through_device = true);
    let one = import(&importer, DrmFourcc::Xrgb8888).unwrap();
    assert_eq!(fake.state().images_made, 1, "a GPU is not tried");
    drop(one);
}

#[test]
fn pictures_larger_than_a_texture_are_refused() {
    let (fake, importer) = Fake::new(|_| ());
    let file = memfd(&[0; 65 * 4], true);
    let planes = [BufferPlane { fd: file.as_fd(), offset: 0, stride: 65 * 4 }];
    let error = importer
        .import(&Buffer {
            format: Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::Linear },
            width: 65,
            height: 1,
            planes: &planes,
            color_space: ColorSpace::Rec601,
            full_range: false,
        })
        .unwrap_err();
    assert_eq!(error.to_string(), "65x1 is more than the 64x64 of a texture");
    assert_eq!(fake.state().images_made, 0);
}

/// A console whose front end makes textures when it shows a picture.
struct Front {
    inner: FakeConsole,
    importer: Arc<Importer<Fake>>,
}

/// A dma-buf in such a console.
struct Kept {
    inner: crate::testing::Import,
    file: OwnedFd,
    geometry: Geometry,
    texture: RefCell<Option<Import<Fake>>>,
}

impl Front {
    fn draw(&self, kept: &Kept) {
        let Geometry { format, width, height, stride, .. } = kept.geometry;
        let planes = [BufferPlane { fd: kept.file.as_fd(), offset: 0, stride }];
        let color_space = ColorSpace::Rec601;
        let buffer =
            Buffer { format, width, height, planes: &planes, color_space, full_range: false };
        let mut texture = kept.texture.borrow_mut();
        match texture.as_ref().map(Import::begin) {
            Some(usable) => assert_eq!(usable.unwrap(), Usable::Yes),
            None => *texture = Some(self.importer.import(&buffer).unwrap()),
        }
        let import = texture.as_mut().unwrap();
        import.drew().unwrap();
        import.take_fence().unwrap();
    }
}

impl Console for Front {
    type Import = Kept;
    type Canvas = FakeCanvas;

    fn scanout_support(&self, _: BorrowedFd<'_>, _: &Geometry, _: Option<&Kept>) -> ScanoutSupport {
        ScanoutSupport::Import
    }

    fn import(&self, buffer: BorrowedFd<'_>, geometry: &Geometry) -> Kept {
        Kept {
            inner: self.inner.import(buffer, geometry),
            file: buffer.try_clone_to_owned().unwrap(),
            geometry: *geometry,
            texture: RefCell::default(),
        }
    }

    fn release(&self, kept: Kept) {
        self.inner.release(kept.inner);
        kept.texture.into_inner().map_or(Ok(()), Import::release).unwrap();
    }

    fn scanout(&self, kept: &Kept) {
        self.inner.scanout(&kept.inner);
        self.draw(kept);
    }

    fn scanout_cursor(&self, cursor: Option<&Kept>, hotspot: Option<(u32, u32)>) {
        self.inner.scanout_cursor(cursor.map(|kept| &kept.inner), hotspot);
        if let Some(kept) = cursor {
            self.draw(kept);
        }
    }

    fn update_scanout(&self, part: Rect) {
        self.inner.update_scanout(part);
    }

    fn show_surface(&self, width: u32, height: u32) -> Option<FakeCanvas> {
        self.inner.show_surface(width, height)
    }

    fn show_memory(&self, memory: &Arc<Memory>, geometry: &Geometry) -> bool {
        self.inner.show_memory(memory, geometry)
    }

    fn update_surface(&self, part: Rect) {
        self.inner.update_surface(part);
    }

    fn show_message(&self, width: u32, height: u32, text: &str) {
        self.inner.show_message(width, height, text);
    }

    fn show_firmware(&self, switch_to: bool) -> bool {
        self.inner.show_firmware(switch_to)
    }

    fn move_scanout_cursor(&self, x: i32, y: i32) {
        self.inner.move_scanout_cursor(x, y);
    }

    fn surface_cursor(&self, cursor: Option<&CursorImage<'_>>) {
        self.inner.surface_cursor(cursor);
    }

    fn move_surface_cursor(&self, x: i32, y: i32) {
        self.inner.move_surface_cursor(x, y);
    }

    fn refresh_done(&self) {}

    fn request_refresh(&self) {
        self.inner.request_refresh();
    }

    fn log(&self, severity: Severity, message: fmt::Arguments<'_>) {
        self.inner.log(severity, message);
    }
}

#[test]
fn after_a_hundred_thousand_flips_there_are_textures_for_what_is_in_the_pool() {
    for plain_textures in [true, false] {
        let (fake, importer) = Fake::new(|state| state.plain_textures = plain_textures);
        let (device, inner) = (FakeDevice::default(), FakeConsole::default());
        let front = Front { inner: inner.clone(), importer: Arc::clone(&importer) };
        let config = Config::default();
        let mut display =
            Display::new(device.clone(), front, ManualClock::default(), Mode::DmaBuf, config);
        let xr24 = DrmFourcc::Xrgb8888 as u32;
        device.point(PlaneInfo { drm_format: xr24, ..cursor(1000, 1, 1) }, 0);
        // From one buffer to more than the pool holds, each number twice, with two sizes.
        for mode in 0..20_u32 {
            let (buffers, side) =
                ([1, 2, 3, 8, 40][mode as usize % 5], [16, 32][mode as usize % 2]);
            let first = mode * 50;
            (first..first + buffers).for_each(|id| device.add(&plane(id, side, side), 0));
            for flip in 0..5000 {
                device.set().primary = plane(first + flip % buffers, side, side);
                display.refresh(true);
                inner.take_calls();
                device.take_gets();
            }
            let held = display.status()["pool"]["buffers"].as_u64().unwrap();
            assert!(held <= u64::from(buffers) + 41, "{held} buffers are held");
            let shown = inner.get().imports.len();
            assert_eq!(importer.status()["imports"], shown, "those that the console has");
            assert!(u64::try_from(shown).unwrap() <= held, "and those are in the pool");
            // A conversion has the dma-buf's image, its own, and the host's.
            let textures = if plain_textures { shown } else { 3 * shown };
            assert_eq!(fake.objects(), (textures, 0, 0));
        }
        drop(display);
        assert_eq!(importer.status()["imports"], 0);
        assert_eq!(fake.objects(), (0, 0, 0));
    }
}

/// A host that draws pictures, and what was read back.
struct Reader {
    fake: Fake,
    read_back: ReadBack<Fake>,
    has: Option<u8>,
}

impl Reader {
    fn new(change: impl FnOnce(&mut State)) -> Self {
        let (fake, importer) = Fake::new(|state| {
            state.extensions.native_fence = false;
            state.shading = Some(Shading::Gl);
            change(state);
        });
        Self { fake, read_back: ReadBack::new(importer), has: None }
    }

    fn draw(&mut self, picture: u8, drawn: Drawn) {
        let texture = self.read_back.target(8, 4).unwrap().expect("a texture");
        let context = self.fake.state().current.unwrap();
        self.fake.state().pictures.insert((context.0.get(), texture), picture);
        self.read_back.start(drawn).unwrap();
    }

    fn take(&mut self, wait: bool) -> Result<Taken, ReadBackError> {
        let has = &mut self.has;
        self.read_back.take(wait, &mut |bytes| {
            assert_eq!(bytes.len(), 8 * 4 * 4);
            *has = Some(bytes[0]);
        })
    }

    /// Takes what was read back once the GPU has finished everything.
    fn settle(&mut self) -> Taken {
        self.fake.state().fired = true;
        let taken = self.take(false).unwrap();
        self.fake.state().fired = false;
        assert!(!self.read_back.is_busy());
        taken
    }

    /// Pictures that were read, and those that were not because they were the same.
    fn counts(&self) -> (u64, u64) {
        let status = self.read_back_status();
        (status["read-back"].as_u64().unwrap(), status["unchanged"].as_u64().unwrap())
    }

    fn read_back_status(&self) -> serde_json::Value {
        self.read_back.importer().status()
    }

    /// Textures, syncs, buffers and comparers.
    fn objects(&self) -> [usize; 4] {
        let textures = self.fake.textures();
        let state = self.fake.state();
        [textures, state.syncs.len(), state.pixel_buffers.len(), state.comparers.len()]
    }
}

#[test]
fn a_picture_is_read_once_and_only_when_it_is_there() {
    let mut reader = Reader::new(|_| ());
    reader.draw(1, Drawn::Anew);
    assert_eq!((reader.take(false), reader.has), (Ok(Taken::Nothing), None));
    assert_eq!((reader.settle(), reader.has), (Taken::Picture, Some(1)));
    assert_eq!(reader.settle(), Taken::Nothing);
    for _ in 0..5 {
        reader.draw(1, Drawn::Perhaps);
        assert_eq!(reader.settle(), Taken::Nothing);
    }
    assert_eq!(reader.counts(), (1, 5));
}

#[test]
fn what_is_drawn_in_place_is_found() {
    let mut reader = Reader::new(|_| ());
    for (picture, read) in [(1, 1), (2, 2), (2, 2), (3, 3), (1, 4)] {
        reader.draw(picture, Drawn::Perhaps);
        reader.settle();
        assert_eq!((reader.has, reader.counts().0), (Some(picture), read));
    }
}

#[test]
fn what_comes_while_a_picture_is_on_its_way_is_read_once() {
    let mut reader = Reader::new(|_| ());
    reader.draw(1, Drawn::Anew);
    for picture in 2..=9 {
        reader.draw(picture, if picture == 5 { Drawn::Anew } else { Drawn::Perhaps });
    }
    assert_eq!(reader.objects()[1], 1, "one work is under way");
    assert_eq!((reader.settle(), reader.has), (Taken::Picture, Some(9)));
    assert_eq!(reader.counts(), (2, 0));
}

#[test]
fn who_waits_gets_what_was_drawn_last() {
    let mut reader = Reader::new(|_| ());
    reader.draw(1, Drawn::Anew);
    reader.settle();
    reader.draw(2, Drawn::Perhaps);
    reader.draw(3, Drawn::Perhaps);
    assert_eq!((reader.take(true), reader.has), (Ok(Taken::Picture), Some(3)));
    assert_eq!(reader.take(true), Ok(Taken::Nothing));
    assert!(!reader.read_back.is_busy());
}

#[test]
fn a_host_that_has_lost_its_picture_gets_it_again() {
    let mut reader = Reader::new(|_| ());
    reader.draw(1, Drawn::Anew);
    reader.settle();
    reader.draw(2, Drawn::Anew);
    reader.read_back.forget();
    assert_eq!((reader.settle(), reader.has), (Taken::Nothing, Some(1)));
    reader.has = None;
    reader.draw(1, Drawn::Perhaps);
    assert_eq!((reader.settle(), reader.has), (Taken::Picture, Some(1)));
}

#[test]
fn the_fence_can_be_watched_where_there_are_native_ones() {
    let mut reader = Reader::new(|state| state.extensions.native_fence = true);
    assert!(reader.read_back.fence().is_none());
    reader.draw(1, Drawn::Anew);
    assert!(reader.read_back.fence().is_some());
    assert_eq!((reader.take(false), reader.has), (Ok(Taken::Picture), Some(1)));
    assert!(reader.read_back.fence().is_none());
}

#[test]
fn another_size_or_context_starts_anew_and_leaves_nothing_behind() {
    let mut reader = Reader::new(|_| ());
    reader.draw(1, Drawn::Anew);
    let one = reader.objects();
    reader.read_back.target(16, 16).unwrap().unwrap();
    assert_eq!(reader.objects(), [one[0], 0, one[2], one[3]]);
    assert_eq!(reader.take(true), Ok(Taken::Nothing));

    reader.draw(2, Drawn::Perhaps);
    let other = reader.fake.state().new_context();
    reader.fake.state().current = Some(other);
    reader.draw(3, Drawn::Perhaps);
    assert_eq!((reader.settle(), reader.has), (Taken::Picture, Some(3)));
    assert_eq!(reader.objects(), [one[0], 0, one[2], one[3]]);
    let Reader { fake, read_back, .. } = reader;
    drop(read_back);
    assert_eq!((fake.objects(), fake.state().pixel_buffers.len()), ((0, 0, 0), 0));
}

#[test]
fn a_context_in_the_place_of_ours_keeps_its_objects() {
    let mut reader = Reader::new(|_| ());
    reader.draw(1, Drawn::Anew);
    let context = reader.fake.state().current.unwrap();
    {
        let mut state = reader.fake.state();
        state.textures(context).values_mut().for_each(|label| *label = 99);
    }
    assert_eq!(reader.take(true), Err(ReadBackError::ContextGone));
    assert_eq!(reader.objects()[0], 3, "they are another one's");
    reader.draw(2, Drawn::Perhaps);
    assert_eq!((reader.settle(), reader.has), (Taken::Picture, Some(2)));
}

#[test]
fn a_lost_context_costs_a_picture_and_no_more() {
    let mut reader = Reader::new(|_| ());
    reader.draw(1, Drawn::Anew);
    let lost = reader.fake.state().current.take().unwrap();
    reader.fake.destroy_context(lost);
    assert!(reader.take(true).is_err());
    assert!(!reader.read_back.is_busy());
    let context = reader.fake.state().new_context();
    reader.fake.state().current = Some(context);
    reader.draw(2, Drawn::Perhaps);
    assert_eq!((reader.settle(), reader.has), (Taken::Picture, Some(2)));
    assert_eq!(reader.objects()[1], 0);
}

#[test]
fn what_a_context_cannot_do_is_left_to_the_host() {
    let mut old = Reader::new(|state| state.shading = None);
    assert_eq!(old.read_back.target(8, 4), Ok(None));
    assert_eq!(old.objects(), [0; 4]);

    let mut failures = Reader::new(|state| state.reading_error = Some(GL_INVALID_OPERATION));
    assert!(failures.read_back.target(8, 4).unwrap().is_some());
    let error = failures.read_back.start(Drawn::Anew).unwrap_err();
    assert_eq!(error.to_string(), "glReadPixels: GL_INVALID_OPERATION");
    assert_eq!(failures.objects(), [0; 4]);
    assert_eq!(failures.read_back.target(8, 4), Ok(None), "it is not tried again");

    let mut large = Reader::new(|_| ());
    let error = large.read_back.target(65, 1).unwrap_err();
    assert_eq!(error.to_string(), "65x1 is not within 1x1 and the 64x64 of a texture");
}
