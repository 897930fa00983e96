//! Messages: each is logged once, and their number is limited.

use std::time::Duration;

use crate::plane::PlaneInfo;
use crate::testing::{Call, Errors, FakeConsole, Shows, plane};

use super::{errors, region, scanout, status, surface};
use crate::console::Severity;
use crate::presenter::TestedReporter as Reporter;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn what_is_said_is_not_said_again_soon_but_counted() {
    let console = FakeConsole::default();
    let mut reporter = Reporter::new("vgpu");
    let mut say = |second, text: &str| {
        reporter.say(&console, SECOND * second, Severity::Error, &text);
        console.take_log()
    };
    assert_eq!(say(0, "no"), ["vgpu: no"]);
    for second in 1..30 {
        assert_eq!(say(second, "no"), [""; 0]);
    }
    assert_eq!(say(30, "no"), ["vgpu: no (29 more times since)"]);
    assert_eq!(say(59, "no"), [""; 0]);
    assert_eq!(say(60, "no"), ["vgpu: no (1 more times since)"]);
    assert_eq!(say(90, "no"), ["vgpu: no"]);
}

#[test]
fn different_messages_are_bounded_too() {
    let console = FakeConsole::default();
    let mut reporter = Reporter::new("vgpu");
    for number in 0..100 {
        reporter.say(&console, SECOND, Severity::Error, &number);
    }
    assert_eq!(console.take_log().len(), 8);
    assert_eq!(reporter.withheld(), 92);
    assert_eq!(reporter.last(), Some("99"));
    reporter.say(&console, SECOND, Severity::Error, &3);
    assert_eq!(reporter.last(), Some("3"), "even if it is not said again");
    for number in 0..100 {
        reporter.say(&console, SECOND * 31, Severity::Error, &number);
    }
    assert_eq!(console.take_log().len(), 8);
}

#[test]
fn a_device_that_lies_differently_each_time_does_not_fill_the_log() {
    let mut fixture = scanout();
    fixture.refresh();
    for stride in 0..100 {
        fixture.device.set().primary = PlaneInfo { stride, ..plane(2, 32, 16) };
        fixture.refresh();
        fixture.pass(Duration::from_millis(33));
    }
    assert_eq!(fixture.console.take_log().len(), 8);
    assert_eq!(errors(&mut fixture, "invalid-plane"), 100);
    assert_eq!(status(&mut fixture, "/errors-withheld"), 92);
    let last = status(&mut fixture, "/last-error");
    assert!(last.as_str().unwrap().contains("stride 99 is too small"), "{last}");
}

#[test]
fn an_error_that_stays_is_said_once_in_half_a_minute() {
    for errno in [libc::EIO, libc::EINVAL, libc::ENOMEM, libc::ENOTTY, libc::EPROTO] {
        let mut fixture = scanout();
        fixture.device.set().primary_errors = Errors::always(errno);
        for _ in 0..800 {
            fixture.refresh();
            fixture.pass(Duration::from_millis(33));
        }
        assert_eq!(fixture.console.take_log().len(), 1, "{errno}");
        assert_eq!(fixture.console.take_calls(), []);
        assert_eq!(errors(&mut fixture, "query"), 800);
    }
}

#[test]
fn a_picture_without_room_on_the_host_is_a_message_until_there_is_room() {
    for mut fixture in [surface(), region()] {
        fixture.console.set().surface_limit = 32 * 16 - 1;
        let said = "The picture is too large for the memory of the host.";
        assert_eq!(fixture.refresh(), [Call::ShowMessage(640, 480, said.to_owned())]);
        let log = fixture.console.take_log();
        assert!(
            log[0].ends_with("there is no memory for a surface of 32x16 pixels (2048 bytes)"),
            "{log:?}"
        );
        assert_eq!(fixture.refresh(), []);
        assert_eq!(errors(&mut fixture, "surface"), 2);
        assert_eq!(fixture.console.take_log(), [""; 0]);

        fixture.console.set().surface_limit = 0;
        fixture.refresh();
        assert_eq!(fixture.console.get().shows, Shows::Surface(32, 16));
    }
}

#[test]
fn a_message_after_a_huge_picture_is_not_huge() {
    let mut fixture = scanout();
    fixture.device.show(plane(2, 16384, 1), 0);
    fixture.refresh();
    fixture.device.set().primary = PlaneInfo::default();
    let calls = fixture.refresh_after_gap();
    assert!(matches!(calls[0], Call::ShowMessage(4096, 480, _)), "{calls:?}");
}
