//! Devices with random answers.

use std::fs;
use std::path::Path;

use drm_fourcc::DrmFourcc;

use crate::config::Config;
use crate::console::ScanoutSupport;
use crate::device::Mode;
use crate::plane::{Plane, PlaneInfo, PlaneKind};
use crate::testing::{FakeDevice, Fixture, plane, script};

/// A valid plane with some fields replaced by tempting or random numbers.
fn lie(random: &mut fastrand::Rng) -> PlaneInfo {
    const TEMPTING: [u32; 12] =
        [0, 1, 2, 127, 128, 4095, 16384, 16385, 0x7fff_ffff, 0x8000_0000, u32::MAX - 3, u32::MAX];
    let mut info = plane(random.u32(0..3), random.u32(1..64), random.u32(1..64));
    for _ in 0..random.u32(0..4) {
        let value = if random.bool() { TEMPTING[random.usize(..12)] } else { random.u32(..) };
        match random.u32(0..8) {
            0 => info.width = value,
            1 => info.height = value,
            2 => info.stride = value,
            3 => info.size = value,
            4 => info.drm_format = value,
            5 => info.drm_format = [DrmFourcc::Rgb565, DrmFourcc::Nv12][random.usize(..2)] as u32,
            6 => info.drm_format_mod = random.u64(..),
            _ => info.x_hot = value,
        }
    }
    info
}

#[test]
fn a_plane_that_passes_has_a_size_that_can_be_computed_with() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut passed = 0;
    for _ in 0..200_000 {
        let info = lie(&mut random);
        for kind in [PlaneKind::Primary, PlaneKind::Cursor] {
            let Ok(Some(plane)) = Plane::check(kind, &info) else { continue };
            passed += 1;
            let geometry = plane.geometry;
            assert!(geometry.bytes_needed() <= u64::from(info.size), "{info:?}");
            if let Some(row) = geometry.format.row_bytes(geometry.width) {
                assert!(row > 0 && row <= u64::from(geometry.stride), "{info:?}");
            }
            assert!(plane.hotspot.is_none_or(|(x, y)| x < info.width && y < info.height));
            assert!(plane.fits(geometry.bytes_needed() - 1).is_err());
        }
    }
    assert!(passed > 10_000, "{passed} passed");
}

/// The fakes panic if more is imported or read than there is.
#[test]
fn whatever_a_device_says_no_more_is_read_than_there_is() {
    let mut random = fastrand::Rng::with_seed(2);
    let mut shown = 0;
    for mode in [Mode::DmaBuf, Mode::Region] {
        for support in [ScanoutSupport::None, ScanoutSupport::ReadBack, ScanoutSupport::Import] {
            let device = FakeDevice::default();
            for id in 0..3 {
                let file = device.files().create(random.u64(1..16384), random.bool());
                device.set().dma_bufs.insert(id, file);
                device.add_region(id, random.u64(1..16384), 0);
            }
            let mut fixture = Fixture::new(mode, Config::default(), &device);
            fixture.console.set().support = support;
            for _ in 0..5000 {
                device.set().primary = lie(&mut random);
                device.set().cursor = lie(&mut random);
                shown += fixture.refresh().iter().filter(|call| super::is_update(call)).count();
            }
            fixture.end();
            assert!(fixture.console.get().imports.is_empty());
        }
    }
    assert!(shown > 1000, "{shown} pictures shown");
}

#[test]
fn random_scripts_run() {
    let mut random = fastrand::Rng::with_seed(3);
    for seed in 0..3000 {
        random.seed(seed);
        let mut bytes = vec![0; random.usize(..600)];
        random.fill(&mut bytes);
        script::run(&bytes);
        script::run_apart(&bytes);
    }
}

/// The fuzzer's corpus.
#[test]
fn the_corpus_of_the_fuzzer_runs() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/display");
    let mut count = 0;
    for entry in fs::read_dir(&corpus).expect("fuzz/corpus/display is committed") {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        script::run(&bytes);
        script::run_apart(&bytes);
        count += 1;
    }
    assert!(count >= 10, "{count} files in {}", corpus.display());
}
