//! The display path of virtual GPUs: from a vfio device's plane to QEMU's console.
pub mod capi;
pub mod clock;
pub mod console;
pub mod damage;
pub mod device;
pub mod display;
pub mod format;
pub mod memory;
pub mod plane;
pub mod pool;
pub mod shared_objects;
