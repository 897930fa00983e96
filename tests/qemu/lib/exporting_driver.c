/*
 * Preloaded into QEMU: an OpenGL driver that exports textures as dma-bufs (EGL_MESA_image_dma_buf_export), which Mesa's software
 * renderer does not. What is exported is a file, into which glFlush() copies the texture. With the environment variable EXPORTED_PLANES=2
 * there is a second plane in that file, as GPUs keep what they know of the first one's compression.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#define EGL_EGLEXT_PROTOTYPES
#define GL_GLEXT_PROTOTYPES
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GL/gl.h>
#include <GL/glext.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FOURCC_XR24 0x34325258
#define MAX_EXPORTS 64
#define SECOND_PLANE 4096

static struct export {
    GLuint texture;
    GLint width, height;
    uint8_t *pixels;
} exports[MAX_EXPORTS];

/* Of the last image that was made of one. */
static GLuint texture_of_image;

/* The library's own, past libepoxy, whose functions are variables. */
static void *real(const char *name)
{
    static void *(*get)(const char *);

    if (!get) {
        get = dlsym(dlopen("libEGL.so.1", RTLD_NOW), "eglGetProcAddress");
    }
    return get(name);
}

#define REAL(function) ((__typeof__(&function))real(#function))

static void copy(struct export *export)
{
    GLint read_framebuffer, pack_buffer, row_length;
    GLuint framebuffer;

    REAL(glGetIntegerv)(GL_READ_FRAMEBUFFER_BINDING, &read_framebuffer);
    REAL(glGetIntegerv)(GL_PIXEL_PACK_BUFFER_BINDING, &pack_buffer);
    REAL(glGetIntegerv)(GL_PACK_ROW_LENGTH, &row_length);
    REAL(glGenFramebuffers)(1, &framebuffer);
    REAL(glBindFramebuffer)(GL_READ_FRAMEBUFFER, framebuffer);
    REAL(glFramebufferTexture2D)(GL_READ_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_TEXTURE_2D, export->texture, 0);
    REAL(glBindBuffer)(GL_PIXEL_PACK_BUFFER, 0);
    REAL(glPixelStorei)(GL_PACK_ROW_LENGTH, 0);
    REAL(glReadPixels)(0, 0, export->width, export->height, GL_BGRA, GL_UNSIGNED_BYTE, export->pixels);
    REAL(glPixelStorei)(GL_PACK_ROW_LENGTH, row_length);
    REAL(glBindBuffer)(GL_PIXEL_PACK_BUFFER, pack_buffer);
    REAL(glBindFramebuffer)(GL_READ_FRAMEBUFFER, read_framebuffer);
    REAL(glDeleteFramebuffers)(1, &framebuffer);
}

static void flush(void)
{
    for (struct export *export = exports; export < exports + MAX_EXPORTS; export++) {
        if (export->pixels && !REAL(glIsTexture)(export->texture)) {
            munmap(export->pixels, 4 * export->width * export->height);
            export->pixels = NULL;
        }
        if (export->pixels) {
            copy(export);
        }
    }
    REAL(glFlush)();
}

static EGLImageKHR create_image(EGLDisplay display, EGLContext context, EGLenum target, EGLClientBuffer buffer,
                                const EGLint *attributes)
{
    texture_of_image = target == EGL_GL_TEXTURE_2D_KHR ? (GLuint)(uintptr_t)buffer : 0;
    return REAL(eglCreateImageKHR)(display, context, target, buffer, attributes);
}

static int planes_of_images(void)
{
    const char *planes = getenv("EXPORTED_PLANES");

    return planes && !strcmp(planes, "2") ? 2 : 1;
}

static EGLBoolean query(EGLDisplay display, EGLImageKHR image, int *fourcc, int *planes, EGLuint64KHR *modifiers)
{
    *fourcc = FOURCC_XR24;
    *planes = planes_of_images();
    if (modifiers) {
        *modifiers = 0;
    }
    return EGL_TRUE;
}

static EGLBoolean export_image(EGLDisplay display, EGLImageKHR image, int *fds, EGLint *strides, EGLint *offsets)
{
    struct export *free_slot = NULL, new = { .texture = texture_of_image };
    bool has_second = planes_of_images() == 2;
    GLint bound;

    for (struct export *export = exports; export < exports + MAX_EXPORTS; export++) {
        free_slot = export->pixels ? free_slot : export;
    }
    REAL(glGetIntegerv)(GL_TEXTURE_BINDING_2D, &bound);
    REAL(glBindTexture)(GL_TEXTURE_2D, new.texture);
    REAL(glGetTexLevelParameteriv)(GL_TEXTURE_2D, 0, GL_TEXTURE_WIDTH, &new.width);
    REAL(glGetTexLevelParameteriv)(GL_TEXTURE_2D, 0, GL_TEXTURE_HEIGHT, &new.height);
    REAL(glBindTexture)(GL_TEXTURE_2D, bound);
    if (!free_slot || !new.width || !new.height) {
        return EGL_FALSE;
    }
    fds[0] = memfd_create("export", MFD_CLOEXEC);
    if (fds[0] < 0 || ftruncate(fds[0], 4 * new.width * new.height + has_second * SECOND_PLANE) < 0) {
        return EGL_FALSE;
    }
    new.pixels = mmap(NULL, 4 * new.width * new.height, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0], 0);
    if (new.pixels == MAP_FAILED) {
        return EGL_FALSE;
    }
    strides[0] = 4 * new.width;
    if (offsets) {
        offsets[0] = 0;
    }
    if (has_second) {
        fds[1] = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
        strides[1] = SECOND_PLANE / 32;
        offsets[1] = 4 * new.width * new.height;
    }
    *free_slot = new;
    copy(free_slot);
    return EGL_TRUE;
}

bool epoxy_has_egl_extension(EGLDisplay display, const char *extension)
{
    bool (*has)(EGLDisplay, const char *) = dlsym(RTLD_NEXT, "epoxy_has_egl_extension");

    return !strcmp(extension, "EGL_MESA_image_dma_buf_export") || has(display, extension);
}

__typeof__(&glFlush) epoxy_glFlush = flush;
__typeof__(&eglCreateImageKHR) epoxy_eglCreateImageKHR = create_image;
__typeof__(&eglExportDMABUFImageQueryMESA) epoxy_eglExportDMABUFImageQueryMESA = query;
__typeof__(&eglExportDMABUFImageMESA) epoxy_eglExportDMABUFImageMESA = export_image;
