//! A device that answers as a script says.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::io::Write;
use std::os::fd::{BorrowedFd, IntoRawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::capi::device::{VfioDpyDeviceOps, VfioDpyRegion};
use crate::console::Monitor;
use crate::plane::PlaneInfo;
use crate::testing::Memfds;
use crate::testing::bytes::Bytes;

use super::read;

pub struct HostileDevice<'a> {
    bytes: Mutex<Bytes<'a>>,
    files: Memfds,
    /// What it is to signal.
    events: Mutex<Option<File>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device that a callback of the device is passed.
///
/// # Safety
///
/// That is what it is.
unsafe fn device<'a>(device: *mut c_void) -> &'a HostileDevice<'a> {
    // SAFETY: as the caller says; it lives as long as the display, and its watcher.
    unsafe { &*device.cast_const().cast::<HostileDevice<'a>>() }
}

impl<'a> HostileDevice<'a> {
    pub fn new(script: &'a [u8], files: Memfds) -> Self {
        Self { bytes: Mutex::new(Bytes(script)), files, events: Mutex::default() }
    }

    /// Signals a change, if it was asked to.
    pub fn signal(&self) {
        if let Some(events) = &*lock(&self.events) {
            // It may be full.
            let _ = (&mut &*events).write(&1_u64.to_ne_bytes());
        }
    }

    /// What a call returns that has nothing else to say: mostly success.
    fn result(&self) -> c_int {
        let mut bytes = lock(&self.bytes);
        match bytes.byte() {
            0..200 => 0,
            200..250 => -bytes.errno(),
            _ => -c_int::from_le_bytes(bytes.take()).saturating_abs(),
        }
    }

    /// A descriptor that is the caller's from then on.
    fn file(&self) -> c_int {
        let mut bytes = lock(&self.bytes);
        let len = bytes.len();
        bytes.file(&self.files, len).into_raw_fd()
    }
}

pub const OPS: VfioDpyDeviceOps = VfioDpyDeviceOps {
    size: 0,
    query_plane: Some(query_plane),
    get_dmabuf: Some(get_dmabuf),
    region_info: Some(region_info),
    region_read: Some(region_read),
    region_write: Some(region_write),
    keeps_ids: Some(keeps_ids),
    signal_changes: Some(signal_changes),
    edid_region: Some(edid_region),
    generate_edid: Some(generate_edid),
};

unsafe extern "C" fn query_plane(data: *mut c_void, info: *mut PlaneInfo) -> c_int {
    // SAFETY: the library passes what it was given, and a question.
    let (device, info) = unsafe { (device(data), &mut *info) };
    let result = device.result();
    let mut bytes = lock(&device.bytes);
    if info.flags & PlaneInfo::PROBE == 0 || bytes.byte() & 7 == 7 {
        let likely = bytes.byte();
        let plane = if likely & 7 == 7 { bytes.any_plane() } else { bytes.likely_plane() };
        *info = PlaneInfo { argsz: info.argsz, flags: info.flags, ..plane };
    }
    result
}

unsafe extern "C" fn get_dmabuf(data: *mut c_void, _id: u32) -> c_int {
    // SAFETY: the library passes what it was given.
    let device = unsafe { device(data) };
    match device.result() {
        0 => device.file(),
        error => error,
    }
}

unsafe extern "C" fn region_info(
    data: *mut c_void,
    _index: u32,
    info: *mut VfioDpyRegion,
) -> c_int {
    // SAFETY: the library passes what it was given.
    let device = unsafe { device(data) };
    let result = device.result();
    if result == 0 {
        let choice = lock(&device.bytes).byte();
        let fd = if choice & 7 == 7 { -1 } else { device.file() };
        let mut bytes = lock(&device.bytes);
        let size = if choice & 8 == 0 { bytes.len() } else { u64::from_le_bytes(bytes.take()) };
        let offset = bytes.one_of([0, 0, 0, 4096, 1, u64::MAX]);
        // SAFETY: the place lives during the call.
        unsafe { *info = VfioDpyRegion { size, offset, fd, is_device: false } };
    }
    result
}

unsafe extern "C" fn region_read(
    data: *mut c_void,
    _: u32,
    _: u64,
    to: *mut u8,
    size: u32,
) -> c_int {
    // SAFETY: the library passes what it was given.
    let device = unsafe { device(data) };
    let result = device.result();
    let byte = lock(&device.bytes).byte();
    // What it does not know it leaves as it is.
    // SAFETY: there is room for that many bytes.
    unsafe { to.write_bytes(byte, size as usize) };
    result
}

unsafe extern "C" fn region_write(
    data: *mut c_void,
    _: u32,
    _: u64,
    from: *const u8,
    size: u32,
) -> c_int {
    read(from, size as usize);
    // SAFETY: the library passes what it was given.
    unsafe { device(data) }.result()
}

unsafe extern "C" fn keeps_ids(data: *mut c_void) -> bool {
    // SAFETY: the library passes what it was given.
    lock(&unsafe { device(data) }.bytes).flag()
}

unsafe extern "C" fn signal_changes(data: *mut c_void, eventfd: c_int) -> c_int {
    // SAFETY: the library passes what it was given.
    let device = unsafe { device(data) };
    let result = device.result();
    if result == 0 {
        // SAFETY: the descriptor is open for the call.
        let event = (eventfd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(eventfd) });
        *lock(&device.events) =
            event.and_then(|event| event.try_clone_to_owned().ok()).map(File::from);
    }
    result
}

unsafe extern "C" fn edid_region(data: *mut c_void) -> c_int {
    // SAFETY: the library passes what it was given.
    let device = unsafe { device(data) };
    match device.result() {
        0 => c_int::from(lock(&device.bytes).byte()),
        error => error,
    }
}

unsafe extern "C" fn generate_edid(
    data: *mut c_void,
    _: *const Monitor,
    blob: *mut u8,
    size: usize,
) -> usize {
    // SAFETY: the library passes what it was given.
    let len = usize::from(lock(&unsafe { device(data) }.bytes).byte()).min(size);
    // SAFETY: the blob has room for that many bytes.
    unsafe { blob.write_bytes(0x5a, len) };
    len
}
