/*
 * Preloaded into QEMU: a /dev/udmabuf on machines that have none. What it makes of guest memory is a copy, so that
 * what is drawn later is not in it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/udmabuf.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/* QEMU has it open, and Mesa. */
static int devices[4], count;

static int open_device(const char *path)
{
    if (strcmp(path, "/dev/udmabuf")) {
        return -1;
    }
    if (count == sizeof(devices) / sizeof(*devices)) {
        abort();
    }
    devices[count] = memfd_create("udmabuf", MFD_CLOEXEC);
    return devices[count++];
}

static bool is_device(int fd)
{
    for (int i = 0; i < count; i++) {
        if (devices[i] == fd) {
            return true;
        }
    }
    return false;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) \
    { \
        int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, #name); \
        int fd = open_device(path); \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; \
        va_end(list); \
        return fd >= 0 ? fd : real(path, flags, mode); \
    }

OPEN(open)
OPEN(open64)

static int create(const struct udmabuf_create_list *list)
{
    int fd = memfd_create("dma-buf", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    off_t at = 0;

    for (unsigned int i = 0; i < list->count; i++) {
        char *bytes = malloc(list->list[i].size);
        ssize_t size = pread(list->list[i].memfd, bytes, list->list[i].size, list->list[i].offset);

        if (size < 0 || pwrite(fd, bytes, size, at) != size) {
            abort();
        }
        at += size;
        free(bytes);
    }
    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK);
    return fd;
}

int ioctl(int fd, unsigned long request, ...)
{
    int (*real)(int, unsigned long, ...) = dlsym(RTLD_NEXT, "ioctl");
    va_list list;

    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    if (request == UDMABUF_CREATE_LIST && is_device(fd)) {
        return create(argument);
    }
    return real(fd, request, argument);
}
