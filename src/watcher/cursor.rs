//! The cursor plane: when to query it, and its pixels.

use std::time::Duration;

use drm_fourcc::DrmFourcc;

use crate::allocate;
use crate::clock::Clock;
use crate::console::{ScanoutSupport, Severity};
use crate::device::{Device, Failure};
use crate::exchange::CursorView;
use crate::format::Conversion;
use crate::plane::{Plane, PlaneKind};
use crate::pool::Key;
use crate::problem::Problem;

use super::{Planes, Watcher};

/// While the device answers "no cursor", only one poll in this many queries it: drivers without a
/// cursor plane and drivers whose cursor is off answer alike.
pub(crate) const ABSENT_INTERVAL: u32 = 16;

/// It is queried after this time, however few polls there were, so that a cursor appears soon.
const ABSENCE: Duration = Duration::from_millis(190);

/// A device that does not answer is not queried again for this long, unless there are many polls.
const SILENCE: Duration = Duration::from_secs(10);

/// What is known of the cursor plane.
#[derive(Debug, Default)]
pub enum Presence {
    /// To be queried at the next poll.
    #[default]
    Unknown,
    /// The device never showed a cursor, and refused the query: not queried again before a reset or
    /// a mode set.
    Unsupported,
    /// Off: not queried for this many polls, or until then.
    Absent(u32, Duration),
    /// Seen: queried at each poll.
    Present,
}

impl Presence {
    /// Whether to query the device at this poll.
    fn is_due(&mut self, now: Duration) -> bool {
        match self {
            Self::Unknown | Self::Present => true,
            Self::Unsupported => false,
            Self::Absent(polls, until) => {
                *polls = polls.saturating_sub(1);
                *polls == 0 || now >= *until
            }
        }
    }

    /// The device has a cursor plane, and it is off.
    fn absent(&mut self, now: Duration) {
        if !matches!(self, Self::Present) {
            self.pause(now + ABSENCE);
        }
    }

    /// The device refused the query. One that had a cursor has a cursor plane, whatever is wrong
    /// now.
    fn refused(&mut self, now: Duration) {
        match self {
            Self::Present => self.pause(now + ABSENCE),
            _ => *self = Self::Unsupported,
        }
    }

    /// Do not query for a while.
    fn pause(&mut self, until: Duration) {
        *self = Self::Absent(ABSENT_INTERVAL, until);
    }

    /// A reset or a mode set: forget what is known.
    pub fn forget(&mut self) {
        *self = Self::Unknown;
    }
}

impl<D: Device, T: Clock> Watcher<D, T> {
    /// Polls the cursor plane. `imported`: front ends import the screen, and so the cursor.
    pub(super) fn poll_cursor(&mut self, imported: bool) -> CursorView {
        let Planes::DmaBuf(planes) = &mut self.planes else { return CursorView::Unchanged };
        let now = self.clock.now();
        if self.budget.is_spent(now) || !self.cursor.is_due(now) {
            return CursorView::Unchanged;
        }
        let time = (self.budget, &self.clock);
        match planes.poll(&self.device, time, PlaneKind::Cursor, None, &mut self.counters) {
            Ok(Some((key, plane))) => {
                self.cursor = Presence::Present;
                self.show_cursor(key, &plane, imported).unwrap_or_else(|problem| {
                    self.complain(&problem, Severity::Warning);
                    CursorView::Hidden
                })
            }
            Ok(None) => {
                self.cursor.absent(now);
                CursorView::Hidden
            }
            Err(problem) => match problem.failure() {
                Some(Failure::Transient | Failure::NotAsked) => CursorView::Unchanged,
                Some(Failure::NotThere | Failure::Unsupported)
                    if matches!(problem, Problem::Query { .. }) =>
                {
                    self.cursor.refused(now);
                    CursorView::Hidden
                }
                failure => {
                    // Each query of a silent device costs time.
                    if failure == Some(Failure::Silent) {
                        self.cursor.pause(now + SILENCE);
                    }
                    self.complain(&problem, Severity::Warning);
                    CursorView::Hidden
                }
            },
        }
    }

    fn show_cursor(
        &mut self,
        key: Key,
        plane: &Plane,
        imported: bool,
    ) -> Result<CursorView, Problem> {
        let taken = imported && self.may_be_taken(key, plane);
        let pixels =
            if taken { self.glimpse(key, plane) } else { Some(self.cursor_pixels(key, plane)?) };
        let lease = self.lease(key, plane, PlaneKind::Cursor);
        Ok(lease.map_or(CursorView::Unchanged, |lease| CursorView::Shown(lease, pixels)))
    }

    /// Returns the pixels of a cursor that front ends import, to notice drawing in place (X servers
    /// draw each shape into one buffer). Only where that costs next to nothing.
    fn glimpse(&mut self, key: Key, plane: &Plane) -> Option<Vec<u8>> {
        let Planes::DmaBuf(planes) = &mut self.planes else { return None };
        if !planes.is_fast_to_read(key, PlaneKind::Cursor, &plane.geometry, &self.clock) {
            return None;
        }
        self.cursor_pixels(key, plane).ok()
    }

    /// Whether front ends may import this cursor: they need not, even if they import the screen.
    fn may_be_taken(&self, key: Key, plane: &Plane) -> bool {
        let Planes::DmaBuf(planes) = &self.planes else { return false };
        // Front ends and their clients map what they import.
        planes.pool.get(key).is_some_and(|buffer| buffer.dma_buf.can_be_mapped())
            && self.supports.of(key, plane.geometry.format) != Some(ScanoutSupport::None)
    }

    fn cursor_pixels(&mut self, key: Key, plane: &Plane) -> Result<Vec<u8>, Problem> {
        let (geometry, handle, what) = (plane.geometry, plane.handle, "cursor dma-buf with id");
        let Planes::DmaBuf(planes) = &mut self.planes else { return Ok(Vec::new()) };
        let Some(buffer) = planes.pool.get_mut(key) else { return Ok(Vec::new()) };
        if !Conversion::to_xrgb8888(geometry.format).is_some_and(Conversion::is_identity) {
            return Err(Problem::NoConversion { format: geometry.format, with_gl: true });
        }
        let memory = buffer.memory().map_err(|error| Problem::Map { what, handle, error })?;
        let row_bytes = geometry.width as usize * 4;
        let mut pixels = allocate::zeros(row_bytes * geometry.height as usize)
            .map_err(|error| Problem::Read { what, handle, error: error.into() })?;
        let _reading =
            memory.begin_reading().map_err(|error| Problem::Read { what, handle, error })?;
        for (y, row) in (0..).zip(pixels.chunks_exact_mut(row_bytes)) {
            memory.read(y * u64::from(geometry.stride), row).map_err(|error| Problem::Read {
                what,
                handle,
                error,
            })?;
        }
        if geometry.format.fourcc == DrmFourcc::Xrgb8888 {
            pixels.iter_mut().skip(3).step_by(4).for_each(|alpha| *alpha = 0xff);
        }
        Ok(pixels)
    }
}
