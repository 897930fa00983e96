//! Strings from C, and for C. Those for C hold no NUL: it becomes a space. Only a device's name
//! could have one.

use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char};

/// Returns a string that Rust frees.
pub fn c_string(text: &str) -> CString {
    CString::new(text.replace('\0', " ")).unwrap_or_default()
}

/// Returns a string that g_free() frees.
pub fn glib_string(text: &str) -> *mut c_char {
    let text = c_string(text);
    // SAFETY: the string is valid; the result is GLib's.
    unsafe { glib::ffi::g_strdup(text.as_ptr()) }
}

/// Returns a string from C; NULL is empty.
///
/// # Safety
///
/// `text` is a string that lives for as long as the result, or NULL.
pub unsafe fn text_of<'a>(text: *const c_char) -> Cow<'a, str> {
    if text.is_null() {
        return Cow::Borrowed("");
    }
    // SAFETY: the caller gives a string.
    unsafe { CStr::from_ptr(text) }.to_string_lossy()
}
