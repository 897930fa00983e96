//! The display path of virtual GPUs: from a vfio device's plane to QEMU's console.
//!
//! - [`device`]: what a vfio device offers; [`plane`]: what it told, checked; [`format`](mod@format): pixels and their names
//! - [`memory`]: device memory that is safe to read; [`pool`]: the dma-bufs we hold, and the contract on them
//! - [`display`]: the display of one device, in two halves: [`watcher`] asks the device, [`presenter`] tells the console, and [`exchange`] is
//!   between them; [`damage`]: what changed in a frame buffer
//! - [`console`]: what the host's console takes; [`clock`]: time and alarms
//! - [`shared_objects`]: dma-bufs that devices of one VM share, by UUID
//! - [`capi`]: all of it for C (`include/vfio_display.h`)
//!
//! `docs/architecture.md` tells how they work together.

pub mod capi;
pub mod clock;
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
pub mod room;
pub mod shared_objects;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod watcher;
