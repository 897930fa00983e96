//! dma-buf mode: from query and get to the console.

use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use drm_fourcc::{DrmFourcc, DrmModifier};
use serde_json::json;

use crate::config::Config;
use crate::console::ScanoutSupport;
use crate::damage::Rect;
use crate::device::Mode;
use crate::plane::PlaneInfo;
use crate::pool::Limits;
use crate::testing::{Call, Errors, FakeDevice, Fixture, Shows, plane};
use crate::watcher::{PATIENCE, POLL_MOST};

use super::{OFF, dma_buf_device, errors, is_update, scanout, shown, status, surface};

fn inode(fixture: &Fixture, id: u32) -> Option<u64> {
    Some(fixture.device.get().dma_bufs.get(&id)?.metadata().unwrap().ino())
}

#[test]
fn a_plane_is_imported_scanned_out_and_then_only_updated() {
    let mut fixture = scanout();
    let whole = Rect::full(32, 16);
    let first = [Call::Import(0), Call::Scanout(0), Call::UpdateScanout(whole)];
    assert_eq!(fixture.refresh(), first);
    for _ in 0..10 {
        assert_eq!(fixture.refresh(), [Call::UpdateScanout(whole)]);
    }
    fixture.display().invalidate();
    assert_eq!(fixture.refresh(), [Call::Scanout(0), Call::UpdateScanout(whole)]);
    assert_eq!(fixture.device.take_gets(), [1]);
    assert_eq!(fixture.console.take_log(), [""; 0]);
}

#[test]
fn nobody_reads_back_what_can_be_read_fast() {
    let mut fixture = surface();
    fixture.console.set().support = ScanoutSupport::ReadBack;
    let whole = Rect::full(32, 16);
    assert_eq!(fixture.refresh(), [Call::ShowSurface(32, 16), Call::UpdateSurface(whole)]);
    assert_eq!(fixture.refresh(), []);
    // A front end that can show it connects.
    fixture.console.set().support = ScanoutSupport::Import;
    let scanout = [Call::Import(0), Call::Scanout(0), Call::UpdateScanout(whole)];
    assert_eq!(fixture.refresh(), scanout);
}

#[test]
fn what_is_slow_to_read_or_cannot_be_read_is_read_back() {
    let whole = Rect::full(32, 16);
    let scanout = [Call::Import(0), Call::Scanout(0), Call::UpdateScanout(whole)];

    let mut slow = surface();
    slow.clock.set_step(Duration::from_millis(1));
    slow.console.set().support = ScanoutSupport::ReadBack;
    assert_eq!(slow.refresh(), scanout);
    // The answer holds for similar buffers, as long as the mode lasts.
    slow.clock.set_step(Duration::ZERO);
    slow.device.show(plane(2, 32, 16), 0);
    assert_eq!(slow.refresh()[..2], [Call::Import(1), Call::Scanout(1)]);
    slow.device.show(plane(3, 16, 16), 0);
    assert_eq!(slow.refresh()[0], Call::ShowSurface(16, 16));

    let mut tiled = surface();
    let mut plane = plane(1, 32, 16);
    plane.drm_format_mod = DrmModifier::I915_x_tiled.into();
    tiled.device.set().primary = plane;
    tiled.console.set().support = ScanoutSupport::ReadBack;
    assert_eq!(tiled.refresh(), scanout);

    let config = Config { read_back: true, ..Config::default() };
    let mut wanted = Fixture::new(Mode::DmaBuf, config, &dma_buf_device());
    wanted.console.set().support = ScanoutSupport::ReadBack;
    assert_eq!(wanted.refresh(), scanout);
}

#[test]
fn there_is_one_get_per_id_while_the_buffer_lives() {
    let mut fixture = scanout();
    for id in 1..=3 {
        fixture.device.add(&plane(id, 32, 16), 0);
    }
    for flip in 0..30 {
        fixture.device.set().primary = plane(1 + flip % 3, 32, 16);
        fixture.refresh();
        assert_eq!(fixture.console.scanned_out(), inode(&fixture, 1 + flip % 3));
    }
    assert_eq!(fixture.device.take_gets(), [1, 2, 3]);
    assert_eq!(status(&mut fixture, "/imports"), 3);
    assert_eq!(status(&mut fixture, "/flips"), 29);
}

#[test]
fn an_equal_answer_is_not_even_looked_up() {
    let mut fixture = scanout();
    fixture.refresh();
    let before = status(&mut fixture, "/pool/look-ups");
    for _ in 0..10 {
        fixture.refresh();
    }
    assert_eq!(status(&mut fixture, "/pool/look-ups"), before);
    fixture.device.show(plane(2, 32, 16), 0);
    fixture.refresh();
    assert_ne!(status(&mut fixture, "/pool/look-ups"), before);
}

#[test]
fn who_loses_the_race_slowly_does_not_try_again() {
    let mut fixture = scanout();
    fixture.refresh();
    fixture.device.take_gets();
    fixture.device.set().primary = plane(77, 32, 16);
    let clock = fixture.clock.clone();
    fixture.device.on_each_call(move || clock.set_time(clock.time() + POLL_MOST / 2));
    let began = fixture.clock.time();
    fixture.refresh();
    assert_eq!(fixture.device.take_gets(), [77]);
    assert_eq!(
        fixture.clock.time().saturating_sub(began),
        POLL_MOST,
        "nor is it asked for its cursor"
    );
}

#[test]
fn a_flip_between_query_and_get_is_followed_within_the_refresh() {
    let mut fixture = scanout();
    fixture.refresh();
    fixture.device.take_gets();
    let (old, new) = (plane(2, 32, 16), plane(3, 32, 16));
    fixture.device.show(old, 0);
    fixture.device.add(&new, 0);
    fixture.device.set().flips_before_gets.push_back(new);
    fixture.refresh();
    assert_eq!(fixture.device.take_gets(), [2, 3]);
    assert_eq!(fixture.console.scanned_out(), inode(&fixture, 3));
    assert_eq!(status(&mut fixture, "/races"), 1);
    assert_eq!(fixture.console.take_log(), [""; 0]);

    // gvt fails with EINVAL where mbochs fails with ENOENT.
    fixture.device.show(plane(4, 32, 16), 0);
    fixture.device.set().get_errors = Errors::times(2, libc::EINVAL);
    fixture.refresh();
    assert_eq!(fixture.console.scanned_out(), inode(&fixture, 4));
    assert_eq!(fixture.console.take_log(), [""; 0]);
}

#[test]
fn a_guest_that_always_flips_in_between_does_not_hold_up_the_refresh() {
    let mut fixture = scanout();
    fixture.refresh();
    let before = fixture.console.scanned_out();
    fixture.device.take_gets();
    fixture.device.show(plane(2, 32, 16), 0);
    fixture.device.set().get_errors = Errors::always(libc::ENOENT);
    assert_eq!(fixture.refresh(), []);
    assert_eq!(fixture.device.take_gets().len(), 4);
    assert_eq!(fixture.console.scanned_out(), before, "the picture stays");
    let log = fixture.console.take_log();
    assert!(
        log[0].starts_with("fake: GET_GFX_DMABUF of id 2 (4 attempts): No such file"),
        "{log:?}"
    );
    for _ in 0..PATIENCE {
        fixture.refresh();
    }
    let text = "The device does not give its picture.";
    assert_eq!(fixture.console.message().as_deref(), Some(text));
    assert_eq!(fixture.console.take_log(), [""; 0], "it was logged");
    fixture.device.set().get_errors = Errors::default();
    fixture.refresh();
    assert_eq!(fixture.console.scanned_out(), inode(&fixture, 2));
}

#[test]
fn what_goes_wrong_with_every_buffer_is_said_once() {
    let mut fixture = scanout();
    fixture.device.set().get_errors = Errors::always(libc::EIO);
    for id in 2..10 {
        fixture.device.show(plane(id, 32, 16), 0);
        fixture.refresh();
    }
    let log = fixture.console.take_log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].starts_with("fake: GET_GFX_DMABUF of id 2: Input/output error"), "{log:?}");
    let last = status(&mut fixture, "/last-error");
    assert!(last.as_str().unwrap().starts_with("GET_GFX_DMABUF of id 9"), "{last}");
}

#[test]
fn what_passes_by_itself_is_tried_at_the_next_refresh_without_a_word() {
    for errno in [libc::ENOMEM, libc::EAGAIN, libc::EINTR, libc::EBUSY] {
        let mut fixture = scanout();
        fixture.refresh();
        let before = fixture.console.scanned_out();
        fixture.device.take_gets();
        fixture.device.show(plane(2, 32, 16), 0);
        fixture.device.set().get_errors = Errors::times(1, errno);
        assert_eq!(fixture.refresh(), []);
        assert_eq!(fixture.device.take_gets(), [2], "once in a refresh");
        assert_eq!(fixture.console.scanned_out(), before);
        fixture.refresh();
        assert_eq!(fixture.console.scanned_out(), inode(&fixture, 2));

        // mbochs answers so to the first query of each new mode.
        fixture.device.show(plane(3, 64, 16), 0);
        fixture.device.set().primary_errors = Errors::times(1, errno);
        fixture.refresh();
        assert_eq!(fixture.console.scanned_out(), inode(&fixture, 3));

        fixture.device.show(plane(4, 64, 16), 0);
        fixture.device.set().primary_errors = Errors::times(2, errno);
        assert_eq!(fixture.refresh(), []);
        fixture.refresh();
        assert_eq!(fixture.console.scanned_out(), inode(&fixture, 4));
        assert_eq!(fixture.console.take_log(), [""; 0]);
        assert_eq!((errors(&mut fixture, "get"), errors(&mut fixture, "query")), (1, 1));
    }
}

#[test]
fn what_was_to_pass_and_does_not_is_said_in_the_end() {
    let mut fixture = scanout();
    fixture.refresh();
    fixture.device.set().primary_errors = Errors::always(libc::ENOMEM);
    for _ in 0..PATIENCE {
        assert_eq!(fixture.refresh(), []);
    }
    assert_eq!(fixture.console.take_log(), [""; 0]);
    for _ in 0..100 {
        fixture.refresh();
    }
    let log = fixture.console.take_log();
    assert_eq!(log.len(), 1);
    assert!(log[0].starts_with("fake: QUERY_GFX_PLANE of the primary plane: Cannot allocate"));
    assert!(fixture.console.message().is_some());
}

#[test]
fn an_id_whose_geometry_changed_is_another_buffer() {
    let first = PlaneInfo { stride: 160, size: 160 * 16, ..plane(1, 32, 16) };
    let changed = [
        PlaneInfo { drm_format: DrmFourcc::Argb8888 as u32, ..first },
        PlaneInfo { drm_format_mod: DrmModifier::I915_x_tiled.into(), ..first },
        PlaneInfo { width: 31, ..first },
        PlaneInfo { height: 15, ..first },
        PlaneInfo { stride: 128, ..first },
        PlaneInfo { size: 160 * 16 + 1, ..first },
    ];
    for second in changed {
        let mut fixture = scanout();
        fixture.device.show(first, 0);
        fixture.refresh();
        let before = fixture.console.scanned_out();
        fixture.device.show(second, 0);
        assert_eq!(fixture.refresh()[..2], [Call::Import(1), Call::Scanout(1)], "{second:?}");
        assert_ne!(fixture.console.scanned_out(), before);
        assert_eq!(fixture.device.take_gets(), [1, 1]);
        assert_eq!(status(&mut fixture, "/pool/buffers"), 1);
        let held = fixture.device.get().dma_bufs.len() + 1;
        assert_eq!(fixture.device.files().open_descriptors(), held, "the old one is closed");
    }
}

#[test]
fn format_and_modifier_go_to_the_front_end_linear_too() {
    let mut fixture = scanout();
    let tiled = DrmModifier::I915_y_tiled;
    fixture.device.show(PlaneInfo { drm_format_mod: tiled.into(), ..plane(2, 32, 16) }, 0);
    fixture.refresh();
    fixture
        .device
        .show(PlaneInfo { drm_format: DrmFourcc::Abgr2101010 as u32, ..plane(3, 32, 16) }, 0);
    fixture.refresh();
    let state = fixture.console.get();
    let formats: Vec<_> = state.imports.values().map(|(_, geometry)| geometry.format).collect();
    assert_eq!((formats[0].fourcc, formats[0].modifier), (DrmFourcc::Xrgb8888, tiled));
    let linear = (DrmFourcc::Abgr2101010, DrmModifier::Linear);
    assert_eq!((formats[1].fourcc, formats[1].modifier), linear);
}

#[test]
fn a_dma_buf_that_is_too_small_is_refused_and_closed() {
    let mut fixture = scanout();
    let file = fixture.device.files().create(32 * 16 * 4 - 1, true);
    fixture.device.set().dma_bufs.insert(1, file);
    for _ in 0..20 {
        assert!(!fixture.refresh().iter().any(|call| matches!(call, Call::Import(_))));
    }
    assert_eq!(
        fixture.console.take_log(),
        [
            "fake: QUERY_GFX_PLANE of the primary plane: 32x16 XR24 LINEAR stride 128 takes 2048 bytes, \
          but there are only 2047"
        ]
    );
    let text = "The device describes its display wrongly.";
    assert_eq!(fixture.console.message().as_deref(), Some(text));
    assert_eq!(fixture.device.files().open_descriptors(), 1);
}

#[test]
fn two_ids_of_one_dma_buf_are_one_import() {
    let mut fixture = scanout();
    let again = fixture.device.get().dma_bufs[&1].try_clone().unwrap();
    fixture.device.set().dma_bufs.insert(2, again);
    for id in [1, 2, 1, 2] {
        fixture.device.set().primary = plane(id, 32, 16);
        fixture.refresh();
    }
    assert_eq!(fixture.device.take_gets(), [1, 2]);
    assert_eq!(fixture.console.get().imports.len(), 1);
    assert_eq!(status(&mut fixture, "/pool/buffers"), 1);
    assert_eq!(fixture.device.files().open_descriptors(), 2 + 1);
}

#[test]
fn a_plane_that_goes_leaves_no_stale_picture_and_comes_back_at_once() {
    for leaves_question in [false, true] {
        let mut fixture = scanout();
        fixture.refresh();
        let picture = fixture.device.get().primary;
        fixture.device.set().leaves_question = leaves_question;
        fixture.device.set().primary = PlaneInfo::default();
        let calls = fixture.refresh_after_gap();
        assert_eq!(calls, [Call::ShowMessage(640, 480, OFF.to_owned())]);
        for _ in 0..100 {
            assert_eq!(fixture.refresh(), []);
        }
        assert_eq!(status(&mut fixture, "/plane"), json!(null));
        assert_eq!(status(&mut fixture, "/message"), OFF);
        fixture.device.set().primary = picture;
        let calls = fixture.refresh();
        assert_eq!(calls[0], Call::Scanout(0), "neither got nor imported again");
        assert_eq!(fixture.console.take_log(), [""; 0], "a display that is off is no error");
    }
}

#[test]
fn a_format_or_a_size_of_zero_means_no_plane() {
    for none in
        [PlaneInfo { drm_format: 0, ..plane(1, 32, 16) }, PlaneInfo { size: 0, ..plane(1, 32, 16) }]
    {
        let mut fixture = scanout();
        fixture.refresh();
        fixture.device.set().primary = none;
        fixture.refresh_after_gap();
        assert_eq!(fixture.console.message().as_deref(), Some(OFF));
    }
}

#[test]
fn messages_are_as_large_as_the_last_picture() {
    let mut fixture = scanout();
    fixture.device.show(plane(2, 1920, 1080), 0);
    fixture.refresh();
    fixture.device.set().primary = PlaneInfo::default();
    let calls = fixture.refresh_after_gap();
    assert_eq!(calls, [Call::ShowMessage(1920, 1080, OFF.to_owned())]);
}

#[test]
fn the_firmware_is_shown_while_there_is_no_plane() {
    let mut fixture = scanout();
    let picture = std::mem::take(&mut fixture.device.set().primary);
    assert_eq!(fixture.refresh(), [], "without firmware, what the console shows by itself stays");
    fixture.console.set().firmware = true;
    assert_eq!(fixture.refresh(), [Call::ShowFirmware(true)]);
    assert_eq!(fixture.refresh(), [Call::ShowFirmware(false)]);
    fixture.device.set().primary = picture;
    fixture.refresh();
    assert_eq!(fixture.console.get().shows, Shows::Scanout(0));
    fixture.device.set().primary = PlaneInfo::default();
    assert_eq!(fixture.refresh_after_gap(), [Call::ShowFirmware(true)]);
    fixture.console.set().firmware = false;
    fixture.refresh();
    assert_eq!(fixture.console.message().as_deref(), Some(OFF));
}

#[test]
fn without_a_front_end_that_imports_the_picture_is_a_surface() {
    let mut fixture = surface();
    let whole = Call::UpdateSurface(Rect::full(32, 16));
    assert_eq!(fixture.refresh(), [Call::ShowSurface(32, 16), whole.clone()]);
    assert_eq!(shown(&mut fixture), [0x1111_1111; 32 * 16]);
    assert_eq!(fixture.refresh(), []);
    fixture.device.draw(1, 128 * 5, &[0x22; 4]);
    assert_eq!(fixture.refresh(), [Call::UpdateSurface(Rect { x: 0, y: 5, width: 32, height: 1 })]);
    assert_eq!(shown(&mut fixture)[32 * 5..][..2], [0x2222_2222, 0x1111_1111]);
    fixture.display().invalidate();
    assert_eq!(fixture.refresh(), [whole]);
}

#[test]
fn flips_of_equal_size_stay_on_the_surface() {
    let mut fixture = surface();
    fixture.refresh();
    fixture.device.show(plane(2, 32, 16), 0x33);
    assert_eq!(fixture.refresh(), [Call::UpdateSurface(Rect::full(32, 16))]);
    assert_eq!(shown(&mut fixture), [0x3333_3333; 32 * 16]);
    fixture.device.show(plane(3, 16, 16), 0x44);
    let calls = [Call::ShowSurface(16, 16), Call::UpdateSurface(Rect::full(16, 16))];
    assert_eq!(fixture.refresh(), calls);
    assert_eq!(shown(&mut fixture), [0x4444_4444; 16 * 16]);
    assert_eq!(status(&mut fixture, "/pool/pinned"), 1);
    assert_eq!(status(&mut fixture, "/flips"), 2);
}

#[test]
fn front_ends_come_and_go_and_the_picture_stays_right() {
    let mut fixture = surface();
    for _ in 0..3 {
        fixture.console.set().support = ScanoutSupport::None;
        fixture.refresh();
        assert_eq!(shown(&mut fixture), [0x1111_1111; 32 * 16]);
        fixture.console.set().support = ScanoutSupport::Import;
        let calls = fixture.refresh();
        assert!(calls.contains(&Call::Scanout(0)), "{calls:?}");
        assert_eq!(fixture.console.scanned_out(), inode(&fixture, 1));
    }
    assert_eq!(fixture.device.take_gets(), [1]);
    assert_eq!(fixture.console.get().imports.len(), 1);
    assert_eq!(status(&mut fixture, "/pool/pinned"), 1);
}

#[test]
fn a_user_can_have_surfaces_only() {
    let config = Config { import: false, ..Config::default() };
    let mut fixture = Fixture::new(Mode::DmaBuf, config, &super::dma_buf_device());
    fixture.console.set().support = ScanoutSupport::Import;
    fixture.refresh();
    assert_eq!(fixture.console.get().shows, Shows::Surface(32, 16));
}

#[test]
fn what_neither_front_end_nor_cpu_can_show_is_said_and_does_not_flicker() {
    let cases = [
        (DrmFourcc::C8 as u32, 0, "C8   LINEAR"),
        (DrmFourcc::Xrgb8888 as u32, DrmModifier::I915_x_tiled.into(), "XR24 I915_X_TILED"),
    ];
    for (drm_format, drm_format_mod, name) in cases {
        let mut fixture = surface();
        fixture.refresh();
        fixture.device.show(PlaneInfo { drm_format, drm_format_mod, ..plane(2, 32, 16) }, 0);
        let text = "The picture has a format that cannot be shown.".to_owned();
        assert_eq!(fixture.refresh(), [Call::ShowMessage(640, 480, text)]);
        for _ in 0..50 {
            assert_eq!(fixture.refresh(), []);
        }
        assert_eq!(
            fixture.console.take_log(),
            [format!(
                "fake: format {name} can only be shown by a display with OpenGL (gl=on) that knows it"
            )]
        );
        fixture.console.set().support = ScanoutSupport::Import;
        fixture.refresh();
        assert_eq!(fixture.console.scanned_out(), inode(&fixture, 2));
    }
}

#[test]
fn a_format_that_the_front_end_does_not_know_is_converted() {
    let mut fixture = scanout();
    fixture.console.set().formats = vec![DrmFourcc::Xrgb8888];
    fixture.refresh();
    assert_eq!(fixture.console.get().shows, Shows::Scanout(0));
    let info = PlaneInfo { drm_format: DrmFourcc::Xbgr8888 as u32, ..plane(2, 32, 16) };
    fixture.device.show(info, 0);
    fixture.device.draw(2, 0, &[1, 2, 3, 4]);
    fixture.refresh();
    assert_eq!(shown(&mut fixture)[..2], [0x0001_0203, 0]);
}

#[test]
fn a_dma_buf_that_cannot_be_mapped_is_said_with_what_to_do() {
    let mut fixture = surface();
    fixture.device.add(&plane(2, 32, 16), 0x22);
    for id in 1..=2 {
        let path = format!("/proc/self/fd/{}", fixture.device.get().dma_bufs[&id].as_raw_fd());
        let unreadable = OpenOptions::new().write(true).open(path).unwrap();
        fixture.device.set().dma_bufs.insert(id, unreadable);
    }
    for _ in 0..50 {
        assert!(!fixture.refresh().iter().any(is_update));
    }
    let log = fixture.console.take_log();
    assert_eq!(log.len(), 1);
    assert!(log[0].starts_with("fake: dma-buf with id 1 cannot be mapped"), "{log:?}");
    assert!(log[0].ends_with("with OpenGL on a GPU (gl=on)"), "{log:?}");
    // Nor is that of similar ones, in another mode.
    for shown in [PlaneInfo::default(), plane(2, 32, 16)] {
        fixture.device.show(shown, 0);
        for _ in 0..50 {
            fixture.pass(Duration::from_millis(100));
            fixture.refresh();
        }
    }
    assert_eq!(fixture.console.take_log(), [""; 0]);
    assert_eq!(fixture.device.take_gets(), [1, 2]);
    fixture.console.set().support = ScanoutSupport::Import;
    fixture.refresh();
    assert_eq!(fixture.console.get().shows, Shows::Scanout(0));
}

#[test]
fn a_file_that_shrinks_under_the_surface_keeps_the_picture_for_a_while() {
    let mut fixture = surface();
    let file = fixture.device.files().with(&[0x55; 32 * 16 * 4], false);
    fixture.device.set().dma_bufs.insert(1, file);
    fixture.refresh();
    fixture.device.get().dma_bufs[&1].set_len(100).unwrap();
    for _ in 0..PATIENCE {
        assert_eq!(fixture.refresh(), []);
        assert_eq!(fixture.console.get().shows, Shows::Surface(32, 16));
    }
    assert!(matches!(fixture.refresh()[..], [Call::ShowMessage(..)]));
    for _ in 0..50 {
        assert_eq!(fixture.refresh(), [], "no surface comes and goes");
    }
    assert_eq!(fixture.console.take_log().len(), 1);
    fixture.device.get().dma_bufs[&1].set_len(32 * 16 * 4).unwrap();
    fixture.refresh();
    assert_eq!(shown(&mut fixture)[0], 0x5555_5555);
}

#[test]
fn a_front_end_that_has_not_released_the_scanout_is_given_nothing_new() {
    let mut fixture = scanout();
    fixture.refresh();
    fixture.display().block(true);
    assert_eq!(status(&mut fixture, "/pool/pinned"), 1);
    fixture.device.show(plane(2, 32, 16), 0);
    let queries = fixture.device.get().counts.primary;
    for _ in 0..10 {
        assert_eq!(fixture.refresh(), []);
    }
    assert_eq!(fixture.device.get().counts.primary, queries);
    fixture.display().block(false);
    fixture.refresh();
    assert_eq!(fixture.console.scanned_out(), inode(&fixture, 2));
    assert_eq!(status(&mut fixture, "/pool/pinned"), 1);
}

#[test]
fn loans_need_not_be_balanced() {
    let mut fixture = scanout();
    fixture.display().block(true);
    fixture.refresh();
    fixture.display().block(true);
    fixture.display().block(true);
    fixture.display().block(false);
    fixture.display().block(false);
    fixture.refresh();
    assert_eq!(status(&mut fixture, "/pool/violations"), 0);
    assert_eq!(status(&mut fixture, "/pool/pinned"), 1);
}

#[test]
fn what_is_lent_is_not_evicted() {
    let config = Config { pool: Limits { count: 1, bytes: 1 << 30 }, ..Config::default() };
    let mut fixture = Fixture::new(Mode::DmaBuf, config, &super::dma_buf_device());
    fixture.console.set().support = ScanoutSupport::Import;
    fixture.refresh();
    fixture.display().block(true);
    fixture.display().reset();
    for id in 2..6 {
        fixture.device.show(plane(id, 32, 16), 0);
        fixture.refresh();
        assert_eq!(fixture.console.scanned_out(), inode(&fixture, id), "the reset ended the wait");
        assert!(fixture.console.get().imports.contains_key(&0), "it stays in use");
        fixture.device.set().dma_bufs.remove(&id);
    }
    fixture.display().block(false);
    assert!(!fixture.console.get().imports.contains_key(&0));
    assert_eq!(fixture.console.get().imports.len(), 1);
}

#[test]
fn planes_of_any_size_come_and_go_within_the_limits() {
    let config = Config { pool: Limits { count: 100, bytes: 1 << 20 }, ..Config::default() };
    let mut fixture = Fixture::new(Mode::DmaBuf, config, &FakeDevice::default());
    fixture.console.set().support = ScanoutSupport::Import;
    for id in 1..50 {
        fixture.device.set().primary = plane(id, 256, 256);
        // Larger than the pool may be: only what is on screen stays.
        let file = fixture.device.files().create(i64::MAX as u64, true);
        fixture.device.set().dma_bufs.insert(id, file);
        fixture.refresh();
        assert_eq!(fixture.console.scanned_out(), inode(&fixture, id));
        fixture.device.set().dma_bufs.remove(&id);
        assert_eq!(status(&mut fixture, "/pool/buffers"), 1);
    }
}

#[test]
fn what_is_drawn_while_front_ends_change_is_shown() {
    let mut fixture = surface();
    for (byte, support) in [
        (0x21, ScanoutSupport::None),
        (0x22, ScanoutSupport::ReadBack),
        (0x23, ScanoutSupport::None),
    ] {
        fixture.console.set().support = support;
        fixture.device.draw(1, 0, &[byte; 32 * 16 * 4]);
        fixture.refresh();
        assert_eq!(shown(&mut fixture), [u32::from(byte) * 0x0101_0101; 32 * 16]);
    }
}

#[test]
fn what_is_beyond_the_limits_is_shown_all_the_same() {
    for support in [ScanoutSupport::None, ScanoutSupport::ReadBack, ScanoutSupport::Import] {
        let config = Config { pool: Limits { count: 1, bytes: 1 }, ..Config::default() };
        let mut fixture = Fixture::new(Mode::DmaBuf, config, &dma_buf_device());
        fixture.console.set().support = support;
        for id in 2..5 {
            fixture.device.show(plane(id, 32, 16), 0);
            fixture.refresh();
            assert_eq!(status(&mut fixture, "/plane/handle"), id, "{support:?}");
            assert_eq!(status(&mut fixture, "/pool/buffers"), 1);
        }
        assert_eq!(fixture.device.take_gets(), [2, 3, 4]);
    }
}

#[test]
fn a_scanout_can_be_captured() {
    let mut fixture = scanout();
    assert!(fixture.display().capture().is_none());
    fixture.refresh();
    fixture.device.draw(1, 4, &[9; 4]);
    let picture = fixture.display().capture().unwrap();
    assert_eq!((picture.width, picture.height), (32, 16));
    assert_eq!(picture.pixels[..12], [0x11, 0x11, 0x11, 0x11, 9, 9, 9, 9, 0x11, 0x11, 0x11, 0x11]);
    fixture.console.set().support = ScanoutSupport::None;
    fixture.refresh();
    assert!(fixture.display().capture().is_none(), "a surface is there already");
}

#[test]
fn status_says_what_is_shown_held_and_done() {
    let mut fixture = scanout();
    fixture.device.point(crate::testing::cursor(7, 10, 20), 0);
    fixture.refresh();
    fixture.refresh();
    assert_eq!(
        fixture.display().status(),
        json!({
            "device": "fake",
            "mode": "dma-buf",
            "shows": "scanout",
            "thread": false,
            "edid": false,
            "refreshes": 2,
            "queries": 4,
            "gets": 2,
            "races": 0,
            "imports": 2,
            "flips": 0,
            "pacing": { "polls": 0 },
            "refresh-microseconds": {
                "median": 0, "p99": 0, "longest": 0, "counts": [{ "microseconds": 0, "refreshes": 2 }],
            },
            "errors": [],
            "plane": {
                "width": 32, "height": 16, "stride": 128, "fourcc": "XR24", "modifier": "LINEAR", "handle": 1,
            },
            "cursor": {
                "width": 64, "height": 64, "stride": 256, "fourcc": "AR24", "modifier": "LINEAR", "handle": 7,
                "x": 10, "y": 20,
            },
            "pool": {
                "buffers": 2, "pinned": 2, "bytes": 2048 + 16384, "look-ups": 2, "evictions": 0,
                "duplicates": 0, "violations": 0,
            },
        })
    );
    fixture.device.set().get_errors = Errors::always(libc::EIO);
    fixture.device.set().primary = plane(5, 32, 16);
    fixture.refresh();
    assert_eq!(status(&mut fixture, "/errors"), json!([{ "kind": "get", "count": 1 }]));
    let last = status(&mut fixture, "/last-error");
    assert_eq!(last, "GET_GFX_DMABUF of id 5: Input/output error (os error 5)");
    assert_eq!(status(&mut fixture, "/errors-withheld"), 0);
    let text = fixture.display().describe();
    assert!(
        text.starts_with("fake (dma-buf mode): shows scanout\n  plane: 32x16 XR24 LINEAR"),
        "{text}"
    );
    assert!(
        text.contains("cursor: 64x64 AR24 LINEAR stride 256 at 10,20, hotspot not set"),
        "{text}"
    );
}

#[test]
fn all_is_given_back_in_the_end() {
    for mut fixture in [scanout(), surface()] {
        fixture.device.point(crate::testing::cursor(7, 10, 20), 0);
        fixture.refresh();
        fixture.display().block(true);
        fixture.device.show(plane(2, 32, 16), 0);
        fixture.refresh();
        fixture.end();
        assert_eq!(fixture.console.get().imports.len(), 0);
        assert_eq!(fixture.device.files().open_descriptors(), 3, "the device's own");
        assert_eq!(fixture.device.files().mappings(), 0);
        assert_eq!(fixture.console.take_log(), [""; 0]);
    }
}

#[test]
fn probing_tells_the_modes_apart() {
    use crate::display::probe;
    let device = FakeDevice::default();
    let both = |probes| {
        device.set().probes = probes;
        probe(&device).unwrap()
    };
    assert_eq!(both(0), None);
    assert_eq!(both(PlaneInfo::REGION), Some(Mode::Region));
    assert_eq!(both(PlaneInfo::REGION | PlaneInfo::DMABUF), Some(Mode::DmaBuf));
    device.set().primary_errors = Errors::always(libc::ENOTTY);
    assert_eq!(probe(&device).unwrap(), None);
    for errno in [libc::ENODEV, libc::ETIMEDOUT] {
        device.set().primary_errors = Errors::times(1, errno);
        assert_eq!(probe(&device).unwrap_err().raw_os_error(), Some(errno));
    }
}
