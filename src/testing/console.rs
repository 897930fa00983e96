//! A console that records its calls.

use std::cell::{Cell, Ref, RefCell, RefMut};
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::sync::Arc;

use drm_fourcc::DrmFourcc;

use crate::console::{Console, CursorImage, ScanoutSupport, Severity};
use crate::damage::{Canvas, Rect};
use crate::memory::Memory;
use crate::plane::Geometry;

/// A console that checks its calls, and records them.
#[derive(Clone, Debug, Default)]
pub struct FakeConsole(Rc<RefCell<State>>);

/// The state of the console, and its calls.
#[derive(Debug, Default)]
pub struct State {
    /// What front ends do with dma-bufs.
    pub support: ScanoutSupport,
    /// The only formats that it imports; empty: all.
    pub formats: Vec<DrmFourcc>,
    /// Whether there is a framebuffer of the firmware.
    pub firmware: bool,
    /// Maximum number of pixels of a surface; 0: any number.
    pub surface_limit: u32,
    /// Whether it can show memory of others.
    pub refuses_memory: bool,
    /// The memory that it shows.
    pub memory: Option<SeenMemory>,
    /// Whether front ends hold memory after it is not shown any more.
    pub keeps_memory: bool,
    /// What they hold.
    pub kept: Vec<Arc<Memory>>,
    /// Returns what is shown.
    pub shows: Shows,
    /// The pointer above a scanout.
    pub cursor: Option<u32>,
    /// The buffers that are imported: their numbers, inodes and geometries.
    pub imports: BTreeMap<u32, (u64, Geometry)>,
    /// One-shot refreshes that are complete.
    pub refresh_done: u64,
    /// Messages, without traces.
    pub log: Vec<(Severity, String)>,
    calls: Vec<Call>,
    next_import: u32,
    /// Canvases of surfaces that are not shown any more must not be drawn on.
    surface: Rc<Cell<u64>>,
}

/// What a console shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Shows {
    /// Nothing yet.
    #[default]
    Nothing,
    /// An import, by its number.
    Scanout(u32),
    /// A surface of this many pixels, or memory with a picture of this many.
    Surface(u32, u32),
    /// A text.
    Message(String),
    /// The firmware's framebuffer.
    Firmware,
}

/// A call of the console.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the functions of Console")]
pub enum Call {
    Import(u32),
    Release(u32),
    Scanout(u32),
    UpdateScanout(Rect),
    ShowSurface(u32, u32),
    ShowMemory(u32, u32),
    UpdateSurface(Rect),
    ShowMessage(u32, u32, String),
    ShowFirmware(bool),
    ScanoutCursor(Option<u32>, Option<(u32, u32)>),
    MoveScanoutCursor(i32, i32),
    SurfaceCursor(Option<Image>),
    MoveSurfaceCursor(i32, i32),
    RequestRefresh,
}

/// The pixels of a cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the fields of CursorImage")]
pub struct Image {
    pub width: u32,
    pub height: u32,
    pub hotspot: (u32, u32),
    pub pixels: Vec<u8>,
}

/// A buffer that the console imported.
#[derive(Debug)]
pub struct Import(u32);

/// Memory of others that is shown.
#[derive(Debug)]
pub struct SeenMemory {
    memory: Arc<Memory>,
    geometry: Geometry,
    /// The rows as of the last update, without padding.
    pub rows: Vec<u8>,
}

impl SeenMemory {
    fn see(&mut self, part: Rect) {
        let row = self.geometry.width as usize * 4;
        for y in part.y..part.y + part.height {
            let offset = u64::from(y) * u64::from(self.geometry.stride) + u64::from(part.x) * 4;
            let to = &mut self.rows[y as usize * row + part.x as usize * 4..];
            let to = &mut to[..part.width as usize * 4];
            self.memory.read(offset, to).expect("memory that is shown can be read");
        }
    }
}

/// Pixels of a surface.
#[derive(Debug)]
pub struct FakeCanvas {
    /// The rows, with some padding.
    pub rows: Vec<u8>,
    /// Bytes from a row to the next.
    pub stride: usize,
    number: u64,
    shown: Rc<Cell<u64>>,
}

impl Canvas for FakeCanvas {
    fn stride(&self) -> usize {
        self.stride
    }

    fn pixels(&mut self) -> &mut [u8] {
        assert_eq!(self.number, self.shown.get(), "a surface is drawn that is not shown any more");
        &mut self.rows
    }
}

impl FakeConsole {
    /// Returns its state.
    pub fn get(&self) -> Ref<'_, State> {
        self.0.borrow()
    }

    /// As [`FakeConsole::get`], to change it.
    pub fn set(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }

    /// Returns its calls since the last time.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.set().calls)
    }

    /// Returns the messages since the last time.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.set().log).into_iter().map(|(_, text)| text).collect()
    }

    /// Returns the text that is shown, if one is.
    pub fn message(&self) -> Option<String> {
        match &self.get().shows {
            Shows::Message(text) => Some(text.clone()),
            _ => None,
        }
    }

    /// Returns the inode of the buffer that is scanned out.
    pub fn scanned_out(&self) -> Option<u64> {
        let state = self.get();
        match state.shows {
            Shows::Scanout(number) => Some(state.imports[&number].0),
            _ => None,
        }
    }

    /// Ends the surface that is shown.
    fn show(&self, shows: Shows, call: Call) -> RefMut<'_, State> {
        let mut state = self.set();
        state.end_surface();
        state.shows = shows;
        state.calls.push(call);
        state
    }
}

impl State {
    fn end_surface(&mut self) {
        self.surface.set(self.surface.get() + 1);
        let seen = self.memory.take();
        if self.keeps_memory {
            self.kept.extend(seen.map(|seen| seen.memory));
        }
    }
}

fn is_within(part: &Rect, width: u32, height: u32) -> bool {
    let fits =
        |at: u32, len: u32, max| len > 0 && at.checked_add(len).is_some_and(|end| end <= max);
    fits(part.x, part.width, width) && fits(part.y, part.height, height)
}

fn metadata(buffer: BorrowedFd<'_>) -> Metadata {
    let file = File::from(buffer.try_clone_to_owned().expect("the descriptor is open"));
    file.metadata().expect("the descriptor is open")
}

impl Console for FakeConsole {
    type Import = Import;
    type Canvas = FakeCanvas;

    fn scanout_support(
        &self,
        buffer: BorrowedFd<'_>,
        geometry: &Geometry,
        import: Option<&Import>,
    ) -> ScanoutSupport {
        let state = self.get();
        if let Some(Import(number)) = import {
            let (inode, imported) = &state.imports[number];
            assert_eq!((metadata(buffer).ino(), geometry), (*inode, imported), "import {number}");
        }
        let knows = state.formats.is_empty() || state.formats.contains(&geometry.format.fourcc);
        if knows { state.support } else { ScanoutSupport::None }
    }

    fn import(&self, buffer: BorrowedFd<'_>, geometry: &Geometry) -> Import {
        let metadata = metadata(buffer);
        assert!(metadata.len() >= geometry.bytes_needed(), "a buffer too small for {geometry}");
        let mut state = self.set();
        let number = state.next_import;
        state.next_import += 1;
        state.imports.insert(number, (metadata.ino(), *geometry));
        state.calls.push(Call::Import(number));
        Import(number)
    }

    fn release(&self, Import(number): Import) {
        let mut state = self.set();
        assert!(state.imports.remove(&number).is_some(), "import {number} is released twice");
        assert_ne!(state.shows, Shows::Scanout(number), "the scanout is released");
        assert_ne!(state.cursor, Some(number), "the pointer is released");
        state.calls.push(Call::Release(number));
    }

    fn scanout(&self, Import(number): &Import) {
        assert!(self.get().imports.contains_key(number), "import {number} was released");
        self.show(Shows::Scanout(*number), Call::Scanout(*number));
    }

    fn update_scanout(&self, part: Rect) {
        let mut state = self.set();
        let Shows::Scanout(number) = state.shows else {
            panic!("a scanout is updated while the console shows {:?}", state.shows);
        };
        let (_, geometry) = state.imports[&number];
        assert!(is_within(&part, geometry.width, geometry.height), "{part:?} of {geometry}");
        state.calls.push(Call::UpdateScanout(part));
    }

    fn show_surface(&self, width: u32, height: u32) -> Option<FakeCanvas> {
        assert!(width > 0 && height > 0);
        let limit = self.get().surface_limit;
        if limit != 0 && width * height > limit {
            return None;
        }
        let state = self.show(Shows::Surface(width, height), Call::ShowSurface(width, height));
        let stride = width as usize * 4 + 16;
        Some(FakeCanvas {
            rows: vec![0xee; stride * height as usize],
            stride,
            number: state.surface.get(),
            shown: Rc::clone(&state.surface),
        })
    }

    fn show_memory(&self, memory: &Arc<Memory>, geometry: &Geometry) -> bool {
        let Geometry { width, height, stride, .. } = *geometry;
        assert!(memory.in_place(u64::from(stride) * u64::from(height)).is_some());
        if self.get().refuses_memory {
            return false;
        }
        let mut state = self.show(Shows::Surface(width, height), Call::ShowMemory(width, height));
        let rows = vec![0xee; width as usize * height as usize * 4];
        state.memory = Some(SeenMemory { memory: Arc::clone(memory), geometry: *geometry, rows });
        true
    }

    fn update_surface(&self, part: Rect) {
        let mut state = self.set();
        let Shows::Surface(width, height) = state.shows else {
            panic!("a surface is updated while the console shows {:?}", state.shows);
        };
        assert!(is_within(&part, width, height), "{part:?} of {width}x{height}");
        if let Some(seen) = &mut state.memory {
            seen.see(part);
        }
        state.calls.push(Call::UpdateSurface(part));
    }

    fn show_message(&self, width: u32, height: u32, text: &str) {
        assert!(width > 0 && height > 0);
        let call = Call::ShowMessage(width, height, text.to_owned());
        self.show(Shows::Message(text.to_owned()), call);
    }

    fn show_firmware(&self, switch_to: bool) -> bool {
        let mut state = self.set();
        if state.firmware {
            assert_eq!(switch_to, state.shows != Shows::Firmware);
            state.calls.push(Call::ShowFirmware(switch_to));
            state.end_surface();
            state.shows = Shows::Firmware;
        }
        state.firmware
    }

    fn scanout_cursor(&self, cursor: Option<&Import>, hotspot: Option<(u32, u32)>) {
        let mut state = self.set();
        let number = cursor.map(|Import(number)| *number);
        if let Some(number) = number {
            assert!(state.imports.contains_key(&number), "import {number} was released");
            assert!(matches!(state.shows, Shows::Scanout(_)), "above {:?}", state.shows);
        }
        state.cursor = number;
        state.calls.push(Call::ScanoutCursor(number, hotspot));
    }

    fn move_scanout_cursor(&self, x: i32, y: i32) {
        let mut state = self.set();
        assert!(state.cursor.is_some(), "there is no pointer to move");
        state.calls.push(Call::MoveScanoutCursor(x, y));
    }

    fn surface_cursor(&self, cursor: Option<&CursorImage<'_>>) {
        let mut state = self.set();
        let image = cursor.map(|image| {
            let CursorImage { width, height, hotspot, pixels } = *image;
            assert_eq!(pixels.len(), width as usize * height as usize * 4);
            let shows = &state.shows;
            assert!(matches!(shows, Shows::Surface(..) | Shows::Scanout(_)), "above {shows:?}");
            assert!(state.cursor.is_none(), "there is a pointer above the scanout");
            Image { width, height, hotspot, pixels: pixels.to_vec() }
        });
        state.calls.push(Call::SurfaceCursor(image));
    }

    fn move_surface_cursor(&self, x: i32, y: i32) {
        self.set().calls.push(Call::MoveSurfaceCursor(x, y));
    }

    fn request_refresh(&self) {
        self.set().calls.push(Call::RequestRefresh);
    }

    fn refresh_done(&self) {
        self.set().refresh_done += 1;
    }

    fn log(&self, severity: Severity, message: fmt::Arguments<'_>) {
        if severity != Severity::Trace {
            self.set().log.push((severity, message.to_string()));
        }
    }
}
