//! Region mode.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use drm_fourcc::DrmFourcc;
use serde_json::json;

use crate::config::Config;
use crate::damage::{BAND_ROWS, LATEST, Rect};
use crate::device::Mode;
use crate::plane::PlaneInfo;
use crate::testing::{Call, Errors, FakeDevice, FakeRegion, Fixture, Shows, plane};
use crate::watcher::{BLACK, PATIENCE, POLL_MOST};

use super::{OFF, errors, region, shown, status};

#[test]
fn the_region_is_mapped_once_and_then_compared() {
    let mut fixture = region();
    let whole = Call::UpdateSurface(Rect::full(32, 16));
    assert_eq!(fixture.refresh(), [Call::ShowSurface(32, 16), whole.clone()]);
    assert_eq!(shown(&mut fixture), [0x1111_1111; 32 * 16]);
    assert_eq!(fixture.refresh(), []);
    fixture.device.draw_region(16, 128 * 7 + 4, &[0x22; 4]);
    let row = Rect { x: 0, y: 7, width: 32, height: 1 };
    let calls: Vec<_> = (0..BAND_ROWS).flat_map(|_| fixture.refresh()).collect();
    assert_eq!(calls, [Call::UpdateSurface(row)]);
    assert_eq!(shown(&mut fixture)[32 * 7..][..2], [0x1111_1111, 0x2222_2222]);
    assert_eq!(fixture.device.get().counts.regions, 1);
    assert_eq!(fixture.device.get().counts.cursor, 0, "region mode has no cursor plane");
    fixture.display().invalidate();
    assert_eq!(fixture.refresh(), [whole]);
    assert_eq!(status(&mut fixture, "/maps"), 1);
    assert_eq!(
        status(&mut fixture, "/frames"),
        json!({ "compared": 0, "sampled": 1 + BAND_ROWS, "copied": 2 })
    );
}

#[test]
fn a_thin_line_is_seen_at_once_by_a_one_shot_refresh_or_after_a_while() {
    let mut fixture = region();
    fixture.refresh();
    let mut value = 0;
    for y in [6, 7] {
        let row = [Call::UpdateSurface(Rect { x: 0, y, width: 32, height: 1 })];
        let mut draw = |fixture: &Fixture| {
            value += 1;
            fixture.device.draw_region(16, 128 * u64::from(y), &[value; 4]);
        };
        draw(&fixture);
        assert_eq!(fixture.refresh_as(false), row);
        draw(&fixture);
        fixture.pass(LATEST + Duration::from_millis(1));
        assert_eq!(fixture.refresh(), row);
        draw(&fixture);
        let both: Vec<_> = [fixture.refresh(), fixture.refresh()].concat();
        assert_eq!(both, row);
    }
}

/// Fills a region with the numbers of its 32-bit words.
fn number_words(fixture: &Fixture, index: u32) {
    let words: Vec<u8> = (0..1u32 << 14).flat_map(u32::to_le_bytes).collect();
    fixture.device.draw_region(index, 0, &words);
}

#[test]
fn a_change_of_stride_alone_is_noticed() {
    let mut fixture = region();
    number_words(&fixture, 16);
    for words in [32, 40, 100, 33] {
        let info = PlaneInfo { stride: words * 4, size: words * 4 * 16, ..plane(16, 32, 16) };
        fixture.device.set().primary = info;
        fixture.refresh();
        let expected: Vec<u32> = (0..16).flat_map(|y| y * words..y * words + 32).collect();
        assert_eq!(shown(&mut fixture), expected, "stride {}", words * 4);
    }
    assert_eq!(fixture.device.get().counts.regions, 4);
}

#[test]
fn a_change_of_region_size_or_format_is_noticed() {
    let mut fixture = region();
    fixture.device.add_region(9, 1 << 16, 0x44);
    fixture.refresh();
    fixture.device.set().primary = plane(9, 32, 16);
    assert_eq!(fixture.refresh(), [Call::UpdateSurface(Rect::full(32, 16))]);
    assert_eq!(shown(&mut fixture), [0x4444_4444; 32 * 16]);
    assert_eq!(fixture.device.files().mappings(), 1, "the other one is not mapped any more");

    fixture.device.set().primary = plane(9, 100, 100);
    assert_eq!(fixture.refresh()[0], Call::ShowSurface(100, 100));
    assert_eq!(shown(&mut fixture), vec![0x4444_4444; 100 * 100]);

    fixture.device.draw_region(9, 0, &[1, 2, 3, 0]);
    let info = PlaneInfo { drm_format: DrmFourcc::Xbgr8888 as u32, ..plane(9, 100, 100) };
    fixture.device.set().primary = info;
    fixture.refresh();
    assert_eq!(shown(&mut fixture)[..2], [0x0001_0203, 0x0044_4444]);
}

#[test]
fn formats_are_converted_pixel_for_pixel() {
    // Position and width of red, green and blue in bits, from the lowest bit of a pixel.
    type Field = (u32, u32);
    let formats: [(DrmFourcc, u32, [Field; 3]); 14] = [
        (DrmFourcc::Xrgb8888, 4, [(16, 8), (8, 8), (0, 8)]),
        (DrmFourcc::Argb8888, 4, [(16, 8), (8, 8), (0, 8)]),
        (DrmFourcc::Xbgr8888, 4, [(0, 8), (8, 8), (16, 8)]),
        (DrmFourcc::Abgr8888, 4, [(0, 8), (8, 8), (16, 8)]),
        (DrmFourcc::Rgbx8888, 4, [(24, 8), (16, 8), (8, 8)]),
        (DrmFourcc::Rgba8888, 4, [(24, 8), (16, 8), (8, 8)]),
        (DrmFourcc::Bgrx8888, 4, [(8, 8), (16, 8), (24, 8)]),
        (DrmFourcc::Bgra8888, 4, [(8, 8), (16, 8), (24, 8)]),
        (DrmFourcc::Xrgb2101010, 4, [(20, 10), (10, 10), (0, 10)]),
        (DrmFourcc::Argb2101010, 4, [(20, 10), (10, 10), (0, 10)]),
        (DrmFourcc::Xbgr2101010, 4, [(0, 10), (10, 10), (20, 10)]),
        (DrmFourcc::Abgr2101010, 4, [(0, 10), (10, 10), (20, 10)]),
        (DrmFourcc::Rgb565, 2, [(11, 5), (5, 6), (0, 5)]),
        (DrmFourcc::Bgr565, 2, [(0, 5), (5, 6), (11, 5)]),
    ];
    let mut random = fastrand::Rng::with_seed(8);
    for (fourcc, bytes, fields) in formats {
        let mut fixture = region();
        let mut pixels = vec![0; 33 * 17 * bytes as usize];
        random.fill(&mut pixels);
        fixture.device.draw_region(16, 0, &pixels);
        fixture.device.set().primary = PlaneInfo {
            drm_format: fourcc as u32,
            stride: 33 * bytes,
            size: 33 * 17 * bytes,
            ..plane(16, 33, 17)
        };
        fixture.refresh();
        let expected: Vec<u32> = pixels
            .chunks_exact(bytes as usize)
            .map(|pixel| {
                let pixel = pixel.iter().rev().fold(0, |all, &byte| (all << 8) | u32::from(byte));
                fields.iter().fold(0, |xrgb, &(at, width)| {
                    let value = (pixel >> at) & ((1 << width) - 1);
                    // Narrow colours are stretched to the full range, wide ones lose their lowest
                    // bits.
                    let eight = if width < 8 {
                        (value << (8 - width)) | (value >> (2 * width - 8))
                    } else {
                        value >> (width - 8)
                    };
                    (xrgb << 8) | eight
                })
            })
            .collect();
        let got: Vec<u32> = shown(&mut fixture).iter().map(|pixel| pixel & 0x00ff_ffff).collect();
        assert_eq!(got, expected, "{fourcc}");
    }
}

#[test]
fn a_palette_is_refused_in_words_and_without_flicker() {
    let mut fixture = region();
    fixture.refresh();
    let info = PlaneInfo { drm_format: DrmFourcc::C8 as u32, ..plane(16, 32, 16) };
    fixture.device.set().primary = info;
    assert!(matches!(fixture.refresh()[..], [Call::ShowMessage(..)]));
    for _ in 0..50 {
        assert_eq!(fixture.refresh(), []);
    }
    let log = ["fake: format C8   LINEAR cannot be shown from a region"];
    assert_eq!(fixture.console.take_log(), log);
    assert_eq!(fixture.device.get().counts.regions, 1);
}

#[test]
fn a_region_that_cannot_be_mapped_is_read() {
    // The device gives no file, or one with an offset that cannot be mapped.
    for (mappable, offset) in [(false, 0), (true, 12)] {
        let mut fixture = region();
        let file = fixture.device.files().with(&vec![0x66; 1 << 16], true);
        let unmappable = FakeRegion { size: 1 << 15, file, offset, mappable };
        fixture.device.set().regions.insert(16, unmappable);
        fixture.refresh();
        assert_eq!(shown(&mut fixture), [0x6666_6666; 32 * 16]);
        fixture.device.draw_region(16, offset, &[1, 2, 3, 4]);
        fixture.refresh();
        assert_eq!(shown(&mut fixture)[0], 0x0403_0201);
        let slow = "fake: graphics region 16 cannot be mapped: it is read piece by piece, slowly";
        assert_eq!(fixture.console.take_log(), [slow]);
        assert_eq!(fixture.device.files().mappings(), 0);
    }
}

/// Each answer comes just before the host gives up.
const JUST_IN_TIME: Duration = Duration::from_millis(99);

#[test]
fn pieces_that_come_just_in_time_are_not_waited_for_for_ever() {
    let mut fixture = region();
    fixture.device.add_region(17, 4096 * 1024 * 4, 0x44);
    fixture.device.set().regions.get_mut(&17).unwrap().mappable = false;
    fixture.device.set().primary = plane(17, 1024, 4096);
    let clock = fixture.clock.clone();
    let takes = Rc::new(Cell::new(JUST_IN_TIME));
    let theirs = Rc::clone(&takes);
    fixture.device.on_each_call(move || clock.set_time(clock.time() + theirs.get()));
    for _ in 0..4 {
        let began = fixture.clock.time();
        fixture.refresh();
        let took = fixture.clock.time().saturating_sub(began);
        assert!(took <= POLL_MOST + 2 * JUST_IN_TIME, "{took:?}");
        // And then the guest has the device for twice as long.
        fixture.pass((2 * took).saturating_sub(Duration::from_millis(1)));
        let reads = fixture.device.get().counts.reads;
        fixture.refresh();
        assert_eq!(fixture.device.get().counts.reads, reads);
        fixture.pass(Duration::from_millis(1));
    }
    let text = "fake: reading graphics region 17: all its pieces take more than 1000 ms";
    assert_eq!(fixture.console.take_log(), [text]);
    assert_eq!(fixture.console.message().as_deref(), Some("The device does not answer."));

    takes.set(Duration::from_millis(1));
    fixture.refresh();
    assert_eq!(shown(&mut fixture), vec![0x4444_4444; 1024 * 4096]);
}

/// The host waits seconds for each of their calls, and so does the guest.
#[test]
fn regions_of_pci_of_a_process_are_mapped_or_not_shown() {
    for keeps_ids in [false, true] {
        let mut fixture = region();
        // Its vendor is read at the start.
        let asked = fixture.device.get().counts.reads;
        fixture.device.set().keeps_ids = keeps_ids;
        fixture.device.add_region(8, 1 << 16, 0x44);
        fixture.device.set().primary = plane(8, 32, 16);
        fixture.refresh();
        assert_eq!(shown(&mut fixture), [0x4444_4444; 32 * 16]);

        fixture.device.add_region(0, 1 << 16, 0x55);
        fixture.device.set().regions.get_mut(&0).unwrap().mappable = false;
        fixture.device.set().primary = plane(0, 32, 16);
        for _ in 0..3 {
            fixture.refresh();
        }
        assert_eq!(fixture.device.get().counts.reads > asked, keeps_ids);
        if !keeps_ids {
            let text = "fake: GET_REGION_INFO of the graphics region 0: there is no memory, \
                        and a region of PCI's is not read piece by piece";
            assert_eq!(fixture.console.take_log(), [text]);
            assert_eq!(fixture.device.get().counts.regions, 2, "it is left alone");
        }
    }
}

#[test]
fn a_read_that_fails_keeps_the_picture_for_a_while() {
    let mut fixture = region();
    fixture.device.set().regions.get_mut(&16).unwrap().mappable = false;
    fixture.refresh();
    fixture.console.take_log();
    fixture.device.set().read_errors = Errors::always(libc::EIO);
    for _ in 0..PATIENCE {
        assert_eq!(fixture.refresh(), []);
    }
    assert!(matches!(fixture.refresh()[..], [Call::ShowMessage(..)]));
    for _ in 0..50 {
        assert_eq!(fixture.refresh(), []);
    }
    let said = "fake: reading graphics region 16: Input/output error (os error 5)";
    assert_eq!(fixture.console.take_log(), [said]);
    fixture.device.set().read_errors = Errors::default();
    fixture.refresh();
    assert_eq!(shown(&mut fixture), [0x1111_1111; 32 * 16]);
}

#[test]
fn a_region_that_shrinks_is_an_error_and_no_crash() {
    let mut fixture = region();
    let file = fixture.device.files().with(&vec![0x66; 1 << 16], false);
    let region = FakeRegion { size: 1 << 16, file, offset: 0, mappable: true };
    fixture.device.set().regions.insert(16, region);
    fixture.refresh();
    fixture.device.get().regions[&16].file.set_len(1000).unwrap();
    for _ in 0..20 {
        fixture.refresh();
    }
    let log = fixture.console.take_log();
    assert_eq!(log.len(), 2, "short reads first, then a file that is too small: {log:?}");
    assert!(log[1].ends_with("the file has 1000 bytes, not 2048 from 0"), "{log:?}");
    let text = "The device does not give its picture.";
    assert_eq!(fixture.console.message().as_deref(), Some(text));
    fixture.device.get().regions[&16].file.set_len(1 << 16).unwrap();
    fixture.refresh();
    assert_eq!(shown(&mut fixture)[0], 0x6666_6666);
}

#[test]
fn a_plane_larger_than_its_region_is_refused() {
    let mut fixture = region();
    fixture.refresh();
    fixture.device.set().primary = plane(16, 200, 200);
    for _ in 0..20 {
        fixture.refresh();
    }
    assert_eq!(
        fixture.console.take_log(),
        ["fake: graphics region 16: 200x200 XR24 LINEAR stride 800 takes 160000 bytes, \
          but there are only 65536"]
    );
    let text = "The device describes its display wrongly.";
    assert_eq!(fixture.console.message().as_deref(), Some(text));
    fixture.device.set().primary = plane(16, 32, 16);
    fixture.refresh();
    assert_eq!(fixture.console.get().shows, Shows::Surface(32, 16));
}

#[test]
fn a_region_whose_size_is_a_lie_is_refused() {
    let mut fixture = region();
    for (size, offset) in [(u64::MAX, 1 << 16), (u64::MAX, u64::MAX), (1 << 32, 65536 - 2047)] {
        let file = fixture.device.files().create(1 << 16, true);
        let region = FakeRegion { size, file, offset, mappable: true };
        fixture.device.set().regions.insert(16, region);
        fixture.refresh();
        assert!(!matches!(fixture.console.get().shows, Shows::Surface(..)));
        assert!(fixture.console.take_log()[0].starts_with("fake: reading graphics region 16: "));
    }
}

#[test]
fn a_region_that_does_not_exist_is_said() {
    let mut fixture = region();
    fixture.refresh();
    fixture.device.set().primary = plane(77, 32, 16);
    for _ in 0..20 {
        fixture.refresh();
    }
    let log = fixture.console.take_log();
    assert_eq!(log.len(), 1);
    assert!(log[0].starts_with("fake: GET_REGION_INFO of the graphics region 77: Invalid"));
    assert_eq!(fixture.device.files().mappings(), 0);
}

#[test]
fn a_one_shot_refresh_sees_the_picture_although_the_first_query_fails() {
    let mut fixture = region();
    fixture.device.set().primary_errors = Errors::times(1, libc::EAGAIN);
    fixture.refresh();
    assert_eq!(fixture.console.get().shows, Shows::Surface(32, 16));
    assert_eq!(status(&mut fixture, "/errors"), json!([]));

    fixture.device.set().primary_errors = Errors::times(1, libc::EIO);
    fixture.refresh();
    assert_eq!(errors(&mut fixture, "query"), 1, "other errors are not asked for twice");
}

#[test]
fn a_plane_that_is_off_is_no_error() {
    let mut fixture = region();
    fixture.refresh();
    fixture.device.set().primary = PlaneInfo::default();
    let calls = fixture.refresh_after_gap();
    assert_eq!(calls, [Call::ShowMessage(640, 480, OFF.to_owned())]);
    assert_eq!(fixture.refresh(), []);
    fixture.device.set().primary = plane(16, 32, 16);
    fixture.refresh();
    assert_eq!(shown(&mut fixture), [0x1111_1111; 32 * 16]);
    assert_eq!(fixture.console.take_log(), [""; 0]);
}

#[test]
fn the_firmware_hands_over_and_takes_back() {
    let mut fixture = region();
    fixture.console.set().firmware = true;
    let picture = std::mem::take(&mut fixture.device.set().primary);
    assert_eq!(fixture.refresh(), [Call::ShowFirmware(true)]);
    fixture.device.set().primary = picture;
    assert_eq!(fixture.refresh()[0], Call::ShowSurface(32, 16));
    fixture.device.set().primary = PlaneInfo::default();
    assert_eq!(fixture.refresh_after_gap(), [Call::ShowFirmware(true)]);
}

#[test]
fn nothing_is_held_in_the_end() {
    let mut fixture = region();
    fixture.refresh();
    assert_eq!(fixture.device.files().mappings(), 1);
    fixture.end();
    assert_eq!(fixture.device.files().mappings(), 0);
    assert_eq!(fixture.device.files().open_descriptors(), 1, "the device's own");
}

/// A display of a device with these first bytes of PCI configuration, and a picture of zeros.
fn blank(vendor: u8, width: u32) -> Fixture {
    let device = FakeDevice::default();
    device.add_region(7, 256, 0);
    device.draw_region(7, 0, &[vendor, 0x10]);
    device.add_region(16, 1 << 16, 0);
    device.set().primary = plane(16, width, 16);
    Fixture::new(Mode::Region, Config::default(), &device)
}

/// Returns the messages about zeros over time; `draw` is called halfway.
fn said_of_zeros(mut fixture: Fixture, draw: impl Fn(&mut Fixture)) -> usize {
    for poll in 0..20 {
        fixture.refresh();
        if poll == 4 {
            draw(&mut fixture);
        }
        fixture.clock.set_time(fixture.clock.time() + BLACK / 8);
    }
    let log = fixture.console.take_log();
    log.iter().filter(|line| line.starts_with("fake: nothing but zeros since ")).count()
}

#[test]
fn zeros_are_said_to_be_nvidias_once_and_only_where_they_may_be() {
    assert_eq!(said_of_zeros(blank(0xde, 32), |_| ()), 1);
    assert_eq!(said_of_zeros(blank(0x86, 32), |_| ()), 0, "another vendor");
    assert_eq!(said_of_zeros(blank(0xde, 64), |_| ()), 0, "whole pages");
    let pixel = |fixture: &mut Fixture| fixture.device.draw_region(16, 8, &[1]);
    assert_eq!(said_of_zeros(blank(0xde, 32), pixel), 0, "a guest that draws");
    let pixel = |fixture: &mut Fixture| {
        pixel(fixture);
        fixture.refresh();
        fixture.device.draw_region(16, 8, &[0]);
    };
    assert_eq!(said_of_zeros(blank(0xde, 32), pixel), 0, "a guest that is black again");
    let redraw = |fixture: &mut Fixture| fixture.display().invalidate();
    assert_eq!(said_of_zeros(blank(0xde, 32), redraw), 1, "a client that asks for all again");
}
