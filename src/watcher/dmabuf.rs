//! dma-buf mode: query the plane, then get its dma-buf, into the pool.
//!
//! The guest may flip between the two calls, and the device then no longer knows the id that it
//! just reported. That is no error: the plane is queried again, a bounded number of times within
//! one poll.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use drm_fourcc::DrmModifier;

use crate::clock::Clock;
use crate::device::{Device, Failure};
use crate::memory::{Gate, Memory};
use crate::plane::{Geometry, Plane, PlaneInfo, PlaneKind};
use crate::pool::{Buffer, Key, Limits, Pool};
use crate::problem::Problem;

use super::Counters;
use super::budget::Budget;
use super::query::{ask, query};

/// Maximum number of attempts within one poll, if the guest flips in between. A guest that flips a
/// thousand times a second wins this race once in a while, but not four times.
const ATTEMPTS: u32 = 4;

/// Memory is fast to read if so many bytes take no longer than [`FAST_TIME`]: 1 GiB/s. Memory of a
/// GPU that is mapped without caching gives a tenth of it, system memory ten times as much.
const SAMPLE_BYTES: usize = 256 << 10;

/// See [`SAMPLE_BYTES`].
const FAST_TIME: Duration = Duration::from_micros(250);

/// The first reading pays for page faults, and any may be interrupted.
const SAMPLES: usize = 4;

/// The planes of a device in dma-buf mode.
#[derive(Debug)]
pub struct DmaBufPlanes {
    /// The buffers we hold.
    pub pool: Pool,
    gate: Gate,
    primary: Option<Known>,
    cursor: Option<Known>,
    /// Size of the last picture.
    mode: Option<(u32, u32)>,
    /// Whether buffers of a kind can be read fast, measured once per mode.
    fast: HashMap<Kind, bool>,
}

/// What tells kinds of memory apart, as far as is known.
type Kind = (PlaneKind, DrmModifier, bool);

/// The last answer of the device, and what it led to.
#[derive(Debug)]
struct Known {
    info: PlaneInfo,
    plane: Plane,
    key: Key,
}

impl DmaBufPlanes {
    /// Creates planes without buffers.
    pub fn new(limits: Limits, exports_once: bool) -> Self {
        Self {
            pool: Pool::new(limits, exports_once),
            gate: Gate::default(),
            primary: None,
            cursor: None,
            mode: None,
            fast: HashMap::new(),
        }
    }

    /// Returns the buffer that the plane shows now; `None` if the plane is off. `answer`: the
    /// device's answer, if it is known already.
    ///
    /// Nothing is retried once the poll's time budget is spent.
    pub fn poll(
        &mut self,
        device: &impl Device,
        time: (Budget, &impl Clock),
        kind: PlaneKind,
        mut answer: Option<&PlaneInfo>,
        counters: &mut Counters,
    ) -> Result<Option<(Key, Plane)>, Problem> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            let info = match answer.take() {
                Some(info) => *info,
                None => query(device, PlaneInfo::DMABUF, kind, counters)?,
            };
            let known = self.known(kind).filter(|known| known.info == info);
            if let Some(known) = known.filter(|known| !self.pool.is_stale(known.key)) {
                return Ok(Some((known.key, known.plane)));
            }

            let checked =
                Plane::check(kind, &info).map_err(|error| Problem::InvalidPlane { kind, error })?;
            let Some(plane) = checked else {
                *self.slot(kind) = None;
                return Ok(None);
            };
            if kind == PlaneKind::Primary {
                self.note_mode(&plane.geometry, device.keeps_ids());
            }
            let id = plane.handle;
            let key = match self.pool.look_up(id, &plane.geometry) {
                Some(key) => key,
                None => match self.get(device, &plane, kind, counters) {
                    Ok(key) => key,
                    Err(Problem::Get { error, .. })
                        if Failure::of(&error) == Failure::NotThere
                            && attempts < ATTEMPTS
                            && !time.0.is_spent(time.1.now()) =>
                    {
                        counters.races += 1;
                        continue;
                    }
                    Err(Problem::Get { error, .. }) => {
                        return Err(Problem::Get { id, attempts, error });
                    }
                    Err(other) => return Err(other),
                },
            };
            *self.slot(kind) = Some(Known { info, plane, key });
            return Ok(Some((key, plane)));
        }
    }

    /// Returns what the primary plane showed at the last poll.
    pub fn primary(&self) -> Option<&PlaneInfo> {
        self.primary.as_ref().map(|known| &known.info)
    }

    /// Returns the buffer that the primary plane showed at the last poll, and its id.
    pub fn known_primary(&self) -> Option<(Key, u32)> {
        self.primary.as_ref().map(|known| (known.key, known.plane.handle))
    }

    /// Notices mode sets. The guest then frees the old buffers, and a device that does not see that
    /// we hold them reuses their ids.
    fn note_mode(&mut self, geometry: &Geometry, keeps_ids: bool) {
        let mode = Some((geometry.width, geometry.height));
        if self.mode != mode {
            self.fast.clear();
            if !keeps_ids {
                self.invalidate();
            }
        }
        self.mode = mode;
    }

    /// Whether the CPU reads this buffer faster than a GPU reads it back.
    pub fn is_fast_to_read(
        &mut self,
        key: Key,
        plane: PlaneKind,
        geometry: &Geometry,
        clock: &impl Clock,
    ) -> bool {
        let Some(Ok(memory)) = self.pool.get_mut(key).map(Buffer::memory) else { return false };
        let kind = (plane, geometry.format.modifier, memory.is_mapped());
        *self.fast.entry(kind).or_insert_with(|| is_fast(memory, clock))
    }

    /// Checks that a buffer may be shared: other devices map it.
    pub fn check_passing_on(&self, key: Key, id: u32) -> Result<(), Problem> {
        match self.pool.get(key) {
            Some(buffer) if !buffer.dma_buf.can_be_mapped() => {
                let error = io::Error::other("memory that may shrink is not passed on");
                Err(Problem::DmaBuf { id, error })
            }
            _ => Ok(()),
        }
    }

    /// The device was reset, or is gone: its answers are not valid any more.
    pub fn invalidate(&mut self) {
        self.primary = None;
        self.cursor = None;
        self.pool.invalidate();
    }

    fn get(
        &mut self,
        device: &impl Device,
        plane: &Plane,
        kind: PlaneKind,
        counters: &mut Counters,
    ) -> Result<Key, Problem> {
        let id = plane.handle;
        if self.pool.is_used_up(id) {
            return Err(Problem::UsedUp { id });
        }
        let refused = |error| Problem::DmaBuf { id, error };
        self.gate.check().map_err(refused)?;
        counters.gets += 1;
        let fd = device.get_dmabuf(id).map_err(|error| Problem::Get { id, attempts: 1, error })?;
        let dma_buf = self.gate.dma_buf(fd).map_err(refused)?;
        if let Err(error) = plane.fits(dma_buf.size()) {
            self.pool.refuse(id);
            return Err(Problem::InvalidPlane { kind, error });
        }
        let key = self.pool.insert(id, plane.geometry, dma_buf);
        self.pool.evict(Some(key));
        Ok(key)
    }

    fn known(&self, kind: PlaneKind) -> Option<&Known> {
        match kind {
            PlaneKind::Primary => self.primary.as_ref(),
            PlaneKind::Cursor => self.cursor.as_ref(),
        }
    }

    fn slot(&mut self, kind: PlaneKind) -> &mut Option<Known> {
        match kind {
            PlaneKind::Primary => &mut self.primary,
            PlaneKind::Cursor => &mut self.cursor,
        }
    }
}

/// Queries the primary plane, without its buffer. `None`: it is off.
pub fn check_flip(device: &impl Device, counters: &mut Counters) -> io::Result<Option<PlaneInfo>> {
    let info = ask(device, PlaneInfo::DMABUF, PlaneKind::Primary, counters)?;
    Ok((!info.is_off()).then_some(info))
}

/// Measures whether memory is fast to read. Small buffers are too fast for the clock, which does no
/// harm.
fn is_fast(memory: &Memory, clock: &impl Clock) -> bool {
    let mut sample =
        vec![0; usize::try_from(memory.len()).map_or(SAMPLE_BYTES, |l| l.min(SAMPLE_BYTES))];
    // The next reader reports the error.
    let Ok(_reading) = memory.begin_reading() else { return true };
    (0..SAMPLES).any(|_| {
        let began = clock.now();
        memory.read(0, &mut sample).is_ok() && clock.now().saturating_sub(began) <= FAST_TIME
    })
}
