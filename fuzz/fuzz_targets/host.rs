//! A host in C that says and does anything that the header allows: see
//! `vfio_display::capi::script`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| vfio_display::capi::script::run(script));
