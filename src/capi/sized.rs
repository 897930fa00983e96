//! Tables and configurations from C, which say how large they are: a host may have been compiled
//! with another version of the header.

use std::fmt;
use std::mem::MaybeUninit;

/// A struct of C's that can grow at its end.
///
/// # Safety
///
/// It is `repr(C)`, its first field is its size in bytes as a `u32`, and it is valid if all its
/// bytes are zero.
pub unsafe trait Growing: Copy {
    /// What C calls it.
    const NAME: &'static str;
}

/// A size that no version of a struct has.
#[derive(Debug)]
pub struct BadSize {
    name: &'static str,
    size: usize,
}

impl fmt::Display for BadSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, size } = self;
        write!(f, "the size of {name} is {size}, and should be sizeof({name})")
    }
}

/// Reads what the host has of a struct: fields that it does not know are zero, those that only it
/// knows are left out.
///
/// # Safety
///
/// `from` points to as many bytes as the size at its beginning says.
pub unsafe fn read<T: Growing>(from: *const T) -> Result<T, BadSize> {
    // SAFETY: every version begins with its size.
    let size = unsafe { from.cast::<u32>().read() } as usize;
    // No version ends in the midst of a pointer.
    if size < align_of::<T>() || size % align_of::<T>() != 0 {
        return Err(BadSize { name: T::NAME, size });
    }
    let mut ours = MaybeUninit::<T>::zeroed();
    let known = size.min(size_of::<T>());
    // SAFETY: the caller has `size` bytes, ours has room for `known` of them.
    unsafe { ours.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(from.cast(), known) };
    // SAFETY: zero is valid for what the host does not know; what it does know is its own.
    Ok(unsafe { ours.assume_init() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Table {
        size: u32,
        first: u64,
        second: u64,
    }

    // SAFETY: it begins with its size, and consists of integers.
    unsafe impl Growing for Table {
        const NAME: &'static str = "Table";
    }

    fn read_words<const N: usize>(size: u32, words: [u64; N]) -> Result<Table, String> {
        #[repr(C)]
        struct Theirs<const N: usize> {
            size: u32,
            words: [u64; N],
        }
        let theirs = Theirs { size, words };
        // SAFETY: the tests give sizes that are there, or such as are refused.
        unsafe { read((&raw const theirs).cast()) }.map_err(|error| error.to_string())
    }

    #[test]
    fn what_the_host_does_not_know_is_zero() {
        assert_eq!(read_words(16, [1]), Ok(Table { size: 16, first: 1, second: 0 }));
        assert_eq!(read_words(8, []), Ok(Table { size: 8, first: 0, second: 0 }));
    }

    #[test]
    fn what_only_the_host_knows_is_left_out() {
        assert_eq!(read_words(32, [1, 2, 3]), Ok(Table { size: 32, first: 1, second: 2 }));
    }

    #[test]
    fn a_size_that_was_not_set_or_ends_within_a_field_is_refused() {
        for size in [0, 4, 20] {
            let error = format!("the size of Table is {size}, and should be sizeof(Table)");
            assert_eq!(read_words(size, [1, 2]), Err(error));
        }
    }
}
