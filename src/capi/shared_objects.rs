//! The table of shared objects, beneath the functions of QEMU's `hw/virtio/virtio-dmabuf.h` and
//! beyond them.
//!
//! Unlike a display's, these functions may be called from any thread, at the same time.

use std::ffi::{c_char, c_int, c_void};
use std::num::NonZeroUsize;
use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};
use std::time::Duration;
use std::{io, ptr};

use serde_json::json;
use uuid::Uuid;

use crate::shared_objects::{
    AddError, Claim, Device, DmaBuf, Kind, LookupError, Object, Owner, SharedObjects,
};

use super::strings::{glib_string, text_of};
use super::{boundary, explained, tell};

/// What a UUID leads to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VfioDpyObjectsKind {
    /// Nothing, or an entry that is not complete yet.
    None = 0,
    /// A dma-buf.
    DmaBuf = 1,
    /// A vhost-user device that is to be asked for a dma-buf.
    VhostDevice = 2,
}

/// An owner of shared objects.
pub struct VfioDpyObjectsOwner(Owner<'static>);

/// An entry in the table of shared objects, from its reservation to its end.
pub struct VfioDpyObjectsClaim(Claim<'static>);

/// Why a call failed: an errno, and a message.
struct Refusal(c_int, String);

impl From<AddError> for Refusal {
    fn from(error: AddError) -> Self {
        let errno = match error {
            AddError::Held(_) => libc::EEXIST,
            AddError::Full(_) => libc::ENOSPC,
            AddError::BadDescriptor(_) => libc::EBADF,
            AddError::Gone(_) => libc::ESTALE,
            AddError::Complete(_) => libc::EALREADY,
        };
        Self(errno, error.to_string())
    }
}

impl From<LookupError> for Refusal {
    fn from(error: LookupError) -> Self {
        let errno = match error {
            LookupError::Unknown(_) => libc::ENOENT,
            LookupError::NotYet(_) => libc::EAGAIN,
            LookupError::WrongKind(..) => libc::EMEDIUMTYPE,
        };
        Self(errno, error.to_string())
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO), error.to_string())
    }
}

impl Refusal {
    fn invalid(what: &str) -> Self {
        Self(libc::EINVAL, what.to_owned())
    }
}

/// What a C function returns: what `body` does, or a negative errno with a message.
///
/// # Safety
///
/// `error` is writable, or NULL.
unsafe fn answer(error: *mut *mut c_char, body: impl FnOnce() -> Result<c_int, Refusal>) -> c_int {
    let body = || {
        body().unwrap_or_else(|Refusal(errno, why)| {
            // SAFETY: the caller's promise.
            unsafe { tell(error, &why) };
            -errno
        })
    };
    // SAFETY: the caller's promise.
    unsafe { explained(error, -libc::EIO, body) }
}

/// # Safety
///
/// `uuid` points to 16 bytes, or is NULL.
unsafe fn uuid_from(uuid: *const u8) -> Result<Uuid, Refusal> {
    // SAFETY: the caller's promise; an array of bytes has no alignment.
    let bytes = unsafe { uuid.cast::<[u8; 16]>().as_ref() };
    bytes.map(|bytes| Uuid::from_bytes(*bytes)).ok_or_else(|| Refusal::invalid("there is no UUID"))
}

fn device_from(device: *mut c_void) -> Result<Device, Refusal> {
    let address = NonZeroUsize::new(device.expose_provenance());
    address.map(Device).ok_or_else(|| Refusal::invalid("there is no device"))
}

/// Adds a dma-buf.
/// @uuid: Its UUID, of 16 bytes.
/// @fd: The dma-buf. It stays the caller's, who must keep it open until the entry is removed.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL.
///
/// Context: Any thread.
/// Return: 0 or a negative errno: -EEXIST: the UUID is taken; -EBADF: @fd is negative;
/// -EINVAL: @uuid is NULL.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_add_dmabuf(
    uuid: *const u8,
    fd: c_int,
    error: *mut *mut c_char,
) -> c_int {
    let add = || {
        // SAFETY: the caller's promise.
        let uuid = unsafe { uuid_from(uuid) }?;
        SharedObjects::global().add(uuid, Object::DmaBuf(DmaBuf::Borrowed(fd)))?;
        Ok(0)
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, add) }
}

/// Adds a vhost-user device that is to be asked for a dma-buf.
/// @uuid: The UUID, of 16 bytes.
/// @device: The device. It is identified by its address, which is never dereferenced.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL.
///
/// Context: Any thread.
/// Return: 0 or a negative errno: -EEXIST: the UUID is taken; -EINVAL: @uuid or @device is NULL.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_add_vhost_device(
    uuid: *const u8,
    device: *mut c_void,
    error: *mut *mut c_char,
) -> c_int {
    let add = || {
        // SAFETY: the caller's promise.
        let uuid = unsafe { uuid_from(uuid) }?;
        SharedObjects::global().add(uuid, Object::Device(device_from(device)?))?;
        Ok(0)
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, add) }
}

/// Removes an entry, complete or not.
/// @uuid: Its UUID, of 16 bytes, or NULL.
///
/// Context: Any thread.
/// Return: Whether there was one.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_remove(uuid: *const u8) -> bool {
    boundary(false, || {
        // SAFETY: the caller's promise.
        unsafe { uuid_from(uuid) }.is_ok_and(|uuid| SharedObjects::global().remove(uuid))
    })
}

/// Returns what a UUID leads to.
/// @uuid: The UUID, of 16 bytes, or NULL.
///
/// Context: Any thread.
/// Return: Its kind.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_kind(uuid: *const u8) -> VfioDpyObjectsKind {
    boundary(VfioDpyObjectsKind::None, || {
        // SAFETY: the caller's promise.
        let uuid = unsafe { uuid_from(uuid) }.ok();
        match uuid.and_then(|uuid| SharedObjects::global().kind(uuid)) {
            None | Some(Kind::Reserved) => VfioDpyObjectsKind::None,
            Some(Kind::DmaBuf) => VfioDpyObjectsKind::DmaBuf,
            Some(Kind::Device) => VfioDpyObjectsKind::VhostDevice,
        }
    })
}

/// Finds a dma-buf, without duplicating its descriptor.
/// @uuid: Its UUID, of 16 bytes.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL.
///
/// The number may be another file's by the time the caller uses it, if another thread removes the
/// entry; vfio_dpy_objects_dup_dmabuf() has no such race.
///
/// Context: Any thread.
/// Return: The descriptor, which is not the caller's, or a negative errno as for
/// vfio_dpy_objects_dup_dmabuf().
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_peek_dmabuf(
    uuid: *const u8,
    error: *mut *mut c_char,
) -> c_int {
    let peek = || {
        // SAFETY: the caller's promise.
        let uuid = unsafe { uuid_from(uuid) }?;
        Ok(SharedObjects::global().dma_buf_number(uuid, Duration::ZERO)?)
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, peek) }
}

/// Finds a dma-buf, and duplicates its descriptor.
/// @uuid: Its UUID, of 16 bytes.
/// @timeout_ms: How long to wait for an entry that is reserved, in milliseconds; 0: not at all. Do
/// not wait on a thread that the completion needs, such as QEMU's main loop.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL.
///
/// The entry cannot be removed meanwhile, so the descriptor is never another file's.
///
/// Context: Any thread.
/// Return: A descriptor with close-on-exec set, for the caller to close, or a negative errno:
/// -ENOENT: there is no such entry; -EAGAIN: it is not complete yet; -EMEDIUMTYPE: it is a device;
/// -EINVAL: @uuid is NULL; or what fcntl(F_DUPFD_CLOEXEC) said.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_dup_dmabuf(
    uuid: *const u8,
    timeout_ms: u32,
    error: *mut *mut c_char,
) -> c_int {
    let dup = || {
        // SAFETY: the caller's promise.
        let uuid = unsafe { uuid_from(uuid) }?;
        let patience = Duration::from_millis(timeout_ms.into());
        Ok(duplicate(SharedObjects::global(), uuid, patience)??.into_raw_fd())
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, dup) }
}

/// Finds the vhost-user device to ask for an object.
/// @uuid: The UUID of the object, of 16 bytes.
/// @timeout_ms: How long to wait, as for vfio_dpy_objects_dup_dmabuf().
/// @device: Where to put the device on success.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL.
///
/// Context: Any thread.
/// Return: 0 or a negative errno: -ENOENT: there is no such entry; -EAGAIN: it is not complete yet;
/// -EMEDIUMTYPE: it is a dma-buf; -EINVAL: @uuid is NULL.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_find_vhost_device(
    uuid: *const u8,
    timeout_ms: u32,
    device: *mut *mut c_void,
    error: *mut *mut c_char,
) -> c_int {
    let find = || {
        // SAFETY: the caller's promise.
        let uuid = unsafe { uuid_from(uuid) }?;
        let patience = Duration::from_millis(timeout_ms.into());
        let found = SharedObjects::global().device(uuid, patience)?;
        // SAFETY: the caller gives a valid place.
        unsafe { *device = ptr::with_exposed_provenance_mut(found.0.get()) };
        Ok(0)
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, find) }
}

/// Removes all entries that lead to a vhost-user device, which is about to go away.
/// @device: The device, or NULL.
///
/// Context: Any thread.
/// Return: How many there were.
#[unsafe(no_mangle)]
pub extern "C" fn vfio_dpy_objects_remove_vhost_device(device: *mut c_void) -> usize {
    boundary(0, || {
        device_from(device).map_or(0, |device| SharedObjects::global().remove_device(device))
    })
}

/// Removes all entries. Owners and claims stay valid, without entries.
///
/// Context: Any thread.
#[unsafe(no_mangle)]
pub extern "C" fn vfio_dpy_objects_clear() {
    boundary((), || SharedObjects::global().clear());
}

/// Creates an owner of shared objects, with which its entries are removed.
/// @name: The owner's name in messages; copied.
///
/// Context: Any thread.
/// Return: The owner, to be freed with vfio_dpy_objects_owner_free().
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_owner_new(
    name: *const c_char,
) -> *mut VfioDpyObjectsOwner {
    boundary(ptr::null_mut(), || {
        // SAFETY: the caller gives a valid string.
        let name = unsafe { text_of(name) };
        Box::into_raw(Box::new(VfioDpyObjectsOwner(SharedObjects::global().owner(&name))))
    })
}

/// Frees an owner, and removes all its entries.
/// @owner: The owner; NULL is fine. Its claims stay valid, and must be freed.
///
/// Context: Any thread.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_owner_free(owner: *mut VfioDpyObjectsOwner) {
    if !owner.is_null() {
        // SAFETY: the pointer is from `Box::into_raw` in vfio_dpy_objects_owner_new(), and freed
        // once.
        boundary((), || drop(unsafe { Box::from_raw(owner) }));
    }
}

/// Reserves a UUID for an object that will follow.
/// @owner: Its owner.
/// @uuid: The UUID, of 16 bytes.
/// @claim: Where to put the claim on success, to be freed with vfio_dpy_objects_claim_free().
/// @error: Where to put a message on failure, to be freed with g_free(), which says who holds the
/// UUID; may be NULL.
///
/// Lookups do not find the entry until it is completed; nobody else can add one with this UUID.
///
/// Context: Any thread.
/// Return: 0 or a negative errno: -EEXIST: the UUID is taken; -ENOSPC: the owner has too many
/// entries; -EINVAL: @uuid is NULL.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_reserve(
    owner: *const VfioDpyObjectsOwner,
    uuid: *const u8,
    claim: *mut *mut VfioDpyObjectsClaim,
    error: *mut *mut c_char,
) -> c_int {
    let reserve = || {
        // SAFETY: the caller gives an owner and a UUID.
        let (owner, uuid) = unsafe { (&*owner, uuid_from(uuid)?) };
        let reserved = Box::new(VfioDpyObjectsClaim(owner.0.reserve(uuid)?));
        // SAFETY: the caller gives a valid place.
        unsafe { *claim = Box::into_raw(reserved) };
        Ok(0)
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, reserve) }
}

/// Completes an entry with a dma-buf, and wakes the lookups that wait for it.
/// @claim: The claim on the entry.
/// @fd: The dma-buf. It stays the caller's, who must keep it open until the claim is freed, or the
/// entry is gone otherwise.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL.
///
/// Context: Any thread.
/// Return: 0 or a negative errno: -EBADF: @fd is negative; -ESTALE: the entry has gone; -EALREADY:
/// it is complete.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_complete_dmabuf(
    claim: *mut VfioDpyObjectsClaim,
    fd: c_int,
    error: *mut *mut c_char,
) -> c_int {
    let complete = || {
        // SAFETY: the caller gives a claim.
        unsafe { &*claim }.0.complete(Object::DmaBuf(DmaBuf::Borrowed(fd)))?;
        Ok(0)
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, complete) }
}

/// Completes an entry with a vhost-user device that is to be asked for the dma-buf.
/// @claim: The claim on the entry.
/// @device: The device. It is identified by its address, which is never dereferenced.
/// @error: Where to put a message on failure, to be freed with g_free(); may be NULL.
///
/// Context: Any thread.
/// Return: 0 or a negative errno: -EINVAL: @device is NULL; -ESTALE: the entry has gone; -EALREADY:
/// it is complete.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_complete_vhost_device(
    claim: *mut VfioDpyObjectsClaim,
    device: *mut c_void,
    error: *mut *mut c_char,
) -> c_int {
    let complete = || {
        // SAFETY: the caller gives a claim.
        unsafe { &*claim }.0.complete(Object::Device(device_from(device)?))?;
        Ok(0)
    };
    // SAFETY: the caller's promise.
    unsafe { answer(error, complete) }
}

/// Frees a claim, and removes its entry, complete or not.
/// @claim: The claim; NULL is fine.
///
/// Lookups that wait for the entry fail.
///
/// Context: Any thread.
///
/// # Safety
///
/// As the parameters say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn vfio_dpy_objects_claim_free(claim: *mut VfioDpyObjectsClaim) {
    if !claim.is_null() {
        // SAFETY: the pointer is from `Box::into_raw` in vfio_dpy_objects_reserve(), and freed
        // once.
        boundary((), || drop(unsafe { Box::from_raw(claim) }));
    }
}

/// Returns the content of the table as JSON.
///
/// Context: Any thread.
/// Return: A JSON object, counts by kind and a list of all entries, to be freed with g_free().
#[unsafe(no_mangle)]
pub extern "C" fn vfio_dpy_objects_status() -> *mut c_char {
    boundary(ptr::null_mut(), || glib_string(&status(SharedObjects::global()).to_string()))
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
