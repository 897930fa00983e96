//! The display path of virtual GPUs: from a vfio device's plane to QEMU's console.
pub mod device;
pub mod format;
pub mod memory;
pub mod plane;
pub mod pool;
