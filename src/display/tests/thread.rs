//! The watcher on a thread: both halves, each stepped by hand.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use crate::clock::Alarm;
use crate::config::Config;
use crate::console::{Monitor, ScanoutSupport};
use crate::device::Mode;
use crate::plane::PlaneInfo;
use crate::testing::{Apart, Call, Counts, Errors, FakeDevice, FakeEdid, Shows, cursor, plane};
use crate::watcher::Next;

use super::{OFF, dma_buf_device, shown, status};

const MS: Duration = Duration::from_millis(1);
const PIXELS: usize = 32 * 16;

pub(super) fn region() -> Apart {
    let device = FakeDevice::default();
    device.add_region(16, 1 << 16, 0x11);
    device.set().primary = plane(16, 32, 16);
    Apart::new(Mode::Region, Config::default(), &device)
}

pub(super) fn scanout() -> Apart {
    let apart = Apart::new(Mode::DmaBuf, Config::default(), &dma_buf_device());
    apart.fixture.console.set().support = ScanoutSupport::Import;
    apart
}

fn with_events() -> Apart {
    let device = dma_buf_device();
    for id in 2..=3 {
        device.add(&plane(id, 32, 16), 0x22);
    }
    device.set().has_events = true;
    let config = Config { events: true, ..Config::default() };
    let mut apart = Apart::new(Mode::DmaBuf, config, &device);
    apart.fixture.console.set().support = ScanoutSupport::Import;
    apart.live(100 * MS);
    assert_eq!(apart.handle(), 1);
    apart
}

#[test]
fn a_picture_comes_with_the_refresh_after_the_poll() {
    let mut apart = region();
    assert_eq!(apart.turn(), Next::Sleep(None), "nobody watches yet");
    assert_eq!(apart.queries(), 0);
    assert_eq!(apart.fixture.refresh(), []);
    assert!(apart.for_watcher.take() > 0);
    apart.turn();
    assert_eq!(apart.for_presenter.take(), 1);
    apart.fixture.display().arrived();
    assert_eq!(apart.fixture.console.take_calls(), [Call::RequestRefresh]);
    assert_eq!(apart.fixture.refresh()[0], Call::ShowSurface(32, 16));
    assert_eq!(shown(&mut apart.fixture), [0x1111_1111; PIXELS]);
}

#[test]
fn while_a_report_waits_nobody_polls_again() {
    let mut apart = region();
    apart.fixture.refresh();
    apart.turn();
    let queries = apart.queries();
    for _ in 0..10 {
        apart.fixture.clock.set_time(apart.fixture.clock.time() + 100 * MS);
        assert_eq!(apart.turn(), Next::Sleep(None));
    }
    assert_eq!(apart.queries(), queries);
    apart.for_watcher.take();
    apart.fixture.refresh();
    assert_eq!(apart.for_watcher.take(), 1, "the watcher may go on");
}

#[test]
fn what_does_not_change_rings_nobody() {
    for mut apart in [region(), scanout()] {
        apart.run(200 * MS);
        apart.for_presenter.take();
        let queries = apart.queries();
        apart.run(1000 * MS);
        assert_eq!(apart.for_presenter.take(), 0);
        assert!(apart.queries() > queries + 5, "it is polled");
    }
}

#[test]
fn what_front_ends_do_with_it_is_asked_first_and_followed() {
    let mut apart = scanout();
    apart.fixture.refresh();
    apart.turn();
    assert_eq!(apart.fixture.refresh(), [], "it is not known yet what they do with it");
    apart.turn();
    assert_eq!(apart.fixture.refresh()[..2], [Call::Import(0), Call::Scanout(0)]);
    for support in [ScanoutSupport::None, ScanoutSupport::Import, ScanoutSupport::None] {
        apart.fixture.console.set().support = support;
        apart.run(300 * MS);
        let expected = match support {
            ScanoutSupport::Import => Shows::Scanout(0),
            _ => Shows::Surface(32, 16),
        };
        assert_eq!(apart.fixture.console.get().shows, expected);
    }
    assert_eq!(apart.fixture.device.take_gets(), [1]);
}

#[test]
fn a_one_shot_began_after_it_was_wanted_and_is_over_once() {
    let mut apart = region();
    apart.run(100 * MS);
    apart.fixture.display().refresh(true);
    // This poll does not count.
    apart.fixture.device.draw_region(16, 0, &[0x22; 64]);
    apart.fixture.clock.set_time(apart.fixture.clock.time() + 100 * MS);
    apart.turn();
    apart.fixture.device.draw_region(16, 0, &[0x33; 64]);
    apart.fixture.refresh_as(false);
    assert_eq!(apart.refresh_done(), 0);
    apart.turn();
    assert_eq!(apart.refresh_done(), 0);
    apart.fixture.refresh();
    assert_eq!(apart.refresh_done(), 1);
    assert_eq!(shown(&mut apart.fixture)[0], 0x3333_3333);
    apart.run(300 * MS);
    assert_eq!(apart.refresh_done(), 1);
}

#[test]
fn a_one_shot_refresh_waits_for_no_device_longer_than_a_moment() {
    let mut apart = region();
    apart.fixture.refresh_as(false);
    apart.fixture.pass(99 * MS);
    assert_eq!(apart.refresh_done(), 0);
    apart.fixture.pass(MS);
    assert_eq!(apart.refresh_done(), 1);
    // Nor longer than the display exists.
    apart.fixture.refresh_as(false);
    apart.fixture.display().close();
    assert_eq!(apart.refresh_done(), 2);
    assert_eq!(apart.fixture.alarm_in(Alarm::Answer), None);
}

#[test]
fn a_scanout_is_captured_for_who_polls_once() {
    let mut apart = scanout();
    apart.run(100 * MS);
    assert!(apart.fixture.display().capture().is_none());
    apart.fixture.device.draw(1, 4, &[9; 4]);
    apart.fixture.refresh_as(false);
    apart.turn();
    apart.fixture.refresh();
    // More happens before the answer is taken.
    apart.fixture.device.point(cursor(7, 1, 1), 0);
    apart.run(100 * MS);
    assert_eq!(
        apart.fixture.display().capture().unwrap().pixels[..8],
        [0x11, 0x11, 0x11, 0x11, 9, 9, 9, 9]
    );
}

#[test]
fn nobody_calls_a_device_that_is_being_reset_and_what_it_said_before_is_forgotten() {
    for mut apart in [region(), scanout()] {
        apart.run(100 * MS);
        // A report is under way.
        apart.fixture.device.draw_all(0x22);
        apart.fixture.display().invalidate();
        apart.fixture.refresh();
        apart.turn();
        apart.fixture.display().reset();
        let (queries, gets) = (apart.queries(), apart.fixture.device.take_gets().len());
        for _ in 0..3 {
            apart.fixture.pass(100 * MS);
            assert_eq!(apart.turn(), Next::Sleep(None));
            apart.fixture.refresh();
            assert_eq!(apart.fixture.console.message().as_deref(), Some(OFF));
        }
        assert_eq!((apart.queries(), gets), (queries, gets));
        apart.fixture.device.draw_all(0x33);
        apart.fixture.display().reset_done();
        apart.run(300 * MS);
        assert_ne!(apart.fixture.console.message().as_deref(), Some(OFF));
        if apart.fixture.console.get().support == ScanoutSupport::None {
            assert_eq!(shown(&mut apart.fixture), [0x3333_3333; PIXELS]);
        }
    }
}

#[test]
fn what_is_held_is_let_go_of_by_the_watcher_alone_when_all_is_over() {
    let mut apart = scanout();
    apart.fixture.device.point(cursor(7, 1, 1), 0);
    apart.run(300 * MS);
    let held = apart.fixture.device.files().open_descriptors();
    let queries = apart.queries();
    apart.fixture.end();
    assert_eq!(apart.fixture.console.get().imports.len(), 0);
    assert_eq!(
        apart.fixture.device.files().open_descriptors(),
        held,
        "nobody closes on the main loop"
    );
    assert_eq!(apart.turn(), Next::Over);
    assert_eq!(apart.queries(), queries, "and nobody asks");
    let Apart { watcher, exchange, fixture, .. } = apart;
    drop((watcher, exchange));
    assert_eq!(fixture.device.files().open_descriptors(), 2, "the device's own");
    assert_eq!(fixture.device.files().mappings(), 0);
}

/// Refreshes while a device call takes this long.
fn during_a_call(apart: &mut Apart, takes: Duration) -> Rc<RefCell<Vec<Option<String>>>> {
    let messages = Rc::new(RefCell::new(Vec::new()));
    let display = apart.fixture.share_display();
    let (clock, console) = (apart.fixture.clock.clone(), apart.fixture.console.clone());
    let seen = Rc::clone(&messages);
    apart.fixture.device.on_next_query(move || {
        let end = clock.time() + takes;
        while clock.time() < end {
            clock.set_time(clock.time() + 50 * MS);
            display.borrow_mut().as_mut().unwrap().refresh(true);
            seen.borrow_mut().push(console.message());
        }
    });
    messages
}

#[test]
fn a_device_that_is_slow_is_said_once_and_one_that_is_silent_is_shown_until_it_answers() {
    let mut apart = region();
    apart.run(100 * MS);
    apart.fixture.console.take_log();
    apart.fixture.pass(300 * MS);
    let messages = during_a_call(&mut apart, 90 * MS);
    apart.turn();
    assert_eq!(apart.fixture.console.take_log(), [""; 0], "that is no reason yet");
    apart.run(1000 * MS);
    drop(messages);

    let messages = during_a_call(&mut apart, 3000 * MS);
    apart.turn();
    let messages = messages.borrow();
    assert_eq!(messages[0], None, "the last picture stays for a moment");
    assert_eq!(messages.last().unwrap().as_deref(), Some("The device does not answer."));
    assert_eq!(
        apart.fixture.console.take_log(),
        ["fake: QUERY_GFX_PLANE takes longer than 100 ms"]
    );
    // It answers, but the guest uses the same device.
    let queries = apart.queries();
    apart.turn();
    assert_eq!(apart.queries(), queries, "it is left alone for twice as long");
    apart.run(7000 * MS);
    assert_eq!(shown(&mut apart.fixture), [0x1111_1111; PIXELS]);
}

#[test]
fn a_pointer_on_an_idle_screen_is_seen_soon() {
    let mut apart = scanout();
    apart.run(Duration::from_secs(10));
    apart.fixture.device.point(cursor(7, 10, 20), 0x77);
    apart.run(250 * MS);
    assert!(apart.fixture.console.get().cursor.is_some());
}

#[test]
fn what_moves_is_looked_at_more_often_and_what_rests_less() {
    let mut apart = region();
    apart.run(100 * MS);
    let looks_in = |apart: &mut Apart, draw: bool| {
        let (before, end) = (apart.queries(), apart.fixture.clock.time() + Duration::from_secs(1));
        let mut value = 0_u8;
        while apart.fixture.clock.time() < end {
            if draw {
                value = value.wrapping_add(1);
                apart.fixture.device.draw_region(16, 0, &[value; 64]);
            }
            apart.turn();
            apart.fixture.display().refresh(true);
            apart.fixture.clock.set_time(apart.fixture.clock.time() + MS);
        }
        apart.queries() - before
    };
    let moving = looks_in(&mut apart, true);
    assert!((60..=140).contains(&moving), "{moving}");
    let still = looks_in(&mut apart, false);
    assert!((10..=40).contains(&still), "{still}");
    apart.run(Duration::from_secs(6));
    let long_still = looks_in(&mut apart, false);
    assert!((4..=6).contains(&long_still), "{long_still}");
}

/// Whatever the order of events, in the end the console shows what the device does, each one-shot
/// refresh was answered once, and nothing is left.
#[test]
fn random_steps_of_both_end_with_the_truth() {
    for seed in 0..400 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mode = if random.bool() { Mode::DmaBuf } else { Mode::Region };
        let device = FakeDevice::default();
        for id in 1..=3 {
            device.add(&plane(id, 32, 16), 0);
        }
        device.add_region(16, 1 << 16, 0);
        device.set().primary = plane(if mode == Mode::DmaBuf { 1 } else { 16 }, 32, 16);
        let mut apart = Apart::new(mode, Config::default(), &device);
        let mut wanted = 0;
        for _ in 0..random.u32(..200) {
            match random.u8(..16) {
                0..4 => {
                    apart.turn();
                }
                4..7 => apart.fixture.display().refresh(true),
                7 => {
                    wanted += 1;
                    apart.fixture.display().refresh(false);
                }
                8 => apart.fixture.pass(Duration::from_millis(random.u64(..300))),
                9 => device.draw_all(random.u8(..)),
                10 if mode == Mode::DmaBuf => {
                    device.set().primary = plane(random.u32(1..=3), 32, 16);
                }
                11 => {
                    let supports =
                        [ScanoutSupport::None, ScanoutSupport::Import, ScanoutSupport::ReadBack];
                    apart.fixture.console.set().support = supports[random.usize(..3)];
                }
                12 => apart.fixture.display().block(random.bool()),
                13 => {
                    apart.fixture.display().reset();
                    if random.bool() {
                        apart.turn();
                        apart.fixture.display().refresh(true);
                    }
                    apart.fixture.display().reset_done();
                }
                14 => device.set().primary_errors = Errors::times(1, libc::EIO),
                _ => apart.fixture.display().invalidate(),
            }
        }
        apart.fixture.display().block(false);
        apart.fixture.console.set().support = ScanoutSupport::None;
        device.draw_all(0x5a);
        apart.run(Duration::from_secs(3));
        assert_eq!(shown(&mut apart.fixture), [0x5a5a_5a5a; PIXELS], "seed {seed}");
        assert!(apart.refresh_done() <= wanted, "seed {seed}");
        assert_eq!(apart.refresh_done() > 0, wanted > 0, "seed {seed}");
        if mode == Mode::DmaBuf {
            assert_eq!(status(&mut apart.fixture, "/pool/violations"), 0, "seed {seed}");
        }
        apart.fixture.end();
        assert_eq!(apart.turn(), Next::Over);
        assert!(apart.fixture.console.get().imports.is_empty(), "seed {seed}");
        let Apart { watcher, exchange, fixture, .. } = apart;
        drop((watcher, exchange));
        assert_eq!(fixture.device.files().open_descriptors(), 4, "seed {seed}");
        assert_eq!(fixture.device.files().mappings(), 0, "seed {seed}");
    }
}

#[test]
fn a_display_that_is_off_says_so_once() {
    let mut apart = region();
    apart.run(100 * MS);
    apart.fixture.device.set().primary = PlaneInfo::default();
    apart.run(100 * MS);
    assert_eq!(apart.fixture.console.message(), None, "it may be a mode set");
    apart.run(400 * MS);
    assert_eq!(apart.fixture.console.message().as_deref(), Some(OFF));
    apart.for_presenter.take();
    apart.run(1000 * MS);
    assert_eq!(apart.for_presenter.take(), 0);
}

#[test]
fn a_device_that_says_when_something_changed_is_heard_at_once_and_asked_seldom() {
    let mut apart = with_events();
    apart.live(Duration::from_secs(10));
    let queries = apart.queries();
    apart.live(Duration::from_secs(1));
    let seldom = apart.queries() - queries;
    assert!((3..=6).contains(&seldom), "{seldom}");
    for id in [2, 3, 1] {
        apart.fixture.device.set().primary = plane(id, 32, 16);
        apart.fixture.device.signal();
        apart.live(15 * MS);
        assert_eq!(apart.handle(), id);
    }
    assert_eq!(status(&mut apart.fixture, "/events/signals"), 3);
}

#[test]
fn what_a_device_does_not_say_is_seen_soon() {
    let mut apart = with_events();
    // It fails, and then works again, without a message.
    apart.fixture.device.set().primary_errors = Errors::always(libc::EIO);
    apart.live(1000 * MS);
    assert_eq!(
        apart.fixture.console.message().as_deref(),
        Some("The device does not give its picture.")
    );
    apart.fixture.device.set().primary_errors = Errors::default();
    apart.live(300 * MS);
    assert_eq!(apart.fixture.console.get().shows, Shows::Scanout(0));
    // After a reset, it signals no more.
    apart.fixture.device.set().event_errors = Errors::always(libc::EIO);
    apart.fixture.display().reset();
    apart.fixture.display().reset_done();
    apart.live(300 * MS);
    apart.fixture.device.set().primary = plane(2, 32, 16);
    apart.live(250 * MS);
    assert_eq!(apart.handle(), 2);
    assert!(status(&mut apart.fixture, "/events").is_null());
}

#[test]
fn a_flip_that_a_front_end_held_up_is_shown_when_it_lets_go() {
    let mut apart = with_events();
    apart.fixture.display().block(true);
    apart.fixture.device.set().primary = plane(2, 32, 16);
    apart.fixture.device.signal();
    apart.live(500 * MS);
    assert_eq!(apart.handle(), 1);
    apart.fixture.display().block(false);
    apart.live(15 * MS);
    assert_eq!(apart.handle(), 2);
}

#[test]
fn a_scanout_that_is_not_taken_any_more_is_replaced_at_once() {
    for mut apart in [scanout(), with_events()] {
        apart.live(Duration::from_secs(10));
        apart.fixture.console.set().support = ScanoutSupport::None;
        apart.live(35 * MS);
        assert_eq!(apart.fixture.console.get().shows, Shows::Surface(32, 16));
    }
}

#[test]
fn a_watcher_that_fails_says_so_and_holds_up_nobody() {
    let off = || {
        let mut apart = region();
        apart.fixture.device.set().primary = PlaneInfo::default();
        apart.run(300 * MS);
        apart
    };
    for mut apart in [region(), scanout(), off()] {
        apart.run(100 * MS);
        apart.fixture.device.on_next_query(|| panic!("as it is to"));
        apart.fixture.display().invalidate();
        apart.fixture.display().refresh(true);
        apart.for_presenter.take();
        let turn = std::panic::AssertUnwindSafe(|| apart.turn());
        assert!(std::panic::catch_unwind(turn).is_err());
        apart.exchange.fail();
        assert_eq!(status(&mut apart.fixture, "/broken"), true);
        assert!(apart.fixture.display().describe().contains("it has failed"));
        assert_eq!(apart.for_presenter.take(), 1);
        apart.fixture.console.take_calls();
        apart.fixture.display().arrived();
        assert_eq!(apart.fixture.console.take_calls(), [Call::RequestRefresh]);
        apart.fixture.pass(3000 * MS);
        apart.fixture.refresh();
        let failed = Some("The display has failed.");
        assert_eq!(apart.fixture.console.message().as_deref(), failed);
        assert_eq!(apart.fixture.refresh(), [], "it is logged once");
        apart.fixture.refresh_as(false);
        apart.fixture.pass(100 * MS);
        assert_eq!(apart.refresh_done(), 1);
        apart.fixture.display().reset();
        apart.fixture.display().reset_done();
        apart.fixture.refresh();
        assert_eq!(apart.fixture.console.message().as_deref(), failed);
        apart.fixture.end();
        assert!(apart.fixture.console.get().imports.is_empty());
    }
}

#[test]
fn a_display_that_is_off_is_silent_without_flicker_and_off_again() {
    let mut apart = region();
    apart.fixture.device.set().primary = PlaneInfo::default();
    apart.run(1000 * MS);
    apart.fixture.pass(300 * MS);
    let messages = during_a_call(&mut apart, 3000 * MS);
    apart.fixture.console.take_calls();
    apart.turn();
    let shown = apart.fixture.console.take_calls();
    let changes = shown.iter().filter(|call| matches!(call, Call::ShowMessage(..))).count();
    assert_eq!(changes, 1, "{shown:?}");
    assert_eq!(messages.borrow().last().unwrap().as_deref(), Some("The device does not answer."));
    apart.run(7000 * MS);
    assert_eq!(apart.fixture.console.message().as_deref(), Some(OFF));
}

#[test]
fn a_scanout_that_stays_is_captured_too() {
    let mut apart = scanout();
    apart.live(100 * MS);
    let pixels = |apart: &mut Apart| {
        apart.fixture.refresh_as(false);
        apart.live(20 * MS);
        apart.fixture.display().capture().map(|picture| picture.pixels[0])
    };
    // A front end keeps it.
    apart.fixture.display().block(true);
    assert_eq!(pixels(&mut apart), Some(0x11));
    apart.fixture.display().block(false);
    // A poll fails.
    apart.fixture.device.set().primary_errors = Errors::times(2, libc::EIO);
    assert_eq!(pixels(&mut apart), Some(0x11));
}

#[test]
fn a_scanout_that_is_shown_at_the_second_attempt_is_captured() {
    let mut apart = scanout();
    apart.live(100 * MS);
    // Front ends treat it differently than assumed.
    apart.fixture.refresh_as(false);
    apart.turn();
    let polls = apart.refresh_done();
    apart.fixture.console.set().support = ScanoutSupport::ReadBack;
    apart.fixture.display().arrived();
    apart.fixture.console.set().support = ScanoutSupport::Import;
    assert_eq!(apart.refresh_done(), polls, "it could not be shown");
    apart.live(20 * MS);
    assert_eq!(apart.refresh_done(), polls + 1);
    assert!(apart.fixture.display().capture().is_some());
}

/// An invalid plane.
fn lie() -> PlaneInfo {
    PlaneInfo { stride: 1, ..plane(16, 32, 16) }
}

#[test]
fn what_is_off_or_wrong_is_drawn_again_once() {
    let states: [fn(&Apart); 3] = [
        |apart| apart.fixture.device.set().primary = PlaneInfo::default(),
        |apart| apart.fixture.device.set().primary = lie(),
        |apart| apart.fixture.device.set().primary_errors = Errors::always(libc::EIO),
    ];
    for state in states {
        for (firmware, from_the_start) in
            [(false, false), (true, false), (false, true), (true, true)]
        {
            let mut apart = region();
            apart.fixture.console.set().firmware = firmware;
            if !from_the_start {
                apart.live(300 * MS);
            }
            state(&apart);
            apart.live(6000 * MS);
            apart.fixture.display().invalidate();
            let queries = apart.queries();
            apart.live(1000 * MS);
            let polls = apart.queries() - queries;
            assert!((4..=8).contains(&polls), "{polls} polls in a second");
        }
    }
}

#[test]
fn a_device_that_lies_is_no_moving_picture() {
    let mut apart = region();
    apart.live(300 * MS);
    apart.fixture.device.set().primary = lie();
    apart.live(400 * MS);
    let lie = Some("The device describes its display wrongly.");
    assert_eq!(apart.fixture.console.message().as_deref(), lie, "it is shown soon");
    let queries = apart.queries();
    apart.live(1000 * MS);
    let polls = apart.queries() - queries;
    assert!((10..=20).contains(&polls), "{polls} polls in a second");
}

#[test]
fn a_one_shot_refresh_is_not_put_off_by_others_who_do() {
    // Others ask for one-shot refreshes while one is under way, again and again. All are answered
    // at once, so the answer waits for a moment.
    let mut apart = region();
    apart.run(100 * MS);
    for polls in 1..10 {
        for _ in 0..11 {
            apart.fixture.refresh_as(false);
            apart.turn();
            apart.fixture.refresh_as(false);
            apart.fixture.pass(10 * MS);
        }
        assert!(apart.refresh_done() >= polls);
    }
    // Nor do they wait longer for a device that does not answer.
    let mut apart = region();
    for _ in 0..25 {
        apart.fixture.refresh_as(false);
        apart.fixture.pass(10 * MS);
    }
    assert!(apart.refresh_done() >= 2);
}

#[test]
fn each_one_shot_began_after_it_was_wanted() {
    let mut apart = region();
    apart.run(100 * MS);
    let refresh_done = apart.refresh_done();
    apart.fixture.refresh_as(false);
    apart.turn();
    // The poll for the first one is over.
    apart.fixture.device.draw_region(16, 0, &[0x33; 64]);
    apart.fixture.refresh_as(false);
    apart.fixture.refresh_as(false);
    assert_eq!(apart.refresh_done(), refresh_done, "who wanted the second would be told, too");
    apart.turn();
    apart.fixture.refresh();
    assert_eq!(apart.refresh_done(), refresh_done + 1);
    assert_eq!(shown(&mut apart.fixture)[0], 0x3333_3333);
    assert_eq!(apart.fixture.alarm_in(Alarm::Answer), None);
}

#[test]
fn a_capture_stays_for_who_asked_whoever_asks_next() {
    let mut apart = scanout();
    apart.run(100 * MS);
    apart.fixture.refresh_as(false);
    apart.turn();
    apart.fixture.refresh();
    assert_eq!(apart.refresh_done(), 1);
    apart.fixture.refresh_as(false);
    assert!(apart.fixture.display().capture().is_some());
    // A refresh after giving up gets no earlier answer.
    apart.turn();
    apart.fixture.refresh();
    apart.fixture.refresh_as(false);
    apart.fixture.pass(2000 * MS);
    assert_eq!(apart.refresh_done(), 3);
    assert!(apart.fixture.display().capture().is_none());
}

#[test]
fn what_is_shown_after_a_message_is_whole() {
    let mut apart = region();
    apart.run(300 * MS);
    apart.fixture.device.draw_region(16, 0, &[0x22; 64]);
    let messages = during_a_call(&mut apart, 3000 * MS);
    apart.fixture.pass(300 * MS);
    apart.turn();
    let silent = Some("The device does not answer.");
    assert_eq!(messages.borrow().last().unwrap().as_deref(), silent);
    apart.fixture.refresh();
    let pixels = shown(&mut apart.fixture);
    assert_eq!((pixels[0], pixels[PIXELS - 1]), (0x2222_2222, 0x1111_1111));
}

#[test]
fn a_poll_under_way_leaves_a_device_alone_that_is_being_reset() {
    for mut apart in [region(), scanout()] {
        apart.run(300 * MS);
        // It is about to find another mode.
        let id = apart.fixture.device.get().primary.handle;
        apart.fixture.device.show(plane(id, 16, 16), 0x22);
        let display = apart.fixture.share_display();
        apart.fixture.device.on_next_query(move || display.borrow_mut().as_mut().unwrap().reset());
        apart.fixture.pass(300 * MS);
        let calls = |apart: &Apart| apart.fixture.device.get().counts.clone();
        let before = calls(&apart);
        apart.turn();
        let this_one = Counts { primary: before.primary + 1, ..before };
        assert_eq!(calls(&apart), this_one, "it was under way");
        apart.fixture.display().reset_done();
        apart.run(300 * MS);
        assert_eq!(status(&mut apart.fixture, "/plane/width"), 16);
        assert_eq!(apart.fixture.console.take_log(), [""; 0], "that was no fault of the device's");
    }
}

#[test]
fn what_the_guest_is_told_of_its_monitor_survives_a_reset_in_the_middle() {
    let device = dma_buf_device();
    device.set().edid = Some(FakeEdid::new(9, 256, 0, 0));
    let mut apart = Apart::new(Mode::DmaBuf, Config::default(), &device);
    apart.run(300 * MS);
    let monitor = Monitor { width: 777, height: 555, ..Monitor::default() };
    apart.fixture.display().set_monitor(monitor);
    let display = apart.fixture.share_display();
    device.on_next_write(move || display.borrow_mut().as_mut().unwrap().reset());
    let before = device.get().writes.len();
    apart.turn();
    assert_eq!(device.get().writes.len(), before + 1, "this one was under way");
    apart.fixture.pass(300 * MS);
    apart.turn();
    assert_eq!(device.get().writes.len(), before + 1);
    apart.fixture.display().reset_done();
    apart.run(1000 * MS);
    assert_eq!(device.get().monitors.last().unwrap().width, 777);
    let link = device.get().edid.as_ref().unwrap().register(20);
    assert_eq!(link, vfio_bindings::bindings::vfio::VFIO_DEVICE_GFX_LINK_STATE_UP);
    assert_eq!(apart.fixture.console.take_log(), [""; 0]);
}

#[test]
fn repeated_one_shot_refreshes_leaves_the_device_to_the_guest() {
    let mut apart = region();
    apart.live(300 * MS);
    let (began, queries) = (apart.fixture.clock.time(), apart.queries());
    for _ in 0..500 {
        let clock = apart.fixture.clock.clone();
        apart.fixture.device.on_next_query(move || clock.set_time(clock.time() + 20 * MS));
        apart.fixture.display().refresh(false);
        apart.live(MS);
    }
    let asked = 20 * MS * (apart.queries() - queries);
    let elapsed = apart.fixture.clock.time().saturating_sub(began);
    assert!(asked > elapsed / 10, "it is polled: {asked:?} of {elapsed:?}");
    assert!(asked < elapsed / 2, "{asked:?} of {elapsed:?}");
}
