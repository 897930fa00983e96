//! Pacing: polls between the front ends' refreshes.

use std::time::Duration;

use crate::clock::Alarm;
use crate::config::Config;
use crate::device::Mode;
use crate::testing::{Call, Errors, Fixture, plane};
use crate::watcher::BACKOFF;

use super::{dma_buf_device, region, rotating, scanout, status};

const MS: Duration = Duration::from_millis(1);

/// Refreshes when the display asks for it, as QEMU does.
fn pass(fixture: &mut Fixture, time: Duration) -> usize {
    let end = fixture.clock.time() + time;
    let mut refreshes = 0;
    while fixture.clock.time() < end {
        fixture.pass(MS / 10);
        if fixture.console.take_calls().contains(&Call::RequestRefresh) {
            fixture.refresh();
            refreshes += 1;
        }
    }
    refreshes
}

#[test]
fn flips_are_shown_when_they_come() {
    let mut fixture = rotating(3);
    for flip in 0..600 {
        fixture.device.set().primary = plane(1 + flip % 3, 16, 16);
        if flip % 2 == 0 && flip < 20 {
            fixture.refresh();
        }
        pass(&mut fixture, MS);
        if flip > 60 {
            let shown = status(&mut fixture, "/plane/handle");
            assert_eq!(shown, 1 + flip % 3, "a millisecond after flip {flip}");
        }
        pass(&mut fixture, 15 * MS);
    }
    assert_eq!(
        status(&mut fixture, "/pacing/period-microseconds").as_u64().map(|us| us / 1000),
        Some(16)
    );
    // Three buffers, and the cursor.
    assert_eq!(status(&mut fixture, "/gets"), 4);
}

#[test]
fn without_flips_nobody_is_asked_to_refresh() {
    let mut fixture = scanout();
    fixture.refresh();
    assert_eq!(pass(&mut fixture, 60 * 1000 * MS), 0);
    // No refresh for a minute: no front end shows it.
    assert_eq!(fixture.alarm_in(Alarm::Poll), None);
    assert!(status(&mut fixture, "/pacing/polls").as_u64().unwrap() < 40);
}

#[test]
fn a_plane_that_comes_and_goes_is_seen() {
    let mut fixture = scanout();
    fixture.refresh();
    let shown = fixture.device.get().primary;
    fixture.device.set().primary.drm_format = 0;
    assert_eq!(pass(&mut fixture, 110 * MS), 1);
    assert!(pass(&mut fixture, 300 * MS) > 0, "it is not waited for any longer");
    assert_eq!(fixture.console.message().as_deref(), Some(super::OFF));
    fixture.device.set().primary = shown;
    assert_eq!(pass(&mut fixture, 110 * MS), 1);
    assert_eq!(status(&mut fixture, "/shows"), "scanout");
}

#[test]
fn what_a_poll_has_just_found_is_not_asked_for_again() {
    let mut fixture = scanout();
    for id in 2..=4 {
        fixture.device.add(&plane(id, 32, 16), 0);
    }
    fixture.refresh();
    // The guest flips, a poll finds it, and the front end refreshes this much later.
    let cases =
        [(2, Duration::ZERO, true, 0), (3, MS, true, 0), (4, 2 * MS, true, 1), (2, MS, false, 1)];
    for (id, later, periodic, questions) in cases {
        fixture.device.set().primary = plane(id, 32, 16);
        while !fixture.console.take_calls().contains(&Call::RequestRefresh) {
            fixture.pass(MS / 10);
        }
        let asked = fixture.device.get().counts.primary;
        fixture.clock.set_time(fixture.clock.time() + later);
        fixture.refresh_as(periodic);
        assert_eq!(status(&mut fixture, "/plane/handle"), id);
        let asked_since = fixture.device.get().counts.primary - asked;
        assert_eq!(asked_since, questions, "{later:?} later");
    }
}

#[test]
fn while_a_front_end_holds_the_picture_there_is_no_poll() {
    let mut fixture = scanout();
    fixture.refresh();
    fixture.display().block(true);
    let asked = status(&mut fixture, "/queries");
    assert_eq!(pass(&mut fixture, 1000 * MS), 0);
    assert_eq!(status(&mut fixture, "/queries"), asked);
    assert_eq!(fixture.alarm_in(Alarm::Poll), None, "nobody is woken again and again");
    fixture.display().block(false);
    assert!(fixture.alarm_in(Alarm::Poll).is_some());
}

#[test]
fn a_device_that_fails_is_left_to_the_refreshes() {
    let mut fixture = scanout();
    fixture.refresh();
    fixture.device.set().primary_errors = Errors::always(libc::EIO);
    assert_eq!(pass(&mut fixture, 1000 * MS), 0);
    assert_eq!(fixture.console.take_log(), [""; 0]);
    assert!(status(&mut fixture, "/queries").as_u64().unwrap() < 20);
}

/// However long ago a front end had it polled.
#[test]
fn a_device_that_is_silent_once_is_left_alone_for_a_second() {
    let mut fixture = scanout();
    fixture.refresh();
    fixture.pass(900 * MS);
    fixture.device.set().primary_errors = Errors::times(1, libc::ETIMEDOUT);
    while fixture.console.take_log().is_empty() {
        fixture.pass(MS);
    }
    fixture.pass(BACKOFF);
    let asked = status(&mut fixture, "/queries").as_u64();
    fixture.refresh();
    assert!(status(&mut fixture, "/queries").as_u64() > asked);
}

#[test]
fn a_region_and_a_display_without_pacing_are_looked_at_only_when_asked() {
    let config = Config { pacing: false, ..Config::default() };
    for mut fixture in [region(), Fixture::new(Mode::DmaBuf, config, &dma_buf_device())] {
        fixture.refresh();
        assert_eq!(fixture.alarm_in(Alarm::Poll), None);
    }
}
