//! Resets, devices that disappear, and leaks.

use std::time::Duration;

use crate::config::Config;
use crate::console::ScanoutSupport;
use crate::device::Mode;
use crate::plane::PlaneInfo;
use crate::testing::{Call, Errors, Fixture, Shows, cursor, plane};
use crate::watcher::BACKOFF;

use super::{OFF, dma_buf_device, errors, region, rotating, scanout, shown, status, surface};

const BUFFERS: [u32; 4] = [1, 3, 8, 16];

#[test]
fn a_reset_lets_go_of_everything_and_the_picture_is_back_at_once() {
    let mut fixture = scanout();
    fixture.device.point(cursor(7, 1, 1), 0);
    fixture.refresh();
    fixture.console.take_calls();
    fixture.display().reset();
    assert_eq!(fixture.console.take_calls(), [Call::RequestRefresh], "this may be a vCPU's thread");
    assert_eq!(
        fixture.refresh()[..2],
        [Call::ScanoutCursor(None, None), Call::ShowMessage(640, 480, OFF.to_owned())]
    );
    assert_eq!(fixture.console.get().imports.len(), 2, "none of before");
    assert_eq!(fixture.device.files().open_descriptors(), 4, "the device's own, and one of each");
    assert_eq!(fixture.console.get().shows, Shows::Scanout(2));
    assert_eq!(fixture.console.get().cursor, Some(3));
    assert_eq!(fixture.device.take_gets(), [1, 7, 1, 7]);
}

#[test]
fn where_the_device_keeps_ids_a_reset_gets_nothing_again() {
    let mut fixture = scanout();
    fixture.device.set().keeps_ids = true;
    fixture.refresh();
    fixture.display().reset();
    let calls = fixture.refresh();
    assert!(calls.iter().any(|call| matches!(call, Call::ShowMessage(..))));
    assert_eq!(fixture.console.get().shows, Shows::Scanout(0));
    assert_eq!(fixture.device.take_gets(), [1]);
}

#[test]
fn after_a_reset_an_id_means_what_the_device_says_now() {
    let mut fixture = surface();
    fixture.refresh();
    fixture.display().reset();
    fixture.device.add(&plane(1, 32, 16), 0x99);
    fixture.refresh();
    assert_eq!(shown(&mut fixture), [0x9999_9999; 32 * 16]);
}

#[test]
fn after_a_mode_set_too_unless_the_device_keeps_ids() {
    for keeps_ids in [false, true] {
        let mut fixture = surface();
        fixture.device.set().keeps_ids = keeps_ids;
        fixture.device.show(plane(2, 32, 16), 0x22);
        fixture.refresh();
        fixture.device.show(plane(1, 32, 16), 0x11);
        fixture.refresh();
        // Off in between, as while a mode's registers are written.
        fixture.device.set().primary = PlaneInfo::default();
        fixture.refresh();
        fixture.device.show(plane(3, 64, 16), 0x33);
        fixture.refresh();
        assert_eq!(status(&mut fixture, "/pool/buffers"), if keeps_ids { 3 } else { 1 });
        fixture.device.show(plane(2, 32, 16), 0x99);
        fixture.refresh();
        let byte = if keeps_ids { 0x2222_2222 } else { 0x9999_9999 };
        assert_eq!(shown(&mut fixture), [byte; 32 * 16]);
        let gets: &[u32] = if keeps_ids { &[2, 1, 3] } else { &[2, 1, 3, 2] };
        assert_eq!(fixture.device.take_gets(), gets);
    }
}

#[test]
fn a_reset_before_the_first_picture_shows_nothing() {
    let mut fixture = scanout();
    fixture.display().reset();
    let calls = fixture.refresh();
    assert!(!calls.iter().any(|call| matches!(call, Call::ShowMessage(..))), "{calls:?}");
}

#[test]
fn a_loan_outlives_a_reset_and_does_not_hold_up_what_comes_after() {
    for keeps_ids in [false, true] {
        let mut fixture = scanout();
        fixture.device.set().keeps_ids = keeps_ids;
        fixture.refresh();
        fixture.display().block(true);
        fixture.display().reset();
        assert!(fixture.console.get().imports.contains_key(&0), "the front end may still read it");
        fixture.refresh();
        let import = u32::from(!keeps_ids);
        assert_eq!(fixture.console.get().shows, Shows::Scanout(import));
        fixture.display().block(false);
        assert_eq!(fixture.console.get().imports.len(), 1);
        assert_eq!(status(&mut fixture, "/pool/violations"), 0);
    }
}

#[test]
fn a_thousand_resets_end_where_they_began() {
    for buffers in BUFFERS {
        let mut fixture = rotating(buffers);
        let device = fixture.device.clone();
        let round = |fixture: &mut Fixture| {
            for id in 1..=buffers {
                device.set().primary = plane(id, 16, 16);
                // Sometimes as a surface, so that there are mappings, too.
                fixture.console.set().support =
                    if id % 4 == 0 { ScanoutSupport::None } else { ScanoutSupport::Import };
                fixture.refresh();
            }
        };
        round(&mut fixture);
        let descriptors = device.files().open_descriptors();
        let mappings = device.files().mappings();
        for _ in 0..1000 {
            fixture.display().reset();
            round(&mut fixture);
            device.take_gets();
        }
        assert_eq!(device.files().open_descriptors(), descriptors, "{buffers} buffers");
        assert_eq!(device.files().mappings(), mappings, "{buffers} buffers");
        assert_eq!(status(&mut fixture, "/pool/buffers"), buffers + 1);
        assert_eq!(status(&mut fixture, "/pool/violations"), 0);
        assert_eq!(fixture.console.take_log(), [""; 0]);
        fixture.end();
        assert_eq!(device.files().open_descriptors(), buffers as usize + 1, "the device's own");
    }
}

#[test]
fn a_thousand_resets_of_a_region_end_where_they_began() {
    let mut fixture = region();
    fixture.refresh();
    let held = |fixture: &Fixture| {
        (fixture.device.files().open_descriptors(), fixture.device.files().mappings())
    };
    let before = held(&fixture);
    for _ in 0..1000 {
        fixture.display().reset();
        assert_eq!(fixture.device.files().mappings(), 0);
        fixture.refresh();
        assert_eq!(fixture.console.get().shows, Shows::Surface(32, 16));
    }
    assert_eq!(held(&fixture), before);
}

#[test]
fn a_hundred_thousand_flips_get_each_buffer_once_while_the_pool_has_room() {
    for buffers in 1..=32 {
        let mut fixture = rotating(buffers);
        let device = fixture.device.clone();
        let flips = 100_000 / 32;
        for flip in 0..flips {
            device.set().primary = plane(1 + flip % buffers, 16, 16);
            fixture.display().refresh(true);
            fixture.console.take_calls();
        }
        let gets = device.take_gets().len();
        let room = u32::try_from(Config::default().pool.count).unwrap() - 1;
        if buffers <= room {
            assert_eq!(gets, buffers as usize + 1, "{buffers} buffers and a cursor");
            assert_eq!(status(&mut fixture, "/pool/evictions"), 0);
        } else {
            assert_eq!(status(&mut fixture, "/pool/buffers"), room + 1, "{buffers} buffers");
        }
        assert_eq!(
            device.files().open_descriptors(),
            device.get().dma_bufs.len() + buffers.min(room) as usize + 1
        );
    }
}

#[test]
fn a_guest_with_a_new_buffer_at_each_flip_does_not_grow_the_pool() {
    let device = dma_buf_device();
    let mut fixture = Fixture::new(Mode::DmaBuf, Config::default(), &device);
    fixture.console.set().support = ScanoutSupport::Import;
    for id in 2..2000 {
        device.show(plane(id, 32, 16), 0);
        fixture.refresh();
        device.set().dma_bufs.remove(&(id - 1));
        assert!(device.files().open_descriptors() <= Config::default().pool.count + 2);
    }
    assert_eq!(fixture.console.get().imports.len(), Config::default().pool.count);
}

#[test]
fn a_device_that_is_gone_is_said_once_and_asked_seldom() {
    // A host that returns ESHUTDOWN has told the user itself.
    for (errno, said) in
        [(libc::ENODEV, 1), (libc::EPIPE, 1), (libc::ECONNRESET, 1), (libc::ESHUTDOWN, 0)]
    {
        let mut fixture = scanout();
        fixture.device.point(cursor(7, 1, 1), 0);
        fixture.refresh();
        fixture.device.set().primary_errors = Errors::always(errno);
        fixture.refresh();
        assert_eq!(fixture.console.message().as_deref(), Some("The device is gone."));
        assert_eq!(fixture.console.get().imports.len(), 0, "its memory is released");
        let queries = fixture.device.get().counts.primary;
        for _ in 0..300 {
            fixture.refresh();
            fixture.pass(Duration::from_millis(33));
        }
        let asked = fixture.device.get().counts.primary - queries;
        assert!((8..=10).contains(&asked), "{asked} questions in 10 s");
        assert_eq!(fixture.console.take_log().len(), said);
        assert_eq!(errors(&mut fixture, "query"), u64::from(asked) + 1);

        fixture.device.set().primary_errors = Errors::default();
        fixture.pass(BACKOFF);
        fixture.refresh();
        assert!(matches!(fixture.console.get().shows, Shows::Scanout(_)), "it is back");
        assert!(fixture.console.get().cursor.is_some());
    }
}

#[test]
fn a_device_that_does_not_answer_is_left_alone_for_a_while() {
    let mut fixture = scanout();
    fixture.refresh();
    fixture.device.set().primary_errors = Errors::times(1, libc::ETIMEDOUT);
    fixture.refresh();
    assert_eq!(fixture.console.message().as_deref(), Some("The device does not answer."));
    let queries = fixture.device.get().counts.primary;
    for _ in 0..10 {
        assert_eq!(fixture.refresh(), []);
    }
    assert_eq!(fixture.device.get().counts.primary, queries);
    fixture.pass(BACKOFF);
    assert_eq!(fixture.refresh()[0], Call::Scanout(0), "what it told still holds");
}

#[test]
fn a_reset_ends_the_respite() {
    let mut fixture = scanout();
    fixture.device.set().primary_errors = Errors::times(1, libc::ETIMEDOUT);
    fixture.refresh();
    fixture.display().reset();
    fixture.refresh();
    assert_eq!(fixture.console.get().shows, Shows::Scanout(0));
}

#[test]
fn a_get_that_is_not_answered_counts_as_well() {
    let mut fixture = scanout();
    fixture.device.set().get_errors = Errors::times(1, libc::ETIMEDOUT);
    fixture.refresh();
    assert_eq!(fixture.console.message().as_deref(), Some("The device does not answer."));
    fixture.refresh();
    assert_eq!(fixture.device.take_gets(), [1]);
}
