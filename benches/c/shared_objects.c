/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lookups of shared objects by several threads at once: QEMU's hw/display/virtio-dmabuf.c and the library in one process.
 *
 * The build gives QEMU's functions the prefix stock_. Both implementations take turns, so that whatever else the
 * machine does meets both; the best of all rounds counts.
 */

#include "qemu/osdep.h"
#include "hw/virtio/virtio-dmabuf.h"

#include <math.h>
#include <pthread.h>

extern typeof(virtio_add_dmabuf) stock_virtio_add_dmabuf;
extern typeof(virtio_remove_resource) stock_virtio_remove_resource;
extern typeof(virtio_lookup_dmabuf) stock_virtio_lookup_dmabuf;

enum { ENTRIES = 64, LOOKUPS = 400000, CHANGES = 100000, ROUNDS = 15 };

typedef struct Table {
    typeof(virtio_add_dmabuf) *add;
    typeof(virtio_remove_resource) *remove;
    typeof(virtio_lookup_dmabuf) *look_up;
} Table;

static const Table stock = {
    stock_virtio_add_dmabuf, stock_virtio_remove_resource, stock_virtio_lookup_dmabuf,
};
static const Table ours = {
    virtio_add_dmabuf, virtio_remove_resource, virtio_lookup_dmabuf,
};

static QemuUUID uuids[ENTRIES];

typedef struct Work {
    const Table *table;
    int entries;
    pthread_barrier_t *start;
    pthread_t thread;
    gint64 began, ended;
    unsigned sum;
} Work;

static void *look_up(void *opaque)
{
    Work *work = opaque;

    pthread_barrier_wait(work->start);
    work->began = g_get_monotonic_time();
    for (int i = 0; i < LOOKUPS; i++) {
        work->sum += work->table->look_up(&uuids[i % work->entries]);
    }
    work->ended = g_get_monotonic_time();
    return NULL;
}

/* Nanoseconds until each of the threads had made one lookup, on average. */
static double time_lookups(const Table *table, int threads, int entries)
{
    g_autofree Work *work = g_new0(Work, threads);
    gint64 began = G_MAXINT64, ended = 0;
    pthread_barrier_t start;
    unsigned expected = 0;

    for (int i = 0; i < LOOKUPS; i++) {
        expected += 3 + i % entries;
    }
    pthread_barrier_init(&start, NULL, threads);
    for (int i = 0; i < threads; i++) {
        work[i] = (Work) { .table = table, .entries = entries, .start = &start };
        g_assert(pthread_create(&work[i].thread, NULL, look_up, &work[i]) == 0);
    }
    for (int i = 0; i < threads; i++) {
        g_assert(pthread_join(work[i].thread, NULL) == 0);
        g_assert_cmpuint(work[i].sum, ==, expected);
        began = MIN(began, work[i].began);
        ended = MAX(ended, work[i].ended);
    }
    pthread_barrier_destroy(&start);
    return (ended - began) * 1000.0 / LOOKUPS;
}

static double time_changes(const Table *table, int threads, int entries)
{
    QemuUUID uuid;
    gint64 begin;

    qemu_uuid_generate(&uuid);
    begin = g_get_monotonic_time();
    for (int i = 0; i < CHANGES; i++) {
        g_assert(table->add(&uuid, 3));
        g_assert(table->remove(&uuid));
    }
    return (g_get_monotonic_time() - begin) * 1000.0 / CHANGES;
}

static void compare(const char *what, typeof(time_lookups) *measure, int threads, int entries)
{
    double best_stock = INFINITY, best_ours = INFINITY;

    for (int round = 0; round < ROUNDS; round++) {
        best_stock = MIN(best_stock, measure(&stock, threads, entries));
        best_ours = MIN(best_ours, measure(&ours, threads, entries));
    }
    printf("%-34s %8d %10.1f %10.1f %8.2f\n", what, threads, best_stock, best_ours,
           best_stock / best_ours);
}

int main(void)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    for (int i = 0; i < ENTRIES; i++) {
        qemu_uuid_generate(&uuids[i]);
        g_assert(stock.add(&uuids[i], 3 + i));
        g_assert(ours.add(&uuids[i], 3 + i));
    }

    printf("%ld cores; ns, best of %d rounds\n", cores, ROUNDS);
    printf("%-34s %8s %10s %10s %8s\n", "", "threads", "QEMU's C", "ours", "ratio");
    for (int threads = 1; threads <= MAX(cores, 2) * 2; threads *= 2) {
        compare("lookup, 64 objects", time_lookups, threads, ENTRIES);
        compare("lookup, all of the same object", time_lookups, threads, 1);
    }
    compare("add and remove", time_changes, 1, ENTRIES);
    return 0;
}
