//! `VfioDpyDeviceOps`: what a vfio device offers, as a table of callbacks.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use vfio_bindings::bindings::vfio::vfio_device_gfx_plane_info;

use crate::console::Monitor;
use crate::device::{Device, RegionInfo, RegionMemory};
use crate::plane::PlaneInfo;

use super::COMPLETE;

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

/// A region of a device, as a device's `region_info` callback tells it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VfioDpyRegion {
    /// Bytes in the region.
    pub size: u64,
    /// Where the region begins in the file behind `fd`, in bytes.
    pub offset: u64,
    /// A descriptor to map the region from, which from then on belongs to the library; -1 if the
    /// region cannot be mapped.
    pub fd: c_int,
    /// Whether `fd` is the vfio device itself, which the host has opened; false if it came from the device, which may have given
    /// anything.
    pub is_device: bool,
}

/// What a vfio device offers to its display. All callbacks are required. They are called by one thread at a time: see vfio_dpy_watch().
///
/// `device` is what was given to vfio_dpy_probe() or vfio_dpy_new(). Errors are negative errno values, those that the kernel
/// or the device process gave: -ENOTTY where there are no graphics planes, -ETIMEDOUT where the device
/// did not answer, -ENODEV where it is gone, -ESHUTDOWN where it is gone and the host has told the user: the display shows that,
/// and does not say it once more.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VfioDpyDeviceOps {
    /// VFIO_DEVICE_QUERY_GFX_PLANE; `info` holds the question and takes the answer. Returns 0 or a negative errno.
    pub query_plane:
        Option<unsafe extern "C" fn(device: *mut c_void, info: *mut PlaneInfo) -> c_int>,
    /// VFIO_DEVICE_GET_GFX_DMABUF. Returns a descriptor, which from then on belongs to the library, or a negative errno.
    pub get_dmabuf: Option<unsafe extern "C" fn(device: *mut c_void, id: u32) -> c_int>,
    /// VFIO_DEVICE_GET_REGION_INFO, for any index. Returns 0 or a negative errno; fills in `region` on success only.
    pub region_info: Option<
        unsafe extern "C" fn(device: *mut c_void, index: u32, region: *mut VfioDpyRegion) -> c_int,
    >,
    /// Reads `size` bytes from `offset` on. Returns 0 if all were read, else a negative errno.
    pub region_read: Option<
        unsafe extern "C" fn(
            device: *mut c_void,
            index: u32,
            offset: u64,
            data: *mut u8,
            size: u32,
        ) -> c_int,
    >,
    /// Writes `size` bytes from `offset` on. Returns 0 if all were written, else a negative errno.
    pub region_write: Option<
        unsafe extern "C" fn(
            device: *mut c_void,
            index: u32,
            offset: u64,
            data: *const u8,
            size: u32,
        ) -> c_int,
    >,
    /// Whether an id means the same dma-buf for as long as a descriptor of it is open, even over a reset: true of kernel drivers,
    /// false of a device in another process.
    pub keeps_ids: Option<unsafe extern "C" fn(device: *mut c_void) -> bool>,
    /// Has the device signal this eventfd when what it shows has changed, by the display interrupt of docs/display-events.md; -1: not
    /// any more. The eventfd stays the library's, and may be closed when the call returns: the device keeps a descriptor of its
    /// own. Returns 0 or a negative errno, -ENOTTY if the device has no such interrupt.
    pub signal_changes: Option<unsafe extern "C" fn(device: *mut c_void, eventfd: c_int) -> c_int>,
    /// Returns the index of the region with type VFIO_REGION_TYPE_GFX and subtype VFIO_REGION_SUBTYPE_GFX_EDID, or a negative
    /// errno if there is none.
    pub edid_region: Option<unsafe extern "C" fn(device: *mut c_void) -> c_int>,
    /// Writes an EDID for this monitor to `blob`, which has `size` zero bytes, and returns its length. The host does, and asks nobody.
    pub generate_edid: Option<
        unsafe extern "C" fn(
            device: *mut c_void,
            monitor: *const Monitor,
            blob: *mut u8,
            size: usize,
        ) -> usize,
    >,
}

impl VfioDpyDeviceOps {
    /// The name of a callback that is not there.
    pub fn missing(&self) -> Option<&'static str> {
        let callbacks = [
            ("query_plane", self.query_plane.is_some()),
            ("get_dmabuf", self.get_dmabuf.is_some()),
            ("region_info", self.region_info.is_some()),
            ("region_read", self.region_read.is_some()),
            ("region_write", self.region_write.is_some()),
            ("keeps_ids", self.keeps_ids.is_some()),
            ("signal_changes", self.signal_changes.is_some()),
            ("edid_region", self.edid_region.is_some()),
            ("generate_edid", self.generate_edid.is_some()),
        ];
        callbacks.iter().find(|(_, there)| !there).map(|(name, _)| *name)
    }
}

/// A [`Device`] whose calls are callbacks into C.
pub struct HostDevice {
    ops: VfioDpyDeviceOps,
    device: *mut c_void,
    name: String,
    gives_once: bool,
}

impl HostDevice {
    /// # Safety
    ///
    /// No callback is [missing](VfioDpyDeviceOps::missing). They must be callable with `device`, from whichever thread has the value, for as long as it lives.
    ///
    /// `driver`: the kernel driver of the device, as far as it is known.
    pub unsafe fn new(
        ops: VfioDpyDeviceOps,
        device: *mut c_void,
        name: String,
        driver: &str,
    ) -> Self {
        // And what is made of it, for instance a copy whose dma-bufs can be mapped.
        let gives_once = driver == "mbochs" || driver.starts_with("mbochs_");
        Self { ops, device, name, gives_once }
    }
}

// SAFETY: `new` demands that the callbacks can be called with the pointer from whichever thread has the value.
unsafe impl Send for HostDevice {}

impl Device for HostDevice {
    fn name(&self) -> &str {
        &self.name
    }

    fn query_plane(&self, info: &mut PlaneInfo) -> io::Result<()> {
        // SAFETY: `new` demands a callable table; `info` has the layout of the struct that C expects (asserted above).
        check(unsafe { (self.ops.query_plane.expect(COMPLETE))(self.device, info) })
    }

    fn get_dmabuf(&self, id: u32) -> io::Result<OwnedFd> {
        // SAFETY: `new` demands a callable table.
        let fd = unsafe { (self.ops.get_dmabuf.expect(COMPLETE))(self.device, id) };
        if fd < 0 {
            return Err(error(fd));
        }
        // SAFETY: the callback gives a descriptor away that nobody else closes.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn region(&self, index: u32) -> io::Result<RegionInfo> {
        let mut region = VfioDpyRegion { size: 0, offset: 0, fd: -1, is_device: false };
        // SAFETY: `new` demands a callable table; `region` is writable.
        check(unsafe {
            (self.ops.region_info.expect(COMPLETE))(self.device, index, &raw mut region)
        })?;
        let memory = (region.fd >= 0).then(|| {
            // SAFETY: the callback gives a descriptor away that nobody else closes.
            let fd = unsafe { OwnedFd::from_raw_fd(region.fd) };
            RegionMemory { fd, offset: region.offset, is_device: region.is_device }
        });
        Ok(RegionInfo { size: region.size, memory })
    }

    fn read_region(&self, index: u32, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let size = u32::try_from(buf.len()).map_err(|_| error(-libc::E2BIG))?;
        // SAFETY: `new` demands a callable table; `buf` is writable for `size` bytes.
        check(unsafe {
            (self.ops.region_read.expect(COMPLETE))(
                self.device,
                index,
                offset,
                buf.as_mut_ptr(),
                size,
            )
        })
    }

    fn write_region(&self, index: u32, offset: u64, buf: &[u8]) -> io::Result<()> {
        let size = u32::try_from(buf.len()).map_err(|_| error(-libc::E2BIG))?;
        // SAFETY: `new` demands a callable table; `buf` is readable for `size` bytes.
        check(unsafe {
            (self.ops.region_write.expect(COMPLETE))(self.device, index, offset, buf.as_ptr(), size)
        })
    }

    fn keeps_ids(&self) -> bool {
        // SAFETY: `new` demands a callable table.
        unsafe { (self.ops.keeps_ids.expect(COMPLETE))(self.device) }
    }

    fn gives_once(&self) -> bool {
        self.gives_once
    }

    fn signal_changes(&self, event: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let eventfd = event.map_or(-1, |event| event.as_raw_fd());
        // SAFETY: `new` demands a callable table; the descriptor is open for the call.
        check(unsafe { (self.ops.signal_changes.expect(COMPLETE))(self.device, eventfd) })
    }

    fn edid_region(&self) -> Option<u32> {
        // SAFETY: `new` demands a callable table.
        u32::try_from(unsafe { (self.ops.edid_region.expect(COMPLETE))(self.device) }).ok()
    }

    fn generate_edid(&self, monitor: &Monitor, blob: &mut [u8]) -> usize {
        // SAFETY: `new` demands a callable table; the blob is writable for its length.
        unsafe {
            (self.ops.generate_edid.expect(COMPLETE))(
                self.device,
                monitor,
                blob.as_mut_ptr(),
                blob.len(),
            )
        }
    }
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(error(result)) } else { Ok(()) }
}

fn error(negative_errno: c_int) -> io::Error {
    io::Error::from_raw_os_error(negative_errno.saturating_neg())
}
