//! Devices that signal changes.

use std::time::Duration;

use crate::clock::Alarm;
use crate::config::Config;
use crate::console::ScanoutSupport;
use crate::device::Mode;
use crate::testing::{Call, Errors, FakeDevice, Fixture, plane};

use super::{dma_buf_device, rotating, status};

const MS: Duration = Duration::from_millis(1);

fn with_events(mode: Mode, device: &FakeDevice) -> Fixture {
    device.set().has_events = true;
    let fixture = Fixture::new(mode, Config { events: true, ..Config::default() }, device);
    fixture.console.set().support = ScanoutSupport::Import;
    fixture
}

fn region_with_events() -> Fixture {
    let device = FakeDevice::default();
    device.add_region(16, 1 << 16, 0x11);
    device.set().primary = plane(16, 32, 16);
    with_events(Mode::Region, &device)
}

/// Lets time pass, and refreshes when the display asks for it, as QEMU does. Returns how often.
fn pass(fixture: &mut Fixture, time: Duration) -> usize {
    fixture.console.take_calls();
    fixture.pass(time);
    let asked =
        fixture.console.take_calls().iter().filter(|call| **call == Call::RequestRefresh).count();
    if asked > 0 {
        fixture.refresh();
    }
    asked
}

#[test]
fn a_flip_is_shown_when_the_device_says_so_and_nobody_asks_in_between() {
    let mut fixture = with_events(Mode::DmaBuf, &rotating(3).device);
    fixture.refresh();
    let before = fixture.device.get().counts.primary;
    for flip in 1..=100 {
        fixture.device.set().primary = plane(1 + flip % 3, 16, 16);
        fixture.device.signal();
        assert_eq!(pass(&mut fixture, MS), 1);
        assert_eq!(status(&mut fixture, "/plane/handle"), 1 + flip % 3);
        assert_eq!(pass(&mut fixture, 15 * MS), 0);
    }
    assert_eq!(fixture.device.get().counts.primary - before, 100);
    assert_eq!(status(&mut fixture, "/events/signals"), 100);
    assert!(status(&mut fixture, "/pacing").is_null());
    let described = fixture.display().describe();
    assert!(described.contains("signalled 100 changes"), "{described}");
}

#[test]
fn what_is_drawn_in_a_region_is_shown_too() {
    let mut fixture = region_with_events();
    fixture.refresh();
    fixture.device.draw_region(16, 0, &[0x22; 4]);
    fixture.device.signal();
    assert_eq!(pass(&mut fixture, MS), 1);
    assert_eq!(super::shown(&mut fixture)[0] & 0xff_ffff, 0x22_2222);
}

#[test]
fn a_device_that_storms_is_heard_250_times_a_second() {
    let mut fixture = region_with_events();
    fixture.refresh();
    let storm = |fixture: &mut Fixture| -> usize {
        (0..10_000)
            .map(|_| {
                fixture.device.signal();
                pass(fixture, MS / 10)
            })
            .sum()
    };
    let signals = storm(&mut fixture);
    // The first one at once.
    assert!((240..=1 + 250).contains(&signals), "{signals} times");
    // After a long refresh, others get as much time as it took.
    fixture.clock.set_step(10 * MS);
    fixture.refresh();
    fixture.clock.set_step(Duration::ZERO);
    fixture.device.signal();
    fixture.console.take_calls();
    fixture.pass(MS);
    assert!(!fixture.clock.listens(Alarm::Change));
    fixture.pass(8 * MS);
    assert!(!fixture.clock.listens(Alarm::Change));
    fixture.pass(100 * MS);
    assert!(fixture.clock.listens(Alarm::Change));
}

#[test]
fn what_changes_while_nobody_listens_is_heard_afterwards() {
    let mut fixture = region_with_events();
    fixture.refresh();
    fixture.device.signal();
    assert_eq!(pass(&mut fixture, MS), 1);
    fixture.device.signal();
    fixture.device.signal();
    assert_eq!(pass(&mut fixture, 2 * MS), 0);
    assert_eq!(pass(&mut fixture, 2 * MS), 1);
    assert_eq!(pass(&mut fixture, 100 * MS), 0);
}

#[test]
fn nobody_listens_for_nobody() {
    let mut fixture = region_with_events();
    assert!(!fixture.clock.listens(Alarm::Change), "before the first refresh");
    fixture.refresh();
    assert!(fixture.clock.listens(Alarm::Change));
    fixture.pass(Duration::from_secs(60));
    for _ in 0..100 {
        fixture.device.signal();
        assert_eq!(pass(&mut fixture, 10 * MS), 0, "nobody refreshed for a minute");
    }
    assert_eq!(status(&mut fixture, "/events/signals"), 1);
    fixture.refresh();
    assert_eq!(pass(&mut fixture, MS), 1);
}

#[test]
fn while_a_front_end_holds_the_picture_nobody_listens() {
    let mut fixture = with_events(Mode::DmaBuf, &dma_buf_device());
    fixture.refresh();
    fixture.display().block(true);
    fixture.device.signal();
    assert_eq!(pass(&mut fixture, 100 * MS), 0);
    fixture.display().block(false);
    assert_eq!(pass(&mut fixture, MS), 1);
}

#[test]
fn a_device_without_events_is_paced_and_nothing_is_said() {
    let device = rotating(3).device;
    let config = Config { events: true, ..Config::default() };
    let mut fixture = Fixture::new(Mode::DmaBuf, config, &device);
    fixture.refresh();
    assert_eq!(fixture.console.take_log(), [""; 0]);
    assert!(status(&mut fixture, "/events").is_null());
    assert!(fixture.alarm_in(Alarm::Poll).is_some());
}

#[test]
fn a_device_that_fails_is_paced_and_the_user_is_told() {
    let device = dma_buf_device();
    device.set().event_errors = Errors::always(libc::EPROTO);
    let mut fixture = with_events(Mode::DmaBuf, &device);
    fixture.refresh();
    let log = fixture.console.take_log();
    assert_eq!(log.len(), 1, "{log:?}");
    assert!(log[0].contains("cannot signal changes: Protocol error"), "{log:?}");
    assert!(fixture.alarm_in(Alarm::Poll).is_some());
}

#[test]
fn events_are_off_unless_asked_for() {
    let device = dma_buf_device();
    device.set().has_events = true;
    let fixture = Fixture::new(Mode::DmaBuf, Config::default(), &device);
    assert!(fixture.device.get().event.is_none());
}

#[test]
fn the_device_is_told_when_the_display_ends() {
    let mut fixture = with_events(Mode::DmaBuf, &dma_buf_device());
    fixture.refresh();
    assert!(fixture.device.get().event.is_some());
    fixture.end();
    assert!(fixture.device.get().event.is_none());
}

#[test]
fn events_go_on_over_a_reset_and_do_no_harm_when_the_device_is_gone() {
    let mut fixture = with_events(Mode::DmaBuf, &dma_buf_device());
    fixture.refresh();
    fixture.display().reset();
    fixture.device.signal();
    assert_eq!(pass(&mut fixture, MS), 1);
    assert_eq!(status(&mut fixture, "/shows"), "scanout");

    fixture.device.set().primary_errors = Errors::always(libc::ENODEV);
    fixture.refresh();
    for _ in 0..100 {
        fixture.device.signal();
        assert_eq!(pass(&mut fixture, 5 * MS), 0, "it is left alone");
    }
    // It is not asked again for what it refused.
    fixture.end();
    assert!(fixture.device.get().event.is_some());
}
