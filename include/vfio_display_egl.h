/* SPDX-License-Identifier: GPL-2.0-or-later */

#ifndef VFIO_DISPLAY_EGL_H
#define VFIO_DISPLAY_EGL_H

/* Generated from src/capi by `UPDATE_HEADER=1 cargo test --test header`: do not edit. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/**
 * DOC: dma-bufs in OpenGL
 *
 * Imports dma-bufs as textures, and reads pictures back. The functions are
 * there if the library was built with libepoxy: the variable `egl` of
 * pkg-config, and of meson's dependency, is then `true`, and only then is this
 * header installed. vfio_display.h has the rules for all functions.
 */


/**
 * enum VfioDpyEglColorSpace - How luminance and chrominance become colours.
 */
typedef enum VfioDpyEglColorSpace {
    /**
     * @VFIO_DPY_EGL_COLOR_SPACE_REC601: ITU-R BT.601, which drivers assume.
     */
    VFIO_DPY_EGL_COLOR_SPACE_REC601 = 0,
    /**
     * @VFIO_DPY_EGL_COLOR_SPACE_REC709: ITU-R BT.709.
     */
    VFIO_DPY_EGL_COLOR_SPACE_REC709 = 1,
    /**
     * @VFIO_DPY_EGL_COLOR_SPACE_REC2020: ITU-R BT.2020.
     */
    VFIO_DPY_EGL_COLOR_SPACE_REC2020 = 2,
} VfioDpyEglColorSpace;

/**
 * typedef VfioDpyEglImport - A dma-buf as a texture.
 *
 * The functions of one import are called by one thread at a time.
 */
typedef struct VfioDpyEglImport VfioDpyEglImport;

/**
 * typedef VfioDpyEglReadBack - Reads pictures that the host draws with OpenGL
 * back into memory, without waiting for the GPU.
 *
 * Its functions are called on the thread that runs the GLib default main
 * context.
 */
typedef struct VfioDpyEglReadBack VfioDpyEglReadBack;

/**
 * struct VfioDpyEglBuffer - A picture in dma-bufs.
 */
typedef struct VfioDpyEglBuffer {
    /**
     * @modifier: DRM format modifier; LINEAR is 0, and INVALID
     * (0x00ffffffffffffff) leaves it to the driver.
     */
    uint64_t modifier;
    /**
     * @width: Width in pixels.
     */
    uint32_t width;
    /**
     * @height: Height in pixels.
     */
    uint32_t height;
    /**
     * @fourcc: DRM format.
     */
    uint32_t fourcc;
    /**
     * @num_planes: How many planes there are, 1 to 4.
     */
    uint32_t num_planes;
    /**
     * @fd: The dma-buf of each plane; a negative one stands for that of the
     * first plane. They stay the caller's.
     */
    int fd[4];
    /**
     * @offset: Where each plane begins in its dma-buf, in bytes.
     */
    uint32_t offset[4];
    /**
     * @stride: Stride of each plane in bytes.
     */
    uint32_t stride[4];
    /**
     * @color_space: An enum VfioDpyEglColorSpace, for YUV formats.
     */
    uint32_t color_space;
    /**
     * @full_range: Whether YUV formats use all values of a byte.
     */
    bool full_range;
} VfioDpyEglBuffer;

/**
 * struct VfioDpyEglPixels - Memory that a picture is copied to, in XRGB8888.
 */
typedef struct VfioDpyEglPixels {
    /**
     * @data: The first row.
     */
    uint8_t *data;
    /**
     * @stride: Stride in bytes.
     */
    size_t stride;
    /**
     * @width: Width in pixels.
     */
    uint32_t width;
    /**
     * @height: Height in pixels.
     */
    uint32_t height;
    /**
     * @first_changed_row: Set by vfio_dpy_egl_read_back_take(): the first row
     * that changed.
     */
    uint32_t first_changed_row;
    /**
     * @changed_rows: Set by vfio_dpy_egl_read_back_take(): how many rows there
     * are from that one to the last that changed; 0: none.
     */
    uint32_t changed_rows;
} VfioDpyEglPixels;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * vfio_dpy_egl_imports() - Returns whether a display imports dma-bufs at all.
 * @display: An EGLDisplay, initialised and never terminated, or EGL_NO_DISPLAY.
 *
 * Context: Any thread.
 * Return: Whether it does.
 */
bool vfio_dpy_egl_imports(void *display);

/**
 * vfio_dpy_egl_can_import() - Checks whether a display can import a picture, as
 * far as that is known beforehand.
 * @display: An EGLDisplay, initialised and never terminated, or EGL_NO_DISPLAY.
 * @buffer: The picture; its descriptors are open.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL. The message is NULL if the same one was given for this display before.
 *
 * What the display supports is queried once.
 *
 * Context: Any thread; no context of EGL is needed.
 * Return: Whether it can.
 */
bool vfio_dpy_egl_can_import(void *display,
                             const struct VfioDpyEglBuffer *buffer,
                             char **error);

/**
 * vfio_dpy_egl_read() - Copies a linear picture in ARGB8888 or XRGB8888, for
 * those who do not draw it with OpenGL.
 * @buffer: The picture; its descriptors are open.
 * @pixels: Where to put its pixels in ARGB8888, without padding.
 *
 * Context: Any thread.
 * Return: False if the CPU cannot read them.
 */
bool vfio_dpy_egl_read(const struct VfioDpyEglBuffer *buffer,
                       uint32_t *pixels);

/**
 * vfio_dpy_egl_import_new() - Makes a texture of a picture.
 * @display: An EGLDisplay, initialised and never terminated, or EGL_NO_DISPLAY.
 * @buffer: The picture; its descriptors are open, and may be closed afterwards.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL. The message is NULL if the same one was given for this display before.
 *
 * Nothing is left in the error queues of GL and EGL.
 *
 * Context: A context of the display is current.
 * Return: The import, to be freed with vfio_dpy_egl_import_free(), or NULL on
 * failure.
 */
struct VfioDpyEglImport *vfio_dpy_egl_import_new(void *display,
                                                 const struct VfioDpyEglBuffer *buffer,
                                                 char **error);

/**
 * vfio_dpy_egl_import_texture() - Returns the name of an import's texture.
 * @import: The import.
 *
 * Context: Any.
 * Return: The name of a GL_TEXTURE_2D whose first row is at coordinate 0.
 */
uint32_t vfio_dpy_egl_import_texture(const struct VfioDpyEglImport *import);

/**
 * vfio_dpy_egl_import_is_current() - Returns whether the current context has an
 * import's texture.
 * @import: The import.
 *
 * Context: A context of EGL, or none, is current.
 * Return: Whether it has. If not, free the import, and make another one.
 */
bool vfio_dpy_egl_import_is_current(const struct VfioDpyEglImport *import);

/**
 * vfio_dpy_egl_import_begin() - Prepares an import's texture for drawing; call
 * it before each draw.
 * @import: The import.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL. The message is NULL if the same one was given for this display before.
 *
 * Converts pictures that cannot be textures as they are. If that fails, *@error
 * says why, and the texture shows what it showed before.
 *
 * Context: A context of the display is current.
 * Return: False if the current context does not have the texture: free the
 * import, and make another one.
 */
bool vfio_dpy_egl_import_begin(struct VfioDpyEglImport *import,
                               char **error);

/**
 * vfio_dpy_egl_import_end() - Reports that an import's texture was drawn; call
 * it before glFlush().
 * @import: The import.
 *
 * vfio_dpy_egl_import_take_fence() then says when the GPU is done.
 *
 * Context: The context in which it was drawn is current.
 */
void vfio_dpy_egl_import_end(struct VfioDpyEglImport *import);

/**
 * vfio_dpy_egl_import_take_fence() - Takes the fence of
 * vfio_dpy_egl_import_end(); call it after glFlush().
 * @import: The import.
 *
 * Context: The context in which it was drawn is current.
 * Return: A descriptor (a sync_file) that is readable when the GPU is done, for
 * the caller to close; -1 if the display has no native fences.
 */
int vfio_dpy_egl_import_take_fence(struct VfioDpyEglImport *import);

/**
 * vfio_dpy_egl_import_free() - Frees an import.
 * @import: The import; NULL is fine.
 *
 * Its texture is deleted in the context that has it, from the GLib default main
 * context if that is current on another thread.
 *
 * Context: Whichever context of EGL is current, or none.
 */
void vfio_dpy_egl_import_free(struct VfioDpyEglImport *import);

/**
 * vfio_dpy_egl_describe() - Returns what was imported and refused, for each
 * display, as a few lines of text.
 *
 * Context: Any thread.
 * Return: The text, empty or ending with a line feed, to be freed with
 * g_free().
 */
char *vfio_dpy_egl_describe(void);

/**
 * vfio_dpy_egl_read_back_new() - Creates a read-back context.
 * @display: An EGLDisplay, initialised and never terminated, or EGL_NO_DISPLAY.
 * @ready: Called from the GLib default main context when it is time for
 * vfio_dpy_egl_read_back_take().
 * @opaque: Passed to @ready.
 *
 * Return: The context, to be freed with vfio_dpy_egl_read_back_free(); NULL if
 * there is no EGL display.
 */
struct VfioDpyEglReadBack *vfio_dpy_egl_read_back_new(void *display,
                                                      void (*ready)(void *opaque),
                                                      void *opaque);

/**
 * vfio_dpy_egl_read_back_target() - Returns a texture to draw the next picture
 * to.
 * @read_back: The read-back context.
 * @width: Width of the picture, in pixels.
 * @height: Height of the picture, in pixels.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL. The message is NULL if the same one was given for the display before.
 *
 * Context: A context of the display is current.
 * Return: A GL_TEXTURE_2D of the current context, whose first row is at
 * coordinate 0. It is valid until the next call of a function of the read-back
 * context. 0 if this cannot be done without waiting for the GPU: *@error says
 * why, or the context has neither OpenGL 3.3 nor OpenGL ES 3.0 with what is
 * needed.
 */
uint32_t vfio_dpy_egl_read_back_target(struct VfioDpyEglReadBack *read_back,
                                       uint32_t width,
                                       uint32_t height,
                                       char **error);

/**
 * vfio_dpy_egl_read_back_start() - Reads back what was drawn to
 * vfio_dpy_egl_read_back_target().
 * @read_back: The read-back context.
 * @anew: Whether the picture has certainly changed. If not, the GPU compares it
 * first.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL. The message is NULL if the same one was given for the display before.
 *
 * If another read is pending, this one follows it.
 *
 * Context: The same context is current.
 * Return: False on failure: the texture is gone.
 */
bool vfio_dpy_egl_read_back_start(struct VfioDpyEglReadBack *read_back,
                                  bool anew,
                                  char **error);

/**
 * vfio_dpy_egl_read_back_take() - Copies the picture that was read last, where
 * it differs, if it has arrived.
 * @read_back: The read-back context.
 * @wait: Whether to wait for all that was drawn.
 * @pixels: Where to put it. If the sizes differ, nothing is copied. Nobody else
 * uses the memory meanwhile.
 * @error: Where to put a message on failure, to be freed with g_free(); may be
 * NULL. The message is NULL if the same one was given for the display before.
 *
 * Context: Whichever context of EGL is current, or none.
 * Return: False on failure: the last picture will not arrive; draw it again.
 */
bool vfio_dpy_egl_read_back_take(struct VfioDpyEglReadBack *read_back,
                                 bool wait,
                                 struct VfioDpyEglPixels *pixels,
                                 char **error);

/**
 * vfio_dpy_egl_read_back_forget() - Reports that the host's memory no longer
 * holds what was read last: it was replaced, or shows something else.
 * @read_back: The read-back context.
 *
 * Pending reads are not copied.
 *
 * Context: Whichever context of EGL is current, or none.
 */
void vfio_dpy_egl_read_back_forget(struct VfioDpyEglReadBack *read_back);

/**
 * vfio_dpy_egl_read_back_free() - Frees a read-back context, and its textures.
 * @read_back: The read-back context; NULL is fine.
 *
 * Context: Whichever context of EGL is current, or none.
 */
void vfio_dpy_egl_read_back_free(struct VfioDpyEglReadBack *read_back);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* VFIO_DISPLAY_EGL_H */
