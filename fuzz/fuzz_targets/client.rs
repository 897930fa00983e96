//! A client, and a user, of the project's vGPU who say anything: see `vgpu::script`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|script: &[u8]| vgpu::script::run(script));
