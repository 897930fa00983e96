//! The display path of virtual GPUs.
