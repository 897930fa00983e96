/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writes what a vGPU shows to a file: screenshot FILE.ppm
 *
 * The vGPU is a fake with three stripes in a memfd. With a real one, the two callbacks are ioctls of the vfio device:
 * VFIO_DEVICE_QUERY_GFX_PLANE and VFIO_DEVICE_GET_REGION_INFO.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <vfio_display.h>

enum { WIDTH = 630, HEIGHT = 480, STRIDE = WIDTH * 4, XRGB8888 = 0x34325258 };

typedef struct Picture {
    uint32_t *pixels, width, height;
} Picture;

static int query_plane(void *device, struct vfio_device_gfx_plane_info *info)
{
    (void)device;
    if (!(info->flags & VFIO_GFX_PLANE_TYPE_REGION) || info->drm_plane_type > 1) {
        return -EINVAL; /* no dma-bufs, and no pointer */
    }
    info->drm_format = XRGB8888;
    info->width = WIDTH;
    info->height = HEIGHT;
    info->stride = STRIDE;
    info->size = STRIDE * HEIGHT;
    info->region_index = VFIO_PCI_NUM_REGIONS;
    return 0;
}

static int region_info(void *device, uint32_t index, VfioDpyRegion *region)
{
    (void)index;
    *region = (VfioDpyRegion){ .size = STRIDE * HEIGHT, .fd = dup(*(int *)device) };
    return 0;
}

static uint8_t *show_surface(void *console, uint32_t width, uint32_t height, size_t *stride)
{
    Picture *picture = console;

    free(picture->pixels);
    *picture = (Picture){ malloc((size_t)width * height * 4), width, height };
    *stride = (size_t)width * 4;
    return (uint8_t *)picture->pixels;
}

int main(int argc, char **argv)
{
    const uint32_t colours[] = { 0xff0000, 0x00ff00, 0x0000ff };
    VfioDpyDeviceOps device_ops = { sizeof(device_ops), .query_plane = query_plane, .region_info = region_info };
    VfioDpyConsoleOps console_ops = { sizeof(console_ops), .show_surface = show_surface };
    int device = memfd_create("vgpu", MFD_CLOEXEC);
    Picture picture = { 0 };
    FILE *file = argc == 2 ? fopen(argv[1], "wb") : NULL;
    char *error = NULL;
    VfioDpy *dpy;
    int mode;

    for (int i = 0; i < WIDTH * HEIGHT; i++) {
        (void)!write(device, &colours[i % WIDTH / (WIDTH / 3)], 4);
    }
    mode = vfio_dpy_probe(&device_ops, &device, &error);
    dpy = mode > 0 ? vfio_dpy_new(mode, &device_ops, &device, "vgpu", &console_ops, &picture, NULL, &error) : NULL;
    if (!file || !dpy) {
        fprintf(stderr, "screenshot: %s\n", !file ? "no file to write to" : error ? error : "no display");
        return 1;
    }
    vfio_dpy_refresh(dpy, false);
    fprintf(file, "P6\n%u %u\n255\n", picture.width, picture.height);
    for (uint32_t i = 0; i < picture.width * picture.height; i++) {
        fprintf(file, "%c%c%c", picture.pixels[i] >> 16, picture.pixels[i] >> 8, picture.pixels[i]);
    }
    vfio_dpy_free(dpy);
    free(picture.pixels);
    return fclose(file) ? 1 : 0;
}
