/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of shared objects from C. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vfio_display.h>

#include "check.h"

/* As QEMU's hw/virtio/virtio-dmabuf.h has them, for uuid.data in place of a QemuUUID. */
bool virtio_add_dmabuf(const uint8_t *uuid, int fd);
bool virtio_add_vhost_device(const uint8_t *uuid, void *dev);
bool virtio_remove_resource(const uint8_t *uuid);
int virtio_lookup_dmabuf(const uint8_t *uuid);
int virtio_dup_dmabuf(const uint8_t *uuid);
void *virtio_lookup_vhost_device(const uint8_t *uuid);
unsigned virtio_object_type(const uint8_t *uuid);
void virtio_remove_vhost_device(void *dev);
void virtio_free_resources(void);

enum { TYPE_INVALID, TYPE_DMABUF, TYPE_VHOST_DEV };

static const uint8_t one[16] = { 1 }, two[16] = { 2 };

/* A file that says who it is. */
static int new_file(char letter)
{
    int fd = memfd_create("object", MFD_CLOEXEC);

    g_assert(fd >= 0 && write(fd, &letter, 1) == 1);
    return fd;
}

static char letter_of(int fd)
{
    char letter = 0;

    g_assert(pread(fd, &letter, 1, 0) == 1);
    return letter;
}

/* The message, which names what it is about, is the caller's. */
static void assert_message(char *message, const char *part)
{
    g_assert_nonnull(message);
    g_assert_nonnull(strstr(message, part));
    g_free(message);
}

static void test_first_calls(void)
{
    int first;

    virtio_free_resources();
    g_assert_false(virtio_remove_resource(one));
    virtio_remove_vhost_device(&first);
    g_assert_cmpint(virtio_lookup_dmabuf(one), ==, -1);
    g_assert_cmpint(virtio_dup_dmabuf(one), ==, -ENOENT);
}

static void test_null(void)
{
    int device;

    g_assert_false(virtio_add_dmabuf(NULL, 3));
    g_assert_false(virtio_add_vhost_device(NULL, &device));
    g_assert_false(virtio_add_vhost_device(one, NULL));
    g_assert_false(virtio_remove_resource(NULL));
    g_assert_cmpint(virtio_lookup_dmabuf(NULL), ==, -1);
    g_assert_null(virtio_lookup_vhost_device(NULL));
    g_assert_cmpuint(virtio_object_type(NULL), ==, TYPE_INVALID);
    g_assert_cmpint(vfio_dpy_objects_dup_dmabuf(NULL, 0), ==, -EINVAL);
    g_assert_cmpuint(vfio_dpy_objects_remove_vhost_device(NULL), ==, 0);
    vfio_dpy_objects_owner_free(NULL);
    vfio_dpy_objects_claim_free(NULL);
}

static void test_kinds(void)
{
    int device, fd = new_file('a');
    void *found = &fd;

    g_assert(virtio_add_dmabuf(one, fd));
    g_assert(virtio_add_vhost_device(two, &device));
    g_assert_cmpuint(virtio_object_type(one), ==, TYPE_DMABUF);
    g_assert_cmpuint(virtio_object_type(two), ==, TYPE_VHOST_DEV);
    g_assert_cmpint(virtio_lookup_dmabuf(two), ==, -1);
    g_assert_null(virtio_lookup_vhost_device(one));
    g_assert_cmpint(virtio_dup_dmabuf(two), ==, -EMEDIUMTYPE);
    g_assert_cmpint(vfio_dpy_objects_find_vhost_device(one, 0, &found), ==, -EMEDIUMTYPE);
    g_assert(found == &fd);
    g_assert_cmpint(vfio_dpy_objects_find_vhost_device(two, 0, &found), ==, 0);
    g_assert(found == &device);
    virtio_remove_vhost_device(&device);
    g_assert_null(virtio_lookup_vhost_device(two));
    g_assert(virtio_remove_resource(one));
    close(fd);
}

static void test_duplicate(void)
{
    int fd = new_file('a'), copy;

    g_assert(virtio_add_dmabuf(one, fd));
    copy = vfio_dpy_objects_dup_dmabuf(one, 0);
    g_assert_cmpint(copy, !=, fd);
    g_assert(fcntl(copy, F_GETFD) & FD_CLOEXEC);
    g_assert(virtio_remove_resource(one));
    close(fd);
    g_assert_cmpint(letter_of(copy), ==, 'a');
    close(copy);

    /* What QEMU's own test does: any number. It is no file, and the kernel says so. */
    g_assert(virtio_add_dmabuf(one, 1 << 20));
    g_assert_cmpint(virtio_lookup_dmabuf(one), ==, 1 << 20);
    g_assert_cmpint(virtio_dup_dmabuf(one), ==, -EBADF);
    g_assert(virtio_remove_resource(one));
}

static void test_two_steps(void)
{
    VfioDpyObjectsOwner *owner = vfio_dpy_objects_owner_new("vgpu0");
    VfioDpyObjectsClaim *claim = NULL, *other = NULL;
    int fd = new_file('a'), copy;
    char *message = NULL;

    g_assert_cmpint(vfio_dpy_objects_reserve(owner, one, &claim, &message), ==, 0);
    g_assert_null(message);
    g_assert_cmpint(vfio_dpy_objects_dup_dmabuf(one, 0), ==, -EAGAIN);
    g_assert_cmpint(vfio_dpy_objects_dup_dmabuf(one, 1), ==, -EAGAIN);
    g_assert_cmpuint(virtio_object_type(one), ==, TYPE_INVALID);
    g_assert_false(virtio_add_dmabuf(one, fd));
    g_assert_cmpint(vfio_dpy_objects_reserve(owner, one, &other, &message), ==, -EEXIST);
    g_assert_null(other);
    assert_message(message, "held by vgpu0");

    message = NULL;
    g_assert_cmpint(vfio_dpy_objects_complete_dmabuf(claim, -1, &message), ==, -EBADF);
    assert_message(message, "-1");
    g_assert_cmpint(vfio_dpy_objects_complete_vhost_device(claim, NULL, NULL), ==, -EINVAL);
    g_assert_cmpint(vfio_dpy_objects_complete_dmabuf(claim, fd, NULL), ==, 0);
    g_assert_cmpint(vfio_dpy_objects_complete_dmabuf(claim, fd, NULL), ==, -EALREADY);
    copy = vfio_dpy_objects_dup_dmabuf(one, 0);
    g_assert_cmpint(letter_of(copy), ==, 'a');
    close(copy);

    vfio_dpy_objects_claim_free(claim);
    g_assert_cmpint(vfio_dpy_objects_dup_dmabuf(one, 0), ==, -ENOENT);
    vfio_dpy_objects_owner_free(owner);
    close(fd);
}

static void test_owner_goes_first(void)
{
    VfioDpyObjectsOwner *owner = vfio_dpy_objects_owner_new("vgpu0");
    VfioDpyObjectsClaim *complete, *reserved;
    int fd = new_file('a');

    g_assert_cmpint(vfio_dpy_objects_reserve(owner, one, &complete, NULL), ==, 0);
    g_assert_cmpint(vfio_dpy_objects_reserve(owner, two, &reserved, NULL), ==, 0);
    g_assert_cmpint(vfio_dpy_objects_complete_dmabuf(complete, fd, NULL), ==, 0);
    vfio_dpy_objects_owner_free(owner);
    g_assert_cmpint(virtio_lookup_dmabuf(one), ==, -1);
    g_assert_cmpint(vfio_dpy_objects_complete_dmabuf(reserved, fd, NULL), ==, -ESTALE);

    /* The UUID is free, and the old claim does not touch whoever has it now. */
    g_assert(virtio_add_dmabuf(one, fd));
    vfio_dpy_objects_claim_free(complete);
    vfio_dpy_objects_claim_free(reserved);
    g_assert_cmpint(virtio_lookup_dmabuf(one), ==, fd);
    g_assert(virtio_remove_resource(one));
    close(fd);
}

static void *wait_for_one(void *unused G_GNUC_UNUSED)
{
    return GINT_TO_POINTER(vfio_dpy_objects_dup_dmabuf(one, G_MAXUINT32));
}

static void test_wait(void)
{
    VfioDpyObjectsOwner *owner = vfio_dpy_objects_owner_new("vgpu0");
    VfioDpyObjectsClaim *claim;
    int fd = new_file('a'), result;
    pthread_t waiter;
    void *copy;

    for (int complete = 0; complete < 2; complete++) {
        g_assert_cmpint(vfio_dpy_objects_reserve(owner, one, &claim, NULL), ==, 0);
        g_assert(pthread_create(&waiter, NULL, wait_for_one, NULL) == 0);
        if (complete) {
            g_assert_cmpint(vfio_dpy_objects_complete_dmabuf(claim, fd, NULL), ==, 0);
        } else {
            vfio_dpy_objects_claim_free(claim);
        }
        g_assert(pthread_join(waiter, &copy) == 0);
        result = GPOINTER_TO_INT(copy);
        if (complete) {
            g_assert_cmpint(letter_of(result), ==, 'a');
            close(result);
        } else {
            g_assert_cmpint(result, ==, -ENOENT);
        }
    }
    vfio_dpy_objects_claim_free(claim);
    vfio_dpy_objects_owner_free(owner);
    close(fd);
}

static void test_status(void)
{
    VfioDpyObjectsOwner *owner = vfio_dpy_objects_owner_new("vgpu0");
    VfioDpyObjectsClaim *claim;
    char *status;

    g_assert_cmpint(vfio_dpy_objects_reserve(owner, one, &claim, NULL), ==, 0);
    g_assert(virtio_add_vhost_device(two, owner));
    status = vfio_dpy_objects_status();
    g_assert_nonnull(strstr(status, "\"reserved\":1"));
    g_assert_nonnull(strstr(status, "\"dma-bufs\":0"));
    g_assert_nonnull(strstr(status, "\"vhost-devices\":1"));
    g_assert_nonnull(strstr(status, "01000000-0000-0000-0000-000000000000"));
    g_assert_nonnull(strstr(status, "vgpu0"));
    g_free(status);
    vfio_dpy_objects_claim_free(claim);
    vfio_dpy_objects_owner_free(owner);
    virtio_free_resources();
    g_assert_null(virtio_lookup_vhost_device(two));
}

int main(int argc, char **argv)
{
    int descriptors, result;

    g_test_init(&argc, &argv, NULL);
    descriptors = open_descriptors();
    /* First, before anything was ever added. */
    g_test_add_func("/objects/first-calls", test_first_calls);
    g_test_add_func("/objects/null", test_null);
    g_test_add_func("/objects/kinds", test_kinds);
    g_test_add_func("/objects/duplicate", test_duplicate);
    g_test_add_func("/objects/two-steps", test_two_steps);
    g_test_add_func("/objects/owner-goes-first", test_owner_goes_first);
    g_test_add_func("/objects/wait", test_wait);
    g_test_add_func("/objects/status", test_status);
    result = g_test_run();
    CHECK(open_descriptors() == descriptors);
    return result;
}
