/* SPDX-License-Identifier: GPL-2.0-or-later */

#ifndef VFIO_DISPLAY_H
#define VFIO_DISPLAY_H

/* Generated from src/capi by `UPDATE_HEADER=1 cargo test --test header`: do not edit. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/vfio.h>

// How much a message matters.
typedef enum VfioDpySeverity {
    // The user sees no picture, or a wrong one.
    VFIO_DPY_SEVERITY_ERROR = 0,
    // The user should know.
    VFIO_DPY_SEVERITY_WARNING = 1,
    // A decision that the display took, for those who trace it.
    VFIO_DPY_SEVERITY_TRACE = 2,
} VfioDpySeverity;

// How a device gives its planes.
typedef enum VfioDpyMode {
    // The device has no graphics planes.
    VFIO_DPY_MODE_NONE = 0,
    // As dma-bufs.
    VFIO_DPY_MODE_DMA_BUF = 1,
    // In a region of its own.
    VFIO_DPY_MODE_REGION = 2,
} VfioDpyMode;

// Which colours luminance and chrominance mean.
typedef enum VfioDpyEglColorSpace {
    // ITU-R BT.601, which drivers assume.
    VFIO_DPY_EGL_COLOR_SPACE_REC601 = 0,
    // ITU-R BT.709
    VFIO_DPY_EGL_COLOR_SPACE_REC709 = 1,
    // ITU-R BT.2020
    VFIO_DPY_EGL_COLOR_SPACE_REC2020 = 2,
} VfioDpyEglColorSpace;

// What the front ends of a console do with a dma-buf.
typedef enum VfioDpyUptake {
    // None imports it.
    VFIO_DPY_UPTAKE_NONE = 0,
    // The only one that imports it shows nothing itself: it copies the picture into the console's surface at each update.
    VFIO_DPY_UPTAKE_READ_BACK = 1,
    // One imports it, and shows it.
    VFIO_DPY_UPTAKE_IMPORT = 2,
} VfioDpyUptake;

// What a descriptor leads to.
typedef struct Odd Odd;

// The display of one device.
//
// If the library fails in a call, that is printed, and the display stands still from then on: what it is told has no effect, and what it is
// asked for is what the functions return on failure.
//
// All functions of a display run on one thread, or under one lock; they may be called from within the callbacks, and then take
// effect when the outer call ends.
typedef struct VfioDpy VfioDpy;

// A dma-buf's texture.
//
// The functions vfio_dpy_egl_*() are there if the library was built with libepoxy: its dependency has the variable `egl`.
// Functions of an import are called by one thread at a time.
typedef struct VfioDpyEglImport VfioDpyEglImport;

// Reads back pictures that the host draws with GL.
//
// The functions vfio_dpy_egl_read_back_*() are there if vfio_dpy_egl_import() is, and are called on the thread that runs the GLib
// default main context.
typedef struct VfioDpyEglReadBack VfioDpyEglReadBack;

// Memory of a device that a console shows: counted by the library. It may outlive the display, and the device.
typedef struct VfioDpyMemory VfioDpyMemory;

// An entry in the table of shared objects, from its reservation to its end.
typedef struct VfioDpyObjectsClaim VfioDpyObjectsClaim;

// Somebody who shares objects. All functions vfio_dpy_objects_*() may be called from any thread.
typedef struct VfioDpyObjectsOwner VfioDpyObjectsOwner;

// What asks the device, and watches it, for one display.
typedef struct VfioDpyWatcher VfioDpyWatcher;

// A region of a device, as a device's `region_info` callback tells it.
typedef struct VfioDpyRegion {
    // Bytes in the region.
    uint64_t size;
    // Where the region begins in the file behind `fd`, in bytes.
    uint64_t offset;
    // A descriptor to map the region from, which from then on belongs to the library; -1 if the
    // region cannot be mapped.
    int fd;
    // Whether `fd` is the vfio device itself, which the host has opened; false if it came from the device, which may have given
    // anything.
    bool is_device;
} VfioDpyRegion;

// What the guest shall believe of its monitor. Zero is unknown.
typedef struct VfioDpyMonitor {
    // Preferred pixels in a row.
    uint32_t width;
    // Preferred rows.
    uint32_t height;
    // The most that the device can do, pixels in a row.
    uint32_t max_width;
    // The most that the device can do, rows.
    uint32_t max_height;
    // Width of the picture, in millimetres.
    uint32_t width_mm;
    // Height of the picture, in millimetres.
    uint32_t height_mm;
    // Refreshes in 1000 seconds.
    uint32_t refresh_rate;
} VfioDpyMonitor;

// What a vfio device offers to its display. All callbacks are required. They are called by one thread at a time: see vfio_dpy_watch().
//
// `device` is what was given to vfio_dpy_probe() or vfio_dpy_new(). Errors are negative errno values, those that the kernel
// or the device process gave: -ENOTTY where there are no graphics planes, -ETIMEDOUT where the device
// did not answer, -ENODEV where it is gone, -ESHUTDOWN where it is gone and the host has told the user: the display shows that,
// and does not say it once more.
typedef struct VfioDpyDeviceOps {
    // VFIO_DEVICE_QUERY_GFX_PLANE; `info` holds the question and takes the answer. Returns 0 or a negative errno.
    int (*query_plane)(void *device, struct vfio_device_gfx_plane_info *info);
    // VFIO_DEVICE_GET_GFX_DMABUF. Returns a descriptor, which from then on belongs to the library, or a negative errno.
    int (*get_dmabuf)(void *device, uint32_t id);
    // VFIO_DEVICE_GET_REGION_INFO, for any index. Returns 0 or a negative errno; fills in `region` on success only.
    int (*region_info)(void *device, uint32_t index, struct VfioDpyRegion *region);
    // Reads `size` bytes from `offset` on. Returns 0 if all were read, else a negative errno.
    int (*region_read)(void *device, uint32_t index, uint64_t offset, uint8_t *data, uint32_t size);
    // Writes `size` bytes from `offset` on. Returns 0 if all were written, else a negative errno.
    int (*region_write)(void *device,
                        uint32_t index,
                        uint64_t offset,
                        const uint8_t *data,
                        uint32_t size);
    // Whether an id means the same dma-buf for as long as a descriptor of it is open, even over a reset: true of kernel drivers,
    // false of a device in another process.
    bool (*keeps_ids)(void *device);
    // Has the device signal this eventfd when what it shows has changed, by the display interrupt of docs/display-events.md; -1: not
    // any more. The eventfd stays the library's, and may be closed when the call returns: the device keeps a descriptor of its
    // own. Returns 0 or a negative errno, -ENOTTY if the device has no such interrupt.
    int (*signal_changes)(void *device, int eventfd);
    // Returns the index of the region with type VFIO_REGION_TYPE_GFX and subtype VFIO_REGION_SUBTYPE_GFX_EDID, or a negative
    // errno if there is none.
    int (*edid_region)(void *device);
    // Writes an EDID for this monitor to `blob`, which has `size` zero bytes, and returns its length. The host does, and asks nobody.
    size_t (*generate_edid)(void *device,
                            const struct VfioDpyMonitor *monitor,
                            uint8_t *blob,
                            size_t size);
} VfioDpyDeviceOps;

// A dma-buf with one plane whose pixels begin at its first byte.
typedef struct VfioDpyBuffer {
    // DRM format modifier; LINEAR is 0.
    uint64_t modifier;
    // The descriptor. It stays the library's, and open until the import of the buffer is released.
    int fd;
    // Pixels in a row.
    uint32_t width;
    // Rows.
    uint32_t height;
    // Bytes from a row to the next.
    uint32_t stride;
    // DRM format.
    uint32_t fourcc;
} VfioDpyBuffer;

// What the host's console takes. All callbacks are required, but for `looked`.
//
// The console shows one thing at a time: a scanout, a surface, memory of the device, a message, or the firmware's framebuffer; showing
// one ends the other. `console` is what was given to vfio_dpy_new().
typedef struct VfioDpyConsoleOps {
    // What the front ends would do with this dma-buf. `import` is what `import` returned for it, or NULL if it was not imported yet.
    VfioDpyUptake (*uptake)(void *console, const struct VfioDpyBuffer *buffer, void *import);
    // Prepares a dma-buf for the front ends. The result is given back to `release`.
    void *(*import)(void *console, const struct VfioDpyBuffer *buffer);
    // Ends an import, and frees it. It is not shown any more.
    void (*release)(void *console, void *import);
    // Shows an imported dma-buf.
    void (*scanout)(void *console, void *import);
    // A part of the scanout may have changed, in pixels.
    void (*update_scanout)(void *console, uint32_t x, uint32_t y, uint32_t width, uint32_t height);
    // Shows a new surface in XRGB8888. Returns its pixels, `height` rows that begin `*stride` bytes apart, which stay writable
    // until the console shows something else. NULL if there is no memory for it: the console then shows what it did.
    uint8_t *(*show_surface)(void *console, uint32_t width, uint32_t height, size_t *stride);
    // Shows a picture in XRGB8888 that lies in memory of the device, as a surface of its own: `height` rows that begin `stride` bytes
    // apart, a multiple of 4. The device, or the guest, may write to them at any moment; nobody else may. `stride * height` bytes can
    // be read, by any thread, until `memory` is given to vfio_dpy_memory_release(), once: when the console shows something else and no front end
    // reads them any more, be it after vfio_dpy_free().
    //
    // Returns false if it cannot: the console then shows what it did, and `memory` stays the library's.
    bool (*show_memory)(void *console,
                        const uint8_t *pixels,
                        uint32_t width,
                        uint32_t height,
                        size_t stride,
                        struct VfioDpyMemory *memory);
    // A part of the surface, or of the memory, has changed, in pixels.
    void (*update_surface)(void *console, uint32_t x, uint32_t y, uint32_t width, uint32_t height);
    // Shows a line of text on a surface of this size.
    void (*show_message)(void *console, uint32_t width, uint32_t height, const char *text);
    // Shows the firmware's framebuffer, or, unless `switch_to`, what changed of it. Returns false if there is none.
    bool (*show_firmware)(void *console, bool switch_to);
    // Shows an imported dma-buf as the pointer above a scanout; NULL hides it.
    void (*scanout_cursor)(void *console,
                           void *import,
                           bool has_hotspot,
                           uint32_t hot_x,
                           uint32_t hot_y);
    // Moves the upper left corner of the pointer above a scanout.
    void (*move_scanout_cursor)(void *console, int32_t x, int32_t y);
    // Defines the pointer above a surface, or above a scanout if `uptake` has nobody for its dma-buf, in ARGB8888 with straight
    // alpha, without padding; NULL hides it. The pixels are the library's, and valid during the call.
    void (*surface_cursor)(void *console,
                           const uint8_t *pixels,
                           uint32_t width,
                           uint32_t height,
                           uint32_t hot_x,
                           uint32_t hot_y);
    // Moves the upper left corner of that pointer.
    void (*move_surface_cursor)(void *console, int32_t x, int32_t y);
    // Has the front ends refresh soon, as if their timer had gone off. Not from within the callback.
    void (*request_refresh)(void *console);
    // A single look, which vfio_dpy_refresh() was asked for, is over: graphic_hw_update_done(). Not from within the callback. NULL
    // if nobody waits for it: a host that calls vfio_dpy_watcher() should.
    void (*looked)(void *console);
    // Says something; the text is the library's, and valid during the call.
    void (*log)(void *console, enum VfioDpySeverity severity, const char *message);
    // Whether messages of severity VFIO_DPY_TRACE are wanted.
    bool (*tracing)(void *console);
} VfioDpyConsoleOps;

// What a user may choose. Zero everywhere is a good choice.
typedef struct VfioDpyConfig {
    // Preferred pixels in a row, for the EDID; 0: the most that the device can do.
    uint32_t xres;
    // Preferred rows, for the EDID; 0: the most that the device can do.
    uint32_t yres;
    // More for experts: `key=value`, separated by commas. NULL says nothing.
    //
    // - `import=off`: show all as a surface, even where a front end imports dma-bufs;
    // - `read-back=on`: give dma-bufs to front ends that only copy them back into memory (VFIO_DPY_UPTAKE_READ_BACK), even
    //   where the library can read them itself;
    // - `compare=off`: pass on whole surfaces, not only what changed;
    // - `glance=off`: compare all rows of a surface at each periodic refresh, not half of them;
    // - `direct=off`: never show a region's memory itself (show_memory), also while everything in it moves;
    // - `pacing=off`: look at the device only at vfio_dpy_refresh();
    // - `events=on`: have a device that can (docs/display-events.md) say when something changed, instead of looking when it
    //   may have;
    // - `thread=on`: ask the device on a thread of its own, if the host gives one: vfio_dpy_watcher();
    // - `pool-buffers=N`, `pool-bytes=N`: how many dma-bufs to hold at most besides those on screen, and how many bytes (K, M
    //   and G may follow).
    const char *options;
    // Let other devices of the VM have the scanout: see vfio_dpy_share_scanout().
    bool share;
    // The name of the device's driver, as the symbolic link `driver` in sysfs has it; NULL if there is none, or it is not known. Some
    // drivers must be treated with care.
    const char *driver;
} VfioDpyConfig;

// A picture in dma-bufs.
typedef struct VfioDpyEglBuffer {
    // DRM format modifier; LINEAR is 0, and INVALID (0x00ffffffffffffff) leaves it to the driver.
    uint64_t modifier;
    // Pixels in a row.
    uint32_t width;
    // Rows.
    uint32_t height;
    // DRM format.
    uint32_t fourcc;
    // How many planes there are, 1 to 4.
    uint32_t num_planes;
    // The dma-buf of each plane; a negative one means that of the first plane. They stay the caller's.
    int fd[4];
    // Byte of the dma-buf where the plane begins.
    uint32_t offset[4];
    // Bytes from a row to the next.
    uint32_t stride[4];
    // A VfioDpyEglColorSpace, for YUV formats.
    uint32_t color_space;
    // Whether YUV formats use all values of a byte.
    bool full_range;
} VfioDpyEglBuffer;

// Memory that a picture is copied to, XRGB8888.
typedef struct VfioDpyEglPixels {
    // The first row.
    uint8_t *data;
    // Bytes from a row to the next.
    size_t stride;
    // Pixels in a row.
    uint32_t width;
    // Rows.
    uint32_t height;
    // Written by vfio_dpy_egl_read_back_take(): the first row that is not what it was.
    uint32_t first_changed_row;
    // Written by vfio_dpy_egl_read_back_take(): how many rows there are from that one to the last that is not; 0: none.
    uint32_t changed_rows;
} VfioDpyEglPixels;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Lets go of memory that show_memory was given. Any thread may call it. NULL is fine.
//
// # Safety
//
// `memory` is what show_memory was given, returned true for, and did not let go of yet, or NULL. Nobody reads its pixels any more.
void vfio_dpy_memory_release(struct VfioDpyMemory *memory);

// Finds out how a device gives its planes.
//
// Returns a VfioDpyMode, or a negative errno if the device does not answer at all; EINVAL: a callback is missing.
//
// # Safety
//
// `ops` points to a whole table, which works with `device`.
int vfio_dpy_probe(const struct VfioDpyDeviceOps *ops,
                   void *device);

// Makes the display of a device that vfio_dpy_probe() found to be in this mode.
//
// `name` is how messages name the device. The tables, the configuration and the name are copied; `device` and `console` are
// used until vfio_dpy_free().
//
// Returns NULL if `mode` is not VFIO_DPY_MODE_DMA_BUF or VFIO_DPY_MODE_REGION, if a callback is missing, or if the options are none;
// then, if `message` is not NULL, *message says why. Free it with g_free().
//
// # Safety
//
// All pointers are valid, except that `message` may be NULL; `name` is a string, as are those of `config` unless NULL; the tables work
// with `device` and `console`.
struct VfioDpy *vfio_dpy_new(int mode,
                             const struct VfioDpyDeviceOps *device_ops,
                             void *device,
                             const char *name,
                             const struct VfioDpyConsoleOps *console_ops,
                             void *console,
                             const struct VfioDpyConfig *config,
                             char **message);

// Ends a display: releases all imports, and closes all descriptors. Not from within a callback. NULL is fine.
//
// # Safety
//
// `dpy` is from vfio_dpy_new() and not freed yet, or NULL.
void vfio_dpy_free(struct VfioDpy *dpy);

// Whether the guest can be told about its monitor.
//
// # Safety
//
// `dpy` is from vfio_dpy_new().
bool vfio_dpy_has_edid(const struct VfioDpy *dpy);

// Looks at the device, and shows what it shows now: GraphicHwOps.gfx_update.
//
// `periodic`: a front end's timer went off, and will again: of a surface, a line one row high may be seen only at the next refresh. False
// for who looks once, for instance to take a screenshot: all that is shown then is what the device shows.
//
// # Safety
//
// `dpy` is from vfio_dpy_new().
void vfio_dpy_refresh(const struct VfioDpy *dpy,
                      bool periodic);

// A front end wants to see all again: GraphicHwOps.invalidate.
//
// # Safety
//
// `dpy` is from vfio_dpy_new().
void vfio_dpy_invalidate(const struct VfioDpy *dpy);

// A front end shows the console in a window like this: GraphicHwOps.ui_info. Zero pixels: it does not show it.
//
// # Safety
//
// `dpy` is from vfio_dpy_new(), `monitor` is valid.
void vfio_dpy_set_monitor(const struct VfioDpy *dpy,
                          const struct VfioDpyMonitor *monitor);

// A front end took the scanout and has not released it yet, or now has: GraphicHwOps.gl_block.
//
// # Safety
//
// `dpy` is from vfio_dpy_new().
void vfio_dpy_block(const struct VfioDpy *dpy, bool block);

// The device is about to be reset: nothing that it told holds any more.
//
// # Safety
//
// `dpy` is from vfio_dpy_new().
void vfio_dpy_reset(const struct VfioDpy *dpy);

// The device has been reset: see vfio_dpy_reset().
//
// # Safety
//
// `dpy` is from vfio_dpy_new().
void vfio_dpy_reset_done(const struct VfioDpy *dpy);

// Gives what watches the device away, for a thread of the host's to call vfio_dpy_watch() with: from now on the display waits for the device
// neither in vfio_dpy_refresh() nor elsewhere. To be called once, on the thread that runs the GLib default main context.
//
// NULL if the user does not want that (the option `thread=off`), or if it cannot be done: the device is then asked in
// vfio_dpy_refresh(), as it is where this function is never called.
//
// # Safety
//
// `dpy` is from vfio_dpy_new().
struct VfioDpyWatcher *vfio_dpy_watcher(const struct VfioDpy *dpy);

// Shares the dma-buf that the device shows now with other devices of the VM, by a UUID.
//
// The UUID is the same for as long as the display holds the buffer, and goes with it. virtio_lookup_dmabuf() and
// vfio_dpy_objects_dup_dmabuf() find it.
//
// Writes 16 bytes to `uuid` on success. On failure, if `message` is not NULL, *message says why; free it with g_free().
//
// Returns 0 or a negative errno: EPERM: sharing is not switched on; ENOTSUP: the device shows a region; ENOENT: it shows
// nothing; EBUSY: called from within a callback; EIO: anything else, such as a device that does not answer.
//
// # Safety
//
// `dpy` is from vfio_dpy_new(), `uuid` has room for 16 bytes, `message` is valid or NULL.
int vfio_dpy_share_scanout(const struct VfioDpy *dpy,
                           uint8_t *uuid,
                           char **message);

// What the display shows, holds and did, as a JSON object. Free it with g_free(). NULL from within a callback.
//
// # Safety
//
// `dpy` is from vfio_dpy_new().
char *vfio_dpy_status(const struct VfioDpy *dpy);

// What the display shows, holds and did, in a few lines for people. Free it with g_free(). NULL from within a callback.
//
// # Safety
//
// `dpy` is from vfio_dpy_new().
char *vfio_dpy_describe(const struct VfioDpy *dpy);

// A copy of the scanout, for those who cannot import it: `*height` rows of `*width` pixels in XRGB8888, without padding. Free it
// with g_free().
//
// NULL, and nothing written, if no scanout is shown, if its pixels cannot be read without a GPU, or from within a callback.
//
// # Safety
//
// `dpy` is from vfio_dpy_new(), `width` and `height` are writable.
uint8_t *vfio_dpy_capture(const struct VfioDpy *dpy,
                          uint32_t *width,
                          uint32_t *height);

// Whether a display imports dma-bufs at all.
//
// # Safety
//
// `display` is initialised and never terminated, or EGL_NO_DISPLAY.
bool vfio_dpy_egl_imports(void *display);

// Whether a display can import a picture, as far as that is known before it does. No context is needed.
//
// `display` is an EGLDisplay. If it cannot, and `message` is not NULL, *message says why, to be freed with g_free(); it is NULL if the
// same was said for this display before. What the display imports is asked for at the first call, and kept.
//
// # Safety
//
// `display` is initialised and never terminated, or EGL_NO_DISPLAY; `buffer` is valid, and its descriptors are open;
// `message` is valid, or NULL.
bool vfio_dpy_egl_can_import(void *display,
                             const struct VfioDpyEglBuffer *buffer,
                             char **message);

// Copies the pixels of a linear picture in ARGB8888 or XRGB8888 to `pixels`, as ARGB8888 without padding, for who does not draw it with
// OpenGL. Returns false if the CPU cannot read them.
//
// # Safety
//
// `buffer` is valid, and its descriptors are open; `pixels` has room for `width * height` of them.
bool vfio_dpy_egl_read(const struct VfioDpyEglBuffer *buffer,
                       uint32_t *pixels);

// Makes a texture of a picture, in the current context, which must be one of the display.
//
// The descriptors can be closed afterwards. Free the import with vfio_dpy_egl_release(). On failure NULL is returned, with *message
// as vfio_dpy_egl_can_import() has it; nothing is left in the error queues of GL and EGL.
//
// # Safety
//
// As for vfio_dpy_egl_can_import().
struct VfioDpyEglImport *vfio_dpy_egl_import(void *display,
                                             const struct VfioDpyEglBuffer *buffer,
                                             char **message);

// The name of an import's texture, which is a GL_TEXTURE_2D with its first row at coordinate 0.
//
// # Safety
//
// `import` is from vfio_dpy_egl_import().
uint32_t vfio_dpy_egl_texture(const struct VfioDpyEglImport *import);

// Whether the current context has an import's texture. If not, release the import, and import again.
//
// # Safety
//
// `import` is from vfio_dpy_egl_import().
bool vfio_dpy_egl_is_here(const struct VfioDpyEglImport *import);

// To be called before an import's texture is drawn, each time.
//
// Converts pictures that cannot be textures as they are. Returns false if the current context does not have the texture: release the
// import, and import again. *message is as vfio_dpy_egl_can_import() has it; then the texture shows what it showed before.
//
// # Safety
//
// `import` is from vfio_dpy_egl_import(); `message` is valid, or NULL.
bool vfio_dpy_egl_begin(const struct VfioDpyEglImport *import,
                        char **message);

// To be called after an import's texture was drawn, and before glFlush(): vfio_dpy_egl_take_fence() tells when that is done.
//
// # Safety
//
// `import` is from vfio_dpy_egl_import().
void vfio_dpy_egl_drew(struct VfioDpyEglImport *import);

// A descriptor that can be read once what vfio_dpy_egl_drew() spoke of is done (a sync_file); to be called after glFlush().
//
// It is the caller's to close. Returns -1 where the display has no native fences.
//
// # Safety
//
// `import` is from vfio_dpy_egl_import().
int vfio_dpy_egl_take_fence(struct VfioDpyEglImport *import);

// Ends an import, whichever context is current, or none: its texture is deleted in the context that has it, on the GLib default main
// context if that is current in another thread. NULL is fine.
//
// # Safety
//
// `import` is from vfio_dpy_egl_import() and not released yet, or NULL.
void vfio_dpy_egl_release(struct VfioDpyEglImport *import);

// What a display imports, how many imports there are, and all messages so far, as a JSON object. Free it with g_free().
//
// # Safety
//
// `display` is initialised and never terminated, or EGL_NO_DISPLAY.
char *vfio_dpy_egl_status(void *display);

// What the functions above were told and did, for each display that they saw, in a few lines of text. Free it with g_free().
char *vfio_dpy_egl_describe(void);

// Makes what reads back pictures, or NULL if there is no EGL display. Free it with vfio_dpy_egl_read_back_free().
//
// `display` is an EGLDisplay. The GLib default main context calls `ready` with `opaque` when it is time for
// vfio_dpy_egl_read_back_take().
//
// # Safety
//
// `display` is initialised and never terminated, or EGL_NO_DISPLAY; `ready` may be called with `opaque` until the result is freed.
struct VfioDpyEglReadBack *vfio_dpy_egl_read_back_new(void *display,
                                                      void (*ready)(void *opaque),
                                                      void *opaque);

// The GL_TEXTURE_2D to draw the next picture to, in the context that is current now; its first row is at coordinate 0.
//
// It is valid until the next call of a function of `read_back`. Returns 0 if this cannot be done without waiting for the GPU: the context
// has neither OpenGL 3.3 nor OpenGL ES 3.0 with what is needed, or *message says why, to be freed with g_free(). It is
// NULL if there is nothing to say, or the same was said for this display before.
//
// # Safety
//
// `read_back` is from vfio_dpy_egl_read_back_new(); `message` is valid, or NULL.
uint32_t vfio_dpy_egl_read_back_target(struct VfioDpyEglReadBack *read_back,
                                       uint32_t width,
                                       uint32_t height,
                                       char **message);

// To be called when a picture was drawn to vfio_dpy_egl_read_back_target(), in the same context.
//
// `anew`: the picture is another one for sure, and is read; else the GPU looks first whether it is. If a picture is still on its way, this
// one comes after it. Returns false if that failed: the texture is gone, and *message is as vfio_dpy_egl_read_back_target() has it.
//
// # Safety
//
// As for vfio_dpy_egl_read_back_target().
bool vfio_dpy_egl_read_back_start(struct VfioDpyEglReadBack *read_back,
                                  bool anew,
                                  char **message);

// Copies the picture that was read last to `pixels`, where it differs, if it is there; whichever context is current, or none.
//
// `wait`: waits for all that was drawn. If the size is not that of what was drawn, nothing is copied. *message is as
// vfio_dpy_egl_read_back_target() has it; after an error, what was drawn last is not read: draw it again.
//
// # Safety
//
// As for vfio_dpy_egl_read_back_target(); `pixels` is valid, and has memory for as many pixels as it says, which nobody
// else uses meanwhile.
void vfio_dpy_egl_read_back_take(struct VfioDpyEglReadBack *read_back,
                                 bool wait,
                                 struct VfioDpyEglPixels *pixels,
                                 char **message);

// What the host has is not what was read last any more: its memory is another one, or shows something else. What is on its way is
// not copied.
//
// # Safety
//
// `read_back` is from vfio_dpy_egl_read_back_new().
void vfio_dpy_egl_read_back_forget(struct VfioDpyEglReadBack *read_back);

// Ends it, and its textures, whichever context is current, or none. NULL is fine.
//
// # Safety
//
// `read_back` is from vfio_dpy_egl_read_back_new() and not freed yet, or NULL.
void vfio_dpy_egl_read_back_free(struct VfioDpyEglReadBack *read_back);

// Makes an owner of shared objects. `name` is copied; it is how messages call the owner.
//
// # Safety
//
// `name` is a string.
struct VfioDpyObjectsOwner *vfio_dpy_objects_owner_new(const char *name);

// Ends an owner: all its entries go. Its claims stay valid, and are to be freed. NULL is fine.
//
// # Safety
//
// `owner` is from vfio_dpy_objects_owner_new() and not freed yet, or NULL.
void vfio_dpy_objects_owner_free(struct VfioDpyObjectsOwner *owner);

// Takes a UUID. Lookups do not find the entry until it is completed; nobody else can add one of this UUID.
//
// On success *claim is the caller's, to free with vfio_dpy_objects_claim_free(). On failure, if `message` is not NULL,
// *message says why, and who holds the UUID; free it with g_free().
//
// Returns 0 or a negative errno: EEXIST: the UUID is taken; ENOSPC: the owner has too many entries.
//
// # Safety
//
// `owner` is from vfio_dpy_objects_owner_new(), `uuid` points to 16 bytes, `claim` is valid, `message` is valid or NULL.
int vfio_dpy_objects_reserve(const struct VfioDpyObjectsOwner *owner,
                             const uint8_t *uuid,
                             struct VfioDpyObjectsClaim **claim,
                             char **message);

// Completes an entry with a dma-buf, and wakes the lookups that wait for it.
//
// The caller keeps the descriptor, and keeps it open until the claim is freed, or the entry has gone otherwise.
//
// Returns 0 or a negative errno, with *message as vfio_dpy_objects_reserve() has it: EBADF: `fd` is negative; ESTALE: the entry has
// gone; EALREADY: it is complete.
//
// # Safety
//
// `claim` is from vfio_dpy_objects_reserve(), `message` is valid or NULL.
int vfio_dpy_objects_complete_dmabuf(const struct VfioDpyObjectsClaim *claim,
                                     int fd,
                                     char **message);

// Completes an entry with a vhost-user device that is to be asked for the dma-buf.
//
// Returns and tells as vfio_dpy_objects_complete_dmabuf() does; EINVAL: `device` is NULL.
//
// # Safety
//
// `claim` is from vfio_dpy_objects_reserve(), `message` is valid or NULL.
int vfio_dpy_objects_complete_vhost_device(const struct VfioDpyObjectsClaim *claim,
                                           void *device,
                                           char **message);

// Ends a claim: its entry goes, complete or not; lookups that wait for it fail. NULL is fine.
//
// # Safety
//
// `claim` is from vfio_dpy_objects_reserve() and not freed yet, or NULL.
void vfio_dpy_objects_claim_free(struct VfioDpyObjectsClaim *claim);

// Gives a descriptor of its own for a dma-buf, with close-on-exec set. It is duplicated while the entry is held in
// place, so it is never of another file, whoever removes the entry meanwhile.
//
// `timeout_ms` is how long to wait for an entry that is reserved; 0: not at all. Whoever waits must not be the one
// whom the completion waits for: QEMU's main loop should not.
//
// Returns the descriptor, which the caller closes, or a negative errno: ENOENT: there is no such entry; EAGAIN: it is not
// complete yet; EMEDIUMTYPE: it is a device; EINVAL: `uuid` is NULL; or what fcntl(F_DUPFD_CLOEXEC) said.
//
// # Safety
//
// `uuid` points to 16 bytes, or is NULL.
int vfio_dpy_objects_dup_dmabuf(const uint8_t *uuid,
                                uint32_t timeout_ms);

// Finds the vhost-user device to ask for an object. Waits as vfio_dpy_objects_dup_dmabuf() does.
//
// Returns 0 or a negative errno: ENOENT: there is no such entry; EAGAIN: it is not complete yet; EMEDIUMTYPE: it is a dma-buf;
// EINVAL: `uuid` is NULL.
//
// # Safety
//
// `uuid` points to 16 bytes, or is NULL; `device` is valid.
int vfio_dpy_objects_find_vhost_device(const uint8_t *uuid,
                                       uint32_t timeout_ms,
                                       void **device);

// Removes every entry that leads to this vhost-user device, which is about to go. Returns how many there were.
size_t vfio_dpy_objects_remove_vhost_device(void *device);

// What the table holds, as a JSON object: counts by kind, and a list of all entries. Free it with g_free().
char *vfio_dpy_objects_status(void);

// Watches the device for a display, on the calling thread: to be called once, on a thread of the host's own, which need not hold any lock.
//
// Returns when the display has been freed, and no call of the device is under way any more; the watcher is freed then. The device's callbacks are
// called on this thread meanwhile, and `device` must stay valid.
//
// # Safety
//
// `watcher` is from vfio_dpy_watcher(), and not given to this function yet.
void vfio_dpy_watch(struct VfioDpyWatcher *watcher);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VFIO_DISPLAY_H */
