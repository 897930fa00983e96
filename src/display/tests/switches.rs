//! Switches change how pictures are shown, never the pictures, at most after some refreshes.

use std::collections::VecDeque;

use drm_fourcc::DrmFourcc;

use crate::config::Config;
use crate::console::ScanoutSupport;
use crate::damage::BAND_ROWS;
use crate::device::Mode;
use crate::plane::PlaneInfo;
use crate::testing::{FakeDevice, Fixture, Shows, plane};

use super::{shown, status};

const FRAMES: usize = 3000;
const REGION: u32 = 16;
const BUFFERS: u32 = 3;

/// Returns what the console shows, and the pixels of a surface by rows.
#[derive(PartialEq)]
struct Picture {
    shows: Shows,
    rows: Vec<Vec<u32>>,
}

impl Picture {
    fn after_refresh(fixture: &mut Fixture, periodic: bool) -> Self {
        fixture.refresh_as(periodic);
        let shows = fixture.console.get().shows.clone();
        let rows = match shows {
            Shows::Surface(width, _) => {
                shown(fixture).chunks(width as usize).map(<[u32]>::to_vec).collect()
            }
            _ => Vec::new(),
        };
        Self { shows, rows }
    }

    /// Checks that each row is of this picture, or of an earlier one.
    fn is_late_at_most_by(&self, now: &Self, before: &VecDeque<Self>) -> bool {
        let late = |y: usize, row: &Vec<u32>| {
            before.iter().any(|before| now.shows == before.shows && *row == before.rows[y])
        };
        let mut rows = self.rows.iter().zip(&now.rows).enumerate();
        self.shows == now.shows && rows.all(|(y, (row, new))| row == new || late(y, row))
    }
}

fn random_plane(handle: u32, random: &mut fastrand::Rng) -> PlaneInfo {
    let format = *random.choice(&[DrmFourcc::Xrgb8888, DrmFourcc::Xbgr8888]).expect("a format");
    PlaneInfo { drm_format: format as u32, ..plane(handle, random.u32(1..150), random.u32(1..60)) }
}

/// A guest that plays video.
fn draw_all(mode: Mode, device: &FakeDevice, random: &mut fastrand::Rng) {
    let shown = device.get().primary;
    let mut bytes = vec![0; shown.size as usize];
    random.fill(&mut bytes);
    match mode {
        Mode::DmaBuf => device.draw(shown.handle, 0, &bytes),
        Mode::Region => device.draw_region(REGION, 0, &bytes),
    }
}

/// A guest that draws, flips, sets modes and switches its plane off and on.
fn act(mode: Mode, device: &FakeDevice, random: &mut fastrand::Rng) {
    let shown = device.get().primary;
    match (random.u8(..20), mode) {
        (0, Mode::DmaBuf) => {
            let info = random_plane(1, random);
            for handle in 1..=BUFFERS {
                device.add(&PlaneInfo { handle, ..info }, random.u8(..));
            }
            device.set().primary = info;
        }
        (0, Mode::Region) => device.set().primary = random_plane(REGION, random),
        (1, _) => device.set().primary.drm_format = 0,
        (2, _) => device.set().primary.drm_format = DrmFourcc::Xrgb8888 as u32,
        (3..7, Mode::DmaBuf) => device.set().primary.handle = random.u32(1..=BUFFERS),
        (7, _) => (),
        _ => {
            let from = random.u32(..shown.size);
            let bytes = vec![random.u8(..); random.usize(1..=(shown.size - from) as usize)];
            match mode {
                Mode::DmaBuf => device.draw(shown.handle, from.into(), &bytes),
                Mode::Region => device.draw_region(REGION, from.into(), &bytes),
            }
        }
    }
}

#[test]
fn pictures_are_the_same_with_every_switch_on_and_off() {
    let off =
        Config { sample: false, direct: false, pacing: false, import: false, ..Config::default() };
    for mode in [Mode::DmaBuf, Mode::Region] {
        let mut random = fastrand::Rng::with_seed(1);
        let device = FakeDevice::default();
        for handle in 1..=BUFFERS {
            device.add(&plane(handle, 64, 48), 0);
        }
        device.add_region(REGION, 1 << 16, 0);
        device.set().primary = plane(if mode == Mode::DmaBuf { 1 } else { REGION }, 64, 48);
        let [mut fast, mut plain] =
            [Config::default(), off].map(|config| Fixture::new(mode, config, &device));
        fast.console.set().support = ScanoutSupport::ReadBack;
        let mut before = VecDeque::new();
        let (mut surfaces, mut late, mut video, mut was_off) = (0, 0, 0, false);
        for frame in 0..FRAMES {
            if video > 0 {
                video -= 1;
                draw_all(mode, &device, &mut random);
            } else {
                act(mode, &device, &mut random);
                if random.u8(..50) == 0 {
                    video = random.u32(1..60);
                }
            }
            let periodic = random.u8(..4) != 0;
            let expected = Picture::after_refresh(&mut plain, periodic);
            let picture = Picture::after_refresh(&mut fast, periodic);
            let told = device.get().primary;
            let is_off = told.drm_format == 0 || told.size == 0;
            if picture != expected {
                assert!(periodic, "{mode} mode, frame {frame}: not what is there");
                // Nothing is read while the plane may come back.
                let soon = is_off || was_off || picture.is_late_at_most_by(&expected, &before);
                assert!(
                    soon,
                    "{mode} mode, frame {frame}: late by more than {BAND_ROWS} refreshes"
                );
                late += 1;
            }
            was_off = is_off;
            surfaces += usize::from(matches!(expected.shows, Shows::Surface(..)));
            before.truncate(BAND_ROWS - 1);
            before.push_front(expected);
        }
        assert!(late > 0, "nothing was seen late");
        if mode == Mode::Region {
            let direct = status(&mut fast, "/direct").as_u64();
            assert!(direct > Some(100), "{direct:?} frames were shown without a copy");
        }
        assert!(surfaces > FRAMES / 2, "{surfaces} of {FRAMES} are pictures");
    }
}
