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

#include <vfio_display_objects.h>

#include "check.h"

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

    vfio_dpy_objects_clear();
    g_assert_false(vfio_dpy_objects_remove(one));
    g_assert_cmpuint(vfio_dpy_objects_remove_vhost_device(&first), ==, 0);
    g_assert_cmpint(vfio_dpy_objects_peek_dmabuf(one, NULL), ==, -ENOENT);
    g_assert_cmpint(vfio_dpy_objects_dup_dmabuf(one, 0, NULL), ==, -ENOENT);
}

static void test_null(void)
{
    void *found = NULL;
    int device;

    g_assert_cmpint(vfio_dpy_objects_add_dmabuf(NULL, 3, NULL), ==, -EINVAL);
    g_assert_cmpint(vfio_dpy_objects_add_vhost_device(NULL, &device, NULL), ==, -EINVAL);
    g_assert_cmpint(vfio_dpy_objects_add_vhost_device(one, NULL, NULL), ==, -EINVAL);
    g_assert_false(vfio_dpy_objects_remove(NULL));
    g_assert_cmpint(vfio_dpy_objects_peek_dmabuf(NULL, NULL), ==, -EINVAL);
    g_assert_cmpint(vfio_dpy_objects_find_vhost_device(NULL, 0, &found, NULL), ==, -EINVAL);
    g_assert_cmpuint(vfio_dpy_objects_kind(NULL), ==, VFIO_DPY_OBJECTS_KIND_NONE);
    g_assert_cmpint(vfio_dpy_objects_dup_dmabuf(NULL, 0, NULL), ==, -EINVAL);
    g_assert_cmpuint(vfio_dpy_objects_remove_vhost_device(NULL), ==, 0);
    vfio_dpy_objects_owner_free(NULL);
    vfio_dpy_objects_claim_free(NULL);
}

static void test_kinds(void)
{
    int device, fd = new_file('a');
    void *found = &fd;

    g_assert_cmpint(vfio_dpy_objects_add_dmabuf(one, fd, NULL), ==, 0);
    g_assert_cmpint(vfio_dpy_objects_add_vhost_device(two, &device, NULL), ==, 0);
    g_assert_cmpuint(vfio_dpy_objects_kind(one), ==, VFIO_DPY_OBJECTS_KIND_DMA_BUF);
    g_assert_cmpuint(vfio_dpy_objects_kind(two), ==, VFIO_DPY_OBJECTS_KIND_VHOST_DEVICE);
    g_assert_cmpint(vfio_dpy_objects_peek_dmabuf(two, NULL), ==, -EMEDIUMTYPE);
    g_assert_cmpint(vfio_dpy_objects_dup_dmabuf(two, 0, NULL), ==, -EMEDIUMTYPE);
    g_assert_cmpint(vfio_dpy_objects_find_vhost_device(one, 0, &found, NULL), ==, -EMEDIUMTYPE);
    g_assert(found == &fd);
    g_assert_cmpint(vfio_dpy_objects_find_vhost_device(two, 0, &found, NULL), ==, 0);
    g_assert(found == &device);
    g_assert_cmpuint(vfio_dpy_objects_remove_vhost_device(&device), ==, 1);
    g_assert_cmpint(vfio_dpy_objects_find_vhost_device(two, 0, &found, NULL), ==, -ENOENT);
    g_assert(vfio_dpy_objects_remove(one));
    close(fd);
}

static void test_duplicate(void)
{
    int fd = new_file('a'), copy;

    g_assert_cmpint(vfio_dpy_objects_add_dmabuf(one, fd, NULL), ==, 0);
    copy = vfio_dpy_objects_dup_dmabuf(one, 0, NULL);
    g_assert_cmpint(copy, !=, fd);
    g_assert(fcntl(copy, F_GETFD) & FD_CLOEXEC);
    g_assert(vfio_dpy_objects_remove(one));
    close(fd);
    g_assert_cmpint(letter_of(copy), ==, 'a');
    close(copy);

    /* What QEMU's own test does: any number. It is no file, and the kernel says so. */
    g_assert_cmpint(vfio_dpy_objects_add_dmabuf(one, 1 << 20, NULL), ==, 0);
    g_assert_cmpint(vfio_dpy_objects_peek_dmabuf(one, NULL), ==, 1 << 20);
    g_assert_cmpint(vfio_dpy_objects_dup_dmabuf(one, 0, NULL), ==, -EBADF);
    g_assert(vfio_dpy_objects_remove(one));
}

static void test_two_steps(void)
{
    VfioDpyObjectsOwner *owner = vfio_dpy_objects_owner_new("vgpu0");
    VfioDpyObjectsClaim *claim = NULL, *other = NULL;
    int fd = new_file('a'), copy;
    char *message = NULL;

    g_assert_cmpint(vfio_dpy_objects_reserve(owner, one, &claim, &message), ==, 0);
    g_assert_null(message);
    g_assert_cmpint(vfio_dpy_objects_dup_dmabuf(one, 0, NULL), ==, -EAGAIN);
    g_assert_cmpint(vfio_dpy_objects_dup_dmabuf(one, 1, NULL), ==, -EAGAIN);
    g_assert_cmpuint(vfio_dpy_objects_kind(one), ==, VFIO_DPY_OBJECTS_KIND_NONE);
    g_assert_cmpint(vfio_dpy_objects_add_dmabuf(one, fd, &message), ==, -EEXIST);
    assert_message(message, "held by vgpu0");
    g_assert_cmpint(vfio_dpy_objects_reserve(owner, one, &other, &message), ==, -EEXIST);
    g_assert_null(other);
    assert_message(message, "held by vgpu0");

    message = NULL;
    g_assert_cmpint(vfio_dpy_objects_complete_dmabuf(claim, -1, &message), ==, -EBADF);
    assert_message(message, "-1");
    g_assert_cmpint(vfio_dpy_objects_complete_vhost_device(claim, NULL, NULL), ==, -EINVAL);
    g_assert_cmpint(vfio_dpy_objects_complete_dmabuf(claim, fd, NULL), ==, 0);
    g_assert_cmpint(vfio_dpy_objects_complete_dmabuf(claim, fd, NULL), ==, -EALREADY);
    copy = vfio_dpy_objects_dup_dmabuf(one, 0, NULL);
    g_assert_cmpint(letter_of(copy), ==, 'a');
    close(copy);

    vfio_dpy_objects_claim_free(claim);
    g_assert_cmpint(vfio_dpy_objects_dup_dmabuf(one, 0, NULL), ==, -ENOENT);
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
    g_assert_cmpint(vfio_dpy_objects_peek_dmabuf(one, NULL), ==, -ENOENT);
    g_assert_cmpint(vfio_dpy_objects_complete_dmabuf(reserved, fd, NULL), ==, -ESTALE);

    /* The UUID is free, and the old claim does not touch whoever has it now. */
    g_assert_cmpint(vfio_dpy_objects_add_dmabuf(one, fd, NULL), ==, 0);
    vfio_dpy_objects_claim_free(complete);
    vfio_dpy_objects_claim_free(reserved);
    g_assert_cmpint(vfio_dpy_objects_peek_dmabuf(one, NULL), ==, fd);
    g_assert(vfio_dpy_objects_remove(one));
    close(fd);
}

static void *wait_for_one(void *unused G_GNUC_UNUSED)
{
    return GINT_TO_POINTER(vfio_dpy_objects_dup_dmabuf(one, G_MAXUINT32, NULL));
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
    void *found;
    char *status;

    g_assert_cmpint(vfio_dpy_objects_reserve(owner, one, &claim, NULL), ==, 0);
    g_assert_cmpint(vfio_dpy_objects_add_vhost_device(two, owner, NULL), ==, 0);
    status = vfio_dpy_objects_status();
    g_assert_nonnull(strstr(status, "\"reserved\":1"));
    g_assert_nonnull(strstr(status, "\"dma-bufs\":0"));
    g_assert_nonnull(strstr(status, "\"vhost-devices\":1"));
    g_assert_nonnull(strstr(status, "01000000-0000-0000-0000-000000000000"));
    g_assert_nonnull(strstr(status, "vgpu0"));
    g_free(status);
    vfio_dpy_objects_claim_free(claim);
    vfio_dpy_objects_owner_free(owner);
    vfio_dpy_objects_clear();
    g_assert_cmpint(vfio_dpy_objects_find_vhost_device(two, 0, &found, NULL), ==, -ENOENT);
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
