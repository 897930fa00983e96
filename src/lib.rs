//! The display path of virtual GPUs: from a vfio device's plane to QEMU's console.
//!
//! | Where | What lives there |
//! |---|---|
//! | [`device`] | the trait of a vfio device; how it gives its planes, how it fails |
//! | [`plane`], [`format`](mod@format) | the device's answer, checked; pixel formats, their names and conversion |
//! | [`memory`] | device memory that is safe to read: the kinds of files, mapping, closing |
//! | [`pool`] | the dma-bufs we hold, and the contract on them |
//! | [`display`] | the display of one device: steps the two halves, and sets alarms |
//! | [`watcher`] | the device's half: when to poll, what the device shows, cursor, EDID, sharing |
//! | [`presenter`] | the console's half: scanout, surface, cursor, messages |
//! | [`exchange`] | what the halves tell each other: reports, wishes, notes |
//! | [`damage`] | what changed in a frame buffer |
//! | [`problem`] | what can go wrong with a picture, in words |
//! | [`config`] | what a user may choose |
//! | [`console`], [`clock`] | the traits of the host: what its console takes; time and alarms |
//! | [`allocate`] | allocations that may fail |
//! | [`shared_objects`] | dma-bufs that devices of one VM share, by UUID |
//! | `egl` | dma-bufs as textures; reading back |
//! | [`capi`] | all of it for C (`include/vfio_display.h`) |
//! | `testing` | a fake device, console and clock; scripts for the fuzzer |
//!
//! `docs/architecture.md` says how they work together.

pub mod allocate;
pub mod capi;
pub mod clock;
pub mod config;
pub mod console;
pub mod damage;
pub mod device;
pub mod display;
#[cfg(feature = "egl")]
pub mod egl;
pub mod exchange;
pub mod format;
pub mod memory;
pub mod plane;
pub mod pool;
pub mod presenter;
pub mod problem;
pub mod shared_objects;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod watcher;
