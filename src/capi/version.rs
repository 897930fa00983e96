//! Which version this is, and whether it goes with a host's.

use std::ffi::CStr;
use std::os::raw::c_char;

const VERSION: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version has no NUL"),
    };

/// Returns the version of the library.
///
/// Context: Any thread.
/// Return: The version as "major.minor.micro".
#[unsafe(no_mangle)]
pub extern "C" fn vfio_dpy_version() -> *const c_char {
    VERSION.as_ptr()
}

/// Checks that the library is compatible with the header that the host was compiled with.
/// @version: VFIO_DISPLAY_VERSION.
///
/// Context: Any thread.
/// Return: True if the library is as new as the header, and compatible: the major number is the
/// same (below 1.0.0: the minor number, too), and the rest is not smaller.
#[unsafe(no_mangle)]
pub extern "C" fn vfio_dpy_check_version(version: u32) -> bool {
    goes_with(ours(), version)
}

/// This version as VFIO_DISPLAY_VERSION has it.
fn ours() -> u32 {
    [
        env!("CARGO_PKG_VERSION_MAJOR"),
        env!("CARGO_PKG_VERSION_MINOR"),
        env!("CARGO_PKG_VERSION_PATCH"),
    ]
    .iter()
    .fold(0, |version, number| (version << 8) | number.parse().unwrap_or(0))
}

fn goes_with(library: u32, header: u32) -> bool {
    let same = if library < 1 << 16 { 8 } else { 16 };
    library >> same == header >> same && library >= header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_goes_with_headers_that_are_not_newer() {
        for (library, header, goes) in [
            (0x00_01_02, 0x00_01_02, true),
            (0x00_01_02, 0x00_01_01, true),
            (0x00_01_02, 0x00_01_03, false),
            (0x00_02_00, 0x00_01_03, false),
            (0x01_02_00, 0x01_01_07, true),
            (0x01_02_00, 0x01_03_00, false),
            (0x02_00_00, 0x01_03_00, false),
        ] {
            assert_eq!(goes_with(library, header), goes, "{library:#x} and {header:#x}");
        }
        assert!(goes_with(ours(), ours()));
    }
}
