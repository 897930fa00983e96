//! The cursor plane.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::time::Duration;

use drm_fourcc::DrmFourcc;

use crate::console::ScanoutSupport;
use crate::plane::PlaneInfo;
use crate::testing::{Call, Errors, FakeDevice, Fixture, Image, Shows, cursor, plane};
use crate::watcher::ABSENT_INTERVAL;

use super::{is_update, scanout, status, surface, thread};

/// Returns the calls about the pointer that the console got at a refresh.
fn told(fixture: &mut Fixture) -> Vec<Call> {
    let mut calls = fixture.refresh();
    calls.retain(|call| {
        use Call as C;
        matches!(
            call,
            C::ScanoutCursor(..)
                | C::MoveScanoutCursor(..)
                | C::SurfaceCursor(_)
                | C::MoveSurfaceCursor(..)
        )
    });
    calls
}

/// A display that shows a scanout, and a cursor with id 7 at 10,20 above it, which is import 1.
fn with_cursor() -> Fixture {
    let mut fixture = scanout();
    fixture.device.point(cursor(7, 10, 20), 0x77);
    assert_eq!(
        told(&mut fixture),
        [Call::ScanoutCursor(Some(1), None), Call::MoveScanoutCursor(10, 20)]
    );
    fixture
}

fn image(width: u32, height: u32, hotspot: (u32, u32), pixels: &[u8]) -> Call {
    Call::SurfaceCursor(Some(Image { width, height, hotspot, pixels: pixels.to_vec() }))
}

fn queries(fixture: &Fixture) -> u32 {
    fixture.device.get().counts.cursor
}

#[test]
fn it_has_its_position_from_the_first_frame_on_even_at_0_0() {
    let mut fixture = scanout();
    fixture.device.point(PlaneInfo { x_hot: 3, y_hot: 4, ..cursor(7, 0, 0) }, 0);
    assert_eq!(
        told(&mut fixture),
        [Call::ScanoutCursor(Some(1), Some((3, 4))), Call::MoveScanoutCursor(0, 0)]
    );
    assert_eq!(told(&mut fixture), []);
}

#[test]
fn one_that_the_front_end_does_not_take_is_a_pointer_above_the_scanout() {
    let mut fixture = with_cursor();
    fixture.console.set().formats = vec![DrmFourcc::Xrgb8888];
    assert_eq!(
        told(&mut fixture),
        [
            Call::ScanoutCursor(None, None),
            image(64, 64, (0, 0), &[0x77; 64 * 64 * 4]),
            Call::MoveSurfaceCursor(10, 20)
        ]
    );
    assert_eq!(told(&mut fixture), []);
    fixture.console.set().formats.clear();
    assert_eq!(
        told(&mut fixture),
        [
            Call::SurfaceCursor(None),
            Call::ScanoutCursor(Some(1), None),
            Call::MoveScanoutCursor(10, 20)
        ]
    );
}

#[test]
fn it_moves_without_the_screen_being_scanned_out_again() {
    let mut fixture = with_cursor();
    fixture.device.set().cursor = cursor(7, 11, 21);
    let mut calls = fixture.refresh();
    calls.retain(|call| !is_update(call));
    assert_eq!(calls, [Call::MoveScanoutCursor(11, 21)]);
    assert_eq!(fixture.device.take_gets(), [1, 7]);
}

#[test]
fn what_is_drawn_in_place_is_told_to_front_ends_that_took_the_buffer() {
    let mut fixture = with_cursor();
    assert_eq!(told(&mut fixture), []);
    fixture.device.draw(7, 4, &[1, 2, 3, 4]);
    assert_eq!(told(&mut fixture), [Call::ScanoutCursor(Some(1), None)]);
    assert_eq!(told(&mut fixture), []);
    assert_eq!(fixture.device.take_gets(), [1, 7]);
}

/// Has the device show a cursor with id 7 at 10,20 that no CPU can map or read, as GVT-g's.
fn point_for_gpus(device: &FakeDevice) {
    device.point(cursor(7, 10, 20), 0x77);
    let file = format!("/proc/self/fd/{}", device.get().dma_bufs[&7].as_raw_fd());
    let file = File::options().write(true).open(file).unwrap();
    device.set().dma_bufs.insert(7, file);
}

#[test]
fn one_that_only_gpus_read_is_told_ten_times_a_second() {
    let mut fixture = scanout();
    point_for_gpus(&fixture.device);
    assert_eq!(told(&mut fixture)[0], Call::ScanoutCursor(Some(1), None));
    for _ in 0..3 {
        fixture.pass(Duration::from_millis(60));
        assert_eq!(told(&mut fixture), []);
        fixture.pass(Duration::from_millis(60));
        assert_eq!(told(&mut fixture), [Call::ScanoutCursor(Some(1), None)]);
    }
    // Moving it changes nothing of that.
    fixture.pass(Duration::from_millis(60));
    fixture.device.set().cursor = cursor(7, 11, 21);
    assert_eq!(told(&mut fixture), [Call::MoveScanoutCursor(11, 21)]);
    fixture.pass(Duration::from_millis(60));
    assert_eq!(told(&mut fixture), [Call::ScanoutCursor(Some(1), None)]);
    assert_eq!(fixture.device.take_gets(), [1, 7]);
}

#[test]
fn one_that_only_gpus_read_is_told_while_a_watcher_apart_has_nothing_new() {
    let mut apart = thread::scanout();
    point_for_gpus(&apart.fixture.device);
    apart.live(Duration::from_millis(500));
    apart.fixture.console.take_calls();
    apart.live(Duration::from_secs(1));
    let mut calls = apart.fixture.console.take_calls();
    calls.retain(|call| !is_update(call));
    assert_eq!(calls, vec![Call::ScanoutCursor(Some(1), None); calls.len()]);
    assert!((8..=10).contains(&calls.len()), "{calls:?}");
}

#[test]
fn positions_are_negative_where_the_device_says_so() {
    let mut fixture = with_cursor();
    fixture.device.set().cursor = cursor(7, 5u32.wrapping_neg(), 0x8000_0000);
    assert_eq!(told(&mut fixture), [Call::MoveScanoutCursor(-5, i32::MIN)]);
}

#[test]
fn a_hotspot_is_told_when_it_changes_and_only_if_it_is_one() {
    let mut fixture = with_cursor();
    let hot = |x_hot, y_hot| PlaneInfo { x_hot, y_hot, ..cursor(7, 10, 20) };
    for (info, hotspot) in [(hot(0, 0), Some((0, 0))), (hot(63, 63), Some((63, 63)))] {
        fixture.device.set().cursor = info;
        assert_eq!(told(&mut fixture), [Call::ScanoutCursor(Some(1), hotspot)]);
    }
    for info in [hot(64, 0), hot(0, u32::MAX), hot(u32::MAX, u32::MAX)] {
        fixture.device.set().cursor = hot(1, 1);
        fixture.refresh();
        fixture.device.set().cursor = info;
        assert_eq!(told(&mut fixture), [Call::ScanoutCursor(Some(1), None)]);
    }
    assert_eq!(fixture.device.take_gets(), [1, 7]);
}

#[test]
fn it_vanishes_and_comes_back_without_another_get() {
    let mut fixture = with_cursor();
    for _ in 0..3 {
        fixture.device.set().cursor = PlaneInfo::default();
        assert_eq!(told(&mut fixture), [Call::ScanoutCursor(None, None)]);
        assert_eq!(status(&mut fixture, "/pool/pinned"), 1);
        fixture.device.set().cursor = cursor(7, 30, 30);
        assert_eq!(
            told(&mut fixture),
            [Call::ScanoutCursor(Some(1), None), Call::MoveScanoutCursor(30, 30)]
        );
    }
    assert_eq!(fixture.device.take_gets(), [1, 7]);
}

#[test]
fn another_buffer_or_size_is_another_pointer() {
    let mut fixture = with_cursor();
    fixture.device.point(cursor(8, 10, 20), 0);
    assert_eq!(
        told(&mut fixture),
        [Call::ScanoutCursor(Some(2), None), Call::MoveScanoutCursor(10, 20)]
    );
    let large = PlaneInfo { drm_format: DrmFourcc::Argb8888 as u32, ..plane(8, 256, 256) };
    fixture.device.point(large, 0);
    assert_eq!(
        told(&mut fixture),
        [Call::ScanoutCursor(Some(3), None), Call::MoveScanoutCursor(0, 0)]
    );
    assert_eq!(fixture.device.take_gets(), [1, 7, 8, 8]);
    assert_eq!(status(&mut fixture, "/pool/pinned"), 2);
}

#[test]
fn the_screen_changes_under_it_without_it_being_told_again() {
    let mut fixture = with_cursor();
    fixture.device.show(plane(2, 32, 16), 0);
    assert_eq!(told(&mut fixture), []);
}

#[test]
fn it_is_told_again_to_those_who_want_to_see_all_again() {
    let mut fixture = with_cursor();
    fixture.display().invalidate();
    assert_eq!(
        told(&mut fixture),
        [Call::ScanoutCursor(Some(1), None), Call::MoveScanoutCursor(10, 20)]
    );
    assert_eq!(told(&mut fixture), []);
}

#[test]
fn a_device_without_one_is_asked_once() {
    for errno in [libc::EINVAL, libc::ENOTTY] {
        let mut fixture = scanout();
        fixture.device.set().cursor_errors = Errors::always(errno);
        for _ in 0..100 {
            fixture.refresh();
        }
        assert_eq!(queries(&fixture), 1);
        assert_eq!(fixture.console.take_log(), [""; 0]);
    }
}

#[test]
fn a_device_whose_cursor_was_always_off_is_asked_seldom() {
    let mut fixture = scanout();
    for _ in 0..=10 * ABSENT_INTERVAL {
        fixture.refresh();
    }
    assert_eq!(queries(&fixture), 1 + 10);
    fixture.device.point(cursor(7, 1, 2), 0);
    for _ in 0..ABSENT_INTERVAL {
        fixture.refresh();
    }
    assert_eq!(fixture.console.get().cursor, Some(1));
}

#[test]
fn it_is_looked_for_again_after_a_mode_set_or_a_reset() {
    let mut fixture = scanout();
    fixture.device.set().cursor_errors = Errors::always(libc::EINVAL);
    fixture.refresh();
    fixture.refresh();
    assert_eq!(queries(&fixture), 1);
    fixture.device.show(plane(2, 64, 64), 0);
    fixture.refresh();
    fixture.refresh();
    assert_eq!(queries(&fixture), 2);
    fixture.device.set().cursor_errors = Errors::default();
    fixture.device.point(cursor(7, 1, 2), 0);
    fixture.display().reset();
    assert_eq!(told(&mut fixture).len(), 2);
}

#[test]
fn a_device_that_had_one_and_refuses_the_question_is_asked_again() {
    let mut fixture = with_cursor();
    fixture.device.set().cursor_errors = Errors::times(1, libc::EINVAL);
    assert_eq!(told(&mut fixture), [Call::ScanoutCursor(None, None)]);
    for _ in 1..ABSENT_INTERVAL {
        assert_eq!(told(&mut fixture), []);
    }
    assert_eq!(told(&mut fixture).len(), 2);
}

#[test]
fn what_passes_by_itself_leaves_it_where_it_is() {
    let mut fixture = with_cursor();
    fixture.device.set().cursor_errors = Errors::times(4, libc::EAGAIN);
    assert_eq!(told(&mut fixture), []);
    assert_eq!(told(&mut fixture), []);
    fixture.device.set().cursor = cursor(7, 1, 1);
    assert_eq!(told(&mut fixture), [Call::MoveScanoutCursor(1, 1)]);
    assert_eq!(fixture.console.take_log(), [""; 0]);
}

#[test]
fn a_flip_between_its_query_and_get_is_followed() {
    let mut fixture = with_cursor();
    fixture.device.point(cursor(8, 10, 20), 0);
    fixture.device.set().get_errors = Errors::times(1, libc::ENOENT);
    assert_eq!(told(&mut fixture)[0], Call::ScanoutCursor(Some(2), None));
    assert_eq!(status(&mut fixture, "/races"), 1);
}

#[test]
fn lies_about_it_cost_the_pointer_and_not_the_screen() {
    let mut fixture = with_cursor();
    for lie in [
        PlaneInfo { width: 513, ..cursor(9, 0, 0) },
        PlaneInfo { height: 0, ..cursor(9, 0, 0) },
        PlaneInfo { stride: 252, ..cursor(9, 0, 0) },
        PlaneInfo { drm_format: 1, ..cursor(9, 0, 0) },
    ] {
        fixture.device.set().cursor = lie;
        for _ in 0..20 {
            assert!(fixture.refresh().iter().any(is_update));
        }
        assert_eq!(fixture.console.get().cursor, None);
        let log = fixture.console.take_log();
        assert_eq!(log.len(), 1);
        assert!(log[0].starts_with("fake: QUERY_GFX_PLANE of the cursor plane: "), "{log:?}");
    }
    assert_eq!(fixture.device.take_gets(), [1, 7]);
}

#[test]
fn a_cursor_plane_that_does_not_answer_is_left_alone_for_a_while() {
    let mut fixture = with_cursor();
    let before = queries(&fixture);
    fixture.device.set().cursor_errors = Errors::always(libc::ETIMEDOUT);
    for _ in 0..=2 * ABSENT_INTERVAL {
        assert!(fixture.refresh().iter().any(is_update));
    }
    assert_eq!(queries(&fixture) - before, 3);
    assert_eq!(fixture.console.get().cursor, None);
    assert_eq!(fixture.console.take_log().len(), 1);
}

#[test]
fn above_a_surface_it_is_an_image() {
    let mut fixture = surface();
    let info = PlaneInfo { x_hot: 2, y_hot: 3, ..cursor(7, 10, 20) };
    fixture.device.point(info, 0x77);
    fixture.device.draw(7, 4, &[1, 2, 3, 4]);
    let mut pixels = vec![0x77; 64 * 64 * 4];
    pixels[4..8].copy_from_slice(&[1, 2, 3, 4]);
    assert_eq!(
        told(&mut fixture),
        [image(64, 64, (2, 3), &pixels), Call::MoveSurfaceCursor(10, 20)]
    );
    assert_eq!(told(&mut fixture), []);

    fixture.device.set().cursor = PlaneInfo { x_pos: 11, ..info };
    assert_eq!(told(&mut fixture), [Call::MoveSurfaceCursor(11, 20)]);

    // Drawn in place, without any sign from the device.
    fixture.device.draw(7, 4, &[0x77; 4]);
    pixels[4..8].fill(0x77);
    assert_eq!(told(&mut fixture), [image(64, 64, (2, 3), &pixels)]);

    fixture.device.set().cursor = cursor(7, 11, 20);
    assert_eq!(
        told(&mut fixture),
        [image(64, 64, (0, 0), &pixels), Call::MoveSurfaceCursor(11, 20)]
    );
    fixture.device.set().cursor = PlaneInfo::default();
    assert_eq!(told(&mut fixture), [Call::SurfaceCursor(None)]);
    assert_eq!(fixture.console.get().imports.len(), 0);
}

#[test]
fn rows_of_an_image_are_without_padding_and_opaque_where_there_is_no_alpha() {
    let mut fixture = surface();
    let info = PlaneInfo {
        drm_format: DrmFourcc::Xrgb8888 as u32,
        width: 2,
        height: 2,
        stride: 12,
        size: 24,
        ..cursor(7, 0, 0)
    };
    fixture.device.point(info, 0);
    fixture.device.draw(7, 0, &(1..=24).collect::<Vec<u8>>());
    let pixels = vec![1, 2, 3, 255, 5, 6, 7, 255, 13, 14, 15, 255, 17, 18, 19, 255];
    assert_eq!(told(&mut fixture)[0], image(2, 2, (0, 0), &pixels));
}

#[test]
fn an_image_that_cannot_be_read_any_more_is_hidden() {
    let mut fixture = surface();
    let info = cursor(7, 0, 0);
    let file = fixture.device.files().create(info.size.into(), false);
    fixture.device.set().dma_bufs.insert(7, file);
    fixture.device.set().cursor = info;
    assert_eq!(told(&mut fixture).len(), 2);
    fixture.device.get().dma_bufs[&7].set_len(0).unwrap();
    assert_eq!(told(&mut fixture), [Call::SurfaceCursor(None)]);
    for _ in 0..20 {
        assert_eq!(told(&mut fixture), []);
    }
    let log = fixture.console.take_log();
    assert_eq!(log.len(), 1);
    assert!(log[0].starts_with("fake: reading cursor dma-buf with id 7: "), "{log:?}");
    assert_eq!(status(&mut fixture, "/pool/pinned"), 1);
}

#[test]
fn it_follows_the_screen_between_scanout_and_surface() {
    let mut fixture = with_cursor();
    for _ in 0..3 {
        fixture.console.set().support = ScanoutSupport::None;
        let calls = fixture.refresh();
        assert_eq!(calls[0], Call::ScanoutCursor(None, None), "{calls:?}");
        assert!(calls.contains(&Call::MoveSurfaceCursor(10, 20)), "{calls:?}");
        assert_eq!(fixture.console.get().shows, Shows::Surface(32, 16));

        fixture.console.set().support = ScanoutSupport::Import;
        let calls = fixture.refresh();
        assert_eq!(calls[0], Call::SurfaceCursor(None), "{calls:?}");
        assert!(calls.contains(&Call::MoveScanoutCursor(10, 20)), "{calls:?}");
    }
    assert_eq!(fixture.device.take_gets(), [1, 7]);
    assert_eq!(status(&mut fixture, "/pool/violations"), 0);
}

#[test]
fn it_goes_with_the_screen() {
    let mut fixture = with_cursor();
    fixture.device.set().primary = PlaneInfo::default();
    assert_eq!(fixture.refresh_after_gap()[0], Call::ScanoutCursor(None, None));
    let before = queries(&fixture);
    fixture.refresh();
    assert_eq!(queries(&fixture), before, "no cursor is queried without a picture");
}
