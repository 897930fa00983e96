//! EDID: tells the guest about its monitor.

use std::time::Duration;

use crate::clock::Alarm;
use crate::config::Config;
use crate::console::Monitor;
use crate::device::Mode;
use crate::testing::{Errors, FakeDevice, FakeEdid, Fixture, Write};

use super::{dma_buf_device, status};

const REGION: u32 = 11;
const UP: u32 = 1;
const DOWN: u32 = 2;

const SIZE: u64 = 8;
const LINK: u64 = 20;
const BLOB: u64 = 2048;

const PAUSE: Duration = Duration::from_millis(100);

fn device(edid: FakeEdid) -> FakeDevice {
    let device = dma_buf_device();
    device.set().edid = Some(edid);
    device
}

/// An EDID region like that of gvt.
fn strict() -> FakeEdid {
    FakeEdid { strict: true, ..FakeEdid::new(REGION, 128, 1920, 1200) }
}

/// An EDID region like that of mbochs.
fn lax() -> FakeEdid {
    FakeEdid::new(REGION, 1024, 0, 0)
}

fn display(edid: FakeEdid) -> Fixture {
    sized(edid, 0, 0)
}

fn sized(edid: FakeEdid, xres: u32, yres: u32) -> Fixture {
    let config = Config { xres, yres, ..Config::default() };
    Fixture::new(Mode::DmaBuf, config, &device(edid))
}

/// A display whose guest has got its first EDID.
fn settled(edid: FakeEdid) -> Fixture {
    let mut fixture = display(edid);
    fixture.pass(PAUSE);
    writes(&fixture);
    fixture.device.set().monitors.clear();
    fixture
}

fn register(offset: u64, value: u32) -> Write {
    Write { region: REGION, offset, bytes: value.to_le_bytes().to_vec() }
}

/// Returns the writes since the last call.
fn writes(fixture: &Fixture) -> Vec<Write> {
    std::mem::take(&mut fixture.device.set().writes)
}

fn monitor(width: u32, height: u32) -> Monitor {
    Monitor { width, height, ..Monitor::default() }
}

/// Returns the sizes of the EDIDs that were made since the last call.
fn sizes(fixture: &Fixture) -> Vec<(u32, u32)> {
    let monitors = std::mem::take(&mut fixture.device.set().monitors);
    monitors.into_iter().map(|monitor| (monitor.width, monitor.height)).collect()
}

#[test]
fn link_down_size_blob_and_after_a_pause_link_up() {
    let mut fixture = display(strict());
    let blob: Vec<u8> = 1920u32.to_le_bytes().into_iter().chain([0; 124]).collect();
    assert_eq!(
        writes(&fixture),
        [
            register(LINK, DOWN),
            register(SIZE, 128),
            Write { region: REGION, offset: BLOB, bytes: blob }
        ]
    );
    assert_eq!(fixture.alarm_in(Alarm::Edid), Some(PAUSE));
    fixture.pass(PAUSE / 100 * 99);
    assert_eq!(writes(&fixture), []);
    fixture.pass(PAUSE / 100);
    assert_eq!(writes(&fixture), [register(LINK, UP)]);
    assert_eq!(fixture.alarm_in(Alarm::Edid), None);
    assert_eq!(status(&mut fixture, "/edids-written"), 1);
    assert_eq!(status(&mut fixture, "/edid"), true);
}

#[test]
fn the_first_size_is_the_users_else_the_devices_else_a_common_one() {
    let first = |edid, xres, yres| sizes(&sized(edid, xres, yres));
    assert_eq!(first(strict(), 0, 0), [(1920, 1200)]);
    assert_eq!(first(strict(), 800, 600), [(800, 600)]);
    assert_eq!(first(strict(), 800, 0), [(800, 1200)]);
    assert_eq!(first(strict(), 4000, 3000), [(1920, 1200)]);
    assert_eq!(first(lax(), 4000, 3000), [(4000, 3000)]);
    assert_eq!(first(lax(), 0, 0), [(1280, 800)]);
}

#[test]
fn what_a_front_end_knows_of_its_window_reaches_the_edid() {
    let mut fixture = settled(strict());
    let window = Monitor {
        width: 1000,
        height: 5000,
        width_mm: 300,
        height_mm: 200,
        refresh_rate: 59_940,
        ..Monitor::default()
    };
    fixture.display().set_monitor(window);
    let told = Monitor { height: 1200, max_width: 1920, max_height: 1200, ..window };
    assert_eq!(fixture.device.get().monitors, [told]);
}

#[test]
fn a_storm_of_sizes_is_two_edids() {
    let mut fixture = settled(lax());
    for width in 500..600 {
        fixture.display().set_monitor(monitor(width, 400));
        fixture.pass(Duration::from_micros(500));
    }
    fixture.pass(10 * PAUSE);
    assert_eq!(sizes(&fixture), [(500, 400), (599, 400)]);
    let links: Vec<Write> = writes(&fixture).into_iter().filter(|w| w.offset == LINK).collect();
    let (down, up) = (register(LINK, DOWN), register(LINK, UP));
    assert_eq!(links, [down.clone(), down, up]);
}

#[test]
fn the_same_monitor_again_is_nothing() {
    let mut fixture = settled(lax());
    fixture.display().set_monitor(monitor(500, 400));
    fixture.pass(PAUSE);
    writes(&fixture);
    fixture.display().set_monitor(monitor(500, 400));
    fixture.pass(PAUSE);
    assert_eq!(writes(&fixture), []);
}

#[test]
fn no_size_is_no_monitor() {
    for off in [monitor(0, 0), monitor(0, 400), monitor(400, 0)] {
        let mut fixture = settled(lax());
        fixture.display().set_monitor(off);
        fixture.pass(10 * PAUSE);
        assert_eq!(writes(&fixture), [register(LINK, DOWN)]);
        fixture.display().set_monitor(monitor(1280, 800));
        fixture.pass(PAUSE);
        assert_eq!(writes(&fixture).last(), Some(&register(LINK, UP)));
    }
}

#[test]
fn a_monitor_that_goes_while_the_link_is_down_stays_off() {
    let mut fixture = display(lax());
    fixture.display().set_monitor(monitor(0, 0));
    fixture.pass(10 * PAUSE);
    assert_eq!(writes(&fixture).last(), Some(&register(LINK, DOWN)));
    assert_eq!(fixture.alarm_in(Alarm::Edid), None);
}

#[test]
fn a_write_that_fails_is_said_once_and_tried_again() {
    let device = device(strict());
    device.set().write_errors = Errors::times(3, libc::EFAULT);
    let mut fixture = Fixture::new(Mode::DmaBuf, Config::default(), &device);
    let said = "fake: EDID region: writing link_state: Bad address (os error 14)";
    assert_eq!(fixture.console.take_log(), [said]);
    for wait in [1, 2, 4] {
        assert_eq!(fixture.alarm_in(Alarm::Edid), Some(Duration::from_secs(wait)));
        fixture.pass(Duration::from_secs(wait));
    }
    fixture.pass(PAUSE);
    assert_eq!(device.get().edid.as_ref().unwrap().register(20), UP);
    assert_eq!(fixture.console.take_log(), [""; 0]);
}

#[test]
fn a_device_that_never_takes_it_is_left_in_peace() {
    let device = device(strict());
    device.set().write_errors = Errors::always(libc::EIO);
    let mut fixture = Fixture::new(Mode::DmaBuf, Config::default(), &device);
    fixture.pass(Duration::from_secs(1 + 2 + 4 + 8 + 16));
    assert_eq!(fixture.alarm_in(Alarm::Edid), None);
    assert_eq!(fixture.console.take_log().len(), 2, "30 seconds later, it is logged again");

    // The same size may be asked for again.
    device.set().write_errors = Errors::default();
    fixture.display().set_monitor(monitor(1920, 1200));
    fixture.pass(PAUSE);
    assert_eq!(writes(&fixture).last(), Some(&register(LINK, UP)));
}

#[test]
fn a_link_that_never_goes_up_is_left_in_peace_too() {
    let mut fixture = settled(lax());
    let mut failures = 0;
    fixture.display().set_monitor(monitor(640, 480));
    while let Some(wait) = fixture.alarm_in(Alarm::Edid) {
        if wait == PAUSE {
            fixture.device.set().write_errors = Errors::times(1, libc::EIO);
            failures += 1;
        }
        fixture.pass(wait);
        assert!(failures < 10);
    }
    assert_eq!(failures, 6);
    assert_eq!(fixture.device.get().edid.as_ref().unwrap().register(20), DOWN);
}

#[test]
fn a_device_that_is_gone_is_not_told_and_that_is_not_said() {
    let mut fixture = settled(lax());
    fixture.device.set().write_errors = Errors::always(libc::ENODEV);
    fixture.display().set_monitor(monitor(640, 480));
    assert_eq!(fixture.alarm_in(Alarm::Edid), None);
    assert_eq!(fixture.console.take_log(), [""; 0]);
}

#[test]
fn a_new_size_while_an_old_one_is_retried_is_written() {
    let mut fixture = settled(lax());
    fixture.device.set().write_errors = Errors::times(1, libc::EIO);
    fixture.display().set_monitor(monitor(640, 480));
    fixture.display().set_monitor(monitor(800, 600));
    fixture.pass(10 * PAUSE);
    assert_eq!(sizes(&fixture), [(800, 600)]);
    assert_eq!(writes(&fixture).last(), Some(&register(LINK, UP)));
}

#[test]
fn an_edid_fits_the_device() {
    let mut fixture = settled(lax());
    fixture.device.set().edid_len = 256;
    fixture.display().set_monitor(monitor(640, 480));
    assert!(writes(&fixture).contains(&register(SIZE, 256)));

    let mut fixture = settled(strict());
    fixture.device.set().edid_len = 256;
    fixture.display().set_monitor(monitor(640, 480));
    assert!(writes(&fixture).contains(&register(SIZE, 128)));
    assert_eq!(fixture.console.take_log(), [""; 0]);

    let mut huge = settled(FakeEdid::new(REGION, u32::MAX, 0, 0));
    huge.device.set().edid_len = usize::MAX;
    huge.device.set().write_errors = Errors::times(3, libc::EIO);
    huge.display().set_monitor(monitor(640, 480));
    huge.pass(PAUSE);
}

#[test]
fn a_region_of_no_use_costs_the_edid_and_not_the_picture() {
    let small = device(FakeEdid::new(REGION, 127, 0, 0));
    let broken = device(lax());
    broken.set().read_errors = Errors::always(libc::EIO);
    let said = [
        "fake: EDID region: reading edid_max_size: 127 bytes hold no EDID",
        "fake: EDID region: reading edid_offset: Input/output error (os error 5)",
    ];
    for (device, said) in [small, broken].into_iter().zip(said) {
        let mut fixture = Fixture::new(Mode::DmaBuf, Config::default(), &device);
        assert_eq!(fixture.console.take_log(), [said]);
        assert!(!fixture.display().has_edid());
        fixture.display().set_monitor(monitor(640, 480));
        fixture.refresh();
        assert_eq!(super::shown(&mut fixture)[0], 0x1111_1111);
        assert_eq!(writes(&fixture), []);
    }
}

#[test]
fn regions_have_it_too() {
    let device = device(lax());
    device.add_region(16, 1 << 16, 0);
    let mut fixture = Fixture::new(Mode::Region, Config::default(), &device);
    fixture.pass(PAUSE);
    assert_eq!(writes(&fixture).last(), Some(&register(LINK, UP)));
    assert!(fixture.display().has_edid());
}

#[test]
fn a_display_that_ends_wants_no_alarm() {
    let mut fixture = display(lax());
    assert!(fixture.alarm_in(Alarm::Edid).is_some());
    fixture.end();
    assert!(fixture.alarm_in(Alarm::Edid).is_none());
}
