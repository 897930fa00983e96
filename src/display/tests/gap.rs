//! A plane that is off for a moment keeps its picture, and no longer.

use std::time::Duration;

use crate::clock::Alarm;
use crate::plane::PlaneInfo;
use crate::testing::{Call, Errors, Fixture};

use super::{OFF, region, scanout, status, surface, thread};

const MOMENT: Duration = Duration::from_millis(100);
const GAP: Duration = Duration::from_millis(300);

/// Refreshes for a while, as an idle front end does.
fn refresh_for(fixture: &mut Fixture, time: Duration) -> Vec<Call> {
    let mut calls = fixture.refresh();
    for _ in 0..time.as_millis() / 30 {
        fixture.pass(Duration::from_millis(30));
        calls.extend(fixture.refresh());
    }
    calls
}

fn take_away(fixture: &mut Fixture) -> PlaneInfo {
    std::mem::take(&mut fixture.device.set().primary)
}

#[test]
fn a_mode_set_does_not_flash() {
    for mut fixture in [scanout(), surface(), region()] {
        fixture.refresh();
        let shows = status(&mut fixture, "/shows");
        let plane = take_away(&mut fixture);
        assert_eq!(refresh_for(&mut fixture, MOMENT), [], "{shows}");
        assert_eq!(status(&mut fixture, "/shows"), shows);
        fixture.device.set().primary = plane;
        let calls = refresh_for(&mut fixture, 2 * GAP);
        assert!(!calls.iter().any(|call| matches!(call, Call::ShowMessage(..))), "{calls:?}");
        assert_eq!(fixture.alarm_in(Alarm::Gap), None);
    }
}

#[test]
fn each_gap_counts_by_itself() {
    let mut fixture = scanout();
    fixture.refresh();
    for _ in 0..10 {
        let plane = take_away(&mut fixture);
        assert_eq!(refresh_for(&mut fixture, 2 * MOMENT), []);
        fixture.device.set().primary = plane;
        refresh_for(&mut fixture, MOMENT);
        assert_eq!(fixture.console.message(), None);
    }
}

#[test]
fn a_plane_that_is_back_with_the_same_picture_is_missed_no_more() {
    for mut apart in [thread::region(), thread::scanout()] {
        apart.run(GAP);
        apart.fixture.console.take_calls();
        for _ in 0..10 {
            let plane = take_away(&mut apart.fixture);
            apart.run(2 * MOMENT);
            apart.fixture.device.set().primary = plane;
            apart.run(2 * GAP);
            let calls = apart.fixture.console.take_calls();
            assert!(!calls.iter().any(|call| matches!(call, Call::ShowMessage(..))), "{calls:?}");
        }
    }
}

#[test]
fn a_failure_in_a_gap_does_not_hide_that_the_plane_is_back() {
    let mut apart = thread::scanout();
    apart.run(GAP);
    apart.fixture.console.take_calls();
    let plane = take_away(&mut apart.fixture);
    apart.run(MOMENT);
    apart.fixture.device.set().primary_errors = Errors::always(libc::EINVAL);
    apart.run(MOMENT / 2);
    apart.fixture.device.set().primary_errors = Errors::default();
    apart.fixture.device.set().primary = plane;
    apart.run(2 * GAP);
    let calls = apart.fixture.console.take_calls();
    assert!(!calls.iter().any(|call| matches!(call, Call::ShowMessage(..))), "{calls:?}");
}

#[test]
fn what_has_gone_for_longer_is_not_shown() {
    for mut fixture in [scanout(), surface(), region()] {
        fixture.refresh();
        take_away(&mut fixture);
        let calls = refresh_for(&mut fixture, GAP);
        assert_eq!(calls, [Call::ShowMessage(640, 480, OFF.to_owned())]);
        assert_eq!(fixture.alarm_in(Alarm::Gap), None);
    }
}

#[test]
fn front_ends_that_refresh_rarely_are_woken() {
    let mut fixture = scanout();
    fixture.refresh();
    take_away(&mut fixture);
    fixture.refresh();
    assert_eq!(fixture.alarm_in(Alarm::Gap), Some(GAP));
    fixture.pass(GAP);
    assert!(fixture.console.take_calls().contains(&Call::RequestRefresh));
    assert!(fixture.refresh().contains(&Call::ShowMessage(640, 480, OFF.to_owned())));
}

#[test]
fn a_one_shot_refresh_sees_what_is() {
    let mut fixture = scanout();
    fixture.refresh();
    take_away(&mut fixture);
    assert_eq!(fixture.refresh(), []);
    fixture.refresh_as(false);
    assert_eq!(fixture.console.message().as_deref(), Some(OFF));
}

#[test]
fn a_reset_and_a_device_that_has_gone_are_no_gaps() {
    let mut fixture = scanout();
    fixture.refresh();
    take_away(&mut fixture);
    fixture.refresh();
    fixture.display().reset();
    fixture.refresh();
    assert_eq!(fixture.console.message().as_deref(), Some(OFF));
    assert_eq!(refresh_for(&mut fixture, MOMENT).len(), 0);

    let mut fixture = scanout();
    fixture.refresh();
    take_away(&mut fixture);
    fixture.refresh();
    fixture.device.set().primary_errors = Errors::always(libc::ENODEV);
    fixture.refresh();
    assert!(fixture.console.message().is_some_and(|text| text != OFF));
}
