/* While NO_THREAD names a file, no thread can be created, as where a limit on threads is reached. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
    int (*create)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = dlsym(RTLD_NEXT, "pthread_create");
    const char *limit = getenv("NO_THREAD");

    return limit && access(limit, F_OK) == 0 ? EAGAIN : create(thread, attributes, start, argument);
}
