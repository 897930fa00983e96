//! Allocations whose size somebody else decides: failing is an error that names the size, not an
//! abort.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;

/// There is no memory for this many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory(pub u64);

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no memory for {} bytes", self.0)
    }
}

impl std::error::Error for OutOfMemory {}

impl From<OutOfMemory> for io::Error {
    fn from(error: OutOfMemory) -> Self {
        Self::new(io::ErrorKind::OutOfMemory, error)
    }
}

/// Returns zeroed bytes.
pub fn zeros(len: usize) -> Result<Vec<u8>, OutOfMemory> {
    let mut bytes = Vec::new();
    resize(&mut bytes, len)?;
    Ok(bytes)
}

/// Like [`Vec::resize`], with zeros.
pub fn resize(bytes: &mut Vec<u8>, len: usize) -> Result<(), OutOfMemory> {
    let more = len.saturating_sub(bytes.len());
    bytes.try_reserve_exact(more).map_err(|_| OutOfMemory(len as u64))?;
    bytes.resize(len, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_an_error_that_says_how_much() {
        assert_eq!(zeros(3).unwrap(), [0; 3]);
        let error = io::Error::from(zeros(usize::MAX).unwrap_err());
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(error.to_string(), format!("there is no memory for {} bytes", usize::MAX));
        let mut bytes = vec![1, 2];
        assert!(resize(&mut bytes, usize::MAX / 2).is_err());
        assert_eq!(bytes, [1, 2]);
        resize(&mut bytes, 1).unwrap();
        assert_eq!(bytes, [1]);
    }
}
