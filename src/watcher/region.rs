//! Region mode: the picture is in a region of the device.

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::clock::Clock;
use crate::damage::Source;
use crate::device::{Device, RegionMemory};
use crate::format::Conversion;
use crate::memory::{Gate, Memory, Refused};
use crate::plane::{Geometry, Plane, PlaneInfo, PlaneKind};
use crate::problem::Problem;
use vfio_bindings::bindings::vfio::VFIO_PCI_NUM_REGIONS;

use super::Counters;
use super::budget::Budget;
use super::query::query;

/// The plane of a device in region mode.
#[derive(Debug, Default)]
pub struct RegionPlane {
    gate: Gate,
    known: Option<Known>,
    /// The device's answer at the last poll.
    answer: Option<PlaneInfo>,
}

#[derive(Debug)]
struct Known {
    index: u32,
    geometry: Geometry,
    pixels: Pixels,
}

/// Where the pixels of a region come from.
#[derive(Debug)]
enum Pixels {
    /// The region's memory. Front ends may hold it, too.
    Memory(Arc<Memory>),
    /// The region with this index cannot be mapped, and is read piece by piece through the device.
    Reads(u32),
}

/// The pixels of a region.
#[derive(Debug)]
pub struct RegionSource<'a, D, T> {
    pixels: &'a Pixels,
    device: &'a D,
    clock: &'a T,
    budget: Budget,
}

impl<D, T> RegionSource<'_, D, T> {
    /// Whether each piece takes a device call.
    pub fn is_slow(&self) -> bool {
        matches!(self.pixels, Pixels::Reads(_))
    }
}

impl<D: Device, T: Clock> Source for RegionSource<'_, D, T> {
    fn read(&self, offset: u64, to: &mut [u8]) -> io::Result<()> {
        match self.pixels {
            Pixels::Memory(memory) => memory.read(offset, to),
            Pixels::Reads(index) => {
                self.budget.check(self.clock.now())?;
                self.device.read_region(*index, offset, to)
            }
        }
    }

    fn is_mapped(&self) -> bool {
        matches!(self.pixels, Pixels::Memory(memory) if memory.is_mapped())
    }

    fn equals(&self, offset: u64, bytes: &[u8]) -> bool {
        matches!(self.pixels, Pixels::Memory(memory) if memory.equals(offset, bytes))
    }
}

impl RegionPlane {
    /// Returns what the plane shows now; `None` if the plane is off. The last value: whether its
    /// pixels come from elsewhere than before. `again`: use the answer of the last poll.
    pub fn poll(
        &mut self,
        device: &impl Device,
        again: bool,
        counters: &mut Counters,
    ) -> Result<Option<(Plane, Conversion, bool)>, Problem> {
        let kind = PlaneKind::Primary;
        let info = match self.answer.take().filter(|_| again) {
            Some(info) => info,
            None => query(device, PlaneInfo::REGION, kind, counters)?,
        };
        self.answer = Some(info);
        let checked =
            Plane::check(kind, &info).map_err(|error| Problem::InvalidPlane { kind, error })?;
        let Some(plane) = checked else { return Ok(None) };
        let format = plane.geometry.format;
        let conversion = Conversion::to_xrgb8888(format)
            .ok_or(Problem::NoConversion { format, with_gl: false })?;

        let (index, geometry) = (plane.handle, plane.geometry);
        let moved = self.known.as_ref().is_none_or(|k| k.index != index || k.geometry != geometry);
        if moved {
            self.known = None;
            counters.maps += 1;
            let pixels = self.open(device, &plane)?;
            self.known = Some(Known { index, geometry, pixels });
        }
        Ok(Some((plane, conversion, moved)))
    }

    /// Returns the pixels of the plane that [`RegionPlane::poll`] found, to be read within a poll's
    /// time budget.
    pub fn source<'a, D: Device, T: Clock>(
        &'a self,
        device: &'a D,
        clock: &'a T,
        budget: Budget,
    ) -> Option<RegionSource<'a, D, T>> {
        let pixels = &self.known.as_ref()?.pixels;
        Some(RegionSource { pixels, device, clock, budget })
    }

    /// Returns the memory of the plane that [`RegionPlane::poll`] found, if it is mapped.
    pub fn memory(&self) -> Option<&Arc<Memory>> {
        match &self.known.as_ref()?.pixels {
            Pixels::Memory(memory) => Some(memory),
            Pixels::Reads(_) => None,
        }
    }

    /// The device was reset, or is gone: its answers are not valid any more.
    pub fn invalidate(&mut self) {
        self.known = None;
    }

    fn open(&self, device: &impl Device, plane: &Plane) -> Result<Pixels, Problem> {
        let index = plane.handle;
        let refused = |error| Problem::RegionMemory { index, error };
        self.gate.check().map_err(refused)?;
        let region = device.region(index).map_err(|error| Problem::RegionInfo { index, error })?;
        plane.fits(region.size).map_err(|error| Problem::Region { index, error })?;
        let is_pci = index < VFIO_PCI_NUM_REGIONS;
        let reads = || {
            // The guest waits for such a region, too, so calls have the guest's long time-out.
            if is_pci && !device.keeps_ids() {
                return Err(refused(Refused::Missing.into()));
            }
            Ok(Pixels::Reads(index))
        };
        let Some(RegionMemory { fd, offset, is_device }) = region.memory else {
            return reads();
        };
        let needed = plane.geometry.bytes_needed();
        let memory = match (is_device, is_pci) {
            (false, _) => self.gate.memory(fd, offset, needed),
            (true, false) => Memory::of_device(fd.as_fd(), offset, needed),
            // The guest can disable BARs, which takes their mappings away.
            (true, true) => return reads(),
        };
        match memory {
            Ok(memory) => Ok(Pixels::Memory(Arc::new(memory))),
            Err(error) if Refused::is(&error) => Err(refused(error)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Problem::Read { what: "graphics region", handle: index, error })
            }
            Err(_) => reads(),
        }
    }
}
