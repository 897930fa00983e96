//! `VfioDpyDeviceOps`: what a vfio device offers, as a table of callbacks.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use vfio_bindings::bindings::vfio::vfio_device_gfx_plane_info;

use crate::console::Monitor;
use crate::device::{Device, Mode, RegionInfo, RegionMemory};
use crate::plane::PlaneInfo;

use super::sized::Growing;

const _: () = {
    use std::mem::offset_of;
    assert!(size_of::<PlaneInfo>() == size_of::<vfio_device_gfx_plane_info>());
    assert!(align_of::<PlaneInfo>() == align_of::<vfio_device_gfx_plane_info>());
    assert!(
        offset_of!(PlaneInfo, drm_format_mod)
            == offset_of!(vfio_device_gfx_plane_info, drm_format_mod)
    );
    assert!(
        offset_of!(PlaneInfo, handle) == offset_of!(vfio_device_gfx_plane_info, __bindgen_anon_1)
    );
};

/// A region of a device, filled in by region_info() of struct VfioDpyDeviceOps.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VfioDpyRegion {
    /// Size of the region in bytes.
    pub size: u64,
    /// Offset of the region in the file behind @fd, in bytes.
    pub offset: u64,
    /// A descriptor to map the region from, which the library takes over; -1 if the region cannot
    /// be mapped.
    pub fd: c_int,
    /// Whether @fd is the vfio device itself, opened by the host. False if it came from a process,
    /// and may be any file.
    pub is_device: bool,
}

/// Callbacks of a vfio device.
///
/// Each callback is passed the device that was given to vfio_dpy_probe() or vfio_dpy_new(). Those
/// that return an int return a negative errno on failure, as the kernel or the device's process
/// reported it: -ENOTTY if there are no graphics planes, -ETIMEDOUT if the device did not answer,
/// -ENODEV if it is gone, -ESHUTDOWN if it is gone and the host has told the user (the display then
/// shows that, but does not log it again).
///
/// query_plane() is required, and so is get_dmabuf() or region_info(): without one of these, the
/// device has no planes of that kind. All others may be NULL.
///
/// Context: One thread at a time, the display's or that of vfio_dpy_watch(). Not called after
/// vfio_dpy_free(), or, where there is a watcher, after vfio_dpy_watch() has returned. May block.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VfioDpyDeviceOps {
    /// Set it to sizeof(struct VfioDpyDeviceOps).
    pub size: u32,
    /// VFIO_DEVICE_QUERY_GFX_PLANE. @info holds the question and receives the answer. Returns 0 or
    /// a negative errno.
    pub query_plane:
        Option<unsafe extern "C" fn(device: *mut c_void, info: *mut PlaneInfo) -> c_int>,
    /// VFIO_DEVICE_GET_GFX_DMABUF. Returns a descriptor, which the library takes over, or a
    /// negative errno.
    pub get_dmabuf: Option<unsafe extern "C" fn(device: *mut c_void, id: u32) -> c_int>,
    /// VFIO_DEVICE_GET_REGION_INFO, for any index. Returns 0, with @region filled in, or a negative
    /// errno.
    pub region_info: Option<
        unsafe extern "C" fn(device: *mut c_void, index: u32, region: *mut VfioDpyRegion) -> c_int,
    >,
    /// Reads @size bytes of a region, beginning @offset bytes into it. Returns 0 if all were read,
    /// else a negative errno. NULL: no region can be read: those that cannot be mapped show
    /// nothing, and there is no EDID. In region mode, vfio_dpy_new() reads the vendor from PCI's
    /// configuration space.
    pub region_read: Option<
        unsafe extern "C" fn(
            device: *mut c_void,
            index: u32,
            offset: u64,
            data: *mut u8,
            size: u32,
        ) -> c_int,
    >,
    /// Writes @size bytes of a region, beginning @offset bytes into it. Returns 0 if all were
    /// written, else a negative errno. NULL: there is no EDID.
    pub region_write: Option<
        unsafe extern "C" fn(
            device: *mut c_void,
            index: u32,
            offset: u64,
            data: *const u8,
            size: u32,
        ) -> c_int,
    >,
    /// Returns whether an id means the same dma-buf for as long as a descriptor of it is open, even
    /// over a reset. True for kernel drivers, false for a device in another process. NULL: false.
    pub keeps_ids: Option<unsafe extern "C" fn(device: *mut c_void) -> bool>,
    /// Makes the device signal @eventfd when its picture changes (docs/display-events.md); -1 ends
    /// that. The caller may close the eventfd after the call: the device duplicates it. Returns 0
    /// or a negative errno, -ENOTTY if the device has no such interrupt. NULL: it has none.
    pub signal_changes: Option<unsafe extern "C" fn(device: *mut c_void, eventfd: c_int) -> c_int>,
    /// Returns the index of the region with type VFIO_REGION_TYPE_GFX and subtype
    /// VFIO_REGION_SUBTYPE_GFX_EDID, or a negative errno if there is none. NULL: there is none.
    pub edid_region: Option<unsafe extern "C" fn(device: *mut c_void) -> c_int>,
    /// Writes an EDID for @monitor to @blob, which has @size zeroed bytes, and returns its length
    /// in bytes. Does not call the device. NULL: there is no EDID.
    pub generate_edid: Option<
        unsafe extern "C" fn(
            device: *mut c_void,
            monitor: *const Monitor,
            blob: *mut u8,
            size: usize,
        ) -> usize,
    >,
}

// SAFETY: it begins with its size, and of callbacks zero is `None`.
unsafe impl Growing for VfioDpyDeviceOps {
    const NAME: &'static str = "struct VfioDpyDeviceOps";
}

impl VfioDpyDeviceOps {
    /// The name of a callback without which a device of this mode cannot be shown, and which is not
    /// there.
    pub fn missing(&self, mode: Mode) -> Option<&'static str> {
        let storage = match mode {
            Mode::DmaBuf => ("get_dmabuf", self.get_dmabuf.is_some()),
            Mode::Region => ("region_info", self.region_info.is_some()),
        };
        let required = [("query_plane", self.query_plane.is_some()), storage];
        required.iter().find(|(_, there)| !there).map(|(name, _)| *name)
    }
}

/// A [`Device`] whose calls are callbacks into C.
pub struct HostDevice {
    ops: VfioDpyDeviceOps,
    device: *mut c_void,
    name: String,
    exports_once: bool,
}

impl HostDevice {
    /// # Safety
    ///
    /// The callbacks can be called with `device`, from whichever thread has the value, for as long
    /// as it lives.
    ///
    /// `driver`: the kernel driver of the device, as far as it is known.
    pub unsafe fn new(
        ops: VfioDpyDeviceOps,
        device: *mut c_void,
        name: String,
        driver: &str,
    ) -> Self {
        // And what is made of it, for instance a copy whose dma-bufs can be mapped.
        let exports_once = driver == "mbochs" || driver.starts_with("mbochs_");
        Self { ops, device, name, exports_once }
    }
}

// SAFETY: `new` demands that the callbacks can be called with the pointer from whichever thread has
// the value.
unsafe impl Send for HostDevice {}

impl Device for HostDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn query_plane(&self, info: &mut PlaneInfo) -> io::Result<()> {
        let query_plane = there(self.ops.query_plane)?;
        if info.flags & PlaneInfo::PROBE != 0 {
            // Planes that cannot be had are none.
            let mode =
                if info.flags & PlaneInfo::DMABUF != 0 { Mode::DmaBuf } else { Mode::Region };
            there(self.ops.missing(mode).is_none().then_some(()))?;
        }
        // SAFETY: `new` demands a callable table; `info` has the layout of the struct that C
        // expects (asserted above).
        check(unsafe { query_plane(self.device, info) })
    }

    fn get_dmabuf(&self, id: u32) -> io::Result<OwnedFd> {
        let get_dmabuf = there(self.ops.get_dmabuf)?;
        // SAFETY: `new` demands a callable table.
        let fd = unsafe { get_dmabuf(self.device, id) };
        if fd < 0 {
            return Err(error(fd));
        }
        // SAFETY: the callback gives a descriptor away that nobody else closes.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn region(&self, index: u32) -> io::Result<RegionInfo> {
        let region_info = there(self.ops.region_info)?;
        let mut region = VfioDpyRegion { size: 0, offset: 0, fd: -1, is_device: false };
        // SAFETY: `new` demands a callable table; `region` is writable.
        check(unsafe { region_info(self.device, index, &raw mut region) })?;
        let memory = (region.fd >= 0).then(|| {
            // SAFETY: the callback gives a descriptor away that nobody else closes.
            let fd = unsafe { OwnedFd::from_raw_fd(region.fd) };
            RegionMemory { fd, offset: region.offset, is_device: region.is_device }
        });
        Ok(RegionInfo { size: region.size, memory })
    }

    fn read_region(&self, index: u32, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let region_read = there(self.ops.region_read)?;
        let size = u32::try_from(buf.len()).map_err(|_| error(-libc::E2BIG))?;
        // SAFETY: `new` demands a callable table; `buf` is writable for `size` bytes.
        check(unsafe { region_read(self.device, index, offset, buf.as_mut_ptr(), size) })
    }

    fn write_region(&self, index: u32, offset: u64, buf: &[u8]) -> io::Result<()> {
        let region_write = there(self.ops.region_write)?;
        let size = u32::try_from(buf.len()).map_err(|_| error(-libc::E2BIG))?;
        // SAFETY: `new` demands a callable table; `buf` is readable for `size` bytes.
        check(unsafe { region_write(self.device, index, offset, buf.as_ptr(), size) })
    }

    fn keeps_ids(&self) -> bool {
        // SAFETY: `new` demands a callable table.
        self.ops.keeps_ids.is_some_and(|keeps_ids| unsafe { keeps_ids(self.device) })
    }

    fn exports_once(&self) -> bool {
        self.exports_once
    }

    fn signal_changes(&self, event: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let signal_changes = there(self.ops.signal_changes)?;
        let eventfd = event.map_or(-1, |event| event.as_raw_fd());
        // SAFETY: `new` demands a callable table; the descriptor is open for the call.
        check(unsafe { signal_changes(self.device, eventfd) })
    }

    fn edid_region(&self) -> Option<u32> {
        let VfioDpyDeviceOps { region_read, region_write, generate_edid, .. } = self.ops;
        let works = region_read.is_some() && region_write.is_some() && generate_edid.is_some();
        let edid_region = self.ops.edid_region.filter(|_| works)?;
        // SAFETY: `new` demands a callable table.
        u32::try_from(unsafe { edid_region(self.device) }).ok()
    }

    fn generate_edid(&self, monitor: &Monitor, blob: &mut [u8]) -> usize {
        let Some(generate_edid) = self.ops.generate_edid else { return 0 };
        // SAFETY: `new` demands a callable table; the blob is writable for its length.
        unsafe { generate_edid(self.device, monitor, blob.as_mut_ptr(), blob.len()) }
    }
}

/// A callback, or the error of a device that cannot do what it is for.
fn there<F>(callback: Option<F>) -> io::Result<F> {
    callback.ok_or_else(|| error(-libc::ENOTTY))
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(error(result)) } else { Ok(()) }
}

fn error(negative_errno: c_int) -> io::Error {
    io::Error::from_raw_os_error(negative_errno.saturating_neg())
}
