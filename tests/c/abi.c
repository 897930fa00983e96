/*
 * The C boundary, as a host sees it: a device and a console in C.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <glib.h>

#include "check.h"
#include "vfio_display.h"

enum { WIDTH = 64, HEIGHT = 32, STRIDE = WIDTH * 4, SIZE = STRIDE * HEIGHT };
enum { EDID_REGION = 11, EDID_OFFSET = 0x400, EDID_MAX = 256 };
#define XR24 0x34325258u

static VfioDpy *dpy;

/* --- a device -------------------------------------------------------- */

static int memory = -1;
static int query_error, get_error;
static uint32_t stride = STRIDE;
static bool region_mode, plane_off, ids_are_kept;
static uint32_t shown_id = 7;
static int gets;
static bool has_events;
static int changes = -1;
static uint8_t edid_registers[0x800];

static int query_plane(void *device, struct vfio_device_gfx_plane_info *info)
{
    uint32_t wanted = region_mode ? VFIO_GFX_PLANE_TYPE_REGION
                                  : VFIO_GFX_PLANE_TYPE_DMABUF;

    CHECK(device == &memory);
    CHECK(info->argsz == sizeof(*info));
    if (query_error) {
        return query_error;
    }
    if (!(info->flags & wanted) || info->drm_plane_type > 1) {
        return -EINVAL;
    }
    if (info->flags & VFIO_GFX_PLANE_TYPE_PROBE || plane_off) {
        return 0;
    }
    info->drm_format = XR24;
    info->width = WIDTH;
    info->height = HEIGHT;
    info->stride = stride;
    info->size = SIZE;
    info->dmabuf_id = shown_id;
    return 0;
}

static int get_dmabuf(void *device, uint32_t id)
{
    CHECK(device == &memory && id == shown_id);
    gets++;
    return get_error ? get_error : dup(memory);
}

static int region_info(void *device, uint32_t index, VfioDpyRegion *region)
{
    CHECK(device == &memory && index == 7);
    region->size = SIZE;
    region->offset = 0;
    region->fd = dup(memory);
    return 0;
}

static int region_read(void *device, uint32_t index, uint64_t offset,
                       uint8_t *data, uint32_t size)
{
    CHECK(device == &memory);
    if (index == VFIO_PCI_CONFIG_REGION_INDEX) {
        /* Who made it. */
        CHECK(offset == 0 && size == 2);
        return -EINVAL;
    }
    CHECK(index == EDID_REGION);
    CHECK(offset + size <= sizeof(edid_registers));
    memcpy(data, edid_registers + offset, size);
    return 0;
}

static int region_write(void *device, uint32_t index, uint64_t offset,
                        const uint8_t *data, uint32_t size)
{
    CHECK(device == &memory && index == EDID_REGION);
    CHECK(offset + size <= sizeof(edid_registers));
    memcpy(edid_registers + offset, data, size);
    return 0;
}

static bool keeps_ids(void *device)
{
    CHECK(device == &memory);
    return ids_are_kept;
}

static int signal_changes(void *device, int eventfd)
{
    CHECK(device == &memory);
    if (!has_events) {
        return -ENOTTY;
    }
    if (changes >= 0) {
        close(changes);
    }
    changes = eventfd < 0 ? -1 : dup(eventfd);
    return 0;
}

static int edid_region(void *device)
{
    CHECK(device == &memory);
    return EDID_REGION;
}

static size_t generate_edid(void *opaque, const VfioDpyMonitor *monitor,
                            uint8_t *blob, size_t size)
{
    (void)opaque;
    CHECK(size == EDID_MAX);
    memcpy(blob, &monitor->width, 4);
    return 128;
}

static const VfioDpyDeviceOps device_ops = {
    .size = sizeof(VfioDpyDeviceOps),
    .query_plane = query_plane,
    .get_dmabuf = get_dmabuf,
    .region_info = region_info,
    .region_read = region_read,
    .region_write = region_write,
    .keeps_ids = keeps_ids,
    .signal_changes = signal_changes,
    .edid_region = edid_region,
    .generate_edid = generate_edid,
};

/* --- a console ------------------------------------------------------- */

typedef struct Console {
    bool takes_dmabufs;
    bool block_at_update;
    bool no_memory;
    bool narrow;
    unsigned answer;
    int imports, scanouts, scanout_updates, surface_updates, errors;
    int refreshes_requested, refreshes_done;
    void *shown;
    uint8_t *pixels;
    const uint8_t *in_place;
    VfioDpyMemory *held;
    char message[256], error[256];
} Console;

static VfioDpyScanoutSupport scanout_support(void *opaque,
                                             const VfioDpyBuffer *buffer,
                                             void *imported)
{
    CHECK(buffer->fourcc == XR24 && buffer->modifier == 0);
    CHECK(!imported || *(int *)imported == buffer->fd);
    if (((Console *)opaque)->answer) {
        return (VfioDpyScanoutSupport)((Console *)opaque)->answer;
    }
    return ((Console *)opaque)->takes_dmabufs
           ? VFIO_DPY_SCANOUT_SUPPORT_IMPORT
           : VFIO_DPY_SCANOUT_SUPPORT_NONE;
}

static void *import(void *opaque, const VfioDpyBuffer *buffer)
{
    int *copy = malloc(sizeof(*copy));

    CHECK(buffer->width == WIDTH && buffer->stride == STRIDE);
    ((Console *)opaque)->imports++;
    *copy = buffer->fd;
    return copy;
}

static void release(void *opaque, void *imported)
{
    ((Console *)opaque)->imports--;
    free(imported);
}

static void show_scanout(void *opaque, void *imported)
{
    ((Console *)opaque)->scanouts++;
    ((Console *)opaque)->shown = imported;
}

static void update_scanout(void *opaque, uint32_t x, uint32_t y,
                           uint32_t width, uint32_t height)
{
    Console *console = opaque;

    CHECK(x == 0 && y == 0 && width == WIDTH && height == HEIGHT);
    console->scanout_updates++;
    if (console->block_at_update) {
        char *status = vfio_dpy_status(dpy);

        /* As SPICE does: it calls back from within the call. */
        vfio_dpy_block(dpy, true);
        CHECK(!strcmp(status, "{\"busy\":true}"));
        g_free(status);
    }
}

static void forget_surface(Console *console)
{
    free(console->pixels);
    console->pixels = NULL;
    console->in_place = NULL;
    console->shown = NULL;
}

static uint8_t *show_surface(void *opaque, uint32_t width, uint32_t height,
                             size_t *surface_stride)
{
    Console *console = opaque;

    CHECK(width == WIDTH && height == HEIGHT);
    if (console->no_memory) {
        return NULL;
    }
    forget_surface(console);
    *surface_stride = console->narrow ? STRIDE - 4 : STRIDE;
    return console->pixels = calloc(1, SIZE);
}

static bool show_memory(void *opaque, const uint8_t *pixels, uint32_t width,
                        uint32_t height, size_t row, VfioDpyMemory *held)
{
    Console *console = opaque;

    CHECK(width == WIDTH && height == HEIGHT && row == STRIDE && held);
    CHECK(!console->held);
    if (console->no_memory) {
        return false;
    }
    forget_surface(console);
    console->in_place = pixels;
    console->held = held;
    return true;
}

static void update_surface(void *opaque, uint32_t x, uint32_t y,
                           uint32_t width, uint32_t height)
{
    CHECK(x + width <= WIDTH && y + height <= HEIGHT);
    ((Console *)opaque)->surface_updates++;
}

static void show_message(void *opaque, uint32_t width, uint32_t height,
                         const char *text)
{
    Console *console = opaque;

    CHECK(width && height);
    forget_surface(console);
    g_strlcpy(console->message, text, sizeof(console->message));
}

static bool show_firmware(void *opaque, bool switch_to)
{
    (void)opaque;
    (void)switch_to;
    return false;
}

static void scanout_cursor(void *opaque, void *imported, bool has_hotspot,
                           uint32_t hot_x, uint32_t hot_y)
{
    (void)opaque;
    CHECK(!imported && !has_hotspot && !hot_x && !hot_y);
}

static void move_scanout_cursor(void *opaque, int32_t x, int32_t y)
{
    (void)opaque;
    CHECK(x == y && false);
}

static void surface_cursor(void *opaque, const uint8_t *pixels, uint32_t width,
                           uint32_t height, uint32_t hot_x, uint32_t hot_y)
{
    (void)opaque;
    CHECK(!pixels && !width && !height && !hot_x && !hot_y);
}

static void move_surface_cursor(void *opaque, int32_t x, int32_t y)
{
    (void)opaque;
    CHECK(x == y && false);
}

static void refresh_done(void *opaque)
{
    Console *console = opaque;

    console->refreshes_done++;
}

static void request_refresh(void *opaque)
{
    ((Console *)opaque)->refreshes_requested++;
}

static void log_message(void *opaque, VfioDpySeverity severity,
                        const char *message)
{
    Console *console = opaque;

    if (severity == VFIO_DPY_SEVERITY_ERROR) {
        console->errors++;
        g_strlcpy(console->error, message, sizeof(console->error));
    }
}

static bool tracing(void *opaque)
{
    (void)opaque;
    return true;
}

static const VfioDpyConsoleOps console_ops = {
    .size = sizeof(VfioDpyConsoleOps),
    .scanout_support = scanout_support,
    .import = import,
    .release = release,
    .show_scanout = show_scanout,
    .update_scanout = update_scanout,
    .show_surface = show_surface,
    .show_memory = show_memory,
    .update_surface = update_surface,
    .show_message = show_message,
    .show_firmware = show_firmware,
    .scanout_cursor = scanout_cursor,
    .move_scanout_cursor = move_scanout_cursor,
    .surface_cursor = surface_cursor,
    .move_surface_cursor = move_surface_cursor,
    .request_refresh = request_refresh,
    .refresh_done = refresh_done,
    .log = log_message,
    .tracing = tracing,
};

/* --- tests ----------------------------------------------------------- */

static void start(Console *console)
{
    VfioDpyConfig config = {
        .size = sizeof(config),
        .xres = 800,
        .yres = 600,
        .options = "events=on",
    };
    int mode = vfio_dpy_probe(&device_ops, &memory, NULL);

    CHECK(mode == (region_mode ? VFIO_DPY_MODE_REGION : VFIO_DPY_MODE_DMA_BUF));
    dpy = vfio_dpy_new(mode, &device_ops, &memory, "abi", &console_ops, console,
                       &config, NULL);
    CHECK(dpy);
}

static void stop(Console *console)
{
    vfio_dpy_free(dpy);
    dpy = NULL;
    CHECK(console->imports == 0);
    forget_surface(console);
}

static void test_probe(void)
{
    VfioDpyConfig config = {
        .size = sizeof(config),
        .options = "import=on,events=maybe",
    };
    char *error;

    query_error = -ENOTTY;
    CHECK(vfio_dpy_probe(&device_ops, &memory, &error) == VFIO_DPY_MODE_NONE);
    CHECK(!error);
    query_error = -ENODEV;
    CHECK(vfio_dpy_probe(&device_ops, &memory, &error) == -ENODEV);
    CHECK(strstr(error, "No such device"));
    g_free(error);
    query_error = 0;
    CHECK(!vfio_dpy_new(VFIO_DPY_MODE_NONE, &device_ops, &memory, "",
                        &console_ops, NULL, NULL, NULL));
    CHECK(!vfio_dpy_new(VFIO_DPY_MODE_REGION, &device_ops, &memory, "",
                        &console_ops, NULL, &config, &error));
    CHECK(error && strstr(error, "\"events\"") && strstr(error, "\"maybe\""));
    g_free(error);
    vfio_dpy_free(NULL);
}

static void test_version(void)
{
    unsigned major, minor, micro;

    CHECK(sscanf(vfio_dpy_version(), "%u.%u.%u", &major, &minor, &micro) == 3);
    CHECK(major == VFIO_DISPLAY_VERSION_MAJOR);
    CHECK(minor == VFIO_DISPLAY_VERSION_MINOR);
    CHECK(micro == VFIO_DISPLAY_VERSION_MICRO);
    CHECK(vfio_dpy_check_version(VFIO_DISPLAY_VERSION));
    /* A host that wants more than there is. */
    CHECK(!vfio_dpy_check_version(VFIO_DISPLAY_VERSION + 1));
    CHECK(!vfio_dpy_check_version(VFIO_DISPLAY_VERSION + (1 << 16)));
}

/* All that a display is asked for, with whichever callbacks there are. */
static void live(const VfioDpyDeviceOps *device, const VfioDpyConsoleOps *ops,
                 const VfioDpyConfig *config, const char *required)
{
    Console console = { .takes_dmabufs = true };
    int mode = region_mode ? VFIO_DPY_MODE_REGION : VFIO_DPY_MODE_DMA_BUF;
    uint32_t width, height;
    uint8_t uuid[16];
    char *error;

    dpy = vfio_dpy_new(mode, device, &memory, "abi", ops, &console, config,
                       &error);
    if (required) {
        CHECK(!dpy && strstr(error, required));
        g_free(error);
        return;
    }
    CHECK(dpy && !error);
    for (int i = 0; i < 3; i++) {
        vfio_dpy_refresh(dpy, i != 2);
        plane_off = i == 0;
        query_error = i == 1 ? -EIO : 0;
    }
    vfio_dpy_set_monitor(dpy, &(VfioDpyMonitor){ .width = 800, .height = 600 });
    vfio_dpy_block(dpy, true);
    vfio_dpy_block(dpy, false);
    vfio_dpy_reset(dpy);
    vfio_dpy_reset_done(dpy);
    vfio_dpy_invalidate(dpy);
    vfio_dpy_refresh(dpy, false);
    CHECK(console.pixels || console.shown);
    g_free(vfio_dpy_capture(dpy, &width, &height));
    CHECK(vfio_dpy_share_scanout(dpy, uuid, NULL) == -EPERM);
    error = vfio_dpy_describe(dpy);
    CHECK(!strstr(error, "has failed"));
    g_free(error);
    stop(&console);
}

/* Each callback is missing once; so many pointers follow the size. */
static void test_missing(void)
{
    enum { FIRST = offsetof(VfioDpyDeviceOps, query_plane) / sizeof(void *) };
    VfioDpyDeviceOps device = device_ops;
    VfioDpyConsoleOps console = console_ops;
    void **of_device = (void **)&device;
    void **of_console = (void **)&console;

    for (size_t i = FIRST; i < sizeof(device) / sizeof(void *); i++) {
        size_t at = i * sizeof(void *);
        void *callback = of_device[i];
        const char *required =
            at == offsetof(VfioDpyDeviceOps, query_plane) ? "query_plane" :
            at == offsetof(VfioDpyDeviceOps, get_dmabuf) && !region_mode ?
            "get_dmabuf" :
            at == offsetof(VfioDpyDeviceOps, region_info) && region_mode ?
            "region_info" : NULL;

        of_device[i] = NULL;
        live(&device, &console_ops, NULL, required);
        if (required) {
            /* A plane that cannot be had is none. */
            CHECK(vfio_dpy_probe(&device, &memory, NULL) ==
                  (of_device[FIRST] ? VFIO_DPY_MODE_NONE : -EINVAL));
        }
        of_device[i] = callback;
    }
    for (size_t i = FIRST; i < sizeof(console) / sizeof(void *); i++) {
        size_t at = i * sizeof(void *);
        void *callback = of_console[i];

        of_console[i] = NULL;
        live(&device_ops, &console, NULL,
             at == offsetof(VfioDpyConsoleOps, show_surface) ? "show_surface" : NULL);
        of_console[i] = callback;
    }
}

/* Hosts that were compiled with an older, and with a newer header. */
static void test_sizes(void)
{
    struct {
        VfioDpyDeviceOps ops;
        void *more[4];
    } newer_device = { .ops = device_ops, .more = { &memory } };
    struct {
        VfioDpyConsoleOps ops;
        void *more[4];
    } newer_console = { .ops = console_ops, .more = { &memory } };
    struct {
        VfioDpyConfig config;
        void *more[4];
    } newer_config = { .more = { &memory } };
    VfioDpyDeviceOps device = device_ops;
    VfioDpyConsoleOps console = console_ops;
    /* An older host has no more memory than it says: Valgrind would notice. */
    VfioDpyConsoleOps *older =
        malloc(offsetof(VfioDpyConsoleOps, update_surface));
    char *error;

    newer_device.ops.size = sizeof(newer_device);
    newer_console.ops.size = sizeof(newer_console);
    newer_config.config.size = sizeof(newer_config);
    live(&newer_device.ops, &newer_console.ops, &newer_config.config, NULL);

    memcpy(older, &console, offsetof(VfioDpyConsoleOps, update_surface));
    older->size = offsetof(VfioDpyConsoleOps, update_surface);
    device.size = offsetof(VfioDpyDeviceOps, region_read);
    live(&device, older, NULL, NULL);
    free(older);

    /* Nobody set it, or it ends in the midst of a callback. */
    for (device.size = 0; device.size < 24; device.size += 20) {
        CHECK(vfio_dpy_probe(&device, &memory, &error) == -EINVAL);
        CHECK(strstr(error, "sizeof(struct VfioDpyDeviceOps)"));
        g_free(error);
    }
    console.size = 0;
    live(&device_ops, &console, NULL, "sizeof(struct VfioDpyConsoleOps)");
    live(&device_ops, &console_ops, &(VfioDpyConfig){ 0 },
         "sizeof(struct VfioDpyConfig)");
}

/* Ends the process that calls it, and says so, where the library is built for debugging. */
static void check_misuse(void (*misuse)(void), const char *says)
{
    int out[2], status;
    char text[512] = "";
    size_t length = 0;
    ssize_t more;
    pid_t child;

    CHECK(pipe(out) == 0);
    child = fork();
    CHECK(child >= 0);
    if (!child) {
        struct rlimit none = { 0, 0 };

        setrlimit(RLIMIT_CORE, &none);
        dup2(out[1], 2);
        misuse();
        _exit(0);
    }
    close(out[1]);
    while ((more = read(out[0], text + length, sizeof(text) - 1 - length)) > 0) {
        length += more;
    }
    close(out[0]);
    CHECK(waitpid(child, &status, 0) == child);
    if (DEBUG_BUILD) {
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    } else {
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    CHECK(!says || strstr(text, says));
}

static void free_within(void *opaque, uint32_t x, uint32_t y, uint32_t width,
                        uint32_t height)
{
    (void)opaque, (void)x, (void)y, (void)width, (void)height;
    vfio_dpy_free(dpy);
}

static void refresh_with(void (*update_surface)(void *, uint32_t, uint32_t,
                                                uint32_t, uint32_t))
{
    VfioDpyConsoleOps ops = console_ops;
    Console console = { 0 };

    ops.update_surface = update_surface;
    dpy = vfio_dpy_new(VFIO_DPY_MODE_DMA_BUF, &device_ops, &memory, "abi", &ops,
                       &console, NULL, NULL);
    vfio_dpy_refresh(dpy, true);
}

static void free_from_a_callback(void)
{
    refresh_with(free_within);
}

static void *invalidate(void *unused)
{
    vfio_dpy_invalidate(dpy);
    return unused;
}

static void call_from_elsewhere(void *opaque, uint32_t x, uint32_t y,
                                uint32_t width, uint32_t height)
{
    (void)opaque, (void)x, (void)y, (void)width, (void)height;
    g_thread_join(g_thread_new("elsewhere", invalidate, NULL));
}

static void two_threads(void)
{
    refresh_with(call_from_elsewhere);
}

static int query_and_invalidate(void *device,
                                struct vfio_device_gfx_plane_info *info)
{
    if (dpy) {
        vfio_dpy_invalidate(dpy);
    }
    return query_plane(device, info);
}

static void *watch(void *watcher)
{
    vfio_dpy_watch(watcher);
    return NULL;
}

/* The device calls back, on the thread on which it is asked. */
static void callback_of_the_device(void)
{
    VfioDpyConfig config = { .size = sizeof(config), .options = "thread=on" };
    VfioDpyDeviceOps ops = device_ops;
    Console console = { 0 };

    ops.query_plane = query_and_invalidate;
    dpy = vfio_dpy_new(VFIO_DPY_MODE_DMA_BUF, &ops, &memory, "abi",
                       &console_ops, &console, &config, NULL);
    g_thread_new("watcher", watch, vfio_dpy_watcher(dpy));
    for (alarm(60); true; g_usleep(10000)) {
        vfio_dpy_refresh(dpy, true);
    }
}

static void test_misuse(void)
{
    if (DEBUG_BUILD) {
        check_misuse(callback_of_the_device, "vfio_dpy_invalidate() was called "
                     "on the thread of vfio_dpy_watch()");
    }
    check_misuse(free_from_a_callback,
                 "vfio_dpy_free() was called from within a callback");
    check_misuse(two_threads,
                 DEBUG_BUILD ? "vfio_dpy_invalidate() was called while another "
                               "thread is within a call" : NULL);
}

/* An answer that is no value of its enum, which an older host may give. */
static void test_unknown_answer(void)
{
    Console console = { .answer = 99 };

    start(&console);
    vfio_dpy_refresh(dpy, true);
    CHECK(console.imports == 0 && console.pixels);
    stop(&console);
}

/* The console breaks its word, and the library fails. */
static void test_broken(void)
{
    static VfioDpy *lost;
    Console console = { .narrow = true };
    uint8_t uuid[16];
    uint32_t width, height;
    char *text;

    start(&console);
    vfio_dpy_refresh(dpy, true);
    vfio_dpy_refresh(dpy, true);
    vfio_dpy_invalidate(dpy);
    vfio_dpy_block(dpy, true);
    vfio_dpy_set_monitor(dpy, &(VfioDpyMonitor){ .width = 800 });
    vfio_dpy_reset(dpy);
    CHECK(!vfio_dpy_has_edid(dpy) && !vfio_dpy_capture(dpy, &width, &height));
    CHECK(!vfio_dpy_message_size(dpy, &width, &height));
    /* A one-shot refresh is answered, too. */
    console.refreshes_done = 0;
    vfio_dpy_refresh(dpy, false);
    CHECK(console.refreshes_done == 1);
    text = vfio_dpy_status(dpy);
    CHECK(!strcmp(text, "{\"broken\":true}"));
    g_free(text);
    text = vfio_dpy_describe(dpy);
    CHECK(strstr(text, "has failed"));
    g_free(text);
    text = NULL;
    CHECK(vfio_dpy_share_scanout(dpy, uuid, &text) == -EIO);
    CHECK(strstr(text, "has failed"));
    g_free(text);
    CHECK(console.surface_updates == 0 && console.errors == 0);
    /* What it holds is lost, since nobody knows what the console shows. */
    lost = dpy;
    CHECK(lost);
    vfio_dpy_free(dpy);
    forget_surface(&console);
}

static void test_scanout(void)
{
    Console console = { .takes_dmabufs = true };
    char *status;

    gets = 0;
    start(&console);
    vfio_dpy_refresh(dpy, true);
    vfio_dpy_refresh(dpy, true);
    CHECK(gets == 1 && console.imports == 1 && console.scanouts == 1);
    CHECK(console.scanout_updates == 2 && console.shown);

    console.block_at_update = true;
    vfio_dpy_refresh(dpy, true);
    vfio_dpy_refresh(dpy, true);
    CHECK(console.scanout_updates == 3);
    console.block_at_update = false;
    vfio_dpy_block(dpy, false);
    vfio_dpy_refresh(dpy, true);
    CHECK(console.scanout_updates == 4);

    status = vfio_dpy_status(dpy);
    CHECK(strstr(status, "\"shows\":\"scanout\""));
    CHECK(strstr(status, "\"fourcc\":\"XR24\""));
    g_free(status);

    /* The console is told at its next refresh: this may be a vCPU's thread. */
    vfio_dpy_reset(dpy);
    CHECK(console.imports == 1 && !*console.message);
    vfio_dpy_refresh(dpy, true);
    CHECK(gets == 2 && console.scanouts == 2 && console.imports == 1);
    CHECK(!strcmp(console.message, "The display is off."));

    ids_are_kept = true;
    vfio_dpy_reset(dpy);
    vfio_dpy_refresh(dpy, true);
    CHECK(gets == 2 && console.scanouts == 3);
    ids_are_kept = false;
    stop(&console);
}

static void test_surface(bool region)
{
    Console console = { 0 };
    uint8_t *pixels = mmap(NULL, SIZE, PROT_WRITE, MAP_SHARED, memory, 0);

    region_mode = region;
    start(&console);
    vfio_dpy_refresh(dpy, true);
    CHECK(console.surface_updates == 1 && !memcmp(console.pixels, pixels, SIZE));
    vfio_dpy_refresh(dpy, true);
    CHECK(console.surface_updates == 1);
    pixels[STRIDE * 3]++;
    /* A one-shot refresh shows a row at once. */
    vfio_dpy_refresh(dpy, false);
    CHECK(console.surface_updates == 2 && !memcmp(console.pixels, pixels, SIZE));
    vfio_dpy_invalidate(dpy);
    vfio_dpy_refresh(dpy, true);
    CHECK(console.surface_updates == 3);
    plane_off = true;
    /* Front ends wait for it for a moment. */
    vfio_dpy_refresh(dpy, true);
    CHECK(console.pixels && console.surface_updates == 3);
    vfio_dpy_refresh(dpy, false);
    CHECK(!strcmp(console.message, "The display is off.") && !console.pixels);
    plane_off = false;
    console.no_memory = true;
    vfio_dpy_refresh(dpy, true);
    CHECK(strstr(console.message, "too large") && !console.pixels);
    CHECK(console.errors == 1 && strstr(console.error, "no memory for a surface"));
    console.no_memory = false;
    vfio_dpy_refresh(dpy, true);
    CHECK(console.pixels && console.errors == 1);
    stop(&console);
    munmap(pixels, SIZE);
    region_mode = false;
}

static int mappings(void)
{
    char line[512];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");

    CHECK(maps);
    while (fgets(line, sizeof(line), maps)) {
        count += !!strstr(line, "memfd:pixels");
    }
    fclose(maps);
    return count;
}

static void *release_memory(void *held)
{
    vfio_dpy_memory_free(held);
    return NULL;
}

/* Everything moves: the console gets the memory itself, and may hold it when
 * all else is gone. */
static void test_memory(void)
{
    Console console = { 0 };
    uint8_t *pixels = mmap(NULL, SIZE, PROT_WRITE, MAP_SHARED, memory, 0);
    const uint8_t *in_place;
    char *status;

    region_mode = true;
    start(&console);
    for (int frame = 1; !console.in_place; frame++) {
        CHECK(frame < 100);
        memset(pixels, frame, SIZE);
        console.no_memory = frame == 6;
        vfio_dpy_refresh(dpy, true);
    }
    in_place = console.in_place;
    status = vfio_dpy_status(dpy);
    CHECK(strstr(status, "\"shows\":\"memory\""));
    g_free(status);
    CHECK(in_place != pixels && !memcmp(in_place, pixels, SIZE));
    pixels[SIZE - 1]++;
    CHECK(in_place[SIZE - 1] == pixels[SIZE - 1]);

    stop(&console);
    CHECK(!strcmp(console.message, "The display is off."));
    CHECK(in_place[SIZE - 1] == pixels[SIZE - 1] && mappings() == 2);
    g_thread_join(g_thread_new("front end", release_memory, console.held));
    CHECK(mappings() == 1);
    vfio_dpy_memory_free(NULL);
    munmap(pixels, SIZE);
    region_mode = false;
}

static void test_lies_and_errors(void)
{
    Console console = { .takes_dmabufs = true };

    start(&console);
    stride = 4;
    for (int i = 0; i < 100; i++) {
        vfio_dpy_refresh(dpy, true);
    }
    CHECK(console.errors == 1 && strstr(console.error, "stride 4"));
    CHECK(strstr(console.message, "describes its display wrongly"));
    stride = STRIDE;
    vfio_dpy_refresh(dpy, true);
    CHECK(console.shown);

    query_error = -EPIPE;
    vfio_dpy_refresh(dpy, true);
    vfio_dpy_refresh(dpy, true);
    CHECK(console.errors == 2 && strstr(console.error, "Broken pipe"));
    CHECK(strstr(console.message, "gone"));
    query_error = 0;
    stop(&console);
}

static uint32_t edid_register(size_t offset)
{
    uint32_t value;

    memcpy(&value, edid_registers + offset, sizeof(value));
    return value;
}

static void test_edid(void)
{
    struct vfio_region_gfx_edid registers = {
        .edid_offset = EDID_OFFSET, .edid_max_size = EDID_MAX,
        .max_xres = 1024, .max_yres = 768,
    };
    size_t link = offsetof(struct vfio_region_gfx_edid, link_state);
    VfioDpyMonitor monitor = { .width = 2000, .height = 500 };
    Console console = { 0 };
    uint32_t width, height;

    memcpy(edid_registers, &registers, sizeof(registers));
    start(&console);
    CHECK(vfio_dpy_has_edid(dpy));
    CHECK(vfio_dpy_message_size(dpy, &width, &height));
    CHECK(width == 800 && height == 600);
    CHECK(edid_register(link) == VFIO_DEVICE_GFX_LINK_STATE_DOWN);
    CHECK(edid_register(EDID_OFFSET) == 800);
    CHECK(edid_register(offsetof(struct vfio_region_gfx_edid, edid_size)) == 128);
    while (edid_register(link) != VFIO_DEVICE_GFX_LINK_STATE_UP) {
        g_main_context_iteration(NULL, TRUE);
    }
    vfio_dpy_set_monitor(dpy, &monitor);
    CHECK(edid_register(link) == VFIO_DEVICE_GFX_LINK_STATE_DOWN);
    CHECK(edid_register(EDID_OFFSET) == 1024);
    /* The alarm must not outlive the display. */
    stop(&console);
    CHECK(!g_main_context_pending(NULL));
    memset(edid_registers, 0, sizeof(edid_registers));
}

/* The guest flips, and no front end asks. */
static void test_flip(void)
{
    Console console = { .takes_dmabufs = true };

    start(&console);
    vfio_dpy_refresh(dpy, true);
    CHECK(console.refreshes_requested == 0);
    gets = 0;
    shown_id = 8;
    while (!console.refreshes_requested) {
        g_main_context_iteration(NULL, TRUE);
    }
    vfio_dpy_refresh(dpy, true);
    CHECK(gets == 1);
    shown_id = 7;
    stop(&console);
    CHECK(!g_main_context_pending(NULL));
}

/* The device says that something changed, and no front end asks. */
static void test_events(void)
{
    Console console = { .takes_dmabufs = true };
    uint64_t change = 1;
    char *status;

    has_events = true;
    start(&console);
    CHECK(changes >= 0);
    CHECK(write(changes, &change, sizeof(change)) == sizeof(change));
    CHECK(!g_main_context_pending(NULL));
    vfio_dpy_refresh(dpy, true);
    CHECK(console.refreshes_requested == 0);
    for (int flip = 1; flip <= 10; flip++) {
        /* Whether or not the device has read it, or changed its flags. */
        CHECK(fcntl(changes, F_SETFL, 0) == 0);
        while (console.refreshes_requested < flip) {
            g_main_context_iteration(NULL, TRUE);
        }
        CHECK(console.refreshes_requested == flip);
        vfio_dpy_refresh(dpy, true);
        CHECK(write(changes, &change, sizeof(change)) == sizeof(change));
    }
    status = vfio_dpy_status(dpy);
    CHECK(strstr(status, "\"events\":{\"signals\":10}"));
    g_free(status);
    stop(&console);
    CHECK(changes == -1 && !g_main_context_pending(NULL));
    has_events = false;
}

int main(void)
{
    int descriptors;

    /* GLib opens a descriptor for its main context, and keeps it. */
    g_main_context_default();
    descriptors = open_descriptors();
    memory = memfd_create("pixels", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(memory >= 0 && ftruncate(memory, SIZE) == 0);
    CHECK(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK) == 0);

    test_version();
    test_probe();
    for (int i = 0; i < 2; i++) {
        region_mode = i;
        test_missing();
    }
    region_mode = false;
    test_sizes();
    test_misuse();
    test_unknown_answer();
    test_scanout();
    test_surface(false);
    test_surface(true);
    test_memory();
    test_lies_and_errors();
    test_edid();
    test_flip();
    test_events();
    close(memory);
    CHECK(open_descriptors() == descriptors);
    memory = memfd_create("pixels", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK(memory >= 0 && ftruncate(memory, SIZE) == 0);
    test_broken();
    return 0;
}
