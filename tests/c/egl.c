/*
 * The C boundary of the EGL import, on Mesa's surfaceless platform: what QEMU's front ends call.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <epoxy/egl.h>
#include <epoxy/gl.h>
#include <glib.h>

#include "check.h"
#include "vfio_display_egl.h"

enum { WIDTH = 16, HEIGHT = 8, STRIDE = WIDTH * 4, SIZE = STRIDE * HEIGHT };
#define XR24 0x34325258u
#define I915_X_TILED 0x0100000000000001ull

static VfioDpyEglBuffer picture(void)
{
    uint32_t pixels[WIDTH * HEIGHT];
    int fd = memfd_create("picture", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int i;

    for (i = 0; i < WIDTH * HEIGHT; i++) {
        pixels[i] = 0x00102030u + i;
    }
    CHECK(fd >= 0);
    CHECK(write(fd, pixels, SIZE) == SIZE);
    CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
    return (VfioDpyEglBuffer) {
        .width = WIDTH,
        .height = HEIGHT,
        .fourcc = XR24,
        .num_planes = 1,
        .fd = { fd, -1, -1, -1 },
        .stride = { STRIDE },
    };
}

static void without_a_display(const VfioDpyEglBuffer *buffer)
{
    char *message = NULL;

    CHECK(!vfio_dpy_egl_can_import(EGL_NO_DISPLAY, buffer, &message));
    CHECK(message && strstr(message, "no EGL display"));
    g_free(message);
    CHECK(!vfio_dpy_egl_can_import(EGL_NO_DISPLAY, buffer, NULL));
    CHECK(!vfio_dpy_egl_import_new(EGL_NO_DISPLAY, buffer, NULL));
    vfio_dpy_egl_import_free(NULL);
    CHECK(!vfio_dpy_egl_imports(EGL_NO_DISPLAY));
    message = vfio_dpy_egl_describe();
    CHECK(!strcmp(message, ""));
    g_free(message);
}

static EGLDisplay make_current(void)
{
    static const EGLint core[] = {
        EGL_CONTEXT_OPENGL_PROFILE_MASK, EGL_CONTEXT_OPENGL_CORE_PROFILE_BIT, EGL_NONE,
    };
    EGLDisplay display = eglGetPlatformDisplayEXT(EGL_PLATFORM_SURFACELESS_MESA,
                                                  EGL_DEFAULT_DISPLAY, NULL);
    EGLContext context;

    CHECK(display != EGL_NO_DISPLAY);
    CHECK(eglInitialize(display, NULL, NULL));
    CHECK(eglBindAPI(EGL_OPENGL_API));
    context = eglCreateContext(display, EGL_NO_CONFIG_KHR, EGL_NO_CONTEXT, core);
    CHECK(context != EGL_NO_CONTEXT);
    CHECK(eglMakeCurrent(display, EGL_NO_SURFACE, EGL_NO_SURFACE, context));
    return display;
}

static void imports(EGLDisplay display, const VfioDpyEglBuffer *buffer)
{
    char *message = "unset";
    VfioDpyEglImport *import;
    unsigned char pixel[4];
    GLuint framebuffer;
    char *status;

    CHECK(vfio_dpy_egl_imports(display));
    CHECK(vfio_dpy_egl_can_import(display, buffer, &message) && !message);
    import = vfio_dpy_egl_import_new(display, buffer, &message);
    CHECK(import && !message);
    CHECK(vfio_dpy_egl_import_begin(import, &message) && !message);

    glGenFramebuffers(1, &framebuffer);
    glBindFramebuffer(GL_FRAMEBUFFER, framebuffer);
    glFramebufferTexture2D(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_TEXTURE_2D,
                           vfio_dpy_egl_import_texture(import), 0);
    glReadPixels(3, 1, 1, 1, GL_RGBA, GL_UNSIGNED_BYTE, pixel);
    CHECK(pixel[0] == 0x10 && pixel[1] == 0x20 && pixel[2] == 0x30 + WIDTH + 3);
    glDeleteFramebuffers(1, &framebuffer);

    vfio_dpy_egl_import_end(import);
    glFlush();
    {
        int fence = vfio_dpy_egl_import_take_fence(import);

        if (fence >= 0) {
            close(fence);
        }
    }
    CHECK(glGetError() == GL_NO_ERROR);

    status = vfio_dpy_egl_describe();
    CHECK(strstr(status, "; 1 dma-bufs are textures now"));
    g_free(status);
    vfio_dpy_egl_import_free(import);
    status = vfio_dpy_egl_describe();
    CHECK(strstr(status, "; 0 dma-bufs are textures now"));
    g_free(status);
}

static void refusals(EGLDisplay display, const VfioDpyEglBuffer *honest)
{
    VfioDpyEglBuffer buffer = *honest;
    char *message;

    buffer.modifier = I915_X_TILED;
    CHECK(!vfio_dpy_egl_can_import(display, &buffer, &message));
    CHECK(message && strstr(message, "XR24 I915_X_TILED, but XR24 with"));
    g_free(message);
    CHECK(!vfio_dpy_egl_import_new(display, &buffer, &message));
    CHECK(!message); /* it was said */

    buffer = *honest;
    buffer.fourcc = 1;
    CHECK(!vfio_dpy_egl_import_new(display, &buffer, &message));
    CHECK(message && strstr(message, "unknown format 0x00000001"));
    g_free(message);

    buffer = *honest;
    buffer.num_planes = 5;
    CHECK(!vfio_dpy_egl_import_new(display, &buffer, &message));
    CHECK(message && strstr(message, "5 planes"));
    g_free(message);

    buffer = *honest;
    buffer.height++;
    CHECK(!vfio_dpy_egl_import_new(display, &buffer, &message));
    CHECK(message && strstr(message, "its dma-buf has"));
    g_free(message);

    buffer = *honest;
    buffer.fd[0] = -1;
    CHECK(!vfio_dpy_egl_import_new(display, &buffer, &message));
    CHECK(message && strstr(message, "there is no dma-buf"));
    g_free(message);
    CHECK(glGetError() == GL_NO_ERROR);

    /* what was said can be read again */
    message = vfio_dpy_egl_describe();
    CHECK(g_str_has_prefix(message, "EGL (software): imports "));
    CHECK(strstr(message, "; 0 dma-bufs are textures now"));
    CHECK(strstr(message, "\n  EGL import: 16x8 XR24 I915_X_TILED: EGL cannot import"));
    g_free(message);
}

static int calls;

static void ready(void *opaque)
{
    CHECK(opaque == &calls);
    calls++;
}

/* draws one colour and waits, as a main loop does, for the pixels */
static void draw_and_take(VfioDpyEglReadBack *read_back, float red, VfioDpyEglPixels *pixels)
{
    char *message;
    GLuint framebuffer;
    GLuint texture = vfio_dpy_egl_read_back_target(read_back, pixels->width, pixels->height,
                                                   &message);

    CHECK(texture && !message);
    glGenFramebuffers(1, &framebuffer);
    glBindFramebuffer(GL_FRAMEBUFFER, framebuffer);
    glFramebufferTexture2D(GL_FRAMEBUFFER, GL_COLOR_ATTACHMENT0, GL_TEXTURE_2D, texture, 0);
    glClearColor(red, 0, 1, 1);
    glClear(GL_COLOR_BUFFER_BIT);
    CHECK(vfio_dpy_egl_read_back_start(read_back, true, &message) && !message);
    glDeleteFramebuffers(1, &framebuffer);
    do {
        calls = 0;
        while (!calls) {
            g_main_context_iteration(NULL, TRUE);
        }
        CHECK(vfio_dpy_egl_read_back_take(read_back, false, pixels, &message));
        CHECK(!message);
    } while (!pixels->changed_rows);
}

static void reads_back(EGLDisplay display)
{
    enum { PADDED = STRIDE + 8 };
    uint8_t memory[PADDED * HEIGHT];
    VfioDpyEglPixels pixels = {
        .data = memory, .stride = PADDED, .width = WIDTH, .height = HEIGHT,
    };
    VfioDpyEglReadBack *read_back;
    char *message;

    CHECK(!vfio_dpy_egl_read_back_new(EGL_NO_DISPLAY, ready, &calls));
    read_back = vfio_dpy_egl_read_back_new(display, ready, &calls);
    CHECK(read_back);
    vfio_dpy_egl_read_back_forget(read_back);

    memset(memory, 0x77, sizeof(memory));
    draw_and_take(read_back, 0, &pixels);
    CHECK(pixels.first_changed_row == 0 && pixels.changed_rows == HEIGHT);
    CHECK(memory[0] == 255 && memory[1] == 0 && memory[2] == 0);
    CHECK(memory[PADDED * HEIGHT - 12] == 255 && memory[STRIDE] == 0x77);

    /* only what differs is told */
    memory[PADDED * 3] = 0;
    memory[PADDED * 5 + 4] = 0;
    draw_and_take(read_back, 0, &pixels);
    CHECK(pixels.first_changed_row == 3 && pixels.changed_rows == 3);

    /* a picture that is waited for, and memory of another size */
    CHECK(vfio_dpy_egl_read_back_target(read_back, WIDTH, HEIGHT, &message));
    CHECK(vfio_dpy_egl_read_back_start(read_back, true, &message));
    vfio_dpy_egl_read_back_take(read_back, true, &pixels, &message);
    CHECK(!message);
    CHECK(vfio_dpy_egl_read_back_start(read_back, true, &message));
    pixels.height--;
    vfio_dpy_egl_read_back_take(read_back, true, &pixels, &message);
    CHECK(!message && !pixels.changed_rows);

    CHECK(!vfio_dpy_egl_read_back_target(read_back, 0, HEIGHT, &message));
    CHECK(message && strstr(message, "EGL read-back: 0x8 is not within"));
    g_free(message);
    CHECK(glGetError() == GL_NO_ERROR);
    vfio_dpy_egl_read_back_free(read_back);
    vfio_dpy_egl_read_back_free(NULL);
    CHECK(!g_main_context_iteration(NULL, FALSE));
    message = vfio_dpy_egl_describe();
    CHECK(strstr(message, "\n  read back: 3 pictures; 0 times there was no new one\n"));
    g_free(message);
}

int main(void)
{
    VfioDpyEglBuffer buffer = picture();
    EGLDisplay display;

    without_a_display(&buffer);
    display = make_current();
    imports(display, &buffer);
    refusals(display, &buffer);
    reads_back(display);
    close(buffer.fd[0]);
    return 0;
}
