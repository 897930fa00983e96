//! As the target `display`, with the halves of the display apart.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| vfio_display::testing::script::run_apart(script));
