//! What it costs to believe a device: the checks of a plane, at each refresh.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use drm_fourcc::DrmFourcc;
use vfio_display::plane::{HOTSPOT_UNSET, Plane, PlaneInfo, PlaneKind};

fn info() -> PlaneInfo {
    let (width, height) = (3840, 2160);
    PlaneInfo {
        drm_format: DrmFourcc::Xrgb8888 as u32,
        width,
        height,
        stride: width * 4,
        size: width * height * 4,
        x_hot: HOTSPOT_UNSET,
        y_hot: HOTSPOT_UNSET,
        handle: 1,
        ..PlaneInfo::default()
    }
}

fn checks(criterion: &mut Criterion) {
    let good = info();
    let tiled = PlaneInfo { drm_format_mod: 0x0100_0000_0000_0001, ..good };
    let planar = PlaneInfo { drm_format: DrmFourcc::Yuyv as u32, ..good };
    let lying = PlaneInfo { height: 100_000, ..good };
    let mut group = criterion.benchmark_group("check");
    for (name, info) in [("xrgb8888", good), ("tiled", tiled), ("yuyv", planar), ("a_lie", lying)] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let plane = Plane::check(PlaneKind::Primary, black_box(&info));
                black_box(plane.map(|plane| plane.map(|plane| plane.fits(u64::from(info.size)))))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, checks);
criterion_main!(benches);
