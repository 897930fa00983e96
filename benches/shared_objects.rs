//! Lookups of shared objects by several threads at once, beside those in a map under one mutex,
//! which is how QEMU's own table works. `benches/c/shared_objects.c` compares with QEMU's code
//! itself.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use uuid::Uuid;
use vfio_display::shared_objects::{DmaBuf, Object, SharedObjects};

const ENTRIES: u128 = 64;

fn uuids() -> Vec<Uuid> {
    (0..ENTRIES).map(|n| Uuid::from_u128((n << 64) | n)).collect()
}

/// How long it takes until each of the threads has made that many lookups.
fn time(threads: usize, lookups: u64, look_up: impl Fn(Uuid) -> i32 + Sync) -> Duration {
    let uuids = uuids();
    let start = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let work = || {
            start.wait();
            for uuid in uuids.iter().cycle().take(usize::try_from(lookups).unwrap()) {
                black_box(look_up(black_box(*uuid)));
            }
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        start.wait();
        let begin = Instant::now();
        for worker in workers {
            worker.join().unwrap();
        }
        begin.elapsed()
    })
}

fn lookups(criterion: &mut Criterion) {
    let ours = SharedObjects::new();
    let mut map = HashMap::new();
    for (fd, uuid) in (3..).zip(uuids()) {
        ours.add(uuid, Object::DmaBuf(DmaBuf::Borrowed(fd))).unwrap();
        map.insert(uuid, fd);
    }
    let mutex = Mutex::new(map);

    let mut group = criterion.benchmark_group("lookups");
    for threads in [1, 2, 4] {
        group.throughput(Throughput::Elements(threads as u64));
        group.bench_function(BenchmarkId::new("shared_objects", threads), |bencher| {
            bencher.iter_custom(|iterations| {
                time(threads, iterations, |uuid| ours.dma_buf_number(uuid, Duration::ZERO).unwrap())
            });
        });
        group.bench_function(BenchmarkId::new("one_mutex", threads), |bencher| {
            bencher.iter_custom(|iterations| {
                time(threads, iterations, |uuid| mutex.lock().unwrap()[&uuid])
            });
        });
    }
    group.finish();
}

fn changes(criterion: &mut Criterion) {
    let objects = SharedObjects::new();
    let uuid = Uuid::from_u128(ENTRIES + 1);
    criterion.bench_function("add_and_remove", |bencher| {
        bencher.iter(|| {
            objects.add(uuid, Object::DmaBuf(DmaBuf::Borrowed(3))).unwrap();
            objects.remove(uuid)
        });
    });
}

criterion_group!(benches, lookups, changes);
criterion_main!(benches);
