//! A virtual GPU in a process.
fn main() {}
