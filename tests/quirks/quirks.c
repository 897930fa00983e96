/*
 * An EGL vendor library for libglvnd: Mesa's, with the quirk of another driver that EGL_QUIRK names. See README.md.
 */
#define _GNU_SOURCE
#define EGL_EGLEXT_PROTOTYPES
#define GL_GLEXT_PROTOTYPES
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GLES3/gl3.h>
#include <GLES2/gl2ext.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <glvnd/libeglabi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { NONE, EXTERNAL, REFUSE_IMAGE, PITCH256, NO_IMAGE_TARGET, IMAGE_STORAGE, NO_MODIFIERS, BAD_MODIFIER_QUERY,
       NATIVE_FENCES, LOST_CONTEXT, X11_IMPORT, GPU_ONLY, QUIRKS };

static const char *const names[QUIRKS] = {
    "none", "external", "refuse-image", "pitch256", "no-image-target", "image-storage", "no-modifiers", "bad-modifier-query",
    "native-fences", "lost-context", "x11-import", "gpu-only",
};

/* so often a context without a config is made current before it is lost */
enum { LIFETIME = 9 };
/* a GPU takes its time until a fence fires */
enum { FENCE_NS = 3 * 1000 * 1000 };
enum { MOST = 4096 };

static int quirk;
static __EGLapiImports mesa;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static __thread GLenum gl_error;
static __thread EGLint egl_error = EGL_SUCCESS;

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = (__typeof__(&name))mesa.getProcAddress(#name); real; })

static void die(const char *what)
{
    fprintf(stderr, "quirks: %s\n", what);
    abort();
}

/* --- what there is: the objects that are made of, and for, dma-bufs --------------------------------------------- */

/* a dma-buf that is shown by copies of it */
struct copied {
    void *map;
    size_t size, offset;
    int width, height, stride;
    GLuint texture;
    int users;
};

struct object {
    void *handle;
    /* contexts that share their textures */
    int group;
    GLuint name;
    int fd, uses;
    int is_dma_buf;
    struct copied *copied;
};

struct set {
    struct object of[MOST];
    int count;
};

enum { IMAGES, TEXTURES, SYNCS, CONTEXTS, SETS, ALL_CONTEXTS = SETS };
static struct set sets[SETS + 1];
static int groups;
static volatile int *told;

static void tell(void)
{
    for (int i = 0; told && i < SETS; i++) {
        told[i] = sets[i].count;
    }
}

static struct object *add(int set, void *handle)
{
    struct set *objects = &sets[set];

    if (objects->count == MOST) {
        die("there are too many objects");
    }
    struct object *object = &objects->of[objects->count++];
    *object = (struct object){ .handle = handle, .fd = -1 };
    tell();
    return object;
}

static struct object *find(int set, void *handle, int group, GLuint name)
{
    for (int i = 0; i < sets[set].count; i++) {
        struct object *object = &sets[set].of[i];
        if (object->handle == handle && object->group == group && object->name == name) {
            return object;
        }
    }
    return NULL;
}

static void discard(int set, struct object *object)
{
    if (object->fd >= 0) {
        close(object->fd);
    }
    if (object->copied) {
        object->copied->users--;
    }
    *object = sets[set].of[--sets[set].count];
    tell();
}

/* What the caller destroys. */
static void forget(int set, void *handle)
{
    pthread_mutex_lock(&mutex);
    struct object *object = find(set, handle, 0, 0);
    if (object) {
        discard(set, object);
    }
    pthread_mutex_unlock(&mutex);
}

static int group_of(EGLContext context)
{
    for (int i = 0; i < sets[ALL_CONTEXTS].count; i++) {
        if (sets[ALL_CONTEXTS].of[i].handle == context) {
            return sets[ALL_CONTEXTS].of[i].group;
        }
    }
    return 0;
}

static void discard_group(int set, int group, void *handle)
{
    for (int i = sets[set].count - 1; i >= 0; i--) {
        struct object *object = &sets[set].of[i];
        if (object->group == group && object->handle == handle) {
            discard(set, object);
        }
    }
}

static int has_group(int set, int group)
{
    for (int i = 0; i < sets[set].count; i++) {
        if (sets[set].of[i].group == group) {
            return 1;
        }
    }
    return 0;
}

/* --- EGL --------------------------------------------------------------------------------------------------------- */

static const char *without(const char *list, const char *name)
{
    size_t length = strlen(name);
    char *copy = strdup(list);

    for (char *at = copy; (at = strstr(at, name)); at += length) {
        if ((at == copy || at[-1] == ' ') && (at[length] == ' ' || !at[length])) {
            memset(at, ' ', length);
        }
    }
    return copy;
}

static const char *with(const char *list, const char *name)
{
    char *text;

    if (asprintf(&text, "%s %s ", list, name) < 0) {
        die("there is no memory");
    }
    return text;
}

static const char *query_string(EGLDisplay display, EGLint name)
{
    static const char *known, *ours;
    const char *text = REAL(eglQueryString)(display, name);

    if (!text || name != EGL_EXTENSIONS || display == EGL_NO_DISPLAY) {
        return text;
    }
    pthread_mutex_lock(&mutex);
    if (!known || strcmp(known, text)) {
        known = strdup(text);
        ours = known;
        switch (quirk) {
        case NO_MODIFIERS:
            ours = without(known, "EGL_EXT_image_dma_buf_import_modifiers");
            break;
        case NATIVE_FENCES:
            ours = with(known, "EGL_ANDROID_native_fence_sync");
            break;
        case X11_IMPORT:
            ours = with(known, "EGL_EXT_image_dma_buf_import EGL_EXT_image_dma_buf_import_modifiers");
            break;
        }
    }
    pthread_mutex_unlock(&mutex);
    return ours;
}

static const char *query_device_string(EGLDeviceEXT device, EGLint name)
{
    static const char *known, *ours;
    const char *text = REAL(eglQueryDeviceStringEXT)(device, name);

    if (quirk != GPU_ONLY || name != EGL_EXTENSIONS || !text) {
        return text;
    }
    pthread_mutex_lock(&mutex);
    if (!known || strcmp(known, text)) {
        known = strdup(text);
        ours = without(known, "EGL_MESA_device_software");
    }
    pthread_mutex_unlock(&mutex);
    return ours;
}

static EGLint get_error(void)
{
    EGLint error = egl_error;

    egl_error = EGL_SUCCESS;
    return error != EGL_SUCCESS ? error : REAL(eglGetError)();
}

static EGLint attribute(const EGLint *list, EGLint name)
{
    for (; list && list[0] != EGL_NONE; list += 2) {
        if (list[0] == name) {
            return list[1];
        }
    }
    return -1;
}

static EGLContext copier;

/* runs with a context of our own */
#define ASIDE(display, body) do { \
        EGLDisplay was_display = REAL(eglGetCurrentDisplay)(); \
        EGLContext was = REAL(eglGetCurrentContext)(); \
        EGLSurface draw = REAL(eglGetCurrentSurface)(EGL_DRAW), read = REAL(eglGetCurrentSurface)(EGL_READ); \
        if (!REAL(eglMakeCurrent)(display, EGL_NO_SURFACE, EGL_NO_SURFACE, copier)) { \
            die("the copier's context cannot be used"); \
        } \
        body; \
        REAL(eglMakeCurrent)(was ? was_display : display, draw, read, was); \
    } while (0)

static void copy(struct copied *copied)
{
    REAL(glBindTexture)(GL_TEXTURE_2D, copied->texture);
    REAL(glPixelStorei)(GL_UNPACK_ROW_LENGTH, copied->stride / 4);
    REAL(glTexSubImage2D)(GL_TEXTURE_2D, 0, 0, 0, copied->width, copied->height, GL_BGRA_EXT, GL_UNSIGNED_BYTE,
                          (char *)copied->map + copied->offset);
    REAL(glFinish)();
}

static EGLImageKHR copy_of(EGLDisplay display, const EGLint *attributes)
{
    struct copied *copied = calloc(1, sizeof(*copied));
    int fd = attribute(attributes, EGL_DMA_BUF_PLANE0_FD_EXT);
    EGLImageKHR image = EGL_NO_IMAGE_KHR;

    copied->width = attribute(attributes, EGL_WIDTH);
    copied->height = attribute(attributes, EGL_HEIGHT);
    copied->stride = attribute(attributes, EGL_DMA_BUF_PLANE0_PITCH_EXT);
    copied->offset = attribute(attributes, EGL_DMA_BUF_PLANE0_OFFSET_EXT);
    copied->size = lseek(fd, 0, SEEK_END);
    copied->map = mmap(NULL, copied->size, PROT_READ, MAP_SHARED, fd, 0);
    if (copied->map == MAP_FAILED) {
        free(copied);
        egl_error = EGL_BAD_ALLOC;
        return EGL_NO_IMAGE_KHR;
    }
    if (!copier) {
        const EGLint version[] = { EGL_CONTEXT_CLIENT_VERSION, 3, EGL_NONE };
        EGLenum api = REAL(eglQueryAPI)();

        REAL(eglBindAPI)(EGL_OPENGL_ES_API);
        copier = REAL(eglCreateContext)(display, NULL, EGL_NO_CONTEXT, version);
        REAL(eglBindAPI)(api);
    }
    ASIDE(display, {
        REAL(glGenTextures)(1, &copied->texture);
        REAL(glBindTexture)(GL_TEXTURE_2D, copied->texture);
        REAL(glTexImage2D)(GL_TEXTURE_2D, 0, GL_BGRA_EXT, copied->width, copied->height, 0, GL_BGRA_EXT, GL_UNSIGNED_BYTE,
                           NULL);
        REAL(glTexParameteri)(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
        copy(copied);
        image = REAL(eglCreateImageKHR)(display, copier, EGL_GL_TEXTURE_2D_KHR,
                                        (EGLClientBuffer)(uintptr_t)copied->texture, NULL);
    });
    if (!image) {
        die("there is no image of a texture");
    }
    struct object *object = add(IMAGES, image);
    object->is_dma_buf = 1;
    object->copied = copied;
    copied->users = 1;
    return image;
}

/* what was drawn into dma-bufs is in their textures, as it is where these share their memory */
static void copy_all(void)
{
    EGLDisplay display = REAL(eglGetCurrentDisplay)();
    int any = 0;

    pthread_mutex_lock(&mutex);
    for (int i = 0; i < sets[TEXTURES].count; i++) {
        any |= sets[TEXTURES].of[i].copied != NULL;
    }
    if (any) {
        ASIDE(display, {
            for (int i = 0; i < sets[TEXTURES].count; i++) {
                if (sets[TEXTURES].of[i].copied) {
                    copy(sets[TEXTURES].of[i].copied);
                }
            }
        });
    }
    pthread_mutex_unlock(&mutex);
}

/* a GPU reaches memory that its descriptor does not let the CPU map */
static EGLImageKHR image_of_any_memory(EGLDisplay display, EGLContext context, EGLenum target, EGLClientBuffer buffer,
                                       const EGLint *attributes)
{
    EGLint list[128];
    EGLImageKHR image;
    size_t count = 0;
    char path[32];
    int fd;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", attribute(attributes, EGL_DMA_BUF_PLANE0_FD_EXT));
    fd = open(path, O_RDWR | O_CLOEXEC);
    for (; attributes[count] != EGL_NONE; count += 2) {
        if (count + 3 > sizeof(list) / sizeof(list[0])) {
            die("there are too many attributes");
        }
        list[count] = attributes[count];
        list[count + 1] = attributes[count] == EGL_DMA_BUF_PLANE0_FD_EXT ? fd : attributes[count + 1];
    }
    list[count] = EGL_NONE;
    image = REAL(eglCreateImageKHR)(display, context, target, buffer, list);
    if (fd >= 0) {
        close(fd);
    }
    return image;
}

static EGLImageKHR create_image(EGLDisplay display, EGLContext context, EGLenum target, EGLClientBuffer buffer,
                                const EGLint *attributes)
{
    int is_dma_buf = target == EGL_LINUX_DMA_BUF_EXT;
    EGLImageKHR image;

    if (is_dma_buf) {
        int pitch = attribute(attributes, EGL_DMA_BUF_PLANE0_PITCH_EXT);

        if (quirk == REFUSE_IMAGE || (quirk == PITCH256 && pitch % 256)) {
            egl_error = EGL_BAD_ALLOC;
            return EGL_NO_IMAGE_KHR;
        }
        if (quirk == NO_MODIFIERS && attribute(attributes, EGL_DMA_BUF_PLANE0_MODIFIER_LO_EXT) != -1) {
            egl_error = EGL_BAD_ATTRIBUTE;
            return EGL_NO_IMAGE_KHR;
        }
    }
    pthread_mutex_lock(&mutex);
    if (is_dma_buf && quirk == X11_IMPORT) {
        image = copy_of(display, attributes);
    } else {
        image = is_dma_buf && quirk == GPU_ONLY ? image_of_any_memory(display, context, target, buffer, attributes)
                                                : REAL(eglCreateImageKHR)(display, context, target, buffer, attributes);
        if (image) {
            add(IMAGES, image)->is_dma_buf = is_dma_buf;
        }
    }
    pthread_mutex_unlock(&mutex);
    return image;
}

static EGLBoolean destroy_image(EGLDisplay display, EGLImageKHR image)
{
    forget(IMAGES, image);
    return REAL(eglDestroyImageKHR)(display, image);
}

static EGLBoolean query_formats(EGLDisplay display, EGLint room, EGLint *formats, EGLint *count)
{
    const EGLint xrgb = 0x34325258, argb = 0x34325241;

    if (quirk != X11_IMPORT) {
        return REAL(eglQueryDmaBufFormatsEXT)(display, room, formats, count);
    }
    *count = 2;
    if (room >= 2) {
        formats[0] = xrgb;
        formats[1] = argb;
    }
    return EGL_TRUE;
}

static EGLBoolean query_modifiers(EGLDisplay display, EGLint format, EGLint room, EGLuint64KHR *modifiers,
                                  EGLBoolean *external, EGLint *count)
{
    const EGLint r8 = 0x20203852;

    if (quirk == BAD_MODIFIER_QUERY && format == r8) {
        egl_error = EGL_BAD_PARAMETER;
        return EGL_FALSE;
    }
    if (quirk != X11_IMPORT) {
        return REAL(eglQueryDmaBufModifiersEXT)(display, format, room, modifiers, external, count);
    }
    *count = 1;
    if (room >= 1) {
        modifiers[0] = 0;
        external[0] = EGL_FALSE;
    }
    return EGL_TRUE;
}

static EGLContext create_context(EGLDisplay display, EGLConfig config, EGLContext share, const EGLint *attributes)
{
    EGLContext context = REAL(eglCreateContext)(display, config, share, attributes);

    if (context) {
        pthread_mutex_lock(&mutex);
        /* the library's own are those without a config */
        if (!config) {
            add(CONTEXTS, context);
        }
        int group = share ? group_of(share) : ++groups;
        add(ALL_CONTEXTS, context)->group = group;
        pthread_mutex_unlock(&mutex);
    }
    return context;
}

static EGLBoolean destroy_context(EGLDisplay display, EGLContext context)
{
    pthread_mutex_lock(&mutex);
    struct object *object = find(CONTEXTS, context, 0, 0);
    if (object) {
        discard(CONTEXTS, object);
    }
    int group = group_of(context);
    discard_group(ALL_CONTEXTS, group, context);
    if (!has_group(ALL_CONTEXTS, group)) {
        discard_group(TEXTURES, group, NULL);
    }
    pthread_mutex_unlock(&mutex);
    return REAL(eglDestroyContext)(display, context);
}

static EGLBoolean make_current(EGLDisplay display, EGLSurface draw, EGLSurface read, EGLContext context)
{
    if (quirk == LOST_CONTEXT) {
        pthread_mutex_lock(&mutex);
        struct object *object = find(CONTEXTS, context, 0, 0);
        int lost = object && ++object->uses > LIFETIME;
        pthread_mutex_unlock(&mutex);
        if (lost) {
            egl_error = EGL_CONTEXT_LOST;
            return EGL_FALSE;
        }
    }
    return REAL(eglMakeCurrent)(display, draw, read, context);
}

static EGLSyncKHR create_sync(EGLDisplay display, EGLenum type, const EGLint *attributes)
{
    int is_native = quirk == NATIVE_FENCES && type == EGL_SYNC_NATIVE_FENCE_ANDROID;
    int fd = attribute(attributes, EGL_SYNC_NATIVE_FENCE_FD_ANDROID);
    EGLSyncKHR sync = REAL(eglCreateSyncKHR)(display, is_native ? EGL_SYNC_FENCE_KHR : type, is_native ? NULL : attributes);

    if (sync) {
        pthread_mutex_lock(&mutex);
        add(SYNCS, sync)->fd = fd;
        pthread_mutex_unlock(&mutex);
    }
    return sync;
}

static EGLBoolean destroy_sync(EGLDisplay display, EGLSyncKHR sync)
{
    forget(SYNCS, sync);
    return REAL(eglDestroySyncKHR)(display, sync);
}

static EGLint dup_fence(EGLDisplay display, EGLSyncKHR sync)
{
    const struct itimerspec soon = { .it_value.tv_nsec = FENCE_NS };
    int fd;

    if (quirk != NATIVE_FENCES) {
        return REAL(eglDupNativeFenceFDANDROID)(display, sync);
    }
    REAL(eglClientWaitSyncKHR)(display, sync, EGL_SYNC_FLUSH_COMMANDS_BIT_KHR, EGL_FOREVER_KHR);
    if (getenv("EGL_QUIRK_FENCES")) {
        return open(getenv("EGL_QUIRK_FENCES"), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    }
    fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    timerfd_settime(fd, 0, &soon, NULL);
    return fd;
}

/* --- GL ---------------------------------------------------------------------------------------------------------- */

static GLenum gl_get_error(void)
{
    GLenum error = gl_error;

    gl_error = GL_NO_ERROR;
    return error != GL_NO_ERROR ? error : REAL(glGetError)();
}

static const GLubyte *gl_get_string(GLenum name)
{
    return quirk == GPU_ONLY && name == GL_RENDERER ? (const GLubyte *)"a GPU of the tests'" : REAL(glGetString)(name);
}

static int is_hidden(const char *extension)
{
    const char *version = (const char *)REAL(glGetString)(GL_VERSION);
    int is_gl = version && !strstr(version, "OpenGL ES");

    switch (quirk) {
    case NO_IMAGE_TARGET:
        return !strcmp(extension, "GL_OES_EGL_image") || !strcmp(extension, "GL_EXT_EGL_image_storage");
    case IMAGE_STORAGE:
        return is_gl && !strcmp(extension, "GL_OES_EGL_image");
    }
    return 0;
}

static const GLubyte *gl_get_string_i(GLenum name, GLuint index)
{
    const GLubyte *text = REAL(glGetStringi)(name, index);

    return name == GL_EXTENSIONS && text && is_hidden((const char *)text) ? (const GLubyte *)"GL_QUIRKS_hidden" : text;
}

/* returns whether the driver takes the image */
static int takes(GLenum target, GLeglImageOES image)
{
    pthread_mutex_lock(&mutex);
    struct object *object = find(IMAGES, image, 0, 0);
    int is_dma_buf = object && object->is_dma_buf;
    pthread_mutex_unlock(&mutex);
    if ((quirk == EXTERNAL || quirk == LOST_CONTEXT) && target == GL_TEXTURE_2D && is_dma_buf) {
        gl_error = GL_INVALID_OPERATION;
        return 0;
    }
    return 1;
}

static void note_texture(GLenum target, GLeglImageOES image)
{
    GLint name = 0;

    REAL(glGetIntegerv)(target == GL_TEXTURE_2D ? GL_TEXTURE_BINDING_2D : GL_TEXTURE_BINDING_EXTERNAL_OES, &name);
    pthread_mutex_lock(&mutex);
    struct object *from = find(IMAGES, image, 0, 0);
    struct copied *copied = from ? from->copied : NULL;
    struct object *object = add(TEXTURES, NULL);
    object->group = group_of(REAL(eglGetCurrentContext)());
    object->name = name;
    object->copied = copied;
    if (copied) {
        copied->users++;
    }
    pthread_mutex_unlock(&mutex);
}

static void texture_from_image(GLenum target, GLeglImageOES image)
{
    if (takes(target, image)) {
        REAL(glEGLImageTargetTexture2DOES)(target, image);
        note_texture(target, image);
    }
}

static void storage_from_image(GLenum target, GLeglImageOES image, const GLint *attributes)
{
    if (takes(target, image)) {
        REAL(glEGLImageTargetTexStorageEXT)(target, image, attributes);
        note_texture(target, image);
    }
}

static void delete_textures(GLsizei count, const GLuint *textures)
{
    pthread_mutex_lock(&mutex);
    int group = group_of(REAL(eglGetCurrentContext)());
    for (int i = 0; i < count; i++) {
        struct object *object = find(TEXTURES, NULL, group, textures[i]);
        if (object) {
            discard(TEXTURES, object);
        }
    }
    pthread_mutex_unlock(&mutex);
    REAL(glDeleteTextures)(count, textures);
}

static void draw_arrays(GLenum mode, GLint first, GLsizei count)
{
    copy_all();
    REAL(glDrawArrays)(mode, first, count);
}

static void blit_framebuffer(GLint x1, GLint y1, GLint x2, GLint y2, GLint to_x1, GLint to_y1, GLint to_x2, GLint to_y2,
                             GLbitfield mask, GLenum filter)
{
    copy_all();
    REAL(glBlitFramebuffer)(x1, y1, x2, y2, to_x1, to_y1, to_x2, to_y2, mask, filter);
}

/* --- libglvnd ---------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void *function;
} ours[] = {
    { "eglQueryString", query_string },
    { "eglQueryDeviceStringEXT", query_device_string },
    { "eglGetError", get_error },
    { "eglCreateImageKHR", create_image },
    { "eglDestroyImageKHR", destroy_image },
    { "eglQueryDmaBufFormatsEXT", query_formats },
    { "eglQueryDmaBufModifiersEXT", query_modifiers },
    { "eglCreateContext", create_context },
    { "eglDestroyContext", destroy_context },
    { "eglMakeCurrent", make_current },
    { "eglCreateSyncKHR", create_sync },
    { "eglDestroySyncKHR", destroy_sync },
    { "eglDupNativeFenceFDANDROID", dup_fence },
    { "glGetError", gl_get_error },
    { "glGetString", gl_get_string },
    { "glGetStringi", gl_get_string_i },
    { "glEGLImageTargetTexture2DOES", texture_from_image },
    { "glEGLImageTargetTexStorageEXT", storage_from_image },
    { "glDeleteTextures", delete_textures },
    { "glDrawArrays", draw_arrays },
    { "glBlitFramebuffer", blit_framebuffer },
};

static void *get_proc_address(const char *name)
{
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        if (!strcmp(name, ours[i].name)) {
            return ours[i].function;
        }
    }
    return mesa.getProcAddress(name);
}

EGLBoolean __egl_Main(uint32_t version, const __EGLapiExports *exports, __EGLvendorInfo *vendor, __EGLapiImports *imports);

__attribute__((visibility("default")))
EGLBoolean __egl_Main(uint32_t version, const __EGLapiExports *exports, __EGLvendorInfo *vendor, __EGLapiImports *imports)
{
    const char *wanted = getenv("EGL_QUIRK"), *objects = getenv("EGL_QUIRK_OBJECTS");
    void *library = dlopen("libEGL_mesa.so.0", RTLD_NOW | RTLD_LOCAL);
    __typeof__(&__egl_Main) begin = library ? (__typeof__(&__egl_Main))dlsym(library, "__egl_Main") : NULL;

    for (quirk = NONE; quirk < QUIRKS && (!wanted || strcmp(wanted, names[quirk])); quirk++) {
    }
    if (quirk == QUIRKS) {
        die("EGL_QUIRK names no quirk");
    }
    if (objects) {
        int fd = open(objects, O_RDWR | O_CLOEXEC);
        void *map = mmap(NULL, sizeof(int) * SETS, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

        if (map == MAP_FAILED) {
            die("EGL_QUIRK_OBJECTS names no file with room");
        }
        close(fd);
        told = map;
    }
    if (!begin || !begin(version, exports, vendor, imports)) {
        return EGL_FALSE;
    }
    mesa = *imports;
    imports->getProcAddress = get_proc_address;
    return EGL_TRUE;
}
