/*
 * Preloaded into QEMU: a vfio device that the kernel's driver cannot migrate
 * seems to be one that can, and has no state of its own. So what QEMU itself
 * saves and loads of a device can be tried with the sample drivers.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/ioctl.h>

/* Newer than the headers of Debian 12: 64 bits, the bytes of state. */
#define FEATURE_MIG_DATA_SIZE 9

/* Reading it is at the end at once, and what is written is lost. */
static int no_data(int flags)
{
    return open("/dev/null", flags | O_CLOEXEC);
}

static int feature(struct vfio_device_feature *request)
{
    struct vfio_device_feature_migration *migration = (void *)request->data;
    struct vfio_device_feature_mig_state *state = (void *)request->data;

    switch (request->flags & VFIO_DEVICE_FEATURE_MASK) {
    case VFIO_DEVICE_FEATURE_MIGRATION:
        migration->flags = VFIO_MIGRATION_STOP_COPY;
        return 0;
    case VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE:
        state->data_fd = -1;
        if (state->device_state == VFIO_DEVICE_STATE_STOP_COPY) {
            state->data_fd = no_data(O_RDONLY);
        } else if (state->device_state == VFIO_DEVICE_STATE_RESUMING) {
            state->data_fd = no_data(O_WRONLY);
        }
        return 0;
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_START:
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP:
    case VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT:
        /* A sample driver writes no guest memory, so the bitmap stays clear. */
        return 0;
    case FEATURE_MIG_DATA_SIZE:
        /* an estimate, for buffers: there may be less */
        *(uint64_t *)request->data = 4096;
        return 0;
    }
    errno = ENOTTY;
    return -1;
}

int ioctl(int fd, unsigned long request, ...)
{
    static int (*next)(int, unsigned long, void *);
    va_list arguments;
    void *argument;

    va_start(arguments, request);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    if (request == VFIO_DEVICE_FEATURE) {
        return feature(argument);
    }
    if (!next) {
        next = (int (*)(int, unsigned long, void *))dlsym(RTLD_NEXT, "ioctl");
    }
    return next(fd, request, argument);
}
