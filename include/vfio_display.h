/* SPDX-License-Identifier: GPL-2.0-or-later */

#ifndef VFIO_DISPLAY_H
#define VFIO_DISPLAY_H

/* Generated from src/capi by `UPDATE_HEADER=1 cargo test --test header`: do not edit. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <linux/vfio.h>

/**
 * DOC: vfio-display
 *
 * Shows the screen of a virtual GPU: takes the planes of a vfio device to the
 * console of an emulator. A host provides two tables of callbacks, one for the
 * device and one for its console, and says when to refresh:
 *
 *     int mode = vfio_dpy_probe(&device_ops, device, &error);
 *     VfioDpy *dpy = vfio_dpy_new(mode, &device_ops, device, "gpu0",
 *                                 &console_ops, console, NULL, &error);
 *     vfio_dpy_refresh(dpy, true);    (again and again)
 *     vfio_dpy_free(dpy);
 *
 * examples/screenshot.c is a complete program. Rules for all functions:
 *
 * Errors: a function that fails returns NULL, false, or a negative errno, and
 * does not write to its output parameters. On failure, *@error, if given, is a
 * message to be freed with g_free(); otherwise it is NULL.
 *
 * Versions: a struct that the host fills in and that may grow begins with its
 * size. A host compiled with an older header has a smaller one: what it lacks
 * counts as NULL or zero. What the library does not know of a larger one is
 * ignored.
 *
 * Threads: "Context" says who may call a function. The display's thread is the
 * one that runs the GLib default main context, or whoever holds the lock that
 * protects it, such as QEMU's big lock.
 *
 * Memory: pointers must be valid, and not NULL unless stated. What is returned
 * to the caller says how it is freed; everything else is borrowed for the call.
 */

/**
 * VFIO_DISPLAY_VERSION - The version of this header: see vfio_dpy_check_version().
 */
#define VFIO_DISPLAY_VERSION_MAJOR 0
#define VFIO_DISPLAY_VERSION_MINOR 1
#define VFIO_DISPLAY_VERSION_MICRO 0
#define VFIO_DISPLAY_VERSION \
    ((VFIO_DISPLAY_VERSION_MAJOR << 16) | (VFIO_DISPLAY_VERSION_MINOR << 8) | \
     VFIO_DISPLAY_VERSION_MICRO)


/**
 * enum VfioDpySeverity - Severity of a message.
 */
typedef enum VfioDpySeverity {
    /**
     * @VFIO_DPY_SEVERITY_ERROR: The user sees no picture, or a wrong one.
     */
    VFIO_DPY_SEVERITY_ERROR = 0,
    /**
     * @VFIO_DPY_SEVERITY_WARNING: The user should know.
     */
    VFIO_DPY_SEVERITY_WARNING = 1,
    /**
     * @VFIO_DPY_SEVERITY_TRACE: A decision of the display, for tracing.
     */
    VFIO_DPY_SEVERITY_TRACE = 2,
} VfioDpySeverity;

/**
 * enum VfioDpyMode - How a device gives its planes.
 */
typedef enum VfioDpyMode {
    /**
     * @VFIO_DPY_MODE_NONE: The device has no graphics planes.
     */
    VFIO_DPY_MODE_NONE = 0,
    /**
     * @VFIO_DPY_MODE_DMA_BUF: As dma-bufs.
     */
    VFIO_DPY_MODE_DMA_BUF = 1,
    /**
     * @VFIO_DPY_MODE_REGION: In a region of its own.
     */
    VFIO_DPY_MODE_REGION = 2,
} VfioDpyMode;

/**
 * enum VfioDpyScanoutSupport - What the front ends of a console do with a
 * dma-buf.
 */
typedef enum VfioDpyScanoutSupport {
    /**
     * @VFIO_DPY_SCANOUT_SUPPORT_NONE: None imports it.
     */
    VFIO_DPY_SCANOUT_SUPPORT_NONE = 0,
    /**
     * @VFIO_DPY_SCANOUT_SUPPORT_READ_BACK: The only one that imports it shows
     * nothing itself: it copies the picture into the console's surface at each
     * update.
     */
    VFIO_DPY_SCANOUT_SUPPORT_READ_BACK = 1,
    /**
     * @VFIO_DPY_SCANOUT_SUPPORT_IMPORT: One imports it, and shows it.
     */
    VFIO_DPY_SCANOUT_SUPPORT_IMPORT = 2,
} VfioDpyScanoutSupport;

/**
 * typedef VfioDpy - The display of one device.
 *
 * Its functions are called by one thread at a time: on the display's thread,
 * which runs the GLib default main context, or under the lock that protects
 * that (QEMU's big lock). They may be called from within the callbacks of the
 * console, except vfio_dpy_free(), and then take effect when the outer call
 * ends. They are not called from within the callbacks of the device.
 *
 * If the library itself fails in a call (a bug), it prints that, and the
 * display freezes: calls have no effect from then on, and return what they
 * return on failure.
 */
typedef struct VfioDpy VfioDpy;

/**
 * typedef VfioDpyMemory - Memory of a device that a console shows.
 *
 * It is reference-counted, and may outlive the display and the device.
 */
typedef struct VfioDpyMemory VfioDpyMemory;

/**
 * typedef VfioDpyWatcher - Polls the device of a display, on a thread of the
 * host.
 */
typedef struct VfioDpyWatcher VfioDpyWatcher;

/**
 * struct VfioDpyRegion - A region of a device, filled in by region_info() of
 * struct VfioDpyDeviceOps.
 */
typedef struct VfioDpyRegion {
    /**
     * @size: Size of the region in bytes.
     */
    uint64_t size;
    /**
     * @offset: Offset of the region in the file behind @fd, in bytes.
     */
    uint64_t offset;
    /**
     * @fd: A descriptor to map the region from, which the library takes over;
     * -1 if the region cannot be mapped.
     */
    int fd;
    /**
     * @is_device: Whether @fd is the vfio device itself, opened by the host.
     * False if it came from a process, and may be any file.
     */
    bool is_device;
} VfioDpyRegion;

/**
 * struct VfioDpyMonitor - Properties of the monitor that is advertised to the
 * guest; 0 means unknown.
 */
typedef struct VfioDpyMonitor {
    /**
     * @width: Preferred width, in pixels.
     */
    uint32_t width;
    /**
     * @height: Preferred height, in pixels.
     */
    uint32_t height;
    /**
     * @max_width: The largest width that the device supports, in pixels.
     */
    uint32_t max_width;
    /**
     * @max_height: The largest height that the device supports, in pixels.
     */
    uint32_t max_height;
    /**
     * @width_mm: Width of the picture, in millimetres.
     */
    uint32_t width_mm;
    /**
     * @height_mm: Height of the picture, in millimetres.
     */
    uint32_t height_mm;
    /**
     * @refresh_rate: Refresh rate, in millihertz.
     */
    uint32_t refresh_rate;
} VfioDpyMonitor;

/**
 * struct VfioDpyDeviceOps - Callbacks of a vfio device.
 *
 * Each callback is passed the device that was given to vfio_dpy_probe() or
 * vfio_dpy_new(). Those that return an int return a negative errno on failure,
 * as the kernel or the device's process reported it: -ENOTTY if there are no
 * graphics planes, -ETIMEDOUT if the device did not answer, -ENODEV if it is
 * gone, -ESHUTDOWN if it is gone and the host has told the user (the display
 * then shows that, but does not log it again).
 *
 * query_plane() is required, and so is get_dmabuf() or region_info(): without
 * one of these, the device has no planes of that kind. All others may be NULL.
 *
 * Context: One thread at a time, the display's or that of vfio_dpy_watch(). Not
 * called after vfio_dpy_free(), or, where there is a watcher, after
 * vfio_dpy_watch() has returned. May block.
 */
typedef struct VfioDpyDeviceOps {
    /**
     * @size: Set it to sizeof(struct VfioDpyDeviceOps).
     */
    uint32_t size;
    /**
     * @query_plane: VFIO_DEVICE_QUERY_GFX_PLANE. @info holds the question and
     * receives the answer. Returns 0 or a negative errno.
     */
    int (*query_plane)(void *device, struct vfio_device_gfx_plane_info *info);
    /**
     * @get_dmabuf: VFIO_DEVICE_GET_GFX_DMABUF. Returns a descriptor, which the
     * library takes over, or a negative errno.
     */
    int (*get_dmabuf)(void *device, uint32_t id);
    /**
     * @region_info: VFIO_DEVICE_GET_REGION_INFO, for any index. Returns 0, with
     * @region filled in, or a negative errno.
     */
    int (*region_info)(void *device,
                       uint32_t index,
                       struct VfioDpyRegion *region);
    /**
     * @region_read: Reads @size bytes of a region, beginning @offset bytes into
     * it. Returns 0 if all were read, else a negative errno. NULL: no region
     * can be read: those that cannot be mapped show nothing, and there is no
     * EDID. In region mode, vfio_dpy_new() reads the vendor from PCI's
     * configuration space.
     */
    int (*region_read)(void *device,
                       uint32_t index,
                       uint64_t offset,
                       uint8_t *data,
                       uint32_t size);
    /**
     * @region_write: Writes @size bytes of a region, beginning @offset bytes
     * into it. Returns 0 if all were written, else a negative errno. NULL:
     * there is no EDID.
     */
    int (*region_write)(void *device,
                        uint32_t index,
                        uint64_t offset,
                        const uint8_t *data,
                        uint32_t size);
    /**
     * @keeps_ids: Returns whether an id means the same dma-buf for as long as a
     * descriptor of it is open, even over a reset. True for kernel drivers,
     * false for a device in another process. NULL: false.
     */
    bool (*keeps_ids)(void *device);
    /**
     * @signal_changes: Makes the device signal @eventfd when its picture
     * changes (docs/display-events.md); -1 ends that. The caller may close the
     * eventfd after the call: the device duplicates it. Returns 0 or a negative
     * errno, -ENOTTY if the device has no such interrupt. NULL: it has none.
     */
    int (*signal_changes)(void *device, int eventfd);
    /**
     * @edid_region: Returns the index of the region with type
     * VFIO_REGION_TYPE_GFX and subtype VFIO_REGION_SUBTYPE_GFX_EDID, or a
     * negative errno if there is none. NULL: there is none.
     */
    int (*edid_region)(void *device);
    /**
     * @generate_edid: Writes an EDID for @monitor to @blob, which has @size
     * zeroed bytes, and returns its length in bytes. Does not call the device.
     * NULL: there is no EDID.
     */
    size_t (*generate_edid)(void *device,
                            const struct VfioDpyMonitor *monitor,
                            uint8_t *blob,
                            size_t size);
} VfioDpyDeviceOps;

/**
 * struct VfioDpyBuffer - A dma-buf with one plane, at offset 0.
 */
typedef struct VfioDpyBuffer {
    /**
     * @modifier: DRM format modifier; LINEAR is 0.
     */
    uint64_t modifier;
    /**
     * @fd: The dma-buf. It belongs to the library, and stays open until
     * release() of struct VfioDpyConsoleOps returns.
     */
    int fd;
    /**
     * @width: Width in pixels.
     */
    uint32_t width;
    /**
     * @height: Height in pixels.
     */
    uint32_t height;
    /**
     * @stride: Stride in bytes.
     */
    uint32_t stride;
    /**
     * @fourcc: DRM format.
     */
    uint32_t fourcc;
} VfioDpyBuffer;

/**
 * struct VfioDpyConsoleOps - Callbacks of the host's console.
 *
 * The console shows one thing at a time: a scanout (a dma-buf that a front end
 * imports), a surface, memory of the device, a message, or the firmware's
 * framebuffer. Showing one replaces the other. Each callback is passed the
 * console that was given to vfio_dpy_new().
 *
 * show_surface() is required. All others may be NULL, and are then not called,
 * unless their description says otherwise.
 *
 * Context: The display's thread, within a call of the display's functions or
 * from the GLib default main context. They may call the display's functions,
 * except vfio_dpy_free(): such a call takes effect when the outer one ends.
 */
typedef struct VfioDpyConsoleOps {
    /**
     * @size: Set it to sizeof(struct VfioDpyConsoleOps).
     */
    uint32_t size;
    /**
     * @show_surface: Shows a new surface in XRGB8888. Returns its pixels,
     * @height rows with a stride of *@stride bytes, writable until the console
     * is told to show something else, or vfio_dpy_free() returns. Returns NULL
     * if there is no memory for it; the console then keeps what it shows.
     */
    uint8_t *(*show_surface)(void *console,
                             uint32_t width,
                             uint32_t height,
                             size_t *stride);
    /**
     * @update_surface: Reports that a part of the surface, or of the memory,
     * has changed; in pixels.
     */
    void (*update_surface)(void *console,
                           uint32_t x,
                           uint32_t y,
                           uint32_t width,
                           uint32_t height);
    /**
     * @show_memory: Shows a picture in XRGB8888 in the device's memory: @height
     * rows with a stride of @stride bytes, a multiple of 4. The device, or the
     * guest, may write to it at any time; nobody else may. Any thread may read
     * the @stride * @height bytes until @memory is passed to
     * vfio_dpy_memory_free(), once, when the console shows something else and
     * no front end reads them any more; that may be after vfio_dpy_free().
     *
     * Returns false if the console cannot show it; it then keeps what it shows,
     * and @memory stays the library's. NULL: false.
     */
    bool (*show_memory)(void *console,
                        const uint8_t *pixels,
                        uint32_t width,
                        uint32_t height,
                        size_t stride,
                        struct VfioDpyMemory *memory);
    /**
     * @show_message: Shows a line of text on a surface of this size in pixels.
     * @text is valid during the call.
     */
    void (*show_message)(void *console,
                         uint32_t width,
                         uint32_t height,
                         const char *text);
    /**
     * @show_firmware: Shows the firmware's framebuffer, or, unless @switch_to,
     * what changed of it. Returns false if there is none. NULL: there is none.
     */
    bool (*show_firmware)(void *console, bool switch_to);
    /**
     * @scanout_support: Returns what the front ends would do with a dma-buf,
     * which may change at any time. @import is what import() returned for it,
     * or NULL if it was not imported yet. If this, import(), release() or
     * show_scanout() is NULL, there are no scanouts, and the next six callbacks
     * are not called.
     */
    VfioDpyScanoutSupport (*scanout_support)(void *console,
                                             const struct VfioDpyBuffer *buffer,
                                             void *import);
    /**
     * @import: Imports a dma-buf for the front ends, and returns what the host
     * keeps of it, for release().
     */
    void *(*import)(void *console, const struct VfioDpyBuffer *buffer);
    /**
     * @release: Frees an import, which is off screen.
     */
    void (*release)(void *console, void *import);
    /**
     * @show_scanout: Shows an imported dma-buf.
     */
    void (*show_scanout)(void *console, void *import);
    /**
     * @update_scanout: Reports that a part of the scanout may have changed; in
     * pixels.
     */
    void (*update_scanout)(void *console,
                           uint32_t x,
                           uint32_t y,
                           uint32_t width,
                           uint32_t height);
    /**
     * @scanout_cursor: Shows an imported dma-buf as the cursor above a scanout;
     * NULL hides it. Where the CPU cannot read it fast, it is shown again every
     * 100 ms: guests draw cursors in place, so that a host that reads the
     * pixels must do so each time.
     */
    void (*scanout_cursor)(void *console,
                           void *import,
                           bool has_hotspot,
                           uint32_t hot_x,
                           uint32_t hot_y);
    /**
     * @move_scanout_cursor: Moves the upper left corner of the cursor above a
     * scanout; in pixels.
     */
    void (*move_scanout_cursor)(void *console, int32_t x, int32_t y);
    /**
     * @surface_cursor: Sets the cursor above a surface, or above a scanout if
     * no front end imports the cursor's dma-buf: @height rows of @width pixels
     * in ARGB8888 as the guest has them (premultiplied, as DRM's planes are by
     * default), without padding. NULL hides it. The pixels are valid during the
     * call.
     */
    void (*surface_cursor)(void *console,
                           const uint8_t *pixels,
                           uint32_t width,
                           uint32_t height,
                           uint32_t hot_x,
                           uint32_t hot_y);
    /**
     * @move_surface_cursor: Moves the upper left corner of that cursor; in
     * pixels.
     */
    void (*move_surface_cursor)(void *console, int32_t x, int32_t y);
    /**
     * @request_refresh: Makes the front ends refresh soon, as if their timers
     * had fired, but not from within the callback.
     */
    void (*request_refresh)(void *console);
    /**
     * @refresh_done: A refresh that is not periodic (see vfio_dpy_refresh()) is
     * complete: graphic_hw_update_done(), but not from within the callback.
     * NULL: nobody waits for that, which is fine if vfio_dpy_watcher() is not
     * called.
     */
    void (*refresh_done)(void *console);
    /**
     * @log: Logs a message, which is valid during the call. NULL: it goes to
     * GLib's log, domain "vfio-display".
     */
    void (*log)(void *console,
                enum VfioDpySeverity severity,
                const char *message);
    /**
     * @tracing: Returns whether messages of VFIO_DPY_SEVERITY_TRACE are wanted.
     * NULL: false.
     */
    bool (*tracing)(void *console);
} VfioDpyConsoleOps;

/**
 * struct VfioDpyConfig - What a user may choose. Zero everywhere except @size
 * means defaults.
 */
typedef struct VfioDpyConfig {
    /**
     * @size: Set it to sizeof(struct VfioDpyConfig).
     */
    uint32_t size;
    /**
     * @xres: Preferred width for the EDID, in pixels; 0: the largest that the
     * device supports.
     */
    uint32_t xres;
    /**
     * @yres: Preferred height for the EDID, in pixels; 0: the largest that the
     * device supports.
     */
    uint32_t yres;
    /**
     * @share: Allow the scanout to be shared with other devices of the VM: see
     * vfio_dpy_share_scanout().
     */
    bool share;
    /**
     * @driver: Name of the device's driver, the target of the symbolic link
     * "driver" in sysfs. NULL if there is none, or it is not known. Some
     * drivers have quirks.
     */
    const char *driver;
    /**
     * @options: More options: "key=value", separated by commas. NULL: defaults.
     *
     * - thread=on or off: whether to poll the device on a thread of its own, if
     * the host provides one: vfio_dpy_watcher().
     * - events=on: let a device that can (docs/display-events.md) signal
     * changes, instead of polling it.
     * - import=off: show dma-bufs as surfaces, even if a front end imports
     * them.
     * - pool-buffers=N, pool-bytes=N: maximum number of dma-bufs to hold
     * besides those on screen, and of their bytes; K, M or G may follow.
     */
    const char *options;
} VfioDpyConfig;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * vfio_dpy_version() - Returns the version of the library.
 *
 * Context: Any thread.
 * Return: The version as "major.minor.micro".
 */
const char *vfio_dpy_version(void);

/**
 * vfio_dpy_check_version() - Checks that the library is compatible with the
 * header that the host was compiled with.
 * @version: VFIO_DISPLAY_VERSION.
 *
 * Context: Any thread.
 * Return: True if the library is as new as the header, and compatible: the
 * major number is the same (below 1.0.0: the minor number, too), and the rest
 * is not smaller.
 */
bool vfio_dpy_check_version(uint32_t version);

/**
 * vfio_dpy_probe() - Finds out how a device gives its planes.
 * @ops: Callbacks of the device.
 * @device: Passed to the callbacks.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL.
 *
 * Context: Any thread that may call the device.
 * Return: A VfioDpyMode, or a negative errno: -EINVAL if @ops is invalid, else
 * the error of a device that does not answer.
 */
int vfio_dpy_probe(const struct VfioDpyDeviceOps *ops,
                   void *device,
                   char **error);

/**
 * vfio_dpy_new() - Creates the display of a device.
 * @mode: How the device gives its planes: what vfio_dpy_probe() returned.
 * @device_ops: Callbacks of the device; copied.
 * @device: Passed to the callbacks of @device_ops.
 * @name: The device's name in messages; copied.
 * @console_ops: Callbacks of the console; copied.
 * @console: Passed to the callbacks of @console_ops.
 * @config: What the user chose; copied. NULL: defaults.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL.
 *
 * Nothing is shown before the first vfio_dpy_refresh().
 *
 * Context: The display's thread.
 * Return: The display, to be freed with vfio_dpy_free(); NULL if @mode is
 * neither VFIO_DPY_MODE_DMA_BUF nor VFIO_DPY_MODE_REGION, if a required
 * callback is missing, or if an option is invalid.
 */
struct VfioDpy *vfio_dpy_new(int mode,
                             const struct VfioDpyDeviceOps *device_ops,
                             void *device,
                             const char *name,
                             const struct VfioDpyConsoleOps *console_ops,
                             void *console,
                             const struct VfioDpyConfig *config,
                             char **error);

/**
 * vfio_dpy_free() - Frees a display.
 * @dpy: The display; NULL is fine.
 *
 * Releases all imports, and closes all descriptors. If there is a watcher, the
 * device's callbacks are called until vfio_dpy_watch() returns, which it does
 * soon.
 *
 * Context: The display's thread; not from within a callback: debug builds abort
 * then, others log it and do nothing.
 */
void vfio_dpy_free(struct VfioDpy *dpy);

/**
 * vfio_dpy_has_edid() - Returns whether the guest can be told about its
 * monitor.
 * @dpy: The display.
 *
 * Context: The display's thread.
 * Return: Whether vfio_dpy_set_monitor() has an effect. Never changes.
 */
bool vfio_dpy_has_edid(const struct VfioDpy *dpy);

/**
 * vfio_dpy_message_size() - Returns the size that a message would have now.
 * @dpy: The display.
 * @width: Where to put its width in pixels.
 * @height: Where to put its height in pixels.
 *
 * Before the first picture, that is the size of the monitor that the guest is
 * told of. If the console has it from the start, windows open with that size,
 * and the guest is not told another one at once.
 *
 * Context: The display's thread.
 * Return: False, and nothing is written, if the display has failed, or from
 * within a callback.
 */
bool vfio_dpy_message_size(const struct VfioDpy *dpy,
                           uint32_t *width,
                           uint32_t *height);

/**
 * vfio_dpy_refresh() - Shows what the device shows now:
 * GraphicHwOps.gfx_update.
 * @dpy: The display.
 * @periodic: True for a front end's timer, which will fire again: small changes
 * may then wait for the next refresh. False for a one-shot refresh, as for a
 * screenshot: everything is shown, and then refresh_done() of struct
 * VfioDpyConsoleOps is called.
 *
 * Context: The display's thread. Polls the device, unless there is a watcher.
 */
void vfio_dpy_refresh(struct VfioDpy *dpy,
                      bool periodic);

/**
 * vfio_dpy_invalidate() - Makes the next refresh show everything again, changed
 * or not: GraphicHwOps.invalidate.
 * @dpy: The display.
 *
 * Context: The display's thread.
 */
void vfio_dpy_invalidate(struct VfioDpy *dpy);

/**
 * vfio_dpy_set_monitor() - Advertises a monitor of a window's size to the
 * guest: GraphicHwOps.ui_info.
 * @dpy: The display.
 * @monitor: The window; copied. Zero pixels: the front end does not show the
 * console.
 *
 * Context: The display's thread.
 */
void vfio_dpy_set_monitor(struct VfioDpy *dpy,
                          const struct VfioDpyMonitor *monitor);

/**
 * vfio_dpy_block() - Holds the scanout still while a front end uses it:
 * GraphicHwOps.gl_block.
 * @dpy: The display.
 * @block: True when a front end took the scanout, false when it has released
 * it.
 *
 * Context: The display's thread.
 */
void vfio_dpy_block(struct VfioDpy *dpy,
                    bool block);

/**
 * vfio_dpy_reset() - Begins a reset of the device: forgets all its answers.
 * @dpy: The display.
 *
 * vfio_dpy_reset_done() must follow. The console is asked to refresh, and shows
 * the reset then.
 *
 * Context: The display's thread, or another that excludes it, as a vCPU's does
 * under QEMU's BQL.
 */
void vfio_dpy_reset(struct VfioDpy *dpy);

/**
 * vfio_dpy_reset_done() - Ends a reset: the device is polled again.
 * @dpy: The display.
 *
 * Context: The display's thread.
 */
void vfio_dpy_reset_done(struct VfioDpy *dpy);

/**
 * vfio_dpy_watcher() - Takes the watcher, which polls the device, out of the
 * display, for a thread of the host.
 * @dpy: The display.
 *
 * From then on the display never blocks on the device. Call it at most once.
 *
 * Context: The display's thread, and that which runs the GLib default main
 * context.
 * Return: The watcher, to be given to vfio_dpy_watch(). NULL if the user does
 * not want one (option "thread"), or on failure: the device is then polled in
 * vfio_dpy_refresh(), as if this function had never been called.
 */
struct VfioDpyWatcher *vfio_dpy_watcher(struct VfioDpy *dpy);

/**
 * vfio_dpy_share_scanout() - Shares the dma-buf that the device shows now with
 * other devices of the VM, by a UUID.
 * @dpy: The display.
 * @uuid: Where to put the UUID, of 16 bytes, on success.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL.
 *
 * The UUID lasts as long as the display holds the dma-buf. The functions of
 * vfio_display_objects.h find it.
 *
 * Context: The display's thread. May call the device, unless there is a
 * watcher.
 * Return: 0 or a negative errno: -EPERM: sharing is not enabled; -ENOTSUP: the
 * device shows a region; -ENOENT: it shows nothing; -EBUSY: called from within
 * a callback; -EIO: anything else, such as a device that does not answer.
 */
int vfio_dpy_share_scanout(struct VfioDpy *dpy,
                           uint8_t *uuid,
                           char **error);

/**
 * vfio_dpy_status() - Returns the status of the display as JSON.
 * @dpy: The display.
 *
 * Context: The display's thread.
 * Return: A JSON object, to be freed with g_free(). From within a callback, it
 * says only {"busy":true}.
 */
char *vfio_dpy_status(const struct VfioDpy *dpy);

/**
 * vfio_dpy_describe() - Returns the status of the display as a few lines of
 * text.
 * @dpy: The display.
 *
 * Context: The display's thread.
 * Return: The text, which ends with a line feed, to be freed with g_free().
 * From within a callback, it says only that.
 */
char *vfio_dpy_describe(const struct VfioDpy *dpy);

/**
 * vfio_dpy_capture() - Copies the scanout, for those who cannot import it.
 * @dpy: The display.
 * @width: Where to put the width of the copy in pixels.
 * @height: Where to put its height in pixels.
 *
 * Context: The display's thread.
 * Return: *@height rows of *@width pixels in XRGB8888, without padding, to be
 * freed with g_free(). NULL, and nothing is written, if no scanout is shown, if
 * only a GPU can read its pixels, or from within a callback.
 */
uint8_t *vfio_dpy_capture(struct VfioDpy *dpy,
                          uint32_t *width,
                          uint32_t *height);

/**
 * vfio_dpy_memory_free() - Frees memory that was passed to show_memory() of
 * struct VfioDpyConsoleOps.
 * @memory: What show_memory() was passed, if that returned true; NULL is fine.
 * Nobody reads its pixels any more.
 *
 * Context: Any thread.
 */
void vfio_dpy_memory_free(struct VfioDpyMemory *memory);

/**
 * vfio_dpy_watch() - Polls the device of a display on the calling thread, until
 * the display is freed.
 * @watcher: The watcher, from vfio_dpy_watcher(). It is freed.
 *
 * The device's callbacks are called on this thread meanwhile; the device must
 * exist until this returns.
 *
 * Context: A thread of the host's own, once, without any lock. Returns when the
 * display was freed and no callback of the device is running.
 */
void vfio_dpy_watch(struct VfioDpyWatcher *watcher);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VFIO_DISPLAY_H */
