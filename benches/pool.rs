//! The pool of dma-bufs: what a flip costs when the buffer is known, and when it is not.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use drm_fourcc::{DrmFourcc, DrmModifier};
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use vfio_display::format::Format;
use vfio_display::memory::DmaBuf;
use vfio_display::plane::Geometry;
use vfio_display::pool::{Limits, Pool, User};

const GEOMETRY: Geometry = Geometry {
    format: Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::Linear },
    width: 3840,
    height: 2160,
    stride: 3840 * 4,
    size: 3840 * 2160 * 4,
};

/// A file without pages.
fn file() -> OwnedFd {
    let file = memfd_create("bench", MemfdFlags::CLOEXEC).unwrap();
    ftruncate(&file, GEOMETRY.size.into()).unwrap();
    file
}

/// The buffers of a guest are known: a refresh finds one, and pins it in place of another.
fn known(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flip_to_a_known_buffer");
    for buffers in [2, 5, 6, 16] {
        let mut pool = Pool::new(Limits::default(), false);
        for id in 1..=buffers {
            pool.insert(id, GEOMETRY, DmaBuf::new(file()).unwrap());
        }
        let mut shown = pool.look_up(1, &GEOMETRY).unwrap();
        pool.pin(shown, User::Scanout);
        let mut ids = (1..=buffers).cycle();
        group.bench_function(BenchmarkId::from_parameter(buffers), |bencher| {
            bencher.iter(|| {
                let next = pool.look_up(ids.next().unwrap_or(1), &GEOMETRY).unwrap();
                pool.pin(next, User::Scanout);
                pool.unpin(std::mem::replace(&mut shown, next), User::Scanout);
                pool.evict(Some(next));
                black_box(pool.take_retired().len())
            });
        });
    }
    group.finish();
}

/// A guest that makes a new buffer for each flip: one comes, one goes. What the kernel takes for
/// the file does not count.
fn new(criterion: &mut Criterion) {
    let mut pool = Pool::new(Limits::default(), false);
    let mut id = 0;
    criterion.bench_function("flip_to_a_new_buffer", |bencher| {
        bencher.iter_custom(|flips| {
            let mut time = Duration::ZERO;
            for _ in 0..flips {
                let file = file();
                id += 1;
                let began = Instant::now();
                let key = pool.insert(id, GEOMETRY, DmaBuf::new(file).unwrap());
                pool.evict(Some(key));
                let retired = pool.take_retired();
                time += began.elapsed();
                drop(retired);
            }
            time
        });
    });
}

criterion_group!(benches, known, new);
criterion_main!(benches);
