//! A string of bytes that is read as a script: numbers, planes and files for hostile devices.

use std::fs::File;

use drm_fourcc::DrmFourcc;

use crate::plane::PlaneInfo;

use super::{Errors, Memfds, WrongFile};

/// No buffer is larger, in bytes, so that scripts run fast.
pub(crate) const MAX_FILE: u64 = 1 << 20;

/// Ids and region indices are few, so that they meet again.
const HANDLES: u32 = 5;

const ERRNOS: [i32; 12] = [
    libc::ENOENT,
    libc::EINVAL,
    libc::ENOMEM,
    libc::EAGAIN,
    libc::EINTR,
    libc::EBUSY,
    libc::ENOTTY,
    libc::ETIMEDOUT,
    libc::ENODEV,
    libc::EPIPE,
    libc::EIO,
    libc::EPROTO,
];

const FORMATS: [u32; 8] = [
    DrmFourcc::Xrgb8888 as u32,
    DrmFourcc::Argb8888 as u32,
    DrmFourcc::Abgr8888 as u32,
    DrmFourcc::Rgb565 as u32,
    DrmFourcc::Xrgb2101010 as u32,
    DrmFourcc::C8 as u32,
    DrmFourcc::Nv12 as u32,
    0,
];

/// Reads a script.
pub(crate) struct Bytes<'a>(pub(crate) &'a [u8]);

impl Bytes<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let (now, later) = self.0.split_at(N.min(self.0.len()));
        taken[..now.len()].copy_from_slice(now);
        self.0 = later;
        taken
    }

    pub(crate) fn byte(&mut self) -> u8 {
        u8::from_le_bytes(self.take())
    }

    pub(crate) fn small(&mut self) -> u32 {
        u32::from(self.byte())
    }

    pub(crate) fn medium(&mut self) -> u32 {
        u16::from_le_bytes(self.take()).into()
    }

    pub(crate) fn size(&mut self) -> (u32, u32) {
        (self.medium(), self.medium())
    }

    pub(crate) fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 != 0
    }

    pub(crate) fn handle(&mut self) -> u32 {
        self.small() % HANDLES
    }

    pub(crate) fn one_of<T: Copy, const N: usize>(&mut self, choices: [T; N]) -> T {
        choices[self.byte() as usize % N]
    }

    pub(crate) fn len(&mut self) -> u64 {
        (u64::from(self.medium()) * 64).min(MAX_FILE)
    }

    /// A plane that may be anything.
    pub(crate) fn any_plane(&mut self) -> PlaneInfo {
        PlaneInfo {
            drm_format: self.word(),
            drm_format_mod: u64::from_le_bytes(self.take()),
            width: self.word(),
            height: self.word(),
            stride: self.word(),
            size: self.word(),
            x_pos: self.word(),
            y_pos: self.word(),
            x_hot: self.word(),
            y_hot: self.word(),
            handle: self.word(),
            ..PlaneInfo::default()
        }
    }

    /// A plane that is nearly right.
    pub(crate) fn likely_plane(&mut self) -> PlaneInfo {
        let (width, height) = (self.small(), self.small());
        let stride = width * 4 + self.small() / 64 * 4;
        PlaneInfo {
            drm_format: self.one_of(FORMATS),
            drm_format_mod: self.one_of([0, 0, 0, (1 << 56) | 1]),
            width,
            height,
            stride,
            size: (stride * height).saturating_add_signed(self.one_of([0, 0, 0, -4, 4096])),
            x_pos: self.medium(),
            y_pos: self.medium(),
            x_hot: self.small(),
            y_hot: self.small(),
            handle: self.handle(),
            ..PlaneInfo::default()
        }
    }

    /// A file as devices give, sometimes something else.
    pub(crate) fn file(&mut self, files: &Memfds, len: u64) -> File {
        let choice = self.byte();
        match WrongFile::ALL.get(usize::from(choice >> 5)) {
            Some(wrong) if choice & 0x10 != 0 => wrong.open(),
            _ => files.create(len, choice & 1 != 0),
        }
    }

    pub(crate) fn errno(&mut self) -> i32 {
        self.one_of(ERRNOS)
    }

    /// Up to and including a line break, which is not returned.
    pub(crate) fn line(&mut self) -> Vec<u8> {
        let end = self.0.iter().position(|byte| *byte == b'\n').unwrap_or(self.0.len());
        let (line, rest) = self.0.split_at(end);
        self.0 = rest;
        self.byte();
        line.to_vec()
    }

    pub(crate) fn errors(&mut self) -> Errors {
        let errno = self.errno();
        match self.byte() {
            0 => Errors::default(),
            255 => Errors::always(errno),
            count => Errors::times(count.into(), errno),
        }
    }
}
