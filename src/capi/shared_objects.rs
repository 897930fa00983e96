//! The table of shared objects: the functions of QEMU's `hw/virtio/virtio-dmabuf.h`, and what goes beyond them.
//!
//! Unlike a display's, these functions may be called from any thread, at the same time.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, OwnedFd};
use std::time::Duration;
use std::{io, ptr};

use serde_json::json;
use uuid::Uuid;

use crate::shared_objects::{
    AddError, Claim, Device, DmaBuf, Kind, LookupError, Object, Owner, SharedObjects,
};

use super::{boundary, c_string, explained, tell};

const NO_WAIT: Duration = Duration::ZERO;

/// QEMU's functions tell no reasons; whoever debugs can see them with `G_MESSAGES_DEBUG=vfio-display`.
fn added(result: Result<(), AddError>) -> bool {
    result.map_err(|error| glib::g_debug!("vfio-display", "{error}")).is_ok()
}

/// As [`added`], but that there is nothing, or not yet, is no news.
fn found<T>(result: Result<T, LookupError>) -> Option<T> {
    if let Err(error @ LookupError::WrongKind(..)) = &result {
        glib::g_debug!("vfio-display", "{error}");
    }
    result.ok()
}

/// # Safety
///
/// `uuid` points to 16 bytes, or is NULL.
unsafe fn uuid_from(uuid: *const [u8; 16]) -> Option<Uuid> {
    // SAFETY: the caller's promise; an array of bytes has no alignment.
    unsafe { uuid.as_ref() }.map(|bytes| Uuid::from_bytes(*bytes))
}

fn device_from(device: *mut c_void) -> Option<Device> {
    NonZeroUsize::new(device.expose_provenance()).map(Device)
}

// QEMU's header declares these, so ours does not.

/// QEMU's `virtio_add_dmabuf()`. The caller keeps the descriptor, and keeps it open until it has removed the entry.
///
/// cbindgen:ignore
///
/// # Safety
///
/// `uuid` points to 16 bytes, or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virtio_add_dmabuf(uuid: *const [u8; 16], fd: c_int) -> bool {
    boundary(false, || {
        // SAFETY: the caller's promise.
        let Some(uuid) = (unsafe { uuid_from(uuid) }) else { return false };
        added(SharedObjects::global().add(uuid, Object::DmaBuf(DmaBuf::Lent(fd))))
    })
}

/// QEMU's `virtio_add_vhost_device()`. The device is told apart by its address, which is never followed.
///
/// cbindgen:ignore
///
/// # Safety
///
/// `uuid` points to 16 bytes, or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virtio_add_vhost_device(
    uuid: *const [u8; 16],
    device: *mut c_void,
) -> bool {
    boundary(false, || {
        // SAFETY: the caller's promise.
        let Some(uuid) = (unsafe { uuid_from(uuid) }) else { return false };
        let Some(device) = device_from(device) else { return false };
        added(SharedObjects::global().add(uuid, Object::Device(device)))
    })
}

/// QEMU's `virtio_remove_resource()`. A reserved entry goes too.
///
/// cbindgen:ignore
///
/// # Safety
///
/// `uuid` points to 16 bytes, or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virtio_remove_resource(uuid: *const [u8; 16]) -> bool {
    boundary(false, || {
        // SAFETY: the caller's promise.
        unsafe { uuid_from(uuid) }.is_some_and(|uuid| SharedObjects::global().remove(uuid))
    })
}

/// QEMU's `virtio_lookup_dmabuf()`: -1 also where the entry is not a dma-buf, or is not complete yet.
///
/// The number may be another file's by the time the caller uses it, if another thread removes the entry:
/// `vfio_dpy_objects_dup_dmabuf()` has no such gap.
///
/// cbindgen:ignore
///
/// # Safety
///
/// `uuid` points to 16 bytes, or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virtio_lookup_dmabuf(uuid: *const [u8; 16]) -> c_int {
    boundary(-1, || {
        // SAFETY: the caller's promise.
        let Some(uuid) = (unsafe { uuid_from(uuid) }) else { return -1 };
        found(SharedObjects::global().dma_buf_number(uuid, NO_WAIT)).unwrap_or(-1)
    })
}

/// QEMU's `virtio_lookup_vhost_device()`: NULL also where the entry is not a device, or is not complete yet.
///
/// cbindgen:ignore
///
/// # Safety
///
/// `uuid` points to 16 bytes, or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virtio_lookup_vhost_device(uuid: *const [u8; 16]) -> *mut c_void {
    boundary(ptr::null_mut(), || {
        // SAFETY: the caller's promise.
        let Some(uuid) = (unsafe { uuid_from(uuid) }) else { return ptr::null_mut() };
        found(SharedObjects::global().device(uuid, NO_WAIT)).map_or(ptr::null_mut(), pointer_to)
    })
}

/// QEMU's `virtio_object_type()`: a `SharedObjectType`. An entry that is not complete has none yet.
///
/// cbindgen:ignore
///
/// # Safety
///
/// `uuid` points to 16 bytes, or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virtio_object_type(uuid: *const [u8; 16]) -> c_uint {
    const TYPE_INVALID: c_uint = 0;
    const TYPE_DMABUF: c_uint = 1;
    const TYPE_VHOST_DEV: c_uint = 2;
    boundary(TYPE_INVALID, || {
        // SAFETY: the caller's promise.
        let kind = unsafe { uuid_from(uuid) }.and_then(|uuid| SharedObjects::global().kind(uuid));
        match kind {
            None | Some(Kind::Reserved) => TYPE_INVALID,
            Some(Kind::DmaBuf) => TYPE_DMABUF,
            Some(Kind::Device) => TYPE_VHOST_DEV,
        }
    })
}

/// QEMU's `virtio_free_resources()`. Owners and claims stay valid, and have no entries any more.
///
/// cbindgen:ignore
#[unsafe(no_mangle)]
pub extern "C" fn virtio_free_resources() {
    boundary((), || SharedObjects::global().clear());
}

// Our patches add these two to QEMU's header, and to its own implementation.

/// `virtio_dup_dmabuf()`: a descriptor of its own for a dma-buf, which the caller closes, or a negative errno; as
/// `vfio_dpy_objects_dup_dmabuf()` without a wait.
///
/// cbindgen:ignore
///
/// # Safety
///
/// `uuid` points to 16 bytes, or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn virtio_dup_dmabuf(uuid: *const [u8; 16]) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { vfio_dpy_objects_dup_dmabuf(uuid.cast(), 0) }
}

/// `virtio_remove_vhost_device()`: `vfio_dpy_objects_remove_vhost_device()`.
///
/// cbindgen:ignore
#[unsafe(no_mangle)]
pub extern "C" fn virtio_remove_vhost_device(device: *mut c_void) {
    vfio_dpy_objects_remove_vhost_device(device);
}

/// Somebody who shares objects. All functions vfio_dpy_objects_*() may be called from any thread.
pub struct VfioDpyObjectsOwner(Owner<'static>);

/// An entry in the table of shared objects, from its reservation to its end.
pub struct VfioDpyObjectsClaim(Claim<'static>);

/// Makes an owner of shared objects. `name` is copied; it is how messages call the owner.
///
/// # Safety
///
/// `name` is a string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_owner_new(
    name: *const c_char,
) -> *mut VfioDpyObjectsOwner {
    boundary(ptr::null_mut(), || {
        // SAFETY: the caller gives a valid string.
        let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
        Box::into_raw(Box::new(VfioDpyObjectsOwner(SharedObjects::global().owner(&name))))
    })
}

/// Ends an owner: all its entries go. Its claims stay valid, and are to be freed. NULL is fine.
///
/// # Safety
///
/// `owner` is from vfio_dpy_objects_owner_new() and not freed yet, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_owner_free(owner: *mut VfioDpyObjectsOwner) {
    if !owner.is_null() {
        // SAFETY: the pointer is from `Box::into_raw` in vfio_dpy_objects_owner_new(), and freed once.
        boundary((), || drop(unsafe { Box::from_raw(owner) }));
    }
}

/// Takes a UUID. Lookups do not find the entry until it is completed; nobody else can add one of this UUID.
///
/// On success *claim is the caller's, to free with vfio_dpy_objects_claim_free(). On failure, if `message` is not NULL,
/// *message says why, and who holds the UUID; free it with g_free().
///
/// Returns 0 or a negative errno: EEXIST: the UUID is taken; ENOSPC: the owner has too many entries.
///
/// # Safety
///
/// `owner` is from vfio_dpy_objects_owner_new(), `uuid` points to 16 bytes, `claim` is valid, `message` is valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_reserve(
    owner: *const VfioDpyObjectsOwner,
    uuid: *const u8,
    claim: *mut *mut VfioDpyObjectsClaim,
    message: *mut *mut c_char,
) -> c_int {
    let reserve = || {
        // SAFETY: the caller gives an owner and a UUID.
        let (owner, uuid) = unsafe { (&*owner, Uuid::from_bytes(*uuid.cast())) };
        match owner.0.reserve(uuid) {
            Ok(reserved) => {
                // SAFETY: the caller gives a valid place.
                unsafe { *claim = Box::into_raw(Box::new(VfioDpyObjectsClaim(reserved))) };
                0
            }
            // SAFETY: the caller gives a valid place or NULL.
            Err(error) => unsafe { refuse(&error, message) },
        }
    };
    // SAFETY: the caller gives a valid place or NULL.
    unsafe { explained(message, -libc::EIO, reserve) }
}

/// Completes an entry with a dma-buf, and wakes the lookups that wait for it.
///
/// The caller keeps the descriptor, and keeps it open until the claim is freed, or the entry has gone otherwise.
///
/// Returns 0 or a negative errno, with *message as vfio_dpy_objects_reserve() has it: EBADF: `fd` is negative; ESTALE: the entry has
/// gone; EALREADY: it is complete.
///
/// # Safety
///
/// `claim` is from vfio_dpy_objects_reserve(), `message` is valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_complete_dmabuf(
    claim: *const VfioDpyObjectsClaim,
    fd: c_int,
    message: *mut *mut c_char,
) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { complete(claim, Object::DmaBuf(DmaBuf::Lent(fd)), message) }
}

/// Completes an entry with a vhost-user device that is to be asked for the dma-buf.
///
/// Returns and tells as vfio_dpy_objects_complete_dmabuf() does; EINVAL: `device` is NULL.
///
/// # Safety
///
/// `claim` is from vfio_dpy_objects_reserve(), `message` is valid or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_complete_vhost_device(
    claim: *const VfioDpyObjectsClaim,
    device: *mut c_void,
    message: *mut *mut c_char,
) -> c_int {
    let Some(device) = device_from(device) else {
        // SAFETY: the caller's promise.
        unsafe { tell(message, "there is no device") };
        return -libc::EINVAL;
    };
    // SAFETY: the caller's promise.
    unsafe { complete(claim, Object::Device(device), message) }
}

/// # Safety
///
/// `claim` is from vfio_dpy_objects_reserve(), `message` is valid or NULL.
unsafe fn complete(
    claim: *const VfioDpyObjectsClaim,
    object: Object,
    message: *mut *mut c_char,
) -> c_int {
    let complete = || {
        // SAFETY: the caller gives a claim.
        let claim = unsafe { &*claim };
        match claim.0.complete(object) {
            Ok(()) => 0,
            // SAFETY: the caller gives a valid place or NULL.
            Err(error) => unsafe { refuse(&error, message) },
        }
    };
    // SAFETY: the caller gives a valid place or NULL.
    unsafe { explained(message, -libc::EIO, complete) }
}

/// Ends a claim: its entry goes, complete or not; lookups that wait for it fail. NULL is fine.
///
/// # Safety
///
/// `claim` is from vfio_dpy_objects_reserve() and not freed yet, or NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_claim_free(claim: *mut VfioDpyObjectsClaim) {
    if !claim.is_null() {
        // SAFETY: the pointer is from `Box::into_raw` in vfio_dpy_objects_reserve(), and freed once.
        boundary((), || drop(unsafe { Box::from_raw(claim) }));
    }
}

/// Gives a descriptor of its own for a dma-buf, with close-on-exec set. It is duplicated while the entry is held in
/// place, so it is never of another file, whoever removes the entry meanwhile.
///
/// `timeout_ms` is how long to wait for an entry that is reserved; 0: not at all. Whoever waits must not be the one
/// whom the completion waits for: QEMU's main loop should not.
///
/// Returns the descriptor, which the caller closes, or a negative errno: ENOENT: there is no such entry; EAGAIN: it is not
/// complete yet; EMEDIUMTYPE: it is a device; EINVAL: `uuid` is NULL; or what fcntl(F_DUPFD_CLOEXEC) said.
///
/// # Safety
///
/// `uuid` points to 16 bytes, or is NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_dup_dmabuf(uuid: *const u8, timeout_ms: u32) -> c_int {
    boundary(-libc::EIO, || {
        // SAFETY: the caller's promise.
        let Some(uuid) = (unsafe { uuid_from(uuid.cast()) }) else { return -libc::EINVAL };
        let patience = Duration::from_millis(timeout_ms.into());
        match duplicate(SharedObjects::global(), uuid, patience) {
            Ok(Ok(fd)) => std::os::fd::IntoRawFd::into_raw_fd(fd),
            Ok(Err(error)) => -error.raw_os_error().unwrap_or(libc::EIO),
            Err(error) => -errno_of(&error),
        }
    })
}

/// Finds the vhost-user device to ask for an object. Waits as vfio_dpy_objects_dup_dmabuf() does.
///
/// Returns 0 or a negative errno: ENOENT: there is no such entry; EAGAIN: it is not complete yet; EMEDIUMTYPE: it is a dma-buf;
/// EINVAL: `uuid` is NULL.
///
/// # Safety
///
/// `uuid` points to 16 bytes, or is NULL; `device` is valid.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_find_vhost_device(
    uuid: *const u8,
    timeout_ms: u32,
    device: *mut *mut c_void,
) -> c_int {
    boundary(-libc::EIO, || {
        // SAFETY: the caller's promise.
        let Some(uuid) = (unsafe { uuid_from(uuid.cast()) }) else { return -libc::EINVAL };
        match SharedObjects::global().device(uuid, Duration::from_millis(timeout_ms.into())) {
            Ok(found) => {
                // SAFETY: the caller gives a valid place.
                unsafe { *device = pointer_to(found) };
                0
            }
            Err(error) => -errno_of(&error),
        }
    })
}

/// Removes every entry that leads to this vhost-user device, which is about to go. Returns how many there were.
#[unsafe(no_mangle)]
pub extern "C" fn vfio_dpy_objects_remove_vhost_device(device: *mut c_void) -> usize {
    boundary(0, || {
        device_from(device).map_or(0, |device| SharedObjects::global().remove_device(device))
    })
}

/// What the table holds, as a JSON object: counts by kind, and a list of all entries. Free it with g_free().
#[unsafe(no_mangle)]
pub extern "C" fn vfio_dpy_objects_status() -> *mut c_char {
    boundary(ptr::null_mut(), || c_string(&status(SharedObjects::global()).to_string()))
}

fn status(objects: &SharedObjects) -> serde_json::Value {
    let list = objects.list();
    let count = |kind| list.iter().filter(|entry| entry.kind == kind).count();
    json!({
        "reserved": count(Kind::Reserved),
        "dma-bufs": count(Kind::DmaBuf),
        "vhost-devices": count(Kind::Device),
        "objects": list.iter().map(|entry| json!({
            "uuid": entry.uuid.to_string(),
            "kind": match entry.kind {
                Kind::Reserved => "reserved",
                Kind::DmaBuf => "dma-buf",
                Kind::Device => "vhost-device",
            },
            "owner": &*entry.owner,
        })).collect::<Vec<_>>(),
    })
}

/// A descriptor of its own for the dma-buf of this UUID, or what the kernel said against that.
pub(crate) fn duplicate(
    objects: &SharedObjects,
    uuid: Uuid,
    patience: Duration,
) -> Result<io::Result<OwnedFd>, LookupError> {
    objects.with_dma_buf(uuid, patience, |fd| {
        // SAFETY: fcntl takes any number, and touches no memory.
        match unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) } {
            -1 => Err(io::Error::last_os_error()),
            // SAFETY: the kernel has just made this descriptor, for us.
            fd => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        }
    })
}

fn pointer_to(device: Device) -> *mut c_void {
    ptr::with_exposed_provenance_mut(device.0.get())
}

fn errno_of(error: &LookupError) -> c_int {
    match error {
        LookupError::Unknown(_) => libc::ENOENT,
        LookupError::NotYet(_) => libc::EAGAIN,
        LookupError::WrongKind(..) => libc::EMEDIUMTYPE,
    }
}

/// # Safety
///
/// `message` is valid or NULL.
unsafe fn refuse(error: &AddError, message: *mut *mut c_char) -> c_int {
    // SAFETY: the caller's promise.
    unsafe { tell(message, &error.to_string()) };
    -match error {
        AddError::Held(_) => libc::EEXIST,
        AddError::Full(_) => libc::ENOSPC,
        AddError::BadDescriptor(_) => libc::EBADF,
        AddError::Gone(_) => libc::ESTALE,
        AddError::Complete(_) => libc::EALREADY,
    }
}
