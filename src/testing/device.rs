//! A device whose answers a test writes.

use std::cell::{Ref, RefCell, RefMut};
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use crate::console::Monitor;
use crate::device::{Device, RegionInfo, RegionMemory};
use crate::plane::{PlaneInfo, PlaneKind};

use super::Memfds;

/// A hook that runs once during a device call.
type Act = Box<dyn FnOnce()>;

/// A hook that runs during every device call.
type Habit = Box<dyn Fn()>;

/// A device that answers as its fields say.
#[derive(Clone, Default)]
pub struct FakeDevice {
    inner: Rc<RefCell<Inner>>,
    on_next_query: Rc<RefCell<Option<Act>>>,
    on_next_write: Rc<RefCell<Option<Act>>>,
    on_each_call: Rc<RefCell<Option<Habit>>>,
    files: Memfds,
}

/// The state of the device, and its calls.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
pub struct Inner {
    /// The flags of the probes that it grants.
    pub probes: u32,
    /// The primary plane; zeros: there is none now.
    pub primary: PlaneInfo,
    /// The cursor plane; zeros: there is none now.
    pub cursor: PlaneInfo,
    /// Whether it leaves the request unchanged if there is no plane, as gvt does.
    pub leaves_question: bool,
    /// The dma-bufs that can be got.
    pub dma_bufs: HashMap<u32, File>,
    /// Whether it keeps no descriptor of what it gave, so that the display closes the last one.
    pub gives_away: bool,
    /// What the guest flips to before each get; the buffer shown before is then gone.
    pub flips_before_gets: VecDeque<PlaneInfo>,
    /// Its regions with pixels.
    pub regions: HashMap<u32, FakeRegion>,
    /// Whether ids mean the same over a reset, as with kernel drivers.
    pub keeps_ids: bool,
    /// Its region with the EDID.
    pub edid: Option<FakeEdid>,
    /// How long an EDID is.
    pub edid_len: usize,
    /// The monitors that EDIDs were asked for.
    pub monitors: Vec<Monitor>,
    /// Whether it can signal changes.
    pub has_events: bool,
    /// The eventfd that it signals.
    pub event: Option<OwnedFd>,
    /// How requests for signals fail.
    pub event_errors: Errors,
    /// How queries of the primary plane fail.
    pub primary_errors: Errors,
    /// How queries of the cursor plane fail.
    pub cursor_errors: Errors,
    /// How gets fail.
    pub get_errors: Errors,
    /// How requests for region info fail.
    pub region_errors: Errors,
    /// How reads of regions fail.
    pub read_errors: Errors,
    /// How writes to regions fail.
    pub write_errors: Errors,
    /// The calls so far.
    pub counts: Counts,
    /// Writes to regions, so far.
    pub writes: Vec<Write>,
}

/// How often the device was called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Queries of the primary plane, without probes.
    pub primary: u32,
    /// Queries of the cursor plane.
    pub cursor: u32,
    /// Gets, by id, in their order.
    pub gets: Vec<u32>,
    /// Requests for region info.
    pub regions: u32,
    /// Reads from regions.
    pub reads: u32,
}

/// A write to a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Index of the region.
    pub region: u32,
    /// Offset.
    pub offset: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A region with pixels.
#[derive(Debug)]
pub struct FakeRegion {
    /// Size in bytes, as the device says.
    pub size: u64,
    /// Its bytes.
    pub file: File,
    /// Where in the file it begins, as the device says.
    pub offset: u64,
    /// Whether the device gives the file.
    pub mappable: bool,
}

/// A region with an EDID, which accepts and refuses what real ones do.
#[derive(Clone, Debug)]
pub struct FakeEdid {
    /// Its index.
    pub index: u32,
    /// Registers and blob.
    pub bytes: Vec<u8>,
    /// As gvt, refuses a blob that is not as long as `edid_size` says. mbochs takes anything.
    pub strict: bool,
}

/// The calls that fail, and how.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    next: VecDeque<i32>,
    always: Option<i32>,
}

impl Errors {
    /// This many calls fail.
    pub fn times(count: usize, errno: i32) -> Self {
        Self { next: std::iter::repeat_n(errno, count).collect(), always: None }
    }

    /// All calls fail.
    pub fn always(errno: i32) -> Self {
        Self { next: VecDeque::new(), always: Some(errno) }
    }

    fn check(&mut self) -> io::Result<()> {
        match self.next.pop_front().or(self.always) {
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
            None => Ok(()),
        }
    }
}

impl FakeEdid {
    /// Registers as of a device with these maxima; the blob begins at 2048, as with gvt and mbochs.
    ///
    /// # Panics
    ///
    /// Never: the offsets are within.
    pub fn new(index: u32, blob_max: u32, max_xres: u32, max_yres: u32) -> Self {
        let mut bytes = vec![0; 4096];
        for (register, value) in [2048, blob_max, 0, max_xres, max_yres, 0].into_iter().enumerate()
        {
            bytes[register * 4..][..4].copy_from_slice(&value.to_le_bytes());
        }
        Self { index, bytes, strict: false }
    }

    /// The register at this offset.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn register(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.bytes[offset..][..4].try_into().expect("four bytes"))
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        let fault = || io::Error::from_raw_os_error(libc::EFAULT);
        let offset = usize::try_from(offset).map_err(|_| fault())?;
        let blob = self.register(0) as usize;
        if self.strict && offset >= blob && data.len() != self.register(8) as usize {
            return Err(fault());
        }
        let end = offset.checked_add(data.len()).ok_or_else(fault)?;
        self.bytes.get_mut(offset..end).ok_or_else(fault)?.copy_from_slice(data);
        Ok(())
    }
}

impl FakeDevice {
    /// Returns its state.
    pub fn get(&self) -> Ref<'_, Inner> {
        self.inner.borrow()
    }

    /// As [`FakeDevice::get`], to change it.
    pub fn set(&self) -> RefMut<'_, Inner> {
        self.inner.borrow_mut()
    }

    /// Where its memory comes from.
    pub fn files(&self) -> &Memfds {
        &self.files
    }

    /// Runs this during the next query of a plane.
    pub fn on_next_query(&self, act: impl FnOnce() + 'static) {
        *self.on_next_query.borrow_mut() = Some(Box::new(act));
    }

    /// As [`FakeDevice::on_next_query`], during the next write to a region.
    pub fn on_next_write(&self, act: impl FnOnce() + 'static) {
        *self.on_next_write.borrow_mut() = Some(Box::new(act));
    }

    /// Runs this during every call that queries or reads.
    pub fn on_each_call(&self, act: impl Fn() + 'static) {
        *self.on_each_call.borrow_mut() = Some(Box::new(act));
    }

    fn take_time(&self) {
        if let Some(act) = &*self.on_each_call.borrow() {
            act();
        }
    }

    /// Fills all memory with this byte, as the guest.
    ///
    /// # Panics
    ///
    /// If its files cannot be written to.
    pub fn draw_all(&self, byte: u8) {
        let inner = self.get();
        let regions = inner.regions.values().map(|region| &region.file);
        for file in inner.dma_bufs.values().chain(regions) {
            let len = file.metadata().expect("an open file").len();
            let bytes = vec![byte; usize::try_from(len).unwrap_or(0)];
            file.write_all_at(&bytes, 0).expect("a write to memory");
        }
    }

    /// Makes the dma-buf of a plane, filled with this byte.
    pub fn add(&self, plane: &PlaneInfo, byte: u8) {
        let file = self.files.with(&vec![byte; plane.size as usize], true);
        self.set().dma_bufs.insert(plane.handle, file);
    }

    /// Makes the dma-buf of a plane, and shows it as the primary plane.
    pub fn show(&self, plane: PlaneInfo, byte: u8) {
        self.add(&plane, byte);
        self.set().primary = plane;
    }

    /// Makes the dma-buf of a plane, and shows it as the cursor.
    pub fn point(&self, plane: PlaneInfo, byte: u8) {
        self.add(&plane, byte);
        self.set().cursor = plane;
    }

    /// Writes into a dma-buf, as the guest does.
    ///
    /// # Panics
    ///
    /// If there is no such dma-buf, or not so large.
    pub fn draw(&self, id: u32, offset: u64, bytes: &[u8]) {
        self.get().dma_bufs[&id].write_all_at(bytes, offset).expect("a write to memory");
    }

    /// Makes a region that can be mapped, filled with this byte.
    pub fn add_region(&self, index: u32, size: u64, byte: u8) {
        let file = self.files.with(&vec![byte; usize::try_from(size).unwrap_or(0)], true);
        self.set().regions.insert(index, FakeRegion { size, file, offset: 0, mappable: true });
    }

    /// Writes into a region, as the guest does.
    ///
    /// # Panics
    ///
    /// If there is no such region, or not so large.
    pub fn draw_region(&self, index: u32, offset: u64, bytes: &[u8]) {
        self.get().regions[&index].file.write_all_at(bytes, offset).expect("a write to memory");
    }

    /// Signals a change, if that was requested.
    ///
    /// # Panics
    ///
    /// If there is no room in the eventfd.
    pub fn signal(&self) {
        if let Some(event) = &self.get().event {
            rustix::io::write(event, &1_u64.to_ne_bytes()).expect("room in an eventfd");
        }
    }

    /// Returns the gets so far, and forgets them.
    pub fn take_gets(&self) -> Vec<u32> {
        std::mem::take(&mut self.set().counts.gets)
    }

    /// Clones a file as the kernel installs a descriptor.
    fn descriptor(file: &File) -> io::Result<OwnedFd> {
        file.try_clone().map(OwnedFd::from)
    }
}

fn no_such(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl Device for FakeDevice {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn query_plane(&self, info: &mut PlaneInfo) -> io::Result<()> {
        self.take_time();
        let act = self.on_next_query.borrow_mut().take();
        if let Some(act) = act {
            act();
        }
        let mut inner = self.set();
        if info.flags & PlaneInfo::PROBE != 0 {
            let granted = inner.probes & info.flags & !PlaneInfo::PROBE != 0;
            inner.primary_errors.check()?;
            return if granted { Ok(()) } else { Err(no_such(libc::EINVAL)) };
        }
        let answer = if info.drm_plane_type == PlaneKind::Cursor as u32 {
            inner.counts.cursor += 1;
            inner.cursor_errors.check()?;
            inner.cursor
        } else {
            inner.counts.primary += 1;
            inner.primary_errors.check()?;
            inner.primary
        };
        if inner.leaves_question && answer.drm_format == 0 {
            return Ok(());
        }
        let PlaneInfo { argsz, flags, drm_plane_type, .. } = *info;
        *info = PlaneInfo { argsz, flags, drm_plane_type, ..answer };
        Ok(())
    }

    fn get_dmabuf(&self, id: u32) -> io::Result<OwnedFd> {
        self.take_time();
        let mut inner = self.set();
        inner.counts.gets.push(id);
        inner.get_errors.check()?;
        if let Some(next) = inner.flips_before_gets.pop_front() {
            let before = inner.primary.handle;
            inner.dma_bufs.remove(&before);
            inner.primary = next;
        }
        if inner.gives_away {
            let file = inner.dma_bufs.remove(&id).ok_or_else(|| no_such(libc::ENOENT))?;
            return Ok(file.into());
        }
        inner.dma_bufs.get(&id).map_or_else(|| Err(no_such(libc::ENOENT)), Self::descriptor)
    }

    fn region(&self, index: u32) -> io::Result<RegionInfo> {
        self.take_time();
        let mut inner = self.set();
        inner.counts.regions += 1;
        inner.region_errors.check()?;
        let gives_away = inner.gives_away;
        let taken = if gives_away { inner.regions.remove(&index) } else { None };
        let region = taken.as_ref().or_else(|| inner.regions.get(&index));
        let region = region.ok_or_else(|| no_such(libc::EINVAL))?;
        let memory = if region.mappable {
            Some(RegionMemory {
                fd: Self::descriptor(&region.file)?,
                offset: region.offset,
                is_device: false,
            })
        } else {
            None
        };
        Ok(RegionInfo { size: region.size, memory })
    }

    fn read_region(&self, index: u32, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.take_time();
        let mut inner = self.set();
        inner.counts.reads += 1;
        inner.read_errors.check()?;
        if let Some(edid) = inner.edid.as_ref().filter(|edid| edid.index == index) {
            let start = usize::try_from(offset).map_err(|_| no_such(libc::EFAULT))?;
            let bytes = edid.bytes.get(start..).and_then(|bytes| bytes.get(..buf.len()));
            buf.copy_from_slice(bytes.ok_or_else(|| no_such(libc::EFAULT))?);
            return Ok(());
        }
        let region = inner.regions.get(&index).ok_or_else(|| no_such(libc::EINVAL))?;
        region.file.read_exact_at(buf, region.offset.saturating_add(offset))
    }

    fn write_region(&self, index: u32, offset: u64, buf: &[u8]) -> io::Result<()> {
        let act = self.on_next_write.borrow_mut().take();
        if let Some(act) = act {
            act();
        }
        let mut inner = self.set();
        inner.write_errors.check()?;
        inner.writes.push(Write { region: index, offset, bytes: buf.to_vec() });
        match inner.edid.as_mut().filter(|edid| edid.index == index) {
            Some(edid) => edid.write(offset, buf),
            None => Err(no_such(libc::EINVAL)),
        }
    }

    fn keeps_ids(&self) -> bool {
        self.get().keeps_ids
    }

    fn signal_changes(&self, event: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut inner = self.set();
        inner.event_errors.check()?;
        if !inner.has_events {
            return Err(no_such(libc::ENOTTY));
        }
        inner.event = event.map(|event| event.try_clone_to_owned()).transpose()?;
        Ok(())
    }

    fn edid_region(&self) -> Option<u32> {
        self.get().edid.as_ref().map(|edid| edid.index)
    }

    fn generate_edid(&self, monitor: &Monitor, blob: &mut [u8]) -> usize {
        let mut inner = self.set();
        assert!(blob.iter().all(|&byte| byte == 0), "the blob is zero");
        inner.monitors.push(*monitor);
        for (to, from) in blob.iter_mut().zip(monitor.width.to_le_bytes()) {
            *to = from;
        }
        inner.edid_len.min(blob.len())
    }
}
