//! What finding damage costs, by what happens on the screen; and how the update of an unchanged
//! picture compares with one plain read of the same memory, without which no comparison can do.

#![expect(missing_docs, reason = "criterion's macro makes a public function")]

use std::fs::File;
use std::hint::black_box;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
use drm_fourcc::{DrmFourcc, DrmModifier};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use vfio_display::damage::{Comparison, Picture, Snapshot};
use vfio_display::format::{Conversion, Format};
use vfio_display::memory::Memory;
use vfio_display::plane::Geometry;

const SIZES: [(&str, u32, u32); 2] = [("1080p", 1920, 1080), ("4K", 3840, 2160)];

/// More than a processor's last cache holds.
const ELSEWHERE: usize = 256 << 20;

/// A guest's frame buffer, and the picture that is kept equal to it.
struct Screen {
    geometry: Geometry,
    file: File,
    memory: Memory,
    picture: Picture,
    snapshot: Snapshot,
    frame: u64,
}

/// What the guest draws between two polls.
#[derive(Clone, Copy)]
enum Draw {
    Nothing,
    /// A character of 8x16 pixels.
    Character,
    /// 64x64 pixels.
    Block,
    /// One pixel in every row, which is the most expensive to compare.
    Column,
    Everything,
}

impl Screen {
    fn new(width: u32, height: u32) -> Self {
        let format = Format { fourcc: DrmFourcc::Xrgb8888, modifier: DrmModifier::Linear };
        let stride = width * 4;
        let size = stride * height;
        let geometry = Geometry { format, width, height, stride, size };
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = File::from(memfd_create("bench", flags).unwrap());
        file.set_len(size.into()).unwrap();
        // What cannot shrink is mapped.
        fcntl_add_seals(&file, SealFlags::SHRINK).unwrap();
        let memory = Memory::new(file.as_fd(), 0, size.into()).unwrap();
        assert!(memory.is_mapped());
        let picture = Picture::new(width, height).unwrap();
        let mut screen =
            Self { geometry, file, memory, picture, snapshot: Snapshot::default(), frame: 0 };
        screen.draw(Draw::Everything);
        screen.update(Comparison::Copy);
        screen
    }

    fn bytes(&self) -> usize {
        self.geometry.size as usize
    }

    fn draw(&mut self, what: Draw) {
        self.frame += 1;
        let value = self.frame.to_le_bytes()[0];
        let (width, height) = (self.geometry.width, self.geometry.height);
        let (x, y, width, height) = match what {
            Draw::Nothing => return,
            Draw::Character => (80, 160, 8, 16),
            Draw::Block => (80, 160, 64, 64),
            Draw::Column => (width / 2, 0, 1, height),
            Draw::Everything => (0, 0, width, height),
        };
        let row = vec![value; width as usize * 4];
        for y in y..y + height {
            let offset = u64::from(y) * u64::from(self.geometry.stride) + u64::from(x) * 4;
            self.file.write_all_at(&row, offset).unwrap();
        }
    }

    /// Returns the number of rectangles.
    fn update(&mut self, update: Comparison) -> usize {
        let Self { snapshot, memory, geometry, picture, .. } = self;
        snapshot.update(memory, geometry, Conversion::Identity, picture, update).unwrap().len()
    }
}

/// The same memory, to be read as plainly as possible.
struct Mapping(NonNull<u64>, usize);

impl Mapping {
    fn new(screen: &Screen) -> Self {
        let bytes = screen.bytes();
        let fd = screen.file.as_raw_fd();
        // SAFETY: no existing mapping is touched, and the kernel checks the rest.
        let start = unsafe {
            libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, fd, 0)
        };
        assert_ne!(start, libc::MAP_FAILED);
        Self(NonNull::new(start.cast()).unwrap(), bytes / 8)
    }

    fn sum(&self) -> u64 {
        // SAFETY: so many words are mapped until we are dropped, and nobody writes meanwhile.
        let words = unsafe { std::slice::from_raw_parts(self.0.as_ptr(), self.1) };
        words.iter().fold(0, |sum, word| sum.wrapping_add(*word))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: that is what was mapped, and no reference to it is left.
        unsafe { libc::munmap(self.0.as_ptr().cast(), self.1 * 8) };
    }
}

fn updates(criterion: &mut Criterion) {
    for (size, width, height) in SIZES {
        let mut group = criterion.benchmark_group("update");
        for (scene, draw, update) in [
            ("static", Draw::Nothing, Comparison::Compare),
            ("static_sampled", Draw::Nothing, Comparison::Sampled(Duration::ZERO)),
            ("character", Draw::Character, Comparison::Compare),
            ("character_sampled", Draw::Character, Comparison::Sampled(Duration::ZERO)),
            ("block", Draw::Block, Comparison::Compare),
            ("column", Draw::Column, Comparison::Compare),
            ("everything", Draw::Everything, Comparison::Compare),
            ("everything_sampled", Draw::Everything, Comparison::Sampled(Duration::ZERO)),
            ("without_comparing", Draw::Everything, Comparison::Copy),
        ] {
            let mut screen = Screen::new(width, height);
            group.throughput(Throughput::Bytes(u64::from(screen.geometry.size)));
            group.bench_function(BenchmarkId::new(scene, size), |bencher| {
                bencher.iter_custom(|updates| {
                    let mut time = Duration::ZERO;
                    for _ in 0..updates {
                        screen.draw(draw);
                        let began = Instant::now();
                        black_box(screen.update(update));
                        time += began.elapsed();
                    }
                    time
                });
            });
        }
        let screen = Screen::new(width, height);
        let mapping = Mapping::new(&screen);
        group.bench_function(BenchmarkId::new("plain_read", size), |bencher| {
            bencher.iter(|| black_box(mapping.sum()));
        });
        group.finish();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// All in turn, so that what else the machine does hits all.
fn ratios(size: &str, width: u32, height: u32, cached: bool) {
    const ROUNDS: usize = 60;

    let mut screen = Screen::new(width, height);
    let mapping = Mapping::new(&screen);
    let mut elsewhere = vec![1_u8; if cached { 0 } else { ELSEWHERE }];
    let mut time = |act: &mut dyn FnMut()| {
        for byte in elsewhere.iter_mut().step_by(64) {
            *byte = byte.wrapping_add(1);
        }
        black_box(&elsewhere);
        let began = Instant::now();
        act();
        began.elapsed()
    };
    let (mut reads, mut compares, mut samples) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        reads.push(time(&mut || {
            black_box(mapping.sum());
        }));
        for (times, update) in [
            (&mut compares, Comparison::Compare),
            (&mut samples, Comparison::Sampled(Duration::ZERO)),
        ] {
            times.push(time(&mut || assert_eq!(black_box(screen.update(update)), 0)));
        }
    }
    let (read, compare, sampled) = (median(reads), median(compares), median(samples));
    println!(
        "static {size}, {}: a plain read takes {read:.1?}, a whole comparison {:.2} times that, a sampled one {:.2} times",
        if cached { "used a moment ago" } else { "not in the caches" },
        compare.as_secs_f64() / read.as_secs_f64(),
        sampled.as_secs_f64() / read.as_secs_f64()
    );
}

criterion_group!(benches, updates);

fn main() {
    for (size, width, height) in SIZES {
        for cached in [true, false] {
            ratios(size, width, height, cached);
        }
    }
    benches();
    Criterion::default().configure_from_args().final_summary();
}
