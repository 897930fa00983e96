/* SPDX-License-Identifier: GPL-2.0-or-later */

#ifndef VFIO_DISPLAY_OBJECTS_H
#define VFIO_DISPLAY_OBJECTS_H

/* Generated from src/capi by `UPDATE_HEADER=1 cargo test --test header`: do not edit. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * DOC: shared objects
 *
 * A table of dma-bufs that the devices of a VM share, by UUID. All functions
 * may be called from any thread. vfio_display.h has the rules for all functions.
 */


/**
 * enum VfioDpyObjectsKind - What a UUID leads to.
 */
typedef enum VfioDpyObjectsKind {
    /**
     * @VFIO_DPY_OBJECTS_KIND_NONE: Nothing, or an entry that is not complete
     * yet.
     */
    VFIO_DPY_OBJECTS_KIND_NONE = 0,
    /**
     * @VFIO_DPY_OBJECTS_KIND_DMA_BUF: A dma-buf.
     */
    VFIO_DPY_OBJECTS_KIND_DMA_BUF = 1,
    /**
     * @VFIO_DPY_OBJECTS_KIND_VHOST_DEVICE: A vhost-user device that is to be
     * asked for a dma-buf.
     */
    VFIO_DPY_OBJECTS_KIND_VHOST_DEVICE = 2,
} VfioDpyObjectsKind;

/**
 * typedef VfioDpyObjectsClaim - An entry in the table of shared objects, from
 * its reservation to its end.
 */
typedef struct VfioDpyObjectsClaim VfioDpyObjectsClaim;

/**
 * typedef VfioDpyObjectsOwner - An owner of shared objects.
 */
typedef struct VfioDpyObjectsOwner VfioDpyObjectsOwner;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * vfio_dpy_objects_add_dmabuf() - Adds a dma-buf.
 * @uuid: Its UUID, of 16 bytes.
 * @fd: The dma-buf. It stays the caller's, who must keep it open until the
 * entry is removed.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL.
 *
 * Context: Any thread.
 * Return: 0 or a negative errno: -EEXIST: the UUID is taken; -EBADF: @fd is
 * negative; -EINVAL: @uuid is NULL.
 */
int vfio_dpy_objects_add_dmabuf(const uint8_t *uuid,
                                int fd,
                                char **error);

/**
 * vfio_dpy_objects_add_vhost_device() - Adds a vhost-user device that is to be
 * asked for a dma-buf.
 * @uuid: The UUID, of 16 bytes.
 * @device: The device. It is identified by its address, which is never
 * dereferenced.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL.
 *
 * Context: Any thread.
 * Return: 0 or a negative errno: -EEXIST: the UUID is taken; -EINVAL: @uuid or
 * @device is NULL.
 */
int vfio_dpy_objects_add_vhost_device(const uint8_t *uuid,
                                      void *device,
                                      char **error);

/**
 * vfio_dpy_objects_remove() - Removes an entry, complete or not.
 * @uuid: Its UUID, of 16 bytes, or NULL.
 *
 * Context: Any thread.
 * Return: Whether there was one.
 */
bool vfio_dpy_objects_remove(const uint8_t *uuid);

/**
 * vfio_dpy_objects_kind() - Returns what a UUID leads to.
 * @uuid: The UUID, of 16 bytes, or NULL.
 *
 * Context: Any thread.
 * Return: Its kind.
 */
enum VfioDpyObjectsKind vfio_dpy_objects_kind(const uint8_t *uuid);

/**
 * vfio_dpy_objects_peek_dmabuf() - Finds a dma-buf, without duplicating its
 * descriptor.
 * @uuid: Its UUID, of 16 bytes.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL.
 *
 * The number may be another file's by the time the caller uses it, if another
 * thread removes the entry; vfio_dpy_objects_dup_dmabuf() has no such race.
 *
 * Context: Any thread.
 * Return: The descriptor, which is not the caller's, or a negative errno as for
 * vfio_dpy_objects_dup_dmabuf().
 */
int vfio_dpy_objects_peek_dmabuf(const uint8_t *uuid,
                                 char **error);

/**
 * vfio_dpy_objects_dup_dmabuf() - Finds a dma-buf, and duplicates its
 * descriptor.
 * @uuid: Its UUID, of 16 bytes.
 * @timeout_ms: How long to wait for an entry that is reserved, in milliseconds;
 * 0: not at all. Do not wait on a thread that the completion needs, such as
 * QEMU's main loop.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL.
 *
 * The entry cannot be removed meanwhile, so the descriptor is never another
 * file's.
 *
 * Context: Any thread.
 * Return: A descriptor with close-on-exec set, for the caller to close, or a
 * negative errno: -ENOENT: there is no such entry; -EAGAIN: it is not complete
 * yet; -EMEDIUMTYPE: it is a device; -EINVAL: @uuid is NULL; or what
 * fcntl(F_DUPFD_CLOEXEC) said.
 */
int vfio_dpy_objects_dup_dmabuf(const uint8_t *uuid,
                                uint32_t timeout_ms,
                                char **error);

/**
 * vfio_dpy_objects_find_vhost_device() - Finds the vhost-user device to ask for
 * an object.
 * @uuid: The UUID of the object, of 16 bytes.
 * @timeout_ms: How long to wait, as for vfio_dpy_objects_dup_dmabuf().
 * @device: Where to put the device on success.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL.
 *
 * Context: Any thread.
 * Return: 0 or a negative errno: -ENOENT: there is no such entry; -EAGAIN: it
 * is not complete yet; -EMEDIUMTYPE: it is a dma-buf; -EINVAL: @uuid is NULL.
 */
int vfio_dpy_objects_find_vhost_device(const uint8_t *uuid,
                                       uint32_t timeout_ms,
                                       void **device,
                                       char **error);

/**
 * vfio_dpy_objects_remove_vhost_device() - Removes all entries that lead to a
 * vhost-user device, which is about to go away.
 * @device: The device, or NULL.
 *
 * Context: Any thread.
 * Return: How many there were.
 */
size_t vfio_dpy_objects_remove_vhost_device(void *device);

/**
 * vfio_dpy_objects_clear() - Removes all entries. Owners and claims stay valid,
 * without entries.
 *
 * Context: Any thread.
 */
void vfio_dpy_objects_clear(void);

/**
 * vfio_dpy_objects_owner_new() - Creates an owner of shared objects, with which
 * its entries are removed.
 * @name: The owner's name in messages; copied.
 *
 * Context: Any thread.
 * Return: The owner, to be freed with vfio_dpy_objects_owner_free().
 */
struct VfioDpyObjectsOwner *vfio_dpy_objects_owner_new(const char *name);

/**
 * vfio_dpy_objects_owner_free() - Frees an owner, and removes all its entries.
 * @owner: The owner; NULL is fine. Its claims stay valid, and must be freed.
 *
 * Context: Any thread.
 */
void vfio_dpy_objects_owner_free(struct VfioDpyObjectsOwner *owner);

/**
 * vfio_dpy_objects_reserve() - Reserves a UUID for an object that will follow.
 * @owner: Its owner.
 * @uuid: The UUID, of 16 bytes.
 * @claim: Where to put the claim on success, to be freed with
 * vfio_dpy_objects_claim_free().
 * @error: Where to put a message on failure, to be freed with g_free(), which
 * says who holds the UUID; may be NULL.
 *
 * Lookups do not find the entry until it is completed; nobody else can add one
 * with this UUID.
 *
 * Context: Any thread.
 * Return: 0 or a negative errno: -EEXIST: the UUID is taken; -ENOSPC: the owner
 * has too many entries; -EINVAL: @uuid is NULL.
 */
int vfio_dpy_objects_reserve(const struct VfioDpyObjectsOwner *owner,
                             const uint8_t *uuid,
                             struct VfioDpyObjectsClaim **claim,
                             char **error);

/**
 * vfio_dpy_objects_complete_dmabuf() - Completes an entry with a dma-buf, and
 * wakes the lookups that wait for it.
 * @claim: The claim on the entry.
 * @fd: The dma-buf. It stays the caller's, who must keep it open until the
 * claim is freed, or the entry is gone otherwise.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL.
 *
 * Context: Any thread.
 * Return: 0 or a negative errno: -EBADF: @fd is negative; -ESTALE: the entry
 * has gone; -EALREADY: it is complete.
 */
int vfio_dpy_objects_complete_dmabuf(struct VfioDpyObjectsClaim *claim,
                                     int fd,
                                     char **error);

/**
 * vfio_dpy_objects_complete_vhost_device() - Completes an entry with a
 * vhost-user device that is to be asked for the dma-buf.
 * @claim: The claim on the entry.
 * @device: The device. It is identified by its address, which is never
 * dereferenced.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL.
 *
 * Context: Any thread.
 * Return: 0 or a negative errno: -EINVAL: @device is NULL; -ESTALE: the entry
 * has gone; -EALREADY: it is complete.
 */
int vfio_dpy_objects_complete_vhost_device(struct VfioDpyObjectsClaim *claim,
                                           void *device,
                                           char **error);

/**
 * vfio_dpy_objects_claim_free() - Frees a claim, and removes its entry,
 * complete or not.
 * @claim: The claim; NULL is fine.
 *
 * Lookups that wait for the entry fail.
 *
 * Context: Any thread.
 */
void vfio_dpy_objects_claim_free(struct VfioDpyObjectsClaim *claim);

/**
 * vfio_dpy_objects_status() - Returns the content of the table as JSON.
 *
 * Context: Any thread.
 * Return: A JSON object, counts by kind and a list of all entries, to be freed
 * with g_free().
 */
char *vfio_dpy_objects_status(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VFIO_DISPLAY_OBJECTS_H */
