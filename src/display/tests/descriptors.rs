//! Descriptors that do not lead where the device says.

use std::fs::File;

use crate::config::Config;
use crate::console::ScanoutSupport;
use crate::device::Mode;
use crate::memory::UNCLOSED_MOST;
use crate::testing::{Call, FakeDevice, FakeRegion, Fixture, WrongFile, cursor, plane};
use crate::watcher::BACKOFF;

use super::{scanout, shown, status};

const WRONG: &str = "The device describes its display wrongly.";

/// A display in either mode whose device gives this descriptor for its plane.
fn fixture(mode: Mode, file: File) -> Fixture {
    let device = FakeDevice::default();
    device.set().primary = plane(16, 32, 16);
    give(&device, mode, file);
    Fixture::new(mode, Config::default(), &device)
}

fn give(device: &FakeDevice, mode: Mode, file: File) {
    let region = FakeRegion { size: 1 << 16, file, offset: 0, mappable: true };
    match mode {
        Mode::DmaBuf => device.set().dma_bufs.insert(16, region.file).map(drop),
        Mode::Region => device.set().regions.insert(16, region).map(drop),
    };
}

#[test]
fn what_is_no_memory_is_refused_by_its_kind_and_the_picture_comes_back() {
    for mode in [Mode::DmaBuf, Mode::Region] {
        let call = match mode {
            Mode::DmaBuf => "GET_GFX_DMABUF of id 16",
            Mode::Region => "GET_REGION_INFO of the graphics region 16",
        };
        for (wrong, kind) in [
            (WrongFile::Socket, "a socket"),
            (WrongFile::Pipe, "a pipe"),
            (WrongFile::Directory, "a directory"),
            (WrongFile::Device, "a character device"),
        ] {
            let mut fixture = fixture(mode, wrong.open());
            for _ in 0..20 {
                fixture.refresh();
            }
            let text = format!("fake: {call}: the descriptor leads to {kind}, not to memory");
            assert_eq!(fixture.console.take_log(), [text]);
            assert_eq!(fixture.console.message().as_deref(), Some(WRONG));
            let counts = fixture.device.get().counts.clone();
            assert_eq!(counts.gets.len() + counts.regions as usize, 1, "it is left alone");

            let memory = fixture.device.files().with(&vec![0x33; 1 << 16], true);
            give(&fixture.device, mode, memory);
            fixture.pass(BACKOFF);
            fixture.refresh();
            assert_eq!(shown(&mut fixture), [0x3333_3333; 32 * 16]);
            assert_eq!(fixture.console.take_log(), [""; 0]);
        }
    }
}

#[test]
fn what_may_shrink_or_is_in_huge_pages_is_read_and_not_mapped() {
    for mode in [Mode::DmaBuf, Mode::Region] {
        for wrong in [WrongFile::Unsealed, WrongFile::HugePages] {
            let mut fixture = fixture(mode, wrong.open());
            fixture.console.set().support = ScanoutSupport::Import;
            fixture.refresh();
            assert_eq!(shown(&mut fixture), [0; 32 * 16], "front ends would map it");
            assert!(fixture.console.get().imports.is_empty());
        }
    }
}

#[test]
fn a_cursor_that_may_shrink_is_passed_on_as_pixels() {
    let mut fixture = scanout();
    let info = cursor(100, 1, 1);
    let file = fixture.device.files().create(info.size.into(), false);
    fixture.device.set().dma_bufs.insert(100, file);
    fixture.device.set().cursor = info;
    let calls = fixture.refresh();
    assert!(!calls.iter().any(|call| matches!(call, Call::ScanoutCursor(Some(_), _))), "{calls:?}");
    assert!(calls.iter().any(|call| matches!(call, Call::SurfaceCursor(Some(_)))), "{calls:?}");
    assert_eq!(status(&mut fixture, "/shows"), "scanout");
}

#[test]
fn nor_is_a_scanout_shared_that_may_shrink() {
    let device = FakeDevice::default();
    device.set().primary = plane(1, 32, 16);
    let file = device.files().create(1 << 16, false);
    device.set().dma_bufs.insert(1, file);
    let config = Config { share: true, ..Config::default() };
    let mut fixture = Fixture::new(Mode::DmaBuf, config, &device);
    let error = fixture.display().share_scanout().unwrap_err().to_string();
    assert!(error.contains("may shrink"), "{error}");
}

#[test]
fn what_cannot_be_closed_is_not_asked_for_again_and_again() {
    for mode in [Mode::DmaBuf, Mode::Region] {
        let (socket, other_end) = WrongFile::lingering();
        let mut fixture = fixture(mode, socket);
        fixture.device.set().gives_away = true;
        let mut other_ends = vec![other_end];
        for turn in 1..=UNCLOSED_MOST + 4 {
            fixture.refresh();
            let counts = fixture.device.get().counts.clone();
            let calls = counts.gets.len() + counts.regions as usize;
            assert_eq!(calls, turn.min(UNCLOSED_MOST));
            if turn >= UNCLOSED_MOST {
                fixture.pass(BACKOFF);
                continue;
            }
            let (socket, other_end) = WrongFile::lingering();
            give(&fixture.device, mode, socket);
            other_ends.push(other_end);
            fixture.pass(BACKOFF);
        }
        assert!(fixture.console.take_log().last().unwrap().contains("cannot be closed"));
        drop(other_ends);
    }
}
