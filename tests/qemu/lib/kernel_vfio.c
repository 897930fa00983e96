/*
 * The kernel's vfio, as far as QEMU sees it, in front of a vGPU in a process: each of its ioctls on the device becomes a
 * message of vfio-user. For a QEMU without a vfio-user client, and for what only devices of the kernel go through.
 *
 * To be preloaded. The device NAME is the socket $KERNEL_VFIO/NAME/socket; any group has it.
 *
 * SPDX-License-Identifier: GPL-2.0-or-later
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef VFIO_DEVICE_QUERY_GFX_PLANE
#error "linux/vfio.h is too old"
#endif

/* As vfio-pci has it: the file's offset says which region, and where in it. */
#define REGION_SHIFT 40
#define REGIONS 32
#define PAYLOAD (1 << 20)
#define FDS 8

enum { VERSION = 1, GET_INFO = 4, GET_REGION_INFO = 5, GET_IRQ_INFO = 7, SET_IRQS = 8, REGION_READ = 9,
       REGION_WRITE = 10, RESET = 13, QUERY_GFX_PLANE = 256, GET_GFX_DMABUF = 257 };

struct header {
    uint16_t id, command;
    uint32_t size, flags, error;
};

struct access {
    uint64_t offset;
    uint32_t region, count;
};

enum kind { CONTAINER, GROUP, DEVICE };

/* A file that is ours. The device's is its connection: the vGPU sees the end when nobody has a descriptor any more. */
struct file {
    enum kind kind;
    int descriptors;
    dev_t dev;
    ino_t ino;
    pthread_mutex_t busy;
    int memory[REGIONS];
    struct file *next;
};

static struct file *files;
static pthread_mutex_t files_busy = PTHREAD_MUTEX_INITIALIZER;

#define NEXT(function) ((__typeof__(&function))dlsym(RTLD_NEXT, #function))

static struct file *find(int fd)
{
    struct file *file;
    struct stat st;

    if (fd < 0 || fstat(fd, &st)) {
        return NULL;
    }
    pthread_mutex_lock(&files_busy);
    for (file = files; file && (file->ino != st.st_ino || file->dev != st.st_dev); file = file->next) {
    }
    pthread_mutex_unlock(&files_busy);
    return file;
}

static int add(enum kind kind, int fd)
{
    struct file *file = calloc(1, sizeof(*file));
    struct stat st;

    if (fd < 0) {
        return fd;
    }
    fstat(fd, &st);
    file->kind = kind;
    file->descriptors = 1;
    file->dev = st.st_dev;
    file->ino = st.st_ino;
    pthread_mutex_init(&file->busy, NULL);
    memset(file->memory, -1, sizeof(file->memory));
    pthread_mutex_lock(&files_busy);
    file->next = files;
    files = file;
    pthread_mutex_unlock(&files_busy);
    return fd;
}

/* One descriptor more, or one less; what is kept for the file goes with the last. */
static void count(struct file *file, int change)
{
    struct file **link = &files;

    pthread_mutex_lock(&files_busy);
    file->descriptors += change;
    if (!file->descriptors) {
        while (*link != file) {
            link = &(*link)->next;
        }
        *link = file->next;
        for (int i = 0; i < REGIONS; i++) {
            if (file->memory[i] >= 0) {
                NEXT(close)(file->memory[i]);
            }
        }
        free(file);
    }
    pthread_mutex_unlock(&files_busy);
}

/* Sends all, and the descriptors with the first byte. */
static bool send_all(int fd, const void *data, size_t size, const int *fds, int num_fds)
{
    while (size) {
        char control[CMSG_SPACE(sizeof(int) * FDS)] = {};
        struct iovec iov = { (void *)data, size };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
        ssize_t sent;

        if (num_fds) {
            struct cmsghdr *cmsg;

            msg.msg_control = control;
            msg.msg_controllen = CMSG_SPACE(sizeof(int) * num_fds);
            cmsg = CMSG_FIRSTHDR(&msg);
            cmsg->cmsg_level = SOL_SOCKET;
            cmsg->cmsg_type = SCM_RIGHTS;
            cmsg->cmsg_len = CMSG_LEN(sizeof(int) * num_fds);
            memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * num_fds);
        }
        sent = sendmsg(fd, &msg, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR) {
            continue;
        }
        if (sent <= 0) {
            return false;
        }
        num_fds = 0;
        data = (const char *)data + sent;
        size -= sent;
    }
    return true;
}

/* Receives all; *got is the first descriptor that came along, and the others are closed. */
static bool receive_all(int fd, void *data, size_t size, int *got)
{
    while (size) {
        char control[CMSG_SPACE(sizeof(int) * FDS)];
        struct iovec iov = { data, size };
        struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
        ssize_t received = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
        struct cmsghdr *cmsg;

        if (received < 0 && errno == EINTR) {
            continue;
        }
        if (received <= 0) {
            return false;
        }
        for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg)) {
            size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            int fds[FDS];

            memcpy(fds, CMSG_DATA(cmsg), count * sizeof(int));
            for (size_t i = 0; i < count; i++) {
                if (*got < 0) {
                    *got = fds[i];
                } else {
                    close(fds[i]);
                }
            }
        }
        data = (char *)data + received;
        size -= received;
    }
    return true;
}

/*
 * Asks, and waits for the answer, of which as much as there is room for is left in `in`. Returns the answer's size, or a
 * negative errno; *fd is what came along, or -1.
 */
static ssize_t ask(struct file *device, int socket, uint16_t command, const void *out, size_t size, const int *fds,
                   int num_fds, void *in, size_t room, int *fd)
{
    static const uint32_t reply = 1, is_error = 0x20;
    struct header header = { .id = 1, .command = command, .size = sizeof(header) + size };
    uint8_t *payload = NULL;
    ssize_t got = -ENODEV;
    int came = -1;

    pthread_mutex_lock(&device->busy);
    if (!send_all(socket, &header, sizeof(header), fds, num_fds) || !send_all(socket, out, size, NULL, 0) ||
        !receive_all(socket, &header, sizeof(header), &came)) {
        goto out;
    }
    got = header.size - sizeof(header);
    if (!(header.flags & reply) || got < 0 || got > PAYLOAD + 64) {
        got = -EPROTO;
        goto out;
    }
    payload = malloc(got + 1);
    if (!receive_all(socket, payload, got, &came)) {
        got = -ENODEV;
    } else if (header.flags & is_error) {
        got = -(int)header.error;
    } else if (room) {
        memcpy(in, payload, got < (ssize_t)room ? (size_t)got : room);
    }
out:
    pthread_mutex_unlock(&device->busy);
    free(payload);
    if (came >= 0 && (!fd || got < 0)) {
        close(came);
        came = -1;
    }
    if (fd) {
        *fd = came;
    }
    return got;
}

static int result(ssize_t got)
{
    if (got < 0) {
        errno = -got;
        return -1;
    }
    return 0;
}

static int open_device(const char *name)
{
    static const char offer[] = "\0\0\0\0{\"capabilities\":{\"gfx_plane\":true}}";
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s/socket", getenv("KERNEL_VFIO"), name);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address))) {
        close(fd);
        errno = ENODEV;
        return -1;
    }
    add(DEVICE, fd);
    if (result(ask(find(fd), fd, VERSION, offer, sizeof(offer), NULL, 0, NULL, 0, NULL))) {
        close(fd);
        return -1;
    }
    return fd;
}

static int region_info(struct file *device, int fd, struct vfio_region_info *info)
{
    uint32_t argsz = info->argsz, index = info->index;
    int memory;
    ssize_t got = ask(device, fd, GET_REGION_INFO, info, sizeof(*info), NULL, 0, info, argsz, &memory);

    if (result(got)) {
        return -1;
    }
    info->offset = (uint64_t)index << REGION_SHIFT;
    if (memory >= 0 && index < REGIONS) {
        pthread_mutex_lock(&device->busy);
        if (device->memory[index] >= 0) {
            close(device->memory[index]);
        }
        device->memory[index] = memory;
        pthread_mutex_unlock(&device->busy);
    } else if (memory >= 0) {
        close(memory);
    }
    return 0;
}

static int set_irqs(struct file *device, int fd, const struct vfio_irq_set *set)
{
    bool gives_events = set->flags & VFIO_IRQ_SET_DATA_EVENTFD;
    int fds[FDS], count = 0;

    for (uint32_t i = 0; gives_events && i < set->count && i < FDS; i++) {
        memcpy(&fds[count], set->data + i * sizeof(int), sizeof(int));
        count += fds[count] >= 0;
    }
    return result(ask(device, fd, SET_IRQS, set, gives_events ? sizeof(*set) : set->argsz, fds, count, NULL, 0, NULL));
}

static int get_dmabuf(struct file *device, int fd, uint32_t id)
{
    uint32_t message[] = { 16, 0, id, 0 };
    int dmabuf;
    ssize_t got = ask(device, fd, GET_GFX_DMABUF, message, sizeof(message), NULL, 0, NULL, 0, &dmabuf);

    if (got >= 0 && dmabuf < 0) {
        got = -EIO;
    }
    return result(got) ? -1 : dmabuf;
}

static int device_ioctl(struct file *device, int fd, unsigned long request, void *arg)
{
    switch (request) {
    case VFIO_DEVICE_GET_INFO: {
        struct vfio_device_info *info = arg;

        return result(ask(device, fd, GET_INFO, info, 16, NULL, 0, info, 16, NULL));
    }
    case VFIO_DEVICE_GET_REGION_INFO:
        return region_info(device, fd, arg);
    case VFIO_DEVICE_GET_IRQ_INFO: {
        struct vfio_irq_info *info = arg;

        return result(ask(device, fd, GET_IRQ_INFO, info, sizeof(*info), NULL, 0, info, info->argsz, NULL));
    }
    case VFIO_DEVICE_SET_IRQS:
        return set_irqs(device, fd, arg);
    case VFIO_DEVICE_RESET:
        return result(ask(device, fd, RESET, NULL, 0, NULL, 0, NULL, 0, NULL));
    case VFIO_DEVICE_QUERY_GFX_PLANE: {
        struct vfio_device_gfx_plane_info *plane = arg;

        return result(ask(device, fd, QUERY_GFX_PLANE, plane, sizeof(*plane), NULL, 0, plane, sizeof(*plane), NULL));
    }
    case VFIO_DEVICE_GET_GFX_DMABUF:
        return get_dmabuf(device, fd, *(uint32_t *)arg);
    default:
        return result(-ENOTTY);
    }
}

static int group_ioctl(unsigned long request, void *arg)
{
    switch (request) {
    case VFIO_GROUP_GET_STATUS:
        ((struct vfio_group_status *)arg)->flags = VFIO_GROUP_FLAGS_VIABLE;
        return 0;
    case VFIO_GROUP_SET_CONTAINER:
    case VFIO_GROUP_UNSET_CONTAINER:
        return 0;
    case VFIO_GROUP_GET_DEVICE_FD:
        return open_device(arg);
    default:
        return result(-ENOTTY);
    }
}

static int container_ioctl(unsigned long request, void *arg)
{
    switch (request) {
    case VFIO_GET_API_VERSION:
        return VFIO_API_VERSION;
    case VFIO_CHECK_EXTENSION:
        return (unsigned long)arg == VFIO_TYPE1v2_IOMMU;
    case VFIO_IOMMU_GET_INFO: {
        struct vfio_iommu_type1_info *info = arg;

        info->flags = VFIO_IOMMU_INFO_PGSIZES;
        info->iova_pgsizes = 4096;
        return 0;
    }
    case VFIO_SET_IOMMU:
    case VFIO_IOMMU_MAP_DMA:
    case VFIO_IOMMU_UNMAP_DMA:
        return 0;
    default:
        return result(-ENOTTY);
    }
}

int ioctl(int fd, unsigned long request, ...)
{
    struct file *file = NULL;
    va_list arguments;
    void *arg;

    va_start(arguments, request);
    arg = va_arg(arguments, void *);
    va_end(arguments);
    if (_IOC_TYPE(request) == VFIO_TYPE) {
        file = find(fd);
    }
    if (!file) {
        return NEXT(ioctl)(fd, request, arg);
    }
    switch (file->kind) {
    case CONTAINER:
        return container_ioctl(request, arg);
    case GROUP:
        return group_ioctl(request, arg);
    default:
        return device_ioctl(file, fd, request, arg);
    }
}

static int open_any(__typeof__(&open) next, const char *path, int flags, mode_t mode)
{
    if (!strcmp(path, "/dev/vfio/vfio")) {
        return add(CONTAINER, memfd_create("vfio-container", MFD_CLOEXEC));
    }
    if (!strncmp(path, "/dev/vfio/", 10)) {
        return add(GROUP, memfd_create("vfio-group", MFD_CLOEXEC));
    }
    return next(path, flags, mode);
}

#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...)                                                                         \
    {                                                                                                                  \
        va_list arguments;                                                                                             \
        mode_t mode = 0;                                                                                               \
                                                                                                                       \
        va_start(arguments, flags);                                                                                    \
        if (flags & (O_CREAT | __O_TMPFILE)) {                                                                         \
            mode = va_arg(arguments, mode_t);                                                                          \
        }                                                                                                              \
        va_end(arguments);                                                                                             \
        return open_any((__typeof__(&open))dlsym(RTLD_NEXT, #name), path, flags, mode);                                \
    }

OPEN(open)
OPEN(open64)

static ssize_t read_device(struct file *device, int fd, void *data, size_t size, off64_t offset)
{
    struct access access = { offset & ((1ull << REGION_SHIFT) - 1), offset >> REGION_SHIFT, size };
    uint8_t *answer = malloc(sizeof(access) + size);
    ssize_t got = ask(device, fd, REGION_READ, &access, sizeof(access), NULL, 0, answer, sizeof(access) + size, NULL);

    if (got >= 0 && got < (ssize_t)sizeof(access)) {
        got = -EPROTO;
    }
    if (got >= 0) {
        got -= sizeof(access);
        memcpy(data, answer + sizeof(access), got < (ssize_t)size ? (size_t)got : size);
    }
    free(answer);
    return result(got) ? -1 : got;
}

static ssize_t write_device(struct file *device, int fd, const void *data, size_t size, off64_t offset)
{
    struct access access = { offset & ((1ull << REGION_SHIFT) - 1), offset >> REGION_SHIFT, size };
    uint8_t *question = malloc(sizeof(access) + size);
    ssize_t got;

    memcpy(question, &access, sizeof(access));
    memcpy(question + sizeof(access), data, size);
    got = ask(device, fd, REGION_WRITE, question, sizeof(access) + size, NULL, 0, NULL, 0, NULL);
    free(question);
    return result(got) ? -1 : (ssize_t)size;
}

ssize_t pread64(int fd, void *data, size_t size, off64_t offset)
{
    struct file *file = find(fd);

    return file ? read_device(file, fd, data, size, offset) : NEXT(pread64)(fd, data, size, offset);
}

ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    return pread64(fd, data, size, offset);
}

/* What fortified code calls. */
ssize_t __pread64_chk(int fd, void *data, size_t size, off64_t offset, size_t room)
{
    if (size > room) {
        abort();
    }
    return pread64(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    struct file *file = find(fd);

    return file ? write_device(file, fd, data, size, offset) : NEXT(pwrite64)(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite64(fd, data, size, offset);
}

void *mmap64(void *address, size_t size, int protection, int flags, int fd, off64_t offset)
{
    struct file *file = flags & MAP_ANONYMOUS ? NULL : find(fd);
    uint64_t region = (uint64_t)offset >> REGION_SHIFT;

    if (file) {
        if (region >= REGIONS || file->memory[region] < 0) {
            errno = EINVAL;
            return MAP_FAILED;
        }
        fd = file->memory[region];
        offset &= (1ull << REGION_SHIFT) - 1;
    }
    return NEXT(mmap64)(address, size, protection, flags, fd, offset);
}

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t offset)
{
    return mmap64(address, size, protection, flags, fd, offset);
}

int close(int fd)
{
    struct file *file = find(fd);

    if (file) {
        count(file, -1);
    }
    return NEXT(close)(fd);
}

static int counted(struct file *file, int fd)
{
    if (file && fd >= 0) {
        count(file, 1);
    }
    return fd;
}

int dup(int fd)
{
    return counted(find(fd), NEXT(dup)(fd));
}

#define FCNTL(name)                                                                                                    \
    int name(int fd, int command, ...)                                                                                 \
    {                                                                                                                  \
        bool duplicates = command == F_DUPFD || command == F_DUPFD_CLOEXEC;                                            \
        va_list arguments;                                                                                             \
        void *arg;                                                                                                     \
                                                                                                                       \
        va_start(arguments, command);                                                                                  \
        arg = va_arg(arguments, void *);                                                                               \
        va_end(arguments);                                                                                             \
        return counted(duplicates ? find(fd) : NULL, NEXT(name)(fd, command, arg));                                    \
    }

FCNTL(fcntl)
FCNTL(fcntl64)
