//! Showing the memory of a region itself while everything moves.

use std::os::unix::fs::FileExt;

use drm_fourcc::DrmFourcc;

use crate::config::Config;
use crate::damage::Rect;
use crate::device::Mode;
use crate::plane::PlaneInfo;
use crate::testing::{Call, Errors, FakeDevice, FakeRegion, Fixture, Shows, plane};
use crate::watcher::direct::{CALM_FRAMES, LASTING_FRAMES};

use super::{OFF, region, shown, status};

const PIXELS: u32 = 32 * 16;
const WHOLE: Call = Call::UpdateSurface(Rect { x: 0, y: 0, width: 32, height: 16 });

/// Redraws everything as the guest, and refreshes.
fn play(fixture: &mut Fixture, frame: u32) -> Vec<Call> {
    let words = (0..1 << 14).flat_map(|at: u32| (at ^ (frame << 16)).to_le_bytes());
    let pixels: Vec<u8> = words.collect();
    fixture.device.draw_region(16, 0, &pixels);
    fixture.refresh()
}

/// Plays until the memory itself is shown. Returns how many frames that took.
fn play_until_direct(fixture: &mut Fixture) -> u32 {
    let calls = (1..1000).find(|&frame| {
        let calls = play(fixture, frame);
        assert_eq!(calls.last(), Some(&WHOLE));
        calls[0] == Call::ShowMemory(32, 16)
    });
    calls.expect("the memory itself is shown")
}

fn is_direct(fixture: &mut Fixture) -> bool {
    let direct = fixture.console.get().memory.is_some();
    assert_eq!(status(fixture, "/shows") == "memory", direct);
    direct
}

/// A display that shows the memory itself.
fn direct() -> Fixture {
    let mut fixture = region();
    fixture.refresh();
    play_until_direct(&mut fixture);
    fixture
}

fn seen_as_it_is(fixture: &mut Fixture) -> bool {
    let mut bytes = vec![0; PIXELS as usize * 4];
    fixture.device.get().regions[&16].file.read_exact_at(&mut bytes, 0).unwrap();
    let words = bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap()));
    words.eq(shown(fixture))
}

#[test]
fn what_moves_is_shown_without_a_copy_until_it_is_calm() {
    let mut fixture = region();
    fixture.refresh();
    assert!(play_until_direct(&mut fixture) < 10);
    for frame in 0..100 {
        assert_eq!(play(&mut fixture, frame), [WHOLE]);
        assert!(seen_as_it_is(&mut fixture) && is_direct(&mut fixture));
    }
    assert_eq!(status(&mut fixture, "/direct"), 101);
    assert!(fixture.display().describe().contains("101 frames shown without a copy"));
    let calls: Vec<_> = (0..CALM_FRAMES).flat_map(|_| fixture.refresh()).collect();
    assert_eq!(calls[calls.len() - 2..], [Call::ShowSurface(32, 16), WHOLE]);
    assert!(seen_as_it_is(&mut fixture) && !is_direct(&mut fixture));
    assert_eq!(fixture.refresh(), [], "it is compared again");
    assert_eq!(fixture.device.files().mappings(), 1);
}

#[test]
fn a_part_that_moves_is_shown_at_every_second_refresh_at_the_latest() {
    let mut fixture = region();
    // The first row is in none of these samples.
    fixture.device.set().primary = plane(16, 32, 128);
    let mut frame = 0;
    while !is_direct(&mut fixture) {
        frame += 1;
        play(&mut fixture, frame);
    }
    for value in 1..CALM_FRAMES / 2 {
        fixture.device.draw_region(16, 0, &value.to_le_bytes());
        fixture.refresh();
        fixture.refresh();
        assert_eq!(shown(&mut fixture)[0], value);
        assert!(is_direct(&mut fixture));
    }
    let last = CALM_FRAMES;
    fixture.device.draw_region(16, 0, &last.to_le_bytes());
    fixture.refresh();
    fixture.refresh();
    assert_eq!(shown(&mut fixture)[0], last);
    assert!(!is_direct(&mut fixture));
}

#[test]
fn a_frame_that_did_not_move_costs_nothing_unless_somebody_must_see_it() {
    let mut fixture = direct();
    for frame in 1..20 {
        assert_eq!(fixture.refresh(), []);
        assert_eq!(play(&mut fixture, frame), [WHOLE]);
    }
    assert_eq!(fixture.refresh(), []);
    assert_eq!(fixture.refresh(), [WHOLE]);
    play(&mut fixture, 20);
    assert_eq!(fixture.refresh_as(false), [WHOLE]);
    play(&mut fixture, 21);
    fixture.display().invalidate();
    assert_eq!(fixture.refresh(), [WHOLE]);
    assert!(is_direct(&mut fixture));
}

#[test]
fn who_comes_back_soon_hesitates_longer_and_longer_up_to_a_bound() {
    let mut fixture = region();
    fixture.refresh();
    let mut frames = Vec::new();
    for _ in 0..8 {
        frames.push(play_until_direct(&mut fixture));
        while is_direct(&mut fixture) {
            fixture.refresh();
        }
    }
    assert!(frames[..5].is_sorted_by(|before, after| before < after), "{frames:?}");
    assert_eq!(frames[5..], [frames[4]; 3], "{frames:?}");
    assert!(frames[4] < 200, "{frames:?}");

    play_until_direct(&mut fixture);
    for frame in 0..u32::try_from(LASTING_FRAMES).unwrap() {
        play(&mut fixture, frame);
    }
    while is_direct(&mut fixture) {
        fixture.refresh();
    }
    // A new surface must be drawn once before it can be compared.
    assert_eq!(play_until_direct(&mut fixture), frames[0]);
}

/// What ends showing memory, and what is shown then.
#[test]
fn anything_else_ends_it_at_once() {
    let snapshot = |width, height| {
        [Call::ShowSurface(width, height), Call::UpdateSurface(Rect { x: 0, y: 0, width, height })]
    };
    let message = [Call::ShowMessage(640, 480, OFF.to_owned())];
    let shows = |info| move |device: &FakeDevice| device.set().primary = info;
    let check = |what: &str, act: &dyn Fn(&FakeDevice), expected: &[Call]| {
        let mut fixture = direct();
        fixture.device.add_region(9, 1 << 16, 0x44);
        act(&fixture.device.clone());
        assert_eq!(fixture.refresh(), expected, "{what}");
        assert!(!is_direct(&mut fixture), "{what}");
        fixture.end();
        assert_eq!(fixture.device.files().mappings(), 0, "{what}");
    };
    check("size", &shows(plane(16, 40, 20)), &snapshot(40, 20));
    let wide = PlaneInfo { stride: 256, size: 256 * 16, ..plane(16, 32, 16) };
    check("stride", &shows(wide), &snapshot(32, 16));
    let other = PlaneInfo { drm_format: DrmFourcc::Xbgr8888 as u32, ..plane(16, 32, 16) };
    check("format", &shows(other), &snapshot(32, 16));
    check("region", &shows(plane(9, 32, 16)), &snapshot(32, 16));
    check("plane off", &shows(PlaneInfo::default()), &message);
    let fail = |device: &FakeDevice| device.set().primary_errors = Errors::always(libc::EIO);
    check("error", &fail, &snapshot(32, 16));
    let gone = |device: &FakeDevice| device.set().primary_errors = Errors::always(libc::EPIPE);
    check("gone", &gone, &[Call::ShowMessage(640, 480, "The device is gone.".to_owned())]);
}

#[test]
fn while_the_device_fails_the_picture_stands_still() {
    let mut fixture = direct();
    fixture.device.set().primary_errors = Errors::times(1, libc::EIO);
    let before = shown(&mut fixture);
    fixture.refresh();
    fixture.device.draw_region(16, 0, &[0x77; 64]);
    assert_eq!(shown(&mut fixture), before);
    fixture.refresh();
    assert!(seen_as_it_is(&mut fixture));
}

#[test]
fn a_console_that_cannot_is_asked_again_after_a_while() {
    let mut fixture = region();
    fixture.console.set().refuses_memory = true;
    for frame in 0..100 {
        play(&mut fixture, frame);
    }
    fixture.console.set().refuses_memory = false;
    assert!(play_until_direct(&mut fixture) < 20);
}

#[test]
fn where_there_is_no_memory_for_a_surface_a_message_is_shown() {
    let mut fixture = direct();
    fixture.console.set().surface_limit = 1;
    fixture.device.set().primary_errors = Errors::times(1, libc::EIO);
    assert!(matches!(fixture.refresh()[..], [Call::ShowMessage(..)]));
}

#[test]
fn a_reset_ends_it_until_the_device_says_what_it_shows_now() {
    for keeps_ids in [false, true] {
        let mut fixture = direct();
        fixture.device.set().keeps_ids = keeps_ids;
        fixture.display().reset();
        let calls = fixture.refresh();
        assert!(calls.contains(&Call::ShowMessage(640, 480, OFF.to_owned())), "{calls:?}");
        assert_eq!(fixture.device.files().mappings(), 1, "none of before");
        assert!(seen_as_it_is(&mut fixture));
    }
}

#[test]
fn front_ends_may_hold_the_memory_longer_than_the_display() {
    let mut fixture = direct();
    fixture.console.set().keeps_memory = true;
    fixture.end();
    assert_eq!(fixture.console.message().as_deref(), Some(OFF));
    assert_eq!(fixture.device.files().mappings(), 1);
    let kept = std::mem::take(&mut fixture.console.set().kept);
    // On a thread, after the device has gone.
    fixture.device.set().regions.clear();
    std::thread::spawn(move || {
        let mut bytes = [0; 4];
        kept[0].read(u64::from(PIXELS - 1) * 4, &mut bytes).unwrap();
        assert_eq!(u32::from_le_bytes(bytes) & 0xffff, PIXELS - 1);
    })
    .join()
    .unwrap();
    assert_eq!(fixture.device.files().mappings(), 0);
    assert_eq!(fixture.device.files().open_descriptors(), 0);
}

#[test]
fn what_cannot_be_shown_so_is_copied() {
    let never = |what: &str, config: Config, act: &dyn Fn(&Fixture)| {
        let device = FakeDevice::default();
        device.add_region(16, 1 << 16, 0x11);
        device.set().primary = plane(16, 32, 16);
        let mut fixture = Fixture::new(Mode::Region, config, &device);
        act(&fixture);
        for frame in 0..200 {
            play(&mut fixture, frame);
            assert!(!is_direct(&mut fixture), "{what}");
        }
        assert!(matches!(fixture.console.get().shows, Shows::Surface(..)), "{what}");
        assert_eq!(status(&mut fixture, "/direct"), 0, "{what}");
    };
    let default = Config::default;
    never("direct=off", Config { direct: false, ..default() }, &|_| ());
    never("a console that cannot", default(), &|f| f.console.set().refuses_memory = true);
    never("other colours", default(), &|f| {
        f.device.set().primary.drm_format = DrmFourcc::Xbgr8888 as u32;
    });
    never("16 bits", default(), &|f| {
        f.device.set().primary.drm_format = DrmFourcc::Rgb565 as u32;
    });
    never("a stride that is not of whole pixels", default(), &|f| {
        f.device.set().primary.stride = 130;
        f.device.set().primary.size = 130 * 16;
    });
    for (what, sealed, mappable) in [("may shrink", false, true), ("is not mapped", true, false)] {
        never(what, default(), &|f| {
            let file = f.device.files().with(&vec![0; 1 << 16], sealed);
            let region = FakeRegion { size: 1 << 16, file, offset: 0, mappable };
            f.device.set().regions.insert(16, region);
        });
    }
    never("padding that is not there", default(), &|f| {
        // The last row ends at the end of a page; its padding would be on the next one.
        let (stride, size) = (136, 1 << 16);
        f.device.set().primary = PlaneInfo { stride, size, ..plane(16, 30, 482) };
    });
    never("more padding than pixels", default(), &|f| {
        f.device.set().primary.stride = 260;
        f.device.set().primary.size = 260 * 16;
    });
}
