//! Leaks, measured in a process without other tests.

use std::env;
use std::fs;
use std::process::Command;

use crate::console::ScanoutSupport;
use crate::testing::{Fixture, plane};

use super::rotating;

/// What a process holds.
#[derive(Debug, PartialEq, Eq)]
struct Held {
    descriptors: usize,
    mappings: usize,
}

fn held() -> Held {
    Held {
        descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
        mappings: fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
    }
}

fn resident_pages() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Runs one of the ignored tests below in a process of its own.
fn alone(name: &str) {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--test-threads=1"])
        .arg(format!("display::tests::soak::{name}"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn a_million_flips_end_where_they_began() {
    alone("flips");
}

#[test]
fn a_thousand_resets_end_where_they_began() {
    alone("resets");
}

fn flip(fixture: &mut Fixture, id: u32) {
    fixture.device.set().primary = plane(id, 16, 16);
    fixture.display().refresh(true);
    fixture.console.take_calls();
    fixture.device.take_gets();
}

/// Runs it often, after a warm-up in which memory pools fill.
fn measure(what: &str, times: u32, mut act: impl FnMut(u32)) {
    (0..times / 10).for_each(&mut act);
    let (before, pages) = (held(), resident_pages());
    (0..times).for_each(&mut act);
    assert_eq!(held(), before, "{what}");
    let more = resident_pages().saturating_sub(pages);
    assert!(more < 64, "{what}: {more} more pages resident");
}

#[test]
#[ignore = "run alone by a_million_flips_end_where_they_began"]
fn flips() {
    // The pool holds fewer than 32 buffers, so each flip is a get and an eviction.
    for (buffers, times) in [(1, 240_000), (3, 240_000), (8, 240_000), (16, 240_000), (32, 40_000)]
    {
        let mut fixture = rotating(buffers);
        measure(&format!("{buffers} buffers"), times, |n| flip(&mut fixture, 1 + n % buffers));
    }
}

#[test]
#[ignore = "run alone by a_thousand_resets_end_where_they_began"]
fn resets() {
    for buffers in [1, 3, 8, 16] {
        for surfaces in [false, true] {
            let mut fixture = rotating(buffers);
            fixture.console.set().support =
                if surfaces { ScanoutSupport::None } else { ScanoutSupport::Import };
            measure(&format!("{buffers} buffers, surfaces: {surfaces}"), 1000, |_| {
                for id in 1..=buffers {
                    flip(&mut fixture, id);
                }
                fixture.display().reset();
            });
        }
    }
}
