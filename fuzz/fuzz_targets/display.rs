//! A device, a guest and a user who do anything, around a display: see
//! `vfio_display::testing::script`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| vfio_display::testing::script::run(script));
